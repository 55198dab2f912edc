"""The lifecycle view: for any answer and any size a screen that fits; bars, times and words for fixed ones."""
import random

import pytest

from console_answers import HOSTILE, LIVES, WALL, a_process, a_view, an_event, bars, check_fits, events, fuzzed
from consoles import DESIGN, Looking, captured, simulated
from modwsgi_tel.console import lifecycle, words
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui


def a_ui(glyphs=ASCII, **table):
    return Ui(view="lifecycle", glyphs=glyphs, tables=(("lifecycle", Table(**table)),))


def screen(view, ui=None, rows=12, cols=60):
    return plain(lifecycle.body(view, ui or a_ui(), Size(rows, cols)))


def a_bar(process, begin=-20.0, cols=21):
    return lifecycle.bar(process, WALL + begin, WALL, cols, ASCII).rstrip()


# --- bars -----------------------------------------------------------------------------------

def test_processes_are_bars_over_time_with_what_became_of_them_and_the_time_below():
    view = a_view(bars=bars(a_process(813, "running", -10.0, since=-10.0),
                            a_process(812, "stopped", -20.0, since=-10.0, stopped={"reason": "request_timeout"})),
                  events=events(an_event(pid=813)))
    assert screen(view, cols=80) == (
        " 813 shop                       #####################R running 10.0 s\n"
        " 812 shop ######################x                      stopped: request_timeout\n"
        "          03:12:20          03:12:30          03:12:40\n"
        " starts and ends of shop, newest first\n"
        ">03:12:30 pid 813 started (parent 800)\n")


@pytest.mark.parametrize("process, drawn", [
    (a_process(life="running"), "####################R"),
    (a_process(life="started", began=-5.0), "               #####N"),
    (a_process(life="silent", heard=-10.0), "##########..........S"),
    (a_process(life="stopping", since=-5.0), "###############.....s"),
    (a_process(life="stopped", since=-10.0), "##########x"),
    (a_process(life="vanished", heard=-15.0, since=-5.0), "#####..........V"),
    (a_process(life="replaced", since=-10.0), "##########r"),
    (a_process(life="hibernating"), "####################?"),
    (a_process(life="running", began=-90.0), "<###################R"),
    (a_process(life="stopped", began=-3.0, since=-3.0), "                 x"),
    (a_process(first_seen=None), ""),
    (a_process(life="silent", last_seen=None), "####################S"),
    (a_process(life="stopped", life_since=None, heard=-10.0), "##########x"),
])
def test_the_letter_at_the_end_of_a_bar_tells_the_life_and_what_was_not_heard_is_hollow(process, drawn):
    assert a_bar(process) == drawn


def test_the_axis_begins_with_the_first_process_shown():
    rows = [a_process(began=-30.0), a_process(began=-1200.0)]
    assert lifecycle.span(rows, WALL) == (WALL - 1200.0, WALL)


def test_a_process_of_yesterday_does_not_press_the_short_lives_of_today_into_one_cell():
    rows = [a_process(began=-20.0), a_process(began=-300.0), a_process(began=-90000.0)]
    begin, end = lifecycle.span(rows, WALL)
    assert (round(begin - WALL), end) == (-330, WALL)


def test_the_axis_is_an_hour_when_nothing_began_within_it():
    assert lifecycle.span([a_process(began=-90000.0)], WALL) == (WALL - 3600.0, WALL)


def test_an_axis_without_any_time_is_none():
    assert lifecycle.span([], WALL) == lifecycle.span([a_process(first_seen=None)], WALL) == (None, None)


def test_processes_without_room_are_counted():
    view = a_view(bars=bars(*(a_process(pid, began=-20.0) for pid in range(900, 911)), matched=188),
                  events=events(*(an_event(pid=pid) for pid in range(20))))
    lines = screen(view, rows=20, cols=80).splitlines()
    assert lines[9].endswith(" 179 more (f)") and lines[10] == " starts and ends of shop, newest first"


def test_bars_take_the_room_that_the_log_does_not_need():
    view = a_view(bars=bars(*(a_process(pid) for pid in range(900, 911))), events=events(an_event()))
    lines = screen(view, rows=14, cols=80).splitlines()
    assert [line[:5] for line in lines] == [*(f" {pid} " for pid in range(900, 911)), "     ", " star", ">03:1"]


# --- the log --------------------------------------------------------------------------------

@pytest.mark.parametrize("event, said", [
    (an_event(), "pid 812 started (parent 800)"),
    (an_event(process_parent_pid=0), "pid 812 started"),
    (an_event("process_stopping", shutdown_reason="request_timeout", active_requests_at_decision=1),
     "pid 812 is stopping: request_timeout, 1 request inside"),
    (an_event("process_stopped", shutdown_reason="request_timeout", process_uptime=20.0, active_requests_at_exit=4,
              lifetime_request_count=1234),
     "pid 812 stopped: request_timeout, 4 requests killed, up 20.0 s, 1,234 requests served"),
    (an_event("process_stopped"), "pid 812 stopped"),
    (an_event("process_vanished", lost_requests=2, last_seen=WALL - 15.0),
     "pid 812 vanished with 2 requests inside: killed?, last heard 03:12:25"),
    (an_event("process_vanished", lost_requests=0), "pid 812 vanished: killed?"),
    (an_event("process_restarted", unseen=True), "pid 812 went unseen: another process has its pid now"),
    (an_event("process_slept\x1b"), "pid 812 process_slept\\x1b"),
])
def test_an_event_is_a_sentence(event, said):
    assert lifecycle.sentence(event, (False, False), ASCII) == said


def test_a_sentence_tells_group_and_host_where_there_are_several():
    event = an_event("process_stopped", shutdown_reason="sigterm")
    assert lifecycle.sentence(event, (True, False), ASCII) == "pid 812 of shop stopped: sigterm"
    assert lifecycle.sentence(event, (True, True), ASCII) == "pid 812 of shop on web1 stopped: sigterm"
    # what kind of process is without a group no event tells
    assert lifecycle.sentence(an_event(process_group="", process_parent_pid=0), (True, False), ASCII) == (
        "pid 812 started")


def test_the_log_is_newest_first_and_says_what_was_dropped():
    view = a_view(bars=bars(), events=events(an_event(pid=1, at=-30.0), an_event(pid=2, at=-20.0, process_group="api"),
                                             dropped=1200))
    assert screen(view, cols=80) == (
        " processes: none\n"
        " starts and ends, newest first; 1,200 older ones dropped (--max-events)\n"
        ">03:12:20 pid 2 of api started (parent 800)\n"
        " 03:12:10 pid 1 of shop started (parent 800)\n")


def test_times_are_of_the_collectors_clock_and_of_the_senders_where_there_is_no_other():
    held = events(an_event(stamp=WALL - 86400.0 * 30), {**an_event(), "received": None, "stamp": WALL - 5.0})
    lines = screen(a_view(events=held), a_ui(filter=2)).splitlines()
    assert [each[:10] for each in lines[1:]] == [">03:12:35 ", " 03:12:30 "]


def test_the_event_under_the_cursor_is_shown_whole():
    told = an_event("process_stopped", pid=1, shutdown_reason="request_timeout", process_uptime=20.0,
                    active_requests_at_exit=4)
    view = a_view(events=events(told, an_event(pid=2)))
    assert screen(view, a_ui(filter=2, cursor=1), rows=5, cols=50) == (
        " starts and ends of shop, newest first\n"
        " 03:12:30 pid 2 started (parent 800)\n"
        ">03:12:30 pid 1 stopped: request_timeout, 4\n"
        "          requests killed, up 20.0 s\n")


def test_the_event_under_the_cursor_is_shown_whole_in_the_last_line_too():
    told = an_event("process_stopped", pid=1, shutdown_reason="request_timeout", process_uptime=20.0)
    view = a_view(events=events(told, an_event(pid=2)))
    assert screen(view, a_ui(filter=2, cursor=1), rows=3, cols=50) == (
        " starts and ends of shop, newest first\n"
        ">03:12:30 pid 1 stopped: request_timeout, up 20.0\n"
        "          s\n")


def test_the_log_pages_with_the_cursor():
    view = a_view(events=events(*(an_event(pid=pid) for pid in range(30))))
    lines = screen(view, a_ui(filter=2, cursor=12), rows=11).splitlines()
    assert [each.split()[2] for each in lines[1:]] == [str(pid) for pid in range(19, 9, -1)]


def test_without_a_cursor_no_line_is_marked():
    view = a_view(bars=bars(a_process()), events=events(an_event()))
    for number in range(3):
        assert ">" not in screen(view, a_ui(filter=number, cursor=-1))
        assert ">" in screen(view, a_ui(filter=number, cursor=0))


# --- what is asked --------------------------------------------------------------------------

def test_what_is_asked_is_what_the_screen_shows():
    assert lifecycle.paths(a_ui(), Size(20, 80)) == {
        "bars": "/api/processes?window=1m&sort=age&order=asc&offset=0&limit=19", "events": "/api/lifecycle?limit=100"}
    assert lifecycle.paths(a_ui(filter=1, cursor=45), Size(20, 80)) == {
        "bars": "/api/processes?window=1m&sort=age&order=asc&offset=38&limit=19"}
    assert lifecycle.paths(a_ui(filter=2, cursor=80)._replace(group="a&b \ud800"), Size(20, 80)) == {
        "events": "/api/lifecycle?limit=200&group=a%26b%20%3F"}
    assert lifecycle.paths(a_ui(search="81")._replace(group=""), Size(20, 80)) == {
        "bars": "/api/processes?window=1m&sort=age&order=asc&offset=0&limit=19&search=81&group=",
        "events": "/api/lifecycle?limit=2000&group="}


def test_a_search_leaves_the_events_that_have_it():
    view = a_view(events=events(an_event(pid=1, shutdown_reason="Request_Timeout"), an_event(pid=2), an_event(pid=3)))
    ui = a_ui(filter=2, search="timeout")
    assert lifecycle.count(view, ui) == 1
    assert screen(view, ui).splitlines()[1:] == [">03:12:30 pid 1 started (parent 800)"]


def test_an_answer_that_is_an_error_or_not_there_is_told():
    view = a_view(events=events())
    view["errors"]["bars"] = "no such path"
    assert screen(view) == " processes: no such path\n starts and ends: none\n"
    assert screen(a_view()) == " processes: asking the collector\n starts and ends: asking the collector\n"


def test_few_lines_are_for_the_log():
    view = a_view(bars=bars(a_process()), events=events(an_event()))
    assert screen(view, rows=1) == ">03:12:30 pid 812 started (parent 800)\n"


# --- on a collector -------------------------------------------------------------------------

def test_the_reasons_of_a_real_apache_are_in_bars_and_log():
    looking = Looking(*captured("lifecycle"), glyphs=ASCII, size=DESIGN, view="lifecycle")
    text = looking.screen()
    assert looking.view["errors"] == {}
    (row,) = [row for row in text.splitlines() if row.startswith("  9857 127.0.0.1:8120 ")]
    assert row.split()[2:] == ["#########x", "stopped:", "request_timeout"]
    looking.press("f", "f")
    assert "pid 9857 stopped: request_timeout, 1 request killed, up 26.0 s" in looking.screen()


def test_bars_alone_page_through_all_processes():
    looking = Looking(*captured("lifecycle"), glyphs=ASCII, size=Size(14, 80), view="lifecycle")
    looking.press("f", *["down"] * 10)
    pids = [row.split()[0] for row in looking.screen().splitlines()[3:12]]
    assert pids == "9704 >9583 9584 9551 9516 9485 9443 9298 9299".split()
    assert lifecycle.PANE.count(looking.view, looking.ui) == 20


def test_a_loop_of_crashes_is_seen_from_the_bars():
    looking = Looking(*simulated("crash-loop"), glyphs=ASCII, size=DESIGN, view="lifecycle")
    assert sum("x" in row and row.endswith("stopped: request_timeout") for row in looking.screen().splitlines()) == 3


# --- anything -------------------------------------------------------------------------------

def random_view(pick):
    def a_time():
        return -10 ** pick.uniform(-2, 7)

    processes = [a_process(
        pick.choice((7, 812, 2 ** 31)), pick.choice((*LIVES, "odd")), a_time(), a_time(), a_time(),
        stopping={"reason": pick.choice(HOSTILE), "active": 2}, process_group=pick.choice(HOSTILE),
        hostname=pick.choice(HOSTILE)) for _ in range(pick.randrange(70))]
    found = [an_event(
        pick.choice((*words.EVENTS, "other")), at=a_time(), process_group=pick.choice(HOSTILE),
        shutdown_reason=pick.choice(HOSTILE), hostname=pick.choice(HOSTILE), lost_requests=pick.randrange(3),
        last_seen=WALL) for _ in range(pick.randrange(70))]
    answers = {"bars": bars(*processes, offset=pick.choice((0, 0, 20))),
               "events": events(*found, dropped=pick.randrange(3))}
    view = a_view()
    for name, answer in answers.items():
        answer = fuzzed(pick, answer, pick.choice((0.0, 0.02, 0.2)))
        if answer is None or pick.random() < 0.1:
            view["errors"][name] = pick.choice(HOSTILE)
        else:
            view[name] = answer
    return view


@pytest.mark.parametrize("seed", range(150))
def test_any_answer_fits_any_screen(seed):
    pick = random.Random(seed)
    view, glyphs = random_view(pick), pick.choice((ASCII, UNICODE))
    ui = a_ui(glyphs, filter=pick.randrange(3), cursor=pick.choice((0, 0, 3, 40, 9999)),
              search=pick.choice(("", "", "s", "ß")))
    for _ in range(4):
        size = Size(pick.randrange(61), pick.randrange(1, 301))
        check_fits(lifecycle.body(view, ui, size), size, glyphs)
        assert lifecycle.count(view, ui) >= 0
