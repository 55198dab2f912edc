"""What Apache's own program says of its configuration: `apache2 -t -D DUMP_...`, run where that is safe.

Source: server/main.c, server/config.c (DUMP_INCLUDES), server/core.c (DUMP_RUN_CFG), mod_so.c (DUMP_MODULES) of Apache 2.4.
"""
import os
import re
import stat
import subprocess
import tempfile
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import threads

Told = namedtuple("Told", "includes root error_log defines modules")
Told.__doc__ = """includes: [path].  root, error_log: of the main server, or None.  defines: {name: value}.
modules: {name: static or shared}."""

_TIMEOUT_S, _MOST_OUTPUT = 5.0, 1 << 20
_DUMPS = ("DUMP_INCLUDES", "DUMP_RUN_CFG", "DUMP_VHOSTS", "DUMP_MODULES")
_ALWAYS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "LANG": "C"}
_LIBRARIES = "LD_LIBRARY_PATH"          # what its modules may need to be loaded
_INCLUDED = re.compile(r"^\s+\((?:\*|\d+)\) (/.+)$", re.M)
_MODULE = re.compile(r"^ (\w+_module) \((static|shared)\)$", re.M)
_DEFINED = re.compile(r"^Define: ([^=\n]{1,200})(?:=(.*))?$", re.M)


def refusal(pid, program, parser, root="/proc"):
    """Why the program of this server is not run, in words; "" where it may be.

    Never what an ordinary user may have changed, where root runs it: the program, the files that it reads, the modules that it loads.
    """
    if root != "/proc":
        return "this is not the /proc of the machine"
    try:
        owner = threads.rights(pid, root)[0]
        running = os.stat(f"{root}/{pid}/exe")
        link = threads.executable(pid, root)
    except (OSError, TelError):
        return "it belongs to another user"
    if os.geteuid() != owner:
        return "it runs as another user" if os.geteuid() else "it does not run as root, and root runs nothing of others"
    try:
        if link is None or link.endswith(" (deleted)") or not os.path.samestat(os.stat(link), running):
            return "its program was replaced since it started, or lies in a container"
        if not os.path.samestat(os.stat(f"{root}/{pid}/root"), os.stat("/")):
            return "it lives in another root, or in a container"
    except OSError:
        return "its program is not here: it may live in a container"
    trusted = {0, os.geteuid()}
    if not parser.whole:
        return "its files could not be read whole"
    for path in (program, *parser.files, *parser.modules.values(), *parser.libraries):
        wrong = _writable(path, trusted)
        if wrong:
            return f"another user may change {wrong}"
    return ""


def _writable(path, trusted):
    """What of a path, its links and its folders another user may change; "" where nothing."""
    for each in {os.path.abspath(path), os.path.realpath(path)}:
        while True:
            try:
                seen = os.lstat(each)
            except OSError:
                return each
            # in a folder with the sticky bit, as /tmp, nobody removes or renames what is another's
            is_kept = stat.S_ISLNK(seen.st_mode) or stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
            if seen.st_uid not in trusted or seen.st_mode & 0o022 and not is_kept:
                return each
            if each == "/":
                break
            each = os.path.dirname(each)
    return ""


def ask(started, wanted, environment):
    """(Told or None, [problems]).  started: a config.Started.  wanted: the variables that the configuration names.

    Of the server's environment it gets those, and none else.
    """
    command = [started.program, "-t"]
    for letter, values in (("d", [started.root]), ("f", [started.file]), ("D", started.defines), ("C", started.before),
                           ("c", started.after), ("D", _DUMPS)):
        for value in values:
            if value is not None:
                command += ["-" + letter, value]
    given = {name: environment[name] for name in sorted(wanted) if name in environment}
    folders = environment.get(_LIBRARIES, "")
    if folders and not any(_writable(folder, {0, os.geteuid()}) for folder in folders.split(":")):
        given[_LIBRARIES] = folders
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as wrong:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=wrong, cwd="/", env={**_ALWAYS, **given},
                                  timeout=_TIMEOUT_S, close_fds=True, start_new_session=True)
        except subprocess.TimeoutExpired:
            return None, [f"the server's own program did not tell its configuration within {_TIMEOUT_S:g} s"]
        except OSError as error:
            return None, [f"the server's own program cannot be run: {error.strerror}"]
        text, errors = (_head(each) for each in (out, wrong))
    if done.returncode:
        lines = [line for line in errors.splitlines() if line.strip() and "AH00558" not in line]
        return None, [f"the configuration has an error now, so that a restart would fail: {' '.join(lines[-2:])[:400] or done.returncode}"]
    return parse(text), []


def _head(file):
    file.seek(0)
    return file.read(_MOST_OUTPUT).decode("utf-8", "replace")


def parse(text):
    """The Told of the program's output."""
    def quoted(name):
        found = re.search(rf'^{name}: "([^"\n]{{1,4000}})"$', text, re.M)
        return found.group(1) if found else None
    defines = {name: value or "" for name, value in _DEFINED.findall(text) if name not in _DUMPS}
    return Told(list(dict.fromkeys(_INCLUDED.findall(text))), quoted("ServerRoot"), quoted("Main ErrorLog"), defines,
                dict(_MODULE.findall(text)))
