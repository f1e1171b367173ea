"""A TCP proxy between one node and one backend that can be cut or made a black hole."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.servers import HOST

_OPEN_BUFFER_BYTES = 1 << 20


class Proxy:
    """Passes bytes on until told otherwise. Ports are loopback ones."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self._mode = "pass"
        self._pairs: set[_Side] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), HOST, self.port)

    async def stop(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """Drop all connections, and each new one at once."""
        self._mode = "cut"
        self.drop()

    def drop(self) -> None:
        """Drop all connections there are."""
        for side in list(self._pairs):
            side.abort()

    def swallow(self) -> None:
        """Let nothing through any more, and tell nobody; what is sent meanwhile comes when it is mended."""
        self._mode = "hole"
        for side in self._pairs:
            side.hold()

    def mend(self) -> None:
        self._mode = "pass"
        for side in list(self._pairs):
            side.go_on()

    @property
    def mode(self) -> str:
        return self._mode


class _Side(asyncio.Protocol):
    """One end of a connection; the other one is its peer."""

    def __init__(self, proxy: Proxy, peer: _Side | None = None) -> None:
        self._proxy = proxy
        self.peer = peer
        self.transport: Any = None
        self.early = bytearray()
        self.outgoing = peer is not None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=_OPEN_BUFFER_BYTES)
        self._proxy._pairs.add(self)
        if self._proxy.mode == "cut":
            transport.abort()
        elif self._proxy.mode == "hole":
            self._waiting = not self.outgoing
            transport.pause_reading()
        elif not self.outgoing:
            self._connect()
        if self.outgoing and self.peer is not None:
            if self.peer.transport.is_closing():
                transport.abort()
                return
            transport.write(bytes(self.peer.early))
            self.peer.early.clear()

    def _connect(self) -> None:
        self._waiting = False
        self._connecting = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, other = await loop.create_connection(
                lambda: _Side(self._proxy, self), HOST, self._proxy.target
            )
            self.peer = other
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self.early += data
        elif not self.peer.transport.is_closing():
            self.peer.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy._pairs.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            # Its last bytes have to arrive.
            self.peer.transport.close() if error is None else self.peer.transport.abort()

    def abort(self) -> None:
        self.transport.abort()

    def hold(self) -> None:
        self.transport.pause_reading()

    def go_on(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._waiting:
            self._connect()
