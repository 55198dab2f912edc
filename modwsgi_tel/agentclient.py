"""Asks the agents inside a process: for its stacks, or for anything else that they answer on their sockets.

An agent listens on an abstract unix socket, as agent.control says.  Which process listens is the kernel's word (SO_PEERCRED):
who takes an agent's name away gets no question.  While its GIL is held no agent answers: then there may be the file that its
watchdog wrote.
"""
import errno
import json
import math
import os
import pwd
import re
import select
import socket
import stat
import struct
import time

from modwsgi_tel.agent import watchdog
from modwsgi_tel.agent.control import ANSWER_BYTES, PREFIX
from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.proc import procfs
from modwsgi_tel.proc import threads as kernel
from modwsgi_tel.proc.access import explain, parse_status
from modwsgi_tel.stacks import model
from modwsgi_tel.stacks.compare import idle
from modwsgi_tel.stacks.sources import Rights, Sources

ANSWERS_S = 2.0                         # for all agents of a process
AGENTS_MOST = 64                        # of one process
_TRIED_MOST = 1024                      # sockets with a name that fits, of whomever
_UNIX_BYTES = 32 << 20                  # of /proc/PID/net/unix
_PEER = struct.Struct("3i")
# the lines of listening stream sockets
_LISTENS = re.compile(rb"^[0-9a-f]+: [0-9a-f]{8} [0-9a-f]{8} 00010000 0001 \d\d +\d+ @(%s\.(\d{1,10})\.\d{1,5}(?:\.[0-9a-f]{1,16})?)$"
                      % PREFIX.encode(), re.IGNORECASE | re.MULTILINE)
_FILE = re.compile(r"%s\.(\d{1,10})\.\d{1,5}(?:\.[0-9a-f]{1,16})*\.dump" % re.escape(PREFIX))
_FILES_MOST, _DESCRIPTORS_MOST = 64, 65536
_THREADS_MOST, _FRAMES_MOST, _VALUES_MOST, _TEXT_MOST = 4096, 1 << 18, 256, 2000
_TICKS = os.sysconf("SC_CLK_TCK")


class NoAgent(TelError):
    """No agent of the process can be asked."""


class NoAnswer(TelError):
    """There is one, but it does not answer."""


class Denied(TelError):
    """There is one, and it does not answer this user."""


# --- where it listens ---------------------------------------------------------------------------

def find(pid, root="/proc"):
    """Names of sockets that may be those of agents of this process, the likeliest first.  Raises TelError."""
    try:
        nspids = procfs.parse_nspids(procfs.read(f"{root}/{pid}/status", 65536))
    except OSError as error:
        raise TelError(explain(pid, error, root)) from None
    inner = nspids[-1] if nspids else pid
    try:
        listed = procfs.read(f"{root}/{pid}/net/unix", _UNIX_BYTES)
    except OSError:
        return [f"{PREFIX}.{inner}.0"]  # the first agent's, where nobody else took that name
    names = {found.group(1).decode() for found in _LISTENS.finditer(listed) if int(found.group(2)) == inner}
    return sorted(names, key=lambda name: (len(name), name))[:_TRIED_MOST]


def _connected(name, pid, uids):
    """A connected socket when that process listens there, else None.  Raises OSError."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        found.connect("\0" + name)
        peer, uid, _ = _PEER.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if peer == pid and uid in uids:
            held, found = found, None
            return held
        return None
    finally:
        if found is not None:
            found.close()


def _elsewhere(pid):
    """Whether a process is in another network namespace; None where that is not shown."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return None


def _uids(pid):
    try:
        return {int(word) for word in parse_status(procfs.read(f"/proc/{pid}/status", 65536))[b"Uid"].split()}
    except (OSError, ValueError, KeyError) as error:
        reason = explain(pid, error) if isinstance(error, OSError) else f"cannot tell whose process {pid} is: {error}"
        raise TelError(reason) from None


def _open(pid, otherwise):
    """Connected sockets of the agents of a process, [(name, socket)].  Raises TelError when there is none; otherwise: see ask."""
    uids, found, full, refused = _uids(pid), [], False, False
    for name in find(pid):
        try:
            each = _connected(name, pid, uids)
        except BlockingIOError:
            full = True                 # many ask already, or it has long not run
            continue
        except OSError as error:
            refused = refused or error.errno == errno.ECONNREFUSED
            continue
        if each is not None:
            found.append((name, each))
            if len(found) == AGENTS_MOST:
                break
    if found:
        return found
    if full:
        raise _silent(pid, 0.0, otherwise)
    if _elsewhere(pid) or refused:
        raise NoAgent(f"process {pid} is in another network namespace (a container): its agent is asked from within, as by "
                      f"nsenter -t {pid} -n{otherwise and '; or '}{otherwise}")
    raise NoAgent(f"no agent listens in process {pid}: its application needs agent.install() or agent.middleware(), and must "
                  f"have served something{otherwise and '; or '}{otherwise}")


def _silent(pid, waited_s, otherwise):
    return NoAnswer(f"the agent in process {pid} does not answer" + (f" within {waited_s:g} s" if waited_s else "") +
                    f": C code may hold its GIL; {otherwise or 'ask again later'}")


# --- asking -------------------------------------------------------------------------------------

def ask(pid, request, timeout=ANSWERS_S, otherwise=""):
    """The answers of all agents of a process to one request, as dicts, the first agent's first.

    request: {"do": ...}.  otherwise: what else to do where nobody answers.  Raises TelError: NoAgent, NoAnswer when none answers in time, Denied when it does not answer this user,
    Nonsense for what is no answer, and for one that is an error its text.
    """
    agents = _open(pid, otherwise)
    try:
        said = _exchanged([each for _, each in agents], json.dumps(request).encode() + b"\n", timeout)
    finally:
        for _, each in agents:
            each.close()
    answers = [_answer(pid, data) for data in said if data]
    if not answers:
        if b"" in said:
            raise Denied(f"the agent in process {pid} hangs up on {_user()}: it answers root, its own user and the owner of its "
                         "telemetry socket")
        raise _silent(pid, timeout, otherwise)
    told = [answer for answer in answers if "error" not in answer]
    if not told:
        raise TelError(f"process {pid}: its agent says: {_text(answers[0]['error'])}")
    return told


def _user():
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _exchanged(sockets, question, timeout):
    """What each socket answers: bytes, b"" where it hangs up at once, None where it has not answered in time."""
    deadline, said = time.monotonic() + timeout, {each.fileno(): b"" for each in sockets}
    waits, late = select.poll(), set(said)
    by_number = {each.fileno(): each for each in sockets}
    for number, each in by_number.items():
        try:
            each.send(question)         # a few bytes into an empty queue
        except OSError:
            pass                        # it has hung up: reading says so
        waits.register(number, select.POLLIN)
    while late:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for number, _ in waits.poll(math.ceil(left * 1000)):
            try:
                part = by_number[number].recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            said[number] += part
            if not part or len(said[number]) > ANSWER_BYTES:
                late.discard(number)
                waits.unregister(number)
    return [None if each.fileno() in late else said[each.fileno()] for each in sockets]


def _answer(pid, data):
    try:
        found = json.loads(data) if len(data) <= ANSWER_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Nonsense(f"what answers for process {pid} is no agent of modwsgi-tel")
    return found


# --- stacks -------------------------------------------------------------------------------------

def stacks(pid, values=False, timeout=ANSWERS_S, files=()):
    """The model.Stacks of a process as its agents tell them; while they do not answer, as the watchdog wrote them.

    values: with variables, where the application allows that.  files: where else the watchdog's file may be.  Raises TelError.
    """
    start, command, inner_pid = kernel.identity(pid).start, kernel.command(pid), kernel.inner_pid(pid)
    try:
        answers = ask(pid, {"do": "stacks", "locals": values}, timeout, f"read it from outside: stacks {pid} without --agent")
    except NoAnswer as error:
        found = dumped(pid, files)
        if found is None:
            raise NoAnswer(f"{error}; its watchdog has written nothing that can be read") from None
        return found._replace(pid=pid, start=start, command=command, inner_pid=inner_pid)
    merged = _merged(pid, answers, inner_pid)
    if kernel.identity(pid).start != start:
        raise TelError(f"process {pid} has ended; its pid is another process's now")
    return merged._replace(start=start, command=command)


def _merged(pid, answers, inner_pid):
    """One Stacks of the answers of a process's agents, checked."""
    try:
        found = [_checked(answer["stacks"]) for answer in answers]
        seen = [len(each.threads) for each in found]
        whole = max(own + _whole(answer["elsewhere"]) for own, answer in zip(seen, answers))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise Nonsense(f"the agent in process {pid} answers with what are no stacks: {type(error).__name__}") from None
    problems = [each.problem for each in found if each.problem]
    if whole > sum(seen):
        problems.append(f"threads in interpreters without an agent: {whole - sum(seen)}")
    outer = {} if inner_pid is None else {task.inner_tid: tid for tid, task in kernel.threads(pid).items()}
    threads = tuple(_placed(thread, outer, inner_pid) for each in found for thread in each.threads)
    interpreters = tuple(sorted({number for each in found for number in each.interpreters}))
    return model.Stacks(pid, inner_pid, None, "", found[0].python, interpreters, threads, "; ".join(problems) or None, found[0].at)


def _placed(thread, outer, inner_pid):
    """A thread with its tid in our namespace, and whether it has nothing to do; where its state is not known the frames decide."""
    thread = thread if inner_pid is None else thread._replace(tid=outer.get(thread.tid))
    known = thread.state != model.UNKNOWN
    return thread._replace(idle=idle(thread if known else thread._replace(state=model.WAITING)))


def _checked(data):
    """The Stacks of JSON that another process made, of the right types and bounded; of each thread alone what an agent knows."""
    found = model.stacks_of_table(data) if "table" in data else model.stacks_of(data)
    threads, left = [], _FRAMES_MOST
    for thread in found.threads[:_THREADS_MOST]:
        frames = tuple(model.Frame(_text(frame.function), _text(frame.file), None if frame.line is None else _whole(frame.line),
                                   _whole(frame.interpreter)) for frame in thread.frames[:left])
        left -= len(frames)
        values = None if thread.values is None else tuple(
            tuple((_text(name), _text(text)) for name, text in each[:_VALUES_MOST]) for each in thread.values[:len(frames)])
        request = thread.request and model.Request(
            *(None if each is None else _text(each) for each in (thread.request.request_id, None, thread.request.method,
                                                                 thread.request.path)), "agent")
        if request is not None and thread.request.thread_id is not None:
            request = request._replace(thread_id=_whole(thread.request.thread_id))
        if request is not None:
            request = request._replace(**{name: check(getattr(thread.request, name)) for name, check in _ORIGIN
                                          if getattr(thread.request, name) is not None})
        threads.append(model.ThreadStack(
            None if thread.tid is None else _whole(thread.tid), None if thread.name is None else _text(thread.name),
            _whole(thread.interpreter), None, thread.state if thread.state in _STATES else model.UNKNOWN,
            None if thread.wait is None else _text(thread.wait)[:100], None, False,
            None if thread.problem is None else _text(thread.problem), frames, values, request))
    at = _seconds(found.at)
    interpreters = tuple(_whole(each) for each in found.interpreters[:AGENTS_MOST])
    return model.Stacks(0, python=_text(found.python)[:40], interpreters=interpreters,
                        threads=tuple(threads), problem=None if found.problem is None else _text(found.problem), at=at)


_STATES = (model.RUNNING, model.WAITING, model.DISK, model.STOPPED, model.GONE, model.UNKNOWN)


def _text(value):
    if not isinstance(value, str):
        raise ValueError(value)
    return value[:_TEXT_MOST].encode("utf-8", "replace").decode()


def _seconds(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e11:
        raise ValueError(value)
    return float(value)


def _whole(value):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(value)
    return value


# of a model.Request
_ORIGIN = (("started", _seconds), ("queued_s", _seconds), ("process_group", _text), ("application_group", _text))


# --- what the watchdog wrote --------------------------------------------------------------------

def dumped(pid, files=()):
    """The Stacks of the newest dump that the watchdog of a process wrote while the GIL is held, or None.

    The agent empties its file as soon as it runs again, so that what is in one is of now.  It is read through the process's
    own descriptors where that is permitted, else where such files are: `files`, and the folders for temporary ones.
    """
    best = None
    for text, written in _dumps(pid, files):
        found = watchdog.stacks_of(text, written)
        if found.threads and (best is None or written > best.at):
            best = found
    if best is None:
        return None
    age_s = max(0.0, time.time() - best.at)
    return best._replace(problem=f"the agent does not answer, so C code may hold the GIL: this is what its watchdog "
                          f"wrote {age_s:.0f} s ago, without names and requests")


def _dumps(pid, files):
    """(text, wall seconds when it was written) of each file of a process's watchdog that can be read."""
    inner = kernel.inner_pid(pid) or pid
    try:
        links = os.listdir(f"/proc/{pid}/fd")[:_DESCRIPTORS_MOST]
    except OSError:
        links = None
    if links is not None:
        for link in links:
            try:
                named = _FILE.search(os.readlink(f"/proc/{pid}/fd/{link}"))
            except OSError:
                continue
            if named and int(named.group(1)) == inner:      # a child may have its parent's as well
                yield from _dump(f"/proc/{pid}/fd/{link}", pid, 0)
        return
    paths = [path for path in files if isinstance(path, str)]
    for folder in watchdog.folders():
        try:
            paths += [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(f"{PREFIX}.{inner}.")][:_FILES_MOST]
        except OSError:
            continue
    for path in dict.fromkeys(paths):
        named = _FILE.fullmatch(os.path.basename(path))
        if named and int(named.group(1)) == inner:
            yield from _dump(path, pid, os.O_NOFOLLOW)


def _dump(path, pid, flags):
    """As _dumps, of one file: a regular one of the process's user, no older than the process."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except OSError:
        return
    try:
        found = os.fstat(file)
        began = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - kernel.identity(pid).start / _TICKS)
        if stat.S_ISREG(found.st_mode) and found.st_uid in _uids(pid) and found.st_mtime >= began - 1.0 and found.st_size:
            yield os.pread(file, watchdog.FILE_BYTES, 0).decode("ascii", "replace"), found.st_mtime
    except (OSError, TelError):
        return
    finally:
        os.close(file)


# --- for the command, and for the collector's helper process ----------------------------------

class AgentReader:
    """Looks at a process any number of times, as stacks.reader.Reader does, but by asking its agents."""

    def __init__(self, pid):
        self.pid = pid
        self._start = kernel.identity(pid).start

    def look(self, values=False, stopper=None):
        """The Stacks of now.  Raises TelError."""
        return stacks(self.pid, values)

    def sources(self):
        """Sources of its files, to be closed: those alone that it may read itself."""
        try:
            uid, gids = kernel.rights(self.pid)
        except TelError:
            uid, gids = None, ()
        started = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - self._start / _TICKS)
        return Sources(f"/proc/{self.pid}/root", f"/proc/{self.pid}/cwd", started, Rights(uid, frozenset(gids)))

    def close(self):
        """Nothing is held."""
