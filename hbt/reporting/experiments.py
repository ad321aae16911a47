"""Evaluated training runs: their settings, logs and results, and the systems that they make."""

import collections
import json
import os
import pathlib
import typing
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hbt import config
from hbt.evaluation import result_plots, results, samples
from hbt.utils import files, log, settings

IGNORED = (  # settings that do not make another experiment; `eval.` is all of these
    *('name', 'seed', 'log_every', 'ckpt_every', 'mapping', 'shard_params', 'distributed', 'eval.'),
    *('nonfinite', 'data.verify'),
)
STRATEGIES = {1.0: 'X-X', 0.0: 'X-Y', 0.5: 'hybrid'}  # alpha -> the paper's name
Columns = Float[np.ndarray, 'q p']  # NaN: the query is not part of the column


class Experiment(typing.NamedTuple):
    """One training run, or the results of a model of which no training is known."""

    name: str
    path: pathlib.Path
    settings: dict[str, object]  # dotted names; what is known of the data is in `data.`
    results: dict[str, results.Result]  # of the newest step, by benchmark
    lines: list[dict]  # of metrics.jsonl; none for a directory of results


class System(typing.NamedTuple):
    """Experiments that differ in nothing but the seed, taken together."""

    label: str
    experiments: list[Experiment]
    numbers: dict[str, dict[str, dict]]  # benchmark -> `aggregate.aggregate_metrics`, as the mean

    def label_experiments(self) -> dict[str, str]:
        """Name of each of its experiments -> what a report calls it: one of several by its seed."""
        if len(self.experiments) == 1:
            return {self.experiments[0].name: self.label}
        base = self.label.removesuffix(f' ×{len(self.experiments)}')
        return {x.name: f'{base}, seed {x.settings["seed"]}' for x in self.experiments}

    def evaluations(self, benchmark: str) -> list[results.Result]:
        """The results of all experiments that were evaluated on it."""
        return [x.results[benchmark] for x in self.experiments if benchmark in x.results]

    def query_values(
        self, benchmark: str, side: str, metric: str
    ) -> Float[np.ndarray, 'q ...'] | None:
        """A metric of every query, as the mean of the experiments; None where one lacks it.

        `side` is 'pooled', in the union of all corpora, or 'per_language', a column for each.
        """
        values = [getattr(x.query_metrics, side) for x in self.evaluations(benchmark)]
        if not all(metric in x for x in values):
            return None
        return np.mean([x[metric] for x in values], axis=0, dtype=float)

    def pairs(self, benchmark: str) -> list[tuple[str, str]]:
        """Ordered pairs (query language, document language) that have queries."""
        languages = self.evaluations(benchmark)[0].languages
        return result_plots.list_pairs(languages, self.numbers[benchmark]['pairs'])

    def pair_values(self, benchmark: str, metric: str, pairs: Sequence[tuple[str, str]]) -> Columns:
        """A metric's column for each pair of languages; ValueError where a result lacks it."""
        result = self.evaluations(benchmark)[0]
        values = self.query_values(benchmark, 'per_language', metric)
        if values is None:
            names = f'{", ".join(result.query_metrics.per_language)} alone; evaluate again'
            raise ValueError(f'{result.path}: expected values of {metric}, got {names}')
        codes = [[result.languages.index(name) for name in pair] for pair in pairs]
        queries, documents = np.array(codes, int).reshape(-1, 2).T
        is_part = result.query_languages[:, None] == queries
        return np.where(is_part, values[:, documents], np.nan)

    def setting_values(self, benchmark: str, setting: str, metric: str) -> Columns:
        """A metric's column for each pair (mono, cross), or each query language (multi).

        The number of the setting is the mean over the columns' means.
        """
        if setting == 'multi':
            result = self.evaluations(benchmark)[0]
            values = self.query_values(benchmark, 'pooled', metric)
            rows = result.query_languages[:, None] == np.arange(len(result.languages))
            columns = np.where(rows, np.nan if values is None else values[:, None], np.nan)
        else:
            pairs = [x for x in self.pairs(benchmark) if (x[0] == x[1]) == (setting == 'mono')]
            columns = self.pair_values(benchmark, metric, pairs)
        return columns[:, ~np.isnan(columns).all(axis=0)]


def load_experiments(paths: Sequence[str | os.PathLike]) -> list[Experiment]:
    """Loads experiments and checks that they can be compared.

    A path is a run directory, of which the newest results count, or a directory of results:
    RUN/results/STEP, or what `evaluate --out` wrote. Raises ValueError for a path that has no
    results, comes twice, or has results on other data.
    """
    paths = [pathlib.Path(path) for path in paths]
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise ValueError(f'{path}: expected every run once, got it twice')
    experiments = [_load(*x) for x in zip(paths, _short_names(paths), strict=True)]
    for name in list_benchmarks(experiments):
        first, *others = [x.results[name] for x in experiments if name in x.results]
        for other in others:
            results.check_comparable(first, other)
    return experiments


def list_benchmarks(experiments: Sequence[Experiment]) -> list[str]:
    """The benchmarks that any of them was evaluated on."""
    return list(dict.fromkeys(name for x in experiments for name in x.results))


def load_samples(experiment: Experiment, benchmark: str) -> list[tuple[int, samples.Sample]]:
    """(step, sample of embeddings) of the first evaluation of a run and of the newest one.

    The first is left out where it is the newest or has other texts; none where the newest result
    has no sample, as those of older versions.
    """
    newest = experiment.results[benchmark]
    path, step = samples.sample_path(newest.path), newest.numbers.get('step', 0)
    if not path.is_file():
        return []
    sampled = [(step, samples.load_sample(path))]
    others = experiment.path.glob(f'results/*/samples/{path.name}')
    earlier = {int(x.parts[-3]): x for x in others if x.parts[-3].isdecimal()}
    if earlier and min(earlier) < step:
        first = samples.load_sample(earlier[min(earlier)])
        if first.ids == sampled[0][1].ids and first.vectors.shape == sampled[0][1].vectors.shape:
            sampled.insert(0, (min(earlier), first))
    return sampled


def _short_names(paths: list[pathlib.Path]) -> list[str]:
    """The last parts of every path, as many as it takes to tell them apart."""
    parts = []
    for *parents, last in (path.resolve().parts for path in paths):
        if parents[-1:] == ['results']:  # a step of a run
            *parents, last = (*parents[:-2], f'{parents[-2]}@{last}')
        parts.append((*parents, last))
    names = []
    for i, own in enumerate(parts):
        others, depth = parts[:i] + parts[i + 1 :], 1
        while any(own[-depth:] == other[-depth:] for other in others):
            depth += 1
        names.append('/'.join(own[-depth:]))
    return names


def _load(path: pathlib.Path, name: str) -> Experiment:
    if not path.is_dir():
        actual = files.describe_path(path)
        raise ValueError(f'{path}: expected the directory of a run or of results, got {actual}')
    is_run = (path / 'config.json').is_file()
    steps = [x for x in path.glob('results/*') if x.name.isdecimal()]
    folders = sorted(steps, key=lambda x: int(x.name)) if is_run else [path]
    newest = {file.name: file for folder in folders for file in folder.glob('*.json')}
    if not newest:
        where = f'{path}/results/STEP' if is_run else path
        raise ValueError(f'{where}: expected what hbt.evaluate writes, <benchmark>.json, got none')
    loaded = [results.load_result(file) for _, file in sorted(newest.items())]
    run_dir = path.parent.parent if path.parent.name == 'results' and not is_run else path
    has_config = (run_dir / 'config.json').is_file()
    values = _run_settings(run_dir) if has_config else _manifest_settings(loaded[0])
    values['evaluated step'] = max(x.numbers.get('step', 0) for x in loaded)
    by_benchmark = {x.numbers['benchmark']: x for x in loaded}
    return Experiment(name, path, values, by_benchmark, _read_log(path) if is_run else [])


def _run_settings(run_dir: pathlib.Path) -> dict[str, object]:
    """Every setting of a run, and how large its data are."""
    values = settings.flatten(config.load(run_dir / 'config.json'))
    manifest = run_dir / 'data.json'
    if not manifest.is_file():
        return values
    datasets = files.read_json(manifest, dict).get('datasets', [])
    if not all(isinstance(x, dict) for x in datasets):
        raise ValueError(f'{manifest}: datasets: expected objects, got {str(datasets)[:60]}')
    del values['data.root'], values['data.sources']  # the files themselves say more
    text = json.dumps([[x.get('name'), x.get('sha256')] for x in datasets])
    languages = {x for d in datasets for side in ('query', 'passage') for x in d.get(side, {})}
    return values | {
        'data.content': files.sha256_of_text(text)[:8],
        'data.groups': sum(x.get('groups', 0) for x in datasets),
        'data.languages': tuple(sorted(languages)),
    }


def _manifest_settings(result: results.Result) -> dict[str, object]:
    """The settings that a result has in its manifest, where there is no run."""
    manifest = result.numbers['manifest']
    values = {f'encoder.{name}': x for name, x in manifest.get('encoder', {}).items()}
    for i, side in enumerate(('query', 'passage')):
        for name, key in (('prefix', 'prefixes'), ('length', 'lengths')):
            if key in manifest:
                values[f'data.{side}_{name}'] = manifest[key][i]
    return values | {'model': result.numbers.get('model', '')}


def _read_log(run_dir: pathlib.Path) -> list[dict]:
    path = run_dir / 'metrics.jsonl'
    try:
        lines = log.read_metrics(path)
        for line in lines:
            if not isinstance(line, dict) or type(line.get('step')) is not int:
                raise ValueError(f'a line without a step: {str(line)[:60]}')
    except ValueError as error:
        raise files.format_error(path, 'a JSON object with a step a line', error) from error
    return lines


def sampling_strategy(experiment: Experiment) -> str:
    """How batches were sampled, in the paper's words; empty where that is not known."""
    values = experiment.settings
    alpha, name = values.get('sampler.alpha'), values.get('sampler.kind', 'hybrid')
    if alpha is None:
        return ''
    if name != 'hybrid':
        name += f' {alpha:g}'
    elif points := values.get('sampler.alpha_points'):
        name = f'α={points}'
    else:
        name = STRATEGIES.get(alpha, f'hybrid α={alpha:g}')
    return name + ' mixed' * (values.get('sampler.mono') == 'mixed')


def settings_key(experiment: Experiment, ignored: Sequence[str] = ()) -> tuple:
    """Equal for experiments whose settings are equal, but for IGNORED and these."""
    ignored = (*IGNORED, *ignored)
    sections = tuple(x for x in ignored if x.endswith('.'))
    values = sorted((name, str(value)) for name, value in experiment.settings.items())
    return tuple(x for x in values if x[0] not in ignored and not x[0].startswith(sections))


def group_by_seed(experiments: Sequence[Experiment]) -> list[System]:
    """The systems of these experiments, in their order.

    A system is named by its sampling if that names no other one, else by its first experiment.
    Two of one seed are of different systems: their difference is no spread between seeds.
    """
    groups, counts = {}, collections.Counter()
    for x in experiments:
        seeded = settings_key(x), x.settings.get('seed')
        counts[seeded] += 1
        key = (seeded[0], counts[seeded]) if 'seed' in x.settings else x.name
        groups.setdefault(key, []).append(x)
    names = [sampling_strategy(group[0]) for group in groups.values()]
    unique = all(names) and len({*names}) == len(names) > 1
    systems = []
    for name, group in zip(names, groups.values(), strict=True):
        label = (name if unique else group[0].name) + f' ×{len(group)}' * (len(group) > 1)
        numbers = {x: _mean_numbers(group, x) for x in list_benchmarks(group)}
        systems.append(System(label, group, numbers))
    return systems


def _mean_numbers(group: Sequence[Experiment], benchmark: str) -> dict[str, dict]:
    numbers = [x.results[benchmark].numbers for x in group if benchmark in x.results]
    return {name: _mean_tree([x[name] for x in numbers]) for name in results.BREAKDOWNS}


def _mean_tree(trees: list[dict]) -> dict:
    """The mean of every number, over the trees that have it."""
    means = {}
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree[key] for tree in trees if key in tree]
        means[key] = _mean_tree(values) if isinstance(values[0], dict) else float(np.mean(values))
    return means


def differing_settings(experiments: Sequence[Experiment]) -> list[str]:
    """Settings in which they differ, as far as each of them says its settings."""
    complete = [x for x in experiments if 'seed' in x.settings]
    names = []
    for name in dict.fromkeys(name for x in experiments for name in x.settings):
        values = {str(x.settings[name]) for x in experiments if name in x.settings}
        values |= {str(x.settings.get(name, '')) for x in complete}
        if len(values) > 1 and name != 'name':
            names.append(name)
    return names
