"""--record: every datagram in order of arrival, packed into blocks that go to the Writer."""
from modwsgi_tel.net.writer import RECORD
from modwsgi_tel.wire import blocks

_BLOCK_BYTES = 64 << 10


class Recorder:
    """Collects raw records; a block goes out when it is full, and when `flush` is called."""

    def __init__(self, writer):
        self.records = 0
        self._writer = writer
        self._tail = bytearray()

    def take(self, datagram, pid, wall):
        self._tail += blocks.record(wall, pid, datagram)
        self.records += 1
        if len(self._tail) >= _BLOCK_BYTES:
            self.flush()

    def flush(self):
        if self._tail:
            self._writer.send(RECORD, blocks.pack(self._tail))
            self._tail = bytearray()
