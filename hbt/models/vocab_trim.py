"""A model without unused token embeddings, with the same vectors for texts of the others."""

import copy
import json
import pathlib
from collections import abc

import numpy as np
import regex
import tokenizers
from jaxtyping import Int

from hbt.data import tokenizer_files
from hbt.models import embedding_file, model_dir
from hbt.utils import languages, log

KINDS = ('Unigram', 'WordPiece', 'WordLevel', 'BPE')


def trim_model(
    model: model_dir.Model, codes: abc.Sequence[str], corpus: abc.Sequence[str]
) -> tuple[model_dir.Model, str]:
    """Removes token embeddings; special tokens stay. Returns the model, and a note for its card.

    Remaining pieces are written in the scripts of the languages `codes`, or spell the texts in the
    files `corpus`, one a line.
    """
    if bool(codes) == bool(corpus):
        raise ValueError('--corpus, --languages: expected one of them, got both or none')
    if corpus:
        used, where = _used_by_texts(model, corpus), 'in the texts that it was trimmed for'
    else:
        used = used_by_languages(model.tokenizer, codes)
        where = f'in the scripts of {", ".join(codes)}'
    tokenizer, ids = trim_tokenizer(model.tokenizer, used)
    table = model.params['embeddings']['token'][ids]
    params = model.params | {'embeddings': model.params['embeddings'] | {'token': table}}
    c, size = copy.deepcopy(model.config), model.config.encoder.vocab_size
    c.encoder.vocab_size = len(ids)
    log.info(f'{len(ids)} of {size} token embeddings remain')
    note = f'the token embeddings that are not used {where}: {len(ids)} of {size} are kept'
    return model_dir.Model(c, params, tokenizer), f'without {note}'


def trim_tokenizer(
    tokenizer: tokenizers.Tokenizer, used: abc.Iterable[int]
) -> tuple[tokenizers.Tokenizer, Int[np.ndarray, ' n']]:
    """Returns a tokenizer of the pieces `used`, and for each of its ids the one in `tokenizer`.

    It splits a text as before if all pieces of that text remain, since their order and scores do.
    Special tokens remain, and all ids up to that of padding, from which XLM-R counts positions.
    Raises ValueError for a tokenizer that is none of `KINDS`.
    """
    tree = json.loads(tokenizer.to_str())
    model = tree['model']
    if model['type'] not in KINDS:
        raise ValueError(f'tokenizer: expected one of {", ".join(KINDS)}, got {model["type"]}')
    remaining = set(used) | {token['id'] for token in tree['added_tokens']}
    remaining |= set(range(tokenizer_files.padding_id(tokenizer) + 1))
    unknown = {model.get('unk_id'), tokenizer.token_to_id(model.get('unk_token') or '')}
    remaining |= unknown - {None}
    if model['type'] == 'BPE':
        remaining = _trim_merges(model, remaining)
    ids = np.array(sorted(remaining), np.int64)
    new_ids = {int(old): new for new, old in enumerate(ids)}
    if model['type'] == 'Unigram':
        model['vocab'] = [entry for i, entry in enumerate(model['vocab']) if i in new_ids]
        model['unk_id'] = new_ids.get(model['unk_id'])
    else:
        model['vocab'] = {x: new_ids[i] for x, i in model['vocab'].items() if i in new_ids}
    for token in tree['added_tokens']:
        token['id'] = new_ids[token['id']]
    _renumber(tree['post_processor'], new_ids)
    return tokenizers.Tokenizer.from_str(json.dumps(tree)), ids


def _trim_merges(model: dict, ids: set[int]) -> set[int]:
    """Removes the merges of other byte pairs; returns `ids` with those that they merge."""
    vocab, prefix = model['vocab'], model.get('continuing_subword_prefix') or ''
    merges = [tuple(x.split(' ') if isinstance(x, str) else x) for x in model['merges']]
    parts = {}  # piece -> pairs that it is merged from
    for a, b in merges:
        parts.setdefault(a + b.removeprefix(prefix), []).append((a, b))
    pieces = {i: piece for piece, i in vocab.items()}
    pending, ids = [pieces[i] for i in ids if i in pieces], set(ids)
    while pending:
        for pair in parts.pop(pending.pop(), ()):
            ids.update(vocab[part] for part in pair)
            pending += pair
    model['merges'] = [[a, b] for a, b in merges if vocab[a + b.removeprefix(prefix)] in ids]
    return ids


def _renumber(processor: dict | None, new_ids: dict[int, int]) -> None:
    """Gives the special tokens that a post-processor puts around texts their new ids."""
    processor = processor or {}
    for token in processor.get('special_tokens', {}).values():
        token['ids'] = [new_ids[i] for i in token['ids']]
    for key in ('sep', 'cls'):
        if key in processor:
            processor[key][1] = new_ids[processor[key][1]]
    for inner in processor.get('processors', ()):
        _renumber(inner, new_ids)


def _used_by_texts(model: model_dir.Model, corpus: abc.Sequence[str]) -> set[int]:
    """Ids of the pieces of the texts in files, with each of the model's prompts."""
    data, used = model.config.data, np.zeros(tokenizer_files.vocab_size(model.tokenizer), bool)
    prefixes = {'', data.query_prefix, data.passage_prefix}
    chunks = (x for file in corpus for x in embedding_file.iter_text_chunks(pathlib.Path(file)))
    with log.progress(desc='corpus', unit=' texts') as bar:
        for texts in chunks:
            prompted = [prefix + text for prefix in prefixes for text in texts]
            for encoding in model.tokenizer.encode_batch_fast(prompted):
                used[encoding.ids] = True
            bar.update(len(texts))
    return set(np.flatnonzero(used).tolist())


def used_by_languages(tokenizer: tokenizers.Tokenizer, codes: abc.Sequence[str]) -> set[int]:
    """Returns the ids of the pieces that are written in the scripts of languages, or in none."""
    if isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
        raise ValueError('--languages: expected a tokenizer of characters, got one of bytes')
    for code in codes:
        languages.check_language(code, '--languages')
    scripts = sorted({script for code in codes for script in languages.character_scripts(code)})
    kinds = ''.join(rf'\p{{Script={script}}}' for script in scripts)
    is_covered = regex.compile(rf'[{kinds}\p{{Common}}\p{{Inherited}}]*').fullmatch
    return {i for piece, i in tokenizer.get_vocab().items() if is_covered(piece)}
