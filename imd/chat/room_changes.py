"""Changes of rooms: one is made, its event is archived, then its sender is answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from prometheus_client import Counter
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.batch import Answer, Entry
from imd.contracts.archive import ArchiveQueue
from imd.contracts.inbox import Inbox
from imd.contracts.rooms import Action, Leftover, RoomStore, Unchanged
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol import frames
from imd.protocol.errors import INVALID_MESSAGE, Refused, Unavailable
from imd.protocol.ids import of_one_node

SWEPT = Counter(
    "imd_rooms_swept_total", "Rooms of which this node has archived and settled events that another had left."
)

LATE_MS = 15_000
"""MongoDB may make a change for so long after its node gave up on it"""
APART_MS = 100
OLD_MS = 2_000
"""an older event was left by somebody else, or by a try that failed"""


class _Event(msgspec.Struct):
    id: str = ""


_read = msgspec.json.Decoder(_Event).decode


class _Unsettled(NamedTuple):
    """Events of a room that are archived. `of_others`: another node has made one of them."""

    room: str
    versions: Sequence[int]
    of_others: bool = False


class RoomChanges:
    """Makes changes, for all connections of a node. `stamp` gives a new id and the time in ms."""

    log = Logger()

    def __init__(
        self,
        rooms: RoomStore,
        inbox: Inbox,
        queue: ArchiveQueue,
        stamp: Callable[[], tuple[str, int]],
    ) -> None:
        self._rooms = rooms
        self._inbox = inbox
        self._queue = queue
        self._stamp = stamp
        self._seldom = Seldom(self.log)
        self._under_way: dict[object, int] = {}
        """changes: when each was begun, ms"""
        self._given_up: deque[int] = deque()
        """when changes were begun that have failed, some at least"""
        self._to_settle: list[_Unsettled] = []
        self._own_id = ""
        """the last id that a change here got; empty: none has"""

    async def make(self, origin: Any, action: Action) -> Entry:
        """The answer to `origin`. Raises Refused, Unavailable."""
        problem = self._inbox.problem() or self._queue.problem()
        if problem is not None:
            raise Unavailable(problem)
        sent = await self._inbox.sent_before(action.user, action.device, action.client_msg_id)
        if sent is not None and sent.checksum != action.checksum:
            raise Refused(INVALID_MESSAGE, "the clientMsgId was used for another message")
        change = object()

        def stamp() -> tuple[str, int]:
            made = self._stamp()
            self._own_id = made[0]
            self._under_way.setdefault(change, made[1])
            return made

        try:
            entry = await self._make(origin, action, stamp, change)
        except Refused:
            raise
        except BaseException:
            if change in self._under_way:
                self._give_up(self._under_way[change])
            raise
        finally:
            self._under_way.pop(change, None)
        return entry

    def oldest_ms(self, now_ms: int) -> int | None:
        """When the oldest change was begun that may yet be made or published; None if there is none."""
        while self._given_up and self._given_up[0] < now_ms - LATE_MS:
            self._given_up.popleft()
        return min([*self._under_way.values(), *self._given_up], default=None)

    def _give_up(self, begun_ms: int) -> None:
        if not self._given_up or begun_ms - self._given_up[-1] > APART_MS:
            self._given_up.append(begun_ms)
            self.oldest_ms(begun_ms)

    async def _make(
        self, origin: Any, action: Action, stamp: Callable[[], tuple[str, int]], change: object
    ) -> Entry:
        outcome = await self._rooms.change(action, stamp)
        if isinstance(outcome, Refused):
            raise outcome
        client_msg_id = action.client_msg_id
        if isinstance(outcome, Unchanged):
            return Answer(origin, client_msg_id, frames.unchanged(client_msg_id))
        if TRACE.on:
            TRACE.placed_in(outcome.room, outcome.version, outcome.event_id, action.user)
        if outcome.bodies:
            await self._publish(outcome.bodies)
        if outcome.settle and outcome.send_time > self._under_way.get(change, 0) - OLD_MS:
            self.settle(outcome.room, outcome.settle)
        elif outcome.settle:
            self._to_settle.append(_Unsettled(outcome.room, outcome.settle))
        room, version = outcome.room, outcome.version
        if TRACE.on:
            TRACE.accepted(outcome.event_id, action.user, action.device)
        payload = frames.accepted_in_room(client_msg_id, outcome.event_id, outcome.send_time, room, version)
        return Answer(origin, client_msg_id, payload)

    def settle(self, room: str, versions: Sequence[int]) -> Deferred[bool]:
        """Note that events are archived. If that fails (False), they are archived once more, later."""
        return self._rooms.settle(room, versions).addCallbacks(lambda _: True, self._not_settled)

    async def finish_leftovers(self) -> None:
        """Archive events whose makers are gone. Raises Unavailable.

        They are settled by the next call: until all nodes have heard that this one has batches that old, the
        outbox has to show that not all is archived.
        """
        to_settle, self._to_settle = self._to_settle, []
        for each in to_settle:
            if await self.settle(each.room, each.versions) and each.of_others:
                SWEPT.inc()
        for left in await self._rooms.leftovers():
            await self._publish(left.bodies)
            self._to_settle.append(_Unsettled(left.room, left.settle, self._is_of_others(left)))

    def _publish(self, bodies: Sequence[bytes]) -> Deferred[None]:
        published = self._queue.publish(bodies)
        if TRACE.on:
            TRACE.publishing(bodies, published)
        return published

    def _is_of_others(self, left: Leftover) -> bool:
        """True unless this node has made all of these events: it could not archive them at once."""
        return not all(self._own_id and of_one_node(_read(body).id, self._own_id) for body in left.bodies)

    def _not_settled(self, failure: Failure) -> bool:
        if failure.check(Unavailable) is None:
            self._seldom.failure("a room's event was not settled", failure)
        return False
