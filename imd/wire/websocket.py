"""One WebSocket: Autobahn does RFC 6455, a handler does everything that frames mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from prometheus_client import Counter, Gauge
from twisted.logger import Logger

from imd.config.settings import Settings
from imd.contracts.timer import Cancellable
from imd.entry.allowance import FRAGMENT, PING, SMALL_FRAGMENT_BYTES
from imd.entry.auth import bearer_token
from imd.entry.gate import Gate
from imd.entry.handshake import Denied, check_request
from imd.protocol.errors import CLOSE_OVERLOADED, CLOSE_PING_TIMEOUT
from imd.wire.fastframes import take_text_frames
from imd.wire.handler import Handler
from imd.wire.heartbeat import Heartbeat
from imd.wire.library_log import LibraryLog
from imd.wire.outgoing import Outgoing, bare
from imd.wire.shared_state import slim
from imd.wire.socket_drained import all_arrived
from imd.wire.unfinished import Unfinished, forget_pieces, gathered_bytes, join_small

BLOCKED = Gauge("imd_blocked_connections", "Connections whose socket does not take what was written.")
BLOCKED_BYTES = Gauge("imd_blocked_bytes", "Written to such sockets since they stopped taking it.")
CHOKED = Gauge("imd_choked_connections", "Of these, not read from until they have taken it (256 KiB each).")
HANDSHAKES = Counter("imd_handshakes_total", "WebSocket handshakes, by how they ended.", ["result"])

MAX_HANDSHAKE_BYTES = 16_384
# What may still be written to a socket that does not take it, before the node stops reading from it.
MAX_BLOCKED_BYTES = 262_144
CLOSE_HANDSHAKE_SECONDS = 3
# What a control frame may hold (RFC 6455, 5.5).
MAX_CONTROL_BYTES = 125
_OPEN = WebSocketServerProtocol.STATE_OPEN


class Factory(Protocol):
    """What a WebSocket needs of its factory."""

    settings: Settings
    gate: Gate
    call_later: Callable[..., Cancellable]
    heartbeat: Heartbeat
    unfinished: Unfinished

    def make_handler(self, protocol: ChannelProtocol, outgoing: Outgoing, bearer: str | None) -> Handler:
        """A WebSocket is open: make the handler of its frames.

        `bearer` is the token of the handshake's Authorization header.
        """

    def knocked(self, protocol: ChannelProtocol) -> None:
        """A socket was accepted."""

    def opened(self, protocol: ChannelProtocol) -> str | None:
        """A handshake is through; gives the reason if there is no room for it."""

    def flush_soon(self, outgoing: Outgoing) -> None:
        """Have `flush` called in the reactor's next turn: one write for all that is sent until then."""

    def closed(self, protocol: ChannelProtocol) -> None:
        """A connection is gone."""


class ChannelProtocol(WebSocketServerProtocol):
    """One WebSocket: the wire of its handler, and its transport's producer."""

    factory: Factory
    transport: Any
    log: Any = LibraryLog(Logger())

    handler: Handler | None = None
    outgoing: Outgoing | None = None
    """there while it is open"""
    pong_due = 0.0
    _slot = -1
    _address = ""
    _bearer: str | None = None
    _reading = True
    _choked = False
    _blocked = False
    _blocked_bytes = 0
    _ping: bytes | None = None
    _all_read = False
    _handshaking = False
    _logged_in = False
    _held = 0
    _dropping: Cancellable | None = None

    # from the transport

    def dataReceived(self, data: bytes) -> None:
        # Between two messages whole text frames are taken from here; the rest is Autobahn's.
        if self.state != _OPEN or self.inside_message or self.current_frame is not None:
            self._dataReceived(data)
            self._count_unfinished()
            return
        if self.data:
            data = self.data + data
        payloads, position = take_text_frames(data, self.maxFramePayloadSize)
        # Kept first: what a frame brings about may look at it.
        self.data = data[position:]
        handler = self.handler
        for payload in payloads:
            if handler is None or self.state != _OPEN:
                return
            handler.frame_received(payload)
        if self.data:
            if self._held and payloads:
                self._finished()
            self.consumeData()
            self._count_unfinished()
        elif self._held:
            self._count_unfinished()

    # from Autobahn

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.knocked(self)

    def processHandshake(self) -> None:
        if len(self.data) > MAX_HANDSHAKE_BYTES:
            self.failHandshake("Request Header Fields Too Large", 431)
        elif not self._handshaking and b"\r\n\r\n" in self.data:
            self._handshaking = True
            self.factory.gate.handshake(self._handshake)

    def _handshake(self) -> None:
        if self.state == self.STATE_CONNECTING:
            super().processHandshake()
            self._count_unfinished()

    def onConnect(self, request: ConnectionRequest) -> None:
        peer = self.transport.getPeer()
        self._address = getattr(peer, "host", "") or ""
        settings = self.factory.settings
        try:
            check_request(
                request.path,
                request.headers,
                self._address or None,
                settings.auth.mode == "open",
                settings.websocket.origins,
            )
        except Denied as denied:
            HANDSHAKES.labels("denied").inc()
            raise ConnectionDeny(denied.status, denied.reason) from None
        self._bearer = bearer_token(request.headers.get("authorization"))

    def succeedHandshake(self, res: Any) -> None:
        super().succeedHandshake(res)
        if self.state == self.STATE_OPEN:
            slim(self)

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
        outgoing = self.outgoing = Outgoing(bare(self.transport), self.factory.flush_soon, self._stuck)
        self.transport.registerProducer(self, True)
        return outgoing

    def onFrameData(self, payload: bytes) -> bool | None:
        frame = self.current_frame
        if self.state != _OPEN and (frame.opcode < 8 or frame.length > MAX_CONTROL_BYTES):
            # Read to its end to find the close frame behind it, and thrown away.
            self.utf8validateIncomingCurrentMessage = False
            return None
        taken: bool | None = super().onFrameData(payload)
        return taken

    def onMessageFrameData(self, payload: bytes) -> None:
        super().onMessageFrameData(payload)
        join_small(self.frame_data)

    def onMessageFrame(self, payload: Any) -> None:
        if self.frame_length < SMALL_FRAGMENT_BYTES and not self.current_frame.fin:
            self._spend(FRAGMENT)
        super().onMessageFrame(payload)
        join_small(self.message_data)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._held:
            self._finished()
        if self.handler is None or self.state != _OPEN:
            return
        if isBinary:
            self.handler.binary_received()
        else:
            self.handler.frame_received(payload)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        # Whoever made Autobahn close: no frame follows that one.
        if self.outgoing is not None:
            self.outgoing.close()
        self._let_go()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # Autobahn's own frames keep their place among ours.
        if self.outgoing is not None:
            self.outgoing.flush()
        super().sendData(data, sync, chopsize)

    def onPing(self, payload: bytes) -> None:
        self._spend(PING)
        # Who pings without reading gets no heap of pongs; the last one will do (RFC 6455, 5.5.3).
        if self.outgoing is None or self.outgoing.writable:
            self.sendPong(payload)
        else:
            self._ping = payload

    def onPong(self, payload: bytes) -> None:
        self._spend(PING)
        self.pong_due = 0.0
        if self.handler is not None:
            self.handler.ponged(payload)

    def _spend(self, cost: float) -> None:
        if self.handler is not None:
            self.handler.spend(cost)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        # Asked now: whoever looks later finds a transport that takes nothing any more.
        outgoing = self.outgoing
        if outgoing is not None:
            outgoing.flush()
        # The answer to our own close frame says that all before it was read. One that the peer began with may
        # have been sent long before we wrote the last messages, and the peer may be gone.
        answered = self.closedByMe and code == self.localCloseCode
        writable = outgoing is not None and outgoing.writable
        self._all_read = writable and (answered or all_arrived(self.transport))
        if self.handler is not None:
            self.handler.peer_leaves()
        return super().onCloseFrame(code, reasonRaw)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
        if self._slot >= 0:
            self.factory.heartbeat.remove(self, self._slot)
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.lost(wasClean and self._all_read and not self.failedByMe)
        if self.outgoing is not None:
            self.outgoing.forget()
            self.outgoing = None
        self._unblock()
        self._choke(False)
        self._let_go()
        self.factory.gate.ended(self)
        # Last: a node that stops goes on as soon as the last connection has left the registry.
        self.factory.closed(self)
        # It holds this object, which would wait for somebody to look for garbage.
        self.is_closed = None

    def dropConnection(self, abort: bool = False) -> None:
        """End the TCP connection: with what is still to be sent, if the peer takes it in time."""
        if self.state == self.STATE_CLOSED:
            return
        # Autobahn aborts as soon as it has the peer's close frame. Ours may not have been sent yet.
        abort = abort and not self.wasClean
        if not abort:
            self._dropping = self.factory.call_later(CLOSE_HANDSHAKE_SECONDS, self._abort)
        super().dropConnection(abort)

    def _abort(self) -> None:
        self._dropping = None
        self.transport.abortConnection()

    # from the transport, whose producer this is

    def pauseProducing(self) -> None:
        self.stopProducing()
        if not self._blocked:
            self._blocked = True
            BLOCKED.inc()

    def resumeProducing(self) -> None:
        if self.outgoing is not None:
            self.outgoing.writable = True
        self._unblock()
        if self._choke(False):
            self._read_if_wanted()
        if self._ping is not None:
            ping, self._ping = self._ping, None
            self.sendPong(ping)
        if self.handler is not None:
            self.handler.writable_again()

    def stopProducing(self) -> None:
        if self.outgoing is not None:
            self.outgoing.writable = False

    # from the handler

    def logged_in(self) -> None:
        self._logged_in = True
        self.factory.gate.gone(self)
        if self._held:
            self._count_unfinished()

    def _stuck(self, size: int) -> None:
        self._blocked_bytes += size
        BLOCKED_BYTES.inc(size)
        # It asks and does not listen to the answers.
        if self._blocked_bytes > MAX_BLOCKED_BYTES and self._choke(True):
            self._read_if_wanted()

    def ping(self) -> None:
        if self.handler is not None:
            self.sendPing(self.handler.ping_mark())

    def close(self, code: int, reason: str) -> None:
        self.sendClose(code, reason)
        # The peer's close frame must be read, whatever was paused before.
        self._choke(False)
        self.resume_reading()

    def pause_reading(self) -> None:
        self._reading = False
        self._read_if_wanted()

    def resume_reading(self) -> None:
        self._reading = True
        self._read_if_wanted()

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            BLOCKED.dec()
            BLOCKED_BYTES.dec(self._blocked_bytes)
            self._blocked_bytes = 0

    def _choke(self, choked: bool) -> bool:
        """True if that is news."""
        changed = self._choked != choked
        if changed:
            self._choked = choked
            CHOKED.inc(1 if choked else -1)
        return changed

    def _read_if_wanted(self) -> None:
        if self._reading and not self._choked:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    # what is unfinished

    def _count_unfinished(self) -> None:
        held = gathered_bytes(self)
        if self.handler is not None and not self._logged_in:
            held += self.handler.early_bytes
        if held != self._held:
            self._held = held
            self.factory.unfinished.hold(self, held, known=self._logged_in)

    def _finished(self) -> None:
        self._held = 0
        self.factory.unfinished.finished(self)

    def _let_go(self) -> None:
        forget_pieces(self)
        if self._held:
            self._finished()

    def give_way(self) -> None:
        self._held = 0
        if self.state == self.STATE_CONNECTING:
            self.transport.abortConnection()
        elif self.handler is not None:
            self.handler.close(CLOSE_OVERLOADED, "too much is unfinished on all connections together")

    # from the gate

    def is_idle(self) -> bool:
        return not self._handshaking if self.handler is None else self.handler.is_new

    def make_room(self) -> None:
        if self.handler is not None:
            self.handler.close(CLOSE_OVERLOADED, "too many connections without a login")
        else:
            self.transport.abortConnection()

    # from the heartbeat

    def pong_overdue(self) -> bool:
        if not self._reading:
            return True
        (self.handler or self).close(CLOSE_PING_TIMEOUT, "ping not answered")
        return False
