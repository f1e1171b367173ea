"""Answers from the archive: pages of history, single messages, and events to catch up with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred

from imd.chat.readers import Readers
from imd.contracts.archive import Archive, ChangesQuery, History, HistoryQuery
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.requests import ChangesFrame, HistoryFrame, MessagesFrame

# Four answers to a client that does not read them are all in memory.
PAGE_BYTES = 1 << 20


class Historian:
    """Says what a user may read, and reads it. Each answer is a frame's payload.

    The coroutines raise Unavailable, and Refused (`not_found`) for a room of others.
    """

    def __init__(self, archive: Archive, readers: Readers, complete: Callable[[], Deferred[str]]) -> None:
        self._archive = archive
        self.readers = readers
        self.complete = complete
        """the id up to which everything is archived; empty while nothing is known"""

    async def page(self, author: Author, frame: HistoryFrame, *, events: bool, level: int) -> bytes:
        """`events`: the device gets entries that have a kind. Level 1 does not tell of newer ones."""
        selected = await self.readers.select(author, frame)
        history = History()
        is_room = bool(frame.room) and not author.is_visitor
        if events or not is_room:
            query = HistoryQuery(
                author.user,
                selected.conversation,
                selected.only_own,
                before=frame.before or None,
                limit=frame.limit,
                after=frame.after or None,
                around=frame.around or None,
                from_version=selected.from_version,
                # The first level knows no states.
                cleared=await self.readers.cleared(author) if level >= 2 else {},
            )
            history = await self._archive.history(query)
        page = _page(history, frame)
        if level >= 2:
            page.more_after = history.more_after
            if selected.conversation is None:
                page.rooms = False
        page.ref = frames.given(frame.ref)
        return frames.encode(page)

    async def messages(
        self, author: Author, ids: Sequence[str], frame: MessagesFrame, *, events: bool
    ) -> bytes:
        """The messages of these ids that the author may read, and has not cleared."""
        found = await self._archive.messages(ids, author.user)
        cleared = await self.readers.cleared(author)
        entries = [
            entry
            for entry in found
            if (events or not entry.kind) and entry.message_id > cleared.get(entry.scope.conversation, "")
        ]
        readable = await self.readers.readable(author, [entry.scope for entry in entries])
        bodies = [entry.body for entry, may_read in zip(entries, readable, strict=True) if may_read]
        answer = frames.MessagesAnswer(messages=[msgspec.Raw(body) for body in bodies])
        answer.ref = frames.given(frame.ref)
        return frames.encode(answer)

    async def changes(self, author: Author, frame: ChangesFrame) -> bytes:
        """Events of a conversation, or of all."""
        selected = await self.readers.select(author, frame)
        # Asked first: the events that are read afterwards are all that there are up to it.
        complete = await self.complete()
        query = ChangesQuery(
            author.user,
            selected.conversation,
            selected.only_own,
            after=frame.after or None,
            limit=frame.limit,
            from_version=selected.from_version,
            cleared=await self.readers.cleared(author),
        )
        found = await self._archive.changes(query)
        count = fitting(found.events)
        answer = frames.ChangesAnswer(
            events=[msgspec.Raw(body) for body in found.events[:count]],
            more=found.more or count < len(found.events),
            complete=complete,
        )
        if selected.conversation is None:
            answer.rooms = False
        answer.ref = frames.given(frame.ref)
        return frames.encode(answer)


def _page(history: History, frame: HistoryFrame) -> frames.HistoryPage:
    """The part of the page that has PAGE_BYTES at most: what is nearest to the place that was asked for."""
    bodies = history.messages
    first, end = 0, len(bodies)
    if frame.around:
        first, end = _around(bodies, history.older)
    elif frame.after:
        end = fitting(bodies)
    else:
        first = end - fitting(bodies[::-1])
    history.more = history.more or first > 0
    history.more_after = history.more_after or end < len(bodies)
    return frames.HistoryPage(messages=[msgspec.Raw(body) for body in bodies[first:end]], more=history.more)


def fitting(bodies: Sequence[bytes]) -> int:
    """How many of the first have PAGE_BYTES at most; at least one, if there is one."""
    size = 0
    for count, body in enumerate(bodies):
        size += len(body)
        if count and size > PAGE_BYTES:
            return count
    return len(bodies)


def _around(bodies: Sequence[bytes], older: int) -> tuple[int, int]:
    """The part around the first that is not older: its beginning and its end."""
    first = end = min(older, max(len(bodies) - 1, 0))
    size = 0
    while first > 0 or end < len(bodies):
        newer_next = end < len(bodies) and (end - older <= older - first or first == 0)
        body = bodies[end] if newer_next else bodies[first - 1]
        size += len(body)
        if end > first and size > PAGE_BYTES:
            break
        if newer_next:
            end += 1
        else:
            first -= 1
    return first, end
