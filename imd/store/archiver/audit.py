"""The audit: every few seconds it compares the confirmed batches with the written ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from prometheus_client import Counter
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.store.archiver.consumer import PREFETCH
from imd.store.archiver.writer import ArchiveWriter
from imd.store.batch_numbers import (
    BLOCK,
    Bits,
    Numbers,
    add_number,
    numbers_of,
    publisher_name,
    ranges,
)
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.ledger import (
    FRESH_SECONDS,
    Block,
    Ledger,
    close_blocks,
    mark_missing,
    note,
    read_done,
    read_ledger,
    say_gone,
    say_held,
)
from imd.store.unwritten import Unwritten

ROUND_SECONDS = 3.0
MISSING_SECONDS = 60.0
# RabbitMQ takes batches back from a consumer that has not acknowledged them for 30 minutes.
STRANGER_SECONDS = 1900.0
OVER_SECONDS = 86_400.0
STOP_SECONDS = 1.0

MISSING = Counter("imd_archive_missing_total", "Confirmed batches that never came out of the archive queue.")


class Suspicions:
    """Numbers that are confirmed, not written and listed by no consumer, and since when.

    A stranger is a consumer that lists nothing. It may be a node that hangs, and hold PREFETCH batches. So
    many numbers are waited for until RabbitMQ has taken them back. More were taken by something else, most
    likely the strangers: nothing of these is waited for again, until one of them goes.
    """

    def __init__(self) -> None:
        self._then: float | None = None
        self._time = 0.0
        self._since: dict[tuple[str, int], list[tuple[float, int]]] = {}
        self._strangers: list[tuple[float, int]] = []
        """how many there were at the looks of the last minute"""
        self._most = 0
        """of these"""
        self._takers = 0
        """strangers that take batches"""

    def clear(self) -> None:
        """Begin anew, after a look that could not be made."""
        self._then = None
        self._since.clear()

    def look(self, now: float, blocks: list[Block], held: Bits, *, empty: bool, strangers: int = 0) -> Bits:
        """The numbers that are missing. `empty`: the archive queue is empty."""
        # After a pause of this process only part of the time counts: consumers may have paused as well.
        self._time += 0.0 if self._then is None else min(now - self._then, 3 * ROUND_SECONDS)
        self._then = now
        highest: dict[str, int] = {}
        for block in blocks:
            if block.written:
                last = block.number * BLOCK + block.written.bit_length() - 1
                highest[block.publisher] = max(last, highest.get(block.publisher, 0))
        since, self._since = self._since, {}
        for block in blocks:
            key = block.publisher, block.number
            suspect = block.confirmed & ~block.written & ~block.missing & ~held.get(key, 0)
            if not empty:
                # Later numbers may still be in the queue.
                written = highest.get(block.publisher, 0) - block.number * BLOCK
                suspect &= (1 << max(0, written)) - 1
            if suspect:
                self._since[key] = _still(since.get(key, []), suspect, self._time)
        self._note_strangers(strangers)
        overdue = self._suspect_for(MISSING_SECONDS)
        if _count(overdue) <= PREFETCH * (self._most - self._takers):
            overdue = self._suspect_for(STRANGER_SECONDS)
        if overdue:
            self._takers = self._most
        return overdue

    def staying(self) -> int:
        """Strangers that have been there for longer than a node takes to list what it holds."""
        if not self._strangers or self._time - self._strangers[0][0] < FRESH_SECONDS:
            return 0
        return min(count for then, count in self._strangers if self._time - then <= FRESH_SECONDS)

    def _note_strangers(self, count: int) -> None:
        # One that goes still counts for a minute: what it held is in the queue again.
        self._strangers = [one for one in self._strangers if self._time - one[0] <= MISSING_SECONDS]
        self._strangers.append((self._time, count))
        before, self._most = self._most, max(count for _, count in self._strangers)
        if self._most < before:
            # Nothing tells which one has gone.
            self._takers = 0

    def _suspect_for(self, seconds: float) -> Bits:
        found: Bits = {}
        for key, spells in self._since.items():
            for began, bits in spells:
                if self._time - began >= seconds:
                    found[key] = found.get(key, 0) | bits
        return found


def _count(bits: Bits) -> int:
    return sum(word.bit_count() for word in bits.values())


def _still(spells: list[tuple[float, int]], suspect: int, time: float) -> list[tuple[float, int]]:
    """The suspect numbers by the time at which they became suspect."""
    kept = [(began, bits & suspect) for began, bits in spells if bits & suspect]
    for _, bits in kept:
        suspect &= ~bits
    return [*kept, (time, suspect)] if suspect else kept


class ArchiveAudit:
    """Notes this node's confirmed batches in the ledger. With a writer, it also looks for missing ones.

    A batch that a consumer holds is not missing. Writers list the batches that they hold in the ledger. The
    queue's other consumers are strangers: see Suspicions. One that stays is a warning at once.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        archive: MongoArchive,
        numbers: Numbers,
        writer: ArchiveWriter | None,
        unwritten: Unwritten | None = None,
    ) -> None:
        """`unwritten` is told which of this node's batches are written."""
        self._clock = clock
        self._archive = archive
        self._numbers = numbers
        self._writer = writer
        self._unwritten = unwritten
        self._waiting: frozenset[str] = frozenset()
        self._seldom = Seldom(self.log, clock.seconds)
        self._suspicions = Suspicions()
        self._stopping = False
        self._pause: Deferred[None] | None = None
        self._working: Deferred[None] | None = None

    # from the node

    def start(self) -> Deferred[None]:
        """Fires at once. The MongoArchive and the writer are started elsewhere."""
        self._working = ensureDeferred(self._work())
        self._working.addErrback(self._work_ended)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return ensureDeferred(self._stop()).addErrback(
            lambda failure: self.log.failure("archive audit: did not stop in good order", failure)
        )

    def problem(self) -> str | None:
        """Always None: messages do not depend on the audit."""
        return None

    # Progress

    def oldest_ms(self) -> int | None:
        return None if self._unwritten is None else self._unwritten.oldest_ms()

    def waiting(self) -> Collection[str]:
        """Known only with a writer: the other nodes' words tell of it, too."""
        return self._waiting

    def name_of(self, bus: str) -> str:
        return publisher_name(bus)

    async def _stop(self) -> None:
        self._stopping = True
        if self._pause is not None and not self._pause.called:
            self._pause.callback(None)
        working = self._working
        if working is not None and not working.called:
            working.addTimeout(STOP_SECONDS, self._clock, onTimeoutCancel=lambda *_: None)
            await working
        if self._archive.problem() is not None:
            return
        leave = ensureDeferred(self._leave())
        leave.addTimeout(STOP_SECONDS, self._clock, onTimeoutCancel=lambda *_: None)
        await leave

    async def _leave(self) -> None:
        try:
            await self._tell()
            if self._writer is not None:
                await self._archive.run(say_gone, self._numbers.publisher)
        except Unavailable as error:
            self._seldom.warn("archive audit: {reason}", reason=str(error))

    # its work

    async def _work(self) -> None:
        while not self._stopping:
            try:
                await self._tell()
                await self._look_after_own()
                if self._writer is not None:
                    await self._look(self._writer)
            except Unavailable:
                # MongoArchive has logged it.
                self._suspicions.clear()
            except CancelledError:
                raise
            except Exception:
                self._suspicions.clear()
                self._seldom.failure("archive audit: a look failed", Failure())
            if not self._stopping:
                self._pause = pause = Deferred[None]()
                call = self._clock.callLater(ROUND_SECONDS, pause.callback, None)
                await pause
                if call.active():
                    call.cancel()

    def _work_ended(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(CancelledError)):
            self.log.failure("archive audit: stopped working", failure)

    async def _tell(self) -> None:
        untold = self._numbers.take_untold()
        if not untold:
            return
        try:
            permitted = await self._archive.run(note, untold, {}, own=True)
        except BaseException:
            self._numbers.give_back(untold)
            raise
        if not permitted:
            self._seldom.warn("archive audit: MongoDB permits no ledger; missing batches are not noticed")

    async def _look_after_own(self) -> None:
        if self._unwritten is not None and (blocks := self._unwritten.blocks()):
            self._unwritten.noted(await self._archive.run(read_done, self._numbers.publisher, blocks))

    async def _look(self, writer: ArchiveWriter) -> None:
        if writer.consumer.held is None:
            # This writer is no consumer: with a list it would make up for a stranger.
            await self._archive.run(say_gone, self._numbers.publisher)
            self._suspicions.clear()
            return
        await self._archive.run(say_held, self._numbers.publisher, writer.consumer.holding())
        queue = await writer.consumer.queue_state()
        if queue is None:
            self._suspicions.clear()
            return
        waiting, consumers = queue
        ledger: Ledger = await self._archive.run(read_ledger)
        self._waiting = frozenset(
            block.publisher for block in ledger.blocks if block.confirmed & ~block.written & ~block.missing
        )
        held: Bits = {}
        for name in (name for holding in ledger.holding for name in holding):
            publisher, _, number = name.rpartition(":")
            add_number(held, publisher, int(number))
        strangers = max(0, consumers - len(ledger.holding))
        overdue = self._suspicions.look(
            self._clock.seconds(), ledger.blocks, held, empty=not waiting, strangers=strangers
        )
        self._warn_of_strangers()
        if overdue:
            self._report(await self._archive.run(mark_missing, overdue))
        over = over_blocks(ledger.blocks, quiet=not waiting and not held)
        if over:
            await self._archive.run(close_blocks, over)

    def _warn_of_strangers(self) -> None:
        staying = self._suspicions.staying()
        # Nodes of 0.1 list nothing.
        if staying and self._numbers.collects:
            self._seldom.warn(
                "archive: {count} consumers of imd.archive list nothing in the ledger: nodes that hang or do "
                "not reach MongoDB, or another program. Batches that a program takes are missing in the "
                "archive",
                count=staying,
            )

    def _report(self, newly: Bits) -> None:
        found: dict[str, list[int]] = {}
        for (publisher, block), bits in sorted(newly.items()):
            found.setdefault(publisher, []).extend(numbers_of(block, bits))
        for publisher, numbers in found.items():
            MISSING.inc(len(numbers))
            self.log.error(
                "archive: {count} batches of {publisher} were confirmed by RabbitMQ and never came out of "
                "imd.archive ({numbers}): their messages are missing in the archive. Is there a policy on "
                "the queue, was it purged or deleted, or does something else consume it?",
                count=len(numbers),
                publisher=publisher,
                numbers=ranges(numbers),
            )


def over_blocks(blocks: list[Block], *, quiet: bool) -> list[Block]:
    """Blocks that get no more bits. `quiet`: the queue is empty, and no consumer holds a batch."""
    highest: dict[str, int] = {}
    for block in blocks:
        highest[block.publisher] = max(block.number, highest.get(block.publisher, 0))
    return [
        block
        for block in blocks
        if not block.confirmed & ~block.written & ~block.missing
        and (block.number + 2 <= highest[block.publisher] or (quiet and block.idle_seconds > OVER_SECONDS))
    ]
