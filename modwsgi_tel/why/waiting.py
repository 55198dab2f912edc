"""Rules about long requests: what they wait for, or compute."""
from collections import Counter

from modwsgi_tel.figures import counted, duration
from modwsgi_tel.findings import INFO
from modwsgi_tel.stacks.model import DISK, RUNNING, WAITING
from modwsgi_tel.why.judged import LONG_LEAST, LONG_S, SHOWN, STUCK_S, Saw, evidence, stack
from modwsgi_tel.why.scene import Run, Sample, application_frame, is_client, is_library, place_of, short_place, wants_gil, works_behind

AGAIN_S = 2.0                           # a request so long, that another one of its path follows
PATIENT_S = 4.0                         # a wait so long, one at a time, may be long polling
MANY_THREADS = 8                        # of which one that is busy for long hurts nobody


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


SAID = {"socket": "wait for an answer from {what}", "child": "wait for a child process{of}",
         "file lock": "wait for a file lock{of}", "pipe": "wait for a pipe{of}",
         "disk": "wait for the disk{of}", "sleep": "sleep", "lock": "wait for a lock{of}", "compute": "compute",
         "queue": "wait for a queue{of}", "event": "wait for an event{of}", "join": "wait for another thread to end{of}",
         "condition": "wait for a condition{of}", "client": "wait for clients that {what} slowly",
         "gil": "want the GIL", "wait": "wait"}
OTHER_WAITS = ("sleep", "child", "file lock", "pipe", "disk", "queue", "event", "join", "condition", "compute", "wait", "lock")
_ADVICE = {
    "socket": "The time is not spent in this code but in {what}: look there why it answers late; give the call at {place} a timeout, so "
              "that a slow backend does not take all threads.",
    "child": "The time is that of the child process: see what it does (modwsgi-tel inspect on its pid), and run it outside of the "
             "request, or with a timeout.",
    "file lock": "See who has the file (modwsgi-tel inspect --file), and hold that lock for less time.",
    "pipe": "See what is at the other end of the pipe; give the call a timeout.",
    "disk": "The storage is slow: see the machine's I/O, and whether that file is on a network file system.",
    "sleep": "The code at {place} sleeps on purpose while it holds a thread of the server: let the client come back instead, or move that "
             "wait out of the request.",
    "lock": "Hold that lock for less time, or not across waits.",
    "queue": "Nobody puts anything into {what}, or too seldom: of a pool, see what those do that took its members (modwsgi-tel stacks "
             "{pid}), or make it larger.",
    "event": "See which thread is to set it; modwsgi-tel stacks {pid} shows all of them.",
    "join": "See what the thread does that is waited for; modwsgi-tel stacks {pid} shows all of them.",
    "condition": "See which thread is to notify it; modwsgi-tel stacks {pid} shows all of them.",
    "client": "Not this code but its clients (or the proxy in front of them) are slow: have something in front buffer requests and "
              "responses, and bound both (RequestReadTimeout of mod_reqtimeout, Timeout, response-socket-timeout).",
    "compute": "The code computes: modwsgi-tel record {pid} shows which functions take the time.",
    "gil": "See who holds the GIL.",
    "wait": "modwsgi-tel stacks {pid} --interval 1 shows whether it moves.",
}


def long_requests(scene):
    """{(group's name, its parent, kind, what or function, path): [Run]}: long requests that wait for the same, or at the same place."""
    groups = {}
    for process in scene.processes:
        tids = {wait.tid for cycle in process.cycles for wait in cycle}
        for run in process.runs():
            if run.served_s < LONG_S or run.tid in tids:
                continue
            kind, what = waits_for(run)
            frame = run.frame()
            shared = kind in ("socket", "client")
            key = process.name, process.member.parent, kind, what if shared else _function(frame), "" if shared else run.path
            groups.setdefault(key, []).append(run)
    return groups


def _again(scene, worst):
    """The one before or after a long request that is the only one of its path at that place: none where most of them are quick."""
    if worst.served_s < AGAIN_S:
        return []
    kind, frame = waits_for(worst)[0], _function(worst.frame())
    alike = [run for process in scene.processes
             if (process.name, process.member.parent) == (worst.process.name, worst.process.member.parent)
             for run in process.runs() if run.path == worst.path and waits_for(run)[0] == kind and _function(run.frame()) == frame]
    others = [run for run in alike if (run.tid, run.samples[0].at) != (worst.tid, worst.samples[0].at)]
    return others if others and sum(run.served_s for run in alike) >= LONG_S * len(alike) else []


def _function(frame):
    return "" if frame is None else f"{frame.file}:{frame.function}"


_SLOW_ALONE = ("socket", "child", "file lock", "pipe", "disk")         # what nobody waits for on purpose
_PATIENT = ("sleep", "event", "condition", "queue")


def of(kinds, bodies=False):
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
    where = ("" if not any(run.path for run in runs) else f" of {path}" if len(paths) == 1 else
             f", {most} of them {path}" if most > 1 else "")
    shares = _shares(scene, runs)
    pids = sorted({run.process.pid for run in runs})
    behind = _behind(worst.process) if kind in _ON_OTHERS else []
    body = _is_body(worst)
    if body:
        text = (f"{counted(len(runs), 'response')} of {name} {'is' if len(runs) == 1 else 'are'} written slowly, for "
                f"{duration(worst.served_s)} or longer so far: {frame.function if frame else '?'} ({place}) makes their pieces, and they "
                f"{said.replace('sleeps', 'sleep')} between them{shares}")
    else:
        text = (f"{counted(len(runs), 'request')}{where} {said} in {frame.function if frame else '?'} ({place}) for up to "
                f"{duration(worst.served_s)}{shares} in {name}{f'; behind it {behind[0][0]}' if behind else ''}")
    told = []
    for run in sorted(runs, key=lambda run: -run.served_s)[:SHOWN]:
        at = place_of(run.frame()) if run.frame() else None
        thread = "" if at is None else f", thread {run.tid} of pid {run.process.pid}, at {at}"
        told.append(evidence("request", f"{run.label}: served for {duration(run.served_s)}{thread}", at))
    last = worst.last
    does = f"is in {last.wait['text']}" if last.wait and last.wait.get("text") else "runs" if kind == "compute" else "waits"
    told.append(stack(worst.process, last.thread, does))
    told += [stack(worst.process, thread, f"serves no request itself: {text}") for text, thread in behind]
    advice = _ADVICE[kind].format(what=what or "what it waits for", place=place, pid=worst.process.pid)
    if kind == "socket" and ":53" == what[-3:]:
        advice = "Name resolution is slow: see /etc/resolv.conf and whether those servers answer. " + advice
    return Saw(text, worst.process.group, pids[0] if len(pids) == 1 else None, scene.at - worst.served_s, told, advice,
               place=None if frame is None else place_of(frame), same=("slow-requests", "stuck-request", "threads-busy", "queueing"),
               about=kind)


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
