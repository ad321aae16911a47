"""Sources of parallel text by name: files of groups, SQuAD, MS MARCO, MIRACL, hub datasets.

Hides which format reads what. Used by `prepare`.
"""

import functools
import pathlib
import typing
from collections import abc

import babel

from hbt.data.readers import (
    corpora,
    libraries,
    records,
    schema,
    squad,
    synthetic,
    tables,
    text_lines,
)

BLOCK = 1024  # embedded groups of a block


class Format(typing.NamedTuple):
    """How a source `NAME:option=value,...` is opened; records take the options of fields, too."""

    open: abc.Callable[[dict[str, str], str], schema.GroupSource | schema.CollectionSource]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    fields: bool = False


def open_sources(inputs: abc.Sequence[str]) -> list[schema.GroupSource | schema.CollectionSource]:
    """Opens `FILE` (JSONL groups, plain or gzip) or `FORMAT:...` inputs, without reading rows yet.

    Raises ValueError for a missing file, an unknown option, or two inputs of one name.
    """
    if not inputs:
        raise ValueError('--input: expected at least one source, got none')
    found = [open_source(x) for x in inputs]
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'--input: expected inputs of different names, got {name!r} twice')
        if not name or name.startswith('.') or '/' in name:
            raise ValueError(f'--input: expected a name for a folder, got {name!r}; give name=NAME')
    return found


def open_source(spec: str) -> schema.GroupSource | schema.CollectionSource:
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
    'table': Format(tables.table, ('file',), (), True),
    'squad': Format(squad.squad, ('files',), ('language',)),
    'hf': Format(libraries.hugging_face, ('path',), ('config', 'split'), True),
    'tfds': Format(libraries.tfds, ('path',), ('data_dir', 'split'), True),
    'marco': Format(corpora.marco, ('queries', 'collection', 'triples'), ('language',)),
    'trec': Format(corpora.trec, ('topics', 'qrels', 'corpus'), ('language',)),
}


def jsonl(path: str) -> schema.GroupSource:
    """A file of groups, one JSON object a line."""
    file = pathlib.Path(path)
    if not file.is_file():
        known = ', '.join((*FORMATS, 'cldr'))
        raise ValueError(
            f'{path}: expected a JSONL file (plain or .gz) or FORMAT:... with one of {known}, '
            'found no such file'
        )
    sha256, size = text_lines.digest_files([file])
    name = file.name.removesuffix('.gz').removesuffix('.jsonl').removesuffix('.json')
    blocks = functools.partial(text_lines.iter_blocks, [file])
    return schema.GroupSource(
        name, file.name, sha256, size, blocks, read_groups, lambda n: f'{file}:{n + 1}'
    )


def read_groups(block: text_lines.LineBlock) -> list[schema.Group]:
    return [
        schema.check_group(schema.parse_json(line, place), place)
        for place, line in block.numbered()
    ]


def embedded(count: str, spec: str) -> schema.GroupSource:
    if not count.isdigit() or not int(count):
        raise ValueError(f'{spec}: expected cldr:GROUPS with a whole number, got {count!r}')

    def blocks():
        found = []
        for row in synthetic.groups('train', int(count)):
            found.append(schema.Group(row['id'], row['query'], row['passage'], {}))
            if len(found) == BLOCK:
                yield found
                found = []
        if found:
            yield found

    version = f'babel {babel.__version__}'
    return schema.GroupSource(
        'cldr', spec, version, 0, blocks, list, lambda n: f'{spec}: row {n + 1}'
    )
