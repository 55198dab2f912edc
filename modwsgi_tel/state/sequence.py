"""Loss, counted exactly: what one counter of datagrams says about what did not arrive."""
from array import array

RECENT = 256                            # numbers whose stamps are remembered
GAPS = 64                               # open gaps that are remembered
_WRAP = 0xFFFFFFFF
_HALF = 1 << 31
NEW, LATE, DUPLICATE, RESTART = "new", "late", "duplicate", "restart"


class Sequence:
    """The sequence numbers of one source: one 32-bit counter, shared by all kinds it sends.

    A gap counts as lost until the late ones fill it.  `gaps` holds the open gaps, newest
    last, at most GAPS of them: of one that is pushed out, only the newest RECENT numbers can
    still be filled.  `stamps` are the
    header stamps of the newest RECENT numbers: the same number with the same stamp is a
    duplicate, with another stamp it is another process that counts from its own start.
    Numbers wrap at 2^32; what is nearer backwards than forwards has come late.
    """

    __slots__ = ("first", "newest", "received", "lost", "late", "duplicates", "uncertain", "gaps", "stamps", "_marks")

    def __init__(self, seq, stamp):
        self.first = self.newest = seq
        self.received = 1
        self.lost = self.late = self.duplicates = 0
        self.uncertain = 0              # of the lost: may be an unseen restart instead
        self.gaps = []                  # [first missing, last missing], not wrapped: newest - number is the distance
        self.stamps = array("d", [0.0]) * RECENT
        self._marks = array("Q", [0]) * RECENT     # number + 1 that the stamp belongs to
        self._mark(seq, stamp)

    def _mark(self, seq, stamp):
        self.stamps[seq % RECENT] = stamp
        self._marks[seq % RECENT] = seq + 1

    def follows(self, seq, stamp):
        """Count a number that is just the next one; False, and nothing done, for any other."""
        if seq - self.newest != 1:
            return False
        self.newest = seq
        self.received += 1
        place = seq % RECENT
        self.stamps[place] = stamp
        self._marks[place] = seq + 1
        return True

    def take(self, seq, stamp):
        """Count a number that came: NEW, LATE or DUPLICATE; RESTART changes nothing and asks for a new Sequence."""
        ahead = (seq - self.newest) & _WRAP
        if 0 < ahead < _HALF:
            if ahead > 1:
                self.lost += ahead - 1
                self.gaps.append([(self.newest + 1) & _WRAP, (seq - 1) & _WRAP])
                if len(self.gaps) > GAPS:
                    del self.gaps[0]
            self.newest = seq
            self.received += 1
            self._mark(seq, stamp)
            return NEW
        return self._behind(seq, stamp, -ahead & _WRAP)

    def _behind(self, seq, stamp, distance):
        place = seq % RECENT
        if self._marks[place] == seq + 1 and distance < RECENT:
            if self.stamps[place] != stamp and stamp == stamp:      # a stamp that is no number tells nothing
                return RESTART
            self.duplicates += 1
            return DUPLICATE
        newest_stamp = self.stamps[self.newest % RECENT]
        for number, (low, high) in enumerate(self.gaps):
            size = (high - low) & _WRAP
            if (seq - low) & _WRAP <= size:
                if stamp > newest_stamp and distance > 8:
                    return RESTART      # it fits a hole, but was sent after everything that came
                self._fill(number, seq, low, high)
                return self._came_late(seq, stamp)
        if distance < RECENT and distance < (self.newest - self.first) & _WRAP and not stamp > newest_stamp:
            return self._came_late(seq, stamp)      # its gap is forgotten, but the number had not come
        before = (self.first - seq) & _WRAP
        if 0 < before < RECENT and distance < RECENT and not stamp > newest_stamp:
            # sent before the first that came: the count begins with it
            if before > 1:
                self.lost += before - 1
                self.gaps.insert(0, [(seq + 1) & _WRAP, (self.first - 1) & _WRAP])
                del self.gaps[:-GAPS]
            self.first = seq
            self.late += 1
            self.received += 1
            self._mark(seq, stamp)
            return LATE
        return RESTART

    def _came_late(self, seq, stamp):
        self.lost = max(0, self.lost - 1)
        self.uncertain = min(self.uncertain, self.lost)
        self.late += 1
        self.received += 1
        self._mark(seq, stamp)
        return LATE

    def _fill(self, number, seq, low, high):
        rest = []
        if seq != low:
            rest.append([low, (seq - 1) & _WRAP])
        if seq != high:
            rest.append([(seq + 1) & _WRAP, high])
        self.gaps[number:number + 1] = rest
        del self.gaps[:-GAPS]

    def forgive(self, count):
        """Take back a loss that was none: the process had been replaced unseen."""
        self.lost = max(0, self.lost - count)
        self.uncertain = max(0, self.uncertain - count)
        self.gaps.clear()               # what is missing there was the other process's
