"""What is at a socket's path, as another process sees it, and who may get there.  Nothing is sent.

    place = look("/run/modwsgi-tel.sock", pid)
    refusal(place, sender)
"""
import errno
import grp
import os
import pwd
import socket
import stat

from modwsgi_tel.apache.logfiles import reach
from modwsgi_tel.doctor.scene import Folder, Place
from modwsgi_tel.proc import sockdiag, sockets

_SEEK_S = 0.3                           # in search of who has a socket
_DEEP = 64                              # folders above a socket, at most


def can_reach(pid, root="/proc"):
    """Whether this process may see the files of that one as it sees them."""
    try:
        os.stat(os.path.join(root, str(pid), "root", ""))
    except OSError:
        return False
    return True


def look(path, pid="self", root="/proc"):
    """The Place of an absolute path as a process sees it; as this one does, where that is not allowed."""
    blank = Place("absent", None, [], None, None, None, False, [])
    if "\0" in path:                    # no path of any file
        return blank._replace(state="unknown")
    blank = blank._replace(folders=_folders(path, pid, root))
    try:
        handle = os.open(reach(pid, path, root), os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return blank._replace(state={errno.ENOENT: "absent", errno.ENOTDIR: "absent", errno.EACCES: "denied"}.get(error.errno, "unknown"))
    try:
        seen = os.fstat(handle)
        found = blank._replace(mode=stat.S_IMODE(seen.st_mode), uid=seen.st_uid, gid=seen.st_gid, acl=_has_acl(f"/proc/self/fd/{handle}"))
        if not stat.S_ISSOCK(seen.st_mode):
            return found._replace(state="file")
        state, inode = _asked(f"{root}/self/fd/{handle}")
    finally:
        os.close(handle)
    pids = sockets.holders({inode}, root, _SEEK_S).get(inode, []) if inode else []
    return found._replace(state=state, inode=inode, pids=pids)


def _asked(path):
    """(state, inode of the socket that a send would reach or None) of a socket's file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return {errno.ECONNREFUSED: "dead", errno.ENOENT: "absent", errno.EACCES: "denied", errno.EPERM: "denied",
                    errno.EPROTOTYPE: "stream"}.get(error.errno, "unknown"), None
        try:
            own = sockdiag.unix().get(os.fstat(probe.fileno()).st_ino)
        except OSError:
            own = None
        return "listens", own.peer if own else None


def answers(path):
    """Of a unix stream socket: "listens", "denied" where this user may not ask, or why nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:         # its queue is full
            pass
        except PermissionError:
            return "denied"
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)
    return "listens"


def _folders(path, pid, root):
    """[Folder] above a path, of where its links lead too."""
    inside = f"{root}/{pid}/root"
    real = reach(pid, path, root)
    real = real[len(inside):] if real.startswith(inside + "/") else real
    found = {}
    for each in (path, real):
        above, parts = os.path.dirname(os.path.normpath(each)), []
        while len(parts) < _DEEP:
            parts.append(above)
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)
        for folder in reversed(parts):
            if folder not in found:
                found[folder] = _folder(folder, reach(pid, folder, root))
            if found[folder].mode is None:
                break
    return list(found.values())


def _folder(path, place):
    try:
        seen = os.stat(place)
    except OSError:
        return Folder(path, None, None, None, False)
    return Folder(path, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, _has_acl(place))


def _has_acl(path):
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


# --- who may -------------------------------------------------------------------------------------

def allows(seen, uid, gids, wanted):
    """Whether the mode of a Folder or Place lets this user do it: True, False; None where a list of its own decides.  wanted: bits as 2
    (write), 1 (search)."""
    if seen.uid == uid:
        return bool(seen.mode >> 6 & wanted)
    if seen.acl:
        return None
    return bool(seen.mode >> 3 & wanted) if seen.gid in gids else bool(seen.mode & wanted)


def refusal(place, sender):
    """What on the way to a Place stops a Sender: (Folder or Place, True), (it, None) where that cannot be told, else None."""
    if sender.mighty:
        return None
    doubt = None
    for seen, wanted in (*((folder, 1) for folder in place.folders), (place, 2)):
        if seen.mode is None:
            break
        allowed = allows(seen, sender.uid, sender.gids, wanted)
        if allowed is False:
            return seen, True
        if allowed is None and doubt is None:
            doubt = seen, None
    return doubt


def user_name(uid):
    """A user's name, or the number as text."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
