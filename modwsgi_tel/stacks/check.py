"""Whether reading from outside gives what Python says inside: a child of this very Python is read, and asked."""
import json
import os
import signal
import sys

from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks.reader import Reader

_LONGEST = 1 << 20
_LOOKS = 10000                          # some seconds: until the child has gone from telling to waiting


def check():
    """(frames compared, [what differs], Python's version).  Raises TelError when it cannot be tried."""
    told, telling = os.pipe()
    waiting, going = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(told)
            os.close(going)
            _outer(waiting, telling)
        finally:
            os._exit(0)                 # never back into the parent's code
    try:
        os.close(telling)
        os.close(waiting)
        with os.fdopen(told, "rb") as handle:
            truth = json.loads(handle.read(_LONGEST) or b"null")
        if truth is None:
            raise TelError("the child that should have been read has ended by itself")
        reader = Reader(pid)
        try:
            looked = _settled(reader, truth[0])
        finally:
            reader.close()
    finally:
        os.close(going)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(pid, 0)
    return _compared(truth, looked)


def _settled(reader, innermost):
    """The look at which the child waits where it said that it would, or the last of very many."""
    for _ in range(_LOOKS):
        looked = reader.look()
        if any(thread.frames and list(thread.frames[0][:3]) == innermost for thread in looked.threads):
            break
    return looked


def _compared(truth, looked):
    whole = [thread for thread in looked.threads if thread.problem is None and thread.frames]
    if len(whole) != 1:
        problems = [thread.problem for thread in looked.threads if thread.problem]
        return len(truth), [f"its one thread was not read: {problems[0] if problems else 'it has no frames'}"], looked.python
    read = [[frame.function, frame.file, frame.line] for frame in whole[0].frames]
    wrong = [f"{' '.join(map(str, one))} is read as {' '.join(map(str, other))}" for one, other in zip(truth, read) if one != other]
    if len(truth) != len(read):
        wrong.append(f"{len(truth)} frames are read as {len(read)}")
    return max(len(truth), len(read)), wrong, looked.python


# --- in the child: frames of every kind, the innermost in a call of C that waits ----------------------

def _outer(waiting, telling):
    return sorted([1, 0], key=lambda each: _recursive(3, waiting, telling))


def _recursive(depth, waiting, telling):
    return _recursive(depth - 1, waiting, telling) if depth else [each for each in _generator(waiting, telling)]


def _generator(waiting, telling):
    yield from (_Place().tell(waiting, telling) for _ in range(1))


class _Place:
    def tell(self, waiting, telling):
        # on one line: what it says of itself is of the line on which it then waits
        return _write(telling, sys._getframe()), os.read(waiting, 1)


def _write(telling, frame):
    """The truth, as JSON: [[function, file, line], ...], innermost first."""
    found = []
    while frame is not None:
        code = frame.f_code
        found.append([getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno])
        frame = frame.f_back
    data = json.dumps(found).encode()
    while data:
        data = data[os.write(telling, data):]
    os.close(telling)
