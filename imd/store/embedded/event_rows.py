"""The rows of an event in the file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import RoomEvent, RoomMessage, decode_event
from imd.protocol.message import conversation_id, conversation_members, decode_message
from imd.store.embedded.events import NO_PAGE, ROOMS_UID, Pending
from imd.store.embedded.state import State


class _Extras(msgspec.Struct, rename="camel"):
    of_version: int = 0
    without: tuple[str, ...] = ()


def archive_event(
    state: State,
    body: bytes,
    number: int,
    sender: int,
    readers: Collection[int],
    now: int,
    archived: bytes,
    without: Sequence[str] = (),
) -> None:
    """Archive an event: `body` is its JSON as it is delivered, `archived` as in `Submission`.

    `sender` and `readers` are uids. `without`: recipients of a list whom a block leaves out, beside those
    whom one had left out of the message. Raises msgspec.MsgspecError for a body that is no event.
    """
    event = decode_event(body)
    extras = msgspec.json.decode(b"{%b}" % archived, type=_Extras)
    version = extras.of_version
    if event.room:
        conversation = bytes.fromhex(room_conversation_id(event.room))
        readers = ()
    else:
        conversation = bytes.fromhex(conversation_id(conversation_members(decode_message(body))))
    page = NO_PAGE
    if isinstance(event, RoomMessage | RoomEvent):
        page = conversation
        version = event.version if isinstance(event, RoomEvent) else event.room_version
        state.participants += (ROOMS_UID, event.id, number)
        if isinstance(event, RoomMessage):
            state.talks.note_room(conversation, event.id, version)
    state.messages += (number, event.id, sender, page, now, body.decode())
    for name in (*extras.without, *without):
        state.left_out += (number, name)
    state.events.append(Pending(event, number, sender, conversation, version, readers))
