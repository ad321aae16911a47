"""What a person sees of a run: progress bars, metrics.jsonl, TensorBoard, one-line errors.

Hides the writers; silent on all processes but the first. Called by every program.
"""

import json
import os
import pathlib
import sys

import jax
import tensorboardX
import tqdm
from absl import app, flags, logging


def progress(**options) -> tqdm.tqdm:
    """A progress bar: live on a terminal, a line now and then in a file, none on other hosts."""
    slow = 0.2 if sys.stderr.isatty() else 15
    return tqdm.tqdm(mininterval=slow, dynamic_ncols=True, disable=not first(), **options)


def first() -> bool:
    """Whether this process is the one that writes."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def say(text: str) -> None:
    """Prints above any progress bar."""
    if first():
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


class Metrics:
    """Scalars of a run, in `metrics.jsonl` and TensorBoard under `workdir`."""

    def __init__(self, workdir: pathlib.Path, step: int):
        """Continues after `step`: lines of later steps, written by a run that died, are dropped."""
        self.file = None
        if not first():
            return
        path = workdir / 'metrics.jsonl'
        kept = [line for line in read(path) if line['step'] <= step]
        partial = path.with_suffix('.partial')
        partial.write_text(''.join(json.dumps(line) + '\n' for line in kept))
        os.replace(partial, path)
        self.file = path.open('a')
        self.board = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        if self.file is None:
            return
        self.file.write(json.dumps({'step': step, **values}) + '\n')
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.board.close()


def read(path: pathlib.Path) -> list[dict]:
    """Lines of a metrics.jsonl; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    *lines, rest = path.read_text().split('\n')
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f'{path}:{number}: expected a line of JSON, got {error}') from None
    return found


def program(main, check=lambda argv: None) -> None:
    """Runs `check(argv)`, then `main(argv)` with the flags parsed.

    An error of the user ends in one line on stderr and exit code 2; with -v=1, in its traceback.
    """

    logging.set_verbosity(logging.WARNING)

    def guarded(argv):
        try:
            main(argv)
        except (ValueError, OSError) as error:
            if flags.FLAGS.verbosity > 0:
                raise
            stop(error)

    def parse(argv):
        try:
            check(argv)
            return flags.FLAGS(argv)
        except (flags.Error, ValueError, OSError) as error:
            # A config file that fails comes with its traceback; its last line says why.
            head, *lines = str(error).strip().split('Traceback (most recent call last)')
            stop(head + lines[-1].splitlines()[-1] if lines else head)

    app.run(guarded, flags_parser=parse)


def stop(error) -> None:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
