"""The command line: names of shipped experiments."""

import pathlib

import pytest

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
