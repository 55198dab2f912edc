"""Text that may be shown: nothing that came from a client reaches a terminal or a log as it is."""
import json
import os
import sys

from modwsgi_tel.errors import Unwritable


def printable(shown):
    """Text with everything that is no printable character escaped: controls, bidirectional marks, line ends."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def printable_json(value):
    """Strict JSON in ASCII: a control character of any kind is an escape in it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def columns(least=1):
    """How wide the terminal at stdout is, at least that; None of a file or a pipe, where lines may be as long as they are."""
    try:
        return max(least, os.get_terminal_size(1).columns)
    except OSError:
        return None


def show(shown):
    """Text to stdout, all of it now.  Raises Unwritable; BrokenPipeError when its reader has gone."""
    try:
        sys.stdout.write(shown)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(error) from None
