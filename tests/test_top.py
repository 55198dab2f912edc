"""top as its user has it: the real program in a real terminal, in front of a real collector."""
import contextlib
import gzip
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import unicodedata

import pytest

from builders import CAPTURES, capture
from modwsgi_tel.console.views import PANES
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import GC_EVENT, GC_SNAPSHOT, REQUEST_METRICS
from modwsgi_tel.wire.shapes import HEADER
from running import CHECKOUT, ROOT, Collector, clean_environment, free_port, short_folder, wait_until
from terminals import COLOUR, DEADLINE_S, PROGRAM, TMUX, Pty, Tmux, environment, jam

needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?>=]*[A-Za-z]|[()][A-Z0-9]|[=>78MHcD])|[\x0e\x0f]")


def tab(pane):
    """How the line of views has the one that is shown."""
    return f" {pane.keys[-1]} {pane.title}  " if pane is not PANES[-1] else f" {pane.keys[-1]} {pane.title}"


def feed(target, *names):
    """Send captures to a socket, as fast as they are taken."""
    subprocess.run([*CHECKOUT, "replay", "--speed", "max", "--target", "unix:" + target,
                    *(os.path.join(CAPTURES, name + ".cap.gz") for name in names)], check=True, cwd=ROOT,
                   timeout=DEADLINE_S, env=clean_environment(), **QUIET)


def fed(collector, *names):
    """The collector, once it has taken captures."""
    feed(collector.socket, *names)
    count = sum(len(capture(name)) for name in names)
    collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] >= count)
    return collector


@pytest.fixture(scope="module")
def watched():
    """A collector that holds two captures, one of them full of hostile text."""
    with Collector() as collector:
        yield fed(collector, "daemon_mixed", "gunk")


@pytest.fixture(scope="module")
def url(watched):
    return f"http://127.0.0.1:{watched.port}"


@pytest.fixture
def folder():
    with short_folder() as made:
        yield made


@pytest.fixture
def console(url):
    """Starts top in a tmux, `console("--view", "slow", rows=24)`, and returns the terminal once it shows an answer."""
    with contextlib.ExitStack() as stack:
        def start(*arguments, at=url, **terminal):
            shown = stack.enter_context(Tmux(**terminal))
            shown.run("top", "--url", at, *arguments)
            shown.wait_for("req/s")
            return shown
        yield start


def run(*arguments, **more):
    """(exit status, stdout, stderr) of a console that ends by itself."""
    done = subprocess.run([*PROGRAM, "top", *arguments], cwd=ROOT, env=environment(**more), timeout=DEADLINE_S, **PIPES)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def line(text):
    """The outcome of what could not be done, said in one line."""
    return 2, "", f"modwsgi-tel: {text}\n"


# --- keys -------------------------------------------------------------------------------------------

@needs_tmux
def test_every_view_is_reached_by_its_letter_and_by_its_digit(console):
    terminal = console()
    for pane in PANES[1:]:
        terminal.keys(pane.keys[0])
        terminal.wait_for(tab(pane))
    for pane in PANES[-2::-1]:
        terminal.keys(pane.keys[-1])
        terminal.wait_for(tab(pane))


@needs_tmux
def test_tab_goes_through_the_views_and_shift_tab_goes_back(console):
    terminal = console()
    for pane in (*PANES[1:], PANES[0]):
        terminal.keys("Tab")
        terminal.wait_for(tab(pane))
    terminal.keys("BTab")
    terminal.wait_for(tab(PANES[-1]))


@needs_tmux
@pytest.mark.parametrize("key", ["q", "Escape", "C-c", "C-\\"])
def test_leaving_gives_the_terminal_back_as_it_was(console, key):
    terminal = console()
    assert not terminal.sane()
    terminal.keys(key)
    assert terminal.ended() == 0
    assert terminal.sane()
    assert terminal.modes_after() == terminal.modes_before()
    assert "req/s" not in terminal.screen()


@needs_tmux
def test_a_table_is_sorted_by_its_columns_and_reversed(console):
    terminal = console("--view", "slow")
    terminal.wait_for("state▲")
    for key, shown in ((">", "age▼"), ("r", "age▲"), ("<", "state▼"), ("r", "state▲")):
        terminal.keys(key)
        terminal.wait_for(shown)


@needs_tmux
def test_a_table_is_filtered_by_state(console):
    terminal = console("--view", "slow")
    for shown in ("active", "ended"):
        terminal.keys("f")
        terminal.wait_for(f"shown: {shown}")
    terminal.keys("Down")               # any key takes the message away
    terminal.wait_for("[ended]")


@needs_tmux
def test_a_search_is_typed_and_esc_shows_all_again(console):
    terminal = console("--view", "slow")
    everything = shown_of(terminal.wait_for("slow requests"))
    terminal.keys("/")
    terminal.type("nowhere")
    terminal.wait_for("/nowhere_")
    terminal.wait_for(lambda screen: shown_of(screen) != everything)
    terminal.keys("Enter")
    terminal.wait_for("[all /nowhere]")
    terminal.keys("Escape")
    terminal.wait_for(lambda screen: "[all]" in screen and shown_of(screen) == everything)
    terminal.keys("/")
    terminal.type("qs?")                # letters, not keys
    terminal.wait_for("/qs?_")
    terminal.keys("Escape")
    terminal.wait_for("[all]")


def shown_of(screen):
    """The line that says how many there are."""
    return screen.split("\n")[3]


@needs_tmux
@pytest.mark.parametrize("view, inside", [("processes", "pid "), ("slow", "User agent")])
def test_enter_opens_what_is_under_the_cursor_and_esc_goes_back(console, view, inside):
    terminal = console("--view", view)
    terminal.wait_for("Enter opens")
    terminal.keys("Down", "Enter")
    terminal.wait_for("Esc back")
    terminal.keys("Escape")
    terminal.wait_for("Enter opens")


@needs_tmux
def test_the_help_lists_the_keys_and_goes_away_by_the_same_key(console):
    terminal = console()
    terminal.keys("?")
    screen = terminal.wait_for("this help")
    assert re.search(r"^ o 1 +view: overview$", screen, re.MULTILINE), screen
    terminal.keys("?")
    terminal.wait_for("throughput")


@needs_tmux
def test_pause_window_group_and_refresh_say_so(console):
    terminal = console()
    for key, shown in ((" ", "PAUSED 1m"), (" ", " 1m"), ("n", "10m"), ("n", "now"), ("<", "10m"), (">", "now"),
                       ("G", "now 127.0.0.1:8"), ("+", "a look every 0.5 s"), ("-", "a look every 1 s"),
                       ("-", "a look every 2 s")):
        terminal.keys(key)
        terminal.wait_for(lambda screen: shown in screen and ("PAUSED" in shown) == ("PAUSED" in screen))


@needs_tmux
def test_a_paused_screen_stands_still_until_space_again(console):
    terminal = console("--refresh", "0.1")
    clock = re.compile(r"\d\d:\d\d:\d\d$", re.MULTILINE)
    first = clock.search(terminal.screen()).group()
    terminal.wait_for(lambda screen: clock.search(screen).group() != first)
    terminal.keys(" ")
    paused = terminal.wait_for("PAUSED")
    second = int(time.time())
    wait_until(lambda: time.time() > second + 2, DEADLINE_S, "time stands still")
    assert terminal.screen() == paused
    terminal.keys(" ")
    later = clock.search(paused).group()
    terminal.wait_for(lambda screen: "PAUSED" not in screen and clock.search(screen).group() != later)


@needs_tmux
def test_c_writes_the_screen_to_a_file_for_its_user_alone_and_names_it(console, folder):
    terminal = console("--view", "slow", "--group", "", cwd=folder, cols=120)
    terminal.keys(" ")
    paused = terminal.wait_for("PAUSED")
    terminal.keys("c")
    path = re.search(r"^written: (\S+)$", terminal.wait_for("written: "), re.MULTILINE).group(1)
    assert os.path.dirname(path) == os.path.realpath(folder)
    assert re.fullmatch(r"modwsgi-tel-\d{8}-\d{6}\.txt", os.path.basename(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding="utf-8") as handle:
        assert handle.read() == "".join(each.rstrip() + "\n" for each in paused.split("\n")[:-1])


@needs_tmux
def test_where_nothing_can_be_written_the_copy_goes_to_the_temporary_folder(console, folder):
    terminal = console(cwd="/proc", cols=120, TMPDIR=folder)
    terminal.keys("c")
    path = re.search(r"^written: (\S+)$", terminal.wait_for("written: "), re.MULTILINE).group(1)
    assert os.path.dirname(path) == folder and stat.S_IMODE(os.stat(path).st_mode) == 0o600


@needs_tmux
def test_keys_that_come_in_one_go_all_count(console):
    terminal = console()
    terminal.type("5fr/abc")
    terminal.wait_for("/abc_")


def test_bytes_that_are_no_text_are_no_keys_and_do_no_harm(url):
    with Pty("top", "--url", url) as terminal:
        terminal.wait_for(b"req/s")
        terminal.press(b"\xff" * 2000 + b"\x00\x80\x1b[200~")
        terminal.press_until_ended(b"q")
        assert terminal.process.returncode == 0


# --- the terminal -----------------------------------------------------------------------------------

@needs_tmux
def test_it_lives_through_every_size(console):
    terminal = console("--view", "slow")
    for rows, cols in ((10, 40), (50, 200), (1, 1), (2, 3), (24, 80)):
        terminal.resize(rows, cols)
        terminal.wait_for(lambda screen: fills(screen, rows, cols))
    terminal.keys("q")
    assert terminal.ended() == 0


def fills(screen, rows, cols):
    """Whether the screen was drawn for this size: the clock at its right end, the keys in its last line."""
    lines = screen.split("\n")[:-1]
    if len(lines) != rows:
        return False
    if cols < 40:
        return bool(lines[0]) or cols == 1      # curses does not know how to fill a screen of one cell
    return len(lines[1]) == cols and bool(re.search(r"\d\d:\d\d:\d\d$", lines[1])) and lines[-1].startswith("[all]")


@needs_tmux
def test_stopped_by_the_user_it_gives_the_terminal_back_and_takes_it_again(console):
    terminal = console()
    terminal.keys("C-z")
    terminal.wait_for("shell>")
    assert terminal.sane()
    terminal.shell_line("stty -a | grep -o -- '-\\?icanon'")
    terminal.wait_for("\nicanon")
    terminal.shell_line("fg")
    terminal.wait_for("throughput")
    assert not terminal.sane()
    terminal.keys("2")
    terminal.wait_for(tab(PANES[1]))
    terminal.keys("q")
    assert terminal.ended() == 0 and terminal.sane()


@needs_tmux
def test_stopped_and_then_killed_it_ends_without_touching_the_terminal(console):
    terminal = console()
    pid = terminal.pid()
    terminal.keys("C-z")
    terminal.wait_for("shell>")
    terminal.shell_line("kill %1")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), DEADLINE_S, lambda: state_of(pid))
    terminal.keys("Enter")
    terminal.wait_for(re.compile(r"^\[1\]\+ +Done +", re.MULTILINE).search)       # as of status 0
    assert terminal.sane()
    assert "req/s" not in terminal.screen()


@needs_tmux
def test_stopped_and_sent_to_the_background_it_waits_for_the_terminal(console):
    terminal = console("--refresh", "0.1")
    pid = terminal.pid()
    terminal.keys("C-z")
    terminal.wait_for("shell>")
    terminal.shell_line("bg")
    assert terminal.ended() == 0        # of `bg`
    wait_until(lambda: state_of(pid) in "SR", DEADLINE_S, lambda: state_of(pid))
    assert terminal.sane()
    terminal.shell_line("fg")
    terminal.wait_for("throughput")
    terminal.keys("q")
    assert terminal.ended() == 0


def state_of(pid):
    """The letter that /proc has for a process."""
    with open(f"/proc/{pid}/stat") as handle:
        return handle.read().rpartition(")")[2].split()[0]


@needs_tmux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ended_by_a_signal_it_leaves_the_terminal_as_it_was(console, number):
    terminal = console()
    os.kill(terminal.pid(), number)
    assert terminal.ended() == 0
    assert terminal.sane()
    assert terminal.modes_after() == terminal.modes_before()


@pytest.mark.parametrize("how", [
    dict(), dict(controls=False), dict(preparing=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))],
    ids=["hangup", "no_controlling_terminal", "hangup_ignored"])
def test_a_closed_terminal_ends_it_at_once(url, how):
    with Pty("top", "--url", url, "--refresh", "60", **how) as terminal:
        terminal.wait_for(b"req/s")
        terminal.hang_up()
        assert terminal.process.wait(DEADLINE_S) == 0


def test_a_terminal_that_takes_nothing_does_not_keep_it_from_ending(url):
    with Pty("top", "--url", url, "--view", "slow", "--refresh", "0.1", rows=100, cols=300) as terminal:
        jam(terminal)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(DEADLINE_S) == 0
        assert terminal.modes_now() == terminal.modes


@needs_tmux
@pytest.mark.parametrize("term", ["linux", "screen", "tmux", "xterm-256color", "xterm", "vt100"])
def test_the_first_screen_appears_on_the_terminals_people_have(url, term):
    with Tmux(term=term) as terminal:
        terminal.run("top", "--url", url)
        screen = terminal.wait_for(lambda screen: "req/s" in screen or terminal.end_in(screen))
        if "does not know such a terminal" in screen:
            pytest.skip(f"this machine has no description of {term}")
        lines = screen.split("\n")
        assert re.search(r" \d\d:\d\d:\d\d$", lines[1]) and lines[2].startswith(" 1 overview  2 pro 3 wor"), screen
        terminal.keys("q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("term, said", [
    ("dumb", "TERM=dumb: cannot place text on the screen: use --plain or --once"),
    ("nothing", "TERM=nothing: this machine does not know such a terminal: try TERM=xterm, or --plain"),
    (None, "TERM is not set, so nobody knows what this terminal can do: try TERM=xterm, or --plain")])
def test_a_terminal_that_cannot_be_drawn_on_is_told_in_one_line(url, term, said):
    with Pty("top", "--url", url, TERM=term) as terminal:
        assert terminal.ended() == 2
        assert terminal.seen.decode() == f"modwsgi-tel: {said}\r\n"
        assert terminal.modes_now() == terminal.modes


def test_colours_are_there_unless_somebody_wants_none(url):
    for more, variables, colours in (((), {}, True), (("--no-color",), {}, False), ((), {"NO_COLOR": "1"}, False)):
        with Pty("top", "--url", url, *more, **variables) as terminal:
            terminal.wait_for(b"throughput")
            terminal.press(b"5q")
            assert terminal.ended() == 0
            assert bool(COLOUR.search(terminal.seen)) == colours, (more, variables)


@pytest.mark.parametrize("more, variables", [
    ((), {"LC_ALL": "C"}), ((), {"LC_ALL": None, "LANG": "C"}), ((), {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}),
    ((), {"LC_ALL": None}), (("--ascii",), {}), ((), {"LC_ALL": "xx_YY.UTF-8"})],
    ids=["LC_ALL", "LANG", "POSIX", "none", "flag", "a_locale_that_is_not_there"])
def test_without_a_utf8_locale_every_byte_is_ascii(url, more, variables):
    with Pty("top", "--url", url, *more, **variables) as terminal:
        terminal.wait_for(b"throughput")
        terminal.press(b"5")
        terminal.wait_for(b"state^")
        terminal.press(b"4")
        terminal.wait_for(b"p50")
        terminal.press(b"q")
        assert terminal.ended() == 0
        text = ESCAPES.sub(b"", terminal.seen)
        assert set(text) <= {*range(0x20, 0x7f), *b"\r\n\b\t"}, text


@needs_tmux
def test_what_clients_sent_never_reaches_the_terminal_as_controls_and_columns_stay(console):
    terminal = console("--view", "slow", rows=90, cols=120)
    screen = terminal.wait_for(lambda screen: screen.count("GET") > 20)
    assert [char for char in screen if not (char.isprintable() or char == "\n")] == []
    lines = [each for each in screen.split("\n") if " GET " in each]
    assert len({cells(each.partition(" GET ")[0]) for each in lines}) == 1
    terminal.keys("Enter")
    opened = terminal.wait_for("Esc back")
    assert [char for char in opened if not (char.isprintable() or char == "\n")] == []


def cells(text):
    """The cells that text takes, as tmux counts them."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


@pytest.mark.parametrize("which", ["stdin", "stdout"])
def test_where_there_is_no_terminal_it_says_what_to_use_instead(url, which):
    master, slave = os.openpty()
    try:
        streams = {"stdin": slave, "stdout": slave, "stderr": subprocess.PIPE,
                   which: subprocess.DEVNULL if which == "stdin" else subprocess.PIPE}
        done = subprocess.run([*PROGRAM, "top", "--url", url], cwd=ROOT, env=environment(TERM="xterm"),
                              timeout=DEADLINE_S, **streams)
    finally:
        os.close(master)
        os.close(slave)
    assert (done.returncode, done.stderr.decode()) == (
        2, "modwsgi-tel: top needs a terminal: use --once, or --plain for a screenful again and again\n")


def test_a_python_without_curses_offers_what_works_without(url, folder):
    with open(os.path.join(folder, "curses.py"), "w") as handle:
        handle.write("raise ImportError('No module named _curses')\n")
    stub = {"PYTHONPATH": folder + os.pathsep + ROOT}
    with Pty("top", "--url", url, **stub) as terminal:
        assert terminal.ended() == 2
        assert terminal.seen.decode() == (
            "modwsgi-tel: this Python has no curses (No module named _curses): use --once, or --plain for a "
            "screenful again and again\r\n")
    status, out, err = run("--once", "--url", url, **stub)
    assert (status, err) == (0, "") and "processes" in out
    with plain("--url", url, "--refresh", "0.1", **stub) as process:
        screenfuls(process, 2)


# --- the collector goes -----------------------------------------------------------------------------

@needs_tmux
def test_without_its_collector_it_says_so_keeps_what_it_knew_and_finds_the_next_one():
    with Collector() as collector:
        fed(collector, "daemon_mixed")
        port = str(collector.port)
        with Tmux() as terminal:
            terminal.run("top", "--url", f"http://127.0.0.1:{port}", "--view", "processes", "--refresh", "0.1")
            terminal.wait_for("8905 ")
            collector.process.kill()
            screen = terminal.wait_for(re.compile(
                rf"^NO ANSWER for \d+(\.\d)? m?s, below is what was: http://127.0.0.1:{port} ").search)
            assert "8905 " in screen and "8906 " in screen
            with Collector("--http-port", port) as another:
                fed(another, "smoke")
                screen = terminal.wait_for(lambda screen: "NO ANSWER" not in screen and "8905 " not in screen)
                assert "req/s" in screen
                terminal.keys("q")
                assert terminal.ended() == 0


# --- once -------------------------------------------------------------------------------------------

def test_once_prints_a_header_and_the_processes(url):
    status, out, err = run("--once", "--url", url)
    assert (status, err) == (0, "")
    lines = out.split("\n")
    assert "req/s" in lines[1] and re.search(r"^   pid group +host", out, re.MULTILINE), out
    assert re.search(r"^[ >]*8905 127.0.0.1:8110 ", out, re.MULTILINE) and "\x1b" not in out


@pytest.mark.parametrize("pane", PANES, ids=lambda pane: pane.name)
def test_once_prints_any_view(url, pane):
    status, out, err = run("--once", "--url", url, "--view", pane.name)
    assert (status, err) == (0, "") and "req/s" in out
    assert [char for char in out if not (char.isprintable() or char == "\n")] == []


def test_once_without_a_collector_has_status_2_at_once():
    port = free_port()
    assert run("--once", "--once-timeout", "1h", "--url", f"http://127.0.0.1:{port}") == line(
        f"http://127.0.0.1:{port} does not answer: Connection refused; is the collector running?")


def test_a_url_that_was_typed_goes_before_a_socket_in_a_variable_and_two_places_are_refused(url):
    assert run("--once", "--url", url, MODWSGI_TEL_HTTP_SOCKET="/nonexistent/socket")[0] == 0
    assert run("--once", "--url", url, "--http-socket", "/nonexistent/socket") == line("--url and --http-socket: one of them")


def test_a_time_outside_of_the_recording_is_refused():
    early = run("--once", "--replay", MIXED, "--at", "1999-01-01 00:00")
    late = run("--once", "--replay", MIXED, "--at", "+1h")
    assert early[:2] == late[:2] == (2, "")
    assert early[2].startswith("modwsgi-tel: --at 1999-01-01 00:00: the recording begins at 20")
    assert late[2].startswith("modwsgi-tel: --at +1h: the recording ends at 20")


def test_once_waits_for_a_silent_server_only_so_long():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        there = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert run("--once", "--once-timeout", "0.3", "--url", there) == line(f"{there} did not answer within 0.3 s")


def test_the_variable_of_the_existing_console_is_understood_and_ours_comes_before_it(url):
    old = {"MOD_WSGI_TELEMETRY_URL": url.replace("http://", "ws://") + "/ws"}
    assert run("--once", **old)[0] == 0
    nobody = f"http://127.0.0.1:{free_port()}"
    assert run("--once", "--once-timeout", "0.3", MODWSGI_TEL_URL=nobody, **old) == line(
        f"{nobody} does not answer: Connection refused; is the collector running?")
    assert run("--once", "--url", url, MODWSGI_TEL_URL=nobody)[0] == 0


def test_a_url_that_is_none_is_told_in_one_line():
    assert run("--url", "nonsense:::") == line("--url nonsense:::: like http://127.0.0.1:8888")
    status, out, err = run("--once", "--url", "https://127.0.0.1:8888")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "TLS is not spoken here" in err


def test_a_token_and_a_unix_socket_are_used(serve, folder):
    token, http = os.path.join(folder, "token"), os.path.join(folder, "http")
    with open(token, "w") as handle:
        handle.write("secret\n")
    collector = serve("--token-file", token, "--http-socket", http)
    there = f"http://127.0.0.1:{collector.port}"
    assert run("--once", "--once-timeout", "0.3", "--url", there) == line(
        f"{there} asks for a token: give --token-file")
    assert run("--once", "--url", there, "--token-file", token)[0] == 0
    assert run("--once", "--http-socket", http, "--token-file", token)[0] == 0
    assert run("--once", "--once-timeout", "0.3", "--http-socket", os.path.join(folder, "none"))[::2] == (2, (
        f"modwsgi-tel: {folder}/none does not answer: No such file or directory; is the collector running?\n"))


# --- plain ------------------------------------------------------------------------------------------

@contextlib.contextmanager
def plain(*arguments, **variables):
    """top --plain, its screenfuls read from a pipe."""
    process = subprocess.Popen([*PROGRAM, "top", "--plain", *arguments], cwd=ROOT,
                               env=environment(**{"TERM": None, **variables}), **PIPES)
    with process:
        try:
            yield process
        finally:
            process.kill()


def screenfuls(process, count):
    """Read until so many screens have begun; the lines read."""
    lines, deadline = [], time.monotonic() + DEADLINE_S
    while sum(" 1 over" in each for each in lines) < count:
        assert select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0], lines
        read = process.stdout.readline().decode()
        assert read, process.stderr.read()
        lines.append(read)
    return lines


def test_plain_prints_screen_after_screen_until_it_is_told_to_end(url):
    with plain("--url", url, "--refresh", "0.1") as process:
        lines = screenfuls(process, 3)
        assert "\x1b" not in "".join(lines)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, err) == (0, b"") and out.endswith(b"\n")


def test_plain_ends_quietly_when_nobody_reads_on(url):
    with plain("--url", url, "--refresh", "0.1") as process:
        screenfuls(process, 2)
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == b""


def test_plain_goes_on_without_a_collector():
    with plain("--url", f"http://127.0.0.1:{free_port()}", "--refresh", "0.1") as process:
        assert "NO ANSWER: " in "".join(screenfuls(process, 1))


# --- its own collector ------------------------------------------------------------------------------

@contextlib.contextmanager
def sending(path, *more):
    """A simulated fleet that sends there until the end."""
    process = subprocess.Popen([*CHECKOUT, "simulate", "--target", "unix:" + path, "--interval", "0.5", *more],
                               cwd=ROOT, env=clean_environment(), **QUIET)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


@needs_tmux
def test_a_collector_of_its_own_shows_what_comes_and_leaves_nothing(folder):
    path = os.path.join(folder, "t")
    with Tmux() as terminal:
        terminal.run("top", "--listen", "unix:" + path)
        terminal.wait_for("no process has reported yet")
        assert stat.S_ISSOCK(os.lstat(path).st_mode)
        assert listening(terminal.pid()) == 0
        with sending(path, "--processes", "3"):
            terminal.wait_for(re.compile(r"^3 running +req/s \d", re.MULTILINE).search)
        terminal.keys("C-z")
        terminal.wait_for("not stopped: Apache's processes would wait for this collector")
        assert state_of(terminal.pid()) in "SR"
        assert "receives on" not in terminal.screen()
        terminal.keys("8")
        terminal.wait_for("INFO modwsgi-tel ")
        terminal.keys("q")
        assert terminal.ended() == 0 and terminal.sane()
        assert "receives on" not in terminal.screen()
    assert os.listdir(folder) == []


def listening(pid):
    """How many TCP sockets a process listens on."""
    with open(f"/proc/{pid}/net/tcp") as handle:
        inodes = {row.split()[9] for row in handle.readlines()[1:] if row.split()[3] == "0A"}
    held = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            held.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return len({f"socket:[{inode}]" for inode in inodes} & held)


@needs_tmux
def test_a_collector_of_its_own_serves_http_where_it_is_asked_to(folder):
    path, port = os.path.join(folder, "t"), free_port()
    with Tmux(cols=120) as terminal:
        terminal.run("top", "--listen", "unix:" + path, "--http-port", str(port), "--view", "collector")
        terminal.wait_for(f"serves http://127.0.0.1:{port}/")
        status, out, err = run("--once", "--url", f"http://127.0.0.1:{port}")
        assert (status, err) == (0, "") and out.startswith("no process has reported yet\n")
        os.kill(terminal.pid(), signal.SIGTERM)
        assert terminal.ended() == 0 and terminal.sane()
    assert os.listdir(folder) == []


def burst(path, count):
    """Send so many datagrams; TimeoutError when one had to wait long."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 10, 0))
        for number in range(1, count + 1):
            sender.sendto(encode(REQUEST_METRICS, 77, number, time.time(), named(
                hostname="web1", process_group="shop", sample_period=1.0)), path)


def test_a_terminal_that_takes_nothing_never_keeps_its_collector_from_receiving(folder):
    path, port = os.path.join(folder, "t"), free_port()
    with Pty("top", "--listen", "unix:" + path, "--http-port", str(port), "--refresh", "0.1", rows=100,
             cols=300) as terminal:
        wait_until(lambda: os.path.exists(path), DEADLINE_S, lambda: "nothing is bound")
        burst(path, 20)                 # something to draw
        jam(terminal)
        burst(path, 2000)
        status, out, _ = run("--once", "--url", f"http://127.0.0.1:{port}", "--view", "collector")
        assert status == 0 and int(re.search(r"received +([\d,]+) datagrams", out).group(1).replace(",", "")) >= 2020
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(DEADLINE_S) == 0
    assert os.listdir(folder) == []


@needs_tmux
def test_a_terminal_stopped_by_ctrl_s_holds_up_nothing_and_goes_on_by_ctrl_q(folder):
    path = os.path.join(folder, "t")
    with Tmux() as terminal:
        terminal.run("top", "--listen", "unix:" + path, "--refresh", "0.1")
        terminal.wait_for("no process has reported yet")
        terminal.keys("C-s")
        burst(path, 2000)
        terminal.keys("C-q")
        terminal.wait_for("1 running")
        terminal.keys("q")
        assert terminal.ended() == 0


# --- a recording ------------------------------------------------------------------------------------

MIXED = os.path.join(CAPTURES, "daemon_mixed.cap.gz")


@needs_tmux
def test_a_recording_is_played_paused_stepped_and_sought_in():
    begin = int(capture("daemon_mixed")[0][0])
    with Tmux(cols=120, TZ="UTC") as terminal:
        def at(second):
            return lambda screen: clock(second) in screen.split("\n")[1]

        def clock(second):
            return time.strftime("%H:%M:%S", time.gmtime(begin + second))

        terminal.run("top", "--replay", MIXED, "--at", "+20s", "--speed", "0.1")
        terminal.wait_for("x0.1")
        terminal.keys(" ")
        terminal.wait_for("PAUSED")
        seen = re.search(r"\d\d:\d\d:\d\d$", terminal.lines()[1]).group()
        now = next(second for second in range(15, 60) if clock(second) == seen)
        for key, by in ((".", 1), (".", 1), ("Right", 10), ("Left", -10), ("Left", -10)):
            terminal.keys(key)
            now += by
            terminal.wait_for(at(now))
        terminal.keys("t")
        terminal.type(clock(30))
        terminal.wait_for("to the time: " + clock(30))
        terminal.keys("Enter")
        terminal.wait_for(at(30))
        terminal.keys("t")
        terminal.type("soon")
        terminal.keys("Enter")
        terminal.wait_for("time 'soon': give it as ")
        terminal.keys("+")
        terminal.wait_for("0.25 times real time")
        terminal.keys("}")
        terminal.wait_for("end of recording")
        terminal.keys("q")
        assert terminal.ended() == 0


@needs_tmux
def test_a_recording_plays_to_its_end_at_the_speed_that_was_asked_for():
    with Tmux(cols=120) as terminal:
        terminal.run("top", "--replay", MIXED, "--speed", "1000", "--view", "processes")
        screen = terminal.wait_for("end of recording")
        day = time.strftime("recorded %Y-%m-%d", time.localtime(capture("daemon_mixed")[0][0]))
        assert "8905 " in screen and day in screen


def test_once_shows_the_last_moment_of_a_recording_or_the_one_that_is_named():
    last, early = run("--once", "--replay", MIXED), run("--once", "--replay", MIXED, "--at", "+5s")
    assert (last[0], last[2], early[0], early[2]) == (0, "", 0, "")
    assert re.search(r"8906 127.0.0.1:8110 +\S+ +stopped", last[1])
    assert re.search(r"8906 127.0.0.1:8110 +\S+ +running", early[1])


def test_what_is_no_recording_is_told_in_one_line(folder):
    none, empty = os.path.join(folder, "none"), os.path.join(folder, "empty")
    with open(empty, "wb"):
        pass
    assert run("--once", "--replay", none) == line(f"cannot read {none}: No such file or directory")
    status, out, err = run("--once", "--replay", empty)
    assert (status, out) == (3, "") and err.count("\n") == 1 and empty in err
    status, out, err = run("--once", "--replay", os.path.join(ROOT, "README.md"))
    assert (status, out) == (3, "") and err.count("\n") == 1 and "no capture" in err
    assert run("--replay", MIXED, "--speed", "max") == line("--speed max: a console needs a number, as 10")


@pytest.fixture
def cut(folder):
    """A recording that ends in the middle of a record."""
    with gzip.open(MIXED) as packed:
        whole = packed.read()
    path = os.path.join(folder, "cut.cap")
    with open(path, "wb") as handle:
        handle.write(whole[:len(whole) // 2])
    return path


def test_once_says_that_a_recording_is_cut(cut):
    status, out, err = run("--once", "--replay", cut)
    assert (status, err) == (0, "")
    assert re.search(rf"^{cut}: ends in the middle of a record .*; the \d+ records before that count$", out,
                     re.MULTILINE), out


@needs_tmux
def test_the_screen_says_that_a_recording_is_cut(cut):
    with Tmux(cols=160) as terminal:
        terminal.run("top", "--replay", cut, "--speed", "1000")
        terminal.wait_for("end of recording, not whole: view 8")
        terminal.keys("8")
        terminal.wait_for(f"{cut}: ends in the middle of a record")


# --- the existing collector -------------------------------------------------------------------------

def existing_program():
    beside = os.path.join(os.path.dirname(sys.executable), "mod_wsgi-telemetry")
    return beside if os.access(beside, os.X_OK) else shutil.which("mod_wsgi-telemetry")


@needs_tmux
@pytest.mark.skipif(existing_program() is None, reason="the existing collector, mod_wsgi-telemetry, is not installed")
def test_the_existing_collector_can_be_watched_too(folder):
    path, port = os.path.join(folder, "t"), free_port()
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen([existing_program(), "serve", "--listen", "unix:" + path, "--http-port", str(port)],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(),
                                   cwd=folder)
    there = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: run("--once", "--url", there)[0] == 0, DEADLINE_S, "it does not answer", pause=0.1)
        send_now(path, "daemon_mixed")
        with Tmux() as terminal:
            terminal.run("top", "--url", f"ws://127.0.0.1:{port}/ws", "--view", "processes")
            screen = terminal.wait_for("8905 ")
            assert "mod_wsgi-telemetry" in screen
            terminal.keys("q")
            assert terminal.ended() == 0
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def send_now(path, name):
    """Send a capture as if its last record came now; without garbage collections: their interpreters break it."""
    late = time.time() - capture(name)[-1][0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(DEADLINE_S)
        for _, _, datagram in capture(name):
            magic, version, kind, flags, pid, seq, stamp = HEADER.unpack_from(datagram)
            if kind not in (GC_SNAPSHOT, GC_EVENT):
                head = HEADER.pack(magic, version, kind, flags, pid, seq, stamp + late)
                sender.sendto(head + datagram[HEADER.size:], path)
