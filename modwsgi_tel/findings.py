"""Findings: what is wrong, in words, by rules that are written down in one table.

    found = findings.look(facts(fleet, groups, now, wall), own_wrong, now, wall)
    line = verdict(found, totals)

Each rule says what it saw and never more.  A finding is a dict in JSON:

    {"id", "severity", "hostname", "process_group", "pid", "process", "since", "text", "advice", "figures"}

`id` is the rule's and stable; `process` the process's id, `pid` its pid, both null where it is about more
than one; `hostname` and `process_group` null where it is about all; `since` wall seconds; `figures`
{name: number or text} are what the text rests on.  Names and paths are raw text, of bounded length.
"""
from collections import OrderedDict, deque, namedtuple

from modwsgi_tel.figures import duration, moment, number, percent, size
from modwsgi_tel.state.facts import FILES_GROWN_LEAST, FULL_CAPACITY, RECENT_S, UNSEEN_S
from modwsgi_tel.state.process import ENDED

CRITICAL, WARNING, INFO = SEVERITIES = ("critical", "warning", "info")

# --- thresholds ------------------------------------------------------------------------------

MINUTE_S = 60.0                         # the window that the rules look at
BUSY_SHARE, BUSY_FOR_S = 0.5, 5.0
SILENT_S = 10.0
GONE_S = 5.0
RESTARTS, RESTART_WITHIN_S, YOUNG_S = 3, 60.0, 60.0
ERROR_SHARE, ERRORS_LEAST, REQUESTS_LEAST = 0.05, 5, 20
QUEUE_P95_S, QUEUE_CAPACITY = 0.5, 0.8
GIL_SHARE, GIL_LEAST_S = 0.2, 0.001     # a share of microseconds hurts nobody
GIL_SHARE_LONG, GIL_LONG_S = 0.05, 0.05
SLOW_SHARE, SLOW_LEAST, ONE_PATH = 0.05, 5, 0.8
STUCK_S = 60.0
STOPPING_S = 60.0
GC_SHARE, GC_LOST_LEAST = 0.1, 100
LOST_LEAST, WRONG_LEAST = 10, 5

Growth = namedtuple("Growth", "span_s step_s least")
Growth.__doc__ = "Memory or descriptors that grow: by at least `least` within `span_s`, in each step of `step_s` their part."
GROWTHS = (Growth(60.0, 10.0, 32_000_000), Growth(600.0, 60.0, 64_000_000))
GROWTH_FROM_S = 30.0                    # of a process's life: before, it loads the application
GROWTH_PART = 1 / 3                     # of the mean growth, in each step
FILES_SHARE = 0.8                       # of the limit
FILES_GROWTHS = (Growth(120.0, 20.0, FILES_GROWN_LEAST), Growth(540.0, 90.0, 2 * FILES_GROWN_LEAST))     # numbers, not bytes

# Reasons for which an operator stopped it; "" is embedded mode, which gives none.
ASKED_FOR = frozenset(("shutdown_signal", "graceful_signal", "eviction_signal", "script_reload", ""))
# Limits that an operator has set: reached often they are trouble, now and then they are what was asked for.
LIMITS = frozenset(("maximum_requests", "restart_interval", "inactivity_timeout"))

# --- bounds ------------------------------------------------------------------------------------

FINDINGS_MOST = 100                     # in one look
HELD_MOST = 1000                        # findings whose beginning is remembered
HELD_S = 30.0                           # one that comes back within it has gone on
BACK_S = 5.0                            # two looks that overlap, not a replay that seeks
TEXT_MOST = 200                         # of what the collector says of itself
SAMPLE_S = 5.0                          # between two counts that are kept

Rule = namedtuple("Rule", "id severity check help advice")
Rule.__doc__ = """check(look) yields a Saw for each thing that is wrong; help says when, advice what to do next."""

Saw = namedtuple("Saw", "text figures group pid process since about exact",
                 defaults=(None, None, None, None, "", False))
Saw.__doc__ = """What a rule saw: `group` of the facts or None, `since` where the rule knows it (wall), `about` what tells it from
others of the same rule, group and process, `exact` whether `since` is that, whatever is remembered of before."""

Look = namedtuple("Look", "facts own_wrong memory now wall")
Look.__doc__ = "What a rule is given."

Finding = namedtuple("Finding", "id severity hostname process_group pid process since text advice figures")
Finding.__doc__ = "A finding, as in the JSON."


# --- the rules: capacity -----------------------------------------------------------------------

def _serving(look):
    return [group for group in look.facts["groups"] if group["serves"]]


def _threads_busy(look):
    for group in _serving(look):
        full, taking = group["full"], group["taking"]
        if not full or full < BUSY_SHARE * taking:
            continue
        if look.memory.lasting(("threads-busy", _name(group)), look.now) < BUSY_FOR_S:
            continue
        p95 = group["window"]["phases"].get("queue", {}).get("p95")
        have = "has" if full == taking == 1 else "have"
        queue = "" if p95 is None else f"; queue time p95 {duration(p95)}"
        yield Saw(f"{full} of {_many(taking, 'process')} of {group['name']} {have} every thread busy{queue}",
                  {"full": full, "processes": taking, "queue_p95_s": p95}, group)


def _queueing(look):
    for group in _serving(look):
        window = group["window"]
        p95, capacity = window["phases"].get("queue", {}).get("p95"), window["capacity"]
        if p95 is None or p95 < QUEUE_P95_S or window["requests"] < REQUESTS_LEAST:
            continue
        if capacity is None or capacity >= QUEUE_CAPACITY or look.memory.was(("threads-busy", _name(group)), look.now):
            continue
        yield Saw(f"queue time p95 {duration(p95)} in {group['name']}, though its threads are busy only "
                  f"{percent(capacity)} of the time",
                  {"queue_p95_s": p95, "capacity": capacity, "requests": window["requests"]}, group)


def _gil_contention(look):
    for group in _serving(look):
        window = group["window"]
        share, mean = window["gil"]["share"], window["phases"].get("gil_wait", {}).get("mean")
        if share is None or mean is None or window["requests"] < REQUESTS_LEAST:
            continue
        if not (share >= GIL_SHARE and mean >= GIL_LEAST_S or share >= GIL_SHARE_LONG and mean >= GIL_LONG_S):
            continue
        reading = (window["gil"]["coefficient"] or {}).get("reading")
        said = f"{reading}: " if reading else ""
        yield Saw(f"{said}GIL waits {percent(share)} of application time in {group['name']}",
                  {"share": share, "mean_s": mean, "reading": reading, "requests": window["requests"]}, group)


# --- the rules: requests -----------------------------------------------------------------------

def _slow_requests(look):
    for group in _serving(look):
        window, slow = group["window"], group["slow"]
        count, requests = window["slow_completed"] + slow.active, window["requests"] + slow.active
        if count < SLOW_LEAST or count < SLOW_SHARE * requests:
            continue
        oldest = look.wall - slow.running[0].age_s if slow.running else None
        since = look.memory.since(("slow-requests", _name(group), None, ""), oldest, look.now, look.wall)
        path, most = max(slow.paths.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
        if not slow.read:
            where = ""
        elif most == slow.read:
            where = f", all in {path}"
        elif most >= ONE_PATH * slow.read:
            where = f", {percent(most / slow.read)} in {path}"
        else:
            where = f", in {len(slow.paths)} paths"
        yield Saw(f"slow since {moment(since, look.wall)}{where}: {_of(count, requests)} of "
                  f"{group['name']}",
                  {"slow": count, "requests": requests, "active": slow.active, "path": path, "in_path": most,
                   "read": slow.read}, group, since=oldest)


def _stuck_request(look):
    for group in _serving(look):
        stuck = [running for running in group["slow"].running if running.age_s >= STUCK_S]
        if not stuck:
            continue
        worst = stuck[0]
        figures = {"requests": len(stuck), "age_s": worst.age_s, "path": worst.path, "pid": worst.pid}
        started = look.wall - worst.age_s
        if len(stuck) == 1:
            yield Saw(f"a request of {worst.path} runs for {_age(worst.age_s)} in pid {worst.pid} of {group['name']}",
                      figures, group, worst.pid, worst.process, started, exact=True)
        else:
            yield Saw(f"{len(stuck)} requests of {group['name']} run for {_age(STUCK_S)} or longer, the oldest for "
                      f"{_age(worst.age_s)}: {worst.path} in pid {worst.pid}", figures, group, since=started, exact=True)


def _errors(look):
    for group in _serving(look):
        window = group["window"]
        count, requests = window["status"]["5xx"], window["requests"]
        if count < ERRORS_LEAST or requests < REQUESTS_LEAST or count < ERROR_SHARE * requests:
            continue
        share = count / requests
        yield Saw(f"{percent(share)} of the responses of {group['name']} are 5xx: {_of(count, requests)} in a minute",
                  {"errors": count, "requests": requests, "share": share}, group)


# States of proc(5) in which a process cannot speak.
_STATES = {"T": "stopped by a signal (state T)", "t": "stopped by a debugger (state t)",
           "Z": "it has ended, and its parent has not taken notice (a zombie, state Z)",
           "D": "a thread waits in the kernel and cannot be interrupted (state D)"}
_NEVER_RUNS = frozenset("TtZ")


# --- the rules: lives ----------------------------------------------------------------------------

def _silent(look):
    facts = look.facts
    everyone = [each for group in facts["groups"] for each in group["silent"] if not each.late]
    nothing = facts["heard_s"] is not None and facts["heard_s"] >= SILENT_S       # of one that stops may still come some
    late = sum(1 for group in facts["groups"] for each in group["silent"] if each.late)
    if everyone and nothing and len(everyone) + late == facts["processes"] and not any(each.alive for each in everyone):
        shortest, inside = min(each.silent_s for each in everyone), sum(each.inside for each in everyone)
        since = max(each.since for each in everyone)
        if shortest >= SILENT_S:
            yield Saw(f"nothing arrives since {moment(since, look.wall)}: {_many(len(everyone), 'process')} silent"
                      f"{_with(inside)}", {"processes": len(everyone), "inside": inside, "silent_s": shortest},
                      since=since)
            return
    for group in _serving(look):
        silent = [each for each in group["silent"] if each.silent_s >= SILENT_S and not each.late]
        if not silent:
            continue
        inside, shortest = sum(each.inside for each in silent), min(each.silent_s for each in silent)
        figures = {"processes": len(silent), "silent_s": shortest, "inside": inside,
                   "alive": sum(1 for each in silent if each.alive)}
        if len(silent) == 1:
            [each] = silent
            guess = "GIL held?" if inside and each.alive else "gone, or GIL held?" if inside else ""
            why = _held(each) or guess
            yield Saw(f"pid {each.pid} of {group['name']} silent for {_age(each.silent_s)}{_with(inside)}"
                      + (f": {why}" if why else ""), figures, group, each.pid, each.process, each.since)
        else:
            worst = next((f"; pid {each.pid}: {_held(each)}" for each in silent if _held(each)), "")
            yield Saw(f"{len(silent)} processes of {group['name']} silent for {_age(shortest)} or longer"
                      + (f", {_many(inside, 'request')} inside" if inside else "") + worst,
                      figures, group, since=min(each.since for each in silent))


def _held(silent):
    """Why a process is silent, as its stacks and the kernel tell; "" where neither does."""
    kernel = _STATES.get(silent.state, "")
    if silent.state in _NEVER_RUNS:
        return kernel
    if kernel and silent.wait:
        kernel = f"{kernel}, in {silent.wait}"
    return "; ".join(filter(None, (silent.held, kernel)))


def _heard_late(look):
    for group in _serving(look):
        late = [each for each in group["silent"] if each.silent_s >= SILENT_S and each.late]
        if late:
            shortest = min(each.silent_s for each in late)
            yield Saw(f"{_many(len(late), 'process')} of {group['name']} silent for {_age(shortest)}"
                      f"{' or longer' if len(late) > 1 else ''}: {late[0].late}",
                      {"processes": len(late), "silent_s": shortest}, group, since=min(each.since for each in late))


def _no_request_seen(look):
    for group in _serving(look):
        if group["unseen"]:
            yield Saw(f"the agent in {_many(group['unseen'], 'process')} of {group['name']} has seen no request for "
                      f"{duration(UNSEEN_S)}: is it in the interpreter of the application?", {"processes": group["unseen"]}, group)


def _nothing_runs(look):
    facts = look.facts
    if facts["ended"] and not facts["live"] and look.wall - facts["ended_wall"] >= GONE_S:
        yield Saw(f"no process runs since {moment(facts['ended_wall'], look.wall)}: {number(facts['ended'], 0)} ended",
                  {"ended": facts["ended"]}, since=facts["ended_wall"])


def _vanished(look):
    for group in _serving(look):
        # one that was told to stop and killed in the end is what a restart looks like
        gone = [each for each in group["vanished"] if each.inside or not each.stopping]
        if not gone:
            continue
        inside, last = sum(each.inside for each in gone), max(each.since for each in gone)
        figures = {"processes": len(gone), "inside": inside, "last": last}
        if len(gone) == 1:
            [each] = gone
            how = " while it stopped" if each.stopping else ""
            yield Saw(f"pid {each.pid} of {group['name']} vanished at {moment(last, look.wall)}{how}{_with(inside)}: "
                      "killed?", figures, group, each.pid, each.process, last)
        else:
            first = min(each.since for each in gone)
            yield Saw(f"{len(gone)} processes of {group['name']} vanished since {moment(first, look.wall)}"
                      f"{_with(inside)}: killed?", figures, group, since=first)


def _restarting(look):
    for group in _serving(look):
        for reason, stops in group["stops"].items():
            if reason in ASKED_FOR:
                continue
            stops = [stop for stop in stops if reason not in LIMITS or stop.uptime_s < YOUNG_S]
            if len(stops) < RESTARTS:
                continue
            first, last = stops[0].wall, stops[-1].wall
            every = max(0.0, last - first) / (len(stops) - 1)
            if look.wall - last > max(RESTART_WITHIN_S, RESTARTS * every):
                continue                    # it has come to rest
            often = f"every {_age(every)}"
            if every < 1:                   # several at once, not one again and again
                often = f"{len(stops)} times within {_age(max(1.0, last - first))}"
            yield Saw(f"restarting {often}: {reason} in {group['name']}",
                      {"reason": reason, "stops": len(stops), "every_s": every}, group, since=first, about=reason)


def _stopping_long(look):
    for group in _serving(look):
        late = [each for each in group["stopping"] if each.seconds >= STOPPING_S]
        if not late:
            continue
        worst = max(late, key=lambda each: each.seconds)
        figures = {"processes": len(late), "seconds": worst.seconds, "reason": worst.reason}
        why = f" ({worst.reason})" if worst.reason else ""
        if len(late) == 1:
            yield Saw(f"pid {worst.pid} of {group['name']} stops for {_age(worst.seconds)}{why} and still goes on",
                      figures, group, worst.pid, worst.process, worst.since)
        else:
            yield Saw(f"{len(late)} processes of {group['name']} stop for up to {_age(worst.seconds)}{why} and still "
                      "go on", figures, group, since=worst.since)


# --- the rules: memory ---------------------------------------------------------------------------

def _memory_growth(look):
    for group, grown in look.memory.growths(look.facts["groups"], look.now):
        if not group["serves"]:
            continue
        grown_by, seconds, rss = max(grown)
        much = f"{size(grown_by)} in {_age(seconds)}, to {size(rss.bytes)}"
        figures = {"processes": len(grown), "bytes": grown_by, "seconds": seconds, "rss": rss.bytes, "pid": rss.pid}
        if len(grown) == 1:
            yield Saw(f"pid {rss.pid} of {group['name']} grew by {much}", figures, group, rss.pid, rss.process)
        else:
            yield Saw(f"{len(grown)} processes of {group['name']} grow, pid {rss.pid} by {much}", figures, group)


def _descriptors(look):
    for group in _serving(look):
        near = [(each, _climb(each.points)) for each in group["files"] if each.limit and each.files >= FILES_SHARE * each.limit]
        told = {each.process for each, _ in near}
        climbing = [(each, grown) for each in group["files"] if each.process not in told
                    for grown in [_climb(each.points)] if grown]
        if near:
            worst, grown = max(near, key=lambda found: found[0].files / found[0].limit)
            has = f"pid {worst.pid} of {group['name']} has {_open(worst)}"
            if len(near) > 1:
                has = (f"{len(near)} processes of {group['name']} have {percent(FILES_SHARE)} or more of the files open that they may, "
                       f"pid {worst.pid} {_open(worst).replace(' files open', '')}")
            more = f", {number(grown[0], 0)} more in {_age(grown[1])}" if grown else ""
            yield _files_saw(group, near, worst, grown, has + more, "limit")
        if climbing:
            worst, grown = max(climbing, key=lambda found: found[1])
            text = f"pid {worst.pid} of {group['name']} opens ever more files: {number(grown[0], 0)} in {_age(grown[1])}, {_open(worst)}"
            if len(climbing) > 1:
                text = (f"{len(climbing)} processes of {group['name']} open ever more files, pid {worst.pid} {number(grown[0], 0)} in "
                        f"{_age(grown[1])}: {_open(worst)}")
            yield _files_saw(group, climbing, worst, grown, text, "growth")


def _files_saw(group, found, worst, grown, text, about):
    figures = {"processes": len(found), "files": worst.files, "limit": worst.limit, "grown": grown and grown[0],
               "seconds": grown and grown[1], "pid": worst.pid}
    whose = (worst.pid, worst.process) if len(found) == 1 else (None, None)
    return Saw(text, figures, group, *whose, about=about)


def _open(files):
    of = "" if files.limit is None else f" of {number(files.limit, 0)}"
    return f"{number(files.files, 0)}{of} files open"


def _climb(points):
    """(how many more, within seconds) where the numbers of [(now, number)] grow steadily, else None."""
    for growth in FILES_GROWTHS:
        steps = round(growth.span_s / growth.step_s)
        newest = points[-1][0] if points else 0.0
        amounts = [next((amount for when, amount in reversed(points) if when <= newest - step * growth.step_s), None)
                   for step in range(steps, -1, -1)]
        if None in amounts:
            continue
        grown = amounts[-1] - amounts[0]
        if grown >= growth.least and all(after - before >= grown / steps * GROWTH_PART for before, after in zip(amounts, amounts[1:])):
            return grown, growth.span_s
    return None


def _gc_pauses(look):
    for group in _serving(look):
        gc, told_s = group["window"]["gc"], group["process_s"]
        lost = look.memory.gained(("gc", _name(group)), group["gc_dropped"], look.now)
        share = gc["seconds"] / told_s if told_s else 0.0
        much = share >= GC_SHARE and group["window"]["ticks"] >= 5
        if not much and lost < GC_LOST_LEAST:
            continue
        text = f"{number(lost, 0)} GC events of {group['name']} lost in a minute"
        if much:
            text = f"GC pauses take {percent(share)} of the time in {group['name']}, the longest {duration(gc['max'])}"
            text += f"; {number(lost, 0)} events lost in a minute" if lost >= GC_LOST_LEAST else ""
        yield Saw(text, {"share": share, "longest_s": gc["max"], "pauses": gc["pauses"], "lost_events": lost}, group)


# --- the rules: what reaches us --------------------------------------------------------------------

def _losing(look):
    lost = look.memory.gained(("lost",), look.facts["lost"], look.now)
    if lost >= LOST_LEAST:
        yield Saw(f"{number(lost, 0)} datagrams lost in a minute", {"lost": lost})


def _wrong_datagrams(look):
    wrong = look.memory.gained(("wrong",), look.facts["wrong"], look.now)
    if wrong >= WRONG_LEAST:
        yield Saw(f"{number(wrong, 0)} datagrams in a minute were no telemetry", {"wrong": wrong})


def _collector(look):
    for wrong in look.own_wrong:
        yield Saw(wrong[:TEXT_MOST], {}, about=wrong[:TEXT_MOST])


def _name(group):
    return group["hostname"], group["process_group"]


def _many(count, what):
    return f"{number(count, 0)} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")


def _of(count, whole):
    return f"{number(count, 0)} of {_many(whole, 'request')}"


def _with(inside):
    return f" with {_many(inside, 'request')} inside" if inside else ""


def _age(seconds):
    """A duration without tenths of seconds, which no interval has."""
    return f"{seconds:.0f} s" if 0.9995 <= seconds < 99.5 else duration(seconds)


RULES = (
    Rule("collector", CRITICAL, _collector,
         "The collector itself cannot do its work: its socket was removed, or what it writes cannot be written.",
         "Put right what it names; until then other findings may be missing."),
    Rule("silent", CRITICAL, _silent,
         f"A process has sent nothing for {SILENT_S:.0f} s and three intervals, without having said that it stops; or, "
         "when all are silent and /proc cannot say that they live, nothing arrives.  Where its stacks could be read, the line is "
         "named in which the GIL is held; and it is said when the kernel shows the process stopped, ended, or in an uninterruptible wait.",
         "If the process lives look at its stacks: code that keeps the GIL stops its reports too; if nothing arrives "
         "see whether Apache runs and may write to the socket."),
    Rule("nothing-runs", CRITICAL, _nothing_runs,
         f"All processes that were known have ended, and for {GONE_S:.0f} s no other one has come.",
         "See whether Apache runs, and why it ended in its error log; with none of its processes nothing is served."),
    Rule("restarting", CRITICAL, _restarting,
         f"{RESTARTS} or more processes of a group stopped within {duration(RECENT_S)} for one reason that no operator "
         f"asked for; of {', '.join(sorted(LIMITS))} only processes younger than {YOUNG_S:.0f} s count.",
         "Read Apache's error log for that reason; for request_timeout see which requests were slow before."),
    Rule("threads-busy", CRITICAL, _threads_busy,
         f"At least {percent(BUSY_SHARE)} of the processes of a group have all threads active and "
         f"{percent(FULL_CAPACITY)} of their time busy, for {BUSY_FOR_S:.0f} s.",
         "See in slow and latency what holds the threads; more of them help only while CPU is left."),
    Rule("vanished", CRITICAL, _vanished,
         f"A process was gone without a word within {duration(RECENT_S)}, as /proc says; one that had said it stops "
         "counts only with slow requests inside.",
         "Look for the OOM killer in the kernel's log and for a segmentation fault in Apache's."),
    Rule("errors", WARNING, _errors,
         f"At least {percent(ERROR_SHARE)} of a group's responses in the last minute are 5xx, {ERRORS_LEAST} or more "
         f"of at least {REQUESTS_LEAST}.",
         "Read the application's log and Apache's error log from that time on."),
    Rule("slow-requests", WARNING, _slow_requests,
         f"At least {percent(SLOW_SHARE)} of a group's requests, and {SLOW_LEAST} or more, are slow: completed in the "
         "last minute or still running.",
         "Open the slow requests and see in which phase, and on which path, their time goes."),
    Rule("stuck-request", WARNING, _stuck_request,
         f"A request runs for {STUCK_S:.0f} s or longer in a process that still reports.",
         "See in slow what it waits for; request-timeout of WSGIDaemonProcess ends such a process."),
    Rule("queueing", WARNING, _queueing,
         f"Queue time p95 of a group in the last minute is {duration(QUEUE_P95_S)} or more over at least "
         f"{REQUESTS_LEAST} requests, though its threads were busy less than {percent(QUEUE_CAPACITY)} of the time.",
         "Bursts, or requests that are not spread over the processes: compare these with one another."),
    Rule("gil-contention", WARNING, _gil_contention,
         f"GIL waits of a group in the last minute are {percent(GIL_SHARE)} of application time and "
         f"{duration(GIL_LEAST_S)} a request, or {percent(GIL_SHARE_LONG)} and {duration(GIL_LONG_S)}, over at least "
         f"{REQUESTS_LEAST} requests.",
         "Fewer threads and more processes; find what computes, or an extension that keeps the GIL."),
    Rule("memory-growth", WARNING, _memory_growth,
         "The resident memory of a process grows steadily by "
         + " or ".join(f"{size(growth.least)} in {_age(growth.span_s)}" for growth in GROWTHS)
         + f", from {GROWTH_FROM_S:.0f} s after it was first heard.",
         "Compare with what it served; maximum-requests or restart-interval bounds it until the leak is found."),
    Rule("descriptors", WARNING, _descriptors,
         f"A process has {percent(FILES_SHARE)} or more of the files and sockets open that its limit allows; or steadily more of them, by "
         + " or ".join(f"{growth.least} in {_age(growth.span_s)}" for growth in FILES_GROWTHS) + ".",
         "See with modwsgi-tel inspect PID which files or connections are open several times: what opens them does not close them; "
         "maximum-requests bounds it until that is found."),
    Rule("gc-pauses", WARNING, _gc_pauses,
         f"Garbage collections take {percent(GC_SHARE)} or more of the time of a group's processes in the last minute, "
         f"or {GC_LOST_LEAST} or more of their events were lost.",
         "See in gc which generation it is; gc.freeze() after loading, or higher thresholds."),
    Rule("stopping-long", WARNING, _stopping_long,
         f"A process said {STOPPING_S:.0f} s ago or longer that it stops, and goes on.",
         "It may wait for requests inside: see slow; shutdown-timeout of WSGIDaemonProcess bounds it."),
    Rule("losing", WARNING, _losing,
         f"{LOST_LEAST} or more datagrams were lost in the last minute, as their numbers tell.",
         "The socket was away or could not be written: see the collector's own view for stalls."),
    Rule("wrong-datagrams", WARNING, _wrong_datagrams,
         f"{WRONG_LEAST} or more datagrams in the last minute were not as the format says.",
         "The collector's own view shows the last of them and who sent them."),
    Rule("heard-late", INFO, _heard_late,
         f"A process has sent nothing for {SILENT_S:.0f} s, and its agent had said that uWSGI lets no thread of its run between requests.",
         "Start uWSGI with --enable-threads; until then silence says nothing of such a process."),
    Rule("no-request-seen", INFO, _no_request_seen,
         f"Under a mod_wsgi that does not report itself no agent of a group has seen a request, {duration(UNSEEN_S)} after its process was "
         "first heard.",
         "Nobody may have asked for anything; else see that WSGIImportScript names the application-group that WSGIApplicationGroup has."),
)

# What else to do where the WSGI server is another one than mod_wsgi: {(rule, how agent_server begins): advice}.
_ELSEWHERE = {
    ("vanished", "gunicorn"): "Look for WORKER TIMEOUT in gunicorn's log: --timeout kills a worker that does not come back from a request; "
                              "else for the OOM killer in the kernel's log.",
    ("vanished", "uWSGI"): "Look for HARAKIRI in uWSGI's log: harakiri kills a worker whose request takes longer; else for the OOM killer in "
                           "the kernel's log.",
    ("stuck-request", "gunicorn"): "See in slow what it waits for; gunicorn's --timeout ends a worker of sync that does not come back, never "
                                   "one with threads for a request alone.",
    ("stuck-request", "uWSGI"): "See in slow what it waits for; uWSGI's harakiri ends a worker whose request takes longer.",
    ("memory-growth", "gunicorn"): "Compare with what it served; gunicorn's --max-requests bounds it until the leak is found.",
    ("memory-growth", "uWSGI"): "Compare with what it served; uWSGI's max-requests bounds it until the leak is found.",
    ("descriptors", "gunicorn"): "See with modwsgi-tel inspect PID which files or connections are open several times: what opens them does "
                                 "not close them; gunicorn's --max-requests bounds it until that is found.",
    ("descriptors", "uWSGI"): "See with modwsgi-tel inspect PID which files or connections are open several times: what opens them does not "
                              "close them; uWSGI's max-requests bounds it until that is found.",
    ("stopping-long", "gunicorn"): "It may wait for requests inside: see slow; gunicorn's --graceful-timeout bounds it.",
    ("stopping-long", "uWSGI"): "It may wait for requests inside: see slow; uWSGI's worker-reload-mercy bounds it.",
}


def _advice(rule, group):
    server = (group["server"].split() or [""])[0] if group else ""
    return _ELSEWHERE.get((rule.id, server), rule.advice)


# --- the memory -------------------------------------------------------------------------------

class _Memory:
    """What the rules remember between looks; times are monotonic seconds but for `since`."""

    def __init__(self):
        self._held = OrderedDict()          # key -> [since (wall), when it last fired], in that order
        self._lasting = {}                  # key -> [first, newest] time it was so at every look
        self._counts = {}                   # key -> deque of (time, count)
        self._rss = {}                      # (Growth's span_s, process id) -> deque of (time, bytes)

    def since(self, key, given, now, wall):
        """Since when (wall) a finding holds: as it is remembered, or given where that is earlier."""
        held = self._held.get(key)
        times = [] if held is None or now - held[1] >= HELD_S else [held[0]]
        return min([wall, *times] if given is None else [wall, given, *times])

    def hold(self, key, given, now, wall):
        """As `since`, and remember it: the finding fires now."""
        since = self.since(key, given, now, wall)
        self._held[key] = [since, now]
        self._held.move_to_end(key)
        return since

    def was(self, key, now):
        """Whether a finding of a rule and group, by `lasting`, was there within the minute."""
        held = self._held.get((*key, None, ""))
        return key in self._lasting or held is not None and now - held[1] < MINUTE_S

    def lasting(self, key, now):
        """Seconds for which this was asked at every look: it holds for that long."""
        times = self._lasting.setdefault(key, [now, now])
        if now - times[1] >= HELD_S:        # nobody looked for too long
            times[0] = now
        times[1] = now
        return now - times[0]

    def gained(self, key, count, now):
        """By how much a count has grown within the last minute, as far as the looks tell."""
        row = self._counts.setdefault(key, deque())
        while row and row[0][0] < now - MINUTE_S - SAMPLE_S:
            row.popleft()
        gained = count - row[0][1] if row else 0
        if not row or now - row[-1][0] >= SAMPLE_S:
            row.append((now, count))
        return max(0, gained)

    def growths(self, groups, now):
        """Yield (group, [(bytes, seconds, Rss)]) of the groups with processes that grow."""
        for group in groups:
            grown = [each for each in (self._grown(rss, now) for rss in group["rss"]) if each]
            if grown:
                yield group, grown

    def _grown(self, rss, now):
        if rss.known_s < GROWTH_FROM_S:
            return None
        found = None
        for growth in GROWTHS:
            key = growth.span_s, rss.process
            row = self._rss.get(key)
            if row is None or now - row[-1][0] > 3 * growth.step_s:     # nobody looked for too long
                row = self._rss[key] = deque(maxlen=int(growth.span_s / growth.step_s) + 1)
            if not row or now - row[-1][0] >= growth.step_s:
                row.append((now, rss.bytes))
            grown_by = row[-1][1] - row[0][1]
            if found is None and grown_by >= growth.least and len(row) == row.maxlen:
                least = grown_by / (len(row) - 1) * GROWTH_PART
                amounts = [amount for _, amount in row]
                if all(after - before >= least for before, after in zip(amounts, amounts[1:])):
                    found = grown_by, row[-1][0] - row[0][0], rss
        return found

    def forget(self, facts, now):
        """Drop what is about processes, groups and findings that are gone."""
        known = {rss.process for group in facts["groups"] for rss in group["rss"]}
        self._rss = {key: row for key, row in self._rss.items() if key[1] in known}
        names = {_name(group) for group in facts["groups"]}
        self._counts = {key: row for key, row in self._counts.items() if len(key) == 1 or key[1] in names}
        self._lasting = {key: times for key, times in self._lasting.items() if times[1] == now}
        while self._held and (len(self._held) > HELD_MOST or now - next(iter(self._held.values()))[1] >= MINUTE_S):
            self._held.popitem(last=False)


class Findings:
    """What is wrong, and since when; `last` is what the newest look found, `left_out` how many it had no room for."""

    def __init__(self):
        self.last = []
        self.left_out = 0
        self._memory = _Memory()
        self._now = None

    def look(self, facts, own_wrong, now, wall):
        """The findings as dicts, the most severe first, then in the order of RULES and groups.

        facts: see state.facts.  own_wrong: what is wrong with the collector itself, as texts.
        now: monotonic seconds; when they go back (a replay seeks) everything is forgotten, unless it is
        by less than BACK_S: a reader's look that began before another one and ends after it.
        """
        if self._now is not None and now < self._now:
            if now < self._now - BACK_S:
                self._memory = _Memory()
            else:
                now = self._now
        self._now = now
        look = Look(facts, own_wrong, self._memory, now, wall)
        found = [self._finding(rule, saw, now, wall) for rule in RULES for saw in rule.check(look)]
        self._memory.forget(facts, now)
        found.sort(key=_order)
        self.left_out = max(0, len(found) - FINDINGS_MOST)
        self.last = [dict(finding._asdict()) for finding in found[:FINDINGS_MOST]]
        return self.last

    def _finding(self, rule, saw, now, wall):
        hostname, name = (None, None) if saw.group is None else _name(saw.group)
        key = rule.id, (hostname, name), saw.process, saw.about
        since = self._memory.hold(key, saw.since, now, wall)
        return Finding(rule.id, rule.severity, hostname, name, saw.pid, saw.process, saw.since if saw.exact else since,
                       saw.text, _advice(rule, saw.group), saw.figures)


_PLACE = {rule.id: (SEVERITIES.index(rule.severity), place) for place, rule in enumerate(RULES)}


def _order(finding):
    return (_PLACE[finding.id], finding.hostname or "", finding.process_group or "", finding.process or 0, finding.text)


# --- one line ---------------------------------------------------------------------------------

def verdict(findings, totals):
    """One line: the worst of the findings and how many more, or what a quiet server does.

    `totals` as in the summary, with any of its windows.
    """
    if findings:
        more = len(findings) - 1
        return findings[0]["text"] + (f" (+{more} more)" if more else "")
    if not totals["processes"]:
        return "no process has reported yet"
    ended = sum(totals["lives"].get(life, 0) for life in ENDED)
    if ended == totals["processes"]:
        return f"no process runs: {number(ended, 0)} ended"
    windows = totals["windows"]
    window = next((windows[name] for name in ("1m", "now", "10m") if name in windows), {})
    said = [_many(totals["processes"] - ended, "process")]
    if window.get("throughput") is not None:
        said.append(f"{number(window['throughput'])} requests/s")
    if window.get("capacity") is not None:
        said.append(f"busy {percent(window['capacity'])}")
    silent = totals["lives"].get("silent", 0)
    if silent:                          # not long enough to be a finding
        return f"just now silent: {number(silent, 0)} of {_many(totals['processes'] - ended, 'process')}"
    # as long as it is not known whether it lasts
    quiet = "all quiet" if (window.get("capacity") or 0) < FULL_CAPACITY else "busy, for how long is not known yet"
    return f"{quiet}: " + ", ".join(said)
