"""Rules about the server's own room: threads, queues, a configuration that is not what runs, a collector that nobody is."""
import os
from collections import Counter, namedtuple

from modwsgi_tel.apache import daemons
from modwsgi_tel.figures import counted, duration, moment, percent
from modwsgi_tel.why import telemetry
from modwsgi_tel.why.gil import hottest, running
from modwsgi_tel.why.judged import LONG_S, LOOKS_LEAST, Saw, evidence, stack
from modwsgi_tel.why.scene import place_of, short_place
from modwsgi_tel.why.waiting import SAID, waits_for

FULL_SHARE = 0.7                        # looks at which all threads of a group serve
QUEUE_SHARE = 0.5                       # looks at which connections wait
QUEUED_S, QUEUED_LEAST = 0.5, 3         # requests that waited so long before a thread had them
MISSED_LEAST, MISSED_S = 8, 5.0         # datagrams; that their process had lived by then
INFINITE = float("inf")
COMPUTES_CORES, COMPUTES_CORES_LEAST = 0.75, 0.2        # of each of a group's processes: used or waited for; used
COMPUTES_SHARE = 0.5                    # of what they run, in one function
ONE_CAUSE = 0.6                         # busy threads that one thing explains
_TICKS = os.sysconf("SC_CLK_TCK")
_OUTSIDE = ("socket", "client", "lock", "child", "file lock", "pipe", "disk", "queue", "event", "join", "condition", "gil")
OUTSIDE = "outside"                     # what a finding is about where its threads wait for one of these
_ONE_FOR_ALL = ("socket", "client", "lock", "queue", "event", "condition")      # of these what is waited for tells more than where


def groups(scene):
    """{(server, name, parent's pid): [Process]} of those that serve and were read."""
    found = {}
    for process in scene.processes:
        if process.looks:
            found.setdefault((process.member.server, process.name, process.member.parent), []).append(process)
    return found


def backlogs(scene):
    """{(Apache's pid, number of the daemon group from 1): [(waiting, limit) at each look]} of mod_wsgi's sockets."""
    out = {}
    for found in scene.listeners:
        for socket in found:
            named = daemons.of_socket(socket.path)
            if named:
                out.setdefault(named, []).append((socket.received_queue or 0, socket.backlog))
    return out


def waiting_for(scene, processes):
    """[connections that wait] at each look of the group's socket; [] where that is not known."""
    parent = processes[0].member.parent
    found = {number: rows for (pid, number), rows in backlogs(scene).items() if pid == parent}
    config = scene.configs.get(parent)
    numbers = [place for place, daemon in enumerate(config.daemons, 1) if daemon.group == processes[0].name] if config is not None else []
    number = numbers[0] if numbers else next(iter(found)) if len(found) == 1 else None
    return [waiting for waiting, _ in found.get(number, ())]


def capacity(scene):
    for (server, name, _), processes in groups(scene).items():
        if server == "python":
            continue
        looks = min(len(process.looks) for process in processes)
        if looks < LOOKS_LEAST:
            continue
        threads = sum(process.threads or 0 for process in processes) if all(process.threads for process in processes) else None
        busy = [sum(numbers) for numbers in zip(*(process.busy()[-looks:] for process in processes))]
        queue = waiting_for(scene, processes) if server == "apache" else []
        runs = [run for process in processes for run in process.runs()]
        queued = [run.queued_s for run in runs if run.queued_s is not None]
        late = [seconds for seconds in queued if seconds >= QUEUED_S]
        full = threads is not None and sum(number >= threads for number in busy) >= FULL_SHARE * len(busy)
        waits = bool(queue) and sum(number > 0 for number in queue) >= QUEUE_SHARE * len(queue)
        if not (full and (waits or len(late) >= QUEUED_LEAST) or waits and len(late) >= QUEUED_LEAST
                or waits and threads is None and max(busy) > 0):
            continue
        ages = [run.age_s for run in runs]
        share = _queue_share(late, runs)
        yield _capacity_saw(scene, processes, name, threads, busy, queue, late, share, _one_cause(processes), ages)


def _queue_share(late, runs):
    """Of the time of requests that waited, the part in which they did."""
    told = [(run.queued_s, run.age_s) for run in runs if run.queued_s is not None and run.age_s > 0]
    waited, whole = sum(queued for queued, _ in told), sum(max(age, queued) for queued, age in told)
    return waited / whole if late and whole else None


Cause = namedtuple("Cause", "kind what part frame served_s")
Cause.__doc__ = """What most of the threads that serve are in: kind and what as waiting.waits_for tells them; part of the threads; the
Frame; for how long the longest of these requests, of those that have ended too, was served."""


def _one_cause(processes):
    """The Cause that most threads share at the last look: what they wait for, else the function that they are in; None of none."""
    found, now = {}, Counter()
    for process in processes:
        for run in process.runs():
            kind, what = waits_for(run)
            frame = run.frame()
            key = kind, what if kind in _ONE_FOR_ALL else None if frame is None else (frame.file, frame.function)
            found.setdefault(key, []).append((run.served_s, what, frame))
            now[key] += run.last.place == len(process.looks) - 1
    if not sum(now.values()):
        return None
    key, number = now.most_common(1)[0]
    served_s, what, frame = max(found[key], key=lambda row: row[0])
    return Cause(key[0], what, number / sum(now.values()), frame, served_s)


def _where(processes):
    """Evidence of the functions in which the threads that serve are, over all looks."""
    frames = Counter((sample.frame.function, short_place(sample.frame)) for process in processes for sample in process.samples()
                     if sample.frame is not None)
    whole = sum(frames.values())
    if not whole:
        return []
    shown = ", ".join(f"{function} ({place}) {percent(number / whole)}" for (function, place), number in frames.most_common(5))
    return [evidence("stack", f"where the threads are, over all looks: {shown}")]


def _computes(processes):
    """(Frame, part): the function that most of the Python code of these processes runs in, None where there is none."""
    frame, number, told = hottest([thread for process in processes for thread in running(process)])
    return (frame, number / told) if told and number >= COMPUTES_SHARE * told else None


def _capacity_saw(scene, processes, name, threads, busy, queue, late, share, cause, ages):
    told = [evidence("proc", f"threads that serve at each look: {_series(busy)}" + (f" of {threads}" if threads else ""))]
    if queue:
        told.append(evidence("socket", f"connections that wait for the group's processes at each look: {_series(queue)}"))
    if late:
        told.append(evidence("request", f"{counted(len(late), 'request')} that were seen had waited {_range(late)} for a thread"))
    cores = [process.rates["cpu"] for process in processes if process.rates and process.rates.get("cpu") is not None]
    used = sum(cores) if cores else None
    waited = sum((process.rates or {}).get("run_wait") or 0.0 for process in processes)       # for a core, where others want it too
    if used is not None:
        told.append(evidence("proc", f"its processes use {used:.2f} of {counted(os.cpu_count() or 1, 'core')}"))
    told += _where(processes)
    have = f"{min(max(busy), threads)} of {counted(threads, 'thread')} busy" if threads else f"{counted(max(busy), 'thread')} busy"
    waits = f", {counted(max(queue), 'more request')} {'waits' if max(queue) == 1 else 'wait'}" if queue and max(queue) else ""
    in_queue = f", {percent(share)} of the time in queue" if share is not None else ""
    more = f"threads or processes of {name} (WSGIDaemonProcess threads=, processes=; gunicorn --workers, --threads)"
    one = cause if cause is not None and cause.part >= ONE_CAUSE else None
    place = short_place(one.frame) if one is not None and one.frame is not None else None
    at = None
    if one is not None and (one.kind in _OUTSIDE or one.served_s >= LONG_S) and place:
        said = SAID[one.kind].format(what=one.what or "?", of=f" ({one.what})" if one.what else "")
        at = place_of(one.frame)
        text = (f"{name}: {have}{waits}{in_queue}: {percent(one.part)} of its threads {said} in {one.frame.function} ({place}), for up to "
                f"{duration(one.served_s)}")
        advice = ("Put right what the threads wait for first; more threads or processes only delay the moment at which all wait."
                  if one.kind in _OUTSIDE else
                  f"Make {one.frame.function} at {place} quicker, or do it outside of the request. Where it has to take that long it is "
                  f"capacity: raise {more}.")
    elif (used is not None and used >= COMPUTES_CORES_LEAST * len(processes) and used + waited >= COMPUTES_CORES * len(processes)
          and (computes := _computes(processes)) is not None):
        frame, part = computes
        place = short_place(frame)
        text = (f"{name}: {have}{waits}{in_queue}: its processes compute, {used:.1f} {'core' if round(used, 1) == 1 else 'cores'} of "
                f"{len(processes)} that they can use, {percent(part)} of it in {frame.function} ({place})")
        advice = (f"Make {frame.function} at {place} do less. A process computes on one core at a time: more processes of {name} help as "
                  "long as there are idle cores, more threads do not.")
        at = place_of(frame)
    else:
        text = f"{name}: capacity, not code: {have}{waits}{in_queue}"
        full_cpu = used is not None and used >= 0.9 * (os.cpu_count() or 1)
        advice = ("All cores of this machine are used: more threads or processes will not help; make the requests do less, or add a "
                  "machine." if full_cpu else
                  f"Raise {more}; the requests themselves are not stuck.")
    return Saw(text, processes[0].group, None, None if not ages else scene.at - max(ages), told, advice,
               place=at, same=("threads-busy", "queueing"), about=OUTSIDE if at and one is not None and one.kind in _OUTSIDE else None)


def _range(seconds):
    least, most = duration(min(seconds)), duration(max(seconds))
    return least if least == most else f"{least} to {most}"


def _series(numbers):
    shown = numbers if len(numbers) <= 12 else numbers[:: -(-len(numbers) // 12)]
    return ", ".join(map(str, shown))


# --- slow writing -------------------------------------------------------------------------------

def slow_clients(scene):
    """mod_wsgi's threads that hand a response on, outside of any Python frame, at most looks."""
    for (server, name, _), processes in groups(scene).items():
        threads = sum(process.threads or 0 for process in processes)
        looks = min(len(process.looks) for process in processes)
        held = [sum(numbers) for numbers in zip(*([len(look.writers) for look in process.looks[-looks:]] for process in processes))]
        if looks < LOOKS_LEAST or sum(number >= max(2, threads / 2) for number in held) < 0.5 * looks:
            continue
        process = max(processes, key=lambda each: len(each.looks[-1].writers))
        shown = [evidence("socket", f"thread {tid} of pid {process.pid}: {wait['text']}")
                 for tid, wait in list(process.looks[-1].writers.items())[:5]]
        yield Saw(f"slow clients: {max(held)}{f' of {threads}' if threads else ''} threads of {name} wait to hand a response on: clients, "
                  "or a proxy, read slowly", processes[0].group, None, None,
                  [evidence("proc", f"threads that wait to write at each look: {_series(held)}"), *shown],
                  same=("threads-busy", "slow-requests", "queueing"))


# --- the collector ------------------------------------------------------------------------------

def collector_away(scene):
    for member in scene.collectors:
        if member.state in ("T", "t"):
            yield Saw(f"the collector (pid {member.pid}) is stopped (state {member.state}): it reads no telemetry and answers nobody; what "
                      "Apache sends meanwhile is lost", None, member.pid, None,
                      [evidence("proc", f"state {member.state}: {member.command[:120]}")],
                      advice=f"If no debugger is meant to hold it: kill -CONT {member.pid}", about=member.pid)
    for parent, config in scene.configs.items():
        path = ((config.telemetry or {}).get("socket") or "").partition("unix:")[2] or (config.telemetry or {}).get("socket")
        if not path or telemetry.listens(path) is not False:
            continue
        there = "the socket is there, but nobody listens on it" if os.path.exists(path) else "there is no such socket"
        yield Saw(f"Apache (pid {parent}) sends its telemetry to {path}, where no collector listens: {there}; what it sends meanwhile is "
                  "lost", None, parent, None,
                  [evidence("config", f"WSGITelemetryService unix:{path}"), evidence("socket", f"{path}: {there}")],
                  advice=f"Start the collector: modwsgi-tel serve --listen unix:{path}; Apache's user must be allowed to write to it "
                         "(--socket-group).",
                  same=("nothing-runs", "silent"), about=path)


def collector_late(scene):
    """Telemetry that was sent before the collector was there."""
    told = scene.telemetry
    if told is None:
        return
    uptime = (told.summary["collector"].get("uptime_s") or 0.0)
    missed = [(row, _missed(row)) for row in told.processes]
    # one that is started soon after Apache has missed what is sent at a start: that is no trouble
    missed = [(row, number) for row, number in missed if number >= MISSED_LEAST and _lived_s(told, row, scene.at - uptime) >= MISSED_S]
    if not missed or uptime > scene.at - scene.since:
        return
    most = max(number for _, number in missed)
    yield Saw(f"the collector was away, or not started, until {moment(scene.at - uptime, scene.at)} ({duration(uptime)} ago): "
              f"{counted(len(missed), 'process', 'processes')} had sent up to {most:,} datagrams of telemetry by then, which are lost",
              None, None, scene.at - uptime,
              [evidence("telemetry", f"pid {row['pid']} of {row['process_group'] or '(embedded)'}: {number:,} datagrams before the first "
                        "that came") for row, number in missed[:5]],
              advice="What was before is not in its figures. Have systemd restart the collector (Restart=always), and see its log for why "
                     "it was away.", same=("losing",))


def _lived_s(told, row, until):
    """For how long a process had lived by then; without end where its start is not known."""
    ticks = row.get("start_ticks")
    return INFINITE if ticks is None else until - told.booted - ticks / _TICKS


def _missed(row):
    """How many datagrams of a process were sent before the first one that came."""
    return max((source["newest_seq"] - source["received"] - source["lost"] + source["duplicates"]
                for source in (row.get("sources") or {}).values()), default=0)


def request_timeout(scene):
    """Requests that run into request-timeout, which ends their process."""
    for process in scene.processes:
        limit = _seconds(process.daemon.options.get("request-timeout")) if process.daemon is not None else None
        if not limit:
            continue
        late = [run for run in process.runs() if run.age_s >= 0.9 * limit]
        ended = any(member.pid == process.pid for member in scene.gone)
        if not late:
            continue
        worst = max(late, key=lambda run: run.age_s)
        frame = worst.frame()
        place = None if frame is None else place_of(frame)
        yield Saw(f"{counted(len(late), 'request')} of {process.name} {'run' if len(late) > 1 else 'runs'} into "
                  f"request-timeout={limit:g}: {worst.label} is {duration(worst.age_s)} old"
                  f"{f' in {frame.function} ({short_place(frame)})' if frame else ''}; mod_wsgi ends the process {process.pid} for it"
                  f"{', and did so now' if ended else ''}",
                  process.group, process.pid, scene.at - worst.age_s,
                  [evidence("config", f"request-timeout={limit:g} of WSGIDaemonProcess {process.name}", process.daemon.place),
                   stack(process, worst.last.thread, "runs too long")],
                  place=place, same=("restarting", "slow-requests", "stuck-request"), about="request-timeout",
                  advice=f"See what {frame.function if frame else 'it'}{f' at {short_place(frame)}' if frame else ''} waits for. All "
                         "requests of a process are cut off when it ends: raise request-timeout only if requests may take that long.")


def _seconds(text):
    try:
        return float(text) if text else None
    except ValueError:
        return None


def long_ago(scene):
    """Processes fewer than the configuration says."""
    for parent, config in scene.configs.items() if not scene.alone else ():
        for daemon in config.daemons:
            running = [process for process in scene.processes if process.member.parent == parent and process.name == daemon.group]
            if any(each.member.parent == parent and each.group != daemon.group and not each.group for each in scene.processes):
                continue                # some do not show their group
            if daemon.processes and 0 < len(running) < daemon.processes or daemon.processes and not running and _shown(scene, parent):
                yield Saw(f"{len(running)} of {counted(daemon.processes, 'process', 'processes')} of {daemon.group} "
                          f"{'runs' if len(running) == 1 else 'run'}", daemon.group, None, None,
                          [evidence("config", f"WSGIDaemonProcess {daemon.group} processes={daemon.processes}", daemon.place)],
                          advice="The others have ended and are not there again yet: see the error log for why.", about=daemon.group)


def _shown(scene, parent):
    return any(process.member.parent == parent and process.member.title for process in scene.processes)
