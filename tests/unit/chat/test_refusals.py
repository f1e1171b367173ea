"""A refusal says which store is away, and no more than that: no address, no driver's words."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial import unittest

from imd.chat.refusals import refusal_of, told
from imd.contracts.inbox import InboxOptions
from imd.protocol.errors import NOT_FOUND, UNAVAILABLE, Refused, Unavailable
from imd.protocol.ids import ServerClock
from imd.store.embedded.worker import Worker
from imd.store.mongo.archive import MongoArchive
from imd.store.rabbit.archive_queue import RabbitArchiveQueue
from imd.store.rabbit.connection import RabbitConnection
from imd.store.redis.inbox import RedisInbox


class Log:
    """A Seldom that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, str]] = []

    def warn(self, text: str, cause: str = "", **fields: Any) -> None:
        self.lines.append((LogLevel.warn, text.format(**fields)))

    def failure(self, text: str, failure: Failure, **fields: Any) -> None:
        self.lines.append((LogLevel.critical, text))


class RefusalTests(unittest.TestCase):
    def refusal(self, error: Exception, *deadline: float) -> Refused:
        self.log = Log()
        return refusal_of(Failure(error), self.log, "no answer", *deadline)  # type: ignore[arg-type]

    def test_away(self) -> None:
        """The client gets the store's name; the log gets all."""
        for reason, words in (
            ("MongoDB: down (AutoReconnect: db-1.example:27017: closed)", "MongoDB is not available"),
            ("redis: down (Connection was refused by other side: 10.0.0.7)", "Redis is not available"),
            ("RabbitMQ (publish): down (OSError: 10.0.0.8:5672)", "RabbitMQ is not available"),
            ("embedded: full, the disk has no room (/var/lib/imd)", "SQLite is not available"),
            ("rooms: no answer within 2 s", "a store is not available"),
            ("db-1.example:27017: closed", "a store is not available"),
            ("", "a store is not available"),
        ):
            refused = self.refusal(Unavailable(reason))
            self.assertEqual((refused.code, refused.reason), (UNAVAILABLE, words))
            self.assertEqual(refused.retry_after_ms, 1000)
            self.assertEqual(self.log.lines, [(LogLevel.warn, f"no answer: {reason}")])

    def test_unexpected(self) -> None:
        """The text of a mistake is for the log alone."""
        refused = self.refusal(KeyError("db-1.example"))
        self.assertEqual((refused.code, refused.reason), (UNAVAILABLE, "it failed"))
        self.assertEqual(self.log.lines, [(LogLevel.critical, "no answer")])

    def test_own(self) -> None:
        """A refusal stays as it is, and so does a deadline."""
        refused = Refused(NOT_FOUND, "no such room")
        self.assertIs(self.refusal(refused), refused)
        self.assertEqual(self.refusal(CancelledError(), 2.0).reason, "no answer within 2 seconds")
        self.assertEqual(self.log.lines, [])

    def test_stores(self) -> None:
        """Each store's reason begins with its name."""
        clock = Clock()
        stores = {
            "MongoDB": MongoArchive(clock, "mongodb://127.0.0.1:1"),
            "Redis": RedisInbox(clock, "redis://127.0.0.1:1", InboxOptions(), ServerClock()),
            "RabbitMQ": RabbitArchiveQueue(clock, RabbitConnection(clock, "amqp://127.0.0.1:1", "publish")),
            "SQLite": Worker(clock),
        }
        for name, store in stores.items():
            self.assertEqual(told(store.problem() or ""), f"{name} is not available")
