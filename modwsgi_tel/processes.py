"""processes: the tree of processes, requests and stacks.  Joins what /proc, stacks and a collector tell, and its text."""
import json
import os
import time

from modwsgi_tel.errors import Nonsense, TelError, UsageError
from modwsgi_tel.options import token_in
from modwsgi_tel.printable import columns, show
from modwsgi_tel.report.client import fetch, where_of
from modwsgi_tel.tree import build, gather, model, text

ROWS_MOST = 2000
GROUPS_MOST = 20                        # that an error names
_LOCAL = ("127.", "localhost", "[::1]", "::1")


def processes(values):
    """The command; its exit status: 0, or 1 when some process could not be read.  Raises TelError where there is nothing."""
    ask = model.Ask(values.group or None, int(values.pid) if values.pid else None, not values.no_system, values.sort,
                    values.stacktraces, values.flat)
    asked = _Collector(where_of(values), token_in(values.token_file), values.timeout, values.meant("url") or values.meant("http_socket"))
    rows = asked.processes()            # before: who begins later is no process that has vanished
    seen = gather.look()
    entries, told = asked.requests(), time.time()
    try:
        found, requests, missing = gather.joined(seen.processes, rows, entries, asked.local, os.uname().nodename)
        answer = build.tree(found, requests, time.time(), ask, [*seen.missing, *missing, *asked.missing],
                            told if asked.answered else None)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if not rows and not entries:
            raise
        raise Nonsense(f"{asked.name}: what it tells of processes is not as it should be ({error!r}): another version?") from None
    if not found:
        more = "; run as root to see those of others" if os.geteuid() else ""
        raise TelError(f"no process of Apache, gunicorn, uWSGI or Python was found{more}")
    if not answer["nodes"]:
        raise TelError(_nothing(ask, found))
    host = os.uname().nodename
    if values.json:
        show(json.dumps({**answer, "host": host}, ensure_ascii=True, allow_nan=False, indent=1).replace("\x7f", "\\u007f") + "\n")
    else:
        show("\n".join([f"{host}  {text.stamp(answer['time'])}", *text.lines(answer, columns(40), asked.answered)]) + "\n")
    return 1 if answer["unread"] else 0


class _Collector:
    """A collector that may not be there.

    missing: [text], why it told nothing.  answered: whether it did.  local: whether it is on this machine.  name: for messages.
    """

    def __init__(self, where, token, timeout_s, meant):
        self._where, self._token, self._timeout_s, self._meant = where, token, timeout_s, meant
        self.missing, self.answered = [], False
        self.name = where["http_socket"] or where["url"]
        host = (where["url"] or "").partition("://")[2]
        self.local = bool(where["http_socket"]) or host.startswith(_LOCAL)

    def processes(self):
        """Rows of /api/processes; [] where nobody answers."""
        return self._list(f"/api/processes?window=1m&limit={ROWS_MOST}", "processes")

    def requests(self):
        """Entries of /api/slow that go on; [] where nobody answered before."""
        found = self._list(f"/api/slow?life=active,stale&pivots=0&limit={ROWS_MOST}", "slow_requests") if self.answered else []
        return [each["entry"] for each in found if isinstance(each.get("entry"), dict)]

    def _list(self, path, name):
        try:
            rows = self._fetched(path, name)
            self.answered = True
            return rows
        except UsageError:
            raise
        except TelError as error:
            self.answered = False
            why = str(error) if self._meant else f"no collector at {self.name} (modwsgi-tel serve is one)"
            self.missing.append(f"what telemetry tells: {why}")
            return []

    def _fetched(self, path, name):
        found = fetch(path, **self._where, token=self._token, timeout_s=self._timeout_s)
        rows = found.get(name) if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise TelError(f"{self.name} answers {path.partition('?')[0]}, but is no modwsgi-tel")
        return [each for each in rows if isinstance(each, dict)]


def _nothing(ask, found):
    """Why there is nothing to show of what was asked for."""
    if ask.pid is not None and not any(ask.pid in (each.pid, each.inner_pid) for each in found):
        return f"no process {ask.pid} of a server or of Python is here; without --pid all are shown"
    groups = sorted({each.group for each in found if each.group})
    if ask.group is not None and ask.group not in groups:
        there = f"there are: {', '.join(groups[:GROUPS_MOST])}" if groups else "no process shows a group"
        return f"no process of group {ask.group}; {there}"
    return "nothing of it serves requests: without --no-system there is more"


