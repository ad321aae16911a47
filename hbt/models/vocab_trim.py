"""A model without the rows of its vocabulary that are never used.

69 % of XLM-R base are token embeddings. On text that the remaining pieces cover, the trimmed model
gives the same vectors.
"""

import copy
import functools
import json
import pathlib
from collections import abc

import babel
import numpy as np
import regex
import tokenizers
from jaxtyping import Int

from hbt.data import tokenizer_files
from hbt.models import embedder, model_dir
from hbt.utils import languages, log


def trim_tokenizer(
    vocabulary: tokenizers.Tokenizer, used: abc.Iterable[int]
) -> tuple[tokenizers.Tokenizer, Int[np.ndarray, ' n']]:
    """A tokenizer of the pieces `used`, and for each of its ids the id that it had.

    It cuts a text as before if that took only pieces that are used: those kept are in the same
    order and of the same score. Special tokens are kept, and all up to the padding, from whose id
    XLM-R counts. Raises ValueError for a kind of tokenizer that is none of KINDS.
    """
    tree = json.loads(vocabulary.to_str())
    model = tree['model']
    if model['type'] not in KINDS:
        raise ValueError(f'tokenizer: expected one of {", ".join(KINDS)}, got {model["type"]}')
    kept = set(used) | {token['id'] for token in tree['added_tokens']}
    kept |= set(range(tokenizer_files.padding_id(vocabulary) + 1))
    if model.get('unk_token'):
        kept.add(vocabulary.token_to_id(model['unk_token']))
    if model.get('unk_id') is not None:
        kept.add(model['unk_id'])
    if model['type'] == 'BPE':
        kept = with_parts(model, kept)
    ids = np.array(sorted(kept), np.int64)
    new = {int(old): i for i, old in enumerate(ids)}
    if model['type'] == 'Unigram':
        model['vocab'] = [pair for i, pair in enumerate(model['vocab']) if i in new]
        model['unk_id'] = new.get(model['unk_id'])
    else:
        model['vocab'] = {piece: new[i] for piece, i in model['vocab'].items() if i in new}
    for token in tree['added_tokens']:
        token['id'] = new[token['id']]
    renumber(tree['post_processor'], new)
    return tokenizers.Tokenizer.from_str(json.dumps(tree)), ids


def with_parts(model: dict, kept: set[int]) -> set[int]:
    """The ids of byte pairs with those that they are merged from; other merges are taken out."""
    vocab, merges = model['vocab'], model['merges']
    pairs = [tuple(merge.split(' ') if isinstance(merge, str) else merge) for merge in merges]
    prefix = model.get('continuing_subword_prefix') or ''
    made = {}  # piece -> pairs that it is merged from
    for a, b in pairs:
        made.setdefault(a + b.removeprefix(prefix), []).append((a, b))
    names = {i: piece for piece, i in vocab.items()}
    todo, kept = [names[i] for i in kept if i in names], set(kept)
    while todo:
        for part in (part for pair in made.pop(todo.pop(), ()) for part in pair):
            if vocab[part] not in kept:
                kept.add(vocab[part])
            todo.append(part)
    left = [(a, b) for a, b in pairs if vocab[a + b.removeprefix(prefix)] in kept]
    model['merges'] = [list(pair) for pair in left]
    return kept


def renumber(processor: dict | None, new: dict[int, int]) -> None:
    """Gives the special tokens that a post-processor puts around texts their new ids."""
    for token in (processor or {}).get('special_tokens', {}).values():
        token['ids'] = [new[i] for i in token['ids']]
    for key in ('sep', 'cls'):
        if key in (processor or {}):
            processor[key][1] = new[processor[key][1]]
    for inner in (processor or {}).get('processors', ()):
        renumber(inner, new)


KINDS = ('Unigram', 'WordPiece', 'WordLevel', 'BPE')

BATCH = 10_000  # lines tokenised at a time


def trim(model: model_dir.Model, used: abc.Iterable[int]) -> model_dir.Model:
    """The model with the rows of `used`, special tokens and what those are made of."""
    tokenizer, ids = trim_tokenizer(model.tokenizer, used)
    table = model.params['embeddings']['token'][ids]
    params = model.params | {'embeddings': model.params['embeddings'] | {'token': table}}
    c = copy.deepcopy(model.config)
    c.encoder.vocab_size = len(ids)
    return model_dir.Model(c, params, tokenizer)


def used_by_texts(model: model_dir.Model, sources: abc.Sequence[str]) -> set[int]:
    """Ids of every piece in files of texts, one a line, with each of the model's prompts."""
    data, found = model.config.data, np.zeros(tokenizer_files.vocab_size(model.tokenizer), bool)
    prefixes = {'', data.query_prefix, data.passage_prefix}

    def take(lines: list[str]) -> None:
        for prefix in prefixes:
            for encoding in model.tokenizer.encode_batch_fast([prefix + text for text in lines]):
                found[encoding.ids] = True

    for source in sources:
        with log.progress(desc=source, unit=' texts') as bar:
            for _, lines in embedder.chunks(pathlib.Path(source), 0):
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
