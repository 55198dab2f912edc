"""Why a process cannot be read: each reason by itself, and those that this machine can bring about for real."""
import errno
import os
import shutil
import subprocess
import sys

import pytest

import interpreters
import running
from modwsgi_tel.proc import access
from modwsgi_tel.proc.access import Reader, Target, explain, refused
from modwsgi_tel.proc.procfs import Stat

DENIED = PermissionError(errno.EACCES, "Permission denied")
TRACE = 1 << 19
NO_DAC = "CAP_SYS_PTRACE is there, but another's memory takes CAP_DAC_READ_SEARCH as well; add it"
WHOLE = [[0, 0, 4294967295]]
STAT = b"42 (x) %b 7 42 42 0 -1 %d 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
STATUS = b"Name:\tx\nUid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\nCapPrm:\t0\nCapEff:\t0\n"
NOBODY = 65534

# Tries to open the memory of the pid that it is given, and says in one line what came of it.
TRY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from modwsgi_tel.proc.access import explain
try:
    os.close(os.open("/proc/%s/mem" % sys.argv[1], os.O_RDONLY))
    print("open")
except OSError as error:
    print(explain(int(sys.argv[1]), error))
"""
# Is root at its start, then another user, as a mod_wsgi daemon: which makes it non-dumpable.
STAYS = "import sys; print(1, flush=True); sys.stdin.read()"
DROPS = "import os; os.setgroups([]); os.setgid(%d); os.setuid(%d); %s" % (NOBODY, NOBODY, STAYS)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes processes of others")


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason="no %s (apt-get install util-linux)" % program)


def a_target(**more):
    return Target(**{"stat": Stat("x", "S", 7, False, 0, 1, 1), "uids": [33] * 4, "gids": [33] * 4, "caps": 0, "owner": 33,
                     **more})


def a_reader(**more):
    return Reader(**{"uid": 33, "gid": 33, "caps": 0, "uid_map": WHOLE, "yama": 0, **more})


def a_root(folder, files):
    for name, content in {"self/stat": STAT % (b"S", 0), "self/status": STATUS, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


@pytest.mark.parametrize("target, reader, wanted", [
    (a_target(), a_reader(uid=54321), "it belongs to www-data, this is uid 54321; run as root, or with "
     "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"),
    (a_target(uids=[54321, 0, 0, 0], owner=0), a_reader(), "it belongs to uid 54321 and root, this is www-data; "
     "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"),
    (a_target(gids=[44] * 4), a_reader(), "it runs with group 44, this with 33; run as root, or with CAP_SYS_PTRACE"),
    (a_target(owner=0), a_reader(), "it changed its user at its start, as mod_wsgi's daemons do, and that closes it "
     "(non-dumpable) even to its own user; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. "
     "CoreDumpDirectory in Apache's configuration opens it too, except in mod_wsgi 6.0.0 to 6.1.1"),
    (a_target(caps=1 << 10), a_reader(), "it has capabilities that this has not; run as root, or with CAP_SYS_PTRACE"),
    (a_target(), a_reader(yama=1), "kernel.yama.ptrace_scope is 1, so only its parents may; run as root, or with CAP_SYS_PTRACE, "
     "or set it to 0 (sysctl kernel.yama.ptrace_scope=0)"),
    (a_target(), a_reader(yama=2), "kernel.yama.ptrace_scope is 2; run as root, or with CAP_SYS_PTRACE"),
    (a_target(), a_reader(uid=0, caps=TRACE, yama=3), "kernel.yama.ptrace_scope is 3, with which nobody may; change it in "
     "/etc/sysctl.d and boot anew"),
    (a_target(), a_reader(uid=0), "this is root without CAP_SYS_PTRACE, as in most containers; start the container with "
     "--cap-add SYS_PTRACE, or run on the host"),
    (a_target(), a_reader(uid=0, caps=TRACE, uid_map=[[0, 1000, 1]]), "this is root in a user namespace alone (a rootless "
     "container), and the process is of another; run as the host's root"),
    (a_target(), a_reader(uid=0, caps=TRACE), NO_DAC),
    (a_target(), a_reader(caps=TRACE), "not even CAP_SYS_PTRACE helps; look what SELinux or AppArmor logged"),
    (a_target(), a_reader(uid=0, caps=TRACE | 1 << 1), "not even CAP_SYS_PTRACE helps; look what SELinux or AppArmor logged"),
    (a_target(), a_reader(uid=0, caps=TRACE | 1 << 2), "not even CAP_SYS_PTRACE helps; look what SELinux or AppArmor logged"),
    (a_target(), a_reader(), "the kernel does not say why, maybe SELinux or AppArmor; run as root, or with CAP_SYS_PTRACE"),
])
def test_each_refusal_says_why_and_what_to_do(monkeypatch, target, reader, wanted):
    names = {0: "root", 33: "www-data"}
    monkeypatch.setattr(access, "_named", lambda uid: names.get(uid, "uid %d" % uid))
    assert refused(42, target, reader) == "cannot read process 42: " + wanted


def test_what_is_read_from_proc_is_what_is_judged(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (b"S", 0), "42/status": STATUS, "42/mem": b"",
                             "self/uid_map": b"         0          0 4294967295\n", "sys/kernel/yama/ptrace_scope": b"1\n"})
    os.chmod(tmp_path / "42" / "mem", 0o600)
    assert access._reader(root) == Reader(33, 33, 0, WHOLE, 1)
    assert access._target(42, root) == Target(Stat("x", "S", 7, False, 42, 987654, 1, 2, 1), [33] * 4, [33] * 4, 0, os.geteuid())


@pytest.mark.parametrize("state, flags, error, wanted", [
    (b"Z", 0, DENIED, "process 42 has ended and waits for its parent 7 to take notice (a zombie): nothing of it is left to read"),
    (b"S", 0x200000, DENIED, "process 42 (x) is a thread of the kernel: it runs no Python"),
    (b"S", 0, ProcessLookupError(errno.ESRCH, "No such process"), "process 42 has ended meanwhile"),
    (b"S", 0, OSError(errno.EMFILE, "Too many open files"), "cannot read process 42: Too many open files"),
])
def test_what_is_wrong_with_the_process_itself_comes_first(tmp_path, state, flags, error, wanted):
    root = a_root(tmp_path, {"42/stat": STAT % (state, flags), "42/status": STATUS, "42/mem": b""})
    assert explain(42, error, root) == wanted


@pytest.mark.parametrize("files", [
    {"42/stat": b"nonsense", "42/status": STATUS, "42/mem": b""},
    {"42/stat": STAT % (b"S", 0), "42/status": b"", "42/mem": b""},
    {"42/stat": STAT % (b"S", 0), "42/status": b"Uid:\tx\nGid:\t\nCapPrm:\tz\n", "42/mem": b""},
    {"42/stat": STAT % (b"S", 0), "42/status": STATUS, "42/mem": b"", "self/status": b"Uid:\n"},
])
def test_where_proc_makes_no_sense_the_error_itself_is_told(tmp_path, files):
    assert explain(42, DENIED, a_root(tmp_path, files)) == "cannot read process 42: Permission denied"


def test_no_such_process_no_proc_and_a_hidden_process_are_told_apart(tmp_path):
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert explain(42, gone, str(tmp_path / "none")) == (
        "cannot read process 42: there is no /proc here; mount it (mount -t proc proc /proc)")
    root = a_root(tmp_path, {})
    assert explain(1 << 22, gone, root) == "there is no process 4194304: it has ended, or that is its pid in another container"
    a_root(tmp_path, {"self/mounts": b"proc %b proc rw,hidepid=invisible 0 0\n" % os.fsencode(root)})
    assert explain(os.getppid(), gone, root) == (
        "process %d is hidden: /proc is mounted with hidepid=invisible; run as root, or with CAP_SYS_PTRACE and "
        "CAP_DAC_READ_SEARCH" % os.getppid())
    assert explain(1 << 22, gone, root) == "there is no process 4194304: it has ended, or that is its pid in another container"


@pytest.fixture(scope="module")
def package():
    """A copy of the package that every user may read."""
    with running.short_folder() as folder:
        yield running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))


@pytest.fixture
def target():
    """Starts a Python, `target(code, **popen)`, and gives its pid once it is ready."""
    started = []

    def start(code, program=sys.executable, **popen):
        child = subprocess.Popen([program, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **popen)
        started.append(child)
        assert child.stdout.readline() == b"1\n"
        return child.pid

    yield start
    for child in started:
        child.kill()
        child.communicate(timeout=10)


def tried(package, pid, *before, program=sys.executable, **popen):
    """The line that TRY says of this pid, started by the command `before`."""
    done = subprocess.run([*before, program, "-I", "-c", TRY, str(pid), package], stdin=subprocess.DEVNULL, cwd="/", timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **popen)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def as_nobody():
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def nobody_with(caps):
    """What starts a program as an ordinary user with these capabilities, as systemd's AmbientCapabilities= does."""
    return ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps", caps,
            "--ambient-caps", caps)


def root_without(caps):
    return ("setpriv", "--bounding-set", caps, "--inh-caps", caps)


@needs_root
def test_root_reads_anybodys(package, target):
    for pid in (target(STAYS), target(DROPS), target(STAYS, interpreters.for_user(NOBODY), **as_nobody())):
        assert tried(package, pid) == "open"


@needs_root
def test_a_user_reads_his_own_and_not_roots(package, target):
    program = interpreters.for_user(NOBODY)
    own, roots = target(STAYS, program, **as_nobody()), target(STAYS)
    if access._yama("/proc") == 0:
        assert tried(package, own, program=program, **as_nobody()) == "open"
    assert tried(package, roots, program=program, **as_nobody()) == (
        "cannot read process %d: it belongs to root, this is %s; run as root, or with CAP_SYS_PTRACE and "
        "CAP_DAC_READ_SEARCH" % (roots, access._named(NOBODY)))


@needs_root
def test_a_user_does_not_read_his_own_that_was_root_at_its_start(package, target):
    pid = target(DROPS)
    said = tried(package, pid, program=interpreters.for_user(NOBODY), **as_nobody())
    assert said.startswith("cannot read process %d: it changed its user at its start, as mod_wsgi's daemons do" % pid)
    assert "CoreDumpDirectory" in said and "run as root" in said


@needs_root
def test_a_user_does_not_read_his_own_of_another_group(package, target):
    program = interpreters.for_user(NOBODY)
    pid = target(STAYS, program, **{**as_nobody(), "group": 12345})
    assert tried(package, pid, program=program, **as_nobody()) == (
        "cannot read process %d: it runs with group 12345, this with %d; run as root, or with CAP_SYS_PTRACE" % (pid, NOBODY))


@needs_root
@needs("setpriv")
def test_root_without_the_capability_is_told_of_containers(package, target):
    for pid in (target(STAYS), target(DROPS)):
        assert tried(package, pid, *root_without("-sys_ptrace")) == (
            "cannot read process %d: this is root without CAP_SYS_PTRACE, as in most containers; start the container with "
            "--cap-add SYS_PTRACE, or run on the host" % pid)


@needs_root
@needs("setpriv")
@pytest.mark.parametrize("caps, wanted", [
    ("+sys_ptrace,+dac_read_search", "open"),
    ("+sys_ptrace", "cannot read process %d: " + NO_DAC),
    ("+dac_read_search", "cannot read process %d: it belongs to root, this is " + access._named(NOBODY) +
     "; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"),
])
def test_a_user_with_both_capabilities_in_the_ambient_set_reads_anybodys(package, target, caps, wanted):
    pid = target(STAYS)
    assert tried(package, pid, *nobody_with(caps), program=interpreters.for_user(NOBODY)) == (
        wanted if wanted == "open" else wanted % pid)


@needs_root
@needs("setpriv")
def test_a_user_with_both_capabilities_reads_his_own_that_was_root_at_its_start(package, target):
    more = nobody_with("+sys_ptrace,+dac_read_search")
    assert tried(package, target(DROPS), *more, program=interpreters.for_user(NOBODY)) == "open"


@needs_root
@needs("setpriv")
def test_root_without_the_capability_to_read_others_files_is_told_which_it_takes(package, target):
    program, less = interpreters.for_user(NOBODY), root_without("-dac_override,-dac_read_search")
    assert tried(package, target(DROPS), *less, program=program) == "open"      # the file of its memory is root's
    other = target(STAYS, program, **as_nobody())
    assert tried(package, other, *less, program=program) == (
        "cannot read process %d: %s" % (other, NO_DAC))


@needs_root
@needs("unshare")
def test_root_of_a_user_namespace_is_told_that_it_is_none_outside(package, target):
    pid = target(STAYS)
    assert tried(package, pid, "unshare", "--user", "--map-root-user") == (
        "cannot read process %d: this is root in a user namespace alone (a rootless container), and the process is of another; "
        "run as the host's root" % pid)


@needs_root
@needs("unshare")
@pytest.mark.parametrize("value", ["invisible", "noaccess"])
def test_a_hidden_process_is_said_to_be_hidden(package, target, value):
    pid = target(STAYS)
    program = interpreters.for_user(NOBODY)
    said = tried(package, pid, "unshare", "--mount", "sh", "-c",
                 'mount -t proc -o hidepid=%s proc /proc || exit 77; exec setpriv --reuid %d --regid %d --clear-groups "$@"'
                 % (value, NOBODY, NOBODY), "sh", program=program)
    assert said == ("process %d is hidden: /proc is mounted with hidepid=%s; run as root, or with CAP_SYS_PTRACE and "
                    "CAP_DAC_READ_SEARCH" % (pid, value))


def test_a_zombie_and_a_thread_of_the_kernel_for_real():
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert explain(child.pid, DENIED) == (
            "process %d has ended and waits for its parent %d to take notice (a zombie): nothing of it is left to read"
            % (child.pid, os.getpid()))
    finally:
        child.wait(timeout=10)
    with open("/proc/2/comm") as file:
        if file.read() == "kthreadd\n":                             # in a container 2 is another
            assert explain(2, DENIED) == "process 2 (kthreadd) is a thread of the kernel: it runs no Python"
