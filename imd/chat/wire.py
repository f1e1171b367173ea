"""The contract between a connection and its WebSocket."""

from __future__ import annotations

from typing import Protocol


class Outgoing(Protocol):
    """The queue of frames that a connection sends."""

    @property
    def writable(self) -> bool:
        """False while the socket has not taken what was sent last."""

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        """Send a text frame: `payload`, followed by `rest`."""


class Wire(Protocol):
    """One WebSocket."""

    visitors_from: str
    """the client's address, by which new visitors are counted; empty if it is not known"""
    hint: str | None
    """behind a gateway: the user that its URL names"""

    def ping(self) -> None:
        """Send a ping that carries the connection's `ping_mark()`."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; `Connection.lost` follows."""

    def logged_in(self) -> None:
        """The client has logged in: the bounds on strangers no longer apply."""

    def frames_wait(self) -> None:
        """The first of the frames has come that wait in the connection. May close it."""

    def frames_passed(self) -> None:
        """Frames that waited have had their turn, all or some."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
