"""WebSocket as bytes in and bytes out: the handshake, frames to a client, what a client sends.

    headers = handshake(request)                   # may raise BadRequest
    frame(TEXT, b"...")                            # bytes to the socket
    for opcode, payload in Reader().feed(received):

Source: RFC 6455.  No extension is offered, so frames are as they come.  Where the RFC leaves a choice the strict side is taken.
"""
import binascii
from codecs import getincrementaldecoder

from modwsgi_tel.errors import BadRequest

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BROKEN = -1                             # no opcode: what came is no WebSocket
VERSION = "13"
MESSAGE_BYTES = 4096                    # of one message from a client: it has nothing to say
CONTROL_BYTES = 125                     # RFC 6455 5.5
GOING_AWAY, PROTOCOL_ERROR, NO_CODE, NOT_UTF8, TOO_BIG = 1001, 1002, 1005, 1007, 1009

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_FIN, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
# RFC 6455 7.4: what a Close may carry; 1004 to 1006 and 1015 are never sent, 3000 and up are anybody's
_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
_CODES_FROM, _CODES_TO = 3000, 5000


class Violation(Exception):
    """The client's bytes are no WebSocket: `code` is what a Close tells it."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def handshake(request):
    """The headers of the 101 that answers this Request.  Raises BadRequest (400, 426) for one that is no handshake."""
    headers = request.headers
    wanted = _members(headers.get("upgrade", ""))
    if request.method != "GET" or request.version < (1, 1) or "websocket" not in wanted or "upgrade" not in _members(
            headers.get("connection", "")):
        raise BadRequest(426, "this path speaks WebSocket alone: GET with Upgrade: websocket; a proxy in front has to pass it on",
                         close=False, headers=(("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)))
    if headers.get("sec-websocket-version") != VERSION:
        raise BadRequest(426, f"Sec-WebSocket-Version: {VERSION} is spoken here", close=False,
                         headers=(("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)))
    if request.body:
        raise BadRequest(400, "a WebSocket handshake has no body")
    key = headers.get("sec-websocket-key", "").encode("latin-1")
    try:
        # a2b_base64 passes over what is none: only what comes back the same was right
        whole = len(key) == 24 and binascii.b2a_base64(binascii.a2b_base64(key), newline=False) == key
    except binascii.Error:
        whole = False
    if not whole or len(binascii.a2b_base64(key)) != _KEY_BYTES:
        raise BadRequest(400, "Sec-WebSocket-Key is not 16 bytes in base64", headers=(("Sec-WebSocket-Version", VERSION),))
    return ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept_key(key))


def accept_key(key):
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (bytes)."""
    import hashlib                      # only here: what no one asks for is not loaded at start-up
    return binascii.b2a_base64(hashlib.sha1(key + _MAGIC).digest(), newline=False).decode("ascii")


def _members(text):
    return [token.strip(" \t") for token in text.lower().split(",")]


def frame(opcode, payload, final=True):
    """One frame as a server sends it: without a mask, so the same bytes for every client."""
    size = len(payload)
    head = (_FIN if final else 0) | opcode
    if size <= CONTROL_BYTES:
        return bytes((head, size)) + payload
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (head, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (head, size.to_bytes(8, "big"), payload)


def fragments(pieces):
    """The frames of one text message, out of an iterable of bytes: nobody has to know its length.

    An item b"" comes through as it is: "nothing yet, give the loop a turn".  Closing the generator closes the iterable.
    """
    opcode, held = TEXT, b""
    try:
        for piece in pieces:
            if held and piece:
                yield frame(opcode, held, False)
                opcode, held = CONTINUED, piece
            elif piece:
                held = piece
            else:
                yield b""
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    yield frame(opcode, held)


def closing(code):
    """A Close frame."""
    return frame(CLOSE, b"" if code == NO_CODE else code.to_bytes(2, "big"))


class Reader:
    """Bytes of one client to events.  Holds at most a message of MESSAGE_BYTES, a control frame, and the bytes of one `feed`."""

    def __init__(self):
        self._buffer = bytearray()
        self._opcode = None             # of the message that is under way in fragments
        self._message = bytearray()
        self._text = None               # checks a text that comes in fragments
        self._ended = False

    @property
    def held(self):
        return len(self._buffer) + len(self._message)

    def feed(self, data):
        """Take bytes as they arrived: a list of (opcode, payload) of what is whole now.

        opcode: TEXT or BINARY with the bytes of a message, PING, PONG; CLOSE with the code that it carries (NO_CODE for none);
        BROKEN with a Violation.  Behind one of the last two nothing is read any more.
        """
        events = []
        if self._ended:
            return events
        self._buffer += data
        try:
            while not self._ended:
                found = self._frame()
                if found is None:
                    return events
                event = self._take(*found)
                if event is not None:
                    events.append(event)
        except Violation as error:
            events.append((BROKEN, Violation(error.code, str(error))))      # without a traceback, which holds this reader
            self._ended = True
        self._buffer, self._message = bytearray(), bytearray()
        return events

    def _frame(self):
        """(final, opcode, payload) of the next frame, or None when it is not whole; each byte is judged as it comes."""
        buffer = self._buffer
        if not buffer:
            return None
        first = buffer[0]
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        if opcode not in (CONTINUED, TEXT, BINARY, CLOSE, PING, PONG):
            raise Violation(PROTOCOL_ERROR, f"opcode {opcode} has no meaning")
        if opcode >= CLOSE and not first & _FIN:
            raise Violation(PROTOCOL_ERROR, "a control frame in fragments")
        if opcode == CONTINUED and self._opcode is None:
            raise Violation(PROTOCOL_ERROR, "a continuation of nothing")
        if opcode in (TEXT, BINARY) and self._opcode is not None:
            raise Violation(PROTOCOL_ERROR, "a new message inside of another")
        if len(buffer) < 2:
            return None
        if not buffer[1] & _MASKED:
            raise Violation(PROTOCOL_ERROR, "a client's frame without a mask")
        size, at = buffer[1] & _LENGTH, 2
        if size > CONTROL_BYTES:
            if opcode >= CLOSE:
                raise Violation(PROTOCOL_ERROR, f"a control frame of more than {CONTROL_BYTES} bytes")
            at += 2 if size == 126 else 8
            if len(buffer) < at:
                return None
            shortest = 126 if size == 126 else 1 << 16
            size = int.from_bytes(buffer[2:at], "big")
            if size < shortest or size >> 63:
                raise Violation(PROTOCOL_ERROR, "a length that is not written in the shortest way")
        if opcode < CLOSE and len(self._message) + size > MESSAGE_BYTES:
            raise Violation(TOO_BIG, f"a message of more than {MESSAGE_BYTES} bytes")
        if len(buffer) < at + 4 + size:
            return None
        mask = buffer[at:at + 4]
        payload = bytes(buffer[at + 4:at + 4 + size])
        del buffer[:at + 4 + size]
        # all at once, as numbers: a loop over bytes is slow
        key = bytes(mask) * (size // 4 + 1)
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key[:size], "big")).to_bytes(size, "big")
        return bool(first & _FIN), opcode, payload

    def _take(self, final, opcode, payload):
        """The event that a frame completes, or None."""
        if opcode == CLOSE:
            self._ended = True
            return CLOSE, _close_code(payload)
        if opcode >= CLOSE:
            return opcode, payload
        if opcode != CONTINUED:
            self._opcode = opcode
            self._text = getincrementaldecoder("utf-8")() if opcode == TEXT else None
        if self._text is not None:
            try:
                self._text.decode(payload, final)
            except UnicodeDecodeError:
                raise Violation(NOT_UTF8, "a text that is not UTF-8") from None
        self._message += payload
        if not final:
            return None
        event = self._opcode, bytes(self._message)
        self._opcode = self._text = None
        self._message = bytearray()
        return event


def _close_code(payload):
    if not payload:
        return NO_CODE
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CODES or _CODES_FROM <= code < _CODES_TO):
        raise Violation(PROTOCOL_ERROR, "a Close without a code that may be sent")
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise Violation(NOT_UTF8, "a reason that is not UTF-8") from None
    return code
