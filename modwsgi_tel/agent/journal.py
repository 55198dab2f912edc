"""What no collector took, as text: to stderr, which is the server's error log, or to a file of its own.

Bounded: so many entries a minute, the others are counted and told with the next; a file is rotated at a size, mode 0600.
"""
import os
import sys
import time

ENTRIES_A_MINUTE = 60
FILE_BYTES = 10 << 20                   # then it becomes NAME.1
SHOWN_FRAMES = 60                       # of a stack: the outermost and the innermost half


class Journal:
    """where: "stderr", "off" or the path of a file."""

    def __init__(self, where):
        self._where = where
        self._minute, self._entries = 0, 0
        self.written = self.lost = 0

    def missed(self):
        """Something was told to nobody."""
        self.lost += 1

    def request(self, request, now, state):
        """A long request: that it runs, with its newest stack, or that it has ended."""
        if self._where == "off":
            return
        watch = request.watch
        shown = f"{request.method} {request.path}".strip() or "a request"
        took = f"{request.duration_s(now):.1f} s"
        notes = "".join(f", {name}={text}" for name, text in list((request.annotations or {}).items()))
        if state:
            ended = f", by {request.error}" if request.error else ""
            self.text(f"request {request.log_id} {shown} ended after {took}{ended}{notes}", ())
        elif watch is not None and watch.newest is not None:
            stack, watch.newest = watch.newest, None
            waits = f", waits for {watch.waits}" if watch.waits else ""
            self.text(f"request {request.log_id} {shown} has run for {took}{waits}{notes}: stack {watch.taken}, outermost first",
                      lines(stack.frames, stack.left_out, stack.cut_at))

    def text(self, head, rest):
        """An entry: one line, and indented ones."""
        minute = int(time.time() // 60)
        if minute != self._minute:
            self._minute, self._entries = minute, 0
        self._entries += 1
        if self._entries > ENTRIES_A_MINUTE or self._where == "off":
            self.lost += 1
            return
        told = f" ({self.lost} entries were lost before)" if self.lost and self._entries == 1 else ""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        shown = [f"{stamp} modwsgi-tel agent pid {os.getpid()}: {head}{told}", *("    " + each for each in rest)]
        text = "".join(_printable(line) + "\n" for line in shown)
        try:
            if self._where == "stderr":
                if sys.stderr is not None:
                    sys.stderr.write(text)
                    sys.stderr.flush()
            else:
                self._append(text.encode("utf-8", "replace"))
        except (OSError, ValueError) as error:      # a full disk; a stream that was closed
            self.lost += 1
            if self._where != "stderr":
                path, self._where = self._where, "stderr"
                self.text(f"cannot write {path}: {getattr(error, 'strerror', None) or error}: what comes is written here", ())
                self.text(head, rest)
            return
        self.written += 1

    def _append(self, data):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        out = os.open(self._where, flags, 0o600)
        try:
            if os.fstat(out).st_size > FILE_BYTES:
                os.close(out)
                out = -1
                os.replace(self._where, self._where + ".1")
                out = os.open(self._where, flags, 0o600)
            os.write(out, data)
        finally:
            if out >= 0:
                os.close(out)


def lines(frames, left_out=0, cut_at=0):
    """Frames as lines of text, outermost first."""
    shown = [f"{file}:{line or '?'} {function}" for function, file, line in frames]
    if left_out:
        shown.insert(cut_at, f"... {left_out} frames were left out ...")
    half = SHOWN_FRAMES // 2
    if len(shown) > SHOWN_FRAMES:
        shown = [*shown[:half], f"... {len(shown) - SHOWN_FRAMES} lines ...", *shown[-half:]]
    return shown


def _printable(line):
    return "".join(letter if letter.isprintable() else "?" for letter in line)
