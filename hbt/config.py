"""Every setting of a run, with its type, default and meaning.

Hides how settings are declared, documented and checked. A file in `configs/` returns a `Config`;
command-line overrides are applied to it afterwards, so programs call `check` once on the result.
"""

import dataclasses
import pathlib
import types
from collections import abc


def setting(default, doc: str):
    """A field with its meaning attached, from which the settings reference is made."""
    return dataclasses.field(default=default, metadata={'doc': doc})


def part(cls):
    return dataclasses.field(default_factory=cls)


@dataclasses.dataclass
class Data:
    """Where the texts come from and how they become tokens."""

    root: str = setting('', 'store of tokens; empty: stores/<name>')
    sources: tuple[str, ...] = setting(
        (), 'files, or cldr:GROUPS, that a missing store is made from'
    )
    tokenizer: str = setting('', 'hub name, directory, tokenizer.json, or train:SIZE for a new one')
    query_prefix: str = setting('Query: ', 'put before every query')
    passage_prefix: str = setting('Passage: ', 'put before every passage')
    query_length: int = setting(64, 'tokens of a query, special ones included; the rest is cut')
    passage_length: int = setting(256, 'tokens of a passage, special ones included')
    verify: bool = setting(True, 'compare the store with its sums before training')


@dataclasses.dataclass
class Sampler:
    """How a batch is composed (paper, section 3)."""

    kind: str = setting(
        'hybrid',
        'hybrid: a step has one batch, monolingual or cross-lingual; multitask: it has both',
    )
    alpha: float = setting(
        0.5,
        'hybrid: probability of a monolingual batch, 1 is X-X and 0 is X-Y; multitask: weight of '
        'the monolingual loss, the cross-lingual one has the rest',
    )
    alpha_points: str = setting(
        '', 'STEP:ALPHA,STEP:ALPHA: alpha changes with the step, in place of alpha'
    )
    alpha_curve: str = setting('linear', 'between two points: linear, cosine, or stairs')
    mono: str = setting(
        'one', 'languages of a monolingual batch: one, or mixed: one in each row (LAReQA X-X)'
    )
    datasets: str = setting('one', 'datasets of a batch: one, or mixed: every row draws its own')
    language_power: float = setting(
        0.0, 'a language is as likely as its size to this power: 0 uniform, 1 by size, 1/T'
    )
    language_floor: float = setting(0.0, 'least share of a language in monolingual rows')
    pair_power: float = setting(0.0, 'an ordered pair is as likely as its size to this power')
    pair_floor: float = setting(0.0, 'least share of an ordered pair in cross-lingual rows')
    pairs: str = setting(
        '', 'QUERY:PASSAGE:WEIGHT, as en:de:2,de:en:1, in place of pair_power; others are not drawn'
    )
    cross_first: str = setting(
        'dataset', 'what is drawn first in a cross-lingual batch: dataset, or pair'
    )
    dataset_power: float = setting(1.0, 'a dataset is as likely as its size to this power')
    dataset_weights: str = setting('', 'NAME:FACTOR,NAME:FACTOR on top of that; without, 1')
    languages: tuple[str, ...] = setting((), 'languages to train on; empty: all of the store')
    negatives: int = setting(0, 'hard negatives taken from every row that has them')


@dataclasses.dataclass
class Encoder:
    """A transformer encoder. With `init`, the sizes are read from the checkpoint instead."""

    init: str = setting('', 'directory or hub name of pretrained weights; empty: random weights')
    family: str = setting('xlmr', 'xlmr or bert: how positions and token types are counted')
    vocab_size: int = setting(0, 'rows of the token table; 0: as many as the tokenizer has')
    dim: int = setting(768, 'width of the hidden states, and without a head of the embedding')
    layers: int = setting(12, 'transformer layers; 0: token embeddings are pooled as they are')
    heads: int = setting(12, 'attention heads')
    hidden: int = setting(3072, 'width of the feed-forward layer')
    positions: int = setting(514, 'rows of the position table')
    types: int = setting(1, 'rows of the token-type table')
    pad_id: int = setting(1, 'token id of padding')
    eps: float = setting(1e-5, 'epsilon of layer normalisation')
    init_std: float = setting(0.02, 'standard deviation of random weights')
    activation: str = setting('gelu', 'gelu (exact) or gelu_new (tanh approximation)')
    dropout: float = setting(0.1, 'dropout of hidden states during training')
    attention_dropout: float = setting(0.1, 'dropout of attention weights during training')
    norm: str = setting('post', 'layer normalisation after each sublayer, or pre: before (XL)')
    pooling: str = setting('mean', 'mean or max over real tokens, or cls: the first token')
    head: int = setting(0, 'width of a dense layer over the pooled vector; 0: no such layer')
    head_activation: str = setting('tanh', 'of that layer: tanh or identity')
    normalise: bool = setting(True, 'embeddings of unit length; training needs them')
    dtype: str = setting('float32', 'type of the computation; parameters stay float32')
    remat: str = setting('none', 'computed again for the gradient: none, cheap parts, or layer')
    chunk: int = setting(0, 'tokens a device encodes at a time (gradient caching); 0: all')


@dataclasses.dataclass
class Loss:
    """InfoNCE over in-batch negatives of all devices (paper, equation 1)."""

    kind: str = setting('gathered', 'gathered, chunked or ring: one loss, ever less memory')
    chunk: int = setting(4096, 'columns whose logits are held at a time (chunked, ring)')
    negatives: str = setting(
        'batch', 'all other documents of the batch, or hard: hard negatives only (equation 1)'
    )
    symmetric: bool = setting(False, 'also from the document to the queries; else one direction')
    temperature: float = setting(0.05, 'the cosine is divided by it')
    learned: bool = setting(False, 'the temperature is a parameter and begins there')


@dataclasses.dataclass
class Optim:
    """AdamW with warm-up and clipping."""

    lr: float = setting(3e-5, 'peak learning rate')
    warmup: int = setting(1000, 'steps of linear warm-up')
    schedule: str = setting('linear', 'after the warm-up: linear or cosine to zero, or constant')
    weight_decay: float = setting(1e-2, 'decoupled decay of matrices and embeddings')
    b1: float = setting(0.9, 'decay of the first moment')
    b2: float = setting(0.999, 'decay of the second moment')
    eps: float = setting(1e-8, 'added to the root of the second moment')
    clip: float = setting(1.0, 'largest global norm of the gradient')


@dataclasses.dataclass
class Eval:
    """What is measured during and after training."""

    benchmarks: tuple[str, ...] = setting(
        (),
        'cldr, xquad_r, mlqa_r, miracl:LANG+LANG, mr_tydi:LANG, mtop_translation, mtop_intent, '
        'beir:FOLDER, jsonl:FILE',
    )
    root: str = setting('', 'folder that holds the benchmarks, or hub: the Hugging Face hub')
    every: int = setting(0, 'steps between evaluations; 0: only after the last step')
    batch_size: int = setting(256, 'texts encoded at a time, over all devices')
    at_start: bool = setting(False, 'also evaluate before the first step')
    best: str = setting('multi.map', 'metric of the first benchmark that chooses best/')


@dataclasses.dataclass
class Config:
    """One experiment."""

    name: str = setting('hbt', 'names the workdir and the store where those are not given')
    seed: int = setting(0, 'of the weights, the batches and the dropout')
    steps: int = setting(1000, 'optimizer steps')
    batch_size: int = setting(96, 'rows of a batch, over all devices')
    log_every: int = setting(50, 'steps between lines of metrics.jsonl')
    nonfinite: str = setting(
        'stop', 'where loss or gradient is not finite: stop, or skip that step and go on'
    )
    ckpt_every: int = setting(500, 'steps between checkpoints')
    mapping: str = setting('shard_map', 'how the step is mapped over devices: shard_map or pmap')
    shard_params: bool = setting(False, 'split weights and moments over the devices')
    distributed: bool = setting(False, 'several hosts: call jax.distributed.initialize first')
    data: Data = part(Data)
    sampler: Sampler = part(Sampler)
    encoder: Encoder = part(Encoder)
    loss: Loss = part(Loss)
    optim: Optim = part(Optim)
    eval: Eval = part(Eval)


METRICS = (  # those of `metrics` of which more is better
    *('map', 'map@10', 'mrr', 'mrr@10', 'mrr@100', 'ndcg@10', 'recall@1', 'recall@5', 'recall@10'),
    *('recall@100', 'success@1', 'success@10', 'r_precision'),
)
CHOICES = {
    'mapping': ('shard_map', 'pmap'),
    'nonfinite': ('stop', 'skip'),
    'encoder.family': ('xlmr', 'bert'),
    'encoder.activation': ('gelu', 'gelu_new'),
    'encoder.norm': ('post', 'pre'),
    'encoder.pooling': ('mean', 'cls', 'max'),
    'encoder.head_activation': ('tanh', 'identity'),
    'encoder.remat': ('none', 'cheap', 'layer'),
    'encoder.dtype': ('float32', 'bfloat16', 'float64'),
    'loss.kind': ('gathered', 'chunked', 'ring'),
    'loss.negatives': ('batch', 'hard'),
    'sampler.kind': ('hybrid', 'multitask'),
    'sampler.alpha_curve': ('linear', 'cosine', 'stairs'),
    'sampler.mono': ('one', 'mixed'),
    'sampler.datasets': ('one', 'mixed'),
    'sampler.cross_first': ('dataset', 'pair'),
    'optim.schedule': ('linear', 'cosine', 'constant'),
    'eval.best': tuple(
        f'{setting}.{metric}' for setting in ('mono', 'cross', 'multi') for metric in METRICS
    ),
}
BOUNDS = {  # setting -> (smallest, largest) value allowed
    'seed': (0, 2**32 - 1),
    'steps': (1, 10**9),
    'batch_size': (2, 10**7),
    'log_every': (1, 10**9),
    'ckpt_every': (1, 10**9),
    'data.query_length': (4, 10**5),
    'data.passage_length': (4, 10**5),
    'sampler.alpha': (0, 1),
    'sampler.language_power': (0, 1),
    'sampler.language_floor': (0, 1),
    'sampler.pair_power': (0, 1),
    'sampler.pair_floor': (0, 1),
    'sampler.dataset_power': (0, 1),
    'sampler.negatives': (0, 1000),
    'encoder.vocab_size': (0, 10**8),
    'encoder.head': (0, 10**6),
    'encoder.dropout': (0, 0.99),
    'encoder.attention_dropout': (0, 0.99),
    'encoder.chunk': (0, 10**9),
    'loss.temperature': (1e-4, 100),
    'loss.chunk': (1, 10**9),
    'optim.lr': (0, 10),
    'optim.warmup': (0, 10**9),
    'optim.weight_decay': (0, 10),
    'optim.clip': (1e-12, 1e12),
    'eval.every': (0, 10**9),
    'eval.batch_size': (1, 10**7),
    **{f'encoder.{k}': (1, 10**7) for k in ('dim', 'heads', 'hidden', 'positions', 'types')},
    'encoder.layers': (0, 10**7),
}


def root(config: Config) -> pathlib.Path:
    """The store of an experiment."""
    return pathlib.Path(config.data.root or f'stores/{config.name}')


def fields(config, prefix: str = '') -> abc.Iterator[tuple[str, object]]:
    """Yields (dotted name, value) of every setting."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f'{prefix}{field.name}.')
        else:
            yield prefix + field.name, value


def check(config: Config) -> Config:
    """Returns the config itself; ValueError names the first setting that cannot be."""
    split_tuples(config)
    values = dict(fields(config))
    for name, known in CHOICES.items():
        if values[name] not in known:
            raise ValueError(f'{name}: expected one of {", ".join(known)}, got {values[name]!r}')
    for name, (low, high) in BOUNDS.items():
        if not low <= values[name] <= high:
            raise ValueError(f'{name}: expected {low} to {high}, got {values[name]}')
    encoder = config.encoder
    if encoder.dim % encoder.heads:
        raise ValueError(
            f'encoder.dim: expected a multiple of encoder.heads={encoder.heads}, got {encoder.dim}'
        )
    table(config.sampler.dataset_weights, 'sampler.dataset_weights', 1)
    table(config.sampler.pairs, 'sampler.pairs', 2)
    alphas = [value for _, value in points(config.sampler)] or [config.sampler.alpha]
    if min(alphas) < 1 and len(config.sampler.languages) == 1:
        raise ValueError('sampler.languages: cross-lingual batches need at least two, got one')
    if config.shard_params and config.mapping == 'pmap':
        raise ValueError('mapping: expected shard_map with shard_params, got pmap')
    if config.loss.negatives == 'hard':
        if not config.sampler.negatives:
            raise ValueError('loss.negatives: hard needs sampler.negatives of at least 1, got 0')
        if config.loss.symmetric:
            raise ValueError('loss.symmetric: expected false with loss.negatives=hard, got true')
    return config


def table(text: str, name: str, keys: int) -> dict[tuple[str, ...], float]:
    """Reads `A:B:NUMBER,...` with `keys` words before the number; ValueError names `name`."""
    found = {}
    for item in filter(None, text.split(',')):
        *words, number = item.split(':')
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if len(words) != keys or not all(words) or not 0 <= value < float('inf'):
            form = ':'.join(['WORD'] * keys + ['NUMBER'])
            raise ValueError(f'{name}: expected {form} with a number from 0, got {item!r}')
        if tuple(words) in found:
            raise ValueError(f'{name}: expected {":".join(words)} once, got it twice')
        found[tuple(words)] = value
    return found


def points(sampler: Sampler) -> list[tuple[float, float]]:
    """(step, alpha) of `alpha_points`."""
    found = []
    for (step,), value in table(sampler.alpha_points, 'sampler.alpha_points', 1).items():
        later = step.isdigit() and (not found or int(step) > found[-1][0])
        if not later or value > 1:
            raise ValueError(
                'sampler.alpha_points: expected STEP:ALPHA with ascending steps and 0 to 1, got '
                f'{step}:{value:g}'
            )
        found.append((float(step), value))
    return found


def split_tuples(config) -> None:
    """Lets a tuple of words be typed as `a,b` on the command line."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            split_tuples(value)
        elif isinstance(value, tuple):
            setattr(config, field.name, tuple(x for item in value for x in item.split(',') if x))


def parse(arg: str | None, **defaults):
    """Reads `key=value,key=value` behind the colon of `--config=file.py:...`.

    Returns a namespace of the defaults with the given values, cast to the types of the defaults,
    and with a `suffix` for names, such as _alpha0, that tells what is not as by default.
    """
    values = dict(defaults)
    for item in filter(None, (arg or '').split(',')):
        key, _, text = item.partition('=')
        if key not in defaults:
            raise ValueError(f'--config argument: expected {", ".join(defaults)}, got {key!r}')
        kind = type(defaults[key])
        try:
            values[key] = text.lower() in ('1', 'true') if kind is bool else kind(text)
        except ValueError:
            raise ValueError(
                f'--config argument {key}: expected {kind.__name__}, got {text!r}'
            ) from None
    shown = [f'_{k}{v:g}' if isinstance(v, float) else f'_{k}{v}' for k, v in values.items()]
    changed = [text for text, k in zip(shown, values, strict=True) if values[k] != defaults[k]]
    return types.SimpleNamespace(**values, suffix=''.join(changed))
