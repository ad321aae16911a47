"""Texts in, embeddings out: tokenised, sorted by length, batched, split over the devices.

Hides padding, batching and the order of the computation. Called by `evaluate`.
"""

import functools
from collections import abc

import jax
import numpy as np
import tokenizers
from jaxtyping import Float

from hbt import config, encoder, log, sharding, store


def tokenise(
    tokenizer: tokenizers.Tokenizer, texts: abc.Sequence[str], prefix: str, limit: int
) -> store.Table:
    """Token ids of `prefix + text`; texts longer than `limit` are cut and keep their end token."""
    end = (tokenizer.encode('').ids or [None])[-1]
    encoded = tokenizer.encode_batch_fast([prefix + text for text in texts])
    cut = [store.cut(encoding.ids, limit, end) for encoding in encoded]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in cut], dtype=np.int64)])
    tokens = np.concatenate([np.asarray(ids, np.int32) for ids in cut])
    return store.Table(tokens, offsets, np.ones(len(cut), np.uint64), None)


def make(c: config.Config, mesh: jax.sharding.Mesh) -> abc.Callable:
    """`embed(params, texts, what) -> [n d]`; `what` names the progress bar."""
    split = sharding.split(mesh)
    encode = jax.jit(
        functools.partial(encoder.encode, c=c.encoder), out_shardings=sharding.replicated(mesh)
    )
    size = -(-c.eval.batch_size // mesh.size) * mesh.size

    def embed(params: encoder.Params, texts: store.Table, what: str) -> Float[np.ndarray, 'n d']:
        count = len(texts.offsets) - 1
        lengths = np.diff(texts.offsets)
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
