"""What error logs tell of a time: events of the table kinds.KINDS, added up, with the place in the code where the lines give one.

    found, reasons = logfiles.of(parent_pid)
    reading = read(found, since_wall)

Lines of one thread belong together: the line that tells of an exception, its traceback, the exception; a crash and the
stack that faulthandler wrote before it; a request that ran too long and the stacks that mod_wsgi dumps then.
"""
import re
import time
from bisect import bisect_left
from collections import Counter, namedtuple

from modwsgi_tel.apache import kinds, logfiles, loglines
from modwsgi_tel.masking import masked

MOST_BYTES = 8 << 20
_MOST_RECORDS, _MOST_EVENTS = 20_000, 1000
_MOST_STREAMS, _MOST_FRAMES, _MOST_LINE, _MOST_TEXT = 4096, 200, 8192, 300
_MOST_PIDS, _MOST_PLACES, _MOST_NEAR = 20, 10, 100
_TOGETHER_S = 5.0                       # a crash and what its process and its clients left in the log

Event = namedtuple("Event", "at id severity level pid tid source group place function text count first pids places script")
Event.__doc__ = """What lines that say the same tell.  at, first: wall seconds of the last and the first; None where the log has no dates.
id, severity: of the Kind.  level: Apache's.  pid, tid: of the last; pids: of all, at most 20.  source: the log, as it is shown.
group: the daemon group, or "".  place: "file:line" of the innermost frame of the application, or ""; function: its name.
places: {place: count}, of all threads where more than one was told.  text: of the last, masked.  script: the WSGI script, or ""."""

Reading = namedtuple("Reading", "events counts lines skipped_bytes problems")
Reading.__doc__ = """events: by time.  counts: {id: how often}.  lines: read.  skipped_bytes: of the time asked for, but beyond the bound.
problems: lines of text."""

_LIBRARY = re.compile(r"/lib(?:64)?/(?:python\d|pypy)|/(?:site|dist)-packages/|^<")
_FRAME = re.compile(r'\s+File "([^"]{1,1000})", line (\d{1,9})(?:,? in (.{1,200}))?$')
_DUMPED = re.compile(r'(Thread -?\d+ executing|called from) file "([^"]{1,1000})", line (\d{1,9}), in (.{1,200}?)[,.]?$')
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]{0,200}(?:: .*)?$")
_CHAIN = ("The above exception was the direct cause", "During handling of the above exception")
_TRACEBACK = "Traceback (most recent call last):"
_GROUP = re.compile(r"(?:[Pp]rocess|process '[^']*',) (?:called )?'([^']{1,200})'"
                    r"|(?:complete|shutdown|expired) '([^']{1,200})'\.$")
_STARTING = re.compile(r"Starting (?:daemon )?process '([^']{1,200})'")
_OF_PID = re.compile(r"\bpid[ =:]{1,2}(\d{1,10})|uWSGI process (\d{1,10}) got")
_SCRIPT = re.compile(r"(?:script|file) '([^']{1,1000})'")
_ESCAPED = re.compile(rb"(?<!\\)(?:\\x[89a-f][0-9a-f])+")          # letters outside of ASCII, as ap_escape_errorlog_item writes them
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")
# An exception that left the application says more than that it did
_NAMED = ((re.compile(r"MemoryError\b"), "memory-error"),
          (re.compile(r"[\w.]+: .{0,100}(?:\[Errno 24\]|Too many open files)"), "too-many-files"),
          (re.compile(r"[\w.]+: .{0,100}(?:\[Errno (?:28|122)\]|No space left on device)"), "no-space"),
          (re.compile(r"[\w.]+: .{0,40}mod_wsgi (?:failed to write|request data read|client connection)"), "client-closed"))
_WITH_TRACEBACK = frozenset(("exception", "application-exit", "script-failed", "worker-boot", "thread-exception"))
_STOPS = frozenset(("request-timeout", "deadlock-timeout", "cpu-limit", "startup-timeout", "shutdown-timeout"))
_KILLED_FOR = frozenset(("worker-timeout", "cpu-limit"))     # what ends in SIGKILL, of which nothing else has to be told
_ABORTED = "handle_abort"               # gunicorn's handler of the signal that ends a worker which took too long


def read(logs, since_wall, most_bytes=MOST_BYTES):
    """The Reading of logfiles.Log's since then.  Raises nothing: what cannot be read is one of its problems.

    From their ends backwards, only as far as that time, and at most `most_bytes` of all.
    """
    gatherer, problems, lines, skipped, left = _Gatherer(), [], 0, 0, most_bytes
    for log in logs:
        tail = logfiles.tail(log, since_wall, left)
        problems += tail.problems
        left -= len(tail.data)
        skipped += tail.skipped_bytes
        lines += _take(gatherer, log.shown, tail, since_wall)
    events, counts = gatherer.events()
    if gatherer.dropped:
        problems.append(f"{gatherer.dropped} events were left out: there are too many of different kinds")
    return Reading(events, counts, lines, skipped, problems)


def _unescaped(found):
    """The bytes that a run of \\xNN stands for, where they are letters."""
    letters = bytes.fromhex(found.group().replace(b"\\x", b"").decode("ascii"))
    try:
        return letters if letters.decode("utf-8").isprintable() else found.group()
    except UnicodeDecodeError:
        return found.group()


def _take(gatherer, source, tail, since_wall):
    """Gives the lines of one log to the gatherer, with their times; how many there were.

    A line without a date is from between its neighbours.  What begins there has the time of the next: the last word of a process
    comes without a date, and the log of a quiet server may have its line before that from an hour ago.
    """
    dates = loglines.Dates(time.localtime(tail.modified).tm_year, tail.shift)
    gatherer.begin(source)
    lines, before, undated = 0, None, []

    def take_undated(at):
        if at is None and tail.dated or at is not None and at < since_wall:
            undated.clear()
        if before is not None and before < since_wall:          # the rest of what was told then
            while undated and (kinds.of(undated[0]) or kinds.BY_ID["traceback"]).id == "traceback":
                del undated[0]
        for each in undated:
            gatherer.take(each, at)
        undated.clear()

    for raw in tail.data.split(b"\n"):
        lines += 1
        line = loglines.parse(_ESCAPED.sub(_unescaped, raw[:_MOST_LINE].strip(b"\0\r")).decode("utf-8", "replace"), dates)
        if line.at is None:
            undated.append(line)
            continue
        if undated:
            take_undated(line.at)
        if line.at >= since_wall:
            gatherer.take(line, line.at)
        else:
            gatherer.learn(line)
        before = line.at
    take_undated(tail.modified if tail.dated else None)
    gatherer.end()
    return lines


class _Record:
    """One thing that happened, while its lines come in."""

    def __init__(self, kind, line, at, source):
        self.kind, self.at, self.source, self.level = kind, at, source, line.level
        self.text = f"{line.trouble}: {line.text}" if line.trouble else line.text
        self.script, self.tid = line.script, line.tid
        of_pid, group, script = _OF_PID.search(line.text), _GROUP.search(line.text), _SCRIPT.search(line.text)
        self.pid = int(of_pid.group(of_pid.lastindex)) if of_pid else line.pid
        self.group = group.group(group.lastindex) if group else line.group
        self.script = self.script or (script.group(1) if script else "")
        self.bare = line.code != "" or "WSGI script" in line.text       # the exception may come without a traceback
        self.place = self.function = ""
        self.places = Counter()

    def put(self, frames):
        """Where it was: frames with the innermost first."""
        found = _place(frames)
        if found:
            self.places[found] += 1
            self.place, self.function = self.places.most_common(1)[0][0]


def _place(frames):
    """("file:line", function) of the innermost frame of the application; of the innermost of all where there is none; None of nothing."""
    if not frames:
        return None
    file, line, function = next((frame for frame in frames if not _LIBRARY.search(frame[0])), frames[0])
    return f"{file}:{line}", function


class _Stream:
    """The lines of one thread.  mode: what may come next; "" when nothing is open."""

    def __init__(self):
        self.close()

    def close(self):
        self.record, self.mode, self.frames, self.exception, self.current = None, "", [], "", True

    def open(self, record, mode):
        self.record, self.mode, self.frames, self.exception, self.current = record, mode, [], "", True


class _Gatherer:
    """Takes lines in their order, gives events."""

    def __init__(self):
        self.records, self.dropped = [], 0
        self._stops, self._groups = {}, {}              # by pid: the last record that tells why it is stopped; its group
        self.begin("")

    def begin(self, source):
        self._source, self._streams, self._last = source, {}, None

    def end(self):
        for stream in self._streams.values():
            self._flush(stream)
        self._streams = {}

    # --- lines ---------------------------------------------------------------------------------

    def _stream(self, line):
        if line.at is None and line.pid is None and not line.level:     # as it is: behind gunicorn's line, or from C code
            key = self._last if self._last is not None and self._last[1] is None else None
        else:
            key = self._last = (line.pid, line.tid)
        if key not in self._streams and len(self._streams) >= _MOST_STREAMS:
            self.end()
        return self._streams.setdefault(key, _Stream())

    def take(self, line, at):
        stream = self._stream(line)
        if stream.mode and self._goes_on(stream, line):
            return
        kind = kinds.of(line)
        self.learn(line)
        if stream.mode == "await" and kind is not None and stream.record.kind.id == "script-failed" \
                and kind.id in ("exception", "application-exit"):
            return                                              # mod_wsgi tells it twice
        if stream.mode:
            self._flush(stream)
        if kind is not None:
            self._begin(stream, kind, line, at)

    def learn(self, line):
        """Which group its process is of, where the line tells: of an older line as well."""
        if line.pid is None:
            return
        found = _STARTING.search(line.text) if not line.group else None
        group = line.group or (found.group(1) if found else "")
        if group and len(self._groups) < _MOST_STREAMS:
            self._groups[line.pid] = group

    def _begin(self, stream, kind, line, at):
        record = _Record(kind, line, at, self._source)
        if kind.id in _WITH_TRACEBACK:
            stream.open(record, "await")
        elif kind.id == "traceback":
            stream.open(record, "traceback")
        elif line.text.startswith("Fatal Python error"):
            stream.open(record, "fault")
        elif line.text.startswith("Dumping stack trace"):
            known = self._stops.get(record.pid)
            if known is None or kind.id != "stack-dump":
                self._add(record)
                known = record
            stream.open(known, "dump")
        else:
            self._add(record)
        if kind.id in _STOPS or kind.id == "worker-timeout":
            self._stops[record.pid] = record

    def _goes_on(self, stream, line):
        """Whether a line belongs to what is open in its stream."""
        text = line.text
        if line.code:
            return False
        if stream.mode == "dump":
            return self._dumped(stream, text)
        frame = _FRAME.match(text)
        if frame:
            if stream.current and len(stream.frames) < _MOST_FRAMES:
                stream.frames.append((frame.group(1), frame.group(2), frame.group(3) or ""))
            stream.mode = "traceback" if stream.mode in ("await", "ended") else stream.mode
            return True
        if stream.mode == "fault":
            if text.startswith(("Current thread", "Thread 0x")):
                stream.current = text.startswith("Current")
                return True
            return not text or text[0] in " \t" or text.startswith(("Python runtime state", "Extension modules"))
        if not text:
            return True
        if text.startswith(_CHAIN):
            stream.frames, stream.mode = [], "traceback"
            return True
        if stream.mode == "ended":
            return False
        if text == _TRACEBACK:
            stream.mode = "traceback"
            return True
        if stream.mode == "traceback" and text[0] in " \t|+":
            return True
        if _EXCEPTION.match(text) and (stream.mode == "traceback" or stream.record.bare):
            stream.exception, stream.mode = text, "ended"
            return True
        return False

    def _dumped(self, stream, text):
        found = _DUMPED.match(text)
        if not found:
            return False
        how, file, line, function = found.groups()
        if how.startswith("Thread") and stream.frames:
            stream.record.put(stream.frames)
            stream.frames = []
        if len(stream.frames) < _MOST_FRAMES:
            stream.frames.append((file, line, function))
        return True

    def _flush(self, stream):
        record, mode = stream.record, stream.mode
        frames = stream.frames if mode in ("fault", "dump") else stream.frames[::-1]
        if record is not None:
            if mode != "dump":
                record = self._named(record, stream.exception, frames)
            if record is not None:
                record.put(frames)
                if mode != "dump":
                    self._add(record)
        stream.close()

    def _named(self, record, exception, frames):
        """The record, of the Kind that its exception tells; None when it belongs to another."""
        if exception.startswith("SystemExit") and any(frame[2] == _ABORTED for frame in frames):
            known = self._stops.get(record.pid)
            if known is not None:
                known.put([frame for frame in frames if frame[2] != _ABORTED])
                return None
        for pattern, name in _NAMED:
            if pattern.match(exception):
                record.kind = kinds.BY_ID[name]
        record.text = exception or record.text
        return record

    def _add(self, record):
        if len(self.records) < _MOST_RECORDS:
            self.records.append(record)
        else:
            self.dropped += 1

    # --- events --------------------------------------------------------------------------------

    def events(self):
        """([Event], {id: count}) of all that was taken."""
        self._join_crashes()
        merged, counts = {}, Counter()
        for record in self.records:
            record.group = record.group or self._groups.get(record.pid, "")
            counts[record.kind.id] += 1
            key = (record.kind.id, record.source, record.group, record.place, _NUMBERS.sub("#", record.text[:_MOST_TEXT]))
            if key in merged or len(merged) < _MOST_EVENTS:
                merged.setdefault(key, []).append(record)
            else:
                self.dropped += 1
        found = [_event(records) for records in merged.values()]
        return sorted(found, key=_when), dict(counts)

    def _join_crashes(self):
        """One event of a crash: what Apache says of the process, faulthandler of its stack, the children of the requests it had."""
        told, faults, cut, late = [], [], [], set()
        for record in self.records:
            if record.kind.id == "crash":
                (faults if record.text.startswith("Fatal Python error") else told).append(record)
            elif record.kind.id == "no-response" and record.at is not None:
                cut.append(record)
            elif record.kind.id in _KILLED_FOR:
                late.add(record.pid)
        dropped = self._faults_of(told, faults)
        crashed = {record.pid: record for record in told}
        for record in self.records:
            if record.kind.id in ("daemon-died", "killed") and (record.pid in crashed or record.pid in late):
                dropped.add(record)
                if record.pid in crashed and record.group:
                    crashed[record.pid].group = record.group
        cut.sort(key=_when)
        times = [record.at for record in cut]
        for crash in told:
            if not crash.group and crash.at is not None:
                begin, end = bisect_left(times, crash.at - _TOGETHER_S), bisect_left(times, crash.at + _TOGETHER_S)
                near = {record.group for record in cut[begin:min(end, begin + _MOST_NEAR)]}
                crash.group = near.pop() if len(near) == 1 else ""
        self.records = [record for record in self.records if record not in dropped]

    @staticmethod
    def _faults_of(told, faults):
        """Gives each crash the stack that was written just before it; the records that say no more than that."""
        dropped, waiting = set(), sorted(told, key=_when)
        first = 0
        for fault in sorted(faults, key=_when):
            while first < len(waiting) and _when(waiting[first]) < _when(fault) - 1.0:
                first += 1
            if first < len(waiting) and _when(waiting[first]) - _when(fault) <= _TOGETHER_S:
                crash, first = waiting[first], first + 1
                crash.place, crash.function, crash.places = fault.place, fault.function, fault.places
                crash.text = f"{crash.text}: {fault.text}"
                dropped.add(fault)
        return dropped


def _when(record):
    return record.at or 0.0


def _event(records):
    """The Event of records that say the same."""
    last = records[-1]
    times = [record.at for record in records if record.at is not None]
    places = Counter()
    for record in records:
        for (place, _), count in record.places.items():
            places[place] += count
    return Event(max(times) if times else None, last.kind.id, last.kind.severity, last.level, last.pid, last.tid, last.source, last.group,
                 last.place, last.function, masked(last.text[:_MOST_TEXT]), len(records), min(times) if times else None,
                 tuple(dict.fromkeys(record.pid for record in records if record.pid is not None))[:_MOST_PIDS],
                 dict(places.most_common(_MOST_PLACES)), last.script)
