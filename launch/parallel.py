"""Selects the text of the small experiments: the files that `configs/small` trains on.

python launch/parallel.py DIR OUT                 from DIR/*.jsonl.gz and DIR/parallel/*.jsonl.gz
python launch/parallel.py DIR OUT --only=flores,tatoeba   of these files
                                  --every=4               one group in four
                                  --scarce=el,th          Greek and Thai in one group in 16 only

OUT has files of the same names in the training format, with the languages of XQuAD-R; of the
largest files one group in two or four, as a run draws fewer. Files of HELD_OUT, on which settings
are chosen, are not among them. A file that is there is not written again.
"""

import argparse
import gzip
import itertools
import json
import os
import pathlib
from collections import abc

from hbt.configs.small.start import LANGUAGES
from hbt.data.readers import registry, schema

HELD_OUT = ('pud', 'mgsm', 'udhr')
EVERY = {'freedict': 4, 'person_names': 4, 'wikidata_titles': 2, 'viet_dict': 2, 'sky': 2}
EVERY |= {'csc_places': 2, 'geonames': 2}
SCARCE = 16


def select(group: schema.Group, languages: abc.Sequence[str]) -> dict | None:
    """The group with these languages; None if no pair of two different texts is left."""
    texts = {'query': group.query, 'passage': group.passage}
    sides = {side: {x: y[x] for x in languages if x in y} for side, y in texts.items()}
    if not all(sides.values()) or len(sides['query']) == 1 and sides['query'] == sides['passage']:
        return None
    return {'id': group.id, **sides}


def write(source: pathlib.Path, target: pathlib.Path, every: int, scarce: list[str]) -> None:
    """Writes one group in `every`; of those, one in SCARCE has the languages `scarce`."""
    partial = target.with_name(target.name + '.partial')
    others = [x for x in LANGUAGES if x not in scarce]
    (groups,) = registry.open_sources([str(source)])
    with gzip.open(partial, 'wt', 6) as out:
        for i, group in enumerate(itertools.islice(groups.iter_groups(), 0, None, every)):
            if row := select(group, others if i % SCARCE else LANGUAGES):
                out.write(json.dumps(row, ensure_ascii=False) + '\n')
    os.replace(partial, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dir', type=pathlib.Path)
    parser.add_argument('out', type=pathlib.Path)
    parser.add_argument('--only', default='')
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--scarce', default='')
    args = parser.parse_args()
    sources = sorted([*args.dir.glob('*.jsonl.gz'), *args.dir.glob('parallel/*.jsonl.gz')])
    scarce = [x for x in args.scarce.split(',') if x]
    if unknown := set(scarce) - set(LANGUAGES):
        parser.error(f'--scarce: expected some of {", ".join(LANGUAGES)}, got {min(unknown)}')
    if not sources:
        parser.error(f'{args.dir}: expected files *.jsonl.gz, got none')
    only = [x for x in args.only.split(',') if x]
    names = [x.name.removesuffix('.jsonl.gz') for x in sources]
    if unknown := set(only) - set(names):
        parser.error(f'--only: expected some of {", ".join(names)}, got {min(unknown)}')
    args.out.mkdir(parents=True, exist_ok=True)
    for name, source in zip(names, sources, strict=True):
        target = args.out / source.name
        is_kept = name in only if only else name not in HELD_OUT
        if is_kept and not target.exists():
            write(source, target, args.every * EVERY.get(name, 1), scarce)
            print(target, flush=True)


if __name__ == '__main__':
    main()
