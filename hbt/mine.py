"""Mines hard negatives: a model and a store -> the store with the negatives that the model finds.

Run it again with a later checkpoint to refresh them.
"""

import dataclasses
import pathlib

from absl import flags

from hbt import config
from hbt.data import build, store, tokenizer_files
from hbt.models import embedder
from hbt.training import hard_negatives, run_dir
from hbt.utils import cli, log


def main(_) -> None:
    args = flags.FLAGS
    with log.activity(f'{args.model or args.workdir}: loading the model'):
        model, step = run_dir.load_model(args.workdir, args.model, args.step)
    c = model.config
    s = store.open_store(args.store or config.store_path(c))
    tokenizer_files.check_same_tokenizer(s.path, model.tokenizer, args.model or args.workdir)
    c.eval.batch_size = args.batch_size
    names = (x.name for x in dataclasses.fields(hard_negatives.Settings))
    settings = hard_negatives.Settings(**{x: args[x].value for x in names})
    name = args.model or f'{args.workdir} at step {step}'
    name += f', {embedder.fingerprint(model)}'
    out = pathlib.Path(args.out)
    mined = hard_negatives.mine_negatives(c, model.params, s, out, settings, name)
    print(hard_negatives.format_counts(mined.manifest))
    print(build.describe_store(mined))


if __name__ == '__main__':
    default = hard_negatives.Settings()
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('step', 'latest', 'of the run: latest, best, or the number of a kept step')
    flags.DEFINE_string('model', None, 'or: a model directory, or the name of one on the hub')
    flags.DEFINE_string('store', None, 'store whose passages are searched; none: that of the run')
    flags.DEFINE_string('out', None, 'directory of the new store')
    flags.DEFINE_integer('count', default.count, 'negatives of a group in a language, at most')
    flags.DEFINE_integer('depth', default.depth, 'best passages that are looked at')
    flags.DEFINE_float('margin', default.margin, 'least distance to the cosine of the positive')
    flags.DEFINE_float(
        'max_positive_share',
        default.max_positive_share,
        'of the cosine of the positive that a negative may have, such as .95; none: any',
    )
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.mark_flags_as_required(['out'])
    cli.run(main)
