"""Model directories as sentence-transformers lays them out, both ways.

Hides modules.json and what it names: pooling, dense layer, normalisation, prompts and lengths. A
directory without it is a bare encoder, pooled as the settings tell. Called by `train` and by the
programs that take or write a model.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import typing

import numpy as np
import safetensors.numpy
import tokenizers

from hbt import config
from hbt.data import tokenizer_files
from hbt.models import encoder, huggingface, weights
from hbt.utils import files, hub

ORDER = ('Transformer', 'Pooling', 'Dense', 'Normalize')  # modules, the last two where needed
ORDERED = 'a Transformer, a Pooling, at most one Dense and at most one Normalize, in this order'
PATHS = {'Transformer': '', 'Pooling': '1_Pooling', 'Dense': '2_Dense', 'Normalize': '3_Normalize'}
POOLING = {  # keys of a pooling's configuration that may be true -> our setting
    'pooling_mode_cls_token': 'cls',
    'pooling_mode_mean_tokens': 'mean',
    'pooling_mode_max_tokens': 'max',
    'pooling_mode_mean_sqrt_len_tokens': 'mean_sqrt_len_tokens',
    'pooling_mode_weightedmean_tokens': 'weightedmean',
    'pooling_mode_lasttoken': 'lasttoken',
}
ACTIVATIONS = {
    'torch.nn.modules.activation.Tanh': 'tanh',
    'torch.nn.modules.linear.Identity': 'identity',
}
HEAD = {'linear.weight': 'kernel', 'linear.bias': 'bias'}  # of a dense layer
PROMPTS = {'query_prefix': ('query',), 'passage_prefix': ('document', 'passage', 'corpus')}


PATTERNS = (  # all but the weights
    *tokenizer_files.PATTERNS,
    'modules.json',
    'config_sentence_transformers.json',
    '?_*/config.json',
    '?_Dense/*.safetensors',
    '?_Dense/*.bin',
)


class Model(typing.NamedTuple):
    """A dual encoder that embeds texts; of the config, `encoder` and `data` matter."""

    config: config.Config
    params: encoder.Params
    tokenizer: tokenizers.Tokenizer


def load_model(name: str) -> Model:
    """The model in a directory, or of a hub name, with its own prompts and lengths.

    Raises ValueError naming the file and key of whatever hbt cannot compute, and where tokenizer
    and weights do not fit each other.
    """
    folder = fetch_model(name)
    transformer = folder / modules(folder).get('Transformer', '')
    stated = files.read_optional_json(transformer / 'sentence_bert_config.json')
    tokenizer = tokenizer_files.load_tokenizer(transformer)
    c = read_architecture(folder, config.Encoder())
    c = match_tokenizer(
        c, tokenizer_files.vocab_size(tokenizer), tokenizer_files.padding_id(tokenizer), str(folder)
    )
    file = folder / 'config_sentence_transformers.json'
    prompts = files.read_optional_json(file).get('prompts') or {}
    plain = isinstance(prompts, dict) and all(isinstance(x, str) for x in prompts.values())
    huggingface.demand(plain, file, 'prompts', '{name: text}', prompts)
    data = {setting: prompt(prompts, names) for setting, names in PROMPTS.items()}
    longest = files.read_optional_json(transformer / 'tokenizer_config.json').get(
        'model_max_length'
    )
    for setting, key in (('query_length', 'query_length'), ('passage_length', 'document_length')):
        given = (stated.get(key), stated.get('max_seq_length'), longest)
        limit = next((n for n in given if isinstance(n, int) and n > 0), c.max_positions)
        data[setting] = min(limit, max_text_length(c))
    params = load_params(folder, c)
    return Model(config.Config(data=config.Data(**data), encoder=c), params, tokenizer)


def fetch_model(name: str) -> pathlib.Path:
    """Returns the directory `name`, or the hub's snapshot of the model of that name.

    Of the weights on the hub, only the first kind that hbt prefers is downloaded, whole or in its
    shards. Raises ValueError as `hub.snapshot`.
    """
    folder = hub.snapshot(name, PATTERNS)
    for file in weights.READERS:
        if not weights.find_weights(folder):
            folder = hub.snapshot(name, (file, file + weights.INDEX))
    file = weights.find_weights(folder)
    shards = weights.read_shard_index(file) if file and file.name.endswith(weights.INDEX) else ()
    if not all((folder / shard).is_file() for shard in shards):
        folder = hub.snapshot(name, tuple(shards))
    return folder


def read_architecture(folder: pathlib.Path, base: config.Encoder) -> config.Encoder:
    """`base` with everything that the directory states of the encoder, its pooling and its head."""
    found = modules(folder)
    c = huggingface.read_architecture(folder / found.get('Transformer', ''), base)
    if not found:
        return c
    file = folder / found['Pooling'] / 'config.json'
    stated = files.read_json(file, dict)
    known = stated.get('pooling_mode', [POOLING[key] for key in POOLING if stated.get(key)])
    modes = (known or ['mean']) if isinstance(known, list) else [known]
    known = [x for x in POOLING.values() if x in ('cls', 'mean', 'max')]
    huggingface.demand(
        len(modes) == 1 and modes[0] in known, file, 'pooling_mode', some(known), modes
    )
    huggingface.demand(
        stated.get('include_prompt', True) is True, file, 'include_prompt', 'true', False
    )
    c = dataclasses.replace(
        c,
        pooling=modes[0],
        normalise='Normalize' in found,
        projection_dim=0,
        projection_activation='tanh',
    )
    return dense(folder / found['Dense'] / 'config.json', c) if 'Dense' in found else c


def dense(file: pathlib.Path, c: config.Encoder) -> config.Encoder:
    """`c` with the head that the configuration of a dense layer states."""
    stated = files.read_json(file, dict)
    width, size = stated.get('in_features'), stated.get('out_features')
    huggingface.demand(
        width == c.hidden_dim, file, 'in_features', f'{c.hidden_dim} as the encoder has', width
    )
    fits = type(size) is int and 0 < size <= 10**6
    huggingface.demand(fits, file, 'out_features', 'an integer from 1 on', size)
    huggingface.demand(not stated.get('use_residual'), file, 'use_residual', 'false', True)
    for key in ('module_input_name', 'module_output_name'):
        value = stated.get(key) or 'sentence_embedding'
        huggingface.demand(value == 'sentence_embedding', file, key, 'sentence_embedding', value)
    kind = stated.get('activation_function', 'torch.nn.modules.activation.Tanh')
    huggingface.demand(
        kind in list(ACTIVATIONS), file, 'activation_function', some(ACTIVATIONS), kind
    )
    return dataclasses.replace(c, projection_dim=size, projection_activation=ACTIVATIONS[kind])


def some(names) -> str:
    return f'one of {", ".join(names)}'


def match_tokenizer(c: config.Encoder, size: int, pad_id: int, place: str) -> config.Encoder:
    """`c` with the padding id of a tokenizer of `size` ids; ValueError where they do not fit.

    XLM-R counts positions from the padding id, which is part of its weights. BERT does not: some
    of its kind come with the tokenizer of XLM-R and state the padding id of another (mE5 small).
    """
    if c.vocab_size < size:
        raise ValueError(
            f'{place}: vocab_size: expected at least {size} for the tokenizer, got {c.vocab_size}'
        )
    if c.family == 'xlmr' and c.pad_id != pad_id:
        raise ValueError(f'{place}: pad_id: expected {pad_id} as in the tokenizer, got {c.pad_id}')
    return dataclasses.replace(c, pad_id=pad_id)


def max_text_length(c: config.Encoder) -> int:
    """The longest text, in tokens, that the encoder has positions for."""
    return c.max_positions - (c.pad_id + 1 if c.family == 'xlmr' else 0)


def modules(folder: pathlib.Path) -> dict[str, str]:
    """Kind -> folder of each module that modules.json names; none without such a file."""
    file = folder / 'modules.json'
    if not file.is_file():
        return {}
    found = {}
    for i, entry in enumerate(files.read_json(file, list)):
        if not isinstance(entry, dict):
            entry = {}
        kind, path = (str(entry.get(key, '?')) for key in ('type', 'path'))
        kind = kind.rsplit('.', 1)[-1]
        huggingface.demand(kind in ORDER and kind not in found, file, f'[{i}]', ORDERED, kind)
        plain = bool(re.fullmatch(r'[\w-][\w.-]*|', path))
        huggingface.demand(plain, file, f'[{i}]: path', 'a plain name', path)
        found[kind] = path
    kinds = sorted(found, key=ORDER.index)
    huggingface.demand(
        list(found) == kinds and kinds[:2] == list(ORDER[:2]), file, 'types', ORDERED, kinds
    )
    return found


def prompt(prompts: dict[str, str], names: tuple[str, ...]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), '')


def load_params(folder: pathlib.Path, c: config.Encoder) -> encoder.Params:
    """Float32 NumPy parameters of a directory, in the sizes of `c`; ValueError names the tensor."""
    found = modules(folder)
    transformer = folder / found.get('Transformer', '')
    if 'Dense' not in found:
        return huggingface.load_params(transformer, c)
    params = huggingface.load_params(transformer, dataclasses.replace(c, projection_dim=0))
    place = folder / found['Dense']
    shapes = {'kernel': (c.hidden_dim, c.projection_dim), 'bias': (c.projection_dim,)}
    head = params['head'] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    lacking = (
        set(HEAD)
        if files.read_optional_json(place / 'config.json').get('bias', True)
        else {'linear.weight'}
    )
    for name, array in weights.read_tensors(place):
        huggingface.demand(name in HEAD, weights.find_weights(place), 'tensors', some(HEAD), name)
        huggingface.fill(head[HEAD[name]].T, array, f'{weights.find_weights(place)}: {name}')
        lacking.discard(name)
    huggingface.demand(
        not lacking, weights.find_weights(place), 'tensors', ', '.join(HEAD), 'no such tensor'
    )
    return params


def write_model(out: pathlib.Path, model: Model, card: str) -> None:
    """Writes the directory `out`, whole or not at all, for sentence-transformers and transformers.

    `card` becomes its README.md. Raises ValueError if there is something at `out`.
    """
    if out.exists():
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    partial = out.with_name(out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    c, data = model.config.encoder, model.config.data
    longest = max(data.query_length, data.passage_length)
    arrays = huggingface.rename_params(model.params, c)
    head = {name: arrays.pop(f'pooler.dense.{name[7:]}') for name in HEAD if c.projection_dim}
    save_tensors(partial, arrays)
    if c.projection_dim:
        save_tensors(partial / PATHS['Dense'], head)
    tokenizer_files.save_tokenizer(partial, model.tokenizer, longest)
    prompts = {'query': data.query_prefix}
    prompts |= dict.fromkeys(('document', 'passage'), data.passage_prefix)
    contents = {
        'config.json': huggingface.make_config(c) | tokenizer_files.special_ids(model.tokenizer),
        'sentence_bert_config.json': {'max_seq_length': longest, 'do_lower_case': False},
        'config_sentence_transformers.json': {
            'prompts': prompts,
            'default_prompt_name': None,
            'similarity_fn_name': 'cosine',
        },
    }
    for name, content in (contents | module_files(c)).items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')
    (partial / 'README.md').write_text(card)
    os.replace(partial, out)


def module_files(c: config.Encoder) -> dict[str, dict | list]:
    """File -> content: the modules after the encoder, under names that all versions know."""
    configs = {
        'Transformer': None,
        'Pooling': {
            'word_embedding_dimension': c.hidden_dim,
            **{key: mode == c.pooling for key, mode in POOLING.items()},
            'include_prompt': True,
        },
    }
    if c.projection_dim:
        configs['Dense'] = {
            'in_features': c.hidden_dim,
            'out_features': c.projection_dim,
            'bias': True,
            'activation_function': next(
                k for k, v in ACTIVATIONS.items() if v == c.projection_activation
            ),
        }
    if c.normalise:
        configs['Normalize'] = {}
    listed = [
        {'idx': i, 'name': str(i), 'path': PATHS[x], 'type': f'sentence_transformers.models.{x}'}
        for i, x in enumerate(configs)
    ]
    files = {f'{PATHS[x]}/config.json': content for x, content in configs.items() if PATHS[x]}
    return {'modules.json': listed} | files


def save_tensors(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / 'model.safetensors'
    try:
        safetensors.numpy.save_file(arrays, file, {'format': 'pt'})
    except safetensors.SafetensorError as error:
        raise OSError(f'{file}: {error}') from error
