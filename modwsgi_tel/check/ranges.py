"""Ranges of the plugin guidelines: `10`, `10:`, `~:10`, `10:20`, `@10:20`.

    range = read("10:20", UNITS["s"])
    range.alerts(25.0)                  # True: it is outside

Source: Monitoring Plugins Development Guidelines, Threshold and Ranges.
"""
import math
from collections import namedtuple

from modwsgi_tel.errors import UsageError

# What a number may have behind it, by the unit of the value that it is compared with: a factor.
UNITS = {
    "": {},
    "share": {"%": 0.01},
    "s": {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0},
    # letters alone as in the other options: powers of 1024
    "B": {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30,
          "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
}


class Range(namedtuple("Range", "start end inside")):
    """From start to end, both of them in it; `inside`: it alerts there, and not outside (the @)."""

    __slots__ = ()

    def alerts(self, value):
        return (self.start <= value <= self.end) == self.inside

    def text(self, factor=1):
        """As the guidelines write it, its bounds times a factor: of a value that is shown in another unit."""
        start = "~" if self.start == -math.inf else figure(self.start * factor)
        end = "" if self.end == math.inf else figure(self.end * factor)
        shown = end if start == "0" and end else f"{start}:{end}"
        return ("@" if self.inside else "") + shown


def read(given, unit=""):
    """The Range that a text means; numbers may have one of the UNITS of `unit` behind them.

    Raises UsageError, which says what a range looks like, or that a share is none.
    """
    inside, rest = given.startswith("@"), given[given.startswith("@"):]
    start, colon, end = rest.partition(":")
    if not colon:
        start, end = "", start
        if not end:
            raise _no_range(given)
    low = -math.inf if start == "~" else _number(given, start, unit) if start else 0.0
    high = _number(given, end, unit) if end else math.inf
    if low > high:
        raise UsageError(f"{given!r} is no range: it ends before it begins")
    if unit == "share" and (high > 1 and end or low > 1):
        raise UsageError(f"{given!r}: a share is from 0 to 1, as 0.8, or write 80%")
    return Range(low, high, inside)


def _number(given, text, unit):
    factor = 1
    for ending in sorted(UNITS[unit], key=len, reverse=True):
        if text.endswith(ending):
            text, factor = text[:-len(ending)], UNITS[unit][ending]
            break
    # float() takes more than a number: 1_000, blanks, nan, digits of other scripts
    if not text.isascii() or text.lower().strip("0123456789+-.e"):
        raise _no_range(given, unit)
    try:
        number = float(text) * factor
    except ValueError:
        raise _no_range(given, unit) from None
    if not math.isfinite(number):
        raise _no_range(given, unit)
    return number


def _no_range(given, unit=""):
    units = f", and numbers may end in {', '.join(UNITS[unit])}" if UNITS[unit] else ""
    return UsageError(f"{given!r} is no range: 10, 10:, ~:10, 10:20 or @10:20{units}")


def figure(value):
    """A number as plugins write it: no exponent, no more digits than it has, of those behind the point six that say something."""
    text = (f"{value:.6f}" if abs(value) >= 0.001 else f"{value:.12f}").rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
