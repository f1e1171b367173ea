"""Batches as a consumer holds them: from the archive queue until they are durable."""

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


class Batch(NamedTuple):
    """One AMQP message: the messages in it, or why there are none."""

    tag: int
    """its delivery tag"""
    bodies: list[msgspec.Raw]
    unfit: Refused | None
    mark: Mark | None = None
    """its publisher and number"""


class Held:
    """Unacknowledged batches of one channel. A delivery tag means nothing on another channel."""

    def __init__(self, link: Link, channel: TwistedChannel) -> None:
        self.link = link
        self.channel = channel
        self.waiting: deque[Batch] = deque()
        self.documents = 0
        """in all batches that wait"""
        self.writes: deque[Write] = deque()
        """not acknowledged yet, in the order of their tags"""

    def add(self, batch: Batch) -> None:
        self.waiting.append(batch)
        self.documents += len(batch.bodies)

    def gather(self, most_documents: int) -> list[Batch]:
        """Take batches that wait, one at least. A batch is never divided."""
        gathered = [self.waiting.popleft()]
        documents = len(gathered[0].bodies)
        while self.waiting and documents + len(self.waiting[0].bodies) <= most_documents:
            gathered.append(self.waiting.popleft())
            documents += len(gathered[-1].bodies)
        self.documents -= documents
        return gathered

    def durable_up_to(self) -> int | None:
        """Take out the writes that are durable, and have no earlier one that is not; gives their last tag."""
        last = None
        while self.writes and self.writes[0].durable:
            last = self.writes.popleft()
        return None if last is None else last.gathered[-1].tag

    def names(self) -> list[str]:
        """`<publisher>:<number>` of each batch that has a mark."""
        batches = [*self.waiting, *(batch for write in self.writes for batch in write.gathered)]
        return [f"{batch.mark.publisher}:{batch.mark.number}" for batch in batches if batch.mark is not None]


class Write:
    """Batches that are written to MongoDB together."""

    def __init__(self, held: Held, gathered: list[Batch]) -> None:
        self.held = held
        self.gathered = gathered
        self.durable = False
        self.failures = 0
        self.reason: str | None = None
        """why the last try failed"""
        self.pause: Deferred[None] | None = None

    def end_pause(self) -> None:
        pause, self.pause = self.pause, None
        if pause is not None:
            pause.callback(None)


def read_batch(tag: int, body: bytes, message_id: object) -> Batch:
    """An AMQP message's body, its messages undecoded. Never raises."""
    mark = read_mark(message_id)
    try:
        return Batch(tag, _split(body), None, mark)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Batch(tag, [], Refused(body, "", f"not a JSON array: {error}"), mark)
