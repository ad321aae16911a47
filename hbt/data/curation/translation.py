"""Command line: question-answer pairs of one language -> parallel groups over many.

Hides sentences, shards and what of a translation is not kept. What was done before a kill is kept,
and the output appears only when it is whole. Its output is an input of `prepare`.
"""

import collections
import gzip
import itertools
import json
import os
import pathlib
import shutil
import typing
import unicodedata
from collections import abc

import regex

from hbt.data.curation import decontamination, translators
from hbt.data.readers import schema
from hbt.utils import files, languages, log

SENTENCE = regex.compile(r'(?<=[.!?…]["”»)]?)\s+(?=[^\p{Ll}\s])|(?<=[。！？।])\s*|\s*\n\s*')
UNSPACED = ('Jpan', 'Hans', 'Hant', 'Thai', 'Laoo', 'Khmr', 'Mymr')
NUMBER = regex.compile(r'\d+(?:[.,\u066b\u066c\u202f\u00a0\x27]\d+)*')
FILTERS = ('empty', 'length', 'script', 'copied', 'number')


class Setting(typing.NamedTuple):
    """What the output depends on, next to the input."""

    source: str
    targets: tuple[str, ...]
    engine: tuple[str, ...]
    shard: int  # groups
    ratio: float  # of lengths, the longer to the shorter
    filters: tuple[str, ...]


def translate(reader: schema.GroupSource, out: pathlib.Path, setting: Setting) -> dict[str, dict]:
    """Writes the groups of `reader` with their translations to `out` (.jsonl.gz).

    Returns, and writes beside it (.report.json), the counts of every language: texts translated,
    kept, and not kept by each filter. Every shard is written whole or not at all, and the same call
    goes on with those that are missing. A text that a group has in a language already stays.
    Raises ValueError for bad rows, where an engine fails, and for an output of other settings.
    """
    check(setting, out)
    engine = translators.make(setting.engine, setting.targets)
    parts = begin(out, setting._asdict() | {'sha256': reader.sha256})
    groups = reader.iter_groups()
    shards = iter(lambda: list(itertools.islice(groups, setting.shard)), [])
    counts = {x: collections.Counter() for x in setting.targets}
    done = []
    with log.progress(desc=out.name, unit=' rows') as bar:
        for number, shard in enumerate(shards):
            part = parts / f'{number:06}.jsonl.gz'
            report = part.with_suffix('.json')  # appears after the shard: it is whole
            if not report.exists():
                found, counted = translated(shard, engine, setting)
                write(part, found)
                files.write_json(report, counted)
            for language, counted in files.read_json(report, dict).items():
                counts[language].update(counted)
            done.append(part)
            bar.update(len(shard))
    if not done:
        raise ValueError(f'{reader.spec}: expected at least one row, got none')
    files.write_json(out.with_name(out.name + '.report.json'), counts)
    join(done, out)
    shutil.rmtree(parts)
    return counts


def check(setting: Setting, out: pathlib.Path) -> None:
    if out.exists() or not out.name.endswith('.jsonl.gz'):
        was = 'a file' if out.exists() else out.name
        raise ValueError(f'--out: expected a new name that ends with .jsonl.gz, got {was}')
    for language in (setting.source, *setting.targets):
        languages.check_language(language, '--source, --languages')
    if setting.source in setting.targets or not setting.targets:
        raise ValueError(f'--languages: expected others than {setting.source}')
    for name in setting.filters:
        if name not in FILTERS:
            raise ValueError(f'--filters: expected some of {", ".join(FILTERS)}, got {name!r}')
    if setting.ratio < 1 or setting.shard < 1:
        raise ValueError('--ratio, --shard: expected 1 or more')


def begin(out: pathlib.Path, about: dict) -> pathlib.Path:
    """The folder of the shards; ValueError where it has those of other settings."""
    parts = out.with_name(out.name + '.parts')
    parts.mkdir(parents=True, exist_ok=True)
    file = parts / 'about.json'
    about = json.loads(json.dumps(about))
    if file.exists():
        had = files.read_json(file, dict)
        for name in about:
            if had.get(name) != about[name]:
                raise ValueError(
                    f'{parts}: {name}: expected {had.get(name)!r}, with which this output began, '
                    f'got {about[name]!r}; delete it to begin again'
                )
        log.info(f'{out}: continuing')
    files.write_json(file, about)
    return parts


def write(path: pathlib.Path, groups: list[schema.Group]) -> None:
    partial = path.with_suffix('.partial')
    with gzip.GzipFile(partial, 'wb', mtime=0) as file:
        for group in groups:
            fields = {name: value for name, value in group._asdict().items() if value}
            file.write(json.dumps(fields, ensure_ascii=False).encode() + b'\n')
    os.replace(partial, path)


def join(parts: list[pathlib.Path], out: pathlib.Path) -> None:
    """One file of many: gzip files one after another are one."""
    partial = out.with_name(out.name + '.partial')
    with partial.open('wb') as whole:
        for part in parts:
            with part.open('rb') as file:
                shutil.copyfileobj(file, whole)
    os.replace(partial, out)


def translated(
    groups: list[schema.Group], engine: translators.Engine, setting: Setting
) -> tuple[list[schema.Group], dict[str, collections.Counter]]:
    """The groups with all their translations, and the counts of each language."""
    made = [
        group._replace(query=dict(group.query), passage=dict(group.passage)) for group in groups
    ]
    counts = {}
    for target in setting.targets:
        wanted = [
            (sides, sides[setting.source])
            for group in made
            for sides in (group.query, group.passage)
            if setting.source in sides and target not in sides
        ]
        count = counts[target] = collections.Counter(texts=len(wanted))
        texts = list(dict.fromkeys(text for _, text in wanted))
        found = dict(zip(texts, by_sentence(texts, engine, setting.source, target), strict=True))
        for sides, text in wanted:
            why = wrong(text, found[text], target, setting)
            if not why:
                sides[target] = found[text]
            count[why or 'kept'] += 1
    return made, counts


def by_sentence(
    texts: list[str], engine: translators.Engine, source: str, target: str
) -> abc.Iterator[str]:
    """Translations of texts whose sentences are translated each by itself, and once."""
    split = [[x.strip() for x in SENTENCE.split(text) if x and x.strip()] for text in texts]
    every = sorted({x for sentences in split for x in sentences}, key=len)
    known = dict(zip(every, engine(every, source, target), strict=True)) if every else {}
    between = '' if languages.script(target) in UNSPACED else ' '
    return (between.join(known[x] for x in sentences if known[x]) for sentences in split)


def wrong(source: str, text: str, target: str, setting: Setting) -> str:
    """The first filter that a translation does not pass; '' if it passes all."""
    checks = {
        'empty': lambda: not text.strip(),
        'length': lambda: max(ratio(source, text), 1 / ratio(source, text)) > setting.ratio,
        'script': lambda: not written(text, target),
        'copied': lambda: copied(source, text),
        'number': lambda: numbers(source) != numbers(text),
    }
    return next((name for name in FILTERS if name in setting.filters and checks[name]()), '')


def ratio(a: str, b: str) -> float:
    """How many times longer `a` is, counted in letters of an alphabet."""
    return weight(a) / weight(b)


def weight(text: str) -> float:
    dense = len(decontamination.DENSE.findall(text))
    return max(1.0, len(decontamination.letters(text)) + 1.5 * dense)


def written(text: str, target: str) -> bool:
    """Whether at least half of the letters are of the scripts of the language."""
    kinds = ''.join(rf'\p{{Script={x}}}' for x in languages.written(target))
    found = regex.findall(r'\p{L}', text)
    return 2 * len(regex.findall(rf'(?=[{kinds}])\p{{L}}', text)) >= len(found)


def copied(source: str, text: str) -> bool:
    """Whether a text came back as it was. Names and terms may be the same in two languages."""
    found = decontamination.letters(text)
    return found == decontamination.letters(source) and len(found) >= decontamination.long(found)


def numbers(text: str) -> list[str]:
    """The numbers in a text, without separators, in ASCII digits, sorted."""
    return sorted(
        ''.join(str(unicodedata.digit(x)) for x in number if x.isdigit())
        for number in NUMBER.findall(unicodedata.normalize('NFKC', text))
    )


def table(counts: dict[str, dict]) -> str:
    names = ('texts', 'kept', *FILTERS)
    lines = [f'{"language":<10}' + ''.join(f'{name:>9}' for name in names)]
    for language, count in counts.items():
        cells = ''.join(f'{count.get(name, 0):>9}' for name in names)
        lines.append(f'{language:<10}{cells}')
    return '\n'.join(lines)
