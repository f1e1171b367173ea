"""The connection as the node has described it: read by every part of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Link:
    is_open: bool = False
    """the node has said `connected`, and neither side has begun to leave: frames may be sent"""
    limits: dict[str, Any] = field(default_factory=dict)
    """as the node gave them, under the protocol's names"""
    features: tuple[str, ...] | None = None
    """those that the cluster has granted; None before the first `connected`"""
    opened_at: float = 0.0
    """the time of `connected`, in seconds of the client's clock"""
    server_ahead_ms: float = 0.0
    """the node's clock minus the client's"""
    ping_seconds: float = 25.0
    """a silence that long is broken by a ping"""

    def described(self, frame: Mapping[str, Any], now: float, ping_seconds: float | None) -> None:
        """Take the node's `connected`. `ping_seconds`: the program's own value. Raises KeyError."""
        self.limits = dict(frame.get("limits") or {})
        self.features = tuple(frame.get("features") or ())
        self.opened_at, self.server_ahead_ms = now, frame["serverTime"] - now * 1000
        self.ping_seconds = ping_seconds or frame.get("pingSeconds") or 25.0

    @property
    def has_events(self) -> bool:
        return "events" in (self.features or ())

    @property
    def knows_events(self) -> bool:
        """The cluster takes frames of edits, rooms and so on, as far as is known."""
        return self.features is None or self.has_events or "dataBytes" in self.limits
