"""Facts about languages: codes, scripts, families of scripts, resources, names in NLLB-200.

languages.csv has the classes of resources (Joshi et al., ACL 2020, arXiv 2004.09095) and the names.
"""

import csv
import functools
from importlib import resources

import babel
from babel import core

SCRIPT_FAMILIES = {  # family -> scripts (ISO 15924), by the chapters of The Unicode Standard 16.0
    'European': 'Latn Grek Cyrl Armn Geor',  # 7
    'Middle Eastern': 'Arab Hebr Syrc Thaa',  # 9
    'South Asian': 'Deva Beng Guru Gujr Orya Taml Telu Knda Mlym Sinh Tibt',  # 12 to 15
    'Southeast Asian': 'Thai Laoo Mymr Khmr',  # 16
    'East Asian': 'Hans Hant Hani Jpan Kore',  # 18
    'African': 'Ethi Tfng Nkoo Vaii',  # 19
    'American': 'Cher',  # 20
}
UNSPACED = ('Jpan', 'Hans', 'Hant', 'Thai', 'Laoo', 'Khmr', 'Mymr')  # no spaces between words
# Script of a language -> scripts of its characters, where they differ.
CHARACTER_SCRIPTS = {'Jpan': 'Hira Kana Hani', 'Kore': 'Hang Hani', 'Hans': 'Hani', 'Hant': 'Hani'}


@functools.cache
def _codes_by_name() -> dict[str, str]:
    """English name -> code of every language that the Unicode CLDR names."""
    return {name.lower(): code for code, name in babel.Locale('en').languages.items()}


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    with resources.files('hbt.utils').joinpath('languages.csv').open() as file:
        return {row['language']: row for row in csv.DictReader(file)}


@functools.cache
def is_language(code: str) -> bool:
    """Whether the Unicode CLDR names the language of a code, such as en, zh-Hant or pt_BR."""
    code = code.replace('-', '_')
    return code.isidentifier() and code.split('_')[0] in _codes_by_name().values()


def check_language(code, where: str) -> None:
    """ValueError unless this is a string, and `is_language`."""
    if not isinstance(code, str) or not is_language(code):
        raise ValueError(f'{where}: expected a language code such as en, got {code!r}')


def parse_language(name: str, where: str) -> str:
    """The code of a language given by its code or its English name."""
    code = _codes_by_name().get(name.lower(), name)
    check_language(code, where)
    return code


@functools.cache
def script(language: str) -> str:
    """The script (ISO 15924) a language is most likely written in, by the Unicode CLDR."""
    base, *parts = language.replace('_', '-').split('-')
    for part in parts:
        if len(part) == 4:
            return part.title()
    likely = core.get_global('likely_subtags')
    tag = '_'.join([base, *(part.upper() for part in parts)])
    return (likely.get(tag) or likely.get(base, 'und_Zyyy')).split('_')[1]


def character_scripts(language: str) -> tuple[str, ...]:
    """The scripts of the characters of a language: Japanese has three."""
    return tuple(CHARACTER_SCRIPTS.get(script(language), script(language)).split())


def script_family(language: str) -> str:
    """The family of the script of a language: European, East Asian ..., or other."""
    families = [x for x, scripts in SCRIPT_FAMILIES.items() if script(language) in scripts.split()]
    return families[0] if families else 'other'


def resource_class(language: str) -> str:
    """The class of resources of a language: 1 (least) to 5 (most), or unknown."""
    base = language.replace('_', '-').split('-')[0]
    return _table().get(base, {}).get('resources') or 'unknown'


def nllb_name(language: str) -> str:
    """The name of a language in NLLB-200: deu_Latn of de; `language` where it has none."""
    return _table().get(language, {}).get('nllb') or language
