"""The web page as the collector hands it out: one file, nothing from elsewhere, run by its hashes; and the list that programs get."""
import base64
import gzip
import hashlib
import json
import os
import re

import pytest

from builders import a_fleet
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.page import page as page_module
from modwsgi_tel.web.protocol import Parser
from modwsgi_tel.web.routes import ROUTES, Site

STATIC = os.path.join(os.path.dirname(page_module.__file__), "static")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def a_site(root_path=""):
    return Site(a_fleet(), Guard({"localhost"}, root_path=root_path), lambda: (10.0, 1_700_000_000.0), dict, list)


def asked(path, headers=(), root_path=""):
    """(status, {header: value}, body) of a GET."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
    (request,) = Parser().feed(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    response = a_site(root_path).answer(request)
    return response.status, dict(response.headers), response.body


def shown():
    status, headers, body = asked("/", BROWSER)
    assert status == 200
    return headers["Content-Security-Policy"], body.decode()


def between(text, before, behind):
    """What stands between two marks that are there once each."""
    assert (text.count(before), text.count(behind)) == (1, 1)
    return text.partition(before)[2].partition(behind)[0]


def hashed(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_policy_names_the_one_script_and_the_one_style_by_their_hashes_and_nothing_else():
    policy, page = shown()
    script, style = between(page, "<script>", "</script>"), between(page, "<style>", "</style>")
    assert policy == (f"default-src 'none'; script-src '{hashed(script)}'; style-src '{hashed(style)}'; img-src data:; "
                      "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def test_every_file_is_in_the_page_in_the_order_of_its_name_and_none_is_missing():
    _, page = shown()
    assert list(page_module.SCRIPTS) == sorted(name for name in os.listdir(STATIC) if name.endswith(".js"))
    assert sorted(page_module.STYLES) == sorted(name for name in os.listdir(STATIC) if name.endswith(".css"))
    places = []
    for name in page_module.SCRIPTS:
        with open(os.path.join(STATIC, name), encoding="utf-8") as file:
            places.append(page.index(file.read()))
    assert places == sorted(places) and len(set(places)) == len(places)


def test_no_name_is_given_twice_in_the_one_scope_of_all_scripts():
    script = between(shown()[1], "<script>", "</script>")
    names = re.findall(r"(?m)^(?:async )?(?:function|const|let) (\w+)", script)
    assert len(names) > 50 and [name for name in set(names) if names.count(name) > 1] == []


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup_or_code():
    _, page = shown()
    # the name of SVG is no address: nobody asks it
    assert re.findall(r"https?://[^\s\"'`<]*", page) == ["http://www.w3.org/2000/svg"]
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "javascript:", "@import", "url("):
        assert forbidden not in page, forbidden
    assert not re.search(r"<[^>]+ (style|on\w+)=", page.partition("<script>")[0])


def test_all_addresses_are_relative_so_that_any_prefix_does():
    _, page = shown()
    assert re.findall(r"""["'`]/(?:api|login|ws|metrics|healthz)[^"'`]*["'`]""", page) == []
    assert '"api/summary"' in page


def test_the_page_is_small():
    _, page = shown()
    assert len(gzip.compress(page.encode(), 1)) < 100_000


def test_below_a_root_path_the_slash_is_put_behind_it_for_a_browser_alone():
    status, headers, _ = asked("/telemetry", BROWSER, "/telemetry")
    assert (status, headers["Location"]) == (303, "/telemetry/")
    assert asked("/telemetry/", BROWSER, "/telemetry")[0] == 200
    assert asked("/telemetry", {}, "/telemetry")[0] == 200


@pytest.mark.parametrize("path", ["/", "/api"])
def test_programs_get_the_list_of_all_routes_as_text(path):
    status, _, body = asked(path, {"Accept": "*/*"})
    lines = body.decode().splitlines()
    assert status == 200 and lines[0].startswith("modwsgi-tel ")
    assert [line.split("?")[0] for line in lines[2::2]] == [f"{route.method:5}{route.path}" for route in ROUTES]


def test_the_list_comes_as_json_and_as_a_page_too():
    routes = json.loads(asked("/api", {"Accept": "application/json"})[2])["routes"]
    assert routes == [{"method": route.method, "path": route.path, "parameters": list(route.parameters), "help": route.help} for route in ROUTES]
    assert b'<a href="/telemetry/api/summary">' in asked("/api", BROWSER, "/telemetry")[2]
