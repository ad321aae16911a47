"""Command line: sources of parallel text -> a store of tokens.

Hides the order of the work: what was done before a kill is kept, and a store appears only when it
is whole. `main` calls `prepare` when the store of a config is missing.
"""

import dataclasses

from absl import flags

from hbt import config
from hbt.data import build
from hbt.data.curation import checks, cleaning
from hbt.evaluation import benchmarks
from hbt.utils import cli


def main(_) -> None:
    given = flags.FLAGS
    data = config.Data(
        tokenizer=given.tokenizer,
        query_prefix=given.query_prefix,
        passage_prefix=given.passage_prefix,
        query_length=given.query_length,
        passage_length=given.passage_length,
    )
    names = [field.name for field in dataclasses.fields(checks.CleaningConfig)]
    choices = checks.CleaningConfig(**{name: getattr(given, name) for name in names})
    choices.leakage = tuple(choices.leakage)
    made = build.build_store(
        data,
        given.out,
        given.input,
        given.processes,
        'fork',
        choices,
        benchmarks.texts_to_decontaminate,
        given.beam,
    )
    print(build.format_counts(made.manifest))
    if 'cleaning' in made.manifest:
        counts = {entry['name']: entry['cleaning'] for entry in made.manifest['datasets']}
        print(cleaning.table(counts))


if __name__ == '__main__':
    default = config.Data()
    flags.DEFINE_multi_string(
        'input', None, 'JSONL file (plain or gzip), FORMAT:option=value,... or cldr:GROUPS; repeat'
    )
    flags.DEFINE_string('tokenizer', None, 'hub name, directory or tokenizer.json')
    flags.DEFINE_string('out', None, 'directory of the store')
    flags.DEFINE_string('query_prefix', default.query_prefix, 'put before every query')
    flags.DEFINE_string('passage_prefix', default.passage_prefix, 'put before every passage')
    flags.DEFINE_integer('query_length', default.query_length, 'tokens kept of a query')
    flags.DEFINE_integer('passage_length', default.passage_length, 'tokens kept of a passage')
    flags.DEFINE_integer('processes', 0, 'processes that tokenise; 0: as many as cores')
    flags.DEFINE_string('beam', '', 'options of Apache Beam, as --runner=..., to tokenise there')
    flags.DEFINE_enum('normalise', '', ['', 'NFC', 'NFKC'], 'Unicode form of all texts')
    drop = 'off, count, or drop'
    flags.DEFINE_string('exact', 'off', f'groups that are equal to an earlier one: {drop}')
    flags.DEFINE_string('near', 'off', f'groups that are nearly an earlier one: {drop}')
    flags.DEFINE_float('similarity', 0.8, 'of query and of passage, from which groups are near')
    flags.DEFINE_string('languages', 'off', f'texts in another language than stated: {drop}')
    flags.DEFINE_string('lengths', 'off', f'texts outside of the limits that follow: {drop}')
    flags.DEFINE_string('query_chars', '2:1000', 'least and most characters of a query')
    flags.DEFINE_string('passage_chars', '2:20000', 'least and most characters of a passage')
    flags.DEFINE_multi_string('leakage', [], 'BENCHMARK:FOLDER whose texts must not be there')
    flags.DEFINE_string('leaks', 'refuse', 'what to do about those: refuse, drop, or count')
    flags.mark_flags_as_required(['input', 'tokenizer', 'out'])
    cli.run(main)
