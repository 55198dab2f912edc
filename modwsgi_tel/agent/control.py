"""The socket on which an agent answers, when no URL of the site can be: within the monitor thread's poll(), which never waits.

It is a listening unix stream socket with an abstract name, and the kernel says who asks (SO_PEERCRED).  That is the plainest
safe way: there is no file, so no folder that has to be writable, no mode and no stale name to clean up, and a private /tmp or
an unwritable HOME do not matter; the name goes with the process; nobody without the right user gets a byte, whatever he
knows; and no signal is sent to a process that may not expect it.  It does not reach across network namespaces: there one asks
from within (nsenter -t PID -n).  Root, the process's own user and the owner of the telemetry socket may ask.

One line of JSON asks, one answers:  {"do": "stacks", "locals": false}
"""
import _socket as socket                # as it is without gevent, whose sockets wait
import errno
import json
import os
import select
import stat
import struct
import time

from modwsgi_tel.agent.monitor import identity
from modwsgi_tel.errors import TelError

PREFIX = "modwsgi-tel-agent"
ASKED_BYTES, ANSWER_BYTES = 4 << 10, 4 << 20
CONNECTIONS_MOST = 4
ERROR_LENGTH = 500
LIMIT_S = 2.0                           # for the question to come, and again for its answer to be taken
REST_S = 1.0                            # after no connection could be accepted: as many files are open as may be
_NAMES = 4                              # tries to find one that is free
_PEER = struct.Struct("3i")             # struct ucred: pid, uid, gid


def _owner(path):
    """The uid that owns a unix socket, or None."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_uid if stat.S_ISSOCK(found.st_mode) else None


class Control:
    """Answers on an abstract socket: `descriptors()` and `ready()` for who polls, `due()` and `run()` for time.

    answer: gives a dict for a request (a dict that has "do"); TelError and ValueError of it say why not.  path: of the telemetry
    socket, whose owner is looked up when somebody asks.  name: what it is called now, "" where there is no socket, or none any more
    because the application has closed it, or a connection; problem: why, or "".
    asked, refused, dropped (too long, too slow, gone), errors: counters.
    """

    def __init__(self, name, answer, path):
        self._answer, self._path = answer, path
        self._held = {}                 # fd -> _Connection
        self._listener = self._identity = None
        self._rests_until = None        # monotonic seconds, while the listener is left alone
        self.name = self.problem = ""
        self.asked = self.refused = self.dropped = self.errors = 0
        try:
            self._listener, self.name = _listen(name)
            self._identity = identity(self._listener.fileno())
        except OSError as error:
            self.problem = f"no control socket: {error.strerror or error}"

    def descriptors(self):
        """{fd: events} to poll for."""
        if self._listener is not None and not all(_is_ours(*each) for each in self._all()):
            self._stand_down()
        found = {number: connection.events for number, connection in self._held.items()}
        if self._listener is not None and self._rests_until is None and len(found) < CONNECTIONS_MOST:
            found[self._listener.fileno()] = select.POLLIN
        return found

    def _all(self):
        return [(self._listener, self._identity), *((each.socket, each.identity) for each in self._held.values())]

    def _stand_down(self):
        self.problem = "no control socket: the application closed it"
        self.close()

    def ready(self, number, events):
        """poll() says that something can be done with this one.  Raises nothing."""
        connection = self._held.get(number)
        try:
            if connection is None:
                self._accept(number)
            elif connection.rest is None:
                self._read(connection)
            else:
                self._write(connection)
        except BlockingIOError:
            pass
        except _Foreign:
            self._stand_down()
        except OSError:
            if connection is not None:
                self._drop(connection)

    def due(self):
        """When the first connection has had its time, or the listener is back, or None."""
        times = [connection.until for connection in self._held.values()]
        if self._rests_until is not None:
            times.append(self._rests_until)
        return min(times, default=None)

    def run(self, now):
        if self._rests_until is not None and self._rests_until <= now:
            self._rests_until = None
        for connection in list(self._held.values()):
            if connection.until <= now:
                self._drop(connection)

    def forked(self):
        """In the child of a fork: the parent's socket goes on without it."""
        self.close()

    def close(self):
        for connection in list(self._held.values()):
            self._end(connection)
        listener, self._listener, self.name, self._rests_until = self._listener, None, "", None
        if listener is not None:
            _let_go(listener, self._identity)

    def _accept(self, number):
        if self._listener is None or number != self._listener.fileno():
            return                      # closed in this turn
        if not _is_ours(self._listener, self._identity):
            raise _Foreign
        try:
            number, _ = self._listener._accept()
        except BlockingIOError:
            return
        except OSError:                 # whoever waits to be accepted goes on to wait, so poll() would return at once
            self._rests_until = time.monotonic() + REST_S
            return
        found = socket.socket(fileno=number)
        _, uid, _ = _PEER.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (0, os.geteuid()) and uid != _owner(self._path):
            self.refused += 1
            found.close()
            return
        found.setblocking(False)
        self._held[found.fileno()] = _Connection(found, time.monotonic() + LIMIT_S)

    def _read(self, connection):
        connection.check()
        part = connection.socket.recv(ASKED_BYTES + 1 - len(connection.asked))
        connection.asked += part
        line, end, _ = connection.asked.partition(b"\n")
        if end:
            connection.rest = memoryview(self._said(line))
            connection.until, connection.events = time.monotonic() + LIMIT_S, select.POLLOUT
            self._write(connection)
        elif not part or len(connection.asked) > ASKED_BYTES:
            self._drop(connection)

    def _said(self, line):
        """The answer to a line, as bytes."""
        self.asked += 1
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or not isinstance(request.get("do"), str):
                return _packed({"error": 'ask with a line of JSON, as {"do": "state"}'})
        except (ValueError, RecursionError):
            return _packed({"error": 'ask with a line of JSON, as {"do": "state"}'})
        try:
            said = _packed(self._answer(request))
        except (TelError, ValueError) as error:
            return _packed({"error": str(error)[:ERROR_LENGTH]})
        except Exception as error:
            self.errors += 1
            return _packed({"error": f"the agent failed: {type(error).__name__}"})
        return said if len(said) <= ANSWER_BYTES else _packed({"error": f"the answer is too long: {len(said)} bytes"})

    def _write(self, connection):
        connection.check()
        connection.rest = connection.rest[connection.socket.send(connection.rest):]
        if not connection.rest:
            self._end(connection)

    def _drop(self, connection):
        self.dropped += 1
        self._end(connection)

    def _end(self, connection):
        del self._held[connection.socket.fileno()]
        _let_go(connection.socket, connection.identity)


class _Foreign(Exception):
    """The number of a socket is another file's: the application has closed it."""


class _Connection:
    """asked: bytes so far.  rest: what is left of the answer, or None while there is none.  until: monotonic seconds."""

    __slots__ = ("socket", "identity", "until", "asked", "rest", "events")

    def __init__(self, found, until):
        self.socket, self.until, self.asked, self.rest, self.events = found, until, b"", None, select.POLLIN
        self.identity = identity(found.fileno())

    def check(self):
        if not _is_ours(self.socket, self.identity):
            raise _Foreign


def _is_ours(held, remembered):
    return identity(held.fileno()) == remembered


def _let_go(held, remembered):
    """Close a socket, or forget its number where that is another file's."""
    if _is_ours(held, remembered):
        held.close()
    else:
        held.detach()


def _packed(answer):
    return json.dumps(answer).encode() + b"\n"


def _listen(name):
    """(listening socket, its name): the name, or where somebody else has it that and something random.  Raises OSError."""
    for turn in range(_NAMES):
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        wanted = f"{name}.{os.urandom(8).hex()}" if turn else name
        try:
            found.bind("\0" + wanted)
            found.listen(CONNECTIONS_MOST)
            return found, wanted
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
