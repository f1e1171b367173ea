"""From an archived message to the target of an edit, recall or reaction. Both stores make targets by this."""

from __future__ import annotations

from collections.abc import Mapping

from imd.contracts.archive import Scope, Target
from imd.protocol.events import RoomEvent, RoomMessage
from imd.protocol.message import IMessage


def target_of(
    message: IMessage | RoomMessage | RoomEvent,
    scope: Scope,
    *,
    recalled: bool,
    reactions: Mapping[str, frozenset[str]],
    different: frozenset[str],
) -> Target:
    """`reactions` and `different` as in Target."""
    plain = message if isinstance(message, IMessage) else IMessage()
    return Target(
        message_id=message.id,
        author=message.user_id,
        from_user_type=message.from_user_type,
        send_time=message.send_time,
        to=plain.to,
        group=tuple(plain.group) if plain.group else None,
        is_visitor=plain.is_visitor,
        recalled=recalled,
        scope=scope,
        reactions=reactions,
        different=different,
    )
