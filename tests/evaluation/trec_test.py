import numpy as np
import pytest

from hbt.evaluation import metrics, trec

QUERIES, DOCUMENTS = ['q1', 'q2'], ['c', 'b', 'a']
RELEVANT = np.array([[0, 2], [1, -1]])


def test_files_hold_what_was_ranked_with_falling_scores(tmp_path):
    trec.write_qrels(tmp_path / 'qrels', QUERIES, DOCUMENTS, RELEVANT)
    assert (tmp_path / 'qrels').read_text() == 'q1 0 c 1\nq1 0 a 1\nq2 0 b 1\n'
    trec.write_run(tmp_path / 'run', QUERIES, DOCUMENTS, np.array([[2, 0], [1, -1]]), 'tag')
    assert (tmp_path / 'run').read_text().splitlines() == [
        'q1 Q0 a 1 2 tag',
        'q1 Q0 c 2 1 tag',
        'q2 Q0 b 1 2 tag',
    ]
    assert {x.name for x in tmp_path.iterdir()} == {'qrels', 'run'}


def test_grades_are_written_and_read(tmp_path):
    trec.write_qrels(tmp_path / 'qrels', QUERIES, DOCUMENTS, RELEVANT, np.array([[3, 1], [2, 0]]))
    assert trec.read_qrels(tmp_path / 'qrels') == {'q1': {'c': 3, 'a': 1}, 'q2': {'b': 2}}
    (tmp_path / 'qrels').write_text('q1 0 a 1.0\n')
    assert trec.read_qrels(tmp_path / 'qrels') == {'q1': {'a': 1}}


def test_files_are_cut_at_the_white_space_of_trec_eval_alone(tmp_path):
    ids = 'a\u2028b', 'c\x85', 'd\u3000e\xa0f'
    (tmp_path / 'x').write_text(''.join(f'q 0 {x} 1\r\n' for x in ids), 'utf-8-sig', newline='')
    assert trec.read_qrels(tmp_path / 'x') == {'q': dict.fromkeys(ids, 1)}
    (tmp_path / 'x').write_text(''.join(f'q\tQ0 {x} 1 2.5 t\n' for x in ids), 'utf-8-sig')
    assert trec.read_run(tmp_path / 'x') == {'q': dict.fromkeys(ids, 2.5)}


def test_a_run_of_something_else_is_refused(tmp_path):
    for top, tag, message in (
        (np.array([[0]] * 2), 'a tag', 'without whitespace'),
        (np.array([[0]] * 3), 'tag', 'expected 2 ranked queries, got 3'),
        (np.array([[3]] * 2), 'tag', 'below 3, or -1, got 3 to 3'),
        (np.array([[-2]] * 2), 'tag', 'got -2 to -2'),
    ):
        with pytest.raises(ValueError, match=message):
            trec.write_run(tmp_path / 'run', QUERIES, DOCUMENTS, top, tag)


def test_ranks_of_a_run_follow_trec_evals_order_and_name_what_is_not_found():
    run = {'q1': {'a': 1.0, 'b': 1.0, 'c': 0.5}}
    qrels = {'q1': {'a': 1, 'c': 2, 'z': 1, 'b': 0}, 'q2': {'a': 1}}
    ranks, grades = trec.rank_relevant(run, qrels)
    never = metrics.UNRANKED
    assert ranks.tolist() == [[2, 3, never], [never, 0, 0]]
    assert grades.tolist() == [[1, 2, 1], [1, 0, 0]]


def test_a_run_of_other_queries_is_refused():
    with pytest.raises(ValueError, match="got 1 others, such as 'q9'"):
        trec.rank_relevant({'q9': {'a': 1.0}}, {'q1': {'a': 1}})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('q1 Q0 a 1 x tag\n', r"run:1: expected `query Q0 document rank score tag`, got 'q1 Q0 a"),
        ('q1 Q0 a 1 nan tag\n', 'run:1: expected `query Q0 document rank score tag`'),
        ('q1 Q0 a 1 1 tag\n\nq1 Q0 b 2\n', 'run:3: expected'),
        ('q1 Q0 a 1 1 t\nq1 Q0 a 2 0 t\n', "run:2: expected each document once, got 'a' again"),
    ],
)
def test_a_line_of_another_format_is_named(tmp_path, text, message):
    (tmp_path / 'run').write_text(text)
    with pytest.raises(ValueError, match=message):
        trec.read_run(tmp_path / 'run')
