"""The archive in MongoDB keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial import unittest

from imd.backends.mongo_archive import MongoArchive
from imd.backends.rabbit_archive_queue import encode_records
from imd.interfaces import Archive, ArchiveQueue, ArchiveRecord
from imd.message import IMessage, encode_message
from tests.contract.archive_contract import ArchiveContract
from tests.servers import shared


class _Straight:
    """A queue without a broker: what is published is written at once."""

    def __init__(self, mongo: MongoArchive) -> None:
        self._mongo = mongo

    def publish(self, records: Sequence[ArchiveRecord]) -> Deferred[Any]:
        return self._mongo.insert([encode_records([record])[1:-1] for record in records])


class MongoArchiveContractTests(ArchiveContract, unittest.TestCase):
    """Messages are written as they come out of the queue."""

    async def make_archive(self) -> tuple[ArchiveQueue, Archive]:
        mongo = MongoArchive(reactor, shared().mongo_url())
        self.addCleanup(mongo.stop)
        await mongo.start()
        return cast(Any, _Straight(mongo)), mongo

    async def put(self, message: IMessage, agent: str = "") -> None:
        await self.queue.publish([ArchiveRecord(encode_message(message), agent)])

    async def test_agent_that_comes_later(self) -> None:
        """A visitor's message that waited is read by the agent who got it in the end."""
        await self.begin()
        message = self.message("visitor-1", msg="is anyone there?")
        await self.put(message)
        await self.put(message, "agent1")
        await self.put(message, "agent2")
        for agent in ("agent1", "agent2"):
            await self.history(agent, None, [message])
