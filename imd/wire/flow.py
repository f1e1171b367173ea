"""Flow control of one WebSocket: whether its socket takes what is written, and whether it is read from.

A client that sends and does not read its answers is no longer read from ("choked") once too much is written
to a socket that takes nothing.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Gauge

from imd.wire.outgoing import Outgoing

BLOCKED = Gauge("imd_blocked_connections", "Connections whose socket does not take what was written.")
BLOCKED_BYTES = Gauge("imd_blocked_bytes", "Written to such sockets since they stopped taking it.")
CHOKED = Gauge("imd_choked_connections", "Of these, not read from until they have taken it (256 KiB each).")

# The bound of what is written to a socket that does not take it, before the node stops reading from it.
MAX_BLOCKED_BYTES = 262_144


class FlowControl:
    """The producer of its transport, which it also pauses and resumes as a source of input."""

    transport: Any
    outgoing: Outgoing | None
    """None: nothing can be written"""
    _reading = True
    _choked = False
    _blocked = False
    _blocked_bytes = 0

    # from the transport

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
        self.writable_again()

    def stopProducing(self) -> None:
        if self.outgoing is not None:
            self.outgoing.writable = False

    # for a subclass

    def writable_again(self) -> None:
        """The socket has taken all that was written."""

    def written_while_blocked(self, size: int) -> None:
        """`size` bytes were written to a socket that takes nothing."""
        self._blocked_bytes += size
        BLOCKED_BYTES.inc(size)
        if self._blocked_bytes > MAX_BLOCKED_BYTES and self._choke(True):
            self._read_if_wanted()

    def pause_reading(self) -> None:
        self._reading = False
        self._read_if_wanted()

    def resume_reading(self) -> None:
        """Read, unless the socket is choked: it is read from again once it has taken all."""
        self._reading = True
        self._read_if_wanted()

    def read_in_any_case(self) -> None:
        """Read even from a choked socket."""
        self._choke(False)
        self.resume_reading()

    def end_flow(self) -> None:
        """The connection is gone: count it no longer."""
        self._unblock()
        self._choke(False)

    @property
    def is_read(self) -> bool:
        """False after `pause_reading`."""
        return self._reading

    # from within

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            BLOCKED.dec()
            BLOCKED_BYTES.dec(self._blocked_bytes)
            self._blocked_bytes = 0

    def _choke(self, choked: bool) -> bool:
        """Return True if this changes anything."""
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
