"""Messages to rooms. The store decides who gets them; a room that it does not know is loaded first."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from imd.chat.batch import COLD, Entry
from imd.chat.compose import EVERYBODY
from imd.chat.peer import Peer
from imd.chat.rate import pay, room_cost
from imd.chat.slow import answer_slowly
from imd.contracts.inbox import RoomAim, Submission
from imd.observe.trace import TRACE
from imd.protocol.author import Author
from imd.protocol.errors import NOT_FOUND, Refused, Unavailable
from imd.protocol.events import MESSAGE, RoomMessage, split_at_version
from imd.protocol.frames import MessageFrame
from imd.protocol.ids import MessageIds
from imd.protocol.message import is_room_id


def post_to_room(peer: Peer, frame: MessageFrame) -> None:
    """Submit the message that `frame`, which has been checked, asks for, or refuse it in its turn."""
    rooms = peer.services.rooms
    room = frame.room or ""
    try:
        if rooms.is_warm(room):
            peer.submit(_paid(peer, frame, 0.0))
            return
        pay(peer.bucket)
    except Refused as refused:
        peer.refuse(frame.client_msg_id, refused)
        return
    call_later = peer.services.call_later
    answer_slowly(peer, call_later, frame.client_msg_id, _load_first(peer, frame, room))


async def _load_first(peer: Peer, frame: MessageFrame, room: str) -> Entry:
    """The message, once its room is known to the store.

    Raises Refused, Unavailable, and CancelledError when there is no more time.
    """
    try:
        if not is_room_id(room) or not await peer.services.rooms.warm(room):
            raise Refused(NOT_FOUND, "no such room")
    except (Unavailable, CancelledError):
        COLD.inc()
        raise
    return _paid(peer, frame, 1.0)


def _paid(peer: Peer, frame: MessageFrame, paid: float) -> Submission:
    """The message, of whose cost `paid` has been taken. Raises Refused (`rate_limited`)."""
    services = peer.services
    members = services.rooms.size(frame.room or "")
    pay(peer.bucket, room_cost(members) - paid)
    submission = compose_in_room(frame, peer.author, services.ids, members)
    submission.origin = peer
    if TRACE.on and peer.session is not None:
        TRACE.received(submission, peer.session.channel)
    return submission


def compose_in_room(frame: MessageFrame, author: Author, ids: MessageIds, members: int) -> Submission:
    """The message that `frame`, which has been checked, asks for. `members`: of the room, as last heard."""
    message_id, now_ms = ids.next()
    room = frame.room or ""
    message = RoomMessage(
        id=message_id,
        client_msg_id=frame.client_msg_id,
        user_id=author.user,
        from_user_type=author.type_name,
        room=room,
        msg=frame.msg or "",
        content_type=frame.content_type or None,
        reply_to=frame.reply_to or None,
        mentions=frame.mentions or None,
        data=frame.data,
        send_time=now_ms,
    )
    checksum = message.checksum() if frame.client_msg_id is not None else "-"
    head, tail = split_at_version(message)
    aim = RoomAim(room, head, tail, by_admins=frame.mentions == EVERYBODY, size=members)
    return Submission(
        author.user,
        author.device,
        frame.client_msg_id,
        checksum,
        message_id,
        now_ms,
        (),
        head + tail,
        kind=MESSAGE,
        room=aim,
    )
