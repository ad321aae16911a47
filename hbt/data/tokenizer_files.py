"""Tokenizers: loaded, trained and saved; their special tokens; whether two are the same."""

import pathlib
from collections import abc

import tokenizers

from hbt.utils import files

FILES = ('tokenizer.json', 'vocab.txt', 'sentencepiece.bpe.model')  # one of which is a tokenizer
SETTINGS = ('config.json', 'special_tokens_map.json', 'sentence_bert_config.json')
PATTERNS = ('tokenizer*.json', *FILES[1:], *SETTINGS)  # that `load_tokenizer` and transformers read
_ROLES = {'bos_token': ['<s>'], 'cls_token': ['<s>', '[CLS]'], 'eos_token': ['</s>']}
_ROLES |= {'sep_token': ['</s>', '[SEP]'], 'unk_token': ['<unk>', '[UNK]']}
_ROLES |= {'pad_token': ['<pad>', '[PAD]'], 'mask_token': ['<mask>', '[MASK]']}


def has_tokenizer(path: pathlib.Path) -> bool:
    """Whether `load_tokenizer` finds one in a directory."""
    return any((path / name).is_file() for name in FILES)


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json or of a directory; it neither pads nor truncates.

    It lowers the case of texts if settings of sentence-transformers say so. Raises ValueError if
    there is no tokenizer, or one that cannot be read.
    """
    file = path / 'tokenizer.json' if path.is_dir() else path
    if file.is_file():
        try:
            result = tokenizers.Tokenizer.from_file(str(file))
            result.encode('Hello, 1')
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the library panics with nothing more special
            raise files.format_error(file, 'a tokenizer.json', error) from error
    elif has_tokenizer(path):
        result = _convert_vocabulary(path)
    else:
        expected = f'a directory with {" or ".join(FILES)}'
        raise ValueError(f'{path}: expected {expected}, got {files.describe_path(path)}')
    result.no_padding()
    result.no_truncation()
    settings = file.with_name('sentence_bert_config.json')
    if files.read_optional_json(settings).get('do_lower_case'):
        steps = [tokenizers.normalizers.Lowercase(), result.normalizer]
        result.normalizer = tokenizers.normalizers.Sequence([x for x in steps if x])
    return result


def _convert_vocabulary(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """Lets transformers convert a vocabulary; version 5 at times silently makes one of nothing."""
    try:
        import transformers  # takes seconds, and few checkpoints have no tokenizer.json

        result = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    except Exception as error:  # its many converters raise anything
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


def train_tokenizer(spec: str, texts: abc.Iterable[str]) -> tokenizers.Tokenizer:
    """Trains a byte-pair tokenizer of the size in `train:SIZE`, with XLM-R's special tokens."""
    size = spec.removeprefix('train:')
    if not size.isdigit() or int(size) < 300:
        raise ValueError(f'tokenizer: expected train:SIZE of 300 or more, got {spec!r}')
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='<unk>'))
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Metaspace(), pre.Punctuation(), pre.Digits()])
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=['<s>', '<pad>', '</s>', '<unk>'], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return tokenizer


def padding_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The id of the padding token."""
    vocabulary = tokenizer.get_vocab()
    if tokens := [x for x in _ROLES['pad_token'] if x in vocabulary]:
        return vocabulary[tokens[0]]
    size = len(vocabulary)
    raise ValueError(f'tokenizer: expected a token <pad> or [PAD], got neither among {size} tokens')


def end_id(tokenizer: tokenizers.Tokenizer) -> int | None:
    """The id of the special token that ends every text, if there is one."""
    return (tokenizer.encode('').ids or [None])[-1]


def vocab_size(tokenizer: tokenizers.Tokenizer) -> int:
    """The greatest id plus one: the rows that a table of token embeddings needs."""
    return max(tokenizer.get_vocab().values()) + 1


def check_same_tokenizer(store_path: pathlib.Path, tokenizer, owner: str) -> None:
    """ValueError unless a store was made with this tokenizer, that of the model `owner`."""
    stored = load_tokenizer(store_path / 'tokenizer.json').get_vocab()
    differences = stored.items() ^ tokenizer.get_vocab().items()
    if differences:
        token, _ = min(differences, key=lambda item: item[::-1])
        raise ValueError(
            f'{store_path}: expected a store made with the tokenizer of {owner}, got one whose '
            f'tokens differ, such as {token!r}; prepare it again with that --tokenizer'
        )


def make_settings(tokenizer: tokenizers.Tokenizer, max_length: int) -> dict[str, dict]:
    """File -> content of what transformers needs beside tokenizer.json to build the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    present = {role: [x for x in names if x in vocabulary] for role, names in _ROLES.items()}
    roles = {role: names[0] for role, names in present.items() if names}
    settings = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': max_length,
        'model_input_names': ['input_ids', 'attention_mask'],
        'clean_up_tokenization_spaces': False,
    }
    return {'tokenizer_config.json': settings | roles, 'special_tokens_map.json': roles}
