"""What `why` reads of a process that runs: what fails of it is named, and the rest goes on."""
import subprocess
import sys
import time

import pytest

import running
import scenes
from modwsgi_tel import options
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import descriptors, roles
from modwsgi_tel.why import gather, reading
from modwsgi_tel.why.rules import judge

PROGRAM = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\nprint('ready', flush=True)\ntime.sleep(600)\n"


@pytest.fixture
def parked():
    """A Python process that waits."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def values(pid, **more):
    found = options.read("why", [*(["--pid", str(pid)] if pid else []), "--duration", "0.2", "--url", f"http://127.0.0.1:{running.free_port()}"])
    for name, value in more.items():
        setattr(found, name, value)
    return found


def looked(pid, meanwhile=None, **more):
    gathering = gather.Gathering(values(pid, **more))
    try:
        gathering.look()
        if meanwhile is not None:
            meanwhile(gathering)
        for _ in range(2):
            gathering.look()
        return gathering.scene()
    finally:
        gathering.close()


def of_it(scene):
    """What is unknown, without what every look without root and collector lacks."""
    return [line for line in scene.unknown if not line.startswith(("no telemetry", "the kernel's log"))]


def test_a_process_is_read_whole(parked):
    scene = looked(parked.pid)
    [process] = scene.processes
    assert of_it(scene) == [] and scene.looked == len(process.looks) == 3
    assert {len(look.stacks.threads) for look in process.looks} == {2}
    assert process.before and process.after and process.rates and process.limits and process.files and process.rss and process.lines


def breaks(monkeypatch, owner, name):
    def broken(*_, **__):
        raise TypeError(f"{name} is broken")
    monkeypatch.setattr(owner, name, broken)


PARTS = [(gather.details, "usage"), (gather.details, "limits"), (gather.details, "rates"), (gather, "Reader"), (gather.Reader, "look"),
         (gather.Reader, "sources"), (gather.sockets, "listeners"), (reading.waits, "waits"), (reading, "wanting"), (reading, "serves"),
         (descriptors, "count"), (reading.containers, "look"), (reading.containers, "grown"), (reading.locks, "of"), (reading.locks, "steady"),
         (reading.locks, "cycles"), (reading, "source_lines"), (reading, "switches"), (reading, "grows"), (reading, "is_limited"), (gather.cgroups, "of"),
         (gather.host, "between"), (gather.host, "kernel_log"), (gather.telemetry, "ask"), (gather.host, "look"), (reading.threads, "tids"),
         (gather.errorlog, "read"), (gather.logfiles, "of"), (gather.config, "of")]


@pytest.mark.parametrize("owner, name", PARTS, ids=lambda part: part if isinstance(part, str) else None)
def test_a_part_that_fails_is_named_and_the_rest_goes_on(parked, monkeypatch, owner, name):
    breaks(monkeypatch, owner, name)
    scene = looked(parked.pid, log=["/dev/null"])
    assert [process.pid for process in scene.processes] == [parked.pid] and scene.looked == 3
    said = [line for line in scene.unknown if "this is a mistake of modwsgi-tel" in line]
    assert all(f"TypeError: {name} is broken at test_why_gather.py:" in line for line in said), said
    judge(scene)


@pytest.mark.parametrize("name", ("usage", "limits", "rates"))
def test_what_is_said_of_a_mistake_has_the_part_the_error_and_its_place(parked, monkeypatch, name):
    breaks(monkeypatch, gather.details, name)
    scene = looked(parked.pid)
    what = {"usage": "pid", "limits": "limits of pid", "rates": "rates of pid"}[name]
    [line] = [line for line in of_it(scene)]
    assert line.startswith(f"{what} {parked.pid}: this is a mistake of modwsgi-tel: TypeError: {name} is broken at test_why_gather.py:")
    assert len(scene.processes[0].looks) == 3


def test_a_later_look_at_all_processes_that_fails_keeps_those_that_there_were(parked, monkeypatch):
    scene = looked(parked.pid, lambda gathering: (breaks(monkeypatch, roles, "members"), setattr(gathering, "_counted", float("-inf"))))
    assert "processes: this is a mistake of modwsgi-tel: TypeError: members is broken" in scene.unknown[0]
    assert (scene.gone, [member.pid for member in scene.members]) == ([], [parked.pid])


def test_a_process_that_ends_meanwhile_is_said_once_and_is_no_mistake(parked):
    def end(gathering):
        parked.kill()
        parked.wait(10)
        gathering._counted = float("-inf")
    scene = looked(parked.pid, end)
    assert of_it(scene) == [f"process {parked.pid} ended while it was looked at"]
    assert [member.pid for member in scene.gone] == [parked.pid] and len(scene.processes[0].looks) == 1


def test_a_process_that_is_a_zombie_is_no_mistake_either(parked):
    def end(gathering):
        parked.kill()
        running.wait_until(lambda: gather.procfs.stat(parked.pid).state == "Z", 10, "it does not end")
        gathering._counted = float("-inf")
    scene = looked(parked.pid, end)
    assert [line for line in of_it(scene) if not line.startswith(f"process {parked.pid}")] == []


def test_a_daemon_that_has_ended_is_told_once_and_as_what_it_was(parked, monkeypatch):
    parent = scenes.PARENT_MEMBER
    alive, zombie = scenes.a_member(4_000_001), scenes.a_member(4_000_001, role=roles.CHILD, group="", state="Z")
    unseen = scenes.a_member(4_000_002, start=6000, role=roles.CHILD, group="", state="Z")
    found = iter([[parent, alive], [parent, zombie, unseen], [parent, unseen], [parent]])
    left = [parent]
    monkeypatch.setattr(roles, "members", lambda: next(found, left))
    gathering = gather.Gathering(values(0))
    try:
        for _ in range(3):
            gathering._others()
        assert (gathering._gone, gathering._born) == ([alive, unseen], [unseen])
    finally:
        gathering.close()


def test_a_child_that_begins_between_two_counts_is_seen_at_the_next_look(parked, monkeypatch):
    children, seen = [[1]], []
    monkeypatch.setattr(gather.details, "children", lambda pid: children[-1])
    monkeypatch.setattr(gather.Gathering, "_others", lambda self: seen.append(list(children[-1])))
    def begins(gathering):
        seen.clear()
        gathering._members = [scenes.PARENT_MEMBER]
        gathering.look()
        children.append([1, 2])
    looked(parked.pid, begins)
    assert seen == [[1], [1, 2]]


def test_where_not_even_the_processes_can_be_told_it_is_one_line(parked, monkeypatch):
    breaks(monkeypatch, roles, "members")
    with pytest.raises(TelError, match="^the processes: this is a mistake of modwsgi-tel: TypeError: members is broken at "):
        gather.Gathering(values(parked.pid))


def test_a_long_look_takes_its_time(parked):
    gathering = gather.Gathering(values(parked.pid, duration=4000.0))
    try:
        gathering.look()
        assert gathering.pause_s() == 10.0
    finally:
        gathering.close()


def of_a_server(monkeypatch, pid, *groups, shown=""):
    """As if a process were a daemon of an Apache with these daemon groups."""
    parent = scenes.PARENT_MEMBER
    monkeypatch.setattr(roles, "members", lambda: [parent, scenes.a_member(pid, group=shown)])
    monkeypatch.setattr(gather.config, "of", lambda _: scenes.a_config(*(scenes.a_daemon(group) for group in groups)))


def test_a_daemon_that_shows_no_group_is_of_the_only_one_there_is(parked, monkeypatch):
    of_a_server(monkeypatch, parked.pid, "shop")
    for asked in ({}, {"group": "shop"}):
        [process] = looked("", **asked).processes
        assert (process.group, process.name, process.threads) == ("shop", "shop", 4)


def test_where_there_are_several_groups_it_is_of_none_and_is_looked_at_for_each(parked, monkeypatch):
    of_a_server(monkeypatch, parked.pid, "shop", "mail")
    for asked in ({}, {"group": "mail"}):
        [process] = looked("", **asked).processes
        assert (process.group, process.name, process.threads) == ("", "apache", None)


def test_which_group_it_is_of_is_told_by_the_socket_that_it_keeps(parked, monkeypatch, tmp_path):
    of_a_server(monkeypatch, parked.pid, "shop", "mail")
    listener = scenes.a_socket(f"{tmp_path}/wsgi.100.0.2.sock")
    monkeypatch.setattr(gather.sockets, "listeners", lambda: [listener])
    monkeypatch.setattr(gather.sockets, "holders", lambda inodes, pids: {inode: pids for inode in inodes})
    for asked, names in (({}, ["mail"]), ({"group": "mail"}, ["mail"]), ({"group": "shop"}, [])):
        assert [process.group for process in looked("", **asked).processes] == names


def test_a_process_that_seems_to_be_another_for_a_moment_has_not_ended(parked, monkeypatch):
    members = roles.members

    def meanwhile(gathering):
        monkeypatch.setattr(roles, "members", lambda: [])
        gathering._others()
        monkeypatch.setattr(roles, "members", members)
    scene = looked(parked.pid, meanwhile)
    assert (scene.gone, scene.born, scene.alone) == ([], [], True)


def test_a_group_without_a_process_at_this_moment_is_looked_at_all_the_same(parked, monkeypatch):
    of_a_server(monkeypatch, parked.pid, "shop", "mail", shown="shop")
    scene = looked("", group="mail")
    assert (scene.processes, [member.pid for member in scene.parents]) == ([], [scenes.PARENT_MEMBER.pid])
    assert {each.daemons[1].group for each in scene.configs.values()} == {"mail"}


def test_a_pid_or_group_of_no_server_is_an_error_of_one_line(parked):
    with pytest.raises(TelError, match=r"process 4194303 is none of a Python server, or there is none of that pid; see modwsgi-tel processes$"):
        gather.Gathering(values(4194303))
    with pytest.raises(TelError, match=r"^no process of group none such(; there are: .*)?$"):
        gather.Gathering(values("", group="none such"))


def test_a_log_that_is_named_and_is_not_there_is_said(parked, tmp_path):
    path = str(tmp_path / "error.log")
    assert [line for line in of_it(looked(parked.pid, log=[path]))] == [f"{path}: No such file or directory"]


def test_a_log_is_read_once_by_whatever_names(parked, tmp_path):
    path = tmp_path / "error.log"
    stamp = time.strftime("%a %b %d %H:%M:%S.000000 %Y", time.localtime())
    path.write_text(f"[{stamp}] [core:notice] [pid 7:tid 8] AH00052: child pid 9 exit signal Segmentation fault (11)\n")
    (tmp_path / "link.log").symlink_to(path)
    scene = looked(parked.pid, log=[str(path), str(tmp_path / "link.log"), str(path)])
    assert [(event.id, event.count) for log in scene.logs.values() for event in log.events] == [("crash", 1)]
