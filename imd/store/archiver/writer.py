"""From the archive queue into MongoDB: one of the competing consumers."""

from __future__ import annotations

import random
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ConsumerCancelled
from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol.errors import Unavailable
from imd.store.archiver.batches import Arrived, Run, Write, read_arrived
from imd.store.batch_numbers import Bits, Mark, add_before, add_number
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.ledger import note
from imd.store.mongo.write import Refused
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE, declare_archive_queues
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link
from imd.store.rabbit.reasons import reason_of

PREFETCH = 64
# MongoDB has the next one before it has answered the last: on a busy machine its share of the processor is
# that of the threads which work in it.
WRITES_IN_FLIGHT = 2
# Under load a write waits for more to arrive: until so long after the last one, so many AMQP messages, or a
# full batch. MongoDB, the thread and this node's reactor pay for each write more than for what is in it.
GATHER_SECONDS = 0.1
GATHER_ARRIVED = PREFETCH // 2
STOP_SECONDS = 5.0
CONFIRM_SECONDS = 10.0
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS, _DELAY_FACTOR = 0.1, 10.0, 1.7
REASON_HEADER = "x-imd-reason"
_MAX_REASON = 500

BATCH_DOCUMENTS = Histogram(
    "imd_archive_batch_documents",
    "Documents gathered into one write.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000),
)
WAITING = Gauge("imd_archive_waiting", f"AMQP messages held unacknowledged, at most {PREFETCH}.")
DEAD = Counter("imd_archive_dead_total", "Documents and messages moved to the dead-letter queue.")
RETRIES = Counter("imd_archive_write_retries_total", "Writes that failed and are tried again.")


class ArchiveWriter:
    """Gathers what has arrived into few writes at a time, and acknowledges what is durable.

    Nothing is ever given back to the broker: while MongoDB is down, what has arrived is held and tried
    again. What can never be written goes to `imd.archive.dead`, over the publishing connection: a
    connection that has published is one that the broker stops reading, acks and all, under an alarm.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        consumer: RabbitConnection,
        publisher: RabbitConnection,
        archive: MongoArchive,
        *,
        queue_bytes: int = 1 << 30,
        batch: int = 256,
    ) -> None:
        self._clock = clock
        self._consumer = consumer
        self._publisher = publisher
        self._archive = archive
        self._queue_bytes = queue_bytes
        self._batch = batch
        self._seldom = Seldom(self.log, clock.seconds)
        self._run: Run | None = None
        self._dead_channel: TwistedChannel | None = None
        self._working: Deferred[None] | None = None
        self._stopping = False
        self._waiting: Deferred[None] | None = None
        self._writes: list[Write] = []
        self._wrote_at = float("-inf")
        self._broken: str | None = None
        consumer.add_user(self._set_up, self._lost)
        publisher.add_user(self._set_up_dead_letters, self._dead_letters_lost)

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when the archive queue is consumed for the first time. The MongoArchive is started apart."""
        self._working = ensureDeferred(self._work())
        self._working.addErrback(self._work_ended)
        return gatherResults([self._consumer.start(), self._publisher.start()]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Finish and acknowledge the writes under way; what else has arrived goes back to the queue."""
        return ensureDeferred(self._stop()).addErrback(
            lambda failure: self.log.failure("archive writer: did not stop in good order", failure)
        )

    def problem(self) -> str | None:
        reason = self._broken or self._failing()
        return self._consumer.problem() if reason is None else f"archive writer: {reason}"

    # from the audit

    def holding(self) -> list[str]:
        """`<publisher>:<number>` of each batch that has arrived and is not acknowledged."""
        run = self._run
        if run is None:
            return []
        held = [*run.arrived, *(arrived for write in run.writes for arrived in write.gathered)]
        return [f"{one.mark.publisher}:{one.mark.number}" for one in held if one.mark is not None]

    async def queue_state(self) -> tuple[int, int] | None:
        """How many batches wait in the archive queue, and how many consumers it has; None if nobody knows."""
        run = self._run
        if run is None:
            return None
        try:
            channel = await run.link.channel(vital=False)
            declared = channel.queue_declare(ARCHIVE_QUEUE, passive=True)
            queue = (await run.link.call(declared, "queue.declare")).method
            channel.close()
        except (AMQPError, TimeoutError):
            return None
        return queue.message_count, queue.consumer_count

    async def _stop(self) -> None:
        self._stopping = True
        self._end_waits()
        if self._working is not None and not self._working.called:
            self._working.addTimeout(STOP_SECONDS, self._clock, onTimeoutCancel=lambda *_: None)
            await self._working
        await gatherResults([ensureDeferred(self._consumer.stop()), ensureDeferred(self._publisher.stop())])

    # from the consuming connection

    async def _set_up(self, link: Link) -> None:
        await declare_archive_queues(link, self._queue_bytes)
        channel = await link.channel()
        await link.call(channel.basic_qos(prefetch_count=PREFETCH), "basic.qos")
        queue, consumer_tag = await link.call(channel.basic_consume(ARCHIVE_QUEUE), "basic.consume")
        self._run = run = Run(link, channel, consumer_tag)
        ensureDeferred(self._consume(run, queue)).addErrback(self._consumer_gone, run)

    def _lost(self) -> None:
        # The broker delivers again, to us or to another, what was not acknowledged.
        self._run = None
        WAITING.set(0)
        self._end_waits()

    async def _consume(self, run: Run, queue: Any) -> None:
        while True:
            message = await queue.get()
            arrived = read_arrived(message.method.delivery_tag, message.body, message.properties.message_id)
            run.arrived.append(arrived)
            run.documents += len(arrived.bodies)
            WAITING.set(len(run.arrived))
            if len(run.arrived) == 1 or self._is_enough(run):
                self._wake()

    def _consumer_gone(self, failure: Failure, run: Run) -> None:
        # When the channel closed, the link knows. A queue that was deleted leaves it open.
        if failure.check(ConsumerCancelled):
            run.link.drop(f"the broker cancelled the consumer of {ARCHIVE_QUEUE}")
        elif not failure.check(AMQPError):
            run.link.drop(failure)

    # its work

    async def _work(self) -> None:
        while not self._stopping and self._broken is None:
            seconds = self._seconds_until_write()
            if seconds is not None and seconds <= 0:
                self._begin_write()
            else:
                await self._wait(seconds)
        while self._writes:
            await self._wait(None)

    def _work_ended(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(CancelledError)):
            self._broken = reason_of(failure)
            self.log.failure("archive writer: stopped working", failure)

    def _seconds_until_write(self) -> float | None:
        """How long to let more arrive; None until something has."""
        run = self._run
        if run is None or not run.arrived or len(self._writes) >= WRITES_IN_FLIGHT:
            return None
        if self._is_enough(run):
            return 0
        # While one is under way a second one has to be worth it.
        return None if self._writes else self._wrote_at + GATHER_SECONDS - self._clock.seconds()

    def _is_enough(self, run: Run) -> bool:
        return len(run.arrived) >= GATHER_ARRIVED or run.documents >= self._batch

    def _begin_write(self) -> None:
        run = self._run
        assert run is not None
        write = Write(run, self._gather(run))
        if any(arrived.bodies for arrived in write.gathered):
            self._wrote_at = self._clock.seconds()
        self._writes.append(write)
        run.writes.append(write)
        ensureDeferred(self._write(write)).addCallback(self._acknowledge, write).addErrback(
            self._work_ended
        ).addBoth(self._write_ended, write)

    def _acknowledge(self, durable: bool, write: Write) -> None:
        write.durable = durable
        run, last = write.run, None
        while run.writes and run.writes[0].durable:
            last = run.writes.popleft()
        if last is not None and self._run is run and run.channel.is_open:
            # Everything before its last tag is done as well.
            run.channel.basic_ack(last.gathered[-1].tag, multiple=True)

    def _write_ended(self, _: None, write: Write) -> None:
        self._writes.remove(write)
        self._wake()

    def _gather(self, run: Run) -> list[Arrived]:
        """What has arrived, up to the size of a batch; one AMQP message is never divided."""
        gathered = [run.arrived.popleft()]
        documents = len(gathered[0].bodies)
        while run.arrived and documents + len(run.arrived[0].bodies) <= self._batch:
            gathered.append(run.arrived.popleft())
            documents += len(gathered[-1].bodies)
        run.documents -= documents
        WAITING.set(len(run.arrived))
        return gathered

    async def _write(self, write: Write) -> bool:
        """True when all of it is durable, in MongoDB or among the dead; False if the channel is lost."""
        bodies = [body for arrived in write.gathered for body in arrived.bodies]
        refused = [arrived.unfit for arrived in write.gathered if arrived.unfit is not None]
        # A large message is written in slices, so that a thread's work stays short.
        for start in range(0, len(bodies), self._batch):
            part = bodies[start : start + self._batch]
            while True:
                try:
                    inserted = await self._archive.insert(part)
                except Unavailable as error:
                    RETRIES.inc()
                    if not await self._try_again(write, str(error)):
                        return False
                else:
                    break
            BATCH_DOCUMENTS.observe(len(part))
            if TRACE.on:
                TRACE.archived(part, {dead.message_id for dead in inserted.refused})
            refused += inserted.refused
            self._succeeded(write)
        if refused and not await self._bury(write, refused):
            return False
        marks = [arrived.mark for arrived in write.gathered if arrived.mark is not None]
        return not marks or await self._note(write, marks)

    async def _note(self, write: Write, marks: list[Mark]) -> bool:
        """Say in the ledger what is durable; before it is acknowledged, since later nobody else could."""
        confirmed: Bits = {}
        written: Bits = {}
        for mark in marks:
            add_number(written, mark.publisher, mark.number)
        for mark in marks:
            add_before(confirmed, mark)
        while True:
            try:
                permitted = await self._archive.run(note, confirmed, written)
            except Unavailable as error:
                RETRIES.inc()
                if not await self._try_again(write, str(error)):
                    return False
            else:
                self._succeeded(write)
                break
        if not permitted:
            self._seldom.warn("archive writer: MongoDB permits no ledger; what goes missing is not noticed")
        return True

    async def _bury(self, write: Write, refused: list[Refused]) -> bool:
        """Move documents to the dead-letter queue; True when all of them are confirmed there."""
        for dead in refused:
            while True:
                try:
                    await self._publish_dead(dead)
                except (AMQPError, Unavailable, TimeoutError) as error:
                    if not await self._try_again(write, f"{DEAD_QUEUE}: {reason_of(error)}"):
                        return False
                else:
                    break
            DEAD.inc()
            self._succeeded(write)
            # The reason may quote what somebody wrote: it is in the queue, beside the document, not in a log.
            self._seldom.error(
                "archive: message {message_id} cannot be written and is in {queue}",
                cause="dead",
                message_id=dead.message_id or "without an id",
                queue=DEAD_QUEUE,
            )
        return True

    async def _publish_dead(self, dead: Refused) -> None:
        channel = self._dead_channel
        if channel is None or self._publisher.blocked:
            raise Unavailable(self._publisher.problem() or "not connected")
        properties = pika.BasicProperties(
            delivery_mode=2,
            content_type="application/json",
            headers={REASON_HEADER: dead.reason[:_MAX_REASON], "x-imd-message-id": dead.message_id},
        )
        confirm: Deferred[Any] = Deferred()
        channel.basic_publish("", DEAD_QUEUE, dead.body, properties, mandatory=True).addCallbacks(
            _unless_given_up(confirm.callback, confirm), _unless_given_up(confirm.errback, confirm)
        )

        def too_late(_: object, seconds: float) -> None:
            raise TimeoutError(f"no confirm within {seconds:g} s")

        await confirm.addTimeout(CONFIRM_SECONDS, self._clock, onTimeoutCancel=too_late)

    # from the publishing connection

    async def _set_up_dead_letters(self, link: Link) -> None:
        await declare_archive_queues(link, self._queue_bytes)
        self._dead_channel = await link.channel(confirm=True)

    def _dead_letters_lost(self) -> None:
        self._dead_channel = None

    # failures

    def _failing(self) -> str | None:
        """Why a write failed that is tried again."""
        return next((write.reason for write in self._writes if write.reason is not None), None)

    def _succeeded(self, write: Write) -> None:
        write.failures = 0
        if write.reason is not None:
            write.reason = None
            if self._failing() is None:
                self._seldom.info("archive writer: writes again")

    async def _try_again(self, write: Write, reason: str) -> bool:
        """After a while; False when there is no use: the channel is lost, or the writer stops."""
        if self._failing() is None:
            self._seldom.warn("archive writer: {reason}; holding what has arrived", reason=reason)
        write.reason = reason
        write.failures += 1
        if self._is_of_use(write):
            # Longer each time, with jitter; ended early by a lost channel and by the stop.
            delay = min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * _DELAY_FACTOR ** min(write.failures, 20))
            write.pause = pause = Deferred[None]()
            call = self._clock.callLater(delay * random.uniform(0.5, 1), write.end_pause)
            await pause
            if call.active():
                call.cancel()
        return self._is_of_use(write)

    def _is_of_use(self, write: Write) -> bool:
        return self._run is write.run and not self._stopping

    # waiting

    async def _wait(self, seconds: float | None) -> None:
        """Until something is different, at most so long."""
        self._waiting = waiting = Deferred[None]()
        call = None if seconds is None else self._clock.callLater(seconds, self._wake)
        await waiting
        if call is not None and call.active():
            call.cancel()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _end_waits(self) -> None:
        for write in self._writes[:]:
            write.end_pause()
        self._wake()


def _unless_given_up(fire: Any, confirm: Deferred[Any]) -> Any:
    """pika's Deferreds live on after a deadline, and must not fire ours twice."""

    def fire_once(result: Any) -> None:
        if not confirm.called:
            fire(result)

    return fire_once
