"""Terminals to run the console in: tmux, for what its user sees and does, and a bare pty, for the very bytes.

Every wait has a deadline; what fails shows the screen as it was.
"""
import contextlib
import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from running import ROOT, clean_environment, short_folder, wait_until

TMUX = shutil.which("tmux")
DEADLINE_S = 30.0
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
PROGRAM = (sys.executable, "-m", "modwsgi_tel")


def environment(**more):
    """What a program in one of these terminals gets: the checkout may run from any folder; None takes a name out."""
    out = dict.fromkeys(("LANG", "NO_COLOR", "TMUX", "TMUX_PANE", "MOD_WSGI_TELEMETRY_URL", "LINES", "COLUMNS"))
    return clean_environment(**{**out, "PYTHONPATH": ROOT, "LC_ALL": "C.UTF-8", **more})


def children_of(pid):
    """The processes that a process has started and not yet waited for."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children") as handle:
            return [int(each) for each in handle.read().split()]
    return []


class Tmux:
    """A shell in a tmux of its own, seen by nobody else; ended with all that runs in it.

        with Tmux(rows=24, cols=80) as terminal:
            terminal.run("top", "--url", url)
            terminal.wait_for("processes")
            terminal.keys("q")
            assert terminal.ended() == 0

    term: TERM for `run`.  cwd: of the shell.  The rest are variables, None to take one out.
    """

    def __init__(self, rows=24, cols=80, term="tmux-256color", cwd=None, **more):
        self._cleanup = contextlib.ExitStack()
        self.folder = self._cleanup.enter_context(short_folder())
        self._socket = os.path.join(self.folder, "tmux")
        self._size = (rows, cols)
        self._lines = 0                 # that the shell was given
        self._term = term
        self._environment = environment(TERM="xterm", HISTFILE=None, **more)
        self._cwd = cwd or self.folder

    def __enter__(self):
        try:
            rows, cols = self._size
            self._cleanup.callback(self._tmux, "kill-server", check=False)
            self._tmux("start-server", ";", "set-option", "-g", "default-terminal", "tmux-256color", ";",
                       "set-option", "-g", "escape-time", "0", ";", "new-session", "-d", "-x",
                       str(cols), "-y", str(rows), "-c", self._cwd,
                       "env PS1='shell> ' bash --norc --noprofile")
            self.shell = int(self.told("#{pane_pid}"))
            self.wait_for("shell>")
            return self
        except BaseException:
            self._cleanup.close()
            raise

    def __exit__(self, *exception):
        self._cleanup.close()

    def _tmux(self, *arguments, check=True):
        done = subprocess.run([TMUX, "-u", "-S", self._socket, "-f", os.devnull, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment, timeout=DEADLINE_S)
        if check and done.returncode:
            raise AssertionError(f"tmux {arguments}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "replace")

    # --- doing ------------------------------------------------------------------------------

    def type(self, text):
        """Press the keys of a text, one by one."""
        self._tmux("send-keys", "-l", "--", text)

    def keys(self, *names):
        """Press keys by tmux's names: a letter, Enter, Escape, Tab, BTab, Up, NPage, C-z."""
        self._tmux("send-keys", "--", *[";".join(("\\", "")) if name == ";" else name for name in names])

    def shell_line(self, line):
        """Have the shell run a line on an empty screen; `ended` waits for its end."""
        self._lines += 1
        self.keys("C-l")
        self.type(f"{line}; echo ended:{self._lines}:$?")
        self.keys("Enter")

    def run(self, *arguments, program=PROGRAM):
        """Start modwsgi-tel with these arguments; the modes of the terminal are noted before and afterwards."""
        command = " ".join(["TERM=" + self._term, *map(shlex.quote, [*program, *arguments])])
        before, after = (os.path.join(self.folder, name) for name in ("before", "after"))
        self.shell_line(f"stty -a >{before}; {command}; status=$?; stty -a >{after}; (exit $status)")

    def resize(self, rows, cols):
        self._tmux("resize-window", "-x", str(cols), "-y", str(rows))

    # --- seeing -----------------------------------------------------------------------------

    def screen(self, *options):
        """The screen as text, a line for each row."""
        return self._tmux("capture-pane", "-p", *options)

    def lines(self):
        return self.screen().split("\n")[:-1]

    def told(self, what):
        """What tmux says of the terminal, as "#{alternate_on}"."""
        return self._tmux("display-message", "-p", what).rstrip("\n")

    def wait_for(self, wanted, timeout=DEADLINE_S):
        """The screen, once it holds a text, or once `wanted(screen)` is true."""
        seen = [""]

        def check():
            seen[0] = self.screen()
            return wanted in seen[0] if isinstance(wanted, str) else wanted(seen[0])

        wait_until(check, timeout, lambda: f"never came: {wanted!r}; the screen:\n{seen[0]}", pause=0.03)
        return seen[0]

    def ended(self):
        """Wait until what was run has ended; its exit status."""
        return int(self.end_in(self.wait_for(self.end_in)).group(1))

    def end_in(self, screen):
        """Where a screen says that what was run has ended, or None."""
        return re.search(rf"^ended:{self._lines}:(\d+)$", screen, re.MULTILINE)

    def sane(self):
        """Whether no program holds the terminal: the usual screen, a cursor, keys as they are, no mouse."""
        flags = "#{alternate_on} #{cursor_flag} #{keypad_flag} #{keypad_cursor_flag} #{mouse_any_flag}"
        return self.told(flags) == "0 1 0 0 0"

    def modes_before(self):
        """What `stty -a` said before `run`."""
        with open(os.path.join(self.folder, "before")) as handle:
            return handle.read()

    def modes_after(self):
        """What it said behind it."""
        with open(os.path.join(self.folder, "after")) as handle:
            return handle.read()

    # --- what runs --------------------------------------------------------------------------

    def pid(self):
        """The process that the shell has started."""
        return wait_until(lambda: children_of(self.shell), DEADLINE_S, "the shell started nothing")[0]


class Pty:
    """A program on a bare terminal that answers nothing; `seen` is every byte that was read from it.

    closes: whether the terminal is the controlling one, whose end is told by SIGHUP.
    """

    def __init__(self, *arguments, program=PROGRAM, rows=24, cols=80, controls=True, cwd=None, preparing=None, **more):
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = b""

        def prepare():
            if controls:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if preparing is not None:
                preparing()

        self.process = subprocess.Popen([*program, *arguments], stdin=slave, stdout=slave, stderr=slave,
                                        cwd=cwd or ROOT, env=environment(**{"TERM": "xterm-256color", **more}),
                                        start_new_session=True,
                                        preexec_fn=prepare)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.hang_up()
        self.process.wait(DEADLINE_S)

    def press(self, data):
        os.write(self.master, data)

    def press_until_ended(self, data):
        """Press these keys again and again: right behind bytes that are no text they are taken for part of these."""
        def ended():
            self.press(data)
            self.read(0.0)
            return self.process.poll() is not None

        wait_until(ended, DEADLINE_S, lambda: f"does not end: {self.seen[-3000:]!r}")

    def unread(self):
        """Bytes that were pressed, and that the program has not read."""
        return struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0]

    def read(self, timeout=0.0):
        """Read what is there, waiting so long for something; whether there was."""
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:                 # EIO: nobody holds the other end
            return False
        self.seen += data
        return bool(data)

    def wait_for(self, wanted):
        """What was read, once `wanted` (bytes, or a function of all of them) is in it."""
        deadline = time.monotonic() + DEADLINE_S
        while not (wanted in self.seen if isinstance(wanted, bytes) else wanted(self.seen)):
            assert time.monotonic() < deadline, (wanted, self.seen[-3000:])
            self.read(0.05)
        return self.seen

    def ended(self):
        """Read until the program has ended; its exit status (negative: the signal that ended it)."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"does not end: {self.seen[-3000:]!r}"
            self.read(0.05)
        while self.read(0.0):
            pass
        return self.process.returncode

    def modes_now(self):
        """What `stty -a` tells, as termios has it."""
        return termios.tcgetattr(self.slave)

    def resize(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def hang_up(self):
        """Close the terminal, as a lost connection does."""
        for name in ("slave", "master"):
            descriptor = getattr(self, name)
            if descriptor is not None:
                setattr(self, name, None)
                os.close(descriptor)


def jam(terminal):
    """Press keys that have top draw whole screens, until its Pty, which nobody reads, takes no more."""
    def full():
        if not select.select([], [terminal.slave], [], 0)[1]:
            return True
        terminal.press(b"?\x0c")
        return False

    wait_until(lambda: terminal.modes_now() != terminal.modes, DEADLINE_S, "it does not begin")
    wait_until(full, DEADLINE_S, "the terminal still takes bytes")
