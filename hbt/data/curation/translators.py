"""Machine translation behind one function: `engine(texts, source, target) -> translations`."""

import functools
import pathlib
import re
import shlex
import subprocess
from collections import abc

import sentencepiece

from hbt.data.curation import dictionaries
from hbt.utils import files, languages

Engine = abc.Callable[[list[str], str, str], list[str]]


def make_engine(specs: abc.Sequence[str], targets: abc.Sequence[str]) -> Engine:
    """The engine that specs `[LANGUAGE=]KIND:ARGUMENT` describe.

    One with a language is for that target only; {source} and {target} in an argument stand for the
    codes. Raises ValueError for a spec that is not understood, or a target without an engine.
    """
    engines = {}
    for spec in specs:
        match = re.fullmatch(r'(?:([\w-]+)=)?(\w+):(.+)', spec)
        if not match or match[2] not in _KINDS:
            kinds = ' or '.join(f'{kind}:ARGUMENT' for kind in _KINDS)
            raise ValueError(f'--engine: expected [LANGUAGE=]{kinds}, got {spec!r}')
        for target in (match[1],) if match[1] else targets:
            engines.setdefault(target, (_KINDS[match[2]], match[3]))
    for target in targets:
        if target not in engines:
            raise ValueError(f'--engine: expected one for {target}, got {", ".join(specs)}')

    def translate(texts: list[str], source: str, target: str) -> list[str]:
        run, argument = engines[target]
        argument = argument.replace('{source}', source).replace('{target}', target)
        return run(argument, texts, source, target)

    return translate


def _run_command(argument: str, texts: list[str], *_) -> list[str]:
    """A program that reads a text from each line and writes its translation, in the same order."""
    lines = ''.join(' '.join(text.split()) + '\n' for text in texts)
    try:
        process = subprocess.run(shlex.split(argument), input=lines.encode(), capture_output=True)
    except OSError as error:
        raise ValueError(f'{argument}: expected a program, got {error}') from None
    if process.returncode:
        message = process.stderr.decode(errors='replace').strip().splitlines() or ['no message']
        raise ValueError(
            f'{argument}: expected exit code 0, got {process.returncode}: {message[-1]}'
        )
    try:
        output = process.stdout.decode('utf-8-sig').removesuffix('\n').split('\n')
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
    results = model.translate_batch(
        [x if x[-1:] == ['</s>'] else [*x, '</s>'] for x in pieces],
        target_prefix=[prefix] * len(texts) if prefix else None,
        max_batch_size=4096,  # tokens, padding included; it sorts by length first
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
    tables = [folder / f'{x}_vocabulary.json' for x in ('shared', 'source')]
    vocabulary = {x for file in tables if file.is_file() for x in files.read_json(file, list)}
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
    return model, functools.partial(encoder.encode, out_type=str), decoder.decode, vocabulary


def _language_tokens(folder: str, vocabulary: set[str], source: str, target: str) -> tuple:
    """The tokens that stand before the source, and those before the target."""
    tokens = []
    if 'eng_Latn' in vocabulary:
        tokens = [(x, languages.nllb_name(x)) for x in (source, target)]
    elif '__en__' in vocabulary:
        tokens = [(x, f'__{x}__') for x in (source, target)]
    elif any(x.startswith('>>') for x in vocabulary):  # OPUS-MT of several languages
        code = languages.nllb_name(target).split('_')[0]  # three letters
        code = target if f'>>{target}<<' in vocabulary else code
        tokens = [(target, f'>>{code}<<')]
    for language, token in tokens:
        if token not in vocabulary:
            raise ValueError(f'{folder}: expected a language of the model, got {language!r}')
    return [token for _, token in tokens[:1]], [token for _, token in tokens[1:]]


def _run_dictionary(argument: str, texts: list[str], source: str, target: str) -> list[str]:
    """Word by word, by inputs of `hbt.prepare` that hold translations of words."""
    dictionary = dictionaries.find_dictionary(argument, source, target)
    return [dictionaries.translate_words(text, dictionary) for text in texts]


_KINDS = {
    'command': _run_command,
    'ctranslate2': _run_ctranslate2,
    'dictionary': _run_dictionary,
}
