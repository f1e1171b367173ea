"""A client of the protocol: a core without I/O, in one shell for asyncio and another for Twisted.

Take `Client` from `imd.client.asyncio` or from `imd.client.twisted`. Nothing here imports the daemon.
"""

from imd.client.conversation import Conversation
from imd.client.events import (
    Accepted,
    Changes,
    ClientError,
    Connected,
    ConversationPage,
    ConversationsChanged,
    Ended,
    Failed,
    FrameRefused,
    Gap,
    Leaving,
    ListedConversation,
    MemberPage,
    OutboxFull,
    Page,
    Presence,
    Refused,
    RoomInfo,
    RoomPage,
    Signal,
    State,
    StateChanged,
    Typing,
    Unanswered,
)
from imd.client.numbered import Edit, Edited, Entry, Member, Message, Reaction, Reactions, Recall, RoomEvent
from imd.client.options import Options
from imd.client.outgoing import Outgoing, Refusal
from imd.client.store import MemoryStore, SqliteStore, Store
from imd.client.talks import ConversationsView
from imd.client.view import RoomsView, View

__all__ = [
    "Accepted",
    "Changes",
    "ClientError",
    "Connected",
    "Conversation",
    "ConversationPage",
    "ConversationsChanged",
    "ConversationsView",
    "Edit",
    "Edited",
    "Ended",
    "Entry",
    "Failed",
    "FrameRefused",
    "Gap",
    "Leaving",
    "ListedConversation",
    "Member",
    "MemberPage",
    "MemoryStore",
    "Message",
    "Options",
    "OutboxFull",
    "Outgoing",
    "Page",
    "Presence",
    "Reaction",
    "Reactions",
    "Recall",
    "Refusal",
    "Refused",
    "RoomEvent",
    "RoomInfo",
    "RoomPage",
    "RoomsView",
    "Signal",
    "SqliteStore",
    "State",
    "StateChanged",
    "Store",
    "Typing",
    "Unanswered",
    "View",
]
