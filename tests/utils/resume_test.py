"""Output that is resumed after a kill, or refused."""

import pytest

from hbt.utils import files, resume


def test_a_folder_is_resumed_with_the_same_settings_and_refused_with_others(tmp_path):
    out = tmp_path / 'out'
    partial = resume.open_folder(out, {'model': 'a', 'languages': ('de', 'en')})
    (partial / 'shard').touch()
    resume.open_folder(out, {'model': 'a', 'languages': ('de', 'en')})
    assert (partial / 'shard').exists() and not out.exists()
    for settings, message in (
        ({'model': 'b', 'languages': ('de', 'en')}, "model: expected 'a', .* began, got 'b'"),
        (
            {'model': 'a'},
            r"out.partial: languages: expected \['de', 'en'\], .* got None; delete it",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            resume.open_folder(out, settings)
    (partial / 'de').mkdir()
    (partial / 'de/progress.vectors').touch()
    resume.finish_folder(out)
    assert sorted(x.name for x in out.rglob('*')) == ['de', 'shard'] and not partial.exists()


def test_a_folder_of_other_settings_is_made_again_where_that_is_wanted(tmp_path):
    (tmp_path / 'out.partial').mkdir()
    (tmp_path / 'out.partial/unknown').touch()
    partial = resume.open_folder(tmp_path / 'out', {'model': 'a'}, restart=True)
    assert not (partial / 'unknown').exists()
    (partial / 'shard').touch()
    resume.open_folder(tmp_path / 'out', {'model': 'a'}, restart=True)
    assert (partial / 'shard').exists()
    resume.open_folder(tmp_path / 'out', {'model': 'b'}, restart=True)
    assert not (partial / 'shard').exists()


def test_a_record_gives_its_state_back(tmp_path):
    record = tmp_path / 'x.progress.json'
    assert resume.read_record(record, {'model': 'a'}) == {}
    resume.write_record(record, {'model': 'a'}, done=3)
    assert resume.read_record(record, {'model': 'a'}) == {'done': 3}
    with pytest.raises(ValueError, match='x.progress.json: model: expected'):
        resume.read_record(record, {'model': 'b'})


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with files.atomic(tmp_path / 'x', 'wb') as file:
            file.write(b'half')
            raise KeyboardInterrupt
    assert not (tmp_path / 'x').exists()
    files.write_text(tmp_path / 'x', 'whole')
    assert (tmp_path / 'x').read_text() == 'whole' and not (tmp_path / 'x.partial').exists()


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    for encoding in ('utf-8', 'utf-8-sig'):
        (tmp_path / 'x.json').write_text('{"ä": "é"}', encoding)
        assert files.read_json(tmp_path / 'x.json', dict) == {'ä': 'é'}


def test_a_locked_folder_names_the_process(tmp_path):
    with files.lock(tmp_path / 'lock'):
        with pytest.raises(ValueError, match=f'{tmp_path} is locked by process [0-9]+ on '):
            with files.lock(tmp_path / 'lock'):
                pass
    with files.lock(tmp_path / 'lock'):
        pass
