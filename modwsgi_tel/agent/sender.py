"""Datagrams to the collector: nothing here waits, raises, or grows.

The socket is connected, so that a collector that ends is seen at once (ECONNREFUSED), and one that comes back is a new
connection: `generation` counts these, and whoever has told something once tells it again when it has changed.  A socket that the
application has closed is as one that is lost (monitor.identity).
"""
import _socket as socket                # as it is without gevent, whose sockets wait
import errno
import os
import select
import time

from modwsgi_tel.agent.monitor import identity, originals
from modwsgi_tel.wire.codec import encode
from modwsgi_tel.wire.fields import AGENT_FLAG, MAX_DATAGRAM

AGAIN_S = 1.0                           # between two tries to connect
TRIES = 20                              # to send a datagram, while there is patience
PREFIX = "unix:"


class Sender:
    """Sends as agent `number` of this process."""

    def __init__(self, target, number):
        self.path = target[len(PREFIX):] if target.startswith(PREFIX) else target
        self.number = number
        self.generation = 0             # connections so far
        self.sent = self.lost = 0
        self.problem = ""               # why the last datagram was not taken
        self._pid = os.getpid()
        self._seq = 1
        self._socket = self._identity = None
        self._again = self._patient = float("-inf")

    @property
    def connected(self):
        return self._socket is not None

    def connect(self):
        """Whether there is a connection; tries for one at most once a second."""
        if self._socket is not None:
            if self._is_ours():
                return True
            self.close()
        now = time.monotonic()
        if now < self._again:
            return False
        self._again = now + AGAIN_S
        found = None
        try:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            found.connect(self.path)
        except (OSError, ValueError) as error:
            if found is not None:
                found.close()
            self.problem = f"{self.path}: {getattr(error, 'strerror', None) or error}"
            return False
        self._identity = identity(found.fileno())
        self._socket, self.problem = found, ""
        self.generation += 1
        return True

    def offer(self, kind, values):
        """As `send`, for who keeps what is not taken and sends it later: it is not lost then."""
        return self.send(kind, values, 0)

    def send(self, kind, values, loses=1):
        """Whether the kernel took the datagram.  values: as wire.codec.encode takes them."""
        if not self.connect():
            self.lost += loses
            return False
        seq = self._seq
        datagram = encode(kind, self._pid, seq, time.time(), values, AGENT_FLAG | self.number)
        if len(datagram) > MAX_DATAGRAM:
            self.lost += 1
            self.problem = f"a datagram of {len(datagram)} bytes"
            return False
        held = self._socket
        for _ in range(TRIES):
            try:
                held.send(datagram)
                self._seq = seq + 1
                self.sent += 1
                return True
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    self._seq = seq + 1     # as mod_wsgi's own go on while the socket is away; else it was never sent
                    self.problem = f"{self.path}: {error.strerror}"
                    self.close()            # the next one tries anew
                    break
            if not self._has_room(held) or not self._is_ours():
                break
        self.lost += loses
        return False

    def patience(self, seconds):
        """From now on what is sent waits where the collector's queue is full, for so long in all; 0 ends that.

        For whoever has much to send at once, or the last words.
        """
        self._patient = time.monotonic() + seconds


    def _has_room(self, held):
        left_s = self._patient - time.monotonic()
        if left_s <= 0:
            return False
        room = originals()[2]()
        room.register(held.fileno(), select.POLLOUT)
        if room.poll(int(left_s * 1000) + 1):
            return True
        self._patient = float("-inf")   # whatever the clock says
        return False

    def _is_ours(self):
        return identity(self._socket.fileno()) == self._identity

    def close(self):
        held = self._socket
        if held is not None:
            if self._is_ours():
                held.close()
            else:
                held.detach()
            self._socket = None

    forked = close                      # in the child: its copy of the descriptor goes, the parent's stays
