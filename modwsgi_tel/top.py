"""top: the console on a running collector, on one of its own, or on a recording; joins the rooms."""
import os
import signal
import sys
import time

from modwsgi_tel.bounded import Ring
from modwsgi_tel.console import views
from modwsgi_tel.console.cells import ASCII, LINUX, UNICODE, Size, Span, fit, line, plain, safe
from modwsgi_tel.console.keys import Ui, press, with_table
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.options import token_in
from modwsgi_tel.printable import show
from modwsgi_tel.report.client import Place, where_of
from modwsgi_tel.remote import Remote

DESIGN = Size(24, 80)                   # where there is no terminal to ask
# lines of --once, if there is so much
ONCE_ROWS = {"processes": 5000, "workers": 5000, "slow": 5000, "lifecycle": 1000, "stacks": 5000}
ANSWER_S = 0.15                         # a key is answered with what is there after so long
FRAME_S = 0.5                           # between two screens of a recording, at most
AWAY_S = 0.5                            # between two looks whether a shell has given the terminal back
LATE_S = 3.0                            # after so long without an answer that is said
ASK_S = 3.0                             # between two times that stacks are asked for, while they are shown
TAKEN_S = 0.3                           # after which they may be there
RETRY_S = 2.0                           # between two tries to reach a collector that does not answer
_SERVE_ONLY = ("record", "socket_mode", "socket_group", "root_path", "allow_host", "http_port",
               "http_host")
_LIVE_ONLY = ("url", "http_socket", "timeout", "token_file")


# --- what the terminal can show ------------------------------------------------------------

def glyphs_for(environ, ascii_wanted=False):
    """The Glyphs for a terminal by the environment that the user gave: UTF-8 only where the locale says so."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    if ascii_wanted or "utf8" not in locale.lower().replace("-", ""):
        return ASCII
    return LINUX if environ.get("TERM", "").startswith("linux") else UNICODE


def given_environment():
    """The environment as it was given: Python itself puts LC_CTYPE=C.UTF-8 into it where LANG is C."""
    try:
        with open("/proc/self/environ", "rb") as handle:
            pairs = [entry.partition("=") for entry in os.fsdecode(handle.read()).split("\0")]
        return {name: value for name, _, value in pairs if name}
    except OSError:
        return os.environ


def wants_colour(values, environ):
    return not values.no_color and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


# --- the console -----------------------------------------------------------------------------

class Console:
    """A source and a Ui, joined: looks, keeps the last answers, and says when there is something to draw.

    `draw(lines)` and `size()` are what the outside is, a screen or a page of text.
    """

    def __init__(self, loop, source, ui, size, draw):
        self.loop, self.source, self.ui, self.size, self.draw_lines = loop, source, ui, size, draw
        self.view = {"source": {"name": source.name, "trouble": "", "age_s": None, "note": "", "replay": ""}, "errors": {}}
        self.looked = lambda: None      # called after each look, with its answers in `view`
        self.log = lambda line: None
        self.frame_s = FRAME_S
        self._paths = {}                # of the answers in `view`
        self._asked = {}                # of the look under way
        self._began = 0.0               # when it began
        self._watching = False          # whether a timer looks after it
        self._again = False
        self._answered = None           # when the newest answer came, loop's clock
        self._wish = None               # the path by which stacks were asked for, while they are shown
        self._wished = float("-inf")    # when that was
        self._refused = ""              # what was said to that
        self._next = 0                  # number of the timer for the next look: older ones are not meant
        if source.replay:
            self.view["source"]["replay"] = self._playing()

    # --- looking --------------------------------------------------------------------------

    def paths(self):
        return views.paths(self.ui, self.size())

    def look(self):
        """Ask for all that the screen shows; at once, or after the look that is under way."""
        if self.source.busy:
            self._again = True
            return
        self._asked = self.paths()
        self._next += 1
        self._began = self.loop.clock()
        self.source.look({**self._asked, **self._stacks()}, self._got)
        if self.source.busy and not self._watching:
            self._watching = True
            self.loop.after(self._patience_s(), self._watch)

    def _stacks(self):
        """{"asked": path} when the stacks of what is shown are to be taken, else {}."""
        (wish, again), now = views.stacks_asked(self.view, self.ui), self.loop.clock()
        if self.source.no_stacks or self.ui.paused:
            wish = None
        if wish != self._wish:
            self._wish, self._wished, self._refused = wish, float("-inf"), ""
        passed = now - self._wished
        if wish is None or passed < ASK_S or passed < float("inf") and not again:
            return {}
        self._wished = now
        return {"asked": wish}

    def _patience_s(self):
        """For so long an answer may take before that is said."""
        return max(LATE_S, 2 * self.ui.refresh_s, self.source.least_pause_s() / 5)

    def _watch(self):
        """One timer, moved on: a source that hangs should not look like a quiet server."""
        self._watching = self.source.busy
        if not self._watching:
            return
        waited = self.loop.clock() - self._began
        if waited >= self._patience_s():
            self.view["source"].update(self._state(f"{self.source.name} has not answered for {waited:.0f} s"))
            self.draw()
        self.loop.after(max(1.0, self._patience_s() - waited), self._watch)

    def _got(self, answers, errors, trouble):
        source = self.view["source"]
        if trouble is None:
            self._answered = self.loop.clock()
            asked = "asked" in answers or "asked" in errors
            if asked:
                self._refused = errors.get("asked", "")
            if self._refused:
                errors = {**errors, "asked": self._refused}
            previous = {name: answer for name, answer in self.view.items() if name not in ("source", "errors", "previous")}
            self.view = {**answers, "errors": errors, "source": source, "previous": previous}
            self._paths = self._asked
            if self.source.log is not None:
                self.view["log"] = list(self.source.log)
        said = "" if trouble is None else str(trouble)
        if said != source["trouble"]:
            self.log(said or f"{self.source.name} answers")
        source.update(self._state(trouble))
        self.looked()
        if self._again:
            self._again = False
            self.look()
        else:
            self.draw()
            soon = TAKEN_S if trouble is None and "asked" in answers else self.ui.refresh_s
            self._later(RETRY_S if trouble is not None else max(min(soon, self.ui.refresh_s), self.source.least_pause_s()))

    def _state(self, trouble):
        age = None if self._answered is None else self.loop.clock() - self._answered
        return {"trouble": "" if trouble is None else str(trouble), "age_s": age, "note": self.source.note,
                "replay": self._playing(), "no_stacks": self.source.no_stacks}

    def _playing(self):
        if not self.source.replay:
            return ""
        player = self.source.player
        state = "end of recording" if player.ended else f"x{self.ui.speed:g}"
        if self.source.note:
            state += ", not whole: view 8"      # it is longer than a line
        return time.strftime("recorded %Y-%m-%d ", time.localtime(player.wall)) + state

    def _later(self, seconds):
        self._next += 1
        number = self._next
        if self.source.replay:
            return                      # what is played says itself when there is something to see

        def due():
            if number == self._next and not self.ui.paused:
                self.look()

        self.loop.after(seconds, due)

    # --- drawing --------------------------------------------------------------------------

    def lines(self):
        """The screen; answers to what is no longer asked are not in it."""
        wanted = self.paths()
        kept = {name: answer for name, answer in self.view.items()
                if name not in self._paths or wanted.get(name) == self._paths[name]}
        try:
            return views.render(kept, self.ui, self.size())
        except Exception as error:      # an answer as no collector gives it; with --listen a whole collector would end with it
            import traceback
            self.log("".join(traceback.format_exception(type(error), error, error.__traceback__))[-3000:])
            text = safe(f"this view cannot be drawn, others may ({type(error).__name__}: {error}); q quits", self.ui.glyphs)
            size = self.size()
            return [fit(line(Span(text, "bad")), size.cols, self.ui.glyphs)][:size.rows]

    def draw(self):
        self.draw_lines(self.lines())

    # --- keys -----------------------------------------------------------------------------

    def key(self, name):
        before = self.ui
        self.ui = press(self.ui, name, views.context(self.view, self.ui, self.size()))
        asked, self.ui = self.ui.asked, self.ui._replace(asked=())
        if name in ("down", "j", "pgdn", "end"):
            self.ui = views.settled(self.view, self.ui, self.size())
        looks = False
        for what in asked:
            looks = self.do(*what) or looks
        pace = (before.paused, before.refresh_s) != (self.ui.paused, self.ui.refresh_s)
        if looks and (pace and not self.ui.paused or self.paths() != self._paths):
            self.look()
            if self.source.busy:
                self._soon()
                return
        self.draw()

    def _soon(self):
        """Draw what is there, unless the answer comes first."""
        number = self._next
        self.loop.after(ANSWER_S, lambda: number == self._next and self.draw())

    def do(self, what, *more):
        """What a key asked for; True when it wants a look."""
        if what == "look":
            return True
        if what == "quit":
            self.loop.stop()
        elif what == "stacks":
            self._wished = float("-inf")
            self.look()
        elif what == "copy":
            self.ui = self.ui._replace(message=write_copy(plain(self.lines())))
        elif what in ("seek", "time", "step"):
            self._moved_in_time(what, *more)
        return False

    # --- a recording ----------------------------------------------------------------------

    def play(self):
        """Begin to play: the recording's time goes on from now."""
        self._played = self.loop.clock()
        self._advance()

    def _advance(self):
        now, player = self.loop.clock(), self.source.player
        passed, self._played = now - self._played, now
        # from where the recording's clock is, not from where it should be: it may have been set
        if not (self.ui.paused or self.source.playing or player.ended):
            self.source.play(player.advance(player.wall + passed * self.ui.speed), self.look)
        self.loop.after(min(self.ui.refresh_s, self.frame_s), self._advance)

    def _moved_in_time(self, what, *more):
        player = self.source.player
        try:
            wall = (player.parse_time(more[0], player.wall) if what == "time" else player.wall + (more[0] if more else 1.0))
        except TelError as error:
            self.ui = self.ui._replace(message=str(error))
            return
        if what == "step":
            self.ui = self.ui._replace(paused=True)
        self.ui = self.ui._replace(message="reading the recording ..." if abs(wall - player.wall) > 30 else "")

        def there():
            self._played = self.loop.clock()
            self.ui = self.ui._replace(message="")
            self.look()

        self.source.play(player.seek(wall), there)


# --- faces --------------------------------------------------------------------------------

class Terminal:
    """A Console on the terminal: keys in, screens out, signals."""

    def __init__(self, loop, screen, may_stop):
        self.loop, self.screen, self.may_stop = loop, screen, may_stop
        self.console = None
        self.gone = ()                  # what Screen.keys and flush raise when the terminal was closed
        self._late = False              # a screen was not drawn, since the terminal had not taken the last one

    def attach(self, console):
        self.console = console
        self.loop.readers[0] = self._readable
        self.loop.on_signal(signal.SIGWINCH, self._resized)
        self.loop.on_signal(signal.SIGTSTP, self._stop)
        for number in (signal.SIGHUP, signal.SIGQUIT):      # Ctrl-\ should not leave the terminal as it is
            self.loop.on_signal(number, self.loop.stop)

    def _readable(self):
        try:
            names = self.screen.keys()
        except self.gone:
            self.loop.readers.pop(0, None)
            self.loop.stop()
            return
        for name in names:
            if name == "ctrl-l":
                self.screen.redraw()
            self.console.key(name)

    def draw(self, lines):
        self._late = bool(self.screen.pending)
        self.screen.draw(lines)
        self._flush()

    def _flush(self):
        try:
            if self.screen.flush():
                self.loop.writers.pop(self.screen.descriptor, None)
                if self._late:
                    self.console.draw()
            else:
                self.loop.writers[self.screen.descriptor] = self._flush
        except self.gone:
            self.loop.writers.pop(self.screen.descriptor, None)
            self.loop.stop()

    def _resized(self):
        self.screen.resized()
        self.console.look()
        self.console.draw()

    def _stop(self):
        if not self.may_stop:
            # a stopped collector would hold up every process that sends to it
            self.console.ui = self.console.ui._replace(message="not stopped: Apache's processes would wait for this collector")
            self.console.draw()
            return
        self.loop.readers.pop(0, None)
        self.loop.writers.pop(self.screen.descriptor, None)
        self.screen.suspend()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # here again after SIGCONT
        signal.signal(signal.SIGTSTP, lambda *_: None)
        self._back()

    def _back(self):
        """Take the terminal again; a shell's `bg`, or its `kill`, has left it to the shell."""
        if not self.screen.in_front():
            self.loop.after(AWAY_S, self._back)
            return
        self.screen.resume()
        self.loop.readers[0] = self._readable
        self.console.look()
        self.console.draw()


def write_copy(text):
    """Write a screen to a file of its own; what to tell of that."""
    name = time.strftime("modwsgi-tel-%Y%m%d-%H%M%S.txt")
    for folder in (os.getcwd(), os.environ.get("TMPDIR") or "/tmp"):
        path = os.path.join(folder, name)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return f"{path} is there already: once a second is enough"
        except OSError as error:
            why = f"cannot write {path}: {error.strerror}"
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
        return f"written: {path}"
    return why


def terminal_size():
    for descriptor in (1, 2, 0):
        try:
            found = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if found.lines > 0 and found.columns > 0:
            return Size(found.lines, found.columns)
    return DESIGN


def _rows_of(lines):
    """Lines of text without the empty ones at their end."""
    return plain(lines).rstrip("\n") + "\n"


def _once_text(console):
    """The whole screen as text: all findings, and nothing that only keys could use."""
    lines = console.lines()
    summary = console.view["summary"]
    text = plain(lines[:2])
    for finding in (summary.get("findings") or [])[1:]:
        text += safe(finding["text"], console.ui.glyphs) + "\n"
    if console.view["source"]["note"]:
        text += safe(console.view["source"]["note"], console.ui.glyphs) + "\n"
    text += "\n" + plain(lines[views.HEAD_LINES:-1])
    return _squeezed(text)


def _squeezed(text):
    """Text in which no two empty lines follow one another, and none ends it."""
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"


def once(console, timeout_s):
    """Print one look; the exit status is 2 when there was no answer in time."""
    loop, result = console.loop, {}

    def looked():
        source = console.view["source"]
        if source["trouble"]:
            result["trouble"] = source["trouble"]
        else:
            result["text"] = _once_text(console)
        loop.stop()

    console.looked = looked
    loop.after(timeout_s, loop.stop)
    loop.after(0.0, console.look)
    loop.run()
    if "text" not in result:
        raise TelError(result.get("trouble") or f"{console.source.name} did not answer within {timeout_s:g} s")
    show(result["text"])
    return 0


class Pages:
    """A screenful again and again, for logs and terminals that cannot do better."""

    def __init__(self):
        self._first = True

    def draw(self, lines):
        show(("" if self._first else "\n") + _rows_of(lines))
        self._first = False


# --- the command -------------------------------------------------------------------------------

def top(values):
    """The console; the exit status."""
    listens = values.meant("listen")
    if values.replay and listens:
        raise UsageError("--replay: goes without --listen")
    if values.once and listens:
        raise UsageError("--once: asks a running collector, or a recording: goes without --listen")
    if not listens:
        values.refuse(_SERVE_ONLY, "goes with --listen")
    if listens or values.replay:
        values.refuse(("url", "timeout") if listens else _LIVE_ONLY, "asks a running collector: goes without --listen and --replay")
    if not values.replay:
        values.refuse(("at", "speed"), "goes with --replay")
    if values.speed is None:
        raise UsageError("--speed max: a console needs a number, as 10")
    environ = given_environment()
    ui = Ui(view=values.view or ("processes" if values.once else "overview"), window=values.window, group=values.group,
            refresh_s=values.refresh, speed=values.speed, glyphs=glyphs_for(environ, values.ascii))
    on_screen = not (values.once or values.plain)
    if not on_screen:
        ui = with_table(ui, cursor=-1)  # there are no keys to move one
    screen = screen_for(wants_colour(values, environ), "top") if on_screen else None
    collector = None
    try:
        if listens:
            collector, source = _own_collector(values)
            loop = collector.loop
        else:
            loop = Loop()
            source = _recording(values, loop) if values.replay else _remote(values, loop)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.on_signal(number, loop.stop)
        return _run(values, loop, source, ui, screen, collector)
    finally:
        # the collector first: a terminal that hangs must not keep its socket bound
        if collector is not None:
            collector.close()
        if screen is not None:
            screen.close()


def screen_for(colour, command):
    """A Screen, not yet open, for a command; TelError where there cannot be one."""
    try:
        from modwsgi_tel.console import screen
    except ImportError as error:
        raise TelError(f"this Python has no curses ({error}): use --once, or --plain for a screenful again and again") from None
    return screen.Screen(colour, command)


def _run(values, loop, source, ui, screen, collector):
    if values.once:
        cols = terminal_size().cols if sys.stdout.isatty() else max(DESIGN.cols, 120)
        console = Console(loop, source, ui, lambda: Size(ONCE_ROWS.get(ui.view, 50), cols), lambda lines: None)
        if values.replay:
            _to_the_end(source, values)
        return once(console, values.once_timeout)
    if screen is None:
        console = Console(loop, source, ui, terminal_size, Pages().draw)
        console.frame_s = float("inf")
    else:
        screen.open()
        if not screen.takes_unicode:
            ui = ui._replace(glyphs=ASCII)
        terminal = Terminal(loop, screen, may_stop=collector is None)
        terminal.gone = sys.modules[type(screen).__module__].Gone
        console = Console(loop, source, ui, screen.size, terminal.draw)
        terminal.attach(console)
        console.draw()
    if values.log_file and collector is None:
        console.log = _log_to(values.log_file, values.log_level)
    if source.replay:
        console.play()
    loop.after(0.0, console.look)
    if collector is not None:
        collector.run()
    else:
        loop.run()
    return 0


def _log_to(path, level):
    """A function that writes a line to a file; raises TelError when it cannot be opened."""
    from modwsgi_tel.net.log import Log
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise TelError(f"--log-file {path}: {error.strerror}") from None
    return Log(level, descriptor=descriptor).info


def _remote(values, loop):
    return Remote(loop, Place(**where_of(values)), token_in(values.token_file), values.timeout)


def _recording(values, loop):
    from modwsgi_tel.collector import limits_of
    from modwsgi_tel.player import Player
    from modwsgi_tel.sources import Recording
    player = Player(values.replay, limits_of(values))
    source = Recording(loop, player, ", ".join(values.replay))
    source.log = Ring(200)
    if values.at:
        wall = player.parse_time(values.at, player.wall)
        for _ in player.seek(wall):
            pass
        if wall < player.begin or player.ended and wall > player.end:
            first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (player.begin, player.end or wall))
            raise UsageError(f"--at {values.at}: " + (f"the recording begins at {first}" if wall < player.begin else
                                                      f"the recording ends at {last}"))
    return source


def _to_the_end(source, values):
    """A recording's last moment, unless a time was given."""
    player = source.player
    if not values.at:
        for _ in player.advance(float("inf")):
            pass
        source.site.fleet = player.fleet


def _own_collector(values):
    from modwsgi_tel.collector import Collector
    from modwsgi_tel.sources import Local
    lines = Ring(200)
    collector = Collector(values, lines)
    source = Local(collector.site, f"unix:{collector.path}")
    source.log = lines
    return collector, source

