"""Groups that are drawn, left out of a store, and written beside it, for validation.

Nothing leaks: other groups that have one of their texts are left out of the store, too.
"""

import functools
import gzip
import heapq
import json
import pathlib
import typing
import unicodedata
from collections import abc

import numpy as np
from jaxtyping import UInt64

from hbt.data import ragged
from hbt.data.curation import checks, cleaning
from hbt.data.readers import schema
from hbt.utils import files, log


class Settings(typing.NamedTuple):
    """How many groups are held out, of all sources together, and the seed of their draw."""

    groups: int
    seed: int


def held_out_path(out: pathlib.Path) -> pathlib.Path:
    """The file of the groups that are held out of a store."""
    return out.with_name(f'{out.name}.held_out.jsonl.gz')


def hold_out_groups(
    sources: abc.Sequence[schema.GroupSource | schema.CollectionSource],
    settings: Settings,
    out: pathlib.Path,
    folder: pathlib.Path,
    run_blocks: abc.Callable,
) -> tuple[list[schema.GroupSource], dict[str, int]]:
    """Writes the held-out groups; returns the sources without them, and counts.

    A group is drawn by a hash of the seed, its source and its id: not by its place. A finished pass
    is not repeated. Raises ValueError for sources that are collections, or too few groups.
    """
    for source in sources:
        if not isinstance(source, schema.GroupSource):
            raise ValueError(f'--hold_out: expected sources of groups, got {source.spec}')
    result = folder / 'progress.hold_out.json'
    if not result.exists():
        drawn = _draw_groups(sources, settings, run_blocks)
        _write_groups(drawn, len(sources) > 1, held_out_path(out))
        texts = (text for _, group in drawn for text in _own_texts(group))
        np.save(folder / 'progress.hold_out.npy', np.unique(_hash_texts(texts)))
        left_out = sum(_find_groups(source, folder, run_blocks) for source in sources)
        counts = {'held_out': len(drawn), 'same_text': left_out - len(drawn)}
        files.write_json(result, counts)
    paths = (_drops_path(folder, source) for source in sources)
    remaining = [cleaning.drop_groups(*x, '') for x in zip(sources, paths, strict=True)]
    return remaining, files.read_json(result, dict)


def format_counts(counts: dict[str, int], out: pathlib.Path) -> str:
    """What was held out of the store, and where that is; ValueError if it is there no more."""
    path = held_out_path(out)
    if not path.is_file():
        raise ValueError(
            f'{path}: expected the {counts["held_out"]} groups that are held out of {out}, got no '
            'such file; delete the store and prepare it again'
        )
    text = f'{counts["held_out"]} groups held out: {path}'
    other = counts['same_text']
    return text + (f'; left out of the store with a text of theirs: {other}' if other else '')


def _draw_groups(sources, settings: Settings, run_blocks) -> list[tuple[str, schema.Group]]:
    """The groups that are held out, with the names of their sources, in order."""
    smallest, count = [], 0
    for number, source in enumerate(sources):
        function = functools.partial(
            _draw_of_block, source.parse, f'{settings.seed}\t{source.name}', settings.groups
        )
        with log.progress(desc=f'{source.name} hold out', unit=' groups') as bar:
            for size, drawn in run_blocks(function, source.blocks):
                places = ((key, number, count + i, group) for key, i, group in drawn)
                smallest = heapq.nsmallest(settings.groups, [*smallest, *places])
                count += size
                bar.update(size)
    if count <= settings.groups:
        raise ValueError(
            f'--hold_out: expected fewer than the {count} groups, got {settings.groups}'
        )
    ordered = sorted(smallest, key=lambda x: x[2])
    return [(sources[number].name, group) for _, number, _, group in ordered]


def _draw_of_block(parse: abc.Callable, salt: str, count: int, block) -> tuple[int, list[tuple]]:
    """The size of a block, and (hash, place, group) of those of its groups that may be drawn."""
    groups = parse(block)
    keys = ragged.hash_keys(f'{salt}\t{group.id}' for group in groups)
    order = np.argsort(keys, kind='stable')[:count].tolist()
    return len(groups), [(int(keys[i]), i, groups[i]) for i in order]


def _write_groups(
    drawn: list[tuple[str, schema.Group]], with_names: bool, path: pathlib.Path
) -> None:
    """Writes the groups as lines of JSON; ids of several sources with the names of these."""
    rows = (
        group._replace(id=f'{name}/{group.id}' if with_names else group.id)._asdict()
        for name, group in drawn
    )
    text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    content = gzip.compress(text.encode(), mtime=0)
    if path.exists() and path.read_bytes() != content:
        raise ValueError(
            f'{path}: expected no file, or the groups that this command holds out, got another '
            'file; delete it, or choose another --out'
        )
    with files.atomic(path, 'wb') as file:
        file.write(content)


def _own_texts(group: schema.Group) -> abc.Iterator[str]:
    return (text for side, _, text in checks.iter_texts(group) if side != 'negatives')


def _hash_texts(texts: abc.Iterable[str]) -> UInt64[np.ndarray, ' n']:
    """Equal for texts that differ in white space or in the composition of characters alone."""
    return ragged.hash_texts(unicodedata.normalize('NFC', text) for text in texts)


def _find_groups(source: schema.GroupSource, folder: pathlib.Path, run_blocks) -> int:
    """Notes the groups of a source with a text that is held out; returns their number."""
    function = functools.partial(_find_in_block, source.parse, folder / 'progress.hold_out.npy')
    total = 0
    with (
        _drops_path(folder, source).open('w') as lines,
        log.progress(desc=f'{source.name} hold out', unit=' groups') as bar,
    ):
        for size, groups in run_blocks(function, source.blocks):
            print(json.dumps([size, groups, []]), file=lines)
            total += len(groups)
            bar.update(size)
    return total


def _find_in_block(parse: abc.Callable, path: pathlib.Path, block) -> tuple[int, list[int]]:
    """The size of a block, and its groups that have a text, negatives too, with a known hash."""
    groups, known = parse(block), np.load(path)
    texts = [[text for *_, text in checks.iter_texts(group)] for group in groups]
    owners = np.repeat(np.arange(len(groups)), [len(x) for x in texts])
    is_held_out = np.isin(_hash_texts(text for x in texts for text in x), known)
    return len(groups), np.unique(owners[is_held_out]).tolist()


def _drops_path(folder: pathlib.Path, source: schema.GroupSource) -> pathlib.Path:
    return folder / f'progress.{source.name}.held_out'
