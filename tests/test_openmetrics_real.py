"""The metrics as real tools see them: promtool's checks, and a real Prometheus that scrapes a collector fed by a real capture."""
import json
import math
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from bisect import bisect_left

import pytest

from builders import Worker, capture
from expositions import openmetrics
from modwsgi_tel.openmetrics.bounds import PHASE_BOUNDS
from modwsgi_tel.openmetrics.text import exposition
from modwsgi_tel.wire import blocks
from running import CHECKOUT, ROOT, Collector, clean_environment, free_port, short_folder, wait_until
from test_openmetrics import HOSTILE, a_busy_fleet, source

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
pytestmark = pytest.mark.skipif(not PROMTOOL or not PROMETHEUS, reason="needs promtool and prometheus: apt-get install prometheus")

# four seconds of gc_storm in which its load is steady, about 550 requests a second
CAPTURE, BEGIN_S, END_S = "gc_storm", 2.05, 6.5
STEADY_S = 3
CONFIG = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: modwsgi
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


def check_metrics(text):
    """What promtool says of a text in the classic format: (exit status, complaints)."""
    ended = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=60)
    return ended.returncode, (ended.stdout + ended.stderr).decode()


def test_promtool_has_nothing_to_say_of_any_metric():
    assert check_metrics(b"".join(exposition(source(a_busy_fleet(), 20.0, processes=3)))) == (0, "")


def test_promtool_complains_of_what_is_wrong():
    status, said = check_metrics(b"# TYPE modwsgi_time_milliseconds counter\nmodwsgi_time_milliseconds 1\n")
    assert status == 3 and "_total" in said


class Prometheus:
    """A real one, in a folder of its own, on a port of its own."""

    def __init__(self, folder, target):
        self.port = free_port()
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w") as handle:
            handle.write(CONFIG % target)
        self.log = open(os.path.join(folder, "log"), "w+b")
        self.process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self.port}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def api(self, path, **parameters):
        """The data of an answer; None while it does not answer yet."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            assert self.process.poll() is None, self.said()
            return None

    def query(self, query, **more):
        """[(labels, value)] of an instant query; of a range [(labels, [(time, value)])]."""
        found = self.api("query", query=query, **more)
        return [(row["metric"], float(row["value"][1]) if "value" in row else [(at, float(value)) for at, value in row["values"]])
                for row in found["result"]] if found else []

    def said(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")[-3000:]

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self.log.close()


@pytest.fixture(scope="module")
def watched():
    """(Prometheus, Collector) once the capture has been replayed and the last of it was scraped."""
    with short_folder() as folder, Collector("--metrics-processes", "2") as collector:
        path, began = os.path.join(folder, "steady.cap.gz"), capture(CAPTURE)[0][0]
        with open(path, "wb") as handle:
            handle.write(blocks.pack(b"".join(blocks.record(wall, pid, datagram) for wall, pid, datagram in capture(CAPTURE)
                                              if BEGIN_S <= wall - began <= END_S)))
        prometheus = Prometheus(folder, collector.port)
        try:
            wait_until(lambda: prometheus.query("up == 1"), 30.0, prometheus.said)
            ended = subprocess.run([*CHECKOUT, "replay", "--target", "unix:" + collector.socket, path], cwd=ROOT, env=clean_environment(),
                                   capture_output=True, timeout=60)
            assert ended.returncode == 0, ended.stderr
            sent = collector.json("/api/summary")["totals"]["counters"]["requests"]
            wait_until(lambda: prometheus.query(f"modwsgi_requests_total == {sent}"), 10.0, prometheus.said)
            yield prometheus, collector
        finally:
            prometheus.close()


def test_promtool_has_nothing_to_say_of_a_running_collector(watched):
    assert check_metrics(watched[1].get("/metrics")[2]) == (0, "")


def test_the_rate_of_requests_is_that_of_the_summary(watched):
    prometheus, collector = watched
    [(_, values)] = prometheus.query("modwsgi_requests_total[1m]")
    last = next(at for at, value in values if value == values[-1][1])        # when the last increase was scraped
    [(labels, rate)] = prometheus.query(f"rate(modwsgi_requests_total[{STEADY_S}s])", time=last)
    summary = collector.json("/api/summary")["totals"]["windows"]["1m"]["throughput"]
    assert 400 < summary < 700 and rate == pytest.approx(summary, rel=0.2)
    assert labels["process_group"] and labels["instance"] == f"127.0.0.1:{collector.port}"


@pytest.mark.parametrize("phase", ["request", "application", "gil_wait"])
def test_the_p95_is_that_of_the_summary_within_a_bucket(watched, phase):
    prometheus, collector = watched
    own = collector.json("/api/summary")["totals"]["windows"]["10m"]["phases"][phase]["p95"]
    [(_, p95)] = prometheus.query(f"histogram_quantile(0.95, sum by (le) (modwsgi_{phase}_seconds_bucket))")
    assert 0 < p95 < math.inf and bisect_left(PHASE_BOUNDS, p95) == bisect_left(PHASE_BOUNDS, own)


def test_every_scrape_was_good_and_every_sample_was_taken(watched):
    prometheus, collector = watched
    assert [value for _, value in prometheus.query("min_over_time(up[1m])")] == [1.0]
    [(_, scraped)] = prometheus.query("scrape_samples_scraped")
    families = openmetrics(collector.get("/metrics", {"Accept": "application/openmetrics-text"})[2])
    assert scraped == sum(len(family.samples) for family in families.values())
    told = prometheus.api("targets/metadata", metric="modwsgi_request_seconds")
    assert [(row["type"], row["unit"]) for row in told] == [("histogram", "seconds")]         # units are told by OpenMetrics alone


def test_names_that_break_out_of_a_label_reach_prometheus_as_names(watched):
    prometheus, collector = watched
    for pid, name in enumerate(HOSTILE, 100):
        collector.send(Worker(pid=pid, hostname="evil", group=name).tick(requests=1))
    shown = wait_until(lambda: (lambda found: len(found) == len(HOSTILE) and found)(
        prometheus.query('modwsgi_requests_total{hostname="evil"}')), 20.0, prometheus.said)
    assert {labels["process_group"] for labels, _ in shown} == {
        'a"b', "back\\slash", "two\nlines", "\\x00\\x07\\x1b[31m", '"} 1\nmodwsgi_requests_total 99', "{}", "%s%n", "\\u202ereverse",
        "ü\U0001f600", " ", "#", "a,b=\"c\"", "\\x85\\u2028", "x" * 255}
    assert check_metrics(collector.get("/metrics")[2]) == (0, "")
