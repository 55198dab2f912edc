"""Asking a running collector, by http.client: bounded in time and size."""
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

from modwsgi_tel.errors import Nonsense, TelError, UsageError

LARGEST = 64 << 20                      # bytes of an answer


class _Socket(socket.socket):
    """Gives up at one time, however little by little the other side sends."""

    deadline = 0.0

    def recv_into(self, *arguments):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self.settimeout(left)
        return super().recv_into(*arguments)


class _Connection(http.client.HTTPConnection):
    """To a host, or with `path` to a unix socket; its whole answer is to be there after `timeout` seconds."""

    def __init__(self, host, port, timeout, path=None):
        super().__init__(host, port, timeout=timeout)
        self._path = path
        self._deadline = time.monotonic() + timeout

    def connect(self):
        if self._path is None:
            super().connect()
            plain, self.sock = self.sock, None
            self.sock = _Socket(plain.family, plain.type, plain.proto, plain.detach())
        else:
            self.sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.deadline = self._deadline
        self.sock.settimeout(self.timeout)
        if self._path is not None:
            self.sock.connect(self._path)


def fetch(path, url=None, http_socket=None, token=None, timeout_s=10.0):
    """The JSON that the collector answers at `path`.

    Raises TelError when there is no answer in time, Nonsense when it is none that could be meant.
    """
    where = http_socket or url
    prefix = ""
    if http_socket:
        connection = _Connection("localhost", 80, timeout_s, http_socket)
    else:
        try:
            parts = urlsplit(url)
            if parts.scheme != "http" or not parts.hostname:
                raise ValueError
            connection = _Connection(parts.hostname, parts.port or 80, timeout_s)
        except ValueError:
            raise _no_url(url) from None
        prefix = parts.path.rstrip("/")
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}".encode()
    response = None
    try:
        connection.request("GET", prefix + path, headers=headers)
        response = connection.getresponse()
        promised = response.length or 0
        body = b""
        while True:
            got = response.read1(1 << 20)
            if not got:
                break
            body += got
            if len(body) > LARGEST:
                raise Nonsense(f"{where}{path}: more than {LARGEST >> 20} MiB")
        if len(body) < promised:
            raise http.client.IncompleteRead(b"")
    except socket.timeout:
        raise TelError(f"{where} did not answer within {timeout_s:g} s") from None
    except (http.client.InvalidURL, UnicodeError):
        raise _no_url(url) from None
    except http.client.HTTPException as error:
        raise Nonsense(f"{where}: no HTTP answer: {type(error).__name__}") from None
    except OSError as error:
        raise TelError(f"{where} does not answer: {error.strerror or error}; is the collector running?") from None
    finally:
        connection.close()
        if response is not None:
            response.close()
    if response.status == 401:
        raise TelError(f"{where} asks for a token: give --token-file")
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Nonsense(f"{where}{path}: answers {response.status} and no JSON") from None
    if response.status != 200:
        said = answer.get("error") if isinstance(answer, dict) else None
        raise Nonsense(f"{where}{path}: answers {response.status}" + (f": {said}" if said else ""))
    return answer


def _no_url(url):
    return UsageError(f"--url {url}: like http://127.0.0.1:8888")


def _refuse(word):
    raise ValueError(word)


def summary(**where):
    """The collector's summary, checked for being one (see state.view)."""
    answer = fetch("/api/summary", **where)
    if not isinstance(answer, dict) or answer.get("type") != "summary" or not all(
            isinstance(answer.get(name), kind) for name, kind in (("totals", dict), ("groups", list), ("processes", list),
                                                                 ("collector", dict))):
        raise Nonsense(f"{where.get('http_socket') or where.get('url')}: /api/summary is no summary of modwsgi-tel")
    return answer
