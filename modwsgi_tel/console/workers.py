"""Workers: the grid of slots, a row for each process, a cell for each of its threads, and the request under the cursor.

The cursor goes over what runs: the processes as the collector sorts them (the longest running
request first), in each its busy slots, the oldest request first; one that runs nothing is one
place.  So the place of number n lies in one of the first n + 1 processes, and those are asked for.
"""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, clip, fit, line, pad, safe, width
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, window_of
from modwsgi_tel.console.process import (LEGEND, by_thread, longest_words, opened, opened_paths, running, runs, slot_of,
                                         slot_style, subject)
from modwsgi_tel.console.words import LIFE_STYLES, counted, ends, group_words, marked, missing, request_words
from modwsgi_tel.figures import UNKNOWN, duration, percent

PROCESSES_MOST = 500                    # asked for at once, however deep the cursor is
TOGETHER = 10                           # slots between two gaps: so that they can be counted
TICK_OLD_S, TICK_OLD_PERIODS = 3.0, 3   # a newest tick that is older than both is worth a word
SLOTS_TOLD = 128                        # mod_wsgi tells of no more
UNNAMED = "which one is not told: mod_wsgi names what runs longer than WSGISlowRequests"

Place = namedtuple("Place", "worker slot")
Place.__doc__ = """What the cursor can be on: a worker as the collector tells it, and a busy Slot of it, or None when it
runs nothing."""


def paths(ui, inside):
    if ui.open is not None:
        return opened_paths(ui)
    limit = min(PROCESSES_MOST, max(0, table_of(ui).cursor) + max(1, inside.rows))
    return {"workers": asked("/api/workers", offset=0, limit=limit, group=ui.group)}


def _workers(view):
    return (view.get("workers") or {}).get("workers") or ()


def _running(worker):
    """How many of its slots run a request."""
    return sum(1 for told in worker.get("slots") or () if (told.get("elapsed") or 0.0) > 0)


def _slots(worker):
    # while it is silent nothing tells that a request has ended: it runs on
    passed = worker.get("age_s") or 0.0 if worker.get("life") == "silent" else 0.0
    return [slot_of(place, told, passed) for place, told in enumerate(worker.get("slots") or ())]


def _oldest_first(slots):
    return sorted((slot for slot in slots if runs(slot)), key=lambda slot: -slot.age)


def count(view, ui):
    """Places; of a process that was not asked for, at least the one."""
    workers = _workers(view)
    unasked = ((view.get("workers") or {}).get("matched") or 0) - len(workers)
    return sum(max(1, _running(worker)) for worker in workers) + max(0, unasked)


def _under(workers, cursor):
    """The Place under the cursor; the last one when there are fewer by now; None of nothing, and without a cursor."""
    for worker in workers if cursor >= 0 else ():
        places = max(1, _running(worker))
        if cursor < places or worker is workers[-1]:
            slots = _oldest_first(_slots(worker))
            return Place(worker, slots[min(cursor, len(slots) - 1)] if slots else None)
        cursor -= places
    return None


def row(view, ui):
    place = _under(_workers(view), table_of(ui).cursor)
    return None if place is None else ("process", place.worker.get("pid"), place.worker.get("id"))


def body(view, ui, inside):
    if ui.open is not None:
        return opened(view, ui, inside)
    answer, glyphs = view.get("workers"), ui.glyphs
    if answer is None or "workers" in (view.get("errors") or {}):
        return [fit(missing(view, "workers", glyphs), inside.cols, glyphs)][:inside.rows]
    workers, under = _workers(view), _under(_workers(view), table_of(ui).cursor)
    if not workers:
        lines = [line(Span(" no process that runs has sent a tick", "dim"))]
    else:
        grid = _Grid(workers, under, inside.cols, glyphs)
        foot = _foot(under, inside.rows, inside.rows - 1 - grid.height, inside.cols, glyphs)
        rows = max(1, inside.rows - len(foot))
        page = grid.page(rows - 1 if rows > 1 else 1)
        lines = [*([grid.heads(answer.get("matched"))] if rows > 1 else ()), *page, *foot]
    return [fit(each, inside.cols, glyphs) for each in lines[:inside.rows]]


# --- the grid ------------------------------------------------------------------------------------

Columns = namedtuple("Columns", "pid group life now")
Columns.__doc__ = "Cells of what stands before the slots; 0: no room for it."


class _Grid:
    """The Lines of all processes; made are those of one page."""

    def __init__(self, workers, under, cols, glyphs):
        self.workers, self.under, self.cols, self.glyphs = workers, under, cols, glyphs
        self.columns = _columns(workers, cols, glyphs)
        self.before = self.columns.pid + sum(cells + 1 for cells in self.columns[1:] if cells) + 1
        self.across = _across(cols - self.before)
        self.tops, self.chosen, self.height = [], 0, 0
        for worker in workers:
            self.tops.append(self.height)
            if self._is_under(worker):
                # of a process that is larger than the screen, the line of the slot
                self.chosen = self.height + ((under.slot.thread - 1) // self.across if under.slot else 0)
            self.height += self._lines(worker) + (not self._beside(worker))

    def _is_under(self, worker):
        return self.under is not None and worker is self.under.worker

    def _lines(self, worker):
        """Lines of its slots."""
        return max(1, -(-len(worker.get("slots") or ()) // self.across))

    def _beside(self, worker):
        """Whether the note on it, if any, has room behind its last slots."""
        note = _note(worker)
        last = len(worker.get("slots") or ()) - (self._lines(worker) - 1) * self.across
        return not note or self.before + last + max(0, last - 1) // TOGETHER + 2 + len(note) <= self.cols

    def page(self, rows):
        """The page that the cursor is on: `rows` Lines; the last page is a full one too."""
        first, lines = min(window_of(self.chosen, rows), max(0, self.height - rows)), []
        for worker, top, end in zip(self.workers, self.tops, (*self.tops[1:], self.height)):
            if end > first and top < first + rows:
                lines += self._block(worker)[max(0, first - top):]
        return [*lines[:rows], *([line()] * (rows - len(lines)))]

    def heads(self, matched):
        columns, glyphs = self.columns, self.glyphs
        texts = [pad(" pid", columns.pid, glyphs, right=True)]
        if columns.group:
            texts.append(pad("group", columns.group, glyphs))
        if columns.life:
            texts.append(pad("life", columns.life, glyphs))
        if columns.now:
            texts.append(pad("now", columns.now, glyphs, right=True))
        told = sum(len(worker.get("slots") or ()) for worker in self.workers)
        shown = f"{sum(map(_running, self.workers))} of {told} run a request"
        if matched and matched > len(self.workers):
            shown = f"{len(self.workers)} of {matched} processes: {shown}"
        return ends(line(Span(" ".join(texts) + " slots", "head")), line(Span(shown, "dim")), self.cols, glyphs)

    def _head(self, worker, running, slots):
        """What stands before the slots of a process."""
        columns, glyphs, chosen = self.columns, self.glyphs, self._is_under(worker)
        pid = marked(clip(str(worker.get("pid")), columns.pid - 1, glyphs), chosen)
        parts = [Span(pad(pid, columns.pid, glyphs, right=True), "select" if chosen else "")]
        if columns.group:
            parts.append(Span(" " + pad(group_words(worker, glyphs), columns.group, glyphs)))
        if columns.life:
            life = worker.get("life") or UNKNOWN
            parts.append(Span(" " + pad(safe(life, glyphs), columns.life, glyphs), LIFE_STYLES.get(life, "")))
        if columns.now:
            parts.append(Span(" " + pad(f"{running}/{slots}", columns.now, glyphs, right=True),
                              "bad" if slots and running == slots else ""))
        return tuple(parts)

    def _from(self, thread, chosen):
        """What stands before the slots of a further Line; marked when it has the one under the cursor."""
        here = chosen is not None and thread <= chosen < thread + self.across
        text = pad(f"from thread {thread}", self.before - 2, self.glyphs, right=True)
        return Span(marked(text, here), "select" if here else "dim")

    def _block(self, worker):
        """The Lines of one process."""
        slots = _slots(worker)
        chosen = self.under.slot.thread if self._is_under(worker) and self.under.slot else None
        lines = []
        for first in range(0, max(1, len(slots)), self.across):
            before = self._head(worker, sum(map(runs, slots)), len(slots)) if not first else (
                self._from(first + 1, chosen),)
            lines.append((*before, Span(" "), *_cells(slots[first:first + self.across], chosen)))
        note = _note(worker)
        if note and self._beside(worker):
            lines[-1] += (Span("  " + note, "warn"),)
        elif note:
            lines.append(line(Span(" " * max(0, min(self.before, self.cols - len(note))) + note, "warn")))
        return lines


def _columns(workers, cols, glyphs):
    """What stands before the slots: they have at least half of the screen."""
    pid = min(10, max([3, *(len(str(worker.get("pid"))) for worker in workers)])) + 1       # the mark of the cursor
    group = max([5, *(width(group_words(worker, glyphs)) for worker in workers)])
    return Columns(pid, min(group, cols // 5) if cols >= 60 else 0, 8 if cols >= 36 else 0, 7 if cols >= 24 else 0)


def _across(room):
    """Slots in a Line of so many cells: tens where there is room for one."""
    return max(1, (room + 1) // (TOGETHER + 1) * TOGETHER or room)


def _cells(slots, chosen):
    """Spans of slots, a gap after each ten; what looks the same is one Span."""
    out, letters, style = [], "", ""
    for place, slot in enumerate(slots):
        this = "select" if slot.thread == chosen else slot_style(slot)
        if letters and this != style:
            out.append(Span(letters, style))
            letters = ""
        if place and place % TOGETHER == 0:
            out.append(Span(letters + " ", style if letters else ""))
            letters = ""
        letters += slot.letter
        style = this
    return [*out, Span(letters, style)] if letters else out


def _note(worker):
    """What the letters alone do not say of a process."""
    notes, slots = [], len(worker.get("slots") or ())
    age, period = worker.get("age_s"), worker.get("period") or 0.0
    if age is not None and (worker.get("life") == "silent" or age > max(TICK_OLD_S, TICK_OLD_PERIODS * period)):
        notes.append(f"newest tick {duration(age)} old")
    most = (worker.get("threads") or {}).get("maximum") or 0
    if slots >= SLOTS_TOLD and most > slots:
        notes.append(f"{most - slots} more not told")
    if not slots:
        notes.append("no slots told")
    return ", ".join(notes)


# --- below the grid ------------------------------------------------------------------------------

def _foot(under, rows, spare, cols, glyphs):
    """The request under the cursor, and the legend: of `rows` half at most, a third where there are few.

    spare: Lines that the grid leaves; what is more than the half goes to the other requests of the process.
    """
    if under is None:                   # without a cursor, no request under it
        return [_legend()]
    details, legend = _details(under, glyphs), _legend()
    lines = [line(Span(glyphs.line * cols, "dim")), *details, legend]
    if rows < 2 * len(lines):
        return [*details, legend][:rows // 3]
    others = _others(under, glyphs)
    room = max(0, spare - len(lines))
    if len(others) > room:
        more = line(Span(f" {len(others) - room + 1} more: Enter shows all", "dim"))
        others = [*others[:room - 1], more] if room else []
    return [*lines[:-1], *others, legend]


def _details(under, glyphs):
    """What runs and since when, which request it is, what its thread did: 3 Lines, the most important words first."""
    worker, slot = under
    where = (f"{group_words(worker, glyphs)} on {safe(worker.get('hostname') or UNKNOWN, glyphs)}, "
             f"tick {duration(worker.get('age_s'))} old")
    if slot is None:
        return [line(Span(f"pid {worker.get('pid')}", "bold"), f" runs no request, {where}"), line(), line()]
    named = by_thread(worker.get("requests") or (), _slots(worker))
    request = named.get(slot.thread)
    lines = [line(Span(f"thread {slot.thread} of pid {worker.get('pid')}", "bold"), " busy for ",
                  Span(duration(slot.age), slot_style(slot)), f", {where}"),
             line(Span(UNNAMED, "dim") if request is None else Span(request_words(request, glyphs), "accent"))]
    told = [f"of the tick: busy {percent(slot.busy)}, cpu {percent(slot.cpu)}",
            f"{counted(slot.completed, 'request')} done"]
    if slot.completed:
        told.append(f"longest {longest_words(slot)}")
    if request is not None and request.get("server_pid"):
        told.append(f"from Apache's pid {request['server_pid']}")
    unplaced = len(worker.get("requests") or ()) - len(named)
    if unplaced > 0:
        told.append(f"{unplaced} slow in no slot")
    return [*lines, line(Span(", ".join(told), "dim"))]


def _others(under, glyphs):
    """A Line for each other request that the process runs, the oldest first."""
    slots = _slots(under.worker)
    named = by_thread(under.worker.get("requests") or (), slots)
    return [line(Span(f" thread {other.thread:>3} ", "dim"), Span(other.letter, slot_style(other)),
                 f" {clip(duration(other.age), 9, glyphs):>9}  ", request_words(named.get(other.thread), glyphs))
            for other in _oldest_first(slots) if other != under.slot]


def _legend():
    spans = []
    for letter, words in LEGEND:
        spans += [Span(f" {letter}", "accent"), Span(f" {words}", "dim")]
    return tuple(spans)


PANE = Pane("workers", ("w", "3"), "workers", paths, body, count, row, hint="Enter opens the process", process=running,
            subject=subject)
