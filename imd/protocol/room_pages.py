"""Answers to questions about rooms."""

from __future__ import annotations

import msgspec


class RoomShown(msgspec.Struct):
    """A room in the list of one's rooms."""

    room: str
    name: str
    role: str
    count: int
    version: int
    posting: str
    history: str
    joining: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    closed: bool | msgspec.UnsetType = msgspec.UNSET
    """there if it is true"""


class RoomsPage(msgspec.Struct, tag="rooms", tag_field="type"):
    rooms: list[RoomShown]
    more: bool
    ref: str | msgspec.UnsetType = msgspec.UNSET


class MemberShown(msgspec.Struct, rename="camel"):
    user_id: str
    role: str


class MembersPage(msgspec.Struct, tag="members", tag_field="type"):
    room: str
    version: int
    users: list[MemberShown]
    more: bool
    ref: str | msgspec.UnsetType = msgspec.UNSET
