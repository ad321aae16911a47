"""The training step: from a state and a batch to the next state, on all devices.

And the loss alone, of held-out pairs.
"""

import dataclasses
import math
import types
from collections import abc

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt32

from hbt import config
from hbt.data import ragged
from hbt.models import encoder, layers
from hbt.sampling import batches, packing, schedule
from hbt.training import losses, optimizer, train_state
from hbt.utils import sharding


def make_step(c: config.Config, mesh: jax.sharding.Mesh) -> sharding.Mapped:
    """`step(state, batch) -> (state, metrics)`, mapped over the mesh; it donates `state`.

    A step whose loss or gradient is not finite only counts, with the metric `skipped` 1. The metric
    `pairs` is a `losses.PairMetrics` of arrays [t b], b over all devices.
    """
    transform, rate = optimizer.make_optimizer(c.optim, c.steps)

    def step(state: train_state.State, batch: batches.Batch):
        old = train_state.trainable(state.params, state.log_scale)
        scattered = _scattered_axes(c)
        args = old, batch, c, state.step, sharding.platform(mesh), scattered
        grads, metrics = compute_gradient(*args)
        norm = _global_norm(grads, c)
        if c.mapping == 'pmap':
            grads = _map_named(_gather_parts, grads, scattered)
        else:
            old = _map_named(_local_part, old, scattered)
        factor = jnp.minimum(1, c.optim.clip / jnp.maximum(norm, 1e-30))
        grads = jax.tree.map(lambda x: x * factor.astype(x.dtype), grads)
        with jax.numpy_dtype_promotion('standard'):  # optax raises floats to integer counts
            updates, opt = transform.update(grads, state.opt, old)
        new = optax.apply_updates(old, updates)
        if c.loss.learned:  # not in the loss: there it would have no gradient, and never fall again
            new['scale'] = jnp.minimum(new['scale'], max_log_scale(c.loss))
        finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(norm)
        new, opt = jax.tree.map(lambda a, b: jnp.where(finite, a, b), (new, opt), (old, state.opt))
        metrics |= {
            'grad_norm': norm,
            'lr': rate(state.opt),
            'skipped': jnp.where(finite, 0.0, 1.0),
            'temperature': jnp.exp(-state.log_scale),
        }
        return train_state.State(state.step + 1, new['encoder'], new['scale'], opt), metrics

    axes = batches.SHARD_AXES
    if c.mapping == 'pmap':
        return sharding.map_over_devices(step, mesh, c.mapping, axes, donate=True)
    shapes = jax.eval_shape(lambda: train_state.random_state(c))
    specs = train_state.partition_specs(shapes, c, mesh)
    updated = train_state.updated_specs(shapes, c, mesh), jax.P()
    results = specs, jax.P()
    return sharding.map_over_devices(step, mesh, c.mapping, axes, specs, updated, results, True)


def make_validation(c: config.Config, mesh: jax.sharding.Mesh) -> sharding.Mapped:
    """`losses(trainable, batch) -> [t b]`: the loss of each pair, without dropout, over the mesh.

    b over all devices, in the order of the plan; those of missing pairs mean nothing.
    """
    encoder_config = dataclasses.replace(c.encoder, dropout=0.0, attention_dropout=0.0)
    c = dataclasses.replace(c, encoder=encoder_config)

    def pair_losses(trainable: dict, batch: batches.Batch):
        local = _local_copy(trainable, c)
        _, metrics = _loss(local, batch, c, jnp.zeros((), jnp.int32), sharding.platform(mesh))
        return jax.lax.pmean(metrics['pairs'].loss, sharding.AXIS)

    def random_trainable():
        state = train_state.random_state(c)
        return train_state.trainable(state.params, state.log_scale)

    specs = None
    if c.shard_params:
        specs = train_state.partition_specs(jax.eval_shape(random_trainable), c, mesh)
    return sharding.map_over_devices(pair_losses, mesh, c.mapping, batches.SHARD_AXES, specs)


def compute_gradient(
    trainable: dict,
    batch: batches.Batch,
    c: config.Config,
    step: Int[Array, ''],
    platform: str,
    scattered: abc.Mapping[str, int] = types.MappingProxyType({}),
) -> tuple[dict, dict]:
    """Gradient of the mean loss over all pairs of all devices, and its metrics. Per device.

    The mean over the devices of the gradient of their own pairs' loss by their own parameters: the
    gather in the loss carries gradients back. That of a split parameter comes summed, and split. Of
    parameters in `scattered`, name -> axis, a device gets its part.
    """
    devices = jax.lax.axis_size(sharding.AXIS)
    axes = train_state.split_axes(c, devices)
    local = _local_copy(trainable, c)
    differentiate = jax.value_and_grad(_loss, has_aux=True)
    (_, metrics), grads = differentiate(local, batch, c, step, platform)
    grads = _map_named(_sum_parts, grads, scattered)
    split, replicated = _partition(grads, axes | scattered)
    replicated, metrics = jax.lax.pmean((replicated, metrics), sharding.AXIS)
    return _merge(jax.tree.map(lambda x: x / devices, split), replicated), metrics


def _local_copy(trainable: dict, c: config.Config) -> dict:
    """The parameters as this device's own: those that are replicated are marked as varying."""
    axes = train_state.split_axes(c, jax.lax.axis_size(sharding.AXIS))
    split, replicated = _partition(trainable, axes)
    return _merge(split, sharding.mark_varying(replicated))


def _scattered_axes(c: config.Config) -> dict[str, int]:
    """Of parameters that every device has, and updates a part of."""
    devices = jax.lax.axis_size(sharding.AXIS)
    split = train_state.split_axes(c, devices)
    return {k: v for k, v in train_state.update_axes(c, devices).items() if k not in split}


def _map_named(function: abc.Callable, tree, axes: abc.Mapping[str, int]):
    """`function(x, axis)` of the parameters with an axis; the others as they are."""

    def visit(path, x):
        axis = axes.get(train_state.parameter_name(path))
        return x if axis is None else function(x, axis)

    return jax.tree_util.tree_map_with_path(visit, tree)


def _sum_parts(x, axis: int):
    """This device's part of the sum over all devices."""
    return jax.lax.psum_scatter(x, sharding.AXIS, scatter_dimension=axis, tiled=True)


def _gather_parts(x, axis: int):
    return jax.lax.all_gather(x, sharding.AXIS, axis=axis, tiled=True)


def _local_part(x, axis: int):
    size = x.shape[axis] // jax.lax.axis_size(sharding.AXIS)
    start = jax.lax.axis_index(sharding.AXIS) * size
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _global_norm(grads: dict, c: config.Config) -> Float[Array, '']:
    """Norm of the gradient of all parameters, of which some are split over the devices."""
    axes = train_state.update_axes(c, jax.lax.axis_size(sharding.AXIS))
    split, replicated = _partition(grads, axes)
    total = optax.tree.norm(replicated, squared=True)
    if jax.tree.leaves(split):
        total += jax.lax.psum(optax.tree.norm(split, squared=True), sharding.AXIS)
    return jnp.sqrt(total)


def _partition(tree, axes: dict[str, int]) -> tuple:
    """(split parameters, replicated ones): None stands for the other."""
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: train_state.parameter_name(path) in axes, tree
    )
    split = jax.tree.map(lambda is_split, x: x if is_split else None, mask, tree)
    return split, jax.tree.map(lambda is_split, x: None if is_split else x, mask, tree)


def _merge(split, replicated):
    """The inverse of `_partition`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, split, replicated, is_leaf=lambda x: x is None
    )


def _loss(trainable: dict, batch: batches.Batch, c: config.Config, step, platform: str):
    """Weighted mean InfoNCE of the tasks over this device's pairs, with metrics."""
    scale = trainable['scale'] if c.loss.learned else jax.lax.stop_gradient(trainable['scale'])
    vectors = _embed_batch(trainable['encoder'], batch, c, step, platform)  # t b n d

    def task_metrics(i):
        queries, passages = vectors[i, :, 0], vectors[i, :, 1:]
        ids = batch.query_ids[i], batch.passage_ids[i]
        return losses.infonce_by_dim(queries, passages, *ids, scale, c.loss, sharding.AXIS)

    per_task = [task_metrics(i) for i in range(len(vectors))]
    by_dim = jax.tree.map(lambda *x: jnp.stack(x), *per_task)  # t b
    pairs = losses.mean_of_dims(by_dim)
    weights = schedule.task_weights(c.sampler, len(per_task), step, jnp)

    def weigh(loss):  # t b
        means = loss.mean(1)
        return sum(jnp.asarray(w, x.dtype) * x for w, x in zip(weights, means, strict=True))

    total = weigh(pairs.loss)
    metrics = {'loss': total, 'accuracy': pairs.accuracy.mean(), 'margin': pairs.margin.mean()}
    if len(by_dim) > 1:
        metrics |= {f'loss_by_dim/{dim}': weigh(x.loss) for dim, x in by_dim.items()}
    return total, metrics | {'pairs': _in_global_order(pairs, batch)} | _count_tokens(batch.packed)


def _in_global_order(pairs: losses.PairMetrics, batch: batches.Batch) -> losses.PairMetrics:
    """Metrics of all devices [t b], in the order of the batch, as terms of a mean over devices."""
    devices = jax.lax.axis_size(sharding.AXIS)
    tasks, b = batch.pair_indices.shape
    task = jnp.arange(tasks, dtype=jnp.int32)[:, None]

    def scatter(x):
        zeros = jnp.zeros((tasks, b * devices), x.dtype)
        return zeros.at[task, batch.pair_indices].set(x * devices)

    return jax.tree.map(scatter, pairs)


def _count_tokens(packed: ragged.PackedRows) -> dict[str, Float[Array, '']]:
    """Real tokens, and the sum of the squared lengths of texts, as terms of a mean over devices."""
    slots = packing.slots_per_row(packed.segment_ids.shape[1])
    segments = jnp.arange(1, 1 + slots, dtype=jnp.int32)
    equal = packed.segment_ids[:, :, None] == segments[None, None]
    lengths = equal.sum(1).astype(jnp.float32)  # r s
    devices = jax.lax.axis_size(sharding.AXIS)
    return {'tokens': lengths.sum() * devices, 'squares': jnp.square(lengths).sum() * devices}


def _embed_batch(
    params: encoder.Params, batch: batches.Batch, c: config.Config, step, platform: str
) -> Float[Array, 't b n d']:
    """Embeddings of this device's texts, zeros for missing ones.

    With `encoder.chunk`, so many tokens at a time, whose activations are computed again for the
    same gradient (gradient caching, Gao et al. 2021).
    """
    rows, width = batch.packed.tokens.shape
    slots = packing.slots_per_row(width)
    seeds = _dropout_seeds(batch, slots, c, step)
    axes = train_state.split_axes(c, jax.lax.axis_size(sharding.AXIS))
    split = dict.fromkeys(axes, sharding.AXIS)
    size = packing.chunk_rows(c.encoder.chunk, width, rows)

    def encode(chunk):
        packed, seeds = chunk
        return encoder.encode_packed(params, packed, slots, c.encoder, seeds, platform, split)

    vectors = _map_chunks(encode, (batch.packed, seeds), size)  # r s d
    vectors = vectors.reshape(-1, vectors.shape[-1])
    return jnp.pad(vectors, ((0, 1), (0, 0)))[batch.embedding_indices]


def _dropout_seeds(
    batch: batches.Batch, slots: int, c: config.Config, step: Int[Array, '']
) -> UInt32[Array, 'r s'] | None:
    """A seed for each text by step, task, pair and column: by neither devices nor packing."""
    if c.encoder.dropout == c.encoder.attention_dropout == 0:
        return None
    tasks, b, n = batch.embedding_indices.shape
    key = jax.random.fold_in(jax.random.key(c.seed ^ 0x5EED), step)
    task_bits = jax.random.bits(key, (tasks,))[:, None, None]
    number = batch.pair_indices[:, :, None] * n + jnp.arange(n, dtype=jnp.int32)[None, None]
    seeds = layers.fold_seeds(task_bits, number).reshape(-1)
    count = len(batch.packed.tokens) * slots
    by_slot = jnp.zeros(count + 1, jnp.uint32).at[batch.embedding_indices.reshape(-1)].set(seeds)
    return by_slot[:count].reshape(-1, slots)


def _map_chunks(function: abc.Callable, rows, size: int):
    """`function` of `size` rows at a time, computed again for the gradient; of all if they fit."""
    count = len(jax.tree.leaves(rows)[0])
    if size >= count:
        return function(rows)
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, -count % size), (0, 0))), rows)
    chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), padded)
    results = jax.lax.map(jax.checkpoint(function), chunks)
    return results.reshape(-1, *results.shape[2:])[:count]


def max_log_scale(c: config.Loss) -> float:
    """Of a learned temperature, which is kept above .01 (Radford et al. 2021), or its beginning."""
    return -math.log(min(c.temperature, 0.01))
