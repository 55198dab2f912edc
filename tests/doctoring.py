"""A room of namespaces with one Apache and one collector, broken and mended again, case after case, with what `doctor` says before and
after.

    python tests/doctoring.py paths             # one of ROOMS, in namespaces of its own (staging.UNSHARE): prints {case: what doctor said} as JSON
    python tests/doctoring.py paths long_path   # these cases alone

A case is a generator: it breaks something, yields the step that should say so, and may do after that what no command of doctor's can.
What doctor gives to mend it is executed as it stands.  The room has its own processes, mounts, /run, /tmp and network, so that nothing of
the machine is touched, its sysctl values neither.
"""
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import apache
import running
import staging
import wsgiservers

MOST_S = 25.0
PYZ = "MODWSGI_TEL_TEST_PYZ"            # the built file, where a case needs it
PROCESSES = 2
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


def doctor(*options, before=(), program=running.CHECKOUT):
    """(exit status, the JSON that it says)."""
    done = subprocess.run([*before, *map(str, program), "doctor", "--json", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE,
                          timeout=60, cwd=running.ROOT, env=running.clean_environment(PATH=apache.PATH), encoding="utf-8")
    assert done.returncode in (0, 1, 2) and not done.stderr, (done.returncode, done.stderr)
    return done.returncode, json.loads(done.stdout)


class Room:
    """One Apache that sends, one collector that receives.  edit(): of the configuration on the disk; reload(): Apache reads it."""

    module = None
    options = ()                        # of doctor
    expects = PROCESSES                 # that send by themselves

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.others, self.told = [], {}
        self.folder = tempfile.mkdtemp(prefix="t-", dir="/run")
        os.chmod(self.folder, 0o755)
        self.socket = os.path.join(self.folder, "t.sock")
        self.program = running.CHECKOUT
        self.collector = None

    def start(self, wrapper=(), **more):
        program = apache.express() if self.module is None else None
        self.server = self.stack.enter_context(Wrapped(wrapper, program, processes=PROCESSES, threads=2, module=self.module, **more))
        self.conf = os.path.join(self.server.folder, "httpd.conf")
        with open(self.conf) as file:
            self.whole = file.read()

    def serve(self, *options, path=None, before=(), group=True):
        """A collector, as an operator starts it.  before: what starts it."""
        path, port = path or self.socket, running.free_port()
        program = self.program if not before else (apache.SYSTEM_PYTHON, "-I", "-S", os.environ[PYZ])      # one that any user can read
        self.run([*before, *program, "serve", "--listen", "unix:" + path, "--http-port", str(port),
                  *(["--socket-group", apache.USER] if group else []), *options])
        running.wait_until(lambda: listens(port), 20, "no collector")

    def run(self, command):
        """A collector, or what helps one, in the background."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   cwd=running.ROOT,
                                   env=running.clean_environment())
        self.others.append(process)
        if "stack-helper" not in command:
            self.collector = process

    def kill(self, number=signal.SIGKILL):
        self.collector.send_signal(number)
        self.collector.wait(10)

    def edit(self, pattern, line):
        with open(self.conf) as file:
            text = file.read()
        changed, count = re.subn(pattern, line, text, flags=re.M)
        assert count, (pattern, text)
        time.sleep(0.02)                # a file that is newer than the server, also where the clock of its file system is coarse
        with open(self.conf, "w") as file:
            file.write(changed)

    def reset(self):
        with open(self.conf) as file:
            if file.read() == self.whole:
                return
        with open(self.conf, "w") as file:
            file.write(self.whole)

    def reload(self):
        before = set(self.server.daemons())
        self.server.graceful()
        running.wait_until(lambda: len(set(self.server.daemons()) - before) == PROCESSES and not before & set(self.server.daemons()), 20,
                           lambda: "no new daemons: " + self.server.log())

    def execute(self, command):
        """As a shell would; what goes on running does so in the background."""
        if re.search(r" (serve|stack-helper) ", command):
            self.run(shlex.split(command))
            return
        done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, encoding="utf-8",
                              cwd=running.ROOT)
        assert done.returncode == 0, (command, done.stdout)

    def settled(self, check=None):
        """What doctor says once check(exit status, JSON) holds; without it: once all is right."""
        last = []

        def look():
            last[:] = doctor(*self.options, program=self.program)
            return check(*last) if check else last[0] == 0 and last[1]["expected"] == self.expects

        running.wait_until(look, MOST_S, lambda: "it never came to it: %s" % json.dumps(last), pause=0.5)
        return last[1]

    def close(self):
        for each in self.others:
            if each.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    each.send_signal(signal.SIGCONT)
                    each.kill()
                each.wait(10)
        self.stack.close()


class Wrapped(apache.Sites):
    """Sites whose Apache is started by another program."""

    def __init__(self, wrapper, program, **more):
        super().__init__(program, **more)
        self.command = [*wrapper, *self.command]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def results(told, step, state):
    return [each for judged in told["steps"] if judged["id"] == step for each in judged["results"] if each["state"] == state]


# --- the cases: each breaks it, and yields the step that should say so -----------------------------------

SERVICE = r"^WSGITelemetryService .*$"


def healthy(room):
    yield None


def asked_by_nobody(room):
    """A user without rights; then one from whom /proc hides all others; then with hardly any /proc at all."""
    room.settled()
    program = (apache.SYSTEM_PYTHON, "-I", "-S", os.environ[PYZ])
    room.told["nobody"] = doctor(before=NOBODY, program=program)
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")
    room.told["hidden"] = doctor(before=(*hidden, *NOBODY), program=program)
    without = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh")
    room.told["no proc"] = doctor(before=without, program=program)
    yield None


def absent(room):
    room.edit(SERVICE, "")
    room.edit("^WSGISlowRequests .*$", "")
    room.reload()
    yield "directive"


def not_defined(room):
    room.edit(SERVICE, r"<IfDefine TELEMETRY>\n\g<0>\n</IfDefine>")
    room.reload()
    yield "directive"


def in_a_virtual_host(room):
    room.edit(SERVICE, "")
    room.reload()
    room.edit(r"\Z", "<VirtualHost *:%d>\nWSGITelemetryService unix:%s\n</VirtualHost>\n" % (room.server.port, room.socket))
    yield "directive"


def off(room):
    room.edit(SERVICE, "")
    room.reload()
    room.edit(r"^WSGISlowRequests", "WSGITelemetryService Off\nWSGISlowRequests")
    yield "directive"


def other_path(room):
    room.edit(SERVICE, "WSGITelemetryService unix:%s/other.sock" % room.folder)
    room.reload()
    yield "directive"


def long_path(room):
    room.edit(SERVICE, "WSGITelemetryService unix:%s/%s" % (room.folder, 100 * "x"))
    room.reload()
    yield "directive"


def not_reloaded(room):
    room.edit(SERVICE, "")
    room.reload()
    time.sleep(0.02)
    room.reset()
    yield "directive"


def socket_not_writable(room):
    os.chown(room.socket, 0, 0)
    os.chmod(room.socket, 0o600)
    yield "permission"


def folder_not_searchable(room):
    os.chmod(room.folder, 0o700)
    yield "permission"


def no_collector(room):
    room.kill()
    yield "collector"


def socket_removed(room):
    os.unlink(room.socket)
    yield "collector"
    room.collector.wait(10)
    room.serve()


def socket_taken_over(room):
    os.unlink(room.socket)
    first = room.collector
    room.serve()
    yield "collector"
    first.wait(10)


def stopped(room):
    room.collector.send_signal(signal.SIGSTOP)

    def waiting(status, told):
        return any("wait in their send" in each["text"] for each in results(told, "queue", "follows"))

    room.settled(waiting)
    yield "collector"


def nobody_reads(room):
    room.kill()
    os.unlink(room.socket)
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    held.bind(room.socket)
    os.chmod(room.socket, 0o666)
    keeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[held.fileno()])
    held.close()
    room.others.append(keeper)

    def waiting(status, told):
        return results(told, "queue", "wrong")

    room.settled(waiting)
    yield "queue"
    keeper.wait(10)
    room.serve()


def short_queue(room):
    with open("/proc/sys/net/unix/max_dgram_qlen", "w") as file:
        file.write("1")
    yield "queue"


def no_slow_requests(room):
    room.edit("^WSGISlowRequests .*$", "WSGISlowRequests Off")
    room.reload()
    yield "stacks"


def nonsense_arrives(room):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"\x1b[31m nonsense", room.socket)
    yield "arrival"
    room.kill(signal.SIGTERM)
    room.serve()


def stacks_not_readable(room):
    """The collector belongs to a user without rights."""
    room.kill(signal.SIGTERM)
    os.chown(room.folder, 65534, 65534)
    room.serve("--socket-mode", "0666", before=NOBODY, group=False)
    yield "stacks"
    room.kill(signal.SIGTERM)
    room.serve("--socket-mode", "0666", "--stacks-helper", "/run/modwsgi-tel-stacks.sock", before=NOBODY, group=False)


def too_old(room):
    """The agent in the application does it; a directive is to stand behind the one that doctor names."""
    told = doctor(*room.options, program=room.program)[1]
    for mend in [mend for each in results(told, "servers", "wrong") for mend in each["mends"] if mend["kind"] == "apache"]:
        file, _, number = mend["where"].rpartition(":")
        with open(file) as conf:
            lines = conf.read().split("\n")
        lines.insert(int(number), mend["text"])
        with open(file, "w") as conf:
            conf.write("\n".join(lines))
    yield "servers"


def private_tmp(room):
    yield "namespace"
    room.kill(signal.SIGTERM)
    room.serve(path="/run/modwsgi-tel/telemetry.sock")


# --- rooms -----------------------------------------------------------------------------------------------

def _six(room):
    room.serve()
    room.start(socket=room.socket)


def _old(room):
    """mod_wsgi of the distribution, which cannot send."""
    room.program = (sys.executable, os.environ[PYZ])
    room.module, room.expects = wsgiservers.MOD_WSGI, 0
    room.options = ("--listen", "unix:" + room.socket)
    room.serve()
    room.start(sites={"main": "%{GLOBAL}"})


def _private(room):
    """An Apache with a /tmp of its own, as systemd's PrivateTmp makes it."""
    room.socket = "/tmp/modwsgi-tel-%s.sock" % os.path.basename(room.folder)
    room.serve()
    room.start(("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /tmp && exec "$@"', "sh"), socket=room.socket)


ROOMS = {
    "configuration": (_six, (healthy, absent, not_defined, in_a_virtual_host, off)),
    "paths": (_six, (other_path, long_path, not_reloaded)),
    "way": (_six, (asked_by_nobody, socket_not_writable, folder_not_searchable, no_collector, socket_removed, socket_taken_over, stopped,
                   nobody_reads,
                   short_queue, nonsense_arrives, stacks_not_readable, no_slow_requests)),
    "private": (_private, (private_tmp,)),
    "old": (_old, (too_old,)),
}


def _isolate():
    """The rest of what a room has of its own: /run, where everything of it lies, and a network with its loopback."""
    for place in ("/run", "/etc/sysctl.d"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True, timeout=10)
    tempfile.tempdir = "/run"
    staging.loopback()


def stage(room, case):
    """Break it, ask, mend it as doctor says, ask again."""
    room.reset()
    steps = case(room)
    step = next(steps)
    if step is None:
        return {"after": room.settled(), **room.told}
    before = room.settled(lambda status, told: results(told, step, "wrong"))
    mends = [mend for each in results(before, step, "wrong") for mend in each["mends"]]
    for mend in mends:
        if mend["kind"] == "run":
            room.execute(mend["text"])
    next(steps, None)
    return {"before": before, "step": step, "after": room.settled()}


def main(name, *wanted):
    _isolate()
    make, cases = ROOMS[name]
    room, told = Room(), {}
    try:
        make(room)
        for case in cases:
            if not wanted or case.__name__ in wanted:
                try:
                    told[case.__name__] = stage(room, case)
                except Exception:
                    told[case.__name__] = {"error": traceback.format_exc() + room.server.log()}
                    break
    finally:
        room.close()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
