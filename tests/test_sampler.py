"""sample: a script does not notice it, and the log says where it was."""
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

import interpreters
from modwsgi_tel import sampler
from modwsgi_tel.errors import TelError
from running import CHECKOUT, ROOT, clean_environment, short_folder, wait_until

DEADLINE_S = 30.0
NOBODY = 65534
SAMPLER = (sys.executable, "-m", "modwsgi_tel.sampler")


def written(folder, source, name="script.py"):
    path = os.path.join(str(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(textwrap.dedent(source))
    return path


def run(command, folder, environment=None, **more):
    """(exit status, stdout, stderr) of a command in that folder, with the checkout on Python's path."""
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(folder), timeout=DEADLINE_S,
                          env=clean_environment(**{"PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}), **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def without_ours(said, name="script.py"):
    """What the script wrote to stderr: without our first line, and without the digest where there is one."""
    first, _, rest = said.partition("\n")
    assert re.fullmatch(r"modwsgi-tel: sampling (?:-m )?\S+ every \S+ \S+ into \S+\.log", first), said
    assert said.count("modwsgi-tel: ") <= 2 + said.count("  Reading from outside"), said
    return re.sub(r"^modwsgi-tel: (?:-m )?\S+ ran [\s\S]*\Z", "", rest, flags=re.MULTILINE)


def log_of(folder, name="script.stacks.log"):
    with open(os.path.join(str(folder), name), encoding="utf-8") as handle:
        return handle.read()


def as_it_is(script, folder, arguments=("--x", "a b"), options=(), program=SAMPLER, **more):
    """Both outcomes of a script: of Python's own run of it, and of a sampled one, without what is ours."""
    plain = run([sys.executable, *script, *arguments], folder, **more)
    status, out, err = run([*program, "--interval", "60", *options, *script, *arguments], folder, **more)
    return plain, (status, out, without_ours(err))


# --- unchanged --------------------------------------------------------------------------------------

ENDS = {
    "nothing": "pass",
    "arguments": "import sys; print(sys.argv)",
    "exit": "import sys; sys.exit()", "exit 7": "import sys; sys.exit(7)", "exit text": "import sys; sys.exit('why\\nnot')",
    "exit tuple": "raise SystemExit((1, 2))", "exit in a function": "def f():\n    exit(3)\nf()",
    "an error": "def f(n):\n    return 1 // n\nf(0)",
    "a chain": "def f():\n    try:\n        {}['x']\n    except KeyError as error:\n        raise ValueError('y') from error\nf()",
    "a context": "try:\n    1 // 0\nexcept ZeroDivisionError:\n    undefined",
    "a syntax error": "print('a'\nb = = 1", "no import": "import nothing_of_this_name",
    "an interrupt": "def f():\n    raise KeyboardInterrupt\nf()",
    "a real interrupt": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
    "its own kind of interrupt": "class Mine(KeyboardInterrupt): pass\nraise Mine('x')",
    "an interrupt with exits": "import atexit\natexit.register(print, 'exit')\nraise KeyboardInterrupt",
    "terminated": "import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGTERM)",
    "aborted": "import os; os.abort()", "left at once": "import os; os._exit(5)",
    "a handler": "import os, signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\nos.kill(os.getpid(), signal.SIGTERM)",
    "a hook": "import sys\nsys.excepthook = lambda kind, error, trace: print('hook', kind, error, trace.tb_lineno, sys.exc_info())\n1 // 0",
    "a hook that fails": "import sys\ndef hook(*_):\n    1 // 0\nsys.excepthook = hook\nraise ValueError('x')",
    "a hook that exits": "import sys\nsys.excepthook = lambda *_: sys.exit(4)\nraise ValueError('x')",
    "exits in turn": "import atexit\nfor each in 'ab':\n    atexit.register(print, each)\nprint('end')",
    "an error in an exit": "import atexit\natexit.register(lambda: 1 // 0)",
    "threads that outlive": "import threading, time, atexit\natexit.register(print, 'exit')\n"
                            "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\nprint('main')",
    "an error in a thread": "import threading\nthreading.Thread(target=lambda: 1 // 0, name='t').start()",
    "a warning": "import warnings\nwarnings.warn('old', DeprecationWarning)",
    "a last exception": "import sys, atexit\natexit.register(lambda: print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno))\n1 // 0",
    "deleted at the end": "class Held:\n    def __del__(self):\n        print('deleted')\nheld = Held()",
    "from stdin": "print(input())",
    "no threads": "import threading, sys\nprint(threading.active_count(), threading.current_thread() is threading.main_thread(), "
                  "[each.name for each in threading.enumerate()])",
    "a signal that is waited for": "import signal, os\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
                                   "os.kill(os.getpid(), signal.SIGUSR1)\nprint(signal.sigwait([signal.SIGUSR1]))",
    "pickled": "import pickle\nclass Mine:\n    pass\nif __name__ == '__main__':\n    print(type(pickle.loads(pickle.dumps(Mine()))) is Mine)",
    "main": "import sys\nspace = vars(sys.modules['__main__'])\nprint(space is globals(), sorted(space), __name__, __file__, __spec__, "
            "__package__, type(__builtins__), type(__loader__), __loader__.get_source('__main__')[:9])",
    "the path": "import sys\nprint(sys.path, [each for each in sys.modules if 'modwsgi' in each], len(sys.meta_path))",
    "streams": "import sys, os\nprint([(each.name, each.mode, each.errors, each.encoding) for each in (sys.stdin, sys.stdout, sys.stderr)], "
               "os.open('/dev/null', 0))",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_script_ends_and_speaks_as_without_us(name, tmp_path):
    written(tmp_path, ENDS[name])
    more = {"stdin": None, "input": b"line\n"} if name == "from stdin" else {}
    plain, sampled = as_it_is(["script.py"], tmp_path, **more)
    assert [re.sub("0x[0-9a-f]+", "0x", str(each)) for each in sampled] == [re.sub("0x[0-9a-f]+", "0x", str(each)) for each in plain]


def test_the_ends_are_what_they_should_be(tmp_path):
    told = {}
    for name in ("exit 7", "exit text", "an error", "a real interrupt", "terminated", "left at once", "a hook that exits"):
        written(tmp_path, ENDS[name])
        told[name] = run([*SAMPLER, "script.py"], tmp_path)[0]
    assert told == {"exit 7": 7, "exit text": 1, "an error": 1, "a real interrupt": -signal.SIGINT, "terminated": -signal.SIGTERM, "left at once": 5,
                    "a hook that exits": 4}


FORKS = """\
import multiprocessing, os, sys, time
class Held:
    def __init__(self, n): self.n = n
def child(held): return held.n * 2
if __name__ == "__main__":
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(child, [Held(1), Held(2)]), flush=True)
    pid = os.fork()
    if not pid:
        print("child", flush=True)
        sys.exit(3)
    print(os.waitpid(pid, 0)[1] >> 8)
"""


@pytest.mark.parametrize("warn", ["default", "error"])
def test_children_work_and_are_not_in_the_log(tmp_path, warn):
    """From 3.12 on Python warns of a fork in a process of several threads: there must be none but the script's."""
    written(tmp_path, FORKS if warn == "default" else FORKS.replace('"spawn", "fork"', '"spawn",'))
    plain, sampled = as_it_is(["script.py"], tmp_path, environment={"PYTHONWARNINGS": warn})
    if warn == "error":
        assert plain[0] == 0
    assert sampled == plain
    assert log_of(tmp_path).count("=== script.py ran ") == 1
    assert re.search(r"^Not seen: [1-9]\d* process(es)? that it forked", log_of(tmp_path), re.MULTILINE)


def test_sampling_goes_on_after_a_fork(tmp_path):
    written(tmp_path, "import os, time\nfor _ in range(3):\n    if not os.fork(): os._exit(0)\n    os.wait()\ndef later():\n    time.sleep(0.5)\nlater()")
    run([*SAMPLER, "--interval", "0.1", "script.py"], tmp_path)
    assert "later (" in log_of(tmp_path) and ", in later\n" in log_of(tmp_path)


@pytest.mark.parametrize("script", [["-m", "pack.tool"], ["-m", "pack"], ["-m", "nothing"], ["pack"], ["./sub/../script.py"], ["link.py"]],
                         ids=lambda script: " ".join(script))
def test_modules_packages_folders_and_links_run_as_without_us(tmp_path, script):
    told = "import sys\nprint(__name__, __file__, __package__, __spec__ and __spec__.name, sys.argv, sys.path)\n1 // 0\n"
    for name in ("pack/tool.py", "pack/__main__.py", "sub/other.py", "script.py"):
        written(tmp_path, told, name)
    written(tmp_path, "", "pack/__init__.py")
    os.symlink("sub/other.py", tmp_path / "link.py")
    plain, sampled = as_it_is(script, tmp_path)
    assert sampled == plain and "Error" in plain[2] + "ModuleNotFoundError"


def test_what_lies_beside_the_script_is_what_it_imports(tmp_path):
    for name in ("json", "argparse", "random", "datetime", "modwsgi_tel", "sampler", "profile"):
        written(tmp_path / "there", f"mine = '{name}'", f"{name}.py")
    written(tmp_path / "there", "import json, argparse, random, datetime, modwsgi_tel, sampler, profile\n"
            "print([each.mine for each in (json, argparse, random, datetime, modwsgi_tel, sampler, profile)])")
    plain, sampled = as_it_is(["there/script.py"], tmp_path)
    assert sampled == plain == (0, "['json', 'argparse', 'random', 'datetime', 'modwsgi_tel', 'sampler', 'profile']\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_stays_closed(tmp_path, closed):
    written(tmp_path, "import os, sys\nopen('said', 'w').write(repr([sys.stdin is None, sys.stdout is None, sys.stderr is None, "
            "os.open('/dev/null', 0)]))")
    said = []
    for command in (f"exec {sys.executable} script.py {closed}", f"exec {' '.join(SAMPLER)} script.py {closed}"):
        assert run(["sh", "-c", command], tmp_path)[0] == 0
        said.append((tmp_path / "said").read_text())
    assert said[0] == said[1] and "True" in said[0]


@pytest.mark.parametrize("program", ["checkout", "pyz", "pyz -I -S", "path into the pyz"])
def test_it_runs_from_the_checkout_and_from_the_archive(tmp_path, pyz, program):
    written(tmp_path, ENDS["the path"] + "\n1 // 0")
    command, options, environment = {
        "checkout": ([*CHECKOUT, "sample"], [], {}), "pyz": ([sys.executable, pyz, "sample"], [], {"PYTHONPATH": f"sub:.:{tmp_path}"}),
        "pyz -I -S": ([sys.executable, "-I", "-S", pyz, "sample"], ["-I", "-S"], {"PYTHONPATH": None}),
        "path into the pyz": (SAMPLER, [], {"PYTHONPATH": f"{pyz}/site-packages"})}[program]
    plain = run([sys.executable, *options, "script.py"], tmp_path, environment)
    status, out, err = run([*command, "script.py"], tmp_path, environment)
    assert (status, out, without_ours(err)) == plain and plain[0] == 1


# --- the log -----------------------------------------------------------------------------------------

BUSY = """\
import sys, threading, time
def waits(gate, password="hunter2"):
    gate.wait()
def works(rows, limit=0.8):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        sum(rows)
if __name__ == "__main__":
    gate = threading.Event()
    threading.Thread(target=waits, args=(gate,), name="a thread").start()
    works([1, 2, 3])
    gate.set()
    sys.exit(3)
"""


def test_each_sample_has_each_thread_in_a_line_and_in_full_with_its_variables(tmp_path):
    path = written(tmp_path, BUSY)
    status, out, err = run([*SAMPLER, "--interval", "0.1", "script.py"], tmp_path)
    log = log_of(tmp_path)
    assert (status, out) == (3, "") and stat.S_IMODE(os.stat(tmp_path / "script.stacks.log").st_mode) == 0o600
    assert err.startswith(f"modwsgi-tel: sampling script.py every 100 ms into {tmp_path}/script.stacks.log\nmodwsgi-tel: script.py ran ")
    assert log.startswith("# modwsgi-tel sample: script.py, pid ") and "hunter2" not in log.replace('password="hunter2"', "")
    sample = log.split("\n=== ")[2]
    assert re.match(r"[\d :-]{19}  sample 2, \d+ ms after the start; 2 threads, [\d.]+ m?s of CPU in \d+ ms ===\n", sample), sample
    short, full = sample.split("\n\n", 1)
    last = os.path.basename(str(tmp_path))
    assert re.search(rf'^\d+ "MainThread"  [\d.]+ m?s CPU  (?:<genexpr> .* <- )?works \({last}/script.py:\d\) <- <module> \({last}/script.py:11\)$', short,
                     re.MULTILINE)
    assert re.search(rf'^\d+ "a thread"  .* <- waits \({last}/script.py:3\) <- ', short, re.MULTILINE)
    assert (f'  File "{path}", line 3, in waits\n    gate.wait()\n      gate = <Event at 0x') in full
    assert "\n      password = <masked>\n" in full
    assert re.search(rf'  File "{path}", line [67], in works\n    .*\n      rows = \[1, 2, 3\]\n      limit = 0.8\n      end = [\d.]+\n', full)
    digest = log.split("\n=== ")[-1]
    assert re.match(r"script.py ran 8\d\d ms|script.py ran [\d.]+ s", digest) and "where the time of its threads was ===\n" in digest
    assert re.search(rf"^ +50 % +\d+ ms   works  {last}/script.py:[67](?:,[67])?   (sum|while).*$", digest, re.MULTILINE), digest
    assert re.search(rf"^ +50 % +\d+ ms   works  {last}/script.py:[67]", err, re.MULTILINE)


def test_it_can_be_told_how_often_by_a_variable_of_an_older_tool(tmp_path):
    written(tmp_path, "pass")
    assert "every 250 ms into" in run([*SAMPLER, "script.py"], tmp_path, {"TRIPOD_INTERVAL": "0.25"})[2]
    assert "every 2.0 s into" in run([*SAMPLER, "--interval", "2", "script.py"], tmp_path, {"TRIPOD_INTERVAL": "0.25"})[2]
    assert "every 5.0 s into" in run([*SAMPLER, "script.py"], tmp_path)[2]


def test_a_script_that_is_killed_leaves_its_samples_and_no_digest(tmp_path):
    written(tmp_path, "import time\ntime.sleep(60)")
    process = subprocess.Popen([*SAMPLER, "--interval", "0.05", "script.py"], cwd=str(tmp_path), stderr=subprocess.PIPE,
                               env=clean_environment(PYTHONPATH=ROOT))
    try:
        path = tmp_path / "script.stacks.log"
        wait_until(lambda: path.exists() and "sample 3" in path.read_text(), DEADLINE_S, "no third sample")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == -signal.SIGTERM
        assert process.stderr.read().count(b"\n") == 1 and " ran " not in path.read_text()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_c_code_that_holds_the_gil_is_said_with_what_sees_into_it(tmp_path):
    written(tmp_path, "import re, time\ndef matches(text):\n    return re.match('(a+)+b', text)\n"
            "for count in range(18, 40):\n    begin = time.monotonic()\n    matches('a' * count)\n    if time.monotonic() - begin > 1: break\ntime.sleep(0.3)")
    _, _, err = run([*SAMPLER, "--interval", "0.1", "script.py"], tmp_path)
    assert re.search(r"  Not seen: \d+ times? the sampler was kept from running, [\d.]+ m?s in all: C code held the GIL", err)
    assert re.search(r"^    [\d.]+ m?s, [\d.]+ m?s of CPU, until [\d:]{8}; then it was in .*<module> \(\S*script.py:\d\)$", err, re.MULTILINE), err
    assert "modwsgi-tel stacks PID, or modwsgi-tel record PID" in err
    assert re.search(r"^[\d.]+ m?s late: C code held the GIL", log_of(tmp_path), re.MULTILINE)


def test_greenlets_that_wait_are_said_not_to_be_seen(tmp_path):
    written(tmp_path, "import sys\nsys.modules['greenlet'] = sys")
    assert "Not seen: greenlets that wait" in run([*SAMPLER, "script.py"], tmp_path)[2]


def test_a_script_that_closes_all_descriptors_gets_nothing_of_ours_in_its_files(tmp_path):
    written(tmp_path, "import os, time\nos.closerange(3, 300)\nheld = [open('own%d' % each, 'w') for each in range(250)]\ntime.sleep(0.4)")
    status, _, err = run([*SAMPLER, "--interval", "0.05", "script.py"], tmp_path)
    assert status == 0 and "Missing in the log: " in err and "the script has closed its descriptor" in err
    assert {os.path.getsize(tmp_path / name) for name in os.listdir(tmp_path) if name.startswith("own")} == {0}


def test_deep_recursion_and_many_threads_are_bounded(tmp_path):
    written(tmp_path, "import sys, time, threading\nsys.setrecursionlimit(5000)\ndef deep(n):\n    if n: return deep(n - 1)\n    time.sleep(0.5)\n"
            "gate = threading.Event()\nthreading.stack_size(1 << 18)\nmany = [threading.Thread(target=gate.wait) for _ in range(250)]\n"
            "[each.start() for each in many]\ndeep(2500)\ngate.set()")
    _, _, err = run([*SAMPLER, "--interval", "0.1", "--log-size", "4M", "script.py"], tmp_path)
    log = log_of(tmp_path)
    assert "[cut: deeper than 2,000 frames]" in log and re.search(r"Previous line repeated 1,\d+ more times", log)
    assert re.search(r"had more than 200 threads", err) and os.path.getsize(tmp_path / "script.stacks.log") < 4 << 20


# --- whose file it is ----------------------------------------------------------------------------------

def test_a_log_goes_on_in_its_own_file_and_leaves_others_alone(tmp_path):
    written(tmp_path, "pass")
    for _ in range(2):
        run([*SAMPLER, "script.py"], tmp_path)
    assert log_of(tmp_path).count("# modwsgi-tel sample: ") == 2
    (tmp_path / "script.stacks.log").write_text("mine")
    err = run([*SAMPLER, "script.py"], tmp_path)[2]
    other = re.search(rf"into ({tmp_path}/script\.\d+-[0-9a-f]{{6}}\.stacks\.log)\n", err).group(1)
    assert (tmp_path / "script.stacks.log").read_text() == "mine" and os.path.getsize(other)


def test_two_samplers_do_not_share_a_log(tmp_path):
    first = sampler.Log([str(tmp_path / "a.log")], False, 1 << 20)
    first.write("# modwsgi-tel sample: x\n")
    try:
        with pytest.raises(TelError, match="another sampler writes it"):
            sampler.Log([str(tmp_path / "a.log")], False, 1 << 20)
        second = sampler.Log([str(tmp_path / "a.log"), str(tmp_path / "b.log")], True, 1 << 20)
        assert second.path == str(tmp_path / "b.log")
        second.close()
    finally:
        first.close()


@pytest.mark.parametrize("what, said", [
    ("link", "is a symbolic link, which is not followed"), ("folder", "Is a directory"), ("fifo", "is no regular file"),
    ("text", "is no log of a sampler, and is left alone"), ("hard", "belongs to another user, or has a second name"),
    ("missing/x", "No such file or directory"),
    ("old", "old.1, which it becomes when it is full: is no log of a sampler, and is left alone")])
def test_a_log_that_cannot_be_meant_is_refused(tmp_path, what, said):
    path = tmp_path / what
    (tmp_path / "text").write_text("mine")
    if what == "link":
        path.symlink_to("elsewhere")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "hard":
        (tmp_path / "first").write_text("")
        os.link(tmp_path / "first", path)
    elif what == "old":
        (tmp_path / "old.1").write_text("mine")
    written(tmp_path, "print('ran')")
    status, out, err = run([*SAMPLER, "--log", what, "script.py"], tmp_path)
    assert (status, out, err) == (2, "", f"modwsgi-tel: --log {path}: {said}\n")
    assert (tmp_path / "text").read_text() == "mine" and not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")
def test_where_the_folder_cannot_be_written_it_goes_to_the_one_for_temporary_files(pyz):
    with short_folder() as base:
        for name, owner in (("there", 0), ("tmp", NOBODY)):
            os.mkdir(os.path.join(base, name), 0o755)
            os.chown(os.path.join(base, name), owner, owner)
        written(f"{base}/there", "pass", "a.py")
        status, _, err = run([interpreters.for_user(NOBODY), pyz, "sample", "a.py"], f"{base}/there", {"TMPDIR": f"{base}/tmp", "PYTHONPATH": None},
                             user=NOBODY, group=NOBODY, extra_groups=[])
        assert status == 0 and err.startswith(f"modwsgi-tel: sampling a.py every 5.0 s into {base}/tmp/a.stacks.log\n")
        assert os.listdir(f"{base}/there") == ["a.py"] and os.listdir(f"{base}/tmp") == ["a.stacks.log"]


def test_a_full_log_becomes_an_older_one_and_both_stay_within_the_bound(tmp_path):
    path = str(tmp_path / "a.log")
    log = sampler.Log([path], False, 10000)
    try:
        log.write("# modwsgi-tel sample: x\n")
        for number in range(100):
            log.write(f"{number:04d}" + "x" * 400 + "\n")
        assert log.failed == 0 and os.path.getsize(path) <= 5000 and os.path.getsize(path + ".1") <= 5000
        with open(path) as new, open(path + ".1") as old:
            both = old.read() + new.read()
        assert both.startswith("# modwsgi-tel sample: ") and re.findall(r"^0\d{3}", both, re.MULTILINE)[-1] == "0099"
        os.unlink(path + ".1")
        os.mkdir(path + ".1")           # it cannot be moved away any more
        for number in range(100):
            log.write("y" * 400 + "\n")
        assert log.failed == 0 and os.path.getsize(path) <= 5000
        with open(path) as new:
            assert new.read().startswith("# modwsgi-tel sample: what was older did not fit\n")
    finally:
        log.close()


def test_a_disk_that_is_full_is_counted_and_the_script_goes_on(tmp_path):
    written(tmp_path, "import time\ntime.sleep(0.4)\nprint('end')")
    status, out, err = run(["sh", "-c", f"ulimit -f 1; exec {' '.join(SAMPLER)} --interval 0.02 script.py"], tmp_path)
    assert (status, out) == (0, "end\n") and re.search(r"Missing in the log: [1-9]\d* texts? \(File too large\)", err), err


# --- errors --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, said", [
    ([], "sample: which script? see modwsgi-tel sample --help"), (["-"], "sample: which script? see modwsgi-tel sample --help"),
    (["--interval", "0.1"], "sample: which script? see modwsgi-tel sample --help"),
    (["none.py"], "sample: none.py: No such file or directory"), (["."], "sample: .: is a folder without a __main__.py"),
    (["stacks"], "sample: runs a script, not modwsgi-tel stacks"),
    (["--interval", "often", "x.py"], "--interval 'often': seconds, at least 0.01, as 0.5, 10m or 2h"),
    (["--interval", "0", "x.py"], "--interval '0': seconds, at least 0.01, as 0.5, 10m or 2h"),
    (["--intervall", "1", "x.py"], "unrecognized arguments: --intervall; see modwsgi-tel sample --help"),
    (["-m"], "argument -m/--module: expected one argument; see modwsgi-tel sample --help")])
@pytest.mark.parametrize("program", [SAMPLER, (*CHECKOUT, "sample")], ids=["sampler", "command"])
def test_what_cannot_be_done_is_one_line_and_status_2(tmp_path, program, argv, said):
    assert run([*program, *argv], tmp_path) == (2, "", f"modwsgi-tel: {said}\n")
    assert os.listdir(tmp_path) == []


def test_a_wrong_variable_is_named(tmp_path):
    assert run([*SAMPLER, "x.py"], tmp_path, {"TRIPOD_INTERVAL": "often"})[2] == (
        "modwsgi-tel: TRIPOD_INTERVAL 'often': seconds, at least 0.01, as 0.5, 10m or 2h\n")


def test_help_is_ours_before_the_script_s_name_and_the_script_s_behind_it(tmp_path):
    written(tmp_path, "import sys\nprint(sys.argv)")
    for program in (SAMPLER, (*CHECKOUT, "sample")):
        status, out, err = run([*program, "--help"], tmp_path)
        assert (status, err) == (0, "") and out.startswith("usage: modwsgi-tel sample [options] SCRIPT [ARGS...]\n") and "Examples:" in out
        assert run([*program, "script.py", "--help", "--interval", "-m"], tmp_path)[1] == "['script.py', '--help', '--interval', '-m']\n"
