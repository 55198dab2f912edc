"""inspect on real processes, as a user runs it: what it says, its exit status, and who has a file or a port."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

import interpreters
import running
from modwsgi_tel.inspection import further, holders
from targets import Target
from terminals import Tmux

NOBODY = 65534
PYTHON = [sys.executable, "-I", "-S"]
STUCK = """
import os, socket, threading
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen(5)
near = socket.create_connection(server.getsockname())
far, _ = server.accept()
far.sendall(b"x" * 3000)
waiting = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
kept = [open("/etc/passwd") for _ in range(30)]
name = "/tmp/mwt-inspect-%d" % os.getpid()
gone = open(name, "w")
os.unlink(name)

def waits_for_the_backend():
    waiting.recv(1)

threading.Thread(target=waits_for_the_backend, daemon=True).start()
os.environ["SOMETHING"] = "too late to be seen"
TOLD = {"port": server.getsockname()[1], "gone": name}
"""
SPINS = """
import threading
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
TOLD = {}
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it looks as another user")


def run(*arguments, timeout=30, program=running.CHECKOUT, **popen):
    return subprocess.run([*program, "inspect", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          cwd=popen.pop("cwd", running.ROOT), env=running.clean_environment(PYTHONDONTWRITEBYTECODE="1"), universal_newlines=True, **popen)


def looked(*arguments, **more):
    done = run(*arguments, "--interval", "0.3", "--json", **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["processes"]


@pytest.fixture(scope="module")
def stuck():
    with Target(PYTHON, STUCK) as target:
        running.wait_until(lambda: b"recvfrom" in wchan_of(target.pid), 20, "no thread waits in recvfrom")
        yield target


def wchan_of(pid):
    found = b""
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/task/{tid}/syscall", "rb") as file:
                found += b"recvfrom " * (file.read().split()[:1] in ([b"45"], [b"207"]))
    return found


@pytest.fixture
def as_nobody():
    """What `run` takes to look as another user: a package that all may read, and a Python that all may run."""
    python = interpreters.for_user(NOBODY)
    with running.short_folder() as folder:
        yield {"program": (python, "-m", "modwsgi_tel"), "cwd": running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources")),
               "user": NOBODY, "group": NOBODY, "extra_groups": []}


# --- a process --------------------------------------------------------------------------------------

def test_a_process_is_shown_with_where_it_waits_and_what_it_has_open(stuck):
    done = run(stuck.pid, "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout
    assert re.search(r"^  \d+ .* sleeping  recvfrom on tcp 127\.0\.0\.1:%d\b.*\n      in .*program\.py:\d+ waits_for_the_backend$" % stuck.told["port"],
                     shown, re.M), shown
    assert f"  ! deleted files open: 1 ({stuck.told['gone']}); their space is free only when they are closed\n" in shown
    assert f"  - 1 thread waits for 127.0.0.1:{stuck.told['port']}\n" in shown
    assert re.search(r"^  most often  30 times /etc/passwd", shown, re.M), shown
    assert re.search(r"^  talks to +tcp 127\.0\.0\.1:%d \(pid %d python\S*\), 2 connections, 3\.0 kB waiting to be read$"
                     % (stuck.told["port"], stuck.pid), shown, re.M), shown
    assert re.search(r"^  version     %s" % re.escape(".".join(map(str, sys.version_info[:2]))), shown, re.M), shown
    assert "too late to be seen" not in shown


def test_json_says_the_same_as_numbers(stuck):
    (found,) = looked(stuck.pid)
    assert found["pid"] == stuck.pid
    assert found["identity"]["uid"] == os.geteuid()
    assert [row["target"] for row in found["descriptors"]["rows"] if row["kind"] == "deleted file" and "inspect" in row["target"]] == [stuck.told["gone"]]
    assert [row["what"] for row in found["notable"]] == ["deleted files"]
    assert 0.25 < found["seconds"] < 20
    waits = [row["waits_on"] for row in found["threads"] if row["waits_on"] and row["waits_on"]["call"] == "recvfrom"]
    assert [wait["target"] for wait in waits] == [f"127.0.0.1:{stuck.told['port']}"]
    assert found["environment"]["PYTHONDONTWRITEBYTECODE"] == "1" and "SOMETHING" not in found["environment"]


def test_a_thread_that_spins_comes_first_with_its_share_of_the_cpu():
    with Target(PYTHON, SPINS) as target:
        (found,) = looked(target.pid)
        first, second = found["threads"]
        assert first["cpu"] > 5 * (second["cpu"] or 0.0) and re.search(r"/program\.py:3 <", first["at"])
        assert 0.05 < first["cpu"] <= 1.2


def test_what_it_could_do_next_is_given_with_the_pid_and_the_peer(stuck):
    (found,) = looked(stuck.pid, "--next")
    commands = [row["command"] for row in found["next"]]
    assert commands[0].endswith(f"-m modwsgi_tel why --pid {stuck.pid}")
    assert f"tcpdump -ni any -s 96 -c 500 host 127.0.0.1 and port {stuck.told['port']}" in commands
    assert all(set(row) == {"command", "answers", "costs", "needs", "installed", "lacks", "for"} for row in found["next"])


def test_one_of_several_that_is_gone_is_said_and_the_others_are_shown(stuck):
    ended = subprocess.Popen(["true"])
    ended.wait(10)
    done = run(ended.pid, stuck.pid, "--interval", "0.1", "--json")
    assert done.returncode == 1
    assert f"there is no process {ended.pid}" in done.stderr
    assert [each["pid"] for each in json.loads(done.stdout)["processes"]] == [stuck.pid]
    assert json.loads(done.stdout)["problems"] == [f"there is no process {ended.pid}: it has ended, or that is its pid in another container"]


def test_a_process_that_ends_while_it_is_looked_at_is_no_traceback():
    with Target(PYTHON, "TOLD = {}") as target:
        looking = subprocess.Popen([*running.CHECKOUT, "inspect", str(target.pid), "--interval", "30"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   cwd=running.ROOT, env=running.clean_environment())
        try:
            running.wait_until(lambda: is_waiting(looking.pid), 20, "it never waited for the interval")
            os.kill(target.pid, signal.SIGKILL)
            target.process.wait(10)
            looking.send_signal(signal.SIGTERM)
            out, error = looking.communicate(timeout=20)
        finally:
            looking.kill()
    assert (looking.returncode, out) == (2, b"")
    assert error.decode().splitlines()[-1] == f"modwsgi-tel: there is no process {target.pid}: it has ended, or that is its pid in another container"


def is_waiting(pid):
    """Whether a process is in select(), as the loop is."""
    try:
        with open(f"/proc/{pid}/syscall") as file:
            return file.read().split()[:1] in (["23"], ["270"], ["72"])
    except OSError:
        return False


def test_nobody_to_look_at_is_status_2_in_one_line():
    ended = subprocess.Popen(["true"])
    ended.wait(10)
    for arguments, said in (((str(ended.pid),), f"there is no process {ended.pid}: it has ended, or that is its pid in another container"),
                            (("--group", "no such group"), "no process of group no such group"), (("0",), "'0' is no pid"), ((), "which process?"),
                            (("--file", "/x", "--port", "80"), "--file or --port, not both"), (("7", "--port", "80"), "no pid goes with them")):
        done = run(*arguments, "--interval", "0.1") if arguments[:1] != ("--file",) and "--port" not in arguments else run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_kernel_thread_and_a_zombie_are_shown_with_what_there_is():
    zombie = subprocess.Popen(["true"])
    try:
        running.wait_until(lambda: stat_of(zombie.pid) == "Z", 10, "it never became a zombie")
        (found,) = looked(zombie.pid)
        assert [row["text"] for row in found["notable"]] == ["the process has ended, and its parent has not taken notice (a zombie)"]
        assert run(zombie.pid, "--interval", "0.1", "--next").returncode == 0
    finally:
        zombie.wait(10)


def test_a_group_may_be_what_gunicorn_serves():
    with running.short_folder() as folder:
        program = os.path.join(folder, "gunicorn")
        with open(program, "w", encoding="ascii") as file:
            file.write("import time\nprint('{}', flush=True)\ntime.sleep(60)\n")
        serving = subprocess.Popen([*PYTHON, program, "shop.wsgi:app"], stdout=subprocess.PIPE)
        try:
            assert serving.stdout.readline() == b"{}\n"
            assert [each["pid"] for each in looked("--group", "shop.wsgi:app")] == [serving.pid]
        finally:
            serving.kill()
            serving.communicate(timeout=10)


def stat_of(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()


def test_a_name_with_spaces_brackets_and_newlines_is_shown_in_one_line():
    with Target(PYTHON, "import ctypes\nctypes.CDLL(None).prctl(15, b') Z (\\n', 0, 0, 0)\nTOLD = {}") as target:
        done = run(target.pid, "--interval", "0.1")
    assert done.returncode == 0
    assert done.stdout.startswith(f"pid {target.pid}  ) Z (\\n  ")


@needs_root
def test_another_users_process_is_shown_as_far_as_it_may_be(stuck, as_nobody):
    done = run(stuck.pid, "--interval", "0.1", "--next", **as_nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"cannot read process {stuck.pid}: it belongs to root, this is nobody") == 1
    assert "\n  sockets     unknown, as above\n" in done.stdout
    assert re.search(r"^  resident    \d", done.stdout, re.M)
    assert re.search(r"^  sudo .* -m modwsgi_tel stacks %d$" % stuck.pid, done.stdout, re.M), done.stdout


def test_watching_shows_each_look_and_ends_with_ctrl_c(stuck):
    looking = subprocess.Popen([*running.CHECKOUT, "inspect", str(stuck.pid), "--watch", "--interval", "0.1", "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=running.ROOT, env=running.clean_environment())
    try:
        lines = [json.loads(looking.stdout.readline()) for _ in range(3)]
        looking.send_signal(signal.SIGINT)
        _, error = looking.communicate(timeout=20)
    finally:
        looking.kill()
    assert (looking.returncode, error) == (0, b"")
    seconds = [line["processes"][0]["growth"]["seconds"] for line in lines]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_what_grows_is_seen_when_it_is_watched():
    opens = "kept = [open('/etc/passwd') for _ in range(200)]\nos.write(1, b'1\\n')\n"
    with Target(PYTHON, "import os, sys, threading\nTOLD = {}\ndef work():\n    sys.stdin.readline()\n    global kept\n    "
                + opens.replace("\n", "\n    ") + "\n    threading.Event().wait()\nworker = threading.Thread(target=work, daemon=True)\nworker.start()\n"
                "import json as _json\nos.write(1, b'{}\\n')\nworker.join()\n") as target:
        looking = subprocess.Popen([*running.CHECKOUT, "inspect", str(target.pid), "--watch", "--interval", "0.1", "--json"], stdout=subprocess.PIPE,
                                   cwd=running.ROOT, env=running.clean_environment())
        try:
            json.loads(looking.stdout.readline())
            target.process.stdin.write(b"go\n")
            target.process.stdin.flush()
            assert target.line() == 1
            deadline = time.monotonic() + 20
            found = {}
            while found.get("/etc/passwd") != 200:
                assert time.monotonic() < deadline, found
                (process,) = json.loads(looking.stdout.readline())["processes"]
                found = process["growth"]["same"]
            assert process["growth"]["files"] == 200
        finally:
            looking.kill()
            looking.communicate(timeout=20)


@pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux (apt-get install tmux)")
def test_in_a_terminal_the_watch_is_redrawn_within_the_screen(stuck):
    with Tmux(rows=24, cols=80) as terminal:
        terminal.run("inspect", str(stuck.pid), "--watch", "--interval", "0.2")
        terminal.wait_for("recvfrom on tcp")
        lines = terminal.lines()
        assert lines[0].startswith(f"pid {stuck.pid}  ")
        terminal.keys("C-c")
        assert terminal.ended() == 0


def test_ten_thousand_descriptors_and_a_thousand_threads_are_shown_in_short():
    many = """
import resource, threading
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12000), hard))
threading.stack_size(65536)
event = threading.Event()
for _ in range(1000):
    threading.Thread(target=event.wait, daemon=True).start()
kept = [open("/etc/passwd") for _ in range(min(hard, 12000) - 100)]
TOLD = len(kept)
"""
    with Target(PYTHON, many) as target:
        done = run(target.pid, "--interval", "0.1")
        assert done.returncode == 0
        assert done.stdout.count("\n") < 160
        assert re.search(r" \+9\d\d .*futex", done.stdout), done.stdout
        assert f"{target.told + 3:,} of {min(12000, target.told + 100):,} files open" in done.stdout


# --- who has it ---------------------------------------------------------------------------------------

def has(*arguments, **more):
    done = run(*arguments, "--json", **more)
    return done.returncode, json.loads(done.stdout)


def rows_of(found, pid):
    return sorted((row["fd"] is not None, row["how"], row["target"]) for row in found["rows"] if row["pid"] == pid)


def test_who_has_a_file_is_told_with_how(tmp_path):
    path = tmp_path / "with space\nand line end"
    path.write_text("x" * 5000)
    program = """
import fcntl, mmap, os, sys
path = %r
reads, writes, both = open(path), open(path, "a"), open(path, "r+")
fcntl.flock(both, fcntl.LOCK_EX)
os.chdir(os.path.dirname(path))
TOLD = {}
""" % str(path)
    with Target(PYTHON, program) as target:
        status, found = has("--file", path)
        assert status == 0 and found["what"] == os.path.realpath(path)
        assert rows_of(found, target.pid) == [
            (False, "holds a write lock", "FLOCK"), (True, "open for reading", str(path)), (True, "open for reading and writing", str(path)),
            (True, "open for writing", str(path))]
        status, found = has("--file", tmp_path)
        assert rows_of(found, target.pid) == [(False, "is its working directory", str(tmp_path))]
        os.unlink(path)
        status, found = has("--file", path)
        assert status == 0 and {row["target"] for row in found["rows"]} == {f"{path} (deleted)"}


def test_a_mapped_file_is_found_after_it_was_closed(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * 5000)
    with Target(PYTHON, f"import mmap\nfile = open({str(path)!r}, 'rb')\nheld = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\nfile.close()\n"
                        "import os\nfor fd in os.listdir('/proc/self/fd'):\n    if int(fd) > 2:\n        try:\n            os.close(int(fd))\n"
                        "        except OSError:\n            pass\nTOLD = {}") as target:
        _, found = has("--file", path)
        assert rows_of(found, target.pid) == [(False, "mapped", str(path))]


def test_the_same_file_under_another_name_of_its_folder_is_found(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Target(PYTHON, f"held = open({str(tmp_path / 'real' / 'file')!r})\nTOLD = {{}}") as target:
        status, found = has("--file", tmp_path / "link" / "file")
        assert status == 0 and rows_of(found, target.pid) == [(True, "open for reading", str(tmp_path / "real" / "file"))]


def test_nobody_has_a_file_is_status_1(tmp_path):
    (tmp_path / "alone").write_text("")
    status, found = has("--file", tmp_path / "alone")
    assert (status, found["rows"]) == (1, [])
    assert found["processes"] > 1
    done = run("--file", tmp_path / "alone")
    assert done.returncode == 1 and re.match(r".*/alone: nobody of \d+ processes that were looked into\n", done.stdout)


def test_who_has_a_port_is_told_at_both_ends(stuck):
    status, found = has("--port", stuck.told["port"])
    mine = [(row["how"].split(":")[0] if "connected:" in row["how"] else row["how"]) for row in found["rows"] if row["pid"] == stuck.pid]
    assert status == 0
    assert sorted(mine) == ["connected", "connected", f"connected to 127.0.0.1:{stuck.told['port']}", f"connected to 127.0.0.1:{stuck.told['port']}",
                            f"listens on 127.0.0.1:{stuck.told['port']}"]
    assert len(found["rows"]) == 5
    assert run("--port", running.free_port()).returncode == 1


def test_who_listens_on_a_unix_socket_and_who_is_connected_to_it(tmp_path):
    with running.short_folder() as folder:
        path = os.path.join(folder, "s")
        with Target(PYTHON, f"import socket\nserver = socket.socket(socket.AF_UNIX)\nserver.bind({path!r})\nserver.listen()\nTOLD = {{}}") as target:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                _, found = has("--file", path)
                assert rows_of(found, target.pid) == [(True, "listens", "unix LISTEN, 1 wait to be accepted")]
                assert rows_of(found, os.getpid()) == [(True, "waits to be accepted", "unix QUEUED")]


@needs_root
def test_an_ordinary_user_is_told_how_many_could_not_be_looked_into(stuck, as_nobody):
    status, found = has("--port", stuck.told["port"], **as_nobody)
    assert status == 0 and found["refused"] > 0
    assert {(row["pid"], row["user"]) for row in found["rows"]} == {(None, "root")}
    done = run("--file", "/etc/passwd", **as_nobody)
    assert done.returncode == 1
    assert re.search(r"^\d[\d,]* processes of other users could not be looked into: run as root$", done.stdout, re.M)


def test_a_search_ends_in_time_and_counts_what_it_left_out():
    found = holders.of_file("/nowhere/at all", seconds=-1.0)
    assert found.processes == 0 and found.left_out == len([name for name in os.listdir("/proc") if name.isdigit()]) or found.left_out > 1


def test_without_a_proc_it_says_so(tmp_path):
    with pytest.raises(holders.TelError, match="there is no /proc here"):
        holders.of_file("/etc/passwd", root=str(tmp_path))
    with pytest.raises(holders.TelError, match="there is no /proc here"):
        holders.of_port(80, root=str(tmp_path))


# --- the commands that it proposes -------------------------------------------------------------------

def test_the_proposed_commands_are_taken_by_the_tools_that_are_here(stuck):
    """What has a time gets a shorter one; tcpdump only compiles its filter; those that need the whole machine are left out."""
    (found,) = looked(stuck.pid, "--next")
    for row in found["next"]:
        command = row["command"]
        program = command.replace("timeout 10 ", "").split()[0]
        if row["lacks"] or program in ("bpftrace", "perf", "gdb", "ltrace") or " -m modwsgi_tel" in command or "bpfcc" in program:
            continue
        if os.geteuid() and row["needs"]:
            continue
        command = command.replace("timeout 10 strace", "timeout 0.3 strace")
        if program == "tcpdump":
            command = re.sub(r"-ni any .*?(?=host|port)", "-d ", command)
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(command, shell=True, stdout=said, stderr=said, timeout=30)
            said.seek(0)
            assert done.returncode in (0, 124) and b"invalid" not in said.read().lower(), command


@pytest.mark.skipif(not shutil.which("strace") or os.geteuid() != 0, reason="needs strace (apt-get install strace) and root")
def test_every_strace_of_the_table_is_understood(stuck):
    for tool in further.TOOLS:
        if tool.program != "strace":
            continue
        command = tool.command.format(program="strace", pid=stuck.pid).replace("timeout 10", "timeout 0.2").replace("timeout 30", "timeout 0.2")
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        assert done.returncode == 124, (command, done.stdout[-500:])
