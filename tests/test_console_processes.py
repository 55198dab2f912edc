"""The pane of processes: the table, and one process.

What holds for all answers and sizes: never more than `rows` Lines, none wider than `cols`
cells, nothing that is not printable, and nothing but ASCII where no more can be shown.
"""
import random

import pytest
from builders import NAMES
from console_answers import HOSTILE, at_greenwich, check_every_row, check_fits, scrambled
from consoles import DESIGN, SMALL, WIDE, Looking, captured, simulated
from modwsgi_tel.console import process, processes
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui

NOW = 1_700_000_000.0                   # 22:13:20 UTC


@pytest.fixture(autouse=True)
def greenwich():
    yield from at_greenwich()


def a_window(**more):
    return {"seconds": 60.0, "ticks": 60, "requests": 738, "throughput": 12.3, "capacity": 0.42, "cpu_user": 0.3,
            "cpu_system": 0.14, "cpu": 0.44, "status": {"1xx": 0, "2xx": 730, "3xx": 0, "4xx": 8, "5xx": 0},
            "phases": {"request": {"mean": 0.05, "p50": 0.04, "p95": 0.34, "p99": 1.2, "max": 2.5}},
            "gil": {"share": 0.02, "coefficient": None}, "gc": {"pauses": 3, "seconds": 0.01, "max": 0.005},
            "slow_completed": 0, "input_bytes": 1000, "output_bytes": 200000, **more}


def a_row(number=7, window="1m", **more):
    """A process as /api/processes tells it; windows by keyword `held`."""
    held = more.pop("held", a_window())
    return {"id": number, "pid": 800 + number, "sender_pid": 800 + number, "sender_uid": 33, "hostname": "web1",
            "process_group": "shop", "role": "daemon", "life": "running", "life_since": NOW - 7200.0, "silent_s": None,
            "alive": True, "stopping": None, "stopped": None, "first_seen": NOW - 7201.0, "last_seen": NOW - 0.5,
            "interval": 1.0, "parent_pid": 700, "restarts_unseen": 0,
            "threads": {"maximum": 5, "started": 6, "active": 3}, "rss": 73_700_000, "max_rss": 80_000_000,
            "slow_threshold": 2.0, "slow_active": 0, "interpreters": 1, "lost": 0, "lost_uncertain": 0,
            "implausible": 0,
            "counters": {}, "windows": {window: held}, "sources": {}, **more}


def silent(number=8, **more):
    return a_row(number, **{"life": "silent", "life_since": NOW - 37.0, "silent_s": 40.0, "slow_active": 2, **more})


def of_rows(*rows, offset=0, matched=None):
    matched = len(rows) if matched is None else matched
    return {"processes": {"time": NOW, "matched": matched, "offset": offset, "processes": list(rows)}}


def a_ui(glyphs=UNICODE, **more):
    chosen = {name: more.pop(name) for name in Table._fields if name in more}
    return Ui(view="processes", glyphs=glyphs, tables=(("processes", Table(**chosen)),), **more)


def shown(view, ui=None, rows=8, cols=80):
    return plain(processes.body(view, ui or a_ui(), Size(rows, cols))).splitlines()


def path(ui, rows=20, cols=80):
    (found,) = processes.paths(ui, Size(rows, cols)).values()
    return found


# --- what is asked for ---------------------------------------------------------------------------

def test_the_table_asks_for_the_rows_that_it_has_room_for_with_trouble_first():
    assert path(a_ui()) == "/api/processes?window=1m&sort=life&order=asc&offset=0&limit=18"


def test_a_cursor_further_down_asks_for_its_page():
    assert path(a_ui(cursor=40), rows=12).endswith("&offset=40&limit=10")
    assert path(a_ui(cursor=49), rows=12).endswith("&offset=40&limit=10")


def test_group_filter_and_search_are_asked_for_with_everything_quoted():
    asked = path(a_ui(filter=2, search="a&b=c d/ü", group="x:80|/é"))
    assert asked == ("/api/processes?window=1m&sort=life&order=asc&offset=0&limit=18&life=silent,stopping,vanished"
                     "&search=a%26b%3Dc%20d%2F%C3%BC&group=x%3A80%7C%2F%C3%A9")


def test_the_processes_of_no_group_are_a_group():
    assert path(a_ui(group="")).endswith("&group=")


def test_amounts_come_largest_first_names_from_a_on_and_r_turns_it_round():
    assert {sort: path(a_ui(sort=sort)).split("order=")[1].split("&")[0] for sort in processes.SORTS} == {
        "life": "asc", "age": "desc", "throughput": "desc", "p95": "desc", "busy": "desc", "threads": "desc",
        "cpu": "desc", "rss": "desc", "5xx": "desc", "slow": "desc", "lost": "desc", "silent": "desc",
        "pid": "asc", "group": "asc"}
    assert "&order=asc&" in path(a_ui(sort="p95", reverse=True))
    assert "&order=desc&" in path(a_ui(sort="pid", reverse=True))


def test_an_opened_process_asks_for_itself_and_its_history():
    assert processes.paths(a_ui(open=("process", 812, 5), window="10m"), DESIGN) == {
        "process": "/api/processes/812?id=5", "process_series": "/api/series?process=5&window=10m",
        "stacks_state": "/api/stacks?limit=0"}


# --- the table -----------------------------------------------------------------------------------

def test_the_table_at_80_columns():
    view = of_rows(silent(), a_row(9, process_group="127.0.0.1:8160", held=a_window(capacity=0.95)),
                   a_row(10, pid=123456))
    assert shown(view) == [
        "    pid group          life▲       for req/s     p95  busy  used  cpu 5xx slow",
        "   >808 shop           silent   40.0 s  12.3  340 ms  42 %   3/5 0.44   0    2",
        "    809 127.0.0.1:8160 running   2.0 h  12.3  340 ms  95 %   3/5 0.44   0    0",
        " 123456 shop           running   2.0 h  12.3  340 ms  42 %   3/5 0.44   0    0",
        "", "", "",
        " 3 processes                                                by life, last minute"]


def test_a_wide_screen_has_all_columns():
    assert shown(of_rows(a_row(lost=3, restarts_unseen=1)), cols=160, rows=4) == [
        "   pid group host life▲       for    age req/s     p95  busy             used  cpu     rss"
        " 5xx slow lost silent unseen",
        "  >807 shop  web1 running   2.0 h  2.0 h  12.3  340 ms  42 % ████░░░░░░   3/5 0.44 73.7 MB"
        "   0    0    3      -      1"]


def test_a_small_screen_has_what_matters_most():
    assert shown(of_rows(silent(), a_row(9)), rows=6, cols=40) == [
        "   pid group life▲       for req/s  busy",
        "  >808 shop  silent   40.0 s  12.3  42 %",
        "   809 shop  running   2.0 h  12.3  42 %",
        "", "",
        " 2 processes        by life, last minute"]


def test_what_is_sorted_by_stays_on_a_small_screen():
    assert shown(of_rows(a_row(lost=12)), a_ui(sort="lost"), rows=3, cols=30) == [
        "   pid group life     lost▼", "  >807 shop  running     12"]


def test_what_is_not_known_is_a_dash():
    row = dict.fromkeys(a_row(), None)
    assert [" ".join(each.split()) for each in shown(of_rows(row), cols=200, rows=2)] == [
        "pid group host life▲ for age req/s p95 busy used cpu rss 5xx slow lost silent unseen",
        ">- (embedded) - - - - - - - - - - - - - - -"]


def test_an_answer_for_another_window_shows_no_figures_of_it():
    (_, row) = shown(of_rows(a_row(window="10m")), rows=2)
    assert " ".join(row.split()) == ">807 shop running 2.0 h - - - 3/5 - 73.7 MB - 0"


def test_apache_children_are_told_from_embedded_processes():
    view = of_rows(a_row(process_group="", role="apache-child"), a_row(8, process_group="", role="embedded"))
    assert [row.split(" running")[0].strip() for row in shown(view, rows=3)[1:]] == [
        ">807 (Apache child)", "808 (embedded)"]


def test_a_silent_process_has_been_so_since_it_was_last_heard():
    assert " silent   40.0 s" in shown(of_rows(silent()))[1]


def test_a_clock_that_was_set_back_makes_no_negative_ages():
    assert " running  0.0 ms " in shown(of_rows(a_row(life_since=NOW + 60.0)))[1]


def test_text_from_a_sender_is_escaped():
    assert " \\x1b[31mred " in shown(of_rows(a_row(process_group="\x1b[31mred")))[1]


def test_nonsense_in_one_figure_leaves_room_for_the_others():
    row = shown(of_rows(a_row(held=a_window(throughput=1e300))))[1]
    assert "42 %" in row and "1,000,000,0…" in row


def test_the_foot_tells_which_rows_are_here():
    view = of_rows(*(a_row(number) for number in range(4)), offset=12, matched=40)
    assert shown(view, a_ui(cursor=12, window="1m"), rows=6)[-1] == (
        " 40 processes, 13 to 16 here                                by life, last minute")


# --- cursor --------------------------------------------------------------------------------------

def test_enter_opens_the_row_that_was_shown_under_the_cursor():
    view = of_rows(a_row(1), a_row(2), offset=10, matched=20)
    assert [processes.row(view, a_ui(cursor=cursor)) for cursor in (9, 10, 11, 12)] == [
        None, ("process", 801, 1), ("process", 802, 2), None]
    assert processes.count(view, a_ui()) == 20


def test_the_cursor_of_a_table_that_became_shorter_is_on_its_last_row():
    view = of_rows(a_row(1), a_row(2))
    assert processes.row(view, a_ui(cursor=9)) == ("process", 802, 2)
    assert [row[:6] for row in shown(view, a_ui(cursor=9), rows=3)] == ["   pid", "   801", "  >802"]


def test_without_an_answer_there_are_no_rows():
    assert (processes.count({}, a_ui()), processes.row({}, a_ui())) == (0, None)


def test_without_a_cursor_no_row_is_marked():
    view, ui = of_rows(a_row(1), a_row(2)), a_ui(cursor=-1)
    assert [row[:6] for row in shown(view, ui, rows=3)] == ["   pid", "   801", "   802"]
    assert processes.row(view, ui) is None and "&offset=0&" in path(ui)


# --- nothing to show -----------------------------------------------------------------------------

def test_an_empty_table_says_why():
    def said(*rows, **more):
        return shown(of_rows(*rows, matched=more.pop("matched", None)), a_ui(**more), rows=3)[-1]
    assert [said(), said(filter=1), said(search="x"), said(matched=3, cursor=50)] == [
        " no process has sent anything yet", " no process matches: Esc ends the search, f shows others",
        " no process matches: Esc ends the search, f shows others", " the list has become shorter: Up goes to its end"]


def test_an_answer_that_has_not_come_yet_is_waited_for():
    assert shown({}) == [" asking the collector"]


def test_an_answer_that_is_an_error_is_shown():
    assert shown({"errors": {"processes": "no group 'x'\x1b"}}) == [" no group 'x'\\x1b"]


# --- one process ---------------------------------------------------------------------------------

OPEN = ("process", 807, 7)


def fields(**more):
    return {"sample_period": 1.0, "switch_interval": 0.005, "request_count": 2, "request_time": 0.1,
            "server_time": 0.005, "queue_time": 0.005, "daemon_time": 0.01, "application_time": 0.08,
            "gil_wait_time": 0.001,
            "input_read_time": 0.0, "output_write_time": 0.002, "request_threads_current_elapsed": [0.0, 9.4, 0.0, 0.0],
            "request_threads_busy_time": [1.0, 1.0, 0.0, 0.0], "request_threads_cpu_time": [0.25, 0.0, 0.0, 0.0],
            "request_threads_completed": [2, 0, 0, 0], "request_threads_max_duration": [0.06, 0.0, 0.0, 0.0],
            **more}


def an_entry(thread=2, **more):
    return {"pid": 807, "process": 7, "thread_id": thread, "life": "active", "age_s": 9.5, "duration": 9.0,
            "method": "GET",
            "script_name": "/shop", "path_info": "/reports", "status": 0, "ended": None, **more}


def an_event(kind, **more):
    return {"kind": kind, "pid": 807, "stamp": NOW - 60.0, "received": NOW - 60.0, "shutdown_reason": "", **more}


def an_opened(*requests, events=(), series=None, newest=None, **more):
    """The answers for an opened process."""
    row = {**a_row(7), "versions": {"mod_wsgi_version": "6.1.1", "python_version": "3.11.2",
                                    "apache_version": "Apache/2.4.62", "mpm_name": "event"},
           "newest": {"age_s": 0.5, "fields": fields() if newest is None else newest}, "gc": {}, **more}
    view = {"process": {"time": NOW, "processes": [row],
                        "slow_requests": [{"key": [], "entry": each} for each in requests],
                        "lifecycle_events": list(events)}}
    if series is not None:
        view["process_series"] = {"process": 7, "step_s": 5.0, "columns": ["time", "throughput", "mean"],
                                  "points": series}
    return view


def opened(view, rows=60, cols=80, **more):
    return shown(view, a_ui(open=OPEN, **more), rows, cols)


def below(title, lines):
    """Lines below the one that begins with a title, as far as they are indented."""
    at = next(place for place, text in enumerate(lines) if text.startswith(title))
    rest = lines[at + 1:]
    return rest[:next((place for place, text in enumerate(rest) if text and not text.startswith(" ")), len(rest))]


def test_all_about_one_process_at_80_columns():
    view = an_opened(
        an_entry(), an_entry(3, life="completed", duration=4.0, age_s=4.0, status=200, ended=NOW - 9.0),
        events=[an_event("process_started")], series=[None, [NOW - 10.0, 6.0, 0.1], [NOW - 5.0, 12.0, 0.2]],
        gc={"": {"gc_is_enabled": 1, "gc_count0": 612, "gc_count1": 9, "gc_count2": 3, "gc_threshold0": 700,
                 "gc_threshold1": 10, "gc_threshold2": 10, "gc_collections0": 12, "gc_collections1": 1,
                 "gc_collections2": 0, "gc_uncollectable0": 0, "gc_uncollectable1": 0, "gc_uncollectable2": 0}},
        sources={"reporter": {"received": 900, "lost": 2, "uncertain": 1, "late": 0, "duplicates": 0}})
    assert opened(view) == [
        "pid 807 of shop on web1",
        "running since 20:13 (2.0 h); its pid is alive",
        "daemon, parent 700, uid 33, known for 2.0 h, heard 500 ms ago",
        "mod_wsgi 6.1.1, Python 3.11.2, Apache/2.4.62, MPM event",
        "last minute",
        "req/s    12.3      busy     42 %      used     3/5       slow now 0",
        "mean     50.0 ms   p50      40.0 ms   p95      340 ms    p99      1.2 s",
        "longest  2.5 s     requests 738       5xx      0         4xx      8",
        "cpu      0.44      rss      73.7 MB   rss most 80.0 MB   GIL wait 2 %",
        "GC       10.0 ms   GC most  5.0 ms    in       1.0 kB    out      200 kB",
        "threads  1 of 4 run a request; newest tick 500 ms old",
        "thread   runs for  busy            cpu done longest request",
        "     2 9    9.4 s 100 % ████████   0 %    0       - GET /shop/reports",
        "     1 :     idle 100 % ████████  25 %    2 60.0 ms",
        " 2 threads idle for the whole tick",
        "slow requests",
        "thread state         took    ended status request",
        "     3 completed    4.0 s 22:13:11    200 GET /shop/reports",
        "mean request  of 2 requests in the newest tick, 100 ms",
        " ssssqqqqddddddddaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        " s server 5.0 ms  q queue 5.0 ms  d daemon 10.0 ms  a application 80.0 ms",
        " of which GIL wait 1.0 ms, input read 0.0 ms, output write 2.0 ms",
        "history  of 15.0 s, newest at the right; gaps: nothing was received",
        " req/s" + " " * 22 + "▅" * 19 + "█" * 19 + " max      12.0",
        " busy" + " " * 62 + "max         -",
        " cpu" + " " * 63 + "max         -",
        " rss" + " " * 63 + "max         -",
        " mean" + " " * 23 + "▅" * 19 + "█" * 19 + " max    200 ms",
        " longest" + " " * 59 + "max         -",
        " 5xx" + " " * 63 + "max         -",
        "garbage collection  pressure and collections by generation",
        "interpreter   gc     count/threshold collections uncollectable",
        "(main)        on 612/700  9/10  3/10    12  1  0       0  0  0",
        "events  newest first",
        " 22:12:20 started",
        "datagrams  a tick every 1.0 s, requests are slow from 2.0 s, GIL switch interva…",
        " reporter 900 received, 2 lost, 1 uncertain, 0 late, 0 duplicates"]


KERNEL = {"sampled_at": NOW - 4.0, "state": "S", "threads": 6, "files": 1010, "files_limit": 1024, "wait": "poll (do_poll)",
          "files_grown": 320, "files_grown_s": 540.0, "voluntary_switches_per_s": 812.4, "involuntary_switches_per_s": 3.0,
          "pss_bytes": 120_000_000, "unknown": {}}


@pytest.mark.parametrize("more, words, style", [
    ({}, "kernel: 1,010 of 1,024 files open (+320 in 9 min), 6 threads, sleeping in poll (do_poll), 812 waits/s, 3 preemptions/s, "
         "pss 120 MB, looked at 4.0 s ago", "warn"),
    ({"files": 20, "files_grown": -2, "wait": None, "voluntary_switches_per_s": None, "pss_bytes": None},
     "kernel: 20 of 1,024 files open (-2 in 9 min), 6 threads, sleeping, 3 preemptions/s, looked at 4.0 s ago", "dim"),
    ({"files": None, "files_grown": None, "state": "D", "wait": "fsync\x1b[2J"},
     "kernel: 6 threads, uninterruptible in fsync\\x1b[2J, 812 waits/s, 3 preemptions/s, pss 120 MB, looked at 4.0 s ago", "warn"),
    ({"files": 20, "files_limit": None, "files_grown": 0, "state": "?"},
     "kernel: 20 files open, 6 threads, - in poll (do_poll), 812 waits/s, 3 preemptions/s, pss 120 MB, looked at 4.0 s ago", "dim")])
def test_what_the_kernel_says_of_it_is_one_line(more, words, style):
    lines = processes.body(an_opened(kernel={**KERNEL, **more}), a_ui(open=OPEN), Size(60, 200))
    [found] = [each for each in lines if plain([each]).startswith("kernel: ")]
    assert plain([found]).rstrip() == words and found[0].style == style
    assert "kernel: " not in "".join(opened(an_opened(kernel=None)))


@pytest.mark.parametrize("more, words", [
    (dict(life="silent", silent_s=40.0, alive=True), "silent for 40.0 s; its pid is alive"),
    (dict(life="silent", silent_s=40.0, alive=None), "silent for 40.0 s"),
    (dict(life="stopping", life_since=NOW - 12.0, stopping={"reason": "request_timeout", "active": 1}, alive=None),
     "stopping for 12.0 s: request_timeout, 1 request inside when it was decided"),
    (dict(life="stopped", life_since=NOW - 12.0, alive=None, stopped={
        "reason": "graceful_signal", "drained": 1, "active": 0, "uptime": 3600.0, "requests": 99}),
     "stopped 12.0 s ago: graceful_signal, drained, 0 inside at the end; up 60 min, 99 requests in its life"),
    (dict(life="vanished", life_since=NOW - 12.0, alive=False),
     "vanished 12.0 s ago: its pid is gone, and it said nothing of an end"),
    (dict(life="replaced", life_since=NOW - 12.0, alive=None), "replaced 12.0 s ago: another process has its pid"),
    (dict(life="started", life_since=NOW - 2.0, alive=None), "started since 22:13 (2.0 s)")])
def test_its_life_is_told_in_words(more, words):
    assert opened(an_opened(**more), cols=120)[1] == words


def test_restarts_that_nobody_saw_and_another_sender_are_told():
    lines = opened(an_opened(restarts_unseen=1, sender_pid=4711))
    assert lines[2].startswith("daemon, parent 700, sends as pid 4711, uid 33")
    assert lines[4] == "1 restart that nobody saw"
    assert "sends from outside our pids" in opened(an_opened(sender_pid=0))[2]


def test_an_idle_thread_that_was_busy_all_the_tick_is_idle():
    """The existing console showed idle slots at 100 % busy."""
    slot = process.slot_of(0, {"elapsed": 0.0, "busy": 1.0, "cpu": 0.5, "completed": 3, "longest": 0.4})
    assert slot == (1, 0.0, ":", 1.0, 0.5, 3, 0.4)
    assert not process.runs(slot)


def test_the_letter_of_a_slot_tells_how_long_its_request_runs():
    ages = (0.0, 0.2, 1.9, 9.99, 10.0, 29.0, 30.0, 60.0, 299.0, 300.0, 1e12, None, -1.0)
    assert "".join(process.slot_of(0, {"elapsed": age}).letter for age in ages) == ".019aabccDD?."


def test_busy_is_over_the_period_of_the_tick_and_never_more_than_all_of_it():
    told = process.slots_told(fields(sample_period=4.0, request_threads_busy_time=[9.0, 2.0, None]))
    assert [process.slot_of(place, each).busy for place, each in enumerate(told)] == [1.0, 0.5, None, None]


def test_of_a_silent_process_the_ages_count_on():
    view = an_opened(life="silent", silent_s=40.0)
    view["process"]["processes"][0]["newest"]["age_s"] = 40.0
    lines = opened(view)
    assert "threads  1 of 4 run a request; newest tick 40.0 s old, ages count on since" in lines
    assert "     2 b   49.4 s 100 % ████████   0 %    0       -" in lines


def test_threads_are_not_told_before_the_first_tick():
    view = an_opened()
    view["process"]["processes"][0]["newest"] = None
    assert "threads  no tick yet" in opened(view)


def test_of_two_slow_requests_in_one_thread_the_one_of_its_age_is_in_it():
    lines = opened(an_opened(an_entry(age_s=70.0, path_info="/old"), an_entry(age_s=9.0, path_info="/now")))
    assert lines[12].endswith(" GET /shop/now")
    assert "GET /shop/old" in lines[lines.index("slow requests") + 2]


def test_slow_requests_of_another_process_with_its_pid_are_not_its_own():
    assert "reports" not in "\n".join(opened(an_opened(an_entry(process=99))))


def test_of_slow_requests_that_ended_the_newest_are_shown():
    ended = [an_entry(3, life="completed", ended=NOW - number, path_info=f"/{number}") for number in range(9, 0, -1)]
    lines = opened(an_opened(*ended))
    at = lines.index("slow requests  the newest 5 of 9 that have ended")
    assert [each.split("/shop")[1] for each in lines[at + 2:at + 7]] == ["/1", "/2", "/3", "/4", "/5"]


def test_the_newest_event_comes_first():
    events = [an_event("process_started", received=NOW - 60.0), an_event("process_stopping", received=NOW - 1.0)]
    assert below("events", opened(an_opened(events=events))) == [
        " 22:13:19 is stopping", " 22:12:20 started"]


def test_an_opened_process_scrolls_to_its_last_line_and_no_further():
    view, every = an_opened(), opened(an_opened())
    assert opened(view, rows=10) == every[:10]
    assert opened(view, rows=10, scroll=3) == every[3:13]
    assert opened(view, rows=10, scroll=999) == every[-10:]


def test_the_answer_about_another_process_is_not_shown():
    view = an_opened(id=8)
    assert opened(view) == [" asking the collector"]


def test_the_history_of_another_process_is_not_shown():
    view = an_opened(series=[])
    view["process_series"]["process"] = 8
    assert below("history", opened(view)) == [" asking the collector"]


def test_a_process_that_is_forgotten_says_so():
    view = {**an_opened(), "errors": {"process": "no process 807 is known"}}
    assert opened(view) == [" no process 807 is known"]


# --- with a collector ----------------------------------------------------------------------------

def test_every_column_that_can_be_sorted_by_is_one_that_the_collector_knows():
    looking = Looking(*simulated("slow", 20.0), view="processes")
    for _ in processes.SORTS:
        looking.press(">")
        assert looking.view["errors"] == {} and len(looking.view["processes"]["processes"]) == 4
        looking.press("r")
        assert looking.view["errors"] == {}


def test_the_busiest_process_is_on_top_when_sorted_by_busy():
    looking = Looking(*simulated("slow", 20.0, processes=8), view="processes")
    while processes._sorted(looking.ui).name != "busy":
        looking.press(">")
    shares = [row["windows"]["1m"]["capacity"] for row in looking.view["processes"]["processes"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 8


def test_a_process_that_was_killed_by_its_timeout_is_found_by_search_and_opened():
    looking = Looking(*simulated("crash-loop", 58.0), view="processes")
    looking.press("/", *"stopping", "enter")
    assert [row["life"] for row in looking.view["processes"]["processes"]] == ["stopping"]
    looking.press("enter")
    lines = looking.screen().splitlines()[3:]
    assert lines[0].startswith("pid 2000") and ": request_timeout, " in lines[1]


def test_the_table_pages_through_more_processes_than_rows():
    looking = Looking(*simulated("steady", 5.0, processes=30), view="processes")
    looking.press("end")
    lines = looking.screen().splitlines()
    assert lines[-2].startswith(" 30 processes, 19 to 30 here")
    assert lines[4 + 11].split()[0] == f">{looking.view['processes']['processes'][-1]['pid']}"


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_can_be_looked_at_and_each_process_opened(name):
    fleet = captured(name)
    for glyphs in (UNICODE, ASCII):
        for size in (DESIGN, WIDE, SMALL):
            check_every_row(Looking(*fleet, glyphs=glyphs, size=size, view="processes"), glyphs)


# --- any answer, any size ------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(150))
def test_any_answer_fits_any_size(seed):
    print("seed", seed)
    choose = random.Random(seed)
    size = Size(choose.randrange(61), choose.randrange(1, 301))
    view = {**of_rows(*(choose.choice((a_row, silent))(number) for number in range(choose.randrange(70))),
                      matched=choose.randrange(99), offset=choose.randrange(9)),
            **an_opened(an_entry(), an_entry(3, life="completed", ended=NOW), events=[an_event("process_stopped")],
                        series=[None, [NOW, 1.0, 2.0]], kernel=KERNEL, gc={name: {"gc_is_enabled": 1} for name in HOSTILE},
                        sources={name: {"received": 1, "lost": 1} for name in HOSTILE})}
    view = scrambled(view, choose)
    for glyphs in (UNICODE, ASCII):
        for more in ({}, {"open": OPEN}, {"open": OPEN, "scroll": choose.randrange(99)}):
            sort = choose.choice((*processes.SORTS, "", "no such"))
            ui = a_ui(glyphs, cursor=choose.randrange(80), sort=sort, **more)
            check_fits(processes.body(view, ui, size), size, glyphs)
            processes.count(view, ui)
            processes.row(view, ui)
            assert processes.paths(ui, size)
