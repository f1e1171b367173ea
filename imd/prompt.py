"""Writing to a socket at once.

Twisted keeps what is written until the reactor comes round: for each write epoll's list is changed twice,
and a dispatch of the reactor's is spent. Nearly always the socket takes it at once, which costs a `send`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Pieces that are larger, on average, are left where they are: the kernel gathers them. As many as it takes.
_LARGE_BYTES = 1024
_MAX_PIECES = 512


def write_now(transport: Any, pieces: Sequence[bytes | memoryview], size: int) -> None:
    """As `transport.write` of the pieces, `size` bytes in all, but without waiting where nothing waits."""
    gather = size > _LARGE_BYTES * len(pieces) and len(pieces) <= _MAX_PIECES
    data: bytes | None = None if gather else b"".join(pieces)
    written = 0
    if _nothing_waits(transport):
        try:
            written = transport.socket.sendmsg(pieces) if data is None else transport.socket.send(data)
        except OSError:
            # It takes nothing just now, or is lost, which the transport finds out and sees to.
            written = 0
        if written == size:
            return
    if data is None:
        data = b"".join(pieces)
    transport.write(data[written:])


def _nothing_waits(transport: Any) -> bool:
    """True for an open TCP connection of Twisted's with empty buffers, no TLS, and not about to be closed."""
    return (
        getattr(transport, "_tempDataLen", None) == 0
        and not transport.dataBuffer
        and transport.connected
        and not transport.disconnecting
        and not transport.TLS
    )
