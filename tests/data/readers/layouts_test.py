"""Files in exactly the layouts of other projects, and the table of what hbt reads."""

import csv
import json
import subprocess
import sys

import pytest

from hbt.data.readers import layouts, registry
from tests import ROOT
from tests.data.readers.registry_test import build_dataset, groups_of, records_of, write

# As in Tevatron/msmarco-passage and, with answers and a number as id, Tevatron/wikipedia-nq.
TEVATRON = [
    {
        'query_id': '1185869',
        'query': 'who runs the lighthouse',
        'positive_passages': [
            {'docid': '0', 'title': 'Keepers', 'text': 'A keeper runs it.'},
            {'docid': '12', 'title': '', 'text': 'The coast guard runs it.'},
        ],
        'negative_passages': [
            {'docid': '16', 'title': 'Lamps', 'text': 'Lamps burn oil.'},
            {'docid': '49', 'text': 'Fog hides rocks.'},
        ],
    },
    {
        'query_id': 7,
        'query': 'what is fog',
        'answers': ['water'],
        'positive_passages': [{'docid': '3', 'title': None, 'text': 'Fog is water.'}],
        'negative_passages': [],
    },
]
LIGHTHOUSE = {'en': ['Lamps Lamps burn oil.', 'Fog hides rocks.']}
TEVATRON_GROUPS = {
    '1185869-0': (
        {'en': 'who runs the lighthouse'},
        {'en': 'Keepers A keeper runs it.'},
        LIGHTHOUSE,
    ),
    '1185869-1': (
        {'en': 'who runs the lighthouse'},
        {'en': 'The coast guard runs it.'},
        LIGHTHOUSE,
    ),
    '7-0': ({'en': 'what is fog'}, {'en': 'Fog is water.'}, {}),
}

# As FlagEmbedding's examples, with what hn_mine.py and add_reranker_score.py add.
FLAGEMBEDDING = [
    {
        'query': 'who runs the lighthouse',
        'pos': ['A keeper runs it.'],
        'neg': ['Lamps burn oil.', 'Fog hides rocks.'],
        'pos_scores': [9.5],
        'neg_scores': [-3, 0.25],
        'prompt': 'Represent this sentence for searching relevant passages: ',
        'type': 'normal',
    },
    {'query': 'what is fog', 'pos': ['Fog is water.', 'A cloud.'], 'neg': []},
]
FLAGEMBEDDING_GROUPS = {
    '1-0': (
        {'en': 'who runs the lighthouse'},
        {'en': 'A keeper runs it.'},
        {'en': ['Lamps burn oil.', 'Fog hides rocks.']},
    ),
    '2-0': ({'en': 'what is fog'}, {'en': 'Fog is water.'}, {}),
    '2-1': ({'en': 'what is fog'}, {'en': 'A cloud.'}, {}),
}

# As mine_hard_negatives of sentence-transformers writes n-tuples with scores; one cell is empty.
TRIPLETS = [
    {
        'anchor': 'who runs the lighthouse',
        'positive': 'A keeper runs it.',
        'negative_1': 'Lamps burn oil.',
        'negative_2': 'Fog hides rocks.',
        'scores': [0.9, 0.5, 0.25],
    },
    {
        'anchor': 'what is fog',
        'positive': 'Fog is water.',
        'negative_1': '',
        'negative_2': 'Rocks are stone.',
        'scores': [0.9, 0.5, 0.25],
    },
]
TRIPLET_GROUPS = [
    (
        {'en': 'who runs the lighthouse'},
        {'en': 'A keeper runs it.'},
        FLAGEMBEDDING_GROUPS['1-0'][2],
    ),
    ({'en': 'what is fog'}, {'en': 'Fog is water.'}, {'en': ['Rocks are stone.']}),
]


def lines(rows):
    return ''.join(json.dumps(x) + '\n' for x in rows)


def groups_in(spec):
    """The groups of a source, {id: (queries, passages, negatives)}."""
    (source,) = registry.open_sources([spec])
    return {x.id: (x.query, x.passage, x.negatives) for x in source.iter_groups()}


def table(path, layout, *more):
    return ','.join((f'table:file={path}', f'layout={layout}', 'language=en', *more))


@pytest.mark.parametrize('suffix', ['jsonl', 'json', 'jsonl.gz'])
def test_positives_of_tevatron_are_groups_with_its_negatives_and_titles(tmp_path, suffix):
    path = write(tmp_path / f'train.{suffix}', lines(TEVATRON))
    assert groups_in(table(path, 'tevatron')) == TEVATRON_GROUPS


def test_a_store_has_the_texts_of_a_layout(tmp_path):
    path = write(tmp_path / 'train.jsonl', lines(TEVATRON))
    dataset, text = build_dataset(tmp_path, table(path, 'tevatron'))
    assert groups_of(dataset, text) == TEVATRON_GROUPS
    assert len(set(dataset.clusters('query', dataset.query_indices)[:2])) == 1  # one query


def test_texts_of_flagembedding_are_read_without_its_scores_and_prompt(tmp_path):
    path = write(tmp_path / 'toy_finetune_data.jsonl', lines(FLAGEMBEDDING))
    assert groups_in(table(path, 'flagembedding')) == FLAGEMBEDDING_GROUPS


def test_tables_of_sentence_transformers_are_read_from_json_lines_and_csv(tmp_path):
    path = write(tmp_path / 'x.jsonl', lines(TRIPLETS))
    assert [*groups_in(table(path, 'sentence_transformers')).values()] == TRIPLET_GROUPS
    with (tmp_path / 'x.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, TRIPLETS[0])
        writer.writeheader()
        writer.writerows(TRIPLETS)
    read = groups_in(table(tmp_path / 'x.csv', 'sentence_transformers'))
    assert [*read.values()] == TRIPLET_GROUPS
    path = write(tmp_path / 'pairs.csv', 'anchor,positive\na,b\n')
    assert records_of(table(path, 'sentence_transformers')) == [('2', 'a', 'b')]
    path = write(tmp_path / 'triplets.csv', 'anchor,positive,negative\na,b,c\n')
    assert groups_in(table(path, 'sentence_transformers')) == {
        '2': ({'en': 'a'}, {'en': 'b'}, {'en': ['c']})
    }


def test_fields_that_are_given_go_before_those_of_the_layout(tmp_path):
    row = {'question': 'what is fog', 'answer': 'Nebel', 'negative_1': 'Fels', 'lang': 'de'}
    path = write(tmp_path / 'x.jsonl', lines([row]))
    spec = f'table:file={path},layout=sentence_transformers,query.en=question,passage.de=answer'
    expected = {'1': ({'en': 'what is fog'}, {'de': 'Nebel'}, {'de': ['Fels']})}
    assert groups_in(f'{spec},negatives.de=negatives') == expected
    spec = spec.replace('.en', '').replace('.de', '')
    assert groups_in(f'{spec},language=lang') == {
        '1': ({'de': 'what is fog'}, {'de': 'Nebel'}, {'de': ['Fels']})
    }


@pytest.mark.parametrize('layout', layouts.LAYOUTS)
@pytest.mark.parametrize('kind', ['parquet', 'json'])
def test_a_layout_is_read_through_datasets(tmp_path, layout, kind):
    datasets = pytest.importorskip('datasets')
    rows, expected = {
        'tevatron': (TEVATRON, TEVATRON_GROUPS.values()),
        'flagembedding': (FLAGEMBEDDING, FLAGEMBEDDING_GROUPS.values()),
        'sentence_transformers': (TRIPLETS, TRIPLET_GROUPS),
    }[layout]
    rows = [x | {'query_id': '0'} if 'query_id' in x else x for x in rows]  # of one type
    path = tmp_path / 'train-00000.x'
    made_set = datasets.Dataset.from_list(rows)
    made_set.to_parquet(path) if kind == 'parquet' else path.write_text(lines(rows))
    spec = f'hf:path={kind},data_files={tmp_path}/*.x,layout={layout},language=en'
    (source,) = registry.open_sources([spec])
    assert [(x.query, x.passage, x.negatives) for x in source.iter_groups()] == [*expected]


def test_what_data_files_cannot_be_is_named(tmp_path):
    datasets = pytest.importorskip('datasets')
    datasets.Dataset.from_dict({'q': ['a'], 'p': ['b']}).save_to_disk(tmp_path / 'saved')
    write(tmp_path / 'x.parquet', 'PAR1')
    write(tmp_path / 'x.jsonl', '{"q": "a"}\nbroken\n')
    fields = 'query.en=q,passage.en=p'
    for options, message in (
        ('path=parquet', 'hf: path=parquet, split=train: expected data_files=FILES, got none'),
        (
            f'path={tmp_path}/saved,data_files=x',
            'expected no data_files of what save_to_disk wrote',
        ),
        (f'path=parquet,data_files={tmp_path}/*.pq', 'data_files=.*pq, split=train: .*data file'),
        (f'path=parquet,data_files={tmp_path}/x.parquet', 'data_files=.*x.parquet.*: Parquet'),
        (f'path=json,data_files={tmp_path}/x.jsonl', 'data_files=.*x.jsonl, .*: JSON parse error'),
        (f'path=json,data_files={tmp_path}/x.jsonl,split=test', 'split=test: '),
    ):
        with pytest.raises(ValueError, match=message):
            registry.open_sources([f'hf:{options},{fields}'])
    with pytest.raises(
        ValueError, match=r'x.parquet: expected .* give hf:path=parquet,data_files='
    ):
        registry.open_sources([f'table:file={tmp_path}/x.parquet,{fields}'])


ONE = {'query_id': 1, 'query': 'q', 'query_text': 'x'}
BAD = {
    'no passages': ('tevatron', ONE, 'positive_passages: expected a list of at least one'),
    'none': (
        'tevatron',
        ONE | {'positive_passages': []},
        r'positive_passages: expected a list of at least one passage, got \[\]',
    ),
    'a text': (
        'tevatron',
        ONE | {'positive_passages': ['p']},
        r'positive_passages\[0\]: expected {docid, title, text}, got "p"',
    ),
    'an empty one': (
        'tevatron',
        ONE | {'positive_passages': [{'text': 'a'}, {'docid': '1', 'title': '', 'text': ' '}]},
        r'positive_passages\[1\]: text: expected a non-empty text, got ""',
    ),
    'no text': (
        'tevatron',
        ONE | {'positive_passages': [{'docid': '1', 'title': 't'}]},
        r"positive_passages\[0\]: expected a field 'text', got none",
    ),
    'other negatives': (
        'tevatron',
        ONE | {'positive_passages': [{'text': 'a'}], 'negative_passages': {'text': 'b'}},
        'negative_passages: expected a list, got {"text": "b"}',
    ),
    'no id': (
        'tevatron',
        {'query': 'q', 'positive_passages': [{'text': 'a'}]},
        "expected a field 'query_id' of 'query_id', got query, ",
    ),
    'a positive': ('flagembedding', {'query': 'q', 'pos': 'p', 'neg': []}, 'pos: expected a list'),
    'no positive': ('flagembedding', {'query': 'q', 'pos': []}, 'pos: expected a list of at least'),
    'an empty negative': (
        'flagembedding',
        {'query': 'q', 'pos': ['p'], 'neg': ['n', '']},
        r'neg\[1\]: expected a non-empty text, got ""',
    ),
    'a query that is none': (
        'flagembedding',
        {'query': None, 'pos': ['p'], 'neg': []},
        'query: expected a text in query, got none',
    ),
    'labels': (
        'sentence_transformers',
        {'anchor': 'a', 'positive': 'b', 'label': 0},
        'label: expected a table of anchors and what answers them, got one with labels',
    ),
    'no anchor': (
        'sentence_transformers',
        {'query': 'a', 'positive': 'b'},
        "expected a field 'anchor' of 'anchor', got query, positive",
    ),
    'a number': (
        'sentence_transformers',
        {'anchor': 'a', 'positive': 'b', 'negative_3': 5},
        'negative_3: expected a non-empty text, got 5',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_what_is_wrong_in_a_layout_is_named(tmp_path, name):
    layout, row, message = BAD[name]
    path = write(tmp_path / 'x.jsonl', lines([row]))
    with pytest.raises(ValueError, match=f'x.jsonl:1: {message}'):
        groups_in(table(path, layout))


def test_a_layout_that_is_unknown_or_lacks_a_language_is_refused(tmp_path):
    path = write(tmp_path / 'x.jsonl', lines(TEVATRON))
    with pytest.raises(ValueError, match="layout: expected one of tevatron, .*, got 'dpr'"):
        groups_in(table(path, 'dpr'))
    for spec in (
        f'table:file={path},layout=tevatron',
        f'table:file={path},layout=tevatron,query.en=query,passage.en=positive_passages',
    ):
        with pytest.raises(ValueError, match='expected language=CODE or language=FIELD'):
            groups_in(spec)
    with pytest.raises(ValueError, match='expected query=FIELD or .* or a layout .tevatron, '):
        groups_in(f'table:file={path}')
    with pytest.raises(ValueError, match='expected table:file=FILE,layout=tevatron,language=CODE'):
        groups_in(f'tevatron:file={path}')


@pytest.mark.parametrize(
    'layout, rows',
    [
        ('tevatron', TEVATRON),
        ('flagembedding', FLAGEMBEDDING),
        ('sentence_transformers', TRIPLETS),
    ],
)
def test_a_file_of_another_layout_is_refused_with_the_input_that_reads_it(tmp_path, layout, rows):
    path = write(tmp_path / 'x.jsonl', lines(rows))
    message = f'x.jsonl:1: expected a group .*, got one of {layout}: give (.*)CODE'
    with pytest.raises(ValueError, match=message) as error:
        groups_in(str(path))
    form = str(error.value).partition('give ')[2]
    assert len(groups_in(form.replace('CODE', 'en'))) > 1


def test_columns_may_have_dots_and_fields_be_nested(tmp_path):
    path = write(tmp_path / 'x.csv', 'query.en,passage.de\na,b\n')
    spec = f'table:file={path},query.en=query.en,passage.de=passage.de'
    assert groups_in(spec) == {'2': ({'en': 'a'}, {'de': 'b'}, {})}
    row = {'q': {'text': 'a', 'more.text': {'en': 'c'}}, 'p': [{'x.y': {'z': 'b'}}], 'q.text': 'A'}
    path = write(tmp_path / 'x.jsonl', lines([row]))
    spec = f'table:file={path},passage.en=p.x.y.z'
    assert records_of(f'{spec},query.en=q.text') == [('1-0', 'A', 'b')]
    assert records_of(f'{spec},query.en=q.more.text.en') == [('1-0', 'c', 'b')]
    with pytest.raises(
        ValueError, match="x.jsonl:1: expected a field 'more' of 'q.more', got text"
    ):
        records_of(f'{spec},query.en=q.more')


@pytest.mark.slow  # imports all of hbt
def test_the_help_of_prepare_lists_all_inputs():
    command = [sys.executable, '-m', 'hbt.prepare', '--help']
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert registry.format_help() in text


def test_the_help_the_page_and_the_errors_have_one_table_of_inputs():
    assert max(map(len, registry.format_help().splitlines())) <= 80
    page = (ROOT / 'docs/data.md').read_text().splitlines()
    rows = [line for line in page if line.startswith('|') and '`' in line and '--' not in line]
    assert rows[: len(registry.list_forms())] == [
        f'| {meaning} | `{form}` | {options} |' for meaning, form, options in registry.list_forms()
    ]
    for kind, form in registry.FORMATS.items():
        for example in form.forms.values():
            assert example.startswith(f'{kind}:')
        if form.required != ('groups',):
            with pytest.raises(
                ValueError, match=f'expected {form.required[0]}=VALUE, as in {kind}:'
            ):
                registry.open_sources([f'{kind}:'])
