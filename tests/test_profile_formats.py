"""Folded stacks, speedscope's and the Firefox profiler's JSON, and reading a former recording back."""
import json
import os
import re
import shutil
import subprocess

import profiles
import pytest
from profiles import a_profile, a_thread

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.profile import formats
from modwsgi_tel.profile.formats import FORMATS, check_comparing, format_of, former, write
from modwsgi_tel.profile.samples import Profile
from modwsgi_tel.stacks.model import MOVING

LOOK = (a_thread("main@a.py:1 work@b.py:7"), a_thread("main@a.py:1", tid=8, name="w", problem=MOVING))


ONE = [{"name": "f"}]                   # frames of a speedscope file


def text_of(profile, form, before=None):
    return "".join(write(profile, form, before))


def saved(tmp_path, profile, name):
    path = str(tmp_path / name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(write(profile, format_of(name)))
    return path


# --- which format

@pytest.mark.parametrize("path, form", [("a.svg", "svg"), ("a.folded", "folded"), ("a.txt", "folded"), ("a.json", "speedscope"),
                                        ("a.speedscope.json", "speedscope"), ("a.firefox.json", "firefox"), ("A.SVG", "svg"),
                                        (None, "folded")])
def test_the_ending_of_a_file_names_its_format(path, form):
    assert format_of(path) == form


def test_a_format_that_is_asked_for_goes_before_the_ending():
    assert format_of("a.svg", "firefox") == "firefox"


@pytest.mark.parametrize("path, wanted, said", [
    ("a.png", None, "a.png: its ending names no format: end it with .svg, .folded, .txt, .speedscope.json, .json, .firefox.json, "
                    "or give --format"),
    ("a.svg", "perf\x1b", "no format perf\\x1b: there are svg, folded, speedscope, firefox")])
def test_other_formats_are_refused_with_those_there_are(path, wanted, said):
    with pytest.raises(UsageError) as caught:
        format_of(path, wanted)
    assert str(caught.value) == said


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_recorded_is_still_a_file_of_its_format(form):
    text = text_of(Profile(), form)
    assert "no process" in text
    if form in ("speedscope", "firefox"):
        json.loads(text)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_was_not_read(form):
    profile = profiles.busy(looks=50)
    assert profile.moving
    assert f"moving {profile.moving}" in text_of(profile, form) and "(moving: not read)" in text_of(profile, form)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_printable_utf8(form):
    text = text_of(profiles.busy(looks=50, by=("thread",)), form)
    assert text.encode("utf-8") and text.replace("\n", "").isprintable()


# --- folded

def test_folded_is_a_line_for_each_stack_with_microseconds():
    head, *lines = text_of(a_profile(LOOK, LOOK, by=("thread",)), "folded").splitlines()
    assert re.fullmatch(r"\(modwsgi-tel record: pid 4711 python app\.py .* moving 2 \(50\.0 %\), cut 0, late 0, dropped 0\) 0", head)
    assert lines == ["thread 7 MainThread;main (a.py:1);work (b.py:7) 40000", "thread 8 w;(moving: not read) 40000"]


def test_folded_keeps_separators_in_names_apart():
    profile = a_profile((a_thread()._replace(frames=(profiles.HOSTILE,)),))
    line = text_of(profile, "folded").splitlines()[1]
    assert line == "<script>alert(1)</script>\\x3b\\x1b[31m\\n\\u202eevil (/tmp/\"]]>&'<b>\\x3b.py:3) 20000"


def test_a_frame_without_a_line_has_none():
    profile = a_profile((a_thread()._replace(frames=(profiles.HOSTILE._replace(function="f", file="a.py", line=None),)),))
    assert text_of(profile, "folded").splitlines()[1] == "f (a.py) 20000"


def test_flamegraph_pl_reads_what_is_folded(tmp_path):
    script = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"
    if not (shutil.which("perl") and os.path.exists(script)):
        pytest.skip("no flamegraph.pl here (libdevel-nytprof-perl)")
    profile = profiles.busy(looks=50)
    before = former(saved(tmp_path, profiles.busy(looks=50, seed=6), "before.folded"))
    for text in (text_of(profile, "folded"), text_of(profile, "folded", before)):
        ended = subprocess.run(["perl", script, "--countname=us"], input=text, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "dispatch (/srv/shop/routes.py:88)" in ended.stdout or "dispatch (/srv/shop/routes.py)" in ended.stdout


# --- speedscope

def test_speedscope_has_what_its_schema_requires():
    profile = profiles.busy(looks=100, by=("process", "thread"))
    data = json.loads(text_of(profile, "speedscope"))
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(data) == {"$schema", "exporter", "name", "modwsgi-tel", "activeProfileIndex", "shared", "profiles"}
    frames = data["shared"]["frames"]
    assert all(isinstance(frame["name"], str) and set(frame) <= {"name", "file"} for frame in frames)
    assert len({(frame["name"], frame.get("file")) for frame in frames}) == len(frames)
    assert len(data["profiles"]) == 11
    for each in data["profiles"]:
        assert set(each) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert (each["type"], each["unit"], each["startValue"], each["endValue"]) == ("sampled", "seconds", 0, 2.0)
        assert len(each["samples"]) == len(each["weights"]) == 100
        assert all(isinstance(index, int) and 0 <= index < len(frames) for sample in each["samples"] for index in sample)
        assert sum(each["weights"]) == pytest.approx(2.0)
    assert data["modwsgi-tel"] == profile.counts()


def test_speedscope_is_whole_however_many_pieces_it_takes(monkeypatch):
    monkeypatch.setattr("modwsgi_tel.profile.speedscope._STEP", 3)
    profile = profiles.busy(looks=31, threads=3)
    data = json.loads(text_of(profile, "speedscope"))
    assert [len(each["samples"]) for each in data["profiles"]] == [31, 31]
    assert sum(sum(each["weights"]) for each in data["profiles"]) == pytest.approx(62 * 0.02)


def test_speedscope_fills_the_time_in_which_a_thread_was_not_taken():
    held, free = (a_thread("main", owns_gil=True),), (a_thread("main"),)
    data = json.loads(text_of(a_profile(free, held, free, free, held, gil=True), "speedscope"))
    assert [(each["samples"], each["weights"]) for each in data["profiles"]] == [([[], [0], [], [0]], [0.02, 0.02, 0.04, 0.02])]


# --- the Firefox profiler

def columns(table):
    """The length of a table whose columns must all have it."""
    lengths = {name: len(column) for name, column in table.items() if name not in ("length", "weightType")}
    assert set(lengths.values()) <= {table["length"]}, lengths
    return table["length"]


def test_firefox_tables_fit_together():
    profile = profiles.busy(looks=100, by=("process", "thread"))
    data = json.loads(text_of(profile, "firefox"))
    meta, strings = data["meta"], data["shared"]["stringArray"]
    assert (meta["preprocessedProfileVersion"], meta["interval"], data["libs"]) == (56, 20.0, [])
    assert meta["startTime"] == pytest.approx(profiles.START * 1000) and any(each["color"] == "grey" for each in meta["categories"])
    assert len(strings) == len(set(strings)) and len(data["threads"]) == 11
    for thread in data["threads"]:
        samples, stacks, frames, functions = (thread[each] for each in ("samples", "stackTable", "frameTable", "funcTable"))
        assert columns(samples) == 100
        assert all(0 <= stack < columns(stacks) for stack in samples["stack"])
        assert all(prefix is None or prefix < at for at, prefix in enumerate(stacks["prefix"]))
        assert all(0 <= frame < columns(frames) for frame in stacks["frame"])
        assert all(0 <= function < columns(functions) for function in frames["func"])
        assert all(0 <= category < len(meta["categories"]) for category in frames["category"])
        assert all(0 <= name < len(strings) for name in functions["name"])
        assert all(file is None or 0 <= file < len(strings) for file in functions["fileName"])
        assert samples["time"] == sorted(samples["time"]) and samples["time"][-1] == 2000.0
        assert set(samples["weight"]) == {20.0} and samples["weightType"] == "tracing-ms"
        assert [columns(thread[each]) for each in ("resourceTable", "nativeSymbols", "markers")] == [0, 0, 0]
        assert isinstance(thread["pid"], str)
    assert len({(thread["pid"], thread["tid"]) for thread in data["threads"]}) == 11
    assert [thread["name"] for thread in data["threads"] if thread["isMainThread"]] == ["MainThread"]


def test_firefox_stacks_are_those_that_were_seen():
    profile = a_profile(LOOK, by=("thread",))
    data = json.loads(text_of(profile, "firefox"))
    found = []
    for thread in data["threads"]:
        stack, path = thread["samples"]["stack"][0], []
        while stack is not None:
            frame = thread["stackTable"]["frame"][stack]
            function = thread["frameTable"]["func"][frame]
            file = thread["funcTable"]["fileName"][function]
            path.append((data["shared"]["stringArray"][thread["funcTable"]["name"][function]],
                         None if file is None else data["shared"]["stringArray"][file], thread["frameTable"]["line"][frame]))
            stack = thread["stackTable"]["prefix"][stack]
        found.append(path[::-1])
    assert found == [[("thread 7 MainThread", None, None), ("main", "a.py", 1), ("work", "b.py", 7)],
                     [("thread 8 w", None, None), ("(moving: not read)", None, None)]]


# --- a former recording

def test_a_threads_name_is_no_function_when_it_is_read_back(tmp_path):
    profile = a_profile((a_thread("main", name="Thread-1 (serve)"),), by=("thread",))
    for name in ("b.folded", "b.json"):
        assert list(former(saved(tmp_path, profile, name)).stacks) == [(("thread 7 Thread-1 (serve)", None), ("main", "app.py"))]


@pytest.mark.parametrize("name", ["before.folded", "before.speedscope.json"])
def test_a_former_recording_is_read_back_as_it_was(tmp_path, name):
    profile = profiles.busy(by=("process", "interpreter", "thread"))
    wanted = {}
    for path, seconds in profile.stacks():
        path = tuple((key.function, key.file) for key in path)
        wanted[path] = wanted.get(path, 0.0) + seconds
    found = former(saved(tmp_path, profile, name))
    assert found.stacks == pytest.approx(wanted)
    assert found.total_s == pytest.approx(profile.taken * 0.02)
    assert "500 looks, 5,500 samples" in found.told


def test_a_comparison_has_two_counts_a_line_made_to_the_same_total(tmp_path):
    earlier = a_profile((a_thread("main old", tid=1),), (a_thread("main kept", tid=1),), by=("thread",))
    before = former(saved(tmp_path, earlier, "b.folded"))
    after = a_profile(*[(a_thread("main kept", tid=2),)] * 3, (a_thread("main new", tid=2),), by=("thread",))
    head, *lines = text_of(after, "folded", before).splitlines()
    assert head.startswith("(modwsgi-tel record --diff: before: pid 4711 ") and head.endswith(") 0 0")
    assert lines == ["thread MainThread;main (app.py);kept (app.py) 40000 60000",
                     "thread MainThread;main (app.py);new (app.py) 0 20000",
                     "thread MainThread;main (app.py);old (app.py) 40000 0"]


def test_compared_with_itself_nothing_differs(tmp_path):
    profile = profiles.busy(looks=50, by=("process", "thread"))
    for name in ("b.folded", "b.json"):
        lines = text_of(profile, "folded", former(saved(tmp_path, profile, name))).splitlines()[1:]
        assert lines and all(abs(int(line.split(" ")[-2]) - int(line.split(" ")[-1])) <= 1 for line in lines)


@pytest.mark.parametrize("form", ["speedscope", "firefox"])
def test_formats_that_cannot_compare_say_so_before_anything_is_recorded(form):
    with pytest.raises(UsageError, match=f"--diff cannot be shown as {form}: write .svg or .folded"):
        check_comparing(form)


@pytest.mark.parametrize("text, said", [
    ("", "is not a recording that record wrote: record it anew"),
    ("main;work 12\n", "is not a recording that record wrote: record it anew"),
    ("(modwsgi-tel record: x) 0\n", "holds no samples: record it anew"),
    ("(modwsgi-tel record: x) 0\na 1\nb\n", "is damaged: line 3 is no folded stack"),
    ("(modwsgi-tel record: x) 0\na -1\n", "is damaged: line 2 is no folded stack"),
    ("(modwsgi-tel record: x) 0\na " + "9" * 5000 + "\n", "is damaged: line 2 is no folded stack"),
    ("(modwsgi-tel record --diff: x) 0 0\na 1 2\n", "is a comparison of two recordings: give one of the two"),
    ("{", "is damaged: it is no JSON"),
    ('{"a":' * 100000, "is damaged: it is no JSON"),
    ("{}", "is not a recording that record wrote: record it anew"),
    ('{"exporter": "py-spy@0.4", "shared": {}}', "is not a recording that record wrote: record it anew"),
    *((json.dumps({"exporter": "modwsgi-tel 1", "name": "", "shared": {"frames": frames},
                   "profiles": [{"samples": samples, "weights": weights}]}),
       "is damaged: its frames, samples and weights do not fit together")
      for frames, samples, weights in (
          ([], [[0]], [1]), ([{"name": 3}], [], []), (ONE, [[-1]], [1]), (ONE, [[0]], [float("nan")]), (ONE, [[0]], [-1]),
          (ONE, [[0], [0]], [1]), (ONE, [[[]]], [1]), (ONE, [[True]], [1]), (ONE, 3, 4))),
])
def test_what_is_no_recording_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "before.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TelError) as caught:
        former(str(path))
    assert str(caught.value) == f"--diff {path} {said}"


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, monkeypatch):
    def said(path):
        with pytest.raises(TelError) as caught:
            former(str(path))
        return str(caught.value).replace(str(tmp_path), "")

    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 100)
    assert said(tmp_path / "gone") == "--diff /gone: cannot read it: No such file or directory"
    assert said(tmp_path) == "--diff : cannot read it: Is a directory"
    assert said(tmp_path / "fifo") == "--diff /fifo is no regular file: give a .folded or .speedscope.json file"
    assert said(tmp_path / "bytes") == "--diff /bytes is not a recording that record wrote: give a .folded or .speedscope.json file"
    monkeypatch.setattr(formats, "FORMER_BYTES", 99)
    assert said(tmp_path / "large") == "--diff /large is larger than 99 B: keep the .folded one, it is smaller"
