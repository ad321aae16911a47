"""Encoders of Hugging Face as files, read and written: config.json and the names of tensors."""

import csv
import dataclasses
import pathlib
import re
from collections import abc
from importlib import metadata, resources

import numpy as np
from flax import traverse_util

from hbt import config
from hbt.models import encoder, weights
from hbt.utils import files

_TABLE = resources.files('hbt.models').joinpath('tensor_names.csv').read_text().splitlines()
NAMES = {row['path']: row for row in csv.DictReader(_TABLE)}  # norm -> name without the last word
WORDS = {  # the last word: ours and Flax's -> PyTorch's, the current one first
    'embedding': ('weight',),
    'kernel': ('weight',),  # transposed
    'scale': ('weight', 'gamma'),
    'bias': ('bias', 'beta'),
}
PREFIX = re.compile(r'(params\.)?(model\.)?(roberta\.|xlm_roberta\.|bert\.)?')
IGNORED = re.compile(  # heads of tasks, and constants
    r'(pooler|lm_head|cls|classifier|qa_outputs|embeddings\.(position_ids$|token_type_ids$))\b'
)
KEYS = {  # key of config.json -> our setting, and the default of transformers
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
XL = dict(vocab_size=250880, hidden_dim=2560, num_layers=36, num_heads=32, mlp_dim=10240)
XL |= dict(max_positions=514, type_vocab_size=1, pad_id=1, norm_eps=1e-5)
MODELS = {  # model_type -> class, our settings, defaults of transformers that differ from KEYS
    'xlm-roberta': ('XLMRobertaModel', dict(family='xlmr', norm='post'), dict(pad_id=1)),
    'xlm-roberta-xl': ('XLMRobertaXLModel', dict(family='xlmr', norm='pre'), XL),
    'roberta': ('RobertaModel', dict(family='xlmr', norm='post'), dict(vocab_size=50265, pad_id=1)),
    'bert': ('BertModel', dict(family='bert', norm='post'), {}),
}
STATIC = 'embedding.weight'  # the tensor of a StaticEmbedding
UNLIMITED = 10**5  # tokens of a text, where no length is set
REQUIRED = {'position_embedding_type': 'absolute', 'is_decoder': False}  # if present
HEAD_ACTIVATIONS = {
    'torch.nn.modules.activation.Tanh': 'tanh',
    'torch.nn.modules.linear.Identity': 'identity',
}
ACTIVATIONS = {'gelu': 'gelu', 'gelu_python': 'gelu'}
ACTIVATIONS |= dict.fromkeys(('gelu_new', 'gelu_fast', 'gelu_pytorch_tanh'), 'gelu_new')


def read_architecture(path: str | pathlib.Path, base: config.Encoder) -> config.Encoder:
    """Returns `base` with the family and sizes in config.json; ValueError if hbt lacks them."""
    file = pathlib.Path(path) / 'config.json'
    if not file.is_file():
        got = files.describe_path(path)
        raise ValueError(f'{path}: expected a directory with config.json, got {got}')
    content = files.read_json(file, dict)
    kind = content.get('model_type')
    require_choice(kind, MODELS, file, 'model_type')
    for key, value in REQUIRED.items():
        got = content.get(key)
        require(got in (value, None), file, key, f'{value} or nothing', got)
    _, settings, defaults = MODELS[kind]
    values = dict(settings)
    for key, (setting, default) in KEYS.items():
        value = content.get(key, defaults.get(setting, default))
        values[setting] = _check_value(file, key, setting, value)
    dim, heads = values['hidden_dim'], values['num_heads']
    require(
        dim % heads == 0, file, 'hidden_size', f'a multiple of num_attention_heads={heads}', dim
    )
    return dataclasses.replace(base, **values)


def read_static(path: pathlib.Path, base: config.Encoder) -> config.Encoder:
    """Returns `base` as a StaticEmbedding of sentence-transformers, with the sizes of its table."""
    file = path / 'tokenizer.json'
    truncation = files.read_json(file, dict).get('truncation') or {'max_length': UNLIMITED}
    length = truncation.get('max_length') if isinstance(truncation, dict) else None
    is_length = type(length) is int and 4 <= length <= UNLIMITED
    require(is_length, file, 'truncation', f'max_length from 4 to {UNLIMITED}', truncation)
    rows, dim = _read_table(path).shape
    sizes = dict(vocab_size=rows, hidden_dim=dim, max_positions=length)
    sizes |= dict(num_layers=0, num_heads=1)
    return dataclasses.replace(base, family='static', pooling='mean', projection_dim=0, **sizes)


def load_static(path: pathlib.Path) -> encoder.Params:
    """Float32 NumPy parameters from the weights of a StaticEmbedding."""
    view = _read_table(path)
    table = np.empty(view.shape, np.float32)
    weights.copy_tensor(table, view, str(path))
    return {'embeddings': {'token': table}}


def _read_table(path: pathlib.Path) -> np.ndarray:
    tensors = dict(weights.read_tensors(path))
    file = weights.find_weights(path)
    require(list(tensors) == [STATIC], file, 'tensors', STATIC, sorted(tensors))
    require(tensors[STATIC].ndim == 2, file, STATIC, 'two axes', tensors[STATIC].shape)
    return tensors[STATIC]


def read_head(file: pathlib.Path, hidden_dim: int) -> dict:
    """Our setting -> value, from the configuration of a dense layer."""
    content = files.read_json(file, dict)
    width, size = content.get('in_features'), content.get('out_features')
    expected = f'{hidden_dim} as the encoder has'
    require(width == hidden_dim, file, 'in_features', expected, width)
    is_size = type(size) is int and 0 < size <= 10**6
    require(is_size, file, 'out_features', 'an integer from 1 on', size)
    require(not content.get('use_residual'), file, 'use_residual', 'false', True)
    for key in ('module_input_name', 'module_output_name'):
        value = content.get(key) or 'sentence_embedding'
        require(value == 'sentence_embedding', file, key, 'sentence_embedding', value)
    name = content.get('activation_function', 'torch.nn.modules.activation.Tanh')
    require_choice(name, HEAD_ACTIVATIONS, file, 'activation_function')
    return {'projection_dim': size, 'projection_activation': HEAD_ACTIVATIONS[name]}


def _check_value(file: pathlib.Path, key: str, setting: str, value):
    """The value of a key of config.json as one of our setting."""
    if setting == 'activation':
        require_choice(value, ACTIVATIONS, file, key)
        return ACTIVATIONS[value]
    if setting == 'norm_eps':
        is_valid = type(value) in (int, float) and 0 < value < 10**6
        require(is_valid, file, key, 'a positive number', value)
        return float(value)
    least = 0 if setting in ('pad_id', 'num_layers') else 1
    is_valid = type(value) is int and least <= value <= 10**8
    require(is_valid, file, key, f'an integer from {least} on', value)
    return value


def require(condition: bool, where: str | pathlib.Path, key: str, expected: str, got) -> None:
    """ValueError naming a file and a key unless `condition`."""
    if not condition:
        raise ValueError(f'{where}: {key}: expected {expected}, got {got!r}')


def require_choice(value, choices: abc.Iterable[str], file: pathlib.Path, key: str) -> None:
    """ValueError naming file and key unless `value` is one of `choices`."""
    require(value in list(choices), file, key, f'one of {", ".join(choices)}', value)


def make_config(c: config.Encoder) -> dict:
    """Returns the content of the config.json that `read_architecture` reads as `c`."""
    settings = dict(family=c.family, norm=c.norm)
    kind, name = next((kind, name) for kind, (name, x, _) in MODELS.items() if x == settings)
    return {
        **REQUIRED,
        **{key: getattr(c, setting) for key, (setting, _) in KEYS.items()},
        'architectures': [name],
        'model_type': kind,
        'hidden_dropout_prob': c.dropout,
        'attention_probs_dropout_prob': c.attention_dropout,
        'initializer_range': c.init_std,
        'dtype': 'float32',
        'transformers_version': metadata.version('transformers'),
    }


def _name_tensors(flat: dict, c: config.Encoder) -> abc.Iterator[list[tuple[str, np.ndarray]]]:
    """Yields of each tensor its names, Flax's, PyTorch's and older ones, with views of `flat`."""
    for path in encoder.param_shapes(c):
        module, word = (path, 'embedding') if path in NAMES else path.rsplit('/', 1)
        for layer, array in enumerate(flat[path] if path.startswith('layers/') else [flat[path]]):
            name = NAMES[module][c.norm].format(layer)
            torch_view = array.T if word == 'kernel' else array
            torch_names = [(f'{name}.{last}', torch_view) for last in WORDS[word]]
            yield [(f'{name}.{word}', array), *torch_names]


def load_params(path: str | pathlib.Path, c: config.Encoder) -> encoder.Params:
    """Float32 NumPy parameters from the weights in a directory; the head of `c` is the pooler.

    With the names of Flax or PyTorch, with or without the prefix and the head of a task. ValueError
    names tensors that are unknown, missing or misshapen.
    """
    file = weights.find_weights(path) or pathlib.Path(path)
    try:
        flat = {x: np.empty(shape, np.float32) for x, shape in encoder.param_shapes(c).items()}
    except (MemoryError, ValueError) as error:
        raise ValueError(f'{file}: expected an encoder that fits in memory, got {error}') from error
    tensors = list(_name_tensors(flat, c))
    targets = {name: (names[0][0], view) for names in tensors for name, view in names}
    loaded, unknown, prefix = {}, [], ''  # loaded: first name of a tensor -> name in the file
    for name, array in weights.read_tensors(path):
        bare = PREFIX.sub('', name, count=1)
        if bare in targets:
            first, view = targets[bare]
            if first in loaded:
                raise ValueError(f'{file}: expected {loaded[first]} or {name}, got both')
            weights.copy_tensor(view, array, f'{file}: {name}')
            loaded[first], prefix = name, name.removesuffix(bare)
        elif not IGNORED.match(bare):
            unknown.append(name)
    if unknown:
        expected = f'the weights of a {c.family} encoder of {c.num_layers} layers'
        raise ValueError(f'{file}: expected {expected}, got also {files.shorten_list(unknown)}')
    is_flax = file.name.startswith('flax_') or any(x.endswith('.kernel') for x in loaded.values())
    missing = [names[not is_flax] for names in tensors if names[0][0] not in loaded]
    if missing:
        missing = [f'{prefix}{name} {view.shape}' for name, view in missing]
        raise ValueError(f'{file}: expected {files.shorten_list(missing)}, got no such tensor')
    return traverse_util.unflatten_dict(flat, sep='/')


def rename_params(params: encoder.Params, c: config.Encoder) -> dict[str, np.ndarray]:
    """Returns the parameters with the names and shapes of Hugging Face's PyTorch models.

    A table alone is named as in a StaticEmbedding of sentence-transformers.
    """
    flat = traverse_util.flatten_dict(params, sep='/')
    tensors = _name_tensors({path: np.asarray(array) for path, array in flat.items()}, c)
    arrays = {name: np.ascontiguousarray(view) for _, (name, view), *_ in tensors}
    if c.family == 'static':
        arrays[STATIC] = arrays.pop(NAMES['embeddings/token'][c.norm] + '.weight')
    return arrays
