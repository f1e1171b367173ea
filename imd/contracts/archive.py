"""The archive of all messages, and the queue that leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend


class ArchiveRecord(msgspec.Struct, gc=False):
    """A visitor's message to keep for ever. `agent` is who got it, if anybody has."""

    body: bytes
    agent: str = ""


Record = bytes | ArchiveRecord
"""a message to keep for ever: its JSON, or with who got it"""


@dataclass(slots=True)
class HistoryQuery:
    """A page of somebody's own conversation, newest first at the store, oldest first to the client."""

    viewer: str
    conversation: str | None
    """None: all conversations that the viewer takes part in"""
    only_own: bool = False
    """only what the viewer sent or got: for an agent that the visitor no longer has"""
    before: str | None = None
    limit: int = 50


@dataclass(slots=True)
class History:
    messages: list[bytes] = field(default_factory=list)
    """each the message's JSON, oldest first"""
    more: bool = False


class ArchiveQueue(Backend, Protocol):
    """Takes messages towards the archive."""

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        """Fires when the records are safe. Unavailable: they may or may not be."""

    def probe(self) -> Deferred[None]:
        """Fires if records would be safe now; fails with Unavailable, which says why they would not."""


class Archive(Backend, Protocol):
    """Reads what the archive holds."""

    def history(self, query: HistoryQuery) -> Deferred[History]: ...

    def newest_id(self) -> Deferred[str]:
        """The highest message id that it holds; empty if it holds none."""
