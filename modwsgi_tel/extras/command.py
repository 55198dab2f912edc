"""extras: lists the files for operators that the program carries, prints one, or writes them out."""
import os
import re
import shlex
import stat
import sys

import modwsgi_tel
from modwsgi_tel import resources
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.extras.table import EXTRAS, KINDS, PROGRAM_MARK, named
from modwsgi_tel.printable import printable, printable_json, show
from modwsgi_tel.report.whole import write_whole

PROGRAM = "/usr/local/bin/modwsgi-tel.pyz"      # where the README puts it
# What means itself in a unit, a shell, a policy and YAML alike.
_PLAIN = re.compile(r"/[A-Za-z0-9_./+-]+\Z")
# What a service may not see: ProtectHome, PrivateTmp.
_HIDDEN = tuple(f"/{folder}/" for folder in ("home", "root", "tmp", "var/tmp", "run/user"))


def extras(values):
    """The command; its exit status.  Raises TelError."""
    program, why = _program(values.program)
    wanted = _wanted(values.arguments)
    if values.output is not None:
        return _write(values, wanted, program, why)
    if values.force:
        raise UsageError("--force belongs to --output")
    if not values.json and {extra.name for extra in wanted} == set(values.arguments):
        if len(wanted) > 1:
            raise UsageError("one NAME is printed; several are written by --output FOLDER")
        return _print(wanted[0], program, why)
    if values.json:
        show(printable_json({"program": program, "extras": [
            dict(extra._asdict(), activate=_filled(extra.activate, program), bytes=len(content(extra, program).encode()))
            for extra in wanted]}) + "\n")
    else:
        show("\n".join([*_listed(wanted), "", "extras NAME prints one; extras --output FOLDER [NAME...] writes them."]) + "\n")
    return 0


def _print(extra, program, why):
    if PROGRAM_MARK in raw(extra):
        sys.stderr.write(printable(f"modwsgi-tel: {extra.name}: {_said(program, why)}") + "\n")
    show(content(extra, program))
    return 0


def raw(extra):
    """The text of a file as it lies in the program."""
    return resources.read("modwsgi_tel.extras", "static/" + extra.name).decode("utf-8")


def content(extra, program):
    """The same for a server on which the program has that path."""
    return _filled(raw(extra), program)


def _filled(text, program):
    return text.replace(PROGRAM_MARK, program)


def _program(given):
    """(path of the program for the files, how it is known).  Raises UsageError."""
    if given is not None:
        if not _PLAIN.match(given):
            raise UsageError(f"--program {given!r}: an absolute path of letters, digits, . _ + and -, since units and policies are to "
                             "name it")
        return given, "by --program"
    own = getattr(modwsgi_tel.__spec__.loader, "archive", None)
    if own and _PLAIN.match(own):
        return own, "this one; --program names another"
    return PROGRAM, "by default; --program names another"


def _said(program, why):
    hidden = ", where a service may not see it: copy it to /usr/local/bin" if program.startswith(_HIDDEN) else ""
    return f"the program is {program} ({why}){hidden}"


def _wanted(names):
    """The rows that are named, each once, in the order of the table; all where none is.  Raises UsageError."""
    for name in names:
        if not named(name):
            import difflib
            every = [extra.name for extra in EXTRAS]
            near = [each for each in every if name.strip("/") and name.strip("/").lower() in each.lower()]
            near = near or difflib.get_close_matches(name, [*every, *KINDS], 3, 0.4) or KINDS
            raise UsageError(f"no extra {name!r}; there is {', '.join(near[:5])}; modwsgi-tel extras lists all")
    return [extra for extra in EXTRAS if not names or any(extra in named(name) for name in names)]


def _listed(wanted):
    """Lines of a list: its name and what it is, and below where it goes."""
    width = max(len(extra.name) for extra in wanted)
    lines = []
    for extra in wanted:
        lines.append(f"{extra.name.ljust(width)}  {extra.summary}")
        if extra.place:
            lines.append(f"{'':{width}}    {extra.place}")
    return lines


# --- writing them ------------------------------------------------------------------------------

def _write(values, wanted, program, why):
    """Write all or, where one differs from what is there, none."""
    states = [(extra, os.path.join(values.output, *extra.name.split("/")), content(extra, program)) for extra in wanted]
    states = [(extra, path, shown, _state(path, shown)) for extra, path, shown in states]
    differ = [path for _, path, _, state in states if state == "differs"]
    if differ and not values.force:
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise TelError(f"--output: {differ[0]}{more} differ{'' if more else 's'} from what would be written: nothing was written; --force "
                       "writes over it")
    for _, path, shown, state in states:
        if state != "same":
            _make_folder(os.path.dirname(path))
            write_whole(path, shown)
    if values.json:
        show(printable_json({"program": program, "written": [
            {"name": extra.name, "path": path, "state": state, "place": extra.place, "activate": _filled(extra.activate, program)}
            for extra, path, _, state in states]}) + "\n")
        return 0
    lines = []
    for extra, path, _, state in states:
        lines.append({"new": "wrote ", "differs": "wrote over ", "same": "is there already: "}[state] + printable(path))
        if extra.place:
            lines.append(f"    install -D -m 644 {shlex.quote(printable(path))} {extra.place}")
        lines.append(f"    {_filled(extra.activate, program)}")
    if any(PROGRAM_MARK in raw(extra) + extra.activate for extra in wanted):
        lines += ["", f"In these {_said(program, why)}."]
    show("\n".join(lines) + "\n")
    return 0


def _state(path, shown):
    """new, same or differs: what lies there.  Raises TelError."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise TelError(f"--output {path}: is no regular file, which is left alone")
        with open(path, "rb") as handle:
            return "same" if handle.read(len(shown.encode()) + 1) == shown.encode() else "differs"
    except FileNotFoundError:
        return "new"
    except OSError as error:
        raise TelError(f"--output {path}: {error.strerror}") from None


def _make_folder(folder):
    try:
        os.makedirs(folder, exist_ok=True)
        if os.path.islink(folder):
            raise TelError(f"--output {folder}: is a symbolic link, which is left alone")
    except OSError as error:
        raise TelError(f"--output {folder}: {error.strerror}") from None
