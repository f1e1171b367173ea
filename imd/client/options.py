"""The options of a client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one client; times in seconds. Raises ValueError for options that contradict each other."""

    user_id: str | None = None
    """may be None with a token, and for a visitor, which is named by the node"""
    device: str | None = None
    """None: the store's own name for this device"""
    login_type: str = "USER_TYPE"
    """or CUSTOMER_TYPE; a token's claim takes precedence"""
    customer_service: bool = False
    """an agent, who answers visitors"""
    visitor: bool = False
    """an anonymous visitor"""
    ephemeral: bool = False
    """the node forgets the device when its connection ends"""
    has_token: bool = False
    """ask for a token at each connect, and before the present one expires"""
    hint: bool = True
    """name the user in the WebSocket's URL, for a gateway"""
    features: Sequence[str] = ("events", "sync", "state")
    """asked for when connecting; empty: messages only, as in 0.1"""
    presence: bool = True
    """False: this connection makes nobody see the user online"""
    max_outbox: int = 1000
    """most entries that are neither accepted nor failed"""
    dedup_seconds: float = 3600.0
    """how long the nodes know a clientMsgId; a message that has no answer for nine tenths of it fails"""
    min_backoff: float = 1.0
    max_backoff: float = 30.0
    connect_seconds: float = 20.0
    """deadline of `connected`, from the request for a token on"""
    ping_seconds: float | None = None
    """silence of the node before the client pings it; None: the node's own interval"""
    pong_seconds: float = 10.0
    history_seconds: float = 30.0
    """deadline of a page of history, across reconnects"""

    def __post_init__(self) -> None:
        if self.visitor and self.customer_service:
            raise ValueError("a visitor is no agent")
        if not (self.visitor or self.has_token or self.user_id):
            raise ValueError("user_id, a token or visitor=True is expected")
        if self.max_outbox < 1:
            raise ValueError("max_outbox begins at 1")
