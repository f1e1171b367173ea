"""The contract between a WebSocket and the object that handles its frames."""

from __future__ import annotations

from typing import Protocol


class Handler(Protocol):
    """Handles one open WebSocket. No call of these raises."""

    @property
    def is_new(self) -> bool:
        """No connect signal has come yet."""

    @property
    def early_bytes(self) -> int:
        """Memory of the whole frames that wait until the login or a slow frame is through."""

    def frame_received(self, payload: bytes) -> None:
        """A whole text message came; it is UTF-8."""

    def binary_received(self) -> None:
        """A binary message came."""

    def spend(self, cost: float) -> None:
        """Something other than a message came; see imd.entry.allowance for the costs."""

    def ping_mark(self) -> bytes:
        """The payload for the next WebSocket ping."""

    def ponged(self, mark: bytes) -> None:
        """A pong came. A client may send one unasked, with any payload."""

    def writable_again(self) -> None:
        """The socket has taken all that was written."""

    def peer_leaves(self) -> None:
        """The client has sent its close frame. It reads nothing that is sent from now on."""

    def lost(self, clean: bool) -> None:
        """The WebSocket is gone. `clean`: in good order, and the client had what was written to it."""

    def leaving(self, reconnect_ms: int, why: str) -> None:
        """The client is to go, and to come back after this time. The WebSocket is closed, with 4200 and this
        reason, when the client's messages are answered. Does nothing the second time."""

    def close(self, code: int, reason: str) -> None:
        """End the connection; `lost` follows."""
