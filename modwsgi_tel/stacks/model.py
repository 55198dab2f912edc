"""What a look at another process gives: plain data, no memory, no /proc."""
from collections import namedtuple

MOVING = "moving"                       # the thread ran on while it was read, at every try
RUNNING, WAITING, DISK, STOPPED, GONE, UNKNOWN = "running", "waiting", "disk", "stopped", "gone", "unknown"
# with GONE: why a process was not read.  The kernel does not let us; we do not let ourselves; nobody looked yet; anything else
REFUSED, DENIED, AWAY, FAILED = "refused", "denied", "away", "failed"

Frame = namedtuple("Frame", "function file line interpreter", defaults=(0,))
Frame.__doc__ = """One Python frame.  function: its qualified name (before 3.11: its name).  file: as the code says, maybe
relative.  line: from 1, or None where the code tells none.  interpreter: its id."""

Request = namedtuple("Request", "request_id thread_id method path how place started queued_s process_group application_group",
                     defaults=(0, None, None, None, None))
Request.__doc__ = """The request that a thread serves.  request_id, thread_id: mod_wsgi's own, or None.  method, path: text, or
None.  how: "environ" (read from the thread's own frames), or what was guessed and why.  place: how many frames lie
outside of the one that holds the environ.

None where the server does not tell: started: wall seconds at which Apache had read its head.  queued_s: seconds that it then
waited for the daemon.  process_group: "" when embedded.  application_group: "" for the main interpreter."""

ThreadStack = namedtuple("ThreadStack", "tid name interpreter owns_gil state wait cpu_s idle problem frames values request",
                         defaults=(None, None, 0, False, UNKNOWN, None, None, False, None, (), None, None))
ThreadStack.__doc__ = """One thread of a process.

tid: native, in the reader's pid namespace; None when it is not known.  name: threading's, or None.
interpreter: the id of the one whose frames are innermost.  owns_gil: whether it holds its interpreter's GIL, None where that
cannot be told: from inside, whoever looks has it.
state: RUNNING, WAITING, DISK, STOPPED, GONE or UNKNOWN, by the kernel.  wait: in what, as `futex (futex_wait_queue)`, or None.
cpu_s: CPU seconds used since the look before, or None.  idle: a pool's thread that has nothing to do.
problem: None (the stack is whole), MOVING, or "cut: " and why.  frames: Frames, innermost first.
values: None, or for each frame a tuple of (name, text).  request: a Request or None."""

Stacks = namedtuple("Stacks", "pid inner_pid start command python interpreters threads problem at collecting",
                    defaults=(None, None, "", "", (), (), None, None, None))
Stacks.__doc__ = """One process at one look.

pid: in the reader's namespace.  inner_pid: in its own, where that differs, else None.  start: its start in clock ticks since
boot, or None.  command: its command line.  python: "3.11.7", or "3.10" where the patch level is not told.
interpreters: their ids, the oldest first.  threads: ThreadStacks.  problem: None, or why some are missing.
at: wall seconds.  collecting: ids of the interpreters that collect garbage at this moment, None where that is not known."""


def is_whole(thread):
    return thread.problem is None


def shortened(thread, most):
    """The ThreadStack with at most so many frames (None: all): the innermost ones, and a fourth of them the outermost."""
    frames = thread.frames
    if most is None or len(frames) <= most:
        return thread
    inner = most - most // 4
    said = f"cut: {len(frames) - most} of {len(frames)} frames left out after the innermost {inner}"
    return thread._replace(frames=frames[:inner] + frames[len(frames) - most // 4:], problem=said)


def frame_json(frame, values=None):
    out = {"function": frame.function, "file": frame.file, "line": frame.line, "interpreter": frame.interpreter}
    if values is not None:
        out["locals"] = dict(values)
    return out


def thread_json(thread):
    """A ThreadStack as JSON carries it; frames innermost first."""
    values = thread.values or [None] * len(thread.frames)
    return {"tid": thread.tid, "name": thread.name, "interpreter": thread.interpreter, "owns_gil": thread.owns_gil,
            "state": thread.state, "wait": thread.wait, "cpu_s": thread.cpu_s, "idle": thread.idle,
            "whole": thread.problem is None, "problem": thread.problem,
            "request": None if thread.request is None else thread.request._asdict(),
            "frames": [frame_json(frame, found) for frame, found in zip(thread.frames, values)]}


def stacks_json(stacks):
    """A Stacks as JSON carries it."""
    return {"pid": stacks.pid, "inner_pid": stacks.inner_pid, "start": stacks.start, "command": stacks.command,
            "python": stacks.python, "interpreters": list(stacks.interpreters), "problem": stacks.problem, "at": stacks.at,
            "collecting": None if stacks.collecting is None else list(stacks.collecting),
            "threads": [thread_json(thread) for thread in stacks.threads]}


def thread_of(data):
    """The ThreadStack of what `thread_json` made.  Raises KeyError, TypeError or ValueError for anything else."""
    frames = tuple(Frame(each["function"], each["file"], each["line"], each["interpreter"]) for each in data["frames"])
    values = tuple(tuple(each.get("locals", {}).items()) for each in data["frames"])
    request = data["request"]
    return ThreadStack(data["tid"], data["name"], data["interpreter"], data["owns_gil"], data["state"], data["wait"],
                       data["cpu_s"], data["idle"], data["problem"], frames, values if any(values) else None,
                       None if request is None else Request(**request))


def table_json(stacks):
    """A Stacks as JSON with each frame once, in "table"; "frames" of a thread are places in it.  Without variables."""
    places, rows = {}, []
    for thread in stacks.threads:
        row = thread_json(thread._replace(frames=(), values=None))
        row["frames"] = [places.setdefault(frame, len(places)) for frame in thread.frames]
        rows.append(row)
    return {**stacks_json(stacks._replace(threads=())), "threads": rows, "table": [list(frame) for frame in places]}


def untabled(data):
    """What `stacks_json` makes, of what `table_json` made."""
    table = [frame_json(Frame(*each)) for each in data["table"]]
    threads = [{**thread, "frames": [table[place] for place in thread["frames"]]} for thread in data["threads"]]
    return {**{name: value for name, value in data.items() if name != "table"}, "threads": threads}


def stacks_of_table(data):
    """The Stacks of what `table_json` made.  Raises KeyError, IndexError, TypeError or ValueError for anything else."""
    table = [Frame(*each) for each in data["table"]]
    threads = tuple(thread_of({**thread, "frames": ()})._replace(frames=tuple(table[place] for place in thread["frames"]))
                    for thread in data["threads"])
    return stacks_of({**data, "threads": ()})._replace(threads=threads)


def stacks_of(data):
    """The Stacks of what `stacks_json` made.  Raises KeyError, TypeError or ValueError for anything else."""
    collecting = data.get("collecting")             # an agent may be of a version before this was told
    return Stacks(data["pid"], data["inner_pid"], data["start"], data["command"], data["python"], tuple(data["interpreters"]),
                  tuple(thread_of(each) for each in data["threads"]), data["problem"], data["at"],
                  None if collecting is None else tuple(collecting))
