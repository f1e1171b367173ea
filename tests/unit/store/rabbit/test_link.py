"""A connection that ends while something waits for its answer, on a real broker."""

from __future__ import annotations

from pika.exceptions import AMQPError
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial import unittest

from imd.store.archiver.dead_letters import DeadLetters
from imd.store.mongo.write import Refused
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link
from tests.support.servers import shared


class LostConnectionTests(unittest.TestCase):
    timeout = 300

    def connect(self) -> tuple[RabbitConnection, Deferred[Link]]:
        connection = RabbitConnection(reactor, shared().amqp_url(), "other")
        self.addCleanup(connection.stop)
        linked: Deferred[Link] = Deferred()

        async def set_up(link: Link) -> None:
            if not linked.called:
                linked.callback(link)

        connection.add_user(set_up, lambda: None)
        return connection, linked

    async def test_a_call(self) -> None:
        """A call on a connection that is aborted fails with an AMQPError, not with one of Twisted's."""
        connection, linked = self.connect()
        await connection.start()
        link = await linked
        channel = await link.channel()
        answer = link.call(channel.queue_declare("none", passive=True), "queue.declare")
        link.drop("a test")
        await self.assertFailure(answer, AMQPError)

    async def test_a_dead_letter(self) -> None:
        """A dead letter whose confirm is cut off fails with an AMQPError: the writer tries it again."""
        connection, linked = self.connect()
        letters = DeadLetters(reactor, connection, 1 << 20)
        await letters.start()
        published = ensureDeferred(letters.publish(Refused(b"{}", "1", "a test")))
        (await linked).drop("a test")
        await self.assertFailure(published, AMQPError)
