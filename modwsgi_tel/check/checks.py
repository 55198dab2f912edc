"""What is checked, as the table CHECKS: a summary in, an Outcome out.  No sockets, no clock.

    outcome = BY_NAME["latency"].judge(Look(summary, ...))

Without --group every process group is judged by itself, and the worst one counts.  What cannot be judged is UNKNOWN: no
process, no data, too little of them.  A group without a request in the window is well: it may be night.
Source: the summary of state.view, as of any version that has these keys.
"""
from collections import namedtuple

from modwsgi_tel.check.output import CRITICAL, OK, STATES, UNKNOWN, WARNING, WORST_FIRST, Figure, Outcome, worst
from modwsgi_tel.errors import Nonsense, UsageError
from modwsgi_tel.figures import counted, duration, number, percent, size

DATA_LEAST_S = 10.0                     # of data, or of a collector's life, before anything is said to be well
ERRORS_LEAST = 5                        # responses with 5xx: fewer are no reason for an alarm that nobody has set
NAMED = 3                               # groups in the first line
NAME = 60                               # characters of a group's name, that what is said of it has room
AMOUNT_MOST = 1e18                      # of bytes, requests, seconds: more is nonsense
DETAILS = 40                            # lines
EMBEDDED = "(embedded)"
WINDOWS = {"1m": "the last minute", "10m": "the last 10 minutes"}

_ENDED = ("stopped", "vanished", "replaced")
_SEVERITIES = {"critical": CRITICAL, "warning": WARNING, "info": OK}
_OWN = ("collector", "losing", "wrong-datagrams")       # findings about the collector and what reaches it

Check = namedtuple("Check", "name unit warning critical parts options judge help")
Check.__doc__ = """unit: of what the ranges are compared with, one of ranges.UNITS.  warning, critical: ranges as text, where none are given.
parts: of /api/summary.  options: which of --group, --window, --p, --phase mean something.  judge: Look -> Outcome."""

Look = namedtuple("Look", "answer warning critical given group window p phase")
Look.__doc__ = "answer: the summary.  warning, critical: Ranges or None.  given: whether any of them was.  The rest are the options' values."

Reading = namedtuple("Reading", "status value said")
Reading.__doc__ = """Of one group.  status: one that holds whatever the ranges say, or None where the value, if there is one, is
to be judged.  value: a number or None.  said: words."""


# --- reading what another program wrote -----------------------------------------------------------

def _amount(value):
    """A number from 0 to AMOUNT_MOST.  Raises ValueError for anything else that JSON may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < AMOUNT_MOST:
        raise ValueError(f"{str(value)[:40]!r} is no amount")
    return value


def _or_none(value):
    return None if value is None else _amount(value)


def _living(lives):
    return sum(_amount(count) for life, count in lives.items() if life not in _ENDED)


def _uptime_s(look):
    """How long the collector runs, or None where it does not tell."""
    return _or_none(look.answer["collector"].get("uptime_s"))


def _names(rows):
    """The name of each (hostname, process group), with its host where another one has the same; no two are alike, whatever they are called."""
    held = {(row["hostname"], row["process_group"]) for row in rows}
    groups, names = [group for _, group in held], {}
    for host, group in sorted(held, key=repr):
        name = (group or EMBEDDED) + (f"@{host}" if groups.count(group) > 1 else "")
        while name in names.values():
            name += "#"
        names[host, group] = name
    return names


def _is_wanted(look, group):
    return look.group is None or look.group in (group, group or EMBEDDED)


def _nothing(look):
    """An Outcome where there is nothing to look at, else None."""
    totals = look.answer["totals"]
    if not _amount(totals["processes"]):
        uptime = _uptime_s(look)
        since = f" since the collector was started {duration(uptime)} ago" if uptime is not None else ""
        return Outcome(UNKNOWN, f"no process has sent anything{since}: see modwsgi-tel doctor on that machine")
    known = totals["process_groups"]
    if look.group is not None and not any(_is_wanted(look, group) for group in known):
        there = ", ".join(group or EMBEDDED for group in known) or "none yet"
        return Outcome(UNKNOWN, f"no process group {look.group!r}; there are: {there}")
    return None


def _nothing_runs(look, status):
    """An Outcome where all processes have ended, else None."""
    totals = look.answer["totals"]
    if _living(totals["lives"]):
        return None
    return Outcome(status, f"no process runs: {number(totals['processes'], 0)} ended")


# --- a value for each group -----------------------------------------------------------------------

def _judged(look, what, unit, readings, most=None):
    """The Outcome of {name: Reading or None}; `what` begins the first line.  None: the group tells nothing of it."""
    told = {name: reading for name, reading in readings.items() if reading is not None}
    if not told:
        return Outcome(UNKNOWN, f"{what}: no group tells it" if readings else f"{what}: no process group to look at")
    judged = []
    for name, reading in told.items():
        status, why = reading.status, ""
        if status is None:
            status = OK if reading.value is None else _status(look, reading.value)
            why = _why(look, status, unit)
        shown = name if len(name) <= NAME else name[:NAME - 3] + "..."
        judged.append((status, name, reading, f"{shown}: {reading.said}{why}"))
    judged.sort(key=lambda item: (WORST_FIRST.index(item[0]), -(item[2].value or 0), item[1]))
    status = worst(item[0] for item in judged)
    bad = [text for each, _, _, text in judged if each == status]
    if status != OK:
        text = ", ".join(bad[:NAMED]) + (f" (+{len(bad) - NAMED} more)" if len(bad) > NAMED else "")
    elif judged[0][2].value is None or len(judged) == 1:
        text = bad[0] if len(judged) == 1 else f"{len(judged)} groups: {judged[0][2].said}"
    else:
        text = f"{counted(len(judged), 'group')}, the highest is {bad[0]}"
    shown = {"share": "%"}.get(unit, unit)
    # by name, not by badness: graphs keep their order
    figures = tuple(Figure(name, reading.value, shown, look.warning, look.critical, 0, most) for name, reading in sorted(told.items()))
    details = [f"{STATES[each]}: {text}" for each, _, _, text in judged] if len(judged) > 1 else []
    return Outcome(status, f"{what}: {text}", _cut(details), figures)


def _status(look, value):
    if look.critical is not None and look.critical.alerts(value):
        return CRITICAL
    return WARNING if look.warning is not None and look.warning.alerts(value) else OK


def _why(look, status, unit):
    held = {WARNING: look.warning, CRITICAL: look.critical}.get(status)
    if held is None:
        return ""
    shown = held.text(100) + " %" if unit == "share" else f"{held.text()} {unit}"
    return f" ({STATES[status].lower()}: {shown.strip()})"


def _cut(details):
    more = len(details) - DETAILS
    return (*details[:DETAILS], f"... and {more} more") if more > 0 else tuple(details)


def _by_window(look, what, read, most=None, unit="share"):
    """The Outcome of what `read(window of a group)` gives: a Reading, or None where that is not told."""
    rows = [row for row in look.answer["groups"] if _is_wanted(look, row["process_group"]) and set(row["roles"]) != {"apache-child"}
            and _living(row["lives"])]
    names, readings = _names(look.answer["groups"]), {}
    for row in rows:
        window = row["windows"][look.window]
        seconds = _amount(window["seconds"])
        silent = _amount(row["lives"].get("silent", 0))
        if silent and silent == _living(row["lives"]):
            reading = Reading(UNKNOWN, None, f"{counted(silent, 'process', 'processes')}, all silent")
        elif seconds < DATA_LEAST_S:
            reading = Reading(UNKNOWN, None, f"has {duration(seconds)} of data in {WINDOWS[look.window]}, which is too little")
        else:
            reading = read(window)
        readings[names[row["hostname"], row["process_group"]]] = reading
    return _nothing(look) or _nothing_runs(look, UNKNOWN) or _judged(look, what, unit, readings, most)


def _capacity(look):
    def read(window):
        share = _or_none(window["capacity"])
        return None if share is None else Reading(None, share, f"{percent(share)} busy in {WINDOWS[look.window]}")
    return _by_window(look, "capacity", read, 1)


def _latency(look):
    shown = f"{look.phase} p{look.p}"

    def read(window):
        if not _amount(window["requests"]):
            return Reading(None, None, f"no request in {WINDOWS[look.window]}")
        seconds = _or_none(window["phases"].get(look.phase, {}).get(f"p{look.p}"))
        return None if seconds is None else Reading(None, seconds, f"{shown} {duration(seconds)} in {WINDOWS[look.window]}")
    return _by_window(look, "latency", read, unit="s")


def _errors(look):
    def read(window):
        requests, errors = _amount(window["requests"]), _amount(window["status"]["5xx"])
        if not requests:
            return Reading(None, None, f"no request in {WINDOWS[look.window]}")
        said = f"{number(errors, 0)} of {counted(requests, 'response')} with 5xx ({percent(errors / requests)}) in {WINDOWS[look.window]}"
        return Reading(OK if not look.given and errors < ERRORS_LEAST else None, errors / requests, said)
    return _by_window(look, "errors", read, 1)


# --- processes ------------------------------------------------------------------------------------

def _by_process(look, what, unit, read):
    """The Outcome of what `read(living processes of a group, its name, its findings)` gives."""
    rows = [row for row in look.answer["processes"] if _is_wanted(look, row["process_group"])]
    names, groups, readings = _names(look.answer["processes"]), {}, {}
    for row in rows:
        groups.setdefault((row["hostname"], row["process_group"]), []).append(row)
    for group, members in groups.items():
        living = [row for row in members if row["life"] not in _ENDED]
        # without a tick nothing is known of it but that it began
        if living and {row["role"] for row in members} != {"apache-child"}:
            findings = {finding["id"]: finding for finding in look.answer["findings"]
                        if (finding["hostname"], finding["process_group"]) == group}
            readings[names[group]] = read(living, findings)
    return _judged(look, what, unit, readings)


def _silent(look):
    def read(living, findings):
        silent = [row for row in living if row["life"] == "silent" and row["silent_s"] is not None]
        if not silent:
            return Reading(None, 0, f"{counted(len(living), 'process', 'processes')}, none silent")
        worst_one = max(silent, key=lambda row: _amount(row["silent_s"]))
        said = f"{len(silent)} of {counted(len(living), 'process', 'processes')} silent, pid {worst_one['pid']} for {duration(worst_one['silent_s'])}"
        if "heard-late" in findings:
            return Reading(OK, worst_one["silent_s"], f"{said}, which says nothing: {findings['heard-late']['text']}")
        return Reading(None, worst_one["silent_s"], said)
    return _nothing(look) or _nothing_runs(look, CRITICAL) or _by_process(look, "silent", "s", read)


def _rss(look):
    def read(living, findings):
        told = [row for row in living if row["rss"] is not None]
        if not told:
            return None
        largest, total = max(told, key=lambda row: _amount(row["rss"])), sum(_amount(row["rss"]) for row in told)
        said = f"largest {size(largest['rss'])} (pid {largest['pid']}), {counted(len(told), 'process', 'processes')} {size(total)} in all"
        grows = findings.get("memory-growth") if not look.given else None
        return Reading(WARNING, largest["rss"], f"{said}: {grows['text']}") if grows else Reading(None, largest["rss"], said)
    return _nothing(look) or _nothing_runs(look, UNKNOWN) or _by_process(look, "rss", "B", read)


# --- findings, and the collector ------------------------------------------------------------------

def _severity(finding):
    """The state of a finding; of a severity that is not known here, WARNING."""
    return _SEVERITIES.get(finding["severity"], WARNING)


def _lines(findings):
    return _cut([line for finding in findings
                 for line in (f"{STATES[_severity(finding)]}: {finding['text']}", f"  {finding['advice']}")])


def _findings(look):
    # what is about all processes is about those of this group
    found = [finding for finding in look.answer["findings"] if finding["process_group"] is None or _is_wanted(look, finding["process_group"])]
    wrong = [finding for finding in found if _severity(finding) != OK]
    critical = [finding for finding in wrong if _severity(finding) == CRITICAL]
    status = max(WARNING if look.warning.alerts(len(wrong)) else OK, CRITICAL if look.critical.alerts(len(critical)) else OK)
    figures = (Figure("findings", len(wrong), "", look.warning, None, 0), Figure("critical", len(critical), "", None, look.critical, 0))
    if status == OK:
        nothing = _nothing(look) or _nothing_runs(look, UNKNOWN) or _too_young(look)
        if nothing:
            return nothing
    if wrong:
        text = wrong[0]["text"] + (f" (+{len(wrong) - 1} more)" if len(wrong) > 1 else "")
    elif status != OK:
        text = f"no finding{_why(look, status, '')}"
    else:
        text = look.answer["verdict"] if look.group is None and not found else "nothing is wrong" + (f" with {look.group}" if look.group else "")
    return Outcome(status, text, _lines(found), figures)


def _too_young(look):
    uptime = _uptime_s(look)
    if uptime is None or uptime >= DATA_LEAST_S:
        return None
    return Outcome(UNKNOWN, f"the collector runs for {duration(uptime)}: too short to know")


def _collector(look):
    own, totals = look.answer["collector"], look.answer["totals"]
    uptime, gap = _uptime_s(look), _or_none(own.get("recent_gap_s"))
    if uptime is None or gap is None:
        return Outcome(UNKNOWN, "this collector tells nothing of itself: it is none of modwsgi-tel's")
    received, wrong, lost = _amount(own["received"]), _amount(own["decode_errors"]), _amount(totals["lost"])
    found = [finding for finding in look.answer["findings"] if finding["id"] in _OWN]
    gap_status = _status(look, gap)
    gap_said = f"it was away from its socket for {duration(gap)}{_why(look, gap_status, 's')}" if gap_status != OK else ""
    figures = (Figure("recent_gap", gap, "s", look.warning, look.critical, 0), Figure("received", received, "c"),
               Figure("lost", lost, "c"), Figure("wrong", wrong, "c"), Figure("stalls", _amount(own.get("stalls", 0)), "c"),
               Figure("rss", _or_none(own.get("max_rss_bytes")), "B"), Figure("uptime", uptime, "s"))
    status = worst([gap_status, *map(_severity, found)])
    if status == OK and not received:
        return Outcome(UNKNOWN, f"runs for {duration(uptime)}, and nothing has arrived: see modwsgi-tel doctor on that machine", (), figures)
    said = [finding["text"] for finding in found if _severity(finding) == status != OK] + ([gap_said] if gap_said else [])
    well = (f"runs for {duration(uptime)}, {counted(received, 'datagram')} received, {number(lost, 0)} lost, {number(wrong, 0)} wrong")
    return Outcome(status, "collector: " + (", ".join(said[:NAMED]) if said else well), ([well] if said else []) + list(_lines(found)), figures)


# --- the table ------------------------------------------------------------------------------------

CHECKS = (
    Check("findings", "", "0", "0", "collector,totals,findings", ("group",), _findings,
          "What is wrong, by the collector's own rules: --warning is for how many of them are wrong, --critical for how many critical."),
    Check("capacity", "share", "0.8", "0.95", "collector,totals,groups", ("group", "window"), _capacity,
          "The share of a group's threads that were busy."),
    Check("latency", "s", "1", "5", "collector,totals,groups", ("group", "window", "p", "phase"), _latency,
          "How long requests of a group took, in seconds: by --p and --phase."),
    Check("errors", "share", "0.05", "0.25", "collector,totals,groups", ("group", "window"), _errors,
          f"The share of a group's responses with 5xx; without a range fewer than {ERRORS_LEAST} of them are let pass."),
    Check("silent", "s", "10", "30", "collector,totals,processes,findings", ("group",), _silent,
          "For how long a process of a group has been silent, in seconds; critical, too, when none runs."),
    Check("rss", "B", "", "", "collector,totals,processes,findings", ("group",), _rss,
          "The resident memory of a group's largest process, in bytes; without a range a warning where it grows steadily."),
    Check("collector", "s", "1", "10", "collector,totals,findings", (), _collector,
          "The collector itself: what is wrong with it, what is lost; the range is for how long it was lately away from its socket, in "
          "seconds."),
)
BY_NAME = {check.name: check for check in CHECKS}


def chosen(names):
    """The Check that the arguments name.  Raises UsageError."""
    if len(names) > 1 or names and names[0] not in BY_NAME:
        raise UsageError(f"check {' '.join(names)}: one of {', '.join(BY_NAME)}")
    return BY_NAME[names[0]] if names else CHECKS[0]


def judge(check, look, where):
    """The Outcome of a check.  Raises Nonsense where the answer is no summary that it understands."""
    try:
        if look.answer["type"] != "summary":
            raise ValueError(look.answer["type"])
        return check.judge(look)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Nonsense(f"{where}: its summary is not as it should be ({error!r:.80}): another version?") from None
