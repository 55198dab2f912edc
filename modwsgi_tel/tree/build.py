"""The tree: who stands below whom, out of what is known of processes, requests and stacks.  Data in, nodes out; no I/O.

    answer = tree(processes, entries, wall, Ask(...))

{"type": "tree", "version": 1, "time", "totals", "sort", "flat", "stacktraces", "unread", "missing", "nodes"}.  A node is a dict

    {"id", "parent", "kind", "label", "system", "started", "age_s", "cpu", "rss_bytes", "notes", ..., "children": [nodes]}

id: the same as long as what it stands for.  kind: host, server, group, process, interpreter, request, dead (requests that have ended
and left threads behind), unassociated (what belongs to no request), stack, thread-group (threads that are only counted), other (no
server).  label: what it is called, raw text.  system: whether it serves no requests itself.  started: wall seconds.  cpu: cores.
notes: what else there is to say, raw texts.  Figures that are not known are null; what has none of its own has those of all below:
the earliest start, the sum of CPU and memory.  Flat, there are no children.

totals are of everything, whatever is shown of it.  unread: how many of those shown have stacks that could not be read.
"""
import re

from modwsgi_tel.stacks.model import is_whole
from modwsgi_tel.tree import model, shape
from modwsgi_tel.tree.nodes import LABELS_MOST, TOP, Nodes, began
from modwsgi_tel.tree.work import CLOCKS_S, work_of

VERSION = 1
NAMED_MOST = 5                          # pids in one line
DEPTH_MOST = 30                         # processes below one another
CHILDREN = "children of Apache"         # those that are in no daemon process group
OTHERS = "no server"


def tree(processes, entries=(), wall=0.0, ask=model.Ask(), missing=(), told=None):
    """The answer.

    processes: model.Process.  entries: telemetry's slow requests that go on, as /api/slow has them, each with "tree_pid", its
    Process's `number` or pid.  wall: seconds, of now.  missing: why something is not there, one text each.  told: wall seconds, of
    when telemetry told the entries; None where it told nothing.
    """
    steps = tree_steps(processes, entries, wall, ask, missing, told)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def tree_steps(processes, entries, wall, ask, missing=(), told=None):
    """As `tree`, a generator that yields (nothing) between processes."""
    made, held = _Tree(wall, ask), {}
    for entry in entries:
        held.setdefault(entry.get("tree_pid"), []).append(entry)
    for process in processes:
        made.take(process, held.pop(_number(process), ()), told)
        yield
    yield from made.place()
    nodes = yield from shape.shaped(made.roots, ask)
    return {"type": "tree", "version": VERSION, "time": wall, "totals": made.totals, "sort": ask.sort, "flat": ask.flat,
            "stacktraces": ask.stacktraces, "unread": len(made.unread), "missing": [*missing, *_reasons(made.unread)], "nodes": nodes}


def _number(process):
    return process.pid if process.number is None else process.number


class _Tree:
    """Nodes as they come about.  roots: the nested nodes.  unread: {pid: why its stacks could not be read}, of those shown."""

    def __init__(self, wall, ask):
        self.ask = ask
        self.roots, self.unread = [], {}
        self.totals = dict.fromkeys(("servers", "groups", "processes", "threads", "requests", "dead", "unassociated", "stacks",
                                     "stacks_idle", "stacks_different"), 0)
        self._nodes = Nodes(wall, ask.stacktraces)
        self._work = {}                 # number of a process -> (Process, Work)
        self._made = {}                 # number of a process -> its node
        self._shared = {}               # what several stand below -> its node
        self._different, self._groups = set(), set()

    # --- counting ---------------------------------------------------------------------------

    def take(self, process, entries, told):
        """Sort out one process, and count it, whether or not it is shown."""
        work, totals = work_of(process, entries, told), self.totals
        process = process._replace(group=_group_of(process, work), looks=() if process.life == model.VANISHED else process.looks)
        self._work[_number(process)] = process, work
        totals["servers"] += process.role in TOP
        totals["processes"] += process.life != model.VANISHED
        totals["threads"] += process.threads or 0
        totals["requests"] += len(work.served)
        totals["dead"] += len(work.dead)
        totals["unassociated"] += len(work.free) + len(work.unsure)
        if process.group:
            self._groups.add((process.host, process.server, process.group))
            totals["groups"] = len(self._groups)
        if process.looks:
            threads = process.looks[-1].threads
            totals["stacks"] += sum(1 for thread in threads if thread.frames or not is_whole(thread))
            totals["stacks_idle"] += len(work.idle)
            self._different.update(thread.frames for thread in threads if thread.frames)
            totals["stacks_different"] = len(self._different)

    # --- where each stands --------------------------------------------------------------------

    def place(self):
        """Make the nodes of the processes that are wanted, each below its parent.  A generator, as tree_steps is."""
        by_pid = {}
        for number, (process, _) in self._work.items():
            if process.life != model.VANISHED or (process.host, process.pid) not in by_pid:
                by_pid[process.host, process.pid] = number
        above = _shallow({number: self._above(process, by_pid) for number, (process, _) in self._work.items()})
        wanted = self._wanted(above)
        shown = set(wanted)
        for number in wanted:
            while above[number] is not None:
                number = above[number]
                shown.add(number)
        several = len({process.host for process, _ in self._work.values()}) > 1
        for number in sorted((each for each in self._work if each in shown), key=lambda number: _depth(number, above)):
            process, work = self._work[number]
            over = self._over(process, above[number], several)
            node = self._made[number] = self._nodes.process(process, over)
            (self.roots if over is None else over["children"]).append(node)
            if number in wanted:
                self._nodes.inside(node, process, work)
                if over is not None and over["kind"] == "process" and _outlives(process, *self._work[above[number]]):
                    node.update(outlives=True)
                    node["notes"].append("no request of now began it: the one that did has ended, or it is the application's own")
                if process.unread:
                    self.unread[process.pid] = process.unread
                    node["notes"].append("its stacks could not be read")
            yield
        yield from self._link()

    def _above(self, process, by_pid):
        """The number of the process that it stands below, or None."""
        at = by_pid.get((process.host, process.parent))
        return None if process.parent == process.pid or process.role in TOP else at

    def _wanted(self, above):
        """The numbers of the processes that were asked for, with all that stands below them."""
        ask = self.ask
        found = {number for number, (process, _) in self._work.items() if (ask.group is None or process.group == ask.group) and (
            ask.pid is None or ask.pid in (process.pid, process.inner_pid))}
        for number in self._work if len(found) < len(self._work) else ():
            way = [number]
            while way[-1] not in found and above[way[-1]] is not None:
                way.append(above[way[-1]])
            if way[-1] in found:
                found.update(way)
        return found

    def _over(self, process, above, several):
        """The node that a process stands below, made when it is the first; None at the top.  several: whether there are several
        hosts."""
        over = None if above is None else self._made[above]
        if over is None and several:
            over = self._one(None, f"h:{process.host}", "host", process.host or "this host", True)
        if process.role in (model.DAEMON, model.WORKER) and (above is None or over["role"] in TOP):
            name = process.group or ("(name not shown)" if process.role == model.DAEMON else process.server)
            return self._one(over, f"g:{name}", "group", name, False, group=process.group, server=process.server,
                             what="daemon process group" if process.role == model.DAEMON else "application")
        if process.role in (model.CHILD, model.EMBEDDED):
            return self._one(over, "children", "group", CHILDREN, True, group="", server=process.server, what="")
        if process.role in (model.PYTHON, model.COLLECTOR) and above is None:
            return self._one(over, "others", "other", OTHERS, True)
        return over

    def _one(self, over, name, kind, label, system, **more):
        """A node that several stand below."""
        name = name if over is None else f"{over['id']}.{name}"
        if name not in self._shared:
            node = self._shared[name] = self._nodes.node(name, over, kind, label, system, **more)
            (self.roots if over is None else over["children"]).append(node)
        return self._shared[name]

    def _link(self):
        """Tell the Apache children which requests they accepted that others serve."""
        nodes = {(node["host"], node["pid"]): node for node in self._made.values()}
        for root in self._made.values():
            yield
            for over in (root, *(each for each in root["children"] if each["kind"] == "interpreter")):
                for request in over["children"]:
                    child = request["kind"] == "request" and nodes.get((root["host"], request["accepted_by"]))
                    if child and child is not root and len(child["accepted"]) < LABELS_MOST:
                        child["accepted"].append({"request": request["id"], "label": request["label"], "pid": root["pid"]})


def _group_of(process, work):
    """Its group; of a daemon whose title does not show it, what its requests tell."""
    if process.group or process.role != model.DAEMON:
        return process.group
    told = (each.request.process_group for each in (*work.served, *work.dead) if each.request is not None)
    return next(filter(None, told), "")


def _outlives(process, parent, work):
    """Whether no request that its parent serves can have started a process, by when each began."""
    serves = work.served or parent.role in (model.WORKER, model.DAEMON, model.CHILD, model.EMBEDDED)
    known = serves and parent.looks and process.started is not None and process.role not in (model.WORKER, model.DAEMON, model.CHILD)
    return bool(known) and all(process.started + CLOCKS_S < began(each) < float("inf") for each in work.served)


def _reasons(unread):
    """Texts: each reason once, with the pids that it is of.  unread: {pid: reason}."""
    alike = {}
    for pid in sorted(unread):
        alike.setdefault(re.sub(rf"\b{pid}\b", "PID", unread[pid]), []).append(pid)
    out = []
    for reason, pids in alike.items():
        more = f" and {len(pids) - NAMED_MOST:,} more" if len(pids) > NAMED_MOST else ""
        out.append(f"stacks of {', '.join(map(str, pids[:NAMED_MOST]))}{more}: {reason.replace('PID', str(pids[0]))}")
    return out


def _depth(number, above):
    """How many processes stand above one, at most DEPTH_MOST."""
    depth = 0
    while above[number] is not None and depth < DEPTH_MOST:
        number, depth = above[number], depth + 1
    return depth


def _shallow(above):
    """{number: number of its parent or None}: without circles, and what is deeper than DEPTH_MOST stands at the top."""
    out = {}
    for number in above:
        way, at = 1, above[number]
        while at is not None and way <= DEPTH_MOST:
            at, way = above[at], way + 1
        out[number] = above[number] if at is None else None
    return out
