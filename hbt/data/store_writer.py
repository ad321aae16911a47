"""Writes one dataset of a store, block by block, and goes on where an earlier run was stopped.

Hides the files of a dataset while they grow. Called by `prepare`; `store` reads what it wrote.
"""

import functools
import pathlib

import numpy as np

from hbt.data import array_files, ragged, tokenization
from hbt.data.curation import dedup
from hbt.data.readers import schema
from hbt.utils import log

CHUNK = 1 << 20  # numbers handled at a time
COUNTS = ('texts', 'tokens', 'truncated')


def rows(folder: pathlib.Path, source: schema.GroupSource, run, file: str, setting) -> dict:
    """Writes a source of groups; returns its counts for the manifest."""
    function = functools.partial(tokenization.groups, source.parse, file=file, setting=setting)
    with array_files.Columns(folder) as files:
        state = files.state or {
            'blocks': 0,
            'groups': 0,
            'passages': 0,
            'counts': {},
            'done': False,
        }
        if not state['done']:
            bar = log.progress(desc=source.name, unit=' rows', initial=state['groups'])
            with bar as progress:
                for block in run.map(function, source.blocks, state['blocks']):
                    add_groups(files, state, block)
                    progress.update(block.groups)
            finish_rows(files, state, source)
    return entry(state)


def add_groups(files: array_files.Columns, state: dict, block: tokenization.Block) -> None:
    first = {'query': state['groups'], 'passage': state['passages']}
    for (side, language), tokens in block.tokens.items():
        add_tokens(files, state, f'{side}.{language}', tokens, tokens.rows + first[side], 0)
    add_names(files, 'query', block.names['query'], first['query'], 0)
    files.append('passage.indices', (block.passage + first['passage']).astype(np.int32))
    for language, (counts, texts) in block.negatives.items():
        stem = f'negatives.{language}'
        files.write(f'{stem}.counts', 4 * state['groups'], counts.astype(np.int32))
        files.append(f'{stem}.passages', (texts + first['passage']).astype(np.int32))
    state['blocks'] += 1
    state['groups'] += block.groups
    state['passages'] += block.passages
    files.commit(**state)


def add_tokens(files, state: dict, stem: str, tokens: tokenization.Tokens, at, total: int) -> None:
    """Appends tokens, and puts what tells where they are at rows `at` of the other arrays."""
    table = tokens.table
    start = files.append(f'{stem}.tokens', table.tokens) // table.tokens.itemsize
    files.place(f'{stem}.starts', at, start + table.starts, total)
    files.place(f'{stem}.lengths', at, table.lengths, total)
    files.place(f'{stem}.hashes', at, table.hashes, total)
    known = state['counts'].setdefault(stem, dict.fromkeys(COUNTS, 0))
    known['texts'] += tokens.texts
    known['tokens'] += len(table.tokens)
    known['truncated'] += tokens.truncated


def add_names(files, side: str, names: tokenization.Names, first: int, total: int) -> None:
    start = files.append(f'{side}.ids', names.data)
    starts = start + np.cumsum(names.lengths, dtype=np.int64) - names.lengths
    files.place(f'{side}.ids.starts', names.rows + first, starts, total)
    files.place(f'{side}.ids.lengths', names.rows + first, names.lengths, total)
    if not total:
        files.place(f'{side}.ids.hashes', names.rows + first, names.hashes, total)


def finish_rows(files: array_files.Columns, state: dict, source: schema.GroupSource) -> None:
    groups = state['groups']
    if not groups:
        raise ValueError(f'{source.spec}: expected at least one row, got none')
    hashes = files.array('query.ids.hashes', np.uint64, groups)
    for a, b in dedup.equal_rows(hashes)[:1]:
        raise ValueError(
            f'{source.where(int(max(a, b)))}: id: expected a new one, got that of '
            f'{source.where(int(min(a, b)))}'
        )
    del hashes
    files.drop('query.ids.hashes')
    for start in range(0, groups, CHUNK):
        part = np.arange(start, min(start + CHUNK, groups), dtype=np.int32)
        files.write('query.indices', 4 * start, part)
    for name in sorted(files.sizes):
        if name.startswith('negatives.') and name.endswith('.counts'):
            stem = name.removesuffix('.counts')
            state['counts'][stem] = add_borders(files, stem, groups)
    finish(files, state, {'query': groups, 'passage': state['passages']})


def add_borders(files: array_files.Columns, stem: str, groups: int) -> int:
    """Counts of negatives -> where those of each group begin and end; returns their number."""
    counts, total = files.array(f'{stem}.counts', np.int32, groups), 0
    files.write(f'{stem}.offsets', 0, np.zeros(1, np.int64))
    for start in range(0, groups, CHUNK):
        ends = total + np.cumsum(counts[start : start + CHUNK], dtype=np.int64)
        files.write(f'{stem}.offsets', 8 * (start + 1), ends)
        total = int(ends[-1])
    del counts
    files.drop(f'{stem}.counts')
    return total


def finish(files: array_files.Columns, state: dict, sizes: dict[str, int]) -> None:
    """Makes every array as long as its table, and labels texts that are one."""
    for stem in state['counts']:
        side = stem.partition('.')[0]
        if side in sizes:
            for kind, size in (('starts', 8), ('lengths', 4), ('hashes', 8)):
                files.grow(f'{stem}.{kind}', size * sizes[side])
    for side, size in sizes.items():
        found = [x for x in files.sizes if x.startswith(f'{side}.') and x.endswith('.hashes')]
        tables = (files.array(name, np.uint64, size) for name in sorted(found))
        files.write(f'{side}.clusters', 0, dedup.classes(tables, size))
    state['done'] = True
    files.commit(**state)


def entry(state: dict) -> dict:
    """Counts of a dataset by side and language."""
    found = {'groups': state['groups'], 'query': {}, 'passage': {}, 'negatives': {}}
    for stem, counts in sorted(state['counts'].items()):
        side, _, language = stem.partition('.')
        found[side][language] = counts
    return found


def collection(
    folder: pathlib.Path, source: schema.CollectionSource, run, file: str, setting
) -> dict:
    """Writes texts that are apart from their links; returns the counts for the manifest."""
    with array_files.Columns(folder) as files:
        state = files.state or {'stage': 0, 'blocks': 0, 'groups': 0, 'counts': {}, 'done': False}
        if state['stage'] == 0:
            read_links(files, state, source, run)
        for number, key in enumerate(sorted(source.texts), 1):
            if state['stage'] == number:
                read_texts(files, state, source, run, key, file, setting)
        if not state['done']:
            finish_collection(files, state, source)
    return entry(state)


LINKS = {'query': 'links.query', 'passage': 'links.passage', 'negatives': 'links.negatives'}


def read_links(files: array_files.Columns, state: dict, source, run) -> None:
    """Hashed keys of all links; then the keys of each side, in order, number the texts."""
    function = functools.partial(tokenization.links, source.links.parse)
    with log.progress(desc=f'{source.name} links', unit=' rows', initial=state['groups']) as bar:
        for block in run.map(function, source.links.blocks, state['blocks']):
            for name in LINKS:
                files.append(LINKS[name], getattr(block, name))
            files.append('negatives..counts', block.count.astype(np.int32))
            state['blocks'] += 1
            state['groups'] += len(block.query)
            files.commit(**state)
            bar.update(len(block.query))
    if not state['groups']:
        raise ValueError(f'{source.spec}: expected at least one link, got none')
    for side, links in (('query', ('query',)), ('passage', ('passage', 'negatives'))):
        known = np.zeros(0, np.uint64)
        for keys in (linked(files, name) for name in links):
            for start in range(0, len(keys), 4 * CHUNK):
                known = np.union1d(known, keys[start : start + 4 * CHUNK])
        files.write(f'keys.{side}', 0, known)
    state.update(stage=1, blocks=0)
    files.commit(**state)


def linked(files: array_files.Columns, name: str) -> np.ndarray:
    return files.array(LINKS[name], np.uint64, files.size(LINKS[name]) // 8)


def read_texts(files, state: dict, source, run, key: tuple[str, str], file: str, setting) -> None:
    """The texts of a side and language whose keys are linked."""
    side, language = key
    part, stem = source.texts[key], f'{side}.{language}'
    known = str(files.folder / f'keys.{side}')
    total = files.size(f'keys.{side}') // 8
    function = functools.partial(
        tokenization.texts,
        part.parse,
        side=side,
        language=language,
        known=known,
        file=file,
        setting=setting,
    )
    with log.progress(desc=f'{source.name} {stem}', unit=' texts') as progress:
        for block in run.map(function, part.blocks, state['blocks']):
            (tokens,) = block.tokens.values()
            refuse_repeats(files, state, stem, tokens.rows, block.places, total, setting.dtype)
            add_tokens(files, state, stem, tokens, tokens.rows, total)
            lengths = files.array(f'{side}.ids.lengths', np.int32, total)
            add_names(files, side, unnamed(block.names[side], lengths), 0, total)
            state['blocks'] += 1
            files.commit(**state)
            progress.update(tokens.texts)
    if stem not in state['counts']:
        raise ValueError(f'{source.spec}: expected texts of {stem}, got none')
    state.update(stage=state['stage'] + 1, blocks=0)
    files.commit(**state)


def refuse_repeats(files, state, stem: str, at: np.ndarray, places, total: int, dtype) -> None:
    """ValueError if a key came before, in this block or in one that was committed."""
    values, first = np.unique(at, return_index=True)
    again = np.setdiff1d(np.arange(len(at)), first)
    if not len(again):
        hashes = files.array(f'{stem}.hashes', np.uint64, total)
        starts = files.array(f'{stem}.starts', np.int64, total)
        end = files.size(f'{stem}.tokens') // np.dtype(dtype).itemsize
        again = np.flatnonzero((hashes[at] != 0) & (starts[at] < end))
    if len(again):
        raise ValueError(f'{places[again[0]]}: id: expected a new one, got one that came before')


def unnamed(names: tokenization.Names, lengths: np.ndarray) -> tokenization.Names:
    """Those of texts that no other language has named yet."""
    new = lengths[names.rows] == 0
    ends = np.cumsum(names.lengths)
    data = b''.join(
        names.data[end - size : end]
        for end, size in zip(ends[new], names.lengths[new], strict=True)
    )
    return names._replace(rows=names.rows[new], lengths=names.lengths[new], data=data)


def finish_collection(files: array_files.Columns, state: dict, source) -> None:
    """Turns keys into rows of texts; ValueError names a link to a text that is nowhere."""
    sizes = {side: files.size(f'keys.{side}') // 8 for side in ('query', 'passage')}
    for side, size in sizes.items():
        named = files.array(f'{side}.ids.lengths', np.int32, size)
        if not named.all():
            keys = files.array(f'keys.{side}', np.uint64, size)
            raise unknown(source, side, keys[named == 0])
    for name, side in (('query', 'query'), ('passage', 'passage'), ('negatives', 'passage')):
        links, keys = linked(files, name), files.array(f'keys.{side}', np.uint64, sizes[side])
        target = 'negatives..passages' if name == 'negatives' else f'{name}.indices'
        for start in range(0, len(links), CHUNK):
            found = np.searchsorted(keys, links[start : start + CHUNK]).astype(np.int32)
            files.write(target, 4 * start, found)
    number = len(linked(files, 'negatives'))
    if number:
        state['counts']['negatives.'] = add_borders(files, 'negatives.', state['groups'])
    finish(files, state, sizes)
    for name in (*LINKS.values(), *(f'keys.{side}' for side in sizes), 'negatives..counts'):
        if name in files.sizes:
            files.drop(name)


def unknown(source: schema.CollectionSource, side: str, keys: np.ndarray) -> ValueError:
    """The error for the first link to one of these keys."""
    wanted = set(keys.tolist())
    for block in source.links.blocks():
        for link in source.links.parse(block):
            used = [link.query_key] if side == 'query' else [link.passage_key, *link.negative_keys]
            for key, number in zip(used, ragged.hash_keys(used).tolist(), strict=True):
                if number in wanted:
                    return ValueError(
                        f'{link.where}: expected the id of a {side} in the collection, got {key!r}'
                    )
    raise AssertionError('a key without a link')
