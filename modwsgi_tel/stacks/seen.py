"""What one look at a process has for its locks: threads, what their frames keep, and the source of their files, read once each."""
import re
from collections import namedtuple

from modwsgi_tel.stacks.model import is_whole
from modwsgi_tel.stacks.spans import FILE_MOST, Spans

THREADS_MOST = 512
FRAMES_MOST = 64                        # innermost frames of a thread in which a lock that it has is looked for
FILES_MOST, BYTES_MOST = 64, 2 << 20    # that are parsed
# Python's own, without what is installed into it
LIBRARY = re.compile(r"^<frozen |/lib(?:64)?/python3(?:\.\d+|\d+)(?:\.zip)?/(?!(?:.*/)?(?:site|dist)-packages/)")

Kept = namedtuple("Kept", "role lock address")
Kept.__doc__ = "On a frame's own stack.  role: held.EXIT, ENTER or PLAIN.  lock: held.Lock or None.  address: of the object."


class Seen:
    """threads: ThreadStacks that were read whole.  held: held.Held, or None where memory cannot be read.  sources: or None."""

    def __init__(self, stacks, sources, held):
        self.pid, self.held, self.sources = stacks.pid, held, sources
        self.threads = [each for each in stacks.threads if is_whole(each) and each.frames][:THREADS_MOST]
        self.parsed_bytes = 0
        self._spans, self._raws, self._kept = {}, {}, {}

    def raws(self, thread):
        """The raw frames of a thread, one for each of its Frames; [] where these are not known."""
        if thread.tid not in self._raws:
            found = self.held.frames(thread.tid) if self.held is not None else []
            self._raws[thread.tid] = found if len(found) == len(thread.frames) else []
        return self._raws[thread.tid]

    def kept(self, raw):
        """[Kept] of a raw frame's own stack, the lowest first."""
        if raw not in self._kept:
            self._kept[raw] = [Kept(role, self.held.lock(address), address) for role, address in self.held.stack(raw)]
        return self._kept[raw]

    def place_of(self, tid):
        """Where a thread is, as "file:line", outside of Python's own library if it is at all; None for one that is not known."""
        frames = next((each.frames for each in self.threads if each.tid == tid), ())
        return where(next((each for each in frames if not LIBRARY.search(each.file)), frames[0])) if frames else None

    def line(self, frame):
        """The source line of a frame, or ""."""
        return self.sources is not None and self.sources.line(frame.file, frame.line) or ""

    def content(self, file):
        return self.sources.content(file) if self.sources is not None else b""

    def spans(self, file):
        """The Spans of a file; empty for one that was written after the process started, and beyond the bounds."""
        if file not in self._spans:
            data = self.content(file) if len(self._spans) < FILES_MOST else b""
            if len(data) > FILE_MOST or self.parsed_bytes + len(data) > BYTES_MOST or data and self.sources.changed(file):
                data = b""
            self.parsed_bytes += len(data)
            self._spans[file] = Spans(data)
        return self._spans[file]


def short_name(frame):
    """A Frame's function, without what it is in."""
    return frame.function.rpartition(".")[2]


def where(frame):
    """A Frame's place, as "file:line"."""
    return f"{frame.file}:{frame.line}"


def in_threading(frame):
    return frame.file.endswith("/threading.py")
