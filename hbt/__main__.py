"""Lists the programs: python -m hbt."""

import ast
import pathlib

from hbt.utils import text_table

# In the order of use.
PROGRAMS = 'prepare translate plan main mine evaluate embed search export report'.split()


def list_programs() -> str:
    """Name and first line of the docstring of each program, as text."""
    rows = []
    for name in PROGRAMS:
        source = pathlib.Path(__file__).with_name(f'{name}.py').read_text('utf-8')
        docstring = ast.get_docstring(ast.parse(source))
        rows.append((f'  python -m hbt.{name}', docstring.splitlines()[0]))
    return 'Programs, each with --help:\n\n' + text_table.format_table((), rows)


if __name__ == '__main__':
    print(list_programs())
