"""Conversations by name, with their marks and settings. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from imd.client.numbered import Message
from imd.client.sound import check_sound

FIELDS = ("read", "peerRead", "muted", "pinned", "hidden", "cleared", "marked")
"""of a conversation in frames, besides its selector"""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation's marks and settings as this client knows them.

    One of `with_`, `group` and `room` names it; none in a visitor's client, which has one conversation.
    """

    with_: str = ""
    """the other of a pair; for an agent also a visitor"""
    group: tuple[str, ...] = ()
    """the others of a list, sorted"""
    room: str = ""
    read: str = ""
    """the id up to which the user has read"""
    mark: str = ""
    """the effective mark: the higher of `read` and the newest message of one's own that this client knows"""
    peer_read: str = ""
    """the id up to which the other has read; empty if that is unknown, or hidden by either"""
    muted: bool | int = False
    """an int: the time until which, in milliseconds since the epoch"""
    pinned: bool = False
    hidden: str = ""
    """an id: not in the list until something newer comes"""
    cleared: str = ""
    """an id: nothing up to it is shown"""
    marked: bool = False
    """marked as unread by hand"""

    @property
    def key(self) -> str:
        """The same for each name of the conversation; for dictionaries."""
        return key_of(self.with_, self.group, self.room)

    @property
    def selector(self) -> dict[str, Any]:
        """The fields that name it in frames."""
        if self.room:
            return {"room": self.room}
        if self.group:
            return {"group": list(self.group)}
        return {"with": self.with_} if self.with_ else {}

    @property
    def plain(self) -> Conversation:
        """Its name alone."""
        return Conversation(self.with_, self.group, self.room)

    def is_muted(self, now_ms: float) -> bool:
        return self.muted if isinstance(self.muted, bool) else self.muted > now_ms


def key_of(with_: str, group: Sequence[str], room: str) -> str:
    """Of a conversation that is named as in `named`."""
    if room:
        return f"room {room}"
    return f"with {with_}" if with_ else " ".join(["group", *(f"{len(each)}:{each}" for each in group)])


def named(with_: str, group: Iterable[str], room: str, me: str) -> Conversation:
    """A conversation without marks. A list is sorted and has no doubles; one of a single other is a pair."""
    if room:
        return Conversation(room=room)
    others = sorted(set(group) - {me})
    if len(others) > 1:
        return Conversation(group=tuple(others))
    return Conversation(with_=with_ or (others[0] if others else me if group else ""))


def chosen(
    with_: str | None, group: Sequence[str] | None, room: str | None, me: str, visitor: bool
) -> Conversation:
    """The conversation that a program names. Raises ValueError unless exactly one is given, and readable.

    A visitor has one, and names none.
    """
    if visitor:
        return Conversation()
    if [bool(with_), bool(group), bool(room)].count(True) != 1:
        raise ValueError("one of with_, group and room is expected")
    check_sound({"with_": with_, "group": list(group or ()), "room": room})
    return named(with_ or "", group or (), room or "", me)


def of_message(message: Message, me: str, visitor: bool) -> Conversation:
    """The conversation that a message belongs to, from the side of the user `me`."""
    if visitor:
        return Conversation()
    if message.group:
        return named("", {message.user_id, *message.group}, "", me)
    other = message.to if message.user_id == me else message.user_id
    return named(other, (), message.room, me)


def of_frame(frame: Mapping[str, Any]) -> Conversation:
    """From a frame of the node, or from a store. Values at their default may be left out."""
    return Conversation(
        with_=frame.get("with") or "",
        group=tuple(frame.get("group") or ()),
        room=frame.get("room") or "",
        read=frame.get("read") or "",
        peer_read=frame.get("peerRead") or "",
        muted=frame.get("muted") or False,
        pinned=bool(frame.get("pinned")),
        hidden=frame.get("hidden") or "",
        cleared=frame.get("cleared") or "",
        marked=bool(frame.get("marked")),
    )


def as_frame(known: Conversation) -> dict[str, Any]:
    """For a store; `of_frame` reads it."""
    values = (
        known.read,
        known.peer_read,
        known.muted,
        known.pinned,
        known.hidden,
        known.cleared,
        known.marked,
    )
    return known.selector | {name: value for name, value in zip(FIELDS, values, strict=True) if value}


def merged(old: Conversation | None, new: Conversation) -> Conversation:
    """`new`, with marks that never fall: also the other's is the highest that was seen."""
    if old is None:
        return new
    return replace(
        new,
        read=max(old.read, new.read),
        peer_read=max(old.peer_read, new.peer_read),
        cleared=max(old.cleared, new.cleared),
    )
