"""Nested dataclasses as settings: declared, checked, compared, documented.

A field carries its meaning, its choices and its bounds; check and reference follow from these.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections import abc

KINDS = {bool: 'true or false', int: 'integer', float: 'number', str: 'text', tuple: 'words'}


def setting(default, doc: str, allowed: abc.Sequence = ()):
    """A field: bool, int, float, str or a tuple, with its meaning for the reference.

    `allowed`: all choices of a text, or the smallest and the largest number; empty: any value. A
    tuple with bounds is one of integers, else one of words.
    """
    return dataclasses.field(default=default, metadata={'doc': doc, 'allowed': tuple(allowed)})


def choice(choices: tuple[str, ...], doc: str):
    """A field with one of these texts; the first is the default."""
    return setting(choices[0], doc, choices)


class Entry(typing.NamedTuple):
    """One setting of a config."""

    value: typing.Any
    doc: str
    allowed: tuple  # choices of a text, bounds of a number


def entries(config) -> dict[str, Entry]:
    """Dotted name -> every setting of a config, in the order of its declaration."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            result |= {f'{field.name}.{name}': entry for name, entry in entries(value).items()}
        else:
            result[field.name] = Entry(value, **field.metadata)
    return result


def flatten(config) -> dict[str, typing.Any]:
    """Dotted name -> value of every setting."""
    return {name: entry.value for name, entry in entries(config).items()}


def check_values(config, prefix: str = '') -> None:
    """ValueError names the first setting with a wrong value, `prefix` before its name."""
    for name, (value, _, allowed) in entries(config).items():
        if allowed and isinstance(value, str) and value not in allowed:
            choices = ', '.join(filter(None, allowed))
            raise ValueError(f'{prefix}{name}: expected one of {choices}, got {value!r}')
        if not allowed or isinstance(value, str):
            continue
        low, high = allowed
        if isinstance(value, tuple):
            for x in value:
                if type(x) is not int or not low <= x <= high:
                    expected = f'integers from {low} to {high}'
                    raise ValueError(f'{prefix}{name}: expected {expected}, got {x}')
        elif not low <= value <= high:
            raise ValueError(f'{prefix}{name}: expected {low} to {high}, got {value}')


def split_tuples(config) -> None:
    """Splits tuples that were given as `a,b`, and reads the integers of those with bounds.

    The command line gives numbers as such, words as one text.
    """
    for _, part in _sections(config):
        for field in dataclasses.fields(part):
            if isinstance(field.default, tuple):
                value = getattr(part, field.name)
                items = value if isinstance(value, tuple | list) else (value,)
                words = [x.strip() for item in items for x in str(item).split(',') if x.strip()]
                if field.metadata['allowed']:
                    words = [int(x) if x.removeprefix('-').isdecimal() else x for x in words]
                setattr(part, field.name, tuple(words))


def check_flags(config, argv: abc.Sequence[str]) -> None:
    """ValueError for a `--config.name=` on the command line that is no setting."""
    names = list(entries(config))
    for arg in argv:
        flag = arg.lstrip('-').split('=')[0]
        name = flag.removeprefix('config.')
        if name != flag and name not in names:
            close = difflib.get_close_matches(name, names, 1, 0)[0]
            raise ValueError(f'--{flag}: expected a setting such as --config.{close}, got {arg!r}')


def changes(old, new) -> dict[str, tuple]:
    """Setting -> (old value, new value) where two configs differ."""
    before = flatten(old)
    return {name: (before[name], x) for name, x in flatten(new).items() if before[name] != x}


def format_values(config) -> str:
    """Markdown: a table of all settings."""
    texts = {name: json.dumps(x, ensure_ascii=False) for name, x in flatten(config).items()}
    rows = ('| {} | `{}` |'.format(name, x.replace('|', '\\|')) for name, x in texts.items())
    return '\n'.join(['| setting | value |', '|---|---|', *rows])


def update(config, values, prefix: str = ''):
    """Sets the settings that JSON states in `config`, and returns it.

    Raises ValueError, which names the setting, for an unknown one and a wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f'{prefix or "config"}: expected settings, got {values!r}')
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f'{prefix}{name}: expected a setting, got an unknown one')
        old = getattr(config, name)
        if dataclasses.is_dataclass(old):
            update(old, value, f'{prefix}{name}.')
            continue
        if type(old) is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(old) is tuple and type(value) is list:
            kind = int if fields[name].metadata['allowed'] else str
            value = tuple(value) if {type(x) for x in value} <= {kind} else value
        if type(value) is not type(old):
            kind = type(old).__name__
            raise ValueError(f'{prefix}{name}: expected one of type {kind}, got {value!r}')
        setattr(config, name, value)
    return config


def reference(config) -> abc.Iterator[str]:
    """Lines of Markdown: a table for every section of a config."""
    for prefix, part in _sections(config):
        yield from ('', f'## {prefix.rstrip(".") or "config"}', '', part.__doc__, '')
        yield from ('| setting | default | meaning | values |', '|---|---|---|---|')
        own = {name: entry for name, entry in entries(part).items() if '.' not in name}
        for name, (value, doc, allowed) in own.items():
            values = KINDS[type(value)]
            if allowed and isinstance(value, str):
                values = ', '.join(allowed)
            elif allowed:
                kind = 'integers' if isinstance(value, tuple) else values
                values = f'{kind}, {allowed[0]:,} to {allowed[1]:,}'
            cells = (f'`{json.dumps(value, ensure_ascii=False)}`', doc.replace('|', '\\|'), values)
            yield f'| `{prefix}{name}` | {" | ".join(cells)} |'


def _sections(config, prefix: str = '') -> abc.Iterator[tuple[str, object]]:
    yield prefix, config
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f'{prefix}{field.name}.')


def parse_weights(text: str, name: str, words: int) -> dict[tuple[str, ...], float]:
    """Reads `A:B:NUMBER,...` with so many words before the number, for the setting `name`."""
    result = {}
    for item in filter(None, text.split(',')):
        *key, number = item.split(':')
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if len(key) != words or not all(key) or not 0 <= value < float('inf'):
            form = ':'.join(['WORD'] * words + ['NUMBER'])
            raise ValueError(f'{name}: expected {form} with a number from 0, got {item!r}')
        if tuple(key) in result:
            raise ValueError(f'{name}: expected {":".join(key)} once, got it twice')
        result[tuple(key)] = value
    return result


def parse_argument(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Reads `key=value,key=value` behind the colon of `--config=file.py:...`.

    Returns the defaults with these values, cast to the types of the defaults, and a `suffix` for
    names, such as _alpha0, of what differs from the defaults.
    """
    values = dict(defaults)
    for item in filter(None, (arg or '').split(',')):
        key, _, text = item.partition('=')
        if key not in defaults:
            raise ValueError(f'--config argument: expected {", ".join(defaults)}, got {key!r}')
        kind = type(defaults[key])
        try:
            values[key] = text.lower() in ('1', 'true') if kind is bool else kind(text)
        except ValueError:
            expected = f'{key}: expected {kind.__name__}'
            raise ValueError(f'--config argument {expected}, got {text!r}') from None
    texts = [f'_{k}{v:g}' if isinstance(v, float) else f'_{k}{v}' for k, v in values.items()]
    changed = [text for text, k in zip(texts, values, strict=True) if values[k] != defaults[k]]
    return types.SimpleNamespace(**values, suffix=''.join(changed))
