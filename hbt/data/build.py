"""From sources of texts to a store of tokens: reads, cleans, tokenises and writes."""

import os
import pathlib
from collections import abc

import tokenizers

from hbt import config
from hbt.data import apache_beam, store, store_writer, tokenization, tokenizer_files, workers
from hbt.data.curation import checks, cleaning, hold_out
from hbt.data.readers import registry, schema
from hbt.utils import files, hub, log, resume, text_table


def build_store(
    data: config.Data,
    out: str | os.PathLike,
    inputs: abc.Sequence[str],
    processes: int = 1,
    method: str = 'forkserver',
    cleaning_config: checks.CleaningConfig | None = None,
    benchmark_texts: abc.Callable | None = None,
    beam_options: str = '',
    held_out: hold_out.Settings | None = None,
) -> store.Store:
    """Writes the store `out`, whole or not at all, and opens it.

    The same call resumes one that was interrupted, and opens a store that is whole as it is.

    Args:
      data: prefixes, lengths, and the tokenizer; train:SIZE trains one on all texts.
      inputs: sources, as `registry.open_sources` takes them.
      processes: that tokenise, or tasks of Apache Beam; 0: a number that fits.
      method: of starting them; see `workers`.
      cleaning_config: which flaws of the texts are reported or dropped.
      benchmark_texts: function from `cleaning_config.leakage` to (id, text).
      beam_options: of Apache Beam, in place of processes here.
      held_out: the groups to leave out, and to write beside the store.

    Raises:
      ValueError: a bad group, another store in `out`, no tokenizer, or texts of benchmarks.
    """
    out, cleaning_config = pathlib.Path(out), cleaning_config or checks.CleaningConfig()
    with log.activity('reading the inputs'):
        sources = registry.open_sources(inputs)
    tokenizer = _load_tokenizer(data, sources)
    manifest = _describe_store(data, tokenizer, sources, checks.changed_settings(cleaning_config))
    manifest |= {'hold_out': held_out._asdict()} if held_out else {}
    if not files.is_free(out):
        return _reopen_store(out, manifest)
    partial = resume.open_folder(out, manifest, restart=True)
    file = str(partial / 'tokenizer.json')
    tokenizer.save(file)
    tokenization.cache_tokenizer(file, tokenizer)  # before processes are forked
    if beam_options:
        runner = apache_beam.open_runner(beam_options, partial, processes)
    else:
        runner = workers.start_workers(processes, sum(x.num_bytes for x in sources), method)
    with files.name_in_errors(partial), runner as run_blocks:
        if 'cleaning' in manifest:
            sources, counts = cleaning.clean_sources(
                sources, cleaning_config, benchmark_texts, partial, run_blocks
            )
            for entry in manifest['datasets']:
                entry['cleaning'] = counts[entry['name']]
        if held_out:
            sources, counts = hold_out.hold_out_groups(sources, held_out, out, partial, run_blocks)
            manifest['hold_out'] |= {'counts': counts}
        _write_store(partial, manifest, sources, run_blocks)
    resume.finish_folder(out)
    return store.open_store(out)


def _write_store(folder: pathlib.Path, manifest: dict, sources, run_blocks: abc.Callable) -> None:
    """Writes the datasets, and the manifest, to which their counts are added."""
    dtype, tokenizer_file = manifest['tokenizer']['dtype'], str(folder / 'tokenizer.json')
    encoding = tokenization.Config(tokenizer_file, manifest['settings'], dtype)
    for entry, source in zip(manifest['datasets'], sources, strict=True):
        write = _WRITERS[type(source)]
        entry.update(write(folder / entry['name'], source, run_blocks, encoding))
    with log.activity('finding copies of texts, and checksums of files'):
        store_writer.write_clusters(folder, manifest['datasets'], dtype)
        manifest['files'] = store.describe_files(folder, '*')
    files.write_json(folder / 'manifest.json', store.add_checksum(manifest))


def _load_tokenizer(data: config.Data, sources) -> tokenizers.Tokenizer:
    if data.tokenizer.startswith('train:'):
        with log.activity('training the tokenizer'):
            return tokenizer_files.train_tokenizer(
                data.tokenizer, lambda: _iter_texts(data, sources)
            )
    return tokenizer_files.load_tokenizer(hub.snapshot(data.tokenizer, tokenizer_files.PATTERNS))


def _iter_texts(data: config.Data, sources) -> abc.Iterator[str]:
    """All texts of the sources, with their prefixes; negatives are passages."""
    prefixes = {'query': data.query_prefix}
    prefixes['passage'] = prefixes['negatives'] = data.passage_prefix
    for source in sources:
        if isinstance(source, schema.GroupSource):
            for group in source.iter_groups():
                yield from (prefixes[side] + text for side, _, text in checks.iter_texts(group))
            continue
        for (side, _), reader in sorted(source.texts.items()):
            for block in reader.blocks():
                yield from (prefixes[side] + x.text for x in reader.parse(block))


def _describe_store(data: config.Data, tokenizer, sources, cleaning_settings: dict) -> dict:
    """The manifest as far as it is known before anything is read; it identifies the store."""
    vocab_size = tokenizer_files.vocab_size(tokenizer)
    settings = ('query_prefix', 'passage_prefix', 'query_length', 'passage_length')
    manifest = {
        'version': store.VERSION,
        'tokenizer': {
            'sha256': files.sha256_of_text(tokenizer.to_str()),
            'vocab_size': vocab_size,
            'pad_id': tokenizer_files.padding_id(tokenizer),
            'end_id': tokenizer_files.end_id(tokenizer),
            'dtype': 'uint16' if vocab_size <= 2**16 else 'uint32',
        },
        'settings': {name: getattr(data, name) for name in settings},
        'clusters': store.CLUSTERS,
        'datasets': [{'name': x.name, 'source': x.spec, 'sha256': x.sha256} for x in sources],
    }
    return manifest | ({'cleaning': cleaning_settings} if cleaning_settings else {})


def _reopen_store(out: pathlib.Path, expected: dict) -> store.Store:
    """Opens an existing store; ValueError if these sources and settings make another."""
    opened = store.open_store(out)
    for part in ('tokenizer', 'settings', 'datasets', 'cleaning', 'hold_out'):
        stored = opened.manifest.get(part)
        if part == 'hold_out' and stored:
            stored = {key: x for key, x in stored.items() if key != 'counts'}
        if part == 'datasets':
            stored = [{key: x[key] for key in ('name', 'source', 'sha256')} for x in stored]
        if stored != expected.get(part):
            raise ValueError(
                f'{out}: this store was made with other {part}: expected {expected.get(part)}, '
                f'got {stored}; choose another --out or delete it'
            )
    return opened


def format_counts(manifest: dict) -> str:
    """Counts and truncation rates per dataset, side and language, as a table."""
    rows = []
    for entry in manifest['datasets']:
        for side in store.SIDES:
            for language, count in sorted(entry[side].items()):
                truncated = f'{100 * count["truncated"] / max(count["texts"], 1):.1f}'
                counts = count['texts'], count['tokens'], truncated
                rows.append((entry['name'], side, language, *counts))
        for language, count in sorted(entry['negatives'].items()):
            rows.append((entry['name'], 'negatives', language or 'all', count))
        for what, count in entry.get('left_out', {}).items():
            rows += [(entry['name'], f'{what} left out', 'all', count)] if count else []
    header = ('dataset', 'side', 'language', 'texts', 'tokens', 'truncated %')
    return text_table.format_table(header, rows)


def describe_store(s: store.Store) -> str:
    """A line that names a store and says how much it holds."""
    groups = sum(x.num_groups for x in s.datasets)
    return f'{s.path}: {groups:,} groups in {len(s.languages)} languages'


_WRITERS = {
    schema.GroupSource: store_writer.write_groups,
    schema.CollectionSource: store_writer.write_collection,
}
