"""The console's garbage collection: the table of interpreters, and the pauses of one.

Invariant of the last test: for any answer and size at most so many Lines, none wider than the
screen, nothing in them that a terminal could take for more than a letter.
"""
import random

import pytest

from console_answers import HOSTILE, check_fits
from consoles import Looking, captured, simulated
from modwsgi_tel.console import gc
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui

TIME = 1_700_000_000.0


def a_row(**more):
    return {**dict(process=3, pid=812, hostname="web1", process_group="shop", life="running", interpreter="",
                   enabled=True, count=[612, 9, 3], threshold=[700, 10, 10], collections=[1200, 100, 8],
                   collected=[34000, 200, 10], uncollectable=[0, 0, 2], frozen=0, dropped_events=0,
                   window={"pauses": 120, "seconds": 1.5, "max": 0.12, "share": 0.025}), **more}


def an_answer(*rows, **more):
    return {"time": TIME, "matched": len(rows), "offset": 0, "interpreters": list(rows), **more}


def an_event(ago=1.0, duration=0.002, generation=0, **more):
    return {**dict(start=TIME - ago, duration=duration, generation=generation, collected=5, uncollectable=0), **more}


def events(*these, **more):
    return {"time": TIME, "process": 3, "interpreter": "", "events": list(these), "earlier": 0, **more}


OPEN = ("gc", 3, "")


def a_ui(table=Table(), glyphs=UNICODE, **more):
    return Ui(view="gc", tables=(("gc", table),), glyphs=glyphs, **more)


def drawn(view, ui=None, rows=20, cols=80):
    return plain(gc.PANE.body(view, ui or a_ui(), Size(rows, cols))).splitlines()


# --- the table ------------------------------------------------------------------------------

def test_each_interpreter_is_a_row_and_the_one_under_the_cursor_is_told_below():
    assert drawn({"gc": an_answer(a_row(), a_row(interpreter="web1|/api"))}) == [
        " 2 interpreters  share, time, longest, pauses: whole process, last minute",
        "   pid group interpreter           gc  fullest share    time longest pauses lost",
        "  >812 shop  (main)                on  █████░    2 %   1.5 s  120 ms    120    0",
        "   812 shop  web1|/api             on  █████░    2 %   1.5 s  120 ms    120    0",
        "─ 812 shop (main) ──────────────────────────────────────────────────────────────",
        " gen  count/threshold  full          collections  collected  uncollectable",
        " 0    612/700          █████░ 87 %         1,200     34,000              0",
        " 1    9/10             █████░ 90 %           100        200              0",
        " 2    3/10             ██░░░░ 30 %             8         10              2",
        " pauses lost at its last tick 0  frozen 0"]


def test_the_figures_of_a_process_are_of_a_minute_when_the_newest_tick_is_chosen():
    assert drawn({"gc": an_answer(a_row())}, a_ui(window="now"))[0].endswith(": whole process, last minute")
    assert drawn({"gc": an_answer(a_row())}, a_ui(window="10m"))[0].endswith(": whole process, last 10 minutes")
    assert gc.PANE.paths(a_ui(window="now"), Size(20, 80))["gc"].startswith("/api/gc?window=1m&")


def test_a_wide_terminal_has_more_columns_and_keeps_figures_near_their_names():
    assert drawn({"gc": an_answer(a_row())}, rows=3, cols=150) == [
        " 1 interpreter  share, time, longest, pauses: whole process, last minute",
        "   pid group interpreter gc  gen 0 1 2         fullest share    time longest pauses lost collections uncoll",
        "  >812 shop  (main)      on  612/700 9/10 3/10 █████░    2 %   1.5 s  120 ms    120    0       1,308      2"]


def test_a_small_terminal_keeps_pid_interpreter_and_what_it_costs():
    assert drawn({"gc": an_answer(a_row())}, a_ui(glyphs=ASCII), rows=6, cols=40) == [
        " 1 interpreter  process, last minute",
        "   pid interpreter share    time longest",
        "  >812 (main)        2 %   1.5 s  120 ms"]


def test_a_collector_that_is_switched_off_is_said_to_be():
    lines = drawn({"gc": an_answer(a_row(enabled=False))})
    assert lines[2].split()[3] == "OFF"
    assert lines[8] == " Disabled: only gc.collect() collects.  pauses lost at its last tick 0  frozen 0"


def test_what_is_not_known_is_a_dash_and_never_0():
    nothing = dict.fromkeys(a_row())
    assert drawn({"gc": an_answer({**nothing, "process": 3})})[2:9] == [
        "    >- (embedded) (main)           -   -           -       -       -      -    -",
        "─ - (embedded) (main) ──────────────────────────────────────────────────────────",
        " gen  count/threshold  full          collections  collected  uncollectable",
        " 0    -/-              -                       -          -              -",
        " 1    -/-              -                       -          -              -",
        " 2    -/-              -                       -          -              -",
        " pauses lost at its last tick -  frozen -"]


def test_a_threshold_of_0_means_never_and_not_full():
    assert drawn({"gc": an_answer(a_row(count=[5, 0, 9], threshold=[0, 10, 0]))})[5:8] == [
        " 0    5/0              -                   1,200     34,000              0",
        " 1    0/10             ░░░░░░ 0 %            100        200              0",
        " 2    9/0              -                       8         10              2"]


def test_no_interpreter_is_explained():
    assert drawn({"gc": an_answer()}) == [
        "", " No interpreter of a process that lives has told of its garbage collector.",
        " mod_wsgi sends that at each tick, once an application is loaded."]
    assert drawn({}) == [" asking the collector"]
    assert drawn({"errors": {"gc": "no\x1b"}}) == [" no\\x1b"]


def test_the_collector_is_asked_for_the_page_of_the_cursor():
    size = Size(20, 80)
    assert gc.PANE.paths(a_ui(), size) == {"gc": "/api/gc?window=1m&offset=0&limit=12"}
    ui = a_ui(Table(cursor=30), group="a&b\ud800", window="10m", open=("gc", 3, "web1|/ä\ud800"))
    assert gc.PANE.paths(ui, size) == {"gc": "/api/gc?window=10m&offset=24&limit=12&group=a%26b%3F",
                                       "gc_events": "/api/gc/events?process=3&interpreter=web1%7C%2F%C3%A4%3F"}


def test_the_row_under_the_cursor_is_what_enter_opens():
    view = {"gc": an_answer(a_row(), a_row(process=4, interpreter="web1|/api"), matched=14, offset=12)}
    ui = a_ui(Table(cursor=13))
    assert (gc.PANE.count(view, ui), gc.PANE.row(view, ui)) == (14, ("gc", 4, "web1|/api"))
    assert gc.PANE.row(view, a_ui(Table(cursor=2))) is None
    assert gc.PANE.row({}, ui) is None


def test_without_a_cursor_no_row_is_marked():
    lines = drawn({"gc": an_answer(a_row())}, a_ui(Table(cursor=-1)))
    assert [each[:6] for each in lines] == [" 1 int", "   pid", "   812"]
    assert gc.PANE.paths(a_ui(Table(cursor=-1)), Size(20, 80))["gc"].endswith("&offset=0&limit=12")
    assert not any(span.style == "select" for each in gc.PANE.body(
        {"gc": an_answer(a_row())}, a_ui(Table(cursor=-1)), Size(20, 80)) for span in each)


# --- one interpreter ------------------------------------------------------------------------

def test_the_pauses_of_one_interpreter_are_shown_over_time_by_length_and_by_generation():
    these = [an_event(50, 0.00005), an_event(30, 0.0003), an_event(30, 0.0003), an_event(10, 0.15, 2),
             an_event(0.1, 0.03, 1)]
    assert drawn({"gc": an_answer(a_row()), "gc_events": events(*these)}, a_ui(open=OPEN)) == [
        " 812 shop (main)  2 % of the time, 1.5 s in 120 pauses (process, last minute)",
        " 5 pauses, 181 ms in all, the longest 150 ms",
        " pauses in each 857 ms",
        "  150 ms│                                                          █",
        "        │                                                          █",
        "        │                                                          █",
        "        │                                                          █",
        "        │                                                          █          ▂",
        "        │           ▁                       ▁                      █          █",
        "         60.0 s ago                                                         now",
        " pauses by length, each bar from so many ms",
        "       2│          ████",
        "        │▄▄▄▄      ████                          ▄▄▄▄      ▄▄▄▄",
        "        │████      ████                          ████      ████",
        "         <0.1 0.1  0.2  0.5  1    2    5    10   20   50   100  200  500  >1 s",
        " gen  pauses      mean   longest    in all  collected  uncollectable",
        " 0         3    0.2 ms    0.3 ms    0.7 ms         15              0",
        " 1         1   30.0 ms   30.0 ms   30.0 ms          5              0",
        " 2         1    150 ms    150 ms    150 ms          5              0",
        " pauses lost at its last tick 0  frozen 0"]


def test_a_small_screen_has_the_generations_instead_of_charts():
    view = {"gc": an_answer(a_row()), "gc_events": events(an_event(10, 0.15, 2))}
    assert drawn(view, a_ui(glyphs=ASCII, open=OPEN), rows=6, cols=40) == [
        " 812 shop (main)  2 % of the time, 1.5 ~",
        " 1 pause, 150 ms in all, the longest 15~",
        " gen  pauses      mean   longest",
        " 0         0         -         -",
        " 1         0         -         -",
        " 2         1    150 ms    150 ms"]


def test_where_older_pauses_were_left_out_the_timeline_begins_with_the_first_known():
    lines = drawn({"gc_events": events(an_event(42.0), an_event(1.0), earlier=7)}, a_ui(open=OPEN))
    assert lines[1] == " 2 pauses, 4.0 ms in all, the longest 2.0 ms  7 older ones not shown"
    assert [each.split() for each in lines if " ago" in each] == [["42.0", "s", "ago", "now"]]


def test_pauses_with_no_usable_time_are_counted():
    these = [an_event(), an_event(start=1e300), an_event(duration=-1.0), an_event(duration=None),
             an_event(start=TIME + 1e6)]
    assert drawn({"gc_events": events(*these)}, a_ui(open=OPEN))[1] == (
        " 1 pause, 2.0 ms in all, the longest 2.0 ms  4 with no usable time")


def test_no_pause_is_explained():
    assert drawn({"gc": an_answer(a_row(enabled=False)), "gc_events": events()}, a_ui(open=OPEN)) == [
        " 812 shop (main)  2 % of the time, 1.5 s in 120 pauses (process, last minute)", "",
        " No pause of it is known.",
        " Either it has not collected of late, or its pauses are not sent (gc_event).",
        " Disabled: only gc.collect() collects.  pauses lost at its last tick 0  frozen 0"]


def test_an_answer_about_another_interpreter_is_not_shown():
    assert drawn({"gc_events": events(an_event(), interpreter="x")}, a_ui(open=OPEN))[1:] == [" asking the collector"]
    assert drawn({"errors": {"gc_events": "gone"}}, a_ui(open=OPEN)) == [
        " interpreter (main)  (its row is not on this page any more)", " gone"]


def test_a_pause_is_counted_in_the_bar_that_it_reaches():
    reached = ((0.0, 0), (0.0001, 1), (0.00019, 1), (0.0002, 2), (0.5, 12), (0.99, 12), (1.0, 13), (60.0, 13))
    for duration, place in reached:
        lines = gc._lengths([an_event(duration=duration)], 1, 80, ASCII)
        assert plain(lines[1:2])[gc.SIDE:].rstrip() == " " * (5 * place) + "####", duration


# --- on a real collector's answers ----------------------------------------------------------

def test_keys_lead_to_the_pauses_of_an_interpreter_of_a_capture():
    looking = Looking(*captured("subinterp", 30.0), view="gc")
    assert looking.view["errors"] == {}
    for _ in range(looking.view["gc"]["matched"]):
        row = looking.view["gc"]["interpreters"][0]
        looking.press("home", "enter")
        assert looking.ui.open == ("gc", row["process"], row["interpreter"])
        assert looking.view["errors"] == {}
        assert looking.screen().splitlines()[4].split()[1] == "pauses,"
        looking.press("esc", "down")


def test_a_fleet_in_a_storm_shows_its_pauses():
    looking = Looking(*simulated("gc-storm", 30.0), view="gc")
    looking.press("enter")
    shown = sum(int(each.split()[1].replace(",", "")) for each in looking.screen().splitlines()[-5:-2])
    assert shown == len(looking.view["gc_events"]["events"]) > 0


# --- properties -----------------------------------------------------------------------------

def any_number(rng):
    return rng.choice((None, None, 0, -1, 1.5, 1e308, -1e308, 2 ** 64, rng.random() * 1000))


def any_row(rng):
    row = a_row(process=rng.randrange(4), interpreter=rng.choice(HOSTILE), process_group=rng.choice((None, *HOSTILE)),
                enabled=rng.choice((True, False, None)))
    for name in ("count", "threshold", "collections", "collected", "uncollectable"):
        row[name] = rng.choice((None, [], [any_number(rng) for _ in range(rng.randrange(4))], row[name]))
    for name in ("pid", "frozen", "dropped_events"):
        row[name] = any_number(rng)
    row["window"] = rng.choice((None, {name: any_number(rng) for name in row["window"]}))
    return row


def any_event(rng):
    return an_event(rng.choice((0, rng.random() * 300, 1e308, -1e308, 3600.0, -60)),
                    generation=rng.choice((None, 0, 1, 2, 9)),
                    duration=rng.choice((rng.random() ** 9, any_number(rng))), collected=any_number(rng))


@pytest.mark.parametrize("glyphs", (UNICODE, ASCII), ids=("unicode", "ascii"))
def test_any_answer_fits_any_screen(glyphs):
    rng = random.Random(4)
    for _ in range(300):
        size = Size(rng.randrange(61), rng.randrange(1, 301) if rng.random() < 0.7 else rng.randrange(1, 30))
        opened = rng.choice((None, ("gc", rng.randrange(4), rng.choice(HOSTILE))))
        ui = a_ui(Table(cursor=rng.randrange(60)), glyphs, open=opened, scroll=rng.choice((0, 3, 1 << 30)),
                  group=rng.choice((None, *HOSTILE)))
        view = {"errors": rng.choice(({}, {"gc": HOSTILE[0], "gc_events": HOSTILE[1]}))}
        if rng.random() < 0.8:
            view["gc"] = an_answer(*(any_row(rng) for _ in range(rng.randrange(60))), offset=rng.choice((0, 0, 20)),
                                   matched=rng.choice((None, 0, 70)))
        if opened and rng.random() < 0.8:
            view["gc_events"] = events(*(any_event(rng) for _ in range(rng.choice((0, 1, 40)))), process=opened[1],
                                       interpreter=opened[2], earlier=any_number(rng))
        gc.PANE.paths(ui, size)
        gc.PANE.row(view, ui)
        check_fits(gc.PANE.body(view, ui, size), size, glyphs)
