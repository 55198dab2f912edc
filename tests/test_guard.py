"""Who may ask: Host, Origin, token, root path."""
import base64
import hashlib
import hmac

import pytest

from modwsgi_tel.errors import BadRequest, UsageError
from modwsgi_tel.web.guard import COOKIE, COOKIE_AGE_S, FORM_BYTES, Guard, hosts_for
from modwsgi_tel.web.protocol import Parser, pieces

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TOKEN = "se+cr\u00e9t"
SESSION = hmac.new(TOKEN.encode(), b"modwsgi-tel session cookie 1", hashlib.sha256).hexdigest()
REALM = ("WWW-Authenticate", 'Bearer realm="modwsgi-tel"')
POLICY = ("Content-Security-Policy",
          "default-src 'none'; script-src 'sha256-qZLnRB+JWoEw+wv9oAy+xymN7ahIeMz/rgIM/zoog2U='; form-action 'self'; "
          "frame-ancestors 'none'; base-uri 'none'")


def a_request(line="GET /api/state HTTP/1.1", *headers, host="localhost:8888", body=b""):
    """A Request as the parser reads it; host None leaves the header out."""
    lines = [line, *([] if host is None else ["Host: " + host]), *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    [request] = Parser().feed("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)
    return request


def a_post(*headers, host="localhost:8888"):
    return a_request("POST /api/slow/clear HTTP/1.1", *headers, host=host)


def a_form(token, *headers, **options):
    return a_request("POST /login HTTP/1.1", *headers, body=b"token=" + token, **options)


def verdict(guard, request):
    """The status that check() raises, or None when the request may pass."""
    try:
        guard.check(request)
    except BadRequest as error:
        return error.status
    return None


# --- Host -----------------------------------------------------------------------

@pytest.mark.parametrize("bound, allowed, hostname, hosts", [
    ("127.0.0.1", [], "web1", LOOPBACK),
    ("localhost", [], "web1", LOOPBACK),
    ("::1", [], "web1", LOOPBACK),
    ("[::1]", [], "web1", LOOPBACK),
    ("127.0.0.5", [], "web1", LOOPBACK | {"127.0.0.5"}),
    ("0.0.0.0", [], "Web1.Example.org.", LOOPBACK | {"web1.example.org"}),
    ("::", [], "web1", LOOPBACK | {"web1"}),
    ("", [], "", LOOPBACK),
    ("192.0.2.7", [], "web1", {"192.0.2.7"}),
    ("Stats.Example.org", ["a.example.org:8888", "FE80::1", "[fe80::2]:80", "192.0.2.9"], "web1",
     {"stats.example.org", "a.example.org", "fe80::1", "fe80::2", "192.0.2.9"}),
])
def test_the_hosts_are_what_it_is_bound_to_and_what_was_allowed(bound, allowed, hostname, hosts):
    assert hosts_for(bound, allowed, hostname) == hosts


@pytest.mark.parametrize("text", ["", "*", "a b", "http://a", "a/", "\u20ac", ":80", "[::1", "."])
def test_an_allowed_host_that_is_none_is_a_usage_error(text):
    with pytest.raises(UsageError):
        hosts_for("127.0.0.1", [text], "web1")


@pytest.mark.parametrize("host, status", [
    ("localhost", None), ("LOCALHOST:1234", None), ("localhost.", None), ("127.0.0.1:80", None), ("[::1]:8888", None),
    ("[::1]", None), ("evil.example", 421), ("localhost.evil.example", 421), ("evil.example:8888", 421), ("", 421),
    ("127.0.0.2", 421), ("[::2]", 421), ("localhost..", 421), (None, None),
])
def test_a_host_that_is_not_ours_is_misdirected(host, status):
    line = "GET / HTTP/1.0" if host is None else "GET / HTTP/1.1"
    assert verdict(Guard(LOOPBACK), a_request(line, host=host)) == status
    assert verdict(Guard(LOOPBACK, unix=True), a_request(line, host=host)) is None


def test_hosts_may_be_given_in_brackets_and_capitals():
    assert verdict(Guard({"[FE80::1]"}), a_request(host="[fe80::1]:80")) is None


def test_the_authority_of_the_target_is_what_counts():
    assert verdict(Guard(LOOPBACK), a_request("GET http://evil.example/ HTTP/1.1")) == 421
    assert verdict(Guard(LOOPBACK), a_request("GET http://localhost:9/ HTTP/1.1", host="evil.example")) is None
    assert verdict(Guard(LOOPBACK), a_request("GET http://evil.example/ HTTP/1.0", host=None)) == 421


@pytest.mark.parametrize("host, name", [("Web1:80", "'web1'"), ("", "''")])
def test_the_refusal_names_the_host_and_the_option(host, name):
    with pytest.raises(BadRequest) as caught:
        Guard(LOOPBACK).check(a_request(host=host))
    assert str(caught.value) == f"this is not {name}: ask by a name this was bound to, or start it with --allow-host NAME"


# --- Origin -----------------------------------------------------------------------

@pytest.mark.parametrize("host, header, status", [
    ("localhost:8888", "X: no origin", None),
    ("localhost:8888", "Origin: http://localhost:8888", None),
    ("localhost:8888", "Origin: HTTP://LocalHost:8888", None),
    ("localhost", "Origin: http://localhost", None),
    ("localhost:80", "Origin: http://localhost", None),
    ("localhost", "Origin: http://localhost:80", None),
    ("localhost", "Origin: https://localhost", None),
    ("localhost:443", "Origin: https://localhost", None),
    ("[::1]:8888", "Origin: http://[::1]:8888", None),
    ("localhost:8888", "Origin: http://localhost:8889", 403),
    ("localhost:8888", "Origin: http://localhost", 403),
    ("localhost:443", "Origin: http://localhost", 403),
    ("localhost:8888", "Origin: http://127.0.0.1:8888", 403),
    ("localhost:8888", "Origin: http://evil.example:8888", 403),
    ("localhost:8888", "Origin: http://localhost:8888/", 403),
    ("localhost:8888", "Origin: http://localhost:8888 http://evil.example", 403),
    ("localhost:8888", "Origin: http://", 403),
    ("localhost:8888", "Origin:", 403),
    ("localhost:8888", "Origin: null", 403),
    ("localhost:8888", "Origin: localhost:8888", 403),
    ("localhost:8888", "Origin: file://localhost:8888", 403),
    ("localhost:8888", "Sec-Fetch-Site: cross-site", 403),
    ("localhost:8888", "Sec-Fetch-Site: same-origin", None),
    ("localhost:8888", "Sec-Fetch-Site: none", None),
])
def test_a_post_passes_only_from_our_own_page_or_from_no_page(host, header, status):
    for unix in (False, True):
        guard = Guard(LOOPBACK, unix=unix)
        assert verdict(guard, a_post(header, host=host)) == status
        assert verdict(guard, a_request("DELETE / HTTP/1.1", header, host=host)) == status
        assert verdict(guard, a_request("GET / HTTP/1.1", header, host=host)) is None
        assert verdict(guard, a_request("HEAD / HTTP/1.1", header, host=host)) is None
        websocket = a_request("GET /ws HTTP/1.1", header, "Upgrade: WebSocket", "Connection: Upgrade", host=host)
        assert verdict(guard, websocket) == status


@pytest.mark.parametrize("forwarded, status", [
    ("ops.example.org", None), ("OPS.example.org:80", None), ("inner, ops.example.org", None), (" ops.example.org ,x", None),
    ("x," * 20 + "ops.example.org", 403), ("ops.example.org:8080", 403), ("evil.example", 403), ("", 403), ("[", 403), ("a b", 403)])
def test_a_proxy_may_name_the_host_that_it_was_asked_for(forwarded, status):
    """mod_proxy's X-Forwarded-Host; no page of another site can have a browser send it."""
    headers = "Origin: http://ops.example.org", "X-Forwarded-Host: " + forwarded
    assert verdict(Guard(LOOPBACK), a_post(*headers)) == status
    assert verdict(Guard(LOOPBACK), a_request("GET /ws HTTP/1.1", *headers, "Upgrade: websocket")) == status
    assert verdict(Guard(LOOPBACK), a_post(*headers, "Sec-Fetch-Site: cross-site")) == 403
    assert verdict(Guard(LOOPBACK), a_post(*headers, host="ops.example.org")) == 421       # Host is judged by itself


def test_an_origin_without_a_host_to_compare_with_is_foreign():
    assert verdict(Guard(LOOPBACK), a_request("POST / HTTP/1.0", "Origin: http://localhost", host=None)) == 403
    assert verdict(Guard(LOOPBACK, unix=True), a_post("Origin: http://", host="")) == 403


# --- token --------------------------------------------------------------------------

@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "\udcff"])
def test_a_token_that_is_not_one_word_is_a_usage_error(token):
    with pytest.raises(UsageError):
        Guard(LOOPBACK, token=token)


@pytest.mark.parametrize("header, status, wrong", [
    ("X: nothing", 401, 0),
    ("Authorization: Bearer " + TOKEN, None, 0),
    ("Authorization: bEARER   " + TOKEN, None, 0),
    ("Authorization: Bearer", 401, 1),
    ("Authorization: Bearer " + TOKEN + "x", 401, 1),
    ("Authorization: Bearer " + TOKEN[:-1], 401, 1),
    ("Authorization: Bearer " + SESSION, 401, 1),
    ("Authorization: " + TOKEN, 401, 0),
    ("Authorization: Basic " + TOKEN, 401, 0),
    (f"Cookie: {COOKIE}={SESSION}", None, 0),
    (f"Cookie: a=b; {COOKIE}=old;{COOKIE}={SESSION} ; c", None, 0),
    (f"Cookie: a=b\r\nCookie: {COOKIE}={SESSION}", None, 0),
    (f"Cookie: {COOKIE}={TOKEN}", 401, 0),
    (f"Cookie: {COOKIE}={SESSION[:-1]}", 401, 0),
    (f"Cookie: {COOKIE}=", 401, 0),
    (f"Cookie: x{COOKIE}={SESSION}", 401, 0),
])
def test_everything_needs_the_token_or_the_cookie(header, status, wrong):
    for unix in (False, True):
        guard = Guard(LOOPBACK, token=TOKEN, unix=unix)
        for path in ("/", "/api/state", "/login/x", "/x/login", "/loginx"):
            guard.wrong_tokens = 0
            assert verdict(guard, a_request(f"GET {path} HTTP/1.1", header)) == status
            assert guard.wrong_tokens == wrong
    assert verdict(Guard(LOOPBACK), a_request("GET / HTTP/1.1", header)) is None


def test_a_wrong_bearer_beside_a_right_cookie_passes_and_is_counted():
    guard = Guard(LOOPBACK, token=TOKEN)
    assert verdict(guard, a_request("GET / HTTP/1.1", "Authorization: Bearer x", f"Cookie: {COOKIE}={SESSION}")) is None
    assert guard.wrong_tokens == 1


def test_the_login_page_needs_no_token_but_our_host_and_origin():
    guard = Guard(LOOPBACK, token=TOKEN, root_path="/tel")
    assert verdict(guard, a_request("GET /login HTTP/1.1")) is None
    assert verdict(guard, a_request("GET /tel/login HTTP/1.1")) is None
    assert verdict(guard, a_form(b"x")) is None
    assert verdict(guard, a_form(b"x", host="evil.example")) == 421
    assert verdict(guard, a_form(b"x", "Origin: http://evil.example")) == 403


def test_without_a_token_the_answer_says_what_to_do_and_a_browser_gets_the_form():
    guard = Guard(LOOPBACK, token=TOKEN, root_path="/tel/")
    with pytest.raises(BadRequest) as caught:
        guard.check(a_request())
    error = caught.value
    assert (error.status, str(error), error.close, error.headers) == (
        401, "give the token: Authorization: Bearer TOKEN, or in a browser at /tel/login", False, (REALM,))
    plain = guard.refusal(a_request(), error)
    assert (plain.status, plain.content_type, plain.headers) == (401, "application/json", (REALM,))
    browser = guard.refusal(a_request("GET / HTTP/1.1", "Accept: text/html,*/*"), error)
    assert (browser.status, browser.content_type, browser.headers) == (401, "text/html; charset=utf-8", (POLICY, REALM))
    assert b'<form method="post" action="/tel/login">\n<p>This collector asks for its token.</p>' in browser.body
    posted = guard.refusal(a_request("POST / HTTP/1.1", "Accept: text/html"), error)
    foreign = guard.refusal(a_request("GET / HTTP/1.1", "Accept: text/html"), BadRequest(421, "x"))
    assert (posted.content_type, foreign.content_type) == ("application/json", "application/json")


def test_the_form_is_plain_html_with_the_one_script_that_its_policy_names():
    for line in ("GET /login HTTP/1.1", "HEAD /login HTTP/1.1"):
        response = Guard(LOOPBACK, token=TOKEN).login(a_request(line))
        assert (response.status, response.content_type, response.headers) == (200, "text/html; charset=utf-8", (POLICY,))
        assert response.body == (
            b'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
            b'<title>modwsgi-tel</title>\n<h1>modwsgi-tel</h1>\n<form method="post" action="/login">\n'
            b'<p>This collector asks for its token.</p>\n'
            b'<p><label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>\n'
            b'<button>Show</button></p>\n</form>\n<script>document.forms[0].action += location.hash</script>\n</html>\n')
        script = base64.b64encode(hashlib.sha256(b"document.forms[0].action += location.hash").digest()).decode()
        assert f"; script-src 'sha256-{script}'; " in POLICY[1]


@pytest.mark.parametrize("root_path, header, path", [
    ("", "X: y", ""), ("/tel", "X: y", "/tel"), ("", "X-Forwarded-Prefix: /a/b", "/a/b")])
def test_the_right_token_gives_a_cookie_that_passes_and_leads_home(root_path, header, path):
    guard = Guard(LOOPBACK, token=TOKEN, root_path=root_path)
    response = guard.login(a_form(b"+se%2Bcr%C3%A9t%0A", header))
    assert (response.status, response.body, response.headers) == (303, b"", (
        ("Location", path + "/"),
        ("Set-Cookie", f"modwsgi_tel={SESSION}; Max-Age={COOKIE_AGE_S}; Path={path or '/'}; HttpOnly; SameSite=Strict")))
    assert TOKEN not in SESSION and COOKIE_AGE_S <= 30 * 86400
    assert verdict(guard, a_request("GET / HTTP/1.1", "Cookie: " + response.headers[1][1].split(";")[0])) is None
    assert b"Location: " in b"".join(pieces(a_request(), response))
    assert guard.wrong_tokens == 0


@pytest.mark.parametrize("body", [b"token=wrong", b"token=", b"other=x", b"token=" + SESSION.encode(), b"token=%ff"])
def test_a_wrong_token_gives_the_form_again_and_is_counted(body):
    guard = Guard(LOOPBACK, token=TOKEN)
    response = guard.login(a_request("POST /login HTTP/1.1", body=body))
    assert (response.status, response.headers, guard.wrong_tokens) == (401, (POLICY, REALM), 1)
    assert b"<p>That is not the token.</p>" in response.body


@pytest.mark.parametrize("request_, status", [
    (a_request("PUT /login HTTP/1.1"), 405),
    (a_form(b"%"), 400),
    (a_form(b"x" * FORM_BYTES), 413),
])
def test_a_form_that_cannot_be_read_is_a_bad_request_and_no_wrong_token(request_, status):
    guard = Guard(LOOPBACK, token=TOKEN)
    with pytest.raises(BadRequest) as caught:
        guard.login(request_)
    assert (caught.value.status, caught.value.close, guard.wrong_tokens) == (status, status == 400, 0)


def test_without_a_token_to_ask_for_the_login_page_leads_home():
    for request in (a_request("GET /login HTTP/1.1"), a_form(b"x")):
        response = Guard(LOOPBACK, root_path="/tel").login(request)
        assert (response.status, response.headers) == (303, (("Location", "/tel/"),))


# --- root path ----------------------------------------------------------------------

@pytest.mark.parametrize("given, prefix", [
    ("/a", "/a"), ("/A-b_c.d~e/9", "/A-b_c.d~e/9"), ("/" + "a" * 127, "/" + "a" * 127), ("", ""),
    ("/" + "a" * 128, ""), ("a", ""), ("/", ""), ("/a/", ""), ("//evil.example", ""), ("/a//b", ""), ("/..", ""), ("/a/./b", ""),
    ("/...", "/..."), ("/a b", ""), ("/a%2f", ""), ("/\"><script>", ""), ("/\u00e4", ""), ("http://evil.example", ""),
    ("/a\r\nX-Forwarded-Prefix: /b", ""), ("/\u0660", ""),
])
def test_a_forwarded_prefix_is_taken_only_if_it_is_a_plain_path(given, prefix):
    request = a_request("GET / HTTP/1.1", "X-Forwarded-Prefix: " + given)
    assert Guard(LOOPBACK).prefix(request) == prefix
    assert Guard(LOOPBACK, root_path="/tel").prefix(request) == "/tel"


@pytest.mark.parametrize("root_path", ["tel", "/a b", "/..", "//x", "/<b>", "/" + "a" * 128])
def test_a_root_path_that_cannot_be_in_a_link_is_a_usage_error(root_path):
    with pytest.raises(UsageError):
        Guard(LOOPBACK, root_path=root_path)


@pytest.mark.parametrize("root_path, path, stripped", [
    ("", "/api/state", "/api/state"), ("/tel", "/tel/api/state", "/api/state"), ("/tel", "/api/state", "/api/state"),
    ("/tel", "/tel", "/"), ("/tel/", "/tel/", "/"), ("/tel", "/telx", "/telx"), ("/tel", "/tel/tel/x", "/tel/x"), ("/", "/x", "/x"),
])
def test_a_path_is_served_with_and_without_the_root_path(root_path, path, stripped):
    assert Guard(LOOPBACK, root_path=root_path).strip(path) == stripped
