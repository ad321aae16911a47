"""Facts about languages: codes, scripts, families of scripts, classes of resources."""

import functools

import babel
from babel import core


@functools.cache
def _codes_by_name() -> dict[str, str]:
    """English name -> code of every language that the Unicode CLDR names."""
    return {name.lower(): code for code, name in babel.Locale('en').languages.items()}


@functools.cache
def is_language(code: str) -> bool:
    """Whether the Unicode CLDR names the language of a code."""
    code = code.replace('-', '_')
    return code.isidentifier() and code.split('_')[0] in _codes_by_name().values()


def check_language(code: str, where: str) -> None:
    """ValueError unless the Unicode CLDR names the language, as of en, zh-Hant or pt_BR."""
    if not is_language(code):
        raise ValueError(f'{where}: expected a language code such as en, got {code!r}')


def parse_language(name: str, where: str) -> str:
    """The code of a language given by its code or its English name."""
    code = _codes_by_name().get(name.lower(), name)
    check_language(code, where)
    return code


SCRIPT_FAMILIES = {  # script (ISO 15924) -> part of The Unicode Standard 16.0 that describes it
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
RESOURCE_CLASSES = {  # level -> languages; classes of Joshi et al., ACL 2020 (arXiv 2004.09095)
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
    scripts = [part for part in parts[1:] if len(part) == 4]
    if scripts:
        return scripts[0].title()
    tag = '_'.join(part if i == 0 else part.upper() for i, part in enumerate(parts))
    likely = core.get_global('likely_subtags')
    full_tag = likely.get(tag) or likely.get(parts[0])
    return full_tag.split('_')[1] if full_tag else 'Zyyy'


CHARACTER_SCRIPTS = {'Jpan': ('Hira', 'Kana', 'Hani'), 'Kore': ('Hang', 'Hani')}
CHARACTER_SCRIPTS |= {'Hans': ('Hani',), 'Hant': ('Hani',)}


def character_scripts(language: str) -> tuple[str, ...]:
    """The scripts of the characters of a language: Japanese has three."""
    return CHARACTER_SCRIPTS.get(script(language), (script(language),))


def script_family(language: str) -> str:
    """The family of the script of a language: European, East Asian ..."""
    return SCRIPT_FAMILIES.get(script(language), 'other')


def resource_class(language: str) -> str:
    """The class of resources of a language: 0 (none) to 5 (most), or unknown."""
    base = language.replace('_', '-').split('-')[0]
    levels = (str(level) for level, codes in RESOURCE_CLASSES.items() if base in codes.split())
    return next(levels, 'unknown')
