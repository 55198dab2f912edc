"""The tests' own browser: what it says is what is there."""
import pytest

from browser import Browser, Failed
from running import Collector

PAGE = ("data:text/html;charset=utf-8,<title>t</title><h1>a page</h1><input id=name aria-label=Name><input id=file type=file>"
        "<button id=go style='margin-top:3000px' onclick='window.pressed=1'>go</button>"
        "<script>window.keys=[];addEventListener('keydown',event=>keys.push([event.key,event.code,event.shiftKey]));"
        "document.addEventListener('visibilitychange',()=>window.seen=document.visibilityState)</script>")


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def test_a_page_is_read_and_used_as_a_person_would(browser, tmp_path):
    with browser.page(PAGE, width=800, height=600, dark=True) as page:
        page.focus("#name")
        page.type("aB é!")
        assert (page.text("h1"), page.text("h7"), page.value("document.querySelector('#name').value")) == ("a page", "", "aB é!")
        page.key("Escape")
        page.key("Shift+Tab")
        assert page.value("keys") == [["a", "KeyA", False], ["B", "KeyB", True], [" ", "Space", False], ["!", "", False],
                                      ["Escape", "Escape", False], ["Tab", "Tab", True]]
        page.click("#go")
        assert page.wait("window.pressed", "a click") == 1
        (tmp_path / "x").write_text("inside")
        page.files("#file", [str(tmp_path / "x")])
        assert page.value("document.querySelector('#file').files[0].text()") == "inside"
        assert page.value("[matchMedia('(prefers-color-scheme: dark)').matches, innerWidth, innerHeight]") == [True, 800, 600]
        page.resize(400, 300)
        page.emulate(dark=False, reduced_motion=True, hidden=True)
        assert page.value("[matchMedia('(prefers-color-scheme: dark)').matches, matchMedia('(prefers-reduced-motion: reduce)').matches,"
                          " innerWidth, seen, document.hidden]") == [False, True, 400, "hidden", True]
        assert [(node.role, node.name) for node in page.accessibility() if node.role in ("heading", "textbox", "button") and "File" not in node.name] == [
            ("heading", "a page"), ("textbox", "Name"), ("button", "go")]
        page.screenshot(str(tmp_path / "page.png"))
        assert (tmp_path / "page.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert page.errors == []


def test_what_goes_wrong_in_a_page_is_among_its_errors(browser):
    with browser.page("data:text/html,<script>console.log('well', 1); console.error('said', {a: 1}); throw new Error('thrown')</script>") as page:
        page.value("Promise.reject(new TypeError('nobody waits')) && 1")
        page.until(lambda: len(page.errors) == 3, "the rejection")
        assert [line.split("\n")[0] for line in page.errors] == ["said Object", "Error: thrown", "TypeError: nobody waits"]
        assert page.console == ["well 1", "said Object"]
        with pytest.raises(Failed, match="ReferenceError: nowhere is not defined"):
            page.value("nowhere")


def test_loads_that_fail_and_what_the_policy_forbids_are_errors_too(browser):
    with Collector() as collector:
        url = f"http://127.0.0.1:{collector.port}"
        with browser.page(f"{url}/version") as page:
            assert page.value("fetch('/nowhere').then(answer => answer.status)") == 404
            assert page.value("navigator.clipboard.writeText('kept').then(() => navigator.clipboard.readText())") == "kept"
            page.offline(True)
            assert page.value("fetch('/version').catch(error => String(error))") == "TypeError: Failed to fetch"
            page.offline(False)
            assert page.value("fetch('/version').then(answer => answer.status)") == 200
            # the browser looks for an icon when it likes
            assert [line for line in page.errors if "favicon" not in line] == [
                f"network: Failed to load resource: the server responded with a status of 404 (Not Found) {url}/nowhere",
                f"network: Failed to load resource: net::ERR_INTERNET_DISCONNECTED {url}/version"]
            assert [asked for asked in page.requests if "favicon" not in asked] == [
                url + path for path in ("/version", "/nowhere", "/version", "/version")]
        with browser.page(f"{url}/") as page:
            page.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
            assert page.value("window.ran") is None
            said = [line for line in page.errors if "favicon" not in line]
            assert len(said) == 1 and said[0].startswith("security: "), said
