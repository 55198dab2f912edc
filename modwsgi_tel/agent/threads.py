"""All threads of this interpreter at one moment: as Stacks, and as JSON for who asks on the control socket.

No lock is taken, threading's least of all: the thread that has it may be the one that is stuck.  Threads of other
interpreters of the process are but counted: an agent there tells them.  What runs in no Python code now is not seen, nor are
greenlets that do not run.  A variable of another thread may lose its last reference here: then it is deleted by this thread.
"""
import builtins
import json
import os
import sys
import threading
import time
from collections import namedtuple

from modwsgi_tel.agent.frames import WALKED_MOST, Stack, stack_of
from modwsgi_tel.agent.monitor import Monitor
from modwsgi_tel.agent.waits import said, waits
from modwsgi_tel.stacks import model

MOST = 512                              # threads of one look; those that serve requests are kept first
FRAMES_MOST = 16 << 10                  # frames of one look, in an answer
ANSWER_BYTES = 3 << 20                  # of JSON
VALUES_BYTES = 1 << 20                  # of the texts of variables in one look
NAME_MOST, FILE_MOST = 200, 400         # letters; a file's name keeps its end
_TRIES = 3
_KEPT = (None, 100, 30, 10, 0)          # frames of a thread, where there are too many
_OURS = vars(builtins)                  # each interpreter has its own
_MONITOR = Monitor._run.__code__
_HERE = os.path.dirname(__file__) + "/"
_TICKS = os.sysconf("SC_CLK_TCK")

Kernel = namedtuple("Kernel", "state wait cpu_s", defaults=(model.UNKNOWN, None, None))
Kernel.__doc__ = "What the kernel says of a thread: state and wait as in model.ThreadStack; cpu_s: CPU seconds used in its life."


# --- what the kernel says -----------------------------------------------------------------------

_STATES = {b"R": model.RUNNING, b"S": model.WAITING, b"I": model.WAITING, b"D": model.DISK, b"T": model.STOPPED,
           b"t": model.STOPPED, b"Z": model.GONE, b"X": model.GONE}
# Where a server's threads are found waiting; proc.threads, which is too much to carry along here, has all of them.
_CALLS = {
    "x86_64": {0: "read", 1: "write", 7: "poll", 23: "select", 35: "nanosleep", 42: "connect", 43: "accept", 44: "sendto",
               45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync",
               202: "futex", 219: "restart_syscall", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 270: "pselect6",
               271: "ppoll", 281: "epoll_pwait", 288: "accept4", 441: "epoll_pwait2", 449: "futex_waitv"},
    "aarch64": {22: "epoll_pwait", 25: "fcntl", 32: "flock", 63: "read", 64: "write", 72: "pselect6", 73: "ppoll", 82: "fsync",
                83: "fdatasync", 95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 128: "restart_syscall",
                202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 242: "accept4",
                260: "wait4", 441: "epoll_pwait2", 449: "futex_waitv"},
}.get(os.uname().machine, {})


def kernel_of(tid):
    """The Kernel of a thread of this process; tid may be None.  Raises nothing."""
    if tid is None:
        return Kernel()
    folder = f"/proc/self/task/{tid}/"
    words = _read(folder + "stat").rpartition(b")")[2].split()      # the name before it may hold anything
    try:
        state, cpu_s = _STATES.get(words[0], model.UNKNOWN), (int(words[11]) + int(words[12])) / _TICKS
    except (IndexError, ValueError):
        return Kernel()
    if state not in (model.WAITING, model.DISK):
        return Kernel(state, None, cpu_s)
    where = _read(folder + "wchan").decode("ascii", "replace").strip()
    call = _read(folder + "syscall").split(None, 1)[:1]             # empty where the process is closed, as mod_wsgi's daemons are
    told = [_CALLS.get(int(call[0]), "syscall " + call[0].decode())] if call and call[0].isdigit() else []
    return Kernel(state, " ".join(told + [f"({where})"] * (where not in ("", "0"))) or None, cpu_s)


def kernel(tid):
    """(state and in what it waits as one text, or "", CPU seconds or None) of a thread: "waiting futex (futex_wait_queue)"."""
    state, wait, cpu_s = kernel_of(tid)
    return "" if state == model.UNKNOWN else f"{state} {wait}" if wait else state, cpu_s


def _read(path):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(handle, 1024)
    except OSError:
        return b""
    finally:
        os.close(handle)


# --- who they are -------------------------------------------------------------------------------

def tids(requests):
    """{ident: (native tid or None, name or "")} of the threads that threading or a request knows."""
    try:
        tasks = frozenset(map(int, os.listdir("/proc/self/task")))
    except (OSError, ValueError):
        tasks = None
    found = {}
    for ident, thread in list(threading._active.items()):           # one step of C
        held = object.__getattribute__(thread, "__dict__")          # whatever an application made of its own Thread
        name = held.get("_name")
        found[ident] = _known(held.get("_native_id"), tasks), name[:NAME_MOST] if type(name) is str else ""
    for ident, known in list(requests.tids.items()):
        tid, name = found.get(ident, (None, ""))
        if tid is None:
            tid = _known(known, tasks)
            if tid is None:             # that thread has gone; whoever has its ident now is learnt with its next request
                requests.tids.pop(ident, None)
        found[ident] = tid, name
    return found


def _known(tid, tasks):
    """A tid that this process has: one forked behind Python's back keeps those of its parent."""
    return tid if type(tid) is int and (tasks is None or tid in tasks) else None


def interpreter_id():
    """The id of this interpreter, 0 for the main one, and where that cannot be told."""
    try:
        told = __import__("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters").get_current()
        return int(told[0] if isinstance(told, tuple) else told)
    except Exception:                   # a Python without it, or one that is ending
        return 0


# --- a look -------------------------------------------------------------------------------------

def look(requests, settings, variables=False):
    """The model.Stacks of now, but of the monitor's thread; of the calling one what lies outside of the agent.

    variables: with the values of arguments and variables.  Who holds the GIL cannot be told from inside: whoever looks has it.
    """
    stacks, elsewhere = _look(requests, settings, variables)
    return _lacking(stacks, elsewhere, "threads in other interpreters")


def answer(requests, settings, variables):
    """{"stacks", "elsewhere"} for who asks on the control socket; where it is too much, variables go first, then frames.

    stacks: as model.stacks_json makes them where there are variables, else as model.table_json.  elsewhere: how many threads
    run code of other interpreters.
    """
    stacks, elsewhere = _look(requests, settings, variables)
    for most in _KEPT:
        if any(thread.values for thread in stacks.threads):
            data = model.stacks_json(stacks)
            if len(json.dumps(data)) <= ANSWER_BYTES:
                break
            stacks = _also(stacks, "variables are left out: too much")
            stacks = stacks._replace(threads=tuple(each._replace(values=None) for each in stacks.threads))
        stacks = stacks._replace(threads=tuple(model.shortened(each, most) for each in stacks.threads))
        if sum(len(each.frames) for each in stacks.threads) <= FRAMES_MOST:
            data = model.table_json(stacks)
            if len(json.dumps(data)) <= ANSWER_BYTES:
                break
    return {"stacks": data, "elsewhere": elsewhere}


def _look(requests, settings, variables):
    """(Stacks, how many threads run code of other interpreters)."""
    here, known, at, interpreter = sys._getframe(), tids(requests), time.time(), interpreter_id()
    shown = None
    if variables:
        from modwsgi_tel.agent.values import frame_values
        from modwsgi_tel.masking import pattern
        secrets = pattern(settings.secrets)
        budget = [VALUES_BYTES]

        def shown(frame, stack):
            return _values(frame, stack, lambda each: frame_values(each, secrets, settings.reprs), budget)
    elsewhere, wanted, serving = 0, [], requests.of_thread
    for ident, frame in sys._current_frames().items():
        ours, monitors = _whose(frame)
        if monitors:
            continue
        if not ours:
            elsewhere += 1
            continue
        mine = frame is here            # whatever gevent has made of get_ident()
        frame = _outside(frame) if mine else frame
        if frame is not None:
            wanted.append((ident not in serving, ident, frame, mine))
    wanted.sort(key=lambda each: each[0])
    threads = []
    for _, ident, frame, mine in wanted[:MOST]:
        stack, found = _taken(ident, frame, mine, shown)
        if stack is not None:
            (tid, name), request = known.get(ident, (None, "")), serving.get(ident)
            waits_for = "" if mine or stack.problem == model.MOVING else said(waits(frame), known, serving, request)
            threads.append(thread_stack(stack, tid, name, request, interpreter, found, waits_for))
    stacks = model.Stacks(os.getpid(), None, None, "", "%d.%d.%d" % sys.version_info[:3], (interpreter,), tuple(threads), None, at)
    return _lacking(stacks, len(wanted) - MOST, "threads beyond the bound"), elsewhere


def thread_stack(stack, tid, name, request, interpreter=0, values=None, waits_for=""):
    """The model.ThreadStack of a frames.Stack.  request: a requests.Request or None.  values: innermost first, or None.

    waits_for: as waits.said tells it; it follows what the kernel says that it waits in.
    """
    state, wait, _ = kernel_of(tid)
    if wait and waits_for:
        wait = f"{wait}, for {waits_for}"
    frames = tuple(model.Frame(_text(function)[:NAME_MOST], _text(file)[-FILE_MOST:], line, interpreter)
                   for function, file, line in reversed(stack.frames))
    serves = None if request is None else model.Request(request.log_id, request.thread_id, request.method or None,
                                                        request.path or None, "agent", 0, *request.origin)
    return model.ThreadStack(tid, name or None, interpreter, None, state, wait, None, False, stack.problem or None, frames, values,
                             serves)


def _whose(frame):
    """(whether a thread runs code of this interpreter, whether it is a monitor, be it another interpreter's), of its innermost frame."""
    ours = False
    for _ in range(WALKED_MOST):
        if frame is None:
            break
        ours = ours or frame.f_builtins is _OURS
        code = frame.f_code
        if code is _MONITOR or code.co_name == _MONITOR.co_name and code.co_filename == _MONITOR.co_filename:
            return ours, True
        frame = frame.f_back
    return ours, False


def _outside(frame):
    """The innermost frame that is none of the agent's; None for a thread that does nothing else, as mod_wsgi's for signals."""
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return frame


def stack(ident, frame):
    """The frames.Stack of another thread of which this is the innermost frame: with problem MOVING where it ran on; None when it has ended."""
    return _taken(ident, frame, False, None)[0]


def _taken(ident, frame, mine, shown):
    """(Stack, values) of a thread; (None, None) when it has ended.  It may run on whenever this thread gives up the GIL."""
    for _ in range(_TRIES):
        at, stack, values = frame.f_lasti, stack_of(frame), None
        if mine or _stands(ident, frame, at):
            if shown is not None:
                values = shown(frame, stack)
                if not (mine or _stands(ident, frame, at)):
                    values = None       # they may be of later
            return stack, values
        frame = sys._current_frames().get(ident)
        if frame is None:
            return None, None
    return Stack([], 0, 0, model.MOVING), None


def _stands(ident, frame, at):
    """Whether a thread is still where it was: then all that called this frame are what they were."""
    return sys._current_frames().get(ident) is frame and frame.f_lasti == at


def _values(frame, stack, values, budget):
    """For each frame of a Stack, innermost first, a tuple of (name, text); () for those beyond the budget of bytes."""
    found, inner = [], len(stack.frames) - stack.cut_at
    while frame is not None and len(found) < inner:
        shown = tuple(values(frame)) if budget[0] > 0 else ()
        budget[0] -= sum(len(name) + len(text) for name, text in shown)
        found.append(shown)
        frame = frame.f_back
    return tuple(found + [()] * (len(stack.frames) - len(found)))


def _lacking(stacks, count, what):
    return _also(stacks, f"{what}: {count}") if count > 0 else stacks


def _also(stacks, problem):
    return stacks._replace(problem=f"{stacks.problem}; {problem}" if stacks.problem else problem)


def _text(text):
    """A text that any encoder takes: code objects may hold lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
