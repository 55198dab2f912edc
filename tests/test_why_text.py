"""What `why` prints: whole texts at the widths of terminals, with what is hostile or too long in them."""
import os
import time
from collections import namedtuple

import pytest

import test_why_rules as rules
from modwsgi_tel.printable import printable
from modwsgi_tel.stacks.model import Frame
from modwsgi_tel.why import text as shown
from modwsgi_tel.why.rules import judge
from scenes import APP, ENTRY, LIB, PARENT_MEMBER, a_finding, a_member, a_process, a_request, a_scene, a_thread, looks, telemetry

HEAD = "on web1, 22:13:20; looked for 3.0 s at 1 process with 6 threads"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: namedtuple("Uname", "nodename")("web1"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text(scene, width=80):
    findings, notes = judge(scene)
    return shown.text(scene, findings, notes, width)


def test_a_healthy_server_is_two_lines():
    assert text(a_scene()) == f"all quiet {HEAD}\nservers: shop (1 process)\n"


def test_what_could_not_be_looked_at_comes_last():
    scene = a_scene(unknown=["the kernel's log: /dev/kmsg: Operation not permitted; run as root, or with CAP_SYSLOG", "stacks of pid 7: it is not to be read"])
    assert text(scene) == f"""all quiet {HEAD}
servers: shop (1 process)

not known:
  - the kernel's log: /dev/kmsg: Operation not permitted; run as root, or with
    CAP_SYSLOG
  - stacks of pid 7: it is not to be read
"""


def test_where_no_code_could_be_seen_it_is_not_called_quiet():
    assert text(a_scene(a_process([]), root=False, unknown=["stacks of pid 101: run as root"])) == """\
nothing found, but nothing of the code could be seen: web1, 22:13:20; looked
for 3.0 s at 1 process with 6 threads, as a user who may not see all
servers: shop (1 process)

not known:
  - stacks of pid 101: run as root
"""


def test_a_finding_has_its_evidence_stacks_source_lines_and_advice():
    scene = rules.deadlock()
    scene.processes[0].lines = {(APP, 31): "with accounts:", (APP, 12): "return pay()"}
    assert text(scene._replace(telemetry=telemetry(a_finding("young", severity="info")))) == f"""\
1 finding {HEAD}
servers: shop (1 process)

CRITICAL [deadlock] pid 101 of shop: deadlock of 2 threads for 4.0 s or longer:
  thread 11 waits for accounts at app.py:31 and thread 12 waits for journal at
  app.py:36; each has what the other wants
  since 22:13 (4.0 s)
  - thread 11 waits for accounts in pay at /srv/shop/app.py:31: thread 12 owns
    it
  - thread 12 waits for journal in refund at /srv/shop/app.py:36: thread 11 is
    inside of it since line 30
  - thread 11
      application  /srv/shop/app.py:12
      pay  /srv/shop/app.py:31
        with accounts:
  - thread 12
      application  /srv/shop/app.py:12
      refund  /srv/shop/app.py:36
  what to do: Take these locks in one order everywhere, or use one lock; only a
    restart of the process frees these threads now.

worth knowing:
  - young of shop
"""


def test_a_narrow_terminal_has_narrow_lines():
    assert text(rules.FIRES["steal"], 41) == """\
1 finding on web1, 22:13:20; looked for
3.0 s at 1 process with 6 threads
servers: shop (1 process)

WARNING [steal] 15 % of this virtual
  machine's CPU time is taken by its
  host (steal)
  - steal 15 % over 3.0 s
  what to do: Ask who runs the host, or
    take a larger machine.
"""


def test_a_file_has_lines_of_a_bounded_width():
    assert max(map(len, text(rules.FIRES["lock"], None).splitlines())) <= shown.WIDEST
    assert text(rules.FIRES["lock"], None) == text(rules.FIRES["lock"], 500)


def test_servers_are_named_with_what_they_are():
    parts = [a_process(), a_process([], a_member(110, role="apache-child", group="", threads=27)), a_process(member=a_member(111, role="apache-child", group="")),
             a_process(member=a_member(112, parent=50, role="worker", group="", server="gunicorn"))]
    assert text(a_scene(*parts)).splitlines()[1:] == ["servers: (embedded) (1 process), Apache's own (1 process), shop (1 process),",
                                                      "gunicorn (1 process)"]


def test_a_long_stack_keeps_the_applications_frames_and_the_innermost():
    library = tuple(Frame(f"inner{n}", f"{LIB}/site-packages/lib/{n}.py", n) for n in range(30))
    thread = a_thread(11, (*library, Frame("view", APP, 55), ENTRY), a_request("/", 40.0))
    lines = text(a_scene(a_process(looks(10, thread)))).splitlines()
    begin = lines.index("      [28 other frames]")
    assert lines[begin + 1:begin + 5] == ["      application  /srv/shop/app.py:12", "      view  /srv/shop/app.py:55",
                                          "      inner1  /usr/lib/python3.11/site-packages/lib/1.py:1",
                                          "      inner0  /usr/lib/python3.11/site-packages/lib/0.py:0"]


def test_a_recursion_is_folded():
    deep = (Frame("walk", APP, 60),) * 50 + (ENTRY,)
    assert "      [1 call again, 47 times]\n" in text(a_scene(a_process(looks(10, a_thread(11, deep, a_request("/", 40.0))))))


@pytest.mark.parametrize("width, function, file, wanted", [
    (80, "f" * 200, "/a.py", "      " + "f" * 60 + " ...  /a.py:5"),
    (80, "view", "/" + "d" * 200 + "/app.py", "      view  ..." + "d" * 55 + "/app.py:5"),
    (80, "f" * 200, "/" + "d" * 200 + "/app.py", "      " + "f" * 28 + " ...  ..." + "d" * 27 + "/app.py:5"),
    (41, "f" * 200, "/" + "d" * 200 + "/app.py", "      " + "f" * 8 + " ...  ..." + "d" * 8 + "/app.py:5")])
def test_of_a_place_that_is_too_long_the_end_is_kept(width, function, file, wanted):
    thread = a_thread(11, (Frame(function, file, 5),), a_request("/", 40.0))
    lines = text(a_scene(a_process(looks(10, thread))), width).splitlines()
    [found] = [line for line in lines if line.startswith("      ")]
    assert found == wanted


def test_a_source_line_that_is_too_long_is_cut_at_its_end():
    process = a_process(looks(10, a_thread(11, (Frame("view", APP, 5),), a_request("/", 40.0))), lines={(APP, 5): "x = 1  # " + "y" * 200})
    assert "        x = 1  # " + "y" * 58 + " ...\n" in text(a_scene(process))


NASTY = "\x1b[2J\x07\u202e\u2028\x85\r\n\t\x00\x7f" + "\udcff"


def every_text():
    deep = tuple(Frame(f"{NASTY}{n}" + "g" * (n * 7 % 90), f"/srv/{NASTY}{'d' * (n * 13 % 150)}/app.py", None if n % 3 else n) for n in range(70))
    threads = [a_thread(11 + n, deep, a_request(f"/{NASTY}", 40.0, str(n), method=NASTY), name=NASTY) for n in range(2)]
    process = a_process(looks(6, *threads), a_member(group=NASTY), lines={(deep[0].file, deep[0].line): NASTY + "z" * 300})
    yield a_scene(process, unknown=[NASTY * 20, "word" * 100], telemetry=telemetry(a_finding("young", severity="info", text=NASTY * 9)))
    yield from rules.FIRES.values()
    yield from (scene for scenes in rules.SILENT.values() for scene in scenes)
    yield a_scene(*(a_process(member=a_member(1000 + n, parent=n, group=f"group{n}" + "g" * n)) for n in range(50)), parents=[PARENT_MEMBER] * 9)


@pytest.mark.parametrize("width", (41, 80, 100, 111, 300))
def test_no_line_is_wider_than_the_terminal_and_none_has_control_characters(width):
    for scene in every_text():
        said = text(scene, width)
        assert said.endswith("\n") and not said.endswith("\n\n")
        for line in said.splitlines():
            assert len(line) < width and line == printable(line) == line.rstrip(), line
