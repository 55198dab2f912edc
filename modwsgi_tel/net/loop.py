"""The one loop: a blocking select() over file descriptors, with timers and signals.

It knows descriptors and callbacks, not telemetry.  One descriptor comes first: whatever else
is ready, `first` is looked at again before the next piece of work, and the longest time
between two looks is measured.
"""
import heapq
import os
import select
import signal
import time

FD_LIMIT = 1024                         # select() takes no descriptor from here up (FD_SETSIZE)
STALL_S = 1.0                           # not having looked for so long is told to `on_stall`


class Loop:
    """Callbacks run one after another; each should be done within a few milliseconds.

    `first` is called with no argument and returns whether it may have left something unread.
    """

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.readers = {}               # descriptor -> callback
        self.writers = {}
        self.longest_gap_s = 0.0        # between two looks at the first descriptor, since the start
        self.recent_gap_s = 0.0         # the same, in the minute that ended last, or since then
        self.stalls = 0                 # gaps of STALL_S and more
        self.on_stall = lambda seconds: None
        self._first_fd = None
        self._first = lambda: False
        self._timers = []
        self._count = 0
        self._looked = clock()
        self._gap_began = self._looked
        self._gap_now = 0.0
        self._running = False
        self._wake = None
        self._handlers = {}

    def set_first(self, descriptor, callback):
        self._first_fd, self._first = descriptor, callback

    def every(self, seconds, callback, slack_s=0.0):
        """Call back every so many seconds, the first time after as many.

        With `slack_s` it may be so much late, when the loop wakes for something else by then: a
        wake-up of its own costs an idle collector more than the work.
        """
        self._push(self.clock() + seconds, seconds, slack_s, callback)

    def after(self, seconds, callback):
        self._push(self.clock() + seconds, None, 0.0, callback)

    def _push(self, due, every, slack_s, callback):
        self._count += 1
        heapq.heappush(self._timers, (due, self._count, every, slack_s, callback))

    def on_signal(self, number, callback):
        """Call back inside the loop after a signal; a blocking select() wakes up for it."""
        if self._wake is None:
            reading, writing = os.pipe()
            for end in (reading, writing):
                os.set_blocking(end, False)
            self._wake = (reading, writing)
            self.readers[reading] = self._signalled
            signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._handlers[number] = callback
        signal.signal(number, lambda *_: None)

    def _signalled(self):
        try:
            numbers = os.read(self._wake[0], 512)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):
            callback = self._handlers.get(number)
            if callback is not None:
                callback()

    def stop(self):
        self._running = False

    def close(self):
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            for number in self._handlers:
                signal.signal(number, signal.SIG_DFL)
            for end in self._wake:
                os.close(end)
            self._wake = None

    def run(self):
        """Run until stop()."""
        clock, readers, writers, timers = self.clock, self.readers, self.writers, self._timers
        self._running, more = True, False
        self._looked = clock()
        while self._running:
            wait = None
            if more:
                wait = 0.0
            elif timers:
                wait = max(0.0, min(due + slack for due, _, _, slack, _ in timers) - clock())
            reading = list(readers)
            if self._first_fd is not None:
                reading.append(self._first_fd)
            began = clock()
            self._gap(began)
            ready, writable, _ = select.select(reading, list(writers), [], wait)
            self._looked = clock()
            if wait is not None and self._looked - began - wait > STALL_S:
                self._gap(self._looked, self._looked - began - wait)    # stopped, or starved, inside the wait
            more = self.look()
            for descriptor in ready:
                callback = readers.get(descriptor)
                if callback is not None:
                    callback()
                    more = self.look() or more
            for descriptor in writable:
                callback = writers.get(descriptor)
                if callback is not None:
                    callback()
                    more = self.look() or more
            # one that a callback sets now waits for the next turn: descriptors come in between
            until, newest = self._looked, self._count
            while timers and timers[0][0] <= until and timers[0][1] <= newest:
                due, _, every, slack_s, callback = heapq.heappop(timers)
                if every is not None:
                    # one that is late by more than its period has missed turns: they are not made up for
                    due = due + every if due + every > self._looked else self._looked + every
                    self._push(due, every, slack_s, callback)
                callback()
                more = self.look() or more

    def look(self):
        """Look at the first descriptor now: between any two pieces of work."""
        self._gap(self.clock())
        more = self._first()
        self._looked = self.clock()
        return more

    def _gap(self, now, gap=None):
        if gap is None:
            gap = now - self._looked
        if gap > self._gap_now:
            self._gap_now = gap
            if gap > self.recent_gap_s:
                self.recent_gap_s = gap
            if gap > self.longest_gap_s:
                self.longest_gap_s = gap
        if now - self._gap_began > 60:
            self.recent_gap_s, self._gap_now, self._gap_began = self._gap_now, 0.0, now
        if gap >= STALL_S:
            self.stalls += 1
            self.on_stall(gap)
