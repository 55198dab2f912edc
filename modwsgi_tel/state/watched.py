"""Long requests as an agent in the application tells them: their stacks, what these have in common, and what that costs.

A stack is a row of location numbers, outermost first, until its agent goes or the request is over: then it is packed
with the texts that the numbers stand for.  The pivot is the outer part that all stacks of a request share; over all
requests the pivots are ranked by the time that these took.
"""
from array import array
from collections import Counter, deque, namedtuple

from modwsgi_tel.stacks.model import Frame, frame_json
from modwsgi_tel.state.taken import packed, place, unpacked

HISTORY = 16                            # stacks of a request, besides its first
FRAMES_MOST = 2048                      # of a stack: as many as fit a datagram
PIVOT_FRAMES = 200                      # of a pivot in the ranking, the innermost
PIVOTS_MOST = 1000
PIVOT_BYTES = 16 << 20
PATHS_MOST, KINDS_MOST = 4, 8           # of a pivot
SLOT_S, SLOTS = 60.0, 10                # what pivots cost lately: in this minute and the nine before
RECENT, TOTAL = "recent", "total"       # by what they are ranked
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


class Owner:
    """Who has what a request waits for.  key: of the request, or None.  said: in words.  row, place: its Pivot and what that says, as
    far as they were known when somebody looked."""

    __slots__ = ("kind", "key", "said", "row", "place")

    def __init__(self, kind, key, said):
        self.kind, self.key, self.said = kind, key, said
        self.row = self.place = None

    def look(self, slow):
        """Learn its place; what was known stays when its request has gone."""
        held = slow.watch(self.key) if self.key is not None else None
        if held is not None and held.row is not None:
            self.row, self.place = held.row, held.row.place
        if self.row is not None and self.row.gone:
            self.row = None

    def told(self):
        """How much is known of it: the more, the larger."""
        return self.place is not None, self.key is not None


STACK_COST = 600                        # bytes of a Stack beside its frames and texts, about
WATCH_COST = 1500


class Watch:
    """What an agent told of one long request.  agent: the Agent whose numbers its frames are, None once it is packed."""

    __slots__ = ("agent", "number", "key", "path", "group", "annotations", "exception", "stacks", "pivot", "first", "history",
                 "values", "elapsed_s", "done", "row", "counted_s", "counted_now", "tally", "state", "owner", "bytes", "_packed")

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
        self.counted_s = self.counted_now = 0.0
        self.tally = Counter()          # what its stacks waited for -> stacks; None: for nothing
        self.state = ""                 # the kernel's, of the newest stack that waited for nothing known
        self.owner = None               # the newest Owner of what it waited for
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

    __slots__ = ("key", "frames", "number", "_place", "group", "seconds", "slots", "slot", "requests", "paths", "paths_other", "tally", "state",
                 "owner", "cut", "bytes", "gone")

    def __init__(self, key, frames, number, group):
        self.key, self.frames, self.number, self.group = key, frames, number, group
        inner = [Frame(*location, number) for location in reversed(frames)]
        self._place = place(inner) if inner else "nothing in common"
        self.seconds, self.requests = 0.0, 0
        self.slots, self.slot = [0.0] * SLOTS, 0        # seconds of the minute `slot` and of those before it, the newest last
        self.paths, self.paths_other = {}, 0
        self.tally = Counter()          # as Watch.tally, of all
        self.state = ""                 # as Watch.state, of all
        self.owner = None               # the Owner of whom most is known, of these the newest
        self.cut = False                # whether stacks were cut where it ends: what is inside of it may be in common too
        self.bytes = 900 + sum(cost(location) for location in frames)
        self.gone = False

    @property
    def place(self):
        return f"inside of {self._place}" if self.cut else self._place

    def spend(self, seconds, now):
        """Count seconds that were spent up to `now`; less than 0: take them back."""
        self.seconds = max(0.0, self.seconds + seconds)
        self.lately(now)
        left, sign, at, slot = abs(seconds), 1 if seconds > 0 else -1, now, int(now // SLOT_S)
        place = SLOTS - 1 - (self.slot - slot)
        while left > 0 and place >= 0:
            part = min(left, at - slot * SLOT_S)
            self.slots[place] = max(0.0, self.slots[place] + sign * part)
            left, at, slot, place = left - part, slot * SLOT_S, slot - 1, place - 1

    def lately(self, now):
        """Seconds of the last ten minutes, the one that has begun among them."""
        slot = int(now // SLOT_S)
        if slot > self.slot:
            passed = min(SLOTS, slot - self.slot)
            self.slots, self.slot = self.slots[passed:] + [0.0] * passed, slot
        return sum(self.slots)

    def know(self, owner):
        """Keep an Owner, when no more is known of the one that is kept."""
        if owner is not None and (self.owner is None or owner.told() >= self.owner.told()):
            self.owner = owner


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

    def charge(self, watch, now):
        """Count the time of a request up to now (monotonic)."""
        if watch.row is None:
            return
        if watch.row.gone:              # it went for want of room: what follows counts
            watch.row = self._row(watch.row.group, watch.row.frames, watch.row.number)
            self._enter(watch)
        if watch.elapsed_s > watch.counted_s:
            watch.row.spend(watch.elapsed_s - watch.counted_s, now)
            watch.counted_s, watch.counted_now = watch.elapsed_s, now

    def note(self, watch, stack, owner, slow):
        """What the thread of a request does by its newest Stack; owner: key of the request that has what it waits for, or None."""
        kind = stack.waits.kind if stack.waits else None
        if kind not in watch.tally and len(watch.tally) >= KINDS_MOST:
            kind = "other"
        watch.tally[kind] += 1
        if stack.waits is None:
            watch.state = stack.state
        else:
            _learn(watch, stack.waits, owner, slow)
        row = watch.row
        if row is None or row.gone:
            return
        row.tally[kind if kind in row.tally or len(row.tally) < KINDS_MOST else "other"] += 1
        row.state = watch.state or row.state
        row.know(watch.owner)
        row.cut = row.cut or bool(stack.left_out) and stack.cut_at <= len(watch.pivot or ())

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
        row.spend(-watch.counted_s, watch.counted_now)
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

    def view(self, slow, most, now, frames=True, group=None, sort=RECENT):
        """(rows, how many there are): the `most` most expensive ones as JSON carries them; of one group alone, where that is given.

        sort: RECENT: by what they cost lately, those of running requests first; or TOTAL.  What others wait for costs their time too:
        so it comes before them.
        """
        active, blocked, rows = Counter(), {}, []
        for watch in slow.watched():
            if watch.row is not None:
                active[id(watch.row)] += 1
        for row in self._rows.values():
            if group is not None and row.group != group:
                continue
            lately, known = row.lately(now), _role(row, slow)
            rows.append((row, lately, known))
            if known.owner is not None and known.owner is not row:
                held, share = blocked.setdefault(id(known.owner), [0, 0.0, 0.0]), _share(row)
                for at, more in enumerate((row.requests, row.seconds * share, lately * share)):
                    held[at] += more

        def rank(each):
            row, lately, _ = each
            _, all_s, lately_s = blocked.get(id(row), NONE_BLOCKED)
            return (-row.seconds - all_s,) if sort == TOTAL else (not active[id(row)], -lately - lately_s, -row.seconds - all_s)

        return [self._shown(row, lately, known, active[id(row)], blocked.get(id(row), NONE_BLOCKED), frames)
                for row, lately, known in sorted(rows, key=rank)[:most]], len(rows)

    @staticmethod
    def _shown(row, lately, known, active, blocked, frames):
        return {"place": row.place, "frames": [frame_json(Frame(*location, row.number)) for location in reversed(row.frames)] if frames else [],
                "cut": row.cut, "seconds": row.seconds, "recent_s": lately, "requests": row.requests, "active": active,
                "paths": dict(row.paths), "paths_other": row.paths_other, "process_group": row.group, "role": known.role,
                "waits": known.kind, "waits_for": known.waits_for, "how_known": known.how, "stacks": sum(row.tally.values()),
                "waited": _for_others(row), "blocked_requests": blocked[0], "blocked_s": blocked[1], "blocked_recent_s": blocked[2]}


NONE_BLOCKED = 0, 0.0, 0.0


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


def _for_others(row):
    """How many of its stacks waited for others of their process."""
    return sum(count for kind, count in row.tally.items() if kind is not None and kind not in OWN)


def _share(row):
    return _for_others(row) / sum(row.tally.values())


def _most(row, own):
    """For what most of its stacks waited, of what is their own wait, or of what is others'."""
    return max((count, kind) for kind, count in row.tally.items() if kind is not None and (kind in OWN) == own)[1]


def _learn(watch, waits, owner, slow):
    """Remember who has what a request waits for."""
    said = f"request {waits.owner_request}" if waits.owner_request else f"thread {waits.owner_tid}" if waits.owner_tid else ""
    if not said:
        return
    before = watch.owner
    found = before if before is not None and (before.kind, before.key, before.said) == (waits.kind, owner, said) else Owner(
        waits.kind, owner, said)
    found.look(slow)
    if before is None or found.told() >= before.told():
        watch.owner = found


Role = namedtuple("Role", "role kind waits_for how owner")
Role.__doc__ = """What most stacks of a pivot do.  kind: for what they wait, None for nothing.  waits_for: the place of what they wait for, or
None; how: how that is known.  owner: the Pivot that has it, or None."""


def _role(row, slow):
    every, others = sum(row.tally.values()), _for_others(row)
    if 2 * others <= every:
        if 2 * (every - row.tally[None]) > every and every - row.tally[None] > others:
            kind = _most(row, True)
            return Role(WORKS, kind, None, f"its thread waits in {kind}, for nobody in its process", None)
        if not row.state or "futex" in row.state:
            return Role(UNKNOWN, None, None, "its thread waits for another one: which one is not told" if row.state else
                        "what its thread does was not told", None)
        return Role(WORKS, None, None, "its thread runs, or waits in a system call of its own", None)
    kind, owner = _most(row, False), row.owner
    if owner is not None and owner.kind == kind:
        owner.look(slow)
        if owner.place is not None:
            return Role(WAITS, kind, owner.place, f"the {kind} says its owner: {owner.said}", owner.row)
        return Role(WAITS, kind, None, f"the {kind} says its owner: {owner.said}, of which no long request is known", None)
    return Role(WAITS, kind, None, NO_OWNER if kind == "lock" else f"who would end its wait is not known: {kind}", None)
