"""The console's slow requests: the table, and all of one request.

Invariant of the last test: for any answer and size at most so many Lines, none wider than the
screen, nothing in them that a terminal could take for more than a letter.
"""
import random

import pytest

from builders import Worker, a_fleet, fold
from console_answers import HOSTILE, at_greenwich, check_fits
from consoles import NOW, Looking, captured
from modwsgi_tel.console import slow
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui

TIME = 1_700_000_000.0


@pytest.fixture(autouse=True)
def greenwich():
    yield from at_greenwich()


def an_entry(**more):
    """An active request, 12 s old."""
    return {**dict(
        id=5, pid=812, process=1, process_group="shop", sender_pid=812, thread_id=3, server_pid=900, log_id="Abc",
        state=0, method="GET", scheme="https", hostname="shop.example", script_name="", path_info="/reports",
        peer_ip="192.0.2.1", protocol="HTTP/1.1", user_agent="curl/8", start_stamp=TIME - 12.5, duration=12.0,
        age_s=12.4, life="active", phase="application", unheard=0.4, status=0,
        first_received=TIME - 9.5, received=TIME - 0.4, ended=None,
        input_bytes=0, input_reads=1, output_bytes=2048, output_writes=4, cpu_user_time=1.0, cpu_system_time=0.2,
        server_time=0.5, queue_time=1.0, daemon_time=0.5, application_time=12.0, gil_wait_time=3.0, gil_wait_count=42,
        input_read_time=0.001, output_write_time=0.002, active_at_start=4, active_at_completion=0), **more}


def an_answer(*entries, **more):
    rows = [{"key": [entry["pid"], entry["log_id"]], "entry": entry} for entry in entries]
    return {"time": TIME, "kept": len(rows), "evicted": 0, "matched": len(rows), "offset": 0, "slow_requests": rows,
            **more}


def a_ui(table=Table(), glyphs=UNICODE, **more):
    return Ui(view="slow", tables=(("slow", table),), glyphs=glyphs, **more)


def drawn(view, ui=None, rows=20, cols=80):
    return plain(slow.PANE.body(view, ui or a_ui(), Size(rows, cols))).splitlines()


# --- the table ------------------------------------------------------------------------------

def test_each_request_is_a_row_and_a_host_that_all_share_is_said_once():
    ended = an_entry(id=6, pid=1813, life="completed", age_s=2.25, phase=None, status=503, method="POST",
                     path_info="/up")
    assert drawn({"slow": an_answer(an_entry(), ended)}) == [
        " 2 slow requests, running and ended                          all at shop.example",
        " state▲       age phase         pid group method status url",
        ">active    12.4 s application   812 shop  GET         - /reports",
        " completed  2.2 s -            1813 shop  POST      503 /up"]


def test_hosts_that_differ_are_in_the_url_behind_the_path_where_there_is_little_room():
    answer = an_answer(an_entry(), an_entry(hostname="api.example", script_name="/v1"))
    assert drawn({"slow": answer}) == [
        " 2 slow requests, running and ended",
        " state▲    age phase         pid group method status url",
        ">active 12.4 s application   812 shop  GET         - /reports (shop.example)",
        " active 12.4 s application   812 shop  GET         - /v1/reports (api.example)"]
    assert [row.split()[8] for row in drawn({"slow": answer}, cols=120)[2:]] == [
        "shop.example/reports", "api.example/v1/reports"]


def test_the_group_goes_before_the_url_gets_too_short():
    long = an_answer(an_entry(life="completed", method="PROPFIND", process_group="a-longer-name"))
    assert drawn({"slow": long})[1] == " state▲       age phase         pid method   status url"
    assert drawn({"slow": long}, cols=90)[1] == " state▲       age phase         pid group         method   status url"


def test_a_wide_terminal_has_more_columns():
    assert drawn({"slow": an_answer(an_entry())}, cols=130) == [
        " 1 slow request, running and ended",
        " state▲    age phase         pid group method status url                                   "
        "started GIL wait   cpu output peer",
        ">active 12.4 s application   812 shop  GET         - shop.example/reports                 "
        "22:13:07    3.0 s 1.2 s 2.0 kB 192.0.2.1"]


def test_a_narrow_terminal_keeps_state_age_and_url():
    assert drawn({"slow": an_answer(an_entry())}, a_ui(glyphs=ASCII), rows=6, cols=40) == [
        " 1 slow request, running and ended",
        " state^    age status url",
        ">active 12.4 s      - /reports"]


def test_what_was_dropped_for_want_of_room_is_said():
    answer = an_answer(an_entry(), matched=1, kept=1200, evicted=34)
    ui = a_ui(Table(search="rep"))
    assert drawn({"slow": answer}, ui)[0] == (
        " 1 of 1,200 slow requests  34 more dropped for want of room (--max-slow, --slo…")
    assert drawn({"slow": dict(answer, evicted=0)}, ui)[0] == (
        " 1 of 1,200 slow requests  with rep                          all at shop.example")


def test_no_request_at_all_is_explained_and_a_filter_that_leaves_none_is_another_thing():
    assert drawn({"slow": an_answer()}) == [
        " 0 slow requests, running and ended", "", " None runs, and none has ended of late.",
        " mod_wsgi sends them with WSGISlowRequests SECONDS in Apache's configuration;",
        " with the prefork MPM it sends none. Under any server an agent in the",
        " application sends them: see man modwsgi-tel."]
    assert drawn({"slow": an_answer(kept=3)}, a_ui(Table(filter=3))) == [
        " 0 of 3 slow requests", "", " None of them is meant: / searches anew, f shows others, G other groups."]


def test_the_first_moment_and_an_answer_that_is_an_error_are_told_apart():
    assert drawn({}) == [" asking the collector"]
    assert drawn({"errors": {"slow": "sort=x: one of\x1b[0m"}}) == [" sort=x: one of\\x1b[0m"]


def test_the_collector_is_asked_for_the_page_of_the_cursor_in_the_order_chosen():
    size = Size(20, 80)
    assert slow.PANE.paths(a_ui(), size) == {"slow": "/api/slow?sort=state&order=asc&offset=0&limit=18"}
    ui = a_ui(Table("age", False, 1, "a b&ü\ud800", 40), group="")
    assert slow.PANE.paths(ui, size) == {
        "slow": "/api/slow?sort=age&order=desc&offset=36&limit=18&life=active,stale&search=a%20b%26%C3%BC%3F&group="}
    assert slow.PANE.paths(a_ui(Table("age", True)), size)["slow"].startswith("/api/slow?sort=age&order=asc&")
    assert slow.PANE.paths(a_ui(open=("slow", 7)), size) == {
        "slow_one": "/api/slow?id=7", "stacks_state": "/api/stacks?limit=0"}


def test_the_arrow_at_the_sorted_column_shows_which_way():
    assert drawn({"slow": an_answer(an_entry())}, a_ui(Table("age")))[1].split()[1] == "age▼"
    assert drawn({"slow": an_answer(an_entry())}, a_ui(Table("age", True)))[1].split()[1] == "age▲"


def test_the_row_under_the_cursor_is_what_enter_opens():
    entries = [an_entry(id=number) for number in range(20, 25)]
    view = {"slow": an_answer(*entries, matched=25, offset=20)}
    ui = a_ui(Table(cursor=22))
    assert (slow.PANE.count(view, ui), slow.PANE.row(view, ui)) == (25, ("slow", 22))
    lines = slow.PANE.body(view, ui, Size(20, 80))
    assert [place for place, spans in enumerate(lines) if spans[0].style == "select"] == [4]
    # an answer to another page: nothing is under the cursor until the right one is there
    assert slow.PANE.row(view, a_ui(Table(cursor=3))) is None
    assert slow.PANE.row({}, ui) is None


def test_without_a_cursor_no_row_is_marked():
    view, ui = {"slow": an_answer(an_entry())}, a_ui(Table(cursor=-1))
    assert drawn(view, ui)[2].startswith(" active 12.4 s ")
    assert slow.PANE.row(view, ui) is None
    assert slow.PANE.paths(ui, Size(20, 80))["slow"].endswith("&offset=0&limit=18")


# --- one request ----------------------------------------------------------------------------

def test_an_opened_request_shows_all_that_is_known():
    view = {"slow_one": an_answer(an_entry())}
    assert drawn(view, a_ui(open=("slow", 5))) == [
        " GET https://shop.example/reports",
        " active for 12.4 s, in application, last heard of 400 ms ago",
        "",
        " sssqqqqqdddaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        " So far    s server 500 ms 4 %   q queue 1.0 s 7 %   d daemon 500 ms 4 %",
        "           a application 12.0 s 86 %",
        " of which  GIL wait 3.0 s in 42 waits, 25 % of application   input read 1.0 ms",
        "           output write 2.0 ms",
        "",
        " Request   status -   protocol HTTP/1.1   peer 192.0.2.1   agent curl/8",
        " Where     pid 812   process group shop   thread 3   Apache child 900",
        "           log id Abc",
        " When      started 22:13:07   heard of 22:13:10 to 22:13:19   ended -",
        " CPU       user 1.0 s   system 200 ms   of its time 10 %",
        " Bytes     input 0 B in 1 read   output 2.0 kB in 4 writes",
        " In flight at its start 4   at its end -   in its process, itself included"]


@pytest.mark.parametrize("changes, said", [
    (dict(life="stale", age_s=12.0, unheard=8.0, phase=None),
     " stale: 12.0 s old when it was last heard of, 8.0 s ago; its process goes on"),
    (dict(life="lost", age_s=12.0, unheard=None, phase=None),
     " lost: its process ended with it inside; it was 12.0 s old when it was last"),
    (dict(life="completed", age_s=12.0, unheard=None, phase=None, status=200), " completed after 12.0 s")])
def test_its_state_is_said_in_words(changes, said):
    assert drawn({"slow_one": an_answer(an_entry(**changes))}, a_ui(open=("slow", 5)))[1] == said


def test_without_a_daemon_process_there_is_no_queue_time_instead_of_none_of_it():
    embedded = an_entry(process_group="", queue_time=0.0, daemon_time=0.0)
    lines = drawn({"slow_one": an_answer(embedded)}, a_ui(open=("slow", 5)))
    assert lines[4:6] == [" So far    s server 500 ms 4 %   q queue -   d daemon -",
                          "           a application 12.0 s 96 %"]


def test_a_long_url_is_shown_whole():
    path = "/" + "x" * 200
    lines = drawn({"slow_one": an_answer(an_entry(path_info=path))}, a_ui(open=("slow", 5)))
    assert "".join(each[1:] for each in lines[:3]) == "GET https://shop.example" + path


def test_figures_out_of_all_bounds_leave_room_for_the_others():
    row = an_entry(age_s=1e308, gil_wait_time=1e308)
    assert drawn({"slow": an_answer(row)})[1:] == [
        " state▲          age phase         pid group method status url",
        ">active 11574074074… application   812 shop  GET         - /reports"]
    lines = drawn({"slow_one": an_answer(an_entry(server_time=1e308, application_time=1e308))}, a_ui(open=("slow", 5)))
    assert lines[3] == " " + "s" * 39 + "a" * 39


def test_until_its_own_answer_is_there_the_row_of_the_table_is_shown():
    ui = a_ui(open=("slow", 5))
    assert drawn({"slow": an_answer(an_entry())}, ui) == drawn({"slow_one": an_answer(an_entry())}, ui)


def test_a_request_whose_record_is_gone_says_so():
    view = {"slow": an_answer(an_entry()), "slow_one": an_answer()}
    assert drawn(view, a_ui(open=("slow", 5))) == [
        " This request's record is gone.",
        "",
        " An ended request is kept for 10 minutes, or as serve's --slow-retention says;",
        " not as long when there is no room for all (--max-slow, --slow-bytes). Esc leads",
        " back to those that are kept."]


def test_what_does_not_fit_is_scrolled_to():
    view, ui = {"slow_one": an_answer(an_entry())}, a_ui(open=("slow", 5))
    whole = drawn(view, ui, rows=60, cols=40)
    assert drawn(view, ui._replace(scroll=2), rows=6, cols=40) == whole[2:8]
    assert drawn(view, ui._replace(scroll=1 << 30), rows=6, cols=40) == whole[-6:]


# --- on a real collector's answers ----------------------------------------------------------

def test_keys_lead_through_the_requests_of_a_capture():
    looking = Looking(*captured("daemon_mixed"), view="slow")
    assert looking.view["errors"] == {} and looking.view["slow"]["matched"] == 37
    first = looking.screen().splitlines()
    assert first[5].split() == [">active", "15.0", "s", "application", "8905", "GET", "-", "/slow"]
    looking.press("f", "f")
    assert {row["entry"]["life"] for row in looking.view["slow"]["slow_requests"]} == {"completed"}
    looking.press("f", "f", "pgdn", "end", "enter")
    assert looking.ui.open == ("slow", looking.view["slow_one"]["slow_requests"][0]["entry"]["id"])
    looking.press("esc", "/", *"stream", "enter")
    assert {row["entry"]["script_name"] for row in looking.view["slow"]["slow_requests"]} == {"/stream"}


def test_the_oldest_active_request_comes_first():
    worker = Worker()
    fleet = fold(a_fleet(), worker.tick(), worker.slow("a", slow_duration=3.0), worker.slow("b", slow_duration=9.0),
                 worker.slow("c", True, slow_duration=60.0), now=NOW)
    looking = Looking(fleet, NOW + 1, TIME + NOW + 1, view="slow")
    assert [each.split()[:2] for each in looking.screen().splitlines()[5:8]] == [
        [">active", "10.0"], ["active", "4.0"], ["completed", "60.0"]]


def test_all_columns_that_can_be_sorted_by_are_known_to_the_collector():
    looking = Looking(*captured("smoke"), view="slow")
    for _ in slow.PANE.sorts:
        looking.press(">")
        assert looking.view["errors"] == {}


# --- properties -----------------------------------------------------------------------------

def any_value(rng):
    return rng.choice((None, None, 0, -1, 1.5, 1e308, -1e308, 2 ** 64, rng.random() * 1000, int(TIME)))


def any_entry(rng):
    entry = an_entry(id=rng.randrange(50))
    for name in entry:
        if rng.random() < 0.4 and name not in ("id", "life"):
            entry[name] = rng.choice((None, rng.choice(HOSTILE))) if isinstance(entry[name], str) else any_value(rng)
    entry["life"] = rng.choice(("active", "stale", "lost", "completed", None))
    return entry


def any_ui(rng, glyphs):
    table = Table(rng.choice(("", *slow.SORTS, "odd")), rng.random() < 0.5, rng.randrange(9), rng.choice(HOSTILE),
                  rng.randrange(60))
    return a_ui(table, glyphs, open=rng.choice((None, ("slow", rng.randrange(50)))), scroll=rng.choice((0, 3, 1 << 30)),
                group=rng.choice((None, *HOSTILE)))


@pytest.mark.parametrize("glyphs", (UNICODE, ASCII), ids=("unicode", "ascii"))
def test_any_answer_fits_any_screen(glyphs):
    rng = random.Random(4)
    for _ in range(300):
        size = Size(rng.randrange(61), rng.randrange(1, 301) if rng.random() < 0.7 else rng.randrange(1, 30))
        ui, view = any_ui(rng, glyphs), {}
        for name in ("slow", "slow_one"):
            if rng.random() < 0.8:
                entries = [any_entry(rng) for _ in range(rng.randrange(8 if name == "slow_one" else 60))]
                view[name] = an_answer(*entries, offset=rng.choice((0, 0, 20)), matched=rng.choice((None, 0, 70)),
                                       evicted=any_value(rng) and 12)
        view["errors"] = rng.choice(({}, {"slow": HOSTILE[0], "slow_one": HOSTILE[1]}))
        slow.PANE.paths(ui, size)
        slow.PANE.row(view, ui)
        check_fits(slow.PANE.body(view, ui, size), size, glyphs)
