"""A connection that has become a WebSocket: each turn sends or reads one piece.

It holds one piece of what it tells, and what a client says is thrown away, but for pings and the end.  A client that is gone without
a word is found by pings; one that takes nothing, by the time that a piece may take.
"""
import socket

from modwsgi_tel.web.sending import Sending
from modwsgi_tel.web.websocket import BROKEN, CLOSE, GOING_AWAY, PING, PONG, Reader, closing, frame

PAUSE_S = 0.1                           # between two looks for more: what comes meanwhile goes out together
PING_S, SILENT_S = 20.0, 60.0           # pings so often; without any word for so long the client is gone
SEND_BYTES = 256 << 10                  # that the kernel may hold for a slow reader
LINGER_S = 2.0                          # for the client's side of the end
_RECEIVE = 4096


class Talk(Sending):
    """One client, from the moment in which its handshake is answered.

    server: as of a web.server.Connection.  telling: `piece`, `when_more` and `close`, as of a web.live.Telling.  rest: what came
    behind the handshake.
    """

    waits = lingers = False                     # it is never turned out for a new connection

    def __init__(self, server, accepted, telling, rest):
        super().__init__(server, accepted)
        self._telling = telling
        self._reader = Reader()
        self._control = []                      # frames to send between two pieces: at most a pong, a ping, a Close
        self._ending = None                     # since when the end is said
        self.closed = False
        self._heard = self._pinged = self.since
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        server.loop.readers[self.fd] = self._readable
        if rest:
            self._take(rest)
        if not self.closed:
            self._write()

    # --- in ---------------------------------------------------------------------------

    def _readable(self):
        try:
            got = self.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self.close()
            return
        self._heard = self.server.loop.clock()
        self._take(got)

    def _take(self, got):
        for opcode, payload in self._reader.feed(got):
            if opcode == PING:
                # RFC 6455 5.5.3: of several the newest is enough, so nobody can make them pile up
                self._control = [each for each in self._control if each[0] & 15 != PONG] + [frame(PONG, payload)]
                self._write()
            elif opcode == CLOSE:
                self._end(payload)
            elif opcode == BROKEN:
                self._end(payload.code)
            if self.closed:
                return

    def _end(self, code):
        """Say the end, unless it is said."""
        if self._ending is None and not self.closed:
            self._ending = self.server.loop.clock()
            self._telling.close()
            self._control.append(closing(code))
            self._write()

    # --- out --------------------------------------------------------------------------

    def _write(self):
        self.server.loop.writers[self.fd] = self._writable

    def _wake(self):
        """There is more: a moment later, when there will be more than one."""
        self.server.loop.after(PAUSE_S, lambda: None if self.closed else self._write())

    def make_piece(self):
        if self._control:
            return self._control.pop(0)
        if self._ending is not None:
            self._finish()
            return None
        try:
            piece = self._telling.piece()
        except Exception as error:              # one answer that fails must not end the collector
            self.server.failed(error)
            self.close()
            return None
        if piece is None:
            self.server.loop.writers.pop(self.fd, None)
            self._telling.when_more(self._wake)
        return piece

    def _finish(self):
        """All is sent, the Close too: wait for the client's side of it."""
        self.server.loop.writers.pop(self.fd, None)
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    # --- time -------------------------------------------------------------------------

    def check_time(self, now):
        if self._ending is not None:
            if now - self._ending > LINGER_S:
                self.close()
        elif self._out is not None:
            if now - self.since > self.server.timeouts.write:
                self.close()
        # a slow reader's answer waits behind what it has not read yet
        elif now - max(self._heard, self.blocked) > SILENT_S:
            self.close()
        elif now - self._pinged >= PING_S:
            self._pinged = now
            self._control.append(frame(PING, b""))
            self._write()

    def leave(self):
        """The collector stops: say so where that needs no waiting, and close."""
        if self._out is None and self._ending is None and not self.closed:
            try:
                self.socket.send(closing(GOING_AWAY))
            except OSError:
                pass
        self.close()

    def close(self):
        if self.closed:
            return
        self.closed = True
        loop = self.server.loop
        loop.readers.pop(self.fd, None)
        loop.writers.pop(self.fd, None)
        self._telling.close()
        self.socket.close()
        self.server.gone(self)
