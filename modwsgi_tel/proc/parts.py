"""What may be read of one process, part by part: a part that may not be is noted with its reason, and the rest goes on."""
import errno
import os

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs
from modwsgi_tel.proc.access import explain

_GONE = (errno.ENOENT, errno.ESRCH)
_MOST = 65536                       # bytes of a file of which nobody said how long it may be


class Parts:
    """Reads the files of one process.  unknown: {part: one line on why it could not be read}.

    Every call returns None where the part may not be read, and raises TelError when there is no such process (any more).
    """

    def __init__(self, pid, root="/proc"):
        self.pid, self.root, self.folder = pid, root, f"{root}/{pid}"
        self.unknown = {}

    def read(self, part, name, most=_MOST):
        """The bytes of /proc/PID/NAME."""
        return self.attempt(part, name, procfs.read, most)

    def link(self, part, name):
        """Where /proc/PID/NAME leads, as text."""
        return self.attempt(part, name, lambda path: os.fsdecode(os.readlink(path)))

    def attempt(self, part, name, call, *more):
        """call("/proc/PID/NAME", *more); its OSError is what is noted."""
        try:
            return call(f"{self.folder}/{name}", *more)
        except OSError as error:
            self.note(part, name, error)
            return None

    def stat(self):
        """Its /proc/PID/stat as bytes, which everybody may read."""
        try:
            return procfs.read(f"{self.folder}/stat", 4096)
        except OSError as error:
            raise TelError(explain(self.pid, error, self.root)) from None

    def note(self, part, name, error):
        """Say why a part is not known.  Raises TelError when that is because the process has gone."""
        if part in self.unknown:
            return
        if error.errno in _GONE:
            stat = procfs.parse_stat_line(self.stat())
            if stat.state not in "ZXx" and not stat.kernel and error.errno == errno.ENOENT:
                self.unknown[part] = f"this kernel has no /proc/{self.pid}/{name}"
                return
        self.unknown[part] = explain(self.pid, error, self.root)
