"""Stacks side by side: who has the same one, who has nothing to do, and what moved between looks."""
import pytest

from modwsgi_tel.stacks.compare import (ABSENT, CAME, ENDED, FIRST, LINES, MOVED, PLACES, STAYED, UNREAD, WAITERS, Look, compared,
                                        grouped, grouped_looks, idle, of_threads, waits_at,
                                        without_idle)
from modwsgi_tel.stacks.model import (DISK, GONE, MOVING, RUNNING, STOPPED, UNKNOWN, WAITING, Frame, Request, Stacks,
                                      ThreadStack)

LIB = "/usr/lib/python3.11"
OUTER = Frame("application", "/srv/app.py", 7)
INNER = Frame("Pool.acquire", "/srv/pool.py", 31)
BOOTSTRAP = (Frame("Thread.run", f"{LIB}/threading.py", 982), Frame("Thread._bootstrap", f"{LIB}/threading.py", 1002))
WAIT = Frame("Condition.wait", f"{LIB}/threading.py", 327)
EVENT = Frame("Event.wait", f"{LIB}/threading.py", 629)
SELECT = Frame("EpollSelector.select", f"{LIB}/selectors.py", 468)
FUTEX, EPOLL, POLL = "futex (futex_do_wait)", "epoll_wait (ep_poll)", "poll (poll_schedule_timeout)"


def a_thread(tid=1, frames=(INNER, OUTER), state=WAITING, wait=FUTEX, **more):
    return ThreadStack(tid, state=state, wait=wait, frames=tuple(frames), **more)


def tids(groups):
    return [[thread.tid for thread in group] for group in groups]


# --- nothing to do --------------------------------------------------------------------------------

@pytest.mark.parametrize("wait, expected", [
    (FUTEX, True), (EPOLL, True), ("accept4 (inet_csk_accept)", True), (None, True),
    (POLL, False),                      # mod_wsgi that sends to a slow client waits so
    ("sendmsg", False), ("syscall 77", False), ("restart_syscall (poll_schedule_timeout)", False)])
def test_a_thread_without_frames_is_idle_when_it_waits_as_pools_do(wait, expected):
    assert idle(a_thread(frames=(), wait=wait)) is expected


@pytest.mark.parametrize("frames, wait", [
    ((Frame("_worker", f"{LIB}/concurrent/futures/thread.py", 81), *BOOTSTRAP), FUTEX),
    ((Frame("worker", f"{LIB}/multiprocessing/pool.py", 114), *BOOTSTRAP), FUTEX),
    ((Frame("Connection._recv", f"{LIB}/multiprocessing/connection.py", 395),
      Frame("Connection._recv_bytes", f"{LIB}/multiprocessing/connection.py", 430),
      Frame("_ConnectionBase.recv_bytes", f"{LIB}/multiprocessing/connection.py", 216),
      Frame("SimpleQueue.get", f"{LIB}/multiprocessing/queues.py", 365),
      Frame("worker", f"{LIB}/multiprocessing/pool.py", 114)), "read (pipe_read)"),
    ((SELECT, Frame("BaseEventLoop._run_once", f"{LIB}/asyncio/base_events.py", 1884)), EPOLL),
    ((Frame("select", f"{LIB}/selectors.py", 468), Frame("_run_once", f"{LIB}/asyncio/base_events.py", 1823)), EPOLL),
    ((Frame("Runner.run", f"{LIB}/asyncio/runners.py", 118),), "epoll_pwait (ep_poll)"),
    ((Frame("_PollLikeSelector.select", f"{LIB}/selectors.py", 415),
      Frame("BaseServer.serve_forever", f"{LIB}/socketserver.py", 233)), POLL),
    ((WAIT, Frame("ThreadedTaskDispatcher.handler_thread", "/venv/waitress/task.py", 71), *BOOTSTRAP), FUTEX),
    ((WAIT, Frame("Queue.get", f"{LIB}/queue.py", 171),
      Frame("WorkerThread._process_connections_until_interrupted", "/venv/cheroot/workers/threadpool.py", 155)), FUTEX),
    ((Frame("SyncWorker.wait", "/venv/gunicorn/workers/sync.py", 35),), "pselect6"),
    ((SELECT, Frame("ThreadWorker.run", "/venv/gunicorn/workers/gthread.py", 300)), EPOLL),
    ((WAIT, EVENT, Frame("Timer.run", f"{LIB}/threading.py", 1399)), FUTEX),
    ((WAIT, EVENT, Frame("TMonitor.run", "/venv/tqdm/_monitor.py", 69)), FUTEX),
])
def test_the_known_pools_are_idle_while_they_wait_for_work(frames, wait):
    assert idle(a_thread(frames=frames, wait=wait))
    assert idle(a_thread(frames=frames, wait=None))
    assert idle(a_thread(frames=frames, wait="restart_syscall (futex_do_wait)"))    # it was stopped once
    assert not idle(a_thread(frames=frames, wait=wait, state=RUNNING))
    assert not idle(a_thread(frames=(Frame("handler", "/srv/app.py", 3), *frames), wait=wait))


@pytest.mark.parametrize("frames, wait", [
    ((WAIT, EVENT, OUTER), FUTEX),      # the application waits
    ((WAIT, EVENT), FUTEX),
    ((WAIT, EVENT, Frame("run", f"{LIB}/threading.py", 870)), FUTEX),      # before 3.11: a Timer, or any thread
    ((Frame("worker", f"{LIB}/multiprocessing/pool.py", 125),), FUTEX),     # a task without frames
    ((Frame("_process_worker", f"{LIB}/concurrent/futures/process.py", 246),), FUTEX),
    ((Frame("_worker", f"{LIB}/concurrent/futures/thread.py", 81),), "clock_nanosleep"),
    ((SELECT, Frame("_run_once", f"{LIB}/asyncio/base_events.py", 1823)), FUTEX),    # it has woken, and wants the GIL
    ((Frame("_worker", "/srv/thread.py", 81),), FUTEX),
    ((Frame("_worker", "/srv/myconcurrent/futures/thread.py", 81),), FUTEX),
])
def test_a_thread_that_may_have_something_to_do_is_not_idle(frames, wait):
    assert not idle(a_thread(frames=frames, wait=wait))


@pytest.mark.parametrize("facts", [{"state": DISK}, {"state": STOPPED}, {"state": UNKNOWN}, {"state": GONE}, {"state": RUNNING},
                                   {"owns_gil": True}, {"problem": MOVING}, {"problem": "cut: x"},
                                   {"request": Request("a", 1, "GET", "/", "environ")}])
def test_only_a_thread_that_waits_and_holds_nothing_is_idle(facts):
    assert idle(a_thread(frames=())) and not idle(a_thread(frames=(), **facts))


def test_every_row_of_the_tables_is_a_file_and_a_function_once():
    rows = [(place.file, place.function) for place in PLACES]
    assert len(set(rows)) == len(rows)
    assert all(file.endswith(".py") and not file.startswith("/") for file, _ in (*rows, *WAITERS))


def test_an_idle_thread_waits_at_its_place_not_in_a_helper():
    place = Frame("Queue._feed", f"{LIB}/multiprocessing/queues.py", 231)
    assert waits_at((WAIT, place, *BOOTSTRAP)) == place and waits_at((WAIT, OUTER)) == WAIT


def test_without_idle_leaves_those_that_are_marked_out():
    threads = [a_thread(1), a_thread(2, idle=True), a_thread(3)]
    assert without_idle(threads) == [threads[0], threads[2]]


# --- the same stack -------------------------------------------------------------------------------

def test_threads_with_the_same_stack_are_one_group_and_the_gil_holder_leads():
    other = (Frame("f", "/f.py", 1),)
    threads = [a_thread(1), a_thread(2), a_thread(3, frames=(), idle=True), a_thread(4, frames=other, state=RUNNING, wait=None),
               a_thread(5), a_thread(6, owns_gil=True, state=RUNNING), a_thread(7, frames=other + other)]
    assert tids(grouped(threads)) == [[6, 1, 2, 5], [4], [7], [3]]


def test_running_comes_before_disk_before_waiting_by_count_before_unknown_before_idle():
    def at(tid, line, **more):
        return a_thread(tid, frames=(Frame("f", "/f.py", line),), **more)
    threads = [at(1, 1, idle=True), at(2, 2, state=UNKNOWN), at(3, 3), at(4, 4), at(5, 4), at(6, 5, state=DISK),
               at(7, 6, state=RUNNING), at(8, 7, state=GONE), at(9, 8, state="nonsense"), at(10, 4), at(11, 9)]
    assert tids(grouped(threads)) == [[7], [6], [4, 5, 10], [3], [11], [2], [9], [8], [1]]


def test_another_interpreter_other_values_and_an_unsure_stack_are_groups_of_their_own():
    threads = [a_thread(1), a_thread(2, interpreter=1), a_thread(3, values=((("x", "1"),), ())), a_thread(4, problem="cut: x"),
               a_thread(5, problem="cut: x"), a_thread(6, problem=MOVING), a_thread(7)]
    assert tids(grouped(threads)) == [[1, 7], [2], [3], [4], [5], [6]]


def test_threads_without_frames_share_their_state_at_least():
    threads = [a_thread(1, ()), a_thread(2, (), state=RUNNING), a_thread(3, ()), a_thread(4, (), idle=True)]
    assert tids(grouped(threads)) == [[2], [1, 3], [4]]
    looks = [Stacks(9, start=1, threads=tuple(threads))] * 2
    assert [[each.looks[0].thread.tid for each in group] for group in grouped_looks(looks)] == [[2], [1, 3], [4]]


def test_of_no_threads_there_is_no_group():
    assert grouped([]) == [] and grouped_looks([]) == [] and of_threads([]) == {}


# --- several looks --------------------------------------------------------------------------------

def frames(*lines):
    """Frames named f0, f1 ..., outermost first in `lines`; innermost first as the model has them."""
    return tuple(Frame(f"f{depth}", "/f.py", line) for depth, line in enumerate(lines))[::-1]


def whats(found):
    return [look.what for look in found.looks]


def test_what_all_looks_share_is_common_and_the_rest_is_hot():
    looks = [a_thread(frames=frames(1, 2, 3)), a_thread(frames=frames(1, 2, 3)), a_thread(frames=frames(1, 2, 9)),
             a_thread(frames=frames(1, 2))]
    found = compared(looks)
    assert found.common == frames(1, 2)
    assert found.looks == (Look(FIRST, looks[0], frames(1, 2, 3)[:1]), Look(STAYED, looks[1], frames(1, 2, 3)[:1]),
                           Look(LINES, looks[2], frames(1, 2, 9)[:1]), Look(MOVED, looks[3], ()))


def test_a_stack_that_stays_is_common_as_a_whole():
    found = compared([a_thread(frames=frames(1, 2))] * 3)
    assert found.common == frames(1, 2) and whats(found) == [FIRST, STAYED, STAYED]
    assert [look.hot for look in found.looks] == [(), (), ()]


def test_a_moving_or_cut_look_does_not_spoil_the_others():
    moving, cut = a_thread(frames=frames(8), problem=MOVING), a_thread(frames=frames(9), problem="cut: garbage")
    found = compared([moving, a_thread(frames=frames(1, 2)), cut, a_thread(frames=frames(1, 2))])
    assert found.common == frames(1, 2)
    assert found.looks[0] == Look(UNREAD, moving, ()) and found.looks[2] == Look(UNREAD, cut, ())
    assert whats(found) == [UNREAD, FIRST, UNREAD, STAYED]


def test_nothing_is_common_when_no_look_was_read_whole():
    found = compared([a_thread(problem=MOVING), None])
    assert found.common == () and whats(found) == [UNREAD, ENDED]


def test_threads_come_and_end():
    assert whats(compared([None, a_thread(), a_thread(), None])) == [ABSENT, CAME, STAYED, ENDED]


def test_a_thread_without_frames_at_one_look_shares_nothing():
    found = compared([a_thread(frames=()), a_thread(frames=frames(1))])
    assert found.common == () and whats(found) == [FIRST, MOVED] and found.looks[1].hot == frames(1)


def test_the_same_place_with_another_request_is_no_stay():
    one, two = (a_thread(request=Request(name, 1, "GET", "/", "environ")) for name in "ab")
    assert whats(compared([one, one, two, a_thread()])) == [FIRST, STAYED, MOVED, STAYED]


def test_looks_are_joined_by_tid_and_the_start_of_the_process():
    one, two = a_thread(1), a_thread(2)
    looks = [Stacks(9, start=100, threads=(one, two, a_thread(None))), Stacks(9, start=100, threads=(one,)),
             Stacks(9, start=200, threads=(one,))]
    assert of_threads(looks) == {(100, 1): [one, one, None], (100, 2): [two, None, None], (200, 1): [None, None, one]}


def test_threads_that_did_the_same_at_every_look_are_one_group():
    def look(line, state):
        return Stacks(9, start=1, threads=(a_thread(1, frames=frames(1, 2)), a_thread(2, frames=frames(1, 2)), a_thread(
            3, frames=frames(1, line), state=state), a_thread(4, frames=(), idle=True), a_thread(5, problem="cut: x"),
            a_thread(6, problem="cut: x")))
    groups = grouped_looks([look(5, WAITING), look(6, RUNNING)])
    assert [[each.looks[0].thread.tid for each in group] for group in groups] == [[3], [1, 2], [5], [6], [4]]
    assert groups[0][0].common == frames(1)
