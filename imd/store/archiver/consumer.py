"""A consumer of the archive queue: takes batches, and acknowledges those that are durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.exceptions import AMQPError, ConsumerCancelled
from prometheus_client import Gauge
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from imd.store.archiver.batches import Batch, Held, Write, read_batch
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, declare_archive_queues
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link

PREFETCH = 64

WAITING = Gauge("imd_archive_waiting", f"AMQP messages held unacknowledged, at most {PREFETCH}.")


class Consumer:
    """Consumes anew on each connection. The broker redelivers what was not acknowledged on the last one."""

    def __init__(
        self,
        connection: RabbitConnection,
        queue_bytes: int,
        arrived: Callable[[Held], None],
        lost: Callable[[], None],
    ) -> None:
        """`arrived` is called after each batch, `lost` when the held batches go back to the queue."""
        self._connection = connection
        self._queue_bytes = queue_bytes
        self._arrived = arrived
        self._lost = lost
        self.held: Held | None = None
        """None while there is no channel"""
        connection.add_user(self._set_up, self._connection_lost)

    # from the writer

    def start(self) -> Deferred[None]:
        """Fires when the queue is consumed for the first time."""
        return self._connection.start()

    async def stop(self) -> None:
        await self._connection.stop()

    def problem(self) -> str | None:
        return self._connection.problem()

    def gather(self, most_documents: int) -> Write:
        """A new write of batches that wait. There is one, and a channel."""
        held = self.held
        assert held is not None
        write = Write(held, held.gather(most_documents))
        WAITING.set(len(held.waiting))
        held.writes.append(write)
        return write

    def acknowledge(self, held: Held) -> None:
        """Acknowledge writes that are durable, in the order of their tags."""
        tag = held.durable_up_to()
        if tag is not None and self.held is held and held.channel.is_open:
            # Everything before this tag is durable as well.
            held.channel.basic_ack(tag, multiple=True)

    # from the audit

    def holding(self) -> list[str]:
        """`<publisher>:<number>` of each batch that is held."""
        return [] if self.held is None else self.held.names()

    async def queue_state(self) -> tuple[int, int] | None:
        """The archive queue's batches and consumers; None if they cannot be learned."""
        if self.held is None:
            return None
        link = self.held.link
        try:
            channel = await link.channel(vital=False)
            declared = channel.queue_declare(ARCHIVE_QUEUE, passive=True)
            queue = (await link.call(declared, "queue.declare")).method
            channel.close()
        except (AMQPError, TimeoutError):
            return None
        return queue.message_count, queue.consumer_count

    # from the connection

    async def _set_up(self, link: Link) -> None:
        await declare_archive_queues(link, self._queue_bytes)
        channel = await link.channel()
        await link.call(channel.basic_qos(prefetch_count=PREFETCH), "basic.qos")
        queue, _ = await link.call(channel.basic_consume(ARCHIVE_QUEUE), "basic.consume")
        self.held = held = Held(link, channel)
        ensureDeferred(self._consume(held, queue)).addErrback(self._consumer_gone, held)

    def _connection_lost(self) -> None:
        self.held = None
        WAITING.set(0)
        self._lost()

    async def _consume(self, held: Held, queue: Any) -> None:
        while True:
            message = await queue.get()
            held.add(self._read(message))
            WAITING.set(len(held.waiting))
            self._arrived(held)

    @staticmethod
    def _read(message: Any) -> Batch:
        return read_batch(message.method.delivery_tag, message.body, message.properties.message_id)

    def _consumer_gone(self, failure: Failure, held: Held) -> None:
        # A closed channel is reported by the link. After the queue was deleted the channel stays open.
        if failure.check(ConsumerCancelled):
            held.link.drop(f"the broker cancelled the consumer of {ARCHIVE_QUEUE}")
        elif not failure.check(AMQPError):
            held.link.drop(failure)
