"""Imports point left only: a left room is understood and tested without those to its right."""
import ast
import functools
import os
import subprocess
import sys

import pytest

import running

ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "modwsgi_tel")
PACKAGE = "modwsgi_tel"

# What a room may import of ours, besides itself and the version; the longest name that fits counts.
ARROWS = {
    "errors": (),
    "bounded": (),
    "figures": (),
    "printable": ("errors",),
    "masking": (),
    "resources": (),
    "wire": ("errors", "bounded"),
    "state": ("errors", "bounded", "wire", "stacks.model"),
    "findings": ("errors", "bounded", "figures", "wire", "state"),
    "proc": ("errors", "masking"),
    "stacks": ("errors", "masking", "printable", "proc"),
    "apache": ("errors", "masking", "proc"),
    "tree": ("figures", "printable", "stacks.model", "stacks.compare"),
    # loaded into other people's applications: nothing but what it needs
    "agent": ("errors", "bounded", "masking", "printable", "wire", "stacks.model"),
    "net": ("errors", "bounded", "printable", "wire.blocks"),
    "openmetrics": ("findings", "printable", "wire", "state"),
    "web": ("errors", "bounded", "figures", "printable", "resources", "wire", "state", "findings", "openmetrics", "stacks.model", "tree"),
    "web.server": ("errors", "bounded", "net", "web"),
    "report": ("errors", "bounded", "figures", "printable", "options", "wire", "state", "stacks.model", "stacks.compare"),
    "profile": ("errors", "figures", "printable", "stacks.model"),
    "console": ("errors", "bounded", "figures", "wire", "stacks.model", "stacks.compare", "tree"),
    "simulate": ("errors", "wire"),
    "options": ("errors",),
    "peer": ("errors", "bounded", "wire", "state"),
    "player": ("errors", "bounded", "wire", "state", "options"),
    # these join the rooms
    "agentclient": ("errors", "proc", "stacks", "agent.control", "agent.watchdog"),
    "onetake": ("errors", "proc", "stacks"),
    "takers": ("errors", "net.helper", "agentclient", "onetake", "stacks.model", "state.taken"),
    "stackhelper": ("errors", "net", "onetake", "options", "proc.access", "stacks.model"),
    "textfile": ("errors", "net.helper", "openmetrics.text", "report.whole"),
    "collector": ("errors", "bounded", "figures", "wire", "state", "findings", "proc", "net", "web", "options", "takers", "textfile"),
    "tap": ("errors", "printable", "wire", "state", "net"),
    "demo": ("errors", "net", "web.guard", "options", "simulate", "collector"),
    "sources": ("errors", "findings", "peer", "player", "web"),
    "remote": ("errors", "options", "report.client", "sources", "peer", "collector"),
    "top": ("errors", "bounded", "console", "net.loop", "net.log", "options", "printable", "report.client", "remote", "sources", "player",
            "collector"),
    "targets": ("errors", "figures", "options", "printable", "proc", "stacks"),
    "stackdump": ("errors", "figures", "printable", "net.loop", "report.stacks", "stacks", "targets", "agentclient"),
    "growth": ("errors", "agentclient", "figures", "printable"),
    "sampler": ("errors", "agent.values", "figures", "options", "printable", "proc.threads", "profile", "stacks"),
    "sampling": ("errors", "proc", "stacks"),
    "record": ("errors", "figures", "net.loop", "printable", "profile", "report.whole", "sampling", "targets"),
    "hot": ("errors", "figures", "console", "net.loop", "printable", "profile", "sampling", "targets", "top"),
    "tree.gather": ("errors", "agentclient", "apache", "figures", "proc", "stacks", "tree"),
    "processes": ("errors", "options", "printable", "report.client", "tree"),
    "inspection": ("figures", "options", "printable", "proc.sockets", "report.text"),
    "inspection.gather": ("errors", "inspection", "proc", "stacks"),
    "inspection.holders": ("errors", "inspection", "proc"),
    "inspection.command": ("errors", "figures", "inspection", "net.loop", "printable", "proc.roles", "targets"),
    "why": ("apache.daemons", "apache.kinds", "figures", "findings", "printable", "proc.roles", "stacks.model", "stacks.compare"),
    "why.telemetry": ("errors", "options", "report.client"),
    "why.reading": ("errors", "agentclient", "proc", "stacks", "why"),
    "why.gather": ("errors", "agentclient", "apache", "proc", "stacks", "why"),
    "why.command": ("errors", "figures", "net.loop", "printable", "targets", "why"),
    "check": ("errors", "figures", "printable"),
    "check.command": ("errors", "check", "collector", "options", "peer", "printable", "report.client", "sources"),
    "doctor": ("errors", "agentclient", "apache", "figures", "inspection.further", "masking", "net.datagram", "options", "printable", "proc", "report.client"),
    # its command carries the files; what makes them of the tables is docgen's
    "extras": ("check.checks", "figures", "findings", "openmetrics.table", "options", "state.facts", "wire"),
    "extras.command": ("errors", "extras.table", "printable", "report.whole", "resources"),
    # for scripts of others: the one import that is promised
    "client": ("errors", "report.client"),
    "docgen": ("errors", "options", "wire", "web", "check.checks", "console", "extras", "findings", "agent.settings", "openmetrics"),
    "cli": ("errors", "printable", "options", "check.command", "collector", "demo", "doctor.command", "extras.command", "growth",
            "inspection.command", "processes", "report", "record", "hot", "sampler", "stackdump", "stackhelper", "tap", "top", "why.command"),
    "__main__": ("cli",),
}
# Each room waits in one place, and only there: no threads, no other loop; nothing that leaves Python's own or is heavy to load.
NEVER = {"selectors", "asyncio", "threading", "multiprocessing", "concurrent", "socketserver", "_thread", "ctypes", "ssl"}
# But for those that live in a process of others, which goes on meanwhile: only a thread of their own can look at it from inside.
# And ptrace has no other way in than ctypes; loaded with --stop alone.
BUT = {"agent": {"threading", "_thread"}, "sampler": {"_thread"}, "stacks.stop": {"ctypes"}}


def modules():
    """{name without the package: path} of every module."""
    found = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [each for each in folders if each != "static"]        # files for others
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
                found[name[:-9] if name.endswith(".__init__") else "" if name == "__init__" else name] = path
    return found


MODULES = modules()


@functools.lru_cache(maxsize=None)
def imports(path):
    """(own, others): names without the package, of modules that a file imports anywhere; names of others."""
    with open(path, encoding="utf-8") as handle:
        tree = ast.parse(handle.read())
    own, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" if _is_module(node.module, alias.name) else node.module
                     for alias in node.names]
        else:
            continue
        for name in names:
            if name == PACKAGE or name.startswith(PACKAGE + "."):
                own.add(name[len(PACKAGE) + 1:])
            else:
                others.add(name)
    return own, others


def _is_module(module, name):
    return f"{module}.{name}".startswith(PACKAGE + ".") and f"{module}.{name}"[len(PACKAGE) + 1:] in MODULES


def room(name):
    """The entry of ARROWS that a module stands under."""
    parts = name.split(".")
    return next((".".join(parts[:size]) for size in range(len(parts), 0, -1) if ".".join(parts[:size]) in ARROWS), None)


def within(name, allowed):
    return any(name == each or name.startswith(each + ".") for each in allowed)


def wrong_arrows():
    """{(module, what it imports)} that ARROWS does not allow."""
    wrong = set()
    for name, path in MODULES.items():
        if name:
            for target in imports(path)[0] - {""}:
                if not within(target, (room(name), *ARROWS[room(name)])):
                    wrong.add((name, target))
    return wrong


def test_every_module_has_its_room():
    assert [name for name in MODULES if name and room(name) is None] == []


def test_imports_point_left_only():
    assert wrong_arrows() == set()


def test_siblings_do_not_import_one_another():
    for one, other in (("web", "report"), ("report", "web"), ("state", "net"), ("net", "state"), ("wire", "net"), ("proc", "net"),
                       ("state", "web"), ("wire", "state"), ("net", "web"), ("console", "web"), ("console", "state"), ("console", "net"),
                       ("console", "report"), ("web", "console"), ("report", "console")):
        assert [(name, target) for name, path in MODULES.items() if within(name, (one,)) for target in imports(path)[0]
                if within(target, (other,))] == []


def test_only_what_joins_the_rooms_imports_the_agent():
    """It is for applications; of it others use what needs no agent."""
    assert {(name, target) for name, path in MODULES.items() for target in imports(path)[0]
            if within(target, ("agent",)) and not within(name, ("agent",))} == {
        ("agentclient", "agent.control"), ("agentclient", "agent.watchdog"), ("sampler", "agent.values"), ("docgen", "agent.settings")}


# What is long to import, and would then sit in each process of an application.
HEAVY = {"argparse", "asyncio", "concurrent", "ctypes", "dataclasses", "http", "inspect", "logging", "multiprocessing", "sqlite3", "ssl",
         "subprocess", "tempfile", "traceback", "tracemalloc", "typing", "zipfile"}
EXERCISED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "exercised_agent.py")


def test_the_agent_imports_all_it_needs_at_once_and_drags_in_little(tmp_path):
    """Its archive may be replaced while an application runs: whatever it needs later is in memory by then."""
    done = subprocess.run([sys.executable, "-W", "ignore", EXERCISED, str(tmp_path)], timeout=60, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          env=running.clean_environment(PYTHONPATH=os.path.dirname(ROOT)))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    others, ours, late = (set(line.split()[1:]) for line in done.stdout.splitlines())
    assert others & HEAVY == set() and late == set()
    # what is named within a function too
    named, left = set(), {name for name in MODULES if within(name, ("agent",))}
    while left:
        named |= left
        left = {target for name in left for target in imports(MODULES[name])[0]} - named
    assert named - ours - {""} == set()
    assert {room(name) for name in ours if name} == {"agent", "errors", "masking", "printable", "stacks", "wire"}
    assert {name for name in ours if within(name, ("stacks",))} == {"stacks", "stacks.model"}


def test_only_one_module_imports_curses():
    assert [name for name, path in MODULES.items() if "curses" in {other.split(".")[0] for other in imports(path)[1]}] == [
        "console.screen"]


def test_only_the_standard_library_is_imported():
    others = {(name, other) for name, path in MODULES.items() for other in imports(path)[1]}
    if sys.version_info >= (3, 10):
        assert {(name, other) for name, other in others if other.split(".")[0] not in sys.stdlib_module_names} == set()
    never = {(name, other) for name, other in others if other.split(".")[0] in NEVER}
    assert {(name, other) for name, other in never if not any(within(name, (each,)) and other in BUT[each] for each in BUT)} == set()
    # no exception is left that nobody needs
    assert {(each, other) for each in BUT for other in BUT[each]} == {
        (each, other) for each in BUT for name, other in never if within(name, (each,))}


@pytest.mark.parametrize("module", ["select", "socket", "time", "os", "signal"])
def test_protocol_and_state_touch_no_clock_no_socket_no_system(module):
    users = {name for name, path in MODULES.items() if module in {other.split(".")[0] for other in imports(path)[1]}}
    assert not {name for name in users if within(name, ("wire", "state", "bounded", "errors", "web.protocol", "web.guard",
                                                        "web.routes", "web.statejson"))}


def test_one_call_alone_waits():
    """Whoever else asks select() asks with a timeout of 0; but for the screen, which on leaving waits a moment for its terminal."""
    waits = set()
    for name, path in MODULES.items():
        with open(path, encoding="utf-8") as handle:
            for node in ast.walk(ast.parse(handle.read())):
                if isinstance(node, ast.Call) and ast.dump(node.func) == ast.dump(ast.parse("select.select").body[0].value):
                    if len(node.args) < 4 or not isinstance(node.args[3], ast.Constant) or node.args[3].value != 0:
                        waits.add(name)
    assert waits == {"net.loop", "console.screen"}


def test_the_arrows_make_no_circle():
    left = {name: {room(target) for target in allowed} - {name} for name, allowed in ARROWS.items()}
    done = set()
    while left:
        free = [name for name, needs in left.items() if needs <= done]
        assert free, f"a circle among {sorted(left)}"
        done.update(free)
        for name in free:
            del left[name]
