"""A WebSocket client for tests: what is sent and read is what the test says."""
import base64
import json
import os
import socket

from modwsgi_tel.web.websocket import CLOSE, TEXT, accept_key

DEADLINE_S = 20.0


def upgrade(path, host, key=None, **headers):
    """The bytes of a handshake; a header None is left out."""
    wanted = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
              **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{name}: {value}" for name, value in wanted.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def masked(opcode, payload=b"", final=True):
    """A frame as a client sends it, of up to 65535 bytes."""
    mask, size = os.urandom(4), len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((final << 7 | opcode,)) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class WebSocket:
    """One connection to a port of this machine.  status: of the handshake's answer, with its headers (lower-case names)
    and, where it is no 101, its body.  rest: what to send right behind the handshake.  receive_bytes: that the kernel holds for it.
    """

    def __init__(self, port, path="/ws", rest=b"", receive_bytes=None, **headers):
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(("127.0.0.1", port))
        self._file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(upgrade(path, f"127.0.0.1:{port}", key, **headers) + rest)
        self.status = int(self._file.readline().split(b" ")[1])
        self.headers = {}
        for line in iter(self._file.readline, b"\r\n"):
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
            self.headers[name.lower()] = value
        self.body = b""
        if self.status == 101:
            assert self.headers["sec-websocket-accept"] == accept_key(key.encode())
        else:
            self.body = self._file.read(int(self.headers.get("content-length", 0)))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()
        self.socket.close()

    def send(self, opcode, payload=b"", final=True):
        self.socket.sendall(masked(opcode, payload, final))

    def frame(self):
        """(final, opcode, payload); None at the end of the connection."""
        head = self._file.read(2)
        if len(head) < 2:
            return None
        assert not head[0] & 0x70 and not head[1] & 0x80, head
        size = head[1]
        if size > 125:
            size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
        payload = self._file.read(size)
        assert len(payload) == size
        return bool(head[0] & 0x80), head[0] & 15, payload

    def event(self):
        """The next whole message or control frame: (opcode, payload); None at the end.  Control frames come in between."""
        parts = []
        while True:
            found = self.frame()
            if found is None:
                return None
            final, opcode, payload = found
            if opcode >= CLOSE:
                assert final
                return opcode, payload
            assert opcode == (0 if parts else TEXT)
            parts.append(payload)
            if final:
                return TEXT, b"".join(parts)

    def message(self):
        """The next message, as its JSON says."""
        opcode, payload = self.event()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    def messages(self, until):
        """All messages up to the one for which `until(message)` is true."""
        found = [self.message()]
        while not until(found[-1]):
            found.append(self.message())
        return found
