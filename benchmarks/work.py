"""The same pairs, the same model shape, for hbt and its peers."""

import dataclasses
import importlib
import itertools
import pathlib
import sys
import tempfile
import time
import typing
from collections import abc

import numpy as np

from hbt import config
from hbt.data import store
from hbt.sampling import batches, packing, sampler
from hbt.training import telemetry

SHAPES = {  # name -> encoder, pairs of a batch, steps of a turn
    'tiny': (dict(hidden_dim=32, num_layers=1, num_heads=2, mlp_dim=64, vocab_size=1000), 8, 1),
    'small': (
        dict(hidden_dim=256, num_layers=4, num_heads=4, mlp_dim=1024, vocab_size=16_000),
        32,
        4,
    ),
    'base': (
        dict(hidden_dim=768, num_layers=12, num_heads=12, mlp_dim=3072, vocab_size=50_000),
        32,
        1,
    ),
}
READY = 16  # batches that are drawn, and tokenised for the peers, before the clock starts

Turn = tuple[abc.Callable[[], float], dict]  # seconds of a turn; facts


class Task(typing.NamedTuple):
    """What every entrant has to do."""

    config: config.Config
    sampler: sampler.Sampler
    steps: int  # of a turn
    device: str  # cpu or gpu


def task(shape: str, root: pathlib.Path, pairs: int = 0, device: str = 'cpu') -> Task:
    """Batches of a store of real pairs, as hbt draws them: half of them monolingual.

    On a GPU without dropout of attention weights, which its fused kernels do not have.
    """
    sizes, count, steps = SHAPES[shape]
    s = store.open_store(root)
    c = config.Config(
        batch_size=pairs or count,
        steps=1000,
        data=config.Data(**s.manifest['settings']),
        encoder=config.Encoder(**sizes, attention_dropout=0.1 if device == 'cpu' else 0.0),
        optim=config.Optim(warmup=10),
    )
    return Task(c, sampler.Sampler(c, s), steps, device)


def flops(work: Task) -> list[float]:
    """Of the model, for each of the batches that the turns cycle through."""
    result = []
    for step in range(READY):
        s = work.sampler
        lengths = batches.collect_texts(s.config, s.store, s.languages, s.plans(step)).lengths
        squares = float(np.square(lengths).sum())
        result.append(telemetry.model_flops(work.config, float(lengths.sum()), squares, 1))
    return result


def cut(tokens: np.ndarray, size: int) -> np.ndarray:
    """Tokens of a vocabulary of `size` words; those beyond become others, none a special one."""
    return np.where(tokens < size, tokens, tokens % (size - 5) + 5)


def texts(work: Task, step: int) -> list[list[np.ndarray]]:
    """Token ids of the queries, and of the passages, of a step."""
    c = work.config
    _, batch = work.sampler.batch(step)
    slots = packing.slots_per_row(batch.packed.tokens.shape[1])
    columns = [[None] * c.batch_size for _ in range(2)]
    for row, slot in np.ndindex(*batch.embedding_indices.shape[1:]):
        at, number = divmod(int(batch.embedding_indices[0, row, slot]), slots)
        mask = batch.packed.segment_ids[at] == number + 1
        tokens = cut(batch.packed.tokens[at][mask], c.encoder.vocab_size)
        columns[slot][batch.pair_indices[0, row]] = tokens
    return columns


def hbt(work: Task, dtype: str, chunk: int = 0) -> Turn:
    """Turns of hbt's own step; drawing and packing a batch is part of it."""
    import jax

    from hbt.training import train_state, train_step
    from hbt.utils import sharding

    c = dataclasses.replace(
        work.config, encoder=dataclasses.replace(work.config.encoder, dtype=dtype, chunk=chunk)
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)

    def batch_of(number: int) -> batches.Batch:
        batch = work.sampler.batch(number)[1]
        tokens = cut(batch.packed.tokens, c.encoder.vocab_size)
        return batch._replace(packed=batch.packed._replace(tokens=tokens))

    compiled_rows, real, computed = set(), 0, 0
    for number in range(READY):  # every shape once
        batch = batch_of(number)
        rows, width = batch.packed.segment_ids.shape
        real += np.count_nonzero(batch.packed.segment_ids)
        computed += packing.computed_rows(chunk, width, rows) * width
        if rows not in compiled_rows:
            state, values = step(state, batch)
            compiled_rows.add(rows)
    jax.block_until_ready(values)
    steps = itertools.cycle(range(READY))

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(work.steps):
            state, values = step(state, batch_of(next(steps)))
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return turn, {'real tokens': f'{real / computed:.0%}'}


def peer(work: Task, dtype: str, compiled: bool = False, chunk: int = 0, kind: str = '') -> Turn:
    """Turns of MultipleNegativesRankingLoss or, with a chunk, its cached form, or of GradCache.

    Texts are tokenised before the clock starts; each column is padded to its longest text.
    """
    import torch

    torch.manual_seed(0)
    model = peer_model(work)
    if compiled:
        model[0].model = torch.compile(model[0].model, dynamic=True)
    backward = STEPS[kind](model, 1 / work.config.loss.temperature, chunk)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=0.01, fused=True)
    model.train()
    device = 'cuda' if work.device == 'gpu' else 'cpu'
    half = torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16')

    def features(column: list[np.ndarray]) -> dict:
        lengths = torch.tensor([len(x) for x in column])
        ids = np.full((len(column), int(lengths.max())), 1)
        for row, text in zip(ids, column, strict=True):
            row[: len(text)] = text
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        ids = torch.tensor(ids).to(device)
        return {'input_ids': ids, 'attention_mask': mask.long().to(device)}

    def step(columns: list[dict]) -> None:
        backward([dict(x) for x in columns], half)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    ready = [[features(x) for x in texts(work, number)] for number in range(READY)]
    for number in range(6 if compiled else 2):
        step(ready[number])
    steps = itertools.cycle(range(READY))

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(work.steps):
            step(ready[next(steps)])
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    real = sum(int(x['attention_mask'].sum()) for columns in ready for x in columns)
    padded = sum(x['attention_mask'].numel() for columns in ready for x in columns)
    return turn, {'real tokens': f'{real / padded:.0%}'}


def sentence_transformers(model, scale: float, chunk: int) -> abc.Callable:
    from sentence_transformers.sentence_transformer import losses

    loss = losses.MultipleNegativesRankingLoss(model, scale=scale)
    if chunk:
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=chunk)

    def backward(columns, half):
        with half:
            value = loss(columns, None)
        value.backward()

    return backward


def grad_cache(model, scale: float, chunk: int) -> abc.Callable:
    """GradCache (Gao et al. 2021) as its authors publish it."""
    import torch

    # The package on PyPI is called gradcache and imports itself as grad_cache.
    package = importlib.import_module('gradcache')
    sys.modules['grad_cache'] = package
    name = 'context_managers'
    sys.modules[f'grad_cache.{name}'] = importlib.import_module(f'gradcache.{name}')
    cache_module = importlib.import_module('gradcache.grad_cache')

    def loss(queries, passages):
        queries, passages = (torch.nn.functional.normalize(x, dim=-1) for x in (queries, passages))
        target = torch.arange(len(queries), device=queries.device)
        return torch.nn.functional.cross_entropy(scale * queries @ passages.T, target)

    def encode(**features):
        return model(features)['sentence_embedding']

    cache = cache_module.GradCache([encode, encode], chunk, loss)

    def backward(columns, half):
        with half:
            cache(*columns)

    return backward


STEPS = {'': sentence_transformers, 'grad_cache': grad_cache}


def peer_model(work: Task):
    """A sentence-transformers model of the same shape, with random weights."""
    import sentence_transformers
    import transformers
    from sentence_transformers.sentence_transformer import modules

    e = work.config.encoder
    shape = transformers.XLMRobertaConfig(
        vocab_size=e.vocab_size,
        hidden_size=e.hidden_dim,
        num_hidden_layers=e.num_layers,
        num_attention_heads=e.num_heads,
        intermediate_size=e.mlp_dim,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        attention_probs_dropout_prob=e.attention_dropout,
    )
    with tempfile.TemporaryDirectory() as folder:
        transformers.XLMRobertaModel(shape, add_pooling_layer=False).save_pretrained(folder)
        file = str(work.sampler.store.path / 'tokenizer.json')
        transformers.PreTrainedTokenizerFast(
            tokenizer_file=file, pad_token='<pad>', model_max_length=512
        ).save_pretrained(folder)
        body = modules.Transformer(folder)
        pooling = modules.Pooling(e.hidden_dim, pooling_mode='mean')
        device = 'cuda' if work.device == 'gpu' else 'cpu'
        return sentence_transformers.SentenceTransformer(modules=[body, pooling], device=device)
