"""Stacks as Lines: those of a process, and what an opened process and an opened slow request show of theirs.

What another process says of itself is not believed: `threads_of` takes any JSON.  Innermost frames
are on top: on a small screen, where it is has to be seen first.
"""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, cell_width, clip, fit, line, pad, safe, width
from modwsgi_tel.console.words import counted, figure, missing, seconds, wrapped
from modwsgi_tel.figures import UNKNOWN, duration
from modwsgi_tel.stacks.compare import folded, grouped, without_idle
from modwsgi_tel.stacks.model import DISK, MOVING, RUNNING, WAITING, Frame, Request, ThreadStack, is_whole
from modwsgi_tel.stacks.model import UNKNOWN as NO_STATE

TEXT_MOST = 400                         # letters that are looked at of a name
TIDS_MOST = 8                           # of the threads of a group that are named
FRESH_S = 4.0                           # stacks that are no older are those that were asked for
SAID_MOST = 6                           # Lines of a sentence
SHORT_GROUPS, SHORT_FRAMES = 5, 4       # of a process that has other things to show too
WHYS = {"slow": "a request was slow", "silent": "it was silent", "asked": "asked for", "agent": "asked for, as its agent tells"}
JOINS = {"environ": "known by the id in its environ", "mod_wsgi.thread_id": "known by the thread's number in its environ",
         "agent": "known by its agent"}
KNOWN = ("environ", "agent")            # a request that is no guess
NOT_HERE = "This collector takes no stacks."
STATE = "/api/stacks?limit=0"            # what of all that is no stack: counters, and why none can be read
_UNKNOWN_PATH = "no such path"          # how a collector from before there were stacks answers
_STATES = {RUNNING: "running", WAITING: "waiting", DISK: "waiting for a disk"}


# --- any JSON to threads ------------------------------------------------------------------------

def text_of(value):
    return value[-TEXT_MOST:] if isinstance(value, str) else ""


def whole_of(value):
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def dicts_of(value):
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def frames_of(told):
    """Frames of {"frames": [...]}, innermost first."""
    return tuple(Frame(text_of(each.get("function")) or UNKNOWN, text_of(each.get("file")) or UNKNOWN, whole_of(each.get("line")),
                       whole_of(each.get("interpreter")) or 0) for each in dicts_of(told.get("frames")))


def _problem(told):
    return text_of(told.get("problem")) or (None if told.get("whole", True) else "cut: the collector does not say why")


def _request(told):
    if not isinstance(told, dict):
        return None
    return Request(*(text_of(told.get(name)) or None for name in ("request_id", "thread_id", "method", "path")),
                   text_of(told.get("how")))


def threads_of(row):
    """ThreadStacks of what /api/stacks tells of a process."""
    return [ThreadStack(whole_of(each.get("tid")), text_of(each.get("name")) or None, whole_of(each.get("interpreter")) or 0,
                        bool(each.get("owns_gil")), text_of(each.get("state")) or NO_STATE, text_of(each.get("wait")) or None,
                        each.get("cpu_s") if isinstance(each.get("cpu_s"), (int, float)) else None, bool(each.get("idle")),
                        _problem(each), frames_of(each), None, _request(each.get("request")))
            for each in dicts_of(row.get("threads"))]


# --- words --------------------------------------------------------------------------------------

def _ending(text, cols):
    """The longest end of printable text that takes at most `cols` cells."""
    at, room = len(text), cols
    while at and room >= cell_width(text[at - 1]):
        at -= 1
        room -= cell_width(text[at])
    while at < len(text) and not cell_width(text[at]):
        at += 1                         # a mark without its letter
    return text[at:]


def _path(frame, cols, glyphs):
    """`/srv/app/views.py:12`; where there is no room, its end is what tells: `…/app/views.py:12`."""
    text = f"{safe(frame.file, glyphs)}:{UNKNOWN if frame.line is None else frame.line}"
    if width(text) <= cols:
        return text
    # a lone ~ in front of a slash would be somebody's home
    mark = "..." if glyphs.cut.isascii() else glyphs.cut
    if cols <= 2 * len(mark):
        return clip(text, cols, glyphs)
    end = _ending(text, cols - len(mark))
    slash = end.find("/")
    return mark + (end[slash:] if 0 <= slash < len(end) // 2 else end)


def place_words(frame, glyphs):
    """`re/__init__.py:166 match`: the last two parts of the file's path, and the function."""
    last = frame._replace(file="/".join(frame.file.split("/")[-2:]))
    return f"{_path(last, 60, glyphs)} {clip(safe(frame.function, glyphs), 40, glyphs)}"


def _tid(thread):
    return UNKNOWN if thread.tid is None else str(thread.tid)


def _tids(threads):
    tids = sorted(threads, key=lambda thread: (thread.tid is None, thread.tid))
    told = ", ".join(_tid(thread) for thread in tids[:TIDS_MOST])
    return told + (f" and {len(tids) - TIDS_MOST:,} more" if len(tids) > TIDS_MOST else "")


def _state(thread, glyphs):
    """`waiting in futex (futex_do_wait)`."""
    text = _STATES.get(thread.state) or safe(thread.state, glyphs)
    waits = thread.wait and thread.state in (WAITING, DISK)
    return f"{text} in {clip(safe(thread.wait, glyphs), 60, glyphs)}" if waits else text


def _states(threads, glyphs):
    """`running`; of several that differ `2 running, 1 waiting in poll`."""
    counts = {}
    for thread in threads:
        told = _state(thread, glyphs)
        counts[told] = counts.get(told, 0) + 1
    return ", ".join(told if len(counts) == 1 else f"{count} {told}" for told, count in list(counts.items())[:4])


def _request_words(request, glyphs):
    told = [safe(word, glyphs) for word in (request.method, request.path) if word]
    if request.request_id:
        told.append(f"(log id {safe(request.request_id, glyphs)})")
    if request.how not in KNOWN:
        told.append(f"({safe(request.how, glyphs) or 'how is not told'})")
    return " ".join(told) or UNKNOWN


def _title(group, several, glyphs):
    """Who has a stack, in one text: of one thread all, of several what they have in common."""
    first = group[0]
    if len(group) == 1:
        name = "" if first.name is None else f'"{clip(safe(first.name, glyphs), 40, glyphs)}"'
        tid = "" if first.tid is None and name else _tid(first)
        told = [" ".join(filter(None, ("thread", tid, name)))]
    else:
        told = [f"{len(group):,} threads"]
    if first.idle:
        told[0] = f"{told[0]}, idle"
    if first.owns_gil:
        told.append("holds the GIL" if len(group) == 1 else f"{_tid(first)} holds the GIL")
    if several:
        told.append(f"interpreter {first.interpreter}")
    told.append(_states(group, glyphs))
    used = [thread.cpu_s for thread in group if thread.cpu_s]
    if used:
        told.append(f"{figure(duration(sum(used)), glyphs)} CPU")
    if len(group) > 1:
        told.append(_tids(group))
    return "  ".join(told)


# --- stacks as rows: Lines, and frames that become Lines when they are seen -----------------------

_Row = namedtuple("_Row", "frame place cols")
_Row.__doc__ = """A frame: its place from the innermost, cells of the column of functions."""


def share_of(frames, cols):
    """Cells of the column of functions, for rows of these frames."""
    room, known = max(2, cols - 4), frames[:200]
    names = max((len(frame.function) for frame in known), default=0)
    paths = max((len(frame.file) + len(str(frame.line)) + 1 for frame in known), default=0)
    return names if names + paths <= room or names <= room // 2 else max(room // 2, room - paths)


def rows_of(frames, cols, share=None):
    """Rows of frames, innermost first; a recursion is folded.  share: as share_of, of more frames than these."""
    share = share_of(frames, cols) if share is None else share
    out, interpreter = [], frames[0].interpreter if frames else 0
    for index, count, rounds in folded(frames):
        if index is None:
            what = "the frame above" if count == 1 else f"the {count} frames above"
            out.append(line(Span(f"   [{what}, {counted(rounds, 'more time')}]", "dim")))
            continue
        frame = frames[index]
        if frame.interpreter != interpreter:
            interpreter = frame.interpreter
            out.append(line(Span(f"   [in interpreter {interpreter} from here]", "dim")))
        out.append(_Row(frame, index, share))
    return out


def drawn(row, cols, glyphs):
    """The Line of a row."""
    if not isinstance(row, _Row):
        return fit(row, cols, glyphs)
    frame = row.frame
    room = max(0, cols - row.cols - 4)
    name = pad(safe(frame.function, glyphs), row.cols, glyphs)
    path = _path(frame, room, glyphs)
    return fit(line(Span(f"   {name} ", "" if row.place else "bold"), Span(path, "dim" if row.place else "")), cols, glyphs)


def sentence(text, cols, style, glyphs, indent=" "):
    return [line(Span(indent + each, style)) for each in wrapped(text, max(1, cols - len(indent)), glyphs, SAID_MOST)]


def _stack(thread, cols, glyphs):
    """Rows of one ThreadStack, with what is wrong with it where it is."""
    frames = rows_of(thread.frames, cols)
    if is_whole(thread):
        return frames or [line(Span("   (no Python frames)", "dim"))]
    if thread.problem == MOVING:
        told = "moving: it ran on while it was read" + ("; these frames need not belong together" if frames else "")
        return [*sentence(f"[{told}]", cols, "warn", glyphs, "   "), *frames]
    # the outer frames are what is missing, where nothing else is said
    told, inner = sentence(f"[{safe(thread.problem, glyphs)}]", cols, "warn", glyphs, "   "), _inner(thread)
    if inner is None:
        return [*frames, *told]
    share = share_of(thread.frames, cols)
    return [*rows_of(thread.frames[:inner], cols, share), *told, *rows_of(thread.frames[inner:], cols, share)]


def _inner(thread):
    """How many frames stand inside of those that are left out of the middle of a stack; None where it is not the middle."""
    _, found, after = thread.problem.partition(" left out after the innermost ")
    if found and after.isascii() and after.isdigit() and len(after) < 10:
        return min(int(after), len(thread.frames))
    return len(thread.frames) // 2 if thread.problem.endswith(" frames in the middle") else None


def _requests(group, cols, glyphs):
    served = [thread for thread in group if thread.request is not None]
    rows = []
    for thread in served[:TIDS_MOST]:
        who = f"{_tid(thread)}: " if len(group) > 1 else ""
        rows += sentence(who + _request_words(thread.request, glyphs), cols, "accent", glyphs, "   ")
    if len(served) > TIDS_MOST:
        rows.append(line(Span(f"   and {counted(len(served) - TIDS_MOST, 'more request')}", "accent")))
    return rows


def _head_of(group, several, cols, glyphs):
    style = "dim" if group[0].idle else "warn" if group[0].owns_gil or not is_whole(group[0]) else "bold"
    return [*sentence(_title(group, several, glyphs), cols, style, glyphs), *_requests(group, cols, glyphs)]


def outside(thread):
    """Whether there is no more to say of a thread than that it waits, outside of Python: as a server's main thread does."""
    return (not thread.frames and is_whole(thread) and thread.state == WAITING and not thread.owns_gil and not thread.idle
            and thread.request is None)


def busy_of(threads):
    """Those that do something in Python, as far as is known."""
    return [thread for thread in without_idle(threads) if not outside(thread)]


def grouped_rows(threads, idle, cols, glyphs):
    """Rows of all threads: those with one stack together, the holder of the GIL first, idle ones counted or shown."""
    several = len({thread.interpreter for thread in threads}) > 1
    rows, waiting = [], [thread for thread in threads if outside(thread)]
    for group in grouped([thread for thread in (threads if idle else without_idle(threads)) if not outside(thread)]):
        rows += [line(), *_head_of(group, several, cols, glyphs), *_stack(group[0], cols, glyphs)]
    if waiting:
        told = f"{counted(len(waiting), 'thread')} outside of Python  {_states(waiting, glyphs)}  {_tids(waiting)}"
        rows += [line(), *sentence(told, cols, "dim", glyphs)]
    resting = sum(thread.idle for thread in threads)
    if resting and not idle:
        rows += [line(), line(Span(f" {counted(resting, 'idle thread')}: z shows {'it' if resting == 1 else 'them'}", "dim"))]
    return rows


def counts_words(threads):
    """`3 threads: 1 running, 2 idle`."""
    counts = {}
    for thread in threads:
        told = "idle" if thread.idle else _STATES.get(thread.state, "in another state")
        counts[told] = counts.get(told, 0) + 1
    order = [told for told in (*_STATES.values(), "in another state", "idle") if told in counts]
    return f"{counted(len(threads), 'thread')}: {', '.join(f'{counts[told]} {told}' for told in order) or 'none'}"


def unread_words(threads):
    """`1 moving, 2 cut`, or ""."""
    moving = sum(thread.problem == MOVING for thread in threads)
    cut = sum(not is_whole(thread) for thread in threads) - moving
    return ", ".join(f"{count} {what}" for count, what in ((moving, "moving"), (cut, "cut")) if count)


def gil_words(threads, glyphs):
    """Where the GIL is held: `re/__init__.py:166 match`; or `nobody`, and where the one thread is that does something."""
    owners = [thread for thread in threads if thread.owns_gil]
    if not owners:
        busy = [thread for thread in threads if thread.frames and not thread.idle]
        return "nobody" + (f"; {place_words(busy[0].frames[0], glyphs)}" if len(busy) == 1 else "")
    told = place_words(owners[0].frames[0], glyphs) if owners[0].frames else f"thread {_tid(owners[0])}, no Python frames"
    return told + (f" and {len(owners) - 1} more" if len(owners) > 1 else "")


def taken_words(row, glyphs):
    """`taken 3.2 s ago: a request was slow`."""
    kind, _, more = text_of(row.get("why")).partition(": ")
    why = f"told by its agent: {clip(safe(more, glyphs), 40, glyphs)}" if kind == "agent" and more else WHYS.get(kind)
    return f"taken {seconds(row.get('age_s'), glyphs)} ago" + (f": {why}" if why else "")


# --- what is said instead of stacks, or beside them -----------------------------------------------

def troubles(view, name, cols, glyphs, age_s=None):
    """Lines of why stacks are not there, or are old.

    name: of the answer of /api/stacks that was asked for.  age_s: of the stacks that are shown; new ones need no excuse.
    """
    answer, errors = view.get(name) or {}, view.get("errors") or {}
    if isinstance(answer.get("problem"), str) and answer["problem"]:
        lines = sentence(f"Stacks cannot be read: {safe(answer['problem'], glyphs)}", cols, "warn", glyphs)
    else:
        lines = []
    said = errors.get("asked")
    fresh = isinstance(age_s, (int, float)) and age_s < FRESH_S
    if said and not fresh and answer.get("stacks") != "off" and said != answer.get("problem") and _UNKNOWN_PATH not in said:
        lines += sentence(f"Asked for, not taken: {safe(str(said), glyphs)}", cols, "warn", glyphs)
    return lines


def refuses(view):
    """Whether the collector has said that nobody may ask for stacks, or that it takes none."""
    answer = next((view[name] for name in ("stacks_one", "stacks_state") if name in view), {})
    return answer.get("post") is False or answer.get("stacks") == "off"


def not_there(view, name, cols, glyphs):
    """Lines in place of an answer that there is none of."""
    source, said = view.get("source") or {}, (view.get("errors") or {}).get(name)
    if source.get("no_stacks"):
        return sentence(safe(source["no_stacks"], glyphs), cols, "", glyphs)
    if said and _UNKNOWN_PATH in str(said):
        return sentence(NOT_HERE, cols, "", glyphs)
    return [missing(view, name, glyphs)] if name not in view or said else []


# --- in what others have opened -------------------------------------------------------------------

def gil_line(row, glyphs):
    """A Line that says where the GIL of a process is held; [] where that is not known: its stacks are further below."""
    threads = threads_of(row) if isinstance(row, dict) else ()
    if not any(thread.owns_gil for thread in threads):
        return []
    age = f" {seconds(row.get('age_s'), glyphs)} ago"
    return [line("GIL held in ", Span(gil_words(threads, glyphs), "warn"), Span(age, "dim"))]


def short(row, view, cols, glyphs):
    """Lines of a process's stacks for the view of the process: who is busy and where, the innermost frames of each.

    row: its "stacks", None or absent where there is none.
    """
    said = troubles(view, "stacks_state", cols, glyphs, row.get("age_s") if isinstance(row, dict) else None)
    if not isinstance(row, dict):
        return [line(Span("stacks", "head")), *said] if said else []
    threads = threads_of(row)
    lines = [line(Span("stacks", "head"), Span(f"  {taken_words(row, glyphs)}; {counts_words(threads)}", "dim")), *said]
    several = len({thread.interpreter for thread in threads}) > 1
    groups = grouped(busy_of(threads))
    for group in groups[:SHORT_GROUPS]:
        frames = _stack(group[0], cols, glyphs)
        lines += [*_head_of(group, several, cols, glyphs), *(drawn(each, cols, glyphs) for each in frames[:SHORT_FRAMES])]
        if len(frames) > SHORT_FRAMES:
            lines.append(line(Span(f"   and {counted(len(frames) - SHORT_FRAMES, 'line')} of who called", "dim")))
    if len(groups) > SHORT_GROUPS:
        lines.append(line(Span(f" and {counted(len(groups) - SHORT_GROUPS, 'other stack')}", "dim")))
    return lines


def place_of_request(entry, glyphs):
    """A Line that says where a slow request was, [] where that is not known: its whole stack is further below."""
    told = entry.get("stack") if isinstance(entry.get("stack"), dict) else {}
    frames = frames_of(told)
    if not frames:
        return []
    age = f" {seconds(told.get('age_s'), glyphs)} ago"
    return [line(" in ", Span(place_words(frames[0], glyphs), "bold"), Span(age, "dim"))]


def of_request(entry, view, cols, glyphs, active):
    """Lines of a slow request's stack, for the view of the request; [] where nothing is known of stacks."""
    told = entry.get("stack") if isinstance(entry.get("stack"), dict) else {}
    said = troubles(view, "stacks_state", cols, glyphs, told.get("age_s")) if active else []
    if not told:
        return [line(), *said] if said else []
    thread = ThreadStack(whole_of(told.get("tid")), problem=_problem(told), frames=frames_of(told))
    how, age = text_of(told.get("how")), f"taken {seconds(told.get('age_s'), glyphs)} ago"
    if not how and not thread.frames:
        more = "; S shows those of its process" if active else ""
        head = f"Stack, {age}: {safe(thread.problem or UNKNOWN, glyphs)}{more}"
        return [line(), *sentence(head, cols, "warn", glyphs), *said]
    joined = JOINS.get(how) or safe(how, glyphs) or "how it was joined is not told"
    head = f"Stack of thread {_tid(thread)}, {age}; {joined}"
    return [line(), *sentence(head, cols, "accent" if how in JOINS else "warn", glyphs), *said,
            *(drawn(each, cols, glyphs) for each in _stack(thread, cols, glyphs))]
