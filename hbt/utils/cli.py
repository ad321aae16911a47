"""What a person sees of a run: progress bars, metrics.jsonl, TensorBoard, one-line errors.

Hides the writers; silent on all processes but the first. Called by every program.
"""

import pathlib
import sys

from absl import app, flags, logging

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'


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
            argv = [resolve_config(word) for word in argv]
            check(argv)
            return flags.FLAGS(argv)
        except (flags.Error, ValueError, OSError) as error:
            # A config file that fails comes with its traceback; its last line says why.
            head, *lines = str(error).strip().split('Traceback (most recent call last)')
            stop(head + lines[-1].splitlines()[-1] if lines else head)

    app.run(guarded, flags_parser=parse)


def resolve_config(word: str) -> str:
    """Replaces `--config=demo`, the name of a shipped experiment, by the path of its file.

    Raises:
      ValueError: neither a file nor a shipped experiment has this name.
    """
    flag, equals, value = word.partition('=')
    name, _, argument = value.partition(':')
    if flag.lstrip('-') != 'config' or not equals or pathlib.Path(name).exists():
        return word
    path = CONFIGS / f'{name.removeprefix("configs/").removesuffix(".py")}.py'
    if not path.is_file():
        paths = sorted(CONFIGS.rglob('*.py'))
        names = ', '.join(x.relative_to(CONFIGS).with_suffix('').as_posix() for x in paths)
        raise ValueError(f'--config: expected a file or one of {names}, got {name!r}')
    return f'--config={path}' + (f':{argument}' if argument else '')


def stop(error) -> None:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
