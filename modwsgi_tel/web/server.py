"""HTTP connections inside the loop: each turn sends or reads one piece.

A connection holds one piece of its answer, whatever that is long, and takes no further bytes
while an answer is under way.  There are at most `connections`; the one that has been idle
longest makes room for a new one.  One that becomes a WebSocket goes on as a web.talk.Talk, which
counts as a connection; they may be half of all.
"""
import errno
import os
import select
import socket
from collections import deque, namedtuple

from modwsgi_tel.errors import BadRequest
from modwsgi_tel.net.loop import FD_LIMIT
from modwsgi_tel.web.protocol import Limits, Parser, Response, error_response, keeps, pieces
from modwsgi_tel.web.sending import Sending
from modwsgi_tel.web.talk import Talk

Timeouts = namedtuple("Timeouts", "request idle write", defaults=(10.0, 30.0, 30.0))
Timeouts.__doc__ = """Seconds: for a request to arrive whole, for a kept connection without one, for a reader to take a piece."""

_RECEIVE = 65536
_LINGER_S = 2.0                         # after an error: reading on, so that the answer is not lost to a reset
_LINGER_BYTES = 4 << 20
BACKLOG = 1024                          # one that comes while it is full tries again after a second only
_ACCEPTS = 16                           # new connections in one turn


class Server:
    """Listeners and their connections.  `answer(request, guard)` gives the Response to a request."""

    def __init__(self, loop, answer, connections=256, limits=Limits(), timeouts=Timeouts(), failed=lambda error: None):
        self.loop = loop
        self.answer = answer
        self.limits = limits
        self.timeouts = timeouts
        self.failed = failed            # told of an answer that raised
        self.connections = {}           # Connection -> None, in order of arrival
        self.most = connections
        self.accepted = self.refused = self.requests = self.errors = 0
        self._listeners = {}
        self._paused = False

    @property
    def talks(self):
        """How many of the connections are WebSockets."""
        return sum(isinstance(item, Talk) for item in self.connections)

    def listen(self, listener, guard):
        """Serve a listening, non-blocking socket."""
        self._listeners[listener] = guard
        self.loop.readers[listener.fileno()] = lambda: self._accept(listener, guard)

    def _accept(self, listener, guard):
        for turn in range(_ACCEPTS):
            if len(self.connections) >= self.most:
                if turn:
                    return              # nobody is turned out before select() says that another one waits
                if not self._make_room():
                    self._pause()
                    return
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) and not self._make_room():
                    self._pause()
                    return
                continue
            if accepted.fileno() >= FD_LIMIT:
                self.refused += 1
                accepted.close()
                continue
            self.accepted += 1
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[Connection(self, accepted, guard)] = None

    def _make_room(self):
        """Close the connection that has waited longest without being answered; False when all are at work.

        One whose bytes have arrived and are not read yet may hold a request: it is at work.
        """
        waiting = [item for item in self.connections if item.waits]
        unread = select.select([item.fd for item in waiting if not item.lingers], [], [], 0)[0]
        waiting = [item for item in waiting if item.fd not in unread]
        if not waiting:
            return False
        self.refused += 1
        min(waiting, key=lambda item: item.since).close()
        return True

    def _pause(self):
        """Let new connections wait in the backlog until one ends or has been answered."""
        self._paused = True
        for listener in self._listeners:
            self.loop.readers.pop(listener.fileno(), None)

    def gone(self, connection):
        self.connections.pop(connection, None)
        self.resume()

    def changed(self, connection, telling, rest):
        """A connection has become a WebSocket."""
        del self.connections[connection]
        talk = Talk(self, connection.socket, telling, rest)
        if not talk.closed:
            self.connections[talk] = None

    def resume(self):
        """Look at new connections again: there may be room, or one that can make it."""
        if self._paused:
            self._paused = False
            for listener, guard in self._listeners.items():
                self.listen(listener, guard)

    def sweep(self):
        """End what takes too long; call it about once a second."""
        now = self.loop.clock()
        for connection in list(self.connections):
            connection.check_time(now)
        self.resume()                   # descriptors may have been short for reasons of others

    def close(self):
        for connection in list(self.connections):
            connection.leave()
        for listener in self._listeners:
            self.loop.readers.pop(listener.fileno(), None)
        self._listeners.clear()


class Connection(Sending):
    """One client."""

    def __init__(self, server, accepted, guard):
        super().__init__(server, accepted)
        self.guard = guard
        self.parser = Parser(server.limits)
        self._requests = deque()
        self._pieces = None                     # the generator of the answer under way
        self._keep = True
        self._telling = None                    # what a WebSocket is told, while its handshake is answered
        self._eof = False
        self._linger = None                     # until when bytes are still read and thrown away
        self._thrown = 0
        server.loop.readers[self.fd] = self._readable

    @property
    def waits(self):
        """Whether it has nothing to be answered."""
        return self._pieces is None

    @property
    def lingers(self):
        """Whether it is only read on so that its last answer arrives."""
        return self._linger is not None

    # --- in ---------------------------------------------------------------------------

    def _readable(self):
        try:
            got = self.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._linger is not None:
            self._thrown += len(got)
            if not got or self._thrown > _LINGER_BYTES:
                self.close()
            return
        if not got:
            self._eof = True
            self.server.loop.readers.pop(self.fd, None)
        if self.parser.idle:
            self.since = self.server.loop.clock()       # the time for a whole request begins with its first byte
        self._take(lambda: self.parser.feed(got))

    def _take(self, parse):
        try:
            self._requests.extend(parse())
        except BadRequest as error:
            self._requests.append(error)
        self._next()

    def _next(self):
        """Begin the next answer, or go on reading."""
        readers = self.server.loop.readers
        if self._pieces is not None:
            return
        if not self._requests and self.parser.waiting:
            self._take(self.parser.resume)
            return
        if not self._requests and self.parser.error is not None:
            self._requests.append(self.parser.error)
        if self._requests:
            readers.pop(self.fd, None)          # one answer at a time; what else comes waits in the kernel
            self._begin(self._requests.popleft())
            return
        if self._eof or self.parser.ended:
            self.close()
            return
        if self.parser.interim:
            interim, self.parser.interim = self.parser.interim, b""
            self._pieces = iter((interim,))
            self._keep = True
            self.server.loop.writers[self.fd] = self._writable
            self._writable()
            return
        readers[self.fd] = self._readable
        self.server.resume()

    # --- out --------------------------------------------------------------------------

    def _begin(self, request):
        server = self.server
        server.requests += 1
        if isinstance(request, BadRequest):
            server.errors += 1
            self._keep = False
            self._linger = server.loop.clock() + _LINGER_S
            self._pieces = pieces(None, error_response(request), close=True)
        else:
            try:
                response = server.answer(request, self.guard)
            except Exception as error:          # one answer that fails must not end the collector
                server.failed(error)
                response = error_response(BadRequest(500, "the collector could not answer this; its log says why"))
            if response.status == 101:
                response = self._changing(response)
            if response.status >= 400:
                server.errors += 1
            self._keep = keeps(request, response)
            self._pieces = pieces(request, response)
        self.since = server.loop.clock()
        server.loop.writers[self.fd] = self._writable
        self._writable()

    def _changing(self, response):
        """What to answer to a handshake that is right; the body of the Response is what will be told."""
        server = self.server
        if server.talks >= max(1, server.most // 2):
            response.body.close()
            return error_response(BadRequest(503, f"there are {server.talks} WebSockets already: --max-connections allows half of it",
                                             close=False, headers=(("Retry-After", "10"),)))
        self._telling = response.body
        return Response(101, headers=response.headers)

    def make_piece(self):
        try:
            return next(self._pieces)
        except StopIteration:
            self._answered()
        except Exception as error:
            self.server.failed(error)
            self.close()                        # without the end of the chunks: the client sees that it is cut
        return None

    def _answered(self):
        self.server.loop.writers.pop(self.fd, None)
        self._pieces = None
        if self._telling is not None:
            telling, self._telling = self._telling, None
            self.server.changed(self, telling, self.parser.rest())
        elif self._keep:
            self._next()
        elif self._linger is not None or not self._eof:
            self._finish()
        else:
            self.close()

    def _finish(self):
        """Say that no more comes, then read on a moment: a close with unread bytes would reset the answer away."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._linger = self.server.loop.clock() + _LINGER_S
        self.server.loop.readers[self.fd] = self._readable

    def check_time(self, now):
        timeouts = self.server.timeouts
        if self._pieces is not None:
            if now - self.since > timeouts.write:
                self.close()
        elif self._linger is not None:
            if now > self._linger:
                self.close()
        elif self.parser.idle:
            if now - self.since > timeouts.idle:
                self.close()
        elif now - self.since > timeouts.request:
            self._begin(BadRequest(408, f"the request was not whole after {timeouts.request:g} s"))

    def leave(self):
        """The collector stops."""
        self.close()

    def close(self):
        loop = self.server.loop
        loop.readers.pop(self.fd, None)
        loop.writers.pop(self.fd, None)
        if self._pieces is not None:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
            self._pieces = None
        if self._telling is not None:
            self._telling.close()
        self.socket.close()
        self.server.gone(self)


def tcp_listener(host, port):
    """A non-blocking listening socket; raises OSError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        raise OSError(errno.EINVAL, "no host has such a name") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def describe(error):
    """An OSError in the words of the system."""
    return error.strerror or os.strerror(error.errno or 0)
