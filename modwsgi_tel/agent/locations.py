"""Code locations by number: the text of each (function, file, line) is sent once, and again when a collector came back."""
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import CODE_LOCATIONS

MOST = 10000                            # of one agent; what is beyond has the number 0
NAME_MOST, FILE_MOST = 200, 400         # letters; a file's name keeps its end
_TEXTS_MOST = 6000                      # bytes in one datagram
UNKNOWN = 0


class Locations:
    """Numbers, from 1, for what was told over a Sender."""

    def __init__(self, sender):
        self._sender = sender
        self._numbers = {}              # (function, file, line) -> number
        self._generation = -1
        self.beyond = 0                 # locations beyond MOST

    def numbers(self, frames):
        """Numbers of [(function, file, line or None)], told to the collector before; [] when nobody takes them."""
        sender = self._sender
        if not sender.connect():
            return []
        if sender.generation != self._generation:
            self._numbers.clear()
            self._generation = sender.generation
        known, fresh, out = self._numbers, [], []
        for frame in frames:
            number = known.get(frame)
            if number is None:
                if len(known) >= MOST:
                    self.beyond += 1
                    number = UNKNOWN
                else:
                    number = known[frame] = len(known) + 1
                    fresh.append(frame)
            out.append(number)
        if fresh and not self._tell(fresh, len(known) - len(fresh) + 1):
            self._generation = -1       # the queue is full: all are told anew when there is room
            return []
        return out

    def _tell(self, fresh, first):
        lines, texts, size = [], [], 0
        for function, file, line in fresh:
            text = _text(function[:NAME_MOST]) + b"\0" + _text(file[-FILE_MOST:]) + b"\0"
            if size + len(text) + 4 * len(lines) > _TEXTS_MOST:
                if not self._send(first, lines, texts):
                    return False
                first += len(lines)
                lines, texts, size = [], [], 0
            lines.append(line or 0)
            texts.append(text)
            size += len(text)
        return self._send(first, lines, texts)

    def _send(self, first, lines, texts):
        return self._sender.offer(CODE_LOCATIONS, named(location_first=first, location_lines=lines, location_texts=b"".join(texts)))


def _text(text):
    return text.replace("\0", "?").encode("utf-8", "replace")
