"""Encoders of Hugging Face as files: their configurations and weights, both ways.

Hides names. `NAMES` and `KEYS` are the tables of them: `architecture` and `load` apply them from
file to settings and pytree, `to_config` and `to_hf` backwards. Called by `pipeline`.
"""

import dataclasses
import importlib.metadata
import pathlib
import re
from collections import abc

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hbt import config
from hbt.models import encoder, weights
from hbt.utils import files

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
    'head': 'pooler.dense',
}
PRE_NORM = NAMES | {  # where XLM-R XL differs
    'layers/attention_norm': 'encoder.layer.{}.attention.self_attn_layer_norm',
    'layers/ffn_norm': 'encoder.layer.{}.LayerNorm',
    'final_norm': 'encoder.LayerNorm',
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
    'hidden_size': ('hidden_dim', 768),
    'num_hidden_layers': ('num_layers', 12),
    'num_attention_heads': ('num_heads', 12),
    'intermediate_size': ('mlp_dim', 3072),
    'max_position_embeddings': ('max_positions', 512),
    'type_vocab_size': ('type_vocab_size', 2),
    'pad_token_id': ('pad_id', 0),
    'layer_norm_eps': ('norm_eps', 1e-12),
    'hidden_act': ('activation', 'gelu'),
}
MODELS = {  # model_type -> settings, and what transformers takes where a key is absent, unlike KEYS
    'xlm-roberta': ({'family': 'xlmr'}, {'pad_id': 1}),
    'xlm-roberta-xl': (
        {'family': 'xlmr', 'norm': 'pre'},
        {
            'vocab_size': 250880,
            'hidden_dim': 2560,
            'num_layers': 36,
            'num_heads': 32,
            'mlp_dim': 10240,
            'max_positions': 514,
            'type_vocab_size': 1,
            'pad_id': 1,
            'norm_eps': 1e-5,
        },
    ),
    'roberta': ({'family': 'xlmr'}, {'vocab_size': 50265, 'pad_id': 1}),
    'bert': ({'family': 'bert'}, {'pad_id': 0}),
}
CLASSES = {
    'xlm-roberta': 'XLMRobertaModel',
    'xlm-roberta-xl': 'XLMRobertaXLModel',
    'bert': 'BertModel',
}
REQUIRED = {'position_embedding_type': 'absolute', 'is_decoder': False}  # where stated at all
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_python': 'gelu',
    'gelu_new': 'gelu_new',
    'gelu_fast': 'gelu_new',
    'gelu_pytorch_tanh': 'gelu_new',
}


def read_architecture(path: str | pathlib.Path, base: config.Encoder) -> config.Encoder:
    """`base` with the family and the sizes that config.json in the directory `path` states."""
    file = pathlib.Path(path) / 'config.json'
    if not file.is_file():
        raise ValueError(
            f'{path}: expected a directory with config.json, got {files.describe_path(path)}'
        )
    stated = files.read_json(file, dict)
    kind = stated.get('model_type')
    demand(kind in list(MODELS), file, 'model_type', f'one of {", ".join(MODELS)}', kind)
    for key, value in REQUIRED.items():
        demand(stated.get(key) in (value, None), file, key, f'{value} or nothing', stated.get(key))
    told, absent = MODELS[kind]
    values = {'norm': 'post'} | told
    for key, (setting, default) in KEYS.items():
        value = values[setting] = stated.get(key, absent.get(setting, default))
        if setting == 'activation':
            demand(value in list(ACTIVATIONS), file, key, f'one of {", ".join(ACTIVATIONS)}', value)
            values[setting] = ACTIVATIONS[value]
        elif setting == 'norm_eps':
            holds = type(value) in (int, float) and 0 < value < 10**6
            demand(holds, file, key, 'a positive number', value)
            values[setting] = float(value)
        else:
            least = 0 if setting in ('pad_id', 'num_layers') else 1
            holds = type(value) is int and least <= value <= 10**8
            demand(holds, file, key, f'an integer from {least} on', value)
    dim, heads = values['hidden_dim'], values['num_heads']
    demand(dim % heads == 0, file, 'hidden_size', f'a multiple of num_attention_heads={heads}', dim)
    return dataclasses.replace(base, **values)


def make_config(c: config.Encoder) -> dict:
    """The content of config.json that `architecture` reads as `c`."""
    kind = next(kind for kind, (told, _) in MODELS.items() if is_told(told, c))
    stated = {key: getattr(c, setting) for key, (setting, _) in KEYS.items()}
    return (
        REQUIRED
        | stated
        | {
            'architectures': [CLASSES[kind]],
            'model_type': kind,
            'hidden_dropout_prob': c.dropout,
            'attention_probs_dropout_prob': c.attention_dropout,
            'initializer_range': c.init_std,
            'dtype': 'float32',
            'transformers_version': importlib.metadata.version('transformers'),
        }
    )


def is_told(told: dict, c: config.Encoder) -> bool:
    return all(getattr(c, key) == value for key, value in ({'norm': 'post'} | told).items())


def demand(holds: bool, file, key: str, expected: str, got):
    if not holds:
        raise ValueError(f'{file}: {key}: expected {expected}, got {got!r}')


def tensors(c: config.Encoder) -> abc.Iterator[tuple[str, int | None, list[str]]]:
    """Yields (our path, layer if any, its names: Flax's, PyTorch's, older ones) of each tensor."""
    table = PRE_NORM if c.norm == 'pre' else NAMES
    for path in encoder.param_shapes(c):
        module, word = (path, 'embedding') if path in table else path.rsplit('/', 1)
        for layer in range(c.num_layers) if path.startswith('layers/') else (None,):
            name = table[module].format(layer)
            yield path, layer, [f'{name}.{last}' for last in (word, *WORDS[word])]


def is_transposed(path: str, name: str) -> bool:
    return path.endswith('/kernel') and name.endswith('.weight')


def load_params(path: str | pathlib.Path, c: config.Encoder) -> encoder.Params:
    """Float32 NumPy parameters from the weights in the directory `path`, in the sizes of `c`.

    Reads Flax's and PyTorch's names, with or without the prefix and the head of a task; the head of
    `c` is the pooler. ValueError names the tensors that are unknown, missing or of another shape.
    """
    file, stream = weights.find_weights(path) or pathlib.Path(path), weights.read_tensors(path)
    try:
        flat = {
            path: np.empty(shape, np.float32) for path, shape in encoder.param_shapes(c).items()
        }
    except (MemoryError, ValueError) as error:
        raise ValueError(f'{file}: expected an encoder that memory holds, got {error}') from error
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
        expected = f'a {c.family} encoder of {c.num_layers} layers'
        raise ValueError(
            f'{file}: expected the weights of {expected}, got also {files.shorten_list(unknown)}'
        )
    flax = file.name.startswith('flax_') or any(name.endswith('.kernel') for name in found.values())
    lacking = [names[not flax] for _, _, names in tensors(c) if names[0] not in found]
    if lacking:
        lacking = [f'{prefix}{name} {targets[name][1].shape}' for name in lacking]
        raise ValueError(f'{file}: expected {files.shorten_list(lacking)}, got no such tensor')
    return encoder.nest_params(flat)


def fill(view: np.ndarray, array: np.ndarray, where: str):
    if array.shape != view.shape:
        raise ValueError(f'{where}: expected shape {view.shape}, got {array.shape}')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f'{where}: expected floating-point numbers, got {array.dtype}')
    weights.copy_tensor(view, array)


def rename_params(params: encoder.Params, c: config.Encoder) -> dict[str, np.ndarray]:
    """The parameters under the names and in the shapes of Hugging Face's PyTorch models."""
    flat = {p: np.asarray(leaf) for p, leaf in traverse_util.flatten_dict(params, sep='/').items()}
    result = {}
    for path, layer, (_, name, *_) in tensors(c):
        array = flat[path] if layer is None else flat[path][layer]
        result[name] = np.ascontiguousarray(array.T if is_transposed(path, name) else array)
    return result
