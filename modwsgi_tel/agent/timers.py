"""Times of the application's own operations: `with agent.timer("db.query")` and `@agent.timed`.

The time from entering to leaving, waits included.  What happens in the application's thread is one object a use, two looks at the
clock, and an append to a deque, which no lock is needed for and no operation is lost by; every FOLDED uses it is added up.
"""
import itertools
from bisect import bisect_right
from collections import deque
from contextvars import ContextVar
from functools import wraps
from time import perf_counter
from types import FunctionType

from modwsgi_tel.wire.buckets import BUCKETS, UPPER_S
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import OPERATION_TIMER

NAMES_MOST, NAME_MOST = 100, 200        # bytes of a name
FOLDED, SUMS_MOST = 128, 4
A_TIME_MOST, PAUSE_S = 20, 0.1          # more datagrams at once than a socket's queue takes would be lost
INTERVAL_S = 1.0
_COUNT_MOST = 2 ** 31 - 1
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80 | 0x100, 0x200      # of co_flags


class _Sum:
    """Operations added up."""

    __slots__ = ("count", "seconds", "longest", "errors", "buckets")

    def __init__(self):
        self.count, self.seconds, self.longest, self.errors, self.buckets = 0, 0.0, 0.0, 0, [0] * BUCKETS

    def add_all(self, spans):
        """spans: seconds, those below 0 of operations that an exception ended."""
        if not spans:
            return
        if min(spans) < 0:
            self.errors += sum(each < 0 for each in spans)
            spans = list(map(abs, spans))
        longest = max(spans)
        self.count += len(spans)
        self.seconds += sum(spans)
        self.longest = max(self.longest, longest)
        if longest < UPPER_S[0]:
            self.buckets[0] += len(spans)
        else:
            for each in spans:
                self.buckets[bisect_right(UPPER_S, each)] += 1

    def add(self, other):
        self.count += other.count
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.errors += other.errors
        self.buckets = [one + more for one, more in zip(self.buckets, other.buckets)]


def _taken(held):
    """All that is in a deque: each item is taken by one thread alone."""
    out, take = [], held.popleft
    try:
        for _ in range(len(held)):
            out.append(take())
    except IndexError:                  # another thread was faster
        pass
    return out


class _Timer:
    """One name.

    pending: spans that are not added up yet.  sums: _Sums that the monitor has not taken.  room: how many pending ones there may
    be; 0 while the monitor does not expect any, so that the next one wakes it.  starts: where an object is entered more than once.
    total, told: the monitor's.
    """

    __slots__ = ("name", "use", "pending", "append", "sums", "room", "reused", "starts", "total", "told", "_timers")

    def __init__(self, timers, name, room):
        self.name, self._timers, self.room = name, timers, room
        self.pending, self.sums = deque(), deque()
        self.append = self.pending.append
        self.reused, self.starts = False, ContextVar("modwsgi_tel.timer", default=None)
        self.total, self.told = _Sum(), 0
        self.use = type("timer", (_Use,), {"__slots__": (), "timer": self})

    def full(self):
        if not self.room:
            self.room = FOLDED
            self._timers.changed()
        if len(self.pending) >= self.room:
            found = _Sum()
            found.add_all(_taken(self.pending))
            self.sums.append(found)
        if len(self.sums) > SUMS_MOST:
            found = _Sum()
            for each in _taken(self.sums):
                found.add(each)
            self.sums.append(found)

    def collect(self):
        """The count of all; in the monitor's thread alone, so that it never falls."""
        for each in _taken(self.sums):
            self.total.add(each)
        self.total.add_all(_taken(self.pending))
        return self.total.count

    def forget(self):
        self.pending.clear()
        self.sums.clear()
        self.total, self.told, self.room = _Sum(), 0, FOLDED


class _Use(itertools.count):
    """A context manager; each name has a subclass with its `timer`.

    One is made for each `with`, so that generators and coroutines which take turns do not mix up their starts.  One that is kept and
    entered again, by other threads too, has its further starts in a context variable: each thread and task has its own of these.
    (A count, since to take the next number of one is the cheapest step that no two threads do at once.)
    """

    __slots__ = ("began",)

    def __enter__(self, _clock=perf_counter):
        if next(self):
            timer = self.timer
            timer.reused = True
            timer.starts.set((self, _clock(), timer.starts.get()))
        else:
            self.began = _clock()
        return self

    def __exit__(self, kind, value, traceback, _clock=perf_counter):
        try:
            now, timer = _clock(), self.timer
            if timer.reused:
                top = timer.starts.get()
                if top is not None and top[0] is self:
                    timer.starts.set(top[2])
                    took = now - top[1]
                else:
                    took = now - self.began
            else:
                took = now - self.began
            # GeneratorExit, a cancelled task and the end of the process are ways to stop it, and no errors
            timer.append(took if kind is None or not issubclass(kind, Exception) else -took or -1e-9)
            if len(timer.pending) > timer.room:
                timer.full()
        except Exception:
            Timers.errors += 1


class Timers:
    """All timers of this interpreter.  They count from the start on; `attach` makes them reported."""

    errors = 0                          # of our own

    def __init__(self):
        self._timers = {}               # name -> _Timer
        self._uses = {}                 # what `timer` was given -> class of its uses
        self._lost = _Timer(self, "", FOLDED)   # under names beyond NAMES_MOST
        self._send = self._wake = None
        self._interval = INTERVAL_S
        self._armed, self._next = True, 0.0     # not armed: the next operation wakes the monitor

    def timer(self, name):
        """A context manager that times what is done inside of it, as an operation of that name.

        Nested, recursive, in generators and in coroutines each use counts by itself.  Make one for each `with`, as in
        `with agent.timer("db.query"):`; one that is kept may be entered again as well, but not by generators that take turns.
        """
        try:
            return self._uses[name]()
        except Exception:               # a new name, or something that is none
            return self._use(name)()

    def timed(self, given=None):
        """Decorator: @timed, or @timed("name"); without a name it is the function's module and qualified name.

        Of a coroutine function the time until it is done, waits included; of a generator function, plain or asynchronous, from its
        first step to its end, the time that its consumer takes included.  What is not a function made by def or lambda, or a static
        or class method of one, is left as it is: what such an object can do besides being called would be lost.
        """
        if given is None or isinstance(given, str):
            return lambda function: self._timed(function, given)
        return self._timed(given, None)

    # --- in the application's threads -------------------------------------------------------------

    def _use(self, name):
        """The class of a name's uses."""
        if not isinstance(name, str):
            return self._lost.use
        name = str.__str__(name)
        found = self._timers.get(name)
        if found is None:
            if len(self._timers) >= NAMES_MOST:
                return self._lost.use
            found = self._timers.setdefault(name, _Timer(self, name, 0 if self._send is not None else FOLDED))
        self._uses[name] = found.use
        return found.use

    def _timed(self, function, name):
        if type(function) in (staticmethod, classmethod):
            return type(function)(self._timed(function.__func__, name))
        if type(function) is not FunctionType:
            return function
        use = self._use(name or f"{function.__module__}.{function.__qualname__}")
        flags = function.__code__.co_flags
        if flags & _ASYNC_GENERATOR:
            @wraps(function)
            async def timed(*args, **more):
                with use():
                    inner = function(*args, **more)
                    try:
                        value = await inner.asend(None)
                        while True:
                            try:
                                sent = yield value
                            except GeneratorExit:
                                await inner.aclose()
                                raise
                            except BaseException as error:
                                value = await inner.athrow(error)
                            else:
                                value = await inner.asend(sent)
                    except StopAsyncIteration:
                        return
        elif flags & _GENERATOR:
            @wraps(function)
            def timed(*args, **more):
                with use():
                    return (yield from function(*args, **more))
        elif flags & _COROUTINE:
            @wraps(function)
            async def timed(*args, **more):
                with use():
                    return await function(*args, **more)
        else:
            @wraps(function)
            def timed(*args, **more):
                with use():
                    return function(*args, **more)
        return timed

    def changed(self):
        """The first operation since nothing was left to tell: the monitor is woken, once."""
        if not self._armed:
            self._armed = True
            wake = self._wake
            if wake is not None:
                wake()

    # --- in the monitor's thread ------------------------------------------------------------------

    def attach(self, send, wake, interval_s=INTERVAL_S):
        """Report from now on; wake(): called by any thread, lets the monitor look for what is due."""
        self._wake, self._interval = wake, interval_s
        self._send = send
        self._armed, self._next = True, 0.0

    def forked(self):
        """In the child of a fork: what the parent counted is told by the parent."""
        self._send = self._wake = None
        self._armed, self._next = True, 0.0
        for timer in [*self._timers.values(), self._lost]:
            timer.forget()

    def again(self):
        """A collector has come: it is to know all."""
        for timer in list(self._timers.values()):
            timer.told = 0
        self._armed, self._next = True, 0.0

    def due(self):
        return self._next if self._armed and self._send is not None else None

    def run(self, now):
        """Send what has changed.

        While operations go on it asks to run again each interval.  When nothing has changed since the last time, or nobody takes it,
        it asks no more until the next operation.
        """
        timers = list(self._timers.values())
        lost = self._lost.collect()
        changed = [timer for timer in timers if timer.collect() != timer.told]
        if lost != self._lost.told and not changed:
            changed = timers[:1]
        taken = bool(changed)
        for timer in changed[:A_TIME_MOST]:
            if not self._tell(timer, lost):
                taken = False
                break
            timer.told, self._lost.told = timer.total.count, lost
        self._next = now + (PAUSE_S if taken and len(changed) > A_TIME_MOST else self._interval)
        if not taken:
            self._armed = False
            for timer in [*timers, self._lost]:
                timer.room = 0
                if timer.pending:       # came in between, and has woken nobody
                    self._armed = True

    def _tell(self, timer, lost):
        total = timer.total
        return self._send(OPERATION_TIMER, named(
            timer_name=timer.name.encode("utf-8", "replace")[:NAME_MOST], timer_count=total.count, timer_seconds=total.seconds,
            timer_max=total.longest, timer_buckets=[min(each, _COUNT_MOST) for each in total.buckets], timer_errors=total.errors,
            timer_names_lost=lost))
