"""The collector itself: what it receives and loses, whether it stood still, what it holds, and its log.

One row of ROWS for each thing that it says of itself (state.view.collector, Collector.own); what a
source does not tell is not shown.  Rows with trouble come first and have a mark.
"""
from modwsgi_tel.console.cells import Span, clip, fit, line, pad, safe
from modwsgi_tel.console.keys import Pane
from modwsgi_tel.console.paging import asked, shortened
from modwsgi_tel.console.words import clock, counted, missing, ratio, wrapped
from modwsgi_tel.figures import duration, number, size as bytes_text

# What went for want of room: its name in `bounds`, in words, what to do about it.
LOST_TO = (
    ("processes_evicted", "processes", "raise --max-processes"),
    ("groups_evicted", "process groups", "raise --max-groups"),
    ("interpreters_evicted", "interpreters", "raise --max-interpreters"),
    ("slow_evicted", "slow requests", "raise --max-slow or --slow-bytes"),
    ("records_dropped", "kept datagrams", "raise --keep-bytes"),
)
# What is gone because its time was over, or as it always goes in a log: no trouble.
GONE = (
    ("processes_forgotten", "processes", "--process-retention, --silent-retention"),
    ("slow_forgotten", "slow requests", "--slow-retention"),
    ("events_dropped", "starts and ends", "--max-events"),
)
_NAME_COLS = 12
_LINES_MOST = 4                         # of one row
_KINDS_MOST = 12                        # kinds in one row
_WRONG_MOST = 8                         # wrong datagrams with their heads
_LOG_LINES = 200
_RATE_S = 0.4                           # between two looks, for a rate that is no noise


def paths(ui, size):
    return {"collector": asked("/api/summary", window="now", parts="collector")}


def body(view, ui, size):
    answer = view.get("collector") or {}
    own = answer.get("collector") or {}
    glyphs, said = ui.glyphs, (view.get("errors") or {}).get("collector")
    lines = [_row("!", "no answer", said, size.cols, glyphs)] if said else []
    told = [(name, row(own, view)) for name, row in ROWS]
    told = [(name, *_texts(found)) for name, found in told if found]
    for trouble in (True, False):
        for name, wrong, texts in told:
            if wrong == trouble:
                lines += [each for number, text in enumerate(texts)
                          for each in _rows("!" if wrong else "", "" if number else name, text, size.cols, glyphs)]
    lines += wrong_lines(own, answer.get("time"), size.cols, glyphs)
    if not lines:
        lines = [fit(line(Span(" the collector says nothing of itself", "dim")) if "collector" in view else
                     missing(view, "collector", glyphs), size.cols, glyphs)]
    return shortened(lines + log_lines(view, size.rows - len(lines), size.cols, glyphs), ui, size)


class Wrong(str):
    """Text of a row that tells of trouble."""


def _texts(found):
    """(whether any is trouble, [text]) of what a row returned: a text, or several."""
    found = [found] if isinstance(found, str) else [each for each in found if each]
    return any(isinstance(each, Wrong) for each in found), found


def _rows(mark, name, text, cols, glyphs):
    bad = isinstance(text, Wrong)
    indent = _NAME_COLS + 3 if cols >= 60 else 2
    text = safe(text, glyphs)
    if indent == 2:
        text = f"{name}: {text}" if name else text
    told = wrapped(text, max(1, cols - indent), glyphs, _LINES_MOST)
    head = (mark if bad or name else "") or " "
    first = f"{head} {name:<{_NAME_COLS}} " if indent > 2 else f"{head} "
    return [line(Span(" " * indent if place else first, "bad" if bad else "dim"), Span(part, "bad" if bad else ""))
            for place, part in enumerate(told)]


def _row(mark, name, text, cols, glyphs):
    return _rows(mark, name, Wrong(text), cols, glyphs)[0]


# --- the rows: each takes the collector's figures and the view ------------------------------

def _count(value):
    return number(value, 0)


def _since_last(view, figure):
    """(the growth of a figure since the look before, the seconds between), (None, None) when that cannot be told."""
    now, before = (held.get("collector") or {} for held in (view, view.get("previous") or {}))
    figures = [(held.get("collector") or {}).get(figure) for held in (now, before)]
    times = [held.get("time") for held in (now, before)]
    if None in figures or None in times or figures[0] < figures[1] or times[0] - times[1] < _RATE_S:
        return None, None               # it was started anew, a recording was wound back, or a key was pressed
    return figures[0] - figures[1], times[0] - times[1]


def _socket(own, view):
    if own.get("socket_trouble"):
        return Wrong(own["socket_trouble"])
    return own.get("socket")


def _recording(own, view):
    held = own.get("recording")
    if not held:
        return None
    text = counted(held.get("records"), "record written", "records written")
    lost = held.get("lost_blocks")
    if lost:
        text += f", {counted(lost, 'block', 'blocks')} lost ({bytes_text(held.get('lost_bytes'))})"
    if held.get("trouble"):
        text += f"; {held['trouble']}"
    return Wrong(text) if lost or held.get("trouble") else text


def _received(own, view):
    if own.get("received") is None:
        return None
    text = counted(own["received"], "datagram", "datagrams")
    if own.get("received_bytes") is not None:
        text += f", {bytes_text(own['received_bytes'])}"
    amount, seconds = _since_last(view, "received")
    now = "" if amount is None else f"{number(amount / seconds)} a second now, "
    mean = ratio(own["received"], own.get("uptime_s"))
    return text if mean is None else f"{text}; {now}{number(mean)} a second on average"


def _kinds(own, view):
    kinds = sorted((own.get("kinds") or {}).items(), key=lambda item: -(item[1] or 0))
    return ", ".join(f"{name[:40]} {_count(count)}" for name, count in kinds[:_KINDS_MOST])


def _lost(own, view):
    totals = (view.get("summary") or {}).get("totals") or {}
    lost, uncertain = totals.get("lost"), totals.get("lost_uncertain")
    if lost is None:
        return None
    text = "none" if not lost else counted(lost, "datagram", "datagrams")
    if uncertain:
        text += f"; {_count(uncertain)} of these may be an unseen restart instead"
    return Wrong(text) if lost else text


def _wrong(own, view):
    wrong = own.get("decode_errors")
    if wrong is None:
        return None
    if not wrong:
        return "none"
    reasons = ", ".join(f"{reason[:40]} {_count(count)}" for reason, count in
                        list((own.get("wrong") or {}).items())[:_KINDS_MOST])
    return Wrong(counted(wrong, "datagram was", "datagrams were") + " refused" + (f": {reasons}" if reasons else ""))


def _orphans(own, view):
    held = own.get("without_process")
    return f"{counted(held, 'record', 'records')} of a process that had not reported yet" if held else None


def _bounds(own, view):
    bounds = own.get("bounds")
    if bounds is None:
        return None
    texts = [Wrong(f"no room for more {what}, {counted(bounds[name], 'time', 'times')}: {advice}")
             for name, what, advice in LOST_TO if bounds.get(name)]
    gone = [f"{what} {_count(bounds[name])} ({option})" for name, what, option in GONE if bounds.get(name)]
    over = ["their time was over: " + ", ".join(gone)] if gone else []
    return texts + over or ["nothing went for want of room"]


def _stalls(own, view):
    longest = own.get("longest_gap_s")
    if longest is None:
        return None
    stalls = own.get("stalls")
    text = f"longest gap {duration(longest)}, in the last minute {duration(own.get('recent_gap_s'))}"
    return Wrong(f"{counted(stalls, 'time', 'times')} for a second or longer; {text}") if stalls else f"never; {text}"


def _memory(own, view):
    parts = [f"{text} {bytes_text(own[name])}" for name, text in (
        ("max_rss_bytes", "at most"), ("kept_bytes", "kept datagrams")) if own.get(name) is not None]
    return ", ".join(parts)


def _cpu(own, view):
    if own.get("cpu_s") is None:
        return None
    amount, seconds = _since_last(view, "cpu_s")
    now = ratio(amount, seconds)
    text = [] if now is None else [f"{number(now * 100)} % of a core now"]
    whole = ratio(own["cpu_s"], own.get("uptime_s"))
    if whole is not None:
        text.append(f"{number(whole * 100)} % since the start")
    return ", ".join([*text, f"{duration(own['cpu_s'])} in all"])


def _http(own, view):
    http = own.get("http")
    if not http:
        return None
    text = ", ".join((f"{counted(http.get('connections'), 'connection', 'connections')} now",
                      f"{_count(http.get('accepted'))} in all", counted(http.get("requests"), "request", "requests")))
    wrong = [f"{_count(http[name])} {what}" for name, what in (
        ("errors", "requests answered with an error"), ("refused", "connections refused (--max-connections)"),
        ("wrong_tokens", "wrong tokens")) if http.get(name)]
    # a wrong path is not the collector's trouble; a reader that found no place is
    return (Wrong if http.get("refused") else str)("; ".join([text, *wrong]))


def _helpers(own, view):
    held = own.get("helpers")
    if not held:
        return None
    text = f"{_count(held.get('started'))} started"
    return Wrong(f"{text}, {_count(held['failed'])} failed") if held.get("failed") else text


def _log_lost(own, view):
    return Wrong(f"{counted(own['log_lines_lost'], 'line', 'lines')} lost: see its --log-file") if own.get(
        "log_lines_lost") else None


def _version(own, view):
    parts = [f"{text} {own[name]}" for name, text in (("version", "modwsgi-tel"), ("pid", "pid"))
             if own.get(name) is not None]
    if own.get("uptime_s") is not None:
        parts.append(f"up {duration(own['uptime_s'])}")
    return ", ".join(parts)


ROWS = (("collector", _version), ("socket", _socket), ("received", _received), ("by kind", _kinds), ("lost", _lost),
        ("wrong", _wrong), ("bounds", _bounds), ("stood still", _stalls), ("cpu", _cpu), ("memory", _memory),
        ("http", _http), ("recording", _recording), ("helpers", _helpers), ("early", _orphans), ("log", _log_lost))


# --- below them -----------------------------------------------------------------------------

def wrong_lines(own, wall, cols, glyphs):
    """The last datagrams that were refused, newest first: when, from whom, why, how they begin."""
    found = (own.get("wrong_last") or [])[-_WRONG_MOST:][::-1]
    lines = [line(Span(clip(" refused last", cols, glyphs), "head"))] if found else []
    for each in found:
        text = (f" {clock(each.get('received'), wall):<8} pid {each.get('sender_pid')} uid {each.get('sender_uid')}  "
                f"{each.get('reason')}: {each.get('detail')}")
        head = f"{_count(each.get('bytes'))} B {str(each.get('head') or '')[:16 if cols < 120 else 64]}"
        room = cols - len(head) - 2
        text = safe(text, glyphs)
        lines.append(line(pad(text, room, glyphs), "  ", Span(safe(head, glyphs), "dim")) if room >= 40 else
                     line(clip(text, cols, glyphs)))
    return lines


def log_lines(view, rows, cols, glyphs):
    """What the collector logged, the newest last; as many lines as there is room for, but some in any case."""
    logged = list(view.get("log") or ())[-min(_LOG_LINES, max(5, rows - 1)):]
    head = [line(Span(clip(" its log", cols, glyphs), "head"))] if logged else []
    return head + [line(clip(" " + safe(str(each), glyphs), cols, glyphs)) for each in logged]


PANE = Pane("collector", ("i", "8"), "collector", paths, body)
