"""Which format a file gets, writing it, and reading a former recording to compare with."""
import os
import stat
from collections import namedtuple

from modwsgi_tel import figures
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.printable import printable
from modwsgi_tel.profile.firefox import firefox
from modwsgi_tel.profile.flame import flame
from modwsgi_tel.profile.folded import folded, folded_diff, read_folded
from modwsgi_tel.profile.speedscope import read_speedscope, speedscope
from modwsgi_tel.profile.tree import compared, tree

# The longest ending that fits counts.
ENDINGS = {".svg": "svg", ".folded": "folded", ".txt": "folded", ".speedscope.json": "speedscope", ".json": "speedscope",
           ".firefox.json": "firefox"}
FORMATS = ("svg", "folded", "speedscope", "firefox")
COMPARING = ("svg", "folded")           # those that can show two recordings
FORMER_BYTES = 50000000                 # a former recording's size, at most
FORMER_STACKS = 1000000                 # and its stacks

Former = namedtuple("Former", "stacks total_s told")
Former.__doc__ = """A former recording.  stacks: {path: seconds}, a path of (function, file), outermost first.  told: its own line."""


def format_of(path, wanted=None):
    """One of FORMATS: the wanted one, or by the ending of a path (None: stdout, folded).  Raises UsageError."""
    if wanted is not None:
        if wanted not in FORMATS:
            raise UsageError(f"no format {printable(wanted)}: there are {', '.join(FORMATS)}")
        return wanted
    if path is None:
        return "folded"
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if path.lower().endswith(ending):
            return ENDINGS[ending]
    raise UsageError(f"{printable(path)}: its ending names no format: end it with {', '.join(ENDINGS)}, or give --format")


def write(profile, form, before=None):
    """Pieces of text: a profile in one of FORMATS; before: a Former to compare with, for those of COMPARING.

    Raises UsageError, before the first piece, when the format cannot compare.
    """
    if before is None:
        return {"svg": lambda: flame(tree(profile), profile), "folded": lambda: folded(profile),
                "speedscope": lambda: speedscope(profile), "firefox": lambda: firefox(profile)}[form]()
    check_comparing(form)
    root = compared(profile, before)
    return flame(root, profile, before) if form == "svg" else folded_diff(root, profile, before)


def check_comparing(form):
    """Raises UsageError when a format cannot show two recordings: to be asked before recording."""
    if form not in COMPARING:
        raise UsageError(f"--diff cannot be shown as {form}: write .svg or .folded")


def former(path):
    """The Former of a folded or a speedscope file that `record` wrote.  Raises UsageError or TelError."""
    name = printable(path)
    try:
        text = _text(path)
        stacks, told = read_speedscope(text) if text.startswith("{") else read_folded(text)
        return added_up(stacks, told)
    except UnicodeDecodeError:
        raise UsageError(f"--diff {name} is not a recording that record wrote: give a .folded or .speedscope.json file") from None
    except OSError as error:
        raise TelError(f"--diff {name}: cannot read it: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"--diff {name} {error}") from None


def added_up(stacks, told):
    """A Former of [(path, seconds)].  Raises UsageError when there is nothing in it, or too much."""
    summed = {}
    for path, seconds in stacks:
        path = tuple((printable(function), None if file is None else printable(file)) for function, file in path)
        summed[path] = summed.get(path, 0.0) + seconds
    total_s = sum(summed.values())
    if not total_s:
        raise UsageError("holds no samples: record it anew")
    if len(summed) > FORMER_STACKS:
        raise UsageError(f"has more than {FORMER_STACKS:,} stacks: record a shorter time")
    return Former(summed, total_s, printable(told))


def _text(path):
    """All of a regular file, of FORMER_BYTES at most."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError("is no regular file: give a .folded or .speedscope.json file")
        data = file.read(FORMER_BYTES + 1)
    if len(data) > FORMER_BYTES:
        raise UsageError(f"is larger than {figures.size(FORMER_BYTES)}: keep the .folded one, it is smaller")
    return data.decode("utf-8")
