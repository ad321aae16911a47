"""What is wrong with training texts, as any process can tell from a block of them.

Hides the checks of a text: its length, its language, whether it is of a benchmark. Called by
`hygiene`, which says what is looked for and adds up what is found.
"""

import dataclasses
import functools
import json
import typing
import unicodedata
from collections import abc

import numpy as np
import py3langid

from hbt.data import ragged
from hbt.data.curation import decontamination, dedup
from hbt.data.readers import schema

MODES = ('off', 'count', 'drop')
CERTAIN = 0.9  # probability of another language from which a text counts as being in that
ALIKE = ({'id', 'ms'}, {'bs', 'hr', 'sr'}, {'no', 'nb', 'nn', 'da'}, {'xh', 'zu'}, {'zh', 'yue'})


@dataclasses.dataclass
class CleaningConfig:
    """What is looked for, and what is done about it: off, count, or drop."""

    normalise: str = ''  # NFC or NFKC; empty: texts stay as they are
    exact: str = 'off'  # groups whose texts are all equal to those of an earlier one
    near: str = 'off'  # groups whose query and passage are nearly those of an earlier one
    similarity: float = 0.8  # of both, from which they are near
    languages: str = 'off'  # texts that are in another language than they should be
    lengths: str = 'off'  # texts that are shorter or longer than:
    query_chars: str = '2:1000'
    passage_chars: str = '2:20000'
    leaks: str = 'refuse'  # texts of these benchmarks: refuse, drop or count
    leakage: tuple[str, ...] = ()  # NAME:FOLDER


class Flaw(typing.NamedTuple):
    """Something wrong with a row of a block, or with one of its texts."""

    row: int
    what: str
    side: str
    language: str
    detail: str


class Judged(typing.NamedTuple):
    """What a process finds in a block of groups."""

    ids: list[str]
    sizes: list[tuple[int, int]]  # languages of query and passage
    flaws: list[Flaw]
    hashes: np.ndarray
    low: np.ndarray
    keys: np.ndarray


def check(choices: CleaningConfig) -> dict:
    """The choices that differ from the default; ValueError for one that cannot be."""
    allowed = dict.fromkeys(('exact', 'near', 'languages', 'lengths'), MODES)
    allowed |= {'normalise': ('', 'NFC', 'NFKC'), 'leaks': ('refuse', 'count', 'drop')}
    for name, known in allowed.items():
        if getattr(choices, name) not in known:
            shown = ', '.join(filter(None, known))
            raise ValueError(f'--{name}: expected {shown}, got {getattr(choices, name)!r}')
    if not 0.5 <= choices.similarity <= 1:
        raise ValueError(f'--similarity: expected 0.5 to 1, got {choices.similarity}')
    for side in ('query', 'passage'):
        limits(choices, side)
    default = dataclasses.asdict(CleaningConfig())
    found = {k: v for k, v in dataclasses.asdict(choices).items() if v != default[k]}
    return found | ({'leakage': list(choices.leakage)} if choices.leakage else {})


def limits(choices: CleaningConfig, side: str) -> tuple[int, int]:
    text = getattr(choices, f'{side}_chars')
    low, _, high = text.partition(':')
    if not low.isdigit() or not high.isdigit() or int(low) > int(high):
        raise ValueError(f'--{side}_chars: expected LEAST:MOST characters, got {text!r}')
    return int(low), int(high)


def judge(read: abc.Callable, choices: CleaningConfig, index: str, block) -> Judged:
    """`index`: the file of texts that must not be there, or ''."""
    found = [normal(row, choices.normalise) for row in read(block)]
    flaws = []
    for i, row in enumerate(found):
        negatives = ((x, text) for x, several in row.negatives.items() for text in several)
        for side, pairs in (
            ('query', row.query.items()),
            ('passage', row.passage.items()),
            ('negatives', negatives),
        ):
            for language, text in pairs:
                flaws += [
                    Flaw(i, what, side, language, detail)
                    for what, detail in wrong(text, side, language, choices, index)
                ]
    whole = [json.dumps([row.query, row.passage], sort_keys=True) for row in found]
    hashes = ragged.hash_texts(whole) if choices.exact != 'off' else np.zeros(0, np.uint64)
    both = [tuple(joined(side) for side in (row.query, row.passage)) for row in found]
    low, keys = dedup.signatures(both if choices.near != 'off' else [])
    sizes = [(len(row.query), len(row.passage)) for row in found]
    return Judged([row.id for row in found], sizes, flaws, hashes, low, keys)


def joined(texts: dict[str, str]) -> str:
    return ' '.join(text for _, text in sorted(texts.items()))


def judge_texts(
    read: abc.Callable, side: str, language: str, choices: CleaningConfig, index: str, block
) -> tuple[int, list[tuple[str, str, str, str]]]:
    """How many texts a block of a collection has, and (key, place, what, detail) of the flaws."""
    found = read_texts(read, choices.normalise, block)
    flaws = [
        (text.key, text.where, what, detail)
        for text in found
        for what, detail in wrong(text.text, side, language, choices, index)
    ]
    return len(found), flaws


def normal(row: schema.Group, form: str) -> schema.Group:
    if not form:
        return row
    change = functools.partial(unicodedata.normalize, form)
    return schema.Group(
        row.id,
        {x: change(text) for x, text in row.query.items()},
        {x: change(text) for x, text in row.passage.items()},
        {x: [change(text) for text in texts] for x, texts in row.negatives.items()},
    )


def read_texts(read: abc.Callable, form: str, block) -> list[schema.Text]:
    found = read(block)
    return [x._replace(text=unicodedata.normalize(form, x.text)) for x in found] if form else found


def wrong(
    text: str, side: str, language: str, choices: CleaningConfig, index: str
) -> abc.Iterator[tuple[str, str]]:
    """(what, detail) of each thing that is wrong with a text."""
    if index:
        name = decontamination.find_leak(decontamination.load_index(index), text)
        if name:
            yield 'leak', name
    if side == 'negatives':
        return
    if choices.lengths != 'off':
        low, high = limits(choices, side)
        if not low <= len(text) <= high:
            yield 'length', str(len(text))
    if choices.languages != 'off':
        other = foreign(text, language)
        if other:
            yield 'language', other


def foreign(text: str, language: str) -> str:
    """The language that a text is in with certainty instead of `language`; '' if there is none.

    Nothing is said of short texts, of languages that the identifier does not know, and between
    languages that it cannot tell apart.
    """
    base = language.replace('_', '-').split('-')[0]
    found = decontamination.letters(text)
    if 2 * len(found) < decontamination.long(found) or base not in identifier().labels:
        return ''
    likely, probability = identifier().classify(text)
    same = likely == base or any({likely, base} <= alike for alike in ALIKE)
    return '' if same or probability < CERTAIN or likely == 'zxx' else likely


@functools.cache
def identifier():
    module = py3langid.langid
    return module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
