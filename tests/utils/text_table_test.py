from hbt.utils import text_table


def test_numbers_are_aligned_on_the_right_and_words_on_the_left():
    rows = [('en', 1200, '-'), ('zh-Hant', 7, '0.5'), ('all',)]
    assert text_table.format_table(('language', 'texts', 'cut %'), rows).splitlines() == [
        'language  texts  cut %',
        'en         1200      -',
        'zh-Hant       7    0.5',
        'all',
    ]
    assert text_table.format_table((), [('a', '1 x'), ('bcd', '2')]) == 'a    1 x\nbcd  2'


def test_a_text_is_cut_by_the_columns_that_it_takes():
    assert text_table.cut_text('a' * 10, 10) == 'a' * 10
    assert text_table.cut_text('a' * 11, 10) == 'a' * 7 + '...'
    assert text_table.cut_text('日本語の首都', 10) == '日本語...'
    assert text_table.cut_text('e\u0301' * 10, 10) == 'e\u0301' * 10
