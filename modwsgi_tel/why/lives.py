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
        if member.role in (roles.DAEMON, roles.WORKER):
            groups.setdefault((_group(scene, member), member.parent), []).append(member)
    for (group, parent), gone in groups.items():
        if not any(member.pid == parent for member in scene.parents):
            continue                    # the server itself was stopped
        if not _is_trouble(scene, gone):
            continue                    # it was restarted
        born = [member for member in scene.born if member.parent == parent and _group(scene, member) == group]
        if len(gone) < LOOP_LEAST or not born:
            continue
        why = next((event for log in scene.logs.values() for event in reversed(log.events) if event.pid in {member.pid for member in gone}), None)
        yield Saw(f"{counted(len(gone), 'process', 'processes')} of {group or 'the server'} ended within {duration(scene.seconds)}, and {counted(len(born), 'process', 'processes')} began: it crashes or is ended "
                  "again and again", group or None, None, None,
                  [evidence("proc", f"ended: pid {', '.join(str(member.pid) for member in gone[:8])}; new: pid {', '.join(str(member.pid) for member in born[:8])}"),
                   *([evidence("log", f"{why.text}", why.place)] if why else [])], place=why.place if why else None,
                  same=("restarting", "vanished"), about=group)


def _group(scene, member):
    """Its group; where it lived too short a time to show one the group that all others of its parent show."""
    shown = {each.group for each in (*scene.gone, *scene.born, *scene.members) if each.parent == member.parent and each.group}
    shown |= {process.group for process in scene.processes if process.member.parent == member.parent and process.member.role == member.role and process.group}
    return member.group or (shown.pop() if len(shown) == 1 else "")


def _is_trouble(scene, gone):
    """Whether processes did not end because somebody restarted the server: one that began meanwhile ended too, or the log tells of trouble."""
    born = {(member.pid, member.start) for member in scene.born}
    if any((member.pid, member.start) in born for member in gone):
        return True
    since = scene.at - scene.seconds - 1.0
    return any(event.severity != INFO and event.id not in _OFTEN and (event.at or 0.0) >= since for log in scene.logs.values() for event in log.events)


EXCEPTIONS_LEAST = 3                    # of one kind and place: one alone is any application's day
_OFTEN = ("exception", "application-exit", "bad-header")


def logged(kinds):
    """A rule for what logs say: events of these severities, by what they mean.  kinds: {id: Kind} of apache.kinds."""
    def rule(scene):
        for log in scene.logs.values():
            groups = {}
            for event in log.events:
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
    held = [each for process in scene.processes if kind.id == "memory-error" and group in ("", process.group) for each in resources.held(process)][:HELD_SHOWN]
    place = places.most_common(1)[0][0] if places else scene.imports.get(script) or next((each["place"] for each in held if each["place"]), None)
    first = min((event.first for event in events if event.first is not None), default=None)
    times = f", {counted(count, 'time')}" if count > 1 else ""
    when = "" if last.at is None else f", last at {moment(last.at, scene.at)}"
    where = f" at {place.rpartition('/')[2]}" if place else f" in {script.rpartition('/')[2]}" if script else ""
    pids = {pid for event in events for pid in event.pids}
    return Saw(f"{kind.means}: {last.text}{where}{times}{when}", group or None, pids.pop() if len(pids) == 1 else None, first,
               [evidence("log", event.text + (f" ({counted(event.count, 'time')})" if event.count > 1 else ""), event.place or None) for event in events[-4:]] + held,
               _advice(kind, place), CRITICAL if any(event.severity == CRITICAL for event in events) else None, place, _SAME.get(kind.id, ()),
               about=(kind.id, place))


def _advice(kind, place):
    """What the table advises, as a sentence, with the place where that is known."""
    said = kind.advice
    if place:
        said = re.sub(r",? at its place", f" at {place.rpartition('/')[2]}", said).replace("see its place", f"see {place.rpartition('/')[2]}")
    return said and f"{said[0].upper()}{said[1:]}."


# ids of kinds of lines, and of a collector's findings that are about the same
_SAME = {"crash": ("vanished", "restarting"), "killed": ("vanished", "restarting"), "daemon-died": ("vanished", "restarting"), "request-timeout": ("restarting",),
         "exception": ("errors",), "script-failed": ("errors",), "memory-error": ("errors", "memory-growth"), "too-many-files": ("errors", "descriptors"),
         "worker-timeout": ("vanished", "restarting")}
