"""A Redis that accepts connections and cannot be used: it loads its file, or dies meanwhile."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial import unittest

from imd.store.redis.connection import RedisConnection
from tests.support.rabbit import until


class UselessRedis(Protocol):
    """Counts its connections and their requests."""

    factory: UselessFactory

    def connectionMade(self) -> None:
        self.factory.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self.factory.questions += 1
        if self.factory.answer is None:
            self.transport.abortConnection()
        else:
            self.transport.write(self.factory.answer)


class UselessFactory(Factory):
    protocol = UselessRedis
    connections = 0
    questions = 0
    answer: bytes | None = None


class UselessRedisTests(unittest.TestCase):
    """Trial fails a test that logs an error, so no test asserts that."""

    timeout = 300

    def setUp(self) -> None:
        self.factory = UselessFactory()
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.redis = RedisConnection(reactor, f"redis://127.0.0.1:{port.getHost().port}/0", "test", 5)

    async def comes_back(self) -> None:
        self.redis.start()
        await until(lambda: self.factory.connections >= 4, "the fourth connection")
        self.assertIsNotNone(self.redis.problem())
        await self.redis.stop()

    async def test_loading(self) -> None:
        self.factory.answer = b"-LOADING Redis is loading the dataset in memory\r\n"
        await self.comes_back()

    async def test_lost_while_it_is_asked(self) -> None:
        await self.comes_back()

    async def test_stopped_while_it_is_asked(self) -> None:
        self.factory.answer = b""
        self.redis.start()
        await until(lambda: self.factory.questions, "a question")
        await self.redis.stop()
