"""Rights to read: the conversation that a question names, and single messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imd.contracts.archive import Scope
from imd.contracts.inbox import Inbox
from imd.contracts.rooms import RoomStore
from imd.contracts.state import StateStore
from imd.protocol.author import Author
from imd.protocol.errors import NOT_FOUND, Refused
from imd.protocol.message import conversation_id
from imd.protocol.requests import ChangesFrame, HistoryFrame
from imd.protocol.selector import target_of


class Selected(NamedTuple):
    """The conversation that a question names, from the asking user's side."""

    conversation: str | None
    """its id; None: all"""
    only_own: bool = False
    """only what the user took part in"""
    from_version: int | None = None
    """of a room"""


class Readers:
    """Rights to read."""

    def __init__(self, inbox: Inbox, rooms: RoomStore, states: StateStore) -> None:
        self._inbox = inbox
        self._rooms = rooms
        self._states = states

    async def select(self, author: Author, frame: HistoryFrame | ChangesFrame) -> Selected:
        """A frame, which has been checked, can only name conversations of its author.

        Raises Refused (`not_found`) for a room of others, and Unavailable.
        """
        if author.is_visitor:
            # A visitor has one conversation, with any agent.
            return Selected(conversation_id([author.user]))
        if frame.all:
            return Selected(None)
        if frame.room:
            reads_from = await self._reads_from(frame.room, author.user)
            if reads_from is None:
                raise Refused(NOT_FOUND, "no such room")
            return Selected(target_of(frame, author).conversation, from_version=reads_from or None)
        target = target_of(frame, author)
        if target.visitor:
            # The visitor's present agent reads all of it, any other user the messages that they took part in.
            agent = await self._inbox.agent_of(target.visitor)
            return Selected(target.conversation, only_own=agent != author.user)
        return Selected(target.conversation)

    async def cleared(self, author: Author) -> Mapping[str, str]:
        """The author's conversations with cleared messages: id → the id up to which. Raises Unavailable."""
        return {} if author.is_visitor else await self._states.cleared(author.user)

    async def readable(self, author: Author, scopes: Sequence[Scope]) -> list[bool]:
        """For each scope whether the author may read what is in it. Raises Unavailable."""
        user = author.user
        rooms = {room: await self._reads_from(room, user) for room in _names(one.room for one in scopes)}
        strange = _names(
            one.visitor for one in scopes if user not in one.participants and user != one.visitor
        )
        agents = {visitor: await self._inbox.agent_of(visitor) for visitor in strange}
        readable = []
        for scope in scopes:
            if scope.room:
                reads_from = rooms[scope.room]
                readable.append(reads_from is not None and scope.version >= reads_from)
            else:
                own = user in scope.participants or user == scope.visitor
                readable.append(own or agents.get(scope.visitor) == user)
        return readable

    async def _reads_from(self, room: str, user: str) -> int | None:
        """None if the user may read nothing of the room."""
        member = await self._rooms.membership(room, user)
        return None if member is None else member.reads_from


def _names(found: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(found) if name]
