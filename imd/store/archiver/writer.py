"""From the archive queue into MongoDB: gathers batches into few writes, and repeats writes that fail."""

from __future__ import annotations

from typing import Any

from pika.exceptions import AMQPError
from prometheus_client import Counter, Histogram
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol.errors import Unavailable
from imd.store.archiver.batches import Held, Write
from imd.store.archiver.consumer import PREFETCH, Consumer
from imd.store.archiver.dead_letters import DeadLetters
from imd.store.backoff import backoff
from imd.store.batch_numbers import Bits, Mark, add_before, add_number
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.ledger import note
from imd.store.mongo.write import Refused
from imd.store.rabbit.archive_queue import DEAD_QUEUE
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.reasons import reason_of

# A second write keeps MongoDB busy while the first one's answer is read. On a busy machine its share of the
# processor is that of the threads that have work.
WRITES_IN_FLIGHT = 2
# Under load a write waits for more: GATHER_SECONDS from the last write on, for GATHER_BATCHES, or for enough
# documents. A write costs MongoDB, the thread and the reactor more than the documents in it.
GATHER_SECONDS = 0.1
GATHER_BATCHES = PREFETCH // 2
STOP_SECONDS = 5.0
_retry_seconds = backoff(0.1, 10.0, 1.7)

BATCH_DOCUMENTS = Histogram(
    "imd_archive_batch_documents",
    "Documents gathered into one write.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000),
)
DEAD = Counter("imd_archive_dead_total", "Documents and messages moved to the dead-letter queue.")
RETRIES = Counter("imd_archive_write_retries_total", "Writes that failed and are tried again.")


class ArchiveWriter:
    """Competes with the writers of other nodes.

    Nothing is given back to the broker: while MongoDB is down, batches are held and tried again. Documents
    that can never be written go to `imd.archive.dead`.
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
        """`batch`: documents that are written together, at most."""
        self._clock = clock
        self._archive = archive
        self._batch = batch
        self._seldom = Seldom(self.log, clock.seconds)
        self.consumer = Consumer(consumer, queue_bytes, self._arrived, self._end_waits)
        self._dead_letters = DeadLetters(clock, publisher, queue_bytes)
        self._working: Deferred[None] | None = None
        self._stopping = False
        self._waiting: Deferred[None] | None = None
        self._writes: list[Write] = []
        self._wrote_at = float("-inf")
        self._broken: str | None = None

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when the archive queue is consumed for the first time. The node starts the archive."""
        self._working = ensureDeferred(self._work())
        self._working.addErrback(self._work_ended)
        return gatherResults([self.consumer.start(), self._dead_letters.start()]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Finish and acknowledge the writes in flight. Other batches go back to the queue."""
        return ensureDeferred(self._stop()).addErrback(
            lambda failure: self.log.failure("archive writer: did not stop in good order", failure)
        )

    def problem(self) -> str | None:
        reason = self._broken or self._failing()
        return self.consumer.problem() if reason is None else f"archive writer: {reason}"

    async def _stop(self) -> None:
        self._stopping = True
        self._end_waits()
        if self._working is not None and not self._working.called:
            self._working.addTimeout(STOP_SECONDS, self._clock, onTimeoutCancel=lambda *_: None)
            await self._working
        await gatherResults([ensureDeferred(self.consumer.stop()), ensureDeferred(self._dead_letters.stop())])

    # from the consumer

    def _arrived(self, held: Held) -> None:
        if len(held.waiting) == 1 or self._is_enough(held):
            self._wake()

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
        """How long to wait for more batches; None while there is nothing to write, or no room for a write."""
        held = self.consumer.held
        if held is None or not held.waiting or len(self._writes) >= WRITES_IN_FLIGHT:
            return None
        if self._is_enough(held):
            return 0
        # Beside a write in flight, a second one has to be worth it.
        return None if self._writes else self._wrote_at + GATHER_SECONDS - self._clock.seconds()

    def _is_enough(self, held: Held) -> bool:
        return len(held.waiting) >= GATHER_BATCHES or held.documents >= self._batch

    def _begin_write(self) -> None:
        write = self.consumer.gather(self._batch)
        if any(batch.bodies for batch in write.gathered):
            self._wrote_at = self._clock.seconds()
        self._writes.append(write)
        ensureDeferred(self._write(write)).addCallback(self._written, write).addErrback(
            self._work_ended
        ).addBoth(self._write_ended, write)

    def _written(self, durable: bool, write: Write) -> None:
        write.durable = durable
        self.consumer.acknowledge(write.held)

    def _write_ended(self, _: None, write: Write) -> None:
        self._writes.remove(write)
        self._wake()

    async def _write(self, write: Write) -> bool:
        """True once all of it is durable, in MongoDB or as dead letters; False if the channel is lost."""
        bodies = [body for batch in write.gathered for body in batch.bodies]
        refused = [batch.unfit for batch in write.gathered if batch.unfit is not None]
        # A large batch is written in slices, so that a thread's work stays short.
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
        marks = [batch.mark for batch in write.gathered if batch.mark is not None]
        return not marks or await self._note(write, marks)

    async def _note(self, write: Write, marks: list[Mark]) -> bool:
        """Note in the ledger what is durable. Not after the acknowledgement: a crash would lose the note."""
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
            self._seldom.warn("archive writer: MongoDB permits no ledger; missing batches are not noticed")
        return True

    async def _bury(self, write: Write, refused: list[Refused]) -> bool:
        """Move documents to the dead-letter queue; True when all of them are confirmed there."""
        for dead in refused:
            while True:
                try:
                    await self._dead_letters.publish(dead)
                except (AMQPError, Unavailable, TimeoutError) as error:
                    if not await self._try_again(write, f"{DEAD_QUEUE}: {reason_of(error)}"):
                        return False
                else:
                    break
            DEAD.inc()
            self._succeeded(write)
            # The reason may quote a message, so it goes into the queue and not into the log.
            self._seldom.error(
                "archive: message {message_id} cannot be written and is in {queue}",
                cause="dead",
                message_id=dead.message_id or "without an id",
                queue=DEAD_QUEUE,
            )
        return True

    # failures

    def _failing(self) -> str | None:
        """Why a write in flight failed last; None if none has."""
        return next((write.reason for write in self._writes if write.reason is not None), None)

    def _succeeded(self, write: Write) -> None:
        write.failures = 0
        if write.reason is not None:
            write.reason = None
            if self._failing() is None:
                self._seldom.info("archive writer: writes again")

    async def _try_again(self, write: Write, reason: str) -> bool:
        """Wait before the next try. False if there will be none: the channel is lost, or the writer stops."""
        if self._failing() is None:
            self._seldom.warn("archive writer: {reason}; holding the batches at hand", reason=reason)
        write.reason = reason
        write.failures += 1
        if self._is_of_use(write):
            write.pause = pause = Deferred[None]()
            # A lost channel and the stop end the pause early.
            call = self._clock.callLater(_retry_seconds(write.failures), write.end_pause)
            await pause
            if call.active():
                call.cancel()
        return self._is_of_use(write)

    def _is_of_use(self, write: Write) -> bool:
        return self.consumer.held is write.held and not self._stopping

    # waiting

    async def _wait(self, seconds: float | None) -> None:
        """Wait until something has changed, or for `seconds`."""
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
