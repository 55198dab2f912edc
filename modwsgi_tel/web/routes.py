"""What each path answers: requests and the state in, responses out.  No sockets here."""
import itertools
from collections import namedtuple

from modwsgi_tel import __version__
from modwsgi_tel.errors import BadRequest
from modwsgi_tel.findings import Findings, verdict
from modwsgi_tel.openmetrics.reading import Source
from modwsgi_tel.openmetrics.text import CLASSIC_TYPE, OPENMETRICS_TYPE, exposition, wants_openmetrics
from modwsgi_tel.state import series, tables, view
from modwsgi_tel.state.facts import facts
from modwsgi_tel.state.process import LIVES
from modwsgi_tel.state.taken import AGENT, ASKED
from modwsgi_tel.state.watched import RECENT, TOTAL
from modwsgi_tel.state.window import SLOT_S
from modwsgi_tel.tree.model import SORTS, Ask
from modwsgi_tel.web.guard import LOGIN
from modwsgi_tel.web.page.page import page
from modwsgi_tel.web.live import Live
from modwsgi_tel.web.protocol import Response, json_response
from modwsgi_tel.web.statejson import (Query, batched, encoded, pivots_head, process_stacks, slow_entry, slow_parts, state, strict, taken_head,
                                        taken_state, text)
from modwsgi_tel.web.websocket import handshake
from modwsgi_tel.web.treejson import answer as tree
from modwsgi_tel.wire.buckets import UPPER_S
from modwsgi_tel.wire.fields import PHASES
from modwsgi_tel.wire.shapes import TextMemo, finite

JUDGED_S, FEW = 4.5, 50                 # of more processes than FEW what is wrong is looked at so seldom: a millisecond each
PIVOTS, PIVOTS_MOST = 20, 200           # in one answer
PIVOT_SORTS = RECENT, TOTAL
JSON = "application/json; charset=utf-8"
Route = namedtuple("Route", "method path handler parameters help")


class Site:
    """Answers requests about one Fleet.

    `clocks()` gives (monotonic, wall) seconds; `own()` what the collector says of itself; `health()`
    a list of what is wrong with the collector, in words; `findings` remembers since when; so many single processes
    have metrics of their own.
    """

    def __init__(self, fleet, guard, clocks, own, health, findings=None, metrics_processes=0):
        self.fleet = fleet
        self.metrics_processes = metrics_processes
        self.findings = Findings() if findings is None else findings
        self.guard = guard
        self.memo = TextMemo()
        self.live = Live(fleet, self.memo, clocks)
        self._judged = float("-inf")
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
            said = str(error)           # it repeats what was asked: one line all the same
            if not said.isprintable():
                error = BadRequest(error.status, ascii(said)[1:-1], error.close, error.headers)
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
        """The page for a browser, the list of the routes for others."""
        if "text/html" not in request.headers.get("accept", ""):
            return self.listed(request, guard, _)
        if request.path == guard.root_path:     # its links are relative: without the slash they would lead beside it
            return Response(303, headers=(("Location", guard.root_path + "/"),))
        shown, headers = page()
        return Response(200, shown, "text/html; charset=utf-8", headers)

    def listed(self, request, guard, _):
        prefix, accept = guard.prefix(request), request.headers.get("accept", "")
        if "text/html" in accept:
            rows = "".join(f"<tr><td>{_link(route, prefix)}<td>{_escape(route.help)}\n" for route in ROUTES)
            shown = _PAGE.format(version=__version__, rows=rows)
            return Response(200, shown.encode(), "text/html; charset=utf-8", _PAGE_HEADERS)
        if "application/json" in accept:
            return json_response(200, {"version": __version__, "routes": [
                {"method": route.method, "path": prefix + route.path, "parameters": route.parameters, "help": route.help}
                for route in ROUTES]})
        lines = [f"modwsgi-tel {__version__}", ""]
        for route in ROUTES:
            lines.append(f"{route.method:5}{prefix}{route.path}{_parameters(route)}")
            lines.append(f"         {route.help}")
        return Response(200, ("\n".join(lines) + "\n").encode())

    def state(self, request, guard, _):
        now, wall = self._clocks()
        return Response(200, state(self.fleet, self.memo, now, wall, _query(request), self._own()), JSON)

    def websocket(self, request, guard, _):
        headers = handshake(request)
        return Response(101, self.live.join(_query(request), self._own()), headers=headers)

    def summary(self, request, guard, _):
        now, wall = self._clocks()
        windows = _named(request.query, "window", view.WINDOWS)
        parts = _named(request.query, "parts", _PARTS)
        return Response(200, _summary(self._summary(now, wall, windows, parts)), JSON)

    def _summary(self, now, wall, windows, parts):
        """The steps of the summary, and what is wrong by it."""
        judged = "findings" in parts
        # the rules look at the last minute; a reader of another window gets what they said last
        pause = JUDGED_S if len(self.fleet.processes()) > FEW else 0.0
        judges = judged and "1m" in windows and not 0 <= now - self._judged < pause
        found = yield from view.summary_steps(
            self.fleet, now, wall, self._own() if "collector" in parts else None, windows,
            {*parts, *(("totals",) if judged else ()), *(("groups",) if judges else ())})
        if judged:
            yield
            if judges:
                self.judge(found["groups"], now, wall)
            findings = self.findings.last
            found["findings"], found["verdict"] = findings, verdict(findings, found["totals"])
            for name in ("totals", "groups"):
                if name not in parts:
                    found.pop(name, None)
        return found

    def judge(self, groups, now, wall):
        """Let the findings look at what is now; `groups` as in the summary, with their last minute."""
        self._judged = now
        self.findings.look(facts(self.fleet, groups, now, wall), self._health(), now, wall)

    def look(self, totals=False):
        """Let time pass for the findings: call it every few seconds, so that they know since when.  (findings, totals if wanted)."""
        now, wall = self._clocks()
        found = view.summary(self.fleet, now, wall, None, ("1m",), ("groups", "totals") if totals else ("groups",))
        self.judge(found["groups"], now, wall)
        return self.findings.last, found.get("totals")

    def slow(self, request, guard, _):
        now, wall = self._clocks()
        most = _whole(request.query, "pivots")
        if most is not None and most > PIVOTS_MOST:
            raise BadRequest(400, f"pivots={most}: at most {PIVOTS_MOST}", close=False)
        sort, query = request.query.get("pivots_sort", RECENT), _query(request)
        if sort not in PIVOT_SORTS:
            raise BadRequest(400, f"pivots_sort={sort}: one of {', '.join(PIVOT_SORTS)}", close=False)
        head = {"time": wall, "kept": len(self.fleet.slow), "evicted": self.fleet.slow.evicted, "stacks": taken_state(self.fleet),
                **pivots_head(self.fleet, PIVOTS if most is None else most, query, sort, now)}
        number = _whole(request.query, "id")
        keys = None if number is None else self.fleet.slow.numbered(number)
        ask = _ask(request.query, tables.SLOW_SORTS, tables.SLOW_LIVES)

        def row(key):
            found = self.fleet.slow.freeze(key, now)
            return None if found is None else slow_entry(found, now)

        return Response(200, _paged(head, "slow_requests", tables.slow_page(self.fleet, None if query.all else query.wants_slow, ask, now, keys), row), JSON)

    def exceptions(self, request, guard, _):
        wall, inside = self._clocks()[1], self.fleet.inside
        query, ask = _query(request), _ask(request.query, tables.EXCEPTION_SORTS, ())
        number = _whole(request.query, "id")
        head = {"time": wall, "counted": inside.exceptions_counted, "lost": inside.exceptions_lost, "evicted": inside.exceptions.evicted}

        def wants(row):
            return query.wants_exception(row) and number in (None, row.number)

        def row(key):
            found = inside.exceptions.get(key)
            return None if found is None else found.view()

        return Response(200, _paged(head, "exceptions", tables.exception_page(self.fleet, wants, ask), row), JSON)

    def slow_clear(self, request, guard, _):
        now, _ = self._clocks()
        dropped = self.fleet.slow.clear(now)
        self.live.cleared()
        return json_response(200, {"ok": True, "dropped": dropped})

    def lifecycle(self, request, guard, _):
        query, most = _query(request), _whole(request.query, "limit")
        events = [event for event in self.fleet.events if query.wants_event(event)]
        head = {"time": self._clocks()[1], "dropped": self.fleet.events.dropped}
        newest = events if most is None else events[max(0, len(events) - most):]
        return Response(200, _array(head, "lifecycle_events", _rows(newest, _as_it_is)), JSON)

    def processes(self, request, guard, _):
        now, wall = self._clocks()
        if _flag(request.query, "tree"):
            return self._tree(request.query, now, wall)
        _refuse(request.query, _TREE, "goes with tree=1")
        ask = _ask(request.query, tables.PROCESS_SORTS, LIVES)
        window = _window(request.query, None)
        steps = tables.process_page(self.fleet, _query(request).wants, ask, window or "1m", now)

        def row(number):
            process = self.fleet.process(number)
            if process is None:
                return None
            shown = view.process_view(process, now, wall, view.WINDOWS if window is None else (window,))
            return {**shown, "sources": view.sources_view(process)}

        return Response(200, _paged({"time": wall}, "processes", steps, row), JSON)

    def _tree(self, query, now, wall):
        _refuse(query, _NO_TREE, "does not go with tree=1")
        sort = query.get("sort", SORTS[0])
        if sort not in SORTS:
            raise BadRequest(400, f"sort={sort}: one of {', '.join(SORTS)}", close=False)
        ask = Ask(query.get("group"), _whole(query, "pid"), not _flag(query, "no_system"), sort, _flag(query, "stacktraces"), _flag(query, "flat"))
        return Response(200, batched(tree(self.fleet, ask, now, wall)), JSON)

    def workers(self, request, guard, _):
        now, wall = self._clocks()
        steps = tables.worker_page(self.fleet, _query(request).wants, _ask(request.query, (), LIVES), now)
        return Response(200, _paged({"time": wall}, "workers", steps,
                                    lambda number: tables.worker_row(self.fleet, number, now)), JSON)

    def gc(self, request, guard, _):
        now, wall = self._clocks()
        window = _window(request.query)
        steps = tables.gc_page(self.fleet, _query(request).wants, _ask(request.query, (), LIVES), window, now)
        return Response(200, _paged({"time": wall}, "interpreters", steps,
                                    lambda item: tables.gc_row(self.fleet, *item, window, now)), JSON)

    def gc_events(self, request, guard, _):
        now, wall = self._clocks()
        number, name = _whole(request.query, "process"), request.query.get("interpreter", "")
        process = self.fleet.process(number) if number is not None else None
        if process is None:
            raise BadRequest(404, "process=ID: the id of a process, as /api/processes has it", close=False)
        since = _seconds(request.query, "since")
        # as the other answers show a name: bytes that are no UTF-8 have U+FFFD in their place
        held = next((key for key in process.interpreters if key.decode("utf-8", "replace") == name), None)
        steps = tables.gc_events(self.fleet.shapes, process, held, -1e18 if since is None else since)
        return Response(200, _collections({"time": wall, "process": number, "interpreter": name}, steps), JSON)

    def series(self, request, guard, _):
        now, wall = self._clocks()
        name, since = _window(request.query), _seconds(request.query, "since")
        group, number = request.query.get("group"), _whole(request.query, "process")
        if number is not None:
            process = self.fleet.process(number)
            if process is None:
                raise BadRequest(404, f"no process with the id {number}; /api/processes has them", close=False)
            steps = series.process_series(self.fleet.shapes, process, name, now, wall, since)
        else:
            groups = [held for held in self.fleet.groups.values() if group is None or held.name[1] == group]
            steps = series.group_series(groups, name, now, wall, since)
        head = {"time": wall, "window": name, "step_s": SLOT_S, "first": series.indexes(name, now, wall, since).start,
                "columns": series.COLUMNS}
        return Response(200, _stepped(steps, lambda rows: text(finite({**head, "points": rows})) + "\n"), JSON)

    def process(self, request, guard, rest):
        now, wall = self._clocks()
        number = _whole(request.query, "id")
        if rest == "any":
            process = None if number is None else self.fleet.process(number)
            if process is None:
                raise BadRequest(404, "id=N: the id of a process, as /api/processes has it", close=False)
            found, query = [process], Query(pid=process.pid)
        elif rest.isascii() and rest.isdigit() and len(rest) <= 12:
            query = Query(pid=int(rest))
            found = [process for process in self.fleet.processes() if query.wants(process) and number in (None, process.id)]
        else:
            raise BadRequest(404, f"/api/processes/{rest[:20]}: a pid is a number", close=False)
        if not found:
            raise BadRequest(404, f"no process {rest} is known; /api/processes lists them", close=False)
        events = [event for event in self.fleet.events if query.wants_event(event)]
        return Response(200, self._details(found, events, query, now, wall), JSON)

    def _details(self, processes, events, query, now, wall):
        yield encoded(text({"time": wall})[:-1] + ',"processes":[')
        for place, process in enumerate(processes):
            shown = {**view.process_details(process, now, wall), "stacks": process_stacks(self.fleet, process, now)}
            yield encoded(("," if place else "") + strict(shown))
        yield b'],"slow_requests":['
        for part in slow_parts(self.fleet, self.fleet.slow.keys(), now, query):
            yield encoded(part)
        yield encoded('],"lifecycle_events":' + text(finite(events)) + "}\n")

    def stacks(self, request, guard, _):
        now, wall = self._clocks()
        query, number, ask = _query(request), _whole(request.query, "id"), _ask(request.query, (), LIVES)
        found = self._matching(self.fleet.taken.numbers(), query, number)

        def row(number):
            process = self.fleet.process(number)
            return None if process is None else process_stacks(self.fleet, process, now)

        steps = tables.stacks_page(found, ask)
        return Response(200, _paged({"time": wall, **taken_head(self.fleet)}, "processes", steps, row), JSON)

    def _matching(self, numbers, query, wanted):
        """Those of the ids of processes that are wanted, in the same order."""
        held = ((number, self.fleet.process(number)) for number in numbers)
        return [number for number, process in held
                if process is not None and wanted in (None, number) and query.wants(process)]

    def stacks_ask(self, request, guard, _):
        now, _ = self._clocks()
        query, number, taken = _query(request), _whole(request.query, "id"), self.fleet.taken
        if query.pid is None and number is None:
            raise BadRequest(400, "pid=N: of which process?", close=False)
        if taken.closed:
            raise BadRequest(403, taken.closed, close=False)
        found = self._matching([process.id for process in self.fleet.processes()], query, number)
        if not found:
            raise BadRequest(404, f"no process {query.pid if number is None else number} is known; /api/processes lists them",
                             close=False)
        # the newest with this pid: an older one has ended, or is of another container
        why = AGENT if _whole(request.query, "agent") else ASKED
        status, said = min((taken.ask(self.fleet.process(each), now, why) for each in found[:-_ASKED_AT_ONCE - 1:-1]),
                           key=lambda told: told[0])
        if status != 202:
            raise BadRequest(status, said, close=False, headers=(("Retry-After", "1"),) if status == 429 else ())
        return json_response(202, {"asked": True, "wait_s": said})

    def histogram(self, request, guard, _):
        phase = request.query.get("phase", "request")
        window = _window(request.query)
        if phase not in PHASES:
            raise BadRequest(400, f"phase={phase}: one of {', '.join(PHASES)}", close=False)
        group = request.query.get("group")
        if group is not None and not any(name == group for _, name in self.fleet.groups):
            raise BadRequest(404, f"no group {group!r}; /api/summary lists them", close=False)
        now, wall = self._clocks()
        steps = view.histogram_steps(self.fleet, phase, window, group, now)
        return Response(200, _stepped(steps, lambda found: text(
            {"time": wall, **found, "upper_bounds": [*UPPER_S, None]}) + "\n"), JSON)

    def metrics(self, request, guard, _):
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        return Response(200, exposition(self.metrics_source(), openmetrics), OPENMETRICS_TYPE if openmetrics else CLASSIC_TYPE)

    def metrics_source(self):
        """What the metrics are read from, now."""
        now, wall = self._clocks()
        return Source(self.fleet, self.findings.last, self._own(), not self._health(), now, wall, self.metrics_processes)

    def healthz(self, request, guard, _):
        wrong = self._health()
        body = {"status": "failing" if wrong else "ok", "wrong": wrong, "received": self.fleet.received}
        return json_response(503 if wrong else 200, body)

    def version(self, request, guard, _):
        import platform
        return json_response(200, {"name": "modwsgi-tel", "version": __version__, "summary_version": view.VERSION,
                                   "python": platform.python_version()})


_ASKED_AT_ONCE = 4                      # processes of one pid, in as many containers
_PARTS = (*view.PARTS, "findings")
_SELECT = ("group", "pid", "since")
_TABLE = ("sort", "order", "offset", "limit", "search", "life")
_TREE = ("stacktraces", "flat", "no_system")
_NO_TREE = ("since", "order", "offset", "limit", "search", "life", "window")
ROUTES = (
    Route("GET", "/", Site.index, (), "the web page; for other programs than browsers, this list"),
    Route("GET", "/api", Site.listed, (), "this list"),
    Route("GET", "/api/summary", Site.summary, ("window", "parts"), "what an operator wants at a glance: what is wrong, totals, "
          "groups, processes; now, 1 minute, 10 minutes"),
    Route("GET", "/api/state", Site.state, (*_SELECT, "samples"), "everything that is kept, in the existing collector's "
          "shape"),
    Route("GET", "/ws", Site.websocket, ("samples",), "the same as a WebSocket: everything that is kept, then each record as it comes"),
    Route("GET", "/api/processes", Site.processes, (*_SELECT, *_TABLE, "window", "tree", *_TREE), "all processes, without their history; "
          "tree=1: as a tree, with their requests and the stacks that were taken"),
    Route("GET", "/api/processes/PID", Site.process, ("id",), "one process: its newest tick, slots, GC, slow requests, "
          "events; any?id=N: by its id, whatever its pid is"),
    Route("GET", "/api/workers", Site.workers, ("group", "pid", "offset", "limit"), "the slots of each process, the one with "
          "the longest running request first"),
    Route("GET", "/api/slow", Site.slow, (*_SELECT, *_TABLE, "id", "pivots", "pivots_sort"), "slow requests; life is active, stale, completed or "
          "lost; and where the agents' long requests spent their time"),
    Route("POST", "/api/slow/clear", Site.slow_clear, (), "drop the slow requests that have ended"),
    Route("GET", "/api/exceptions", Site.exceptions, (*_SELECT, "sort", "order", "offset", "limit", "search", "id"), "exceptions that "
          "left the applications, by type and place, the newest first"),
    Route("GET", "/api/stacks", Site.stacks, ("group", "pid", "id", "offset", "limit"), "the last stacks of processes with slow "
          "requests, of silent ones and of those somebody asked for, the newest first"),
    Route("POST", "/api/stacks", Site.stacks_ask, ("pid", "id", "agent"), "take the stacks of this process now; agent=1: ask the "
          "agent inside it"),
    Route("GET", "/api/gc", Site.gc, ("group", "pid", "offset", "limit", "window"), "the garbage collector of each "
          "interpreter, those with the longest pauses first"),
    Route("GET", "/api/gc/events", Site.gc_events, ("process", "interpreter", "since"), "single collections of an interpreter"),
    Route("GET", "/api/series", Site.series, ("window", "group", "process", "since"), "points of 5 seconds, of a group, a process or "
          "all, to draw a line from; first: the number of the first of them"),
    Route("GET", "/api/lifecycle", Site.lifecycle, (*_SELECT, "limit"), "starts and stops of processes, with their reasons"),
    Route("GET", "/api/histogram", Site.histogram, ("phase", "group", "window"), "latency histogram of a phase: "
          + ", ".join(PHASES)),
    Route("GET", "/metrics", Site.metrics, (), "metrics for Prometheus: OpenMetrics where that is asked for, else its classic text format"),
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
    if route.method != "GET" or route.path.endswith(("/PID", "/ws")) or route.parameters[:1] == ("process",):    # it needs more
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


def _flag(values, name):
    """Whether a parameter says yes: 1, or nothing behind it."""
    given = values.get(name)
    if given not in (None, "0", "1", ""):
        raise BadRequest(400, f"{name}={given}: 1 or 0", close=False)
    return given in ("1", "")


def _refuse(values, names, why):
    wrong = [name for name in names if name in values]
    if wrong:
        raise BadRequest(400, f"{wrong[0]}: {why}", close=False)


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


def _named(values, name, known):
    """Names out of a parameter, separated by commas; all that are known without one."""
    given = values.get(name)
    if given is None:
        return known
    names = given.split(",")
    wrong = [each for each in names if each not in known]
    if wrong:
        raise BadRequest(400, f"{name}={wrong[0]}: one or more of {','.join(known)}", close=False)
    return names


def _window(values, otherwise="1m"):
    window = values.get("window", otherwise)
    if window != otherwise and window not in view.WINDOWS:
        raise BadRequest(400, f"window={window}: one of {', '.join(view.WINDOWS)}", close=False)
    return window


def _ask(values, sorts, lives):
    sort, order = values.get("sort", ""), values.get("order", "asc")
    if sort and sort not in sorts:
        raise BadRequest(400, f"sort={sort}: one of {', '.join(sorts)}", close=False)
    if order not in ("asc", "desc"):
        raise BadRequest(400, f"order={order}: asc or desc", close=False)
    wanted = frozenset(_named(values, "life", lives)) if "life" in values else None
    return tables.Ask(sort, order == "desc", _whole(values, "offset") or 0, _whole(values, "limit"), values.get("search", ""),
                      wanted)


def _paged(head, name, steps, row):
    """{**head, "matched", "offset", name: [rows]} of a Page in pieces; `row(item)` is None of what has gone meanwhile."""
    page = yield from _turns(steps)
    yield from _array({**head, "matched": page.matched, "offset": page.offset}, name, _rows(page.items, row))


def _rows(items, row):
    comma = ""
    for place, item in enumerate(items):
        if place % 64 == 63:
            yield ""
        found = row(item)
        if found is not None:
            yield comma + strict(found)
            comma = ","


def _collections(head, steps):
    """What `tables.gc_events` returns, in pieces."""
    events, earlier = yield from _turns(steps)
    yield from _array({**head, "earlier": earlier}, "events", _rows(events, _as_it_is))


def _as_it_is(item):
    return item


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
    rows = {name: found.pop(name) for name in ("groups", "processes") if name in found}
    yield encoded(text(found)[:-1])
    for name, members in rows.items():
        yield b',"%s":[' % name.encode()
        for at in range(0, len(members), 16):
            yield encoded(("," if at else "") + strict(members[at:at + 16])[1:-1])
        yield b"]"
    yield b"}\n"
