"""The nested nodes in the order and the shape that is wanted: sorted, without what serves no requests, or flat."""

ORDER = {"host": 0, "server": 0, "group": 1, "interpreter": 2, "request": 3, "dead": 4, "process": 5, "unassociated": 6, "stack": 7,
         "thread-group": 8, "other": 9}
_SUMS = frozenset(("group", "host", "dead", "other", "interpreter"))
_NO_REQUESTS = frozenset(("stack", "dead", "unassociated", "thread-group"))


def shaped(roots, ask):
    """The list of nodes for an Ask; `roots` are changed.  A generator that yields (nothing) between processes, and returns it."""
    for node in roots:
        yield from _totalled(node)
    if not ask.system:
        roots = yield from _without_system(roots, None)
    yield from _sort(roots, ask.sort)
    if not ask.flat:
        return roots
    found = []
    yield from _flatten(roots, _key(ask.sort), (True, 0.0), found)
    return [node for _, _, node in sorted(found, key=lambda each: each[:2])]


def _totalled(node):
    """Give what has no own figures those of what is below it."""
    below, kind = node["children"], node["kind"]
    for child in below:
        yield from _totalled(child)
    if kind == "process":
        yield
    if kind == "request":
        node["oldest_s"] = None if node["ended"] else node["age_s"]
    elif kind not in _NO_REQUESTS:
        node["oldest_s"] = max((child["oldest_s"] for child in below if child.get("oldest_s") is not None), default=None)
    if kind in _SUMS:
        node["started"] = min((child["started"] for child in below if child["started"] is not None), default=None)
        node["age_s"] = max((child["age_s"] for child in below if child["age_s"] is not None), default=None)
        for name in ("cpu", "rss_bytes"):
            known = [child[name] for child in below if child[name] is not None]
            node[name] = sum(known) if known else None
    if kind == "group":
        node["processes"] = sum(child["kind"] == "process" for child in below)
        node["requests"] = sum(child.get("requests") or 0 for child in below)
        node["system"] = node["system"] and all(child["system"] for child in below)


def _without_system(nodes, parent):
    """The nodes that serve requests; those below one that is left out move up."""
    out = []
    for node in nodes:
        if node["kind"] == "process":
            yield
        node["children"] = yield from _without_system(node["children"], parent if node["system"] else node["id"])
        if node["system"]:
            out += node["children"]
        else:
            node["parent"] = parent
            out.append(node)
    return out


def _key(sort):
    """Oldest first for `start` and `age`, the most first for `cpu` and `rss`; what is not known last, and else by number."""
    name = {"start": "started", "age": "age_s", "cpu": "cpu", "rss": "rss_bytes"}[sort]
    sign = 1 if sort == "start" else -1

    def key(node):
        value = node[name]
        return (value is None, 0.0 if value is None else sign * value, node.get("pid") or 0, node.get("tid") or 0)
    return key


def _sort(nodes, sort):
    key = _key(sort)
    nodes.sort(key=lambda node: (ORDER[node["kind"]], key(node)))
    for node in nodes:
        if node["kind"] == "process":
            yield
        yield from _sort(node["children"], sort)


def _first(node, key):
    """The value that a node is sorted by: its own, else the first of those below it."""
    value = key(node)[:2]
    return min((_first(child, key) for child in node["children"]), default=value) if value[0] else value


def _flatten(nodes, key, above, found):
    """Add (value to sort by, place, node) of all; what has no value stands with the first below it, else with what it is below."""
    for node in nodes:
        if node["kind"] == "process":
            yield
        value = _first(node, key)
        value = above if value[0] else value
        found.append((value, len(found), node))
        yield from _flatten(node.pop("children"), key, value, found)
