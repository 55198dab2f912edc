"""Which processes serve Python requests, which of them belong together, and what each one is for.

Told by what /proc shows of a process and of its parent: the program, the command line (mod_wsgi's daemons write their group
over it), and the sockets on which it listens: an Apache child closes the unix sockets of the daemon groups, a daemon keeps that of its own;
and a Python that listens on TCP is a server.
"""
import os
import re
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find, procfs

PARENT, CHILD, DAEMON, MASTER, WORKER = "apache-parent", "apache-child", "daemon", "master", "worker"
PYTHON, COLLECTOR, HELPER = "python", "collector", "helper"
SERVES = (CHILD, DAEMON, WORKER, PYTHON)        # in these application code runs, or may
MOST = 4096                             # processes in one answer
_COMMAND_MOST = 4096                    # bytes of a command line
_SOCKETS_MOST = 4 << 20                 # bytes of /proc/net/tcp
_DESCRIPTORS_MOST = 4096                # of one process
_PAGE = os.sysconf("SC_PAGE_SIZE")

Member = namedtuple("Member", "pid parent start role group server name command title uid state threads cpu_ticks rss_bytes")
Member.__doc__ = """One process of a server, as it was at one look.

parent: the pid of its parent, as the kernel says.  start: clock ticks since boot.  role: one of those above.  group: mod_wsgi's daemon
process group, or what gunicorn and uWSGI serve; "" where it has none or does not show it.  server: "apache", "gunicorn", "uwsgi" or
"python".  name: as the kernel keeps it.  command: the whole command line, text.  title: its first word, where that is no
program's name.  uid: of its folder in /proc.  cpu_ticks: used since its start."""

_Seen = namedtuple("_Seen", "stat words program uid")
_ACCEPTS, _LISTEN = b"00010000", b"0A"  # __SO_ACCEPTCON of a unix socket's flags; TCP_LISTEN
_EXPRESS = re.compile(r"(.+:\d+):(\d+)")
_GUNICORN_TITLE = re.compile(r"gunicorn: (master|worker) \[(.*)\]")
_OURS = re.compile(r"(^|/)modwsgi-tel(\.pyz)?$")
_APPLICATION = re.compile(r"[\w./-]+(:[\w.]+(\(.*\))?)?")


def members(root="/proc"):
    """The Members of all servers, their children of any kind, and other Python processes; by pid, without our own.

    Raises TelError where there is no /proc, and for more than MOST of them.
    """
    seen = _seen(root)
    found = _Roles(seen, root).members()
    if len(found) > MOST:
        raise TelError(f"{len(found)} processes of servers are more than the {MOST} that can be looked at: name one by --pid or --group")
    return found


def _seen(root):
    try:
        pids = procfs.pids(root)
    except OSError:
        pids = []
    if not pids or not procfs.is_visible(root):
        raise TelError("there is no /proc here: mount it (mount -t proc proc /proc)")
    found, own = {}, os.getpid()
    for pid in pids:
        if pid == own:
            continue
        try:
            stat = procfs.stat(pid, root)
            if stat.kernel:
                continue
            words = procfs.read(f"{root}/{pid}/cmdline", _COMMAND_MOST).split(b"\0")
            found[pid] = _Seen(stat, words[:-1] if words and not words[-1] else words, _program(pid, stat, root),
                               os.stat(f"{root}/{pid}").st_uid)
        except (OSError, ValueError):   # it has ended, or is hidden
            continue
    return found


def _program(pid, stat, root):
    try:
        return find.base_name(os.fsdecode(os.readlink(f"{root}/{pid}/exe")))
    except OSError:
        return stat.name


class _Roles:
    """One look at all processes."""

    def __init__(self, seen, root):
        self._seen, self._root = seen, root
        self._listening = {}
        self._found = {}

    def members(self):
        for pid, each in self._seen.items():
            role = self._role(pid, each)
            if role is not None:
                self._found[pid] = role
        # whatever else a server has started
        children = {}
        for pid, each in self._seen.items():
            children.setdefault(each.stat.parent, []).append(pid)
        left = [pid for pid, (role, _, _) in self._found.items() if role not in (PYTHON, COLLECTOR)]
        while left:
            of = left.pop()
            for pid in children.get(of, ()):
                if pid not in self._found or self._found[pid][0] == PYTHON:
                    self._found[pid] = (HELPER, self._found[of][1], self._found[of][2])
                    left.append(pid)
        return [self._member(pid, *self._found[pid]) for pid in sorted(self._found)]

    def _member(self, pid, role, group, server):
        stat, words, program, uid = self._seen[pid]
        command = b" ".join(words).decode("utf-8", "replace").strip() or f"[{stat.name}]"
        title = words[0].rstrip(b" ").decode("utf-8", "replace") if role == DAEMON and words else ""
        return Member(pid, stat.parent, stat.start, role, group, server, stat.name, command, title, uid, stat.state, stat.threads,
                      stat.cpu_ticks, stat.rss_pages * _PAGE)

    def _role(self, pid, each):
        """(role, group, server) of a process by itself and its parent, or None."""
        text = [word.decode("utf-8", "replace") for word in each.words[:64]]
        if find.is_apache(each.program) or each.words and find.is_titled(each.words[0]):
            return self._apache(pid, each, text)
        if each.program.startswith("uwsgi"):
            return self._forked(pid, each, "uwsgi", "")
        titled = _GUNICORN_TITLE.match(text[0]) if text else None
        if titled:
            return (MASTER if titled.group(1) == "master" else WORKER), titled.group(2), "gunicorn"
        if find.is_python(each.program) or each.program == "gunicorn":      # its name, for who may not see its program
            if any(_OURS.search(word) for word in text[:4]) or text[1:3] == ["-m", "modwsgi_tel"]:
                return COLLECTOR, "", "python"
            if any(word.endswith("/gunicorn") or word == "gunicorn" for word in text[:4]):
                return self._forked(pid, each, "gunicorn", _application(text))
            return (WORKER if self._listens(pid) else PYTHON), "", "python"
        return None

    def _apache(self, pid, each, text):
        if each.words and find.is_titled(each.words[0]):        # its Apache may have died
            return DAEMON, _group(find.group_of(each.words[0]), self._uids(each)), "apache"
        parent = self._seen.get(each.stat.parent)
        if parent is None or not find.is_apache(parent.program):
            return PARENT, "", "apache"
        first, above = each.words[:1], parent.words[:1]
        if first and above and first[0].rstrip(b" ") != above[0].rstrip(b" ") and not above[0].startswith(first[0].rstrip(b" ")):
            return DAEMON, _group(text[0].rstrip(" "), self._uids(each)), "apache"       # display-name= said what it says
        # one that starts or stops may listen nowhere: that is a child
        return (DAEMON if self._listens(pid, ("unix",)) else CHILD), "", "apache"

    def _uids(self, each):
        """Of a process and its parent: mod_wsgi-express shows the user that has run it, and the daemons may have another."""
        return {each.uid, *(parent.uid for parent in [self._seen.get(each.stat.parent)] if parent is not None)}

    def _forked(self, pid, each, server, group):
        """A master has no parent of its kind; one without children serves itself."""
        parent = self._seen.get(each.stat.parent)
        if parent is not None and parent.words == each.words and parent.program == each.program:
            return WORKER, group, server
        alike = any(other.stat.parent == pid and other.words == each.words for other in self._seen.values())
        return (MASTER if alike or server == "gunicorn" else WORKER), group, server

    def _listens(self, pid, tables=("tcp", "tcp6")):
        """Whether a process has a socket of these tables that listens; None where its descriptors may not be read."""
        folder = f"{self._root}/{pid}/fd"
        try:
            names = os.listdir(folder)[:_DESCRIPTORS_MOST]
        except OSError:
            return None
        try:
            # of another network namespace, as a container's, there are other sockets; the same file means the same one
            table = os.stat(f"{self._root}/{pid}/net/{tables[0]}")
        except OSError:
            return None
        key = table.st_dev, table.st_ino, tables
        if key not in self._listening:
            self._listening[key] = _listening(pid, tables, self._root)
        for name in names:
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if target in self._listening[key]:
                return True
        return False


def _listening(pid, tables, root):
    """What the descriptors of listening sockets link to, of a process's network namespace.

    Source: proc(5), /proc/net/tcp; net/unix/af_unix.c, unix_seq_show.
    """
    found = set()
    for name in 2 * tables:             # what comes and goes while a table is read may make the kernel leave others out
        try:
            lines = procfs.read(f"{root}/{pid}/net/{name}", _SOCKETS_MOST).splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if name == "unix":
                inode = words[6] if len(words) > 6 and words[3] == _ACCEPTS else None
            else:
                inode = words[9] if len(words) > 9 and words[3] == _LISTEN else None
            if inode is not None:
                found.add(f"socket:[{inode.decode('ascii', 'replace')}]")
    return found


def _group(shown, uids):
    """A group's name, of what its processes show: mod_wsgi-express shows HOST:PORT:UID for the group HOST:PORT."""
    found = _EXPRESS.fullmatch(shown)
    return found.group(1) if found and found.group(2) in map(str, uids) else shown


def _application(words):
    """What gunicorn's command line says that it serves: its last argument, where that looks like a module."""
    last = words[-1] if words else ""
    return last if not last.startswith("-") and _APPLICATION.fullmatch(last) and not last.endswith("gunicorn") else ""
