"""What all connections of a node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imd.accept import Acceptor
from imd.auth import Authenticator
from imd.delivery import Cancellable, Router
from imd.gate import Gate
from imd.history import Historian
from imd.ids import MessageIds, ServerClock
from imd.interfaces import Inbox, Leave
from imd.replacing import Replacing
from imd.session import Session
from imd.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections of a node share."""

    settings: Settings
    clock: ServerClock
    ids: MessageIds
    inbox: Inbox
    acceptor: Acceptor
    router: Router
    historian: Historian
    authenticator: Authenticator
    gate: Gate
    replacing: Replacing
    sessions: dict[str, Session]
    call_later: Callable[..., Cancellable]
    unix_seconds: Callable[[], float]
    leave: Callable[[Leave], None]
    """tells the inbox that a channel is gone, and sees to it that this ends"""
    desk_changed: Callable[[], None]
    """an agent came: somebody may be waiting"""
