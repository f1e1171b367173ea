"""Nodes that are broken on purpose, to see the checker catch them.

    python -m tests.tools.drill.broken NAME[+NAME...] NOTES <twistd's words>

NOTES-NAME is a file that grows by one byte each time that the sabotage takes place.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tests.tools.drill.broken_events import EVENT_BUILDS
from tests.tools.drill.broken_state import STATE_BUILDS
from tests.tools.drill.build import Build
from tests.tools.drill.seams import Did, Gone, Seams, noted_in

# So long a build keeps messages that it has answered.
HELD_SECONDS = 2.0


class _Nobody:
    def message_accepted(self, *_: object) -> None:
        """It has been said before."""

    message_refused = message_accepted


def _accepted_early(seams: Seams) -> None:
    from imd.chat.accept import Acceptor, Sender
    from imd.contracts.inbox import Submission

    seams.attributes(Submission, "origin", "client_msg_id", "message_id", "send_time")
    seams.expect(Sender, "message_accepted", "self, client_msg_id, message_id, send_time")

    def make(submit: Callable[..., None], did: Did) -> Callable[..., None]:
        def answered_first(self: Acceptor, entry: Any) -> None:
            if isinstance(entry, Submission):
                entry.origin.message_accepted(entry.client_msg_id, entry.message_id, entry.send_time)
                entry.origin = _Nobody()
                did()
            submit(self, entry)

        return answered_first

    seams.replace(Acceptor, "submit", "self, entry", make)


def _unpublished(seams: Seams) -> None:
    from twisted.internet.defer import succeed

    from imd.store.rabbit.archive_queue import RabbitArchiveQueue

    count = itertools.count(1)

    def make(publish: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def now_and_then(self: Any, records: Sequence[Any]) -> Any:
            if next(count) % 10:
                return publish(self, records)
            did()
            return succeed(None)

        return now_and_then

    seams.replace(RabbitArchiveQueue, "publish", "self, records", make)


def _cursor_on_send(seams: Seams) -> None:
    from imd.chat.session import Session

    seams.attributes(Session, "acknowledges", "sent", "epoch")
    seams.expect(Session, "acknowledge", "self, seq, epoch")

    def make(hint: Callable[..., bool], did: Did) -> Callable[..., bool]:
        def sent_is_had(self: Session, epoch: str, seq: int, body: bytes | None) -> bool:
            pushed = hint(self, epoch, seq, body)
            if pushed and self.acknowledges:
                self.acknowledge(self.sent, self.epoch)
                did()
            return pushed

        return sent_is_had

    seams.replace(Session, "hint", "self, epoch, seq, body", make)


def _skips_gaps(seams: Seams) -> None:
    from imd.chat.session import Session

    seams.attributes(Session, "sent", "epoch")

    def make(hint: Callable[..., bool], did: Did) -> Callable[..., bool]:
        def any_hint(self: Session, epoch: str, seq: int, body: bytes | None) -> bool:
            sent = self.sent
            skips = body is not None and epoch == self.epoch and seq > sent + 1
            if skips:
                self.sent = seq - 1
            pushed = hint(self, epoch, seq, body)
            if skips and pushed:
                did()
            elif skips and self.sent == seq - 1:
                self.sent = sent
            return pushed

        return any_hint

    seams.replace(Session, "hint", "self, epoch, seq, body", make)


def _no_dedup(seams: Seams) -> None:
    import msgspec

    from imd.contracts.inbox import Submission
    from imd.store.redis.inbox import RedisInbox

    seams.attributes(Submission, "client_msg_id")

    def make(accept: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def nameless(self: Any, batch: Sequence[Submission]) -> Any:
            for submission in batch:
                if submission.client_msg_id is not None:
                    did()
            return accept(self, [msgspec.structs.replace(one, client_msg_id=None) for one in batch])

        return nameless

    seams.replace(RedisInbox, "accept", "self, batch", make)


class _Unreset:
    """The outlet of a session, through which no `reset` gets."""

    def __init__(self, outlet: Any, did: Did) -> None:
        self._outlet = outlet
        self._did = did

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outlet, name)

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        if payload.startswith(b'{"type":"reset"'):
            self._did()
        else:
            self._outlet.send(payload, rest)


def _no_reset(seams: Seams) -> None:
    from imd.chat.outlet import Outlet
    from imd.chat.session import Session
    from imd.contracts.inbox import Registered
    from imd.store.redis.inbox import RedisInbox

    seams.attributes(Registered, "recovered")
    seams.expect(Outlet, "send", "self, payload, rest")

    def make_connect(connect: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def silent(outcome: Any) -> Any:
            if isinstance(outcome, Registered) and not outcome.recovered:
                did()
                return outcome._replace(recovered=True)
            return outcome

        return lambda self, request: connect(self, request).addCallback(silent)

    def make_session(init: Callable[..., None], did: Did) -> Callable[..., None]:
        def with_outlet(self: Session, inbox: Any, outlet: Any, request: Any, **others: Any) -> None:
            init(self, inbox, _Unreset(outlet, did), request, **others)

        return with_outlet

    seams.replace(RedisInbox, "connect", "self, request", make_connect)
    seams.replace(Session, "__init__", "self, inbox, outlet, request, acknowledges, window", make_session)


def _unordered(seams: Seams) -> None:
    from imd.store.redis.inbox import RedisInbox

    def make(accept: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def backwards(self: Any, batch: Sequence[Any]) -> Any:
            if len(batch) > 1:
                did()
            return accept(self, batch[::-1]).addCallback(lambda outcomes: outcomes[::-1])

        return backwards

    seams.replace(RedisInbox, "accept", "self, batch", make)


def _gives_up(seams: Seams) -> None:
    from twisted.python.failure import Failure

    from imd.store.mongo.archive import MongoArchive
    from imd.store.mongo.write import Inserted, Refused

    seams.attributes(Inserted, "written", "duplicates", "refused")
    seams.attributes(Refused, "body", "message_id", "reason")

    def make(insert: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def once(self: Any, bodies: Sequence[Any]) -> Any:
            def give_up(failure: Failure) -> Inserted:
                did()
                return Inserted(0, 0, [Refused(bytes(body), "", "gave up") for body in bodies])

            return insert(self, bodies).addErrback(give_up)

        return once

    seams.replace(MongoArchive, "insert", "self, bodies", make)


def _ends_at_once(seams: Seams) -> None:
    from twisted.internet import reactor

    from imd.chat.accept import Acceptor
    from imd.contracts.inbox import Submission
    from imd.node.stop import Stop

    seams.attributes(Submission, "origin", "client_msg_id", "message_id", "send_time")

    def make_submit(submit: Callable[..., None], _: Did) -> Callable[..., None]:
        def later(self: Acceptor, entry: Any) -> None:
            if isinstance(entry, Submission):
                entry.origin.message_accepted(entry.client_msg_id, entry.message_id, entry.send_time)
                entry.origin = _Nobody()
            reactor.callLater(HELD_SECONDS, submit, self, entry)  # type: ignore[attr-defined]

        return later

    def make_run(_: Callable[..., Any], did: Did) -> Callable[..., Any]:
        async def end(self: Stop, factory: Any) -> None:
            did()
            os._exit(0)

        return end

    seams.replace(Acceptor, "submit", "self, entry", make_submit)
    seams.replace(Stop, "run", "self, factory", make_run)


# An archive that lacks a message shows in what is read back, and in who takes part in it.
_UNARCHIVED = frozenset({"not archived", "history", "participants"})
# A change of such a message is sent again until the end; the last time comes too late for an answer.
_NEVER = frozenset({"never accepted", "unanswered"})

BUILDS = {
    "accepted-early": Build(
        "answers `accepted` before the message is in any inbox",
        "rabbit-hang",
        "lost",
        # A client that has its answer goes on elsewhere, while the message still waits at the first node.
        _UNARCHIVED
        | {"id changed", "answers", "never accepted", "unanswered", "order", "view", "stale", "newcomer"},
        _accepted_early,
    ),
    "unpublished": Build(
        "loses one batch in ten for the archive",
        "clients-vanish",
        "not archived",
        (_UNARCHIVED | _NEVER | {"view"}) - {"not archived"},
        _unpublished,
    ),
    "cursor-on-send": Build(
        "takes a message for acknowledged when it is written",
        "clients-vanish",
        "cursor",
        frozenset({"lost", "false alarm", "view"}),
        _cursor_on_send,
    ),
    "skips-gaps": Build(
        "pushes a hint although the number before is missing",
        "rabbit-hang",
        "hole",
        frozenset({"lost", "order", "view"}),
        _skips_gaps,
    ),
    "no-dedup": Build(
        "does not know a message again",
        "rabbit-hang",
        "twice",
        frozenset({"archived twice", "id changed", "answered anew", "stale", "newcomer"}),
        _no_dedup,
    ),
    "no-reset": Build(
        "does not tell that an inbox was lost",
        "redis-flush",
        "lost",
        frozenset({"cursor", "hole", "repeat", "number reused", "view"}),
        _no_reset,
    ),
    "unordered": Build(
        "places a batch in the wrong order", "clients-vanish", "order", frozenset(), _unordered
    ),
    "gives-up": Build(
        "takes MongoDB's troubles for the documents' fault",
        "mongo-errors",
        "dead",
        # A message may be written, and its conversation not.
        _UNARCHIVED | _NEVER | {"shown", "view", "changes", "recalled text", "badge"},
        _gives_up,
    ),
    **EVENT_BUILDS,
    **STATE_BUILDS,
}

ROLLING_BUILDS = {
    "ends-at-once": Build(
        "answers `accepted` two seconds early, and ends on SIGTERM without a drain",
        "rolling",
        "lost",
        frozenset(),
        _ends_at_once,
    )
}
"""shown by nodes that are restarted in good order"""


def check(name: str) -> None:
    """Raises Gone when the build's target is not there any more, or is called in another way."""
    _apply(name, Seams(name, replaces=False))


def break_node(name: str, notes: str) -> None:
    """Break this process. Raises Gone."""
    _apply(name, Seams(name, noted_in(f"{notes}-{name}"), replaces=True))


def _apply(name: str, seams: Seams) -> None:
    try:
        (BUILDS | ROLLING_BUILDS)[name].break_it(seams)
    except ImportError as error:
        raise Gone(f"{name}: {error}") from None


def run() -> None:
    """In a process that has just begun: break it, and be twistd."""
    names, notes = sys.argv.pop(1), sys.argv.pop(1)
    try:
        for name in names.split("+"):
            break_node(name, notes)
    except Gone as error:
        sys.exit(str(error))
    from twisted.scripts import twistd

    twistd.run()


if __name__ == "__main__":
    run()
