"""Folded stacks, one a line, as flamegraph.pl and its relatives read them: `outer;inner 12`, counts in microseconds.

Such a file has no place for anything else: what was counted stands in a first line, as a stack of no time.
"""
import re

from modwsgi_tel.errors import UsageError
from modwsgi_tel.profile.samples import is_group

HEAD = "(modwsgi-tel record: "
DIFF_HEAD = "(modwsgi-tel record --diff: "
_TEXT = re.compile(r"(?P<function>.+?) \((?P<file>.+?)(?::(?P<line>\d+))?\)")
_LINES = 1000000                        # of a former recording


def frame_text(function, file, line=None):
    """`function (file:line)`; what is no function has no file."""
    if file is None:
        return function
    return f"{function} ({file})" if line is None else f"{function} ({file}:{line})"


def parsed(text):
    """(function, file) of what frame_text made; file is None for what is no function."""
    found = None if is_group(text) else _TEXT.fullmatch(text)
    return (found["function"], found["file"]) if found else (text, None)


def folded(profile):
    """Pieces of text: the first line, then a line for each stack, sorted."""
    yield f"{_escaped(HEAD + '. '.join(profile.told()))}) 0\n"
    summed = {}
    for path, seconds in profile.stacks():
        text = ";".join(_escaped(frame_text(*key)) for key in path)
        summed[text] = summed.get(text, 0.0) + seconds
    for text in sorted(summed):
        yield f"{text} {_amount(summed[text])}\n"


def folded_diff(root, profile, former):
    """Pieces of text with two counts a line, as difffolded.pl writes them: the former one, made to the same total, and this."""
    told = f"before: {former.told}. after: {'. '.join(profile.told())}"
    yield f"{_escaped(DIFF_HEAD + told)}) 0 0\n"
    lines = []
    waiting = [(node, (node,)) for node in root.children.values()]
    while waiting:
        node, path = waiting.pop()
        before_s = node.before_s - sum(child.before_s for child in node.children.values())
        before, after = _amount(before_s), _amount(node.own_s)
        if before or after:
            lines.append(f"{';'.join(_escaped(frame_text(*each.name)) for each in path)} {before} {after}\n")
        waiting.extend((child, path + (child,)) for child in node.children.values())
    yield from sorted(lines)


def read_folded(text):
    """([(path, seconds)], told) of what `folded` wrote; path: (function, file), outermost first.

    Raises UsageError for anything else.
    """
    lines = text.split("\n")
    head = lines[0]
    if head.startswith(DIFF_HEAD):
        raise UsageError("is a comparison of two recordings: give one of the two")
    if not (head.startswith(HEAD) and head.endswith(") 0")):
        raise UsageError("is not a recording that record wrote: record it anew")
    if len(lines) > _LINES:
        raise UsageError(f"has more than {_LINES:,} stacks: record a shorter time")
    stacks = []
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        path, space, amount = line.rpartition(" ")
        if not (path and space and amount.isdecimal() and amount.isascii() and len(amount) < 18):
            raise UsageError(f"is damaged: line {number} is no folded stack")
        stacks.append(([parsed(_plain(each)) for each in path.split(";")], int(amount) / 1e6))
    return stacks, _plain(head[len(HEAD):-len(") 0")])


def _amount(seconds):
    return max(0, round(seconds * 1e6))


def _escaped(text):
    return text.replace(";", r"\x3b")


def _plain(text):
    return text.replace(r"\x3b", ";")
