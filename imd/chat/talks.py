"""The list of a user's conversations: from the archive, with the marks and settings of the user's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec

from imd.chat.history import fitting
from imd.contracts.rooms import RoomStore
from imd.contracts.state import Entry, StateStore
from imd.contracts.talks import Place, PlacesQuery, Talk, TalksQuery, TalkStore, Wanted
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.state_frames import TalksFrame
from imd.protocol.state_out import TalkShown, TalksPage

MOST_PLACES = 1000
"""places in one look, where many of them are hidden"""


class TalkList:
    """Each answer is a frame's payload. The coroutine raises Unavailable."""

    def __init__(self, talks: TalkStore, rooms: RoomStore, states: StateStore) -> None:
        self._talks = talks
        self._rooms = rooms
        self._states = states

    async def page(self, author: Author, frame: TalksFrame) -> bytes:
        """A page of the author's list, whose frame has been checked."""
        user = author.user
        rooms = await self._rooms.parts(user)
        only = None
        if frame.pinned:
            state = await self._states.since(user, None)
            only = [entry.conversation for entry in state.entries if entry.pinned]
        query = PlacesQuery(user, rooms, frame.before or None, frame.limit + 1, only)
        entries: dict[str, Entry] = {}
        places: list[Place] = []
        while True:
            found = await self._talks.places(query)
            entries |= await self._states.entries(user, [place.conversation for place in found.found])
            places += [place for place in found.found if not _is_hidden(place, entries)]
            if len(places) > frame.limit or not found.more or not found.found:
                break
            query.before = found.found[-1].at
            query.limit = min(2 * query.limit, MOST_PLACES)
        page = places[: frame.limit]
        shown = [frames.encode(one) for one in await self._show(user, page, entries)]
        count = fitting(shown)
        answer = TalksPage(
            conversations=[msgspec.Raw(one) for one in shown[:count]],
            more=len(places) > count,
            ref=frames.given(frame.ref),
        )
        return frames.encode(answer)

    async def _show(
        self, user: str, places: Sequence[Place], entries: Mapping[str, Entry]
    ) -> list[TalkShown]:
        wanted = [_wanted(place, entries.get(place.conversation)) for place in places if not place.is_empty]
        talks = dict(zip(map(attrgetter("conversation"), wanted), await self._ask(user, wanted), strict=True))
        nothing = Talk(None, 0)
        return [
            _shown(user, place, entries.get(place.conversation), talks.get(place.conversation, nothing))
            for place in places
        ]

    async def _ask(self, user: str, wanted: Sequence[Wanted]) -> list[Talk]:
        return await self._talks.talks(TalksQuery(user, wanted)) if wanted else []


def _is_hidden(place: Place, entries: Mapping[str, Entry]) -> bool:
    entry = entries.get(place.conversation)
    return entry is not None and place.at <= entry.hidden


def _wanted(place: Place, entry: Entry | None) -> Wanted:
    from_version = place.room.reads_from if place.room is not None else 0
    read, cleared = (entry.read, entry.cleared) if entry is not None else ("", "")
    return Wanted(place.conversation, place.at, read, cleared, from_version)


def _shown(user: str, place: Place, entry: Entry | None, talk: Talk) -> TalkShown:
    shown = TalkShown(at=place.at, unread=talk.unread)
    if place.room is not None:
        shown.room, shown.name, shown.version = place.room.room, place.room.name, place.room.version
    elif len(place.others) > 1:
        shown.group = place.others
    else:
        shown.with_ = place.others[0] if place.others else user
    if talk.last is not None:
        shown.last = msgspec.Raw(talk.last)
    if entry is not None:
        shown.marked, shown.muted, shown.pinned = entry.marked, entry.muted, entry.pinned
        shown.read = entry.read or msgspec.UNSET
        shown.peer_read = entry.peer or msgspec.UNSET
    return shown
