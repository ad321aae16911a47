import csv
import html.parser
import io
import pathlib
import re

import pandas as pd
import pytest
from matplotlib import figure

from hbt.reporting import render

FORMATS = {
    ('', 'system'): 'text',
    ('mono', 'mAP'): 'score',
    ('multi', 'distance'): 'distance',
    ('multi', 'p'): 'p',
}
TABLE = render.Table(
    'some-table',
    'Scores of 50 % & more',
    pd.DataFrame(
        {
            ('', 'system'): ['a|b_<x>', 'α'],
            ('mono', 'mAP'): [0.123456, 0.5],
            ('mono', 'mAP low'): [0.1, 0.4],
            ('mono', 'mAP high'): [0.2, 0.6],
            ('mono', 'mAP spread'): [0.01, None],
            ('multi', 'distance'): [1234.56, float('nan')],
            ('multi', 'p'): [0.0001, None],
        }
    ),
    FORMATS,
    'A note.',
    pd.DataFrame({('mono', 'mAP'): [False, True]}),
)


def test_markdown_has_a_row_for_every_row_and_escapes_pipes():
    lines = [re.sub(' +', ' ', line) for line in render.to_markdown(TABLE).split('\n')]
    assert lines[0] == '| system | mono mAP | multi distance | multi p |'
    assert re.fullmatch(r'\|:-+\|-+:\|-+:\|-+:\|', lines[1])
    assert lines[2] == '| a\\|b_<x> | 0.1235 ± 0.0100 [0.1000, 0.2000] | 1,234.6 | < .001 |'
    assert lines[3] == '| α | **0.5000 [0.4000, 0.6000]** | | |' and len(lines) == 4


def test_csv_keeps_all_digits_and_gives_bounds_columns_of_their_own():
    rows = list(csv.reader(io.StringIO(render.to_csv(TABLE))))
    head = 'system,mono mAP,mono mAP low,mono mAP high,mono mAP spread,multi distance,multi p'
    assert rows[0] == head.split(',')
    assert rows[1] == ['a|b_<x>', '0.123456', '0.1', '0.2', '0.01', '1234.56', '0.0001']
    assert rows[2] == ['α', '0.5', '0.4', '0.6', '', '', '']


def test_latex_escapes_and_has_as_many_cells_as_columns_in_every_line():
    text = re.sub(' +', ' ', render.to_latex(TABLE))
    assert r'\caption{Scores of 50 \% \& more. A note.}' in text
    assert r'a|b\_$<$x$>$ & 0.1235 $\pm$ 0.0100 [0.1000, 0.2000] & 1,234.6 & $<$ .001 \\' in text
    assert r'$\alpha$ & \textbf{0.5000 [0.4000, 0.6000]} & & \\' in text
    heads = r' & mono & \multicolumn{2}{c}{multi} \\'
    assert heads + r'\cmidrule(lr){2-2}\cmidrule(lr){3-4}' in text
    body = text.split('\\toprule\n')[1].split('\n\\bottomrule')[0]
    lines = [line for line in body.split('\n') if line != r'\midrule']
    assert [line.count('&') for line in lines] == [2, 3, 3, 3]
    assert text.count('\\begin{') == text.count('\\end{') == 3


def test_columns_of_one_level_have_one_line_of_headings():
    table = render.make_table('t', '', {'a_b': 'text', 'n': 'count'}, [['x', 1], ['y', None]])
    assert r'a\_b & n \\' in render.to_latex(table) and 'cmidrule' not in render.to_latex(table)
    assert render.to_csv(table) == 'a_b,n\nx,1\ny,\n'
    page = render.to_html('', [render.Section('', '', [table])])
    assert page.count('<tr>') == 3 and '<th class="text">a_b</th>' in page


def test_a_table_without_rows_is_its_headings():
    table = render.make_table('t', '', {'a': 'text', 'n': 'count'}, [])
    assert len(render.to_markdown(table).split('\n')) == 2 and render.to_csv(table) == 'a,n\n'
    assert 'a & n' in render.to_latex(table)


class Tags(html.parser.HTMLParser):
    """Asserts that tags nest, and collects what links out and what is said."""

    def __init__(self):
        super().__init__()
        self.open, self.targets, self.ids, self.said = [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.targets += [values[x] for x in ('src', 'href') if x in values]
        self.ids += [values['id']] if 'id' in values else []
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
    parts = [TABLE, render.Figure('some-figure', 'A <figure>', drawing)]
    tags = read(render.to_html('All & everything', [render.Section('One', 'Words.', parts)]))
    assert 'a|b_<x>' in tags.said and 'A <figure>' in tags.said and '0.1235 ± 0.0100' in tags.said
    inside = ('data:image/svg+xml;base64,', '#')
    assert all(target.startswith(inside) for target in tags.targets)
    assert {x[1:] for x in tags.targets if x.startswith('#')} <= set(tags.ids)


def test_long_tables_are_folded_on_the_page():
    frame = pd.concat([TABLE.frame] * 20, ignore_index=True)
    long = TABLE._replace(frame=frame, bold=None)
    text = render.to_html('', [render.Section('One', '', [TABLE, long])])
    assert text.count('<details>') == 1 and '<summary>40 rows</summary>' in text


def test_a_folded_table_is_folded_however_short_it_is():
    text = render.to_html('', [render.Section('One', '', [TABLE._replace(folded=True)])])
    assert text.count('<details>') == 1 and '<summary>2 rows</summary>' in text


def test_good_and_bad_numbers_and_phrases_have_their_colours():
    tone = pd.DataFrame({('mono', 'mAP'): [-1, 1]})
    text = [render.Phrase('It is '), render.Phrase('better <here>', 1), render.Phrase('.')]
    page = render.to_html('', [render.Section('One', text, [TABLE._replace(tone=tone)])])
    assert 'It is <span class="good">better &lt;here&gt;</span>.</p>' in page
    assert re.findall('<td class="(good|bad)">', page) == ['bad', 'good']
    read(page)


def test_a_text_of_phrases_is_written_in_every_notation(tmp_path):
    text = [render.Phrase('It is '), render.Phrase('better', 1)]
    render.write_report(tmp_path, 'T', [render.Section('One', text, [])])
    assert all('It is better' in (tmp_path / f'report.{x}').read_text() for x in ('md', 'tex'))


def test_the_best_stands_out_and_ties_share_it():
    numbers = pd.DataFrame([[0.5, 0.7, 0.7], [None, 0.1, 2.0]])
    assert render.best_cells(numbers, axis=1).values.tolist() == [
        [False, True, True],
        [False, False, True],
    ]
    smallest = render.best_cells(-numbers, axis=1)
    assert smallest.values[1].tolist() == [False, True, False]
    alone = render.best_cells(numbers)  # a column with one number
    assert alone.values.tolist() == [[False, True, False], [False, False, True]]
    assert not render.best_cells(pd.DataFrame({'x': [None, 0.1]}), axis=1).any(axis=None)


@pytest.mark.parametrize('kind', ['svg', 'pdf', 'png'])
def test_a_figure_is_the_same_bytes_every_time(kind):
    def drawn():
        drawing = figure.Figure(figsize=(1, 1), layout='constrained')
        drawing.subplots().plot([1, 2])
        return render.draw_image(render.Figure('f', '', drawing), kind)

    assert drawn() == drawn() and len(drawn()) > 500


def test_training_does_not_pay_for_the_import_of_pandas():
    """Only the reports need it, and only they import it."""
    package = pathlib.Path(render.__file__).parents[1]
    importing = {
        str(path.relative_to(package).parts[0])
        for path in package.rglob('*.py')
        if re.search(r'^\s*(import|from) (pandas|tabulate)', path.read_text(), re.MULTILINE)
    }
    assert importing == {'reporting'}
