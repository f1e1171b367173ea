"""Builds that break rooms, edits, recalls and reactions. See `broken`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.tools.drill.build import Build
from tests.tools.drill.seams import Did, Seams

# So long a hung loader stands still between reading a room and putting it.
HUNG_SECONDS = 1.0
# So long a change is held between MongoDB and Redis.
HELD_SECONDS = 1.0
# So long a batch of messages is held before it goes to Redis.
SLOW_SECONDS = 0.3


def stale_loader(seams: Seams) -> None:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    from imd.store.mongo.rooms import RoomDocuments
    from imd.store.redis.rooms import RoomCopies
    from imd.store.rooms import ClusterRooms

    seams.expect(ClusterRooms, "_bring", "self, document, seen")
    seams.expect(RoomCopies, "seen", "self")
    seams.rewrite("version > tonumber(copy[2] or '0')", "true")

    def make(load: Callable[..., Any], did: Did) -> Callable[..., Any]:
        async def hung(self: ClusterRooms, room: str) -> bool:
            if await self._copies.membership(room, "") is not None:
                return await load(self, room)  # type: ignore[no-any-return]
            seen = self._copies.seen()
            document = await self._ask(RoomDocuments.read, room)
            if document is None:
                return False
            await deferLater(reactor, HUNG_SECONDS)  # type: ignore[arg-type]
            now = await self._ask(RoomDocuments.read, room)
            await self._bring(document, seen)
            if now.room.version > document.room.version:
                did()
            return True

        return hung

    seams.replace(ClusterRooms, "_load", "self, room", make)


def went_back(seams: Seams) -> None:
    from imd.store.mongo.rooms import RoomDocuments
    from imd.store.redis.connection import RedisConnection
    from imd.store.rooms import ClusterRooms

    seams.expect(RedisConnection, "command", "self, parts")
    seams.rewrite("found[1] ~= run_text or not found[3]", "not found[3]")

    def make(load: Callable[..., Any], did: Did) -> Callable[..., Any]:
        async def whatever_is_there(self: ClusterRooms, room: str) -> bool:
            found: bool = await load(self, room)
            document = await self._ask(RoomDocuments.read, room)
            copied = await self._copies._calls.redis.general.command("HGET", f"imd:room:{room}", "version")
            if document is not None and copied is not None and int(copied) < document.room.version:
                did()
            return found

        return whatever_is_there

    seams.replace(ClusterRooms, "_load", "self, room", make)


def arrival_order(seams: Seams) -> None:
    from imd.protocol.events import Edit
    from imd.store.mongo import apply, write

    def make_change(change_of: Callable[..., Any], _: Did) -> Callable[..., Any]:
        def whatever_came_before(event: Any) -> Any:
            update = change_of(event)
            update._filter.pop("$or", None)
            return update

        return whatever_came_before

    def make_apply(apply_events: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def counted(collection: Any, events: Sequence[Any]) -> Any:
            for event in events:
                newer = {"_id": event.of, "edited.id": {"$gt": event.id}} if isinstance(event, Edit) else None
                if newer is not None and collection.find_one(newer) is not None:
                    did()
            return apply_events(collection, events)

        return counted

    seams.replace(apply, "change_of", "event", make_change)
    seams.replace(write, "apply_events", "collection, events", make_apply)


def no_sweep(seams: Seams) -> None:
    from imd.chat.room_changes import RoomChanges

    def make(_: Callable[..., Any], did: Did) -> Callable[..., Any]:
        async def never(self: RoomChanges) -> None:
            did()

        return never

    seams.replace(RoomChanges, "finish_leftovers", "self", make)


def swapped_versions(seams: Seams) -> None:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    from imd.store.redis import rooms
    from imd.store.redis.script_calls import ScriptCalls

    seams.rewrite(
        "for n, entry in ipairs(entries) do\n  if entry[1] > placed_up_to then",
        "for n = #entries, 1, -1 do\n  local entry = entries[n]\n"
        "  if entry[1] > tonumber(copy[3] or '0') then",
    )

    def make_bring(bring: Callable[..., Any], _: Did) -> Callable[..., Any]:
        async def held(self: rooms.RoomCopies, room: Any, entries: Sequence[Any], seen: Any) -> Any:
            # So that the next change overtakes each second one.
            if room.version % 2:
                await deferLater(reactor, HELD_SECONDS)  # type: ignore[arg-type]
            return await bring(self, room, entries, seen)

        return held

    def make_call(call: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def counted(self: Any, script: str, items: Any, decode: Callable[..., Any]) -> Any:
            def told(parts: Any) -> Any:
                if script == "room" and len(parts[0]) > 1:
                    did()
                return parts

            return call(self, script, items, decode).addCallback(told)

        return counted

    seams.replace(rooms.RoomCopies, "bring", "self, room, entries, seen", make_bring)
    seams.replace(ScriptCalls, "call", "self, script, items, decode", make_call)


def judged_anew(seams: Seams) -> None:
    from imd.contracts import room_rules
    from imd.store.redis.inbox import RedisInbox

    def make_remembered(remembered: Callable[..., Any], did: Did) -> Callable[..., None]:
        def never(room: Any, action: Any, now_ms: int, dedup_ms: int) -> None:
            if remembered(room, action, now_ms, dedup_ms) is not None:
                did()

        return never

    def make_sent(sent_before: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def unknown(self: RedisInbox, user: str, device: str, client_msg_id: str) -> Any:
            def forget(sent: Any) -> None:
                if sent is not None:
                    did()

            return sent_before(self, user, device, client_msg_id).addCallback(forget)

        return unknown

    seams.replace(room_rules, "remembered", "room, action, now_ms, dedup_ms", make_remembered)
    seams.replace(RedisInbox, "sent_before", "self, user, device, client_msg_id", make_sent)


def tells_newcomers(seams: Seams) -> None:
    from imd.chat.changes import Changes
    from imd.contracts.inbox import RoomAim

    seams.attributes(RoomAim, "of_version")

    def make(to_room: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def to_everybody(self: Changes, submission: Any, change: Any, target: Any, is_quiet: bool) -> Any:
            submission = to_room(self, submission, change, target, is_quiet)
            submission.room.of_version = None
            did()
            return submission

        return to_everybody

    seams.replace(Changes, "_to_room", "self, submission, change, target, is_quiet", make)


def overtaken(seams: Seams) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import succeed
    from twisted.internet.task import deferLater

    from imd.chat.connection import Connection
    from imd.store.redis.inbox import RedisInbox

    def make_caught_up(caught_up: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def at_once(self: Connection) -> Any:
            if not caught_up(self).called:
                did()
            return succeed(None)

        return at_once

    def make_accept(accept: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def late(self: RedisInbox, batch: Sequence[Any]) -> Any:
            # As if Redis were slow on one connection. Batches keep their order.
            return deferLater(reactor, SLOW_SECONDS, accept, self, batch)  # type: ignore[arg-type]

        return late

    seams.replace(Connection, "caught_up", "self", make_caught_up)
    seams.replace(RedisInbox, "accept", "self, batch", make_accept)


EVENT_BUILDS = {
    "stale-loader": Build(
        "hangs between reading a room and putting its copy, over a newer one if need be",
        "room-cold",
        "stale",
        frozenset({"versions", "refused", "newcomer"}),
        stale_loader,
    ),
    "no-sweep": Build(
        "does not look for events that a dead node has left",
        "room-orphan",
        "lost",
        frozenset({"view", "changes"}),
        no_sweep,
    ),
    "overtaken": Build(
        "makes a change of a room before the messages that came before it are placed",
        "clients-vanish",
        "order",
        frozenset({"refused"}),
        overtaken,
    ),
    "went-back": Build(
        "goes by copies of rooms from before Redis went back",
        "redis-failback",
        "stale",
        frozenset({"versions", "refused", "newcomer", "lost"}),
        went_back,
    ),
    "arrival-order": Build(
        "applies edits in the order of their arrival",
        "net-mongo-cut",
        "shown",
        frozenset({"view"}),
        arrival_order,
    ),
    "swapped-versions": Build(
        "places the events of a room in the wrong order",
        "rabbit-hang",
        "versions",
        # While an older version stands last, the room is as it was.
        frozenset({"view", "stale"}),
        swapped_versions,
    ),
    "judged-anew": Build(
        "answers a resend by what is allowed now",
        "rabbit-hang",
        "answered anew",
        # A second copy may be archived after `changes` and `conversations` were read.
        frozenset({"twice", "archived twice", "id changed", "not archived", "view", "changes", "badge"}),
        judged_anew,
    ),
    "tells-newcomers": Build(
        "tells all members of a room of a change to a message from before they came",
        "rabbit-hang",
        "newcomer",
        frozenset(),
        tells_newcomers,
    ),
}
