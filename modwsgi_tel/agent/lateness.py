"""Lateness of event loops: a turn of the loop that holds it longer than a limit is counted, with the stack that did.

A turn is what lies between two waits of the loop: one callback, or several that were ready at once; whoever waits for the loop waits
for all of them.  It is observed at the loop object, without its debug mode, by two clock reads a turn: its `_process_events`, which
asyncio calls first when it has waited, and its `_run_once`, which ends with the turn.

For the stack the monitor looks at the loop's thread when a turn has lasted `limit`, and again each time that this has doubled.  While
the loop has something to do it looks at most once in `limit`; it is woken by the first turn after a pause, and sleeps when the loop
sleeps.

uvloop's turns are C's and are not seen.  While C code holds the GIL the monitor cannot look: then there is a duration without a stack.
"""
import sys
import weakref
from time import monotonic

from modwsgi_tel.agent.frames import stack_of
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import LOOP_LATENESS

LOOPS_MOST = 16
TOLD_S = 1.0                            # between two records of a loop; a turn is told of before its end when it lasts longer
LOOK_MOST_S = 10.0                      # between two looks at a turn that does not end
KEPT_MOST = 32                          # stacks of turns that are not told yet
NAME_MOST = 100
UNSEEN = "no stack: it was over too soon, or C code held the GIL, and nothing else could run"
_OWN = (lambda: 0).__code__.co_filename


class _Watch:
    """One loop.

    By the loop's thread: began: of the turn that runs (monotonic seconds), 0.0 between turns.  latest: of the
    newest turn.  done: (count, seconds, longest, began of the newest) of late turns that are over.  worst: (began, seconds) of the
    longest that is not told.  unsent: whether there is something to tell.  By both: looks: whether the monitor looks; at: when next.
    By the monitor: stacks: {began: Stack}.  next: when it may tell again.
    """

    __slots__ = ("loop", "name", "began", "latest", "done", "worst", "unsent", "looks", "at", "stacks", "next", "own")

    def __init__(self, loop, name):
        self.loop, self.name = weakref.ref(loop), name
        self.began = self.latest = self.at = self.next = 0.0
        self.done, self.worst = (0, 0.0, 0.0, 0.0), (0.0, 0.0)
        self.unsent = self.looks = False
        self.stacks, self.own = {}, {}


class Lateness:
    """The event loops that are watched.  wake(): lets the monitor look for what is due.  problem: why one is not watched."""

    def __init__(self, send, locations, settings, wake):
        self._send, self._locations, self._limit, self._wake = send, locations, settings.loop_limit, wake
        self._watches = []
        self._named = 0
        self.problem = ""
        self.errors = 0

    @property
    def watched(self):
        """How many loops."""
        return len(self._watches)

    # --- in the application's threads ---------------------------------------------------------------

    def watch(self, loop=None):
        """Watch an asyncio event loop, or tornado's IOLoop on one; None: the one that runs here.  "" or why it cannot be."""
        try:
            problem = self._watch(_asyncio_loop(loop))
        except Exception as error:      # a loop that is not as asyncio's are
            problem = f"an event loop cannot be watched: {type(error).__name__}"
        if problem:
            self.problem = problem
        return problem

    def _watch(self, loop):
        if loop is None:
            return "no event loop runs here: call watch_loop in a coroutine, or give it the loop"
        name = type(loop).__name__[:NAME_MOST]
        if not all(any(each in vars(base) for base in type(loop).__mro__) for each in ("_run_once", "_process_events")):
            return f"{name} of {type(loop).__module__}: the turns of this event loop are not Python's, its lateness is not measured"
        self._sweep()
        if any(each.loop() is loop for each in self._watches):
            return ""
        if len(self._watches) >= LOOPS_MOST:
            return f"more than {LOOPS_MOST} event loops: the others are not watched"
        self._named += 1
        watch = _Watch(loop, f"{name} {self._named}")
        self._observe(watch, loop)
        self._watches.append(watch)
        return ""

    def _observe(self, watch, loop):
        run_once, process_events, limit, late, woken = loop._run_once, loop._process_events, self._limit, self._late, self._woken

        def _run_once():
            try:
                return run_once()
            finally:
                began = watch.began
                if began:
                    took = monotonic() - began
                    if took >= limit:
                        late(watch, began, took)
                    watch.began = 0.0

        def _process_events(events):
            watch.began = watch.latest = began = monotonic()
            if not watch.looks:         # its began is set before: one of the two sees what the other did
                watch.at, watch.looks = began + limit, True
                woken()
            return process_events(events)

        watch.own = {"_run_once": _run_once, "_process_events": _process_events}
        loop._run_once, loop._process_events = _run_once, _process_events

    def _late(self, watch, began, took):
        count, seconds, longest, _ = watch.done
        watch.done = (count + 1, seconds + took, max(longest, took), began)
        if took > watch.worst[1]:
            watch.worst = (began, took)
        watch.unsent = True
        self._woken()

    def _woken(self):
        try:
            self._wake()
        except Exception:               # nothing of ours ends a loop
            self.errors += 1

    # --- in the monitor's thread --------------------------------------------------------------------

    def due(self):
        first = None
        for watch in list(self._watches):
            for wanted, when in ((watch.looks, watch.at), (watch.unsent, watch.next)):
                if wanted and (first is None or when < first):
                    first = when
        return first

    def run(self, now):
        for watch in list(self._watches):
            if watch.looks and watch.at <= now:
                self._look(watch, now)
            if watch.unsent and watch.next <= now:
                self._tell(watch, now)
        self._sweep()

    def again(self):
        """A collector has come: it is to know all."""
        for watch in list(self._watches):
            watch.unsent, watch.next = watch.unsent or bool(watch.done[0]), 0.0

    def close(self):
        """Let all loops be as they were."""
        watches, self._watches = self._watches, []
        for watch in watches:
            loop = watch.loop()
            if loop is None:
                continue
            held = object.__getattribute__(loop, "__dict__")
            for name, own in watch.own.items():
                if held.get(name) is own:
                    del held[name]

    forked = close                      # in the child the loop's thread may be gone: whoever runs one there watches it anew

    def _sweep(self):
        """Forget loops that are closed, once what they did is told."""
        for watch in list(self._watches):
            loop = watch.loop()
            if (loop is None or loop._closed) and not watch.unsent and not watch.looks:
                self._watches.remove(watch)

    def _look(self, watch, now):
        began, limit = watch.began, self._limit
        if began and now - began >= limit:
            self._take(watch, began)
            watch.at = now + min(now - began, LOOK_MOST_S)
            if now - began >= TOLD_S:
                watch.unsent = True
        elif began:
            watch.at = began + limit
        elif now - watch.latest < limit:
            watch.at = now + limit
        else:
            watch.looks = False
            if watch.began:             # began just now, and has woken nobody
                watch.at, watch.looks = watch.began + limit, True

    def _take(self, watch, began):
        loop = watch.loop()
        frame = None if loop is None else sys._current_frames().get(loop._thread_id)
        if frame is None:
            return
        stack = stack_of(frame)
        if watch.began == began:        # else it is that of another turn
            if len(watch.stacks) >= KEPT_MOST:
                watch.stacks.clear()
            watch.stacks[began] = stack

    def _tell(self, watch, now):
        watch.unsent, watch.next = False, now + TOLD_S
        running, worst = watch.began, watch.worst
        count, seconds, longest, newest = watch.done      # read after `began`: a turn that is over by now is not counted twice
        if running and running != newest and now - running >= self._limit:
            took = now - running
            count, seconds, longest = count + 1, seconds + took, max(longest, took)
            if took > worst[1]:
                worst = (running, took)
        began, took = worst
        fields = {"loop_name": watch.name.encode("utf-8", "replace"), "loop_late_count": count, "loop_late_seconds": seconds,
                  "loop_late_max": longest, "loop_limit": self._limit}
        if took:
            fields["loop_duration"] = took
            fields.update(self._stack(watch.stacks.get(began)))
        if self._send(LOOP_LATENESS, named(**fields)):
            if watch.worst[0] == began:
                watch.worst = (0.0, 0.0)
            for each in list(watch.stacks):
                if each != watch.began:
                    del watch.stacks[each]

    def _stack(self, stack):
        """The fields of a Stack, without the observing frame."""
        if stack is None:
            return {"stack_problem": UNSEEN.encode()}
        kept = [(place, frame) for place, frame in enumerate(stack.frames) if frame[1] != _OWN]
        numbers = self._locations.numbers([frame for _, frame in kept])
        if not numbers:
            return {}                   # nobody takes them now
        out = {"stack_frames": numbers}
        if stack.left_out:
            out.update(stack_left_out=stack.left_out, stack_cut_at=sum(place < stack.cut_at for place, _ in kept))
        if stack.problem:
            out["stack_problem"] = stack.problem.encode()
        return out


def _asyncio_loop(loop):
    """The asyncio loop that is meant, or None; of what the application has loaded."""
    if loop is None:
        asyncio = sys.modules.get("asyncio")
        return asyncio._get_running_loop() if asyncio is not None else None
    try:
        return object.__getattribute__(loop, "__dict__").get("asyncio_loop", loop)      # tornado's IOLoop
    except AttributeError:              # of C
        return loop
