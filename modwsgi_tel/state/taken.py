"""Stacks that were taken of processes: whose turn it is, what was taken, and which stack is which request.

    found = taken.next(fleet, now)          # (process, why) whose stacks should be taken now, or None
    taken.begin(process, why, now)          # they are being taken
    taken.add(fleet, process, why, stacks, now, wall)      # or refuse(), fail()

It reads nothing itself.  A process is read when a slow request is active in it, when it has fallen
silent, or when somebody asked; only one whose pid the kernel told and whose start /proc told.
"""
import json
import zlib
from collections import OrderedDict, namedtuple

from modwsgi_tel.stacks.model import frame_json, stacks_of_table, table_json, untabled

SLOW, SILENT, ASKED, AGENT = "slow", "silent", "asked", "agent"     # AGENT: somebody asked for what its agents say
TOLD = "agent: "                        # how the reason begins of what agents sent by themselves
AUTO, OFF = "auto", "off"
COUNTERS = ("taken", "failed", "refused", "gone", "moving", "cut", "joined", "guessed", "evicted")

AGAIN_S, AGAIN_MOST_S = 1.0, 60.0       # the same process is read again after 1 s, 2 s, 4 s ... as long as it is in trouble
REFUSED_S, REFUSED_MOST_S = 60.0, 600.0     # who may not read is tried again after a minute, at most after ten
AWAY_S = 5.0                            # a helper service that does not answer is asked again after so long
ASKED_MOST = 16                         # processes that wait because somebody asked
TOLD_S, TOGETHER_S = 60.0, 3.0          # what agents told stays so long; all of a process that tell within so many are one
REQUESTS_MOST = 256                     # requests of one process that a take is joined with
FILE_LENGTH = 60                        # in a sentence
AGENT_FOLDER = "modwsgi_tel/agent"      # of an agent's files, in a checkout and in the archive

GUESSED = "guessed: one active request, one busy thread"

Take = namedtuple("Take", "process_id now wall why packed held")
Take.__doc__ = """What was taken of a process at `now`.  packed: see `stacks_in`.  held: where the holder of its GIL is, or its one
busy thread, as the end of a sentence; "" when that is not known."""

Refusal = namedtuple("Refusal", "until wait_s problem")


class _Turn:
    """When a process is to be read again."""

    __slots__ = ("last_now", "wait_s", "newest", "keys", "by_agent", "problems")

    def __init__(self):
        self.last_now, self.wait_s, self.newest, self.keys = None, 0.0, 0, ()
        self.by_agent = False           # whether its agents were asked the last time
        self.problems = ["", ""]        # of the last try by reading it, and by asking its agents


def packed(value):
    """A JSON value as few bytes."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def unpacked(data):
    return json.loads(zlib.decompress(data))


def stacks_in(take):
    """The stacks of a Take as model.stacks_json makes them."""
    return untabled(unpacked(take.packed))


class Taken:
    """The last stacks of each process, at most `limit` and `bytes_limit`, the oldest going first.

    mode: AUTO or OFF.  rate: takes a second at most.  helper: the path of the helper service's socket, or None.
    closed: why nobody may ask for any process, or "".  problem: why nothing can be read, or None.  wake: called when somebody asked.
    """

    def __init__(self, mode=OFF, rate=2.0, helper=None, closed="", limit=1000, bytes_limit=16 << 20):
        self.mode, self.rate, self.helper = mode, rate, helper
        self.closed = "stacks are off here (--stacks off), or this is no running server" if mode == OFF else closed
        self.limit, self.bytes_limit = limit, bytes_limit
        self.bytes = 0
        self.problem = None
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.wake = lambda: None
        self._takes = OrderedDict()     # process id -> Take, the oldest first
        self._turns = {}                # process id -> _Turn
        self._asked = OrderedDict()     # process id -> ASKED or AGENT
        self._refused = {}              # uid -> Refusal
        self._away_until = float("-inf")    # until then the helper service is not asked
        self._users = {}                # uid -> when a process of it was read last

    # --- whose turn it is -----------------------------------------------------------------

    def next(self, fleet, now):
        """(process, why) that should be read now, or None; who was asked for first, then each user in turn, and of his
        processes the one that was read longest ago.
        """
        if self.mode == OFF or not (self._asked or fleet.troubled):
            return None
        while self._asked:
            number, why = self._asked.popitem(last=False)
            process = fleet.process(number)
            if process is not None and not unreadable(process):
                return process, why
        best, best_key = None, None
        if now < self._away_until:
            return None
        for process in fleet.troubled:
            if ((process.slow_active or process.silent_now is not None) and not unreadable(process)
                    and fleet.process(process.id) is process):
                since = self._due(process, now)
                if since is not None:
                    key = self._users.get(process.who.uid, -1.0), since
                    if best is None or key < best_key:
                        best, best_key = process, key
        return best and (best, SILENT if best.silent_now is not None else SLOW)

    def waits(self, fleet):
        """Whether somebody may have a turn as soon as the rate allows it."""
        return bool(self._asked or fleet.troubled) and self.mode != OFF

    def _due(self, process, now):
        """When it was read last, if it is due; -1 for one that never was; None when it is not due."""
        refused = self._refused.get(process.who.uid)
        if refused is not None and now < refused.until:
            return None
        turn = self._turns.get(process.id)
        if turn is None:
            return -1.0
        wait_s = AGAIN_S if _is_fresh(process, turn) else turn.wait_s
        return turn.last_now if now - turn.last_now >= wait_s else None

    def begin(self, process, why, now):
        """It is being read: remember which requests were active, and when it is due again."""
        turn = self._turns.get(process.id)
        if turn is None:
            turn = self._turns[process.id] = _Turn()
            turn.wait_s = AGAIN_S
        elif why not in (ASKED, AGENT):
            turn.wait_s = AGAIN_S if _is_fresh(process, turn) else min(AGAIN_MOST_S, 2 * turn.wait_s)
        if len(self._users) > self.limit:
            self._users.clear()
        self._users[process.who.uid] = now
        turn.last_now, turn.newest, turn.by_agent = now, _newest(process), why == AGENT
        turn.keys = list(process.slow_active)[-REQUESTS_MOST:]

    def ask(self, process, now, why=ASKED):
        """Somebody wants its stacks now: (status, seconds to wait, or why not).  why: ASKED, or AGENT: by its agents.

        However its last try ended there is another one; who asks next, in the same way, is told, once, how it ended.
        """
        wrong = self.closed if self.mode == OFF else unreadable(process) or (why == AGENT and without_agent(process))
        if wrong:
            return 409, wrong
        waits = process.id in self._asked
        turn = self._turns.get(process.id)
        passed_s = float("inf") if turn is None or turn.last_now is None else now - turn.last_now
        problem = ""
        if passed_s < AGAIN_MOST_S:
            problem, turn.problems[why == AGENT] = turn.problems[why == AGENT], ""
        if not waits and passed_s < AGAIN_S:
            return (409, problem) if problem else (429, f"its stacks were taken {passed_s:.1f} s ago: not again within {AGAIN_S:g} s")
        if not waits and len(self._asked) >= ASKED_MOST:
            return 429, f"{len(self._asked)} processes wait for it already: ask later"
        self._asked[process.id] = why
        self.wake()
        return (409, problem) if problem else (202, (list(self._asked).index(process.id) + 1) / self.rate)

    # --- what came of it --------------------------------------------------------------------

    def add(self, fleet, process, why, stacks, now, wall):
        """Keep a model.Stacks and give it to the requests that it is of."""
        stacks = stacks._replace(threads=tuple(thread._replace(values=None) for thread in stacks.threads))     # never locals
        turn = self._turns.get(process.id)
        if turn is None or fleet.process(process.id) is not process:
            return                      # it has gone meanwhile
        turn.problems[turn.by_agent] = ""
        self._away_until = float("-inf")
        self._refused.pop(process.who.uid, None)
        self.problem = next((refused.problem for refused in self._refused.values() if now < refused.until), None)
        self.counters["taken"] += 1
        self.counters["moving"] += any(thread.problem == "moving" for thread in stacks.threads)
        self.counters["cut"] += bool(stacks.problem) or any(thread.problem not in (None, "moving") for thread in stacks.threads)
        self._put(Take(process.id, now, wall, why, packed(table_json(stacks)), holder(stacks.threads)))
        keys = list(OrderedDict.fromkeys([*turn.keys, *list(process.slow_active)[-REQUESTS_MOST:]]))
        requests = [request for request in map(fleet.slow.identity, keys) if request is not None]
        for request, (thread, how) in zip(requests, joined(requests, stacks.threads)):
            if thread is not None:
                self.counters["guessed" if how == GUESSED else "joined"] += 1
            fleet.slow.attach(request.key, now, wall, packed(_attached(thread, how)), thread is not None and bool(thread.frames))

    def told(self, process, why, stacks, now, wall):
        """Keep a model.Stacks that an agent sent by itself; which requests it serves, that tells on its own.

        To it is added what the agents in other interpreters of the process told at the same time.
        """
        held = self._takes.get(process.id)
        if held is not None and held.why == why and now - held.now <= TOGETHER_S:
            before = stacks_of_table(unpacked(held.packed))
            others = tuple(thread for thread in before.threads if thread.interpreter not in stacks.interpreters)
            problems = dict.fromkeys(each.problem for each in (before, stacks) if each.problem)
            stacks = stacks._replace(interpreters=tuple(sorted({*before.interpreters, *stacks.interpreters})),
                                     threads=others + stacks.threads, problem="; ".join(problems) or None)
        self._put(Take(process.id, now, wall, why, packed(table_json(stacks)), holder(stacks.threads)))

    def _put(self, take):
        held = self._takes.get(take.process_id)
        if take.why == SLOW and held is not None and held.why.startswith(TOLD) and take.now - held.now < TOLD_S:
            return                      # somebody wanted that one; this one comes by itself, again and again
        self.forget_take(take.process_id)
        self._takes[take.process_id] = take
        self.bytes += len(take.packed)
        while len(self._takes) > self.limit or self.bytes > self.bytes_limit and len(self._takes) > 1:
            self.forget_take(next(iter(self._takes)))
            self.counters["evicted"] += 1

    def refuse(self, process, problem, now):
        """The kernel does not let us: whoever runs as this user is left alone for a while, but for who is asked for."""
        before = self._refused.get(process.who.uid)
        if before is None or now >= before.until:
            wait_s = REFUSED_S if before is None else min(REFUSED_MOST_S, 2 * before.wait_s)
            self._refused[process.who.uid] = Refusal(now + wait_s, wait_s, problem)
            if len(self._refused) > self.limit:
                del self._refused[next(iter(self._refused))]
        self._failed(process, problem, "refused")

    def deny(self, process, problem):
        """We do not let ourselves: that is about this process alone."""
        self._failed(process, problem, "refused", AGAIN_MOST_S / 2)

    def away(self, process, problem, now):
        """The helper service does not answer: all wait a little."""
        self._away_until = now + AWAY_S
        self._failed(process, problem, "failed")
        if process.id in self._turns:
            self._turns[process.id].wait_s = AGAIN_S

    def fail(self, process, problem, gone=False):
        """It could not be read: it has gone, runs no Python, or the helper died."""
        self._failed(process, problem, "gone" if gone else "failed", AGAIN_MOST_S / 2)

    def _failed(self, process, problem, counter, wait_s=0.0):
        self.counters[counter] += 1
        turn = self._turns.get(process.id)
        if turn is not None:
            turn.problems[turn.by_agent] = problem
            turn.wait_s = max(turn.wait_s, wait_s)              # it will hardly be another answer soon
        if counter != "gone":
            self.problem = problem

    def forget(self, number):
        """The process of this id has gone for good."""
        self._turns.pop(number, None)
        self._asked.pop(number, None)
        self.forget_take(number)

    def forget_take(self, number):
        take = self._takes.pop(number, None)
        if take is not None:
            self.bytes -= len(take.packed)

    # --- for readers ----------------------------------------------------------------------

    def __len__(self):
        return len(self._takes)

    def get(self, number):
        """The Take of a process, or None."""
        return self._takes.get(number)

    def numbers(self):
        """Ids of the processes with a Take, the newest first."""
        return list(reversed(self._takes))


def is_claimed(process):
    """Whether its pid is but what its datagrams say, so that its stacks are never read."""
    return not process.checkable and (process.trust.known or process.who.sender_pid <= 0)


def unreadable(process):
    """Why the stacks of a process must not be read, or ""."""
    if process.ended:
        return f"pid {process.pid} has ended"
    if not process.checkable and not is_claimed(process):
        return f"pid {process.pid} is not known well enough yet: ask again in a second"
    if not process.checkable:
        return f"pid {process.pid} is what its datagrams say, not what the kernel says of their sender (a replay, a simulation)"
    if process.trust.start is None:
        return (f"since when pid {process.pid} runs is not known: ask again in a second" if not process.trust.known else
                f"since when pid {process.pid} runs could not be read: it may be another process now")
    return ""


def without_agent(process):
    """Why the agents of a process cannot be asked, or ""."""
    if process.agents is None or not process.agents.numbers:
        return f"no agent in pid {process.pid} has announced itself: its application needs agent.install() or agent.middleware()"
    return ""


def _newest(process):
    """The number of the request that became slow last, of those that are active."""
    return process.slow_active[next(reversed(process.slow_active))].number if process.slow_active else 0


def _is_fresh(process, turn):
    """Whether it is in new trouble since it was read."""
    return _newest(process) > turn.newest or process.silent_now is not None and process.last_now > turn.last_now


# --- which stack is which request -------------------------------------------------------------

def _is_busy(thread):
    return bool(thread.frames) and not thread.idle


def joined(requests, threads):
    """[(ThreadStack, how) or (None, why not)] for slow.Identity of one process.

    By mod_wsgi's request id, which is the record's log id; where the record has none, by mod_wsgi's own thread number; else,
    where there is but one active request and one busy thread that is not known to serve another, by a guess.
    """
    by_request, by_thread = {}, {}
    for thread in threads:
        if thread.request and thread.request.request_id:
            by_request.setdefault(thread.request.request_id, []).append(thread)
        if thread.request and thread.request.thread_id:
            by_thread.setdefault(str(thread.request.thread_id), []).append(thread)
    active = [request for request in requests if request.active]
    free = [thread for thread in threads if _is_busy(thread) and not (thread.request and thread.request.request_id)]
    found = []
    for request in requests:
        holders = by_request.get(request.log_id) if request.log_id else by_thread.get(str(request.thread))
        if holders:
            thread, why = _server_of(holders, threads)
            found.append((thread, why or ("environ" if request.log_id else "mod_wsgi.thread_id")))
        elif request.active and len(active) == 1 and len(free) == 1 and not by_request:
            found.append((free[0], GUESSED))
        else:
            found.append((None, _why_not(request, active, free, threads)))
    return found


def _server_of(holders, threads):
    """(thread, "") that serves a request, of those that hold its environ, or (None, why that cannot be told).

    The outermost frame of a server's thread is the application's own; a thread that was handed the environ, for work in the
    background, is another one.
    """
    own = [thread for thread in holders if not thread.request.place and not _is_background(thread)]
    if len(own or holders) > 1:
        return None, f"ambiguous: {len(own or holders)} threads hold this request's environ"
    unread = sum(1 for thread in threads if thread.problem and not thread.frames)
    if unread and _is_background((own or holders)[0]):
        return None, f"ambiguous: only a background thread holds this request's environ, and {unread} could not be read"
    return (own or holders)[0], ""


def _is_background(thread):
    outermost = thread.frames[-1] if thread.frames else None
    return (outermost is not None and outermost.function.rpartition(".")[2] == "_bootstrap"
            and outermost.file.rpartition("/")[2] == "threading.py")


def _why_not(request, active, free, threads):
    if not request.active:
        return "not joined: it was over when the stacks were read"
    moving = sum(1 for thread in threads if thread.problem)
    said = f"not joined: no thread tells this request; {len(active)} active, {len(free)} busy threads that tell none"
    return said + (f", {moving} that could not be read" if moving else "")


def _attached(thread, how):
    if thread is None:
        return {"tid": None, "how": None, "whole": False, "problem": how, "frames": []}
    return {"tid": thread.tid, "how": how, "whole": thread.problem is None, "problem": thread.problem,
            "frames": [frame_json(frame) for frame in thread.frames]}


# --- in a sentence ----------------------------------------------------------------------------

def holder(threads):
    """Where the holder of the GIL is, or else the one busy thread, to follow a colon; "" when that is not known."""
    owners = [thread for thread in threads if thread.owns_gil and thread.frames]
    if owners:
        return f"its GIL is held in {place(owners[0].frames)}"
    busy = [thread for thread in threads if _is_busy(thread)]
    if len(busy) == 1 and not any(thread.owns_gil for thread in threads):
        return f"its busy thread is in {place(busy[0].frames)}"
    return ""


def place(frames):
    """`re.py:199 match, called from app.py:12`: the innermost frame, and the first one outside of its file.

    An agent's own frames tell nothing of the application: they are left out, where there are others.
    """
    frames = [frame for frame in frames if not frame.file.rpartition("/")[0].endswith(AGENT_FOLDER)] or frames
    innermost = frames[0]
    caller = next((frame for frame in frames if frame.file != innermost.file), None)
    said = f"{_line(innermost)} {innermost.function[:FILE_LENGTH]}"
    return said if caller is None else f"{said}, called from {_line(caller)}"


def _line(frame):
    parts = frame.file.rpartition("/")
    name = parts[2]
    if name == "__init__.py":           # of a package: re/__init__.py
        name = parts[0].rpartition("/")[2] + "/" + name
    return name[-FILE_LENGTH:] + ("" if frame.line is None else f":{frame.line}")
