"""Stacks for people: what threads do, grouped, like a traceback; one line a thread; several looks side by side.

Nothing here reads anything: a Stacks goes in, text comes out.  `sources`, where given, is asked for
source lines: `.line(file, number)` -> text or None, `.changed(file)` -> whether it is newer than the process.
"""
import re
import time

from modwsgi_tel.figures import counted, duration
from modwsgi_tel.printable import printable
from modwsgi_tel.stacks.compare import (ABSENT, CAME, ENDED, LINES, MOVED, SHOWN_ROUNDS, STAYED, UNREAD, folded, grouped,
                                        grouped_looks, rank, waits_at, without_idle)
from modwsgi_tel.stacks.model import DISK, GONE, MOVING, RUNNING, STOPPED, UNKNOWN, WAITING, is_whole

INDENT = "    "                         # of what belongs to the line above
TIDS_MOST = 12                          # of the threads of one group that are named
NAME_MOST, FILE_MOST, TEXT_MOST = 120, 400, 200     # letters
BOOTSTRAP = ("_bootstrap", "_bootstrap_inner", "run")    # of threading.py: how every Thread begins
BUSY = 0.2                              # CPU seconds a second, above which a thread that stays at a place works there
CUT = "..."
KNOWN = ("environ", "agent")            # a request that is no guess
# how agents, and who hands a look on, say that frames are missing in the middle of a stack
_LEFT_OUT = re.compile(r"cut: (\d{1,9})(?: of \d{1,9})? frames (?:in the middle|left out after the innermost (\d{1,9}))")

_STATES = {RUNNING: "running", WAITING: "waiting", DISK: "waiting for a disk", STOPPED: "stopped", GONE: "has ended",
           UNKNOWN: "state not known"}


# --- pieces -----------------------------------------------------------------------------------

def _clip(text, most):
    """Printable text of at most `most` letters; None for no limit."""
    return text if most is None or len(text) <= most else text[:max(0, most - len(CUT))] + CUT


def _shown(text, most):
    """Text of the target, printable, cut in its middle: both ends of a path tell."""
    text = printable(text[:2 * most] + text[-2 * most:] if len(text) > 4 * most else text)
    if len(text) <= most:
        return text
    front = most // 3
    return text[:front] + CUT + text[len(text) - (most - front - len(CUT)):]


def _wrapped(parts, width, front=""):
    """Lines of parts, two spaces between, behind `front`; further lines are indented.

    A part is broken only when a line of its own has no room for it, a word never.
    """
    lines, line, indent = [], front, front + INDENT
    for part in filter(None, parts):
        joined = f"{line}  {part}" if line.strip() else line + part
        if width is None or len(joined) <= width:
            line = joined
            continue
        if line.strip():
            lines.append(line)
            line = indent
        for word in part.split(" "):
            joined = f"{line} {word}" if line.strip() else line + word
            if len(joined) > width and line.strip():
                lines.append(line)
                joined = indent + word
            line = joined
    return [*lines, line] if line.strip() else lines


def _tid(thread):
    return "?" if thread.tid is None else str(thread.tid)


def _named(thread):
    if thread.tid is None and thread.name is not None:
        return f'"{_shown(thread.name, NAME_MOST)}"'
    return f"{_tid(thread)} (no name)" if thread.name is None else f'{_tid(thread)} "{_shown(thread.name, NAME_MOST)}"'


def _tids(threads):
    """`124, 125, 130-139 and 80 more`."""
    runs = []
    for tid in sorted(thread.tid for thread in threads if thread.tid is not None):
        if runs and tid == runs[-1][1] + 1:
            runs[-1][1] = tid
        else:
            runs.append([tid, tid])
    unknown = sum(thread.tid is None for thread in threads)
    told = [str(first) if first == last else f"{first}, {last}" if last == first + 1 else f"{first}-{last}"
            for first, last in runs[:TIDS_MOST]]
    more = sum(last - first + 1 for first, last in runs[TIDS_MOST:])
    text = ", ".join(told)
    if more:
        text += f" and {more:,} more"
    if unknown:
        text += f"{' and ' if text else ''}{unknown:,} whose tid is not known"
    return text


def _state(thread):
    """`running`, `waiting in futex (futex_do_wait)`."""
    text = _STATES.get(thread.state, _STATES[UNKNOWN])
    if thread.wait and thread.state in (WAITING, DISK):
        text += f" in {_shown(thread.wait, NAME_MOST)}"
    return text


def _cpu(seconds):
    return f"{duration(seconds)} CPU"


def _problem(thread):
    if is_whole(thread):
        return ""
    return "[moving]" if thread.problem == MOVING else f"[{_shown(thread.problem, TEXT_MOST)}]"


def _request(request):
    if request is None:
        return ""
    words = ["request", *(_shown(word, TEXT_MOST) for word in (request.request_id or "(id not known)", request.method,
                                                               request.path) if word)]
    return " ".join(words) if request.how in KNOWN else f"{' '.join(words)} (a guess: {_shown(request.how, TEXT_MOST)})"


def _facts(thread):
    """What is said of a thread besides who it is and what it serves: texts."""
    return ("holds the GIL" if thread.owns_gil else "", _state(thread), _problem(thread))


def _title(group, width, interpreter=False):
    """Lines that say who has a stack: those of whom the same is said in one, and their requests below."""
    same = {}
    for thread in group:
        same.setdefault(_facts(thread), []).append(thread)
    lines = []
    for (gil, state, problem), threads in same.items():
        told = [thread.cpu_s for thread in threads if thread.cpu_s]
        if told:
            state += f", {_cpu(sum(told))}" + (" in all" if len(threads) > 1 else "")
        rest = threads if lines else threads[1:]
        who = f"and {len(rest):,} more: {_tids(rest)}" if rest else ""
        request = _request(threads[0].request) if len(group) == 1 else ""
        names = [who] if lines else [f"Thread {_named(threads[0])}", who and f"({who})"]
        where = f"interpreter {group[0].interpreter}" if interpreter and not lines else ""
        lines += _wrapped([*names, where, gil, state, problem, request], width, "  " if lines else "")
    if len(group) > 1:
        served = [thread for thread in group if thread.request is not None]
        for thread in served[:TIDS_MOST]:
            lines += _wrapped([f"{_tid(thread)}: {_request(thread.request)}"], width, INDENT)
        if len(served) > TIDS_MOST:
            lines.append(f"{INDENT}and {counted(len(served) - TIDS_MOST, 'more request')}")
    return lines


# --- a stack like a traceback -----------------------------------------------------------------

class _Sources:
    """Source lines for one text: a file that is newer than the process is said so in full once."""

    def __init__(self, sources):
        self._sources = sources
        self._said = set()

    def line(self, frame, room):
        """A line of at most `room` letters, or None."""
        found = None if self._sources is None or frame.line is None else self._sources.line(frame.file, frame.line)
        if not found:
            return None
        mark = ""
        if self._sources.changed(frame.file):
            mark = "  (newer)" if frame.file in self._said else "  (file is newer than the process)"
            self._said.add(frame.file)
        return _clip(printable(found), None if room is None else max(8, room - len(mark))) + mark


def _file_lines(frame, width):
    """The line that names a place, as Python has it; the path apart where both have no room in a line."""
    file = f'  File "{_shown(frame.file, FILE_MOST)}",'
    place = f"line {'?' if frame.line is None else frame.line}, in {_shown(frame.function, NAME_MOST)}"
    whole = f"{file} {place}"
    return [whole] if width is None or len(whole) <= width else [file, f"      {place}"]


def _stack(frames, values, sources, width, interpreter=None):
    """Lines of frames (innermost first) in Python's order; values: for each frame, or None."""
    frames, lines = tuple(reversed(frames)), []
    if values and len(values) == len(frames):
        values = tuple(reversed(values))
    else:
        begin = _bootstrap(frames)
        if begin:
            frames = frames[begin:]
            lines.append(f"  [threading.py: {', '.join(BOOTSTRAP[:begin])}]")
        values = ((),) * len(frames)
    for index, count, rounds in folded(frames):
        if index is None:
            what = "Previous line" if count == 1 else f"Previous {count} lines"
            lines.append(f"  [{what} repeated {rounds:,} more time{'s' if rounds != 1 else ''}]")
            continue
        frame = frames[index]
        if interpreter is not None and frame.interpreter != interpreter:
            lines.append(f"  [in interpreter {frame.interpreter} from here]")
            interpreter = frame.interpreter
        lines += _file_lines(frame, width)
        source = sources.line(frame, None if width is None else width - len(INDENT))
        if source is not None:
            lines.append(INDENT + source)
        lines += [_clip(f"      {_shown(name, NAME_MOST)} = {_shown(value, 4 * TEXT_MOST)}", width)
                  for name, value in values[index]]
    return lines


def _bootstrap(frames):
    """How many of the outermost frames are those of every Thread, when there are others inside of them."""
    count = 0
    for frame, name in zip(frames, BOOTSTRAP):
        if frame.function.rpartition(".")[2] != name or frame.file.rpartition("/")[2] != "threading.py" or (
                frame.interpreter != frames[0].interpreter):
            break
        count += 1
    return count if 1 < count < len(frames) else 0


def _thread_stack(thread, sources, width, interpreter=None):
    """Lines of one ThreadStack, and what is missing where it is missing: of a cut stack its outer frames, where it does not say that
    others are."""
    if is_whole(thread):
        if not thread.frames:
            return ["  (no Python frames)"]
        return _stack(thread.frames, thread.values, sources, width, interpreter)
    left_out = _LEFT_OUT.match(thread.problem)
    if left_out and thread.frames:
        count, inner = left_out.groups()
        inner = len(thread.frames) // 2 if inner is None else min(int(inner), len(thread.frames))
        parts = [(thread.frames[part], (thread.values or ())[part]) for part in (slice(inner, None), slice(inner))]
        (outer, _), _ = parts
        return [*_stack(*parts[0], sources, width, interpreter), f"  [{int(count):,} frames are left out here]",
                *_stack(*parts[1], sources, width, interpreter if interpreter is None or not outer else outer[0].interpreter)]
    if thread.problem == MOVING:
        gap = "it ran on while it was read" + (": these frames need not belong together" if thread.frames else ", at every try")
    else:
        gap = "what called this could not be read" if thread.frames else "nothing of it could be read"
    return [f"  [{gap}]", *_stack(thread.frames, thread.values, sources, width, interpreter)]


# --- one look ---------------------------------------------------------------------------------

def text(stacks, looks=(), sources=None, width=80, idle=True, flat=False, requests=False, meant=1):
    """The text of one process: a Stacks, or of several looks at it (`looks`, `stacks` being the last of them).

    width: columns, None for lines as long as they are.  idle: whether threads with nothing to do
    are shown.  flat: a line a thread.  requests: whether requests were looked for.  meant: how many
    looks there were to be.
    """
    if flat:
        lines = _flat(stacks, width, idle)
    elif len(looks) > 1:
        lines = _several(looks, sources, width, meant)
    else:
        lines = _head(stacks, width, requests, f"1 of {meant:,} looks" if meant > 1 else "") + _one(stacks, sources, width, idle)
    return "\n".join(lines) + "\n"


def not_whole(processes):
    """Closing lines about stacks that moved or were cut, of all processes (Stacks) shown; [] when all are whole."""
    threads = [thread for stacks in processes for thread in stacks.threads]
    moving = sum(thread.problem == MOVING for thread in threads)
    cut = sum(not is_whole(thread) for thread in threads) - moving
    lines = []
    if moving:
        lines.append(f"{moving:,} of {counted(len(threads), 'stack')} moved while "
                     f"{'it was' if moving == 1 else 'they were'} read: run again, or with --stop")
    if cut:
        lines.append(f"{cut:,} of {counted(len(threads), 'stack')} could not be read whole: marked with [cut: ...]")
    return lines


def _head(stacks, width, requests=False, looks=""):
    """Lines about the process."""
    pid = f"pid {stacks.pid}" + (f" ({stacks.inner_pid} in its own namespace)" if stacks.inner_pid is not None else "")
    when = "" if stacks.at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stacks.at))
    lines = _wrapped([pid, f"Python {printable(stacks.python) or '?'}", when, looks], width)
    if stacks.command:
        lines.append(_clip("  " + _shown(stacks.command, 4 * TEXT_MOST), width))
    counts = {}
    for thread in stacks.threads:
        word = "idle" if thread.idle else _STATES.get(thread.state, _STATES[UNKNOWN])
        counts[word] = counts.get(word, 0) + 1
    order = [*_STATES.values(), "idle"]
    told = ", ".join(f"{counts[word]:,} {word}" for word in order if word in counts)
    lines += _wrapped([f"{counted(len(stacks.threads), 'thread')}: {told or 'none with a Python state'}", _gil(stacks),
                       _interpreters(stacks), _without_requests(stacks) if requests else ""], width, "  ")
    if stacks.problem:
        lines += _wrapped([f"not all is shown: {_shown(stacks.problem, 2 * TEXT_MOST)}"], width, "  ")
    return lines


def _without_requests(stacks):
    """What is said where no thread has a request, or ""."""
    if any(thread.request for thread in stacks.threads):
        return ""
    # agents know each request; of what they do not see they say so
    told = stacks.threads and not stacks.problem and all(thread.owns_gil is None for thread in stacks.threads)
    return "no request in flight" if told else "requests are not known"


def _gil(stacks):
    owners = [thread for thread in stacks.threads if thread.owns_gil]
    if not owners:
        return "" if stacks.threads and all(thread.owns_gil is None for thread in stacks.threads) else "GIL: nobody holds it"
    several = len(owners) > 1
    return "GIL: " + ", ".join(f"thread {_named(each)}" + (f" in interpreter {each.interpreter}" if several else "")
                               for each in owners)


def _interpreters(stacks):
    if len(stacks.interpreters) < 2:
        return ""
    return f"{len(stacks.interpreters)} interpreters: {', '.join(map(str, stacks.interpreters[:TIDS_MOST]))}" + (
        ", " + CUT if len(stacks.interpreters) > TIDS_MOST else "")


def _one(stacks, sources, width, idle):
    """Lines of the threads at one look."""
    sources = _Sources(sources)
    several = len(stacks.interpreters) > 1
    busy = without_idle(stacks.threads)
    bare = [thread for thread in busy if _is_bare(thread)]
    lines = []
    for number, threads in _by_interpreter(thread for thread in busy if not _is_bare(thread)):
        if several:
            lines += ["", f"== Interpreter {number}: {counted(len(threads), 'thread')} =="]
        for group in grouped(threads):
            outermost = group[0].frames[-1].interpreter if group[0].frames else None
            lines += ["", *_title(group, width), *_thread_stack(group[0], sources, width, outermost)]
    resting = [thread for thread in stacks.threads if thread.idle]
    below = _in_short([*bare, *(resting if idle else ())], width, several)
    if resting and not idle:
        below.append(f"{counted(len(resting), 'idle thread')} not shown")
    return [*lines, "", *below] if below else lines


def _is_bare(thread):
    """Whether there is no more to say of a thread than that it waits, outside of Python: as a server's main thread does."""
    return (not thread.frames and is_whole(thread) and thread.state == WAITING and not thread.owns_gil and not thread.idle
            and thread.request is None)


def _by_interpreter(threads):
    """[(id, [ThreadStack])], the one with the most pressing thread first."""
    found = {}
    for thread in threads:
        found.setdefault(thread.interpreter, []).append(thread)
    return sorted(found.items(), key=lambda item: (min(map(rank, item[1])), item[0]))


def _in_short(threads, width, several):
    """Lines of threads that have nothing to do, or no frames: where they wait, and who."""
    lines = []
    for group in grouped([thread._replace(values=None) for thread in threads]):
        first = group[0]
        what = counted(len(group), "idle thread" if first.idle else "thread")
        what += f" in {_call(waits_at(first.frames))}" if first.frames else " with no Python frames"
        if several:
            what += f", interpreter {first.interpreter}"
        waits = sorted({_shown(thread.wait, NAME_MOST) for thread in group if thread.wait})
        what += f", waiting in {' or '.join(waits[:3])}" if waits else ", waiting"
        lines += _wrapped([f"{what}: {_named(first) if len(group) == 1 and first.name else _tids(group)}"], width)
    return lines


# --- a line a thread --------------------------------------------------------------------------

def _short(file):
    """The last two parts of a path."""
    return _shown("/".join(file.split("/")[-2:]), NAME_MOST)


def _at(frame):
    return f"{_short(frame.file)}:{'?' if frame.line is None else frame.line}"


def _call(frame):
    return f"{_shown(frame.function, NAME_MOST)} ({_at(frame)})"


def _calls(frames):
    """Texts of frames in their order; a recursion once, with its count."""
    out = []
    for index, count, rounds in folded(frames):
        if index is not None:
            out.append(_call(frames[index]))
        else:
            del out[len(out) - count * (SHOWN_ROUNDS - 1):]
            out[-1] += f" {'x' if count == 1 else f'({count} calls) x'} {rounds + SHOWN_ROUNDS:,}"
    return out


def _flat(stacks, width, idle):
    """A line a thread: pid, tid, name, state, GIL, the innermost frame whole, and its callers."""
    threads = sorted(stacks.threads if idle else without_idle(stacks.threads), key=rank)
    rows = []
    for thread in threads:
        state = "idle" if thread.idle else thread.state
        if not is_whole(thread):
            state += ",moving" if thread.problem == MOVING else ",cut"
        name = "-" if thread.name is None else _shown(thread.name, 24)
        rows.append((str(stacks.pid), _tid(thread), name, state, "GIL" if thread.owns_gil else "-"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for thread, row in zip(threads, rows):
        where = "(no Python frames)"
        if thread.frames:
            frame = thread.frames[0]
            inner = (f"{_shown(frame.function, NAME_MOST)} {_shown(frame.file, FILE_MOST)}:"
                     f"{'?' if frame.line is None else frame.line}")
            where = " <- ".join([inner, *_calls(thread.frames[1:])])
        if not is_whole(thread):
            where += f" {_problem(thread)}"
        lines.append(_clip("  ".join(cell.ljust(size) for cell, size in zip(row, widths)) + "  " + where, width))
    return lines


# --- several looks ----------------------------------------------------------------------------

def _several(looks, sources, width, meant):
    """Lines of what stayed and what moved between several looks at one process."""
    times = [stacks.at for stacks in looks]
    over = 0.0 if None in times else times[-1] - times[0]
    told = f" in {duration(over)}" if over > 0 else ""
    lines = _head(looks[-1], width, looks=f"the last of {len(looks):,}{f' of {meant:,}' if meant > len(looks) else ''} looks{told}")
    sources, hidden, bare, several = _Sources(sources), 0, [], len(looks[-1].interpreters) > 1
    for group in grouped_looks(looks):
        compared = group[0]
        there = [look for look in compared.looks if look.thread is not None]
        if all(look.thread.idle for look in there):
            hidden += len(group)
            continue
        threads = tuple(next(look.thread for look in reversed(each.looks) if look.thread is not None) for each in group)
        if all(_is_bare(look.thread) or look.thread.idle for look in there):
            bare += threads
            continue
        lines += ["", *_title(threads, width, several)]
        lines += _wrapped([_verdict(group, over)], width, "  ")
        lines += _stack(compared.common, (), sources, width)
        if any(is_whole(look.thread) for look in there) and not any(look.thread.frames for look in there):
            lines.append("  (no Python frames)")
        if any(look.hot or look.what in (UNREAD, ABSENT, CAME, ENDED) for look in compared.looks):
            lines += _moves(compared, looks, width)
    if bare:
        lines += ["", *_in_short(bare, width, several)]
    nameless = max(sum(thread.tid is None for thread in stacks.threads) for stacks in looks)
    if nameless:
        lines += ["", f"{counted(nameless, 'thread')} whose tid is not known: cannot be told apart between looks"]
    if hidden:
        lines += ["", f"{counted(hidden, 'thread')} idle at every look: not shown"]
    return lines


def _verdict(group, over):
    """One sentence: how often the threads of a group stayed in `over` seconds, and what CPU they used together."""
    counts = {}
    for look in group[0].looks:
        counts[look.what] = counts.get(look.what, 0) + 1
    read = sum(look.thread is not None and look.what != UNREAD for look in group[0].looks)
    told = [look.thread.cpu_s for each in group for look in each.looks[1:] if look.thread is not None
            and look.thread.cpu_s is not None]
    used = f", {_cpu(sum(told))} used" if sum(told) else ", no CPU used" if told else ""
    moved = counts.get(MOVED, 0) + counts.get(LINES, 0)
    if not read:
        return f"never read whole in {len(group[0].looks)} looks{used}"
    if read == 1:
        return f"read whole at one look only{used}"
    if not moved:
        share = sum(told) / len(group) / over if told and over > 0 else None
        sense = "" if share is None else ": works there" if share >= BUSY else ": waits there" + ("" if share else " or is stuck")
        how_many = "both looks" if read == 2 else f"all {read} looks"
        return f"the same place at {how_many if read == len(group[0].looks) else f'{read} looks'}{used}{sense}"
    lines = f" ({counts[LINES]} within the same functions)" if counts.get(LINES) else ""
    stayed = counts.get(STAYED, 0)
    return f"moved {counted(moved, 'time')}{lines}, {'stayed ' + counted(stayed, 'time') if stayed else 'never stayed'}{used}"


def _moves(compared, looks, width):
    """A line for each look: when, what the thread did, and where it was inside of the common part."""
    lines = [_clip("  -- this far the same at every look; from here on: --" if compared.common else "  -- at each look: --", width)]
    shown, first = [], looks[0].at
    for look, stacks in zip(compared.looks, looks):
        when = "?" if None in (first, stacks.at) else f"+{stacks.at - first:.1f} s"
        if look.thread is None:
            state, where = "", "not there yet" if look.what == ABSENT else "not there any more"
        else:
            thread = look.thread
            state = ("GIL, " if thread.owns_gil else "") + _STATES.get(thread.state, _STATES[UNKNOWN])
            if thread.cpu_s:
                state += f" {_cpu(thread.cpu_s)}"
            if look.what == UNREAD:
                where = _problem(thread)
            elif look.what == STAYED:
                where = "the same"
            else:
                where = _chain(look.hot, None if width is None else max(24, width - 32))
        shown.append((when, state, where))
    sizes = [max(len(row[place]) for row in shown) for place in range(2)]
    for when, state, where in shown:
        lines.append(_clip(f"  {when.rjust(sizes[0])}  {state.ljust(sizes[1])}  {where}".rstrip(), width))
    return lines


def _chain(frames, most):
    """`a (x.py:1) > b (y.py:2)`: the outer ones are left out where there is no room."""
    if not frames:
        return "in the line above"
    calls = _calls(tuple(reversed(frames)))
    text = " > ".join(calls)
    while most is not None and len(text) > most and len(calls) > 1:
        calls.pop(0)
        text = " > ".join([CUT, *calls])
    return text
