"""Output that appears only when it is whole, and that the same call resumes after a kill.

Until then it is PATH.partial, with a JSON record of the settings that it was begun with.
"""

import json
import os
import pathlib
import shutil

from hbt.utils import files, log

RECORD = 'progress.json'  # of a folder; all its files progress.* go when it is whole


def read_record(record: pathlib.Path, settings: dict, where: pathlib.Path | None = None) -> dict:
    """The state that `write_record` saved in an earlier call; {} if there is none.

    ValueError names the first setting that differs, and `where`, or else the record, as what to
    delete to start again.
    """
    if not record.exists():
        return {}
    state = files.read_json(record, dict)
    before, now = state.pop('settings', {}), json.loads(json.dumps(settings))
    for name in now | before:
        if before.get(name) != now.get(name):
            raise ValueError(
                f'{where or record}: {name}: expected {before.get(name)!r}, with which this output '
                f'began, got {now.get(name)!r}; delete it to start again'
            )
    return state


def write_record(record: pathlib.Path, settings: dict, **state) -> None:
    """Saves settings, and how far the output is, for `read_record`."""
    files.write_json(record, {'settings': settings, **state})


def open_folder(out: pathlib.Path, settings: dict, restart: bool = False) -> pathlib.Path:
    """The folder PATH.partial in which an output grows until `finish_folder`.

    ValueError if it was begun with other settings, unless `restart` says to delete it then.
    """
    partial = files.partial_path(out)
    record = partial / RECORD
    try:
        read_record(record, settings, partial)
        if record.exists():
            log.info(f'{out}: continuing')
        elif restart:
            shutil.rmtree(partial, ignore_errors=True)
    except ValueError:
        if not restart:
            raise
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_record(record, settings)
    return partial


def finish_folder(out: pathlib.Path) -> None:
    """Removes the files progress.* of PATH.partial, the record last, and renames it to `out`."""
    partial = files.partial_path(out)
    record = partial / RECORD
    for file in [*{*partial.rglob('progress.*')} - {record}, record]:
        file.unlink()
    os.replace(partial, out)
