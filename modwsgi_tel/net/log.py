"""Log lines: to stderr, or through the Writer to a file.  A reader that hangs loses lines, never our time."""
import os
import select
import time

from modwsgi_tel.net.writer import LOG
from modwsgi_tel.printable import printable

_LONGEST = 4000                         # bytes of a line: less than PIPE_BUF, which a writable pipe takes at once
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def _not_blocking(descriptor):
    """A terminal that somebody has stopped may take part of a line and block: a description of our own does not."""
    try:
        if os.isatty(descriptor):
            return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        pass                            # not ours to open
    return descriptor


class Log:
    """`log.info("...")` and so on; `lost` counts lines that could not be written."""

    def __init__(self, level, writer=None, descriptor=2, clock=time.time):
        self.lost = 0
        self._level = LEVELS[level]
        self._writer = writer
        self._descriptor = descriptor if writer is not None else _not_blocking(descriptor)
        self._clock = clock
        self._last = {}

    def __call__(self, level, line):
        if LEVELS[level] < self._level:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._clock()))
        data = f"{stamp} {level} {printable(line)}".encode("utf-8", "replace")[:_LONGEST - 1] + b"\n"
        if self._writer is not None:
            self._writer.send(LOG, data)
            return
        try:
            if not select.select([], [self._descriptor], [], 0)[1]:
                self.lost += 1
                return
            os.write(self._descriptor, data)
        except (OSError, ValueError):
            self.lost += 1              # stderr is closed, or its reader has gone

    def shows(self, level):
        return LEVELS[level] >= self._level

    def debug(self, line):
        self("DEBUG", line)

    def info(self, line):
        self("INFO", line)

    def warning(self, line):
        self("WARNING", line)

    def error(self, line):
        self("ERROR", line)

    def once_in(self, seconds, key, level, line):
        """The same complaint at most once in so many seconds."""
        now = self._clock()
        if now - self._last.get(key, -1e18) >= seconds:
            self._last[key] = now
            self(level, line)
