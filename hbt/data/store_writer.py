"""Writes one dataset of a store block by block, and resumes after the last block written."""

import functools
import itertools
import pathlib
from collections import abc

import numpy as np

from hbt.data import array_files, ragged, store, tokenization
from hbt.data.curation import dedup
from hbt.data.readers import schema
from hbt.utils import log

_CHUNK = 1 << 20  # numbers handled at a time


def write_groups(folder: pathlib.Path, source, run_blocks, config: tokenization.Config) -> dict:
    """Writes the dataset of a GroupSource; returns its counts, by side and language."""
    start = {'blocks': 0, 'groups': 0, 'passages': 0, 'counts': {}, 'done': False}
    arrays = array_files.ArrayFiles(folder, start)
    state = arrays.state
    if not state['done']:
        function = functools.partial(tokenization.encode_groups, source.parse, config)
        with log.progress(desc=source.name, unit=' groups', initial=state['groups']) as bar:
            for block in run_blocks(function, source.blocks, state['blocks']):
                _append_groups(arrays, block)
                bar.update(len(block.positives))
        _finish_groups(arrays, source)
    return _counts_by_side(state)


def _append_groups(arrays: array_files.ArrayFiles, block: tokenization.GroupBlock) -> None:
    state = arrays.state
    first = {'query': state['groups'], 'passage': state['passages']}
    for (side, language), texts in block.texts.items():
        _write_texts(arrays, f'{side}.{language}', texts, first=first[side])
    _write_table(arrays, 'query.ids', block.ids, first=state['groups'])
    arrays.write('passage.indices', (block.positives + first['passage']).astype(np.int32))
    for language, (counts, numbers) in block.negatives.items():
        stem = f'negatives.{language}'
        arrays.write(f'progress.{stem}.counts', counts.astype(np.int32), 4 * state['groups'])
        arrays.write(f'{stem}.passages', (numbers + first['passage']).astype(np.int32))
    state['blocks'] += 1
    state['groups'] += len(block.positives)
    state['passages'] += block.num_passages
    arrays.commit()


def _write_texts(arrays, stem: str, texts: tokenization.EncodedTexts, **position: int) -> None:
    _write_table(arrays, stem, texts, **position)
    counts = arrays.state['counts'].setdefault(stem, {'texts': 0, 'tokens': 0, 'truncated': 0})
    counts['texts'] += int(np.count_nonzero(texts.table.hashes))
    counts['tokens'] += len(texts.table.tokens)
    counts['truncated'] += texts.num_truncated


def _write_table(arrays, stem: str, texts, first: int = 0, total: int = 0) -> None:
    """Appends tokens, and sets the elements from `first` on of the other arrays of a table."""
    start = arrays.write(f'{stem}.tokens', texts.table.tokens) // texts.table.tokens.itemsize
    table = texts.table._replace(starts=texts.table.starts + start)
    for name in store.TABLE_TYPES:
        arrays.scatter(f'{stem}.{name}', first + texts.indices, getattr(table, name), total)


def _finish_groups(arrays: array_files.ArrayFiles, source: schema.GroupSource) -> None:
    groups = arrays.state['groups']
    if not groups:
        raise ValueError(f'{source.spec}: expected at least one group, got none')
    pairs = dedup.equal_pairs(arrays.map_array('query.ids.hashes', np.uint64, groups))
    if len(pairs):
        first, second = sorted(pairs[0].tolist())
        raise ValueError(
            f'{source.where(second)}: id: expected a new one, got that of {source.where(first)}'
        )
    arrays.write('query.indices', np.arange(groups, dtype=np.int32))
    for name in sorted(arrays.sizes):
        if name.startswith('progress.negatives.'):
            counts = arrays.map_array(name, np.int32, groups)
            _write_offsets(arrays, name.removeprefix('progress.').removesuffix('.counts'), counts)
    _finish_tables(arrays, {'query': groups, 'passage': arrays.state['passages']})


def _write_offsets(arrays: array_files.ArrayFiles, stem: str, counts: np.ndarray) -> None:
    """Counts of negatives -> where those of each group begin and end."""
    ends = np.zeros(1, np.int64)
    arrays.write(f'{stem}.offsets', ends)
    for start in range(0, len(counts), _CHUNK):
        ends = ends[-1] + np.cumsum(counts[start : start + _CHUNK], dtype=np.int64)
        arrays.write(f'{stem}.offsets', ends)
    arrays.state['counts'][stem] = int(ends[-1])


def _finish_tables(arrays: array_files.ArrayFiles, sizes: dict[str, int]) -> None:
    """Makes every array as long as its side has texts."""
    for side, size in sizes.items():
        stems = sorted(x for x in arrays.state['counts'] if x.startswith(f'{side}.'))
        for stem, (name, dtype) in itertools.product(stems, store.TABLE_TYPES.items()):
            arrays.grow(f'{stem}.{name}', size * np.dtype(dtype).itemsize)
    arrays.state['done'] = True
    arrays.commit()


def write_clusters(folder: pathlib.Path, entries: list[dict], token_type: str) -> None:
    """Writes the duplicate clusters of the texts of all datasets, given by their manifest entries.

    Texts are one if they are equal, or have equal tokens, as far as the store has them.
    """
    for side in store.SIDES:
        tables = [
            {
                x: store.map_table(folder / entry['name'], f'{side}.{x}', token_type)
                for x in entry[side]
            }
            for entry in entries
        ]
        sizes = [len(next(iter(x.values())).hashes) for x in tables]
        hashes = _iter_hashes(tables, sizes)
        clusters = dedup.duplicate_clusters(hashes, sum(sizes))
        for entry, part in zip(entries, np.split(clusters, np.cumsum(sizes)[:-1]), strict=True):
            part.tofile(folder / entry['name'] / f'{side}.clusters')


def _iter_hashes(tables: list[dict[str, ragged.TokenTable]], sizes: list[int]) -> abc.Iterator:
    """Yields hashes of all texts, and of their tokens, by language and text; 0 for none."""
    languages = sorted(set().union(*tables))
    for hash_table in (lambda table: table.hashes, ragged.hash_tokens):
        hashes = np.zeros((len(languages), sum(sizes)), np.uint64)
        for row, language in zip(hashes, languages, strict=True):
            for part, table in zip(np.split(row, np.cumsum(sizes)[:-1]), tables, strict=True):
                if language in table:
                    part[:] = hash_table(table[language])
        yield hashes


def _counts_by_side(state: dict) -> dict:
    counts = {'groups': state['groups'], 'query': {}, 'passage': {}, 'negatives': {}}
    for stem, count in sorted(state['counts'].items()):
        side, _, language = stem.partition('.')
        counts[side][language] = count
    return counts


def write_collection(folder: pathlib.Path, source, run_blocks, config: tokenization.Config) -> dict:
    """Writes the dataset of a CollectionSource; as `write_groups`."""
    start = {'stage': 0, 'blocks': 0, 'groups': 0, 'counts': {}, 'done': False}
    arrays = array_files.ArrayFiles(folder, start)
    if arrays.state['stage'] == 0:
        _write_links(arrays, source, run_blocks)
    for stage, (side, language) in enumerate(sorted(source.texts), 1):
        if arrays.state['stage'] == stage:
            _write_collection_texts(arrays, source, run_blocks, side, language, config)
    if not arrays.state['done']:
        _finish_collection(arrays, source)
    return _counts_by_side(arrays.state) | {'left_out': arrays.state.get('left_out', {})}


def _write_links(arrays: array_files.ArrayFiles, source, run_blocks) -> None:
    """Writes the hashed keys of all links; those of a side, in order, number its texts."""
    state, links = arrays.state, source.links
    function = functools.partial(tokenization.hash_links, links.parse)
    with log.progress(desc=f'{source.name} links', unit=' links', initial=state['groups']) as bar:
        for block in run_blocks(function, links.blocks, state['blocks']):
            for name in ('query', 'passage', 'negatives'):
                arrays.write(f'progress.links.{name}', block[name])
            arrays.write('progress.negatives..counts', block['counts'])
            state['blocks'] += 1
            state['groups'] += len(block['query'])
            arrays.commit()
            bar.update(len(block['query']))
    if not state['groups']:
        raise ValueError(f'{source.spec}: expected at least one link, got none')
    for side, names in (('query', ('query',)), ('passage', ('passage', 'negatives'))):
        unique = np.zeros(0, np.uint64)
        for keys in (_map_hashes(arrays, f'links.{name}') for name in names):
            for start in range(0, len(keys), 4 * _CHUNK):
                unique = np.union1d(unique, keys[start : start + 4 * _CHUNK])
        arrays.write(f'progress.keys.{side}', unique)
    state.update(stage=1, blocks=0)
    arrays.commit()


def _map_hashes(arrays: array_files.ArrayFiles, name: str) -> np.ndarray:
    name = f'progress.{name}'
    return arrays.map_array(name, np.uint64, arrays.sizes[name] // 8)


def _write_collection_texts(arrays, source, run_blocks, side: str, language: str, config) -> None:
    """Writes the texts of a side and language that have links."""
    state, stem, keys = arrays.state, f'{side}.{language}', f'progress.keys.{side}'
    total, (blocks, parse) = arrays.sizes[keys] // 8, source.texts[side, language]
    function = functools.partial(
        tokenization.encode_collection_texts, parse, side, str(arrays.folder / keys), config
    )
    with log.progress(desc=f'{source.name} {stem}', unit=' texts') as bar:
        for texts, ids, places in run_blocks(function, blocks, state['blocks']):
            _check_keys_are_new(arrays, stem, texts, places, total)
            _write_texts(arrays, stem, texts, total=total)
            lengths = arrays.map_array(f'{side}.ids.lengths', np.int32, total)
            _write_table(arrays, f'{side}.ids', _select_unnamed(ids, lengths), total=total)
            state['blocks'] += 1
            arrays.commit()
            bar.update(len(places))
    if stem not in state['counts']:
        raise ValueError(f'{source.spec}: expected texts of {stem}, got none')
    state.update(stage=state['stage'] + 1, blocks=0)
    arrays.commit()


def _check_keys_are_new(arrays, stem: str, texts, places: list[str], total: int) -> None:
    """ValueError if a key came before, in this block or in one that was committed."""
    indices = texts.indices
    _, first = np.unique(indices, return_index=True)
    repeated = np.setdiff1d(np.arange(len(indices)), first)
    if not len(repeated):
        hashes = arrays.map_array(f'{stem}.hashes', np.uint64, total)
        starts = arrays.map_array(f'{stem}.starts', np.int64, total)
        end = arrays.sizes.get(f'{stem}.tokens', 0) // texts.table.tokens.itemsize
        repeated = np.flatnonzero((hashes[indices] != 0) & (starts[indices] < end))
    if len(repeated):
        where = places[repeated[0]]
        raise ValueError(f'{where}: id: expected a new one, got one that came before')


def _select_unnamed(ids, lengths: np.ndarray) -> tokenization.EncodedTexts:
    """The ids of texts that no other language has named yet."""
    new = np.flatnonzero(lengths[ids.indices] == 0)
    table = ragged.truncate_texts(ids.table, new, 2**31 - 1, None)
    table = table._replace(tokens=table.tokens.astype(np.uint8))
    return tokenization.EncodedTexts(ids.indices[new], table)


def _finish_collection(arrays: array_files.ArrayFiles, source: schema.CollectionSource) -> None:
    """Turns keys into indices of texts; links and negatives without a text are left out."""
    keys = {side: _map_hashes(arrays, f'keys.{side}') for side in store.SIDES}
    names = [(side, f'{side}.ids.lengths', len(keys[side])) for side in store.SIDES]
    present = {side: arrays.map_array(name, np.int32, n) > 0 for side, name, n in names}
    groups, left_out = _write_indices(arrays, keys, present)
    if not all(x.all() for x in present.values()):
        missing = {side: {*keys[side][~present[side]].tolist()} for side in store.SIDES}
        where, message = _locate_missing(source, missing)
        if not groups:
            raise ValueError(f'{where}: expected {message}, and no link has a query and a passage')
        counts = '{links} links and {negatives} negatives'.format_map(left_out)
        log.info(f'{where}: expected {message}; left out {counts} without a text')
    arrays.state.update(groups=groups, left_out=left_out)
    if arrays.sizes.get('negatives..passages'):
        counts = arrays.map_array('progress.negatives.sizes', np.int32, groups)
        _write_offsets(arrays, 'negatives.', counts)
    _finish_tables(arrays, {side: len(keys[side]) for side in store.SIDES})


def _write_indices(arrays, keys: dict, present: dict) -> tuple[int, dict[str, int]]:
    """Writes the texts of the links that have them; returns the number of these, and of the rest.

    `keys` are those of the texts of each side, in order, and `present` says which have a text.
    """
    linked, groups, end = arrays.state['groups'], 0, 0
    hashes = {name: _map_hashes(arrays, f'links.{name}') for name in (*store.SIDES, 'negatives')}
    counts = arrays.map_array('progress.negatives..counts', np.int32, linked)
    left_out = {'links': 0, 'negatives': 0}
    for start in range(0, linked, _CHUNK // 16):
        part = slice(start, start + _CHUNK // 16)
        first, end = end, end + int(counts[part].sum())
        query, passage = (np.searchsorted(keys[x], hashes[x][part]) for x in store.SIDES)
        negatives = np.searchsorted(keys['passage'], hashes['negatives'][first:end])
        complete = present['query'][query] & present['passage'][passage]
        group = np.repeat(np.arange(len(complete)), counts[part])
        negatives, group = negatives[complete[group]], group[complete[group]]
        with_text = present['passage'][negatives]
        sizes = np.bincount(group[with_text], minlength=len(complete))[complete]
        arrays.write('query.indices', query[complete].astype(np.int32))
        arrays.write('passage.indices', passage[complete].astype(np.int32))
        arrays.write('progress.negatives.sizes', sizes.astype(np.int32))
        if with_text.any():
            arrays.write('negatives..passages', negatives[with_text].astype(np.int32))
        groups += int(complete.sum())
        left_out['links'] += int((~complete).sum())
        left_out['negatives'] += int((~with_text).sum())
    return groups, left_out


def _locate_missing(source: schema.CollectionSource, missing: dict) -> tuple[str, str]:
    """The place of the first link to a text that is missing, and what is expected there."""
    for block in source.links.blocks():
        for link in source.links.parse(block):
            names = [link.query_key, link.passage_key, *link.negative_keys]
            for i, key in enumerate(ragged.hash_keys(names).tolist()):
                side = store.SIDES[min(i, 1)]
                if key in missing[side]:
                    message = f'the id of a {side} with text in the collection, got {names[i]!r}'
                    return link.where, message
    raise AssertionError('a key without a link')
