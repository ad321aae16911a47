"""What a run does with its time: pairs and tokens a second, padding, waiting, utilisation, losses.

Hides which values are still on the device, and how sums outlive a stop. Called by `main`, and for
the arithmetic of a step by `dry_run`.


Spikes of the loss: lines of the log far above those before.

Hides the rule. A line is a spike where its loss is more than FAR spreads above the median of the
LINES lines before it; the spread is 1.4826 times the median absolute deviation (the standard
deviation, for normal noise, and a spike hardly moves it; Huber 1981), and at least 1 % of the
median. Called by `main`.
"""

import collections
import contextlib
import math
import time
from collections import abc

import jax
import numpy as np

from hbt import config
from hbt.sampling import batches, packing

LAG = 2  # steps whose values are left on the device, so that it never waits to be asked
ROWS = ('loss', 'accuracy', 'margin')  # what a step tells of each of its rows
COMPILED = '/jax/core/compile/backend_compile_duration'

# Dense bfloat16 FLOP/s of what JAX calls a device. TPUs, by their kind: the system architecture
# pages of docs.cloud.google.com/tpu (v2, v3 and 7x have two devices a chip). NVIDIA, by the start
# of the kind: data sheets, without sparsity (V100: float16).
PEAK = {
    'TPU v2': 22.5e12,
    'TPU v3': 61.5e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5e': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
    'TPU v6e': 918e12,
    'TPU7x': 1153.5e12,
}
PEAK_STARTS = {
    'NVIDIA H200': 989e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100 NVL': 835e12,
    'NVIDIA H100': 989e12,
    'NVIDIA A100': 312e12,
    'NVIDIA L4': 121e12,
    'Tesla V100': 125e12,
}


def peak(kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of a `device_kind`; None for those that are not known, as CPUs."""
    for start, value in PEAK_STARTS.items():
        if f'{kind} '.replace('-', ' ').startswith(f'{start} '):
            return value
    return PEAK.get(kind)


def flops(c: config.Config, tokens: float, squares: float, tasks: int) -> float:
    """FLOPs that one step needs, forward and backward: 2 for each multiplication and addition.

    `tokens` are the real ones, `squares` the sum of the squared lengths of the texts. Of matrix
    products only; neither padding nor what is computed again for the gradient counts (as the
    model FLOPs of Chowdhery et al. 2022, appendix B).
    """
    e, rows = c.encoder, c.batch_size
    layer = (
        tokens * (4 * e.hidden_dim**2 + 2 * e.hidden_dim * e.mlp_dim) + 2 * squares * e.hidden_dim
    )
    width = e.projection_dim or e.hidden_dim
    columns = rows * (1 + c.sampler.negatives) + (rows if c.loss.symmetric else 0)
    return 6 * (e.num_layers * layer + tasks * rows * columns * width)


class Meter:
    """Sums over the steps since the last line of the log."""

    def __init__(self, c: config.Config, languages: abc.Sequence[str], devices: int, saved=None):
        """Over so many devices of all hosts; begins from what `saved` gave an earlier run."""
        self.config, self.languages, self.devices = c, languages, devices
        self.pending, self.latest, self.compiles = collections.deque(), {}, 0
        self.begin(saved or {})
        self.start = time.perf_counter()

    def begin(self, saved: dict) -> None:
        self.sums = collections.Counter(saved.get('sums', {'waited': 0.0}))
        self.kinds = {k: np.array(x) for k, x in saved.get('kinds', {}).items()}
        self.pairs = np.zeros((len(self.languages) ** 2, 1 + len(ROWS)))
        for key, x in saved.get('pairs', {}).items():
            self.pairs[int(key)] = x

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self.heard)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self.heard)

    def heard(self, event: str, seconds: float, **more) -> None:
        del seconds, more
        self.compiles += event == COMPILED

    def timed(self, found: abc.Iterator) -> abc.Iterator:
        """The same batches; the time until each of them is there counts as waiting for input."""
        while True:
            before = time.perf_counter()
            item = next(found, None)
            if item is None:
                return
            self.sums['waited'] += time.perf_counter() - before
            yield item

    def add(self, plans: abc.Sequence[batches.Plan], batch: batches.Batch, values: dict) -> None:
        """A step that was begun, with the metrics that it will have."""
        rows, width = batch.packed.tokens.shape
        rows //= self.devices // jax.process_count()
        rows = packing.computed_rows(self.config.encoder.chunk, width, rows)
        self.pending.append((plans, self.devices * rows * width, values))
        while len(self.pending) > LAG:
            self.take(*self.pending.popleft())

    def take(self, plans: abc.Sequence[batches.Plan], computed: int, values: dict) -> None:
        values = jax.device_get(values)
        rows = values.pop('rows')._asdict()
        values = {k: float(x) for k, x in values.items()}
        tokens, squares = values.pop('tokens'), values.pop('squares')
        self.sums.update({'tokens': tokens, 'computed': computed})
        self.sums['flops'] += flops(self.config, tokens, squares, len(plans))
        skipped = values.pop('skipped')
        self.sums['skipped'] += skipped
        if skipped:  # its values are not finite
            return
        self.latest = values
        self.sums['steps'] += 1
        self.sums.update({f'mean/{k}': x for k, x in values.items()})
        for task, plan in enumerate(plans):
            seen = np.stack([np.ones(len(plan.groups)), *(rows[x][task] for x in ROWS)], axis=1)
            self.kinds[plan.kind] = self.kinds.get(plan.kind, 0) + seen.sum(0)
            pairs = plan.query_languages * len(self.languages) + plan.passage_languages
            np.add.at(self.pairs, pairs, seen)

    def saved(self) -> dict[str, dict]:
        """The sums so far, for JSON: a run that begins from them logs what this one would."""
        while self.pending:
            self.take(*self.pending.popleft())
        now = time.perf_counter()
        self.sums['seconds'] += now - self.start
        self.start = now
        return {
            'sums': dict(self.sums),
            'kinds': {k: x.tolist() for k, x in self.kinds.items()},
            'pairs': {str(i): self.pairs[i].tolist() for i in np.flatnonzero(self.pairs[:, 0])},
        }

    def line(self) -> dict[str, float]:
        """Means since the last line, whose sums begin anew.

        The metrics of the step; loss, accuracy and margin of each kind of batch and language
        pair; pairs and real tokens a second; shares of padding among the tokens and of waiting
        for input in the time; programs compiled; steps skipped; on known chips the model FLOPs
        utilisation.
        """
        parts = self.saved()
        sums, kinds, pairs = parts.values()
        found = {k[5:]: x / sums['steps'] for k, x in sums.items() if k.startswith('mean/')}
        found |= {k: x for k, x in self.latest.items() if k == 'lr'}
        named = [('', kind, x) for kind, x in kinds.items()]
        named += [('_by_pair', self.pair(int(key)), x) for key, x in pairs.items()]
        for suffix, of, (count, *totals) in named:
            means = zip(ROWS, totals, strict=True)
            found |= {f'{name}{suffix}/{of}': total / count for name, total in means}
        seconds = sums['seconds']
        found |= {
            'pairs_per_second': sum(x[0] for x in kinds.values()) / seconds,
            'tokens_per_second': sums['tokens'] / seconds,
            'padding': 1 - sums['tokens'] / sums['computed'],
            'input_wait': sums['waited'] / seconds,
            'compiles': self.compiles,
            'skipped': sums.get('skipped', 0.0),
        }
        most = peak(jax.devices()[0].device_kind)
        if most:
            found['mfu'] = sums['flops'] / seconds / (most * self.devices)
        self.compiles = 0
        self.begin({})
        return found

    def pair(self, number: int) -> str:
        return '-'.join(self.languages[i] for i in divmod(number, len(self.languages)))

    @contextlib.contextmanager
    def paused(self):
        """What is done here, such as an evaluation, is no training time."""
        before = time.perf_counter()
        yield
        self.start += time.perf_counter() - before


def brief(line: dict[str, float]) -> dict[str, str]:
    """A line of the log for the progress bar."""
    shown = {
        'loss': f'{line.get("loss", math.nan):.3f}',  # none if all steps were skipped
        'pairs/s': f'{line["pairs_per_second"]:.0f}',
        'tokens/s': f'{line["tokens_per_second"]:.0f}',
        'pad': f'{line["padding"]:.0%}',
        'wait': f'{line["input_wait"]:.0%}',
    }
    return shown | ({'mfu': f'{line["mfu"]:.0%}'} if 'mfu' in line else {})


LINES = 20
LEAST = 8  # lines before anything is called a spike
FAR = 6


class Spikes:
    """The losses of the last lines of a log."""

    def __init__(self, lines: abc.Iterable[dict]):
        """Goes on after these lines."""
        found = (line['loss'] for line in lines if 'loss' in line)
        self.losses = collections.deque(found, LINES)

    def seen(self, loss: float) -> str:
        """Takes the loss of the next line; says so, if it is a spike, else nothing."""
        before = np.array(self.losses)
        self.losses.append(loss)
        if len(before) < LEAST:
            return ''
        median = np.median(before)
        spread = max(1.4826 * np.median(abs(before - median)), 0.01 * abs(median))
        if not loss > median + FAR * spread:
            return ''
        return (
            f'the loss jumped to {loss:.4g}: the {len(before)} lines before have the median '
            f'{median:.4g} with a spread of {spread:.2g}'
        )
