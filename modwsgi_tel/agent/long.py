"""Long requests: the stacks of each, taken by the monitor thread, and a closing record when it ends.

A request's stacks are compared: the outer part that all of them share is its pivot, where the time goes from.  It is sent
once, and when it has shrunk; of each stack then only what lies inside of it.
"""
import sys
import time
from collections import deque

from modwsgi_tel.agent.emitter import is_ignored, slow_fields
from modwsgi_tel.agent.frames import common
from modwsgi_tel.agent.waits import said
from modwsgi_tel.stacks.model import MOVING
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import LONG_REQUEST, REQUEST_STACK

GROWTH, INTERVAL_MOST_S = 1.25, 60.0    # each pause between two stacks of a request is longer than the last
MOVING_S, MOVED_MOST = 0.1, 10          # a thread that runs on while it is looked at is looked at again, so often
TOLD_AGAIN_S = 3.0                      # a request that goes on is told of so often, or it would look forgotten
ENDED_MOST = 1000                       # closing records that wait to be sent
FULL_S, CLOSED_WITHIN_S = 0.05, 2.0     # a closing record that finds the collector's queue full is sent again so long
TURN_MOST, PAUSE_S = 4, 0.005           # requests told of in a turn; between two turns: the collector's queue holds ten datagrams
VALUES_MOST = 3000                      # bytes
ANNOTATIONS_BYTES = 1000
TEXT_BYTES = 511                        # of any other text, as mod_wsgi cuts a path


class Watch:
    """What is kept of one long request.  due: monotonic seconds of its next stack, inf when there are enough."""

    __slots__ = ("due", "told", "pause", "taken", "pivot", "generation", "counted", "ignored", "cpu_s", "newest", "waits", "moved")

    def __init__(self, now, interval):
        self.due, self.told, self.pause, self.taken = now, float("-inf"), interval, 0
        self.pivot, self.generation, self.cpu_s, self.newest = None, -1, None, None
        self.counted = self.ignored = False
        self.waits = ""                 # for what, in words
        self.moved = 0                  # tries at which it ran on


class Long:
    """The long requests of a Requests.

    tools: what is used of other modules: stack(ident, frame) -> a frames.Stack or None, kernel(tid) -> (state text or "", CPU seconds or
    None), tids() -> {ident: (tid, name)},
    waits(frame) -> None or a waits.Wait, values(frame) -> [(name, text)].  journal: gets what no collector takes.
    """

    def __init__(self, requests, sender, locations, settings, tools, journal):
        self._requests, self._sender, self._locations = requests, sender, locations
        self._settings, self._tools, self._journal = settings, tools, journal
        self._ended = deque(maxlen=ENDED_MOST)
        self._watched = 0
        self._again = float("-inf")     # when more may be sent
        self.ignored = self.unwatched = self.ended_lost = 0

    # --- in the request's thread --------------------------------------------------------------

    def ended(self, request):
        """A request has ended; whether the monitor has to be woken to send its closing record."""
        watch = request.watch
        if watch is None and request.ended - request.began < self._settings.threshold:
            return False
        if len(self._ended) == ENDED_MOST:
            self.ended_lost += 1
        self._requests.was_long(request)
        self._ended.append(request)
        return True

    # --- in the monitor ------------------------------------------------------------------------

    def due(self):
        """When there is something to do, or None."""
        first, threshold = 0.0 if self._ended else None, self._settings.threshold
        for request in list(self._requests.active.values()):
            watch = request.watch
            when = (request.began + threshold if watch is None else
                    float("inf") if watch.ignored else min(watch.due, watch.told + TOLD_AGAIN_S))
            if first is None or when < first:
                first = when
            if watch is None:
                break                   # those behind it began later
        return None if first is None else max(first, self._again)

    def run(self, now):
        self._again = now + PAUSE_S
        for request in [self._ended.popleft() for _ in range(min(TURN_MOST, len(self._ended)))]:
            if not self._close(request):
                self._ended.append(request)
                self._again = now + FULL_S
        ready, threshold = [], self._settings.threshold
        for request in list(self._requests.active.values()):
            if request.watch is None:
                if request.began + threshold > now:
                    break
                self._begin(request, now)
            if not request.watch.ignored and (request.watch.due <= now or request.watch.told + TOLD_AGAIN_S <= now):
                ready.append(request)
        if ready:
            ready.sort(key=lambda request: min(request.watch.due, request.watch.told + TOLD_AGAIN_S))   # nobody is always the last
            # first what gives up the GIL: frames of threads that run on meanwhile are not one stack any more
            tids, serving = self._tools.tids(), self._requests.of_thread
            frames = sys._current_frames()
            for request in ready[:TURN_MOST]:
                # a thread that has returned from one and serves another by now has handed its body on, or left it unclosed
                own = not request.returned or serving.get(request.ident) is request
                frame, watch = frames.get(request.ident) if own else None, request.watch
                if watch.due <= now and frame is not None:
                    self._take(request, frame, tids, now)
                    continue
                if watch.due <= now:    # the server sends what it was given, or it is a greenlet that does not run
                    watch.due = now + watch.pause
                if watch.told + TOLD_AGAIN_S <= now:
                    self._tell(request, now)
            del frames                  # frames keep all their variables alive

    def _begin(self, request, now):
        settings = self._settings
        watch = Watch(now, settings.interval)
        if is_ignored(request, settings):
            watch.ignored = True
            self.ignored += 1
        elif self._watched >= settings.watched:
            watch.due = float("inf")    # it is told of, but its stack is not taken
            self.unwatched += 1
        else:
            watch.counted = True
            self._watched += 1
        request.watch = watch

    def _uncount(self, watch):
        if watch.counted:
            watch.counted = False
            self._watched -= 1

    def _take(self, request, frame, tids, now):
        watch, settings = request.watch, self._settings
        stack = self._tools.stack(request.ident, frame)
        if stack is None or stack.problem == MOVING:
            watch.moved += 1            # a stack that may be torn would cut the pivot for good
            watch.due = now + (MOVING_S if watch.moved % MOVED_MOST else watch.pause)
            return
        if settings.ignore_functions is not None and any(map(self._is_ignored, stack.frames)):
            watch.ignored = True
            self._uncount(watch)
            self.ignored += 1
            return
        before = watch.pause
        watch.taken += 1
        watch.pause = min(INTERVAL_MOST_S, watch.pause * (GROWTH if watch.taken > 1 else 1))
        watch.due = now + watch.pause if watch.taken < settings.stacks else float("inf")
        wait = self._tools.waits(frame)
        values = self._values(frame) if settings.locals else b""
        watch.newest, watch.waits = stack, said(wait, tids, self._requests.of_thread, request)
        if not self._tell(request, now):
            self._full(watch, before, now)
            return
        shared = self._shared(watch, stack)
        numbers = self._locations.numbers(stack.frames[shared:])
        pivot = self._locations.numbers(watch.pivot) if watch.generation != self._sender.generation else None
        if pivot is not None and (not pivot and watch.pivot) or not numbers and len(stack.frames) > shared:
            self._journal.missed()
            self._full(watch, before, now)
            return
        tid, name = tids.get(request.ident, (None, ""))
        state, cpu_s = self._tools.kernel(tid)
        fields = {"slow_log_id": request.log_id, "stack_number": watch.taken, "stack_elapsed": max(0.0, now - request.began)}
        if pivot is not None:
            fields["stack_pivot"] = pivot
        fields.update(stack_shared=shared, stack_frames=numbers)
        if stack.left_out:
            fields.update(stack_left_out=stack.left_out, stack_cut_at=max(0, stack.cut_at - shared))
        fields.update(stack_tid=tid, stack_thread=name[:100] or None, stack_state=state or None)
        if cpu_s is not None and watch.cpu_s is not None:
            fields["stack_cpu"] = max(0.0, cpu_s - watch.cpu_s)
        watch.cpu_s = cpu_s
        if wait is not None:
            owner = self._requests.of_thread.get(wait.owner_ident)
            fields.update(stack_waits=wait.kind, stack_owner_tid=tids.get(wait.owner_ident, (None, ""))[0],
                          stack_owner_log_id=owner.log_id if owner is not None and owner is not request else None)
        fields.update(stack_values=values or None, stack_problem=stack.problem or None)
        if self._sender.send(REQUEST_STACK, known(fields)):
            watch.generation = self._sender.generation
        else:
            self._full(watch, before, now)

    def _full(self, watch, pause, now):
        """A stack that found the collector's queue full does not count: another one is taken soon."""
        if self._sender.connected:
            watch.taken, watch.pause, watch.due = watch.taken - 1, pause, now + FULL_S

    def _is_ignored(self, frame):
        function, file, _ = frame
        match = self._settings.ignore_functions.match
        return match(function) or match(f"{file}:{function}")

    @staticmethod
    def _shared(watch, stack):
        """How many frames of the pivot are shared; makes or shortens the pivot."""
        frames = stack.frames[:stack.cut_at] if stack.left_out else stack.frames
        if watch.pivot is None:
            watch.pivot, watch.generation = list(frames), -1
            return len(frames)
        depth = common(watch.pivot, frames)
        if depth < len(watch.pivot):
            del watch.pivot[depth:]
            watch.generation = -1       # told anew
        return depth

    def _values(self, frame):
        out, size, depth = [], 0, 0
        while frame is not None and size < VALUES_MOST:
            for name, text in self._tools.values(frame):
                part = "\0".join((str(depth), name.replace("\0", "?"), text.replace("\0", "?"), "")).encode("utf-8", "replace")
                if size + len(part) > VALUES_MOST:
                    return b"".join(out)
                out.append(part)
                size += len(part)
            frame, depth = frame.f_back, depth + 1
        return b"".join(out)

    def _tell(self, request, now):
        """Send the record of a request that goes on; whether a collector took it."""
        watch = request.watch
        if watch is not None:
            watch.told = now
        told = self._sender.send(LONG_REQUEST, known(record(request, now, self._settings)))
        if not told:
            self._journal.request(request, now, 0)
        return told

    def _close(self, request):
        """Whether its closing record is told, or written to the log; False when the collector's queue is full."""
        watch = request.watch
        if watch is not None:
            self._uncount(watch)
            if watch.ignored:
                return True
        elif is_ignored(request, self._settings):
            self.ignored += 1
            return True
        now = time.monotonic()
        if self._sender.offer(LONG_REQUEST, known(record(request, now, self._settings))):
            return True
        if now - request.ended < CLOSED_WITHIN_S and self._sender.connect():
            return False
        self._sender.lost += 1
        self._journal.request(request, now, 1)
        return True


def record(request, now, settings):
    """{field: value} of a request as long_request tells it; None for what is not known."""
    return {**slow_fields(request, now, settings.user_agents), "request_annotations": _annotations(request.annotations),
            "request_stacks": request.watch.taken if request.watch else 0, "request_exception": request.error}


def _annotations(annotations):
    parts = [f"{name}\0{text}\0".encode("utf-8", "replace") for name, text in list((annotations or {}).items())]
    while parts and sum(map(len, parts)) > ANNOTATIONS_BYTES:
        parts.pop()
    return b"".join(parts) or None


def known(fields):
    """{name: value} of those that are known, as wire.codec.encode takes them; texts are cut."""
    out = {}
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, str):
            value = value.encode("utf-8", "replace")[:TEXT_BYTES]
        out[name] = value
    return named(**out)
