"""One process, looked at again and again: all that /proc tells of it, as one plain dict that text and JSON are made of.

    subject = Subject(pid); subject.look(); ...an interval passes...; subject.facts()

A dict of facts holds "pid", "at" (wall s), "seconds" (since the look before), "role" and "group" (proc.roles); what proc gives:
"identity", "usage", "rates", "memory", "descriptors", "limits", "oom", "cgroup", "environment"; and what is made of it:
"threads": those of proc.details.tasks, the busiest first, each with "cpu" in cores, "switches", "involuntary" and "run_wait" a second,
    "waits_on" (proc.waits), "at" ("file:line function"), "called_at" (the same of the innermost frame outside of libraries, where
    that is another), "request", "idle" and "python_name"; "threads_left_out": how many more there are
"run_wait": seconds a second that its threads, all together, were ready and waited for a CPU; None where that is not known
"network" (inspection.network), "interpreter" (stacks.packages), "throttled" (the share of the cgroup's periods)
"growth": None at the first look; else since then: "seconds", by how much "rss_bytes", "files", "threads" and "swap_bytes" grew, which
    of them are "climbing" at each look; by kind "mappings" in bytes and "descriptors"; and "same" of what is open several times
"ages": {part that was read at an earlier look: seconds ago}, "notable" (inspection.notable), "unknown": {part: one-line reason}
A part that may not be read is None.
"""
import re
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.inspection import network, notable
from modwsgi_tel.proc import cgroups, descriptors, details, mappings, procfs, sockets, waits
from modwsgi_tel.stacks import packages
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning

WAITS_MOST = 4096                       # threads of which it is found out what they wait on
SELDOM = 20                             # a part that took t seconds is not read again before this many times t: 5 % of a core
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python\d|^<frozen ")
GROWN = ("rss_bytes", "swap_bytes", "files", "threads")
_PEERS_MOST, _PEERS_S = 512, 0.3         # other ends of connections whose processes are looked for, and for how long
_MOST_WAIT_S = 0.05                     # for a CPU, of a thread that was not put off one
_STEADY_LOOKS = 5                       # that do nothing but climb, until it is called a climb
# of what `facts` gets from a call with the pid: {name: (call, whether it may be read less often than it is looked)}
_PARTS = (("memory", mappings.memory, True), ("descriptors", descriptors.look, True), ("limits", details.limits, False),
          ("oom", details.oom, False), ("environment", details.environment, True))


class Subject:
    """One process.  Every method raises TelError when it has gone, or its pid is another's now."""

    def __init__(self, pid, member=None, clock=time.monotonic, now=time.time):
        """member: its proc.roles.Member, where it is one."""
        self.pid, self._member, self._clock, self._now = pid, member, clock, now
        self._before = self._newest = self._first = self._reader = None
        self._climbs = {name: 0 for name in GROWN}
        self._first_parts = None        # by kind, at the first look that read them
        self._kept = {}                 # part -> (what was read, when, when it may be read again)

    def look(self):
        """Take the figures that rates are made of."""
        usage = details.usage(self.pid)
        if self._first is not None and usage["start_ticks"] != self._first["start_ticks"]:
            raise TelError(f"process {self.pid} has ended, and its pid is another process's now")
        looked = {"usage": usage, "tasks": details.tasks(self.pid), "cgroup": cgroups.of(self.pid)}
        if self._first is None:
            self._first = usage
        for name in GROWN if self._newest else ():
            one, other = self._newest["usage"][name], usage[name]
            if one is not None and other is not None and one != other:
                self._climbs[name] = self._climbs[name] + 1 if other > one else 0
        self._before, self._newest = self._newest or looked, looked

    def facts(self):
        """See above.  Looks first; without a look before there are no rates."""
        self.look()
        before, newest = self._before, self._newest
        usage, rates = newest["usage"], details.rates(before["usage"], newest["usage"])
        facts = {"pid": self.pid, "at": self._now(), "seconds": rates["seconds"], "role": self._member.role if self._member else "",
                 "group": self._member.group if self._member else "", "identity": details.identity(self.pid), "usage": usage,
                 "rates": rates}
        now, facts["ages"] = self._clock(), {}
        for name, call, seldom in _PARTS:
            facts[name] = self._part(name, call, seldom, now, facts["ages"])
        facts["cgroup"] = newest["cgroup"]
        facts["throttled"] = _throttled(before["cgroup"], newest["cgroup"])
        opened = facts["descriptors"]
        facts["network"] = None if "descriptors" in opened["unknown"] else network.grouped(opened["rows"])
        if facts["network"]:
            peers = [inode for group in facts["network"] for inode in group["peers"]][:_PEERS_MOST]
            held = self._part("peers", lambda pid: sockets.holders(peers, seconds=_PEERS_S), True, now, facts["ages"])
            network.name_peers(facts["network"], held, _name)
        stacks, refused, runs = self._part("stacks", self._stacks, True, now, facts["ages"])
        facts["interpreter"] = self._part("interpreter", lambda pid: self._interpreter(pid, refused, runs), True, now, facts["ages"])
        facts["threads"] = _threads(self.pid, before["tasks"], newest["tasks"], rates["seconds"], stacks)
        facts["run_wait"] = _run_wait(facts["threads"])
        facts["threads_left_out"] = max(0, usage["threads"] - len(facts["threads"]))
        facts["growth"] = None if self._first is usage else self._growth(usage, facts)
        facts["unknown"] = _unknown(facts)
        facts["notable"] = notable.notable(facts)
        return facts

    def _part(self, name, call, seldom, now, ages):
        kept = self._kept.get(name)
        if kept and now < kept[2]:
            ages[name] = now - kept[1]
            return kept[0]
        began = self._clock()
        found = call(self.pid)
        self._kept[name] = found, now, began + SELDOM * (self._clock() - began) if seldom else now
        return found

    def _growth(self, usage, facts):
        grown = {"seconds": usage["at"] - self._first["at"]}
        for name in GROWN:
            one, other = self._first[name], usage[name]
            grown[name] = None if one is None or other is None else other - one
        now = {"mappings": {row["kind"]: row["rss_bytes"] for row in facts["memory"]["kinds"] or ()},
               "descriptors": facts["descriptors"]["kinds"],
               "same": {row["target"]: row["count"] for row in facts["descriptors"]["same"]}}
        self._first_parts = self._first_parts or now
        for name, kinds in now.items():
            grown[name] = {kind: more for kind, more in ((kind, kinds.get(kind, 0) - self._first_parts[name].get(kind, 0))
                                                         for kind in {**kinds, **self._first_parts[name]}) if more}
        grown["climbing"] = [name for name in GROWN if self._climbs[name] >= _STEADY_LOOKS]
        return grown

    def _stacks(self, pid):
        """({tid: ThreadStack}, why there are none or None, whether Python runs in it)."""
        try:
            if self._reader is None:
                self._reader = Reader(pid)
            return {thread.tid: thread for thread in self._reader.look().threads if thread.tid is not None}, None, True
        except NotRunning as error:
            return {}, str(error), False
        except TelError as error:
            return {}, str(error), True

    def _interpreter(self, pid, refused, runs):
        if not runs:
            return {"python": None, "unknown": {"interpreter": refused}}
        try:
            found = packages.from_proc(pid, refused) if self._reader is None else packages.of(self._reader)
        except TelError as error:
            found = packages.from_proc(pid, str(error))
        return {**found, "unknown": {**found["unknown"], **({"stacks": refused} if refused else {})}}

    def close(self):
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _name(pid):
    try:
        return procfs.stat(pid).name
    except (OSError, ValueError):
        return None


def _throttled(before, after):
    """The share of its periods in which the cgroup was throttled between two looks; None where that is not known."""
    one, other = before["cpu"] or {}, after["cpu"] or {}
    if None in (one.get("periods"), other.get("periods"), one.get("throttled_periods"), other.get("throttled_periods")):
        return None
    periods = other["periods"] - one["periods"]
    return (other["throttled_periods"] - one["throttled_periods"]) / periods if periods > 0 else 0.0


def _threads(pid, before, after, seconds, stacks):
    earlier = {task["tid"]: task for task in before}
    found = [{**task, **_a_second(earlier.get(task["tid"]), task, seconds), **_python_of(stacks.get(task["tid"]))} for task in after]
    found.sort(key=lambda row: (-(row["cpu"] or 0.0), row["idle"] is True, row["tid"]))
    waiting = waits.waits(pid, [row["tid"] for row in found[:WAITS_MOST] if row["state"] != "R"])
    for row in found:
        row["waits_on"] = waiting.get(row["tid"])
    return found


def _a_second(before, after, seconds):
    """{"cpu" (cores), "switches", "involuntary", "run_wait"} a second; None for a thread that has begun since."""
    if before is None or not seconds:
        return {"cpu": None, "switches": None, "involuntary": None, "run_wait": None}

    def rate(name):
        one, other = before[name], after[name]
        return None if one is None or other is None else max(0.0, other - one) / seconds

    return {"cpu": rate("cpu_s"), "switches": rate("voluntary_switches"), "involuntary": rate("involuntary_switches"),
            "run_wait": rate("run_wait_s")}


def _run_wait(rows):
    """Since Linux 6.12 a thread that sleeps may stay queued (delayed dequeue), and its sleep is then counted as waiting for a CPU.

    A thread that did wait so long was put off its CPU, or switched often.
    """
    told = [row for row in rows if row["run_wait"] is not None]
    return sum(row["run_wait"] for row in told
               if row["involuntary"] or row["run_wait"] <= _MOST_WAIT_S * (row["switches"] or 0.0)) if told else None


def _python_of(thread):
    """Where a thread is in Python, whom it serves, and whether it is one of a pool that has nothing to do; None: not known."""
    if thread is None:
        return {"at": None, "called_at": None, "request": None, "idle": None, "python_name": None}
    inner, request = (thread.frames[0] if thread.frames else None), thread.request
    own = next((frame for frame in thread.frames if not _LIBRARY.search(frame.file)), None)
    return {"at": inner and _place(inner), "called_at": _place(own) if own is not None and own is not inner else None, "idle": thread.idle,
            "python_name": thread.name, "request": request and " ".join(filter(None, (request.method, request.path or request.request_id)))}


def _place(frame):
    return f"{frame.file}:{frame.line or '?'} {frame.function}"


def _unknown(facts):
    """{part: reason} of all parts; the parts' own are left where they are too."""
    found = {}
    for name in ("identity", "usage", "memory", "descriptors", "cgroup", "interpreter"):
        for part, reason in ((facts[name] or {}).get("unknown") or {}).items():
            found.setdefault(part, reason)
    if facts["environment"].unknown:
        found.setdefault("environment", facts["environment"].unknown)
    if facts["threads_left_out"] > 0:
        found.setdefault("threads", f"{facts['threads_left_out']:,} more threads were not looked at")
    return found
