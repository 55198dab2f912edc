"""Short-lived helper processes: what may block is done there, never in the loop.

A helper is a fork that closes every descriptor it inherited before it does anything (a
telemetry socket that a child still holds would keep blocking the emitters after the
collector is dead), answers with one line of JSON on a pipe, and ends.
"""
import json
import math
import os
import signal

_LONGEST_ANSWER = 1 << 20
_REAP_S = 0.5
_ALONE_S = 1.0                          # after its time: who should have killed it is dead itself
_ENDING_MOST = 4                        # that SIGKILL has not ended yet: then no further one is started


def become_helper(keep):
    """In a fresh fork: drop the parent's descriptors but `keep`, its signal handling and its terminal's Ctrl-C."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        inherited = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        inherited = range(3, 4096)
    for descriptor in inherited:
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                pass                    # the listing's own


def _end_after(seconds):
    """In a fresh fork: have the kernel end it then, whatever it does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
    signal.alarm(math.ceil(seconds))


class Helper:
    """Runs one question at a time: `ask(work, argument, done)`.

    `done(answer)` gets what `work(argument)` returned, as JSON carries it, or None when the
    helper died or took longer than `limit_s` seconds and was killed.
    """

    def __init__(self, loop, limit_s=5.0):
        self._loop = loop
        self._limit_s = limit_s
        self._pid = None
        self._fd = None
        self._held = b""
        self._done = None
        self._turn = 0
        self._ending = []               # pids that were killed and are not reaped yet
        self._reaping = False
        self.started = self.failed = 0

    @property
    def busy(self):
        return self._pid is not None or len(self._ending) >= _ENDING_MOST

    def ask(self, work, argument, done):
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            self.failed += 1
            done(None)
            return
        if not pid:
            try:
                _end_after(self._limit_s + _ALONE_S)
                become_helper((writing,))
                answer = json.dumps(work(argument)).encode()
                while answer:
                    answer = answer[os.write(writing, answer):]
            finally:
                os._exit(0)             # whatever happened, never back into the parent's code
        os.close(writing)
        os.set_blocking(reading, False)
        self.started += 1
        self._turn += 1
        self._pid, self._fd, self._held, self._done = pid, reading, b"", done
        self._loop.readers[reading] = self._readable
        turn = self._turn
        self._loop.after(self._limit_s, lambda: self._late(turn))

    def _readable(self):
        try:
            got = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if got and len(self._held) < _LONGEST_ANSWER:
            self._held += got
            return
        self._finish()

    def _late(self, turn):
        if turn == self._turn and self._pid is not None:
            self._held = b""
            self._finish()

    def _finish(self):
        self.close()
        done, held = self._done, self._held
        self._done, self._held = None, b""
        try:
            answer = json.loads(held)
        except ValueError:
            self.failed += 1
            answer = None
        done(answer)

    def close(self):
        """End the helper that runs, if one does; its answer is lost."""
        if self._pid is None:
            return
        self._loop.readers.pop(self._fd, None)
        os.close(self._fd)
        try:
            os.kill(self._pid, signal.SIGKILL)      # it has answered, or has had its time
        except ProcessLookupError:
            pass
        self._ending.append(self._pid)
        self._pid = self._fd = None
        self._reap()

    def _reap(self, timer=False):
        """Collect those that have ended; never wait, since one that hangs in the kernel does not even obey SIGKILL."""
        if timer:
            self._reaping = False
        for pid in list(self._ending):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._ending.remove(pid)
        if self._ending and not self._reaping:
            self._reaping = True
            self._loop.after(_REAP_S, lambda: self._reap(timer=True))
