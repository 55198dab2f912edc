"""The tree of /api/processes?tree=1: what the collector has of processes, slow requests and stacks; its nodes as JSON in pieces."""
from modwsgi_tel.stacks.model import stacks_of_table
from modwsgi_tel.state import view
from modwsgi_tel.state.process import REPLACED, STOPPED
from modwsgi_tel.state.taken import unpacked
from modwsgi_tel.tree import build, model
from modwsgi_tel.tree.nodes import REQUESTS_MOST
from modwsgi_tel.web.statejson import slow_entry, strict

_OVER = (STOPPED, REPLACED)
PROCESSES_MOST = 512                    # in one answer: a node takes kilobytes while it is made


def answer(fleet, ask, now, wall):
    """The answer to an Ask as parts of JSON, a part "" where the loop may have a turn."""
    processes, entries, missing = [], [], []
    held = [process for process in fleet.processes() if process.life not in _OVER]
    if len(held) > PROCESSES_MOST:
        held.sort(key=lambda process: (ask.pid in (process.pid, process.who.sender_pid) or process.group[1] == ask.group,
                                       bool(process.slow_active)), reverse=True)
        missing.append(f"{len(held) - PROCESSES_MOST:,} more processes: ask with group= or pid=")
    began = {(event["sender_pid"], event["pid"], event["received"]) for event in fleet.events if event["kind"] == "process_started"}
    for process in held[:PROCESSES_MOST]:
        yield ""
        processes.append(_process(fleet, process, began, now, wall))
        entries += _entries(fleet, process, now)
    processes += _around(processes, entries)
    if not processes:
        missing.append("no process has told anything yet")
    if fleet.taken.mode == "off":
        missing.append("the collector takes no stacks: serve --stacks auto lets it")
    elif fleet.taken.problem:
        missing.append(f"stacks: {fleet.taken.problem}")
    steps = build.tree_steps(processes, entries, wall, ask, missing, wall)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
        yield ""
    nodes = found.pop("nodes")
    yield strict(found)[:-1] + ',"nodes":['
    yield from _nodes(nodes)
    yield "]}\n"


def _nodes(nodes):
    """The members of an array of nodes, each with its children."""
    comma = ""
    for node in nodes:
        children = node.pop("children", None)
        yield comma + (strict(node) if children is None else strict(node)[:-1] + ',"children":[')
        comma = ","
        if children is not None:
            yield from _nodes(children)
            yield "]}"


def _process(fleet, process, began, now, wall):
    """The model.Process.  began: who said that they start, when."""
    row = view.process_view(process, now, wall, ("1m",))
    outer = process.who.sender_pid if process.checkable else process.pid
    take, kernel = fleet.taken.get(process.id), row.get("kernel") or {}
    looks = () if take is None else (stacks_of_table(unpacked(take.packed)),)
    said = (process.who.sender_pid, process.pid, process.first_wall) in began       # else it was there before it was heard
    return model.Process(
        outer, process.pid if process.pid != outer else None, process.parent_pid or None, process.first_wall if said else None,
        process.role, process.texts["process_group"], "apache" if process.texts["apache_version"] else "", process.texts["hostname"], "", "",
        process.who.uid, kernel.get("state"), kernel.get("threads"), None, row["windows"]["1m"]["cpu"], row["rss"], process.life, row,
        looks, None if take is None else max(0.0, now - take.now), None if take is None else model.TAKEN, "", process.id)


def _entries(fleet, process, now):
    """Its slow requests that go on, as /api/slow has them."""
    found = []
    for key in list(process.slow_active)[:REQUESTS_MOST]:
        slow = fleet.slow.freeze(key, now)
        if slow is not None:
            found.append({**slow_entry(slow, now)["entry"], "tree_pid": process.id, "stack": None})
    return found


def _around(processes, entries):
    """What these tell of Apache itself: its parent, and the children that accepted requests without telemetry of their own."""
    hosts = {process.number: process.host for process in processes}
    parents = {process.number: process.parent for process in processes}
    known = {(process.host, process.pid) for process in processes}
    found = {}
    for process in processes:
        key = process.host, process.parent
        if process.server == "apache" and process.parent and key not in known:
            found.setdefault(key, model.Process(process.parent, role=model.PARENT, server="apache", host=process.host,
                                                name="Apache", number=f"a{process.host}:{process.parent}"))
    for entry in entries:
        number = entry["tree_pid"]
        key = hosts[number], entry.get("server_pid")
        if key[1] and key not in known:
            found.setdefault(key, model.Process(key[1], parent=parents[number], role=model.CHILD, server="apache", host=key[0],
                                                number=f"c{key[0]}:{key[1]}"))
    return list(found.values())
