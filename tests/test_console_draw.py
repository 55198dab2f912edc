"""Figures drawn with letters: sparklines, bars, charts, tables.

Invariant of the last tests: for any numbers, also infinite ones and such that are none, what is
drawn has the cells that it was asked for, and no more.
"""
import random

import pytest

from modwsgi_tel.console.cells import ASCII, UNICODE, Span, line_width, plain, width
from modwsgi_tel.console.draw import Column, Sorted, chart, columns_of, meter, spark, stacked, table

INFINITE, NAN, HUGE = float("inf"), float("nan"), 10 ** 400


# --- sparklines ----------------------------------------------------------------------------------

@pytest.mark.parametrize("values, cols, drawn", [
    ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
    ([], 3, "   "), ([5], 0, ""), ([5], -1, ""), ([5], 3, "███"),
    ([1, None, 2], 3, "▅ █"), ([None, None], 2, "  "), ([None, 0], 2, " ▁"),
    ([1, 2], 4, "▅▅██"),                # fewer values than cells: each takes the same part of the time
    ([1, 9, 1, 1, 9, 1], 3, "█▂█"),     # more: a peak is never lost
    ([9, None, None, None], 2, "█ "),
    ([0, 0, 0], 3, "▁▁▁"), ([0.001, 100], 2, "▂█"),         # little is more than nothing
    ([-5, 5], 2, "▁█"), ([-1, -2], 2, "▁▁")])
def test_a_sparkline_is_as_wide_as_asked_and_its_highest_level_the_largest_value(values, cols, drawn):
    assert spark(values, cols, UNICODE) == drawn


def test_a_sparkline_with_a_top_of_its_own_keeps_to_it():
    assert spark([0.25, 0.5, 1.0, 2.0], 4, UNICODE, top=1.0) == "▃▅██"
    assert spark([1, 2], 2, UNICODE, top=0) == "▁▁"
    assert spark([0, 1, 7], 3, ASCII, top=7) == "_.#"


@pytest.mark.parametrize("values, drawn", [
    ([INFINITE, 1], "█▂"), ([INFINITE, INFINITE], "██"), ([-INFINITE, 1], "▁█"), ([NAN, 1], " █"), ([1, NAN], "█ "),
    ([NAN, NAN], "  "), ([HUGE, HUGE], "██"), ([HUGE, 1.0], "█▂"), ([1e308, 1e-308], "█▂"), ([5e-324, 5e-324], "██")])
def test_a_sparkline_of_nonsense_is_drawn_and_what_is_no_number_is_a_gap(values, drawn):
    assert spark(values, 2, UNICODE) == drawn


# --- bars ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("ratio, drawn", [
    (0, "░░░░"), (0.0, "░░░░"), (0.004, "░░░░"), (0.01, "█░░░"), (0.5, "██░░"), (0.9, "████"), (1, "████"),
    (1.7, "████"), (-0.5, "░░░░"), (None, "    "),
    (INFINITE, "████"), (-INFINITE, "░░░░"), (NAN, "    "), (1e308, "████"),
    (HUGE, "████"), (-HUGE, "░░░░")])
def test_a_meter_is_full_at_one_and_shows_a_little_of_little(ratio, drawn):
    assert meter(ratio, 4, UNICODE) == drawn


def test_a_meter_without_room_is_nothing():
    assert [meter(ratio, cols, ASCII) for ratio in (0.5, None) for cols in (0, -2)] == [""] * 4
    assert meter(0.5, 4, ASCII) == "##.."


def the_bar(*shares, cols=10):
    spans = stacked([(share, letter, "good") for share, letter in zip(shares, "abcd")], cols)
    return "".join(span.text for span in spans)


@pytest.mark.parametrize("shares, drawn", [
    ((1, 1), "aaaaabbbbb"), ((0.2, 0.3, 0.5), "aabbbccccc"), ((3,), "aaaaaaaaaa"), ((1, 0, 1), "aaaaaccccc"),
    ((1, None, 1), "aaaaaccccc"), ((), " " * 10), ((0, 0), " " * 10), ((None,), " " * 10), ((1, 1, 1), "aaabbbbccc"),
    ((0.001, 1), "bbbbbbbbbb"), ((-1, 1), "bbbbbbbbbb"), ((-1,), " " * 10), ((NAN, 1), "bbbbbbbbbb"),
    ((NAN,), " " * 10), ((INFINITE, 1), "aaaaaaaaaa"), ((INFINITE, INFINITE), "aaaaabbbbb"),
    ((-INFINITE, 1), "bbbbbbbbbb"),
    ((1e308, 1e308), "aaaaabbbbb"), ((HUGE, HUGE), "aaaaabbbbb"), ((5e-324, 5e-324), "aaaaabbbbb")])
def test_a_stacked_bar_is_always_full_and_shows_shares(shares, drawn):
    assert the_bar(*shares) == drawn


def test_a_stacked_bar_keeps_styles_and_without_room_is_nothing():
    assert stacked([(1, "a", "good"), (1, "b", "bad")], 2) == (Span("a", "good"), Span("b", "bad"))
    assert [the_bar(1, 2, cols=cols) for cols in (0, -3)] == ["", ""]


# --- charts --------------------------------------------------------------------------------------

def drawn(values, rows, cols, **more):
    return plain(chart(values, rows, cols, UNICODE, **more)).splitlines()


def test_a_chart_has_eight_levels_a_row():
    assert drawn([1, 8, 9, 16], 2, 4) == ["  ▁█", "▁███"]
    assert drawn([0, 1, 2, 3, 4, 5, 6, 7, 8], 1, 9) == [" ▁▂▃▄▅▆▇█"]


def test_a_chart_shows_little_and_not_nothing():
    assert drawn([0.0001, 0, 100], 2, 3) == ["  █", "▁ █"]


def test_a_chart_of_more_values_than_cells_keeps_the_peaks():
    assert drawn([1, 9, 1, 1, 1, 1], 1, 3) == ["█▁▁"]


def test_a_chart_is_filled_up_to_its_width_and_has_its_style():
    assert chart([1], 1, 4, ASCII, style="bad") == [(Span("#   ", "bad"),)]
    assert [[width(span.text) for span in each] for each in chart([], 2, 5, UNICODE)] == [[5], [5]]


@pytest.mark.parametrize("rows, cols", [(0, 5), (5, 0), (-1, 5), (5, -1), (0, 0)])
def test_a_chart_without_room_has_no_lines(rows, cols):
    assert chart([1, 2], rows, cols, UNICODE) == []


@pytest.mark.parametrize("values, more, line", [
    ([None, 2, None], {}, " █"), ([1, 2], {"top": 4}, "▂▄"), ([1, 9], {"top": 2}, "▄█"), ([1, 2], {"top": 0}, ""),
    ([-1, -2], {}, ""), ([-1, 4], {}, " █"), ([INFINITE, 1], {}, "█▁"), ([NAN, 1], {}, " █"), ([HUGE, 1.0], {}, "█▁"),
    ([-INFINITE, 1], {}, " █"), ([1, 2], {"top": INFINITE}, "▁▁"), ([1, 2], {"top": NAN}, ""),
    ([1, 2], {"top": HUGE}, "▁▁")])
def test_a_chart_of_nonsense_is_drawn(values, more, line):
    assert drawn(values, 1, len(values), **more) == [line]


# --- tables --------------------------------------------------------------------------------------

def a_column(name, **more):
    return Column(name, name.upper(), lambda row: row[name], **more)


PATH = a_column("path", right=False, keep=9, flex=True)
COLUMNS = (a_column("pid", keep=9), a_column("host", right=False, keep=1), a_column("age", keep=5, width=6), PATH)
ROWS = ({"pid": "7", "host": "web1", "age": "1.2 s", "path": "/a"},
        {"pid": "10812", "host": "w", "age": "12 min", "path": "/reports/of/last/year"})


def rows_of(cols, columns=COLUMNS, rows=ROWS, glyphs=UNICODE, **more):
    return plain(table(columns, rows, cols, glyphs, **more)).splitlines()


def test_a_table_has_a_column_as_wide_as_its_widest_cell_and_the_flexible_one_has_the_rest():
    assert rows_of(50) == ["  PID HOST    AGE PATH",
                           "    7 web1  1.2 s /a",
                           "10812 w    12 min /reports/of/last/year"]


def test_what_does_not_fit_the_flexible_column_is_cut():
    assert rows_of(30)[2] == "10812 w    12 min /reports/of…"


@pytest.mark.parametrize("cols, heads", [
    (22, "  PID HOST    AGE PATH"), (21, "  PID    AGE PATH"), (17, "  PID    AGE PATH"), (16, "  PID PATH"),
    (10, "  PID PATH"), (9, "  PID"), (5, "  PID"), (4, " PID"), (1, "…")])
def test_columns_go_when_there_is_no_room_those_with_the_lowest_keep_first(cols, heads):
    assert rows_of(cols)[0] == heads


def test_of_columns_that_are_kept_as_long_the_last_one_goes_first():
    columns = tuple(a_column(name, keep=5) for name in ("pid", "host", "age"))
    assert [rows_of(cols, columns)[0] for cols in (17, 16, 9)] == ["  PID HOST    AGE", "  PID HOST", "  PID"]


def test_wide_and_combining_letters_keep_columns_aligned():
    rows = [{"pid": "7", "path": "漢字", "host": "a"}, {"pid": "8", "path": "cafe\u0301", "host": "b"},
            {"pid": "9", "path": "/longer", "host": "c"}]
    columns = (a_column("pid"), a_column("path", right=False), a_column("host", right=False))
    lines = table(columns, rows, 40, UNICODE)
    assert plain(lines).splitlines() == ["PID PATH    HOST", "  7 漢字    a", "  8 cafe\u0301    b", "  9 /longer c"]
    assert [width("".join(span.text for span in each[:-1])) for each in lines] == [12] * 4


def test_the_head_of_the_sorted_column_has_an_arrow():
    assert rows_of(50, sort=Sorted("age", True))[0] == "  PID HOST   AGE▼ PATH"
    assert rows_of(50, sort=Sorted("age", False), glyphs=ASCII)[0] == "  PID HOST   AGE^ PATH"
    assert rows_of(50, sort=Sorted("none", False))[0] == rows_of(50)[0]


def test_the_row_under_the_cursor_is_marked_over_the_whole_width():
    lines = table(COLUMNS, ROWS, 50, UNICODE, selected=1)
    assert {span.style for span in lines[2]} == {"select"} and line_width(lines[2]) == 50
    assert not [span for span in lines[1] if span.style == "select"]
    lines = table(COLUMNS, ROWS, 50, UNICODE, selected=9)
    assert not [span for each in lines for span in each if span.style == "select"]


def test_cells_have_the_style_of_their_column_and_heads_have_theirs():
    columns = (a_column("pid", style=lambda row: "bad" if row["pid"] == "7" else ""), a_column("host"))
    heads, first, second = table(columns, ROWS, 20, UNICODE)
    assert [(span.text.strip(), span.style) for span in heads[::2]] == [("PID", "head"), ("HOST", "head")]
    assert ([span.style for span in first[::2]], [span.style for span in second[::2]]) == (["bad", ""], ["", ""])


def test_a_table_without_rows_is_its_heads():
    assert rows_of(40, rows=()) == ["PID HOST    AGE PATH"]


def test_names_and_values_stand_side_by_side_in_as_many_columns_as_fit():
    pairs = [("req/s", "12.3", ""), ("p95", "340 ms", "bad"), ("cpu", "0.44", "")]
    assert plain(columns_of(pairs, 80, UNICODE)) == "req/s 12.3     p95   340 ms   cpu   0.44\n"
    assert plain(columns_of(pairs, 27, UNICODE)) == "req/s 12.3     p95   340 ms\ncpu   0.44\n"
    assert plain(columns_of(pairs, 26, UNICODE)) == plain(columns_of(pairs, 0, UNICODE)) == (
        "req/s 12.3\np95   340 ms\ncpu   0.44\n")
    assert columns_of([], 80, UNICODE) == []
    assert [span.style for span in columns_of(pairs, 27, UNICODE)[0] if span.text.strip()] == ["dim", "", "dim", "bad"]


# --- any numbers ---------------------------------------------------------------------------------

ODD = (None, 0, 1, -1, 0.5, 7, 1e-9, 5e-324, 1e18, 1e308, -1e308, INFINITE, -INFINITE, NAN, HUGE, -HUGE)


def some(choose, most):
    return [choose.choice(ODD) if choose.random() < 0.4 else choose.random() * 100
            for _ in range(choose.randrange(most))]


@pytest.mark.parametrize("seed", range(40))
def test_any_numbers_are_drawn_in_their_cells(seed):
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(20):
        values, rows, cols = some(choose, 90), choose.randrange(-1, 12), choose.randrange(-2, 80)
        glyphs, top = choose.choice((UNICODE, ASCII)), choose.choice((None, 1.0, *ODD[1:]))
        assert width(spark(values, cols, glyphs, top)) == max(0, cols)
        lines = chart(values, rows, cols, glyphs, top)
        assert [line_width(each) for each in lines] == [cols] * (max(0, rows) if cols > 0 else 0)
        assert all(width(meter(value, cols, glyphs)) == max(0, cols) for value in values[:9])
        parts = [(value, letter, "") for value, letter in zip(values, "abcdefgh")]
        assert sum(width(span.text) for span in stacked(parts, cols)) == max(0, cols)


@pytest.mark.parametrize("seed", range(40))
def test_any_table_fits(seed):
    print("seed", seed)
    choose = random.Random(seed)
    letters = ("a", "漢", "e\u0301", " ", "🦄")
    names = [f"c{number}" for number in range(choose.randrange(1, 9))]
    columns = [a_column(name, width=choose.randrange(12), right=choose.random() < 0.5, keep=choose.randrange(10),
                        flex=choose.random() < 0.3) for name in names]
    rows = [{name: "".join(choose.choice(letters) for _ in range(choose.randrange(15))) for name in names}
            for _ in range(choose.randrange(9))]
    for cols in (0, 1, 2, 7, 20, 80, 300):
        chosen, gap = choose.choice((None, 0, 99)), choose.randrange(3)
        lines = table(columns, rows, cols, UNICODE, Sorted("c0", True), chosen, gap)
        assert len(lines) == len(rows) + 1
        assert all(line_width(each) <= cols for each in lines), cols
