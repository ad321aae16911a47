import dataclasses
import runpy
import subprocess
import sys

import pytest

from hbt import __main__, config
from hbt.utils import settings, text_table
from tests import ROOT, tiny


def test_every_setting_has_a_meaning():
    def walk(cls):
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(field.type):
                yield from walk(field.type)
            else:
                yield field

    assert all(field.metadata.get('doc') for field in walk(config.Config))


def test_every_config_in_configs_passes_its_check():
    for path in sorted((ROOT / 'configs').glob('*.py')):
        get_config = runpy.run_path(str(path))['get_config']
        assert config.check(get_config()).name == path.stem


@pytest.mark.parametrize(
    'name, value, message',
    [
        ('mapping', 'vmap', 'mapping: expected one of shard_map, pmap'),
        ('steps', 0, 'steps: expected 1 to'),
        ('sampler.alpha', 1.5, 'sampler.alpha: expected 0 to 1, got 1.5'),
        ('encoder.pooling', 'last', 'encoder.pooling: expected one of mean, cls'),
        (
            'encoder.num_heads',
            5,
            'encoder.hidden_dim: expected a multiple of encoder.num_heads=5, got 32',
        ),
        ('loss.temperature', 0.0, 'loss.temperature: expected'),
        ('loss.dims', (0, 16), 'loss.dims: expected integers from 1 to 10000000, got 0'),
        ('loss.dims', (16.5,), 'loss.dims: expected integers from 1 to 10000000, got 16.5'),
        ('loss.dims', ('8,x',), 'loss.dims: expected integers from 1 to 10000000, got x'),
        ('loss.dims', (16, 8), 'loss.dims: expected ascending dimensions, got 16,8'),
        ('loss.dims', (8, 8), 'loss.dims: expected ascending dimensions, got 8,8'),
        (
            'loss.dims',
            (16, 48),
            'loss.dims: expected at most 32, the dimensions of the embeddings, got 48',
        ),
    ],
)
def test_a_wrong_value_of_a_setting_is_refused_by_name(name, value, message):
    c = tiny.make()
    *parents, field = name.split('.')
    holder = c
    for parent in parents:
        holder = getattr(holder, parent)
    setattr(holder, field, value)
    with pytest.raises(ValueError, match=message):
        config.check(c)


def test_the_argument_of_a_config_file_is_typed_and_checked():
    args = settings.parse_argument('alpha=0,size=large', alpha=0.5, size='base', tied=False)
    assert (args.alpha, args.size, args.tied) == (0.0, 'large', False)
    assert (
        args.suffix == '_alpha0_sizelarge' and settings.parse_argument(None, alpha=0.5).suffix == ''
    )
    with pytest.raises(ValueError, match="expected alpha, got 'alfa'"):
        settings.parse_argument('alfa=0', alpha=0.5)
    with pytest.raises(ValueError, match="alpha: expected float, got 'x'"):
        settings.parse_argument('alpha=x', alpha=0.5)


def test_a_mistyped_setting_is_refused_with_the_nearest_one():
    config.check_flags(['main', '--config=f.py', '--config.sampler.alpha=0'])
    with pytest.raises(ValueError, match='sampler.alfa.*such as --config.sampler.alpha'):
        config.check_flags(['main', '--config.sampler.alfa=0'])


def test_words_of_a_tuple_may_be_typed_with_commas():
    c = tiny.make(sampler=config.Sampler(languages=('en,de',)))
    assert config.check(c).sampler.languages == ('en', 'de')


@pytest.mark.parametrize(
    'value', [(8, 16), ('8,16',), ('8, 16',), ('8', '16'), [8, 16], '8,16', ('8,', '16')]
)
def test_dims_are_integers_however_they_were_given(value):
    """The command line gives numbers as such, or as a text."""
    c = tiny.make(loss=config.Loss())
    c.loss.dims = value
    assert config.check(c).loss.dims == (8, 16)
    c.sampler.languages = (1, 2)
    assert config.check(c).sampler.languages == ('1', '2')


def test_dims_of_a_pretrained_model_are_compared_with_its_size_once_that_is_known():
    c = tiny.make(encoder=config.Encoder(init='x', hidden_dim=32, num_heads=4))
    c.loss.dims = (1024,)
    assert config.check(c) is c
    with pytest.raises(ValueError, match='loss.dims: expected at most 32, .* got 1024'):
        config.check_dims(c)
    c.encoder.projection_dim = 1024
    config.check_dims(c)


def test_one_language_needs_monolingual_batches():
    c = tiny.make(sampler=config.Sampler(languages=('en',)))
    with pytest.raises(ValueError, match='need at least two, got one; with sampler.alpha=1, all'):
        config.check(c)
    c.sampler.alpha = 1.0
    assert config.check(c) is c


def test_a_saved_config_is_read_back_equal(tmp_path):
    c = tiny.make(sampler=config.Sampler(alpha=0.25, languages=('en', 'de')))
    c.loss = config.Loss(dims=(8, 16))
    config.save(c, tmp_path / 'config.json')
    assert config.load(tmp_path / 'config.json') == c
    (tmp_path / 'config.json').write_text('{"version": 2, "stepz": 3}')
    with pytest.raises(ValueError, match='config.json: stepz'):
        config.load(tmp_path / 'config.json')
    (tmp_path / 'config.json').write_text('{"version": 2, "loss": {"dims": ["8"]}}')
    with pytest.raises(ValueError, match='config.json: loss.dims: expected one of type tuple'):
        config.load(tmp_path / 'config.json')


def test_a_config_of_another_version_is_refused_with_the_remedy(tmp_path):
    (tmp_path / 'config.json').write_text('{"steps": 3}')
    with pytest.raises(ValueError, match='config.json: expected a config of version 2.*--workdir'):
        config.load(tmp_path / 'config.json')


def test_changes_name_the_settings_that_differ():
    old, new = tiny.make(), tiny.make(optim=config.Optim(lr=1.0, warmup=2))
    assert settings.changes(old, new) == {'optim.lr': (1e-3, 1.0)}


def program(*args, module='hbt.main'):
    return subprocess.run(
        [sys.executable, '-m', module, *args], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_program_ends_a_users_error_in_one_line():
    for args in (
        ['--config=configs/demo.py', '--config.sampler.alfa=1'],
        ['--config=configs/demo.py', '--config.steps=many'],
        ['--config=configs/nowhere.py'],
        [],
        ['demo', 'more'],
    ):
        done = program(*args)
        assert done.returncode == 2
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr


@pytest.mark.slow
def test_every_program_has_a_short_help():
    done = program('--config=demo', '-h')
    assert done.returncode == 0 and not done.stderr
    assert '--replay ' in done.stdout and '--config.NAME' in done.stdout
    assert '--alsologtostderr' not in done.stdout


def test_the_programs_are_listed_and_each_takes_its_flags_by_cli_run():
    names = {x.stem for x in (ROOT / 'hbt').glob('*.py')} - {'__init__', '__main__', 'config'}
    assert set(__main__.PROGRAMS) == names
    lines = __main__.list_programs().splitlines()
    first = [x for x in lines if x.startswith('  python')]
    assert len(first) == len(names) and all(len(x.split('  ')[-1]) > 20 for x in first)
    assert max(map(len, lines)) <= text_table.WIDTH
    for name in names:
        assert '    cli.run(main' in (ROOT / f'hbt/{name}.py').read_text()


def test_the_reference_of_the_settings_is_that_of_the_config():
    written = (ROOT / 'docs/settings.md').read_text()
    assert written == config.reference(), 'python -m hbt.config > docs/settings.md'
