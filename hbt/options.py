"""Settings as text: flags of a command line, a run's config.json, the reference for people.

python -m hbt.options > docs/settings.md
"""

import dataclasses
import difflib
import json
import os
import pathlib
from collections import abc

from hbt import config


def check_flags(argv: abc.Sequence[str]) -> None:
    """ValueError for a `--config.name=` on the command line that is no setting."""
    known = [name for name, _ in config.fields(config.Config())]
    for arg in argv:
        name = arg.lstrip('-').split('=')[0]
        if name.startswith('config.') and name.removeprefix('config.') not in known:
            close = difflib.get_close_matches(name.removeprefix('config.'), known, 1, 0)[0]
            raise ValueError(f'--{name}: expected a setting such as --config.{close}, got {arg!r}')


def changes(old: config.Config, new: config.Config) -> dict[str, tuple]:
    """Setting -> (old value, new value) where they differ."""
    before = dict(config.fields(old))
    return {k: (before[k], v) for k, v in config.fields(new) if before[k] != v}


def save(c: config.Config, path: pathlib.Path) -> None:
    """Writes every setting as JSON, whole or not at all."""
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(dataclasses.asdict(c), indent=1))
    os.replace(partial, path)


def load(path: pathlib.Path) -> config.Config:
    """Reads what `save` wrote. ValueError names the file and the setting that does not fit."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path}: expected the config of a run, got {error}') from None
    c = config.Config()
    try:
        fill(c, values, '')
        return config.check(c)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def fill(part, values, prefix: str) -> None:
    """Sets what JSON tells of a part; settings that it does not name keep their defaults."""
    if not isinstance(values, dict):
        raise ValueError(f'{prefix or "config"}: expected settings, got {values!r}')
    for name, value in values.items():
        if name not in {field.name for field in dataclasses.fields(part)}:
            raise ValueError(f'{prefix}{name}: expected a setting, got an unknown one')
        old = getattr(part, name)
        if dataclasses.is_dataclass(old):
            fill(old, value, f'{prefix}{name}.')
            continue
        if type(old) is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(old) is tuple and type(value) is list and {type(x) for x in value} <= {str}:
            value = tuple(value)
        if type(value) is not type(old):
            kind = type(old).__name__
            raise ValueError(f'{prefix}{name}: expected one of type {kind}, got {value!r}')
        setattr(part, name, value)


def reference() -> str:
    """Markdown: a table for every part of the config."""
    lines = [
        '# Settings',
        '',
        'Made by `python -m hbt.options` from `hbt/config.py`. Each is given as',
        '`--config.sampler.alpha=0.25`, or set in a file of `configs/`.',
    ]
    for prefix, part in parts(config.Config(), ''):
        lines += ['', f'## {prefix.rstrip(".") or "config"}', '', part.__doc__, '']
        lines += ['| setting | default | meaning | takes |', '|---|---|---|---|']
        for field in dataclasses.fields(part):
            if 'doc' in field.metadata:
                name, default = prefix + field.name, getattr(part, field.name)
                shown = f'`{json.dumps(default, ensure_ascii=False)}`'
                doc = field.metadata['doc'].replace('|', '\\|')
                lines.append(f'| `{name}` | {shown} | {doc} | {allowed(name, default)} |')
    return '\n'.join(lines) + '\n'


def parts(part, prefix: str) -> abc.Iterator[tuple[str, object]]:
    """(dotted prefix, part) of the config and all below it."""
    yield prefix, part
    for field in dataclasses.fields(part):
        if dataclasses.is_dataclass(getattr(part, field.name)):
            yield from parts(getattr(part, field.name), f'{prefix}{field.name}.')


def allowed(name: str, default) -> str:
    """What a setting may be."""
    if name in config.CHOICES:
        return ', '.join(config.CHOICES[name])
    kinds = {bool: 'true or false', int: 'integer', float: 'number', str: 'text', tuple: 'words'}
    low, high = config.BOUNDS.get(name, (None, None))
    return kinds[type(default)] + (f', {low:,} to {high:,}' if low is not None else '')


if __name__ == '__main__':
    print(reference(), end='')
