"""Figures for people: amounts with their unit, and tables of them."""
from modwsgi_tel.printable import printable

UNKNOWN = "-"


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


def percent(ratio):
    return UNKNOWN if ratio is None else f"{ratio * 100:.0f} %"


def table(heads, rows, right=()):
    """Lines of a table; columns named in `right` are aligned to the right.  Cells are made printable."""
    rows = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max([len(head), *(len(row[place]) for row in rows)]) for place, head in enumerate(heads)]
    lines = []
    for row in ([*heads], *rows):
        cells = [cell.rjust(width) if head in right else cell.ljust(width)
                 for cell, width, head in zip(row, widths, heads)]
        lines.append("  ".join(cells).rstrip())
    return lines
