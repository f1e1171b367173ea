"""A store of rooms whose answers a test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.contracts.rooms import Action, Membership
from tests.support.doubles.backend import Backed


class RoomsDouble(Backed):
    """imd.contracts.rooms.RoomStore: calls in `asked`, each with the Deferred that waits for its answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []
        self.sizes: dict[str, int] = {}
        self.members: dict[tuple[str, str], Membership] = {}
        self.settled: list[tuple[str, Sequence[int]]] = []
        self.deliver: Callable[[Any], None] = lambda deliveries: None

    def _ask(self, *question: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((question, answer))
        return answer

    def answer(self, result: Any, which: int = -1) -> None:
        """Answer the call with this number."""
        self.asked[which][1].callback(result)

    def fail(self, error: Exception, which: int = -1) -> None:
        self.asked[which][1].errback(error)

    def deliver_to(self, deliver: Callable[[Any], None]) -> None:
        self.deliver = deliver

    def change(self, action: Action, stamp: Callable[[], tuple[str, int]]) -> Deferred[Any]:
        return self._ask("change", action, stamp())

    def settle(self, room: str, versions: Sequence[int]) -> Deferred[None]:
        self.settled.append((room, versions))
        return self._ask("settle", room, versions)

    def leftovers(self) -> Deferred[Any]:
        return self._ask("leftovers")

    def oldest_event_ms(self) -> Deferred[Any]:
        return self._ask("oldest_event_ms")

    def is_warm(self, room: str) -> bool:
        return room in self.sizes

    def warm(self, room: str) -> Deferred[bool]:
        return self._ask("warm", room)

    def size(self, room: str) -> int:
        return self.sizes.get(room, 1)

    def heard(self, room: str, members: int) -> None:
        if members:
            self.sizes[room] = members
        else:
            self.sizes.pop(room, None)

    def membership(self, room: str, user: str) -> Deferred[Any]:
        """Answered at once, by `members`."""
        return succeed(self.members.get((room, user)))

    def parts(self, user: str) -> Deferred[Any]:
        return self._ask("parts", user)

    def rooms_of(self, user: str, after: str, limit: int) -> Deferred[Any]:
        return self._ask("rooms_of", user, after, limit)

    def members_of(self, room: str, viewer: str, after: str, limit: int) -> Deferred[Any]:
        return self._ask("members_of", room, viewer, after, limit)
