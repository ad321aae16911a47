"""Whatever strangers' files hold, they are read or refused by a ValueError that names them."""

import gzip
import json
import pathlib
import random
import shutil
import typing
from collections import abc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hbt import config
from hbt.data import build, store, tokenizer_files
from hbt.data.readers import registry
from hbt.evaluation import benchmarks, results
from hbt.models import model_dir, weights
from hbt.serving import entries, index
from hbt.utils import log, settings
from tests import FIXTURES, fake_runs, tiny
from tests.data.readers import registry_test as sources_test
from tests.evaluation.benchmarks import formats_test as formats

WORDS = FIXTURES / 'labse'  # has a tokenizer
ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    float('nan'),
    '',
    'a',
    '\ud800',
    '../x',
    [],
    [1],
    {},
    {'a': 1},
)


class Case(typing.NamedTuple):
    """Files that are read, and then read again with one of them damaged."""

    write: abc.Callable[[pathlib.Path], object]
    read: abc.Callable[[pathlib.Path, typing.Any], object]  # takes what `write` gave
    files: str = '*'  # those that are damaged
    names: tuple[str, ...] = ()  # that a message may give instead of the file's
    examples: int = 40


def prepared(folder, spec):
    out = folder.parent / 'out'
    for left in (out, out.with_name('out.partial')):
        shutil.rmtree(left, ignore_errors=True)
    data = config.Data(tokenizer=str(WORDS), query_length=16, passage_length=16)
    return build.build_store(data, out, [spec])


def groups(folder):
    rows = (
        {'id': str(i), 'query': {'en': 'a b', 'de': 'c'}, 'passage': {'en': f'x {i}', 'de': 'y'}}
        | ({'negatives': {'en': ['n', 'm']}} if i else {})
        for i in range(3)
    )
    formats.write(folder / 'rows.jsonl', formats.lines(*rows))
    return str(folder / 'rows.jsonl')


def zipped_groups(folder):
    file = pathlib.Path(groups(folder))
    zipped = file.with_name('rows.jsonl.gz')
    zipped.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    file.unlink()
    return str(zipped)


def tabs(folder, separator='\t', suffix='.tsv'):
    rows = [('q', 'p', 'l'), ('who', 'me', 'en'), ('wer', '"ich"', 'de')]
    file = folder / f'rows{suffix}'
    file.write_text(''.join(separator.join(x) + '\n' for x in rows))
    return f'table:file={file},query=q,passage=p,language=l,dialect={suffix[1:]}'


def json_table(folder):
    rows = [{'q': ['who', 'what'], 'p': ['me', 'it'], 'l': ['en', 'de'], 'n': ['no']}] * 2
    (folder / 'rows.jsonl').write_text(formats.lines(*rows))
    return f'table:file={folder}/rows.jsonl,query=q,passage=p,language=l,negatives=n'


def tevatron(folder):
    passages = [{'docid': str(i), 'title': 't', 'text': f'x {i}'} for i in range(2)]
    rows = [
        {'query_id': str(i), 'query': 'a b', 'positive_passages': passages}
        | {'negative_passages': passages[:i]}
        for i in range(2)
    ]
    (folder / 'rows.jsonl').write_text(formats.lines(*rows))
    return f'table:file={folder}/rows.jsonl,layout=tevatron,language=en'


def commas(folder):
    return tabs(folder, ',', '.csv')


def squad(folder):
    for language in ('en', 'de'):
        text = sources_test.squad_file(language, [['a', 'b'], ['c']], '2.0')
        (folder / f'{language}.json').write_text(text)
    return f'squad:files={folder}/{{lang}}.json'


def lareqa(folder):
    for language in ('en', 'de'):
        asked = {'id': 'a', 'question': 'Who?', 'answers': [{'answer_start': 5, 'text': 'Me'}]}
        paragraph = {'context': 'One. Me.', 'sentences': ['One.', 'Me.']}
        paragraph |= {'sentence_breaks': [[0, 4], [5, 8]], 'qas': [asked]}
        text = json.dumps({'data': [{'paragraphs': [paragraph]}]})
        formats.write(folder / f'xquad-r/{language}.json', text)


def a_result(folder):
    fake_runs.save_result(folder, fake_runs.make_benchmark(names=('en', 'de'), questions=2))


def a_run(folder):
    config.save(tiny.get_config(), folder / 'config.json')


def a_log(folder):
    (folder / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n')


def a_store(folder):
    shutil.copytree(prepared(folder, groups(folder)).path, folder, dirs_exist_ok=True)


def copied(name: str):
    return lambda folder: shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)


def benchmark(name):
    return lambda folder, _: benchmarks.load_benchmark(name, folder)


def every_tensor(folder, _):
    for _, array in weights.read_tensors(folder):
        array.tobytes()


def words(folder, _):
    tokenizer = tokenizer_files.load_tokenizer(folder)
    tokenizer.encode('Hello, world. Grüße!')
    tokenizer_files.vocab_size(tokenizer)


def a_corpus(folder):
    rows = [
        {'_id': 'a', 'title': 't', 'text': 'x y', 'language': 'de'},
        {'docid': 'b', 'text': 'z'},
    ]
    formats.write(folder / 'rows.jsonl', formats.lines(*rows))


def a_corpus_of_ids(folder):
    formats.write(folder / 'rows.tsv', 'a\tx y\nb\tz\n')


def every_entry(folder, _):
    return list(entries.iter_entries(next(folder.glob('rows*'))))


def an_index(folder):
    a_corpus(folder.parent)
    folder.rmdir()
    source = folder.parent / 'rows.jsonl'
    settings_ = index.make_settings(source, 'model', 'float32')
    index.build_index(
        lambda texts, place: np.ones((len(texts), 2), 'f4'), source, folder, settings_
    )
    return settings_


def every_document(folder, settings_):
    opened = index.open_index(folder, settings_, True)
    return [opened.read_entry(i) for i in range(len(opened))]


CASES = {
    'groups': Case(groups, prepared, examples=25),
    'zipped groups': Case(zipped_groups, prepared, examples=20),
    'a table': Case(tabs, prepared),
    'a table of JSON': Case(json_table, prepared),
    'commas': Case(commas, prepared),
    'tevatron': Case(tevatron, prepared, examples=20),
    'squad': Case(squad, prepared),
    'marco': Case(sources_test.marco_files, prepared, '**/*'),
    'trec': Case(sources_test.trec_files, prepared, '**/*'),
    'miracl': Case(formats.miracl, benchmark('miracl:sw'), '**/*', ('miracl',)),
    'mtop': Case(formats.mtop, benchmark('mtop_intent'), '**/*', ('mtop',)),
    'beir': Case(formats.beir, benchmark('beir:'), '**/*', ('beir',)),
    'lareqa': Case(lareqa, benchmark('xquad_r'), '**/*', ('xquad_r',)),
    'held out': Case(groups, benchmark('jsonl:rows.jsonl')),
    'a config': Case(a_run, lambda x, _: config.load(x / 'config.json')),
    'a log': Case(a_log, lambda x, _: log.read_metrics(x / 'metrics.jsonl')),
    'a result': Case(
        a_result, lambda x, _: results.load_result(next(x.glob('*.json'))), '*', (), 80
    ),
    'a corpus': Case(a_corpus, every_entry),
    'a corpus of ids': Case(a_corpus_of_ids, every_entry),
    'an index': Case(an_index, every_document, '*', (), 80),
    'a store': Case(a_store, lambda x, _: store.open_store(x), 'manifest.json'),
    'safetensors': Case(copied('xlmr'), every_tensor, 'model.safetensors'),
    'msgpack': Case(copied('xlmr/flax'), every_tensor, 'flax_model.msgpack'),
    'pickled': Case(copied('xlmr/bin'), every_tensor, 'pytorch_model.bin'),
    'tokenizer': Case(copied('labse'), words, 'tokenizer.json', (), 40),
    'model': Case(copied('labse'), lambda x, _: model_dir.load_model(str(x)), '**/*.json', (), 80),
}


def damage(content: bytes, dice: random.Random) -> bytes:
    """One of: other values in the JSON, other bits, a part lost, doubled or put in, other bytes."""
    ways = [flip, cut, double, insert, replace] + [inside] * 5
    return dice.choice(ways)(content, dice)


def inside(content, dice):
    """JSON, or a line of it, with another value or key somewhere."""
    for parts in ([content], content.split(b'\n')):
        at = dice.randrange(len(parts))
        try:
            parts[at] = json.dumps(changed(json.loads(parts[at]), dice)).encode()
        except ValueError:
            continue
        return b'\n'.join(parts)
    return flip(content, dice)


def changed(tree, dice):
    if isinstance(tree, dict) and tree and dice.random() < 0.9:
        key = dice.choice(list(tree))
        way = dice.random()
        if way < 0.1:
            return {k: v for k, v in tree.items() if k != key}
        if way < 0.2:
            return tree | {str(dice.choice(ODD)): tree[key]}
        return tree | {key: changed(tree[key], dice)}
    if isinstance(tree, list) and tree and dice.random() < 0.9:
        at = dice.randrange(len(tree))
        return [*tree[:at], changed(tree[at], dice), *tree[at + 1 :]]
    return dice.choice(ODD)


def flip(content, dice):
    if not content:
        return b'\0'
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def cut(content, dice):
    return content[: dice.randrange(len(content) + 1)]


def double(content, dice):
    start, stop = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:stop] + content[start:]


def insert(content, dice):
    at = dice.randrange(len(content) + 1)
    return content[:at] + dice.choice(HOSTILE) + content[at:]


def replace(content, dice):
    return dice.choice((*HOSTILE, dice.randbytes(dice.randrange(200))))


HOSTILE = (
    b'',
    b'\0',
    b'\n',
    b'\xff\xfe',
    b'\t\t\t',
    b'{}',
    b'[]',
    b'null',
    b'"\\ud800"',
    b'[' * 5000,
    b'{"a":' * 5000,
    b'1' * 5000,
    b'\x1f\x8b\x08\0',
    b'PK\x03\x04',
    '\u2028\u0085'.encode(),
)


@pytest.mark.parametrize('name', CASES)
def test_hostile_files_are_read_or_refused_by_name(name, tmp_path_factory):
    case = CASES[name]
    folder = tmp_path_factory.mktemp('strangers') / 'files'
    folder.mkdir()
    written = case.write(folder)
    case.read(folder, written)  # is read while it is whole
    files = sorted(x for x in folder.glob(case.files) if x.is_file())

    @hypothesis.settings(
        max_examples=case.examples,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    @hypothesis.given(st.sampled_from(files), st.randoms(use_true_random=False))
    def one(file, dice):
        whole = file.read_bytes()
        file.write_bytes(damage(whole, dice))
        try:
            case.read(folder, written)
        except ValueError as error:
            assert any(x in str(error) for x in (file.name, str(folder), *case.names)), error
        finally:
            file.write_bytes(whole)

    one()


@hypothesis.given(st.sampled_from(list(settings.flatten(config.Config()))), st.text())
def test_settings_of_any_text_are_taken_or_refused_by_name(name, text):
    c = config.Config()
    *path, last = name.split('.')
    owner = c
    for part in path:
        owner = getattr(owner, part)
    old = getattr(owner, last)
    if isinstance(old, str | tuple):
        setattr(owner, last, (text,) if isinstance(old, tuple) else text)
    try:
        config.check(c)
    except ValueError as error:
        assert str(error).startswith(path[0] if path else name), error


@hypothesis.given(st.text())
def test_arguments_of_configs_are_taken_or_refused(text):
    try:
        settings.parse_argument(text, alpha=0.5, kind='hybrid', seed=0, small=False)
    except ValueError as error:
        assert str(error).startswith('--config argument')
    try:
        config.check_flags([f'--config.{text}=1'])
    except ValueError as error:
        assert 'expected a setting such as --config.' in str(error)


@pytest.fixture
def with_code(tmp_path):
    """A model whose every file of settings asks for classes of a module that comes with it."""
    folder = pathlib.Path(shutil.copytree(FIXTURES / 'labse', tmp_path / 'model'))
    named = {x: f'evil.{x}' for x in ('AutoConfig', 'AutoModel', 'AutoModelForMaskedLM')}
    named['AutoTokenizer'] = ['evil.Slow', 'evil.Fast']
    for name in ('config.json', 'tokenizer_config.json'):
        file = folder / name
        told = json.loads(file.read_text()) | {'auto_map': named, 'trust_remote_code': True}
        file.write_text(json.dumps(told))
    code = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
    for name in ('evil.py', 'modeling_evil.py', 'tokenization_evil.py', '__init__.py'):
        (folder / name).write_text(code)
    return folder


def executed(folder):
    return (folder.parent / 'executed').exists()


def test_code_that_comes_with_a_model_is_not_executed(with_code):
    model_dir.load_model(str(with_code))
    assert not executed(with_code)
    settings_ = with_code / 'tokenizer_config.json'
    (with_code / 'tokenizer.json').unlink()
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'hello', *map(str, range(200))]
    (with_code / 'vocab.txt').write_text('\n'.join(words))
    for kind in (None, 'EvilTokenizer', 'BertTokenizer'):
        settings_.write_text(
            json.dumps(json.loads(settings_.read_text()) | {'tokenizer_class': kind})
        )
        try:
            tokenizer_files.load_tokenizer(with_code)
        except ValueError as error:
            assert str(with_code) in str(error)
        assert not executed(with_code)


def test_modules_of_sentence_transformers_that_are_code_are_refused(with_code):
    file = with_code / 'modules.json'
    told = json.loads(file.read_text())
    told[1]['type'] = 'evil.Pooling2'
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=f'{file}.*Pooling2'):
        model_dir.load_model(str(with_code))
    assert not executed(with_code)


def test_code_that_comes_with_a_data_set_is_not_executed(with_code):
    pytest.importorskip('datasets')
    (with_code / 'model.py').write_text((with_code / 'evil.py').read_text())
    with pytest.raises(ValueError, match='hf: path='):
        registry.open_sources([f'hf:path={with_code},query.en=q,passage.en=p'])
    assert not executed(with_code)
