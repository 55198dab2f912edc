"""What both kinds of a connection send by: pieces, made and sent as many as a turn has time for."""

TURN_S = 0.0005                         # of work on one answer, before others have a turn


class Sending:
    """A connection's way out.

    A subclass has `make_piece()`, which gives the next bytes, b"" where others may have a turn first, None when there is nothing for
    now; and `close()`.  since: when it last made progress.  blocked: when its reader was last seen to take nothing more.  Holds one piece.
    """

    def __init__(self, server, accepted):
        self.server = server
        self.socket = accepted
        self.fd = accepted.fileno()
        self.since = self.blocked = server.loop.clock()
        self._out = None                # a memoryview of what of a piece is not yet sent
        self._writing = False

    def _writable(self):
        """Make pieces and send them.  What follows an answer waits for its own turn."""
        if self._writing:
            return
        self._writing = True
        try:
            clock, look = self.server.loop.clock, self.server.loop.look
            until = clock() + TURN_S
            while self._write_piece() and clock() < until:
                look()                  # cheaper than a whole turn, and as good for who sends
        finally:
            self._writing = False

    def _write_piece(self):
        """Make a piece or send what is left of one; False when that was all for now."""
        if self._out is None:
            piece = self.make_piece()
            if piece is None:
                return False
            self.since = self.server.loop.clock()
            if not piece:
                return True
            self._out = memoryview(piece)
        try:
            sent = self.socket.send(self._out)
        except BlockingIOError:
            self.blocked = self.server.loop.clock()
            return False
        except OSError:
            self.close()
            return False
        if sent:
            self.since = self.server.loop.clock()
        self._out = self._out[sent:] if sent < len(self._out) else None
        return self._out is None
