"""Removes language from embeddings, by a fit on a store, never on a benchmark: centring, or LIR."""

import functools
import json
import pathlib
import re
import typing
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tokenizers
from jaxtyping import Float

from hbt import config
from hbt.data import ragged, store, tokenizer_files
from hbt.models import embedder, model_dir
from hbt.utils import files, log, sharding

FORMAT = 2  # of debias.npz; 1 named the manifest `about`
TEXTS = 10_000  # of a language: half of them queries, half passages
BLOCK = 2_000  # texts that are embedded at a time
KINDS = 'centre, or lir:R with R from 1 on'


class Removal(typing.NamedTuple):
    """What is removed from the embeddings of each language: a mean, and a subspace."""

    manifest: dict  # kind, model, store, texts of each language
    languages: list[str]
    means: Float[np.ndarray, 'c d']
    directions: Float[np.ndarray, 'c r d']  # orthonormal; none for `centre`


def open_removal(
    kind: str,
    model: model_dir.Model,
    languages: Sequence[str],
    root: str | pathlib.Path,
    folder: pathlib.Path,
) -> Removal:
    """What is removed from a model's embeddings: fitted on the store `root`, or read from a file.

    `kind` is `centre` or `lir:R`, or the debias.npz of an earlier call. A fit is saved in `folder`;
    one that is there for this model, store and `languages` is read instead.
    """
    fingerprint = embedder.fingerprint(model)
    if kind.endswith('.npz'):
        return load_removal_of(fingerprint, pathlib.Path(kind))
    texts = store.open_store(root)
    source = {'kind': kind, 'store': texts.manifest['checksum'], 'model': fingerprint}
    path = folder / 'debias.npz'
    if path.exists():  # of a call that was killed, or of one for other benchmarks
        removal = load_removal(path)
        if source.items() <= removal.manifest.items() and {*languages} <= {*removal.languages}:
            return removal
    _check_store(texts, model.config.data, model.tokenizer)
    embed_table = embedder.make_table_embedder(model.config, sharding.make_mesh())
    embed = functools.partial(embed_table, model.params, label='training texts')
    removal = fit_removal(kind, texts, model.config.data, languages, embed)
    removal.manifest.update(source)
    save_removal(removal, path)
    log.info(f'{path}: what is removed from the embeddings of {len(languages)} languages')
    return removal


def fit_removal(
    kind: str, s: store.Store, data: config.Data, languages: Sequence[str], embed: Callable
) -> Removal:
    """Fits what is to be removed for each of the languages, on texts of the store.

    `centre` removes the mean embedding of a language (Libovicky, Rosa and Fraser, 2020, arXiv
    2004.05160). `lir:R` is Language Information Removal (Yang et al., EMNLP 2021, arXiv
    2109.04727): it removes the R leading right singular vectors of the matrix whose rows are the
    embeddings of a language, not centred.

    Texts are truncated at the lengths of `data`; `embed` is TokenTable -> [n d].
    Raises ValueError for too few texts in a language, and for R that is not below d.
    """
    match = re.fullmatch(r'centre|lir:([1-9]\d{0,5})', kind)
    if not match:
        raise ValueError(f'debias: expected {KINDS}, got {kind!r}')
    count = int(match[1] or 0)
    fits = [_fit_language(kind, count, language, s, data, embed) for language in languages]
    means, directions, texts = zip(*fits, strict=True)
    manifest = {'kind': kind, 'texts': dict(zip(languages, texts, strict=True))}
    return Removal(manifest, list(languages), np.stack(means), np.stack(directions))


def _fit_language(kind: str, count: int, language: str, s: store.Store, data, embed) -> tuple:
    """(mean [d], directions [r d], number of texts) of one language."""
    n, total, squares = 0, 0.0, 0.0
    for table in _sample_texts(s, data, language):
        vectors = np.asarray(embed(table), np.float64)
        n += len(vectors)
        total = total + vectors.sum(axis=0)
        squares = squares + (vectors.T @ vectors if count else 0.0)
    if n < max(2, count):
        raise ValueError(
            f'debias: {kind} needs at least {max(2, count)} texts of each language of the '
            f'benchmark, got {n} of {language!r} in {s.path}, which has {", ".join(s.languages)}'
        )
    dim = len(total)
    if count >= dim:
        raise ValueError(f'debias: lir:R: expected R below {dim}, as embeddings have, got {count}')
    if not count:
        return (total / n).astype(np.float32), np.zeros((0, dim), np.float32), n
    # Eigenvectors of the sum of outer products, which is M'M, are right singular vectors of M.
    leading = np.linalg.eigh(squares)[1][:, ::-1][:, :count].T
    return np.zeros(dim, np.float32), leading.astype(np.float32), n


def _check_store(s: store.Store, data: config.Data, tokenizer: tokenizers.Tokenizer) -> None:
    """ValueError unless the tokens of a store are those that a model takes."""
    tokenizer_files.check_same_tokenizer(s.path, tokenizer, 'the model')
    for name in ('query_prefix', 'passage_prefix'):
        model, prefix = getattr(data, name), s.manifest['settings'][name]
        if prefix != model:
            raise ValueError(f'{s.path}: {name}: expected {model!r} of the model, got {prefix!r}')


def _sample_texts(s: store.Store, data: config.Data, language: str) -> Iterator[ragged.TokenTable]:
    """Yields blocks of up to TEXTS texts of a language, the same ones each time.

    As many queries as passages, where there are as many, truncated at their lengths; all texts of a
    side are equally likely.
    """
    end = s.manifest['tokenizer']['end_id']
    limits = {'query': data.query_length, 'passage': data.passage_length}
    tables = {
        side: [getattr(x, side)[language] for x in s.datasets if language in getattr(x, side)]
        for side in limits
    }
    rows = {side: [np.flatnonzero(x.lengths) for x in tables[side]] for side in limits}
    totals = {side: sum(map(len, rows[side])) for side in limits}
    for side, other in (('query', 'passage'), ('passage', 'query')):
        count = min(totals[side], max(TEXTS // 2, TEXTS - totals[other]))
        chosen = np.sort(np.random.default_rng(0).choice(totals[side], count, replace=False))
        for table, texts in zip(tables[side], rows[side], strict=True):
            sample = texts[chosen[chosen < len(texts)]]
            chosen = chosen[chosen >= len(texts)] - len(texts)
            for start in range(0, len(sample), BLOCK):
                yield ragged.truncate_texts(table, sample[start : start + BLOCK], limits[side], end)


def apply_removal(
    removal: Removal, vectors: Float[np.ndarray, 'n d'], languages: Sequence[str], normalise: bool
) -> Float[np.ndarray, 'n d']:
    """Embeddings without language, of unit length if `normalise`; ValueError for a wrong fit."""
    expected, dim = removal.means.shape[1], vectors.shape[1]
    if dim != expected:
        raise ValueError(
            f'debias: expected embeddings of {expected} numbers, as it was fitted on, got {dim}'
        )
    out, codes = np.array(vectors, np.float32), np.asarray(languages)
    for language in np.unique(codes).tolist():
        if language not in removal.languages:
            fitted = ', '.join(removal.languages)
            raise ValueError(
                f'debias: expected texts in {fitted}, for which it was fitted, got {language!r}'
            )
        index, rows = removal.languages.index(language), codes == language
        centred, basis = out[rows] - removal.means[index], removal.directions[index]
        out[rows] = centred - (centred @ basis.T) @ basis
    if normalise:
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out


def save_removal(removal: Removal, path: pathlib.Path) -> None:
    """Writes a .npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps(removal.manifest, ensure_ascii=False)
    with files.atomic(path, 'wb') as file:
        np.savez(file, format=FORMAT, **removal._replace(manifest=manifest)._asdict())


def load_removal_of(fingerprint: str, path: pathlib.Path) -> Removal:
    """As `load_removal`; ValueError unless it was fitted for the model of this fingerprint."""
    removal = load_removal(path)
    if removal.manifest['model'] != fingerprint:
        raise ValueError(f'{path}: expected a fit for this model, got one for another')
    return removal


def load_removal(path: pathlib.Path) -> Removal:
    """Reads what `save_removal` wrote; ValueError for another file, and for an older format."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        version = int(arrays.pop('format', 1))
        if version == FORMAT:
            manifest = json.loads(str(arrays.pop('manifest')))
            return Removal(manifest, arrays.pop('languages').tolist(), **arrays)
    except Exception as error:  # neither zipfile nor zlib promises anything more special
        raise files.format_error(path, 'what hbt.evaluate --debias wrote', error) from error
    raise ValueError(f'{path}: expected format {FORMAT}, got {version}; delete it and fit again')
