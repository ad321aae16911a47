"""Retrieval benchmarks as three things: queries, documents, and which documents are relevant.

Hides the order of the ids: documents come by id, descending, so that "the smaller index first" is
trec_eval's rule for equal scores, wherever ties are broken. The formats of the files are in the
modules that it names. Called by `evaluate`, and by whoever wants the TREC files.
"""

import os
import pathlib
import re
from collections import abc

from hbt.data.readers import retrieval, synthetic
from hbt.evaluation.benchmarks import assembly, beir, held_out, lareqa, miracl, mtop
from hbt.utils import hub

CLDR_GROUPS = 400  # questions a language
MANY_DOCUMENTS = 200_000
HUB = 'hub'  # as `root`: the data sets below, from the Hugging Face hub or its cache
REPOSITORIES = {  # benchmark -> data sets of the hub, and the files of a language
    'miracl': (
        ('miracl/miracl', 'miracl-v1.0-{}/*-dev.tsv'),
        ('miracl/miracl-corpus', 'miracl-corpus-v1.0-{}/docs-*'),
    ),
    'mr_tydi': (
        ('castorini/mr-tydi', 'mrtydi-v1.1-{}/test.jsonl*'),
        ('castorini/mr-tydi-corpus', 'mrtydi-v1.1-{}/corpus.jsonl*'),
    ),
}


def load_benchmark(name: str, root: str | os.PathLike) -> assembly.Benchmark:
    """Reads the benchmark `name` from the directory `root`.

    `name` may have an argument behind a colon: languages, as in `miracl:sw+yo`; the path, for
    `jsonl:FILE` and `beir:FOLDER`. `root` holds the benchmark's files, or a directory with its name
    (`xquad-r/`) that does; `hub` stands for the Hugging Face hub where that has the benchmark.
    Raises ValueError for an unknown name, for missing or malformed files, and where these do not
    fit each other, as a judgement of an unknown document.
    """
    kind, _, argument = name.partition(':')
    if kind not in BENCHMARKS:
        raise ValueError(f'benchmark: expected one of {", ".join(BENCHMARKS)}, got {name!r}')
    found = BENCHMARKS[kind](kind, argument, pathlib.Path(root))
    return assembly.assemble(name, found)


def texts_to_decontaminate(specs: abc.Iterable[str]) -> abc.Iterator[tuple[str, str]]:
    """(id, text) of the queries and documents of benchmarks, that training data should not hold.

    Args:
      specs: BENCHMARK:FOLDER, as `--leakage` of `hbt.prepare` takes them. Of a benchmark with more
        than MANY_DOCUMENTS, which is a whole Wikipedia, only the relevant documents count.
    """
    for spec in specs:
        name, colon, root = spec.rpartition(':')
        if not colon:
            raise ValueError(f'--leakage: expected BENCHMARK:FOLDER, got {spec!r}')
        benchmark = load_benchmark(name, root)
        yield from zip(benchmark.queries.ids, benchmark.queries.texts, strict=True)
        documents = benchmark.documents
        indices = range(len(documents.ids))
        if len(indices) > MANY_DOCUMENTS:
            indices = sorted(set(benchmark.relevant[benchmark.relevant >= 0].tolist()))
        yield from ((documents.ids[i], documents.texts[i]) for i in indices)


def _lareqa(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    del argument
    return lareqa.read(kind, root)


def _wikipedia(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    reader, known = READERS[kind]
    languages = _languages(argument)
    if str(root) != HUB:
        named = root / kind.replace('_', '-')
        return reader(languages, (named if named.is_dir() else root,))
    miracl.check(languages or known, known, kind)
    wanted = [known[x] for x in languages or known]
    return reader(
        languages,
        tuple(
            hub.dataset_snapshot(repository, tuple(form.format(x) for x in wanted))
            for repository, form in REPOSITORIES[kind]
        ),
    )


def _mtop(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    return mtop.read(kind.removeprefix('mtop_'), _languages(argument), root)


def _beir(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    """A folder under `root`, or the name of a data set of the hub; its judgements may be apart."""
    del kind
    if (root / argument).exists() or not re.fullmatch(r'[\w.-]+/[\w.-]+', argument):
        return beir.read((root / argument,))
    form = ('corpus.jsonl*', 'queries.jsonl*', '*.tsv')
    folder = hub.dataset_snapshot(argument, form)
    if any(folder.rglob('*.tsv')):
        return beir.read((folder,))
    return beir.read((folder, hub.dataset_snapshot(f'{argument}-qrels', form)))


def _languages(argument: str) -> list[str]:
    return [x for x in argument.split('+') if x]


def _cldr(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    """The embedded test groups; nothing is read from `root`."""
    del kind, argument, root
    queries, documents, qrels, parallel = [], [], {}, {}
    for group in synthetic.groups('test', CLDR_GROUPS):
        every = {f'd:{language}:{group["id"]}': 1 for language in synthetic.LANGUAGES}
        for language in synthetic.LANGUAGES:
            query = f'q:{language}:{group["id"]}'
            queries.append((query, language, group['query'][language]))
            documents.append((f'd{query[1:]}', language, group['passage'][language]))
            qrels[query], parallel[query] = every, group['id']
    return retrieval.Collection(queries, documents, qrels, parallel)


READERS = {
    'miracl': (miracl.read, {x: x for x in miracl.LANGUAGES}),
    'mr_tydi': (miracl.read_tydi, miracl.TYDI),
}
BENCHMARKS = {
    'xquad_r': _lareqa,
    'mlqa_r': _lareqa,
    'miracl': _wikipedia,
    'mr_tydi': _wikipedia,
    'mtop_translation': _mtop,
    'mtop_intent': _mtop,
    'beir': _beir,
    'jsonl': held_out._held_out,
    'cldr': _cldr,
}
