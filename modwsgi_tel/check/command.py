"""check: a plugin for Nagios, Icinga and whoever else runs such plugins.

Asks a running collector once.  OK, WARNING, CRITICAL, UNKNOWN are the exit statuses 0 to 3.  No answer is CRITICAL, since
nobody watches then; what cannot be judged, or was asked wrongly, is UNKNOWN.
"""
from modwsgi_tel.check.checks import Look, chosen, judge
from modwsgi_tel.check.output import CRITICAL, UNKNOWN, Outcome, as_json, as_text
from modwsgi_tel.check.ranges import read
from modwsgi_tel.errors import NoAnswer, Nonsense, TelError, Unwritable, UsageError
from modwsgi_tel.options import token_in
from modwsgi_tel.printable import show
from modwsgi_tel.report.client import Place, fetch, where_of

_OF_SOME = ("group", "window", "p", "phase")


def check(values):
    """Ask the collector, say how it is; the exit status."""
    name = ""
    try:
        wanted = chosen(values.arguments)
        name = wanted.name
        outcome = _outcome(wanted, values)
    except NoAnswer as error:
        outcome = Outcome(CRITICAL, str(error))
    except TelError as error:
        outcome = Outcome(UNKNOWN, str(error))
    try:
        show(as_json(outcome, name) if values.json else as_text(outcome))
    except Unwritable as error:
        error.exit_status = UNKNOWN     # no state of a server
        raise
    return outcome.status


def refused(error):
    """Say that a command line could not be meant; the exit status."""
    show(as_text(Outcome(UNKNOWN, str(error))))
    return UNKNOWN


def _outcome(wanted, values):
    for name in _OF_SOME:
        if name not in wanted.options and values.given[name] == "--" + name:
            raise UsageError(f"--{name}: means nothing to check {wanted.name}")
    ranges = {name: _range(values, name, getattr(wanted, name), wanted.unit) for name in ("warning", "critical")}
    given = any(values[name] is not None for name in ranges)
    where = where_of(values)
    window = values.window if "window" in wanted.options else "1m"
    path = f"/api/summary?window={window}&parts={wanted.parts}"
    answer = _asked(path, {**where, "token": token_in(values.token_file), "timeout_s": values.timeout})
    look = Look(answer, **ranges, given=given, group=values.group, window=window, p=values.p, phase=values.phase)
    return judge(wanted, look, Place(**where).where)


def _range(values, name, otherwise, unit):
    """The Range of --warning or --critical, or what the table has instead; None where that has none."""
    given = values[name]
    try:
        return read(given, unit) if given is not None else read(otherwise, unit) if otherwise else None
    except UsageError as error:
        raise UsageError(f"{values.given[name]} {error}") from None


def _asked(path, where):
    """The summary, of the existing collector too.  Raises TelError."""
    try:
        return fetch(path, **where)
    except Nonsense as refusal:
        found = _of_peer(path, where)
        if found is None:
            raise refusal
        return found


def _of_peer(path, where):
    """The summary that mod_wsgi-telemetry's state makes, or None where nobody answers as that does."""
    import time
    from modwsgi_tel.peer import is_peer
    try:
        state = fetch("/api/state", **where)
    except TelError:
        return None
    if not is_peer(state):
        return None
    from modwsgi_tel.collector import limits_of         # what a look at our own does not need
    from modwsgi_tel.options import read as options
    from modwsgi_tel.sources import Peer
    peer = Peer(limits_of(options("serve", [], {})), lambda: (time.monotonic(), time.time()), "")
    said = []
    peer.take(state, {"summary": path}, lambda *told: said.extend(told))
    answers, _, trouble = said
    if trouble is not None:
        raise trouble
    return answers.get("summary")
