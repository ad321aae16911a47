"""Tokenizers: read from a directory, and what is asked of them.

Hides the files of tokenizers. Called by `prepare`, `train` and `pipeline`.
"""

import json
import pathlib

import tokenizers

from hbt.utils import files

VOCABULARIES = ('vocab.txt', 'sentencepiece.bpe.model')
PATTERNS = (  # of the files from which `load_tokenizer` and transformers build a tokenizer
    'config.json',
    'tokenizer*.json',
    'special_tokens_map.json',
    'sentence_bert_config.json',
    *VOCABULARIES,
)


def has_tokenizer(path: pathlib.Path) -> bool:
    """Whether `read` finds one in a directory."""
    return any((path / name).is_file() for name in ('tokenizer.json', *VOCABULARIES))


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json or of a directory; it neither pads nor cuts.

    Where sentence-transformers' settings in the directory say so, it takes texts in lower case.
    """
    file = path / 'tokenizer.json' if path.is_dir() else path
    if file.is_file():
        try:
            result = tokenizers.Tokenizer.from_file(str(file))
            result.encode('Hello, 1')
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # nothing more special, and where it panics less
            raise files.format_error(file, 'a tokenizer.json', error) from error
    elif any((path / vocabulary).is_file() for vocabulary in VOCABULARIES):
        result = convert(path)
    else:
        expected = ' or '.join(('tokenizer.json', *VOCABULARIES))
        raise ValueError(
            f'{path}: expected a directory with {expected}, got {files.describe_path(path)}'
        )
    result.no_padding()
    result.no_truncation()
    settings = file.with_name('sentence_bert_config.json')
    if files.read_optional_json(settings).get('do_lower_case'):
        lowercase(result)
    return result


def convert(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """What transformers makes of a vocabulary; version 5 at times silently makes it of nothing."""
    try:
        import transformers  # takes seconds, and few checkpoints have no tokenizer.json

        loaded = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        result = loaded.backend_tokenizer
    except Exception as error:  # whatever its many converters raise
        raise ValueError(
            f'{folder}: expected a vocabulary for transformers, with config.json or'
            ' tokenizer_config.json beside it and sentencepiece and protobuf installed,'
            f' got {type(error).__name__}: {files.first_line(error)}'
        ) from error
    unknown = {result.token_to_id('<unk>'), result.token_to_id('[UNK]')}
    size = result.get_vocab_size()
    if size < 100 or unknown.issuperset(result.encode('hello', add_special_tokens=False).ids):
        raise ValueError(
            f'{folder}: expected a tokenizer of 100 tokens or more that can spell hello, got {size}'
            ' tokens that cannot; if they are right, save them as tokenizer.json'
        )
    return result


def padding_id(vocabulary: tokenizers.Tokenizer) -> int:
    """The id of padding."""
    for token in ('<pad>', '[PAD]'):
        number = vocabulary.token_to_id(token)
        if number is not None:
            return number
    size = vocabulary.get_vocab_size()
    raise ValueError(f'tokenizer: expected a token <pad> or [PAD], got neither among {size} tokens')


def end_id(vocabulary: tokenizers.Tokenizer) -> int | None:
    """The id of the special token that ends every text, if there is one."""
    return (vocabulary.encode('').ids or [None])[-1]


def check_same_tokenizer(
    store_path: pathlib.Path, vocabulary: tokenizers.Tokenizer, owner: str
) -> None:
    """Raises ValueError unless a store was made with the tokenizer of a model.

    Args:
      store_path: directory of the store.
      vocabulary: the tokenizer of the model.
      owner: the model, for the message.
    """
    stored = load_tokenizer(store_path / 'tokenizer.json').get_vocab()
    differences = stored.items() ^ vocabulary.get_vocab().items()
    if differences:
        token, _ = min(differences, key=lambda item: item[::-1])
        raise ValueError(
            f'{store_path}: expected a store made with the tokenizer of {owner}, got one whose '
            f'tokens differ, such as {token!r}; prepare it again with that --tokenizer'
        )


def vocab_size(vocabulary: tokenizers.Tokenizer) -> int:
    """The greatest id, plus one: as many rows a table of tokens needs."""
    return max(vocabulary.get_vocab().values()) + 1


def lowercase(vocabulary: tokenizers.Tokenizer) -> None:
    """Makes it take every text in lower case."""
    first, rest = tokenizers.normalizers.Lowercase(), vocabulary.normalizer
    kept = [first] if rest is None else [first, rest]
    vocabulary.normalizer = tokenizers.normalizers.Sequence(kept)


def special_ids(vocabulary: tokenizers.Tokenizer) -> dict[str, int]:
    """The ids that every text begins and ends with, as config.json names them."""
    ids = vocabulary.encode('').ids
    return {'bos_token_id': ids[0], 'eos_token_id': ids[-1]} if len(ids) > 1 else {}


def save_tokenizer(folder: pathlib.Path, vocabulary: tokenizers.Tokenizer, longest: int) -> None:
    """Writes the files from which transformers makes the tokenizer; it cuts texts at `longest`."""
    vocabulary.save(str(folder / 'tokenizer.json'))
    found = {
        role: next((name for name in names if vocabulary.token_to_id(name) is not None), None)
        for role, names in ROLES.items()
    }
    roles = {role: name for role, name in found.items() if name}
    settings = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': longest,
        'model_input_names': ['input_ids', 'attention_mask'],
        'clean_up_tokenization_spaces': False,
    }
    for name, content in (('tokenizer_config', settings | roles), ('special_tokens_map', roles)):
        (folder / f'{name}.json').write_text(json.dumps(content, indent=2) + '\n')


ROLES = {
    'bos_token': ('<s>',),
    'cls_token': ('<s>', '[CLS]'),
    'eos_token': ('</s>',),
    'sep_token': ('</s>', '[SEP]'),
    'unk_token': ('<unk>', '[UNK]'),
    'pad_token': ('<pad>', '[PAD]'),
    'mask_token': ('<mask>', '[MASK]'),
}
