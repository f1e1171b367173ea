"""The client for asyncio, on the protocol (without I/O) of `websockets` and on asyncio's own sockets."""

from __future__ import annotations

import asyncio
import inspect
import random
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from imd.client.driver import Driver, Token

MAX_FRAME_BYTES = 16 << 20
"""for frames of a node; a page of history may be long"""


class Client(Driver):
    """`async with Client("ws://127.0.0.1:9000/ws", user_id="alice") as client:`"""

    _chance = staticmethod(random.random)
    _socket: _Socket | None = None
    _dialling: asyncio.Task[None] | None = None
    _asking: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> Client:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _seconds(self) -> float:
        return time.monotonic()

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        return asyncio.get_running_loop().call_later(seconds, call)

    def _promise(self) -> Any:
        return asyncio.get_running_loop().create_future()

    def _settle(self, promise: Any, value: Any) -> None:
        if promise.done():
            return
        if isinstance(value, BaseException):
            promise.set_exception(value)
            # Marked as seen: asyncio logs an exception that nobody awaits.
            promise.exception()
        else:
            promise.set_result(value)

    def _ask_token(self, ask: Token) -> None:
        async def token() -> Any:
            answer = ask()
            return await answer if inspect.isawaitable(answer) else answer

        self._asking = asyncio.ensure_future(token())
        self._asking.add_done_callback(self._token_came)

    def _token_came(self, asked: asyncio.Future[Any]) -> None:
        if asked.cancelled():
            return
        error = asked.exception()
        if error is None:
            self._token_given(asked.result())
        else:
            self._token_failed(error)

    def _dial(self, connection: int) -> None:
        self._dialling = asyncio.ensure_future(self._connect(connection))

    async def _connect(self, connection: int) -> None:
        try:
            uri = parse_uri(self._place())
            await asyncio.get_running_loop().create_connection(
                lambda: _Socket(self, connection, ClientProtocol(uri, max_size=MAX_FRAME_BYTES)),
                uri.host,
                uri.port,
                ssl=ssl.create_default_context() if uri.secure else None,
            )
        except (OSError, InvalidURI, ValueError) as error:
            self._closed_socket(connection, None, f"{type(error).__name__}: {error}")

    def _transmit(self, text: str) -> None:
        if self._socket is not None:
            self._socket.send(text.encode())

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _drop(self) -> None:
        for task in (self._dialling, self._asking):
            if task is not None:
                task.cancel()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.abort()


class _Socket(asyncio.Protocol):
    """One WebSocket: moves bytes between the transport and the protocol of `websockets`."""

    def __init__(self, client: Client, connection: int, protocol: ClientProtocol) -> None:
        self._client = client
        self._connection = connection
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client._socket = self
        self._protocol.send_request(self._protocol.connect())
        self._write()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._go_on()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._go_on()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._client._socket is self:
            self._client._socket = None
        close = self._protocol.close_rcvd
        if close is not None:
            self._client._closed_socket(self._connection, close.code, close.reason)
        else:
            reason = self._protocol.handshake_exc or error or "the connection was lost"
            self._client._closed_socket(self._connection, None, str(reason))

    def send(self, payload: bytes) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_text(payload)
            self._write()

    def close(self) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._write()
        else:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _go_on(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is None:
                    self._client._opened_socket(self._connection)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    payload, self._parts = b"".join(self._parts), []
                    self._client._received(self._connection, payload)
        self._write()
        if self._protocol.close_expected() and self._transport is not None:
            # The closing handshake is over, or there was none.
            self._transport.close()

    def _write(self) -> None:
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
