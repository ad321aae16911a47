"""The command embeds a corpus once, and answers queries of the command line, a file, its input."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from hbt import search
from hbt.evaluation import trec
from tests import FIXTURES, ROOT

TEXTS = [f'w{i} w{i + 1} w{i + 2}' for i in range(20)]


def run(*flags, typed='', cwd=ROOT):
    """The command in a process of its own: (exit status, standard output, standard error)."""
    environment = os.environ | {'XLA_FLAGS': '', 'PYTHONPATH': str(ROOT), 'COLUMNS': ''}
    command = [sys.executable, '-m', 'hbt.search', f'--model={FIXTURES}/labse', *flags]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, input=typed, env=environment
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_corpus_is_searched_in_every_way(tmp_path):
    corpus, queries = tmp_path / 'corpus.jsonl', tmp_path / 'queries.tsv'
    rows = [{'id': f'd{i}', 'text': x, 'language': 'de'} for i, x in enumerate(TEXTS)]
    corpus.write_text(''.join(json.dumps(x) + '\n' for x in rows))
    queries.write_text('q1\tw3 w4\nq2\tw9\n')
    code, out, error = run(f'--corpus={corpus}', '--query=w3 w4', '--k=3')
    assert code == 0, error
    made, *lines = out.splitlines()
    assert made == f'{corpus}.index: 20 documents embedded' and len(lines) == 3
    assert lines[0].split()[0] == '1' and lines[0].split()[2] == 'de'
    code, typed, error = run(f'--index={corpus}.index', '--k=3', typed='w3 w4\n\n')
    assert (code, typed.splitlines()) == (0, lines), error
    code, out, error = run(
        f'--corpus={corpus}', f'--queries={queries}', f'--out={tmp_path}/run', '--k=3'
    )
    assert (code, out) == (0, f'{tmp_path}/run: 2 queries\n'), error
    ranked = trec.read_run(tmp_path / 'run')
    texts = [TEXTS[int(x[1:])] for x in ranked['q1']]
    assert [line.split(maxsplit=3)[3] for line in lines] == texts and len(ranked['q2']) == 3
    code, _, error = run(f'--corpus={corpus}', '--query=w3', '--dim=6')
    assert code == 2 and error.startswith(f'error: {corpus}.index: model: expected '), error
    options = f'--corpus={corpus}', f'--index={tmp_path}/6', '--query=w3', '--dim=6'
    code, out, error = run(*options)
    assert code == 0 and f'{tmp_path}/6: 20 documents embedded' in out, error
    assert np.load(tmp_path / '6/embeddings.npy').shape == (20, 6)
    with corpus.open('a') as file:
        file.write('{"id": "new", "text": "w1"}\n')
    code, _, error = run(f'--corpus={corpus}', '--query=w3')
    assert code == 2 and len(error.splitlines()) == 1
    assert error.startswith(f'error: {corpus}.index: corpus: expected ')


FLAGS = ('corpus', 'index', 'queries', 'out', 'query', 'debias', 'query_language')
BAD = {
    'query': 'expected --corpus=FILE, or --index=DIR of an earlier call, got neither',
    'corpus queries': '--queries: expected --out with it, got none',
    'corpus out': '--out: expected --queries with it, got none',
    'corpus queries out query': 'expected --query or --queries, got both',
    'corpus debias': '--debias: expected --query_language with it, got none',
    'index query_language': '--query_language: expected --debias with it, got none',
}


@pytest.mark.parametrize('names', BAD)
def test_flags_that_do_not_go_together_are_named(names):
    given = {name: 'x' if name in names.split() else None for name in FLAGS}
    with pytest.raises(ValueError, match=BAD[names]):
        search.check_flags(types.SimpleNamespace(**given))
