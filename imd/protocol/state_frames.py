"""Frames from clients about state: marks, settings, the list of conversations, presence, signals, blocks.

`imd.protocol.frames` decodes them. Null counts as absent, except where a field says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from imd.protocol.message import NO_DATA


class Naming(msgspec.Struct, rename={"with_": "with"}):
    """The selector of a frame. `imd.protocol.selector` reads it."""

    with_: str | None = None
    group: list[str] | None = None
    room: str | None = None


class MarkIn(Naming, rename={"with_": "with", "up_to": "upTo"}):
    """One of several marks."""

    up_to: str | None = None


class ReadFrame(Naming, rename={"with_": "with", "up_to": "upTo"}):
    """One has read a conversation up to a message. Either a selector and `up_to`, or `marks`."""

    ref: str | None = None
    up_to: str | None = None
    marks: list[MarkIn] | None = None


class SettingsFrame(Naming, rename={"with_": "with"}):
    """Settings of a conversation; without a selector, one's own."""

    ref: str | None = None
    muted: bool | int | None = None
    """an int: the time, in ms, until which"""
    pinned: bool | None = None
    hidden: str | msgspec.UnsetType | None = msgspec.UNSET
    """None: not hidden any more"""
    cleared: str | None = None
    marked: bool | None = None
    receipts: bool | None = None


class TalksFrame(msgspec.Struct):
    """A request for a page of one's list of conversations."""

    ref: str | None = None
    limit: int = 30
    before: str | None = None
    pinned: bool | None = None


class WatchFrame(msgspec.Struct):
    """The users whose presence one wants to know, instead of those named before."""

    ref: str | None = None
    users: list[str] | None = None


class TypingFrame(Naming, rename={"with_": "with"}):
    """One is writing."""

    ref: str | None = None
    """of the error that a bad frame is answered with"""


class SignalFrame(Naming, rename={"with_": "with"}):
    """The application's own signal to whoever is connected."""

    ref: str | None = None
    name: str | None = None
    data: msgspec.Raw = NO_DATA


class BlockFrame(msgspec.Struct, rename="camel"):
    """Block a user, or no longer."""

    ref: str | None = None
    user_id: str | None = None
    on: bool | None = None
    """None: true"""


class BlockedFrame(msgspec.Struct):
    """A request for the users that one blocks."""

    ref: str | None = None


STATE_FRAMES: Mapping[str, type] = {
    "typing": TypingFrame,
    "signal": SignalFrame,
    "read": ReadFrame,
    "settings": SettingsFrame,
    "watch": WatchFrame,
    "conversations": TalksFrame,
    "block": BlockFrame,
    "blocked": BlockedFrame,
}
"""the types that a node handles; each has its handler in `imd.chat.handlers`"""
