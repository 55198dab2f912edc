"""dump: snapshots for cron and for people, and every datagram as it comes."""
import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from modwsgi_tel import simulate
from modwsgi_tel.figures import duration, number, percent, size
from modwsgi_tel.net.datagram import BUFFER
from modwsgi_tel.report.dump import as_csv, as_jsonl, as_text, remove_old, write_whole
from modwsgi_tel.report.text import table
from modwsgi_tel.state.view import summary
from modwsgi_tel.wire import blocks
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import REQUEST_METRICS, SLOW_REQUEST
from insiders import told
from running import CHECKOUT, ROOT, Collector, clean_environment, short_folder, wait_until

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
FORMATS = ("text", "json", "jsonl", "csv")
DEADLINE_S = 30.0


def capture(name):
    with open(os.path.join(CAPTURES, f"{name}.cap.gz"), "rb") as handle:
        return [datagram for _, _, datagram in blocks.read(handle, name)]


def run(*arguments, environment=None, **more):
    """(exit status, stdout, stderr) of dump."""
    done = subprocess.run([*CHECKOUT, "dump", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, cwd=ROOT, env=clean_environment(**(environment or {})),
                          timeout=DEADLINE_S, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def one_line(outcome, status=2):
    """The one line on stderr of what could not be done."""
    assert outcome[:2] == (status, ""), outcome
    assert outcome[2].endswith("\n") and outcome[2].count("\n") == 1 and outcome[2].startswith("modwsgi-tel: "), outcome
    return outcome[2][len("modwsgi-tel: "):-1]


def nonsense(where):
    raise AssertionError(f"{where} is no JSON")


def strict(text):
    return json.loads(text, parse_constant=nonsense)


@pytest.fixture(scope="module")
def fleet():
    """A collector that knows a small fleet, and hostile texts."""
    with Collector() as collector:
        now = time.time()
        datagrams = [datagram for _, datagram in simulate.stream("slow", 4, 2, 1.0, 30.0, "1", now)] + capture("gunk")
        datagrams.append(encode(REQUEST_METRICS, 99, 1, now, named(
            hostname="=cmd|' /C calc'!A0", process_group="+evil\x1b[31m\r\n\x9b1m\x7f\u202e", sample_period=float("nan"))))
        collector.send(*datagrams)
        collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] == len(datagrams))
        collector.url = f"http://127.0.0.1:{collector.port}"
        yield collector


def is_clean(shown):
    """No control character but newlines, in bytes or as text, and nothing that turns the direction of text."""
    assert not [char for char in shown if char != "\n" and not char.isprintable()], ascii(shown)
    return shown


# --- formats ------------------------------------------------------------------------------------

def test_json_is_the_summary_of_the_collector(fleet):
    status, out, err = run("--url", fleet.url, "--format", "json")
    assert (status, err, out.count("\n")) == (0, "", 1)
    found, wanted = strict(is_clean(out)), fleet.json("/api/summary")
    assert set(found) == set(wanted) and found["type"] == "summary"
    assert [row["pid"] for row in found["processes"]] == [row["pid"] for row in wanted["processes"]]
    assert out.isascii()


def test_jsonl_is_an_object_a_line(fleet):
    status, out, err = run("--url", fleet.url, "--format", "jsonl")
    rows = [strict(line) for line in is_clean(out).splitlines()]
    summary = fleet.json("/api/summary")
    assert (status, err) == (0, "")
    assert [row["type"] for row in rows] == (
        ["totals"] + ["group"] * len(summary["groups"]) + ["process"] * len(summary["processes"]))
    assert len({row["time"] for row in rows}) == 1 and all("windows" in row for row in rows)


def test_jsonl_has_what_agents_told_in_an_object_of_its_own_and_csv_stays_as_it_is():
    found = the_summary(*told())
    rows = [strict(line) for line in is_clean(as_jsonl(found)).splitlines()]
    assert [row["type"] for row in rows] == ["totals", "group", "agent", "process"]
    assert rows[2] == {"type": "agent", "time": found["time"], **found["agent"]} and rows[2]["exceptions"] == 8
    assert as_csv(found).count("\n") == 2
    del found["agent"]                  # a collector from before there were agents
    assert [strict(line)["type"] for line in as_jsonl(found).splitlines()] == ["totals", "group", "process"]
    assert "agents" not in as_text(found)


def test_csv_is_a_row_a_process_with_names_and_no_formula(fleet):
    status, out, err = run("--url", fleet.url, "--format", "csv")
    head, *rows = list(csv.reader(io.StringIO(is_clean(out))))
    assert (status, err) == (0, "")
    assert head == ["time", "host", "pid", "group", "life", "throughput", "request_p50_s", "request_p95_s", "request_p99_s",
                    "capacity", "cpu", "rss_bytes", "status_5xx", "slow_active", "lost", "silent_s"]
    summary = fleet.json("/api/summary")
    assert [row[2] for row in rows] == [str(row["pid"]) for row in summary["processes"]]
    assert {len(row) for row in rows} == {len(head)}
    for row in rows:
        for cell in row:
            if cell[:1] in ("-", "+", "=", "@"):
                float(cell)                         # a number, or ValueError
    evil, = [row for row in rows if row[2] == "99"]
    assert evil[1] == "'=cmd|' /C calc'!A0" and evil[3] == "'+evil\\x1b[31m\\r\\n\\x9b1m\\x7f\\u202e"


def test_text_is_tables_in_columns(fleet):
    status, out, err = run("--url", fleet.url)
    assert (status, err) == (0, "")
    lines = is_clean(out).splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  processes: ", lines[0])
    head, = [line for line in lines if line.startswith("pid ")]
    rows = lines[lines.index(head) + 1:]
    summary = fleet.json("/api/summary")
    assert sorted(row.split()[0] for row in rows) == sorted(str(row["pid"]) for row in summary["processes"])
    for name in ("req/s", "p99", "busy", "rss", "lost"):        # right-aligned: every cell ends where its head ends
        end = head.index(name) + len(name)
        assert all(row[end:end + 2].strip() == "" and row[end - 1:end].strip() for row in rows), (name, out)


def the_summary(fleet, now, wall):
    """The summary as the collector makes it."""
    return {**summary(fleet, now, wall, {}), "verdict": "", "findings": []}


def test_text_has_what_agents_told_below_the_processes(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    text = is_clean(as_text(the_summary(*told())))
    monkeypatch.undo()
    time.tzset()
    lines = text.splitlines()
    assert lines[lines.index(next(line for line in lines if line.startswith("agents: "))):] == [
        "agents: in 1 process, standard telemetry by those of 1; 3 of their datagrams could not be sent (before a collector came, too); "
        "0 errors of their own",
        "an agent says: locals=maybe: wants on or off",
        "event loops were held 4 times: 1.5 s in all, 750 ms the longest",
        "",
        "10 min  in all  requests  active  thread        where long requests have their time           waits for                             "
        "        paths",
        " 4.0 s   4.0 s         1       1  works: sleep  stock.py:301 reserve, called from wsgi.py:12  makes 1 request wait 3.0 s            "
        "        /stock 1",
        " 5.0 s   5.0 s         1       1  works         report.py:42 report, called from wsgi.py:12   -                                     "
        "        /report 1",
        " 3.0 s   3.0 s         1       1  waits: rlock  cart.py:77 put, called from wsgi.py:12        stock.py:301 reserve, called from wsgi"
        ".py:12  /cart 1",
        " 2.5 s   2.5 s         1       0  works         pay.py:55 charge, called from wsgi.py:12      -                                     "
        "        /pay 1",
        "",
        "exceptions that left the applications: 8 at 2 places",
        "count  last   type               at                                         path     group",
        "    7  22:13  ValueError         orders.py:9 check, called from wsgi.py:12  /orders  shop",
        "    1  22:13  shop.PaymentError  pay.py:55 charge, called from wsgi.py:12   /pay     shop",
        "",
        "operation  count  seconds     mean     p50      p95     p99     max  errors",
        "db.query      40   409 ms  10.2 ms  2.3 ms  11.8 ms  243 ms  250 ms       2",
        "cache.get   9000   8.1 ms   0.9 us  4.0 us   4.0 us  4.0 us  4.0 us       0"]


def test_text_says_how_many_of_its_stacks_waited_and_how_many_places_of_exceptions_are_shown():
    found = the_summary(*told())
    agent = found["agent"]
    agent["pivots"][2].update(waited=3, stacks=4)
    agent.update(exceptions=90, exception_places=7, top_exceptions=agent["top_exceptions"] * 2)
    lines = as_text(found).splitlines()
    assert sum("waits: rlock 3/4  cart.py:77 put" in line for line in lines) == 1
    assert "exceptions that left the applications: 90 at 7 places, the 4 most frequent" in lines


def test_what_applications_name_at_length_is_cut_and_printable():
    found = the_summary(*told())
    for row in (*found["agent"]["pivots"], *found["agent"]["top_exceptions"]):
        row["place"] = row["path"] = row["type"] = row["waits_for"] = "\x1b[2J" + "x" * 500
    assert max(map(len, is_clean(as_text(found)).splitlines())) < 400


def test_text_of_ordinary_processes_fits_100_columns(serve):
    collector = serve()
    collector.send(*[datagram for _, datagram in simulate.stream("busy", 6, 2, 1.0, 20.0, "1", time.time())])
    collector.wait_for("/api/summary", lambda summary: len(summary["processes"]) == 6)
    _, out, _ = run("--url", f"http://127.0.0.1:{collector.port}")
    assert max(map(len, out.splitlines())) <= 100, out


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_collector_is_shown_in_every_format(serve, name):
    collector = serve()
    status, out, err = run("--url", f"http://127.0.0.1:{collector.port}", "--format", name)
    assert (status, err) == (0, "") and out.endswith("\n")


def test_the_unix_socket_and_the_token_are_asked_as_well(serve, tmp_path):
    (tmp_path / "token").write_text("s3cret-t\u00f6ken\n", encoding="utf-8")
    with short_folder() as folder:
        path = os.path.join(folder, "h")
        collector = serve("--http-socket", path, "--token-file", str(tmp_path / "token"))
        url = f"http://127.0.0.1:{collector.port}"
        for where in (("--http-socket", path), ("--url", url)):
            assert "give --token-file" in one_line(run(*where))
            assert run(*where, "--token-file", str(tmp_path / "token"), "--format", "json")[0] == 0
        assert run("--format", "json", environment={"MODWSGI_TEL_HTTP_SOCKET": path, "MODWSGI_TEL_TOKEN_FILE":
                                                    str(tmp_path / "token")})[0] == 0


def test_a_root_path_in_the_url_is_kept(serve):
    collector = serve("--root-path", "/telemetry")
    for end in ("", "/", "/telemetry", "/telemetry/"):
        assert run("--url", f"http://127.0.0.1:{collector.port}{end}", "--format", "json")[0] == 0, end


def test_what_serve_is_told_in_the_environment_does_not_make_dump_bind_a_socket(fleet):
    """One file of variables for both: dump still asks the collector, and the socket stays the collector's."""
    environment = {"MODWSGI_TEL_LISTEN": f"unix:{fleet.socket}", "MODWSGI_TEL_SOCKET_MODE": "0660",
                   "MODWSGI_TEL_SOCKET_GROUP": "root", "MODWSGI_TEL_DURATION": "1s", "MODWSGI_TEL_URL": fleet.url}
    status, out, err = run("--format", "json", environment=environment)
    assert (status, err) == (0, "") and strict(out)["type"] == "summary"


# --- to a file ------------------------------------------------------------------------------------

def test_output_goes_to_the_file_of_that_time_and_says_nothing(fleet, tmp_path):
    before = time.time()
    assert run("--url", fleet.url, "--format", "json", "--output", f"{tmp_path}/dump-%Y%m%d-%H%M%S.json") == (0, "", "")
    name, = os.listdir(tmp_path)
    made = time.mktime(time.strptime(name, "dump-%Y%m%d-%H%M%S.json"))
    assert before - 1 <= made <= time.time()
    assert strict((tmp_path / name).read_text())["type"] == "summary"


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "out"
    shown = ["%d" % number * 3000000 for number in range(2)]
    path.write_text(shown[0])
    wrong, done = [], threading.Event()

    def look():
        while not done.is_set():
            seen = path.read_text()
            if seen not in shown:
                wrong.append(len(seen))

    thread = threading.Thread(target=look)
    thread.start()
    for turn in range(20):
        write_whole(str(path), shown[turn % 2])
    done.set()
    thread.join(DEADLINE_S)
    assert wrong == [] and os.listdir(tmp_path) == ["out"]


def test_a_disk_without_room_leaves_the_old_file_and_nothing_else(fleet, tmp_path):
    import resource
    path = tmp_path / "out"
    path.write_text("the old one")
    line = one_line(run("--url", fleet.url, "--format", "json", "--output", str(path),
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))))
    assert line == f"--output {path}: File too large"
    assert (path.read_text(), os.listdir(tmp_path)) == ("the old one", ["out"])


def test_without_an_answer_the_old_file_stays(tmp_path):
    path = tmp_path / "out"
    path.write_text("the old one")
    one_line(run("--url", "http://127.0.0.1:1", "--output", str(path)))
    assert (path.read_text(), os.listdir(tmp_path)) == ("the old one", ["out"])


@pytest.mark.parametrize("what, said", [("none/out", "No such file or directory"),
                                        ("folder", "is a folder, which is left alone"),
                                        ("link", "is a symbolic link, which is left alone"),
                                        ("fifo", "is no regular file, which is left alone"),
                                        ("x" * 300, "File name too long")])
def test_what_is_no_file_to_replace_is_left_alone(fleet, tmp_path, what, said):
    """As /dev/null: renaming over it, as root, would be the end of it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_text("precious")
    os.symlink(tmp_path / "target", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    before = sorted((entry.name, entry.inode()) for entry in os.scandir(tmp_path))
    path = os.path.join(tmp_path, what)
    assert one_line(run("--url", fleet.url, "--output", path)) == f"--output {path}: {said}"
    assert sorted((entry.name, entry.inode()) for entry in os.scandir(tmp_path)) == before


def test_keep_removes_the_oldest_of_its_own_and_nothing_else(fleet, tmp_path):
    own = [f"dump-2020010{day}-120000.json" for day in range(1, 8)]
    others = ["dump-latest.json", "dump-20200101-12000.json", "dump-20200101-120000.json.gz", "xdump-20200101-120000.json",
              "dump-20209999-120000.json", "notes"]
    for name in own[:5] + others:
        (tmp_path / name).write_text(name)
    (tmp_path / own[5]).mkdir()
    (tmp_path / own[6]).symlink_to(tmp_path / "notes")
    for name in own[:5]:                # their names say when, not when they were touched
        os.utime(tmp_path / name, (0, 10 - int(name[12])))
    assert run("--url", fleet.url, "--output", f"{tmp_path}/dump-%Y%m%d-%H%M%S.json", "--keep", "3") == (0, "", "")
    fresh, = set(os.listdir(tmp_path)) - set(own) - set(others)
    assert sorted(os.listdir(tmp_path)) == sorted([fresh, *own[3:], *others])


@pytest.mark.parametrize("template, names, kept", [
    ("d-%H%M", ["d-0001", "d-0200", "d-2359", "d-2400"], ["d-0200", "d-2359", "d-2400"]),
    ("%%-%Y", ["%-2019", "%-2020", "%-2021"], ["%-2020", "%-2021"]),
    ("a.b-%Y", ["a.b-2019", "aXb-2018", "a.b-2020", "a.b-2021"], ["aXb-2018", "a.b-2020", "a.b-2021"]),
    ("d-%b-%d", ["d-Jan-01", "d-Feb-01", "d-Dec-01", "d-Foo-01"], ["d-Feb-01", "d-Dec-01", "d-Foo-01"]),
    ("d-%y", ["d-99", "d-01", "d-02"], ["d-01", "d-02"])])
def test_which_names_a_template_makes(tmp_path, template, names, kept):
    for name in names:
        (tmp_path / name).write_text(name)
    remove_old(str(tmp_path / template), 2)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize("arguments, said", [
    (["--keep", "3"], "--keep: goes with --output"),
    (["--keep", "3", "--output", "out.json"], "--keep: --output needs a name that changes, as dump-%Y%m%d-%H%M%S.json"),
    (["--keep", "3", "--output", "%Y/out.json"], "--keep: --output needs a name that changes, as dump-%Y%m%d-%H%M%S.json"),
    (["--keep", "3", "--output", "%Y/%m.json"], "--keep: the folder of --output must not change with the time, only the name "
     "in it"),
    (["--keep", "3", "--output", "out-%s.json"], "--keep: a time written as out-%s.json cannot be read back: use "
     "dump-%Y%m%d-%H%M%S.json"),
    (["--keep", "3", "--output", "out-%-d.json"], "--keep: a time written as out-%-d.json cannot be read back: use "
     "dump-%Y%m%d-%H%M%S.json"),
    (["--keep", "3", "--output", "100%"], "--keep: a time written as 100% cannot be read back: use dump-%Y%m%d-%H%M%S.json"),
    (["--keep", "3", "--output", "100%%"], "--keep: --output needs a name that changes, as dump-%Y%m%d-%H%M%S.json"),
    (["--count", "3"], "--count: goes with --listen; see modwsgi-tel dump --help"),
    (["--duration", "3s"], "--duration: goes with --listen; see modwsgi-tel dump --help"),
    (["--listen", "unix:/none/x", "--output", "x"], "--output: goes without --listen; see modwsgi-tel dump --help"),
    (["--listen", "unix:/none/x", "--format", "csv"], "--format csv: with --listen it is text, json or jsonl"),
    (["--format", "xml"], "--format 'xml': one of text, json, jsonl, csv"),
    (["--url", "ftp://x"], "--url ftp://x: like http://127.0.0.1:8888"),
    (["--url", "http://:8888"], "--url http://:8888: like http://127.0.0.1:8888"),
    (["--url", "http://[::1"], "--url http://[::1: like http://127.0.0.1:8888"),
    (["--url", "http://x:99999"], "--url http://x:99999: like http://127.0.0.1:8888"),
    (["--url", "http://a..b/"], "--url http://a..b/: like http://127.0.0.1:8888"),
    (["--url", "http://127.0.0.1:1/a b"], "--url http://127.0.0.1:1/a b: like http://127.0.0.1:8888"),
    (["--url", "http://127.0.0.1:1/\u00fc"], "--url http://127.0.0.1:1/\u00fc: like http://127.0.0.1:8888")])
def test_what_cannot_be_meant_is_one_line(arguments, said):
    assert one_line(run(*arguments)) == said


# --- no answer, or nonsense -------------------------------------------------------------------------

@contextlib.contextmanager
def fake(serve_one):
    """The URL of a server in which `serve_one(connection)` deals with each connection, behind the request's head."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run_it():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                serve_one(connection)

    thread = threading.Thread(target=run_it, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(DEADLINE_S)


def answering(body, head="HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"):
    return lambda connection: connection.sendall(head.format(len(body)).encode() + body)


SUMMARY = {"type": "summary", "version": 1, "time": 1.0, "collector": {}, "totals": {}, "groups": [], "processes": []}


@pytest.mark.parametrize("body", [
    b"<html>hello</html>", b"", b"{", b"[]", b"1", b"null", b'{"type": "snapshot"}', b"\xff\xfe", b'{"a": NaN}',
    b"[" * 200000, b'{"a":' * 200000, json.dumps({**SUMMARY, "processes": {}}).encode(),
    json.dumps({**SUMMARY, "nan": float("nan")}).encode(), b"9" * 10000], ids=lambda body: repr(body)[:20])
def test_what_is_no_summary_is_nonsense(body):
    with fake(answering(body)) as url:
        assert url in one_line(run("--url", url, "--format", "csv"), status=3)


@pytest.mark.parametrize("more", [
    {}, {"time": "now"}, {"time": 1e300}, {"time": None}, {"processes": [1]}, {"processes": [{}]}, {"groups": [[]]},
    {"totals": {"lives": 1}}, {"totals": {"windows": {"1m": None}}}], ids=repr)
def test_a_summary_of_another_shape_is_nonsense_or_shown_but_no_traceback(more):
    with fake(answering(json.dumps({**SUMMARY, **more}).encode())) as url:
        assert url in one_line(run("--url", url, "--format", "text"), status=3)
        status, out, err = run("--url", url, "--format", "csv")
        assert status in (0, 3) and "Traceback" not in err


def test_an_answer_cut_short_is_nonsense_even_where_it_reads_like_one():
    whole = json.dumps(SUMMARY).encode()
    with fake(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + whole)) as url:
        assert one_line(run("--url", url, "--format", "json"), status=3) == f"{url}: no HTTP answer: IncompleteRead"
    with fake(answering(whole)) as url:
        assert run("--url", url, "--format", "json")[0] == 0


@pytest.mark.parametrize("raw", [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46", b"",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b'HTTP/1.1 500 X\r\nContent-Length: 14\r\n\r\n{"error": "x"}',
    b'HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]'], ids=lambda raw: repr(raw)[:40])
def test_what_is_no_http_is_nonsense(raw):
    with fake(lambda connection: connection.sendall(raw)) as url:
        assert url in one_line(run("--url", url), status=3)


def dripping(begin, drop, pause=0.05):
    """Sends something for as long as it is read."""
    def serve_one(connection):
        connection.sendall(begin)
        while True:
            connection.sendall(drop)
            time.sleep(pause)
    return serve_one


@pytest.mark.parametrize("begin, drop, pause", [
    (b"", b"", 60), (b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.05), (b"HTTP/1.1 200 OK\r\n", b"", 60), (b"H", b"", 60),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0),
    (b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.05),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.05),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x", 0.05)],
    ids=["silence", "a header without end", "no further header", "one byte", "100 without end", "a body without end",
         "chunks without end", "a chunk's size without end"])
def test_an_answer_that_never_ends_is_given_up_in_time(begin, drop, pause):
    def serve_one(connection):
        if not drop:
            connection.sendall(begin)
            connection.recv(1)          # until it gives up
        else:
            dripping(begin, drop, pause)(connection)
    with fake(serve_one) as url:
        began = time.monotonic()
        assert one_line(run("--url", url, "--timeout", "0.3s")) == f"{url} did not answer within 0.3 s"
        assert time.monotonic() - began < 10


def test_an_answer_without_bound_is_given_up_at_a_size(monkeypatch):
    from modwsgi_tel.errors import Nonsense
    from modwsgi_tel.report import client
    monkeypatch.setattr(client, "LARGEST", 1 << 20)
    with fake(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536, 0)) as url, pytest.raises(Nonsense) as caught:
        client.fetch("/api/summary", url=url)
    assert str(caught.value) == f"{url}/api/summary: more than 1 MiB"


def test_nobody_there_is_said(tmp_path):
    assert one_line(run("--url", "http://127.0.0.1:1")) == (
        "http://127.0.0.1:1 does not answer: Connection refused; is the collector running?")
    assert one_line(run("--http-socket", f"{tmp_path}/none")) == (
        f"{tmp_path}/none does not answer: No such file or directory; is the collector running?")
    assert "does not answer" in one_line(run("--http-socket", "/" + "x" * 200))


def test_the_peer_that_is_no_collector_of_ours_is_nonsense(serve):
    """The existing collector answers 404 with a page."""
    with fake(answering(b"404: Not Found", "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n")) as url:
        assert one_line(run("--url", url), status=3) == f"{url}/api/summary: answers 404 and no JSON"


# --- every datagram -----------------------------------------------------------------------------------

class Listening:
    """`dump --listen` in a process, bound."""

    def __init__(self, folder, *options, **more):
        self.path = os.path.join(folder, "t.sock")
        more.setdefault("stdout", subprocess.PIPE)
        self.process = subprocess.Popen([*CHECKOUT, "dump", "--listen", f"unix:{self.path}", *options], cwd=ROOT,
                                        env=clean_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)

    def __enter__(self):
        wait_until(self._answers, DEADLINE_S, lambda: "does not listen")
        return self

    def _answers(self):
        assert self.process.poll() is None, self.process.stderr.read()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self.path)
            except OSError:
                return False
        return True

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def send(self, *datagrams):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(DEADLINE_S)
            for each in datagrams:
                sender.sendto(each, self.path)
        return self

    def result(self):
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder():
    with short_folder() as made:
        yield made


def test_each_datagram_is_a_line_until_the_count_is_reached(folder):
    datagrams = capture("gunk")[-40:]
    with Listening(folder, "--count", "40") as listening:
        status, out, err = listening.send(*datagrams).result()
    lines = is_clean(out).splitlines()
    assert (status, err, len(lines), os.path.lexists(listening.path)) == (0, "", 40, False)
    assert all(re.match(rf"\d\d:\d\d:\d\d\.\d{{3}} from {os.getpid()} \w+ pid=\d+ seq=\d+ ", line) for line in lines)


def test_json_lines_hold_every_field_and_what_is_wrong(folder):
    datagrams = capture("smoke")[:5] + [b"nonsense", b"", encode(SLOW_REQUEST, 1, 2, float("nan"), named(
        slow_duration=float("inf"), slow_path_info=b"\x1b\xc2\x9b\xe2\x80\xa8\xed\xa0\x80"))]
    with Listening(folder, "--format", "json", "--count", "8") as listening:
        status, out, err = listening.send(*datagrams).result()
    rows = [strict(line) for line in is_clean(out).split("\n")[:-1]]
    assert (status, err, len(rows), {row["sender_pid"] for row in rows}) == (0, "", 8, {os.getpid()})
    assert [row.get("error") for row in rows] == [None] * 5 + ["header", "header", None]
    assert rows[5]["bytes"] == b"nonsense".hex()
    assert (rows[7]["kind"], rows[7]["stamp"], rows[7]["fields"]["slow_duration"]) == ("slow_request", None, None)


@pytest.mark.parametrize("name", ["text", "json"])
def test_what_is_longer_than_the_buffer_is_shown_as_wrong(folder, name):
    with Listening(folder, "--format", name, "--count", "1") as listening:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BUFFER)
            try:
                sender.sendto(b"x" * (BUFFER + 1), listening.path)
            except OSError:
                pytest.skip("this kernel lets nobody here send more than the buffer has")
        status, out, err = listening.result()
    assert (status, err, out.count("\n")) == (0, "", 1)
    if name == "json":
        assert strict(out)["error"] == "too_long"
    else:
        assert f"from {os.getpid()} WRONG (too_long)" in out


def test_it_ends_after_its_duration_and_on_signals(folder):
    with Listening(folder, "--duration", "0.2s") as listening:
        assert listening.result() == (0, "", "")
    for signalled in (signal.SIGTERM, signal.SIGINT):
        with Listening(folder) as listening:
            listening.send(capture("smoke")[0])
            assert listening.process.stdout.readline()          # at once, not when a buffer is full
            listening.process.send_signal(signalled)
            assert (listening.result(), os.path.lexists(listening.path)) == ((0, "", ""), False)


def test_a_running_collector_keeps_its_socket(serve):
    collector = serve()
    line = one_line(run("--listen", f"unix:{collector.socket}", "--count", "1"))
    assert line == (f"cannot bind {collector.socket}: another process listens there; stop it first, or choose another path")
    collector.send(capture("smoke")[0])
    collector.wait_for("/api/state", lambda state: state["total_received"] == 1)


def test_a_reader_that_has_gone_ends_it_quietly(folder):
    with Listening(folder) as listening:
        listening.process.stdout.close()
        listening.process.stdout = None
        datagram = capture("smoke")[0]
        with contextlib.suppress(OSError):
            wait_until(lambda: listening.send(datagram) and listening.process.poll() is not None, DEADLINE_S, "it goes on")
        assert (listening.process.wait(DEADLINE_S), listening.process.stderr.read(), os.path.lexists(listening.path)) == (
            141, b"", False)


def test_an_output_that_is_full_ends_it_with_a_line(folder):
    with open("/dev/full", "wb") as full, Listening(folder, stdout=full) as listening:
        listening.send(capture("smoke")[0])
        assert listening.process.wait(DEADLINE_S) == 2
        assert listening.process.stderr.read() == b"modwsgi-tel: cannot write to stdout: No space left on device\n"
        assert not os.path.lexists(listening.path)


def test_a_reader_that_does_not_read_does_not_block_the_senders(folder):
    datagram = capture("daemon_mixed")[1]
    with Listening(folder, "--format", "json") as listening:
        for _ in range(40):             # far more than the pipe and what is held for its reader
            listening.send(*[datagram] * 50)
        listening.process.send_signal(signal.SIGTERM)
        status, out, err = listening.result()
    assert status == 0
    shown = len(out.splitlines())
    lost = int(re.match(r"modwsgi-tel: (\d+) datagrams not shown", err).group(1)) if err else 0
    assert shown + lost == 2000 and all(strict(line) for line in out.splitlines()), (shown, lost)


# --- figures for people -----------------------------------------------------------------------------------

@pytest.mark.parametrize("shown, wanted", [
    (duration(None), "-"), (duration(0), "0.0 ms"), (duration(0.0123), "12.3 ms"), (duration(0.09949), "99.5 ms"),
    (duration(0.0996), "100 ms"), (duration(0.34), "340 ms"), (duration(0.9996), "1.0 s"), (duration(1.25), "1.2 s"),
    (duration(99.6), "2 min"), (duration(5970), "1.7 h"), (duration(172800), "2 d"), (size(None), "-"), (size(0), "0 B"),
    (size(999), "999 B"), (size(1000), "1.0 kB"), (size(34_500_000), "34.5 MB"), (size(999_600), "1.0 MB"),
    (size(99_600), "100 kB"), (size(5e15), "5000 TB"), (number(None), "-"), (number(1234.56), "1,234.6"), (number(0.5, 2), "0.50"),
    (percent(None), "-"), (percent(0.125), "12 %"), (percent(1.2), "120 %")])
def test_amounts_have_their_unit(shown, wanted):
    assert shown == wanted


def test_a_table_is_aligned_and_printable():
    assert table(["name", "n"], [["a\nb", 1], ["long name", 200]], ["n"]) == ["name         n", "a\\nb         1", "long name  200"]
