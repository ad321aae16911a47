"""The public model object: texts to embeddings, their similarity, and search."""

import functools
import os
import pathlib
import typing
from collections import abc

import numpy as np
from jaxtyping import Float

from hbt.evaluation import debias
from hbt.models import embedder, encoder, model_dir
from hbt.serving import entries, index, resident
from hbt.training import run_dir

PROMPTS = tuple(filter(None, embedder.KINDS))
# What mteb passes to `encode` besides; batches and devices are those of the model.
MTEB_ARGUMENTS = {'task_metadata', 'hf_split', 'hf_subset', 'batch_size', 'show_progress_bar'}
MTEB_ARGUMENTS |= {'num_workers', 'num_proc'}


class Hit(typing.NamedTuple):
    """A document that a search found."""

    score: float  # dot product of query and document: their cosine if both have length 1
    index: int  # of the document in the corpus
    id: str  # of the corpus; of a list of texts, the index
    language: str  # und where the corpus does not say
    text: str


class DualEncoder:
    """A dual encoder that encodes, compares and searches texts on all devices.

        >>> import hbt
        >>> model = hbt.load('models/mine')  # a model directory, a hub name or a training run
        >>> texts = ['The Eiffel Tower is 330 metres tall.', 'Der Rhein ist ein Fluss.']
        >>> documents = model.encode_document(texts)
        >>> documents.shape == (2, model.dim), documents.dtype.name
        (True, 'float32')
        >>> query = model.encode_query('Wie hoch ist der Eiffelturm?')
        >>> model.similarity(query, documents).shape
        (1, 2)
        >>> hits = model.search('Wie hoch ist der Eiffelturm?', texts, k=1)
        >>> hits[0].text == texts[hits[0].index]
        True

    mteb takes it as an encoder: `mteb.evaluate(hbt.load('models/mine'), tasks)`.
    """

    def __init__(self, model: model_dir.Model, name: str, batch_size: int, dtype: str):
        self.name, self.dtype, self.model = name, dtype, model
        self.dim = model.config.encoder.embedding_dim
        self._embed = embedder.make_embedder(model, batch_size, dtype)

    def encode(
        self,
        texts,
        prompt_name: str | None = None,
        *,
        progress: bool = False,
        dim: int | None = None,
        prompt_type: str | None = None,
        **mteb,
    ) -> Float[np.ndarray, '...']:
        """Embeds texts.

        Args:
          texts: one text, or a sequence of texts.
          prompt_name: query, document or passage (the same) puts that prompt of the model before
            every text and truncates at its length; None has no prompt.
          progress: shows a progress bar.
          dim: only so many first dimensions, at length 1 again; None: all of the model.
          prompt_type, mteb: arguments of mteb, with which texts are batches of mteb; prompt_type
            takes the place of prompt_name.

        Returns:
          float32 [d] of one text, [n d] of a sequence.

        Raises:
          ValueError: for an unknown prompt name or argument, a dim that the embeddings lack, and
            for what is no text.
        """
        if unknown := mteb.keys() - MTEB_ARGUMENTS:
            raise ValueError(f'encode: expected no argument {min(unknown)!r}, got one')
        if 'task_metadata' in mteb:
            texts = [text for batch in texts for text in batch['text']]
        kind = getattr(prompt_type, 'value', prompt_type) or prompt_name or ''
        if kind not in ('', *PROMPTS):
            raise ValueError(
                f'prompt_name: expected {", ".join(PROMPTS)} or None, got {prompt_name!r}'
            )
        c = self.model.config.encoder
        dim = self.dim if dim is None else encoder.check_dim(dim, c)
        vectors = self._embed([texts] if isinstance(texts, str) else texts, kind, progress=progress)
        if dim < self.dim:
            vectors = _normalise(vectors[:, :dim]) if c.normalise else vectors[:, :dim]
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_query(
        self, texts, progress: bool = False, dim: int | None = None
    ) -> Float[np.ndarray, '...']:
        """Embeds texts with the prompt and length of queries; see `encode`."""
        return self.encode(texts, 'query', progress=progress, dim=dim)

    def encode_document(
        self, texts, progress: bool = False, dim: int | None = None
    ) -> Float[np.ndarray, '...']:
        """Embeds texts with the prompt and length of documents; see `encode`."""
        return self.encode(texts, 'document', progress=progress, dim=dim)

    def similarity(self, embeddings1, embeddings2) -> Float[np.ndarray, 'n m']:
        """Cosines of all embeddings [n d] or [d] with all others [m d] or [d]."""
        return _normalise(embeddings1) @ _normalise(embeddings2).T

    def similarity_pairwise(self, embeddings1, embeddings2) -> Float[np.ndarray, ' n']:
        """Cosines of embeddings [n d] or [d] with the others at the same place."""
        return (_normalise(embeddings1) * _normalise(embeddings2)).sum(axis=1)

    def search(
        self,
        queries,
        corpus,
        k: int = 10,
        languages: abc.Sequence[str] = (),
        query_language: str | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The best k documents, or as many as there are, by dot product, the best first.

        Of equal scores, the document that comes first in the corpus is above.

        Args:
          queries: one query, or a sequence of queries.
          corpus: texts, or what `build_index` or `open_index` gave.
          languages: only documents of an index in these languages; none: of all.
          query_language: of the queries, for an index without language in its embeddings.

        Returns:
          Hits of one query, or for every query of a sequence.

        Raises:
          ValueError: for k below 1, and for a language that the index lacks.
        """
        if k < 1:
            raise ValueError(f'k: expected at least 1, got {k}')
        is_index = isinstance(corpus, index.Index)
        names = corpus.languages if is_index else [entries.UNKNOWN]
        if unknown := [x for x in languages if x not in names]:
            raise ValueError(f'languages: expected {", ".join(names)}, got {unknown[0]!r}')
        rows = self.encode_query([queries] if isinstance(queries, str) else queries)
        if is_index:
            rows = _remove_language(corpus, rows, query_language)
            allowed = [not languages or name in languages for name in names]
            hits = _find_hits(rows, corpus.resident, k, corpus.read_entry, allowed)
        else:
            hits = self._search_texts(rows, corpus, k)
        return hits[0] if isinstance(queries, str) else hits

    def _search_texts(self, rows: Float[np.ndarray, 'q d'], texts, k: int) -> list[list[Hit]]:
        """Hits of the embeddings of queries among texts."""
        if isinstance(texts, str):
            expected = 'a list of texts, or an index of build_index'
            raise ValueError(f'corpus: expected {expected}, got {texts[:40]!r}')
        texts = list(texts) if isinstance(texts, abc.Iterator) else texts
        vectors = self.encode_document(texts)
        if not len(vectors):
            return [[] for _ in rows]
        placed = resident.put_documents(vectors, np.zeros(len(vectors), np.int32))
        documents = [entries.Entry(str(i), entries.UNKNOWN, text) for i, text in enumerate(texts)]
        return _find_hits(rows, placed, k, documents.__getitem__, [True])

    def build_index(
        self, source: str | os.PathLike, folder: str | os.PathLike | None = None
    ) -> index.Index:
        """Embeds a corpus once into a folder, by default CORPUS.index, and opens it.

        Args:
          source: JSON lines, `id TAB text` or one text a line; see `entries.iter_entries`.
          folder: where the index is, or will be; a call that was interrupted is resumed.

        Raises:
          ValueError: for malformed lines, and if an index of another corpus or model is there.
        """
        path = pathlib.Path(source)
        if not path.is_file():
            raise ValueError(f'{path}: expected a file of documents, got no such file')
        folder = pathlib.Path(folder) if folder else index.default_folder(path)
        settings = index.make_settings(path, self.fingerprint, self.dtype)
        if not folder.exists():
            embed = functools.partial(self._embed, kind='document')
            index.build_index(embed, path, folder, settings)
        return index.open_index(folder, settings, self.model.config.encoder.normalise)

    def open_index(self, folder: str | os.PathLike) -> index.Index:
        """Opens an index that `build_index` made with this model; ValueError for another one."""
        settings = index.make_settings(None, self.fingerprint, self.dtype)
        normalise = self.model.config.encoder.normalise
        return index.open_index(pathlib.Path(folder), settings, normalise)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A checksum that is equal for two models that embed equally."""
        return embedder.fingerprint(self.model)

    @functools.cached_property
    def mteb_model_meta(self):
        """What mteb records of the model; results are cached by its name and fingerprint."""
        from mteb.models import model_meta  # of an extra

        data = self.model.config.data
        return model_meta.ModelMeta.create_empty(
            {
                'name': f'hbt/{pathlib.Path(self.name).name}',
                'revision': self.fingerprint,
                'embed_dim': self.dim,
                'max_tokens': max(data.query_length, data.passage_length),
                'similarity_fn_name': 'cosine',
                'framework': ['JAX'],
            }
        )


def load_model(
    name: str | os.PathLike,
    step: str | None = None,
    batch_size: int = 256,
    dtype: str = 'float32',
    dim: int | None = None,
) -> DualEncoder:
    """See `hbt.load`."""
    name = str(name)
    if (pathlib.Path(name) / 'data.json').is_file():  # only the directory of a run has it
        model, _ = run_dir.load_model(name, None, step or 'best', dim)
    elif step:
        raise ValueError(f'step: expected with the directory of a training run only, got {step!r}')
    else:
        model = model_dir.load_model(name, dim)
    return DualEncoder(model, name, batch_size, dtype)


def _normalise(vectors) -> Float[np.ndarray, 'n d']:
    vectors = np.atleast_2d(np.asarray(vectors, np.float32))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _remove_language(
    documents: index.Index, rows: Float[np.ndarray, 'q d'], language: str | None
) -> Float[np.ndarray, 'q d']:
    """The embeddings of queries, without language if those of the documents are."""
    if bool(language) != bool(documents.removal):
        expected = 'the language of the queries' if documents.removal else 'none for this index'
        raise ValueError(f'query_language: expected {expected}, got {language!r}')
    if not documents.removal:
        return rows
    languages = [language] * len(rows)
    return debias.apply_removal(documents.removal, rows, languages, documents.normalise)


def _find_hits(
    rows: Float[np.ndarray, 'q d'],
    documents: resident.Documents,
    k: int,
    read_entry: abc.Callable,
    allowed: list[bool],
) -> list[list[Hit]]:
    """The hits of every query; a score of -inf is none."""
    best = (x.tolist() for x in resident.find_best(rows, documents, k, allowed))
    return [
        [Hit(score, i, *read_entry(i)) for score, i in zip(*row, strict=True) if score > -np.inf]
        for row in zip(*best, strict=True)
    ]
