"""What `why` says, as lines for people."""
import os
import re
import textwrap
import time

from modwsgi_tel.figures import counted, duration, moment
from modwsgi_tel.printable import printable
from modwsgi_tel.proc.roles import CHILD
from modwsgi_tel.stacks.compare import folded
from modwsgi_tel.stacks.model import Frame
from modwsgi_tel.why.scene import is_library

FRAMES_SHOWN = 12                       # of one stack; the application's own before others
WIDEST = 110
_NARROW = 40
_AMOUNT = re.compile(r"(\d) (%|ms|s|min|h|d|B|kB|MB|GB|TB)(?!\w)")
_WORDS = {"critical": "CRITICAL", "warning": "WARNING", "info": "NOTE"}


def text(scene, findings, notes, width=None):
    """The whole answer, with a line end."""
    width = WIDEST if width is None else max(_NARROW, min(WIDEST, width - 1))
    lines = _head(scene, findings, width)
    for found in findings:
        lines += ["", *_finding(scene, found, width)]
    if notes:
        lines += ["", *_listed("worth knowing:", notes, width)]
    if scene.unknown:
        lines += ["", *_listed("not known:", scene.unknown, width)]
    return "\n".join(lines) + "\n"


def _wrapped(shown, width, first="", then=None):
    """Lines of a text; a number stays with its unit."""
    joined = _AMOUNT.sub("\\1\0\\2", printable(shown))
    lines = textwrap.wrap(joined, width, initial_indent=first, subsequent_indent=first if then is None else then, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines] or [first]


def _listed(head, rows, width):
    return [head, *(line for row in rows for line in _wrapped(row, width, "  - ", "    "))]


def _head(scene, findings, width):
    servers = {}
    for process in scene.processes:
        name = "Apache's own" if process.member.role == CHILD and not process.looks else process.name
        servers.setdefault((process.member.server, name), []).append(process)
    threads = sum(process.member.threads for process in scene.processes)
    looked = (f"looked for {duration(scene.seconds)} at {counted(len(scene.processes), 'process', 'processes')} with "
              f"{counted(threads, 'thread')}{', as a user who may not see all' if not scene.root else ''}")
    when = time.strftime("%H:%M:%S", time.localtime(scene.at))
    if findings:
        said = f"{counted(len(findings), 'finding')} on {os.uname().nodename}, {when}; {looked}"
    elif scene.telemetry is None and not any(process.looks for process in scene.processes):
        said = f"nothing found, but nothing of the code could be seen: {os.uname().nodename}, {when}; {looked}"
    else:
        said = f"all quiet on {os.uname().nodename}, {when}; {looked}"
    names = ", ".join(f"{name} ({counted(len(each), 'process', 'processes')})" for (_, name), each in sorted(servers.items())[:8])
    return [*_wrapped(said, width), *(_wrapped(f"servers: {names}", width) if names else [])]


def _finding(scene, found, width):
    word = _WORDS[found["severity"]]
    lines = _wrapped(f"{word} [{found['id']}] {found['text']}", width, "", "  ")
    if found["since"] is not None and scene.at - found["since"] >= 1:
        lines.append(f"  since {moment(found['since'], scene.at)} ({duration(max(0.0, scene.at - found['since']))})")
    for each in found["evidence"]:
        lines += _wrapped(each["text"], width, "  - ", "    ")
        if each["frames"]:
            lines += _stack(each["frames"], width)
    if found["advice"]:
        lines += _wrapped(found["advice"], width, "  what to do: ", "    ")
    return lines


def _stack(frames, width):
    """Lines of a stack, the outermost frame first, as in a traceback."""
    source = (frames[0].get("source") or "") if frames else ""
    own = next((each for each in frames if not is_library(each["file"])), None)
    shown = (own or {}).get("source") or source
    frames = [Frame(each["function"], each["file"], each["line"], each.get("interpreter", 0)) for each in frames][::-1]
    rows = []
    for index, count, rounds in folded(frames):
        if index is None:
            rows.append((None, f"      [{counted(count, 'call')} again, {rounds:,} times]"))
        else:
            frame = frames[index]
            rows.append((frame, f"      {frame.function}  {frame.file}:{'?' if frame.line is None else frame.line}"))
    if len(rows) > FRAMES_SHOWN:
        own = [row for row in rows if row[0] is not None and not is_library(row[0].file)]
        kept = set(map(id, own[-FRAMES_SHOWN + 2:])) | set(map(id, rows[-2:]))
        left = len(rows)
        rows = [row for row in rows if id(row) in kept]
        rows.insert(0, (None, f"      [{left - len(rows)} other frames]"))
    return [*(_clip(printable(line), width) for _, line in rows), *([_cut("        " + printable(shown), width)] if shown else [])]


def _cut(line, width):
    return line if len(line) <= width else f"{line[:width - 4]} ..."


def _clip(line, width):
    """The line of a frame within `width`: the end of its place stays."""
    head, gap, place = line.rpartition("  ")
    if len(line) <= width or not head.strip():
        return _cut(line, width)
    room = width - len(head) - len(gap)
    if len(place) <= max(room, width // 2):
        return f"{head[:width - len(place) - 6]} ...  {place}"
    if room < width // 2:
        head = f"{head[:width - width // 2 - 6]} ..."
        room = width - len(head) - len(gap)
    return f"{head}{gap}...{place[-(room - 3):]}"
