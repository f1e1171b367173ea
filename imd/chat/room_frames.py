"""The frames room, rooms and members: a change of a room, and questions about one's own rooms."""

from __future__ import annotations

from functools import partial

import msgspec
from twisted.internet.defer import Deferred

from imd.chat.asking import questions_of
from imd.chat.batch import Entry
from imd.chat.peer import Peer
from imd.chat.rate import charged_if_refused, pay, room_cost
from imd.chat.reply_order import go_on_from_given
from imd.chat.room_form import read_action
from imd.chat.slow import answer_slowly
from imd.contracts.rooms import Action, MembersPage, RoomStore, RoomSummary
from imd.protocol import frames, room_pages
from imd.protocol.errors import FORBIDDEN, INVALID_MESSAGE, NOT_FOUND, Refused
from imd.protocol.message import check_id, is_room_id
from imd.protocol.questions import check_limit
from imd.protocol.requests import MembersFrame, RoomFrame, RoomsFrame


def change_room(peer: Peer, frame: RoomFrame) -> None:
    """Make the change that `frame` asks for, or refuse it in its turn."""
    services = peer.services
    try:
        with charged_if_refused(peer.bucket):
            action = read_action(frame, peer.author, services.settings)
        known = services.rooms.size(action.room)
        pay(peer.bucket, room_cost(max(known, len(action.users))))
    except Refused as refused:
        peer.refuse(frame.client_msg_id, refused)
        return
    go_on_from_given(peer)
    answer_slowly(peer, services.call_later, action.client_msg_id, _make(peer, action))


async def _make(peer: Peer, action: Action) -> Entry:
    """The answer to a change. Raises Refused, Unavailable."""
    # A change has a way of its own into inboxes, so the messages before it have to be there.
    await peer.caught_up()
    return await peer.services.room_changes.make(peer, action)


def list_rooms(peer: Peer, frame: RoomsFrame) -> None:
    """Answer with a page of one's own rooms. Raises Refused."""
    check_limit(frame.limit)
    if frame.after and not is_room_id(frame.after):
        raise Refused(INVALID_MESSAGE, "after: the id of a room is expected")
    _check_author(peer)
    rooms, user = peer.services.rooms, peer.author.user
    questions_of(peer).ask(frame.ref, partial(_rooms, rooms, user, frame))


def list_members(peer: Peer, frame: MembersFrame) -> None:
    """Answer with a page of a room's members. Raises Refused."""
    if not frame.room:
        raise Refused(INVALID_MESSAGE, "room: the id of a room is expected")
    check_limit(frame.limit)
    if frame.after:
        check_id("after", frame.after)
    _check_author(peer)
    if not is_room_id(frame.room):
        raise Refused(NOT_FOUND, "no such room")
    rooms, user = peer.services.rooms, peer.author.user
    questions_of(peer).ask(frame.ref, partial(_members, rooms, user, frame))


def _check_author(peer: Peer) -> None:
    if peer.author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor is in no room")


def _rooms(rooms: RoomStore, user: str, frame: RoomsFrame) -> Deferred[bytes]:
    def answer(found: tuple[list[RoomSummary], bool]) -> bytes:
        shown = [
            room_pages.RoomShown(
                one.room,
                one.name,
                one.role,
                one.members,
                one.version,
                one.posting,
                one.history,
                one.joining,
                msgspec.Raw(one.data.encode()) if one.data else msgspec.UNSET,
                one.closed or msgspec.UNSET,
            )
            for one in found[0]
        ]
        return frames.encode(room_pages.RoomsPage(shown, found[1], frames.given(frame.ref)))

    return rooms.rooms_of(user, frame.after or "", frame.limit).addCallback(answer)


def _members(rooms: RoomStore, user: str, frame: MembersFrame) -> Deferred[bytes]:
    room = frame.room or ""

    def answer(found: MembersPage | None) -> bytes:
        if found is None:
            raise Refused(NOT_FOUND, "no such room")
        users = [room_pages.MemberShown(member.user, member.role) for member in found.members]
        page = room_pages.MembersPage(room, found.version, users, found.more, frames.given(frame.ref))
        return frames.encode(page)

    return rooms.members_of(room, user, frame.after or "", frame.limit).addCallback(answer)
