"""Models and data sets by name: an existing path, or a repository of the Hugging Face hub.

What is in the hub's cache is not downloaded again, and with HF_HUB_OFFLINE nothing is.
"""

import pathlib

import huggingface_hub

from hbt.utils import files


def snapshot(name: str, patterns: tuple[str, ...]) -> pathlib.Path:
    """Returns the existing file or directory `name`, else the hub's snapshot of that model.

    `name` is a path, `owner/model` or `owner/model@revision` (a branch, tag or commit); `patterns`
    are globs of the files to download. ValueError for a path to nothing, or if the hub fails.
    """
    path = pathlib.Path(name).expanduser()
    if name and path.exists():
        return path
    if name[:1] in ('', '.', '/', '~') or name.count('/') > 1 or path.suffix == '.json':
        raise ValueError(f'{name!r}: no such file or directory')
    expected = 'a file, a directory or a name on the Hugging Face hub, got no such path and'
    repository, _, revision = name.partition('@')
    return _download(name, expected, repository, patterns, revision=revision or None)


def dataset_snapshot(name: str, patterns: tuple[str, ...]) -> pathlib.Path:
    """Returns the hub's snapshot of the files of a data set that match; ValueError without one."""
    expected = 'a data set of the Hugging Face hub, got'
    return _download(name, expected, name, patterns, repo_type='dataset')


def _download(name, expected, repository, patterns, **options) -> pathlib.Path:
    options['allow_patterns'] = list(patterns)
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(repository, **options))
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        cause = error.__cause__ or error
        kind = '--repo-type dataset ' if 'repo_type' in options else ''
        raise ValueError(
            f'{name!r}: expected {expected} from the hub {type(cause).__name__}: '
            f'{files.first_line(cause)}. With a network: '
            f'`hf download {kind}{repository} --local-dir DIR`, then pass DIR'
        ) from error


def pinned_name(name: str, path: pathlib.Path) -> str:
    """Returns `name` with the commit of its snapshot `path`; a name that is a path as it is."""
    is_snapshot = path.parent.name == 'snapshots' and not pathlib.Path(name).exists()
    return f'{name.partition("@")[0]}@{path.name}' if is_snapshot else name
