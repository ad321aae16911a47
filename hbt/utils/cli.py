"""What a person sees of a run: progress bars, metrics.jsonl, TensorBoard, one-line errors.

Hides the writers; silent on all processes but the first. Called by every program.
"""

import sys

from absl import app, flags, logging


def run(main, check=lambda argv: None) -> None:
    """Runs `check(argv)`, then `main(argv)` with the flags parsed.

    An error of the user ends in one line on stderr and exit code 2; with -v=1, in its traceback.
    """

    logging.set_verbosity(logging.WARNING)

    def guarded(argv):
        try:
            main(argv)
        except (ValueError, OSError) as error:
            if flags.FLAGS.verbosity > 0:
                raise
            stop(error)

    def parse(argv):
        try:
            check(argv)
            return flags.FLAGS(argv)
        except (flags.Error, ValueError, OSError) as error:
            # A config file that fails comes with its traceback; its last line says why.
            head, *lines = str(error).strip().split('Traceback (most recent call last)')
            stop(head + lines[-1].splitlines()[-1] if lines else head)

    app.run(guarded, flags_parser=parse)


def stop(error) -> None:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
