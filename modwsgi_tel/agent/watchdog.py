"""While C code holds the GIL no thread of Python runs, this agent's neither: then faulthandler writes the stacks to a file.

faulthandler.dump_traceback_later has a thread in C that needs no GIL.  It is armed while requests are in flight and pushed back
by the monitor; where the monitor cannot run, it fires.  The file is read by `modwsgi-tel stacks --agent` and by the collector
while the hold lasts, and by this agent afterwards, which sends it.

What is not covered.  The timer is the process's: of agents in several interpreters the last one to arm has it, until another
pushes; it writes the threads of the interpreter that armed it, at most 100, of each 100 frames.  Where the application itself
uses dump_traceback_later, this stands back, if it can see that: through the module's functions, from `install` on.  A fork by C
code that runs no hooks of Python's leaves a child that hangs at its end when the timer was armed: `before_fork` takes it away
for os.fork().  A process that was stopped (SIGSTOP) fires when it goes on.  Where the application has closed the file's descriptor,
that is seen when the timer is pushed back: whoever opens its number and holds the GIL before then finds a dump in his file.
"""
import fcntl
import os
import re
import stat
import sys
import time
from _thread import allocate_lock

from modwsgi_tel.agent.control import PREFIX
from modwsgi_tel.agent.frames import Stack
from modwsgi_tel.agent.monitor import close_own, identity
from modwsgi_tel.agent.threads import thread_stack, tids
from modwsgi_tel.stacks.model import Stacks

FORK_S = 1.0                            # arming takes some 25 us
ARM_S = 1.0                             # between two times of arming, which costs 25 to 40 us
FILE_BYTES = 1 << 20                    # read of a dump: faulthandler's own bounds make at most 100 threads of 100 frames
THREADS_MOST, FRAMES_MOST, TEXT_MOST = 128, 128, 600
STALE_S, _SWEPT_MOST = 60.0, 256
_NAMES = 4                              # tries to find a name that is free

_HEAD = re.compile(r"(Current t|T)hread (0x[0-9a-f]{1,16})(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File (?:"(.*)"|\?\?\?), line (\d{1,9}|\?\?\?) in (.*)')
_BEGIN = re.compile(r"Timeout \(.*\)!")


def parse(text):
    """[(ident, [(function, file, line or None)] innermost first, is_current, cut)] of the last dump that faulthandler wrote.

    cut: whether it left frames out.  Any text gives a list, of at most THREADS_MOST threads with FRAMES_MOST frames.
    Source: Python/traceback.c, _Py_DumpTracebackThreads, of 3.9 to 3.14: ASCII alone, texts of 500 letters.
    """
    lines = text.split("\n")
    begins = [place for place, line in enumerate(lines) if _BEGIN.fullmatch(line)]
    found = []
    for line in lines[begins[-1] + 1 if begins else 0:]:
        head = _HEAD.fullmatch(line)
        if head:
            if len(found) == THREADS_MOST:
                break
            found.append([int(head.group(2), 16), [], head.group(1) != "T", False])
            continue
        if not found:
            continue
        frame = _FRAME.fullmatch(line)
        if frame and len(found[-1][1]) < FRAMES_MOST:
            file, number, function = frame.groups()
            found[-1][1].append((function[:TEXT_MOST], (file or "???")[-TEXT_MOST:], int(number) if number[0] != "?" else None))
        elif frame or line == "  ...":
            found[-1][3] = True
    return [tuple(each) for each in found]


def stacks_of(text, at, known=None, requests=None):
    """The model.Stacks of a dump.  at: wall seconds when it was written.

    known: {ident: (tid, name)} of now, requests: {ident: requests.Request or Ended} of then, where these are known.
    """
    threads = []
    for ident, frames, _, cut in parse(text):
        # what it leaves out lies further out than all that it wrote
        stack = Stack(frames[::-1], 0, 0, f"cut: after the innermost {len(frames)} frames" if cut else "")
        tid, name = (known or {}).get(ident, (None, ""))
        request = (requests or {}).get(ident)
        threads.append(thread_stack(stack, None, name, request)._replace(tid=tid))
    return Stacks(os.getpid(), threads=tuple(threads), at=at)


_in_use = []                            # the Watchdog of this interpreter: hooks of a fork cannot be taken back


def _for_forks(watchdog):
    if not _in_use:
        os.register_at_fork(before=lambda: _in_use[0].before_fork(), after_in_parent=lambda: _in_use[0].after_fork(),
                            after_in_child=lambda: _in_use[0].after_fork())
    _in_use[:] = [watchdog]


class Watchdog:
    """Arms faulthandler's timer.  Every method raises nothing.

    folder: where its file is, "" for the folder of temporary files.  number: the agent's.  timeout: seconds that the GIL may be
    held; 0 switches it off.  requests: requests.Requests.  path: the file, "" where there is none; problem: what it does not do,
    and why, or "".  fired: dumps so far.  arm_at: monotonic seconds from when on `arm` does anything.
    """

    def __init__(self, folder, number, timeout, requests):
        self._requests = requests
        self.path = self.problem = ""
        self.fired = 0
        self._timeout = timeout
        self._file = self._identity = self._faulthandler = None
        self._armed = self._foreign = False
        self.arm_at = float("-inf")     # not before: read by who begins a request
        self._pid = os.getpid()
        self._own = {}                  # name -> (faulthandler's function, ours in its place)
        self._arms = allocate_lock()    # held while it is being armed, and over a fork; nobody who serves a request waits for it
        if timeout <= 0:
            return
        try:
            self._file, self.path, self.problem = _open(folder, f"{PREFIX}.{self._pid}.{number}")
            self._identity = identity(self._file)
            self._begin()
        except Exception as error:
            self._fail(error)

    def _begin(self):
        before = "faulthandler" in sys.modules
        import faulthandler
        self._faulthandler = faulthandler
        _for_forks(self)
        if before and _has_timer():
            self._foreign = True
            self._stand_back()
        for name, foreign in (("dump_traceback_later", True), ("cancel_dump_traceback_later", False)):
            original = getattr(faulthandler, name)
            self._own[name] = original, _noting(original, self, foreign)
            setattr(faulthandler, name, self._own[name][1])

    def _stand_back(self):
        self.problem = "no watchdog for the GIL: the application uses faulthandler.dump_traceback_later itself"

    def noted(self, foreign):
        """The application sets the process's timer, or cancels it."""
        if foreign:
            self._stand_back()
        elif self._foreign:
            self.problem = ""
        self._foreign, self._armed = foreign, False

    def _fail(self, error):
        self.problem = f"no watchdog for the GIL: {getattr(error, 'strerror', None) or type(error).__name__}"
        self.close()

    def _found(self):
        """os.stat_result of its file, or None where it has none: a number that is another file's by now is forgotten."""
        file = self._file
        if file is None:
            return None
        try:
            found = os.fstat(file)
            if (found.st_dev, found.st_ino) == self._identity:
                return found
        except OSError:
            pass
        self.problem = "no watchdog for the GIL: the application closed its file"
        self.close()
        self.path = ""
        return None

    # --- armed while requests are in flight ---------------------------------------------------

    def arm(self, now):
        """A request begins: whether the timer was armed, once a second at most, so that the monitor has to look after it."""
        if self._armed or now < self.arm_at or self._file is None or self._foreign:
            return False
        return self._arm(now)

    def _arm(self, now):
        if not self._arms.acquire(False):
            return False                # another thread is at it, or forks
        try:
            file = self._file           # another thread may close it; None would be stderr
            if self._found() is None or file is None:
                return False
            self._own["dump_traceback_later"][0](self._timeout, file=file)
            self.arm_at, self._armed = now + ARM_S, True
        except Exception as error:
            self._fail(error)
            return False
        finally:
            self._arms.release()
        return True

    def due(self, in_flight):
        """When it has to be pushed back, or taken away, or None; also when it has to be armed for a request that began too soon
        after the last one was.
        """
        return self.arm_at if self._armed or in_flight and self._file is not None and not self._foreign else None

    def run(self, now, in_flight):
        """In the monitor: pushed back while requests are in flight, else taken away, unless it has written something."""
        if not self._has_written():
            if not in_flight:
                self.cancel()
            elif self._file is not None and not self._foreign:
                self._arm(now)

    def _has_written(self):
        found = self._found()
        return found is not None and found.st_size > 0

    def cancel(self):
        """No request is in flight any more, or the process is about to fork."""
        if self._armed:
            self._armed = False
            try:
                self._own["cancel_dump_traceback_later"][0]()
            except Exception as error:
                self._fail(error)

    # --- what came of it ----------------------------------------------------------------------

    def picked(self):
        """The model.Stacks that was written since the last call, or None; the file is empty then."""
        try:
            if not self._has_written():
                return None
            self.cancel()               # waits for a dump that is just being written
            file, found = self._file, self._found()
            if found is None:
                return None
            text = os.pread(file, FILE_BYTES, 0).decode("ascii", "replace")
            if self._found() is None:
                return None
            os.ftruncate(file, 0)
        except Exception as error:
            self._fail(error)
            return None
        stacks = stacks_of(text, found.st_mtime, tids(self._requests), self._requests.at(found.st_mtime))
        if not stacks.threads:
            return None
        self.fired += 1
        return stacks

    # --- fork, and the end --------------------------------------------------------------------

    def before_fork(self):
        """A child of an armed parent waits, at its end, for a thread that it does not have."""
        self._arms.acquire(timeout=FORK_S)
        self.cancel()
        self.arm_at = float("-inf")     # the next request arms it again

    def after_fork(self):
        """In both."""
        self._arms = allocate_lock()

    def forked(self):
        """In the child of a fork.  The file is the parent's: it is neither written nor removed here."""
        self._pid = -1
        self._armed = False
        self.close()

    def close(self):
        """At the end of the process or of the interpreter: the timer is taken away, and the file."""
        self.cancel()
        for name, (original, ours) in self._own.items():
            if getattr(self._faulthandler, name, None) is ours:
                setattr(self._faulthandler, name, original)
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._pid == os.getpid() and self.path:
                there = os.lstat(self.path)
                if (there.st_dev, there.st_ino) == self._identity:
                    os.unlink(self.path)
        except OSError:
            pass                        # somebody has removed it
        close_own(file, self._identity)


_ALL = (1 << 64) - 1 & ~(1 << 8 | 1 << 18)      # signals that can be blocked: all but SIGKILL and SIGSTOP
_GLIBCS = 1 << 31 | 1 << 32                     # those that glibc keeps for itself, blocked or not


def _noting(original, watchdog, foreign):
    """faulthandler's own function, but that the watchdog hears of it."""
    def noted(*positional, **named):
        watchdog.noted(foreign)
        return original(*positional, **named)
    noted.__name__, noted.__doc__ = original.__name__, original.__doc__
    return noted


def _has_timer():
    """Whether somebody's timer may be running: its thread alone has every signal blocked.  (uWSGI's own have too.)"""
    if "uwsgi" in sys.modules:
        return False
    for tid in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{tid}/status", "rb") as status:
                blocked = next((line for line in status if line.startswith(b"SigBlk:")), b"")
        except OSError:
            continue
        if blocked and int(blocked.split()[1], 16) | _GLIBCS == _ALL:
            return True
    return False


# --- the file -----------------------------------------------------------------------------------

def folders(folder=""):
    """Where the file may be, the best place first."""
    return [folder] if folder else list(dict.fromkeys((*filter(None, (os.environ.get("TMPDIR"),)), "/tmp", "/var/tmp")))


def _open(folder, name):
    """(descriptor, path, problem): a file of this process alone; where no folder can be written, one without a path."""
    error = None
    for each in folders(folder):
        try:
            return _open_in(each, name)
        except OSError as problem:
            error = error or problem
    said = f"the watchdog's file has no folder ({error.strerror}): only root reads it while the GIL is held"
    return os.memfd_create(name + ".dump"), "", said


def _open_in(folder, name):
    """As _open.  The group may read it: in it are files, functions and lines, never values; a collector may have that group."""
    problem = ""
    for _ in range(_NAMES):
        path = os.path.join(folder, name + ".dump")
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            if not _removed(path):
                name = f"{name}.{os.urandom(4).hex()}"
                problem = f"{path} is another's: the watchdog's file has another name"
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(file, 0o640)
            os.fchown(file, -1, os.getegid())
        except OSError:
            pass                        # of another group than this process's: then for its user alone
        _sweep(folder)
        return file, path, problem
    raise FileExistsError(17, "no name is free")


def _sweep(folder):
    """Remove what processes left there that were killed: a few each time, none that is young and may not be locked yet."""
    try:
        left = [name for name in os.listdir(folder) if name.startswith(PREFIX + ".") and name.endswith(".dump")][:_SWEPT_MOST]
        for path in (os.path.join(folder, name) for name in left):
            if time.time() - os.lstat(path).st_mtime > STALE_S:
                _removed(path)
    except OSError:
        pass                            # another process sweeps too


def _removed(path):
    """Whether a stale file of a former process with this pid was removed: one of the same user, that nobody has locked.

    In another container a process may have the same pid, and its file in the same folder.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return True
    except OSError:
        return False
    finally:
        os.close(file)
