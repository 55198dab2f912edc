"""Slow requests: every record of one request joined under its key."""
import itertools
import struct
from collections import OrderedDict, namedtuple

from modwsgi_tel.bounded import FairMap
from modwsgi_tel.wire.fields import BY_NAME
from modwsgi_tel.wire.shapes import Wanted

ACTIVE, STALE, COMPLETED, LOST = "active", "stale", "completed", "lost"

_READ = Wanted(BY_NAME[name].id for name in ("slow_record_state", "slow_thread_id", "slow_start_stamp", "slow_log_id"))

# The entry as the existing collector shows it: name there -> field here.
ENTRY = tuple((field.name[5:] if field.name != "slow_record_state" else "state", field.name)
              for field in BY_NAME.values() if field.name.startswith("slow_") and field.kinds == (4,))

Slow = namedtuple("Slow", "key number life process_id pid sender_pid group first_wall last_wall ended_wall unheard_s shape datagram stack",
                  defaults=(None,))
Slow.__doc__ = """A frozen slow request: `number` tells it from all others; its life is active, stale (its process goes on, but no record has come for
`unheard_s` seconds), completed, or lost (its process is gone); shape and datagram are the newest record; stack is a Stack or None."""

Stack = namedtuple("Stack", "now wall packed has_frames")
Stack.__doc__ = "The stack of a request, when it was taken, packed as state.taken packs, and whether it has frames."

Identity = namedtuple("Identity", "key log_id thread active")
Identity.__doc__ = "What a stack is joined by: the log id or \"\", mod_wsgi's thread number or 0, whether it still runs."


class _Request:
    __slots__ = ("key", "number", "process", "process_id", "pid", "sender_pid", "group", "first_wall", "last_wall", "last_now", "life",
                 "ended_wall", "ended_now", "shape", "datagram", "stack")


class SlowTable:
    """Slow requests by (process, log id); at most `limit` and `bytes_limit`, the oldest of who holds most going first.

    Without a log id a request is told by its thread and its start stamp.  One that has ended is
    kept for `kept_s` seconds.
    """

    STALE_AFTER_S = 5.0                 # and three intervals of its process
    STACK_BYTES = 8 << 20               # of stacks: the oldest ones go, their requests stay

    def __init__(self, limit, kept_s, bytes_limit):
        self.kept_s = kept_s
        self.bytes_limit = bytes_limit
        self.bytes = 0                  # of the newest records
        self.stack_bytes = self.stacks_evicted = 0
        self.forgotten = 0
        self.seen = 0                   # requests so far
        self._requests = FairMap(limit, keep=lambda request: request.life == ACTIVE)
        self._ended = OrderedDict()     # key -> None, in order of their end
        self._running = OrderedDict()   # key -> None, in order of their newest record
        self._stacks = OrderedDict()    # key -> None of those with a stack, in order of its time

    def __len__(self):
        return len(self._requests)

    @property
    def evicted(self):
        return self._requests.evicted

    def take(self, key, who, process, shape, datagram, now, wall):
        """A slow_request datagram of the process with this key, known (Process) or not (None).

        True when it completes a request that had not been seen completed.
        """
        state, thread, start, log_id = shape.read(_READ, datagram)
        key += log_id if log_id else b"\0" + struct.pack("<Qd", thread, start)
        request = self._requests.get(key)
        if request is None:
            request = _Request()
            request.number = self.seen = self.seen + 1
            request.key, request.process, request.pid, request.sender_pid = key, process, who.pid, who.sender_pid
            request.group = process.group if process else ("", "")
            request.process_id = None
            request.first_wall = wall
            request.datagram, request.stack = b"", None
            request.life, request.ended_wall, request.ended_now = ACTIVE, None, None
            for gone in self._requests.put(key, (who.uid, key[:16]), request):
                self._unlink(gone)
        elif not state and (request.life == COMPLETED or request.life == LOST and process is not None and process.ended):
            return False                # an active record that came late
        self.bytes += len(datagram) - len(request.datagram)
        request.shape, request.datagram = shape, datagram
        request.last_wall, request.last_now = wall, now
        if process is not None:
            request.process, request.process_id, request.group = process, process.id, process.group
        while self.bytes > self.bytes_limit and len(self._requests) > 1:
            self._unlink(self._requests.evict())
        if key not in self._requests:
            return False                # it was itself too much
        if state:
            fresh = request.life != COMPLETED
            self._end(request, COMPLETED, now, wall)
            return fresh
        if request.life == LOST:
            self._ended.pop(key, None)
        request.life = ACTIVE
        self._running[key] = None
        self._running.move_to_end(key)
        if process is not None:
            process.slow_active[key] = request
        return False

    def _end(self, request, life, now, wall):
        request.life = life
        request.ended_now, request.ended_wall = now, wall
        self._running.pop(request.key, None)
        self._ended.pop(request.key, None)
        self._ended[request.key] = None
        if request.process is not None:
            request.process.slow_active.pop(request.key, None)
            request.process = None      # what has ended must not keep it in memory

    def _unlink(self, request):
        self.bytes -= len(request.datagram)
        self._drop_stack(request)
        self._ended.pop(request.key, None)
        self._running.pop(request.key, None)
        if request.process is not None:
            request.process.slow_active.pop(request.key, None)

    def identity(self, key):
        """The Identity of a request, or None when it has gone."""
        request = self._requests.get(key)
        if request is None:
            return None
        _, thread, _, log_id = request.shape.read(_READ, request.datagram)
        return Identity(key, (log_id or b"").decode("utf-8", "replace"), thread or 0, request.life == ACTIVE)

    def attach(self, key, now, wall, packed, has_frames):
        """Keep a stack of the request of this key, in place of an older one; one without frames replaces none that has some."""
        request = self._requests.get(key)
        if request is None or request.stack is not None and request.stack.has_frames and not has_frames:
            return
        self._drop_stack(request)
        request.stack = Stack(now, wall, packed, has_frames)
        self._stacks[key] = None
        self.stack_bytes += len(packed)
        while self.stack_bytes > self.STACK_BYTES:
            self._drop_stack(self._requests.get(next(iter(self._stacks))))
            self.stacks_evicted += 1

    def _drop_stack(self, request):
        if request.stack is not None:
            self.stack_bytes -= len(request.stack.packed)
            request.stack = None
            self._stacks.pop(request.key, None)

    def lose(self, process, now, wall):
        """The process is gone: its active requests never complete.  Returns how many."""
        lost = list(process.slow_active.values())
        for request in lost:
            self._end(request, LOST, now, wall)
        return len(lost)

    def expire(self, now):
        """Forget what ended long ago, and what has been active without a word for as long."""
        while self._ended:
            key = next(iter(self._ended))
            if self._requests.get(key).ended_now >= now - self.kept_s:
                break
            self._forget(key)
        for key in list(itertools.takewhile(lambda key: self._requests.get(key).last_now < now - self.kept_s,
                                            self._running)):
            process = self._requests.get(key).process
            if process is None or process.silent_now is None:   # a silent process still has it inside
                self._forget(key)

    def _forget(self, key):
        self._unlink(self._requests.pop(key))
        self.forgotten += 1

    def clear(self, now):
        """Drop what has ended or is stale; keeps what still runs.  Returns how many were dropped."""
        dropped = 0
        for key in self._requests.keys():
            if self._life(self._requests.get(key), now) != ACTIVE:
                self._unlink(self._requests.pop(key))
                dropped += 1
        return dropped

    def _life(self, request, now):
        if request.life != ACTIVE:
            return request.life
        process = request.process
        if process is None or process.silent_now is None:
            limit = max(self.STALE_AFTER_S, 3 * process.interval if process else 0)
            if now - request.last_now > limit:
                return STALE
        return ACTIVE

    def keys(self):
        """The keys of now, for a reader that takes its time; `freeze` gives each, or None when it has gone."""
        return self._requests.keys()

    def freeze(self, key, now):
        """The request of a key as a Slow, or None."""
        request = self._requests.get(key)
        if request is None:
            return None
        return Slow(key, request.number, self._life(request, now), request.process_id, request.pid, request.sender_pid,
                    request.group, request.first_wall, request.last_wall, request.ended_wall,
                    max(0.0, now - request.last_now), request.shape, request.datagram, request.stack)
