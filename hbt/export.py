"""Writes a training run as a model directory, or a smaller one of a model.

The directory is for sentence-transformers, transformers and hbt. `--languages` or `--corpus` leaves
out the token embeddings, 69 % of XLM-R base, that these languages or texts never use. `--dim`
leaves out the last dimensions of the embeddings.
"""

import pathlib

from absl import flags

from hbt.training import model_export
from hbt.utils import cli


def main(_) -> None:
    args = flags.FLAGS
    for name in ('step', 'license'):
        if args.model and args[name].present:
            raise ValueError(f'--{name}: expected with --workdir only, got --model')
    source, out = (args.workdir, args.model, args.step), pathlib.Path(args.out)
    vocabulary = (args.languages or (), args.corpus or ())
    model_export.export_model(*source, out, args.license, *vocabulary, args.dim)


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of the training run')
    flags.DEFINE_string('model', None, 'instead of a run: model directory or hub name to reduce')
    flags.DEFINE_string('out', None, 'directory to write')
    flags.DEFINE_string('step', 'best', 'of the run: best, latest, or the number of a step')
    flags.DEFINE_string('license', '', 'licence of the model, as the hub names it: apache-2.0')
    flags.DEFINE_list('languages', None, 'keep the tokens in the scripts of these: en,de,ja')
    flags.DEFINE_multi_string('corpus', None, 'keep the tokens of this file of texts; repeatable')
    flags.DEFINE_integer('dim', None, 'only so many first dimensions, normalised; none: all')
    flags.mark_flags_as_required(['out'])
    cli.run(main)
