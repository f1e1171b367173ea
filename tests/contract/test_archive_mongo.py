"""The archive in MongoDB keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pymongo
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo.errors import OperationFailure
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial import unittest

from imd.contracts.archive import Archive, ArchiveQueue, ArchiveRecord, Record
from imd.contracts.rooms import RoomPart
from imd.protocol.message import IMessage, encode_message
from imd.store.mongo import changes as mongo_changes
from imd.store.mongo.archive import UNLISTED, MongoArchive
from imd.store.rabbit.archive_queue import encode_records
from tests.contract.archive_contract import ArchiveContract
from tests.contract.events_contract import EventsContract, EventsHarness, Item
from tests.contract.talks_contract import TalksContract
from tests.support.servers import shared


class _Straight:
    """A queue without a broker: what is published is written at once."""

    def __init__(self, mongo: MongoArchive) -> None:
        self._mongo = mongo

    def publish(self, records: Sequence[ArchiveRecord]) -> Deferred[Any]:
        return self._mongo.insert([encode_records([record])[1:-1] for record in records])


class MongoArchiveContractTests(ArchiveContract, unittest.TestCase):
    """Messages are written as they come out of the queue."""

    timeout = 300

    async def make_archive(self) -> tuple[ArchiveQueue, Archive]:
        self.url = shared().mongo_url()
        mongo = MongoArchive(reactor, self.url)
        self.addCleanup(mongo.stop)
        await mongo.start()
        return cast(Any, _Straight(mongo)), mongo

    async def put(self, message: IMessage, agent: str = "") -> None:
        await self.queue.publish([ArchiveRecord(encode_message(message), agent)])

    async def spoil(self, messages: list[IMessage]) -> None:
        ways: list[Any] = [
            {"$unset": {"fromUserType": ""}},
            {"$unset": {"sendTime": ""}},
            {"$set": {"msg": 7}},
            {"$set": {"sendTime": "yesterday"}},
            {"$set": {"group": "bob"}},
            {"$set": {"fromUserType": "KING"}},
            {"$set": {"fromUserType": {"a": 1}}},
            {"$set": {"sendTime": DatetimeMS(1 << 60)}},
            {"$unset": {"to": "", "isVisitor": ""}},
            {"$set": {"covers": 7}},
        ]
        client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(client.close)
        collection = client.get_default_database()["im_message"]
        for message, way in zip(messages, ways * len(messages), strict=False):
            if "covers" in str(way):
                # Not even its id is a text.
                document = collection.find_one_and_delete({"_id": message.id})
                collection.insert_one({**document, "_id": ObjectId(), "covers": 7})
            else:
                collection.update_one({"_id": message.id}, way)

    async def test_agent_that_comes_later(self) -> None:
        """A visitor's message that waited is read by the agent who got it in the end."""
        await self.begin()
        message = self.message("visitor-1", msg="is anyone there?")
        await self.put(message)
        await self.put(message, "agent1")
        await self.put(message, "agent2")
        for agent in ("agent1", "agent2"):
            await self.history(agent, None, [message])


class _MongoEvents(EventsHarness, unittest.TestCase):
    """Messages and events are written as they come out of the queue, by two consumers."""

    async def make_archive(self) -> Archive:
        self.url = shared().mongo_url()
        self.writers = [MongoArchive(reactor, self.url) for _ in range(2)]
        for mongo in self.writers:
            self.addCleanup(mongo.stop)
            await mongo.start()
        return self.writers[0]

    def write(self, consumer: int, items: Sequence[Item]) -> Deferred[Any]:
        records: list[Record] = []
        for item in items:
            body = b"%b,%b}" % (item.body[:-1], item.archived) if item.archived else item.body
            records.append(ArchiveRecord(body, item.agent) if item.agent else body)
        inserted = self.writers[consumer].insert([encode_records([record])[1:-1] for record in records])
        return inserted.addCallback(lambda result: self.assertEqual(result.refused, []))

    async def put(self, *items: Item) -> None:
        await self.write(0, items)

    async def put_all(self, batches: Sequence[Sequence[Item]]) -> None:
        await gatherResults([self.write(number % 2, batch) for number, batch in enumerate(batches)])


class MongoEventsTests(_MongoEvents, EventsContract):
    """The rules of events."""

    timeout = 300

    async def stored_text(self) -> str:
        client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(client.close)
        database = client.get_default_database()
        names = ("im_message", "im_event", "im_reaction")
        return str([list(database[name].find()) for name in names])

    async def test_unknown_kind(self) -> None:
        """An event of a kind that is not known is no message: it is refused, for the dead letters."""
        await self.begin()
        plain = self.message("alice", "bob")
        odd = encode_message(plain).replace(b"{", b'{"kind":"poll",', 1)
        inserted = await self.writers[0].insert([odd, encode_message(plain)])
        self.assertEqual([dead.body for dead in inserted.refused], [odd])
        self.assertEqual(inserted.written, 1)

    async def test_rights_of_the_first_level(self) -> None:
        """A user who may not read events has a newest id all the same: a node can start."""
        await self.begin()
        message = self.message("alice", "bob")
        await self.put(Item(message))

        class Forbidden:
            def find_one(self, *_: Any, **__: Any) -> None:
                raise OperationFailure("not authorized", 13)

        self.patch(mongo_changes, "events_of", lambda _: Forbidden())
        self.assertEqual(await self.archive.newest_id(), message.id)

    async def test_indexes(self) -> None:
        """History, `changes` and recalls find what they look for by an index."""
        await self.begin()
        client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(client.close)
        database = client.get_default_database()

        async def made() -> bool:
            indexes = {name: set(database[name].index_information()) for name in ("im_event", "im_reaction")}
            return len(indexes["im_event"]) >= 5 and len(indexes["im_reaction"]) >= 2

        await self.until(made)
        self.assertEqual(len(database["im_message"].index_information()), 5)


class MongoTalksTests(_MongoEvents, TalksContract):
    """The rules of the list of conversations."""

    timeout = 300

    async def test_room_whose_event_is_not_archived(self) -> None:
        """A room stands where its user came in as soon as the room itself knows that."""
        await self.begin()
        client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(client.close)
        rooms = {"r-1": [], "r-2": [{"id": "b" * 28, "version": 7}, {"id": "c" * 28, "version": 8}]}
        made = {"id": "a" * 28, "version": 1}
        for room, past in rooms.items():
            client.get_default_database()["im_room"].insert_one({"_id": room, "made": made, "past": past})
        parts = [RoomPart("r-1", "one", 1, 1, 1), RoomPart("r-2", "two", 9, 7, 7)]
        places = await self.places("alice", rooms=parts)
        self.assertEqual(
            [(place.at, place.room) for place in places], [("b" * 28, parts[1]), ("a" * 28, parts[0])]
        )

    async def test_refused_updates(self) -> None:
        """A list that MongoDB refuses to write holds up no message: it is archived, and that is counted."""
        await self.begin()
        client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(client.close)
        database = client.get_default_database()

        async def indexed() -> bool:
            return all(mongo._indexed for mongo in self.writers)

        # To make its indexes would make the collection again.
        await self.until(indexed)
        database.drop_collection("im_conversation")
        database.create_collection("im_conversation", validator={"never": {"$exists": True}})
        before = UNLISTED._value.get()
        message = self.message("alice", "bob")
        await self.put(Item(message))
        self.assertEqual(UNLISTED._value.get(), before + 1)
        self.assertEqual(await self.page("bob", None), ([message.id], False, False))
