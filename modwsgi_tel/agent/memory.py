"""Which lines allocate what grows: tracemalloc, started, looked at and stopped on request from outside.

Nothing of it is loaded, and nothing slowed down, until it is started; then an allocation takes five to ten times as long, and 50 bytes more.
It ends by itself after settings.memory_most_s, so that nobody forgets it.
"""
import os
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import MEMORY_GROWTH

LINES = 20
FRAMES_MOST = 25
# A look copies what is traced, which holds the GIL (0.2 s for a million blocks) and takes some 170 bytes for each.
BLOCKS_MOST = 500_000
BYTES_A_BLOCK = 48                      # that tracemalloc needs, at least
OVERHEAD_MOST = 256 << 20               # of tracing; beyond it ends
CHECKED_S = 10.0
_COUNT_MOST = 2 ** 31 - 1
_OWN = (lambda: 0).__code__.co_filename.rpartition("/agent/")[0] + "/"
_LIBRARY = os.__file__.rpartition("/")[0] + "/"
_PACKAGES = ("/site-packages/", "/dist-packages/")


class Memory:
    """tracemalloc as the operator asks for it; all in the monitor's thread.  tracing: whether it was started."""

    def __init__(self, send, locations, settings, clock=time.monotonic):
        self._send, self._locations, self._most_s, self._clock = send, locations, settings.memory_most_s, clock
        self._tracemalloc = None
        self._forget()

    def _forget(self):
        self.tracing = False
        self._foreign = False           # the application had started it before: then it is the application's to stop
        self._began = self._ends = self._checked = 0.0
        self._before = {}               # (file, line) -> (bytes, blocks) at the start
        self._rows = []                 # of the newest snapshot: told again at the end
        self._library = {}              # file -> whether it is of a library

    def asked(self, request):
        """What was asked on the control socket: {"what": "start", "snapshot" or "stop", "frames": 1}.  Raises TelError."""
        what = request.get("what")
        if what == "start":
            return self.start(request.get("frames", 1))
        if what == "snapshot":
            return self.snapshot()
        if what == "stop":
            return self.stop()
        raise TelError("tracemalloc: ask for start, snapshot or stop")

    def start(self, frames=1):
        """Trace from now on.

        frames: how many callers of an allocation are kept.  Of these the innermost counts, or with more than one the innermost that is
        not of Python's own library or an installed package.  Where the application traces already its tracing is used as it is, and what
        it had traced is the start.  Returns {"state", "own", "frames", "seconds_most"}.
        """
        if self.tracing:
            raise TelError("tracemalloc is started already: ask for a snapshot, or stop it")
        if type(frames) is not int or not 1 <= frames <= FRAMES_MOST:
            raise TelError(f"tracemalloc: frames is a whole number from 1 to {FRAMES_MOST}")
        try:
            import tracemalloc
        except ImportError:
            raise TelError("this Python was built without tracemalloc: nothing can be traced") from None
        self._tracemalloc = tracemalloc
        self._foreign = tracemalloc.is_tracing()
        if self._foreign:
            self._before = self._lines()
        else:
            tracemalloc.start(frames)
        now = self._clock()
        self.tracing, self._began, self._ends, self._checked = True, now, now + self._most_s, now
        self._tell("started")
        return {"state": "started", "own": not self._foreign, "frames": tracemalloc.get_traceback_limit(), "seconds_most": self._most_s}

    def snapshot(self):
        """The lines that hold more than at the start, by growth, LINES at most.

        Returns {"state", "seconds", "took_s", "traced", "peak", "overhead", "lines": [{"file", "line", "growth", "held", "blocks"}]};
        bytes, and blocks: how many more.  Raises TelError where nothing is traced, or too much.
        """
        self._is_started()
        began = time.monotonic()
        held, before = self._lines(), self._before
        rows = []
        for key, (size, blocks) in held.items():
            growth = size - before.get(key, (0, 0))[0]
            if growth > 0:
                rows.append((growth, size, blocks - before.get(key, (0, 0))[1], key))
        del held
        rows.sort(key=lambda row: -row[0])
        self._rows = rows = rows[:LINES]
        told = self._tell("growing")
        return {"state": "growing", **told, "took_s": time.monotonic() - began,
                "lines": [{"file": file, "line": line, "growth": growth, "held": size, "blocks": blocks}
                          for growth, size, blocks, (file, line) in rows]}

    def stop(self):
        """End it; returns {"state", "seconds", "traced", "peak", "overhead"}.  The application's own tracing goes on."""
        self._is_started()
        told = self._tell("stopped")
        self._end()
        return {"state": "stopped", **told}

    def due(self):
        return min(self._ends, self._checked + CHECKED_S) if self.tracing else None

    def run(self, now):
        self._checked = now
        if not self._tracemalloc.is_tracing():
            self._tell("stopped")       # by the application
            self._forget()
        elif now >= self._ends or self._tracemalloc.get_tracemalloc_memory() > OVERHEAD_MOST:
            self.stop()

    def close(self):
        """At the end of the agent."""
        if self.tracing:
            self._end()

    forked = close                      # a child of a fork would trace on, and nobody know of it

    def _end(self):
        if not self._foreign and self._tracemalloc.is_tracing():
            self._tracemalloc.stop()
        self._forget()

    def _is_started(self):
        if self.tracing and not self._tracemalloc.is_tracing():
            self._tell("stopped")
            self._forget()
            raise TelError("the application has stopped tracemalloc: start it again")
        if not self.tracing:
            raise TelError("tracemalloc is not started: start it, and let the application work for a while")

    def _lines(self):
        """{(file, line): [bytes, blocks]} of what is traced now."""
        blocks = self._tracemalloc.get_tracemalloc_memory() // BYTES_A_BLOCK
        if blocks > BLOCKS_MOST:
            raise TelError(f"about {blocks:,} blocks are traced: to look at more than {BLOCKS_MOST:,} would hold up the application; "
                           "stop it, start it again and ask sooner")
        found, owners = {}, {}
        for _, size, frames, *_ in self._tracemalloc.take_snapshot().traces._traces:
            owner = owners.get(frames)
            if owner is None:
                owner = owners[frames] = self._owner(frames)
            if not owner:
                continue
            sums = found.get(owner)
            if sums is None:
                found[owner] = [size, 1]
            else:
                sums[0] += size
                sums[1] += 1
        return found

    def _owner(self, frames):
        """The (file, line) that a block counts for; () for what is not the application's."""
        if frames[0][0].startswith(_OWN) or frames[0][0] == self._tracemalloc.__file__:
            return ()
        for file, line in frames:       # innermost first
            if not self._is_library(file):
                return file, line
        return frames[0]

    def _is_library(self, file):
        known = self._library.get(file)
        if known is None:
            known = self._library[file] = file.startswith((_LIBRARY, "<")) or any(each in file for each in _PACKAGES)
        return known

    def _tell(self, state):
        """Send it; {"seconds", "traced", "peak", "overhead"}."""
        rows = self._rows
        traced, peak = self._tracemalloc.get_traced_memory()
        told = {"seconds": self._clock() - self._began, "traced": traced, "peak": peak,
                "overhead": self._tracemalloc.get_tracemalloc_memory()}
        fields = {"memory_state": state}
        if rows:
            numbers = self._locations.numbers([("", file, line) for _, _, _, (file, line) in rows])
            if numbers:
                fields.update(memory_locations=numbers, memory_growth=[float(row[0]) for row in rows],
                              memory_held=[float(row[1]) for row in rows],
                              memory_blocks=[max(-_COUNT_MOST, min(_COUNT_MOST, row[2])) for row in rows])
        fields.update(memory_seconds=told["seconds"], memory_traced=traced, memory_peak=peak, memory_overhead=told["overhead"])
        self._send(MEMORY_GROWTH, named(**fields))
        return told
