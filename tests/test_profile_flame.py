"""The flame graph: whole without its script, and what the script adds, tried in a browser where there is one."""
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import profiles
import pytest
from profiles import a_profile, a_thread

from modwsgi_tel.profile import flame
from modwsgi_tel.profile.formats import added_up, former, write
from modwsgi_tel.profile.samples import NOT_READ, Profile
from modwsgi_tel.stacks.model import MOVING

SVG = "{http://www.w3.org/2000/svg}"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def drawn(profile, before=None):
    """(the SVG's root element, its boxes as dicts: label, title, class, x and width in per cent, row)."""
    root = ET.fromstring("".join(write(profile, "svg", before)))
    holder = next(each for each in root if each.get("id") == "boxes")
    return root, [{"label": box.findtext(f"{SVG}text"), "title": box.findtext(f"{SVG}title"), "kind": box.get("class").split()[1],
                   "x": float(box.get("x")[:-1]), "width": float(box.get("width")[:-1]), "row": int(box.get("y")) // flame.ROW}
                  for box in holder]


def words(root):
    return "\n".join(each.text or "" for each in root.iter(f"{SVG}text"))


def a_former(**stacks):
    """A Former in which main called each function for so many seconds."""
    return added_up([([("main", "app.py"), (name, "app.py")], seconds) for name, seconds in stacks.items()], "an earlier day")


def test_boxes_lie_below_their_callers_the_widest_first():
    looks = [(a_thread("main work@b.py:7"),)] * 2 + [(a_thread("main work@b.py:9"),), (a_thread("main wait"),)]
    root, boxes = drawn(a_profile(*looks))
    assert [(box["label"], box["row"], box["x"], box["width"]) for box in boxes] == [
        ("all", 0, 0.0, 100.0), ("main (app.py)", 1, 0.0, 100.0), ("work (b.py)", 2, 0.0, 75.0), ("wait (app.py)", 2, 75.0, 25.0)]
    assert boxes[2]["title"] == "work (b.py)\n75.00 %, 60.0 ms; itself 75.00 %, 60.0 ms\nlines 7: 66.67 %, 9: 33.33 %"
    assert boxes[1]["title"] == "main (app.py)\n100.00 %, 80.0 ms; itself 0.00 %, 0.0 ms\nline 1: 100.00 %"


def test_a_file_has_one_hue_and_two_files_have_two():
    kinds = {box["label"]: box["kind"] for box in drawn(profiles.busy())[1]}
    assert kinds["product (views.py)"] == kinds["basket (views.py)"] != kinds["Product.find (models.py)"]
    assert len({kind[1:] for label, kind in kinds.items() if "(" in label and kind[0] in "hl"}) == 16
    assert [kinds[each][0] for each in ("JSONEncoder.encode (encoder.py)", "product (views.py)", "all", NOT_READ)] == [
        "l", "h", "g", "m"]


def test_the_head_tells_what_was_recorded_and_what_was_not():
    profile = profiles.busy(looks=100)
    shown = words(drawn(profile)[0]).replace("\n", " ")
    for line in profile.told():
        assert line in shown
    assert "no samples were taken" in words(drawn(Profile())[0])


def test_hostile_names_stay_text():
    hostile = profiles.HOSTILE
    text = "".join(write(a_profile((a_thread()._replace(frames=(hostile,)),)), "svg"))
    assert text.count("<script>") == 1 and "\x1b" not in text and "\u202e" not in text
    root = ET.fromstring(text)
    assert root.findtext(f".//{SVG}svg[@id='boxes']/{SVG}svg[2]/{SVG}text") == (
        "<script>alert(1)</script>;\\x1b[31m\\n\\u202eevil (\"]]>&'<b>;.py)")


def test_an_svg_asks_nothing_of_the_network():
    text = "".join(write(profiles.busy(looks=20), "svg"))
    assert set(re.findall(r"https?://[^\s\"']*", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.search(r"@import|url\(|xlink|src=|href=", text)


def test_boxes_too_small_are_one_and_are_counted():
    looks = [(a_thread("main " + ("often" if number % 2 else f"rare{number}")),) for number in range(10000)]
    root, boxes = drawn(a_profile(*looks))
    assert [(box["label"], box["width"]) for box in boxes] == [
        ("all", 100.0), ("main (app.py)", 100.0), ("often (app.py)", 50.0), ("(5,000 small)", 50.0)]
    assert "too small or too deep to be drawn one by one: 5,000 places, 50.00 % of the width" in words(root)


def test_no_more_boxes_are_drawn_than_a_browser_likes(monkeypatch):
    monkeypatch.setattr(flame, "BOXES", 50)
    root, boxes = drawn(profiles.busy())
    assert 20 < len(boxes) <= 2 * 50
    assert "too small or too deep" in words(root)


def test_the_height_follows_the_depth_up_to_a_bound(monkeypatch):
    def height(depth):
        return int(drawn(a_profile((a_thread("f " * depth),)))[0].get("height"))
    assert height(12) - height(2) == 10 * flame.ROW
    monkeypatch.setattr(flame, "DEEPEST", 40)
    root, boxes = drawn(a_profile((a_thread("f " * 100),)))
    assert max(box["row"] for box in boxes) < 40 and "too deep to be drawn one by one: 61 places" in words(root)


def test_very_deep_recursion_is_drawn():
    _, boxes = drawn(a_profile((a_thread("main " + "walk " * 5000),)))
    assert len(boxes) == flame.DEEPEST


def test_boxes_lie_within_their_callers_and_beside_one_another():
    _, boxes = drawn(profiles.busy(by=("process", "thread")))
    ends, above = {}, {}
    for box in boxes:
        row, end = box["row"], box["x"] + box["width"]
        assert box["x"] >= ends.get(row, 0.0) - 0.001
        if row:
            assert above[row - 1]["x"] - 0.001 <= box["x"] and end <= above[row - 1]["x"] + above[row - 1]["width"] + 0.001
        ends[row], above[row] = end, box


def test_a_comparison_is_red_where_it_grew_and_blue_where_it_shrank():
    after = a_profile(*[(a_thread("main kept"),)] * 2, (a_thread("main grown"),), (a_thread("main new"),))
    root, boxes = drawn(after, a_former(kept=50, grown=5, gone=45))
    found = {box["label"].split()[0]: (box["kind"], box["width"]) for box in boxes}
    assert found == {"all": ("g", 100.0), "main": ("e", 100.0), "kept": ("e", 50.0), "gone": ("d5", 22.5), "grown": ("u5", 15.0),
                     "new": ("u5", 12.5)}
    assert next(box["title"] for box in boxes if box["label"].startswith("grown")) == (
        "grown (app.py)\nbefore 5.00 %, after 25.00 %: +20.00 points\nline 1: 100.00 %")
    assert "before: an earlier day" in words(root)


def test_a_comparison_finds_the_threads_of_another_run(tmp_path):
    path = tmp_path / "before.folded"
    path.write_text("".join(write(a_profile((a_thread("main", tid=5),), by=("thread", "process")), "folded")), encoding="utf-8")
    _, boxes = drawn(a_profile((a_thread("main", tid=6),), by=("thread", "process")), former(str(path)))
    assert [(box["label"], box["kind"]) for box in boxes] == [
        ("all", "g"), ("pid python app.py", "e"), ("thread MainThread", "e"), ("main (app.py)", "e")]


def test_a_moving_thread_is_a_box_of_its_own():
    _, boxes = drawn(a_profile((a_thread("main"),), (a_thread("main", problem=MOVING),)))
    assert [(box["label"], box["kind"][0], box["width"]) for box in boxes] == [
        ("all", "g", 100.0), (NOT_READ, "m", 50.0), ("main (app.py)", "h", 50.0)]


def test_the_script_is_found_in_an_archive_in_memory(tmp_path):
    code = """
import io, os, sys, zipfile
root = sys.argv[1]
sys.path.insert(0, root)
from modwsgi_tel.__main__ import Archive
sys.path.remove(root)
for name in [each for each in sys.modules if each.startswith("modwsgi_tel")]:
    del sys.modules[name]
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    for folder, _, names in os.walk(os.path.join(root, "modwsgi_tel")):
        for each in names:
            if each.endswith((".py", ".js", ".css")):
                path = os.path.join(folder, each)
                archive.write(path, "site-packages/" + os.path.relpath(path, root))
sys.meta_path.insert(0, Archive("/gone/modwsgi-tel.pyz", packed.getvalue()))
from modwsgi_tel.profile import formats, samples
print(formats.__file__, "foreignObject" in "".join(formats.write(samples.Profile(), "svg")))
"""
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code, ROOT], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (ended.stdout, ended.stderr) == ("/gone/modwsgi-tel.pyz/site-packages/modwsgi_tel/profile/formats.py True\n", "")


# --- in a browser

STEPS = """
const out = {}, boxes = [...document.querySelectorAll(".b")], page = document.documentElement;
const named = (text) => boxes.find((box) => box.querySelector("text").textContent.startsWith(text));
const label = () => document.activeElement.querySelector("text").textContent;
const key = (name) => (document.activeElement || page).dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const shown = () => boxes.filter((box) => box.style.display !== "none").map((box) => box.querySelector("text").textContent);
const place = (box) => [parseFloat(box.getAttribute("x")), parseFloat(box.getAttribute("width"))];
const find = (text) => {
  const input = document.querySelector("input");
  input.value = text;
  input.dispatchEvent(new Event("input"));
  return document.querySelector("output").textContent;
};
named("work").querySelector("rect").dispatchEvent(new MouseEvent("click", {bubbles: true}));
out.zoomed = [shown(), place(named("work")), place(named("price")), place(named("main"))];
key("ArrowUp");
out.up = label();
key("ArrowDown");
key("ArrowDown");
out.down = label();
key("Escape");
out.whole = [shown().length, place(named("work"))];
key("ArrowRight");
out.right = label();
key("Enter");
out.entered = place(document.activeElement);
key("Home");
key(" ");
out.back = shown().length;
key("/");
out.slash = document.activeElement.localName;
out.found = [find("PRICES.PY"), find("walk"), find("nothing"), find("")];
page.setAttribute("data-out", JSON.stringify(out));
"""


def in_browser(text, steps, folder):
    """What the steps, run in a browser after the SVG's own script, leave in data-out."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = folder / "driven.svg"
    path.write_text(text.replace("</script>\n</svg>", f"</script><script><![CDATA[{steps}]]></script></svg>"), encoding="utf-8")
    ended = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                            "--disable-background-networking", f"--user-data-dir={folder}/user", "--dump-dom", path.as_uri()],
                           capture_output=True, text=True, timeout=60)
    return json.loads(ET.fromstring(ended.stdout[ended.stdout.index("<svg"):]).get("data-out"))


def test_zoom_search_and_keys(tmp_path):
    looks = [(a_thread("main work price@prices.py:3"),)] * 2 + [(a_thread("main work walk walk"),), (a_thread("main rest"),)]
    out = in_browser("".join(write(a_profile(*looks), "svg")), STEPS, tmp_path)
    everything = ["all", "main (app.py)", "work (app.py)", "price (prices.py)", "walk (app.py)", "walk (app.py)", "rest (app.py)"]
    assert out["zoomed"] == [everything[:-1], [0, 100], [0, pytest.approx(66.6667, abs=0.001)], [0, 100]]
    assert (out["up"], out["down"]) == ("main (app.py)", "price (prices.py)")
    assert out["whole"] == [7, [0, 75]]
    assert (out["right"], out["entered"], out["back"], out["slash"]) == ("walk (app.py)", [0, 100], 7, "input")
    assert out["found"] == ["1 found, 50.00 %", "2 found, 25.00 %", "0 found, 0.00 %", ""]


def test_the_script_bears_thousands_of_boxes(tmp_path):
    steps = """
const boxes = [...document.querySelectorAll(".b")], began = performance.now();
boxes[3].dispatchEvent(new MouseEvent("click", {bubbles: true}));
document.documentElement.setAttribute("data-out", JSON.stringify([boxes.length, performance.now() - began]));
"""
    count, took_ms = in_browser("".join(write(profiles.busy(looks=200, deep=300), "svg")), steps, tmp_path)
    assert count > 3000 and took_ms < 2000
