"""The files that an option of a source names: patterns, languages in them, their checksum."""

import glob
import hashlib
import pathlib
import re
from collections import abc

from hbt.utils import languages


def find_files(options: dict[str, str], option: str) -> list[pathlib.Path]:
    """The files that match the option's pattern, in which `*` is as in a shell."""
    if '{lang}' in options[option]:
        raise ValueError(f'{option}={options[option]}: expected no {{lang}} in it')
    return _match_files(options[option], option)['']


def find_files_by_language(options: dict[str, str], option: str) -> dict[str, list[pathlib.Path]]:
    """Language -> the files that match the option's pattern.

    {lang} stands for a code or an English name; without it, all are in `options['language']`.
    """
    if '{lang}' in options[option]:
        return _match_files(options[option], option)
    paths, code = find_files(options, option), options.get('language')
    if not code:
        raise ValueError(f'{option}={options[option]}: expected {{lang}} in it, or language=CODE')
    languages.check_language(code, 'language')
    return {code: paths}


def _match_files(pattern: str, option: str) -> dict[str, list[pathlib.Path]]:
    """Language, '' without {lang} in the pattern -> files in order."""
    paths = {}
    first, *parts = re.escape(pattern).replace(r'\*', '[^/]*').split(r'\{lang\}')
    named = ['(?P<lang>[^/]+?)', *('(?P=lang)' for _ in parts[1:])]
    shape = re.compile(first + ''.join(map(''.join, zip(named, parts, strict=False))))
    shell_pattern = glob.escape(pattern).replace('[*]', '*').replace('{lang}', '*')
    for path in sorted(glob.glob(shell_pattern)):
        match = shape.fullmatch(path)
        if match and pathlib.Path(path).is_file():
            code = languages.parse_language(match['lang'], path) if parts else ''
            paths.setdefault(code, []).append(pathlib.Path(path))
    if not paths:
        raise ValueError(f'{option}={pattern}: expected some files, got none')
    return paths


def digest_files(paths: abc.Iterable[pathlib.Path]) -> tuple[str, int]:
    """SHA-256 of the contents of files, and their bytes."""
    total, size = hashlib.sha256(), 0
    for path in paths:
        with path.open('rb') as data:
            total.update(hashlib.file_digest(data, 'sha256').digest())
        size += path.stat().st_size
    return total.hexdigest(), size
