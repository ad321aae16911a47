"""Searches a corpus, which it embeds once, by a model: from the command line or a file of queries.

With neither --query nor --queries it answers the lines of its input, one query a line.
"""

import pathlib
import shutil
import sys

from absl import flags

from hbt.evaluation import debias
from hbt.serving import answers, dual_encoder, entries
from hbt.training import loop
from hbt.utils import cli, log


def main(_) -> None:
    args = flags.FLAGS
    check_flags(args)
    loop.keep_compiled()
    with log.activity(f'{args.model}: loading the model'):
        options = args.batch_size, args.dtype, args.dim
        model = dual_encoder.load_model(args.model, args.step, *options)
    if args.corpus:
        index = model.build_index(args.corpus, args.index)
    else:
        index = model.open_index(args.index)
    if args.debias:
        removal = debias.load_removal_of(model.fingerprint, pathlib.Path(args.debias))
        index = index.remove_language(removal)

    def search(queries):
        return model.search(queries, index, args.k, args.languages or (), args.query_language)

    if args.queries:
        queries = list(entries.iter_entries(pathlib.Path(args.queries)))
        with log.activity(f'searching for {len(queries):,} queries'):
            hits = search([x.text for x in queries])
        answers.write_run(pathlib.Path(args.out), [x.id for x in queries], hits)
        print(f'{args.out}: {len(queries):,} queries')
        return
    for query in args.query or iter_typed():
        if args.query and len(args.query) > 1:
            print(query)
        with log.activity('searching'):
            hits = search(query)
        # Of the terminal; 80 if there is none.
        print(answers.format_hits(hits, shutil.get_terminal_size().columns), flush=True)


def check_flags(args) -> None:
    """ValueError for flags that do not go together."""
    if not (args.corpus or args.index):
        raise ValueError('expected --corpus=FILE, or --index=DIR of an earlier call, got neither')
    if bool(args.queries) != bool(args.out):
        name, other = ('queries', 'out') if args.queries else ('out', 'queries')
        raise ValueError(f'--{name}: expected --{other} with it, got none')
    if args.queries and args.query:
        raise ValueError('expected --query or --queries, got both')
    if bool(args.debias) != bool(args.query_language):
        name, other = ('debias', 'query_language')
        name, other = (name, other) if args.debias else (other, name)
        raise ValueError(f'--{name}: expected --{other} with it, got none')


def iter_typed():
    """Yields the queries that are typed, one a line, until the end of the input."""
    prompt = 'query (Ctrl-D ends)> ' if sys.stdin.isatty() else ''
    print(prompt, end='', flush=True)
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
        print(prompt, end='', flush=True)


if __name__ == '__main__':
    flags.DEFINE_string('model', None, 'model directory, hub name, or directory of a training run')
    flags.DEFINE_string('step', None, 'of a run: best (if none is given), latest, or a number')
    flags.DEFINE_string('corpus', None, 'JSON lines, `id TAB text` or one text a line; or gzip')
    flags.DEFINE_string('index', None, 'where it is embedded; none: CORPUS.index')
    flags.DEFINE_multi_string('query', None, 'a query; repeatable')
    flags.DEFINE_string('queries', None, 'file of queries, in the forms of a corpus')
    flags.DEFINE_string('out', None, 'TREC run of --queries to write')
    flags.DEFINE_integer('k', 10, 'how many of the best documents')
    flags.DEFINE_list('languages', None, 'only documents in these: de,en')
    flags.DEFINE_string('debias', None, 'debias.npz of hbt.evaluate, for this model')
    flags.DEFINE_string('query_language', None, 'of the queries, with --debias')
    flags.DEFINE_integer('batch_size', 256, 'texts encoded at a time, over all devices')
    flags.DEFINE_string('dtype', 'float32', 'type of the computation')
    flags.DEFINE_integer('dim', None, 'only so many first dimensions, normalised; none: all')
    flags.mark_flags_as_required(['model'])
    cli.run(main)
