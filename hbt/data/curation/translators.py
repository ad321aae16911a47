"""Machine translation behind one function: `engine(texts, source, target) -> translations`."""

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
_BATCH_TOKENS = 4096  # padding included
# NLLB's names of languages.
_NLLB = dict(
    pair.split(':')
    for pair in """
    ar:arb_Arab az:azj_Latn et:est_Latn fa:pes_Arab fil:tgl_Latn ku:kmr_Latn lv:lvs_Latn
    mg:plt_Latn mn:khk_Cyrl ms:zsm_Latn ne:npi_Deva no:nob_Latn om:gaz_Latn or:ory_Orya
    ps:pbt_Arab sq:als_Latn sw:swh_Latn tl:tgl_Latn uz:uzn_Latn yi:ydd_Hebr zh:zho_Hans
    zh-Hant:zho_Hant zh-TW:zho_Hant yue:yue_Hant af:afr_Latn am:amh_Ethi be:bel_Cyrl bg:bul_Cyrl
    bn:ben_Beng bs:bos_Latn ca:cat_Latn cs:ces_Latn cy:cym_Latn da:dan_Latn de:deu_Latn
    el:ell_Grek en:eng_Latn eo:epo_Latn es:spa_Latn eu:eus_Latn fi:fin_Latn fr:fra_Latn
    ga:gle_Latn gl:glg_Latn gu:guj_Gujr ha:hau_Latn he:heb_Hebr hi:hin_Deva hr:hrv_Latn
    hu:hun_Latn hy:hye_Armn id:ind_Latn ig:ibo_Latn is:isl_Latn it:ita_Latn ja:jpn_Jpan
    jv:jav_Latn ka:kat_Geor kk:kaz_Cyrl km:khm_Khmr kn:kan_Knda ko:kor_Hang ky:kir_Cyrl
    lo:lao_Laoo lt:lit_Latn mk:mkd_Cyrl ml:mal_Mlym mr:mar_Deva mt:mlt_Latn my:mya_Mymr
    nl:nld_Latn nb:nob_Latn nn:nno_Latn pa:pan_Guru pl:pol_Latn pt:por_Latn ro:ron_Latn
    ru:rus_Cyrl rw:kin_Latn sd:snd_Arab si:sin_Sinh sk:slk_Latn sl:slv_Latn so:som_Latn
    sr:srp_Cyrl su:sun_Latn sv:swe_Latn ta:tam_Taml te:tel_Telu tg:tgk_Cyrl th:tha_Thai
    tk:tuk_Latn tr:tur_Latn tt:tat_Cyrl ug:uig_Arab uk:ukr_Cyrl ur:urd_Arab vi:vie_Latn
    wo:wol_Latn xh:xho_Latn yo:yor_Latn zu:zul_Latn
    """.split()
)


def make_engine(specs: abc.Sequence[str], languages: abc.Sequence[str]) -> Engine:
    """The engine that some specs describe.

    Args:
      specs: `[LANGUAGE=]KIND:ARGUMENT`; one with a language is for that target only. {source} and
        {target} in an argument stand for the codes.
      languages: the targets.

    Raises:
      ValueError: a spec that is not understood, or a language without an engine.
    """
    engines = {}
    for spec in specs:
        match = re.fullmatch(r'(?:([\w-]+)=)?(\w+):(.+)', spec)
        if not match or match[2] not in _KINDS:
            kinds = ' or '.join(f'{kind}:ARGUMENT' for kind in _KINDS)
            raise ValueError(f'--engine: expected [LANGUAGE=]{kinds}, got {spec!r}')
        for language in (match[1],) if match[1] else languages:
            engines.setdefault(language, (match[2], match[3]))
    for language in languages:
        if language not in engines:
            raise ValueError(f'--engine: expected one for {language}, got {", ".join(specs)}')

    def translate(texts: list[str], source: str, target: str) -> list[str]:
        kind, argument = engines[target]
        argument = argument.replace('{source}', source).replace('{target}', target)
        return _KINDS[kind](argument, texts, source, target)

    return translate


def _run_command(argument: str, texts: list[str], source: str, target: str) -> list[str]:
    """A program that reads a text from each line and writes its translation, in the same order."""
    del source, target
    lines = ''.join(' '.join(text.split()) + '\n' for text in texts)
    try:
        process = subprocess.run(
            shlex.split(argument), input=lines.encode(), capture_output=True, check=False
        )
    except OSError as error:
        raise ValueError(f'{argument}: expected a program, got {error}') from None
    if process.returncode:
        message = process.stderr.decode(errors='replace').strip().splitlines() or ['no message']
        raise ValueError(
            f'{argument}: expected exit code 0, got {process.returncode}: {message[-1]}'
        )
    try:
        output = process.stdout.decode().removesuffix('\n').split('\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{argument}: expected UTF-8, got {error}') from None
    if len(output) != len(texts):
        raise ValueError(f'{argument}: expected {len(texts)} lines, got {len(output)}')
    return [' '.join(line.split()) for line in output]


def _run_ctranslate2(argument: str, texts: list[str], source: str, target: str) -> list[str]:
    """A model that CTranslate2's converters wrote, with its SentencePiece files beside it."""
    model, encode, decode, vocabulary = load_ctranslate2(argument)
    before, prefix = _language_tokens(argument, vocabulary, source, target)
    pieces = [[*before, *encode(text)] for text in texts]
    pieces = [x if x[-1:] == ['</s>'] else [*x, '</s>'] for x in pieces]
    results = model.translate_batch(
        pieces,
        target_prefix=[prefix] * len(texts) if prefix else None,
        max_batch_size=_BATCH_TOKENS,  # it sorts by length first
        batch_type='tokens',
        max_input_length=1024,
        beam_size=4,
    )
    return [decode(x.hypotheses[0][len(prefix) :]) for x in results]


@functools.lru_cache(4)
def load_ctranslate2(folder: str) -> tuple:
    """(model, function from a text to pieces, function back, vocabulary) of a directory."""
    folder = pathlib.Path(folder)
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
    encoder, decoder = (
        sentencepiece.SentencePieceProcessor(model_file=str(folder / name)) for name in names
    )
    model = ctranslate2.Translator(str(folder), compute_type='auto')
    encode = functools.partial(encoder.encode, out_type=str)
    return model, encode, decoder.decode, vocabulary


def _language_tokens(
    folder: str, vocabulary: set[str], source: str, target: str
) -> tuple[list[str], list[str]]:
    """The tokens that stand before the source, and those before the target."""
    checked = source, target
    if 'eng_Latn' in vocabulary:
        names = [_NLLB.get(x, x) for x in checked]
    elif '__en__' in vocabulary:
        names = [f'__{x}__' for x in checked]
    elif any(x.startswith('>>') for x in vocabulary):  # OPUS-MT of several languages
        names, checked = [f'>>{target}<<'], (target,)
        if names[0] not in vocabulary:
            names = [f'>>{_NLLB.get(target, target).split("_")[0]}<<']
    else:
        names, checked = [], ()
    for name, language in zip(names, checked, strict=True):
        if name not in vocabulary:
            raise ValueError(f'{folder}: expected a language of the model, got {language!r}')
    return names[:1], names[1:]


_KINDS = {'command': _run_command, 'ctranslate2': _run_ctranslate2}
