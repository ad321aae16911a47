"""Benchmarks -> numbers, during training and as a command line on a finished run.

Assembles tokeniser, encoder, search and metrics. `main` calls `make` and `save`.
"""

import dataclasses
import pathlib
import shutil

from absl import flags

from hbt import config
from hbt.evaluation import bias, debias, evaluator
from hbt.models import embedder
from hbt.training import run_dir
from hbt.utils import cli, sharding


def main(_) -> None:
    given = flags.FLAGS
    if given.debias and not given.out:
        raise ValueError('--debias: expected --out with it: these are not the results of the run')
    if given.model and not given.out:
        raise ValueError('--model: expected --out with it, got none')
    fits = given.debias and not given.debias.endswith('.npz')
    if fits and given.model and not given.store:
        raise ValueError('--debias: expected --store=DIR with texts to fit it on, got none')
    model, step = run_dir.load_model(given.workdir, given.model, given.step)
    folder = pathlib.Path(given.out or f'{given.workdir}/results/{step}')
    c = model.config
    names = tuple(given.benchmark or c.eval.benchmarks)
    if not names:
        raise ValueError('--benchmark: expected at least one, got none')
    if given.run_file and len(names) != 1:
        raise ValueError(f'--run_file: expected one --benchmark, got {", ".join(names)}')
    c.eval = dataclasses.replace(c.eval, benchmarks=names, root=given.data or c.eval.root)
    loaded = evaluator.load_benchmarks(c.eval)
    fingerprint, removal = embedder.fingerprint(model), None
    if given.debias:
        root = given.store or config.store_path(c)
        removal = evaluator.fit_removal(given.debias, model, fingerprint, loaded, root, folder)
    keep = evaluator.Keep(
        folder / 'embeddings', {'model': fingerprint, 'debias': removal and removal.about}
    )
    run = evaluator.make_evaluation(
        c, model.tokenizer, sharding.make_mesh(), loaded, given.run_depth, removal, keep
    )
    for result in run(model.params).values():
        result.numbers['model'] = given.model or given.workdir
        if given.run_file:
            numbers = evaluator.write_run(result, pathlib.Path(given.run_file))
            result.numbers['run'] = {'file': given.run_file} | numbers
        evaluator.save_result(result, folder, step)
        print(evaluator.format_result(result.numbers, step))
    shutil.rmtree(keep.folder)


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('model', None, 'or: a model directory, or the name of one on the hub')
    flags.DEFINE_multi_string('benchmark', None, "repeatable; none: those of the run's config")
    flags.DEFINE_string('data', None, "folder of the benchmark's files; none: eval.root of the run")
    flags.DEFINE_string('out', None, 'where <benchmark>.json goes; none: WORKDIR/results/<step>')
    flags.DEFINE_string('step', 'latest', 'latest, best, or the number of a kept step')
    flags.DEFINE_string('debias', None, f'{debias.KINDS}; or the debias.npz of an earlier call')
    flags.DEFINE_string('store', None, "training texts that it is fitted on; none: the run's")
    flags.DEFINE_string('run_file', None, 'writes the pooled ranking as a TREC run, .qrels beside')
    flags.DEFINE_integer('run_depth', bias.SHARE_CUTOFFS[-1], 'documents a query in the run file')
    cli.run(main)
