"""Command line: a model and a store -> the store with the model's own hard negatives.

Hides which passages a query may not have as negatives, and what of the store stays as it is. The
same command on a later checkpoint refreshes them. A search that was finished before a kill is kept.
"""

import pathlib

from absl import flags

from hbt import config
from hbt.data import store, tokenizer_files
from hbt.models import embedder
from hbt.training import hard_negatives, run_dir
from hbt.utils import cli


def main(_) -> None:
    given = flags.FLAGS
    model, step = run_dir.load_model(given.workdir, given.model, given.step)
    c = model.config
    s = store.open_store(given.store or config.store_path(c))
    tokenizer_files.check_same_tokenizer(s.path, model.tokenizer, given.model or given.workdir)
    c.eval.batch_size = given.batch_size
    setting = hard_negatives.Setting(given.count, given.depth, given.margin)
    name = given.model or f'{given.workdir} at step {step}'
    name += f', {embedder.fingerprint(model)}'
    out = pathlib.Path(given.out)
    mined = hard_negatives.mine(c, model.params, s, out, setting, name)
    print(hard_negatives.format_counts(mined.manifest))


if __name__ == '__main__':
    default = hard_negatives.Setting()
    flags.DEFINE_string('workdir', None, 'a run')
    flags.DEFINE_string('step', 'latest', 'its checkpoint: latest, best, or a kept step')
    flags.DEFINE_string('model', None, 'or a model directory or hub name')
    flags.DEFINE_string('store', None, 'store whose passages are searched; of a run, its own')
    flags.DEFINE_string('out', None, 'store to write')
    flags.DEFINE_integer('count', default.count, 'negatives of a group in a language, at most')
    flags.DEFINE_integer('depth', default.depth, 'best passages that are looked at')
    flags.DEFINE_float('margin', default.margin, 'least distance to the cosine of the positive')
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.mark_flags_as_required(['out'])
    cli.run(main)
