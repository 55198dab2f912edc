"""Text in the cells of a terminal: how wide it is, cut and padded; lines of styled spans.

A Line is a tuple of Spans.  A style is a name of STYLES; what it looks like is for
`console.screen` to say, and no meaning hangs on a style alone: there may be no colour.
"""
import unicodedata
from collections import namedtuple

Size = namedtuple("Size", "rows cols")
Span = namedtuple("Span", "text style", defaults=("",))

STYLES = ("", "dim", "bold", "head", "good", "warn", "bad", "accent", "select")

Glyphs = namedtuple("Glyphs", "utf8 spark full part bar line cut mark dot up down shades")
Glyphs.__doc__ = """What is drawn with: `utf8` whether text may be other than ASCII; `spark` levels from low to high; `full` and
`part` of a bar's filled and empty cells; `bar` a vertical and `line` a horizontal rule; `cut` where text was cut; `mark` under a
place; `dot` between words; `up` and `down` beside a sorted column; `shades` from young to old."""

UNICODE = Glyphs(True, "▁▂▃▄▅▆▇█", "█", "░", "│", "─", "…", "▲", "·", "▲", "▼", "·░▒▓█")
ASCII = Glyphs(False, "_.:-=+*#", "#", ".", "|", "-", "~", "^", "-", "^", "v", ".:+*#")
# the console of Linux has letters, but not the blocks that lines are drawn with
LINUX = ASCII._replace(utf8=True)

_COMBINING_MOST = 2                     # on one letter; more is a joke at the expense of the line above


def cell_width(char):
    """Cells that a printable character takes: 0, 1 or 2."""
    if char < "\u0300":
        return 1
    # vowels and finals of Hangul join the letter before; a spacing mark (Mc) has a cell of its own
    if unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff":
        return 0
    # terminals have the hexagrams wide, and so has Unicode since version 16
    odd = "\u3248" <= char <= "\u324f" or "\u4dc0" <= char <= "\u4dff"
    return 2 if odd or unicodedata.east_asian_width(char) in "WF" else 1


def width(text):
    """Cells that printable text takes."""
    return len(text) if text.isascii() else sum(map(cell_width, text))


def safe(text, glyphs):
    """Text from anywhere as it may be shown: everything that a terminal could take for more than a letter is escaped.

    Controls, bidirectional and invisible marks, variation selectors, letters under a heap of
    combining ones; without UTF-8, whatever is not ASCII.
    """
    if text.isascii() and text.isprintable():
        return text
    out, marks = [], 0
    for char in text:
        wide = cell_width(char)
        marks = marks + 1 if wide == 0 else 0
        shown = char.isprintable() and (glyphs.utf8 or char.isascii()) and not (
            wide == 0 and (marks > _COMBINING_MOST or not out or "\ufe00" <= char <= "\ufe0f" or char >= "\U000e0100"))
        out.append(char if shown else char.encode("unicode_escape").decode("ascii"))
    return "".join(out)


def clip(text, cols, glyphs):
    """Printable text cut to `cols` cells; one that was cut ends with the mark for it."""
    if width(text) <= cols:
        return text
    if cols <= 0:
        return ""
    out, room = [], cols - 1
    for char in text:
        room -= cell_width(char)
        if room < 0:
            break
        out.append(char)
    return "".join(out) + glyphs.cut


def path_end(text, cols, glyphs):
    """Printable text of a path in at most `cols` cells: its end says more than its beginning, so that is what goes."""
    if width(text) <= cols:
        return text
    mark = glyphs.cut if not glyphs.cut.isascii() else "..."        # ~/ would be somebody's home
    at, room = len(text), cols - len(mark)
    while at and cell_width(text[at - 1]) <= room:
        at -= 1
        room -= cell_width(text[at])
    if room < 0 or at == len(text):
        return clip(text, cols, glyphs)
    end = text[at:]
    slash = end.find("/")
    return mark + (end[slash:] if 0 < slash < len(end) // 2 else end)


def pad(text, cols, glyphs, right=False):
    """Printable text in exactly `cols` cells: cut, or filled up; `right` aligned to the right."""
    text = clip(text, cols, glyphs)
    fill = " " * (cols - width(text))
    return fill + text if right else text + fill


def line(*parts):
    """A Line of texts and Spans; empty ones left out."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts
                 if (part.text if isinstance(part, Span) else part))


def line_width(spans):
    return sum(width(span.text) for span in spans)


def fit(spans, cols, glyphs):
    """A Line of at most `cols` cells."""
    if line_width(spans) <= cols:
        return spans
    if cols <= 0:
        return ()
    out, room = [], cols
    for span in spans:
        wide = width(span.text)
        if wide >= room:
            # what follows is cut off too, so the mark is due even when this one just fits
            text = clip(span.text, room, glyphs) if wide > room else clip(span.text + " ", room, glyphs)
            out.append(Span(text, span.style))
            break
        out.append(span)
        room -= wide
    return tuple(out)


def apart(left, right, cols, glyphs):
    """A Line with one part at its left and one at its right end; the left one is cut when both have no room."""
    wide = line_width(right)
    if wide + 2 > cols:
        return fit(left, cols, glyphs)
    left = fit(left, cols - wide - 1, glyphs)
    return (*left, Span(" " * (cols - wide - line_width(left))), *right)


def restyled(spans, style):
    """The same Line in one style."""
    return tuple(Span(span.text, style) for span in spans)


def plain(lines):
    """Lines as text, no blanks at their ends."""
    return "".join("".join(span.text for span in spans).rstrip() + "\n" for spans in lines)
