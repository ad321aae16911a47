"""Evaluates a training run or a model on benchmarks."""

import dataclasses
import pathlib

from absl import flags

from hbt import config
from hbt.evaluation import debias, evaluator
from hbt.training import run_dir
from hbt.utils import cli, log


def main(_) -> None:
    args = flags.FLAGS
    for name in ('debias', 'dim'):
        if args[name].value not in (None, '') and not args.out:
            expected = '--out with it: these are not the results of the run'
            raise ValueError(f'--{name}: expected {expected}')
    if args.model and not args.out:
        raise ValueError('--model: expected --out with it, got none')
    if args.debias and not args.debias.endswith('.npz') and args.model and not args.store:
        raise ValueError('--debias: expected --store=DIR with texts to fit it on, got none')
    with log.activity(f'{args.model or args.workdir}: loading the model'):
        model, step = run_dir.load_model(args.workdir, args.model, args.step, args.dim)
    c = model.config
    folder = pathlib.Path(args.out or f'{args.workdir}/results/{step}')
    names = tuple(dict.fromkeys(args.benchmark or c.eval.benchmarks))
    if not names:
        raise ValueError('--benchmark: expected at least one, got none')
    if args.run_file and len(names) != 1:
        raise ValueError(f'--run_file: expected one --benchmark, got {", ".join(names)}')
    c.eval = dataclasses.replace(c.eval, benchmarks=names, root=args.data or c.eval.root)
    suite, removal = evaluator.load_benchmarks(c.eval), None
    if args.debias:
        languages = sorted({x for benchmark in suite for x in benchmark.languages})
        store = args.store or config.store_path(c)
        removal = debias.open_removal(args.debias, model, languages, store, folder)
    name = args.model or args.workdir
    evaluator.evaluate_model(
        model, suite, folder, step, name, removal, args.run_file, args.run_depth
    )


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of a training run')
    flags.DEFINE_string('model', None, 'or: a model directory, or the name of one on the hub')
    flags.DEFINE_multi_string('benchmark', None, "repeatable; none: those of the run's config")
    flags.DEFINE_string('data', None, "folder of the benchmark's files; none: eval.root of the run")
    flags.DEFINE_string('out', None, 'where <benchmark>.json goes; none: WORKDIR/results/<step>')
    flags.DEFINE_string('step', 'latest', 'latest, best, or the number of a kept step')
    flags.DEFINE_integer('dim', None, 'only so many first dimensions, normalised; none: all')
    flags.DEFINE_string('debias', None, f'{debias.KINDS}; or the debias.npz of an earlier call')
    flags.DEFINE_string('store', None, "texts to fit the removal on; none: the run's store")
    flags.DEFINE_string('run_file', None, 'writes the pooled ranking as a TREC run, .qrels beside')
    flags.DEFINE_integer('run_depth', evaluator.DEPTH, 'documents of a query in the run file')
    cli.run(main)
