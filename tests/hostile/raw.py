"""A WebSocket client that may break any rule: it sends bytes over a blocking socket, and reads frames."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
from typing import Any, NamedTuple

from tests.support.servers import HOST

WAIT_SECONDS = 60.0
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_names = itertools.count(1)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame in its shortest encoding."""
    return header(opcode, len(payload), fin=fin, rsv=rsv, masked=masked) + (
        mask(payload) if masked else payload
    )


def header(
    opcode: int, size: int, *, fin: bool = True, rsv: int = 0, masked: bool = True, length_bytes: int = 0
) -> bytes:
    """A frame's header; `length_bytes` (2 or 8) makes the length longer than necessary."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    flag = 0x80 if masked else 0
    if length_bytes == 8 or size > 0xFFFF:
        return bytes([first, flag | 127]) + size.to_bytes(8, "big")
    if length_bytes == 2 or size > 125:
        return bytes([first, flag | 126]) + size.to_bytes(2, "big")
    return bytes([first, flag | size])


def mask(payload: bytes) -> bytes:
    """A masking key, and the payload under it."""
    key = os.urandom(4)
    whole = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return key + masked.to_bytes(len(payload), "big")


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def handshake(*extra: str, path: str = "/ws", host: str = HOST, **replaced: str | None) -> bytes:
    """The opening request; `replaced` changes headers (`_` for `-`), or with None leaves them out."""
    headers: dict[str, str | None] = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": _KEY,
        "Sec-WebSocket-Version": "13",
    }
    headers.update({name.replace("_", "-"): value for name, value in replaced.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, *extra, "", ""]).encode("latin-1")


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def brief(self) -> object:
        """In short: the type of a text frame (for an error its code), or opcode and payload."""
        if self.opcode == TEXT:
            content = json.loads(self.payload)
            return content["code"] if content.get("type") == "error" else content.get("type", "message")
        if self.opcode == CLOSE:
            return int.from_bytes(self.payload[:2], "big") if self.payload else None
        return self.opcode, self.payload


class RawClient:
    """A connection to a node. Every wait has a deadline. A read ends if the node cuts the connection."""

    def __init__(
        self,
        port: int | str,
        receive_buffer: int | None = None,
        address: str = HOST,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`port`: or the path of a Unix socket. `address`: the loopback address to come from."""
        is_unix = isinstance(port, str)
        self.socket = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT_SECONDS)
        if is_unix:
            self.socket.connect(port)
        else:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.bind((address, 0))
            self.socket.connect((HOST, port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self.user = f"raw-{next(_names)}-{os.urandom(3).hex()}"
        self.ended = False
        self._data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send each part by itself. It is no error if the node has closed the connection."""
        for part in parts:
            with contextlib.suppress(ConnectionError):
                self.socket.sendall(part)

    def open(self, request: bytes | None = None) -> bytes:
        """Shake hands. Returns the head of the answer."""
        self.send(handshake() if request is None else request)
        while b"\r\n\r\n" not in self._data and self._read():
            pass
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head

    def open_with(self, **headers: str | None) -> bytes:
        """Shake hands with these headers. Returns the head of the answer."""
        return self.open(handshake(**headers))

    def login(self, **fields: Any) -> RawClient:
        """Shake hands, and send the connect signal."""
        assert self.open().startswith(b"HTTP/1.1 101 "), "no WebSocket"
        self.say({"isConnect": True, "userId": self.user, "loginType": "USER_TYPE", **fields})
        answer = self.next_text()
        assert answer["type"] == "connected", answer
        return self

    def say(self, content: Any) -> None:
        self.send(frame(TEXT, json.dumps(content).encode()))

    def next(self) -> Frame | None:
        """The next frame; None once the node has ended the connection."""
        while True:
            found = self._whole()
            if found is not None:
                return found
            if not self._read():
                return None

    def next_but_pings(self) -> Frame | None:
        """The next frame that is no ping; pings before it are answered. None: the connection has ended."""
        while (came := self.next()) is not None and came.opcode == PING:
            self.send(frame(PONG, came.payload))
        return came

    def next_text(self) -> dict[str, Any]:
        """The content of the next text frame; pings before it are answered. A message's type is `message`."""
        came = self.next_but_pings()
        assert came is not None, "the node has gone"
        assert came.opcode == TEXT, came
        return {"type": "message", **json.loads(came.payload)}

    def rest(self) -> list[Frame]:
        """All frames until the node ends the connection."""
        return list(iter(self.next, None))

    def to_the_end(self) -> list[Frame]:
        """All frames up to the node's close frame, which is answered. No frame may follow it."""
        found: list[Frame] = []
        while (came := self.next()) is not None:
            found.append(came)
            if came.opcode == CLOSE:
                self.send(close_frame())
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_WR)
        return found

    def until(self, opcode: int) -> list[Frame]:
        """All frames up to the first one of this kind."""
        found: list[Frame] = []
        while not found or found[-1].opcode != opcode:
            came = self.next()
            assert came is not None, f"the node has gone; before that: {found[-3:]}"
            found.append(came)
        return found

    def _whole(self) -> Frame | None:
        data = self._data
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "a node sends whole frames without reserved bits"
        assert data[1] < 0x80, "a node masks nothing"
        start, size = 2, data[1]
        if size > 125:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self._data = data[start + size :]
        return Frame(data[0] & 0x0F, data[start : start + size])

    def _read(self) -> bool:
        try:
            came = self.socket.recv(65536)
        except ConnectionError:
            came = b""
        self._data += came
        self.ended = not came
        return bool(came)
