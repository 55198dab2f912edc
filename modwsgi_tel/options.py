"""Every command and option, as tables: the parser, --help, the man page, the README and the
configuration file all come from here.

An option's value is looked for on the command line, then in the environment
(MODWSGI_TEL_NAME), then in the configuration file (`name = value` in the command's section),
then here.
"""
import os
import sys
from collections import namedtuple

from modwsgi_tel import __version__
from modwsgi_tel.errors import TelError, UsageError

PROGRAM = "modwsgi-tel"
SOCKET = "unix:/tmp/mod_wsgi-telemetry.sock"
STACKS_SOCKET = "unix:/run/modwsgi-tel-stacks.sock"
URL = "http://127.0.0.1:8888"

Option = namedtuple("Option", "name type default metavar commands section help short", defaults=("",))
Option.__doc__ = """name: without the dashes.  type: a function from text to the value, or FLAG or MANY.  default: as text.
commands: those that have it.  section: its heading in --help.  short: its letter on the command line, or ""."""

Command = namedtuple("Command", "name summary arguments text examples")

FLAG = "flag"
MANY = "many"                           # may be given several times; in a file or variable: separated by commas


# --- types: text to value, ValueError with what is wanted ---------------------------------

def text(value):
    return value


def whole(low, high=None):
    """A whole number within bounds, with k, M or G (powers of 1024) for short."""
    def convert(value):
        digits, unit = value, 1
        if value[-1:] in ("k", "K", "M", "G"):
            digits, unit = value[:-1], {"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[value[-1]]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
            raise ValueError("a whole number" + (f" from {low}" if high is None else f" from {low} to {high}"))
        number = int(digits) * unit
        if number < low or (high is not None and number > high):
            raise ValueError(f"a whole number from {low}" + ("" if high is None else f" to {high}"))
        return number
    return convert


def seconds(low):
    """Seconds, with ms, s, m, h or d for short."""
    def convert(value):
        number, unit = value, 1.0
        for ending, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)):
            if value.endswith(ending):
                number, unit = value[:-len(ending)], factor
                break
        try:
            result = float(number) * unit
        except ValueError:
            result = -1.0
        if not low <= result < 1e9:
            raise ValueError(f"seconds, at least {low:g}, as 0.5, 10m or 2h")
        return result
    return convert


def mode(value):
    """A file mode in octal."""
    try:
        number = int(value, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise ValueError("an octal mode, as 0660")
    return number


def one_of(*names):
    def convert(value):
        for name in names:
            if value.lower() == name.lower():
                return name
        raise ValueError("one of " + ", ".join(names))
    convert.names = names               # for completion
    return convert


def some_of(*names):
    """A tuple of these names, in their order, from text with commas."""
    def convert(value):
        wanted = {each.strip().lower() for each in value.split(",")}
        if not wanted <= set(names):
            raise ValueError("one of " + ", ".join(names) + ", or some with commas between them")
        return tuple(name for name in names if name in wanted)
    convert.names, convert.several = names, True
    return convert


def speed(value):
    """A factor, or None for `max`."""
    if value == "max":
        return None
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise ValueError("a number above 0, as 1 or 10, or max")
    return number


def a_second(value):
    """How often a second."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 100:
        raise ValueError("a number from 0.01 to 100")
    return number


LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
VIEWS = ("overview", "processes", "workers", "latency", "slow", "gc", "lifecycle", "collector", "stacks", "time", "exceptions", "tree")
PHASES = ("request", "server", "queue", "daemon", "application", "gil_wait", "input_read", "output_write")
PROFILES = ("steady", "busy", "gil", "slow", "leak", "gc-storm", "crash-loop", "deploy")

# --- the tables -----------------------------------------------------------------------------

_SERVE = ("serve", "demo", "top")
_CLIENT = ("dump", "top", "processes", "why", "doctor")
_ASKS = ("dump", "processes", "why", "check", "doctor")
_BINDS = ("serve", "dump", "top")
_FLEET = ("simulate", "demo")
_STACKS = ("stacks",)
_PROFILE = ("record", "hot")
_TARGETS = ("stacks", *_PROFILE, "inspect")
_SAMPLE = ("sample",)
# Variables of older tools: of an option, or of a command's option
ALIASES = {"url": "MOD_WSGI_TELEMETRY_URL", ("sample", "interval"): "TRIPOD_INTERVAL"}

OPTIONS = (
    Option("listen", text, SOCKET, "unix:PATH", _BINDS, "Telemetry socket",
           "where mod_wsgi sends: a unix datagram socket, created here"),
    Option("socket-mode", mode, "0660", "MODE", _BINDS, "Telemetry socket", "its file mode, set before anyone can connect"),
    Option("socket-group", text, "", "GROUP", _BINDS, "Telemetry socket",
           "its group, by name or number: the group of Apache's user, as www-data"),

    Option("http-host", text, "127.0.0.1", "ADDRESS", _SERVE, "HTTP", "address to serve on"),
    Option("http-port", whole(0, 65535), "8888", "PORT", _SERVE, "HTTP", "port to serve on; 0 picks a free one and says which"),
    Option("http-socket", text, "", "PATH", ("serve", "demo"), "HTTP",
           "serve on this unix socket too (curl --unix-socket PATH http://localhost/)"),
    Option("http-socket-mode", mode, "0660", "MODE", _SERVE, "HTTP", "its file mode"),
    Option("no-http-port", FLAG, "", "", ("serve", "demo"), "HTTP", "serve on --http-socket alone"),
    Option("root-path", text, "", "/PREFIX", _SERVE, "HTTP", "path under which a proxy shows it"),
    Option("allow-host", MANY, "", "NAME", _SERVE, "HTTP", "another host name or address that requests may be for"),
    Option("token-file", text, "", "FILE", ("serve", "demo"), "HTTP", "ask for the token in this file on everything"),

    Option("max-processes", whole(1, 100000), "2000", "N", _SERVE, "Limits", "processes known at once"),
    Option("max-slow", whole(1, 1000000), "16384", "N", _SERVE, "Limits", "slow requests kept"),
    Option("max-samples", whole(1, 100000), "600", "N", _SERVE, "Limits", "samples kept per process"),
    Option("max-interpreters", whole(1, 10000), "64", "N", _SERVE, "Limits", "interpreters per process"),
    Option("max-groups", whole(1, 10000), "256", "N", _SERVE, "Limits", "process groups"),
    Option("max-events", whole(1, 100000), "500", "N", _SERVE, "Limits", "lifecycle events kept"),
    Option("keep-bytes", whole(1 << 20), "256M", "BYTES", _SERVE, "Limits", "kept datagrams, packed, all together"),
    Option("unpacked-bytes", whole(0), "8M", "BYTES", _SERVE, "Limits", "of these, what stays unpacked to save CPU time"),
    Option("slow-bytes", whole(1 << 16), "64M", "BYTES", _SERVE, "Limits", "records of slow requests, all together"),
    Option("slow-retention", seconds(1), "10m", "TIME", _SERVE, "Limits", "an ended slow request is kept so long"),
    Option("gc-retention", seconds(1), "5m", "TIME", _SERVE, "Limits", "garbage collections of a silent process are kept so long"),
    Option("process-retention", seconds(1), "10m", "TIME", _SERVE, "Limits", "an ended process is kept so long"),
    Option("silent-retention", seconds(1), "1h", "TIME", _SERVE, "Limits",
           "a silent process is kept so long when nothing can tell whether it lives"),
    Option("max-connections", whole(1, 900), "256", "N", _SERVE, "Limits", "HTTP connections at once"),
    Option("max-request-line", whole(64), "8k", "BYTES", _SERVE, "Limits", "of an HTTP request"),
    Option("max-headers", whole(256), "16k", "BYTES", _SERVE, "Limits", "of an HTTP request's headers"),
    Option("max-header-count", whole(1), "100", "N", _SERVE, "Limits", "headers of an HTTP request"),
    Option("max-body", whole(0), "64k", "BYTES", _SERVE, "Limits", "of an HTTP request's body"),
    Option("request-timeout", seconds(0.1), "10s", "TIME", _SERVE, "Limits", "for an HTTP request to arrive"),
    Option("idle-timeout", seconds(0.1), "30s", "TIME", _SERVE, "Limits", "for a kept HTTP connection without a request"),
    Option("write-timeout", seconds(0.1), "30s", "TIME", _SERVE, "Limits", "for an HTTP client to read on"),

    Option("stacks", one_of("auto", "off"), "auto", "auto|off", _SERVE, "Stacks", "auto: read the Python stacks of processes with slow "
           "requests and of silent ones, where that is permitted"),
    Option("stacks-rate", a_second, "2", "N", _SERVE, "Stacks", "processes read a second, at most"),
    Option("stacks-helper", text, "", "PATH", _SERVE, "Stacks", "the socket of modwsgi-tel stack-helper, which reads them instead"),
    Option("stacks-post", one_of("auto", "on", "off"), "auto", "auto|on|off", _SERVE, "Stacks", "whether clients may ask for stacks; "
           "auto: where only this machine can reach it, or --token-file is given"),
    Option("textfile", text, "", "FILE.prom", ("serve",), "Metrics", "write the metrics of GET /metrics there too, whole each time: for "
           "node_exporter's textfile collector, where no port may be opened"),
    Option("textfile-interval", seconds(1), "15", "TIME", ("serve",), "Metrics", "so often"),
    Option("metrics-processes", whole(0, 2000), "0", "N", _SERVE, "Metrics", "series of so many single processes, by pid, besides those of the "
           "groups"),

    Option("listen", text, STACKS_SOCKET, "unix:PATH", ("stack-helper",), "Socket", "where collectors ask: a unix stream socket, created "
           "here"),
    Option("socket-mode", mode, "0660", "MODE", ("stack-helper",), "Socket", "its file mode"),
    Option("socket-group", text, "", "GROUP", ("stack-helper",), "Socket", "its group, by name or number: a group of the collector's user"),
    Option("allow-uid", MANY, "", "USER", ("stack-helper",), "Permission", "a user who may ask, by name or number, besides root and its own"),
    Option("for-uid", MANY, "", "USER", ("stack-helper",), "Permission", "a user whose processes may be read too, whatever they are; "
           "without it only Apache's, and never root's"),
    Option("stacks-rate", a_second, "10", "N", ("stack-helper",), "Permission", "processes read a second, at most"),

    Option("record", text, "", "FILE", _SERVE, "Recording", "write every datagram to this capture file, for replay"),
    Option("record-size", whole(1 << 20), "256M", "BYTES", _SERVE, "Recording",
           "at most; at half of it the file becomes FILE.1 and a new one begins"),
    Option("log-level", one_of(*LEVELS), "INFO", "LEVEL", (*_SERVE, "stack-helper"), "Logging", ", ".join(LEVELS)),
    Option("log-file", text, "", "FILE", _SERVE, "Logging", "log there instead of to stderr; SIGHUP opens it anew"),
    Option("config", text, "", "FILE", ("serve", "top", "dump", "simulate", "replay", "demo", "stacks", "record", "hot", "sample", "memory", "stack-helper",
                                           "processes", "inspect", "why", "check", "doctor", "extras"), "General",
           "an INI file with a section for each command"),
    Option("check-config", FLAG, "", "", ("serve",), "General", "say what would happen, change nothing"),

    Option("url", text, URL, "URL", (*_CLIENT, "check"), "Collector", "the running collector"),
    Option("http-socket", text, "", "PATH", _ASKS, "Collector", "the running collector's unix socket, instead of --url"),
    Option("token-file", text, "", "FILE", _ASKS, "Collector", "the token that it asks for"),
    Option("http-socket", text, "", "PATH", ("top",), "Collector", "the running collector's unix socket, instead of --url; with "
           "--listen: serve on it"),
    Option("token-file", text, "", "FILE", ("top",), "Collector", "the token that it asks for; with --listen: ask for it"),
    Option("timeout", seconds(0.1), "10s", "TIME", _CLIENT, "Collector", "for its whole answer"),
    Option("timeout", seconds(0.1), "10s", "TIME", ("check",), "Collector", "for its whole answer", "t"),

    Option("view", one_of(*VIEWS), "", "NAME", ("top",), "Console", ", ".join(VIEWS) + " (default overview, with --once "
           "processes)"),
    Option("group", text, "", "NAME", ("top",), "Console", "only this process group"),
    Option("window", one_of("now", "1m", "10m"), "1m", "NAME", ("top",), "Console", "now, 1m or 10m"),
    Option("refresh", seconds(0.1), "1", "TIME", ("top", "hot"), "Console", "between two looks"),
    Option("no-color", FLAG, "", "", ("top", "hot"), "Console", "no colours; so does NO_COLOR in the environment"),
    Option("ascii", FLAG, "", "", ("top", "hot"), "Console", "draw with ASCII alone, as without a UTF-8 locale"),
    Option("once", FLAG, "", "", ("top",), "Console", "print what there is, once, to stdout; exit status 2 without an answer"),
    Option("once-timeout", seconds(0.1), "5", "TIME", ("top",), "Console", "of --once"),
    Option("plain", FLAG, "", "", ("top", "hot"), "Console", "print a screenful every --refresh, for logs and simple terminals"),

    Option("replay", MANY, "", "FILE", ("top",), "Recording", "watch this recording instead, as serve --record writes it; "
           "again for its older half"),
    Option("at", text, "", "TIME", ("top",), "Recording", "begin there, as 03:12, '2026-11-20 03:12:30' or +90s"),
    Option("format", one_of("text", "json", "jsonl", "csv"), "text", "FORMAT", ("dump",), "Output", "text, json, jsonl or csv"),
    Option("output", text, "", "FILE", ("dump",), "Output",
           "write there, whole or not at all; the name may hold strftime's %Y%m%d-%H%M%S"),
    Option("keep", whole(1, 100000), "", "N", ("dump",), "Output", "remove all but the newest N files of that name pattern"),
    Option("count", whole(1), "", "N", ("dump",), "Output", "with --listen: end after so many datagrams"),

    Option("group", text, "", "NAME", _TARGETS, "Processes", "mod_wsgi's daemons of this process group (display-name)"),
    Option("apache", FLAG, "", "", _TARGETS, "Processes", "all of Apache's with Python in them"),
    Option("all-python", FLAG, "", "", _TARGETS, "Processes", "every process of Python"),
    Option("subprocesses", FLAG, "", "", _TARGETS, "Processes", "and all that descend from these"),
    Option("group", text, "", "NAME", ("processes", "why"), "Processes", "only this process group"),
    Option("pid", whole(1, 1 << 22), "", "PID", ("processes", "why"), "Processes", "only this process"),
    Option("group", text, "", "NAME", ("check",), "Check", "only this process group; without it the one that is worst counts"),
    Option("warning", text, "", "RANGE", ("check",), "Check", "warn when the value is outside of this range, as 10, 10:, ~:10, 10:20, or inside of @10:20", "w"),
    Option("critical", text, "", "RANGE", ("check",), "Check", "critical when it is outside of this one", "c"),
    Option("p", one_of("50", "95", "99"), "95", "50|95|99", ("check",), "Check", "of latency: which percentile"),
    Option("phase", one_of(*PHASES), "request", "NAME", ("check",), "Check", "of latency: of which phase: " + ", ".join(PHASES)),
    Option("window", one_of("1m", "10m"), "1m", "1m|10m", ("check",), "Check", "over which time"),
    Option("json", FLAG, "", "", ("check",), "Check", "JSON instead of the plugin's line; the exit status is the same"),
    Option("listen", text, "", "unix:PATH", ("doctor",), "Telemetry socket", "where the collector listens, or is to; without it: where a running "
           "one says, else the default of serve"),
    Option("pid", whole(1, 1 << 22), "", "PID", ("doctor",), "Server", "only the server with this process"),
    Option("json", FLAG, "", "", ("doctor",), "Output", "JSON"),
    Option("output", text, "", "FOLDER", ("extras",), "Output", "write them below this folder"),
    Option("force", FLAG, "", "", ("extras",), "Output", "also over files that are there and differ"),
    Option("program", text, "", "PATH", ("extras",), "Output", "where modwsgi-tel.pyz lies on that server; without it: where this one does"),
    Option("json", FLAG, "", "", ("extras",), "Output", "JSON"),
    Option("no-system", FLAG, "", "", ("processes",), "Processes", "only what serves requests; what stands below anything else moves up"),
    Option("sort", one_of("start", "cpu", "rss", "age"), "start", "COLUMN", ("processes",), "Output", "start, cpu, rss or age, the oldest first"),
    Option("stacktraces", FLAG, "", "", ("processes",), "Output", "each stack whole, instead of the line that it is on"),
    Option("flat", FLAG, "", "", ("processes",), "Output", "a line for each, with what it stands below, instead of a tree"),
    Option("json", FLAG, "", "", ("processes", "inspect", "why"), "Output", "JSON"),
    Option("watch", FLAG, "", "", ("inspect",), "Output", "look again each --interval, with what has changed"),
    Option("interval", seconds(0.1), "1", "TIME", ("inspect",), "Output", "over which CPU time, switches and I/O are measured"),
    Option("next", FLAG, "", "", ("inspect",), "Output", "the commands that would tell more, ready to be copied, and what each costs"),
    Option("file", text, "", "PATH", ("inspect",), "Who has it", "the processes that have this file open, mapped or as their folder"),
    Option("port", whole(1, 65535), "", "PORT", ("inspect",), "Who has it", "the processes that listen on this port, or are connected to it"),
    Option("since", seconds(1), "10m", "TIME", ("why",), "Evidence", "how far back logs and events count"),
    Option("duration", seconds(0.1), "3", "TIME", ("why",), "Evidence", "for how long it looks at the processes"),
    Option("log", MANY, "", "FILE", ("why",), "Evidence", "a server's error log, where it is not found"),
    Option("no-idle", FLAG, "", "", _STACKS, "Output", "leave out threads of a pool that have nothing to do"),
    Option("locals", FLAG, "", "", _STACKS, "Output", "with arguments and variables: short, nothing is called; what its name or its "
           "looks tell to be a secret is masked, but source lines are shown as they are"),
    Option("flat", FLAG, "", "", _STACKS, "Output", "a line for each thread, at one look"),
    Option("json", FLAG, "", "", _STACKS, "Output", "JSON; frames innermost first"),
    Option("interval", seconds(0.01), "", "TIME", _STACKS, "Several looks", "look again after so long: what stayed, and what moved"),
    Option("count", whole(1, 1000), "", "N", _STACKS, "Several looks", "so many looks (default 2 with --interval, else 1)"),
    Option("stop", FLAG, "", "", _STACKS, "Several looks", "hold the thread with the GIL for a moment at each look (ptrace), so that "
           "it cannot move; without this nothing is ever stopped"),
    Option("core", text, "", "FILE", _STACKS, "Core files", "read a core file instead: what a crash left"),
    Option("executable", text, "", "FILE", _STACKS, "Core files", "the program that ran, where it is not where it was"),
    Option("root", text, "", "FOLDER", _STACKS, "Core files", "the root of the file system that it ran in, as a container's"),
    Option("duration", seconds(0.01), "10", "TIME", ("record",), "Looks",
           "end after so long; Ctrl-C ends it before, and keeps what there is"),
    Option("rate", whole(1, 1000), "50", "N", ("record",), "Looks", "looks a second"),
    Option("rate", whole(1, 1000), "20", "N", ("hot",), "Looks", "looks a second"),
    Option("idle", FLAG, "", "", _PROFILE, "Looks", "with threads of a pool that have nothing to do"),
    Option("gil", FLAG, "", "", _PROFILE, "Looks", "only threads that hold the GIL"),
    Option("cpu", FLAG, "", "", ("record",), "Looks", "count the CPU time of each thread, instead of the time that passes"),
    Option("by", some_of("process", "interpreter", "thread"), "", "WHAT", ("record",), "Looks",
           "process, interpreter, thread, or some with commas between them: an outermost frame for each"),
    Option("stop", FLAG, "", "", _PROFILE, "Looks", "hold the thread with the GIL for a moment at each look (ptrace), so that "
           "it cannot move; without this nothing is ever stopped"),
    Option("output", text, "", "FILE", ("record",), "Output", "write there, whole or not at all; without it, or with -, to "
           "stdout: folded stacks, or as --format says", "o"),
    Option("format", one_of("svg", "folded", "speedscope", "firefox"), "", "FORMAT", ("record",), "Output",
           "svg, folded, speedscope or firefox; without it by the ending of FILE: .svg, .folded, .speedscope.json, .firefox.json"),
    Option("diff", text, "", "BEFORE", ("record",), "Output", "show what changed since this former recording (.folded or "
           ".speedscope.json), as svg or folded"),
    Option("window", one_of("5s", "15s", "1m", "2m"), "5s", "NAME", ("hot",), "Console",
           "the last seconds that shares are of: 5s, 15s, 1m or 2m"),
    Option("sort", one_of("own", "total", "gil", "own_s", "total_s", "function", "file"), "own", "COLUMN", ("hot",), "Console",
           "own, total, gil (shares of the window), own_s, total_s (since the start), function or file"),
    Option("once", FLAG, "", "", ("hot",), "Console", "look for --duration, print the table to stdout and end"),
    Option("duration", seconds(0.1), "", "TIME", ("hot",), "Console", "with --once: so long (default 2 s)"),
    Option("json", FLAG, "", "", ("hot",), "Console", "with --once: JSON"),
    Option("agent", FLAG, "", "", _STACKS, "Several looks", "ask the agent inside the process instead of reading its memory: where that is "
           "not permitted; what its watchdog wrote, when it does not answer"),
    Option("interval", seconds(0.01), "5", "TIME", _SAMPLE, "Samples", "between two samples; also by TRIPOD_INTERVAL in the environment.  "
           "One that took long makes the next one late: at most a tenth of the time goes into them"),
    Option("log", text, "", "FILE", _SAMPLE, "Samples", "write there, mode 0600; appended to when it is a sampler's, else left alone "
           "(default SCRIPT.stacks.log in the current folder, or in the one for temporary files)"),
    Option("log-size", whole(1 << 16), "16M", "BYTES", _SAMPLE, "Samples", "at most; at half of it the file becomes FILE.1 and a new one begins"),
    Option("module", text, "", "NAME", _SAMPLE, "Script", "run this module as python -m does, instead of a script; what follows is its own", "m"),
    Option("start", FLAG, "", "", ("memory",), "Tracing", "begin to trace allocations, which takes time and memory; it ends by itself after ten minutes"),
    Option("stop", FLAG, "", "", ("memory",), "Tracing", "end it"),
    Option("frames", whole(1, 25), "1", "N", ("memory",), "Tracing", "with --start: callers of an allocation that are kept; with more than one, the "
           "innermost that is of no library counts"),
    Option("json", FLAG, "", "", ("memory",), "Output", "the answers of its agents as JSON"),
    Option("self-check", FLAG, "", "", _STACKS, "General", "read a child of this very Python, and compare with what it says itself"),

    Option("target", text, SOCKET, "unix:PATH", ("simulate", "replay"), "Telemetry socket", "the collector's socket"),
    Option("wait", FLAG, "", "", ("simulate", "replay"), "Telemetry socket", "begin although nobody listens there yet"),
    Option("profile", one_of(*PROFILES), "steady", "NAME", _FLEET, "Fleet", ", ".join(PROFILES)),
    Option("processes", whole(1, 100000), "4", "N", _FLEET, "Fleet", "processes of the fleet"),
    Option("groups", whole(1, 1000), "", "N", _FLEET, "Fleet", "process groups that they are spread over (default 2, or 1 of one process)"),
    Option("interval", seconds(0.5), "1.0", "TIME", _FLEET, "Fleet", "between two ticks of a process"),
    Option("seed", text, "1", "SEED", _FLEET, "Fleet", "the same seed gives the same fleet"),
    Option("speed", speed, "1", "N", ("top",), "Recording", "times real time"),
    Option("speed", speed, "1", "N|max", ("simulate", "replay"), "Pace", "times real time, or as fast as they are taken"),
    Option("duration", seconds(0.01), "", "TIME", ("simulate", "demo", "dump"), "Pace", "end after so long"),
)

COMMANDS = (
    Command("serve", "receive telemetry, keep it and serve it over HTTP", "",
            "The main job, and what runs when no command is named.  Binds the socket that mod_wsgi's "
            "WSGITelemetryService names, keeps a bounded state of the last minutes and answers over plain HTTP; "
            "GET / lists the paths.  Ends on SIGTERM and SIGINT and removes its socket.",
            (("serve --listen unix:/run/modwsgi-tel.sock --socket-group www-data",
              "receive from Apache's user"),
             ("serve --http-port 0 --http-socket /run/modwsgi-tel/http.sock", "a free port, and a unix socket"),
             ("serve --config /etc/modwsgi-tel.ini --check-config", "what that would do"))),
    Command("top", "the console: what is wrong, live in a terminal", "",
            "Watches a running collector; or is one itself (--listen), which leaves nothing behind when it ends; or shows a "
            "recording (--replay).  The first line says what is wrong, in words.  ? lists the keys.  The existing collector, "
            "mod_wsgi-telemetry, can be watched too.",
            (("top", "the collector on this machine"),
             ("top --http-socket /run/modwsgi-tel/http.sock", "through its unix socket"),
             ("top --listen unix:/run/modwsgi-tel.sock --socket-group www-data", "collector and console in one: nothing else "
              "has to run"),
             ("top --replay last-night.cap --at 03:12", "what happened then; space pauses, left and right seek"),
             ("top --once --view slow", "the slow requests, once, for a script or a mail"))),
    Command("dump", "a snapshot of the running collector, for cron; or each datagram", "",
            "Without --listen: asks the running collector once and prints what it says; silent on success with "
            "--output, one line on stderr otherwise.  With --listen (its variable, which serve has too, does not count): "
            "binds the socket itself and prints each datagram.",
            (("dump --format csv --output /var/log/tel-%Y%m%d-%H%M.csv --keep 288", "a file each five minutes, "
              "a day of them"),
             ("dump --http-socket /run/modwsgi-tel/http.sock", "a table for people"),
             ("dump --listen unix:/tmp/t.sock --count 10", "the next ten datagrams"))),
    Command("stacks", "the Python lines that a running process is on, from outside", "[PID...]",
            "Reads the stacks of another process's threads out of its memory: nothing has to be installed or set up in it, "
            "nothing in it is stopped or changed, and it works when its GIL is stuck.  CPython 3.8 to 3.15.  Takes root, or the "
            "same user where the process allows that; what is missing is said.  A stack that moved while it was read is marked so.",
            (("stacks 4711", "what its threads do now"),
             ("stacks --apache --no-idle", "all of Apache's Python, without the threads that have nothing to do"),
             ("stacks 4711 --interval 1 --count 5", "what stayed, and what moved"),
             ("stacks --group mysite --locals", "a daemon process group, with variables"),
             ("stacks 4711 --agent", "as the agent in its application tells, where it may not be read"),
             ("stacks --core /var/tmp/core.4711", "where it was when it crashed"))),
    Command("why", "what is wrong with this server, why, and what to do about it", "",
            "The first command to type.  Looks at the processes of Apache with mod_wsgi, gunicorn and uWSGI for some seconds, from outside: their "
            "stacks, what /proc knows, the error log, the configuration and the machine; asks a collector where one runs, and needs none.  "
            "Names a cause only with evidence, with the line of code where there is one, and says what it could not look at.  Run as root "
            "to see all.  Exit status 0: all quiet, 1: findings, 2: it could not look.",
            (("why", "all servers on this machine"), ("why --group shop --duration 10s", "one process group, for longer"),
             ("why --since 1h --json", "with the log of the last hour, for a script"))),
    Command("doctor", "why no data arrive, step by step, with the command that mends it", "",
            "Walks the way from Apache to a reader: the directive, the socket and who may write to it, the collector, what arrives, stacks, and "
            "who asks.  Says of each step whether it is right, and what is wrong with its evidence and the command that mends it.  Changes "
            "nothing.  Run as root to see all.  Exit status 0: all right, 1: something is wrong, 2: it could not look.",
            (("doctor", "all servers and collectors on this machine"),
             ("doctor --listen unix:/run/modwsgi-tel/telemetry.sock", "before a collector runs: it is to listen there"),
             ("doctor --json", "for a script"))),
    Command("check", "a health check for Nagios and Icinga", "[WHAT]",
            "Asks a running collector, here or elsewhere, and says in one line how it is: OK, WARNING, CRITICAL or UNKNOWN (exit status 0, 1, 2, 3), with "
            "performance data.  WHAT is findings (when it is left out), capacity, latency, errors, silent, rss or collector.  Ranges are those of the plugin "
            "guidelines.  No answer is CRITICAL; no data is UNKNOWN, never OK.",
            (("check", "what is wrong, by the collector's own rules"),
             ("check latency --p 95 -w 500ms -c 2s --group shop", "of one process group"),
             ("check capacity -w 80% -c 95% --url web1:8888", "the share of busy threads, on another machine"))),
    Command("extras", "files for operators: units, rules, dashboards, completions", "[NAME...]",
            "Lists what lies in this file for the tools around it: units for systemd, rules for Prometheus, a dashboard for Grafana, shell completion, "
            "policies, snippets.  With a NAME it prints that one; with --output it writes them, all or those that are named, and never over a file that "
            "differs, unless --force.",
            (("extras", "what there is"), ("extras prometheus/alerts.yml", "one of them, to stdout"),
             ("extras --output ./extras systemd", "all of a kind, into a folder"))),
    Command("processes", "the tree of processes, requests and stacks", "",
            "What this server does right now: Apache's parent and children, the daemon groups, their processes and interpreters, the requests in each with their age, "
            "and the line that each is on.  Out of /proc, of stacks read from outside and of a collector, where one runs; what is missing is said.",
            (("processes", "everything, as a tree"), ("processes --group shop --stacktraces", "one group, with whole stacks"),
             ("processes --no-system --sort age --flat", "a line for each, the oldest first"))),
    Command("inspect", "all that the kernel knows of a process; who has a file or a port", "[PID...]",
            "Command line, user, limits, CPU time by thread, memory, open files and connections with their other ends, I/O, environment (secrets masked), "
            "interpreter and packages, out of /proc alone.  What may not be read is said to be unknown, and why.",
            (("inspect 4711", "one process"), ("inspect 4711 --watch", "again and again, with rates"),
             ("inspect 4711 --next", "and which commands would tell more"), ("inspect --port 5432", "who talks to the database"))),
    Command("record", "where Python processes spend their time: flame graphs, profiles", "[PID...]",
            "Looks at the stacks of other processes again and again and adds them up; nothing in them is stopped or changed.  "
            "Processes are found, and what is missing is said, as with stacks.  What could not be read, since it moved, is "
            "counted and keeps its share.  With --subprocesses those that begin meanwhile are taken up too.",
            (("record 4711 -o before.svg", "ten seconds as a flame graph"),
             ("record --apache --by process,thread -o all.speedscope.json", "for speedscope, a viewer of profiles"),
             ("record 4711 --gil -o gil.folded", "only those that hold the GIL, as folded stacks"),
             ("record 4711 --diff before.folded -o changed.svg", "what changed"))),
    Command("hot", "the functions that Python processes spend their time in, live", "[PID...]",
            "A table of functions by their share of the threads' time: own (as the innermost function) and total (anywhere in the "
            "stack), over the last seconds, with the seconds since the start beside it.  Reads other processes as stacks "
            "does.  ? lists the keys.",
            (("hot 4711", "one process"), ("hot --apache --gil", "what holds the GIL in all of Apache's Python"),
             ("hot 4711 --once --duration 5", "a table of five seconds, for a script or a mail"))),
    Command("sample", "run a script, with each thread's stack and variables in a log", "SCRIPT [ARGS...]",
            "Runs a script, or with -m a module, as Python would, while a thread writes each thread's stack to a log, in a line and then in "
            "full with its variables; at the end where the time was, as a tree, also in short on stderr.  What its name or its looks tell to "
            "be a secret is masked.  While C code holds the GIL it cannot look, which is said: stacks and record, from outside, can.  Of "
            "greenlets it sees those that run.  A script that a signal, os._exit() or an exec ends has no digest; forked processes are not "
            "sampled.  What stands behind the script's name is the script's.",
            (("sample import.py --year 2026", "a sample each 5 s, into import.stacks.log"),
             ("sample --interval 0.5 --log /var/tmp/import.log import.py", "more of them, elsewhere"),
             ("sample -m package.tool --verbose", "a module"))),
    Command("memory", "which lines of a process hold ever more memory", "PID",
            "Asks the agent inside the application (see modwsgi_tel.agent), which compares what Python's tracemalloc has traced with its "
            "start: the lines that hold most more come first.",
            (("memory 4711 --start", "begin"), ("memory 4711", "what has grown since"), ("memory 4711 --stop", "the end"))),
    Command("stack-helper", "read stacks for a collector that may not", "",
            "A small service with the right to read other processes (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH), so that the "
            "collector needs none: serve --stacks-helper names its socket.  It reads Apache's processes, but for root's, for "
            "those whom it is told to serve, and gives stacks without variables.  A unit for systemd is in the project's README, "
            "under Which line a slow request is on.",
            (("stack-helper --socket-group modwsgi-tel --allow-uid modwsgi-tel", "for a collector of the user modwsgi-tel"),
             ("stack-helper --for-uid gunicorn", "processes of this user too"))),
    Command("simulate", "send the telemetry of a made-up fleet to a collector", "",
            "The same seed gives the same datagrams.  Profiles show one trouble each; steady has none.",
            (("simulate --profile gil --processes 8", "eight processes that fight for the GIL"),
             ("simulate --speed max --duration 10m", "ten minutes of traffic at once"))),
    Command("replay", "send recorded datagrams to a collector", "FILE...",
            "Files are captures as serve --record writes them, packed or not.  Each recorded sender's datagrams come "
            "from a process of its own, so that the collector tells them apart.",
            (("replay last-night.cap", "in real time"), ("replay --speed max a.cap.gz b.cap.gz", "at once, merged by time"))),
    Command("demo", "a collector and a simulated fleet feeding it, to look around", "",
            "Starts both on a socket in a temporary folder and says what to try next.  Ctrl-C ends both.",
            (("demo", "a healthy fleet"), ("demo --profile slow --http-port 0", "one in trouble, on a free port"))),
)
BY_COMMAND = {command.name: command for command in COMMANDS}

EXIT_STATUS = ((0, "done, or ended by SIGTERM or SIGINT"), (1, "findings; or some of several processes could not be read"), (2, "it could not be done; one line on stderr says "
               "why"), (3, "the other side answered nonsense"), (130, "ended by Ctrl-C where there was something left to do"),
               (141, "the reader of its output went away"))


def options_of(command):
    """The Options of a command, in the order of the table."""
    return [option for option in OPTIONS if command in option.commands]


def variable(option):
    """The name of the environment variable of an option."""
    return "MODWSGI_TEL_" + option.name.upper().replace("-", "_")


# --- reading them -----------------------------------------------------------------------------

class Values(dict):
    """The values of a command's options by attribute (`values.http_port`); `given` names where each came from."""

    def __init__(self, command=""):
        super().__init__()
        self.command = command
        self.given = {}
        self.arguments = []

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def meant(self, name):
        """Whether an option was given for this very command: variables are shared with others."""
        return self.given[name] != "default" and not self.given[name].startswith(("MODWSGI_TEL_", "MOD_WSGI_TELEMETRY_"))

    def refuse(self, names, why):
        """UsageError when one of these was given."""
        for name in names:
            if self.meant(name):
                raise UsageError(f"{self.given[name]}: {why}; see {PROGRAM} {self.command} --help")


def read(command, argv, environ=os.environ):
    """The Values of a command from its arguments, the environment and the configuration file.

    Raises UsageError in one line for anything that cannot be meant.
    """
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise UsageError(f"{message}; see {PROGRAM} {command} --help")

    # a width, because asking the terminal for it would import another megabyte
    parser = Parser(prog=f"{PROGRAM} {command}", add_help=False, allow_abbrev=False,
                    formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80))
    known = options_of(command)
    argv, script = of_script(argv) if command == "sample" else (argv, None)
    for option in known:
        if option.type is FLAG:
            parser.add_argument("--" + option.name, action="store_const", const="yes")
        elif option.type is MANY:
            parser.add_argument("--" + option.name, action="append", metavar=option.metavar)
        else:
            names = ["-" + option.short] if option.short else []
            parser.add_argument(*names, "--" + option.name, metavar=option.metavar)
    if BY_COMMAND[command].arguments and script is None:
        parser.add_argument("arguments", nargs="*")
    parsed = vars(parser.parse_args(argv))
    values = Values(command)
    values.arguments = parsed.get("arguments", []) if script is None else script
    config = parsed.get("config") or environ.get("MODWSGI_TEL_CONFIG")
    file_values = _config(config, command, known) if config else {}
    for option in known:
        key = option.name.replace("-", "_")
        alias = ALIASES.get((command, option.name)) or ALIASES.get(option.name)
        for source, value in ((f"--{option.name}", parsed.get(key)), (variable(option), environ.get(variable(option)) or None),
                              (alias, environ.get(alias) or None if alias else None),
                              (f"{config}: {option.name}", file_values.get(option.name)), ("default", option.default)):
            if value is not None:
                break
        values[key] = convert(option, value, source)
        values.given[key] = source
    return values


def of_script(argv):
    """(what is for `sample`, what is for its script) of a command line: the first word that is no option is the script's name."""
    place, valued = 0, {name for option in options_of("sample") if option.type is not FLAG for name in ("--" + option.name, "-" + option.short)}
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
        word = argv[place]
        place += 2 if word in valued else 1
        if word == "--":
            return argv[:place - 1], argv[place:]
        if word.partition("=")[0] == "--module" or word.startswith("-m"):
            break
    return argv[:place], argv[place:]


def convert(option, value, source):
    """The value that the text of an option means; `source` names the place for the error."""
    if option.type is MANY:
        members = value if isinstance(value, list) else value.split(",")
        return [member.strip() for member in members if member.strip()]
    if option.type is FLAG:
        if value.lower() in ("yes", "true", "on", "1"):
            return True
        if value.lower() in ("", "no", "false", "off", "0"):
            return False
        raise UsageError(f"{source} = {value}: yes or no")
    if value == "" and option.default == "":
        return None
    try:
        return option.type(value)
    except ValueError as error:
        raise UsageError(f"{source} {value!r}: {error}") from None


def token_in(path):
    """The token in a file, its first line; None without a path.  Raises TelError."""
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as handle:
            token = handle.readline(4097).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TelError(f"--token-file {path}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    if not token:
        raise UsageError(f"--token-file {path}: holds no token; its first line should be one")
    return token


def _config(path, command, known):
    import configparser
    # every section is a command's, so none may be the one whose values go into all
    parser = configparser.ConfigParser(interpolation=None, strict=True, default_section="")
    try:
        with open(path, encoding="utf-8") as handle:
            parser.read_file(handle)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: {' '.join(str(error).split())}") from None
    for section in parser.sections():
        if section not in BY_COMMAND:
            raise UsageError(f"--config {path}: no command [{section}]; sections are {', '.join(BY_COMMAND)}")
        names = {option.name for option in options_of(section)} - {"config"}
        for name in parser[section]:
            if name not in names:
                raise UsageError(f"--config {path}: [{section}] has no option {name}; {PROGRAM} {section} --help lists them")
    return dict(parser[command]) if parser.has_section(command) else {}


# --- help -------------------------------------------------------------------------------------

def wrapped(words, indent, width=80):
    """Text as lines of at most `width`, each with the indent."""
    lines, line = [], ""
    for word in words.split():
        if line and len(indent) + len(line) + 1 + len(word) > width:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return lines + [indent + line]


def usage(command):
    found = BY_COMMAND[command]
    return f"usage: {PROGRAM} {command} [options]" + (f" {found.arguments}" if found.arguments else "")


def label(option):
    return f"--{option.name}" + ("" if option.type is FLAG else f" {option.metavar}")


def described(option):
    """The help of an option with its default."""
    default = f" (default {option.default})" if option.default else ""
    return option.help + default + (f" (short: -{option.short})" if option.short else "")


def command_help(command):
    """The text of `modwsgi-tel COMMAND --help`."""
    found = BY_COMMAND[command]
    lines = [usage(command), "", *wrapped(found.text, ""), "", "Examples:"]
    for example, why in found.examples:
        lines += [f"  {PROGRAM} {example}", f"      {why}"]
    section = None
    for option in sorted(options_of(command), key=lambda item: _sections(command).index(item.section)):
        if option.section != section:
            section = option.section
            lines += ["", f"{section}:"]
        head = f"  {label(option)}"
        body = wrapped(described(option), " " * 28)
        lines += [head.ljust(28) + body[0].strip(), *body[1:]] if len(head) < 27 else [head, *body]
    lines += ["  --help                    show this"]
    lines += ["", *wrapped("Each option can also be given as MODWSGI_TEL_NAME in the environment, or as name = value in the "
                           f"section [{command}] of the file that --config names.", "")]
    return "\n".join(lines) + "\n"


def _sections(command):
    found = list(dict.fromkeys(option.section for option in options_of(command)))
    # what is a command's own comes before what it shares with serve
    return sorted(found, key=lambda section: (section == "General", "Console" in found and section not in ("Console", "Collector")))


def program_help():
    """The text of `modwsgi-tel --help`."""
    lines = [f"usage: {PROGRAM} [COMMAND] [options]", "",
             *wrapped("See what Python web processes do, on servers where nothing may be installed.  One file, Python 3.9 "
                      "or newer, nothing else.", ""), "", "Commands:"]
    wide = max(len(command.name) for command in COMMANDS) + 2
    lines += [f"  {command.name:<{wide}}{command.summary}" for command in COMMANDS]
    lines += ["", *wrapped("Without a command the options are those of serve.", ""), "", "Examples:"]
    for command in COMMANDS:
        example, why = command.examples[0]
        lines += [f"  {PROGRAM} {example}", f"      {why}"]
    lines += ["", f"  {PROGRAM} COMMAND --help    all about a command", f"  {PROGRAM} --version", "", "Exit status:"]
    lines += [f"  {status}  {what}" for status, what in EXIT_STATUS]
    return "\n".join(lines) + "\n"


def program_version():
    return f"{PROGRAM} {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})\n"
