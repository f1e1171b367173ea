"""What one WebSocket sends: gathered in a turn of the reactor, and written to its socket at once.

Twisted keeps what is written until the reactor comes round: for each write epoll's list is changed twice,
and a dispatch of the reactor's is spent. Nearly always the socket takes it at once, which costs a `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from imd.wire.twisted_internals import has_empty_buffers

# What is gathered for one write, at most.
MAX_GATHERED_BYTES = 65_536
# Pieces that are larger, on average, are left where they are: the kernel gathers them. As many as it takes.
_LARGE_BYTES = 1024
_MAX_PIECES = 512


def text_header(size: int) -> bytes:
    """What comes before the payload of a whole, unmasked text frame (RFC 6455, 5.2)."""
    return _HEADERS[size] if size < len(_HEADERS) else _header(size)


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


# Of nearly all frames.
_HEADERS = [_header(size) for size in range(1024)]


class Outgoing:
    """`flush_soon` has `flush` called in the reactor's next turn. `stuck` is told of bytes that were written
    while the socket took nothing; who owns this says so by `writable`, and the end by `close`."""

    __slots__ = ("_bytes", "_flush_soon", "_open", "_pieces", "_stuck", "_transport", "writable")

    def __init__(
        self, transport: Any, flush_soon: Callable[[Outgoing], None], stuck: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self._flush_soon: Any = flush_soon
        self._stuck: Any = stuck
        self._pieces: list[bytes | memoryview] | None = None
        self._bytes = 0
        self._open = True
        self.writable = True

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        """Send a text frame: `payload`, and what follows it, if that is kept apart. Nothing after the end."""
        if not self._open:
            return
        pieces = self._pieces
        if pieces is None:
            pieces = self._pieces = []
            self._flush_soon(self)
        if rest is None:
            size = len(payload)
            header = text_header(size)
            pieces += (header, payload)
        else:
            size = len(payload) + len(rest)
            header = text_header(size)
            pieces += (header, payload, rest)
        self._bytes += len(header) + size
        if self._bytes > MAX_GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has been sent in this turn of the reactor."""
        pieces = self._pieces
        if pieces is None:
            return
        size = self._bytes
        self._pieces = None
        self._bytes = 0
        write_now(self._transport, pieces, size)
        if not self.writable:
            self._stuck(size)

    def close(self) -> None:
        """Nothing more is sent. What was sent before that, and is not written yet, is if somebody flushes."""
        self._open = False

    def forget(self) -> None:
        """The connection is gone, and what was not written with it."""
        self._open = False
        self._pieces = None
        # These hold whoever holds this.
        self._transport = self._stuck = self._flush_soon = None


def write_now(transport: Any, pieces: Sequence[bytes | memoryview], size: int) -> None:
    """As `transport.write` of the pieces, `size` bytes in all, but without waiting where nothing waits."""
    gather = size > _LARGE_BYTES * len(pieces) and len(pieces) <= _MAX_PIECES
    data: bytes | None = None if gather else b"".join(pieces)
    written = 0
    if has_empty_buffers(transport):
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
