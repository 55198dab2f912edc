"""Tables to documents: the man pages in man/, the marked parts of README.md, and what is made of tables among the extras.

    python3 -m modwsgi_tel.docgen            # write them anew
    python3 -m modwsgi_tel.docgen --check    # exit 1 and say which, when that would change one

Commands, options, paths, fields, exit statuses and the agent's settings are in the tables of `options`, `web.routes`,
`wire.fields` and `agent.settings`; here is only what no table has.  No command imports this.
"""
import os
import re
import sys

from modwsgi_tel import __version__
from modwsgi_tel.agent.settings import PREFIX as AGENT_PREFIX
from modwsgi_tel.agent.settings import SETTINGS
from modwsgi_tel.check.checks import CHECKS
from modwsgi_tel.console.hot import KEYS as HOT_KEYS
from modwsgi_tel.console.keys import KEYS
from modwsgi_tel.console.views import PANES
from modwsgi_tel.errors import TelError
from modwsgi_tel.extras import completion, grafana, prometheus
from modwsgi_tel.extras.table import EXTRAS
from modwsgi_tel.findings import RULES
from modwsgi_tel.openmetrics.bounds import PHASE_BOUNDS
from modwsgi_tel.openmetrics.table import COLLECTOR, GROUP, HISTOGRAM, LABELS, METRICS, PROCESS, labels_of, series_of
from modwsgi_tel.options import (COMMANDS, EXIT_STATUS, OPTIONS, PROGRAM, SOCKET, described, label,
                                 options_of, wrapped)
from modwsgi_tel.web.routes import ROUTES
from modwsgi_tel.wire.fields import AGENT_FLAG, AGENT_NUMBER, FIELDS, KINDS, PRIVATE_KINDS, TYPE_NAMES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATE = "November 22, 2026"              # of the last change to the words here
README = "README.md"
_PUNCTUATION = ("[", "]", "(", ")", ".", ",", ":", ";", "?", "!", "|")
_CODE = re.compile(r"[^\s,]*(?:__|\*)[^\s,]*")             # what Markdown would take for emphasis
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
    ("parts", "of the summary only these, separated by commas: collector, totals, groups, agent, processes, findings"),
    ("sort", "a column to sort by; one that is not known is refused with those that are"),
    ("order", "asc, or desc for the largest first; what has no value comes last in both"),
    ("limit", "at most so many rows, or events, the newest"),
    ("offset", "rows from this one on, counted from 0, of those that match; matched says how many do"),
    ("search", "only rows in which this text is found, in whatever case"),
    ("tree", "1: the processes as a tree, sorted by start, cpu, rss or age"),
    ("stacktraces", "1: the tree with whole stacks"),
    ("flat", "1: the tree as a list, in which each names what it stands below"),
    ("no_system", "1: of the tree only what serves requests"),
    ("id", "the one with this number, which this collector has given it"),
    ("pivots", "of the places where long requests spent their time at most so many, the most expensive; 20, where nothing is said"),
    ("pivots_sort", "these places by `recent`, what they cost in the last ten minutes, those of running requests first, which is so where "
     "nothing is said; or by `total`, since the collector began"),
    ("agent", "1: ask the agent inside of the process, instead of reading its memory"),
    ("process", "the process with this id, as /api/processes has it"),
    ("interpreter", "the name of a sub-interpreter; without it the main one"),
)

PIVOT = (
    ("seconds, recent_s", "what its requests cost since the collector began, and in the last ten minutes"),
    ("role, waits, stacks, waited", "what most of its stacks do: works, waits for another thread (waits says for what), or unknown; waited of "
     "stacks waited for others"),
    ("waits_for, how_known", "the place of what it waits for, and how that is known"),
    ("blocked_requests, blocked_s, blocked_recent_s", "requests that wait for what this one has, and for how long"),
    ("cut", "its stacks were cut where it ends: what is further inside may be the same, too"),
)
RAISED = (
    ("first, last", "between these they were, as far as agents told; never later than they were told of"),
    ("received", "when the newest were told of; what since is compared with"),
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
    (AGENT_PREFIX + "NAME", "the setting NAME of the agent, read by the application that runs it: see modwsgi-tel-agent(7)"),
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
    "time": "Where the time of long requests goes, as agents in the applications tell: what the stacks of each request have in common, "
            "ranked by the time it cost in the last ten minutes, those of running requests first, and what others wait for before those "
            "that wait for it; Enter opens one: its frames.",
    "tree": "Processes as a tree: Apache, its process groups, their processes, interpreters and requests with their age and line, what goes "
            "on after its request has ended and what belongs to none; out of telemetry and the stacks that were taken.  Enter unfolds a "
            "request's whole stack; S leads to all stacks of the process.",
    "exceptions": "Exceptions that left the applications, by type and place, as agents in them tell; Enter opens one: its frames.",
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
    "agent_state": "What the agent in an application is set to, and its own counters: at its start, when a collector is back, and each ten "
                   "seconds while it is awake anyway.",
    "long_request": "A request over the agent's threshold, with the fields of slow_request that are known: while it runs, and once at "
                    "its end.",
    "request_stack": "One of the stacks of a long request.  Outermost first it is the first stack_shared frames of the newest stack_pivot, "
                     "then stack_frames.  With slow_log_id.",
    "code_locations": "The text of code locations, told once before their numbers are used, and again when a collector is back.",
    "application_exception": "Exceptions of one type that left the application at one place, with slow_method, slow_path_info and slow_log_id "
                             "of the newest.  They are told again when a collector is back: exception_last says when the newest was; without "
                             "it the stamp of the datagram counts.",
    "operation_timer": "Operations that the application times, by name.",
    "loop_lateness": "An event loop that a callback held longer than a limit, with the stack that did.",
    "thread_stack": "One thread of a dump of all: dump_threads of them belong together.  With slow_log_id, slow_method and slow_path_info of the "
                    "request that it serves.",
    "memory_growth": "What tracemalloc says grew since it was started.",
}
# One line that works with the file as it is built; its path is where README.md puts it.
AGENT_LINE = ('import sys; sys.path.insert(0, "/usr/local/bin/modwsgi-tel.pyz/site-packages"); from modwsgi_tel import agent; '
              'agent.install(socket="unix:/run/modwsgi-tel/telemetry.sock")')
AGENT_CALLS = (
    ("install(**settings)", "watch this interpreter of mod_wsgi: in a WSGI script, or in a file that WSGIImportScript names.  Twice is "
     "once.  Returns whether it runs by now"),
    ("middleware(application, **settings)", "the application, watched, under any WSGI server.  Where mod_wsgi's own requests are watched "
     "already, each counts once"),
    ("annotate(**values)", "say something of the request that the calling thread serves: numbers and texts, shown beside its stacks"),
    ("timer(name)", "with agent.timer(\"db.query\"): how often, how long, how often an exception ended it, as a histogram; at most 100 names"),
    ("timed, agent.timed(name)", "the same as a decorator of functions, coroutines and generators"),
    ("watch_loop(loop=None)", "watch an event loop of asyncio, tornado's too, by default the one that runs: what holds it longer than "
     "loop_limit.  Returns whether it is watched"),
    ("dump()", "the stacks of all threads of this interpreter as text; they go to the collector too, or else to the log"),
)
AGENT_BLIND = (
    ("Greenlets", "of those of gevent and eventlet the one that runs is seen, the others are not; the agent says so"),
    ("The GIL", "while C code holds it no thread of Python runs, the agent's neither: the watchdog's file has the stacks, without names "
     "and requests; stacks PID without --agent reads them from outside"),
    ("Locks", "an RLock knows its owner, and a join the thread that it waits for: then a request says which other one it waits for.  A "
     "plain Lock, a queue or a semaphore knows nobody, which is said; and who wants the GIL looks as if it ran"),
    ("What the server sends", "a request lasts until its body is closed; but where that is a list, or the server's own file wrapper, the "
     "server gets it as it is, and the time that it takes to send it is not seen"),
    ("Event loops in C", "uvloop's turns are not Python's and are not measured"),
    ("uWSGI without --enable-threads", "no thread but uWSGI's own ever runs there: the agent says so, and does nothing"),
)

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
        ".Pp", "Of each of the pivots of", ".Li GET /api/slow :", *tagged([(f"Li {name}", prose(what)) for name, what in PIVOT]),
        ".Pp", "Of each row of", ".Li GET /api/exceptions :", *tagged([(f"Li {name}", prose(what)) for name, what in RAISED]),
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
        ".Sh SEE ALSO", ".Xr curl 1 ,", ".Xr crontab 5 ,", ".Xr modwsgi-tel-metrics 5 ,", ".Xr modwsgi-tel-records 5 ,", ".Xr systemd.exec 5 ,",
        ".Xr modwsgi-tel-agent 7 ,", ".Xr unix 7",
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
        *prose("What mod_wsgi sends, version 1 of its format; what an agent in the application adds, the kinds from 128 up; and what "
               "--record writes.  The names are those in the JSON."),
        ".Ss Datagrams", *prose("A datagram is a header of 24 bytes, little-endian, and fields until its end:"),
        *_display(["offset  type     meaning", "0       4 bytes  WSGI", "4       u8       version, 1", "5       u8       kind",
                   "6       u16      flags: of an agent, see there; else 0", "8       u32      pid, as the sender sees itself",
                   "12      u32      seq, one counter per process and agent, wraps", "16      f64      time, seconds since the epoch"]),
        ".Pp", *prose("A field is a u16 id, a u8 type and the value; the types 4 to 6 have a u16 count of elements before it:"),
        *_display([f"{number}  {name}" for number, name in TYPE_NAMES.items()]),
        ".Pp", *prose("An unknown id is kept, as id42.  An unknown type, an id twice, or a known id of another type than its own makes the "
               "datagram wrong: it is counted, and nothing of it is used."),
        ".Ss Recordings",
        *prose("A recording is a sequence of records, packed by gzip or not: the time of receipt (f64, seconds since the epoch), "
               "the sender's pid by the kernel's credentials (u32, 0 unknown), the length (u32), and the datagram."),
        ".Ss Agents",
        *prose(f"An agent sends with the flag {AGENT_FLAG:#x} and its number: 0 is the first of a process, those in further interpreters have a "
               f"random one up to {AGENT_NUMBER}.  Each has its own seq, over all kinds that it sends; where nobody else reports these are the kinds "
               "2 and 4 to 9 too, and what it cannot know is absent.  Of request_metrics only agent 0 tells sample_period, CPU, memory and "
               "threads."),
        *prose("Records of one request are joined by the process and slow_log_id, with mod_wsgi's own as well.  A code location is a number, from "
               "1, that code_locations told before; 0 is one beyond the bound.  Frames are outermost first.  A stack that is too long for a "
               "datagram is cut from the middle: stack_left_out frames are missing behind the first stack_cut_at of stack_frames."),
        ".Ss Kinds",
        *tagged([(f"Li {number} {name}", prose(KIND_HELP[name])) for number, name in KINDS.items()]
                + [(f"Li {max(KINDS) + 1} No and up", prose("Free for records of others."))]),
        ".Sh FIELDS OF A DATAGRAM",
        *prose("Each with its id, type, unit, and how the values of several intervals make one.")]
    for title, wanted in _field_groups():
        body += [f".Ss {title}", *tagged([(f"Li {literal(field.name)}", _field(field)) for field in wanted])]
    body += [".Sh SEE ALSO", f".Xr {PROGRAM} 1 ,", ".Xr modwsgi-tel-agent 7"]
    return page("MODWSGI-TEL-RECORDS", 5, "modwsgi-tel-records", "datagrams of mod_wsgi's telemetry, and recordings of them", body)


def _field(field):
    how = f"; {MERGES[field.merge]}" if 2 in field.kinds and field.merge != "last" else ""
    return [f"({field.id}, {TYPE_NAMES[field.type]}, {field.unit}{how})", *prose(field.help)]


def _field_groups():
    """(heading, fields) in the order of the table: fields that the same kinds carry stand together."""
    groups = {}
    for field in FIELDS:
        title = ("Reserved" if not field.kinds else
                 "Of several kinds" if len(field.kinds) > 1 and field.kinds[0] < PRIVATE_KINDS else
                 "Of " + ", ".join(KINDS[kind] for kind in field.kinds))
        groups.setdefault(title, []).append(field)
    return groups.items()


# --- modwsgi-tel-agent(7) ---------------------------------------------------------------------

def agent_page():
    """modwsgi-tel-agent(7) as text."""
    body = [
        ".Sh SYNOPSIS", "In a WSGI script under mod_wsgi, or in a file that WSGIImportScript names:", *_display(_statements(AGENT_LINE)),
        ".Pp", "Under any other server, after the same import:", *_display(["application = agent.middleware(application)"]),
        ".Sh DESCRIPTION",
        *prose("The agent tells a collector from inside of an application where its time goes: the stacks of long requests, what they wait "
               "for, exceptions that leave the application, timed operations, late event loops, memory that grows.  Where nobody else "
               "does, as with mod_wsgi before 6.0, gunicorn, uWSGI or waitress, it sends the standard telemetry too, as far as the server "
               "tells: what cannot be known is absent."),
        *prose("It is imported from the file of the program as it was built, all at once: that file may be replaced while an application "
               "runs.  One thread in each interpreter does all the work and sleeps while nothing is slow.  Nothing of it raises into the "
               "application, holds a lock while its code runs, or waits for the collector."),
        *prose("A setting is an argument, or else in the environment."),
        ".Sh FUNCTIONS", *tagged([(_tag("agent." + call), prose(sentence(what))) for call, what in AGENT_CALLS]),
        ".Sh SETTINGS",
        *prose(f"In the environment each is named {AGENT_PREFIX}NAME, in capitals.  Several words are a list, or have commas between them.  "
               "A value that is none leaves the default, and the agent tells it."),
        *tagged([(_tag(setting.name), prose(f"{setting.help} (default {_default(setting)})")) for setting in SETTINGS]),
        ".Sh WHAT IT DOES NOT SEE", *tagged([(f"Em {name}", prose(sentence(what))) for name, what in AGENT_BLIND]),
        ".Sh FILES",
        *tagged([("Pa modwsgi\\-tel\\-agent.PID.NUMBER.dump", prose(
            "in watchdog_folder: empty, or the stacks while the GIL is held.  Mode 0640, with the group of the process; "
            "files, functions and lines, never values.  Removed at the end of the process."))]),
        ".Sh SEE ALSO", f".Xr {PROGRAM} 1 ,", ".Xr modwsgi-tel-records 5",
        ".Sh SECURITY CONSIDERATIONS",
        *prose("The abstract unix socket modwsgi-tel-agent.PID.NUMBER answers root, the process's own user and the owner of the telemetry "
               "socket, as the kernel names them (SO_PEERCRED), and hangs up on everybody else.  It is reached from the same network "
               "namespace alone."),
        *prose("Values of variables are told with locals only, and what exceptions say with exception_texts only.  What a name or its looks "
               "tell to be a secret is masked; what neither gives away is not.  Methods, paths and annotations go to the collector.")]
    return page("MODWSGI-TEL-AGENT", 7, "modwsgi-tel-agent", "the agent in an application, for modwsgi-tel", body)


def _statements(line):
    """A line of Python as one for each statement."""
    return line.split("; ")


def _default(setting):
    """As a reader may write it."""
    value = setting.default
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value or "none")


# --- modwsgi-tel-metrics(5) -------------------------------------------------------------------

_SCOPES = ((GROUP, "Of each process group"), (PROCESS, "Of single processes"), (COLLECTOR, "Of the collector"))


def metrics_page():
    """modwsgi-tel-metrics(5) as text."""
    body = [
        ".Sh DESCRIPTION",
        *prose("What GET /metrics of serve answers, and --textfile writes: OpenMetrics 1.0 where the reader accepts it, else the text format of "
               "Prometheus.  Counters count from the start of the collector over all processes, whatever becomes of these.  What no sender "
               "tells is absent, never 0.  Every sample of a group has the labels hostname, as its processes call their host, and process_group, "
               "which is empty in mod_wsgi's embedded mode.  The number of series is bounded by --max-groups and --metrics-processes, and does "
               "not grow with processes that come and go."),
        ".Ss Histograms",
        *prose("The buckets of latencies end at edges of the senders' own histograms, so that each count is exact: "
               + ", ".join(f"{bound:g}" for bound in PHASE_BOUNDS) + " seconds.  Prometheus makes native histograms of them with "
               "convert_classic_histograms_to_nhcb: true in its scrape configuration (3.0 and later).")]
    for scope, title in _SCOPES:
        body += [f".Ss {title}", *tagged([(f"Li {literal(metric.name if metric.type == HISTOGRAM else series_of(metric)[0])}", _metric(metric))
                                          for metric in METRICS if metric.scope == scope])]
    body += [".Sh SEE ALSO", f".Xr {PROGRAM} 1"]
    return page("MODWSGI-TEL-METRICS", 5, "modwsgi-tel-metrics", "metrics of modwsgi-tel, for Prometheus", body)


def _metric(metric):
    own = [name for name in labels_of(metric) if name not in LABELS[metric.scope] or metric.scope == PROCESS]
    return [f"({metric.type}{', by ' + ', '.join(own) if own else ''})", *prose(metric.help)]


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


def _settings_table():
    return [_row("setting", "default", "what it says"), "| --- | --- | --- |",
            *(_row(f"`{setting.name}`", _default(setting), _CODE.sub(r"`\g<0>`", setting.help)) for setting in SETTINGS)]


def _checks_table():
    return [_row("check", "`-w`", "`-c`", "what it looks at"), "| --- | --- | --- | --- |",
            *(_row(f"`{check.name}`", check.warning or "-", check.critical or "-", check.help) for check in CHECKS)]


def _extras_table():
    return [_row("name", "what it is"), "| --- | --- |", *(_row(f"`{extra.name}`", extra.summary) for extra in EXTRAS)]


def _agent_line():
    return ["```python", AGENT_LINE, "```"]


PARTS = {"agent": _agent_line, "settings": _settings_table, "commands": _commands_table, "routes": _routes_table, "limits": _limits_table,
         "checks": _checks_table, "extras": _extras_table}


def with_parts(readme):
    """The README's text with every marked part made anew.  Raises TelError for a part that is not known or not there."""
    seen = [match.group(2) for match in _MARK.finditer(readme)]
    if sorted(seen) != sorted(PARTS):
        raise TelError(f"{README}: has the generated parts {', '.join(seen) or 'none'}, should have {', '.join(PARTS)} once each")
    return _MARK.sub(lambda match: match.group(1) + "\n".join(PARTS[match.group(2)]()) + "\n" + match.group(3), readme)


# --- extras -----------------------------------------------------------------------------------

EXTRAS_MADE = {"prometheus/recording.yml": prometheus.recording_yaml, "prometheus/alerts.yml": prometheus.alerts_yaml,
               "grafana/modwsgi-tel.json": grafana.dashboard,
               "completion/modwsgi-tel.bash": completion.bash, "completion/_modwsgi-tel": completion.zsh,
               "completion/modwsgi-tel.fish": completion.fish}


# --- the command ------------------------------------------------------------------------------

def documents(root=ROOT):
    """{path below root: text} of all that is generated."""
    with open(os.path.join(root, README), encoding="utf-8") as handle:
        readme = handle.read()
    return {f"man/{PROGRAM}.1": program_page(), "man/modwsgi-tel-records.5": records_page(), "man/modwsgi-tel-agent.7": agent_page(),
            "man/modwsgi-tel-metrics.5": metrics_page(),
            README: with_parts(readme), **{f"modwsgi_tel/extras/static/{name}": make() for name, make in EXTRAS_MADE.items()}}


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
