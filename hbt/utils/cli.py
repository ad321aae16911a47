"""The command line of every program: help, settings files, and errors in one line."""

import json
import pathlib
import re
import sys

from absl import app, flags, logging

from hbt.utils import text_table

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'


def run(main, check=lambda argv: None, positional: str = '') -> None:
    """Parses the flags and calls `main` with the program's name and its positional arguments.

    An error of the user ends in one line on stderr and exit code 2; with -v=1, in its traceback.
    `check` gets all arguments before they are parsed, and raises ValueError to refuse them;
    `positional` names the positional arguments for the help; without it there are none.
    """
    logging.set_verbosity(logging.WARNING)

    def guarded(argv):
        try:
            main(argv)
        except (ValueError, OSError) as error:
            if flags.FLAGS.verbosity > 0:
                raise
            _stop(error)

    def parse(argv):
        if {'-h', '-help', '--help'} & {*argv[1:]}:
            print(_format_help(positional))
            sys.exit(0)
        try:
            if not positional:
                argv = _resolve_positional(argv)
            argv = [resolve_config(word) for word in argv]
            check(argv)
            rest = flags.FLAGS(argv)
            if rest[1:] and not positional:
                raise ValueError(f'expected flags only, got the argument {rest[1]!r}')
            return rest
        except (flags.Error, ValueError, OSError) as error:
            # A config file that fails comes with its traceback; its last line says why.
            head, *lines = str(error).strip().split('Traceback (most recent call last)')
            head = re.sub(r'.*Flag (--\w+) must have a value.*', r'\1: expected a value', head)
            _stop(head + lines[-1].splitlines()[-1] if lines else head)

    app.run(guarded, flags_parser=parse)


def _resolve_positional(argv: list[str]) -> list[str]:
    """Takes the first argument that belongs to no flag as --config, if the program has that."""
    result, has_config = list(argv), any(x.startswith(('--config=', '-config=')) for x in argv)
    for i, (before, word) in enumerate(zip(argv, argv[1:], strict=False), 1):
        if word.startswith('-') or (before.startswith('-') and '=' not in before):
            continue  # a flag, or its value
        if has_config or 'config' not in flags.FLAGS:
            raise ValueError(f'expected flags only, got the argument {word!r}')
        result[i], has_config = f'--config={word}', True
    return result


def resolve_config(word: str) -> str:
    """Replaces `--config=demo`, the name of a shipped experiment, by the path of its file."""
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


def _format_help(positional: str) -> str:
    """The docstring of the program and a line for each of its own flags."""
    program = sys.modules['__main__']
    rows = []
    for flag in flags.FLAGS.get_flags_for_module(sys.argv[0]):
        meaning = flag.help.split(';\n')[0]  # absl adds how a flag is repeated
        if flag.default not in (None, '', [], False):
            meaning += f' (default {json.dumps(flag.default)})'
        rows.append((f'  --{flag.name}', meaning))
        if flag.name == 'config':
            rows.append(('  --config.NAME', 'a setting, as --config.steps=100: docs/settings.md'))
    name = program.__spec__.name if program.__spec__ else sys.argv[0]
    usage = f'python -m {name} {f"{positional} " if positional else ""}--FLAG=VALUE ...'
    return f'{(program.__doc__ or "").strip()}\n\n{usage}\n\n{text_table.format_table((), rows)}'


def _stop(error) -> None:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
