"""The dead-letter queue: documents that MongoDB will never take, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import UnroutableError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.store.mongo.write import Refused
from imd.store.rabbit.archive_queue import DEAD_QUEUE, declare_archive_queues
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link, as_amqp_error

CONFIRM_SECONDS = 10.0
REASON_HEADER = "x-imd-reason"
_MAX_REASON = 500


class DeadLetters:
    """Publishes to the dead-letter queue, over a connection that does not consume.

    Under an alarm the broker stops reading from connections that have published, acknowledgements included.
    A queue that somebody has deleted is declared again by the dead letter that the broker returns. The
    connection stays: the bus and the archive queue use it as well.
    """

    log = Logger()

    def __init__(self, clock: Any, connection: RabbitConnection, queue_bytes: int) -> None:
        self._clock = clock
        self._connection = connection
        self._queue_bytes = queue_bytes
        self._seldom = Seldom(self.log, clock.seconds)
        self._link: Link | None = None
        self._channel: TwistedChannel | None = None
        self._in_flight: set[Deferred[Any]] = set()
        connection.add_user(self._set_up, self._lost)

    def start(self) -> Deferred[None]:
        return self._connection.start()

    async def stop(self) -> None:
        await self._connection.stop()

    async def publish(self, dead: Refused) -> None:
        """Returns when the broker has confirmed it. Raises AMQPError, Unavailable or TimeoutError."""
        try:
            await self._publish(dead)
        except UnroutableError:
            await self._make_queue()
            await self._publish(dead)

    async def _publish(self, dead: Refused) -> None:
        channel = self._channel
        if channel is None or self._connection.blocked:
            raise Unavailable(self._connection.problem() or "not connected")
        properties = pika.BasicProperties(
            delivery_mode=2,
            content_type="application/json",
            headers={REASON_HEADER: dead.reason[:_MAX_REASON], "x-imd-message-id": dead.message_id},
        )
        confirm: Deferred[Any] = Deferred()
        channel.basic_publish("", DEAD_QUEUE, dead.body, properties, mandatory=True).addCallbacks(
            _unless_fired(confirm.callback, confirm), _unless_fired(confirm.errback, confirm)
        )

        def too_late(_: object, seconds: float) -> None:
            raise TimeoutError(f"no confirm within {seconds:g} s")

        self._in_flight.add(confirm)
        try:
            await confirm.addErrback(as_amqp_error).addTimeout(
                CONFIRM_SECONDS, self._clock, onTimeoutCancel=too_late
            )
        finally:
            self._in_flight.remove(confirm)

    async def _make_queue(self) -> None:
        if self._link is None:
            raise Unavailable(self._connection.problem() or "not connected")
        self._seldom.warn(
            "archive: {queue} was gone, with all dead letters in it, and is declared again. "
            "Was it deleted, or is there a policy with expires?",
            queue=DEAD_QUEUE,
        )
        await declare_archive_queues(self._link, self._queue_bytes)

    # from the connection

    async def _set_up(self, link: Link) -> None:
        await declare_archive_queues(link, self._queue_bytes)
        channel = await link.channel(confirm=True)
        channel.add_on_return_callback(self._returned)
        self._channel, self._link = channel, link

    def _lost(self) -> None:
        self._channel = self._link = None

    def _returned(self, message: Any) -> None:
        # pika may blame another one in flight, and take the returned one for confirmed: none of them counts.
        for confirm in list(self._in_flight):
            if not confirm.called:
                confirm.errback(UnroutableError([message]))


def _unless_fired(fire: Callable[[Any], None], confirm: Deferred[Any]) -> Callable[[Any], None]:
    """pika's Deferred outlives our deadline, and must not fire ours a second time."""

    def fire_once(result: Any) -> None:
        if not confirm.called:
            fire(result)

    return fire_once
