"""Views: what a reader gets, as frozen plain data.

`summary` is the one that every face reads.  Its JSON is versioned: keys are added, never
changed.  A window is "now" (the newest tick of each process that still sends), "1m" or "10m"
(by receive time, in steps of 5 and of 60 seconds):

    {"seconds", "ticks", "requests", "throughput",        # throughput: requests per second
     "capacity", "cpu_user", "cpu_system", "cpu",         # ratios; cpu in cores
     "status": {"1xx".."5xx"}, "phases": {phase: {"mean", "p50", "p95", "p99", "max"}},
     "gil": {"share", "coefficient": {"q", "reading", "waits"} or null},
     "gc": {"pauses", "seconds", "max"}, "slow_completed", "input_bytes", "output_bytes"}

All times are seconds.  What the senders do not tell is null, never 0.  `share` is GIL wait
over application time.  A process has of the phases only `request`.
"""
from collections import Counter

from modwsgi_tel.state import inside, sampled
from modwsgi_tel.state.process import ENDED, LIVES
from modwsgi_tel.state.window import (CAPACITY, COUNTERS, CPU_SYSTEM, CPU_USER, GC_PAUSES, GC_PEAK, GC_SECONDS, INPUT_BYTES,
                                      NO_TOTAL, PERIOD, PERIOD_MAX, PHASE, REQUESTS, SLOTS_IN_MINUTE, SLOW_COMPLETED, STATUS,
                                      TICKS, Slot, Total, cover, cover_slot, firsts)
from modwsgi_tel.wire.buckets import ZERO, gil_coefficient, merge, percentiles
from modwsgi_tel.wire.fields import BY_NAME, PHASE_FIELDS, PHASES, kind_name
from modwsgi_tel.wire.shapes import Wanted, finite

VERSION = 1
WINDOWS = ("now", "1m", "10m")
PARTS = ("collector", "totals", "groups", "agent", "processes")
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
FRESH_INTERVALS = 3                     # a newest tick older than that is not "now"
BATCH = 32                              # processes between two turns of the loop
ROWS_BATCH = 8                          # rows of processes: a tenth of a millisecond each

INFINITE = float("inf")
_THREADS = (("maximum", "request_threads_maximum"), ("started", "request_threads_started"),
            ("active", "request_threads_active"))
_LIVE = ("rss", *(name for name, _ in _THREADS))            # of the newest tick, added up over a group
_LIVE_IDS = Wanted((BY_NAME["memory_rss"].id, *(BY_NAME[field].id for _, field in _THREADS)))


def run(steps):
    """The result of a generator that yields when others may have a turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def summary(fleet, now, wall, own=None, windows=WINDOWS, parts=PARTS):
    """The summary as one dict; `own` is what the collector says of itself (see collector)."""
    return run(summary_steps(fleet, now, wall, own, windows, parts))


def summary_steps(fleet, now, wall, own=None, windows=WINDOWS, parts=PARTS):
    """As `summary`, but a generator that yields (nothing) between pieces of work of about a millisecond.

    `windows` and `parts`: only these of WINDOWS and PARTS, for a reader that comes back every second.
    """
    out = {"type": "summary", "version": VERSION, "time": wall}
    if "collector" in parts:
        out["collector"] = collector(fleet, own)
    groups, total = [], _Total(windows)
    for group in list(fleet.groups.values()) if "totals" in parts or "groups" in parts else ():
        members = list(group.processes.values())
        merged = yield from _merged(group, members, now, windows)
        groups.append((yield from _group(fleet, group, merged, total, "groups" in parts)))
    if "totals" in parts:
        out["totals"] = yield from total.view(fleet)
    if "groups" in parts:
        out["groups"] = groups
    if "agent" in parts:
        out["agent"] = inside.summary(fleet, now)
        yield
    if "processes" in parts:
        rows = out["processes"] = []
        for place, process in enumerate(fleet.processes()):
            rows.append(process_view(process, now, wall, windows))
            if place % ROWS_BATCH == ROWS_BATCH - 1:
                yield
    return out


def collector(fleet, own=None):
    """The collector's own figures; what was lost to any bound is in `bounds`."""
    return {
        "received": fleet.received, "received_bytes": fleet.received_bytes, "decode_errors": fleet.decode_errors,
        "wrong": dict(fleet.wrong), "wrong_last": list(fleet.wrong_last),
        "kinds": {kind_name(kind): count for kind, count in enumerate(fleet.kinds) if count},
        "without_process": fleet.orphans, "kept_bytes": fleet.budget.held,
        "bounds": {"processes_evicted": fleet.evicted, "processes_forgotten": fleet.forgotten,
                   "slow_evicted": fleet.slow.evicted, "slow_forgotten": fleet.slow.forgotten,
                   "events_dropped": fleet.events.dropped, "groups_evicted": fleet.groups.evicted,
                   "interpreters_evicted": fleet.interpreters_lost + sum(
                       process.interpreters_lost for process in fleet.processes()),
                   "records_dropped": fleet.budget.dropped_records},
        **(own or {})}


# --- windows ---------------------------------------------------------------------------

class _Sum:
    """Slots added up: sums, peaks, {phase: counts}, and the stretches of time they tell of.

    `rates` are throughput and CPU, user and system, of newest ticks: each by its own period.
    """

    def __init__(self):
        self.slot = Slot(0)
        self.spans = []
        self.rates = None

    def add(self, slot, spans=()):
        self.slot.merge(slot)
        for begin, end in spans:
            cover(self.spans, begin, end)

    def add_open(self, slots):
        self.slot.merge_all(slots)
        for slot in slots:
            cover_slot(self.spans, slot)

    def add_newest(self, slot):
        self.add(slot, [(-min(slot.sums[PERIOD], PERIOD_MAX), 0.0)])
        self.add_rates([_ratio(slot.sums[place], slot.sums[PERIOD]) or 0.0 for place in (REQUESTS, CPU_USER, CPU_SYSTEM)])

    def add_rates(self, rates):
        if rates is not None:
            self.rates = rates if self.rates is None else [a + b for a, b in zip(self.rates, rates)]


def _merged(group, members, now, names=WINDOWS):
    """{window: _Sum} of a group: closed slots, the open ones of its processes, the newest ticks.

    A generator that yields between batches of processes.  A slot that closes in between is in
    neither: of a group of hundreds, for one look.
    """
    out = {name: _Sum() for name in names}
    for name in out:
        if name != "now":
            out[name].add(*group.windows.read(now, name))
    if "1m" in out or "10m" in out:
        yield
    first, minute = firsts(now)
    for at in range(0, len(members), BATCH):
        batch = members[at:at + BATCH]
        held = [slot for slot in (process.windows.open for process in batch) if slot.sums[PERIOD] or any(slot.sums)]
        for name, slots in (("1m", [slot for slot in held if slot.index >= first]),
                            ("10m", [slot for slot in held if slot.index // SLOTS_IN_MINUTE >= minute])):
            if name in out and slots:
                out[name].add_open(slots)
        if "now" in out:
            for process in batch:
                tick = fresh_tick(process, now)
                if tick is not None:
                    out["now"].add_newest(tick)
        yield
    return out


def is_fresh(process, now):
    """Whether its newest tick is of now."""
    return process.tick is not None and now - process.tick[0] <= max(3.0, FRESH_INTERVALS * process.interval)


def fresh_tick(process, now):
    """A Slot of the newest tick, or None when that is too old or there is none."""
    if process.ended or not is_fresh(process, now):
        return None
    _, shape, datagram, fits = process.tick
    slot = Slot(0)
    return slot if slot.tick(shape, datagram, int.from_bytes(datagram, "little") if fits else None) else None


def _ratio(part, whole):
    """part / whole, or None where that is no number: of nothing, or of a senders' nonsense beyond all floats."""
    ratio = part / whole if whole else INFINITE
    return ratio if ratio < INFINITE else None


def window(sums, peaks, counts, covered, present, switch_interval=0.0, phases=PHASES, rates=None):
    """The JSON of a window out of added-up sums, peaks, {phase: 65 counts} and covered seconds.

    `rates`, where given, stand for what would be divided by the covered seconds (see _Sum).
    """
    ticks, period, requests = sums[TICKS], sums[PERIOD], sums[REQUESTS]

    def timed(place, field):
        return _ratio(sums[place], period) if field in present else None

    user, system = timed(CPU_USER, 30), timed(CPU_SYSTEM, 31)
    # of one core: per process for a process, added up over the processes for a group
    cores = _ratio(period, covered)
    user, system = (None if share is None or cores is None else share * cores for share in (user, system))
    throughput = _ratio(requests, covered)
    if rates is not None:
        throughput = _ratio(rates[0], 1)
        user, system = (None if was is None else rate for was, rate in zip((user, system), rates[1:]))
    out = {
        "seconds": covered, "ticks": int(ticks), "requests": int(requests),
        "throughput": throughput,
        "capacity": timed(CAPACITY, 22), "cpu_user": user, "cpu_system": system,
        "cpu": None if user is None or system is None else user + system,
        "status": {name: int(sums[STATUS + place]) for place, name in enumerate(STATUSES)},
        "phases": {}, "gil": {"share": None, "coefficient": None},
        "gc": {"pauses": int(sums[GC_PAUSES]), "seconds": sums[GC_SECONDS], "max": peaks[GC_PEAK] if sums[GC_PAUSES] else None},
        "slow_completed": int(sums[SLOW_COMPLETED]), "input_bytes": int(sums[INPUT_BYTES]),
        "output_bytes": int(sums[INPUT_BYTES + 2])}
    for phase in phases:
        mean_field, _, max_field, row_field = PHASE_FIELDS[phase]
        if mean_field not in present and row_field not in present:
            continue
        place = PHASES.index(phase)
        mean = sums[PHASE + place] / requests if requests else None
        # a sender that tells no maximum has 0 here: then it bounds nothing
        longest = peaks[place] if requests and max_field in present else None
        row = counts.get(phase)
        p50, p95, p99 = percentiles(row, longest_s=longest) if row is not None else (None, None, None)
        out["phases"][phase] = {"mean": mean, "p50": p50, "p95": p95, "p99": p99, "max": longest}
    application = sums[PHASE + PHASES.index("application")]
    if PHASE_FIELDS["gil_wait"][0] in present:
        out["gil"]["share"] = _ratio(sums[PHASE + PHASES.index("gil_wait")], application)
    if "gil_wait" in counts:
        out["gil"]["coefficient"] = gil_coefficient(counts["gil_wait"], switch_interval)
    return out


# --- groups and totals --------------------------------------------------------------------

class _Total:
    def __init__(self, names):
        self.sums = {name: _Sum() for name in names}
        self.counters = Counter()
        self.lives = dict.fromkeys(LIVES, 0)
        self.lost = self.uncertain = self.active = 0
        self.rss = None
        self.names = {}                 # of the groups
        self.present = frozenset()
        self.switch_interval = 0.0

    def count(self, process):
        """Add what no window has of a process; its lost datagrams."""
        lost, uncertain = process.losses()
        self.lives[process.life] += 1
        self.lost += lost
        self.uncertain += uncertain
        self.active += len(process.slow_active)
        return lost

    def view(self, fleet):
        for process in fleet.processes():
            if process.identity is None:        # no tick yet, so in no group
                self.count(process)
        return {"groups": len(fleet.groups), "processes": sum(self.lives.values()), "lives": self.lives,
                "process_groups": list(self.names), "rss": self.rss,
                "counters": dict(self.counters), "lost": self.lost, "lost_uncertain": self.uncertain,
                "slow": {"kept": len(fleet.slow), "active": self.active, "lost": fleet.slow_lost},
                "windows": (yield from _windows_of(self.sums, self.present, self.switch_interval))}


def _windows_of(sums, present, switch_interval):
    out = {}
    for name, held in sums.items():
        slot = held.slot
        yield
        out[name] = window(slot.sums, slot.peaks, slot.histograms.counts(), sum(end - begin for begin, end in held.spans),
                           present, switch_interval, rates=held.rates)
    return out


def _group(fleet, group, merged, total, told):
    """A row of `groups` (None unless `told`), added to the total.

    What is of single processes is read in one step: one that goes meanwhile would be counted twice.
    """
    members, counters = list(group.processes.values()), fleet.counters(group)
    present = group.present.union(*{id(process.present): process.present for process in members}.values())
    switch = max((process.switch_interval for process in members), default=0.0)
    for name, held in merged.items():
        total.sums[name].add(held.slot, held.spans)
        total.sums[name].add_rates(held.rates)
    total.counters.update(counters)
    total.lost += group.lost
    total.present |= present
    total.switch_interval = max(total.switch_interval, switch)
    lives, roles = dict.fromkeys(LIVES, 0), Counter()
    threads, rss, lost, active = {}, None, group.lost, 0
    for process in members:
        lives[process.life] += 1
        roles[process.role] += 1
        lost += total.count(process)
        active += len(process.slow_active)
        if process.tick is not None and process.life not in ENDED:
            _, shape, datagram, _ = process.tick
            for name, number, value in zip(_LIVE, _LIVE_IDS, shape.read(_LIVE_IDS, datagram)):
                if number not in shape.ids:
                    continue
                if name == "rss":
                    rss = (rss or 0) + value
                else:
                    threads[name] = threads.get(name, 0) + value
    total.names[group.name[1]] = None
    if rss is not None:
        total.rss = (total.rss or 0) + rss
    yield
    if not told:
        return None
    return {"hostname": group.name[0], "process_group": group.name[1], "lives": lives, "roles": dict(roles),
            "threads": threads or None, "rss": rss, "counters": counters, "lost": lost,
            "started": group.started, "stopped": group.stopped, "vanished": group.vanished,
            "stop_reasons": dict(group.reasons), "slow_active": active,
            "slow_lost": group.slow_lost, "switch_interval": switch or None,
            "windows": (yield from _windows_of(merged, present, switch))}


# --- processes ----------------------------------------------------------------------------

_NEWEST = ("memory_rss", "memory_max_rss", "slow_requests_threshold", *(field for _, field in _THREADS))
_NEWEST_IDS = Wanted(BY_NAME[name].id for name in _NEWEST)


def newest_fields(process):
    """The scalar fields of the newest tick that a view shows, those that are there: {name: value}."""
    if process.tick is None:
        return {}
    _, shape, datagram, _ = process.tick
    return {name: value for name, number, value in zip(_NEWEST, _NEWEST_IDS, shape.read(_NEWEST_IDS, datagram))
            if number in shape.ids}


def process_total(process, now, name):
    """The Total of one process in a window."""
    if name != "now":
        return process.windows.read(now, name)
    tick = fresh_tick(process, now)
    return NO_TOTAL if tick is None else Total(tick.sums, tick.peaks, tick.histograms.phase("request"))


def process_view(process, now, wall, names=WINDOWS):
    """One process as in the summary, with these windows; `kernel` is what /proc said of it, null where it was not asked."""
    fields = newest_fields(process)
    windows = {}
    for name in names:
        sums, peaks, row = process_total(process, now, name)
        windows[name] = window(sums, peaks, {} if row is None else {"request": row}, sums[PERIOD], process.present,
                               phases=("request",))
    lost, uncertain = process.losses()
    totals = process.windows.total
    opened = process.windows.open.sums
    return {
        "id": process.id, "pid": process.pid, "sender_pid": process.who.sender_pid, "sender_uid": process.who.uid,
        "hostname": process.texts["hostname"], "process_group": process.texts["process_group"], "role": process.role,
        "life": process.life, "life_since": process.life_wall,
        "silent_s": None if process.silent_now is None else max(0.0, now - process.silent_now),
        "alive": alive(process), "stopping": process.stopping, "stopped": finite(process.stopped),
        "first_seen": process.first_wall, "last_seen": process.last_wall, "interval": process.interval,
        "parent_pid": process.parent_pid, "start_ticks": process.trust.start, "namespace_pids": list(process.trust.nspids),
        "restarts_unseen": process.restarts,
        "threads": {name: fields.get(field) for name, field in _THREADS}, "rss": fields.get("memory_rss"),
        "max_rss": fields.get("memory_max_rss"), "slow_threshold": finite(fields.get("slow_requests_threshold")),
        "slow_active": len(process.slow_active), "interpreters": len(process.interpreters),
        "lost": lost, "lost_uncertain": uncertain,
        "implausible": process.odd, "kernel": sampled.view(process, short=True),
        "counters": {name: totals[place] + opened[place] for name, place in COUNTERS.items()},
        "windows": windows}


def alive(process):
    """What /proc says: True, False, or None when it was not asked or cannot say."""
    if process.life == "vanished":
        return False
    if not process.checkable or process.trust.start is None or process.ended:
        return None
    return True if process.silent_now is None or process.vanish_checked_now else None


def sources_view(process):
    """Loss per source of datagrams: {source: {"received", "lost", "uncertain", "late", "duplicates", "newest_seq"}}."""
    return {name: {"received": sequence.received, "lost": sequence.lost, "uncertain": sequence.uncertain,
                   "late": sequence.late, "duplicates": sequence.duplicates, "newest_seq": sequence.newest}
            for name, sequence in process.sources.items()}


def process_details(process, now, wall):
    """All about one process but its history: the summary's row, the newest tick, GC state, losses, and what its agents told."""
    out = process_view(process, now, wall)
    out["agent"] = inside.process_view(process, now)
    out["kernel"] = sampled.view(process)
    out["versions"] = {name: process.texts[name] for name in
                       ("mod_wsgi_version", "python_version", "apache_version", "mpm_name")}
    out["sources"] = sources_view(process)
    out["kinds"] = {kind_name(kind): count for kind, count in process.kinds.items()}
    out["interpreters_evicted"] = process.interpreters_lost
    out["newest"] = None
    if process.tick is not None:
        at, shape, datagram, _ = process.tick
        out["newest"] = {"age_s": now - at, "fields": shape.fields(datagram)}
    out["gc"] = {}
    for name, item in process.interpreters.items():
        if item.snapshot is not None:
            shape, datagram = item.snapshot
            shown = name.decode("utf-8", "replace")
            while shown in out["gc"]:           # cut at 127 bytes, or not UTF-8: two names may look the same
                shown += "\ufffd"
            out["gc"][shown] = shape.fields(datagram)
    return finite(out)


def histogram_steps(fleet, phase, name, group, now):
    """Counts, percentiles and GIL coefficient of one phase: of a group by its name, or of all (None).

    A generator that yields between groups and returns {"phase", "window", "group", "counts",
    "requests", "p50", "p95", "p99", "max"}.
    """
    row, present, told, switch, longest = ZERO, False, True, 0.0, 0.0
    for held in list(fleet.groups.values()):
        if group is None or held.name[1] == group:
            yield
            members = list(held.processes.values())
            slot = (yield from _merged(held, members, now, (name,)))[name].slot
            counts, longest = slot.histograms.phase(phase), max(longest, slot.peaks[PHASES.index(phase)])
            switch = max([switch, *(process.switch_interval for process in members)])
            if counts is not None:
                row, present = merge(row, counts), True
                told = told and any(PHASE_FIELDS[phase][2] in process.present for process in members)
    longest = longest if present and told and any(row) else None
    p50, p95, p99 = percentiles(row, longest_s=longest)
    out = {"phase": phase, "window": name, "group": group, "counts": list(row) if present else None,
           "requests": sum(row), "p50": p50, "p95": p95, "p99": p99, "max": longest}
    if phase == "gil_wait":
        out["coefficient"] = gil_coefficient(row, switch)
    return finite(out)
