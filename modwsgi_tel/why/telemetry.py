"""What a running collector says, where there is one: nothing here needs it."""
import time
from collections import namedtuple
from urllib.parse import quote

from modwsgi_tel.errors import TelError
from modwsgi_tel.options import token_in
from modwsgi_tel.report.client import fetch, is_summary, where_of

ANSWERS_S = 3.0                         # in which a collector that lives has answered
SLOW_MOST, PIVOTS_MOST, EXCEPTIONS_MOST, PROCESSES_MOST = 50, 10, 10, 200

Telemetry = namedtuple("Telemetry", "where summary groups findings slow pivots exceptions events processes booted")
Telemetry.__doc__ = """The answers of a collector, for the groups that are meant: JSON as its routes give it.

groups: {process group: row of the summary}.  findings: those of its rules.  slow: entries of slow requests, the newest first.
pivots: rows.  exceptions: rows.  events: lifecycle events, the oldest first.  processes: rows of them.
booted: wall seconds of this machine's start, from which their start_ticks count."""


def ask(values, say):
    """The Telemetry of the collector that the options name, or None.  say(kind, line) is told why not."""
    try:
        place, token = where_of(values), token_in(values.token_file)
        where = place["http_socket"] or place["url"]

        def got(path):
            return fetch(path, **place, token=token, timeout_s=min(values.timeout, ANSWERS_S))

        try:
            return _told(values, where, got, say)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TelError(f"{where} does not answer as a collector of this version of modwsgi-tel does") from None
    except TelError as error:
        say("collector", f"no telemetry ({error}): response times, queue times and what was before are not known from it")
        return None


def _told(values, where, got, say):
    """The Telemetry; raises TelError where there is none, and anything for answers of another shape."""
    summary = got("/api/summary?parts=collector,totals,groups,agent,findings")
    if not isinstance(summary, dict) or not is_summary({**summary, "processes": []}):
        raise TelError(f"what answers at {where} is no collector of modwsgi-tel")
    group = f"group={quote(values.group)}&" if values.group else ""
    parts = {}
    for name, path in (("slow_requests", f"/api/slow?{group}limit={SLOW_MOST}&pivots={PIVOTS_MOST}"),
                       ("exceptions", f"/api/exceptions?{group}limit={EXCEPTIONS_MOST}"),
                       ("processes", f"/api/processes?{group}limit={PROCESSES_MOST}"),
                       ("lifecycle_events", f"/api/lifecycle?{group}")):
        try:
            parts[name] = got(path)
        except TelError as error:
            say("collector", f"the collector does not tell {name.replace('_', ' ')}: {error}")
            parts[name] = {}
    slow = [each["entry"] for each in parts["slow_requests"].get("slow_requests", ())]
    wanted = [row for row in summary["groups"] if values.group in ("", row["process_group"])]
    findings = [each for each in summary["findings"]
                if not values.group or each["process_group"] in (None, values.group)]
    if values.pid:
        slow = [entry for entry in slow if values.pid in (entry["pid"], entry["sender_pid"])]
        findings = [each for each in findings if each["pid"] in (None, values.pid)]
    return Telemetry(where, summary, {row["process_group"]: row for row in wanted}, findings, slow,
                     parts["slow_requests"].get("pivots", []), parts["exceptions"].get("exceptions", []),
                     parts["lifecycle_events"].get("lifecycle_events", []), parts["processes"].get("processes", []),
                     time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


def listens(path):
    """Whether somebody listens on a datagram socket: True, False, or None where that cannot be told.  Nothing is sent."""
    import socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return None
    return True
