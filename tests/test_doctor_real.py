"""The command `doctor` on real Apaches that are broken in each way: it says so, its commands mend it, and then it has nothing to say.

What is staged, and how: doctoring.py.
"""
import json
import os
import re
import subprocess
import sys

import pytest

import apache
import doctoring
import running
import staging
import wsgiservers

# What the step says of it, and that there is a command or a directive for it
SAYS = {
    "absent": r"Apache \(pid \d+\) is not told to send: there is no WSGITelemetryService",
    "not_defined": r"Apache \(pid \d+\) is not told to send: there is no WSGITelemetryService in force",
    "in_a_virtual_host": r"WSGITelemetryService is in the wrong place: it stands in <VirtualHost \S+>, where Apache refuses it: .*",
    "off": r"WSGITelemetryService is switched off",
    "other_path": r"Apache sends to another socket than the collector's: it to /\S+/other.sock, and the collector listens on /\S+/t.sock",
    "long_path": r"the path of WSGITelemetryService has \d{3} bytes, a socket's has at most 107: .*",
    "not_reloaded": r"the configuration was changed, and the server has not read it since",
    "socket_not_writable": r"2 processes of www-data \(\d+, \d+\) may not write to the socket /\S+/t.sock, so that every datagram is dropped without a word",
    "folder_not_searchable": r"2 processes of www-data \(\d+, \d+\) may not search the folder /\S+, so that every datagram is dropped without a word",
    "no_collector": r"no collector runs: /\S+/t.sock: a socket is there that nobody has open: a collector died",
    "socket_removed": r"modwsgi-tel \(pid \d+, root\) has lost its socket /\S+/t.sock: the file is gone",
    "socket_taken_over": r"modwsgi-tel \(pid \d+, root\) has lost its socket /\S+/t.sock: another socket is there, of pid \d+",
    "stopped": r"modwsgi-tel \(pid \d+, root\) is stopped: it takes nothing, .*",
    "nobody_reads": r"threads of 2 processes wait in their send: the socket's queue is full, and nobody takes from it",
    "short_queue": r"2 processes send into a queue of 1 datagram: .*",
    "no_slow_requests": r"Apache \(pid \d+\) tells of no slow requests: WSGISlowRequests is not set",
    "nonsense_arrives": r"1 datagram of \d+ could not be understood \(header 1\): .*",
    "stacks_not_readable": r"the collector, as nobody, may not read the stacks of Apache's processes: it has no CAP_SYS_PTRACE and no --stacks-helper",
    "private_tmp": r"Apache \(pid \d+\) has a file system of its own, in which nothing is at that path: the collector's /tmp/\S+ is out of its sight",
    "too_old": r"Apache \(pid \d+\) 2\.4\.\d+, mod_wsgi 4\.\S+: too old to send, which begins with 6.0; no agent in its application does it",
}
CASES = [(room, case.__name__) for room, (_, cases) in doctoring.ROOMS.items() for case in cases]


@pytest.fixture(scope="module")
def staged(pyz):
    """{room: {case: what doctor said}}; all rooms at once, each in namespaces of its own."""
    try:
        apache.express()
    except apache.Missing as missing:
        pytest.skip(str(missing))
    if subprocess.run([*staging.UNSHARE, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode:
        pytest.skip("no namespaces can be made here")
    rooms = {}
    for name in doctoring.ROOMS:
        if name == "old" and not os.path.exists(wsgiservers.MOD_WSGI):
            continue
        rooms[name] = subprocess.Popen([*staging.UNSHARE, sys.executable, os.path.join(running.ROOT, "tests", "doctoring.py"), name],
                                       cwd=running.ROOT,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                                       env=running.clean_environment(**{doctoring.PYZ: pyz}))
    told = {}
    try:
        for name, process in rooms.items():
            out, wrong = process.communicate(timeout=240)
            assert process.returncode == 0, wrong
            told[name] = json.loads(out)
    finally:
        for process in rooms.values():
            if process.poll() is None:
                process.kill()
            process.wait(10)
    return told


def of(staged, room, case):
    if room not in staged:
        pytest.skip("no %s (apt-get install libapache2-mod-wsgi-py3)" % wsgiservers.MOD_WSGI)
    if case not in staged[room]:
        pytest.skip("a case before it failed")
    assert "error" not in staged[room][case], staged[room][case]["error"]
    return staged[room][case]


def lines(told, state):
    return [(step["id"], each["text"]) for step in told["steps"] for each in step["results"] if each["state"] == state]


@pytest.mark.parametrize("room, case", [each for each in CASES if each[1] in SAYS])
def test_what_is_broken_is_said_and_mended_by_the_commands_that_it_gives(staged, room, case):
    told = of(staged, room, case)
    wrong = doctoring.results(told["before"], told["step"], "wrong")
    assert re.fullmatch(SAYS[case], wrong[0]["text"]) and wrong[0]["mends"], wrong
    others = [each for each in lines(told["before"], "wrong") if each[0] != told["step"]]
    # a stranger at the socket is said where the collector is missed, too
    assert [step for step, _ in others] == (["collector"] if case == "nobody_reads" else []), others
    assert told["before"]["wrong"] == len(lines(told["before"], "wrong"))
    assert lines(told["after"], "wrong") == lines(told["after"], "unknown") == []


def test_a_healthy_server_gives_nothing_to_complain_of(staged):
    after = of(staged, "configuration", "healthy")["after"]
    assert (after["verdict"], after["wrong"], after["unknown"]) == ("telemetry arrives from 2 of 2 processes; nothing is wrong", 0, 0)
    assert {step["id"]: step["state"] for step in after["steps"]} == {step["id"]: "ok" for step in after["steps"]}


def test_evidence_names_the_line_of_the_configuration(staged):
    result = doctoring.results(of(staged, "configuration", "not_defined")["before"], "directive", "wrong")[0]
    assert re.fullmatch(r"/\S+/httpd.conf:\d+: WSGITelemetryService unix:\S+ interval=0.5: it stands in <IfDefine TELEMETRY>, which does not hold here",
                        result["evidence"][0]), result


def test_an_ordinary_user_is_told_what_root_would_see(staged):
    status, told = of(staged, "way", "asked_by_nobody")["nobody"]
    assert (status, told["arriving"], told["expected"], told["wrong"]) == (0, 2, 2, 0)
    assert [step for step, _ in lines(told, "unknown")] == ["tool", "queue"]
    assert all(each["mends"][0]["text"].startswith("sudo ") for step in ("tool", "queue")
               for each in doctoring.results(told, step, "unknown"))


@pytest.mark.parametrize("how, said", [("hidden", r"no server was found: /proc hides the processes of others \(hidepid=\w+\)"),
                                       ("no proc", "no server was found")])
def test_what_cannot_be_looked_at_is_not_called_wrong(staged, how, said):
    status, told = of(staged, "way", "asked_by_nobody")[how]
    assert (status, told["wrong"]) == (2, 0), lines(told, "wrong")
    assert re.fullmatch(said, doctoring.results(told, "servers", "unknown")[0]["text"])


def run(*options):
    return subprocess.run([*running.CHECKOUT, "doctor", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60,
                          cwd=running.ROOT, env=running.clean_environment(), encoding="utf-8")


@pytest.mark.parametrize("options, said", [
    (("--listen", "udp:127.0.0.1:9"), "--listen udp:127.0.0.1:9: udp is not possible: .*"),
    (("--listen", "unix:/" + 107 * "x"), "--listen /x+: 108 bytes, a unix socket's path has at most 107; .*"),
    (("--url", "http://127.0.0.1:1", "--http-socket", "/x"), "--url and --http-socket: one of them"),
    (("--pid", "4194304"), "process 4194304 is of no server that is known here: give a pid of Apache, gunicorn or uWSGI"),
])
def test_a_mistake_is_one_line_and_status_2(options, said):
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"modwsgi-tel: {said}\n", done.stderr), done.stderr
