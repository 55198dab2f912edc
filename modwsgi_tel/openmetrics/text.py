"""The metrics as text: OpenMetrics 1.0, or the classic format 0.0.4 of Prometheus.

Source: OpenMetrics 1.0 (its ABNF), and Prometheus' page on exposition formats.  What differs: in OpenMetrics a counter's
family is called without _total, and an info's without _info, units are told, and the text ends with # EOF.

There is no `_created`: Prometheus would keep it as another series of each counter; when counting began is
modwsgi_collector_start_time_seconds.  A number that is none, out of a sender's nonsense, is left out.
"""
from modwsgi_tel.openmetrics.bounds import label
from modwsgi_tel.openmetrics.reading import BATCH, CollectorReading, GroupReading, ProcessReading, group_findings
from modwsgi_tel.openmetrics.table import COLLECTOR, COUNTER, GAUGE, GROUP, HISTOGRAM, INFO, LABELS, METRICS, PROCESS
from modwsgi_tel.printable import printable
from modwsgi_tel.wire.fields import BY_NAME

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PIECE = 24 << 10                        # characters after which a piece goes out: half a millisecond of work


def wants_openmetrics(accept):
    """Whether an Accept header prefers OpenMetrics: named, with a weight as high as that of text/plain.  "" does not.

    What only says */* gets the classic format, which everything reads; so does what accepts neither.
    """
    weights = {}
    for part in accept.split(","):
        name, *parameters = [word.strip().lower() for word in part.split(";")]
        given = dict(word.partition("=")[::2] for word in parameters)
        version = given.get("version", "").strip('"')
        if name == "application/openmetrics-text" and version not in ("", "1.0.0") or name == "text/plain" and version not in ("", "0.0.4"):
            continue
        weights[name] = max(weights.get(name, 0.0), _weight(given.get("q", "1")))
    wanted = weights.get("application/openmetrics-text", 0.0)
    return wanted > 0 and wanted >= weights.get("text/plain", 0.0)


def _weight(text):
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


def exposition(source, openmetrics=False):
    """A generator of the text of all METRICS as bytes; b"" where others may have a turn."""
    scopes = {scope: [] for scope in LABELS}
    found, names = group_findings(source.findings), set()
    for group in source.fleet.groups.values():
        reading = GroupReading(group)
        for _ in reading.steps(source):
            yield b""
        reading.findings = found.get(group.name, reading.findings)
        scopes[GROUP].append((_labels(GROUP, group.name, names), reading))
        yield b""
    processes = left_out = 0
    names = set()
    for place, process in enumerate(source.fleet.processes()):
        if place % BATCH == BATCH - 1:
            yield b""
        processes += 1
        if process.ended or process.identity is None:
            continue
        key = *process.group, str(process.pid)
        if len(scopes[PROCESS]) >= source.processes or key in names:        # two of one pid are of two containers
            left_out += 1
            continue
        names.add(key)
        scopes[PROCESS].append((_labels(PROCESS, key, set()), ProcessReading(process, source)))
    yield b""
    scopes[COLLECTOR].append(("", CollectorReading(source, processes, left_out)))
    yield from _batched(_families(scopes, openmetrics))


def _families(scopes, openmetrics):
    for metric in METRICS:
        head, number, lines = _head(metric, openmetrics), metric.field and BY_NAME[metric.field].id, _LINES[metric.type]
        for labels, reading in scopes[metric.scope]:
            if number and number not in reading.present:
                continue
            said = lines(metric, labels, metric.read(reading))
            if said:
                yield head + said
                head = ""
    if openmetrics:
        yield "# EOF\n"


def _batched(parts):
    held, size = [], 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= PIECE:
            yield "".join(held).encode("utf-8", "replace")
            held, size = [], 0
    yield "".join(held).encode("utf-8", "replace")


def _head(metric, openmetrics):
    help_ = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    if not openmetrics:
        name, type_ = (metric.name + "_info", GAUGE) if metric.type == INFO else (metric.name, metric.type)
        return f"# HELP {name} {help_}\n# TYPE {name} {type_}\n"
    name = metric.name[:-len("_total")] if metric.type == COUNTER else metric.name
    unit = f"# UNIT {name} {metric.unit}\n" if metric.unit else ""
    help_ = help_.replace('"', '\\"')
    return f"# TYPE {name} {metric.type}\n{unit}# HELP {name} {help_}\n"


# --- samples -----------------------------------------------------------------------------------

def _labels(scope, values, used):
    """The labels of a scope as text.  Two groups whose names look the same are told apart by marks behind the last."""
    *first, last = map(shown, values)
    while (*first, last) in used:
        last += "\ufffd"
    used.add((*first, last))
    return _pairs(LABELS[scope], (*first, last))


def shown(text):
    """Text from a sender as a label has it: what is not printable is told by its escape, as everywhere, but for line ends."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def _pairs(names, values):
    return ",".join('{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
                    for name, value in zip(names, values))


def _number(value):
    """A number as text, None for one that is none."""
    if isinstance(value, float):
        return repr(value) if value - value == 0 else None
    return str(value)


def _values(metric, labels, read):
    if read is None:
        return ""
    if not metric.labels:
        number = _number(read)
        return "" if number is None else f"{metric.name}{{{labels}}} {number}\n" if labels else f"{metric.name} {number}\n"
    out, rows = [], {}
    for values, value in read:              # what looks the same is one
        values = tuple(map(shown, values))
        rows[values] = rows.get(values, 0) + value
    for values, value in rows.items():
        number = _number(value)
        if number is not None:
            own = _pairs(metric.labels, values)
            out.append(f"{metric.name}{{{labels},{own}}} {number}\n" if labels else f"{metric.name}{{{own}}} {number}\n")
    return "".join(out)


def _histogram(metric, labels, read):
    if read is None:
        return ""
    counts, total = read
    lines = [f'{metric.name}_bucket{{{labels},le="{bound}"}} {count}\n'
             for bound, count in zip((*map(label, metric.bounds), "+Inf"), counts)]
    return f"{''.join(lines)}{metric.name}_sum{{{labels}}} {total!r}\n{metric.name}_count{{{labels}}} {counts[-1]}\n"


def _info(metric, labels, read):
    if read is None:
        return ""
    own = _pairs(metric.labels, map(shown, read))
    return f"{metric.name}_info{{{labels + ',' if labels else ''}{own}}} 1\n"


_LINES = {COUNTER: _values, GAUGE: _values, HISTOGRAM: _histogram, INFO: _info}
