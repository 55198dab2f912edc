"""The configuration of a running Apache: by its own program where that is safe, and by its files.

    found = of(parent_pid)
"""
import os
import re
import time
from collections import namedtuple

from modwsgi_tel.apache import dumps, logfiles
from modwsgi_tel.apache.directives import Parser
from modwsgi_tel.errors import TelError
from modwsgi_tel.masking import masked
from modwsgi_tel.proc import procfs, threads
from modwsgi_tel.proc.access import explain

Config = namedtuple("Config", "version root file mpm defines includes error_logs mod_wsgi daemons directives telemetry changed asked "
                    "problems")
Config.__doc__ = """version: of Apache, as 2.4.57, or None.  root: ServerRoot.  file: the first configuration file.
mpm: event, worker, prefork or "".  defines: sorted names of -D and Define.  includes: [path] of all files.
error_logs: [what ErrorLog says, made absolute].
mod_wsgi: {"version", "path"}, each None where it is not known; None where Apache does not load it.  daemons: [Daemon].
directives: [(name, [words], "file:line")] of WSGI* and of Apache's limits.
telemetry: {"socket", "interval", "slow"} of WSGITelemetryService and WSGISlowRequests; None where it sends none.
changed: [path] of files that are newer than the server: it may not have read them.
asked: whether the server's own program told it too.  problems: lines of text."""

Daemon = namedtuple("Daemon", "group options processes threads place")
Daemon.__doc__ = "A WSGIDaemonProcess.  options: {name: text} as written.  processes, threads: with mod_wsgi's defaults, 1 and 15."

_MOST_PROGRAM, _MOST_WORDS = 64 << 20, 64 << 10
_BUILT_ROOT, _BUILT_FILE = re.compile(rb'-D HTTPD_ROOT="([^"\0]{1,1000})"'), re.compile(rb'-D SERVER_CONFIG_FILE="([^"\0]{1,1000})"')
_BUILT_VERSION = re.compile(rb"\0Apache/(\d{1,3}\.\d{1,3}\.\d{1,4})")
_WSGI_VERSION = re.compile(rb"\0(\d{1,3}\.\d{1,3}\.\d{1,4}[\w.]{0,20})\0mod_wsgi/%s")
_WSGI_MAPPED = re.compile(rb" (/[^\n]*/mod_wsgi[^/\n]*\.so)$", re.M)
_WITH_VALUE, _PLAIN = "DCcdEefkn", "vVlLtTSMhX"
_PROGRAMS = ("/usr/sbin", "/usr/local/apache2/bin", "/usr/local/sbin")
_EXPORTS = re.compile(r"^\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)=([^\s`()]*)\s*$", re.M)

Started = namedtuple("Started", "program file root defines before after")
Started.__doc__ = "How Apache was started.  file, root: -f and -d, or None.  defines: of -D.  before, after: directives of -C and -c."


def of(parent_pid, root="/proc"):
    """The Config of an Apache by the pid of its parent process.  Raises TelError where there is no such process, or another.

    Its program is run only by root or the server's own user, and never where another user could have changed it or what it loads.
    """
    started = _started(parent_pid, root)
    problems = []
    image = _image(parent_pid, started.program, root)
    built = {name: (found.group(1).decode("utf-8", "replace") if found else None) for name, found in (
        ("root", _BUILT_ROOT.search(image)), ("file", _BUILT_FILE.search(image)), ("version", _BUILT_VERSION.search(image)))}
    if image and not built["root"]:
        raise TelError(f"process {parent_pid} is no Apache: it runs {started.program}")
    environment, is_own = _environment(parent_pid, root)
    if not is_own:
        problems.append("its environment cannot be read; the variables of /etc/apache2/envvars were taken, where it is there")
    version = built["version"]
    server_root = started.root or built["root"] or "/etc/apache2"
    parser = Parser(lambda path: logfiles.reach(parent_pid, path, root), server_root, started.defines, environment,
                    tuple(int(part) for part in version.split(".")) if version else None)
    file = parser.absolute(started.file or built["file"] or "apache2.conf")
    for line in started.before:
        parser.take(line, "-C")
    parser.read(file)
    for line in started.after:
        parser.take(line, "-c")
    told = None
    reason = dumps.refusal(parent_pid, started.program, parser, root)
    if reason:
        problems.append(f"the server's own program was not asked: {reason}")
    else:
        told, wrong = dumps.ask(started, parser.wanted, environment)
        problems += wrong
    return _config(parent_pid, version, file, parser, told, problems, root)


def _config(pid, version, file, parser, told, problems, root):
    includes, error_logs, server_root = parser.files, [_error_log(parser, word) for word in parser.error_logs], parser.server_root
    defines, modules = set(parser.defines), set(parser.modules)
    if told is not None:
        missed = [path for path in told.includes if path not in includes]
        if missed:
            problems.append(f"{len(missed)} files that the server includes were not read: {', '.join(missed[:3])}")
        includes = includes + missed
        server_root = told.root or server_root
        modules |= set(told.modules)
        defines |= set(told.defines)
        if told.error_log and told.error_log not in error_logs:
            error_logs = [told.error_log] + error_logs
    mpm = next((name[4:-len("_module")] for name in sorted(modules) if re.fullmatch(r"mpm_\w+_module", name)), "")
    own = [each for each in parser.directives if each.name != "LoadModule" or each.args[:1] == ["wsgi_module"]]
    return Config(version, server_root, file, mpm, sorted(defines), includes, error_logs, _mod_wsgi(pid, parser, modules, root),
                  [_daemon(each) for each in own if each.name == "WSGIDaemonProcess" and each.args],
                  [(each.name, [masked(word) for word in each.args], each.place) for each in own], _telemetry(own),
                  _changed(pid, includes, parser, root), told is not None, problems + parser.problems + parser.unknown())


def _error_log(parser, word):
    is_path = not word.startswith(("|", "syslog", "journald")) and word
    return parser.absolute(word) if is_path else word


def _daemon(directive):
    options = {}
    for word in directive.args[1:]:
        name, _, value = word.partition("=")
        options[name] = value
    return Daemon(directive.args[0], options, _number(options.get("processes"), 1), _number(options.get("threads"), 15), directive.place)


def _number(text, default):
    return int(text) if text and text.isdecimal() and text.isascii() and len(text) < 10 else default


def _telemetry(directives):
    service = next((each for each in reversed(directives) if each.name == "WSGITelemetryService" and each.args), None)
    if service is None or service.args[0].lower() == "off":
        return None
    slow = next((each.args[0] for each in reversed(directives) if each.name == "WSGISlowRequests" and each.args), None)
    interval = next((word[len("interval="):] for word in service.args[1:] if word.startswith("interval=")), None)
    target = service.args[0]
    return {"socket": target[len("unix:"):] if target.startswith("unix:") else target, "interval": _seconds(interval),
            "slow": _seconds(slow)}


def _seconds(text):
    return float(text) if text and re.fullmatch(r"\d{1,9}(?:\.\d{0,9})?", text) else None


def _mod_wsgi(pid, parser, modules, root):
    """{"version", "path"} of the module; by what the server has mapped before what its files say."""
    path = None
    try:
        found = _WSGI_MAPPED.search(procfs.read(f"{root}/{pid}/maps", 4 << 20))
        path = os.fsdecode(found.group(1)) if found else None
    except OSError:
        pass
    path = path or parser.modules.get("wsgi_module")
    if path is None:
        return {"version": None, "path": None} if "wsgi_module" in modules else None
    found = _WSGI_VERSION.search(_bytes_of(logfiles.reach(pid, path, root)))
    return {"version": found.group(1).decode("ascii", "replace") if found else None, "path": path}


def _changed(pid, includes, parser, root):
    """Those of the files that are newer than the server: than its process, and than its PidFile, which an exec leaves behind it."""
    try:
        began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + procfs.stat(pid, root).start / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return []
    written = [parser.absolute(each.args[0]) for each in parser.directives if each.name == "PidFile" and each.args]
    began = max([began] + [_modified(pid, path, root) for path in written])
    return [path for path in includes if _modified(pid, path, root) > began]


def _modified(pid, path, root):
    try:
        return os.stat(logfiles.reach(pid, path, root)).st_mtime
    except OSError:
        return 0.0


# --- the server as it runs ---------------------------------------------------------------------

def _started(pid, root):
    try:
        line = procfs.read(f"{root}/{pid}/cmdline", _MOST_WORDS)
    except OSError as error:
        raise TelError(explain(pid, error, root)) from None
    given = [os.fsdecode(word) for word in line.rstrip(b"\0").split(b"\0")]
    return parse_command(given, threads.executable(pid, root) or _likely(pid, given, root))


def _likely(pid, given, root):
    """The path of its program, for who may not know it: by its first word, or by the name that the kernel keeps; else None."""
    if given and given[0].startswith("/"):
        return given[0].partition(" ")[0]
    try:
        name = procfs.stat(pid, root).name
    except (OSError, ValueError):
        return None
    return next((f"{folder}/{name}" for folder in _PROGRAMS if "/" not in name and os.path.exists(f"{folder}/{name}")), None)


def parse_command(given, program):
    """The Started of a command line, as getopt reads it with Apache's options "D:C:c:d:E:e:f:k:n:vVlLtTSMhX"."""
    file = server_root = None
    defines, before, after = [], [], []
    at = 1
    while at < len(given):
        word, at = given[at], at + 1
        if not word.startswith("-") or word == "-":
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _PLAIN:
                if letter == "X":
                    defines += ["DEBUG", "ONE_PROCESS", "NO_DETACH"]
                continue
            if letter not in _WITH_VALUE:
                break
            if not letters:
                letters, at = (given[at] if at < len(given) else ""), at + 1
            if letter == "f":
                file = letters
            elif letter == "d":
                server_root = letters
            elif letter == "D":
                defines.append(letters)
            elif letter in "Cc":
                (before if letter == "C" else after).append(letters)
            break
    return Started(program, file, server_root, defines, before, after)


def _image(pid, program, root):
    """The bytes of the server's program; b"" where it cannot be read."""
    return _bytes_of(f"{root}/{pid}/exe") or (_bytes_of(logfiles.reach(pid, program, root)) if program else b"")


def _bytes_of(path):
    try:
        return procfs.read(path, _MOST_PROGRAM)
    except OSError:
        return b""


def _environment(pid, root):
    """({name: text}, whether it is the server's own): else what Debian's envvars would export."""
    try:
        text = procfs.read(f"{root}/{pid}/environ", 1 << 20)
        pairs = (word.partition(b"=") for word in text.split(b"\0") if b"=" in word)
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}, True
    except OSError:
        pass
    text = _bytes_of("/etc/apache2/envvars")[:_MOST_WORDS].decode("utf-8", "replace")
    return {name: re.sub(r"\$\{?SUFFIX\}?", "", value.strip("\"'")) for name, value in _EXPORTS.findall(text)}, False
