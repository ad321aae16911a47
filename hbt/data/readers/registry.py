"""Sources of training data by name: `FILE`, `cldr:GROUPS` or `FORMAT:option=value,...`."""

import functools
import pathlib
import typing
from collections import abc

import babel

from hbt.data.readers import records, retrieval, schema, source_files, squad, synthetic, text_lines

Source = schema.GroupSource | schema.CollectionSource


class Format(typing.NamedTuple):
    """How a source `FORMAT:option=value,...` is opened; `name` is an option of all of them."""

    open: abc.Callable[[dict[str, str], str], Source]  # of the options and the whole text
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    has_fields: bool = False  # also takes the options of `records`


def open_sources(inputs: abc.Sequence[str]) -> list[Source]:
    """Opens `FILE` (JSONL groups, plain or gzip) or `FORMAT:...` inputs; no group is read yet."""
    if not inputs:
        raise ValueError('--input: expected at least one source, got none')
    sources = [_open_source(x) for x in inputs]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'--input: expected inputs of different names, got {name!r} twice')
        if not name or name.startswith('.') or '/' in name:
            raise ValueError(f'--input: expected a name for a folder, got {name!r}; give name=NAME')
    return sources


def open_groups(path: str) -> schema.GroupSource:
    """A file of groups, one JSON object a line."""
    file = pathlib.Path(path)
    if not file.is_file():
        formats = ', '.join((*FORMATS, 'cldr'))
        expected = f'a JSONL file (plain or .gz) or FORMAT:... with one of {formats}'
        raise ValueError(f'{path}: expected {expected}, got no such file')
    name = file.name.removesuffix('.gz').removesuffix('.jsonl').removesuffix('.json')
    checksum = source_files.digest_files([file])
    blocks = functools.partial(text_lines.iter_blocks, [file])
    return schema.GroupSource(
        name, file.name, *checksum, blocks, _parse_groups, lambda n: f'{file}:{n + 1}'
    )


def _open_source(spec: str) -> Source:
    kind, colon, rest = spec.partition(':')
    if colon and kind == 'cldr':
        return _open_cldr(rest, spec)
    if not colon or kind not in FORMATS or pathlib.Path(spec).exists():
        return open_groups(spec)
    form, options = FORMATS[kind], {}
    names = (*form.required, *form.optional, 'name')
    for item in filter(None, rest.split(',')):
        key, equals, value = item.partition('=')
        is_option = key in names or (form.has_fields and records.is_field_option(key))
        if not is_option or not equals or not value:
            known = ', '.join(names) + ', id, language, query, passage, negatives' * form.has_fields
            raise ValueError(f'{spec}: expected OPTION=VALUE with {known}, got {item!r}')
        if key in options:
            raise ValueError(f'{spec}: expected each option once, got {key!r} again')
        options[key] = value
    for key in form.required:
        if key not in options:
            raise ValueError(f'{spec}: expected {key}=VALUE, got none')
    return form.open(options, spec)


def _parse_groups(block: text_lines.LineBlock) -> list[schema.Group]:
    return [schema.check_group(fields, where) for where, fields in records.iter_json(block)]


def _open_cldr(count: str, spec: str) -> schema.GroupSource:
    if not count.isdigit() or not int(count):
        raise ValueError(f'{spec}: expected cldr:GROUPS with a whole number, got {count!r}')
    version, blocks = f'babel {babel.__version__}', functools.partial(_cldr_blocks, int(count))
    return schema.GroupSource(
        'cldr', spec, version, 0, blocks, list, lambda n: f'{spec}: group {n + 1}'
    )


def _cldr_blocks(count: int) -> abc.Iterator[list[schema.Group]]:
    rows = synthetic.groups('train', count)
    return records.iter_blocks(schema.Group(**row, negatives={}) for row in rows)


FORMATS = {
    'table': Format(records.open_table, ('file',), ('dialect',), has_fields=True),
    'squad': Format(squad.open_squad, ('files',), ('language',)),
    'hf': Format(records.open_hugging_face, ('path',), ('config', 'split'), has_fields=True),
    'tfds': Format(records.open_tfds, ('path',), ('data_dir', 'split'), has_fields=True),
    'marco': Format(retrieval.open_marco, ('queries', 'collection', 'triples'), ('language',)),
    'trec': Format(retrieval.open_trec, ('topics', 'qrels', 'corpus'), ('language',)),
}
