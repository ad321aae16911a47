"""A pass over the sources before tokenisation that reports flaws, and the sources without them.

Needs some 100 bytes of memory for each group, and for each text of a collection that is dropped.
"""

import bisect
import collections
import contextlib
import functools
import itertools
import json
import pathlib
from collections import abc

import numpy as np

from hbt.data import ragged, store
from hbt.data.curation import checks, dedup
from hbt.data.readers import schema
from hbt.utils import files, log, text_table

_TEXT_FLAWS = ('language', 'length')  # these drop a text, the others its group
HEADER = ('dataset', 'id', 'place', 'flaw', 'side', 'language', 'detail')  # of cleaning.tsv


def clean_sources(
    sources: abc.Sequence[schema.GroupSource | schema.CollectionSource],
    config: checks.CleaningConfig,
    benchmark_texts: abc.Callable | None,
    folder: pathlib.Path,
    run_blocks,
) -> tuple[list[schema.GroupSource | schema.CollectionSource], dict[str, dict[str, int]]]:
    """Looks for flaws and writes them to `folder/cleaning.tsv`; a finished pass is not repeated.

    `benchmark_texts` is a function from `config.leakage` to (id, text), `run_blocks` that of
    `workers.start_workers`. Returns the sources without what is dropped and with normalised texts,
    and counts by source. Raises ValueError for texts of benchmarks if `config.leaks` is `refuse`.
    """
    result = folder / 'progress.cleaning.json'
    if not result.exists():
        index = ''
        if config.leakage:
            index = str(folder / 'progress.leakage.json')
            with log.activity('reading the texts of benchmarks'):
                files.write_json(pathlib.Path(index), [*benchmark_texts(config.leakage)])
        files.write_json(result, _scan_sources(sources, config, index, folder, run_blocks))
    counts = files.read_json(result, dict)
    leaks = sum(count.get('leak', 0) for count in counts.values())
    if leaks and config.leaks == 'refuse':
        raise ValueError(
            f'--leakage: expected no text of {", ".join(config.leakage)} in the training data, '
            f'got {leaks}, such as {_first_leak(folder)}; {folder}/cleaning.tsv lists all; '
            '--leaks=drop removes them'
        )
    return [_drop_flaws(source, config.normalise, folder) for source in sources], counts


def _first_leak(folder: pathlib.Path) -> str:
    with (folder / 'cleaning.tsv').open(encoding='utf-8') as report:
        rows = (line.rstrip('\n').split('\t') for line in report)
        _, name, where, *_, detail = next(row for row in rows if row[3] == 'leak')
    return f'{detail} at {where} (id {name})'


def _scan_sources(sources, config, index: str, folder: pathlib.Path, run_blocks) -> dict[str, dict]:
    """Writes what is wrong and what is dropped; returns counts by source."""
    groups = [x for x in sources if isinstance(x, schema.GroupSource)]
    firsts, starts = _scan_groups(groups, config, index, folder, run_blocks)
    counts = {}
    with (folder / 'cleaning.tsv').open('w', encoding='utf-8') as report:
        _report(report, *HEADER)
        for i, source in enumerate(groups):
            with log.activity(f'{source.name}: writing what was found'):
                arguments = i, groups, config, folder, firsts, starts, report
                counts[source.name] = _decide_groups(*arguments)
        for source in sources:
            if isinstance(source, schema.CollectionSource):
                counts[source.name] = _scan_texts(source, config, index, folder, run_blocks, report)
    return counts


def _report(report, *fields: str) -> None:
    print(*(' '.join(field.split()) for field in fields), sep='\t', file=report)


def _scan_groups(
    sources, config, index: str, folder: pathlib.Path, run_blocks
) -> tuple[dict, list]:
    """Checks all groups; writes a line for each block to `progress.<source>.flaws`.

    Returns kind of duplicate -> first group that each is one of; and the first of each source.
    """
    contents, starts = [np.zeros(0, np.uint64)], [0]
    names = ['progress.near', *(f'progress.near.{i}' for i in range(dedup.BANDS))]
    with contextlib.ExitStack() as stack:
        tables = [stack.enter_context((folder / name).open('wb')) for name in names]
        for source in sources:
            function = functools.partial(checks.check_groups, source.parse, config, index)
            lines = stack.enter_context((folder / f'progress.{source.name}.flaws').open('w'))
            starts.append(starts[-1])
            with log.progress(desc=f'{source.name} cleaning', unit=' groups') as bar:
                for ids, sizes, flaws, hashes, low, keys in run_blocks(function, source.blocks):
                    print(json.dumps([ids, sizes, flaws]), file=lines)
                    contents.append(hashes)
                    for table, array in zip(tables, (low, *keys), strict=True):
                        table.write(np.ascontiguousarray(array))
                    starts[-1] += len(ids)
                    bar.update(len(ids))
    firsts, own = {}, np.arange(starts[-1])
    if config.exact != 'off':
        firsts['exact'] = dedup.first_equal(np.concatenate(contents))
    if config.near != 'off':
        with log.activity('finding near duplicates'):
            similar = dedup.first_similar(folder, len(own), config.similarity)
        firsts['near'] = np.where(firsts.get('exact', own) == own, similar, own)
    return firsts, starts


def _decide_groups(number: int, sources, config, folder, firsts: dict, starts, report) -> dict:
    """Reports on one of the sources; returns its counts.

    What is dropped of a block becomes a line of `progress.<source>.drops`: its number of groups,
    the groups dropped, and the other texts dropped, as [group, side, language].
    """
    source, modes = sources[number], _modes(config)
    counts = dict.fromkeys(('groups', *modes, 'dropped'), 0)
    with (
        (folder / f'progress.{source.name}.flaws').open() as lines,
        (folder / f'progress.{source.name}.drops').open('w') as out,
    ):
        for ids, sizes, flaws in map(json.loads, lines):
            flaws = [checks.Flaw(*x) for x in flaws]
            first = starts[number] + counts['groups']
            own = np.arange(first, first + len(ids))
            for kind, first_of in firsts.items():
                for i in np.flatnonzero(first_of[own] != own):
                    original = int(first_of[own[i]])
                    other = bisect.bisect_right(starts, original) - 1
                    where = sources[other].where(original - starts[other])
                    flaws.append(checks.Flaw(int(i), kind, '', '', f'as {where}'))
            for flaw in sorted(flaws):
                where = source.where(counts['groups'] + flaw.group)
                _report(report, source.name, ids[flaw.group], where, *flaw[1:])
                counts[flaw.kind] += 1
            groups, texts = _select_drops(flaws, sizes, modes)
            print(json.dumps([len(ids), groups, texts]), file=out)
            counts['groups'] += len(ids)
            counts['dropped'] += len(groups)
    return counts


def _modes(config: checks.CleaningConfig) -> dict[str, str]:
    """Kind of flaw -> what is done about it; without those that are off."""
    modes = {'exact': config.exact, 'near': config.near, 'language': config.languages}
    modes |= {'length': config.lengths, 'leak': config.leaks if config.leakage else 'off'}
    return {kind: mode for kind, mode in modes.items() if mode != 'off'}


def _select_drops(flaws: list[checks.Flaw], sizes, modes: dict[str, str]) -> tuple[list, list]:
    """The groups to drop (duplicates, leaks, all texts of a side), and other texts to drop."""
    drops = [x for x in flaws if modes[x.kind] == 'drop']
    groups = {x.group for x in drops if x.kind not in _TEXT_FLAWS}
    texts = {(x.group, x.side, x.language) for x in drops if x.kind in _TEXT_FLAWS}
    counts = collections.Counter((group, side) for group, side, _ in texts)
    for (group, side), count in counts.items():
        if count == sizes[group][store.SIDES.index(side)]:
            groups.add(group)
    return sorted(groups), sorted(x for x in texts if x[0] not in groups)


def _scan_texts(source, config, index: str, folder: pathlib.Path, run_blocks, report) -> dict:
    """Reports on a collection; saves hashed keys to drop to `progress.<source>.<side>.npy`.

    Duplicates are not looked for: links repeat a text on purpose.
    """
    modes = _modes(config)
    counts = dict.fromkeys(('texts', *modes, 'dropped'), 0)
    dropped = {side: set() for side in store.SIDES}
    for (side, language), (blocks, parse) in sorted(source.texts.items()):
        function = functools.partial(checks.check_texts, parse, side, language, config, index)
        with log.progress(desc=f'{source.name} {side}.{language} cleaning', unit=' texts') as bar:
            for size, flaws in run_blocks(function, blocks):
                for key, where, kind, detail in flaws:
                    _report(report, source.name, key, where, kind, side, language, detail)
                    counts[kind] += 1
                    if modes[kind] == 'drop':
                        dropped[side].update(ragged.hash_keys([key]).tolist())
                counts['texts'] += size
                bar.update(size)
    for side, keys in dropped.items():
        counts['dropped'] += len(keys)
        np.save(folder / f'progress.{source.name}.{side}.npy', np.array(sorted(keys), np.uint64))
    return counts


def format_counts(counts: dict[str, dict[str, int]]) -> str:
    """Counts of flaws by source, as a table."""
    names = list(dict.fromkeys(itertools.chain(*counts.values())))
    rows = ([source, *(count.get(x, '-') for x in names)] for source, count in counts.items())
    return text_table.format_table(('cleaning', *names), rows)


def _drop_flaws(source, form: str, folder: pathlib.Path):
    """The source as it is read after the pass."""
    if isinstance(source, schema.GroupSource):
        return drop_groups(source, folder / f'progress.{source.name}.drops', form)
    paths = {side: folder / f'progress.{source.name}.{side}.npy' for side in store.SIDES}
    texts = {
        key: x._replace(parse=functools.partial(checks.parse_normalised, x.parse, form))
        for key, x in source.texts.items()
    }
    parse = functools.partial(_parse_remaining_links, source.links.parse, paths)
    return source._replace(texts=texts, links=source.links._replace(parse=parse))


def drop_groups(source: schema.GroupSource, path: pathlib.Path, form: str) -> schema.GroupSource:
    """The source without what a file says, with a line for each block as `_decide_groups` has it.

    With the other texts in a Unicode form; '': as they are.
    """
    return source._replace(
        blocks=functools.partial(_pair_with_drops, source.blocks, path),
        parse=functools.partial(_parse_remaining, source.parse, form),
        where=functools.partial(_locate_remaining, source.where, path),
    )


def _pair_with_drops(blocks: abc.Callable, path: pathlib.Path) -> abc.Iterator:
    with path.open() as lines:
        yield from zip(blocks(), map(json.loads, lines), strict=True)


def _parse_remaining(parse: abc.Callable, form: str, pair) -> list[schema.Group]:
    block, (size, dropped, texts) = pair
    groups = parse(block)
    assert len(groups) == size, 'a source has other groups than before'
    for i, side, language in texts:
        by_language = {x: text for x, text in getattr(groups[i], side).items() if x != language}
        groups[i] = groups[i]._replace(**{side: by_language})
    remaining = np.setdiff1d(np.arange(size), dropped)
    return [checks.normalise_group(groups[i], form) for i in remaining]


def _locate_remaining(where: abc.Callable, path: pathlib.Path, number: int) -> str:
    """The place of a group, by its number among those that remain."""
    with path.open() as lines:
        drops = map(json.loads, lines)
        masks = (np.isin(np.arange(size), dropped, invert=True) for size, dropped, _ in drops)
        remaining = itertools.compress(itertools.count(), itertools.chain.from_iterable(masks))
        return where(next(itertools.islice(remaining, number, None)))


def _parse_remaining_links(parse: abc.Callable, paths: dict, block) -> list[schema.Link]:
    """Links whose query and passage remain, with the negatives that do."""
    links = parse(block)
    queries = _dropped_keys(paths['query'], [x.query_key for x in links])
    keys = [key for x in links for key in (x.passage_key, *x.negative_keys)]
    passages = _dropped_keys(paths['passage'], keys)
    return [
        x._replace(negative_keys=tuple(key for key in x.negative_keys if key not in passages))
        for x in links
        if x.query_key not in queries and x.passage_key not in passages
    ]


def _dropped_keys(path: pathlib.Path, keys: list[str]) -> set[str]:
    return set(itertools.compress(keys, np.isin(ragged.hash_keys(keys), np.load(path))))
