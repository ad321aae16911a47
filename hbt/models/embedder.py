"""Texts in, embeddings out: tokenised, sorted by length, batched, split over the devices."""

import copy
import dataclasses
import functools
import hashlib
import reprlib
from collections import abc

import jax
import numpy as np
from jaxtyping import Float

from hbt import config
from hbt.data import ragged, tokenization
from hbt.data.readers import schema
from hbt.models import encoder, model_dir
from hbt.utils import log, sharding

Place = abc.Callable[[int], str]  # index of a text -> its name in errors
# Kind of a text -> whose prompt and length it gets; `document` is sentence-transformers' word.
KINDS = {'': 'passage', 'query': 'query', 'passage': 'passage', 'document': 'passage'}


def make_embedder(model: model_dir.Model, batch_size: int, dtype: str) -> abc.Callable:
    """Compiles a function that embeds texts by a model in memory.

    Args:
      model: its parameters may be on the host or on the devices.
      batch_size: texts encoded at a time, over all devices.
      dtype: type of the computation.

    Returns:
      `embed(texts, kind='', place='texts[{}]'.format, progress=True) -> [n d]`, float32. The kind
      query, passage or document (the same as passage) puts the model's prompt before every text and
      cuts at its length; '' has no prompt.

    Raises:
      ValueError: `embed` raises it for an unknown kind, and at `place(i)` for what is no text, or
        has an embedding that is not finite.
    """
    c = copy.deepcopy(model.config)
    c.eval.batch_size, c.encoder.dtype = batch_size, dtype
    config.check(c)
    mesh = sharding.make_mesh()
    params = jax.device_put(model.params, sharding.replicated(mesh))
    embed_table = make_table_embedder(c, mesh)

    def embed(
        texts, kind: str = '', place: Place = 'texts[{}]'.format, progress: bool = True
    ) -> Float[np.ndarray, 'n d']:
        if kind not in KINDS:
            expected = ', '.join(filter(None, KINDS))
            raise ValueError(f'kind: expected {expected} or nothing, got {kind!r}')
        texts = _check_texts(texts, place)
        if not texts:
            return np.zeros((0, c.encoder.embedding_dim), np.float32)
        prefix = getattr(c.data, f'{KINDS[kind]}_prefix') if kind else ''
        limit = getattr(c.data, f'{KINDS[kind]}_length')
        table, _ = tokenization.encode_texts(model.tokenizer, texts, prefix, limit)
        return embed_table(params, table, (kind or 'texts') if progress else '', place)

    return embed


def _check_texts(texts, place: Place) -> list[str]:
    """The texts as a list; ValueError unless they are texts that UTF-8 can hold."""
    is_list = isinstance(texts, abc.Iterable)
    if not is_list or isinstance(texts, (str, bytes, abc.Mapping, abc.Set)):
        got = f'one: {texts[:40]!r}' if isinstance(texts, str) else type(texts).__name__
        raise ValueError(f'texts: expected a list of texts, got {got}')
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f'{place(i)}: expected a text, got {reprlib.repr(text)}')
        if schema.SURROGATE.search(text):
            raise ValueError(f'{place(i)}: expected Unicode text, got a lone surrogate')
    return texts


def make_table_embedder(c: config.Config, mesh: jax.sharding.Mesh) -> abc.Callable:
    """Returns `embed(params, table, label, place) -> [n d]`: embeddings of a table of tokens.

    `eval.batch_size` texts at a time, the longest first; `label` is that of the progress bar, and
    without one there is no bar. ValueError where an embedding is not finite, at `place(i)`, or else
    at `label[i]`.
    """
    encode = make_encoder(c, mesh)
    split = sharding.sharded(mesh)
    size = -(-c.eval.batch_size // mesh.size) * mesh.size
    compiled = set()

    def embed(
        params, table: ragged.TokenTable, label: str, place: Place | None = None
    ) -> Float[np.ndarray, 'n d']:
        count, order, out = len(table.lengths), np.argsort(-table.lengths, kind='stable'), None
        options = {'total': count, 'desc': label, 'unit': ' texts', 'leave': False}
        widths = [ragged.bucket_width(int(n)) for n in table.lengths[order[::size]]]
        with log.progress(bool(label), **options) as bar:
            for start, width in zip(range(0, count, size), widths, strict=True):
                batch = order[start : start + size]
                tokens = np.full((size, width), c.encoder.pad_id, np.int32)
                tokens[: len(batch)] = ragged.pad_texts(table, batch, width, c.encoder.pad_id, None)
                lengths = np.zeros(size, np.int32)
                lengths[: len(batch)] = table.lengths[batch]
                sharded = [
                    jax.make_array_from_callback(x.shape, split, x.__getitem__)
                    for x in (tokens, lengths)
                ]
                text = f'the encoder for {size} texts of {width}'
                with log.compiling(text, width, compiled, widths, bool(label)):
                    vectors = np.asarray(encode(params, *sharded))[: len(batch)]
                if out is None:
                    out = np.empty((count, vectors.shape[1]), vectors.dtype)
                is_finite = np.isfinite(vectors).all(1)
                if not is_finite.all():
                    first = int(batch[~is_finite].min())
                    where = place(first) if place else f'{label}[{first}]'
                    raise ValueError(f'{where}: expected a finite embedding, got NaN or infinity')
                out[batch] = vectors
                bar.update(len(batch))
        return out

    return embed


def make_encoder(c: config.Config, mesh: jax.sharding.Mesh) -> abc.Callable:
    """Returns `encode(params, tokens [n w], lengths [n]) -> [n d]`, compiled.

    n is divided over the devices; see `encoder.encode_padded`.
    """
    platform = sharding.platform(mesh)
    # Nothing is stored for a gradient, so that a loop costs a TPU nothing, and compiles faster.
    settings = dataclasses.replace(c.encoder, unroll=c.encoder.unroll and platform == 'cpu')
    encode = functools.partial(encoder.encode_padded, c=settings, platform=platform)
    split = sharding.sharded(mesh).spec
    mapped = jax.shard_map(encode, mesh=mesh, in_specs=(jax.P(), split, split), out_specs=split)
    return jax.jit(mapped, out_shardings=sharding.replicated(mesh))


def fingerprint(model: model_dir.Model) -> str:
    """A checksum that is equal for two models that embed equally."""
    settings = repr((model.config.encoder, model.config.data))
    digest = hashlib.sha256(settings.encode() + model.tokenizer.to_str().encode())
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()
