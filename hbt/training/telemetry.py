"""The lines of metrics.jsonl: losses by kind and language pair, speed, spikes, and patience."""

import collections
import contextlib
import functools
import math
import pathlib
import time
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np

from hbt import config
from hbt.evaluation import results
from hbt.sampling import batches, packing
from hbt.training import checkpoint, losses
from hbt.utils import log, settings

LAG = 2  # steps whose metrics stay on the device, so that it never waits for the host
PAIR_METRICS = losses.PairMetrics._fields
BY_PAIR = '_by_pair/'  # in the names of what is measured for every pair of languages
COMPILED = '/jax/core/compile/backend_compile_duration'
SPIKE_WINDOW = 20  # lines
SPIKE_MIN_LINES = 8  # before anything is called a spike
SPIKE_DEVIATIONS = 6

# Dense bfloat16 FLOP/s of what JAX calls a device. TPUs, by their kind: the system architecture
# pages of docs.cloud.google.com/tpu (v2, v3 and 7x have two devices a chip). NVIDIA, by the start
# of the kind: data sheets, without sparsity (V100: float16).
# fmt: off
PEAK_FLOPS = {
    'TPU v2': 22.5e12, 'TPU v3': 61.5e12, 'TPU v4': 275e12, 'TPU v5 lite': 197e12,
    'TPU v5e': 197e12, 'TPU v5': 459e12, 'TPU v5p': 459e12, 'TPU v6 lite': 918e12,
    'TPU v6e': 918e12, 'TPU7x': 1153.5e12,
}
PEAK_FLOPS_BY_PREFIX = {
    'NVIDIA H200': 989e12, 'NVIDIA H100 PCIe': 756e12, 'NVIDIA H100 NVL': 835e12,
    'NVIDIA H100': 989e12, 'NVIDIA A100': 312e12, 'NVIDIA L4': 121e12, 'Tesla V100': 125e12,
}
# fmt: on


def peak_flops(kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of a `device_kind`; None for unknown ones, such as CPUs."""
    for prefix, value in PEAK_FLOPS_BY_PREFIX.items():
        if f'{kind} '.replace('-', ' ').startswith(f'{prefix} '):
            return value
    return PEAK_FLOPS.get(kind)


def measure_product(dtype: str, rows: int = 4096, turns: int = 10) -> float:
    """FLOP/s of a product as in the feed-forward layers of XLM-R base, the fastest of some turns.

    Summed in float32: without, XLA's CPU products of bfloat16 are those of float32.
    """
    a, b = jnp.ones((rows, 768), dtype), jnp.ones((768, 3072), dtype)
    product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    seconds = []
    for _ in range(1 + turns):  # the first compiles
        start = time.perf_counter()
        product(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * a.size * b.shape[1] / min(seconds)


def model_flops(c: config.Config, tokens: float, squares: float, tasks: int) -> float:
    """FLOPs of the matrix products of a step, forward and backward: 2 for each multiply and add.

    `tokens` are real ones, `squares` the sum of the squared lengths of the texts, `tasks` the
    batches of a step. Neither padding nor recomputation for the gradient counts (as the model FLOPs
    of Chowdhery et al. 2022, appendix B).
    """
    e, pairs = c.encoder, c.batch_size
    dense = 4 * e.hidden_dim**2 + 2 * e.hidden_dim * e.mlp_dim
    layer = tokens * dense + 2 * squares * e.hidden_dim
    width = sum({*c.loss.dims, e.embedding_dim})
    columns = pairs * (1 + c.sampler.negatives) + (pairs if c.loss.symmetric else 0)
    return 6 * (e.num_layers * layer + tasks * pairs * columns * width)


def open_metrics(c: config.Config, workdir: pathlib.Path, step: int) -> log.MetricsWriter:
    """The log of a run that continues after `step`; -1: of a new run."""
    writer = log.MetricsWriter(workdir, step, None if c.log_pairs else BY_PAIR)
    writer.write_text(max(step, 0), 'settings', settings.format_values(c))
    return writer


def draw_result(writer: log.MetricsWriter, result: results.Result, c: config.Eval, step: int):
    """Shows the figures of an evaluation in TensorBoard: every pair of languages, and the bias."""
    # Imported here: matplotlib takes a second, and a run without evaluations draws nothing.
    from hbt.evaluation import result_plots

    metric = c.best.partition('.')[2] or 'map'
    for name, drawing in result_plots.draw_result(result, metric).items():
        writer.write_figure(step, f'{result.numbers["benchmark"]}/{name}', drawing)


class Meter:
    """Sums over the steps since the last line of the log; a context that counts compilations."""

    def __init__(self, c: config.Config, languages: abc.Sequence[str], devices: int, sums=None):
        """Over the devices of all hosts, from the `sums` that `state` gave when the run stopped."""
        self.config, self.languages, self.devices = c, languages, devices
        self.pending, self.lr, self.compiles = collections.deque(), {}, 0
        self._reset(sums or {})
        self.start = time.perf_counter()

    def _reset(self, sums: dict) -> None:
        self.sums = collections.Counter(sums.get('sums', {'waited': 0.0}))
        self.kinds = {k: np.array(x) for k, x in sums.get('kinds', {}).items()}
        self.pairs = np.zeros((len(self.languages) ** 2, 1 + len(PAIR_METRICS)))
        for key, x in sums.get('pairs', {}).items():
            self.pairs[int(key)] = x

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def _on_event(self, event: str, *_, **__) -> None:
        self.compiles += event == COMPILED

    def timed(self, items: abc.Iterator) -> abc.Iterator:
        """The same batches; the time until each of them is there counts as waiting for input."""
        before = time.perf_counter()
        for item in items:
            self.sums['waited'] += time.perf_counter() - before
            yield item
            before = time.perf_counter()

    def add_step(self, plans: list[batches.Plan], batch: batches.Batch, metrics: dict) -> None:
        """Adds a step that was dispatched, with the metrics that it will have."""
        rows, width = batch.packed.tokens.shape
        rows //= self.devices // jax.process_count()
        rows = packing.computed_rows(self.config.encoder.chunk, width, rows)
        self.pending.append((plans, self.devices * rows * width, metrics))
        while len(self.pending) > LAG:
            self._add_metrics(*self.pending.popleft())

    def _add_metrics(self, plans: list[batches.Plan], computed: int, metrics: dict) -> None:
        metrics = jax.device_get(metrics)
        pair_metrics = metrics.pop('pairs')  # t b
        metrics = {k: float(x) for k, x in metrics.items()}
        tokens, squares, skipped = (metrics.pop(x) for x in ('tokens', 'squares', 'skipped'))
        flops = model_flops(self.config, tokens, squares, len(plans))
        self.sums.update(tokens=tokens, computed=computed, flops=flops, skipped=skipped)
        if skipped:  # its metrics are not finite
            return
        self.lr = {'lr': metrics['lr']}
        self.sums.update({'steps': 1} | {f'mean/{k}': x for k, x in metrics.items()})
        for task, plan in enumerate(plans):
            values = np.stack([np.ones(len(plan.groups)), *(x[task] for x in pair_metrics)], 1)
            self.kinds[plan.kind] = self.kinds.get(plan.kind, 0) + values.sum(0)
            pairs = plan.query_languages * len(self.languages) + plan.passage_languages
            np.add.at(self.pairs, pairs, values)

    def state(self) -> dict[str, dict]:
        """The sums so far, for JSON: a meter that begins from them logs what this one would."""
        while self.pending:
            self._add_metrics(*self.pending.popleft())
        now = time.perf_counter()
        self.sums['seconds'] += now - self.start
        self.start = now
        return {
            'sums': dict(self.sums),
            'kinds': {k: x.tolist() for k, x in self.kinds.items()},
            'pairs': {str(i): self.pairs[i].tolist() for i in np.flatnonzero(self.pairs[:, 0])},
        }

    def pop_line(self) -> dict[str, float]:
        """Means since the last line, from which on the sums begin anew.

        The metrics of the step; those of each kind of batch and language pair; pairs and real
        tokens a second; padding, as a proportion of the tokens, and waiting for input, of the time;
        programs compiled; steps skipped; on known chips the model FLOPs utilisation.
        """
        sums, kinds, pairs = self.state().values()
        line = {k[5:]: x / sums['steps'] for k, x in sums.items() if k.startswith('mean/')}
        line |= self.lr
        named = {f'/{kind}': x for kind, x in kinds.items()}
        for key, x in pairs.items():
            query, passage = divmod(int(key), len(self.languages))
            named[f'{BY_PAIR}{self.languages[query]}-{self.languages[passage]}'] = x
        for name, (count, *totals) in named.items():
            for metric, total in zip(PAIR_METRICS, totals, strict=True):
                line[metric + name] = total / count
        seconds = sums['seconds']
        line |= {
            'pairs_per_second': sum(x[0] for x in kinds.values()) / seconds,
            'tokens_per_second': sums['tokens'] / seconds,
            'padding': 1 - sums['tokens'] / sums['computed'],
            'input_wait': sums['waited'] / seconds,
            'compiles': self.compiles,
            'skipped': sums['skipped'],
        }
        if peak := peak_flops(jax.devices()[0].device_kind):
            line['mfu'] = sums['flops'] / seconds / (peak * self.devices)
        self.compiles = 0
        self._reset({})
        return line

    @contextlib.contextmanager
    def paused(self):
        """The block, such as an evaluation, is no training time."""
        before = time.perf_counter()
        yield
        self.start += time.perf_counter() - before


def format_postfix(line: dict[str, float]) -> dict[str, str]:
    """A line of the log for the progress bar."""
    postfix = {'loss': f'{line.get("loss", math.nan):.3f}'}  # none if all steps were skipped
    for name in ('pairs', 'tokens'):
        postfix[f'{name}/s'] = f'{line[f"{name}_per_second"]:.0f}'
    for short, name in (('pad', 'padding'), ('wait', 'input_wait'), ('mfu', 'mfu')):
        if name in line:
            postfix[short] = f'{line[name]:.0%}'
    return postfix


class SpikeDetector:
    """Finds losses more than SPIKE_DEVIATIONS deviations above the median of the lines before.

    The deviation is 1.4826 times the median absolute one (the standard deviation, for normal noise,
    and a spike hardly moves it; Huber 1981), and at least 1 % of the median.
    """

    def __init__(self, lines: abc.Iterable[dict]):
        self.losses = collections.deque((x['loss'] for x in lines if 'loss' in x), SPIKE_WINDOW)

    def update(self, loss: float) -> str:
        """Adds the loss of the next line; returns a message if it is a spike, else ''."""
        before = np.array(self.losses)
        self.losses.append(loss)
        if len(before) < SPIKE_MIN_LINES:
            return ''
        median = np.median(before)
        deviation = max(1.4826 * np.median(abs(before - median)), 0.01 * abs(median))
        message = (
            f'the loss jumped to {loss:.4g}: the median of the {len(before)} lines before is '
            f'{median:.4g}, their deviation {deviation:.2g}'
        )
        return message if loss > median + SPIKE_DEVIATIONS * deviation else ''


class EarlyStopping:
    """Counts the evaluations since the best one, by the log alone: a run that resumes knows them.

    Patience as in Prechelt 1998: so many evaluations in a row without a better one.
    """

    def __init__(self, metric: str, patience: int, lines: abc.Iterable[dict]):
        """`lines`: those of the log up to now; with a patience of 0 no run is stopped."""
        self.metric, self.patience = metric, patience
        self.best, self.since = None, 0
        for line in lines:
            self.update(line['step'], line)

    def update(self, step: int, line: abc.Mapping[str, float | int]) -> None:
        """Adds a line of the log; those that lack the metric are of no evaluation."""
        if self.metric not in line:
            return
        best = self.best and self.best[1]
        self.since += 1
        if checkpoint.is_better(line[self.metric], best, self.metric):
            self.best, self.since = (step, line[self.metric]), 0

    def reason(self) -> str:
        """Why the run is to stop; empty if it is not."""
        if not self.patience or self.since < self.patience:
            return ''
        best = f'{self.best[1]:.6g} of step {self.best[0]}' if self.best else 'none'
        return (
            f'{self.since} evaluations in a row (eval.patience={self.patience}) without a better '
            f'{self.metric} than {best}'
        )
