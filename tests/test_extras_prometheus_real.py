"""A real Prometheus with the configuration, the rules and the panels' questions as they are shipped, and a real collector with a token."""
import os
import re
import shutil
import subprocess

import pytest

import test_extras_grafana as panels_of
import test_openmetrics_real as real
from modwsgi_tel.extras import prometheus
from running import CHECKOUT, ROOT, Collector, clean_environment, short_folder, wait_until
from test_extras_prometheus import ALERTS, RECORDING, SCRAPE

pytestmark = real.pytestmark
TOKEN = "c2VjcmV0IHRva2Vu"


@pytest.fixture(scope="module")
def gathered():
    """A Prometheus that scrapes a collector with traffic."""
    with short_folder() as folder, pytest.MonkeyPatch.context() as patched:
        token = os.path.join(folder, "modwsgi-tel.token")
        with open(token, "w") as handle:
            handle.write(TOKEN + "\n")
        for name, path in (("recording", RECORDING), ("alerts", ALERTS)):
            shutil.copy(path, os.path.join(folder, f"modwsgi-tel-{name}.yml"))
        with open(SCRAPE, encoding="utf-8") as handle:
            config = handle.read()
        for shipped, here in (("/etc/prometheus/rules", folder), ("/etc/prometheus/modwsgi-tel.token", token), ("web1:8888", "127.0.0.1:%d"),
                              ("          - web2:8888\n", ""), ("scrape_interval: 15s", "scrape_interval: 200ms\n  scrape_timeout: 200ms"),
                              ("evaluation_interval: 15s", "evaluation_interval: 500ms")):
            assert config.count(shipped) >= 1, shipped
            config = config.replace(shipped, here)
        patched.setattr(real, "CONFIG", config)
        with Collector("--token-file", token, "--metrics-processes", "5") as collector:
            server = real.Prometheus(folder, collector.port)
            sender = subprocess.Popen([*CHECKOUT, "simulate", "--target", "unix:" + collector.socket, "--profile", "slow", "--interval", "0.5",
                                       "--processes", "2", "--groups", "1"], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: server.query("sum(rate(modwsgi_requests_total[20s])) > 0"), 30.0, server.said)
                yield server
            finally:
                sender.kill()
                sender.wait(10)
                server.close()


def rules(server):
    return [rule for group in (server.api("rules") or {"groups": []})["groups"] for rule in group["rules"]]


def test_every_rule_is_evaluated_without_an_error(gathered):
    expected = len(prometheus.recordings()) + len(prometheus.ALERTS)
    found = wait_until(lambda: [each for each in [rules(gathered)] if all(rule["health"] != "unknown" for rule in each)], 30.0, gathered.said)[0]
    assert len(found) == expected and [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


def test_recording_rules_come_to_something(gathered):
    for name in ("group:modwsgi_requests:rate5m", "fleet:modwsgi_request_seconds:p95_5m", "group:modwsgi_capacity:share_5m", "fleet:modwsgi_threads_active:sum"):
        wait_until(lambda name=name: gathered.query(name + " >= 0"), 30.0, gathered.said)


def test_prometheus_answers_every_panel_and_hardly_one_with_nothing(gathered):
    empty = set()
    with open(panels_of.PATH, encoding="utf-8") as handle:
        dashboard = panels_of.json.load(handle)
    for expr in panels_of.expressions(dashboard):
        expr = expr.replace("[1m]", "[20s]").replace("web1:8888|web2:8888", ".*")
        answer = gathered.api("query", query=expr)
        assert answer is not None, f"refused: {expr}"
        if not answer["result"]:
            empty.update(name for name, _ in panels_of.names_in(expr))
    # what nobody tells here: there is no agent, no recording, no file, no trouble
    absent = re.compile("exceptions|records|textfile|descriptors|gil_coefficient|gc_|findings|silent|switch_interval|stacks|samples|helpers|silence|"
                        "stalls|log_lines|collector_losses|decode_errors")
    assert {name for name in empty if not absent.search(name)} == set()
