"""Rooms of the embedded backend, seen from the reactor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.contracts.inbox import Delivery
from imd.contracts.room_rules import Stamp
from imd.contracts.rooms import (
    Action,
    ChangeOutcome,
    Leftover,
    Membership,
    MembersPage,
    RoomPart,
    RoomSummary,
)
from imd.store.embedded.on_file import OnFile
from imd.store.embedded.rooms import RoomTables, Told

MAX_SIZES = 20_000


class EmbeddedRooms(OnFile[RoomTables]):
    """Implements imd.contracts.rooms.RoomStore.

    A change and its event are one transaction, so nothing is left over.
    """

    def __init__(self, do: Callable[[Callable[[RoomTables], Any]], Deferred[Any]]) -> None:
        """As OnFile."""
        super().__init__(do)
        self._deliver: Callable[[Sequence[Delivery]], None] = lambda deliveries: None
        self._sizes: OrderedDict[str, int] = OrderedDict()

    # RoomStore

    def deliver_to(self, deliver: Callable[[Sequence[Delivery]], None]) -> None:
        self._deliver = deliver

    def change(self, action: Action, stamp: Callable[[], tuple[str, int]]) -> Deferred[ChangeOutcome]:
        at = Stamp(*stamp())
        return self._do(lambda rooms: rooms.change(action, at)).addCallback(self._changed)

    def _changed(self, told: Told) -> ChangeOutcome:
        self._deliver(told.deliveries)
        return told.outcome

    def settle(self, room: str, versions: Sequence[int]) -> Deferred[None]:
        return succeed(None)

    def leftovers(self) -> Deferred[list[Leftover]]:
        return succeed([])

    def oldest_event_ms(self) -> Deferred[int | None]:
        return succeed(None)

    def is_warm(self, room: str) -> bool:
        return room in self._sizes

    def warm(self, room: str) -> Deferred[bool]:
        return self._do(lambda rooms: rooms.count(room)).addCallback(self._counted, room)

    def _counted(self, members: int | None, room: str) -> bool:
        if members is None:
            return False
        self.heard(room, members)
        return True

    def size(self, room: str) -> int:
        return self._sizes.get(room, 1)

    def heard(self, room: str, members: int) -> None:
        self._sizes[room] = members
        self._sizes.move_to_end(room)
        if len(self._sizes) > MAX_SIZES:
            self._sizes.popitem(last=False)

    def membership(self, room: str, user: str) -> Deferred[Membership | None]:
        return self._do(lambda rooms: rooms.membership(room, user))

    def rooms_of(self, user: str, after: str, limit: int) -> Deferred[tuple[list[RoomSummary], bool]]:
        return self._do(lambda rooms: rooms.rooms_of(user, after, limit))

    def parts(self, user: str) -> Deferred[list[RoomPart]]:
        return self._do(lambda rooms: rooms.parts(user))

    def members_of(self, room: str, viewer: str, after: str, limit: int) -> Deferred[MembersPage | None]:
        return self._do(lambda rooms: rooms.members_of(room, viewer, after, limit))
