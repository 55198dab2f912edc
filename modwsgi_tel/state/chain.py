"""What is kept of a process's datagrams: raw records in blocks, newest last.

A full block is packed, unless all unpacked blocks together are still below a small bound:
so a server with a few processes never pays for packing, and a large one not for memory.
"""
from collections import deque, namedtuple

from modwsgi_tel.wire import blocks

BLOCK_BYTES = 40 << 10                  # a little more than deflate's window; smaller blocks pack worse

Block = namedtuple("Block", "number first counted_first counted last_wall last_now size packed data")
Block.__doc__ = """A full block: its number, the index of its first record among all and among the counted
ones, how many are counted, when the last came (wall and monotonic seconds), how many bytes of
records it has, whether `data` is their gzip member or they themselves."""

Stretch = namedtuple("Stretch", "raw end counted_first")
Stretch.__doc__ = "Records as bytes, where they end, and the index of the first counted one."

Position = namedtuple("Position", "block end counted")
Position.__doc__ = "A place in a chain: the open block's number, a byte offset in it, and the records counted so far."


class Budget:
    """Bytes that all chains together hold; of these, at most `plain_limit` in blocks that are not packed."""

    __slots__ = ("held", "plain", "plain_limit", "dropped_records")

    def __init__(self, plain_limit):
        self.held = 0
        self.plain = 0
        self.plain_limit = plain_limit
        self.dropped_records = 0


class Chain:
    """Raw records of one source of datagrams; keeps what is needed for the newest `keep` counted ones.

    What else is kept goes by `age_s`: a block is dropped `age_s` seconds after its last
    record came (None: never).  Only whole blocks are dropped, so a little more is kept.
    """

    __slots__ = ("keep", "age_s", "records", "counted", "_budget", "_tail", "_tail_counted", "_tail_first", "_blocks",
                 "_number", "_last_wall", "_last_now", "_blocks_counted")

    def __init__(self, budget, keep, age_s=None):
        self.keep = keep
        self.age_s = age_s
        self.records = 0                # ever appended
        self.counted = 0                # of those, counted towards `keep`
        self._budget = budget
        self._tail = bytearray()
        self._tail_counted = 0
        self._tail_first = 0
        self._blocks = deque()
        self._blocks_counted = 0
        self._number = 0                # of the block that the tail becomes
        self._last_wall = self._last_now = 0.0

    def append(self, wall, now, sender, datagram, counts=True):
        tail = self._tail
        before = len(tail)
        tail += blocks.RECORD.pack(wall, sender, len(datagram))
        tail += datagram
        self._budget.held += len(tail) - before
        self.records += 1
        if counts:
            self.counted += 1
            self._tail_counted += 1
        self._last_wall = wall
        self._last_now = now
        if len(tail) >= BLOCK_BYTES:
            self.seal()

    def seal(self):
        """Close the open block."""
        if not self._tail:
            return
        size, budget = len(self._tail), self._budget
        pack = budget.plain + size > budget.plain_limit
        data = blocks.pack(self._tail) if pack else bytes(self._tail)
        budget.held += len(data) - size
        budget.plain += 0 if pack else size
        self._blocks.append(Block(self._number, self._tail_first, self.counted - self._tail_counted,
                                  self._tail_counted, self._last_wall, self._last_now, size, pack, data))
        self._blocks_counted += self._tail_counted
        self._tail = bytearray()
        self._tail_counted = 0
        self._tail_first = self.records
        self._number += 1
        while self._blocks_counted - self._blocks[0].counted + self._tail_counted >= self.keep:
            self._drop()

    def _drop(self):
        block = self._blocks.popleft()
        self._blocks_counted -= block.counted
        self._budget.held -= len(block.data)
        if not block.packed:
            self._budget.plain -= block.size
        return block

    def drop_oldest(self):
        """Give up the oldest block to a bound; the bytes that frees (0: nothing was there)."""
        if not self._blocks:
            self.seal()
        if not self._blocks:
            return 0
        held = self._budget.held
        block = self._drop()
        following = self._blocks[0].first if self._blocks else self._tail_first
        self._budget.dropped_records += following - block.first
        return held - self._budget.held

    def expire(self, now):
        if self.age_s is not None:
            while self._blocks and self._blocks[0].last_now < now - self.age_s:
                self._drop()
            if self._tail and self._last_now < now - self.age_s:
                self.discard()

    def discard(self):
        """Drop everything."""
        while self._blocks:
            self._drop()
        self._budget.held -= len(self._tail)
        self._tail = bytearray()
        self._tail_counted = 0
        self._tail_first = self.records
        self._number += 1

    def position(self):
        """Where the chain ends now."""
        return Position(self._number, len(self._tail), self.counted)

    def size_held(self):
        return sum(len(block.data) for block in self._blocks) + len(self._tail)

    def read(self, until, since_wall=None):
        """Yield Stretches of records from the oldest kept up to a Position.

        Lazy: what has been dropped meanwhile is skipped, what came later is left out, and no
        more than one block is unpacked at a time.  `since_wall` leaves out blocks that end before.
        """
        number = 0
        while True:
            block = next((held for held in self._blocks if held.number >= number), None)
            if block is None or block.number > until.block:
                break
            if since_wall is None or block.last_wall > since_wall:
                yield Stretch(blocks.unpack(block.data) if block.packed else block.data,
                              until.end if block.number == until.block else block.size, block.counted_first)
            if block.number == until.block:
                return
            number = block.number + 1
        if self._number == until.block and until.end:
            yield Stretch(bytes(self._tail[:until.end]), until.end, self.counted - self._tail_counted)
