"""Pythons whose stacks are read: the programs of bench/targets and of tests, each in a process that has told its truth.

Every wait has a deadline; what was started is ended by its pid.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile

import interpreters
import running

PROGRAMS = os.path.join(running.ROOT, "bench", "targets")
LIMIT_S = 40
# A program's last lines: says that it is ready (TOLD is what it says), then waits for the end of its stdin.
SAYS = "\nimport json as _json, os as _os\n_os.write(1, (_json.dumps(TOLD) + '\\n').encode())\n_os.read(0, 1)\n_os._exit(0)\n"


class Target:
    """A process that has written its first line, JSON: `told`.  It ends with its stdin.

    command: the interpreter, as a list.  root: where its root is.  program: a file of bench/targets, or the text of
    a program that gets SAYS behind it.  wrapper: what it is started with.
    """

    def __init__(self, command, program, *arguments, root="/", wrapper=(), python_options=(), **popen):
        self._cleanup = contextlib.ExitStack()
        try:
            folder = tempfile.mkdtemp(prefix="mwt-", dir=os.path.join(root, "tmp"))
            self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            os.chmod(folder, 0o755)
            if program.endswith(".py"):
                for name in (program, "truth.py"):
                    shutil.copy(os.path.join(PROGRAMS, name), folder)
            else:
                text, program = program, "program.py"
                with open(os.path.join(folder, program), "w", encoding="utf-8") as handle:
                    handle.write(text + SAYS)
            inside = os.path.join("/", os.path.relpath(folder, root)) if root != "/" else folder
            self.file = os.path.join(inside, program)
            self.process = subprocess.Popen([*wrapper, *command, *python_options, self.file, *arguments], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, env=running.clean_environment(PYTHONDONTWRITEBYTECODE="1"),
                                            **popen)
            self._cleanup.callback(self._end)
            self.told = self.line()
            self.pid = self.process.pid
        except BaseException:
            self._cleanup.close()
            raise

    def line(self):
        """The next line that it writes, of JSON."""
        said = b""
        while not said.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], LIMIT_S)[0], "nothing from %s: %r" % (self.process.args, said[:500])
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            assert more, "%s ended with %s: %r" % (self.process.args, self.process.wait(LIMIT_S), said[:500])
            said += more
        return json.loads(said)

    def _end(self):
        for each in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                each.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._cleanup.close()


def of(version, program, *arguments, **more):
    """A Target of a version of interpreters.READ; skips the test, by name, where there is none."""
    command, root = interpreters.to_read(version)
    return Target(command, program, *arguments, root=root, **more)
