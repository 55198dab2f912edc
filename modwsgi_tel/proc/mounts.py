"""The mounts of a process, and whether a file system may hang because another machine or program does."""
import os
import re
from collections import namedtuple

Mount = namedtuple("Mount", "id point type writable")
Mount.__doc__ = """id: as in /proc/PID/fdinfo.  point: text.  type: as "ext4".  writable: False where it is mounted read-only."""

# Those that wait for a device of this machine at most; any other may be of the network, or of a program (FUSE).
_LOCAL = frozenset("bcachefs btrfs devtmpfs erofs exfat ext2 ext3 ext4 f2fs iso9660 jfs nilfs2 ntfs3 overlay ramfs reiserfs rootfs "
                   "squashfs tmpfs udf ufs vfat xfs zfs".split())
_MOST = 4096
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def parse(text):
    """[Mount] of a /proc/PID/mountinfo, in the order of mounting; lines that are none are left out.  Source: proc(5)."""
    found = []
    for line in text.split(b"\n")[:_MOST]:
        before, _, after = line.partition(b" - ")
        words, rest = before.split(), after.split()
        if len(words) >= 6 and rest and words[0].isdigit():
            options = words[5].split(b",") + (rest[2].split(b",") if len(rest) > 2 else [])
            found.append(Mount(int(words[0]), _path(words[4]), rest[0].decode("ascii", "replace"), b"ro" not in options))
    return found


def of_path(path, mounts):
    """The Mount that an absolute path is on, without looking at the path; None where no mount covers it."""
    best = None
    for each in mounts if path.startswith("/") else ():     # a later mount covers an earlier one
        point = each.point.rstrip("/")
        if (path == point or path.startswith(point + "/")) and (best is None or len(point) >= len(best.point.rstrip("/"))):
            best = each
    return best


def is_local(kind):
    """Whether asking a file system of this type cannot hang for the sake of others."""
    return kind in _LOCAL


def _path(word):
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found.group(1), 8) & 255]), word))
