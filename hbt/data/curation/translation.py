"""Question-answer pairs of one language -> parallel groups over many, by machine translation."""

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
from hbt.utils import files, languages, log, resume, text_table

_SENTENCE_END = regex.compile(r'(?<=[.!?…]["”»)]?)\s+(?=[^\p{Ll}\s])|(?<=[。！？।])\s*|\s*\n\s*')
_NUMBER = regex.compile(r'\d+(?:[.,\u066b\u066c\u202f\u00a0\x27]\d+)*')
FILTERS = ('empty', 'length', 'script', 'copied', 'number')


class TranslationConfig(typing.NamedTuple):
    """What the output depends on, next to the input."""

    source: str
    targets: tuple[str, ...]
    engine: tuple[str, ...]
    shard: int  # groups
    ratio: float  # of lengths, the longer to the shorter
    filters: tuple[str, ...]


def translate_source(source, out: pathlib.Path, config: TranslationConfig) -> dict[str, dict]:
    """Writes the groups of a GroupSource with their translations to `out`, a .jsonl.gz, when whole.

    Texts that are there in a language stay. The same call resumes with the next shard. Returns by
    language counts of texts, and of translations kept and rejected by each filter, as in
    <out>.report.json. Raises ValueError for a bad group, engine, or output of other settings.
    """
    _check_config(config, out)
    with log.activity('loading the engines'):
        engine = translators.make_engine(config.engine, config.targets)
    folder = resume.open_folder(out, config._asdict() | {'sha256': source.sha256})
    groups = source.iter_groups()
    counts = {x: collections.Counter() for x in config.targets}
    shards = []
    with log.progress(desc=out.name, unit=' groups') as bar:
        while shard := list(itertools.islice(groups, config.shard)):
            path = folder / f'{len(shards):06}.jsonl.gz'
            report = path.with_suffix('.json')  # appears after the shard: it is whole
            if not report.exists():
                translated, shard_counts = _translate_groups(shard, engine, config)
                _write_groups(path, translated)
                files.write_json(report, shard_counts)
            for language, count in files.read_json(report, dict).items():
                counts[language].update(count)
            shards.append(path)
            bar.update(len(shard))
    if not shards:
        raise ValueError(f'{source.spec}: expected at least one group, got none')
    files.write_json(out.with_name(out.name + '.report.json'), counts)
    with (folder / 'joined').open('wb') as file:
        for path in shards:  # gzip files one after another are one
            file.write(path.read_bytes())
    os.replace(file.name, out)
    shutil.rmtree(folder)
    return counts


def _check_config(config: TranslationConfig, out: pathlib.Path) -> None:
    if out.exists() or not out.name.endswith('.jsonl.gz'):
        description = files.describe_path(out) if out.exists() else out.name
        raise ValueError(f'--out: expected a new name that ends with .jsonl.gz, got {description}')
    for language in (config.source, *config.targets):
        languages.check_language(language, '--source, --languages')
    if config.source in config.targets or not config.targets:
        shown = ', '.join(config.targets) or 'none'
        raise ValueError(f'--languages: expected others than {config.source}, got {shown}')
    for name in config.filters:
        if name not in FILTERS:
            raise ValueError(f'--filters: expected some of {", ".join(FILTERS)}, got {name!r}')
    for name in ('ratio', 'shard'):
        if (value := getattr(config, name)) < 1:
            raise ValueError(f'--{name}: expected 1 or more, got {value}')


def _write_groups(path: pathlib.Path, groups: list[schema.Group]) -> None:
    with files.atomic(path, 'wb') as raw, gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) as file:
        for group in groups:
            fields = {name: value for name, value in group._asdict().items() if value}
            file.write(json.dumps(fields, ensure_ascii=False).encode() + b'\n')


def _translate_groups(groups: list[schema.Group], engine, config) -> tuple[list, dict]:
    """The groups with all their translations, and the counts of each language."""
    groups = [x._replace(query=dict(x.query), passage=dict(x.passage)) for x in groups]
    counts = {}
    for target in config.targets:
        missing = [
            side
            for group in groups
            for side in (group.query, group.passage)
            if config.source in side and target not in side
        ]
        count = counts[target] = collections.Counter(texts=len(missing))
        texts = list(dict.fromkeys(side[config.source] for side in missing))
        translations = _translate_sentences(texts, engine, config.source, target)
        by_text = dict(zip(texts, translations, strict=True))
        for side in missing:
            text = side[config.source]
            reason = failed_filter(text, by_text[text], target, config)
            if not reason:
                side[target] = by_text[text]
            count[reason or 'kept'] += 1
    return groups, counts


def _translate_sentences(texts: list[str], engine, source: str, target: str) -> abc.Iterator[str]:
    """Translates every sentence of the texts by itself, and once."""
    split = [[x.strip() for x in _SENTENCE_END.split(text) if x and x.strip()] for text in texts]
    sentences = sorted({x for text in split for x in text}, key=len)
    translations = engine(sentences, source, target) if sentences else []
    by_sentence = dict(zip(sentences, translations, strict=True))
    space = '' if languages.script(target) in languages.UNSPACED else ' '
    return (space.join(by_sentence[x] for x in text if by_sentence[x]) for text in split)


def failed_filter(source: str, text: str, target: str, config: TranslationConfig) -> str:
    """The first filter that the translation `text` of `source` fails; '' if it passes all."""
    fails = {
        'empty': lambda: not text.strip(),
        'length': lambda: _length_ratio(source, text) > config.ratio,
        'script': lambda: not _is_written_in(text, target),
        'copied': lambda: _is_copied(source, text),
        'number': lambda: _numbers(source) != _numbers(text),
    }
    return next((name for name in FILTERS if name in config.filters and fails[name]()), '')


def _length_ratio(*texts: str) -> float:
    """How many times longer the longer text is, counted in letters of an alphabet."""
    letters = [
        len(decontamination.letters(x)) + 1.5 * decontamination.count_dense(x) for x in texts
    ]
    return max(1.0, *letters) / max(1.0, min(letters))


def _is_written_in(text: str, target: str) -> bool:
    """Whether at least half of the letters are of the scripts of the language."""
    scripts = ''.join(rf'\p{{Script={x}}}' for x in languages.character_scripts(target))
    matches = regex.findall(rf'(?=[{scripts}])\p{{L}}', text)
    return 2 * len(matches) >= len(regex.findall(r'\p{L}', text))


def _is_copied(source: str, text: str) -> bool:
    """Whether a long text came back as it was; names and terms may be the same."""
    letters = decontamination.letters(text)
    is_long = len(letters) >= decontamination.min_long(letters)
    return is_long and letters == decontamination.letters(source)


def _numbers(text: str) -> list[str]:
    """The numbers in a text, without separators, in ASCII digits, sorted."""
    return sorted(
        ''.join(str(unicodedata.digit(x)) for x in number if x.isdigit())
        for number in _NUMBER.findall(unicodedata.normalize('NFKC', text))
    )


def format_counts(counts: dict[str, dict]) -> str:
    """Counts of texts, translations kept, and translations rejected by each filter, as a table."""
    names = ('texts', 'kept', *FILTERS)
    rows = ([language, *(x.get(name, 0) for name in names)] for language, x in counts.items())
    return text_table.format_table(('language', *names), rows)
