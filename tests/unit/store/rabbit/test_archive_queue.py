"""The archive queue's publisher on a real RabbitMQ: each batch is confirmed or Unavailable in time."""

from __future__ import annotations

import contextlib
import json
import time

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.archive import ArchiveRecord
from imd.protocol.errors import Unavailable
from imd.store.rabbit import archive_queue as rabbit_archive_queue
from imd.store.rabbit import connection as rabbit_connection
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE, RabbitArchiveQueue, encode_records
from imd.store.rabbit.connection import RabbitConnection
from tests.support.rabbit import Broker, breakable, until
from tests.support.servers import RabbitServer, shared


def record(number: int, padding: int = 0) -> ArchiveRecord:
    return ArchiveRecord(b'{"id":"%d","msg":"%b"}' % (number, b"x" * padding))


class EncodingTests(unittest.TestCase):
    def test_array(self) -> None:
        """The bodies are unchanged, in one array; an agent goes into its own record, and is escaped."""
        body = encode_records([record(1), ArchiveRecord(b'{"id":"2"}', 'a"gent\u00e9'), record(3)])
        self.assertEqual(
            json.loads(body),
            [{"id": "1", "msg": ""}, {"id": "2", "agent": 'a"gent\u00e9'}, {"id": "3", "msg": ""}],
        )

    def test_empty(self) -> None:
        self.assertEqual(encode_records([]), b"[]")


class ArchiveQueueTests(unittest.TestCase):
    timeout = 300

    def make(self, url: str, **options: float) -> RabbitArchiveQueue:
        publisher = RabbitConnection(reactor, url, "publish")
        # Tests that wait for the deadline patch it for so long.
        queue = RabbitArchiveQueue(reactor, publisher, confirm_seconds=60.0, **options)  # type: ignore[arg-type]
        self.addCleanup(queue.stop)
        return queue

    def broker(self, url: str) -> Broker:
        broker = Broker(url)
        self.addCleanup(broker.close)
        return broker

    async def started(self, **options: float) -> tuple[RabbitArchiveQueue, Broker]:
        """A queue on a virtual host of its own, with the first probe removed."""
        url = shared().amqp_url()
        queue = self.make(url, **options)
        await queue.start()
        broker = self.broker(url)
        await until(lambda: broker.take(ARCHIVE_QUEUE), "the first probe")
        return queue, broker

    async def fails(self, queue: RabbitArchiveQueue, what: str = "") -> str:
        """The reason that a publish fails for."""
        with self.assertRaises(Unavailable) as refused:
            await queue.publish([record(1)])
        self.assertIn(what, str(refused.exception))
        return str(refused.exception)

    async def test_one_message(self) -> None:
        """A batch is one persistent message."""
        queue, broker = await self.started()
        self.assertIsNone(queue.problem())
        await queue.publish([record(1), record(2)])
        taken = await until(lambda: broker.take(ARCHIVE_QUEUE), "the batch")
        self.assertEqual(taken[0].delivery_mode, 2)
        self.assertEqual([one["id"] for one in json.loads(taken[1])], ["1", "2"])
        self.assertIsNone(broker.take(ARCHIVE_QUEUE))
        self.assertEqual(broker.length(DEAD_QUEUE), 0)

    async def test_many_in_flight(self) -> None:
        """Batches overlap; beyond the bound they are refused, and the others are confirmed."""
        queue, broker = await self.started()
        sent = [queue.publish([record(number)]) for number in range(rabbit_archive_queue.IN_FLIGHT_BATCHES)]
        await self.fails(queue, "too much is not confirmed")
        for one in sent:
            await one
        await queue.publish([record(99)])
        await until(lambda: broker.length(ARCHIVE_QUEUE) == len(sent) + 1, "all are there")

    async def test_too_large(self) -> None:
        """More bytes than may be in flight are refused before they are sent."""
        queue, _ = await self.started()
        self.patch(rabbit_archive_queue, "IN_FLIGHT_BYTES", 1000)
        with self.assertRaises(Unavailable):
            await queue.publish([record(1, 1000)])
        await queue.publish([record(1)])

    async def test_full(self) -> None:
        """A full queue refuses what it cannot keep, and takes batches again once it is emptied."""
        self.patch(rabbit_archive_queue, "PROBE_SECONDS", 0.1)
        queue, broker = await self.started(queue_bytes=4000)
        kept = 0
        with self.assertRaises(Unavailable) as refused:
            while kept < 100:
                await queue.publish([record(kept, 500)])
                kept += 1
        self.assertIn("full", str(refused.exception))
        self.assertIsNotNone(queue.problem())
        self.assertGreater(kept, 3)
        # Every confirmed batch is there.
        bodies = []
        while (taken := broker.take(ARCHIVE_QUEUE)) is not None:
            bodies += json.loads(taken[1])
        self.assertEqual([one["id"] for one in bodies], [str(number) for number in range(kept)])
        await until(lambda: queue.problem() is None, "it recovers")
        await queue.publish([record(1)])

    async def test_looks(self) -> None:
        """A probe publishes an empty batch now and then, so that a deleted queue is found without traffic."""
        self.patch(rabbit_archive_queue, "IDLE_SECONDS", 1000)
        queue, broker = await self.started()
        begun = broker.length(ARCHIVE_QUEUE)
        for _ in range(3):
            await queue.probe()
        self.assertEqual(broker.length(ARCHIVE_QUEUE), begun, "it was confirmed of late")
        self.patch(rabbit_archive_queue, "IDLE_SECONDS", 0)
        await queue.probe()
        await until(lambda: broker.length(ARCHIVE_QUEUE) == begun + 1, "an empty batch")
        broker.channel.queue_delete(ARCHIVE_QUEUE)
        with self.assertRaises(Unavailable):
            await queue.probe()
        with self.assertRaises(Unavailable):
            await queue.probe()
        await until(lambda: queue.problem() is None, "it recovers")
        await queue.probe()

    async def test_deleted(self) -> None:
        """When somebody deletes the queue, batches in flight fail, and the queue is declared again."""
        queue, broker = await self.started()
        broker.channel.queue_delete(ARCHIVE_QUEUE)
        sent = [queue.publish([record(number)]) for number in range(3)]
        for one in sent:
            with self.assertRaises(Unavailable):
                await one
        await self.fails(queue)
        await until(lambda: queue.problem() is None, "it recovers")
        await queue.publish([record(1)])

    async def test_other_arguments(self) -> None:
        """A queue that an operator has declared with other arguments is used as it is."""
        url = shared().amqp_url()
        broker = self.broker(url)
        broker.channel.queue_declare(ARCHIVE_QUEUE, durable=True)
        broker.channel.queue_declare(DEAD_QUEUE, durable=True, arguments={"x-max-length": 5})
        queue = self.make(url)
        await queue.start()
        await queue.publish([record(1)])
        # The probe and the batch.
        self.assertEqual(broker.length(ARCHIVE_QUEUE), 2)

    async def test_connection_lost(self) -> None:
        """Batches in flight fail at once when the connection is lost; later batches are confirmed."""
        queue, _ = await self.started()
        sent = queue.publish([record(1)])
        assert queue._link is not None
        queue._link.drop("test")
        with self.assertRaises(Unavailable):
            await sent
        await self.fails(queue)
        await until(lambda: queue.problem() is None, "it recovers")
        await queue.publish([record(1)])

    async def test_stop(self) -> None:
        """A stop fails batches in flight."""
        queue, _ = await self.started()
        sent = queue.publish([record(1)])
        stopped = queue.stop()
        with self.assertRaises(Unavailable):
            await sent
        await stopped
        await self.fails(queue)

    # on a broker that may be harmed

    async def on_breakable(self) -> tuple[RabbitServer, RabbitArchiveQueue]:
        server = breakable()
        queue = self.make(server.url)
        await queue.start()
        return server, queue

    async def test_silent_broker(self) -> None:
        """A broker that hangs costs the deadline once; then batches are refused at once until it answers."""
        server, queue = await self.on_breakable()
        server.pause()
        self.addCleanup(server.resume)
        hasty = self.patch(queue, "_confirm_seconds", 1.0)
        await self.fails(queue, "no confirm within 1 s")
        self.failureResultOf(queue.publish([record(1)]), Unavailable)
        hasty.restore()
        server.resume()
        await until(lambda: queue.problem() is None, "it recovers")
        await queue.publish([record(1)])

    async def test_killed_when_new(self) -> None:
        """A broker that is killed in its queues' first second keeps what it confirmed, and confirms again."""
        server = breakable()
        url = server.url_of(server.new_vhost())
        queue = self.make(url)
        await queue.start()
        await queue.publish([record(1)])
        await deferToThread(server.kill)
        # The confirm of a probe may be lost while the queue elects its leader.
        hasty = self.patch(queue, "_confirm_seconds", 5.0)
        await deferToThread(server.start)
        await until(lambda: queue.problem() is None, "it confirms again")
        hasty.restore()
        await queue.publish([record(2)])
        broker = self.broker(url)
        batches = [broker.take(ARCHIVE_QUEUE) for _ in range(broker.length(ARCHIVE_QUEUE))]
        ids = [one["id"] for batch in batches if batch is not None for one in json.loads(batch[1])]
        self.assertEqual(ids, ["1", "2"])

    def set_memory(self, server: RabbitServer, most: str) -> None:
        """As `rabbitmqctl set_vm_memory_high_watermark` does, without its second or two."""
        server.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({most})")

    async def test_memory_alarm(self) -> None:
        """Under an alarm batches fail within the deadline and it is told why; acks get through."""
        self.patch(rabbit_connection, "BLOCKED_SECONDS", 600.0)
        server, queue = await self.on_breakable()
        freed: list[bool] = []
        queue._publisher.when_freed(lambda: freed.append(True))
        await queue.publish([record(1)])
        consumer = self.broker(server.url)
        method, _, _ = consumer.channel.basic_get(ARCHIVE_QUEUE)
        self.addCleanup(self.set_memory, server, '{absolute, "1GB"}')
        self.set_memory(server, "0.00001")
        hasty = self.patch(queue, "_confirm_seconds", 1.0)
        # The broker looks at its memory now and then, and blocks a connection at its next publish. Batches
        # that it reads by then may be confirmed.
        end = time.monotonic() + 180
        while "memory or disk alarm" not in (queue.problem() or ""):
            self.assertLess(time.monotonic(), end, "it is not noticed")
            with contextlib.suppress(Unavailable):
                await queue.publish([record(2)])
        self.assertEqual(freed, [])
        await self.fails(queue, "alarm")
        consumer.channel.basic_ack(method.delivery_tag)
        self.assertGreaterEqual(consumer.length(ARCHIVE_QUEUE), 0, "the consuming connection is served")
        hasty.restore()
        self.set_memory(server, '{absolute, "1GB"}')
        await until(lambda: queue.problem() is None, "it recovers")
        self.assertEqual(freed, [True])
        await queue.publish([record(2)])
