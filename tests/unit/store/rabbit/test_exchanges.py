"""`imd.search`: it joins nodes of 0.1 and of this version, or keeps the former out. On a real broker."""

from __future__ import annotations

from pika.exceptions import AMQPError, ChannelClosedByBroker
from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.level import EVENTS, FIRST
from imd.store.rabbit.bus import RabbitBus
from imd.store.rabbit.bus_messages import Replaced, encode
from imd.store.rabbit.connection import RabbitConnection
from tests.support.rabbit import Broker, until
from tests.support.servers import shared


class OldExchangeTests(unittest.TestCase):
    timeout = 300

    async def setUp(self) -> None:
        self.url = shared().amqp_url()
        self.broker = Broker(self.url)
        self.addCleanup(self.broker.close)

    async def new_node(self, level: int, name: str = "new") -> RabbitBus:
        publisher = RabbitConnection(reactor, self.url, "publisher")
        consumer = RabbitConnection(reactor, self.url, "consumer")
        bus = RabbitBus(reactor, publisher, consumer, name, "1")
        if name == "new":
            self.heard: list[list[str]] = []
            self.patch(bus, "_replaced", self.heard.append)
        await bus.start()
        self.addCleanup(bus.stop)
        bus.set_level(level)
        return bus

    def old_node(self) -> str:
        """The queue of a node of 0.1, bound as it binds it. Raises ChannelClosedByBroker if it is refused."""
        channel = self.broker.connection.channel()
        channel.exchange_declare("imd.search", "fanout", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "imd.search", "")
        channel.close()
        return str(queue)

    def is_of(self, kind: str) -> bool:
        try:
            channel = self.broker.connection.channel()
            channel.exchange_declare("imd.search", kind, durable=True)
            channel.close()
        except ChannelClosedByBroker:
            return False
        return True

    def exists(self) -> bool:
        try:
            self.broker.connection.channel().exchange_declare("imd.search", passive=True)
        except AMQPError:
            return False
        return True

    async def test_joined(self) -> None:
        """At the first level each hears the other, once."""
        bus = await self.new_node(FIRST)
        other = await self.new_node(FIRST, "other")
        await until(self.exists, "the exchange of 0.1")
        queue = self.old_node()

        def old_hears() -> list[bytes]:
            bus.send_replaced(["c"])
            got = self.broker.take(queue)
            return [got[1]] if got else []

        await until(old_hears, "joined")
        # The other direction is bound second, by two nodes.
        await until(lambda: not (bus._old._looking or other._old._looking), "joined in both directions")
        self.heard.clear()
        other.send_replaced(["d"])
        wanted = encode(Replaced(other.address, ["d"]))

        def old_hears_the_other() -> bool:
            # Some of those before may still be on their way.
            got = self.broker.take(queue)
            return got is not None and got[1] == wanted

        await until(old_hears_the_other, "a message of the new node at the old one")
        self.broker.channel.basic_publish("imd.search", "", replaced_by_old(["e"]))
        self.broker.channel.basic_publish("imd.search", "", replaced_by_old(["f"]))
        await until(lambda: ["f"] in self.heard, "messages of the old node at the new one")
        self.assertEqual(self.heard.count(["e"]), 1)

    async def test_closed(self) -> None:
        """From level 2 on a node of 0.1 is refused, also on a broker where one was before."""
        self.old_node()
        bus = await self.new_node(EVENTS)
        # While the node deletes it, RabbitMQ accepts and ignores declarations: they prove nothing then.
        await until(lambda: bus._old._looking is None and self.is_of("topic"), "closed")
        refused = self.assertRaises(ChannelClosedByBroker, self.old_node)
        self.assertEqual(refused.reply_code, 406)

    async def test_while_it_is_raised(self) -> None:
        """At the first level an exchange that is closed already stays so, and new nodes hear one another."""
        self.broker.channel.exchange_declare("imd.search", "topic", durable=True)
        bus = await self.new_node(FIRST)
        other = await self.new_node(FIRST, "other")
        bus._old._look()
        await until(lambda: bus._old._looking is None, "the look")
        self.assertTrue(self.is_of("topic"))

        def is_heard() -> bool:
            other.send_replaced(["g"])
            return ["g"] in self.heard

        await until(is_heard, "a message between new nodes")
        self.assertIsNone(bus.problem())

    async def test_changes(self) -> None:
        """Raised: closed. Lowered, when the command has opened it again: joined."""
        bus = await self.new_node(FIRST)
        await until(self.exists, "the exchange of 0.1")
        bus.set_level(EVENTS)
        # As above; and the node's last step, to declare it as closed, must not come between the next ones.
        await until(lambda: bus._old._looking is None and self.is_of("topic"), "closed")
        bus.set_level(FIRST)
        self.broker.channel.exchange_delete("imd.search")
        queue = self.old_node()

        def old_hears() -> bool:
            bus._old._look()
            bus.send_replaced(["c"])
            return self.broker.take(queue) is not None

        await until(old_hears, "joined again")


def replaced_by_old(channels: list[str]) -> bytes:
    return encode(Replaced("old.1", channels))
