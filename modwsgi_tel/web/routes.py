"""What each path answers: requests and the state in, responses out.  No sockets here."""
import itertools
from collections import namedtuple

from modwsgi_tel import __version__
from modwsgi_tel.errors import BadRequest
from modwsgi_tel.state import view
from modwsgi_tel.state.slow import ACTIVE, COMPLETED, LOST, STALE
from modwsgi_tel.web.guard import LOGIN
from modwsgi_tel.web.protocol import Response, json_response
from modwsgi_tel.web.statejson import Query, batched, encoded, slow_parts, state, text
from modwsgi_tel.wire.buckets import UPPER_S
from modwsgi_tel.wire.fields import PHASES
from modwsgi_tel.wire.shapes import TextMemo, finite

JSON = "application/json; charset=utf-8"
Route = namedtuple("Route", "method path handler parameters help")


class Site:
    """Answers requests about one Fleet.

    `clocks()` gives (monotonic, wall) seconds; `own()` what the collector says of itself; `health()`
    a list of what is wrong with the collector, in words.
    """

    def __init__(self, fleet, guard, clocks, own, health):
        self.fleet = fleet
        self.guard = guard
        self.memo = TextMemo()
        self._clocks = clocks
        self._own = own
        self._health = health
        self._routes = {}
        for route in ROUTES:
            self._routes.setdefault(route.path, {})[route.method] = route

    def answer(self, request, guard=None):
        """The Response to a Request; `guard` is that of the listener it came through."""
        guard = guard or self.guard
        try:
            guard.check(request)
            path = guard.strip(request.path)
            if path == LOGIN:
                return guard.login(request)
            return self._routed(request, guard, path)
        except BadRequest as error:
            return guard.refusal(request, error)

    def _routed(self, request, guard, path):
        method = "GET" if request.method == "HEAD" else request.method
        methods = self._routes.get(path)
        rest = None
        if methods is None or path.endswith("/PID"):
            head, _, rest = path.rpartition("/")
            methods = self._routes.get(head + "/PID") if head else None
        if methods is None:
            raise BadRequest(404, f"no such path: {path}; / lists what there is", close=False)
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods) + (["HEAD"] if "GET" in methods else []))
            raise BadRequest(405, f"{path} takes {allowed}", close=False, headers=(("Allow", allowed),))
        for name in request.query:
            if name not in route.parameters:
                known = ", ".join(route.parameters) or "none"
                raise BadRequest(400, f"unknown parameter {name!r}; {path} knows: {known}", close=False)
        return route.handler(self, request, guard, rest)

    # --- answers ----------------------------------------------------------------------

    def index(self, request, guard, _):
        prefix = guard.prefix(request)
        if "text/html" in request.headers.get("accept", ""):
            rows = "".join(f"<tr><td>{_link(route, prefix)}<td>{_escape(route.help)}\n" for route in ROUTES)
            page = _PAGE.format(version=__version__, rows=rows)
            return Response(200, page.encode(), "text/html; charset=utf-8", _PAGE_HEADERS)
        lines = [f"modwsgi-tel {__version__}", ""]
        for route in ROUTES:
            lines.append(f"{route.method:5}{prefix}{route.path}{_parameters(route)}")
            lines.append(f"         {route.help}")
        return Response(200, ("\n".join(lines) + "\n").encode())

    def state(self, request, guard, _):
        now, wall = self._clocks()
        return Response(200, state(self.fleet, self.memo, now, wall, _query(request), self._own()), JSON)

    def summary(self, request, guard, _):
        now, wall = self._clocks()
        return Response(200, _summary(view.summary_steps(self.fleet, now, wall, self._own())), JSON)

    def slow(self, request, guard, _):
        now, wall = self._clocks()
        query = _query(request)
        lives = request.query.get("life")
        if lives is not None:
            lives = lives.split(",")
            wrong = [life for life in lives if life not in (ACTIVE, STALE, COMPLETED, LOST)]
            if wrong:
                raise BadRequest(400, f"life={wrong[0]}: one or more of active,stale,completed,lost", close=False)
        head = {"time": wall, "kept": len(self.fleet.slow), "evicted": self.fleet.slow.evicted}
        return Response(200, _array(head, "slow_requests",
                                    slow_parts(self.fleet, self.fleet.slow.keys(), now, query, lives)), JSON)

    def slow_clear(self, request, guard, _):
        now, _ = self._clocks()
        return json_response(200, {"ok": True, "dropped": self.fleet.slow.clear(now)})

    def lifecycle(self, request, guard, _):
        query = _query(request)
        events = [event for event in self.fleet.events if query.wants_event(event)]
        head = {"time": self._clocks()[1], "dropped": self.fleet.events.dropped}
        return Response(200, _array(head, "lifecycle_events", _members(events)), JSON)

    def processes(self, request, guard, _):
        now, wall = self._clocks()
        query = _query(request)
        found = [process for process in self.fleet.processes() if query.wants(process)]
        return Response(200, _array({"time": wall}, "processes", self._process_rows(found, now, wall)), JSON)

    def _process_rows(self, processes, now, wall):
        for place, process in enumerate(processes):
            row = view.process_view(process, now, wall)
            row["sources"] = view.sources_view(process)
            yield ("," if place else "") + text(row)

    def process(self, request, guard, rest):
        if not (rest.isascii() and rest.isdigit() and len(rest) <= 12):
            raise BadRequest(404, f"/api/processes/{rest[:20]}: a pid is a number", close=False)
        now, wall = self._clocks()
        query = Query(pid=int(rest))
        found = [process for process in self.fleet.processes() if query.wants(process)]
        if not found:
            raise BadRequest(404, f"no process {rest} is known; /api/processes lists them", close=False)
        events = [event for event in self.fleet.events if query.wants_event(event)]
        return Response(200, self._details(found, events, query, now, wall), JSON)

    def _details(self, processes, events, query, now, wall):
        yield encoded(text({"time": wall})[:-1] + ',"processes":[')
        for place, process in enumerate(processes):
            yield encoded(("," if place else "") + text(view.process_details(process, now, wall)))
        yield b'],"slow_requests":['
        for part in slow_parts(self.fleet, self.fleet.slow.keys(), now, query):
            yield encoded(part)
        yield encoded('],"lifecycle_events":' + text(finite(events)) + "}\n")

    def histogram(self, request, guard, _):
        phase = request.query.get("phase", "request")
        window = request.query.get("window", "1m")
        if phase not in PHASES:
            raise BadRequest(400, f"phase={phase}: one of {', '.join(PHASES)}", close=False)
        if window not in view.WINDOWS:
            raise BadRequest(400, f"window={window}: one of {', '.join(view.WINDOWS)}", close=False)
        group = request.query.get("group")
        if group is not None and not any(name == group for _, name in self.fleet.groups):
            raise BadRequest(404, f"no group {group!r}; /api/summary lists them", close=False)
        now, wall = self._clocks()
        steps = view.histogram_steps(self.fleet, phase, window, group, now)
        return Response(200, _stepped(steps, lambda found: text(
            {"time": wall, **found, "upper_bounds": [*UPPER_S, None]}) + "\n"), JSON)

    def healthz(self, request, guard, _):
        wrong = self._health()
        body = {"status": "failing" if wrong else "ok", "wrong": wrong, "received": self.fleet.received}
        return json_response(503 if wrong else 200, body)

    def version(self, request, guard, _):
        import platform
        return json_response(200, {"name": "modwsgi-tel", "version": __version__, "summary_version": view.VERSION,
                                   "python": platform.python_version()})


_SELECT = ("group", "pid", "since")
ROUTES = (
    Route("GET", "/", Site.index, (), "this list"),
    Route("GET", "/api/summary", Site.summary, (), "what an operator wants at a glance: totals, groups, processes; now, "
          "1 minute, 10 minutes"),
    Route("GET", "/api/state", Site.state, (*_SELECT, "samples"), "everything that is kept, in the existing collector's "
          "shape"),
    Route("GET", "/api/processes", Site.processes, _SELECT, "all processes, without their history"),
    Route("GET", "/api/processes/PID", Site.process, (), "one process: its newest tick, slots, GC, slow requests, events"),
    Route("GET", "/api/slow", Site.slow, (*_SELECT, "life"), "slow requests; life is active, stale, completed or lost"),
    Route("POST", "/api/slow/clear", Site.slow_clear, (), "drop the slow requests that have ended"),
    Route("GET", "/api/lifecycle", Site.lifecycle, _SELECT, "starts and stops of processes, with their reasons"),
    Route("GET", "/api/histogram", Site.histogram, ("phase", "group", "window"), "latency histogram of a phase: "
          + ", ".join(PHASES)),
    Route("GET", "/healthz", Site.healthz, (), "200 while the collector does its work, else 503 and why"),
    Route("GET", "/version", Site.version, (), "name and versions"),
)

_PAGE_HEADERS = (("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
                                             "base-uri 'none'; form-action 'none'"),)
_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>modwsgi-tel</title>
<style>body{{font-family:sans-serif;margin:2em;max-width:60em}}td{{padding:.2em 1em .2em 0;vertical-align:top}}
:root{{color-scheme:light dark}}</style>
<h1>modwsgi-tel {version}</h1>
<table>
{rows}</table>
</html>
"""


def _link(route, prefix):
    shown = _escape(route.path + _parameters(route))
    if route.method != "GET" or route.path.endswith("/PID"):
        return f"{route.method} {shown}"
    return f'<a href="{prefix}{route.path}">{shown}</a>'


def _parameters(route):
    return "?" + "&".join(name + "=" for name in route.parameters) if route.parameters else ""


def _escape(shown):
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _query(request):
    values = request.query
    return Query(values.get("group"), _whole(values, "pid"), _whole(values, "samples"), _seconds(values, "since"))


def _whole(values, name):
    given = values.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 12):
        raise BadRequest(400, f"{name}={given}: a whole number", close=False)
    return int(given)


def _seconds(values, name):
    given = values.get(name)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = float("nan")
    if seconds - seconds != 0:
        raise BadRequest(400, f"{name}={given}: seconds since the epoch, as 1700000000.5", close=False)
    return seconds


def _members(values):
    for place, value in enumerate(values):
        yield ("," if place else "") + text(finite(value))


def _array(head, name, parts):
    """{**head, name: [parts]} in pieces."""
    return batched(itertools.chain((text(head)[:-1] + f',"{name}":[',), parts, ("]}\n",)))


def _stepped(steps, finish):
    """The text that `finish` makes of a generator's result, a turn for others after each of its steps."""
    found = yield from _turns(steps)
    yield encoded(finish(found))


def _turns(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield b""


def _summary(steps):
    """The summary in pieces, a turn for others after each."""
    found = yield from _turns(steps)
    rows = {name: found.pop(name) for name in ("groups", "processes")}
    yield encoded(text(found)[:-1])
    for name, members in rows.items():
        yield b',"%s":[' % name.encode()
        for at in range(0, len(members), 16):
            yield encoded(("," if at else "") + text(members[at:at + 16])[1:-1])
        yield b"]"
    yield b"}\n"
