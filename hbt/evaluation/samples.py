"""A small sample of the embeddings of a benchmark, kept beside its result, to look at the space.

It has the same questions in every language, as far as these are translations, and answers to them.
"""

import pathlib
import typing
from collections import abc

import numpy as np
from jaxtyping import Bool, Float, Int

from hbt.evaluation import benchmarks
from hbt.utils import files

FORMAT = 1
TEXTS = 100  # questions, and answers, of a language, at most


class Sample(typing.NamedTuple):
    """Embeddings of some queries and documents; its fields are the arrays of the file."""

    vectors: Float[np.ndarray, 'n d']  # float32
    ids: list[str]
    languages: list[str]  # of each text
    is_document: Bool[np.ndarray, ' n']


def draw_sample(
    benchmark: benchmarks.Benchmark,
    groups: Int[np.ndarray, ' q'],
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
) -> Sample | None:
    """The embeddings of up to TEXTS queries of each language and as many of their documents.

    A pure function of the benchmark, so that the samples of two models have the same texts.
    `groups` is equal for translations, of which a question has all or none, as far as the sizes of
    the languages are equal. None for a benchmark of one language.
    """
    if len(benchmark.languages) < 2:
        return None
    groups = np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(groups.max() + 1)[groups]
    rows = np.argsort(order, kind='stable')
    rows = rows[_count_before(benchmark.query_languages[rows]) < TEXTS]
    relevant = benchmark.relevant[rows].ravel()
    columns, first = np.unique(relevant[relevant >= 0], return_index=True)
    columns = columns[np.argsort(first)]
    columns = columns[_count_before(benchmark.document_languages[columns]) < TEXTS]
    sides = (benchmark.queries, rows), (benchmark.documents, columns)
    return Sample(
        np.concatenate([queries[rows], documents[columns]]).astype(np.float32),
        [side.ids[i] for side, indices in sides for i in indices],
        [side.languages[i] for side, indices in sides for i in indices],
        np.arange(len(rows) + len(columns)) >= len(rows),
    )


def _count_before(codes: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
    """How many equal codes stand before each."""
    order = np.argsort(codes, kind='stable')
    starts = np.searchsorted(codes[order], codes[order])
    counts = np.empty(len(codes), int)
    counts[order] = np.arange(len(codes)) - starts
    return counts


def language_share(vectors: Float[np.ndarray, 'n d'], languages: abc.Sequence[str]) -> float:
    """The share of the variance of embeddings that their languages explain.

    The sum of squares between languages over the total sum of squares, in all dimensions
    (eta squared of a one-way analysis of variance): with x_i the embeddings, m their mean, and m_l
    the mean of the n_l embeddings of language l,

        sum_l n_l |m_l - m|^2 / sum_i |x_i - m|^2.

    0: all languages have one mean; 1: a text's language determines its embedding. Of vectors
    without any language in them, (languages - 1) / (n - 1) is expected. NaN where all are equal.
    """
    codes = np.unique(np.array(languages), return_inverse=True)[1]
    centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
    sums = np.zeros((codes.max() + 1, centred.shape[1]))
    np.add.at(sums, codes, centred)
    between = (sums**2).sum(axis=1) @ (1 / np.bincount(codes))
    total = (centred**2).sum()
    return float(between / total) if total else float('nan')


def project_samples(sets: abc.Sequence[Float[np.ndarray, 'n d']]) -> list:
    """Sets of embeddings on one plane: the first two principal components of their union.

    Each set is centred and scaled to unit variance before: training changes the mean and the spread
    of embeddings, which would hide what is in them. Returns, for each set, points [n 2] and the
    share of its variance that the plane shows.
    """
    scaled = []
    for vectors in sets:
        centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
        scaled.append(centred / (np.sqrt((centred**2).sum(axis=1).mean()) or 1))
    axes = np.linalg.eigh(sum(x.T @ x for x in scaled))[1][:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return [(x @ axes, float(((x @ axes) ** 2).sum() / len(x))) for x in scaled]


def sample_path(result: pathlib.Path) -> pathlib.Path:
    """The file of the sample that belongs to NAME.json, in a folder of its own."""
    return result.parent / 'samples' / f'{result.stem}.npz'


def save_sample(sample: Sample, path: pathlib.Path) -> None:
    """Writes the file, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with files.atomic(path, 'wb') as file:
        np.savez_compressed(file, format=FORMAT, **sample._asdict())


def load_sample(path: pathlib.Path) -> Sample:
    """Reads what `save_sample` wrote; ValueError names a file that is none."""
    try:
        with path.open('rb') as file, np.load(file) as opened:
            arrays = dict(opened)
        if arrays['format'] != FORMAT:
            raise ValueError(f'format {arrays["format"]}, expected {FORMAT}; evaluate again')
        vectors, ids, languages, is_document = (arrays[name] for name in Sample._fields)
        shapes = [x.shape for x in (ids, languages, is_document)]
        if vectors.ndim != 2 or shapes != [vectors.shape[:1]] * 3:
            raise ValueError(f'the shapes {vectors.shape}, {shapes}')
        if not np.isfinite(vectors).all():
            raise ValueError('numbers that are not finite')
        return Sample(vectors, ids.tolist(), languages.tolist(), is_document)
    except Exception as error:  # neither zipfile nor zlib promises anything more special
        raise files.format_error(path, 'a sample of embeddings', error) from error
