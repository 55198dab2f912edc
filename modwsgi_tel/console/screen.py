"""The terminal, by curses: Lines out, names of keys in.  Nothing else imports curses.

What curses draws never waits for the terminal: it writes into memory, and `flush` passes on
what the terminal takes.  One that was stopped (Ctrl-S) or hangs behind a dead line holds up
nothing, and a screen that nobody has read yet is not drawn over.
"""
import curses
import fcntl
import os
import select
import struct
import termios

from modwsgi_tel.console.cells import Size
from modwsgi_tel.errors import TelError

_KEYS = {curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_LEFT: "left", curses.KEY_RIGHT: "right",
         curses.KEY_PPAGE: "pgup", curses.KEY_NPAGE: "pgdn", curses.KEY_HOME: "home", curses.KEY_END: "end",
         curses.KEY_BTAB: "backtab", curses.KEY_ENTER: "enter", curses.KEY_BACKSPACE: "backspace", "\n": "enter", "\r": "enter",
         "\t": "tab", "\x1b": "esc", "\x7f": "backspace", "\b": "backspace", "\x03": "ctrl-c", "\x0c": "ctrl-l",
         "\x15": "ctrl-u"}
_COLOURS = {"good": curses.COLOR_GREEN, "warn": curses.COLOR_YELLOW, "bad": curses.COLOR_RED, "accent": curses.COLOR_CYAN}
_PLAIN = {"": 0, "dim": curses.A_DIM, "bold": curses.A_BOLD, "head": curses.A_UNDERLINE, "good": 0, "warn": curses.A_BOLD,
          "bad": curses.A_BOLD, "accent": 0, "select": curses.A_REVERSE}
_EMPTY_MOST = 50                        # times that there is input, and yet not a byte: the terminal has gone
_LAST_S = 0.5                           # that a terminal which takes nothing is waited for when we leave


class Gone(Exception):
    """The terminal was closed."""


def check_terminal(term):
    """TelError when the terminal of this name cannot be drawn on."""
    if not term:
        raise TelError("TERM is not set, so nobody knows what this terminal can do: try TERM=xterm, or --plain")
    try:
        curses.setupterm(term, 1)
    except curses.error:
        raise TelError(f"TERM={term}: this machine does not know such a terminal: try TERM=xterm, or --plain") from None
    if not curses.tigetstr("cup"):
        raise TelError(f"TERM={term}: cannot place text on the screen: use --plain or --once")


class Screen:
    """The terminal in full-screen mode from `open` to `close`.  Raises TelError when there is none."""

    def __init__(self, colour, command="top"):
        self.colour = colour
        self.command = command          # that needs it, as errors name it
        self.pending = b""              # drawn, and not yet taken by the terminal
        self._styles = _PLAIN
        self._window = None
        self._terminal = None           # our own description of it, not blocking
        self._held = None               # the descriptor that standard output was
        self._memory = None
        self._modes = None              # of the terminal, as they were
        self._away = False              # between `suspend` and `resume`
        self._empty = 0

    def open(self):
        if not (os.isatty(0) and os.isatty(1)):
            raise TelError(f"{self.command} needs a terminal: use --once, or --plain for a screenful again and again")
        check_terminal(os.environ.get("TERM"))
        os.environ.setdefault("ESCDELAY", "25")         # ms after which Esc is a key of its own
        self._terminal = _opened_again(1)
        self._modes = termios.tcgetattr(1)
        self._window = curses.initscr()
        try:
            curses.noecho()
            curses.cbreak()
            self._window.keypad(True)
            self._window.nodelay(True)
            self._window.leaveok(True)
            self._styles = self._with_colours()
            try:
                curses.curs_set(0)
            except curses.error:
                pass                    # a terminal that cannot hide its cursor
        except BaseException:
            curses.endwin()
            raise
        self._into_memory()

    def _with_colours(self):
        if not self.colour or not curses.has_colors():
            return _PLAIN
        curses.start_color()
        try:
            curses.use_default_colors()
            ground = -1
        except curses.error:
            ground = curses.COLOR_BLACK
        styles = dict(_PLAIN)
        for number, (style, colour) in enumerate(_COLOURS.items(), 1):
            curses.init_pair(number, colour, ground)
            styles[style] = curses.color_pair(number) | (curses.A_BOLD if style == "bad" else 0)
        return styles

    @property
    def takes_unicode(self):
        """Whether more than ASCII gets through: not in a locale that the user names and this machine does not have."""
        return self._window.encoding.lower().replace("-", "") == "utf8"

    # --- where curses writes ------------------------------------------------------------

    def _into_memory(self):
        """Let descriptor 1, which curses writes to, be memory."""
        if self._memory is None:
            self._memory = _memory()
        self._held = os.dup(1)
        os.dup2(self._memory, 1)

    def _to_terminal(self):
        """Let descriptor 1 be the terminal again."""
        if self._held is not None:
            os.dup2(self._held, 1)
            os.close(self._held)
            self._held = None

    @property
    def descriptor(self):
        """What to wait for with select() while there is something pending."""
        return self._terminal

    def flush(self):
        """Pass on what the terminal takes; True when nothing is left.  Raises Gone."""
        while self.pending:
            try:
                sent = os.write(self._terminal, self.pending[:4096])
            except BlockingIOError:
                return False
            except OSError:
                raise Gone from None
            self.pending = self.pending[sent:]
        return True

    # --- drawing ------------------------------------------------------------------------

    def size(self):
        rows, cols = self._window.getmaxyx()
        return Size(rows, cols)

    def resized(self):
        """The terminal has another size now."""
        try:
            found = os.get_terminal_size(self._terminal)
            curses.resizeterm(max(1, found.lines), max(1, found.columns))
        except (OSError, curses.error):
            pass                        # it has gone, or has no size: the next key or write tells

    def redraw(self):
        """Draw everything anew the next time: something else may have written there."""
        self._window.clearok(True)

    def draw(self, lines):
        """Show these Lines, unless the terminal has not even taken the last ones, or is somebody else's now."""
        if self.pending or self._away:
            return
        window, styles = self._window, self._styles
        window.erase()
        rows, _ = window.getmaxyx()
        for row, spans in enumerate(lines[:rows]):
            try:
                window.move(row, 0)
                for span in spans:
                    window.addstr(span.text, styles.get(span.style, 0))
            except curses.error:
                pass                    # the lowest right cell was written: curses cannot go on behind it
        window.refresh()
        self._take_drawn()

    def _take_drawn(self):
        """Move what curses wrote into memory behind what is pending."""
        size = os.lseek(self._memory, 0, os.SEEK_CUR)
        self.pending += os.pread(self._memory, size, 0)
        os.lseek(self._memory, 0, os.SEEK_SET)
        os.ftruncate(self._memory, 0)

    # --- keys ---------------------------------------------------------------------------

    def keys(self):
        """The names of the keys pressed since.  Raises Gone when the terminal was closed."""
        names, there = [], _waiting(0)
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                break
            names.append(_KEYS.get(key, key if isinstance(key, str) else ""))
        self._empty = 0 if there else self._empty + 1       # bytes that are no text are no key, but not the end either
        if self._empty > _EMPTY_MOST:
            raise Gone
        return [name for name in names if name]

    # --- leaving ------------------------------------------------------------------------

    def suspend(self):
        """Give the terminal back for a while; `resume` takes it again."""
        self._away = True
        self._to_terminal()
        self.pending = b""
        self._clear_last_row()
        curses.endwin()

    def _clear_last_row(self):
        """Make room for what a shell writes there, on terminals that do not bring back what they showed before."""
        self._window.move(self.size().rows - 1, 0)
        self._window.clrtoeol()
        self._window.refresh()

    def in_front(self):
        """Whether the terminal is ours to draw on: whoever does so from behind a shell is stopped."""
        try:
            return os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return True                 # nobody controls it: no shell either

    def resume(self):
        self._away = False
        self.resized()
        self._window.clearok(True)
        self._window.refresh()          # to the terminal: it sets its modes again
        self._into_memory()

    def close(self):
        """Leave the terminal as it was; one that takes nothing any more is not waited for."""
        if self._window is not None and not self._away:
            self._clear_last_row()
            try:
                curses.endwin()
            except curses.error:
                pass                    # into memory, which has no modes to set
            self._take_drawn()
            self._flush_last()
            self._to_terminal()
            try:
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._modes)
            except (OSError, termios.error):
                pass                    # it has gone
        self._window = None
        for descriptor in (self._terminal, self._memory):
            if descriptor is not None:
                os.close(descriptor)
        self._terminal = self._memory = None

    def _flush_last(self):
        try:
            while not self.flush():
                if not select.select([], [self._terminal], [], _LAST_S)[1]:
                    break
        except Gone:
            pass


def _waiting(descriptor):
    """Bytes that can be read there now; 0 behind a terminal that was closed."""
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    except OSError:
        return 0


def _opened_again(descriptor):
    """A description of our own of a terminal, so that only we do not wait for it."""
    for path in (lambda: os.ttyname(descriptor), lambda: "/dev/tty"):
        try:
            return os.open(path(), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue                    # a container that does not show its terminals
    return os.dup(descriptor)


def _memory():
    try:
        return os.memfd_create("screen")
    except (AttributeError, OSError):
        import tempfile                 # an old kernel
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
