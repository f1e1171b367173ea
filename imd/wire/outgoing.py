"""The outgoing frames of one WebSocket: gathered in a turn of the reactor, and written to its socket at once.

Twisted buffers a write until the reactor comes round. That changes epoll's list twice and costs a dispatch.
Nearly always the socket takes the bytes at once, which costs one `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from imd.wire.twisted_internals import has_empty_buffers

# The bound of the bytes gathered for one write.
MAX_GATHERED_BYTES = 65_536
# Pieces that are larger on average are not copied: the kernel gathers them, up to so many.
_LARGE_BYTES = 1024
_MAX_PIECES = 512


def text_header(size: int) -> bytes:
    """The header of a whole, unmasked text frame (RFC 6455, 5.2)."""
    return _HEADERS[size] if size < len(_HEADERS) else _header(size)


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


# The headers of nearly all frames.
_HEADERS = [_header(size) for size in range(1024)]


class Outgoing:
    """`flush_soon` has `flush` called in the reactor's next turn.

    The owner sets `writable` to False while the socket takes nothing. `stuck` is then called with the number
    of bytes of each write.
    """

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
        """Send a text frame of `payload` and `rest`, unless this is closed."""
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
        """Write the frames sent in this turn of the reactor."""
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
        """Ignore later frames. Earlier frames are still written by `flush`."""
        self._open = False

    def forget(self) -> None:
        """Drop all frames: the connection is gone."""
        self._open = False
        self._pieces = None
        # Break the reference cycle with the protocol.
        self._transport = self._stuck = self._flush_soon = None


def write_now(transport: Any, pieces: Sequence[bytes | memoryview], size: int) -> None:
    """Write the pieces, `size` bytes in all. If no earlier write waits, they go straight to the socket."""
    gather = size > _LARGE_BYTES * len(pieces) and len(pieces) <= _MAX_PIECES
    data: bytes | None = None if gather else b"".join(pieces)
    written = 0
    if has_empty_buffers(transport):
        try:
            written = transport.socket.sendmsg(pieces) if data is None else transport.socket.send(data)
        except OSError:
            # The socket is full, or lost. The transport finds out which, and handles it.
            written = 0
        if written == size:
            return
    if data is None:
        data = b"".join(pieces)
    transport.write(data[written:])
