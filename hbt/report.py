"""Writes tables and figures that compare evaluated training runs.

As one page, Markdown, LaTeX and CSV. Runs that differ in the seed alone are taken together.
"""

import pathlib

from absl import flags

from hbt.reporting import comparison, compose, experiments, render
from hbt.utils import cli, log


def main(argv: list[str]) -> None:
    args = flags.FLAGS
    if len(argv) < 2:
        raise ValueError('expected RUN_DIR ... --out=DIR, got no run directory')
    if not args.out:
        raise ValueError('--out: expected the folder that the report goes to, got none')
    measures = list(dict.fromkeys(map(comparison.parse_measure, args.measure)))
    folder = pathlib.Path(args.out)
    with log.activity('testing the differences, drawing the figures'):
        loaded = experiments.load_experiments(argv[1:])
        sections = compose.compose_report(loaded, args.in_domain, measures or comparison.MAIN)
        render.write_report(folder, args.title, sections)
    print(folder / render.PAGE)


if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'folder of the report; an older report there is replaced')
    flags.DEFINE_string('title', 'Multilingual retrieval', 'heading of the report')
    flags.DEFINE_multi_string('in_domain', [], 'in-domain benchmark against all others; repeatable')
    flags.DEFINE_multi_string('measure', [], 'SETTING.METRIC to compare (mono.mrr@10); repeatable')
    cli.run(main, positional='RUN_DIR ...')
