"""One WebSocket from its TCP connection to its end: the wire of the handler that its frames go to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from prometheus_client import Counter

from imd.config.settings import Settings
from imd.contracts.timer import Cancellable
from imd.entry.allowance import FRAGMENT, PING
from imd.entry.auth import bearer_token
from imd.entry.forwarded import Trusted
from imd.entry.gate import Gate
from imd.entry.handshake import Denied, check_request
from imd.gateway.slots import hint_of
from imd.protocol.errors import CLOSE_OVERLOADED, CLOSE_PING_TIMEOUT
from imd.protocol.message import is_usable_id
from imd.wire.autobahn_internals import AutobahnProtocol
from imd.wire.flow import FlowControl
from imd.wire.handler import Handler
from imd.wire.heartbeat import Heartbeat
from imd.wire.outgoing import Outgoing
from imd.wire.proxied import address_of, client_behind
from imd.wire.socket_drained import all_arrived
from imd.wire.twisted_internals import unwrapped
from imd.wire.unfinished import Unfinished

HANDSHAKES = Counter("imd_handshakes_total", "WebSocket handshakes, by how they ended.", ["result"])

CLOSE_HANDSHAKE_SECONDS = 3


class Factory(Protocol):
    """The services that a WebSocket needs of its factory."""

    settings: Settings
    gate: Gate
    call_later: Callable[..., Cancellable]
    heartbeat: Heartbeat
    unfinished: Unfinished
    trusted: Trusted

    def make_handler(self, protocol: ChannelProtocol, outgoing: Outgoing, bearer: str | None) -> Handler:
        """A WebSocket is open: make the handler of its frames.

        `bearer` is the token of the handshake's Authorization header.
        """

    def accepted(self, protocol: ChannelProtocol) -> None:
        """A socket was accepted."""

    def disbelieved(self, address: str) -> None:
        """A peer that is no trusted proxy has sent forwarding headers."""

    def opened(self, protocol: ChannelProtocol) -> str | None:
        """A handshake has succeeded. Return the reason if there is no room for the connection."""

    def flush_soon(self, outgoing: Outgoing) -> None:
        """Have `flush` called in the reactor's next turn: one write for all that is sent until then."""

    def closed(self, protocol: ChannelProtocol) -> None:
        """A connection is gone."""


# Autobahn's own base classes declare two attributes differently.
class ChannelProtocol(FlowControl, AutobahnProtocol):  # type: ignore[misc]
    """One WebSocket."""

    factory: Factory

    pong_due = 0.0
    address = ""
    """the client's, by what trusted proxies say; empty for a Unix socket"""
    visitors_from = ""
    """the same, but empty if it may be the address of a proxy that is not trusted"""
    hint: str | None = None
    _slot = -1
    _bearer: str | None = None
    _postponed_pong: bytes | None = None
    _all_read = False
    _logged_in = False
    _dropping: Cancellable | None = None

    # from Autobahn: the handshake

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.accepted(self)

    def request_came(self) -> None:
        self.factory.gate.run_handshake(self.answer_request)

    def onConnect(self, request: ConnectionRequest) -> None:
        peer = address_of(self.transport.getPeer())
        client = client_behind(self.transport, request.headers, self.factory.trusted)
        self.address = client.address or ""
        if client.disbelieved:
            self.factory.disbelieved(self.address)
        else:
            self.visitors_from = self.address
        settings = self.factory.settings
        try:
            check_request(
                request.path,
                request.headers,
                peer,
                settings.auth.mode == "open",
                settings.websocket.origins,
                client.secure,
            )
        except Denied as denied:
            HANDSHAKES.labels("denied").inc()
            raise ConnectionDeny(denied.status, denied.reason) from None
        self._bearer = bearer_token(request.headers.get("authorization"))
        if settings.cluster.routing == "gateway":
            # Autobahn's own parameters have another user than HAProxy sees, where a query is strange.
            hint = hint_of(self.query)
            self.hint = hint if hint is not None and is_usable_id(hint) else None

    def onOpen(self) -> None:
        outgoing = self._begin_to_write()
        why = self.factory.opened(self)
        if why is not None:
            HANDSHAKES.labels("overloaded").inc()
            self.close(CLOSE_OVERLOADED, why)
            return
        HANDSHAKES.labels("opened").inc()
        self._slot = self.factory.heartbeat.add(self)
        self.handler = self.factory.make_handler(self, outgoing, self._bearer)

    def _begin_to_write(self) -> Outgoing:
        outgoing = self.outgoing = Outgoing(
            unwrapped(self.transport), self.factory.flush_soon, self.written_while_blocked
        )
        self.transport.registerProducer(self, True)
        return outgoing

    # from Autobahn: frames

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.counted_bytes:
            self.unfinished_ended()
        if self.handler is None or not self.is_established:
            return
        if isBinary:
            self.handler.binary_received()
        else:
            self.handler.frame_received(payload)

    def small_fragment_came(self) -> None:
        self._spend(FRAGMENT)

    def onPing(self, payload: bytes) -> None:
        self._spend(PING)
        # A client that does not read gets the last pong only, when it reads again (RFC 6455, 5.5.3).
        if self.outgoing is None or self.outgoing.writable:
            self.sendPong(payload)
        else:
            self._postponed_pong = payload

    def onPong(self, payload: bytes) -> None:
        self._spend(PING)
        self.pong_due = 0.0
        if self.handler is not None:
            self.handler.ponged(payload)

    def _spend(self, cost: float) -> None:
        if self.handler is not None:
            self.handler.spend(cost)

    # from Autobahn: the end

    def close_frame_came(self, code: int | None) -> None:
        # Asked now, as the transport will soon take nothing any more.
        outgoing = self.outgoing
        if outgoing is not None:
            outgoing.flush()
        # The answer to our own close frame proves that all before it was read. A close frame that the peer
        # began with may be older than the last messages, and the peer may be gone.
        writable = outgoing is not None and outgoing.writable
        self._all_read = writable and (self.is_answer(code) or all_arrived(self.transport))
        if self.handler is not None:
            self.handler.peer_leaves()

    def close_frame_sent(self) -> None:
        if self.outgoing is not None:
            self.outgoing.close()
        self.drop_unfinished()
        # Frames that wait may still be there.
        if self.counted_bytes:
            self.unfinished_changed()

    def drop_begun(self) -> None:
        self._dropping = self.factory.call_later(CLOSE_HANDSHAKE_SECONDS, self._abort)

    def _abort(self) -> None:
        self._dropping = None
        self.transport.abortConnection()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
        if self._slot >= 0:
            self.factory.heartbeat.remove(self, self._slot)
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.lost(wasClean and self._all_read and not self.was_failed)
        if self.outgoing is not None:
            self.outgoing.forget()
            self.outgoing = None
        self.end_flow()
        self.drop_unfinished()
        if self.counted_bytes:
            self.unfinished_ended()
        self.factory.gate.closed(self)
        # Last: a node that stops goes on as soon as the last connection has left the registry.
        self.factory.closed(self)
        self.break_cycle()

    # from the handler

    def logged_in(self) -> None:
        self._logged_in = True
        self.factory.gate.logged_in(self)
        if self.counted_bytes:
            self.unfinished_changed()

    def ping(self) -> None:
        if self.handler is not None:
            self.sendPing(self.handler.ping_mark())

    def frames_wait(self) -> None:
        # The end of this read counts exactly, but only where something is counted already. Now the parser may
        # still take the frame that waits for an unfinished one.
        if not self.counted_bytes and self.handler is not None:
            self.counted_bytes = self.handler.early_bytes
            self.factory.unfinished.hold(self, self.counted_bytes, known=self._logged_in)

    def frames_passed(self) -> None:
        if self.counted_bytes:
            self.unfinished_changed()

    def close(self, code: int, reason: str) -> None:
        self.sendClose(code, reason)
        # The peer's close frame has to be read.
        self.read_in_any_case()

    # from flow control

    def writable_again(self) -> None:
        if self._postponed_pong is not None:
            payload, self._postponed_pong = self._postponed_pong, None
            self.sendPong(payload)
        if self.handler is not None:
            self.handler.writable_again()

    # unfinished input

    def unfinished_changed(self) -> None:
        size = self.unfinished_bytes
        if self.handler is not None:
            size += self.handler.early_bytes
        if size != self.counted_bytes:
            self.counted_bytes = size
            self.factory.unfinished.hold(self, size, known=self._logged_in)

    def unfinished_ended(self) -> None:
        self.counted_bytes = 0
        self.factory.unfinished.finished(self)

    def give_way(self) -> None:
        self.counted_bytes = 0
        if self.is_in_handshake:
            self.transport.abortConnection()
        elif self.handler is not None:
            self.handler.close(CLOSE_OVERLOADED, "too much is unfinished on all connections together")

    # from the gate

    def is_idle(self) -> bool:
        return not self.handshake_begun if self.handler is None else self.handler.is_new

    def make_room(self) -> None:
        if self.handler is not None:
            self.handler.close(CLOSE_OVERLOADED, "too many connections without a login")
        else:
            self.transport.abortConnection()

    # from the heartbeat

    def pong_overdue(self) -> bool:
        if not self.is_read:
            return True
        (self.handler or self).close(CLOSE_PING_TIMEOUT, "ping not answered")
        return False
