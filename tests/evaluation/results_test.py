import json

import numpy as np
import pytest

from hbt.evaluation import aggregate, benchmarks, evaluator, results


def benchmark(texts=('ask', 'frag')):
    queries = [
        benchmarks.Entry('q:en:1', 'en', texts[0]),
        benchmarks.Entry('q:de:1', 'de', texts[1]),
    ]
    documents = [
        benchmarks.Entry('d:en:1', 'en', 'x'),
        benchmarks.Entry('d:de:1', 'de', 'y'),
        benchmarks.Entry('d:de:2', 'de', 'z'),
    ]
    qrels = {query.id: {'d:en:1': 1, 'd:de:1': 1} for query in queries}
    return benchmarks.assemble(
        'set:a/b', benchmarks.Collection(queries, documents, qrels, {'q:en:1': '1', 'q:de:1': '1'})
    )


def save_and_load(folder, seed=0, **texts):
    case = benchmark(**texts)
    generator = np.random.default_rng(seed)
    queries, documents = (generator.standard_normal((n, 4)).astype(np.float32) for n in (2, 3))
    result = evaluator.score_embeddings(case, queries, documents)
    result.numbers['manifest'] = results.make_manifest(case, {'prefixes': ['', '']})
    results.save_result(result, folder, 7)
    return result, results.load_result(folder / 'set-a-b.json')


def test_a_result_is_read_back_as_it_was_saved(tmp_path):
    result, loaded = save_and_load(tmp_path)
    assert loaded.numbers == json.loads(
        json.dumps({'format': results.FORMAT, 'step': 7} | result.numbers)
    )
    assert loaded.query_ids == ['q:en:1', 'q:de:1'] and loaded.languages == ['de', 'en']
    assert loaded.query_languages.tolist() == [1, 0] and loaded.query_groups.tolist() == [0, 0]
    for side in aggregate.QueryMetrics._fields:
        ours, theirs = getattr(result.query_metrics, side), getattr(loaded.query_metrics, side)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-6)
    means = {name: np.nanmean(x) for name, x in loaded.query_metrics.pooled.items()}
    assert means['map'] == pytest.approx(loaded.numbers['metrics']['multi']['map'])


def test_the_manifest_tells_what_the_numbers_depend_on(tmp_path):
    _, loaded = save_and_load(tmp_path)
    manifest = loaded.numbers['manifest']
    assert manifest['documents'] == {'de': 2, 'en': 1} and manifest['unanswerable'] == 0
    assert manifest['prefixes'] == ['', ''] and 'descending' in manifest['ties']
    assert set(manifest['versions']) == {'python', 'hbt', *results.PACKAGES}
    assert len(manifest['content']) == 64


def test_results_of_other_queries_are_not_compared(tmp_path):
    _, first = save_and_load(tmp_path / 'a')
    _, second = save_and_load(tmp_path / 'b', seed=1)
    results.check_comparable(first, second)
    _, other = save_and_load(tmp_path / 'c', texts=('ask', 'anders'))
    with pytest.raises(ValueError, match='c/set-a-b.json: content: expected .* as in .*/a/set'):
        results.check_comparable(first, other)
    fewer = second._replace(query_ids=second.query_ids[:1])
    with pytest.raises(ValueError, match=r"got 1; 1 are in one alone, such as \['q:de:1'\]"):
        results.check_comparable(first, fewer)


def test_a_file_that_is_not_a_result_is_named(tmp_path):
    save_and_load(tmp_path)
    path = tmp_path / 'set-a-b.json'
    with pytest.raises(ValueError, match='none.json: expected the result of an evaluation'):
        results.load_result(tmp_path / 'none.json')
    path.with_suffix('.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match='set-a-b.npz: expected values of every query, got 2 byt'):
        results.load_result(path)
    path.write_text('{}')
    with pytest.raises(ValueError, match='set-a-b.json: expected the result of an evaluation'):
        results.load_result(path)


def test_a_benchmark_without_anything_relevant_is_refused():
    rows = [benchmarks.Entry('q:1', 'en', 'x')], [benchmarks.Entry('d:1', 'en', 'y')]
    with pytest.raises(ValueError, match='x: expected relevant documents, got none'):
        benchmarks.assemble('x', benchmarks.Collection(*rows, {'q:1': {'d:1': 0}}))
    with pytest.raises(ValueError, match="expected judgements of its queries, got one of 'q:2'"):
        benchmarks.assemble('x', benchmarks.Collection(*rows, {'q:2': {'d:1': 1}}))
    with pytest.raises(ValueError, match='x: documents: expected at least one, got none'):
        benchmarks.assemble('x', benchmarks.Collection(rows[0], [], {'q:1': {}}))


def edit_json(path, change):
    numbers = json.loads(path.read_text())
    change(numbers)
    path.write_text(json.dumps(numbers))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: x.pop('format'), 'evaluation in format 2, got 1; evaluate again'),
        (lambda x: x.update(format=3), 'evaluation in format 2, got 3; evaluate again'),
        (lambda x: x.pop('manifest'), "evaluation with 'manifest', got 'None'"),
        (lambda x: x.update(metrics=[1]), "evaluation with 'metrics', got .*1"),
        (
            lambda x: x['metrics']['mono'].update(map=float('nan')),
            'metrics.mono.map: expected a finite number, got nan',
        ),
        (lambda x: x['metrics']['mono'].update(map=10**400), 'mono.map: .* finite number, got 10'),
        (lambda x: x['pairs']['de-en'].update(map='1'), "pairs.de-en.map: .* number, got '1'"),
        (lambda x: x['metrics']['multi'].update(map=0.123), 'expected 0.123 as in set-a-b.json'),
    ],
)
def test_invalid_numbers_are_refused_with_file_and_key(tmp_path, change, message):
    save_and_load(tmp_path)
    edit_json(tmp_path / 'set-a-b.json', change)
    with pytest.raises(ValueError, match=f'set-a-b.(json|npz): .*{message}'):
        results.load_result(tmp_path / 'set-a-b.json')


@pytest.mark.parametrize('ending', ['json', 'npz'])
@pytest.mark.parametrize('share', [0, 0.5])
def test_a_half_written_result_is_refused_by_the_name_of_its_file(tmp_path, ending, share):
    save_and_load(tmp_path)
    path = tmp_path / f'set-a-b.{ending}'
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=f'set-a-b.{ending}: expected .* got {path.stat().st_size}'
    ):
        results.load_result(tmp_path / 'set-a-b.json')
    path.unlink()
    with pytest.raises(ValueError, match=f'set-a-b.{ending}: expected the result .* no such file'):
        results.load_result(tmp_path / 'set-a-b.json')


def test_values_of_other_queries_than_the_numbers_are_refused(tmp_path):
    save_and_load(tmp_path)
    path = tmp_path / 'set-a-b.npz'
    arrays = dict(np.load(path))
    for name, values, message in (
        ('pooled/map', arrays['pooled/map'] * 0.5, 'multi.map: expected'),
        (
            'query_languages',
            arrays['query_languages'][:1],
            r'query_languages: expected the shape \(2,\), got \(1,\)',
        ),
        (
            'per_language/map',
            arrays['per_language/map'][:, :1],
            r'per_language/map: expected the shape \(2, 2\)',
        ),
    ):
        np.savez(path, **arrays | {name: values})
        with pytest.raises(ValueError, match=f'set-a-b.npz: .*{message}'):
            results.load_result(tmp_path / 'set-a-b.json')
