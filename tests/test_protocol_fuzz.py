"""Any bytes, cut anywhere, give Requests or one BadRequest with a 4xx or 5xx status of REASONS: never another
exception, never more held than the limits, and never something else because of where they were cut.

    PROTOCOL_FUZZ_SEED=17 PROTOCOL_FUZZ_ROUNDS=100000 python -m pytest tests/test_protocol_fuzz.py
"""
import os
import random

from modwsgi_tel.errors import BadRequest
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import CHUNK_LINE, REASONS, Limits, Parser, Request, error_response, pieces

SEED = int(os.environ.get("PROTOCOL_FUZZ_SEED") or random.randrange(2**32))
ROUNDS = int(os.environ.get("PROTOCOL_FUZZ_ROUNDS") or 3000)

VALID = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/state?group=a%20b&samples=10 HTTP/1.1\r\nHost: [::1]:8888\r\nAccept-Encoding: gzip;q=0.5, *\r\n\r\n",
    b"HEAD http://127.0.0.1:8888/healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\ntoken=a%2Bb",
    b"POST /api/slow/clear HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=\"y\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"\r\nGET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Prefix: /a/b\r\nCookie: modwsgi_tel=x; y\r\n"
    b"Authorization: Bearer token\r\nConnection: close\r\n\r\n",
)
# what breaks parsers: ends, signs, separators, sizes, other protocols
SCRAPS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"%", b"%00", b"%zz", b"\0", b"\x7f", b"\xff", b"=", b"&",
    b"?", b"#", b"/", b"..", b"*", b"[", b"]", b"@", b"\"", b"0", b"-1", b"+1", b"0x10", b"9" * 20, b"ffffffffffffffff",
    b"5\r\nhello\r\n", b"0\r\n\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.1", b"HTTP/2.0",
    b"http://", b"a" * 70, b"\x16\x03\x01", b"X: " + b"a" * 300 + b"\r\n", b"X:\r\n" * 12)
LIMITS = (Limits(), Limits(pipelined=1), Limits(line=64, head=256, headers=8, body=32, pipelined=2),
          Limits(line=40, head=64, headers=2, body=4, pipelined=1))


def mutated(rng):
    """Bytes of a connection: valid requests with some of it cut, doubled, changed or inserted."""
    data = bytearray(b"".join(rng.choice(VALID) for _ in range(rng.randint(1, 4))))
    if rng.random() < .1:
        data = bytearray(rng.randrange(256) for _ in range(rng.randint(1, 400)))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 0, 1, 2, 10, 40)))
        how = rng.randrange(5)
        if how == 0:
            data[at:end] = rng.choice(SCRAPS)
        elif how == 1:
            data[at:at] = rng.choice(SCRAPS)
        elif how == 2:
            data[at:at] = data[at:end] * rng.randint(1, 3)
        elif how == 3:
            data[at:at + 1] = bytes((rng.randrange(256),))
        else:
            del data[at:end]
    return bytes(data[:rng.randrange(len(data) + 1)] if rng.random() < .2 else data)


def cut(rng, data):
    """The parts in which it arrives."""
    how = rng.randrange(3)
    if how == 0:
        return [data]
    if how == 1:
        return [data[at:at + 1] for at in range(len(data))]
    marks = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 6)))
    return [part for part in (data[a:b] for a, b in zip([0, *marks], [*marks, len(data)])) if part]


def events(parts, limits):
    """Requests, then (status, detail) if that is how it ends; holds the invariant on the way."""
    parser, out = Parser(limits), []
    bound = limits.line + 2 + limits.head + limits.body + CHUNK_LINE
    try:
        for part in parts:
            got = parser.feed(part)
            while True:
                assert len(got) <= limits.pipelined
                assert parser.held <= bound + len(part)
                assert parser.idle == (parser.held == 0) and not (parser.ended and parser.held)
                assert parser.interim in (b"", b"HTTP/1.1 100 Continue\r\n\r\n")
                out += got
                if not parser.waiting:
                    break
                got = parser.resume()
            # between the feeds nothing but an unfinished request is held
            assert parser.held <= bound
            assert not (parser.interim and parser.idle)
    except BadRequest as error:
        assert parser.error is not None and (error.status, str(error)) == (parser.error.status, str(parser.error))
    if parser.error is not None:
        assert 400 <= parser.error.status <= 599 and parser.error.status in REASONS
        assert parser.held == 0 and parser.ended
        assert b"".join(pieces(None, error_response(parser.error))).startswith(b"HTTP/1.1 %d " % parser.error.status)
        out.append((parser.error.status, str(parser.error)))
    return out


def judge(guard, request):
    """Every Request goes through the guard: a verdict or BadRequest, nothing else."""
    try:
        guard.prefix(request), guard.strip(request.path)
        guard.check(request)
        guard.login(request)
    except BadRequest as error:
        assert error.status in REASONS
        assert guard.refusal(request, error).status == error.status


def test_any_bytes_give_requests_or_one_bad_request_however_they_are_cut():
    print(f"PROTOCOL_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    guards = (Guard({"localhost"}), Guard({"localhost"}, token="a+b", root_path="/a"), Guard((), unix=True))
    counts = {"requests": 0, "refused": 0, "unfinished": 0}
    for number in range(ROUNDS):
        data, limits = mutated(rng), rng.choice(LIMITS)
        closing = [b""] if rng.random() < .3 else []
        try:
            wanted = events([data] + closing, limits)
            assert events(cut(rng, data) + closing, limits) == wanted
            for event in wanted:
                if isinstance(event, Request):
                    judge(rng.choice(guards), event)
        except Exception:
            print(f"round {number}: {limits} {data!r}")
            raise
        refused = bool(wanted) and not isinstance(wanted[-1], Request)
        counts["requests"] += len(wanted) - refused
        counts["refused"] += refused
        counts["unfinished"] += not wanted
    # a fuzzer that finds only one kind of end tests nothing
    assert min(counts.values()) > ROUNDS / 100, counts


def test_a_connection_that_never_ends_holds_no_more_than_the_limits():
    print(f"PROTOCOL_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    limits = LIMITS[2]
    bound = limits.line + 2 + limits.head + limits.body + CHUNK_LINE
    for _ in range(200):
        parser = Parser(limits)
        scrap = rng.choice((b"GET /", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX:", b"POST / HTTP/1.1\r\nHost: a\r\n"
                            b"Transfer-Encoding: chunked\r\n\r\n1;", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\n"))
        try:
            parser.feed(scrap)
            for _ in range(200):
                part = rng.choice((b"a", b"a: b\r\n", b"\r\n", b"1\r\na\r\n", b" ")) * rng.randint(1, 20)
                parser.feed(part)       # also while requests wait: this caller does not care
                assert parser.held <= bound + len(part)
        except BadRequest as error:
            assert error.status in REASONS
