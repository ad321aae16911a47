"""Texts in, embeddings out: tokenised, sorted by length, batched, split over the devices.

    model = embed.load('DIR')
    queries = model(['What is a dual encoder?'], 'query')
    passages = model(['A dual encoder embeds ...'], 'passage')

Hides padding, batching and the order of the computation. Called by `evaluate`; a program too.
"""

import collections
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
from jaxtyping import Float

from hbt import config
from hbt.data import ragged, tokenization
from hbt.models import encoder, model_dir
from hbt.utils import files, log, sharding

CHUNK = 2**13  # texts between two saves
KINDS = ('query', 'passage')


def load_embedder(name: str, batch_size: int = 256, dtype: str = 'float32') -> abc.Callable:
    """`embed(texts, kind='') -> [n d]`, float32, from a model directory or a hub name.

    `kind`: 'query' or 'passage' puts the model's prompt of that kind before every text and cuts at
    its length; '' puts none. `batch_size` texts are encoded at a time, over all devices, in
    `dtype`. Raises ValueError for a model that hbt cannot compute and for an unknown kind.
    """
    return make_embedder(model_dir.load_model(name), batch_size, dtype)


def make_embedder(model: model_dir.Model, batch_size: int, dtype: str) -> abc.Callable:
    """As `load`, of a model that was read."""
    c = copy.deepcopy(model.config)
    c.eval.batch_size, c.encoder.dtype = batch_size, dtype
    config.check(c)
    mesh = sharding.make_mesh()
    params = jax.device_put(model.params, sharding.replicated(mesh))
    run = make_encoder(c, mesh)

    def embed(texts: abc.Sequence[str], kind: str = '') -> Float[np.ndarray, 'n d']:
        if kind not in (*KINDS, ''):
            raise ValueError(f'kind: expected {" or ".join(KINDS)} or nothing, got {kind!r}')
        if isinstance(texts, str):
            raise ValueError(f'texts: expected a list of texts, got one: {texts[:40]!r}')
        if not len(texts):
            return np.zeros((0, c.encoder.projection_dim or c.encoder.hidden_dim), np.float32)
        prefix = getattr(c.data, f'{kind}_prefix') if kind else ''
        limit = getattr(c.data, f'{kind or "passage"}_length')
        table, _ = tokenization.encode_texts(model.tokenizer, texts, prefix, limit)
        return run(params, table, kind or 'texts')

    return embed


def make_encoder(c: config.Config, mesh: jax.sharding.Mesh) -> abc.Callable:
    """`embed(params, texts, what) -> [n d]`; `what` names the progress bar."""
    split = sharding.sharded(mesh)
    encode = jax.jit(
        functools.partial(encoder.encode_padded, c=c.encoder),
        out_shardings=sharding.replicated(mesh),
    )
    size = -(-c.eval.batch_size // mesh.size) * mesh.size

    def embed(
        params: encoder.Params, texts: ragged.TokenTable, what: str
    ) -> Float[np.ndarray, 'n d']:
        count, lengths = len(texts.lengths), texts.lengths
        order = np.argsort(-lengths, kind='stable')
        out = None
        with log.progress(total=count, desc=what, unit=' texts', leave=False) as progress:
            for start in range(0, count, size):
                rows = order[start : start + size]
                width = ragged.bucket_width(int(lengths[rows].max()))
                tokens = np.full((size, width), c.encoder.pad_id, np.int32)
                tokens[: len(rows)] = ragged.pad_texts(texts, rows, width, c.encoder.pad_id, None)
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

    def blocks(done: int) -> abc.Iterator[Block]:
        return (Block(embed(texts), {}) for _, texts in chunks(source, done))

    fill(blocks, count, out, about | {'lines': count, 'sha256': digest}, source.name)
    os.replace(partial(out), out)
    progress_of(out).unlink()


class Block(typing.NamedTuple):
    """Embeddings of texts that follow each other, and what was counted in these."""

    vectors: Float[np.ndarray, 'n d']
    counts: dict[str, int]


def fill(
    blocks: abc.Callable, count: int, out: pathlib.Path | None, about: dict, what: str
) -> Block:
    """All `count` embeddings, of which `blocks(done)` yields those after the first `done`.

    They are in the file `partial(out)`, memory-mapped, or for no `out` in memory. After a kill, the
    same call goes on after the last whole block; ValueError if `about` is not what it was then.
    """
    rows, done, counts = None, 0, collections.Counter()
    if out and partial(out).exists():
        done, counts = resume(progress_of(out), about)
        if done:
            log.info(f'{out}: continuing after text {done}')
            rows = np.lib.format.open_memmap(partial(out), 'r+')
    with log.progress(total=count, initial=done, desc=what, unit=' texts') as bar:
        for vectors, counted in blocks(done) if done < count else ():
            if rows is None:
                shape = (count, vectors.shape[1])
                rows = create(partial(out), shape) if out else np.empty(shape, np.float32)
            rows[done : done + len(vectors)] = vectors
            done += len(vectors)
            counts.update(counted)
            if out:
                rows.flush()
                files.write_json(progress_of(out), about | {'done': done, 'counts': counts})
            bar.update(len(vectors))
    return Block(rows, dict(counts))


def create(file: pathlib.Path, shape: tuple[int, int]) -> np.memmap:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = np.lib.format.open_memmap(file, 'w+', np.float32, shape)
    allocate(file)
    return rows


def partial(out: pathlib.Path) -> pathlib.Path:
    return out.with_suffix('.partial.npy')


def progress_of(out: pathlib.Path) -> pathlib.Path:
    return out.with_suffix('.progress.json')


def allocate(file: pathlib.Path) -> None:
    """Takes the room of a file, else a full disk ends the process that writes to its map."""
    with file.open('r+b') as opened, files.name_in_errors(file):
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


def resume(progress: pathlib.Path, about: dict) -> tuple[int, collections.Counter]:
    """How many texts an earlier call has done, and what it counted; ValueError for other texts."""
    had = files.read_optional_json(progress)
    done, counts = had.pop('done', 0), collections.Counter(had.pop('counts', {}))
    differs = [key for key in about if had and had.get(key) != about[key]]
    if differs:
        key = differs[0]
        raise ValueError(
            f'{progress}: {key}: expected {had.get(key)!r}, with which this output began, got '
            f'{about[key]!r}; delete it to begin again'
        )
    return done, counts


def fingerprint(model: model_dir.Model) -> str:
    """Equal for two models that embed equally."""
    settings = repr((model.config.encoder, model.config.data))
    digest = hashlib.sha256(settings.encode() + model.tokenizer.to_str().encode())
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()
