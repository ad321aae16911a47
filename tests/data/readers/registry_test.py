"""Every source is read from small files in exactly its format, and bad ones are named."""

import csv
import gzip
import json

import numpy as np
import pytest
import tokenizers

from hbt import config
from hbt.data import build, store
from hbt.data.readers import registry, text_lines
from hbt.sampling import sampler
from tests import tiny

DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=24)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
    return path


def tsv(*lines):
    return ''.join('\t'.join(line) + '\n' for line in lines)


def build_dataset(tmp_path, spec):
    """The dataset of a store built from a source, and a function that decodes a row of a table."""
    opened = build.build_store(DATA, tmp_path / 'store', [spec])
    tokenizer = tokenizers.Tokenizer.from_file(str(opened.path / 'tokenizer.json'))

    def text(table, i):
        ids = table.tokens[table.starts[i] : table.starts[i] + table.lengths[i]]
        return ' '.join(tokenizer.decode(ids).partition(': ')[2].split())

    return opened.datasets[0], text


def groups_of(dataset, text):
    """{id: (queries, passages, negatives)} as texts by language."""
    groups = {}
    for g in range(dataset.num_groups):
        q, p = dataset.query_indices[g], dataset.passage_indices[g]
        negatives = {}
        for language, links in dataset.negatives.items():
            table = dataset.passage[language]
            rows = links.passages[links.offsets[g] : links.offsets[g + 1]]
            negatives[language] = [text(table, i) for i in rows if table.lengths[i]]
        groups[dataset.group_id(g)] = (
            {x: text(t, q) for x, t in dataset.query.items() if t.lengths[q]},
            {x: text(t, p) for x, t in dataset.passage.items() if t.lengths[p]},
            {x: texts for x, texts in negatives.items() if texts},
        )
    return groups


def squad_file(language, names, version='1.1'):
    paragraphs = [
        {
            'context': f'paragraph {i} {language}',
            'qas': [
                {
                    'id': name,
                    'question': f'{name}? {language}',
                    'answers': [{'text': 'x', 'answer_start': 0}],
                    **({'is_impossible': name == 'none'} if version == '2.0' else {}),
                }
                for name in part
            ],
        }
        for i, part in enumerate(names)
    ]
    return json.dumps({'version': version, 'data': [{'title': 't', 'paragraphs': paragraphs}]})


def test_squad_files_are_joined_by_the_id_of_the_question(tmp_path):
    write(tmp_path / 'xquad.en.json', squad_file('en', [['a', 'b'], ['c', 'none']], '2.0'))
    write(tmp_path / 'xquad.de.json', squad_file('de', [['c'], ['a']]))
    dataset, text = build_dataset(tmp_path, f'squad:files={tmp_path}/xquad.{{lang}}.json')
    assert groups_of(dataset, text) == {
        'a': ({'de': 'a? de', 'en': 'a? en'}, {'de': 'paragraph 1 de', 'en': 'paragraph 0 en'}, {}),
        'b': ({'en': 'b? en'}, {'en': 'paragraph 0 en'}, {}),
        'c': ({'de': 'c? de', 'en': 'c? en'}, {'de': 'paragraph 0 de', 'en': 'paragraph 1 en'}, {}),
    }


def marco_files(folder, **changes):
    """mMARCO's files: English names of languages, ids shared by all of them."""
    files = {
        'queries/train/english_queries.train.tsv': tsv(('11', 'q 11 en'), ('12', 'q 12 en')),
        'queries/train/german_queries.train.tsv': tsv(('12', 'q 12 de'), ('11', 'q 11 de')),
        'collections/english_collection.tsv': tsv(*((str(i), f'p {i} en') for i in range(6))),
        'collections/german_collection.tsv': tsv(*((str(i), f'p {i} de') for i in (5, 3, 0, 1, 2))),
        'triples.train.ids.small.tsv': tsv(('11', '0', '3'), ('12', '1', '4'), ('11', '0', '5')),
    }
    for name, text in (files | changes).items():
        write(folder / name, text)
    return (
        f'marco:name=mmarco,queries={folder}/queries/train/{{lang}}_queries.train.tsv,'
        f'collection={folder}/collections/{{lang}}_collection.tsv,'
        f'triples={folder}/triples.train.ids.small.tsv'
    )


def test_marco_texts_are_kept_once_and_triples_as_integers(tmp_path):
    dataset, text = build_dataset(tmp_path, marco_files(tmp_path))
    assert dataset.num_groups == 3
    assert len(dataset.passage_clusters) == 5  # passage 2 is in no triple
    assert [dataset.group_id(g) for g in range(3)] == ['11/0', '12/1', '11/0']
    wrong = []
    for g, (q, p, n) in enumerate(((11, 0, 3), (12, 1, 4), (11, 0, 5))):
        for x in ('en', 'de'):
            assert text(dataset.query[x], dataset.query_indices[g]) == f'q {q} {x}'
            assert text(dataset.passage[x], dataset.passage_indices[g]) == f'p {p} {x}'
        negatives = dataset.negatives['de']
        (i,) = negatives.passages[negatives.offsets[g] : negatives.offsets[g + 1]]
        assert text(dataset.passage['en'], i) == f'p {n} en'
        wrong.append(text(dataset.passage['de'], i))
    assert wrong == ['p 3 de', '', 'p 5 de']  # German lacks passage 4
    assert dataset.query_indices[0] == dataset.query_indices[2]


def test_negatives_of_a_collection_are_in_the_batch(tmp_path):
    opened = build.build_store(DATA, tmp_path / 's', [marco_files(tmp_path)])
    c = tiny.make(batch_size=4, sampler=config.Sampler(alpha=0.5, negatives=1))
    c.data = DATA
    s = sampler.Sampler(c, opened)
    shown = [line for step in range(12) for line in sampler.describe_batch(s, step)]
    wrong = {x.split(': ')[1] for x in shown if x.startswith('  - ')}
    assert wrong == {'p 3 en', 'p 3 de', 'p 4 en', 'p 5 en', 'p 5 de'}


def trec_files(folder, corpus_key='docid', **changes):
    files = {}
    for x, prefix in (('sw', '7'), ('bn', '8')):
        stem = f'miracl-v1.0-{x}'
        files[f'{stem}/topics/topics.{stem}-train.tsv'] = tsv(('0', f'q 0 {x}'), ('3', f'q 3 {x}'))
        judged = ('0', f'{prefix}#0', 1), ('0', f'{prefix}#1', 0), ('3', f'{prefix}#2', 1)
        files[f'{stem}/qrels/qrels.{stem}-train.tsv'] = ''.join(
            f'{q}\tQ0\t{d}\t{grade}\n' for q, d, grade in judged
        )
        for shard in range(2):
            docs = [
                {corpus_key: f'{prefix}#{i}', 'title': f'T{i}', 'text': f'p {i} {x}'}
                for i in range(2 * shard, 2 * shard + 2)
            ]
            files[f'corpus-{x}/docs-{shard}.jsonl.gz'] = ''.join(json.dumps(d) + '\n' for d in docs)
    for name, text in (files | changes).items():
        write(folder / name, text)
    v = f'{folder}/miracl-v1.0-{{lang}}'
    return (
        f'trec:name=miracl,topics={v}/topics/topics.miracl-v1.0-{{lang}}-train.tsv,'
        f'qrels={v}/qrels/qrels.miracl-v1.0-{{lang}}-train.tsv,'
        f'corpus={folder}/corpus-{{lang}}/docs-*.jsonl.gz'
    )


def test_miracl_keeps_judged_passages_and_takes_those_not_relevant_as_negatives(tmp_path):
    dataset, text = build_dataset(tmp_path, trec_files(tmp_path))
    assert groups_of(dataset, text) == {
        'sw/0/sw/7#0': ({'sw': 'q 0 sw'}, {'sw': 'T0 p 0 sw'}, {'sw': ['T1 p 1 sw']}),
        'sw/3/sw/7#2': ({'sw': 'q 3 sw'}, {'sw': 'T2 p 2 sw'}, {}),
        'bn/0/bn/8#0': ({'bn': 'q 0 bn'}, {'bn': 'T0 p 0 bn'}, {'bn': ['T1 p 1 bn']}),
        'bn/3/bn/8#2': ({'bn': 'q 3 bn'}, {'bn': 'T2 p 2 bn'}, {}),
    }
    assert len(dataset.passage_clusters) == 6


def test_mrtydi_is_one_language_with_its_own_names_of_fields(tmp_path):
    docs = [{'id': f'5#{i}', 'contents': f'Title\n\npassage {i}'} for i in range(3)]
    write(tmp_path / 'docs.jsonl.gz', ''.join(json.dumps(d) + '\n' for d in docs))
    write(tmp_path / 'topic.train.tsv', tsv(('1', 'who?')))
    write(tmp_path / 'qrels.train.txt', '1 Q0 5#2 1\n')
    spec = (
        f'trec:language=en,topics={tmp_path}/topic.train.tsv,qrels={tmp_path}/qrels.train.txt,'
        f'corpus={tmp_path}/docs.jsonl.gz'
    )
    dataset, text = build_dataset(tmp_path, spec)
    assert groups_of(dataset, text) == {
        'en/1/en/5#2': ({'en': 'who?'}, {'en': 'Title passage 2'}, {})
    }


def test_english_pairs_of_a_page_become_rows(tmp_path):
    page = {
        'domain': 'x.org',
        'qa_pairs': [{'question': f'q{i}', 'answer': f'a{i}'} for i in (1, 2)],
    }
    write(tmp_path / 'mfaq.jsonl.gz', json.dumps({'id': 7} | page) + '\n')
    fields = 'id=id,query=qa_pairs.question,passage=qa_pairs.answer,language=en'
    dataset, text = build_dataset(tmp_path, f'table:file={tmp_path}/mfaq.jsonl.gz,{fields}')
    assert dataset.name == 'mfaq'
    assert groups_of(dataset, text) == {
        '7-0': ({'en': 'q1'}, {'en': 'a1'}, {}),
        '7-1': ({'en': 'q2'}, {'en': 'a2'}, {}),
    }


@pytest.mark.parametrize('kind, separator', [('tsv', '\t'), ('csv', ',')])
def test_a_table_names_its_columns_in_the_first_line(tmp_path, kind, separator):
    lines = (('question', 'antwort', 'lang'), ('q 1', 'a 1', 'en'), ('q 2', 'a 2', 'de'))
    path = write(tmp_path / f'x.{kind}', ''.join(separator.join(x) + '\n' for x in lines))
    dataset, text = build_dataset(
        tmp_path, f'table:file={path},query=question,passage=antwort,language=lang'
    )
    assert groups_of(dataset, text) == {
        '2': ({'en': 'q 1'}, {'en': 'a 1'}, {}),
        '3': ({'de': 'q 2'}, {'de': 'a 2'}, {}),
    }


@pytest.mark.parametrize('kind, separator', [('tsv', '\t'), ('csv', ',')])
def test_only_a_newline_ends_a_row_of_a_table(tmp_path, kind, separator):
    lines = ('q', 'p'), ('q\u20281', 'a\x851'), ('q\x0c2', 'a 2')
    path = write(tmp_path / f'x.{kind}', ''.join(separator.join(x) + '\n' for x in lines))
    (source,) = registry.open_sources([f'table:file={path},query.en=q,passage.en=p'])
    groups = [(x.query['en'], x.passage['en']) for x in source.iter_groups()]
    assert groups == list(lines[1:])


@pytest.mark.parametrize('size', [1, 3, 8, 1000])
def test_a_quoted_column_has_several_lines(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text_lines, 'BLOCK', size)
    path = write(tmp_path / 'x.csv', 'q,p\n"who\n\nasks?",me\nwhat,"it\n"\n')
    (source,) = registry.open_sources([f'table:file={path},query.en=q,passage.en=p'])
    groups = {x.id: (x.query['en'], x.passage['en']) for x in source.iter_groups()}
    assert groups == {'4': ('who\n\nasks?', 'me'), '6': ('what', 'it\n')}


def records_of(spec):
    """[(id, query, passage)] of a source in English."""
    (source,) = registry.open_sources([spec])
    return [(x.id, x.query['en'], x.passage['en']) for x in source.iter_groups()]


CELLS = [['q', 'p'], ['he said "yes"', 'a\tb'], ['two\n\nlines\n', '"so"'], ['plain', 'x;y,z']]


@pytest.mark.parametrize('size', [1, 3, 8, 1000])
@pytest.mark.parametrize('ending', ['\n', '\r\n'])
@pytest.mark.parametrize(
    'suffix, dialect, separator',
    [('csv', '', ','), ('csv', 'semicolon', ';'), ('tsv', 'quoted_tsv', '\t'), ('x', 'csv', ',')],
)
def test_quoted_tables_are_read_in_the_dialect_that_is_asked_for(
    tmp_path, monkeypatch, size, ending, suffix, dialect, separator
):
    monkeypatch.setattr(text_lines, 'BLOCK', size)
    path = tmp_path / f'x.{suffix}'
    with path.open('w', newline='') as file:
        csv.writer(file, delimiter=separator, lineterminator=ending).writerows(CELLS)
    spec = f'table:file={path},query.en=q,passage.en=p' + f',dialect={dialect}' * bool(dialect)
    assert [[q, p] for _, q, p in records_of(spec)] == CELLS[1:]


def test_quotes_in_a_tsv_file_are_text_only_if_the_dialect_says_so(tmp_path):
    path = write(tmp_path / 'x.tsv', 'q\tp\nwho\tme "too"\n"wer?"\t"ich ""selbst"""\n')
    spec = f'table:file={path},query.en=q,passage.en=p'
    with pytest.raises(ValueError, match='x.tsv:3: expected dialect=quoted_tsv .* or dialect=tsv'):
        records_of(spec)
    assert records_of(f'{spec},dialect=tsv')[1] == ('3', '"wer?"', '"ich ""selbst"""')
    assert records_of(f'{spec},dialect=quoted_tsv')[1] == ('3', 'wer?', 'ich "selbst"')
    with pytest.raises(ValueError, match="dialect: expected one of jsonl, csv, .* got 'excel'"):
        records_of(f'{spec},dialect=excel')


@pytest.mark.parametrize(
    'text, message',
    [
        ('q,p\na,b\nc,"d\ne,f\ng,h\n', 'x.csv:3: expected a row of a table, got unexpected end'),
        ('q,p\n"a" b,c\n', "x.csv:2: expected a row of a table, got ',' expected after"),
        ('q,p\ra,b\r', 'x.csv:1: expected a row of a table, got new-line character'),
        ('q,p,q\na,b,c\n', "x.csv:1: expected columns of different names, got 'q' twice"),
        ('\nq,p\na,b\n', 'x.csv:1: expected columns of different names, got an empty line'),
        ('q;p\na;b\n', r"x.csv:2: expected a field 'q' of 'q', got q;p"),
    ],
)
def test_a_table_that_cannot_be_read_right_is_refused(tmp_path, text, message):
    path = write(tmp_path / 'x.csv', text)
    with pytest.raises(ValueError, match=message):
        records_of(f'table:file={path},query.en=q,passage.en=p')


def test_records_of_several_files_without_ids_are_told_by_their_file(tmp_path):
    for name in ('a', 'b'):
        write(tmp_path / f'{name}.tsv', f'q\tp\nwho {name}?\t{name}\n')
    spec = f'table:file={tmp_path}/*.tsv,name=all,query.en=q,passage.en=p'
    expected = {f'{tmp_path}/{x}.tsv:2': ({'en': f'who {x}?'}, {'en': x}, {}) for x in 'ab'}
    assert groups_of(*build_dataset(tmp_path, spec)) == expected
    write(tmp_path / 'c.csv', 'q,p\n')
    with pytest.raises(ValueError, match=r'c.csv: expected .tsv, as .*a.tsv, .* got .csv'):
        records_of(spec.replace('*.tsv', '*'))


def test_an_id_twice_is_named_with_both_files_and_lines(tmp_path):
    write(tmp_path / 'a.csv', 'i,q,p\n1,"who\n\nasks?",me\n2,what,it\n')
    write(tmp_path / 'b.csv', 'i,q,p\n3,who,me\n2,what,it\n')
    spec = f'table:file={tmp_path}/*.csv,name=all,id=i,query.en=q,passage.en=p'
    message = r'b.csv:3: id: expected a new one, got that of .*a.csv:5'
    with pytest.raises(ValueError, match=message):
        build.build_store(DATA, tmp_path / 's', [spec])


@pytest.mark.parametrize('value', ['null', 'true', 'NaN', '{}', '""'])
def test_an_id_that_is_none_is_refused(tmp_path, value):
    path = write(tmp_path / 'x.jsonl', f'{{"i": {value}, "q": "a", "p": "b"}}\n')
    with pytest.raises(ValueError, match='x.jsonl:1: id: expected a non-empty string'):
        records_of(f'table:file={path},id=i,query.en=q,passage.en=p')


RECORDS = {
    'qid': ['a', 'b'],
    'question': ['q a', 'q b'],
    'frage': ['f a', ''],
    'context': ['p a', 'p b'],
    'answers': [{'text': ['x']}, {'text': ['y']}],
    'bad': [['n a', 'm a'], []],
}
FIELDS = 'id=qid,query.en=question,query.de=frage,passage.en=context,negatives.en=bad'
EXPECTED = {
    'a': ({'en': 'q a', 'de': 'f a'}, {'en': 'p a'}, {'en': ['n a', 'm a']}),
    'b': ({'en': 'q b'}, {'en': 'p b'}, {}),
}


def test_a_set_of_the_library_datasets_is_read_from_a_folder(tmp_path):
    datasets = pytest.importorskip('datasets')
    made_set = datasets.Dataset.from_dict(RECORDS)
    made_set.save_to_disk(tmp_path / 'saved')
    datasets.DatasetDict({'train': made_set}).save_to_disk(tmp_path / 'splits')
    write(
        tmp_path / 'files/train.jsonl',
        ''.join(
            json.dumps(dict(zip(RECORDS, x, strict=True))) + '\n'
            for x in zip(*RECORDS.values(), strict=True)
        ),
    )
    for path in ('saved', 'splits', 'files'):
        folder = tmp_path / f'out-{path}'
        dataset, text = build_dataset(folder, f'hf:path={tmp_path / path},name=set,{FIELDS}')
        assert groups_of(dataset, text) == EXPECTED
    with pytest.raises(ValueError, match=r"record 0: expected a field 'nope' of 'nope', got qid,"):
        build_dataset(tmp_path / 'x', f'hf:path={tmp_path}/saved,query.en=nope,passage.en=context')
    with pytest.raises(ValueError, match='hf: path=.*nowhere, split=train: '):
        build_dataset(tmp_path / 'x', f'hf:path={tmp_path}/nowhere,query.en=q,passage.en=p')


def test_a_set_of_tfds_is_read_without_tensorflow(tmp_path):
    tfds = pytest.importorskip('tensorflow_datasets')

    class TinySet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            text = tfds.features.Text()
            features = {'qid': text, 'question': text, 'frage': text, 'context': text}
            features['bad'] = tfds.features.Sequence(text)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {'train': self._generate_examples()}

        def _generate_examples(self):
            for i in range(2):
                yield i, {k: v[i] for k, v in RECORDS.items() if k != 'answers'}

    builder = TinySet(data_dir=tmp_path / 'tfds', file_format='array_record')
    builder.download_and_prepare()
    dataset, text = build_dataset(tmp_path, f'tfds:path={builder.data_path},{FIELDS},name=tiny')
    assert groups_of(dataset, text) == EXPECTED


GERMAN, QUERIES = 'collections/german_collection.tsv', 'queries/train/german_queries.train.tsv'
TRIPLES, KLINGON = 'triples.train.ids.small.tsv', 'queries/train/klingonisch_queries.train.tsv'
BAD = {
    'a missing column': (GERMAN, '0\tp\n1 q\n', r':2: expected 2 columns \(id, text\), got 1'),
    'an empty id': (GERMAN, '\tx\n', ':1: id: expected a non-empty'),
    'an id twice': (GERMAN, '0\tp\n1\tq\n0\tr\n', ':3: id: expected a new one'),
    'no passage that is there': (
        TRIPLES,
        '11\t99\t3\n12\t98\t3\n',
        ":1: expected the id of a passage with text in the collection, got '99', and no link has",
    ),
    'no query that is there': (
        TRIPLES,
        '77\t0\t3\n',
        ":1: expected the id of a query with text in the collection, got '77', and no link has",
    ),
    'a pair': (TRIPLES, '11\t0\n', ':1: expected ids of a query, a passage and negatives'),
    'no triple': (TRIPLES, '', 'expected at least one link, got none'),
    'a language without rows': (QUERIES, '', 'expected texts of query.de, got none'),
    'other bytes': (QUERIES, b'11\t\xff\n', ':1: expected UTF-8'),
    'a long line': (
        QUERIES,
        '11\tq\n12\t' + 'x' * 10_000_000,
        ':2: expected a line up to 4194304 bytes',
    ),
    'no language': (KLINGON, '1\tq\n', "such as en, got 'klingonisch'"),
}


def test_links_without_a_text_are_left_out_and_counted(tmp_path, capsys):
    """Passage 9 and query 77 are nowhere, and passage 2 is there without a text."""
    links = (
        ('77', '0', '3'),
        ('11', '0', '9', '3'),
        ('12', '9', '4'),
        ('11', '2', '0'),
        ('12', '1', '2'),
    )
    english = tsv(*((str(i), ' ' if i == 2 else f'p {i} en') for i in range(6)))
    german = tsv(('0', 'p 0 de'), ('2', ''))
    files = {TRIPLES: tsv(*links), 'collections/english_collection.tsv': english, GERMAN: german}
    dataset, text = build_dataset(tmp_path, marco_files(tmp_path, **files))
    assert dataset.num_groups == 2
    assert groups_of(dataset, text) == {
        '11/0': (
            {'de': 'q 11 de', 'en': 'q 11 en'},
            {'de': 'p 0 de', 'en': 'p 0 en'},
            {'en': ['p 3 en']},
        ),
        '12/1': ({'de': 'q 12 de', 'en': 'q 12 en'}, {'en': 'p 1 en'}, {}),
    }
    manifest = store.open_store(tmp_path / 'store').manifest
    assert manifest['datasets'][0]['left_out'] == {'links': 3, 'negatives': 2}
    counts = build.format_counts(manifest).splitlines()
    assert [x.split()[-1] for x in counts if 'left out' in x] == ['3', '2']
    place = f"{TRIPLES}:1: expected the id of a query with text in the collection, got '77'"
    assert f'{place}; left out 3 links and 2 negatives without a text' in capsys.readouterr().out


def test_judged_passages_that_the_corpus_lacks_are_left_out(tmp_path):
    qrels = 'miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-train.tsv'
    text = '0 Q0 7#9 1\n0 Q0 7#0 1.0\n0 Q0 7#8 0\n0 Q0 7#0 1\n'
    dataset, text = build_dataset(tmp_path, trec_files(tmp_path, **{qrels: text}))
    assert [x for x in groups_of(dataset, text) if x.startswith('sw/')] == ['sw/0/sw/7#0']
    assert dataset.num_groups == 3


@pytest.mark.parametrize('name', BAD)
def test_what_is_wrong_in_a_collection_is_named(tmp_path, name):
    file, text, message = BAD[name]
    where = f'{file}{message}' if message.startswith(':') else message
    with pytest.raises(ValueError, match=where):
        build.build_store(DATA, tmp_path / 's', [marco_files(tmp_path, **{file: text})])
    assert not (tmp_path / 's').exists()


def test_what_is_wrong_in_judgments_is_named(tmp_path):
    qrels = 'miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-train.tsv'
    for text, message in (
        ('0 0 7#0 1\n3 0 7#2 1\n0 0 7#0 0\n', "train.tsv:3: expected one grade of '7#0' for"),
        ('0\tQ0\t7#0\n', r'train.tsv:1: expected 4 columns \(query, Q0, document, relevance\)'),
        ('0\tQ0\t7#0\tyes\n', "train.tsv:1: expected a whole number as grade, got 'yes'"),
    ):
        with pytest.raises(ValueError, match=message):
            build.build_store(DATA, tmp_path / 's', [trec_files(tmp_path, **{qrels: text})])
    with pytest.raises(ValueError, match='docs-0.jsonl.gz:1: expected docid, title and text'):
        build.build_store(DATA, tmp_path / 's', [trec_files(tmp_path, 'name')])


def test_what_is_wrong_in_records_is_named(tmp_path):
    def refuses(spec, message):
        with pytest.raises(ValueError, match=message):
            build.build_store(DATA, tmp_path / 's', [spec])

    table = write(tmp_path / 'x.tsv', tsv(('q', 'p'), ('a', 'b'), ('c',)))
    spec = f'table:file={table},query.en=q,passage.en=p'
    refuses(spec, r'x.tsv:3: expected 2 columns \(q, p\), got 1')
    write(table, b'q\tp\na\t\xff\n')
    refuses(spec, 'x.tsv:2: expected UTF-8')
    refuses(f'table:file={table},query.en=q', 'expected passage=FIELD or passage.LANGUAGE=FIELD')
    refuses(f'table:file={table},query.qx=q,passage=p', 'query.qx: expected a language code')
    refuses(f'table:file={table},query.en,passage=p', "expected OPTION=VALUE .* got 'query.en'")
    refuses(f'table:files={table},query.en=q,passage=p', "got 'files=")
    refuses('table:query.en=q,passage.en=p', 'expected file=VALUE')
    refuses(
        f'table:file={tmp_path}/none,query.en=q,passage.en=p', 'file=.*none: expected some files'
    )
    refuses(f'table:file={table},query.en=q,query.en=p,passage.en=p', "once, got 'query.en' again")
    refuses('tabel:file=x', 'tabel:file=x: expected a JSONL file .* FORMAT:... with one of table')
    double = squad_file('en', [['a'], ['a']])
    write(tmp_path / 'en.json', double)
    spec = f'squad:files={tmp_path}/{{lang}}.json'
    refuses(spec, r"paragraphs\[1\].qas\[0\]: id: expected a new one, got 'a' again")
    write(tmp_path / 'en.json', double[:99])
    refuses(spec, 'en.json: expected a JSON object')
    write(tmp_path / 'en.json', '{"data": [{"paragraphs": [7]}]}')
    refuses(spec, r'paragraphs\[0\]: expected a JSON object, got 7')
    write(tmp_path / 'en.json', '{"data": [{}]}')
    refuses(spec, r"data\[0\]: expected a field 'paragraphs', got none")
    refuses(f'table:file={tmp_path}/{{lang}}.tsv,query.en=q,passage.en=p', 'expected no {lang} in')
    page = write(tmp_path / 'page.jsonl', json.dumps({'q': ['a', 'b'], 'p': ['c']}) + '\n')
    for fields, message in (
        ({'q': 'a', 'l': ['en', 'de']}, r'language: expected one code or 1, got \["en", "de"\]'),
        ({'q': 'a', 'l': 5}, 'language: expected one code or 1, got 5'),
        (
            {'q': 'a', 'l': 'en', 'i': None},
            'id: expected a non-empty string or a number, got nothing',
        ),
        ({'q': 'a', 'l': 'en', 'i': {}}, 'id: expected a non-empty string or a number, got {}'),
        ({'q': {'en': 'a'}, 'l': 'en'}, 'query: en: expected a non-empty text, got {"en": "a"}'),
    ):
        row = {'p': 'c', 'i': 1} | fields
        odd = write(tmp_path / 'odd.jsonl', json.dumps(row) + '\n')
        spec = f'table:file={odd},query=q,passage=p,language=l,id=i'
        refuses(spec, f'odd.jsonl:1: {message}')
    spec = f'table:file={odd},query=p,query.en=q,passage=p,language=en'
    refuses(spec, "odd.jsonl:1: query: expected one 'en', got two")
    twice = write(tmp_path / 'twice.jsonl', '{"id": "1", "query": {"en": "a", "en": "b"}}\n')
    refuses(str(twice), "twice.jsonl:1: expected a JSON object, got the field 'en' twice")
    lengths = 'page.jsonl:1: expected lists of one length, got query.en of 2, passage.en of 1'
    refuses(f'table:file={page},query.en=q,passage.en=p', lengths)


@pytest.mark.parametrize('size', [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    'data, expected',
    [
        (b'a\nb\n\n\n', ['1 a', '2 b']),
        (b'a\r\nb', ['1 a', '2 b']),
        (b'\n\na\n', 'x:1: expected text, got an empty line'),
        (b'a\n\nb\n', 'x:2: expected text, got an empty line'),
        (b'', []),
        (b'\n', []),
    ],
)
def test_blocks_are_whole_lines_with_their_numbers(tmp_path, monkeypatch, size, data, expected):
    monkeypatch.setattr(text_lines, 'BLOCK', size)
    path = write(tmp_path / 'x', data)

    def numbered_lines():
        lines = [x for block in text_lines.iter_blocks([path]) for x in block.iter_rows()]
        return [f'{where.rpartition(":")[2]} {line}' for where, line in lines]

    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            numbered_lines()
    else:
        assert numbered_lines() == expected


def test_lines_are_read_one_by_one_with_the_blank_ones(tmp_path):
    for name in ('x', 'x.gz'):
        path = write(tmp_path / name, b'a\r\n\n b\n\n')
        numbers, lines = zip(*text_lines.iter_lines(path), strict=True)
        assert lines == ('a', '', ' b', '')
        assert numbers == tuple(f'{path}:{i}' for i in (1, 2, 3, 4))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r'x.gz:\d: expected a whole gzip file'):
        list(text_lines.iter_lines(path))
    with pytest.raises(ValueError, match='x.gz: expected a whole gzip file'):
        text_lines.read_text(path)
    with pytest.raises(ValueError, match='y:2: expected UTF-8'):
        list(text_lines.iter_lines(write(tmp_path / 'y', b'a\n\xff\n')))


BOM = b'\xef\xbb\xbf'


@pytest.mark.parametrize('size', [1, 2, 4, 1000])
@pytest.mark.parametrize('name', ['x', 'x.gz'])
def test_a_byte_order_mark_is_no_text(tmp_path, monkeypatch, size, name):
    monkeypatch.setattr(text_lines, 'BLOCK', size)
    for mark in (b'', BOM):
        path = write(tmp_path / name, mark + b'a\n\xef\xbb\xbfb\n')
        assert [x for _, x in text_lines.iter_lines(path)] == ['a', '\ufeffb']
        assert [x for _, x in text_lines.iter_rows(path, path)] == ['a', '\ufeffb'] * 2
        assert text_lines.read_text(path) == 'a\n\ufeffb\n'
    for content in (BOM, BOM[:2]):
        path = write(tmp_path / name, content)
        if content == BOM:
            assert [*text_lines.iter_lines(path)] == [*text_lines.iter_rows(path)] == []
        else:
            with pytest.raises(ValueError, match=f'{name}:1: expected UTF-8'):
                list(text_lines.iter_lines(path))


def test_sources_with_a_byte_order_mark_are_those_without(tmp_path):
    def dataset_of(folder, mark):
        spec = marco_files(folder)
        for path in folder.rglob('*.tsv'):
            path.write_bytes(mark + path.read_bytes())
        return build_dataset(folder, spec)

    plain = groups_of(*dataset_of(tmp_path / 'a', b''))
    marked = groups_of(*dataset_of(tmp_path / 'b', BOM))
    assert plain == marked
    path = write(tmp_path / 'x.csv', BOM + b'q,p\na,b\n')
    assert records_of(f'table:file={path},query.en=q,passage.en=p') == [('2', 'a', 'b')]
    path = write(tmp_path / 'en.json', BOM + squad_file('en', [['a']]).encode())
    assert records_of(f'squad:files={path},language=en') == [('a', 'a? en', 'paragraph 0 en')]


def test_lines_end_in_newlines_and_in_no_other_character(tmp_path):
    line = 'a\u2028b\x85c\x0cd\x1ce\x0bf\u2029g'
    path = write(tmp_path / 'x', f'{line}\r\n{line}\n')
    assert [x for _, x in text_lines.iter_lines(path)] == [line] * 2
    assert [x for _, x in text_lines.iter_rows(path)] == [line] * 2
    path = write(tmp_path / 'x', 'a\nb\rc\n')
    for read in (text_lines.iter_lines, text_lines.iter_rows):
        with pytest.raises(ValueError, match=r'x:2: expected lines .* got a CR after "b\\r"'):
            list(read(path))


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'cp1252'])
def test_other_encodings_are_refused(tmp_path, encoding):
    path = write(tmp_path / 'x', 'caf\xe9 x\n'.encode(encoding))
    for read in (text_lines.iter_lines, text_lines.iter_rows):
        with pytest.raises(ValueError, match='x:1: expected .*UTF-8'):
            list(read(path))
    path = write(tmp_path / 'x', 'ascii\n'.encode('utf-16-le'))
    with pytest.raises(ValueError, match='x:1: expected text in UTF-8, got a NUL'):
        list(text_lines.iter_lines(path))


def test_every_group_of_every_source_is_the_same_in_blocks_of_any_size(tmp_path, monkeypatch):
    expected = build_dataset(tmp_path / 'a', marco_files(tmp_path))
    monkeypatch.setattr(text_lines, 'BLOCK', 8)
    actual = build_dataset(tmp_path / 'b', marco_files(tmp_path))
    for g in range(3):
        np.testing.assert_equal(actual[0].group_id(g), expected[0].group_id(g))
    for x in ('en', 'de'):
        for i in range(5):
            assert actual[1](actual[0].passage[x], i) == expected[1](expected[0].passage[x], i)


def test_sources_of_one_name_or_none_are_refused(tmp_path):
    path = write(tmp_path / 'a.jsonl', '{}\n')
    with pytest.raises(ValueError, match="different names, got 'a' twice"):
        registry.open_sources([str(path), str(path)])
    with pytest.raises(ValueError, match='expected a name for a folder'):
        registry.open_sources([f'table:file={path},query.en=q,passage.en=p,name=../x'])
