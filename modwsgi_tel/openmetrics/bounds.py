"""Which bounds the histograms have.

Those of the phases are edges that mod_wsgi itself counts by (see wire.buckets), so that no count is interpolated: what
Prometheus makes of them is as good as what was sent, only coarser.  They double, with one more between two where the answers
of most applications lie, 64 ms to 1.024 s.  So a percentile is off by a half of itself at most there, elsewhere by itself.

mod_wsgi counts a time that is just an edge above it, Prometheus below: of times in floats that is no difference.

They stay as they are: to change one would end the series of its bucket.  Prometheus 3 can keep them as native histograms with
custom buckets, one series instead of 22, with the same bounds: `convert_classic_histograms_to_nhcb: true` in its scrape
configuration, where native histograms are switched on.
"""
from itertools import accumulate

from modwsgi_tel.wire.buckets import UPPER_S

PHASE_BOUNDS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.096, 0.128, 0.192, 0.256, 0.384, 0.512, 0.768, 1.024, 2.048, 4.096,
                8.192, 16.384, 32.768, 65.536)
_LAST = tuple(UPPER_S.index(bound) for bound in PHASE_BOUNDS)       # the bucket of mod_wsgi that ends there


def phase_counts(row):
    """65 counts as the cumulative counts at PHASE_BOUNDS and of all."""
    sums = list(accumulate(row))
    return [*(sums[place] for place in _LAST), sums[-1]]


def label(bound):
    """A bound as OpenMetrics writes it in `le`."""
    return repr(float(bound))
