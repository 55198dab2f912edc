"""Dumps of all threads: sent to the collector as a record for each thread, or written to the log as text.

The collector's queue holds ten datagrams, unless the system was told otherwise: a few threads are sent in a turn, and what finds it
full is sent again, until the collector would no longer wait for the rest.
"""
import time
from collections import deque

from modwsgi_tel.agent.journal import lines
from modwsgi_tel.agent.long import VALUES_MOST, known
from modwsgi_tel.wire.fields import THREAD_STACK

WAITING_MOST = 8                        # dumps that wait to be sent
THREADS_MOST = 256
FRAMES_MOST = 400                       # as of a request's stack
TURN_MOST, PAUSE_S = 4, 0.01            # threads that are sent in a turn; between two turns
SENT_WITHIN_S = 1.5                     # the collector shows after two what has come


class _Sending:
    """A dump on its way; sent: how many of its threads are."""

    def __init__(self, stacks, reason, stamp, number, now):
        self.stacks, self.reason, self.stamp, self.number = stacks, reason, stamp, number
        self.threads, self.sent = stacks.threads[:THREADS_MOST], 0
        self.until = now + SENT_WITHIN_S


class Dumps:
    """`add` comes from any thread; the monitor sends."""

    def __init__(self, requests, sender, locations, settings, journal):
        self._requests, self._sender, self._locations, self._settings, self._journal = requests, sender, locations, settings, journal
        self._waiting = deque(maxlen=WAITING_MOST)
        self._sending, self._again = None, 0.0
        self.number = 0
        self.lost = 0

    def add(self, stacks, reason):
        """Keep a stacks.model.Stacks until it is sent."""
        if len(self._waiting) == WAITING_MOST:
            self.lost += 1
        self._waiting.append((stacks, reason, time.time()))

    def due(self):
        return self._again if self._sending is not None else 0.0 if self._waiting else None

    def run(self, now):
        if self._sending is None:
            self.number += 1
            self._sending = _Sending(*self._waiting.popleft(), self.number, now)
        dump = self._sending
        for thread in dump.threads[dump.sent:dump.sent + TURN_MOST]:
            if not self._tell(thread, dump):
                break
            dump.sent += 1
        whole = dump.sent == len(dump.threads)
        self._again = now + PAUSE_S
        if not whole and now < dump.until and self._sender.connect():
            return
        self._sending = None
        if not whole or dump.reason == "signal":    # who sends a signal looks into the log
            self._journal.text(f"stacks of {len(dump.stacks.threads)} threads ({dump.reason})", self._shown(dump.stacks))

    def _tell(self, thread, dump):
        """Whether a thread was taken."""
        frames = [(frame.function, frame.file, frame.line) for frame in reversed(thread.frames)]
        left_out = max(0, len(frames) - FRAMES_MOST)
        if left_out:
            frames = frames[:FRAMES_MOST // 2] + frames[-FRAMES_MOST // 2:]
        numbers = self._locations.numbers(frames)
        if frames and not numbers:
            return False
        request = thread.request
        fields = {"dump_number": dump.number, "dump_reason": dump.reason, "dump_threads": len(dump.threads), "dump_stamp": dump.stamp,
                  "stack_tid": thread.tid, "stack_thread": thread.name, "stack_state": _state(thread), "stack_frames": numbers,
                  "stack_problem": thread.problem}
        if left_out:
            fields.update(stack_left_out=left_out, stack_cut_at=FRAMES_MOST // 2)
        if request is not None:
            fields.update(slow_log_id=request.request_id, slow_thread_id=request.thread_id, slow_method=request.method,
                          slow_path_info=request.path)
        if thread.values and self._settings.locals:
            fields["stack_values"] = _values(thread.values)
        return self._sender.offer(THREAD_STACK, known(fields))

    def text(self, stacks):
        """The stacks as text: threads with the same one together, those of no known request apart."""
        return "\n".join(self._shown(stacks)) + "\n"

    @staticmethod
    def _shown(stacks):
        groups = {}
        for thread in stacks.threads:
            groups.setdefault((thread.request is None, thread.frames, None if thread.request is None else thread), []).append(thread)
        out = []
        for (_, frames, _), members in sorted(groups.items(), key=lambda each: (each[0][0], -len(each[1]))):
            names = ", ".join(f"{thread.tid or '?'} {thread.name or ''}".strip() for thread in members[:8])
            request = members[0].request
            serves = f" serves {request.method or ''} {request.path or ''} ({request.request_id})" if request is not None else ""
            count = f"{len(members)} threads" if len(members) > 1 else "thread"
            out.append(f"{count} {names}{', ...' if len(members) > 8 else ''}{serves}{': ' + members[0].problem if members[0].problem else ''}")
            out += ["    " + each for each in lines([(frame.function, frame.file, frame.line) for frame in reversed(frames)])]
        return out


def _state(thread):
    return f"{thread.state} {thread.wait}" if thread.wait else thread.state


def _values(values):
    out, size = [], 0
    for depth, pairs in enumerate(values):
        for name, text in pairs:
            part = f"{depth}\0{name}\0{text}\0".encode("utf-8", "replace")
            size += len(part)
            if size > VALUES_MOST:
                return b"".join(out)
            out.append(part)
    return b"".join(out)
