"""Files written by a process of its own: recordings, logs, and disks that fail."""
import fcntl
import gzip
import os
import random
import resource
import signal
import socket
import struct
import termios

import pytest

from modwsgi_tel.errors import TelError
from modwsgi_tel.net.log import Log, printable
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.net.recorder import Recorder
from modwsgi_tel.net.writer import LOG, RECORD, REOPEN, Writer
from modwsgi_tel.wire import blocks
from running import is_at_rest, wait_until

DEADLINE_S = 20.0
MIB = 1 << 20


@pytest.fixture
def writer_of():
    """Starts Writers; what they began is ended."""
    made = []

    def start(**more):
        made.append(Writer(**more))
        return made[-1]

    yield start
    for each in made:
        try:
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def run_until(writer, check, what):
    """Let the writer's loop turn until `check()`."""
    loop = Loop()
    writer.join(loop)
    found = []

    def look():
        if check():
            found.append(True)
            loop.stop()

    loop.every(0.01, look)
    loop.after(DEADLINE_S, loop.stop)
    loop.run()
    assert found, f"{what}; trouble: {writer.trouble!r}, lost: {writer.lost}"


def has_taken_all(writer):
    """Whether the helper has read what it was sent, and waits for more."""
    unread = struct.unpack("i", fcntl.ioctl(writer._socket, termios.TIOCOUTQ, bytes(4)))[0]
    return not writer._held and not unread and is_at_rest(writer.pid)


def records_of(path):
    with open(path, "rb") as handle:
        return list(blocks.read(handle, str(path)))


def made_up(count, size=100, seed=1):
    """Records (wall, pid, datagram) that do not pack well."""
    chance = random.Random(seed)
    return [(1e9 + place, place % 7, chance.getrandbits(8 * size).to_bytes(size, "little")) for place in range(count)]


def record(writer, records):
    recorder = Recorder(writer)
    for wall, pid, datagram in records:
        recorder.take(datagram, pid, wall)
    recorder.flush()


# --- recordings -------------------------------------------------------------------------------

def test_a_recording_holds_what_was_taken_in_its_order(writer_of, tmp_path):
    path, records = tmp_path / "a.cap.gz", made_up(3000)
    writer = writer_of(record=str(path), record_size=16 * MIB)
    record(writer, records)
    writer.close()
    assert records_of(path) == records and writer.lost == 0
    with gzip.open(path) as handle:
        assert handle.read() == b"".join(blocks.record(*each) for each in records)


def test_a_recording_is_appended_to_by_the_next_start(writer_of, tmp_path):
    path, records = tmp_path / "a.cap.gz", made_up(30)
    for part in (records[:10], records[10:]):
        writer = writer_of(record=str(path), record_size=16 * MIB)
        record(writer, part)
        writer.close()
    assert records_of(path) == records


@pytest.mark.parametrize("held", [b"precious notes\n", gzip.compress(b"a packed log: " + b"lines and lines\n" * 9),
                                  gzip.compress(b"short"), b"\x1f\x8bnot gzip"],
                         ids=["text", "a packed text", "a short packed text", "broken"])
def test_a_file_that_is_no_capture_is_refused_and_kept(tmp_path, held):
    path = tmp_path / "notes"
    path.write_bytes(held)
    with pytest.raises(TelError) as caught:
        Writer(record=str(path), record_size=16 * MIB)
    assert str(caught.value) == (
        f"--record {path}: is there and no packed capture; nothing is written over it, choose another name")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (held, ["notes"])


@pytest.mark.parametrize("what, said", [("none/a", "No such file or directory"), ("folder", "Is a directory")])
@pytest.mark.parametrize("flag", ["--record", "--log-file"])
def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path, what, said, flag):
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / what)
    with pytest.raises(TelError) as caught:
        Writer(**({"record": path, "record_size": MIB} if flag == "--record" else {"log": path}))
    assert str(caught.value) == f"{flag} {path}: {said}"


def test_a_recording_keeps_its_bound_and_the_newest(writer_of, tmp_path):
    path, records = tmp_path / "a.cap.gz", made_up(4000, 1000)
    writer = writer_of(record=str(path), record_size=MIB)
    record(writer, records)
    writer.close()
    sizes = {name: os.stat(tmp_path / name).st_size for name in os.listdir(tmp_path)}
    assert sorted(sizes) == ["a.cap.gz", "a.cap.gz.1"] and sum(sizes.values()) <= MIB
    kept = records_of(tmp_path / "a.cap.gz.1") + records_of(path)
    assert kept == records[-len(kept):] and len(kept) * 1000 > MIB // 3


def test_a_recording_that_somebody_moved_away_begins_anew_when_it_is_full(writer_of, tmp_path):
    path, records = tmp_path / "a.cap.gz", made_up(900, 1000)
    writer = writer_of(record=str(path), record_size=MIB)
    record(writer, records[:100])
    run_until(writer, lambda: path.stat().st_size > 90000, "nothing recorded")
    os.rename(path, tmp_path / "moved")
    record(writer, records[100:])
    writer.close()
    assert records_of(tmp_path / "moved") + records_of(path) == records


def test_a_recording_whose_folder_is_gone_says_so_and_begins_anew_when_it_is_back(writer_of, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path, records = folder / "a.cap.gz", made_up(1300, 1000)
    writer = writer_of(record=str(path), record_size=MIB)
    record(writer, records[:100])
    run_until(writer, lambda: path.exists() and path.stat().st_size > 90000, "nothing recorded")
    path.unlink()
    folder.rmdir()
    record(writer, records[100:1200])
    run_until(writer, lambda: writer.trouble, "no word about the folder")
    assert writer.trouble == f"--record {path}: No such file or directory"
    folder.mkdir()
    record(writer, records[1200:])
    writer.close()
    assert records_of(path) == records[1200:]


def test_a_full_disk_is_said_and_what_was_written_stays_readable(writer_of, tmp_path):
    path, records = tmp_path / "a.cap.gz", made_up(400, 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, hard))       # a disk with so much room
    try:
        writer = writer_of(record=str(path), record_size=16 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    record(writer, records)
    run_until(writer, lambda: writer.trouble, "no word about the full disk")
    run_until(writer, lambda: has_taken_all(writer), "what was sent was not taken")
    assert writer.trouble == f"--record {path}: File too large"
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (soft, hard))       # somebody made room
    record(writer, records[:50])
    writer.close()
    kept = records_of(path)
    whole = len(kept) - 50
    assert 100 <= whole < 300 and kept == records[:whole] + records[:50]


@pytest.mark.parametrize("flag", ["--record", "--log-file"])
def test_a_device_that_is_full_is_said_by_its_flag(writer_of, flag):
    writer = writer_of(**({"record": "/dev/full", "record_size": MIB} if flag == "--record" else {"log": "/dev/full"}))
    writer.send(RECORD if flag == "--record" else LOG, b"x\n")
    run_until(writer, lambda: writer.trouble, "no word")
    assert writer.trouble == f"{flag} /dev/full: No space left on device"


def test_trouble_that_is_over_is_no_trouble_any_more(writer_of, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = writer_of(log=str(folder / "log"))
    os.rename(folder, tmp_path / "away")
    writer.send(REOPEN)
    run_until(writer, lambda: writer.trouble, "no word about the folder")
    folder.mkdir()
    writer.send(REOPEN)
    writer.send(LOG, b"again\n")
    run_until(writer, lambda: not writer.trouble, "it complains for ever")
    assert (folder / "log").read_text() == "again\n"


# --- the helper itself --------------------------------------------------------------------------

def test_the_helper_holds_its_files_and_its_socket_and_nothing_else(writer_of, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, open(os.devnull) as file:
        for each in (other, file):
            os.set_inheritable(each.fileno(), True)
        writer = writer_of(record=str(tmp_path / "a"), record_size=MIB, log=str(tmp_path / "b"))
        folder = f"/proc/{writer.pid}/fd"

        def held():
            try:
                return sorted(os.readlink(f"{folder}/{name}").split(":")[0] for name in os.listdir(folder)
                              if int(name) > 2)
            except OSError:
                return None             # it is at it

        wanted = sorted([str(tmp_path / "a"), str(tmp_path / "b"), "socket"])
        wait_until(lambda: held() == wanted, DEADLINE_S, lambda: f"it holds {held()}")


def test_a_helper_that_ends_is_said_and_what_comes_then_is_counted(writer_of, tmp_path):
    writer = writer_of(log=str(tmp_path / "log"))
    os.kill(writer.pid, signal.SIGKILL)
    run_until(writer, lambda: writer.trouble, "no word about its end")
    assert writer.trouble == "the helper that writes files has ended"
    writer.send(LOG, b"lost\n")
    assert (writer.lost, writer.lost_bytes) == (1, 5)
    writer.close()


def test_a_helper_that_hangs_costs_a_bounded_memory_and_no_time(writer_of, tmp_path):
    path = str(tmp_path / "log")
    writer = writer_of(log=path)
    os.kill(writer.pid, signal.SIGSTOP)
    writer.join(Loop())
    line = b"x" * 65535 + b"\n"
    for _ in range(400):                # 25 MiB
        writer.send(LOG, line)
    assert len(writer._held) <= 8 << 20 and 100 < writer.lost < 300
    os.kill(writer.pid, signal.SIGCONT)
    writer.close()
    assert os.stat(path).st_size == (400 - writer.lost) * 65536


def test_closing_does_not_wait_for_ever_for_a_helper_that_hangs(writer_of, tmp_path):
    writer = writer_of(log=str(tmp_path / "log"))
    os.kill(writer.pid, signal.SIGSTOP)
    writer.close(limit_s=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(writer.pid, 0)


# --- the log ------------------------------------------------------------------------------------

def test_a_log_opened_anew_after_a_rotation_goes_on_in_the_new_file(writer_of, tmp_path):
    path = tmp_path / "log"
    writer = writer_of(log=str(path))
    log = Log("INFO", writer, clock=lambda: 0.0)
    log.info("one")
    run_until(writer, lambda: path.read_text(), "nothing logged")
    os.rename(path, tmp_path / "log.1")
    log.info("two")
    writer.send(REOPEN)
    log.info("three")
    writer.close()
    assert [[line.split(" ", 1)[1] for line in (tmp_path / name).read_text().splitlines()] for name in ("log.1", "log")] == [
        ["INFO one", "INFO two"], ["INFO three"]]


def lines_of(write, level="INFO"):
    """What `write(log)` brings to a pipe."""
    reading, writing = os.pipe()
    log = Log(level, descriptor=writing, clock=lambda: 0.0)
    write(log)
    os.close(writing)
    with open(reading, "rb") as handle:
        return [line.split(b" ", 1)[1] for line in handle.read().splitlines(True)], log.lost


def test_a_line_has_its_level_and_lower_levels_are_left_out():
    def write(log):
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
    assert lines_of(write) == ([b"INFO b\n", b"WARNING c\n", b"ERROR d\n"], 0)
    assert lines_of(write, "ERROR") == ([b"ERROR d\n"], 0)


def test_a_long_line_is_cut_and_still_a_line():
    def write(log):
        log.info("x" * 10000)
        log.info("y")
    (first, second), lost = lines_of(write)
    assert (first[:8], first[-2:], len(first) < 4096, second, lost) == (b"INFO xxx", b"x\n", True, b"INFO y\n", 0)


def test_control_characters_are_escaped():
    shown = printable("\x1b[31mred\r\nnew\x9b1m \u202e \x7f caf\u00e9 \ud800")
    assert shown == "\\x1b[31mred\\r\\nnew\\x9b1m \\u202e \\x7f caf\u00e9 \\ud800"


def test_a_full_pipe_loses_lines_and_does_not_block():
    reading, writing = os.pipe()
    log = Log("INFO", descriptor=writing)
    for _ in range(2000):
        log.info("x" * 100)
    held = 2000 - log.lost
    assert 300 < held < 1000
    os.close(reading)
    log.info("to nobody")               # a broken pipe
    assert log.lost == 2001 - held
    os.close(writing)
    log.info("to nowhere")              # a closed descriptor
    assert log.lost == 2002 - held


def test_a_terminal_that_nobody_reads_does_not_block():
    leader, follower = os.openpty()
    child = os.fork()
    if not child:
        try:
            signal.alarm(int(DEADLINE_S))
            log = Log("INFO", descriptor=follower)
            for _ in range(5000):
                log.info("x" * 100)
            os._exit(7 if log.lost > 1000 else 8)
        finally:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    os.close(leader)
    os.close(follower)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7, f"status {status}: 14 is the alarm"


def test_the_same_complaint_comes_once_in_its_time():
    now = [0.0]
    reading, writing = os.pipe()
    log = Log("INFO", descriptor=writing, clock=lambda: now[0])
    for at in (0.0, 30.0, 59.0, 60.0, 100.0):
        now[0] = at
        log.once_in(60, "key", "WARNING", "again")
    log.once_in(60, "other", "WARNING", "another")
    os.close(writing)
    with open(reading) as handle:
        assert [line.split(" ", 1)[1] for line in handle] == ["WARNING again\n"] * 2 + ["WARNING another\n"]
