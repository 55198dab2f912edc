"""Latency histograms: their edges, adding them up, percentiles, and the shape of GIL waits.

Counts are plain sequences of 65 numbers.  Source: mod_wsgi's telemetry format, fields 90-97:
bucket 0 starts at 0; octave k (0 to 15) covers 2^k ms to 2^(k+1) ms in 4 equal parts; the
65th counts everything above 65.536 s.
"""
import math
from bisect import bisect_left
from itertools import accumulate
from operator import add

BUCKETS = 65
UPPER_S = tuple((2 ** k + 2 ** k * part / 4) / 1000 for k in range(16) for part in (1, 2, 3, 4))
LOWER_S = (0.0,) + UPPER_S              # LOWER_S[64] is where the last, open bucket begins
OVERFLOW_S = LOWER_S[64]                # 65.536

ZERO = (0,) * BUCKETS


def merge(a, b):
    """Add two histograms, bucket by bucket."""
    return list(map(add, a, b))


def place(seconds):
    """The bucket that a duration in seconds is counted in."""
    if not seconds >= UPPER_S[0]:
        return 0
    if seconds >= OVERFLOW_S:
        return BUCKETS - 1
    octave = min(15, max(0, int(math.log2(seconds * 1000))))
    part = int((seconds * 1000 / 2 ** octave - 1) * 4)
    return max(0, min(BUCKETS - 2, octave * 4 + part))


def percentiles(counts, shares=(0.50, 0.95, 0.99), longest_s=None):
    """Seconds below which each share of the counts lies; None for each when nothing was counted.

    Linear inside a bucket.  Never above `longest_s`, the longest duration seen, when that
    is given; it is also what stands for the open last bucket.
    """
    sums = list(accumulate(counts))
    total = sums[-1] if sums else 0
    if not total:
        return [None] * len(shares)
    out, at = [], 0
    for share in shares:
        rank = share * total
        at = bisect_left(sums, rank, at)
        while not counts[at]:           # of a share of 0
            at += 1
        if at >= len(UPPER_S):
            value = longest_s if longest_s is not None and longest_s > OVERFLOW_S else OVERFLOW_S
        else:
            below = sums[at] - counts[at]
            value = LOWER_S[at] + (UPPER_S[at] - LOWER_S[at]) * (rank - below) / counts[at]
            if longest_s is not None and LOWER_S[at] <= longest_s < value:
                value = longest_s
        out.append(value)
    return out


def gil_coefficient(counts, switch_interval_s):
    """How GIL waits end: {"q", "reading", "waits"}, or None when the counts do not tell.

    Waits gather near multiples of the switch interval.  Counted in bands around them,
    log(count) falls with a slope; q = 1 - exp(slope) is the chance that a wait ends within
    one more interval.  None with fewer than 100 waits in the bands used, with a slope that is
    not negative or with R² below 0.5.  It tells the shape, not the cost.
    """
    if not switch_interval_s or not switch_interval_s > 0:
        return None
    bands = [0] * 5
    for number, count in enumerate(counts):
        if count:
            middle = (LOWER_S[number] + UPPER_S[number]) / 2 if number < len(UPPER_S) else math.inf
            reach = middle / switch_interval_s
            bands[0 if reach < 0.8 else 1 if reach < 1.8 else 2 if reach < 2.8 else 3 if reach < 3.8 else 4] += count
    # an interval of 1 ms or less is lost in the first bucket: look one band further
    points = [(k, bands[k]) for k in ((2, 3, 4) if bands[1] < bands[2] else (1, 2, 3))]
    waits = sum(count for _, count in points)
    used = [(k, math.log(count), count) for k, count in points if count]
    if waits < 100 or len(used) < 2:
        return None
    weight = sum(w for _, _, w in used)
    mean_k = sum(k * w for k, _, w in used) / weight
    mean_y = sum(y * w for _, y, w in used) / weight
    spread = sum(w * (k - mean_k) ** 2 for k, _, w in used)
    slope = sum(w * (k - mean_k) * (y - mean_y) for k, y, w in used) / spread
    total = sum(w * (y - mean_y) ** 2 for _, y, w in used)
    fit = 1.0 if not total else 1 - sum(w * (y - mean_y - slope * (k - mean_k)) ** 2 for k, y, w in used) / total
    if slope >= 0 or fit < 0.5:
        return None
    q = 1 - math.exp(slope)
    return {"q": q, "reading": "transient" if q >= 0.7 else "compounding" if q >= 0.4 else "convoy", "waits": waits}
