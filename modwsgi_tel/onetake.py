"""One read of one process, for a collector: by its pid, its start and its user, in a process that does nothing else.

A question is (pid, start, uid): the pid that the kernel told of a sender, its start in clock ticks since boot as /proc told,
and the sender's user.  Whatever else has that pid is not read.  An answer is a dict of JSON:

    {"stacks": as model.stacks_json} or {"error": one line, "kind": model.REFUSED, GONE or FAILED}
"""
import json
import os
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find, procfs, threads
from modwsgi_tel.proc.access import explain, parse_status
from modwsgi_tel.stacks.model import FAILED, GONE, REFUSED, stacks_json
from modwsgi_tel.stacks.reader import Reader

ANSWER_BYTES = 192 << 10                # of one process: a millisecond of the collector's time
THREADS_MOST = 512
_FRAMES_MOST = (400, 200, 100, 50, 20, 5)
_LOOKS, _PAUSE_S = 3, 0.01              # as long as a thread moves
_MAPS_BYTES = 4 << 20


def take(question, allowed=None):
    """Read the stacks of one process; an answer.  allowed: None, or the uids whose processes may be read besides Apache's."""
    pid, start, uid = question
    try:
        wrong = _another(pid, start, uid) or _not_allowed(pid, allowed)
        if wrong:
            return wrong
        try:
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
        except PermissionError as error:
            return _error(REFUSED, explain(pid, error))
        stacks = _best_look(pid)
        return _another(pid, start, uid, stacks.start) or {"stacks": bounded(stacks_json(stacks))}
    except (TelError, OSError) as error:
        return _another(pid, start, uid) or _error(FAILED, str(error))


def _error(kind, text):
    return {"error": text, "kind": kind}


def _another(pid, start, uid, also=None):
    """An answer when this pid is not, or no longer, the process that is meant; else None."""
    try:
        now = procfs.stat(pid).start
        uids = parse_status(procfs.read(f"/proc/{pid}/status", 65536)).get(b"Uid", b"").split()
    except FileNotFoundError:
        return _error(GONE, f"process {pid} has ended")
    except (OSError, ValueError) as error:
        return _error(FAILED, f"cannot tell which process {pid} is: {error}")
    if now != start or also not in (None, start):
        return _error(GONE, f"process {pid} has ended; its pid is another process's now")
    if not uids or int(uids[0]) != uid:
        return _error(REFUSED, f"process {pid} is not of the user who sent its telemetry: it is not read")
    return None


def _not_allowed(pid, allowed):
    """An answer when the helper service is not there for this process; else None."""
    if allowed is None:
        return None
    uids = {int(word) for word in parse_status(procfs.read(f"/proc/{pid}/status", 65536)).get(b"Uid", b"").split()}
    if 0 in uids and 0 not in allowed:
        return _error(REFUSED, f"process {pid} is root's: stack-helper reads it with --for-uid 0 alone")
    if uids <= set(allowed):
        return None
    program = find.base_name(threads.executable(pid) or "")
    if find.is_apache(program) or b"/mod_wsgi" in procfs.read(f"/proc/{pid}/maps", _MAPS_BYTES):
        return None
    return _error(REFUSED, f"process {pid} is not Apache's: stack-helper reads it with --for-uid {min(uids)} alone")


def _best_look(pid):
    """The Stacks of a few looks in which the fewest threads moved."""
    reader = Reader(pid)
    best = None
    for turn in range(_LOOKS):
        if turn:
            time.sleep(_PAUSE_S)
        found = reader.look()
        moving = sum(1 for thread in found.threads if thread.problem)
        if best is None or moving < best[0]:
            best = moving, found
        if not moving:
            break
    return best[1]


def bounded(data):
    """The JSON of a process with at most THREADS_MOST threads and ANSWER_BYTES; what was left out is said."""
    if len(data["threads"]) > THREADS_MOST:
        data["problem"] = f"cut: {len(data['threads'])} threads, {THREADS_MOST} kept"
        data["threads"] = sorted(data["threads"], key=lambda thread: (not thread["owns_gil"], thread["idle"]))[:THREADS_MOST]
    for most in _FRAMES_MOST:
        for thread in data["threads"]:
            frames = thread["frames"]
            if len(frames) > most:
                said = thread["problem"] or f"cut: the innermost {most} of {len(frames)} frames kept"
                thread.update(frames=frames[:most], whole=False, problem=said)
        if len(json.dumps(data, separators=(",", ":"))) <= ANSWER_BYTES:
            return data
    return {**data, "threads": [], "problem": "cut: more than can be kept"}
