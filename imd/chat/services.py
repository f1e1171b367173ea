"""The objects that all connections of a node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imd.chat.accept import Acceptor
from imd.chat.asks import Asks
from imd.chat.changes import Changes
from imd.chat.history import Historian
from imd.chat.homecoming import Homecoming
from imd.chat.live import Live
from imd.chat.presence import Presence
from imd.chat.room_changes import RoomChanges
from imd.chat.router import Router
from imd.chat.session import Session
from imd.chat.signals import Signals
from imd.chat.state_feed import Feeds
from imd.chat.talks import TalkList
from imd.chat.typing import TypingPace
from imd.config.settings import Settings
from imd.contracts.aim import AimStore
from imd.contracts.blocks import BlockStore
from imd.contracts.inbox import Inbox, Leave
from imd.contracts.rooms import RoomStore
from imd.contracts.state import StateStore
from imd.contracts.timer import Cancellable
from imd.entry.admission import Door
from imd.entry.auth import Authenticator
from imd.entry.gate import Gate
from imd.entry.replacing import Replacing
from imd.protocol.ids import MessageIds, ServerClock


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all connections of a node."""

    settings: Settings
    clock: ServerClock
    ids: MessageIds
    inbox: Inbox
    acceptor: Acceptor
    router: Router
    historian: Historian
    changes: Changes
    authenticator: Authenticator
    door: Door
    gate: Gate
    replacing: Replacing
    sessions: dict[str, Session]
    call_later: Callable[..., Cancellable]
    unix_seconds: Callable[[], float]
    leave: Callable[[Leave], None]
    """removes a channel from the registry; a node that stops waits for the answer"""
    desk_changed: Callable[[], None]
    """called when an agent has connected, as visitors may be waiting"""
    rooms: RoomStore
    room_changes: RoomChanges
    level: Callable[[], int]
    """the cluster's feature level; when it changes, all connections are closed"""
    live: Live
    asks: Asks
    aims: AimStore
    signals: Signals
    typing: TypingPace
    states: StateStore
    feeds: Feeds
    presence: Presence
    talks: TalkList
    blocks: BlockStore
    homecoming: Homecoming | None = None
    """behind a gateway: moves users to their homes"""
