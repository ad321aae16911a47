"""Embeddings in a .npy file that grows block by block, and that the same call resumes."""

import collections
import functools
import itertools
import os
import pathlib
import typing
from collections import abc

import numpy as np
from jaxtyping import Float

from hbt.data.readers import text_lines
from hbt.models import embedder, model_dir
from hbt.utils import files, log, resume

CHUNK = 2**13  # texts between two saves


class Block(typing.NamedTuple):
    """Embeddings of consecutive texts, and what was counted in these texts."""

    vectors: Float[np.ndarray, 'n d']
    counts: dict[str, int]


def embed_file(
    name: str,
    source: pathlib.Path,
    out: pathlib.Path,
    kind: str,
    batch_size: int,
    dtype: str,
    dim: int | None = None,
) -> None:
    """Embeds every line of a text file by a model directory or a hub name; see `embed_lines`.

    `dim`: see `model_dir.truncate_model`.
    """
    if out.suffix != '.npy':
        raise ValueError(f'--out: expected a name that ends with .npy, got {out}')
    with log.activity(f'{name}: loading the model'):
        model = model_dir.load_model(name, dim)
    embed = functools.partial(embedder.make_embedder(model, batch_size, dtype), kind=kind)
    settings = {'model': embedder.fingerprint(model), 'kind': kind, 'dtype': dtype}
    embed_lines(embed, source, out, settings)


def embed_lines(embed, source: pathlib.Path, out: pathlib.Path, settings: dict) -> None:
    """Embeds every line of a text file, plain or gzip, into the rows of a .npy file.

    The file appears when it is whole. Rows are saved every `CHUNK` lines; the same call resumes if
    the text file and `settings` are equal. `embed` maps texts to vectors [n d], and takes `place`
    as those of `embedder.make_embedder`. ValueError names file and line of what is no text or has
    no finite embedding, or the output that exists already.
    """
    if out.exists():
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    with log.activity(f'{source}: counting the lines'):
        count, sha256 = sum(1 for _ in text_lines.iter_lines(source)), files.sha256(source)
    if not count:
        raise ValueError(f'{source}: expected texts, one a line, got an empty file')

    def blocks(done: int) -> abc.Iterator[Block]:
        for texts in iter_text_chunks(source, done):
            first = done + 1
            yield Block(embed(texts, place=lambda i, n=first: f'{source}:{n + i}'), {})
            done += len(texts)

    settings = settings | {'lines': count, 'sha256': sha256}
    fill_embeddings(blocks, count, out, settings, source.name)
    finish_embeddings(out)
    log.info(f'{out}: {count:,} embeddings')


def finish_embeddings(out: pathlib.Path) -> None:
    """Makes the partial file of `fill_embeddings` the file `out`."""
    os.replace(_partial_path(out), out)
    record_path(out).unlink()


def iter_text_chunks(source: pathlib.Path, start: int = 0) -> abc.Iterator[list[str]]:
    """Yields the lines of a text file after the first `start`, `CHUNK` at a time."""
    lines = itertools.islice((text for _, text in text_lines.iter_lines(source)), start, None)
    while texts := list(itertools.islice(lines, CHUNK)):
        yield texts


def fill_embeddings(
    blocks: abc.Callable, count: int, out: pathlib.Path | None, settings: dict, label: str
) -> Block:
    """Collects the embeddings of `count` texts [count d], and the sums of their counts.

    Args:
      blocks: number of texts -> iterator over the blocks of the texts after these.
      out: the .npy file that the embeddings are for. They stay memory-mapped in a partial file
        beside it, from which the same call resumes after the last whole block. None: in memory.
      settings: what must be equal to resume, else ValueError.
      label: of the progress bar.
    """
    vectors, done, counts = None, 0, collections.Counter()
    if out and _partial_path(out).exists():
        state = resume.read_record(record_path(out), settings)
        done, counts = state.get('done', 0), collections.Counter(state.get('counts'))
        if done:
            log.info(f'{out}: continuing after text {done}')
            vectors = np.lib.format.open_memmap(_partial_path(out), 'r+')
    with log.progress(total=count, initial=done, desc=label, unit=' texts') as bar:
        for block in blocks(done) if done < count else ():
            size, dim = block.vectors.shape
            if vectors is None:
                vectors = _create_file(out, (count, dim)) if out else np.empty((count, dim), 'f4')
            vectors[done : done + size] = block.vectors
            done += size
            counts.update(block.counts)
            if out:
                vectors.flush()
                resume.write_record(record_path(out), settings, done=done, counts=counts)
            bar.update(size)
    return Block(vectors, dict(counts))


def record_path(out: pathlib.Path) -> pathlib.Path:
    """The JSON file that says how far the embeddings for `out` are."""
    return out.with_suffix('.progress.json')


def _partial_path(out: pathlib.Path) -> pathlib.Path:
    return out.with_suffix('.partial.npy')


def _create_file(out: pathlib.Path, shape: tuple[int, int]) -> np.memmap:
    """A memory map of the whole size, allocated: else a full disk kills the process later."""
    file = _partial_path(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(file, 'w+', np.float32, shape)
    with file.open('r+b') as opened, files.name_in_errors(file):
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return vectors
