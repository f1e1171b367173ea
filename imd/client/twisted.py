"""The client for Twisted, on Autobahn."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from imd.client.alarm import call_later
from imd.client.driver import Driver, Token

MAX_FRAME_BYTES = 16 << 20
"""for frames of a node; a page of history may be long"""


class Client(Driver):
    """A client whose methods give Deferreds. `reactor`: the global one if none is given.

    `async for message in client.messages()` works in a coroutine that `ensureDeferred` runs.
    """

    _chance = staticmethod(random.random)

    def __init__(self, url: str | Callable[[], str], *, reactor: Any = None, **more: Any) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._socket: _Socket | None = None
        self._dialling: Deferred[Any] | None = None
        self._asking: Deferred[Any] | None = None
        super().__init__(url, **more)

    def _seconds(self) -> float:
        return time.monotonic()

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        return call_later(self._reactor, seconds, call)

    def _promise(self) -> Any:
        return Deferred()

    def _settle(self, promise: Any, value: Any) -> None:
        if not promise.called:
            promise.callback(value) if not isinstance(value, BaseException) else promise.errback(value)

    def _ask_token(self, ask: Token) -> None:
        async def token() -> Any:
            answer = ask()
            return answer if isinstance(answer, str) else await answer

        self._asking = ensureDeferred(token())
        self._asking.addCallbacks(self._token_given, lambda failure: self._token_failed(failure.value))

    def _dial(self, connection: int) -> None:
        self._dialling = maybeDeferred(self._connect, connection)
        self._dialling.addErrback(self._no_socket, connection)

    def _connect(self, connection: int) -> Deferred[Any]:
        url = self._place()
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "wss"
        endpoint: Any = HostnameEndpoint(self._reactor, host, parts.port or (443 if secure else 80))
        if secure:
            endpoint = wrapClientTLS(optionsForClientTLS(host), endpoint)
        return endpoint.connect(_Factory(self, connection, url))

    def _no_socket(self, failure: Failure, connection: int) -> None:
        self._closed_socket(connection, None, f"{type(failure.value).__name__}: {failure.getErrorMessage()}")

    def _transmit(self, text: str) -> None:
        if self._socket is not None and self._socket.state == _Socket.STATE_OPEN:
            self._socket.sendMessage(text.encode())

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.sendClose(1000)

    def _drop(self) -> None:
        for doing in (self._dialling, self._asking):
            if doing is not None and not doing.called:
                doing.cancel()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abortConnection()


class _Socket(WebSocketClientProtocol):
    factory: _Factory
    transport: Any
    _opened = False

    def connectionMade(self) -> None:
        self.factory.client._socket = self
        super().connectionMade()

    def onOpen(self) -> None:
        self._opened = True
        self.factory.client._opened_socket(self.factory.connection)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.client._received(self.factory.connection, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        client = self.factory.client
        if client._socket is self:
            client._socket = None
        # The argument may be a code of Autobahn's own, such as 1006; `remoteCloseCode` is the node's.
        # The reason of a failed handshake is useful, that of a connection that broke later is not.
        if self._opened and self.remoteCloseCode is None:
            reason = None
        client._closed_socket(
            self.factory.connection, self.remoteCloseCode, reason or "the connection was lost"
        )


class _Factory(WebSocketClientFactory):
    protocol: Any = _Socket
    noisy = False

    def __init__(self, client: Client, connection: int, url: str) -> None:
        super().__init__(url, reactor=client._reactor)
        self.client = client
        self.connection = connection
        self.setProtocolOptions(
            maxFramePayloadSize=MAX_FRAME_BYTES,
            maxMessagePayloadSize=MAX_FRAME_BYTES,
            tcpNoDelay=True,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
        )
