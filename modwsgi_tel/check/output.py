"""What a plugin says: one line with performance data behind a bar, then lines of details; or the same as JSON.

    TEL WARNING - capacity: shop 84 % busy (warning: 80)|'shop'=84%;80;95;0;100
    and details in lines of their own

Names come from the servers: nothing in them ends the line, begins performance data, or makes another value of it.
Source: Monitoring Plugins Development Guidelines, Plugin Output for Nagios, Performance data.
"""
from collections import namedtuple

from modwsgi_tel.check.ranges import figure
from modwsgi_tel.printable import printable, printable_json

STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")       # an exit status each
OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORST_FIRST = (CRITICAL, WARNING, UNKNOWN, OK)

LARGEST = 8000                          # bytes of all: Nagios reads 8 KiB
LINE = 240                              # characters of a line of text
LABEL = 64                              # of a label
FIGURES = 50                            # values with performance data
FIGURES_BYTES = 5500                    # of these

Figure = namedtuple("Figure", "label value unit warning critical least most", defaults=("", None, None, None, None))
Figure.__doc__ = """One value of performance data.  value: a number, or None where it is not known.  unit: "", "s", "B", "c" or "%", the last of
a share from 0 to 1.  warning, critical: a Range or None."""

Outcome = namedtuple("Outcome", "status text details figures", defaults=((), ()))
Outcome.__doc__ = "status: one of STATES, as a number.  text: of the first line.  details: lines.  figures: Figures."


def worst(statuses):
    """The one that counts: CRITICAL before WARNING before UNKNOWN before OK, which it also is of none."""
    found = set(statuses)
    return next((status for status in WORST_FIRST if status in found), OK)


def as_text(outcome):
    """The lines of a plugin, at most LARGEST bytes."""
    data, left_out = _data(outcome.figures)
    first = f"TEL {STATES[outcome.status]} - {_line(outcome.text)}"
    lines = [first + (f"|{data}" if data else "")]
    size = len(_escaped(lines[0]))
    details = [*([f"{left_out} more values have no performance data"] if left_out else []), *outcome.details]
    for place, detail in enumerate(details):
        line = _line(detail)
        size += len(_escaped(line)) + 1
        if size > LARGEST - 40:
            lines.append(f"... and {len(details) - place} more lines")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def as_json(outcome, name):
    """The same as one JSON object; a share is one from 0 to 1 here, and a range is text in the unit of its value."""
    return printable_json({
        "check": name, "status": STATES[outcome.status], "exit_status": outcome.status, "text": str(outcome.text),
        "details": [str(line) for line in outcome.details],
        "figures": [{"label": each.label, "value": each.value, "unit": "" if each.unit == "%" else each.unit,
                     "warning": each.warning and each.warning.text(), "critical": each.critical and each.critical.text()}
                    for each in outcome.figures]}) + "\n"


def _escaped(line):
    """As the bytes that stdout makes of it where it can show ASCII only: the longest that they get."""
    return line.encode("ascii", "backslashreplace")


def _line(text):
    """One line of at most LINE characters; a bar would begin performance data.  (Nagios makes a : of each ; in the first.)"""
    text = printable(str(text)).replace("|", "/")
    return text if len(text) <= LINE else text[:LINE - 3] + "..."


def _data(figures):
    """(performance data, how many values have none)."""
    parts, labels, size = [], set(), 0
    for each in figures:
        label = _label(each.label, labels)
        labels.add(label)
        factor = 100 if each.unit == "%" else 1
        fields = ["U" if each.value is None else figure(each.value * factor) + each.unit,
                  *("" if held is None else held.text(factor) for held in (each.warning, each.critical)),
                  *("" if bound is None else figure(bound * factor) for bound in (each.least, each.most))]
        part = f"'{label}'=" + ";".join(fields).rstrip(";")
        size += len(_escaped(part)) + 1
        if len(parts) == FIGURES or size > FIGURES_BYTES:
            return " ".join(parts), len(figures) - len(parts)
        parts.append(part)
    return " ".join(parts), 0


def _label(text, taken):
    """A label that stands between single quotes, unlike the others.

    The guidelines forbid = and let a quote be doubled, which few readers undo; Nagios keeps \\n as a line's end.
    So these become other signs.
    """
    text = printable(text)
    for wrong, right in (("=", ":"), ("'", "_"), ("|", "/"), ("\\", "/")):
        text = text.replace(wrong, right)
    text = found = text[:LABEL].strip() or "-"
    number = 1
    while found in taken:
        number += 1
        found = f"{text[:LABEL - 6]}#{number}"
    return found
