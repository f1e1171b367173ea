"""Pages of one's own conversations, from the archive."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred, succeed

from imd.contracts.archive import Archive, History, HistoryQuery
from imd.contracts.inbox import Inbox
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.message import FromUserType, conversation_id, is_visitor_id
from imd.protocol.requests import HistoryFrame

# Four pages of a client that does not read them are all in memory.
PAGE_BYTES = 1 << 20


class Historian:
    """Says what a user may read, and reads it."""

    def __init__(self, archive: Archive, inbox: Inbox) -> None:
        self._archive = archive
        self._inbox = inbox

    def page(self, author: Author, frame: HistoryFrame) -> Deferred[bytes]:
        """The payload of the history frame that answers `frame`. Fails with Unavailable."""
        query = HistoryQuery(author.user, None, before=frame.before or None, limit=frame.limit)
        found = self._scope(query, author, frame)
        return found.addCallback(self._archive.history).addCallback(_answer, frame.ref)

    def _scope(self, query: HistoryQuery, author: Author, frame: HistoryFrame) -> Deferred[HistoryQuery]:
        """Set the conversation that is asked for. A frame can only name conversations of its author."""
        if frame.all:
            return succeed(query)
        if author.type is FromUserType.VISITOR_TYPE:
            # A visitor has one conversation, with any agent.
            query.conversation = conversation_id([author.user])
            return succeed(query)
        others = [frame.with_] if frame.with_ is not None else frame.group or []
        if len(others) == 1 and is_visitor_id(others[0]):
            return self._visitors_conversation(query, others[0])
        query.conversation = conversation_id(sorted({author.user, *others}))
        return succeed(query)

    def _visitors_conversation(self, query: HistoryQuery, visitor: str) -> Deferred[HistoryQuery]:
        """The visitor's present agent reads all of it, any other user the messages that they took part in."""
        query.conversation = conversation_id([visitor])

        def decide(agent: str) -> HistoryQuery:
            query.only_own = agent != query.viewer
            return query

        return self._inbox.agent_of(visitor).addCallback(decide)


def _answer(history: History, ref: str | None) -> bytes:
    """The newest messages of the page, up to PAGE_BYTES, at least one; for the others there is `more`."""
    size, first = 0, len(history.messages)
    while first and (not size or size + len(history.messages[first - 1]) <= PAGE_BYTES):
        first -= 1
        size += len(history.messages[first])
    page = frames.HistoryPage(
        messages=[msgspec.Raw(body) for body in history.messages[first:]], more=history.more or first > 0
    )
    if ref is not None:
        page.ref = ref
    return frames.encode(page)
