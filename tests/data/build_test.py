import gzip
import json
import os

import numpy as np
import pytest
import tokenizers

from hbt import config
from hbt.data import array_files, build, ragged, store, tokenizer_files, workers
from hbt.data.readers import registry, text_lines

DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=24)
GROUPS = [
    {
        'id': f'row{i}',
        'query': {'en': f'what is number {i}?', 'de': f'was ist die Nummer {i}?'},
        'passage': {'en': f'number {i} is ' + 'very ' * i + 'fine', 'ja': f'番号 {i} です。'},
    }
    for i in range(30)
]


def lines(*groups):
    return ''.join(json.dumps(group, ensure_ascii=False) + '\n' for group in groups)


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def decode(opened, table, i):
    tokenizer = tokenizers.Tokenizer.from_file(str(opened.path / 'tokenizer.json'))
    return tokenizer.decode(
        table.tokens[table.starts[i] : table.starts[i] + table.lengths[i]]
    ).strip()


def test_a_store_has_the_tokens_of_every_text_with_its_prefix(tmp_path):
    opened = build.build_store(DATA, tmp_path / 's', [write(tmp_path / 'a.jsonl', lines(*GROUPS))])
    (dataset,) = opened.datasets
    assert opened.languages == ('de', 'en', 'ja') and dataset.num_groups == 30
    assert [dataset.group_id(i) for i in (0, 29)] == ['row0', 'row29']
    for i, group in enumerate(GROUPS):
        assert decode(opened, dataset.query['de'], i) == 'Query: ' + group['query']['de']
        assert decode(opened, dataset.passage['ja'], i) == 'Passage: ' + group['passage']['ja']


def test_a_long_text_is_truncated_keeps_its_end_token_and_is_counted(tmp_path):
    opened = build.build_store(DATA, tmp_path / 's', [write(tmp_path / 'a.jsonl', lines(*GROUPS))])
    table = opened.datasets[0].passage['en']
    sizes = table.lengths
    assert sizes.max() == 24 and (table.tokens[table.starts + sizes - 1] == 2).all()
    tokenizer = tokenizers.Tokenizer.from_file(str(opened.path / 'tokenizer.json'))
    long = sum(len(tokenizer.encode('Passage: ' + r['passage']['en']).ids) > 24 for r in GROUPS)
    count = opened.manifest['datasets'][0]['passage']['en']
    assert 0 < long == count['truncated'] and count['tokens'] == sizes.sum()
    assert f'{100 * long / 30:.1f}' in build.format_counts(opened.manifest)


def test_a_language_that_starts_late_or_stops_early_keeps_its_indices(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, 'BLOCK', 256)
    groups = [
        {'id': str(i), 'query': {x: f'q {i} {x}'}, 'passage': {'en': f'p {i}'}}
        for i, x in enumerate(['en'] * 10 + ['de'] * 10 + ['en'] * 2)
    ]
    groups[7]['negatives'] = {'en': ['wrong a', 'wrong b']}
    opened = build.build_store(DATA, tmp_path / 's', [write(tmp_path / 'a.jsonl', lines(*groups))])
    dataset = opened.datasets[0]
    for i, group in enumerate(groups):
        for language in ('en', 'de'):
            text = group['query'].get(language)
            assert bool(dataset.query[language].hashes[i]) == bool(text)
            if text:
                assert decode(opened, dataset.query[language], i) == f'Query: {text}'
    negatives = dataset.negatives['en']
    assert list(np.diff(negatives.offsets)) == [2 if i == 7 else 0 for i in range(22)]
    assert decode(opened, dataset.passage['en'], negatives.passages[1]) == 'Passage: wrong b'


def test_gzip_and_plain_files_make_the_same_store(tmp_path):
    plain = write(tmp_path / 'a.jsonl', lines(*GROUPS))
    zipped = write(tmp_path / 'b.jsonl.gz', gzip.compress(lines(*GROUPS).encode()))
    a = build.build_store(DATA, tmp_path / 'sa', [plain]).datasets[0]
    b = build.build_store(DATA, tmp_path / 'sb', [zipped]).datasets[0]
    for x in ('en', 'de'):
        np.testing.assert_array_equal(a.query[x].tokens, b.query[x].tokens)


@pytest.mark.parametrize(
    'line, message',
    [
        (b'{"query": {"en": "q"}, "passage": {"en": "p"}}', 'id: expected a non-empty string'),
        (b'{"id": "", "query": {"en": "q"}, "passage": {"en": "p"}}', 'id: expected a non-empty'),
        (b'{"id": "x", "query": {"en": " "}, "passage": {"en": "p"}}', 'query: en: .* text'),
        (b'{"id": "x", "query": {"en": 3}, "passage": {"en": "p"}}', 'query: en: .* got 3'),
        (b'{"id": "x", "query": {"qx": "q"}, "passage": {"en": "p"}}', "such as en, got 'qx'"),
        (b'{"id": "x", "query": {"../a": "q"}, "passage": {"en": "p"}}', 'language code'),
        (b'{"id": "x", "query": {}, "passage": {"en": "p"}}', 'query: expected {language: text}'),
        (b'{"id": "x", "query": {"en": "q"}}', 'passage: expected .* got nothing'),
        (b'{"id": "x", "query": {"en": "q"}, "passage": ["p"]}', 'passage: expected'),
        (b'{"id": "x", "query": {"en": "q"}, "passage": {"en": "p"}, "neg": 1}', "'neg'"),
        (
            b'{"id": "x", "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": {"en": "n"}}',
            'negatives: en: expected a list',
        ),
        (b'{"id": "x", "query": {"en": "\\ud800"}, "passage": {"en": "p"}}', 'lone surrogate'),
        (b'{"id": "x", ', 'expected a JSON object'),
        (b'[1]', 'expected a JSON object, got list'),
        (b'\xff\xfe', 'expected UTF-8'),
        (b'', 'expected text, got an empty line'),
        (b'{"id": "row1", "query": {"en": "q"}, "passage": {"en": "p"}}', 'that of .*bad.jsonl:2'),
    ],
)
def test_a_bad_group_is_refused_with_its_file_and_line(tmp_path, line, message):
    text = lines(*GROUPS[:4]).encode() + line + b'\n' + lines(*GROUPS[4:6]).encode()
    path = write(tmp_path / 'bad.jsonl', text)
    with pytest.raises(ValueError, match=rf'bad.jsonl:5: .*{message}|bad.jsonl:5: {message}'):
        build.build_store(DATA, tmp_path / 's', [path])
    assert not (tmp_path / 's').exists()


def test_a_truncated_gzip_file_is_refused(tmp_path):
    content = gzip.compress(lines(*GROUPS).encode())
    path = write(tmp_path / 'cut.jsonl.gz', content[: len(content) // 2])
    with pytest.raises(ValueError, match=r'cut.jsonl.gz:\d+: expected a whole gzip file'):
        build.build_store(DATA, tmp_path / 's', [path])


def test_invalid_inputs_are_named(tmp_path):
    for inputs, message in (
        ([str(tmp_path / 'none.jsonl')], 'none.jsonl: expected a JSONL file'),
        (['cldr:many'], 'cldr:many: expected cldr:GROUPS'),
        (['cldr:2', 'cldr:3'], "different names, got 'cldr' twice"),
        ([], 'at least one source'),
        ([write(tmp_path / 'empty.jsonl', '')], 'empty.jsonl: expected at least one group'),
    ):
        with pytest.raises(ValueError, match=message):
            build.build_store(DATA, tmp_path / 's', inputs)


def test_a_store_is_reused_for_the_same_inputs_and_refused_for_others(tmp_path):
    path = write(tmp_path / 'a.jsonl', lines(*GROUPS))
    first = build.build_store(DATA, tmp_path / 's', [path])
    again = build.build_store(DATA, tmp_path / 's', [path])
    assert again.manifest == first.manifest
    write(tmp_path / 'a.jsonl', lines(*GROUPS[:20]))
    with pytest.raises(ValueError, match='made with other'):
        build.build_store(DATA, tmp_path / 's', [path])


def test_a_folder_that_is_no_store_is_named_and_an_empty_one_is_filled(tmp_path):
    path, out = write(tmp_path / 'a.jsonl', lines(*GROUPS)), tmp_path / 's'
    out.mkdir()
    assert build.build_store(DATA, out, [path]).path == out
    (out / 'manifest.json').unlink()
    for folder, got in ((out, 'a, tokenizer.json'), (tmp_path / 'a.jsonl', 'a file')):
        message = (
            f'{folder}: expected a store, with a manifest.json, got {got}; choose another path'
        )
        with pytest.raises(ValueError, match=message):
            build.build_store(DATA, folder, [path])


def test_a_store_whose_files_changed_size_is_refused(tmp_path):
    opened = build.build_store(DATA, tmp_path / 's', [write(tmp_path / 'a.jsonl', lines(*GROUPS))])
    file = next(iter(sorted((opened.path / 'a').glob('*.tokens'))))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=rf'{file.name}: expected \d+ bytes, got'):
        store.open_store(opened.path)
    file.unlink()
    with pytest.raises(ValueError, match='got no file'):
        store.open_store(opened.path)
    manifest = opened.path / 'manifest.json'
    manifest.write_text(manifest.read_text().replace('"version": 3', '"version": 2'))
    with pytest.raises(ValueError, match='expected a store of version 3, got 2; delete .* prepare'):
        store.open_store(opened.path)
    with pytest.raises(ValueError, match='no store there; make one with python -m hbt.prepare'):
        store.open_store(tmp_path / 'nowhere')


def test_an_older_store_keeps_the_duplicate_clusters_of_each_dataset(tmp_path):
    inputs = [write(tmp_path / f'{x}.jsonl', lines(*GROUPS)) for x in 'ab']
    opened = build.build_store(DATA, tmp_path / 's', inputs)
    first, second = (x.clusters('query', x.query_indices) for x in opened.datasets)
    np.testing.assert_array_equal(first, second)
    del opened.manifest['clusters']
    manifest = json.dumps(store.add_checksum(opened.manifest))
    (opened.path / 'manifest.json').write_text(manifest)
    again = build.build_store(DATA, tmp_path / 's', inputs)
    first, second = (x.clusters('query', x.query_indices) for x in again.datasets)
    assert not set(first) & set(second)


def test_embedded_groups_are_a_source(tmp_path):
    opened = build.build_store(DATA, tmp_path / 's', ['cldr:20'])
    assert opened.datasets[0].num_groups == 20 and len(opened.languages) >= 11


@pytest.mark.slow
def test_real_groups_with_the_real_tokenizer(shared_data, tmp_path):
    groups = []
    with gzip.open(shared_data / 'lohelp.jsonl.gz') as file:
        for _, line in zip(range(200), file, strict=False):
            groups.append(json.loads(line))
    name = shared_data / 'xlm-roberta-tokenizer'
    data = config.Data(tokenizer=str(name), query_length=32, passage_length=64)
    path = write(tmp_path / 'a.jsonl', lines(*groups))
    opened = build.build_store(data, tmp_path / 's', [path])
    assert opened.manifest['tokenizer']['vocab_size'] == 250_002
    tokenizer, table = tokenizer_files.load_tokenizer(name), opened.datasets[0].passage['de']
    for i, group in enumerate(groups):
        if 'de' in group['passage']:
            ids = tokenizer.encode('Passage: ' + group['passage']['de']).ids
            ids = ids if len(ids) <= 64 else [*ids[:63], 2]
            assert list(table.tokens[table.starts[i] : table.starts[i] + table.lengths[i]]) == ids


def test_groups_are_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, 'BLOCK', 256)
    source = registry.open_sources([write(tmp_path / 'a.jsonl', lines(*GROUPS) + 'broken\n')])[0]
    groups = source.iter_groups()
    assert [next(groups).id for _ in range(25)] == [group['id'] for group in GROUPS[:25]]
    with pytest.raises(ValueError, match='a.jsonl:31'):
        list(groups)


def test_the_hash_of_a_text_ignores_runs_of_spaces_only():
    a, b, c = ragged.hash_texts(['a  b\n', 'a b', 'A b'])
    assert a == b != c


def read_files(path):
    """Relative path -> bytes, of every file of a store."""
    paths = (x for x in path.rglob('*') if x.is_file())
    return {str(x.relative_to(path)): x.read_bytes() for x in paths}


def both_kinds(folder):
    """A source of groups and a collection, of several blocks each."""
    groups = [group | {'negatives': {'en': [f'wrong {i}']}} for i, group in enumerate(GROUPS)]
    path = write(folder / 'a.jsonl', lines(*groups))
    for x in ('en', 'de'):
        write(folder / f'q.{x}.tsv', ''.join(f'{i}\tquery {i} {x}\n' for i in range(20)))
        write(folder / f'c.{x}.tsv', ''.join(f'{i}\tpassage {i} {x}\n' for i in range(60)))
    triples = ''.join(f'{i % 20}\t{i}\t{(7 * i + 1) % 60}\n' for i in range(60))
    write(folder / 'triples.tsv', triples)
    collection = (
        f'marco:queries={folder}/q.{{lang}}.tsv,collection={folder}/c.{{lang}}.tsv,'
        f'triples={folder}/triples.tsv'
    )
    return [path, collection]


@pytest.mark.parametrize('seed', range(6))
def test_a_killed_build_is_resumed_to_the_same_bytes(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(text_lines, 'BLOCK', 200)
    inputs = both_kinds(tmp_path)
    expected = read_files(build.build_store(DATA, tmp_path / 'expected', inputs).path)
    # Killed many times, at some write of data or of their sizes, at any of its bytes.
    rng, pwrite, calls = np.random.default_rng(seed), array_files.os.pwrite, []

    def kill(descriptor, data, at):
        calls.append(at)
        if len(calls) % 400 == 0:
            pwrite(descriptor, data[: rng.integers(len(data) + 1)], at)
            raise KeyboardInterrupt
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(array_files.os, 'pwrite', kill)
    calls += [0] * int(rng.integers(400))
    kills = 0
    while not (tmp_path / 'killed').exists():
        try:
            build.build_store(DATA, tmp_path / 'killed', inputs)
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2
    assert read_files(tmp_path / 'killed') == expected


def test_many_processes_make_the_same_store_as_one(tmp_path, monkeypatch):
    inputs = both_kinds(tmp_path)
    one = build.build_store(DATA, tmp_path / 'one', inputs)
    two = build.build_store(DATA, tmp_path / 'two', inputs, processes=2)
    assert read_files(one.path) == read_files(two.path)
    write(tmp_path / 'a.jsonl', lines(*GROUPS[:9]) + 'broken\n' + lines(*GROUPS[10:]))
    with pytest.raises(ValueError, match='a.jsonl:10: expected a JSON object'):
        build.build_store(config.Data(tokenizer=str(one.path)), tmp_path / 'three', inputs, 2)


def test_a_killed_worker_process_is_named(tmp_path):
    with workers.start_workers(2, 0, 'forkserver') as run_blocks:
        with pytest.raises(ValueError, match='worker process was killed, .* to resume'):
            list(run_blocks(os._exit, lambda: iter([1])))


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    def fail(descriptor, data, at):
        raise OSError(28, 'No space left on device')

    path = write(tmp_path / 'a.jsonl', lines(*GROUPS))
    monkeypatch.setattr(array_files.os, 'pwrite', fail)
    with pytest.raises(
        OSError, match=r"No space left on device: '.*/s.partial/a/passage.en.tokens'"
    ):
        build.build_store(DATA, tmp_path / 's', [path])
    assert not (tmp_path / 's').exists()


def test_an_unfinished_store_of_other_inputs_is_not_resumed(tmp_path):
    path = write(tmp_path / 'a.jsonl', lines(*GROUPS[:10]) + 'broken\n')
    with pytest.raises(ValueError, match='a.jsonl:11'):
        build.build_store(DATA, tmp_path / 's', [path])
    write(tmp_path / 'a.jsonl', lines(*GROUPS))
    opened = build.build_store(DATA, tmp_path / 's', [path])
    assert opened.datasets[0].num_groups == 30
    assert sorted(x.name for x in tmp_path.iterdir()) == ['a.jsonl', 's']
