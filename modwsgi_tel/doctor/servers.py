"""The servers that serve Python here, and what each one sees at its telemetry socket's path.  All bounded; what cannot be looked at is
said."""
import os
import shlex
import time

from modwsgi_tel import agentclient
from modwsgi_tel.apache import config as configs
from modwsgi_tel.doctor import denials, mentions, places
from modwsgi_tel.doctor.scene import Sender, Server, by_agent_only
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import cgroups, mounts, procfs, roles, threads, waits
from modwsgi_tel.proc.access import CAP_DAC_OVERRIDE, effective

_KINDS = ("apache", "gunicorn", "uwsgi")       # any other Python may serve something else
_MOST_SERVERS, _MOST_SENDERS = 32, 256
_SENDS = ("sendto", "sendmsg", "connect", "write")
_WAITS_S = 0.6                          # for all looks at what threads wait for
_TICKS = os.sysconf("SC_CLK_TCK")
_DEBIAN_FILE, _DEBIAN_CTL = "/etc/apache2/apache2.conf", "/usr/sbin/apache2ctl"


def of(members, only, policy, other="self", root="/proc"):
    """[Server], the first ones.  members: of proc.roles.  only: a pid of the one that is meant, or None.  policy: as denials.policy has it.
    other: the pid of who sees the files that a server should see too.
    """
    by_pid = {each.pid: each for each in members}
    heads = {}
    for each in members:
        if each.state not in "ZX" and each.server in _KINDS and each.role in (*roles.SERVES, roles.PARENT, roles.MASTER):
            heads.setdefault(_head(each, by_pid), []).append(each)
    if only is not None:
        wanted = _head(by_pid[only], by_pid) if only in by_pid else None
        heads = {head: each for head, each in heads.items() if head == wanted}
    return [_server(by_pid[head], each, policy, other, root) for head, each in sorted(heads.items())[:_MOST_SERVERS]]


def _head(member, by_pid):
    """The pid of the first process of a server, by one of its."""
    above = by_pid.get(member.parent)
    while above is not None and above.server == member.server and above.role != roles.HELPER and above.state not in "ZX":
        member, above = above, by_pid.get(above.parent)
    return member.pid


def _server(head, members, policy, other, root):
    config, problem = None, ""
    is_left = head.server == "apache" and head.role != roles.PARENT
    if is_left:
        problem = "its parent has ended"
    elif head.server == "apache":
        try:
            config = configs.of(head.pid, root)
        except TelError as error:
            problem = str(error)
    path = config.telemetry["socket"] if config is not None and config.telemetry else None
    place = here = None
    mounted = None
    if path and path.startswith("/"):
        here = places.look(path, root=root)
        place = places.look(path, head.pid, root) if places.can_reach(head.pid, root) else None
        mounted = _mounted(path, head.pid, root)
    private = _differs(head.pid, other, root)
    services = {each.group for each in config.daemons if each.threads == 0} if config is not None else ()
    senders = [sender for sender in (_sender(each, policy, root) for each in _serving(members, services)) if sender is not None]
    restricted = config is not None and any(name == "WSGIRestrictEmbedded" and [word.lower() for word in words[:1]] == ["on"]
                                            for name, words, _ in config.directives)
    return Server(head.pid, head.server, reload_of(head.pid, head.server, config, root),
                  cgroups.service(head.pid, root), config, problem, senders, path, place, here, private, mounted,
                  mentions.of(config, head.pid, root) if config is not None else [], restricted, is_left,
                  config is not None and not _is_here(config.file, head.pid, root))


def _is_here(path, pid, root):
    """Whether a file of a process is the one that has this name here; True where that may not be known."""
    try:
        there = os.stat(places.reach(pid, path, root))
    except OSError:
        return True
    try:
        return os.path.samestat(there, os.stat(path))
    except OSError:
        return False


def _serving(members, services=()):
    """services: groups without threads, as of mod_wsgi-express's --service-script: they serve no requests, and send nothing."""
    return [each for each in members if each.role in roles.SERVES and not (each.group and each.group in services)][:_MOST_SENDERS]


def _sender(member, policy, root):
    """The Sender of a process, or None when it has ended."""
    try:
        uid, gids = threads.rights(member.pid, root)
        mighty = bool(effective(member.pid, root) >> CAP_DAC_OVERRIDE & 1)
    except (OSError, TelError, KeyError, ValueError):
        return None
    context, profile = denials.confinement(member.pid, policy, root)
    return Sender(member.pid, member.role, uid, gids, mighty, None, context, profile, age_s(member), _has_agent(member.pid, root))


def age_s(member):
    """For how long a process of proc.roles has run, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - member.start / _TICKS


def _has_agent(pid, root):
    try:
        return os.access(f"{root}/{pid}/net/unix", os.R_OK) and bool(agentclient.find(pid, root))
    except TelError:
        return False


def with_waits(servers, root="/proc"):
    """The same Servers with what their threads wait for in sends; each was there at two looks."""
    deadline = time.monotonic() + _WAITS_S
    found = {}
    for turn in range(2):
        for server in servers:
            for sender in server.senders:
                if time.monotonic() > deadline:
                    break
                if not server.path:
                    found[sender.pid] = {}
                    continue
                if turn and not found.get(sender.pid):
                    continue
                told = _waiting(sender.pid, server.path, root)
                found[sender.pid] = told if not turn or told is None else {tid: text for tid, text in told.items()
                                                                           if tid in found[sender.pid]}
        time.sleep(0.1 if any(found.values()) and not turn else 0)
    return [server._replace(senders=[sender._replace(waits=sorted(found[sender.pid].values()) if found.get(sender.pid) is not None
                                                     else None)
                                     for sender in server.senders]) for server in servers]


def with_target(servers, target, root="/proc"):
    """The same Servers; those that cannot send by themselves with what an agent in them would see at this path."""
    return [server._replace(path=target, place=places.look(target, server.pid, root) if places.can_reach(server.pid, root) else None,
                            here=places.look(target, root=root)) if by_agent_only(server) else server for server in servers]


def _waiting(pid, path, root):
    """{tid: text} of threads of a process that wait in a send to the telemetry socket; None where that may not be known."""
    try:
        procfs.read(f"{root}/{pid}/syscall", 256)
    except OSError:
        return None
    return {tid: wait["text"] for tid, wait in waits.waits(pid, root=root).items() if wait["call"] in _SENDS and wait["target"] == path}


# --- where it lives --------------------------------------------------------------------------------

def namespace(pid, root="/proc"):
    """What tells the file system that a process sees from others': its mounts and its root; None where that may not be known."""
    try:
        seen = os.stat(os.path.join(root, str(pid), "root", ""))
        return os.readlink(f"{root}/{pid}/ns/mnt"), seen.st_dev, seen.st_ino
    except OSError:
        return None


def _differs(pid, other, root):
    first, second = namespace(pid, root), namespace(other, root)
    return None if first is None or second is None else first != second


def _mounted(path, pid, root):
    """`/tmp (from /tmp/systemd-private-.../tmp)` of the mount that a path is on; None where that is not known."""
    try:
        text = procfs.read(f"{root}/{pid}/mountinfo", 1 << 20)
    except OSError:
        return None
    found = mounts.of_path(path, mounts.parse(text))
    if found is None:
        return None
    for each in text.split(b"\n"):
        words = each.split()
        if len(words) > 4 and words[0] == b"%d" % found.id:
            return f"{found.point} (from {os.fsdecode(words[3])}, {found.type})"
    return found.point


def reload_of(pid, kind, config, root="/proc"):
    """The command that makes a server read its configuration again, ready to be copied."""
    unit = cgroups.service(pid, root)
    if unit:
        return f"systemctl reload {shlex.quote(unit[:-len('.service')])}"
    beside = os.path.join(os.path.dirname(config.file), "apachectl") if config is not None else ""
    if beside and os.access(beside, os.X_OK) and config.root == os.path.dirname(config.file):
        return f"{shlex.quote(beside)} graceful"
    if kind != "apache":
        return f"kill -HUP {pid}"
    test = _test_of(pid, config, root)
    return (f"{test} && " if test else "") + f"kill -USR1 {pid}"


def _test_of(pid, config, root):
    """The command that reads an Apache's configuration and does no more, or "": one that gets the signal with an error in it ends."""
    if _differs(pid, "self", root) is not False:
        return ""                       # its files are not these
    if config is not None and config.file == _DEBIAN_FILE and os.access(_DEBIAN_CTL, os.X_OK):
        return "apache2ctl configtest"  # which knows the variables that this file needs
    try:
        program = os.readlink(f"{root}/{pid}/exe")
        words = [os.fsdecode(word) for word in procfs.read(f"{root}/{pid}/cmdline", 65536).rstrip(b"\0").split(b"\0")][1:]
    except OSError:
        return ""
    for place, word in enumerate(words):
        if word == "-k":
            del words[place:place + 2]
            break
    return shlex.join([program, *words, "-t"]) if os.access(program, os.X_OK) else ""
