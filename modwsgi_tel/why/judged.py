"""What a rule of `why` says: Saw in, a finding as JSON out.

A finding is a dict:

    {"id", "severity", "group", "pid", "since", "text", "evidence", "advice", "place"}

`id` is the rule's and stable; `severity` critical, warning or info; `group` and `pid` null where it is about more than one; `since`
wall seconds, null where it is not known; `place` "file:line" of the code that it names, or null.  Each piece of evidence is a dict
{"kind", "text", "place", "frames"}: kind stack, request, proc, log, config, socket, lock, memory, telemetry or host; frames, innermost
first, are null but for a stack.
"""
from collections import namedtuple

from modwsgi_tel.findings import SEVERITIES
from modwsgi_tel.stacks.model import frame_json
from modwsgi_tel.why.scene import application_frame, place_of

EVIDENCE_MOST = 12                      # pieces of one finding
FRAMES_MOST = 60                        # of one stack
TEXT_MOST = 600
SHOWN = 3                               # stacks and requests as evidence
LOOKS_LEAST = 5                         # before anything is said of how often something was so
LONG_S, LONG_LEAST = 1.0, 2             # requests so long, so many of them
STUCK_S = 30.0                          # one alone

Rule = namedtuple("Rule", "id severity check help advice")
Rule.__doc__ = "check(scene) yields a Saw for each thing that is wrong; help says when; advice what to do next."

Saw = namedtuple("Saw", "text group pid since evidence advice severity place same about",
                 defaults=(None, None, None, (), None, None, None, (), None))
Saw.__doc__ = """What a rule saw.  advice, severity: in place of the rule's.  place: "file:line".  same: ids of a collector's findings that
are about the same trouble, and become evidence of this one.  about: what tells it from others of its rule and group."""


def who(process):
    """How a sentence calls a process."""
    return f"pid {process.pid} of {process.name}"


def evidence(kind, text, place=None, frames=None):
    return {"kind": kind, "text": text[:TEXT_MOST], "place": place, "frames": frames}


def stack(process, thread, said=""):
    """A ThreadStack of a scene's Process as evidence; each frame with its source line."""
    frame = application_frame(thread.frames)
    what = f"thread {thread.tid}" + (f" ({thread.name})" if thread.name else "") + (f" {said}" if said else "")
    return evidence("stack", what, None if frame is None else place_of(frame),
                    [{**frame_json(each), "source": process.source(each)} for each in thread.frames[:FRAMES_MOST]])


def finding(rule, saw):
    return {"id": rule.id, "severity": saw.severity or rule.severity, "group": saw.group or None, "pid": saw.pid, "since": saw.since,
            "text": saw.text[:TEXT_MOST], "evidence": list(saw.evidence), "advice": saw.advice or rule.advice, "place": saw.place}


def severity_of(found):
    return SEVERITIES.index(found["severity"])
