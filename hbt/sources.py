"""Sources of parallel text by name: files of groups, SQuAD, MS MARCO, MIRACL, hub datasets.

Hides which format reads what. Used by `prepare`.
"""

import functools
import pathlib
import typing
from collections import abc

import babel

from hbt import cldr, corpora, records, rows

BLOCK = 1024  # embedded groups of a block


class Format(typing.NamedTuple):
    """How a source `NAME:option=value,...` is opened; records take the options of fields, too."""

    open: abc.Callable[[dict[str, str], str], rows.Source | rows.Collection]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    fields: bool = False


def open_all(inputs: abc.Sequence[str]) -> list[rows.Source | rows.Collection]:
    """Opens `FILE` (JSONL groups, plain or gzip) or `FORMAT:...` inputs, without reading rows yet.

    Raises ValueError for a missing file, an unknown option, or two inputs of one name.
    """
    if not inputs:
        raise ValueError('--input: expected at least one source, got none')
    found = [open_one(x) for x in inputs]
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'--input: expected inputs of different names, got {name!r} twice')
        if not name or name.startswith('.') or '/' in name:
            raise ValueError(f'--input: expected a name for a folder, got {name!r}; give name=NAME')
    return found


def open_one(spec: str) -> rows.Source | rows.Collection:
    kind, colon, rest = spec.partition(':')
    if colon and kind == 'cldr':
        return embedded(rest, spec)
    if not colon or kind not in FORMATS or pathlib.Path(spec).exists():
        return jsonl(spec)
    form, options = FORMATS[kind], {}
    for item in filter(None, rest.split(',')):
        key, equals, value = item.partition('=')
        fits = key in (*form.needs, *form.takes, 'name') or (
            form.fields and key.split('.')[0] in (*records.SIDES, 'id', 'language')
        )
        if not fits or not equals or not value:
            known = ', '.join((*form.needs, *form.takes, 'name'))
            fields = ', id, language, query, passage, negatives' * form.fields
            raise ValueError(f'{spec}: expected OPTION=VALUE with {known}{fields}, got {item!r}')
        options[key] = value
    for key in form.needs:
        if key not in options:
            raise ValueError(f'{spec}: expected {key}=VALUE, got none')
    return form.open(options, spec)


FORMATS = {
    'table': Format(records.table, ('file',), (), True),
    'squad': Format(records.squad, ('files',), ('language',)),
    'hf': Format(records.hugging_face, ('path',), ('config', 'split'), True),
    'tfds': Format(records.tfds, ('path',), ('data_dir', 'split'), True),
    'marco': Format(corpora.marco, ('queries', 'collection', 'triples'), ('language',)),
    'trec': Format(corpora.trec, ('topics', 'qrels', 'corpus'), ('language',)),
}


def jsonl(path: str) -> rows.Source:
    """A file of groups, one JSON object a line."""
    file = pathlib.Path(path)
    if not file.is_file():
        known = ', '.join((*FORMATS, 'cldr'))
        raise ValueError(
            f'{path}: expected a JSONL file (plain or .gz) or FORMAT:... with one of {known}, '
            'found no such file'
        )
    sha256, size = rows.digest([file])
    name = file.name.removesuffix('.gz').removesuffix('.jsonl').removesuffix('.json')
    blocks = functools.partial(rows.lines, [file])
    return rows.Source(
        name, file.name, sha256, size, blocks, read_groups, lambda n: f'{file}:{n + 1}'
    )


def read_groups(block: rows.Lines) -> list[rows.Row]:
    return [rows.check(rows.parse_json(line, place), place) for place, line in block.numbered()]


def embedded(count: str, spec: str) -> rows.Source:
    if not count.isdigit() or not int(count):
        raise ValueError(f'{spec}: expected cldr:GROUPS with a whole number, got {count!r}')

    def blocks():
        found = []
        for row in cldr.groups('train', int(count)):
            found.append(rows.Row(row['id'], row['query'], row['passage'], {}))
            if len(found) == BLOCK:
                yield found
                found = []
        if found:
            yield found

    version = f'babel {babel.__version__}'
    return rows.Source('cldr', spec, version, 0, blocks, list, lambda n: f'{spec}: row {n + 1}')
