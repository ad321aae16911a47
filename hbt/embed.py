"""Embeds every line of a text file by a model, into the rows of a .npy file."""

import pathlib

from absl import flags

from hbt.models import embedder, embedding_file
from hbt.utils import cli


def main(_) -> None:
    args = flags.FLAGS
    source, out = pathlib.Path(args.input), pathlib.Path(args.out)
    options = args.kind, args.batch_size, args.dtype, args.dim
    embedding_file.embed_file(args.model, source, out, *options)


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory or hub name')
    flags.DEFINE_string('input', None, 'file of texts, one a line, plain or gzip')
    flags.DEFINE_string('out', None, '.npy file; row i is the embedding of line i')
    flags.DEFINE_enum('kind', '', list(embedder.KINDS), 'whose prompt precedes every text')
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.DEFINE_string('dtype', 'float32', 'type of the computation')
    flags.DEFINE_integer('dim', None, 'only so many first dimensions, normalised; none: all')
    flags.mark_flags_as_required(['model', 'input', 'out'])
    cli.run(main)
