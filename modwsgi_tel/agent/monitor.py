"""The one thread of an agent: it sleeps in poll() until the first deadline, a wake-up, or a question on the control socket.

It never polls for the sake of polling: where no part has a deadline it sleeps until somebody writes into its pipe.
"""
import _thread
import os
import select
import sys
import threading
import time

NEVER = float("inf")
LONGEST_S = 1e6                         # what is further away is as good as never: poll() counts milliseconds in an int
JOIN_S = 2.0                            # at the end of an interpreter; a thread that is left would be fatal there


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

    errors: called with an exception that a part raised.  each_turn(now): called first, whatever woke it.  `wakes_at`: until when it
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
        self._runs = lock()             # held while it runs, where it is no Thread
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def start(self):
        """Raises RuntimeError where no thread can be started."""
        if self.patched_by:
            self._runs.acquire()
            self._start(self._run_apart, ())
            return
        self._thread = threading.Thread(target=self._run, name="modwsgi-tel agent", daemon=True)
        self._thread.start()

    def wake(self):
        """Let it look for what is due now; from any thread."""
        self.wakes_at = 0.0
        try:
            os.write(self._in, b"x")
        except OSError:
            pass                        # it has ended, or the pipe is full: it will wake anyway

    def stop(self):
        """End the thread; it is joined, unless that is who calls."""
        self._stopping = True
        self.wake()
        if self._thread is None:
            self._runs.acquire(True, JOIN_S)
        elif self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def close(self):
        held, self._out, self._in = (self._out, self._in), -1, -1       # a number that is closed may soon be another file's
        for number in held:
            try:
                os.close(number)
            except OSError:
                pass

    def forked(self):
        """In the child of a fork: the pipe is the parent's."""
        self._thread = None
        self.close()

    def _run_apart(self):
        try:
            self._run()
        finally:
            self._runs.release()

    def _run(self):
        self.tid = threading.get_native_id()
        self._guarded(self._each_turn, time.monotonic())
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:
                self._errors(error)
                self._poll().poll(1000)     # whatever it is, it does not become a busy loop
        self.wakes_at = NEVER

    def _turn(self):
        self.wakes_at = NEVER           # from here on whoever has something earlier writes into the pipe
        waits = self._poll()
        waits.register(self._out, select.POLLIN)
        if self._control is not None:
            for number, events in self._control.descriptors().items():
                waits.register(number, events)
        deadline = self._deadline()
        self.wakes_at = deadline
        left_s = deadline - time.monotonic()
        ready = waits.poll(None if left_s > LONGEST_S else 0 if left_s <= 0 else int(left_s * 1000) + 1)
        self.wakes_at = 0.0
        self.wakeups += 1
        for number, events in ready:
            if number == self._out:
                try:
                    os.read(self._out, 4096)
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
        except Exception as error:
            self._errors(error)
            return None
