"""Frames to clients about state: marks, settings, the list of conversations, presence, typing, signals."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from imd.protocol.frames import encode
from imd.protocol.message import NO_DATA
from imd.protocol.selector import Selector


class Conversation(
    msgspec.Struct,
    omit_defaults=True,
    rename={"with_": "with", "peer_read": "peerRead"},
    gc=False,
):
    """A conversation's marks and settings as they are now. A value at its default is left out."""

    with_: str = ""
    group: tuple[str, ...] = ()
    room: str = ""
    read: str = ""
    peer_read: str = ""
    muted: bool | int = False
    pinned: bool = False
    hidden: str = ""
    cleared: str = ""
    marked: bool = False


class UserSettings(msgspec.Struct):
    receipts: bool


class StateFrame(msgspec.Struct, tag="state", tag_field="type", kw_only=True):
    """`all`: the device forgets what it had."""

    ref: str | msgspec.UnsetType = msgspec.UNSET
    version: int
    all: bool | msgspec.UnsetType = msgspec.UNSET
    conversations: Sequence[Conversation]
    user: UserSettings | msgspec.UnsetType = msgspec.UNSET


class TalkShown(
    msgspec.Struct,
    rename={"with_": "with", "peer_read": "peerRead"},
    gc=False,
):
    """A conversation in one's list."""

    with_: str | msgspec.UnsetType = msgspec.UNSET
    group: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    room: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType = msgspec.UNSET
    at: str = ""
    last: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    unread: int = 0
    marked: bool = False
    read: str | msgspec.UnsetType = msgspec.UNSET
    peer_read: str | msgspec.UnsetType = msgspec.UNSET
    muted: bool | int = False
    pinned: bool = False


class TalksPage(msgspec.Struct, tag="conversations", tag_field="type", kw_only=True):
    """A page of the list of conversations."""

    ref: str | msgspec.UnsetType = msgspec.UNSET
    conversations: Sequence[msgspec.Raw]
    more: bool


class Present(msgspec.Struct, rename="camel"):
    user_id: str
    online: bool


class PresenceFrame(msgspec.Struct, tag="presence", tag_field="type", kw_only=True):
    """All watched users in an answer, which has the `ref` of its question; else those that have changed."""

    ref: str | msgspec.UnsetType = msgspec.UNSET
    users: Sequence[Present]


class BlockAnswer(msgspec.Struct, tag="block", tag_field="type", rename="camel", kw_only=True):
    """A user is blocked, or is not any more."""

    ref: str | msgspec.UnsetType = msgspec.UNSET
    user_id: str
    on: bool


class BlockedList(msgspec.Struct, tag="blocked", tag_field="type", kw_only=True):
    """The users that one blocks."""

    ref: str | msgspec.UnsetType = msgspec.UNSET
    users: Sequence[str]


class _Live(
    msgspec.Struct, tag_field="type", omit_defaults=True, rename={"with_": "with", "user_id": "userId"}
):
    """A frame of the moment, of a user in a conversation."""

    user_id: str
    with_: str = ""
    group: tuple[str, ...] = ()
    room: str = ""


class _Typing(_Live, tag="typing"):
    pass


class _Signal(_Live, tag="signal"):
    name: str = ""
    data: msgspec.Raw = NO_DATA


def typing(user: str, selector: Selector) -> bytes:
    """The frame that says that `user` is writing; `selector`: from the side of the device that gets it."""
    return encode(_Typing(user, selector.with_, selector.group, selector.room))


def signal(user: str, selector: Selector, name: str, data: msgspec.Raw = NO_DATA) -> bytes:
    """A user's signal, with a selector from the side of the device that gets it."""
    return encode(_Signal(user, selector.with_, selector.group, selector.room, name, data))
