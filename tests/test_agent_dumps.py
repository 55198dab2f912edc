"""Dumps of all threads on their way to the collector, whose queue is short."""
import time

import pytest

from test_agent_core import Collector
import running
from modwsgi_tel.agent import dumps
from modwsgi_tel.agent.locations import Locations
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.sender import Sender
from modwsgi_tel.agent.settings import read
from modwsgi_tel.stacks.model import Frame, Request, Stacks, ThreadStack
from modwsgi_tel.wire.fields import THREAD_STACK


class Journal:
    def __init__(self):
        self.seen = []

    def text(self, head, lines):
        self.seen.append((head, list(lines)))


@pytest.fixture
def site():
    with running.short_folder() as folder:
        found = Site(Collector(folder + "/t.sock"))
        yield found
        found.collector.socket.close()


class Site:
    """A Dumps, and what listens to it."""

    def __init__(self, collector):
        self.collector, self.journal = collector, Journal()
        self.sender = Sender(collector.path, 0)
        self.dumps = dumps.Dumps(Requests(), self.sender, Locations(self.sender), read({}, {}), self.journal)
        self.tids = []

    def hear(self):
        """Read what has come; the tids of its threads are in `tids`."""
        self.tids += [each.fields["stack_tid"] for each in self.collector.read() if each.kind == THREAD_STACK]


def stacks(count):
    threads = [ThreadStack(tid=1 + number, frames=(Frame("view", f"/srv/{number}.py", 3),), state="waiting",
                           request=Request("abc", 1, "GET", "/x", "agent") if number == 0 else None) for number in range(count)]
    return Stacks(7, threads=tuple(threads))


def test_a_dump_larger_than_the_collectors_queue_arrives_whole(site):
    site.dumps.add(stacks(60), "application")
    now = time.monotonic()
    for turn in range(100):             # it reads seldom: most find its queue full
        if site.dumps.due() is None:
            break
        assert site.dumps.due() <= now
        site.dumps.run(now)
        now += dumps.PAUSE_S
        if turn % 4 == 3:
            site.hear()
    site.hear()
    assert site.tids == list(range(1, 61))
    assert (site.sender.lost, site.journal.seen, site.dumps.due()) == (0, [], None)


def test_a_dump_that_nobody_reads_is_in_the_log_and_does_not_keep_the_next_one(site):
    site.dumps.add(stacks(60), "watchdog")
    site.dumps.add(stacks(2), "signal")
    now = time.monotonic()
    site.dumps.run(now)
    site.dumps.run(now + dumps.SENT_WITHIN_S - 0.1)
    assert site.journal.seen == []
    site.dumps.run(now + dumps.SENT_WITHIN_S)
    site.hear()
    site.dumps.run(now + 2.0)
    site.hear()
    assert site.tids[-2:] == [1, 2] and len(site.tids) < 60
    (head, lines), (other, _) = site.journal.seen
    assert (head, other) == ("stacks of 60 threads (watchdog)", "stacks of 2 threads (signal)")
    assert lines[:2] == ["thread 1 serves GET /x (abc)", "    /srv/0.py:3 view"] and len(lines) == 120


def test_without_a_collector_a_dump_is_in_the_log_at_once(site):
    site.sender.path = "/nonexistent/t.sock"
    site.dumps.add(stacks(1), "application")
    site.dumps.run(time.monotonic())
    assert [head for head, _ in site.journal.seen] == ["stacks of 1 threads (application)"] and site.dumps.due() is None
