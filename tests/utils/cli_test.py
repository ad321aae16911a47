"""The command line: names of shipped experiments, and arguments without a flag."""

import pathlib

import pytest
from absl import flags

from hbt.utils import cli
from tests import ROOT


@pytest.mark.parametrize('name', ['demo', 'demo.py', 'configs/demo.py', 'research/scaling'])
def test_a_shipped_experiment_is_found_by_its_name_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _, argument = cli.resolve_config(f'--config={name}:alpha=1').partition(':')
    file = pathlib.Path(path.removeprefix('--config='))
    stem = name.removeprefix('configs/').removesuffix('.py')
    assert argument == 'alpha=1'
    assert file.read_text() == (ROOT / 'configs' / f'{stem}.py').read_text()


def test_a_file_goes_before_a_shipped_experiment_and_other_flags_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('demo').write_text('')
    for word in ('--config=demo', '--config=demo:alpha=1', '--config.seed=3', '--config', 'demo'):
        assert cli.resolve_config(word) == word


def test_an_unknown_experiment_is_refused_with_the_names_of_the_shipped_ones():
    with pytest.raises(ValueError, match="expected a file or one of .*demo, .*, got 'dmo'"):
        cli.resolve_config('--config=dmo')


@pytest.fixture
def config_flag():
    flags.DEFINE_string('config', None, 'file of the experiment')
    yield
    delattr(flags.FLAGS, 'config')


def test_a_forgotten_config_flag_is_understood(config_flag):
    for argv in (['demo.py', '--x=1'], ['--x=1', 'demo.py'], ['--x', 'y', 'demo.py']):
        resolved = ['--config=demo.py' if x == 'demo.py' else x for x in argv]
        assert cli._resolve_positional(['main', *argv]) == ['main', *resolved]


@pytest.mark.parametrize(
    'argv', [['demo.py', 'more'], ['--config=demo.py', 'more'], ['--config=demo', '--x=1', 'more']]
)
def test_an_argument_that_belongs_to_no_flag_is_refused(argv, config_flag):
    with pytest.raises(ValueError, match="expected flags only, got the argument 'more'"):
        cli._resolve_positional(['main', *argv])


def test_a_program_without_a_config_takes_no_arguments():
    with pytest.raises(ValueError, match="got the argument 'rows.jsonl'"):
        cli._resolve_positional(['prepare', 'rows.jsonl', '--out=x'])
