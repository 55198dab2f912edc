"""The three tables by which CPython tells the line of an instruction: decoded once per code object.

Each decoder gives (ends, lines): the instruction at byte offset `at` is on lines[bisect_right(ends, at)].  Offsets without
a line of their own have that of the one before, as a traceback has while it runs.
Source: Objects/lnotab_notes.txt (to 3.9 and 3.10), Objects/locations.md (from 3.11).
"""
from bisect import bisect_right

LONGEST = 1 << 18                       # of a table; the longest of a generated module is some ten thousand bytes


def lnotab(table, first):
    """Up to 3.9: pairs of (bytes, signed lines); the line holds from the address on, to the next change."""
    ends, lines, at, line = [], [], 0, first
    for place in range(0, len(table) - 1, 2):
        step, delta = table[place], table[place + 1]
        if step:
            at += step
            ends.append(at)
            lines.append(line)
        line += delta - 256 if delta > 127 else delta
    ends.append(1 << 62)
    lines.append(line)
    return ends, lines


def linetable(table, first):
    """3.10: pairs of (bytes, signed lines, -128 for no line), the line holds for these bytes."""
    ends, lines, at, line, shown = [], [], 0, first, first
    for place in range(0, len(table) - 1, 2):
        step, delta = table[place], table[place + 1]
        if delta == 128:
            now = shown
        else:
            line += delta - 256 if delta > 127 else delta
            now = line
        if step:
            at += step
            ends.append(at)
            lines.append(now)
            shown = now
    return ends, lines


def locations(table, first):
    """From 3.11: entries of a code and a length in units of two bytes, then by code the line and columns."""
    ends, lines, at, line, shown, place, size = [], [], 0, first, first, 0, len(table)
    while place < size:
        head = table[place]
        place += 1
        if not head & 128:
            break                       # out of step: no entry begins with such a byte
        code, length = (head >> 3) & 15, (head & 7) + 1
        if code == 15:
            now = shown
        else:
            if code >= 13:
                delta, place = _signed(table, place)
                line += delta
                if code == 14:          # the end line and two columns
                    for _ in range(3):
                        _, place = _varint(table, place)
            elif code >= 10:
                line += code - 10
                place += 2
            else:
                place += 1
            now = line
        at += 2 * length
        ends.append(at)
        lines.append(now)
        shown = now
    return ends, lines


def _varint(table, place):
    value = shift = 0
    while place < len(table) and shift < 36:
        byte = table[place]
        place += 1
        value |= (byte & 63) << shift
        if not byte & 64:
            break
        shift += 6
    return value, place


def _signed(table, place):
    value, place = _varint(table, place)
    return (-(value >> 1) if value & 1 else value >> 1), place


def decoder(version):
    """The function for a version's tables."""
    return lnotab if version < (3, 10) else linetable if version < (3, 11) else locations


def line_at(table, at, first):
    """The line at a byte offset in what a decoder gave; `first` before the first instruction, None past the last."""
    if at < 0:
        return first
    ends, lines = table
    place = bisect_right(ends, at)
    return lines[place] if place < len(lines) else None
