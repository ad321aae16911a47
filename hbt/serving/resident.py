"""Documents that stay on the devices, and the best of them for a query: exact, by dot product."""

import functools
import typing
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hbt.evaluation import rank_counts, search
from hbt.utils import sharding


class Documents(typing.NamedTuple):
    """Embeddings in blocks, which are divided over the devices in the order of the documents."""

    embeddings: Float[Array, 'blocks block d']
    languages: Int[Array, 'blocks block']  # code of each document; -1: padding
    count: int
    mesh: jax.sharding.Mesh


def put_documents(
    embeddings: Float[np.ndarray, 'n d'],
    languages: Int[np.ndarray, ' n'],
    transform: abc.Callable = lambda vectors, languages: vectors,
) -> Documents:
    """Puts documents on all devices.

    Args:
      embeddings: may be a memory map.
      languages: code of each document.
      transform: (embeddings [m d], their languages [m]) -> embeddings [m d] of what is put there.
    """
    mesh, (count, dim) = sharding.make_mesh(), embeddings.shape
    block = search.make_layout(count, mesh).block // mesh.size
    blocks = -(-count // (block * mesh.size)) * mesh.size
    split = sharding.sharded(mesh)

    def read(array, fill, index, convert=lambda rows, start, stop: rows):
        first, last = index[0].start or 0, index[0].stop or blocks
        start, stop = min(first * block, count), min(last * block, count)
        shape = ((last - first) * block, *array.shape[1:])
        out = np.full(shape, fill, array.dtype)
        for i in range(start, stop, block):
            end = min(i + block, stop)
            out[i - start : end - start] = convert(array[i:end], i, end)
        return out.reshape(last - first, block, *array.shape[1:])

    def convert(rows, start, stop):
        return transform(rows, languages[start:stop])

    codes = languages.astype(np.int32)
    return Documents(
        jax.make_array_from_callback(
            (blocks, block, dim), split, lambda x: read(embeddings, 0, x, convert)
        ),
        jax.make_array_from_callback((blocks, block), split, lambda x: read(codes, -1, x)),
        count,
        mesh,
    )


def find_best(
    queries: Float[np.ndarray, 'q d'],
    documents: Documents,
    k: int,
    allowed: abc.Sequence[bool],
) -> tuple[Float[np.ndarray, 'q k'], Int[np.ndarray, 'q k']]:
    """Scores and indices of the best k documents for every query, the best first.

    Of equal scores, the smaller index is above. Where fewer than k documents are allowed, scores
    are -inf at the end. `allowed` says of every language code whether its documents may be found.
    """
    q, k = len(queries), min(k, documents.count)
    block = documents.embeddings.shape[1]
    # Few shapes: powers of two, up to as many scores at a time as stay in a cache.
    size = 1 << min(max(q - 1, 0).bit_length(), (search.DEVICE_SCORES // block).bit_length() - 1)
    scores, indices = np.empty((q, k), np.float32), np.empty((q, k), np.int32)
    step = _make_step(documents.mesh, k)
    mask = np.array([*allowed, False])  # the last is that of -1, the padding
    for start in range(0, q, size):
        rows = queries[start : start + size].astype(np.float32)
        padded = np.pad(rows, ((0, size - len(rows)), (0, 0)))
        best = step(padded, documents.embeddings, documents.languages, mask)
        for out, values in zip((scores, indices), best, strict=True):
            out[start : start + size] = np.asarray(values)[: len(rows)]
    return scores, indices


@functools.cache
def _make_step(mesh: jax.sharding.Mesh, k: int) -> abc.Callable:
    """Compiles `step(queries, embeddings, languages, allowed) -> (scores, indices)`, [q k] each."""

    def find_on_device(queries, embeddings, languages, allowed):
        def find_in_block(block):
            vectors, codes = block
            # By default a TPU multiplies float32 matrices in bfloat16, which makes ties.
            scores = jnp.matmul(queries, vectors.T, precision=jax.lax.Precision.HIGHEST)
            return rank_counts.select_top_k(jnp.where(allowed[codes][None], scores, -jnp.inf), k)

        scores, indices = jax.lax.map(find_in_block, (embeddings, languages))  # blocks q m
        first = jax.lax.axis_index(sharding.AXIS) * len(embeddings)
        starts = (first + jnp.arange(len(embeddings), dtype=jnp.int32)) * embeddings.shape[1]
        return _join_blocks(scores), _join_blocks(indices + starts[:, None, None])

    split = sharding.sharded(mesh).spec
    mapped = jax.shard_map(
        find_on_device,
        mesh=mesh,
        in_specs=(jax.P(), split, split, jax.P()),
        out_specs=sharding.sharded(mesh, 1).spec,
    )

    def step(queries, embeddings, languages, allowed):
        # Candidates are in the order of the documents, which settles ties.
        scores, indices = mapped(queries, embeddings, languages, allowed)
        best, places = jax.lax.top_k(scores, k)
        return best, jnp.take_along_axis(indices, places, axis=1)

    return jax.jit(step, out_shardings=sharding.replicated(mesh))


def _join_blocks(x: Array) -> Array:
    """[blocks q m] to [q blocks*m]."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)
