"""The conversation that a frame names, from its user's side. No I/O."""

from __future__ import annotations

from typing import Protocol

import msgspec

from imd.protocol.author import Author
from imd.protocol.conversation import room_conversation_id
from imd.protocol.errors import INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.message import check_id, conversation_id, is_visitor_id


class Selector(msgspec.Struct, frozen=True, omit_defaults=True, rename={"with_": "with"}, gc=False):
    """A conversation as frames name it. Empty for a visitor, who has one."""

    with_: str = ""
    group: tuple[str, ...] = ()
    """the others of a list, sorted"""
    room: str = ""


class Target(msgspec.Struct, frozen=True, gc=False):
    """A conversation as its user named it."""

    conversation: str
    """its id"""
    selector: Selector
    others: tuple[str, ...] = ()
    """of a pair or a list: the users beside oneself, sorted; oneself alone, if there is nobody else"""
    room: str = ""
    visitor: str = ""
    """the visitor whose conversation it is"""


class Names(Protocol):
    """A frame, or a part of one, that has a selector."""

    with_: str | None
    group: list[str] | None
    room: str | None


def has_selector(frame: Names) -> bool:
    """True if the frame names a conversation, or several."""
    return bool(frame.with_ or frame.group or frame.room)


def check_names(frame: Names, group_members: int) -> None:
    """Raises Refused: `too_large` for too long a list, `invalid_message` for names that no user has."""
    if frame.with_:
        check_id("with", frame.with_)
    if frame.room:
        check_id("room", frame.room)
    if frame.group:
        if len(frame.group) > group_members:
            raise Refused(TOO_LARGE, f"group: at most {group_members} members")
        for member in frame.group:
            check_id("group", member)


def read_selector(frame: Names, author: Author, group_members: int) -> Target:
    """The conversation that the frame names. A visitor has one, whatever the frame says.

    Raises Refused: `invalid_message` if there is not exactly one selector, or a name that no user has;
    `too_large` for a list of more than `group_members`.
    """
    if author.is_visitor:
        return Target(conversation_id([author.user]), Selector(), visitor=author.user)
    if sum(map(bool, (frame.with_, frame.group, frame.room))) != 1:
        raise Refused(INVALID_MESSAGE, "exactly one of with, group and room is expected")
    check_names(frame, group_members)
    return target_of(frame, author)


def target_of(frame: Names, author: Author) -> Target:
    """The conversation that a frame names, which has been checked; `author` is no visitor."""
    if frame.room:
        return Target(room_conversation_id(frame.room), Selector(room=frame.room), room=frame.room)
    named = [frame.with_] if frame.with_ else frame.group or []
    others = tuple(sorted(set(named) - {author.user})) or (author.user,)
    if len(others) > 1:
        return Target(conversation_id(sorted({author.user, *others})), Selector(group=others), others)
    (other,) = others
    if is_visitor_id(other):
        return Target(conversation_id([other]), Selector(with_=other), visitor=other)
    return Target(conversation_id(sorted({author.user, other})), Selector(with_=other), others)
