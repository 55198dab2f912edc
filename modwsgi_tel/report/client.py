"""Asking a running collector over HTTP: `fetch` waits for the answer, an Asker lets a select loop go on.

Both are bounded in time and size, and read with the same Reader.  Nothing of `http` or
`urllib` is imported: together they cost 35 ms at start-up, more than the first screen of a
console may wait for.
Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).  The strict side is taken.
"""
import errno
import json
import os
import socket
import time

from modwsgi_tel.errors import NoAnswer, Nonsense, NotAllowed, TelError, UsageError

LARGEST = 64 << 20                      # bytes of an answer
HEAD = 65536                            # bytes of its head, and of its trailer
HEADERS = 100                           # lines of either
CHUNK_LINE = 256                        # bytes of a chunk's size with its extensions
PIECE = 65536                           # bytes that are read at once: far less than a millisecond of work
ADDRESSES = 8                           # of one name
FULL_WAIT_S = 0.05                      # before a unix socket whose queue is full is tried again

_TLS = "TLS is not spoken here: use an ssh tunnel, as ssh -L 8888:127.0.0.1:8888 HOST, and http://127.0.0.1:8888"
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_ADDRESS = _HEX | frozenset(":.")       # of what stands in brackets
_NO_NAME = frozenset("@%[]\\\"'<>`{|}^")
_CUT = "IncompleteRead"                 # the answer ended before it was whole


# --- where it is ------------------------------------------------------------------------

class Place:
    """Where a collector is: behind a URL, or with `http_socket` on a unix socket.

    A URL is "http://host[:port][/prefix]", port 80 by default.  "host:port" is understood too, and
    so is what the existing console takes, "ws://host:8888/ws": "ws" is the path of its WebSocket.
    where: for messages.  host: for the Host header.  prefix: "" or "/path", in front of every path.
    Raises UsageError for what cannot be meant.
    """

    def __init__(self, url=None, http_socket=None):
        self._socket_path = http_socket
        if http_socket:
            if "\0" in http_socket:
                raise UsageError("--http-socket: a path has no NUL")
            self.where, self.host, self.prefix = http_socket, "localhost", ""
            return
        scheme, authority, path = _split(url or "")
        if scheme in ("https", "wss"):
            raise UsageError(f"--url {url}: {_TLS}")
        if scheme in ("ws", None) and path.endswith("/ws"):
            path = path[:-3].rstrip("/")
        try:
            if scheme not in ("http", "ws", None) or not _is_plain(path):
                raise ValueError
            self._name, self._port = _host_and_port(authority)
        except ValueError:              # a UnicodeError too: a name that is none
            raise UsageError(f"--url {url}: like http://127.0.0.1:8888") from None
        self.host = self._name.partition("%")[0]            # an interface is nobody else's business
        if ":" in self.host:
            self.host = f"[{self.host}]"
        if self._port != 80:
            self.host += f":{self._port}"
        self.prefix = path
        self.where = f"http://{authority}{path}"

    def addresses(self):
        """[(family, address)] for socket.connect, at least one; resolving a name may block.

        Raises OSError when the name is not known.
        """
        if self._socket_path:
            return [(socket.AF_UNIX, self._socket_path)]
        # as bytes: for a str Python first imports the tables of international names
        found = socket.getaddrinfo(self._name.encode("ascii"), self._port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found[:ADDRESSES]]

    def request(self, path, token=None, method="GET"):
        """The bytes of a request for `path`, which goes behind the prefix; a POST has no body.

        Raises ValueError for what is no path, UsageError for a token that is none.
        """
        if not path.startswith("/") or not _is_plain(path):
            raise ValueError(f"not a path: {path!r}")
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.host}", "Accept: application/json",
                 "Accept-Encoding: identity", *(["Content-Length: 0"] if method == "POST" else [])]
        if token:
            if not token.isprintable():
                raise UsageError("the token has a control character: --token-file should hold it as text, in one line")
            lines.append(f"Authorization: Bearer {token}")
        return "\r\n".join([*lines, "", ""]).encode()


def _split(url):
    """(lower-case scheme or None, "host:port", path without a slash at its end) of a URL; its query is left out."""
    scheme, there, rest = url.partition("://")
    if not there:
        scheme, rest = None, url
    rest = rest.partition("#")[0].partition("?")[0]
    authority, slash, path = rest.partition("/")
    return scheme and scheme.lower(), authority, (slash + path).rstrip("/")


def _host_and_port(authority):
    """(name as ASCII, port) of "host[:port]" or "[address][:port]".  Raises ValueError for what is neither."""
    if authority.startswith("["):
        name, bracket, port = authority[1:].partition("]")
        good = bracket and ":" in name and port[:1] in ("", ":") and _ADDRESS.issuperset(name.partition("%")[0])
        port = port[1:]
    else:
        name, _, port = authority.partition(":")
        name = name if name.isascii() else name.encode("idna").decode("ascii")
        # an empty label, or one too long for any name, is a slip of the finger
        labels = (name[:-1] if name.endswith(".") else name).split(".")
        good = all(0 < len(label) < 64 for label in labels) and not _NO_NAME.intersection(name)
    number = int(port) if 0 < len(port) < 6 and _DIGITS.issuperset(port) else 0 if port else 80
    if not good or not _is_plain(name) or not 0 < number < 65536:
        raise ValueError
    return name, number


def _is_plain(text):
    """Whether it can stand in the first lines of a request: ASCII without blanks and control characters."""
    return text.isascii() and text.isprintable() and " " not in text


# --- what it answers --------------------------------------------------------------------

class NoHttp(Exception):
    """Bytes that are no answer; says in a few words why."""


class TooMuch(Exception):
    """More than LARGEST."""


class Reader:
    """The bytes of one answer, as they come, to its status and body.

        while not reader.feed(connection.recv(PIECE)):
            pass

    status: the number, None before the head is there.  body: bytes, whole once `feed` returned
    True.  keeps: whether the connection can be asked again behind it.  begun: whether any byte came.
    Holds at most LARGEST and what one `feed` brings.
    """

    def __init__(self):
        self.status = None
        self.body = bytearray()
        self.keeps = False
        self.begun = False
        self._buffer = bytearray()      # received, not yet read
        self._scanned = 0               # bytes of it known to hold no line end
        self._left = 0                  # bytes of the body, or of a chunk, still to come
        self._lines = self._line_bytes = 0
        self._head = []
        self._step = Reader._status_line

    def feed(self, data):
        """Take bytes; b"" means that the other side closed.  True once the answer is whole.

        Raises NoHttp or TooMuch, as soon as the bytes can be no answer.
        """
        self.begun = self.begun or bool(data)
        self._buffer += data
        while self._step is not None and self._step(self):
            pass
        if self._step is None:
            self.keeps = self.keeps and not self._buffer        # what nobody asked for is nobody's answer
            return True
        if not data:
            if self._step is not Reader._until_closed:
                raise NoHttp(_CUT if self.begun else "closed without an answer")
            self._step = None
        return self._step is None

    # Each step takes one thing from the buffer and sets the next; False means that more bytes are
    # needed.  They are kept unbound, or a reader would refer to itself.

    def _line(self, most, what):
        """The next line without its end, as str; None when it is not whole yet."""
        end = self._buffer.find(b"\r\n", self._scanned)
        if end > most or end < 0 and len(self._buffer) > most + 2:
            raise NoHttp(f"{what} is too long")
        if end < 0:
            self._scanned = max(0, len(self._buffer) - 1)
            return None
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[:end + 2]
        self._scanned = 0
        return line

    def _status_line(self):
        begin = bytes(self._buffer[:7])
        if not b"HTTP/1.".startswith(begin):
            raise NoHttp("it does not begin with HTTP/1.1")
        line = self._line(HEAD, "the status line")
        if line is None:
            return False
        version, _, rest = line.partition(" ")
        status = rest.partition(" ")[0]
        good = version in ("HTTP/1.0", "HTTP/1.1") and len(status) == 3 and _DIGITS.issuperset(status)
        if not good or status < "100":
            raise NoHttp("the status line is none")
        self.status, self.keeps = int(status), version == "HTTP/1.1"
        self._head, self._lines, self._line_bytes = [], 0, 0
        self._step = Reader._header
        return True

    def _field(self):
        """The next (lower-case name, value) of a head or trailer, counted; () at its end; None when it is not whole."""
        line = self._line(HEAD - self._line_bytes, "the head")
        if line is None or not line:
            return None if line is None else ()
        self._lines += 1
        self._line_bytes += len(line) + 2
        name, colon, value = line.partition(":")
        if self._lines > HEADERS:
            raise NoHttp(f"more than {HEADERS} headers")
        if not colon or not name or name.strip() != name:
            raise NoHttp("a header is none")
        return name.lower(), value.strip(" \t")

    def _header(self):
        field = self._field()
        if field is None:
            return False
        if field:
            self._head.append(field)
        elif 100 <= self.status < 200:
            if self.status == 101:
                raise NoHttp("it changes the protocol")
            self._step = Reader._status_line          # the answer itself follows
        else:
            self._head_ends()
        return True

    def _head_ends(self):
        wishes = ",".join(self._values("connection")).lower().replace(" ", "").split(",")
        self.keeps = "close" not in wishes and (self.keeps or "keep-alive" in wishes)
        codings, lengths = self._values("transfer-encoding"), set(self._values("content-length"))
        if self._values("content-encoding") not in ([], ["identity"]):
            raise NoHttp("a Content-Encoding that was not asked for")
        if self.status in (204, 304):
            self._step = None
        elif codings:
            if [coding.lower() for coding in codings] != ["chunked"] or lengths:
                raise NoHttp("a Transfer-Encoding that is not just chunked")
            self._step = Reader._chunk_size
        elif lengths:
            length = lengths.pop()
            if lengths or not 0 < len(length) < 20 or not _DIGITS.issuperset(length):
                raise NoHttp("Content-Length is not a number")
            self._expect(int(length))
            self._step = Reader._fixed_body
        else:
            self.keeps = False
            self._step = Reader._until_closed

    def _values(self, name):
        return [value for each, value in self._head if each == name]

    def _expect(self, size):
        if len(self.body) + size > LARGEST:
            raise TooMuch
        self._left = size

    def _take(self):
        """Move what is there of the expected bytes into the body; whether all of them were."""
        part = self._buffer[:self._left]
        del self._buffer[:len(part)]
        self.body += part
        self._left -= len(part)
        return not self._left

    def _fixed_body(self):
        if self._take():
            self._step = None
        return self._step is None

    def _until_closed(self):
        self._expect(len(self._buffer))
        self._take()
        return False

    def _chunk_size(self):
        line = self._line(CHUNK_LINE, "the size of a chunk")
        if line is None:
            return False
        size = line.partition(";")[0].rstrip(" \t")
        if not 0 < len(size) <= 16 or not _HEX.issuperset(size):
            raise NoHttp("the size of a chunk is no number")
        self._expect(int(size, 16))
        self._lines = self._line_bytes = 0          # a trailer may have as much as the head had
        self._step = Reader._chunk_data if self._left else Reader._trailer
        return True

    def _chunk_data(self):
        if not self._take():
            return False
        self._step = Reader._chunk_end
        return True

    def _chunk_end(self):
        end = bytes(self._buffer[:2])
        if not b"\r\n".startswith(end):
            raise NoHttp("a chunk is longer than its size says")
        if len(end) < 2:
            return False
        del self._buffer[:2]
        self._step = Reader._chunk_size
        return True

    def _trailer(self):
        field = self._field()
        if field == ():
            self._step = None
        return bool(field) or field == ()


def understood(place, path, status, body, token=None):
    """The JSON of a whole answer to a request with that token, if any.

    Raises NotAllowed when a token is asked for, Nonsense for any other status than 200 and 202 and
    for what is no strict JSON.
    """
    if status == 401:
        raise NotAllowed(f"{place.where} refuses the token that it was given" if token else
                         f"{place.where} asks for a token: give --token-file")
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Nonsense(f"{place.where}{path}: answers {status} and no JSON") from None
    if status not in (200, 202):
        said = answer.get("error") if isinstance(answer, dict) else None
        raise Nonsense(f"{place.where}{path}: answers {status}" + (f": {said}" if said else ""), said)
    return answer


def _refuse(word):
    raise ValueError(word)


def _error(place, path, timeout_s, error):
    """The TelError that tells of what went wrong on the way: NoHttp, TooMuch or OSError."""
    if isinstance(error, NoHttp):
        return Nonsense(f"{place.where}: no HTTP answer: {error}")
    if isinstance(error, TooMuch):
        return Nonsense(f"{place.where}{path}: more than {LARGEST >> 20} MiB")
    if isinstance(error, socket.timeout):
        return NoAnswer(f"{place.where} did not answer within {timeout_s:g} s")
    return NoAnswer(f"{place.where} does not answer: {error.strerror or error}; is the collector running?")


# --- waiting for the answer -------------------------------------------------------------

def fetch(path, url=None, http_socket=None, token=None, timeout_s=10.0, method="GET"):
    """The JSON that the collector answers at `path`.

    Raises NoAnswer when there is none in time, NotAllowed when a token is asked for, Nonsense when it is none that could
    be meant.
    """
    place = Place(url, http_socket)
    deadline = time.monotonic() + timeout_s
    reader = Reader()
    try:
        with _connected(place.addresses(), deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(place.request(path, token, method))
            whole = False
            while not whole:
                connection.settimeout(_left(deadline))
                whole = reader.feed(connection.recv(PIECE))
    except (NoHttp, TooMuch, OSError) as error:
        raise _error(place, path, timeout_s, error) from None
    return understood(place, path, reader.status, reader.body, token)


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


def _connected(addresses, deadline):
    """A socket to the first address that takes it.  Raises OSError: that of the last."""
    for place, (family, address) in enumerate(addresses, 1):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
            if place == len(addresses):
                raise


def where_of(values):
    """{"url", "http_socket"} of a command's options; what was typed goes before what a variable says."""
    if values.meant("url"):
        if values.meant("http_socket"):
            raise UsageError("--url and --http-socket: one of them")
        return {"url": values.url, "http_socket": None}
    return {"url": values.url, "http_socket": values.http_socket}


def summary(**where):
    """The collector's summary, checked for being one (see state.view)."""
    answer = fetch("/api/summary", **where)
    if not is_summary(answer):
        place = Place(where.get("url"), where.get("http_socket"))
        raise Nonsense(f"{place.where}: /api/summary is no summary of modwsgi-tel")
    return answer


def is_summary(answer):
    """Whether some JSON has the outline of a summary (see state.view)."""
    return isinstance(answer, dict) and answer.get("type") == "summary" and all(
        isinstance(answer.get(name), kind) for name, kind in (("totals", dict), ("groups", list), ("processes", list),
                                                             ("collector", dict)))


# --- inside a select loop ---------------------------------------------------------------

class Asker:
    """Asks for JSON without ever waiting: one after another, on a connection that stays open.

        asker = Asker(loop, Place("http://127.0.0.1:8888"))
        asker.ask("/api/summary", done)         # later: done(answer), or done(a TelError)

    loop: a net.loop.Loop, or what has its readers, writers, after and clock.  A name is
    resolved here, once, and may block; the addresses behind it are tried in turn.
    timeout_s: for the whole of a request.  A connection that turns out closed since the last
    answer is made anew, once.  Each callback reads at most PIECE bytes; the JSON of a whole answer
    is read in one go, 10 ms for each MB.
    Raises TelError when the name is not known, UsageError for a token that is none.
    """

    def __init__(self, loop, place, token=None, timeout_s=10.0):
        self._loop, self._place, self._token, self._timeout_s = loop, place, token, timeout_s
        place.request("/", token)
        try:
            self._addresses = place.addresses()
        except OSError as error:
            raise _error(place, "", timeout_s, error) from None
        self._at = 0                    # the address that is used, or tried next
        self._tries = 0                 # addresses that this request may still try
        self._socket = None
        self._connected = False         # the connection has taken bytes
        self._reused = False            # and given an answer already
        self._reader = None
        self._unsent = b""
        self._path = self._request = self._done = None
        self._turn = 0                  # grows with each request: what an older one left behind is not for this one
        self._deadline = 0.0
        self._watching = False          # a timer is under way
        self._closed = False

    @property
    def busy(self):
        """Whether a request is under way."""
        return self._done is not None

    def ask(self, path, done, method="GET"):
        """GET or POST a path; `done` is called once and never from in here, with the parsed JSON or a TelError.

        Raises RuntimeError while busy or after close(), ValueError for what is no path.
        """
        if self.busy or self._closed:
            raise RuntimeError("closed" if self._closed else "one request at a time")
        self._request = self._place.request(path, self._token, method)
        self._path, self._done = path, done
        self._tries = len(self._addresses)
        self._deadline = self._loop.clock() + self._timeout_s
        self._turn += 1
        self._later(0.0, self._begin)
        if not self._watching:
            self._watching = True
            self._loop.after(self._timeout_s, self._watch)

    def cancel(self):
        """Forget the request under way, if any: its `done` is not called."""
        if self.busy:
            self._done = None
            self._disconnect()          # its answer is not to be taken for the next one's

    def close(self):
        """Forget the request under way, and close the connection; nothing can be asked any more."""
        self._done = None
        self._closed = True
        self._disconnect()

    # --- time -----------------------------------------------------------------------

    def _later(self, seconds, step):
        """Call `step` unless the request of now is over by then."""
        turn = self._turn

        def call():
            if self.busy and self._turn == turn:
                step()

        self._loop.after(seconds, call)

    def _watch(self):
        # one timer, moved on: one for each request would pile up, since a loop's timers cannot be taken back
        left = self._deadline - self._loop.clock()
        self._watching = self.busy and left > 0
        if self._watching:
            self._loop.after(left, self._watch)
        elif self.busy:
            self._next_address()        # the next request may have better luck there
            self._fail(socket.timeout())

    # --- the connection -------------------------------------------------------------

    def _begin(self):
        if self._socket is None:
            self._connect()
        else:
            self._send_from(self._request)

    def _connect(self):
        family, address = self._addresses[self._at]
        self._connected = self._reused = False
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._socket.connect(address)
        except BlockingIOError as error:
            if error.errno != errno.EINPROGRESS:            # a unix socket with too many waiting before us
                self._disconnect()
                self._later(FULL_WAIT_S, self._connect)
                return
        except OSError as error:
            self._refused(error)
            return
        self._send_from(self._request)

    def _refused(self, error):
        """Nobody at this address: try the next one, or give up."""
        self._disconnect()
        self._next_address()
        self._tries -= 1
        if self._tries:
            self._connect()
        else:
            self._fail(error)

    def _next_address(self):
        self._at = (self._at + 1) % len(self._addresses)

    def _send_from(self, unsent):
        self._unsent = unsent
        self._reader = Reader()
        descriptor = self._socket.fileno()
        self._loop.readers.pop(descriptor, None)
        self._loop.writers[descriptor] = self._writable

    def _writable(self):
        """Connected, or refused; or there is room for more of the request."""
        try:
            failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise OSError(failed, os.strerror(failed))
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            if self._connected:
                self._broken(error)
            else:
                self._refused(error)
            return
        self._connected = True
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            descriptor = self._socket.fileno()
            del self._loop.writers[descriptor]
            self._loop.readers[descriptor] = self._readable

    def _readable(self):
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error)
            return
        if self._reader is None:        # closed, or talking without being asked
            self._disconnect()
            return
        if not data and self._reused and not self._reader.begun:
            self._broken(None)
            return
        try:
            whole = self._reader.feed(data)
        except (NoHttp, TooMuch) as error:
            self._fail(error)
            return
        if whole:
            self._answered()

    def _broken(self, error):
        """The connection is gone: closed since the last answer, which may be, or in the middle of this one."""
        asked = self._reader is not None
        again = asked and self._reused and not self._reader.begun
        self._disconnect()
        if again:
            self._connect()
        elif asked:
            self._fail(error)

    def _disconnect(self):
        if self._socket is not None:
            descriptor = self._socket.fileno()
            self._loop.readers.pop(descriptor, None)
            self._loop.writers.pop(descriptor, None)
            self._socket.close()
            self._socket = self._reader = None

    # --- the end of a request -------------------------------------------------------

    def _answered(self):
        reader, self._reader = self._reader, None
        if reader.keeps:
            self._reused = True
        else:
            self._disconnect()
        try:
            answer = understood(self._place, self._path, reader.status, reader.body, self._token)
        except TelError as error:
            answer = error
        self._finish(answer)

    def _fail(self, error):
        self._disconnect()
        self._finish(_error(self._place, self._path, self._timeout_s, error))

    def _finish(self, answer):
        done, self._done = self._done, None
        done(answer)                    # last of all: it may ask again
