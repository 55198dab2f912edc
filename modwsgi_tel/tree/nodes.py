"""The nodes of the tree as they are made: of one process, and of what goes on in it.  See build for what a node has."""
from collections import Counter

from modwsgi_tel.figures import duration
from modwsgi_tel.stacks.compare import grouped
from modwsgi_tel.stacks.model import frame_json, is_whole
from modwsgi_tel.tree import model
from modwsgi_tel.tree.frames import is_server, of_application, outermost, place

LABELS_MOST = 20                        # of the threads that have the same stack
REQUESTS_MOST = 1000                    # of one process
STACKS_MOST = 200                       # different ones of what belongs to no request, of one process
TEXT_MOST, NAME_MOST = 500, 100         # letters of what others named
TOP = (model.PARENT, model.MASTER)
ROLES = {model.PARENT: "Apache", model.CHILD: "Apache child", model.DAEMON: "daemon", model.MASTER: "master", model.WORKER: "worker",
         model.PYTHON: "Python", model.COLLECTOR: "modwsgi-tel", model.HELPER: "child process", model.EMBEDDED: "Apache child"}
DEAD, UNASSOCIATED = "(dead process)", "(unassociated)"
NOT_TOLD = "request (not told which)"
_SYSTEM = (*TOP, model.HELPER, model.COLLECTOR, model.PYTHON)
_ROW = ("id", "life", "silent_s", "slow_active", "slow_threshold", "lost", "implausible", "threads")
_WINDOW = ("throughput", "capacity", "cpu", "requests")
_MEANWHILE = {model.VANISHED: "vanished: telemetry knows it, /proc does not", model.ENDED: "has ended while it was looked at",
              model.BEGUN: "has begun while others were looked at"}
_NOWHERE = dict.fromkeys(("at", "function", "file", "line", "in", "thread", "thread_state", "wait", "owns_gil"))


def _text(value, most=TEXT_MOST):
    return (value or "")[:most]


def named(thread):
    """`4711 "worker-1"`."""
    return ("?" if thread.tid is None else str(thread.tid)) + (f' "{_text(thread.name, NAME_MOST)}"' if thread.name else "")


def began(served):
    """When a request began, wall seconds; infinity where that is not told."""
    return served.request and served.request.started or served.entry and served.entry.get("start_stamp") or float("inf")


class Nodes:
    """Makes nodes; ids and stacks are told apart over all of them.  wall: seconds, of now.  stacktraces: whether stacks have their
    frames."""

    def __init__(self, wall, stacktraces):
        self._wall, self._stacktraces = wall, stacktraces
        self._ids = set()
        self._stacks = {}               # (host, group, frames) -> the node of that stack

    def node(self, name, parent, kind, label, system=False, **more):
        """A node without figures; the one above gets it from whoever asked."""
        while name in self._ids:
            name += "~"
        self._ids.add(name)
        return {"id": name, "parent": parent and parent["id"], "kind": kind, "label": label, "system": system, "started": None,
                "age_s": None, "cpu": None, "rss_bytes": None, "notes": [], **more, "children": []}

    def _age(self, started):
        return None if started is None else max(0.0, self._wall - started)

    # --- a process --------------------------------------------------------------------------------

    def process(self, process, parent):
        """The node of a model.Process, without what is in it."""
        name, what = f"p{process.pid}", ROLES.get(process.role, process.role)
        name = name if name not in self._ids else f"{name}@{process.number}"
        node = self.node(
            name, parent, "server" if process.role in TOP else "process",
            process.server if process.role == model.MASTER else _text(process.name) or what, process.role in _SYSTEM, what=what,
            pid=process.pid, inner_pid=process.inner_pid, role=process.role, server=process.server, group=process.group,
            host=process.host, command=_text(process.command), uid=process.uid, state=process.state, threads=process.threads,
            cpu_s=process.cpu_s, life=process.life, requests=None, telemetry=process.row and telemetry(process.row),
            stacks_age_s=process.looked_age_s, stacks_from=process.source, accepted=[], outlives=False)
        node.update(started=process.started, age_s=self._age(process.started), cpu=process.cpu, rss_bytes=process.rss_bytes)
        if process.life in _MEANWHILE:
            node["notes"].append(_MEANWHILE[process.life])
        return node

    def inside(self, node, process, work):
        """Hang below a process what goes on in it: interpreters, requests, what they left behind, and all that belongs to none."""
        node["requests"] = len(work.served)
        interpreters = self._interpreters(node, process, work)
        oldest = sorted(work.served, key=lambda each: (not each.threads, began(each)))
        for number, served in enumerate(oldest[:REQUESTS_MOST]):
            over = interpreters.get(served.threads[0].interpreter, node) if served.threads else node
            over["children"].append(self._request(over, node, process, served, number))
        if len(oldest) > REQUESTS_MOST:
            node["notes"].append(f"{len(oldest) - REQUESTS_MOST:,} more requests are not shown")
        if node["kind"] == "process":
            serves = work.served or work.dead or (process.row or {}).get("role") == model.EMBEDDED
            node["system"] = not serves and process.role in (*_SYSTEM, model.CHILD)
        if work.dead:
            self._dead(node, process, work.dead)
        if work.free or work.unsure:
            self._free(node, work)
        if work.idle or work.outside:
            idle, outside = len(work.idle), len(work.outside)
            node["children"].append(self.node(f"{node['id']}.idle", node, "thread-group", "threads with nothing to do", True,
                                              idle=idle, outside=outside, count=idle + outside))

    def _interpreters(self, node, process, work):
        """{id: node} of the interpreters that the stacks tell."""
        names, found = {}, {}
        for each in (*work.served, *work.dead):
            if each.request is not None and each.request.application_group is not None and each.threads:
                names.setdefault(each.threads[0].interpreter, each.request.application_group)
        running = Counter(each.threads[0].interpreter for each in work.served if each.threads)
        for number in process.looks[-1].interpreters if process.looks else ():
            name = names.get(number)
            label = f"interpreter {number}" + (f" {_text(name)}" if name else "") + (" (main)" if number == 0 or name == "" else "")
            found[number] = self.node(f"{node['id']}.i{number}", node, "interpreter", label, interpreter=number,
                                      application_group=name, requests=running[number])
            node["children"].append(found[number])
        return found

    # --- requests ---------------------------------------------------------------------------------

    def _request(self, over, node, process, served, number, ended=False):
        """The node of a request below `over`, with its stacks.  node: of its process."""
        request, entry, thread = served.request, served.entry or {}, served.threads[0] if served.threads else None
        known = request and request.request_id or entry.get("log_id") or None
        tail = known or (f"t{thread.tid}" if thread and thread.tid else
                         f"slow{entry['id']}" if entry.get("id") is not None else f"n{number}")
        method = request and request.method or entry.get("method") or None
        path = request and request.path or f"{entry.get('script_name') or ''}{entry.get('path_info') or ''}" or None
        started = began(served)
        started = started if started < float("inf") else None
        out = self.node(
            f"{over['id'] if ended else node['id']}.r{tail}", over, "request",
            f"{_text(method) or '?'} {_text(path) or '?'}" if method or path else NOT_TOLD,
            request_id=known, method=method, path=path, pid=process.pid, tid=thread and thread.tid,
            thread_id=request and request.thread_id or entry.get("thread_id"),
            process_group=request and request.process_group or process.group,
            application_group=request and request.application_group,
            queued_s=request.queued_s if request and request.queued_s is not None else entry.get("queue_time"),
            phase=None if ended else phase(served, process.server), ended=ended, accepted_by=entry.get("server_pid") or None,
            told_by=[name for name, there in (("stacks", thread), ("telemetry", entry)) if there],
            telemetry_age_s=self._age(entry.get("received")))
        out.update(started=started, age_s=self._age(started) if started else entry.get("age_s"))
        out["notes"] += _notes(process, served, ended)
        for place_of, each in enumerate(served.threads):
            self._stack(out, each, process, "" if ended or not place_of else "in the background")
        out.update(_at(thread))
        used, over_s = [each.cpu_s for each in served.threads if each.cpu_s is not None], _between_s(process)
        if used and over_s:
            out["cpu"] = sum(used) / over_s
        return out

    def _dead(self, node, process, dead):
        over = self.node(f"{node['id']}.dead", node, "dead", DEAD, count=len(dead))
        node["children"].append(over)
        for number, each in enumerate(dead[:REQUESTS_MOST]):
            over["children"].append(self._request(over, node, process, each, number, True))

    # --- stacks -----------------------------------------------------------------------------------

    def _stack(self, over, thread, process, how):
        """Hang a thread's stack below a request; one that the same group has already is counted there.  how: see `_stack_node`."""
        if not thread.frames and is_whole(thread):
            return
        label = f"{over['label']}, thread {named(thread)} of {process.pid}" + (f", {how}" if how else "")
        key = process.host, process.group or process.pid, thread.frames
        held = self._stacks.get(key) if is_whole(thread) else None
        if held is None:
            held = self._stack_node(over, (thread,), [label], how or None, not how)
            if is_whole(thread):
                self._stacks[key] = held
        else:
            held["count"] += 1
            held["labels"] = [*held["labels"], label][:LABELS_MOST]
            held["tids"] = [*held["tids"], thread.tid][:LABELS_MOST]
        over.setdefault("stack", held["id"])

    def _stack_node(self, over, threads, labels, how=None, own=False):
        """The node of a stack.  how: what its threads do for the request above.  own: whether it is of the one that serves that."""
        thread = threads[0]
        top = outermost(thread.frames)
        node = self.node(f"{over['id']}.s{len(over['children'])}", over, "stack", top.function if top else "not read", over["system"],
                         count=len(threads), labels=labels[:LABELS_MOST], how=how, own=own,
                         tids=[each.tid for each in threads[:LABELS_MOST]], **_at(thread), whole=is_whole(thread),
                         problem=thread.problem, depth=len(thread.frames))
        if self._stacktraces:
            node["frames"] = [frame_json(frame) for frame in thread.frames]
        over["children"].append(node)
        return node

    def _free(self, node, work):
        """What belongs to no request."""
        over = self.node(f"{node['id']}.unassociated", node, "unassociated", UNASSOCIATED, True,
                         count=len(work.free) + len(work.unsure))
        node["children"].append(over)
        for thread, why in work.unsure[:STACKS_MOST]:
            out, request = self._stack_node(over, (thread,), [named(thread)]), thread.request
            out["notes"].append(f"holds {request.method or '?'} {_text(request.path) or '?'}, which it does not serve; whether that "
                                f"has ended is not told: {why}")
        groups = grouped([thread._replace(values=None) for thread in work.free])
        for group in groups[:STACKS_MOST]:
            self._stack_node(over, group, [named(thread) for thread in group[:LABELS_MOST]])
        left = max(0, len(work.unsure) - STACKS_MOST) + sum(map(len, groups[STACKS_MOST:]))
        if left:
            over["notes"].append(f"{left:,} more threads are not shown")


def _notes(process, served, ended):
    """What else there is to say of a request."""
    request, entry, threads = served.request, served.entry, served.threads
    out = []
    if request is not None and request.how not in ("environ", "agent"):
        out.append(f"a guess: {request.how}")
    if served.guessed:
        out.append("telemetry's one slow request, and the one thread that does not tell its own")
    if not threads:
        out += ["telemetry alone tells of it: no thread was seen to serve it"] if process.looks else []
    elif ended:
        out.append("has ended; " + ("a thread that it left behind goes on" if len(threads) == 1 else
                                    f"{len(threads)} threads that it left behind go on"))
    elif process.source == model.TAKEN and not entry:
        out.append(f"seen {duration(process.looked_age_s)} ago")
    if entry and entry.get("life") == "stale":
        out.append("nothing was heard of it lately")
    return out


def _between_s(process):
    """Seconds between the last two looks, or None."""
    if len(process.looks) < 2 or None in (process.looks[-1].at, process.looks[-2].at):
        return None
    return max(0.001, process.looks[-1].at - process.looks[-2].at)


def _at(thread):
    """Where a thread is: the line of the application ("at", "function", "file", "line"), what that has called ("in"), what it does."""
    if thread is None:
        return _NOWHERE
    frame = of_application(thread.frames)
    inner = thread.frames[0] if thread.frames and thread.frames[0] is not frame else None
    return {"at": frame and place(frame), "function": frame and frame.function, "file": frame and frame.file,
            "line": frame and frame.line, "in": inner and f"{inner.function} ({place(inner)})", "thread": thread.name,
            "thread_state": thread.state, "wait": thread.wait, "owns_gil": thread.owns_gil}


def phase(served, server):
    """Where a request is, as far as that is known, in words; None where it is not."""
    entry, thread = served.entry or {}, served.threads[0] if served.threads else None
    if thread is None:
        return "in the application" if entry.get("phase") == "application" else "answering" if entry.get("phase") else None
    if served.request is None and not thread.frames:
        return "outside of Python: most likely its answer is being written"
    if thread.frames and thread.frames[-1].function == "<module>" and server == "apache":
        return "the application is being loaded"
    if entry.get("phase") == "response":
        return "answering"
    if served.request is None:
        return "answering" if server == "apache" else None
    inside = thread.frames[:len(thread.frames) - served.request.place]
    return "in the server" if inside and all(map(is_server, inside)) else "in the application"


def telemetry(row):
    """What a process's own telemetry says of it: of its row in /api/processes, and of the last minute in it."""
    window = (row.get("windows") or {}).get("1m") or {}
    return {**{name: row.get(name) for name in _ROW}, **{name: window.get(name) for name in _WINDOW}}
