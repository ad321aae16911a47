import jax.numpy as jnp
import numpy as np
import pytest

from hbt import losses


def batch(rows=6, depth=1, seed=0, width=8):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        x = rng.normal(size=shape)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    ids = np.arange(rows * depth).reshape(rows, depth) + 100
    return [
        unit(rows, width),
        unit(rows, depth, width),
        jnp.arange(rows, dtype=jnp.int32),
        jnp.asarray(ids, jnp.int32),
    ]


def plain(q, d, query_ids, document_ids, temperature):
    """Equation 1 with all in-batch documents, row by row."""
    q, d = np.asarray(q, np.float64), np.asarray(d, np.float64)
    rows, depth, _ = d.shape
    total = 0.0
    for i in range(rows):
        positive = q[i] @ d[i, 0] / temperature
        terms = [np.exp(positive)]
        for j in range(rows):
            for n in range(depth):
                if document_ids[j, n] in (document_ids[i, 0], losses.ABSENT):
                    continue
                if n == 0 and query_ids[j] == query_ids[i]:
                    continue
                terms.append(np.exp(q[i] @ d[j, n] / temperature))
        total += -np.log(np.exp(positive) / sum(terms))
    return total / rows


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_infonce_equals_the_plain_formula(depth):
    parts = batch(depth=depth)
    value, _ = losses.infonce(*parts, temperature=0.1)
    np.testing.assert_allclose(value, plain(*parts, 0.1), rtol=1e-5)


def test_equal_documents_and_queries_are_not_negatives():
    q, d, query_ids, document_ids = batch(depth=2)
    document_ids = document_ids.at[1, 0].set(document_ids[4, 0]).at[2, 1].set(losses.ABSENT)
    document_ids = document_ids.at[3, 1].set(document_ids[0, 0]).at[5, 1].set(-1)
    query_ids = query_ids.at[5].set(query_ids[0])
    parts = q, d, query_ids, document_ids
    value, _ = losses.infonce(*parts, temperature=0.1)
    np.testing.assert_allclose(value, plain(*parts, 0.1), rtol=1e-5)


def test_a_copy_of_a_row_is_a_negative_of_all_rows_but_its_own():
    query_ids = jnp.array([1, 2, 3, 1])
    document_ids = jnp.array([10, 20, 30, 10])
    mask = losses.negatives(query_ids, document_ids, document_ids, query_ids, jnp.ones(4, bool))
    expected = [[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))


def test_what_a_masked_document_is_does_not_matter():
    q, d, query_ids, document_ids = batch()
    document_ids = document_ids.at[1, 0].set(document_ids[0, 0])

    def first(d):  # the loss of row 0 alone
        doubled = jnp.concatenate([q[:1], q[:1]]), jnp.stack([d[0], d[1]])
        ids = jnp.zeros(2, jnp.int32), document_ids[:2]
        return losses.infonce(*doubled, *ids, 0.1)[0]

    assert first(d) == first(d.at[1].multiply(-1))


def test_a_batch_of_one_document_has_zero_loss():
    q, d, query_ids, document_ids = batch()
    same = jnp.full_like(document_ids, 7)
    value, metrics = losses.infonce(q, d, query_ids, same, 0.1)
    assert value == 0 and metrics['accuracy'] == 1


def test_the_loss_is_float32_at_least():
    q, d, *ids = batch()
    value, _ = losses.infonce(q.astype(jnp.bfloat16), d.astype(jnp.bfloat16), *ids, 0.1)
    assert value.dtype == jnp.float32
