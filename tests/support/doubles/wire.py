"""A WebSocket that remembers the frames written to it."""

from __future__ import annotations

import json
from typing import Any


class WireDouble:
    """A connection's WebSocket (and a session's outlet) that remembers. `frames` are decoded."""

    visitors_from = ""

    def __init__(self) -> None:
        self.writable = True
        self.payloads: list[bytes] = []
        self.pings = 0
        self.closed: tuple[int, str] | None = None
        self.reading = True
        self.logins = 0
        self.hint: str | None = None

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads]

    def seqs(self) -> list[int]:
        """The numbers of the messages delivered."""
        return [frame["seq"] for frame in self.frames if "type" not in frame]

    def last(self) -> dict[str, Any]:
        return self.frames[-1]

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        assert self.closed is None, "nothing is sent after a close"
        self.payloads.append(payload + bytes(rest or b""))

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def logged_in(self) -> None:
        self.logins += 1

    def frames_wait(self) -> None:
        """Nothing is counted."""

    def frames_passed(self) -> None:
        """Nothing is counted."""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
