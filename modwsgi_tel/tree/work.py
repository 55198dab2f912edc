"""Who works for which request: the threads of one process, as looks at it and telemetry have them.

Under mod_wsgi and uWSGI threads that serve requests are made in C, so that none of threading's frames is outermost; under
other servers the server's own frames are outside of the application's.  Whoever else holds a request's environ works for it
in the background; when nobody serves that request any more, it has ended and left the thread behind.

That it has ended is said only where it is sure: who holds it did so at LOOKS looks, and nobody served it at the last two of them,
nor could one that does not show what it serves.  (When Apache read a request does not tell when it was given to the application;
and a thread that waits for the GIL to go on looks for a moment as if it had nothing to do.)  Or telemetry, which tells of each
request that takes longer than its threshold, does not tell of it.
"""
from collections import namedtuple

from modwsgi_tel.stacks.model import RUNNING, WAITING, is_whole
from modwsgi_tel.tree.frames import is_background, is_server
from modwsgi_tel.tree.model import AGENT, TAKEN, VANISHED

LATE_S = 1.0                            # by which telemetry may be late, besides its interval
LOOKS = 3                               # at which a thread must have held a request that nobody serves
CLOCKS_S = 0.05                         # by which the start of a process and that of a request may differ, as they are told
# What a server's thread waits in while C code writes an answer; those that wait for work are in others.
_WRITES = frozenset(("poll", "ppoll", "write", "writev", "sendto", "sendmsg", "sendfile"))

_KINDS = _SERVES, _BEHIND, _UNKNOWN, _FREE, _IDLE, _OUTSIDE = "serves", "behind", "unknown", "free", "idle", "outside"

Work = namedtuple("Work", "served dead unsure free idle outside")
Work.__doc__ = """What the threads of a process do.

served: [Served], those with threads first.  dead: [Served] that have ended, with the threads that they left behind.
unsure: [(ThreadStack, why)]: each holds the environ of a request of which it cannot be told whether it has ended.
free: ThreadStacks that work for no request.  idle: those with nothing to do.  outside: those without Python frames."""

Served = namedtuple("Served", "request threads entry guessed", defaults=(None, (), None, False))
Served.__doc__ = """A request that is being served.

request: model.Request, or None where no thread tells it.  threads: the one that serves it first, then those that work for it in the
background; () where telemetry alone tells of it.  entry: telemetry's, as /api/slow has it, or None.  guessed: request and telemetry
belong together since there are no others."""


def same_request(one, other):
    """Whether two model.Requests of one process are the same request, as far as they tell."""
    if one.request_id and other.request_id:
        return one.request_id == other.request_id
    if None not in (one.started, other.started) and one.started != other.started:
        return False
    return (one.thread_id, one.method, one.path) == (other.thread_id, other.method, other.path)


def serves(thread):
    """Whether a thread with a request is the one that serves it."""
    request = thread.request
    if request.how == "agent" or not is_background(thread.frames):
        return True
    return any(map(is_server, thread.frames[-1 - request.place:]))


def work_of(process, entries=(), told=None):
    """The Work of a model.Process by the last of its looks.

    entries: telemetry's slow requests of it, as /api/slow has them, those that go on.  told: wall seconds, of when they were; None:
    telemetry has told nothing.
    """
    if process.life == VANISHED:
        return Work([], [], [], [], [], [])
    if not process.looks:
        return Work([Served(entry=entry) for entry in entries], [], [], [], [], [])
    threads = {kind: [] for kind in _KINDS}
    for thread in process.looks[-1].threads:
        threads[_kind(thread, process)].append(thread)
    left = list(entries)
    # a look of a while ago shows what telemetry knows to have ended since
    found = [each for each in _served(threads[_SERVES]) if process.source != TAKEN or not _is_over(process, each.request, left, told)]
    for place, each in enumerate(found):
        entry = next((entry for entry in left if _is_of(entry, each.request)), None)
        if entry is not None:
            left.remove(entry)
            found[place] = each._replace(entry=entry)
    dead, unsure, unknown = [], [], threads[_UNKNOWN]
    for thread in threads[_BEHIND]:
        _behind(thread, found, left, dead, unsure, process, told)
    if len(left) == len(unknown) == 1:
        found.append(Served(None, (unknown.pop(),), left.pop(), True))
    found += [Served(None, (thread,)) for thread in unknown]
    return Work(found + [Served(entry=entry) for entry in left], dead, unsure, threads[_FREE], threads[_IDLE], threads[_OUTSIDE])


def _kind(thread, process):
    """What a thread is, of _KINDS."""
    if thread.request is not None:
        return _SERVES if serves(thread) else _BEHIND
    if thread.idle:
        return _IDLE
    if process.source != AGENT and thread.tid != process.pid and _serves_something(thread, process.server):
        return _UNKNOWN
    return _FREE if thread.frames or not is_whole(thread) else _OUTSIDE


def _serves_something(thread, server):
    """Whether a thread of a server in C serves a request, though it does not show which."""
    if thread.frames:
        return server in ("apache", "uwsgi") and is_whole(thread) and not is_background(thread.frames)
    return server == "apache" and is_whole(thread) and thread.state == WAITING and (thread.wait or "").partition(" ")[0] in _WRITES


def _served(threads):
    """[Served] of threads that serve: each request once."""
    found = []
    for thread in threads:
        at = next((place for place, each in enumerate(found) if thread.request.request_id
                   and each.request.request_id == thread.request.request_id), None)
        if at is None:
            found.append(Served(thread.request, (thread,)))
        else:
            found[at] = found[at]._replace(threads=(*found[at].threads, thread))
    return found


def _is_of(entry, request):
    """Whether telemetry's entry is of a request."""
    if entry.get("log_id") and request.request_id:
        return entry["log_id"] == request.request_id
    path = f"{entry.get('script_name') or ''}{entry.get('path_info') or ''}"
    return request.thread_id is not None and str(entry.get("thread_id")) == str(request.thread_id) and path == (request.path or "")


def _is_over(process, request, entries, told):
    """Whether telemetry, which tells of each request that takes longer than a threshold, does not tell of this one any more."""
    row, started = process.row or {}, request.started
    if None in (told, started) or row.get("life") != "running" or any(_is_of(entry, request) for entry in entries):
        return False
    threshold = row.get("slow_threshold")
    return bool(threshold) and threshold > 0 and started < told - threshold - 2 * (row.get("interval") or 1.0) - LATE_S


def _behind(thread, found, entries, dead, unsure, process, told):
    """Put a thread that holds a request's environ, and does not serve it, where it belongs."""
    request = thread.request
    for place, each in enumerate(found):
        if each.request is not None and same_request(each.request, request):
            found[place] = each._replace(threads=(*each.threads, thread))
            return
    entry = next((entry for entry in entries if _is_of(entry, request)), None)
    if entry is not None and (entry.get("received") or 0) > (process.looks[-1].at or 0):
        entries.remove(entry)
        found.append(Served(request, (thread,), entry))
        return
    why = "" if _is_over(process, request, entries, told) else _unsure(thread, process)
    if why:
        unsure.append((thread, why))
        return
    if entry is not None:
        entries.remove(entry)           # what it last said is older than what was seen
    at = next((place for place, each in enumerate(dead) if same_request(each.request, request)), None)
    if at is None:
        dead.append(Served(request, (thread,), entry))
    else:
        dead[at] = dead[at]._replace(threads=(*dead[at].threads, thread))


def _unsure(thread, process):
    """Why it cannot be told that the request of a thread has ended, or ""."""
    looks = process.looks[-LOOKS:]
    if len(looks) < LOOKS or not all(_holds(look, thread) for look in looks):
        return "it may have begun while threads were read: look again"
    return next(filter(None, (_may_be_served(look, thread.request, process) for look in looks[1:])), "")


def _holds(look, thread):
    """Whether a thread holds the same request at another look."""
    return any(each.tid == thread.tid and each.request is not None and same_request(each.request, thread.request)
               for each in look.threads)


def _may_be_served(look, request, process):
    """Why a request that had begun before a look may have been served then, or ""."""
    serving = [each.request for each in look.threads if each.request is not None and serves(each)]
    if any(same_request(each, request) for each in serving):
        return "it was served a moment ago: look again"
    if request.thread_id and any(each.thread_id == request.thread_id for each in serving):
        return ""                       # who served it serves another one
    numbers = {each.tid: each.request.thread_id for one in process.looks for each in one.threads
               if each.request is not None and each.request.thread_id and serves(each) and each.tid is not None}
    blind = [each for each in look.threads if _is_blind(each, process)
             and (each.tid not in numbers or request.thread_id in (None, numbers[each.tid]))]
    if not blind:
        return ""
    tids = ", ".join("?" if each.tid is None else str(each.tid) for each in blind[:4]) + (", ..." if len(blind) > 4 else "")
    return f"thread{'s' if len(blind) > 1 else ''} {tids} may serve it, and cannot be seen to"


def _is_blind(thread, process):
    """Whether a thread may serve a request without its being seen."""
    kind = _kind(thread, process)
    return kind == _UNKNOWN or kind in (_FREE, _OUTSIDE) and (not is_whole(thread) or not thread.frames and thread.state == RUNNING)


def wants_another_look(process):
    """Whether one more look at a model.Process could tell more: of a thread that may have been left behind."""
    return bool(work_of(process).unsure)
