"""The audit reports confirmed batches that somebody removed from the queue, and nothing else."""

from __future__ import annotations

from typing import Any

import pymongo
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial import unittest

from imd.command import look_mongo, look_rabbit
from imd.command.findings import Level
from imd.config.settings import Mongodb, Rabbitmq, Settings
from imd.contracts.level import EVENTS, FIRST
from imd.protocol.errors import Unavailable
from imd.store.archiver import audit as archive_audit
from imd.store.archiver.audit import MISSING, ArchiveAudit, Suspicions, over_blocks
from imd.store.archiver.consumer import PREFETCH
from imd.store.archiver.writer import ArchiveWriter
from imd.store.batch_numbers import (
    BLOCK,
    MAX_UNTOLD_BLOCKS,
    WINDOW,
    Bits,
    Mark,
    Numbers,
    add_before,
    add_number,
    numbers_of,
    ranges,
    read_mark,
)
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.ledger import LEDGER, Block, count_missing, count_writers, note, read_ledger, say_held
from imd.store.mongo.level import write_level
from imd.store.rabbit import archive_queue as rabbit_archive_queue
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE, RabbitArchiveQueue
from imd.store.rabbit.connection import RabbitConnection
from tests.support.rabbit import Broker, own_mongo, until
from tests.support.servers import MongoServer, shared
from tests.unit.store.archiver.test_writer import records


class NumbersTests(unittest.TestCase):
    def test_marks(self) -> None:
        """A mark has the batch's number and the confirmed ones before it; unconfirmed ones are in no mark."""
        numbers = Numbers("eäst.1")
        first, _ = numbers.next()
        second, _ = numbers.next()
        third, _ = numbers.next()
        numbers.confirmed(first)
        numbers.confirmed(third)
        number, message_id = numbers.next()
        mark = read_mark(message_id)
        assert mark is not None
        self.assertEqual((mark.publisher, mark.number, number), ("e_st.1", 4, 4))
        told: Bits = {}
        add_before(told, mark)
        self.assertEqual(list(numbers_of(0, told["e_st.1", 0])), [1, 3])
        self.assertEqual(numbers.take_untold(), told)
        self.assertEqual(numbers.take_untold(), {})
        numbers.give_back(told)
        numbers.confirmed(second)
        self.assertEqual(list(numbers_of(0, numbers.take_untold()["e_st.1", 0])), [1, 2, 3])

    def test_first_level(self) -> None:
        """Beside nodes of 0.1, which note nothing that they write, nothing counts as confirmed."""
        numbers = Numbers("n")
        numbers.set_level(FIRST)
        numbers.confirmed(numbers.next()[0])
        numbers.set_level(EVENTS)
        second, mark = numbers.next()
        self.assertEqual(numbers.take_untold(), {})
        self.assertEqual(read_mark(mark), Mark("n", 2, 0))
        numbers.confirmed(second)
        self.assertEqual(list(numbers_of(0, numbers.take_untold()["n", 0])), [2])

    def test_long_window(self) -> None:
        """A mark tells of the last WINDOW numbers, over the edge of a block as well."""
        numbers = Numbers("n")
        for _ in range(BLOCK + 10):
            numbers.confirmed(numbers.next()[0])
        mark = read_mark(numbers.next()[1])
        assert mark is not None
        told: Bits = {}
        add_before(told, mark)
        self.assertEqual(
            [*numbers_of(0, told["n", 0]), *numbers_of(1, told["n", 1])],
            list(range(BLOCK + 11 - WINDOW, BLOCK + 11)),
        )

    def test_bound(self) -> None:
        """Numbers that cannot be noted for long are forgotten, the oldest first."""
        numbers = Numbers("n")
        numbers._last = (MAX_UNTOLD_BLOCKS + 1) * BLOCK
        for block in range(MAX_UNTOLD_BLOCKS + 1):
            numbers.confirmed(block * BLOCK + 1)
        untold = numbers.take_untold()
        self.assertEqual((len(untold), ("n", 0) in untold), (MAX_UNTOLD_BLOCKS, False))

    def test_others_ids(self) -> None:
        """A message id of another publisher is no mark."""
        others = (None, 7, "", "imd:n:1", "imd:n:x:0", "imd:n:1:0 ", "imd::1:0", "imd:n:1:" + "f" * 33)
        for message_id in others:
            self.assertIsNone(read_mark(message_id))
        self.assertEqual(read_mark("imd:n:1:0"), Mark("n", 1, 0))

    def test_ranges(self) -> None:
        self.assertEqual(ranges([3, 5, 6, 7, 9]), "3, 5-7, 9")
        self.assertEqual(ranges(list(range(0, 20, 2)), 2), "0, 2 and others")


def block(confirmed: list[int], written: list[int], missing: list[int] = [], idle: float = 0) -> Block:  # noqa: B006
    sums = [sum(1 << number for number in numbers) for numbers in (confirmed, written, missing)]
    return Block("n", 0, *sums, idle)


class SuspicionsTests(unittest.TestCase):
    def overdue(self, blocks: list[Block], held: Bits | None = None, *, empty: bool) -> list[int]:
        """The numbers that are missing after more than a minute of looks."""
        suspicions = Suspicions()
        for seconds in range(0, 59, 3):
            self.assertEqual(suspicions.look(seconds, blocks, held or {}, empty=empty), {})
        return [*numbers_of(0, suspicions.look(60, blocks, held or {}, empty=empty).get(("n", 0), 0))]

    def test_before_a_written_one(self) -> None:
        """While the queue holds batches, only numbers before the last written one are missing."""
        self.assertEqual(self.overdue([block([1, 2, 3, 4], [1, 3])], empty=False), [2])

    def test_empty_queue(self) -> None:
        """With an empty queue the last numbers are missing as well; unconfirmed ones are not."""
        self.assertEqual(self.overdue([block([1, 2, 4, 6], [1])], empty=True), [2, 4, 6])

    def test_held(self) -> None:
        """A batch that a consumer holds is not missing."""
        held: Bits = {}
        add_number(held, "n", 2)
        self.assertEqual(self.overdue([block([1, 2, 3, 4], [4])], held, empty=True), [1, 3])

    def test_known(self) -> None:
        """A number that is marked as missing is not found again."""
        self.assertEqual(self.overdue([block([1, 2, 3], [3], [1, 2])], empty=True), [])

    def test_each_from_its_own_time(self) -> None:
        """A number that became suspect later is missing later; one that was written is forgotten."""
        suspicions = Suspicions()
        found: dict[int, list[int]] = {}
        for seconds in range(0, 120, 3):
            confirmed = [1, 2, 3] if seconds >= 30 else [1, 2]
            written = [2, 5] if seconds >= 9 else [5]
            bits = suspicions.look(seconds, [block(confirmed, written)], {}, empty=False).get(("n", 0), 0)
            for number in numbers_of(0, bits):
                found.setdefault(number, []).append(seconds)
        self.assertEqual({number: times[0] for number, times in found.items()}, {1: 60, 3: 90})

    def test_stood_still(self) -> None:
        """A pause of this process does not count: consumers may have paused as well."""
        suspicions = Suspicions()
        suspicions.look(0, [block([1], [])], {}, empty=True)
        self.assertEqual(suspicions.look(3600, [block([1], [])], {}, empty=True), {})

    def test_cleared(self) -> None:
        """After a failed look it begins anew."""
        suspicions = Suspicions()
        for seconds in range(0, 57, 3):
            suspicions.look(seconds, [block([1], [])], {}, empty=True)
        suspicions.clear()
        self.assertEqual(suspicions.look(60, [block([1], [])], {}, empty=True), {})

    def found(
        self, suspicions: Suspicions, seconds: range, suspects: range, strangers: int
    ) -> dict[int, list[int]]:
        """Look every three seconds; when numbers were found for the first time."""
        times: dict[int, list[int]] = {}
        known: list[int] = []
        for now in seconds[::3]:
            blocks = [block([*suspects], [], known)]
            bits = suspicions.look(now, blocks, {}, empty=True, strangers=strangers).get(("n", 0), 0)
            if bits:
                times[now] = [*numbers_of(0, bits)]
                known += times[now]
        return times

    def test_stranger(self) -> None:
        """A consumer without a list may be a node that hangs, and hold as many as a node may."""
        suspicions = Suspicions()
        self.assertEqual(self.found(suspicions, range(1800), range(PREFETCH), 1), {})
        self.assertEqual(self.found(Suspicions(), range(300), range(2 * PREFETCH), 2), {})
        # When it is gone they are in the queue again, and a writer has a minute to take them.
        found = self.found(suspicions, range(1800, 1890), range(PREFETCH), 0)
        self.assertEqual(found, {1860: [*range(PREFETCH)]})

    def test_stranger_that_takes(self) -> None:
        """One that has more than a node may hold takes batches. From then on nothing of it is waited for."""
        suspicions = Suspicions()
        found = self.found(suspicions, range(90), range(PREFETCH + 1), 1)
        self.assertEqual(found, {60: [*range(PREFETCH + 1)]})
        few = range(PREFETCH + 1, PREFETCH + 4)
        self.assertEqual(self.found(suspicions, range(90, 180), few, 1), {150: [*few]})
        # A node may hang beside it, and may hang when it is gone.
        few = range(PREFETCH + 4, PREFETCH + 9)
        self.assertEqual(self.found(suspicions, range(180, 360), few, 2), {})
        self.assertEqual(self.found(suspicions, range(360, 450), few, 0), {420: [*few]})
        self.assertEqual(self.found(suspicions, range(450, 600), range(100, 110), 1), {})

    def test_stranger_for_long(self) -> None:
        """No consumer holds a batch for longer than RabbitMQ lets it."""
        found = self.found(Suspicions(), range(1920), range(3), 1)
        self.assertEqual(found, {1902: [0, 1, 2]})

    def test_stranger_that_comes_and_goes(self) -> None:
        """Two connections that take turns are one stranger, and hold no more."""
        suspicions = Suspicions()
        for now in range(0, 180, 3):
            few = block([*range(PREFETCH)], [])
            found = suspicions.look(now, [few], {}, empty=True, strangers=now // 3 % 2)
            self.assertEqual(found, {})
        many = block([*range(PREFETCH + 1)], [])
        for now in range(180, 240, 3):
            self.assertEqual(suspicions.look(now, [many], {}, empty=True, strangers=now // 3 % 2), {})
        self.assertTrue(suspicions.look(240, [many], {}, empty=True, strangers=0))

    def test_stranger_that_remains(self) -> None:
        """When one of two goes, the other may be one that only hangs."""
        suspicions = Suspicions()
        many, few = range(2 * PREFETCH + 1), range(200, 210)
        self.assertEqual(self.found(suspicions, range(90), many, 2), {60: [*many]})
        self.assertEqual(self.found(suspicions, range(90, 180), few, 2), {150: [*few]})
        self.assertEqual(self.found(suspicions, range(180, 270), range(0), 1), {})
        self.assertEqual(self.found(suspicions, range(270, 450), few, 1), {})

    def test_staying_strangers(self) -> None:
        """A consumer that is new, and has had no time to list anything, does not stay yet."""
        suspicions = Suspicions()
        for now, strangers, staying in ((0, 1, 0), (9, 2, 0), (18, 1, 0), (21, 3, 1), (30, 0, 0), (39, 1, 0)):
            suspicions.look(now, [], {}, empty=True, strangers=strangers)
            self.assertEqual(suspicions.staying(), staying, now)

    def test_over(self) -> None:
        """A block is over when its publisher is two blocks ahead, or when all has been quiet for a day."""
        past, ahead = block([1], [1]), Block("n", 2, 0, 0, 0, 0)
        self.assertEqual(over_blocks([past, ahead], quiet=False), [past])
        self.assertEqual(over_blocks([block([1, 2], [1]), ahead], quiet=True), [])
        self.assertEqual(over_blocks([block([1, 2], [1], [2]), ahead], quiet=False)[0].number, 0)
        old = block([1], [1], idle=90_000)
        self.assertEqual((over_blocks([old], quiet=True), over_blocks([old], quiet=False)), ([old], []))


class Side:
    """One node's archive path: publisher, writer and audit."""

    def __init__(self, test: unittest.TestCase, amqp_url: str, mongo_url: str, name: str) -> None:
        self.numbers = Numbers(name)
        self.publisher = RabbitConnection(reactor, amqp_url, "publisher")
        self.consumer = RabbitConnection(reactor, amqp_url, "consumer")
        self.queue = RabbitArchiveQueue(reactor, self.publisher, numbers=self.numbers, confirm_seconds=60)
        self.archive = MongoArchive(reactor, mongo_url, timeout_seconds=2)
        self.writer = ArchiveWriter(reactor, self.consumer, self.publisher, self.archive)
        self.audit = ArchiveAudit(reactor, self.archive, self.numbers, self.writer)
        self.parts = [self.queue, self.archive, self.writer, self.audit]
        test.addCleanup(self.stop)

    async def start(self) -> Side:
        for part in self.parts:
            await part.start()
        return self

    async def stop(self) -> None:
        """In the order of a node's stop."""
        parts, self.parts = self.parts, []
        by_order = {id(self.audit): 0, id(self.writer): 1, id(self.archive): 2, id(self.queue): 3}
        for part in sorted(parts, key=lambda part: by_order[id(part)]):
            await part.stop()


class ArchiveAuditTests(unittest.TestCase):
    """On real servers, with RabbitMQ's own tools. A minute is a second and a half here."""

    timeout = 900

    async def side(self, server: MongoServer | None = None, name: str = "east") -> Side:
        self.patch(archive_audit, "MISSING_SECONDS", 1.5)
        self.patch(archive_audit, "ROUND_SECONDS", 0.25)
        self.server = server or own_mongo(self)
        self.amqp_url = shared().amqp_url()
        self.broker = Broker(self.amqp_url)
        self.addCleanup(self.broker.close)
        client: Any = pymongo.MongoClient(self.server.url)
        self.addCleanup(client.close)
        self.database = client.get_default_database("imd")
        self.missing_before = MISSING._value.get()
        return await Side(self, self.amqp_url, self.server.url, name).start()

    def missing(self) -> int:
        return int(MISSING._value.get() - self.missing_before)

    def archived(self) -> int:
        return int(self.database["im_message"].count_documents({}))

    async def publish(self, side: Side, first: int, count: int) -> None:
        for number in range(first, first + count):
            await side.queue.publish(records([number]))

    async def full_of_batches(self, side: Side, ttl_on: str = "", waiting: int = 40) -> None:
        """MongoDB hangs; the writer holds PREFETCH batches, and `waiting` more are in the queue.

        `ttl_on`: a pattern of queues in which what comes from then on lives for a moment only.
        """
        await self.publish(side, 0, 1)
        await until(lambda: self.archived() == 1 and not side.writer.consumer.holding(), "it works")
        self.server.pause()
        self.addCleanup(self.server.resume)
        await self.publish(side, 1, PREFETCH)
        await until(lambda: len(side.writer.consumer.holding()) == PREFETCH, "the writer holds what it may")
        if ttl_on:
            await self.set_policy(ttl_on, '{"message-ttl": 100}')
        await self.publish(side, PREFETCH + 1, waiting)
        if ttl_on:
            return
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) == waiting, "the rest waits")

    async def set_policy(self, pattern: str, definition: str) -> None:
        vhost = self.amqp_url.rsplit("/", 1)[1]
        server = shared().rabbit
        await deferToThread(
            server.rabbitctl, "set_policy", "-p", vhost, "--apply-to", "queues", "tidy", pattern, definition
        )

    async def emptied(self) -> None:
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) == 0, "they are taken out", 180)

    async def found(self, side: Side, count: int, batches_left: int, more: int = 3) -> None:
        """So many batches are missing; metric, log and doctor tell of them once. `more` come through."""
        with capturedLogs() as captured:
            self.server.resume()
            await until(lambda: self.missing() >= count, "it is noticed", 180)
        lines = [formatEvent(event) for event in captured if event["log_level"] is LogLevel.error]
        self.assertTrue(lines and all("of east were confirmed" in line for line in lines), lines)
        await self.publish(side, 5000, more)
        await until(lambda: self.archived() == batches_left + more, "all the others are there", 180)
        self.assertEqual(self.missing(), count)
        self.assertEqual(count_missing(self.database), {"east": count})
        findings = await deferToThread(lambda: list(look_mongo.look(Mongodb(url=self.server.url), 10)))
        problems = [finding.what for finding in findings if finding.level is Level.PROBLEM]
        self.assertEqual(len(problems), 1, findings)
        self.assertIn(f"{count} confirmed batches are missing", problems[0])

    async def test_message_ttl(self) -> None:
        """A `message-ttl` on all queues empties the dead queue as well."""
        side = await self.side()
        await self.full_of_batches(side, "^imd")
        await self.emptied()
        await self.found(side, 40, PREFETCH + 1)

    async def test_message_ttl_on_the_archive_queue(self) -> None:
        """If the policy spares the dead queue, batches that it removes from a new queue are there."""
        side = await self.side()
        await self.full_of_batches(side, r"^imd\.archive$")
        await self.emptied()
        await until(lambda: self.broker.length(DEAD_QUEUE) == 40, "they are among the dead", 180)
        await self.found(side, 40, PREFETCH + 1)
        while (taken := self.broker.take(DEAD_QUEUE)) is not None:
            properties, body = taken
            self.broker.channel.basic_publish("", ARCHIVE_QUEUE, body, properties)
        await until(lambda: count_missing(self.database) == {}, "put back, they are not missing any more")
        self.assertEqual(self.archived(), PREFETCH + 44)

    async def test_drop_head(self) -> None:
        """`max-length` with `drop-head` removes the oldest batches."""
        side = await self.side()
        await self.full_of_batches(side)
        await self.set_policy("^imd", '{"max-length": 10, "overflow": "drop-head"}')
        await until(lambda: self.broker.length(ARCHIVE_QUEUE) <= 10, "the oldest are taken out", 180)
        lost = 40 - self.broker.length(ARCHIVE_QUEUE)
        await self.found(side, lost, PREFETCH + 41 - lost)

    async def test_purge(self) -> None:
        """Somebody purges the queue."""
        side = await self.side()
        await self.full_of_batches(side)
        self.broker.channel.queue_purge(ARCHIVE_QUEUE)
        await self.emptied()
        await self.found(side, 40, PREFETCH + 1)

    async def test_deleted(self) -> None:
        """Somebody deletes the queue: nodes declare it again, and its batches are missing."""
        side = await self.side()
        await self.publish(side, 0, 1)
        await until(lambda: self.archived() == 1, "it works")
        await side.writer.stop()
        await until(lambda: not count_writers(self.database), "it is in no list of consumers")
        await self.publish(side, 1, 5)
        self.broker.channel.queue_delete(ARCHIVE_QUEUE)
        with self.assertRaises(Unavailable):
            await side.queue.publish(records([900]))
        await until(lambda: side.queue.problem() is None, "it is there again")
        other = await Side(self, self.amqp_url, self.server.url, "west").start()
        await until(lambda: self.missing() >= 5, "it is noticed", 180)
        await self.publish(other, 100, 2)
        await until(lambda: self.archived() == 3, "it goes on")
        self.assertEqual(count_missing(self.database), {"east": 5})

    async def test_taken_by_another(self) -> None:
        """Another consumer takes batches out, and acknowledges them."""
        side = await self.side()
        await self.full_of_batches(side)
        for _ in range(7):
            self.assertIsNotNone(self.broker.take(ARCHIVE_QUEUE))
        await self.found(side, 7, PREFETCH + 34)

    def consumer(self, **options: Any) -> Broker:
        """Another consumer, which stays."""
        other = Broker(self.amqp_url)
        self.addCleanup(other.close)
        other.channel.basic_qos(prefetch_count=PREFETCH)
        other.channel.basic_consume(ARCHIVE_QUEUE, lambda *_: None, **options)
        return other

    async def strangers_in_doctor(self, level: int = EVENTS) -> list[str]:
        settings = Settings(rabbitmq=Rabbitmq(url=self.amqp_url), mongodb=Mongodb(url=self.server.url))
        write_level(self.database["im_message"], level)
        findings = await deferToThread(lambda: list(look_rabbit.look(settings, 20)))
        self.assertEqual([finding for finding in findings if finding.level is Level.PROBLEM], [])
        return [finding.what for finding in findings if finding.level is Level.WARNING]

    async def test_taken_by_one_that_stays(self) -> None:
        """A consumer that acknowledges whatever it gets, and stays: what it takes is missing in a minute."""
        side = await self.side()
        await self.full_of_batches(side, waiting=PREFETCH + 6)
        self.consumer(auto_ack=True)
        await self.emptied()
        await self.found(side, PREFETCH + 6, PREFETCH + 1, more=0)
        await self.publish(side, 6000, 20)
        await until(lambda: self.archived() + self.missing() == 2 * PREFETCH + 27, "each is found", 180)

    async def test_few_taken_by_one_that_stays(self) -> None:
        """While it has taken no more than a node may hold, there is a warning; later they are missing."""
        self.patch(archive_audit, "STRANGER_SECONDS", 600.0)
        self.patch(archive_audit, "FRESH_SECONDS", 1.0)
        side = await self.side()
        self.assertEqual(await self.strangers_in_doctor(), [])
        await self.full_of_batches(side)
        self.consumer(auto_ack=True)
        await self.emptied()
        with capturedLogs() as captured:
            self.server.resume()
            await until(lambda: any("list nothing" in formatEvent(event) for event in captured), "a warning")
        self.assertIn("1 of 2 consumers", "".join(await self.strangers_in_doctor()))
        self.assertEqual(self.missing(), 0)
        self.patch(archive_audit, "STRANGER_SECONDS", 3.0)
        await self.found(side, 40, PREFETCH + 1, more=0)

    async def test_first_level(self) -> None:
        """Beside nodes of 0.1, which list nothing, other consumers are no warning."""
        self.patch(archive_audit, "FRESH_SECONDS", 0.5)
        side = await self.side()
        side.numbers.set_level(FIRST)
        self.consumer()
        with capturedLogs() as captured:
            await until(side.audit._suspicions.staying, "the other one stays")
            self.assertEqual(await self.strangers_in_doctor(FIRST), [])
        self.assertEqual(
            [formatEvent(event) for event in captured if "list nothing" in formatEvent(event)], []
        )

    async def test_nothing_is_missing(self) -> None:
        """Failed batches, dead letters, redelivery, two writers, a stop, MongoDB away: no alarm."""
        side = await self.side()
        other = await Side(self, self.amqp_url, self.server.url, "west").start()
        await self.publish(side, 0, 5)
        await self.publish(other, 10, 5)
        self.broker.put(ARCHIVE_QUEUE, b"not JSON")
        side.numbers.next()
        for one in (side, other):
            assert one.writer.consumer.held is not None
            one.writer.consumer.held.link.drop("test")
        await self.publish(side, 20, 5)
        self.server.pause()
        self.addCleanup(self.server.resume)
        await self.publish(side, 30, 2 * PREFETCH + 20)
        await self.publish(other, 300, 10)
        self.server.resume()
        await until(lambda: self.archived() == 25 + 2 * PREFETCH + 20, "all are there", 180)
        await other.stop()
        await self.publish(side, 400, 3)
        await self.quiet(side)
        self.assertEqual((self.missing(), count_missing(self.database)), (0, {}))
        self.assertEqual(self.broker.length(DEAD_QUEUE), 1)

    async def quiet(self, side: Side) -> None:
        """Waits until the audit would have noticed: a number that is missing on purpose is found by then."""
        number, _ = side.numbers.next()
        side.numbers.confirmed(number)
        before = self.missing()
        await until(lambda: self.missing() == before + 1, "a bad one is found", 180)
        self.missing_before += 1
        self.database[LEDGER].update_many({}, {"$unset": {f"m{word}": "" for word in range(16)}})
        self.database[LEDGER].update_many({"publisher": side.numbers.publisher}, {"$unset": {"c0": ""}})

    async def test_hung_consumer(self) -> None:
        """Batches of a consumer without a list are not missing; when it goes, another one gets them."""
        side = await self.side()
        await self.publish(side, 0, 1)
        await until(lambda: self.archived() == 1, "it works")
        hung = self.consumer()
        published = 1
        while published - self.archived() < PREFETCH:
            await self.publish(side, published, 20)
            published += 20
            await until(lambda: not side.writer.consumer.holding(), "the writer has written its own")
        await until(lambda: self.archived() == published - PREFETCH, "the writer has the others")
        looks = 0
        read = side.archive.run

        def counted(work: Any, *args: Any, **options: Any) -> Any:
            nonlocal looks
            looks += work is read_ledger
            return read(work, *args, **options)

        self.patch(side.archive, "run", counted)
        await until(lambda: looks >= 12, "it has looked for twice as long", 180)
        self.assertEqual(self.missing(), 0)
        hung.close()
        await until(lambda: self.archived() == published, "they are there")
        await self.quiet(side)
        self.assertEqual(self.missing(), 0)

    async def test_after_the_stop(self) -> None:
        """A node stops while MongoDB is away: the others notice if its confirmed batches are missing."""
        side = await self.side()
        await self.full_of_batches(side)
        self.assertIsNotNone(self.broker.take(ARCHIVE_QUEUE))
        await side.stop()
        self.server.resume()
        await Side(self, self.amqp_url, self.server.url, "west").start()
        await until(lambda: self.missing() == 1, "it is noticed", 180)
        self.assertEqual(count_missing(self.database), {"east": 1})

    async def test_old_queue(self) -> None:
        """A queue that was made without dead-letter arguments is used as it is, without a warning."""
        self.patch(rabbit_archive_queue, "_warned", set())
        url = shared().amqp_url()
        broker = Broker(url)
        self.addCleanup(broker.close)
        old = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length-bytes": 1 << 30}
        broker.channel.queue_declare(ARCHIVE_QUEUE, durable=True, arguments=old)
        queue = RabbitArchiveQueue(reactor, RabbitConnection(reactor, url, "publisher"))
        self.addCleanup(queue.stop)
        await queue.start()
        self.assertEqual(rabbit_archive_queue._warned, set())

    async def test_ledger_is_bounded(self) -> None:
        """Bits are added in any order; MongoDB removes blocks that are over, and no others."""
        side = await self.side()
        # Nothing is to be missing here, however long it takes from the first note to the second.
        self.patch(archive_audit, "MISSING_SECONDS", 600.0)
        self.patch(side.archive, "_timeout_seconds", 60.0)
        every = {("x", 0): (1 << BLOCK) - 1}
        await side.archive.run(note, every, {("x", 0): 1 << 63 | 1 << 64})
        await side.archive.run(note, {}, every)
        await side.archive.run(note, {("x", 2): 1}, {("x", 2): 1})
        await until(
            lambda: self.database[LEDGER].count_documents({"expires": {"$type": "date"}}) == 1, "it is over"
        )
        # The list is fresh for some seconds only.
        await side.archive.run(say_held, "z", ["x:1"])
        ledger = await side.archive.run(read_ledger)
        self.assertEqual([one[:5] for one in ledger.blocks if one.publisher == "x"], [("x", 2, 1, 1, 0)])
        self.assertIn(["x:1"], ledger.holding)
        self.assertEqual(self.missing(), 0)
        indexes = self.database[LEDGER].index_information().values()
        await until(lambda: "expires_1" in self.database[LEDGER].index_information(), "the index")
        self.assertTrue(indexes)
