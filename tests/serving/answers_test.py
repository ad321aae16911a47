"""Hits as lines of a terminal and as a TREC run."""

from hbt.evaluation import trec
from hbt.serving import answers, dual_encoder


def hit(i, text, language='de'):
    return dual_encoder.Hit(0.9 - i / 10, i, f'd{i}', language, text)


def test_a_line_has_rank_score_language_and_as_much_text_as_fits():
    hits = [
        hit(0, 'kurz'),
        hit(1, 'ein  langer\nText ' * 9, 'zh-Hant'),
        hit(2, '富士山は' * 30, 'ja'),
    ]
    assert answers.format_hits(hits, 40).splitlines() == [
        '1  0.9000  de       kurz',
        '2  0.8000  zh-Hant  ein langer Text e...',
        '3  0.7000  ja       富士山は富士山は...',
    ]
    assert answers.format_hits([], 40) == ''


def test_a_run_lists_the_hits_of_every_query(tmp_path):
    found = [[hit(3, 'a'), hit(1, 'b')], [], [hit(1, 'b')]]
    answers.write_run(tmp_path / 'run', ['q1', 'q2', 'q3'], found)
    assert trec.read_run(tmp_path / 'run') == {'q1': {'d3': 2, 'd1': 1}, 'q3': {'d1': 2}}
    answers.write_run(tmp_path / 'run', ['q1'], [[]])
    assert (tmp_path / 'run').read_text() == ''
