"""serve --textfile: whole files, a disk in trouble, and what is said of it; and GET /metrics of a running collector."""
import gzip
import os
import subprocess

import pytest

from builders import WALL, Worker, a_fleet, fold
from expositions import classic, openmetrics
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.openmetrics.reading import Source
from modwsgi_tel.textfile import LEFTOVER_S, Textfile, check_textfile
from running import CHECKOUT, ROOT, Collector, clean_environment, short_folder, wait_until


class Lines(list):
    """A Log."""

    def info(self, line):
        self.append(("INFO", line))

    def error(self, line):
        self.append(("ERROR", line))


class Writing:
    """A Textfile in a loop of its own, until something is true."""

    def __init__(self, path, fleet=None, interval_s=0.02):
        self.loop, self.log = Loop(), Lines()
        self.fleet = fleet or fold(a_fleet(), Worker().tick(requests=3), now=1.0)
        self.textfile = Textfile(self.loop, self.log, str(path), interval_s, lambda: Source(self.fleet, [], {}, True, 1.0, WALL))

        self.loop.every(0.005, self._look)

    def until(self, check):
        self.check, self.deadline = check, self.loop.clock() + 20.0
        self.loop.run()

    def _look(self):
        assert self.loop.clock() < self.deadline, (self.textfile.view(), self.log)
        if self.check():
            self.loop.stop()


def test_the_file_is_whole_each_time_and_readable_by_other_users(tmp_path):
    path = tmp_path / "modwsgi.prom"
    old = os.umask(0o077)
    try:
        writing = Writing(path)
        seen = []
        writing.until(lambda: path.exists() and (seen.append(path.read_bytes()) or writing.textfile.writes >= 4))
    finally:
        os.umask(old)
    writing.textfile.close()
    assert {classic(data)["modwsgi_requests_total"].value() for data in seen} == {3}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".prom")] == ["modwsgi.prom"]
    assert writing.textfile.failures == 0 and writing.log == []


def test_a_folder_that_goes_away_is_told_once_and_its_return_too(tmp_path):
    folder = tmp_path / "metrics"
    folder.mkdir()
    writing = Writing(folder / "m.prom")
    writing.until(lambda: writing.textfile.writes)
    folder.rename(tmp_path / "away")
    writing.until(lambda: writing.textfile.failures >= 3)
    trouble = f"--textfile {folder / 'm.prom'}: No such file or directory"
    assert writing.textfile.trouble == trouble and writing.log == [("ERROR", trouble)]
    (tmp_path / "away").rename(folder)
    writes = writing.textfile.writes
    writing.until(lambda: writing.textfile.writes > writes)
    assert writing.textfile.trouble == "" and writing.log[1:] == [("INFO", f"--textfile {folder / 'm.prom'}: is written again")]


def test_what_a_killed_helper_left_is_removed_and_nothing_else(tmp_path):
    names = ("m.prom.123.tmp", "m.prom.124.tmp", "other.prom.123.tmp", "m.prom.bak.tmp")
    for name in names:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (1, 1))
    os.utime(tmp_path / names[1])
    writing = Writing(tmp_path / "m.prom")
    writing.until(lambda: writing.textfile.writes)
    assert not (tmp_path / names[0]).exists() and all((tmp_path / name).exists() for name in names[1:]) and LEFTOVER_S > 10


def test_metrics_that_cannot_be_made_end_nothing(tmp_path):
    writing = Writing(tmp_path / "m.prom")
    fleet, writing.fleet = writing.fleet, None
    writing.until(lambda: writing.textfile.failures >= 2)
    assert "could not be made" in writing.textfile.trouble and len(writing.log) == 1
    writing.fleet = fleet
    writing.until(lambda: writing.textfile.writes)


def test_a_large_text_is_made_in_turns_so_that_others_are_looked_at(tmp_path):
    fleet = a_fleet()
    for number in range(60):
        fold(fleet, Worker(pid=1000 + number, group=f"g{number}").tick(requests=1), now=1.0)
    writing, turns = Writing(tmp_path / "m.prom", fleet), []
    writing.loop._first = lambda: turns.append(writing.textfile.writes) and False
    writing.until(lambda: writing.textfile.writes)
    assert turns.count(0) > 10 and len(classic((tmp_path / "m.prom").read_bytes())["modwsgi_requests_total"].samples) == 60


@pytest.mark.parametrize("name, error, said", [
    ("metrics.txt", UsageError, "its name must end in .prom, else node_exporter does not read it"),
    ("none/m.prom", TelError, "No such file or directory"),
    ("folder.prom", TelError, "is a folder, which is left alone"),
    ("link.prom", TelError, "is a symbolic link, which is left alone"),
])
def test_where_nothing_can_be_written_is_said_in_one_line(tmp_path, name, error, said):
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "link.prom").symlink_to("/dev/null")
    with pytest.raises(error) as raised:
        check_textfile(str(tmp_path / name))
    assert str(raised.value) == f"--textfile {tmp_path / name}: {said}"
    with short_folder() as folder:
        ended = subprocess.run([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t.sock", "--http-port", "0", "--textfile", str(tmp_path / name)],
                               cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=30)
        assert (ended.returncode, ended.stderr) == (2, f"modwsgi-tel: {raised.value}\n") and os.listdir(folder) == []


# --- a running collector ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def running():
    with short_folder() as folder:
        token = os.path.join(folder, "token")
        with open(token, "w") as handle:
            handle.write("secret\n")
        with Collector("--textfile", f"{folder}/m.prom", "--textfile-interval", "1", "--token-file", token, "--root-path", "/tel",
                       "--metrics-processes", "1") as collector:
            collector.send(Worker(pid=os.getpid()).started(), Worker(pid=os.getpid(), seq=1).tick(requests=4))
            collector.file, collector.known = f"{folder}/m.prom", {"Authorization": "Bearer secret"}
            collector.wait_for_requests = lambda: wait_until(
                lambda: b"modwsgi_requests_total{" in collector.get("/tel/metrics", collector.known)[2], 10.0, "no metrics")
            yield collector


def test_metrics_need_the_token_and_stand_below_the_root_path(running):
    running.wait_for_requests()
    assert [running.get(path, headers)[0] for path, headers in (
        ("/tel/metrics", {}), ("/tel/metrics", {"Authorization": "Bearer wrong"}), ("/tel/metrics", running.known))] == [401, 401, 200]
    status, _, body = running.get("/tel/metrics", {**running.known, "Host": "evil.example"})
    assert status == 421 and b"modwsgi_requests" not in body


def test_metrics_come_packed_and_as_a_head_alone(running):
    running.wait_for_requests()
    status, headers, body = running.get("/tel/metrics", {**running.known, "Accept-Encoding": "gzip", "Accept": "application/openmetrics-text"})
    assert (status, headers["content-encoding"], headers["content-type"]) == (
        200, "gzip", "application/openmetrics-text; version=1.0.0; charset=utf-8")
    found = openmetrics(gzip.decompress(body))
    assert found["modwsgi_requests"].value() == 4 and found["modwsgi_process_requests"].value(pid=str(os.getpid())) == 4
    assert found["modwsgi_collector_memory_rss_bytes"].value() > 1 << 20
    status, headers, body = running.request("HEAD", "/tel/metrics", running.known)
    assert (status, headers["content-type"], body) == (200, "text/plain; version=0.0.4; charset=utf-8", b"")


def test_the_file_of_a_running_collector_says_what_its_route_says(running):
    running.wait_for_requests()
    found = wait_until(lambda: os.path.exists(running.file) and (
        lambda families: "modwsgi_requests_total" in families and families)(classic(open(running.file, "rb").read())), 10.0, "no file")
    assert found["modwsgi_requests_total"].value() == 4 and found["modwsgi_collector_textfile_failures_total"].value() == 0
    own = running.json("/tel/api/summary?parts=collector", running.known)["collector"]["textfile"]
    assert own["writes"] >= 1 and (own["file"], own["failures"], own["trouble"]) == (running.file, 0, None)


def test_a_file_that_cannot_be_written_is_a_matter_of_health_and_the_collector_goes_on():
    with short_folder() as folder:
        os.mkdir(f"{folder}/metrics")
        path = f"{folder}/metrics/m.prom"
        with Collector("--textfile", path, "--textfile-interval", "1") as collector:
            wait_until(lambda: os.path.exists(path), 10.0, "no file")
            os.rename(f"{folder}/metrics", f"{folder}/away")
            wait_until(lambda: collector.get("/healthz")[0] == 503, 10.0, "healthy all the same")
            trouble = f"--textfile {path}: No such file or directory"
            assert trouble in collector.get("/healthz")[2].decode() and collector.said().count(trouble) == 1
            assert classic(collector.get("/metrics")[2])["modwsgi_collector_healthy"].value() == 0
            os.rename(f"{folder}/away", f"{folder}/metrics")
            wait_until(lambda: collector.get("/healthz")[0] == 200, 10.0, "ill all the same")
            assert collector.stop() == 0
        assert classic(open(path, "rb").read()) and os.listdir(f"{folder}/metrics") == ["m.prom"]       # it stays


def test_check_config_says_where_the_metrics_go_and_leaves_nothing(tmp_path):
    ended = subprocess.run([*CHECKOUT, "serve", "--check-config", "--listen", f"unix:{tmp_path}/t.sock", "--http-port", "0", "--textfile",
                            f"{tmp_path}/m.prom"], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "") and os.listdir(tmp_path) == []
    assert f"metrics            to {tmp_path}/m.prom each 15 s\n" in ended.stdout


def test_where_no_port_may_be_opened_the_file_alone_is_enough():
    with short_folder() as folder:
        path = f"{folder}/m.prom"
        process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t.sock", "--no-http-port", "--textfile", path],
                                   cwd=ROOT, env=clean_environment(), stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: os.path.exists(path), 10.0, "no file")
            assert classic(open(path, "rb").read())["modwsgi_collector_healthy"].value() == 1
            process.terminate()
            assert process.wait(10.0) == 0
        finally:
            process.kill()
            process.wait(10.0)
