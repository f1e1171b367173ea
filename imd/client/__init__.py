"""A client of the protocol: a core without I/O, in one shell for asyncio and another for Twisted.

Take `Client` from `imd.client.asyncio` or from `imd.client.twisted`. Nothing here imports the daemon.
"""

from imd.client.events import (
    Accepted,
    Changes,
    ClientError,
    Connected,
    Ended,
    Failed,
    Gap,
    Leaving,
    MemberPage,
    OutboxFull,
    Page,
    Refused,
    RoomInfo,
    RoomPage,
    State,
    StateChanged,
    Unanswered,
)
from imd.client.numbered import Edit, Edited, Entry, Member, Message, Reaction, Reactions, Recall, RoomEvent
from imd.client.options import Options
from imd.client.outgoing import Outgoing, Refusal
from imd.client.store import MemoryStore, SqliteStore, Store
from imd.client.view import RoomsView, View

__all__ = [
    "Accepted",
    "Changes",
    "ClientError",
    "Connected",
    "Edit",
    "Edited",
    "Ended",
    "Entry",
    "Failed",
    "Gap",
    "Leaving",
    "Member",
    "MemberPage",
    "MemoryStore",
    "Message",
    "Options",
    "OutboxFull",
    "Outgoing",
    "Page",
    "Reaction",
    "Reactions",
    "Recall",
    "Refusal",
    "Refused",
    "RoomEvent",
    "RoomInfo",
    "RoomPage",
    "RoomsView",
    "SqliteStore",
    "State",
    "StateChanged",
    "Store",
    "Unanswered",
    "View",
]
