"""The form of questions about conversations: history, messages and changes. No I/O.

Each function raises Refused: `too_large` for too many entries in a list, else `invalid_message`.
"""

from __future__ import annotations

from imd.protocol.errors import INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.ids import is_message_id
from imd.protocol.requests import ChangesFrame, HistoryFrame, MessagesFrame
from imd.protocol.selector import check_names

MAX_LIMIT = 200
MAX_MESSAGES = 50


def check_history(frame: HistoryFrame, group_members: int, *, is_visitor: bool, level: int) -> None:
    """Level 1 takes any text as an id."""
    check_selector(frame, group_members, is_visitor=is_visitor)
    check_limit(frame.limit)
    if level >= 2:
        given = [check_place(name, getattr(frame, name)) for name in ("before", "after", "around")]
        if sum(given) > 1:
            raise Refused(INVALID_MESSAGE, "at most one of before, after and around is expected")


def check_changes(frame: ChangesFrame, group_members: int, *, is_visitor: bool) -> None:
    check_selector(frame, group_members, is_visitor=is_visitor)
    check_limit(frame.limit, 0)
    check_place("after", frame.after)


def check_messages(frame: MessagesFrame) -> list[str]:
    """Gives the ids, each once."""
    if not frame.ids:
        raise Refused(INVALID_MESSAGE, f"ids: 1 to {MAX_MESSAGES} message ids are expected")
    if len(frame.ids) > MAX_MESSAGES:
        raise Refused(TOO_LARGE, f"ids: at most {MAX_MESSAGES} message ids")
    for message_id in frame.ids:
        if not is_message_id(message_id):
            raise Refused(INVALID_MESSAGE, "ids: a message id has 28 lowercase hexadecimal digits")
    return sorted(set(frame.ids))


def check_selector(frame: HistoryFrame | ChangesFrame, group_members: int, *, is_visitor: bool) -> None:
    """A question names exactly one conversation, or all. A visitor has one; its selector is ignored."""
    if is_visitor:
        return
    given = [frame.with_, frame.group, frame.room, frame.all]
    if sum(map(bool, given)) != 1:
        raise Refused(INVALID_MESSAGE, "exactly one of with, group, room and all is expected")
    check_names(frame, group_members)


def check_limit(limit: int, least: int = 1, most: int = MAX_LIMIT) -> None:
    if not least <= limit <= most:
        raise Refused(INVALID_MESSAGE, f"limit: {least} to {most} is expected")


def check_place(name: str, message_id: str | None) -> bool:
    """True if there is an id; empty means that there is none."""
    if not message_id:
        return False
    if not is_message_id(message_id):
        raise Refused(INVALID_MESSAGE, f"{name}: a message id has 28 lowercase hexadecimal digits")
    return True
