"""Command line: sources of parallel rows -> a store of tokens.

Hides the formats of the sources and the tokenisation. Rows stream through in chunks, so memory
does not grow with the input. `main` calls `prepare` when the store of a config is missing.
"""

import array
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import typing
from collections import abc

import numpy as np
import scipy.sparse
import tokenizers
from absl import flags

from hbt import config, hub, log, sources, store, vocabulary

CHUNK = 1024  # rows tokenised at a time


def prepare(data: config.Data, out: str | os.PathLike, inputs: abc.Sequence[str]) -> store.Store:
    """Reads `inputs`, tokenises them once and writes the store `out`, whole or not at all.

    A store that was made from the same bytes with the same settings is opened as it is. Raises
    ValueError for bad rows (file and line), for an existing store that was made otherwise, and
    for a tokenizer that cannot be read.
    """
    out = pathlib.Path(out)
    readers = sources.open_all(inputs)
    if data.tokenizer.startswith('train:'):
        tokenizer = train_tokenizer(data, readers)
    else:
        tokenizer = vocabulary.read(hub.resolve(data.tokenizer, weights=False))
    manifest = describe(data, tokenizer, readers)
    if out.exists():
        return reopen(out, manifest)
    partial = out.with_name(out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokenizer.save(str(partial / 'tokenizer.json'))
    for entry, reader in zip(manifest['datasets'], readers, strict=True):
        entry.update(write_dataset(partial / entry['name'], reader, tokenizer, manifest))
    manifest['files'] = {
        str(file.relative_to(partial)): {'bytes': file.stat().st_size, 'sha256': sha256(file)}
        for file in sorted(partial.rglob('*'))
        if file.is_file()
    }
    (partial / 'manifest.json').write_text(json.dumps(manifest, indent=1))
    os.replace(partial, out)
    return store.open(out)


def train_tokenizer(data: config.Data, readers) -> tokenizers.Tokenizer:
    """A byte-pair tokenizer of the size in `train:SIZE`, with XLM-R's special tokens."""
    size = data.tokenizer.removeprefix('train:')
    if not size.isdigit() or int(size) < 300:
        raise ValueError(f'tokenizer: expected train:SIZE of 300 or more, got {data.tokenizer!r}')
    specials = ['<s>', '<pad>', '</s>', '<unk>']
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='<unk>'))
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    split = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Metaspace(), split.Punctuation(), split.Digits()]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=specials, show_progress=False
    )
    texts = (
        prefix + text
        for reader in readers
        for row in reader.rows()
        for prefix, texts in (
            (data.query_prefix, row.query.values()),
            (data.passage_prefix, [*row.passage.values(), *sum(row.negatives.values(), [])]),
        )
        for text in texts
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return tokenizer


def describe(data: config.Data, tokenizer: tokenizers.Tokenizer, readers) -> dict:
    """The manifest as far as it is known before a row is read; it identifies the store."""
    specials = tokenizer.encode('').ids
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    return {
        'version': store.VERSION,
        'tokenizer': {
            'sha256': hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            'vocab_size': vocab_size,
            'pad_id': vocabulary.pad_id(tokenizer),
            'end_id': specials[-1] if specials else None,
            'dtype': 'uint16' if vocab_size <= 2**16 else 'uint32',
        },
        'settings': {
            'query_prefix': data.query_prefix,
            'passage_prefix': data.passage_prefix,
            'query_length': data.query_length,
            'passage_length': data.passage_length,
        },
        'datasets': [{'name': r.name, 'source': r.origin, 'sha256': r.sha256} for r in readers],
    }


def reopen(out: pathlib.Path, wanted: dict) -> store.Store:
    """Opens an existing store if it is the one that these inputs and settings would make."""
    opened = store.open(out)
    for part in ('tokenizer', 'settings', 'datasets'):
        had = opened.manifest[part]
        if part == 'datasets':
            had = [{k: e[k] for k in ('name', 'source', 'sha256')} for e in had]
        if had != wanted[part]:
            raise ValueError(
                f'{out}: this store was made with other {part}: expected {wanted[part]}, got {had};'
                ' choose another --out or delete it'
            )
    return opened


class Column(typing.NamedTuple):
    """One side and language while it is written."""

    tokens: typing.BinaryIO
    offsets: typing.BinaryIO
    hashes: typing.BinaryIO
    rows: typing.BinaryIO | None
    count: dict[str, int]  # texts, tokens, truncated


def write_dataset(folder: pathlib.Path, reader, tokenizer, manifest: dict) -> dict:
    """Writes the arrays of one dataset; returns its counts for the manifest."""
    folder.mkdir()
    columns: dict[tuple[str, str], Column] = {}
    id_hashes = array.array('Q')
    groups = id_bytes = 0
    with (
        open(folder / 'ids', 'wb') as ids,
        open(folder / 'ids.offsets', 'wb') as id_offsets,
        log.progress(desc=reader.name, unit=' rows') as progress,
    ):
        id_offsets.write(np.int64(0).tobytes())
        rows = iter(reader.rows())
        while chunk := list(itertools.islice(rows, CHUNK)):
            for row in chunk:
                id_bytes += ids.write(row.id.encode())
                id_offsets.write(np.int64(id_bytes).tobytes())
            id_hashes.extend(text_hash(row.id) for row in chunk)
            write_chunk(folder, columns, chunk, groups, tokenizer, manifest)
            groups += len(chunk)
            progress.update(len(chunk))
    for column in columns.values():
        for file in column[:4]:
            if file:
                file.close()
    if not groups:
        raise ValueError(f'{reader.origin}: expected at least one row, got none')
    for a, b in equal_rows(np.asarray(id_hashes))[:1]:
        raise ValueError(
            f'{reader.origin}:{max(a, b) + 1}: id: expected a new one, '
            f'got that of line {min(a, b) + 1}'
        )
    write_classes(folder, groups, sorted(columns), reader)
    counts = {side: {} for side in store.SIDES}
    for (side, language), column in sorted(columns.items()):
        rate = column.count['truncated'] / max(column.count['texts'], 1)
        counts[side][language] = column.count | {'truncation_rate': round(rate, 6)}
    return {'groups': groups, **counts}


def write_chunk(folder, columns, chunk, groups, tokenizer, manifest) -> None:
    """Tokenises the texts of a chunk in one call and appends them to their columns."""
    settings, end = manifest['settings'], manifest['tokenizer']['end_id']
    cells = {}  # (side, language) -> texts of every row of the chunk
    for i, row in enumerate(chunk):
        for side in store.SIDES:
            for language, texts in getattr(row, side).items():
                texts = texts if side == 'negatives' else [texts]
                cells.setdefault((side, language), [[] for _ in chunk])[i] = texts
    for key in sorted(cells.keys() - columns.keys()):
        columns[key] = open_column(folder, key, groups)
    flat = [
        settings['query_prefix' if key[0] == 'query' else 'passage_prefix'] + text
        for key in columns
        for texts in cells.get(key, ())
        for text in texts
    ]
    encoded = iter(tokenizer.encode_batch_fast(flat))
    for key, column in columns.items():
        rows = cells.get(key, [[]] * len(chunk))
        limit = settings['query_length' if key[0] == 'query' else 'passage_length']
        if column.rows:
            base = column.count['texts'] + np.cumsum([len(texts) for texts in rows])
            column.rows.write(base.astype(np.int64).tobytes())
            rows = [[text] for texts in rows for text in texts]
        write_texts(column, rows, encoded, limit, end, manifest['tokenizer']['dtype'])


def write_texts(column: Column, rows, encoded, limit, end, dtype) -> None:
    """Appends one text, or none, for every row; a text over `limit` is cut and keeps its end."""
    count, tokens, sizes, hashes = column.count, [], [], []
    for texts in rows:
        ids = next(encoded).ids if texts else []
        kept = store.cut(ids, limit, end)
        tokens.extend(kept)
        sizes.append(len(kept))
        count['truncated'] += len(ids) > limit
        hashes.append(text_hash(texts[0]) if texts else 0)
        count['texts'] += bool(texts)
    column.offsets.write((count['tokens'] + np.cumsum(sizes, dtype=np.int64)).tobytes())
    count['tokens'] += len(tokens)
    column.tokens.write(np.asarray(tokens, dtype).tobytes())
    column.hashes.write(np.asarray(hashes, np.uint64).tobytes())


def open_column(folder: pathlib.Path, key: tuple[str, str], groups: int) -> Column:
    """A column that starts with `groups` rows without a text."""
    side, language = key
    stem = f'{folder}/{side}.{language}'
    kinds = ('tokens', 'offsets', 'hashes') + (('rows',) if side == 'negatives' else ())
    files = [open(f'{stem}.{kind}', 'wb') for kind in kinds]
    column = Column(*files, *[None] * (4 - len(files)), dict.fromkeys(COUNTS, 0))
    if column.rows:
        column.rows.write(bytes(8 * (groups + 1)))
        column.offsets.write(bytes(8))
    else:
        column.offsets.write(bytes(8 * (groups + 1)))
        column.hashes.write(bytes(8 * groups))
    return column


COUNTS = ('texts', 'tokens', 'truncated')


def sha256(file: pathlib.Path) -> str:
    with file.open('rb') as data:
        return hashlib.file_digest(data, 'sha256').hexdigest()


def text_hash(text: str) -> int:
    """64 bits of a text, never 0. Runs of white space count as one space."""
    digest = hashlib.blake2b(' '.join(text.split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') or 1


def write_classes(folder: pathlib.Path, groups: int, keys, reader) -> None:
    """Labels groups that share a text in some language, as connected components.

    Translation groups repeat texts (headings, boilerplate). Two groups with an equal passage, or
    an equal query, must not be negatives of each other in any language.
    """
    for side in ('query', 'passage'):
        edges = [np.zeros((0, 2), np.int64)]
        for language in (x for s, x in keys if s == side):
            edges.append(
                equal_rows(np.memmap(folder / f'{side}.{language}.hashes', np.uint64, 'r'))
            )
        a, b = np.concatenate(edges).T
        graph = scipy.sparse.coo_matrix((np.ones(len(a), bool), (a, b)), (groups, groups))
        labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
        labels.astype(np.int32).tofile(folder / f'{side}.class')
    passage_class = labels
    for language in (x for s, x in keys if s == 'negatives'):
        hashes = np.fromfile(folder / f'negatives.{language}.hashes', np.uint64)
        classes = np.full(len(hashes), -1, np.int32)
        if ('passage', language) in keys:
            known = np.fromfile(folder / f'passage.{language}.hashes', np.uint64)
            order = np.argsort(known)
            at = np.minimum(np.searchsorted(known, hashes, sorter=order), groups - 1)
            same = known[order[at]] == hashes
            classes[same] = passage_class[order[at[same]]]
        classes.tofile(folder / f'negatives.{language}.class')


def equal_rows(hashes: np.ndarray) -> np.ndarray:
    """Pairs of neighbours among the rows of equal hash: enough to connect all of them. [n 2]"""
    order = np.argsort(hashes, kind='stable')
    ordered = hashes[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return np.stack([order[:-1][same], order[1:][same]], 1)


def table(manifest: dict) -> str:
    """Counts and truncation rates per dataset, side and language, as text."""
    lines = [f'{"dataset":<16}{"side":<11}{"language":<10}{"texts":>10}{"tokens":>12}{"cut %":>8}']
    for entry in manifest['datasets']:
        for side in store.SIDES:
            for language, n in sorted(entry[side].items()):
                cut = 100 * n['truncation_rate']
                lines.append(
                    f'{entry["name"]:<16}{side:<11}{language:<10}{n["texts"]:>10}{n["tokens"]:>12}{cut:>8.1f}'
                )
    return '\n'.join(lines)


def main(_) -> None:
    data = config.Data(
        tokenizer=flags.FLAGS.tokenizer,
        query_prefix=flags.FLAGS.query_prefix,
        passage_prefix=flags.FLAGS.passage_prefix,
        query_length=flags.FLAGS.query_length,
        passage_length=flags.FLAGS.passage_length,
    )
    made = prepare(data, flags.FLAGS.out, flags.FLAGS.input)
    print(table(made.manifest))


if __name__ == '__main__':
    default = config.Data()
    flags.DEFINE_multi_string(
        'input', None, 'JSONL file (plain or gzip) or cldr:GROUPS; repeatable'
    )
    flags.DEFINE_string('tokenizer', None, 'hub name, directory or tokenizer.json')
    flags.DEFINE_string('out', None, 'directory of the store')
    flags.DEFINE_string('query_prefix', default.query_prefix, 'put before every query')
    flags.DEFINE_string('passage_prefix', default.passage_prefix, 'put before every passage')
    flags.DEFINE_integer('query_length', default.query_length, 'tokens kept of a query')
    flags.DEFINE_integer('passage_length', default.passage_length, 'tokens kept of a passage')
    flags.mark_flags_as_required(['input', 'tokenizer', 'out'])
    log.program(main)
