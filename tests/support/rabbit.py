"""For tests on a real RabbitMQ: waiting, looking into queues, and servers that may be harmed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pika
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial import unittest

from tests.support.group_end import at_group_end, group_cache
from tests.support.servers import MongoServer, RabbitServer
from tests.support.servers.process import pauses


async def until(condition: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    """The condition's value as soon as it is true. AssertionError when it still is not after `seconds`."""
    end, turns = time.monotonic() + seconds, pauses()
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        await pause(next(turns))
    return value


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


@group_cache
def breakable() -> RabbitServer:
    """A broker of this process' own that tests may kill, pause and starve, if they leave it well."""
    folder = tempfile.mkdtemp(prefix="imd-rabbit-")
    server = RabbitServer(folder)
    at_group_end(shutil.rmtree, folder, ignore_errors=True)
    at_group_end(server.kill)
    server.start()
    return server


def own_mongo(test: unittest.TestCase, kind: type[MongoServer] = MongoServer) -> MongoServer:
    """A started mongod that the test may kill and pause."""
    server = kind(os.path.abspath(test.mktemp()))
    test.addCleanup(server.kill)
    server.start()
    return server


class Broker:
    """A blocking client of its own, to look at queues and to put things into them. Close it."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        # A test may wait for minutes without it: nobody would answer a heartbeat.
        parameters.heartbeat = 0
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()

    def length(self, queue: str) -> int:
        """How many messages are ready in it."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def take(self, queue: str) -> tuple[pika.BasicProperties, bytes] | None:
        """The next message, taken out; None if there is none."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return None if method is None else (properties, body)

    def put(self, queue: str, body: bytes) -> None:
        self.channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
