"""The tree as lines for people: the totals, what is where, what is missing.  Nodes in, text out.

`words` and `below` say what there is to say of a node, as raw texts: whoever shows them makes them printable.
"""
import time

from modwsgi_tel.figures import counted, duration, number, percent, size
from modwsgi_tel.printable import printable
from modwsgi_tel.tree import model

INDENT = "  "
CUT = "..."
LABELS_SHOWN = 4                        # of those who have the same stack
MOST_SHOWN = {"request": 100, "stack": 20}      # below one node
COMMAND_MOST, ID_MOST = 60, 30          # letters
QUEUED_S = 0.01                         # less is not worth a word
NO_TELEMETRY = "no telemetry"
WHY_NONE = f"{NO_TELEMETRY}: the Apache child sends none of its own; WSGIRestrictEmbedded is on, or it has served nothing"
STATES = {"D": "waits for a disk", "T": "stopped", "t": "stopped by a tracer", "Z": "a zombie", "X": "has ended"}
_DOES = {"running": "runs", "waiting": "waits", "disk": "waits for a disk", "stopped": "is stopped"}


# --- of one node ----------------------------------------------------------------------------------

def words(node, telemetry=True):
    """What a node is, in short texts, the most important first.  telemetry: whether silence of it tells something."""
    return [word for word in _WORDS[node["kind"]](node, telemetry) if word]


def below(node):
    """What else there is to say of a node: a list of texts for each line."""
    out = []
    if node["kind"] in ("request", "stack") and node["at"]:
        out.append([where(node), does(node)])
    for each in node.get("accepted", ())[:LABELS_SHOWN]:
        out.append([f"accepted {each['label']}, which {each['pid']} serves"])
    if len(node.get("accepted", ())) > LABELS_SHOWN:
        out.append([f"and accepted {counted(len(node['accepted']) - LABELS_SHOWN, 'more request')}"])
    return out + [[note] for note in node["notes"]]


def where(node):
    """`at shop/views.py:31 orders > recv_into (socket.py:706)`: the line of the application, and what it has called."""
    return f"at {node['at']} {node['function'] or ''}" + (f" > {node['in']}" if node["in"] else "")


def does(node):
    """What the thread does there, "" where that is not known."""
    if node["thread_state"] == "waiting" and node["wait"]:
        return f"waits in {node['wait'].partition(' ')[0]}"
    return _DOES.get(node["thread_state"], "")


def frame_words(frame):
    return f"{frame['function']} ({frame['file']}:{'?' if frame['line'] is None else frame['line']})"


def is_silent(node):
    """Whether it is an Apache child without telemetry."""
    return node["kind"] == "process" and node["role"] == model.CHILD and node["telemetry"] is None


def _cut(shown, most):
    """Text of at most so many letters (None: any), at least a few."""
    return shown if most is None or len(shown) <= max(8, most) else shown[:max(8, most) - len(CUT)] + CUT


def _requests(node):
    count, oldest = node["requests"], node["oldest_s"]
    if not count:
        return ""
    if oldest is None:
        return counted(count, "request")
    return f"1 request for {duration(oldest)}" if count == 1 else f"{counted(count, 'request')}, the oldest for {duration(oldest)}"


def _pids(node):
    return str(node["pid"]) + (f" ({node['inner_pid']} in its own namespace)" if node["inner_pid"] else "")


def _figures(node):
    return ["vanished" if node["life"] == model.VANISHED else "",
            f"up {duration(node['age_s'])}" if node["age_s"] is not None else "",
            f"cpu {number(node['cpu'], 2)}" if node["cpu"] is not None else "",
            size(node["rss_bytes"]) if node["rss_bytes"] is not None else "",
            counted(node["threads"], "thread") if node["threads"] else "", _requests(node), STATES.get(node["state"], ""),
            f"stacks of {duration(node['stacks_age_s'])} ago" if node["stacks_from"] == model.TAKEN else
            "stacks by its agent" if node["stacks_from"] == model.AGENT else ""]


def _told(node, telemetry):
    """What its telemetry says; that it has none, where one could be."""
    told = node["telemetry"]
    if told is None:
        return [NO_TELEMETRY] if telemetry and node["role"] in (model.CHILD, model.DAEMON) else []
    life = node["life"] if node["life"] in ("started", "stopping") else ""
    return [f"silent for {duration(told.get('silent_s'))}" if node["life"] == "silent" else life,
            f"{number(told['throughput'])} req/s" if told.get("throughput") else "",
            f"busy {percent(told['capacity'])}" if told.get("capacity") is not None else ""]


def _host(node, telemetry):
    return [f"host {node['label']}"]


def _server(node, telemetry):
    return [f"{node['label']} {_pids(node)}", "Apache's parent" if node["role"] == model.PARENT else node["what"], *_figures(node)]


def _group(node, telemetry):
    return [f"{node['what']} {node['label']}".strip() + f": {counted(node['processes'], 'process', 'processes')}", _requests(node),
            size(node["rss_bytes"]) if node["rss_bytes"] else ""]


def _process(node, telemetry):
    what = [] if node["role"] in (model.DAEMON, model.WORKER) else [node["what"]]
    if node["role"] in (model.PYTHON, model.HELPER, model.COLLECTOR):
        command = node["command"] or node["label"]
        what.append(_cut(command, COMMAND_MOST))
    return [_pids(node), *what, *_figures(node), *_told(node, telemetry)]


def _interpreter(node, telemetry):
    return [node["label"], counted(node["requests"], "request") if node["requests"] else "no request"]


def _request(node, telemetry):
    age = "age not known" if node["age_s"] is None else f"for {duration(node['age_s'])}"
    if node["ended"]:
        age = "" if node["age_s"] is None else f"began {duration(node['age_s'])} ago"
    return [node["label"], age, "" if node["phase"] == "in the application" else node["phase"],
            f"after {duration(node['queued_s'])} in the queue" if node["queued_s"] and node["queued_s"] >= QUEUED_S else "",
            f"thread {node['tid']}" if node["tid"] is not None else "", "holds the GIL" if node["owns_gil"] else "",
            f"cpu {number(node['cpu'], 2)}" if node["cpu"] else "",
            f"accepted by child {node['accepted_by']}" if node["accepted_by"] and node["accepted_by"] != node["pid"] else "",
            f"request {node['request_id']}" if node["request_id"] else ""]


def _dead(node, telemetry):
    return [node["label"], "work that goes on after its request has ended"]


def _unassociated(node, telemetry):
    return [node["label"], f"{counted(node['count'], 'thread')} that work{'s' if node['count'] == 1 else ''} for no request"]


def _stack(node, telemetry):
    named = node["labels"] if node["how"] is None else ["?" if tid is None else str(tid) for tid in node["tids"]]
    who = ", ".join(named[:LABELS_SHOWN]) + (f" and {node['count'] - LABELS_SHOWN:,} more" if node["count"] > LABELS_SHOWN else "")
    return [node["label"], f"{counted(node['count'], 'thread')}{' ' + node['how'] if node['how'] else ''}: {who}",
            "holds the GIL" if node["owns_gil"] else "", "" if node["whole"] else f"[{node['problem']}]"]


def _counted(node, telemetry):
    return [counted(node["idle"], "thread") + " with nothing to do" if node["idle"] else ""]


def _other(node, telemetry):
    return [f"{node['label']}: other processes of Python"]


_WORDS = {"host": _host, "server": _server, "group": _group, "process": _process, "interpreter": _interpreter, "request": _request,
          "dead": _dead, "unassociated": _unassociated, "stack": _stack, "thread-group": _counted, "other": _other}
KINDS = tuple(_WORDS)


def totals(found):
    """What there is, before anything is left out: texts."""
    out = [counted(found["processes"], "process", "processes")]
    out += [counted(found[name], one) for name, one in (("servers", "server"), ("groups", "group")) if found[name]]
    out += [counted(found["threads"], "thread"), counted(found["requests"], "request")]
    different = f", {found['stacks_different']:,} different" if found["stacks"] > found["stacks_different"] else ""
    out.append(counted(found["stacks"], "stack") + different)
    return [*out, f"{counted(found['dead'], 'request')} left threads behind"] if found["dead"] else out


# --- the whole ------------------------------------------------------------------------------------

def lines(answer, width=80, telemetry=False):
    """Lines, none wider than `width`, which is at least 40 (None: as long as they are).  telemetry: whether a collector answered."""
    made = _Lines(width, telemetry, answer["stacktraces"])
    made.add(totals(answer["totals"]), "")
    made.lines.append("")
    if answer["flat"]:
        made.flat(answer["nodes"])
    else:
        made.remember(answer["nodes"])
        made.nested(answer["nodes"], 0)
    if made.silent:
        made.lines.append("")
        made.add([WHY_NONE], "")
    if answer["missing"]:
        made.lines.append("")
        for missing in answer["missing"]:
            made.add([f"missing: {missing}"], "")
    return made.lines


class _Lines:
    """Lines as they come about.  silent: whether some Apache child without telemetry was shown."""

    def __init__(self, width, telemetry, whole):
        self.lines, self.silent = [], False
        self._width, self._telemetry, self._whole = width, telemetry, whole
        self._labels = {}               # id of a stack -> who has it first

    def add(self, texts, front):
        """Texts in lines, two spaces between; words are not broken."""
        further = front + INDENT * 2
        line = front
        for part in map(printable, filter(None, texts)):
            gap = "  " if line.strip() else ""
            if self._width is None or len(line) + len(gap) + len(part) <= self._width:
                line += gap + part
                continue
            if line.strip():
                self.lines.append(line)
                line = further
            for word in part.split(" "):
                word = _cut(word, self._width - len(further))
                if line.strip() and len(line) + 1 + len(word) > self._width:
                    self.lines.append(line)
                    line = further
                line += (" " if line.strip() else "") + word
        if line.strip():
            self.lines.append(line)

    def remember(self, nodes):
        for node in nodes:
            if node["kind"] == "stack":
                self._labels[node["id"]] = node["labels"][0]
            self.remember(node["children"])

    def flat(self, nodes):
        """A line for each: its id, that of what it stands below, what it is, and where."""
        ids = [(printable(node["id"]), printable(node["parent"] or "-")) for node in nodes]
        sizes = [min(ID_MOST, max(map(len, column))) for column in zip(*ids)] if ids else []
        for node, cells in zip(nodes, ids):
            self.silent = self.silent or self._telemetry and is_silent(node)
            at = where(node) if node["kind"] == "request" and node["at"] else ""
            row = "  ".join([*(cell.ljust(size) for cell, size in zip(cells, sizes)),
                             *(printable(word) for word in (*words(node, self._telemetry), at) if word)])
            self.lines.append(_cut(row, self._width))
            if node["kind"] == "stack" and self._whole:
                self._frames(node, INDENT * 2)

    def nested(self, nodes, depth):
        front, shown = INDENT * depth, {}
        for node in nodes:
            kind = node["kind"]
            shown[kind] = shown.get(kind, 0) + 1
            if shown[kind] > MOST_SHOWN.get(kind, len(nodes)):
                continue
            if is_own_stack(node):      # its request says where it is
                if self._whole:
                    self._shared(node, front)
                    self._frames(node, front)
                continue
            self.silent = self.silent or self._telemetry and is_silent(node)
            self.add(words(node, self._telemetry), front)
            for texts in below(node):
                self.add(texts, front + INDENT)
            if kind == "stack" and self._whole:
                self._frames(node, front + INDENT)
            elif kind == "request" and self._whole and is_elsewhere(node):
                self.add([f"the same stack as {self._labels.get(node['stack'], node['stack'])}"], front + INDENT)
            self.nested(node["children"], depth + 1)
        for kind, most in MOST_SHOWN.items():
            if shown.get(kind, 0) > most:
                self.add([f"and {counted(shown[kind] - most, 'more ' + kind)}: --json has all"], front)

    def _shared(self, node, front):
        if node["count"] > 1:
            more = f"; and {node['count'] - LABELS_SHOWN:,} more" if node["count"] > LABELS_SHOWN else ""
            self.add([f"{node['count']:,} have this stack: {'; '.join(node['labels'][:LABELS_SHOWN])}{more}"], front)

    def _frames(self, node, front):
        """The frames as a traceback has them, the outermost first."""
        if not node["whole"]:
            self.add([f"[{node['problem']}]"], front)
        room = None if self._width is None else max(20, self._width - len(front))
        for frame in reversed(node.get("frames", ())):
            text = printable(frame_words(frame))
            if room is not None and len(text) > room:
                keep = room - len(CUT)
                text = text[:keep // 3] + CUT + text[len(text) - (keep - keep // 3):]
            self.lines.append(front + text)


def is_own_stack(node):
    """Whether a node is the stack of the thread that serves the request above it."""
    return node["kind"] == "stack" and node["own"]


def is_elsewhere(node):
    """Whether the stack of a request hangs below another one that has the same."""
    return bool(node.get("stack")) and all(child["id"] != node["stack"] for child in node["children"])


def stamp(wall):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
