"""serve --textfile: the metrics in a file, for node_exporter's textfile collector.

The text is made in the loop, a piece a turn, and written by a helper process: a disk that hangs costs a write, never a datagram.
The file is there whole or as it was before.  It stays when the collector ends; how old it is, node_exporter tells as
node_textfile_mtime_seconds.
"""
import os
import re
import time

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net.helper import Helper
from modwsgi_tel.openmetrics.text import exposition
from modwsgi_tel.report.whole import check_writable, write_whole

ENDING = ".prom"                        # node_exporter reads no others
TURN_S = 0.001
LEFTOVER_S = 60.0                       # what a helper left that was killed is removed when it is so old


class Textfile:
    """Writes what `source()` has to `path`, which check_textfile has seen, each `interval_s`.

    writes, failures: how often it did and did not.  trouble: why not the last time, or "".
    """

    def __init__(self, loop, log, path, interval_s, source):
        self.path = os.path.abspath(path)
        self.writes = self.failures = 0
        self.trouble = ""
        self._loop, self._log, self._source = loop, log, source
        self._helper = Helper(loop)
        self._pieces, self._made = None, []
        loop.after(0.0, self._begin)
        loop.every(interval_s, self._begin)

    def _begin(self):
        if self._pieces is None and not self._helper.busy:
            self._pieces, self._made = exposition(self._source()), []
            self._go_on()
        elif self._pieces is None and self.trouble:
            self.failures += 1          # helpers that a dead disk does not let go

    def _go_on(self):
        until = self._loop.clock() + TURN_S
        try:
            for piece in self._pieces:
                self._made.append(piece)
                if self._loop.clock() >= until:
                    self._loop.after(0.0, self._go_on)
                    return
        except Exception as error:      # metrics that fail must not end the collector
            self._pieces = None
            self._written(f"--textfile {self.path}: the metrics could not be made: {error!r}")
            return
        text, self._pieces, self._made = b"".join(self._made).decode(), None, []
        self._helper.ask(_write, (self.path, text), self._written)

    def _written(self, answer):
        before, self.trouble = self.trouble, f"--textfile {self.path}: the disk takes too long" if answer is None else answer
        if not self.trouble:
            self.writes += 1
            if before:
                self._log.info(f"--textfile {self.path}: is written again")
            return
        self.failures += 1
        if self.trouble != before:
            self._log.error(self.trouble)

    def view(self):
        return {"file": self.path, "writes": self.writes, "failures": self.failures, "trouble": self.trouble or None}

    def close(self):
        self._helper.close()


def check_textfile(path):
    """Raises TelError when a Textfile could not write there, as far as that can be known before."""
    if not path.endswith(ENDING):
        raise UsageError(f"--textfile {path}: its name must end in {ENDING}, else node_exporter does not read it")
    check_writable(path, "--textfile")


def _write(wanted):
    """In a helper: write the file; what is wrong, or ""."""
    path, text = wanted
    os.umask(0o022)                     # node_exporter is another user
    try:
        write_whole(path, text, "--textfile")
        _tidy(path)
    except TelError as error:
        return str(error)
    return ""


def _tidy(path):
    folder, name = os.path.split(path)
    leftover = re.compile(re.escape(name) + r"\.\d+\.tmp")
    try:
        for entry in os.scandir(folder):
            if leftover.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_S:
                os.unlink(entry.path)
    except OSError:
        pass                            # of another user, or gone already
