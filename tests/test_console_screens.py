"""Whole screens, compared with text files in tests/screens; and what holds for every screen.

VIEW-WHAT-COLSxROWS.txt is what a user sees of fixed data at a fixed time, in UTC.  After a change
that is meant, write them anew and look at the difference:

    MODWSGI_TEL_WRITE_SCREENS=1 python -m pytest tests/test_console_screens.py

What holds for any view and size: at most `rows` Lines, none wider than `cols` cells, nothing in
them that a terminal could take for more than a letter, and without UTF-8 nothing but ASCII.
"""
import functools
import os
import random
import re
import time
import unicodedata
from collections import namedtuple

import pytest

from builders import NAMES, a_fleet
from console_answers import APP, HOSTILE, a_thread, daemon_threads, some_frames, some_stacks, stacks as an_answer, taken
from consoles import DESIGN, NOW, SMALL, WIDE, Looking, captured, simulated
from insiders import told as told_inside
from trees import a_tree
from modwsgi_tel.console import views
from modwsgi_tel.console.cells import ASCII, LINUX, UNICODE, Size, plain
from modwsgi_tel.console.keys import WINDOWS, Table
from modwsgi_tel.figures import UNKNOWN, duration, number, percent, size as bytes_text
from modwsgi_tel.peer import PeerState
from modwsgi_tel.report.dump import as_text
from modwsgi_tel.state.fleet import CREDENTIALS
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.routes import Site
from modwsgi_tel.wire.fields import PHASES

SCREENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "screens")
WRITE = "MODWSGI_TEL_WRITE_SCREENS"
WALL = 1_700_000_000.0                  # 2023-11-14 22:13:20 UTC
VIEWS = tuple(pane.name for pane in views.PANES)


@pytest.fixture(autouse=True)
def greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# --- what is looked at ---------------------------------------------------------------------------

@functools.lru_cache(maxsize=None)
def fleet_of(what):
    """(fleet, now, wall) of a capture ("NAME@SECONDS": until then), a simulated profile after 65 s, or one of OTHERS.

    It stands still: nothing may be applied to it.
    """
    if what in OTHERS:
        return OTHERS[what]()
    name, _, end = what.partition("@")
    return captured(name, float(end) if end else None) if name in NAMES else simulated(name)


def _nobody():
    return a_fleet(), NOW, WALL


# what the existing collector tells; ours tells more
EXISTING = {
    "": ("type", "total_received", "decode_errors", "processes", "slow_requests", "lifecycle_events"),
    "processes": ("pid", "hostname", "process_group", "mod_wsgi_version", "python_version", "apache_version",
                  "mpm_name", "process_parent_pid", "last_seq", "drops", "samples", "gc_snapshots", "gc_events"),
    "lifecycle_events": ("kind", "pid", "stamp", "hostname", "process_group", "process_parent_pid", "shutdown_reason",
                         "process_uptime", "lifetime_request_count", "active_requests_at_decision",
                         "active_requests_at_exit", "graceful_drain"),
}
EXISTING_SLOW = (
    "pid", "thread_id", "server_pid", "log_id", "method", "scheme", "hostname", "script_name", "path_info", "peer_ip",
    "protocol", "user_agent", "start_stamp", "duration", "state", "input_bytes", "input_reads", "output_bytes",
    "output_writes", "cpu_user_time", "cpu_system_time", "server_time", "queue_time", "daemon_time",
    "application_time", "gil_wait_time", "gil_wait_count", "input_read_time", "output_write_time", "active_at_start",
    "active_at_completion", "status")


def _only(names, row):
    return {name: row[name] for name in names if name in row}


def _existing():
    """A fleet folded from what the existing collector would tell of a capture."""
    fleet, now, wall = captured("daemon_mixed")
    _, told = Looking(fleet, now, wall).ask("/api/state")
    told = _only(EXISTING[""], told)
    for name in ("processes", "lifecycle_events"):
        told[name] = [_only(EXISTING[name], row) for row in told[name]]
    told["slow_requests"] = [{"key": row["key"], "entry": _only(EXISTING_SLOW, row["entry"])}
                             for row in told["slow_requests"]]
    state = PeerState(fleet.limits)
    state.take(told, now, wall)
    state.fleet.expire(now, wall)
    return state.fleet, now, wall


def _refusing():
    """A steady fleet, and others that send what is no telemetry."""
    fleet, now, wall = simulated("steady")
    for place, wrong in enumerate((b"", b"GET / HTTP/1.1\r\n\r\n", b"\x1b[2J" * 9, b"WSGI" + b"\0" * 60)):
        fleet.apply(wrong, CREDENTIALS.pack(4000 + place, 1000, 1000), now + place - 4.0, wall + place - 4.0)
    return fleet, now, wall


OTHERS = {"nobody": _nobody, "existing": _existing, "refusing": _refusing, "inside": told_inside}


def looking(what, view="overview", size=DESIGN, glyphs=UNICODE, **ui):
    return Looking(*fleet_of(what), glyphs=glyphs, size=size, view=view, **ui)


# --- what happens to a console besides keys ------------------------------------------------------

def first_moment(console):
    """Nothing has been answered yet."""
    console.view = {"source": {**console.view["source"], "age_s": None}, "errors": {}}


def never_answered(console):
    first_moment(console)
    console.view["source"]["trouble"] = "http://127.0.0.1:8888: connection refused: is the collector running?"


def no_answer(console):
    console.view["source"].update(trouble="http://127.0.0.1:8888: connection refused: is the collector running?",
                                  age_s=42.0)


def of_another(console):
    console.view["source"]["note"] = "mod_wsgi-telemetry"


def recorded(console):
    console.view["source"].update(name="night.cap", replay="recorded 2023-11-14 x10")


OWN = {
    "version": "0.1.0", "pid": 4711, "uptime_s": 64.7, "cpu_s": 0.31, "max_rss_bytes": 41_500_000,
    "socket": "/run/modwsgi-tel/t.sock", "socket_trouble": None, "longest_gap_s": 0.034, "recent_gap_s": 0.002,
    "stalls": 0, "helpers": {"started": 12, "failed": 0}, "log_lines_lost": 0, "recording": None,
    "http": {"connections": 2, "accepted": 918, "refused": 0, "requests": 93_817, "errors": 3, "wrong_tokens": 0}}
TROUBLED = {
    **OWN, "socket_trouble": "/run/modwsgi-tel/t.sock has been removed: nothing can arrive; restart the collector",
    "stalls": 3, "longest_gap_s": 4.2, "log_lines_lost": 17,
    "recording": {"records": 90_210, "lost_blocks": 2, "lost_bytes": 131_072, "trouble": "No space left on device"}}


def telling(own):
    """The collector says this of itself, has logged two lines, and was looked at 2 s ago."""
    def happens(console):
        held = console.site
        now, wall = held._clocks()
        console.site = Site(held.fleet, Guard(("localhost",)), lambda: (now, wall), lambda: own, lambda: [],
                            held.findings)
        console.look()
        told = console.view["collector"]
        before = {"received": told["collector"]["received"] - 25, "cpu_s": own["cpu_s"] - 0.02}
        console.view.update(previous={"collector": {"time": wall - 2.0, "collector": before}}, log=[
            "2023-11-14T22:12:15 INFO receives on unix:/run/modwsgi-tel/t.sock",
            "2023-11-14T22:12:15 INFO serves http://127.0.0.1:8888/"])
    return happens


def with_stacks(**answers):
    """The collector has taken these; what is asked for by names that are not here has no answer."""
    def happens(console):
        console.view["errors"] = {}
        console.view.update(answers)
    return happens


def stack_of_the_slow_request(console):
    """What is open is in a regular expression, by its environ."""
    (found,) = console.view["slow_one"]["slow_requests"]
    found["entry"]["stack"] = {"taken": 0.0, "age_s": 2.0, "tid": 8101, "how": "environ", "whole": True, "problem": None,
                               "frames": daemon_threads()[1]["frames"]}


def stacks_of_the_process(console):
    """What is open waits for a lock, but for one thread."""
    console.view["process"]["processes"][0]["stacks"] = taken(*daemon_threads())


NOT_DUMPABLE = ("cannot read the memory of pid 8095: it is not dumpable, as mod_wsgi's daemons are: run as root, or set CoreDumpDirectory "
                "in Apache's configuration")
TAKEN = with_stacks(stacks=some_stacks(), stacks_one=an_answer(taken(*daemon_threads())))
TWO = with_stacks(stacks_one=an_answer(taken(
    a_thread(8201, ("recv_into", "/usr/lib/python3.11/ssl.py", 1167), ("fetch", f"{APP}/rates.py", 19), interpreter=1, owns_gil=True,
             state="running", wait=None, frames=some_frames(("down", f"{APP}/tree.py", 7), interpreter=1) * 40),
    a_thread(8202, ("execute", f"{APP}/db.py", 66), wait="poll (do_sys_poll)"))))
OPENED = {"open": ("stacks", 8095, 95)}

Scene = namedtuple("Scene", "view what size of keys ui happens glyphs", defaults=((), {}, None, UNICODE))
Scene.__doc__ = """One golden screen: `view`, `what` and `size` are its name, `of` what fleet_of knows its fleet by,
`keys` are pressed on a console that has looked, `ui` is what that starts with, `happens(console)` is the rest."""

SCENES = (
    # nothing there yet, and nothing any more
    Scene("overview", "first-moment", DESIGN, "nobody", happens=first_moment),
    Scene("overview", "never-answered", DESIGN, "nobody", happens=never_answered),
    Scene("overview", "nobody", DESIGN, "nobody"),
    Scene("overview", "no-answer", DESIGN, "busy", happens=no_answer),
    Scene("processes", "no-answer-ascii", SMALL, "busy", happens=no_answer, glyphs=ASCII),
    # health and trouble
    Scene("overview", "steady", DESIGN, "steady"),
    Scene("overview", "busy", DESIGN, "busy"),
    Scene("overview", "busy-ascii", DESIGN, "busy", glyphs=ASCII),
    Scene("overview", "busy", SMALL, "busy"),
    Scene("overview", "busy", WIDE, "busy"),
    Scene("overview", "group-shop", DESIGN, "busy", ("G",)),
    Scene("overview", "crash-loop", DESIGN, "crash-loop"),
    Scene("overview", "subinterp", DESIGN, "subinterp@30"),
    Scene("overview", "existing", DESIGN, "existing", happens=of_another),
    # processes
    Scene("processes", "steady", DESIGN, "steady"),
    Scene("processes", "busy", SMALL, "busy"),
    Scene("processes", "lifecycle", WIDE, "lifecycle"),
    Scene("processes", "lifecycle-ended-ascii", DESIGN, "lifecycle", ("f", "f", "f"), glyphs=ASCII),
    Scene("processes", "opened", DESIGN, "slow", ("enter",)),
    Scene("processes", "opened", WIDE, "slow", ("enter",)),
    Scene("processes", "opened-gunk", WIDE, "gunk@28", ("down", "enter")),
    Scene("processes", "existing", DESIGN, "existing", happens=of_another),
    # workers
    Scene("workers", "slow", DESIGN, "slow"),
    Scene("workers", "slow", WIDE, "slow", ("down", "down")),
    Scene("workers", "slow", SMALL, "slow"),
    Scene("workers", "busy-ascii", DESIGN, "busy", ("end",), glyphs=ASCII),
    # latency
    Scene("latency", "busy", DESIGN, "busy"),
    Scene("latency", "gil", DESIGN, "gil", ui={"phase": "gil_wait"}),
    Scene("latency", "gil", WIDE, "gil", ui={"phase": "gil_wait"}),
    Scene("latency", "steady-ascii", SMALL, "steady", ("]", "]"), glyphs=ASCII),
    Scene("latency", "embedded-queue", DESIGN, "embedded@15", ui={"phase": "queue"}),
    # slow requests
    Scene("slow", "slow", DESIGN, "slow"),
    Scene("slow", "slow", WIDE, "slow", ("<",)),
    Scene("slow", "gunk", DESIGN, "gunk@28"),
    Scene("slow", "gunk-ascii", DESIGN, "gunk@28", glyphs=ASCII),
    Scene("slow", "gunk", WIDE, "gunk@28"),
    Scene("slow", "searching", SMALL, "slow", ("/", *"repo")),
    Scene("slow", "opened", DESIGN, "slow", ("down", "down", "enter")),
    Scene("slow", "opened-gunk", DESIGN, "gunk@28", ("end", "enter")),
    # garbage collection
    Scene("gc", "storm", DESIGN, "gc_storm@20"),
    Scene("gc", "storm-ascii", SMALL, "gc-storm", glyphs=ASCII),
    Scene("gc", "subinterp", WIDE, "subinterp@30"),
    Scene("gc", "opened", DESIGN, "gc_storm@20", ("enter",)),
    Scene("gc", "opened", WIDE, "gc_storm@20", ("enter",)),
    # lifecycle
    Scene("lifecycle", "lifecycle", DESIGN, "lifecycle"),
    Scene("lifecycle", "lifecycle", WIDE, "lifecycle", ("down", "down", "down")),
    Scene("lifecycle", "crash-loop", SMALL, "crash-loop"),
    Scene("lifecycle", "deploy-bars-ascii", DESIGN, "deploy", ("f",), glyphs=ASCII),
    # the collector itself
    Scene("collector", "steady", DESIGN, "steady", happens=telling(OWN)),
    Scene("collector", "troubled", DESIGN, "refusing", happens=telling(TROUBLED)),
    Scene("collector", "troubled-ascii", SMALL, "refusing", happens=telling(TROUBLED), glyphs=ASCII),
    Scene("collector", "troubled", WIDE, "refusing", happens=telling(TROUBLED)),
    # stacks
    Scene("stacks", "none", DESIGN, "steady"),
    Scene("stacks", "refused", DESIGN, "steady", happens=with_stacks(stacks=an_answer(problem=NOT_DUMPABLE))),
    Scene("stacks", "taken", DESIGN, "steady", happens=TAKEN),
    Scene("stacks", "taken-ascii", SMALL, "steady", happens=TAKEN, glyphs=ASCII),
    Scene("stacks", "taken", WIDE, "steady", happens=TAKEN),
    Scene("stacks", "opened", DESIGN, "steady", ui=OPENED, happens=TAKEN),
    Scene("stacks", "opened-ascii", SMALL, "steady", ui=OPENED, happens=TAKEN, glyphs=ASCII),
    Scene("stacks", "opened-idle", WIDE, "steady", ui={**OPENED, "idle": True}, happens=TAKEN),
    Scene("stacks", "opened-interpreters", DESIGN, "steady", ui=OPENED, happens=TWO),
    Scene("processes", "opened-stacks", WIDE, "slow", ("enter",), happens=stacks_of_the_process),
    Scene("slow", "opened-stack", DESIGN, "slow", ("down", "down", "enter"), happens=stack_of_the_slow_request),
    Scene("slow", "opened-stack", WIDE, "slow", ("down", "down", "enter"), happens=stack_of_the_slow_request),
    # what agents tell
    Scene("overview", "inside", DESIGN, "inside"),
    Scene("slow", "opened-inside", DESIGN, "inside", ("enter",)),
    Scene("slow", "opened-inside", WIDE, "inside", ("enter",)),
    Scene("slow", "opened-inside-ascii", SMALL, "inside", ("enter",), glyphs=ASCII),
    Scene("slow", "opened-waits", DESIGN, "inside", ("down", "down", "enter")),
    Scene("slow", "opened-raised", DESIGN, "inside", ("end", "enter")),
    Scene("time", "none", DESIGN, "steady"),
    Scene("time", "inside", DESIGN, "inside", ("down", "down")),
    Scene("time", "inside", WIDE, "inside"),
    Scene("time", "inside-ascii", SMALL, "inside", glyphs=ASCII),
    Scene("time", "opened", DESIGN, "inside", ("down", "down", "enter")),
    Scene("exceptions", "none", DESIGN, "steady"),
    Scene("exceptions", "inside", DESIGN, "inside"),
    Scene("exceptions", "inside", WIDE, "inside", (">",)),
    Scene("exceptions", "inside-ascii", SMALL, "inside", glyphs=ASCII),
    Scene("exceptions", "opened", DESIGN, "inside", ("enter",)),
    Scene("processes", "opened-inside", WIDE, "inside", ("enter",)),
    Scene("processes", "opened-inside-scrolled", DESIGN, "inside", ("enter", "pgdn", "pgdn")),
    # the tree
    Scene("tree", "nobody", DESIGN, "nobody"),
    Scene("tree", "slow", DESIGN, "slow"),
    Scene("tree", "server", DESIGN, "steady", happens=with_stacks(tree=a_tree(stacktraces=True))),
    Scene("tree", "server-ascii", SMALL, "steady", happens=with_stacks(tree=a_tree(stacktraces=True)), glyphs=ASCII),
    Scene("tree", "server", WIDE, "steady", ui={"folds": frozenset(("p101.rDef", "p101.unassociated", "p100.children"))},
          happens=with_stacks(tree=a_tree(stacktraces=True))),
    # help, a recording
    Scene("overview", "help", DESIGN, "steady", ("?",)),
    Scene("overview", "help-scrolled", SMALL, "steady", ("?", "pgdn")),
    Scene("slow", "replay", DESIGN, "daemon_mixed", (" ",), happens=recorded),
)


def file_of(scene):
    return f"{scene.view}-{scene.what}-{scene.size.cols}x{scene.size.rows}.txt"


def lines_of(scene):
    console = looking(scene.of, scene.view, scene.size, scene.glyphs, **scene.ui)
    console.press(*scene.keys)
    if scene.happens:
        scene.happens(console)
    return console.lines()


# --- whole screens -------------------------------------------------------------------------------

@pytest.mark.parametrize("scene", SCENES, ids=file_of)
def test_the_screen_is_the_one_in_its_file(scene):
    path, drawn = os.path.join(SCREENS, file_of(scene)), plain(lines_of(scene))
    if os.environ.get(WRITE):
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(drawn)
    with open(path, encoding="utf-8") as handle:
        kept = handle.read()
    assert drawn == kept, f"{path} has\n{kept}\nand now it would be\n{drawn}\n({WRITE}=1 writes it anew)"


def test_each_file_belongs_to_a_screen_and_every_view_has_some():
    names = [file_of(scene) for scene in SCENES]
    assert sorted(os.listdir(SCREENS)) == sorted(set(names)) == sorted(names)
    assert {scene.view for scene in SCENES} == set(VIEWS)


@pytest.mark.parametrize("scene", SCENES, ids=file_of)
def test_the_screen_fits(scene):
    check(lines_of(scene), scene.size, scene.glyphs)


def test_numbers_that_differ_from_run_to_run_are_on_no_screen():
    """Ids of processes and of slow requests count up in one collector; a reader is never shown them."""
    again = captured("lifecycle"), captured("daemon_mixed")
    for name, fleet in zip(("lifecycle", "daemon_mixed"), again):
        ids = [{process.id for process in held[0].processes()} for held in (fleet, fleet_of(name))]
        assert not ids[0] & ids[1]
        for view in VIEWS:
            for keys in ((), ("enter",)):
                first, second = looking(name, view, WIDE), Looking(*fleet, size=WIDE, view=view)
                first.press(*keys)
                second.press(*keys)
                assert first.screen() == second.screen()


# --- what holds for every screen -----------------------------------------------------------------

def cells_of(text):
    """Cells that a terminal needs for a text, by Unicode's own tables alone."""
    total = 0
    for char in text:
        if unicodedata.category(char) in ("Mn", "Me", "Cf") or re.match("[\u1160-\u11ff\ud7b0-\ud7ff]", char):
            continue                    # stands on the letter before; vowels and finals of Hangul join theirs
        total += 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
    return total


NO_LETTERS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def check(lines, size, glyphs):
    assert len(lines) <= size.rows, (len(lines), size)
    for spans in lines:
        text = "".join(span.text for span in spans)
        assert cells_of(text) <= size.cols, (text, size)
        # controls, bidirectional and invisible marks, surrogates, what has no letter; ends of lines
        assert not [char for char in text if unicodedata.category(char) in NO_LETTERS], ascii(text)
        assert glyphs.utf8 or text.isascii(), ascii(text)


def some_size(choose):
    """Any size, the ones that go wrong most often among them."""
    return choose.choice((DESIGN, SMALL, Size(1, 1), Size(0, 0), Size(2, 300), Size(60, 1),
                          *[Size(choose.randrange(61), choose.randrange(301))] * 6))


def some_table(choose):
    return Table(choose.choice(("", "", "no such column")), choose.random() < 0.3, choose.randrange(7),
                 choose.choice(("", "", "", "/", *HOSTILE[2:6])), choose.choice((0, 0, 1, 5, 1 << 30)))


def some_ui(choose, view, glyphs, console):
    """A console's choices that keys could lead to, and some that they could not."""
    return console.ui._replace(
        view=view, window=choose.choice(WINDOWS), phase=choose.choice(PHASES), glyphs=glyphs,
        group=choose.choice((None, None, None, "", *HOSTILE[:5])), tables=((view, some_table(choose)),),
        scroll=choose.choice((0, 0, 3, 1 << 30)), help=choose.random() < 0.03, paused=choose.random() < 0.2,
        typing=choose.choice((None,) * 6 + (("search", HOSTILE[2]), ("time", "x" * 80))),
        message=choose.choice(("",) * 6 + HOSTILE[2:5]))


ODD = {str: HOSTILE, int: (0, -1, 1, 7, 2 ** 31, 2 ** 64, 10 ** 25, -10 ** 25),
       float: (0.0, -1.0, -0.5, 1e-9, 5e-324, 1e9, 1e18, 1e300, -1e300)}


def scrambled(value, choose, odds, deep=0):
    """The same JSON with rows gone or told again, and other values: null, huge, negative, or hostile text.

    A number stays one, and a text a text: the collector is not believed, but it is our own.
    """
    if isinstance(value, dict):
        # an older collector, or a newer one, may lack a whole answer's part
        return {name: scrambled(each, choose, odds, deep + 1) for name, each in value.items()
                if deep or choose.random() > odds / 3}
    if isinstance(value, list):
        rows = [scrambled(each, choose, odds, deep + 1) for each in value]
        if rows and isinstance(rows[0], dict) and choose.random() < odds:
            rows = choose.choice(([], rows[1:], rows[:1], rows * 4))
        return rows
    if choose.random() > odds or isinstance(value, bool):
        return value
    return choose.choice((None, *ODD.get(type(value), (value,))))


def test_the_width_that_is_tested_with_is_not_the_console_s_own():
    assert [cells_of(text) for text in ("abc", "漢字", "e\u0301", "\uff21", "한")] == [3, 4, 1, 2, 2]


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_fits_in_every_view(name):
    for view in VIEWS:
        for glyphs, size in ((UNICODE, DESIGN), (ASCII, DESIGN), (LINUX, SMALL), (ASCII, Size(1, 1)), (UNICODE, WIDE)):
            console = looking(name, view, size, glyphs)
            check(console.lines(), size, glyphs)
            console.press("enter")
            check(console.lines(), size, glyphs)
            console.press("pgdn", "?")
            check(console.lines(), size, glyphs)


@pytest.mark.parametrize("size", (
    Size(0, 0), Size(1, 1), Size(0, 80), Size(24, 0), Size(3, 300), Size(60, 2), Size(60, 300)), ids=str)
def test_a_console_of_any_size_can_be_used(size):
    for view in VIEWS:
        console = looking("gunk", view, size)
        for key in ("down", "enter", "pgdn", "end", "esc", ">", "f", "]", "/", "x", "enter", "?", "down", "q", "tab"):
            console.press(key)
            check(console.lines(), size, UNICODE)
            console.ui = views.settled(console.view, console.ui, size)
            check(console.lines(), size, UNICODE)


MIXED = ("gunk@28", "gunk", "lifecycle", "subinterp@30", "busy", "crash-loop", "gc_storm@20")


@pytest.mark.parametrize("view", VIEWS)
def test_any_answer_fits_on_any_screen(view):
    seed = f"{view}/1"
    print("seed", seed)
    choose = random.Random(seed)
    seen = [looking(name, view, WIDE) for name in MIXED]
    for name in MIXED:
        opened = looking(name, view, WIDE)
        opened.press("enter")
        seen += [opened] if opened.ui.open is not None else []
    for turn in range(110):
        console = choose.choice(seen)
        odds, glyphs, size = choose.choice((0.0, 0.02, 0.2, 0.6)), choose.choice((UNICODE, ASCII)), some_size(choose)
        answers = {name: each if name in ("source", "errors") else scrambled(each, choose, odds)
                   for name, each in console.view.items() if name == "source" or choose.random() > odds / 5}
        answers["source"] = {**answers["source"], "trouble": choose.choice(("",) * 4 + HOSTILE[2:4]),
                             "age_s": choose.choice((None, 0.0, 1e9)), "note": choose.choice(("", *HOSTILE)),
                             "replay": choose.choice(("", "", *HOSTILE[2:5]))}
        answers["errors"] = {name: choose.choice(HOSTILE) for name in console.view if choose.random() < 0.05}
        ui = some_ui(choose, view, glyphs, console)
        try:
            check(views.render(answers, ui, size), size, glyphs)
            check(views.render(answers, views.settled(answers, ui, size), size), size, glyphs)
            views.context(answers, ui, size)
            views.paths(ui, size)
        except Exception:
            print("turn", turn, "size", size, "ui", ui)
            raise


def test_before_the_first_answer_keys_do_no_harm():
    for view in VIEWS:
        console = looking("steady", view)
        first_moment(console)
        waiting = console.view
        for key in ("down", "pgdn", "end", "enter", "up", "<", ">", "f", "G", "?", "end", "?", "down"):
            console.press(key)
            console.view = waiting      # it has not come
            console.ui = views.settled(waiting, console.ui, DESIGN)
            check(console.lines(), DESIGN, UNICODE)
        assert console.screen().splitlines()[4] == "  waiting for the first answer"


# --- every face agrees ---------------------------------------------------------------------------

FLEETS = ("steady", "busy", "slow", "gil", "crash-loop", "deploy", "daemon_mixed", "daemon_mixed@30", "lifecycle",
          "gunk", "gc_storm@20", "nobody")
WORD = re.compile(r"\S+(?: (?:ms|s|min|h|d|%|B|kB|MB|GB|TB)(?!\S))?")
TITLES = (("queue p95", "queue_p95"), ("GIL wait", "GIL_wait"), ("▲", ""), ("▼", ""))
ENDED = ("stopped", "vanished", "replaced")


def table_in(text, first):
    """[{title: cell}] of the table in a text whose heads begin with the word `first`; up to the next empty line."""
    lines = text.splitlines()
    at = next(place for place, each in enumerate(lines) if each.split()[:1] == [first])
    head = lines[at]
    for title, word in TITLES:
        head = head.replace(title, word)
    rows = []
    for each in lines[at + 1:]:
        cells = [cell for cell in WORD.findall(each) if cell.strip("█░")]
        if len(cells) != len(head.split()):
            break
        rows.append(dict(zip(head.split(), cells)))
    return rows


def told_of(row, window):
    """What every face shows of a group, or of a process, by the summary."""
    held = row["windows"][window]
    phases = {phase: held["phases"].get(phase, {}) for phase in ("request", "queue")}
    return {"req/s": number(held["throughput"]), "busy": percent(held["capacity"]), "rss": bytes_text(row["rss"]),
            "p50": duration(phases["request"].get("p50")), "p95": duration(phases["request"].get("p95")),
            "p99": duration(phases["request"].get("p99")), "queue_p95": duration(phases["queue"].get("p95")),
            "5xx": number(held["status"]["5xx"], 0), "slow": number(row["slow_active"], 0),
            "lost": number(row["lost"], 0)}


def same(shown, told, *names):
    assert {name: shown[name].lstrip(">") for name in names} == {name: told[name] for name in names}


def the_summary(what):
    status, found = looking(what).ask("/api/summary")
    assert status == 200
    return found


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("what", FLEETS)
def test_the_totals_line_and_the_overview_show_the_numbers_of_the_summary(what, window):
    summary, screen = the_summary(what), looking(what, size=Size(60, 200), window=window).screen()
    totals, held = summary["totals"], summary["totals"]["windows"][window]
    rss = [group["rss"] for group in summary["groups"] if group["rss"] is not None]
    memory, p95 = bytes_text(sum(rss)) if rss else UNKNOWN, duration(held["phases"].get("request", {}).get("p95"))
    throughput, busy, cpu = number(held["throughput"]), percent(held["capacity"]), number(held["cpu"], 2)
    units = [text + unit if text != UNKNOWN else text for text, unit in ((throughput, " req/s"), (cpu, " cores"))]
    lives = ", ".join(f"{count} {life}" for life, count in totals["lives"].items() if count) or "no process yet"
    clock = time.strftime("%H:%M:%S", time.gmtime(summary["time"]))
    errors = number(held["status"]["5xx"], 0)
    line = screen.splitlines()[1]
    assert (line[:-8].rstrip(), line[-8:]) == (
        f"{lives}  req/s {throughput}  busy {busy}  p95 {p95}  5xx {errors}  slow {totals['slow']['active']}  "
        f"lost {totals['lost']}  cpu {cpu}  memory {memory}", clock)
    gauges = looking(what, window=window).screen().splitlines()[3:9]
    assert [(line[1:12].strip(), line[12:25].strip()) for line in gauges] == [
        ("throughput", units[0]), ("busy", busy), ("response", f"p95 {p95}"), ("5xx errors", errors), ("cpu", units[1]),
        ("memory", memory)]
    groups = {group["process_group"]: group for group in summary["groups"]}
    rows = table_in(screen, "group") if groups else []
    assert sorted(row["group"] for row in rows) == sorted(groups)
    for row in rows:
        same(row, told_of(groups[row["group"]], window), "req/s", "p50", "p95", "p99", "queue_p95", "busy", "rss",
             "5xx", "slow", "lost")
        assert row["cpu"] == number(groups[row["group"]]["windows"][window]["cpu"], 2)


@pytest.mark.parametrize("what", FLEETS)
def test_the_first_line_is_the_verdict_of_the_summary_in_every_view(what):
    summary = the_summary(what)
    for view in VIEWS:
        text, *more = re.split(" {3,}", looking(what, view, WIDE).screen().splitlines()[0])
        assert " ".join([text, *(f"({each})" for each in more)]) == summary["verdict"]


def test_figures_in_a_finding_are_those_of_its_group():
    groups = {group["process_group"]: group["windows"]["1m"] for group in the_summary("busy")["groups"]}
    found = [each for each in the_summary("busy")["findings"] if "queue time p95" in each["text"]]
    assert [each["process_group"] for each in found] == ["api", "shop"]
    for each in found:
        queue = duration(groups[each["process_group"]]["phases"]["queue"]["p95"])
        assert each["text"].endswith(f"queue time p95 {queue}")


@pytest.mark.parametrize("what", FLEETS)
def test_dump_shows_the_numbers_of_the_summary_too(what):
    summary = the_summary(what)
    text, totals = as_text(summary), summary["totals"]
    held = totals["windows"]["1m"]
    assert text.splitlines()[1] == (
        f"last minute: {number(held['throughput'])} requests/s, busy {percent(held['capacity'])}, CPU "
        f"{number(held['cpu'], 2)} cores, {held['status']['5xx']} errors (5xx), {totals['slow']['active']} slow active")
    rows = table_in(text, "group")
    assert [row["group"] for row in rows] == [group["process_group"] for group in summary["groups"]]
    for row, group in zip(rows, summary["groups"]):
        same(row, told_of(group, "1m"), "req/s", "p50", "p95", "p99", "queue_p95", "busy", "rss", "5xx", "slow")
    rows = table_in(text, "pid")
    assert [row["pid"] for row in rows] == [str(process["pid"]) for process in summary["processes"]]
    for row, process in zip(rows, summary["processes"]):
        same(row, told_of(process, "1m"), "req/s", "p50", "p95", "p99", "busy", "rss", "5xx", "slow", "lost")
        assert (row["life"], row["silent"]) == (process["life"], duration(process["silent_s"]))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("what", FLEETS)
def test_the_processes_and_the_one_that_is_opened_show_the_numbers_of_the_summary(what, window):
    console = looking(what, "processes", Size(60, 220), window=window)
    processes = {str(process["pid"]): process for process in the_summary(what)["processes"]}
    rows = table_in(console.screen().split("\n", views.HEAD_LINES)[-1], "pid")      # a verdict may begin with a pid too
    assert sorted(row["pid"].lstrip(">") for row in rows) == sorted(processes)
    for row in rows:
        process = processes[row["pid"].lstrip(">")]
        told = told_of(process, window)
        same(row, told, "req/s", "p95", "busy", "rss", "5xx", "slow", "lost")
        assert (row["life"], row["cpu"], row["silent"]) == (
            process["life"], number(process["windows"][window]["cpu"], 2), duration(process["silent_s"]))
        console.press("enter")
        words = console.screen()
        for name, shown in (("req/s", "req/s"), ("busy", "busy"), ("p50", "p50"), ("p95", "p95"), ("p99", "p99"),
                            ("5xx", "5xx"), ("rss", "rss"), ("slow", "slow now")):
            pattern = rf"(?:^|  ){shown} +{re.escape(told[name])}(?=  |$)"
            assert re.search(pattern, words, re.M), (name, told[name], words)
        console.press("esc", "down")


@pytest.mark.parametrize("what", FLEETS)
def test_the_processes_of_a_group_add_up_to_the_group(what):
    summary = the_summary(what)
    for group in summary["groups"]:
        members = [each for each in summary["processes"] if each["process_group"] == group["process_group"]]
        for window in WINDOWS:
            held = group["windows"][window]
            for name in ("ticks", "requests", "slow_completed", "input_bytes", "output_bytes"):
                assert held[name] == sum(each["windows"][window][name] for each in members), (window, name)
            assert held["status"] == {name: sum(each["windows"][window]["status"][name] for each in members)
                                      for name in held["status"]}
        for name in ("slow_active", "lost"):
            assert group[name] == sum(each[name] for each in members)
        known = [each["rss"] for each in members if each["life"] not in ENDED and each["rss"] is not None]
        assert group["rss"] == (sum(known) if known else None)
    assert sum(summary["totals"]["lives"].values()) == len(summary["processes"])
    assert summary["totals"]["slow"]["active"] == sum(group["slow_active"] for group in summary["groups"])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("what", FLEETS)
def test_the_histogram_shows_the_percentiles_of_the_summary(what, window):
    summary = the_summary(what)
    console = looking(what, "latency", window=window)
    for held in (summary["totals"], *summary["groups"]):
        request = held["windows"][window]["phases"].get("request", {})
        if held["windows"][window]["requests"]:
            told = [f" {name} {duration(request[name])} " for name in ("p50", "p95", "p99", "max")]
            assert console.screen().splitlines()[6] == "".join(told).rstrip()
        console.press("G")
