"""Sources of training data by name: `FILE`, `cldr:GROUPS` or `FORMAT:option=value,...`."""

import functools
import pathlib
import typing
from collections import abc

import babel

from hbt.data.readers import (
    layouts,
    libraries,
    records,
    retrieval,
    schema,
    source_files,
    squad,
    synthetic,
    text_lines,
)

Source = schema.GroupSource | schema.CollectionSource


class Format(typing.NamedTuple):
    """How a source `FORMAT:option=value,...` is opened; `name` is an option of all of them."""

    open: abc.Callable[[dict[str, str], str], Source]  # of the options and the whole text
    required: tuple[str, ...]
    forms: dict[str, str]  # what is read -> how it is written, for help, page and errors
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
        expected = f'a JSONL file (plain or .gz) or FORMAT:... with one of {", ".join(FORMATS)}'
        raise ValueError(f'{path}: expected {expected}, got no such file')
    name = file.name.removesuffix('.gz').removesuffix('.jsonl').removesuffix('.json')
    checksum = source_files.digest_files([file])
    blocks = functools.partial(text_lines.iter_blocks, [file])
    return schema.GroupSource(
        name, file.name, *checksum, blocks, _parse_groups, lambda n: f'{file}:{n + 1}'
    )


def _open_source(spec: str) -> Source:
    kind, colon, rest = spec.partition(':')
    if colon and kind in layouts.LAYOUTS:
        expected = f'table:file=FILE,layout={kind},language=CODE, or hf:... with this layout'
        raise ValueError(f'{spec}: expected {expected}, got a layout as a format')
    if not colon or kind not in FORMATS or pathlib.Path(spec).exists():
        return open_groups(spec)
    form, options = FORMATS[kind], {}
    if kind == 'cldr':
        return form.open({'groups': rest}, spec)
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
            example = next(iter(form.forms.values()))
            raise ValueError(f'{spec}: expected {key}=VALUE, as in {example}, got none')
    return form.open(options, spec)


def _parse_groups(block: text_lines.LineBlock) -> list[schema.Group]:
    groups = []
    for where, fields in records.iter_json(block):
        if layout := layouts.find_layout(fields):
            got = f'one of {layout}: give table:file={block.file},layout={layout},language=CODE'
            raise ValueError(f'{where}: expected a group of id, query and passage, got {got}')
        groups.append(schema.check_group(fields, where))
    return groups


def _open_cldr(options: dict[str, str], spec: str) -> schema.GroupSource:
    count = options['groups']
    if not count.isdigit() or not int(count):
        raise ValueError(f'{spec}: expected cldr:GROUPS with a whole number, got {count!r}')
    version, blocks = f'babel {babel.__version__}', functools.partial(_cldr_blocks, int(count))
    return schema.GroupSource(
        'cldr', spec, version, 0, blocks, list, lambda n: f'{spec}: group {n + 1}'
    )


def _cldr_blocks(count: int) -> abc.Iterator[list[schema.Group]]:
    rows = synthetic.groups('train', count)
    return records.iter_blocks(schema.Group(**row, negatives={}) for row in rows)


def list_forms() -> list[tuple[str, str, str]]:
    """(what is read, how it is written, options that may be added) of every input."""
    rows = [('groups of translations, plain or gzip', 'FILE.jsonl, FILE.jsonl.gz', '')]
    for form in FORMATS.values():
        options = ', '.join(form.optional)
        for meaning, example in form.forms.items():
            rows.append((meaning, example, options))
            options = ''  # once is enough
    return rows


def format_help() -> str:
    """The inputs, for the help of a program."""
    lines = ['Inputs, where {lang} is a code or an English name, and name=NAME may be added:', '']
    for meaning, example, options in list_forms():
        lines += [f'  {example}', f'      {meaning}' + f' (also {options})' * bool(options)]
    return '\n'.join(lines)


FORMATS = {
    'table': Format(
        records.open_table,
        ('file',),
        {
            'tables: JSON lines, CSV, TSV': 'table:file=faq.tsv,'
            'query=COLUMN,passage=COLUMN,language=en'
        }
        | {
            layout.meaning: f'table:file={layout.file},layout={name},language=en'
            for name, layout in layouts.LAYOUTS.items()
        },
        ('dialect', 'layout'),
        has_fields=True,
    ),
    'hf': Format(
        libraries.open_hugging_face,
        ('path',),
        {
            'data sets of the Hugging Face hub': 'hf:path=OWNER/NAME,'
            'query=COLUMN,passage=COLUMN,language=en',
            'Parquet': 'hf:path=parquet,data_files=x/*.parquet,'
            'query=COLUMN,passage=COLUMN,language=en',
        },
        ('config', 'data_files', 'split', 'layout'),
        has_fields=True,
    ),
    'tfds': Format(
        libraries.open_tfds,
        ('path',),
        {'TensorFlow Datasets': 'tfds:path=NAME,query=COLUMN,passage=COLUMN,language=en'},
        ('data_dir', 'split', 'layout'),
        has_fields=True,
    ),
    'squad': Format(
        squad.open_squad, ('files',), {'SQuAD JSON': 'squad:files=xquad.{lang}.json'}, ('language',)
    ),
    'marco': Format(
        retrieval.open_marco,
        ('queries', 'collection', 'triples'),
        {'MS MARCO, mMARCO': 'marco:queries=q.{lang}.tsv,collection=c.{lang}.tsv,triples=ids.tsv'},
        ('language',),
    ),
    'trec': Format(
        retrieval.open_trec,
        ('topics', 'qrels', 'corpus'),
        {
            'MIRACL, Mr. TyDi': 'trec:topics=T-{lang}.tsv,qrels=Q-{lang}.tsv,'
            'corpus=corpus-{lang}/*.jsonl.gz'
        },
        ('language',),
    ),
    'cldr': Format(_open_cldr, ('groups',), {'embedded data': 'cldr:GROUPS'}),
}
