"""What a service manager and a service say to each other: that it is ready, that it lives, sockets handed in.

Plain datagrams and variables, no library.  Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
"""
import os
import socket

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net.datagram import LONGEST_PATH
from modwsgi_tel.printable import printable

STATUS_BYTES = 400                      # of a status line: `systemctl status` shows one
LISTENERS_MOST = 16
_FIRST = 3                              # SD_LISTEN_FDS_START: the descriptor that the first one has
_LISTEN = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Notifier:
    """Tells the service manager, if one started this; never waits and never raises.

    environ: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are taken out of it, so that no child speaks for this process.
    watchdog_s: a sign of life is wanted at least that often, in seconds; None where nobody waits for one.
    What the manager's queue has no room for is kept, the newest of each name, for `again`.
    """

    def __init__(self, environ=os.environ):
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        raw = os.fsencode(address)
        self._address = None
        if raw[:1] in (b"/", b"@") and 1 < len(raw) <= LONGEST_PATH and b"\0" not in raw:
            self._address = b"\0" + raw[1:] if raw[:1] == b"@" else raw
        self.watchdog_s = None
        if self._address and usec.isascii() and usec.isdigit() and 0 < len(usec) < 18 and int(usec) and pid in ("", str(os.getpid())):
            self.watchdog_s = int(usec) / 1e6
        self._owed = {}
        self._status = None

    @property
    def listens(self):
        """Whether anybody is told."""
        return self._address is not None

    def tell(self, **said):
        """Send these, as READY="1"; whole lines without a newline in them."""
        if self.listens:
            self._owed.update(said)
            self.again()

    def again(self):
        """Send what there was no room for."""
        if self._owed:
            data = "".join(f"{name}={value}\n" for name, value in self._owed.items()).encode("utf-8", "replace")
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.sendto(data, socket.MSG_DONTWAIT, self._address)
                self._owed.clear()
            except OSError:
                pass                    # full, or the manager is just starting anew

    def status(self, line, **said):
        """What `systemctl status` shows, in any text; sent when it is another than before."""
        line = printable(line).encode("utf-8", "replace")[:STATUS_BYTES].decode("utf-8", "ignore")
        if line != self._status or said:
            self._status = line
            self.tell(**said, STATUS=line)

    def failed(self, error):
        """Why this does not start: the TelError, and the number of the OSError that led to it."""
        number = getattr(error.__context__, "errno", None)
        self.status(str(error), **({"ERRNO": number} if number else {}))

    def alive(self):
        self.tell(WATCHDOG="1")


def listeners(environ=os.environ):
    """The listening stream sockets that a service manager hands in: [socket], not blocking, closed on exec.

    Their variables are taken out of environ.  Raises TelError for any that cannot be served.
    """
    count, pid, *_ = (environ.pop(name, "") for name in _LISTEN)
    if not count or pid != str(os.getpid()):        # meant for another process
        return []
    if not (count.isascii() and count.isdigit() and len(count) < 5 and int(count) <= LISTENERS_MOST):
        raise UsageError(f"LISTEN_FDS={printable(count)}: a whole number, at most {LISTENERS_MOST}")
    found = []
    try:
        for descriptor in range(_FIRST, _FIRST + int(count)):
            found.append(_handed_in(descriptor))
    except BaseException:
        for each in found:
            each.close()
        raise
    return found


def _handed_in(descriptor):
    try:
        os.set_inheritable(descriptor, False)
        made = socket.socket(fileno=descriptor)
    except OSError as error:
        raise TelError(f"descriptor {descriptor}, handed in by the service manager, is no socket ({error.strerror}): name it in a "
                       ".socket unit, as ListenStream=127.0.0.1:8888") from None
    try:
        if made.type == socket.SOCK_DGRAM:
            raise TelError(f"a datagram socket is handed in ({place(made)}): the telemetry socket is never taken from the service "
                           "manager, since while it holds the socket and this is down, everybody who sends waits as soon as the queue "
                           "is full; take ListenDatagram= out of the .socket unit, --listen binds it")
        if made.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) or made.type != socket.SOCK_STREAM:
            raise TelError(f"descriptor {descriptor}, handed in by the service manager, is no stream socket: name it as "
                           "ListenStream=127.0.0.1:8888 or ListenStream=/run/modwsgi-tel/http.sock")
        if not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise TelError(f"a connection is handed in ({place(made)}), not a listening socket: set Accept=no in the .socket unit")
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def place(listener):
    """Where a socket listens, as text: unix:/path, unix:@name or http://host:port."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        name = os.fsdecode(address)
        return "unix:" + ("@" + name[1:] if name.startswith("\0") else name)
    if isinstance(address, tuple) and len(address) >= 2:
        return f"http://[{address[0]}]:{address[1]}" if ":" in address[0] else f"http://{address[0]}:{address[1]}"
    return "of another family"
