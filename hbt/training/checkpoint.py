"""Checkpoints: `ckpt/` holds the newest states, `best/` the parameters of the best step.

Each has a checksum of every array. A damaged one goes to `damaged/`; the one before it is restored.
"""

import json
import pathlib
import typing
import zlib

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from hbt.utils import distributed, log

VERSION = 2  # of the names in a state and of what is saved with it
KEEP = 2  # newest states


class Damaged(Exception):
    """A checkpoint is not what was saved."""


class Checkpoints:
    """The checkpoints of one training run."""

    def __init__(self, workdir: pathlib.Path):
        """Sets aside, and names, checkpoints that cannot even be opened."""
        for folder in (workdir / 'ckpt', workdir / 'best'):
            for step in sorted(int(x.name) for x in folder.glob('*') if x.name.isdigit()):
                try:
                    _read_metadata(folder / str(step))
                except Damaged as error:
                    _set_aside(folder, step, error)
        self.newest = _open_folder(workdir / 'ckpt', KEEP)
        self.best = _open_folder(workdir / 'best', 1)
        self.writing = None

    def restore(self, shapes, before: int | None = None) -> tuple[typing.Any, dict] | None:
        """The newest sound state below step `before`, laid out as `shapes`, and the notes with it.

        None if none was ever saved. Damaged ones are named and set aside. Raises ValueError if no
        sound one is left, or it is of another version.
        """
        steps = [x.step for x in self.newest.checkpoints if before is None or x.step < before]
        folder = pathlib.Path(self.newest.directory)
        for step in reversed(steps):
            try:
                return _load(self.newest, step, shapes)
            except Damaged as error:
                _set_aside(folder, step, error)
                self.newest.reload()
        if steps:
            raise ValueError(
                f'{folder}: expected a sound checkpoint, got damaged ones of steps {steps}; they '
                'are in damaged/. Delete the workdir to start again'
            )
        return None

    def save(self, step: int, state, notes: dict) -> None:
        """Writes a state in the background, with notes for `restore`, which JSON can hold."""
        self.wait()
        metadata = _make_metadata(state, notes)
        self.writing = self.newest.save_async(step, state, custom_metadata=metadata)

    def wait(self) -> None:
        """Waits until `save` is done; orbax keeps a thread for what is not waited for."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def save_best(self, step: int, params, score: float) -> None:
        """Saves the parameters if no earlier step scored as high."""
        latest = self.best.latest
        if latest is None or score > latest.metrics['score']:
            metadata = _make_metadata(params, {})
            self.best.save(step, params, metrics={'score': score}, custom_metadata=metadata)

    def close(self) -> None:
        self.newest.close()
        self.best.close()
        self.wait()


def load_params(
    workdir: pathlib.Path, which: str, sharding: jax.sharding.Sharding
) -> tuple[int, dict]:
    """Step and parameters of a training run; `which`: latest, best, or the number of a kept step.

    Raises ValueError for a step that is not there, with those that are, or a damaged checkpoint.
    """
    is_best = which == 'best'
    folder = workdir / ('best' if is_best else 'ckpt')
    if not folder.is_dir():
        raise ValueError(f'{workdir}: expected a run with a folder {folder.name}/, got none')
    with _open_folder(folder, KEEP) as checkpoints:
        steps = [x.step for x in checkpoints.checkpoints]
        if is_best and not steps:
            raise ValueError(
                f'{folder}: expected the best step of the evaluations, but there was none; '
                f'--step=latest takes the newest'
            )
        step = str(steps[-1]) if which in ('latest', 'best') and steps else which
        if step not in map(str, steps):
            raise ValueError(f'{folder}: expected one of the steps {steps}, got {which!r}')
        tree = checkpoints.metadata(int(step)).metadata
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree if is_best else tree['params'],
        )
        if not is_best:
            shapes = jax.tree.map(lambda _: ocp.PLACEHOLDER, tree) | {'params': shapes}
        try:
            loaded, _ = _load(checkpoints, int(step), shapes)
        except Damaged as error:
            raise ValueError(f'{error}; others are {steps}') from error
    return int(step), loaded if is_best else loaded['params']


def _open_folder(folder: pathlib.Path, keep: int) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        folder.absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=ocp.training.preservation_policies.LatestN(keep),
    )


def _load(checkpoints: ocp.training.Checkpointer, step: int, shapes) -> tuple[typing.Any, dict]:
    """A checkpoint in the layout of `shapes`, and its notes; Damaged if it is not sound."""
    path = pathlib.Path(checkpoints.directory) / str(step)
    metadata = _read_metadata(path)
    expected = metadata['sums']
    try:
        tree = checkpoints.load(step, shapes)
    except Exception as error:  # of orbax and tensorstore
        raise _damaged(path, error) from error
    for name, checksum in checksums(tree).items():
        if checksum != expected.get(name):
            raise Damaged(
                f'{path}: damaged: {name}: expected checksum {expected.get(name)}, got {checksum}'
            )
    return tree, metadata['notes']


def _make_metadata(tree, notes: dict) -> dict:
    """What is saved beside the arrays."""
    metadata = {'version': VERSION, 'sums': checksums(tree), 'notes': notes}
    return metadata | {'crc': _metadata_crc(metadata)}


def _read_metadata(path: pathlib.Path) -> dict:
    """What `_make_metadata` gave; Damaged if it cannot be read, ValueError for another version."""
    try:
        metadata = ocp.metadata(path).custom_metadata
        # Version 1 had no version, and another checksum.
        version = 1 if {*metadata} == {'sums', 'notes', 'crc'} else metadata['version']
        crc = _metadata_crc(metadata)
        if version != 1 and metadata['crc'] != crc:
            raise ValueError(f'expected metadata of CRC {crc}, got {metadata["crc"]}')
    except Exception as error:  # whatever orbax and JSON make of damaged files
        raise _damaged(path, error) from error
    if version != VERSION:
        raise ValueError(
            f'{path}: expected a checkpoint of version {VERSION}, got {version}; use the version '
            'of hbt that wrote it, or train again in another --workdir'
        )
    return metadata


def _metadata_crc(metadata: dict) -> int:
    covered = {name: value for name, value in metadata.items() if name != 'crc'}
    return zlib.crc32(json.dumps(covered, sort_keys=True).encode())


def _damaged(path: pathlib.Path, error: BaseException) -> Damaged:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    reason = ' '.join(str(error).split())[:200]
    return Damaged(f'{path}: damaged: {type(error).__name__}: {reason}')


def _set_aside(folder: pathlib.Path, step: int, error: Damaged) -> None:
    """Moves a checkpoint to where it is neither read nor overwritten, and says so."""
    path = folder.with_name('damaged') / f'{folder.name}-{step}'
    if distributed.is_main_process():
        path.parent.mkdir(exist_ok=True)
        while path.exists():
            path = path.with_name(path.name + '+')
        (folder / str(step)).rename(path)
    log.info(f'{error}; set aside as {path}')
    distributed.barrier(f'{folder.name}-{step} set aside')


def checksums(tree) -> dict[str, int]:
    """Path -> checksum of the bits of each array, weighted by index: a changed bit changes it."""
    arrays = {
        '/'.join(str(getattr(k, 'key', getattr(k, 'name', k))) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if isinstance(leaf, jax.Array)
    }
    return {name: int(x) for name, x in jax.device_get(_checksums_on_device(arrays)).items()}


@jax.jit
def _checksums_on_device(arrays):
    def checksum(x):
        width = min(x.dtype.itemsize, 4)
        bits = jax.lax.bitcast_convert_type(x, f'uint{8 * width}').astype(jnp.uint32)
        index, stride = jnp.zeros(bits.shape, jnp.uint32), 1
        for axis in reversed(range(bits.ndim)):
            index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
            stride = stride * bits.shape[axis] % 2**32
        return (bits * (2 * index + 1)).sum(dtype=jnp.uint32)

    return jax.tree.map(checksum, arrays)
