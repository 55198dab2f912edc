"""The units, users and folders of extras: by systemd's own tools, and their very command lines run as their users."""
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import urllib.request

import pytest

import interpreters
import running
from builders import Worker
from managers import Manager
from modwsgi_tel.extras.command import content
from modwsgi_tel.extras.table import EXTRAS, named
from modwsgi_tel.proc import procfs

UNITS = ["modwsgi-tel.service", "modwsgi-tel-stacks.service", "modwsgi-tel-dump.service", "modwsgi-tel-http.socket", "modwsgi-tel-dump.timer"]
SERVICES = [name for name in UNITS if name.endswith(".service")]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")


def tool(name, package):
    return shutil.which(name) or pytest.skip(f"no {name} (apt-get install {package})")


def text(name, program="/usr/bin/true"):
    extra, = named(name)
    return content(extra, program)


def settings(unit):
    """{name: [values]} of a unit; a line without a value drops what was before."""
    found = {}
    for line in text("systemd/" + unit).splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] = found.get(name, []) + [value] if value else []
    return found


def run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, universal_newlines=True,
                          env=running.clean_environment(SYSTEMD_PAGER="cat", LC_ALL="C.UTF-8"), **more)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder():
    """The units, as extras writes them for a program that is there."""
    with running.short_folder() as folder:
        for unit in UNITS:
            with open(os.path.join(folder, unit), "w") as file:
                file.write(text("systemd/" + unit))
        for extra in EXTRAS:                    # drop-ins, where they belong
            found = re.match(r"/etc/systemd/system/(.+\.d)/(.+)", extra.place)
            if found and found.group(2) != "rhel.conf":
                os.makedirs(os.path.join(folder, found.group(1)), exist_ok=True)
                with open(os.path.join(folder, *found.groups()), "w") as file:
                    file.write(text(extra.name))
        yield folder


# --- by systemd's own tools -------------------------------------------------------------------

def test_units_are_as_systemd_wants_them(folder):
    verify = tool("systemd-analyze", "systemd")
    assert run(verify, "verify", *(os.path.join(folder, unit) for unit in UNITS)) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_each_service_is_hardened(folder, unit):
    status, said = run(tool("systemd-analyze", "systemd"), "security", "--offline=yes", "--no-pager", os.path.join(folder, unit))
    assert status == 0, said
    assert float(re.search(r"Overall exposure level for \S+: ([0-9.]+) ", said).group(1)) < 3.0, said


def test_the_timer_means_each_five_minutes():
    status, said = run(tool("systemd-analyze", "systemd"), "calendar", *settings("modwsgi-tel-dump.timer")["OnCalendar"])
    assert status == 0 and "Normalized form: *-*-* *:00/5:00" in said, said


@needs_root
def test_users_and_folders_are_made_in_an_empty_root():
    sysusers, tmpfiles = tool("systemd-sysusers", "systemd"), tool("systemd-tmpfiles", "systemd")
    with running.short_folder() as root:
        for name in ("etc", "run", "var/lib", "var/log", "usr"):
            os.makedirs(os.path.join(root, name))
        with open(root + "/etc/group", "w") as file:
            file.write("www-data:x:33:\n")
        with open(root + "/etc/passwd", "w") as file:
            file.write("www-data:x:33:33::/:/bin/false\n")
        for name in ("sysusers.d", "tmpfiles.d"):
            with open(os.path.join(root, name), "w") as file:
                file.write(text(name + "/modwsgi-tel.conf"))
        status, said = run(sysusers, "--root", root, root + "/sysusers.d")
        assert status == 0, said
        with open(root + "/etc/passwd") as file:
            users = {line.split(":")[0]: line.strip().split(":") for line in file}
        assert {name for name in users if name.startswith("modwsgi")} == {unit_user(each) for each in SERVICES}
        assert {row[6] for name, row in users.items() if name.startswith("modwsgi")} == {"/usr/sbin/nologin"}
        status, said = run(tmpfiles, "--create", "--root", root, root + "/tmpfiles.d")
        assert status == 0, said
        made = {}
        for name in ("run/modwsgi-tel-agent", "var/lib/modwsgi-tel", "var/log/modwsgi-tel"):
            seen = os.stat(os.path.join(root, name))
            made[name] = stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid
        uid, gid = map(int, users["modwsgi-tel"][2:4])
        assert made == {"run/modwsgi-tel-agent": (0o770, 0, 33), "var/lib/modwsgi-tel": (0o750, uid, gid), "var/log/modwsgi-tel": (0o750, uid, gid)}


def unit_user(unit):
    return settings(unit)["User"][0]


# --- what must be so ----------------------------------------------------------------------------

def test_no_unit_holds_the_telemetry_socket_and_only_the_stack_helper_has_rights():
    assert all("ListenDatagram" not in settings(unit) and "telemetry.sock" not in "".join(settings(unit).get("ListenStream", [])) for unit in UNITS)
    rights = {unit: (settings(unit).get("CapabilityBoundingSet"), settings(unit).get("AmbientCapabilities", [])) for unit in SERVICES}
    two = ["CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"]
    assert rights == {"modwsgi-tel.service": ([], []), "modwsgi-tel-stacks.service": (two, two), "modwsgi-tel-dump.service": ([], [])}
    assert all(settings(unit)["NoNewPrivileges"] == ["yes"] for unit in SERVICES)


def test_what_would_blind_the_collector_is_left_out():
    collector, helper = settings("modwsgi-tel.service"), settings("modwsgi-tel-stacks.service")
    assert not {"ProtectProc", "ProcSubset", "PrivateUsers", "PrivateNetwork", "PrivatePIDs"} & set(collector)
    assert not {"PrivateUsers", "PrivatePIDs"} & set(helper)


def test_the_collector_may_write_where_extras_say_that_its_log_is():
    logs = re.findall(r"^(/var/log/\S+)/[^/\s]+ \{$", text("logrotate/modwsgi-tel"), re.M)
    assert logs == ["/var/log/" + each for each in settings("modwsgi-tel.service")["LogsDirectory"]]


def test_nobody_waits_long_for_a_start_or_an_end():
    # Apache starts after both, and who sends waits for the end of a collector that hangs
    waits = {(unit, name): int(settings(unit)[name][0]) for unit in SERVICES[:2] for name in ("TimeoutStartSec", "TimeoutStopSec", "WatchdogSec")}
    assert max(waits.values()) <= 30, waits


# --- their command lines ------------------------------------------------------------------------

def command_of(unit, folder):
    """ExecStart's words, with the paths in /run and /var/log below `folder`, and the checkout as the program."""
    line, = settings(unit)["ExecStart"]
    words = [each.replace("%%", "%") for each in shlex.split(line)]
    assert words[0] == "/usr/bin/true"
    for name in ("/run/", "/var/log/"):
        words = [each.replace(name, folder + "/") for each in words]
    return words[1:]


@pytest.fixture(scope="module")
def program():
    """(command, cwd) of the checkout, as any user may run it."""
    with running.short_folder() as folder:
        sources = running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))
        yield (interpreters.for_user(NOBODY), "-m", "modwsgi_tel"), sources


def a_group():
    import grp
    try:
        return grp.getgrnam("www-data").gr_gid
    except KeyError:
        pytest.skip("no group www-data (apt-get install apache2)")


def variables(unit):
    return dict(each.split("=", 1) for each in settings(unit).get("Environment", []))


@needs_root
def test_the_collectors_command_line_works_as_its_user_with_a_watchdog_and_a_handed_in_port(program):
    command, sources = program
    group, environment = a_group(), variables("modwsgi-tel.service")
    with Manager(watchdog_s=0.2) as manager, socket.create_server(("127.0.0.1", 0)) as http:
        run_folder = os.path.join(manager.folder, "modwsgi-tel")        # RuntimeDirectory
        os.mkdir(run_folder, 0o755)
        os.chown(run_folder, NOBODY, NOBODY)
        with manager.start(*command_of("modwsgi-tel.service", manager.folder), program=command, handed=[http], cwd=sources, environment=environment,
                           python=command[0], user=NOBODY, group=NOBODY, extra_groups=[group]) as process:
            assert manager.next("READY") == "1", process.log()
            assert manager.next("WATCHDOG") == "1"
            seen = os.stat(run_folder + "/telemetry.sock")
            assert (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (0o660, NOBODY, group)
            apache = ("import socket, sys; sys.path.insert(0, ''); "
                      "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(bytes.fromhex(sys.argv[2]), sys.argv[1])")
            subprocess.run([command[0], "-c", apache, run_folder + "/telemetry.sock", Worker().tick(3).hex()], user=65533, group=group,
                           extra_groups=[], timeout=20, check=True, cwd="/")

            def summary():
                with urllib.request.urlopen(f"http://127.0.0.1:{http.getsockname()[1]}/api/summary", timeout=10) as answer:
                    return json.load(answer)
            running.wait_until(lambda: summary()["totals"]["processes"] == 1, 10, process.log)
            process.terminate()
            assert manager.next("STOPPING") == "1" and process.wait(20) == 0
        assert os.listdir(run_folder) == []


RIGHTS = ["--bounding-set=-all,+sys_ptrace,+dac_read_search", "--inh-caps=-all,+sys_ptrace,+dac_read_search",
          "--ambient-caps=-all,+sys_ptrace,+dac_read_search", "--no-new-privs"]
# what of the unit can be had without systemd: no network, ProtectProc=invisible, ProcSubset=pid
CONFINED = ["unshare", "--mount", "--net", "sh", "-c", 'mount -t proc -o hidepid=invisible,subset=pid proc /proc && exec "$@"', "sh"]
SITS = "import sys; print(1, flush=True); sys.stdin.read()"


@needs_root
@pytest.mark.parametrize("rights, reads", [(RIGHTS, True), (["--bounding-set=-all", "--no-new-privs"], False)], ids=["with its rights", "without them"])
def test_the_stack_helpers_command_line_reads_others_confined_as_its_unit_says(program, rights, reads):
    for name in ("setpriv", "unshare"):
        tool(name, "util-linux")
    if run(*CONFINED, "true")[0]:
        pytest.skip("no mount namespaces with a /proc of their own here")
    command, sources = program
    with Manager(watchdog_s=0.2) as manager:
        run_folder = os.path.join(manager.folder, "modwsgi-tel-stacks")
        os.mkdir(run_folder)
        os.chown(run_folder, NOBODY, NOBODY)
        words = command_of("modwsgi-tel-stacks.service", manager.folder)
        words[words.index("--socket-group") + 1], words[words.index("--allow-uid") + 1] = str(NOBODY), "0"
        words += ["--for-uid", "65533"]         # a plain Python is not Apache's
        setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights]
        with manager.start(*words, program=[*CONFINED, *setpriv, *command], cwd=sources) as process, subprocess.Popen(
                [command[0], "-c", SITS], user=65533, group=65533, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as other:
            try:
                assert manager.next("READY") == "1", process.log()
                assert other.stdout.readline() == b"1\n"
                with socket.socket(socket.AF_UNIX) as asks:
                    asks.settimeout(20)
                    asks.connect(run_folder + "/stacks.sock")
                    asks.sendall(json.dumps({"pid": other.pid, "start": procfs.stat(other.pid).start, "uid": 65533, "gid": 65533}).encode() + b"\n")
                    said = b""
                    while not said.endswith(b"}"):
                        part = asks.recv(65536)
                        if not part:
                            break
                        said += part
                answer = json.loads(said)
                assert ("stacks" in answer) == reads, answer
                assert not reads or answer["stacks"]["pid"] == other.pid and "<module>" in json.dumps(answer), answer
                # it lives: that it has ended must not be said
                assert reads or answer["kind"] == "refused" and answer["error"].startswith(f"process {other.pid} is not visible to uid {NOBODY}: "), answer
            finally:
                other.kill()


@needs_root
def test_the_dumps_command_line_writes_a_snapshot(program):
    command, sources = program
    with Manager() as manager:
        for name in ("modwsgi-tel", "log"):
            os.mkdir(os.path.join(manager.folder, name))
            os.chown(os.path.join(manager.folder, name), NOBODY, NOBODY)
        words = [each.replace(manager.folder + "/modwsgi-tel/%", manager.folder + "/log/%") for each in command_of("modwsgi-tel-dump.service", manager.folder)]
        place = dict(cwd=sources, user=NOBODY, group=NOBODY, extra_groups=[])
        serve = command_of("modwsgi-tel.service", manager.folder)
        with manager.start(*serve, program=command, python=command[0], **place) as collector:
            manager.next("READY")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(Worker().tick(3), manager.folder + "/modwsgi-tel/telemetry.sock")
            done = subprocess.run([*command, *words], timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=running.clean_environment(), **place)
            assert (done.returncode, done.stdout) == (0, b""), collector.log()
        written, = os.listdir(manager.folder + "/log")
        assert re.fullmatch(r"\d{8}-\d{4}\.jsonl", written)
        with open(os.path.join(manager.folder, "log", written)) as file:
            assert all(isinstance(json.loads(line), dict) for line in file)


# --- system calls ---------------------------------------------------------------------------------

def permitted(unit):
    """The system calls that a unit's SystemCallFilter= leaves."""
    status, said = run(tool("systemd-analyze", "systemd"), "syscall-filter", "--no-pager")
    assert status == 0
    sets, now = {}, None
    for line in said.splitlines():
        word = line.split("#")[0].strip()
        if line.startswith("@"):
            now = sets.setdefault(word, [])
        elif word and now is not None:
            now.append(word)

    def members(name):
        return {name} if not name.startswith("@") else set().union(*map(members, sets[name]))
    allowed = members("@default")
    for value in settings(unit)["SystemCallFilter"]:
        named_here = set().union(*map(members, value.lstrip("~").split()))
        allowed = allowed - (named_here - members("@default")) if value.startswith("~") else allowed | named_here
    return allowed


def traced(path):
    """({system call}, [lines that ask for memory that can be written and run]) of what strace wrote."""
    with open(path, errors="replace") as file:
        lines = file.read().splitlines()
    calls = {found.group(1) for found in (re.match(r"\d+ +([a-z0-9_]+)\(", line) for line in lines) if found}
    return calls, [line for line in lines if "PROT_WRITE" in line and "PROT_EXEC" in line]


@needs_root
def test_the_services_make_no_system_call_that_their_units_forbid():
    strace = tool("strace", "strace")
    with Manager(watchdog_s=0.5) as manager:
        for name in ("modwsgi-tel", "modwsgi-tel-stacks"):
            os.mkdir(os.path.join(manager.folder, name))

        def under(name):
            return [strace, "-f", "-qq", "-o", os.path.join(manager.folder, name), *running.CHECKOUT]
        helper = command_of("modwsgi-tel-stacks.service", manager.folder)
        helper[helper.index("--socket-group") + 1], helper[helper.index("--allow-uid") + 1] = "0", "0"
        stacks = {**variables("modwsgi-tel.service"), "MODWSGI_TEL_SOCKET_GROUP": "0", "MODWSGI_TEL_STACKS_HELPER": manager.folder
                  + "/modwsgi-tel-stacks/stacks.sock"}
        with manager.start(*helper, "--for-uid", "0", program=under("helper.trace")) as stack_helper:
            manager.next("READY")
            with manager.start(*command_of("modwsgi-tel.service", manager.folder), program=under("collector.trace"), environment=stacks) as collector:
                manager.next("READY")
                worker = Worker(pid=os.getpid())
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    for datagram in (worker.started(), worker.tick(3), worker.slow()):
                        sender.sendto(datagram, manager.folder + "/modwsgi-tel/telemetry.sock")

                def taken():
                    status, said = run(*running.CHECKOUT, "dump", "--http-socket", manager.folder + "/modwsgi-tel/http.sock", "--format", "json", cwd=running.ROOT)
                    assert status == 0, said
                    return json.loads(said)["collector"]["stacks"]["taken"]
                running.wait_until(taken, 30, lambda: collector.log() + stack_helper.log(), pause=0.5)
                for process in (collector, stack_helper):
                    for child in children(process.pid):
                        os.kill(child, 15)
                assert collector.wait(30) == stack_helper.wait(30) == 0
        for name, unit in (("collector.trace", "modwsgi-tel.service"), ("helper.trace", "modwsgi-tel-stacks.service")):
            calls, writable_code = traced(os.path.join(manager.folder, name))
            assert len(calls) > 30 and "sendto" in calls
            assert (calls - permitted(unit), writable_code) == (set(), []), unit


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]
