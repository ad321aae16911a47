"""Checkpoints: `ckpt/` holds the newest whole states, `best/` the parameters of the best step.

Hides orbax. With every checkpoint goes a sum of each array, by which damaged bytes are found: what
is restored is what was saved, or the checkpoint is named, set aside in `damaged/`, and the one
before it taken. Called by `main` and by the programs that read a run.
"""

import json
import pathlib
import typing
import zlib

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from hbt.utils import distributed, log

KEEP = 2  # newest states kept


class Damaged(Exception):
    """A checkpoint that is not what was saved."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: pathlib.Path):
        """Sets aside, and names, checkpoints that cannot even be opened."""
        for folder in (workdir / 'ckpt', workdir / 'best'):
            for step in sorted(int(x.name) for x in folder.glob('*') if x.name.isdigit()):
                try:
                    told(folder / str(step))
                except Damaged as error:
                    set_aside(folder, step, error)
        self.newest = open_folder(workdir / 'ckpt', KEEP)
        self.best = open_folder(workdir / 'best', 1)
        self.writing = None

    def restore(self, shapes, before: int | None = None) -> tuple[typing.Any, dict] | None:
        """(state, notes) of the newest sound checkpoint; None if none was ever saved.

        The state is in the layout of `shapes`, the notes are what was saved with it.

        With `before`, the newest of a step below it. Damaged ones are named and set aside.
        ValueError if no sound one is left.
        """
        found = [x.step for x in self.newest.checkpoints if before is None or x.step < before]
        for step in reversed(found):
            try:
                place = pathlib.Path(self.newest.directory) / str(step)
                return load(self.newest, step, shapes), told(place)['notes']
            except Damaged as error:
                set_aside(pathlib.Path(self.newest.directory), step, error)
                self.newest.reload()
        if found:
            raise ValueError(
                f'{self.newest.directory}: expected a sound checkpoint, got damaged ones of steps '
                f'{found}; they are in damaged/. Delete the workdir to begin again'
            )
        return None

    def save(self, step: int, state, notes: dict) -> None:
        """Writes a state in the background, and with it notes, which JSON can hold."""
        self.wait()
        self.writing = self.newest.save_async(step, state, custom_metadata=beside(state, notes))

    def wait(self) -> None:
        """For what is still being written; orbax keeps a thread for what is not waited for."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def save_best(self, step: int, params, score: float) -> None:
        """Keeps the parameters if no earlier step scored higher."""
        latest = self.best.latest
        if latest is None or score > latest.metrics['score']:
            told = beside(params, {})
            self.best.save(step, params, metrics={'score': score}, custom_metadata=told)

    def close(self) -> None:
        self.newest.close()
        self.best.close()
        self.wait()


def open_folder(folder: pathlib.Path, keep: int) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        folder.absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=ocp.training.preservation_policies.LatestN(keep),
    )


def beside(tree, notes: dict) -> dict:
    """What is saved beside the arrays: their sums, notes, and a sum of these."""
    found = {'sums': sums(tree), 'notes': notes}
    return found | {'crc': crc(found)}


def crc(found: dict) -> int:
    return zlib.crc32(json.dumps([found['sums'], found['notes']], sort_keys=True).encode())


def told(place: pathlib.Path) -> dict:
    """What `beside` gave when it was saved; Damaged if it cannot be had."""
    try:
        found = ocp.metadata(place).custom_metadata
        if found['crc'] == crc(found):
            return found
    except Exception as error:  # whatever orbax and JSON make of damaged files
        raise damaged(place, error) from error
    raise Damaged(f'{place}: damaged: expected a sum {crc(found)} of its notes, got {found["crc"]}')


def load(checkpoints: ocp.training.Checkpointer, step: int, shapes):
    """A checkpoint in the layout of `shapes`, placeholders left out; Damaged if it is not sound."""
    place = pathlib.Path(checkpoints.directory) / str(step)
    wanted = told(place)['sums']
    try:
        tree = checkpoints.load(step, shapes)
    except Exception as error:  # and tensorstore
        raise damaged(place, error) from error
    for name, got in sums(tree).items():
        if got != wanted.get(name):
            raise Damaged(f'{place}: damaged: {name}: expected sum {wanted.get(name)}, got {got}')
    return tree


def damaged(place: pathlib.Path, error: BaseException) -> Damaged:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    reason = ' '.join(str(error).split())[:200]
    return Damaged(f'{place}: damaged: {type(error).__name__}: {reason}')


def set_aside(folder: pathlib.Path, step: int, error: Damaged) -> None:
    """Moves a checkpoint to where it is neither read nor overwritten, and says so."""
    place = folder.with_name('damaged') / f'{folder.name}-{step}'
    if distributed.is_main_process():
        place.parent.mkdir(exist_ok=True)
        while place.exists():
            place = place.with_name(place.name + '+')
        (folder / str(step)).rename(place)
    log.info(f'{error}; set aside as {place}')
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(str(place))


def sums(tree) -> dict[str, int]:
    """Path -> a sum of the bits of each array, weighted by place: one changed bit changes it."""
    arrays = {
        '/'.join(str(getattr(k, 'key', getattr(k, 'name', k))) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if isinstance(leaf, jax.Array)
    }
    return {name: int(x) for name, x in jax.device_get(sums_of(arrays)).items()}


@jax.jit
def sums_of(arrays):
    def total(x):
        width = min(x.dtype.itemsize, 4)
        bits = jax.lax.bitcast_convert_type(x, f'uint{8 * width}').astype(jnp.uint32)
        place, stride = jnp.zeros(bits.shape, jnp.uint32), 1
        for axis in reversed(range(bits.ndim)):
            place += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
            stride = stride * bits.shape[axis] % 2**32
        return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)

    return jax.tree.map(total, arrays)


def load_params(
    workdir: pathlib.Path, which: str, place: jax.sharding.Sharding
) -> tuple[int, dict]:
    """(step, parameters laid out by `place`) of a run: `latest`, `best`, or a kept step's number.

    Raises ValueError listing the steps that there are, and for a damaged checkpoint.
    """
    folder = workdir / ('best' if which == 'best' else 'ckpt')
    if not folder.is_dir():
        raise ValueError(f'{workdir}: expected a run with a folder {folder.name}/, found none')
    with open_folder(folder, KEEP) as checkpoints:
        steps = [x.step for x in checkpoints.checkpoints]
        if which == 'best' and not steps:
            raise ValueError(
                f'{folder}: expected the best step of the evaluations, but there was none; '
                f'--step=latest takes the newest'
            )
        step = str(steps[-1]) if which in ('latest', 'best') and steps else which
        if step not in map(str, steps):
            raise ValueError(f'{folder}: expected one of the steps {steps}, got {which!r}')
        try:
            tree = checkpoints.metadata(int(step)).metadata
            wanted = tree if which == 'best' else tree['params']
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), wanted
            )
            if which == 'best':
                return int(step), load(checkpoints, int(step), shapes)
            rest = jax.tree.map(lambda _: ocp.PLACEHOLDER, tree)
            return int(step), load(checkpoints, int(step), rest | {'params': shapes})['params']
        except Damaged as error:
            raise ValueError(f'{error}; others are {steps}') from error
