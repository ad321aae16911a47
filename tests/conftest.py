"""Settings of every test: 8 CPU devices, strict types and ranks, checked shapes, no network."""

import os
import pathlib
import shutil
import tempfile

import pytest

os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['JAX_PLATFORMS'] = 'cpu'
# All but the first make the compiler fast; models of this size run no slower for it.
os.environ['XLA_FLAGS'] = ' '.join(
    [
        '--xla_force_host_platform_device_count=8',
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        '--xla_cpu_use_fusion_emitters=false',
        '--xla_cpu_parallel_codegen_split_count=1',
    ]
)
# What one test, process or worker has compiled, the others need not.
if 'PYTEST_XDIST_WORKER' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='hbt-compiled-')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

import hypothesis  # noqa: E402  (after the environment)
import jax  # noqa: E402  (as above)
import jaxtyping  # noqa: E402  (as above)

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jaxtyping.install_import_hook('hbt', 'beartype.beartype')
# The same examples in every run; `--hypothesis-profile=random` draws others, and more.
hypothesis.settings.register_profile('fixed', derandomize=True, deadline=None, max_examples=30)
hypothesis.settings.register_profile('random', deadline=None, max_examples=200)
hypothesis.settings.load_profile('fixed')


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout, or $HBT_DATA."""
    beside = pathlib.Path(__file__).parents[2] / 'shared' / 'data'
    folder = pathlib.Path(os.environ.get('HBT_DATA', beside))
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder}; set HBT_DATA to a folder with xquad-r/ and others')
    return folder


@pytest.fixture(scope='session')
def tiny_store(tmp_path_factory):
    """The store of `tests/tiny.py`, which no test changes."""
    from hbt.data import build  # after the import hook
    from tests import tiny

    data = tiny.get_config().data
    return build.build_store(data, tmp_path_factory.mktemp('data') / 'store', data.sources)


def pytest_unconfigure(config):
    if not hasattr(config, 'workerinput'):
        shutil.rmtree(os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
