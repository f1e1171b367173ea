"""The archive queue's publisher: one persistent AMQP message a batch, confirmed, into a quorum queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError
from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.archive import Record
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.protocol.ids import id_in
from imd.store.batch_numbers import Numbers
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link
from imd.store.rabbit.reasons import reason_of
from imd.store.unwritten import Unwritten

ARCHIVE_QUEUE = "imd.archive"
DEAD_QUEUE = "imd.archive.dead"
IN_FLIGHT_BATCHES = 64
IN_FLIGHT_BYTES = 16 << 20
PROBE_SECONDS = 1.0
# A probe publishes an empty batch if the last confirm is older.
IDLE_SECONDS = 5.0
# For the confirm of a stopping node's last batch.
LAST_SECONDS = 1.0
_UNANSWERED = 512
_PRECONDITION_FAILED = 406

CONFIRM_SECONDS = Histogram(
    "imd_archive_confirm_seconds",
    "From the publishing of a batch to the broker's confirm.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_FLIGHT = Gauge("imd_archive_in_flight", f"Batches not yet confirmed, at most {IN_FLIGHT_BATCHES}.")
FAILURES = Counter("imd_archive_publish_failures_total", "Batches that were not confirmed.", ["reason"])

_json = msgspec.json.Encoder().encode
_log = Logger()
_warned: set[str] = set()


def encode_records(records: Sequence[Record]) -> bytes:
    """A JSON array of the records' bodies. `agent`, if there is one, becomes a body's last member."""
    bodies = [record if type(record) is bytes else _with_agent(record) for record in records]
    return b"[%b]" % b",".join(bodies)


def _with_agent(record: Record) -> bytes:
    if isinstance(record, bytes):
        return record
    return b'%b,"agent":%b}' % (record.body[:-1], _json(record.agent)) if record.agent else record.body


def first_id(record: Record) -> str:
    """The id of a message or an event; empty if there is none."""
    return id_in(record if isinstance(record, bytes) else record.body)


async def declare_archive_queues(link: Link, queue_bytes: int) -> None:
    """Declare `imd.archive` and `imd.archive.dead`; one that exists with other arguments is used as it is."""
    # The dead queue second: RabbitMQ may forget the newest quorum queue when it is killed within a second.
    # That queue then comes back empty and never confirms. Making another one writes the name to the file.
    arguments = archive_arguments(link.server_version, queue_bytes)
    await _declare(link, ARCHIVE_QUEUE, arguments, without_dead_letters(arguments))
    await _declare(link, DEAD_QUEUE, dead_arguments())


def archive_arguments(server_version: tuple[int, ...], queue_bytes: int) -> dict[str, Any]:
    """The arguments that a new `imd.archive` is declared with."""
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": queue_bytes,
    }
    if server_version >= (4,):
        # From 4.0 on quorum queues drop messages that were delivered 20 times. Nodes that die often must not
        # lose batches by it.
        arguments["x-delivery-limit"] = -1
    if server_version >= (3, 10):
        # Batches that a policy removes go to the dead queue, and are removed once they are confirmed there.
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = DEAD_QUEUE
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def without_dead_letters(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that older versions declared `imd.archive` with."""
    return {name: value for name, value in arguments.items() if not name.startswith("x-dead-letter-")}


def dead_arguments() -> dict[str, Any]:
    """The arguments that `imd.archive.dead` is declared with."""
    return {"x-queue-type": "quorum"}


async def _declare(link: Link, queue: str, *alternatives: dict[str, Any]) -> None:
    """Declare a queue with the first arguments that the broker accepts. One with others is used as it is."""
    refused: ChannelClosedByBroker | None = None
    for arguments in alternatives:
        # On a channel of its own, since a refused declaration closes the channel.
        channel = await link.channel(vital=False)
        try:
            await link.call(channel.queue_declare(queue, durable=True, arguments=arguments), "queue.declare")
        except ChannelClosedByBroker as error:
            if error.reply_code != _PRECONDITION_FAILED:
                raise
            refused = refused or error
        else:
            channel.close()
            return
    if queue not in _warned and refused is not None:
        _warned.add(queue)
        _log.warn("{queue} exists with other arguments: {reason}", queue=queue, reason=refused.reply_text)
    channel = await link.channel(vital=False)
    await link.call(channel.queue_declare(queue, passive=True), "queue.declare")
    channel.close()


class _Batch:
    """An AMQP message without a confirm yet."""

    __slots__ = ("deadline", "done", "number", "sent_at", "size")

    def __init__(self, size: int, sent_at: float, number: int | None) -> None:
        self.size = size
        self.number = number
        self.sent_at = sent_at
        self.done: Deferred[None] = Deferred()
        self.deadline: Any = None


class RabbitArchiveQueue:
    """The ArchiveQueue, with a breaker: after a failure it takes no batch until the broker confirms a probe.

    The probe is an empty batch. Each new connection begins with one, so that a queue that is full, deleted or
    without a quorum is found by the probe, and not by a message.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        publisher: RabbitConnection,
        *,
        confirm_seconds: float = 5.0,
        queue_bytes: int = 1 << 30,
        numbers: Numbers | None = None,
        unwritten: Unwritten | None = None,
    ) -> None:
        """`numbers`: the marks of batches, by which missing ones are noticed; None for no marks.

        `unwritten` is told of each batch that has a mark.
        """
        self._clock = clock
        self._publisher = publisher
        self._confirm_seconds = confirm_seconds
        self._queue_bytes = queue_bytes
        self._channel: TwistedChannel | None = None
        self._link: Link | None = None
        self._numbers = numbers
        self._unwritten = unwritten
        self._properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
        self._in_flight: dict[_Batch, None] = {}
        self._bytes_in_flight = 0
        self._unanswered = 0
        self._broken: str | None = "new, nothing has been confirmed yet"
        self._ever_failed = False
        self._probe_call: Any = None
        self._probing = False
        self._stopped = False
        self._confirmed_at = float("-inf")
        self._seldom = Seldom(self.log, clock.seconds)
        self._ready: Deferred[None] = Deferred()
        publisher.add_user(self._set_up, self._lost)

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when the broker has confirmed a first probe."""
        self._publisher.start()
        return self._ready

    def stop(self) -> Deferred[None]:
        """Fails all batches that are not confirmed by now. The node has waited for them before."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        if self._numbers is not None and self.problem() is None and len(self._in_flight) < IN_FLIGHT_BATCHES:
            # Its mark tells which of the last batches were confirmed, in case the ledger lacks them.
            last = self._send(b"[]", self._numbers)
            last.addTimeout(LAST_SECONDS, self._clock).addErrback(lambda _: None)
            await last
        self._stopped = True
        if self._probe_call is not None and self._probe_call.active():
            self._probe_call.cancel()
        self._fail_all("stopped", "stopping")
        await self._publisher.stop()

    def problem(self) -> str | None:
        problem = self._publisher.problem()
        if problem is None and self._broken is not None:
            problem = f"RabbitMQ ({ARCHIVE_QUEUE}): {self._broken}"
        return problem

    # from accept

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        problem = self.problem()
        if problem is not None:
            FAILURES.labels("down").inc()
            return fail(Unavailable(problem))
        body = encode_records(records)
        if len(self._in_flight) >= IN_FLIGHT_BATCHES or self._bytes_in_flight + len(body) > IN_FLIGHT_BYTES:
            FAILURES.labels("overload").inc()
            return fail(Unavailable(f"RabbitMQ ({ARCHIVE_QUEUE}): too much is not confirmed yet"))
        return self._send(body, self._numbers if records else None, records)

    def probe(self) -> Deferred[None]:
        """Publishes an empty batch, unless a batch is in flight or was confirmed within IDLE_SECONDS."""
        problem = self.problem()
        if problem is not None:
            return fail(Unavailable(problem))
        if self._in_flight or self._clock.seconds() - self._confirmed_at < IDLE_SECONDS:
            return succeed(None)
        return self._send(b"[]")

    def _send(
        self, body: bytes, numbers: Numbers | None = None, records: Sequence[Record] = ()
    ) -> Deferred[None]:
        channel = self._channel
        if channel is None:
            return fail(Unavailable(self.problem() or "no channel"))
        properties, number = self._properties, None
        if numbers is not None:
            number, message_id = numbers.next()
            if records and self._unwritten is not None:
                self._unwritten.published(number, first_id(records[0]))
            properties = pika.BasicProperties(
                delivery_mode=2, content_type="application/json", message_id=message_id
            )
        batch = _Batch(len(body), self._clock.seconds(), number)
        try:
            confirm = channel.basic_publish("", ARCHIVE_QUEUE, body, properties, mandatory=True)
        except AMQPError as error:
            FAILURES.labels("lost").inc()
            self._note_failed(number)
            return fail(Unavailable(f"RabbitMQ ({ARCHIVE_QUEUE}): {reason_of(error)}"))
        self._unanswered += 1
        self._in_flight[batch] = None
        self._bytes_in_flight += batch.size
        IN_FLIGHT.set(len(self._in_flight))
        batch.deadline = self._clock.callLater(self._confirm_seconds, self._too_late, batch)
        confirm.addCallbacks(self._confirmed, self._refused, callbackArgs=(batch,), errbackArgs=(batch,))
        return batch.done

    # from the broker

    def _confirmed(self, _: object, batch: _Batch) -> None:
        self._unanswered -= 1
        if self._take_out(batch):
            self._confirmed_at = self._clock.seconds()
            CONFIRM_SECONDS.observe(self._confirmed_at - batch.sent_at)
            if batch.number is not None and self._numbers is not None:
                self._numbers.confirmed(batch.number)
            batch.done.callback(None)

    def _refused(self, failure: Failure, batch: _Batch) -> None:
        self._unanswered -= 1
        if failure.check(NackError):
            self._fail(batch, "refused", "full, or without a quorum: refused by the broker")
        else:
            self._fail(batch, "lost", reason_of(failure))

    def _returned(self, _: object) -> None:
        # pika blames the first batch in flight, so it is unknown which one was returned.
        reason = "gone, returned by the broker"
        self._fail_all("returned", reason)
        if self._link is not None:
            # The next connection declares the queue again.
            self._link.drop(f"{ARCHIVE_QUEUE}: {reason}")

    def _too_late(self, batch: _Batch) -> None:
        self._fail(batch, "timeout", f"slow, no confirm within {self._confirm_seconds:g} s")
        if self._unanswered > _UNANSWERED and self._link is not None:
            self._link.drop(f"{self._unanswered} messages were never confirmed")

    def _fail_all(self, label: str, reason: str) -> None:
        for batch in list(self._in_flight):
            self._fail(batch, label, reason)

    def _fail(self, batch: _Batch, label: str, reason: str) -> None:
        if self._take_out(batch):
            FAILURES.labels(label).inc()
            self._note_failed(batch.number)
            # The breaker opens first: the errback may publish again at once.
            self._break(reason)
            batch.done.errback(Unavailable(f"RabbitMQ ({ARCHIVE_QUEUE}): {reason}"))

    def _note_failed(self, number: int | None) -> None:
        if number is not None and self._unwritten is not None:
            self._unwritten.failed(number)

    def _take_out(self, batch: _Batch) -> bool:
        if batch not in self._in_flight:
            return False
        del self._in_flight[batch]
        self._bytes_in_flight -= batch.size
        IN_FLIGHT.set(len(self._in_flight))
        if batch.deadline.active():
            batch.deadline.cancel()
        return True

    # the breaker

    def _break(self, reason: str) -> None:
        if self._broken is None and not self._stopped:
            self._seldom.warn("archive queue: {reason}; refusing until it answers", reason=reason)
            self._ever_failed = True
        self._broken = reason
        self._probe_later()

    def _probe_later(self) -> None:
        waiting = self._probe_call is not None and self._probe_call.active()
        if not (self._stopped or waiting or self._probing):
            self._probe_call = self._clock.callLater(PROBE_SECONDS, self._probe)

    def _probe(self) -> None:
        if self._channel is None or self._stopped or self._probing:
            return
        if self._publisher.blocked:
            self._probe_later()
            return
        if self._probe_call is not None and self._probe_call.active():
            self._probe_call.cancel()
        self._probing = True
        self._send(b"[]").addCallbacks(self._mended, self._still_broken)

    def _mended(self, _: None) -> None:
        self._probing = False
        self._broken = None
        if self._ever_failed:
            self._seldom.info("archive queue: confirms again")
        self._ever_failed = False
        if not self._ready.called:
            self._ready.callback(None)

    def _still_broken(self, failure: Failure) -> None:
        self._probing = False
        self._broken = failure.getErrorMessage().removeprefix(f"RabbitMQ ({ARCHIVE_QUEUE}): ")
        self._probe_later()

    # from the connection

    async def _set_up(self, link: Link) -> None:
        await declare_archive_queues(link, self._queue_bytes)
        channel = await link.channel(confirm=True)
        channel.add_on_return_callback(self._returned)
        self._channel, self._link, self._unanswered = channel, link, 0
        self._probe()

    def _lost(self) -> None:
        self._channel = self._link = None
        self._fail_all("lost", "the connection was lost")
        if self._broken is None:
            self._broken = "new, nothing has been confirmed on this connection yet"
