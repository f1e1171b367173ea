"""The backends of a node: the objects that implement the contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from imd.contracts.aim import AimStore
from imd.contracts.archive import Archive, ArchiveQueue, Progress
from imd.contracts.backend import Backend
from imd.contracts.blocks import BlockStore
from imd.contracts.bus import Bus
from imd.contracts.inbox import Inbox
from imd.contracts.level import LevelStore
from imd.contracts.presence import PresenceStore
from imd.contracts.rooms import RoomStore
from imd.contracts.state import StateStore
from imd.gateway.table import NodeTable


@dataclass(frozen=True)
class Backends:
    """`workers` run beside the others; clients are let in without waiting for them."""

    inbox: Inbox
    queue: ArchiveQueue
    archive: Archive
    rooms: RoomStore
    aims: AimStore
    states: StateStore
    presence: PresenceStore
    blocks: BlockStore
    bus: Bus | None
    nodes: NodeTable | None = None
    workers: Sequence[Backend] = ()
    levels: Mapping[str, LevelStore] = field(default_factory=dict)
    """the stores that hold the cluster's level; none: it is the newest"""
    hear_level: Sequence[Callable[[int], None]] = ()
    """to be told the level when it is found, and when it changes"""
    complete: Callable[[], Deferred[str]] | None = None
    """the id up to which everything is archived, where the store itself knows it"""
    progress: Progress | None = None
    """where it does not: how far the archive is"""

    def named(self) -> dict[str, Backend]:
        """All of them by the names that /readyz uses, in the order of starting."""
        named: dict[str, Backend] = {"inbox": self.inbox, "archive queue": self.queue}
        if self.bus is not None:
            named["bus"] = self.bus
        named["archive"] = self.archive
        named["rooms"] = self.rooms
        named["state"] = self.states
        named["blocks"] = self.blocks
        for worker in self.workers:
            named[type(worker).__name__] = worker
        return named

    def bus_problem(self) -> str | None:
        """Why hints reach no other node; None if they do, or if there is no other node."""
        return self.bus.problem() if self.bus is not None else None
