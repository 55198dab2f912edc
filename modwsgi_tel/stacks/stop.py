"""Stops one thread of another process for as long as its stack is read, and lets it go: for `--stop` alone.

The one thing here that touches the process that is read, and the one that needs ctypes: Python knows no ptrace().
"""
import contextlib
import os
import signal
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.printable import printable

# linux/ptrace.h and linux/wait.h; the same on x86-64 and aarch64
DETACH, SEIZE, INTERRUPT = 17, 0x4206, 0x4207
EVENT_STOP = 128
WALL = 0x40000000
CAP_SYS_PTRACE = 19

# a Ctrl-C between two of the calls below would leave a thread standing
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PATIENCE_S = 0.05                       # a thread in an uninterruptible wait does not stop, for hours if need be
PAUSES_S = (0, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3)


class Stopper:
    """Stops threads of one process, one at a time.

        with Stopper(pid) as stopper:
            with stopper.stopped(tid) as held:      # held: whether it does stand still
                ...

    pid and tids are those of the caller's pid namespace.  All calls must come from one thread of the caller: ptrace counts
    a thread as the tracer, not a process.  Nobody else in the caller may wait for just any child meanwhile.

    A thread that was stopped goes on as if nothing had been: a signal that was about to reach it does so, and one that
    SIGSTOP had stopped stays so.  Only that a system call it waits in may return EINTR: so stop those that hold a GIL.
    When the caller dies, by whatever, the kernel lets go of all.

    A thread that does not stop within PATIENCE_S (it is in an uninterruptible wait: a disk, NFS) is given up.  It will
    stop when that wait ends, and stand until the next call here, or the end of the caller: look regularly, or close.
    Raises TelError where stopping is not possible at all.
    """

    def __init__(self, pid):
        if pid == os.getpid():
            raise TelError(f"cannot stop pid {pid}: it is this process; leave out --stop")
        try:
            import ctypes
            call = ctypes.CDLL(None, use_errno=True).ptrace
        except (ImportError, OSError, AttributeError) as error:
            raise TelError(f"--stop needs ctypes, which this Python cannot load ({error}): use another Python, "
                           "or leave out --stop") from None
        call.restype = ctypes.c_long
        call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self._call, self._errno = call, ctypes.get_errno
        self._pid = pid
        self._held = {}                 # tid: the signal to pass on when it is let go (0: none); None: it does not stand yet
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())       # the caller's own
        self._masked = False
        self.missed = 0                 # how often one was to stand still and did not

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @contextlib.contextmanager
    def stopped(self, tid):
        """`tid` stands still inside; True when it does.  None, for one that is not known, never does."""
        try:
            held = self.stop(tid)
            self.missed += not held
            yield held
        finally:
            self.release(tid)

    def stop(self, tid):
        """Whether the thread stands still now: False when it has ended, is not of this process, or does not stop in time.

        While it stands, ENDING signals to the caller wait for `release`.
        """
        self.tend()
        # what a process's memory says of its threads may be another's
        if self._held or not os.path.exists(f"/proc/{self._pid}/task/{tid}"):
            return False
        try:
            self._masked = True         # before it is: the call itself may raise what is pending
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            problem = self._seize(tid)
            if problem is None:
                self._held[tid] = None
                self._ptrace(INTERRUPT, tid)
                self._await(tid)
            elif not isinstance(problem, ProcessLookupError):
                raise TelError(_refused(self._pid, tid, problem))
        finally:
            self._unmask()
        return self._held.get(tid) is not None

    def release(self, tid):
        """Let a thread go on; nothing where it is not held."""
        if self._held.get(tid) is not None:
            if self._ptrace(DETACH, tid, self._held[tid]) is None:
                del self._held[tid]
            else:
                # killed while it stood still: it stays a zombie, and its process with it, until this has seen its end
                self._held[tid] = None
                self._await(tid)
            self._unmask()

    def tend(self):
        """Let all go that stand, as those do that stopped only after they were given up."""
        for tid in list(self._held):
            if self._held[tid] is None:
                self._look(tid)
            self.release(tid)

    def close(self):
        """Let all go."""
        self.tend()
        for tid in [*self._held, self._pid]:        # the last one in case of an exec() meanwhile
            if tid in self._held:
                self._await(tid)
                self.release(tid)

    def _seize(self, tid):
        """None, or the OSError; ProcessLookupError for a thread that has ended."""
        for pause_s in (PAUSES_S[-1], 0):
            problem = self._ptrace(SEIZE, tid)
            if not isinstance(problem, PermissionError):
                return problem
            # so the kernel answers for a thread that has ended, too: a first one whose process lives on, or is in an exec()
            status = _status(f"/proc/{self._pid}/task/{tid}/status")
            if status.get("State", "X")[0] in "ZX":
                return ProcessLookupError()
            time.sleep(pause_s)
        return problem

    def _unmask(self):
        """Signals that end the caller reach it again, unless a thread stands still."""
        if self._masked and all(number is None for number in self._held.values()):
            self._masked = False
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _await(self, tid):
        """Wait until the thread stands, or is gone, for at most PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        turn = 0
        while True:
            self._look(tid)
            if self._held.get(tid, 0) is not None or time.monotonic() > deadline:
                return
            time.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
            turn += 1

    def _look(self, tid):
        """Note what the kernel has to say of a thread, if anything."""
        try:
            found, status = os.waitpid(tid, WALL | os.WNOHANG)
        except ChildProcessError:
            # an exec(): the thread has ended, or it is the one that called, and has its process's id now
            self._held.pop(tid, None)
            if tid != self._pid and self._ptrace(INTERRUPT, self._pid) is None:
                self._held[self._pid] = None
                self._look(self._pid)
            return
        if found and os.WIFSTOPPED(status):
            # either it stops because it was told to, or a signal came first: that one has to be passed on
            self._held[tid] = 0 if status >> 16 == EVENT_STOP else os.WSTOPSIG(status)
        elif found:
            self._held.pop(tid, None)

    def _ptrace(self, request, tid, data=0):
        """None, or the OSError."""
        if self._call(request, tid, None, data) == -1:
            number = self._errno()
            return OSError(number, os.strerror(number))
        return None


def _refused(pid, tid, error):
    """Why the kernel does not let this process trace a thread, and what to do about it."""
    tracer = int(_status(f"/proc/{pid}/task/{tid}/status").get("TracerPid", "0"))
    if tracer:
        return (f"cannot stop thread {tid} of pid {pid}: {_name(tracer)} (pid {tracer}) traces it, and one alone can: "
                "end that, or leave out --stop")
    what = f"cannot stop thread {tid} of pid {pid} ({error.strerror})"
    scope = _yama()
    if scope == 3:
        return f"{what}: kernel.yama.ptrace_scope is 3, which forbids it to all until the next boot: leave out --stop"
    own = _status("/proc/self/status")
    if not int(own.get("CapEff", "0"), 16) >> CAP_SYS_PTRACE & 1:
        yama = f" (kernel.yama.ptrace_scope is {scope})" if scope else ""
        return f"{what}: run as root, or grant CAP_SYS_PTRACE{yama}, or leave out --stop"
    if own.get("Seccomp", "0") != "0":
        return (f"{what}: a seccomp filter forbids ptrace here: run it outside of the container, or start that with "
                "--cap-add SYS_PTRACE, or leave out --stop")
    return f"{what}: a security module forbids ptrace here: run it outside of the container, or leave out --stop"


def _status(path):
    """{field: value} of a status file of /proc; {} where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in handle)}
    except OSError:
        return {}


def _name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return printable(handle.read().rstrip("\n"))
    except OSError:
        return "a process"


def _yama():
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as handle:
            return int(handle.read())
    except (OSError, ValueError):
        return 0
