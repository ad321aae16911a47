"""Groups from records with named fields: rows of tables, of Hugging Face datasets, of TFDS."""

from hbt.data.readers import schema
from hbt.utils import files, languages

BLOCK = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


def is_field_option(key: str) -> bool:
    """Whether an option says which field of a record to read: `query.en`, `id` ..."""
    return key.split('.')[0] in (*SIDES, 'id', 'language')


def parse_fields(options: dict[str, str], spec: str) -> dict[str, str]:
    """The options that name fields: `query.en=question`, or `query=question` with `language=en`."""
    fields = {key: path for key, path in options.items() if is_field_option(key)}
    for side in ('query', 'passage'):
        if not any(key.split('.')[0] == side for key in fields):
            raise ValueError(f'{spec}: expected {side}=FIELD or {side}.LANGUAGE=FIELD, got neither')
    for key in fields:
        side, _, code = key.partition('.')
        if code and side in SIDES:
            languages.check_language(code, f'{spec}: {key}')
    return fields


def convert_record(
    record: dict, fields: dict[str, str], where: str, number: int
) -> list[schema.Group]:
    """The groups of a record: one, or one for each item where a field holds a list of them.

    Args:
      record: values by name, which may be nested.
      fields: {'id': path, 'query.en': path, ...}; a path goes through nested values by dots.
        Without a language in its name, a value is in `language`, which is a code or the path of
        one; else it is {language: text}.
      where: the place of the record, for errors.
      number: the id of a record whose `fields` have none.
    """
    values = {k: _follow_path(record, path, where) for k, path in fields.items() if k != 'language'}
    lists = [k for k, v in values.items() if isinstance(v, list) and not k.startswith('negatives')]
    sizes = {len(values[k]) for k in lists}
    if len(sizes) > 1:
        raise ValueError(f'{where}: expected lists of one length in {", ".join(lists)}')
    count = sizes.pop() if sizes else 1
    codes = _languages(record, fields, where, count)
    groups = []
    for i in range(count):
        items = {k: v[i] if k in lists else v for k, v in values.items()}
        name = str(items.pop('id', number))
        group = {'id': f'{name}-{i}' if lists else name, 'query': {}, 'passage': {}}
        group['negatives'] = {}
        for key, value in items.items():
            side, _, language = key.partition('.')
            language = language or codes[i]
            if value is None or value == '' or value == []:
                continue
            if side == 'negatives' and isinstance(value, str):
                value = [value]
            if not language and not isinstance(value, dict):
                shown = files.shorten(value)
                raise ValueError(f'{where}: {side}: expected {{language: text}}, got {shown}')
            group[side] |= {language: value} if language else value
        groups.append(schema.check_group(group, where))
    return groups


def _languages(record: dict, fields: dict[str, str], where: str, count: int) -> list[str]:
    """The language, '' for none, of each of the `count` groups of a record."""
    code = fields.get('language', '')
    if code and not languages.is_language(code):
        code = _follow_path(record, code, where)
    codes = code if isinstance(code, list) else [code] * count
    if len(codes) < count or not all(isinstance(x, str) for x in codes):
        shown = files.shorten(code)
        raise ValueError(f'{where}: language: expected one code or {count}, got {shown}')
    return codes


def _follow_path(record, path: str, where: str):
    """The value at a dotted path; through a list, the list of the values."""
    for i, name in enumerate(path.split('.')):
        if isinstance(record, list):
            rest = '.'.join(path.split('.')[i:])
            return [_follow_path(item, rest, where) for item in record]
        if not isinstance(record, dict) or name not in record:
            names = ', '.join(record) if isinstance(record, dict) else files.shorten(record)
            raise ValueError(f'{where}: expected a field {name!r} of {path!r}, got {names}')
        record = record[name]
    return record
