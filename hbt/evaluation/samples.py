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
    groups: Int[np.ndarray, ' n']  # equal for translations of a query; -1: a document

    @property
    def is_document(self) -> Bool[np.ndarray, ' n']:
        return self.groups < 0

    @property
    def translated(self) -> Int[np.ndarray, ' m']:
        """Indices of the queries that have a translation in the sample."""
        counts = np.bincount(self.groups + 1)[self.groups + 1]
        return np.flatnonzero((counts > 1) & ~self.is_document)


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
        np.concatenate([groups[rows], np.full(len(columns), -1)]),
    )


def _count_before(codes: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
    """How many equal codes stand before each."""
    order = np.argsort(codes, kind='stable')
    starts = np.searchsorted(codes[order], codes[order])
    counts = np.empty(len(codes), int)
    counts[order] = np.arange(len(codes)) - starts
    return counts


def explained_share(vectors: Float[np.ndarray, 'n d'], labels: abc.Sequence) -> float:
    """The share of the variance of embeddings that their labels, such as languages, explain.

    The sum of squares between labels over the total sum of squares, in all dimensions (eta squared
    of a one-way analysis of variance): with x_i the embeddings, m their mean, and m_l the mean of
    the n_l embeddings of label l,

        sum_l n_l |m_l - m|^2 / sum_i |x_i - m|^2.

    0: all labels have one mean; 1: the label of a text determines its embedding. Of vectors that
    have nothing to do with it, (labels - 1) / (n - 1) is expected. NaN where all are equal.
    """
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
    sums = np.zeros((codes.max() + 1, centred.shape[1]))
    np.add.at(sums, codes, centred)
    between = (sums**2).sum(axis=1) @ (1 / np.bincount(codes))
    total = (centred**2).sum()
    return float(between / total) if total else float('nan')


def project(vectors: Float[np.ndarray, 'n d']) -> tuple[Float[np.ndarray, 'n 2'], float]:
    """The first two principal components, and the share of the variance that these show."""
    centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    points = centred @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(2)]))
    return points, float((points**2).sum() / ((centred**2).sum() or 1))


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
        vectors, ids, languages, groups = (arrays[name] for name in Sample._fields)
        shapes = [x.shape for x in (ids, languages, groups)]
        if vectors.ndim != 2 or shapes != [vectors.shape[:1]] * 3:
            raise ValueError(f'the shapes {vectors.shape}, {shapes}')
        if not np.isfinite(vectors).all():
            raise ValueError('numbers that are not finite')
        return Sample(vectors, ids.tolist(), languages.tolist(), groups)
    except Exception as error:  # neither zipfile nor zlib promises anything more special
        raise files.format_error(path, 'a sample of embeddings', error) from error
