"""Asking a running collector, by http.client: bounded in time and size."""
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

from modwsgi_tel.errors import Nonsense, TelError, UsageError

LARGEST = 64 << 20                      # bytes of an answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(path, url=None, http_socket=None, token=None, timeout_s=10.0):
    """The JSON that the collector answers at `path`.

    Raises TelError when there is no answer in time, Nonsense when it is none that could be meant.
    """
    where = http_socket or url
    prefix = ""
    if http_socket:
        connection = _UnixConnection(http_socket, timeout_s)
    else:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme != "http" or not parts.hostname or port == -1:
            raise UsageError(f"--url {url}: like http://127.0.0.1:8888")
        connection = http.client.HTTPConnection(parts.hostname, port or 80, timeout=timeout_s)
        prefix = parts.path.rstrip("/")
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    deadline = time.monotonic() + timeout_s
    try:
        connection.request("GET", prefix + path, headers=headers)
        response = connection.getresponse()
        body = b""
        while True:
            if connection.sock is not None:
                connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
            got = response.read1(1 << 20)
            if not got:
                break
            body += got
            if len(body) > LARGEST:
                raise Nonsense(f"{where}{path}: more than {LARGEST >> 20} MiB")
            if time.monotonic() > deadline:
                raise socket.timeout
    except socket.timeout:
        raise TelError(f"{where} did not answer within {timeout_s:g} s") from None
    except http.client.HTTPException as error:
        raise Nonsense(f"{where}: no HTTP answer: {type(error).__name__}") from None
    except OSError as error:
        raise TelError(f"{where} does not answer: {error.strerror or error}; is the collector running?") from None
    finally:
        connection.close()
    if response.status == 401:
        raise TelError(f"{where} asks for a token: give --token-file")
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except ValueError:
        raise Nonsense(f"{where}{path}: answers {response.status} and no JSON") from None
    if response.status != 200:
        said = answer.get("error") if isinstance(answer, dict) else None
        raise Nonsense(f"{where}{path}: answers {response.status}" + (f": {said}" if said else ""))
    return answer


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
