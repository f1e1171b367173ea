"""Edits, recalls and reactions: resends first, then the message from the archive, then the rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

from imd.chat.batch import Answer, Entry
from imd.chat.change_form import Change, not_found
from imd.chat.change_rights import Actor, address, is_of_list, judge
from imd.chat.compose import EVERYBODY
from imd.chat.history import Historian
from imd.chat.rate import list_cost, room_cost
from imd.chat.targets import Targets
from imd.config.settings import Messages
from imd.contracts.archive import Archive, ArchiveQueue, Asked, Target, left_out, of_version
from imd.contracts.inbox import Inbox, RoomAim, Sent, Submission
from imd.contracts.rooms import ADMIN, LARGE_ROOM, OWNER, RoomStore
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.errors import INVALID_MESSAGE, Refused, unavailable
from imd.protocol.events import EDIT, REACT, RECALL, Edit, React, Recall, encode_event
from imd.protocol.ids import MessageIds, ServerClock

YOUNG_MS = 600_000
"""an id that the archive does not know may be of a message on its way there for so long"""
FUTURE_MS = 86_400_000
"""no clock is set back by more; later ids name nothing"""

_KINDS = {Edit: EDIT, Recall: RECALL, React: REACT}

NOT_ARCHIVED = Counter(
    "imd_changes_before_archive_total",
    "Edits, recalls and reactions answered with unavailable because their message was not archived yet.",
)


class Changes:
    """Decides about edits, recalls and reactions. `historian` knows who may read what is archived."""

    def __init__(
        self,
        inbox: Inbox,
        queue: ArchiveQueue,
        archive: Archive,
        rooms: RoomStore,
        targets: Targets,
        historian: Historian,
        clock: ServerClock,
        ids: MessageIds,
        windows: Messages,
    ) -> None:
        self._inbox = inbox
        self._queue = queue
        self._archive = archive
        self._rooms = rooms
        self._targets = targets
        self._historian = historian
        self._clock = clock
        self._ids = ids
        self._windows = windows

    def problem(self) -> str | None:
        """Why no change can be made now."""
        return self._archive.problem() or self._inbox.problem() or self._queue.problem()

    async def decide(
        self, change: Change, author: Author, origin: Any, pay: Callable[[float], None]
    ) -> Entry:
        """The event, or the answer, that a change in good form comes to; `origin` gets the answer.

        `pay` takes the rest of its cost, of which 1 is paid. Raises Refused, also as `pay` does; Unavailable.
        """
        name = change.client_msg_id or ""
        asked = Asked(change.of, author.user)
        sent = await self._sent(change, author)
        if sent is None:
            target = await self._target(asked)
            actor = await self._judged(change, target, author)
            if actor is None:
                return Answer(origin, name, frames.unchanged(name))
        else:
            found = (await self._targets.read(asked)).get(change.of)
            if found is None:
                # It was there when the first copy was judged, so there is nothing to archive any more.
                return Answer(origin, name, frames.accepted(name, sent.message_id, sent.send_time))
            target, actor = found, Actor(author.user, author.is_visitor)
        recipients = address(change, target, actor)
        room = target.scope.room
        is_quiet = isinstance(change, React) and actor.members > LARGE_ROOM
        if not is_quiet:
            pay((room_cost(actor.members) if room else list_cost(len(recipients))) - 1.0)
        if room and not self._rooms.is_warm(room):
            await self._rooms.warm(room)
        submission = self._submission(change, author.device, recipients, origin)
        submission.of_list = is_of_list(target)
        if target.scope.without:
            submission.archived = left_out(target.scope.without)
        return self._to_room(submission, change, target, is_quiet) if room else submission

    async def _sent(self, change: Change, author: Author) -> Sent | None:
        """The first copy of a resend. Raises Refused for a reuse of its clientMsgId, and Unavailable."""
        sent = await self._inbox.sent_before(author.user, author.device, change.client_msg_id or "")
        if sent is not None and sent.checksum != change.checksum():
            raise Refused(INVALID_MESSAGE, "the clientMsgId was used for another message")
        return sent

    async def _judged(self, change: Change, target: Target, author: Author) -> Actor | None:
        """The author of a change that may be made; None if it changes nothing. Raises Refused."""
        refused: Refused | None = None
        try:
            actor = await self._reader(target, author)
            if judge(change, target, actor, self._clock.now_ms(), self._windows):
                return actor
        except Refused as error:
            refused = error
        if await self._sent(change, author) is not None:
            # The first copy has been placed meanwhile, and may be the reason.
            return Actor(author.user, author.is_visitor)
        if refused is not None:
            raise refused
        return None

    async def _target(self, asked: Asked) -> Target:
        """The message. Raises Refused (`not_found`, `unavailable`) and Unavailable."""
        found = await self._targets.read(asked)
        if asked.message_id not in found:
            # Asked before the second look: what is not there then will not come any more.
            await self._check_complete(asked.message_id)
            found = await self._targets.read(asked)
        target = found.get(asked.message_id)
        if target is None:
            raise not_found()
        return target

    async def _check_complete(self, message_id: str) -> None:
        """Raise Refused unless everything up to this id is archived."""
        age_ms = self._clock.now_ms() - int(message_id[:12], 16)
        if age_ms < -FUTURE_MS:
            return
        if age_ms < YOUNG_MS or message_id > await self._historian.complete():
            NOT_ARCHIVED.inc()
            raise unavailable("the message is not archived yet")

    async def _reader(self, target: Target, author: Author) -> Actor:
        """The author of the change. Raises Refused (`not_found`) if they may not read the message."""
        scope = target.scope
        if scope.room and not author.is_visitor:
            member = await self._rooms.membership(scope.room, author.user)
            if member is None or scope.version < member.reads_from:
                raise not_found()
            leads = member.role in (OWNER, ADMIN)
            return Actor(author.user, leads=leads, closed=member.closed, members=member.members)
        # A visitor has one conversation, whatever else it may have got.
        is_own = not author.is_visitor or scope.visitor == author.user
        if not is_own or not all(await self._historian.readers.readable(author, [scope])):
            raise not_found()
        return Actor(author.user, author.is_visitor)

    def _submission(self, change: Change, device: str, recipients: list[str], origin: Any) -> Submission:
        checksum = change.checksum()
        change.id, change.send_time = self._ids.next()
        return Submission(
            change.user_id,
            device,
            change.client_msg_id,
            checksum,
            change.id,
            change.send_time,
            recipients,
            encode_event(change),
            origin=origin,
            kind=_KINDS[type(change)],
        )

    def _to_room(self, submission: Submission, change: Change, target: Target, is_quiet: bool) -> Submission:
        """The submission, aimed at the members who may read the message; at nobody if it is quiet."""
        scope = target.scope
        submission.mirror = not is_quiet
        submission.archived = of_version(scope.version)
        submission.room = RoomAim(
            scope.room,
            submission.body,
            b"",
            of_version=scope.version,
            posts=False,
            when_closed=isinstance(change, Recall),
            by_admins=isinstance(change, Edit) and change.mentions == EVERYBODY,
            to_nobody=is_quiet,
            size=self._rooms.size(scope.room),
        )
        return submission
