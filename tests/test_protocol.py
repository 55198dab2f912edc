"""HTTP as bytes: every case whole, byte by byte, and with another request behind it."""
import json
import os
import subprocess
import sys
import zlib

import pytest

from modwsgi_tel.errors import BadRequest
from modwsgi_tel.web.protocol import (CHUNK_LINE, CHUNKS, EMPTY_LINES, GZIP_FROM, ONE_PIECE, PARAMETERS, REASONS, Limits,
                                      Parser, Request, Response, error_response, json_response, keeps, parse_query,
                                      pieces, split_authority)

BEHIND = b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n"
HOST = b"Host: localhost\r\n"


def a_request(**changes):
    """The Request of `GET / HTTP/1.1` with `Host: localhost`, with changes."""
    values = dict(method="GET", target="/", path="/", query={}, headers={"host": "localhost"}, version=(1, 1), body=b"",
                  keep_alive=True, accepts_gzip=False, authority="localhost")
    values.update(changes)
    return Request(**values)


THE_ONE_BEHIND = a_request(target="/behind", path="/behind", headers={"host": "behind"}, authority="behind")


def head(line=b"GET / HTTP/1.1", *headers):
    return b"".join(part + b"\r\n" for part in (line, b"Host: localhost", *headers, b""))


def collect(parser, *parts):
    """Events of feeding parts: Requests, then (status, detail) if that is how it ends."""
    events = []
    for data in parts:
        try:
            events += parser.feed(data)
            while parser.waiting:
                events += parser.resume()
        except BadRequest:
            break
    if parser.error is not None:
        assert parser.idle and parser.ended and not parser.waiting
        events.append((parser.error.status, str(parser.error)))
    return events


def bytewise(data):
    return [data[at:at + 1] for at in range(len(data))]


def events(data, limits=Limits()):
    """What the bytes give: the same whole, byte by byte, and with another request behind them."""
    parser = Parser(limits)
    whole = collect(parser, data)
    slow = Parser(limits)
    assert collect(slow, *bytewise(data)) == whole
    assert (slow.ended, slow.idle, slow.held, slow.interim) == (parser.ended, parser.idle, parser.held, parser.interim)
    if parser.ended or parser.idle:
        more = [] if parser.ended else [THE_ONE_BEHIND]
        assert collect(Parser(limits), data + BEHIND) == whole + more
        assert collect(Parser(limits), *bytewise(data + BEHIND)) == whole + more
    return whole


def body_of(pieces_):
    return b"".join(pieces_).partition(b"\r\n\r\n")[2]


def unchunked(raw):
    """The chunks of a chunked body that is whole, read by the letter of RFC 9112 7.1."""
    chunks = []
    while True:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        assert raw[length:length + 2] == b"\r\n"
        if not length:
            assert raw == b"\r\n"
            return chunks
        chunks.append(raw[:length])
        raw = raw[length + 2:]


# --- what is a request ----------------------------------------------------------

def test_a_plain_get_is_one_request():
    assert events(head()) == [a_request()]


def test_all_parts_of_a_request_are_read():
    data = head(b"POST /api/x%20y?group=a%26b&pid=7&pid=8&flag&=x&&plus=1+2 HTTP/1.1", b"X-One:  a b \t", b"x-oNE:2",
                b"Content-Length: 5", b"Accept-Encoding: br, gzip") + b"hello"
    assert events(data) == [a_request(
        method="POST", target="/api/x%20y?group=a%26b&pid=7&pid=8&flag&=x&&plus=1+2", path="/api/x y",
        query={"group": "a&b", "pid": "8", "flag": "", "": "x", "plus": "1 2"},
        headers={"host": "localhost", "x-one": "a b, 2", "content-length": "5", "accept-encoding": "br, gzip"},
        body=b"hello", accepts_gzip=True)]


def test_a_request_without_headers_is_taken_in_http_1_0_and_closes():
    assert events(b"GET / HTTP/1.0\r\n\r\n") == [
        a_request(version=(1, 0), headers={}, authority=None, keep_alive=False)]


@pytest.mark.parametrize("line, header, kept", [
    (b"GET / HTTP/1.1", b"Connection: close", False),
    (b"GET / HTTP/1.1", b"Connection: x , CLOSE", False),
    (b"GET / HTTP/1.1", b"Connection: closed", True),
    (b"GET / HTTP/1.1", b"Connection: keep-alive", True),
    (b"GET / HTTP/1.0", b"Connection: Keep-Alive", True),
    (b"GET / HTTP/1.0", b"Connection: keep-alive, close", False),
    (b"GET / HTTP/1.0", b"X: keep-alive", False),
    (b"GET / HTTP/1.9", b"X: y", True),
])
def test_the_connection_is_kept_when_version_and_header_say_so(line, header, kept):
    assert [request.keep_alive for request in events(head(line, header))] == [kept]


def test_a_higher_minor_version_is_read_as_1_1():
    assert [request.version for request in events(head(b"GET / HTTP/1.7"))] == [(1, 1)]


def test_nothing_is_read_behind_a_request_that_closes():
    parser = Parser()
    assert collect(parser, head(b"GET / HTTP/1.1", b"Connection: close") + b"\0garbage", b"more") == [
        a_request(keep_alive=False, headers={"host": "localhost", "connection": "close"})]
    assert (parser.ended, parser.error, parser.held) == (True, None, 0)


@pytest.mark.parametrize("header, accepted", [
    (b"gzip", True), (b"GZIP", True), (b"x-gzip", True), (b"deflate", False), (b"", False), (b"*", True),
    (b"gzip;q=0", False), (b"gzip; q=0.0", False), (b"gzip;q=0.001", True), (b"gzip;q=1.000", True), (b"gzip ;q=1", True),
    (b"*;q=0", False), (b"*;q=0, gzip", True), (b"gzip;q=0, *", False), (b"gzip;q=x", False), (b"gzip;q=", False),
    (b"gzip;q=-1", False), (b"gzip;q=0x1", False), (b"gzip;level=1", False), (b"gzip;q=2", False),
    (b"br;q=1.0, gzip;q=0.8", True),
    (b"a," * 600 + b"gzip", False),
])
def test_gzip_is_accepted_when_it_is_named_with_a_weight_above_0(header, accepted):
    assert [r.accepts_gzip for r in events(head(b"GET / HTTP/1.1", b"Accept-Encoding: " + header))] == [accepted]


@pytest.mark.parametrize("target, path, query, authority", [
    (b"http://example.org/a?b=c", "/a", {"b": "c"}, "example.org"),
    (b"HTTP://Example.org:81?b=/", "/", {"b": "/"}, "Example.org:81"),
    (b"https://[::1]:8888", "/", {}, "[::1]:8888"),
    (b"/http://x/", "/http://x/", {}, "localhost"),
    (b"/a/../%2e%2e/%252e?x=%2e", "/a/../../%2e", {"x": "."}, "localhost"),
    (b"//etc/passwd", "//etc/passwd", {}, "localhost"),
    (b"/..\\%5c", "/..\\\\", {}, "localhost"),
    (b"/!\"$&'()*+,-.09:;<=>@AZ[]^_`az{|}~", "/!\"$&'()*+,-.09:;<=>@AZ[]^_`az{|}~", {}, "localhost"),
    (b"/%C3%A4%ff?%c3%a4=%0a", "/\u00e4\ufffd", {"\u00e4": "\n"}, "localhost"),
    (b"/?" + b"a&" * (PARAMETERS - 1) + b"b", "/", {"a": "", "b": ""}, "localhost"),
])
def test_a_target_is_split_and_decoded_once_and_its_own_authority_goes_before_host(target, path, query, authority):
    assert events(head(b"GET " + target + b" HTTP/1.1")) == [
        a_request(target=target.decode(), path=path, query=query, authority=authority)]


def test_a_value_may_have_tabs_and_any_byte_above_ascii():
    high = bytes(range(0x80, 0x100))
    [request] = events(head(b"GET / HTTP/1.1", b"X:\ta \t!~" + high))
    assert request.headers["x"] == "a \t!~" + high.decode("latin-1")


def test_pipelined_requests_come_in_order():
    assert events(head(b"GET /1 HTTP/1.1") + head(b"PUT /2 HTTP/1.1", b"Content-Length: 2") + b"ab" + head()) == [
        a_request(target="/1", path="/1"),
        a_request(method="PUT", target="/2", path="/2", body=b"ab", headers={"host": "localhost", "content-length": "2"}),
        a_request()]


def test_empty_lines_before_a_request_are_skipped_up_to_a_bound():
    assert events(b"\r\n" * EMPTY_LINES + head() + b"\r\n" + head()) == [a_request(), a_request()]
    assert events(b"\r\n" * (EMPTY_LINES + 1)) == [(400, "empty lines instead of a request")]


def test_equal_content_lengths_are_one():
    [request] = events(head(b"GET / HTTP/1.1", b"Content-Length: 003", b"Content-Length: 003") + b"abc")
    assert (request.body, request.headers["content-length"]) == (b"abc", "003")


# --- chunked bodies ---------------------------------------------------------------

CHUNKED = head(b"POST / HTTP/1.1", b"Transfer-Encoding: Chunked")


@pytest.mark.parametrize("raw, body", [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n00\r\n\r\n", b"hello"),
    (b"A;x=y\r\n0123456789\r\n1 ; \"q\"\r\n!\r\n0;end\r\nX-Sum: 1\r\nY: 2\r\n\r\n", b"0123456789!"),
    (b"1f\r\n" + b"b" * 31 + b"\r\n0\r\n\r\n", b"b" * 31),
    (b"0000000000000002\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b"1\r\na\r\n" * (CHUNKS - 1) + b"0\r\n\r\n", b"a" * (CHUNKS - 1)),
])
def test_a_chunked_body_is_joined_and_its_trailers_dropped(raw, body):
    assert events(CHUNKED + raw) == [
        a_request(method="POST", body=body, headers={"host": "localhost", "transfer-encoding": "Chunked"})]


NO_SIZE = "the size of a chunk is not a hexadecimal number"


@pytest.mark.parametrize("raw, status, detail", [
    (b"\r\n", 400, NO_SIZE),
    (b"0x5\r\n", 400, NO_SIZE),
    (b"+5\r\n", 400, NO_SIZE),
    (b"5 \r\n", 400, NO_SIZE),
    (b"-1\r\n", 400, NO_SIZE),
    (b"1_0\r\n", 400, NO_SIZE),
    (b"5;a\0\r\n", 400, NO_SIZE),
    (b"00000000000000005\r\n", 400, NO_SIZE),
    (b"5;" + b"x" * CHUNK_LINE, 400, "the size line of a chunk too long"),
    (b"5\nhello", 400, "the size line of a chunk must end with CR LF, not with a bare LF"),
    (b"5\r\nhelloX", 400, "a chunk is longer than its size says"),
    (b"5\r\nhello\rX", 400, "a chunk is longer than its size says"),
    (b"5\r\nhello\n0\r\n\r\n", 400, "a chunk is longer than its size says"),
    (b"ffffffffffffffff\r\n", 413, f"a body of more than 65536 bytes or {CHUNKS} chunks"),
    (b"1\r\na\r\n" * CHUNKS + b"0\r\n", 413, f"a body of more than 65536 bytes or {CHUNKS} chunks"),
    (b"0\r\nX : y\r\n", 400, "a header line is: Name: value, without a space before the colon"),
    (b"0\r\nX: \x01\r\n", 400, "a control character in the value of a header"),
    (b"0\r\n" + b"X: y\r\n" * 99, 431, "more than 100 headers"),
    (b"0\r\nX: " + b"y" * 16384, 431, "the trailer too long"),
])
def test_a_wrong_chunk_is_refused(raw, status, detail):
    assert events(CHUNKED + raw) == [(status, detail)]


# --- what is refused ----------------------------------------------------------------

LINE = "a request line is: METHOD /path HTTP/1.1"
VERSION = "the request line does not end with HTTP/1.1"
NOT_HTTP = "this is not HTTP (TLS is not spoken here)"
CHARACTER = "the target has a character that must be percent-encoded"
TARGET = "the target is neither a path nor an http URL"
PERCENT = "a % that is not followed by two hexadecimal digits"
NAME = "a header line is: Name: value, without a space before the colon"
VALUE = "a control character in the value of a header"
BAD_HOST = "Host is not a host name or address with an optional port"
FOLDED = "a header continued on a second line (obsolete folding)"


@pytest.mark.parametrize("line, status, detail", [
    (b"GET /", 400, LINE),
    (b"GET", 400, LINE),
    (b"GET  / HTTP/1.1", 400, LINE),
    (b"GET / HTTP/1.1 ", 400, LINE),
    (b"GET\t/\tHTTP/1.1", 400, LINE),
    (b"GET /a b HTTP/1.1", 400, LINE),
    (b" GET / HTTP/1.1", 400, NOT_HTTP),
    (b"\x16\x03\x01\x02\x00", 400, NOT_HTTP),
    (b"\0", 400, NOT_HTTP),
    (b"\rGET / HTTP/1.1", 400, "the method is not a word"),
    (b"\nGET / HTTP/1.1", 400, "the request line must end with CR LF, not with a bare LF"),
    (b"GET / HTTP/1.1\n", 400, "the request line must end with CR LF, not with a bare LF"),
    (b"G(T / HTTP/1.1", 400, "the method is not a word"),
    (b"G\xc3\xa4T / HTTP/1.1", 400, "the method is not a word"),
    (b"GET / HTTP/2.0", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
    (b"PRI * HTTP/2.0", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
    (b"GET / HTTP/0.9", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
    (b"GET / http/1.1", 400, VERSION),
    (b"GET / HTTP/1.10", 400, VERSION),
    (b"GET / HTTP/1,1", 400, VERSION),
    (b"GET / HTTP/1.", 400, VERSION),
    (b"GET / HTTP/x.1", 400, VERSION),
    (b"GET / HTTP/1.\xb2", 400, VERSION),
    (b"GET /\xff HTTP/1.1", 400, CHARACTER),
    (b"GET /\x7f HTTP/1.1", 400, CHARACTER),
    (b"GET /a#b HTTP/1.1", 400, CHARACTER),
    (b"GET /a\rb HTTP/1.1", 400, CHARACTER),
    (b"OPTIONS * HTTP/1.1", 400, TARGET),
    (b"CONNECT localhost:80 HTTP/1.1", 400, TARGET),
    (b"GET ftp://localhost/ HTTP/1.1", 400, TARGET),
    (b"GET http HTTP/1.1", 400, TARGET),
    (b"GET api/state HTTP/1.1", 400, TARGET),
    (b"GET http:///x HTTP/1.1", 400, "a URL without a host"),
    (b"GET http://:80/x HTTP/1.1", 400, "a URL without a host"),
    (b"GET http://user@localhost/ HTTP/1.1", 400, BAD_HOST),
    (b"GET /% HTTP/1.1", 400, PERCENT),
    (b"GET /%4 HTTP/1.1", 400, PERCENT),
    (b"GET /%+1 HTTP/1.1", 400, PERCENT),
    (b"GET /?a=%zz HTTP/1.1", 400, PERCENT),
    (b"GET /%00 HTTP/1.1", 400, "a character in the path that cannot be shown"),
    (b"GET /?" + b"a&" * PARAMETERS + b"b HTTP/1.1", 400, f"more than {PARAMETERS} parameters"),
])
def test_a_wrong_request_line_is_refused(line, status, detail):
    assert events(line + b"\r\n") == [(status, detail)]


@pytest.mark.parametrize("lines, status, detail", [
    (b"\r\n", 400, "HTTP/1.1 without a Host header"),
    (HOST + b"X : y\r\n", 400, NAME),
    (HOST + b"X\t: y\r\n", 400, NAME),
    (HOST + b": y\r\n", 400, NAME),
    (HOST + b"X y\r\n", 400, NAME),
    (HOST + b"Xy\r\n", 400, NAME),
    (HOST + b"X\xe4: y\r\n", 400, NAME),
    (HOST + b"X\0: y\r\n", 400, NAME),
    (HOST + b"X: a\r\n b\r\n", 400, FOLDED),
    (HOST + b"X: a\r\n\tb: c\r\n", 400, FOLDED),
    (b" X: y\r\n", 400, FOLDED),
    (HOST + b"X: a\0b\r\n", 400, VALUE),
    (HOST + b"X: a\x1bb\r\n", 400, VALUE),
    (HOST + b"X: a\x7f\r\n", 400, VALUE),
    (HOST + b"X: a\rY: b\r\n", 400, VALUE),
    (HOST + b"X: a\n\r\n", 400, "the header block must end with CR LF, not with a bare LF"),
    (HOST + b"\n", 400, "the header block must end with CR LF, not with a bare LF"),
    (HOST + HOST, 400, "more than one Host"),
    (HOST + b"host: evil\r\n", 400, "more than one Host"),
    (b"Host: a b\r\n\r\n", 400, BAD_HOST),
    (b"Host: a/b\r\n\r\n", 400, BAD_HOST),
    (b"Host: a@b\r\n\r\n", 400, BAD_HOST),
    (b"Host: a, b\r\n\r\n", 400, BAD_HOST),
    (b"Host: a:b\r\n\r\n", 400, BAD_HOST),
    (b"Host: a:1:2\r\n\r\n", 400, BAD_HOST),
    (b"Host: [::1\r\n\r\n", 400, BAD_HOST),
    (b"Host: [::1]8\r\n\r\n", 400, BAD_HOST),
    (b"Host: [x]\r\n\r\n", 400, BAD_HOST),
    (b"Host: []\r\n\r\n", 400, BAD_HOST),
    (b"Host: \xe4\r\n\r\n", 400, BAD_HOST),
    (HOST + b"Authorization: a\r\nauthorization: b\r\n", 400, "authorization is given twice, with different values"),
    (HOST + b"Origin: a\r\nOrigin: b\r\n", 400, "origin is given twice, with different values"),
    (HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "content-length is given twice, with different values"),
    (HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Content-Length together with Transfer-Encoding"),
    (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "the only Transfer-Encoding taken is chunked"),
    (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501,
     "the only Transfer-Encoding taken is chunked"),
    (HOST + b"Expect: 200-ok\r\n\r\n", 417, "the only expectation met is 100-continue"),
    (HOST + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n", 413, "a body of more than 65536 bytes"),
    (HOST + b"Content-Length: 1000000000000\r\n\r\n", 413, "a body of more than 65536 bytes"),
    (HOST + b"Content-Length: " + b"9" * 9000 + b"\r\n\r\n", 413, "a body of more than 65536 bytes"),
    (HOST + b"Content-Length: 1" + b"0" * 16 + b"\r\n\r\n", 413, "a body of more than 65536 bytes"),
])
def test_a_wrong_header_is_refused(lines, status, detail):
    assert events(b"POST / HTTP/1.1\r\n" + lines) == [(status, detail)]


@pytest.mark.parametrize("value", [b"", b"+5", b"-5", b"5, 5", b"5 5", b"0x5", b"5.0", b"1_0", b"\xb2", b"five"])
def test_a_content_length_that_is_not_just_digits_is_refused(value):
    assert events(head(b"POST / HTTP/1.1", b"Content-Length: " + value)) == [(400, "Content-Length is not a number")]


def test_a_line_of_a_bare_lf_is_refused_whatever_the_last_byte_is():
    assert events(b"\nGET / HTTP/1.1\r") == [(400, "the request line must end with CR LF, not with a bare LF")]


def test_transfer_encoding_in_http_1_0_is_refused():
    assert events(head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked")) == [(400, "Transfer-Encoding in HTTP/1.0")]


def test_a_wrong_host_is_refused_even_where_the_target_has_its_own():
    assert events(b"GET http://localhost/ HTTP/1.1\r\nHost: a b\r\n\r\n") == [(400, BAD_HOST)]


def test_requests_before_a_wrong_one_are_returned_first_and_the_error_is_then_raised_by_every_call():
    parser = Parser()
    assert parser.feed(head() + head() + b"G(T / HTTP/1.1\r\n") == [a_request(), a_request()]
    assert (parser.error.status, str(parser.error), parser.error.close) == (400, "the method is not a word", True)
    for call in (parser.resume, lambda: parser.feed(head()), lambda: parser.feed(b"")):
        with pytest.raises(BadRequest) as caught:
            call()
        assert (caught.value.status, str(caught.value)) == (400, "the method is not a word")
    assert (parser.held, parser.ended) == (0, True)


def test_an_error_kept_by_the_parser_holds_no_traceback_of_what_was_received():
    parser = Parser()
    for _ in range(3):
        with pytest.raises(BadRequest):
            parser.feed(b"\0" * 1000)
    assert parser.error.__traceback__ is None


# --- limits ---------------------------------------------------------------------------

def test_the_limits_are_those_that_the_help_tells():
    assert Limits()._asdict() == {"line": 8192, "head": 16384, "headers": 100, "body": 65536, "pipelined": 32}


SMALL = Limits(line=30, head=60, headers=3, body=10, pipelined=2)


@pytest.mark.parametrize("fits, too_much, status, detail", [
    (b"GET /" + b"a" * 16 + b" HTTP/1.1\r\n", b"GET /" + b"a" * 17 + b" HTTP/1.1\r\n", 414, "the request line too long"),
    (b"GET /" + b"a" * 25, b"GET /" + b"a" * 27, 414, "the request line too long"),
    (head(b"GET / HTTP/1.1", b"X: " + b"a" * 36), head(b"GET / HTTP/1.1", b"X: " + b"a" * 37), 431, "the header block too long"),
    (head(b"GET / HTTP/1.1", b"X: " + b"a" * 36)[:-4], head(b"GET / HTTP/1.1", b"X: " + b"a" * 40)[:-4], 431,
     "the header block too long"),
    (head(b"GET / HTTP/1.1", b"X:", b"Y:"), head(b"GET / HTTP/1.1", b"X:", b"Y:", b"Z:"), 431, "more than 3 headers"),
    (head(b"GET / HTTP/1.1", b"Content-Length: 10"), head(b"GET / HTTP/1.1", b"Content-Length: 11"), 413,
     "a body of more than 10 bytes"),
    (CHUNKED + b"5\r\nhello\r\n5\r\n", CHUNKED + b"5\r\nhello\r\n6\r\n", 413, f"a body of more than 10 bytes or {CHUNKS} chunks"),
])
def test_each_limit_is_met_exactly(fits, too_much, status, detail):
    assert all(isinstance(event, Request) for event in events(fits, SMALL))
    assert events(too_much, SMALL) == [(status, detail)]


def test_trailers_share_the_limit_of_the_headers():
    limits = SMALL._replace(head=100, headers=4)
    room = 100 - (len(CHUNKED) - len(b"POST / HTTP/1.1\r\n"))
    fits = b"0\r\nX:\r\nX: " + b"y" * (room - len("X:\r\nX: \r\n\r\n")) + b"\r\n\r\n"
    assert [request.body for request in events(CHUNKED + fits, limits)] == [b""]
    assert events(CHUNKED + fits.replace(b"yy", b"yyy", 1), limits) == [(431, "the trailer too long")]


def test_at_most_as_many_requests_are_parsed_ahead_as_allowed_and_the_rest_waits():
    parser = Parser(SMALL)
    assert parser.feed(head() * 5) == [a_request()] * 2
    assert (parser.waiting, parser.held) == (True, 3 * len(head()))
    assert parser.resume() == [a_request()] * 2
    assert parser.waiting
    assert parser.resume() == [a_request()]
    assert (parser.waiting, parser.held, parser.resume()) == (False, 0, [])


def test_an_end_or_an_error_behind_requests_that_wait_comes_after_them():
    parser = Parser(SMALL)
    assert parser.feed(head() * 2 + b"\0") == [a_request()] * 2
    assert (parser.waiting, parser.error) == (True, None)
    assert collect(parser, b"") == [(400, NOT_HTTP)]
    parser = Parser(SMALL)
    assert (parser.feed(head() * 2), parser.waiting) == ([a_request()] * 2, False)
    assert (parser.feed(b""), parser.ended) == ([], True)
    parser = Parser(SMALL)
    assert parser.feed(head() * 4) == [a_request()] * 2
    assert (parser.feed(b""), parser.waiting, parser.ended) == ([a_request()] * 2, True, False)
    assert (parser.resume(), parser.waiting, parser.ended) == ([], False, True)


def test_one_who_feeds_on_while_requests_wait_is_told_so_after_what_is_held():
    parser = Parser(SMALL)
    assert parser.feed(head() * 5) == [a_request()] * 2
    assert parser.held > SMALL.line + SMALL.head + SMALL.body
    assert parser.feed(head()) == [a_request()] * 2         # dropped, but what is held goes on
    assert parser.held == len(head())
    assert collect(parser, head()) == [a_request(), (429, "too many requests sent ahead: read the answers first")]
    parser = Parser(SMALL)
    assert parser.feed(head() * 6) == [a_request()] * 2
    assert (parser.feed(head()), parser.resume()) == ([a_request()] * 2, [a_request()] * 2)
    assert (parser.waiting, parser.held) == (True, 0)       # all is parsed, but that some were dropped is not yet told
    assert collect(parser, b"") == [(429, "too many requests sent ahead: read the answers first")]


def test_feeding_on_while_a_little_waits_loses_nothing():
    parser = Parser(SMALL)
    assert parser.feed(head() * 3) == [a_request()] * 2
    assert parser.waiting
    assert collect(parser, BEHIND) == [a_request(), THE_ONE_BEHIND]


def test_what_is_held_is_told_to_the_byte():
    parser = Parser()
    held = []
    for data in bytewise(b"\r\n" + head(b"PUT / HTTP/1.1", b"Content-Length: 3") + b"abc"):
        parser.feed(data)
        held.append((parser.held, parser.idle))
    size = len(head(b"PUT / HTTP/1.1", b"Content-Length: 3")) + 3
    assert held == [(1, False), (0, True)] + [(n, False) for n in range(1, size)] + [(0, True)]


def test_a_chunked_body_is_held_without_its_framing_and_trailers():
    parser = Parser()
    parser.feed(CHUNKED + b"5\r\nhello\r\n3;extension\r\nab")
    assert parser.held == len(CHUNKED) + 7
    parser.feed(b"c\r\n0\r\nX: y\r\n")
    assert (parser.held, parser.idle) == (len(CHUNKED) + 8, False)


# --- the peer closes ------------------------------------------------------------------

@pytest.mark.parametrize("data, wanted", [
    (b"", []),
    (b"\r\n\r\n\r", []),
    (head(), [a_request()]),
    (head() + b"\r\n", [a_request()]),
    (b"G", [(400, "the connection was closed in the middle of a request")]),
    (head() + b"GET / HTTP/1.1\r\n", [a_request(), (400, "the connection was closed in the middle of a request")]),
    (head(b"PUT / HTTP/1.1", b"Content-Length: 2") + b"a", [(400, "the connection was closed in the middle of a request")]),
    (CHUNKED + b"0\r\n", [(400, "the connection was closed in the middle of a request")]),
])
def test_a_peer_that_closes_is_answered_what_was_complete_and_400_for_a_half_request(data, wanted):
    for parts in ([data, b""], bytewise(data) + [b""], [data, b"", b"", head()]):
        parser = Parser()
        assert collect(parser, *parts) == wanted
        assert (parser.ended, parser.held) == (True, 0)


# --- Expect ---------------------------------------------------------------------------

@pytest.mark.parametrize("framing, body", [(b"Content-Length: 2", b"ab"), (b"Transfer-Encoding: chunked", b"2\r\nab\r\n0\r\n\r\n")])
def test_who_waits_for_100_continue_gets_it_until_the_body_is_there(framing, body):
    waits = head(b"PUT / HTTP/1.1", b"Expect: 100-Continue", framing)
    parser = Parser()
    assert (parser.feed(waits[:-1]), parser.interim) == ([], b"")
    assert (parser.feed(waits[-1:]), parser.interim) == ([], b"HTTP/1.1 100 Continue\r\n\r\n")
    [request] = parser.feed(body)
    assert (request.body, parser.interim) == (b"ab", b"")
    assert [r.body for r in events(waits + body)] == [b"ab"]


def test_nothing_is_promised_to_http_1_0_nor_without_a_body_nor_after_an_error():
    parser = Parser()
    assert (len(parser.feed(head(b"GET / HTTP/1.1", b"Expect: 100-continue"))), parser.interim) == (1, b"")
    parser = Parser()
    assert parser.feed(head(b"PUT / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 2")) == []
    assert parser.interim == b""
    assert [r.version for r in events(head(b"GET / HTTP/1.0", b"Expect: something"))] == [(1, 0)]
    parser = Parser()
    parser.feed(head(b"PUT / HTTP/1.1", b"Expect: 100-continue", b"Transfer-Encoding: chunked"))
    with pytest.raises(BadRequest):
        parser.feed(b"x\r\n")
    assert parser.interim == b""


# --- responses ------------------------------------------------------------------------

SAFE = b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n\r\n"
HTTP_1_0 = a_request(version=(1, 0), keep_alive=False)
GZIP = a_request(accepts_gzip=True)


class Items:
    """An iterator of bytes that says whether it was run and closed."""

    def __init__(self, *items):
        self.items = iter(items)
        self.ran = self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        self.ran = True
        item = next(self.items)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        self.closed = True


def test_a_small_answer_is_one_piece_of_head_and_body():
    assert list(pieces(a_request(), Response(200, b"hello\n", headers=(("X-A", "b"),)))) == [
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n"
        b"Connection: keep-alive\r\n" + SAFE + b"hello\n"]


def test_a_large_body_is_not_copied_behind_its_head():
    body = b"x" * (ONE_PIECE + 1)
    assert [len(piece) for piece in pieces(a_request(), Response(200, body))][1:] == [len(body)]
    assert len(list(pieces(a_request(), Response(200, body[1:])))) == 1


def test_json_is_strict_and_ends_with_a_newline():
    assert json_response(200, {"a": [1, "\u00e4\ud800"]}, [("X", "y")]) == Response(
        200, b'{"a": [1, "\\u00e4\\ud800"]}\n', "application/json", (("X", "y"),))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            json_response(200, value)


def test_an_error_is_answered_in_json_with_its_status_and_headers():
    error = BadRequest(405, "not \"this\"\n", headers=(("Allow", "GET"),))
    response = error_response(error)
    assert response == Response(405, response.body, "application/json", (("Allow", "GET"),))
    assert json.loads(response.body) == {"error": "not \"this\"\n", "status": 405}
    assert b"".join(pieces(None, response)).startswith(
        b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: application/json\r\n")


def test_these_are_the_statuses():
    assert list(REASONS) == [100, 101, 200, 202, 204, 302, 303, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 417, 421, 426,
                             429, 431, 500, 501, 503, 505]


@pytest.mark.parametrize("status", sorted(set(REASONS) - {100, 101, 204, 304}))
def test_every_status_has_its_line(status):
    assert b"".join(pieces(a_request(), Response(status))) == (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 0\r\n"
        "Connection: keep-alive\r\n".encode() + SAFE)


@pytest.mark.parametrize("status, phrase", [(204, b"No Content"), (304, b"Not Modified")])
def test_a_status_without_body_has_none_and_no_length(status, phrase):
    items = Items(b"never")
    for body in (b"never", b"n" * 5000, items):
        assert list(pieces(GZIP, Response(status, body))) == [
            b"HTTP/1.1 %d %b\r\nConnection: keep-alive\r\n" % (status, phrase) + SAFE]
    assert (items.ran, items.closed) == (False, True)
    assert keeps(a_request(version=(1, 0)), Response(status, items))


def test_a_stream_is_chunked_one_piece_for_each_item():
    items = Items(b"a" * 65536, b"", b"bc")
    assert list(pieces(a_request(), Response(200, items, "application/json"))) == [
        b"HTTP/1.1 200 OK\r\nVary: Accept-Encoding\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: keep-alive\r\n" + SAFE,
        b"10000\r\n" + b"a" * 65536 + b"\r\n", b"", b"2\r\nbc\r\n", b"0\r\n\r\n"]
    assert items.closed


def test_an_answer_to_what_could_not_be_read_closes_and_is_plain():
    close = b"Connection: close\r\n" + SAFE
    assert b"".join(pieces(None, Response(400, b"x" * 5000))).endswith(b"\r\nContent-Length: 5000\r\n" + close + b"x" * 5000)
    assert b"".join(pieces(None, Response(400, Items(b"a")))).endswith(b"chunked\r\n" + close + b"1\r\na\r\n0\r\n\r\n")


def test_a_stream_to_http_1_0_ends_with_the_connection():
    request = a_request(version=(1, 0), keep_alive=True)
    assert list(pieces(request, Response(200, Items(b"a", b"", b"bc")))) == [
        b"HTTP/1.1 200 OK\r\nVary: Accept-Encoding\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n" + SAFE,
        b"a", b"", b"bc"]
    assert b"Connection: keep-alive\r\n" in b"".join(pieces(request, Response(200, b"a")))


def test_a_stream_is_compressed_when_asked_for_and_no_item_makes_two_pieces():
    text = [json.dumps(list(range(n, n + 9000))).encode() for n in range(5)] + [b""]
    for version in ((1, 1), (1, 0)):
        out = list(pieces(GZIP._replace(version=version), Response(200, iter(text))))
        assert len(out) == len(text) + 2
        assert b"\r\nContent-Encoding: gzip\r\n" in out[0] and b"\r\nVary: Accept-Encoding\r\n" in out[0]
        raw = b"".join(out[1:])
        packed = b"".join(unchunked(raw)) if version == (1, 1) else raw
        assert zlib.decompress(packed, 31) == b"".join(text)
        assert len(packed) < len(b"".join(text)) / 2


def test_a_body_is_compressed_from_a_size_on_and_always_the_same():
    small, large = b"x" * (GZIP_FROM - 1), b"x" * GZIP_FROM
    assert b"gzip" not in b"".join(pieces(GZIP, Response(200, small)))
    assert b"Accept-Encoding" not in b"".join(pieces(GZIP, Response(200, small)))
    plain = b"".join(pieces(a_request(), Response(200, large)))
    assert b"Vary: Accept-Encoding\r\n" in plain and plain.endswith(b"\r\n\r\n" + large)
    packed = b"".join(pieces(GZIP, Response(200, large)))
    assert b"Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n" in packed
    assert zlib.decompress(body_of([packed]), 31) == large
    assert f"Content-Length: {len(body_of([packed]))}\r\n".encode() in packed
    assert b"".join(pieces(GZIP, Response(200, large))) == packed


def test_what_is_compressed_already_is_left_alone():
    response = Response(200, b"x" * 5000, headers=(("Content-Encoding", "gzip"),))
    assert body_of(pieces(GZIP, response)) == b"x" * 5000


@pytest.mark.parametrize("request_", [a_request(), GZIP, HTTP_1_0])
@pytest.mark.parametrize("body", [b"hello", b"x" * 5000])
def test_head_answers_with_the_head_of_get(request_, body):
    get = b"".join(pieces(request_, Response(200, body)))
    assert b"".join(pieces(request_._replace(method="HEAD"), Response(200, body))) == get.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def test_head_of_a_stream_closes_it_without_running_it():
    items = Items(b"never")
    assert list(pieces(a_request(method="HEAD"), Response(200, items))) == [
        b"HTTP/1.1 200 OK\r\nVary: Accept-Encoding\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n" + SAFE]
    assert (items.ran, items.closed) == (False, True)


@pytest.mark.parametrize("request_, streamed, close, kept", [
    (a_request(), False, False, True),
    (a_request(), True, False, True),
    (a_request(), False, True, False),
    (a_request(keep_alive=False), False, False, False),
    (a_request(version=(1, 0)), False, False, True),
    (a_request(version=(1, 0)), True, False, False),
    (None, False, False, False),
])
def test_the_connection_header_says_what_keeps_says(request_, streamed, close, kept):
    response = Response(200, Items(b"a") if streamed else b"a")
    assert keeps(request_, response, close) is kept
    first = next(pieces(request_, response, close))
    assert (b"Connection: keep-alive\r\n" in first, b"Connection: close\r\n" in first) == (kept, not kept)


@pytest.mark.parametrize("request_", [a_request(), GZIP])
def test_a_stream_that_fails_is_not_ended(request_):
    items = Items(b"a", OSError("gone"))
    out, got = pieces(request_, Response(200, items)), []
    with pytest.raises(OSError, match="gone"):
        for piece in out:
            got.append(piece)
    assert len(got) == 2 and not got[-1].endswith(b"0\r\n\r\n")
    assert items.closed
    assert list(out) == []


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_closing_the_answer_closes_the_stream_at_any_point(steps):
    items = Items(b"a", b"b", b"c")
    out = pieces(a_request(), Response(200, items))
    for _ in range(steps):
        next(out)
    assert not items.closed
    out.close()
    assert items.closed and list(out) == []


@pytest.mark.parametrize("name, value", [
    ("X", "a\r\nSet-Cookie: b"), ("X", "a\nb"), ("X", "a\rb"), ("X", "a\0b"), ("X", "a\x1bb"), ("X", "\u20ac"),
    ("X\r\nY", "a"), ("X:", "a"), ("", "a"), ("\u00e4", "a"), ("Content-Length", "5"), ("transfer-encoding", "chunked"),
    ("Connection", "close"), ("Cache-Control", "public"), ("Content-Type", "text/html"),
])
def test_a_header_that_would_split_or_contradict_the_answer_is_refused_before_any_byte(name, value):
    items = Items(b"never")
    with pytest.raises(ValueError):
        pieces(a_request(), Response(200, items, headers=((name, value),)))
    assert (items.ran, items.closed) == (False, True)


def test_a_content_type_cannot_split_the_answer():
    with pytest.raises(ValueError):
        pieces(a_request(), Response(200, b"", "text/html\r\nX: y"))


# --- small parts ----------------------------------------------------------------------

@pytest.mark.parametrize("text, parts", [
    ("LocalHost", ("localhost", "")), ("a.b:80", ("a.b", "80")), ("127.0.0.1:", ("127.0.0.1", "")),
    ("[::1]", ("::1", "")), ("[FE80::1]:8888", ("fe80::1", "8888")), ("", ("", "")), ("my_host", ("my_host", "")),
])
def test_an_authority_has_a_host_and_maybe_a_port(text, parts):
    assert split_authority(text) == parts


def test_a_form_is_read_like_a_query():
    assert parse_query(b"token=a%2Bb+c&x") == {"token": "a+b c", "x": ""}
    assert parse_query(b"\xff=\xc3\xa4") == {"\ufffd": "\u00e4"}


def test_neither_module_loads_what_makes_a_start_slow():
    code = ("import sys, modwsgi_tel.web.protocol, modwsgi_tel.web.guard\n"
            "print(*sorted(sys.modules.keys() & {'http', 'email', 'urllib', 'socket', 'select', 'asyncio', 'hmac',"
            " 'hashlib', 'ipaddress', 'logging', 'html'}))")
    done = subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, check=True,
                          cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert done.stdout.split() == []
