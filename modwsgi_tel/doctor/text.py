"""What `doctor` says, as lines for people: what is wrong or not known in full, what is right in short."""
import textwrap

from modwsgi_tel.doctor.scene import FOLLOWS, OK, UNKNOWN, WRONG
from modwsgi_tel.doctor.steps import verdict
from modwsgi_tel.printable import printable

WIDEST = 110
_NARROW = 40
_WORDS = {OK: "ok", WRONG: "WRONG", UNKNOWN: "not known", FOLLOWS: "follows"}
_COLUMN = 11
_INDENT = " " * _COLUMN


def text(scene, judged, width=None):
    """The whole answer, with a line end.  A command is never broken: it is there to be copied."""
    width = WIDEST if width is None else max(_NARROW, min(WIDEST, width - 1))
    lines = [*_wrapped(verdict(scene, judged), width, "", ""), ""]
    for step in judged:
        for each in step.results:
            lines += _result(each, width)
    return "\n".join(lines) + "\n"


def _result(result, width):
    lines = _wrapped(result.text, width, f"{_WORDS[result.state]:<{_COLUMN}}", _INDENT)
    for each in result.evidence:
        lines += _wrapped(each, width, _INDENT + "- ", _INDENT + "  ")
    for mend in result.mends:
        if mend.kind == "run":
            lines.append(_INDENT + "$ " + printable(mend.text))
        elif mend.kind == "apache":
            lines.append(_INDENT + (f"in {printable(mend.where)}: " if mend.where else "") + printable(mend.text))
        else:
            lines += _wrapped(mend.text, width, _INDENT, _INDENT + "  ")
    return lines


def _wrapped(shown, width, first, then):
    return textwrap.wrap(printable(shown), width, initial_indent=first, subsequent_indent=then, break_on_hyphens=False) or [first.rstrip()]
