"""The tree as data: who works for which request, what stands below what, sorted, filtered, and as text."""
import json

import pytest

import scenes
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks.model import MOVING, Frame
from modwsgi_tel.stacks.runtime import NotRunning
from modwsgi_tel.tree import gather, model, text
from modwsgi_tel.tree.frames import of_application, outermost
from modwsgi_tel.tree.work import serves, wants_another_look, work_of
from trees import (APP, BEHIND, CHILD, KEEPS, LIB, LOCKED, PARENT, SOCKET, STREAM, THREAD, WALL, a_look, a_process, a_request, a_row, a_server,
                   a_thread, a_tree, an_entry, by_id, every)

def a_member(pid, group="", **more):
    return scenes.a_member(pid, group=group, **more)


OLD = a_request("Old", "/order", 60.0, "7")


def behind(request=OLD, tid=1013, **more):
    return a_thread(tid, BEHIND, request, **more)


def sorted_out(*threads, before=(), entries=(), told=None, looks=3, **more):
    """The Work of a daemon that had these threads at so many looks; before: those of earlier ones."""
    seen = [*before, *[threads] * looks]
    taken = tuple(a_look(101, *each, at=WALL - 1.0 + place / 10) for place, each in enumerate(seen))
    return work_of(a_process(101, looks=taken, **more), list(entries), told)


def names(threads):
    return [thread.tid for thread in threads]


# --- which thread belongs to which request --------------------------------------------------------

def test_a_thread_made_in_c_serves_the_request_whose_environ_it_holds():
    work = sorted_out(a_thread(1, LOCKED, a_request("A")), a_thread(2, LOCKED, a_request("B")), a_thread(3, idle=True), a_thread(4, KEEPS),
                      a_thread(101, wait="poll (do_sys_poll)"))
    assert [(each.request.request_id, names(each.threads)) for each in work.served] == [("A", [1]), ("B", [2])]
    assert (names(work.free), names(work.idle), names(work.outside), work.dead, work.unsure) == ([4], [3], [101], [], [])


def test_a_thread_that_works_for_a_request_which_goes_on_stands_with_it():
    work = sorted_out(a_thread(1, LOCKED, a_request("A")), behind(a_request("A"), 2), behind(a_request("A"), 3))
    assert [names(each.threads) for each in work.served] == [[1, 2, 3]] and not work.dead


def test_a_thread_whose_request_has_ended_was_left_behind():
    work = sorted_out(a_thread(1, LOCKED, a_request("A")), behind(), behind(tid=1014))
    assert [(each.request, names(each.threads)) for each in work.dead] == [(OLD, [1013, 1014])] and not work.unsure


AGAIN = "it may have begun while threads were read: look again"


@pytest.mark.parametrize("request_told", [OLD, a_request("New", age_s=0.0), a_request(None, age_s=None)], ids=["old", "new", "without an id"])
def test_a_request_that_began_in_between_is_not_taken_for_a_dead_one(request_told):
    """That Apache read it long ago does not tell: it may have waited for a thread."""
    left, served = behind(request_told), a_thread(1, LOCKED, request_told)
    for before, looks, why in (([], 1, AGAIN), ([], 2, AGAIN), ([[]], 2, AGAIN), ([[left]] + [[served, left]], 1, "it was served a moment ago: look again")):
        work = sorted_out(left, before=before, looks=looks)
        assert (work.dead, [said for _, said in work.unsure]) == ([], [why])
    assert names(sorted_out(served, left, before=[[left]] * 3, looks=1).served[0].threads) == [1, 1013]
    assert [each.request for each in sorted_out(left, before=[[served, left]], looks=2).dead] == [request_told]


def test_looks_go_on_until_it_is_told_whether_a_request_has_ended():
    process = a_process(101, looks=(a_look(101, behind()),))
    assert [wants_another_look(process._replace(looks=process.looks * count)) for count in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize("blind", [
    a_thread(5, (), problem=MOVING), a_thread(5, SOCKET, problem="cut: too deep"), a_thread(5, STREAM),
    a_thread(5, (), wait="poll (do_sys_poll)"), a_thread(5, (), state="running", wait=None)],
    ids=["moving", "cut", "a generator", "writes", "runs in C"])
def test_whether_a_request_has_ended_is_not_told_while_a_thread_may_serve_it_unseen(blind):
    work = sorted_out(blind, behind())
    assert (work.dead, [why for _, why in work.unsure]) == ([], ["thread 5 may serve it, and cannot be seen to"])
    # at one look is enough
    assert not sorted_out(behind(), before=[[behind()], [blind, behind()]], looks=1).dead
    # but who served it serves another one now
    assert len(sorted_out(blind, behind(), a_thread(6, LOCKED, a_request("A", thread_id="7"))).dead) == 1
    # or it is known to be another thread of mod_wsgi, not the very one
    assert not sorted_out(blind, behind(), before=[[a_thread(5, LOCKED, a_request("B", thread_id="7"))]]).dead
    assert len(sorted_out(blind, behind(), before=[[a_thread(5, LOCKED, a_request("B", thread_id="9"))]]).dead) == 1


def test_telemetry_tells_of_every_long_request_so_one_that_it_does_not_tell_has_ended():
    blind, row = a_thread(5, STREAM), a_row()
    assert len(sorted_out(blind, behind(), row=row, told=WALL).dead) == 1
    for changed, told in (({"slow_threshold": 0.0}, WALL), ({"slow_threshold": None}, WALL), ({"slow_threshold": 58.0}, WALL), ({"life": "silent"}, WALL),
                          ({}, None)):
        assert not sorted_out(blind, behind(), row=a_row(**changed), told=told).dead, changed
    assert not sorted_out(blind, behind(), row=row, told=WALL, entries=[an_entry(log_id="Old")]).dead


def test_a_record_that_is_newer_than_the_look_is_believed():
    [served] = sorted_out(behind(), entries=[an_entry(log_id="Old", received=WALL)]).served
    assert (names(served.threads), served.entry["log_id"]) == ([1013], "Old")
    assert len(sorted_out(behind(), entries=[an_entry(log_id="Old", received=WALL - 5.0)]).dead) == 1


SERVER = (Frame("view", APP, 5), Frame("handle_request", f"{LIB[:-10]}/gunicorn/workers/gthread.py", 200), *THREAD)


def test_a_server_in_python_makes_its_threads_with_threading():
    request = a_request(None, age_s=None, place=3)
    assert serves(a_thread(1, SERVER, request))
    assert not serves(a_thread(1, (SERVER[0], Frame("jobs", APP, 9), *THREAD), request))
    assert serves(a_thread(1, THREAD, request._replace(how="agent")))
    work = work_of(a_process(101, model.WORKER, server="gunicorn", looks=(a_look(101, a_thread(101, STREAM), a_thread(2, SERVER, request)),)))
    assert [names(each.threads) for each in work.served] == [[2]] and names(work.free) == [101]


def test_of_telemetry_s_requests_each_finds_its_thread():
    work = sorted_out(a_thread(1, LOCKED, a_request("A")), a_thread(2, LOCKED, a_request(None, "/other", thread_id="4")), a_thread(3, STREAM), entries=[
        an_entry(log_id="A"), an_entry(log_id="", thread_id=4, path="/other"), an_entry(log_id="C", path="/export")])
    assert [(names(each.threads), each.entry["path_info"], each.guessed) for each in work.served] == [
        ([1], "/pay", False), ([2], "/other", False), ([3], "/export", True)]


def test_of_several_that_no_thread_tells_none_is_guessed():
    work = sorted_out(a_thread(3, STREAM), a_thread(4, STREAM), entries=[an_entry(log_id="C")])
    assert [(names(each.threads), each.entry and each.entry["log_id"]) for each in work.served] == [([3], None), ([4], None), ([], "C")]


def test_what_an_agent_does_not_call_a_request_is_none():
    work = sorted_out(a_thread(1, STREAM, owns_gil=None), source=model.AGENT)
    assert not work.served and names(work.free) == [1]


def test_requests_in_an_old_take_that_telemetry_does_not_tell_any_more_have_ended():
    threads = a_thread(1, LOCKED, a_request("A", age_s=60.0)), a_thread(2, LOCKED, a_request("B", age_s=60.0))
    work = sorted_out(*threads, source=model.TAKEN, row=a_row(), told=WALL, entries=[an_entry(log_id="B")])
    assert [each.request.request_id for each in work.served] == ["B"]


# --- what stands below what -----------------------------------------------------------------------

def outline(nodes, depth=0):
    """Each node as its kind and label, indented."""
    out = []
    for node in nodes:
        if node["kind"] not in ("stack", "thread-group"):
            out += [f"{'  ' * depth}{node['kind']} {node['label']}", *outline(node["children"], depth + 1)]
    return out


def test_the_tree_has_apache_its_groups_processes_interpreters_and_requests():
    assert outline(a_tree()["nodes"]) == [
        "server apache2", "  group shop", "    process apache2", "      interpreter interpreter 0 (main)", "        request GET /pay", "        request GET /pay",
        "      interpreter interpreter 1 site-a", "        request GET /stock", "      dead (dead process)", "        request GET /order",
        "      unassociated (unassociated)", "    process apache2", "      interpreter interpreter 0 (main)", "        request GET /pay",
        "        request request (not told which)", "      process sleep", "  group children of Apache", "    process apache2", "  group mail",
        "    process apache2", "      interpreter interpreter 0 (main)"]


def test_each_node_names_its_parent_and_ids_are_stable():
    nested, again, flat = by_id(a_tree()), by_id(a_tree(sort="rss", stacktraces=True)), a_tree(flat=True)["nodes"]
    assert set(nested) == set(again) == {node["id"] for node in flat} and len(flat) == len(nested)
    for node in nested.values():
        assert all(child["parent"] == node["id"] for child in node["children"])
    assert {node["id"]: node["parent"] for node in flat} == {name: node["parent"] for name, node in nested.items()}
    assert not any("children" in node for node in flat)
    assert nested["p101.rDef"]["parent"] == "p101.i0" and nested["p101.dead.rOld"]["parent"] == "p101.dead" and "p100.g:shop" in nested


def test_totals_are_counted_before_anything_is_left_out():
    whole = a_tree()["totals"]
    assert whole == {"servers": 1, "groups": 2, "processes": 6, "threads": 45, "requests": 5, "dead": 1, "unassociated": 2, "stacks": 8, "stacks_idle": 2,
                     "stacks_different": 5}
    for ask in ({"group": "mail"}, {"pid": 104}, {"system": False}, {"flat": True}, {"group": "none"}):
        assert a_tree(**ask)["totals"] == whole


def test_equal_stacks_are_there_once_with_their_count_and_whose_they_are():
    nodes = by_id(a_tree(stacktraces=True))
    stacks = [node for node in nodes.values() if node["kind"] == "stack" and node["at"] == "shop/app.py:31"]
    assert [(node["id"], node["label"], node["count"], node["labels"]) for node in stacks] == [("p101.rDef.s0", "application", 3, [
        "GET /pay, thread 1011 of 101", "GET /pay, thread 1010 of 101", "GET /pay, thread 1020 of 102"])]
    assert [(frame["function"], frame["line"]) for frame in stacks[0]["frames"]] == [("pay", 31), ("application", 12)]
    assert {nodes[name]["stack"] for name in ("p101.rAbc", "p101.rDef", "p102.rJkl")} == {"p101.rDef.s0"}
    of_nobody = nodes["p101.unassociated.s0"]
    assert (of_nobody["label"], of_nobody["count"], of_nobody["labels"]) == ("housekeeping", 2, ['1014 "Thread-1"', '1015 "Thread-2"'])
    assert not any("frames" in node for node in every(a_tree()["nodes"]))


def test_a_request_has_what_is_known_of_it():
    request = by_id(a_tree(entries=[an_entry(log_id="Def")], told=WALL))["p101.rDef"]
    wanted = {"kind": "request", "label": "GET /pay", "request_id": "Def", "tid": 1011, "thread_id": "2", "age_s": 9.0, "started": WALL - 9.0, "queued_s": 0.25,
              "phase": "in the application", "accepted_by": 110, "told_by": ["stacks", "telemetry"], "telemetry_age_s": 0.5, "at": "shop/app.py:31",
              "function": "pay", "file": APP, "line": 31, "thread_state": "waiting", "ended": False, "system": False, "pid": 101, "process_group": "shop"}
    assert {name: request[name] for name in wanted} == wanted


def test_the_child_that_accepted_a_request_is_linked_with_who_serves_it():
    nodes = by_id(a_tree(entries=[an_entry(log_id="Def")], told=WALL))
    assert nodes["p110"]["accepted"] == [{"request": "p101.rDef", "label": "GET /pay", "pid": 101}]


def test_the_cpu_of_a_request_is_what_its_thread_used_between_two_looks():
    thread = a_thread(1, LOCKED, a_request("A"), cpu_s=0.25)
    looks = a_look(101, thread, at=WALL - 1.0), a_look(101, thread, at=WALL - 0.5)
    assert by_id(a_tree([PARENT, a_process(101, looks=looks)]))["p101.rA"]["cpu"] == 0.5


PHASES = [
    (a_thread(1, LOCKED, a_request("A")), (), "in the application"),
    (a_thread(1, LOCKED, a_request("A")), ({"log_id": "A", "phase": "response"},), "answering"),
    (a_thread(1, STREAM), (), "answering"),
    (a_thread(1, (), wait="poll (do_sys_poll)"), (), "outside of Python: most likely its answer is being written"),
    (a_thread(1, (Frame("slow_import", APP, 3), Frame("<module>", APP, 9))), (), "the application is being loaded")]


@pytest.mark.parametrize("thread, more, phase", PHASES, ids=[phase[2] + "/" + str(len(phase[1])) for phase in PHASES])
def test_the_phase_is_told_where_it_is_known(thread, more, phase):
    answer = a_tree([PARENT, a_process(101, looks=(a_look(101, thread),))], entries=[an_entry(**each) for each in more])
    assert [node["phase"] for node in every(answer["nodes"]) if node["kind"] == "request"] == [phase]


def test_a_child_process_is_marked_when_no_request_can_have_begun_it():
    requests = (a_thread(1, LOCKED, a_request("A", age_s=10.0)),)
    kept = a_process(104, model.HELPER, "shop", 101, age_s=20.0)
    for age_s, marked in ((20.0, True), (5.0, False)):
        nodes = by_id(a_tree([PARENT, a_process(101, looks=(a_look(101, *requests),)), kept._replace(started=WALL - age_s)]))
        assert (nodes["p104"]["parent"], nodes["p104"]["outlives"]) == ("p101", marked)
    assert not by_id(a_tree([PARENT, a_process(101, looks=(a_look(101, a_thread(1, STREAM)),)), kept]))["p104"]["outlives"]


# --- chosen and sorted ----------------------------------------------------------------------------

def test_a_group_or_a_pid_is_shown_with_all_that_is_below_it_and_what_it_stands_below():
    assert outline(a_tree(group="mail")["nodes"]) == ["server apache2", "  group mail", "    process apache2", "      interpreter interpreter 0 (main)"]
    assert outline(a_tree(pid=104)["nodes"]) == ["server apache2", "  group shop", "    process apache2", "      process sleep"]
    assert a_tree(pid=100)["nodes"] == a_tree()["nodes"]
    assert a_tree(pid=9)["nodes"] == a_tree(group="x")["nodes"] == []
    inner = a_process(101, inner_pid=7)
    assert outline(a_tree([inner], pid=7)["nodes"]) == ["group shop", "  process apache2"]


def test_without_what_serves_no_requests_the_rest_moves_up():
    answer = a_tree(system=False)
    assert outline(answer["nodes"]) == [
        "group shop", "  process apache2", "    interpreter interpreter 0 (main)", "      request GET /pay", "      request GET /pay",
        "    interpreter interpreter 1 site-a", "      request GET /stock", "    dead (dead process)", "      request GET /order",
        "  process apache2", "    interpreter interpreter 0 (main)", "      request GET /pay", "      request request (not told which)",
        "group mail", "  process apache2", "    interpreter interpreter 0 (main)"]
    assert [node["parent"] for node in answer["nodes"]] == [None, None]
    assert not any(node["system"] for node in every(answer["nodes"]))
    serving = CHILD._replace(looks=(a_look(110, a_thread(1, LOCKED, a_request("A"))),))
    assert outline(a_tree([PARENT, serving, CHILD._replace(pid=111)], system=False)["nodes"]) == [
        "group children of Apache", "  process apache2", "    interpreter interpreter 0 (main)", "      request GET /pay"]


@pytest.mark.parametrize("sort, processes, requests", [
    ("start", [101, 103, 102], ["Def", "Abc"]), ("age", [101, 103, 102], ["Def", "Abc"]), ("rss", [102, 101, 103], ["Abc", "Def"]),
    ("cpu", [102, 101, 103], ["Abc", "Def"])])
def test_sorted_the_oldest_or_the_largest_is_first(sort, processes, requests):
    groups = by_id(a_tree(sort=sort))
    found = [node["pid"] for group in ("p100.g:shop", "p100.g:mail") for node in groups[group]["children"]]
    assert sorted(found) == sorted(processes)
    flat = [node for node in a_tree(sort=sort, flat=True)["nodes"] if node["kind"] == "process" and node["role"] == "daemon"]
    assert [node["pid"] for node in flat] == processes
    assert [node["request_id"] for node in groups["p101.i0"]["children"]] == requests


def test_flat_what_has_no_figure_of_its_own_is_right_behind_what_it_is_below():
    nodes = [node["id"] for node in a_tree(sort="age", flat=True)["nodes"]]
    for name in ("p101.rDef.s0", "p101.rGhi.s0", "p101.dead.rOld.s0"):
        assert nodes[nodes.index(name) - 1] == name[:-3]


# --- telemetry and /proc --------------------------------------------------------------------------

def test_a_pid_that_telemetry_knows_and_proc_does_not_has_vanished():
    rows = [a_row(101), a_row(999, id=50), a_row(998, id=51, life="stopped"), a_row(102, start_ticks=1)]
    found, _, missing = gather.joined(a_server(), rows, [], True, "web1")
    answer = a_tree(found)
    nodes = by_id(answer)
    assert (nodes["p999"]["life"], nodes["p999"]["parent"], nodes["p999"]["notes"]) == (
        "vanished", "p100.g:shop", ["vanished: telemetry knows it, /proc does not"])
    assert nodes["p101"]["telemetry"]["throughput"] == 9.25 and missing == []
    # its pid is another process's now
    assert (nodes["p102"]["telemetry"], nodes["p102@v2"]["life"]) == (None, "vanished") and "p998" not in nodes
    assert answer["totals"]["processes"] == 6


def test_of_a_process_that_has_vanished_nothing_goes_on():
    looks = (a_look(101, a_thread(1, LOCKED, a_request("A"))),)
    answer = a_tree([PARENT, a_process(101, life="vanished", looks=looks)], entries=[an_entry()], told=WALL)
    assert (answer["totals"]["requests"], answer["totals"]["processes"], by_id(answer)["p101"]["children"]) == (0, 1, [])


@pytest.mark.parametrize("life, note", [("ended", "has ended while it was looked at"), ("begun", "has begun while others were looked at")])
def test_who_comes_or_goes_meanwhile_is_said_to(life, note):
    answer = a_tree([PARENT, a_process(101, life=life)])
    assert (by_id(answer)["p101"]["notes"], answer["unread"]) == ([note], 0)


def test_processes_that_a_collector_elsewhere_knows_of_other_machines_are_only_counted():
    found, _, missing = gather.joined(a_server(), [a_row(999), a_row(998, hostname="web2")], [], False, "web1")
    assert [each.pid for each in found if each.life == "vanished"] == [999]
    assert missing == ["the collector knows 1 process of other machines, which cannot be looked at here"]


def test_a_process_in_another_namespace_is_named_by_both_pids():
    row = a_row(7, sender_pid=101, namespace_pids=[101, 7])
    found, entries, _ = gather.joined([PARENT, a_process(101)], [row], [{**an_entry(), "process": row["id"]}], True, "web1")
    assert (found[1].inner_pid, found[1].row, entries[0]["tree_pid"]) == (7, row, 101)
    assert "101 (7 in its own namespace)" in "\n".join(text.lines(a_tree(found), None))
    # a pid that only datagrams tell is nobody's here
    claimed, _, _ = gather.joined([PARENT, a_process(101)], [a_row(7, sender_pid=101, namespace_pids=[101])], [], True, "web1")
    assert [(each.pid, each.life) for each in claimed] == [(100, None), (101, None), (7, "vanished")]


def test_what_telemetry_alone_knows_stands_below_its_process():
    nodes = by_id(a_tree([PARENT, a_process(101, looks=(a_look(101),))], entries=[an_entry(log_id="X", life="stale")], told=WALL))
    assert nodes["p101.rX"]["parent"] == "p101" and nodes["p101.rX"]["at"] is None
    assert nodes["p101.rX"]["notes"] == ["telemetry alone tells of it: no thread was seen to serve it", "nothing was heard of it lately"]


def test_the_group_of_a_daemon_whose_title_does_not_show_it_is_what_its_requests_tell():
    process = a_process(101, group="", looks=(a_look(101, a_thread(1, LOCKED, a_request("A", process_group="web"))),))
    assert outline(a_tree([PARENT, process])["nodes"])[1] == "  group web"
    assert outline(a_tree([PARENT, process._replace(looks=())])["nodes"])[1] == "  group (name not shown)"


def test_a_daemon_that_shows_no_group_is_of_the_one_whose_socket_it_keeps(monkeypatch):
    members = [a_member(100, role="apache-parent"), a_member(101), a_member(102), a_member(103, group="titled"),
               a_member(200, role="apache-parent"), a_member(201, parent=200), a_member(300, role="apache-parent", group=""), a_member(301, parent=300)]
    configured = {100: ("shop", "mail", "titled"), 200: ("alone",)}

    def of(pid):
        if pid not in configured:
            raise TelError("cannot be read")
        return scenes.a_config(*(scenes.a_daemon(group) for group in configured[pid]))
    monkeypatch.setattr(gather.roles, "members", lambda: members)
    monkeypatch.setattr(gather.config, "of", of)
    monkeypatch.setattr(gather.sockets, "listeners", lambda pid: [scenes.a_socket(f"/run/wsgi.100.0.{number}.sock", inode=number) for number in (1, 2, 3)])
    monkeypatch.setattr(gather.sockets, "holders", lambda inodes, pids: {1: [102], 2: [101]})
    monkeypatch.setattr(gather, "Reader", lambda pid: (_ for _ in ()).throw(NotRunning("no Python")))
    monkeypatch.setattr(gather, "BETWEEN_S", 0.0)
    seen = gather.look()
    assert {each.pid: each.group for each in seen.processes if each.role == "daemon"} == {
        101: "mail", 102: "shop", 103: "titled", 201: "alone", 301: ""}
    assert seen.missing == ["the groups of 1 daemon of server 300, whose titles show none: cannot be read"]
    # where all are titled nobody's configuration is asked for
    members[:] = [member for member in members if member.role != "daemon" or member.group]
    monkeypatch.setattr(gather.config, "of", None)
    monkeypatch.setattr(gather.sockets, "listeners", None)
    assert [each.group for each in gather.look().processes if each.role == "daemon"] == ["titled"]


def test_why_stacks_are_missing_is_said_once_for_all_that_are_shown():
    denied = [a_process(pid, unread=f"cannot read process {pid}: run as root") for pid in range(101, 108)]
    other = a_process(200, group="mail", unread="cannot read process 200: it is a zombie")
    answer = a_tree([PARENT, *denied, other], group="shop")
    assert (answer["unread"], answer["missing"]) == (7, ["stacks of 101, 102, 103, 104, 105 and 2 more: cannot read process 101: run as root"])


# --- whatever comes -------------------------------------------------------------------------------

def test_processes_that_are_their_own_ancestors_and_long_chains_are_placed_all_the_same():
    ring = [a_process(pid, model.HELPER, "", 200 + (pid - 199) % 3) for pid in (200, 201, 202)]
    chain = [a_process(pid, model.HELPER, "", pid - 1) for pid in range(300, 700)]
    answer = a_tree([*ring, *chain, a_process(9, model.HELPER, "", 9)])
    assert {node["pid"] for node in every(answer["nodes"])} == {*range(200, 203), *range(300, 700), 9}
    json.dumps(answer)


def test_thousands_of_threads_and_requests_are_bounded():
    same = [a_thread(tid, KEEPS) for tid in range(4000)]
    different = [a_thread(tid, (Frame("work", APP, tid), *THREAD)) for tid in range(4000, 6000)]
    requests = [a_thread(tid, LOCKED, a_request(f"R{tid}")) for tid in range(6000, 8000)]
    answer = a_tree([PARENT, a_process(101, looks=(a_look(101, *same, *different, *requests),))], stacktraces=True)
    nodes = by_id(answer)
    assert (len(nodes["p101.i0"]["children"]), nodes["p101"]["notes"]) == (1000, ["1,000 more requests are not shown"])
    assert (len(nodes["p101.unassociated"]["children"]), nodes["p101.unassociated"]["notes"]) == (200, ["1,801 more threads are not shown"])
    assert len(nodes["p101.unassociated.s0"]["labels"]) == 20 and nodes["p101.unassociated.s0"]["count"] == 4000
    shown = text.lines(answer, 80)
    assert len(shown) < 800 and "and 900 more requests: --json has all" in "\n".join(shown)


def test_frames_of_libraries_are_not_the_application_s():
    for file in (f"{LIB}/threading.py", "/opt/venv/lib/python3.9/site-packages/flask/app.py", "/usr/lib/python3/dist-packages/x.py", "<frozen importlib>"):
        frames = (Frame("inner", file, 1), Frame("mine", APP, 2), Frame("outer", file, 3))
        assert (of_application(frames).function, outermost(frames).function) == ("mine", "mine")
        assert (of_application(frames[:1]).function, outermost(frames[:1]).function) == ("inner", "inner")
    assert of_application(()) is None and outermost(()) is None


# --- text -----------------------------------------------------------------------------------------

def test_the_tree_as_text():
    entries = [an_entry(log_id="Def", server_pid=110)]
    shown = text.lines(a_tree(entries=entries, told=WALL, missing=["no log"], group="shop", stacktraces=False), 80)
    assert shown == """\
6 processes  1 server  2 groups  45 threads  5 requests  8 stacks, 5 different
    1 request left threads behind

apache2 100  Apache's parent  up 2.0 h  cpu 0.00  7.4 MB  1 thread
  daemon process group shop: 2 processes  5 requests, the oldest for 9.0 s
      134 MB
    101  up 60 min  cpu 0.25  34.5 MB  6 threads
        3 requests, the oldest for 9.0 s
      interpreter 0 (main)  2 requests
        GET /pay  for 9.0 s  after 250 ms in the queue  thread 1011
            accepted by child 110  request Def
          at shop/app.py:31 pay  waits in futex
        GET /pay  for 4.0 s  thread 1010  request Abc
          at shop/app.py:31 pay  waits in futex
      interpreter 1 site-a  1 request
        GET /stock  for 500 ms  thread 1012  request Ghi
          at shop/app.py:55 stock > readinto (python3.11/socket.py:706)
              waits in recvfrom
      (dead process)  work that goes on after its request has ended
        GET /order  began 60.0 s ago  thread 1013  request Old
          at shop/app.py:77 mails  waits in clock_nanosleep
          has ended; a thread that it left behind goes on
      (unassociated)  2 threads that work for no request
        housekeeping  2 threads: 1014 "Thread-1", 1015 "Thread-2"
          at shop/app.py:90 housekeeping  waits in clock_nanosleep
      1 thread with nothing to do
    102  up 30 min  cpu 1.50  99.0 MB  6 threads
        2 requests, the oldest for 2.0 s
      interpreter 0 (main)  2 requests
        GET /pay  for 2.0 s  thread 1020  request Jkl
          at shop/app.py:31 pay  waits in futex
        request (not told which)  age not known  answering  thread 1021
          at shop/app.py:102 export  waits in futex
      104  child process  sleep 1000  up 20.0 s  cpu 0.00  1.7 MB  1 thread

missing: no log""".splitlines()


def test_whole_stacks_are_shown_once_the_outermost_frame_first():
    shown = text.lines(a_tree(group="shop", stacktraces=True), 100)
    at = shown.index("        GET /pay  for 9.0 s  thread 1011  request Def")
    assert shown[at:at + 9] == [
        "        GET /pay  for 9.0 s  thread 1011  request Def", "          at shop/app.py:31 pay  waits in futex",
        "          3 have this stack: GET /pay, thread 1011 of 101; GET /pay, thread 1010 of 101; GET /pay,",
        "              thread 1020 of 102", "          application (/srv/shop/app.py:12)", "          pay (/srv/shop/app.py:31)",
        "        GET /pay  for 4.0 s  thread 1010  request Abc", "          at shop/app.py:31 pay  waits in futex",
        "          the same stack as GET /pay, thread 1011 of 101"]


def test_flat_each_line_has_an_id_and_that_of_what_it_stands_below():
    shown = text.lines(a_tree(flat=True, pid=103), 92)
    assert shown[-5:] == [
        "p100         -            apache2 100  Apache's parent  up 2.0 h  cpu 0.00  7.4 MB  1 thread",
        "p100.g:mail  p100         daemon process group mail: 1 process  34.5 MB",
        "p103         p100.g:mail  103  up 50 min  cpu 0.25  34.5 MB  4 threads",
        "p103.i0      p103         interpreter 0 (main)  no request",
        "p103.idle    p103         1 thread with nothing to do"]


def test_silence_is_told_only_where_a_collector_answered():
    for telemetry, wanted in ((True, ["    110  Apache child  up 58 min  cpu 0.00  6.5 MB  27 threads  no telemetry", "",
                                      "no telemetry: the Apache child sends none of its own; WSGIRestrictEmbedded is on, or it has served nothing"]),
                              (False, ["    110  Apache child  up 58 min  cpu 0.00  6.5 MB  27 threads"])):
        assert text.lines(a_tree([PARENT, CHILD]), 120, telemetry)[-len(wanted):] == wanted


HOSTILE = "\x1b[2J\u202e\n\x00" + "x" * 2000


@pytest.mark.parametrize("width", [40, 80, None])
def test_names_from_anywhere_come_out_printable_and_no_line_is_too_long(width):
    frames = (Frame(HOSTILE, f"/srv/{HOSTILE}", None),)
    threads = (a_thread(1, frames, a_request(HOSTILE[:40], HOSTILE, application_group=HOSTILE)), a_thread(2, (*frames, *THREAD), name=HOSTILE))
    process = a_process(101, group=HOSTILE[:50], looks=(a_look(101, *threads),), name=HOSTILE)
    helper = a_process(102, model.HELPER, parent=101, command=HOSTILE, name=HOSTILE)
    for ask in ({}, {"flat": True}, {"stacktraces": True}):
        shown = text.lines(a_tree([PARENT, process, helper], missing=[HOSTILE], **ask), width)
        assert all(line.isprintable() and len(line) <= (width or 10 ** 6) for line in shown)
    json.dumps(a_tree([PARENT, process, helper]), allow_nan=False)
