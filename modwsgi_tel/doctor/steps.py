"""The way of a datagram, as the table STEPS, and the verdict over all of it.

JSON of a step: {"id", "title", "state", "results": [{"state", "text", "evidence": [text], "mends": [{"kind", "text", "where"}], "pid"}]}.
"""
from collections import namedtuple

from modwsgi_tel.doctor import receiving, sending
from modwsgi_tel.doctor.scene import FOLLOWS, OK, UNKNOWN, WRONG, arrives, by_agent, expected, inside, processes
from modwsgi_tel.figures import counted

Step = namedtuple("Step", "id title judge")
Step.__doc__ = "title: what is looked at.  judge: scene -> [Result]; [] where there is nothing to say."

STEPS = (
    Step("tool", "this tool, and what it may see", receiving.tool),
    Step("collector", "the collector and its socket", receiving.collector),
    Step("servers", "the servers, and whether they can send", sending.servers),
    Step("directive", "WSGITelemetryService in Apache's configuration", sending.directives),
    Step("permission", "who may write to the socket", sending.permission),
    Step("namespace", "whether the server sees the collector's files", sending.namespace),
    Step("policy", "SELinux and AppArmor", sending.policy),
    Step("queue", "the socket's queue, and threads that wait for it", receiving.queue),
    Step("arrival", "what arrives", receiving.arrival),
    Step("stacks", "slow requests and their stacks", receiving.stacks),
    Step("readers", "who asks the collector", receiving.readers),
    Step("machine", "the machine", receiving.machine),
)
_ON_THE_WAY = ("collector", "servers", "directive", "permission", "namespace", "policy", "queue")
_WORST = (WRONG, UNKNOWN, FOLLOWS, OK)

Judged = namedtuple("Judged", "id title state results")
Judged.__doc__ = "A Step with its [Result].  state: the worst of them; FOLLOWS where there are none."


def judge(scene):
    """[Judged] of all STEPS, in their order."""
    found = []
    for step in STEPS:
        if step.id == "arrival":
            has_cause = any(each.state == WRONG and each.id in _ON_THE_WAY for each in found)
            results = step.judge(scene, has_cause)
        else:
            results = step.judge(scene)
        results = [inside(scene, each) for each in results]
        found.append(Judged(step.id, step.title, next((state for state in _WORST if any(each.state == state for each in results)), FOLLOWS),
                            results))
    return found


def arriving(scene):
    """(how many of the processes that should send do, how many should); the first None where that is not known."""
    senders = [each for server in scene.servers for each in expected(server)]
    return (None if scene.summary is None else sum(arrives(scene, each) for each in senders)), len(senders)


def count_of(judged, state):
    """How many Results have that state."""
    return sum(each.state == state for step in judged for each in step.results)


def verdict(scene, judged):
    """The first line, in words."""
    count, total = arriving(scene)
    is_broken = any(each.state == WRONG and each.id in _ON_THE_WAY for each in judged)
    told = ("no process is there that should send" if not total else f"whether telemetry arrives from {processes(total)} is not known"
            if count is None else
            f"telemetry {'arrived lately' if count and is_broken else 'arrives'} from {count} of {processes(total)}")
    agents = sum(len(by_agent(scene, server)) for server in scene.servers)
    if agents:
        told = (f"{told}; " if total else "") + f"agents tell of {processes(agents)}"
    wrong, unknown = (count_of(judged, state) for state in (WRONG, UNKNOWN))
    return told + (f"; {counted(wrong, 'thing is', 'things are')} wrong" if wrong else "; nothing is wrong") + (
        f", {counted(unknown, 'thing is', 'things are')} not known" if unknown else "")
