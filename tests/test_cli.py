"""The command line as a user has it: help, errors, streams that are closed or full, and the demo."""
import os
import re
import signal
import subprocess
import sys

import pytest

from modwsgi_tel import __version__
from modwsgi_tel.options import BY_COMMAND, COMMANDS, command_help, program_help
from modwsgi_tel.wire import blocks
from running import CHECKOUT, ROOT, Collector, clean_environment, short_folder, wait_until

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
COMMAND_NAMES = [command.name for command in COMMANDS]
DEADLINE_S = 30.0


def run(*arguments, environment=None, timeout=DEADLINE_S, **more):
    """(exit status, stdout, stderr) of a command from the checkout."""
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run([*CHECKOUT, *arguments], stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          cwd=ROOT, env=clean_environment(**(environment or {})), timeout=timeout, **more)
    return done.returncode, None if done.stdout is None else done.stdout.decode(), done.stderr.decode()


def one_line(outcome):
    """The one line on stderr of what could not be done."""
    status, out, err = outcome
    assert (status, out) == (2, ""), outcome
    assert err.endswith("\n") and err.count("\n") == 1 and err.startswith("modwsgi-tel: "), err
    return err[len("modwsgi-tel: "):-1]


# --- help ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", COMMAND_NAMES)
def test_help_for_a_command(command):
    assert run(command, "--help") == (0, command_help(command), "")


@pytest.mark.parametrize("form", [("dump", "-h"), ("help", "dump"), ("dump", "--nonsense", "--help")])
def test_other_ways_to_ask_for_help(form):
    assert run(*form) == (0, command_help("dump"), "")


@pytest.mark.parametrize("form", ["--help", "-h", "help"])
def test_help_for_the_program(form):
    assert run(form) == (0, program_help(), "")


@pytest.mark.parametrize("form", ["--version", "-V", "check -V", "serve --version"])
def test_the_version(form):
    assert run(*form.split()) == (0, f"modwsgi-tel {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})\n", "")


@pytest.mark.parametrize("command", COMMAND_NAMES)
def test_help_needs_nothing_but_the_bare_interpreter(command):
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {ROOT!r})\n"
                           "from modwsgi_tel.cli import main\nsys.exit(main())", command, "--help"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=DEADLINE_S, cwd="/")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, command_help(command), b"")


def test_it_runs_from_the_root_of_the_checkout_without_a_site(serve):
    collector = serve(program=[sys.executable, "-S", "-m", "modwsgi_tel"])
    assert collector.get("/version")[0] == 200 and collector.stop() == 0


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, said", [
    (["nonsense"], "no command 'nonsense'; there are " + ", ".join(BY_COMMAND) + "; see modwsgi-tel --help"),
    ([""], "no command ''; there are " + ", ".join(BY_COMMAND) + "; see modwsgi-tel --help"),
    (["--nonsense"], "unrecognized arguments: --nonsense; see modwsgi-tel serve --help"),
    (["dump", "--nonsense"], "unrecognized arguments: --nonsense; see modwsgi-tel dump --help"),
    (["serve", "one\ntwo \x1b[31m"], "unrecognized arguments: one\\ntwo \\x1b[31m; see modwsgi-tel serve --help"),
    (["demo", "x"], "unrecognized arguments: x; see modwsgi-tel demo --help"),
    (["replay"], "replay: which files? see modwsgi-tel replay --help"),
    (["simulate", "--speed", "max"], "--speed max: needs a --duration, or it never ends"),
    (["simulate", "--target", "udp:1"], None), (["replay", "x", "--target", "unix:"], None),
    (["replay", "/none/x.cap"], None), (["simulate", "--target", "unix:/none/t.sock"], None)])
def test_what_cannot_be_done_is_one_line_and_status_2(argv, said):
    line = one_line(run(*argv))
    assert said is None or line == said


def test_an_argument_that_is_no_text_is_shown_and_not_a_traceback():
    line = one_line(run("serve", "--socket-group", b"\xff\xfe"))
    assert line == "--socket-group \\udcff\\udcfe: no such group; getent group lists them"


def test_ctrl_c_is_no_traceback(serve):
    collector = serve()
    process = subprocess.Popen([*CHECKOUT, "simulate", "--target", f"unix:{collector.socket}"], cwd=ROOT, env=clean_environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))     # as in a terminal
    collector.wait_for("/api/state?samples=0", lambda state: state["total_received"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    line, = err.decode().splitlines()
    assert process.returncode == 130 and out == b"" and re.match(r"modwsgi-tel: \d+ datagrams sent in ", line), err


# --- streams that are not there -------------------------------------------------------------------

@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


@pytest.mark.parametrize("command", ["--help", "serve --help", "--version", "dump"])
def test_a_reader_that_has_gone_is_no_complaint(collector, command):
    reading, writing = os.pipe()
    os.close(reading)
    more = ["--url", f"http://127.0.0.1:{collector.port}"] if command == "dump" else []
    try:
        assert run(*command.split(), *more, stdout=writing) == (141, None, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("command", ["--help", "serve --help", "--version", "dump"])
def test_an_output_that_is_full_is_one_line(collector, command):
    more = ["--url", f"http://127.0.0.1:{collector.port}"] if command == "dump" else []
    with open("/dev/full", "wb") as full:
        status, _, err = run(*command.split(), *more, stdout=full)
    assert (status, err) == (2, "modwsgi-tel: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("which", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command, status", [("--version", 0), ("nonsense", 2), ("dump --url http://127.0.0.1:{}", 0),
                                             ("dump --url http://127.0.0.1:1", 2)])
def test_a_stream_that_is_closed_is_no_reason_to_fail(collector, which, command, status):
    command = f'exec "$0" -m modwsgi_tel {command.format(collector.port)} {which}'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_escapes_and_not_a_traceback(serve, encoding):
    from modwsgi_tel.wire.codec import encode, named
    from modwsgi_tel.wire.fields import REQUEST_METRICS
    collector = serve()
    collector.send(encode(REQUEST_METRICS, 1, 1, 1.0, named(hostname="h", process_group="\u540d\u524d")))
    collector.wait_for("/api/state", lambda state: state["total_received"])
    status, out, err = run("dump", "--url", f"http://127.0.0.1:{collector.port}", environment={"PYTHONIOENCODING": encoding})
    assert (status, err) == (0, "") and "\\u540d\\u524d" in out


# --- sending ----------------------------------------------------------------------------------------

def test_simulate_feeds_a_collector(serve):
    collector = serve()
    status, out, err = run("simulate", "--target", f"unix:{collector.socket}", "--speed", "max", "--duration", "30s",
                           "--processes", "3", "--groups", "2")
    assert (status, out) == (0, "")
    sent = int(re.fullmatch(r"modwsgi-tel: (\d+) datagrams sent in [\d.]+ s by 1 process, 0 dropped, .*\n", err).group(1))
    summary = collector.wait_for("/api/summary", lambda summary: summary["collector"]["received"] == sent and summary)
    assert (len(summary["processes"]), len(summary["groups"]), summary["collector"]["decode_errors"],
            summary["totals"]["lost"]) == (3, 2, 0, 0)
    assert summary["totals"]["counters"]["requests"] > 0


def test_simulate_waits_for_a_collector_when_told_to(serve):
    with Collector() as collector:
        process = subprocess.Popen([*CHECKOUT, "simulate", "--wait", "--target", f"unix:{collector.socket}x", "--duration", "1s",
                                    "--speed", "max"], cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE)
        try:
            assert b"waiting for a collector" in process.stderr.readline()
            late = serve(socket=collector.socket + "x")
            late.wait_for("/api/state?samples=0", lambda state: state["total_received"])
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def test_replay_feeds_a_collector(serve):
    collector = serve()
    names = [os.path.join(CAPTURES, f"{name}.cap.gz") for name in ("smoke", "lifecycle")]
    count = 0
    for name in names:
        with open(name, "rb") as handle:
            count += sum(1 for _ in blocks.read(handle, name))
    status, out, err = run("replay", "--target", f"unix:{collector.socket}", "--speed", "max", *names)
    assert (status, out) == (0, "") and err.startswith(f"modwsgi-tel: {count} datagrams sent in "), err
    found = collector.wait_for("/api/summary", lambda summary: summary["collector"]["received"] == count and summary)
    assert (found["collector"]["decode_errors"], found["totals"]["lost"]) == (0, 0)


def test_replay_of_what_is_no_capture_is_nonsense(serve):
    collector = serve()
    name = os.path.join(CAPTURES, "README.md")
    status, out, err = run("replay", "--target", f"unix:{collector.socket}", "--speed", "max", name)
    assert (status, out, err.splitlines()[-1][:13]) == (3, "", "modwsgi-tel: "), err


# --- demo ---------------------------------------------------------------------------------------------

def children_of(pid):
    """The pids whose parent is `pid`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as handle:
                    if int(handle.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                pass
    return found


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Demo:
    """`demo` in a process group of its own, as a shell starts it."""

    def __init__(self, folder, *options):
        self._said = open(os.path.join(folder, "said"), "w+b")
        self.folder = os.path.join(folder, "tmp")
        os.mkdir(self.folder)
        self.process = subprocess.Popen([*CHECKOUT, "demo", *options], cwd=ROOT, env=clean_environment(TMPDIR=self.folder),
                                        stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, start_new_session=True)

    def said(self):
        return os.pread(self._said.fileno(), 1 << 20, 0).decode()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(DEADLINE_S)
        self._said.close()


@pytest.fixture
def demo():
    started = []
    with short_folder() as folder:
        def start(*options):
            started.append(Demo(folder, *options))
            return started[-1]
        yield start
        for each in started:
            each.__exit__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_shows_live_data_and_what_to_try_and_ends_without_a_trace(demo, number):
    import json
    import urllib.request
    running = demo("--http-port", "0")
    found = wait_until(lambda: "Ctrl-C ends it." in running.said()
                       and re.search(r"serves (http://127\.0\.0\.1:\d+)/", running.said()), DEADLINE_S, running.said)
    url = found.group(1)

    def summary():
        with urllib.request.urlopen(f"{url}/api/summary", timeout=DEADLINE_S) as answer:
            return json.load(answer)

    wait_until(lambda: len(summary()["processes"]) == 4 and summary()["totals"]["counters"]["requests"], DEADLINE_S, running.said)
    said = running.said()
    commands = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert f"curl {url}/" in commands and f"python3 -m modwsgi_tel dump --url {url}" in commands
    for command in commands:            # what it says to try works
        if command.startswith("python3 -m modwsgi_tel dump"):
            status, out, err = run(*command.split()[3:])
            assert (status, err) == (0, "") and "4 running" in out
    target = [command for command in commands if " simulate " in command][0].split()
    status, _, err = run(*target[3:], "--duration", "1s", "--speed", "max")
    assert status == 0, err
    child = min(children_of(running.process.pid))       # the fleet; helpers come and go
    if number == signal.SIGINT:         # the terminal sends it to all
        os.killpg(running.process.pid, number)
    else:
        running.process.send_signal(number)
    assert running.process.wait(DEADLINE_S) == 0
    assert not lives(child) and os.listdir(running.folder) == [] and "Traceback" not in running.said()


def test_the_demo_ends_after_its_duration(demo):
    running = demo("--http-port", "0", "--duration", "0.5s")
    assert running.process.wait(DEADLINE_S) == 0 and os.listdir(running.folder) == [] and "Traceback" not in running.said()


def test_the_fleet_of_a_demo_that_is_killed_ends_too(demo):
    running = demo("--http-port", "0")
    wait_until(lambda: "Ctrl-C ends it." in running.said() and children_of(running.process.pid), DEADLINE_S, running.said)
    child = min(children_of(running.process.pid))       # the fleet; helpers come and go
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not lives(child), DEADLINE_S, "the simulated fleet lives on")


def test_a_demo_whose_port_is_taken_is_one_line_and_leaves_nothing(demo):
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        running = demo("--http-port", str(taken.getsockname()[1]))
        assert running.process.wait(DEADLINE_S) == 2
    assert running.said().count("\n") == 1 and "another program serves there" in running.said()
    assert os.listdir(running.folder) == []
