"""What a writer has taken from the archive queue, until it is durable."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec
from pika.adapters.twisted_connection import TwistedChannel
from twisted.internet.defer import Deferred

from imd.store.batch_numbers import Mark, read_mark
from imd.store.mongo.write import Refused
from imd.store.rabbit.link import Link

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Arrived(NamedTuple):
    """One AMQP message: the messages in it, or why there are none."""

    tag: int
    bodies: list[msgspec.Raw]
    unfit: Refused | None
    mark: Mark | None = None
    """which batch of which publisher it is"""


class Run:
    """What has arrived on one channel. Its tags mean nothing on another."""

    def __init__(self, link: Link, channel: TwistedChannel, consumer_tag: str) -> None:
        self.link = link
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.arrived: deque[Arrived] = deque()
        self.documents = 0
        """in all that has arrived"""
        self.writes: deque[Write] = deque()
        """not acknowledged yet, in the order of their tags"""


class Write:
    """What goes to MongoDB together, until it is durable or its channel is lost."""

    def __init__(self, run: Run, gathered: list[Arrived]) -> None:
        self.run = run
        self.gathered = gathered
        self.durable = False
        self.failures = 0
        self.reason: str | None = None
        """why it failed last"""
        self.pause: Deferred[None] | None = None

    def end_pause(self) -> None:
        pause, self.pause = self.pause, None
        if pause is not None:
            pause.callback(None)


def read_arrived(tag: int, body: bytes, message_id: object) -> Arrived:
    """The messages in an AMQP message's body, undecoded. Never raises."""
    mark = read_mark(message_id)
    try:
        return Arrived(tag, _split(body), None, mark)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Arrived(tag, [], Refused(body, "", f"not a JSON array: {error}"), mark)
