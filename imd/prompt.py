"""Writing to a socket at once.

Twisted keeps what is written until the reactor comes round: for each write epoll's list is changed twice,
and a dispatch of the reactor's is spent. Nearly always the socket takes it at once, which costs a `send`.
"""

from __future__ import annotations

from typing import Any


def write_now(transport: Any, data: bytes) -> None:
    """As `transport.write(data)`, but without waiting where nothing waits already."""
    if _nothing_waits(transport):
        try:
            written = transport.socket.send(data)
        except OSError:
            # It takes nothing just now, or is lost, which the transport finds out and sees to.
            written = 0
        if written == len(data):
            return
        data = data[written:]
    transport.write(data)


def _nothing_waits(transport: Any) -> bool:
    """True for an open TCP connection of Twisted's with empty buffers, no TLS, and not about to be closed."""
    return (
        getattr(transport, "_tempDataLen", None) == 0
        and not transport.dataBuffer
        and transport.connected
        and not transport.disconnecting
        and not transport.TLS
    )
