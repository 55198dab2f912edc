"""sample: runs a script unchanged, while a thread writes where it is, with its variables, to a log; at the end where the time was.

Also `python -m modwsgi_tel.sampler script.py`.  The script has a `__main__`, an import path, streams, signals, a way to end
and an exit status of its own, as if Python had been given it.  For that:

- The thread is one of `_thread`'s: threading does not count it, gevent cannot patch it.  All signals are blocked in it.
- It ends before a fork and begins again after it: a child is like one of a script with no other threads, and is not sampled.
- All that is needed is imported before the script is: then our modules leave sys.modules, and so do those of the standard
  library that a file beside the script has the name of.
- What a script raises is handed to sys.excepthook without our frames.
"""
import _thread
import atexit
import errno
import fcntl
import os
import re
import runpy
import signal
import stat
import sys
import time
import warnings
import zipimport
from collections import namedtuple
from importlib.machinery import SourceFileLoader
from types import ModuleType

from modwsgi_tel.agent.values import frame_values
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.figures import counted, duration
from modwsgi_tel.options import BY_COMMAND, PROGRAM, command_help, of_script, read
from modwsgi_tel.printable import printable, show
from modwsgi_tel.proc.threads import cpu_ticks
from modwsgi_tel.profile.samples import Profile, short
from modwsgi_tel.profile.tree import tree
from modwsgi_tel.stacks.compare import folded, idle
from modwsgi_tel.stacks.model import WAITING, Frame, Stacks, ThreadStack
from modwsgi_tel.stacks.sources import Sources

MARK = b"# modwsgi-tel sample: "        # how each log begins: what begins otherwise is left alone
FRAMES_MOST = 2000                      # of one stack, the innermost
VALUES_MOST = 100                       # frames of one stack whose variables are shown
THREADS_MOST = 200                      # of one sample
SAMPLE_MOST = 1 << 20                   # letters of one sample in the log, and a quarter of the log at most
LINES_KEPT = 10000                      # source lines kept
NODES_MOST = 20000                      # places in stacks that the digest tells apart
GAPS_KEPT = 5
GAP_S = 0.5                             # so much late the thread was kept from running
REST = 9                                # times the CPU time of a sample: until the next one, at least
TREE_MOST, TREE_SHORT = 200, 12         # lines of the digest: in the log, and on stderr
TREE_LEAST, TREE_LEAST_SHORT = 0.005, 0.05              # the share below which a function is left out
BUSY = 0.05                             # CPU seconds a second, from which on a thread is not idle
_LOG_FD = 200                           # the script gets the numbers of descriptors that it would get without us
_PAUSE_S = 2.0                          # for the thread to end, before a fork and at the end
_TICK = os.sysconf("SC_CLK_TCK")
_FOLDS = "\u2026"

Script = namedtuple("Script", "name path kind source arguments")
Script.__doc__ = """What is to run.  name: for people.  path: as it was given, or a module's name.  kind: MODULE, FOLDER (or an archive, with
a __main__ in it) or FILE, whose bytes are `source`."""
MODULE, FOLDER, FILE = "module", "folder", "file"

_sleep, _monotonic = time.sleep, time.monotonic         # gevent may patch the module


def main(argv=None):
    """The command.  Returns the exit status; or ends as the script does: with what it raises."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if {"--help", "-h"} & set(of_script(argv)[0]):
            show(command_help("sample"))
            return 0
        values = read("sample", argv)
        script = found(values)
        log = Log(*_place(values.log, script), values.log_size)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # what Python flushes at the exit
        return 141
    except TelError as error:
        _say(error)
        return error.exit_status
    sampler = Sampler(log, script.name, values.interval)
    _say(f"sampling {script.name} every {duration(values.interval)} into {log.path}")
    return run(script, sampler)


def _say(line):
    try:
        sys.stderr.write(f"{PROGRAM}: {printable(str(line))}\n")
    except (OSError, AttributeError):
        pass                            # nobody reads, or it is closed


# --- which script ---------------------------------------------------------------------------------

def found(values):
    """The Script that the command line names.  Raises TelError."""
    if values.module:
        return Script(f"-m {values.module}", values.module, MODULE, None, values.arguments)
    if not values.arguments or values.arguments[0] == "-":
        raise UsageError(f"sample: which script? see {PROGRAM} sample --help")
    path, *arguments = values.arguments
    name = os.path.basename(path.rstrip("/")) or path
    if path in BY_COMMAND and not os.path.lexists(path):
        raise UsageError(f"sample: runs a script, not {PROGRAM} {path}")
    try:
        if os.path.isdir(path):
            if not os.path.exists(os.path.join(path, "__main__.py")):
                raise TelError(f"sample: {path}: is a folder without a __main__.py")
            return Script(name, path, FOLDER, None, arguments)
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise TelError(f"sample: {path}: {error.strerror}") from None
    if b"PK\5\6" in source[-65557:]:
        try:
            zipimport.zipimporter(path)
            return Script(name, path, FOLDER, None, arguments)
        except zipimport.ZipImportError:
            pass
    return Script(name, path, FILE, source, arguments)


# --- running it, as Python would --------------------------------------------------------------------

def run(script, sampler):
    """Run a Script to its end; its exit status, or what Python makes one of: SystemExit, KeyboardInterrupt."""
    folder, folders = _import_path(script)
    _step_aside(folder)
    sys.path[:] = folders
    sys.argv[:] = [{MODULE: "-m"}.get(script.kind, script.path), *script.arguments]
    sys.modules["__main__"] = _main_module()
    if script.kind == MODULE:
        def start():
            runpy._run_module_as_main(script.path)
    elif script.kind == FOLDER:
        def start():
            runpy._run_module_as_main("__main__", alter_argv=False)
    else:
        start = _file(script)
    atexit.register(sampler.finish)     # before the script registers any: it is the last to run
    sampler.start()
    try:
        start()
        return 0
    except SystemExit:
        raise
    except BaseException as error:
        raised = error
    return _uncaught(raised)            # here nothing is being handled any more: a hook may look


def _file(script):
    """What runs a file: as __main__, with the attributes that Python gives it."""
    file = _absolute(script.path)
    space = sys.modules["__main__"].__dict__
    space["__file__"] = file
    space["__loader__"] = SourceFileLoader("__main__", file)
    if sys.version_info < (3, 15):
        space["__cached__"] = None

    def start():
        exec(compile(script.source, file, "exec", dont_inherit=True), space)
    return start


def _main_module():
    module = ModuleType("__main__")
    module.__builtins__ = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    return module


def _absolute(path):
    """As Python makes it of a script's path."""
    return path if path.startswith("/") else f"{_cwd()}/{path}"


def _cwd():
    try:
        return os.getcwd()
    except OSError:
        return "."


def _import_path(script):
    """(the folder that comes first or None, sys.path) as Python would have it for a script."""
    package = sys.modules["modwsgi_tel"]
    rest = list(sys.path)
    started = getattr(sys.modules["__main__"], "__spec__", None)
    safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
    if type(package.__loader__).__name__ == "Archive":
        # our start has taken out what a stranger may have written into: it is the script's now
        told = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
        entries = [each if sys.flags.no_site else os.path.abspath(each) for each in told.split(os.pathsep)] if told else []
        rest = list(dict.fromkeys(entries)) + [folder for folder in rest if folder not in entries]
    elif not safe or started is not None and started.name == "__main__":
        rest = rest[1:]
    if script.kind == FOLDER:
        first = _absolute(script.path)
    elif safe:
        first = None
    else:
        first = _cwd() if script.kind == MODULE else os.path.dirname(os.path.realpath(script.path))
    return first, rest if first is None else [first, *rest]


def _step_aside(folder):
    """Take from sys.modules what is ours, and those of the standard library that a file in the script's folder is to be."""
    loader = sys.modules["modwsgi_tel"].__loader__
    if loader in sys.meta_path:
        sys.meta_path.remove(loader)
    try:
        beside = set() if folder is None else {name.partition(".")[0] for name in os.listdir(folder)
                                               if name.endswith((".py", ".so")) or os.path.isfile(f"{folder}/{name}/__init__.py")}
    except OSError:
        beside = set()                  # an archive
    gone = {"modwsgi_tel"}
    for name in beside & set(sys.modules) - {"__main__", "site", "os", "io", "abc", "codecs", "stat", "posixpath", "genericpath",
                                             "encodings"} - set(sys.builtin_module_names):
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is not None and spec.origin not in (None, "built-in", "frozen"):
            gone.add(name)
    for name in list(sys.modules):
        if name.partition(".")[0] in gone:
            del sys.modules[name]


def _uncaught(error):
    """Do with an exception what Python does at the end of a script; the exit status."""
    kind, trace = type(error), error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    error = BaseException.with_traceback(error, trace)
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    raised = None
    try:
        sys.excepthook(kind, error, trace)
    except SystemExit:
        raise
    except BaseException as second:
        raised = BaseException.with_traceback(second, second.__traceback__.tb_next)
    if raised is not None:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(raised), raised, raised.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)
    if kind is not KeyboardInterrupt:
        return 1
    before = sys.excepthook

    def silent(*_):
        sys.excepthook = before
    sys.excepthook = silent             # it has been told; Python itself is to end by SIGINT, as whoever started it expects
    raise KeyboardInterrupt


# --- the log ----------------------------------------------------------------------------------------

def _place(given, script):
    """(paths to try in turn, whether these are our own choice) for the log."""
    if given:
        return [os.path.abspath(given)], False
    name = os.path.splitext(script.name.replace("-m ", ""))[0] if script.kind == FILE else script.name.replace("-m ", "")
    stem = re.sub(r"[^\w.-]", "_", name)[:80].lstrip(".") or "script"
    return [f"{folder}/{stem}.{more}stacks.log" for folder in (_cwd(), os.environ.get("TMPDIR") or "/tmp")
            for more in ("", f"{os.getpid()}-{os.urandom(3).hex()}.")], True


class Log:
    """A file of this user's alone, of `most` bytes at most: past half of it, it becomes FILE.1 and a new one begins.

    paths: which to try in turn; chosen: whether by us.  Raises TelError when none can be written.  What is there is
    appended to when a sampler has written it, and else left alone.  `failed` counts texts that were not written.
    """

    def __init__(self, paths, chosen, most):
        self.most, self.failed, self.problem = most, 0, None
        for place, path in enumerate(paths):
            try:
                self._check_older(path)
                self._take(path)
                return
            except TelError as error:
                if not chosen:
                    raise TelError(f"--log {path}: {error}") from None
                if place == len(paths) - 1:
                    raise TelError(f"cannot write a log: {path}: {error}; name one with --log FILE") from None

    def _take(self, path):
        descriptor, size = _opened(path)
        status = os.fstat(descriptor)
        self.path, self.descriptor, self.size, self._file = path, descriptor, size, (status.st_dev, status.st_ino)

    @staticmethod
    def _check_older(path):
        """TelError when FILE.1 is there and not ours."""
        if os.path.lexists(path + ".1"):
            try:
                os.close(_opened(path + ".1")[0])
            except TelError as error:
                raise TelError(f"{os.path.basename(path)}.1, which it becomes when it is full: {error}") from None

    def write(self, text):
        """Append a text.  Never raises; what cannot be written is counted."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            if not self.is_open():
                raise OSError(errno.EBADF, "the script has closed its descriptor")
            if self.size and self.size + len(data) > self.most // 2:
                self._rotate()
            while data:
                written = os.write(self.descriptor, data)
                self.size += written
                data = data[written:]
        except OSError as error:
            self.failed += 1
            self.problem = error.strerror

    def is_open(self):
        """Whether the descriptor is still ours: a script that becomes a daemon closes all, and its number may be another file's."""
        try:
            status = os.fstat(self.descriptor)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _rotate(self):
        before = self.descriptor
        try:
            self._check_older(self.path)
            os.rename(self.path, self.path + ".1")
            self._take(self.path)
            os.close(before)
            self.size = os.write(self.descriptor, MARK + b"goes on; what is older is in the file of this name with .1\n")
        except (OSError, TelError):
            os.ftruncate(before, 0)     # the folder may be read-only by now: then what is older is let go
            self.size = os.write(before, MARK + b"what was older did not fit\n")

    def close(self):
        if self.is_open():
            os.close(self.descriptor)


def _opened(path):
    """(descriptor, size) of a log: new, or one that a sampler of this user wrote; locked, mode 0600.  Raises TelError."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
                             0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TelError("is no regular file")
        if status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise TelError("belongs to another user, or has a second name")
        if status.st_size and os.pread(descriptor, len(MARK), 0) != MARK:
            raise TelError("is no log of a sampler, and is left alone")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o600)
        try:
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOG_FD)
        except OSError:                 # fewer are allowed
            return descriptor, status.st_size
        os.close(descriptor)
        return moved, status.st_size
    except BlockingIOError:
        os.close(descriptor)
        raise TelError("another sampler writes it") from None
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        raise TelError("is a symbolic link, which is not followed" if error.errno == errno.ELOOP else error.strerror) from None
    except TelError:
        os.close(descriptor)
        raise


# --- the thread -------------------------------------------------------------------------------------

Gap = namedtuple("Gap", "late_s cpu_s at where")
Gap.__doc__ = """The sampler could not run for late_s seconds, in which the process used cpu_s of CPU.  at: wall seconds of its end.
where: what the main thread was on then, as text."""


class Sampler:
    """Looks at this process's threads every interval_s seconds and writes what it sees to a Log; a digest when it is finished.

    In the child of a fork it does nothing: `forks` counts these.
    """

    def __init__(self, log, name, interval_s):
        self.log, self.name, self.interval_s = log, name, interval_s
        self.samples = self.forks = self.errors = self.not_shown = self.gap_count = 0
        self.gap_s, self.gaps, self._stuck_s = 0.0, [], 0.0
        self.profile = Profile(rate=1.0 / interval_s, nodes=NODES_MOST, samples=0)
        self._main = _thread.get_ident()
        self._wake = self._gone = None          # locks of the thread that runs
        self._native = 0
        self._paused, self._guard = 0, _thread.allocate_lock()
        self._child = self._finished = False
        self._lines, self._ticks = {}, {}
        self._stderr = _same(2)

    def start(self):
        self._began, self._began_wall, self._cpu = _monotonic(), time.time(), time.process_time()
        self._last, self._due = self._began, self._began + self.interval_s
        self.log.write(f"{MARK.decode()}{printable(self.name)}, pid {os.getpid()}, Python {sys.version.split()[0]}, every "
                       f"{duration(self.interval_s)}, from {_clock(self._began_wall)} on\n"
                       "# The digest comes at the end; a script that a signal, os._exit() or an exec ends has none.\n")
        os.register_at_fork(before=self._pause, after_in_parent=self._resume, after_in_child=self._forked)
        self._begin()

    def _begin(self, first=lambda: None):
        wake, gone = _thread.allocate_lock(), _thread.allocate_lock()
        wake.acquire()
        gone.acquire()
        # a signal is for the script's threads, also when these have all blocked it and wait for it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            _thread.start_new_thread(self._work, (wake, gone, first))
            self._wake, self._gone = wake, gone
        except RuntimeError:
            self.errors += 1            # no more threads are allowed: a gap until the next fork, or for good
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _work(self, wake, gone, first):
        self._native = _thread.get_native_id()
        try:
            first()
            while not wake.acquire(True, max(0.0, self._due - _monotonic())):
                now, used_s = _monotonic(), time.thread_time()
                try:
                    self._sample(now)
                except Exception:
                    self.errors += 1
                done, used_s = _monotonic(), time.thread_time() - used_s
                self._due = max(now + self.interval_s, done + REST * used_s)
                self._stuck_s = done - now - used_s
                if self._stuck_s > GAP_S:
                    self._due = done    # it was kept from running amidst that sample: what is it that did?
        finally:
            gone.release()

    def _end(self):
        """Have the thread end, and wait until the kernel has it no more."""
        wake, gone, self._wake, self._gone = self._wake, self._gone, None, None
        if wake is None:
            return
        wake.release()
        if gone.acquire(True, _PAUSE_S):
            left = 200
            while left and os.path.exists(f"/proc/self/task/{self._native}"):
                _sleep(0.0005)
                left -= 1

    # --- forks

    def _pause(self):
        with self._guard:
            self._paused += 1
            if self._paused == 1 and not self._child and not self._finished:
                self._end()

    def _resume(self):
        with self._guard:
            self._paused -= 1
            self.forks += not self._child
            if not self._paused and not self._child and not self._finished:
                self._begin(_without_warning())

    def _forked(self):
        self._child = True
        self._guard = _thread.allocate_lock()       # another thread may have had it
        self.log.close()

    # --- one sample

    def _sample(self, now):
        late_s, cpu = now - self._due + (self._stuck_s if self._stuck_s > GAP_S else 0.0), time.process_time()
        wall = self._began_wall + now - self._began
        weight_s, cpu_s = now - self._last, cpu - self._cpu
        self._last, self._cpu = now, cpu
        self.samples += 1
        stacks, values = self._look(wall)
        head = (f"\n=== {_clock(wall)}  sample {self.samples:,}, {duration(now - self._began)} after the start; "
                f"{counted(len(stacks.threads), 'thread')}, {duration(cpu_s)} of CPU in {duration(weight_s)} ===\n")
        if late_s > GAP_S:
            head += f"{duration(late_s)} late: C code held the GIL until now, or the process stood still\n"
            self._gap(Gap(late_s, cpu_s, wall, next((_calls(each.frames[:3]) for each in stacks.threads if each.tid == os.getpid()), "?")))
        self.profile.add(stacks, weight_s)
        room = min(SAMPLE_MOST, self.log.most // 4)
        text = head + "".join(_brief(each) + "\n" for each in stacks.threads) + "\n" + self._full(stacks.threads, values, room)
        self.log.write(text if len(text) <= room else f"{text[:room]}\n[cut: a sample is {room:,} letters at most]\n")

    def _gap(self, gap):
        self.gap_count += 1
        self.gap_s += gap.late_s
        self.gaps = sorted([*self.gaps, gap], key=lambda each: -each.late_s)[:GAPS_KEPT]

    def _look(self, wall):
        """(Stacks, [{a frame's place: [(name, text)]} of each thread])."""
        own, taken = _thread.get_ident(), []
        # all stacks at first, then their variables, then what takes reading files: meanwhile the threads run on
        current = sys._current_frames()
        idents = [ident for ident in current if ident not in (own, self._main)]
        for ident in [self._main, *idents[:THREADS_MOST - 1]]:
            frames = _walked(current.get(ident))
            if frames:
                taken.append((ident, frames))
        current.clear()
        self.not_shown += len(idents) >= THREADS_MOST
        whole, values = {}, []
        for ident, frames in taken:
            whole[ident] = tuple(Frame(_function(frame.f_code), frame.f_code.co_filename, line) for frame, line in frames)
            values.append({place: frame_values(frames[place][0]) for place in _shown_places(whole[ident])[:VALUES_MOST]})
            frames.clear()              # a function that ends should let go of what it held
        told = _told_threads()
        tids = {ident: os.getpid() if ident == self._main else told.get(ident, (None, None))[1] for ident in whole}
        ticks = cpu_ticks("self", [tid for tid in tids.values() if tid is not None])
        threads = []
        for ident, frames in whole.items():
            tid = tids[ident]
            cpu_s = (ticks[tid] - self._ticks[tid]) / _TICK if tid in ticks and tid in self._ticks else None
            name = told.get(ident, ("MainThread" if ident == self._main else None, None))[0]
            thread = ThreadStack(tid, name, state=WAITING, cpu_s=cpu_s, frames=frames,
                                 problem=None if len(frames) < FRAMES_MOST else f"cut: deeper than {FRAMES_MOST:,} frames")
            threads.append(thread._replace(idle=idle(thread) and (cpu_s or 0.0) < BUSY * self.interval_s))
        self._ticks = ticks
        return Stacks(os.getpid(), command=self.name, threads=tuple(threads), at=wall), values

    def _full(self, threads, values, room):
        """The stacks with their source lines and variables, equal ones once."""
        self._know_lines(threads)
        blocks, used = {}, 0
        for thread, found in zip(threads, values):
            text = self._stack(thread, found)
            blocks.setdefault(text, []).append(thread)
            used += len(text)
            if used > room:
                break
        return "".join(f"Thread {', '.join(map(_named, same[:12]))}{f' and {len(same) - 12:,} more' if len(same) > 12 else ''}, "
                       f"innermost last\n{text}" for text, same in blocks.items())

    def _stack(self, thread, values):
        outermost = thread.frames[::-1]
        lines = [] if thread.problem is None else [f"  [{thread.problem}]"]
        for index, count, rounds in folded(outermost):
            if index is None:
                lines.append(f"  [Previous {f'{count} lines' if count > 1 else 'line'} repeated {rounds:,} more times]")
                continue
            frame = outermost[index]
            lines.append(f'  File "{printable(frame.file)}", line {frame.line}, in {printable(frame.function)}')
            source = self._lines.get(frame[1:3])
            lines += [f"    {source}"] if source else []
            lines += [f"      {name} = {value}" for name, value in values.get(len(outermost) - 1 - index, ())]
        return "\n".join(lines) + "\n"

    def _know_lines(self, threads):
        """Read the source lines that are not known yet."""
        wanted = {frame[1:3] for thread in threads for frame in thread.frames} - self._lines.keys()
        if not wanted:
            return
        if len(self._lines) > LINES_KEPT:
            self._lines.clear()
        sources = Sources("/", "/proc/self/cwd", self._began_wall)
        try:
            for file, number in list(wanted)[:LINES_KEPT]:
                line = sources.line(file, number)
                self._lines[file, number] = line and printable(line) + (
                    "  (file is newer than the script's start)" if sources.changed(file) else "")
        finally:
            sources.close()

    # --- the end

    def finish(self):
        """End the thread and write the digest, in short also to stderr.  Never raises."""
        if self._child or self._finished:
            return
        self._finished = True
        try:
            self._end()
            ran_s = _monotonic() - self._began
            foot = self._foot()
            head = f"{self.name} ran {duration(ran_s)}, {counted(self.samples, 'sample')}"
            if not self.samples:
                told = f"{head}: it ended before the first one; --interval takes less than {duration(self.interval_s)}"
                self.log.write(f"\n=== {printable(told)} ===\n" + "".join(f"{line}\n" for line in foot))
                self._tell([told, *foot])
                return
            root = tree(self.profile)
            what = f"{head}; where the time of {'its threads' if len(self.profile.threads) > 2 else 'its thread'} was"
            whole = _tree_lines(root, TREE_MOST, TREE_LEAST, self._lines)
            self.log.write("\n".join([f"\n=== {printable(what)} ===", *whole, *foot]) + "\n")
            self._tell([f"{what} (more in {self.log.path}):", *_tree_lines(root, TREE_SHORT, TREE_LEAST_SHORT), *foot])
        except Exception:
            pass                        # a script's end is none of ours
        finally:
            self.log.close()

    def _tell(self, lines):
        """Lines to stderr, where that is still what it was at the start."""
        if self._stderr is not None and _same(2) == self._stderr:
            first, *rest = map(printable, lines)
            os.write(2, "".join([f"{PROGRAM}: {first}\n", *(f"  {line}\n" for line in rest)]).encode("utf-8", "backslashreplace"))

    def _foot(self):
        """Lines of what was not seen."""
        profile, lines = self.profile, []
        if self.gaps:
            lines.append(f"Not seen: {counted(self.gap_count, 'time')} the sampler was kept from running, {duration(self.gap_s)} in all: "
                         "C code held the GIL (little CPU: it waited with it), or the process stood still.")
            lines += [f"  {duration(gap.late_s)}, {duration(gap.cpu_s)} of CPU, until {_clock(gap.at)[11:]}; then it was in {gap.where}"
                      for gap in self.gaps]
            lines.append(f"  Reading from outside sees into that: {PROGRAM} stacks PID, or {PROGRAM} record PID, while it runs.")
        if "greenlet" in sys.modules:
            lines.append("Not seen: greenlets that wait (gevent, eventlet); of each thread only the one that runs.")
        if self.forks:
            lines.append(f"Not seen: {counted(self.forks, 'process', 'processes')} that it forked; each would take a sampler of its own.")
        if profile.idle_seen:
            lines.append(f"Left out: {profile.idle_seen:,} times a thread of a pool that had nothing to do.")
        if profile.dropped or self.not_shown:
            lines.append(f"Too much: {profile.dropped:,} stacks were not told apart, {counted(self.not_shown, 'sample')} had more than "
                         f"{THREADS_MOST} threads.")
        if self.log.failed or self.errors:
            lines.append(f"Missing in the log: {counted(self.log.failed, 'text')} ({self.log.problem or '-'}), "
                         f"{counted(self.errors, 'error')}.")
        return lines


_SIGNALS = signal.valid_signals() - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def _without_warning():
    """A function that undoes it, when Python's next warning about a fork would be about our thread alone.

    3.13 counts the threads only after it has called what begins ours again.
    """
    if sys.version_info[:2] != (3, 13) or len(os.listdir("/proc/self/task")) > 1:
        return lambda: None
    row, filters = ("ignore", re.compile("This process .* is multi-threaded"), DeprecationWarning, None, 0), warnings.filters
    filters.insert(0, row)
    warnings._filters_mutated()

    def undo():
        filters.remove(row)
        warnings._filters_mutated()
    return undo


def _same(descriptor):
    """What tells whether a descriptor still is the same file; None when it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _clock(wall):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def _walked(frame):
    """[(frame object, line)], innermost first, of the script's own frames."""
    frames = []
    while frame is not None and len(frames) < FRAMES_MOST:
        if frame.f_globals is not _OWN:
            frames.append((frame, frame.f_lineno))
        elif frame.f_code is _RUN:
            break
        frame = frame.f_back
    while frames and frames[-1][0].f_globals is _RUNPY:
        frames.pop()
    return frames


_OWN, _RUN, _RUNPY = globals(), run.__code__, runpy.__dict__


def _function(code):
    return getattr(code, "co_qualname", code.co_name)


def _shown_places(frames):
    """Places in frames (innermost first) that are shown: in a recursion only its first rounds."""
    return [len(frames) - 1 - index for index, _, _ in folded(frames[::-1]) if index is not None][::-1]


def _told_threads():
    """{ident: (name, native id)} of threading's threads; nothing of theirs is called."""
    module = sys.modules.get("threading")
    active = module.__dict__.get("_active") if type(module) is ModuleType else None
    told = {}
    for ident, thread in list(active.items()) if type(active) is dict else ():
        try:
            own = object.__getattribute__(thread, "__dict__")
            name, native = own.get("_name"), own.get("_native_id")
        except Exception:
            continue
        told[ident] = name if type(name) is str else None, native if type(native) is int else None
    return told


def _named(thread):
    number = "?" if thread.tid is None else thread.tid
    return f'{number} "{printable(thread.name[:80])}"' if thread.name else f"{number} (no name)"


def _place_of(frame):
    return f"{printable(frame.function)} ({printable('/'.join(frame.file.split('/')[-2:]))}:{frame.line})"


def _calls(frames):
    """Texts of frames, innermost first; a recursion once."""
    told = []
    for index, count, rounds in folded(frames):
        told.append(f"{_FOLDS} {count * rounds:,} more" if index is None else _place_of(frames[index]))
    return " <- ".join(told)


def _brief(thread):
    what = "idle" if thread.idle else "" if thread.cpu_s is None else f"{duration(thread.cpu_s)} CPU"
    return "  ".join(filter(None, (_named(thread), what, _calls(thread.frames), thread.problem)))


def _tree_lines(root, most, least, sources=None):
    """Lines of a tree of Nodes: share, seconds, function and the lines of it that cost most; sources: {(file, line): text}."""
    lines, left_out = [], 0
    waiting = [(child, 0) for child in _largest(root)[::-1]]
    while waiting:
        node, depth = waiting.pop()
        share = node.total_s / root.total_s if root.total_s else 0.0
        if share < least or len(lines) >= most:
            left_out += 1
            continue
        numbers = sorted(node.lines, key=lambda line: -node.lines[line])[:3]
        function, file = node.name
        where = f"  {short('/'.join(file.split('/')[-2:]), 60)}:{','.join(map(str, numbers))}" if file else ""
        own = node.own_s / root.total_s if node.children else 0.0
        source = sources.get((file, numbers[0])) if sources and numbers and not node.children else None
        lines.append(f"{share * 100:4.0f} % {duration(node.total_s):>8}  {' ' * min(depth, 40)}{short(function, 60)}{where}"
                     + (f"  ({own * 100:.0f} % itself)" if own >= least else "")
                     + (f"   {short(source, 80)}" if source else ""))
        waiting += [(child, depth + 1) for child in _largest(node)[::-1]]
    if left_out:
        lines.append(f"       and {counted(left_out, 'place')} with less, or further inside")
    return lines


def _largest(node):
    return sorted(node.children.values(), key=lambda child: -child.total_s)


if __name__ == "__main__":
    from modwsgi_tel.sampler import main as _main       # not this copy, which is the __main__ that the script replaces
    sys.exit(_main())
