"""Long requests as an agent in the application tells them: their stacks, what these have in common, and what that costs.

A stack is a row of location numbers, outermost first, until its agent goes or the request is over: then it is packed
with the texts that the numbers stand for.  The pivot is the outer part that all stacks of a request share; over all
requests the pivots are ranked by the time that these took.
"""
from array import array
from collections import Counter, deque, namedtuple
from itertools import islice

from modwsgi_tel.stacks.model import Frame, frame_json
from modwsgi_tel.state.taken import packed, place, unpacked

HISTORY = 16                            # stacks of a request, besides its first
FRAMES_MOST = 2048                      # of a stack: as many as fit a datagram
PIVOT_FRAMES = 200                      # of a pivot in the ranking, the innermost
PIVOTS_MOST = 1000
PIVOT_BYTES = 16 << 20
PATHS_MOST, KINDS_MOST = 4, 8           # of a pivot
NOWHERE = ("?", "?", None)              # a location that was not told
TEXT_COST = 120                         # bytes of a location beside its texts, about

# A thread that waits for one of these waits for nobody else in its process.
OWN = frozenset(("sleep", "socket", "subprocess"))
WORKS, WAITS, UNKNOWN = "works", "waits", "unknown"
NO_OWNER = "a plain lock does not know its owner"

Waits = namedtuple("Waits", "kind owner_tid owner_request")
Waits.__doc__ = "What a thread waits for, as rlock; who has it: a tid and a request's log id, each None where it is not told."

Stack = namedtuple("Stack", "number elapsed_s frames shared left_out cut_at state cpu_s waits tid thread problem")
Stack.__doc__ = """One stack of a request.  frames: location numbers as the bytes of an array, outermost first; `left_out` are
missing behind the first `cut_at` of them.  shared: how many the pivot had in it.  waits: a Waits or None."""

STACK_COST = 600                        # bytes of a Stack beside its frames and texts, about
WATCH_COST = 1500


class Watch:
    """What an agent told of one long request.  agent: the Agent whose numbers its frames are, None once it is packed."""

    __slots__ = ("agent", "number", "key", "path", "group", "annotations", "exception", "stacks", "pivot", "first", "history",
                 "values", "elapsed_s", "done", "row", "counted_s", "tally", "bytes", "_packed")

    def __init__(self, agent, key, group):
        self.agent, self.number, self.key, self.group = agent, agent.number, key, group
        self.path = self.exception = None
        self.annotations = {}
        self.stacks = 0                 # taken so far
        self.pivot = None               # location numbers; None: was told before this collector came
        self.first = None
        self.history = deque(maxlen=HISTORY)
        self.values = ""                # of the newest stack
        self.elapsed_s = 0.0            # at its newest stack, or its end
        self.done = False
        self.row = None                 # the Pivot that its time counts for
        self.counted_s = 0.0
        self.tally = Counter()          # what its stacks waited for -> stacks; None: for nothing
        self.bytes = WATCH_COST
        self._packed = None
        agent.watches[key] = self

    @property
    def newest(self):
        """Number of its newest stack, 0 without one."""
        return self.history[-1].number if self.history else self.first.number if self.first else 0

    def add(self, stack, values):
        """Keep a Stack, which is newer than all before."""
        if self.first is None:
            self.first = stack
        else:
            self.history.append(stack)
        self.values = values
        self.stacks = max(self.stacks, stack.number)
        self.elapsed_s = max(self.elapsed_s, stack.elapsed_s)
        self.weigh()

    def weigh(self):
        """Count its bytes anew."""
        held = [self.first, *self.history] if self.first else []
        self.bytes = (WATCH_COST + len(self._packed or b"") + 4 * len(self.values)
                      + sum(len(name) + len(text) + TEXT_COST for name, text in self.annotations.items())
                      + 4 * len(self.pivot or ()) + sum(STACK_COST + len(stack.frames) for stack in held))

    def release(self):
        """Its agent goes, or it is over: pack it, with the texts of its locations."""
        if self.agent is not None:
            self._packed = packed(self._compact()) if self.first else None
            self.forget()
            self.first, self.pivot, self.values = None, None, ""
            self.history.clear()
            self.weigh()

    def forget(self):
        """Nobody wants it any more."""
        if self.agent is not None:
            self.agent.watches.pop(self.key, None)
            self.agent = None

    def _compact(self):
        """Its stacks as JSON with each location once, in "table"; frames are places in it, innermost first."""
        places, locations = {}, self.agent.locations

        def row(frames):
            return [places.setdefault(locations.get(number, NOWHERE), len(places)) for number in reversed(frames)]

        outer, stacks = len(self.pivot or ()), [self.first, *self.history]
        told = [{"number": stack.number, "elapsed_s": stack.elapsed_s, "state": stack.state, "cpu_s": stack.cpu_s,
                 "waits": stack.waits and stack.waits._asdict(), "hot": row(numbers(stack.frames)[outer:])} for stack in stacks]
        last = stacks[-1]
        frames = row(numbers(last.frames))
        return {"pivot": row(self.pivot or ()), "history": told, "last": {
            **{name: value for name, value in told[-1].items() if name != "hot"}, "tid": last.tid, "thread": last.thread, "frames": frames,
            "left_out": last.left_out, "cut_at": len(frames) - last.cut_at if last.left_out else None, "problem": last.problem,
            "locals": values_of(self.values)}, "table": list(places)}

    def view(self):
        """It as JSON carries it."""
        out = {"annotations": dict(self.annotations), "stacks": self.stacks, "exception": self.exception, "pivot": [],
               "pivot_s": self.counted_s if self.row is not None else None, "last": None, "history": []}
        told = self._compact() if self.first else unpacked(self._packed) if self._packed else None
        if told is not None:
            table = [frame_json(Frame(*each, self.number)) for each in told.pop("table")]
            for each, name in [(told, "pivot"), (told["last"], "frames"), *((stack, "hot") for stack in told["history"])]:
                each[name] = [table[at] for at in each[name]]
            out.update(told)
        return out


def numbers(raw):
    """Location numbers out of their bytes."""
    return array("i", raw)


def values_of(text):
    """[[depth from the innermost, name, text]] of stack_values, None without any; what is no depth is left out."""
    parts = text.split("\0")
    rows = [[int(depth), name, value] for depth, name, value in zip(parts[0::3], parts[1::3], parts[2::3])
            if depth.isascii() and depth.isdigit() and len(depth) < 6]
    return rows or None


# --- what the pivots cost ---------------------------------------------------------------------

class Pivot:
    """An outer part that stacks of long requests have in common, and the time of these requests."""

    __slots__ = ("key", "frames", "number", "place", "group", "seconds", "requests", "paths", "paths_other", "tally", "state", "kind", "owner",
                 "owner_said", "owner_place", "bytes", "gone")

    def __init__(self, key, frames, number, group):
        self.key, self.frames, self.number, self.group = key, frames, number, group
        inner = [Frame(*location, number) for location in reversed(frames)]
        self.place = place(inner) if inner else "nothing in common"
        self.seconds, self.requests = 0.0, 0
        self.paths, self.paths_other = {}, 0
        self.tally = Counter()          # as Watch.tally, of all
        self.state = ""                 # the kernel's, of the newest stack
        self.kind = None                # what the newest one that waited did wait for
        self.owner = None               # key of the request that has it
        self.owner_said, self.owner_place = "", None
        self.bytes = 400 + sum(cost(location) for location in frames)
        self.gone = False


class Pivots:
    """The pivots of all long requests, at most PIVOTS_MOST and PIVOT_BYTES: the cheapest goes."""

    def __init__(self):
        self.bytes = self.evicted = 0
        self._rows = {}                 # (group, frames) -> Pivot

    def __len__(self):
        return len(self._rows)

    def move(self, watch, locations):
        """The pivot of a request is new, or has shrunk: its time counts for this one, `locations` outermost first."""
        frames = tuple(locations[-PIVOT_FRAMES:])
        row = self._row(watch.group, frames, watch.number)
        if row is not watch.row:
            self._leave(watch)
            watch.row, watch.counted_s = row, 0.0
            self._enter(watch)

    def charge(self, watch):
        """Count the time of a request up to now."""
        if watch.row is None:
            return
        if watch.row.gone:              # it went for want of room: what follows counts
            watch.row = self._row(watch.row.group, watch.row.frames, watch.row.number)
            self._enter(watch)
        watch.row.seconds += max(0.0, watch.elapsed_s - watch.counted_s)
        watch.counted_s = max(watch.counted_s, watch.elapsed_s)

    def note(self, watch, stack, owner):
        """What the thread of a request does by its newest Stack; owner: key of the request that has what it waits for, or None."""
        kind = stack.waits.kind if stack.waits else None
        if kind not in watch.tally and len(watch.tally) >= KINDS_MOST:
            kind = "other"
        watch.tally[kind] += 1
        row = watch.row
        if row is None or row.gone:
            return
        row.tally[kind if kind in row.tally or len(row.tally) < KINDS_MOST else "other"] += 1
        row.state = stack.state
        if stack.waits is not None:
            row.kind, row.owner, row.owner_said, row.owner_place = kind, owner, _owner_said(stack.waits), None

    def told(self, watch, path):
        """The path of a request is known now."""
        if watch.path is None and path:
            watch.path = path
            if watch.row is not None and not watch.row.gone:
                _count_path(watch.row, path)

    def _row(self, group, frames, number):
        key = group, frames
        row = self._rows.get(key)
        if row is None:
            row = Pivot(key, frames, number, group)
            while self._rows and (len(self._rows) >= PIVOTS_MOST or self.bytes + row.bytes > PIVOT_BYTES):
                self._drop(min(self._rows.values(), key=_seconds))
                self.evicted += 1
            self._rows[key] = row
            self.bytes += row.bytes
        return row

    def _drop(self, row):
        del self._rows[row.key]
        self.bytes -= row.bytes
        row.gone = True

    @staticmethod
    def _enter(watch):
        row = watch.row
        row.requests += 1
        row.tally.update({kind if kind in row.tally or len(row.tally) < KINDS_MOST else "other": count
                          for kind, count in watch.tally.items()})
        if watch.path:
            _count_path(row, watch.path)

    def _leave(self, watch):
        row = watch.row
        if row is None or row.gone:
            return
        row.requests -= 1
        row.seconds = max(0.0, row.seconds - watch.counted_s)
        row.tally.subtract(watch.tally)
        row.tally = +row.tally
        if watch.path in row.paths:
            row.paths[watch.path] -= 1
            if not row.paths[watch.path]:
                del row.paths[watch.path]
        elif watch.path and row.paths_other:
            row.paths_other -= 1
        if row.requests <= 0:
            self._drop(row)

    def view(self, slow, most, frames=True):
        """The `most` most expensive ones as JSON carries them; those that but wait for another known one come last."""
        active = Counter()
        for watch in slow.watched():
            if watch.row is not None:
                active[id(watch.row)] += 1
        rows = []
        for row in self._rows.values():
            role, waits_for, how = _role(row, slow)
            rows.append((role == WAITS and waits_for is not None, -row.seconds, len(rows), row, role, waits_for, how))
        return [{"place": row.place, "frames": [frame_json(Frame(*location, row.number)) for location in reversed(row.frames)] if frames else [],
                 "seconds": row.seconds, "requests": row.requests, "active": active[id(row)], "paths": dict(row.paths),
                 "paths_other": row.paths_other, "process_group": row.group, "role": role,
                 "waits": _kind(row) if _waited(row) else None, "waits_for": waits_for, "how_known": how}
                for *_, row, role, waits_for, how in islice(sorted(rows), most)]


def cost(location):
    """Bytes that a location takes, about."""
    return TEXT_COST + len(location[0]) + len(location[1])


def _seconds(row):
    return row.seconds


def _count_path(row, path):
    if path in row.paths or len(row.paths) < PATHS_MOST:
        row.paths[path] = row.paths.get(path, 0) + 1
    else:
        row.paths_other += 1


def _waited(row):
    """Whether most of its stacks waited for something."""
    waited = sum(count for kind, count in row.tally.items() if kind is not None)
    return 2 * waited > sum(row.tally.values())


def _kind(row):
    """For what most of those waited: when a pivot has shrunk, what was last told is of another one."""
    return max((count, kind) for kind, count in row.tally.items() if kind is not None)[1]


def _owner_said(waits):
    if waits.owner_request:
        return f"request {waits.owner_request}"
    return f"thread {waits.owner_tid}" if waits.owner_tid else ""


def _role(row, slow):
    """(role, place of what it waits for or None, how that is known)."""
    if not _waited(row):
        if not row.state or "futex" in row.state:
            return UNKNOWN, None, ("its thread waits for another one: which one is not told" if row.state else
                                   "what its thread does was not told")
        return WORKS, None, "its thread runs, or waits in a system call of its own"
    kind = _kind(row)
    if kind in OWN:
        return WORKS, None, f"its thread waits in {kind}, for nobody in its process"
    owner = slow.watch(row.owner) if row.owner is not None else None
    if owner is not None and owner.row is not None:
        row.owner_place = owner.row.place
    if row.owner_place is not None:
        return WAITS, row.owner_place, f"the {kind} says its owner: {row.owner_said}"
    if kind == "lock":
        return WAITS, None, NO_OWNER
    if row.owner_said:
        return WAITS, None, f"the {kind} says its owner: {row.owner_said}, of which no long request is known"
    return WAITS, None, f"who would end its wait is not known: {kind}"
