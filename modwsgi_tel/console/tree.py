"""The tree: processes, the requests in them and their stacks, as /api/processes?tree=1 has them; it folds and unfolds.

Ui.folds has the ids of those nodes that are not as they are at first: requests with their stacks, and what serves none, are folded.
Whole stacks are asked for only while one of them is to be seen.
"""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, clip, fit, line, restyled, safe
from modwsgi_tel.console.frames import not_there, sentence, troubles
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked
from modwsgi_tel.tree.text import KINDS, below, frame_words, words

FILTERS = (("", "all"), ("serving", "what serves requests"))
SHUT = ("unassociated", "other", "request", "stack")            # kinds that are folded at first
DEEP_MOST = 40                          # levels that are shown
ROWS_MOST = 20_000                      # of all nodes that are not folded
TEXT_MOST = 400                         # letters of one text
_NUMBER_MOST = 1e15
_STYLES = {"server": "bold", "group": "accent", "process": "bold", "dead": "warn", "unassociated": "dim", "thread-group": "dim",
           "other": "dim"}
# What `tree.text` reads of a node, by type: what is of another one is as if it were not there.
_TEXTS = ("id", "kind", "label", "what", "role", "life", "state", "stacks_from", "command", "phase", "request_id", "at", "function",
          "in", "wait", "thread_state", "how", "problem", "stack")
_NUMBERS = ("pid", "inner_pid", "age_s", "cpu", "rss_bytes", "threads", "requests", "oldest_s", "stacks_age_s", "queued_s", "tid",
            "accepted_by", "count", "idle", "processes")
_FLAGS = ("system", "owns_gil", "whole", "ended", "own")
_TOLD = ("silent_s", "throughput", "capacity")


# --- what is asked for ----------------------------------------------------------------------------

def paths(ui, inside):
    serving = FILTERS[table_of(ui).filter % len(FILTERS)][0]
    whole = any(".r" in each or ".s" in each for each in ui.folds)
    return {"tree": asked("/api/processes", tree=1, stacktraces=1 if whole else None,
                          no_system=1 if serving else None, group=ui.group)}


# --- nodes, whatever the answer has ---------------------------------------------------------------

def _number(value):
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _NUMBER_MOST else None


def _text(value):
    return value[:TEXT_MOST] if isinstance(value, str) else None


def _dicts(value):
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _node(raw):
    """A node with all that `tree.text` reads, of the right types, or None for what is none; its children as they came."""
    node = {name: _text(raw.get(name)) for name in _TEXTS}
    node.update({name: _number(raw.get(name)) for name in _NUMBERS})
    node.update({name: raw.get(name) is True for name in _FLAGS})
    if node["id"] is None or node["kind"] not in KINDS:
        return None
    node["label"] = node["label"] or ""
    for name in ("role", "what"):
        node[name] = node[name] or ""
    for name in ("processes", "count", "idle", "requests"):
        node[name] = node[name] or 0
    told = raw.get("telemetry")
    node["telemetry"] = {name: _number(told.get(name)) for name in _TOLD} if isinstance(told, dict) else None
    for name in ("notes", "labels"):
        node[name] = [_text(each) for each in raw[name] if isinstance(each, str)] if isinstance(raw.get(name), list) else []
    node["tids"] = [_number(each) for each in raw["tids"]] if isinstance(raw.get("tids"), list) else []
    node["accepted"] = [{"label": _text(each.get("label")) or "", "pid": _number(each.get("pid"))}
                        for each in _dicts(raw.get("accepted"))]
    node["frames"] = [{"function": _text(each.get("function")) or "", "file": _text(each.get("file")) or "",
                       "line": _number(each.get("line"))} for each in _dicts(raw.get("frames"))]
    node["children"] = _dicts(raw.get("children"))
    return node


def is_shut(node, folds):
    """Whether a node is folded."""
    shut = node["kind"] in SHUT or node["kind"] == "group" and not node["what"]        # Apache's children: many that are alike
    return shut != (node["id"] in folds)


_Drawn = namedtuple("_Drawn", "answer folds search rows")
_drawn = [_Drawn(None, None, None, [])]        # the last one: count, row and body of one screen, and each key, need the same rows


def _rows(view, ui):
    """[(depth, node or None, texts, style)]: a node, or a line below one."""
    answer, search, last = view.get("tree"), table_of(ui).search, _drawn[0]
    if last.answer is not answer or (last.folds, last.search) != (ui.folds, search) or answer is None:
        walk = _Walk(_dicts((answer or {}).get("nodes")), ui.folds, search.lower())
        last = _drawn[0] = _Drawn(answer, ui.folds, search, walk.rows)
    return last.rows


class _Walk:
    """The rows of nodes.  word: only rows in which it is found, folded or not."""

    def __init__(self, raws, folds, word):
        self.rows = []
        self._folds, self._word, self._raws, self._frames = folds, word, raws, None
        self._down(raws, 0)

    def _add(self, depth, node, texts, style):
        if not self._word or self._word in "  ".join(map(str, texts)).lower():
            self.rows.append((depth, node, texts, style))

    def _down(self, raws, depth):
        for raw in raws if depth < DEEP_MOST else ():
            if len(self.rows) >= ROWS_MOST:
                return
            node = _node(raw)
            if node is not None and not node["own"] and (node["kind"] != "thread-group" or node["idle"]):
                self._node(node, depth)

    def _node(self, node, depth):
        kind = node["kind"]
        self._add(depth, node, words(node), _STYLES.get(kind, ""))
        shut = not self._word and is_shut(node, self._folds)
        if not shut or kind in ("request", "stack"):
            for texts in below(node):
                self._add(depth + 1, None, texts, "dim")
        if shut:
            return
        if kind in ("request", "stack"):
            self._stack(node, depth + 1)
        self._down(node["children"], depth + 1)

    def _stack(self, node, depth):
        """The frames of a stack, the outermost first; of a request's, wherever in the tree they are."""
        name = node["stack"] if node["kind"] == "request" else node["id"]
        found = self._of_stack(name) if name else None
        if found is None:
            return
        if node["kind"] == "request" and len(found["labels"]) > 1:
            self._add(depth, None, [f"{found['count']:,} have this stack: {'; '.join(found['labels'])}"], "dim")
        for frame in reversed(found["frames"]):
            self._add(depth, None, [frame_words(frame)], "")
        if not found["frames"]:
            self._add(depth, None, ["its frames are on their way"], "dim")

    def _of_stack(self, name):
        """The node of a stack by its id, or None."""
        if self._frames is None:
            self._frames, left = {}, list(self._raws)
            while left and len(self._frames) < ROWS_MOST:
                raw = left.pop()
                if raw.get("kind") == "stack" and isinstance(raw.get("id"), str):
                    self._frames[raw["id"]] = raw
                left += _dicts(raw.get("children"))
        raw = self._frames.get(name)
        return raw and _node(raw)


# --- for the keys ---------------------------------------------------------------------------------

def count(view, ui):
    return len(_rows(view, ui))


def _opens(node):
    """Whether there is anything to unfold below a node."""
    return bool(node["children"]) or node["kind"] == "stack" or node["kind"] == "request" and bool(node["stack"])


def row(view, ui):
    """("tree", id, whether it is folded) of the node under the cursor, of a line below a node that of the node; None without."""
    rows = _rows(view, ui)
    for _, node, _, _ in reversed(rows[:table_of(ui).cursor + 1]):
        if node is not None:
            return ("tree", node["id"], is_shut(node, ui.folds)) if _opens(node) else None
    return None


def subject(view, ui):
    """(pid, None) of the process that the row under the cursor is of, or None."""
    rows = _rows(view, ui)
    for _, node, _, _ in reversed(rows[:table_of(ui).cursor + 1]):
        if node is not None and node["kind"] in ("process", "server", "group", "other"):
            return (node["pid"], None) if node["kind"] == "process" and isinstance(node["pid"], int) else None
    return None


# --- what is seen ---------------------------------------------------------------------------------

def body(view, ui, inside):
    glyphs, cols = ui.glyphs, inside.cols
    none = not_there(view, "tree", cols, glyphs)
    if none:
        return none
    said, rows = troubles(view, "tree", cols, glyphs), _rows(view, ui)
    missing = (view.get("tree") or {}).get("missing")
    for text in missing if isinstance(missing, list) else ():
        if isinstance(text, str):
            said += sentence(f"missing: {safe(text[:TEXT_MOST], glyphs)}", cols, "dim", glyphs)
    if not rows:
        return [fit(each, cols, glyphs) for each in [*said, line(Span(" nothing to show", "dim"))][:inside.rows]]
    said = said[:max(0, inside.rows // 3)]
    room = max(1, inside.rows - len(said))
    cursor = min(table_of(ui).cursor, len(rows) - 1)
    start = max(0, min(cursor - room // 2, len(rows) - room))
    lines = [*said]
    for place in range(start, min(len(rows), start + room)):
        lines.append(_line(rows[place], ui, cols, place == cursor))
    return [fit(each, cols, glyphs) for each in lines[:inside.rows]]


def _line(row, ui, cols, chosen):
    depth, node, texts, style = row
    glyphs = ui.glyphs
    mark = " "
    if node is not None and _opens(node):
        mark = "+" if is_shut(node, ui.folds) else "-"
    text = "  ".join(safe(each, glyphs) for each in texts if each)
    shown = line(Span(">" if chosen else " ", "accent"), Span("  " * depth + mark + " ", "dim"),
                 Span(clip(text, max(1, cols - 2 * depth - 3), glyphs), style))
    return restyled(shown, "select") if chosen else shown


PANE = Pane("tree", ("P",), "tree", paths, body, count, row, filters=FILTERS, hint="Enter folds, unfolds  G group", subject=subject)
