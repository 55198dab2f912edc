"""What agents tell, in the console: an opened slow request and process, the overview, the panes of times and of exceptions.

What holds for all answers and sizes: never more than `rows` Lines, none wider than `cols` cells, nothing that is not printable, and
nothing but ASCII where no more can be shown.
"""
import random

import pytest

from console_answers import HOSTILE, NUMBERS, a_view, at_greenwich, check_every_row, check_fits, fuzzed, some_frames
from consoles import DESIGN, SMALL, WIDE, Looking
from insiders import APP, told
from modwsgi_tel.console import exceptions, inside, pivots, slow, views
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.frames import drawn, frames_of
from modwsgi_tel.console.keys import Table, Ui

NOW = 1_700_000_000.0
CALLS = ("cell", "/srv/app/cells.py", 9), ("report", "/srv/app/views.py", 42), ("application", "/srv/app/wsgi.py", 3)


@pytest.fixture(autouse=True)
def greenwich():
    yield from at_greenwich()


@pytest.fixture(scope="module")
def fleet():
    return told()


def lines(made, cols=80, glyphs=UNICODE):
    return plain([drawn(each, cols, glyphs) for each in made]).splitlines()


def a_stack(number=3, elapsed=9.0, *calls, **more):
    return {"number": number, "elapsed_s": elapsed, "tid": 77, "thread": "pool_1", "frames": some_frames(*(calls or CALLS)), "left_out": 0,
            "cut_at": None, "state": "running", "cpu_s": 0.5, "waits": None, "problem": None, "locals": None, **more}


def an_agent(last=None, pivot=CALLS[1:], stacks=3, history=(), **more):
    return {"annotations": {}, "stacks": stacks, "exception": None, "pivot": some_frames(*pivot), "pivot_s": 9.0, "last": last or a_stack(),
            "history": list(history), **more}


def an_entry(agent, **more):
    """Active for 10 s; its agent's newest stack is a second old."""
    return {"id": 5, "pid": 812, "process": 1, "life": "active", "age_s": 10.0, "ended": None, "received": NOW, "method": "GET",
            "path_info": "/report", "stack": None, "source": "agent", "agent": agent, **more}


def outside(age_s, *calls):
    return {"taken": NOW - age_s, "age_s": age_s, "tid": 77, "how": "environ", "whole": True, "problem": None,
            "frames": some_frames(*(calls or (("match", "/lib/re.py", 1),)))}


def place(entry, now=NOW):
    return lines(inside.place_of(entry, now, 80, UNICODE))


def stacks(entry, now=NOW, cols=80, active=True, **view):
    return lines(inside.of_slow(entry, a_view(**view), now, cols, UNICODE, active), cols)


def waits(kind, tid=None, request=None):
    return {"kind": kind, "owner_tid": tid, "owner_request": request}


# --- a slow request -------------------------------------------------------------------------------

def test_where_all_stacks_of_a_request_are_is_told_from_where_the_newest_is():
    assert place(an_entry(an_agent())) == [" in app/cells.py:9 cell 1.0 s ago", " all its 3 stacks in app/views.py:42 report"]
    assert stacks(an_entry(an_agent())) == [
        "", ' Stack 3 by its agent, at 9.0 s, 1.0 s ago: thread 77 "pool_1"', " running, 500 ms CPU",
        "   cell        /srv/app/cells.py:9",
        "   below: in all of its 3 stacks; 9.0 s go here",
        "   report      /srv/app/views.py:42", "   application /srv/app/wsgi.py:3"]


def test_a_request_that_stays_where_it_is_says_so():
    assert place(an_entry(an_agent(pivot=CALLS))) == [" in app/cells.py:9 cell 1.0 s ago, as in all its 3 stacks"]
    assert stacks(an_entry(an_agent(pivot=CALLS)))[3] == "   below: in all of its 3 stacks; 9.0 s go here"


def test_of_a_single_stack_nothing_is_set_apart():
    entry = an_entry(an_agent(a_stack(1, 2.0), CALLS, 1))
    assert place(entry) == [" in app/cells.py:9 cell 8.0 s ago"]
    assert stacks(entry)[3:] == ["   cell        /srv/app/cells.py:9", "   report      /srv/app/views.py:42", "   application /srv/app/wsgi.py:3"]


def test_stacks_with_nothing_in_common_say_so_but_not_of_what_a_late_collector_was_not_told():
    nothing = an_agent(pivot=())
    assert stacks(an_entry(nothing))[-1] == "   its stacks have nothing in common"
    late = an_agent(a_stack(problem="2 outer frames were told before this collector came", left_out=2, cut_at=3), pivot=())
    assert stacks(an_entry(late))[3:] == [
        "   [2 outer frames were told before this collector came]", "   cell        /srv/app/cells.py:9", "   report      /srv/app/views.py:42",
        "   application /srv/app/wsgi.py:3", "   [2 frames left out here]"]


@pytest.mark.parametrize("cut_at, at", ((1, 4), (2, 6), (3, 7), (-1, 3), (99, 7), (None, 3)))
def test_what_was_left_out_is_marked_where_it_is_missing(cut_at, at):
    found = stacks(an_entry(an_agent(a_stack(left_out=70, cut_at=cut_at))))
    assert found[at] == "   [70 frames left out here]" and len(found) == 8


@pytest.mark.parametrize("told, words", (
    (None, None), (waits("sleep"), None), (waits("socket"), " waits for a socket"),
    (waits("rlock", 78, "0.7"), " waits for an RLock, which thread 78 has: request 0.7"), (waits("rlock", 78), " waits for an RLock, which thread 78 has"),
    (waits("rlock", None, "0.7"), " waits for an RLock, which request 0.7 has"), (waits("lock"), " waits for a lock, which does not know its owner"),
    (waits("join", 78), " waits for the end of a thread, thread 78"), (waits("pool"), " waits for a pool"),
    (waits("new\x1b[2J"), " waits for new\\x1b[2J")), ids=str)
def test_what_it_waits_for_and_who_has_it_stands_on_top(told, words):
    found = place(an_entry(an_agent(a_stack(waits=told))))
    assert found[2:] == ([] if words is None else [words])


def test_what_ended_it_stands_on_top():
    entry = an_entry(an_agent(exception="app.Broken\r"), life="completed", ended=NOW - 60.0)
    assert place(entry) == [" in app/cells.py:9 cell at 9.0 s", " all its 3 stacks in app/views.py:42 report",
                            " ended by an exception: app.Broken\\r (x shows where)"]
    assert stacks(entry, active=False)[1] == ' Stack 3 by its agent, at 9.0 s: thread 77 "pool_1"'


def test_the_newer_stack_is_shown_and_the_other_one_is_hinted_at():
    agents = an_entry(an_agent(), stack=outside(30.0))
    assert place(agents)[0] == " in app/cells.py:9 cell 1.0 s ago"
    assert stacks(agents)[-3:] == ["", " Read from outside it was in lib/re.py:1 match, 30.0 s ago; S shows all threads", " of its process."]
    old = an_entry(an_agent(a_stack(3, 3.0)), stack=outside(0.5))
    assert place(old) == [" in lib/re.py:1 match 500 ms ago"]
    assert stacks(old) == [
        "", " Stack of thread 77, taken 500 ms ago; known by the id in its environ", "   match /lib/re.py:1", "",
        " By its agent it was in app/cells.py:9 cell, 7.0 s ago; S shows all threads of", " its process."]


def test_which_was_newer_is_known_of_a_request_that_has_ended():
    for taken, shown in ((61.0, " in lib/re.py:1 match 61.0 s ago"), (66.0, " in app/cells.py:9 cell at 3.0 s")):
        entry = an_entry(an_agent(a_stack(3, 3.0)), life="completed", ended=NOW - 60.0, stack=outside(taken))
        assert place(entry)[0] == shown


def test_what_the_application_said_of_a_request_is_safe():
    entry = an_entry(an_agent(annotations={"us\x1ber": "a\u202eb", "n": "", "many": "x" * 9000}))
    assert inside.annotations(entry, ASCII) == [("us\\x1ber", "a\\u202eb"), ("n", "-"), ("many", "x" * 512)]


def test_which_is_newer_does_not_change_each_second():
    """Both are taken all the time while the request is open."""
    for age in (0.0, 3.0, 5.9):
        assert place(an_entry(an_agent(), stack=outside(age)))[0] == " in app/cells.py:9 cell 1.0 s ago"


def test_a_stack_from_outside_that_could_not_be_joined_is_no_stack():
    unjoined = {**outside(0.0), "frames": [], "how": None, "tid": None, "whole": False, "problem": "not joined: 2 active"}
    entry = an_entry(an_agent(a_stack(3, 1.0)), stack=unjoined)
    assert stacks(entry) == stacks(an_entry(an_agent(a_stack(3, 1.0)))) != []


@pytest.mark.parametrize("more, age", (
    ({}, "2.0 s ago"), ({"life": "stale", "received": NOW - 60.0}, "62.0 s ago"), ({"age_s": None}, "- ago"), ({"age_s": 1.0}, "0.0 ms ago")))
def test_how_old_the_agents_stack_is(more, age):
    assert place(an_entry(an_agent(a_stack(3, 8.0)), **more))[0] == f" in app/cells.py:9 cell {age}"


def test_where_the_stacks_before_were_is_a_line_each_the_newest_first():
    def before(number, elapsed, *hot, **more):
        return {"number": number, "elapsed_s": elapsed, "state": "running", "cpu_s": 0.1, "waits": None, "hot": some_frames(*hot), **more}

    entry = an_entry(an_agent(history=[before(1, 2.0), before(2, 4.0, CALLS[0], waits=waits("rlock", 5)), before(3, 9.0, CALLS[0])]))
    assert stacks(entry)[-4:] == ["", " Where its stacks before were, and when",
                                  "     4.0 s  app/cells.py:9 cell  waits for an RLock, which thread 5 has", "     2.0 s  (the same)  running"]


def test_values_stand_below_the_stack_by_frame_and_are_cut():
    values = [[0, "n", "3"], [0, "text", "word " * 99], [2, "start", "<method>"], [9, "x", "1"], ["no", None, None]]
    found = stacks(an_entry(an_agent(a_stack(locals=values))))
    found = found[found.index(" Arguments and variables, of the innermost first"):]
    assert found == [
        " Arguments and variables, of the innermost first", "   app/cells.py:9 cell", "     n = 3",
        "     text = word word word word word word word word word word word word word", *found[4:6],
        "   app/wsgi.py:3 application", "     start = <method>", "   -", "     x = 1", "   -", "      ="]
    assert found[5].endswith("…") and found[4].startswith("       word word")


def test_a_request_that_is_watched_but_has_no_stack_yet_says_so():
    for active, words in ((True, "none has been taken yet"), (False, "none was taken")):
        entry = an_entry({**an_agent(), "last": None, "pivot": []}, stack=None)
        assert stacks(entry, active=active) == ["", f" Its agent watches it; of its stacks {words}."]
        assert place(entry) == []


def test_what_an_agent_does_not_know_of_a_request_takes_no_line():
    view = {"slow_one": {"time": NOW, "slow_requests": [{"entry": an_entry(an_agent(annotations={"user": "ann"}), log_id="0.3")}]}}
    found = plain(slow.PANE.body(view, Ui(view="slow", glyphs=UNICODE, open=("slow", 5)), Size(40, 80))).splitlines()
    assert found[4:9] == ["", " Where     pid 812   process group (embedded)   log id 0.3",
                          "           told by the agent inside", " When      heard of - to 22:13:20", " Annotated user ann"]


def test_thousands_of_frames_are_cut_where_they_are_seen_only(monkeypatch):
    cut = []
    real = inside.rows_of.__globals__["_path"]
    monkeypatch.setitem(inside.rows_of.__globals__, "_path", lambda *args: cut.append(1) or real(*args))
    calls = [("f", f"/srv/{number}.py", number) for number in range(2000)]
    view = {"slow_one": {"time": NOW, "slow_requests": [{"entry": an_entry(an_agent(a_stack(3, 9.0, *calls)))}]}}
    slow.PANE.body(view, Ui(view="slow", glyphs=UNICODE, open=("slow", 5)), Size(40, 80))
    assert 20 < len(cut) <= 40


# --- a process ------------------------------------------------------------------------------------

def test_a_process_without_an_agent_has_no_section():
    assert inside.of_process(None, 80, UNICODE) == inside.problems(None, 80, UNICODE) == []


def test_agents_of_several_interpreters_are_told_apart_and_what_they_say_is_wrong_stands_on_top():
    def agent(name, **more):
        return {"number": 0, "interpreter": name, "version": "1", "emits": False, "server": "mod_wsgi", "threshold": 2.0, "interval": 1.0,
                "socket": None, "signal": 0, "switches": [], "watchdog_file": None, "problem": None, "lost": 0, "errors": 0, "wakeups": 0,
                "begun": 5, "in_flight": 0, "ignored": 0, "unwatched": 0, "age_s": 1.0, **more}

    told = {"agents": [agent("", problem="gevent: no stacks of greenlets"), agent("site\x1b[2J", lost=4, errors=1),
                       agent("x", problem="gevent: no stacks of greenlets", age_s=None)]}
    assert lines(inside.problems(told, 80, UNICODE)) == ["its agent says: gevent: no stacks of greenlets"]
    assert lines(inside.of_process(told, 80, UNICODE)) == [
        "agent of interpreter (main)  1 in mod_wsgi, said this 1.0 s ago", " on: nothing else; stacks of requests from 2.0 s on, 1.0 s apart",
        " 5 requests begun, 0 in flight", "agent of interpreter site\\x1b[2J  1 in mod_wsgi, said this 1.0 s ago",
        " on: nothing else; stacks of requests from 2.0 s on, 1.0 s apart",
        " 5 requests begun, 0 in flight, 4 datagrams lost, 1 errors of its own",
        "agent of interpreter x  1 in mod_wsgi, has said nothing of itself yet",
        " on: nothing else; stacks of requests from 2.0 s on, 1.0 s apart", " 5 requests begun, 0 in flight"]


def test_what_does_not_fit_or_made_no_sense_is_counted():
    told = {"agents": [], "exceptions": 2, "odd": 3, "locations_lost": 1, "unknown_locations": 0}
    assert lines(inside.of_process(told, 80, UNICODE)) == [
        " 2 exceptions left the application: x shows where", " 3 values of theirs made no sense, 1 places without room"]


def test_memory_has_its_ten_lines_that_grew_most():
    rows = [{"file": f"/srv/{number}.py", "line": number, "function": "", "growth": 5000 - number, "held": 9000, "blocks": 3} for number in range(12)]
    told = {"memory": {"state": "growing", "seconds": 60.0, "traced": 5e6, "peak": None, "overhead": 7e5, "age_s": 1.0, "lines": rows}}
    found = lines(inside.of_process(told, 80, UNICODE))
    assert found[:4] == ["memory growth  growing; since 60.0 s, as of 1.0 s ago", " 5.0 MB traced, 700 kB for the tracing itself",
                         "   grew by     holds   blocks line", "   +5.0 kB    9.0 kB        3 srv/0.py:0"]
    assert found[12:] == ["   +5.0 kB    9.0 kB        3 srv/9.py:9", " and 2 more lines"]


# --- the overview ---------------------------------------------------------------------------------

def test_the_overview_has_a_line_for_what_there_is():
    assert inside.overview(None, None, 80, UNICODE) == inside.overview({"exceptions": 0, "pivots": [], "problems": []}, None, 80, UNICODE) == []
    one = {"exceptions": 9, "exception_places": 1, "top_exceptions": [{"type": "ValueError", "place": "a.py:1 f", "count": 9}], "pivots": [],
           "problems": ["gevent", "other"]}
    assert lines(inside.overview(one, None, 80, UNICODE)) == [
        " agent      gevent (+1 more)", " exceptions 9 from 1 place (key x); most: 9 ValueError at a.py:1 f"]
    assert lines(inside.overview(one, None, 40, ASCII)) == [" agent: gevent (+1 more)", " exceptions: 9 from 1 place (key x);",
                                                      " most: 9 ValueError at a.py:1 f"]


def test_of_a_group_the_overview_says_what_is_known_to_be_of_it():
    def of(group):
        return {"process_group": group, "place": f"{group}.py:1 f", "type": "E", "count": 3, "seconds": 4.0, "requests": 2}

    told = {"exceptions": 9, "exception_places": 2, "top_exceptions": [of("api"), of("shop")], "pivots": [of("api"), of("shop")],
            "problems": ["gevent"]}
    assert lines(inside.overview(told, "shop", 80, UNICODE)) == [
        " exceptions 3 E at shop.py:1 f (key x)", " time goes  4.0 s of 2 long requests in shop.py:1 f (key 0)"]
    assert inside.overview(told, "other", 80, UNICODE) == []
    told["pivots"][1].update(recent_s=2.0, blocked_requests=2, blocked_s=11.7)
    assert lines(inside.overview({**told, "exceptions": 0, "top_exceptions": []}, "shop", 80, UNICODE)) == [
        " time goes  2.0 s in 10 min, of 2 long requests in shop.py:1 f, which makes 2", "            requests wait 11.7 s (key 0)"]


# --- times and exceptions -------------------------------------------------------------------------

def test_what_the_panes_ask_for():
    size = Size(20, 80)
    ui = Ui(view="time", glyphs=UNICODE)
    assert pivots.PANE.paths(ui, size) == {"time": "/api/slow?limit=0&pivots=30"}
    far = ui._replace(tables=(("time", Table(cursor=40)),))
    assert pivots.PANE.paths(far, size) == {"time": "/api/slow?limit=0&pivots=60"}
    assert pivots.PANE.paths(ui._replace(group="a&b"), size) == {"time": "/api/slow?limit=0&group=a%26b&pivots=30"}
    for whole in (ui._replace(open=("pivot", "shop", ())), far._replace(tables=(("time", Table(cursor=999)),))):
        assert pivots.PANE.paths(whole, size) == {"time": "/api/slow?limit=0&pivots=200"}
    ui = Ui(view="exceptions", glyphs=UNICODE, group="a&b", tables=(("exceptions", Table("count", False, 0, "Val", 40)),))
    assert exceptions.PANE.paths(ui, size) == {
        "exceptions": "/api/exceptions?sort=count&order=desc&offset=36&limit=18&search=Val&group=a%26b"}
    assert exceptions.PANE.paths(ui._replace(open=("exception", 3)), size) == {"exceptions_one": "/api/exceptions?id=3"}


def test_keys_lead_through_what_a_collector_tells(fleet):
    console = Looking(*fleet, view="overview")
    console.press("T")
    assert console.view["errors"] == {} and [row["seconds"] for row in console.view["time"]["pivots"]] == [4.0, 5.0, 3.0, 2.5]
    assert " makes 1 request wait 3.0 s; its thread waits in sleep, for nobody in its\n process\n" in console.screen()
    console.press("down", "down", "enter")
    assert console.screen().splitlines()[3:12] == [
        " cart.py:77 put, called from wsgi.py:12", " 3.0 s (3.0 s in the last 10 min) of 1 long request, 1 of them running, of shop",
        " waits for stock.py:301 reserve, called from wsgi.py:12: the rlock says its", " owner: request 0.5", " /cart 1", "",
        " What the stacks of each of these requests have in common", f"   put                 {APP}/cart.py:77",
        "   application         /srv/shop/wsgi.py:12"]
    console.press("esc", "x")
    assert console.view["errors"] == {} and console.view["exceptions"]["counted"] == 8
    console.press("down", "enter")
    assert console.screen().splitlines()[3:7] == [
        " shop.PaymentError", " 1 time in 1 process of shop: first 22:13:29, last 22:13:29, 1.0 s ago", " last by GET /pay (log id 0.2)", ""]
    console.press("esc", "/", *"check", "enter")
    assert [row["type"] for row in console.view["exceptions"]["exceptions"]] == ["ValueError"]
    for _ in exceptions.PANE.sorts:
        console.press(">", "r")
        assert console.view["errors"] == {}
    console.press("s", "end", "enter")
    assert " ended by an exception: shop.PaymentError (x shows where)" in console.screen().splitlines()


@pytest.mark.parametrize("view", ("overview", "processes", "slow", "time", "exceptions"))
def test_every_row_of_what_a_collector_tells_can_be_opened(fleet, view):
    for size, glyphs in ((DESIGN, UNICODE), (SMALL, ASCII), (WIDE, UNICODE)):
        check_every_row(Looking(*fleet, view=view, size=size, glyphs=glyphs), glyphs)


def test_an_opened_place_stays_open_when_others_come_before_it_and_says_when_it_is_gone(fleet):
    console = Looking(*fleet, view="time")
    console.press("enter")
    before = console.screen()
    console.view["time"]["pivots"].reverse()
    assert console.screen() == before and "stock.py:301 reserve" in before
    console.view["time"]["pivots"].clear()
    assert console.screen().splitlines()[3:8] == [
        " It is no longer among the most expensive, or its requests have had another part", " in common since. Esc leads back to those that are.", "",
        f"   reserve             {APP}/stock.py:301", "   application         /srv/shop/wsgi.py:12"]


def test_a_group_has_its_own_places_alone(fleet):
    console = Looking(*fleet, view="time", group="other")
    assert console.screen().splitlines()[3] == " None in this process group: G shows others."
    console.press("G", "G")
    assert console.ui.group == "shop" and pivots.PANE.count(console.view, console.ui) == 4


def test_how_many_stacks_waited_and_that_stacks_were_cut_is_said():
    row = {"place": "inside of a.py:1 f", "frames": some_frames(("f", "/a.py", 1)), "cut": True, "seconds": 9.0, "recent_s": 1.0, "role": "waits",
           "waits": "rlock", "waits_for": None, "how_known": "who would end its wait is not known: rlock", "waited": 3, "stacks": 4, "requests": 2}
    view = {"time": {"pivots": [row], "pivots_matched": 7}}
    ui = Ui(view="time", glyphs=UNICODE)
    found = plain(pivots.PANE.body(view, ui, Size(14, 90))).splitlines()
    assert found[0] == " Where the time of long requests goes: 7 places"
    assert found[-2:] == [" who would end its wait is not known: rlock (3 of its 4 stacks waited for others)", " its paths are not known"]
    opened = plain(pivots.PANE.body(view, ui._replace(open=("pivot", "", frames_of(row))), Size(14, 90))).splitlines()
    assert opened[-2:] == ["   [stacks were cut here: what is further inside may be the same, too]", "   f /a.py:1"]


def test_a_page_is_turned_as_a_page():
    rows = [{"place": f"a.py:{number} f", "frames": some_frames(("f", "/a.py", number)), "seconds": 9.0, "recent_s": 1.0, "role": "works"} for number in range(40)]
    ui = Ui(view="time", glyphs=UNICODE, tables=(("time", Table(cursor=7)),))
    found = plain(pivots.PANE.body({"time": {"pivots": rows}}, ui, Size(8, 80))).splitlines()
    assert [each.split()[-3] for each in found[2:]] == [f"a.py:{number}" for number in range(6, 12)] and found[3].startswith("> 1.0 s")


@pytest.mark.parametrize("pane, view, said", (
    (pivots.PANE, {}, " asking the collector"), (pivots.PANE, {"errors": {"time": "answers 500\x1b"}}, " answers 500\\x1b"),
    (pivots.PANE, {"errors": {"time": "http://h/api/slow: answers 400: unknown parameter 'pivots'"}}, " This collector does not tell where the time goes."),
    (pivots.PANE, {"time": {"slow_requests": []}}, " This collector does not tell where the time goes."),
    (exceptions.PANE, {}, " asking the collector"), (exceptions.PANE, {"errors": {"exceptions": "answers 500"}}, " answers 500"),
    (exceptions.PANE, {"errors": {"exceptions": "answers 404: no such path: /api/exceptions"}}, " This collector does not tell of exceptions.")),
    ids=range(7))
def test_what_is_not_there_is_said_in_words(pane, view, said):
    assert plain(pane.body(view, Ui(view=pane.name, glyphs=UNICODE), DESIGN)).splitlines()[0] == said


def test_an_exception_that_is_gone_says_so_and_until_it_is_asked_for_the_row_is_shown(fleet):
    console = Looking(*fleet, view="exceptions")
    for row, said in zip(console.view["exceptions"]["exceptions"], (" ValueError", " shop.PaymentError")):
        ui = console.ui._replace(open=("exception", row["id"]))
        assert plain(exceptions.PANE.body(console.view, ui, DESIGN)).splitlines()[0] == said
    console.view["exceptions_one"] = {"exceptions": []}
    assert plain(exceptions.PANE.body(console.view, ui, DESIGN)).splitlines()[0].startswith(" It is gone: ")


# --- properties -----------------------------------------------------------------------------------

def renamed(choose, value):
    """The same JSON, some keys of what applications name replaced by anything."""
    if isinstance(value, list):
        return [renamed(choose, each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) & {"user", "/report", "/stock", "/cart", "/pay"}:
        return {choose.choice((name, *HOSTILE)): each for name, each in value.items()}
    return {name: renamed(choose, each) for name, each in value.items()}


@pytest.mark.parametrize("view", ("overview", "processes", "slow", "time", "exceptions"))
def test_any_answer_fits_any_screen(fleet, view):
    seed = f"{view}/7"
    print("seed", seed)
    choose = random.Random(seed)
    shut, opened = Looking(*fleet, view=view, size=WIDE), Looking(*fleet, view=view, size=WIDE)
    opened.press("enter")
    for turn in range(250):
        console, odds = choose.choice((shut, opened)), choose.choice((0.0, 0.02, 0.1, 0.3))
        glyphs = choose.choice((UNICODE, ASCII))
        size = choose.choice((DESIGN, SMALL, WIDE, Size(1, 1), Size(0, 0), Size(choose.randrange(61), choose.randrange(200))))
        names = {"inside", "process", "slow", "slow_one", "time", "exceptions", "exceptions_one"}
        answers = {name: renamed(choose, each) for name, each in console.view.items()}
        for name in names & set(answers):
            # of what is not about agents other tests see to
            answers[name] = _inner(choose, answers[name], odds)
        ui = console.ui._replace(glyphs=glyphs, scroll=choose.choice((0, 0, 7, 1 << 30)), group=choose.choice((None, None, "shop", HOSTILE[2])),
                                 tables=((view, Table(choose.choice(("", "count", "odd")), False, 0, choose.choice(HOSTILE[:4]),
                                                      choose.choice((-1, 0, 2, 1 << 30)))),))
        try:
            check_fits(views.render(answers, ui, size), size, glyphs)
            views.context(answers, ui, size)
            views.paths(ui, size)
        except Exception:
            print("turn", turn, "size", size, "ui", ui)
            raise


def _inner(choose, answer, odds):
    if not isinstance(answer, dict):
        return answer
    out = dict(answer)
    for name, value in answer.items():
        if name in ("agent", "pivots", "exceptions", "pivots_evicted", "counted", "lost", "evicted"):
            out[name] = fuzzed(choose, value, odds)
        elif name in ("processes", "slow_requests"):
            out[name] = [{**row, **({"entry": _inner(choose, row["entry"], odds)} if "entry" in row else _inner(choose, row, odds))}
                         for row in value]
    return out


def test_no_type_of_value_is_trusted():
    """Another program may answer in the collector's place."""
    choose = random.Random(3)
    odd = (None, True, [], {}, [[]], [{}], "x", 1.5, -1, *HOSTILE[:4], *NUMBERS[-4:])

    def any_of(value):
        if choose.random() < 0.12:
            return choose.choice(odd)
        if isinstance(value, dict):
            return {name: any_of(each) for name, each in value.items()}
        return [any_of(each) for each in value] if isinstance(value, list) else value

    for _ in range(400):
        agent = any_of(an_agent(a_stack(left_out=5, cut_at=1, waits=waits("rlock", 5, "a"), locals=[[0, "a", "b"]]), annotations={"user": "ann"},
                                exception="E", history=[{"elapsed_s": 1.0, "state": "", "hot": some_frames(*CALLS), "waits": waits("lock")}] * 2))
        entry = an_entry(agent, stack=choose.choice((None, outside(0.0))))
        made = [*inside.place_of(entry, NOW, 60, ASCII), *inside.of_slow(entry, a_view(), NOW, 60, ASCII, True)]
        assert all(len(each) <= 60 and each.isascii() and each.isprintable() for each in lines(made, 60, ASCII))
        assert all(name.isascii() and text.isascii() for name, text in inside.annotations(entry, ASCII))

