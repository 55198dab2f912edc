"""Source lines of a process's files, as that process sees its file system.  Only regular files, each read once."""
import codecs
import io
import itertools
import os
import re
import stat
from collections import namedtuple

FILE_MOST = 4_000_000                   # bytes of one file
FILES_MOST = 64                         # files that are kept; further ones are not looked at
BYTES_MOST = 32_000_000                 # of all files that are kept
LINE_MOST = 200                         # letters of a line
_LINKS_MOST = 40                        # symbolic links on the way to one file, as the kernel has it
_PARTS_MOST = 256                       # folders on the way
_NEWER_S = 2.0                          # a start in clock ticks, set against a clock that is being corrected
# PEP 263; the first group is empty for a line that is no comment
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLANK = re.compile(rb"^[ \t\f]*(?:#.*)?$")
_SEARCH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_NOTHING = (b"", "utf-8", None)         # (the file's bytes, its encoding, its mtime)
_READ, _SEARCH_IN = 4, 1                # bits of a mode

Rights = namedtuple("Rights", "uid gids")
Rights.__doc__ = """Who may read a file, by its mode.  uid: None for nobody in particular, who may what all may.  gids: a set."""


class Sources:
    """Source lines by file and number.

    root: the folder that the target has as its root, as /proc/PID/root; every link on the way is
    taken as the target takes it, and none leads out of it.  cwd: the folder that relative names
    start at, as /proc/PID/cwd, or None.  started: wall seconds of the process's start, or None.
    who: the target's Rights: it names the files, so that root must not show what it could not
    read itself; None where it is the reader who names them.
    A file on a file system that hangs makes the reader hang: who cannot have that reads in a helper.
    """

    def __init__(self, root="/", cwd=None, started=None, who=None):
        self._started = started
        self._who = who
        self._files = {}                # name -> (bytes, encoding, mtime)
        self._bytes = 0
        self._root = _opened(root)
        self._cwd = None if cwd is None or self._root is None else self._place_of(root, cwd)

    def close(self):
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def line(self, file, number):
        """The source line without its indentation, LINE_MOST letters at most; None when it cannot be had."""
        if not number or number < 1:
            return None
        data, encoding, _ = self._file(file)
        found = next(itertools.islice(io.BytesIO(data), number - 1, number), None)
        if found is None:
            return None
        return found[:4 * LINE_MOST].decode(encoding, "replace").strip()[:LINE_MOST] or None

    def content(self, file):
        """The bytes of a file, with a line end of one byte each; b"" when it cannot be had."""
        return self._file(file)[0]

    def changed(self, file):
        """Whether a file was written after the process started: its lines may be others than those that run."""
        mtime = self._file(file)[2]
        return mtime is not None and self._started is not None and mtime > self._started + _NEWER_S

    def _file(self, name):
        if name not in self._files:
            if len(self._files) >= FILES_MOST:
                return _NOTHING
            self._files[name] = self._read(name)
        return self._files[name]

    def _read(self, name):
        if not name or name.startswith("<") and name.endswith(">") or self._root is None:
            return _NOTHING             # <string>, <frozen importlib._bootstrap>
        parts = name.split("/")
        if parts[0]:
            if self._cwd is None:
                return _NOTHING
            parts = [*self._cwd, *parts]
        try:
            descriptor, _ = _walk(self._root, parts, self._who)
        except (OSError, ValueError):   # ValueError: a NUL, or letters that no file's name has
            return _NOTHING
        try:
            # what it is comes first: to open a device or a FIFO can be an act
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not _may(self._who, _READ, status):
                return _NOTHING
            data = b""
            if 0 < status.st_size <= min(FILE_MOST, BYTES_MOST - self._bytes):
                with open(f"/proc/self/fd/{descriptor}", "rb", buffering=0, opener=_calmly) as handle:
                    data = handle.read(FILE_MOST) or b""
        except OSError:
            return _NOTHING
        finally:
            os.close(descriptor)
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._bytes += len(data)
        return data, _encoding(data), status.st_mtime

    def _place_of(self, root, cwd):
        """The parts of the path from the root to `cwd`; None when there is no way."""
        inside, top = _link(cwd), _link(root).rstrip("/")
        if inside.startswith(top + "/") or inside == top:
            inside = inside[len(top):]  # the root of a chroot is named as well
        try:
            wanted = os.stat(cwd)
            descriptor, parts = _walk(self._root, inside.split("/"), self._who)
        except (OSError, ValueError):
            return None
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # a folder that is gone, or another one of that name: a name alone proves nothing
        return parts if os.path.samestat(found, wanted) and stat.S_ISDIR(found.st_mode) else None


def _link(path):
    """Where a link leads to, as text; the path itself when it is none."""
    try:
        return os.readlink(path)
    except OSError:
        return path


def _opened(folder):
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _calmly(path, flags):
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _may(who, bit, status):
    """Whether somebody (Rights; None: anybody) may do what a bit of the mode says.  status: of the file or folder."""
    if who is None or who.uid == 0:
        return True
    return bool(status.st_mode >> (6 if status.st_uid == who.uid else 3 if status.st_gid in who.gids else 0) & bit)


def _walk(root, parts, who):
    """(descriptor, names) of what a path leads to, from the folder `root`; names: the way there without links.

    One part at a time, so that a link or `..` is resolved below the root, whatever it says.
    Raises OSError or ValueError; PermissionError for a folder that `who` may not search.
    """
    if not _may(who, _SEARCH_IN, os.fstat(root)):
        raise PermissionError
    left, names, links = list(reversed(parts)), [], 0
    ways = [os.dup(root)]
    try:
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(ways) > 1:
                    os.close(ways.pop())
                    names.pop()
                continue
            if len(ways) > _PARTS_MOST or len(left) > 4 * _PARTS_MOST:
                raise ValueError("too long a way")
            found = os.open(part, _SEARCH, dir_fd=ways[-1])
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                ways.append(found)
                names.append(part)
                if stat.S_ISDIR(status.st_mode) and not _may(who, _SEARCH_IN, status):
                    raise PermissionError
                continue
            os.close(found)
            links += 1
            if links > _LINKS_MOST:
                raise ValueError("too many links")
            to = os.readlink(part, dir_fd=ways[-1])
            if to.startswith("/"):
                while len(ways) > 1:
                    os.close(ways.pop())
                names.clear()
            left.extend(reversed(to.split("/")))
        return ways.pop(), names
    finally:
        for descriptor in ways:
            os.close(descriptor)


def _encoding(data):
    """The encoding that a source file names in its first two lines (PEP 263); UTF-8 for none and for an unknown one."""
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    head = data[:4096].split(b"\n", 2)[:2]
    for line in head:
        found = _COOKIE.match(line)
        if found:
            name = found.group(1).decode("ascii", "replace")
            try:
                known = codecs.lookup(name)
                # what is no text (zip, hex), and what takes longer the longer a line is
                return name if known._is_text_encoding and known.name not in ("punycode", "idna") else "utf-8"
            except (LookupError, ValueError):
                return "utf-8"
        if not _BLANK.match(line):
            break
    return "utf-8"
