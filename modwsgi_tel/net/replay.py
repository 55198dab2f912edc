"""Sending datagrams to a collector at their own pace: recordings, and streams that are made up.

mod_wsgi sends each datagram with an unconnected sendto() that blocks while the receiver's
queue is full, and drops it without a word when nobody listens.  So does this, but it waits
only so long, and counts what it dropped.

A collector knows senders by the kernel's credentials.  So a recording is sent by as many
processes as it was recorded from: the parent reads, keeps the pace and hands one datagram
at a time to the child that stands for its sender, and goes on when the child has sent it.
"""
import errno
import heapq
import math
import os
import signal
import socket
import struct
import time
from contextlib import ExitStack, contextmanager

from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.wire import blocks

PATIENCE_S = 5.0                        # how long a full queue is waited for
SENDERS_MOST = 256                      # processes of one replay
LONGEST_GAP_S = 86400.0                 # a longer one is a clock that was set
PROGRESS_S = 10.0
LOOK_S = 0.2                            # between two looks for a collector that is waited for

_WAITED = struct.Struct("<d")
_START = "start the collector first (modwsgi-tel serve --listen unix:{path})"
_HINTS = {errno.ENOENT: _START, errno.ECONNREFUSED: _START, errno.EACCES: "ask for write permission on it",
          errno.EPROTOTYPE: "a datagram socket is needed"}


def describe(counts):
    """One line for what `replay` and `simulate_to` return."""
    return (f"{counts['sent']} datagrams sent in {counts['seconds']:.1f} s by {counts['senders']} "
            f"{'process' if counts['senders'] == 1 else 'processes'}, {counts['dropped']} dropped, "
            f"{counts['waited_s']:.1f} s spent waiting for the collector")


def paced(items, speed=1.0, clock=time.monotonic, sleep=time.sleep):
    """Yield the items when their time has come: item[0] is seconds since whenever, not falling.

    speed: 1.0 is real time, N that many times faster, None does not wait at all.  Who is late
    does not wait until it has caught up.  A step back, one of more than LONGEST_GAP_S or
    a time that is no number takes no time.
    """
    origin = last = None                # of the clock, of the items
    for item in items:
        at = item[0]
        if speed is not None and math.isfinite(at):
            if origin is None:
                origin, last = clock() - at / speed, at
            if not 0 <= at - last <= LONGEST_GAP_S:
                origin -= (at - last) / speed
            last = at
            early = origin + at / speed - clock()
            if early > 0:
                sleep(early)
        yield item


class Target:
    """A collector's socket as a sender sees it; `waited_s` is the time spent on a full queue."""

    def __init__(self, path, patience_s=PATIENCE_S, clock=time.monotonic):
        self.path = path
        self.waited_s = 0.0
        self._patience_s = patience_s
        self._clock = clock
        self._socket = _datagram_socket()
        # not settimeout(): poll() calls an unconnected socket writable even when its receiver is full
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                                struct.pack("@ll", int(patience_s), int(patience_s % 1 * 1e6)))

    def absent(self):
        """Why nobody would receive now, as (errno, text), or None; nothing is sent."""
        with _datagram_socket() as probe:
            try:
                probe.connect(self.path)
            except OSError as error:
                return error.errno, os.strerror(error.errno)

    def send(self, datagram):
        """Send one datagram, waiting for room; None, or why it was dropped."""
        try:
            self._socket.sendto(datagram, socket.MSG_DONTWAIT, self.path)
            return None
        except BlockingIOError:
            pass
        except OSError as error:
            return os.strerror(error.errno)
        began = self._clock()
        try:
            self._socket.sendto(datagram, self.path)
            return None
        except BlockingIOError:
            return f"no room in its queue for {self._patience_s:g} s"
        except OSError as error:
            return os.strerror(error.errno)
        finally:
            self.waited_s += self._clock() - began

    def close(self):
        self._socket.close()


def _datagram_socket():
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, blocks.MAX_DATAGRAM)     # so that any record fits
    return opened


def simulate_to(path, items, speed=1.0, wait=False, say=lambda line: None, progress=None, clock=time.monotonic,
                sleep=time.sleep, patience_s=PATIENCE_S):
    """Send (at_s, datagram) items to the socket at `path`, from this process, until they end.

    wait: wait for a collector to appear; otherwise one that is absent at the start raises
    TelError.  Later on datagrams are dropped while it is away.  say(line): what the user should
    know; progress(line): one line each 10 s.

    Returns {"sent", "dropped", "waited_s", "senders", "seconds"}; says the same when an exception
    (KeyboardInterrupt) ends it.
    """
    target = Target(path, patience_s, clock)
    try:
        _arrive(target, wait, sleep, say)

        def give(item):
            before = target.waited_s
            return target.send(item[1]), target.waited_s - before
        return _drive(paced(items, speed, clock, sleep), give, lambda: 1, path, clock, say, progress)
    finally:
        target.close()


def replay(files, path, speed=1.0, wait=False, say=lambda line: None, progress=None, clock=time.monotonic,
           sleep=time.sleep, patience_s=PATIENCE_S, most=SENDERS_MOST):
    """Send capture files (names) to the socket at `path`, merged by the time they were received.

    Every captured sender pid gets a process of its own, up to `most`; pids beyond share them,
    which is said.  Records are sent as they are, even when they are no datagrams of mod_wsgi.
    The rest as in `simulate_to`.  While it runs SIGTERM raises SystemExit, unless it had a handler.

    Raises TelError for a file that cannot be opened, before anything is sent, and Nonsense for one
    that is not whole, after all that can be read has been sent.
    """
    target = Target(path, patience_s, clock)
    try:
        _arrive(target, wait, sleep, say)
    finally:
        target.close()
    broken = []
    with ExitStack() as stack:
        readers = [_records(stack.enter_context(_open(name)), name, broken) for name in files]
        stack.enter_context(_sigterm_unwinds())
        senders = stack.enter_context(_Senders(path, patience_s, most, say))
        items = paced(heapq.merge(*readers, key=lambda item: item[0]), speed, clock, sleep)
        counts = _drive(items, senders.give, lambda: len(senders), path, clock, say, progress)
    if broken:
        say(describe(counts))
        raise Nonsense("; ".join(broken))
    return counts


def _arrive(target, wait, sleep, say):
    absent = target.absent()
    if absent and not wait:
        hint = _HINTS.get(absent[0], _START).format(path=target.path)
        raise TelError(f"cannot send to unix:{target.path}: {absent[1]}: {hint}")
    if absent:
        say(f"waiting for a collector on unix:{target.path}: {absent[1]}")
    while absent:
        sleep(LOOK_S)
        absent = target.absent()


def _drive(items, give, senders, path, clock, say, progress):
    """Give every item away; give(item) is (why it was dropped or None, seconds waited)."""
    counts = {"sent": 0, "dropped": 0, "waited_s": 0.0, "senders": 0, "seconds": 0.0}
    known = set()                       # reasons that were said; there are only as many as errors of the kernel
    began = shown = clock()
    whole = False
    try:
        for item in items:
            why, waited = give(item)
            counts["sent" if why is None else "dropped"] += 1
            counts["waited_s"] += waited
            if why is not None and why not in known:
                known.add(why)
                say(f"cannot send to unix:{path}: {why}: such datagrams are dropped and counted")
            if progress and clock() - shown >= PROGRESS_S:
                shown = clock()
                counts.update(senders=senders(), seconds=shown - began)
                progress(describe(counts))
        whole = True
    finally:
        counts.update(senders=senders(), seconds=clock() - began)
        if not whole:
            say(describe(counts))
    return counts


def _open(name):
    try:
        return open(name, "rb")
    except OSError as error:
        raise TelError(f"cannot read {name}: {error.strerror}") from None


def _records(handle, name, broken):
    """The records of one file; where it is not whole it ends, and `broken` gets a line."""
    number = 0
    try:
        for item in blocks.read(handle, name):
            yield item
            number += 1
    except Nonsense as error:
        broken.append(f"{error}; the {number} records before that were sent")
    except OSError as error:
        broken.append(f"cannot read {name}: {error.strerror}; the {number} records before that were sent")


@contextmanager
def _sigterm_unwinds():
    def leave(number, frame):
        raise SystemExit(128 + number)
    ours = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    try:
        if ours:
            signal.signal(signal.SIGTERM, leave)
    except ValueError:                  # not the main thread
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


# --- one process for each captured sender -------------------------------------

class _Senders:
    """Child processes by the pid they stand for; leaving the context ends and reaps them all."""

    def __init__(self, path, patience_s, most, say):
        self._path, self._patience_s, self._most, self._say = path, patience_s, most, say
        self._children = {}             # captured pid -> (socket, pid of the child)
        self._order = []                # captured pids that have a child, in the order they came
        self._shared = False

    def __len__(self):
        return len(self._order)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        with _signals_wait():
            for pid in list(self._children):
                self._end(pid, kill=kind is not None)

    def give(self, item):
        """Have one record (time, pid, datagram) sent; (why it was dropped or None, seconds waited)."""
        pid = self._stand_in(item[1])
        pair, _ = self._children[pid]
        try:
            pair.send(b"\0" + item[2])  # never empty, for that would look like the end
            answer = pair.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        except OSError as error:        # larger than this kernel lets anyone send
            return os.strerror(error.errno), 0.0
        if not answer:
            with _signals_wait():
                self._end(pid, kill=True)
            return "its sending process was ended from outside", 0.0
        return answer[_WAITED.size:].decode() or None, _WAITED.unpack_from(answer)[0]

    def _stand_in(self, pid):
        """The captured pid whose child sends for this one; it has a child afterwards."""
        if pid in self._children:
            return pid
        if pid not in self._order and len(self._order) >= self._most:
            self._share(pid, f"more than {self._most} senders")
            pid = self._order[pid % len(self._order)]
        if pid not in self._children:
            try:
                self._fork(pid)
            except OSError as error:
                if not self._children:
                    raise TelError(f"cannot start a process to send from: {error.strerror}") from None
                self._share(pid, error.strerror)
                pid = list(self._children)[pid % len(self._children)]
        return pid

    def _share(self, pid, why):
        if not self._shared:
            self._shared = True
            self._say(f"{why}: pid {pid} of the recording and further ones share the processes of others")

    def _fork(self, pid):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, blocks.MAX_DATAGRAM + 1)
        with _signals_wait() as mask:
            try:
                child = os.fork()
            except OSError:
                ours.close()
                theirs.close()
                raise
            if not child:
                _stand_for_a_sender(theirs, self._path, self._patience_s, mask)
            theirs.close()
            self._children[pid] = ours, child
            if pid not in self._order:
                self._order.append(pid)

    def _end(self, pid, kill):
        pair, child = self._children.pop(pid)
        pair.close()
        try:
            if kill and os.waitpid(child, os.WNOHANG) == (0, 0):
                os.kill(child, signal.SIGKILL)          # it may be waiting for room
                os.waitpid(child, 0)
            elif not kill:
                os.waitpid(child, 0)
        except ChildProcessError:       # somebody ignores SIGCHLD: the kernel has reaped it
            pass


@contextmanager
def _signals_wait():
    """Between fork and note, and while ending, a signal would leave a child behind."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _stand_for_a_sender(pair, path, patience_s, mask):
    """The life of a child: send what comes, answer, end when the parent is gone.  Does not return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)            # the terminal sends it to all; the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _keep_only(pair.fileno())
        target = Target(path, patience_s)
        while True:
            message = pair.recv(blocks.MAX_DATAGRAM + 1)
            if not message:
                break
            before = target.waited_s
            why = target.send(message[1:])
            pair.send(_WAITED.pack(target.waited_s - before) + (why or "").encode())
    except OSError:
        pass                            # the parent is gone: nobody is left to tell
    finally:
        os._exit(0)


def _keep_only(kept):
    """Close every descriptor but `kept`; the three standard ones lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        if number != kept:
            os.dup2(nowhere, number)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = range(3, 4096)
    for number in numbers:
        if number > 2 and number != kept:
            try:
                os.close(number)
            except OSError:
                pass                    # listdir's own
