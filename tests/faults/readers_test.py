"""Every reader gives the rows of a file that a plain reader gives, or refuses it by file and line.

The plain readers are the functions `plain_*`, which know whole files, Python's `json` and `csv`,
and `str.split`. They raise ValueError for what no reader should take.
"""

import csv
import functools
import gzip
import io
import json
import pathlib
import random
import re
import typing
from collections import abc

import hypothesis
import pytest
from hypothesis import strategies as st

from hbt.data.readers import registry, retrieval, text_lines
from hbt.evaluation import trec
from hbt.evaluation.benchmarks import beir

# Quotes, separators, what ends a line elsewhere, marks, and two forms of one letter.
SIGNS = 'ab1"\',;{}\\ \x0b\x0c\x1c\x1e\x85\xa0\u2028\u2029\u3000\ufeff\u200b中🙂é' + 'e\u0301'
TEXT = st.text(SIGNS, min_size=1, max_size=6).map('x{}'.format)
CELL = st.text(f'{SIGNS}\t\n', min_size=1, max_size=6).map('{}x'.format)
KEY = st.text('abé\u2028\x85\u3000', min_size=1, max_size=4).map('{}x'.format)
ENCODINGS = 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32-le', 'cp1252', 'gb18030'


class Reader(typing.NamedTuple):
    """A reader of files with two columns, and what it is held against."""

    columns: tuple  # strategies for the two of a row; the first is unique
    write: abc.Callable[[list], str]  # rows -> text
    plain: abc.Callable[[str], list]  # text -> rows
    read: abc.Callable[[pathlib.Path], list]  # file -> rows
    suffix: str = 'txt'


def plain_lines(text):
    """A line ends in LF or CR LF, and in nothing else."""
    lines = [x.rstrip('\r') for x in text.split('\n')]
    if re.search('[\r\0]', ''.join(lines)):
        raise ValueError
    return lines if lines[-1] else lines[:-1]


def plain_columns(text, separator='\t'):
    lines = plain_lines(text)
    while lines and not lines[-1].strip(' \t\x0b\x0c'):
        lines.pop()
    return [re.split(separator, x) for x in lines]


def plain_objects(text, *names):
    return [[json.loads(x)[name] for name in names] for (x,) in plain_columns(text, '$^')]


def plain_documents(text):
    rows = [json.loads(x) for (x,) in plain_columns(text, '$^')]
    return [[x.get('docid', x.get('id')), x['text'].strip()] for x in rows]


def plain_groups(text):
    return [[q['en'], p['en']] for q, p in plain_objects(text, 'query', 'passage')]


def plain_passage(passage):
    return ' '.join(filter(None, (passage.get('title'), passage['text']))).strip()


def plain_tevatron(text):
    rows = [json.loads(x) for (x,) in plain_columns(text, '$^')]
    passages = [x['positive_passages'] + (x.get('negative_passages') or []) for x in rows]
    return [[x['query'], *map(plain_passage, y)] for x, y in zip(rows, passages, strict=True)]


def plain_flagembedding(text):
    rows = [json.loads(x) for (x,) in plain_columns(text, '$^')]
    return [[x['query'], *x['pos'], *(x.get('neg') or [])] for x in rows]


def plain_anchors(text):
    rows = [json.loads(x) for (x,) in plain_columns(text, '$^')]
    negatives = [[v for k, v in x.items() if v and re.fullmatch(r'negative_\d', k)] for x in rows]
    return [[x['anchor'], x['positive'], *y] for x, y in zip(rows, negatives, strict=True)]


def plain_csv(text, **options):
    end = text.find('\n', len(text.rstrip(' \t\r\n\x0b\x0c')))  # before blank lines at the end
    text = text[:end] if end >= 0 else text
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=''), strict=True, **options)
    except csv.Error:
        raise ValueError from None
    order = [header.index(name) for name in 'qp'] if rows else []
    if '\0' in text or any(len(x) != len(header) for x in rows):
        raise ValueError
    return [[x[i] for i in order] for x in rows]


def plain_tsv(text, quotes=False):
    if not quotes and re.search(r'(^|[\t\n])"', text):
        raise ValueError
    return plain_csv(text, delimiter='\t', quoting=csv.QUOTE_NONE)


def plain_squad(text):
    (article,) = json.loads(text)['data']
    (paragraph,) = article['paragraphs']
    return [[x['question'], paragraph['context']] for x in paragraph['qas']]


def plain_trec(text, column, number):
    lines = (re.findall(r'[^ \t\r\f\v]+', x) for x in plain_lines(text))
    rows = [(x[0], x[2], number(x[column])) for x in lines if x]
    return [
        [key, x] for query in dict.fromkeys(x[0] for x in rows) for q, key, x in rows if q == query
    ]


def write_lines(form, head=''):
    return lambda rows: head + ''.join(form.format(*x) + '\n' for x in rows)


def write_objects(make):
    return lambda rows: ''.join(json.dumps(make(*x), ensure_ascii=False) + '\n' for x in rows)


def write_csv(**options):
    def write(rows):
        file = io.StringIO(newline='')
        csv.writer(file, lineterminator='\n', **options).writerows([['q', 'p'], *rows])
        return file.getvalue()

    return write


def write_squad(rows):
    entries = [{'id': q, 'question': q, 'answers': []} for q, _ in rows]
    paragraphs = [{'context': 'p', 'qas': entries}] * bool(rows)
    return json.dumps({'data': [{'paragraphs': paragraphs}]}, ensure_ascii=False)


def read_source(spec):
    def read(path):
        (source,) = registry.open_sources([spec.format(path)])
        groups = [*source.iter_groups()]
        assert all(str(path) in source.where(i) for i in range(len(groups)))
        return [[x.query['en'], x.passage['en'], *x.negatives.get('en', [])] for x in groups]

    return read


def read_table(dialect=''):
    option = f',dialect={dialect}' * bool(dialect)
    return read_source(f'table:file={{}},query.en=q,passage.en=p{option}')


def read_layout(layout):
    return read_source(f'table:file={{}},layout={layout},language=en')


def read_texts(parse):
    return lambda path: [[x.key, x.text] for x in parse(text_lines.iter_rows(path))]


def read_triples(path):
    links = (x for block in text_lines.iter_blocks([path]) for x in retrieval._parse_triples(block))
    return [[x.query_key, x.passage_key, *x.negative_keys] for x in links]


def read_trec(read):
    return lambda path: [[key, x] for table in read(path).values() for key, x in table.items()]


def group(query, passage):
    return {'id': query, 'query': {'en': query}, 'passage': {'en': passage}}


def separated(delimiter, dialect, suffix):
    plain = functools.partial(plain_csv, delimiter=delimiter)
    return Reader(CELLS, write_csv(delimiter=delimiter), plain, read_table(dialect), suffix)


def tevatron(query, passage):
    positive, negative = {'docid': '1', 'title': '', 'text': passage}, {'title': 't', 'text': 'n'}
    passages = {'positive_passages': [positive], 'negative_passages': [negative, positive]}
    return {'query_id': 'q', 'query': query} | passages


def flagembedding(query, passage):
    return {'query': query, 'pos': [passage], 'neg': ['n', passage], 'pos_scores': [1.5]}


def anchors(query, passage):
    return {'anchor': query, 'negative_1': passage, 'negative_2': 'n', 'positive': passage}


WORDS, CELLS, KEYED = (TEXT, TEXT), (CELL, CELL), (KEY, TEXT)
TABS = write_lines('{}\t{}')
HEADED = write_lines('{}\t{}', 'q\tp\n')
READERS = {
    'lines': Reader(
        WORDS,
        write_lines('{}{}'),
        plain_lines,
        lambda path: [x for _, x in text_lines.iter_lines(path)],
    ),
    'groups': Reader(WORDS, write_objects(group), plain_groups, read_source('{}'), 'jsonl'),
    'objects': Reader(
        WORDS,
        write_objects(lambda q, p: {'q': q, 'p': p}),
        lambda x: plain_objects(x, 'q', 'p'),
        read_table(),
        'jsonl',
    ),
    'tevatron': Reader(
        WORDS, write_objects(tevatron), plain_tevatron, read_layout('tevatron'), 'jsonl'
    ),
    'flagembedding': Reader(
        WORDS,
        write_objects(flagembedding),
        plain_flagembedding,
        read_layout('flagembedding'),
        'jsonl',
    ),
    'anchors': Reader(
        WORDS, write_objects(anchors), plain_anchors, read_layout('sentence_transformers'), 'jsonl'
    ),
    'csv': Reader(CELLS, write_csv(), plain_csv, read_table(), 'csv'),
    'all quoted': Reader(
        CELLS, write_csv(quoting=csv.QUOTE_ALL), plain_csv, read_table('csv'), 'dat'
    ),
    'semicolon': separated(';', 'semicolon', 'csv'),
    'quoted tsv': separated('\t', 'quoted_tsv', 'tsv'),
    'tsv': Reader(WORDS, HEADED, plain_tsv, read_table(), 'tsv'),
    'tsv with quotes': Reader(
        (TEXT.map('"{}"'.format), TEXT),
        HEADED,
        lambda x: plain_tsv(x, True),
        read_table('tsv'),
        'tsv',
    ),
    'squad': Reader(
        (TEXT, st.just('p')), write_squad, plain_squad, read_source('squad:language=en,files={}')
    ),
    'texts': Reader(KEYED, TABS, plain_columns, read_texts(retrieval.iter_tsv_texts)),
    'documents': Reader(
        KEYED,
        write_objects(lambda key, text: {'docid': key, 'text': f'{text}x'}),
        plain_documents,
        read_texts(retrieval.iter_documents),
    ),
    'entries': Reader(
        KEYED,
        write_objects(lambda key, text: {'_id': key, 'text': text}),
        lambda x: [[key, text or ''] for key, text in plain_objects(x, '_id', 'text')],
        lambda path: [[x.id, x.text] for x in beir._iter_entries(path, '', 'en')],
    ),
    'triples': Reader((KEY, KEY), write_lines('{}\t{}\tn'), plain_columns, read_triples),
    'qrels': Reader(
        (KEY, st.integers(-1, 3)),
        write_lines('q 0 {} {}'),
        lambda x: plain_trec(x, 3, int),
        read_trec(trec.read_qrels),
    ),
    'run': Reader(
        (KEY, st.floats(-9, 9)),
        write_lines('q\tQ0\t{}\t1\t{} t'),
        lambda x: plain_trec(x, 4, float),
        read_trec(trec.read_run),
    ),
}


def rows_of(reader):
    return st.lists(st.tuples(*reader.columns), min_size=1, max_size=5, unique_by=lambda x: x[0])


def try_to_read(reader, file, data, dice):
    """The rows of a file with this content, plain or gzip, in blocks of any size."""
    file.write_bytes(gzip.compress(data) if dice.random() < 0.3 else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, 'BLOCK', dice.choice((1, 2, 3, 7, 30, 1 << 20)))
        return reader.read(file)


@pytest.mark.parametrize('name', READERS)
def test_rows_are_read_as_a_plain_reader_reads_them(name, tmp_path_factory):
    reader, file = READERS[name], tmp_path_factory.mktemp('rows') / f'x.{READERS[name].suffix}'

    @hypothesis.given(rows_of(reader), st.randoms(use_true_random=False))
    def check(rows, dice):
        text = reader.write(rows)
        if 'csv' not in name and name not in ('all quoted', 'semicolon', 'quoted tsv'):
            text = text.replace('\n', dice.choice(('\n', '\r\n')))
        text = text + dice.choice(('', '\n', '\r\n \n')) * (name not in ('lines', 'squad'))
        text = text.removesuffix('\n') if dice.random() < 0.3 else text
        expected = reader.plain(text)
        assert len(expected) == len(rows)
        data = text.encode(dice.choice(('utf-8', 'utf-8-sig')))
        assert try_to_read(reader, file, data, dice) == expected

    check()


def damage(text, dice):
    """Bytes of the text with one thing about it wrong, or odd."""
    lines, at = text.split('\n'), dice.randrange(len(text))
    line = dice.randrange(len(lines))
    odd = dice.choice('"\r\n\t,;\0\ufeff\u2028\x85 {}\ud800')
    other = dice.choice(('null', '7', '1.0', 'true', '[]', '{}', 'NaN', '""', ''))
    damaged = dice.choice((
        text[:at] + odd + text[at:],
        text[:at] + text[at + dice.randrange(1, 9) :],
        text.replace('\n', '\r'),
        text.replace('\n', dice.choice(('\n\n', '\u2028', '\x0c'))),
        '\n'.join([*lines[:line], dice.choice(lines), *lines[line:]]),
        re.sub('"[^"]*"', lambda x: other if x.start() >= at else x[0], text, count=9),
    ))  # fmt: skip
    try:
        return damaged.encode(dice.choice(('utf-8', 'utf-8-sig') * 7 + ENCODINGS))
    except UnicodeEncodeError:
        return damaged.encode('utf-8', 'surrogatepass')


@pytest.mark.parametrize('name', READERS)
def test_damaged_rows_are_read_as_a_plain_reader_reads_them_or_refused(name, tmp_path_factory):
    reader, file = READERS[name], tmp_path_factory.mktemp('rows') / f'x.{READERS[name].suffix}'

    @hypothesis.given(rows_of(reader), st.integers())
    def check(rows, seed):
        dice = random.Random(seed)
        data = damage(reader.write(rows), dice)
        try:
            rows = try_to_read(reader, file, data, dice)
        except ValueError as error:
            has_line = name == 'squad' or not data.strip() or re.search(r'x\.\w+:\d+: ', str(error))
            assert str(file) in str(error) and has_line and '\n' not in str(error), error
        else:
            assert rows == reader.plain(data.decode('utf-8-sig')), data

    check()
