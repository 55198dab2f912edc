"""Pages of a table, and of Lines."""
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from console_answers import HOSTILE
from modwsgi_tel.console.cells import ASCII, Size, plain
from modwsgi_tel.console.keys import Table, Ui
from modwsgi_tel.console.paging import asked, on_page, page_of, place_of, row_under, scrolled, shortened, window_of


def test_a_path_has_its_parameters_in_the_order_given_and_those_that_are_none_left_out():
    assert asked("/api/slow", sort="age", life=None, limit=18, group="") == "/api/slow?sort=age&limit=18&group="
    assert asked("/api/slow", life=None) == asked("/api/slow") == "/api/slow"


@pytest.mark.parametrize("text", (*(each for each in HOSTILE if each != "\ud800\udfff"), "a b&c=d/?#%+~-._", "ä漢🦄"))
def test_any_text_arrives_as_it_was(text):
    path = asked("/api/x", before=1, text=text)
    assert parse_qsl(urlsplit(path).query, keep_blank_values=True) == [("before", "1"), ("text", text)]
    assert path == "/api/x?before=1&text=" + quote(text, safe=",")


def test_what_no_text_can_hold_is_replaced_and_a_comma_stays():
    assert asked("/x", a="\ud800,b") == "/x?a=%3F,b"


def a_ui(cursor=0, **more):
    return Ui(view="slow", tables=(("slow", Table(cursor=cursor)),), glyphs=ASCII, **more)


def test_the_page_of_the_cursor_is_asked_for_and_without_a_cursor_the_first():
    assert [page_of(cursor, 4) for cursor in (-1, 0, 6)] == [
        {"offset": 0, "limit": 4}, {"offset": 0, "limit": 4}, {"offset": 4, "limit": 4}]


def test_rows_are_shown_as_far_as_there_is_room_up_to_the_cursor():
    answer = {"matched": 20, "offset": 8}
    assert [on_page(a_ui(cursor), answer, "abcd", 3) for cursor in (8, 10, 11, 12)] == [
        ("abc", 0), ("abc", 2), ("bcd", 2), ("abc", None)]
    assert [on_page(a_ui(), {}, "", 3), on_page(a_ui(), {}, "ab", 0)] == [("", None), ("", -1)]


def test_without_a_cursor_no_row_is_under_it():
    answer = {"matched": 2, "offset": 0}
    assert on_page(a_ui(-1), answer, "ab", 3) == ("ab", None)
    assert [row_under(a_ui(cursor), answer, "ab") for cursor in (-1, 0, 1, 9)] == [None, "a", "b", "b"]


def test_lines_below_the_screen_are_counted():
    lines = [()] * 5
    assert plain(shortened(lines, a_ui(), Size(3, 40))) == "\n\n v 3 more lines (Down, PgDn)\n"
    assert plain(shortened(lines, a_ui(scroll=9), Size(3, 40))) == "\n\n\n"


def test_the_page_changes_when_the_cursor_leaves_it():
    assert [window_of(cursor, 4) for cursor in (0, 3, 4, 7, 8)] == [0, 0, 4, 4, 8]


def test_a_page_without_rows_is_one_of_one_row():
    assert [window_of(2, 0), window_of(2, -3), window_of(-5, 4)] == [2, 2, 0]


def test_the_row_under_the_cursor_is_found_in_the_page_that_was_answered():
    assert place_of(11, {"matched": 20, "offset": 8}, "abcd") == 3


def test_a_cursor_that_the_answer_does_not_cover_is_on_no_row():
    assert [place_of(12, {"matched": 20, "offset": 8}, "abcd"), place_of(7, {"matched": 20, "offset": 8}, "abcd"),
            place_of(0, {"matched": 0, "offset": 0}, ""), place_of(0, {}, "")] == [None] * 4


def test_a_cursor_behind_the_end_of_a_table_that_became_shorter_is_on_its_last_row():
    assert place_of(12, {"matched": 10, "offset": 8}, "ab") == 1


def test_lines_scroll_as_far_as_their_last_page():
    assert [scrolled("abcdef", scroll, 3) for scroll in (0, 2, 3, 99)] == ["abc", "cde", "def", "def"]
    assert [scrolled("ab", 5, 3), scrolled("ab", 0, 0)] == ["ab", ""]
