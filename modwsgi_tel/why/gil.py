"""Rules about the GIL: who holds it, what takes the time while others want it, and garbage collection."""
import re
from collections import Counter

from modwsgi_tel.figures import counted, duration, percent
from modwsgi_tel.stacks.model import RUNNING, is_whole
from modwsgi_tel.why.judged import LONG_S, LOOKS_LEAST, SHOWN, Saw, evidence, stack, who
from modwsgi_tel.why.scene import application_frame, is_server_at_work, place_of, short_place, wants_gil

HELD_SHARE, HELD_SAME = 0.8, 0.9        # looks at which one thread has the GIL; of these, at one line
BUSY_CORES, BUSY_CORES_LEAST = 0.75, 0.2        # of a process whose GIL is the bottleneck: used or waited for; used
WANTING, WANTING_ONE = 0.5, 0.2         # threads that want the GIL, in the mean; where one and the same thread nearly always has it
COLLECTING_SHARE = 0.2                  # looks at which garbage is collected
_REGEX = re.compile(r"\.(match|search|fullmatch|finditer|findall|subn?|split)\(")


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


def held(scene):
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
        yield Saw(f"{who(process)}: the GIL is held by C code in {what} for {duration(age)} or longer{serving}{waiting}",
                  process.group, process.pid, scene.at - age, told, place=place_of(frame),
                  same=("silent", "gil-contention", "slow-requests", "stuck-request", "threads-busy"),
                  advice=_held_advice(inner, frame, process.source(frame)))


def _is_regex(inner, source):
    """Whether the call is one of re's, by the module it is in or by how it is written."""
    return "/re/" in inner.file or inner.file.endswith("/re.py") or _REGEX.search(source) is not None


def _held_advice(inner, frame, source):
    if _is_regex(inner, source):
        return (f"A regular expression that backtracks without end (catastrophic backtracking): rewrite the pattern used at "
                f"{short_place(frame)} without nested repeats, and limit the length of its input. Nothing else runs in this process "
                "meanwhile; restart the process to go on now.")
    return (f"C code called at {short_place(frame)} does not let go of the GIL: do less in one call, use a library that releases it, or do "
            "it in another process. Nothing else runs in this process meanwhile; restart the process to go on now.")


def _cpu_of(process):
    cores = (process.rates or {}).get("cpu")
    return [] if cores is None else [evidence("proc", f"pid {process.pid} uses {cores:.2f} cores")]


def contention(scene):
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
            text = (f"{who(process)}: GIL contention: thread {busiest} computes in {hot.function} ({short_place(hot)}) "
                    f"{percent(number / told)} of the time{serving}; {_wanting_text(mean)}")
        else:
            text = (f"{who(process)}: GIL contention: {mean:.1f} threads want the GIL at any moment; most of the time goes to "
                    f"{hot.function} ({short_place(hot)}), {percent(number / told)} of it")
        yield Saw(text, process.group, process.pid, None,
                  [stack(process, example, f"runs: {hot.function} at {number} of {told} looks"), *_cpu_of(process),
                   *(stack(process, thread, "wants the GIL") for thread in process.looks[-1].stacks.threads[:200]
                     if thread.frames and wants_gil(thread, process.looks[-1]) and _place(thread) not in locked)][:SHOWN + 2],
                  place=place_of(hot), same=("gil-contention", "slow-requests", "threads-busy", "queueing"),
                  advice=(f"The regular expression at {short_place(hot)} takes this time: see whether its pattern backtracks (nested "
                          "repeats), and limit the length of its input. " if _is_regex(example.frames[0], process.source(hot)) else "") +
                  f"Python code runs one thread at a time: make {hot.function} at {short_place(hot)} do less, move it to another process, "
                  "or serve with fewer threads and more processes.")


def _wanting(look, locked=()):
    """The ids of the threads that want the GIL at a look; of those that the kernel does not tell of not the ones in `locked` places."""
    if look.wanting is not None:
        return look.wanting
    return {thread.tid for thread in look.stacks.threads if wants_gil(thread, look) and _place(thread) not in locked}


def _wanting_text(mean):
    return (f"{mean:.1f} other threads want the GIL at any moment" if mean >= 1 else
            "others that serve wait for the GIL each time they want it")


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
                  [evidence("memory", f"a garbage collection runs at {len(during)} of {len(told)} looks"),
                   *([stack(process, example, "collects")] if example else []),
                   *_cpu_of(process)], place=None if hot is None else place_of(hot), same=("gc-pauses", "gil-contention", "slow-requests"))
