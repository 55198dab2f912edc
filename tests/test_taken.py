"""Stacks that were taken: whose turn it is, which stack is which request, and what is kept of them."""
import pytest

from builders import WALL, Worker, a_fleet, a_sender, an_answer, fold
from modwsgi_tel.stacks.model import MOVING, Frame, Request, Stacks, ThreadStack, stacks_json
from modwsgi_tel.state.slow import Identity
from modwsgi_tel.state.taken import (AGENT, ASKED, ASKED_MOST, COUNTERS, GUESSED, OFF, SILENT, SLOW, Taken, holder, joined,
                                     place, stacks_in, unpacked, unreadable)
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import AGENT_FLAG, AGENT_STATE

APP = (Frame("wait", "/usr/lib/python3.11/threading.py", 320), Frame("view", "/srv/app.py", 12), Frame("application", "/srv/wsgi.py", 3))


def a_thread(tid=7, request=None, frames=APP, place=0, thread=1, **more):
    request = request and Request(request, thread, "GET", "/slow", "environ", place)
    return ThreadStack(tid=tid, frames=frames, state="waiting", request=request, **more)


def a_take(*threads, pid=7, problem=None):
    return Stacks(pid, None, 1000, "python app.py", "3.11.2", (0,), threads or (a_thread(request="a"),), problem, WALL)


def a_fleet_with(*workers, mode="auto", **options):
    """A fleet that /proc was asked about; each worker has ticked once at 0 s."""
    fleet = a_fleet()
    fleet.taken = Taken(mode, **options)
    for worker in workers:
        fold(fleet, worker.started(), worker.tick(1))
        fleet.answer(worker.pid, an_answer(nspids=(worker.pid,)), 0.0, WALL)
    return fleet


def turn(fleet, now, ticking=()):
    """(pid, why) of whose turn it is at `now`, and the stacks are begun; None for nobody."""
    fold(fleet, *(worker.tick(1) for worker in ticking), now=now)
    fleet.expire(now, WALL + now)
    found = fleet.taken.next(fleet, now)
    if found is None:
        return None
    fleet.taken.begin(*found, now)
    return found[0].pid, found[1]


def the_process(fleet):
    [process] = fleet.processes()
    return process


def taken_at(fleet, now, *threads, why=SLOW):
    process = the_process(fleet)
    fleet.taken.begin(process, why, now)
    fleet.taken.add(fleet, process, why, a_take(*threads), now, WALL + now)


def stack_of(fleet, now=10.0):
    [key] = fleet.slow.keys()
    stack = fleet.slow.freeze(key, now).stack
    return stack and unpacked(stack.packed)


# --- whose turn it is ---------------------------------------------------------------------

def test_nobody_is_read_where_nobody_is_slow():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    assert [turn(fleet, float(now), [worker]) for now in range(1, 20)] == [None] * 19
    assert fleet.troubled == []


def test_a_process_with_an_active_request_is_read_again_and_again_but_ever_more_seldom():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    times = []
    for at in range(1, 1400):
        fold(fleet, worker.slow("a"), now=at / 4)
        if turn(fleet, at / 4, [worker]):
            times.append(at / 4)
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60][:len(pauses)] and len(pauses) > 8


def test_a_request_that_becomes_slow_later_is_not_left_waiting():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    for at in range(1, 40):
        turn(fleet, float(at), [worker])
    fold(fleet, worker.slow("b"), now=39.5)
    assert [at for at in range(40, 60) if turn(fleet, float(at), [worker])] == [40, 41, 43, 47, 55]


def test_nobody_is_read_once_the_request_is_done():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    assert turn(fleet, 1.0, [worker]) == (7, SLOW)
    fold(fleet, worker.slow("a", done=True), now=1.5)
    assert [turn(fleet, float(at), [worker]) for at in range(2, 90)] == [None] * 88


def test_a_process_that_falls_silent_is_read():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    assert [turn(fleet, float(at)) for at in range(1, 6)] == [None, None, None, (7, SILENT), (7, SILENT)]
    fold(fleet, worker.tick(1), now=6.0)
    assert [at for at in range(6, 14) if turn(fleet, float(at))] == [10, 11, 13]


def test_who_was_read_longest_ago_comes_first_and_who_was_asked_for_before_all():
    workers = [Worker(pid) for pid in (7, 8, 9)]
    fleet = a_fleet_with(*workers)
    for worker in workers:
        fold(fleet, worker.slow("a"))
    fleet.expire(1.0, WALL)
    assert [turn(fleet, 1.0 + at / 10) for at in range(4)] == [(7, SLOW), (8, SLOW), (9, SLOW), None]
    fleet.taken.ask(fleet.processes()[2], 2.5)
    assert [turn(fleet, 2.5 + at / 10) for at in range(4)] == [(9, ASKED), (7, SLOW), (8, SLOW), None]


def test_a_user_with_many_processes_in_trouble_does_not_keep_another_one_waiting():
    fleet = a_fleet_with()
    for pid in range(1, 8):
        worker = Worker(pid)
        fold(fleet, worker.tick(1), worker.slow("a"), sender=a_sender(pid, uid=44 if pid == 7 else 33))
        fleet.answer(pid, an_answer(nspids=(pid,)), 0.0, WALL)
    fleet.expire(1.0, WALL)
    assert [turn(fleet, 1.0 + at / 10)[0] for at in range(7)] == [1, 7, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("sender, answer, why", [
    (a_sender(99), an_answer(nspids=(99,)), "not what the kernel says of their sender (a replay, a simulation)"),
    (a_sender(99), an_answer(nspids=(99, 12)), "not what the kernel says of their sender (a replay, a simulation)"),
    (a_sender(7), an_answer(start=None), "could not be read"),
    (a_sender(7), an_answer(age_s=1.0), "could not be read"),           # younger than its first datagram
    (a_sender(7), None, "ask again in a second"),
    (a_sender(99), an_answer(nspids=(99, 7)), ""),                      # the header's is its pid in its own namespace
    (a_sender(7), an_answer(), ""),
])
def test_only_a_process_known_by_the_kernel_and_by_its_start_is_read(sender, answer, why):
    fleet, worker = a_fleet_with(), Worker(7)
    fold(fleet, worker.tick(1), worker.slow("a"), sender=sender)
    process = the_process(fleet)
    if answer is not None:
        fleet.answer(process.who.sender_pid, answer, 10.0, WALL)
    fleet.expire(1.0, WALL)
    assert why in unreadable(process) and bool(why) == bool(unreadable(process))
    assert (fleet.taken.next(fleet, 11.0) is None) == bool(why)
    status, said = fleet.taken.ask(process, 11.0)
    assert (status, said) == ((409, unreadable(process)) if why else (202, 0.5))


def test_nothing_is_read_where_stacks_are_off_or_that_has_ended():
    worker = Worker(7)
    fleet = a_fleet_with(worker, mode=OFF)
    fold(fleet, worker.slow("a"))
    assert turn(fleet, 1.0) is None and fleet.taken.ask(the_process(fleet), 1.0)[0] == 409
    fleet = a_fleet_with(worker)
    fold(fleet, worker.tick(1), worker.slow("a"), worker.stopped())
    fleet.taken.ask(the_process(fleet), 1.0)
    assert turn(fleet, 1.0) is None
    assert fleet.taken.ask(the_process(fleet), 1.0) == (409, "pid 7 has ended")


def test_who_may_not_be_read_is_left_alone_with_all_of_that_user_for_ever_longer():
    mine, other = Worker(7), Worker(8)
    fleet = a_fleet_with()
    fold(fleet, mine.tick(1), sender=a_sender(7, uid=33))
    fold(fleet, other.tick(1), sender=a_sender(8, uid=44))
    for pid in (7, 8):
        fleet.answer(pid, an_answer(nspids=(pid,)), 0.0, WALL)
    times = []
    for at in range(5, 2500):
        for _ in range(2):
            found = turn(fleet, float(at))
            if found and found[0] == 7:
                times.append(at)
                fleet.taken.refuse(next(each for each in fleet.processes() if each.pid == 7), "no access", float(at))
    assert times == [5, 65, 185, 425, 905, 1505, 2105]
    assert (fleet.taken.problem, fleet.taken.counters["refused"]) == ("no access", 7)


def two_of_one_user():
    """A fleet of pids 7 and 8 of one user, with slow requests, and the two processes."""
    fleet = a_fleet_with(Worker(7), Worker(8))
    fold(fleet, Worker(7, seq=9).slow("a"), Worker(8, seq=9).slow("a"))
    fleet.expire(1.0, WALL)
    return (fleet, *fleet.processes())


def test_one_that_must_not_be_read_does_not_keep_others_of_its_user_from_it():
    fleet, seven, _ = two_of_one_user()
    assert turn(fleet, 1.0) == (7, SLOW)
    fleet.taken.deny(seven, "process 7 is not Apache's")
    assert [turn(fleet, 2.0)[0], turn(fleet, 3.5)[0]] == [8, 8]
    workers = [Worker(7, seq=99), Worker(8, seq=99)]
    assert (fleet.taken.counters["refused"], fleet.taken.problem) == (1, "process 7 is not Apache's")
    times = [(at, found[0]) for at in range(4, 100) for found in (turn(fleet, float(at), workers), turn(fleet, float(at))) if found]
    assert [at for at, pid in times if pid == 7] == [31, 91]


def test_who_asks_for_one_that_may_not_be_read_is_told_of_that_one_and_it_is_tried():
    fleet, seven, eight = two_of_one_user()
    assert turn(fleet, 1.0) == (7, SLOW)
    fleet.taken.refuse(seven, "cannot read process 7", 1.0)
    assert turn(fleet, 3.0) is None                     # nobody of that user, for a minute
    assert fleet.taken.ask(eight, 3.0) == (202, 0.5)    # but who asks is not put off
    assert turn(fleet, 3.0) == (8, ASKED)
    fleet.taken.refuse(eight, "cannot read process 8", 3.0)
    assert fleet.taken.ask(eight, 3.5) == (409, "cannot read process 8")
    assert turn(fleet, 3.6) is None                     # too soon
    assert fleet.taken.ask(seven, 5.0) == (409, "cannot read process 7")
    assert turn(fleet, 5.0) == (7, ASKED)
    fleet.taken.add(fleet, seven, ASKED, a_take(), 5.0, WALL)
    assert (fleet.taken.problem, turn(fleet, 6.0)[0]) == (None, 8)


def test_asking_does_not_make_the_wait_of_a_user_longer():
    fleet, seven, _ = two_of_one_user()
    fleet.taken.begin(seven, SLOW, 1.0)
    fleet.taken.refuse(seven, "no access", 1.0)
    for at in range(3, 40, 2):
        fleet.taken.ask(seven, float(at))
        assert turn(fleet, float(at)) == (7, ASKED)
        fleet.taken.refuse(seven, "no access", float(at))
    workers = [Worker(7, seq=99), Worker(8, seq=99)]
    assert next(at for at in range(40, 200) if turn(fleet, float(at), workers)) == 61


def test_a_helper_service_that_does_not_answer_is_asked_again_after_a_few_seconds():
    fleet, seven, eight = two_of_one_user()
    assert turn(fleet, 1.0) == (7, SLOW)
    fleet.taken.away(seven, "the helper service does not answer", 1.0)
    assert [turn(fleet, at) for at in (2.0, 5.9)] == [None, None]
    assert fleet.taken.ask(eight, 5.9)[0] == 202
    assert (turn(fleet, 5.9), turn(fleet, 6.0)[0]) == ((8, ASKED), 7)
    fleet.taken.away(seven, "the helper service does not answer", 6.0)
    assert (fleet.taken.counters["failed"], fleet.taken.problem) == (2, "the helper service does not answer")
    fleet.taken.add(fleet, eight, ASKED, a_take(pid=8), 6.1, WALL)
    assert (turn(fleet, 7.0)[0], fleet.taken.problem) == (8, None)      # read longest ago


def test_it_is_asked_again_as_often_however_long_it_has_been_away():
    fleet = a_fleet_with(Worker(7))
    fold(fleet, Worker(7, seq=9).slow("a"))
    times = []
    for at in range(1, 60):
        if turn(fleet, float(at), [Worker(7, seq=99)]):
            times.append(at)
            fleet.taken.away(the_process(fleet), "the helper service does not answer", float(at))
    assert times == list(range(1, 60, 5))


def test_asking_has_its_bounds():
    workers = [Worker(pid) for pid in range(1, ASKED_MOST + 2)]
    fleet = a_fleet_with(*workers, rate=4.0)
    woken = []
    fleet.taken.wake = lambda: woken.append(1)
    asked = [fleet.taken.ask(process, 1.0) for process in fleet.processes()]
    assert asked[:2] == [(202, 0.25), (202, 0.5)]
    assert asked[-1] == (429, f"{ASKED_MOST} processes wait for it already: ask later") and len(woken) == ASKED_MOST
    assert fleet.taken.ask(fleet.processes()[0], 1.0) == (202, 0.25)            # it waits already
    assert turn(fleet, 1.0) == (1, ASKED)
    assert fleet.taken.ask(fleet.processes()[0], 1.5)[0] == 429
    assert fleet.taken.ask(fleet.processes()[0], 2.0)[0] == 202


def test_why_the_last_try_failed_is_told_to_who_asks_next_and_then_it_is_tried_again():
    fleet = a_fleet_with(Worker(7))
    process = the_process(fleet)
    fleet.taken.ask(process, 1.0)
    assert turn(fleet, 1.0) == (7, ASKED)
    fleet.taken.fail(process, "process 7 runs no Python")
    assert fleet.taken.ask(process, 3.0) == (409, "process 7 runs no Python")
    assert fleet.taken.ask(process, 3.0)[0] == 202
    assert turn(fleet, 3.0) == (7, ASKED)
    assert (fleet.taken.counters["failed"], fleet.taken.problem) == (1, "process 7 runs no Python")


# --- which stack is which request ---------------------------------------------------------

def test_who_asks_the_agents_is_not_told_why_it_could_not_be_read():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, encode(AGENT_STATE, 7, 1, WALL, named(agent_version="1"), AGENT_FLAG))
    process, taken = the_process(fleet), fleet.taken
    taken.begin(process, SLOW, 10.0)
    taken.refuse(process, "may not be read", 10.0)
    assert taken.ask(process, 11.5, AGENT)[0] == 202
    assert turn(fleet, 11.5, [worker]) == (7, AGENT)
    taken.fail(process, "does not answer")
    assert taken.ask(process, 13.0) == (409, "may not be read")
    turn(fleet, 13.0, [worker])
    assert taken.ask(process, 14.5, AGENT) == (409, "does not answer")
    turn(fleet, 14.5, [worker])
    taken.add(fleet, process, AGENT, a_take(), 14.5, WALL)
    assert taken.ask(process, 16.0, AGENT)[0] == 202


def one(log_id="a", thread=1, active=True):
    return Identity(b"k" + log_id.encode(), log_id, thread, active)


A, B, UNTOLD, IDLE = a_thread(1, "a"), a_thread(2, "b"), a_thread(3), a_thread(4, idle=True)
MOVES = a_thread(5, frames=(), problem=MOVING)
BOOTSTRAP = (Frame("work", "/srv/app.py", 40), Frame("Thread.run", "/usr/lib/python3.11/threading.py", 975),
             Frame("Thread._bootstrap", "/usr/lib/python3.11/threading.py", 995))
BACKGROUND = a_thread(6, "a", BOOTSTRAP, place=2)
STARTED = a_thread(8, "a", place=1)                     # not by threading, but it is called by what does not hold the environ


@pytest.mark.parametrize("requests, threads, wanted", [
    ([one("a"), one("b", 2)], [B, A], [(A, "environ"), (B, "environ")]),
    ([one("a", active=False)], [A, IDLE], [(A, "environ")]),
    ([one("", 1)], [A], [(A, "mod_wsgi.thread_id")]),
    ([one("a", 1)], [B], [None]),                       # its thread serves another one by now
    ([one("a")], [UNTOLD, IDLE], [(UNTOLD, GUESSED)]),
    ([one("a", active=False)], [UNTOLD, IDLE], [None]),
    ([one("a"), one("b")], [UNTOLD], [None, None]),
    ([one("a"), one("b", active=False)], [UNTOLD], [(UNTOLD, GUESSED), None]),
    ([one("a")], [UNTOLD, a_thread(9)], [None]),
    ([one("a")], [UNTOLD, B], [None]),
    ([one("a")], [MOVES], [None]),
    ([], [A], []),
    # another thread has been handed the environ: it is not the request's
    ([one("a")], [BACKGROUND, A], [(A, "environ")]),
    ([one("a")], [A, BACKGROUND], [(A, "environ")]),
    ([one("a")], [A, STARTED], [(A, "environ")]),
    ([one("", 1)], [A, BACKGROUND], [(A, "mod_wsgi.thread_id")]),
    ([one("a")], [BACKGROUND], [(BACKGROUND, "environ")]),
    ([one("a")], [STARTED, IDLE], [(STARTED, "environ")]),
    ([one("", 1)], [a_thread(request="a", thread="1")], [(a_thread(request="a", thread="1"), "mod_wsgi.thread_id")]),
])
def test_a_stack_is_joined_with_its_request_or_it_is_said_why_not(requests, threads, wanted):
    found = joined(requests, threads)
    assert [None if thread is None else (thread, how) for thread, how in found] == wanted
    assert all(how.startswith("not joined: ") for thread, how in found if thread is None), found


@pytest.mark.parametrize("threads, why", [
    ([A, A._replace(tid=9)], "ambiguous: 2 threads hold this request's environ"),
    ([BACKGROUND, BACKGROUND._replace(tid=9), IDLE], "ambiguous: 2 threads hold this request's environ"),
    ([STARTED, BACKGROUND, IDLE], "ambiguous: 2 threads hold this request's environ"),
    ([BACKGROUND, MOVES], "ambiguous: only a background thread holds this request's environ, and 1 could not be read"),
])
def test_where_it_cannot_be_told_which_thread_serves_a_request_that_is_said(threads, why):
    assert joined([one("a")], threads) == [(None, why)]


def test_why_a_request_has_no_stack_is_said_in_its_row():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    taken_at(fleet, 1.0, B, UNTOLD, MOVES)
    assert stack_of(fleet) == {
        "tid": None, "how": None, "whole": False, "frames": [],
        "problem": "not joined: no thread tells this request; 1 active, 1 busy threads that tell none, 1 that could not be read"}


def test_the_stack_of_a_request_stays_when_it_is_done_and_goes_with_it():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    taken_at(fleet, 1.0, A)
    wanted = {"tid": 1, "how": "environ", "whole": True, "problem": None,
              "frames": [{"function": name, "file": file, "line": line, "interpreter": 0} for name, file, line, _ in APP]}
    assert stack_of(fleet) == wanted
    fold(fleet, worker.slow("a", done=True), now=2.0)
    taken_at(fleet, 3.0, B)                             # of another request: this one was over
    assert stack_of(fleet) == wanted
    assert fleet.slow.stack_bytes > 0
    fleet.slow.clear(4.0)
    assert (len(fleet.slow), fleet.slow.stack_bytes) == (0, 0)


def test_a_request_that_ended_while_its_stack_was_read_has_it_all_the_same():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    fleet.taken.begin(the_process(fleet), SLOW, 1.0)
    fold(fleet, worker.slow("a", done=True), now=1.1)
    fleet.taken.add(fleet, the_process(fleet), SLOW, a_take(A), 1.2, WALL)
    assert stack_of(fleet)["tid"] == 1


def test_one_that_could_not_be_read_does_not_replace_one_that_could():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    taken_at(fleet, 1.0, MOVES)
    assert stack_of(fleet)["frames"] == []
    taken_at(fleet, 2.0, A)
    taken_at(fleet, 3.0, MOVES)
    assert stack_of(fleet)["how"] == "environ"
    taken_at(fleet, 4.0, A._replace(tid=99))
    assert stack_of(fleet)["tid"] == 99


# --- what is kept -------------------------------------------------------------------------

def test_the_last_take_of_a_process_is_kept_without_variables():
    fleet = a_fleet_with(Worker(7))
    secret = a_thread(values=((("password", "'x'"),), (), ()))
    taken_at(fleet, 1.0, A)
    taken_at(fleet, 2.0, secret, why=ASKED)
    take = fleet.taken.get(the_process(fleet).id)
    assert (take.now, take.wall, take.why) == (2.0, WALL + 2.0, ASKED)
    assert stacks_in(take) == stacks_json(a_take(secret._replace(values=None)))
    assert "locals" not in str(unpacked(take.packed))
    assert (len(fleet.taken), fleet.taken.bytes) == (1, len(take.packed))
    assert fleet.taken.counters == {**dict.fromkeys(COUNTERS, 0), "taken": 2}


def told_at(fleet, now, number, why="agent: signal"):
    """The agent of this number sends a thread that has it for tid."""
    stacks = a_take(a_thread(number, interpreter=number), problem="a bit" if number == 2 else None)._replace(interpreters=(number,))
    fleet.taken.told(the_process(fleet), why, stacks, now, WALL + now)


def kept(fleet):
    take = fleet.taken.get(the_process(fleet).id)
    stacks = stacks_in(take)
    return take.why, take.now, [thread["tid"] for thread in stacks["threads"]], stacks["interpreters"], stacks["problem"]


def test_what_the_agents_of_one_process_tell_at_the_same_time_is_one():
    fleet = a_fleet_with(Worker(7))
    told_at(fleet, 10.0, 5)
    told_at(fleet, 10.1, 0)
    told_at(fleet, 10.2, 2)
    assert kept(fleet) == ("agent: signal", 10.2, [5, 0, 2], [0, 2, 5], "a bit")
    told_at(fleet, 10.3, 5)             # a further time: mod_wsgi calls one of them twice, and another not, as the thread would have it
    assert kept(fleet) == ("agent: signal", 10.3, [0, 2, 5], [0, 2, 5], "a bit")
    told_at(fleet, 13.4, 0)
    assert kept(fleet) == ("agent: signal", 13.4, [0], [0], None)
    told_at(fleet, 13.5, 2, "agent: watchdog")
    assert kept(fleet) == ("agent: watchdog", 13.5, [2], [2], "a bit")


@pytest.mark.parametrize("why, later, stays", [(SLOW, 59.0, True), (SLOW, 61.0, False), (SILENT, 1.0, False), (ASKED, 1.0, False)])
def test_what_agents_told_is_not_replaced_by_what_comes_by_itself_for_a_minute(why, later, stays):
    fleet = a_fleet_with(Worker(7))
    told_at(fleet, 10.0, 3)
    taken_at(fleet, 10.0 + later, why=why)
    assert kept(fleet)[0] == ("agent: signal" if stays else why)


def test_what_is_kept_is_bounded_in_number_and_bytes_and_the_oldest_goes():
    workers = [Worker(pid) for pid in range(1, 6)]
    for options in ({"limit": 3}, {"bytes_limit": 900}):
        fleet = a_fleet_with(*workers, **options)
        for at, process in enumerate(fleet.processes()):
            fleet.taken.begin(process, ASKED, float(at))
            fleet.taken.add(fleet, process, ASKED, a_take(A), float(at), WALL)
        kept = [fleet.process(number).pid for number in fleet.taken.numbers()]
        assert kept == [5, 4, 3][:len(kept)] and 1 <= len(kept) <= 3
        assert fleet.taken.counters["evicted"] == 5 - len(kept)
        assert fleet.taken.bytes == sum(len(fleet.taken.get(number).packed) for number in fleet.taken.numbers()) <= 1100


def test_stacks_of_requests_are_bounded_in_bytes():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    for name in "abcdef":
        fold(fleet, worker.slow(name))
    fleet.slow.STACK_BYTES = 500
    taken_at(fleet, 1.0, *(a_thread(ord(name), name) for name in "abcdef"))
    held = [key for key in fleet.slow.keys() if fleet.slow.freeze(key, 1.0).stack]
    assert 0 < len(held) < 6 and fleet.slow.keys()[-len(held):] == held
    assert fleet.slow.stack_bytes <= 500 and fleet.slow.stacks_evicted == 6 - len(held)


def test_all_goes_with_its_process():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"))
    process = the_process(fleet)
    taken_at(fleet, 1.0, A)
    fold(fleet, worker.stopped(), now=2.0)
    assert len(fleet.taken) == 1
    fleet.expire(700.0, WALL + 700.0)
    assert (fleet.processes(), len(fleet.taken), fleet.taken.bytes, fleet.slow.stack_bytes) == ([], 0, 0, 0)
    fleet.taken.add(fleet, process, SLOW, a_take(A), 701.0, WALL)      # an answer that comes too late
    assert len(fleet.taken) == 0


# --- in a sentence ------------------------------------------------------------------------

RE = (Frame("match", "/usr/lib/python3.8/re.py", 199), Frame("find", "/srv/shop/app.py", 12))
PACKAGE = (Frame("match", "/usr/lib/python3.11/re/__init__.py", 166), Frame("_compile", "/usr/lib/python3.11/re/__init__.py", 3),
           Frame("find", "/srv/shop/app.py", 12))


@pytest.mark.parametrize("threads, said", [
    ([IDLE, a_thread(frames=RE, owns_gil=True), A], "its GIL is held in re.py:199 match, called from app.py:12"),
    ([a_thread(frames=PACKAGE, owns_gil=True)], "its GIL is held in re/__init__.py:166 match, called from app.py:12"),
    ([a_thread(frames=RE[1:], owns_gil=True)], "its GIL is held in app.py:12 find"),
    ([IDLE, A], "its busy thread is in threading.py:320 wait, called from app.py:12"),
    ([a_thread(frames=(Frame("f" * 900, "/" + "x" * 900, None),))], "its busy thread is in " + "x" * 60 + " " + "f" * 60),
    ([a_thread(frames=(), problem=MOVING, owns_gil=True), A], ""),
    ([A, B], ""), ([IDLE], ""), ([], ""),
])
def test_where_a_silent_process_is_held(threads, said):
    assert holder(threads) == said


OURS = Frame("Middleware.__call__", "/opt/modwsgi-tel.pyz/site-packages/modwsgi_tel/agent/middleware.py", 49)


@pytest.mark.parametrize("frames, said", [
    ((Frame("view", "/srv/app.py", 12), OURS, Frame("handle", "/lib/gthread.py", 7)), "app.py:12 view, called from gthread.py:7"),
    ((OURS, Frame("handle", "/lib/gthread.py", 7)), "gthread.py:7 handle"),
    ((Frame("view", "/srv/modwsgi_tel/agent.py", 12), OURS), "agent.py:12 view"),
    ((OURS,), "middleware.py:49 Middleware.__call__")])
def test_an_agents_own_frames_are_no_place(frames, said):
    assert place(frames) == said
