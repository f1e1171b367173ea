"""Nodes that are broken on purpose, to see the checker catch them.

`python -m tests.drill.broken NAME <twistd's words>`
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Build(NamedTuple):
    """What is wrong with it, the faults under which it shows, and how the checker calls that."""

    what: str
    faults: str
    caught_as: tuple[str, ...]
    break_it: Callable[[], None]


class _Nobody:
    def message_accepted(self, *_: object) -> None:
        """It has been said before."""

    message_refused = message_accepted


def _accepted_early() -> None:
    from imd.accept import Acceptor, Entry
    from imd.interfaces import Submission

    submit = Acceptor.submit

    def answered_first(self: Acceptor, entry: Entry) -> None:
        if isinstance(entry, Submission):
            entry.origin.message_accepted(entry.client_msg_id, entry.message_id, entry.send_time)
            entry.origin = _Nobody()
        submit(self, entry)

    Acceptor.submit = answered_first  # type: ignore[method-assign]


def _unpublished() -> None:
    from twisted.internet.defer import succeed

    from imd.backends.rabbit_archive_queue import RabbitArchiveQueue

    publish, count = RabbitArchiveQueue.publish, itertools.count(1)

    def now_and_then(self: Any, records: Any) -> Any:
        return publish(self, records) if next(count) % 20 else succeed(None)

    RabbitArchiveQueue.publish = now_and_then  # type: ignore[method-assign]


def _cursor_on_send() -> None:
    from imd.session import Session

    send = Session._send

    def sent_is_had(self: Session, seq: int, body: bytes) -> None:
        send(self, seq, body)
        if self.acknowledges:
            self.acked = seq
            self._store_ack()

    Session._send = sent_is_had  # type: ignore[method-assign]


def _skips_gaps() -> None:
    from imd.session import Session

    hint = Session.hint

    def any_hint(self: Session, epoch: str, seq: int, body: bytes | None) -> bool:
        if body is not None and epoch == self.epoch and seq > self.sent:
            self.known = max(self.known, seq)
            self._send(seq, body)
            return True
        return hint(self, epoch, seq, body)

    Session.hint = any_hint  # type: ignore[method-assign]


def _no_dedup() -> None:
    from imd.backends import redis_inbox

    item = redis_inbox._accept_item
    redis_inbox._accept_item = lambda submission: ("", *item(submission)[1:])


def _no_reset() -> None:
    from imd.session import Session

    def silently(self: Session, epoch: str, seq: int, head: int) -> None:
        self._start_at(epoch, seq, head)

    Session._reset = silently  # type: ignore[method-assign]


def _unordered() -> None:
    from imd.backends.redis_inbox import RedisInbox

    accept = RedisInbox.accept
    RedisInbox.accept = lambda self, batch: accept(self, batch[::-1]).addCallback(  # type: ignore[method-assign]
        lambda outcomes: outcomes[::-1]
    )


def _gives_up() -> None:
    from twisted.python.failure import Failure

    from imd.backends.mongo_archive import MongoArchive
    from imd.backends.mongo_write import Inserted, Refused

    insert = MongoArchive.insert

    def once(self: Any, bodies: Any) -> Any:
        def give_up(failure: Failure) -> Inserted:
            return Inserted(0, 0, [Refused(bytes(body), "", "gave up") for body in bodies])

        return insert(self, bodies).addErrback(give_up)

    MongoArchive.insert = once  # type: ignore[method-assign]


BUILDS = {
    "accepted-early": Build(
        "answers `accepted` before the message is in any inbox",
        "redis-cut",
        ("lost", "not archived"),
        _accepted_early,
    ),
    "unpublished": Build("loses one batch in twenty for the archive", "", ("not archived",), _unpublished),
    "cursor-on-send": Build(
        "takes a message for acknowledged when it is written", "", ("lost", "false alarm"), _cursor_on_send
    ),
    "skips-gaps": Build(
        "pushes a hint although the number before is missing", "rabbit-cut", ("hole",), _skips_gaps
    ),
    "no-dedup": Build("does not know a message again", "rabbit-cut", ("id changed", "twice"), _no_dedup),
    "no-reset": Build(
        "does not tell that an inbox was lost", "redis-flush", ("hole", "repeat", "lost"), _no_reset
    ),
    "unordered": Build("places a batch in the wrong order", "", ("order",), _unordered),
    "gives-up": Build(
        "takes MongoDB's troubles for the documents' fault",
        "mongo-errors",
        ("dead", "not archived"),
        _gives_up,
    ),
}


def main() -> None:
    BUILDS[sys.argv.pop(1)].break_it()
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
