"""Where a console's answers come from, and the Console that asks: by a clock that only the tests move."""
import gzip
import json
import os
import stat

import pytest

from builders import CAPTURES, Worker, a_fleet, fold
from consoles import captured
from modwsgi_tel import remote, top
from modwsgi_tel.bounded import Ring
from modwsgi_tel.console.cells import ASCII, LINUX, UNICODE, Size
from modwsgi_tel.console.keys import Ui
from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.player import Player
from modwsgi_tel.remote import STATE, Remote
from modwsgi_tel.report.client import Place
from modwsgi_tel.sources import Local, Recording, _site, answered
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import Request
from modwsgi_tel.web.routes import Site

SIZE = Size(24, 80)


class FakeLoop:
    """The clock and the timers of a loop; `pass_time` lets them come due, in order."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []
        self.readers, self.writers = {}, {}
        self.stopped = False

    def clock(self):
        return self.now

    def after(self, seconds, callback):
        self.timers.append((self.now + seconds, callback))

    def stop(self):
        self.stopped = True

    def pass_time(self, seconds):
        until = self.now + seconds
        while self.timers and min(due for due, _ in self.timers) <= until:
            due, callback = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove((due, callback))
            self.now = max(self.now, due)
            callback()
        self.now = until


class FakeAsker:
    """Answers by hand: `asked` are the paths, `answer(...)` answers the newest."""

    def __init__(self, loop, place, token, timeout_s):
        self.loop, self.asked, self._done = loop, [], None

    @property
    def busy(self):
        return self._done is not None

    def ask(self, path, done, method="GET"):
        self.asked.append(path if method == "GET" else f"{method} {path}")
        self._done = done

    def answer(self, answer):
        done, self._done = self._done, None
        done(answer)

    def cancel(self):
        self._done = None

    close = cancel


class Source:
    """A source that answers when it is told to."""

    replay, log, note, no_stacks, name, pause_s = False, None, "", "", "a source", 0.0

    def __init__(self):
        self.looks, self._done = [], None

    @property
    def busy(self):
        return self._done is not None

    def look(self, paths, done):
        self.looks.append(paths)
        self._done = done

    def least_pause_s(self):
        return self.pause_s

    def answer(self, answers=None, errors=None, trouble=None):
        done, self._done = self._done, None
        done(answers or {}, errors or {}, trouble)


@pytest.fixture(scope="module")
def site():
    fleet, now, wall = captured("daemon_mixed", 20.0)
    return _site(fleet, lambda: (now, wall))


class Looking:
    """A Console with a Source, and what it drew; `answer` answers as the site would."""

    def __init__(self, site, **ui):
        self.site, self.loop, self.source, self.drawn = site, FakeLoop(), Source(), []
        self.console = top.Console(self.loop, self.source, Ui(glyphs=UNICODE, **ui), lambda: SIZE, self.drawn.append)

    def answer(self):
        self.source.answer({name: answered(self.site, path)[1] for name, path in self.source.looks[-1].items()})

    def text(self):
        return ["".join(span.text for span in spans).rstrip() for spans in self.drawn[-1]]


@pytest.fixture
def looking(site):
    made = Looking(site)
    made.console.look()
    made.answer()
    return made


# --- the Console --------------------------------------------------------------------------------

def test_it_looks_again_after_the_time_between_two_looks(looking):
    looking.loop.pass_time(0.9)
    assert len(looking.source.looks) == 1
    looking.loop.pass_time(0.2)
    assert len(looking.source.looks) == 2


@pytest.fixture
def opened(site):
    """A console that shows the stacks of one process."""
    made = Looking(site, view="stacks", open=("stacks", 812, 3))
    made.console.look()
    return made


ASKED = "/api/stacks?pid=812&id=3"


def asks(looking):
    """What was asked for besides the answers, at each look."""
    return [paths.get("asked") for paths in looking.source.looks]


def test_stacks_are_asked_for_when_they_are_opened_and_every_few_seconds_while_they_stay_open(opened):
    opened.source.answer({"summary": {}, "asked": {"asked": True, "wait_s": 0.5}})
    opened.loop.pass_time(top.TAKEN_S + 0.01)                       # they may be there already
    assert asks(opened) == [ASKED, None]
    for _ in range(4):
        opened.source.answer({"summary": {}})
        opened.loop.pass_time(1.01)
    assert asks(opened) == [ASKED, None, None, None, ASKED, None]
    opened.source.answer({"summary": {}})
    opened.console.key("esc")
    for _ in range(5):
        opened.source.answer({"summary": {}})
        opened.loop.pass_time(1.01)
    assert asks(opened)[6:] == [None] * 6


def test_a_asks_for_stacks_at_once_and_not_while_it_is_paused(opened):
    opened.source.answer({"summary": {}, "asked": {}})
    opened.console.key("a")
    assert asks(opened) == [ASKED, ASKED]
    opened.source.answer({"summary": {}, "asked": {}})
    opened.console.key(" ")
    opened.console.key("a")
    assert opened.console.ui.message.startswith("paused")
    opened.loop.pass_time(60.0)
    opened.console.key("n")                                         # another window has to be looked at all the same
    assert set(asks(opened)[2:]) == {None}


def test_why_stacks_were_not_taken_stays_on_the_screen_until_they_are_asked_for_again(opened):
    answers = {"summary": {}, "stacks_one": {}}
    opened.source.answer(answers, {"asked": "not the same process"})
    for _ in range(2):
        assert opened.text()[3] == " Asked for, not taken: not the same process"
        opened.loop.pass_time(1.01)
        opened.source.answer(answers)
    opened.console.key("a")
    opened.source.answer({**answers, "asked": {}})
    assert "Asked" not in opened.text()[3]


def test_who_lets_nobody_ask_is_asked_once_for_what_is_open(opened):
    for _ in range(9):
        opened.source.answer({"summary": {}, "stacks_one": {"post": False}}, {"asked": "give --stacks-post on"})
        opened.loop.pass_time(1.01)
    assert asks(opened) == [ASKED] + [None] * 9
    opened.source.answer({"summary": {}, "stacks_one": {"post": False}})
    opened.console.key("a")
    assert asks(opened)[-1] == ASKED


def test_a_source_without_stacks_is_not_asked_for_them(site):
    made = Looking(site, view="stacks", open=("stacks", 812, 3))
    made.source.no_stacks = "there are none"
    made.console.look()
    made.answer()
    assert asks(made) == [None] and made.text()[3] == " there are none"


def test_a_collector_that_needs_long_is_left_alone_for_longer(site):
    looking = Looking(site)
    looking.source.pause_s = 7.0
    looking.console.look()
    looking.answer()
    looking.loop.pass_time(6.9)
    assert len(looking.source.looks) == 1
    looking.loop.pass_time(0.2)
    assert len(looking.source.looks) == 2


def test_never_two_looks_at_once_and_what_was_wanted_meanwhile_comes_next(looking):
    looking.console.key("p")
    looking.console.key("s")
    assert len(looking.source.looks) == 2
    looking.answer()
    assert len(looking.source.looks) == 3 and "slow" in looking.console.ui.view
    assert looking.source.looks[2] == looking.console.paths()


def test_a_key_shows_what_is_there_when_the_answer_takes_long(looking):
    before = len(looking.drawn)
    looking.console.key("p")
    assert len(looking.drawn) == before
    looking.loop.pass_time(top.ANSWER_S + 0.01)
    assert len(looking.drawn) == before + 1


def test_answers_to_another_view_are_not_shown_as_this_ones(looking):
    looking.console.key("p")
    looking.answer()
    assert any("8905" in each for each in looking.text())
    looking.console.key("s")
    looking.loop.pass_time(top.ANSWER_S + 0.01)
    assert not any("8905" in each for each in looking.text()[3:])


def test_an_answer_that_is_late_is_said_and_forgotten_when_it_comes(looking):
    looking.loop.pass_time(1.0)
    looking.loop.pass_time(top.LATE_S - 0.1)
    assert not looking.text()[0].startswith("NO ANSWER")
    looking.loop.pass_time(1.1)
    assert looking.text()[0].startswith("NO ANSWER for 5.0 s, below is what was: a source has not answered for 4 s")
    assert len(looking.loop.timers) <= 2
    looking.answer()
    assert looking.text()[0].startswith("all quiet") and looking.text()[1].startswith("2 running")


def test_a_site_that_asks_for_a_token_answers_its_own_console():
    fleet, now, wall = captured("smoke")
    site = Site(fleet, Guard(("localhost",), "secret"), lambda: (now, wall), lambda: {}, lambda: [])
    assert site.answer(Request("GET", "/version", "/version", {}, {"host": "localhost"}, (1, 1), b"", True, False,
                               "localhost")).status == 401
    assert answered(site, "/version")[0] == 200


def test_without_an_answer_the_last_ones_stay_with_their_age_and_it_tries_again(looking):
    looking.loop.pass_time(1.0)
    looking.source.answer(trouble=TelError("nobody there"))
    assert looking.console.view["source"]["trouble"] == "nobody there"
    assert looking.console.view["source"]["age_s"] == 1.0
    assert looking.text()[0].startswith("NO ANSWER") and "nobody there" in looking.text()[0]
    assert looking.text()[1] and looking.text()[3]
    looking.loop.pass_time(top.RETRY_S + 0.1)
    assert len(looking.source.looks) == 3
    looking.answer()
    assert looking.console.view["source"]["trouble"] == "" and "NO ANSWER" not in looking.text()[0]


def test_what_was_refused_is_kept_beside_what_was_answered(looking):
    looking.loop.pass_time(1.0)
    summary = answered(looking.site, looking.source.looks[-1]["summary"])[1]
    looking.source.answer({"summary": summary}, {"processes": "answers 404"})
    assert looking.console.view["errors"] == {"processes": "answers 404"}


def test_while_it_is_paused_it_does_not_look(looking):
    looking.console.key(" ")
    while looking.source.busy:
        looking.answer()
    count = len(looking.source.looks)
    looking.loop.pass_time(100.0)
    assert len(looking.source.looks) == count
    looking.console.key(" ")
    looking.loop.pass_time(2.0)
    assert len(looking.source.looks) > count


def test_q_ends_the_loop(looking):
    looking.console.key("q")
    assert looking.loop.stopped


def test_timers_do_not_pile_up_while_keys_are_pressed(looking):
    for _ in range(200):
        looking.console.key("p")
        looking.console.key("o")
        if looking.source.busy:
            looking.answer()
    looking.loop.pass_time(0.5)
    assert len(looking.loop.timers) <= 410
    looking.loop.pass_time(0.9)
    while looking.source.busy:
        looking.answer()
    looking.loop.pass_time(0.01)
    assert len(looking.loop.timers) <= 2


# --- a copy of the screen -------------------------------------------------------------------------

@pytest.fixture
def frozen(monkeypatch):
    """Every moment has one name."""
    name = "modwsgi-tel-20261121-031200.txt"
    monkeypatch.setattr(top.time, "strftime", lambda form, *when: name if "txt" in form else "03:12:00")
    return name


def test_a_copy_is_for_its_user_alone_and_never_over_another(looking, frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    looking.console.key("c")
    path = str(tmp_path / frozen)
    assert looking.console.ui.message == f"written: {path}"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    looking.console.key("c")
    assert looking.console.ui.message == f"{path} is there already: once a second is enough"


def test_a_copy_is_not_written_through_a_link(looking, frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(str(tmp_path / "elsewhere"), str(tmp_path / frozen))
    looking.console.key("c")
    assert "is there already" in looking.console.ui.message and not (tmp_path / "elsewhere").exists()


def test_a_copy_that_goes_nowhere_says_why(looking, frozen, tmp_path, monkeypatch):
    monkeypatch.chdir("/proc")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    looking.console.key("c")
    assert looking.console.ui.message == f"cannot write {tmp_path}/none/{frozen}: No such file or directory"


# --- a collector over HTTP ------------------------------------------------------------------------

@pytest.fixture
def asking(monkeypatch):
    """(Remote, its FakeAsker)."""
    made = []
    monkeypatch.setattr(remote, "Asker", lambda *arguments: made.append(FakeAsker(*arguments)) or made[-1])
    return Remote(FakeLoop(), Place("http://127.0.0.1:8888")), made[0]


def looked(source, paths):
    """The list that a look's answers go to."""
    came = []
    source.look(paths, lambda *answer: came.append(answer))
    return came


def test_paths_are_asked_one_after_another(asking):
    source, asker = asking
    came = looked(source, {"summary": "/api/summary", "rows": "/api/processes"})
    assert (asker.asked, source.busy, came) == (["/api/summary"], True, [])
    asker.answer({"a": 1})
    assert (asker.asked, came) == (["/api/summary", "/api/processes"], [])
    asker.answer({"b": 2})
    assert came == [({"summary": {"a": 1}, "rows": {"b": 2}}, {}, None)] and not source.busy


def test_a_path_that_is_refused_leaves_the_others(asking):
    source, asker = asking
    came = looked(source, {"summary": "/1", "rows": "/2", "more": "/3"})
    asker.answer({})
    asker.answer(Nonsense("answers 404"))
    asker.answer([])
    assert came == [({"summary": {}, "more": []}, {"rows": "answers 404"}, None)]


def test_stacks_are_posted_for_last_and_a_refusal_is_told_in_its_own_words(asking):
    source, asker = asking
    came = looked(source, {"summary": "/1", "asked": "/api/stacks?pid=3"})
    asker.answer({})
    assert asker.asked == ["/1", "POST /api/stacks?pid=3"]
    asker.answer(Nonsense("http://h/api/stacks?pid=3: answers 409: it has ended", "it has ended"))
    assert came == [({"summary": {}}, {"asked": "it has ended"}, None)] and source.no_stacks == ""


def test_when_nobody_answers_nothing_else_is_asked(asking):
    source, asker = asking
    came, nobody = looked(source, {"summary": "/1", "rows": "/2"}), TelError("refused")
    asker.answer(nobody)
    assert (came, asker.asked) == ([({}, {}, nobody)], ["/1"])


def test_after_close_no_answer_comes(asking):
    source, asker = asking
    came = looked(source, {"summary": "/1"})
    late = asker._done
    source.close()
    late({"a": 1})
    assert came == [] and not source.busy


def peers(*datagrams):
    """What the existing collector answers with these samples of one process."""
    fleet = fold(a_fleet(), *datagrams)
    state = answered(_site(fleet, lambda: (1.0, 1_700_000_001.0)), STATE)[1]
    del state["collector"]
    return state


def test_who_has_no_summary_may_be_the_existing_collector(asking):
    source, asker = asking
    came = looked(source, {"summary": "/api/summary"})
    asker.answer(Nonsense("answers 404 and no JSON"))
    assert asker.asked == ["/api/summary", STATE]
    worker = Worker(pid=812, group="shop")
    asker.answer(peers(worker.started(), worker.tick(requests=3)))
    (answers, errors, trouble), = came
    assert (errors, trouble) == ({}, None)
    assert [group["process_group"] for group in answers["summary"]["groups"]] == ["shop"]
    assert source.note == "mod_wsgi-telemetry"
    looked(source, {"summary": "/api/summary"})
    assert asker.asked[2:] == [STATE]


def test_the_existing_collector_spends_a_tenth_of_its_time_on_us(asking):
    source, asker = asking
    looked(source, {"summary": "/api/summary"})
    asker.answer(Nonsense("answers 404"))
    asker.loop.now += 1.5
    asker.answer(peers())
    assert source.least_pause_s() == 15.0
    looked(source, {"summary": "/api/summary"})
    asker.loop.now += 0.25
    asker.answer(peers())
    assert source.least_pause_s() == 2.5


def test_who_serves_may_change_and_is_found_out_again(asking):
    source, asker = asking
    looked(source, {"summary": "/api/summary"})
    asker.answer({"ours": 1})
    looked(source, {"summary": "/api/summary"})
    asker.answer(Nonsense("answers 404"))
    asker.answer(peers())
    assert source.note == "mod_wsgi-telemetry"
    came = looked(source, {"summary": "/api/summary"})
    asker.answer({"type": "snapshot", "collector": {}})
    assert asker.asked[-2:] == [STATE, "/api/summary"]
    asker.answer({"ours": 2})
    assert (came, source.note, source.least_pause_s()) == ([({"summary": {"ours": 2}}, {}, None)], "", 0.0)


@pytest.mark.parametrize("answer", [{}, [], None, "snapshot", {"type": "snapshot", "collector": {}}], ids=json.dumps)
def test_who_is_neither_is_told_by_what_it_said_first(asking, answer):
    source, asker = asking
    came, refusal = looked(source, {"summary": "/api/summary"}), Nonsense("answers 404")
    asker.answer(refusal)
    asker.answer(answer)
    assert came == [({}, {}, refusal)] and source.note == ""


def test_a_state_that_is_no_state_is_trouble_and_no_end(asking):
    source, asker = asking
    came = looked(source, {"summary": "/api/summary"})
    asker.answer(Nonsense("answers 404"))
    asker.answer({"type": "snapshot", "processes": 7})
    (answers, errors, trouble), = came
    assert (answers, errors) == ({}, {}) and isinstance(trouble, Nonsense)


# --- answers made here ----------------------------------------------------------------------------

def test_answers_made_here_are_those_of_the_routes(site):
    source = Local(site, "here")
    (answers, errors, trouble), = looked(source, {"summary": "/api/summary?window=1m", "none": "/api/none"})
    assert trouble is None and answers == {"summary": answered(site, "/api/summary?window=1m")[1]}
    assert list(errors) == ["none"] and not source.busy


def test_stacks_are_posted_for_here_too(site):
    (answers, errors, trouble), = looked(Local(site, "here"), {"asked": "/api/stacks?pid=1"})
    assert (answers, list(errors), trouble) == ({}, ["asked"], None) and "/api/stacks takes" not in errors["asked"]


@pytest.fixture
def recording():
    """(FakeLoop, a Recording of a capture at its first moment)."""
    loop = FakeLoop()
    source = Recording(loop, Player([os.path.join(CAPTURES, "daemon_mixed.cap.gz")], a_fleet().limits), "a recording")
    yield loop, source
    source.close()


def test_a_recording_is_played_in_pieces_and_says_when_it_is_there(recording):
    loop, source = recording
    told = []
    source.play(source.player.seek(source.player.begin + 20.0), lambda: told.append(source.player.wall))
    assert source.playing and told == []
    loop.pass_time(0.0)
    while source.playing:
        loop.pass_time(0.001)
    assert told == [source.player.begin + 20.0]
    (answers, _, _), = looked(source, {"summary": "/api/summary"})
    assert answers["summary"]["totals"]["lives"]["running"] == 2


def test_a_newer_seek_ends_an_older_one(recording):
    loop, source = recording
    told = []
    source.play(source.player.seek(source.player.begin + 20.0), lambda: told.append("first"))
    source.play(source.player.seek(source.player.begin + 5.0), lambda: told.append("second"))
    while source.playing:
        loop.pass_time(0.001)
    assert told == ["second"] and source.player.wall == source.player.begin + 5.0


def test_where_a_recording_is_cut_is_a_note_and_one_line_of_its_log(tmp_path):
    path = tmp_path / "cut.cap"
    path.write_bytes(whole("daemon_mixed")[:-5])
    loop = FakeLoop()
    source = Recording(loop, Player([str(path)], a_fleet().limits), "cut")
    source.log = Ring(10)
    looked(source, {})
    assert source.note == "" and list(source.log) == []
    source.play(source.player.advance(float("inf")), lambda: None)
    while source.playing:
        loop.pass_time(0.001)
    looked(source, {})
    looked(source, {})
    assert source.note.startswith(f"{path}: ends in the middle of a record") and list(source.log) == [source.note]
    source.close()


def whole(name):
    """The bytes of a capture."""
    with gzip.open(os.path.join(CAPTURES, name + ".cap.gz")) as packed:
        return packed.read()


# --- what the terminal can show -------------------------------------------------------------------

@pytest.mark.parametrize("environ, ascii_wanted, glyphs", [
    ({"LANG": "de_DE.UTF-8"}, False, UNICODE), ({"LANG": "de_DE.utf8"}, False, UNICODE),
    ({"LC_CTYPE": "UTF-8"}, False, UNICODE),
    ({"LANG": "de_DE.UTF-8"}, True, ASCII), ({"LANG": "C"}, False, ASCII), ({}, False, ASCII),
    ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, False, ASCII), ({"LANG": "C", "LC_ALL": "C.UTF-8"}, False, UNICODE),
    ({"LANG": "de_DE.UTF-8", "LC_ALL": ""}, False, UNICODE), ({"LANG": "C.UTF-8", "TERM": "linux"}, False, LINUX)])
def test_glyphs_go_by_the_locale_and_the_terminal(environ, ascii_wanted, glyphs):
    assert top.glyphs_for(environ, ascii_wanted) is glyphs


@pytest.mark.parametrize("flag, environ, wanted", [
    (False, {}, True), (True, {}, False), (False, {"NO_COLOR": "1"}, False), (False, {"NO_COLOR": ""}, True),
    (False, {"TERM": "dumb"}, False)])
def test_colour_is_there_unless_somebody_wants_none(flag, environ, wanted):
    values = type("Values", (), {"no_color": flag})
    assert top.wants_colour(values, environ) is wanted
