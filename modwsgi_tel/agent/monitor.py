"""The one thread of an agent: it sleeps in poll() until the first deadline, a wake-up, or a question on the control socket.

It never polls for the sake of polling: where no part has a deadline it sleeps until somebody writes into its pipe.

An application may close descriptors that it does not know of (os.closerange, as daemons do), and then the numbers are those of its own
files.  Whoever holds one across calls remembers its `identity`, looks at that before each use, and forgets a number that is another's.
"""
import _thread
import os
import select
import sys
import threading
import time

NEVER = float("inf")
LONGEST_S = 1e6                         # what is further away is as good as never: poll() counts milliseconds in an int
SHORTEST_MS = 10                        # between two turns of which nothing but time is the cause: a clock may stand still
FAILED_MS = 1000                        # after a failure, whatever it is: it does not become a busy loop
JOIN_S = 2.0                            # at the end of an interpreter; a thread that is left would be fatal there


def identity(number):
    """What an open descriptor stands for: (st_dev, st_ino); None where the number is nobody's."""
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def close_own(number, remembered):
    """Close a descriptor, unless its number is another file's by now."""
    if identity(number) == remembered:
        os.close(number)


def originals():
    """(start_new_thread, allocate_lock, poll, name): as they were before gevent or eventlet (name) replaced them, if one did."""
    for name in ("gevent", "eventlet"):
        patcher = sys.modules.get(f"{name}.monkey" if name == "gevent" else "eventlet.patcher")
        if patcher is None:
            continue
        try:
            if name == "gevent" and patcher.is_module_patched("_thread"):
                start, lock = patcher.get_original("_thread", ("start_new_thread", "allocate_lock"))
                return start, lock, patcher.get_original("select", "poll"), name
            if name == "eventlet" and patcher.is_monkey_patched("thread"):
                thread = patcher.original("_thread")
                return thread.start_new_thread, thread.allocate_lock, patcher.original("select").poll, name
        except Exception:               # another version of it: then as if it were not there
            continue
    return _thread.start_new_thread, _thread.allocate_lock, select.poll, ""


class Monitor:
    """Runs `parts` (due() -> monotonic seconds or None; run(now)) and `control` (descriptors(), ready(fd, events)).

    errors: called with whatever a part raised, SystemExit too.  each_turn(now): called first, whatever woke it.  `wakes_at`: until when it
    sleeps (monotonic seconds); a thread that has something earlier calls `wake`.
    """

    def __init__(self, parts, control, errors, each_turn):
        self._parts, self._control, self._errors, self._each_turn = parts, control, errors, each_turn
        self.wakes_at = 0.0
        self.wakeups = 0
        self.tid = None
        self._start, lock, self._poll, self.patched_by = originals()
        self._stopping = False
        self._thread = None
        self._lock = lock
        self._runs = lock()             # held while it runs, where it is no Thread
        self._least_ms = 0              # to wait in this turn, unless something can be read
        self._pipe = _pipe()

    @property
    def alive(self):
        """Whether its thread runs: False before `start`, and after it has ended for whatever reason."""
        return self._runs.locked() if self._thread is None else self._thread.is_alive()

    def start(self):
        """Raises RuntimeError where no thread can be started."""
        from modwsgi_tel.agent.threads import interpreter_id            # which needs this module
        if self.patched_by or not interpreter_id():
            # no Thread: these run what an application gave to threading.setprofile and settrace, which may raise, or take long
            self._runs.acquire()
            try:
                self._start(self._run_apart, ())
            except BaseException:
                self._runs.release()
                raise
            return
        # a further interpreter is only safe to end when the thread's state has gone, which join() alone makes sure
        thread = threading.Thread(target=self._run, name="modwsgi-tel agent", daemon=True)
        thread.start()
        self._thread = thread

    def wake(self):
        """Let it look for what is due now; from any thread."""
        self.wakes_at = 0.0
        _, number, held = self._pipe
        try:
            if identity(number) == held:
                os.write(number, b"x")
        except OSError:
            pass                        # it has ended, or the pipe is full: it will wake anyway

    def stop(self):
        """End the thread; it is joined, unless that is who calls."""
        self._stopping = True
        self.wake()
        if self.tid == threading.get_native_id():
            return
        if self._thread is not None:
            self._thread.join(JOIN_S)
        elif self._runs.acquire(True, JOIN_S):
            self._runs.release()

    def close(self):
        (*numbers, held), self._pipe = self._pipe, (-1, -1, ())
        for number in numbers:
            close_own(number, held)

    def forked(self):
        """In the child of a fork: the thread and the pipe are the parent's."""
        self._thread, self._runs, self.tid = None, self._lock(), None
        self.close()

    def _run_apart(self):
        try:
            self._run()
        finally:
            self._runs.release()

    def _run(self):
        try:
            self.tid = threading.get_native_id()
            self._guarded(self._each_turn, time.monotonic())
            while not self._stopping:
                try:
                    self._turn()
                except BaseException as error:      # SystemExit too: nobody else would learn that it has ended
                    self._failed(error)
                    self._poll().poll(FAILED_MS)
        finally:
            self.wakes_at = NEVER

    def _turn(self):
        self.wakes_at = NEVER           # from here on whoever has something earlier writes into the pipe
        out, number, held = self._pipe
        if not identity(out) == identity(number) == held:
            self.close()                # who has waked meanwhile wrote nothing: the deadline is looked for after this
            self._pipe = out, _, held = _pipe()
        waits = self._poll()
        waits.register(out, select.POLLIN)
        if self._control is not None:
            for number, events in self._control.descriptors().items():
                waits.register(number, events)
        deadline = self._deadline()
        self.wakes_at = deadline
        left_s = deadline - time.monotonic()
        wait_ms = 0 if left_s <= 0 else int(left_s * 1000) + 1 if left_s <= LONGEST_S else None
        ready = waits.poll(wait_ms if wait_ms is None else max(wait_ms, self._least_ms))
        self._least_ms = 0 if ready else SHORTEST_MS
        self.wakes_at = 0.0
        self.wakeups += 1
        for number, events in ready:
            if number == out:
                try:
                    if identity(out) == held:
                        os.read(out, 4096)
                except BlockingIOError:
                    pass
            elif self._control is not None:
                self._control.ready(number, events)
        if self._stopping:
            return
        now = time.monotonic()
        self._guarded(self._each_turn, now)
        for part in self._parts:
            when = self._guarded(part.due)
            if when is not None and when <= now:
                self._guarded(part.run, now)

    def _deadline(self):
        first = NEVER
        for part in self._parts:
            when = self._guarded(part.due)
            if when is not None and when < first:
                first = when
        return first

    def _guarded(self, work, *arguments):
        """What it returns; an exception of one part does not stop the others."""
        try:
            return work(*arguments)
        except BaseException as error:
            self._failed(error)
            return None

    def _failed(self, error):
        try:
            self._errors(error)
        except BaseException:
            pass                        # it cannot even be counted


def _pipe():
    """(to read, to write, the identity that both have)"""
    out, number = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return out, number, identity(out)
