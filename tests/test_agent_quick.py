"""The shortest way of a request is the application itself, and notes as much of it as its stacks need."""
import gc
import weakref

import pytest
from test_agent_middleware import FINE, WRONG, Hooks, answer, named, takes

from modwsgi_tel.agent.middleware import Middleware
from modwsgi_tel.agent.quick import quick
from modwsgi_tel.agent.requests import Requests


class Agent(Hooks):
    """What `quick` uses of core.Agent."""

    has_quick = False
    threshold = 1e9
    look_at = 0.0

    def __init__(self):
        super().__init__()
        self.requests = Requests(3)
        self.looks, self.long = [], []

    def look(self, now):
        self.looks.append(now)
        self.look_at = now + 1000

    def over(self, request):
        self.long.append(request)

    def end(self, request):
        super().end(request)
        self.requests.end(request)


def watched(application):
    agent = Agent()
    return agent, quick(Middleware(application, agent))


@named(FINE + WRONG)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_the_answer_is_the_applications_own_and_each_request_ends(application, between, size, pieces):
    agent, found = watched(application)
    seen = []
    held = agent.requests.active

    def during(environ, start_response):
        seen.append([(each.number, each.environ is environ, each.agent) for each in held.values()])
        return application(environ, start_response)

    agent, found = watched(during)
    held = agent.requests.active
    assert answer(found) == answer(application)
    assert seen == [[(1, True, 3)]] and held == {}
    assert [told for told in agent.told if told[0] == "failed"] == [told for told in between if told[0] == "failed"]


def test_the_body_of_a_stream_is_part_of_its_request():
    agent, found = watched(lambda environ, start_response: (piece for piece in (b"a", b"b")))
    body = found({}, takes)
    assert list(body) == [b"a", b"b"] and len(agent.requests.active) == 1
    body.close()
    assert agent.requests.active == {} and agent.told == [("end",)]


def test_a_look_is_taken_when_it_is_time_and_not_with_each_request():
    agent, found = watched(lambda environ, start_response: [])
    for _ in range(5):
        found({}, takes)
    assert len(agent.looks) == 1 and agent.requests.begun == 5 and len(agent.requests.tids) == 1


def test_a_long_request_is_told_of_when_it_ends_and_a_watched_one_however_long_it_took():
    agent = Agent()
    agent.threshold = 0.0
    found = quick(Middleware(lambda environ, start_response: [], agent))
    found({}, takes)
    assert [each.number for each in agent.long] == [1]
    agent = Agent()

    def watch(environ, start_response):
        agent.requests.active[1].watch = "watched"
        return []

    quick(Middleware(watch, agent))({}, takes)
    assert [each.watch for each in agent.long] == ["watched"]


def test_nothing_of_a_request_is_kept():
    kept = []

    class Held:
        pass

    def application(environ, start_response):
        kept.append(weakref.ref(environ["held"]))
        return []

    _, found = watched(application)
    gc.collect()
    gc.disable()
    try:
        found({"held": Held()}, takes)
        assert kept[0]() is None
    finally:
        gc.enable()


def test_an_application_within_another_has_a_number_of_its_own():
    agent, found = watched(lambda environ, start_response: [])
    other = quick(Middleware(lambda environ, start_response: found(environ, start_response), agent))
    seen = []
    agent.look = lambda now: seen.append(sorted(agent.requests.active))
    agent.look_at = 0.0
    other({}, takes)
    assert seen == [[1], [1, 2]]
