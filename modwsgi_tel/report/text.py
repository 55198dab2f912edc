"""Tables for people."""
from modwsgi_tel.printable import printable


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
