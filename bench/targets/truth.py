"""What is true of a target, told by itself; and whether a stack can be true.  Runs on Python 3.8 and later."""
import dis
import json
import os
import sys
import threading
import time


def function_of(code):
    """A code object's qualified name; its name where Python keeps no more (before 3.11)."""
    return getattr(code, "co_qualname", code.co_name)


def lines_of(code):
    """All line numbers that a frame of this code can be on, in order."""
    return sorted({code.co_firstlineno} | {line for _, line in dis.findlinestarts(code) if line})


def frames_of(frame):
    """[[function, file, line], ...] of a frame and its callers, innermost first."""
    out = []
    while frame is not None:
        out.append([function_of(frame.f_code), frame.f_code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return out


def parked(own=None):
    """{native thread id: frames} of all threads of this interpreter that `threading` knows, by its own word.

    own: the calling thread's frame from which on its stack counts; without it that thread is left out.
    """
    native = {thread.ident: thread.native_id for thread in threading.enumerate()}
    found = {native[ident]: frames_of(frame) for ident, frame in sys._current_frames().items() if ident in native}
    here = native[threading.get_ident()]
    del found[here]
    return found if own is None else {**found, here: frames_of(own)}


def sleeps(tid, pid="self"):
    """Whether the kernel says of a thread that it waits."""
    with open("/proc/%s/task/%d/stat" % (pid, tid)) as handle:
        return handle.read().rpartition(")")[2].split()[0] == "S"


def settle(threads, but=()):
    """Wait until so many other threads are there and all are parked: asleep, and on the same lines at two looks 50 ms apart.

    but: native ids of those that never sleep for long, whose lines alone count.  Exits after 30 s.
    """
    deadline = time.monotonic() + 30
    while True:
        before = parked()
        time.sleep(0.05)
        if len(before) == threads and before == parked() and all(sleeps(tid) for tid in before if tid not in but):
            return
        if time.monotonic() > deadline:
            sys.exit("%s: %d of %d threads are parked, in vain waited for the others" % (sys.argv[0], len(before), threads))


def tell(**fields):
    """One JSON line to stdout: this process is ready, or answers.  In one write, past Python's own buffers and locks."""
    line = (json.dumps(dict(fields, pid=os.getpid(), python="%d.%d.%d" % sys.version_info[:3])) + "\n").encode()
    while line:
        line = line[os.write(1, line):]


def check(table, frames, tid=None):
    """None when a whole stack is possible in a program that told `table`, else why it is not.

    table: {"functions": {name: {"file", "lines": [line], "callers": {function: [line]}}}, "outermost": {tid as text: [function]}};
    without "functions" only the outermost is looked at.
    frames: each with function, file and line, innermost first.  tid: the thread's; without it any thread's outermost will do.
    """
    functions, outermost = table.get("functions"), table["outermost"]
    if not frames:
        return "no frames"
    for index, (function, file, line) in enumerate((each.function, each.file, each.line) for each in frames if functions):
        known = functions.get(function)
        if known is None or known["file"] != file:
            return "no such function: %s in %s" % (function, file)
        if line not in known["lines"]:
            return "line %s is not one of %s" % (line, function)
        if index + 1 < len(frames):
            caller = frames[index + 1]
            if caller.function not in known["callers"]:
                return "impossible caller: %s is not called by %s" % (function, caller.function)
            if caller.line not in known["callers"][caller.function]:
                return "wrong call line: %s is not called on line %s of %s" % (function, caller.line, caller.function)
    if tid is not None and str(tid) not in outermost:
        return "no such thread: %s" % tid
    allowed = outermost[str(tid)] if tid is not None else [name for names in outermost.values() for name in names]
    if frames[-1].function not in allowed:
        return "truncated: %s cannot be outermost" % frames[-1].function
    return None


def made_wrong(frames):
    """None, or the first frame of execs.py whose name, file and line are not of one code object."""
    for each in frames:
        if each.function.startswith("made_"):
            number = int(each.function[5:])
            if each.file != "<%d>" % number or not 1 <= each.line - number * 10 <= 3:
                return "mixed: %s in %s on line %s" % (each.function, each.file, each.line)
    return None
