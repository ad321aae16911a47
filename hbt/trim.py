"""Command line: a model -> the same model without the rows of its vocabulary that are never used.

69 % of XLM-R base are token embeddings. On text that the kept pieces cover the trimmed model gives
the same vectors.
"""

import pathlib

from absl import flags

from hbt.models import model_dir, vocab_trim
from hbt.utils import cli, log


def main(_) -> None:
    given = flags.FLAGS
    if bool(given.corpus) == bool(given.languages):
        raise ValueError('--corpus, --languages: expected one of them, got both or none')
    model = model_dir.load_model(given.model)
    if given.corpus:
        used, why = (
            vocab_trim.used_by_texts(model, given.corpus),
            'in the texts that it was trimmed for',
        )
    else:
        used = vocab_trim.used_by_languages(model.tokenizer, given.languages)
        why = f'in the scripts of {", ".join(given.languages)}'
    trimmed = vocab_trim.trim(model, used)
    sizes = [x.config.encoder.vocab_size for x in (model, trimmed)]
    text = f'{given.model} without the token embeddings that are not used {why}: {sizes[1]} of'
    card = f'# {pathlib.Path(given.out).name}\n\n{text} {sizes[0]} are kept.\n'
    model_dir.write_model(pathlib.Path(given.out), trimmed, card)
    log.info(f'{given.out}: {sizes[1]} of {sizes[0]} token embeddings')


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory or hub name')
    flags.DEFINE_string('out', None, 'directory to write')
    flags.DEFINE_multi_string('corpus', None, 'file of texts, one a line; repeatable')
    flags.DEFINE_list('languages', None, 'keep all pieces in the scripts of these: en,de,ja')
    flags.mark_flags_as_required(['model', 'out'])
    cli.run(main)
