"""Flaws of training texts that any process can find in a block of them: length, language, leaks."""

import dataclasses
import functools
import json
import typing
import unicodedata
from collections import abc

import numpy as np
from py3langid import langid

from hbt.data import ragged
from hbt.data.curation import decontamination, dedup
from hbt.data.readers import schema
from hbt.utils import settings

_MODES = ('off', 'count', 'drop')
# That the identifier cannot tell apart.
_SIMILAR = ({'id', 'ms'}, {'bs', 'hr', 'sr'}, {'no', 'nb', 'nn', 'da'}, {'xh', 'zu'}, {'zh', 'yue'})


@dataclasses.dataclass
class CleaningConfig:
    """Which flaws of training texts are reported (count), and then removed (drop)."""

    normalise: str = settings.setting('', 'Unicode form of all texts', ('', 'NFC', 'NFKC'))
    exact: str = settings.setting('off', 'report or drop groups equal to an earlier one', _MODES)
    near: str = settings.setting('off', 'report or drop near duplicates of earlier groups', _MODES)
    similarity: float = settings.setting(
        0.8, 'of query and of passage, from which groups are near duplicates', (0.5, 1)
    )
    languages: str = settings.setting('off', 'report or drop texts in another language', _MODES)
    lengths: str = settings.setting('off', 'report or drop texts outside of these limits', _MODES)
    query_chars: str = settings.setting('2:1000', 'MIN:MAX characters of a query')
    passage_chars: str = settings.setting('2:20000', 'MIN:MAX characters of a passage')
    leakage: tuple[str, ...] = settings.setting(
        (), 'BENCHMARK:FOLDER, whose texts the training data should not hold; repeat'
    )
    leaks: str = settings.setting(
        'refuse', 'what to do about texts of those benchmarks', ('refuse', 'count', 'drop')
    )


class Flaw(typing.NamedTuple):
    """Something wrong with a group of a block, or with one of its texts."""

    group: int
    kind: str
    side: str
    language: str
    detail: str


def changed_settings(config: CleaningConfig) -> dict:
    """Checks the config; returns the settings that differ from the defaults, for the manifest."""
    settings.check_values(config, '--')
    for side in ('query', 'passage'):
        _char_limits(config, side)
    changes = settings.changes(CleaningConfig(), config).items()
    return {name: [*new] if isinstance(new, tuple) else new for name, (_, new) in changes}


def _char_limits(config: CleaningConfig, side: str) -> tuple[int, int]:
    text = getattr(config, f'{side}_chars')
    low, _, high = text.partition(':')
    if not low.isdigit() or not high.isdigit() or int(low) > int(high):
        raise ValueError(f'--{side}_chars: expected MIN:MAX characters, got {text!r}')
    return int(low), int(high)


def check_groups(
    parse: abc.Callable, config: CleaningConfig, index: str, block
) -> tuple[list[str], list[tuple[int, int]], list[Flaw], np.ndarray, np.ndarray, np.ndarray]:
    """Checks a block of groups; `index`: the file of benchmark texts, or ''.

    Returns the ids of the groups, how many languages query and passage have, the flaws, and, to
    find duplicates, hashes of the groups and the two arrays of `dedup.signatures`.
    """
    groups = [normalise_group(group, config.normalise) for group in parse(block)]
    flaws = [
        Flaw(i, kind, side, language, detail)
        for i, group in enumerate(groups)
        for side, language, text in iter_texts(group)
        for kind, detail in _find_flaws(text, side, language, config, index)
    ]
    contents = [json.dumps([x.query, x.passage], sort_keys=True) for x in groups]
    hashes = ragged.hash_texts(contents if config.exact != 'off' else [])
    pairs = [
        [' '.join(side[language] for language in sorted(side)) for side in (x.query, x.passage)]
        for x in groups
    ]
    low, keys = dedup.signatures(pairs if config.near != 'off' else [])
    sizes = [(len(x.query), len(x.passage)) for x in groups]
    return [x.id for x in groups], sizes, flaws, hashes, low, keys


def iter_texts(group: schema.Group) -> abc.Iterator[tuple[str, str, str]]:
    """(side, language, text) of a group; negatives are a side."""
    for side in ('query', 'passage'):
        yield from ((side, language, text) for language, text in getattr(group, side).items())
    for language, texts in group.negatives.items():
        yield from (('negatives', language, text) for text in texts)


def check_texts(
    parse: abc.Callable, side: str, language: str, config: CleaningConfig, index: str, block
) -> tuple[int, list[tuple[str, str, str, str]]]:
    """Checks a block of texts of a collection; returns their number and the flaws."""
    texts = parse_normalised(parse, config.normalise, block)
    flaws = [
        (text.key, text.where, kind, detail)
        for text in texts
        for kind, detail in _find_flaws(text.text, side, language, config, index)
    ]
    return len(texts), flaws


def normalise_group(group: schema.Group, form: str) -> schema.Group:
    """The group with its texts in a Unicode form; '': as it is."""
    if not form:
        return group
    change = functools.partial(unicodedata.normalize, form)
    return schema.Group(
        group.id,
        {x: change(text) for x, text in group.query.items()},
        {x: change(text) for x, text in group.passage.items()},
        {x: [change(text) for text in texts] for x, texts in group.negatives.items()},
    )


def parse_normalised(parse: abc.Callable, form: str, block) -> list[schema.Text]:
    """The texts of a block of a collection, as `normalise_group`."""
    texts = parse(block)
    return [x._replace(text=unicodedata.normalize(form, x.text)) for x in texts] if form else texts


def _find_flaws(text: str, side: str, language: str, config, index: str) -> abc.Iterator[tuple]:
    """Yields (kind, detail) of the flaws of a text."""
    if index and (leak := decontamination.find_leak(index, text)):
        yield 'leak', leak
    if side == 'negatives':
        return
    if config.lengths != 'off':
        low, high = _char_limits(config, side)
        if not low <= len(text) <= high:
            yield 'length', str(len(text))
    if config.languages != 'off' and (other := _other_language(text, language)):
        yield 'language', other


def _other_language(text: str, language: str) -> str:
    """Another language that a text is in with certainty; '' if it is short or in doubt."""
    base = language.replace('_', '-').split('-')[0]
    letters = decontamination.letters(text)
    if 2 * len(letters) < decontamination.min_long(letters) or base not in _identifier().labels:
        return ''
    likely, probability = _identifier().classify(text)
    same = likely == base or any({likely, base} <= x for x in _SIMILAR)
    return '' if same or probability < 0.9 or likely == 'zxx' else likely


@functools.cache
def _identifier():
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
