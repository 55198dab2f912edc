"""WebSocket without a socket: every case comes out the same whole, byte by byte, and with another frame behind it.

Whatever the bytes: a Reader gives events or says what was wrong, never raises, and holds no more than its bounds.
"""
import os
import random

import pytest

from modwsgi_tel.errors import BadRequest
from modwsgi_tel.web import websocket
from modwsgi_tel.web.protocol import Parser
from modwsgi_tel.web.websocket import (BINARY, BROKEN, CLOSE, CONTINUED, MESSAGE_BYTES, NO_CODE, PING, PONG, TEXT, Reader, accept_key, closing,
                                       fragments, frame, handshake)

MASK = b"\x11\x22\x33\x44"
SEED = int(os.environ.get("MODWSGI_TEL_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


def sent(opcode, payload=b"", final=True, mask=MASK, reserved=0):
    """A frame as a client sends it."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big")
    return bytes((final << 7 | reserved << 4 | opcode,)) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def events(data):
    """What a Reader makes of these bytes, the same however they are cut; what is wrong as (BROKEN, code, words)."""
    def flat(found):
        return [(opcode, payload.code, str(payload)) if opcode == BROKEN else (opcode, payload) for opcode, payload in found]

    whole, single = flat(Reader().feed(data)), []
    one = Reader()
    for at in range(len(data)):
        single += one.feed(data[at:at + 1])
    assert flat(single) == whole
    if not whole or whole[-1][0] not in (BROKEN, CLOSE):
        behind = Reader()
        behind.feed(data)
        if not behind.held:
            assert flat(Reader().feed(data + sent(PING, b"behind"))) == whole + [(PING, b"behind")]
    else:
        assert flat(Reader().feed(data + sent(PING, b"behind"))) == whole
    return whole


@pytest.mark.parametrize("data, expected", [
    (sent(TEXT, b"Hello"), [(TEXT, b"Hello")]),
    (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [(TEXT, b"Hello")]),         # RFC 6455 5.7
    (sent(TEXT), [(TEXT, b"")]),
    (sent(BINARY, b"\xff" * 126), [(BINARY, b"\xff" * 126)]),
    (sent(BINARY, bytes(range(256)) * 16), [(BINARY, bytes(range(256)) * 16)]),
    (sent(TEXT, b"Hel", False) + sent(CONTINUED, b"lo"), [(TEXT, b"Hello")]),
    (sent(TEXT, b"a", False) + sent(PING, b"?") + sent(CONTINUED, b"b", False) + sent(PONG) + sent(CONTINUED, b""),
     [(PING, b"?"), (PONG, b""), (TEXT, b"ab")]),
    (sent(TEXT, "é".encode()[:1], False) + sent(CONTINUED, "é".encode()[1:]), [(TEXT, "é".encode())]),
    (sent(PING, b"x" * 125), [(PING, b"x" * 125)]),
    (sent(CLOSE), [(CLOSE, NO_CODE)]),
    (sent(CLOSE, b"\x03\xe8bye") + sent(TEXT, b"late"), [(CLOSE, 1000)]),
    (sent(CLOSE, b"\x0f\xa0"), [(CLOSE, 4000)]),
])
def test_what_a_client_may_send(data, expected):
    assert events(data) == expected


@pytest.mark.parametrize("data, code, words", [
    (b"\x81\x05Hello", 1002, "a client's frame without a mask"),
    (sent(TEXT, b"", reserved=4), 1002, "a reserved bit is set, and no extension was agreed on"),
    (sent(TEXT, b"", reserved=1), 1002, "a reserved bit is set, and no extension was agreed on"),
    (sent(3), 1002, "opcode 3 has no meaning"),
    (sent(11), 1002, "opcode 11 has no meaning"),
    (sent(CONTINUED, b"x"), 1002, "a continuation of nothing"),
    (sent(TEXT, b"a", False) + sent(TEXT, b"b"), 1002, "a new message inside of another"),
    (sent(PING, b"", False), 1002, "a control frame in fragments"),
    (sent(PING, b"x" * 126), 1002, "a control frame of more than 125 bytes"),
    (b"\x81\xfe\x00\x05" + MASK + b"Hello", 1002, "a length that is not written in the shortest way"),
    (b"\x81\xff" + (65535).to_bytes(8, "big"), 1002, "a length that is not written in the shortest way"),
    (b"\x81\xff" + (1 << 63).to_bytes(8, "big"), 1002, "a length that is not written in the shortest way"),
    (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009, f"a message of more than {MESSAGE_BYTES} bytes"),
    (sent(TEXT, b"x" * MESSAGE_BYTES, False) + sent(CONTINUED, b"x"), 1009, f"a message of more than {MESSAGE_BYTES} bytes"),
    (sent(TEXT, b"\xff"), 1007, "a text that is not UTF-8"),
    (sent(TEXT, "é".encode()[:1]), 1007, "a text that is not UTF-8"),
    (sent(TEXT, "\ud800".encode("utf-8", "surrogatepass")), 1007, "a text that is not UTF-8"),
    (sent(CLOSE, b"\x03"), 1002, "a Close without a code that may be sent"),
    (sent(CLOSE, (1005).to_bytes(2, "big")), 1002, "a Close without a code that may be sent"),
    (sent(CLOSE, (999).to_bytes(2, "big")), 1002, "a Close without a code that may be sent"),
    (sent(CLOSE, b"\x03\xe8\xff"), 1007, "a reason that is not UTF-8"),
])
def test_what_it_may_not(data, code, words):
    assert events(data) == [(BROKEN, code, words)]
    assert events(sent(PING, b"!") + data)[0] == (PING, b"!")


def test_frames_of_all_lengths_come_back():
    for size in (0, 1, 125, 126, 127, 65535, 65536, 70000):
        head = frame(BINARY, bytes(size))
        assert (head[0], len(head) - size) == (0x82, 2 if size < 126 else 4 if size < 65536 else 10)
        assert head[1] & 0x80 == 0          # a server's have no mask
    assert (closing(1001), closing(NO_CODE)) == (b"\x88\x02\x03\xe9", b"\x88\x00")


def test_a_message_in_fragments_is_one_message_and_its_turns_come_through():
    closed = []

    def pieces():
        try:
            yield from (b"", b"ab", b"", b"cd", b"ef", b"")
        finally:
            closed.append(True)

    told = list(fragments(pieces()))
    assert told == [b"", b"", frame(TEXT, b"ab", False), frame(CONTINUED, b"cd", False), b"", frame(CONTINUED, b"ef")]
    assert (list(fragments(iter(()))), list(fragments(iter((b"x",))))) == ([frame(TEXT, b"")], [frame(TEXT, b"x")])
    cut = fragments(pieces())
    next(cut)
    cut.close()
    assert closed == [True, True]


# --- the handshake ------------------------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def asked(method="GET", version="1.1", body="", **headers):
    """The Request of a handshake; None takes a header out."""
    wanted = {"host": "h", "upgrade": "websocket", "connection": "keep-alive, Upgrade", "sec-websocket-version": "13", "sec-websocket-key": KEY,
              **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} /ws HTTP/{version}"] + [f"{name}: {value}" for name, value in wanted.items() if value is not None]
    if body:
        lines.append(f"content-length: {len(body)}")
    return Parser().feed(("\r\n".join(lines) + "\r\n\r\n" + body).encode())[0]


def test_a_handshake_is_accepted_with_the_key_of_the_standard():
    assert accept_key(KEY.encode()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="               # RFC 6455 1.3
    for request in (asked(), asked(upgrade="h2c, WebSocket"), asked(connection="UPGRADE")):
        assert handshake(request) == (("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))


@pytest.mark.parametrize("request_, status", [
    (asked(upgrade=None), 426), (asked(upgrade="websockets"), 426), (asked(connection=None), 426), (asked(connection="close"), 426),
    (asked("POST"), 426), (asked("HEAD"), 426), (asked(version="1.0"), 426), (asked(sec_websocket_version="8"), 426),
    (asked(sec_websocket_version=None), 426), (asked(sec_websocket_version="13, 8"), 426), (asked(body="x"), 400),
    (asked(sec_websocket_key=None), 400), (asked(sec_websocket_key=""), 400), (asked(sec_websocket_key=KEY[:-2]), 400),
    (asked(sec_websocket_key="AAAA"), 400), (asked(sec_websocket_key=f"{KEY}, {KEY}"), 400), (asked(sec_websocket_key="é" * 24), 400),
    (asked(sec_websocket_key="dGhlIHNhbXBsZSBub25jZR=="), 400),     # bits behind the last byte
])
def test_what_is_no_handshake_is_told_what_would_be(request_, status):
    with pytest.raises(BadRequest) as caught:
        handshake(request_)
    assert caught.value.status == status
    assert ("Sec-WebSocket-Version", "13") in caught.value.headers or request_.body


def test_behind_a_handshake_nothing_is_parsed_until_it_is_answered():
    head = f"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    for cut in (len(head) - 1, 1, 0):
        parser = Parser()
        found = (parser.feed(head[:cut]) if cut else []) + parser.feed(head[cut:] + sent(PING, b"x"))
        assert ([request.path for request in found], parser.waiting) == (["/ws"], True)
        assert (parser.rest(), parser.ended, parser.feed(b"more")) == (sent(PING, b"x"), True, [])
    parser = Parser()
    assert len(parser.feed(head + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")) == 1
    assert [request.path for request in parser.resume()] == ["/"]           # it was refused: the connection goes on


# --- fuzz ---------------------------------------------------------------------------------

def test_any_bytes_give_events_or_what_was_wrong():
    print(f"MODWSGI_TEL_TEST_SEED={SEED}")
    source = random.Random(SEED)
    good = [sent(TEXT, b"hello"), sent(TEXT, b"a", False), sent(CONTINUED, b"b"), sent(PING, b"x" * 125), sent(CLOSE, b"\x03\xe8"),
            sent(BINARY, b"\0" * 300), sent(TEXT, "é€😀".encode()), b"\x88\x80" + MASK]
    for _ in range(1500):
        data = bytearray(b"".join(source.choice(good) for _ in range(source.randrange(1, 5))))
        for _ in range(source.randrange(3)):
            data[source.randrange(len(data))] = source.randrange(256)
        if source.random() < 0.3:
            del data[source.randrange(len(data)):]
        found = events(bytes(data))
        assert sum(opcode in (BROKEN, CLOSE) for opcode, *_ in found) <= 1
        reader = Reader()
        for at in range(0, len(data), 7):
            reader.feed(bytes(data[at:at + 7]))
            assert reader.held <= 2 * MESSAGE_BYTES + 14


def test_a_client_that_never_ends_a_message_is_not_kept():
    reader = Reader()
    found = []
    for _ in range(100):
        found += reader.feed(sent(TEXT, b"x" * 100, False) if not reader.held else sent(CONTINUED, b"x" * 100, False))
        assert reader.held <= MESSAGE_BYTES
    assert [(opcode, payload.code) for opcode, payload in found] == [(BROKEN, websocket.TOO_BIG)]
