"""Texts in, embeddings out: tokenised, sorted by length, batched, split over the devices.

    model = embed.load('DIR')
    queries = model(['What is a dual encoder?'], 'query')
    passages = model(['A dual encoder embeds ...'], 'passage')

Hides padding, batching and the order of the computation. Called by `evaluate`; a program too.
"""

import contextlib
import copy
import functools
import gzip
import hashlib
import os
import pathlib
import typing
import zlib
from collections import abc

import jax
import numpy as np
import tokenizers
from absl import flags
from jaxtyping import Float

from hbt import config, encoder, files, log, pipeline, sharding, store

CHUNK = 50_000  # texts between two saves
KINDS = ('query', 'passage')


def load(name: str, batch_size: int = 256, dtype: str = 'float32') -> abc.Callable:
    """`embed(texts, kind='') -> [n d]`, float32, from a model directory or a hub name.

    `kind`: 'query' or 'passage' puts the model's prompt of that kind before every text and cuts at
    its length; '' puts none. `batch_size` texts are encoded at a time, over all devices, in
    `dtype`. Raises ValueError for a model that hbt cannot compute and for an unknown kind.
    """
    return start(pipeline.read(name), batch_size, dtype)


def start(model: pipeline.Model, batch_size: int, dtype: str) -> abc.Callable:
    """As `load`, of a model that was read."""
    c = copy.deepcopy(model.config)
    c.eval.batch_size, c.encoder.dtype = batch_size, dtype
    config.check(c)
    mesh = sharding.make_mesh()
    params = jax.device_put(model.params, sharding.replicated(mesh))
    run = make(c, mesh)

    def embed(texts: abc.Sequence[str], kind: str = '') -> Float[np.ndarray, 'n d']:
        if kind not in (*KINDS, ''):
            raise ValueError(f'kind: expected {" or ".join(KINDS)} or nothing, got {kind!r}')
        if isinstance(texts, str):
            raise ValueError(f'texts: expected a list of texts, got one: {texts[:40]!r}')
        if not len(texts):
            return np.zeros((0, c.encoder.head or c.encoder.dim), np.float32)
        prefix = getattr(c.data, f'{kind}_prefix') if kind else ''
        limit = getattr(c.data, f'{kind or "passage"}_length')
        return run(params, tokenise(model.tokenizer, texts, prefix, limit), kind or 'texts')

    return embed


def tokenise(
    tokenizer: tokenizers.Tokenizer, texts: abc.Sequence[str], prefix: str, limit: int
) -> store.Table:
    """Token ids of `prefix + text`; texts longer than `limit` are cut and keep their end token."""
    end = (tokenizer.encode('').ids or [None])[-1]
    encoded = tokenizer.encode_batch_fast([prefix + text for text in texts])
    cut = [store.cut(encoding.ids, limit, end) for encoding in encoded]
    lengths = np.fromiter(map(len, cut), np.int32, len(cut))
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    tokens = np.concatenate([np.asarray(ids, np.int32) for ids in cut])
    return store.Table(tokens, starts, lengths, np.ones(len(cut), np.uint64))


def make(c: config.Config, mesh: jax.sharding.Mesh) -> abc.Callable:
    """`embed(params, texts, what) -> [n d]`; `what` names the progress bar."""
    split = sharding.split(mesh)
    encode = jax.jit(
        functools.partial(encoder.encode, c=c.encoder), out_shardings=sharding.replicated(mesh)
    )
    size = -(-c.eval.batch_size // mesh.size) * mesh.size

    def embed(params: encoder.Params, texts: store.Table, what: str) -> Float[np.ndarray, 'n d']:
        count, lengths = len(texts.lengths), texts.lengths
        order = np.argsort(-lengths, kind='stable')
        out = None
        with log.progress(total=count, desc=what, unit=' texts', leave=False) as progress:
            for start in range(0, count, size):
                rows = order[start : start + size]
                width = store.bucket(int(lengths[rows].max()))
                tokens = np.full((size, width), c.encoder.pad_id, np.int32)
                tokens[: len(rows)] = store.gather(texts, rows, width, c.encoder.pad_id, None)
                batch = jax.make_array_from_callback(tokens.shape, split, tokens.__getitem__)
                vectors = np.asarray(encode(params, batch))
                if out is None:
                    out = np.empty((count, vectors.shape[1]), vectors.dtype)
                out[rows] = vectors[: len(rows)]
                progress.update(len(rows))
        return out

    return embed


class Input(typing.NamedTuple):
    """A file of texts, one a line."""

    lines: int
    sha256: str


def write(embed: abc.Callable, source: pathlib.Path, out: pathlib.Path, about: dict) -> None:
    """Embeds every line of `source` into the rows of `out`, a .npy file, whole or not at all.

    What is done is saved every CHUNK lines, and the same call goes on from there after a kill;
    `about` is what must be the same for that, next to the input. Raises ValueError naming the file
    and line of what is no text.
    """
    if out.exists():
        raise ValueError(f'{out}: expected nothing there yet, got a file')
    count, digest = measure(source)
    about = about | {'lines': count, 'sha256': digest}
    partial, progress = out.with_suffix('.partial.npy'), out.with_suffix('.progress.json')
    done = resume(progress, about) if partial.exists() else 0
    rows = None
    if done:
        log.say(f'{out}: continuing after line {done}')
        rows = np.lib.format.open_memmap(partial, 'r+')
    with log.progress(total=count, initial=done, desc=source.name, unit=' texts') as bar:
        for start, texts in chunks(source, done):
            vectors = embed(texts)
            if rows is None:
                shape = (count, vectors.shape[1])
                rows = np.lib.format.open_memmap(partial, 'w+', np.float32, shape)
                allocate(partial)
            rows[start : start + len(texts)] = vectors
            rows.flush()
            files.write_json(progress, about | {'done': start + len(texts)})
            bar.update(len(texts))
    os.replace(partial, out)
    progress.unlink()


def allocate(file: pathlib.Path) -> None:
    """Takes the room of a file, else a full disk ends the process that writes to its map."""
    with file.open('r+b') as opened, files.writing(file):
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def measure(source: pathlib.Path) -> Input:
    """Counts the lines of a file; ValueError if there are none."""
    digest = hashlib.sha256()
    count = 0
    for line in read_lines(source):
        digest.update(line)
        count += 1
    if not count:
        raise ValueError(f'{source}: expected texts, one a line, got an empty file')
    return Input(count, digest.hexdigest())


def chunks(source: pathlib.Path, done: int) -> abc.Iterator[tuple[int, list[str]]]:
    """Yields (line before the first, texts) of what is left after `done` lines."""
    start, texts = done, []
    for number, line in enumerate(read_lines(source)):
        if number < done:
            continue
        try:
            texts.append(line.rstrip(b'\r\n').decode())
        except UnicodeDecodeError as error:
            raise ValueError(f'{source}:{number + 1}: expected UTF-8, got {error}') from None
        if len(texts) == CHUNK:
            yield start, texts
            start, texts = number + 1, []
    if texts:
        yield start, texts


def read_lines(source: pathlib.Path) -> abc.Iterator[bytes]:
    """Lines of a file, plain or gzip."""
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(source.open('rb'))
        is_gzip = raw.read(2) == b'\x1f\x8b'
        raw.seek(0)
        number = 0
        try:
            for line in gzip.open(raw) if is_gzip else raw:
                number += 1
                yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            place = f'{source}:{number + 1}'
            raise ValueError(f'{place}: expected a whole gzip file, got {error}') from None


def resume(progress: pathlib.Path, about: dict) -> int:
    """Lines that an earlier call has done; ValueError if it was given something else."""
    had = pipeline.optional(progress)
    done = had.pop('done', 0)
    differs = [key for key in about if had and had.get(key) != about[key]]
    if differs:
        key = differs[0]
        raise ValueError(
            f'{progress}: {key}: expected {had.get(key)!r}, with which this output began, got '
            f'{about[key]!r}; delete it to begin again'
        )
    return done


def fingerprint(model: pipeline.Model) -> str:
    """Equal for two models that embed equally."""
    digest = hashlib.sha256(repr(model.config).encode() + model.tokenizer.to_str().encode())
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def main(_) -> None:
    given = flags.FLAGS
    out = pathlib.Path(given.out)
    if out.suffix != '.npy':
        raise ValueError(f'--out: expected a name that ends with .npy, got {given.out}')
    model = pipeline.read(given.model)
    embed = start(model, given.batch_size, given.dtype)
    about = {'model': fingerprint(model), 'kind': given.kind, 'dtype': given.dtype}
    write(functools.partial(embed, kind=given.kind), pathlib.Path(given.input), out, about)


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory or hub name')
    flags.DEFINE_string('input', None, 'file of texts, one a line, plain or gzip')
    flags.DEFINE_string('out', None, '.npy file; row i is the embedding of line i')
    flags.DEFINE_enum('kind', '', ['', *KINDS], "whose prompt goes before every text, if any's")
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.DEFINE_string('dtype', 'float32', 'type of the computation')
    flags.mark_flags_as_required(['model', 'input', 'out'])
    log.program(main)
