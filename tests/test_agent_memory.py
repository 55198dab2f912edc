"""tracemalloc on request: the lines that grow, bounded, ended by itself, and the application's own tracing left alone."""
import os
import subprocess
import sys
import tracemalloc

import pytest

from modwsgi_tel.agent import memory as module
from modwsgi_tel.agent.memory import CHECKED_S, LINES, Memory
from modwsgi_tel.errors import TelError
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import AGENT_FLAG, MEMORY_GROWTH


class Settings:
    memory_most_s = 600.0


class Agent:
    """A Memory with what it told, its clock in `now`."""

    def __init__(self):
        self.records, self.known, self.now = [], [], 1000.0
        self.memory = Memory(self.send, self, Settings, lambda: self.now)

    def send(self, kind, values):
        sample = decode(encode(kind, 1, 1, 0.0, values, AGENT_FLAG))
        assert sample.kind == MEMORY_GROWTH
        self.records.append(dict(sample.fields))
        return True

    def numbers(self, frames):
        self.known += [frame for frame in frames if frame not in self.known]
        return [self.known.index(frame) + 1 for frame in frames]

    def states(self):
        return [record["memory_state"] for record in self.records]


@pytest.fixture
def agent():
    assert not tracemalloc.is_tracing()
    agent = Agent()
    yield agent
    agent.memory.close()
    tracemalloc.stop()


def allocating(count, size=1000):
    return [bytearray(size) for _ in range(count)]


HERE, LINE = __file__, allocating.__code__.co_firstlineno + 1


def of_here(answer):
    return {row["line"]: row for row in answer["lines"] if row["file"] == HERE}


def test_the_lines_that_grow_are_told_most_first(agent):
    assert agent.memory.asked({"do": "tracemalloc", "what": "start"}) == {
        "state": "started", "own": True, "frames": 1, "seconds_most": 600.0}
    kept, other = allocating(500), [dict(a=1) for _ in range(100)]
    agent.now += 5.0
    answer = agent.memory.asked({"do": "tracemalloc", "what": "snapshot"})
    row = of_here(answer)[LINE]
    assert answer["lines"][0] == row
    assert 500 * 1000 < row["growth"] == row["held"] < 500 * 1100 and 1000 <= row["blocks"] <= 1010
    assert [each["growth"] for each in answer["lines"]] == sorted((each["growth"] for each in answer["lines"]), reverse=True)
    assert (answer["state"], answer["seconds"], answer["traced"] >= 500 * 1000, answer["peak"] >= answer["traced"],
            answer["overhead"] > 0, 0 <= answer["took_s"] < 10) == ("growing", 5.0, True, True, True, True)
    assert agent.states() == ["started", "growing"]
    record = agent.records[1]
    assert [agent.known[number - 1] for number in record["memory_locations"]] == [("", each["file"], each["line"]) for each in answer["lines"]]
    assert [list(map(int, record[f"memory_{name}"])) for name in ("growth", "held", "blocks")] == [
        [each[name] for each in answer["lines"]] for name in ("growth", "held", "blocks")]
    assert (record["memory_seconds"], record["memory_traced"], record["memory_peak"], record["memory_overhead"]) == (
        5.0, answer["traced"], answer["peak"], answer["overhead"])
    del kept, other


def test_what_was_freed_is_no_growth(agent):
    agent.memory.start()
    kept = allocating(100)
    assert LINE in of_here(agent.memory.snapshot())
    del kept
    assert LINE not in of_here(agent.memory.snapshot())


def test_at_most_twenty_lines(agent):
    scope, kept = {}, []
    exec(compile("def grow(out):\n" + "    out.append(bytearray(5000))\n" * 50, "/srv/grow.py", "exec"), scope)
    agent.memory.start()
    scope["grow"](kept)
    answer = agent.memory.snapshot()
    assert (len(answer["lines"]), {row["file"] for row in answer["lines"]}) == (LINES, {"/srv/grow.py"})


def test_its_own_lines_and_those_of_tracemalloc_are_left_out(agent):
    agent.memory.start()
    for _ in range(3):
        answer = agent.memory.snapshot()
    root = os.path.dirname(os.path.dirname(module.__file__))
    assert [row for row in answer["lines"] if row["file"].startswith(root) or row["file"] == tracemalloc.__file__] == []


def test_with_more_frames_the_applications_own_line_counts(agent):
    import json
    text = "[" + ",".join('{"a": [1.5, "text %d"]}' % number for number in range(300)) + "]"
    def loads():
        return json.loads(text)
    line = loads.__code__.co_firstlineno + 1
    agent.memory.start(1)
    kept = loads()
    assert line not in of_here(agent.memory.snapshot())
    agent.memory.stop()
    assert agent.memory.start(10)["frames"] == 10
    kept = loads()
    assert line in of_here(agent.memory.snapshot())
    del kept


def test_it_ends_when_it_is_asked_to(agent):
    agent.memory.start()
    agent.now += 7.0
    answer = agent.memory.asked({"do": "tracemalloc", "what": "stop"})
    assert (answer["state"], answer["seconds"], tracemalloc.is_tracing(), agent.memory.tracing, agent.memory.due()) == (
        "stopped", 7.0, False, False, None)
    assert agent.states() == ["started", "stopped"]
    assert agent.memory.start()["state"] == "started"           # and again


def test_the_end_tells_the_lines_of_the_newest_snapshot_again(agent):
    agent.memory.start()
    kept = allocating(100)
    agent.memory.snapshot()
    agent.memory.stop()
    agent.memory.start()
    names = "memory_locations", "memory_growth", "memory_held", "memory_blocks"
    growing, stopped, started = ([record.get(name) for name in names] for record in agent.records[1:])
    assert (growing == stopped, bool(growing[0]), started) == (True, True, [None] * 4)
    del kept


def test_it_ends_by_itself(agent):
    assert agent.memory.due() is None
    agent.memory.start()
    assert agent.memory.due() == 1000.0 + CHECKED_S
    agent.memory.run(1010.0)
    assert (agent.memory.due(), tracemalloc.is_tracing()) == (1010.0 + CHECKED_S, True)
    agent.memory.run(1595.0)
    assert agent.memory.due() == 1600.0
    agent.memory.run(1600.0)
    assert (tracemalloc.is_tracing(), agent.memory.due(), agent.states()) == (False, None, ["started", "stopped"])


def test_it_ends_when_tracing_itself_takes_too_much_memory(agent, monkeypatch):
    monkeypatch.setattr(module, "OVERHEAD_MOST", 1000)
    agent.memory.start()
    kept = allocating(100)
    agent.memory.run(1010.0)
    assert (tracemalloc.is_tracing(), agent.states()) == (False, ["started", "stopped"])
    del kept


def test_too_many_blocks_are_not_looked_at(agent, monkeypatch):
    agent.memory.start()
    kept = allocating(200)
    monkeypatch.setattr(module, "BLOCKS_MOST", 50)
    with pytest.raises(TelError, match="^about [0-9,]+ blocks are traced: to look at more than 50 would hold up the application; stop it, "
                                       "start it again and ask sooner$"):
        agent.memory.snapshot()
    assert tracemalloc.is_tracing()
    del kept


# --- the application traces already ----------------------------------------------------------

def test_tracing_of_the_applications_own_is_compared_with_and_never_ended(agent):
    tracemalloc.start(3)
    before = allocating(300)
    assert agent.memory.start() == {"state": "started", "own": False, "frames": 3, "seconds_most": 600.0}
    more = allocating(200)
    row = of_here(agent.memory.snapshot())[LINE]
    assert (200 * 1000 < row["growth"] < 200 * 1100, 500 * 1000 < row["held"] < 500 * 1100, 400 <= row["blocks"] <= 410) == (True, True, True)
    agent.memory.stop()
    assert tracemalloc.is_tracing()
    agent.memory.start()
    agent.memory.run(5000.0)
    agent.memory.start()
    agent.memory.close()
    assert tracemalloc.is_tracing()
    del before, more


def test_what_was_there_before_and_has_gone_is_not_told(agent):
    tracemalloc.start()
    before = allocating(300)
    agent.memory.start()
    del before[100:]
    assert LINE not in of_here(agent.memory.snapshot())
    del before


def test_when_the_application_ends_it_that_is_noticed(agent):
    agent.memory.start()
    tracemalloc.stop()
    with pytest.raises(TelError, match="^the application has stopped tracemalloc: start it again$"):
        agent.memory.snapshot()
    agent.memory.start()
    tracemalloc.stop()
    agent.memory.run(1010.0)
    assert (agent.memory.tracing, agent.memory.due(), agent.states()) == (False, None, ["started", "stopped"] * 2)


# --- asked wrongly -----------------------------------------------------------------------------

@pytest.mark.parametrize("request_, says", [
    ({}, "ask for start, snapshot or stop"), ({"what": "restart"}, "ask for start, snapshot or stop"),
    ({"what": ["start"]}, "ask for start, snapshot or stop"),
    ({"what": "snapshot"}, "not started: start it"), ({"what": "stop"}, "not started: start it"),
    *(({"what": "start", "frames": frames}, "frames is a whole number from 1 to 25") for frames in (0, 26, 1.5, True, "3", None, 1 << 70))])
def test_a_wrong_question_is_answered_with_what_to_ask(agent, request_, says):
    with pytest.raises(TelError, match=says):
        agent.memory.asked(request_)
    assert (tracemalloc.is_tracing(), agent.records) == (False, [])


def test_it_is_not_started_twice(agent):
    agent.memory.start()
    with pytest.raises(TelError, match="started already"):
        agent.memory.start()


def test_a_child_of_a_fork_does_not_trace_on(agent):
    agent.memory.start()
    child = os.fork()
    if not child:
        agent.memory.forked()
        os._exit(0 if (tracemalloc.is_tracing(), agent.memory.due()) == (False, None) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert tracemalloc.is_tracing()


def test_nothing_of_it_is_loaded_before_it_is_asked_for():
    root = os.path.dirname(os.path.dirname(os.path.dirname(module.__file__)))
    out = subprocess.run([sys.executable, "-S", "-c", "import sys, modwsgi_tel.agent.memory; print('tracemalloc' in sys.modules)"],
                         cwd=root, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30, check=True).stdout
    assert out == b"False\n"
