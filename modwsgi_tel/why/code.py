"""Rules about the code: who holds the GIL, which locks are waited for, and what requests wait for or compute."""
import re
from collections import Counter

from modwsgi_tel.figures import counted, duration, percent
from modwsgi_tel.findings import INFO
from modwsgi_tel.stacks.model import DISK, RUNNING, WAITING, is_whole
from modwsgi_tel.why.judged import Saw, evidence, stack
from modwsgi_tel.why.scene import Run, Sample, application_frame, is_client, is_library, is_server_at_work, place_of, short_place, wants_gil, works_behind

LOOKS_LEAST = 5                         # before anything is said of how often something was so
HELD_SHARE, HELD_SAME = 0.8, 0.9        # looks at which one thread has the GIL; of these, at one line
BUSY_CORES, BUSY_CORES_LEAST = 0.75, 0.2        # of a process whose GIL is the bottleneck: used or waited for; used
WANTING, WANTING_ONE = 0.5, 0.2         # threads that want the GIL, in the mean; where one and the same thread nearly always has it
COLLECTING_SHARE = 0.2                  # looks at which garbage is collected
LOCK_S = 0.8
LONG_S, LONG_LEAST = 1.0, 2             # requests so long, so many of them
AGAIN_S = 2.0                           # a request so long, that another one of its path follows
PATIENT_S = 4.0                         # a wait so long, one at a time, may be long polling
STUCK_S = 30.0                          # one alone
MANY_THREADS = 8                        # of which one that is busy for long hurts nobody
_REGEX = re.compile(r"\.(match|search|fullmatch|finditer|findall|subn?|split)\(")
_OWN_SOCKET = re.compile(r"wsgi\.\d+\.\d+\.\d+\.sock$")
SHOWN = 3                               # stacks and requests as evidence


def who(process):
    """How a sentence calls a process."""
    return f"pid {process.pid} of {process.name}"


# --- the GIL ----------------------------------------------------------------------------------

def _owners(process):
    """[(look's place, ThreadStack)] of who had the GIL."""
    return [(place, thread) for place, look in enumerate(process.looks) for thread in look.stacks.threads if thread.owns_gil]


def hottest(threads):
    """(the application's Frame that most of these stacks are in, how many are in its function, in all)."""
    frames = [frame for frame in (application_frame(thread.frames) for thread in threads) if frame is not None]
    functions = Counter((frame.function, frame.file) for frame in frames)
    if not functions:
        return None, 0, 0
    function, number = functions.most_common(1)[0]
    lines = Counter(frame for frame in frames if (frame.function, frame.file) == function)
    return lines.most_common(1)[0][0], number, len(frames)


def _kept(process):
    """(thread, Frame) of who keeps the GIL at one line at nearly every look, or None."""
    owners = _owners(process)
    looks = len(process.looks)
    if looks < LOOKS_LEAST or not owners:
        return None
    tid, number = Counter(thread.tid for _, thread in owners).most_common(1)[0]
    mine = [thread for _, thread in owners if thread.tid == tid and is_whole(thread) and thread.frames]
    if number < HELD_SHARE * looks or not mine:
        return None
    stacks = Counter(thread.frames for thread in mine)
    frames, same = stacks.most_common(1)[0]
    if same < HELD_SAME * number:
        return None
    if sum(thread.state == RUNNING for thread in mine) < HELD_SHARE * len(mine):
        return None
    return next(thread for thread in mine if thread.frames == frames), application_frame(frames)


_COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>")


def _moved(process, but, frame):
    """Whether another thread that serves made any progress; None where no other one was there to tell."""
    stacks, requests, ended = {}, {}, False
    for run in process.runs():
        if run.tid != but:
            requests.setdefault(run.tid, []).append(run)
            ended = ended or run.last.place < len(process.looks) - 2
    for look in process.looks:
        for thread in look.stacks.threads:
            if thread.tid in requests:
                stacks.setdefault(thread.tid, set()).add(thread.frames)
    if not requests:
        # one expression over a generator is one line as well, and lets others go on
        return True if frame.function.rpartition(".")[2] in _COMPREHENSIONS else None
    return ended or any(len(found) > 1 for found in stacks.values()) or any(len(found) > 1 for found in requests.values())


def gil_held(scene):
    for process in scene.processes:
        kept = _kept(process)
        if kept is None:
            continue
        thread, frame = kept
        if _moved(process, thread.tid, thread.frames[0]):
            continue                    # then it is let go of now and then: gil_contention's
        others = len(_wanting(process.looks[-1]) - {thread.tid})
        run = max((run for run in process.runs() if run.tid == thread.tid), key=lambda run: run.age_s, default=None)
        if run is not None and run.age_s < LONG_S:
            continue                    # short requests, one after another, that all are at that line
        age = run.age_s if run is not None else process.looks[-1].at - process.looks[0].at
        inner = thread.frames[0]
        what = f"{inner.function} called at {short_place(frame)}" if inner != frame else f"a call at {short_place(frame)}"
        serving = f", serving {run.label}" if run is not None and run.path else ""
        waiting = f"; {counted(others, 'other thread')} cannot go on" if others else ""
        told = [stack(process, thread, f"has the GIL at every look, at the same line ({len(process.looks)} looks)"), *_cpu_of(process)]
        yield Saw(f"{who(process)}: the GIL is held by C code in {what} for {duration(age)} or longer{serving}{waiting}", process.group, process.pid,
                  scene.at - age, told, place=place_of(frame), same=("silent", "gil-contention", "slow-requests", "stuck-request", "threads-busy"),
                  advice=_held_advice(inner, frame, process.source(frame)))


def _is_regex(inner, source):
    """Whether the call is one of re's, by the module it is in or by how it is written."""
    return "/re/" in inner.file or inner.file.endswith("/re.py") or _REGEX.search(source) is not None


def _held_advice(inner, frame, source):
    if _is_regex(inner, source):
        return (f"A regular expression that backtracks without end (catastrophic backtracking): rewrite the pattern used at {short_place(frame)} without nested "
                "repeats, and limit the length of its input. Nothing else runs in this process meanwhile; restart the process to go on now.")
    return (f"C code called at {short_place(frame)} does not let go of the GIL: do less in one call, use a library that releases it, or do it in another "
            "process. Nothing else runs in this process meanwhile; restart the process to go on now.")


def _cpu_of(process):
    cores = (process.rates or {}).get("cpu")
    return [] if cores is None else [evidence("proc", f"pid {process.pid} uses {cores:.2f} cores")]


def gil_contention(scene):
    for process in scene.processes:
        looks = len(process.looks)
        cores = (process.rates or {}).get("cpu")
        waited = (process.rates or {}).get("run_wait") or 0.0           # for a core, where others want it too
        if looks < LOOKS_LEAST or cores is None or cores < BUSY_CORES_LEAST or cores + waited < BUSY_CORES:
            continue
        kept = _kept(process)
        if kept is not None and not _moved(process, kept[0].tid, kept[0].frames[0]):
            continue
        locked = {(wait.tid, wait.place) for wait in process.locks}
        mean = sum(len(_wanting(look, locked)) for look in process.looks) / looks
        owners = running(process)
        hot, number, told = hottest(owners)
        if hot is None or is_server_at_work(next(thread for thread in owners if application_frame(thread.frames) == hot).frames):
            continue                    # many short requests
        busiest, times = Counter(thread.tid for thread in owners).most_common(1)[0]
        if mean < (WANTING_ONE if times >= HELD_SHARE * looks else WANTING):
            continue
        one = times >= 0.6 * len(owners)
        example = next(thread for thread in owners if application_frame(thread.frames) == hot)
        run = next((run for run in process.runs() if run.tid == example.tid and run.path), None)
        serving = f", serving {run.label}" if one and run is not None else "" if not one or run is not None else ", outside of any request"
        if one:
            text = (f"{who(process)}: GIL contention: thread {busiest} computes in {hot.function} ({short_place(hot)}) {percent(number / told)} of the time"
                    f"{serving}; {_wanting_text(mean)}")
        else:
            text = (f"{who(process)}: GIL contention: {mean:.1f} threads want the GIL at any moment; most of the time goes to {hot.function} "
                    f"({short_place(hot)}), {percent(number / told)} of it")
        yield Saw(text, process.group, process.pid, None,
                  [stack(process, example, f"runs: {hot.function} at {number} of {told} looks"), *_cpu_of(process),
                   *(stack(process, thread, "wants the GIL") for thread in process.looks[-1].stacks.threads[:200] if thread.frames and wants_gil(thread, process.looks[-1])
                     and _place(thread) not in locked)][:SHOWN + 2],
                  place=place_of(hot), same=("gil-contention", "slow-requests", "threads-busy", "queueing"),
                  advice=(f"The regular expression at {short_place(hot)} takes this time: see whether its pattern backtracks (nested repeats), and limit the length of its "
                          "input. " if _is_regex(example.frames[0], process.source(hot)) else "") +
                  f"Python code runs one thread at a time: make {hot.function} at {short_place(hot)} do less, move it to another process, or serve with fewer "
                         "threads and more processes.")


def _wanting(look, locked=()):
    """The ids of the threads that want the GIL at a look; of those that the kernel does not tell of not the ones in `locked` places."""
    if look.wanting is not None:
        return look.wanting
    return {thread.tid for thread in look.stacks.threads if wants_gil(thread, look) and _place(thread) not in locked}


def _wanting_text(mean):
    return f"{mean:.1f} other threads want the GIL at any moment" if mean >= 1 else "others that serve wait for the GIL each time they want it"


def _place(thread):
    frame = application_frame(thread.frames)
    return thread.tid, None if frame is None else place_of(frame)


def running(process):
    """ThreadStacks that had the GIL or ran, one a look at least where there was one."""
    out = []
    for look in process.looks:
        threads = [thread for thread in look.stacks.threads if thread.owns_gil and thread.frames]
        out += threads or [thread for thread in look.stacks.threads if thread.state == RUNNING and thread.frames]
    return out


def collecting(scene):
    for process in scene.processes:
        told = [look.stacks for look in process.looks if look.stacks.collecting is not None]
        if len(told) < LOOKS_LEAST:
            continue
        during = [stacks for stacks in told if stacks.collecting]
        share = len(during) / len(told)
        if len(during) < 3 or share < COLLECTING_SHARE:
            continue
        hot, number, seen = hottest([thread for stacks in during for thread in stacks.threads if thread.owns_gil and thread.frames])
        where = "" if hot is None else f", most often in {hot.function} ({short_place(hot)})"
        example = next((thread for stacks in during for thread in stacks.threads
                        if thread.owns_gil and application_frame(thread.frames) == hot), None) if hot else None
        yield Saw(f"{who(process)}: garbage is collected {percent(share)} of the time{where}", process.group, process.pid, None,
                  [evidence("memory", f"a garbage collection runs at {len(during)} of {len(told)} looks"), *([stack(process, example, "collects")] if example else []),
                   *_cpu_of(process)], place=None if hot is None else place_of(hot), same=("gc-pauses", "gil-contention", "slow-requests"))


# --- locks ------------------------------------------------------------------------------------

_LOCKS = ("lock", "rlock", "semaphore")


def deadlock(scene):
    for process in scene.processes:
        for cycle in process.cycles:
            places = " and ".join(f"thread {wait.tid} waits for {wait.lock or 'a lock'} at {wait.place.rpartition('/')[2]}" for wait in cycle)
            ages = [run.age_s for run in process.runs() if run.tid in {wait.tid for wait in cycle}]
            age = max(ages, default=None)
            since = "" if age is None else f" for {duration(age)} or longer"
            yield Saw(f"{who(process)}: deadlock of {counted(len(cycle), 'thread')}{since}: {places}; each has what the other wants"
                      if len(cycle) > 1 else f"{who(process)}: deadlock: {places}, which it holds itself", process.group, process.pid,
                      None if age is None else scene.at - age,
                      [*(evidence("lock", f"thread {wait.tid} waits for {wait.lock or 'a lock'} in {wait.function} at {wait.place}: thread {wait.owner_tid} "
                                  f"{wait.how}", wait.place) for wait in cycle), *_stacks_of(process, [wait.tid for wait in cycle])],
                      place=cycle[0].place, same=("stuck-request", "slow-requests", "threads-busy"), advice=_TWICE if len(cycle) == 1 else None)


_TWICE = "A thread takes a plain lock that it has already: use threading.RLock, or do not take it again further in; only a restart of the process frees it now."


def _stacks_of(process, tids):
    threads = {thread.tid: thread for thread in process.looks[-1].stacks.threads} if process.looks else {}
    return [stack(process, threads[tid]) for tid in tids[:SHOWN] if tid in threads]


def lock(scene):
    for process in scene.processes:
        in_cycle = {wait.tid for cycle in process.cycles for wait in cycle}
        runs = {run.tid: run for run in process.runs() if run.last.place == len(process.looks) - 1}
        groups = {}
        for wait in process.locks:
            run = runs.get(wait.tid)
            if wait.kind in _LOCKS and wait.tid not in in_cycle and run is not None and (run.served_s >= LOCK_S):
                groups.setdefault((wait.owner_tid, wait.lock if wait.owner_tid is None else ""), []).append((wait, run))
        for (owner, _), held in groups.items():
            if len(held) < LONG_LEAST and max(run.served_s for _, run in held) < STUCK_S:
                continue
            wait, run = max(held, key=lambda each: each[1].served_s)
            held_by = f", held by thread {owner}, which {wait.how}" if wait.how and "owns" in wait.how and owner else \
                f", likely held by thread {owner}, which {wait.how}" if owner else ""
            dead = "; it is one of the deadlocked threads" if owner in in_cycle else "" if owner or wait.kind == "semaphore" else "; no thread that could be seen has it"
            owners_wait = _wait_of(process, owner)
            owner_run = runs.get(owner)
            yield Saw(f"{who(process)}: one lock: {counted(len(held), 'request')} wait{'s' if len(held) == 1 else ''} for {wait.lock or 'a lock'} at "
                      f"{wait.place.rpartition('/')[2]} for up to {duration(run.served_s)}{held_by}{f' ({owners_wait})' if owners_wait else ''}{dead}", process.group, process.pid,
                      scene.at - run.served_s,
                      [*(evidence("request", f"{each_run.label} waits for {each.lock or 'a lock'} in {each.function} at {each.place} for {duration(each_run.served_s)}",
                                  each.place) for each, each_run in sorted(held, key=lambda each: -each[1].served_s)[:SHOWN]),
                       *_stacks_of(process, [owner] if owner else []),
                       *([evidence("request", f"who holds it serves {owner_run.label} for {duration(owner_run.served_s)}")] if owner_run else []),
                       *_stacks_of(process, [wait.tid])], place=_owner_place(process, owner) or wait.place, advice=None if owner else _ALL_TAKEN if wait.kind == "semaphore" else _LOST,
                      same=("slow-requests", "stuck-request", "threads-busy", "queueing"))


_LOST = ("The lock was probably taken and not given back: an exception between acquire() and release(). Use `with`, or try and finally; only a restart of the process "
         "frees these threads now.")


_ALL_TAKEN = ("All that the semaphore gives are taken: see what those threads do that have them (modwsgi-tel stacks PID), and whether each gives its own back (`with`).")


def _wait_of(process, tid):
    """What the system call of a thread waits for, at the last look, in words; "" where it is in none."""
    wait = process.looks[-1].waits.get(tid) if process.looks and tid else None
    return (wait or {}).get("text") or ""


def _owner_place(process, owner):
    thread = next((thread for thread in process.looks[-1].stacks.threads if thread.tid == owner), None) if process.looks and owner else None
    frame = application_frame(thread.frames) if thread is not None else None
    return None if frame is None else place_of(frame)


# --- what requests wait for -------------------------------------------------------------------

def waits_for(run):
    """(kind, what) of a Run: what it was seen in most often.

    kind: a key of SAID.
    """
    seen = Counter(_kind(run, sample) for sample in run.samples)
    return seen.most_common(1)[0][0]


def _kind(run, sample):
    thread, wait = sample.thread, sample.wait
    if thread.state == DISK:
        return "disk", (wait or {}).get("target") or ""
    if thread.state == RUNNING or thread.owns_gil:
        return "compute", ""
    if wait is None:
        return ("compute", "") if thread.state != WAITING else ("wait", "")
    kind, target = wait["kind"], wait.get("target") or ""
    if wait.get("direction") == "lock":
        return "file lock", target + _of_pids(wait)
    if is_client(wait):
        return "client", "send" if wait["direction"] == "read" else "take"
    if kind in ("tcp", "udp", "unix"):
        service = wait.get("service")
        return "socket", f"{service} at {target}" if service and target else target or f"a {kind} socket"
    if kind == "child":
        return kind, (wait.get("command") or target)[:80]
    if kind == "pipe":
        return kind, f"{target}{_of_pids(wait)}"
    if kind == "sleep":
        return kind, target
    if kind in ("file", "page", "device") and wait.get("filesystem"):
        return "disk", f"{target} ({wait['filesystem']})"
    if kind == "futex":
        return _of_futex(run, sample)
    return "wait", target or wait.get("text") or ""


def _of_futex(run, sample):
    look = run.process.looks[sample.place]
    if wants_gil(sample.thread, look):
        return "gil", ""
    place = None if sample.frame is None else place_of(sample.frame)
    # by who waits there now, where this one has gone on meanwhile
    locked = next((each for each in sorted(run.process.locks, key=lambda each: each.tid != sample.thread.tid) if each.place == place), None)
    if locked is None:
        return ("lock", "") if look.wanting is not None else ("gil", "")
    return locked.kind if locked.kind in ("queue", "event", "join", "condition") else "lock", locked.lock or ""


def _of_pids(wait):
    return f", which pid {wait['pids'][0]} ({(wait.get('command') or '?')[:60]}) has" if wait.get("pids") else ""


SAID = {"socket": "wait for an answer from {what}", "child": "wait for a child process{of}", "file lock": "wait for a file lock{of}", "pipe": "wait for a pipe{of}",
         "disk": "wait for the disk{of}", "sleep": "sleep", "lock": "wait for a lock{of}", "compute": "compute",
         "queue": "wait for a queue{of}", "event": "wait for an event{of}", "join": "wait for another thread to end{of}",
         "condition": "wait for a condition{of}", "client": "wait for clients that {what} slowly",
         "gil": "want the GIL", "wait": "wait"}
OTHER_WAITS = ("sleep", "child", "file lock", "pipe", "disk", "queue", "event", "join", "condition", "compute", "wait", "lock")
_ADVICE = {
    "socket": "The time is not spent in this code but in {what}: look there why it answers late; give the call at {place} a timeout, so that a slow backend does not take all threads.",
    "child": "The time is that of the child process: see what it does (modwsgi-tel inspect on its pid), and run it outside of the request, or with a timeout.",
    "file lock": "See who has the file (modwsgi-tel inspect --file), and hold that lock for less time.",
    "pipe": "See what is at the other end of the pipe; give the call a timeout.",
    "disk": "The storage is slow: see the machine's I/O, and whether that file is on a network file system.",
    "sleep": "The code at {place} sleeps on purpose while it holds a thread of the server: let the client come back instead, or move that wait out of the request.",
    "lock": "Hold that lock for less time, or not across waits.",
    "queue": "Nobody puts anything into {what}, or too seldom: of a pool, see what those do that took its members (modwsgi-tel stacks {pid}), or make it larger.",
    "event": "See which thread is to set it; modwsgi-tel stacks {pid} shows all of them.",
    "join": "See what the thread does that is waited for; modwsgi-tel stacks {pid} shows all of them.",
    "condition": "See which thread is to notify it; modwsgi-tel stacks {pid} shows all of them.",
    "client": "Not this code but its clients (or the proxy in front of them) are slow: have something in front buffer requests and responses, and bound both "
              "(RequestReadTimeout of mod_reqtimeout, Timeout, response-socket-timeout).",
    "compute": "The code computes: modwsgi-tel record {pid} shows which functions take the time.",
    "gil": "See who holds the GIL.",
    "wait": "modwsgi-tel stacks {pid} --interval 1 shows whether it moves.",
}


def long_requests(scene):
    """{(group's name, its parent, kind, what or function, path): [Run]}: long requests that wait for the same thing, or at the same place."""
    groups = {}
    for process in scene.processes:
        tids = {wait.tid for cycle in process.cycles for wait in cycle}
        for run in process.runs():
            if run.served_s < LONG_S or run.tid in tids:
                continue
            kind, what = waits_for(run)
            frame = run.frame()
            key = (process.name, process.member.parent, kind, what if kind in ("socket", "client") else _function(frame), "" if kind in ("socket", "client") else run.path)
            groups.setdefault(key, []).append(run)
    return groups


def _again(scene, worst):
    """The one before or after a long request that is the only one of its path at that place: none where most of them are quick."""
    if worst.served_s < AGAIN_S:
        return []
    kind, frame = waits_for(worst)[0], _function(worst.frame())
    alike = [run for process in scene.processes if (process.name, process.member.parent) == (worst.process.name, worst.process.member.parent) for run in process.runs()
             if run.path == worst.path and waits_for(run)[0] == kind and _function(run.frame()) == frame]
    others = [run for run in alike if (run.tid, run.samples[0].at) != (worst.tid, worst.samples[0].at)]
    return others if others and sum(run.served_s for run in alike) >= LONG_S * len(alike) else []


def _function(frame):
    return "" if frame is None else f"{frame.file}:{frame.function}"


_SLOW_ALONE = ("socket", "child", "file lock", "pipe", "disk")         # what nobody waits for on purpose
_PATIENT = ("sleep", "event", "condition", "queue")


def waiting(kinds, bodies=False):
    """A rule for long requests of these kinds.  bodies: for those alone that make their response's body, else for the others."""
    def rule(scene):
        for (name, _, kind, what, _), runs in long_requests(scene).items():
            runs = [run for run in runs if _is_body(run) == bodies]
            if kind not in kinds or not runs:
                continue
            worst = max(runs, key=lambda run: run.served_s)
            if len(runs) < LONG_LEAST:
                runs = runs + _again(scene, worst)
            few = kind in _SLOW_ALONE and worst.served_s >= PATIENT_S and 0 < _threads(scene, worst.process) < MANY_THREADS
            if len(runs) < LONG_LEAST and worst.served_s < STUCK_S and not few:
                continue
            saw = _long(scene, name, kind, what if kind in ("socket", "client") else waits_for(worst)[1], runs, worst)
            # one at a time that sleeps for so long, and leaves nearly all threads to others, may be meant so, as long polling is
            patient = kind in _PATIENT and PATIENT_S <= worst.served_s < STUCK_S
            yield saw._replace(severity=INFO) if patient and _at_once(runs) == 1 and _threads(scene, worst.process) >= MANY_THREADS else saw
    return rule


def _said(kind, what, number):
    """What so many do, as SAID has it."""
    verb, blank, rest = SAID[kind].partition(" ")
    return f"{verb}{'s' if number == 1 else ''}{blank}{rest}".format(what=what or "?", of=f" ({what})" if what else "")


def _long(scene, name, kind, what, runs, worst):
    frame = Counter(run.frame() for run in runs if run.frame() is not None).most_common(1)
    frame = frame[0][0] if frame else None
    place = "a place that could not be read" if frame is None else short_place(frame)
    said = _said(kind, what, len(runs))
    paths = Counter(run.label for run in runs)
    path, most = paths.most_common(1)[0]
    where = "" if not any(run.path for run in runs) else f" of {path}" if len(paths) == 1 else f", {most} of them {path}" if most > 1 else ""
    shares = _shares(scene, runs)
    pids = sorted({run.process.pid for run in runs})
    behind = _behind(worst.process) if kind in _ON_OTHERS else []
    body = _is_body(worst)
    if body:
        text = (f"{counted(len(runs), 'response')} of {name} {'is' if len(runs) == 1 else 'are'} written slowly, for {duration(worst.served_s)} or longer so far: "
                f"{frame.function if frame else '?'} ({place}) makes their pieces, and they {said.replace('sleeps', 'sleep')} between them{shares}")
    else:
        text = (f"{counted(len(runs), 'request')}{where} {said} in {frame.function if frame else '?'} ({place}) for up to {duration(worst.served_s)}"
                f"{shares} in {name}{f'; behind it {behind[0][0]}' if behind else ''}")
    told = [evidence("request", f"{run.label}: served for {duration(run.served_s)}, thread {run.tid} of pid {run.process.pid}, at {place_of(run.frame())}" if run.frame() else
                     f"{run.label}: served for {duration(run.served_s)}", place_of(run.frame()) if run.frame() else None)
            for run in sorted(runs, key=lambda run: -run.served_s)[:SHOWN]]
    told.append(stack(worst.process, worst.last.thread, f"is in {worst.last.wait['text']}" if worst.last.wait and worst.last.wait.get("text") else "runs" if kind == "compute" else "waits"))
    told += [stack(worst.process, thread, f"serves no request itself: {text}") for text, thread in behind]
    advice = _ADVICE[kind].format(what=what or "what it waits for", place=place, pid=worst.process.pid)
    if kind == "socket" and ":53" == what[-3:]:
        advice = "Name resolution is slow: see /etc/resolv.conf and whether those servers answer. " + advice
    return Saw(text, worst.process.group, pids[0] if len(pids) == 1 else None, scene.at - worst.served_s, told, advice,
               place=None if frame is None else place_of(frame), same=("slow-requests", "stuck-request", "threads-busy", "queueing"), about=kind)


_ON_OTHERS = ("queue", "event", "join", "condition")


def _behind(process):
    """[(text, ThreadStack)] of what the threads that serve nothing themselves do at the last look, most of them first."""
    found, look, place = {}, process.looks[-1], len(process.looks) - 1
    for thread in works_behind(look.stacks.threads, process.member.server):
        run = Run(process, Sample(place, 0.0, thread, application_frame(thread.frames), look.waits.get(thread.tid), None))
        kind, what = waits_for(run)
        if kind != "gil":
            found.setdefault((kind, what, run.frame()), []).append(thread)
    return [(f"{counted(len(threads), 'thread')} {_said(kind, what, len(threads))} in {frame.function} ({short_place(frame)})", threads[0])
            for (kind, what, frame), threads in sorted(found.items(), key=lambda item: -len(item[1]))[:2]]


def _threads(scene, process):
    """How many threads the processes of its group have for requests, 0 where that is not known."""
    return sum(each.threads or 0 for each in scene.processes if (each.name, each.member.parent) == (process.name, process.member.parent))


def _at_once(runs):
    """How many of these requests there were at one look."""
    return max(Counter(sample.place for run in runs for sample in run.samples).values(), default=0)


def _is_body(run):
    """Whether a run makes the body of its response: the outermost call is then a generator of the application, without an environ."""
    outermost = run.last.thread.frames[-1] if run.last.thread.frames else None
    return run.request is None and outermost is not None and not is_library(outermost.file) and run.process.member.server == "apache"


def _shares(scene, runs):
    """Which part of the long requests of that group these are, where others were seen."""
    threads, at_once = _threads(scene, runs[0].process), _at_once(runs)
    if threads and at_once:
        return f"; up to {min(at_once, threads)} of {counted(threads, 'thread')} at once"
    return ""
