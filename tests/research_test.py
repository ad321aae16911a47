"""The configs of configs/research, run from training to report on small files in true formats."""

import dataclasses
import importlib
import json
import pathlib
import re
import shlex

import pytest

from hbt import config
from hbt.data import build
from hbt.reporting import comparison, compose, experiments, render
from hbt.training import loop
from hbt.utils import settings
from tests import ROOT, tiny
from tests.evaluation.benchmarks import formats_test

QUESTIONS = sorted(x.stem for x in (ROOT / 'configs' / 'research').glob('*.py'))
COUNT = 6  # questions of a language


def research(name):
    return importlib.import_module(f'configs.research.{name}')


def command(name) -> tuple[list[str], list[comparison.Measure]]:
    """Benchmarks of the domain and measures of the report's command in a config's docstring."""
    text = research(name).__doc__.replace('\\\n', ' ')
    (line,) = re.findall(r'^python -m hbt\.report .*$', text, re.MULTILINE)
    given = [x.partition('=') for x in shlex.split(line) if x.startswith('--')]
    assert {key for key, _, _ in given} <= {'--out', '--measure', '--in_domain'}
    inside = [value for key, _, value in given if key == '--in_domain']
    return inside, [
        comparison.parse_measure(value) for key, _, value in given if key == '--measure'
    ]


@pytest.mark.parametrize('name', QUESTIONS)
def test_every_research_config_is_valid_and_so_are_the_rows_of_its_sweep(name):
    known = settings.flatten(config.Config())
    for row in research(name).sweep():
        c = config.check(overridden(research(name).get_config(), row))
        for setting, value in row.items():
            assert type(value) is type(known[setting])
            assert settings.flatten(c)[setting] == value
    inside, _ = command(name)
    assert {*inside} <= {*research(name).get_config().eval.benchmarks}


def overridden(c, row):
    for name, value in row.items():
        *parts, last = name.split('.')
        place = c
        for part in parts:
            place = getattr(place, part)
        setattr(place, last, value)
    return c


def xquad(folder, languages):
    """Paragraphs of two sentences; the second answers."""
    for language in languages:
        paragraphs = []
        for i in range(COUNT):
            first, second = f'{language} {i} one.', f'{language} {i} two.'
            breaks = [[0, len(first)], [len(first) + 1, len(first) + 1 + len(second)]]
            answer = {'text': 'two', 'answer_start': len(first) + 1}
            asked = {'id': str(i), 'question': f'{language} {i} which?', 'answers': [answer]}
            paragraphs.append(
                {
                    'context': f'{first} {second}',
                    'sentences': [first, second],
                    'sentence_breaks': breaks,
                    'qas': [asked],
                }
            )
        content = {'data': [{'paragraphs': paragraphs}]}
        formats_test.write(folder / f'{language}.json', json.dumps(content))


def miracl(folder, languages):
    for language in languages:
        ending = f'miracl-v1.0-{language}-dev.tsv'
        topics = ''.join(f'{i}\t{language} {i}?\n' for i in range(COUNT))
        qrels = ''.join(f'{i}\tQ0\t{i}#0\t1\n{i}\tQ0\t{i}#1\t0\n' for i in range(COUNT))
        formats_test.write(folder / f'topics.{ending}', topics)
        formats_test.write(folder / f'qrels.{ending}', qrels)
        ids = [f'{i}#{j}' for i in range(COUNT) for j in range(2)]
        formats_test.write(
            folder / f'miracl-corpus-v1.0-{language}/docs-0.jsonl.gz', formats_test.passages(*ids)
        )


def tydi(folder, names):
    for name in names:
        rows = [
            {
                'query_id': str(i),
                'query': f'{name} {i}?',
                'positive_passages': [{'docid': f'{i}#0'}],
            }
            for i in range(COUNT)
        ]
        formats_test.write(folder / f'mrtydi-v1.1-{name}/test.jsonl.gz', formats_test.lines(*rows))
        ids = [f'{i}#{j}' for i in range(COUNT) for j in range(2)]
        formats_test.write(
            folder / f'mrtydi-v1.1-{name}/corpus.jsonl.gz', formats_test.passages(*ids)
        )


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """data/ with every benchmark, and stores of three sizes."""
    root = tmp_path_factory.mktemp('research')
    data = root / 'data'
    xquad(data / 'xquad-r', ('ar', 'de', 'el', 'en'))
    xquad(data / 'mlqa-r', ('ar', 'de', 'en'))
    miracl(data / 'miracl', ('en', 'sw', 'bn', 'te', 'yo'))
    tydi(data / 'mr-tydi', ('english', 'swahili', 'bengali'))
    formats_test.mtop(data)
    groups = [
        {'id': str(i), 'query': {'en': f'help {i}', 'de': f'Hilfe {i}'}, 'passage': texts}
        for i, texts in enumerate([{'en': f'click {i}', 'de': f'drück {i}'} for i in range(COUNT)])
    ]
    formats_test.write(data / 'help.jsonl.gz', formats_test.lines(*groups))
    for name, groups in (('hybrid', 60), ('every4', 30), ('every16', 15)):
        settings = tiny.get_config().data
        build.build_store(settings, root / name, (f'cldr:{groups}',))
    return root


def small(c: config.Config, place) -> config.Config:
    """The same experiment in two steps, on small data, with a small model of the same family."""
    mbert, large = 'mbert' in c.data.root, 'large' in c.encoder.init
    sizes = tiny.make().encoder
    sizes.num_layers = 2 + large
    sizes.family = 'bert' if mbert else 'xlmr'
    sizes.type_vocab_size = 2 if mbert else 1
    store = pathlib.Path(c.data.root).name
    c.data.root = str(place / (store if 'every' in store else 'hybrid'))
    c.data = dataclasses.replace(tiny.get_config().data, root=c.data.root, sources=())
    c.encoder, c.optim = sizes, tiny.make().optim
    c.eval.root = str(place / 'data')
    c.batch_size = 8 * max(1, c.batch_size // 100)
    c.steps = 4 if c.steps == 50_000 else 2
    c.eval.every, c.log_every, c.ckpt_every = 0, 1, 100
    c.eval.validation, c.eval.best, c.eval.patience = '', 'multi.map', 0
    return config.check(c)


EXPECTED = {  # question -> parts of the report that answer it
    'mtop': ('mtop_translation-tests', 'mtop_intent-overall', 'mtop_intent-bias'),
    'scaling': (
        *('fit-data', 'fit-batch', 'fit-model', 'miracl-scaling-data', 'miracl-scaling-alpha'),
        *('miracl-script-similarity', 'paper-12'),
    ),
    'backbones': ('xquad_r-tests', 'mlqa_r-tests', 'xquad_r-pair-tests-3', 'paper-1', 'paper-8'),
    'multitask': ('miracl-tests', 'miracl-resource-levels', 'miracl-resources'),
    'domain': ('domain-shift', 'domain-shift-figure', 'mr_tydi-overall', 'mtop_intent-overall'),
}


def test_every_question_is_tested():
    assert sorted(EXPECTED) == QUESTIONS


@pytest.mark.slow
@pytest.mark.parametrize('name', QUESTIONS)
def test_a_question_is_answered_from_its_config_to_the_sections_of_its_report(
    name, place, tmp_path
):
    folders = []
    for row in research(name).sweep():
        c = small(overridden(research(name).get_config(), row), place)
        c.eval.at_start = False
        seeds = 2 if name == 'mtop' else 1
        curve = name != 'scaling' or c.sampler.alpha == 0.5 or len(row) == 1
        if c.seed >= seeds or not curve:
            continue  # the time of the test
        folders.append(tmp_path / f'run{len(folders)}')
        loop.train_config(c, folders[-1])
    inside, measures = command(name)
    runs = experiments.load_experiments(folders)
    sections = compose.compose_report(runs, inside, measures or comparison.MAIN)
    render.write_report(tmp_path / 'report', name, sections)
    parts = {part.name: part for section in sections for part in section.parts}
    assert {*EXPECTED[name]} <= parts.keys()
    for measure in measures:
        assert any(
            measure.name in part.formats for key, part in parts.items() if key.endswith('-overall')
        ), f'{measure.name} is nowhere'
    if name == 'mtop':
        assert [system.label for system in experiments.group_by_seed(runs)] == [
            'X-X ×2',
            'X-Y ×2',
            'hybrid ×2',
        ]
        assert '±' in (tmp_path / 'report' / 'report.md').read_text()
    if name == 'backbones':
        assert len(experiments.group_by_seed(runs)) == 4
        assert len(parts['xquad_r-tests'].frame) == 6 * 5
    if name == 'scaling':
        assert {*parts['fit-data'].frame['points']} == {3}
        frame = parts['miracl-script-similarity'].frame
        assert 'mono MRR' in [*frame['', 'number']]
        assert {heading for heading, _ in frame.columns} >= {
            *('language', 'script', 'family of scripts')
        }
