"""The node's WebSocket protocol without a node: a transport in memory, and a recorder as handler."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from imd.config.settings import Limits, Settings
from imd.entry.gate import Gate
from imd.wire.autobahn_internals import with_shared_attributes
from imd.wire.handler import Handler
from imd.wire.listener import ChannelFactory
from imd.wire.outgoing import Outgoing
from imd.wire.websocket import ChannelProtocol
from tests.hostile.raw import handshake

MESSAGE_BYTES = 100


class Recorder:
    """A handler that records its calls. It answers each text, and closes or pauses if a text asks for it."""

    early_bytes = 0

    def __init__(self, protocol: ChannelProtocol, outgoing: Outgoing, bearer: str | None) -> None:
        self.protocol = protocol
        self.events: list[object] = []

    def frame_received(self, payload: bytes) -> None:
        self.events.append(payload)
        if self.protocol.outgoing is not None:
            self.protocol.outgoing.send(b"got %d bytes" % len(payload))
        if payload == b"please close":
            self.protocol.close(4000, "as asked")
        elif payload == b"please pause":
            self.protocol.pause_reading()

    def spend(self, cost: float) -> None:
        """Nothing is limited."""

    def binary_received(self) -> None:
        self.events.append("binary")

    def lost(self, clean: bool) -> None:
        self.events.append(("lost", clean))

    def close(self, code: int, reason: str) -> None:
        self.protocol.close(code, reason)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Record any other call."""
        return lambda *told: self.events.append((name, *told))


class RecordedProtocol(ChannelProtocol):
    """The protocol as on a node, with a Recorder behind it."""

    def onOpen(self) -> None:
        self.handler = self.factory.make_handler(self, self._begin_to_write(), None)


class SlowProtocol(RecordedProtocol):
    """The same without the fast path: Autobahn handles every byte."""

    dataReceived = WebSocketServerProtocol.dataReceived


class _Transport(StringTransport):
    """A transport that knows whether its connection was aborted."""

    aborted = False

    def unregisterProducer(self) -> None:
        """May be called more than once, as with a socket."""
        if self.producer is not None:
            super().unregisterProducer()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class InProcess:
    """One connection: bytes in, bytes out."""

    def __init__(
        self,
        protocol: type[ChannelProtocol] = RecordedProtocol,
        make_handler: Callable[[ChannelProtocol, Outgoing, str | None], Handler] | None = None,
        **sections: Any,
    ) -> None:
        """`make_handler`: of another handler than a Recorder."""
        self.clock = Clock()
        settings = Settings(limits=Limits(message_bytes=MESSAGE_BYTES), **sections)
        gate = Gate(self.clock.seconds, self.clock.callLater)
        self.factory = ChannelFactory(
            self.clock, settings, gate, make_handler or Recorder, max_connections=100
        )
        self.factory.protocol = with_shared_attributes(protocol, self.factory)
        # Autobahn's timers would use the reactor.
        self.factory._batched_timer = SimpleNamespace(call_later=self.clock.callLater)
        address = IPv4Address("TCP", "127.0.0.1", 9000)
        self.protocol: Any = self.factory.buildProtocol(address)
        self.transport = _Transport(address, address)
        self.protocol.makeConnection(self.transport)

    def open(self) -> InProcess:
        self.receive(handshake())
        assert self.written().startswith(b"HTTP/1.1 101 ")
        return self

    def receive(self, data: bytes) -> None:
        """Let the protocol receive bytes, unless the transport is disconnecting, as from a socket."""
        if not self.transport.disconnecting:
            self.protocol.dataReceived(data)

    def lose(self) -> None:
        """End the connection without a close."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def written(self) -> bytes:
        """The bytes written since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    @property
    def recorder(self) -> Recorder:
        return self.protocol.handler  # type: ignore[no-any-return]
