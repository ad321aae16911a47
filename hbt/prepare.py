"""Prepares a store of tokens from sources of parallel text.

    python -m hbt.prepare --input=faq.jsonl.gz --tokenizer=xlm-roberta-base --out=stores/faq

Run the same command again to resume one that was interrupted.
"""

from absl import flags

from hbt import config
from hbt.data import build
from hbt.data.curation import checks, cleaning, hold_out
from hbt.data.readers import registry
from hbt.evaluation import benchmarks
from hbt.sampling import repetition
from hbt.utils import cli, settings

_DATA = ('query_prefix', 'passage_prefix', 'query_length', 'passage_length')
_CLEANING = tuple(settings.entries(checks.CleaningConfig()))


def main(_) -> None:
    args = flags.FLAGS
    data = config.Data(tokenizer=args.tokenizer, **{x: args[x].value for x in _DATA})
    cleaning_config = checks.CleaningConfig(**{x: args[x].value for x in _CLEANING})
    cleaning_config.leakage = tuple(cleaning_config.leakage)
    banned = benchmarks.texts_to_decontaminate
    held_out = hold_out.Settings(args.hold_out, args.hold_out_seed) if args.hold_out else None
    options = (args.processes, 'fork', cleaning_config, banned, args.beam, held_out)
    store = build.build_store(data, args.out, args.input, *options)
    print(build.format_counts(store.manifest))
    if 'cleaning' in store.manifest:
        counts = {entry['name']: entry['cleaning'] for entry in store.manifest['datasets']}
        print(cleaning.format_counts(counts))
        print(f'{store.path}/cleaning.tsv')
    if held_out:
        print(hold_out.format_counts(store.manifest['hold_out']['counts'], store.path))
    for line in repetition.describe_store(store, config.Config().batch_size):
        print(line)
    print(build.describe_store(store))


def _define_flags(defaults, names: tuple[str, ...]) -> None:
    define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for name in names:
        value, doc, allowed = settings.entries(defaults)[name]
        values = ', '.join(filter(None, allowed)) if isinstance(value, str) else ''
        kind = define.get(type(value), flags.DEFINE_multi_string)
        kind(name, value, f'{doc}: {values}' if values else doc)


if __name__ == '__main__':
    __doc__ += f'\n{registry.format_help()}\n'  # which the help prints
    flags.DEFINE_multi_string('input', None, 'source of texts, in one of the forms above; repeat')
    flags.DEFINE_string('tokenizer', None, 'hub name, directory or tokenizer.json')
    flags.DEFINE_string('out', None, 'directory of the store')
    _define_flags(config.Data(), _DATA)
    flags.DEFINE_integer('processes', 0, 'processes that tokenise; 0: as many as cores')
    flags.DEFINE_string('beam', '', 'options of Apache Beam, as --runner=..., to tokenise there')
    _define_flags(checks.CleaningConfig(), _CLEANING)
    flags.DEFINE_integer(
        'hold_out', 0, 'groups to leave out and to write to OUT.held_out.jsonl.gz', lower_bound=0
    )
    flags.DEFINE_integer('hold_out_seed', 0, 'of the draw of these groups')
    flags.mark_flags_as_required(['input', 'tokenizer', 'out'])
    cli.run(main)
