"""hot: the functions that running processes spend their time in, live; joins proc, stacks, profile and the console."""
import os
import signal
import sys
import time

from modwsgi_tel import figures, targets
from modwsgi_tel.console import hot as view_of_hot
from modwsgi_tel.console.cells import ASCII, Size, plain
from modwsgi_tel.console.hot import FILTERS, WINDOWS
from modwsgi_tel.console.keys import Ui, table_of, with_table
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.printable import printable_json, show
from modwsgi_tel.profile.hot import Functions
from modwsgi_tel.profile.samples import LATE
from modwsgi_tel.sampling import Sampler
from modwsgi_tel.top import (DESIGN, Pages, Terminal, given_environment, glyphs_for, screen_for, terminal_size, wants_colour,
                             write_copy)

ONCE_S = 2.0                            # that --once looks
ONCE_ROWS = 40                          # functions that it prints
_NAMED = 5                              # processes that the first line names


class Hot:
    """Looks at processes and shows what was seen, as a Terminal's console.

    `draw(lines)` and `size()` are what the outside is, a screen or a page of text.
    """

    def __init__(self, loop, readers, values, ui, size, draw):
        self.loop, self.ui, self.size, self.draw_lines, self.rate = loop, ui, size, draw, values.rate
        self.functions = Functions()
        self.late = 0
        self.problem = ""               # the newest that was told of a process
        self.trouble = ""
        self.over = lambda: None        # called when all processes have ended
        self.gone = lambda why: None    # called with what is told of each of them
        self._now = loop.clock()
        self._drawing = 0               # number of the timer for the next drawing: older ones are not meant
        self.names = {reader.pid: (reader.command, reader.python) for reader in readers}
        self.sampler = Sampler(loop, readers, values.rate, self._took, self._gone, self._ended, values.stop, False,
                               values.subprocesses)

    def _took(self, stacks, weight_s, now):
        self.functions.add(stacks, weight_s, now)
        self.late += weight_s * self.rate > LATE

    def _gone(self, why):
        self.problem = why
        self.gone(why)
        self.ui = self.ui._replace(message=why)

    def _ended(self):
        self.trouble = self.problem if len(self.names) == 1 else f"all processes have ended; the last: {self.problem}"
        self._now = self.loop.clock()
        self.draw()
        self.over()

    # --- what is seen ---------------------------------------------------------------------

    def now(self):
        """The loop's clock; it stands still when no looks are taken."""
        return self._now if self.trouble or self.ui.paused else self.loop.clock()

    def seen(self, window_s):
        """(rows, totals) of the filter that was chosen; window_s None: since the start."""
        of = FILTERS[table_of(self.ui).filter][0]
        return self.functions.rows(self.now(), window_s, of), self.functions.totals(self.now(), window_s)

    def view(self, window_s):
        rows, totals = self.seen(window_s)
        return {"name": self._name(), "trouble": self.trouble, "rows": rows, "totals": totals, "late": self.late,
                "processes": len(self.sampler.processes), "rate": totals.looks / (totals.seen_s or 1.0),
                "window": self.ui.window if window_s else figures.duration(totals.seen_s / max(1, len(self.names)))}

    def _name(self):
        if len(self.names) == 1:
            ((pid, (command, python)),) = self.names.items()
            return f"pid {pid}  Python {python}  {command}"
        told = [f"{pid} {os.path.basename(command.split(' ')[0])}" for pid, (command, _) in list(self.names.items())[:_NAMED]]
        more = [f"{len(self.names) - _NAMED} more"] if len(self.names) > _NAMED else []
        return f"{len(self.names)} processes: " + ", ".join(told + more)

    def lines(self):
        return view_of_hot.render(self.view(WINDOWS[self.ui.window]), self.ui, self.size())

    def draw(self):
        self.draw_lines(self.lines())

    def look(self):
        """Draw now, and then again and again."""
        self._drawing += 1
        number = self._drawing

        def due():
            if number == self._drawing:
                self.look()

        self.draw()
        self.loop.after(self.ui.refresh_s, due)

    # --- keys -----------------------------------------------------------------------------

    def key(self, name):
        paused = self.ui.paused
        self.ui = view_of_hot.press(self.ui, name, self.view(WINDOWS[self.ui.window]), self.size())
        asked, self.ui = self.ui.asked, self.ui._replace(asked=())
        if self.ui.paused != paused:
            self._now = self.loop.clock()
            self.sampler.pause(self.ui.paused)
        for what, *_ in asked:
            if what == "quit":
                self.loop.stop()
                return
            if what == "reset":
                self.functions.reset()
                self.late = 0
            elif what == "copy":
                self.ui = self.ui._replace(message=write_copy(plain(self.lines())))
        self.look()


# --- the command ------------------------------------------------------------------------------

def hot(values):
    """The command; its exit status."""
    if not values.once:
        values.refuse(("duration", "json"), "goes with --once")
    if values.once and values.plain:
        raise UsageError("--once: goes without --plain")
    if values.gil and values.idle:
        raise UsageError("--gil: an idle thread holds no GIL: goes without --idle")
    environ = given_environment()
    ui = Ui(view="hot", window=values.window, refresh_s=values.refresh, glyphs=glyphs_for(environ, values.ascii))
    wanted = "gil" if values.gil else "all" if values.idle else "working"
    on_screen = not (values.once or values.plain)
    # there are no keys to move a cursor with on a page
    ui = with_table(ui, sort=values.sort, filter=[name for name, _ in FILTERS].index(wanted), cursor=0 if on_screen else -1)
    readers, problems, _ = targets.readers(values)
    if problems and not on_screen:
        targets.complain(problems)
    if values.stop and not on_screen:
        targets.say_stops()
    screen = screen_for(wants_colour(values, environ), "hot") if on_screen else None
    loop, console = Loop(), None
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        if screen is not None:
            screen.open()
            if not screen.takes_unicode:
                ui = ui._replace(glyphs=ASCII)
            terminal = Terminal(loop, screen, may_stop=True)
            terminal.gone = sys.modules[type(screen).__module__].Gone
            console = Hot(loop, readers, values, ui, screen.size, terminal.draw)
            terminal.attach(console)
            if problems:
                console.ui = console.ui._replace(message=problems[0])
        else:
            console = Hot(loop, readers, values, ui, terminal_size, Pages().draw)
        return _run(values, loop, console, problems)
    finally:
        if console is not None:
            console.sampler.close()
        if screen is not None:
            screen.close()
        loop.close()


def _run(values, loop, console, problems):
    if values.once:
        return _once(values, loop, console, problems)
    if values.plain:
        console.over = loop.stop
    loop.after(console.ui.refresh_s if values.plain else 0.0, console.look)
    loop.run()
    return 1 if problems and values.plain else 0


def _once(values, loop, console, problems):
    """Print what was seen in --duration."""
    duration_s = ONCE_S if values.duration is None else values.duration
    early, gone = [], []

    def end(why):
        early.append(why)
        loop.stop()

    for number, name in targets.ENDINGS.items():
        loop.on_signal(number, lambda name=name: end(name))
    console.draw_lines = lambda lines: None
    console.gone = gone.append
    console.over = lambda: end("the end of all processes")
    began = loop.clock()
    loop.after(duration_s, loop.stop)
    loop.run()
    took_s = loop.clock() - began
    view = console.view(None)
    if not view["totals"].looks:
        raise TelError(console.problem or "ended before the first look")
    console.sampler.close()
    targets.complain(gone)
    if early:
        targets.say_ended(early[0], figures.duration(took_s), figures.duration(duration_s))
    targets.say_missed(console.sampler.missed)
    if values.json:
        show(_json(console, view))
    else:
        cols = terminal_size().cols if sys.stdout.isatty() else max(DESIGN.cols, 120)
        rows = min(ONCE_ROWS, max(1, len(view_of_hot.rows_of(view, console.ui))))
        lines = view_of_hot.render(view, console.ui, Size(view_of_hot.HEAD_LINES + rows + 2, cols))
        show(plain(lines[:-1]))
    return 1 if problems else 0


def _json(console, view):
    totals = view["totals"]
    return printable_json({
        "at": time.time(), "processes": [{"pid": pid, "command": command, "python": python}
                                         for pid, (command, python) in console.names.items()],
        "of": FILTERS[table_of(console.ui).filter][0], "late": console.late, **totals._asdict(),
        "functions": [row._asdict() for row in view_of_hot.rows_of(view, console.ui)]}) + "\n"
