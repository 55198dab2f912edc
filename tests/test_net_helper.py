"""Helper processes: what they hold, how long they may take, and what the loop does meanwhile."""
import os
import signal
import socket

import pytest

from modwsgi_tel.net import helper as helper_module
from modwsgi_tel.net.helper import Helper
from modwsgi_tel.net.loop import Loop
from running import wait_until

DEADLINE_S = 20.0


@pytest.fixture
def loop():
    made = Loop()
    made.after(DEADLINE_S, made.stop)
    yield made
    made.close()


def ask(loop, helper, work, argument=None):
    """What `done` gets."""
    answers = []
    helper.ask(work, argument, lambda answer: (answers.append(answer), loop.stop()))
    loop.run()
    return answers


def state_of(pid):
    """The letter of a process in /proc; "" when there is none, Z when it is dead and not reaped."""
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def held(_):
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{name}")}


def test_a_question_is_answered_through_json(loop):
    helper = Helper(loop)
    assert ask(loop, helper, lambda argument: {"got": argument}, [1, "two", None]) == [{"got": [1, "two", None]}]
    assert (helper.busy, helper.started, helper.failed, loop.readers) == (False, 1, 0, {})


def test_many_questions_leave_no_process_and_no_descriptor(loop):
    helper = Helper(loop)
    before = sorted(os.listdir("/proc/self/fd"))
    pids = []
    for number in range(20):
        (answered, pid), = ask(loop, helper, lambda argument: [argument, os.getpid()], number)
        assert answered == number
        pids.append(pid)
    loop.every(0.05, lambda: any(map(state_of, pids)) or loop.stop())       # the last ones may take a moment
    loop.run()
    assert [state_of(pid) for pid in pids] == [""] * 20
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_helper_inherits_no_descriptor_but_its_pipe_and_the_standard_ones(loop):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telemetry, open(os.devnull) as file:
        for each in (telemetry.fileno(), file.fileno()):
            os.set_inheritable(each, True)
        standard = {name: os.readlink(f"/proc/self/fd/{name}") for name in "012"}
        found, = ask(loop, Helper(loop), held)
    more = {name: what for name, what in found.items() if name not in standard}
    assert {name: found[name] for name in standard} == standard
    assert len(more) == 1 and list(more.values())[0].startswith("pipe:"), more


def test_a_helper_has_the_signals_of_a_plain_process_but_leaves_ctrl_c_to_its_parent(loop):
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.on_signal(number, lambda: None)

    def look(_):
        return [signal.getsignal(number).name for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] + [
            signal.set_wakeup_fd(-1)]

    assert ask(loop, Helper(loop), look) == [["SIG_DFL", "SIG_DFL", "SIG_IGN", -1]]


def test_a_helper_that_hangs_is_killed_after_its_time_and_the_loop_goes_on(loop, tmp_path):
    ticks = []

    def hang(_):
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.alarm(int(DEADLINE_S))
        signal.pause()

    loop.every(0.01, lambda: ticks.append(1))
    helper = Helper(loop, limit_s=0.3)
    assert ask(loop, helper, hang) == [None]
    assert len(ticks) >= 3 and (helper.busy, helper.failed) == (False, 1)
    wait_until(lambda: state_of((tmp_path / "pid").read_text()) in "Z", DEADLINE_S, "the helper lives on")
    assert ask(loop, helper, lambda argument: "the next one") == ["the next one"]


def test_a_helper_ends_by_itself_when_nobody_is_there_to_kill_it(loop, tmp_path, monkeypatch):
    """Its collector is dead: here that never kills it, and it hangs before its descriptors are closed."""
    def hang(_):
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            signal.pause()

    real, pid = os.kill, 0
    monkeypatch.setattr(helper_module, "become_helper", hang)
    monkeypatch.setattr(helper_module.os, "kill", lambda pid, number: None)
    signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        assert ask(loop, Helper(loop, limit_s=0.3), hang) == [None]
        pid = int((tmp_path / "pid").read_text())
        assert state_of(pid) not in "Z"
        wait_until(lambda: state_of(pid) in "Z", 5.0, "the helper lives on")
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if pid and state_of(pid):
            real(pid, signal.SIGKILL)


def test_a_helper_that_not_even_sigkill_ends_does_not_hold_the_loop(loop, tmp_path, monkeypatch):
    """As one in a read from a dead NFS server."""
    def hang(_):
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.alarm(int(DEADLINE_S) // 2)
        signal.pause()

    real = os.kill
    monkeypatch.setattr(helper_module.os, "kill", lambda pid, number: None)
    helper = Helper(loop, limit_s=0.3)
    assert ask(loop, helper, hang) == [None]
    pid = int((tmp_path / "pid").read_text())
    assert state_of(pid) not in "Z"
    assert ask(loop, helper, lambda argument: "the next one") == ["the next one"]
    real(pid, signal.SIGKILL)
    # whoever asks later also reaps it
    wait_until(lambda: ask(loop, helper, lambda argument: "later") == ["later"] and not state_of(pid), DEADLINE_S,
               "it is never reaped")


@pytest.mark.parametrize("work", [
    lambda _: os._exit(0), lambda _: os.kill(os.getpid(), signal.SIGKILL), lambda _: 1 / 0, lambda _: {1, 2},
    lambda _: "x" * (2 << 20)], ids=["ends", "is killed", "raises", "is no JSON", "too much"])
def test_a_helper_without_an_answer_gives_none(loop, work):
    helper = Helper(loop)
    assert (ask(loop, helper, work), helper.failed, helper.busy) == ([None], 1, False)


def test_where_no_process_can_be_started_the_answer_is_none(loop, monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(helper_module.os, "fork", fork)
    helper, answers = Helper(loop), []
    helper.ask(lambda argument: 1, None, answers.append)
    assert (answers, helper.failed, helper.busy, sorted(os.listdir("/proc/self/fd"))) == ([None], 1, False, before)


def test_closing_ends_the_one_that_runs(loop, tmp_path):
    def hang(_):
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.alarm(int(DEADLINE_S))
        signal.pause()

    helper = Helper(loop)
    helper.ask(hang, None, pytest.fail)
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), DEADLINE_S, "no pid"))
    helper.close()
    wait_until(lambda: state_of(pid) in "Z", DEADLINE_S, "the helper lives on")
    assert (helper.busy, loop.readers) == (False, {})
