"""Machine translation behind one function: `engine(texts, source, target) -> texts`.

Hides the programs and models that translate. Called by `translate`.
"""

import functools
import json
import pathlib
import re
import shlex
import subprocess
from collections import abc

import sentencepiece

from hbt.utils import files

Engine = abc.Callable[[list[str], str, str], list[str]]
TOKENS = 4096  # of a batch, padding included
NLLB = {  # its names of languages, where ISO 639-3 and the script do not tell
    **{'ar': 'arb_Arab', 'az': 'azj_Latn', 'et': 'est_Latn', 'fa': 'pes_Arab', 'fil': 'tgl_Latn'},
    **{'ku': 'kmr_Latn', 'lv': 'lvs_Latn', 'mg': 'plt_Latn', 'mn': 'khk_Cyrl', 'ms': 'zsm_Latn'},
    **{'ne': 'npi_Deva', 'no': 'nob_Latn', 'om': 'gaz_Latn', 'or': 'ory_Orya', 'ps': 'pbt_Arab'},
    **{'sq': 'als_Latn', 'sw': 'swh_Latn', 'tl': 'tgl_Latn', 'uz': 'uzn_Latn', 'yi': 'ydd_Hebr'},
    **{'zh': 'zho_Hans', 'zh-Hant': 'zho_Hant', 'zh-TW': 'zho_Hant', 'yue': 'yue_Hant'},
    **{'af': 'afr_Latn', 'am': 'amh_Ethi', 'be': 'bel_Cyrl', 'bg': 'bul_Cyrl', 'bn': 'ben_Beng'},
    **{'bs': 'bos_Latn', 'ca': 'cat_Latn', 'cs': 'ces_Latn', 'cy': 'cym_Latn', 'da': 'dan_Latn'},
    **{'de': 'deu_Latn', 'el': 'ell_Grek', 'en': 'eng_Latn', 'eo': 'epo_Latn', 'es': 'spa_Latn'},
    **{'eu': 'eus_Latn', 'fi': 'fin_Latn', 'fr': 'fra_Latn', 'ga': 'gle_Latn', 'gl': 'glg_Latn'},
    **{'gu': 'guj_Gujr', 'ha': 'hau_Latn', 'he': 'heb_Hebr', 'hi': 'hin_Deva', 'hr': 'hrv_Latn'},
    **{'hu': 'hun_Latn', 'hy': 'hye_Armn', 'id': 'ind_Latn', 'ig': 'ibo_Latn', 'is': 'isl_Latn'},
    **{'it': 'ita_Latn', 'ja': 'jpn_Jpan', 'jv': 'jav_Latn', 'ka': 'kat_Geor', 'kk': 'kaz_Cyrl'},
    **{'km': 'khm_Khmr', 'kn': 'kan_Knda', 'ko': 'kor_Hang', 'ky': 'kir_Cyrl', 'lo': 'lao_Laoo'},
    **{'lt': 'lit_Latn', 'mk': 'mkd_Cyrl', 'ml': 'mal_Mlym', 'mr': 'mar_Deva', 'mt': 'mlt_Latn'},
    **{'my': 'mya_Mymr', 'nl': 'nld_Latn', 'nb': 'nob_Latn', 'nn': 'nno_Latn', 'pa': 'pan_Guru'},
    **{'pl': 'pol_Latn', 'pt': 'por_Latn', 'ro': 'ron_Latn', 'ru': 'rus_Cyrl', 'rw': 'kin_Latn'},
    **{'sd': 'snd_Arab', 'si': 'sin_Sinh', 'sk': 'slk_Latn', 'sl': 'slv_Latn', 'so': 'som_Latn'},
    **{'sr': 'srp_Cyrl', 'su': 'sun_Latn', 'sv': 'swe_Latn', 'ta': 'tam_Taml', 'te': 'tel_Telu'},
    **{'tg': 'tgk_Cyrl', 'th': 'tha_Thai', 'tk': 'tuk_Latn', 'tr': 'tur_Latn', 'tt': 'tat_Cyrl'},
    **{'ug': 'uig_Arab', 'uk': 'ukr_Cyrl', 'ur': 'urd_Arab', 'vi': 'vie_Latn', 'wo': 'wol_Latn'},
    **{'xh': 'xho_Latn', 'yo': 'yor_Latn', 'zu': 'zul_Latn'},
}


def make(specs: abc.Sequence[str], languages: abc.Sequence[str]) -> Engine:
    """The engine of `[LANGUAGE=]KIND:ARGUMENT` specs; one with a language is for that target only.

    {source} and {target} in an argument stand for the codes. ValueError for a spec that cannot be,
    and for a language without an engine.
    """
    chosen = {}
    for spec in specs:
        match = re.fullmatch(r'(?:([\w-]+)=)?(\w+):(.+)', spec)
        if not match or match[2] not in KINDS:
            known = ' or '.join(f'{kind}:ARGUMENT' for kind in KINDS)
            raise ValueError(f'--engine: expected [LANGUAGE=]{known}, got {spec!r}')
        for language in (match[1],) if match[1] else languages:
            chosen.setdefault(language, (match[2], match[3]))
    for language in languages:
        if language not in chosen:
            raise ValueError(f'--engine: expected one for {language}, got {", ".join(specs)}')

    def translate(texts: list[str], source: str, target: str) -> list[str]:
        kind, argument = chosen[target]
        argument = argument.replace('{source}', source).replace('{target}', target)
        return KINDS[kind](argument, texts, source, target)

    return translate


def command(argument: str, texts: list[str], source: str, target: str) -> list[str]:
    """A program that reads a text from each line and writes its translation, in the same order."""
    del source, target
    arguments = shlex.split(argument)
    lines = ''.join(' '.join(text.split()) + '\n' for text in texts)
    try:
        done = subprocess.run(arguments, input=lines.encode(), capture_output=True, check=False)
    except OSError as error:
        raise ValueError(f'{argument}: expected a program, got {error}') from None
    if done.returncode:
        said = done.stderr.decode(errors='replace').strip().splitlines() or ['nothing said']
        raise ValueError(f'{argument}: expected exit code 0, got {done.returncode}: {said[-1]}')
    try:
        found = done.stdout.decode().removesuffix('\n').split('\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{argument}: expected UTF-8, got {error}') from None
    if len(found) != len(texts):
        raise ValueError(f'{argument}: expected {len(texts)} lines, got {len(found)}')
    return [' '.join(line.split()) for line in found]


def ctranslate2(argument: str, texts: list[str], source: str, target: str) -> list[str]:
    """A model that CTranslate2's converters wrote, with its SentencePiece files beside it."""
    model, encode, decode, form = load(argument)
    before, prefix, skip = form(source, target)
    pieces = [[*before, *encode(text)] for text in texts]
    pieces = [x if x[-1:] == ['</s>'] else [*x, '</s>'] for x in pieces]
    found = model.translate_batch(
        pieces,
        target_prefix=[prefix] * len(texts) if prefix else None,
        max_batch_size=TOKENS,  # it sorts by length first
        batch_type='tokens',
        max_input_length=1024,
        beam_size=4,
    )
    return [decode(x.hypotheses[0][skip:]) for x in found]


@functools.lru_cache(4)
def load(argument: str):
    """(model, text -> pieces, pieces -> text, languages -> what tells them to the model)."""
    folder = pathlib.Path(argument)
    if not (folder / 'model.bin').is_file():
        raise ValueError(
            f'{folder}: expected a model of CTranslate2, got {files.describe_path(folder)}; '
            'make one with ct2-transformers-converter --model NAME --output_dir DIR --copy_files '
            'sentencepiece.bpe.model (NLLB, M2M-100) or source.spm target.spm (OPUS-MT)'
        )
    try:
        import ctranslate2
    except ImportError:
        raise ValueError(
            f'{folder}: needs the package ctranslate2: pip install hbt[translate]'
        ) from None
    vocabulary = set()
    for name in ('shared_vocabulary.json', 'source_vocabulary.json'):
        if (folder / name).is_file():
            vocabulary |= set(json.loads((folder / name).read_text()))
    names = ['sentencepiece.bpe.model'] * 2
    if not (folder / names[0]).is_file():
        names = ['source.spm', 'target.spm']
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f'{folder}: expected {name}, got {files.describe_path(folder)}')
    first, second = (
        sentencepiece.SentencePieceProcessor(model_file=str(folder / name)) for name in names
    )
    model = ctranslate2.Translator(str(folder), compute_type='auto')
    encode = functools.partial(first.encode, out_type=str)
    return model, encode, second.decode, functools.partial(forms, folder, vocabulary)


def forms(folder, vocabulary: set[str], source: str, target: str) -> tuple[list, list, int]:
    """What goes before the source, before the target, and how much of the latter comes back."""
    if 'eng_Latn' in vocabulary:
        names = [NLLB.get(x, x) for x in (source, target)]
    elif '__en__' in vocabulary:
        names = [f'__{x}__' for x in (source, target)]
    else:
        several = sorted(x for x in vocabulary if x.startswith('>>'))
        if not several:
            return [], [], 0  # OPUS-MT of two languages
        if f'>>{target}<<' in vocabulary:
            return [f'>>{target}<<'], [], 0
        names = [f'>>{NLLB.get(target, target).split("_")[0]}<<']
        if names[0] in vocabulary:
            return names, [], 0
    for name, language in zip(names, (source, target), strict=False):
        if name not in vocabulary:
            raise ValueError(f'{folder}: expected a language of the model, got {language!r}')
    return [names[0]], [names[1]], 1


KINDS = {'command': command, 'ctranslate2': ctranslate2}
