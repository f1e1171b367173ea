"""Bringing Redis up to date with a room's document: in order, once, and never back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed

import imd.store.rooms as cluster
from imd.chat.room_changes import SWEPT, RoomChanges
from imd.contracts.archive import Record
from imd.contracts.inbox import Closed, NoRoom, NotMember, Placed
from imd.contracts.rooms import Changed, RoomOptions
from imd.protocol.errors import Unavailable
from imd.protocol.ids import MessageIds
from imd.store.mongo.rooms import RoomDocuments
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.rooms import RoomCopies
from tests.contract.room_contract import RoomHarness, room_id
from tests.contract.test_rooms import ClusterRoomsHarness
from tests.support.rooms import action


class Broker:
    """An ArchiveQueue that confirms at once, or takes nothing."""

    is_up = True

    def problem(self) -> str | None:
        return None

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        return succeed(None) if self.is_up else fail(Unavailable("RabbitMQ is away"))


class RoomCopyTests(ClusterRoomsHarness, RoomHarness):
    """`copies` and `documents` are those of the node."""

    async def begin_copies(self) -> None:
        await self.begin_rooms()
        assert isinstance(self.inbox, RedisInbox)
        self.copies = RoomCopies(self.inbox.calls)

    async def read(self, user: str, after: int = 0, limit: int = 1000) -> Any:
        return await super().read(user, after, limit)

    async def document(self, room: str) -> Any:
        return await self.rooms._ask(RoomDocuments.read, room)

    async def test_versions_are_placed_in_order(self) -> None:
        """A node that hangs after its change is overtaken: its event is placed by the next, and only once."""
        await self.begin_copies()
        room = await self.make("mary", "mike")
        bring = self.rooms._bring
        hung: list[Any] = []

        async def hang(document: Any, seen: Any) -> Any:
            hung.append((document, seen))
            return document

        self.patch(self.rooms, "_bring", hang)
        first = await self.rooms.change(action("olga", "set", room, name="one"), self.stamp)
        self.rooms._bring = bring
        self.assertEqual(await self.told("mary"), [("create", 1)])
        other = await self.make_node(RoomOptions())
        second = await other.change(action("olga", "remove", room, ["mike"]), self.stamp)
        self.assertEqual((first.version, second.version), (2, 3))
        self.assertEqual(await self.told("mary"), [("create", 1), ("set", 2), ("remove", 3)])
        await self.rooms._bring(*hung[0])
        self.assertEqual(await self.told("mary"), [("create", 1), ("set", 2), ("remove", 3)])
        self.assertEqual(await self.write(room, "mike"), NotMember())

    async def test_hung_loader(self) -> None:
        """An older document does not replace a newer copy."""
        await self.begin_copies()
        room = await self.make("mary")
        seen, old = self.copies.seen(), await self.document(room)
        await self.change(room, "olga", "remove", ["mary"])
        self.assertFalse((await self.copies.bring(old.room, old.outbox, seen)).stale)
        self.assertEqual(await self.write(room, "mary"), NotMember())

    async def test_another_run(self) -> None:
        """A document that was read under another run of Redis is refused; the copy of another run is none."""
        await self.begin_copies()
        room = await self.make("mary")
        seen, old = self.copies.seen(), await self.document(room)
        await self.redis.command("DEL", "imd:run")
        (outcome,) = await self.inbox.accept([self.to_room(room, "mary")])
        self.assertEqual(outcome, NoRoom())
        self.assertFalse(self.rooms.is_warm(room))
        self.assertTrue((await self.copies.bring(old.room, old.outbox, seen)).stale)
        self.assertIsInstance(await self.write(room, "mary"), Placed)
        self.assertEqual(await self.told("mary"), [("create", 1)])

    async def test_read_too_long_ago(self) -> None:
        """A document that was read half a minute ago is refused, so copies need not live for ever."""
        await self.begin_copies()
        room = await self.make("mary")
        seen, old = self.copies.seen(), await self.document(room)
        self.assertTrue((await self.copies.bring(old.room, (), seen._replace(at=seen.at - 31_000))).stale)
        self.assertFalse((await self.copies.bring(old.room, (), seen._replace(at=seen.at - 20_000))).stale)
        self.assertTrue(await self.redis.command("TTL", f"imd:room:{room}") > 3600)

    async def test_lost_memory(self) -> None:
        """After Redis has forgotten everything, rooms are loaded from MongoDB, one read for many messages."""
        await self.begin_copies()
        room = await self.make("mary", "mike")
        await self.change(room, "olga", "remove", ["mike"])
        await self.redis.command("FLUSHALL")
        await self.inbox.probe()
        reads = []
        read = RoomDocuments.read
        self.patch(RoomDocuments, "read", lambda documents, one: reads.append(one) or read(documents, one))
        before = cluster.LOADED._value.get()
        warmed = [self.rooms.warm(room) for _ in range(20)]
        self.assertEqual([await one for one in warmed], [True] * 20)
        self.assertEqual(reads, [room])
        self.assertEqual(cluster.LOADED._value.get() - before, 1)
        self.assertIsInstance(await self.write(room, "mary"), Placed)
        self.assertEqual(await self.write(room, "mike"), NotMember())
        other = await self.make_node(RoomOptions())
        self.assertTrue(await other.warm(room))
        self.assertEqual((reads, other.size(room)), ([room], 2))
        self.assertFalse(await other.warm(room_id()))
        await self.change(room, "olga", "set", name="a change loads nothing")
        self.assertEqual(cluster.LOADED._value.get() - before, 1)

    async def test_leftovers(self) -> None:
        """Events of a node that died between MongoDB and Redis are placed and archived by another."""
        await self.begin_copies()
        room = await self.make("mary")

        async def die(document: Any, seen: Any) -> Any:
            raise ConnectionError("gone")

        self.patch(self.rooms, "_bring", die)
        await self.assertFailure(self.rooms.change(action("olga", "close", room), self.stamp), Exception)
        self.flushLoggedErrors(ConnectionError)
        other = await self.make_node(RoomOptions())
        self.assertEqual(await other.leftovers(), [])
        (entry,) = (await self.document(room)).outbox
        self.assertEqual(await other.oldest_event_ms(), entry.at)
        self.patch(cluster, "LEFT_AFTER_MS", -60_000)
        (left,) = await other.leftovers()
        self.assertEqual((left.room, list(left.settle)), (room, [2]))
        self.assertEqual(await self.told("mary"), [("create", 1), ("close", 2)])
        self.assertEqual(list(left.bodies), [body for _, body in (await self.read("mary")).messages][1:])
        await other.settle(room, left.settle)
        self.assertEqual(await other.leftovers(), [])
        self.assertIsNone(await other.oldest_event_ms())

    async def test_swept(self) -> None:
        """Another node's event counts once, when it is settled. One's own, late for RabbitMQ, does not."""
        await self.begin_copies()
        broker = Broker()
        maker = RoomChanges(self.rooms, self.inbox, broker, self.ids.next)
        others = await self.make_node(RoomOptions())
        other = RoomChanges(others, self.inbox, broker, MessageIds(self.id_clock()).next)
        self.patch(cluster, "LEFT_AFTER_MS", -60_000)
        for sweeper, counts in ((other, 1), (maker, 0)):
            broker.is_up = False
            wanted = action("olga", "create", room_id(), ["mary"])
            await self.assertFailure(ensureDeferred(maker.make(None, wanted)), Unavailable)
            before = SWEPT._value.get()
            for _ in range(3):
                await self.assertFailure(ensureDeferred(sweeper.finish_leftovers()), Unavailable)
            broker.is_up = True
            await sweeper.finish_leftovers()
            self.assertEqual(SWEPT._value.get(), before)
            await sweeper.finish_leftovers()
            self.assertEqual(SWEPT._value.get() - before, counts)
            self.assertIsNone(await others.oldest_event_ms())

    async def test_unfinished_change_again(self) -> None:
        """A change whose node died is finished by its resend, as the same change."""
        await self.begin_copies()
        room = await self.make("mary")
        wanted = action("olga", "remove", room, ["mary"])
        bring = self.rooms._bring

        async def die(document: Any, seen: Any) -> Any:
            raise ConnectionError("gone")

        self.patch(self.rooms, "_bring", die)
        await self.assertFailure(self.rooms.change(wanted, self.stamp), Exception)
        self.flushLoggedErrors(ConnectionError)
        self.assertIsInstance(await self.write(room, "mary"), Placed)
        self.rooms._bring = bring
        again = await self.rooms.change(wanted, self.stamp)
        self.assertIsInstance(again, Changed)
        self.assertEqual((again.version, list(again.settle)), (2, [2]))
        self.assertEqual(await self.write(room, "mary"), NotMember())

    async def test_nothing_to_change_is_exact(self) -> None:
        """`changed: false` of a removal counts, though the node that removed has not told Redis yet."""
        await self.begin_copies()
        room = await self.make("mary")
        bring = self.rooms._bring

        async def die(document: Any, seen: Any) -> Any:
            raise ConnectionError("gone")

        self.patch(self.rooms, "_bring", die)
        await self.assertFailure(
            self.rooms.change(action("olga", "remove", room, ["mary"]), self.stamp), Exception
        )
        self.flushLoggedErrors(ConnectionError)
        self.rooms._bring = bring
        await self.rooms.change(action("olga", "remove", room, ["mary"]), self.stamp)
        self.assertEqual(await self.write(room, "mary"), NotMember())

    async def test_large_room(self) -> None:
        """Many events to a large room are placed by several short calls, and all of them."""
        await self.begin_copies()
        users = [f"u{n}" for n in range(450)]
        room = await self.make(*users)
        for n in range(4):
            await self.rooms.change(action("olga", "set", room, name=f"n{n}"), self.stamp)
        await self.redis.command("FLUSHALL")
        await self.inbox.probe()
        await self.rooms.warm(room)
        self.assertEqual(await self.told("u449"), [("set", n) for n in range(2, 6)])

    async def test_calls_are_short(self) -> None:
        """A call places one event, or several that go into a thousand inboxes together at most."""
        await self.begin_copies()
        users = [f"u{n}" for n in range(450)]
        room = await self.make(*users)
        for n in range(4):
            await self.rooms.change(action("olga", "set", room, name=f"n{n}"), self.stamp)
        await self.redis.command("FLUSHALL")
        await self.inbox.probe()
        placed: list[list[int]] = []
        call = self.copies._calls.call

        def watched(script: str, items: Any, decode: Any) -> Any:
            def note(parts: Any) -> Any:
                if script == "room":
                    placed.append(parts[0])
                return parts

            return call(script, items, decode).addCallback(note)

        self.patch(self.copies._calls, "call", watched)
        await self.rooms.warm(room)
        self.assertEqual(placed, [[2, 3], [4, 5]])

    async def test_closed(self) -> None:
        """The copy knows that a room is closed, also when it is made anew."""
        await self.begin_copies()
        room = await self.make("mary")
        await self.change(room, "olga", "close")
        await self.redis.command("DEL", f"imd:room:{room}", "imd:run")
        await self.inbox.probe()
        self.assertEqual(await self.write(room, "mary"), Closed())
