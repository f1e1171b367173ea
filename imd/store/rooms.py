"""Rooms of a cluster: documents in MongoDB, and copies in Redis, which are brought up to date with them.

Every path ends in the same step, `RoomCopies.bring`: a change, a room that Redis does not know, and events
that a dead node has left. The step is refused if Redis may have forgotten or gained something since the
document was read; then the document is read again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts import room_rules
from imd.contracts.inbox import Delivery
from imd.contracts.room_rules import Stamp
from imd.contracts.rooms import (
    Action,
    Changed,
    ChangeOutcome,
    Leftover,
    Membership,
    MembersPage,
    RoomOptions,
    RoomPart,
    RoomSummary,
    Unchanged,
    page_of_members,
)
from imd.observe.seldom import Seldom
from imd.protocol.errors import Refused, Unavailable
from imd.store.in_time import in_time
from imd.store.mongo.archive import ROOM_THREADS, MongoArchive
from imd.store.mongo.in_threads import InThreads
from imd.store.mongo.rooms import Admit, Document, Known, Lost, RoomDocuments, Same
from imd.store.redis.rooms import RoomCopies, Seen

LOADED = Counter(
    "imd_rooms_loaded_total", "Rooms whose copy was brought up to date from MongoDB, but for changes."
)
LOADS_WAITING = Gauge("imd_rooms_loads_waiting", "Rooms that wait to be loaded (bound: 1,000).")

ANSWER_SECONDS = 2.0
MAX_LOADS = 3
MAX_LOADS_WAITING = 1000
MAX_WARM = 20_000
# Reads of a document that are refused one after the other.
MAX_STALE = 5
LEFT_AFTER_MS = 10_000


class ClusterRooms(InThreads[RoomDocuments]):
    """Implements imd.contracts.rooms.RoomStore."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        archive: MongoArchive,
        copies: RoomCopies,
        options: RoomOptions,
    ) -> None:
        super().__init__(archive, "rooms", ROOM_THREADS, ANSWER_SECONDS, RoomDocuments)
        self._reactor = reactor
        self._copies = copies
        self._options = options
        self._seldom = Seldom(self.log, reactor.seconds)
        self._deliver: Callable[[Sequence[Delivery]], None] = lambda deliveries: None
        self._warm: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """rooms that Redis knows: the run in which, and the members last heard of"""
        self._loads: dict[str, list[Deferred[bool]]] = {}
        self._to_load: deque[str] = deque()
        self._loading = 0

    # changes

    def deliver_to(self, deliver: Callable[[Sequence[Delivery]], None]) -> None:
        self._deliver = deliver

    def change(self, action: Action, stamp: Callable[[], tuple[str, int]]) -> Deferred[ChangeOutcome]:
        return self._in_time(self._change(action, stamp))

    async def _change(self, action: Action, stamp: Callable[[], tuple[str, int]]) -> ChangeOutcome:
        dedup_ms = int(self._options.dedup_seconds * 1000)
        admitted = False
        while True:
            seen = self._copies.seen()
            how = Stamp(*stamp()), self._options.members, dedup_ms, admitted
            attempt = await self._ask(RoomDocuments.attempt, action, *how)
            if isinstance(attempt, Admit):
                refused = await self._copies.admit(action.user, attempt.users)
                if refused is not None:
                    return room_rules.too_many_new(refused)
                admitted = True
            elif not isinstance(attempt, Lost):
                break
        if isinstance(attempt, Refused):
            return attempt
        document = attempt.document
        if document.outbox:
            await self._bring(document, seen)
        room = document.room
        if isinstance(attempt, Same):
            return Unchanged(room.id, room.version)
        past = attempt.past if isinstance(attempt, Known) else room.past[-1]
        bodies = [entry.bodies[0].body.encode() for entry in document.outbox if entry.version == past.version]
        version = room.version if action.action == "create" else past.version
        return Changed(room.id, version, past.id, past.time, bodies, (past.version,) if bodies else ())

    def settle(self, room: str, versions: Sequence[int]) -> Deferred[None]:
        return self._in_time(self._ask(RoomDocuments.settle, room, versions))

    def leftovers(self) -> Deferred[list[Leftover]]:
        return ensureDeferred(self._leftovers())

    async def _leftovers(self) -> list[Leftover]:
        before = self._copies.seen().at - LEFT_AFTER_MS
        found = []
        for room in await self._ask(RoomDocuments.leftovers, before):
            seen = self._copies.seen()
            document = await self._ask(RoomDocuments.read, room)
            if document is None:
                continue
            document = await self._bring(document, seen)
            old = [entry for entry in document.outbox if entry.at < before]
            if old:
                bodies = [entry.bodies[0].body.encode() for entry in old]
                found.append(Leftover(room, bodies, [entry.version for entry in old]))
        return found

    def oldest_event_ms(self) -> Deferred[int | None]:
        return self._in_time(self._ask(RoomDocuments.oldest_event))

    # rooms that Redis knows

    def is_warm(self, room: str) -> bool:
        known = self._warm.get(room)
        return known is not None and known[0] == self._copies.run

    def warm(self, room: str) -> Deferred[bool]:
        waiter: Deferred[bool] = Deferred()
        if (waiters := self._loads.get(room)) is not None:
            waiters.append(waiter)
            return waiter
        if len(self._to_load) >= MAX_LOADS_WAITING:
            return fail(Unavailable(f"rooms: {MAX_LOADS_WAITING} wait to be loaded"))
        self._loads[room] = [waiter]
        self._to_load.append(room)
        self._load_next()
        return waiter

    def size(self, room: str) -> int:
        known = self._warm.get(room)
        return known[1] if known is not None else 1

    def heard(self, room: str, members: int) -> None:
        if members:
            self._note(room, members)
        else:
            self._warm.pop(room, None)
            self.warm(room).addErrback(self._not_loaded)

    # questions

    def membership(self, room: str, user: str) -> Deferred[Membership | None]:
        return self._in_time(self._membership(room, user))

    async def _membership(self, room: str, user: str) -> Membership | None:
        found = await self._copies.membership(room, user)
        if found is None:
            if not await self.warm(room):
                return None
            found = await self._copies.membership(room, user)
            if found is None:
                raise Unavailable("rooms: the room is not known to Redis")
        return None if isinstance(found, int) else found

    def rooms_of(self, user: str, after: str, limit: int) -> Deferred[tuple[list[RoomSummary], bool]]:
        return self._in_time(self._rooms_of(user, after, limit))

    async def _rooms_of(self, user: str, after: str, limit: int) -> tuple[list[RoomSummary], bool]:
        found = await self._ask(RoomDocuments.rooms_of, user, after, limit + 1)
        return found[:limit], len(found) > limit

    def parts(self, user: str) -> Deferred[list[RoomPart]]:
        return self._in_time(self._ask(RoomDocuments.parts, user))

    def members_of(self, room: str, viewer: str, after: str, limit: int) -> Deferred[MembersPage | None]:
        return self._in_time(self._members_of(room, viewer, after, limit))

    async def _members_of(self, room: str, viewer: str, after: str, limit: int) -> MembersPage | None:
        document = await self._ask(RoomDocuments.read, room)
        if document is None or document.room.member(viewer) is None:
            return None
        return page_of_members(document.room, after, limit)

    # from within

    async def _bring(self, document: Document, seen: Seen) -> Document:
        """Bring Redis up to date with the document, which was read after `seen`.

        Gives the document that Redis has now.
        """
        for _ in range(MAX_STALE):
            brought = await self._copies.bring(document.room, document.outbox, seen)
            self._deliver(brought.deliveries)
            if not brought.stale:
                self._note(document.room.id, len(document.room.members))
                return document
            seen = self._copies.seen()
            again = await self._ask(RoomDocuments.read, document.room.id)
            if again is None:
                raise Unavailable("rooms: the room has gone from MongoDB")
            document = again
        raise Unavailable("rooms: Redis changes from run to run")

    def _note(self, room: str, members: int) -> None:
        self._warm[room] = (self._copies.run, members)
        self._warm.move_to_end(room)
        if len(self._warm) > MAX_WARM:
            self._warm.popitem(last=False)

    def _load_next(self) -> None:
        while self._to_load and self._loading < MAX_LOADS:
            room = self._to_load.popleft()
            self._loading += 1
            loaded = self._in_time(self._load(room))
            loaded.addBoth(self._loaded, room)
        LOADS_WAITING.set(len(self._to_load))

    async def _load(self, room: str) -> bool:
        """Have Redis know the room, if it does not; False if there is no such room."""
        known = await self._copies.membership(room, "")
        if known is not None:
            self._note(room, known if isinstance(known, int) else known.members)
            return True
        seen = self._copies.seen()
        document = await self._ask(RoomDocuments.read, room)
        if document is None:
            return False
        await self._bring(document, seen)
        LOADED.inc()
        return True

    def _loaded(self, result: bool | Failure, room: str) -> None:
        self._loading -= 1
        for waiter in self._loads.pop(room):
            if isinstance(result, Failure):
                waiter.errback(Failure(Unavailable(result.getErrorMessage())))
            else:
                waiter.callback(result)
        self._load_next()

    def _not_loaded(self, failure: Failure) -> None:
        self._seldom.warn("a room could not be loaded: {reason}", reason=failure.getErrorMessage())

    def _in_time(self, work: Any) -> Deferred[Any]:
        return in_time(self._reactor, ANSWER_SECONDS, work, "rooms", self._seldom)
