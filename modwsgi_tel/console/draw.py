"""Figures drawn with letters: sparklines, bars, charts, tables.  Everything returns Lines, or text for one."""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, clip, line, line_width, pad, width

Column = namedtuple("Column", "name title value style width right keep flex",
                    defaults=(lambda row: "", 0, True, 5, False))
Column.__doc__ = """A column of a table: `name` for sorting, `title` its head, `value(row)` its text, `style(row)` its style,
`width` its least width in cells, `right` whether it is aligned to the right, `keep` how long it stays when the terminal is
narrow (9: always; 1: goes first), `flex` whether it takes the room that is left."""

Sorted = namedtuple("Sorted", "name reverse")

_SHARE_MOST = 1e300


def spark(values, cols, glyphs, top=None):
    """A line of levels, the newest value at its right end, in exactly `cols` cells; None is a blank.

    Fewer values than cells: each is drawn as often as fits, so that the whole width is the whole time.
    More: each cell is the largest of those that it stands for.
    """
    if cols <= 0:
        return ""
    if not values:
        return " " * cols
    values = [_known(value) for value in values]
    cells = [_largest(values[place * len(values) // cols:max((place + 1) * len(values) // cols,
                                                            place * len(values) // cols + 1)]) for place in range(cols)]
    top = max((value for value in values if value is not None), default=0) if top is None else top
    return "".join(" " if value is None else glyphs.spark[_level(value, top, len(glyphs.spark))] for value in cells)


def _known(value):
    """None also for what is no number: it is in no order with the others."""
    return None if value is None or value != value else value


def _largest(values):
    return max((value for value in values if value is not None), default=None)


def _share(value, top):
    """value / top between 0 and 1, whatever numbers they are: infinite, negative, larger than any float."""
    if not (value > 0 and top > 0):
        return 0.0
    if value >= top:
        return 1.0
    try:
        return value / top              # 0 when the top is infinite
    except OverflowError:
        return 0.0                      # a top that no float can hold


def _level(value, top, levels):
    """0 for nothing at all; the other levels share what is above it."""
    if not (value > 0 and top > 0):
        return 0
    return max(1, int(_share(value, top) * (levels - 1) + 0.5))


def meter(ratio, cols, glyphs):
    """A ratio of 0 to 1 as text of `cols` cells; what is beyond is empty or full."""
    if _known(ratio) is None:
        return " " * cols
    filled = min(cols, max(1 if ratio > 0.005 else 0, int(_share(ratio, 1) * cols + 0.5)))
    return glyphs.full * filled + glyphs.part * (cols - filled)


def stacked(parts, cols):
    """A bar of shares: `parts` are (share, letter, style); spans of exactly `cols` cells together, shares added up to 1."""
    # so large that nothing beside it is seen, and still a sum can be made
    parts = [(min(share, _SHARE_MOST) if share and share > 0 else 0.0, letter, style) for share, letter, style in parts]
    total = sum(share for share, _, _ in parts)
    if not total or cols <= 0:
        return (Span(" " * max(0, cols)),)
    out, drawn, at = [], 0, 0.0
    for share, letter, style in parts:
        at += share / total
        until = int(at * cols + 0.5)
        if until > drawn:
            out.append(Span(letter * (until - drawn), style))
            drawn = until
    return tuple(out)


def chart(values, rows, cols, glyphs, top=None, style=""):
    """Bars over `rows` Lines of `cols` cells; values as for `spark`, but one that is not 0 is never invisible."""
    if rows <= 0 or cols <= 0:
        return []
    values = [_known(value) for value in values]
    count = len(values)
    if count > cols:
        values = [_largest(values[place * count // cols:max((place + 1) * count // cols, place * count // cols + 1)])
                  for place in range(cols)]
    top = max((value for value in values if value), default=0) if top is None else top
    eighths = len(glyphs.spark)
    heights = [0 if not value or not (value > 0 and top > 0) else max(1, int(_share(value, top) * rows * eighths + 0.5))
               for value in values]
    lines = []
    for row in range(rows - 1, -1, -1):
        cells = []
        for height in heights:
            part = height - row * eighths
            cells.append(" " if part <= 0 else glyphs.spark[min(part, eighths) - 1] if part < eighths else glyphs.full)
        lines.append(line(Span("".join(cells).ljust(cols), style)))
    return lines


def table(columns, rows, cols, glyphs, sort=None, selected=None, gap=1):
    """Lines of a table, its heads first.

    Cells are printable text already (see cells.safe).  `selected` is the place of the row
    under the cursor.  Columns that have no room go, those with the lowest `keep` first.
    """
    texts = [[column.value(row) for column in columns] for row in rows]
    heads = [_head(column, sort, glyphs) for column in columns]
    widths = [max([column.width, width(head), *(0 if column.flex else width(cells[place]) for cells in texts)])
              for place, (column, head) in enumerate(zip(columns, heads))]
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(widths[place] + gap for place in shown) - gap > cols:
        shown.remove(min(reversed(shown), key=lambda place: columns[place].keep))
    if len(shown) == 1:
        widths[shown[0]] = min(widths[shown[0]], max(0, cols))
    left = cols - sum(widths[place] + gap for place in shown) + gap
    for place in shown:
        if columns[place].flex:
            widths[place] += max(0, left)
            break

    def cells(texts, styles):
        out = []
        for number, place in enumerate(shown):
            if number:
                out.append(Span(" " * gap))
            last = number == len(shown) - 1 and not columns[place].right
            text = clip(texts[place], min(widths[place], cols), glyphs) if last else pad(
                texts[place], widths[place], glyphs, columns[place].right)
            out.append(Span(text, styles[place]))
        return tuple(out)

    lines = [cells(heads, ["head"] * len(columns))]
    for number, (row, text) in enumerate(zip(rows, texts)):
        if number == selected:
            whole = cells(text, ["select"] * len(columns))
            spare = cols - line_width(whole)
            lines.append(tuple(Span(span.text, "select") for span in whole) + (
                (Span(" " * spare, "select"),) if spare > 0 else ()))
        else:
            lines.append(cells(text, [column.style(row) for column in columns]))
    return lines


def _head(column, sort, glyphs):
    if sort is None or sort.name != column.name:
        return column.title
    return column.title + (glyphs.down if sort.reverse else glyphs.up)


def columns_of(pairs, cols, glyphs, gap=3):
    """Names and values, [(name, text, style)], side by side in as many columns as fit: Lines, filled from left to right."""
    if not pairs:
        return []
    name = max(width(pair[0]) for pair in pairs)
    value = max(width(pair[1]) for pair in pairs)
    each = name + 1 + value
    across = max(1, (cols + gap) // (each + gap))
    lines = []
    for at in range(0, len(pairs), across):
        spans = []
        for place, (title, text, style) in enumerate(pairs[at:at + across]):
            if place:
                spans.append(Span(" " * gap))
            spans += [Span(pad(title, name, glyphs), "dim"), Span(" "), Span(pad(text, value, glyphs), style)]
        lines.append(tuple(spans))
    return lines
