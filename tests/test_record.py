"""record: looks at real processes again and again, as a file."""
import contextlib
import json
import os
import signal
import subprocess

import pytest
from profiles import a_look
from sampled import target
from terminals import Pty

from modwsgi_tel import sampling, targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.options import read
from modwsgi_tel.sampling import Sampler
from running import CHECKOUT, ROOT, clean_environment, wait_until

DEADLINE_S = 30.0
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "universal_newlines": True}


@pytest.fixture
def one():
    with target() as started:
        yield started


def start(*arguments):
    return subprocess.Popen([*CHECKOUT, "record", *map(str, arguments)], cwd=ROOT, env=clean_environment(), **PIPES)


def run(*arguments):
    """(exit status, stdout, stderr) of a recording."""
    done = subprocess.run([*CHECKOUT, "record", *map(str, arguments)], cwd=ROOT, env=clean_environment(), timeout=DEADLINE_S,
                          **PIPES)
    return done.returncode, done.stdout, done.stderr


def said(*arguments):
    """The one line that a recording which cannot be made ends with."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("modwsgi-tel: "), (status, out, err)
    return err[len("modwsgi-tel: "):-1]


def stacks_of(text):
    """{(function, ...): seconds}, outermost first, of folded stacks."""
    found = {}
    for line in text.splitlines()[1:]:
        path, _, amount = line.rpartition(" ")
        names = tuple(each.split(" (")[0] if not each.startswith("(") else each for each in path.split(";"))
        found[names] = found.get(names, 0) + int(amount) / 1e6
    return found


def with_function(stacks, name):
    return sum(seconds for path, seconds in stacks.items() if any(each.endswith(name) for each in path))


# --- what is in the file ---------------------------------------------------------------------------

def test_folded_stacks_go_to_stdout_and_what_was_counted_to_stderr(one):
    status, out, err = run(one.pid, "--duration", "0.5", "--rate", "40")
    assert status == 0
    found = stacks_of(out)
    assert with_function(found, "parked") == pytest.approx(0.5, abs=0.2)
    assert with_function(found, "obey") == pytest.approx(with_function(found, "parked"))
    assert with_function(found, "_worker") == 0          # the pool has nothing to do
    assert err.startswith("modwsgi-tel: stdout: ") and "moving 0 (0.0 %)" in err and "of idle threads left out" in err
    assert err.count("\n") == 1                          # no progress where there is no terminal


def test_idle_threads_are_counted_when_asked_for(one):
    found = stacks_of(run(one.pid, "--duration", "0.3", "--idle")[1])
    assert with_function(found, "_worker") > 0.1


@pytest.mark.parametrize("name, head", [("a.svg", "<?xml "), ("a.folded", "(modwsgi-tel record: "),
                                        ("a.speedscope.json", '{"$schema"'), ("a.firefox.json", '{"meta"')])
def test_the_ending_of_the_file_says_the_format(one, tmp_path, name, head):
    path = tmp_path / name
    status, out, err = run(one.pid, "--duration", "0.1", "-o", path)
    assert (status, out) == (0, "") and err.startswith(f"modwsgi-tel: {path}: ")
    text = path.read_text()
    assert text.startswith(head) and "parked" in text
    assert os.listdir(tmp_path) == [name]
    if name.endswith(".json"):
        json.loads(text)


def test_a_dash_is_stdout(one, tmp_path):
    status, out, err = run(one.pid, "--duration", "0.1", "-o", "-")
    assert status == 0 and out.startswith("(modwsgi-tel record: ") and err.startswith("modwsgi-tel: stdout: ")
    assert run(one.pid, "--duration", "0.1", "-o", "-", "--format", "svg")[1].startswith("<?xml ")
    assert not os.path.exists(os.path.join(ROOT, "-"))


def test_format_goes_before_the_ending(one, tmp_path):
    assert run(one.pid, "--duration", "0.1", "-o", tmp_path / "a.svg", "--format", "folded")[0] == 0
    assert (tmp_path / "a.svg").read_text().startswith("(modwsgi-tel record: ")


def test_a_former_recording_is_compared_with(one, tmp_path):
    before = tmp_path / "before.folded"
    assert run(one.pid, "--duration", "0.2", "-o", before)[0] == 0
    one.do("start(spin)")
    status, out, _ = run(one.pid, "--duration", "0.3", "--diff", before)
    assert status == 0 and out.startswith("(modwsgi-tel record --diff: before: ")
    grown = [line.rsplit(" ", 2) for line in out.splitlines() if ";spin " in line]
    assert [before for _, before, _ in grown] == ["0"] and int(grown[0][2]) > 0
    assert run(one.pid, "--duration", "0.1", "--diff", before, "-o", tmp_path / "c.svg")[0] == 0


def test_by_gives_outer_frames_and_gil_and_cpu_leave_out_who_waits(one):
    one.do("start(spin)")
    by = stacks_of(run(one.pid, "--duration", "0.3", "--by", "thread,process")[1])
    assert {path[0].split()[:2] == ["pid", str(one.pid)] for path in by} == {True}
    assert {path[1].split()[-1] for path in by} == {"MainThread", "parked", "spin"}
    for flag in ("--gil", "--cpu"):
        found = stacks_of(run(one.pid, "--duration", "0.5", flag)[1])
        assert with_function(found, "spin") > 0.1 and with_function(found, "parked") == 0, (flag, found)


def test_new_threads_and_new_subprocesses_are_taken_up(one):
    recording = start(one.pid, "--subprocesses", "--duration", "20", "--rate", "30")
    try:
        wait_until(lambda: b"\0" in _cmdline(recording.pid) and _reads(recording.pid, one.pid), DEADLINE_S, "it does not begin")
        one.do("start(spin)")
        one.do("made = child()")
        child = _child_of(one.pid)
        wait_until(lambda: _reads(recording.pid, child), DEADLINE_S, "the subprocess is not read")
        wait_until(lambda: _cpu(recording.pid, 5), DEADLINE_S, "no more looks are taken")
        recording.send_signal(signal.SIGINT)
        out, err = recording.communicate(timeout=DEADLINE_S)
    finally:
        recording.kill()
        recording.communicate()
        one.do("made.kill(); made.wait()")
    found = stacks_of(out)
    assert recording.returncode == 0 and with_function(found, "spin") > 0 and with_function(found, "in_the_child") > 0


def _cmdline(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as handle:
        return handle.read()


def _reads(pid, of):
    """Whether a process has the memory of another one open."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == f"/proc/{of}/mem":
                    return True
    return False


def _child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as handle:
        return int(handle.read().split()[-1])


def _cpu(pid, ticks, seen={}):
    """Whether a process has used so many clock ticks since it was first asked for."""
    with open(f"/proc/{pid}/stat", "rb") as handle:
        words = handle.read().rpartition(b")")[2].split()
    now = int(words[11]) + int(words[12])
    return now - seen.setdefault(pid, now) >= ticks


# --- ends ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number, name", [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_ended_early_it_keeps_what_it_has_and_says_so(one, tmp_path, number, name):
    path = tmp_path / "a.folded"
    recording = start(one.pid, "--duration", "100", "-o", path)
    try:
        wait_until(lambda: _reads(recording.pid, one.pid), DEADLINE_S, "it does not begin")
        wait_until(lambda: _cpu(recording.pid, 3), DEADLINE_S, "no looks are taken")
        recording.send_signal(number)
        _, err = recording.communicate(timeout=DEADLINE_S)
    finally:
        recording.kill()
        recording.communicate()
    assert recording.returncode == 0
    assert err.splitlines()[0].startswith(f"modwsgi-tel: ended early by {name}, ") and err.count("\n") == 2
    assert with_function(stacks_of(path.read_text()), "parked") > 0


def test_a_process_that_ends_is_said_and_the_others_go_on(one, tmp_path):
    path = tmp_path / "a.folded"
    with target() as other:
        recording = start(one.pid, other.pid, "--duration", "100", "--by", "process", "-o", path)
        try:
            wait_until(lambda: _reads(recording.pid, other.pid), DEADLINE_S, "it does not begin")
            wait_until(lambda: _cpu(recording.pid, 3), DEADLINE_S, "no looks are taken")
            other.end()
            wait_until(lambda: not _reads(recording.pid, other.pid), DEADLINE_S, "it is still read")
            assert recording.poll() is None
            one.end()
            _, err = recording.communicate(timeout=DEADLINE_S)
        finally:
            recording.kill()
            recording.communicate()
    assert recording.returncode == 0
    assert err.splitlines()[:2] == [f"modwsgi-tel: process {pid} has ended" for pid in (other.pid, one.pid)]
    assert "ended early by the end of all processes" in err
    assert {path[0].split()[1] for path in stacks_of(path.read_text())} == {str(one.pid), str(other.pid)}


def test_when_none_can_be_read_it_says_why_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "a.folded"
    path.write_text("the old one")
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        assert f"{sleeping.pid}" in said(sleeping.pid, "-o", path)
        status, _, err = run(sleeping.pid, 4194303, "-o", path)
        assert status == 2 and str(sleeping.pid) in err and "4194303" in err and "Traceback" not in err
    finally:
        sleeping.kill()
        sleeping.wait()
    assert (path.read_text(), os.listdir(tmp_path)) == ("the old one", ["a.folded"])


def test_one_of_two_that_cannot_be_read_is_said_and_the_exit_status_tells(one):
    status, out, err = run(one.pid, 4194303, "--duration", "0.1")
    assert status == 1 and "parked" in out and "4194303" in err.splitlines()[0]


def test_what_cannot_be_meant_is_said_before_anything_is_recorded(one, tmp_path):
    assert "names no format" in said(one.pid, "-o", tmp_path / "a.xyz", "--duration", "100")
    assert "is a folder, which is left alone" in said(one.pid, "-o", tmp_path, "--format", "svg", "--duration", "100")
    assert "No such file or directory" in said(one.pid, "-o", tmp_path / "none" / "a.svg", "--duration", "100")
    assert "cannot be shown as speedscope" in said(one.pid, "--format", "speedscope", "--diff", tmp_path / "x", "--duration", "100")
    assert "cannot read it" in said(one.pid, "--diff", tmp_path / "x", "--duration", "100")
    assert "one of process, interpreter, thread" in said(one.pid, "--by", "line")
    assert "which process?" in said()
    assert "is no pid" in said("abc")
    assert os.listdir(tmp_path) == []


def test_o_is_short_for_output():
    assert read("record", ["7", "-o", "a.svg"], {}).output == read("record", ["7", "--output", "a.svg"], {}).output == "a.svg"
    assert read("record", ["--by", "thread, process"], {}).by == ("process", "thread")


def test_no_samples_are_explained(one):
    status, out, err = run(one.pid, "--gil", "--duration", "0.1")
    assert status == 0 and out.count("\n") == 1 and "no samples: no thread held the GIL" in err


def test_with_stop_it_says_what_that_does_and_the_target_goes_on(one):
    pytest.importorskip("ctypes")
    one.do("start(spin)")
    status, out, err = run(one.pid, "--stop", "--duration", "0.3", "--gil")
    assert status == 0 and "stands still for a moment" in err.splitlines()[0]
    assert with_function(stacks_of(out), "spin") > 0.1
    one.do("pass")
    with open(f"/proc/{one.pid}/stat") as handle:
        assert handle.read().rpartition(")")[2].split()[0] in "RS"


# --- progress --------------------------------------------------------------------------------------

def test_a_terminal_shows_how_far_it_is_on_one_line_and_a_clean_one_at_the_end(one, tmp_path):
    with Pty("record", str(one.pid), "--duration", "100", "-o", str(tmp_path / "a.svg"), cols=60) as terminal:
        terminal.wait_for(lambda seen: seen.count(b" of 100 s, ") + seen.count(b" of 2 min, ") >= 3)
        assert b"\n" not in terminal.seen
        terminal.press(b"\x03")
        assert terminal.ended() == 0
    drawn = [part for part in terminal.seen.split(b"\n")[0].split(b"\r") if part.strip(b" ^C")]
    assert max(len(part.replace(b"^C", b"")) for part in drawn[:-1]) < 60
    assert drawn[-1].startswith(b"modwsgi-tel: ended early by Ctrl-C") and drawn[-2].strip(b" ^C") != b""


# --- looks, without a process ----------------------------------------------------------------------

class Loop:
    """A loop whose clock is told the time."""

    def __init__(self):
        self.now, self.timers = 100.0, []

    def clock(self):
        return self.now

    def after(self, seconds, callback):
        self.timers.append((self.now + seconds, callback))

    def run_until(self, end):
        while self.timers and min(self.timers)[0] <= end:
            due, callback = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove((due, callback))
            self.now = max(self.now, due)
            callback()


class Reader:
    """A process that takes `costs` seconds a look, and ends after `looks`."""

    def __init__(self, loop, pid=7, costs=0.0, looks=1 << 30):
        self.loop, self.pid, self.costs, self.left, self.closed = loop, pid, costs, looks, False

    def hurry(self):
        pass

    def look(self, **how):
        if not self.left:
            raise TelError(f"process {self.pid} has ended")
        self.left -= 1
        self.loop.now += self.costs
        return a_look(pid=self.pid)

    def close(self):
        self.closed = True


def sampled(*readers, rate=10, until=1.0, loop):
    """(looks as (pid, weight), what was told) of a Sampler."""
    took, told = [], []
    sampler = Sampler(loop, readers, rate, lambda stacks, weight_s, now: took.append((stacks.pid, round(weight_s, 6))), told.append,
                      lambda: told.append("ended"))
    loop.run_until(loop.now + until)
    return took, told, sampler


def test_looks_come_at_their_rate_and_the_first_stands_for_one_interval():
    loop = Loop()
    assert sampled(Reader(loop), until=0.45, loop=loop)[0] == [(7, 0.1)] * 5


def test_a_late_turn_is_not_made_up_for_and_half_of_the_time_is_rest():
    loop = Loop()
    took, _, _ = sampled(Reader(loop, costs=0.3), until=3.0, loop=loop)
    assert [round(weight, 3) for _, weight in took] == [0.1, *[0.6] * (len(took) - 1)] and len(took) in (5, 6)


def test_after_one_late_turn_the_rate_is_kept_again():
    loop = Loop()
    took, _, _ = sampled(Reader(loop), until=0.05, loop=loop)
    loop.timers = [(due + 0.35, callback) for due, callback in loop.timers]
    loop.run_until(loop.now + 0.75)
    assert [weight for _, weight in took] == [0.1, 0.45, 0.1, 0.1, 0.1]


def test_a_long_silence_is_not_the_doing_of_what_is_seen_after_it():
    loop = Loop()
    took, _, sampler = sampled(Reader(loop), until=0.05, loop=loop)
    loop.timers = [(due + 500.0, callback) for due, callback in loop.timers]
    loop.run_until(loop.now + 501.0)
    assert took[1] == (7, sampling.GAP_S)


def test_a_pause_counts_for_nothing():
    loop = Loop()
    took, _, sampler = sampled(Reader(loop), until=0.05, loop=loop)
    sampler.pause(True)
    loop.run_until(loop.now + 3.0)
    assert len(took) == 1
    sampler.pause(False)
    loop.run_until(loop.now + 0.1)
    assert took[1] == (7, 0.1)


class Holds:
    """A Stopper that says how often it held nobody."""

    def __init__(self):
        self.missed = 0

    def close(self):
        pass


def test_how_often_nobody_was_held_is_counted_over_all_processes(monkeypatch, capsys):
    loop, stoppers = Loop(), {7: Holds(), 8: Holds()}
    monkeypatch.setattr(sampling, "_stopper", stoppers.get)
    sampler = Sampler(loop, (Reader(loop, 7, looks=1), Reader(loop, 8)), 10, lambda *_: None, lambda why: None, lambda: None, stop=True)
    stoppers[7].missed, stoppers[8].missed = 2, 3
    loop.run_until(loop.now + 0.5)
    assert sampler.missed == 2                          # the other is still being looked at
    sampler.close()
    assert sampler.missed == 5
    for missed in (0, 1, sampler.missed):
        targets.say_missed(missed)
    assert [line.split(" could not")[0] for line in capsys.readouterr().err.splitlines()] == [
        "modwsgi-tel: --stop: 1 time the thread that holds the GIL", "modwsgi-tel: --stop: 5 times the thread that holds the GIL"]


def test_who_ends_is_told_and_closed_and_the_last_one_ends_it():
    loop = Loop()
    readers = Reader(loop, 7, looks=1), Reader(loop, 8, looks=2)
    took, told, _ = sampled(*readers, loop=loop)
    assert took == [(7, 0.1), (8, 0.1), (8, 0.1)]
    assert told == ["process 7 has ended", "process 8 has ended", "ended"] and all(each.closed for each in readers)
