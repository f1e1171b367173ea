"""Small connections: what Autobahn keeps per connection, and all connections share, lives on their class.

Autobahn copies its options to every connection and keeps what the handshake left behind: most of the
memory of an idle one.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from autobahn.websocket.protocol import TrafficStats, WebSocketServerProtocol

# Of no use once the handshake is done.
_LEFTOVERS: dict[str, Any] = {
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
    # A connection that sends in pieces would need its own; none does.
    "send_queue": (),
    # Counted for all together, as nobody reads it.
    "trafficStats": TrafficStats(),
    "websocket_extensions": (),
    "websocket_extensions_in_use": (),
    "websocket_origin": "",
    "websocket_protocol_in_use": None,
    "websocket_protocols": (),
    "websocket_version": 13,
}
# As they are while a connection is open and nothing is wrong with it.
_OPEN: dict[str, Any] = {
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


def lean_class(protocol: Any, factory: Any) -> Any:
    """A subclass of `protocol` with the factory's options, and an open connection's state, on the class."""
    options = {name: _as_it_is(getattr(factory, name)) for name in protocol.CONFIG_ATTRS}
    shared = options | _LEFTOVERS | _OPEN | {"CONFIG_ATTRS": (), "__doc__": protocol.__doc__}
    return type(protocol.__name__, (protocol,), shared)


def _as_it_is(option: Any) -> Any:
    """A function on a class would be a method: the one that answers offers of compression must not be."""
    return staticmethod(option) if isinstance(option, FunctionType) else option


def slim(connection: Any) -> None:
    """Let an open connection keep only what differs from its class."""
    kind = type(connection)
    connection.__dict__ = {
        name: value
        for name, value in vars(connection).items()
        if name not in _LEFTOVERS and (name not in _OPEN or getattr(kind, name) is not value)
    }
