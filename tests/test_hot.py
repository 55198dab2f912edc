"""hot as its user has it: the real program on real processes, in a real terminal."""
import json
import os
import signal
import subprocess
import time

import pytest
from sampled import target
from terminals import COLOUR, DEADLINE_S, TMUX, Pty, Tmux, environment

from running import CHECKOUT, ROOT, wait_until

needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "universal_newlines": True}


@pytest.fixture(scope="module")
def spinning():
    """A process with a thread that spins and one that is parked."""
    with target() as started:
        started.do("start(spin)")
        yield started


@pytest.fixture
def mortal():
    with target() as started:
        yield started


def run(*arguments, **more):
    """(exit status, stdout, stderr) of a hot that ends by itself."""
    done = subprocess.run([*CHECKOUT, "hot", *map(str, arguments)], cwd=ROOT, env=environment(**more), timeout=DEADLINE_S, **PIPES)
    return done.returncode, done.stdout, done.stderr


def refused(*arguments, **more):
    status, out, err = run(*arguments, **more)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("modwsgi-tel: "), (status, out, err)
    return err[len("modwsgi-tel: "):-1]


def cells(text):
    """{function: [cells of its row]} of a table on a wide page; the file is the last cell."""
    return {row.split()[-2]: row.split() for row in text.splitlines()[3:] if len(row.split()) > 6}


# --- once -------------------------------------------------------------------------------------

def test_once_prints_a_table_of_functions_by_their_share(spinning):
    status, out, err = run(spinning.pid, "--once", "--duration", "0.5")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"pid {spinning.pid}  Python ") and lines[0].endswith(" ms")
    assert lines[1].startswith("looks/s ") and "GIL held " in lines[1]
    assert lines[2].split() == ["own▼", "total", "GIL", "own", "s", "total", "s", "function", "file"]
    found = cells(out)
    assert found["spin"][:2] == ["33.3", "%"] and found["obey"][:2] == ["33.3", "%"] and float(found["spin"][4]) > 90
    assert not out.endswith("\n\n") and "q quit" not in out


def test_once_as_json_has_the_same_with_seconds(spinning):
    status, out, _ = run(spinning.pid, "--once", "--json", "--duration", "0.5", "--rate", "40")
    told = json.loads(out)
    assert status == 0 and out.count("\n") == 1
    assert [each["pid"] for each in told["processes"]] == [spinning.pid] and told["of"] == "working"
    by_name = {each["function"]: each for each in told["functions"]}
    assert by_name["spin"]["own"] == pytest.approx(1 / 3, abs=0.01) and by_name["spin"]["gil"] > 0.9
    assert by_name["spin"]["own_s"] == pytest.approx(told["seen_s"], abs=0.1) and told["looks"] >= 10
    assert set(by_name["spin"]) == {"function", "file", "own", "total", "gil", "own_s", "total_s"}


def test_whose_time_is_shown_and_how_it_is_sorted_can_be_said(spinning):
    once = (spinning.pid, "--once", "--duration", "0.3")
    held = cells(run(*once, "--gil")[1])
    assert "spin" in held and "obey" not in held
    assert "_worker" in cells(run(*once, "--idle")[1]) and "_worker" not in cells(run(*once)[1])
    names = list(cells(run(*once, "--sort", "function")[1]))
    assert names == sorted(names)


def test_with_stop_it_says_what_that_does(spinning):
    pytest.importorskip("ctypes")
    status, out, err = run(spinning.pid, "--once", "--stop", "--duration", "0.3", "--gil")
    assert status == 0 and "stands still for a moment" in err and "spin" in cells(out)
    spinning.do("pass")


def test_once_that_is_ended_early_shows_what_it_has_and_says_so(mortal):
    for end, why in ((lambda shown: shown.send_signal(signal.SIGINT), ("ended early by Ctrl-C, ",)),
                     (lambda shown: shown.send_signal(signal.SIGTERM), ("ended early by SIGTERM, ",)),
                     (lambda shown: mortal.end(), (f"process {mortal.pid}", "ended early by the end of all processes, "))):
        shown = subprocess.Popen([*CHECKOUT, "hot", str(mortal.pid), "--once", "--duration", "100", "--rate", "500"], cwd=ROOT, env=environment(), **PIPES)
        try:
            wait_until(lambda: ticks(shown.pid) >= 15, DEADLINE_S, "it takes no looks")
            end(shown)
            out, err = shown.communicate(timeout=DEADLINE_S)
        finally:
            shown.kill()
            shown.communicate()
        told = err.splitlines()
        assert shown.returncode == 0 and "obey" in out and len(told) == len(why)
        assert [line[:len("modwsgi-tel: " + each)] for line, each in zip(told, why)] == ["modwsgi-tel: " + each for each in why]
        assert told[-1].endswith(" of 2 min: what there is is whole")


def ticks(pid):
    """CPU time that a process has used, in clock ticks."""
    with open(f"/proc/{pid}/stat", "rb") as handle:
        words = handle.read().rpartition(b")")[2].split()
    return int(words[11]) + int(words[12])


# --- what cannot be meant ---------------------------------------------------------------------

def test_what_cannot_be_meant_is_said(spinning):
    assert "goes with --once" in refused(spinning.pid, "--json")
    assert "goes with --once" in refused(spinning.pid, "--duration", "3")
    assert "goes without --plain" in refused(spinning.pid, "--once", "--plain")
    assert "goes without --idle" in refused(spinning.pid, "--once", "--gil", "--idle")
    assert "which process?" in refused()
    assert "4194303" in refused("4194303", "--once")
    assert refused(spinning.pid) == "hot needs a terminal: use --once, or --plain for a screenful again and again"


@pytest.mark.parametrize("term, said", [("dumb", "TERM=dumb: cannot place text on the screen: use --plain or --once"),
                                        ("nonsense", "does not know such a terminal"), ("", "TERM is not set")])
def test_a_terminal_that_cannot_be_drawn_on_is_said(spinning, term, said):
    with Pty("hot", str(spinning.pid), TERM=term) as terminal:
        assert terminal.ended() == 2
        assert said in terminal.seen.decode() and terminal.seen.count(b"\n") == 1
        assert terminal.modes_now() == terminal.modes


# --- page after page --------------------------------------------------------------------------

def test_plain_prints_pages_until_the_process_ends(mortal):
    mortal.do("start(spin)")
    shown = subprocess.Popen([*CHECKOUT, "hot", str(mortal.pid), "--plain", "--refresh", "0.2"], cwd=ROOT,
                             env=environment(), **PIPES)
    try:
        for line in shown.stdout:
            if " spin " in line:
                break
        mortal.end()
        out, err = shown.communicate(timeout=DEADLINE_S)
    finally:
        shown.kill()
        shown.communicate()
    assert (shown.returncode, err) == (0, "")
    assert f"process {mortal.pid} has ended" in out


# --- live -------------------------------------------------------------------------------------

@pytest.fixture
def console(spinning):
    with Tmux(rows=24, cols=100) as terminal:
        terminal.run("hot", str(spinning.pid), "--refresh", "0.2")
        terminal.wait_for(" spin ")
        yield terminal


@needs_tmux
def test_functions_are_shown_with_the_keys_that_matter(console, spinning):
    lines = console.wait_for("33.3 %").splitlines()
    assert lines[0].startswith(f"pid {spinning.pid}  Python ") and lines[0].endswith(" 5s")
    assert lines[-1].startswith("[threads at work]  q quit  ? help")


@needs_tmux
def test_keys_filter_sort_search_and_reset(console):
    console.keys("i")
    console.wait_for("_worker")
    console.keys("g")
    console.wait_for(lambda screen: " spin " in screen and " obey " not in screen)
    console.keys("g")
    console.wait_for(" obey ")
    console.keys("2")
    console.wait_for("total▼")
    console.type("/spi")
    console.wait_for(lambda screen: " spin " in screen and " obey " not in screen and "/spi_" in screen)
    console.keys("Escape")
    console.wait_for(" obey ")
    console.keys("n")
    console.wait_for(" 15s")

    def seconds(screen):
        rows = [line for line in screen.splitlines() if " spin " in line]
        return float(rows[0].split(" spin ")[0].split()[-1]) if rows else None

    before = seconds(console.wait_for(lambda screen: (seconds(screen) or 0.0) > 2.0))
    console.keys("z")
    console.wait_for("counted anew")
    console.wait_for(lambda screen: (seconds(screen) or before) < before)


@needs_tmux
def test_a_pause_takes_no_looks_and_goes_on_where_it_was(console):
    console.keys("Space")
    paused = console.wait_for("PAUSED")
    row = next(line for line in paused.splitlines() if " spin " in line)
    console.resize(20, 100)
    began = time.monotonic()            # three screens would be drawn meanwhile, with more seconds in that row
    assert row in console.wait_for(lambda screen: time.monotonic() - began > 0.7 and len(screen.splitlines()) == 20)
    console.keys("Space")
    console.wait_for(lambda screen: "PAUSED" not in screen and row not in screen)


@needs_tmux
def test_the_help_lists_the_keys(console):
    console.keys("?")
    console.wait_for("zero: count anew")
    console.keys("q")
    console.wait_for(" spin ")


@needs_tmux
@pytest.mark.parametrize("key", ["q", "Escape", "C-c", "C-\\"])
def test_leaving_gives_the_terminal_back_as_it_was(console, key):
    assert not console.sane()
    console.keys(key)
    assert console.ended() == 0
    assert console.sane() and console.modes_after() == console.modes_before()
    assert " spin " not in console.screen()


@needs_tmux
def test_a_shell_stops_it_and_brings_it_back(console):
    console.keys("C-z")
    console.wait_for("Stopped")
    assert console.sane()
    console.type("fg")
    console.keys("Enter")
    console.wait_for(" spin ")


@needs_tmux
@pytest.mark.parametrize("rows, cols", [(10, 40), (2, 1), (3, 200)])
def test_any_size_is_drawn(spinning, rows, cols):
    with Tmux(rows=24, cols=80) as terminal:
        terminal.run("hot", str(spinning.pid), "--refresh", "0.2")
        terminal.wait_for(" spin ")
        terminal.resize(rows, cols)
        terminal.wait_for(lambda screen: screen.count("\n") <= rows + 1)
        terminal.resize(24, 80)
        terminal.wait_for(" spin ")
        terminal.keys("q")
        assert terminal.ended() == 0


def test_one_cell_is_enough_to_live_on(spinning):
    with Pty("hot", str(spinning.pid), rows=1, cols=1) as terminal:
        terminal.wait_for(lambda seen: "…".encode() in seen)
        terminal.resize(24, 80)
        terminal.wait_for(b"spin")
        terminal.press(b"q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("more, options", [({"NO_COLOR": "1"}, ()), ({}, ("--no-color",)), ({"LC_ALL": "C"}, ("--no-color",)),
                                           ({}, ("--no-color", "--ascii"))])
def test_without_colour_and_without_utf8(spinning, more, options):
    with Pty("hot", str(spinning.pid), *options, **more) as terminal:
        terminal.wait_for(b"spin")
        terminal.press(b"q")
        assert terminal.ended() == 0
    assert not COLOUR.search(terminal.seen)
    if "--ascii" in options or "LC_ALL" in more:
        assert terminal.seen.isascii()


def test_with_colour_what_is_hot_is_marked(spinning):
    with Pty("hot", str(spinning.pid)) as terminal:
        terminal.wait_for(b"spin")
        terminal.press(b"q")
        assert terminal.ended() == 0
    assert COLOUR.search(terminal.seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_cleanly(spinning, number):
    with Pty("hot", str(spinning.pid)) as terminal:
        terminal.wait_for(b"spin")
        os.kill(terminal.process.pid, number)
        assert terminal.ended() == 0
        assert terminal.modes_now() == terminal.modes and b"Traceback" not in terminal.seen


def test_a_terminal_that_is_closed_ends_it(spinning):
    with Pty("hot", str(spinning.pid)) as terminal:
        terminal.wait_for(b"spin")
        terminal.hang_up()
        wait_until(lambda: terminal.process.poll() is not None, DEADLINE_S, "it goes on")


@needs_tmux
def test_what_was_seen_stays_when_the_process_has_ended(mortal):
    mortal.do("start(spin)")
    with Tmux(rows=24, cols=100) as terminal:
        terminal.run("hot", str(mortal.pid), "--refresh", "0.2")
        terminal.wait_for(" spin ")
        mortal.end()
        screen = terminal.wait_for(f"process {mortal.pid} has ended")
        assert " spin " in screen
        terminal.keys("?")
        terminal.wait_for("this help")
        terminal.keys("q", "q")
        assert terminal.ended() == 0


@needs_tmux
def test_one_of_several_that_ends_is_told_and_the_others_go_on(spinning, mortal):
    with Tmux(rows=24, cols=100) as terminal:
        terminal.run("hot", str(spinning.pid), str(mortal.pid), "--refresh", "0.2")
        terminal.wait_for("processes 2")
        assert terminal.wait_for(" spin ").startswith("2 processes: ")
        mortal.end()
        terminal.wait_for(lambda screen: f"process {mortal.pid} has ended" in screen and "processes 1" in screen)
        terminal.keys("q")
        assert terminal.ended() == 0


def test_the_screen_can_be_written_to_a_file(spinning, tmp_path):
    with Pty("hot", str(spinning.pid), cwd=str(tmp_path)) as terminal:
        terminal.wait_for(b"spin")
        terminal.press(b"c")
        terminal.wait_for(b"written: ")
        terminal.press(b"q")
        assert terminal.ended() == 0
    (name,) = os.listdir(tmp_path)
    assert " spin " in (tmp_path / name).read_text()
