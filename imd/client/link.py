"""The connection as the node has described it: read by every part of the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Link:
    is_open: bool = False
    """the node has said `connected`, and neither side has begun to leave: frames may be sent"""
    limits: dict[str, Any] = field(default_factory=dict)
    """as the node gave them, under the protocol's names"""
    opened_at: float = 0.0
    """the time of `connected`, in seconds of the client's clock"""
    server_ahead_ms: float = 0.0
    """the node's clock minus the client's"""
    ping_seconds: float = 25.0
    """a silence that long is broken by a ping"""
