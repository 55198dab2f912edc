"""dump --listen: every datagram as it comes, as a line of text or JSON."""
import json
import os
import signal
import sys
import time

from modwsgi_tel.errors import Unwritable, UsageError, WireError
from modwsgi_tel.net.datagram import BoundPath, Receiver, group_id, unix_path
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.printable import printable, printable_json
from modwsgi_tel.state.fleet import CREDENTIALS
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import kind_name
from modwsgi_tel.wire.shapes import finite

_SNAPSHOT_ONLY = ("output", "keep")


class _Out:
    """Lines to stdout from inside the loop: what its reader does not take in time is dropped and counted."""

    HELD = 4 << 20
    PIECE = 4096                        # a pipe that select() finds writable takes so much without blocking

    def __init__(self, loop, descriptor):
        self.loop, self.descriptor, self.lost, self._held = loop, descriptor, 0, bytearray()

    def line(self, shown):
        if len(self._held) > self.HELD:
            self.lost += 1
            return
        self._held += shown.encode("utf-8", "replace") + b"\n"
        self.loop.writers[self.descriptor] = self._write

    def _write(self, most=PIECE):
        try:
            del self._held[:os.write(self.descriptor, self._held[:most])]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(error) from None
        if not self._held:
            self.loop.writers.pop(self.descriptor, None)

    def finish(self):
        while self._held:
            self._write(len(self._held))


def listen(values):
    """Bind the socket and print each datagram; the exit status."""
    values.refuse(_SNAPSHOT_ONLY, "goes without --listen")
    shown = {"text": _datagram_text, "json": _datagram_json, "jsonl": _datagram_json}.get(values.format)
    if shown is None:
        raise UsageError(f"--format {values.format}: with --listen it is text, json or jsonl")
    bound = BoundPath(unix_path(values.listen), values.socket_mode,
                      group_id(values.socket_group) if values.socket_group else None)
    loop = Loop()
    try:
        out, seen = _Out(loop, sys.stdout.fileno()), [0]

        def take(datagram, sender, now, wall, read=decode):
            if values.count is not None and seen[0] >= values.count:
                return
            seen[0] += 1
            out.line(shown(datagram, CREDENTIALS.unpack(sender)[0], wall, read))
            if seen[0] == values.count:
                loop.stop()

        def too_long(head, sender, wall):
            take(head, sender, None, wall, _refuse_long)

        loop.set_first(bound.socket.fileno(), Receiver(bound, take, too_long).drain)
        for number_ in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number_, loop.stop)
        if values.duration is not None:
            loop.after(values.duration, loop.stop)
        loop.run()
        bound.close()                   # first, so that no emitter waits for our reader
        out.finish()
        if out.lost:
            sys.stderr.write(f"modwsgi-tel: {out.lost} datagrams not shown: stdout was not read fast enough\n")
    finally:
        bound.close()
        loop.close()
    return 0


def _refuse_long(head):
    raise WireError("too_long", "more bytes than the buffer has")


def _datagram_text(datagram, sender, wall, read):
    head = time.strftime("%H:%M:%S", time.localtime(wall)) + f".{int(wall % 1 * 1000):03d} from {sender}"
    try:
        sample = read(datagram)
    except WireError as error:
        return f"{head} WRONG ({error.reason}): {printable(str(error))} {datagram[:64].hex()}"
    fields = " ".join(f"{name}={_shown(value)}" for name, value in sample.fields.items())
    return f"{head} {kind_name(sample.kind)} pid={sample.pid} seq={sample.seq} {fields}"


def _shown(value):
    if isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False)) if not value.isalnum() else value
    if isinstance(value, list):
        return "[" + ",".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _datagram_json(datagram, sender, wall, read):
    row = {"received": wall, "sender_pid": sender}
    try:
        sample = read(datagram)
    except WireError as error:
        return printable_json({**row, "error": error.reason, "detail": str(error), "bytes": datagram.hex()})
    return printable_json(finite({**row, "kind": kind_name(sample.kind), "pid": sample.pid, "seq": sample.seq,
                               "stamp": sample.stamp, "fields": sample.fields}))
