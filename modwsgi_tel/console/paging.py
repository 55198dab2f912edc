"""What is asked for, and which rows or Lines of it are shown: page after page, so that rows stay where they are."""
from modwsgi_tel.console.cells import Span, clip, fit, line
from modwsgi_tel.console.keys import table_of

# as they are in a query (RFC 3986: unreserved); a comma stands between the names of a list
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~,")


def asked(path, **parameters):
    """`path?name=value&...` in the order given; parameters that are None left out.

    Values are percent-encoded UTF-8, what cannot be encoded is a `?`.  (urllib.parse would take a
    twentieth of the time that a console may take to start.)
    """
    told = [f"{name}={_quoted(value)}" for name, value in parameters.items() if value is not None]
    return f"{path}?{'&'.join(told)}" if told else path


def _quoted(value):
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in str(value).encode("utf-8", "replace"))


def page_of(cursor, rows):
    """The parameters that ask for the page, `rows` long, that the cursor is on."""
    return {"offset": window_of(cursor, rows), "limit": max(1, rows)}


def window_of(cursor, rows):
    """The place of the first row of the page, `rows` long, that the cursor is on; of no cursor (-1): the first one."""
    rows = max(1, rows)
    return max(0, cursor) // rows * rows


def place_of(cursor, answer, rows):
    """Where the row under the cursor is among the `rows` of an answer; None when it is not there.

    `answer` has `offset` and `matched`.  A cursor behind the last row, of a table that has
    become shorter, is on the last one.
    """
    matched = answer.get("matched")
    place = (cursor if matched is None else min(cursor, matched - 1)) - (answer.get("offset") or 0)
    return place if 0 <= place < len(rows) else None


def row_under(ui, answer, rows):
    """The one of an answer's `rows` that is under the cursor of the table, None without."""
    place = place_of(table_of(ui).cursor, answer, rows)
    return None if place is None else rows[place]


def on_page(ui, answer, rows, room):
    """(at most `room` of an answer's rows, the place of the one under the cursor among them or None).

    An answer may be one to a larger screen: then they are those up to the cursor.
    """
    place = place_of(table_of(ui).cursor, answer, rows)
    start = max(0, (place or 0) - room + 1)
    return rows[start:start + max(0, room)], None if place is None else place - start


def scrolled(lines, scroll, rows):
    """`rows` Lines from `scroll` on, never beyond the last page."""
    start = max(0, min(scroll, len(lines) - rows))
    return lines[start:start + max(0, rows)]


def shortened(lines, ui, size):
    """The page of Lines that Ui.scroll says; when there are more below, the last one tells how many."""
    shown = [fit(each, size.cols, ui.glyphs) for each in scrolled(lines, ui.scroll, size.rows)]
    below = len(lines) - size.rows - max(0, min(ui.scroll, len(lines) - size.rows))
    if below > 0 and len(shown) > 1:
        text = f" {ui.glyphs.down} {below + 1} more lines (Down, PgDn)"
        shown[-1] = line(Span(clip(text, size.cols, ui.glyphs), "dim"))
    return shown
