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


def test_a_wide_table_fits_a_terminal_and_keeps_every_character():
    names = ['a_dataset_with_a_very_long_name_' + 'x' * 60, 'short', 'words of a title ' * 5]
    rows = [(name, 'query', 'zh-Hant', 123456789, 987654321, '12.3') for name in names]
    header = ('dataset', 'side', 'language', 'texts', 'tokens', 'truncated %')
    lines = text_table.format_table(header, rows).splitlines()
    assert max(map(len, lines)) == text_table.WIDTH
    assert lines[0].split() == ['truncated'] and lines[1].split() == [*header[:5], '%']
    assert [line.split()[-3:] for line in lines if '123456789' in line] == [
        ['123456789', '987654321', '12.3']
    ] * 3
    width = text_table.WIDTH - sum(map(len, ('query', 'zh-Hant'))) - 9 - 9 - 9 - 12
    column = ''.join(line[: width + 1].replace(' ', '') for line in lines[2:])
    assert column == ''.join(names).replace(' ', '')


def test_a_header_goes_over_two_lines_before_a_text_does():
    rows = [('mean', *['0.1234'] * 6, '3725.4')]
    header = ('query', *[f'{x} R@10' for x in ('mono', 'cross', 'multi') * 2], 'multi distance')
    assert text_table.format_table(header, rows).splitlines() == [
        '         mono   cross   multi    mono   cross   multi     multi',
        'query    R@10    R@10    R@10    R@10    R@10    R@10  distance',
        'mean   0.1234  0.1234  0.1234  0.1234  0.1234  0.1234    3725.4',
    ]


def test_a_column_is_as_wide_as_a_terminal_shows_it():
    rows = [('日本語', 'x'), ('de', 'y'), ('日本語' * 20, 'z')]
    lines = text_table.format_table((), rows).splitlines()
    assert lines[:2] == ['日本語' + ' ' * 72 + ' x'.rjust(2), 'de' + ' ' * 76 + ' y'.rjust(2)]
    assert max(map(text_table.text_width, lines)) <= text_table.WIDTH
    assert text_table.format_table((), rows, None).count('\n') == 2


def test_numbers_stay_whole_in_a_table_that_cannot_fit():
    rows = [(['name'] + [10**9] * 12)]
    lines = text_table.format_table([''] * 13, rows).splitlines()
    assert lines[-1].split() == ['name', *['1000000000'] * 12]
