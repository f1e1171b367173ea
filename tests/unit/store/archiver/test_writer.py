"""The archive writer on real servers: nothing is lost or doubled, whichever server dies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pymongo
from pika.exceptions import NackError
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.trial import unittest

from imd.contracts.archive import ArchiveRecord
from imd.protocol.message import IMessage, encode_message
from imd.store.archiver import writer as archive_writer
from imd.store.archiver.consumer import PREFETCH, WAITING
from imd.store.archiver.dead_letters import REASON_HEADER
from imd.store.archiver.writer import DEAD, RETRIES, ArchiveWriter
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.write import Inserted, Refused
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE, RabbitArchiveQueue
from imd.store.rabbit.connection import RabbitConnection
from tests.support.rabbit import Broker, own_mongo, until
from tests.support.servers import shared


def body(number: int, **fields: Any) -> bytes:
    message = IMessage(
        id=f"{number:028x}",
        user_id="alice",
        from_user_type="USER_TYPE",
        to="bob",
        msg=f"text {number}",
        send_time=1_764_000_000_000 + number,
        **fields,
    )
    return encode_message(message)


def records(numbers: Sequence[int]) -> list[ArchiveRecord]:
    return [ArchiveRecord(body(number)) for number in numbers]


class WatchedArchive(MongoArchive):
    """A MongoArchive with a hook between a write and its acknowledgement."""

    inserts = 0

    def insert(self, bodies: Sequence[Any]) -> Deferred[Inserted]:
        self.inserts += 1
        return super().insert(bodies).addCallback(self._written, self.inserts)

    def _written(self, result: Inserted, number: int) -> Inserted | Deferred[Inserted]:
        self.after_write()
        return result

    def after_write(self) -> None:
        """Replaced by tests."""


class ArchiveWriterTests(unittest.TestCase):
    timeout = 300

    async def publisher(self) -> RabbitArchiveQueue:
        """A publisher on a virtual host of its own, and a Broker to inspect the queues."""
        self.amqp_url = shared().amqp_url()
        publisher = RabbitConnection(reactor, self.amqp_url, "other")
        queue = RabbitArchiveQueue(reactor, publisher, confirm_seconds=60)
        self.addCleanup(queue.stop)
        await queue.start()
        self.broker = Broker(self.amqp_url)
        self.addCleanup(self.broker.close)
        return queue

    async def writer(
        self, mongo_url: str | None = None, *, seconds: float = 60, **options: int
    ) -> tuple[ArchiveWriter, WatchedArchive]:
        """`seconds`: for an answer of MongoDB. After that a write is tried again, and counts as another."""
        mongo_url = mongo_url or shared().mongo_url()
        archive = WatchedArchive(reactor, mongo_url, timeout_seconds=seconds)
        self.addCleanup(archive.stop)
        await archive.start()
        client: Any = pymongo.MongoClient(mongo_url, serverSelectionTimeoutMS=10_000)
        self.addCleanup(client.close)
        self.collection = client.get_default_database()["im_message"]
        writer = ArchiveWriter(
            reactor,
            RabbitConnection(reactor, self.amqp_url, "consume"),
            RabbitConnection(reactor, self.amqp_url, "publish"),
            archive,
            **options,
        )
        self.addCleanup(writer.stop)
        return writer, archive

    def count(self) -> int:
        return int(self.collection.count_documents({}))

    async def everything_acknowledged(self, writer: ArchiveWriter) -> None:
        """The queue is empty, and stays so when the writer stops."""
        self.patch(archive_writer, "STOP_SECONDS", 60.0)
        await writer.stop()
        self.assertEqual(self.broker.length(ARCHIVE_QUEUE), 0)

    async def test_writes(self) -> None:
        """Batches are in MongoDB once, and acknowledged; one write takes several of them."""
        queue = await self.publisher()
        for start in range(0, 100, 10):
            await queue.publish(records(range(start, start + 10)))
        await queue.publish([])
        await queue.publish([ArchiveRecord(body(1000, is_visitor=True), "carol")])
        writer, archive = await self.writer()
        await writer.start()
        await until(lambda: self.count() == 101, "all are written")
        # There were eleven batches, and on a busy machine they do not arrive at once.
        self.assertLess(archive.inserts, 11)
        self.assertEqual(
            self.collection.find_one({"agent": "carol"})["participants"], ["alice", "bob", "carol"]
        )
        self.assertIsNone(writer.problem())
        await self.everything_acknowledged(writer)
        self.assertEqual(self.broker.length(DEAD_QUEUE), 0)

    async def test_large_message(self) -> None:
        """A batch of more documents than a write takes is written in slices."""
        queue = await self.publisher()
        writer, archive = await self.writer(batch=30)
        await writer.start()
        await queue.publish(records(range(100)))
        await until(lambda: self.count() == 100, "all are written")
        self.assertEqual(archive.inserts, 4)
        await self.everything_acknowledged(writer)

    async def test_gathers_under_load(self) -> None:
        """The first batch is written at once; later ones wait until a write is worth it."""
        self.patch(archive_writer, "GATHER_SECONDS", 600)
        queue = await self.publisher()
        writer, archive = await self.writer()
        await writer.start()
        await queue.publish(records([0]))
        await until(lambda: self.count() == 1, "the first is written")
        for number in range(1, archive_writer.GATHER_BATCHES):
            await queue.publish(records([number]))
        arrived = archive_writer.GATHER_BATCHES - 1
        await until(lambda: WAITING._value.get() == arrived, "they have arrived")
        self.assertEqual((archive.inserts, self.count()), (1, 1))
        await queue.publish(records([arrived + 1]))
        await until(lambda: self.count() == arrived + 2, "all are written")
        self.assertEqual(archive.inserts, 2)
        await queue.publish(records([arrived + 2]))
        await until(lambda: WAITING._value.get() == 1, "one more has arrived")
        await writer.stop()
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) == 1, "it goes back to the queue")

    async def held_writes(self) -> tuple[ArchiveWriter, WatchedArchive, dict[int, Deferred[None]]]:
        """A writer with 12 messages, whose first two writes are durable but not yet reported."""
        queue = await self.publisher()
        writer, archive = await self.writer(batch=4)
        held: dict[int, Deferred[None]] = {}

        def hold(result: Inserted, number: int) -> Deferred[Inserted]:
            held[number] = Deferred()
            return held[number].addCallback(lambda _: result)

        archive._written = hold  # type: ignore[method-assign]
        for start in range(0, 12, 4):
            await queue.publish(records(range(start, start + 4)))
        await writer.start()
        await until(lambda: len(held) == 2, "two writes are in flight")
        await until(lambda: WAITING._value.get() == 1, "the rest waits")
        self.assertEqual((archive.inserts, self.count()), (2, 8))
        return writer, archive, held

    async def test_two_writes(self) -> None:
        """Few writes are in flight; a later one is acknowledged with the earlier one."""
        writer, archive, held = await self.held_writes()
        held[2].callback(None)
        await until(lambda: len(held) == 3, "the third is in flight")
        assert writer.consumer.held is not None
        self.assertEqual(len(writer.consumer.held.writes), 3)
        held[3].callback(None)
        held[1].callback(None)
        self.assertEqual((archive.inserts, self.count(), len(writer.consumer.held.writes)), (3, 12, 0))
        await self.everything_acknowledged(writer)

    async def test_later_write_is_no_ack_of_the_earlier(self) -> None:
        """A durable write stays unacknowledged while an earlier one is not durable."""
        self.patch(archive_writer, "STOP_SECONDS", 0.1)
        writer, _, held = await self.held_writes()
        held[2].callback(None)
        await until(lambda: len(held) == 3, "the third is in flight")
        await writer.stop()
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) == 3, "all are back in the queue")
        held[1].callback(None)
        held[3].callback(None)

    async def test_lost_between_write_and_ack(self) -> None:
        """A batch that was written but not acknowledged is redelivered, and stored once."""
        queue = await self.publisher()
        writer, archive = await self.writer()

        def lose_the_connection() -> None:
            archive.after_write = lambda: None  # type: ignore[method-assign]
            assert writer.consumer.held is not None
            writer.consumer.held.link.drop("test")

        archive.after_write = lose_the_connection  # type: ignore[method-assign]
        await writer.start()
        await queue.publish(records(range(10)))
        await until(lambda: archive.inserts >= 2, "it comes again")
        await until(lambda: self.count() == 10, "all are written")
        consumer = writer.consumer
        await until(lambda: consumer.held is not None and not consumer.held.waiting, "nothing waits")
        await self.everything_acknowledged(writer)

    async def test_two_writers(self) -> None:
        """Competing consumers share the work; losing a connection loses no batch."""
        queue = await self.publisher()
        mongo_url = shared().mongo_url()
        one, _ = await self.writer(mongo_url, batch=5)
        two, _ = await self.writer(mongo_url, batch=5)
        await one.start()
        await two.start()
        for number in range(150):
            await queue.publish(records([2 * number, 2 * number + 1]))
            if number == 75 and one.consumer.held is not None:
                one.consumer.held.link.drop("test")
        await until(lambda: self.count() == 300, "all are written")
        await one.stop()
        # Of those that came twice the other one may hold some for a moment: this one comes behind them.
        await queue.publish(records([300]))
        await until(lambda: self.count() == 301, "the last one is written")
        await self.everything_acknowledged(two)

    async def test_mongodb_killed(self) -> None:
        """While MongoDB is down the writer holds and waits; afterwards everything is written."""
        server = own_mongo(self)
        queue = await self.publisher()
        writer, _ = await self.writer(server.url, seconds=2)
        await writer.start()
        await queue.publish(records(range(10)))
        await until(lambda: self.count() == 10, "it works")
        server.kill()
        for start in range(10, 60, 10):
            await queue.publish(records(range(start, start + 10)))
        await until(lambda: "MongoDB" in (writer.problem() or ""), "it is noticed")
        tried = RETRIES._value.get()
        await until(lambda: RETRIES._value.get() >= tried + 2, "it tries again")
        self.assertEqual(self.broker.length(DEAD_QUEUE), 0)
        server.start()
        await until(lambda: self.count() == 60, "all are written")
        await until(lambda: writer.problem() is None, "it is well again")
        await self.everything_acknowledged(writer)

    async def test_poison(self) -> None:
        """Documents that can never be written become dead letters with a reason; others are written."""
        queue = await self.publisher()
        writer, archive = await self.writer()
        await until(lambda: archive._indexed, "the collection is there")
        self.collection.database.command("collMod", "im_message", validator={"msg": {"$ne": "text 3"}})
        await queue.publish([*records([1, 2, 3, 4]), ArchiveRecord(b'{"id":"5","msg":7}')])
        self.broker.put(ARCHIVE_QUEUE, b"not JSON")
        self.broker.put(ARCHIVE_QUEUE, b'{"no":"array"}')
        await queue.publish(records([6]))
        await writer.start()
        await until(lambda: self.count() == 4, "the neighbours are written")
        await until(lambda: self.broker.length(DEAD_QUEUE) == 4, "the dead are moved")
        dead = {}
        while (taken := self.broker.take(DEAD_QUEUE)) is not None:
            self.assertEqual(taken[0].delivery_mode, 2)
            dead[taken[1]] = taken[0].headers[REASON_HEADER]
        self.assertEqual(set(dead), {body(3), b'{"id":"5","msg":7}', b"not JSON", b'{"no":"array"}'})
        self.assertIn("code 121", dead[body(3)])
        self.assertIn("not a JSON array", dead[b"not JSON"])
        self.assertEqual(sorted(json.loads(body(n))["id"] for n in (1, 2, 4, 6)), sorted(self.ids()))
        await self.everything_acknowledged(writer)

    def ids(self) -> list[str]:
        return [found["_id"] for found in self.collection.find({}, {"_id": 1})]

    async def test_dead_letters_wait(self) -> None:
        """While dead letters cannot be published, their batch is not acknowledged."""
        queue = await self.publisher()
        writer, _ = await self.writer()
        await writer.start()
        channel, writer._dead_letters._channel = writer._dead_letters._channel, None
        await queue.publish([*records([1]), ArchiveRecord(b"{}")])
        await until(lambda: writer.problem() is not None, "it waits")
        self.assertEqual((self.count(), self.broker.length(DEAD_QUEUE)), (1, 0))
        writer._dead_letters._channel = channel
        await until(lambda: self.broker.length(DEAD_QUEUE) == 1, "the dead one is moved")
        await until(lambda: writer.problem() is None, "it is well again")
        await self.everything_acknowledged(writer)

    async def test_dead_queue_deleted(self) -> None:
        """Somebody deletes the dead queue: the next dead letter makes it again, and the archive goes on."""
        queue = await self.publisher()
        writer, _ = await self.writer()
        await writer.start()
        buried = DEAD._value.get()
        self.broker.channel.queue_delete(DEAD_QUEUE)
        await queue.publish([*records([0]), ArchiveRecord(b"{}")])
        for number in range(1, PREFETCH + 10):
            await queue.publish(records([number]))
        await until(lambda: DEAD._value.get() == buried + 1, "the dead one is moved", 60)
        self.assertEqual(self.broker.length(DEAD_QUEUE), 1)
        await until(lambda: self.count() == PREFETCH + 10, "the others are written")
        await until(lambda: writer.problem() is None, "it is well")
        await self.everything_acknowledged(writer)

    async def test_dead_letters_returned_together(self) -> None:
        """Dead letters that are returned at the same time are all published again."""
        await self.publisher()
        writer, _ = await self.writer()
        await writer.start()
        self.broker.channel.queue_delete(DEAD_QUEUE)
        bodies = [b"%d" % number for number in range(20)]

        async def bury(body: bytes) -> None:
            while True:
                try:
                    await writer._dead_letters.publish(Refused(body, "", "test"))
                except NackError:
                    # The broker refuses what comes while the queue ends.
                    continue
                break

        await gatherResults([ensureDeferred(bury(body)) for body in bodies])
        found = set()
        while (taken := self.broker.take(DEAD_QUEUE)) is not None:
            found.add(taken[1])
        self.assertEqual(found, set(bodies))

    async def test_return_while_others_are_in_flight(self) -> None:
        """A return counts for all in flight, since pika may blame the wrong one: they are published again."""
        await self.publisher()
        writer, _ = await self.writer()
        await writer.start()
        publishing = ensureDeferred(writer._dead_letters.publish(Refused(b"x", "", "test")))
        writer._dead_letters._returned(None)
        await publishing
        self.assertEqual(self.broker.length(DEAD_QUEUE), 2)

    async def test_stop_while_mongodb_is_down(self) -> None:
        """A stop does not wait for MongoDB; held batches go back to the queue."""
        self.patch(archive_writer, "STOP_SECONDS", 8.0)
        server = own_mongo(self)
        queue = await self.publisher()
        writer, _ = await self.writer(server.url, seconds=2)
        await writer.start()
        server.kill()
        await queue.publish(records(range(10)))
        await until(lambda: writer.problem() is not None, "it is noticed")
        await writer.stop()
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) >= 1, "it is back in the queue")
