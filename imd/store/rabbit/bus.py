"""Hints between nodes over RabbitMQ: a fanout exchange for searches, and a queue for each node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any

import msgspec
import pika
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConsumerCancelled
from prometheus_client import Counter
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.bus import Hint
from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.exchanges import ALL_EXCHANGE, NODE_EXCHANGE, OldExchange, declare_exchanges
from imd.store.rabbit.link import Link

QUEUE_LENGTH = 10_000
MESSAGE_BYTES = 512 * 1024
_HINT_OVERHEAD_BYTES = 24
_RESOURCE_LOCKED = 405

PUBLISHED = Counter("imd_bus_published_total", "AMQP messages published to other nodes.", ["kind"])
RECEIVED = Counter("imd_bus_received_total", "AMQP messages received from other nodes.", ["kind"])
DROPPED = Counter(
    "imd_bus_dropped_total", "Hints and answers that were not published or not understood.", ["reason"]
)

# ---- messages: MessagePack arrays whose first element names the kind

_Seq = Annotated[int, msgspec.Meta(ge=0)]
_Group = tuple[bytes | None, list[tuple[str, str, _Seq]]]
"""a message's body, and the channel, epoch and seq of each hint for it"""


class Hints(msgspec.Struct, array_like=True, tag="hints"):
    sender: str
    groups: list[_Group]


class Search(msgspec.Struct, array_like=True, tag="search"):
    sender: str
    groups: list[_Group]


class Found(msgspec.Struct, array_like=True, tag="found"):
    sender: str
    channels: list[str]


class Replaced(msgspec.Struct, array_like=True, tag="replaced"):
    sender: str
    channels: list[str]


class Back(msgspec.Struct, array_like=True, tag="back"):
    """The sender hears again: searches that it did not answer may be repeated."""

    sender: str


class Asking(msgspec.Struct, array_like=True, tag="asking"):
    """The sender gets no answers from Redis, and asks the others whether they do."""

    sender: str


class Well(msgspec.Struct, array_like=True, tag="well"):
    """The sender gets answers from Redis."""

    sender: str


BusMessage = Hints | Search | Found | Replaced | Back | Asking | Well

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(BusMessage).decode


class Malformed(Exception):
    """Bytes on the bus that no node sends."""


def decode(body: bytes) -> BusMessage:
    """A node's message. Raises Malformed for other bytes."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def group_hints(hints: Sequence[Hint]) -> list[_Group]:
    """The hints in their order; neighbours with the same body share one group."""
    return [
        (body, [(hint.channel, hint.epoch, hint.seq) for hint in same])
        for body, same in groupby(hints, key=lambda hint: hint.body)
    ]


def ungroup_hints(groups: Sequence[_Group]) -> list[Hint]:
    """The hints of groups, in their order."""
    return [Hint(channel, epoch, seq, body) for body, same in groups for channel, epoch, seq in same]


def split_hints(hints: list[Hint]) -> Iterator[list[Hint]]:
    """Parts of about MESSAGE_BYTES at most, with one hint at least. Nearly always there is one part."""
    start = size = 0
    body: bytes | None = None
    for index, hint in enumerate(hints):
        added = len(hint.channel) + len(hint.epoch) + _HINT_OVERHEAD_BYTES
        if hint.body is not None and hint.body is not body:
            added += len(hint.body)
        if index > start and size + added > MESSAGE_BYTES:
            yield hints[start:index]
            start, size = index, 0
            added = len(hint.channel) + len(hint.epoch) + _HINT_OVERHEAD_BYTES + len(hint.body or b"")
        body = hint.body
        size += added
    if start < len(hints):
        yield hints[start:]


def _split_channels(channels: list[str]) -> Iterator[list[str]]:
    step = MESSAGE_BYTES // 140
    for start in range(0, len(channels), step):
        yield channels[start : start + step]


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
        self._queue_number = 0
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
        for part in _split_channels(channels):
            self._publish("found", NODE_EXCHANGE, address, Found(self.address, part), len(part))

    def send_replaced(self, channels: list[str]) -> None:
        for part in _split_channels(channels):
            self._publish("replaced", ALL_EXCHANGE, "", Replaced(self.address, part), len(part))

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
        queue = await self._declare_queue(link)
        await link.call(channel.queue_bind(queue, ALL_EXCHANGE, ""), "queue.bind")
        await link.call(channel.queue_bind(queue, NODE_EXCHANGE, self.address), "queue.bind")
        arrived, _ = await link.call(channel.basic_consume(queue, auto_ack=True), "basic.consume")
        ensureDeferred(self._consume(arrived)).addErrback(self._consumer_gone, link, channel)
        self._hearing = True
        self._say_back()

    async def _declare_queue(self, link: Link) -> str:
        """Declare this node's queue; under another name while a dead connection's queue is still locked."""
        arguments = {"x-max-length": QUEUE_LENGTH, "x-overflow": "drop-head"}
        while True:
            name = f"imd.node.{self.address}" + (f".{self._queue_number}" if self._queue_number else "")
            # On a channel of its own, since a refused declaration closes the channel.
            channel = await link.channel(vital=False)
            declared = channel.queue_declare(name, exclusive=True, auto_delete=True, arguments=arguments)
            try:
                await link.call(declared, "queue.declare")
            except ChannelClosedByBroker as refused:
                if refused.reply_code != _RESOURCE_LOCKED:
                    raise
                self._queue_number += 1
            else:
                channel.close()
                return name

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
        except Exception:
            sender = message.sender
            self._seldom.failure("a {kind} message from {sender} failed", Failure(), kind=kind, sender=sender)

    def _count_malformed(self, error: Malformed) -> None:
        DROPPED.labels("malformed").inc()
        self._seldom.warn("a malformed message on the bus: {error}", cause="malformed", error=str(error))


def _ignore(*_: object) -> None:
    """Used until `listen` is called."""
