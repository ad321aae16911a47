"""What a source of training data yields: rows or texts, read from blocks of lines.

Hides how files are cut into blocks, and the checks that every format shares: what is wrong is
named with file and line, what was expected and what came. Called by `sources` and its formats.


What is known of languages: script, family of scripts, level of resources.

Hides the tables and their sources. Called by `summary` and `report`.
"""

import functools

import babel
from babel import core


@functools.cache
def known_languages() -> dict[str, str]:
    """English name -> code of every language that the Unicode CLDR names."""
    return {name.lower(): code for code, name in babel.Locale('en').languages.items()}


@functools.cache
def is_language(code: str) -> bool:
    code = code.replace('-', '_')
    return code.isidentifier() and code.split('_')[0] in known_languages().values()


def check_language(code: str, place: str) -> None:
    """Accepts codes whose language the Unicode CLDR names, such as en, zh-Hant or pt_BR."""
    if not is_language(code):
        raise ValueError(f'{place}: expected a language code such as en, got {code!r}')


def language(name: str, place: str) -> str:
    """The code of a language given by its code or its English name."""
    code = known_languages().get(name.lower(), name)
    check_language(code, place)
    return code


FAMILIES = {  # script (ISO 15924) -> part of The Unicode Standard 16.0 that describes it
    **dict.fromkeys(('Latn', 'Grek', 'Cyrl', 'Armn', 'Geor'), 'European'),  # chapter 7
    **dict.fromkeys(('Arab', 'Hebr', 'Syrc', 'Thaa'), 'Middle Eastern'),  # chapter 9
    **dict.fromkeys(  # chapters 12 to 15
        ('Deva', 'Beng', 'Guru', 'Gujr', 'Orya', 'Taml', 'Telu', 'Knda', 'Mlym', 'Sinh', 'Tibt'),
        'South Asian',
    ),
    **dict.fromkeys(('Thai', 'Laoo', 'Mymr', 'Khmr'), 'Southeast Asian'),  # chapter 16
    **dict.fromkeys(('Hans', 'Hant', 'Hani', 'Jpan', 'Kore'), 'East Asian'),  # chapter 18
    **dict.fromkeys(('Ethi', 'Tfng', 'Nkoo', 'Vaii'), 'African'),  # chapter 19
    'Cher': 'American',  # chapter 20
}
CLASSES = {  # level -> languages; classes of Joshi et al., ACL 2020 (arXiv 2004.09095)
    5: 'ar de en es fr ja zh',
    4: 'ca cs eu fa fi hi hr hu it ko nl pl pt ru sr sv tr vi',
    3: 'af arz be bg bn bs ceb da el et gl he id ka kk la lt lv ms ro sk sl ta th tl uk ur uz',
    2: 'am ga ha ht is kok lo mr mt pa sa sw ti tn wo xh yo zu',
    1: (
        'ak as ast ay az ba bho bm bo br ckb co cv cy dv dz ee eo fj fo fy gd gn gsw gu gv haw'
        ' hy ig ilo io iu jv kg ki km kmr kn ks ku ky lb lg li ln mai mg mi mk ml mn my nb ne nn no'
        ' nso ny oc om or os ps qu rm rn rw sah sc scn sco sd sg si sm sn so sq ss st su te tg tk'
        ' to ts tt tw ug ve war yi yue za'
    ),
}


@functools.cache
def script(language: str) -> str:
    """The script (ISO 15924) a language is most likely written in, by the Unicode CLDR."""
    parts = language.replace('_', '-').split('-')
    given = [part for part in parts[1:] if len(part) == 4]
    if given:
        return given[0].title()
    tag = '_'.join(part if i == 0 else part.upper() for i, part in enumerate(parts))
    likely = core.get_global('likely_subtags')
    found = likely.get(tag) or likely.get(parts[0])
    return found.split('_')[1] if found else 'Zyyy'


WRITTEN = {'Jpan': ('Hira', 'Kana', 'Hani'), 'Kore': ('Hang', 'Hani')}
WRITTEN |= {'Hans': ('Hani',), 'Hant': ('Hani',)}


def written(language: str) -> tuple[str, ...]:
    """The scripts of its characters: `Jpan`, as an example, is written in three."""
    return WRITTEN.get(script(language), (script(language),))


def family(language: str) -> str:
    """The family of its script: European, East Asian ..."""
    return FAMILIES.get(script(language), 'other')


def resources(language: str) -> str:
    """Its class of resources, from 0 (none) to 5 (most); `unknown` where the source has none."""
    base = language.replace('_', '-').split('-')[0]
    return next((str(k) for k, known in CLASSES.items() if base in known.split()), 'unknown')
