"""Command line: sources of parallel text -> a store of tokens.

Hides the order of the work: what was done before a kill is kept, and a store appears only when it
is whole. `main` calls `prepare` when the store of a config is missing.
"""

import hashlib
import os
import pathlib
import shutil
from collections import abc

import tokenizers

from hbt import config
from hbt.data import apache_beam, store, store_writer, tokenization, tokenizer_files, workers
from hbt.data.curation import checks, cleaning
from hbt.data.readers import registry, schema
from hbt.utils import files, hub, log


def build_store(
    data: config.Data,
    out: str | os.PathLike,
    inputs: abc.Sequence[str],
    processes: int = 1,
    method: str = 'forkserver',
    cleaning_config: checks.CleaningConfig | None = None,
    benchmark_texts: abc.Callable | None = None,
    pipeline: str = '',
) -> store.Store:
    """Reads `inputs`, tokenises them once and writes the store `out`, whole or not at all.

    A store that was made from the same bytes with the same settings is opened as it is, and one
    that was begun is continued. `processes` and the `method` of starting them: see `workers`.
    `pipeline`: options of Apache Beam, in place of processes here; `processes` are its tasks.
    `cleaning_config`: what is looked for in the texts and dropped; a new tokenizer is trained on
    all. `benchmark_texts(leakage)` gives (id, text) of the benchmarks that it names.
    Raises ValueError for bad rows (file and line), for an existing store that was made otherwise,
    for a tokenizer that cannot be read, and for leaks that are to be refused.
    """
    out = pathlib.Path(out)
    readers = registry.open_sources(inputs)
    if data.tokenizer.startswith('train:'):
        tokenizer = train_tokenizer(data, readers)
    else:
        tokenizer = tokenizer_files.load_tokenizer(
            hub.snapshot(data.tokenizer, tokenizer_files.PATTERNS)
        )
    choices = cleaning_config or checks.CleaningConfig()
    manifest = describe(data, tokenizer, readers)
    stated = checks.check(choices)
    if stated:
        manifest['cleaning'] = stated
    if out.exists():
        return reopen(out, manifest)
    partial = begin(out, manifest, tokenizer)
    setting = tokenization.Setting(
        **manifest['settings'],
        dtype=manifest['tokenizer']['dtype'],
    )
    file = str(partial / 'tokenizer.json')
    tokenization.TOKENIZER = {file: tokenizer}
    if pipeline:
        run = apache_beam.Beam(pipeline, partial, processes)
    else:
        run = workers.Workers(processes, sum(reader.num_bytes for reader in readers), method)
    with files.name_in_errors(partial), run:
        counts = {}
        if stated:
            banned = benchmark_texts(choices.leakage) if choices.leakage else ()
            counts = cleaning.survey(readers, choices, banned, partial, run)
            readers = [cleaning.without(reader, choices, partial) for reader in readers]
        for entry, reader in zip(manifest['datasets'], readers, strict=True):
            write = (
                store_writer.rows
                if isinstance(reader, schema.GroupSource)
                else store_writer.collection
            )
            entry.update(write(partial / entry['name'], reader, run, file, setting))
            entry.update({'cleaning': counts[reader.name]} if counts else {})
    manifest['files'] = store.describe_files(partial, '*')
    for file in partial.rglob('progress.*'):
        file.unlink()
    files.write_json(partial / 'manifest.json', store.add_checksum(manifest))
    os.replace(partial, out)
    return store.open_store(out)


def begin(out: pathlib.Path, manifest: dict, tokenizer: tokenizers.Tokenizer) -> pathlib.Path:
    """The folder of the store until it is whole; what another store left there is removed."""
    partial = out.with_name(out.name + '.partial')
    progress = partial / 'progress.manifest'
    if not progress.exists() or files.read_json(progress, dict) != manifest:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tokenizer.save(str(partial / 'tokenizer.json'))
        files.write_json(progress, manifest)
    elif any(partial.glob('*/progress.json')):
        log.info(f'{partial}: continuing')
    return partial


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
    prefixes = {'query': data.query_prefix, 'passage': data.passage_prefix}
    texts = (prefixes[side] + text for reader in readers for side, text in all_texts(reader))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return tokenizer


def all_texts(
    reader: schema.GroupSource | schema.CollectionSource,
) -> abc.Iterator[tuple[str, str]]:
    """(side, text) of everything in a source."""
    if isinstance(reader, schema.CollectionSource):
        for (side, _), part in sorted(reader.texts.items()):
            for block in part.blocks():
                yield from ((side, x.text) for x in part.parse(block))
        return
    for row in reader.iter_groups():
        yield from (('query', text) for text in row.query.values())
        yield from (('passage', text) for text in row.passage.values())
        yield from (('passage', text) for texts in row.negatives.values() for text in texts)


def describe(data: config.Data, tokenizer: tokenizers.Tokenizer, readers) -> dict:
    """The manifest as far as it is known before a row is read; it identifies the store."""
    vocab_size = tokenizer_files.vocab_size(tokenizer)
    return {
        'version': store.VERSION,
        'tokenizer': {
            'sha256': hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            'vocab_size': vocab_size,
            'pad_id': tokenizer_files.padding_id(tokenizer),
            'end_id': tokenizer_files.end_id(tokenizer),
            'dtype': 'uint16' if vocab_size <= 2**16 else 'uint32',
        },
        'settings': {
            'query_prefix': data.query_prefix,
            'passage_prefix': data.passage_prefix,
            'query_length': data.query_length,
            'passage_length': data.passage_length,
        },
        'datasets': [{'name': r.name, 'source': r.spec, 'sha256': r.sha256} for r in readers],
    }


def reopen(out: pathlib.Path, wanted: dict) -> store.Store:
    """Opens an existing store if it is the one that these inputs and settings would make."""
    opened = store.open_store(out)
    for part in ('tokenizer', 'settings', 'datasets', 'cleaning'):
        had = opened.manifest.get(part)
        if part == 'datasets':
            had = [{k: e[k] for k in ('name', 'source', 'sha256')} for e in had]
        if had != wanted.get(part):
            raise ValueError(
                f'{out}: this store was made with other {part}: expected {wanted.get(part)}, '
                f'got {had}; choose another --out or delete it'
            )
    return opened


def format_counts(manifest: dict) -> str:
    """Counts and truncation rates per dataset, side and language, as text."""
    lines = [f'{"dataset":<16}{"side":<11}{"language":<10}{"texts":>10}{"tokens":>12}{"cut %":>8}']
    for entry in manifest['datasets']:
        for side in ('query', 'passage'):
            for language, n in sorted(entry[side].items()):
                cut = 100 * n['truncated'] / max(n['texts'], 1)
                counts = f'{n["texts"]:>10}{n["tokens"]:>12}{cut:>8.1f}'
                lines.append(f'{entry["name"]:<16}{side:<11}{language:<10}{counts}')
        for language, n in sorted(entry['negatives'].items()):
            lines.append(f'{entry["name"]:<16}{"negatives":<11}{language or "all":<10}{n:>10}')
    return '\n'.join(lines)
