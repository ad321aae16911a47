"""Tokenizers: loaded, trained and saved; their special tokens; whether two are the same."""

import json
import os
import pathlib
from collections import abc

import tokenizers

from hbt.utils import files

FILES = ('tokenizer.json', 'vocab.txt', 'sentencepiece.bpe.model')  # one of which is a tokenizer
SETTINGS = ('config.json', 'special_tokens_map.json', 'added_tokens.json')  # of transformers
_NAMES = ('bert', 'roberta', 'distilbert', 'camembert', 'albert', 'xlm-roberta', 'xlnet')
SENTENCE_FILES = tuple(f'sentence_{name}_config.json' for name in _NAMES)  # the first wins
PATTERNS = ('tokenizer*.json', *FILES[1:], *SETTINGS, *SENTENCE_FILES)  # that are read here
# model_type -> kind of the models that its class in transformers rebuilds
_MODELS = {'bert': 'WordPiece', 'xlm-roberta': 'Unigram', 'roberta': 'BPE'}
_ROLES = {'bos_token': ['<s>'], 'cls_token': ['<s>', '[CLS]'], 'eos_token': ['</s>']}
_ROLES |= {'sep_token': ['</s>', '[SEP]'], 'unk_token': ['<unk>', '[UNK]']}
_ROLES |= {'pad_token': ['<pad>', '[PAD]'], 'mask_token': ['<mask>', '[MASK]']}


def has_tokenizer(path: pathlib.Path) -> bool:
    """Whether `load_tokenizer` finds one in a directory."""
    return any((path / name).is_file() for name in FILES)


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json or of a directory; it neither pads nor truncates.

    Settings in the directory have their say: those of transformers (tokenizer_config.json and
    others), as transformers reads them, and `do_lower_case` of sentence-transformers. Raises
    ValueError if there is no tokenizer, one that cannot be read, or one that settings contradict.
    """
    file = path / FILES[0] if path.is_dir() else path
    if file.is_file():
        result = _read_tokenizer(file)
        if file.name == FILES[0] and _has_settings(file.parent, result):
            result = _apply_settings(result, file.parent)
    elif has_tokenizer(path):
        result = _convert_vocabulary(path)
    else:
        expected = f'a directory with {" or ".join(FILES)}'
        raise ValueError(f'{path}: expected {expected}, got {files.describe_path(path)}')
    result.no_padding()
    result.no_truncation()
    settings, content = read_sentence_settings(file.parent)
    lower = content.get('do_lower_case') or False
    if not isinstance(lower, bool):
        raise ValueError(f'{settings}: do_lower_case: expected true or false, got {lower!r}')
    if lower:
        _add_lower_case(result)
    return result


def _add_lower_case(tokenizer: tokenizers.Tokenizer) -> None:
    """Puts it before the other normalizers, unless it is one of them, as sentence-transformers."""
    steps, first = tokenizer.normalizer, tokenizers.normalizers.Lowercase()
    if not isinstance(steps, tokenizers.normalizers.Sequence):
        steps = [steps] if steps else []
    if not any(isinstance(x, tokenizers.normalizers.Lowercase) for x in steps):
        tokenizer.normalizer = tokenizers.normalizers.Sequence([first, *steps])


def read_sentence_settings(folder: pathlib.Path) -> tuple[pathlib.Path, dict]:
    """The settings that sentence-transformers reads for an encoder, and their file.

    The file has other names in old directories. Of several, the first that is not empty counts.
    """
    for name in SENTENCE_FILES:
        if content := files.read_optional_json(folder / name):
            return folder / name, content
    return folder / SENTENCE_FILES[0], {}


def _read_tokenizer(file: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        result = tokenizers.Tokenizer.from_file(str(file))
        result.encode('Hello, 1')
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library panics with nothing more special
        raise files.format_error(file, 'a tokenizer.json', error) from error
    return result


def _has_settings(folder: pathlib.Path, tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether files beside a tokenizer name a class for it, or their model has one for its kind."""
    if (folder / 'tokenizer_config.json').is_file():
        return True
    content = files.read_optional_json(folder / 'config.json')  # or that of a training run
    kind = _MODELS.get(str(content.get('model_type')))
    return 'tokenizer_class' in content or kind == type(tokenizer.model).__name__


def _apply_settings(tokenizer: tokenizers.Tokenizer, folder: pathlib.Path) -> tokenizers.Tokenizer:
    """What transformers makes of tokenizer.json by the settings beside it.

    Its classes rebuild parts of a tokenizer, such as BERT's normalizer with `do_lower_case`, from
    the settings alone. A class for another kind of model would make it another tokenizer.
    """
    vocabulary, options = tokenizer.get_vocab(), {}
    if not any(token in vocabulary for token in _ROLES['mask_token']):
        options['mask_token'] = None  # a default, which would be an id without an embedding
    expected = 'settings of a tokenizer that transformers can read'
    result = _convert_by_transformers(folder, expected, **options)
    ours, theirs = (type(x.model).__name__ for x in (tokenizer, result))
    if ours != theirs:
        raise ValueError(
            f'{folder}: tokenizer_class: expected one for {ours} as in tokenizer.json, such as '
            f'PreTrainedTokenizerFast in tokenizer_config.json, got one for {theirs}'
        )
    return result


def _convert_by_transformers(folder: pathlib.Path, expected: str, **options):
    """The tokenizer that transformers makes of a directory; ValueError for what is not right."""
    os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')  # that torch is missing
    try:
        import transformers  # takes seconds, which not every program needs

        result = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
        tokenizer, side = result.backend_tokenizer, result.truncation_side
        tokenizer.encode('Hello, 1')
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # its many converters raise anything, and the library panics
        got = f'{type(error).__name__}: {files.first_line(error)}'
        raise ValueError(f'{folder}: expected {expected}, got {got}') from error
    if side != 'right':
        raise ValueError(f"{folder}: truncation_side: expected 'right', got {side!r}")
    if tokenizer.encode_special_tokens:  # a tokenizer.json cannot say so
        raise ValueError(f'{folder}: split_special_tokens: expected false, got true')
    return tokenizer


def _convert_vocabulary(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """Lets transformers convert a vocabulary; version 5 at times silently makes one of nothing."""
    result = _convert_by_transformers(
        folder,
        'a vocabulary for transformers, with config.json or tokenizer_config.json beside it and '
        'sentencepiece and protobuf installed',
    )
    unknown = {result.token_to_id('<unk>'), result.token_to_id('[UNK]')}
    size = result.get_vocab_size()
    if size < 100 or unknown.issuperset(result.encode('hello', add_special_tokens=False).ids):
        raise ValueError(
            f'{folder}: expected a tokenizer of 100 tokens or more that can spell hello, got {size}'
            ' tokens that cannot; if they are right, save them as tokenizer.json'
        )
    return result


def train_tokenizer(
    spec: str, iter_texts: abc.Callable[[], abc.Iterable[str]]
) -> tokenizers.Tokenizer:
    """Trains a tokenizer of the size in `train:SIZE`: byte pairs, with XLM-R's special tokens.

    With `train:SIZE:static` none of these are put around a text, as static encoders want it; with
    `train:SIZE:bert` its pieces and special tokens are those of multilingual BERT (WordPiece),
    and the texts are read twice. The same texts always give the same tokenizer.
    """
    size, _, kind = spec.removeprefix('train:').partition(':')
    if not size.isdigit() or int(size) < 300 or kind not in ('', 'static', 'bert'):
        expected = 'train:SIZE, train:SIZE:static or train:SIZE:bert, with a SIZE of 300 or more'
        raise ValueError(f'tokenizer: expected {expected}, got {spec!r}')
    train = _train_word_pieces if kind == 'bert' else _train_byte_pairs
    tokenizer, special = train(int(size), iter_texts)
    if kind != 'static':
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f'{special[0]} $A {special[1]}', special_tokens=ids
        )
    return tokenizer


def _train_byte_pairs(size: int, iter_texts) -> tuple[tokenizers.Tokenizer, tuple[str, str]]:
    """A tokenizer, and the tokens to put around a text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='<unk>'))
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Metaspace(), pre.Punctuation(), pre.Digits()])
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=['<s>', '<pad>', '</s>', '<unk>'], show_progress=False
    )
    tokenizer.train_from_iterator(iter_texts(), trainer)
    return tokenizer, ('<s>', '</s>')


def _train_word_pieces(size: int, iter_texts) -> tuple[tokenizers.Tokenizer, tuple[str, str]]:
    """The same for the pieces of BERT."""
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    # The trainer numbers the characters inside words (##x) in a random order, and of equally
    # frequent pairs it merges that of the smallest numbers: without sorted numbers every training
    # gives other pieces. Special tokens are numbered first.
    characters = _run_word_piece_trainer(0, special, iter_texts()).get_vocab()
    inside = sorted(x for x in characters if x.startswith('##'))
    tokenizer = _run_word_piece_trainer(size, special + inside, iter_texts())
    saved = json.loads(tokenizer.to_str())
    saved['added_tokens'] = [x for x in saved['added_tokens'] if x['content'] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(saved)), ('[CLS]', '[SEP]')


def _run_word_piece_trainer(
    size: int, special: list[str], texts: abc.Iterable[str]
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token='[UNK]'))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def without_special_tokens(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that puts no special tokens around a text."""
    return tokenizers.Tokenizer.from_str(
        json.dumps(json.loads(tokenizer.to_str()) | {'post_processor': None})
    )


def truncating(tokenizer: tokenizers.Tokenizer, length: int) -> tokenizers.Tokenizer:
    """A copy that cuts every text at `length` tokens."""
    result = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    result.enable_truncation(length)
    return result


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
