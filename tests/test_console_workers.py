"""The pane of workers: the grid of slots, and the request under the cursor.

What holds for all answers and sizes: never more than `rows` Lines, none wider than `cols`
cells, nothing that is not printable, and nothing but ASCII where no more can be shown.
"""
import random

import pytest
from builders import NAMES, WALL, Worker, a_fleet, fold
from console_answers import check_every_row, check_fits, scrambled
from consoles import DESIGN, SMALL, WIDE, Looking, captured, simulated
from modwsgi_tel.console import workers
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui

NOW = 1_700_000_000.0
LEGEND = " 0-9 seconds a 10 s+ b 30 s+ c 1 min+ D 5 min+ . idle : idle again ? not told"


def a_slot(elapsed=0.0, **more):
    """A slot as /api/workers tells it: idle all the tick, or running for `elapsed` seconds."""
    return {"elapsed": elapsed, "busy": 1.0 if elapsed else 0.0, "cpu": 0.02 if elapsed else 0.0, "completed": 0,
            "longest": 0.0, **more}


def a_worker(*elapsed, number=1, **more):
    return {"id": number, "pid": 800 + number, "hostname": "web1", "process_group": "shop", "role": "daemon",
            "life": "running", "silent_s": None, "age_s": 0.4,
            "threads": {"maximum": len(elapsed), "started": len(elapsed) + 1, "active": 1}, "period": 1.0,
            "slots": [a_slot(each) for each in elapsed], "requests": [], **more}


def a_request(thread, **more):
    return {"slot": thread - 1, "id": 1, "age_s": 9.5, "method": "GET", "path": "/reports", "process": 1, "pid": 801,
            "server_pid": 700, **more}


def of(*found, matched=None):
    matched = len(found) if matched is None else matched
    return {"workers": {"time": NOW, "matched": matched, "offset": 0, "workers": list(found)}}


def a_ui(glyphs=UNICODE, cursor=0, **more):
    return Ui(view="workers", glyphs=glyphs, tables=(("workers", Table(cursor=cursor)),), **more)


def shown(view, rows=20, cols=80, **more):
    return plain(workers.body(view, a_ui(**more), Size(rows, cols))).splitlines()


def grid(view, rows=20, cols=80, **more):
    """The Lines of the grid, its heads left out."""
    lines = shown(view, rows, cols, **more)
    end = next(place for place, text in enumerate(lines) if text.startswith("──"))
    return [text for text in lines[1:end] if text]


def foot(view, **more):
    """The Lines below the rule, the legend left out."""
    lines = shown(view, **more)
    assert lines[-1] == LEGEND
    return lines[lines.index("─" * 80) + 1:-1]


# --- the grid ------------------------------------------------------------------------------------

def test_the_grid_and_the_request_under_the_cursor_at_80_columns():
    view = of(a_worker(0.0, 61.2, 0.3, number=2, requests=[a_request(2, age_s=61.7)]), a_worker(0.0, 0.0))
    assert shown(view, rows=12) == [
        " pid group life         now slots                           2 of 5 run a request",
        ">802 shop  running      2/3 .c0",
        " 801 shop  running      0/2 ..",
        "", "", "",
        "─" * 80,
        "thread 2 of pid 802 busy for 61.2 s, shop on web1, tick 400 ms old",
        "GET /reports",
        "of the tick: busy 100 %, cpu 2 %, 0 requests done, from Apache's pid 700",
        " thread   3 0    300 ms",
        LEGEND]


def test_a_small_screen_has_the_grid_and_the_request():
    view = of(a_worker(61.2, 0.0, requests=[a_request(1)]), a_worker(0.0, number=2))
    assert shown(view, rows=6, cols=40) == [
        " pid life         now slots", ">801 running      1/2 c.", " 802 running      0/1 .", "",
        "thread 1 of pid 801 busy for 61.2 s, sh…", "GET /reports"]


def test_letters_tell_the_age_of_what_runs():
    ages = (0.4, 5.0, 12.0, 45.0, 100.0, 400.0, 0.0, None)
    assert grid(of(a_worker(*ages)))[0].endswith(" 05abcD.?")


def test_an_idle_slot_that_was_busy_all_the_tick_is_idle():
    view = of(a_worker(slots=[a_slot(busy=1.0, completed=9), a_slot(completed=1), a_slot(busy=0.5), a_slot()]))
    assert grid(view)[0].endswith(" 0/4 :::.")


def test_slots_stand_in_tens_and_wrap():
    assert grid(of(a_worker(*[0.0] * 45))) == [
        ">801 shop  running     0/45 .......... .......... .......... ..........",
        "             from thread 41 ....."]
    assert grid(of(a_worker(*[0.0] * 45)), cols=40) == [
        ">801 running     0/45 ..........", "       from thread 11 ..........", "       from thread 21 ..........",
        "       from thread 31 ..........", "       from thread 41 ....."]


def test_the_newest_tick_of_a_silent_process_is_old_and_its_ages_count_on():
    view = of(a_worker(1.0, 0.0, life="silent", silent_s=40.0, age_s=40.0))
    assert grid(view) == [">801 shop  silent       1/2 b.  newest tick 40.0 s old"]
    assert foot(view)[0] == "thread 1 of pid 801 busy for 41.0 s, shop on web1, tick 40.0 s old"


def test_a_tick_that_is_late_is_told_also_of_a_process_that_is_not_silent_yet():
    assert grid(of(a_worker(0.0, age_s=3.5)))[0].endswith(" .  newest tick 3.5 s old")
    assert grid(of(a_worker(0.0, age_s=3.5, period=5.0)))[0].endswith(" .")


def test_a_note_without_room_has_its_own_line():
    view = of(a_worker(*[0.0] * 20, life="silent", age_s=40.0), a_worker(0.0, number=2))
    assert grid(view, cols=60) == [
        ">801 shop  silent      0/20 .......... ..........", " " * 28 + "newest tick 40.0 s old",
        " 802 shop  running      0/1 ."]


def test_lines_of_notes_count_when_the_page_is_chosen():
    late = [a_worker(*[0.0] * 20, number=number, age_s=40.0) for number in range(1, 9)]
    lines = grid(of(*late), rows=10, cols=60, cursor=7)
    assert [text[:4].strip() for text in lines] == ["807", "", ">808", ""]


def test_threads_that_mod_wsgi_does_not_tell_of_are_counted():
    view = of(a_worker(*[0.0] * 128, threads={"maximum": 200, "started": 200, "active": 0}))
    assert grid(view, cols=200)[-1].endswith("  72 more not told")


def test_a_process_without_slots_says_so():
    assert grid(of(a_worker()))[0].endswith(" 0/0   no slots told")


def test_processes_that_are_not_here_are_counted():
    assert shown(of(a_worker(1.0), matched=40))[0].endswith(" 1 of 40 processes: 1 of 1 run a request")


def test_text_from_a_sender_is_escaped():
    view = of(a_worker(9.0, process_group="\x1bgroup", hostname="h\x1b", requests=[
        a_request(1, method="G\x1bT", path="/\x1b[2J日本")]))
    assert " \\x1bgroup " in grid(view)[0]
    assert foot(view)[:2] == ["thread 1 of pid 801 busy for 9.0 s, \\x1bgroup on h\\x1b, tick 400 ms old",
                              "G\\x1bT /\\x1b[2J日本"]
    assert foot_ascii(view) == "G\\x1bT /\\x1b[2J\\u65e5\\u672c"


def foot_ascii(view):
    return shown(view, glyphs=ASCII)[-3]


# --- the cursor ----------------------------------------------------------------------------------

def two():
    return of(a_worker(1.0, 0.0, 61.0, number=1), a_worker(0.0, number=2), a_worker(5.0, number=3), matched=3)


def test_the_cursor_goes_over_what_runs_the_oldest_first_and_over_idle_processes():
    found = [foot(two(), cursor=cursor)[0].split(",")[0] for cursor in range(4)]
    assert found == ["thread 3 of pid 801 busy for 61.0 s", "thread 1 of pid 801 busy for 1.0 s",
                     "pid 802 runs no request", "thread 1 of pid 803 busy for 5.0 s"]
    assert [workers.row(two(), a_ui(cursor=cursor)) for cursor in range(5)] == [
        ("process", 801, 1), ("process", 801, 1), ("process", 802, 2), ("process", 803, 3), ("process", 803, 3)]


def test_a_process_that_was_not_asked_for_is_at_least_one_place():
    assert workers.count(two(), a_ui()) == 4
    assert workers.count(of(a_worker(1.0, 2.0), matched=10), a_ui()) == 11
    assert (workers.count({}, a_ui()), workers.row({}, a_ui())) == (0, None)


def test_as_many_processes_are_asked_for_as_the_cursor_may_be_on_and_a_screen_has():
    assert workers.paths(a_ui(), DESIGN) == {"workers": "/api/workers?offset=0&limit=24"}
    assert workers.paths(a_ui(cursor=30, group="a b"), DESIGN) == {
        "workers": "/api/workers?offset=0&limit=54&group=a%20b"}
    assert workers.paths(a_ui(cursor=1 << 30), DESIGN) == {"workers": "/api/workers?offset=0&limit=500"}


def test_the_slot_under_the_cursor_is_marked():
    lines = workers.body(two(), a_ui(cursor=1), Size(20, 80))
    marked = [[(span.text, span.style) for span in each if span.style == "select"] for each in lines[1:4]]
    assert marked == [[(">801", "select"), ("1", "select")], [], []]


def test_the_page_of_the_grid_follows_the_cursor():
    view = of(*(a_worker(9.0, number=number) for number in range(1, 30)))
    assert [text[:4] for text in grid(view, cursor=0)] == [">801", *(f" {pid}" for pid in range(802, 815))]
    assert [text[:4] for text in grid(view, cursor=14)] == [">815", *(f" {pid}" for pid in range(816, 829))]
    assert [text[:4] for text in grid(view, cursor=28)] == [*(f" {pid}" for pid in range(816, 829)), ">829"]


def test_a_process_larger_than_the_screen_shows_the_part_with_the_cursor():
    view = of(a_worker(*[0.0] * 127, 9.0))
    assert grid(view, rows=12, cols=40) == [
        *(f"{'from thread ' + str(first):>21} .........." for first in range(71, 121, 10)),
        ">     from thread 121 .......9"]


def test_without_a_cursor_there_is_the_whole_grid_and_nothing_below_but_the_legend():
    assert shown(two(), rows=6, cursor=-1) == [
        " pid group life         now slots                           3 of 5 run a request",
        " 801 shop  running      2/3 1.c", " 802 shop  running      0/1 .", " 803 shop  running      1/1 5", "",
        LEGEND]
    assert workers.row(two(), a_ui(cursor=-1)) is None
    assert workers.paths(a_ui(cursor=-1), DESIGN) == {"workers": "/api/workers?offset=0&limit=24"}


# --- the request under the cursor ----------------------------------------------------------------

def test_a_request_that_is_not_slow_yet_cannot_be_named():
    assert foot(of(a_worker(1.5)))[1] == workers.UNNAMED


def test_of_two_requests_in_one_slot_the_one_of_its_age_is_named():
    view = of(a_worker(9.0, requests=[a_request(1, age_s=80.0, path="/old"), a_request(1, age_s=9.4, path="/now")]))
    assert foot(view)[1] == "GET /now"


def test_a_request_of_an_idle_slot_or_of_none_is_not_named_for_another():
    view = of(a_worker(9.0, 0.0, requests=[a_request(2), a_request(1, slot=None)]))
    assert foot(view)[1:3] == [workers.UNNAMED, "of the tick: busy 100 %, cpu 2 %, 0 requests done, 2 slow in no slot"]


def test_the_other_requests_of_the_process_fill_the_room_that_is_left():
    view = of(a_worker(*[float(age) for age in range(30, 10, -1)], requests=[a_request(2, path="/second")]))
    lines = foot(view)
    assert lines[3:5] == [" thread   2 a    29.0 s  GET /second", " thread   3 a    28.0 s"]
    assert len(lines) == 3 + 13 and lines[-1] == " 7 more: Enter shows all"


def test_what_completed_in_the_tick_is_told():
    view = of(a_worker(slots=[a_slot(0.2, completed=3, longest=0.15, busy=0.9)]))
    assert foot(view)[2] == "of the tick: busy 90 %, cpu 2 %, 3 requests done, longest 150 ms"


# --- nothing to show -----------------------------------------------------------------------------

def test_without_processes_the_grid_says_so():
    assert shown(of())[0] == " no process that runs has sent a tick"


def test_an_answer_that_has_not_come_yet_is_waited_for_and_an_error_is_shown():
    assert shown({}) == [" asking the collector"]
    assert shown({"errors": {"workers": "no answer\x1b"}}) == [" no answer\\x1b"]


# --- with a collector ----------------------------------------------------------------------------

def test_a_stuck_request_is_found_named_and_its_process_opened():
    fleet, stuck = a_fleet(), Worker(pid=812, group="shop")
    for second in range(1, 6):
        fold(fleet, stuck.tick(request_threads_current_elapsed=[0.0, 2.0 + second, 0.0, 0.0, 0.0]),
             stuck.slow(thread=2, slow_duration=2.0 + second, slow_path_info="/stuck"), now=100.0 + second)
    fleet.expire(145.0, WALL + 145.0)
    looking = Looking(fleet, 145.0, WALL + 145.0, view="workers")
    lines = looking.screen().splitlines()
    assert lines[4] == ">812 shop  silent       1/5 :b...  newest tick 40.0 s old"
    assert "thread 2 of pid 812 busy for 47.0 s, shop on web1, tick 40.0 s old" in lines
    assert "GET /stuck" in lines
    looking.press("enter")
    lines = looking.screen().splitlines()
    assert lines[3:5] == ["pid 812 of shop on web1", "silent for 40.0 s"]
    assert "     2 b   47.0 s   0 % ░░░░░░░░   0 %    0       - GET /stuck" in lines


def test_the_cursor_reaches_every_process():
    looking = Looking(*simulated("slow", 12.0, processes=14), size=SMALL, view="workers")
    reached, before = [], None
    while looking.ui.tables != before:
        before = looking.ui.tables
        reached.append(workers.row(looking.view, looking.ui)[1])
        looking.press("down")
    assert list(dict.fromkeys(reached)) == [worker["pid"] for worker in looking.view["workers"]["workers"]]
    assert len(set(reached)) == looking.view["workers"]["matched"] == 14


@pytest.mark.parametrize("end", (3.0, 8.0, 15.0))
@pytest.mark.parametrize("name", NAMES)
def test_every_capture_can_be_looked_at(name, end):
    fleet = captured(name, end)
    for glyphs in (UNICODE, ASCII):
        for size in (DESIGN, WIDE, SMALL):
            check_every_row(Looking(*fleet, glyphs=glyphs, size=size, view="workers"), glyphs)


# --- any answer, any size ------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(150))
def test_any_answer_fits_any_size(seed):
    print("seed", seed)
    choose = random.Random(seed)
    size = Size(choose.randrange(61), choose.randrange(1, 301))
    found = []
    for number in range(choose.randrange(30)):
        elapsed = [choose.choice((0.0, 0.0, choose.random() * 10 ** choose.randrange(4)))
                   for _ in range(choose.choice((1, 5, 25, 128)))]
        found.append(a_worker(*elapsed, number=number, life=choose.choice(("running", "silent", "stopping")),
                              requests=[a_request(choose.randrange(1, 30)) for _ in range(choose.randrange(4))]))
    view = scrambled(of(*found, matched=choose.randrange(99)), choose)
    for glyphs in (UNICODE, ASCII):
        for cursor in (0, choose.randrange(2000)):
            ui = a_ui(glyphs, cursor)
            check_fits(workers.body(view, ui, size), size, glyphs)
            workers.count(view, ui)
            workers.row(view, ui)
            assert workers.paths(ui, size)
