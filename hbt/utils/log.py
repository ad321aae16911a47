"""What a person sees: progress bars, messages, metrics.jsonl, TensorBoard, on the main process."""

import json
import pathlib
import sys
import time

import tqdm
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from hbt.utils import distributed, files


def progress(show: bool = True, **options) -> tqdm.tqdm:
    """A progress bar: live on a terminal, a line now and then in a file; without `show` none."""
    options |= {'mininterval': 0.2 if sys.stderr.isatty() else 15, 'dynamic_ncols': True}
    return tqdm.tqdm(disable=not (show and distributed.is_main_process()), **options)


def info(text: str) -> None:
    """Prints a message above any progress bar, on the main process."""
    if distributed.is_main_process():
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


class MetricsWriter:
    """Scalars of a training run, in `metrics.jsonl` and TensorBoard under `workdir`.

    Continues after `step`: drops lines of later steps, of a run that was killed.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        self.file = None
        if not distributed.is_main_process():
            return
        path = workdir / 'metrics.jsonl'
        lines = [line for line in read_metrics(path) if line['step'] <= step]
        files.write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))
        self.file = path.open('a')
        folder = workdir / 'tensorboard'
        folder.mkdir(exist_ok=True)
        # Not its SummaryWriter: that has a thread, and waits for it for ever where a disk is full.
        self.board = event_file_writer.EventsWriter(str(folder / 'events'))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # drops later steps
        self._write_event(step + 1, session_log=start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends a line, and a point to each curve of TensorBoard."""
        if self.file is None:
            return
        self.file.write(json.dumps({'step': step, **values}) + '\n')
        self.file.flush()
        scalars = [summary.scalar(name, value).value[0] for name, value in values.items()]
        self._write_event(step, summary=summary_pb2.Summary(value=scalars))

    def _write_event(self, step: int, **content) -> None:
        self.board.write_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
        self.board.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.board.close()


def read_metrics(path: pathlib.Path) -> list[dict]:
    """Lines of a metrics.jsonl; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    result = []
    for number, line in enumerate(path.read_bytes().split(b'\n')[:-1], 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{path}:{number}: expected a line of JSON, got {error}') from None
        if not isinstance(values, dict) or type(values.get('step')) is not int:
            raise ValueError(f'{path}:{number}: expected an object with a step, got {line[:60]!r}')
        result.append(values)
    return result
