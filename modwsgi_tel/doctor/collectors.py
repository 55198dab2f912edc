"""The collectors that run here: ours and the existing one, what they have bound and where they answer."""
import os
import re
import shlex

from modwsgi_tel.doctor import places
from modwsgi_tel.doctor.scene import Bound, Collector
from modwsgi_tel.doctor.servers import age_s, namespace
from modwsgi_tel.errors import TelError
from modwsgi_tel.masking import masked
from modwsgi_tel.options import BY_COMMAND, SOCKET, URL, variable
from modwsgi_tel.options import options_of as option_list
from modwsgi_tel.proc import cgroups, links, procfs, roles, sockdiag, sockets, threads
from modwsgi_tel.proc.access import CAP_SYS_PTRACE, effective

_MOST, _DESCRIPTORS_MOST, _COMMAND_MOST, _TOLD_MOST = 64, 4096, 4096, 200
_DGRAM = 2                              # SOCK_DGRAM
_EXISTING = re.compile(r"(^|/)mod_wsgi[-_]telemetry$")
_PORT = URL.rpartition(":")[2]
_RECEIVES = ("serve", "top", "demo", "dump")
_UNIT, _UNITS, _SYSTEMD = "modwsgi-tel.service", ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"), "/run/systemd/system"
_LISTENS = re.compile(r"^ExecStart=.* --listen[ =]unix:(/\S+)", re.M)


def of(members, root="/proc"):
    """[Collector]: those that have a telemetry socket bound; by their command line, where their descriptors may not be read."""
    found = []
    mine = [(each, is_ours) for each in members for is_ours in [_is_ours(each)] if is_ours is not None][:_MOST]
    for member, is_ours in mine:
        if any(other.pid == member.parent for other, _ in mine):        # a helper process of one
            continue
        words = _words(member.pid, root)
        options = {**_by_environment(member.pid, root), **options_of(words)} if is_ours else options_of(words)
        inodes = _inodes(member.pid, root)
        if inodes is None:
            command = next((word for word in words if word in BY_COMMAND), "serve")
            if is_ours and command not in _RECEIVES or command in ("top", "dump") and "listen" not in options:
                continue
            bound, ports = [Bound(_path(options.get("listen", SOCKET)), None, None)], _told_ports(options)
            http_sockets = [options["http-socket"]] if "http-socket" in options else []
        else:
            bound, ports, http_sockets = _bound(member.pid, inodes, root)
            if not bound:
                continue
        found.append(Collector(member.pid, is_ours, shlex.join(words), places.user_name(member.uid), member.state in "Tt", bound,
                               ports, http_sockets, options, cgroups.service(member.pid, root), age_s(member), _is_powerful(member.pid, root),
                               namespace(member.pid, root), _helper(options)))
    return found


def unit_here(folders=_UNITS, runs=_SYSTEMD):
    """(name, path where it listens) of a collector's unit that systemd here could start, or None."""
    if not os.path.isdir(runs):
        return None
    for folder in folders:
        try:
            found = _LISTENS.search(procfs.read(f"{folder}/{_UNIT}", 65536).decode("utf-8", "replace"))
        except OSError:
            continue
        return (_UNIT[:-len(".service")], found.group(1)) if found else None
    return None


def _is_ours(member):
    """True of one of ours, False of the existing one, None of any other process."""
    if member.role == roles.COLLECTOR:
        return True
    if member.server == "python" and any(_EXISTING.search(word) for word in member.command.split()[:4]):
        return False
    return None


def _words(pid, root):
    try:
        return [os.fsdecode(word) for word in procfs.read(f"{root}/{pid}/cmdline", _COMMAND_MOST).rstrip(b"\0").split(b"\0")]
    except OSError:
        return []


def options_of(words):
    """{name: text} of the options on a command line; what has no value behind it is ""."""
    found = {}
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, there, value = word[2:].partition("=")
            following = words[place + 1] if place + 1 < len(words) and not words[place + 1].startswith("--") else ""
            found[name] = value if there else following
    return found


def _by_environment(pid, root):
    """{name: text} of the options that a collector has by its environment, as a unit gives them."""
    try:
        told = procfs.read(f"{root}/{pid}/environ", 1 << 20).split(b"\0")
    except OSError:
        return {}
    set_to = dict(os.fsdecode(each).partition("=")[::2] for each in told if each.startswith(b"MODWSGI_TEL_"))
    return {option.name: set_to[variable(option)] for option in option_list("serve") if set_to.get(variable(option))}


def _helper(options):
    path = _path(options.get("stacks-helper", ""))
    return (path, places.answers(path)) if path else None


def _path(text):
    return text[len("unix:"):] if text.startswith("unix:") else text


def _told_ports(options):
    """[ADDRESS:PORT] that a command line tells; [] where the kernel was to choose one."""
    port = options.get("http-port", _PORT)
    return [] if "no-http-port" in options or port == "0" else [f"{options.get('http-host', '127.0.0.1')}:{port}"]


def _inodes(pid, root):
    """The inodes of the sockets that a process has open; None where that may not be known."""
    found = set()
    try:
        for name in os.listdir(f"{root}/{pid}/fd")[:_DESCRIPTORS_MOST]:
            try:
                link = links.read(f"{root}/{pid}", name)
            except OSError:
                continue
            if link.kind == "socket":
                found.add(link.inode)
    except OSError:
        return None
    return found


def _bound(pid, inodes, root):
    """([Bound], ports, http_sockets) of a process."""
    try:
        rows = sockets.table(pid, root, inodes)
    except TelError:
        return [], [], []
    try:
        types = {inode: each.type for inode, each in sockdiag.unix().items()} if sockets.is_our_namespace(pid, root) else {}
    except OSError:
        types = {}
    bound, ports, http_sockets = [], [], []
    for each in rows.values():
        if each.kind in ("tcp", "tcp6") and each.state == sockets.LISTEN:
            ports.append(each.local)
        elif each.kind == "unix" and each.path and not each.path.startswith("@"):
            if each.state == sockets.LISTEN:
                http_sockets.append(each.path)
            elif types.get(each.inode, _DGRAM) == _DGRAM and each.state == "UNCONNECTED":
                place = places.look(each.path, pid, root) if places.can_reach(pid, root) else None
                bound.append(Bound(each.path, each.inode, place))
    return bound, sorted(ports), sorted(http_sockets)


def _is_powerful(pid, root):
    try:
        return bool(effective(pid, root) >> CAP_SYS_PTRACE & 1)
    except (OSError, KeyError, ValueError):
        return None


def who_listens(port, root="/proc"):
    """[(pid, command)] of who listens on a TCP port here."""
    try:
        rows = [each for each in sockets.table(os.getpid(), root).values() if each.kind in ("tcp", "tcp6") and each.state == sockets.LISTEN
                and each.local.endswith(f":{port}")]
    except TelError:
        return []
    held = sockets.holders({each.inode for each in rows}, root)
    found = []
    for pid in sorted({pid for pids in held.values() for pid in pids}):
        try:
            found.append((pid, masked(threads.command(pid, root))[:_TOLD_MOST]))
        except TelError:
            continue
    return found or [(None, f"a process of uid {each.uid}") for each in rows[:1]]
