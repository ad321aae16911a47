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
