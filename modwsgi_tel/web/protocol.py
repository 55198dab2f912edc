"""HTTP/1.1 and 1.0 as bytes in and bytes out: no socket, no clock, no routes.

    parser = Parser(Limits())
    for request in parser.feed(received):          # may raise BadRequest
        for piece in pieces(request, answer_to(request)):
            ...                                    # to the socket, when it takes more

Source: RFC 9110 (semantics) and RFC 9112 (HTTP/1.1).  Where they leave a choice the strict
side is taken: two readers that disagree about where a request ends are how one is smuggled
past the other, and those who talk to a collector are curl, browsers and known proxies.
Nothing of `http`, `email` or `urllib` is imported: together they cost more time at start-up
than the rest of the collector.
"""
import json
import zlib
from collections import namedtuple

from modwsgi_tel.errors import BadRequest

REASONS = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    202: "Accepted",
    204: "No Content",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

Limits = namedtuple("Limits", "line head headers body pipelined", defaults=(8192, 16384, 100, 65536, 32))
Limits.__doc__ = """What one connection may make a Parser hold.

line: bytes of a request line.  head: bytes of all header lines with their ends.  headers: how
many.  body: bytes.  pipelined: requests that one call parses ahead.
"""

EMPTY_LINES = 8                         # before a request line; old clients send one behind a POST (RFC 9112 2.2)
CHUNK_LINE = 256                        # bytes of a chunk's size with its extensions
CHUNKS = 1024                           # in one body: a body of one-byte chunks is work without a purpose
PARAMETERS = 64                         # in a query or a form
GZIP_LEVEL = 1                          # 250 MB/s on our JSON at a ratio of 5.7; level 6: 57 MB/s at 7.2
GZIP_FROM = 1024                        # bytes; a smaller body fits into the one packet that its head needs anyway
ONE_PIECE = 16384                       # bytes; up to here copying a body behind its head is cheaper than a second send

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_GZIP = 31                              # zlib's number for "with a gzip head, 32 KiB window"
_CR = 13
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Grammars are sets of bytes, tested by deleting them: `not name.translate(None, _TOKEN)`.
# Regular expressions would say the same, and compiling them costs a millisecond at start-up.
_TOKEN = b"!#$%&'*+-.^_`|~" + _DIGITS + _LETTERS
_FIELD_TEXT = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_TARGET = bytes(range(0x21, 0x7F)).replace(b"#", b"")
_HOST = b"-._~" + _DIGITS + _LETTERS
_ADDRESS = b":." + _HEX
_STARTS = frozenset(_TOKEN + b"\r\n")   # what a connection that speaks HTTP begins with; TLS does not

# Fields that decide what a request is and may do: a second one with another value is an attack or a mistake.
_ONCE = frozenset(("content-length", "authorization", "origin"))


# --- requests -------------------------------------------------------------------

Request = namedtuple("Request", "method target path query headers version body keep_alive accepts_gzip authority")
Request.__doc__ = """A complete request.

method, target: str as sent.  path: str, percent-decoded once, without the query; dot segments
are left as they are, since routes are found by exact match.  query: {name: last value}.
headers: {lower-case name: value}, repeated ones joined by ", "; Latin-1 decoded.  version:
(1, 0) or (1, 1).  body: bytes.  keep_alive: whether the client wants the connection kept.
accepts_gzip: bool.  authority: str, "name:port" of the target if it has one, else of Host;
None for a HTTP/1.0 request without either.
"""


class Parser:
    """Bytes of one connection to Requests.

    held: bytes held; at most line + head + body + CHUNK_LINE and the bytes of one `feed`.
    idle: no byte of an unfinished request is held.
    waiting: bytes wait unparsed because `pipelined` requests were returned, or one that asks for
        another protocol; answer those, then call `resume` (no new bytes need arrive for that), or
        `rest` when the protocol has changed.
    interim: bytes the peer waits for before it sends a body (100 Continue), else b"".  Send
        them when every earlier request is answered, and set it to b"".
    error: the BadRequest to answer after every request returned so far, then close; or None.
    ended: nothing more will come: the peer closed its sending side, a request asked for
        a close, or `error` is set.
    """

    def __init__(self, limits=Limits()):
        self.limits = limits
        self.waiting = False
        self.interim = b""
        self.error = None
        self.ended = False
        self._buffer = bytearray()      # received, not yet parsed
        self._closed = False            # the peer sends no more
        self._flooded = False           # bytes were dropped: too many waited
        self._switching = False         # behind this request another protocol may begin
        self._requests = []
        self._begin()

    @property
    def held(self):
        return len(self._buffer) + self._taken + len(self._body)

    @property
    def idle(self):
        return not self.held

    def feed(self, data):
        """Take bytes as they arrived; b"" means the peer closed its sending side.

        Returns complete requests in order, at most `limits.pipelined`; [] means "need more".
        Raises BadRequest (status one of REASONS) when the next thing in order is none: what was
        complete before it is returned first, with the error in `error` and raised by the next
        call.  After the end (see `ended`) bytes are dropped.

        A caller that feeds while `waiting` is told so by 429 once more than the limits waits.
        """
        if not data:
            self._closed = True
        elif not (self.ended or self._flooded):
            limits = self.limits
            if self.waiting and len(self._buffer) > limits.line + limits.head + limits.body:
                self._flooded = True
            else:
                self._buffer += data
        return self.resume()

    def resume(self):
        """Parse what waits; returns and raises as `feed`."""
        if self.error is not None:
            # a fresh one: raising `error` itself would tie it by its traceback to this parser, in a cycle
            raise BadRequest(self.error.status, str(self.error))
        requests = self._requests = []
        most = self.limits.pipelined
        self._switching = False
        try:
            while not self.ended and len(requests) < most and not self._switching:
                if not self._step(self):
                    if self._flooded:
                        raise BadRequest(429, "too many requests sent ahead: read the answers first")
                    if self._closed:
                        if self._taken or self._buffer.strip(b"\r"):
                            raise BadRequest(400, "the connection was closed in the middle of a request")
                        self._end()
                    break
        except BadRequest as error:
            self.error = BadRequest(error.status, str(error))
            self._end()
            if not requests:
                raise
        else:
            self.waiting = (not self.ended and (len(requests) >= most or self._switching)
                            and (bool(self._buffer) or self._closed or self._flooded))
        return requests

    def rest(self):
        """The bytes behind the last request, which are of another protocol; this one ends."""
        rest = bytes(self._buffer)
        self._end()
        return rest

    def _end(self):
        self.ended = True
        self.waiting = False
        self.interim = b""
        self._buffer = bytearray()
        self._begin()

    # Each step takes one thing from the buffer, sets the next step, and returns True; False means
    # that more bytes are needed.  What a step decides depends on the bytes alone, never on how they
    # were cut.  Steps are kept unbound, or a parser would refer to itself.

    def _begin(self):
        self._step = Parser._request_line
        self._scanned = 0               # bytes of the buffer known to hold no line end
        self._taken = 0                 # bytes of line and head taken from the buffer
        self._empty = 0
        self._fields = 0                # header and trailer lines, and their bytes: trailers are
        self._field_bytes = 0           # few, so they share the limits of the headers
        self._chunks = 0
        self._headers = {}
        self._request = None            # with all but its body
        self._body = bytearray()
        self._left = 0                  # bytes of the body, or of a chunk, still to come

    def _line(self, most, status, what):
        """The next line without its end, as bytes; None when it is not whole yet.

        `most`: bytes with the end.  A bare LF is refused: RFC 9112 2.2 lets a recipient take it
        for a line end or not, so two recipients may see two different messages.
        """
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        if end >= most or end < 0 and len(buffer) >= most:
            raise BadRequest(status, f"{what} too long")
        if end < 0:
            self._scanned = len(buffer)
            return None
        if not end or buffer[end - 1] != _CR:
            raise BadRequest(400, f"{what} must end with CR LF, not with a bare LF")
        line = bytes(buffer[:end - 1])
        del buffer[:end + 1]
        self._scanned = 0
        return line

    def _request_line(self):
        if self._buffer and self._buffer[0] not in _STARTS:
            raise BadRequest(400, "this is not HTTP (TLS is not spoken here)")
        line = self._line(self.limits.line + 2, 414, "the request line")
        if line is None:
            return False
        if not line:
            self._empty += 1
            if self._empty > EMPTY_LINES:
                raise BadRequest(400, "empty lines instead of a request")
            return True
        self._taken = len(line) + 2
        words = line.split(b" ")
        if len(words) != 3:
            raise BadRequest(400, "a request line is: METHOD /path HTTP/1.1")
        method, target, version = words
        version = _version(version)
        if method.translate(None, _TOKEN):         # it is not empty: the first byte was looked at
            raise BadRequest(400, "the method is not a word")
        if target.translate(None, _TARGET):
            raise BadRequest(400, "the target has a character that must be percent-encoded")
        authority, path, query = _split_target(target)
        self._request = Request(
            method=method.decode("ascii"), target=target.decode("ascii"), path=_decoded_path(path),
            query=parse_query(query), headers=self._headers, version=version, body=b"", keep_alive=False,
            accepts_gzip=False, authority=authority)
        self._step = Parser._header
        return True

    def _header(self):
        line = self._line(self.limits.head - self._field_bytes, 431, "the header block")
        if line is None:
            return False
        self._field_bytes += len(line) + 2
        self._taken += len(line) + 2
        if not line:
            return self._head_ends()
        name, value = self._split_header(line)
        headers = self._headers
        if name not in headers:
            headers[name] = value
        elif name == "host":            # RFC 9112 3.2 asks for this even when both are the same
            raise BadRequest(400, "more than one Host")
        elif name in _ONCE:
            if headers[name] != value:
                raise BadRequest(400, f"{name} is given twice, with different values")
        else:
            headers[name] += ", " + value
        return True

    def _split_header(self, line):
        """(lower-case name, value) of a header or trailer line, counted."""
        self._fields += 1
        if self._fields > self.limits.headers:
            raise BadRequest(431, f"more than {self.limits.headers} headers")
        if line[0] in b" \t":
            raise BadRequest(400, "a header continued on a second line (obsolete folding)")
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN):
            raise BadRequest(400, "a header line is: Name: value, without a space before the colon")
        if value.translate(None, _FIELD_TEXT):
            raise BadRequest(400, "a control character in the value of a header")
        return name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")

    def _head_ends(self):
        headers, request = self._headers, self._request
        host = headers.get("host")
        if host is None:
            if request.version >= (1, 1):
                raise BadRequest(400, "HTTP/1.1 without a Host header")
        else:
            split_authority(host)       # raises, even where the target's own authority goes before it
        wishes = _tokens(headers.get("connection", ""))
        self._request = request._replace(
            keep_alive="close" not in wishes and (request.version >= (1, 1) or "keep-alive" in wishes),
            accepts_gzip=_accepts_gzip(headers.get("accept-encoding", "")),
            authority=host if request.authority is None else request.authority)
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if length is not None:
                raise BadRequest(400, "Content-Length together with Transfer-Encoding")
            if request.version < (1, 1):
                raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
            if coding.lower() != "chunked":
                raise BadRequest(501, "the only Transfer-Encoding taken is chunked")
            self._step = Parser._chunk_size
        else:
            self._left = self._length(length)
            self._step = Parser._fixed_body
        expected = headers.get("expect")
        # RFC 9110 10.1.1: not in HTTP/1.0, and not when there is no body to wait for
        if expected is not None and request.version >= (1, 1):
            if expected.lower() != "100-continue":
                raise BadRequest(417, "the only expectation met is 100-continue")
            if coding is not None or self._left:
                self.interim = _CONTINUE
        return True

    def _length(self, text):
        """Content-Length as a number, within the limit."""
        if text is None:
            return 0
        digits = text.encode("latin-1")
        if not digits or digits.translate(None, _DIGITS):
            raise BadRequest(400, "Content-Length is not a number")
        # int() of thousands of digits is slow, and an error of its own since Python 3.11
        if len(digits.lstrip(b"0")) > 15 or int(digits[-16:]) > self.limits.body:
            raise BadRequest(413, f"a body of more than {self.limits.body} bytes")
        return int(digits[-16:])

    def _fixed_body(self):
        if len(self._buffer) < self._left:
            return False
        body = bytes(self._buffer[:self._left])
        del self._buffer[:self._left]
        return self._finish(body)

    def _chunk_size(self):
        line = self._line(CHUNK_LINE, 400, "the size line of a chunk")
        if line is None:
            return False
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
        if not 1 <= len(digits) <= 16 or digits.translate(None, _HEX) or extension.translate(None, _FIELD_TEXT):
            raise BadRequest(400, "the size of a chunk is not a hexadecimal number")
        self._chunks += 1
        self._left = int(digits, 16)
        if len(self._body) + self._left > self.limits.body or self._chunks > CHUNKS:
            raise BadRequest(413, f"a body of more than {self.limits.body} bytes or {CHUNKS} chunks")
        self._step = Parser._chunk_data if self._left else Parser._trailer
        return True

    def _chunk_data(self):
        if not self._buffer:
            return False
        data = self._buffer[:self._left]
        del self._buffer[:len(data)]
        self._body += data
        self._left -= len(data)
        if not self._left:
            self._step = Parser._chunk_end
        return True

    def _chunk_end(self):
        end = self._buffer[:2]
        if not b"\r\n".startswith(end):
            raise BadRequest(400, "a chunk is longer than its size says")
        if len(end) < 2:
            return False
        del self._buffer[:2]
        self._step = Parser._chunk_size
        return True

    def _trailer(self):
        line = self._line(self.limits.head - self._field_bytes, 431, "the trailer")
        if line is None:
            return False
        self._field_bytes += len(line) + 2
        if line:
            self._split_header(line)    # checked, counted, and dropped: nothing here asks for one
            return True
        return self._finish(bytes(self._body))

    def _finish(self, body):
        request = self._request._replace(body=body)
        self._requests.append(request)
        self.interim = b""
        self._begin()
        self._switching = "websocket" in _tokens(request.headers.get("upgrade", ""))
        if not request.keep_alive:
            self._end()                 # RFC 9112 9.6: what comes behind a request that closes is not read
        return True


def _version(word):
    """(1, 0) or (1, 1); a higher minor is read as the highest known (RFC 9110 2.5)."""
    name, major, dot, minor = word[:5], word[5:6], word[6:7], word[7:]
    if name != b"HTTP/" or dot != b"." or len(minor) != 1 or (major + minor).translate(None, _DIGITS):
        raise BadRequest(400, "the request line does not end with HTTP/1.1")
    if major != b"1":
        raise BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return (1, 0) if minor == b"0" else (1, 1)


def _split_target(target):
    """(authority or None, path, query) of a request target, the last two as bytes."""
    authority = None
    if not target.startswith(b"/"):
        scheme, colon, rest = target.partition(b"://")
        if not colon or scheme.lower() not in (b"http", b"https"):
            raise BadRequest(400, "the target is neither a path nor an http URL")
        end = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
        authority = rest[:end].decode("ascii")
        if not split_authority(authority)[0]:
            raise BadRequest(400, "a URL without a host")
        target = rest[end:] if rest[end:end + 1] == b"/" else b"/" + rest[end:]
    path, _, query = target.partition(b"?")
    return authority, path, query


def split_authority(text):
    """(host, port) of "host:port", "[::1]:port" or either without a port; host in lower case
    and without brackets, port as digits, "" when there is none.  Raises BadRequest."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        good = bool(bracket and host) and not host.encode("latin-1").translate(None, _ADDRESS)
        good = good and (not port or port.startswith(":"))
        port = port[1:]
    else:
        host, _, port = text.partition(":")
        good = not host.encode("latin-1").translate(None, _HOST)
    if not good or port.encode("latin-1").translate(None, _DIGITS):
        raise BadRequest(400, "Host is not a host name or address with an optional port")
    return host.lower(), port


def percent_decoded(raw):
    """bytes with %XX as str: decoded once, as UTF-8 with U+FFFD for what is none.  Raises BadRequest."""
    first, *rest = raw.split(b"%")
    parts = [first]
    for part in rest:
        digits = part[:2]
        if len(digits) != 2 or digits.translate(None, _HEX):
            raise BadRequest(400, "a % that is not followed by two hexadecimal digits")
        parts.append(bytes((int(digits, 16),)))
        parts.append(part[2:])
    return b"".join(parts).decode("utf-8", "replace")


def _decoded_path(raw):
    path = percent_decoded(raw)
    if not path.isprintable():          # no route has one, and what quotes the path need not think of it
        raise BadRequest(400, "a character in the path that cannot be shown")
    return path


def parse_query(raw):
    """{name: last value} of the bytes "a=1&b=2" of a query or a form.

    Raises BadRequest, also for more than PARAMETERS of them.
    """
    values = {}
    parts = raw.split(b"&", PARAMETERS)
    if len(parts) > PARAMETERS:
        raise BadRequest(400, f"more than {PARAMETERS} parameters")
    for part in parts:
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            values[percent_decoded(name)] = percent_decoded(value)
    return values


def _tokens(text):
    """Lower-case members of a comma-separated header."""
    return [token.strip(" \t") for token in text.lower().split(",")]


def _accepts_gzip(text):
    """Whether Accept-Encoding allows gzip: named, or meant by "*", with a weight above 0."""
    if len(text) > 1024:                # thousands of codings are work without a purpose
        return False
    answers = {}
    for token in _tokens(text):
        coding, *parameters = (part.strip(" \t") for part in token.split(";"))
        name, _, weight = (parameters or ["q=1"])[-1].partition("=")
        # a weight that is none says nothing that could be relied on
        answers[coding] = (name == "q" and weight[:1] in ("0", "1") and weight.replace(".", "", 1).isdigit()
                           and weight.strip("0.") != "")
    return answers.get("gzip", answers.get("x-gzip", answers.get("*", False)))


# --- responses ------------------------------------------------------------------

Response = namedtuple("Response", "status body content_type headers",
                      defaults=(b"", "text/plain; charset=utf-8", ()))
Response.__doc__ = """What to answer: a status of REASONS, the body, its type, more headers as (name, value) pairs.

body: bytes, or an iterator of bytes, sent as they come; an item b"" means "nothing yet, give
the loop a turn".
"""

# no-referrer would make a browser send the login form with "Origin: null", which is another site's
_ALWAYS = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n"
# Written by `pieces` alone: a second one would be a contradiction.
_OURS = frozenset(("connection", "content-length", "content-type", "transfer-encoding", "cache-control",
                   "x-content-type-options", "referrer-policy"))


def json_response(status, value, headers=()):
    """A Response with strict JSON and a newline.  Raises ValueError for NaN and infinities."""
    return Response(status, json.dumps(value, allow_nan=False).encode("ascii") + b"\n", "application/json",
                    tuple(headers))


def error_response(bad_request):
    """The Response that says what was wrong: {"error": "...", "status": n}."""
    return json_response(bad_request.status, {"error": str(bad_request), "status": bad_request.status},
                         bad_request.headers)


def keeps(request, response, close=False):
    """Whether the connection stays open behind this response; arguments as `pieces`."""
    if close or request is None or not request.keep_alive:
        return False
    # HTTP/1.0 knows no chunks: there the end of a stream is the end of the connection
    return request.version >= (1, 1) or isinstance(response.body, bytes) or response.status in (204, 304)


def pieces(request, response, close=False):
    """A generator of bytes for the socket: the head, then the body.

    request: the Request answered, or None when it could not be read (then the connection is
        closed behind the answer).  close: close in any case; `keeps` says what was promised.
    A small body comes with the head; of an iterator's items each makes at most one piece, b"" for
    an item that has nothing to send yet.  Closing the generator closes the iterator, also before
    the first piece.
    Raises ValueError at once, before any byte, for a header that cannot be written.  What the
    iterator raises comes through, without an end of the chunks, so that the client sees that the
    answer is cut: close the connection.
    """
    body = response.body
    try:
        out = _written(request, response, close)
        next(out)                       # from here on close() reaches the iterator
    except BaseException:
        _close(body)
        raise
    return out


def _written(request, response, close):
    status, body, content_type, more = response
    whole = isinstance(body, bytes)
    bodiless = status in (101, 204, 304)
    chunked = request is None or request.version >= (1, 1)
    compressible = not bodiless and (not whole or len(body) >= GZIP_FROM)
    lines = [f"HTTP/1.1 {status} {REASONS[status]}"]
    for name, value in more:
        _check_header(name, value)
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} is written by the protocol itself")
        if name.lower() == "content-encoding":
            compressible = False
        lines.append(f"{name}: {value}")
    coder = None
    if compressible:
        lines.append("Vary: Accept-Encoding")
        if request is not None and request.accepts_gzip:
            lines.append("Content-Encoding: gzip")
            coder = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
            if whole:
                body = coder.compress(body) + coder.flush()
    if not bodiless:
        _check_header("Content-Type", content_type)
        lines.append(f"Content-Type: {content_type}")
        if whole:
            lines.append(f"Content-Length: {len(body)}")
        elif chunked:
            lines.append("Transfer-Encoding: chunked")
    wish = "keep-alive" if keeps(request, response, close) else "close"
    if any(name.lower() == "upgrade" for name, _ in more):      # RFC 9110 7.8
        wish = "upgrade" if status == 101 else wish + ", upgrade"
    lines.append(f"Connection: {wish}")
    head = ("\r\n".join(lines) + "\r\n" + _ALWAYS + "\r\n").encode("latin-1")
    headless = bodiless or request is not None and request.method == "HEAD"
    try:
        yield None                      # see `pieces`: taken there
        if headless:
            yield head
        elif whole:
            if len(body) <= ONE_PIECE:
                yield head + body
            else:
                yield head
                yield body
        else:
            yield head
            for item in body:
                if coder is not None:
                    item = coder.compress(item)
                yield b"%x\r\n%b\r\n" % (len(item), item) if chunked and item else item
            item = coder.flush() if coder is not None else b""
            if chunked:
                yield (b"%x\r\n%b\r\n" % (len(item), item) if item else b"") + b"0\r\n\r\n"
            elif item:
                yield item
    finally:
        _close(body)


def _check_header(name, value):
    """ValueError for a header that would end early, or begin another one, on the wire."""
    if not name or name.encode("ascii").translate(None, _TOKEN):
        raise ValueError(f"not a header name: {name!r}")
    if value.encode("latin-1").translate(None, _FIELD_TEXT):
        raise ValueError(f"a control character in the header {name}: {value!r}")


def _close(body):
    close = getattr(body, "close", None)
    if close is not None:
        close()
