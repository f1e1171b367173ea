"""One AMQP connection from its handshake to its end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedChannel, TwistedProtocolConnection
from pika.exceptions import StreamLostError
from prometheus_client import Gauge
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from imd.store.rabbit.pika_internals import when_closed_by_broker
from imd.store.rabbit.reasons import reason_of

UNSENT = Gauge(
    "imd_rabbitmq_unsent_bytes", "Written while the broker did not read fast enough.", ["connection"]
)

# The system holds no more that is not on its way: what waits longer waits here, where it is seen.
SYSTEM_UNSENT_BYTES = 16 << 10
RPC_SECONDS = 10.0
CLOSE_SECONDS = 3.0

# pika logs the text of returned messages. Its other lines repeat those of this folder.
logging.getLogger("pika").addHandler(logging.NullHandler())
logging.getLogger("pika").propagate = False


class _Outgoing:
    """The transport as pika sees it: counts unsent bytes, and closes within CLOSE_SECONDS.

    A transport with a producer may put off closing until the producer is gone; under TLS, for ever.
    """

    disconnecting = False

    def __init__(self, reactor: Any, transport: Any, name: str) -> None:
        self._reactor = reactor
        self._transport = transport
        self._paused = False
        self._unsent = UNSENT.labels(name)
        self._abort_call: Any = None
        self.unsent_bytes = 0
        transport.registerProducer(self, True)

    # from pika

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._paused:
            self.unsent_bytes += len(data)
            self._unsent.set(self.unsent_bytes)

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._transport.unregisterProducer()
            self._transport.loseConnection()
            self._abort_call = self._reactor.callLater(CLOSE_SECONDS, self._transport.abortConnection)

    # from the connection

    def abort(self) -> None:
        self._transport.abortConnection()

    def lost(self) -> None:
        self.resumeProducing()
        if self._abort_call is not None and self._abort_call.active():
            self._abort_call.cancel()

    # from the transport

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.unsent_bytes = 0
        self._unsent.set(0)

    def stopProducing(self) -> None:
        self.pauseProducing()


class AmqpProtocol(TwistedProtocolConnection):
    """pika's protocol with TCP_NODELAY, and with the reason of its end."""

    def __init__(
        self,
        reactor: Any,
        parameters: pika.URLParameters,
        name: str,
        explain: Callable[[object], str | None] = lambda _: None,
    ) -> None:
        """`explain` gives words for a Failure of the transport; None if its own text is the best there is."""
        super().__init__(parameters, custom_reactor=reactor)
        self._explain = explain
        self._reactor = reactor
        self._name = name
        self.outgoing: _Outgoing | None = None
        self.words: str | None = None
        """the broker's words when it closed the connection, or what is wrong with its certificate"""
        when_closed_by_broker(self, self._closed_by_broker)
        self.gone = False
        self.on_lost: Callable[[object], None] | None = None

    def makeConnection(self, transport: Any) -> None:
        transport.setTcpNoDelay(True)
        _hold_little(transport)
        self.outgoing = _Outgoing(self._reactor, transport, self._name)
        super().makeConnection(self.outgoing)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True
        if self.outgoing is not None:
            self.outgoing.lost()
        # Before pika reports the loss, since its errors do not say why.
        self.words = self.words or self._explain(reason)
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost(reason)

    def _closed_by_broker(self, code: int, text: str) -> None:
        self.words = f"closed by the broker: ({code}) {text}"


def _hold_little(transport: Any) -> None:
    """Have the system take no more from a transport than it can send soon, where it can be told so."""
    option, sock = getattr(socket, "TCP_NOTSENT_LOWAT", None), getattr(transport, "socket", None)
    if option is not None and sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, SYSTEM_UNSENT_BYTES)


def as_amqp_error(failure: Failure) -> Any:
    """Errback: raise StreamLostError, an AMQPError, if pika passes on Twisted's error of a lost link."""
    if failure.check(ConnectionClosed):
        raise StreamLostError(reason_of(failure)) from None
    return failure


class Link:
    """One AMQP connection: setups open channels on it, and drop it when something fails."""

    def __init__(self, reactor: Any, protocol: AmqpProtocol) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self._connection: Any = None
        """pika's connection, as a channel gives it"""
        self._closing = False
        self.reason: str | None = None
        """why it was dropped or broke; None while all is well"""
        self.lost: Deferred[None] = Deferred()
        """fires, with None, when the connection is gone"""
        protocol.on_lost = self._on_lost

    async def channel(self, *, confirm: bool = False, vital: bool = True) -> TwistedChannel:
        """A new channel, in confirm mode if asked. If a vital channel closes, the connection is dropped."""
        channel = await self.call(self._protocol.channel(), "channel.open")
        if self._connection is None:
            self._connection = channel.connection
        if vital:
            channel.on_closed.addCallback(self._channel_closed)
        if confirm:
            await self.call(channel.confirm_delivery(), "confirm.select")
        return channel

    def call(self, answer: Deferred[Any], method: str) -> Deferred[Any]:
        """`answer`, or TimeoutError after RPC_SECONDS: pika's Deferreds may never fire.

        The other errors are AMQPErrors.
        """

        def too_late(failure: Failure, seconds: float) -> Any:
            raise TimeoutError(f"{method}: no answer within {seconds:g} s")

        answer.addErrback(as_amqp_error)
        return answer.addTimeout(RPC_SECONDS, self._reactor, onTimeoutCancel=too_late)

    def drop(self, reason: object) -> None:
        """Give the connection up; the next one is set up anew."""
        if self.reason is None:
            self.reason = reason_of(self._protocol.words or reason)
        if not self._closing and not self._protocol.gone and self._protocol.outgoing is not None:
            self._protocol.outgoing.abort()

    def close(self) -> None:
        """End the connection in good order; `lost` fires within CLOSE_SECONDS, even without an answer."""
        if self.reason is None:
            self.reason = "closed"
        self._closing = True
        outgoing = self._protocol.outgoing
        if self._protocol.gone or outgoing is None:
            return
        abort = self._reactor.callLater(CLOSE_SECONDS, outgoing.abort)
        self.lost.addCallback(lambda _: abort.cancel() if abort.active() else None)
        if self._protocol.is_open:
            self._protocol.close()
        else:
            outgoing.abort()

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version, such as (3, 10, 8); (0,) if it does not say. Known once a channel is open."""
        properties = (self._connection.server_properties if self._connection is not None else None) or {}
        version = properties.get("version", "")
        text = version.decode("ascii", "replace") if isinstance(version, bytes) else str(version)
        return tuple(int(part) for part in text.split(".")[:3] if part.isdigit()) or (0,)

    @property
    def unsent_bytes(self) -> int:
        """Bytes written since the broker last kept up."""
        return self._protocol.outgoing.unsent_bytes if self._protocol.outgoing is not None else 0

    def watch_blocked(self, changed: Callable[[bool], None]) -> None:
        """`changed(True)` when the broker stops reading from this connection; `changed(False)` afterwards."""
        if self._connection is not None:
            self._connection.add_on_connection_blocked_callback(lambda *_: changed(True))
            self._connection.add_on_connection_unblocked_callback(lambda *_: changed(False))

    def _channel_closed(self, reason: object) -> None:
        self.drop(reason)

    def _on_lost(self, reason: object) -> None:
        if self.reason is None:
            self.reason = reason_of(self._protocol.words or reason)
        self.lost.callback(None)
