"""A small WebSocket client for tests: frames in a queue, every wait with a deadline."""

from __future__ import annotations

import json
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.ssl import CertificateOptions

WAIT_SECONDS = 180


class _Protocol(WebSocketClientProtocol):
    client: WsClient

    def onOpen(self) -> None:
        self.client._opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.client._arrived(json.loads(payload))

    def onPing(self, payload: bytes) -> None:
        if self.client.answers_pings:
            self.sendPong(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        client = self.client
        client.close_code, client.close_reason = code, reason
        if not client._opened.called:
            client._opened.errback(ConnectionError(f"refused: {reason}"))
        client.closed = True
        client._wake()


class WsClient:
    """`await WsClient.open(url)`, or `await WsClient.login(url, "alice")` with the connect signal sent."""

    def __init__(self) -> None:
        self.frames: deque[dict[str, Any]] = deque()
        self.closed = False
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.answers_pings = True
        self.acks = False
        self.connected: dict[str, Any] = {}
        self.protocol: Any = None
        self._opened: Deferred[None] = Deferred()
        self._waiting: Deferred[None] | None = None

    @classmethod
    async def open(
        cls, url: str, headers: dict[str, str] | None = None, origin: str | None = None
    ) -> WsClient:
        """An open WebSocket; nothing sent yet. Raises ConnectionError if the handshake is refused.

        Of `wss:` the certificate is not looked at.
        """
        client = cls()
        factory = WebSocketClientFactory(url, headers=headers, origin=origin)
        factory.protocol = _Protocol
        factory.setProtocolOptions(openHandshakeTimeout=WAIT_SECONDS)
        parts = urlsplit(url)
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", parts.port or 80)
        if parts.scheme == "wss":
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        build = factory.buildProtocol

        def with_client(address: Any) -> Any:
            protocol = build(address)
            protocol.client = client
            return protocol

        factory.buildProtocol = with_client
        client.protocol = await endpoint.connect(factory)
        await client._opened
        return client

    @classmethod
    async def login(cls, url: str, user: str | None = None, **fields: Any) -> WsClient:
        """A connected client. An acknowledging one (`ack=True`) acknowledges whatever `message` takes."""
        client = await cls.open(url)
        frame = {"isConnect": True, "loginType": "USER_TYPE", **fields}
        if user is not None:
            frame["userId"] = user
        client.send({key: value for key, value in frame.items() if value is not None})
        client.connected = await client.expect("connected")
        client.acks = bool(fields.get("ack"))
        return client

    def send(self, frame: Any) -> None:
        self.send_raw(json.dumps(frame).encode())

    def send_raw(self, payload: bytes, binary: bool = False) -> None:
        self.protocol.sendMessage(payload, binary)

    async def next(self, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The next frame, whatever it is. Raises TimeoutError, or ConnectionError once closed."""
        while not self.frames:
            if self.closed:
                raise ConnectionError(f"closed with {self.close_code}: {self.close_reason}")
            await self._wait(seconds)
        return self.frames.popleft()

    async def expect(self, kind: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The next frame, which must have this type (`message`: none)."""
        frame = await self.next(seconds)
        found = frame.get("type", "message")
        if found != kind:
            raise AssertionError(f"{kind} was expected, this came: {frame}")
        return frame

    async def take(self, kind: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The next frame of this type; others stay in the queue."""
        while True:
            for frame in self.frames:
                if frame.get("type", "message") == kind:
                    self.frames.remove(frame)
                    if kind == "message" and self.acks:
                        self.send({"type": "ack", "seq": frame["seq"]})
                    return frame
            if self.closed:
                raise ConnectionError(f"closed with {self.close_code}: {self.close_reason}")
            await self._wait(seconds)

    async def answer(self, client_msg_id: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The next `accepted` or `error` with this clientMsgId; others stay in the queue."""
        while True:
            for frame in self.frames:
                if frame.get("type") in ("accepted", "error") and frame.get("clientMsgId") == client_msg_id:
                    self.frames.remove(frame)
                    return frame
            if self.closed:
                raise ConnectionError(f"closed with {self.close_code}: {self.close_reason}")
            await self._wait(seconds)

    async def messages(self, count: int, seconds: float = WAIT_SECONDS) -> list[dict[str, Any]]:
        """The next `count` messages."""
        return [await self.take("message", seconds) for _ in range(count)]

    async def given(self, message_id: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a message or an event has come; it stays in the queue. Messages that this client sends
        behind it have higher ids.
        """
        while not any(frame.get("id") == message_id and "seq" in frame for frame in self.frames):
            if self.closed:
                raise ConnectionError(f"closed with {self.close_code}: {self.close_reason}")
            await self._wait(seconds)

    async def say(self, to: str, msg: str, **fields: Any) -> dict[str, Any]:
        """Send a message and wait for its answer, `accepted`."""
        self.send({"to": to, "msg": msg, **fields})
        return await self.take("accepted")

    async def quiet(self) -> None:
        """Return when the node has answered a ping: all it had to say before that is in `frames`."""
        self.send({"type": "ping"})
        await self.take("pong")

    async def wait_closed(self, seconds: float = WAIT_SECONDS) -> int | None:
        """The close code, once the connection is closed."""
        while not self.closed:
            await self._wait(seconds)
        return self.close_code

    async def close(self) -> None:
        """Close cleanly."""
        if not self.closed:
            self.protocol.sendClose(1000)
            await self.wait_closed()

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.protocol.transport.abortConnection()

    def _arrived(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _wait(self, seconds: float) -> None:
        self._waiting = Deferred()
        self._waiting.addTimeout(seconds, reactor)
        await self._waiting
