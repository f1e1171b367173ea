"""The archive in MongoDB keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pymongo
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial import unittest

from imd.contracts.archive import Archive, ArchiveQueue, ArchiveRecord
from imd.protocol.message import IMessage, encode_message
from imd.store.mongo.archive import MongoArchive
from imd.store.rabbit.archive_queue import encode_records
from tests.contract.archive_contract import ArchiveContract
from tests.support.servers import shared


class _Straight:
    """A queue without a broker: what is published is written at once."""

    def __init__(self, mongo: MongoArchive) -> None:
        self._mongo = mongo

    def publish(self, records: Sequence[ArchiveRecord]) -> Deferred[Any]:
        return self._mongo.insert([encode_records([record])[1:-1] for record in records])


class MongoArchiveContractTests(ArchiveContract, unittest.TestCase):
    """Messages are written as they come out of the queue."""

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
