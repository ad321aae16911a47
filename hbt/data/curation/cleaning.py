"""A pass over training data before `prepare`, and the sources without what it found.

Hides the files of the pass. Memory grows by some 100 bytes a group, where duplicates are looked
for, and by what is dropped of a collection. Called by `prepare`.
"""

import bisect
import collections
import contextlib
import functools
import json
import pathlib
from collections import abc

import numpy as np

from hbt.data import ragged
from hbt.data.curation import checks, decontamination, dedup
from hbt.data.readers import schema
from hbt.utils import files, log

TEXTS = ('language', 'length')  # flaws of one text, which may go alone
HEADER = ('dataset', 'id', 'place', 'what', 'side', 'language', 'detail')


def survey(
    readers: abc.Sequence[schema.GroupSource | schema.CollectionSource],
    choices: checks.CleaningConfig,
    banned: abc.Iterable[tuple[str, str]],
    folder: pathlib.Path,
    run,
) -> dict[str, dict[str, int]]:
    """Counts of what was found, by source.

    Writes `folder/cleaning.tsv`, a line for everything found, and the files `progress...` that
    `without` needs. `banned`: (id, text) of benchmarks. A pass that was finished is not repeated.
    Raises ValueError where `banned` texts are found and `choices.leaks` is `refuse`.
    """
    done = folder / 'progress.cleaning.json'
    if not done.exists():
        index = ''
        if choices.leakage:
            index = str(folder / 'progress.leakage.json')
            decontamination.save_texts(pathlib.Path(index), banned)
            decontamination.load_index(index)
        groups = [x for x in readers if isinstance(x, schema.GroupSource)]
        same, starts = look_at_groups(groups, choices, index, folder, run)
        counts = {}
        with (folder / 'cleaning.tsv').open('w', encoding='utf-8') as report:
            print(*HEADER, sep='\t', file=report)
            for i, reader in enumerate(groups):
                counts[reader.name] = decide(i, groups, choices, folder, same, starts, report)
            for reader in readers:
                if isinstance(reader, schema.CollectionSource):
                    found = look_at_texts(reader, choices, index, folder, run, report)
                    counts[reader.name] = found
        files.write_json(done, counts)
    counts = files.read_json(done, dict)
    leaks = sum(found.get('leak', 0) for found in counts.values())
    if leaks and choices.leaks == 'refuse':
        raise ValueError(
            f'--leakage: expected no text of {", ".join(choices.leakage)} in the training data, '
            f'got {leaks}, such as {example(folder)}; all are in {folder}/cleaning.tsv; '
            '--leaks=drop leaves them out'
        )
    return counts


def example(folder: pathlib.Path) -> str:
    with (folder / 'cleaning.tsv').open(encoding='utf-8') as report:
        for line in report:
            _, name, place, what, _, _, detail = line.rstrip('\n').split('\t')
            if what == 'leak':
                return f'{detail} at {place} (id {name})'
    raise AssertionError('a leak that is not reported')


def look_at_groups(
    readers: abc.Sequence[schema.GroupSource],
    choices: checks.CleaningConfig,
    index: str,
    folder: pathlib.Path,
    run,
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Judges all groups; (what -> the first group that each equals, or itself; where each begins).

    What was found in a block becomes a line of `progress.<source>.found`.
    """
    hashes, starts = [np.zeros(0, np.uint64)], [0]
    names = ['progress.near', *(f'progress.near.{i}' for i in range(dedup.BANDS))]
    with contextlib.ExitStack() as stack:
        tables = [stack.enter_context((folder / name).open('wb')) for name in names]
        for reader in readers:
            function = functools.partial(checks.judge, reader.parse, choices, index)
            path, size = folder / f'progress.{reader.name}.found', 0
            with (
                path.open('w') as out,
                log.progress(desc=f'{reader.name} cleaning', unit=' rows') as bar,
            ):
                for block in run.map(function, reader.blocks):
                    print(json.dumps([block.ids, block.sizes, block.flaws]), file=out)
                    hashes.append(block.hashes)
                    for table, array in zip(tables, (block.low, *block.keys), strict=True):
                        table.write(np.ascontiguousarray(array))
                    size += len(block.ids)
                    bar.update(len(block.ids))
            starts.append(starts[-1] + size)
    same, every = {}, np.arange(starts[-1])
    if choices.exact != 'off':
        same['exact'] = dedup.exact(np.concatenate(hashes))
    if choices.near != 'off':
        found = dedup.near(folder, len(every), choices.similarity)
        same['near'] = np.where(same.get('exact', every) == every, found, every)
    return same, starts


def decide(
    number: int,
    readers,
    choices: checks.CleaningConfig,
    folder,
    same: dict,
    starts: list[int],
    report,
) -> dict[str, int]:
    """Reports on one of the sources; returns its counts.

    What is to be dropped of a block becomes a line of `progress.<source>.drops`: its number of
    groups, groups that go, and texts that go, as [group, side, language].
    """
    reader, first = readers[number], starts[number]
    counts = dict.fromkeys(('groups', *modes(choices), 'dropped'), 0)
    with (
        (folder / f'progress.{reader.name}.found').open() as found,
        (folder / f'progress.{reader.name}.drops').open('w') as out,
    ):
        for line in found:
            ids, sizes, flaws = json.loads(line)
            flaws = [checks.Flaw(*x) for x in flaws]
            at = first + counts['groups']
            for what, of in same.items():
                part = of[at : at + len(ids)]
                for i in np.flatnonzero(part != np.arange(at, at + len(ids))):
                    source = bisect.bisect_right(starts, part[i]) - 1
                    place = readers[source].where(int(part[i]) - starts[source])
                    flaws.append(checks.Flaw(int(i), what, '', '', f'as {place}'))
            for flaw in sorted(flaws):
                place = reader.where(counts['groups'] + flaw.row)
                write(report, reader.name, ids[flaw.row], place, *flaw[1:])
                counts[flaw.what] += 1
            groups, texts = drops(flaws, sizes, modes(choices))
            print(json.dumps([len(ids), groups, texts]), file=out)
            counts['groups'] += len(ids)
            counts['dropped'] += len(groups)
    return counts


def modes(choices: checks.CleaningConfig) -> dict[str, str]:
    """What is looked for, and what is done about it."""
    found = {
        'exact': choices.exact,
        'near': choices.near,
        'language': choices.languages,
        'length': choices.lengths,
        'leak': choices.leaks if choices.leakage else 'off',
    }
    return {what: mode for what, mode in found.items() if mode != 'off'}


def drops(flaws: list[checks.Flaw], sizes, modes: dict[str, str]) -> tuple[list, list]:
    """Groups that go: duplicates, leaks, and those that lose all of a side; other texts that go."""
    gone = [x for x in flaws if modes[x.what] == 'drop']
    groups = {x.row for x in gone if x.what not in TEXTS}
    texts = {(x.row, x.side, x.language) for x in gone if x.what in TEXTS}
    lost = collections.Counter((row, side) for row, side, _ in texts)
    for (row, side), count in lost.items():
        if count == sizes[row][side == 'passage']:
            groups.add(row)
    return sorted(groups), sorted(x for x in texts if x[0] not in groups)


def look_at_texts(
    reader: schema.CollectionSource, choices: checks.CleaningConfig, index: str, folder, run, report
) -> dict[str, int]:
    """Reports on the texts of a collection; returns the counts.

    Hashed keys of those to be dropped become `progress.<source>.<side>.npy`. Duplicates are not
    looked for: a collection has each text once, and links that repeat it on purpose.
    """
    counts = dict.fromkeys(('texts', *modes(choices), 'dropped'), 0)
    gone = {'query': set(), 'passage': set()}
    for (side, language), part in sorted(reader.texts.items()):
        function = functools.partial(checks.judge_texts, part.parse, side, language, choices, index)
        with log.progress(desc=f'{reader.name} {side}.{language} cleaning', unit=' texts') as bar:
            for size, flaws in run.map(function, part.blocks):
                for key, place, what, detail in flaws:
                    write(report, reader.name, key, place, what, side, language, detail)
                    counts[what] += 1
                    if modes(choices)[what] == 'drop':
                        gone[side].update(ragged.hash_keys([key]).tolist())
                counts['texts'] += size
                bar.update(size)
    for side, keys in gone.items():
        counts['dropped'] += len(keys)
        np.save(folder / f'progress.{reader.name}.{side}.npy', np.array(sorted(keys), np.uint64))
    return counts


def write(report, *fields: str) -> None:
    print(*(' '.join(field.split()) for field in fields), sep='\t', file=report)


def table(counts: dict[str, dict[str, int]]) -> str:
    """What was found, by source, as text."""
    names = list(dict.fromkeys(name for found in counts.values() for name in found))
    lines = [f'{"cleaning":<16}' + ''.join(f'{name:>10}' for name in names)]
    for source, found in counts.items():
        cells = (f'{found.get(name, "-"):>10}' for name in names)
        lines.append(f'{source:<16}' + ''.join(cells))
    return '\n'.join(lines)


# Sources without what is to be dropped.


def without(
    reader, choices: checks.CleaningConfig, folder: pathlib.Path
) -> schema.GroupSource | schema.CollectionSource:
    """The source as it is read after `survey` has written its files."""
    if isinstance(reader, schema.GroupSource):
        path = folder / f'progress.{reader.name}.drops'
        return reader._replace(
            blocks=functools.partial(beside, reader.blocks, path),
            parse=functools.partial(read_groups, reader.parse, choices.normalise),
            where=functools.partial(place, reader.where, path),
        )
    gone = {side: folder / f'progress.{reader.name}.{side}.npy' for side in ('query', 'passage')}
    texts = {
        key: part._replace(
            parse=functools.partial(checks.read_texts, part.parse, choices.normalise)
        )
        for key, part in reader.texts.items()
    }
    links = reader.links._replace(parse=functools.partial(read_links, reader.links.parse, gone))
    return reader._replace(texts=texts, links=links)


def beside(blocks: abc.Callable, path: pathlib.Path) -> abc.Iterator:
    """Each block with what goes of it."""
    with path.open() as lines:
        for block, line in zip(blocks(), lines, strict=True):
            yield block, json.loads(line)


def place(place: abc.Callable, path: pathlib.Path, number: int) -> str:
    """Where the group is that has this number among those that are left."""
    before = 0
    with path.open() as lines:
        for size, groups, _ in map(json.loads, lines):
            left = np.setdiff1d(np.arange(size), groups)
            if number < len(left):
                return place(before + int(left[number]))
            number, before = number - len(left), before + size
    raise AssertionError('a group that is not there')


def read_groups(read: abc.Callable, form: str, block) -> list[schema.Group]:
    block, (size, groups, texts) = block
    found = read(block)
    assert len(found) == size, 'a source gave other rows than before'
    for i, side, language in texts:
        sides = getattr(found[i], side)
        kept = {x: text for x, text in sides.items() if x != language}
        found[i] = found[i]._replace(**{side: kept})
    gone = set(groups)
    return [checks.normal(row, form) for i, row in enumerate(found) if i not in gone]


def read_links(read: abc.Callable, gone: dict[str, pathlib.Path], block) -> list[schema.Link]:
    """Links without those of a text that goes, and without negatives that go."""
    found = read(block)
    query = goes(gone['query'], [x.query_key for x in found])
    passage = goes(gone['passage'], [x.passage_key for x in found])
    keys = goes(gone['passage'], [key for x in found for key in x.negative_keys])
    negatives = iter(keys)
    kept = []
    for link, *bad in zip(found, query, passage, strict=True):
        left = tuple(key for key in link.negative_keys if not next(negatives))
        if not any(bad):
            kept.append(link._replace(negative_keys=left))
    return kept


def goes(path: pathlib.Path, keys: list[str]) -> np.ndarray:
    return np.isin(ragged.hash_keys(keys), np.load(path))
