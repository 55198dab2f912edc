"""Which processes to read: those of Python, of Apache, of one mod_wsgi daemon process group, and who descends from them.

Each answer is a sorted list of pids, without our own; TelError where there are none, more than MOST, or no /proc.
"""
import os
import re

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs, threads

MOST = 4096                         # processes in one answer
_MOST_MAPS = 4 << 20                # bytes of one /proc/PID/maps
_MOST_NAMES, _MOST_NAME = 20, 64    # groups that an error names, and their characters

_DELETED = " (deleted)"
_PYTHON = re.compile(r"python[\w.-]*")
_APACHE = re.compile(r"(apache2|httpd)([.-]\w+)?")
_MAPPED = re.compile(rb"/(libpython|mod_wsgi)[^/\n]*\.so[^/\n]*$", re.M)


def maps_python(maps):
    """Whether a /proc/PID/maps shows Python's or mod_wsgi's library."""
    return _MAPPED.search(maps) is not None


def base_name(path):
    """The last part of a program's path as /proc/PID/exe tells it, of a deleted program too."""
    return os.path.basename(path[:-len(_DELETED)] if path.endswith(_DELETED) else path)


def is_python(program):
    """Whether a program's base name is Python's: python3.11, python."""
    return _PYTHON.fullmatch(program) is not None


def is_apache(program):
    return _APACHE.fullmatch(program) is not None


def title(cmdline):
    """(text, cut) of a /proc/PID/cmdline: its first word, and whether it may have been longer.

    mod_wsgi writes a daemon's display name over the first word that Apache was started with: shorter ones are filled up
    with spaces, longer ones are cut.
    """
    first = cmdline.partition(b"\0")[0]
    shown = first.rstrip(b" ")
    return shown.decode("utf-8", "replace"), len(shown) == len(first)


def is_titled(cmdline):
    """Whether a command line is that of a mod_wsgi daemon that shows its group."""
    return cmdline.startswith(b"(wsgi:")


def group_of(cmdline):
    """The group that a daemon's command line shows, maybe cut."""
    shown = title(cmdline)[0][len("(wsgi:"):]
    return shown[:-1] if shown.endswith(")") else shown


def is_of_group(name, cmdline):
    """Whether a command line is that of a daemon of this group.

    Its display name is (wsgi:NAME), mod_wsgi-express makes it (wsgi:HOST:PORT:UID) for the group HOST:PORT, and
    `display-name=` may say anything.  One that is cut is of each group that it could be of.
    """
    shown, cut = title(cmdline)
    whole = f"(wsgi:{name})"
    if shown in (name, whole) or re.fullmatch(re.escape(whole[:-1]) + r":\d+\)", shown):
        return True
    return cut and bool(shown) and (whole.startswith(shown) and len(shown) > len("(wsgi:")
                                    or re.fullmatch(re.escape(whole[:-1]) + r":\d*", shown) is not None)


class _Process:
    """What /proc says of one process, read when it is asked for; None where that may not be read."""

    def __init__(self, pid, root):
        self.pid, self._root = pid, root
        self._folder = f"{root}/{pid}"

    def _read(self, name, most):
        try:
            return procfs.read(f"{self._folder}/{name}", most)
        except OSError:
            return None

    def cmdline(self):
        return self._read("cmdline", 4096) or b""

    def maps(self):
        return self._read("maps", _MOST_MAPS)

    def program(self):
        """The base name of what it runs; where that may not be known, the name that the kernel keeps."""
        try:
            return base_name(os.fsdecode(os.readlink(f"{self._folder}/exe")))
        except OSError:
            return (self._read("comm", 64) or b"").decode("utf-8", "replace").strip()

    def has_ended(self):
        """Whether nothing of it runs any more: a zombie has kept its name."""
        try:
            return procfs.stat(self.pid, self._root).state in "ZXx" and threads.has_ended(self.pid, self._root)
        except (OSError, ValueError):
            return True

    def runs_python(self):
        """True or False; None where the maps may not be read and nothing else tells."""
        if is_python(self.program()) or is_titled(self.cmdline()):
            return True
        maps = self.maps()
        return None if maps is None else maps_python(maps)


def _pids(root):
    """Every pid that /proc shows.  Raises TelError."""
    try:
        found = procfs.pids(root)
    except OSError:
        found = []
    if not found or not procfs.is_visible(root):
        raise TelError("there is no /proc here: mount it (mount -t proc proc /proc)")
    return found


def _processes(root):
    """Every process that /proc shows, but our own.  Raises TelError."""
    return [_Process(pid, root) for pid in _pids(root) if pid != os.getpid()]


def _bounded(found):
    if len(found) > MOST:
        raise TelError(f"{len(found)} processes are more than the {MOST} that can be read at once: name them by pid")
    return found


def _advice(root):
    """What may show more processes, to be put behind an error."""
    how = procfs.hidden(root)
    if how:
        return f"; /proc hides those of others (hidepid={how}): run as root"
    return "; run as root to see into those of others" if os.geteuid() else ""


def pythons(root="/proc"):
    """All that look like Python: by their program's name, or Python's or mod_wsgi's library that is mapped."""
    found = [each.pid for each in _processes(root) if each.runs_python() and not each.has_ended()]
    if not found:
        raise TelError(f"no process of Python was found{_advice(root)}")
    return _bounded(found)


def apache(root="/proc"):
    """Apache's with Python mapped, and mod_wsgi's daemons; where the maps may not be read: all of Apache's."""
    found = [each.pid for each in _processes(root)
             if (is_titled(each.cmdline()) or is_apache(each.program()) and each.runs_python() is not False) and not each.has_ended()]
    if not found:
        raise TelError(f"no process of Apache (apache2, httpd) with Python in it was found{_advice(root)}")
    return _bounded(found)


def group(name, root="/proc"):
    """mod_wsgi's daemons of one process group, by the display name that they show."""
    found, others = [], set()
    for each in _processes(root):
        cmdline = each.cmdline()
        if is_of_group(name, cmdline) and (is_titled(cmdline) or is_apache(each.program())):
            found.append(each.pid)
        elif is_titled(cmdline):
            others.add(group_of(cmdline))
    if found:
        return _bounded(found)
    if others:
        shown = [each[:_MOST_NAME] for each in sorted(others)[:_MOST_NAMES]] + ["..."] * (len(others) > _MOST_NAMES)
        raise TelError(f"no process of group {name}; there are: {', '.join(shown)}")
    raise TelError(f"no process of group {name}: no daemon shows a group; give WSGIDaemonProcess display-name=%{{GROUP}}, "
                   f"or use --apache{_advice(root)}")


def subprocesses(pids, root="/proc"):
    """All that descend from these, without these themselves; [] when none do."""
    children = {}
    for pid in _pids(root):
        try:
            children.setdefault(procfs.stat(pid, root).parent, []).append(pid)
        except (OSError, ValueError):                       # it has ended
            continue
    found, left = set(), list(pids)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in found:
                found.add(child)
                left.append(child)
    return _bounded(sorted(found - {os.getpid(), *pids}))
