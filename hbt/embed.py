"""Texts in, embeddings out: tokenised, sorted by length, batched, split over the devices.

    model = embed.load('DIR')
    queries = model(['What is a dual encoder?'], 'query')
    passages = model(['A dual encoder embeds ...'], 'passage')

Hides padding, batching and the order of the computation. Called by `evaluate`; a program too.
"""

import functools
import pathlib

from absl import flags

from hbt.models import embedder, model_dir
from hbt.utils import cli


def main(_) -> None:
    given = flags.FLAGS
    out = pathlib.Path(given.out)
    if out.suffix != '.npy':
        raise ValueError(f'--out: expected a name that ends with .npy, got {given.out}')
    model = model_dir.load_model(given.model)
    embed = embedder.make_embedder(model, given.batch_size, given.dtype)
    about = {'model': embedder.fingerprint(model), 'kind': given.kind, 'dtype': given.dtype}
    embedder.write(functools.partial(embed, kind=given.kind), pathlib.Path(given.input), out, about)


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory or hub name')
    flags.DEFINE_string('input', None, 'file of texts, one a line, plain or gzip')
    flags.DEFINE_string('out', None, '.npy file; row i is the embedding of line i')
    flags.DEFINE_enum(
        'kind', '', ['', *embedder.KINDS], "whose prompt goes before every text, if any's"
    )
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.DEFINE_string('dtype', 'float32', 'type of the computation')
    flags.mark_flags_as_required(['model', 'input', 'out'])
    cli.run(main)
