"""The archive of all messages and events, and the queue that leads to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend
from imd.contracts.talks import TalkStore


class ArchiveRecord(msgspec.Struct, gc=False):
    """A visitor's message or event to archive. `agent` is the agent who got it; empty if none has."""

    body: bytes
    agent: str = ""


Record = bytes | ArchiveRecord
"""a message or an event to archive: its JSON alone, or with the agent who got it"""


def of_version(version: int) -> bytes:
    """For `Submission.archived` of an edit, recall or reaction in a room: the room's version that its message
    was placed under, which only the archive has to know."""
    return b'"ofVersion":%d' % version


def left_out(users: Sequence[str]) -> bytes:
    """The same for a message or event to a list: the recipients whom blocks left out, who do not see it."""
    return b'"without":%b' % msgspec.json.encode(list(users))


class Scope(msgspec.Struct, frozen=True, gc=False):
    """Where a message or an event belongs, which decides who may read it."""

    conversation: str
    """its id"""
    participants: tuple[str, ...] = ()
    """sorted; empty in a room. Of the agents who got a visitor's message at least those who asked for it.
    Without those whom a block left out"""
    visitor: str = ""
    """the visitor whose conversation it is"""
    room: str = ""
    version: int = 0
    """the room's version that it was placed under, or that a room's event made"""
    without: tuple[str, ...] = ()
    """recipients of a list whom a block left out: they get none of its events either"""


class Asked(NamedTuple):
    """A user wants to do something with a message."""

    message_id: str
    user: str


class Target(msgspec.Struct, frozen=True, gc=False):
    """A message that is to be edited or recalled, or reacted to, as the archive has it now."""

    message_id: str
    author: str
    from_user_type: str
    send_time: int
    to: str
    group: tuple[str, ...] | None
    is_visitor: bool
    recalled: bool
    scope: Scope
    reactions: Mapping[str, frozenset[str]]
    """user → its present reactions, for the users that were asked for and have any"""
    different: frozenset[str]
    """all present reactions"""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message, or an event that has a place in pages, as history shows it now."""

    message_id: str
    body: bytes
    scope: Scope
    kind: str = ""


@dataclass(slots=True)
class HistoryQuery:
    """A request for a page of a user's own conversation. At most one of before, after and around is given."""

    viewer: str
    conversation: str | None
    """its id; None: all conversations that the viewer takes part in, without rooms"""
    only_own: bool = False
    """only messages that the viewer sent or got: for an agent that the visitor no longer has"""
    before: str | None = None
    """a message id: the page ends before it; None: at the newest message"""
    limit: int = 50
    after: str | None = None
    """a message id: the page begins behind it"""
    around: str | None = None
    """a message id: half of the page is older; the message itself, if there is one, begins the other half"""
    from_version: int | None = None
    """only what was placed in the room under this version or a later one; None: everything"""
    cleared: Mapping[str, str] = field(default_factory=dict)
    """conversation → an id: the viewer has cleared all up to it"""


@dataclass(slots=True)
class History:
    messages: list[bytes] = field(default_factory=list)
    """each the message's JSON, oldest first"""
    more: bool = False
    """there are older ones"""
    more_after: bool = False
    """there are newer ones"""
    older: int = 0
    """how many of `messages` are older than `around`"""


@dataclass(slots=True)
class ChangesQuery:
    """A request for the events of a conversation, or of all: edits, recalls, reactions, changes of a room."""

    viewer: str
    conversation: str | None
    """its id; None: all conversations that the viewer takes part in, without rooms"""
    only_own: bool = False
    """only events that the viewer took part in"""
    after: str | None = None
    """an id; None: from the beginning"""
    limit: int = 200
    from_version: int | None = None
    """as in HistoryQuery; it counts for the message that an event is about"""
    cleared: Mapping[str, str] = field(default_factory=dict)
    """as in HistoryQuery, and so is this"""


@dataclass(slots=True)
class Changes:
    events: list[bytes] = field(default_factory=list)
    """each the event's JSON as it was delivered, oldest first; edits of a recalled message have no text"""
    more: bool = False


class ArchiveQueue(Backend, Protocol):
    """The queue in front of the archive."""

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        """Fires when the records are safe. After Unavailable it is not known whether they are."""

    def probe(self) -> Deferred[Any]:
        """Fires if a publish would succeed now; else fails with Unavailable, which says why."""


class Archive(Backend, Protocol):
    """Reads from the archive. Each method fails with Unavailable."""

    @property
    def talks(self) -> TalkStore: ...

    def history(self, query: HistoryQuery) -> Deferred[History]: ...

    def messages(self, message_ids: Sequence[str], viewer: str) -> Deferred[list[Entry]]:
        """The entries with these ids that are there, by id. The caller has to say which may be read.

        They are shown as `viewer` sees them, who is named among the users of its own reactions. An entry may
        be left out if `viewer` may not read it anyway.
        """

    def targets(self, asked: Sequence[Asked]) -> Deferred[dict[str, Target | None]]:
        """The messages of these ids that are there, as a majority of the servers has them.

        None stands for an id that is there, but is an event's. It may stand for a message that none of those
        who ask may read.
        """

    def changes(self, query: ChangesQuery) -> Deferred[Changes]: ...

    def newest_id(self) -> Deferred[str]:
        """The highest id of a message or an event in the archive; empty if there is none."""


class Progress(Protocol):
    """How far the archive is behind what this node has published, and behind nodes that are gone."""

    def oldest_ms(self) -> int | None:
        """When the first id of the oldest batch was made that is not known to be archived; None: all are."""

    def waiting(self) -> Collection[str]:
        """Names, as `name_of` gives them, of nodes with confirmed batches that are not archived yet."""

    def name_of(self, bus: str) -> str:
        """The name of the node with this address on the bus."""
