"""Frames from clients that name messages, rooms or conversations. `imd.protocol.frames` decodes them."""

from __future__ import annotations

import msgspec

from imd.protocol.message import NO_DATA


class FirstHistoryFrame(msgspec.Struct, rename={"with_": "with"}):
    """A request for a page of the archive as level 1 knows it."""

    ref: str | None = None
    with_: str | None = None
    group: list[str] | None = None
    all: bool | None = None
    before: str | None = None
    limit: int = 50


class HistoryFrame(FirstHistoryFrame, rename={"with_": "with"}):
    """A request for a page of the archive: exactly one of `with_`, `group`, `room` and `all` is given."""

    room: str | None = None
    after: str | None = None
    around: str | None = None


class MessagesFrame(msgspec.Struct):
    """A request for messages by their ids."""

    ref: str | None = None
    ids: list[str] | None = None


class ChangesFrame(msgspec.Struct, rename={"with_": "with"}):
    """A request for the events of a conversation, or of all but rooms."""

    ref: str | None = None
    with_: str | None = None
    group: list[str] | None = None
    room: str | None = None
    all: bool | None = None
    after: str | None = None
    limit: int = 200


class EditFrame(msgspec.Struct, rename="camel"):
    client_msg_id: str | None = None
    id: str | None = None
    msg: str | None = None
    content_type: str | None = None
    mentions: list[str] | None = None
    data: msgspec.Raw = NO_DATA


class RecallFrame(msgspec.Struct, rename="camel"):
    client_msg_id: str | None = None
    id: str | None = None


class ReactFrame(msgspec.Struct, rename="camel"):
    client_msg_id: str | None = None
    id: str | None = None
    reaction: str | None = None
    on: bool | None = None


class NamedUser(msgspec.Struct, rename="camel"):
    """A user that a change of a room names."""

    user_id: str
    role: str | None = None


class RoomFrame(msgspec.Struct, rename="camel"):
    """A change of a room, or a new room."""

    client_msg_id: str | None = None
    action: str | None = None
    room: str | None = None
    version: int | None = None
    users: list[NamedUser] | None = None
    name: str | None = None
    posting: str | None = None
    history: str | None = None
    joining: str | None = None
    data: msgspec.Raw = NO_DATA


class RoomsFrame(msgspec.Struct):
    """A request for the rooms that one is a member of."""

    ref: str | None = None
    after: str | None = None
    limit: int = 50


class MembersFrame(msgspec.Struct):
    """A request for the members of a room."""

    ref: str | None = None
    room: str | None = None
    after: str | None = None
    limit: int = 200
