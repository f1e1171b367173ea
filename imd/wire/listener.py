"""All WebSockets of a node: the limits on frames, connections and addresses, and the turn of writing."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from prometheus_client import Gauge
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imd.config.settings import Settings
from imd.contracts.timer import Cancellable
from imd.entry.forwarded import parse_trusted
from imd.entry.gate import Gate
from imd.wire.autobahn_internals import with_shared_attributes
from imd.wire.handler import Handler
from imd.wire.heartbeat import Heartbeat
from imd.wire.outgoing import Outgoing
from imd.wire.proxied import address_of
from imd.wire.twisted_internals import unwrapped
from imd.wire.unfinished import Unfinished
from imd.wire.websocket import CLOSE_HANDSHAKE_SECONDS, HANDSHAKES, ChannelProtocol

CONNECTIONS = Gauge("imd_connections", "Open WebSocket connections.")


class ChannelFactory(WebSocketServerFactory):
    """Makes the protocol of each connection, and its handler when its WebSocket opens.

    `make_handler` gets the protocol, its outgoing side, and the token of the Authorization header.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        gate: Gate,
        make_handler: Callable[[ChannelProtocol, Outgoing, str | None], Handler],
        max_connections: int,
    ) -> None:
        super().__init__(server="", reactor=reactor)
        limits = settings.limits
        websocket = settings.websocket
        self.settings = settings
        self.gate = gate
        self.make_handler = make_handler
        self.call_later: Callable[..., Cancellable] = reactor.callLater
        self.max_connections = max_connections
        self.open: set[ChannelProtocol] = set()
        self.trusted = parse_trusted(websocket.trusted_proxies)
        self._has_warned = False
        self.heartbeat = Heartbeat(reactor, websocket.ping_seconds, websocket.pong_seconds)
        self._per_address: Tally[str] = Tally()
        self._half_open: Tally[str] = Tally()
        self._counted_half_open: dict[ChannelProtocol, str] = {}
        self._emptied: list[Deferred[None]] = []
        self._unflushed: list[Outgoing] = []
        # JSON may encode any character as six bytes. The rest is for a group list.
        frame_bytes = 6 * limits.message_bytes + 65536
        self.unfinished = Unfinished(max(limits.unfinished_bytes, frame_bytes))
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            utf8validateIncoming=True,
            requireMaskedClientFrames=True,
            maxFramePayloadSize=frame_bytes,
            maxMessagePayloadSize=frame_bytes,
            failByDrop=False,
            echoCloseCodeReason=False,
            openHandshakeTimeout=websocket.connect_seconds,
            closeHandshakeTimeout=CLOSE_HANDSHAKE_SECONDS,
            tcpNoDelay=True,
            autoPingInterval=0,
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )
        self.protocol = with_shared_attributes(ChannelProtocol, self)

    def accepted(self, protocol: ChannelProtocol) -> None:
        self.gate.accepted(protocol)
        most = self.settings.limits.connections_per_address
        if not most or unwrapped(protocol.transport) is not protocol.transport:
            return
        peer = address_of(protocol.transport.getPeer())
        # Behind a proxy the client's address is not known yet.
        if self.trusted.has(peer):
            return
        address = peer or ""
        if self._half_open[address] >= most:
            HANDSHAKES.labels("overloaded").inc()
            protocol.transport.abortConnection()
            return
        self._half_open[address] += 1
        self._counted_half_open[protocol] = address

    def disbelieved(self, address: str) -> None:
        # Open mode refuses proxies anyhow.
        if not self._has_warned and self.settings.auth.mode != "open":
            self._has_warned = True
            self._log.warn(
                "{address} sends forwarding headers, which nobody believes: if it is a proxy of yours, "
                "name it in [websocket] trusted_proxies; until then all of its clients count as one address, "
                "and new visitors from there are not counted at all",
                address=address or "a Unix socket's peer",
            )

    def _no_longer_half_open(self, protocol: ChannelProtocol) -> None:
        """The connection has opened, or is gone."""
        address = self._counted_half_open.pop(protocol, None)
        if address is not None:
            self._half_open[address] -= 1
            if self._half_open[address] <= 0:
                del self._half_open[address]

    def opened(self, protocol: ChannelProtocol) -> str | None:
        self._no_longer_half_open(protocol)
        address = protocol.address
        per_address = self.settings.limits.connections_per_address
        self.open.add(protocol)
        self._per_address[address] += 1
        CONNECTIONS.set(len(self.open))
        if len(self.open) > self.max_connections:
            return "too many connections"
        if per_address and self._per_address[address] > per_address:
            return "too many connections from this address"
        return None

    def flush_soon(self, outgoing: Outgoing) -> None:
        if not self._unflushed:
            self.reactor.callLater(0, self._flush_all)
        self._unflushed.append(outgoing)

    def _flush_all(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for outgoing in unflushed:
            try:
                outgoing.flush()
            except Exception:
                # A failed write must not cost other connections their frames.
                self._log.failure("a write has failed")

    def emptied(self) -> Deferred[None]:
        """Fires when no connection is left."""
        done: Deferred[None] = Deferred()
        self._emptied.append(done)
        self._tell_emptied()
        return done

    def _tell_emptied(self) -> None:
        if not self.open:
            waiting, self._emptied = self._emptied, []
            for done in waiting:
                if not done.called:
                    done.callback(None)

    def closed(self, protocol: ChannelProtocol) -> None:
        self._no_longer_half_open(protocol)
        if protocol not in self.open:
            return
        self.open.discard(protocol)
        self._tell_emptied()
        CONNECTIONS.set(len(self.open))
        self._per_address[protocol.address] -= 1
        if self._per_address[protocol.address] <= 0:
            del self._per_address[protocol.address]
