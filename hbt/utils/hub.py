"""Models and data sets by name: a path, or a repository of the Hugging Face hub.

Hides the hub, its cache and its revisions. Called by whatever takes such a name.
"""

import pathlib

import huggingface_hub

from hbt.models import weights
from hbt.utils import files

SMALL_FILES = (  # configuration and tokenizer, and what sentence-transformers puts beside them
    'config.json',
    'tokenizer*.json',
    'special_tokens_map.json',
    'vocab.txt',
    'sentencepiece.bpe.model',
    'modules.json',
    'sentence_bert_config.json',
    'config_sentence_transformers.json',
    '?_*/config.json',
    '?_Dense/*.safetensors',
    '?_Dense/*.bin',
)


def resolve(name: str, with_weights: bool = True) -> pathlib.Path:
    """The existing file or directory `name`, else the hub's snapshot of that name.

    `owner/model@revision` asks the hub for a branch, tag or commit. Only what is read here is
    downloaded: the small files and, `with_weights`, one file of them or its shards. What is in
    the cache is not downloaded again, and with HF_HUB_OFFLINE nothing is. Raises ValueError.
    """
    path = pathlib.Path(name).expanduser()
    if name and path.exists():
        return path
    if name[:1] in ('', '.', '/', '~') or name.count('/') > 1 or path.suffix == '.json':
        raise ValueError(f'{name!r}: no such file or directory')
    try:
        folder = download(name, SMALL_FILES)
        if with_weights:
            folder = weights.complete(name, folder)
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        raise unreachable(name, error.__cause__ or error) from error
    return folder


def pinned(name: str, path: pathlib.Path) -> str:
    """The name with the commit that `path`, which it was resolved to, is the snapshot of."""
    is_snapshot = path.parent.name == 'snapshots' and not pathlib.Path(name).exists()
    return f'{name.partition("@")[0]}@{path.name}' if is_snapshot else name


def download(name: str, files: tuple[str, ...]) -> pathlib.Path:
    repository, _, revision = name.partition('@')
    found = huggingface_hub.snapshot_download(
        repository, revision=revision or None, allow_patterns=list(files)
    )
    return pathlib.Path(found)


def unreachable(name: str, error: BaseException) -> ValueError:
    return ValueError(
        f'{name!r}: expected a file, a directory or a name on the Hugging Face hub, got no such'
        f' path and from the hub {type(error).__name__}: {files.first_line(error)}. With a'
        f' network: `hf download {name.partition("@")[0]} --local-dir DIR`, then pass DIR'
    )


def data(name: str, patterns: tuple[str, ...]) -> pathlib.Path:
    """The hub's snapshot of the files of a data set that match, or what the cache has of them."""
    try:
        found = huggingface_hub.snapshot_download(
            name, repo_type='dataset', allow_patterns=list(patterns)
        )
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f'{name!r}: expected a data set of the Hugging Face hub, got from the hub '
            f'{type(cause).__name__}: {files.first_line(cause)}. With a network: '
            f'`hf download --repo-type dataset {name} --local-dir DIR`, then pass DIR'
        ) from error
    return pathlib.Path(found)
