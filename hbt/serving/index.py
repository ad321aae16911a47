"""A corpus that was embedded once, in a folder; the same call resumes one that was interrupted.

embeddings.npy has a row for every document, in the order of the corpus; documents.jsonl has id,
language and text, offsets.npy where each begins, codes.npy the place of its language in
languages.json; manifest.json says what was embedded by what.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections import abc

import numpy as np
from jaxtyping import Float, Int

from hbt.data.readers import schema
from hbt.evaluation import debias
from hbt.models import embedding_file
from hbt.serving import entries, resident
from hbt.utils import files, log, resume

FORMAT = 1
DIGITS = 16  # of checksums in the manifest, and so in messages
MANIFEST, EMBEDDINGS, DOCUMENTS = 'manifest.json', 'embeddings.npy', 'documents.jsonl'


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """An open index: its files, memory-mapped, and once it is searched, its embeddings on devices.

    `removal`, if any, takes the language out of the embeddings before they are put there.
    """

    folder: pathlib.Path
    languages: list[str]
    codes: Int[np.ndarray, ' n']  # of the languages of the documents
    embeddings: Float[np.ndarray, 'n d']
    documents: np.ndarray  # bytes of documents.jsonl
    offsets: Int[np.ndarray, ' m']  # m = n + 1
    normalise: bool  # whether embeddings have length 1
    removal: debias.Removal | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def read_entry(self, i: int) -> entries.Entry:
        """Id, language and text of a document."""
        where = f'{self.folder / DOCUMENTS}: document {i}'
        line = self.documents[self.offsets[i] : self.offsets[i + 1]].tobytes()
        row = schema.parse_json(line.decode(errors='replace'), where)
        fields = (schema.get_field(row, x, str, where) for x in entries.Entry._fields)
        return entries.Entry(*fields)

    def remove_language(self, removal: debias.Removal) -> 'Index':
        """The same documents, without language in their embeddings."""
        return dataclasses.replace(self, removal=removal)

    @functools.cached_property
    def resident(self) -> resident.Documents:
        """The embeddings on the devices."""
        if not self.removal:
            return resident.put_documents(self.embeddings, self.codes)

        def transform(vectors, codes):
            names = [self.languages[x] for x in codes]
            return debias.apply_removal(self.removal, vectors, names, self.normalise)

        return resident.put_documents(self.embeddings, self.codes, transform)


def default_folder(source: pathlib.Path) -> pathlib.Path:
    """Where the index of a corpus is if nothing else is said: beside it."""
    return source.with_name(source.name + '.index')


def make_settings(source: pathlib.Path | None, fingerprint: str, dtype: str) -> dict:
    """What an index depends on, and one that is there must be equal in; None: of any corpus."""
    settings = {'format': FORMAT, 'model': fingerprint[:DIGITS], 'dtype': dtype}
    return settings | ({'corpus': files.sha256(source)[:DIGITS]} if source else {})


def build_index(
    embed: abc.Callable, source: pathlib.Path, folder: pathlib.Path, settings: dict
) -> None:
    """Embeds a corpus into a new folder, which appears when it is whole.

    Args:
      embed: texts -> [n d]; also takes `place`, as those of `embedder.make_embedder`.
      source: see `entries.iter_entries`.
      settings: of `make_settings`. What is there of another corpus or model is refused.
    """
    partial = files.partial_path(folder)
    resume.read_record(partial / MANIFEST, settings, partial)  # was killed before its renaming
    resume.open_folder(folder, settings)
    out = partial / EMBEDDINGS
    with files.lock(partial / 'progress.lock'):
        if not (partial / 'offsets.npy').exists():
            with log.activity(f'{source}: copying the documents'):
                _write_documents(source, partial)
        offsets = np.load(partial / 'offsets.npy')
        if not out.exists():
            blocks = functools.partial(_embed_blocks, embed, partial / DOCUMENTS, offsets)
            count, label = len(offsets) - 1, folder.name
            embedding_file.fill_embeddings(blocks, count, out, settings, label)
            embedding_file.finish_embeddings(out)
        resume.write_record(partial / MANIFEST, settings)
    resume.finish_folder(folder)
    log.info(f'{folder}: {len(offsets) - 1:,} documents embedded')


def _write_documents(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies the documents of a corpus; the offsets last, so that they say that all is there."""
    codes, lengths, numbers = {}, [], []
    with files.atomic(folder / DOCUMENTS, 'wb') as file:
        for entry in entries.iter_entries(source):
            line = json.dumps(entry._asdict(), ensure_ascii=False).encode() + b'\n'
            lengths.append(file.write(line))
            numbers.append(codes.setdefault(entry.language, len(codes)))
    files.write_json(folder / 'languages.json', [*codes])
    _save_array(folder / 'codes.npy', np.array(numbers, np.int32))
    _save_array(folder / 'offsets.npy', np.cumsum([0, *lengths], dtype=np.int64))


def _save_array(path: pathlib.Path, array: np.ndarray) -> None:
    with files.atomic(path, 'wb') as file:
        np.save(file, array)


def _embed_blocks(
    embed: abc.Callable, documents: pathlib.Path, offsets: np.ndarray, start: int
) -> abc.Iterator[embedding_file.Block]:
    """Yields the embeddings of the documents from number `start` on."""
    with documents.open('rb') as file:
        file.seek(offsets[start])
        while lines := list(itertools.islice(file, embedding_file.CHUNK)):
            rows = [json.loads(line) for line in lines]
            vectors = embed(
                [row['text'] for row in rows],
                place=lambda i, rows=rows: f'{documents}: {rows[i]["id"]}',
            )
            yield embedding_file.Block(vectors, {})


def open_index(folder: pathlib.Path, settings: dict, normalise: bool) -> Index:
    """Opens what `build_index` made; ValueError unless it was made with these settings.

    Settings without `corpus` take the index of any corpus. Raises ValueError for damaged files too.
    """
    if not folder.is_dir():
        raise ValueError(f'{folder}: expected an index, got {files.describe_path(folder)}')
    manifest, where = files.read_json(folder / MANIFEST, dict), str(folder / MANIFEST)
    made = schema.get_field(manifest, 'settings', dict, where)
    settings = {'corpus': made.get('corpus')} | settings
    resume.read_record(folder / MANIFEST, settings, folder)
    offsets = _load_array(folder / 'offsets.npy', np.int64, 1)
    codes = _load_array(folder / 'codes.npy', np.int32, 1)
    languages = files.read_json(folder / 'languages.json', list)
    embeddings = _load_array(folder / EMBEDDINGS, np.float32, 2)
    count, size = len(offsets) - 1, (folder / DOCUMENTS).stat().st_size
    for name, expected, got in (
        ('codes.npy', f'{count} documents', f'{len(codes)} documents'),
        ('codes.npy', 'places in languages.json', _check_codes(codes, languages)),
        (EMBEDDINGS, f'{count} documents', f'{len(embeddings)} documents'),
        (DOCUMENTS, f'{offsets[-1]} bytes', f'{size} bytes'),
    ):
        if expected != got:
            raise ValueError(f'{folder / name}: expected {expected}, got {got}; delete {folder}')
    documents = np.memmap(folder / DOCUMENTS, np.uint8, 'r')
    return Index(folder, languages, codes, embeddings, documents, offsets, normalise)


def _check_codes(codes: np.ndarray, languages: list) -> str:
    is_known = not codes.size or 0 <= codes.min() <= codes.max() < len(languages)
    return (
        'places in languages.json'
        if is_known and all(isinstance(x, str) for x in languages)
        else 'others'
    )


def _load_array(path: pathlib.Path, dtype: type, ndim: int) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, 'r')
    except OSError as error:
        raise ValueError(f'{path}: expected a .npy file, got {error.strerror}') from error
    except Exception as error:  # numpy's parser of the header promises nothing more special
        raise files.format_error(path, 'a .npy file', error) from error
    if array.dtype != dtype or array.ndim != ndim or not len(array):
        expected = f'{ndim} dimensions of {np.dtype(dtype)}'
        raise ValueError(f'{path}: expected {expected}, got {array.dtype} {list(array.shape)}')
    return array
