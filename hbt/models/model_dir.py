"""Model directories of sentence-transformers, or of a bare encoder, read and written."""

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import typing

import numpy as np
import tokenizers

from hbt import config
from hbt.data import tokenizer_files
from hbt.data.readers import schema
from hbt.models import encoder, huggingface, weights
from hbt.utils import files, hub

PATHS = {'Transformer': '', 'StaticEmbedding': '', 'Pooling': '1_Pooling', 'Dense': '2_Dense'}
PATHS |= {'Normalize': '3_Normalize'}
ENCODERS = (['Transformer', 'Pooling'], ['StaticEmbedding'])
ORDERED = (
    'a Transformer and a Pooling, or a StaticEmbedding, at most one Dense and at most one '
    'Normalize, in this order'
)
POOLING = {  # flags in the configuration of a pooling -> our setting
    'pooling_mode_cls_token': 'cls',
    'pooling_mode_mean_tokens': 'mean',
    'pooling_mode_max_tokens': 'max',
    'pooling_mode_mean_sqrt_len_tokens': 'mean_sqrt_len_tokens',
    'pooling_mode_weightedmean_tokens': 'weightedmean',
    'pooling_mode_lasttoken': 'lasttoken',
}
PROMPTS = {'query_prefix': ('query',), 'passage_prefix': ('document', 'passage', 'corpus')}
PROCESSING = ('query_expansion', 'tokenizer_name_or_path', 'processing_kwargs')
PROCESSING += ('tokenizer_args', 'processor_kwargs')  # of sentence-transformers; change the tokens
PATTERNS = (*tokenizer_files.PATTERNS, 'modules.json', 'config_sentence_transformers.json')
PATTERNS += ('?_*/config.json', '?_Dense/*.safetensors', '?_Dense/*.bin')  # all but the weights
PATTERNS += ('?_StaticEmbedding/*',)


class Model(typing.NamedTuple):
    """A dual encoder with its tokenizer."""

    config: config.Config  # of which `encoder` and `data` matter
    params: encoder.Params
    tokenizer: tokenizers.Tokenizer


def load_model(name: str, dim: int | None = None) -> Model:
    """The model in a directory or of a hub name; ValueError names what hbt does not compute.

    Its embeddings are truncated at `dim`, or else as the directory says; see `truncate_model`.
    """
    folder = fetch_model(name)
    c = read_architecture(folder, config.Encoder())
    transformer = encoder_folder(folder)
    tokenizer = tokenizer_files.load_tokenizer(transformer)
    if c.family == 'static':
        tokenizer = tokenizer_files.without_special_tokens(tokenizer)
    size, pad_id = tokenizer_files.vocab_size(tokenizer), tokenizer_files.padding_id(tokenizer)
    c = match_tokenizer(c, size, pad_id, str(folder))
    data = config.Data(**_read_prompts(folder), **_read_lengths(transformer, max_text_length(c)))
    model = Model(config.Config(data=data, encoder=c), load_params(folder, c), tokenizer)
    return truncate_model(model, _read_truncate_dim(folder, c) if dim is None else dim)


def truncate_model(model: Model, dim: int | None) -> Model:
    """The model of the first `dim` dimensions; see `encoder.truncate_embeddings`."""
    c = model.config
    params, architecture = encoder.truncate_embeddings(model.params, c.encoder, dim)
    dims = tuple(x for x in c.loss.dims if x <= architecture.embedding_dim)
    changed = dataclasses.replace(
        c, encoder=architecture, loss=dataclasses.replace(c.loss, dims=dims)
    )
    return Model(changed, params, model.tokenizer)


def fetch_model(name: str) -> pathlib.Path:
    """The directory `name`, or the hub's snapshot with one kind of weights; see `hub.snapshot`."""
    folder = hub.snapshot(name, PATTERNS)
    for file in weights.READERS:
        if not weights.find_weights(folder):
            folder = hub.snapshot(name, (file, file + weights.INDEX))
    file = weights.find_weights(folder)
    shards = weights.read_shard_index(file) if file and file.name.endswith(weights.INDEX) else ()
    if not all((folder / shard).is_file() for shard in shards):
        folder = hub.snapshot(name, tuple(shards))
    return folder


def encoder_folder(folder: pathlib.Path) -> pathlib.Path:
    """Where a directory has the encoder and its tokenizer: itself, or a folder in it."""
    modules = _read_modules(folder)
    return folder / modules.get('Transformer', modules.get('StaticEmbedding'))


def read_architecture(folder: pathlib.Path, base: config.Encoder) -> config.Encoder:
    """Returns `base` with what a directory says of the encoder, its pooling and its head."""
    modules, place = _read_modules(folder), encoder_folder(folder)
    if 'StaticEmbedding' in modules:
        c = huggingface.read_static(place, base)
    else:
        c = huggingface.read_architecture(place, base)
    if list(modules) == ['Transformer']:
        return c
    if 'Pooling' in modules:
        pooling = _read_pooling(folder / modules['Pooling'] / 'config.json')
        c = dataclasses.replace(c, pooling=pooling)
    head = {'projection_dim': 0, 'projection_activation': 'tanh'}
    if 'Dense' in modules:
        head = huggingface.read_head(folder / modules['Dense'] / 'config.json', c.hidden_dim)
    return dataclasses.replace(c, normalise='Normalize' in modules, **head)


def _read_pooling(file: pathlib.Path) -> str:
    """Our pooling, from the configuration of a module; ValueError for one that hbt lacks."""
    content = files.read_json(file, dict)
    modes = content.get('pooling_mode', [POOLING[key] for key in POOLING if content.get(key)])
    modes = (modes or ['mean']) if isinstance(modes, list) else [modes]
    mode = modes[0] if len(modes) == 1 else modes
    huggingface.require_choice(mode, ('cls', 'mean', 'max'), file, 'pooling_mode')
    has_prompt = content.get('include_prompt', True) is True
    huggingface.require(has_prompt, file, 'include_prompt', 'true', False)
    return mode


def _read_prompts(folder: pathlib.Path) -> dict[str, str]:
    """Our setting -> prompt."""
    file = folder / 'config_sentence_transformers.json'
    prompts = files.read_optional_json(file).get('prompts') or {}
    texts = list(prompts.values()) if isinstance(prompts, dict) else [None]
    is_plain = all(isinstance(x, str) and not schema.SURROGATE.search(x) for x in texts)
    huggingface.require(is_plain, file, 'prompts', '{name: text}', prompts)
    return {
        setting: next((prompts[name] for name in names if prompts.get(name)), '')
        for setting, names in PROMPTS.items()
    }


def _read_truncate_dim(folder: pathlib.Path, c: config.Encoder) -> int | None:
    """Dimensions at which sentence-transformers truncates the embeddings; None: it does not."""
    file = folder / 'config_sentence_transformers.json'
    dim = files.read_optional_json(file).get('truncate_dim')
    is_dim = dim is None or type(dim) is int and dim >= 1
    huggingface.require(is_dim, file, 'truncate_dim', 'an integer from 1 on', dim)
    return dim and min(dim, c.embedding_dim)


def _read_lengths(folder: pathlib.Path, limit: int) -> dict[str, int]:
    """Our setting -> length in tokens at which texts are truncated."""
    file, content = tokenizer_files.read_sentence_settings(folder)
    for key in PROCESSING:
        value = content.get(key)
        is_harmless = not value or isinstance(value, dict) and set(value) == {'trust_remote_code'}
        huggingface.require(is_harmless, file, key, 'nothing', value)
    longest = _read_length(file, content, 'max_seq_length')
    if longest is None:
        tokenizer = folder / 'tokenizer_config.json'
        settings = files.read_optional_json(tokenizer)
        key = 'model_max_length' if 'model_max_length' in settings else 'max_len'  # the older name
        longest = _read_length(tokenizer, settings, key)
    lengths = {}
    for setting, key in (('query_length', 'query_length'), ('passage_length', 'document_length')):
        candidates = _read_length(file, content, key), longest, limit
        lengths[setting] = int(min(next(n for n in candidates if n is not None), limit))
    return lengths


def _read_length(file: pathlib.Path, content: dict, key: str) -> int | float | None:
    """A length in tokens, which some programs write as 8.0, or infinite; None where it is not."""
    value = content.get(key)
    is_number = type(value) in (int, float) and value >= 1
    is_length = is_number and (value == math.inf or value % 1 == 0)
    huggingface.require(value is None or is_length, file, key, 'an integer from 1 on', value)
    return value


def match_tokenizer(c: config.Encoder, size: int, pad_id: int, where: str) -> config.Encoder:
    """Returns `c` with the padding id of a tokenizer of `size` ids; ValueError if they do not fit.

    XLM-R counts positions from the padding id, which is part of its weights. BERT does not: some
    such models have the tokenizer of XLM-R and another padding id in config.json (mE5 small).
    """
    expected = f'at least {size} for the tokenizer'
    huggingface.require(c.vocab_size >= size, where, 'vocab_size', expected, c.vocab_size)
    is_same = c.family != 'xlmr' or c.pad_id == pad_id
    huggingface.require(is_same, where, 'pad_id', f'{pad_id} as in the tokenizer', c.pad_id)
    return dataclasses.replace(c, pad_id=pad_id)


def max_text_length(c: config.Encoder) -> int:
    """Returns the longest text, in tokens, for which the encoder has positions."""
    return c.max_positions - (c.pad_id + 1 if c.family == 'xlmr' else 0)


def _read_modules(folder: pathlib.Path) -> dict[str, str]:
    """Kind -> folder of each module in modules.json; without such a file, of the encoder alone."""
    file = folder / 'modules.json'
    if not file.is_file():
        return {'Transformer': ''}
    modules = {}
    for i, entry in enumerate(files.read_json(file, list)):
        entry = entry if isinstance(entry, dict) else {}
        kind, path = str(entry.get('type', '?')).rsplit('.', 1)[-1], entry.get('path')
        is_new = kind in PATHS and kind not in modules
        huggingface.require(is_new, file, f'[{i}]', ORDERED, kind)
        # ./1_Pooling/ is 1_Pooling, and ./ the directory.
        parts = pathlib.PurePosixPath(path).parts if isinstance(path, str) else ['']
        is_plain = all(re.fullmatch(r'[\w-][\w.-]*', part) for part in parts)
        huggingface.require(is_plain, file, f'[{i}]: path', 'a plain name', path)
        modules[kind] = '/'.join(parts)
    kinds = [kind for kind in PATHS if kind in modules]
    first = [kind for kind in kinds if kind not in ('Dense', 'Normalize')]
    is_ordered = list(modules) == kinds and first in ENCODERS
    huggingface.require(is_ordered, file, 'types', ORDERED, kinds)
    return modules


def load_params(folder: pathlib.Path, c: config.Encoder) -> encoder.Params:
    """Float32 NumPy parameters of a directory, sized as `c`; ValueError names what does not fit."""
    modules, place = _read_modules(folder), encoder_folder(folder)
    if c.family == 'static':
        params = huggingface.load_static(place)
    elif 'Dense' in modules:
        params = huggingface.load_params(place, dataclasses.replace(c, projection_dim=0))
    else:
        params = huggingface.load_params(place, c)
    if 'Dense' not in modules:
        return params
    dense, size = folder / modules['Dense'], c.projection_dim
    file = weights.find_weights(dense)
    kernel, bias = np.zeros((c.hidden_dim, size), np.float32), np.zeros(size, np.float32)
    params['head'] = {'kernel': kernel, 'bias': bias}
    targets = {'linear.weight': kernel.T, 'linear.bias': bias}
    has_bias = files.read_optional_json(dense / 'config.json').get('bias', True)
    missing = set(targets) if has_bias else {'linear.weight'}
    for name, array in weights.read_tensors(dense):
        huggingface.require_choice(name, targets, file, 'tensors')
        weights.copy_tensor(targets[name], array, f'{file}: {name}')
        missing.discard(name)
    huggingface.require(not missing, file, 'tensors', ', '.join(targets), 'no such tensor')
    return params


def write_model(out: pathlib.Path, model: Model, card: str) -> None:
    """Writes the new directory `out`, whole or not at all; `card` becomes its README.md."""
    if not files.is_free(out):
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    partial = files.partial_path(out)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    c, data = model.config.encoder, model.config.data
    longest = max(data.query_length, data.passage_length)
    arrays = huggingface.rename_params(model.params, c)
    if c.projection_dim:
        head = {f'linear.{x}': arrays.pop(f'pooler.dense.{x}') for x in ('weight', 'bias')}
        weights.write_tensors(partial / PATHS['Dense'] / 'model.safetensors', head)
    weights.write_tensors(partial / 'model.safetensors', arrays)
    prefix = data.passage_prefix
    prompts = {'query': data.query_prefix, 'document': prefix, 'passage': prefix}
    settings = {'prompts': prompts, 'default_prompt_name': None, 'similarity_fn_name': 'cosine'}
    contents = _module_files(c) | {'config_sentence_transformers.json': settings}
    if c.family == 'static':  # which sentence-transformers truncates as the tokenizer says
        tokenizer_files.truncating(model.tokenizer, longest).save(str(partial / 'tokenizer.json'))
    else:
        model.tokenizer.save(str(partial / 'tokenizer.json'))
        contents |= _transformer_files(model, longest)
    for name, content in contents.items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')
    (partial / 'README.md').write_text(card)
    os.replace(partial, out)


def _transformer_files(model: Model, longest: int) -> dict[str, dict]:
    """File -> content: the settings of the encoder and of its tokenizer."""
    ids = model.tokenizer.encode('').ids  # special tokens at both ends of every text
    ends = {'bos_token_id': ids[0], 'eos_token_id': ids[-1]} if len(ids) > 1 else {}
    return tokenizer_files.make_settings(model.tokenizer, longest) | {
        'config.json': huggingface.make_config(model.config.encoder) | ends,
        'sentence_bert_config.json': {'max_seq_length': longest, 'do_lower_case': False},
    }


def _module_files(c: config.Encoder) -> dict[str, dict | list]:
    """File -> content: the modules after the encoder, under names that all versions know."""
    pooling = {'word_embedding_dimension': c.hidden_dim, 'include_prompt': True}
    pooling |= {key: mode == c.pooling for key, mode in POOLING.items()}
    static = c.family == 'static'
    configs = {'StaticEmbedding': None} if static else {'Transformer': None, 'Pooling': pooling}
    if c.projection_dim:
        names = {setting: name for name, setting in huggingface.HEAD_ACTIVATIONS.items()}
        configs['Dense'] = {
            'in_features': c.hidden_dim,
            'out_features': c.projection_dim,
            'bias': True,
            'activation_function': names[c.projection_activation],
        }
    if c.normalise:
        configs['Normalize'] = {}
    modules = [
        {'idx': i, 'name': str(i), 'path': PATHS[x], 'type': f'sentence_transformers.models.{x}'}
        for i, x in enumerate(configs)
    ]
    contents = {f'{PATHS[x]}/config.json': content for x, content in configs.items() if PATHS[x]}
    return contents | {'modules.json': modules}
