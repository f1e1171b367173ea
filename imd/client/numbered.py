"""Entries of an inbox: messages, edits, recalls, reactions and changes of rooms. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Edited:
    """The last edit of a message."""

    id: str
    time: int
    """milliseconds since the epoch"""


@dataclass(frozen=True, slots=True)
class Reactions:
    """Equal reactions to a message."""

    reaction: str
    count: int
    users: tuple[str, ...] = ()
    """at most 20: the first ones, and oneself"""


@dataclass(frozen=True, slots=True)
class Member:
    user_id: str
    role: str = "member"
    """owner, admin or member"""


@dataclass(frozen=True, slots=True)
class Message:
    """A received message, or one of the archive (without `seq`). Times are milliseconds since the epoch."""

    id: str
    user_id: str
    """the sender"""
    msg: str
    send_time: int
    to: str = ""
    group: tuple[str, ...] = ()
    from_user_type: str = ""
    content_type: str | None = None
    client_msg_id: str | None = None
    is_visitor: bool = False
    seq: int | None = None
    room: str = ""
    room_version: int = 0
    """the room's version when the message was placed"""
    reply_to: str | None = None
    """the id of the message that is answered"""
    mentions: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None
    elsewhere: bool = False
    """one's own message, written on another device"""
    edited: Edited | None = None
    """of the archive: there was an edit, and `msg` is its text"""
    recalled: int | None = None
    """of the archive: the time of the recall; `msg` is empty"""
    reactions: tuple[Reactions, ...] = ()
    reactions_up_to: str = ""
    """of the archive: the id of the last reaction that is counted"""

    @classmethod
    def of(cls, frame: Mapping[str, Any], elsewhere: bool = False) -> Message:
        """From a decoded frame. Unknown fields are left out. Raises KeyError without an id."""
        edited = frame.get("edited")
        return cls(
            id=frame["id"],
            user_id=frame.get("userId") or "",
            msg=frame.get("msg") or "",
            send_time=frame.get("sendTime") or 0,
            to=frame.get("to") or "",
            group=tuple(frame.get("group") or ()),
            from_user_type=frame.get("fromUserType") or "",
            content_type=frame.get("contentType"),
            client_msg_id=frame.get("clientMsgId"),
            is_visitor=bool(frame.get("isVisitor")),
            seq=frame.get("seq"),
            room=frame.get("room") or "",
            room_version=frame.get("roomVersion") or 0,
            reply_to=frame.get("replyTo"),
            mentions=tuple(frame.get("mentions") or ()),
            data=frame.get("data"),
            elsewhere=elsewhere,
            edited=None if edited is None else Edited(edited["id"], edited["time"]),
            recalled=frame.get("recalled"),
            reactions=tuple(
                Reactions(each["reaction"], each["count"], tuple(each.get("users") or ()))
                for each in frame.get("reactions") or ()
            ),
            reactions_up_to=frame.get("reactionsUpTo") or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """An event about a message."""

    id: str
    of: str
    """the id of the message"""
    user_id: str
    """the user who did it"""
    send_time: int
    to: str = ""
    group: tuple[str, ...] = ()
    room: str = ""
    from_user_type: str = ""
    client_msg_id: str | None = None
    is_visitor: bool = False
    seq: int | None = None
    """None for one that `changes` gave"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit(_Change):
    """The message has this text from now on, unless another edit has a higher id."""

    msg: str
    content_type: str | None = None
    mentions: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall(_Change):
    """The message is gone for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction(_Change):
    """A reaction, or its end; of one user and one reaction the highest id counts."""

    reaction: str
    on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomEvent:
    """A room was made or has changed. Fields that did not change are None."""

    id: str
    room: str
    version: int
    """the room's version from now on"""
    action: str
    """create, add, remove, role, set, join, leave or close"""
    user_id: str
    """the user who did it"""
    send_time: int
    users: tuple[Member, ...] = ()
    """the users concerned; of a `create` the first 50 members"""
    count: int = 0
    """members afterwards"""
    name: str | None = None
    posting: str | None = None
    history: str | None = None
    joining: str | None = None
    data: Mapping[str, Any] | None = None
    from_user_type: str = ""
    client_msg_id: str | None = None
    seq: int | None = None


Change = Edit | Recall | Reaction
Entry = Message | Edit | Recall | Reaction | RoomEvent
"""anything that an inbox holds"""


def _about(frame: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": frame["id"],
        "of": frame["of"],
        "user_id": frame["userId"],
        "send_time": frame.get("sendTime") or 0,
        "to": frame.get("to") or "",
        "group": tuple(frame.get("group") or ()),
        "room": frame.get("room") or "",
        "from_user_type": frame.get("fromUserType") or "",
        "client_msg_id": frame.get("clientMsgId"),
        "is_visitor": bool(frame.get("isVisitor")),
        "seq": frame.get("seq"),
    }


def _edit(frame: Mapping[str, Any]) -> Edit:
    return Edit(
        msg=frame.get("msg") or "",
        content_type=frame.get("contentType"),
        mentions=tuple(frame.get("mentions") or ()),
        data=frame.get("data"),
        **_about(frame),
    )


def _recall(frame: Mapping[str, Any]) -> Recall:
    return Recall(**_about(frame))


def _react(frame: Mapping[str, Any]) -> Reaction:
    return Reaction(reaction=frame["reaction"], on=frame.get("on", True), **_about(frame))


def _room(frame: Mapping[str, Any]) -> RoomEvent:
    return RoomEvent(
        id=frame["id"],
        room=frame["room"],
        version=frame["version"],
        action=frame["action"],
        user_id=frame["userId"],
        send_time=frame.get("sendTime") or 0,
        users=tuple(
            Member(each["userId"], each.get("role") or "member") for each in frame.get("users") or ()
        ),
        count=frame.get("count") or 0,
        name=frame.get("name"),
        posting=frame.get("posting"),
        history=frame.get("history"),
        joining=frame.get("joining"),
        data=frame.get("data"),
        from_user_type=frame.get("fromUserType") or "",
        client_msg_id=frame.get("clientMsgId"),
        seq=frame.get("seq"),
    )


_KINDS: dict[str, Callable[[Mapping[str, Any]], Entry]] = {
    "edit": _edit,
    "recall": _recall,
    "react": _react,
    "room": _room,
}


def entry_of(frame: Mapping[str, Any], elsewhere: bool = False) -> Entry | None:
    """The entry of a decoded frame; None for a kind that is not known, or a field that is missing there.

    Raises KeyError for a message without an id.
    """
    kind = frame.get("kind")
    if kind in (None, "message"):
        return Message.of(frame, elsewhere)
    try:
        return _KINDS[kind](frame)
    except KeyError:
        return None


def is_copy(frame: Mapping[str, Any], user_id: str | None) -> bool:
    """True for what a user sent, and is not a recipient of: a copy for the user's devices."""
    if frame.get("userId") != user_id:
        return False
    return frame.get("to") != user_id and user_id not in (frame.get("group") or ())
