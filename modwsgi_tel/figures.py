"""Figures for people: amounts with their unit, times of day; every face writes them the same way."""
from datetime import datetime

UNKNOWN = "-"
_SAME_DAY_S = 72000.0                   # within 20 hours a time of day can only be meant once


def duration(seconds):
    """`1.2 s`, `340 ms`, `3 min`; UNKNOWN for None."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} d"


def fine(seconds):
    """As `duration`, of what may take microseconds: `1.2 us`."""
    return f"{seconds * 1e6:.1f} us" if seconds is not None and 0 < seconds < 0.00095 else duration(seconds)


def size(amount):
    """`34.5 MB` (powers of 1000, as disks and networks count); UNKNOWN for None."""
    if amount is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1000


def number(value, digits=1):
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def counted(amount, one, many=None):
    """`1 request`, `2,000 requests`, `- requests` for None; many: a plural that is not made with an s."""
    return f"{number(amount, 0)} {one if amount == 1 else many or one + 's'}"


def percent(ratio):
    return UNKNOWN if ratio is None else f"{ratio * 100:.0f} %"


def moment(then, wall):
    """`03:12`, local time of wall seconds, with its date when it is not of the hours around `wall`."""
    try:
        told = datetime.fromtimestamp(then)
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
    return told.strftime("%H:%M" if abs(wall - then) < _SAME_DAY_S else "%Y-%m-%d %H:%M")
