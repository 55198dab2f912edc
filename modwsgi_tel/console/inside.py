"""What agents in the applications tell, in what others have opened: a slow request's stacks, a process's measurements.

All of it is told by other people's processes: texts are made safe, and what is no number is not known.
"""
from modwsgi_tel.console.cells import Span, clip, line, safe
from modwsgi_tel.console.draw import Column, table
from modwsgi_tel.console.frames import (dicts_of, drawn, frames_of, of_request, place_of_request, place_words, rows_of, sentence,
                                        share_of, text_of, whole_of)
from modwsgi_tel.console.words import counted, figure, seconds, whole, wrapped
from modwsgi_tel.figures import UNKNOWN, fine, size

# What a thread waits for, in words; who has it is said behind them.
WAITS = {"rlock": "an RLock", "lock": "a lock", "condition": "a condition", "event": "an event", "queue": "a queue",
         "future": "a future", "join": "the end of a thread", "semaphore": "a semaphore", "barrier": "a barrier", "pool": "a pool",
         "socket": "a socket", "subprocess": "a child process"}
SAID_LETTERS = 512                      # that are looked at of what an application says
NEWER_S = 5.0                           # a stack from outside that is so much newer is shown in place of the agent's
VALUE_LINES = 3                         # of the value of a variable
LOOP_FRAMES = 4                         # of what held an event loop
MEMORY_LINES = 10
GROWTH_COLS = 10


def dict_of(value):
    return value if isinstance(value, dict) else {}


def amount_of(value):
    """A number, None for anything else."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def took(told, name, glyphs):
    return seconds(amount_of(told.get(name)), glyphs)


def number_of(told, name, glyphs):
    return whole(whole_of(told.get(name)), glyphs)


def begun(value):
    """The beginning of a text; of a path its end says more: see text_of."""
    return value[:SAID_LETTERS] if isinstance(value, str) else ""


def texts_of(value):
    return [begun(each) for each in value if begun(each)] if isinstance(value, list) else []


def bytes_words(amount):
    """`-3.2 MB`, `+120 kB`."""
    return UNKNOWN if amount is None else ("-" if amount < 0 else "+") + size(abs(amount))


# --- a slow request -------------------------------------------------------------------------------

def of_slow(entry, view, now, cols, glyphs, active):
    """Rows of a slow request's stacks: the newer one whole, by its agent or from outside, of the other where it was."""
    told, outside = dict_of(entry.get("agent")), dict_of(entry.get("stack"))
    if not told:
        return of_request(entry, view, cols, glyphs, active)
    if not dict_of(told.get("last")):
        more = "none has been taken yet" if active else "none was taken"
        rows = [line(), *sentence(f"Its agent watches it; of its stacks {more}.", cols, "dim", glyphs)]
        return rows + (of_request(entry, view, cols, glyphs, active) if outside else [])
    if _from_outside(entry, now):
        hint = _elsewhere("By its agent", _agents_place(entry, now, glyphs), cols, glyphs)
        return [*of_request(entry, view, cols, glyphs, active), line(), *hint]
    rows = [line(), *_stack(entry, now, cols, glyphs)]
    if frames_of(outside):
        where = f"{place_words(frames_of(outside)[0], glyphs)}, {seconds(outside.get('age_s'), glyphs)} ago"
        rows += [line(), *_elsewhere("Read from outside", where, cols, glyphs)]
    return rows


def _elsewhere(how, where, cols, glyphs):
    return sentence(f"{how} it was in {where}; S shows all threads of its process.", cols, "dim", glyphs)


def place_of(entry, now, cols, glyphs):
    """Lines that say where a slow request is, what it waits for, and what ended it; [] where nothing is known."""
    told = dict_of(entry.get("agent"))
    last = dict_of(told.get("last"))
    if not last or _from_outside(entry, now):
        lines = place_of_request(entry, glyphs)
    else:
        frames = frames_of(last)
        common, stacks = frames_of({"frames": told.get("pivot")}), whole_of(told.get("stacks")) or 0
        stays = f", as in all its {whole(stacks, glyphs)} stacks" if stacks > 1 and len(common) == len(frames) else ""
        when = Span(f" {_when(entry, now, glyphs)}{stays}", "dim")
        lines = [line(" in ", Span(place_words(frames[0], glyphs), "bold"), when)] if frames else []
        if stacks > 1 and 0 < len(common) < len(frames):
            lines.append(line(f" all its {whole(stacks, glyphs)} stacks in ", Span(place_words(common[0], glyphs), "bold")))
        if _waits(last, glyphs) and dict_of(last.get("waits")).get("kind") != "sleep":
            lines += sentence(_waits(last, glyphs), cols, "warn", glyphs)
    if text_of(told.get("exception")):
        lines += sentence(f"ended by an exception: {safe(text_of(told['exception']), glyphs)} (x shows where)", cols, "bad", glyphs)
    return lines


def _ended(entry):
    return amount_of(entry.get("ended"))


def _age(entry, now):
    """Seconds since an agent's newest stack of a request was taken; None where that is not known."""
    age, elapsed = amount_of(entry.get("age_s")), amount_of(dict_of(dict_of(entry.get("agent")).get("last")).get("elapsed_s"))
    if age is None or elapsed is None:
        return None
    # its age stands still from its end on, and of a stale one from when it was last heard of
    still = amount_of(entry.get("received")) if entry.get("life") == "stale" else now
    still = still if _ended(entry) is None else _ended(entry)
    return max(0.0, age - elapsed) + max(0.0, (now or 0.0) - (now or 0.0 if still is None else still))


def _when(entry, now, glyphs):
    """`400 ms ago`, of a request that has ended `at 2.0 s`."""
    if _ended(entry) is None:
        return f"{seconds(_age(entry, now), glyphs)} ago"
    return f"at {seconds(amount_of(dict_of(dict_of(entry.get('agent')).get('last')).get('elapsed_s')), glyphs)}"


def _from_outside(entry, now):
    """Whether the stack from outside is the newer one, by NEWER_S: both come every second or so, and the agent's tells more."""
    outside, age = dict_of(entry.get("stack")), _age(entry, now)
    return bool(frames_of(outside)) and age is not None and (amount_of(outside.get("age_s")) or 0.0) + NEWER_S < age


def _agents_place(entry, now, glyphs):
    frames = frames_of(dict_of(dict_of(entry.get("agent")).get("last")))
    return f"{place_words(frames[0], glyphs) if frames else UNKNOWN}, {_when(entry, now, glyphs)}"


def _waits(stack, glyphs):
    """`waits for an RLock, which thread 4711 has: request 0.17`, "" when it waits for nothing."""
    waits = dict_of(stack.get("waits"))
    kind, tid, request = text_of(waits.get("kind")), whole_of(waits.get("owner_tid")), text_of(waits.get("owner_request"))
    if not kind:
        return ""
    if kind == "sleep":
        return "sleeps"
    owner = f"{'' if kind == 'join' else 'which '}thread {tid}{'' if kind == 'join' else ' has'}" if tid else ""
    if request:
        owner = f"{owner}: request {safe(request, glyphs)}" if owner else f"which request {safe(request, glyphs)} has"
    words = WAITS.get(kind) or clip(safe(kind, glyphs), 40, glyphs)
    if not owner and kind == "lock":
        owner = "which does not know its owner"
    return f"waits for {words}" + (f", {owner}" if owner else "")


def annotations(entry, glyphs):
    """[(name, text)] of what the application said of a request."""
    found = dict_of(dict_of(entry.get("agent")).get("annotations"))
    return [(safe(name, glyphs), safe(begun(text), glyphs) or UNKNOWN) for name, text in found.items()]


def _stack(entry, now, cols, glyphs):
    """Rows of an agent's newest stack: what is inside of the part that all its stacks share, then that part; then those before."""
    told = entry["agent"]
    last, stacks = told["last"], whole_of(told.get("stacks"))
    frames, outer = frames_of(last), len(frames_of({"frames": told.get("pivot")}))
    inner = max(0, len(frames) - outer)
    name = f' "{clip(safe(text_of(last.get("thread")), glyphs), 40, glyphs)}"' if text_of(last.get("thread")) else ""
    tid = whole_of(last.get("tid"))
    of = f" of {stacks:,}" if stacks and stacks != last.get("number") else ""
    ago = f", {_when(entry, now, glyphs)}" if _ended(entry) is None else ""
    head = (f"Stack {number_of(last, 'number', glyphs)}{of} by its agent, at {took(last, 'elapsed_s', glyphs)}{ago}: "
            f"thread {UNKNOWN if tid is None else tid}{name}")
    rows = sentence(head, cols, "accent", glyphs)
    cpu = amount_of(last.get("cpu_s"))
    doing = [safe(text_of(last.get("state")), glyphs), "" if cpu is None else f"{seconds(cpu, glyphs)} CPU"]
    if any(doing):
        rows += sentence(", ".join(filter(None, doing)), cols, "", glyphs)
    if text_of(last.get("problem")):
        rows += sentence(f"[{safe(text_of(last['problem']), glyphs)}]", cols, "warn", glyphs, "   ")
    marks = []
    left_out = whole_of(last.get("left_out"))
    if left_out:
        cut_at = whole_of(last.get("cut_at"))
        words = f"[{counted(left_out, 'frame')} left out here]"
        marks.append((max(0, min(cut_at or 0, len(frames))), sentence(words, cols, "warn", glyphs, "   ")))
    if stacks is None or stacks > 1:
        spent = amount_of(told.get("pivot_s"))
        cost = "" if spent is None else f"; {seconds(spent, glyphs)} go here"
        if outer:
            words = f"below: in all of its {whole(stacks, glyphs)} stacks{cost}"
            marks.append((inner, sentence(words, cols, "warn", glyphs, "   ")))
        elif not text_of(last.get("problem")):          # else the outer ones were not told
            marks.append((inner, sentence("its stacks have nothing in common", cols, "dim", glyphs, "   ")))
    share, at = share_of(frames, cols), 0
    for place, lines in sorted(marks, key=lambda mark: mark[0]):
        rows += [*rows_of(frames[at:place], cols, share), *lines]
        at = place
    rows += rows_of(frames[at:], cols, share) if frames else [line(Span("   (no Python frames)", "dim"))]
    return [*rows, *_before(told, cols, glyphs), *_values(last, frames, cols, glyphs)]


def _before(told, cols, glyphs):
    """Rows of where the stacks before the newest one were, the newest of them first."""
    held = dicts_of(told.get("history"))[:-1]
    if not held:
        return []
    rows = [line(), line(Span(" Where its stacks before were, and when", "accent"))]
    for stack in reversed(held):
        hot = frames_of({"frames": stack.get("hot")})
        where = place_words(hot[0], glyphs) if hot else "(the same)"
        doing = _waits(stack, glyphs) or safe(text_of(stack.get("state")), glyphs)
        rows.append(line(Span(f" {took(stack, 'elapsed_s', glyphs):>9}  ", "dim"), where,
                         Span(f"  {doing}" if doing else "", "dim")))
    return rows


def _values(last, frames, cols, glyphs):
    """Rows of the values of arguments and variables, those of the innermost frame first."""
    told = last.get("locals")
    found = [row for row in told if isinstance(row, list) and len(row) == 3] if isinstance(told, list) else ()
    if not found:
        return []
    rows, before = [line(), line(Span(" Arguments and variables, of the innermost first", "accent"))], None
    for depth, name, text in found:
        if depth != before:
            before = depth
            known = whole_of(depth) is not None and 0 <= depth < len(frames)
            rows.append(line(Span(f"   {place_words(frames[depth], glyphs) if known else UNKNOWN}", "bold")))
        told = f"{safe(text_of(name), glyphs)} = {safe(begun(text), glyphs)}"
        rows += [line(Span(("     " if number == 0 else "       ") + part)) for number, part in
                 enumerate(wrapped(told, max(1, cols - 7), glyphs, VALUE_LINES))]
    return rows


# --- a process ------------------------------------------------------------------------------------

def of_process(told, cols, glyphs):
    """Lines of what the agents of a process told; [] of one that has none."""
    told = dict_of(told)
    if not told:
        return []
    lines = []
    agents = dicts_of(told.get("agents"))
    for agent in agents:
        lines += _agent(agent, len(agents) > 1, cols, glyphs)
    lines += _counts(told, cols, glyphs)
    lines += _timers(told, cols, glyphs)
    lines += _loops(told, cols, glyphs)
    return lines + _memory(dict_of(told.get("memory")), cols, glyphs)


def problems(told, cols, glyphs):
    """Lines of what is wrong with the agents of a process, as they say themselves."""
    found = list(dict.fromkeys(begun(agent.get("problem")) for agent in dicts_of(dict_of(told).get("agents"))))
    return [each for text in found if text for each in sentence(f"its agent says: {safe(text, glyphs)}", cols, "bad", glyphs, "")]


def _title(text, more=""):
    return line(Span(text, "head"), Span("  " + more if more else "", "dim"))


def _agent(agent, several, cols, glyphs):
    """Lines of one agent: where it is, what is wrong with it, what is on, what it counted."""
    def said(name):
        return safe(text_of(agent.get(name)), glyphs)

    where = f" of interpreter {said('interpreter') or '(main)'}" if several or said("interpreter") else ""
    heard = amount_of(agent.get("age_s"))
    heard = "has said nothing of itself yet" if heard is None else f"said this {seconds(heard, glyphs)} ago"
    lines = [_title(f"agent{where}", f"{said('version') or UNKNOWN} in {said('server') or UNKNOWN}, {heard}")]
    threshold, interval = (seconds(amount_of(agent.get(name)), glyphs) for name in ("threshold", "interval"))
    switches = ", ".join(safe(each, glyphs) for each in texts_of(agent.get("switches"))) or "nothing else"
    lines += sentence(f"on: {switches}; stacks of requests from {threshold} on, {interval} apart", cols, "", glyphs)
    for name, words in (("socket", "answers at @{}"), ("watchdog_file", "writes {} while the GIL is held")):
        if said(name):
            lines += sentence(words.format(said(name)), cols, "dim", glyphs)
    counts = [(name, whole_of(agent.get(key))) for name, key in (
        ("requests begun", "begun"), ("in flight", "in_flight"), ("wakeups", "wakeups"), ("ignored", "ignored"),
        ("unwatched", "unwatched"), ("datagrams lost", "lost"), ("errors of its own", "errors"))]
    bad = any(amount for name, amount in counts[-3:])
    shown = ", ".join(f"{whole(amount, glyphs)} {name}" for name, amount in counts
                      if amount or name in ("requests begun", "in flight"))
    return lines + sentence(shown, cols, "warn" if bad else "", glyphs)


def _counts(told, cols, glyphs):
    """What all agents of the process counted, where it is not 0."""
    raised = whole_of(told.get("exceptions"))
    lines = sentence(f"{counted(raised, 'exception')} left the application: x shows where", cols, "warn", glyphs) if raised else []
    lost = [f"{whole(whole_of(told.get(key)), glyphs)} {name}" for name, key in (
        ("values of theirs made no sense", "odd"), ("frames of places not told", "unknown_locations"),
        ("places without room", "locations_lost"), ("agents without room", "agents_evicted"),
        ("operations under too many names", "timer_names_lost")) if whole_of(told.get(key))]
    return lines + (sentence(", ".join(lost), cols, "warn", glyphs) if lost else [])


def _timers(told, cols, glyphs):
    found = dicts_of(told.get("timers"))
    if not found:
        return []

    def name(row):
        return " " + clip(safe(text_of(row.get("name")), glyphs) or UNKNOWN, max(12, cols // 3), glyphs)

    def spent(name):
        return lambda row: figure(fine(amount_of(row.get(name))), glyphs)

    return [_title("operations", "timed by the application"), *table([
        Column("", " operation", name, width=12, right=False, keep=9),
        Column("", "count", lambda row: number_of(row, "count", glyphs), width=7, keep=8),
        Column("", "in all", spent("seconds"), width=8, keep=6),
        Column("", "mean", spent("mean"), width=8, keep=7), Column("", "p50", spent("p50"), width=8, keep=4),
        Column("", "p95", spent("p95"), width=8, keep=8), Column("", "p99", spent("p99"), width=8, keep=3),
        Column("", "longest", spent("max"), width=8, keep=7),
        Column("", "errors", lambda row: number_of(row, "errors", glyphs),
               lambda row: "bad" if whole_of(row.get("errors")) else "", 6, keep=5)], found, cols, glyphs)]


def _loops(told, cols, glyphs):
    lines = []
    for loop in dicts_of(told.get("lateness")):
        name, last = clip(safe(text_of(loop.get("loop")), glyphs) or UNKNOWN, 40, glyphs), dict_of(loop.get("last"))
        lines.append(_title(f"event loop {name}"))
        late = whole_of(loop.get("count"))
        lines += sentence(f"held {counted(late, 'time')} for more than {took(loop, 'limit', glyphs)}: "
                          f"{took(loop, 'seconds', glyphs)} in all, {took(loop, 'max', glyphs)} the longest",
                          cols, "warn" if late else "", glyphs)
        frames = frames_of(last)
        if last:
            lines += sentence(f"last {took(last, 'age_s', glyphs)} ago, for {took(last, 'duration', glyphs)}"
                              + ("" if frames else "; no stack of it"), cols, "", glyphs)
            if text_of(last.get("problem")):
                lines += sentence(f"[{safe(text_of(last['problem']), glyphs)}]", cols, "warn", glyphs, "   ")
            lines += [drawn(each, cols, glyphs) for each in rows_of(frames, cols)[:LOOP_FRAMES]]
    return lines


def _memory(told, cols, glyphs):
    if not told:
        return []
    figures = [f"{size(amount_of(told.get(name)))} {words}" for name, words in (
        ("traced", "traced"), ("peak", "at most"), ("overhead", "for the tracing itself")) if amount_of(told.get(name)) is not None]
    state = safe(text_of(told.get("state")), glyphs) or UNKNOWN
    lines = [_title("memory growth", f"{clip(state, 40, glyphs)}; since {took(told, 'seconds', glyphs)}, "
                                     f"as of {took(told, 'age_s', glyphs)} ago"),
             *sentence(", ".join(figures), cols, "", glyphs)]
    held = dicts_of(told.get("lines"))
    if not held:
        return lines

    def where(row):
        (frame,) = frames_of({"frames": [row]})
        return place_words(frame, glyphs) if text_of(row.get("function")) else place_words(frame, glyphs).rpartition(" ")[0]

    lines += table([
        Column("", "grew by", lambda row: figure(bytes_words(amount_of(row.get("growth"))), glyphs), width=GROWTH_COLS, keep=9),
        Column("", "holds", lambda row: figure(size(amount_of(row.get("held"))), glyphs), width=9, keep=7),
        Column("", "blocks", lambda row: number_of(row, "blocks", glyphs), width=8, keep=6),
        Column("", "line", where, width=12, right=False, keep=9, flex=True)], held[:MEMORY_LINES], cols, glyphs)
    more = len(held) - MEMORY_LINES
    return lines + ([line(Span(f" and {counted(more, 'more line')}", "dim"))] if more > 0 else [])


# --- in one look ----------------------------------------------------------------------------------

def overview(told, group, cols, glyphs):
    """Lines for the overview: what is wrong with agents, exceptions, where the time of long requests goes; [] without.

    Of a chosen group, as far as the most of all are of it: the sums are over all groups.
    """
    told, lines = dict_of(told), []
    top, pivots = ([row for row in dicts_of(told.get(name)) if group is None or row.get("process_group") == group]
                   for name in ("top_exceptions", "pivots"))
    wrong, raised = texts_of(told.get("problems")), whole_of(told.get("exceptions"))
    if wrong and group is None:
        more = f" (+{len(wrong) - 1} more)" if len(wrong) > 1 else ""
        lines += _told("agent", safe(wrong[0], glyphs) + more, "bad", cols, glyphs)
    most = f"{number_of(top[0], 'count', glyphs)} {exception_words(top[0], glyphs)}" if top else ""
    if raised and group is None:
        places = counted(whole_of(told.get("exception_places")), "place")
        words = f"{whole(raised, glyphs)} from {places} (key x)" + (f"; most: {most}" if most else "")
        lines += _told("exceptions", words, "warn", cols, glyphs)
    elif most:
        lines += _told("exceptions", f"{most} (key x)", "warn", cols, glyphs)
    if pivots:
        first, lately = pivots[0], amount_of(pivots[0].get("recent_s"))
        cost = f"{seconds(lately, glyphs)} in 10 min," if lately else took(first, "seconds", glyphs)
        words = (f"{cost} of {counted(whole_of(first.get('requests')), 'long request')} in "
                 f"{safe(text_of(first.get('place')), glyphs) or UNKNOWN}{makes_wait(first, glyphs, ', which ')} (key 0)")
        lines += _told("time goes", words, "", cols, glyphs)
    return lines


def makes_wait(row, glyphs, front=""):
    """`makes 2 requests wait 11.7 s`, of a place for which others wait; else ""."""
    requests = whole_of(row.get("blocked_requests"))
    return f"{front}makes {counted(requests, 'request')} wait {took(row, 'blocked_s', glyphs)}" if requests else ""


def exception_words(row, glyphs):
    """`ValueError at app.py:21 check, called from app.py:44`."""
    return f"{safe(text_of(row.get('type')), glyphs) or UNKNOWN} at {safe(text_of(row.get('place')), glyphs) or UNKNOWN}"


def _told(name, text, style, cols, glyphs):
    indent = 12 if cols >= 60 else 2
    head = f" {name:<11}"
    if indent == 2:
        return sentence(f"{name}: {text}", cols, style, glyphs)
    return [line(Span(" " * indent if number else head, style or "dim"), Span(part, style))
            for number, part in enumerate(wrapped(text, max(1, cols - indent), glyphs, 2))]
