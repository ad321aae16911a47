"""Every setting of a training run: its type, default, meaning, choices and bounds.

A file in `configs/` returns a `Config`, to which the command line's overrides are applied; programs
then call `check` once. `python -m hbt.config` prints the reference.
"""

import dataclasses
import json
import pathlib
from collections import abc

from hbt.utils import files, settings
from hbt.utils.settings import choice, setting

VERSION = 2  # of a run directory: config.json, metrics.jsonl
METRICS = (  # those of `evaluation.metrics` of which more is better
    *('map', 'map@10', 'mrr', 'mrr@10', 'mrr@100', 'ndcg@10', 'recall@1', 'recall@5', 'recall@10'),
    *('recall@100', 'success@1', 'success@10', 'r_precision'),
)
BEST = ['loss', *(f'{part}.{metric}' for part in ('mono', 'cross', 'multi') for metric in METRICS)]
LENGTH, SIZE, STEPS, UNIT = (4, 10**5), (1, 10**7), (1, 10**9), (0, 1)  # bounds


@dataclasses.dataclass
class Data:
    """Where the texts come from and how they become tokens."""

    root: str = setting('', 'store of tokens; empty: stores/<name>')
    sources: tuple[str, ...] = setting((), 'files or cldr:GROUPS to make a missing store from')
    tokenizer: str = setting('', 'hub name, directory, tokenizer.json, or train:SIZE for a new one')
    query_prefix: str = setting('Query: ', 'put before every query')
    passage_prefix: str = setting('Passage: ', 'put before every passage')
    query_length: int = setting(64, 'tokens of a query, special ones too; the rest is cut', LENGTH)
    passage_length: int = setting(
        256, 'tokens of a passage, special ones too; the rest is cut', LENGTH
    )
    verify: bool = setting(True, 'compare the store with its checksums before training')


@dataclasses.dataclass
class Sampler:
    """How a batch is composed (paper, section 3)."""

    kind: str = choice(
        ('hybrid', 'multitask'),
        'hybrid: a step has one batch, monolingual or cross-lingual; multitask: it has both',
    )
    alpha: float = setting(
        0.5,
        'hybrid: probability of a monolingual batch, 1 is X-X and 0 is X-Y; multitask: weight of '
        'the monolingual loss, the cross-lingual loss has the rest',
        UNIT,
    )
    alpha_points: str = setting('', 'alpha at some steps, in place of alpha: STEP:ALPHA,STEP:ALPHA')
    alpha_curve: str = choice(('linear', 'cosine', 'stairs'), 'how alpha moves between two steps')
    mono: str = choice(
        ('one', 'mixed'),
        'one language in a monolingual batch, or mixed: one in each pair (LAReQA X-X)',
    )
    datasets: str = choice(('one', 'mixed'), 'one dataset in a batch, or mixed: one in each pair')
    language_power: float = setting(
        0.0, 'a language is as likely as its size to this power: 0 uniform, 1 by size (1/T)', UNIT
    )
    language_floor: float = setting(
        0.0, 'smallest proportion of a language in monolingual pairs', UNIT
    )
    pair_power: float = setting(0.0, 'an ordered pair is as likely as its size to this power', UNIT)
    pair_floor: float = setting(
        0.0, 'smallest proportion of an ordered pair of languages in cross-lingual pairs', UNIT
    )
    pairs: str = setting(
        '', 'QUERY:PASSAGE:WEIGHT, as en:de:2,de:en:1, in place of pair_power; others are not drawn'
    )
    cross_first: str = choice(('dataset', 'pair'), 'what a cross-lingual batch draws first')
    dataset_power: float = setting(1.0, 'a dataset is as likely as its size to this power', UNIT)
    dataset_weights: str = setting('', 'factors of that probability: NAME:FACTOR,NAME:FACTOR')
    languages: tuple[str, ...] = setting((), 'languages to train on; empty: all of the store')
    negatives: int = setting(0, 'hard negatives of every group that has them', (0, 1000))


@dataclasses.dataclass
class Encoder:
    """A transformer encoder. With `init`, the sizes are read from the checkpoint instead."""

    init: str = setting('', 'path or hub name of weights, {seed} in it is the seed; empty: random')
    family: str = choice(('xlmr', 'bert', 'static'), 'how positions are counted; static: none')
    vocab_size: int = setting(0, 'rows of the token table; 0: those of the tokenizer', (0, 10**8))
    hidden_dim: int = setting(768, 'width of the hidden states', SIZE)
    num_layers: int = setting(12, 'transformer layers; 0: token embeddings are pooled', (0, 10**7))
    num_heads: int = setting(12, 'attention heads', SIZE)
    mlp_dim: int = setting(3072, 'width of the feed-forward layer', SIZE)
    max_positions: int = setting(514, 'rows of the position table', SIZE)
    type_vocab_size: int = setting(1, 'rows of the token-type table', SIZE)
    pad_id: int = setting(1, 'token id of padding')
    norm_eps: float = setting(1e-5, 'epsilon of layer normalisation')
    init_std: float = setting(0.02, 'standard deviation of random weights')
    activation: str = choice(('gelu', 'gelu_new'), 'exact GELU, or its approximation by tanh')
    dropout: float = setting(0.1, 'dropout of hidden states during training', (0, 0.99))
    attention_dropout: float = setting(0.1, 'dropout of attention weights', (0, 0.99))
    norm: str = choice(('post', 'pre'), 'layer normalisation after each sublayer, or before (XL)')
    pooling: str = choice(('mean', 'cls', 'max'), 'mean or max of real tokens, or the first (cls)')
    projection_dim: int = setting(0, 'width of a dense layer after pooling; 0: none', (0, 10**6))
    projection_activation: str = choice(('tanh', 'identity'), 'activation of that layer')
    normalise: bool = setting(True, 'embeddings of unit length; training requires it')
    dtype: str = choice(
        ('float32', 'bfloat16', 'float64'), 'type of the computation; parameters stay float32'
    )
    remat: str = choice(
        ('none', 'cheap', 'layer'),
        'recomputed for the gradient: nothing, cheap parts, or layers',
    )
    unroll: bool = setting(
        True,
        'layers one by one, not in a loop: faster steps, but a TPU compiles them six times longer; '
        'GPUs, and TPUs with remat, always loop',
    )
    chunk: int = setting(
        0, 'tokens that a device encodes at a time (gradient caching); 0: all', (0, 10**9)
    )

    @property
    def embedding_dim(self) -> int:
        """Dimensions of the embeddings."""
        return self.projection_dim or self.hidden_dim


@dataclasses.dataclass
class Loss:
    """InfoNCE over in-batch negatives of all devices (paper, equation 1)."""

    kind: str = choice(('gathered', 'chunked', 'ring'), 'the same loss, with ever less memory')
    chunk: int = setting(4096, 'columns of logits at a time (chunked, ring)', (1, 10**9))
    negatives: str = choice(('batch', 'hard'), 'all other passages, or only hard ones (equation 1)')
    symmetric: bool = setting(False, 'also from the passage to the queries; else one direction')
    temperature: float = setting(0.05, 'the cosine is divided by it', (1e-4, 100))
    learned: bool = setting(False, 'the temperature is a parameter and begins there')
    dims: tuple[int, ...] = setting(
        (),
        'Matryoshka: also the loss of so many first dimensions of the embeddings, ascending; the '
        'mean of these and of the whole is minimised',
        SIZE,
    )


@dataclasses.dataclass
class Optim:
    """AdamW with warm-up and clipping."""

    lr: float = setting(3e-5, 'peak learning rate', (0, 10))
    warmup: int = setting(1000, 'steps of linear warm-up', (0, 10**9))
    schedule: str = choice(
        ('linear', 'cosine', 'constant'), 'after warm-up: to zero at the last step, or constant'
    )
    weight_decay: float = setting(1e-2, 'decoupled; of matrices and embeddings', (0, 10))
    b1: float = setting(0.9, 'decay of the first moment')
    b2: float = setting(0.999, 'decay of the second moment')
    eps: float = setting(1e-8, 'added to the root of the second moment')
    clip: float = setting(1.0, 'largest global norm of the gradient', (1e-12, 1e12))


@dataclasses.dataclass
class Eval:
    """What is measured during and after training."""

    benchmarks: tuple[str, ...] = setting(
        (),
        'cldr, xquad_r, mlqa_r, miracl:LANG+LANG, mr_tydi:LANG, mtop_translation, mtop_intent, '
        'beir:FOLDER, jsonl:FILE',
    )
    root: str = setting('', 'folder that holds the benchmarks, or hub: the Hugging Face hub')
    every: int = setting(0, 'steps between evaluations; 0: only at the end', (0, 10**9))
    batch_size: int = setting(256, 'texts encoded at a time, over all devices', SIZE)
    at_start: bool = setting(False, 'also evaluate before the first step')
    validation: str = setting(
        '', 'held-out pairs whose loss is measured: an input of hbt.prepare, such as FILE'
    )
    best: str = setting(
        'multi.map',
        'chooses best/: a metric of the first benchmark, or the loss of validation',
        BEST,
    )
    patience: int = setting(
        0, 'evaluations without a better best after which the run stops; 0: never', (0, 10**6)
    )


@dataclasses.dataclass
class Config:
    """One experiment."""

    name: str = setting('hbt', 'default name of the workdir and the store')
    seed: int = setting(0, 'of the weights, the batches and the dropout', (0, 2**32 - 1))
    steps: int = setting(1000, 'optimizer steps', STEPS)
    batch_size: int = setting(96, 'pairs of a batch, over all devices', (2, 10**7))
    log_every: int = setting(50, 'steps between lines of metrics.jsonl', STEPS)
    log_pairs: bool = setting(
        False, 'TensorBoard has the curves of language pairs too, as metrics.jsonl always has'
    )
    nonfinite: str = choice(
        ('stop', 'skip'), 'at a step whose loss or gradient is not finite: end the run, or go on'
    )
    ckpt_every: int = setting(500, 'steps between checkpoints', STEPS)
    mapping: str = choice(('shard_map', 'pmap'), 'how the step is mapped over devices')
    shard_params: bool = setting(False, 'split weights and moments over the devices')
    distributed: bool = setting(False, 'several hosts: call jax.distributed.initialize first')
    data: Data = dataclasses.field(default_factory=Data)
    sampler: Sampler = dataclasses.field(default_factory=Sampler)
    encoder: Encoder = dataclasses.field(default_factory=Encoder)
    loss: Loss = dataclasses.field(default_factory=Loss)
    optim: Optim = dataclasses.field(default_factory=Optim)
    eval: Eval = dataclasses.field(default_factory=Eval)


def check(config: Config) -> Config:
    """Returns the config itself; ValueError names the first setting with a wrong value."""
    settings.split_tuples(config)
    settings.check_values(config)
    encoder, sampler, loss = config.encoder, config.sampler, config.loss
    if encoder.num_layers and encoder.hidden_dim % encoder.num_heads:
        expected = f'a multiple of encoder.num_heads={encoder.num_heads}'
        raise ValueError(f'encoder.hidden_dim: expected {expected}, got {encoder.hidden_dim}')
    settings.parse_weights(sampler.dataset_weights, 'sampler.dataset_weights', 1)
    settings.parse_weights(sampler.pairs, 'sampler.pairs', 2)
    alphas = [alpha for _, alpha in alpha_points(sampler)] or [sampler.alpha]
    if min(alphas) < 1 and len(sampler.languages) == 1:
        raise ValueError(
            'sampler.languages: cross-lingual batches need at least two, got one; '
            'with sampler.alpha=1, all batches are monolingual'
        )
    if config.shard_params and config.mapping == 'pmap':
        raise ValueError('mapping: expected shard_map with shard_params, got pmap')
    if loss.negatives == 'hard' and not sampler.negatives:
        raise ValueError('loss.negatives: hard needs sampler.negatives of at least 1, got 0')
    if loss.negatives == 'hard' and loss.symmetric:
        raise ValueError('loss.symmetric: expected false with loss.negatives=hard, got true')
    if list(loss.dims) != sorted(set(loss.dims)):
        got = ','.join(map(str, loss.dims))
        raise ValueError(f'loss.dims: expected ascending dimensions, got {got}')
    if not encoder.init:  # which says how large the embeddings are
        check_dims(config)
    _check_eval(config.eval)
    return config


def check_dims(config: Config) -> None:
    """ValueError if a prefix of the embeddings is to be larger than they are."""
    size = config.encoder.embedding_dim
    if beyond := [x for x in config.loss.dims if x > size]:
        expected = f'at most {size}, the dimensions of the embeddings'
        raise ValueError(f'loss.dims: expected {expected}, got {beyond[0]}')


def _check_eval(c: Eval) -> None:
    """ValueError where nothing is measured that best or patience need."""
    if c.best == 'loss' and not c.validation:
        raise ValueError('eval.best: expected a metric without eval.validation, got loss')
    if c.best != 'loss' and c.validation and not c.benchmarks:
        raise ValueError(f'eval.best: expected loss without eval.benchmarks, got {c.best}')
    if c.patience and not (c.every and (c.validation or c.benchmarks)):
        missing = 'eval.benchmarks or eval.validation' if c.every else 'eval.every'
        raise ValueError(f'eval.patience: expected 0 without {missing}, got {c.patience}')


def alpha_points(sampler: Sampler) -> list[tuple[float, float]]:
    """(step, alpha) of `sampler.alpha_points`; ValueError unless the steps ascend."""
    points = []
    weights = settings.parse_weights(sampler.alpha_points, 'sampler.alpha_points', 1)
    for (step,), alpha in weights.items():
        later = step.isdigit() and (not points or int(step) > points[-1][0])
        if not later or alpha > 1:
            expected = 'STEP:ALPHA with ascending steps and 0 to 1'
            raise ValueError(f'sampler.alpha_points: expected {expected}, got {step}:{alpha:g}')
        points.append((float(step), alpha))
    return points


def store_path(config: Config) -> pathlib.Path:
    """The store of an experiment."""
    return pathlib.Path(config.data.root or f'stores/{config.name}')


def check_flags(argv: abc.Sequence[str]) -> None:
    """ValueError for a `--config.name=` on the command line that is no setting."""
    settings.check_flags(Config(), argv)


def save(config: Config, path: pathlib.Path) -> None:
    """Writes config.json, whole or not at all."""
    files.write_json(path, {'version': VERSION} | dataclasses.asdict(config))


def load(path: pathlib.Path) -> Config:
    """Reads what `save` wrote; ValueError names the file, and the version or setting at fault."""
    try:
        values = json.loads(path.read_text('utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path}: expected the config of a training run, got {error}') from None
    if not isinstance(values, dict) or values.pop('version', 1) != VERSION:
        raise ValueError(
            f'{path}: expected a config of version {VERSION}, got one of another version of hbt; '
            'use that version, or train again in another --workdir'
        )
    try:
        return check(settings.update(Config(), values))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def reference() -> str:
    """docs/settings.md: a table for every section."""
    head = (
        '# Settings\n\nMade by `python -m hbt.config` from `hbt/config.py`. Each is given as\n'
        '`--config.sampler.alpha=0.25`, or set in a file of `configs/`.\n'
    )
    return head + ''.join(f'{line}\n' for line in settings.reference(Config()))


if __name__ == '__main__':
    print(reference(), end='')
