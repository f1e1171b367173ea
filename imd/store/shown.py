"""Messages as history shows them now: edited, recalled, with reactions. Events without what was recalled.

No I/O. Both stores show messages by these functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from imd.protocol.events import Edit, Event, RoomMessage, encode_event
from imd.protocol.message import NO_DATA, IMessage, encode_message

REACTION_USERS = 20
"""of those who reacted alike, at most so many are named; the viewer always, who may take its own back"""

_json = msgspec.json.encode


class Edited(NamedTuple):
    """The edit that counts."""

    event_id: str
    time_ms: int


class Reaction(msgspec.Struct, frozen=True, gc=False):
    """A reaction that is there now. `users`: those of its users who are named."""

    reaction: str
    count: int
    users: list[str]


class Reactions(NamedTuple):
    """Of one message. `up_to`: the highest event id that counts."""

    present: list[Reaction]
    up_to: str


def shown(
    body: bytes,
    *,
    edited: Edited | None = None,
    recalled_ms: int | None = None,
    reactions: Reactions | None = None,
) -> bytes:
    """A message's JSON, which has the present text already, with the marks of its changes as last members."""
    more = b""
    if recalled_ms is not None:
        more = b',"recalled":%d' % recalled_ms
    elif edited is not None:
        more = b',"edited":{"id":%b,"time":%d}' % (_json(edited.event_id), edited.time_ms)
    if reactions is not None:
        more += b',"reactions":%b,"reactionsUpTo":%b' % (_json(reactions.present), _json(reactions.up_to))
    return b"%b%b}" % (body[:-1], more) if more else body


def with_text(message: IMessage | RoomMessage, edit: Edit) -> bytes:
    """The JSON of `message` after `edit`. The edit is whole; only `replyTo` stays."""
    message.msg = edit.msg
    message.content_type = edit.content_type
    message.mentions = edit.mentions
    message.data = edit.data
    return _encode(message)


def without_text(message: IMessage | RoomMessage | Edit) -> bytes:
    """The JSON of a message that was recalled, or of an edit of it: `msg` is there, and empty."""
    message.msg = ""
    message.content_type = message.mentions = None
    message.data = NO_DATA
    return b'%b,"msg":""}' % _encode(message)[:-1]


def kind_of(event: Event) -> str:
    """The kind, as in the event's JSON."""
    return str(event.__struct_config__.tag)


def _encode(message: IMessage | RoomMessage | Edit) -> bytes:
    return encode_message(message) if isinstance(message, IMessage) else encode_event(message)


def named(users: Sequence[str], viewer: str, *, reacted: bool) -> list[str]:
    """The users of a reaction who are named: the first REACTION_USERS, or one less and the viewer.

    `users`: at least the first ones, in their order. `reacted`: the viewer is among all that there are.
    """
    first = list(users[:REACTION_USERS])
    return [*first[:-1], viewer] if reacted and viewer not in first else first


def reactions_of(last: Iterable[tuple[str, str, str, bool]], viewer: str) -> Reactions | None:
    """The reactions of a message from the last event of each: (event id, user, reaction, on).

    None if there was none. The reaction that was given first comes first, and so do its users, as `named` to
    the viewer.
    """
    found: dict[str, list[str]] = {}
    up_to = ""
    for event_id, user, reaction, on in sorted(last):
        up_to = event_id
        if on:
            found.setdefault(reaction, []).append(user)
    if not up_to:
        return None
    present = [
        Reaction(reaction, len(users), named(users, viewer, reacted=viewer in users))
        for reaction, users in found.items()
    ]
    return Reactions(present, up_to)
