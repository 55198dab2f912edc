"""stack-helper: reads stacks for a collector that should not hold CAP_SYS_PTRACE itself.

Over a unix stream socket: one line {"pid", "start", "uid", "gid"} in, an answer of `onetake.take` out, then the connection ends.
Each read is done by a process of its own, so that a wrong one hurts nothing else.  Who may ask: root, the service's own
user and those of --allow-uid.  What may be read: Apache's processes, but for root's, and processes of --for-uid.
"""
import json
import os
import pwd
import signal
import socket
import struct

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net import systemd
from modwsgi_tel.net.datagram import BoundPath, group_id, unix_path
from modwsgi_tel.net.helper import Helper
from modwsgi_tel.net.log import Log
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.onetake import take
from modwsgi_tel.options import STACKS_SOCKET
from modwsgi_tel.proc.access import exists, lacking
from modwsgi_tel.stacks.model import AWAY, FAILED, GONE, REFUSED

LIMIT_S = 5.0                           # for one read; then the process that reads is killed
CONNECTIONS = 16
LINE_BYTES = 256
ASK_S = 5.0                             # for the line to arrive, and for the answer to be taken
_BACKLOG = 16
_ASKED = ("pid", "start", "uid", "gid")
_ADD = "in its unit add AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"
_PEER = struct.Struct("3i")             # struct ucred of SO_PEERCRED


def uid_of(name, flag):
    """The uid of a user's name or number.  Raises UsageError."""
    if name.isascii() and name.isdigit() and len(name) <= 10:
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError(f"{flag} {name}: no such user; getent passwd lists them") from None


def question_of(line):
    """(pid, start, uid, gid) of a line.  Raises ValueError."""
    asked = json.loads(line)
    question = tuple(asked[name] for name in _ASKED) if isinstance(asked, dict) and set(_ASKED) <= set(asked) else ()
    if not question or not all(type(each) is int and 0 <= each < 1 << 63 for each in question) or not question[0]:
        raise ValueError('ask {"pid": N, "start": clock ticks, "uid": N, "gid": N}')
    return question


def _read(question, read_of):
    """An answer, as `onetake.take`; that a process has ended is not said of one that this merely cannot see."""
    answer = take(question, read_of)
    hidden = _hidden(question[0]) if answer.get("kind") == GONE else ""
    return {"error": hidden, "kind": REFUSED} if hidden else answer


def _hidden(pid):
    """Why a process that is there is not in this /proc, or ""."""
    if os.path.exists(f"/proc/{pid}") or not exists(pid):
        return ""
    try:
        lacks = lacking()
    except (OSError, KeyError, ValueError):
        return ""
    return (f"process {pid} is not visible to uid {os.geteuid()}: its /proc hides other users' processes (hidepid, ProtectProc=), and it has "
            f"{lacks}; {_ADD}" if "CAP_SYS_PTRACE" in lacks else "")


class Service:
    """Bound, and served by `loop`.  Raises TelError when it cannot be bound.

    handed: a listening socket that a service manager opened, instead of `path`; where it is stays when this ends.
    """

    def __init__(self, loop, log, path, mode=0o660, group=None, allow=(), read_of=(), rate=10.0, handed=None):
        self.loop, self.log = loop, log
        self.allow = frozenset((0, os.geteuid(), *allow))
        self.read_of = tuple(read_of)
        self.connections = set()
        self.answered = self.turned_away = 0
        self._rate, self._free = rate, rate         # a bucket of at most a second's reads
        self._filled_now = loop.clock()
        self._bound = None if handed else BoundPath(path, mode, group, type_=socket.SOCK_STREAM)
        self._listener = handed or self._bound.socket
        self._listener.listen(_BACKLOG)
        loop.readers[self._listener.fileno()] = self._accept

    def _accept(self):
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = _PEER.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in self.allow or len(self.connections) >= CONNECTIONS:
            if uid not in self.allow:
                self.log.once_in(60, uid, "WARNING", f"uid {uid} may not ask: start this with --allow-uid {uid}")
            self.turned_away += 1
            accepted.close()
            return
        accepted.setblocking(False)
        self.connections.add(_Connection(self, accepted))

    def may_read(self):
        """Take one read out of the bucket, if there is one."""
        now = self.loop.clock()
        self._free = min(max(1.0, self._rate), self._free + (now - self._filled_now) * self._rate)
        self._filled_now = now
        if self._free < 1.0:
            return False
        self._free -= 1.0
        return True

    def close(self):
        for connection in list(self.connections):
            connection.close()
        self.loop.readers.pop(self._listener.fileno(), None)
        self._listener.close()
        if self._bound is not None:
            self._bound.close()


class _Connection:
    """One question and its answer."""

    def __init__(self, service, accepted):
        self._service, self._socket = service, accepted
        self._fd = accepted.fileno()
        self._helper = Helper(service.loop, LIMIT_S)
        self._line, self._out, self._open = b"", None, True
        service.loop.readers[self._fd] = self._readable
        service.loop.after(ASK_S, lambda: self._out is None and not self._helper.busy and self.close())
        service.loop.after(LIMIT_S + 2 * ASK_S, self.close)

    def _readable(self):
        try:
            part = self._socket.recv(LINE_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.close()                # nobody waits for the answer any more
            return
        if self._out is not None or self._helper.busy:
            return                      # it asks one thing
        self._line += part
        if b"\n" in self._line:
            self._ask(self._line.partition(b"\n")[0])
        elif len(self._line) > LINE_BYTES:
            self._answer({"error": f"a line of more than {LINE_BYTES} bytes", "kind": FAILED})

    def _ask(self, line):
        service = self._service
        try:
            question = question_of(line)
        except (ValueError, RecursionError) as error:
            self._answer({"error": f"not a question: {error}", "kind": FAILED})
            return
        if not service.may_read():
            self._answer({"error": f"more than {service._rate:g} reads a second: --stacks-rate bounds them", "kind": AWAY})
            return
        self._helper.ask(lambda asked: _read(asked, service.read_of), question, self._answer)

    def _answer(self, answer):
        service = self._service
        if not self._open:
            return
        if answer is None:
            answer = {"error": f"the process that read died, or took longer than {LIMIT_S:g} s", "kind": FAILED}
        service.answered += 1
        self._out = memoryview(json.dumps(answer).encode())
        service.loop.writers[self._fd] = self._writable

    def _writable(self):
        try:
            self._out = self._out[self._socket.send(self._out):]
        except BlockingIOError:
            return
        except OSError:
            self._out = self._out[:0]
        if not self._out:
            self.close()

    def close(self):
        if self._open:
            self._open = False
            self._helper.close()
            self._service.loop.readers.pop(self._fd, None)
            self._service.loop.writers.pop(self._fd, None)
            self._service.connections.discard(self)
            self._socket.close()


def _say_what_is_lacking(log):
    try:
        lacks = lacking()
    except (OSError, KeyError, ValueError):
        return                          # each answer will say it
    if lacks:
        log.warning(f"this has {lacks}: at most processes of its own user can be read; {_ADD}")


def handed_in():
    """The unix socket that a service manager hands in, or None.  Raises TelError for anything else."""
    handed = systemd.listeners()
    if len(handed) > 1 or any(each.family != socket.AF_UNIX for each in handed):
        raise UsageError("the service manager is to hand in one unix socket, as ListenStream=/run/modwsgi-tel-stacks/stacks.sock: who asks is "
                         f"known by the kernel's word; it hands in {', '.join(map(systemd.place, handed))}")
    return handed[0] if handed else None


def stack_helper(values):
    """Serve until SIGTERM or SIGINT; the exit status."""
    manager = systemd.Notifier()
    try:
        return _serve(values, manager)
    except TelError as error:
        manager.failed(error)
        raise


def _serve(values, manager):
    # the variable for it is serve's too, and names another socket
    path = unix_path(values.listen if values.meant("listen") else STACKS_SOCKET)
    group = group_id(values.socket_group) if values.socket_group else None
    allow = [uid_of(name, "--allow-uid") for name in values.allow_uid]
    read_of = [uid_of(name, "--for-uid") for name in values.for_uid]
    loop, log = Loop(), Log(values.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, loop.stop)
    service = None
    try:
        handed = handed_in()
        service = Service(loop, log, path, values.socket_mode, group, allow, read_of, values.stacks_rate, handed)
        log.info("reads stacks for who asks on " + (systemd.place(handed) + ", handed in by the service manager" if handed else f"unix:{path}"))
        _say_what_is_lacking(log)
        if manager.watchdog_s:
            loop.every(manager.watchdog_s / 2, manager.alive)
        if manager.listens:
            loop.every(1.0, manager.again, slack_s=0.3)
        loop.after(0.0, lambda: manager.status("reads stacks for who asks", READY="1"))
        loop.run()
        manager.status("stops", STOPPING="1")
        log.info(f"stopped; answered {service.answered}, turned away {service.turned_away}")
    finally:
        if service is not None:
            service.close()
        loop.close()
    return 0
