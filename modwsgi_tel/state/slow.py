"""Slow requests: every record of one request joined under its key.

mod_wsgi's own reporter tells of them, or an agent in the application, or both: then the reporter's records stand."""
import itertools
import struct
from collections import OrderedDict, namedtuple

from modwsgi_tel.bounded import FairMap
from modwsgi_tel.wire.fields import BY_NAME, LONG_REQUEST
from modwsgi_tel.wire.shapes import Wanted

ACTIVE, STALE, COMPLETED, LOST = "active", "stale", "completed", "lost"

_READ = Wanted(BY_NAME[name].id for name in ("slow_record_state", "slow_thread_id", "slow_start_stamp", "slow_log_id"))

# The entry as the existing collector shows it: name there -> field here.
ENTRY = tuple((field.name[5:] if field.name != "slow_record_state" else "state", field.name)
              for field in BY_NAME.values() if field.name.startswith("slow_") and field.kinds == (4,))

Slow = namedtuple("Slow", "key number life process_id pid sender_pid group first_wall last_wall ended_wall unheard_s record_s inside shape datagram "
                          "stack watch")
Slow.__doc__ = """A frozen slow request: `number` tells it from all others; its life is active, stale (its process goes on, but nothing was heard for
`unheard_s` seconds), completed, or lost (its process is gone); shape and datagram are the newest record, record_s seconds old; inside: it is an
agent's; stack is a Stack or None; watch is what an agent told of it, a watched.Watch, or None."""

Stack = namedtuple("Stack", "now wall packed has_frames")
Stack.__doc__ = "The stack of a request, when it was taken, packed as state.taken packs, and whether it has frames."

SAME_S = 0.001                          # starts that differ by less are of one request

Identity = namedtuple("Identity", "key log_id thread active")
Identity.__doc__ = "What a stack is joined by: the log id or \"\", mod_wsgi's thread number or 0, whether it still runs."


class _Request:
    __slots__ = ("key", "number", "process", "process_id", "pid", "sender_pid", "group", "first_wall", "last_wall", "last_now", "record_now",
                 "life", "ended_wall", "ended_now", "shape", "datagram", "inside", "stack", "watch")


class SlowTable:
    """Slow requests by (process, log id); at most `limit` and `bytes_limit`, the oldest of who holds most going first.

    Without a log id a request is told by its thread and its start stamp.  One that has ended is
    kept for `kept_s` seconds.
    """

    STALE_AFTER_S = 5.0                 # and three intervals of its process
    QUIET_AFTER_S = 300.0               # of one that an agent alone watches: it tells ever more seldom
    STACK_BYTES = 8 << 20               # of stacks: the oldest ones go, their requests stay
    WATCH_BYTES = 32 << 20              # of what agents tell of requests: likewise

    def __init__(self, limit, kept_s, bytes_limit):
        self.kept_s = kept_s
        self.bytes_limit = bytes_limit
        self.bytes = 0                  # of the newest records
        self.stack_bytes = self.stacks_evicted = 0
        self.watch_bytes = self.watches_evicted = 0
        self.forgotten = 0
        self.seen = 0                   # requests so far
        self.newest = None              # the key of the record that came last
        self._requests = FairMap(limit, keep=lambda request: request.life == ACTIVE)
        self._numbers = {}              # number -> key
        self._ended = {LOST: OrderedDict(), COMPLETED: OrderedDict()}      # of each: key -> None, in order of their end
        self._running = OrderedDict()   # key -> None, in order of their newest record
        self._stacks = OrderedDict()    # key -> None of those with a stack, in order of its time
        self._watched = OrderedDict()   # key -> bytes of those with a watch, in order of its change

    def __len__(self):
        return len(self._requests)

    def __contains__(self, key):
        return key in self._requests

    @property
    def evicted(self):
        return self._requests.evicted

    def take(self, key, who, process, shape, datagram, now, wall):
        """A slow_request or long_request datagram of the process with this key, known (Process) or not (None).

        True when it completes a request that had not been seen completed.
        """
        state, thread, start, log_id = shape.read(_READ, datagram)
        key += log_id if log_id else b"\0" + struct.pack("<Qd", thread, start)
        self.newest = key
        inside = datagram[7] >= 0x80    # wire.fields.AGENT_FLAG
        request = self._requests.get(key)
        if request is not None and inside:
            if not request.inside:
                return False            # mod_wsgi's own reporter tells of it
            if request.life in (COMPLETED, LOST) and start and abs(start - request.shape.read(_READ, request.datagram)[2]) > SAME_S:
                self._unlink(self._requests.pop(key))       # an agent begins its numbers anew
                request = None
        if request is None:
            request = _Request()
            request.number = self.seen = self.seen + 1
            self._numbers[request.number] = key
            request.key, request.process, request.pid, request.sender_pid = key, process, who.pid, who.sender_pid
            request.group = process.group if process else ("", "")
            request.process_id = None
            request.first_wall = wall
            request.datagram, request.stack, request.watch = b"", None, None
            request.life, request.ended_wall, request.ended_now = ACTIVE, None, None
            for gone in self._requests.put(key, (who.uid, key[:16]), request):
                self._unlink(gone)
        elif not state and (request.life == COMPLETED or request.life == LOST and process is not None and process.ended):
            return False                # an active record that came late
        self.bytes += len(datagram) - len(request.datagram)
        request.shape, request.datagram, request.inside = shape, datagram, inside
        request.last_wall, request.last_now, request.record_now = wall, now, now
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
        self._ended[LOST].pop(key, None)
        request.life = ACTIVE
        self._running[key] = None
        self._running.move_to_end(key)
        if process is not None:
            process.slow_active[key] = request
        return False

    def _end(self, request, life, now, wall):
        self._unlist(request)
        request.life = life
        request.ended_now, request.ended_wall = now, wall
        self._ended[life][request.key] = None
        if request.process is not None:
            request.process.slow_active.pop(request.key, None)
            request.process = None      # what has ended must not keep it in memory

    def _unlink(self, request):
        del self._numbers[request.number]
        self.bytes -= len(request.datagram)
        self._drop_stack(request)
        self._drop_watch(request)
        self._unlist(request)
        if request.process is not None:
            request.process.slow_active.pop(request.key, None)

    def _unlist(self, request):
        self._ended.get(request.life, self._running).pop(request.key, None)

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

    def watch(self, key):
        """What an agent told of the request of this key, a watched.Watch, or None."""
        request = self._requests.get(key)
        return None if request is None else request.watch

    def watched(self):
        """The watched.Watch of each active request that has one."""
        return [request.watch for request in map(self._requests.get, self._running) if request.watch is not None]

    def weigh(self, key, watch, now, wall):
        """An agent told something of a request, which is in `watch`: it still runs, if the agent's is all that is known of it."""
        request = self._requests.get(key)
        if request.inside and request.life == ACTIVE:
            request.last_now, request.last_wall = now, wall
        self.watch_bytes += watch.bytes - self._watched.get(key, 0)
        request.watch = watch
        self._watched[key] = watch.bytes
        self._watched.move_to_end(key)
        while self.watch_bytes > self.WATCH_BYTES:
            self._drop_watch(self._requests.get(next(iter(self._watched))))
            self.watches_evicted += 1

    def reweigh(self, key):
        """The watch of this key has become smaller."""
        self.watch_bytes += self._requests.get(key).watch.bytes - self._watched[key]
        self._watched[key] = self._requests.get(key).watch.bytes

    def _drop_watch(self, request):
        if request.watch is not None:
            self.watch_bytes -= self._watched.pop(request.key)
            request.watch.forget()
            request.watch = None

    def lose(self, process, now, wall):
        """The process is gone: its active requests never complete.  Returns how many."""
        lost = list(process.slow_active.values())
        for request in lost:
            self._end(request, LOST, now, wall)
        return len(lost)

    def expire(self, now):
        """Forget what ended long ago, and what has been active without a word for as long."""
        for ended in self._ended.values():
            while ended:
                key = next(iter(ended))
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
        if (process is None or process.silent_now is None) and is_stale(request, now):
            return STALE
        return ACTIVE

    def keys(self):
        """The keys of now, for a reader that takes its time; `freeze` gives each, or None when it has gone."""
        return self._requests.keys()

    def numbered(self, number):
        """The key of the request with this number, as a list: empty when it has gone."""
        return [self._numbers[number]] if number in self._numbers else []

    def running(self):
        """The keys of those that have not ended, in order of their newest record."""
        return list(self._running)

    def ended(self, life):
        """How many have ended as LOST or COMPLETED, and their keys, the newest end first, to be read at once."""
        return len(self._ended[life]), reversed(self._ended[life])

    def look(self, key, now):
        """(the request, its life now) of a key for one look, at a quarter of the cost of `freeze`; None when it has gone.

        Of the request only what Slow has under the same name may be read.
        """
        request = self._requests.get(key)
        return None if request is None else (request, self._life(request, now))

    def freeze(self, key, now):
        """The request of a key as a Slow, or None."""
        request = self._requests.get(key)
        if request is None:
            return None
        return Slow(key, request.number, self._life(request, now), request.process_id, request.pid, request.sender_pid,
                    request.group, request.first_wall, request.last_wall, request.ended_wall,
                    max(0.0, now - request.last_now), max(0.0, now - request.record_now), request.inside, request.shape,
                    request.datagram, request.stack, request.watch)


def is_stale(request, now):
    """Whether nothing was heard of an active request for so long that it may have ended unheard."""
    process = request.process
    if request.datagram[5] == LONG_REQUEST:
        return now - request.last_now > SlowTable.QUIET_AFTER_S
    return now - request.last_now > max(SlowTable.STALE_AFTER_S, 3 * process.interval if process else 0)
