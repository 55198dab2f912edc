"""inspect's faces without a process: what stands out, what is proposed next, what is written."""
import copy
import json
import os
import shlex
import string

import pytest

from modwsgi_tel.inspection import further, gather, lists, network, text
from modwsgi_tel.inspection.gather import Subject
from modwsgi_tel.inspection.holders import Found
from modwsgi_tel.inspection.notable import KINDS, kinds, notable
from modwsgi_tel.proc import details
from modwsgi_tel.proc.sockets import Socket
from modwsgi_tel.stacks.reader import Reader

OTHER = "cannot read process 4711: it belongs to www-data, this is nobody; run as root"


def a_thread(**more):
    return {"tid": 4711, "name": "apache2", "state": "S", "wait": "futex (futex_do_wait)", "syscall": "futex", "cpu_s": 1.0, "run_wait_s": 0.0,
            "voluntary_switches": 10, "involuntary_switches": 0, "cpu": 0.0, "switches": 1.0, "involuntary": 0.0, "run_wait": 0.0, "at": None,
            "called_at": None, "request": None, "idle": None, "python_name": None, "waits_on": None, **more}


def waits_for(target, **more):
    return {"call": "recvfrom", "kind": "tcp", "fd": 12, "target": target, "direction": "read", "state": "ESTABLISHED", "incoming": False,
            "text": f"recvfrom on tcp {target}", **more}


def a_socket(**more):
    return Socket(**{"kind": "tcp", "inode": 7, "local": "10.0.0.1:40000", "remote": "10.0.0.5:5432", "state": "ESTABLISHED", "received_queue": 0,
                     "send_queue": 0, "path": None, "peer": None, "backlog": None, "uid": 33, "service": "postgres", "incoming": False, **more})._asdict()


def a_row(fd=3, kind="file", target="/srv/app.log", socket=None, **more):
    return {"fd": fd, "kind": kind, "target": target, "deleted": kind == "deleted file", "mode": "w", "position": 0, "inode": None, "socket": socket, **more}


def facts(**parts):
    """A daemon that is well, and does nothing; a part that is given as a dict goes over that part."""
    usage = {"at": 100.0, "start_ticks": 5, "state": "S", "cpu_user_s": 3.0, "cpu_system_s": 1.0, "threads": 1, "minor_faults": 9, "major_faults": 0,
             "voluntary_switches": 10, "involuntary_switches": 0, "run_s": 1.0, "wait_s": 0.0, "rss_bytes": 50_000_000, "anon_bytes": 40_000_000,
             "file_bytes": 10_000_000, "shmem_bytes": 0, "swap_bytes": 0, "size_bytes": 400_000_000, "peak_rss_bytes": 60_000_000, "read_bytes": 4096,
             "written_bytes": 0, "read_calls": 100, "write_calls": 5, "files": 20, "unknown": {}}
    out = {"pid": 4711, "at": 1_700_000_000.0, "seconds": 1.0, "role": "daemon", "group": "shop",
           "identity": {"pid": 4711, "inner_pid": None, "parent": 4700, "name": "apache2", "state": "S", "command": ["(wsgi:shop)", "-k", "start"],
                        "program": "/usr/sbin/apache2", "cwd": "/", "root": "/", "uid": 33, "gid": 33, "user": "www-data", "group_name": "www-data",
                        "uids": [33] * 4, "gids": [33] * 4, "start_ticks": 5, "started": 1_699_999_000.0, "age_s": 1000.0, "cgroup": "/apache",
                        "namespace": False, "children": [], "parents": [4700, 1], "unknown": {}},
           "usage": usage,
           "rates": {"seconds": 1.0, "cpu": 0.02, "cpu_user": 0.01, "cpu_system": 0.01, "voluntary_switches": 12.0, "involuntary_switches": 3.0,
                     "run": 0.02, "run_wait": 0.0, "minor_faults": 1.0, "major_faults": 0.0, "read_bytes": 0.0, "written_bytes": 0.0, "read_calls": 0.0,
                     "write_calls": 0.0},
           "run_wait": 0.001,
           "memory": {"rss_bytes": 50_000_000, "pss_bytes": 45_000_000, "swap_bytes": 0, "private_bytes": 44_000_000, "mappings": 3,
                      "kinds": [{"kind": "heap", "count": 1, "rss_bytes": 30_000_000, "pss_bytes": 30_000_000, "swap_bytes": 0, "size_bytes": 30_000_000}],
                      "largest": [{"kind": "heap", "name": "[heap]", "count": 1, "rss_bytes": 30_000_000, "pss_bytes": 30_000_000, "swap_bytes": 0,
                                   "size_bytes": 30_000_000}], "unknown": {}},
           "descriptors": {"count": 20, "soft_limit": 1024, "kinds": {"file": 1}, "rows": [a_row()], "same": [], "left_out": 0, "unknown": {}},
           "limits": {"open files": {"soft": 1024, "hard": 4096}, "address space": {"soft": None, "hard": None}},
           "oom": {"score": 666, "adjust": 0}, "environment": details.Environment(LANG="C", DB_PASSWORD="<masked>"),
           "cgroup": {"path": "/apache", "version": 2,
                      "memory": {"used_bytes": 100_000_000, "limit_bytes": 1_000_000_000, "reclaimable_bytes": 10_000_000, "high_bytes": None,
                                 "swap_used_bytes": 0, "swap_limit_bytes": None, "oom_kills": 0, "at": "/apache"},
                      "cpu": {"cores": 1.5, "throttled_s": 0.0, "throttled_periods": 0, "periods": 10, "at": "/apache"},
                      "pids": {"used": 10, "limit": 100, "at": "/apache"}, "pressure": None, "unknown": {}},
           "throttled": 0.0, "network": [], "threads": [a_thread()], "threads_left_out": 0, "growth": None, "ages": {}, "unknown": {},
           "interpreter": {"python": "3.11.2", "executable": "/usr/bin/python3", "prefix": "/usr", "paths": ["/usr/lib/python3.11"], "modules": 300,
                           "site_packages": ["/srv/venv/lib/python3.11/site-packages"],
                           "top": [{"name": "django", "version": "4.2", "file": "/srv/venv/x"}], "unknown": {}}}
    for name, part in parts.items():
        out[name] = {**out[name], **part} if isinstance(part, dict) and type(out[name]) is dict else part
    out["notable"] = notable(out)
    return out


def told(**parts):
    return [row["text"] for row in facts(**parts)["notable"]]


# --- what stands out ---------------------------------------------------------------------------------

def test_nothing_stands_out_of_a_process_that_is_well():
    assert told() == []
    assert kinds(facts()) == {}


@pytest.mark.parametrize("parts, said", [
    ({"descriptors": {"count": 1010}}, ["1,010 of 1,024 files open"]),
    ({"descriptors": {"count": 819}}, []),
    ({"descriptors": {"count": 820}}, ["820 of 1,024 files open"]),
    ({"usage": {"state": "D"}}, ["the process waits for a disk or another device, and cannot be interrupted"]),
    ({"usage": {"state": "T"}}, ["the process is stopped (SIGSTOP, or a debugger)"]),
    ({"usage": {"swap_bytes": 412_000_000}}, ["swap: 412 MB of its memory is on a disk"]),
    ({"usage": {"swap_bytes": 9_000_000}}, []),
    ({"throttled": 0.12}, ["its cgroup throttled it 12 % of the time (it may use 1.50 cores)"]),
    ({"throttled": 0.0}, []),
    ({"run_wait": 0.35}, ["its threads were ready to run, and waited for a CPU: 350 ms in each second, all together"]),
    ({"run_wait": 0.19}, []),
    ({"rates": {"major_faults": 1200.0}}, ["1,200 pages a second are read from a disk (major faults)"]),
    ({"limits": {"address space": {"soft": 420_000_000, "hard": None}}}, ["near its limit of address space: 400 MB of 420 MB"]),
    ({"identity": {"program": "/usr/sbin/apache2 (deleted)"}}, ["its program was replaced or removed since it began: /usr/sbin/apache2"]),
])
def test_what_is_wrong_is_said_in_words(parts, said):
    assert told(**parts) == said


def with_memory(**more):
    return {"cgroup": {**facts()["cgroup"], "memory": {**facts()["cgroup"]["memory"], **more}}}


def test_memory_near_its_limit_is_told_without_the_file_cache_that_can_be_given_up():
    assert told(**with_memory(used_bytes=990_000_000, reclaimable_bytes=500_000_000)) == []
    assert told(**with_memory(used_bytes=990_000_000)) == ["near its memory limit: 980 MB of 1.0 GB used in the cgroup /apache"]
    assert told(**with_memory(oom_kills=2)) == ["the kernel has killed 2 processes of its cgroup for want of memory"]


def test_deleted_files_are_told_but_not_those_that_never_had_a_name():
    rows = [a_row(3, "deleted file", "/var/log/app.log"), a_row(4, "deleted file", "/tmp/#123"), a_row(5, "deleted file", "/dev/zero"),
            a_row(6, "deleted file", "/tmp/tmpab12cd34")]
    assert told(descriptors={"rows": rows}) == ["deleted files open: 1 (/var/log/app.log); their space is free only when they are closed"]


def test_connections_that_the_other_side_has_closed_are_told_from_ten_on():
    def of(count):
        return network.grouped([a_row(fd, "tcp", "10.0.0.5:5432", a_socket(inode=fd, state="CLOSE_WAIT")) for fd in range(count)])

    assert told(network=of(9)) == []
    assert told(network=of(200)) == ["CLOSE_WAIT: 200 connections the other side has closed, and this has not"]


def test_a_peer_that_does_not_answer_and_a_full_backlog_are_told():
    rows = [a_row(3, "tcp", "", a_socket(inode=1, state="SYN_SENT")),
            a_row(4, "tcp", "", a_socket(inode=2, state="LISTEN", local="0.0.0.0:80", remote=None, received_queue=110, backlog=128, service="http"))]
    assert told(network=network.grouped(rows)) == ["110 connections of 128 that may wait to be accepted on 0.0.0.0:80",
                                                   "SYN_SENT: 10.0.0.5:5432 does not answer 1 connection"]


def test_what_climbs_at_each_look_is_told_when_it_is_much():
    def grown(files, climbing):
        return {"seconds": 60.0, "rss_bytes": 0, "swap_bytes": 0, "files": files, "threads": 0, "climbing": climbing, "same": {}, "mappings": {}}

    assert told(growth=grown(120, ["files"])) == ["open files climb at each look: 120 more in 60.0 s"]
    assert told(growth=grown(120, [])) == []
    assert told(growth=grown(9, ["files"])) == []


# --- what it does ------------------------------------------------------------------------------------

def test_the_kind_of_trouble_is_told_by_what_threads_wait_for():
    busy = [a_thread(tid=tid, waits_on=waits_for("10.0.0.5:5432"), request="GET /slow", idle=False) for tid in (1, 2)]
    pool = a_thread(tid=3, waits_on=waits_for("10.0.0.9:11211"), idle=True)
    client = a_thread(tid=4, waits_on=waits_for("10.0.0.7:50000", incoming=True))
    listener = a_thread(tid=5, waits_on=waits_for("127.0.0.1:80", state="LISTEN", direction="accept"))
    assert kinds(facts(threads=[*busy, pool, client, listener])) == {"peer": "2 threads wait for 10.0.0.5:5432 (GET /slow)"}


@pytest.mark.parametrize("parts, kind", [
    ({"rates": {"cpu": 0.98}}, "cpu"),
    ({"threads": [a_thread(waits_on=waits_for("10.0.0.5:5432"))]}, "peer"),
    ({"threads": [a_thread(waits_on={"kind": "futex", "call": "futex"}, request="GET /x", idle=False)]}, "lock"),
    ({"threads": [a_thread(state="D")]}, "disk"),
    ({"threads": [a_thread(waits_on={"kind": "child", "call": "wait4"})]}, "child"),
    ({"usage": {"swap_bytes": 1 << 30}}, "memory"),
    ({"descriptors": {"count": 1010}}, "files"),
    ({"run_wait": 0.5}, "switches"),
    ({"rates": {"involuntary_switches": 20_000.0}}, "switches"),
    ({"threads": [a_thread(waits_on=waits_for("10.0.0.2:53", kind="udp"))]}, "names"),
])
def test_each_kind_of_trouble_is_found(parts, kind):
    assert kind in kinds(facts(**parts))
    assert set(kinds(facts(**parts))) <= set(KINDS)


# --- connections -------------------------------------------------------------------------------------

def test_connections_are_grouped_by_the_place_at_the_other_end():
    rows = [a_row(fd, "tcp", "10.0.0.5:5432", a_socket(inode=fd, received_queue=4000)) for fd in (3, 4, 5)]
    rows += [a_row(6, "tcp", "", a_socket(inode=6, kind="tcp6", local="10.0.0.1:80", remote="10.0.0.9:50000", incoming=True, service="http")),
             a_row(7, "tcp", "", a_socket(inode=7, local="10.0.0.1:80", remote="10.0.0.8:50001", incoming=True, service="http")),
             a_row(8, "tcp", "", a_socket(inode=8, kind="tcp6", state="LISTEN", local="[::]:80", remote=None, incoming=None, backlog=511, service="http")),
             a_row(9, "unix", "", a_socket(inode=9, kind="unix", local=None, remote="/run/redis.sock", path=None, service="redis", send_queue=10)),
             a_row(10)]
    assert [text.connection(group) for group in network.grouped(rows)] == [
        "http [::]:80, nobody waits of 511 that may",
        "postgres 10.0.0.5:5432, 3 connections, 12.0 kB waiting to be read",
        "redis /run/redis.sock, 1 connection, 10 B not taken by the other side",
        "http 10.0.0.1:80, 2 connections, from 2 addresses"]


def test_the_other_end_on_this_machine_is_named():
    groups = network.grouped([a_row(3, "tcp", "", a_socket(peer=70)), a_row(4, "tcp", "", a_socket(inode=8, peer=71)),
                              a_row(5, "unix", "", a_socket(kind="unix", inode=9, remote="/run/redis.sock", service="redis", peer=72))])
    network.name_peers(groups, {70: [812], 71: [812, 813], 72: [900]}, {812: "postgres", 813: "post\nres"}.get)
    assert [text.connection(group) for group in groups] == ["postgres 10.0.0.5:5432 (pid 812 postgres, pid 813 post\\nres), 2 connections",
                                                            "redis /run/redis.sock, 1 connection"]


# --- the text ----------------------------------------------------------------------------------------

def test_a_process_is_shown_with_what_is_wrong_at_the_top():
    threads = [a_thread(tid=1, name="a\nb", cpu=0.5, state="R", at="/srv/app.py:31 fetch", request="GET /x"), a_thread(tid=2), a_thread(tid=3)]
    shown = text.lines(facts(threads=threads, descriptors={"count": 1010}, usage={"threads": 3}))
    assert shown[1:3] == ["  ! 1,010 of 1,024 files open", ""]
    assert shown[0].startswith("pid 4711  apache2  a mod_wsgi daemon of group shop, over 1.0 s  at ")
    place = shown.index("  thread  name      CPU  state     waits on")
    assert shown[place + 1:place + 5] == [
        "  1       a\\nb     50 %  running   futex (futex_do_wait)",
        "      in /srv/app.py:31 fetch",
        "      serves GET /x",
        "  2 +1    apache2   0 %  sleeping  futex (futex_do_wait)"]
    assert "  open        1,010 of 1,024 files:  1 file" in shown
    assert "  DB_PASSWORD=<masked>" in shown
    assert "  packages    django 4.2" in shown


def test_a_reason_why_parts_are_unknown_is_told_once_and_the_rest_is_shown():
    shown = text.lines(facts(identity={"program": None, "cwd": None}, usage={"read_bytes": None}, network=None, environment=details.Environment(),
                             descriptors={"count": None, "rows": [], "kinds": {}, "unknown": {"descriptors": OTHER}}, memory={"kinds": None},
                             unknown=dict.fromkeys(("program", "cwd", "io", "descriptors", "environment", "mappings"), OTHER)))
    assert f"  program     unknown: {OTHER}" in shown
    assert [line for line in shown if "unknown, as above" in line] == [
        "  folder      unknown, as above", "  by kind     unknown, as above", "  which       unknown, as above", "  sockets     unknown, as above",
        "  disk        unknown, as above", "  variables   unknown, as above"]
    assert "  resident    50.0 MB, most so far 60.0 MB, its own part 45.0 MB (pss), private 44.0 MB" in shown
    assert "  open        20 of 1,024 files" in shown


@pytest.mark.parametrize("width", (40, 80, 200))
def test_lines_are_as_wide_as_the_terminal_at_most(width):
    long = "word " * 200
    shown = text.lines(facts(threads=[a_thread(tid=tid, waits_on=waits_for("10.0.0.5:5432", text="recvfrom on " + "x" * 300), at="/srv/" + "y" * 300 + ":1 f")
                                      for tid in range(30)],
                             descriptors={"rows": [a_row(fd, target="/srv/" + "z" * 300 + str(fd)) for fd in range(30)]}, identity={"command": [long]},
                             environment=details.Environment(X=long)), width)
    assert [line for line in shown if len(line) > width] == ["  packages in /srv/venv/lib/python3.11/site-packages"] * (width == 40)     # one word


def test_what_comes_from_a_process_is_made_printable():
    hostile = "\x1b[2J\n\udc80"
    shown = text.lines(facts(identity={"name": hostile, "command": [hostile], "program": hostile, "cwd": hostile, "user": hostile}, group=hostile,
                             threads=[a_thread(name=hostile, python_name=hostile, at=hostile, called_at=hostile, request=hostile,
                                               waits_on=waits_for(hostile, text=hostile))],
                             descriptors={"rows": [a_row(target=hostile)], "same": [{"target": hostile, "kind": "file", "count": 2}]},
                             network=network.grouped([a_row(3, "unix", "", a_socket(kind="unix", remote=hostile, service=""))]),
                             environment=details.Environment({hostile: hostile}), unknown={"program": hostile},
                             cgroup={**facts()["cgroup"], "path": hostile},
                             interpreter={"python": "3.11.2", "executable": hostile, "prefix": hostile, "paths": [hostile], "site_packages": [hostile],
                                          "modules": 1, "top": [{"name": hostile, "version": hostile}], "unknown": {}}))
    shown += lists.holder_lines(Found(hostile, [{"pid": 1, "name": hostile, "command": hostile, "user": hostile, "fd": 1, "how": hostile,
                                                 "target": hostile}], 1, 0, 0))
    assert [line for line in shown if not line.isprintable()] == []


def test_what_moves_alone_is_shown_when_watched_with_what_has_grown():
    grown = {"seconds": 60.0, "rss_bytes": 20_000_000, "swap_bytes": 0, "files": 120, "threads": -2, "climbing": [], "mappings": {"heap": 19_000_000},
             "descriptors": {"file": 120}, "same": {"/srv/app.log": 120}}
    shown = text.lines(facts(growth=grown, ages={"memory": 12.0}), moving=True)
    assert [line for line in shown if line and line[0] != " "][1:] == ["now", "memory  (read 12.0 s ago)", "files", "network", "I/O", "cgroup"]
    assert "  resident    50.0 MB, +20.0 MB in 60.0 s, most so far 60.0 MB, its own part 45.0 MB (pss), private 44.0 MB" in shown
    assert "  open        20 of 1,024 files, +120 in 60.0 s:  1 file" in shown
    assert "  more of     /srv/app.log +120" in shown
    assert "  heap         1   30.0 MB  +19.0 MB  30.0 MB   0 B    30.0 MB" in shown


# --- what to do next ---------------------------------------------------------------------------------

def a_host(*programs, uid=0, headers=True):
    host = further.Host(find=lambda name: f"/usr/bin/{name}" if name in programs else None, uid=uid, own="modwsgi-tel")
    host.has_headers = lambda: headers
    return host


ALL = ("ss", "lsof", "tcpdump", "perf", "bpftrace", "strace", "gdb", "ltrace")
WAITING = {"threads": [a_thread(waits_on=waits_for("10.0.0.5:5432"))]}


def test_the_safest_of_what_is_installed_comes_first():
    rows = further.commands(facts(**WAITING), a_host(*ALL))
    names = [shlex.split(row["command"])[0] for row in rows if not row["lacks"]]
    assert names == ["modwsgi-tel"] * 5 + ["ss", "lsof", "tcpdump", "perf", "perf", "timeout", "timeout", "gdb"]
    assert [row["installed"] for row in rows if not row["lacks"]] == [True] * len(names)


def test_what_is_not_installed_comes_last_and_says_so():
    rows = further.commands(facts(**WAITING), a_host("gdb"))
    assert [bool(row["lacks"]) for row in rows] == sorted(bool(row["lacks"]) for row in rows)
    strace = next(row for row in rows if "strace" in row["command"])
    assert strace["lacks"] == "strace is not installed" and not strace["installed"]
    assert rows.index(strace) > rows.index(next(row for row in rows if "gdb" in row["command"] and not row["lacks"]))


def test_a_slow_peer_gets_commands_with_its_host_and_port_and_the_pid():
    rows = {row["command"]: row for row in further.commands(facts(**WAITING), a_host(*ALL))}
    assert "tcpdump -ni any -s 96 -c 500 host 10.0.0.5 and port 5432" in rows
    assert "ss -tnpio dst 10.0.0.5:5432" in rows
    assert "perf trace -p 4711 --duration 100 -- sleep 30" in rows
    assert rows["timeout 10 strace -f -c -p 4711"] == {
        "command": "timeout 10 strace -f -c -p 4711", "answers": "how often each system call is made, and how long they take",
        "costs": "every system call stops its thread twice, 20 to 100 us: requests with many of them become several times slower",
        "needs": "root, or CAP_SYS_PTRACE", "installed": True, "lacks": "", "for": ""}


@pytest.mark.parametrize("parts, wanted", [
    ({"rates": {"cpu": 1.0}}, ("modwsgi-tel hot 4711", "perf top -g -p 4711")),
    ({"usage": {"swap_bytes": 1 << 30}}, ("modwsgi-tel memory 4711 --start", "memleak-bpfcc -p 4711 --top 10 30 2")),
    ({"descriptors": {"count": 1010}}, ("lsof -nP -a -p 4711 +L1", "opensnoop-bpfcc -p 4711")),
    ({"threads": [a_thread(state="D")]}, ("biosnoop-bpfcc -Q", "fileslower-bpfcc -p 4711 10")),
    ({"run_wait": 0.5}, ("perf sched record -o perf-4711.data -- sleep 5 && perf sched timehist -i perf-4711.data -p 4711 --state",)),
    ({"threads": [a_thread(waits_on={"kind": "child", "call": "wait4"})]}, ("execsnoop-bpfcc -P 4711",)),
])
def test_tools_are_chosen_by_what_was_found(parts, wanted):
    commands = [row["command"] for row in further.commands(facts(**parts), a_host(*ALL))]
    assert set(wanted) <= set(commands)
    assert not set(wanted) & {row["command"] for row in further.commands(facts(), a_host(*ALL))}


def test_bcc_tools_are_found_under_each_of_their_names_and_want_the_kernels_headers():
    here = facts(**WAITING)

    def offcputime(*programs, headers=True):
        return next(row for row in further.commands(here, a_host(*programs, headers=headers)) if "offcputime" in row["command"])

    assert offcputime("offcputime-bpfcc")["command"] == "offcputime-bpfcc -p 4711 10"
    assert offcputime(f"{further.BCC_FOLDER}/offcputime")["command"] == f"{further.BCC_FOLDER}/offcputime -p 4711 10"
    assert offcputime("offcputime-bpfcc")["lacks"] == ""
    assert offcputime("offcputime-bpfcc", headers=False)["lacks"] == f"the kernel's headers are not installed (linux-headers-{os.uname().release})"
    assert offcputime()["lacks"] == "offcputime-bpfcc is not installed"


def test_who_is_not_root_gets_sudo_where_it_is_needed():
    rows = [row["command"] for row in further.commands(facts(run_wait=0.5, **WAITING), a_host(*ALL, uid=1000))]
    assert "sudo perf sched record -o perf-4711.data -- sleep 5 && sudo perf sched timehist -i perf-4711.data -p 4711 --state" in rows
    assert "modwsgi-tel inspect 4711 --watch" in rows
    assert "sudo modwsgi-tel stacks 4711" in rows


def test_a_path_that_a_process_chose_gets_into_no_command():
    hostile = "/tmp/$(reboot):80"
    here = facts(threads=[a_thread(waits_on=waits_for(hostile, kind="unix"))], network=network.grouped(
        [a_row(3, "unix", "", a_socket(kind="unix", remote=hostile)), a_row(4, "tcp", "", a_socket(remote="[fe80::1]:80"))]),
        memory={"largest": [{"kind": "python", "name": "/tmp/`reboot`/libpython3.11.so", "pss_bytes": 1}]}, rates={"cpu": 1.0})
    commands = [row["command"] for row in further.commands(here, a_host(*ALL))]
    assert [command for command in commands if "reboot" in command] == []
    assert "tcpdump -ni any -s 96 -c 500 host fe80::1 and port 80" in commands


def test_each_row_of_the_table_names_only_what_is_known():
    known = {"program", "pid", "own", "net", "data", "python", "peer", "peer_host", "peer_port"}
    for tool in further.TOOLS:
        names = {name for text_of in (tool.command, tool.answers) for _, name, _, _ in string.Formatter().parse(text_of) if name}
        assert names <= known and set(tool.kinds) <= set(KINDS), tool
        assert tool.costs and tool.answers
        assert set(tool.requires.split()) <= {"headers", "py-bt", "probes"}


def test_the_program_is_named_as_it_was_started(tmp_path):
    archive, package = tmp_path / "x y.pyz", tmp_path / "modwsgi_tel"
    archive.write_text("")
    package.mkdir()
    (package / "__main__.py").write_text("")
    assert further.started_as(str(archive), "/usr/bin/python3") == f"/usr/bin/python3 '{archive}'"
    archive.chmod(0o755)
    assert further.started_as(str(archive), "/usr/bin/python3") == f"'{archive}'"
    assert further.started_as(str(package / "__main__.py"), "/usr/bin/python3") == "/usr/bin/python3 -m modwsgi_tel"
    assert further.started_as("/nowhere/modwsgi-tel", "/usr/bin/python3") == "modwsgi-tel"


def test_the_commands_are_shown_whole_with_what_they_answer_and_cost():
    rows = further.commands(facts(**WAITING), a_host("strace"))
    shown = lists.further_lines(rows, kinds(facts(**WAITING)), 60)
    assert shown[:2] == ["", "next  (for 1 thread waits for 10.0.0.5:5432)"]
    place = shown.index("  timeout 10 strace -f -c -p 4711")
    assert shown[place + 1:place + 5] == [
        "      how often each system call is made, and how long they", "      take",
        "      costs: every system call stops its thread twice, 20 to", "      100 us: requests with many of them become several"]
    assert "  what would have to be installed first:" in shown


def test_probes_are_proposed_where_this_python_has_them(tmp_path):
    def usdt(note):
        library = tmp_path / "libpython3.11.so.1.0"
        library.write_bytes(b"\x7fELF" + note)
        here = facts(pid=os.getpid(), rates={"cpu": 1.0}, memory={"largest": [{"kind": "python", "name": str(library), "pss_bytes": 1}]})
        return [row["command"] for row in further.commands(here, a_host(*ALL)) if "usdt:" in row["command"]]

    assert usdt(b"stapsdt\0") == [f"bpftrace -p {os.getpid()} -e 'usdt:/proc/{os.getpid()}/root{tmp_path}/libpython3.11.so.1.0:python:function__return "
                                  "{ @[str(arg0), str(arg1)] = count(); }'"]
    assert usdt(b"") == []
    (tmp_path / "libpython3.11.so.1.0").unlink()
    os.mkfifo(tmp_path / "libpython3.12.so")
    here = facts(pid=os.getpid(), rates={"cpu": 1.0}, memory={"largest": [{"kind": "python", "name": str(tmp_path / "libpython3.12.so"), "pss_bytes": 1}]})
    assert [row for row in further.commands(here, a_host(*ALL)) if "usdt:" in row["command"]] == []


# --- one look after another ----------------------------------------------------------------------------

def test_a_pid_that_is_another_process_now_is_not_compared_with_the_one_before(monkeypatch):
    subject = Subject(os.getpid())
    subject.look()
    real = details.usage
    monkeypatch.setattr(details, "usage", lambda pid: {**real(pid), "start_ticks": 1})
    with pytest.raises(details.TelError, match="its pid is another process's now"):
        subject.look()


def test_a_sleep_that_the_kernel_counts_as_waiting_for_a_cpu_is_not_taken_for_it():
    slept = a_thread(run_wait=0.98, switches=1.0, involuntary=0.0)
    starved = a_thread(run_wait=0.4, switches=3.0, involuntary=20.0)
    wakes = a_thread(run_wait=0.2, switches=100.0, involuntary=0.0)
    begun = a_thread(run_wait=None, switches=None, involuntary=None)
    assert gather._run_wait([slept, begun]) == 0
    assert gather._run_wait([slept, starved, wakes, begun]) == pytest.approx(0.6)
    assert gather._run_wait([begun]) is None


def test_growth_is_since_the_first_look_and_a_climb_takes_five_looks(monkeypatch):
    real, files, grown = details.usage, [0], []
    monkeypatch.setattr(details, "usage", lambda pid: {**real(pid), "files": files[0]})
    subject = Subject(os.getpid())
    subject.look()
    for count in (10, 20, 15, 30, 40, 50, 50, 60, 70, 65):
        files[0] = count
        found = subject.facts()["growth"]
        grown.append((found["files"], "files" in found["climbing"]))
    subject.close()
    assert grown == [(10, False), (20, False), (15, False), (30, False), (40, False), (50, False), (50, False), (60, False), (70, True), (65, False)]


def test_a_part_that_takes_long_is_read_seldom(monkeypatch):
    times, read = [0.0], []

    def slow(pid):
        read.append(times[0])
        times[0] += 1.0
        return details.Environment()

    monkeypatch.setattr("modwsgi_tel.inspection.gather._PARTS", (("environment", slow, True),))
    subject = Subject(os.getpid(), clock=lambda: times[0])
    for _ in range(6):
        ages = {}
        subject._part("environment", slow, True, times[0], ages)
        times[0] += 10.0
    assert read == [0.0, 21.0, 42.0]
    assert ages == {"environment": 11.0}


def test_facts_are_json_without_loss():
    subject = Subject(os.getpid())
    subject.look()
    found = subject.facts()
    subject.close()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(copy.deepcopy(found)))
    assert {"pid", "identity", "usage", "rates", "threads", "memory", "descriptors", "network", "limits", "cgroup", "interpreter", "environment",
            "growth", "notable", "unknown"} <= set(found)
    assert found["pid"] == os.getpid() and found["growth"] is not None


def test_the_reader_is_taken_once_for_all_looks(monkeypatch):
    made = []
    monkeypatch.setattr("modwsgi_tel.inspection.gather.Reader", lambda pid: made.append(pid) or Reader(pid))
    subject = Subject(os.getpid())
    subject.look()
    subject.facts()
    subject.facts()
    subject.close()
    assert made == [os.getpid()]
