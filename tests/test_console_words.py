"""Words that panes share, and that they take them from nowhere else."""
import ast
import os

import pytest

from console_answers import WALL, an_event
from modwsgi_tel import console
from modwsgi_tel.console import views
from modwsgi_tel.console.cells import ASCII
from modwsgi_tel.console.words import (axis, busy_style, clock, counted, errors_style, event_words, figure, group_words,
                                       in_life, marked, missing, pieces, wrapped)


def imported(name):
    """Modules of the console that one of it imports."""
    path = os.path.join(os.path.dirname(console.__file__), name + ".py")
    with open(path, encoding="utf-8") as file:
        nodes = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.ImportFrom)]
    return {part for node in nodes for part in (
        [alias.name for alias in node.names] if node.module == "modwsgi_tel.console" else node.module.split(".")[2:])
        if node.module.startswith("modwsgi_tel.console")}


def test_panes_take_nothing_from_one_another():
    panes = {pane.paths.__module__.split(".")[-1] for pane in views.PANES}
    assert len(panes) == len(views.PANES)
    assert {name: imported(name) & panes for name in (*panes, "words", "process", "paging", "frames")} == dict.fromkeys(
        (*panes, "words", "process", "paging", "frames"), set())


def test_amounts_have_their_word():
    counts = (1, "request"), (2000, "request"), (0, "process", "processes"), (None, "row")
    assert [counted(*each) for each in counts] == [
        "1 request", "2,000 requests", "0 processes", "- rows"]


def test_a_figure_out_of_all_bounds_is_cut():
    assert figure("1,000,000,000,000", ASCII) == "1,000,000,0~"


@pytest.mark.parametrize("capacity, style", [(None, ""), (0.69, ""), (0.7, "warn"), (0.9, "bad"), (7.0, "bad")])
def test_threads_that_are_all_busy_are_bad(capacity, style):
    assert busy_style(capacity) == style


def test_a_few_errors_among_many_requests_have_no_mark():
    assert [errors_style(*each) for each in ((9, 1000), (0, 0), (None, None))] == ["", "", ""]
    assert [errors_style(*each) for each in ((10, 1000), (1, None), (1, 0))] == ["bad", "bad", "bad"]


def test_a_silent_process_is_so_since_it_was_last_heard_and_no_age_is_negative():
    assert in_life({"life": "silent", "silent_s": 40.0, "life_since": WALL - 37.0}, WALL) == 40.0
    assert in_life({"life": "running", "life_since": WALL + 60.0}, WALL) == 0.0
    assert in_life({"life": "running"}, WALL) is in_life({"life_since": WALL}, None) is None


@pytest.mark.parametrize("row, words", [
    ({"process_group": "shop\x1b"}, "shop\\x1b"), ({"process_group": "", "role": "embedded"}, "(embedded)"),
    ({"process_group": None, "role": "apache-child"}, "(Apache child)"), ({}, "(embedded)"),
    ({"roles": {"apache-child": 3}}, "(Apache child)"), ({"roles": {"apache-child": 3, "embedded": 1}}, "(embedded)")])
def test_a_process_without_a_group_is_told_by_what_it_is(row, words):
    assert group_words(row, ASCII) == words


def test_the_row_under_the_cursor_has_a_mark_that_needs_no_colour():
    assert [marked("812", True), marked("812", False)] == [">812", " 812"]


def test_an_answer_that_is_not_there_says_why():
    assert missing({}, "slow", ASCII) == ((" asking the collector", "dim"),)
    assert missing({"errors": {"slow": "no\x1b"}}, "slow", ASCII, "rows") == ((" rows: no\\x1b", "warn"),)


@pytest.mark.parametrize("event, words", [
    (an_event(), "started (parent 800)"),
    (an_event("process_stopping", shutdown_reason="cpu_limit\x1b", active_requests_at_decision=1),
     "is stopping: cpu_limit\\x1b, 1 request inside"),
    (an_event("process_stopped", shutdown_reason="request_timeout", process_uptime=20.0, lifetime_request_count=4,
              active_requests_at_exit=3), "stopped: request_timeout, 3 requests killed, up 20.0 s, 4 requests served"),
    (an_event("process_vanished", last_seen=WALL, lost_requests=2),
     "vanished with 2 requests inside: killed?, last heard 03:12:40"),
    (an_event("process_restarted", unseen=True), "went unseen: another process has its pid now"),
    ({}, "did something")])
def test_an_event_is_told_with_what_went_wrong_first(event, words):
    assert event_words(event, ASCII) == words


def test_all_of_a_text_is_in_its_pieces_and_no_wide_letter_is_halved():
    assert pieces("漢字 漢字", 3) == ["漢", "字 ", "漢", "字"]
    assert [pieces("", 3), pieces("漢", 1), pieces("abc", 0)] == [[""], ["漢"], ["a", "b", "c"]]


@pytest.mark.parametrize("cols, text", [
    (7, "       "), (8, "03:12:20"), (30, "03:12:20              03:12:40"),
    (50, "03:12:20             03:12:30             03:12:40")])
def test_an_axis_tells_both_ends_and_what_is_between_where_there_is_room(cols, text):
    assert axis(WALL - 20.0, WALL, cols, ASCII) == text


def test_a_time_of_another_day_has_its_date():
    assert clock(WALL - 86400.0 * 2, WALL) == "2026-03-12 03:12"
    assert clock(None, WALL) == clock(WALL, None) == clock(1e300, WALL) == "-"


@pytest.mark.parametrize("text, lines", [
    ("", [""]), ("short", ["short"]), ("one two three", ["one two", "three"]), ("abcdefghijkl", ["abcdefgh", "ijkl"]),
    ("漢字漢字漢字", ["漢字漢字", "漢字"]), ("one two three four five six seven", ["one two", "three", "four fi~"]),
])
def test_text_is_wrapped_at_blanks_by_cells(text, lines):
    assert wrapped(text, 8, ASCII, 3) == lines
