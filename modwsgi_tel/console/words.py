"""Words, marks and styles that panes share: what two of them say, they say in the same way."""
from modwsgi_tel.console.cells import Span, apart, clip, line, line_width, pad, safe, width
from modwsgi_tel.figures import UNKNOWN, counted, duration, moment, number

LIVE = ("started", "running", "silent", "stopping")
LIFE_STYLES = {"silent": "bad", "vanished": "bad", "stopping": "warn", "stopped": "dim", "replaced": "dim",
               "started": "accent"}
SEVERITIES = {"critical": "bad", "warning": "warn", "info": "accent"}       # of findings: their styles
WINDOW_WORDS = {"now": "newest tick", "1m": "last minute", "10m": "last 10 minutes"}

# Phases that follow one another add up to the request: name, letter and style in a bar.
PARTS = (("server", "s", "dim"), ("queue", "q", "warn"), ("daemon", "d", "accent"), ("application", "a", "good"))
# The others overlap the application's time.
OVERLAPPING = (("gil_wait", "GIL wait"), ("input_read", "input read"), ("output_write", "output write"))

FIGURE_MOST = 12                        # cells of a figure: a sender's nonsense must not push others off the screen
FULL, HIGH = 0.9, 0.7                   # of all threads' time: what is bad, what is worth a look
ERRORS = 0.01                           # of all requests: fewer happen everywhere
_TIME_COLS = 8                          # 03:12:30


# --- figures --------------------------------------------------------------------------------

def figure(text, glyphs):
    return clip(text, FIGURE_MOST, glyphs)


def seconds(value, glyphs):
    return figure(duration(value), glyphs)


def whole(value, glyphs):
    return figure(number(value, 0), glyphs)


def ratio(part, all_of_it):
    """part / all_of_it, None when one is not known or there is nothing to divide by."""
    return None if part is None or not all_of_it or all_of_it < 0 else part / all_of_it


def busy_style(capacity):
    """How a share of all threads' time looks; None is not known."""
    return "bad" if (capacity or 0) >= FULL else "warn" if (capacity or 0) >= HIGH else ""


def errors_style(errors, requests):
    """How a number of requests that ended with 5xx looks: bad when so many of all did that it is worth a mark."""
    return "bad" if errors and errors >= ERRORS * (requests or 0) else ""


# --- times ----------------------------------------------------------------------------------

def clock(then, wall):
    """`03:12:40`, local time of wall seconds; its date and no seconds when it is not of the hours around `wall`."""
    if then is None or wall is None:
        return UNKNOWN
    told = moment(then, wall)
    return f"{told}:{int(then // 1 % 60):02d}" if len(told) == 5 else told


def axis(begin, end, cols, glyphs):
    """Times of day under `cols` cells: at both ends, and between them where there is room.  Text of `cols` cells."""
    if begin is None or end is None or cols < _TIME_COLS:
        return " " * max(0, cols)
    gaps = max(1, min(4, (cols - _TIME_COLS) // (2 * _TIME_COLS)))
    text = ""
    for place in range(gaps + 1):
        at = (cols - _TIME_COLS) * place // gaps
        told = clock(begin + (end - begin) * place / gaps, end)
        if at >= len(text) + 1 or not place:
            text = text.ljust(at) + (told if len(told) == _TIME_COLS else told[-5:].rjust(_TIME_COLS))
    return pad(text, cols, glyphs)


def ago(then, wall):
    """Seconds from wall seconds `then` to `wall`, at least 0; None when one is not known."""
    return None if then is None or wall is None else max(0.0, wall - then)


def in_life(row, wall):
    """Seconds since a process's life became what it is; of a silent one, since it was last heard."""
    if row.get("life") == "silent" and row.get("silent_s") is not None:
        return row["silent_s"]
    return ago(row.get("life_since"), wall)


# --- names ----------------------------------------------------------------------------------

def group_words(row, glyphs):
    """The process group of a row, or for what is of none: what kind of process it is."""
    roles = set(row.get("roles") or ()) or {row.get("role")}
    return group_name(row.get("process_group"), glyphs, "(Apache child)" if roles == {"apache-child"} else "(embedded)")


def group_name(name, glyphs, none="(embedded)"):
    """A process group as it may be shown; embedded mode has no name for it."""
    return safe(name, glyphs) if name else none


def request_words(request, glyphs):
    """Method and path of a slow request, "" of None."""
    if request is None:
        return ""
    path = request.get("path") or f"{request.get('script_name') or ''}{request.get('path_info') or ''}"
    return f"{safe(request.get('method') or UNKNOWN, glyphs)} {safe(path or UNKNOWN, glyphs)}"


# --- text in Lines --------------------------------------------------------------------------

def marked(text, chosen):
    """Text behind the mark of the row under the cursor, or a blank: there may be no colour."""
    return (">" if chosen else " ") + text


def ends(left, right, cols, glyphs):
    """A Line with two ends; where both have no room, the left one alone."""
    return apart(left, right if line_width(left) + line_width(right) < cols else (), cols, glyphs)


def missing(view, name, glyphs, what=""):
    """A Line in place of an answer that is not there: why; `what`: what it would have told."""
    said = (view.get("errors") or {}).get(name)
    text = f" {what}: " if what else " "
    asking = "asking the collector"
    if (view.get("source") or {}).get("trouble"):
        asking = "not asked for before the collector stopped answering"
    return line(Span(safe(text + str(said or asking), glyphs), "warn" if said else "dim"))


def wrapped(text, cols, glyphs, most):
    """Printable text as at most `most` texts of at most `cols` cells, broken at blanks where it has any."""
    if width(text) <= cols:
        return [text]
    if cols < 2:
        return [clip(text, cols, glyphs)]
    out, left = [], text[:3 * most * cols]          # a cell has at most one letter and two marks on it
    while left:
        if len(out) == most - 1:
            out.append(clip(left, cols, glyphs))
            break
        part = beginning(left, cols)
        if len(part) < len(left):
            blank = part.rfind(" ") if left[len(part)] != " " else -1
            part = part[:blank] if blank > cols // 3 else part
        out.append(part.rstrip())
        left = left[len(part):].lstrip()
    return out


def pieces(text, cols):
    """Printable text, all of it, in pieces of at most `cols` cells, at least one; blanks are like letters."""
    out = [beginning(text, cols)]
    at = len(out[0])
    while at < len(text):
        out.append(beginning(text[at:at + 3 * max(1, cols)], cols))
        at += len(out[-1])
    return out


def beginning(text, cols):
    """The longest beginning of at most `cols` cells, at least one letter."""
    if text.isascii():
        return text[:max(1, cols)]
    end = 1
    wide = width(text[0])
    while end < len(text):
        wide += width(text[end])
        if wide > cols:
            break
        end += 1
    return text[:end]


# --- starts and ends ------------------------------------------------------------------------

def event_words(event, glyphs):
    """What an entry of the event log says of its process: `stopped: request_timeout, 3 requests killed`."""
    return EVENTS.get(event.get("kind"), _other)(event, glyphs)


def event_time(event):
    """Wall seconds by the collector's clock; another collector tells the sender's only."""
    received = event.get("received")
    return event.get("stamp") if received is None else received


def _reason(event, glyphs):
    reason = event.get("shutdown_reason")
    return f": {safe(reason, glyphs)}" if reason else ""


def _started(event, glyphs):
    parent = event.get("process_parent_pid")
    return "started" + (f" (parent {parent})" if parent else "")


def _stopping(event, glyphs):
    inside = event.get("active_requests_at_decision")
    return "is stopping" + _reason(event, glyphs) + (f", {counted(inside, 'request')} inside" if inside else "")


def _stopped(event, glyphs):
    uptime, killed, served = (event.get(name) for name in (
        "process_uptime", "active_requests_at_exit", "lifetime_request_count"))
    # what went wrong comes first: lines are cut at their end
    return ", ".join((f"stopped{_reason(event, glyphs)}",
                      *((f"{counted(killed, 'request')} killed",) if killed else ()),
                      *((f"up {duration(uptime)}",) if uptime else ()),
                      *((f"{counted(served, 'request')} served",) if served else ())))


def _vanished(event, glyphs):
    lost, last = event.get("lost_requests"), event.get("last_seen")
    heard = f", last heard {clock(last, event_time(event))}" if last is not None else ""
    return "vanished" + (f" with {counted(lost, 'request')} inside" if lost else "") + ": killed?" + heard


def _restarted(event, glyphs):
    return "went unseen: another process has its pid now"


def _other(event, glyphs):
    return safe(str(event.get("kind") or "did something"), glyphs)


EVENTS = {"process_started": _started, "process_stopping": _stopping, "process_stopped": _stopped,
          "process_vanished": _vanished, "process_restarted": _restarted}
