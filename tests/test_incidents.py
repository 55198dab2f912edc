"""`why` on real servers in trouble, and on healthy ones: tests/incidents, staged by tests/staging.py.

Each is staged in namespaces of its own, some at a time.  By default each runs in one of its modes, and every mode has its share;
MODWSGI_TEL_TEST_INCIDENTS=all runs each in all of them.
"""

import collections
import json
import os

import pytest

import apache
import running
import staging
from incidents import table

pytestmark = pytest.mark.apache

ROOM = 6                        # the sum of `cost` of what is staged at one time
ALL = os.environ.get("MODWSGI_TEL_TEST_INCIDENTS") == "all"


def selected(incidents):
    """(incident's name, mode) of what is to be staged, the modes by turns."""
    found = []
    for number, incident in enumerate(incidents):
        modes = incident.modes if ALL else (incident.modes[number % len(incident.modes)],)
        found += [pytest.param((incident.name, mode), id="%s-%s" % (incident.name, mode)) for mode in modes]
    return found


class Stages:
    """What is staged, ahead of the tests that ask for it and in their order; `of(stage)` is the dict of staging.stage."""

    def __init__(self, wanted):
        self._wanted = collections.deque(wanted)
        self._running, self._told = {}, {}

    def of(self, stage):
        running.wait_until(lambda: self._step() or stage in self._told, len(self._running) * staging.STAGED_S + 600, "it does not end", 0.05)
        told = self._told[stage]
        if isinstance(told, AssertionError):
            raise told
        if "missing" in told:
            _missing(told["missing"])
        return told

    def _step(self):
        """Let time pass: begin what there is room for, keep what has ended."""
        for stage, process in list(self._running.items()):
            try:
                told = process.told()
            except AssertionError as error:
                told = error
            if told is not None:
                del self._running[stage]
                self._told[stage] = told
        while self._wanted and self._room(self._wanted[0]):
            stage = self._wanted.popleft()
            self._running[stage] = staging.Stage(*stage, "--json")

    def _room(self, stage):
        return not self._running or sum(table.BY_NAME[name].cost for name, _ in [*self._running, stage]) <= ROOM

    def close(self):
        for process in self._running.values():
            process.close()


def _missing(reason):
    if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
        pytest.fail("nothing can be staged, and it is required: %s" % reason)
    pytest.skip("nothing can be staged: %s" % reason)


@pytest.fixture(scope="module")
def stages(request):
    try:
        staging.check_machine()
    except apache.Missing as missing:
        _missing(missing)
    stages = Stages(item.callspec.params["stage"] for item in request.session.items
                    if item.module is request.module and hasattr(item, "callspec"))
    yield stages
    stages.close()


def answer(told):
    """What `why --json` said, once it has the keys that it promises."""
    assert "Traceback" not in told["complained"], told["complained"]
    try:
        answer = json.loads(told["said"])
    except ValueError:
        raise AssertionError("exit status %(status)s, no JSON: %(said).500s\n%(complained)s" % told)
    assert {"findings", "unknown"} <= set(answer)
    for finding in answer["findings"]:
        assert {"id", "severity", "group", "pid", "since", "text", "evidence", "advice"} <= set(finding), finding
        assert finding["severity"] in table.SEVERITIES and finding["text"], finding
    return answer


def shown(told, answer):
    """For a test that fails."""
    return "%s\nrequests: %s\nlog: %s" % (json.dumps(answer, indent=1), told["made"], told["log"])


@pytest.mark.parametrize("stage", selected(table.SICK))
def test_why_names_what_is_wrong_and_the_line_of_it(stages, stage):
    told = stages.of(stage)
    said = answer(told)
    for wanted in table.BY_NAME[stage[0]].says:
        lacking = {finding["id"]: staging.lacks(finding, wanted) for finding in said["findings"]}
        assert not all(lacking.values()), "%s\n%s" % (lacking, shown(told, said))
        if wanted.group:
            assert {finding["group"] for finding in said["findings"]} <= {wanted.group, None}, shown(told, said)
    assert said["findings"] and told["status"] == 1, shown(told, said)


@pytest.mark.parametrize("stage", selected(table.HEALTHY))
def test_why_is_quiet_about_a_healthy_server(stages, stage):
    told = stages.of(stage)
    said = answer(told)
    alarming = [finding for finding in said["findings"] if finding["severity"] != "info"]
    assert not alarming and told["status"] == 0, shown(told, said)


def test_the_modes_of_those_staged_by_default_are_all_there():
    for incidents in (table.SICK, table.HEALTHY):
        assert {param.values[0][1] for param in selected(incidents)} >= set(table.EACH)


def test_an_incident_wants_places_that_its_files_have():
    for incident in table.SICK:
        for wanted in incident.says:
            assert wanted.words or wanted.places
            for mark in wanted.places:
                staging.place(mark)
