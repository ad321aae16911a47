"""Language taken out of embeddings, without training: centring, and removal of components (LIR).

Hides which training texts it is fitted on, the linear algebra, and the file that keeps it. What it
is fitted on comes from a store, never from a benchmark. Called by `evaluate`.
"""

import json
import os
import pathlib
import re
import typing
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tokenizers
from jaxtyping import Float

from hbt import config
from hbt.data import ragged, store, tokenizer_files
from hbt.utils import files

TEXTS = 10_000  # of a language: half of them queries, half passages
BLOCK = 2_000  # texts that are embedded at a time
KINDS = 'centre, or lir:R with R from 1 on'


class Removal(typing.NamedTuple):
    """What is taken from the embeddings of each language: a mean, and what lies in a subspace."""

    about: dict  # kind, model, store, texts of each language
    languages: list[str]
    means: Float[np.ndarray, 'c d']
    directions: Float[np.ndarray, 'c r d']  # orthonormal; of `centre` there are none


def components(kind: str) -> int:
    """How many components of a language `lir:R` removes, 0 for `centre`; else ValueError."""
    if kind == 'centre':
        return 0
    found = re.fullmatch(r'lir:([1-9]\d{0,5})', kind)
    if not found:
        raise ValueError(f'debias: expected {KINDS}, got {kind!r}')
    return int(found[1])


def fit_removal(
    kind: str, s: store.Store, data: config.Data, languages: Sequence[str], embed: Callable
) -> Removal:
    """Fits what is to be removed for each of `languages`, on texts of the store.

    `embed(table) -> [n d]`. `centre` removes the mean embedding of a language (Libovicky, Rosa and
    Fraser, 2020, arXiv 2004.05160). `lir:R` is Language Information Removal (Yang et al., EMNLP
    2021, arXiv 2109.04727): of the matrix whose rows are the embeddings of a language, not centred,
    it removes the R leading right singular vectors.
    Raises ValueError for a language with too few texts in the store, and for R from d on.
    """
    count = components(kind)
    found = [_fit(kind, count, language, s, data, embed) for language in languages]
    means, directions, texts = zip(*found, strict=True)
    about = {'kind': kind, 'texts': dict(zip(languages, texts, strict=True))}
    return Removal(about, list(languages), np.stack(means), np.stack(directions))


def _fit(kind, count: int, language: str, s: store.Store, data: config.Data, embed: Callable):
    """(mean [d], directions [r d], number of texts) of one language."""
    n, total, squares = 0, 0.0, 0.0
    for table in sample_texts(s, data, language):
        vectors = np.asarray(embed(table), np.float64)
        n += len(vectors)
        total = total + vectors.sum(axis=0)
        squares = squares + (vectors.T @ vectors if count else 0.0)
    least = max(2, count)
    if n < least:
        raise ValueError(
            f'debias: {kind} needs at least {least} texts of each language of the benchmark, got '
            f'{n} of {language!r} in {s.path}, which has {", ".join(s.languages)}'
        )
    dim = len(total)
    if count >= dim:
        raise ValueError(f'debias: lir:R: expected R below {dim}, as embeddings have, got {count}')
    if not count:
        return (total / n).astype(np.float32), np.zeros((0, dim), np.float32), n
    # Eigenvectors of the sum of outer products, which is M'M, are right singular vectors of M.
    leading = np.linalg.eigh(squares)[1][:, ::-1][:, :count].T
    return np.zeros(dim, np.float32), leading.astype(np.float32), n


def check_store(s: store.Store, data: config.Data, tokenizer: tokenizers.Tokenizer) -> None:
    """ValueError unless the tokens of a store are those that a model takes."""
    tokenizer_files.check_same_tokenizer(s.path, tokenizer, 'the model')
    for name in ('query_prefix', 'passage_prefix'):
        had, wanted = s.manifest['settings'][name], getattr(data, name)
        if had != wanted:
            raise ValueError(f'{s.path}: {name}: expected {wanted!r} of the model, got {had!r}')


def sample_texts(s: store.Store, data: config.Data, language: str) -> Iterator[ragged.TokenTable]:
    """Up to TEXTS texts of a language, the same ones each time, a block after the other.

    Queries and passages in equal number, where there are as many; each with its own prompt, cut at
    its own length. All texts of a side are equally likely, in whatever data set.
    """
    end = s.manifest['tokenizer']['end_id']
    sides = (('query', data.query_length), ('passage', data.passage_length))
    places = {side: _places(s, side, language) for side, _ in sides}
    sizes = [len(places[side]) for side, _ in sides]
    for (side, limit), other in zip(sides, sizes[::-1], strict=True):
        wanted = min(len(places[side]), max(TEXTS // 2, TEXTS - other))
        chosen = np.random.default_rng(0).choice(len(places[side]), wanted, replace=False)
        found = places[side][np.sort(chosen)]
        for number in np.unique(found[:, 0]):
            table = getattr(s.datasets[number], side)[language]
            rows = found[found[:, 0] == number, 1]
            for start in range(0, len(rows), BLOCK):
                some = rows[start : start + BLOCK]
                yield ragged.truncate_texts(table, some, limit, end)


def _places(s: store.Store, side: str, language: str) -> np.ndarray:
    """Every text of a side in a language, as (number of the data set, row)."""
    parts = [np.zeros((0, 2), np.int64)]
    for number, dataset in enumerate(s.datasets):
        if language in getattr(dataset, side):
            rows = np.flatnonzero(getattr(dataset, side)[language].lengths)
            parts.append(np.stack([np.full(len(rows), number), rows], axis=1))
    return np.concatenate(parts)


def apply_removal(
    removal: Removal, vectors: Float[np.ndarray, 'n d'], languages: Sequence[str], unit: bool
) -> Float[np.ndarray, 'n d']:
    """Embeddings without their language; again of unit length where they were (`unit`).

    ValueError for a language that nothing was fitted for.
    """
    if vectors.shape[1] != removal.means.shape[1]:
        raise ValueError(
            f'debias: expected embeddings of {removal.means.shape[1]} numbers, as it was fitted '
            f'on, got {vectors.shape[1]}'
        )
    out = np.array(vectors, np.float32)
    named = np.asarray(languages)
    for language in np.unique(named):
        if language not in removal.languages:
            raise ValueError(
                f'debias: expected texts in {", ".join(removal.languages)}, for which it was '
                f'fitted, got {str(language)!r}'
            )
        code, rows = removal.languages.index(language), named == language
        centred, basis = out[rows] - removal.means[code], removal.directions[code]
        out[rows] = centred - (centred @ basis.T) @ basis
    if unit:
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out


def save_removal(removal: Removal, path: pathlib.Path) -> None:
    """Writes a .npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    with partial.open('wb') as file:
        about = json.dumps(removal.about, ensure_ascii=False)
        np.savez(file, **removal._replace(about=about)._asdict())
    os.replace(partial, path)


def load_removal(path: pathlib.Path) -> Removal:
    """Reads what `save` wrote; ValueError for another file."""
    try:
        with np.load(path) as arrays:
            found = Removal(**arrays)
        about = json.loads(str(found.about))
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise files.format_error(path, 'what hbt.evaluate --debias wrote', error) from error
    return found._replace(about=about, languages=found.languages.tolist())
