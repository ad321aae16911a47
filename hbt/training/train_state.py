"""The training step: from a state and a batch to the next state.

Hides how encoder, loss, optimizer and devices fit together. Called by `main`.
"""

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
    """All that a run remembers: the data need nothing, a batch is a function of the step."""

    step: Int[Array, '']
    params: encoder.Params
    log_scale: Float[Array, '']  # of the cosines: minus the logarithm of the temperature
    opt: typing.Any


def init_state(c: config.Config, mesh) -> State:
    """The state before the first step: pretrained weights, or random ones."""
    places = jax.tree.map(lambda x: x.sharding, state_shapes(c, mesh))
    if not c.encoder.init:
        return jax.jit(lambda: random_state(c), out_shardings=places)()
    params = model_dir.load_params(model_dir.fetch_model(c.encoder.init), c.encoder)
    params = jax.tree.map(
        lambda x, place: jax.make_array_from_callback(x.shape, place, x.__getitem__),
        params,
        places.params,
    )
    return jax.jit(lambda params: state_of(params, c), out_shardings=places)(params)


def state_shapes(c: config.Config, mesh) -> State:
    """Shape, type and place of every array of a state."""
    made = jax.eval_shape(lambda: random_state(c))

    def place(x, spec):
        sharding_ = jax.sharding.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_)

    return jax.tree.map(place, made, layout(made, c, mesh))


def random_state(c: config.Config) -> State:
    return state_of(encoder.init_params(c.encoder, jax.random.key(c.seed)), c)


def state_of(params: encoder.Params, c: config.Config) -> State:
    transform, _ = optimizer.make_optimizer(c.optim, c.steps)
    log_scale = jnp.float32(-math.log(c.loss.temperature))
    opt = transform.init(trained(params, log_scale))
    return State(jnp.zeros((), jnp.int32), params, log_scale, opt)


def trained(params: encoder.Params, log_scale) -> dict:
    """What the optimizer moves. A scale does not decay; one that is fixed has no gradient."""
    return {'encoder': params, 'scale': log_scale}


def splits(c: config.Config, devices: int) -> dict[str, int]:
    """Path -> axis of the parameters that are split over the devices."""
    return encoder.split_axes(c.encoder, devices) if c.shard_params else {}


def layout(tree, c: config.Config, mesh):
    """For parameters, gradients or a state: the spec of every array, known by the parameter's name.

    The moments of a parameter are split as it is.
    """
    table = splits(c, mesh.size)

    def spec(path, _):
        axis = table.get(name_of(path))
        return jax.P() if axis is None else sharding.sharded(mesh, axis).spec

    return jax.tree_util.tree_map_with_path(spec, tree)


def name_of(path) -> str:
    """The parameter that a place in a state belongs to, such as layers/query/kernel."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return '/'.join(keys).removeprefix('encoder/')
