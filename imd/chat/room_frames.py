"""The frames room, rooms and members: a change of a room, and questions about one's own rooms."""

from __future__ import annotations

from functools import partial

import msgspec
from twisted.internet.defer import Deferred

from imd.chat.asking import questions_of
from imd.chat.peer import Peer
from imd.chat.rate import room_cost, too_fast
from imd.chat.room_form import read_action
from imd.chat.slow import answer_slowly
from imd.contracts.rooms import MembersPage, RoomStore, RoomSummary
from imd.protocol import frames, room_pages
from imd.protocol.errors import FORBIDDEN, INVALID_MESSAGE, NOT_FOUND, Refused
from imd.protocol.message import check_id, is_room_id
from imd.protocol.requests import MembersFrame, RoomFrame, RoomsFrame


def change_room(peer: Peer, frame: RoomFrame) -> None:
    """Make the change that `frame` asks for, or refuse it in its turn."""
    services = peer.services
    per_second = services.settings.limits.messages_per_second
    try:
        action = read_action(frame, peer.author, services.settings)
    except Refused as refused:
        early = peer.bucket.take(1.0)
        peer.refuse(frame.client_msg_id, too_fast(per_second, early) if early else refused)
        return
    known = services.rooms.size(action.room)
    early = peer.bucket.take(room_cost(max(known, len(action.users))))
    if early:
        peer.refuse(frame.client_msg_id, too_fast(per_second, early))
        return
    work = services.room_changes.make(peer, action)
    answer_slowly(peer, services.call_later, action.client_msg_id, work)


def list_rooms(peer: Peer, frame: RoomsFrame) -> None:
    """Answer with a page of one's own rooms. Raises Refused."""
    _check_limit(frame.limit)
    if frame.after and not is_room_id(frame.after):
        raise Refused(INVALID_MESSAGE, "after: the id of a room is expected")
    _check_author(peer)
    rooms, user = peer.services.rooms, peer.author.user
    questions_of(peer).ask(frame.ref, partial(_rooms, rooms, user, frame))


def list_members(peer: Peer, frame: MembersFrame) -> None:
    """Answer with a page of a room's members. Raises Refused."""
    if not frame.room:
        raise Refused(INVALID_MESSAGE, "room: the id of a room is expected")
    _check_limit(frame.limit)
    if frame.after:
        check_id("after", frame.after)
    _check_author(peer)
    if not is_room_id(frame.room):
        raise Refused(NOT_FOUND, "no such room")
    rooms, user = peer.services.rooms, peer.author.user
    questions_of(peer).ask(frame.ref, partial(_members, rooms, user, frame))


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= 200:
        raise Refused(INVALID_MESSAGE, "limit: 1 to 200 is expected")


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
            )
            for one in found[0]
        ]
        return frames.encode(room_pages.RoomsPage(shown, found[1], _ref(frame.ref)))

    return rooms.rooms_of(user, frame.after or "", frame.limit).addCallback(answer)


def _members(rooms: RoomStore, user: str, frame: MembersFrame) -> Deferred[bytes]:
    room = frame.room or ""

    def answer(found: MembersPage | None) -> bytes:
        if found is None:
            raise Refused(NOT_FOUND, "no such room")
        users = [room_pages.MemberShown(member.user, member.role) for member in found.members]
        page = room_pages.MembersPage(room, found.version, users, found.more, _ref(frame.ref))
        return frames.encode(page)

    return rooms.members_of(room, user, frame.after or "", frame.limit).addCallback(answer)


def _ref(ref: str | None) -> str | msgspec.UnsetType:
    return msgspec.UNSET if ref is None else ref
