"""The client's side of a WebSocket on asyncio: small, so that hundreds of clients fit into one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Wire(asyncio.Protocol):
    """One WebSocket. `on_frame` gets each JSON frame, `on_closed` the close code (None: none came)."""

    def __init__(
        self,
        on_frame: Callable[[dict[str, Any]], None],
        on_closed: Callable[[], None],
        first: Any,
        path: str,
    ) -> None:
        self._first = first
        self._path = path
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._transport: Any = None
        self._buffer = b""
        self._upgraded = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.close_code: int | None = None
        self.closed = False
        self.closing = False
        """a close frame was sent"""
        self.deaf = False

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        on_frame: Callable[[dict[str, Any]], None],
        on_closed: Callable[[], None],
        seconds: float,
        first: Any = None,
        path: str = "/ws",
    ) -> Wire:
        """An open WebSocket. `first` is sent with the handshake. Raises OSError or TimeoutError."""
        async with asyncio.timeout(seconds):
            loop = asyncio.get_running_loop()
            _, wire = await loop.create_connection(lambda: cls(on_frame, on_closed, first, path), host, port)
            try:
                await wire.opened
            except BaseException:
                wire.abort()
                raise
            return wire

    def send(self, frame: Any) -> None:
        if not self.closed:
            self._write(_TEXT, _encode(frame))

    def close(self) -> None:
        """Begin to close in good order; frames that are under way still come. One that is deaf cannot."""
        if not self.closed and not self.deaf:
            self.closing = True
            self._write(_CLOSE, (1000).to_bytes(2, "big"))

    def abort(self) -> None:
        """Drop the connection without a word. Nothing more comes."""
        self._upgraded = False
        if self._transport is not None:
            self._transport.abort()

    def deafen(self) -> None:
        """Read nothing more, as a client does whose network is gone."""
        if not self.closed:
            self.deaf = True
            self._transport.pause_reading()

    # from asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        if self._first is not None:
            self.send(self._first)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self.opened.done():
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head[:80].decode("latin-1")))
                return
            self._upgraded = True
            self.opened.set_result(None)
        start = 0
        while self._upgraded and len(buffer) - start >= 2:
            size, at = buffer[start + 1], start + 2
            if size >= 126:
                wide = 2 if size == 126 else 8
                size, at = int.from_bytes(buffer[at : at + wide], "big"), at + wide
            if len(buffer) < at + size:
                break
            self._frame(buffer[start] & 15, buffer[at : at + size])
            start = at + size
        self._buffer = buffer[start:]

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed in the handshake"))
            self.opened.exception()
        self.gone.set_result(None)
        self._on_closed()

    # from within

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._on_frame(_decode(payload))
        elif opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            self._write(_CLOSE, payload[:2])
            self._transport.close()

    def _write(self, opcode: int, payload: bytes) -> None:
        # Masked with zeros, which leaves the payload as it is.
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        else:
            head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
        if not self._transport.is_closing():
            self._transport.write(head + b"\0\0\0\0" + payload)
