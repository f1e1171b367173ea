"""The archive of all messages, and the queue that leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend


class ArchiveRecord(msgspec.Struct, gc=False):
    """A visitor's message to archive. `agent` is the agent who got it; empty if none has."""

    body: bytes
    agent: str = ""


Record = bytes | ArchiveRecord
"""a message to archive: its JSON alone, or with the agent who got it"""


@dataclass(slots=True)
class HistoryQuery:
    """A request for a page of a user's own conversation."""

    viewer: str
    conversation: str | None
    """its id; None: all conversations that the viewer takes part in"""
    only_own: bool = False
    """only messages that the viewer sent or got: for an agent that the visitor no longer has"""
    before: str | None = None
    """a message id: the page ends before it; None: at the newest message"""
    limit: int = 50


@dataclass(slots=True)
class History:
    messages: list[bytes] = field(default_factory=list)
    """each the message's JSON, oldest first"""
    more: bool = False


class ArchiveQueue(Backend, Protocol):
    """The queue in front of the archive."""

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        """Fires when the records are safe. After Unavailable it is not known whether they are."""

    def probe(self) -> Deferred[Any]:
        """Fires if a publish would succeed now; else fails with Unavailable, which says why."""


class Archive(Backend, Protocol):
    """Reads from the archive."""

    def history(self, query: HistoryQuery) -> Deferred[History]: ...

    def newest_id(self) -> Deferred[str]:
        """The highest message id in the archive; empty if it has no messages."""
