"""Command line: a run -> a model directory that sentence-transformers, transformers and hbt load.

Writes the card from what the run recorded: data, settings, results, versions.
"""

import pathlib

from absl import flags

from hbt.training import model_export
from hbt.utils import cli, log


def main(_) -> None:
    given = flags.FLAGS
    out = pathlib.Path(given.out)
    step = model_export.export(pathlib.Path(given.workdir), given.step, out, given.license)
    log.info(f'{out}: step {step} of {given.workdir}')


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('out', None, 'directory to write')
    flags.DEFINE_string('step', 'best', 'best, latest, or the number of a kept step')
    flags.DEFINE_string('license', '', 'licence of the model, as the hub names it: apache-2.0')
    flags.mark_flags_as_required(['workdir', 'out'])
    cli.run(main)
