"""Pretrained weights and tokenizers of Hugging Face, without its model classes.

Hides names, configurations and the hub. `NAMES` is the one table of names: `load` applies it from
file to pytree, `to_hf` backwards. Called by `train`, `evaluate`, `prepare` and `export`.
"""

import dataclasses
import json
import pathlib
import re
from collections import abc

import huggingface_hub
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import traverse_util

from hbt import config, encoder, weights

NAMES = {  # ours -> Hugging Face's, without the last word
    'embeddings/token': 'embeddings.word_embeddings',
    'embeddings/position': 'embeddings.position_embeddings',
    'embeddings/type': 'embeddings.token_type_embeddings',
    'embeddings/norm': 'embeddings.LayerNorm',
    'layers/query': 'encoder.layer.{}.attention.self.query',
    'layers/key': 'encoder.layer.{}.attention.self.key',
    'layers/value': 'encoder.layer.{}.attention.self.value',
    'layers/attention_out': 'encoder.layer.{}.attention.output.dense',
    'layers/attention_norm': 'encoder.layer.{}.attention.output.LayerNorm',
    'layers/ffn_in': 'encoder.layer.{}.intermediate.dense',
    'layers/ffn_out': 'encoder.layer.{}.output.dense',
    'layers/ffn_norm': 'encoder.layer.{}.output.LayerNorm',
}
WORDS = {  # the last word: ours and Flax's -> PyTorch's, today's first
    'embedding': ('weight',),
    'kernel': ('weight',),  # transposed
    'scale': ('weight', 'gamma'),
    'bias': ('bias', 'beta'),
}
PREFIX = re.compile(r'(params\.)?(model\.)?(roberta\.|xlm_roberta\.|bert\.)?')
DROPPED = re.compile(  # heads and constants, which an encoder of texts has no use for
    r'(pooler|lm_head|cls|classifier|qa_outputs|embeddings\.(position_ids$|token_type_ids$))\b'
)
KEYS = {  # key of config.json -> our setting, and what transformers takes where the key is absent
    'vocab_size': ('vocab_size', 30522),
    'hidden_size': ('dim', 768),
    'num_hidden_layers': ('layers', 12),
    'num_attention_heads': ('heads', 12),
    'intermediate_size': ('hidden', 3072),
    'max_position_embeddings': ('positions', 512),
    'type_vocab_size': ('types', 2),
    'pad_token_id': ('pad_id', 1),
    'layer_norm_eps': ('eps', 1e-12),
    'hidden_act': ('activation', 'gelu'),
}
MODELS = {  # model_type -> our family, and where its absent keys differ from KEYS
    'xlm-roberta': ('xlmr', {}),
    'roberta': ('xlmr', {'vocab_size': 50265}),
    'bert': ('bert', {'pad_token_id': 0}),
}
REQUIRED = {'position_embedding_type': 'absolute', 'is_decoder': False}  # where stated at all
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_python': 'gelu',
    'gelu_new': 'gelu_new',
    'gelu_fast': 'gelu_new',
    'gelu_pytorch_tanh': 'gelu_new',
}
VOCABULARIES = ('vocab.txt', 'sentencepiece.bpe.model')
SMALL_FILES = ('config.json', 'tokenizer*.json', 'special_tokens_map.json', *VOCABULARIES)


def resolve(name: str, weights: bool = True) -> pathlib.Path:
    """The existing file or directory `name`, else the hub's snapshot of that name.

    Of a hub name only what is read here is downloaded: the files of configuration and tokenizer
    and, with `weights`, one file of them or its shards. What is in the cache is not downloaded
    again, and with HF_HUB_OFFLINE nothing is.
    """
    path = pathlib.Path(name).expanduser()
    if name and path.exists():
        return path
    if name[:1] in ('', '.', '/', '~') or name.count('/') > 1 or path.suffix == '.json':
        raise ValueError(f'{name!r}: no such file or directory')
    try:
        folder = download(name, SMALL_FILES)
        if weights:
            folder = complete(name, folder)
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        raise unreachable(name, error.__cause__ or error) from error
    return folder


def download(name: str, files: tuple[str, ...]) -> pathlib.Path:
    return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))


def unreachable(name: str, error: BaseException) -> ValueError:
    return ValueError(
        f'{name!r}: expected a file, a directory or a name on the Hugging Face hub, got no such'
        f' path and from the hub {type(error).__name__}: {weights.first_line(error)}. With a'
        f' network: `hf download {name} --local-dir DIR`, then pass DIR'
    )


def complete(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The snapshot `folder` of a hub name with the weights of the first kind that the hub has."""
    for file in weights.READERS:
        if not weights.find(folder):
            folder = download(name, (file, file + weights.INDEX))
    found = weights.find(folder)
    shards = weights.shards(found) if found and found.name.endswith(weights.INDEX) else ()
    if all((folder / shard).is_file() for shard in shards):
        return folder
    return download(name, tuple(shards))


def architecture(path: str | pathlib.Path, base: config.Encoder) -> config.Encoder:
    """`base` with the family and the sizes that config.json in the directory `path` states."""
    file = pathlib.Path(path) / 'config.json'
    if not file.is_file():
        raise ValueError(
            f'{path}: expected a directory with config.json, got {weights.listing(path)}'
        )
    try:
        stated = dict(json.loads(file.read_text('utf-8')))
    except (ValueError, TypeError) as error:
        raise weights.broken(file, 'a JSON object', error) from error
    kind = stated.get('model_type')
    demand(kind in MODELS, file, 'model_type', f'one of {", ".join(MODELS)}', kind)
    for key, value in REQUIRED.items():
        demand(stated.get(key) in (value, None), file, key, f'{value} or nothing', stated.get(key))
    family, absent = MODELS[kind]
    values = {'family': family}
    for key, (setting, default) in KEYS.items():
        value = values[setting] = stated.get(key, absent.get(key, default))
        if setting == 'activation':
            demand(value in ACTIVATIONS, file, key, f'one of {", ".join(ACTIVATIONS)}', value)
            values[setting] = ACTIVATIONS[value]
        elif setting == 'eps':
            demand(type(value) in (int, float) and value > 0, file, key, 'a positive number', value)
            values[setting] = float(value)
        else:
            least = 0 if setting == 'pad_id' else 1
            holds = type(value) is int and value >= least
            demand(holds, file, key, f'an integer from {least} on', value)
    dim, heads = values['dim'], values['heads']
    demand(dim % heads == 0, file, 'hidden_size', f'a multiple of num_attention_heads={heads}', dim)
    return dataclasses.replace(base, **values)


def demand(holds: bool, file, key: str, expected: str, got):
    if not holds:
        raise ValueError(f'{file}: {key}: expected {expected}, got {got!r}')


def tensors(c: config.Encoder) -> abc.Iterator[tuple[str, int | None, list[str]]]:
    """Yields (our path, layer if any, its names: Flax's, PyTorch's, older ones) of each tensor."""
    for path in encoder.shapes(c):
        module, word = (path, 'embedding') if path in NAMES else path.rsplit('/', 1)
        for layer in range(c.layers) if path.startswith('layers/') else (None,):
            name = NAMES[module].format(layer)
            yield path, layer, [f'{name}.{last}' for last in (word, *WORDS[word])]


def is_transposed(path: str, name: str) -> bool:
    return path.endswith('/kernel') and name.endswith('.weight')


def load(path: str | pathlib.Path, c: config.Encoder) -> encoder.Params:
    """Float32 NumPy parameters from the weights in the directory `path`, in the sizes of `c`.

    Reads Flax's and PyTorch's names, with or without the prefix and the head of a task. ValueError
    names the tensors that are unknown, missing or of another shape.
    """
    file, stream = weights.find(path) or pathlib.Path(path), weights.read(path)
    flat = {path: np.empty(shape, np.float32) for path, shape in encoder.shapes(c).items()}
    targets = {}  # name in the file -> (its first name, the view of `flat` that it is copied to)
    for path, layer, names in tensors(c):
        view = flat[path] if layer is None else flat[path][layer]
        for name in names:
            targets[name] = names[0], view.T if is_transposed(path, name) else view
    found, unknown, prefix = {}, [], ''  # found: first name -> name in the file
    for name, array in stream:
        bare = PREFIX.sub('', name, count=1)
        if bare in targets:
            first, view = targets[bare]
            if first in found:
                raise ValueError(f'{file}: expected {found[first]} or {name}, got both')
            fill(view, array, f'{file}: {name}')
            found[first], prefix = name, name.removesuffix(bare)
        elif not DROPPED.match(bare):
            unknown.append(name)
    if unknown:
        expected = f'a {c.family} encoder of {c.layers} layers'
        raise ValueError(
            f'{file}: expected the weights of {expected}, got also {weights.some(unknown)}'
        )
    flax = file.name.startswith('flax_') or any(name.endswith('.kernel') for name in found.values())
    lacking = [names[not flax] for _, _, names in tensors(c) if names[0] not in found]
    if lacking:
        lacking = [f'{prefix}{name} {targets[name][1].shape}' for name in lacking]
        raise ValueError(f'{file}: expected {weights.some(lacking)}, got no such tensor')
    return encoder.nest(flat)


def fill(view: np.ndarray, array: np.ndarray, where: str):
    if array.shape != view.shape:
        raise ValueError(f'{where}: expected shape {view.shape}, got {array.shape}')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f'{where}: expected floating-point numbers, got {array.dtype}')
    view[...] = array


def to_hf(params: encoder.Params, c: config.Encoder) -> dict[str, np.ndarray]:
    """The parameters under the names and in the shapes of Hugging Face's PyTorch models."""
    flat = {p: np.asarray(leaf) for p, leaf in traverse_util.flatten_dict(params, sep='/').items()}
    result = {}
    for path, layer, (_, name, *_) in tensors(c):
        array = flat[path] if layer is None else flat[path][layer]
        result[name] = np.ascontiguousarray(array.T if is_transposed(path, name) else array)
    return result


def has_tokenizer(path: pathlib.Path) -> bool:
    """Whether `tokenizer` finds one in a directory."""
    return any((path / name).is_file() for name in ('tokenizer.json', *VOCABULARIES))


def tokenizer(name: str) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, a directory or a hub name; it neither pads nor cuts."""
    path = resolve(name, weights=False)
    file = path / 'tokenizer.json' if path.is_dir() else path
    if file.is_file():
        try:
            result = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more special
            raise weights.broken(file, 'a tokenizer.json', error) from error
    elif any((path / vocabulary).is_file() for vocabulary in VOCABULARIES):
        result = convert(path)
    else:
        expected = ' or '.join(('tokenizer.json', *VOCABULARIES))
        raise ValueError(
            f'{path}: expected a directory with {expected}, got {weights.listing(path)}'
        )
    result.no_padding()
    result.no_truncation()
    return result


def convert(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """What transformers makes of a vocabulary; version 5 at times silently makes it of nothing."""
    try:
        import transformers  # takes seconds, and few checkpoints have no tokenizer.json

        loaded = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        result = loaded.backend_tokenizer
    except Exception as error:  # whatever its many converters raise
        raise ValueError(
            f'{folder}: expected a vocabulary for transformers, with config.json or'
            ' tokenizer_config.json beside it and sentencepiece and protobuf installed,'
            f' got {type(error).__name__}: {weights.first_line(error)}'
        ) from error
    unknown = {result.token_to_id('<unk>'), result.token_to_id('[UNK]')}
    size = result.get_vocab_size()
    if size < 100 or unknown.issuperset(result.encode('hello', add_special_tokens=False).ids):
        raise ValueError(
            f'{folder}: expected a tokenizer of 100 tokens or more that can spell hello, got {size}'
            ' tokens that cannot; if they are right, save them as tokenizer.json'
        )
    return result


def pad_id(vocabulary: tokenizers.Tokenizer) -> int:
    """The id of padding."""
    for token in ('<pad>', '[PAD]'):
        number = vocabulary.token_to_id(token)
        if number is not None:
            return number
    size = vocabulary.get_vocab_size()
    raise ValueError(f'tokenizer: expected a token <pad> or [PAD], got neither among {size} tokens')
