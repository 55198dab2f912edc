"""What to do next, and who has a file or a port, as lines for people.  width: as inspection.text has it."""
from modwsgi_tel.figures import UNKNOWN, counted
from modwsgi_tel.inspection.text import INDENT, LONGEST, clip, wrapped
from modwsgi_tel.printable import printable
from modwsgi_tel.report.text import table

HOLDERS = 200                           # rows that are shown


def further_lines(rows, why, width=None):
    """Lines of further.commands' rows; why: notable.kinds' texts."""
    out = ["", f"next  (for {printable('; '.join(why.values()))})" if why else
           "next  (nothing that stands out: what tells most in general)"]
    out = [out[0], *wrapped(out[1], width)]
    ready, lacking = [row for row in rows if not row["lacks"]], [row for row in rows if row["lacks"]]
    for title, chosen in (("", ready), ("what would have to be installed first:", lacking)):
        if title and chosen:
            out += ["", INDENT + title]
        for row in chosen:
            out += ["", INDENT + printable(row["command"])]          # never wrapped: it is to be copied
            needs = f"needs {row['needs']}" if row["needs"] else ""
            out += wrapped(printable(row["answers"]), width, INDENT * 3, INDENT * 3)
            out += wrapped("; ".join(filter(None, (f"costs: {row['costs']}", needs, row["lacks"]))), width, INDENT * 3, INDENT * 3)
    return out


def holder_lines(found, width=None):
    """Lines of holders.Found."""
    out, pids = [], {row["pid"] for row in found.rows if row["pid"] is not None}
    unseen = [row for row in found.rows if row["pid"] is None]
    if found.rows:
        cells = [(row["pid"] or UNKNOWN, row["user"] or UNKNOWN, UNKNOWN if row["fd"] is None else row["fd"], row["how"], row["target"],
                  clip(printable((row["command"] or "")[:LONGEST]), 100)) for row in found.rows[:HOLDERS]]
        out += [clip(line, width) for line in table(("pid", "user", "fd", "how", "what", "command"), cells, right=("pid", "fd"))]
        if len(found.rows) > HOLDERS:
            out.append(f"and {counted(len(found.rows) - HOLDERS, 'more')}")
    who = counted(len(pids), "process", "processes") if pids else "nobody"
    of = f" of {counted(found.processes, 'process', 'processes')} that were looked into" if found.processes else ""
    out += wrapped(f"{printable(found.what)}: {who}{of}", width)
    if unseen:
        out += wrapped(f"{counted(len(unseen), 'socket')} of processes that may not be looked into, or that have ended: "
                       "only the owner is known", width)
    if found.refused:
        out += wrapped(f"{counted(found.refused, 'process', 'processes')} of other users could not be looked into: run as root", width)
    if found.left_out:
        out += wrapped(f"{counted(found.left_out, 'process', 'processes')} were not looked at: that would have taken too long", width)
    return out
