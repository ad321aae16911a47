"""Command line: evaluated runs -> tables and figures, as a page, Markdown, LaTeX and CSV.

python -m hbt.report RUN [RUN ...] --out=DIR
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from hbt.reporting import comparison, compose, experiments
from hbt.utils import cli


def main(argv: Sequence[str]) -> None:
    given = flags.FLAGS
    if len(argv) < 2:
        raise ValueError('expected RUN [RUN ...] --out=DIR, got no run')
    if not given.out:
        raise ValueError('--out: expected the folder that the report goes to, got none')
    measures = [comparison.measure(x) for x in given.measure] or comparison.MAIN
    found = experiments.load_runs(argv[1:])
    folder = pathlib.Path(given.out)
    compose.write(folder, given.title, compose.make(found, given.in_domain, measures))
    print(folder / compose.PAGE)


if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'folder of the report; an older report there is replaced')
    flags.DEFINE_string('title', 'Multilingual retrieval', 'heading of the report')
    flags.DEFINE_multi_string(
        'in_domain', [], 'repeatable; a benchmark of the training domain, against all others'
    )
    flags.DEFINE_multi_string(
        'measure', [], 'repeatable; SETTING.METRIC to compare, such as mono.mrr@10'
    )
    cli.run(main, positional='RUN ...')
