"""Garbage collections as the interpreter itself tells of them, by gc.callbacks.

They are of the interpreter that imported this; each interpreter has its own collector.
"""
import gc
import time
from collections import deque

from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import GC_EVENT, GC_SNAPSHOT

EVENTS_MOST = 64                        # between two ticks, as many as mod_wsgi keeps
GENERATIONS = range(3)
NAME_MOST = 127                         # bytes of an interpreter's name, as mod_wsgi cuts it
_STATS = ("collections", "collected", "uncollectable")
FREEZE_SHARE = 1e-3                     # of the time, at most, goes into counting frozen objects


class Pauses:
    """Collections since the last `tell`; `install` begins, `close` ends it.

    interpreter_name: of a sub-interpreter, "" in the main one.  interval_s: between two ticks, where nobody else calls `tell`.
    dropped: collections beyond EVENTS_MOST since the last `tell`.
    """

    def __init__(self, send, interpreter_name="", interval_s=1.0):
        self._send, self._interval_s, self._next = send, interval_s, time.monotonic() + interval_s
        self.errors = self.dropped = 0
        self._name = {}
        if interpreter_name:
            self._name["interpreter_name"] = interpreter_name.encode("utf-8", "surrogateescape")[:NAME_MOST]
        self._events = deque()
        self._callback = None
        self._frozen, self._frozen_again = None, float("-inf")

    def install(self):
        """Listen from now on; twice is once."""
        if self._callback is None:
            self._callback = _listener(self, self._events, time.monotonic, time.time)
            gc.callbacks.append(self._callback)

    def close(self):
        callback, self._callback = self._callback, None
        listed = gc.callbacks
        for place in range(len(listed) - 1, -1, -1):    # list.remove would ask others' == whether they are equal
            if place < len(listed) and listed[place] is callback:
                del listed[place]

    def forked(self):
        """In the child, which begins anew."""
        self.close()

    def due(self):
        return self._next

    def run(self, now):
        if now >= self._next:
            self._next = now + self._interval_s
            self.tell()

    def tell(self):
        """Send a gc_snapshot and the collections since the last time; in the monitor's thread.  Never raises."""
        try:
            self._tell(self._send)
        except Exception:
            self.errors += 1

    def _tell(self, send):
        dropped, self.dropped = self.dropped, 0
        if not send(GC_SNAPSHOT, named(**self._name, **self._snapshot(dropped))):
            self.dropped += dropped
            return                      # the events wait for the next tick: there are no more than EVENTS_MOST
        for _ in range(len(self._events)):
            began_wall, seconds, generation, collected, uncollectable = self._events[0]
            if not send(GC_EVENT, named(**self._name, gc_event_start_stamp=began_wall, gc_event_duration=seconds,
                                        gc_event_generation=generation, gc_event_collected=collected,
                                        gc_event_uncollectable=uncollectable)):
                return
            self._events.popleft()

    def _snapshot(self, dropped):
        stats = gc.get_stats()
        out = {}
        for name, values in (("count", gc.get_count()), ("threshold", gc.get_threshold()),
                             *((key, [each.get(key) for each in stats]) for key in _STATS)):
            out.update((f"gc_{name}{generation}", values[generation]) for generation in GENERATIONS
                       if generation < len(values) and _is_count(values[generation]))
        out["gc_is_enabled"] = int(gc.isenabled())
        out["gc_freeze_count"] = self._frozen_count()
        out["gc_dropped_events"] = dropped
        return out

    def _frozen_count(self):
        """gc.get_freeze_count() walks all frozen objects: where that takes long it is asked seldom."""
        began = time.monotonic()
        if began >= self._frozen_again:
            self._frozen = gc.get_freeze_count()
            ended = time.monotonic()
            self._frozen_again = ended + (ended - began) / FREEZE_SHARE
        return self._frozen


def _listener(pauses, events, monotonic, wall):
    """The function for gc.callbacks.

    It runs in the middle of anything, in any thread, and at the interpreter's end, when a module's names may be gone: all
    that it uses is held here.  A collection never begins within another one, so one start at a time is kept.
    """
    began, most = None, EVENTS_MOST

    def listen(phase, info):
        nonlocal began
        try:
            if phase == "start":
                began = monotonic()
            elif began is not None:
                seconds, began = monotonic() - began, None
                if len(events) >= most:
                    pauses.dropped += 1
                else:
                    events.append((wall() - seconds, seconds, info["generation"], info["collected"], info["uncollectable"]))
        except Exception:
            pauses.errors += 1

    return listen


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 63
