"""Finished runs: what they were set to, what they logged, what their evaluations left.

Hides where a run keeps these, and which runs differ by the seed alone. Called by `report` and the
modules below it.
"""

import hashlib
import json
import os
import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from hbt import config
from hbt.evaluation import aggregate, results
from hbt.utils import files, log, settings

ASIDE = (  # settings that do not make another experiment
    *('name', 'seed', 'log_every', 'ckpt_every', 'mapping', 'shard_params', 'distributed', 'eval.'),
    *('nonfinite', 'data.verify'),
)
SIDES = ('query', 'passage')  # of a dataset: language -> counts
FIXED = {1.0: 'X-X', 0.0: 'X-Y', 0.5: 'hybrid'}  # alpha -> the paper's name


class Run(typing.NamedTuple):
    """One RUN of the command line."""

    name: str
    path: pathlib.Path
    settings: dict[str, object]  # dotted names; what is known of the data is in `data.`
    results: dict[str, results.Result]  # of the newest step, for every benchmark
    lines: list[dict]  # of metrics.jsonl; none for a directory of results


class System(typing.NamedTuple):
    """Runs that differ in nothing but the seed, taken together."""

    label: str
    runs: list[Run]
    trees: dict[str, dict[str, dict]]  # of `summary.summarise`, by benchmark, as the mean of runs

    def saved(self, benchmark: str) -> list[results.Result]:
        return [run.results[benchmark] for run in self.runs if benchmark in run.results]

    def numbers(self, benchmark: str) -> dict[str, dict]:
        return self.trees[benchmark]

    def values(self, benchmark: str) -> aggregate.QueryMetrics:
        """The values of every query, as the mean of the runs."""
        found = [x.query_metrics for x in self.saved(benchmark)]
        return aggregate.QueryMetrics(
            *(
                {
                    name: np.mean([getattr(x, side)[name] for x in found], axis=0, dtype=float)
                    for name in getattr(found[0], side)
                    if all(name in getattr(x, side) for x in found)
                }
                for side in aggregate.QueryMetrics._fields
            )
        )


def load_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Reads runs; ValueError for what is none, and for runs that cannot be compared.

    A path is the directory of a run, of which the newest results count, or a directory of results:
    RUN/results/STEP, or what `evaluate --out` wrote.
    """
    places = [pathlib.Path(path) for path in paths]
    for i, place in enumerate(places):
        if place.resolve() in [other.resolve() for other in places[:i]]:
            raise ValueError(f'{place}: expected every run once, got it twice')
    found = [_read(place, name) for place, name in zip(places, _names(places), strict=True)]
    for name in benchmarks(found):
        first, *others = [run.results[name] for run in found if name in run.results]
        for other in others:
            results.check_comparable(first, other)
    return found


def benchmarks(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.results))


def _names(places: list[pathlib.Path]) -> list[str]:
    """The last parts of every path, as many as it takes to tell them apart."""
    parts = []
    for *above, last in (place.resolve().parts for place in places):
        if above[-1:] == ['results']:  # a step of a run
            *above, last = (*above[:-2], f'{above[-2]}@{last}')
        parts.append((*above, last))
    depths = [1] * len(places)
    for i, mine in enumerate(parts):
        others = parts[:i] + parts[i + 1 :]
        while any(mine[-depths[i] :] == other[-depths[i] :] for other in others):
            depths[i] += 1
    return ['/'.join(mine[-depth:]) for mine, depth in zip(parts, depths, strict=True)]


def _read(path: pathlib.Path, name: str) -> Run:
    if not path.is_dir():
        raise ValueError(
            f'{path}: expected the directory of a run or of results, '
            f'got {files.describe_path(path)}'
        )
    whole = (path / 'config.json').is_file()
    nested = not whole and path.parent.name == 'results'
    home = path if whole else path.parent.parent if nested else None
    steps = sorted(
        (x for x in path.glob('results/*') if x.name.isdecimal()), key=lambda x: int(x.name)
    )
    newest = {file.name: file for step in steps for file in step.glob('*.json')}
    newest = newest if whole else {file.name: file for file in path.glob('*.json')}
    if not newest:
        where = f'{path}/results/STEP' if whole else path
        raise ValueError(f'{where}: expected what hbt.evaluate writes, <benchmark>.json, got none')
    saved = [results.load_result(file) for _, file in sorted(newest.items())]
    has_config = home is not None and (home / 'config.json').is_file()
    settings = _settings(home) if has_config else _told(saved[0])
    settings['evaluated step'] = max(x.numbers.get('step', 0) for x in saved)
    return Run(
        name,
        path,
        settings,
        {x.numbers['benchmark']: x for x in saved},
        _lines(path) if whole else [],
    )


def _settings(home: pathlib.Path) -> dict[str, object]:
    """Every setting of a run, and how large its data are."""
    values = settings.flatten(config.load(home / 'config.json'))
    manifest = home / 'data.json'
    if not manifest.is_file():
        return values
    datasets = files.read_json(manifest, dict).get('datasets', [])
    if not all(isinstance(x, dict) for x in datasets):
        raise ValueError(f'{manifest}: datasets: expected objects, got {str(datasets)[:60]}')
    for where in ('data.root', 'data.sources'):  # the files themselves say more
        del values[where]
    text = json.dumps([[x.get('name'), x.get('sha256')] for x in datasets])
    return values | {
        'data.content': hashlib.sha256(text.encode()).hexdigest()[:8],
        'data.groups': sum(x.get('groups', 0) for x in datasets),
        'data.languages': tuple(
            sorted({x for d in datasets for side in SIDES for x in d.get(side, {})})
        ),
    }


def _told(saved: results.Result) -> dict[str, object]:
    """What the manifest of a result tells, where there is no run."""
    manifest = saved.numbers['manifest']
    settings = {f'encoder.{name}': x for name, x in manifest.get('encoder', {}).items()}
    for name, index in (('query', 0), ('passage', 1)):
        for what, key in (('prefixes', 'prefix'), ('lengths', 'length')):
            if what in manifest:
                settings[f'data.{name}_{key}'] = manifest[what][index]
    return settings | {'model': saved.numbers.get('model', '')}


def _lines(home: pathlib.Path) -> list[dict]:
    path = home / 'metrics.jsonl'
    try:
        found = log.read_metrics(path)
        for line in found:
            if not isinstance(line, dict) or type(line.get('step')) is not int:
                raise ValueError(f'a line without a step: {str(line)[:60]}')
    except ValueError as error:
        raise files.format_error(path, 'a JSON object with a step a line', error) from error
    return found


def strategy(run: Run) -> str:
    """How its batches were sampled, in the paper's words; empty where that is not known."""
    alpha = run.settings.get('sampler.alpha')
    if alpha is None:
        return ''
    kind = run.settings.get('sampler.kind', 'hybrid')
    points = run.settings.get('sampler.alpha_points')
    called = f'{kind} {alpha:g}'
    if kind == 'hybrid':
        called = f'α={points}' if points else FIXED.get(alpha, f'hybrid α={alpha:g}')
    return called + ' mixed' * (run.settings.get('sampler.mono') == 'mixed')


def languages(run: Run) -> tuple[str, ...]:
    """What it was trained on; empty where that is not known."""
    return run.settings.get('sampler.languages') or run.settings.get('data.languages', ())


def key(run: Run, aside: Sequence[str] = ()) -> tuple:
    """Equal for runs whose settings are equal, but for those aside; `eval.` is all of these."""
    aside = (*ASIDE, *aside)
    kept = {
        name: x
        for name, x in run.settings.items()
        if not any(
            name == other or other.endswith('.') and name.startswith(other) for other in aside
        )
    }
    return tuple(sorted((name, str(x)) for name, x in kept.items()))


def systems(runs: Sequence[Run]) -> list[System]:
    """Runs grouped by everything but the seed, in the order given.

    A group is named by its strategy if that names no other one, else by its first run. Runs of one
    seed are of different groups: their difference is no spread between seeds.
    """
    groups = {}
    for i, run in enumerate(runs):
        seeded, seed = key(run), run.settings.get('seed')
        again = sum(key(x) == seeded and x.settings.get('seed') == seed for x in runs[:i])
        apart = (seeded, again) if 'seed' in run.settings else run.name
        groups.setdefault(apart, []).append(run)
    called = [strategy(group[0]) for group in groups.values()]
    unique = all(called) and len(set(called)) == len(called) and len(called) > 1
    found = []
    for name, group in zip(called, groups.values(), strict=True):
        label = name if unique else group[0].name
        trees = {x: _tree(group, x) for x in benchmarks(group)}
        found.append(System(label if len(group) == 1 else f'{label} ×{len(group)}', group, trees))
    return found


def _tree(group: Sequence[Run], benchmark: str) -> dict[str, dict]:
    numbers = [run.results[benchmark].numbers for run in group if benchmark in run.results]
    return {name: _mean([x[name] for x in numbers]) for name in results.BREAKDOWNS}


def _mean(trees: list[dict]) -> dict:
    keys = dict.fromkeys(key for tree in trees for key in tree)
    merged = {}
    for key in keys:
        found = [tree[key] for tree in trees if key in tree]
        merged[key] = _mean(found) if isinstance(found[0], dict) else float(np.mean(found))
    return merged


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings in which runs differ, as far as each of them tells its settings."""
    told = [run for run in runs if 'seed' in run.settings]
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values = {str(run.settings[name]) for run in runs if name in run.settings}
        values |= {str(run.settings.get(name, '')) for run in told}
        if len(values) > 1 and name != 'name':
            found.append(name)
    return found
