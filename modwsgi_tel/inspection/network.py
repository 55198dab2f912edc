"""What a process listens on and talks to: its sockets, of which a server may have thousands, as a row for each place.

    grouped(rows) -> [{"direction": "listens", "in" or "out", "kind": "tcp", "udp", "unix" or another, "service", "place",
        "connections", "states": {state: count}, "to_read_bytes", "to_send_bytes", "addresses", "queued", "backlog", "fds", "peers",
        "held_by"}]

rows: those of proc.descriptors.look.  place: text: of "out" the other end, of "in" and "listens" this one.  in: the other
side has connected.  addresses: how many others there are at the other end.  queued, backlog: of "listens" alone,
the connections that wait to be accepted, and how many may; None where that is not known.  fds: the first ones.
peers: inodes of the other ends, where they are on this machine.  held_by: [{"pid", "name"}] of who has these, once `name_peers` was called.
"""
from modwsgi_tel.proc.sockets import LISTEN, QUEUED

LISTENS, IN, OUT = "listens", "in", "out"
FIRST = 64                              # descriptors that a row names
PEERS = 3                               # other ends of a row that are looked for
_ORDER = (LISTENS, OUT, IN)
UNNAMED = "(no name)"


def host_of(address):
    """The host of "10.0.0.5:5432" or "[::1]:80"."""
    return (address or "").rpartition(":")[0]


def port_of(address):
    """The port of such an address as text, "" without one."""
    port = (address or "").rpartition(":")[2]
    return port if port.isdigit() else ""


def plain_kind(socket):
    """tcp6 is tcp to people: a dual socket serves both."""
    return socket["kind"][:-1] if socket["kind"] in ("tcp6", "udp6") else socket["kind"]


def _place(socket):
    """(direction, place) of a socket."""
    kind, here = plain_kind(socket), socket["path"] if socket["kind"] == "unix" else socket["local"]
    if socket["state"] == LISTEN or kind == "udp" and not socket["remote"]:
        return LISTENS, here or UNNAMED
    if socket["incoming"]:
        return IN, here or socket["remote"] or UNNAMED
    return OUT, socket["remote"] or here or UNNAMED


def grouped(rows):
    """See above: listeners first, then the others by how many there are."""
    found = [(row, row["socket"]) for row in rows if row["socket"]]
    groups, others = {}, {}
    for row, socket in found:
        direction, place = _place(socket)
        key = direction, plain_kind(socket), place
        group = groups.get(key)
        if group is None:
            group = groups[key] = {"direction": direction, "kind": key[1], "service": socket["service"], "place": place, "connections": 0,
                                   "states": {}, "to_read_bytes": 0, "to_send_bytes": 0, "addresses": 0, "queued": None, "backlog": None,
                                   "fds": [], "peers": [], "held_by": []}
            others[key] = set()
        _add(group, row, socket)
        if direction == IN:
            others[key].add(host_of(socket["remote"]))
        group["addresses"] = len(others[key])
    return sorted(groups.values(), key=lambda each: (_ORDER.index(each["direction"]), -each["connections"], each["place"]))


def _add(group, row, socket):
    group["connections"] += 1
    if socket["state"]:
        group["states"][socket["state"]] = group["states"].get(socket["state"], 0) + 1
    if socket["state"] == LISTEN:
        group["queued"] = (group["queued"] or 0) + (socket["received_queue"] or 0)
        group["backlog"] = socket["backlog"]
    else:
        group["to_read_bytes"] += socket["received_queue"] or 0
        group["to_send_bytes"] += socket["send_queue"] or 0
    if len(group["fds"]) < FIRST:
        group["fds"].append(row["fd"])
    if socket["peer"] and socket["state"] != QUEUED and len(group["peers"]) < PEERS:
        group["peers"].append(socket["peer"])


def name_peers(groups, holders, name_of):
    """Fill held_by.  holders: {inode: [pid]}; name_of: gives a pid's name, or None when it has ended."""
    for group in groups:
        pids = dict.fromkeys(pid for inode in group["peers"] for pid in holders.get(inode, ()))
        named = [(pid, name_of(pid)) for pid in pids]
        group["held_by"] = [{"pid": pid, "name": name} for pid, name in named if name is not None][:PEERS]
