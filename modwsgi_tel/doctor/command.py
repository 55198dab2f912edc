"""doctor: looks, judges, says.  Changes nothing.

JSON of --json: {"type": "doctor", "version": 1, "time", "verdict", "target", "arriving", "expected", "wrong", "unknown", "steps": see
steps}.
"""
from modwsgi_tel.doctor.gather import scene as look
from modwsgi_tel.doctor.scene import UNKNOWN, WRONG
from modwsgi_tel.doctor.steps import arriving, count_of, judge, verdict
from modwsgi_tel.doctor.text import text
from modwsgi_tel.printable import columns, printable_json, show

RIGHT, SOMETHING_WRONG, COULD_NOT = 0, 1, 2
VERSION = 1


def doctor(values):
    """The command; its exit status: 0 all right, 1 something is wrong, 2 it could not look."""
    scene = look(values)
    judged = judge(scene)
    show(printable_json(_json(scene, judged)) + "\n" if values.json else text(scene, judged, columns()))
    return status(scene, judged)


def status(scene, judged):
    """What is not known does no harm where all that should arrive does."""
    if count_of(judged, WRONG):
        return SOMETHING_WRONG
    count, total = arriving(scene)
    return COULD_NOT if count_of(judged, UNKNOWN) and (count is None or count < total or not total) else RIGHT


def _json(scene, judged):
    count, total = arriving(scene)
    return {"type": "doctor", "version": VERSION, "time": scene.at, "verdict": verdict(scene, judged), "target": scene.target,
            "arriving": count,
            "expected": total, "wrong": count_of(judged, WRONG), "unknown": count_of(judged, UNKNOWN),
            "steps": [{"id": step.id, "title": step.title, "state": step.state, "results": [
                {**each._asdict(), "evidence": list(each.evidence), "mends": [mend._asdict() for mend in each.mends]}
                                                                                            for each in step.results]}
                for step in judged]}
