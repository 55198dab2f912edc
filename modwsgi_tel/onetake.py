"""One read of one process, for a collector: by its pid, its start and its user, in a process that does nothing else.

A question is (pid, start, uid, gid): the pid that the kernel told of a sender, its start in clock ticks since boot as /proc
told, and the sender's user and group.  Whatever else has that pid is not read, nor a process that has other rights as well:
its user could not read that one himself.  An answer is a dict of JSON:

    {"stacks": as model.table_json} or {"error": one line, "kind": model.REFUSED, DENIED, GONE or FAILED}
"""
import json
import os
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find, procfs, threads
from modwsgi_tel.proc.access import explain, parse_status
from modwsgi_tel.stacks.model import DENIED, FAILED, GONE, REFUSED, Frame, shortened, table_json
from modwsgi_tel.stacks.reader import Reader

ANSWER_BYTES = 512 << 10                # of one process: some milliseconds of the collector's time; net.helper carries twice that
THREADS_MOST = 512
FRAMES_MOST = 16 << 10                  # of all its threads
_KEPT = (2000, 400, 100, 30, 10)        # frames of a thread, where there are too many
_NAME_KEPT, _COMMAND_KEPT = 300, 1000   # letters, where that is still too much
_LOOKS, _PAUSE_S = 3, 0.01              # as long as a thread moves
_MAPS_BYTES = 4 << 20


def take(question, allowed=None):
    """Read the stacks of one process; an answer.  allowed: None, or the uids whose processes may be read besides Apache's."""
    pid = question[0]
    try:
        wrong = another(question) or _not_allowed(pid, allowed)
        if wrong:
            return wrong
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
        stacks = _best_look(pid)
        return another(question, stacks.start) or {"stacks": bounded(stacks)}
    except PermissionError as error:
        return another(question) or _error(REFUSED, explain(pid, error))
    except (TelError, OSError) as error:
        return another(question) or _error(FAILED, str(error))


def _error(kind, text):
    return {"error": text, "kind": kind}


def another(question, also=None):
    """An answer when this pid is not, or no longer, the process that is meant; else None."""
    pid, start, uid, gid = question
    try:
        now = procfs.stat(pid).start
        uids, gids = _ids(pid)
    except FileNotFoundError:
        return _error(GONE, f"process {pid} has ended")
    except (OSError, ValueError, KeyError) as error:
        return _error(FAILED, f"cannot tell which process {pid} is: {error}")
    if now != start or also not in (None, start):
        return _error(GONE, f"process {pid} has ended; its pid is another process's now")
    if (set(uids), set(gids)) != ({uid}, {gid}):
        return _error(DENIED, f"process {pid} is not wholly of the user and group who sent its telemetry (uids {_listed(uids)}, "
                              f"gids {_listed(gids)}): it is not read")
    return None


def _ids(pid):
    """(uids, gids) of a process: real, effective, saved, of the file system.  Raises OSError, ValueError or KeyError."""
    status = parse_status(procfs.read(f"/proc/{pid}/status", 65536))
    return [[int(word) for word in status[name].split()] for name in (b"Uid", b"Gid")]


def _listed(ids):
    return " and ".join(map(str, dict.fromkeys(ids)))


def _not_allowed(pid, allowed):
    """An answer when the helper service is not there for this process; else None."""
    if allowed is None:
        return None
    uids = set(_ids(pid)[0])
    if 0 in uids and 0 not in allowed:
        return _error(DENIED, f"process {pid} is root's: stack-helper reads it with --for-uid 0 alone")
    if uids <= set(allowed):
        return None
    program = find.base_name(threads.executable(pid) or "")
    if find.is_apache(program) or b"/mod_wsgi" in procfs.read(f"/proc/{pid}/maps", _MAPS_BYTES):
        return None
    return _error(DENIED, f"process {pid} is not Apache's: stack-helper reads it with --for-uid {min(uids)} alone")


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


def bounded(stacks):
    """The JSON of a Stacks with at most THREADS_MOST threads, FRAMES_MOST and ANSWER_BYTES; what was left out is said.

    Idle threads lose first, then those that are where another one is; last those that serve a request or hold the GIL.
    """
    if len(stacks.threads) > THREADS_MOST:
        stacks = _without_threads(stacks, [each for _, each in _ranked(stacks.threads)][:THREADS_MOST], len(stacks.threads))
    data = _fitting(stacks)
    if data is not None:
        return data
    ranked, most = _ranked(stacks.threads), {}
    for rank in range(_LOWEST, -1, -1):
        for most[rank] in _KEPT:
            cut = stacks._replace(threads=tuple(_cut(thread, most.get(which)) for which, thread in ranked))
            data = _fitting(cut)
            if data is not None:
                return data
    cut = cut._replace(command=cut.command[:_COMMAND_KEPT], threads=tuple(map(_clipped, cut.threads)))
    kept = cut.threads
    while True:
        data = _fitting(cut if kept is cut.threads else _without_threads(cut, kept, len(cut.threads)))
        if data is not None:
            return data
        kept = kept[:len(kept) // 2]


_LOWEST = 3


def _ranked(threads):
    """[(rank, ThreadStack)], those that are kept longest first."""
    seen, ranked = set(), []
    for thread in threads:
        rank = (0 if thread.request is not None or thread.owns_gil else _LOWEST if thread.idle else
                2 if thread.frames in seen else 1)
        seen.add(thread.frames)
        ranked.append((rank, thread))
    return sorted(ranked, key=lambda each: each[0])


def _fitting(stacks):
    """The JSON of a Stacks, or None when it is too large."""
    if sum(len(thread.frames) for thread in stacks.threads) > FRAMES_MOST:
        return None
    data = table_json(stacks)
    return data if len(json.dumps(data)) <= ANSWER_BYTES else None


def _cut(thread, most):
    """As `shortened`, but what was wrong with it before stays said."""
    found = shortened(thread, most)
    return found._replace(problem=thread.problem or found.problem)


def _clipped(thread):
    return thread._replace(frames=tuple(Frame(frame.function[:_NAME_KEPT], frame.file[-_NAME_KEPT:], frame.line, frame.interpreter)
                                        for frame in thread.frames))


def _without_threads(stacks, kept, whole):
    said = f"cut: {len(kept)} of {whole} threads kept"
    return stacks._replace(threads=tuple(kept), problem=f"{stacks.problem}; {said}" if stacks.problem else said)
