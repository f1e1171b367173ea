"""From the archive queue into MongoDB: one of the competing consumers."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, NamedTuple

import msgspec
import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ConsumerCancelled
from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.backends.mongo_archive import MongoArchive
from imd.backends.mongo_write import Refused
from imd.backends.rabbit_archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE, declare_archive_queues
from imd.backends.rabbit_connection import RabbitConnection
from imd.backends.rabbit_link import Link, reason_of
from imd.errors import Unavailable
from imd.trace import TRACE

PREFETCH = 64
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

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Arrived(NamedTuple):
    """One AMQP message: the messages in it, or why there are none."""

    tag: int
    bodies: list[msgspec.Raw]
    unfit: Refused | None


class _Run:
    """What has arrived on one channel. Its tags mean nothing on another."""

    def __init__(self, link: Link, channel: TwistedChannel, consumer_tag: str) -> None:
        self.link = link
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.arrived: deque[_Arrived] = deque()
        self.documents = 0
        """in all that has arrived"""


class ArchiveWriter:
    """Gathers what has arrived into one write at a time, and acknowledges what is durable.

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
        self._run: _Run | None = None
        self._dead_channel: TwistedChannel | None = None
        self._working: Deferred[None] | None = None
        self._stopping = False
        self._idle: Deferred[None] | None = None
        self._gathering: Deferred[None] | None = None
        self._wrote_at = float("-inf")
        self._pause: Deferred[None] | None = None
        self._failing: str | None = None
        consumer.add_user(self._set_up, self._lost)
        publisher.add_user(self._set_up_dead_letters, self._dead_letters_lost)

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when the archive queue is consumed for the first time. The MongoArchive is started apart."""
        self._working = ensureDeferred(self._work())
        self._working.addErrback(self._work_ended)
        return gatherResults([self._consumer.start(), self._publisher.start()]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Finish and acknowledge the write under way; what else has arrived goes back to the queue."""
        return ensureDeferred(self._stop()).addErrback(
            lambda failure: self.log.failure("archive writer: did not stop in good order", failure)
        )

    def problem(self) -> str | None:
        if self._failing is not None:
            return f"archive writer: {self._failing}"
        return self._consumer.problem()

    async def _stop(self) -> None:
        self._stopping = True
        self._wake()
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
        self._run = run = _Run(link, channel, consumer_tag)
        ensureDeferred(self._consume(run, queue)).addErrback(self._consumer_gone, run)

    def _lost(self) -> None:
        # The broker delivers again, to us or to another, what was not acknowledged.
        self._run = None
        WAITING.set(0)
        self._wake()

    async def _consume(self, run: _Run, queue: Any) -> None:
        while True:
            message = await queue.get()
            arrived = _read(message.method.delivery_tag, message.body)
            run.arrived.append(arrived)
            run.documents += len(arrived.bodies)
            WAITING.set(len(run.arrived))
            if self._idle is not None:
                self._wake_idle()
            elif self._gathering is not None and self._is_enough(run):
                self._wake_gathering()

    def _consumer_gone(self, failure: Failure, run: _Run) -> None:
        # When the channel closed, the link knows. A queue that was deleted leaves it open.
        if failure.check(ConsumerCancelled):
            run.link.drop(f"the broker cancelled the consumer of {ARCHIVE_QUEUE}")
        elif not failure.check(AMQPError):
            run.link.drop(failure)

    # its work

    async def _work(self) -> None:
        while not self._stopping:
            run = self._run
            if run is None or not run.arrived:
                self._idle = Deferred()
                await self._idle
                continue
            await self._let_gather(run)
            if self._run is not run or self._stopping:
                continue
            gathered = self._gather(run)
            if any(arrived.bodies for arrived in gathered):
                self._wrote_at = self._clock.seconds()
            if await self._write(run, gathered) and self._run is run and run.channel.is_open:
                # One write at a time and in order: everything before the last tag is done as well.
                run.channel.basic_ack(gathered[-1].tag, multiple=True)

    def _work_ended(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(CancelledError)):
            self._failing = reason_of(failure)
            self.log.failure("archive writer: stopped working", failure)

    def _is_enough(self, run: _Run) -> bool:
        return len(run.arrived) >= GATHER_ARRIVED or run.documents >= self._batch

    async def _let_gather(self, run: _Run) -> None:
        """Wait for more if the last write was just now."""
        left = self._wrote_at + GATHER_SECONDS - self._clock.seconds()
        if left <= 0 or self._is_enough(run):
            return
        gathering: Deferred[None] = Deferred()
        self._gathering = gathering
        call = self._clock.callLater(left, self._wake_gathering)
        await gathering
        if call.active():
            call.cancel()

    def _gather(self, run: _Run) -> list[_Arrived]:
        """What has arrived, up to the size of a batch; one AMQP message is never divided."""
        gathered = [run.arrived.popleft()]
        documents = len(gathered[0].bodies)
        while run.arrived and documents + len(run.arrived[0].bodies) <= self._batch:
            gathered.append(run.arrived.popleft())
            documents += len(gathered[-1].bodies)
        run.documents -= documents
        WAITING.set(len(run.arrived))
        return gathered

    async def _write(self, run: _Run, gathered: list[_Arrived]) -> bool:
        """True when all of it is durable, in MongoDB or among the dead; False if the channel is lost."""
        bodies = [body for arrived in gathered for body in arrived.bodies]
        refused = [arrived.unfit for arrived in gathered if arrived.unfit is not None]
        # A large message is written in slices, so that a thread's work stays short.
        for start in range(0, len(bodies), self._batch):
            part = bodies[start : start + self._batch]
            failures = 0
            while True:
                try:
                    inserted = await self._archive.insert(part)
                except Unavailable as error:
                    failures += 1
                    RETRIES.inc()
                    self._failed(str(error))
                    await self._back_off(failures)
                    if self._run is not run or self._stopping:
                        return False
                else:
                    break
            BATCH_DOCUMENTS.observe(len(part))
            if TRACE.on:
                TRACE.archived(part, {dead.message_id for dead in inserted.refused})
            refused += inserted.refused
            self._succeeded()
        return not refused or await self._bury(run, refused)

    async def _bury(self, run: _Run, refused: list[Refused]) -> bool:
        """Move documents to the dead-letter queue; True when all of them are confirmed there."""
        for dead in refused:
            failures = 0
            while True:
                try:
                    await self._publish_dead(dead)
                except (AMQPError, Unavailable, TimeoutError) as error:
                    failures += 1
                    self._failed(f"{DEAD_QUEUE}: {reason_of(error)}")
                    await self._back_off(failures)
                    if self._run is not run or self._stopping:
                        return False
                else:
                    break
            DEAD.inc()
            self._succeeded()
            # The reason may quote what somebody wrote: it is in the queue, beside the document, not in a log.
            self.log.error(
                "archive: message {message_id} cannot be written and is in {queue}",
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

    # waiting

    def _failed(self, reason: str) -> None:
        if self._failing is None:
            self.log.warn("archive writer: {reason}; holding what has arrived", reason=reason)
        self._failing = reason

    def _succeeded(self) -> None:
        if self._failing is not None:
            self.log.info("archive writer: writes again")
        self._failing = None

    async def _back_off(self, failures: int) -> None:
        """Wait longer each time, with jitter; ended early by a lost channel and by the stop."""
        if self._stopping:
            return
        delay = min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * _DELAY_FACTOR ** min(failures, 20))
        pause: Deferred[None] = Deferred()
        self._pause = pause
        call = self._clock.callLater(delay * random.uniform(0.5, 1), pause.callback, None)
        await pause
        self._pause = None
        if call.active():
            call.cancel()

    def _wake(self) -> None:
        self._wake_idle()
        self._wake_gathering()
        pause, self._pause = self._pause, None
        if pause is not None and not pause.called:
            pause.callback(None)

    def _wake_gathering(self) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.callback(None)

    def _wake_idle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.callback(None)


def _read(tag: int, body: bytes) -> _Arrived:
    """The messages in an AMQP message's body, undecoded. Never raises."""
    try:
        return _Arrived(tag, _split(body), None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _Arrived(tag, [], Refused(body, "", f"not a JSON array: {error}"))


def _unless_given_up(fire: Any, confirm: Deferred[Any]) -> Any:
    """pika's Deferreds live on after a deadline, and must not fire ours twice."""

    def fire_once(result: Any) -> None:
        if not confirm.called:
            fire(result)

    return fire_once
