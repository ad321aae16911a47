import csv
import html.parser
import io

import pytest
from matplotlib import figure

from hbt.reporting import document, notations

TABLE = document.Table(
    'some-table',
    'Scores of 50 % & more',
    [
        document.Column('system'),
        document.Column('mAP', 'score', 'mono'),
        document.Column('distance', 'distance', 'multi'),
        document.Column('p', 'p', 'multi'),
    ],
    [
        ['a|b_<x>', document.Value(0.123456, 0.1, 0.2, 0.01), 1234.56, 0.0001],
        ['α', document.Value(0.5, 0.4, 0.6), float('nan'), None],
    ],
    'A note.',
    frozenset({(1, 1)}),
)


def test_markdown_has_a_row_for_every_row_and_escapes_pipes():
    lines = notations.markdown(TABLE).split('\n')
    assert lines[0] == '| system | mono mAP | multi distance | multi p |'
    assert lines[1] == '| --- | ---: | ---: | ---: |'
    assert lines[2] == '| a\\|b_<x> | 0.1235 ± 0.0100 [0.1000, 0.2000] | 1,234.6 | < .001 |'
    assert lines[3] == '| α | **0.5000 [0.4000, 0.6000]** |  |  |'


def test_csv_keeps_all_digits_and_gives_bounds_columns_of_their_own():
    rows = list(csv.reader(io.StringIO(notations.comma_separated(TABLE))))
    head = 'system,mono mAP,mono mAP low,mono mAP high,mono mAP spread,multi distance,multi p'
    assert rows[0] == head.split(',')
    assert rows[1] == ['a|b_<x>', '0.123456', '0.1', '0.2', '0.01', '1234.56', '0.0001']
    assert rows[2] == ['α', '0.5', '0.4', '0.6', '', '', '']


def test_latex_escapes_and_has_as_many_cells_as_columns_in_every_line():
    text = notations.latex_table(TABLE)
    assert r'\caption{Scores of 50 \% \& more. A note.}' in text
    assert r'a|b\_$<$x$>$ & 0.1235 $\pm$ 0.0100 [0.1000, 0.2000] & 1,234.6 & $<$ .001 \\' in text
    assert r'$\alpha$ & \textbf{0.5000 [0.4000, 0.6000]} &  &  \\' in text
    heads = r'\multicolumn{1}{c}{} & \multicolumn{1}{c}{mono} & \multicolumn{2}{c}{multi} \\'
    assert heads + r'\cmidrule(lr){2-2}\cmidrule(lr){3-4}' in text
    body = text.split('\\toprule\n')[1].split('\n\\bottomrule')[0].split('\n')
    assert [line.count('&') for line in body] == [2, 3, 3, 3]
    assert text.count('\\begin{') == text.count('\\end{') == 3


class Tags(html.parser.HTMLParser):
    """Asserts that tags nest, and collects what links out and what is said."""

    def __init__(self):
        super().__init__()
        self.open, self.targets, self.ids, self.said = [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.targets += [given[x] for x in ('src', 'href') if x in given]
        self.ids += [given['id']] if 'id' in given else []
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def read(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    return tags


def test_the_page_nests_escapes_and_needs_no_other_file():
    drawing = figure.Figure(figsize=(1, 1))
    parts = [TABLE, document.Figure('some-figure', 'A <figure>', drawing)]
    tags = read(notations.page('All & everything', [document.Section('One', 'Words.', parts)]))
    assert 'a|b_<x>' in tags.said and 'A <figure>' in tags.said
    inside = ('data:image/svg+xml;base64,', '#')
    assert all(target.startswith(inside) for target in tags.targets)
    assert {x[1:] for x in tags.targets if x.startswith('#')} <= set(tags.ids)


def test_long_tables_are_folded_on_the_page():
    long = TABLE._replace(rows=TABLE.rows * 20, strong=frozenset())
    text = notations.page('', [document.Section('One', '', [TABLE, long])])
    assert text.count('<details>') == 1 and '<summary>40 rows</summary>' in text


def test_the_best_stands_out_and_ties_share_it():
    columns = [document.Column('x', 'score')] * 3
    table = document.Table('t', '', columns, [[0.5, document.Value(0.7), 0.7], [None, 0.1, 2.0]])
    cells = [[(i, j) for j in range(3)] for i in range(2)]
    found = document.best(table, [(cells[0], True), (cells[1], False)])
    assert found.strong == {(0, 1), (0, 2), (1, 1)}
    alone = document.best(table, [([(1, 0), (1, 1)], True)])
    assert not alone.strong


@pytest.mark.parametrize('kind', ['svg', 'pdf', 'png'])
def test_a_figure_is_the_same_bytes_every_time(kind):
    def drawn():
        drawing = figure.Figure(figsize=(1, 1), layout='constrained')
        drawing.subplots().plot([1, 2])
        return document.image(document.Figure('f', '', drawing), kind)

    assert drawn() == drawn() and len(drawn()) > 500
