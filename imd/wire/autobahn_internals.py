"""The undocumented parts of Autobahn's WebSocket protocol that a node depends on.

A node needs them for three reasons. A text frame is taken from the buffer before the parser sees it, which
is most of a node's speed. The parser's buffers are counted and kept short, which bounds what clients can make
a node hold. The attributes of an idle connection live on its class, which is most of its memory.

A new version of Autobahn may lose any of these parts. tests/unit/wire/test_autobahn_internals.py names the
ones that are gone, and checks that no other module uses such a part.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats
from twisted.logger import Logger

from imd.entry.allowance import SMALL_FRAGMENT_BYTES
from imd.wire.fastframes import take_text_frames
from imd.wire.handler import Handler
from imd.wire.library_log import LibraryLog
from imd.wire.outgoing import Outgoing

MAX_HANDSHAKE_BYTES = 16_384
# The bound of a control frame's payload (RFC 6455, 5.5).
MAX_CONTROL_BYTES = 125
# Pieces of a message are joined up to this size: an object for each byte would take forty times the memory.
PIECE_BYTES = 4096

# Attributes of a connection that are of no use once the handshake is done.
LEFTOVERS: dict[str, Any] = {
    "_results": None,
    "_transport_details": None,
    "_valid_events": None,
    "_wskey": "",
    "http_headers": {},
    "http_request_data": b"",
    "http_request_host": "",
    "http_request_params": {},
    "http_request_path": "",
    "http_request_uri": "",
    "http_response_data": "",
    "http_status_line": "",
    "is_open": None,
    "peer": None,
    # Only a connection that sends in pieces uses its own, and none does.
    "send_queue": (),
    # Nobody reads it, so one object counts for all connections.
    "trafficStats": TrafficStats(),
    "websocket_extensions": (),
    "websocket_extensions_in_use": (),
    "websocket_origin": "",
    "websocket_protocol_in_use": None,
    "websocket_protocols": (),
    "websocket_version": 13,
}
# Attributes that have these values while a connection is open and nothing is wrong with it.
WHILE_OPEN: dict[str, Any] = {
    "_perMessageCompress": None,
    "autoPingPending": None,
    "autoPingPendingCall": None,
    "autoPingPendingSent": None,
    "autoPingPendingSeq": 0,
    "autoPingTimeoutCall": None,
    "closeHandshakeTimeoutCall": None,
    "closedByMe": False,
    "connected": 1,
    "current_frame": None,
    "data": b"",
    "droppedByMe": False,
    "failedByMe": False,
    "inside_message": False,
    "localCloseCode": None,
    "localCloseReason": None,
    "openHandshakeTimeoutCall": None,
    "remoteCloseCode": None,
    "remoteCloseReason": None,
    "send_state": WebSocketServerProtocol.SEND_STATE_GROUND,
    "state": WebSocketServerProtocol.STATE_OPEN,
    "trackedTimings": None,
    "triggered": False,
    "wasClean": False,
    "wasCloseHandshakeTimeout": False,
    "wasMaxFramePayloadSizeExceeded": False,
    "wasMaxMessagePayloadSizeExceeded": False,
    "wasNotCleanReason": None,
    "wasOpenHandshakeTimeout": False,
    "wasServerConnectionDropTimeout": False,
    "wasServingFlashSocketPolicyFile": False,
}
_OPEN = WebSocketServerProtocol.STATE_OPEN


class AutobahnProtocol(WebSocketServerProtocol):
    """Autobahn's protocol with a fast path for text frames and with bounds.

    The methods of the first group do nothing here: a subclass overrides them.
    """

    transport: Any
    log: Any = LibraryLog(Logger())
    handler: Handler | None = None
    outgoing: Outgoing | None = None
    """there while it is open"""
    counted_bytes = 0
    """size of unfinished input when a subclass last counted it"""
    handshake_begun = False
    """a whole HTTP request came"""

    # for a subclass

    def request_came(self) -> None:
        """A whole HTTP request came: have `answer_request` called."""

    def unfinished_changed(self) -> None:
        """`unfinished_bytes` may have changed."""

    def unfinished_ended(self) -> None:
        """A message is whole: input that comes later begins another one."""

    def small_fragment_came(self) -> None:
        """A fragment came that is small and not its message's last."""

    def close_frame_came(self, code: int | None) -> None:
        """The peer has sent its close frame, and sends nothing after it."""

    def close_frame_sent(self) -> None:
        """No frame may be sent after this one."""

    def drop_begun(self) -> None:
        """The TCP connection ends once the peer has taken what is still to be sent: give it a deadline."""

    # state

    @property
    def is_in_handshake(self) -> bool:
        return bool(self.state == self.STATE_CONNECTING)

    @property
    def query(self) -> str:
        """The query of the URL as the client has sent it; empty once the handshake is done."""
        uri: str = self.http_request_uri
        return uri.partition("?")[2]

    @property
    def is_established(self) -> bool:
        return bool(self.state == _OPEN)

    @property
    def was_failed(self) -> bool:
        """This side ended it, as the peer broke the rules or did not answer."""
        return bool(self.failedByMe)

    def is_answer(self, code: int | None) -> bool:
        """True if a close frame with this code answers ours."""
        return bool(self.closedByMe and code == self.localCloseCode)

    @property
    def unfinished_bytes(self) -> int:
        """Size of the handshake, frame or message that is not whole yet."""
        size = len(self.data)
        if self.inside_message and self.state == _OPEN:
            size += self.message_data_total_length
            frame = self.current_frame
            if frame is not None and frame.opcode < 8:
                # Autobahn adds a frame's full length as soon as its header is there.
                size -= frame.length - self.current_frame_masker.pointer()
        return size

    # input

    def dataReceived(self, data: bytes) -> None:
        # Between two messages whole text frames are taken from here; the rest is Autobahn's.
        if self.state != _OPEN or self.inside_message or self.current_frame is not None:
            self._dataReceived(data)
            self.unfinished_changed()
            return
        if self.data:
            data = self.data + data
        payloads, position = take_text_frames(data, self.maxFramePayloadSize)
        # Kept first: the handling of a frame may look at it.
        self.data = data[position:]
        handler = self.handler
        for payload in payloads:
            if handler is None or self.state != _OPEN:
                # These are thrown away. The peer's close frame may be in the rest.
                break
            handler.frame_received(payload)
        if self.data:
            if self.counted_bytes and payloads:
                self.unfinished_ended()
            self.consumeData()
            self.unfinished_changed()
        elif self.counted_bytes:
            self.unfinished_changed()

    def processHandshake(self) -> None:
        if len(self.data) > MAX_HANDSHAKE_BYTES:
            self.failHandshake("Request Header Fields Too Large", 431)
        elif not self.handshake_begun and b"\r\n\r\n" in self.data:
            self.handshake_begun = True
            self.request_came()

    def answer_request(self) -> None:
        if self.is_in_handshake:
            super().processHandshake()
            self.unfinished_changed()

    def succeedHandshake(self, res: Any) -> None:
        super().succeedHandshake(res)
        if self.state == _OPEN:
            drop_shared_attributes(self)

    def onFrameData(self, payload: bytes) -> bool | None:
        frame = self.current_frame
        if self.state != _OPEN and (frame.opcode < 8 or frame.length > MAX_CONTROL_BYTES):
            # Thrown away: it is read only because the close frame may be behind it.
            self.utf8validateIncomingCurrentMessage = False
            return None
        ended: bool | None = super().onFrameData(payload)
        return ended

    def onMessageFrameData(self, payload: bytes) -> None:
        super().onMessageFrameData(payload)
        join_small(self.frame_data)

    def onMessageFrame(self, payload: Any) -> None:
        if self.frame_length < SMALL_FRAGMENT_BYTES and not self.current_frame.fin:
            self.small_fragment_came()
        super().onMessageFrame(payload)
        join_small(self.message_data)

    def drop_unfinished(self) -> None:
        """Drop the pieces of a message whose end does not matter any more."""
        if self.inside_message:
            self.message_data = []
            if self.current_frame is not None:
                self.frame_data = []

    # output

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # Autobahn's own frames keep their place among ours.
        if self.outgoing is not None:
            self.outgoing.flush()
        super().sendData(data, sync, chopsize)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self.close_frame_sent()

    # the end

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        self.close_frame_came(code)
        return super().onCloseFrame(code, reasonRaw)

    def dropConnection(self, abort: bool = False) -> None:
        if self.state == self.STATE_CLOSED:
            return
        # Autobahn aborts as soon as it has the peer's close frame. Ours may not have been sent yet.
        abort = abort and not self.wasClean
        if not abort:
            self.drop_begun()
        super().dropConnection(abort)

    def break_cycle(self) -> None:
        """Let this object be freed at once: `is_closed` refers to it."""
        self.is_closed = None


def join_small(pieces: list[bytes]) -> None:
    """Join the last two pieces of a message, unless the one before the last is large enough."""
    if len(pieces) > 1 and len(pieces[-2]) < PIECE_BYTES:
        pieces[-2:] = [pieces[-2] + pieces[-1]]


def with_shared_attributes(protocol: type[AutobahnProtocol], factory: Any) -> Any:
    """A subclass of `protocol` that has the factory's options and an open connection's state on the class.

    Autobahn copies all of these to each connection, where they would be most of its memory.
    """
    options = {name: _as_attribute(getattr(factory, name)) for name in protocol.CONFIG_ATTRS}
    shared = options | LEFTOVERS | WHILE_OPEN | {"CONFIG_ATTRS": (), "__doc__": protocol.__doc__}
    return type(protocol.__name__, (protocol,), shared)


def _as_attribute(option: Any) -> Any:
    """An option that is a function would become a method of the class; a static method stays a function."""
    return staticmethod(option) if isinstance(option, FunctionType) else option


def drop_shared_attributes(connection: AutobahnProtocol) -> None:
    """Let an open connection keep only the attributes that differ from its class."""
    kind = type(connection)
    connection.__dict__ = {
        name: value
        for name, value in vars(connection).items()
        if name not in LEFTOVERS and (name not in WHILE_OPEN or getattr(kind, name) is not value)
    }
