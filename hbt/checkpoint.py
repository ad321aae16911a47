"""Checkpoints: `ckpt/` holds the newest whole states, `best/` the parameters of the best step.

Hides orbax. What is in a workdir is either a whole checkpoint or ignored. Called by `main` and by
the programs that read a run.
"""

import pathlib
import typing

import jax
from orbax.checkpoint import v1 as ocp

KEEP = 2  # newest states kept


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: pathlib.Path):
        self.newest = open_folder(workdir / 'ckpt', KEEP)
        self.best = open_folder(workdir / 'best', 1)

    def restore(self, like) -> typing.Any | None:
        """The newest state, laid out as the arrays of `like`; None if there is none."""
        if self.newest.latest is None:
            return None
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        return self.newest.load(None, shapes)

    def save(self, step: int, state) -> None:
        """Writes a state in the background."""
        self.newest.save_async(step, state)

    def save_best(self, step: int, params, score: float) -> None:
        """Keeps the parameters if no earlier step scored higher."""
        latest = self.best.latest
        if latest is None or score > latest.metrics['score']:
            self.best.save(step, params, metrics={'score': score})

    def close(self) -> None:
        """Waits for what is still being written."""
        self.newest.close()
        self.best.close()


def open_folder(folder: pathlib.Path, keep: int) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        folder.absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=ocp.training.preservation_policies.LatestN(keep),
    )


def read(workdir: pathlib.Path, which: str, place: jax.sharding.Sharding) -> tuple[int, dict]:
    """(step, parameters laid out by `place`) of a run: `latest`, `best`, or a kept step's number.

    Raises ValueError listing the steps that there are.
    """
    folder = workdir / ('best' if which == 'best' else 'ckpt')
    if not folder.is_dir():
        raise ValueError(f'{workdir}: expected a run with a folder {folder.name}/, found none')
    with open_folder(folder, KEEP) as checkpoints:
        steps = [x.step for x in checkpoints.checkpoints]
        step = str(steps[-1]) if which in ('latest', 'best') and steps else which
        if step not in map(str, steps):
            raise ValueError(f'{folder}: expected one of the steps {steps}, got {which!r}')
        tree = checkpoints.metadata(int(step)).metadata
        wanted = tree if which == 'best' else tree['params']
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), wanted
        )
        if which == 'best':
            return int(step), checkpoints.load(int(step), shapes)
        rest = jax.tree.map(lambda _: ocp.PLACEHOLDER, tree)
        return int(step), checkpoints.load(int(step), rest | {'params': shapes})['params']
