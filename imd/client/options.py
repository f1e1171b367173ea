"""How a client is to behave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Of one client. Times in seconds."""

    user_id: str | None = None
    """may be left out with a token, and is given by the node to a visitor"""
    device: str | None = None
    """None: the store's own name for this device"""
    login_type: str = "USER_TYPE"
    """or CUSTOMER_TYPE; with a token, the token's counts"""
    customer_service: bool = False
    """an agent: gets visitors"""
    visitor: bool = False
    """an anonymous visitor"""
    ephemeral: bool = False
    """the node forgets the device when its connection ends"""
    has_token: bool = False
    """a token is asked for at each connect, and before the old one expires"""
    max_outbox: int = 1000
    """messages that wait to be accepted"""
    dedup_seconds: float = 3600.0
    """how long the nodes know a clientMsgId; what is unanswered for longer fails, as nobody knows its fate"""
    min_backoff: float = 1.0
    max_backoff: float = 30.0
    connect_seconds: float = 20.0
    """until the node must have said `connected`, the token included"""
    ping_seconds: float | None = None
    """of silence until the client asks whether the node is there; None: as often as the node pings"""
    pong_seconds: float = 10.0
    history_seconds: float = 30.0
    """deadline of a page of history, over as many connections as it takes"""

    def __post_init__(self) -> None:
        if self.visitor and self.customer_service:
            raise ValueError("a visitor is no agent")
        if not (self.visitor or self.has_token or self.user_id):
            raise ValueError("user_id, a token or visitor=True is expected")
        if self.max_outbox < 1:
            raise ValueError("max_outbox begins at 1")
