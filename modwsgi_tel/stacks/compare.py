"""Stacks side by side: threads with the same one, threads with nothing to do, and one thread at several looks."""
from collections import namedtuple

from modwsgi_tel.stacks.model import DISK, GONE, RUNNING, STOPPED, UNKNOWN, WAITING, is_whole

# --- nothing to do --------------------------------------------------------------------------

# What the kernel says that a thread waits in, the first word of ThreadStack.wait.
_LOCK = frozenset(("futex",))
_EPOLL = frozenset(("epoll_wait", "epoll_pwait", "epoll_pwait2"))
_SELECT = _EPOLL | {"select", "pselect6", "poll", "ppoll"}
_ACCEPT = frozenset(("accept", "accept4"))
_READ = frozenset(("read", "recvfrom", "recvmsg"))
_SLEEP = frozenset(("nanosleep", "clock_nanosleep"))
# A wait with a timeout that a stop has interrupted (SIGSTOP, a tracer): what it goes on with is not told.
_NOT_TOLD = frozenset(("", "restart_syscall"))
# A thread that writes to a slow client has no frames either: it waits in poll, which is therefore not here.
_NO_FRAMES = _LOCK | _EPOLL | _ACCEPT

# (the end of the file's name, functions): they wait on behalf of who called them, for whatever that may be.
WAITERS = (
    ("threading.py", ("wait",)),
    ("queue.py", ("get",)),
    ("selectors.py", ("select",)),
    ("concurrent/futures/process.py", ("wait_result_broken_or_wakeup",)),
    ("multiprocessing/connection.py", ("wait", "recv", "recv_bytes", "_recv_bytes", "_recv")),
    ("multiprocessing/queues.py", ("get",)),
    ("multiprocessing/synchronize.py", ("__enter__",)),
    ("multiprocessing/pool.py", ("_wait_for_updates",)),
    ("logging/handlers.py", ("dequeue",)),
    ("cheroot/connections.py", ("select",)),
)

Place = namedtuple("Place", "file function waits itself", defaults=(False,))
Place.__doc__ = """Where a thread has nothing to do.  file: how its name ends.  function: its name; with a dot, its qualified
name.  waits: what it waits in then.  itself: True when it may be the innermost frame (what else it calls has frames of its own),
a tuple of lines where it may be, or False: one of WAITERS has to be inside of it."""

# From the sources of Python 3.8 to 3.15, gunicorn 20 to 27, waitress 3, cheroot 8 to 11, hypercorn 0.18, uvloop 0.23, tqdm 4,
# APScheduler 3.
PLACES = (
    Place("concurrent/futures/thread.py", "_worker", _LOCK, True),
    Place("concurrent/futures/process.py", "_process_worker", _LOCK | _READ),
    Place("concurrent/futures/process.py", "_ExecutorManagerThread.run", _SELECT),
    Place("concurrent/futures/process.py", "_queue_management_worker", _SELECT),    # 3.8
    # a task that is written in C has no frame: then `worker` waits at another line
    Place("multiprocessing/pool.py", "worker", _LOCK | _READ, (114,)),
    Place("multiprocessing/pool.py", "_handle_workers", _SELECT | _SLEEP),
    Place("multiprocessing/pool.py", "_handle_tasks", _LOCK, True),
    Place("multiprocessing/pool.py", "_handle_results", _LOCK | _READ, True),
    Place("multiprocessing/queues.py", "_feed", _LOCK),
    Place("multiprocessing/resource_tracker.py", "main", _READ, True),
    Place("multiprocessing/forkserver.py", "main", _SELECT),
    Place("logging/handlers.py", "_monitor", _LOCK),
    Place("socketserver.py", "serve_forever", _SELECT),
    Place("asyncio/base_events.py", "_run_once", _SELECT),
    Place("asyncio/runners.py", "run", _EPOLL, True),               # uvloop: its loop is written in C
    Place("threading.py", "Timer.run", _LOCK),                      # before 3.11 a name alone: any thread's `run`
    Place("modwsgi_tel/agent/monitor.py", "_turn", _SELECT, True),
    Place("gunicorn/arbiter.py", "sleep", _SELECT, True),
    Place("gunicorn/arbiter.py", "wait_for_signals", _LOCK, True),
    Place("gunicorn/workers/sync.py", "wait", _SELECT, True),
    Place("gunicorn/workers/gthread.py", "run", _SELECT),
    Place("gunicorn/workers/gthread.py", "wait_for_and_dispatch_events", _SELECT),
    Place("waitress/task.py", "handler_thread", _LOCK),
    Place("waitress/wasyncore.py", "poll", _SELECT, True),
    Place("waitress/wasyncore.py", "poll2", _SELECT, True),
    Place("cheroot/workers/threadpool.py", "run", _LOCK),
    Place("cheroot/workers/threadpool.py", "_process_connections_until_interrupted", _LOCK),
    Place("cheroot/server.py", "_serve_unservicable", _LOCK),
    Place("cheroot/connections.py", "_run", _SELECT),
    Place("hypercorn/run.py", "run", _SELECT),
    Place("tqdm/_monitor.py", "run", _LOCK),
    Place("apscheduler/schedulers/blocking.py", "_main_loop", _LOCK),
)


def _last(name):
    return name.rpartition(".")[2]


def _ends(path, end):
    return path == end or path.endswith("/" + end)


def _by_function(rows):
    """{a function's name without what it is qualified by: [row]}: one look instead of a walk of the table a frame."""
    found = {}
    for name, row in rows:
        found.setdefault(_last(name), []).append(row)
    return found


_WAITERS = _by_function((name, file) for file, names in WAITERS for name in names)
_PLACES = _by_function((place.function, place) for place in PLACES)


def _is_waiter(frame):
    return any(_ends(frame.file, file) for file in _WAITERS.get(_last(frame.function), ()))


def _place(frame):
    return next((place for place in _PLACES.get(_last(frame.function), ()) if _ends(frame.file, place.file)
                 and ("." not in place.function or place.function == frame.function)), None)


def idle(thread):
    """Whether a ThreadStack is a thread with nothing to do, by its frames and by what the kernel says.

    Only where that is sure: never one that runs, holds the GIL, serves a request or was not read
    whole.  A thread that has just been given work and waits for the GIL looks as if it had none.
    Where the kernel does not tell what a thread with frames waits in, they alone decide.
    """
    if thread.state != WAITING or thread.owns_gil or thread.request is not None or not is_whole(thread):
        return False
    wait = (thread.wait or "").partition(" ")[0]
    if not thread.frames:
        return not wait or wait in _NO_FRAMES
    inside = 0
    for frame in thread.frames:
        place = _place(frame)
        if place is not None:
            itself = place.itself is True or bool(place.itself) and frame.line in place.itself
            return (inside > 0 or itself) and (wait in _NOT_TOLD or wait in place.waits)
        if not _is_waiter(frame):
            return False
        inside += 1
    return False


def waits_at(frames):
    """Of the frames of an idle thread the one that waits for work, which is seldom the innermost."""
    return next(filter(_place, frames), frames[0])


def without_idle(threads):
    """Those ThreadStacks that are not marked as idle, in the same order."""
    return [thread for thread in threads if not thread.idle]


# --- the same stack ---------------------------------------------------------------------------

_RANKS = {RUNNING: 1, DISK: 2, WAITING: 3, STOPPED: 4, UNKNOWN: 5, GONE: 6}


def rank(thread):
    """0 for a holder of the GIL; then running, waiting, the others; idle ones last."""
    if thread.owns_gil:
        return 0
    return 7 if thread.idle else _RANKS.get(thread.state, _RANKS[UNKNOWN])


def grouped(threads):
    """[(ThreadStack, ...)]: threads that have the same stack together; who is first by `rank` comes first.

    The same stack: the same frames, interpreter, values, and whether it is idle.  One that is cut
    or moving stands alone: what is not known whole is not known to be the same.  Those without
    frames share their state.  Among groups of one rank the largest is first, then the one with the
    first thread; within one, by rank.
    """
    return _by_key(threads, lambda thread: thread, lambda thread: (
        thread.frames or rank(thread), thread.interpreter, thread.values, thread.idle) if is_whole(thread) else None)


def _by_key(items, thread_of, key_of):
    """`items` in groups by key (None: alone), sorted by the ranks of their threads, then by size."""
    groups = {}
    for place, item in enumerate(items):
        key = key_of(item)
        groups.setdefault((place, None) if key is None else (-1, key), []).append(item)
    ordered = [tuple(sorted(group, key=lambda item: rank(thread_of(item)))) for group in groups.values()]
    return sorted(ordered, key=lambda group: (rank(thread_of(group[0])), -len(group)))


# --- recursion --------------------------------------------------------------------------------

PERIOD_MOST = 8                         # functions that call one another in a circle, and are folded
SHOWN_ROUNDS = 3                        # of a recursion, before it is folded: as Python has it


def folded(frames):
    """[(index, count, rounds)]: the frames that are shown, and after which a recursion is folded.

    A round of up to PERIOD_MOST frames that comes more than SHOWN_ROUNDS times in a row is shown
    SHOWN_ROUNDS times.  index: of a frame to show, or None for a fold: `count` frames, `rounds` more times.
    """
    out, place = [], 0
    while place < len(frames):
        count, rounds = _recursion(frames, place)
        if rounds <= SHOWN_ROUNDS:
            out.append((place, 1, 0))
            place += 1
            continue
        out += [(each, 1, 0) for each in range(place, place + count * SHOWN_ROUNDS)]
        out.append((None, count, rounds - SHOWN_ROUNDS))
        place += count * rounds
    return out


def _recursion(frames, place):
    """(frames of a round, how often in a row) from `place` on."""
    for count in range(1, PERIOD_MOST + 1):
        end = place + count
        while end < len(frames) and frames[end] == frames[end - count]:
            end += 1
        rounds = (end - place) // count
        if rounds > SHOWN_ROUNDS:
            return count, rounds
    return 1, 1


# --- one thread at several looks --------------------------------------------------------------

FIRST, CAME, STAYED, LINES, MOVED = "first", "came", "stayed", "lines", "moved"
UNREAD, ABSENT, ENDED = "unread", "absent", "ended"

Look = namedtuple("Look", "what thread hot", defaults=(None, ()))
Look.__doc__ = """A thread at one of several looks.

what: FIRST (there at the first look), CAME (there for the first time, later), STAYED (the same stack as at the last look that was
read whole), LINES (the same functions, at other lines), MOVED (other functions, or another request), UNREAD (moving or cut, see
its problem: says nothing about the others), ABSENT (not there yet), ENDED (not there any more).
thread: the ThreadStack, None where there is none.  hot: its Frames inside of the common part, innermost first; () for UNREAD."""

Compared = namedtuple("Compared", "common looks")
Compared.__doc__ = """What stayed and what moved.

common: the outer Frames that all looks share, innermost first: cold, all inside of it is hot.  () when no look was read whole.
looks: a Look for each one that was taken."""


def of_threads(looks):
    """{(start, tid): [ThreadStack or None for each look]} of several Stacks of one pid, oldest first.

    `start` is the process's: a pid that was given away meanwhile has other threads.  Threads
    whose tid is not known cannot be told from one another and are left out.
    """
    found = {}
    for place, stacks in enumerate(looks):
        for thread in stacks.threads:
            if thread.tid is not None:
                found.setdefault((stacks.start, thread.tid), [None] * len(looks))[place] = thread
    return found


def compared(looks):
    """The Compared of one thread's looks: ThreadStacks, None where it was not there, oldest first."""
    read = [thread for thread in looks if thread is not None and is_whole(thread)]
    common = _common([thread.frames for thread in read])
    out, before, seen = [], None, False
    for place, thread in enumerate(looks):
        if thread is None:
            out.append(Look(ENDED if seen else ABSENT))
            continue
        if not is_whole(thread):
            out.append(Look(UNREAD, thread))
        else:
            what = (FIRST if place == 0 else CAME) if not seen else FIRST if before is None else _what(before, thread)
            out.append(Look(what, thread, thread.frames[:len(thread.frames) - len(common)]))
            before = thread
        seen = True
    return Compared(common, tuple(out))


def _common(stacks):
    """The outer frames that all stacks share, innermost first."""
    if not stacks:
        return ()
    least = min(map(len, stacks))
    same = next((depth for depth in range(least) if any(frames[-1 - depth] != stacks[0][-1 - depth] for frames in stacks)), least)
    return stacks[0][len(stacks[0]) - same:]


def _what(before, thread):
    if before.request and thread.request and before.request != thread.request:
        return MOVED
    if before.frames == thread.frames:
        return STAYED
    return LINES if [each._replace(line=None) for each in before.frames] == [
        each._replace(line=None) for each in thread.frames] else MOVED


def grouped_looks(looks):
    """[(Compared, ...)]: the threads of several Stacks of one pid; those that were the same at every look together.

    Sorted as by `grouped`, each thread by the look at which its rank was the lowest.
    """
    def busiest(each):
        return min((look.thread for look in each.looks if look.thread is not None), key=rank)

    def key(each):
        if any(look.what == UNREAD for look in each.looks):
            return None
        most = busiest(each)
        return (each.common or rank(most), most.interpreter, most.idle, tuple((look.what, look.hot) for look in each.looks))
    return _by_key(list(map(compared, of_threads(looks).values())), busiest, key)
