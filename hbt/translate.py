"""Translates question-answer pairs of one language into parallel groups over many.

    python -m hbt.translate --input=a.jsonl --out=b.jsonl.gz --languages=de --engine=ctranslate2:DIR

Run the same command again to resume one that was interrupted. The output is an input of prepare.
"""

import pathlib

from absl import flags

from hbt.data.curation import translation
from hbt.data.readers import registry, schema
from hbt.utils import cli


def main(_) -> None:
    args = flags.FLAGS
    (source,) = registry.open_sources([args.input])
    if isinstance(source, schema.CollectionSource):
        raise ValueError(f'--input: expected a source of groups, got the collection {args.input}')
    languages, engines, filters = map(tuple, (args.languages, args.engine, args.filters))
    c = translation.TranslationConfig(
        args.source, languages, engines, args.shard, args.ratio, filters
    )
    counts = translation.translate_source(source, pathlib.Path(args.out), c)
    print(translation.format_counts(counts))
    print(f'{args.out}, {args.out}.report.json')


if __name__ == '__main__':
    flags.DEFINE_string('input', None, 'groups: what --input of hbt.prepare takes')
    flags.DEFINE_string('out', None, 'file to write, .jsonl.gz')
    flags.DEFINE_string('source', 'en', 'language that is translated')
    flags.DEFINE_list('languages', None, 'languages to translate to')
    flags.DEFINE_multi_string(
        'engine',
        None,
        '[LANGUAGE=]ctranslate2:DIR, command:PROGRAM or dictionary:INPUT+INPUT, with {source} and '
        '{target}',
    )
    flags.DEFINE_integer('shard', 1000, 'groups that are translated and saved at a time')
    flags.DEFINE_float('ratio', 3.0, 'times that a text may be longer or shorter, at most')
    flags.DEFINE_list('filters', list(translation.FILTERS), 'what a translation must pass')
    flags.mark_flags_as_required(['input', 'out', 'languages', 'engine'])
    cli.run(main)
