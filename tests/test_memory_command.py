"""memory: tracing of memory started, compared and ended from outside, through the agent of a running application."""
import json
import re
import subprocess
import sys

import pytest

import running

APPLICATION = """
import sys
sys.path.insert(0, sys.argv[1])
from modwsgi_tel import agent
application = agent.middleware(lambda environ, start_response: start_response("200 OK", []) and [], log="off", socket=sys.argv[2])
application({}, lambda *given: None)
held = []
print("ready", flush=True)
for line in sys.stdin:
    held.append([str(number) * 10 for number in range(20000)])
    print("grown", flush=True)
"""


@pytest.fixture
def grows():
    with running.short_folder() as folder:
        process = subprocess.Popen([sys.executable, "-c", APPLICATION, running.ROOT, folder + "/none.sock"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, env=running.clean_environment())
        try:
            assert process.stdout.readline() == "ready\n"

            def grow():
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "grown\n"
            yield process.pid, grow
        finally:
            process.kill()
            process.wait(10)
            process.stdin.close()
            process.stdout.close()


def run(*arguments):
    done = subprocess.run([*running.CHECKOUT, "memory", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          text=True, env=running.clean_environment(), cwd=running.ROOT)
    return done.returncode, done.stdout, done.stderr


def test_the_line_that_grows_is_named_and_tracing_ends_when_told(grows):
    pid, grow = grows
    assert run(pid)[0] == 2
    status, said, _ = run(pid, "--start")
    assert status == 0 and said.startswith(f"pid {pid}: memory is traced from now on; ends by itself after 10 min.")
    grow()
    status, said, _ = run(pid)
    head, columns, first, *_ = said.splitlines()
    assert (status, columns.split()) == (0, ["more", "now", "blocks", "line"])
    assert re.fullmatch(r"pid \d+: traced for [\d.]+ m?s: \S+ MB now, at most \S+ MB; tracing itself takes \S+ [kM]B", head), head
    assert re.fullmatch(r" +[\d.]+ MB +[\d.]+ MB +\+\d\d,\d{3}  <string>:10", first), first
    status, said, _ = run(pid, "--json")
    line = json.loads(said)[0]["lines"][0]
    assert (status, line["file"], line["line"]) == (0, "<string>", 10) and line["growth"] > 1e6
    assert run(pid, "--stop")[1].endswith("tracing has ended\n")
    status, _, problem = run(pid)
    assert (status, problem.count("\n")) == (2, 1)


@pytest.mark.parametrize("arguments, said", [
    ((), "memory PID: of which process? (one pid)"), (("x",), "memory PID: of which process? (one pid)"),
    ((1, "--start", "--stop"), "--start or --stop, not both"), ((1, "--frames", "3"), "--frames belongs to --start")])
def test_what_cannot_be_meant_is_one_line(arguments, said):
    assert run(*arguments) == (2, "", f"modwsgi-tel: {said}\n")


def test_a_process_without_an_agent_is_told_what_to_do():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        status, _, problem = run(process.pid)
    finally:
        process.stdin.close()
        process.wait(10)
    assert (status, problem) == (2, f"modwsgi-tel: no agent listens in process {process.pid}: its application needs agent.install() or "
                                    "agent.middleware(), and must have served something\n")


def test_a_process_that_is_not_there_is_told_as_stacks_tells_it():
    assert run(4194999) == (2, "", "modwsgi-tel: there is no process 4194999: it has ended, or that is its pid in another container\n")
