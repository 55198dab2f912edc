"""The screen by curses, each in a process of its own on a bare terminal: what it writes, and that it never waits."""
import os
import re
import signal
import sys

import pytest

from modwsgi_tel.console import screen
from modwsgi_tel.errors import TelError
from running import wait_until
from terminals import COLOUR, DEADLINE_S, Pty

pytest.importorskip("curses", reason="this Python has no curses")

# what runs in the terminal: BODY sees `screen`, open, and tells by its exit status
FRAME = """
import os, select, signal, sys
from modwsgi_tel.console.cells import Span, line
from modwsgi_tel.console.screen import Gone, Screen
screen = Screen({colour})
screen.open()
def show(*lines):
    screen.draw([line(*each) for each in lines])
    return screen.flush()
def wait():
    select.select([0], [], [], 30)
    return screen.keys()
def until(number):
    came = []
    signal.signal(number, lambda *_: came.append(1))
    while not came:
        select.select([], [], [], 0.01)
status = 1
try:
{body}
finally:
    screen.close()
os._exit(status)
"""


def shown(body, colour=False, **more):
    """A Pty in which the lines of `body` run with an open Screen."""
    code = FRAME.format(colour=colour, body="".join(f"    {each}\n" for each in body.strip().split("\n")))
    return Pty(program=(sys.executable, "-c", code), **more)


def result(body, **more):
    """(exit status, bytes written) of such lines."""
    with shown(body, **more) as terminal:
        status = terminal.ended()
        assert terminal.modes_now() == terminal.modes
        return status, terminal.seen


def test_lines_are_written_where_they_belong():
    status, seen = result('show([Span("one")], [Span("two", "bold"), " three"]); status = 0')
    assert status == 0
    assert seen.index(b"one") < seen.index(b"two") < seen.index(b" three")


def test_the_lowest_right_cell_can_be_written():
    status, seen = result('show(*[[Span("%d" % row * 8)] for row in range(3)]); status = 0', rows=3, cols=8)
    assert status == 0 and re.search(rb"2222222(\x1b\[\?7l)?2", seen)


def test_more_lines_than_rows_and_wider_ones_than_the_screen_do_no_harm():
    assert result('show(*[[Span("x" * 500)]] * 50); status = 0', rows=2, cols=2)[0] == 0


def test_styles_are_attributes_and_only_with_colour_colours():
    body = 'show([Span("a", "bad")], [Span("b", "good")], [Span("c", "no such style")]); status = 0'
    assert b"\x1b[31m" in result(body, colour=True)[1] and b"\x1b[32m" in result(body, colour=True)[1]
    assert not COLOUR.search(result(body)[1])


def test_without_changes_nothing_is_written_again():
    status, _ = result("""
show([Span("one")])
screen.draw([line(Span("one"))])
status = len(screen.pending)
""")
    assert status == 0


def test_redraw_writes_everything_again():
    status, seen = result("""
show([Span("one")])
screen.redraw()
show([Span("one")])
status = 0
""")
    assert (status, seen.count(b"one")) == (0, 2)


@pytest.mark.parametrize("pressed, name", [
    (b"q", "q"), (b"\r", "enter"), (b"\n", "enter"), (b"\t", "tab"), (b"\x1b", "esc"), (b"\x7f", "backspace"),
    (b"\x0c", "ctrl-l"), (b"\x15", "ctrl-u"), (b"\x1bOA", "up"), (b"\x1b[5~", "pgup"), (b"\x1b[6~", "pgdn"),
    (b"\x1bOH", "home"), (b"\x1bOF", "end"), (b"\x1b[Z", "backtab"), ("é".encode(), "é"), ("漢".encode(), "漢")])
def test_keys_have_names(pressed, name):
    with shown(f'show([Span("ready")]); status = int(wait() != [{name!r}])') as terminal:
        terminal.wait_for(b"ready")
        terminal.press(pressed)
        assert terminal.ended() == 0


def test_keys_of_one_go_come_together_and_in_order():
    with shown('show([Span("ready")]); status = int(wait() != ["a", "enter", "up", "b"])') as terminal:
        terminal.wait_for(b"ready")
        terminal.press(b"a\r\x1bOAb")
        assert terminal.ended() == 0


def test_bytes_that_are_no_text_are_no_end():
    body = """
show([Span("ready")])
while "q" not in wait():
    pass
status = 0
"""
    with shown(body) as terminal:
        terminal.wait_for(b"ready")
        for _ in range(4):              # the terminal keeps 4,095 bytes
            terminal.press(b"\xff" * 3000)
            wait_until(lambda: terminal.unread() == 0, DEADLINE_S, lambda: f"{terminal.unread()} bytes are not read")
        assert terminal.process.poll() is None
        terminal.press_until_ended(b"q")
        assert terminal.process.returncode == 0


def test_a_closed_terminal_raises_gone_within_a_few_looks():
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
show([Span("ready")])
try:
    for looks in range(100):
        wait()
except Gone:
    status = 0
"""
    with shown(body, controls=False) as terminal:
        terminal.wait_for(b"ready")
        terminal.hang_up()
        assert terminal.process.wait(DEADLINE_S) == 0


def test_what_is_written_to_a_closed_terminal_raises_gone():
    body = """
show([Span("ready")])
until(signal.SIGHUP)
try:
    show([Span("gone")])
except Gone:
    status = 0
"""
    with shown(body) as terminal:
        terminal.wait_for(b"ready")
        wait_until(lambda: caught(terminal.process.pid, signal.SIGHUP), DEADLINE_S, "no handler")
        terminal.hang_up()
        assert terminal.process.wait(DEADLINE_S) == 0


def caught(pid, number):
    """Whether a process has a handler for a signal."""
    with open(f"/proc/{pid}/status") as handle:
        mask = next(row.split()[1] for row in handle if row.startswith("SigCgt:"))
    return int(mask, 16) >> (number - 1) & 1


STUCK = """
screens = 0
while show(*[[Span(chr(65 + screens % 26) * 290)]] * 90) and screens < 1000:
    screens += 1
kept = screen.pending
screen.draw([line(Span("not drawn"))])
status = int(not kept or screen.pending != kept or screens == 1000)
"""


def test_a_terminal_that_takes_nothing_is_never_waited_for_and_not_drawn_over():
    with shown(STUCK, rows=100, cols=300) as terminal:
        assert terminal.process.wait(DEADLINE_S) == 0
        assert terminal.modes_now() == terminal.modes


def test_what_a_slow_terminal_has_not_taken_comes_later_and_whole():
    body = STUCK + """
until(signal.SIGUSR1)
while not screen.flush():
    select.select([], [screen.descriptor], [], 30)
show([Span("the last")])
"""
    with shown(body, rows=100, cols=300) as terminal:
        wait_until(lambda: caught(terminal.process.pid, signal.SIGUSR1), DEADLINE_S, "it waits for the terminal")
        terminal.process.send_signal(signal.SIGUSR1)
        assert terminal.ended() == 0
        assert terminal.seen.count(b"the last") == 1 and b"not drawn" not in terminal.seen


def test_a_new_size_is_seen():
    body = """
came = []
signal.signal(signal.SIGWINCH, lambda *_: came.append(1))
show([Span("ready")])
while not came:
    select.select([], [], [], 0.01)
screen.resized()
show([Span("now %d %d" % screen.size())])
status = 0
"""
    with shown(body) as terminal:
        terminal.wait_for(b"ready")             # by then its handler is there; curses has one of its own before
        terminal.resize(7, 33)
        assert terminal.ended() == 0
        assert b"now 7 33" in terminal.seen


def test_between_suspend_and_resume_the_terminal_has_its_modes_and_nothing_is_drawn():
    body = """
show([Span("ready")])
screen.suspend()
show([Span("hidden")])
os.write(1, b"suspended")
os.read(0, 10)
screen.resume()
show([Span("again")])
status = 0
"""
    with shown(body) as terminal:
        terminal.wait_for(b"suspended")
        assert terminal.modes_now() == terminal.modes
        terminal.press(b"\n")
        terminal.wait_for(b"again")
        assert terminal.ended() == 0
        assert b"hidden" not in terminal.seen and terminal.modes_now() == terminal.modes


def test_closed_while_suspended_it_writes_nothing_more():
    with shown('show([Span("ready")])\nscreen.suspend()\nos.write(1, b"suspended")\nstatus = 0') as terminal:
        assert terminal.ended() == 0
        assert terminal.seen.endswith(b"suspended")


def test_the_last_row_is_left_empty_for_the_shell():
    body = 'show(*[[Span("row %d" % row)] for row in range(5)]); status = 0'
    status, seen = result(body, rows=5, cols=20, TERM="vt100")
    assert status == 0
    assert re.search(rb"\x1b\[[JK]", seen[seen.rindex(b"row 4"):])


@pytest.mark.parametrize("term, said", [
    (None, "TERM is not set, so nobody knows what this terminal can do: try TERM=xterm, or --plain"),
    ("", "TERM is not set, so nobody knows what this terminal can do: try TERM=xterm, or --plain"),
    ("a\x1b[31m", "TERM=a\x1b[31m: this machine does not know such a terminal: try TERM=xterm, or --plain")])
def test_a_terminal_nobody_knows_is_refused(term, said):
    with pytest.raises(TelError) as error:
        screen.check_terminal(term)
    assert str(error.value) == said


def test_without_a_terminal_there_is_no_screen(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor != 1)
    never = screen.Screen(True)
    with pytest.raises(TelError):
        never.open()
    never.close()
