"""Command line: a model -> the same model without the rows of its vocabulary that are never used.

69 % of XLM-R base are token embeddings. On text that the kept pieces cover the trimmed model gives
the same vectors.
"""

import copy
import functools
import pathlib
from collections import abc

import babel
import numpy as np
import regex
import tokenizers
from absl import flags

from hbt import embed, languages, log, pipeline, vocabulary

BATCH = 10_000  # lines tokenised at a time


def trim(model: pipeline.Model, used: abc.Iterable[int]) -> pipeline.Model:
    """The model with the rows of `used`, special tokens and what those are made of."""
    tokenizer, ids = vocabulary.trim(model.tokenizer, used)
    table = model.params['embeddings']['token'][ids]
    params = model.params | {'embeddings': model.params['embeddings'] | {'token': table}}
    c = copy.deepcopy(model.config)
    c.encoder.vocab_size = len(ids)
    return pipeline.Model(c, params, tokenizer)


def used_by_texts(model: pipeline.Model, sources: abc.Sequence[str]) -> set[int]:
    """Ids of every piece in files of texts, one a line, with each of the model's prompts."""
    data, found = model.config.data, np.zeros(vocabulary.size(model.tokenizer), bool)
    prefixes = {'', data.query_prefix, data.passage_prefix}

    def take(lines: list[str]) -> None:
        for prefix in prefixes:
            for encoding in model.tokenizer.encode_batch_fast([prefix + text for text in lines]):
                found[encoding.ids] = True

    for source in sources:
        with log.progress(desc=source, unit=' texts') as bar:
            for _, lines in embed.chunks(pathlib.Path(source), 0):
                take(lines)
                bar.update(len(lines))
    return set(np.flatnonzero(found).tolist())


def used_by_languages(tokenizer: tokenizers.Tokenizer, languages: abc.Sequence[str]) -> set[int]:
    """Ids of the pieces that are written in the scripts of languages, or in none.

    Scripts are those of the Unicode CLDR's likely subtags. ValueError for an unknown language, and
    for a byte-level tokenizer, whose pieces have no script.
    """
    if isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
        raise ValueError('--languages: expected a tokenizer of characters, got one of bytes')
    scripts = {script for language in languages for script in scripts_of(language)}
    kinds = ''.join(rf'\p{{Script={script}}}' for script in sorted(scripts))
    fits = regex.compile(rf'[{kinds}\p{{Common}}\p{{Inherited}}]*').fullmatch
    return {i for piece, i in tokenizer.get_vocab().items() if fits(piece)}


@functools.cache
def scripts_of(language: str) -> tuple[str, ...]:
    code = language.replace('-', '_')
    try:
        script = babel.Locale.parse(code).script
    except (ValueError, babel.UnknownLocaleError) as error:
        raise ValueError(f'--languages: expected codes such as en, got {language!r}') from error
    if script is None:
        likely = babel.core.get_global('likely_subtags').get(code.split('_')[0], '')
        script = likely.split('_')[1]
    return languages.WRITTEN.get(script, (script,))


def main(_) -> None:
    given = flags.FLAGS
    if bool(given.corpus) == bool(given.languages):
        raise ValueError('--corpus, --languages: expected one of them, got both or none')
    model = pipeline.read(given.model)
    if given.corpus:
        used, why = used_by_texts(model, given.corpus), 'in the texts that it was trimmed for'
    else:
        used = used_by_languages(model.tokenizer, given.languages)
        why = f'in the scripts of {", ".join(given.languages)}'
    trimmed = trim(model, used)
    sizes = [x.config.encoder.vocab_size for x in (model, trimmed)]
    text = f'{given.model} without the token embeddings that are not used {why}: {sizes[1]} of'
    card = f'# {pathlib.Path(given.out).name}\n\n{text} {sizes[0]} are kept.\n'
    pipeline.write(pathlib.Path(given.out), trimmed, card)
    log.say(f'{given.out}: {sizes[1]} of {sizes[0]} token embeddings')


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory or hub name')
    flags.DEFINE_string('out', None, 'directory to write')
    flags.DEFINE_multi_string('corpus', None, 'file of texts, one a line; repeatable')
    flags.DEFINE_list('languages', None, 'keep all pieces in the scripts of these: en,de,ja')
    flags.mark_flags_as_required(['model', 'out'])
    log.program(main)
