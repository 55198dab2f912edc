"""why: joins reading, judging and saying.

JSON of --json: {"type": "why", "version": 1, "time", "seconds", "findings": see judged, "notes": [text], "unknown": [text],
"processes": [{"pid", "group", "role", "server", "threads", "looks"}]}.
"""
import sys

from modwsgi_tel import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.figures import counted, duration
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.printable import columns, printable_json, show
from modwsgi_tel.why.gather import Gathering
from modwsgi_tel.why.rules import judge
from modwsgi_tel.why.text import text

QUIET, FINDINGS, COULD_NOT = 0, 1, 2
VERSION = 1


def why(values):
    """The command; its exit status: 0 all quiet, 1 findings, 2 it could not look."""
    gathering = Gathering(values)
    try:
        _look(values, gathering)
        scene = gathering.scene()
    finally:
        gathering.close()
    findings, notes = judge(scene)
    if not findings and scene.telemetry is None and not any(process.looks or process.after for process in scene.processes):
        raise TelError(next((line for line in scene.unknown if not line.startswith("no telemetry")),
                            "no process that serves could be looked at"))
    if values.json:
        show(printable_json(_json(scene, findings, notes)) + "\n")
    else:
        show(text(scene, findings, notes, columns()))
    if findings:
        return FINDINGS
    # nothing of the code could be seen: that is not quiet
    return QUIET if scene.telemetry is not None or any(process.looks for process in scene.processes) else COULD_NOT


def _look(values, gathering):
    """Looks until there were enough, or somebody ends it."""
    loop = Loop()
    early = []

    def again():
        gathering.look()
        pause = gathering.pause_s()
        if pause is None:
            loop.stop()
        else:
            loop.after(pause, again)

    def end(why_ended):
        early.append(why_ended)
        loop.stop()

    for number, name in targets.ENDINGS.items():
        loop.on_signal(number, lambda name=name: end(name))
    if sys.stderr.isatty() and not values.json:
        targets.say(f"looking for {duration(values.duration)} at {counted(gathering.number, 'process', 'processes')} ...")
    loop.after(0.0, again)
    try:
        loop.run()
    finally:
        loop.close()
    if early and not gathering.looked:
        raise TelError(f"ended by {early[0]} before anything was seen")
    if early:
        targets.say(f"ended early by {early[0]}: what was seen until then is judged")


def _json(scene, findings, notes):
    return {"type": "why", "version": VERSION, "time": scene.at, "seconds": scene.seconds, "findings": findings, "notes": notes,
            "unknown": scene.unknown,
            "processes": [{"pid": process.pid, "group": process.group or None, "role": process.member.role, "server": process.member.server,
                           "threads": process.member.threads, "looks": len(process.looks)} for process in scene.processes]}
