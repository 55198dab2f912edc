"""The pane of stacks: the table, one process; and stacks in an opened process and an opened slow request.

What holds for all answers and sizes: never more than `rows` Lines, none wider than `cols`
cells, nothing that is not printable, and nothing but ASCII where no more can be shown.
"""
import random

import pytest
from builders import WALL, Worker, a_fleet, an_answer as told_by_proc, fold
from console_answers import (APP, HOSTILE, LIB, a_served, a_thread, a_view, at_greenwich, check_fits, daemon_threads, fuzzed,
                             some_frames, some_stacks, stacks as an_answer, taken)
from consoles import DESIGN, SMALL, WIDE, Looking
from modwsgi_tel.console import frames, slow, stacks, views
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui, press
from modwsgi_tel.stacks.model import Frame, Request, Stacks, ThreadStack
from modwsgi_tel.state.taken import Taken

OPEN = ("stacks", 8095, 95)


@pytest.fixture(autouse=True)
def greenwich():
    yield from at_greenwich()


def a_ui(glyphs=UNICODE, **more):
    chosen = {name: more.pop(name) for name in Table._fields if name in more}
    return Ui(view="stacks", glyphs=glyphs, tables=(("stacks", Table(**chosen)),), **more)


def shown(view, ui=None, rows=30, cols=80):
    return plain(stacks.body(view, ui or a_ui(), Size(rows, cols))).splitlines()


def opened(*threads, rows=60, cols=80, glyphs=UNICODE, errors=None, answer=None, **ui):
    """The opened process with these threads, below its head."""
    view = a_view(stacks_one=an_answer(taken(*threads), **(answer or {})), errors=errors or {})
    return shown(view, a_ui(glyphs, open=OPEN, **ui), rows, cols)


def groups(*threads, **more):
    """What is shown of the threads: the part below the empty line behind the head."""
    lines = opened(*threads, **more)
    return lines[lines.index("") + 1:] if "" in lines else []


# --- what is asked for ----------------------------------------------------------------------------

def test_the_table_asks_for_its_page_and_an_opened_process_for_itself():
    assert stacks.PANE.paths(a_ui(), Size(20, 80)) == {"stacks": "/api/stacks?offset=0&limit=18"}
    assert stacks.PANE.paths(a_ui(cursor=20, group="shop"), Size(20, 80)) == {
        "stacks": "/api/stacks?offset=18&limit=18&group=shop"}
    assert stacks.PANE.paths(a_ui(open=OPEN), Size(20, 80)) == {"stacks_one": "/api/stacks?pid=8095&id=95"}


def test_stacks_are_asked_for_while_a_running_process_or_request_is_open():
    process = {"processes": [{"id": 5, "pid": 812, "life": "running"}]}
    entry = {"id": 9, "life": "active", "pid": 812, "process": 5}
    asks = ("/api/stacks?pid=812&id=5", True)
    assert views.stacks_asked(a_view(), a_ui(open=("stacks", 812, 5))) == asks
    assert views.stacks_asked(a_view(process=process), a_ui()._replace(view="processes", open=("process", 812, 5))) == asks
    assert views.stacks_asked(a_view(process=process), a_ui()._replace(view="workers", open=("process", 812, 5))) == asks
    assert views.stacks_asked(a_view(slow_one={"slow_requests": [{"entry": entry}]}),
                              a_ui()._replace(view="slow", open=("slow", 9))) == asks


def test_stacks_are_not_asked_for_of_what_has_ended_nor_of_a_table():
    process, entry = {"id": 5, "pid": 812, "life": "vanished"}, {"id": 9, "life": "completed", "pid": 812, "process": 5}
    view = a_view(process={"processes": [process]}, slow_one={"slow_requests": [{"entry": entry}]}, stacks=some_stacks())
    for ui in (a_ui(), a_ui()._replace(view="processes", open=("process", 812, 5)),
               a_ui()._replace(view="slow", open=("slow", 9)), a_ui()._replace(view="processes"), a_ui()._replace(view="overview")):
        assert views.stacks_asked(view, ui)[0] is None


@pytest.mark.parametrize("answer", ({"post": False}, {"stacks": "off"}), ids=str)
def test_who_lets_nobody_ask_is_asked_once(answer):
    for name in ("stacks_one", "stacks_state"):
        assert views.stacks_asked(a_view(**{name: an_answer(**answer)}), a_ui(open=OPEN)) == ("/api/stacks?pid=8095&id=95", False)


# --- the table ------------------------------------------------------------------------------------

def test_the_table_has_a_process_a_line_and_where_its_gil_is_held():
    assert shown(a_view(stacks=some_stacks())) == [
        " 3 processes, as last read  41 taken, 1 gone, 3 moving, 12 joined",
        "   pid group      why       age busy idle the GIL is held in",
        " >8095 shop       slow    2.0 s    6    6 re/__init__.py:166 match",
        "  8200 reports    asked   9.0 s    2    1 python3.11/ssl.py:1167 recv_into",
        "  8300 (embedded) silent 75.0 s    1    0 nobody; shop/queue.py:5 recv"]


def test_stacks_of_what_has_ended_are_marked_and_not_asked_for_again():
    ended = taken(a_thread(1, ("f", "/srv/a.py", 1), owns_gil=True), life="stopped")
    view = a_view(stacks=an_answer(ended), stacks_one=an_answer(ended))
    assert shown(view)[2].split() == [">8095", "shop", "slow", "2.0", "s", "1", "0", "(stopped)", "srv/a.py:1", "f"]
    assert shown(view, a_ui(open=OPEN))[0] == " pid 8095 of shop, stopped  taken 2.0 s ago: a request was slow  Python 3.11.2"
    assert views.stacks_asked(view, a_ui(open=OPEN))[0] is None
    assert plain(views.render(view, a_ui(open=OPEN), DESIGN)).splitlines()[-1].startswith("Esc back  z idle  q quit")
    alive = an_answer(taken(a_thread(1), life="running"))
    assert views.stacks_asked(a_view(stacks_one=alive), a_ui(open=OPEN))[0] == "/api/stacks?pid=8095&id=95"


@pytest.mark.parametrize("life", ("running", "vanished"))
@pytest.mark.parametrize("name", ("processes", "workers"))
def test_an_opened_process_leads_to_its_stacks_even_when_it_has_ended(name, life):
    view = a_view(process={"processes": [{"id": 5, "pid": 812, "life": life}]})
    ui = a_ui(open=("process", 812, 5))._replace(view=name)
    assert press(ui, "S", views.context(view, ui, DESIGN)).open == ("stacks", 812, 5)
    assert plain(views.render(view, ui, DESIGN)).splitlines()[-1].startswith("Esc back  S stacks  q quit")
    assert press(ui, "a", views.context(view, ui, DESIGN)).asked == ((("stacks",),) if life == "running" else ())


def test_a_small_screen_has_what_matters_most_and_a_wide_one_says_what_is_not_whole():
    assert shown(a_view(stacks=some_stacks()), a_ui(ASCII, cursor=-1), cols=40)[1:3] == [
        "   pid    age the GIL is held in", "  8095  2.0 s re/__init__.py:166 match"]
    assert shown(a_view(stacks=some_stacks()), cols=120)[2] == (
        " >8095 shop       slow    2.0 s    6    6 1 moving, 1 cut re/__init__.py:166 match")


def test_enter_opens_the_process_under_the_cursor():
    view = a_view(stacks=some_stacks())
    assert [stacks.PANE.row(view, a_ui(cursor=at)) for at in (0, 2, 9)] == [
        ("stacks", 8095, 95), ("stacks", 8300, 300), ("stacks", 8300, 300)]
    assert stacks.PANE.row(a_view(), a_ui()) is None and stacks.PANE.count(view, a_ui()) == 3


@pytest.mark.parametrize("view, said", (
    (a_view(), [" asking the collector"]),
    (a_view(stacks=an_answer()),
     [" None has been taken yet: that happens when a request is slow, when a process",
      " falls silent, and while a process (2) or a slow request (5) is open."]),
    (a_view(stacks=an_answer(stacks="off")), [" The collector takes none: serve --stacks auto lets it."]),
    (a_view(stacks=an_answer(not_the_kernels=3)),
     [" None is taken: the pids of 3 processes in trouble are what their datagrams say,",
      " not what the kernel says of the sender (a replay, a simulation)."]),
    (a_view(errors={"stacks": "http://h/api/stacks?limit=18: answers 404: no such path: /api/stacks; / lists what there is"}),
     [" This collector takes no stacks."]),
    (a_view(errors={"stacks": "http://h/api/stacks: answers 500"}), [" http://h/api/stacks: answers 500"]),
    (a_view(stacks=an_answer(problem="cannot read pid 8095: it is not dumpable: run as root, or set CoreDumpDirectory")),
     [" Stacks cannot be read: cannot read pid 8095: it is not dumpable: run as root,",
      " or set CoreDumpDirectory", "",
      " None has been taken yet: that happens when a request is slow, when a process",
      " falls silent, and while a process (2) or a slow request (5) is open."])), ids=range(7))
def test_what_is_not_there_is_said_in_words(view, said):
    assert shown(view) == said


def test_of_a_recording_there_are_none():
    view = a_view(stacks=an_answer())
    view["source"]["no_stacks"] = "Stacks are of a running server: a recording has none."
    for ui in (a_ui(), a_ui(open=OPEN)):
        assert shown(view, ui) == [" Stacks are of a running server: a recording has none."]


# --- one process ----------------------------------------------------------------------------------

def test_an_opened_process_has_the_holder_of_the_gil_first_and_the_innermost_line_on_top():
    assert opened(*daemon_threads(), rows=20) == [
        " pid 8095 of shop  taken 2.0 s ago: a request was slow  Python 3.11.2",
        " (wsgi:shop)      -k start",
        " 13 threads: 2 running, 5 waiting, 6 idle  GIL: re/__init__.py:166 match",
        " not read whole: 1 moving, 1 cut; a looks again",
        "",
        " thread 8101  holds the GIL  running  980 ms CPU",
        "   GET /orders/7 (log id Zk9Q1)",
        f"   match    {LIB}/re/__init__.py:166",
        f"   clean    {APP}/text/markup.py:210",
        f"   render   {APP}/text/markup.py:57",
        f"   orders   {APP}/views/orders.py:88",
        f"   dispatch {APP}/routing.py:31",
        f"   __call__ {APP}/wsgi.py:12",
        "",
        " thread 8106  running",
        "   [moving: it ran on while it was read]",
        "",
        " 3 threads  waiting in futex (futex_do_wait)  8102, 8103, 8105",
        "   8102: POST /cart/8102 (log id Q8102)",
        "   8103: POST /cart/8103 (log id Q8103)"]


def test_a_small_screen_has_the_innermost_line_all_the_same():
    assert opened(*daemon_threads(), rows=6, cols=40, glyphs=ASCII) == [
        " pid 8095 of shop  taken 2.0 s ago: a r~", "", " thread 8101  holds the GIL  running", " 980 ms CPU",
        "   GET /orders/7 (log id Zk9Q1)", "   match    .../re/__init__.py:166"]


def test_what_is_missing_of_a_stack_is_marked_where_it_is_missing():
    calls = (("inner", "/a.py", 1), ("outer", "/b.py", 2))
    assert groups(a_thread(1, *calls, problem="cut: bad frame")) == [
        " thread 1  waiting in futex (futex_do_wait)", "   inner /a.py:1", "   outer /b.py:2", "   [cut: bad frame]"]
    for problem in ("cut: 9 frames in the middle", "cut: 9 of 11 frames left out after the innermost 1"):
        assert groups(a_thread(1, *calls, problem=problem)) == [
            " thread 1  waiting in futex (futex_do_wait)", "   inner /a.py:1", f"   [{problem}]", "   outer /b.py:2"]
    assert groups(a_thread(1, *calls, problem="moving", state="running", wait=None)) == [
        " thread 1  running", "   [moving: it ran on while it was read; these frames need not belong together]",
        "   inner /a.py:1", "   outer /b.py:2"]


def test_idle_threads_are_counted_until_z_shows_them():
    threads = [a_thread(1, ("f", "/a.py", 1)), a_thread(2, idle=True), a_thread(3, ("get", "/queue.py", 5), idle=True)]
    assert groups(*threads)[-2:] == ["", " 2 idle threads: z shows them"]
    assert groups(*threads, idle=True)[3:] == [
        " thread 2, idle  waiting in futex (futex_do_wait)", "   (no Python frames)", "",
        " thread 3, idle  waiting in futex (futex_do_wait)", "   get /queue.py:5"]


def test_threads_outside_of_python_stand_below_the_others_in_one_line():
    assert groups(a_thread(1, wait="poll (do_sys_poll)"), a_thread(2, wait="pselect6"), a_thread(3, ("f", "/a.py", 1))) == [
        " thread 3  waiting in futex (futex_do_wait)", "   f /a.py:1", "",
        " 2 threads outside of Python  1 waiting in poll (do_sys_poll), 1 waiting in", " pselect6  1, 2"]


def test_what_is_not_known_is_a_dash():
    assert groups(a_thread(None, ("f", None, None), state=None, wait=None)) == [" thread -  unknown", "   f -:-"]


def test_a_request_that_was_guessed_says_so():
    guess = "guessed: one active request, one busy thread"
    assert groups(a_thread(1, ("f", "/a.py", 1), request=a_served(None, "/x", guess)))[1] == f"   GET /x ({guess})"


def test_what_its_agent_tells_of_a_thread_is_no_guess():
    assert groups(a_thread(1, ("f", "/a.py", 1), request=a_served("0.3", "/x", "agent")))[1] == "   GET /x (log id 0.3)"


@pytest.mark.parametrize("why, said", (
    ("agent", "asked for, as its agent tells"), ("agent: signal", "told by its agent: signal"), ("agent: a\x1b", "told by its agent: a\\x1b")))
def test_stacks_that_an_agent_told_say_so(why, said):
    view = a_view(stacks=an_answer(taken(a_thread(1), why=why)), stacks_one=an_answer(taken(a_thread(1), why=why)))
    assert shown(view, a_ui(open=OPEN), cols=120)[0] == f" pid 8095 of shop  taken 2.0 s ago: {said}  Python 3.11.2"
    assert shown(view)[2].split()[:4] == [">8095", "shop", "agent", "2.0"]


def test_frames_of_another_interpreter_say_where_it_begins():
    thread = a_thread(1, ("f", "/a.py", 1), interpreter=2)
    thread["frames"] += some_frames(("g", "/b.py", 2), interpreter=0)
    assert groups(thread, a_thread(2, ("h", "/c.py", 3)))[:4] == [
        " thread 1  interpreter 2  waiting in futex (futex_do_wait)", "   f /a.py:1", "   [in interpreter 0 from here]",
        "   g /b.py:2"]


def test_a_recursion_is_folded():
    assert groups(a_thread(1, *[("down", "/a.py", 3)] * 900, ("main", "/a.py", 9)))[1:] == [
        *["   down /a.py:3"] * 3, "   [the frame above, 897 more times]", "   main /a.py:9"]


@pytest.mark.parametrize("cols, path", (
    (80, "   f /srv/a-long-name-of-a-folder/another-long-name/app/views.py:12"),
    (50, "   f …/another-long-name/app/views.py:12"), (34, "   f …/app/views.py:12"), (20, "   f …/views.py:12")))
def test_of_a_long_path_its_end_is_kept(cols, path):
    assert groups(a_thread(1, ("f", "/srv/a-long-name-of-a-folder/another-long-name/app/views.py", 12)), cols=cols)[-1] == path


def test_without_unicode_a_cut_path_does_not_look_like_a_home_directory():
    assert groups(a_thread(1, ("f", "/srv/a-long-name-of-a-folder/app/views.py", 12)), cols=30, glyphs=ASCII)[-1] == (
        "   f .../app/views.py:12")


def test_more_than_fits_is_scrolled_to():
    whole = opened(*daemon_threads())
    assert opened(*daemon_threads(), rows=15, scroll=5) == whole[5:20]
    assert opened(*daemon_threads(), rows=15, scroll=1 << 30) == whole[-15:]


def test_a_process_that_was_not_read_yet_says_so_and_why_not():
    refused = {"asked": "its pid is another process's now"}
    view = a_view(stacks_one=an_answer(), errors=refused)
    assert shown(view, a_ui(open=OPEN)) == [
        " Asked for, not taken: its pid is another process's now", " pid 8095: none has been taken yet."]
    # what is new needs no excuse: somebody else asked a moment ago
    assert not any("Asked" in each for each in opened(*daemon_threads(), errors=refused))
    old = a_view(stacks_one=an_answer(taken(*daemon_threads(), age=30.0)), errors=refused)
    assert shown(old, a_ui(open=OPEN))[0] == " Asked for, not taken: its pid is another process's now"


def test_of_two_processes_that_had_one_pid_the_one_that_was_opened_is_shown():
    view = a_view(stacks=an_answer(taken(a_thread(1), id=94), taken(a_thread(2, ("f", "/a.py", 1)), id=95)))
    assert [each for each in shown(view, a_ui(open=OPEN)) if each.startswith(" pid")] == [
        " pid 8095 of shop  taken 2.0 s ago: a request was slow  Python 3.11.2"]
    assert "   f /a.py:1" in shown(view, a_ui(open=OPEN))
    assert sum(each.startswith(" pid") for each in shown(view, a_ui(open=("stacks", 8095, None)))) == 2


def test_until_its_own_answer_is_there_the_row_of_the_table_is_shown():
    assert shown(a_view(stacks=some_stacks()), a_ui(open=OPEN), rows=60) == opened(*daemon_threads())


# --- in what others have opened -------------------------------------------------------------------

def lines(made):
    return plain(made).splitlines()


def test_an_opened_process_shows_who_is_busy_and_the_innermost_frames():
    deep = a_thread(8101, *((f"f{depth}", "/a.py", depth) for depth in range(9)), owns_gil=True, state="running", wait=None)
    told = taken(deep, a_thread(8100, wait="poll"), a_thread(8102, idle=True))
    assert lines(frames.short(told, a_view(), 80, UNICODE)) == [
        "stacks  taken 2.0 s ago: a request was slow; 3 threads: 1 running, 1 waiting, 1 idle",
        " thread 8101  holds the GIL  running", "   f0 /a.py:0", "   f1 /a.py:1", "   f2 /a.py:2", "   f3 /a.py:3",
        "   and 5 lines of who called"]


def test_a_process_without_stacks_has_no_section_but_for_what_went_wrong():
    assert frames.short(None, a_view(), 80, UNICODE) == []
    why = "cannot read pid 8: run as root"
    view = a_view(stacks_state=an_answer(problem=why), errors={"asked": why})
    assert lines(frames.short(None, view, 80, UNICODE)) == ["stacks", " Stacks cannot be read: cannot read pid 8: run as root"]
    assert frames.short(None, a_view(stacks_state=an_answer(stacks="off"), errors={"asked": "they are off"}), 80, UNICODE) == []


def a_stack(*calls, how="environ", **more):
    return {"stack": {"taken": 0.0, "age_s": 2.0, "tid": 77, "how": how, "whole": True, "problem": None,
                      "frames": some_frames(*calls), **more}}


@pytest.mark.parametrize("entry, active, said", (
    ({}, True, []), ({"stack": None}, True, []),
    (a_stack(("f", "/a.py", 1)), True,
     ["", " Stack of thread 77, taken 2.0 s ago; known by the id in its environ", "   f /a.py:1"]),
    (a_stack(("f", "/a.py", 1), how="guessed: one active request, one busy thread"), False,
     ["", " Stack of thread 77, taken 2.0 s ago; guessed: one active request, one busy", " thread", "   f /a.py:1"]),
    (a_stack(("f", "/a.py", 1), whole=False, problem="cut: bad frame"), False,
     ["", " Stack of thread 77, taken 2.0 s ago; known by the id in its environ", "   f /a.py:1", "   [cut: bad frame]"]),
    (a_stack(how=None, tid=None, whole=False, problem="not joined: 2 active"), True,
     ["", " Stack, taken 2.0 s ago: not joined: 2 active; S shows those of its process"])), ids=range(6))
def test_a_slow_request_has_its_stack_and_how_it_is_known_to_be_its_own(entry, active, said):
    assert lines(frames.of_request(entry, a_view(), 80, UNICODE, active)) == said


def test_where_a_slow_request_is_stands_on_top_and_its_stack_below_the_facts():
    entry = {"id": 9, "life": "active", "age_s": 12.0, "pid": 812, "method": "GET", "path_info": "/x", "unheard": 0.4,
             **a_stack(("match", "/lib/re/__init__.py", 166), ("view", "/srv/app/views.py", 12))}
    view = a_view(slow_one={"time": 0.0, "slow_requests": [{"entry": entry}]})
    found = plain(slow.PANE.body(view, Ui(view="slow", glyphs=UNICODE, open=("slow", 9)), Size(40, 80))).splitlines()
    assert found[:3] == [" GET /x", " active for 12.0 s, last heard of 400 ms ago", " in re/__init__.py:166 match 2.0 s ago"]
    assert found[-3:] == [" Stack of thread 77, taken 2.0 s ago; known by the id in its environ",
                          "   match /lib/re/__init__.py:166", "   view  /srv/app/views.py:12"]


def test_what_is_open_says_which_keys_its_stacks_have():
    process = a_view(process={"processes": [{"id": 5, "pid": 812, "life": "running"}]})
    ui = a_ui(open=("process", 812, 5))._replace(view="processes")
    assert lines(views.render(process, ui, DESIGN))[-1].startswith("Esc back  S stacks  q quit")
    view = a_view(stacks_one=some_stacks())
    assert lines(views.render(view, a_ui(open=OPEN), DESIGN))[-1].startswith("Esc back  a again  z idle  q quit")
    for each in (process, view):
        each["source"]["no_stacks"] = "none"
    assert lines(views.render(process, ui, DESIGN))[-1].startswith("Esc back  q quit")


# --- on a real collector's answers ----------------------------------------------------------------

@pytest.fixture
def collecting():
    """A console on a collector that has read a process with one slow request: the request's thread keeps the GIL."""
    worker = Worker(812)
    fleet = a_fleet()
    fleet.taken = Taken("auto")
    fold(fleet, worker.started(), worker.tick(1), worker.slow("abc", slow_duration=3.0))
    fleet.answer(812, told_by_proc(nspids=(812,)), 0.0, WALL)
    (process,) = fleet.processes()
    fleet.taken.begin(process, "slow", 1.0)
    frames = Frame("match", "/lib/re/__init__.py", 166), Frame("view", "/srv/app/views.py", 12)
    threads = (ThreadStack(9001, "MainThread", 0, True, "running", frames=frames, request=Request("abc", 3, "GET", "/x", "environ")),
               ThreadStack(9002, state="waiting", wait="futex", idle=True))
    fleet.taken.add(fleet, process, "slow", Stacks(812, None, 1000, "python app.py", "3.11.2", (0,), threads, None, WALL), 1.0, WALL + 1)
    return lambda view: Looking(fleet, 3.0, WALL + 3.0, view=view)


STACK = ["   match /lib/re/__init__.py:166", "   view  /srv/app/views.py:12"]


def test_the_table_and_a_process_are_what_the_routes_answer(collecting):
    console = collecting("stacks")
    assert console.screen().splitlines()[3:6] == [
        " 1 process, as last read  1 taken, 1 joined", "   pid group why       age busy idle not whole the GIL is held in",
        "  >812 app   slow    2.0 s    1    1           re/__init__.py:166 match"]
    console.press("enter")
    assert console.view["errors"] == {}
    assert console.screen().splitlines()[3:13] == [
        " pid 812 of app  taken 2.0 s ago: a request was slow  Python 3.11.2", " python app.py",
        " 2 threads: 1 running, 1 idle  GIL: re/__init__.py:166 match", "",
        ' thread 9001 "MainThread"  holds the GIL  running', "   GET /x (log id abc)", *STACK, "", " 1 idle thread: z shows it"]
    console.press("z")
    assert " thread 9002, idle  waiting in futex" in console.screen().splitlines()


def test_from_a_process_and_from_a_slow_request_the_stacks_are_a_key_away(collecting):
    for view in ("processes", "workers", "slow"):
        console = collecting(view)
        console.press("enter")
        console.size = WIDE
        assert console.view["errors"] == {} and set(STACK) <= set(console.screen().splitlines())
        console.press("S")
        assert console.ui.open[:2] == ("stacks", 812) and set(STACK) <= set(console.screen().splitlines())


# --- properties -----------------------------------------------------------------------------------

@pytest.mark.parametrize("glyphs", (UNICODE, ASCII), ids=("unicode", "ascii"))
def test_any_answer_fits_any_screen(glyphs):
    choose = random.Random(5)
    whole = some_stacks()
    for turn in range(400):
        odds = choose.choice((0.0, 0.05, 0.3))
        # the collector is our own, its processes are not
        answer = {**whole, "processes": fuzzed(choose, whole["processes"], odds),
                  "counters": fuzzed(choose, whole["counters"], odds),
                  "matched": choose.choice((None, 0, 3, 70)), "problem": choose.choice((None, *HOSTILE))}
        errors = choose.choice(({}, {"stacks": choose.choice(HOSTILE), "asked": choose.choice(HOSTILE)}))
        view = {**a_view(errors=errors),
                **{name: answer for name in ("stacks", "stacks_one", "stacks_state") if choose.random() < 0.8}}
        size = choose.choice((DESIGN, SMALL, WIDE, Size(1, 1), Size(0, 0), Size(choose.randrange(61), choose.randrange(200))))
        ui = a_ui(glyphs, cursor=choose.randrange(-1, 9), open=choose.choice((None, OPEN, ("stacks", 8200, None))),
                  scroll=choose.choice((0, 5, 1 << 30)), idle=choose.random() < 0.5)
        check_fits(stacks.PANE.body(view, ui, size), size, glyphs)
        stacks.PANE.row(view, ui)
        stacks.PANE.count(view, ui)
        views.stacks_asked(view, ui)
        for row in answer.get("processes") or ():
            entry = {"stack": (frames.dicts_of(row.get("threads")) or [None])[0]}
            for made in (frames.short(row, view, size.cols, glyphs), frames.of_request(entry, view, size.cols, glyphs, True)):
                assert all(span.text.isprintable() and (glyphs.utf8 or span.text.isascii()) for each in made for span in each)


def test_thousands_of_frames_are_drawn_where_they_are_seen_only():
    """A row that nobody sees costs no cutting and escaping: the screen is drawn at each key."""
    drawn = []
    calls = [("f" * 30, f"/srv/app/module{place}.py", place) for place in range(500)]
    view = a_view(stacks_one=an_answer(taken(*(a_thread(tid, *calls, (str(tid), "/x", 1)) for tid in range(20)))))
    real = frames._path
    try:
        frames._path = lambda *args: drawn.append(1) or real(*args)
        assert len(shown(view, a_ui(open=OPEN), rows=20)) == 20
    finally:
        frames._path = real
    assert len(drawn) <= 20
