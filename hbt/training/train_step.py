"""The training step: from a state and a batch to the next state.

Hides how encoder, loss, optimizer and devices fit together. Called by `main`.
"""

import math
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


def make_step(c: config.Config, mesh) -> abc.Callable:
    """`step(state, batch) -> (state, metrics)`, mapped over the mesh; `state` is used up.

    A step whose loss or gradient is not finite changes nothing and is told as `skipped`.
    """
    transform, rate = optimizer.make_optimizer(c.optim, c.steps)

    def step(state: train_state.State, batch: batches.Batch):
        old = train_state.trained(state.params, state.log_scale)
        grads, metrics = gradient(old, batch, c, state.step)
        norm = global_norm(grads, c)
        grads = optimizer.clip_gradients(grads, norm, c.optim)
        with jax.numpy_dtype_promotion('standard'):  # optax raises floats to integer counts
            updates, opt = transform.update(grads, state.opt, old)
        new = optax.apply_updates(old, updates)
        sound = jnp.isfinite(metrics['loss']) & jnp.isfinite(norm)
        new, opt = jax.tree.map(lambda a, b: jnp.where(sound, a, b), (new, opt), (old, state.opt))
        metrics |= {
            'grad_norm': norm,
            'lr': rate(state.step),
            'skipped': jnp.where(sound, 0.0, 1.0),
        }
        metrics['temperature'] = jnp.exp(-state.log_scale)
        return train_state.State(state.step + 1, new['encoder'], new['scale'], opt), metrics

    if c.mapping == 'pmap':
        return sharding.map_over_devices(step, mesh, 'pmap', batches.SHARD_AXES, donate=True)
    specs = train_state.layout(jax.eval_shape(lambda: train_state.random_state(c)), c, mesh)
    results = specs, jax.P()
    return sharding.map_over_devices(
        step, mesh, c.mapping, batches.SHARD_AXES, specs, results, donate=True
    )


def gradient(old: dict, batch: batches.Batch, c: config.Config, step: Int[Array, '']):
    """Gradient of the mean loss over all rows of all devices, and its metrics. Per device.

    Differentiates the local rows' loss by the local copy of the parameters and averages once. The
    gather inside the loss carries gradients back, so that average is the true gradient. That of a
    split parameter comes summed over the devices, and split.
    """
    devices = jax.lax.axis_size(sharding.AXIS)
    table = train_state.splits(c, devices)
    parts, rest = part(old, table)
    own = join(parts, sharding.mark_varying(rest))
    (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(own, batch, c, step)
    parts, rest = part(grads, table)
    rest, metrics = jax.lax.pmean((rest, metrics), sharding.AXIS)
    return join(jax.tree.map(lambda x: x / devices, parts), rest), metrics


def global_norm(grads: dict, c: config.Config) -> Float[Array, '']:
    """Norm of the gradient of all parameters, the parts of the other devices included."""
    parts, rest = part(grads, train_state.splits(c, jax.lax.axis_size(sharding.AXIS)))
    total = optax.tree.norm(rest, squared=True)
    if jax.tree.leaves(parts):
        total += jax.lax.psum(optax.tree.norm(parts, squared=True), sharding.AXIS)
    return jnp.sqrt(total)


def part(tree, table: dict) -> tuple:
    """(what is split, what is not): None stands for the other."""

    def choose(wanted):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x if (train_state.name_of(path) in table) == wanted else None, tree
        )

    return choose(True), choose(False)


def join(parts, rest):
    """The tree that `part` took apart."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, parts, rest, is_leaf=lambda x: x is None
    )


def loss(old: dict, batch: batches.Batch, c: config.Config, step: Int[Array, '']):
    """Weighted mean InfoNCE of the tasks over this device's rows, with metrics."""
    scale = scale_of(old['scale'], c.loss)
    vectors = embed(old['encoder'], batch, c, step)  # t b n e
    seen = [
        losses.infonce(
            vectors[task, :, 0],
            vectors[task, :, 1:],
            batch.query_ids[task],
            batch.passage_ids[task],
            scale,
            c.loss,
            sharding.AXIS,
        )
        for task in range(len(vectors))
    ]
    rows = jax.tree.map(lambda *x: jnp.stack(x), *seen)  # t b
    weights = schedule.task_weights(c.sampler, len(seen), step, jnp)
    total = sum(
        jnp.asarray(weight, x.dtype) * x
        for weight, x in zip(weights, rows.loss.mean(1), strict=True)
    )
    metrics = {'loss': total, 'accuracy': rows.accuracy.mean(), 'margin': rows.margin.mean()}
    return total, metrics | {'rows': in_plan(rows, batch)} | sizes(batch.packed)


def in_plan(rows: losses.Rows, batch: batches.Batch) -> losses.Rows:
    """What is known of each row of all devices [t b], in the order of the plan.

    As parts of a mean over the devices, which is taken of the gradient, too: no further gather.
    """
    devices = jax.lax.axis_size(sharding.AXIS)
    tasks, b = batch.pair_indices.shape
    task = jnp.arange(tasks, dtype=jnp.int32)[:, None]

    def one(x):
        return (
            jnp.zeros((tasks, b * devices), x.dtype).at[task, batch.pair_indices].set(x * devices)
        )

    return jax.tree.map(one, rows)


def sizes(packed: ragged.PackedRows) -> dict[str, Float[Array, '']]:
    """Real tokens of all devices, and the sum of the squared lengths of their texts; as parts of
    a mean over the devices."""
    number = jnp.arange(1, 1 + packing.slots_per_row(packed.segment_ids.shape[1]), dtype=jnp.int32)
    lengths = (
        (packed.segment_ids[:, :, None] == number[None, None]).sum(1).astype(jnp.float32)
    )  # r s
    devices = jax.lax.axis_size(sharding.AXIS)
    return {'tokens': lengths.sum() * devices, 'squares': jnp.square(lengths).sum() * devices}


def embed(
    params: encoder.Params, batch: batches.Batch, c: config.Config, step: Int[Array, '']
) -> Float[Array, 't b n e']:
    """Embeddings of this device's texts, zeros for those that are not there.

    With `encoder.chunk`, so many tokens at a time: their activations are computed again for the
    gradient, which equals that of all at once (gradient caching, Gao et al. 2021).
    """
    width = batch.packed.tokens.shape[1]
    slots = packing.slots_per_row(width)
    seeds = dropout_seeds(batch, slots, c, step)
    split = dict.fromkeys(train_state.splits(c, jax.lax.axis_size(sharding.AXIS)), sharding.AXIS)
    size = packing.chunk_rows(c.encoder.chunk, width, len(batch.packed.tokens))

    def encode(part):
        rows, seeds = part
        return encoder.encode_packed(params, rows, slots, c.encoder, seeds, split)

    vectors = in_chunks(encode, (batch.packed, seeds), size)  # r s e
    vectors = vectors.reshape(-1, vectors.shape[-1])
    return jnp.pad(vectors, ((0, 1), (0, 0)))[batch.embedding_indices]


def dropout_seeds(
    batch: batches.Batch, slots: int, c: config.Config, step: Int[Array, '']
) -> UInt32[Array, 'r s'] | None:
    """Seeds of the texts of this device, each from the step, its task, its row and its place there.

    So that dropout depends neither on the devices nor on the packing.
    """
    if c.encoder.dropout == c.encoder.attention_dropout == 0:
        return None
    tasks, b, n = batch.embedding_indices.shape
    key = jax.random.fold_in(jax.random.key(c.seed ^ 0x5EED), step)
    task = jax.random.bits(key, (tasks,))[:, None, None]
    number = batch.pair_indices[:, :, None] * n + jnp.arange(n, dtype=jnp.int32)[None, None]
    seeds = layers.fold_seeds(task, number).reshape(-1)
    count = len(batch.packed.tokens) * slots
    of_slot = jnp.zeros(count + 1, jnp.uint32).at[batch.embedding_indices.reshape(-1)].set(seeds)
    return of_slot[:count].reshape(-1, slots)


def in_chunks(function: abc.Callable, rows, size: int):
    """`function` of so many rows at a time, computed again for the gradient; of all if it can."""
    count = len(jax.tree.leaves(rows)[0])
    if size >= count:
        return function(rows)
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, -count % size), (0, 0))), rows)
    parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), padded)
    found = jax.lax.map(jax.checkpoint(function), parts)
    return found.reshape(-1, *found.shape[2:])[:count]


def scale_of(log_scale: Float[Array, ''], c: config.Loss) -> Float[Array, '']:
    """The scale in use. A learned temperature is kept above .01 (Radford et al. 2021)."""
    if not c.learned:
        return jax.lax.stop_gradient(log_scale)
    return jnp.minimum(log_scale, -math.log(min(c.temperature, 0.01)))
