"""Command line: question-answer pairs of one language -> parallel groups over many.

Hides sentences, shards and what of a translation is not kept. What was done before a kill is kept,
and the output appears only when it is whole. Its output is an input of `prepare`.
"""

import pathlib

from absl import flags

from hbt.data.curation import translation
from hbt.data.readers import registry, schema
from hbt.utils import cli


def main(_) -> None:
    given = flags.FLAGS
    reader = registry.open_sources([given.input])[0]
    if isinstance(reader, schema.CollectionSource):
        raise ValueError(f'--input: expected a source of groups, got the collection {given.input}')
    setting = translation.Setting(
        given.source,
        tuple(given.languages),
        tuple(given.engine),
        given.shard,
        given.ratio,
        tuple(given.filters),
    )
    print(translation.table(translation.translate(reader, pathlib.Path(given.out), setting)))


if __name__ == '__main__':
    flags.DEFINE_string('input', None, 'groups: what --input of hbt.prepare takes')
    flags.DEFINE_string('out', None, 'file to write, .jsonl.gz')
    flags.DEFINE_string('source', 'en', 'language that is translated')
    flags.DEFINE_list('languages', None, 'languages to translate to')
    flags.DEFINE_multi_string(
        'engine', None, '[LANGUAGE=]ctranslate2:DIR or command:PROGRAM, with {source} and {target}'
    )
    flags.DEFINE_integer('shard', 1000, 'groups that are translated and saved at a time')
    flags.DEFINE_float('ratio', 3.0, 'most that a text may be longer than its translation, or less')
    flags.DEFINE_list('filters', list(translation.FILTERS), 'what a translation must pass')
    flags.mark_flags_as_required(['input', 'out', 'languages', 'engine'])
    cli.run(main)
