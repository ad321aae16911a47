"""Checkpoints: `ckpt/` holds the newest states, `best/` the parameters of the best step.

Each has a checksum of every array. A damaged one goes to `damaged/`; the one before it is restored.
"""

import json
import math
import pathlib
import shutil
import typing
import zlib

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from hbt import config
from hbt.utils import distributed, log

VERSION = 2  # of the names in a state and of what is saved with it
KEEP = 2  # newest states
VALIDATION_LOSS = 'validation/loss'  # the score of which less is better
NEW = 'new'  # in best/: parameters that are saved, but not yet in the place of those before


def best_metric(c: config.Eval) -> str:
    """The score of an evaluation that chooses the best one; '' if nothing is measured."""
    if c.best == 'loss':
        return VALIDATION_LOSS
    return f'{c.benchmarks[0]}/{c.best}' if c.benchmarks else ''


def is_better(score: float, best: float | None, metric: str) -> bool:
    """Whether a score of a metric is above the best so far, if there is one; of a loss, below."""
    sign = -1 if metric == VALIDATION_LOSS else 1
    return sign * score > (-math.inf if best is None else sign * best)


class Damaged(Exception):
    """A checkpoint is not what was saved."""


class Checkpoints:
    """The checkpoints of one training run."""

    def __init__(self, workdir: pathlib.Path):
        """Sets aside, and names, checkpoints that cannot even be opened."""
        folder = workdir.absolute() / 'ckpt'
        _set_damaged_aside(folder)
        self.newest = ocp.training.Checkpointer(
            folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
        )
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
                return _load(folder / str(step), shapes)
            except Damaged as error:
                _set_aside(folder / str(step), error)
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
            with log.activity(f'{self.newest.directory}: writing the checkpoint'):
                writing.result()

    def close(self) -> None:
        self.newest.close()
        self.wait()


class Best:
    """The best parameters of one training run, by the metric that each call names.

    Not an orbax `Checkpointer`, whose steps can only rise: a run that resumes repeats evaluations.
    """

    def __init__(self, workdir: pathlib.Path):
        """Sets aside, and names, what cannot be opened."""
        self.folder = workdir.absolute() / 'best'
        _set_damaged_aside(self.folder)
        _put_in_place(self.folder)
        self.scores = _kept_scores(workdir, self.folder)

    def save(self, step: int, params, scores: dict[str, float], metric: str) -> None:
        """Saves the parameters if those that are kept have no score as good in the metric.

        All scores of the evaluation are saved too: a later call may name another metric.
        """
        if is_better(scores[metric], self.scores.get(metric), metric):
            metadata = _make_metadata(params, {'step': step, 'scores': scores})
            ocp.save(self.folder / NEW, params, custom_metadata=metadata)
            _put_in_place(self.folder)
            self.scores = scores


def _put_in_place(folder: pathlib.Path) -> None:
    """Replaces the best parameters by those that were saved last; finishes what a kill stopped."""
    if distributed.is_main_process():
        folder.mkdir(exist_ok=True)
        for path in (*folder.glob('*.old'), *folder.glob(f'{NEW}.*')):
            shutil.rmtree(path)  # of a call that was killed
        if (folder / NEW).exists():
            step = _read_metadata(folder / NEW)['notes']['step']
            before = [folder / str(x) for x in _list_steps(folder)]
            before = [path.rename(path.with_suffix('.old')) for path in before]
            (folder / NEW).rename(folder / str(step))
            for path in before:
                shutil.rmtree(path)
    distributed.barrier('best')


def _kept_scores(workdir: pathlib.Path, folder: pathlib.Path) -> dict:
    """Every score of the evaluation whose parameters are kept; none without any."""
    step = max(_list_steps(folder), default=None)
    if step is None:
        return {}
    notes = _read_metadata(folder / str(step))['notes']
    if 'scores' not in notes:  # of a run of before: they are in its log alone
        lines = log.read_metrics(workdir / 'metrics.jsonl')
        return {name: x for line in lines if line['step'] == step for name, x in line.items()}
    return notes['scores']


def read_best(workdir: pathlib.Path) -> tuple[int, dict] | None:
    """The best step of a run, with every score of its evaluation; None without evaluations."""
    folder = workdir.absolute() / 'best'
    steps = _list_steps(folder)
    return (steps[-1], _kept_scores(workdir, folder)) if steps else None


def load_params(
    workdir: pathlib.Path, which: str, sharding: jax.sharding.Sharding
) -> tuple[int, dict]:
    """Step and parameters of a training run; `which`: latest, best, or the number of a kept step.

    Raises ValueError for a step that is not there, with those that are, or a damaged checkpoint.
    """
    is_best = which == 'best'
    folder = workdir.absolute() / ('best' if is_best else 'ckpt')
    if not folder.is_dir():
        raise ValueError(f'{workdir}: expected a run with a folder {folder.name}/, got none')
    steps = _list_steps(folder)
    if is_best and not steps:
        raise ValueError(
            f'{folder}: expected the best step of the evaluations, but there was none; '
            f'--step=latest takes the newest'
        )
    step = str(steps[-1]) if which in ('latest', 'best') and steps else which
    if step not in map(str, steps):
        raise ValueError(f'{folder}: expected one of the steps {steps}, got {which!r}')
    try:
        return int(step), _load_params(folder / step, is_best, sharding)
    except Damaged as error:
        raise ValueError(f'{error}; others are {steps}') from error


def _load_params(path: pathlib.Path, is_best: bool, sharding: jax.sharding.Sharding) -> dict:
    """The parameters of a checkpoint, which holds nothing else, or a state."""
    _read_metadata(path)  # Damaged, before orbax fails in its own words
    tree = ocp.metadata(path).metadata
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree if is_best else tree['params'],
    )
    if is_best:
        return _load(path, shapes)[0]
    others = jax.tree.map(lambda _: ocp.PLACEHOLDER, tree)
    return _load(path, others | {'params': shapes})[0]['params']


def _list_steps(folder: pathlib.Path) -> list[int]:
    """The steps whose checkpoints are in a folder, ascending."""
    return sorted(int(x.name) for x in folder.glob('*') if x.name.isdigit())


def _load(path: pathlib.Path, shapes) -> tuple[typing.Any, dict]:
    """A checkpoint in the layout of `shapes`, and its notes; Damaged if it is not sound."""
    metadata = _read_metadata(path)
    expected = metadata['sums']
    try:
        tree = ocp.load(path, shapes)
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


def _set_damaged_aside(folder: pathlib.Path) -> None:
    """Sets aside, and names, the checkpoints in a folder that cannot even be opened."""
    names = [*map(str, _list_steps(folder)), *(x.name for x in folder.glob(NEW))]
    distributed.barrier(f'{folder.name} listed')  # before any process moves one
    for name in names:
        try:
            _read_metadata(folder / name)
        except Damaged as error:
            _set_aside(folder / name, error)


def _set_aside(checkpoint: pathlib.Path, error: Damaged) -> None:
    """Moves a checkpoint to where it is neither read nor overwritten, and says so."""
    folder, name = checkpoint.parent, f'{checkpoint.parent.name}-{checkpoint.name}'
    path = folder.with_name('damaged') / name
    if distributed.is_main_process():
        path.parent.mkdir(exist_ok=True)
        while path.exists():
            path = path.with_name(path.name + '+')
        checkpoint.rename(path)
    log.info(f'{error}; set aside as {path}')
    distributed.barrier(f'{name} set aside')


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
