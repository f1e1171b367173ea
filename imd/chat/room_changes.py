"""Changes of rooms: one is made, its event is archived, then its sender is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.batch import Answer, Entry
from imd.contracts.archive import ArchiveQueue
from imd.contracts.inbox import Inbox
from imd.contracts.rooms import Action, RoomStore, Unchanged
from imd.observe.seldom import Seldom
from imd.protocol import frames
from imd.protocol.errors import INVALID_MESSAGE, Refused, Unavailable


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

    async def make(self, origin: Any, action: Action) -> Entry:
        """The answer to `origin`. Raises Refused, Unavailable."""
        problem = self._inbox.problem() or self._queue.problem()
        if problem is not None:
            raise Unavailable(problem)
        sent = await self._inbox.sent_before(action.user, action.device, action.client_msg_id)
        if sent is not None and sent.checksum != action.checksum:
            raise Refused(INVALID_MESSAGE, "the clientMsgId was used for another message")
        outcome = await self._rooms.change(action, self._stamp)
        if isinstance(outcome, Refused):
            raise outcome
        client_msg_id = action.client_msg_id
        if isinstance(outcome, Unchanged):
            return Answer(origin, client_msg_id, frames.unchanged(client_msg_id))
        if outcome.bodies:
            await self._queue.publish(outcome.bodies)
        if outcome.settle:
            self.settle(outcome.room, outcome.settle)
        room, version = outcome.room, outcome.version
        payload = frames.accepted_in_room(client_msg_id, outcome.event_id, outcome.send_time, room, version)
        return Answer(origin, client_msg_id, payload)

    def settle(self, room: str, versions: Any) -> Deferred[None]:
        """Note that events are archived. If that fails, they are archived once more, later."""
        return self._rooms.settle(room, versions).addErrback(self._not_settled)

    async def finish_leftovers(self) -> int:
        """Archive events whose makers are gone; gives the number of their rooms. Raises Unavailable."""
        leftovers = await self._rooms.leftovers()
        for left in leftovers:
            await self._queue.publish(left.bodies)
            await self.settle(left.room, left.settle)
        return len(leftovers)

    def _not_settled(self, failure: Failure) -> None:
        if failure.check(Unavailable) is None:
            self._seldom.failure("a room's event was not settled", failure)
