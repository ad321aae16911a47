"""The state of a training run, and where its arrays lie. Data have none: a step gives its batch."""

import math
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hbt import config
from hbt.models import encoder, model_dir
from hbt.training import optimizer
from hbt.utils import sharding


class State(typing.NamedTuple):
    """What a checkpoint holds. A change of fields needs a new `checkpoint.VERSION`."""

    step: Int[Array, '']
    params: encoder.Params
    log_scale: Float[Array, '']  # of the cosines: minus the logarithm of the temperature
    opt: typing.Any


def init_name(c: config.Config) -> str:
    """Directory or hub name of the pretrained weights of this seed; empty: random weights."""
    return c.encoder.init.replace('{seed}', str(c.seed))


def init_state(c: config.Config, mesh: jax.sharding.Mesh) -> State:
    """The state before the first step: pretrained weights, or random ones."""
    shardings = jax.tree.map(lambda x: x.sharding, state_shapes(c, mesh))
    if not c.encoder.init:
        return jax.jit(lambda: random_state(c), out_shardings=shardings)()
    params = model_dir.load_params(model_dir.fetch_model(init_name(c)), c.encoder)
    params = jax.tree.map(
        lambda x, where: jax.make_array_from_callback(x.shape, where, x.__getitem__),
        params,
        shardings.params,
    )
    return jax.jit(lambda params: _initial_state(params, c), out_shardings=shardings)(params)


def state_shapes(c: config.Config, mesh: jax.sharding.Mesh) -> State:
    """Shape, type and sharding of every array of a state."""
    shapes = jax.eval_shape(lambda: random_state(c))
    specs = partition_specs(shapes, c, mesh)
    return jax.tree.map(lambda x, y: x.update(sharding=jax.NamedSharding(mesh, y)), shapes, specs)


def random_state(c: config.Config) -> State:
    """The state before the first step, with random weights."""
    return _initial_state(encoder.init_params(c.encoder, jax.random.key(c.seed)), c)


def _initial_state(params: encoder.Params, c: config.Config) -> State:
    transform, _ = optimizer.make_optimizer(c.optim, c.steps)
    log_scale = jnp.float32(-math.log(c.loss.temperature))
    opt = transform.init(trainable(params, log_scale))
    return State(jnp.zeros((), jnp.int32), params, log_scale, opt)


def trainable(params: encoder.Params, log_scale: Float[Array, '']) -> dict:
    """What the optimizer moves. A scale does not decay; one that is fixed has no gradient."""
    return {'encoder': params, 'scale': log_scale}


def split_axes(c: config.Config, devices: int) -> dict[str, int]:
    """Name -> axis of the parameters that are split over the devices."""
    return encoder.split_axes(c.encoder, devices) if c.shard_params else {}


def update_axes(c: config.Config, devices: int) -> dict[str, int]:
    """Name -> axis of the parameters of which a device updates a part.

    Their gradients, and but under pmap their moments, are split too (Rajbhandari et al. 2020, stage
    1). Not the token table: a TPU has no reduce-scatter of its columns, so more would be moved.
    """
    axes = encoder.split_axes(c.encoder, devices) if devices > 1 else {}
    kernels = {name: axis for name, axis in axes.items() if name.startswith('layers/')}
    return kernels | split_axes(c, devices)


def partition_specs(tree, c: config.Config, mesh: jax.sharding.Mesh):
    """The spec of every array of parameters or of a state."""
    axes = split_axes(c, mesh.size)
    if not isinstance(tree, State):
        return _specs(tree, axes, mesh)
    moment_axes = axes if c.mapping == 'pmap' else update_axes(c, mesh.size)
    return _specs(tree, axes, mesh)._replace(opt=_specs(tree.opt, moment_axes, mesh))


def updated_specs(state: State, c: config.Config, mesh: jax.sharding.Mesh) -> State:
    """The specs of a state after an update, before updated parameters are gathered."""
    return _specs(state, update_axes(c, mesh.size), mesh)


def _specs(tree, axes: dict[str, int], mesh: jax.sharding.Mesh):
    def spec(path, _):
        axis = axes.get(parameter_name(path))
        return jax.P() if axis is None else sharding.sharded(mesh, axis).spec

    return jax.tree_util.tree_map_with_path(spec, tree)


def parameter_name(path) -> str:
    """The parameter that a path in a state belongs to, such as layers/query/kernel."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return '/'.join(keys).removeprefix('encoder/')
