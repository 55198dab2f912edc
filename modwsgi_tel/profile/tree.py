"""The stacks of a profile, or of two, as one tree: functions below their callers, lines added up."""
from modwsgi_tel.profile.samples import same_group


class Node:
    """A function below its callers.

    name: (function, file).  total_s, own_s: with and without what it calls.  lines: line -> seconds in which it stood there.
    before_s: of the former recording, in seconds of this one (made to the same total), or 0.
    """

    __slots__ = ("name", "total_s", "own_s", "before_s", "lines", "children")

    def __init__(self, name):
        self.name = name
        self.total_s = self.own_s = self.before_s = 0.0
        self.lines = {}
        self.children = {}              # name -> Node

    def child(self, name):
        found = self.children.get(name)
        if found is None:
            found = self.children[name] = Node(name)
        return found


def tree(profile):
    """The root Node of a profile; its name is None."""
    return _grown(profile, lambda key: (key.function, key.file))


def compared(profile, former):
    """The root Node of a profile and a Former; pids and thread ids are left out of names."""
    root = _grown(profile, lambda key: (same_group(key.function) if key.file is None else key.function, key.file))
    scale = root.total_s / former.total_s if former.total_s and root.total_s else 1.0
    for path, seconds in former.stacks.items():
        node = root
        node.before_s += seconds * scale
        for function, file in path:
            node = node.child((same_group(function) if file is None else function, file))
            node.before_s += seconds * scale
    return root


def _grown(profile, name):
    root = Node(None)
    nodes = [root]                      # by the profile's numbers
    for number in range(1, len(profile.parent)):
        key = profile.frames[profile.frame[number]]
        nodes.append(nodes[profile.parent[number]].child(name(key)))
    totals = list(profile.own_s)
    for number in range(len(totals) - 1, 0, -1):        # parents come before their children
        totals[profile.parent[number]] += totals[number]
    for number, total_s in enumerate(totals):
        node = nodes[number]
        node.total_s += total_s
        node.own_s += profile.own_s[number]
        line = profile.frames[profile.frame[number]].line if number else None
        if line is not None and total_s:
            node.lines[line] = node.lines.get(line, 0.0) + total_s
    return root
