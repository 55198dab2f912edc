"""The telemetry socket: bound safely, drained quickly, removed when it is still ours."""
import errno
import os
import socket
import stat
import time

from modwsgi_tel.errors import TelError, UsageError

LONGEST_PATH = 107                      # bytes of sun_path, its final NUL left out
BUFFER = 1 << 16                        # bytes of a datagram: eight times what mod_wsgi sends at most
_CREDENTIALS = 12                       # bytes of struct ucred
_NOBODY = b"\0\0\0\0" + b"\xff" * 8


def unix_path(address, flag="--listen"):
    """The path of `unix:/path` (or of a plain path); raises UsageError for anything else."""
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if colon and scheme in ("udp", "tcp", "http", "https"):
        raise UsageError(f"{flag} {address}: {scheme} is not possible: mod_wsgi's datagrams are told apart by the "
                         "kernel's credentials, which only a unix socket carries; use unix:/path")
    path = rest if colon and scheme == "unix" else address
    if not path:
        raise UsageError(f"{flag} {address}: no path; use unix:/path")
    if "\0" in path:
        raise UsageError(f"{flag}: a path with a NUL in it")
    size = len(os.fsencode(path))
    if size > LONGEST_PATH:
        raise UsageError(f"{flag} {path}: {size} bytes, a unix socket's path has at most {LONGEST_PATH}; choose a shorter "
                         "one, as unix:/run/modwsgi-tel.sock")
    return path


def group_id(name):
    """The gid of a group's name or number; raises UsageError when there is none."""
    if name.isascii() and name.isdigit() and len(name) <= 10 and int(name) < 0xFFFFFFFF:     # that one means "leave it"
        return int(name)
    import grp                          # not every start needs it
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise UsageError(f"--socket-group {name}: no such group; getent group lists them") from None


def may_bind(path, type_=socket.SOCK_DGRAM):
    """Look at what is at the path: None when nothing is, its (dev, ino, ctime) when it is a dead socket.

    Raises TelError, saying what to do, for everything that must not be touched.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path) or "."
        if not os.path.isdir(parent):
            raise TelError(f"cannot bind {path}: there is no folder {parent}; create it first") from None
        if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
            raise TelError(f"cannot bind {path}: Permission denied; the folder is not writable for this user") from None
        return None
    except OSError as error:
        raise TelError(f"cannot bind {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        what = ("a symbolic link" if stat.S_ISLNK(found.st_mode) else "a folder" if stat.S_ISDIR(found.st_mode) else
                "a regular file" if stat.S_ISREG(found.st_mode) else "no socket")
        raise TelError(f"cannot bind {path}: it is {what}, which is left alone; choose another path")
    with socket.socket(socket.AF_UNIX, type_) as probe:
        probe.setblocking(False)        # the full backlog of a live server must not hold us
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return _which(found)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.EPROTOTYPE, errno.EAGAIN):
                raise TelError(f"cannot bind {path}: a socket is there and cannot be asked whether it lives: "
                               f"{error.strerror}") from None
    raise TelError(f"cannot bind {path}: another process listens there; stop it first, or choose another path")


def _which(status):
    """What tells a file from any other; the inode number alone may soon belong to the next one."""
    return status.st_dev, status.st_ino, status.st_ctime_ns


class BoundPath:
    """A unix socket bound to a path with a mode and group that hold before anyone can connect."""

    def __init__(self, path, mode, group=None, type_=socket.SOCK_DGRAM):
        """Raises TelError in one line; a dead socket at the path is taken over, nothing else is touched.

        `own` is then (dev, ino) of the path.
        """
        self.path = path
        dead = may_bind(path, type_)
        self.socket = socket.socket(socket.AF_UNIX, type_)
        self.own = None
        try:
            self.socket.setblocking(False)
            if type_ == socket.SOCK_DGRAM:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if dead is not None:
                if _which(os.lstat(path)) == dead:
                    os.unlink(path)
            before = os.umask(0o777)    # until mode and group are set nobody may connect
            try:
                self.socket.bind(path)
            finally:
                os.umask(before)
            self._give(mode, group)
        except OSError as error:
            self.close()
            hint = {errno.EACCES: "; the folder is not writable for this user", errno.EADDRINUSE: "; it has just been taken",
                    errno.EPERM: "; only root, or a member, may give it to that group"}.get(error.errno, "")
            raise TelError(f"cannot bind {path}: {error.strerror}{hint}") from None

    def _give(self, mode, group):
        """Set group and mode through a handle: whoever may write to the folder could put a link in the path's place."""
        handle = os.open(self.path, os.O_PATH | os.O_NOFOLLOW)
        try:
            made = os.fstat(handle)
            if not stat.S_ISSOCK(made.st_mode):
                raise OSError(errno.EADDRINUSE, "something else was put there")
            self.own = (made.st_dev, made.st_ino)
            place = f"/proc/self/fd/{handle}"
            if not os.path.exists(place):
                place = self.path       # no /proc here
            if group is not None:
                os.chown(place, -1, group)
            os.chmod(place, mode)
        finally:
            os.close(handle)

    def close(self):
        """Close, and remove the path when it is still the one that was bound."""
        if self.own is not None:
            try:
                now = os.lstat(self.path)
                if (now.st_dev, now.st_ino) == self.own:
                    os.unlink(self.path)
            except OSError:
                pass                    # gone, or no longer ours to remove
            self.own = None
        self.socket.close()


class Receiver:
    """Drains the telemetry socket into `take(datagram, sender, now, wall)`.

    `sender` is the kernel's struct ucred; `too_long(datagram, sender, wall)` gets what did not
    fit the buffer.  A turn takes at most `most` datagrams, so that HTTP has its turn in a flood.
    """

    def __init__(self, bound, take, too_long, most=128):
        self.bound = bound
        self._recv = bound.socket.recvmsg_into
        self._take = take
        self._too_long = too_long
        self._most = most
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._space = socket.CMSG_SPACE(_CREDENTIALS)

    def drain(self, clock=time.monotonic, wall_clock=time.time):
        """Read what is there; True when there may be more."""
        recv, buffers, view, space, take = self._recv, [self._buffer], self._view, self._space, self._take
        now = clock()                   # one for all that a turn finds
        for _ in range(self._most):
            try:
                size, ancillary, flags, _ = recv(buffers, space)
            except BlockingIOError:
                return False
            except ConnectionError:
                continue
            # the kernel puts the credentials first; there is no room for descriptors that a sender may add
            sender = ancillary[0][2] if ancillary else _NOBODY
            if flags & socket.MSG_TRUNC:
                self._too_long(bytes(view[:64]), sender, wall_clock())
            else:
                take(bytes(view[:size]), sender, now, wall_clock())
        return True
