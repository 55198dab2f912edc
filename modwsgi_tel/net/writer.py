"""A helper process that writes files: a disk that hangs must not make the collector hang.

It is forked before any socket is bound, gets messages over a socketpair and ends at its end.
What it cannot take in time is dropped here and counted.
"""
import os
import signal
import socket
import struct
import zlib

from modwsgi_tel.errors import TelError
from modwsgi_tel.net.helper import become_helper
from modwsgi_tel.wire import blocks

_HEAD = struct.Struct("<cI")
RECORD, LOG, REOPEN = b"R", b"L", b"O"
HELD_LIMIT = 8 << 20                    # bytes that may wait for the helper


class Writer:
    """Appends to a record file and to a log file in a process of its own.

    Raises TelError when a file cannot be opened now.  `lost` counts messages that were dropped
    because the helper did not keep up or has ended, `unwritten` those that it could not write;
    `trouble` is what it complains of now.
    """

    def __init__(self, record=None, record_size=0, log=None):
        files = _Files(record, record_size, log)
        ours, theirs = socket.socketpair()
        self.lost = self.lost_bytes = 0
        self.unwritten = 0
        self.trouble = ""
        self._held = bytearray()
        self._socket = ours
        self._loop = None
        self.pid = os.fork()
        if not self.pid:
            try:
                ours.close()
                become_helper((theirs.fileno(), *files.descriptors()))
                signal.signal(signal.SIGTERM, signal.SIG_IGN)       # it ends when we do, with all that we sent
                files.serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        files.close()
        ours.setblocking(False)

    def join(self, loop):
        self._loop = loop
        loop.readers[self._socket.fileno()] = self._complaint

    def send(self, kind, data=b""):
        if self._socket is None or len(self._held) + len(data) > HELD_LIMIT:
            self.lost += 1
            self.lost_bytes += len(data)
            return
        self._held += _HEAD.pack(kind, len(data)) + data
        self._flush()

    def _flush(self):
        try:
            while self._held:
                del self._held[:self._socket.send(self._held[:1 << 16])]
        except BlockingIOError:
            pass
        except OSError:
            self._ended()
            return
        if self._loop is not None:
            if self._held:
                self._loop.writers[self._socket.fileno()] = self._flush
            else:
                self._loop.writers.pop(self._socket.fileno(), None)

    def _complaint(self):
        try:
            got = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got:
            count, _, self.trouble = got.decode("utf-8", "replace")[:-1].rpartition("\n")[2].partition(" ")
            self.unwritten = int(count) if count.isdigit() else self.unwritten
        else:
            self._ended()

    def _ended(self):
        if self._socket is None:
            return
        self.trouble = self.trouble or "the helper that writes files has ended"
        if self._held:
            self.lost += 1
            self.lost_bytes += len(self._held)
            self._held.clear()
        self._forget()

    def _forget(self):
        if self._loop is not None:
            self._loop.readers.pop(self._socket.fileno(), None)
            self._loop.writers.pop(self._socket.fileno(), None)
        self._socket.close()
        self._socket = None

    def close(self, limit_s=5.0):
        """Give the helper what is left and wait for its end, at most so long."""
        if self._socket is not None:
            self._socket.settimeout(limit_s)
            try:
                self._socket.sendall(self._held)
            except OSError:
                self.lost += 1
                self.lost_bytes += len(self._held)
            self._held.clear()
            self._forget()
        previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(self.pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


class _Files:
    """The helper's side: the files themselves."""

    def __init__(self, record, record_size, log):
        self._record_path = os.path.abspath(record) if record else None
        self._record_half = record_size // 2
        self._log_path = os.path.abspath(log) if log else None
        self._record = _opened(self._record_path, "--record", gzip=True) if record else None
        self._log = _opened(self._log_path, "--log-file") if log else None

    def descriptors(self):
        return [descriptor for descriptor in (self._record, self._log) if descriptor is not None]

    def close(self):
        for descriptor in self.descriptors():
            os.close(descriptor)

    def serve(self, connection):
        """Take messages until there are no more; tell what goes wrong: how many could not be written, and why now."""
        held, unwritten, troubles = bytearray(), 0, {}
        while True:
            got = connection.recv(1 << 16)
            if not got:
                return
            held += got
            while len(held) >= _HEAD.size:
                kind, size = _HEAD.unpack_from(held)
                if len(held) < _HEAD.size + size:
                    break
                data = bytes(held[_HEAD.size:_HEAD.size + size])
                del held[:_HEAD.size + size]
                flag = f"--record {self._record_path}" if kind == RECORD else f"--log-file {self._log_path}"
                try:
                    self._take(kind, data)
                    if troubles.pop(flag, None) is None:
                        continue
                except TelError as error:
                    troubles[flag] = str(error)
                    unwritten += kind != REOPEN
                except OSError as error:
                    troubles[flag] = f"{flag}: {error.strerror}"
                    unwritten += kind != REOPEN
                try:
                    connection.send(f"{unwritten} {'; '.join(troubles.values())}\n".encode("utf-8", "replace")[-2000:])
                except OSError:
                    pass                # it is about to end, and has sent what is still to be written

    def _take(self, kind, data):
        if kind == RECORD:
            size = os.fstat(self._record).st_size
            if size + len(data) > self._record_half:
                try:
                    os.replace(self._record_path, self._record_path + ".1")
                except FileNotFoundError:
                    pass                # somebody moved it away
                fresh = _opened(self._record_path, "--record", gzip=True)
                os.close(self._record)
                self._record, size = fresh, os.fstat(fresh).st_size
            try:
                _write(self._record, data)
            except OSError:
                _cut(self._record, size)
                raise
        elif kind == LOG:
            _write(self._log, data)
        elif kind == REOPEN and self._log_path:
            fresh = _opened(self._log_path, "--log-file")
            os.close(self._log)
            self._log = fresh


def writable(record=None, log=None):
    """Raises TelError where a Writer would; creates nothing."""
    for path, flag in ((record, "--record"), (log, "--log-file")):
        if path and (os.path.lexists(path) or not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK)):
            os.close(_opened(path, flag, path == record, create=0))


def _opened(path, flag, gzip=False, create=os.O_CREAT):
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | create, 0o640)
    except OSError as error:
        raise TelError(f"{flag} {path}: {error.strerror}") from None
    if gzip and os.fstat(descriptor).st_size and not _is_capture(descriptor):
        os.close(descriptor)
        raise TelError(f"{flag} {path}: is there and no packed capture; nothing is written over it, choose another name")
    return descriptor


def _write(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]


def _cut(descriptor, size):
    """Back to what was whole: behind half a block nothing could be read any more."""
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        pass                            # no file, or a disk that is gone


def _is_capture(descriptor):
    """Whether a file begins with a packed record, or with the beginning of one."""
    unpacker = zlib.decompressobj(31)
    try:
        raw = unpacker.decompress(os.pread(descriptor, 1 << 16, 0), blocks.RECORD.size)
    except (OSError, zlib.error):
        return False
    if len(raw) < blocks.RECORD.size:
        return not raw and not unpacker.eof
    wall, _, length = blocks.RECORD.unpack(raw)
    return 0 <= wall < 1e11 and length <= blocks.MAX_DATAGRAM
