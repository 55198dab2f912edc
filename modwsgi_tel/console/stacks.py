"""Stacks: where the Python of each process was when the collector last read it; Enter opens one."""
from modwsgi_tel.console.cells import Span, clip, fit, line, safe
from modwsgi_tel.console.draw import Column, table
from modwsgi_tel.console.frames import (TEXT_MOST, busy_of, counts_words, dicts_of, drawn, gil_words, grouped_rows, not_there,
                                        sentence, taken_words, text_of, threads_of, troubles, unread_words, whole_of)
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, row_under, scrolled
from modwsgi_tel.console.words import LIVE, counted, figure, group_words, marked, seconds
from modwsgi_tel.figures import UNKNOWN

HEAD_LINES = 2                          # of the table: how many there are, and the heads of the columns
HEAD_FROM = 12                          # rows of a body that has all that is known of the process above its threads
NONE_TAKEN = ("None has been taken yet: that happens when a request is slow, when a process falls silent, and while a process "
              "(2) or a slow request (5) is open.")
CLAIMED = ("None is taken: the pids of {} in trouble are what their datagrams say, not what the kernel says of the sender "
           "(a replay, a simulation).")
OFF = "The collector takes none: serve --stacks auto lets it."


# --- the table ------------------------------------------------------------------------------------

def paths(ui, inside):
    if ui.open is not None:
        return {"stacks_one": asked("/api/stacks", pid=ui.open[1], id=ui.open[2])}
    return {"stacks": asked("/api/stacks", **page_of(table_of(ui).cursor, _room(inside)), group=ui.group)}


def _room(inside):
    return max(1, inside.rows - HEAD_LINES)


def _found(view, name="stacks"):
    return dicts_of((view.get(name) or {}).get("processes"))


def count(view, ui):
    return (view.get("stacks") or {}).get("matched") or len(_found(view))


def row(view, ui):
    """("stacks", pid, id) of the row under the cursor, or None."""
    under = row_under(ui, view.get("stacks") or {}, _found(view))
    return None if under is None or whole_of(under.get("pid")) is None else ("stacks", under["pid"], whole_of(under.get("id")))


def body(view, ui, inside):
    lines = _opened(view, ui, inside) if ui.open is not None else _table(view, ui, inside)
    return [fit(each, inside.cols, ui.glyphs) for each in lines[:inside.rows]]


def _table(view, ui, inside):
    glyphs, cols = ui.glyphs, inside.cols
    none = not_there(view, "stacks", cols, glyphs)
    if none:
        return none
    answer = view["stacks"]
    said = troubles(view, "stacks", cols, glyphs)
    if not _found(view):
        claimed = whole_of(answer.get("not_the_kernels"))
        why = (OFF if answer.get("stacks") == "off" else
               CLAIMED.format(counted(claimed, "process", "processes")) if claimed else NONE_TAKEN)
        return [*said, *([line()] if said else []), *sentence(why, cols, "", glyphs)]
    said = said[:max(0, inside.rows - HEAD_LINES - 1)]
    rows, place = on_page(ui, answer, _found(view), _room(inside) - len(said))
    seen = [(each, threads_of(each)) for each in rows]
    chosen = None if place is None else seen[place]
    return [*said, _head(answer, count(view, ui)), *table(_columns(chosen, cols, glyphs), seen, cols, glyphs, None, place)]


def _head(answer, number_of):
    counters = answer.get("counters")
    told = ", ".join(f"{amount:,} {name}" for name, amount in counters.items() if whole_of(amount) and name.isidentifier()
                     and name.isascii()) if isinstance(counters, dict) else ""
    return line(Span(f" {counted(number_of, 'process', 'processes')}, as last read", "bold"),
                Span(f"  {told}" if told else "", "dim"))


def _columns(chosen, cols, glyphs):
    def number_of(count):
        return lambda seen: figure(f"{count(seen[1]):,}", glyphs)

    return [Column("", "   pid", lambda seen: marked(figure(str(seen[0].get("pid") or UNKNOWN), glyphs), seen is chosen), width=6,
                   keep=9),
            Column("", "group", lambda seen: clip(group_words(seen[0], glyphs), 16, glyphs), right=False, width=5, keep=4),
            Column("", "why", lambda seen: clip(safe(text_of(seen[0].get("why")).partition(":")[0] or UNKNOWN, glyphs), 8, glyphs), width=6, right=False,
                   keep=7),
            Column("", "age", lambda seen: seconds(seen[0].get("age_s"), glyphs), width=6, keep=8),
            Column("", "busy", number_of(lambda threads: len(busy_of(threads))), width=4, keep=6),
            Column("", "idle", number_of(lambda threads: sum(thread.idle for thread in threads)), width=4, keep=5),
            Column("", "not whole", lambda seen: unread_words(seen[1]), lambda seen: "warn", 9, False, 2),
            Column("", "the GIL is held in", lambda seen: _ended(seen[0], "({}) ", glyphs) + gil_words(seen[1], glyphs),
                   width=min(28, cols // 2), right=False, keep=9,
                   flex=True)]


def _ended(row, words, glyphs):
    """`words` with how the process has ended; "" of one that lives."""
    life = text_of(row.get("life"))
    return words.format(clip(safe(life, glyphs), 10, glyphs)) if life and life not in LIVE else ""


# --- one process ----------------------------------------------------------------------------------

def process(view, ui):
    """(pid, id) of the process that is opened, unless it is known to have ended."""
    over = ui.open is not None and [_ended(each, "{}", ui.glyphs) for each in _of_opened(view, ui)]
    return None if ui.open is None or over and all(over) else ui.open[1:]


def subject(view, ui):
    return None if ui.open is None else ui.open[1:]


def _name(view):
    """Of the answer that has what is opened."""
    return "stacks_one" if "stacks_one" in view else "stacks"


def _of_opened(view, ui):
    return [each for each in _found(view, _name(view))
            if each.get("pid") == ui.open[1] and ui.open[2] in (None, each.get("id"))]


def _opened(view, ui, inside):
    glyphs, cols = ui.glyphs, inside.cols
    rows, name, found = [], _name(view), _of_opened(view, ui)
    none = [] if found else not_there(view, "stacks_one", cols, glyphs)
    if none:
        return none
    said = troubles(view, name, cols, glyphs, found[0].get("age_s") if found else None)
    if not found:
        off = (view.get(name) or {}).get("stacks") == "off"
        rows = sentence(f"pid {ui.open[1]}: none has been taken yet." + (f" {OFF}" if off else ""), cols, "", glyphs)
    for each in found:
        threads = threads_of(each)
        head = _process(each, threads, cols, glyphs)
        # where it is has to be seen first
        rows += [*(head if inside.rows >= HEAD_FROM else head[:1]), *grouped_rows(threads, ui.idle, cols, glyphs)]
    return [drawn(each, cols, glyphs) for each in scrolled([*said, *rows], ui.scroll, inside.rows)]


def _process(each, threads, cols, glyphs):
    """Lines about the process."""
    where = f" of {group_words(each, glyphs)}" if each.get("process_group") is not None else ""
    versions = f"  Python {safe(text_of(each.get('python')) or UNKNOWN, glyphs)}"
    inner = whole_of(each.get("inner_pid"))
    lines = [line(Span(f" pid {whole_of(each.get('pid')) or UNKNOWN}", "bold"), where,
                  f" ({inner} in its own namespace)" if inner else "", Span(_ended(each, ", {}", glyphs), "warn"),
                  Span(f"  {taken_words(each, glyphs)}"), Span(versions, "dim"))]
    if text_of(each.get("command")):
        lines.append(line(Span(f" {safe(each['command'][:TEXT_MOST], glyphs)}", "dim")))
    told = [counts_words(threads), f"GIL: {gil_words(threads, glyphs)}"]
    interpreters = each.get("interpreters")
    if isinstance(interpreters, list) and len(interpreters) > 1:
        told.append(f"{len(interpreters)} interpreters")
    lines += sentence("  ".join(told), cols, "", glyphs)
    if unread_words(threads):
        lines += sentence(f"not read whole: {unread_words(threads)}; a looks again", cols, "warn", glyphs)
    if text_of(each.get("problem")):
        lines += sentence(f"not all is shown: {safe(text_of(each['problem']), glyphs)}", cols, "warn", glyphs)
    return lines


PANE = Pane("stacks", ("S", "9"), "stacks", paths, body, count, row, hint="Enter opens  G group", process=process,
            subject=subject)
