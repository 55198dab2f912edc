"""Stacks for people: what is on the screen, line by line."""
import time

import pytest

from modwsgi_tel.report import stacks as report
from modwsgi_tel.report.stacks import folded, not_whole, text
from modwsgi_tel.stacks.model import DISK, GONE, MOVING, RUNNING, STOPPED, UNKNOWN, WAITING, Frame, Request, Stacks, ThreadStack

AT = time.mktime((2026, 2, 3, 4, 5, 6, 0, 0, -1))
FUTEX = "futex (futex_do_wait)"
OUTER = Frame("application", "/srv/app.py", 7)
SEARCH = (Frame("match", "/srv/search.py", 88), OUTER)
LOCK = (Frame("Pool.acquire", "/srv/pool.py", 31), OUTER)
EVIL = "\x1b[31m\r\n\x9b1m\u202e"


class Lines:
    """Source lines for tests: {(file, line): text}, and the files that changed."""

    def __init__(self, lines, changed=()):
        self._lines, self._changed = lines, changed

    def line(self, file, number):
        return self._lines.get((file, number))

    def changed(self, file):
        return file in self._changed


def a_thread(tid=1, frames=LOCK, state=WAITING, wait=FUTEX, **more):
    return ThreadStack(tid, state=state, wait=wait if state == WAITING else None, frames=tuple(frames), **more)


def a_process(*threads, **more):
    return Stacks(**{"pid": 4711, "command": "(wsgi:shop)", "python": "3.11.7", "interpreters": (0,), "at": AT, **more,
                     "threads": threads})


def body(process, **more):
    """Lines of the text below the head."""
    lines = text(process, **more).splitlines()
    return lines[lines.index("") + 1:]


DAEMON = a_process(
    *(a_thread(4712 + number, request=Request(f"id{number}", number, "POST", "/cart", "environ")) for number in range(3)),
    a_thread(4715, SEARCH, RUNNING, owns_gil=True, cpu_s=0.98, name="Dummy-1",
             request=Request("idx", 4, "GET", "/search", "one active request, one busy thread")),
    a_thread(4716, LOCK[:1] * 9, RUNNING, problem="cut: a pointer to nothing", cpu_s=0.02),
    *(a_thread(4717 + number, (), idle=True) for number in range(10)), inner_pid=12)

SCREEN = """\
pid 4711 (12 in its own namespace)  Python 3.11.7  2026-02-03 04:05:06
  (wsgi:shop)
  15 threads: 2 running, 3 waiting, 10 idle  GIL: thread 4715 "Dummy-1"

Thread 4715 "Dummy-1"  holds the GIL  running, 980 ms CPU
    request idx GET /search (a guess: one active request, one busy thread)
  File "/srv/app.py", line 7, in application
    return site(environ, start_response)
  File "/srv/search.py", line 88, in match
    return PATTERN.match(text)

Thread 4716 (no name)  running, 20.0 ms CPU  [cut: a pointer to nothing]
  [what called this could not be read]
  File "/srv/pool.py", line 31, in Pool.acquire
    self._lock.acquire()  (file is newer than the process)
  File "/srv/pool.py", line 31, in Pool.acquire
    self._lock.acquire()  (newer)
  File "/srv/pool.py", line 31, in Pool.acquire
    self._lock.acquire()  (newer)
  [Previous line repeated 6 more times]

Thread 4712 (no name)  (and 2 more: 4713, 4714)
    waiting in futex (futex_do_wait)
    4712: request id0 POST /cart
    4713: request id1 POST /cart
    4714: request id2 POST /cart
  File "/srv/app.py", line 7, in application
    return site(environ, start_response)
  File "/srv/pool.py", line 31, in Pool.acquire
    self._lock.acquire()  (newer)

10 idle threads with no Python frames, waiting in futex (futex_do_wait):
    4717-4726
"""
SOURCES = Lines({("/srv/app.py", 7): "return site(environ, start_response)", ("/srv/search.py", 88): "return PATTERN.match(text)",
                 ("/srv/pool.py", 31): "self._lock.acquire()"}, ("/srv/pool.py",))


def test_a_daemon_with_a_stuck_request_at_80_columns():
    assert text(DAEMON, sources=SOURCES) == SCREEN


def test_wider_screens_need_fewer_lines():
    wide = text(DAEMON, sources=SOURCES, width=200).splitlines()
    assert len(wide) == SCREEN.count("\n") - 3
    assert wide[4] == ('Thread 4715 "Dummy-1"  holds the GIL  running, 980 ms CPU  request idx GET /search '
                       "(a guess: one active request, one busy thread)")
    assert text(DAEMON, sources=SOURCES, width=None).splitlines() == wide


@pytest.mark.parametrize("how, said", [("environ", "request idx GET /x"), ("agent", "request idx GET /x"), ("odd", "request idx GET /x (a guess: odd)")])
def test_a_request_that_the_threads_own_environ_or_its_agent_tells_is_no_guess(how, said):
    thread = a_thread(1, request=Request("idx", 1, "GET", "/x", how))
    assert f"  {said}\n" in text(a_process(thread), width=200)


@pytest.mark.parametrize("width", [44, 80, 200])
def test_no_line_is_wider_than_the_screen(width):
    thread = a_thread(1, name="worker", values=((("x", "1" * 500),), ()),
                      request=Request("id", 1, "GET", "/path", "a guess " * 20))
    process = a_process(thread, command="c" * 300, problem="word " * 50)
    lines = text(process, sources=Lines({("/srv/app.py", 7): "s" * 150}), width=width).splitlines()
    assert max(map(len, lines)) == width


def test_a_screen_without_any_room_is_no_error():
    for width in (1, 7):
        assert "Pool.acquire" in text(DAEMON, sources=SOURCES, width=width)
        assert text(DAEMON, sources=SOURCES, width=width, flat=True)
        assert text(DAEMON, [DAEMON, DAEMON], sources=SOURCES, width=width)


def test_a_path_that_has_no_room_stays_whole_and_its_place_goes_below():
    file = "/srv/www/shop/venv/lib/python3.11/site-packages/django/core/handlers/base.py"
    process = a_process(a_thread(1, (Frame("Base.get", file, 197),)))
    assert body(process)[1:] == [f'  File "{file}",', "      line 197, in Base.get"]
    assert body(process, width=None)[1:] == [f'  File "{file}", line 197, in Base.get']


# --- what is not known ----------------------------------------------------------------------------

def test_what_is_not_known_is_said():
    process = Stacks(4711, threads=(ThreadStack(None, frames=(Frame("f", "/f.py", None),)),), problem="too many threads")
    assert text(process, requests=True).splitlines() == [
        "pid 4711  Python ?",
        "  1 thread: 1 state not known  GIL: nobody holds it  requests are not known",
        "  not all is shown: too many threads",
        "",
        "Thread ? (no name)  state not known",
        '  File "/f.py", line ?, in f']
    assert text(process._replace(threads=(process.threads[0]._replace(name="MainThread"),))).splitlines()[4] == 'Thread "MainThread"  state not known'


def test_frames_that_were_left_out_of_the_middle_are_missed_there():
    calls = tuple(Frame(f"f{number}", "/a.py", number) for number in range(1, 5))
    shown = [f'  File "/a.py", line {number}, in f{number}' for number in range(4, 0, -1)]
    for problem, outer in (("cut: 1200 frames in the middle", 2), ("cut: 1200 of 1204 frames left out after the innermost 3", 1),
                           ("cut: 1200 frames left out after the innermost 4", 0)):
        lines = body(a_process(a_thread(1, calls, problem=problem, owns_gil=None)), width=200)
        assert lines[0].endswith(f"  [{problem}]")
        assert lines[1:] == [*shown[:outer], "  [1,200 frames are left out here]", *shown[outer:]]
    values = tuple(((f"v{number}", "1"),) for number in range(1, 5))
    lines = body(a_process(a_thread(1, calls, problem="cut: 9 frames in the middle", values=values)))
    assert [line.strip() for line in lines if " = " in line] == ["v4 = 1", "v3 = 1", "v2 = 1", "v1 = 1"]
    outer = (calls[2]._replace(interpreter=2), calls[3])
    lines = body(a_process(a_thread(1, calls[:2] + outer, problem="cut: 9 frames in the middle"), interpreters=(0, 2)))
    assert lines[-4:] == ["  [9 frames are left out here]", "  [in interpreter 0 from here]", *shown[2:]]


def test_where_agents_tell_all_and_no_thread_has_a_request_there_is_none():
    inside = a_process(a_thread(1, owns_gil=None), a_thread(2, owns_gil=None))
    assert "  no request in flight\n" in text(inside, requests=True, width=200) and "request" not in text(inside)
    assert "  requests are not known\n" in text(inside._replace(problem="threads in interpreters without an agent: 1"), requests=True, width=200)


def test_a_process_without_threads_is_said_so():
    assert text(Stacks(1, python="3.9.2")) == "pid 1  Python 3.9.2\n  0 threads: none with a Python state  GIL: nobody holds it\n"


def test_requests_are_not_called_unknown_where_one_is_known():
    assert "requests are not known" not in text(DAEMON, requests=True)
    assert "requests are not known" not in text(a_process(a_thread()))


@pytest.mark.parametrize("thread, expected", [
    (a_thread(1, (), problem=MOVING), ["Thread 1 (no name)  waiting in futex (futex_do_wait)  [moving]",
                                       "  [it ran on while it was read, at every try]"]),
    (a_thread(1, SEARCH[:1], problem=MOVING), ["Thread 1 (no name)  waiting in futex (futex_do_wait)  [moving]",
                                               "  [it ran on while it was read: these frames need not belong together]",
                                               '  File "/srv/search.py", line 88, in match']),
    (a_thread(1, (), problem="cut: x"), ["Thread 1 (no name)  waiting in futex (futex_do_wait)  [cut: x]",
                                         "  [nothing of it could be read]"]),
    (a_thread(1, (), RUNNING), ["Thread 1 (no name)  running", "  (no Python frames)"]),
])
def test_a_stack_that_is_not_whole_says_so_at_its_title_and_at_the_gap(thread, expected):
    assert body(a_process(thread)) == expected


@pytest.mark.parametrize("state, wait, expected", [
    (RUNNING, None, "running"), (WAITING, None, "waiting"), (DISK, "fsync", "waiting for a disk in fsync"),
    (STOPPED, None, "stopped"), (GONE, None, "has ended"), (UNKNOWN, None, "state not known"), ("new", None, "state not known")])
def test_every_state_has_its_words(state, wait, expected):
    assert body(a_process(ThreadStack(1, state=state, wait=wait, frames=LOCK)))[0] == f"Thread 1 (no name)  {expected}"


def test_the_closing_lines_count_what_moved_and_what_was_cut():
    processes = [a_process(a_thread(1), a_thread(2, problem=MOVING)), a_process(a_thread(3, problem=MOVING), a_thread(
        4, problem="cut: x"))]
    assert not_whole(processes) == ["2 of 4 stacks moved while they were read: run again, or with --stop",
                                    "1 of 4 stacks could not be read whole: marked with [cut: ...]"]
    assert not_whole(processes[:1]) == ["1 of 2 stacks moved while it was read: run again, or with --stop"]
    assert not_whole([a_process(a_thread())]) == [] and not_whole([]) == []


# --- who ------------------------------------------------------------------------------------------

def test_threads_that_share_a_stack_but_not_their_state_are_told_apart():
    threads = [a_thread(1, SEARCH), a_thread(2, SEARCH, RUNNING, owns_gil=True, cpu_s=0.5), a_thread(4, SEARCH), a_thread(
        3, SEARCH), a_thread(9, SEARCH, RUNNING, cpu_s=0.25), a_thread(10, SEARCH, RUNNING, cpu_s=0.25)]
    assert body(a_process(*threads))[:3] == [
        "Thread 2 (no name)  holds the GIL  running, 500 ms CPU",
        "  and 2 more: 9, 10  running, 500 ms CPU in all",
        "  and 3 more: 1, 3, 4  waiting in futex (futex_do_wait)"]


def test_many_threads_are_named_by_ranges_and_counted_past_a_bound():
    threads = [a_thread(tid) for tid in (*range(100, 140), *range(200, 260, 2), None)]
    assert body(a_process(*threads), width=None)[0] == (
        "Thread 100 (no name)  (and 70 more: 101-139, 200, 202, 204, 206, 208, 210, 212, 214, 216, 218, 220 and 19 more and 1 "
        "whose tid is not known)  waiting in futex (futex_do_wait)")


def test_many_requests_of_one_stack_are_counted_past_a_bound():
    threads = [a_thread(tid, request=Request(None, None, None, f"/{tid}", "environ")) for tid in range(20)]
    lines = body(a_process(*threads), width=None)
    assert lines[1] == "    0: request (id not known) /0" and lines[12:14] == [
        "    11: request (id not known) /11", "    and 8 more requests"]


def test_interpreters_are_sections_and_the_one_with_the_gil_holder_leads():
    inside = (Frame("inner", "/i.py", 1, 2), Frame("outer", "/o.py", 2, 1))
    process = a_process(a_thread(1), a_thread(2, (), idle=True), a_thread(3, inside, RUNNING, interpreter=2, owns_gil=True),
                        a_thread(4, owns_gil=True), interpreters=(0, 1, 2))
    assert text(process).splitlines()[2:] == [
        "  4 threads: 1 running, 2 waiting, 1 idle",
        "      GIL: thread 3 (no name) in interpreter 2, thread 4 (no name) in",
        "      interpreter 0  3 interpreters: 0, 1, 2",
        "",
        "== Interpreter 0: 2 threads ==",
        "",
        "Thread 4 (no name)  holds the GIL  waiting in futex (futex_do_wait)",
        "  and 1 more: 1  waiting in futex (futex_do_wait)",
        '  File "/srv/app.py", line 7, in application',
        '  File "/srv/pool.py", line 31, in Pool.acquire',
        "",
        "== Interpreter 2: 1 thread ==",
        "",
        "Thread 3 (no name)  holds the GIL  running",
        '  File "/o.py", line 2, in outer',
        "  [in interpreter 2 from here]",
        '  File "/i.py", line 1, in inner',
        "",
        "1 idle thread with no Python frames, interpreter 0, waiting in futex",
        "    (futex_do_wait): 2"]


def test_a_thread_that_waits_without_frames_is_a_line_and_not_called_idle():
    process = a_process(a_thread(1, (), wait="poll", name="MainThread"), a_thread(2, (), idle=True),
                        a_thread(3, (), owns_gil=True), a_thread(4, (), request=Request("a", 1, None, None, "environ")))
    assert body(process, idle=False) == [
        "Thread 3 (no name)  holds the GIL  waiting in futex (futex_do_wait)",
        "  (no Python frames)",
        "",
        "Thread 4 (no name)  waiting in futex (futex_do_wait)  request a",
        "  (no Python frames)",
        "",
        '1 thread with no Python frames, waiting in poll: 1 "MainThread"', "1 idle thread not shown"]


def test_idle_threads_are_a_line_a_place_or_a_count():
    worker = (Frame("_worker", "/usr/lib/python3.11/concurrent/futures/thread.py", 81),)
    served = (Frame("EpollSelector.select", "/usr/lib/python3.11/selectors.py", 468),
              Frame("BaseServer.serve_forever", "/usr/lib/python3.11/socketserver.py", 233))
    process = a_process(a_thread(1, worker, idle=True, values=((("x", "1"),),)), a_thread(2, served, wait="poll", idle=True),
                        a_thread(3, worker, idle=True))
    assert body(process, width=None) == [
        "2 idle threads in _worker (futures/thread.py:81), waiting in futex (futex_do_wait): 1, 3",
        "1 idle thread in BaseServer.serve_forever (python3.11/socketserver.py:233), waiting in poll: 2"]
    assert body(process, idle=False) == ["3 idle threads not shown"]


# --- frames ---------------------------------------------------------------------------------------

def calls(*names):
    return tuple(Frame(name, "/f.py", 1) for name in names)


@pytest.mark.parametrize("names, expected", [
    ("", []), ("abc", [0, 1, 2]), ("aaa", [0, 1, 2]), ("aaaa", [0, 1, 2, (1, 1)]), ("baaaaac", [0, 1, 2, 3, (1, 2), 6]),
    ("ababab", [0, 1, 2, 3, 4, 5]), ("abababab", [0, 1, 2, 3, 4, 5, (2, 1)]), ("ababababa", [0, 1, 2, 3, 4, 5, (2, 1), 8]),
    ("aabaabaabaab", [0, 1, 2, 3, 4, 5, 6, 7, 8, (3, 1)])])
def test_a_recursion_is_folded_as_python_does_also_one_of_several_functions(names, expected):
    assert [index if index is not None else (count, rounds) for index, count, rounds in folded(calls(*names))] == expected


def test_folds_count_every_frame():
    frames = calls(*"ab" * 500, *"c" * 1000, "d")
    assert sum(1 if index is not None else count * rounds for index, count, rounds in folded(frames)) == len(frames)


def test_a_deep_stack_of_all_kinds_is_folded_in_no_time():
    frames = tuple(Frame(f"f{place * place % 7}", "/f.py", place % 3) for place in range(20000))
    started = time.process_time()
    folded(frames)
    assert time.process_time() - started < 2


def test_the_words_of_a_fold():
    process = a_process(a_thread(1, calls(*"z" * 1004, *"ab" * 4)))
    assert [line for line in body(process) if "Previous" in line] == ["  [Previous 2 lines repeated 1 more time]",
                                                                     "  [Previous line repeated 1,001 more times]"]


@pytest.mark.parametrize("names, first", [
    (("Thread._bootstrap", "Thread._bootstrap_inner", "Thread.run"), "  [threading.py: _bootstrap, _bootstrap_inner, run]"),
    (("_bootstrap", "_bootstrap_inner"), "  [threading.py: _bootstrap, _bootstrap_inner]"),
    (("run",), '  File "/lib/threading.py", line 2, in run')])
def test_how_every_thread_begins_is_one_line(names, first):
    begin = tuple(Frame(name, "/lib/threading.py", 2) for name in names)[::-1]
    lines = body(a_process(a_thread(1, LOCK + begin)))
    assert lines[1:] == [first, '  File "/srv/app.py", line 7, in application', '  File "/srv/pool.py", line 31, in Pool.acquire']
    assert len(body(a_process(a_thread(1, begin)))) == 1 + len(names)
    assert len(body(a_process(a_thread(1, LOCK + begin, values=((),) * (2 + len(names)))))) == 1 + 2 + len(names)


def test_values_stand_under_their_frames():
    thread = a_thread(1, values=((("self", "<Pool at 0x7f>"), ("n", "3")), ()))
    assert body(a_process(thread))[1:] == ['  File "/srv/app.py", line 7, in application',
                                           '  File "/srv/pool.py", line 31, in Pool.acquire',
                                           "      self = <Pool at 0x7f>", "      n = 3"]


def test_threads_of_one_stack_with_other_values_are_shown_each():
    lines = body(a_process(*(a_thread(tid, values=((("n", str(tid)),), ())) for tid in (1, 2))))
    assert [line for line in lines if "n =" in line] == ["      n = 1", "      n = 2"]


# --- hostile targets ------------------------------------------------------------------------------

def is_clean(shown):
    assert not [char for char in shown if char != "\n" and not char.isprintable()], ascii(shown)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("evil", [EVIL, "\ud800\0", EVIL * 100000])
def test_nothing_of_the_target_reaches_the_terminal_unescaped_or_in_any_length(evil, flat):
    frames = (Frame(evil, evil, 1),)
    threads = [a_thread(1, frames, wait=evil, name=evil, values=(((evil, evil),),), request=Request(evil, 1, evil, evil, evil)),
               a_thread(2, frames, problem=evil), a_thread(3, frames, wait=evil, idle=True)]
    process = a_process(*threads, command=evil, python=evil[:9], problem=evil)
    shown = text(process, sources=Lines({(evil, 1): evil[:200]}), width=None, flat=flat)
    is_clean(shown)
    assert len(shown) < 20000 and shown.count("\n") < 40
    is_clean(text(process, [process, process], width=80))


def test_a_long_path_keeps_both_its_ends():
    file = "/srv/" + "x" * 10 ** 6 + "/app.py"
    line = body(a_process(a_thread(1, (Frame("f", file, 1),))), width=None)[1]
    assert line.startswith('  File "/srv/xxx') and line.endswith('xxx/app.py", line 1, in f')
    assert "x...x" in line and len(line) < 450


# --- a line a thread ------------------------------------------------------------------------------

def test_flat_is_a_line_a_thread():
    threads = [a_thread(1, name="MainThread"), a_thread(22, (), idle=True),
               a_thread(3, calls(*"ab", *"c" * 9), RUNNING, owns_gil=True), a_thread(4, SEARCH, problem="cut: x"),
               a_thread(5, (), problem=MOVING)]
    assert text(a_process(*threads), flat=True, width=None).splitlines() == [
        "4711  3   -           running         GIL  a /f.py:1 <- b (/f.py:1) <- c (/f.py:1) x 9",
        "4711  1   MainThread  waiting         -    Pool.acquire /srv/pool.py:31 <- application (srv/app.py:7)",
        "4711  4   -           waiting,cut     -    match /srv/search.py:88 <- application (srv/app.py:7) [cut: x]",
        "4711  5   -           waiting,moving  -    (no Python frames) [moving]",
        "4711  22  -           idle            -    (no Python frames)"]
    short = text(a_process(*threads), flat=True, width=50, idle=False).splitlines()
    assert len(short) == 4 and max(map(len, short)) == 50 and short[0].endswith("...")


# --- several looks --------------------------------------------------------------------------------

def several(*looks, **more):
    """Text below the head of looks, each a list of threads, a second apart."""
    taken = [a_process(*threads, at=AT + place, start=5, **more) for place, threads in enumerate(looks)]
    return body(taken[-1], looks=taken)


def test_a_thread_that_stayed_is_shown_once_and_judged_by_its_cpu():
    def look(cpu):
        return [a_thread(1, SEARCH, RUNNING, owns_gil=True, cpu_s=cpu), a_thread(2, cpu_s=cpu and 0.0),
                a_thread(3, (), idle=True)]
    assert several(look(None), look(1.0), look(0.9)) == [
        "Thread 1 (no name)  holds the GIL  running, 900 ms CPU",
        "  the same place at all 3 looks, 1.9 s CPU used: works there",
        '  File "/srv/app.py", line 7, in application',
        '  File "/srv/search.py", line 88, in match',
        "",
        "Thread 2 (no name)  waiting in futex (futex_do_wait)",
        "  the same place at all 3 looks, no CPU used: waits there or is stuck",
        '  File "/srv/app.py", line 7, in application',
        '  File "/srv/pool.py", line 31, in Pool.acquire',
        "",
        "1 thread idle at every look: not shown"]


def test_a_thread_that_stays_and_uses_little_cpu_waits():
    shown = several([a_thread(1)], [a_thread(1, cpu_s=0.01)])
    assert shown[1] == "  the same place at both looks, 10.0 ms CPU used: waits there"


def test_a_thread_that_moved_shows_what_stayed_and_then_where_each_look_was():
    hot = [Frame("render", "/srv/shop/render.py", line) for line in (4, 4, 9)]
    looks = [[a_thread(1, (each, OUTER), RUNNING, cpu_s=0.5)] for each in hot]
    looks += [[a_thread(1, (), RUNNING, problem=MOVING)], [a_thread(1, (Frame("_", "/t.py", 1),) * 6 + (OUTER,))],
              [a_thread(1, (OUTER,))], []]
    assert several(*looks) == [
        "Thread 1 (no name)  waiting in futex (futex_do_wait)",
        "  moved 3 times (1 within the same functions), stayed 1 time, 1.0 s CPU used",
        '  File "/srv/app.py", line 7, in application',
        "  -- this far the same at every look; from here on: --",
        "  +0.0 s  running 500 ms CPU  render (shop/render.py:4)",
        "  +1.0 s  running 500 ms CPU  the same",
        "  +2.0 s  running 500 ms CPU  render (shop/render.py:9)",
        "  +3.0 s  running             [moving]",
        "  +4.0 s  waiting             _ (/t.py:1) x 6",
        "  +5.0 s  waiting             in the line above",
        "  +6.0 s                      not there any more"]


def test_threads_that_came_and_some_never_read_are_said():
    assert several([a_thread(1, (), problem="cut: x"), a_thread(None)], [a_thread(2), a_thread(1, (), problem=MOVING)],
                   interpreters=(0, 4)) == [
        "Thread 1 (no name)  interpreter 0  waiting in futex (futex_do_wait)  [moving]",
        "  never read whole in 2 looks",
        "  -- at each look: --",
        "  +0.0 s  waiting  [cut: x]",
        "  +1.0 s  waiting  [moving]",
        "",
        "Thread 2 (no name)  interpreter 0  waiting in futex (futex_do_wait)",
        "  read whole at one look only",
        '  File "/srv/app.py", line 7, in application',
        '  File "/srv/pool.py", line 31, in Pool.acquire',
        "  -- this far the same at every look; from here on: --",
        "  +0.0 s           not there yet",
        "  +1.0 s  waiting  in the line above",
        "",
        "1 thread whose tid is not known: cannot be told apart between looks"]


def test_what_waits_without_frames_at_every_look_is_a_line():
    look = [a_thread(1, (), wait="poll", name="MainThread"), a_thread(2, (), idle=True), a_thread(3, (), RUNNING)]
    assert several(look, look) == [
        "Thread 3 (no name)  running",
        "  the same place at both looks",
        "  (no Python frames)",
        "",
        '1 thread with no Python frames, waiting in poll: 1 "MainThread"',
        "",
        "1 thread idle at every look: not shown"]


def test_a_chain_without_room_keeps_its_inner_end():
    deep = tuple(Frame(f"function_{place}", "/srv/shop/long.py", place) for place in range(9))
    lines = several([a_thread(1, deep)], [a_thread(1, deep[1:3])])
    assert lines[-2] == "  +0.0 s  waiting  ... > function_0 (shop/long.py:0)"
    assert all(len(line) <= 80 for line in lines)


def test_fewer_looks_than_were_meant_are_told():
    looks = [a_process(a_thread(), at=AT + place) for place in range(3)]
    assert text(looks[2], looks, width=None, meant=1000).splitlines()[0].endswith("  the last of 3 of 1,000 looks in 2.0 s")
    assert text(looks[2], looks, width=None, meant=3).splitlines()[0].endswith("  the last of 3 looks in 2.0 s")
    assert text(looks[0], looks[:1], meant=3).splitlines()[0].endswith("  1 of 3 looks")


def test_lines_of_several_looks_are_cut_at_the_width():
    frames = [(Frame("f" * 60, "/srv/" + "d" * 60 + ".py", line), OUTER) for line in (1, 2, 3)]
    taken = [a_process(a_thread(1, each, cpu_s=0.1), at=AT + place) for place, each in enumerate(frames)]
    lines = text(taken[-1], taken, width=60).splitlines()
    assert [line[:9] for line in lines if len(line) == 60 and line.endswith("...")] == ["  +0.0 s ", "  +1.0 s ", "  +2.0 s "]
    assert max(len(line) for line in lines) == 60


def test_one_look_among_looks_is_shown_as_one():
    assert text(DAEMON, [DAEMON], sources=SOURCES) == SCREEN


def test_the_head_of_several_looks_says_how_many_and_over_what_time():
    looks = [a_process(a_thread(), at=AT - 9), a_process(a_thread(), at=AT)]
    assert text(looks[1], looks).splitlines()[0] == "pid 4711  Python 3.11.7  2026-02-03 04:05:06  the last of 2 looks in 9.0 s"
    assert "2 looks\n" in text(looks[1], [a_process(at=None), looks[1]])


def test_report_reads_nothing_itself():
    assert not {"os", "io", "sys"} & set(vars(report))
