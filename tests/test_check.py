"""check: each check at OK, WARNING, CRITICAL and UNKNOWN by summaries as plain data; then a real collector, and whatever may stand in its place."""
import contextlib
import json
import re
import socket
import subprocess
import sys
import time

import pytest

from builders import Worker
from modwsgi_tel import options
from modwsgi_tel.check import command
from modwsgi_tel.check.checks import CHECKS
from modwsgi_tel.errors import NoAnswer, Nonsense
from plugins import Datum, parsed
from running import CHECKOUT, ROOT, Collector, clean_environment, short_folder
from test_peer import Existing

DEADLINE_S = 30.0
STATUSES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


# --- summaries as plain data ------------------------------------------------------------------------------

def lives(**counts):
    return {**dict.fromkeys(("started", "running", "silent", "stopping", "stopped", "vanished", "replaced"), 0), **counts}


def a_window(seconds=60.0, requests=100, capacity=0.25, errors=0, **p95):
    return {"seconds": seconds, "requests": requests, "capacity": capacity, "status": {"2xx": requests - errors, "5xx": errors},
            "phases": {phase: {"p50": value / 2, "p95": value, "p99": value * 2} for phase, value in {"request": 0.2, **p95}.items()}}


def a_group(name="shop", host="web1", roles=("daemon",), alive=None, **window):
    return {"hostname": host, "process_group": name, "roles": dict.fromkeys(roles, 2), "lives": alive or lives(running=2),
            "windows": {"1m": a_window(**window), "10m": a_window(**window)}}


def a_process(pid=7, group="shop", life="running", silent_s=None, rss=50_000_000, role="daemon"):
    return {"pid": pid, "hostname": "web1", "process_group": group, "role": role, "life": life, "silent_s": silent_s, "rss": rss}


def a_finding(id="slow-requests", severity="warning", group="shop", text="slow", advice="look"):
    return {"id": id, "severity": severity, "hostname": group and "web1", "process_group": group, "text": text, "advice": advice}


def a_summary(groups=(), processes=(), findings=(), uptime=3600.0, alive=None, verdict="all quiet: 4 processes", lost=0, **own):
    names = list(dict.fromkeys(each["process_group"] for each in (*groups, *processes)))
    return {"type": "summary", "version": 1, "groups": list(groups), "processes": list(processes), "findings": list(findings), "verdict": verdict,
            "totals": {"processes": sum((alive or lives(running=4)).values()), "lives": alive or lives(running=4),
                       "process_groups": names or ["shop", "api"], "lost": lost},
            "collector": {"uptime_s": uptime, "received": 1000, "decode_errors": 0, "recent_gap_s": 0.01, "stalls": 0, "max_rss_bytes": 30_000_000, **own}}


@pytest.fixture
def checked(monkeypatch, capsys):
    """checked(summary, *arguments): (first line without its data, details, data) where `fetch` gives the summary, or raises it."""
    def work(summary, *arguments):
        def fetch(path, **where):
            if isinstance(summary, Exception):
                raise summary
            return json.loads(json.dumps(summary))
        monkeypatch.setattr(command, "fetch", fetch)
        status = command.check(options.read("check", list(arguments), {}))
        said = parsed(capsys.readouterr().out)
        assert STATUSES[status] == said.status
        return f"{said.status} - {said.text}", said.details, said.data
    return work


NOBODY = a_summary(alive=lives(), uptime=2.0)
ALL_ENDED = a_summary([a_group(alive=lives(stopped=2))], [a_process(life="stopped")], alive=lives(stopped=2))


@pytest.mark.parametrize("summary, arguments, wanted", [
    # findings
    (a_summary(), "", "OK - all quiet: 4 processes"),
    (a_summary(findings=[a_finding()]), "findings", "WARNING - slow"),
    (a_summary(findings=[a_finding("silent", "critical", None, "nothing arrives"), a_finding()]), "findings", "CRITICAL - nothing arrives (+1 more)"),
    (a_summary(findings=[a_finding("heard-late", "info", text="late")]), "", "OK - nothing is wrong"),
    (a_summary(findings=[a_finding("new-rule", "grave")]), "", "WARNING - slow"),
    (a_summary(findings=[a_finding(), a_finding()]), "findings -w 2", "OK - slow (+1 more)"),
    (a_summary(findings=[a_finding(severity="critical")]), "findings -c 1", "WARNING - slow"),
    (a_summary(findings=[a_finding()]), "findings --group api", "OK - nothing is wrong with api"),
    (a_summary(findings=[a_finding(group=None, text="lost")]), "findings --group api", "WARNING - lost"),
    (a_summary(uptime=2.0), "", "UNKNOWN - the collector runs for 2.0 s: too short to know"),
    (a_summary(uptime=2.0, findings=[a_finding()]), "", "WARNING - slow"),
    (ALL_ENDED, "findings", "UNKNOWN - no process runs: 2 ended"),
    # capacity
    (a_summary([a_group(), a_group("api", capacity=0.5)]), "capacity", "OK - capacity: 2 groups, the highest is api: 50 % busy in the last minute"),
    (a_summary([a_group(capacity=0.84)]), "capacity", "WARNING - capacity: shop: 84 % busy in the last minute (warning: 80 %)"),
    (a_summary([a_group(capacity=0.84), a_group("api", capacity=0.97)]), "capacity",
     "CRITICAL - capacity: api: 97 % busy in the last minute (critical: 95 %)"),
    (a_summary([a_group(capacity=0.84), a_group("api", capacity=0.97)]), "capacity --group shop",
     "WARNING - capacity: shop: 84 % busy in the last minute (warning: 80 %)"),
    (a_summary([a_group(capacity=0.1)]), "capacity -w 20%:", "WARNING - capacity: shop: 10 % busy in the last minute (warning: 20: %)"),
    (a_summary([a_group(capacity=0.1)]), "capacity -w @0.05:0.15 --window 10m",
     "WARNING - capacity: shop: 10 % busy in the last 10 minutes (warning: @5:15 %)"),
    (a_summary([a_group(capacity=None)]), "capacity", "UNKNOWN - capacity: no group tells it"),
    (a_summary([a_group(capacity=None), a_group("api")]), "capacity", "OK - capacity: api: 25 % busy in the last minute"),
    (a_summary([a_group(seconds=2.0)]), "capacity", "UNKNOWN - capacity: shop: has 2.0 s of data in the last minute, which is too little"),
    (a_summary([a_group(seconds=2.0), a_group("api", capacity=0.9)]), "capacity",
     "WARNING - capacity: api: 90 % busy in the last minute (warning: 80 %)"),
    (a_summary([a_group(alive=lives(silent=2))]), "capacity", "UNKNOWN - capacity: shop: 2 processes, all silent"),
    (a_summary([a_group(alive=lives(stopped=2)), a_group("api")]), "capacity", "OK - capacity: api: 25 % busy in the last minute"),
    (a_summary([a_group("", roles=["apache-child"], seconds=0.0), a_group("api")]), "capacity", "OK - capacity: api: 25 % busy in the last minute"),
    (a_summary([a_group("", roles=["apache-child", "embedded"])]), "capacity --group (embedded)",
     "OK - capacity: (embedded): 25 % busy in the last minute"),
    (a_summary([a_group(), a_group(host="web2", capacity=0.5)]), "capacity --group shop",
     "OK - capacity: 2 groups, the highest is shop@web2: 50 % busy in the last minute"),
    (a_summary([a_group(f"g{n}", capacity=0.9) for n in range(5)]), "capacity",
     "WARNING - capacity: " + ", ".join(f"g{n}: 90 % busy in the last minute (warning: 80 %)" for n in range(3)) + " (+2 more)"),
    (ALL_ENDED, "capacity", "UNKNOWN - no process runs: 2 ended"),
    # latency
    (a_summary([a_group()]), "latency", "OK - latency: shop: request p95 200 ms in the last minute"),
    (a_summary([a_group(request=2.5)]), "latency", "WARNING - latency: shop: request p95 2.5 s in the last minute (warning: 1 s)"),
    (a_summary([a_group(request=2.5)]), "latency --p 99 -c 4s -w 1:", "CRITICAL - latency: shop: request p99 5.0 s in the last minute (critical: 4 s)"),
    (a_summary([a_group(queue=0.04)]), "latency --phase queue --p 50 -w 10ms",
     "WARNING - latency: shop: queue p50 20.0 ms in the last minute (warning: 0.01 s)"),
    (a_summary([a_group()]), "latency --phase queue", "UNKNOWN - latency: no group tells it"),
    (a_summary([a_group(requests=0)]), "latency", "OK - latency: shop: no request in the last minute"),
    (a_summary([a_group(requests=0), a_group("api", requests=0)]), "latency", "OK - latency: 2 groups: no request in the last minute"),
    # errors
    (a_summary([a_group()]), "errors", "OK - errors: shop: 0 of 100 responses with 5xx (0 %) in the last minute"),
    (a_summary([a_group(errors=6)]), "errors", "WARNING - errors: shop: 6 of 100 responses with 5xx (6 %) in the last minute (warning: 5 %)"),
    (a_summary([a_group(errors=30)]), "errors", "CRITICAL - errors: shop: 30 of 100 responses with 5xx (30 %) in the last minute (critical: 25 %)"),
    (a_summary([a_group(errors=2, requests=2)]), "errors", "OK - errors: shop: 2 of 2 responses with 5xx (100 %) in the last minute"),
    (a_summary([a_group(errors=2, requests=2)]), "errors -c 0",
     "CRITICAL - errors: shop: 2 of 2 responses with 5xx (100 %) in the last minute (critical: 0 %)"),
    (a_summary([a_group(requests=0)]), "errors -c 0", "OK - errors: shop: no request in the last minute"),
    # silent
    (a_summary(processes=[a_process(), a_process(8)]), "silent", "OK - silent: shop: 2 processes, none silent"),
    (a_summary(processes=[a_process(), a_process(8, life="silent", silent_s=6.0)]), "silent",
     "OK - silent: shop: 1 of 2 processes silent, pid 8 for 6.0 s"),
    (a_summary(processes=[a_process(), a_process(8, life="silent", silent_s=12.0)]), "silent",
     "WARNING - silent: shop: 1 of 2 processes silent, pid 8 for 12.0 s (warning: 10 s)"),
    (a_summary(processes=[a_process(life="silent", silent_s=90.0), a_process(8, life="silent", silent_s=12.0)]), "silent",
     "CRITICAL - silent: shop: 2 of 2 processes silent, pid 7 for 90.0 s (critical: 30 s)"),
    (a_summary(processes=[a_process(life="silent", silent_s=90.0)], findings=[a_finding("heard-late", "info", text="uWSGI")]), "silent",
     "OK - silent: shop: 1 of 1 process silent, pid 7 for 90.0 s, which says nothing: uWSGI"),
    (a_summary(processes=[a_process(life="stopped")]), "silent", "UNKNOWN - silent: no process group to look at"),
    (ALL_ENDED, "silent", "CRITICAL - no process runs: 2 ended"),
    # rss
    (a_summary(processes=[a_process(), a_process(8, rss=70_000_000)]), "rss",
     "OK - rss: shop: largest 70.0 MB (pid 8), 2 processes 120 MB in all"),
    (a_summary(processes=[a_process(rss=700_000_000)]), "rss -w 500MB -c 1GB",
     "WARNING - rss: shop: largest 700 MB (pid 7), 1 process 700 MB in all (warning: 500000000 B)"),
    (a_summary(processes=[a_process(rss=2_000_000_000)]), "rss -w 500MB -c 1GB",
     "CRITICAL - rss: shop: largest 2.0 GB (pid 7), 1 process 2.0 GB in all (critical: 1000000000 B)"),
    (a_summary(processes=[a_process()], findings=[a_finding("memory-growth", text="pid 7 grew")]), "rss",
     "WARNING - rss: shop: largest 50.0 MB (pid 7), 1 process 50.0 MB in all: pid 7 grew"),
    (a_summary(processes=[a_process()], findings=[a_finding("memory-growth")]), "rss -w 1GB",
     "OK - rss: shop: largest 50.0 MB (pid 7), 1 process 50.0 MB in all"),
    (a_summary(processes=[a_process(rss=None)]), "rss", "UNKNOWN - rss: no group tells it"),
    # collector
    (a_summary(), "collector", "OK - collector: runs for 60 min, 1,000 datagrams received, 0 lost, 0 wrong"),
    (a_summary(findings=[a_finding("losing", text="12 datagrams lost")]), "collector", "WARNING - collector: 12 datagrams lost"),
    (a_summary(findings=[a_finding("collector", "critical", None, "socket removed"), a_finding()]), "collector",
     "CRITICAL - collector: socket removed"),
    (a_summary(findings=[a_finding()]), "collector", "OK - collector: runs for 60 min, 1,000 datagrams received, 0 lost, 0 wrong"),
    (a_summary(recent_gap_s=1.5), "collector", "WARNING - collector: it was away from its socket for 1.5 s (warning: 1 s)"),
    (a_summary(recent_gap_s=1.5), "collector -c 1", "CRITICAL - collector: it was away from its socket for 1.5 s (critical: 1 s)"),
    (a_summary(received=0), "collector", "UNKNOWN - runs for 60 min, and nothing has arrived: see modwsgi-tel doctor on that machine"),
    (a_summary(uptime=None), "collector", "UNKNOWN - this collector tells nothing of itself: it is none of modwsgi-tel's"),
    # all
    *((NOBODY, f"{name}", "UNKNOWN - no process has sent anything since the collector was started 2.0 s ago: see modwsgi-tel doctor on that machine")
      for name in ("findings", "capacity", "latency", "errors", "silent", "rss")),
    *((a_summary(), f"{name} --group nix", "UNKNOWN - no process group 'nix'; there are: shop, api")
      for name in ("findings", "capacity", "latency", "errors", "silent", "rss"))],
    ids=lambda value: value.partition(" - ")[0][:40] if isinstance(value, str) else "")
def test_each_check_says_how_it_is(checked, summary, arguments, wanted):
    assert checked(summary, *arguments.split())[0] == wanted


def test_each_group_has_a_line_and_a_value_whatever_its_state(checked):
    summary = a_summary([a_group(capacity=0.84), a_group("api", seconds=1.0), a_group("b|ad", capacity=0.1), a_group("c", capacity=None)])
    assert checked(summary, "capacity") == (
        "WARNING - capacity: shop: 84 % busy in the last minute (warning: 80 %)",
        ["WARNING: shop: 84 % busy in the last minute (warning: 80 %)",
         "UNKNOWN: api: has 1.0 s of data in the last minute, which is too little", "OK: b/ad: 10 % busy in the last minute"],
        {"api": Datum(None, None, "80", "95", "0", "100"), "b/ad": Datum("10", "%", "80", "95", "0", "100"),
         "shop": Datum("84", "%", "80", "95", "0", "100")})


def test_a_name_hides_neither_another_group_nor_what_is_said_of_it(checked):
    text, details, data = checked(a_summary([a_group("", capacity=0.99), a_group("(embedded)", capacity=0.1), a_group("x" * 255, capacity=0.98)]),
                                  "capacity")
    long = "x" * 57 + "..."
    assert text == ("CRITICAL - capacity: (embedded): 99 % busy in the last minute (critical: 95 %), "
                    f"{long}: 98 % busy in the last minute (critical: 95 %)")
    assert details[2] == "OK: (embedded)#: 10 % busy in the last minute" and list(data) == ["(embedded)", "(embedded)#", "x" * 64]


def test_too_few_findings_for_a_range_are_said_as_that(checked):
    assert checked(a_summary(), "findings", "-w", "1:")[0] == "WARNING - no finding (warning: 1:)"


def test_findings_come_with_what_to_do_about_them(checked):
    assert checked(a_summary(findings=[a_finding(), a_finding("heard-late", "info", text="late")])) == (
        "WARNING - slow", ["WARNING: slow", "  look", "OK: late", "  look"],
        {"findings": Datum("1", None, "0", None, "0", None), "critical": Datum("0", None, None, "0", "0", None)})


def test_the_collectors_own_figures_are_counters(checked):
    assert checked(a_summary(lost=3, uptime=12.5), "collector")[2] == {
        "recent_gap": Datum("0.01", "s", "1", "10", "0", None), "received": Datum("1000", "c", None, None, None, None),
        "lost": Datum("3", "c", None, None, None, None), "wrong": Datum("0", "c", None, None, None, None),
        "stalls": Datum("0", "c", None, None, None, None), "rss": Datum("30000000", "B", None, None, None, None),
        "uptime": Datum("12.5", "s", None, None, None, None)}


def test_of_a_hundred_groups_the_bounds_are_said(checked):
    text, details, data = checked(a_summary([a_group(f"group{n:03}", capacity=n / 100) for n in range(100)]), "capacity")
    assert text.startswith("CRITICAL - capacity: group099: 99 % busy in the last minute (critical: 95 %), group098: 98 % busy")
    assert list(data) == [f"group{n:03}" for n in range(50)]
    assert details[0] == "50 more values have no performance data"
    assert details[1] == "CRITICAL: group099: 99 % busy in the last minute (critical: 95 %)"
    assert details[-1].startswith("... and ")


# --- nonsense -----------------------------------------------------------------------------------------------

def nested(value):
    """Every place in some JSON, as a path of keys."""
    yield ()
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        for path in nested(inner):
            yield (key, *path)


def replaced(value, path, other):
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], other)
    return copy


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_nonsense_anywhere_is_a_state_in_one_line_and_no_traceback(monkeypatch, capsys, name):
    summary = a_summary([a_group(), a_group("api", errors=9)], [a_process(), a_process(8, life="silent", silent_s=20.0)],
                        [a_finding(), a_finding("memory-growth"), a_finding("collector", "critical", None)])
    values = options.read("check", [name], {})
    for path in nested(summary):
        for other in (None, "x", -1, 1e999, True, [], {}, 10**400):
            broken = replaced(summary, path, other)
            monkeypatch.setattr(command, "fetch", lambda path, **where: broken)
            status = command.check(values)
            assert parsed(capsys.readouterr().out).status == STATUSES[status]


@pytest.mark.parametrize("summary", [None, [], "x", 5, {}, {"type": "snapshot"}, {"type": "summary"}], ids=repr)
def test_what_is_no_summary_is_unknown(checked, summary):
    assert all(checked(summary, check.name)[0].startswith("UNKNOWN - http://127.0.0.1:8888: its summary is not as it should be")
               for check in CHECKS)


def test_a_figure_that_is_no_amount_is_never_judged(checked):
    for value in (-1, True, "0.5", [0.5]):
        assert checked(a_summary([a_group(capacity=value)]), "capacity")[0].startswith("UNKNOWN - http://127.0.0.1:8888: its summary is not as"), value


# --- what is no answer ----------------------------------------------------------------------------------------

def test_no_answer_is_critical_and_nonsense_is_unknown(checked):
    assert (checked(NoAnswer("http://x does not answer"))[0], checked(Nonsense("http://x: no HTTP answer"))[0]) == (
        "CRITICAL - http://x does not answer", "UNKNOWN - http://x: no HTTP answer")


@pytest.mark.parametrize("arguments, wanted", [
    ("nix", "check nix: one of findings, capacity, latency, errors, silent, rss, collector"),
    ("capacity latency", "check capacity latency: one of findings, capacity, latency, errors, silent, rss, collector"),
    ("capacity --p 99", "--p: means nothing to check capacity"), ("collector --group shop", "--group: means nothing to check collector"),
    ("findings --window 10m", "--window: means nothing to check findings"), ("rss --phase queue", "--phase: means nothing to check rss"),
    ("-w x", "--warning 'x' is no range: 10, 10:, ~:10, 10:20 or @10:20"),
    ("capacity --critical 95", "--critical '95': a share is from 0 to 1, as 0.8, or write 80%"),
    ("--token-file /nowhere", "--token-file /nowhere: No such file or directory"),
    ("--url ftp://x", "--url ftp://x: like http://127.0.0.1:8888"), ("--url https://x", None)])
def test_what_was_asked_wrongly_is_unknown(checked, capsys, arguments, wanted):
    if "ftp" in arguments or "https" in arguments:
        assert command.check(options.read("check", arguments.split(), {})) == 3
        text = parsed(capsys.readouterr().out).text
        assert text == (wanted or "--url https://x: TLS is not spoken here: use an ssh tunnel, as ssh -L 8888:127.0.0.1:8888 HOST, and "
                        "http://127.0.0.1:8888")
    else:
        assert checked(a_summary([a_group()]), *arguments.split())[0] == f"UNKNOWN - {wanted}"


def test_options_of_another_check_in_the_configuration_hurt_nobody(checked, tmp_path):
    path = tmp_path / "tel.ini"
    path.write_text("[check]\np = 99\nwindow = 10m\n")
    assert checked(a_summary([a_group()]), "capacity", "--config", str(path))[0] == "OK - capacity: shop: 25 % busy in the last 10 minutes"


def test_only_the_parts_that_a_check_reads_are_asked_for(monkeypatch):
    asked = []

    def fetch(path, **where):
        asked.append((path, where))
        raise NoAnswer("x")

    monkeypatch.setattr(command, "fetch", fetch)
    for name in ("findings", "latency", "silent"):
        command.check(options.read("check", [name, "--window", "10m"] if name == "latency" else [name, "-t", "2"], {}))
    where = {"url": "http://127.0.0.1:8888", "http_socket": None, "token": None}
    assert asked == [("/api/summary?window=1m&parts=collector,totals,findings", {**where, "timeout_s": 2.0}),
                     ("/api/summary?window=10m&parts=collector,totals,groups", {**where, "timeout_s": 10.0}),
                     ("/api/summary?window=1m&parts=collector,totals,processes,findings", {**where, "timeout_s": 2.0})]


# --- a real collector -------------------------------------------------------------------------------------------

def run(*arguments, environment=None):
    """(exit status, stdout, stderr) of check."""
    done = subprocess.run([*CHECKOUT, "check", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                          env=clean_environment(**(environment or {})), timeout=DEADLINE_S)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def said_by(*arguments, **more):
    """(the Said, its status checked against the exit status)."""
    status, out, err = run(*arguments, **more)
    assert err == "", err
    said = parsed(out)
    assert STATUSES[status] == said.status
    return said


@pytest.fixture(scope="module")
def running():
    """One with a unix socket for HTTP: `path`."""
    with short_folder() as folder, Collector("--http-socket", f"{folder}/http") as running:
        running.path = f"{folder}/http"
        # so long an interval that they are not silent, however long the tests take
        running.workers = [Worker(7, interval=600.0), Worker(8, group="b|ad='x'\n;y", interval=600.0)]
        running.send(running.workers[0].started())
        yield running


@pytest.fixture
def collector(running):
    """The same, with two groups, one of them in trouble and badly named, of which it has just heard."""
    well, bad = running.workers
    before = running.json("/api/summary")["collector"]["received"]
    running.send(well.tick(requests=30, sample_period=30.0),
                 bad.tick(requests=30, status={"2xx": 10, "5xx": 20}, sample_period=30.0, capacity_utilization=0.9))
    running.wait_for("/api/summary", lambda answer: answer["collector"]["received"] == before + 2)
    return running


def test_each_check_of_a_real_collector_keeps_to_the_grammar(collector):
    url = f"http://127.0.0.1:{collector.port}"
    found = {check.name: said_by(check.name, "--url", url) for check in CHECKS}
    assert {name: said.status for name, said in found.items()} == {
        "findings": "WARNING", "capacity": "WARNING", "latency": "OK", "errors": "CRITICAL", "silent": "OK", "rss": "OK", "collector": "OK"}
    assert re.fullmatch(r"errors: b/ad='x'\\n;y: [0-9]+ of [0-9]+ responses with 5xx \(67 %\) in the last minute \(critical: 25 %\)", found["errors"].text)
    assert list(found["errors"].data) == ["app", "b/ad:_x_/n;y"]


def test_the_numbers_are_the_summarys(collector):
    answer = collector.json("/api/summary")
    app = next(group for group in answer["groups"] if group["process_group"] == "app")
    data = said_by("latency", "--p", "99", "--phase", "application", "--group", "app", "--http-socket", collector.path).data
    assert abs(float(data["app"].value) - app["windows"]["1m"]["phases"]["application"]["p99"]) < 1e-6


def test_ranges_from_the_command_line_decide(collector):
    url = f"http://127.0.0.1:{collector.port}"
    assert said_by("capacity", "-w", "@20%:30%", "-c", "0.95", "--group", "app", "--url", url).text == (
        "capacity: app: 25 % busy in the last minute (warning: @20:30 %)")
    assert said_by("latency", "-w", "~:", "-c", "1ms", "--group", "app", "-t", "5", "--url", url).status == "CRITICAL"


def test_json_has_the_same_exit_status(collector):
    status, out, err = run("errors", "--json", "--http-socket", collector.path)
    found = json.loads(out)
    assert (status, err, found["exit_status"], found["check"], found["status"], len(found["figures"])) == (2, "", 2, "errors", "CRITICAL", 2)


def test_a_wrong_command_line_is_said_on_stdout_and_unknown():
    assert [run(*arguments) for arguments in (("--nix",), ("--p", "96"), ("-w",), ("-t", "never"))] == [
        (3, "TEL UNKNOWN - unrecognized arguments: --nix; see modwsgi-tel check --help\n", ""),
        (3, "TEL UNKNOWN - --p '96': one of 50, 95, 99\n", ""),
        (3, "TEL UNKNOWN - argument -w/--warning: expected one argument; see modwsgi-tel check --help\n", ""),
        (3, "TEL UNKNOWN - --timeout 'never': seconds, at least 0.1, as 0.5, 10m or 2h\n", "")]


def test_a_dead_collector_is_critical_with_what_to_do(tmp_path):
    path = str(tmp_path / "http")
    assert run("--http-socket", path) == (
        2, f"TEL CRITICAL - {path} does not answer: No such file or directory; is the collector running?\n", "")


def test_what_could_not_be_said_is_no_state(collector):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*CHECKOUT, "check", "--http-socket", collector.path], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                              cwd=ROOT, env=clean_environment(), timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (3, b"modwsgi-tel: cannot write to stdout: No space left on device\n")


@contextlib.contextmanager
def server(answer):
    """The URL of something that takes connections, in a process of its own for as long as the block, and says `answer` to each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = ("import socket, sys\nlistener = socket.socket(fileno=int(sys.argv[1]))\nheld = []\n"
                "while True:\n connection = listener.accept()[0]\n held.append(connection)\n"
                " connection.recv(65536)\n connection.sendall(bytes.fromhex(sys.argv[2]))\n if sys.argv[2]: connection.close()\n")
        child = subprocess.Popen([sys.executable, "-c", code, str(listener.fileno()), answer.hex()], pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            child.kill()
            child.wait(DEADLINE_S)


def test_one_that_never_answers_is_critical_in_time():
    with server(b"") as url:
        began = time.monotonic()
        assert run("--url", url, "-t", "0.3") == (2, f"TEL CRITICAL - {url} did not answer within 0.3 s\n", "")
        assert time.monotonic() - began < DEADLINE_S


@pytest.mark.parametrize("answer, wanted", [
    (b"SSH-2.0-OpenSSH_9.2\r\n", "{}: no HTTP answer: it does not begin with HTTP/1.1"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"type\": \"summa", "{}: no HTTP answer: IncompleteRead"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"a\": NaN}   ", "{}/api/summary?window=1m&parts=collector,totals,findings: answers 200 and no JSON"),
    (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "{} asks for a token: give --token-file"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "{}: its summary is not as it should be (KeyError('type')): another version?")])
def test_another_answer_than_a_collectors_is_unknown(answer, wanted):
    with server(answer) as url:
        assert run("--url", url) == (3, "TEL UNKNOWN - " + wanted.format(url) + "\n", "")


def test_a_token_is_given_where_one_is_asked_for(tmp_path):
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text("s3cret-of-this-test\n")
    wrong.write_text("another\n")
    with Collector("--token-file", str(good)) as running:
        url = f"http://127.0.0.1:{running.port}"
        assert [said_by("--url", url, *more).text for more in ((), ("--token-file", str(wrong)))] == [
            f"{url} asks for a token: give --token-file", f"{url} refuses the token that it was given"]
        assert said_by("--url", url, "--token-file", str(good)).text.startswith("no process has sent anything since")


def test_processes_that_fall_silent_are_seen(collector):
    quiet = Worker(9, group="quiet")
    collector.send(quiet.started(), quiet.tick(requests=1))
    collector.wait_for("/api/processes?life=silent", lambda answer: answer["matched"])
    said = said_by("silent", "-w", "0", "-c", "1h", "--group", "quiet", "--http-socket", collector.path)
    assert said.status == "WARNING" and said.text.startswith("silent: quiet: 1 of 1 process silent, pid 9 for ")
    assert said_by("capacity", "--group", "quiet", "--http-socket", collector.path).text == "capacity: quiet: 1 process, all silent"


# --- the existing collector ---------------------------------------------------------------------------------------

def test_the_existing_collectors_state_is_understood(monkeypatch, capsys):
    worker, now = Worker(pid=7), time.time()
    state = Existing(worker.started(stamp=now - 31), *(worker.tick(requests=3, stamp=now - 30 + second) for second in range(30))).answer()

    def fetch(path, **where):
        if path == "/api/state":
            return json.loads(json.dumps(state))
        raise Nonsense(f"{path}: answers 404")

    monkeypatch.setattr(command, "fetch", fetch)
    found = {}
    for check in CHECKS:
        found[check.name] = command.check(options.read("check", [check.name], {})), parsed(capsys.readouterr().out).text
    assert found == {
        "findings": (0, found["findings"][1]), "capacity": (0, "capacity: app: 25 % busy in the last minute"),
        "latency": (0, "latency: app: request p95 100 ms in the last minute"),
        "errors": (0, "errors: app: 0 of 90 responses with 5xx (0 %) in the last minute"), "silent": (0, "silent: app: 1 process, none silent"),
        "rss": (0, "rss: app: largest 52.4 MB (pid 7), 1 process 52.4 MB in all"),
        "collector": (3, "this collector tells nothing of itself: it is none of modwsgi-tel's")}
    assert found["findings"][1].startswith("all quiet: 1 process")
