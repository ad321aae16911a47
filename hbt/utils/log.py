"""What a person sees: progress bars, messages, metrics.jsonl, TensorBoard, on the main process."""

import contextlib
import io
import json
import pathlib
import struct
import sys
import threading
import time
from collections import abc

import tqdm
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from hbt.utils import distributed, files

SILENCE = 4.0  # seconds after which a bar is shown again, though nothing has happened


class _Bar(tqdm.tqdm):
    """A bar whose clock goes on, so that a slow step is not taken for a program that hangs."""

    monitor_interval = 0  # no thread of tqdm's own

    def __init__(self, **options):
        self._is_live = sys.stderr.isatty()
        options |= {'mininterval': 0.2 if self._is_live else SILENCE, 'dynamic_ncols': True}
        if not self._is_live:
            options['position'] = 0  # a file has no lines to go back to
        self._closed, self._thread = threading.Event(), None
        self._displayed = time.monotonic()
        self._start = self._displayed + options.get('delay', 0)
        super().__init__(**options)
        if not self.disable:
            self._thread = threading.Thread(target=self._keep_current, daemon=True)
            self._thread.start()

    def _keep_current(self) -> None:
        seconds = 1.0 if self._is_live else SILENCE
        while not self._closed.wait(seconds / 4):
            if time.monotonic() - self._displayed >= seconds:
                self.refresh()

    def display(self, *args, **options):
        if time.monotonic() < self._start:
            return
        self._displayed = time.monotonic()
        if self.delay:
            self.last_print_t = self._time()  # else tqdm takes it for never shown
        super().display(*args, **options)

    def clear(self, *args, **options):
        if self._is_live:
            super().clear(*args, **options)

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        super().close()


def progress(show: bool = True, **options) -> tqdm.tqdm:
    """A progress bar: live on a terminal, a line now and then in a file; without `show` none."""
    return _Bar(disable=not (show and distributed.is_main_process()), **options)


def activity(text: str, show: bool = True, delay: float = SILENCE / 2) -> tqdm.tqdm:
    """A context that shows what its block does, and for how long it has done so.

    In a file, only if it takes longer than `delay`.
    """
    options = {'leave': False} if sys.stderr.isatty() else {'delay': delay}
    return progress(show, desc=text, bar_format='{desc} [{elapsed}]', **options)


def compiling(
    text: str, shape: int, compiled: set[int], shapes: abc.Iterable[int], show: bool = True
) -> contextlib.AbstractContextManager:
    """The same where a program is compiled for one of its shapes; nothing if it is `compiled`.

    The shape is then added to these, of which there will be at least `shapes`.
    """
    if shape in compiled:
        return contextlib.nullcontext()
    compiled.add(shape)
    count = f'{len(compiled)} of {len(compiled | {*shapes})}'
    return activity(f'compiling {text} ({count})', show, delay=0.0)


def info(text: str) -> None:
    """Prints a message above any progress bar, on the main process."""
    if distributed.is_main_process():
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


class MetricsWriter:
    """Scalars of a training run, in `metrics.jsonl` and TensorBoard under `workdir`.

    Continues after `step`: drops lines of later steps, of a run that was killed. TensorBoard gets
    no scalar whose name contains `hidden`.
    """

    def __init__(self, workdir: pathlib.Path, step: int, hidden: str | None = None):
        self.file, self.hidden = None, hidden
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
        shown = {k: x for k, x in values.items() if self.hidden is None or self.hidden not in k}
        scalars = [summary.scalar(name, value).value[0] for name, value in shown.items()]
        self._write_event(step, summary=summary_pb2.Summary(value=scalars))

    def write_text(self, step: int, name: str, markdown: str) -> None:
        """Shows a text in TensorBoard."""
        if self.file is not None:
            self._write_event(step, summary=summary.text(name, markdown))

    def write_figure(self, step: int, name: str, drawing) -> None:
        """Shows a figure of matplotlib in TensorBoard."""
        if self.file is None:
            return
        png = io.BytesIO()
        drawing.savefig(png, format='png', bbox_inches='tight', dpi=120)
        width, height = struct.unpack('>II', png.getvalue()[16:24])  # of the header
        size = {'width': width, 'height': height, 'colorspace': 4}
        image = summary_pb2.Summary.Image(encoded_image_string=png.getvalue(), **size)
        value = summary_pb2.Summary.Value(tag=name, image=image)
        self._write_event(step, summary=summary_pb2.Summary(value=[value]))

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
