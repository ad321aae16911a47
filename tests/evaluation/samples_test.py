import json

import numpy as np
import pytest

from hbt.evaluation import results, samples
from tests import fake_runs

LANGUAGES = ('de', 'en', 'zh')


def draw(questions=6, names=LANGUAGES, seed=0):
    """A benchmark, its embeddings, and their sample."""
    case = fake_runs.make_benchmark(names=names, questions=questions)
    generator = np.random.default_rng(seed)
    sides = [
        generator.standard_normal((len(x.ids), 4)).astype(np.float32)
        for x in (case.queries, case.documents)
    ]
    return case, sides, samples.draw_sample(case, case.parallel, *sides)


def test_a_sample_has_the_same_questions_and_their_answers_in_every_language(monkeypatch):
    monkeypatch.setattr(samples, 'TEXTS', 4)
    case, (queries, documents), sample = draw(questions=9)
    assert len(sample.vectors) == 2 * 3 * 4 and sample.is_document.sum() == 12
    parts = [x.split(':') for x in sample.ids]
    chosen = {number for kind, _, number in parts if kind == 'q'}
    assert len(chosen) == 4 and chosen == {number for kind, _, number in parts if kind == 'd'}
    assert {(kind, language) for kind, language, _ in parts} == {
        (kind, language) for kind in 'qd' for language in LANGUAGES
    }
    assert len(sample.translated) == 12
    for group in {*sample.groups[:12]}:
        assert len({x.split(':')[2] for x in np.array(sample.ids)[sample.groups == group]}) == 1
    assert sample.languages == [language for _, language, _ in parts]
    for vector, name, is_document in zip(
        sample.vectors, sample.ids, sample.is_document, strict=True
    ):
        side, vectors = (case.documents, documents) if is_document else (case.queries, queries)
        np.testing.assert_array_equal(vector, vectors[list(side.ids).index(name)])


def test_samples_of_two_models_have_the_same_texts():
    first, second = draw()[2], draw(seed=1)[2]
    assert first.ids == second.ids and not np.array_equal(first.vectors, second.vectors)


def test_a_benchmark_of_one_language_has_no_sample():
    assert draw(names=('de',))[2] is None


def test_a_sample_is_read_back_as_it_was_saved_with_its_result(tmp_path):
    result = fake_runs.save_result(tmp_path, fake_runs.make_benchmark(names=LANGUAGES))
    path = samples.sample_path(tmp_path / 'xquad_r.json')
    loaded = samples.load_sample(path)
    assert loaded.vectors.dtype == np.float32
    for ours, theirs in zip(result.sample, loaded, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not [x for x in tmp_path.rglob('*') if 'partial' in x.name]
    path.unlink()  # as a version without samples left it
    assert results.load_result(tmp_path / 'xquad_r.json').sample is None


def test_a_file_that_is_no_sample_is_named(tmp_path):
    fake_runs.save_result(tmp_path, fake_runs.make_benchmark(names=LANGUAGES))
    path = samples.sample_path(tmp_path / 'xquad_r.json')
    arrays = dict(np.load(path))
    for change, message in (
        ({'vectors': arrays['vectors'][:-1]}, 'the shapes'),
        ({'vectors': arrays['vectors'] * np.nan}, 'not finite'),
        ({'format': 2}, 'format 2, expected 1; evaluate again'),
    ):
        np.savez(path, **arrays | change)
        with pytest.raises(ValueError, match=f'xquad_r.npz: expected a sample of .*{message}'):
            samples.load_sample(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match='xquad_r.npz: expected a sample of embeddings, got 50 b'):
        samples.load_sample(path)
    path.write_text(json.dumps({}))
    with pytest.raises(ValueError, match='xquad_r.npz: expected a sample of embeddings, got 2 by'):
        samples.load_sample(path)


def test_the_share_of_the_variance_that_the_language_explains_is_that_between_languages():
    languages = ['de', 'de', 'en', 'en', 'en']
    vectors = np.array([[1, 0], [3, 0], [7, 1], [7, 1], [7, 4]], float)
    mean = vectors.mean(axis=0)
    between = 2 * sum((np.array([2, 0]) - mean) ** 2) + 3 * sum((np.array([7, 2]) - mean) ** 2)
    expected = between / ((vectors - mean) ** 2).sum()
    assert samples.explained_share(vectors, languages) == pytest.approx(expected)
    assert samples.explained_share(vectors + 100, languages) == pytest.approx(expected)
    assert samples.explained_share(5 * vectors, languages) == pytest.approx(expected)
    assert samples.explained_share(vectors[[0, 0, 3, 3, 3]], languages) == pytest.approx(1)
    assert samples.explained_share(vectors[[0, 1, 0, 1]], ['de', 'de', 'en', 'en']) == 0
    assert np.isnan(samples.explained_share(vectors[[0, 0]], ['de', 'en']))


def test_the_plane_of_a_sample_is_that_of_its_first_principal_components():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((50, 6)) * [1, 9, 1, 1, 5, 1] + 3
    points, shown = samples.project(vectors)
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    expected = (left * scale)[:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), rtol=1e-9, atol=1e-9)
    assert shown == pytest.approx((scale[:2] ** 2).sum() / (scale**2).sum())
    points, shown = samples.project(np.ones((3, 6)))
    assert not points.any() and shown == 0


def test_the_share_of_vectors_without_a_language_is_that_of_chance():
    vectors = np.random.default_rng(0).standard_normal((2000, 64))
    languages = np.repeat([f'l{i}' for i in range(11)], 182)[:2000].tolist()
    assert samples.explained_share(vectors, languages) == pytest.approx(10 / 1999, rel=0.2)
