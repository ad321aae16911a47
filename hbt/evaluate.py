"""Evaluates a training run or a model on benchmarks."""

import dataclasses
import pathlib

from absl import flags

from hbt import config
from hbt.evaluation import debias, evaluator
from hbt.training import run_dir
from hbt.utils import cli


def main(_) -> None:
    f = flags.FLAGS
    if f.debias and not f.out:
        raise ValueError('--debias: expected --out with it: these are not the results of the run')
    if f.model and not f.out:
        raise ValueError('--model: expected --out with it, got none')
    if f.debias and not f.debias.endswith('.npz') and f.model and not f.store:
        raise ValueError('--debias: expected --store=DIR with texts to fit it on, got none')
    model, step = run_dir.load_model(f.workdir, f.model, f.step)
    c = model.config
    folder = pathlib.Path(f.out or f'{f.workdir}/results/{step}')
    names = tuple(dict.fromkeys(f.benchmark or c.eval.benchmarks))
    if not names:
        raise ValueError('--benchmark: expected at least one, got none')
    if f.run_file and len(names) != 1:
        raise ValueError(f'--run_file: expected one --benchmark, got {", ".join(names)}')
    c.eval = dataclasses.replace(c.eval, benchmarks=names, root=f.data or c.eval.root)
    suite, removal = evaluator.load_benchmarks(c.eval), None
    if f.debias:
        languages = sorted({x for benchmark in suite for x in benchmark.languages})
        store = f.store or config.store_path(c)
        removal = debias.open_removal(f.debias, model, languages, store, folder)
    name = f.model or f.workdir
    evaluator.evaluate_model(model, suite, folder, step, name, removal, f.run_file, f.run_depth)


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of a training run')
    flags.DEFINE_string('model', None, 'or: a model directory, or the name of one on the hub')
    flags.DEFINE_multi_string('benchmark', None, "repeatable; none: those of the run's config")
    flags.DEFINE_string('data', None, "folder of the benchmark's files; none: eval.root of the run")
    flags.DEFINE_string('out', None, 'where <benchmark>.json goes; none: WORKDIR/results/<step>')
    flags.DEFINE_string('step', 'latest', 'latest, best, or the number of a kept step')
    flags.DEFINE_string('debias', None, f'{debias.KINDS}; or the debias.npz of an earlier call')
    flags.DEFINE_string('store', None, "texts to fit the removal on; none: the run's store")
    flags.DEFINE_string('run_file', None, 'writes the pooled ranking as a TREC run, .qrels beside')
    flags.DEFINE_integer('run_depth', evaluator.DEPTH, 'documents of a query in the run file')
    cli.run(main)
