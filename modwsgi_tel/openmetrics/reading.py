"""What the rows of table.METRICS read: a group, a process, the collector, as they are at one moment.

A counter that becomes less is a restart to Prometheus.  So what is closed of a group, and which slots are open, is taken at one
moment; the slots are added up in the steps that follow, with what came into them meanwhile, whether they have closed by then or
not: each is counted once, and by the next reading with no less.
"""
import sys
from collections import Counter, namedtuple

from modwsgi_tel.findings import ASKED_FOR, LIMITS, RULES, SEVERITIES
from modwsgi_tel.openmetrics.bounds import phase_counts
from modwsgi_tel.state.facts import FILES_FRESH_S
from modwsgi_tel.state.process import LIVES
from modwsgi_tel.state.view import collector, is_fresh
from modwsgi_tel.state.window import (CPU_SYSTEM, CPU_USER, GC_PEAK, GC_SECONDS, NO_PAUSES, PHASE, REQUESTS, STATUS, Slot, firsts)
from modwsgi_tel.wire.buckets import gil_coefficient
from modwsgi_tel.wire.fields import BY_NAME, PHASES
from modwsgi_tel.wire.shapes import Wanted

BATCH = 64                              # processes that are read in one step

Source = namedtuple("Source", "fleet findings own healthy now wall processes", defaults=(0,))
Source.__doc__ = """What there is to read.  findings: as Findings.last.  own: what the collector says of itself, {} of a recording.
healthy: whether it does its work.  now: monotonic, wall: wall seconds.  processes: how many of them get series of their own."""

_NEWEST = ("request_threads_maximum", "request_threads_started", "request_threads_active", "memory_rss", "slow_requests_threshold",
           "capacity_utilization", "sample_period")
_NEWEST_IDS = Wanted(BY_NAME[name].id for name in _NEWEST)
_ADDED_UP = _NEWEST[:4]
_CAPACITY, _RSS, _THRESHOLD, _GIL_WAIT = (BY_NAME[name].id for name in (
    "capacity_utilization", "memory_rss", "slow_requests_threshold", "gil_wait_time"))
_STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_STATUS_ID = BY_NAME["status_2xx_total"].id
_CPU = (("user", CPU_USER, BY_NAME["cpu_user_utilization"].id), ("system", CPU_SYSTEM, BY_NAME["cpu_system_utilization"].id))
_GIL, _APPLICATION = (PHASE + PHASES.index(name) for name in ("gil_wait", "application"))
_VERSIONS = ("mod_wsgi_version", "python_version", "apache_version", "mpm_name")
# There from the start with 0, so that the first stop is seen as an increase: all that mod_wsgi 6.1.1's wsgi_daemon.c has.
_REASONS = sorted((ASKED_FOR | LIMITS | {"cpu_time_limit", "deadlock_timeout", "request_timeout", "startup_timeout"}) - {""})
_WRONG = ("header", "magic", "version", "truncated", "type", "wrong_type", "duplicate", "too_long")
_FORGOTTEN = ("processes_forgotten", "slow_forgotten")


class GroupReading:
    """A group; `steps` reads it, yielding when others may have a turn."""

    def __init__(self, group):
        self._group = group
        self.name = group.name
        self.findings = [((severity,), 0) for severity in SEVERITIES]

    def steps(self, source):
        group, now = self._group, source.now
        members = list(group.processes.values())
        self.present = group.present.union(*{id(process.present): process.present for process in members}.values())
        self.switch_interval_s = max((process.switch_interval for process in members), default=0.0) or None
        self.starts, self.vanished, self.slow_lost = group.started, group.vanished, group.slow_lost
        self._reasons = dict(group.reasons)
        # a slot that closes makes the lists of its group anew, these are as they were
        self._sums, self._pauses = group.counters, group.pauses or NO_PAUSES
        self._histograms = group.histograms.copy()
        opened = [process.windows.open for process in members if any(process.windows.open.sums)]
        minute, (first, _) = Slot(0), firsts(now)
        minute.merge(group.windows.read(now, "1m")[0])
        for at in range(0, len(opened), BATCH):
            yield
            batch = opened[at:at + BATCH]
            self._slots(batch)
            minute.merge_all([slot for slot in batch if slot.index >= first])
        yield
        self._minute(minute)
        self._begin(group)
        for at in range(0, len(members), BATCH):
            self._members(members[at:at + BATCH], now)
            yield
        self._end(group)

    def _slots(self, slots):
        self._sums = list(map(sum, zip(self._sums, *(slot.sums for slot in slots))))
        self._histograms.merge_all([slot.histograms for slot in slots if slot.sums[REQUESTS]])
        self._pauses = list(map(sum, zip(self._pauses, *(slot.pauses for slot in slots if slot.pauses is not None))))

    def _minute(self, slot):
        """What is of the last minute, as in the summary's window."""
        application = slot.sums[_APPLICATION]
        self.gil_share = slot.sums[_GIL] / application if application and _GIL_WAIT in self.present else None
        self.gc_longest_s = slot.peaks[GC_PEAK] or None
        coefficient = gil_coefficient(slot.histograms.phase("gil_wait") or (), self.switch_interval_s)
        self.gil_q = coefficient["q"] if coefficient else None

    def _begin(self, group):
        self.lives = dict.fromkeys(LIVES, 0)
        self.slow_active = self.silent = 0
        self.silence_s = 0.0
        self.rss_largest = self.threshold_s = self.files_largest = self.files_share = self.software = None
        self._newest = {}
        self._busy_s = self._period_s = 0.0
        self._lost, self._exceptions, self._agents = group.lost - group.uncertain, group.exceptions, bool(group.exceptions)
        self.tells_gc = any(self._pauses)

    def _members(self, members, now):
        for process in members:
            self.lives[process.life] += 1
            self.slow_active += len(process.slow_active)
            of_it, uncertain = process.losses()
            self._lost += of_it - uncertain
            self.tells_gc = self.tells_gc or bool(process.interpreters)
            if process.agents is not None:
                self._agents = True
                self._exceptions += process.agents.exceptions
            if any(process.texts[name] for name in _VERSIONS):
                self.software = tuple(process.texts[name] for name in _VERSIONS)
            if process.ended:
                continue
            if process.silent_now is not None:
                self.silent += 1
                self.silence_s = max(self.silence_s, now - process.silent_now)
            if process.tick is not None:
                *amounts, threshold, capacity, of_time = process.tick[1].read(_NEWEST_IDS, process.tick[2])
                ids = process.tick[1].ids
                for name, amount in zip(_ADDED_UP, amounts):
                    self._newest[name] = self._newest.get(name, 0) + amount
                if _RSS in ids:
                    self.rss_largest = max(amounts[3], self.rss_largest or 0)
                if _THRESHOLD in ids:
                    self.threshold_s = max(threshold, self.threshold_s or 0.0)
                if _CAPACITY in ids and 0 < of_time and is_fresh(process, now):
                    self._busy_s += capacity * of_time
                    self._period_s += of_time
            self._files(process, now)

    def _end(self, group):
        self.capacity = self._busy_s / self._period_s if self._period_s else None
        self.lost = group.highest("lost", self._lost)
        self.exceptions = group.highest("exceptions", self._exceptions) if self._agents else None

    def _files(self, process, now):
        files, limit = _files(process, now)
        if files is not None:
            self.files_largest = max(files, self.files_largest or 0)
            if limit:
                self.files_share = max(files / limit, self.files_share or 0.0)

    # --- for the table ----------------------------------------------------------------------

    def count(self, place):
        """One of window.COUNTERS."""
        return int(self._sums[place])

    def seconds(self, place):
        """One of window.SUMS that is seconds: never less than it was told before."""
        return self._group.highest(place, round(float(self._sums[place]), 9))

    def responses(self):
        return [((name,), self.count(STATUS + place)) for place, name in enumerate(_STATUSES)] if _STATUS_ID in self.present else None

    def cpu(self):
        return [((mode,), self.seconds(place)) for mode, place, field in _CPU if field in self.present]

    def phase(self, name):
        row = self._histograms.phase(name)
        return None if row is None else (phase_counts(row), self.seconds(PHASE + PHASES.index(name)))

    def newest(self, name):
        """A field of the newest ticks of those that have not ended, added up."""
        return self._newest.get(name)

    def pauses(self):
        if not self.tells_gc:
            return None
        sums, held = [], 0
        for count in self._pauses:
            held += count
            sums.append(held)
        return sums, self.seconds(GC_SECONDS)

    def stops(self):
        known = dict.fromkeys(_REASONS if self.name[1] else (), 0)
        return [((reason,), count) for reason, count in {**known, **self._reasons}.items()]


class ProcessReading:
    """A single process."""

    def __init__(self, process, source):
        self._process = process
        self.present = process.present
        newest = process.tick
        self._fields = dict(zip(_NEWEST, newest[1].read(_NEWEST_IDS, newest[2]))) if newest is not None else {}
        self.capacity = self._fields.get("capacity_utilization") if newest is not None and is_fresh(process, source.now) else None
        self.files, _ = _files(process, source.now)
        self.slow_active = len(process.slow_active)
        self.silence_s = 0.0 if process.silent_now is None else source.now - process.silent_now
        self.first_wall = process.first_wall

    def count(self, place):
        return int(self._process.counter(place))

    def cpu(self):
        return [((mode,), round(float(self._process.counter(place)), 9)) for mode, place, field in _CPU if field in self.present]

    def newest(self, name):
        return self._fields.get(name)


class CollectorReading:
    """The collector itself."""

    present = frozenset()

    def __init__(self, source, processes, left_out):
        self.fleet, self.own, self.healthy = source.fleet, source.own, source.healthy
        self.processes, self.left_out = processes, left_out
        self.started_wall = self.own.get("started")
        self.build = (self.own["version"], sys.version.split()[0]) if "version" in self.own else None
        self._findings = source.findings
        self._bounds = collector(source.fleet)["bounds"]

    def wrong(self):
        return [((reason,), count) for reason, count in {**dict.fromkeys(_WRONG, 0), **self.fleet.wrong}.items()]

    def losses(self):
        """What bounds have cost, by the names that the summary has."""
        inside = self.fleet.inside
        found = {name: count for name, count in self._bounds.items() if name not in _FORGOTTEN}
        found.update(exceptions_evicted=inside.exceptions.evicted, agents_evicted=inside.agents.evicted,
                     locations_evicted=inside.locations_evicted)
        return [((name,), count) for name, count in found.items()]

    def forgotten(self):
        return [((name,), self._bounds[name]) for name in _FORGOTTEN]

    def findings(self):
        found = Counter(finding["id"] for finding in self._findings)
        return [((rule.id, rule.severity), found[rule.id]) for rule in RULES]


def group_findings(findings):
    """{(hostname, process_group): [((severity,), number)]} of the findings that are about a group."""
    found = {}
    for finding in findings:
        if finding["process_group"] is not None:
            held = found.setdefault((finding["hostname"], finding["process_group"]), dict.fromkeys(SEVERITIES, 0))
            held[finding["severity"]] += 1
    return {name: [((severity,), count) for severity, count in held.items()] for name, held in found.items()}


def _files(process, now):
    """(open descriptors, their limit) by the newest look of the kernel; None where it is not known, or too long ago."""
    newest = process.kernel.newest if process.kernel is not None else None
    if newest is None or now - newest.now > FILES_FRESH_S:
        return None, None
    return newest.files, newest.files_limit
