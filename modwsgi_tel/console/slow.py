"""Slow requests: a live table of those that run and those that ended, and all that is known of the one opened."""
from modwsgi_tel.console.cells import Span, clip, line, safe, width
from modwsgi_tel.console.draw import Column, Sorted, stacked, table
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, row_under, scrolled
from modwsgi_tel.console.frames import STATE, drawn
from modwsgi_tel.console.inside import annotations, of_slow, place_of
from modwsgi_tel.console.words import (FIGURE_MOST, OVERLAPPING, PARTS, beginning, clock, counted, ends, figure,
                                       group_words, marked, missing, pieces, ratio, seconds, whole, wrapped)
from modwsgi_tel.figures import UNKNOWN, duration, percent, size as amount

HEAD_LINES = 2                          # what is shown of how many, and the heads of the columns
INDENT = 11                             # of what stands behind the name of a section
GAP = 3                                 # between two facts of a section
NARROW = 60                             # cells: below it a section's name has a line of its own
SAME_HOST = 100                         # cells: below it a host is behind the path, one that all rows share above
SAID_MOST = 20                          # Lines of a sentence
MOST_S = 1e12                           # a phase is not longer, whatever its sender says
GONE = ("An ended request is kept for 10 minutes, or as serve's --slow-retention says; not as long when there is no "
        "room for all (--max-slow, --slow-bytes). Esc leads back to those that are kept.")

SORTS = ("state", "age", "process", "method", "status", "url", "start")
LARGE_FIRST = frozenset(("age", "status", "start"))     # until `r`
# name, what it says at the bottom, the lives that the collector is asked for
FILTERS = (("all", "all", ""), ("active", "active", "active,stale"), ("ended", "ended", "completed,lost"),
           ("lost", "lost", "lost"))
RUNNING = ("active", "stale")
LIFE_STYLES = {"active": "warn", "stale": "bad", "lost": "bad", "completed": ""}


def _paths(ui, size):
    if ui.open is not None:
        return {"slow_one": asked("/api/slow", id=ui.open[1]), "stacks_state": STATE}
    shown = table_of(ui)
    sort, descending = _order(shown)
    return {"slow": asked("/api/slow", sort=sort, order="desc" if descending else "asc",
                          **page_of(shown.cursor, _rows(size)), life=FILTERS[shown.filter % len(FILTERS)][2] or None,
                          search=shown.search or None, group=ui.group)}


def _order(shown):
    """(sort, whether large ones come first) of a Table."""
    sort = shown.sort if shown.sort in SORTS else SORTS[0]
    return sort, shown.reverse != (sort in LARGE_FIRST)


def _rows(size):
    return max(1, size.rows - HEAD_LINES)


def _count(view, ui):
    return view.get("slow", {}).get("matched") or 0


def _row(view, ui):
    answer = view.get("slow") or {}
    found = row_under(ui, answer, answer.get("slow_requests") or ())
    number_of = None if found is None else found["entry"].get("id")
    return None if number_of is None else ("slow", number_of)


def _body(view, ui, size):
    lines = _opened(view, ui, size) if ui.open is not None else _table(view, ui, size)
    return [drawn(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


# --- the table ------------------------------------------------------------------------------

def _table(view, ui, size):
    answer = view.get("slow")
    if answer is None:
        return [missing(view, "slow", ui.glyphs)]
    shown = table_of(ui)
    rows, place = on_page(ui, answer, answer.get("slow_requests") or (), _rows(size))
    entries = [row["entry"] for row in rows]
    chosen = None if place is None else entries[place]
    hosts = {entry.get("hostname") for entry in entries}
    # on a narrow screen the path is what has to be seen
    host = "first" if size.cols >= SAME_HOST else "" if len(hosts) == 1 else "behind"
    head = _head(answer, shown, ui.glyphs)
    if not host and entries[0].get("hostname"):
        head = ends(head, line(Span(f"all at {safe(entries[0]['hostname'], ui.glyphs)}", "dim")), size.cols, ui.glyphs)
    if not entries:
        return [head, *_none(shown, ui)]
    return [head, *table(_columns(ui, size.cols, host, chosen), entries, size.cols, ui.glyphs,
                         Sorted(*_order(shown)), place)]


def _head(answer, shown, glyphs):
    matched, kept, evicted = (answer.get(name) or 0 for name in ("matched", "kept", "evicted"))
    told = counted(kept, "slow request")
    parts = [Span(f" {matched:,} of {told}" if matched != kept else f" {told}, running and ended", "bold")]
    if evicted:
        parts.append(Span(f"  {evicted:,} more dropped for want of room (--max-slow, --slow-bytes)", "warn"))
    if shown.search:
        parts.append(Span(f"  with {safe(shown.search, glyphs)}", "accent"))
    return line(*parts)


def _none(shown, ui):
    if shown.search or shown.filter % len(FILTERS) or ui.group is not None:
        return [line(), line(" None of them is meant: / searches anew, f shows others, G other groups.")]
    return [line(), line(" None runs, and none has ended of late."),
            line(Span(" mod_wsgi sends them with WSGISlowRequests SECONDS in Apache's configuration;", "dim")),
            line(Span(" with the prefork MPM it sends none. Under any server an agent in the", "dim")),
            line(Span(" application sends them: see man modwsgi-tel.", "dim"))]


def _life(entry):
    return entry.get("life") or ("completed" if entry.get("state") else "active")


def _age(entry):
    return entry["age_s"] if "age_s" in entry else entry.get("duration")


def _path(entry, host):
    """The URL without its scheme; `host`: "first", "behind" the path, or "" for none."""
    path, name = (entry.get("script_name") or "") + (entry.get("path_info") or ""), entry.get("hostname") or ""
    return name + path if host == "first" else f"{path} ({name})" if host and name else path


def _state_style(entry):
    return LIFE_STYLES.get(_life(entry), "")


def _status_style(entry):
    return "bad" if (entry.get("status") or 0) >= 500 else "warn" if (entry.get("status") or 0) >= 400 else ""


def _columns(ui, cols, host, chosen):
    """The columns; `host`: where in a URL, as for _path; `chosen`: the entry under the cursor."""
    glyphs = ui.glyphs

    def told(name):
        return lambda entry: safe(entry.get(name) or UNKNOWN, glyphs)

    def measure(make):
        return lambda entry: figure(make(entry), glyphs)

    def state(entry):
        return marked(safe(_life(entry), glyphs), entry is chosen)

    def url(entry):
        return safe(_path(entry, host) or UNKNOWN, glyphs)

    def started(entry):
        return clock(entry.get("start_stamp") or None, entry.get("received") or 0.0)

    def group(entry):
        return clip(group_words(entry, glyphs), 16, glyphs)

    return [
        Column("state", " state", state, _state_style, 7, False, 9),
        Column("age", "age", measure(lambda entry: duration(_age(entry))), _state_style, 6, True, 9),
        Column("phase", "phase", told("phase"), right=False, keep=5),
        Column("process", "pid", lambda entry: str(entry.get("pid") or UNKNOWN), width=5, right=True, keep=7),
        Column("group", "group", group, right=False, keep=4 if ui.group is None else 0),
        Column("method", "method", lambda entry: clip(told("method")(entry), 8, glyphs), right=False, keep=6),
        Column("status", "status", lambda entry: str(entry.get("status") or UNKNOWN), _status_style, 6, True, 8),
        Column("url", "url", url, width=max(8, min(20, cols * 9 // 20)), right=False, keep=9, flex=True),
        Column("start", "started", started, keep=3),
        Column("gil", "GIL wait", lambda entry: seconds(entry.get("gil_wait_time"), glyphs), keep=2),
        Column("cpu", "cpu", lambda entry: seconds(_cpu(entry), glyphs), keep=2),
        Column("output", "output", measure(lambda entry: amount(entry.get("output_bytes"))), keep=1),
        Column("peer", "peer", lambda entry: clip(told("peer_ip")(entry), 39, glyphs), right=False, keep=1),
    ]


def _cpu(entry):
    """Seconds of CPU, user and system together; None when one is not known."""
    values = entry.get("cpu_user_time"), entry.get("cpu_system_time")
    return None if None in values else sum(values)


# --- one request ----------------------------------------------------------------------------

def _opened(view, ui, size):
    entry = _found(view, ui)
    if entry is None and "slow_one" not in view:
        return [missing(view, "slow_one", ui.glyphs)]
    if entry is None:
        return [line(Span(" This request's record is gone.", "warn")), line(),
                *(line(f" {each}") for each in wrapped(GONE, max(1, size.cols - 1), ui.glyphs, SAID_MOST))]
    return scrolled(_request(entry, view, ui, size.cols), ui.scroll, size.rows)


def _found(view, ui):
    """The entry that is opened: as it was asked for, or, until that is there, as the table showed it."""
    for name in ("slow_one", "slow") if "slow_one" not in view else ("slow_one",):
        for row in view.get(name, {}).get("slow_requests", ()):
            if row["entry"].get("id") == ui.open[1]:
                return row["entry"]
    return None


def _process(view, ui):
    """(pid, id) of the process of the request in Ui.open, while that runs."""
    entry = None if ui.open is None else _found(view, ui)
    if entry is None or _life(entry) not in RUNNING or not entry.get("pid"):
        return None
    return entry["pid"], entry.get("process")


def _request(entry, view, ui, cols):
    glyphs = ui.glyphs

    def told(name):
        return safe(str(entry.get(name) or UNKNOWN), glyphs)

    def section(title, *pairs):
        return _section(title, _known(entry, pairs), cols)

    now = view.get("slow_one", view.get("slow", {})).get("time") or entry.get("received") or 0.0
    life = _life(entry)
    scheme = safe(entry["scheme"], glyphs) + "://" if entry.get("scheme") else ""
    url = scheme + (safe(_path(entry, "first"), glyphs) or UNKNOWN)
    lines = [line(Span(f" {each}", "bold")) for each in pieces(f"{told('method')} {url}", cols - 1)]
    said = wrapped(_said(entry, life, glyphs), cols - 1, glyphs, SAID_MOST)
    lines += [line(Span(f" {each}", LIFE_STYLES.get(life, ""))) for each in said]
    lines += place_of(entry, now, cols, glyphs)
    lines.append(line())
    phases = _phases(entry, life, cols, glyphs)
    lines += [*phases, line()] if phases else []
    lines += section("Request", ("status", str(entry.get("status") or UNKNOWN)), ("protocol", told("protocol")),
                     ("peer", told("peer_ip")), ("agent", told("user_agent")))
    lines += section("Where", ("pid", told("pid")), ("process group", group_words(entry, glyphs)),
                     ("thread", told("thread_id")), ("Apache child", told("server_pid")), ("log id", told("log_id")),
                     *((("told by", "the agent inside"),) if entry.get("source") == "agent" else ()))
    heard = f"{clock(entry.get('first_received'), now)} to {clock(entry.get('received'), now)}"
    lines += section("When", ("started", clock(entry.get("start_stamp") or None, now)), ("heard of", heard),
                     ("ended", clock(entry.get("ended"), now)))
    lines += section("CPU", ("user", seconds(entry.get("cpu_user_time"), glyphs)),
                     ("system", seconds(entry.get("cpu_system_time"), glyphs)),
                     ("of its time", figure(percent(ratio(_cpu(entry), entry.get("duration"))), glyphs)))
    lines += section("Bytes", ("input", _moved(entry, "input", "read", glyphs)),
                     ("output", _moved(entry, "output", "write", glyphs)))
    at_end = entry.get("active_at_completion") if life == "completed" else None
    if entry.get("source") != "agent" or entry.get("active_at_start") is not None:
        lines += section("In flight", ("at its start", whole(entry.get("active_at_start"), glyphs)),
                         ("at its end", whole(at_end, glyphs)), ("", "in its process, itself included"))
    said = annotations(entry, glyphs)
    if said:
        lines += section("Annotated", *said)
    return lines + of_slow(entry, view, now, cols, glyphs, life in RUNNING)


def _said(entry, life, glyphs):
    """What can be said of it in one sentence."""
    age, unheard = seconds(_age(entry), glyphs), seconds(entry.get("unheard"), glyphs)
    if life == "active":
        phase = f" in {safe(entry['phase'], glyphs)}," if entry.get("phase") else ""
        return f"active for {age},{phase} last heard of {unheard} ago"
    if life == "stale":
        return f"stale: {age} old when it was last heard of, {unheard} ago; its process goes on"
    if life == "lost":
        return f"lost: its process ended with it inside; it was {age} old when it was last heard of"
    return f"completed after {age}"


def _phases(entry, life, cols, glyphs):
    """The request's time as a bar of its phases, their figures, and what of them overlaps the application."""
    # without a daemon process there is neither queue nor daemon: what is sent as 0 is none
    none = () if entry.get("process_group") else ("queue", "daemon")
    times = {name: None if name in none and not entry.get(f"{name}_time") else entry.get(f"{name}_time")
             for name, _, _ in PARTS}
    known = {name: max(0.0, min(MOST_S, told or 0.0)) for name, told in times.items()}
    total = sum(known.values())
    if not total and entry.get("source") == "agent":
        return []                       # not even the application's time was told
    bar = stacked([(known[name], letter, style) for name, letter, style in PARTS], max(0, cols - 2))
    legend = [(f"{letter} {name}", seconds(times[name], glyphs) + _share(known[name], total))
              for name, letter, _ in PARTS]
    gil = f"{seconds(entry.get('gil_wait_time'), glyphs)} in {whole(entry.get('gil_wait_count'), glyphs)} waits"
    share = ratio(entry.get("gil_wait_time"), entry.get("application_time"))
    if share is not None:
        gil += f", {figure(percent(share), glyphs)} of application"
    overlaps = [(words, gil if name == "gil_wait" else seconds(entry.get(f"{name}_time"), glyphs))
                for name, words in OVERLAPPING]
    return [line(" ", *bar), *_section("Time" if life == "completed" else "So far", _known(entry, legend), cols),
            *_section("of which", _known(entry, overlaps), cols)]


def _share(part, total):
    return f" {percent(part / total)}" if total and part else ""


def _moved(entry, way, call, glyphs):
    """`34.5 kB in 12 writes`."""
    calls = counted(entry.get(f"{way}_{call}s"), call)
    return f"{figure(amount(entry.get(way + '_bytes')), glyphs)} in {clip(calls, FIGURE_MOST + len(call) + 2, glyphs)}"


# --- facts in lines -------------------------------------------------------------------------

def _known(entry, pairs):
    """The (name, text) of a section; of a request that its agent alone tells of, those that are known: that is not much."""
    if entry.get("source") != "agent":
        return pairs
    return [pair for pair in pairs if pair[1] != UNKNOWN and not pair[1].startswith(f"{UNKNOWN} in {UNKNOWN} ")]


def _section(title, pairs, cols):
    """Lines of (name, printable text) behind a title, as many on a line as fit; what is longer goes on below."""
    indent = INDENT if cols >= NARROW else 2
    room = max(1, cols - indent)
    if not pairs:
        return []
    rows, used = [[]], 0
    for name, text in pairs:
        label = f"{name} " if name else ""
        wide = width(label) + width(text)
        if used and used + GAP + wide > room:
            rows.append([])
            used = 0
        if used:
            rows[-1].append(Span(" " * GAP))
            used += GAP
        rows[-1].append(Span(label, "dim"))
        if wide <= room:
            rows[-1].append(Span(text))
            used += wide
        else:
            first = max(1, room - width(label))
            begun = beginning(text, first)
            rows[-1].append(Span(begun))
            rows += [[Span(piece)] for piece in pieces(text[len(begun):], room)]
            used = room                 # the next one starts a line
    if indent == INDENT:
        begins = [f" {title:<{INDENT - 1}}"] + [" " * INDENT] * (len(rows) - 1)
        return [line(Span(begin, "accent"), *row) for begin, row in zip(begins, rows)]
    return [line(Span(f" {title}", "accent"))] + [line("  ", *row) for row in rows]


PANE = Pane("slow", ("s", "5"), "slow", _paths, _body, _count, _row, SORTS, tuple(each[:2] for each in FILTERS),
            "Enter opens  < > sort  r reverse  f filter  / search", process=_process)
