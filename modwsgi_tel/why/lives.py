"""Rules about lives and logs: processes that die again and again, and what Apache answers in their place."""
import re
from collections import Counter

from modwsgi_tel.figures import counted, duration, moment
from modwsgi_tel.findings import CRITICAL, INFO
from modwsgi_tel.proc import roles
from modwsgi_tel.why import resources
from modwsgi_tel.why.judged import Saw, evidence

HELD_SHOWN = 3                          # containers
LOOP_LEAST = 2                          # processes that end while it is looked


def restarting(scene):
    """Daemons that ended and began anew while they were looked at."""
    groups = {}
    for member in scene.gone:
        if member.role in (roles.DAEMON, roles.WORKER) or _died_at_once(scene, member):
            groups.setdefault((_group(scene, member), member.parent), []).append(member)
    for (group, parent), gone in groups.items():
        if not any(member.pid == parent for member in scene.parents):
            continue                    # the server itself was stopped
        if not _is_trouble(scene, gone):
            continue                    # it was restarted
        born = [member for member in scene.born if member.parent == parent and _group(scene, member) == group]
        if len(gone) < LOOP_LEAST and _lost(scene, group) < RESTARTED_MOST or not born:
            continue
        pids = {member.pid for member in gone}
        why = next((event for log in scene.logs.values() for event in reversed(log.events) if event.pid in pids), None)
        yield Saw(f"{counted(len(gone), 'process', 'processes')} of {group or 'the server'} ended within {duration(scene.seconds)}, and "
                  f"{counted(len(born), 'process', 'processes')} began: it crashes or is ended again and again", group or None, None, None,
                  [evidence("proc", f"ended: pid {', '.join(str(member.pid) for member in gone[:8])}; new: pid "
                            f"{', '.join(str(member.pid) for member in born[:8])}"),
                   *([evidence("log", f"{why.text}", why.place)] if why else [])], place=why.place if why else None,
                  same=("restarting", "vanished"), about=group)


def _died_at_once(scene, member):
    """Whether a process that was never seen alive was a daemon, as far as that can be told: Apache's other children do not die at once."""
    config = scene.configs.get(member.parent)
    return member.role == roles.CHILD and member.state == "Z" and config is not None and bool(config.daemons) and any(
        (other.pid, other.start) == (member.pid, member.start) for other in scene.born)


def _lost(scene, group):
    """How many requests of a group were lost to daemons that went away, as far as the log tells, the last of them while it was looked."""
    return sum(event.count for log in scene.logs.values() for event in log.events
               if event.id in _AT_RESTARTS and event.group in ("", group) and (event.at or 0.0) >= scene.at - scene.seconds)


def _group(scene, member):
    """Its group; where it lived too short a time to show one what the log says, or the group that all others of its parent show."""
    if _died_at_once(scene, member):
        member = member._replace(role=roles.DAEMON)
    known = next((process.group for process in scene.processes if (process.pid, process.member.start) == (member.pid, member.start)), "")
    if known:
        return known
    told = {event.group for log in scene.logs.values() for event in log.events if event.pid == member.pid and event.group}
    if len(told) == 1 and not member.group:
        return told.pop()
    gone = {each.pid for each in scene.gone}
    alike = [process for process in scene.processes
             if process.member.parent == member.parent and process.member.role == member.role]
    if any(process.looks and not process.group and process.pid not in gone for process in alike):
        return member.group             # there are groups without a name
    shown = {each.group for each in (*scene.gone, *scene.born, *scene.members) if each.parent == member.parent and each.group}
    shown |= {process.group for process in alike if process.group}
    if not shown and member.parent in scene.configs:
        shown = {daemon.group for daemon in scene.configs[member.parent].daemons}
    return member.group or (shown.pop() if len(shown) == 1 else "")


def _is_trouble(scene, gone):
    """Whether processes did not end because somebody wanted it so.

    The log tells of trouble, or one that began meanwhile ended too and neither the log nor the configuration says why.
    """
    since = scene.at - scene.seconds - 1.0
    events = [event for log in scene.logs.values() for event in log.events if (event.at or 0.0) >= since]
    if any(event.severity != INFO and event.id not in _OFTEN for event in events):
        return True
    born = {(member.pid, member.start) for member in scene.born}
    return any((member.pid, member.start) in born for member in gone) and not any(event.id in _WANTED for event in events) and \
        not all(_serves_few(scene, member) for member in gone)


def _serves_few(scene, member):
    """Whether a process ends after a number of requests, as its server was told."""
    config = scene.configs.get(member.parent)
    if config is not None:
        daemons = [daemon for daemon in config.daemons if _group(scene, member) in ("", daemon.group)]
        return any(daemon.options.get("maximum-requests", "0") != "0" for daemon in daemons)
    return any("--max-requests" in parent.command for parent in scene.parents if parent.pid == member.parent)


EXCEPTIONS_LEAST = 3                    # of one kind and place: one alone is any application's day
_WANTED = ("maximum-requests", "restart-timer", "script-reloaded", "graceful", "restart", "stopped")      # kinds of lines
_OFTEN = ("exception", "application-exit", "bad-header")
RESTARTED_S, RESTARTED_MOST = 5.0, 5    # after somebody has restarted the server some requests are lost: so long, and so many
_RESTARTS, _AT_RESTARTS = ("graceful", "restart", "stopped"), ("connect-failed", "no-response", "response-cut", "daemon-lost")


def logged(kinds):
    """A rule for what logs say: events of these severities, by what they mean.  kinds: {id: Kind} of apache.kinds."""
    def rule(scene):
        for log in scene.logs.values():
            groups, restarts = {}, [at for event in log.events if event.id in _RESTARTS for at in (event.first, event.at) if at is not None]
            for event in log.events:
                if event.id in _AT_RESTARTS and event.count < RESTARTED_MOST and any(
                        0 <= (event.first or 0.0) - at <= RESTARTED_S or 0 <= (event.at or 0.0) - at <= RESTARTED_S for at in restarts):
                    continue            # requests that a restart has cut off
                if kinds.get(event.id) is not None and event.severity != INFO:
                    groups.setdefault((event.id, event.group or _only(log.events, event.id), event.script), []).append(event)
            for (id, group, script), events in groups.items():
                if id in _OFTEN and sum(event.count for event in events) < EXCEPTIONS_LEAST:
                    continue
                yield _logged(scene, kinds[id], group, script, events)
    return rule


def _only(events, id):
    """The group that events of a kind name, where it is one."""
    named = {event.group for event in events if event.id == id and event.group}
    return named.pop() if len(named) == 1 else ""


def _logged(scene, kind, group, script, events):
    count, last = sum(event.count for event in events), max((event for event in events), key=lambda event: event.at or 0.0)
    places = Counter()
    for event in events:
        places.update({place: number for place, number in event.places.items() if not place.startswith("<")})
    held = [each for process in scene.processes if kind.id == "memory-error" and group in ("", process.group)
            for each in resources.held(process)][:HELD_SHOWN]
    place = places.most_common(1)[0][0] if places else scene.imports.get(script) or next(
        (each["place"] for each in held if each["place"]), None)
    first = min((event.first for event in events if event.first is not None), default=None)
    times = f", {counted(count, 'time')}" if count > 1 else ""
    when = "" if last.at is None else f", last at {moment(last.at, scene.at)}"
    where = f" at {place.rpartition('/')[2]}" if place else f" in {script.rpartition('/')[2]}" if script else ""
    pids = {pid for event in events for pid in event.pids}
    return Saw(f"{kind.means}: {last.text}{where}{times}{when}", group or None, pids.pop() if len(pids) == 1 else None, first,
               [*(evidence("log", event.text + (f" ({counted(event.count, 'time')})" if event.count > 1 else ""), event.place or None)
                  for event in events[-4:]), *held],
               _advice(kind, place), CRITICAL if any(event.severity == CRITICAL for event in events) else None, place,
               _SAME.get(kind.id, ()),
               about=(kind.id, place))


def _advice(kind, place):
    """What the table advises, as a sentence, with the place where that is known."""
    said = kind.advice
    if place:
        last = place.rpartition("/")[2]
        said = re.sub(r",? at its place", f" at {last}", said).replace("see its place", f"see {last}")
    return said and f"{said[0].upper()}{said[1:]}."


# ids of kinds of lines, and of a collector's findings that are about the same
_SAME = {"crash": ("vanished", "restarting"), "killed": ("vanished", "restarting"), "daemon-died": ("vanished", "restarting"),
         "request-timeout": ("restarting",), "exception": ("errors",), "script-failed": ("errors",),
         "memory-error": ("errors", "memory-growth"), "too-many-files": ("errors", "descriptors"),
         "worker-timeout": ("vanished", "restarting")}
