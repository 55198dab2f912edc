"""Reads of one process what a scene holds of it, besides its stacks and what proc.details tells.

`asked` is Gathering's: asked(what, work, *arguments, pid=None) gives what `work` gives, or None and notes why it is not known.
"""
import re

from modwsgi_tel.agentclient import AgentReader
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import descriptors, procfs, roles, threads, waits
from modwsgi_tel.stacks import containers, locks
from modwsgi_tel.stacks.growers import Growers
from modwsgi_tel.stacks.model import WAITING
from modwsgi_tel.stacks.sources import Rights, Sources
from modwsgi_tel.why.scene import Look, is_client, serves, works_behind

WAITS_MOST = 64                         # threads of a process whose system call is looked at
WANTING_MOST, RUNTIME_SIZE = 512, 1 << 20        # threads that are asked whether they want the GIL; bytes
LARGE, LARGEST_MOST = 4 << 20, 3        # containers that are told of where memory is limited: bytes
DESCRIPTORS_MOST, DESCRIPTORS_MANY = 1000, 500
CONTAINERS_S = 0.1                      # CPU time of one look at the containers
GROWN_LEAST = 256 << 10                 # bytes of memory, for that
FRAMES_MOST, LINES_MOST, LINE_MOST = 60, 2000, 200      # of a stack; of a process; letters of one
IMPORT_LINES_MOST = 2000                # of a script, in search of an import
_MISSING = re.compile(r"No module named '([\w.]+)'")


# --- at each look -----------------------------------------------------------------------------

def runs(pid):
    """Whether a process is there, and is more than what its parent has to take notice of."""
    return start_of(pid) is not None


def start_of(pid):
    """When a process that runs was started, in clock ticks since boot; else None."""
    try:
        found = procfs.stat(pid)
        return None if found.state in ("Z", "X") else found.start
    except (OSError, ValueError):
        return None


def one_look(process, reader, at, stacks, asked):
    """The Look at a Process whose Stacks were just read."""
    server, daemon = process.member.server, process.member.role == roles.DAEMON
    serving = [thread.tid for thread in stacks.threads if thread.tid is not None and serves(thread, server)]
    # a thread of mod_wsgi that hands on what a generator has made has no frames meanwhile
    bare = [thread.tid for thread in stacks.threads
            if daemon and not thread.frames and thread.tid is not None and thread.state == WAITING]
    behind = [thread.tid for thread in works_behind(stacks.threads, server)]
    found = asked("system calls", waits.waits, process.pid, (serving + bare + behind)[:WAITS_MOST], pid=process.pid) or {}
    writers = {tid: found[tid] for tid in bare if tid in found and found[tid]["direction"] == "write" and is_client(found[tid])}
    address = getattr(reader, "address", None)
    return Look(at, stacks, {tid: found.get(tid) for tid in serving + behind}, {tid: switches(process.pid, tid) for tid in serving},
                writers, None if address is None else asked("threads that want the GIL", wanting, process.pid, address))


def wanting(pid, address):
    """The ids of the threads of a process that wait for the GIL, None where that may not be seen.  address: of its _PyRuntime.

    take_gil() of CPython's ceval_gil waits for it again and again for the switch interval, so with a timeout, in a futex that lies in
    _PyRuntime (from 3.12 in the main interpreter, which lies in there too).
    """
    found = set()
    for tid in sorted(threads.tids(pid))[:WANTING_MOST]:
        try:
            text = procfs.read(f"/proc/{pid}/task/{tid}/syscall", 256)
        except PermissionError:
            return None
        except OSError:
            continue
        call, words = threads.parse_syscall(text), text.split()
        if call is None or call[1] != "futex" or len(words) <= 4:
            continue
        if 0 <= int(words[1], 16) - address < RUNTIME_SIZE and int(words[4], 16):
            found.add(tid)
    return found


def switches(pid, tid):
    """How often a thread has gone to sleep, or None."""
    try:
        for line in procfs.read(f"/proc/{pid}/task/{tid}/status", 8192).splitlines():
            if line.startswith(b"voluntary_ctxt_switches:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def grows(process):
    """Whether its memory or its descriptors have grown since the first count, so that it is worth while to see what holds them."""
    rss, files = [amount for _, amount in process.rss], [number for _, number in process.files]
    return len(rss) > 1 and rss[-1] - rss[0] >= GROWN_LEAST or len(files) > 1 and files[-1] - files[0] >= 2


def connections(pid):
    """[a sockets.Socket as a dictionary] of a process, those of the Internet; [] where that may not be seen."""
    try:
        rows = descriptors.look(pid, DESCRIPTORS_MOST)["rows"]
    except TelError:
        return []
    return [row["socket"] for row in rows if row["socket"] and row["kind"] in ("tcp", "tcp6")]


# --- once, at the end ---------------------------------------------------------------------------

def more(process, reader, first, asked):
    """Read what takes longer into a Process: source lines, locks, containers.  first: of `contents`, earlier; or None."""
    sources = reader.sources()
    try:
        for what, work, *arguments in (("source lines", source_lines, process, sources),
                                       ("locks", _lock_waits, process, reader, sources, asked),
                                       ("containers", _growth, process, reader, sources, first, asked)):
            asked(f"{what} of pid {process.pid}", work, *arguments, pid=process.pid)
    finally:
        sources.close()


def source_lines(process, sources):
    """Note the source lines of what threads of the application are at."""
    for thread in (thread for look in process.looks for thread in look.stacks.threads):
        if thread.idle:
            continue
        for frame in thread.frames[:FRAMES_MOST]:
            key = frame.file, frame.line
            if key not in process.lines and frame.line is not None and len(process.lines) < LINES_MOST:
                process.lines[key] = (sources.line(frame.file, frame.line) or "").strip()[:LINE_MOST]


def _lock_waits(process, reader, sources, asked):
    if any(serves(thread, process.member.server) for thread in process.looks[-1].stacks.threads):
        earlier, process.locks = (asked(f"locks of pid {process.pid}", _locks, reader, sources, pid=process.pid) or [] for _ in range(2))
        process.cycles = locks.cycles(locks.steady(earlier, process.locks))


def _locks(reader, sources):
    """[LockWait] of now: with a look of its own, for what waits must be of the same moment."""
    return locks.of(reader.look(), sources, reader)


def _growth(process, reader, sources, first, asked):
    last = contents(process.pid, reader, asked) if first is not None else None
    if last is not None:
        process.grown = containers.grown(first, last, sources=sources)
    if is_limited(process):
        process.largest = _largest(last or contents(process.pid, reader, asked), sources)


def contents(pid, reader, asked):
    """What stacks.containers sees in a process; None where only an agent reads it, or nobody."""
    if reader is None or isinstance(reader, AgentReader):
        return None
    return asked(f"containers of pid {pid}", containers.look, reader, CONTAINERS_S, pid=pid)


def is_limited(process):
    """Whether somebody has set a limit to its memory."""
    return any(((process.limits or {}).get(name) or {}).get("soft") for name in ("data", "address space"))


def _largest(contents, sources):
    """The application's Containers that hold most, with the places that fill them."""
    if contents is None:
        return []
    growers = Growers(sources, contents.files)
    rows = sorted((row for row in contents.rows if not row.library and row.bytes >= LARGE and "[" not in row.name),
                  key=lambda row: -row.bytes)
    return [growers.placed(row) for row in rows[:LARGEST_MOST]]


def few_descriptors(process, asked):
    """All descriptors of those alone where there are many, or more and more: it takes a while."""
    counts = [number for _, number in process.files]
    limit = (process.limits or {}).get("open files", {}).get("soft")
    if not counts or not (counts[-1] > counts[0] or limit and counts[-1] >= limit / 2 or counts[-1] >= DESCRIPTORS_MANY):
        return None
    return asked(f"descriptors of pid {process.pid}", descriptors.look, process.pid, pid=process.pid)


def import_line(pid, script, text):
    """`file:line` of the import in a script that fails, which mod_wsgi 6's traceback leaves out; "" where it is not found.

    pid: of a process that sees the script.  text: of the error, as a log has it.
    """
    missing = _MISSING.search(text)
    if missing is None:
        return ""
    try:
        uid, gids = threads.rights(pid)
        sources = Sources(f"/proc/{pid}/root", None, None, Rights(uid, frozenset(gids)))
    except TelError:
        return ""
    name = re.escape(missing.group(1))
    importing = re.compile(rf"\s*(?:import\s+(?:.*,\s*)?{name}\b|from\s+{name}\b)")
    try:
        for number, line in enumerate(sources.content(script).splitlines()[:IMPORT_LINES_MOST], 1):
            if importing.match(line.decode("utf-8", "replace")):
                return f"{script}:{number}"
    finally:
        sources.close()
    return ""
