"""Settings of every test: 8 CPU devices, strict types and ranks, checked shapes, no network."""

import os

os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import jax  # noqa: E402  (after the environment)
import jaxtyping  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jaxtyping.install_import_hook('hbt', 'beartype.beartype')
