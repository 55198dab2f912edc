"""What is kept of a process's datagrams: raw records in blocks, newest last.

A full block is packed, unless all unpacked blocks together are still below a small bound:
so a server with a few processes never pays for packing, and a large one not for memory.
"""
from collections import deque, namedtuple

from modwsgi_tel.wire import blocks

BLOCK_BYTES = 40 << 10                  # a little more than deflate's window; smaller blocks pack worse
SMALL_BLOCK_BYTES = 12 << 10            # of small records: unpacked they cost three times their bytes
_head = blocks.RECORD.pack
_HEAD_BYTES = blocks.RECORD.size

Block = namedtuple("Block", "number first records counted_first counted last_wall last_now size packed data")
Block.__doc__ = """A full block: its number, the index of its first record among all and how many it has, the same of the
counted ones, when the last came (wall and monotonic seconds), how many bytes of records it has, whether
`data` is their gzip member or they themselves."""

Stretch = namedtuple("Stretch", "raw records counted_first")
Stretch.__doc__ = "Records as bytes, how many of them to read, and the index of the first counted one."

Position = namedtuple("Position", "block records counted")
Position.__doc__ = "A place in a chain: the open block's number, its records so far, and the records counted in all."


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

    __slots__ = ("keep", "age_s", "counted", "_budget", "_tail", "_tail_bytes", "_tail_counted_first", "_first",
                 "_block_bytes", "_blocks", "_blocks_counted", "_blocks_held", "_number")

    def __init__(self, budget, keep, age_s=None, block_bytes=BLOCK_BYTES):
        self.keep = keep
        self.age_s = age_s
        self._block_bytes = block_bytes
        self.counted = 0                # records ever appended that count towards `keep`
        self._budget = budget
        self._tail = []                 # head, datagram, head, datagram ... of the open block
        self._tail_bytes = 0
        self._tail_counted_first = 0
        self._first = 0                 # index of the open block's first record
        self._blocks = deque()
        self._blocks_counted = 0
        self._blocks_held = 0           # bytes
        self._number = 0                # of the open block

    def append(self, wall, now, sender, datagram, counts=True):
        size = len(datagram)
        self._tail += _head(wall, sender, size), datagram
        size += _HEAD_BYTES
        self._budget.held += size
        self._tail_bytes += size
        if counts:
            self.counted += 1
        if self._tail_bytes >= self._block_bytes:
            self.seal(wall, now)

    def seal(self, wall, now):
        """Close the open block, whose last record came at these times."""
        if not self._tail:
            return
        raw, size, budget = b"".join(self._tail), self._tail_bytes, self._budget
        pack = budget.plain + size > budget.plain_limit
        data = blocks.pack(raw) if pack else raw
        budget.held += len(data) - size
        budget.plain += 0 if pack else size
        counted = self.counted - self._tail_counted_first
        self._blocks.append(Block(self._number, self._first, len(self._tail) // 2, self._tail_counted_first, counted,
                                  wall, now, size, pack, data))
        self._blocks_counted += counted
        self._blocks_held += len(data)
        self._open_next()
        while self._blocks_counted - self._blocks[0].counted >= self.keep:
            self._drop()

    def _open_next(self):
        self._first += len(self._tail) // 2
        self._tail = []
        self._tail_bytes = 0
        self._tail_counted_first = self.counted
        self._number += 1

    def _drop(self):
        block = self._blocks.popleft()
        self._blocks_counted -= block.counted
        self._blocks_held -= len(block.data)
        self._budget.held -= len(block.data)
        if not block.packed:
            self._budget.plain -= block.size
        return block

    def drop_oldest(self, wall, now):
        """Give up the oldest block to a bound; the bytes that frees (0: nothing was there)."""
        if not self._blocks:
            self.seal(wall, now)
        if not self._blocks:
            return 0
        held = self._budget.held
        self._budget.dropped_records += self._drop().records
        return held - self._budget.held

    def expire(self, now, last_now):
        """Drop what is too old by `age_s`; `last_now` is when the newest record came."""
        if self.age_s is not None:
            while self._blocks and self._blocks[0].last_now < now - self.age_s:
                self._drop()
            if self._tail and last_now < now - self.age_s:
                self.discard()

    def discard(self):
        """Drop everything."""
        while self._blocks:
            self._drop()
        self._budget.held -= self._tail_bytes
        self._open_next()

    def position(self):
        """Where the chain ends now."""
        return Position(self._number, len(self._tail) // 2, self.counted)

    def size_held(self):
        return self._blocks_held + self._tail_bytes

    def read(self, until, first_counted=-1, since_wall=None):
        """Yield Stretches of records from the oldest kept up to a Position.

        Lazy: what has been dropped meanwhile is skipped, what came later is left out, and no
        more than one block is unpacked at a time.  Blocks that end before the counted record with the
        index `first_counted`, or before `since_wall`, are left out unread.
        """
        number = 0
        while True:
            block = next((held for held in self._blocks if held.number >= number), None)
            if block is None or block.number > until.block:
                break
            if block.counted_first + block.counted > first_counted and (
                    since_wall is None or block.last_wall > since_wall):
                yield Stretch(blocks.unpack(block.data) if block.packed else block.data,
                              until.records if block.number == until.block else block.records, block.counted_first)
            if block.number == until.block:
                return
            number = block.number + 1
        if self._number == until.block and until.records:
            yield Stretch(b"".join(self._tail[:2 * until.records]), until.records, self._tail_counted_first)
