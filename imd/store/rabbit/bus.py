"""Hints between nodes over RabbitMQ: a fanout exchange for searches, and a queue for each node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ConsumerCancelled
from prometheus_client import Counter
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.bus import Hint, Signal
from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError
from imd.store.rabbit.bus_messages import (
    Asking,
    Back,
    BusMessage,
    Found,
    Hints,
    Looks,
    Malformed,
    Replaced,
    Search,
    Signals,
    Well,
    decode,
    encode,
    group_hints,
    split_channels,
    split_hints,
    split_signals,
    ungroup_hints,
)
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.exchanges import ALL_EXCHANGE, NODE_EXCHANGE, OldExchange, declare_exchanges
from imd.store.rabbit.link import Link
from imd.store.rabbit.own_queue import OwnQueue

QUEUE_LENGTH = 10_000
SIGNALS_LENGTH = 2_000
SIGNALS_TTL_MS = 5_000

PUBLISHED = Counter("imd_bus_published_total", "AMQP messages published to other nodes.", ["kind"])
RECEIVED = Counter("imd_bus_received_total", "AMQP messages received from other nodes.", ["kind"])
DROPPED = Counter(
    "imd_bus_dropped_total", "Hints and answers that were not published or not understood.", ["reason"]
)

class RabbitBus:
    """The Bus over two connections: under an alarm the broker blocks only the one that publishes."""

    log = Logger()

    def __init__(
        self, clock: Any, publisher: RabbitConnection, consumer: RabbitConnection, name: str, boot: str
    ) -> None:
        """`name` and the boot id `boot` form this node's address, the routing key of its queue."""
        self.address = f"{name}.{boot}"
        if len(self.address.encode()) > 200:
            raise ConfigurationError("[node] name: at most about 180 bytes are expected")
        self._clock = clock
        self._publisher = publisher
        self._consumer = consumer
        self._channel: TwistedChannel | None = None
        self._properties = pika.BasicProperties(delivery_mode=1)
        # Signals have a queue of their own: no hint waits behind them, and they push none out.
        self._queue = OwnQueue(f"imd.node.{self.address}", {"x-max-length": QUEUE_LENGTH})
        self._signal_queue = OwnQueue(
            f"imd.signal.{self.address}", {"x-max-length": SIGNALS_LENGTH, "x-message-ttl": SIGNALS_TTL_MS}
        )
        self._stopped = False
        self._seldom = Seldom(self.log, clock.seconds)
        self._hints: Callable[[str, list[Hint]], None] = _ignore
        self._searched: Callable[[str, list[Hint]], None] = _ignore
        self._found: Callable[[str, list[str]], None] = _ignore
        self._replaced: Callable[[list[str]], None] = _ignore
        self._back: Callable[[], None] = _ignore
        self._returned: Callable[[list[str]], None] = _ignore
        self._asked: Callable[[str], None] = _ignore
        self._well: Callable[[str], None] = _ignore
        self._signals: Callable[[list[Signal]], None] = _ignore
        self._looks: Callable[[list[str]], None] = _ignore
        self._hearing = False
        publisher.add_user(self._set_up_publisher, self._publisher_lost)
        # A blocked connection answers no searches.
        publisher.when_freed(self._say_back)
        consumer.add_user(self._set_up_consumer, self._consumer_lost)
        self._old = OldExchange(clock, consumer)

    # from the node

    def listen(
        self,
        hints: Callable[[str, list[Hint]], None],
        searched: Callable[[str, list[Hint]], None],
        found: Callable[[str, list[str]], None],
        replaced: Callable[[list[str]], None],
        back: Callable[[], None],
        returned: Callable[[list[str]], None],
    ) -> None:
        self._hints = hints
        self._searched = searched
        self._found = found
        self._replaced = replaced
        self._back = back
        self._returned = returned

    def listen_health(self, asked: Callable[[str], None], well: Callable[[str], None]) -> None:
        self._asked = asked
        self._well = well

    def listen_signals(
        self, signals: Callable[[list[Signal]], None], looks: Callable[[list[str]], None]
    ) -> None:
        self._signals = signals
        self._looks = looks

    def set_level(self, level: int) -> None:
        """Let nodes of 0.1 in, or keep them out."""
        self._old.set_level(level)

    def start(self) -> Deferred[None]:
        return gatherResults([self._publisher.start(), self._consumer.start()]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self._old.stop()
        return gatherResults(
            [ensureDeferred(self._publisher.stop()), ensureDeferred(self._consumer.stop())]
        ).addCallback(lambda _: None)

    def problem(self) -> str | None:
        if self._publisher.congested:
            return f"RabbitMQ ({self._publisher.name}): slow, it reads too slowly, hints are dropped"
        return self._publisher.problem() or self._consumer.problem()

    # from delivery

    def send_hints(self, address: str, hints: list[Hint]) -> None:
        for part in split_hints(hints):
            self._publish("hints", NODE_EXCHANGE, address, Hints(self.address, group_hints(part)), len(part))

    def search(self, hints: list[Hint]) -> None:
        for part in split_hints(hints):
            self._publish("search", ALL_EXCHANGE, "", Search(self.address, group_hints(part)), len(part))

    def ask(self, address: str, hints: list[Hint]) -> None:
        # A search to one node, so nodes of any version answer it.
        for part in split_hints(hints):
            search = Search(self.address, group_hints(part))
            self._publish("ask", NODE_EXCHANGE, address, search, len(part), mandatory=True)

    def send_found(self, address: str, channels: list[str]) -> None:
        for part in split_channels(channels):
            self._publish("found", NODE_EXCHANGE, address, Found(self.address, part), len(part))

    def send_replaced(self, channels: list[str]) -> None:
        for part in split_channels(channels):
            self._publish("replaced", ALL_EXCHANGE, "", Replaced(self.address, part), len(part))

    # from the outbox of signals

    def has_room(self) -> bool:
        publisher = self._publisher
        return self._channel is not None and not publisher.blocked and not publisher.filling

    def has_room_for_typing(self) -> bool:
        return self.has_room() and not self._publisher.behind

    def send_signals(self, address: str, signals: list[Signal]) -> None:
        for part in split_signals(signals):
            packed = [(signal.kind, signal.payload, signal.channels) for signal in part]
            self._publish("signals", NODE_EXCHANGE, f"{address}.s", Signals(self.address, packed), len(part))

    def send_looks(self, address: str, users: list[str]) -> None:
        for part in split_channels(users):
            self._publish("looks", NODE_EXCHANGE, f"{address}.s", Looks(self.address, part), len(part))

    # from the node's health

    def ask_who_is_well(self, addresses: Sequence[str]) -> None:
        # Not by the fanout: nodes of 0.1 would take the question for a malformed message.
        for address in addresses:
            self._publish("asking", NODE_EXCHANGE, address, Asking(self.address), 1)

    def say_well(self, address: str) -> None:
        self._publish("well", NODE_EXCHANGE, address, Well(self.address), 1)

    def _publish(
        self,
        kind: str,
        exchange: str,
        key: str,
        message: BusMessage,
        count: int,
        *,
        mandatory: bool = False,
    ) -> None:
        """`mandatory`: the broker returns the message if no queue takes it."""
        channel = self._channel
        if channel is None:
            DROPPED.labels("down").inc(count)
        elif self._publisher.blocked:
            DROPPED.labels("blocked").inc(count)
        elif self._publisher.congested:
            DROPPED.labels("congested").inc(count)
        else:
            try:
                channel.basic_publish(exchange, key, encode(message), self._properties, mandatory)
            except AMQPError:
                # The connection is being lost; `_publisher_lost` follows.
                DROPPED.labels("down").inc(count)
            else:
                PUBLISHED.labels(kind).inc()

    # from the connections

    async def _set_up_publisher(self, link: Link) -> None:
        channel = await link.channel()
        await declare_exchanges(link, channel)
        channel.add_on_return_callback(self._came_back)
        self._channel = channel
        self._say_back()

    def _publisher_lost(self) -> None:
        self._channel = None

    def _consumer_lost(self) -> None:
        self._hearing = False

    def _say_back(self) -> None:
        """Once both connections are set up, other nodes search for our channels again, and we for theirs."""
        if self._hearing and self._channel is not None:
            self._publish("back", ALL_EXCHANGE, "", Back(self.address), 1)
            self._back()

    async def _set_up_consumer(self, link: Link) -> None:
        channel = await link.channel()
        await declare_exchanges(link, channel)
        queue = await self._queue.declare(link)
        await link.call(channel.queue_bind(queue, ALL_EXCHANGE, ""), "queue.bind")
        await link.call(channel.queue_bind(queue, NODE_EXCHANGE, self.address), "queue.bind")
        signals = await self._signal_queue.declare(link)
        await link.call(channel.queue_bind(signals, NODE_EXCHANGE, f"{self.address}.s"), "queue.bind")
        for name in (queue, signals):
            arrived, _ = await link.call(channel.basic_consume(name, auto_ack=True), "basic.consume")
            ensureDeferred(self._consume(arrived)).addErrback(self._consumer_gone, link, channel)
        self._hearing = True
        self._say_back()

    # from the broker

    def _came_back(self, message: Any) -> None:
        """A mandatory message had no queue to go to. Never raises, so that it does not end the connection."""
        if self._stopped:
            return
        try:
            search = decode(message.body)
            if isinstance(search, Search):
                self._returned([hint.channel for hint in ungroup_hints(search.groups)])
        except Exception:
            self._seldom.failure("a returned message failed", Failure())

    # from other nodes

    async def _consume(self, arrived: Any) -> None:
        while True:
            message = await arrived.get()
            self._received(message.body)

    def _consumer_gone(self, failure: Failure, link: Link, channel: TwistedChannel) -> None:
        # A closed channel is reported by the link. After the queue was deleted the channel stays open.
        if failure.check(ConsumerCancelled):
            link.drop(f"the broker cancelled the consumer of imd.node.{self.address}")
        elif not failure.check(AMQPError):
            link.drop(failure)

    def _received(self, body: bytes) -> None:
        """Never raises, so that a bad message does not end the connection."""
        if self._stopped:
            return
        try:
            message = decode(body)
        except Malformed as error:
            self._count_malformed(error)
            return
        kind = type(message).__name__.lower()
        RECEIVED.labels(kind).inc()
        if message.sender == self.address:
            return
        try:
            match message:
                case Hints(sender, groups):
                    self._hints(sender, ungroup_hints(groups))
                case Search(sender, groups):
                    self._searched(sender, ungroup_hints(groups))
                case Found(sender, channels):
                    self._found(sender, channels)
                case Replaced(_, channels):
                    self._replaced(channels)
                case Back():
                    self._back()
                case Asking(sender):
                    self._asked(sender)
                case Well(sender):
                    self._well(sender)
                case Signals(_, packed):
                    self._signals([Signal(*one) for one in packed])
                case Looks(_, users):
                    self._looks(users)
        except Exception:
            sender = message.sender
            self._seldom.failure("a {kind} message from {sender} failed", Failure(), kind=kind, sender=sender)

    def _count_malformed(self, error: Malformed) -> None:
        DROPPED.labels("malformed").inc()
        self._seldom.warn("a malformed message on the bus: {error}", cause="malformed", error=str(error))


def _ignore(*_: object) -> None:
    """Used until `listen` is called."""
