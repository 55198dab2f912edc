"""Tables to documents: the man pages in man/, and the marked parts of README.md.

    python3 -m modwsgi_tel.docgen            # write them anew
    python3 -m modwsgi_tel.docgen --check    # exit 1 and say which, when that would change one

Commands, options, paths, fields and exit statuses are in the tables of `options`, `web.routes`
and `wire.fields`; here is only what no table has.  No command imports this.
"""
import os
import re
import sys

from modwsgi_tel import __version__
from modwsgi_tel.console.hot import KEYS as HOT_KEYS
from modwsgi_tel.console.keys import KEYS
from modwsgi_tel.console.views import PANES
from modwsgi_tel.errors import TelError
from modwsgi_tel.findings import RULES
from modwsgi_tel.options import (COMMANDS, EXIT_STATUS, OPTIONS, PROGRAM, SOCKET, described, label,
                                 options_of, wrapped)
from modwsgi_tel.web.routes import ROUTES
from modwsgi_tel.wire.fields import FIELDS, KINDS, PRIVATE_KINDS, TYPE_NAMES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATE = "November 21, 2026"              # of the last change to the words here
README = "README.md"
_PUNCTUATION = ("[", "]", "(", ")", ".", ",", ":", ";", "?", "!", "|")
_MARK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)

# --- what no table has ----------------------------------------------------------------------

PARAMETERS = (
    ("group", "only processes of this process group"),
    ("pid", "only the processes with this pid, as they say or as the kernel says"),
    ("since", "only what was received after this time, in seconds since the epoch"),
    ("samples", "at most so many samples of each process, the newest"),
    ("life", "slow requests in these lives, separated by commas: active, stale, completed, lost"),
    ("phase", "the phase of the request: request, where none is given"),
    ("window", "now, 1m or 10m; without it 1m, or all three where the answer has room for them"),
    ("parts", "of the summary only these, separated by commas: collector, totals, groups, processes, findings"),
    ("sort", "a column to sort by; one that is not known is refused with those that are"),
    ("order", "asc, or desc for the largest first; what has no value comes last in both"),
    ("limit", "at most so many rows, or events, the newest"),
    ("offset", "rows from this one on, counted from 0, of those that match; matched says how many do"),
    ("search", "only rows in which this text is found, in whatever case"),
    ("id", "the one with this number, which this collector has given it"),
    ("process", "the process with this id, as /api/processes has it"),
    ("interpreter", "the name of a sub-interpreter; without it the main one"),
)

ASKED = (
    ("202", "it will be read; wait_s: in about so many seconds"),
    ("400", "neither pid nor id is given, or a parameter is not known"),
    ("403", "nobody may ask here: --stacks-post, --stacks off, or a page of another site"),
    ("404", "no such process is known"),
    ("409", "it cannot be read: it has ended, or its pid is not what the kernel says of the sender; or the last try failed, which is "
     "said once, and it is tried again"),
    ("429", "it was read less than a second ago, or too many wait"),
)

SIGNALS = (
    ("SIGTERM, SIGINT", "take in what is queued, remove the sockets and end with status 0"),
    ("SIGHUP", "open the file of --log-file anew, after it was moved away"),
)

FILES = (
    (SOCKET.split(":", 1)[1], "the telemetry socket when --listen names no other.  Apache's service on Debian has a /tmp of its "
     "own and does not see this one: give a path in /run there"),
    ("FILE.1", "of --record FILE: the older half of the recording"),
)

VARIABLES = (
    ("MODWSGI_TEL_NAME", "the option --name of whatever command runs, its dashes as underscores: MODWSGI_TEL_HTTP_PORT for "
     "--http-port.  An option without a value is yes or no; one that may be repeated has its values separated by commas"),
    ("MOD_WSGI_TELEMETRY_URL", "the running collector, where neither --url nor MODWSGI_TEL_URL names it; ws://HOST:PORT/ws is "
     "understood"),
    ("NO_COLOR", "not empty: top shows no colours"),
    ("LC_ALL, LC_CTYPE, LANG", "the first that is set says whether the terminal of top shows UTF-8; where it does not, top draws "
     "with ASCII"),
    ("TMPDIR", "where demo makes the folder for its socket"),
    ("TZ", "the time zone of names made by --output, of the log and of tables"),
)

VIEW_HELP = {
    "overview": "Throughput, threads busy, response time, errors, CPU and memory as lines over the window; what is wrong, since when "
                "and what to do; the mean request by its phases; the process groups.",
    "processes": "All processes as a table; Enter opens one: its slots, its slow requests, GC, history, events and losses.",
    "workers": "The slots of each process, a letter each: what runs a request and for how long.  The cursor moves over those that "
               "do; below is what is known of the request.",
    "latency": "The histogram of one phase with its median, p95, p99 and longest.  For gil_wait also how the waits end.",
    "slow": "Slow requests, those that run first; Enter opens one with all its fields and its phases as a bar.",
    "gc": "The garbage collector of each interpreter; Enter opens its pauses, by time, length and generation.",
    "lifecycle": "Processes as bars over time with how they ended, and the log of starts and stops.",
    "stacks": "Where the Python of each process was when the collector last read it, and who holds the GIL; Enter opens one: threads "
              "with the same stack together, innermost frame first.  S on an opened process or slow request leads there too.",
    "collector": "The collector itself: what it received, lost, refused and let go, its memory and CPU, and whether it ever stood still.",
}

KIND_HELP = {
    "process_metrics": "Reserved.", "server_metrics": "Reserved.",
    "request_metrics": "Once an interval: what the process did since the last one.",
    "slow_request": "A request that takes longer than WSGISlowRequests: each interval while it runs, once when it is complete.",
    "process_started": "The first datagram of a process.",
    "process_stopping": "The process has decided to end, and why; requests may still run.",
    "process_stopped": "The last words of a process.  After SIGKILL there are none.",
    "gc_snapshot": "Once an interval and interpreter: the state of its garbage collector.",
    "gc_event": "One garbage collection.",
}
MERGES = {
    "last": "the newest counts", "sum": "added", "mean": "mean, weighted by request_count", "timed": "mean, weighted by "
    "sample_period", "min": "the least", "max": "the largest", "buckets": "added, element by element",
    "slots": "one element per thread, never combined",
}

# --- mdoc -------------------------------------------------------------------------------------


def escaped(words):
    """Text that roff shows as it is, on a line that is no macro's."""
    words = words.replace("\\", "\\e")
    words = re.sub(r"(?<![\w-])-(?=[-\w])", r"\-", words).replace("\\--", "\\-\\-")
    return "\\&" + words if words[:1] in (".", "'") else words


def literal(words):
    """A command or a path: its hyphens stay what a shell understands."""
    shown = words.replace("\\", "\\e").replace("-", "\\-")
    # a line that begins so is a macro's; a lone bracket or stop is punctuation to mdoc
    return "\\&" + shown if words[:1] in (".", "'") or words in _PUNCTUATION else shown


def prose(words):
    """Lines of running text: every sentence begins a line."""
    words = " ".join(words.split())
    return [escaped(line) for each in re.split(r"(?<=\w\.) (?=[A-Z])", words) for line in wrapped(each, "", 76)]


def sentence(words):
    return words[:1].upper() + words[1:] + "."


def tagged(rows, width="Ds"):
    """A list of (tag, lines)."""
    lines = [f".Bl -tag -width {width}"]
    for tag, body in rows:
        lines += [f".It {tag}", *body]
    return [*lines, ".El"]


def _tag(words):
    return "Li " + " ".join(literal(word) for word in words.split())


def _option_tag(option):
    value = "" if label(option) == f"--{option.name}" else f" Ar {literal(option.metavar)}"
    return f"Fl \\-{literal(option.name)}{value}"


def _display(lines):
    return [".Bd -literal -offset indent", *map(literal, lines), ".Ed"]


def page(title, section, name, description, body):
    return "\n".join([
        '.\\" Made by python3 -m modwsgi_tel.docgen: change the tables, or the words, there.',
        f".Dd {DATE}", f".Dt {title} {section}", f".Os {PROGRAM} {__version__}", ".Sh NAME", f".Nm {name}",
        f".Nd {description}", *body]) + "\n"


# --- modwsgi-tel(1) ---------------------------------------------------------------------------

def _synopsis():
    lines = []
    for command in COMMANDS:
        name = f"Op Cm {command.name}" if command is COMMANDS[0] else f"Cm {command.name}"
        lines += [".Nm", f".{name}", ".Op Ar options"]
        if command.arguments:
            lines.append(f".Ar {command.arguments.replace('...', ' ...')}")
    return [*lines, ".Nm", ".Op Ar command", ".Fl \\-help", ".Nm", ".Fl \\-version"]


def _command(command):
    lines = [f".Ss {command.name}", *prose(sentence(command.summary)), ".Pp", *prose(command.text)]
    earlier = [other for other in COMMANDS[:COMMANDS.index(command)]]
    shared = {}
    for option in options_of(command.name):
        for other in earlier:
            if other.name in option.commands:
                shared.setdefault(other.name, []).append(option)
                break
    named = [option for options in shared.values() for option in options]
    own = [option for option in options_of(command.name) if option not in named]
    section = None
    for option in own:
        if option.section != section:
            lines += [".El"] if section else []
            section = option.section
            lines += [".Pp", f".Em {section}", ".Bl -tag -width Ds"]
        lines += [f".It {_option_tag(option)}", *prose(described(option))]
    lines += [".El"] if section else []
    for other, options in shared.items():
        lines.append(".Pp")
        left_out = [option for option in options_of(other) if command.name not in option.commands]
        if len(left_out) < len(options):
            lines += ["As for", f".Cm {other} :", "all of its options but", *_listed(left_out)]
        else:
            lines += ["As for", f".Cm {other} :", *_listed(options)]
    return lines


def _listed(options):
    lines = [f".Fl \\-{literal(option.name)} ," for option in options]
    lines[-1] = lines[-1][:-1] + "."
    return lines


def _route(route):
    tag = f"Li {route.method} {literal(route.path)}"
    body = prose(route.help)
    if route.parameters:
        body += [".br", "parameters: " + ", ".join(route.parameters)]
    return tag, body


def program_page():
    """modwsgi-tel(1) as text."""
    body = [
        ".Sh SYNOPSIS", *_synopsis(), ".Sh DESCRIPTION",
        *prose("mod_wsgi 6.0 and later send telemetry as datagrams to a unix socket: what each process of a Python web "
               "application does, once a second."),
        ".Nm", *prose("binds that socket, keeps the last minutes in memory, bounded, and serves them over HTTP as JSON."),
        *prose("Nothing is written but to the paths that it is given."),
        ".Pp", *prose("Without a command the options are those of serve.  An option's value is looked for on the command line, "
                      "then in the environment, then in the configuration file."),
        *prose("BYTES and N may end in k, M or G for powers of 1024; TIME is in seconds, or ends in ms, s, m, h or d."),
        ".Sh COMMANDS"]
    for command in COMMANDS:
        body += _command(command)
    body += [
        ".Sh CONFIGURATION FILE",
        *prose("The file that --config names has a section for each command, with its options without their dashes:"),
        *_display(["[serve]", "listen = unix:/run/modwsgi-tel/telemetry.sock", "socket-group = www-data", "no-http-port = yes",
                   "http-socket = /run/modwsgi-tel/http.sock", "max-slow = 2000", "", "[dump]",
                   "http-socket = /run/modwsgi-tel/http.sock"]),
        ".Pp", *prose("Sections and names that are not known are refused."),
        ".Sh HTTP",
        *prose("Answers are JSON in UTF-8, without NaN or infinity, packed with gzip when the client accepts that; errors are "
               "JSON too: an object with the key error.  HEAD is answered wherever GET is."),
        *tagged([_route(route) for route in ROUTES]),
        ".Pp", "Parameters:", *tagged([(_tag(name), prose(what)) for name, what in PARAMETERS]),
        ".Pp", "The statuses of", ".Li POST /api/stacks :", *tagged([(f"Li {status}", prose(what)) for status, what in ASKED]),
        ".Pp", *prose("Its outcome is in GET /api/stacks: the stacks, or problem.  With --stacks-post auto it is open where only this machine "
               "can reach the collector, or --token-file is given; on opens it, off shuts it."),
        ".Pp", *prose("A request over TCP must be for a host that is ours: the address that was bound, a name of --allow-host; on "
                      "loopback localhost, 127.0.0.1 and ::1.  Another one gets 421, a POST from a page of another site 403."),
        *prose("With --token-file every request needs the header Authorization: Bearer TOKEN; a browser gives the token once "
               "at /login and gets a cookie."),
        *prose("Behind a proxy that shows it under a path, give --root-path, or let the proxy send X-Forwarded-Prefix."),
        ".Sh CONSOLE", *_console(),
        ".Sh FINDINGS",
        *prose("What is wrong, in words: the first line of the console, and findings in the summary.  Each has the id of its rule, "
               "a severity, since when, a text, an advice and the figures that the text rests on.  The rules look at the last "
               "minute of each process group."),
        *tagged([(f"Li {literal(rule.id)} No ({rule.severity})", [*prose(rule.help), *prose(rule.advice)]) for rule in RULES]),
        ".Sh SIGNALS", *tagged([(_tag(name), prose(what)) for name, what in SIGNALS]),
        ".Sh ENVIRONMENT", *tagged([(f"Ev {name}", prose(what)) for name, what in VARIABLES]),
        ".Sh FILES", *tagged([(f"Pa {literal(name)}", prose(what)) for name, what in FILES]),
        ".Sh EXIT STATUS", *tagged([(str(status), prose(what)) for status, what in EXIT_STATUS]),
        ".Sh EXAMPLES"]
    for command in COMMANDS:
        for example, why in command.examples:
            body += [*prose(sentence(why)[:-1] + ":"), *_display(_broken(f"{PROGRAM} {example}")), ".Pp"]
    body.pop()
    body += [
        ".Pp", "In a crontab a per cent sign needs a backslash:",
        *_display([r"*/5 * * * * /usr/local/bin/modwsgi-tel.pyz dump --output wsgi-%H.txt".replace("%", r"\%")]),
        ".Sh SEE ALSO", ".Xr curl 1 ,", ".Xr crontab 5 ,", ".Xr modwsgi-tel-records 5 ,", ".Xr systemd.exec 5 ,", ".Xr unix 7",
        ".Sh SECURITY CONSIDERATIONS",
        *prose("Loopback keeps other machines out, not other users of this one: on a host with other users serve on "
               "--http-socket with --no-http-port, or ask for a token."),
        *prose("Whoever may write to the telemetry socket may tell of processes that do not exist; the kernel's credentials say "
               "who it was, and the bounds hold for all that one user sends.")]
    return page("MODWSGI-TEL", 1, PROGRAM, "receive mod_wsgi's telemetry, keep it and serve it", body)


def _console():
    """The keys and views of top, and the keys of hot."""
    return [
        *prose("The first line says what is wrong, by the rules under FINDINGS, the second has the totals, the third the views; the "
               "last one has the keys of the view."),
        *tagged([(" , ".join(f"Li {key}" for key in pane.keys), [f".Em {pane.title} .", *prose(VIEW_HELP[pane.name])]) for pane in PANES]),
        ".Pp", "In all views:",
        *tagged([(_tag(key.shown), prose(sentence(key.help))) for key in KEYS if key.shown]),
        ".Pp", "In", ".Cm hot :",
        *tagged([(_tag(key.shown), prose(sentence(key.help))) for key in HOT_KEYS if key.shown])]


def _broken(command, width=66):
    """A command line as lines of at most `width` that a shell reads as one."""
    lines, line = [], ""
    for word in command.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line + " \\")
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return lines + [line]


# --- modwsgi-tel-records(5) -------------------------------------------------------------------

def records_page():
    """modwsgi-tel-records(5) as text."""
    body = [
        ".Sh DESCRIPTION",
        *prose("What mod_wsgi sends, version 1 of its format, and what --record writes.  The names are those in the JSON."),
        ".Ss Datagrams", *prose("A datagram is a header of 24 bytes, little-endian, and fields until its end:"),
        *_display(["offset  type     meaning", "0       4 bytes  WSGI", "4       u8       version, 1", "5       u8       kind",
                   "6       u16      flags, reserved", "8       u32      pid, as the sender sees itself",
                   "12      u32      seq, one counter per process, wraps", "16      f64      time, seconds since the epoch"]),
        ".Pp", *prose("A field is a u16 id, a u8 type and the value; the types 4 to 6 have a u16 count of elements before it:"),
        *_display([f"{number}  {name}" for number, name in TYPE_NAMES.items()]),
        ".Pp", *prose("An unknown id is kept, as id42.  An unknown type, an id twice, or a known id of another type than its own makes the "
               "datagram wrong: it is counted, and nothing of it is used."),
        ".Ss Recordings",
        *prose("A recording is a sequence of records, packed by gzip or not: the time of receipt (f64, seconds since the epoch), "
               "the sender's pid by the kernel's credentials (u32, 0 unknown), the length (u32), and the datagram."),
        ".Ss Kinds",
        *tagged([(f"Li {number} {name}", prose(KIND_HELP[name])) for number, name in KINDS.items()]
                + [(f"Li {PRIVATE_KINDS} No and up", prose("Free for records that are not mod_wsgi's."))]),
        ".Sh FIELDS OF A DATAGRAM",
        *prose("Each with its id, type, unit, and how the values of several intervals make one.")]
    for title, wanted in _field_groups():
        body += [f".Ss {title}", *tagged([(f"Li {literal(field.name)}", _field(field)) for field in wanted])]
    body += [".Sh SEE ALSO", f".Xr {PROGRAM} 1"]
    return page("MODWSGI-TEL-RECORDS", 5, "modwsgi-tel-records", "datagrams of mod_wsgi's telemetry, and recordings of them", body)


def _field(field):
    how = f"; {MERGES[field.merge]}" if 2 in field.kinds and field.merge != "last" else ""
    return [f"({field.id}, {TYPE_NAMES[field.type]}, {field.unit}{how})", *prose(field.help)]


def _field_groups():
    """(heading, fields) in the order of the table: fields that the same kinds carry stand together."""
    groups = {}
    for field in FIELDS:
        title = ("Reserved" if not field.kinds else
                 "Of several kinds" if len(field.kinds) > 1 else f"Of {KINDS[field.kinds[0]]}")
        groups.setdefault(title, []).append(field)
    return groups.items()


# --- README.md --------------------------------------------------------------------------------

def _row(*cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _commands_table():
    return [_row("command", "what it does"), "| --- | --- |",
            *(_row(f"`{command.name}`", command.summary) for command in COMMANDS)]


def _routes_table():
    return [_row("path", "what it answers"), "| --- | --- |",
            *(_row(f"`{route.method} {route.path}`", route.help + (
                "; " + ", ".join(f"`?{name}=`" for name in route.parameters) if route.parameters else "")) for route in ROUTES)]


def _limits_table():
    return [_row("option", "default", "bounds"), "| --- | --- | --- |",
            *(_row(f"`--{option.name}`", option.default, option.help) for option in OPTIONS if option.section == "Limits")]


PARTS = {"commands": _commands_table, "routes": _routes_table, "limits": _limits_table}


def with_parts(readme):
    """The README's text with every marked part made anew.  Raises TelError for a part that is not known or not there."""
    seen = [match.group(2) for match in _MARK.finditer(readme)]
    if sorted(seen) != sorted(PARTS):
        raise TelError(f"{README}: has the generated parts {', '.join(seen) or 'none'}, should have {', '.join(PARTS)} once each")
    return _MARK.sub(lambda match: match.group(1) + "\n".join(PARTS[match.group(2)]()) + "\n" + match.group(3), readme)


# --- the command ------------------------------------------------------------------------------

def documents(root=ROOT):
    """{path below root: text} of all that is generated."""
    with open(os.path.join(root, README), encoding="utf-8") as handle:
        readme = handle.read()
    return {f"man/{PROGRAM}.1": program_page(), "man/modwsgi-tel-records.5": records_page(), README: with_parts(readme)}


def stale(root=ROOT):
    """The paths below root that differ from what would be generated."""
    found = []
    for path, wanted in documents(root).items():
        try:
            with open(os.path.join(root, path), encoding="utf-8") as handle:
                if handle.read() == wanted:
                    continue
        except FileNotFoundError:
            pass
        found.append(path)
    return found


def main(argv=None, root=ROOT):
    """Write what differs, or with --check only name it; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv not in ([], ["--check"]):
        sys.stderr.write("usage: python3 -m modwsgi_tel.docgen [--check]\n")
        return 2
    wanted = documents(root)
    found = stale(root)
    for path in found:
        if argv:
            sys.stderr.write(f"{path} is not as the tables say: run python3 -m modwsgi_tel.docgen\n")
            continue
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as handle:
            handle.write(wanted[path])
    return 1 if argv and found else 0


if __name__ == "__main__":
    sys.exit(main())
