"""The contract between a session and the connection to its device."""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """The way to one device."""

    @property
    def writable(self) -> bool:
        """False while the socket has not taken what was sent last."""

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        """Send a frame: `payload`, followed by `rest`, which is not copied."""

    def ping(self) -> None:
        """Send a WebSocket ping that carries `Session.ping_mark()`."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
