"""Events: all that inboxes, the archive and `changes` hold beside plain messages.

An event's JSON begins with `{"kind":`. It has no number yet: `frames.delivered` puts that in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from imd.protocol.message import NO_DATA, decode_message, encode_message, more_written

MESSAGE = "message"
EDIT = "edit"
RECALL = "recall"
REACT = "react"
ROOM = "room"


class RoomMessage(msgspec.Struct, omit_defaults=True, rename="camel", tag_field="kind", tag=MESSAGE):
    """A message in a room. `room_version`: the room's version that it was placed under."""

    id: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    room: str = ""
    room_version: int = 0
    msg: str = ""
    content_type: str | None = None
    reply_to: str | None = None
    mentions: list[str] | None = None
    data: msgspec.Raw = NO_DATA
    send_time: int = 0

    def checksum(self) -> str:
        """As `IMessage.checksum`."""
        written = f"{MESSAGE}\0{self.room}\0{self.msg}\0{self.content_type}"
        return checksum_of(written + more_written(self.reply_to, self.mentions, self.data))


class Edit(msgspec.Struct, omit_defaults=True, rename="camel", tag_field="kind", tag=EDIT):
    """The message `of` says something else now. A field that is left out is gone from it.

    `to`, `group`, `room` and `is_visitor` are as a message by the actor would have them.
    """

    id: str = ""
    of: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    to: str = ""
    group: list[str] | None = None
    room: str | None = None
    msg: str = ""
    content_type: str | None = None
    mentions: list[str] | None = None
    data: msgspec.Raw = NO_DATA
    send_time: int = 0
    is_visitor: bool = False

    def checksum(self) -> str:
        written = f"{EDIT}\0{self.of}\0{self.msg}\0{self.content_type}"
        return checksum_of(written + more_written(None, self.mentions, self.data))


class Recall(msgspec.Struct, omit_defaults=True, rename="camel", tag_field="kind", tag=RECALL):
    """The message `of` is gone."""

    id: str = ""
    of: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    to: str = ""
    group: list[str] | None = None
    room: str | None = None
    send_time: int = 0
    is_visitor: bool = False

    def checksum(self) -> str:
        return checksum_of(f"{RECALL}\0{self.of}")


class React(msgspec.Struct, omit_defaults=True, rename="camel", tag_field="kind", tag=REACT):
    """A user's reaction to the message `of` is there, or not any more."""

    id: str = ""
    of: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    to: str = ""
    group: list[str] | None = None
    room: str | None = None
    reaction: str = ""
    on: bool | None = None
    send_time: int = 0
    is_visitor: bool = False

    def checksum(self) -> str:
        return checksum_of(f"{REACT}\0{self.of}\0{self.reaction}\0{self.on}")


class Concerned(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A user whom a change of a room concerns."""

    user_id: str
    role: str = ""


class RoomEvent(msgspec.Struct, omit_defaults=True, rename="camel", tag_field="kind", tag=ROOM):
    """A change of a room. `count`: its members afterwards."""

    id: str = ""
    room: str = ""
    version: int = 0
    action: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    users: list[Concerned] | None = None
    count: int | None = None
    name: str | None = None
    posting: str | None = None
    history: str | None = None
    joining: str | None = None
    data: msgspec.Raw = NO_DATA
    send_time: int = 0


Event = RoomMessage | Edit | Recall | React | RoomEvent

encode_event: Callable[[Event], bytes] = msgspec.json.Encoder().encode
decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


def checksum_of(written: str) -> str:
    """The checksum of what a sender wrote, the kind first."""
    return f"{crc32(written.encode()):x}"


def split_at_version(message: RoomMessage) -> tuple[bytes, bytes]:
    """The JSON of a room's message in front of and behind its room version, which the store puts in."""
    message.room_version = 1
    head, mark, tail = encode_event(message).partition(b'"roomVersion":1')
    return head + mark[:-1], tail


def is_event(body: bytes) -> bool:
    """True for the JSON of an event, False for that of a plain message."""
    return body.startswith(b'{"kind":')


def first_copy(body: bytes, message_id: str, send_time: int, version: int) -> bytes:
    """The JSON of a resend as it was placed first: under its first id, time and room version."""
    content: Any
    if not is_event(body):
        content = decode_message(body)
        content.id = message_id
        content.send_time = send_time
        return encode_message(content)
    content = decode_event(body)
    content.id = message_id
    content.send_time = send_time
    if type(content) is RoomMessage:
        content.room_version = version
    return encode_event(content)
