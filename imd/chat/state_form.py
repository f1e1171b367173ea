"""The form of the frames `read` and `settings`: from a frame to marks and a setting. No I/O.

Each function raises Refused: `too_large` for too many marks, else `invalid_message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from imd.contracts.state import Setting
from imd.protocol.author import Author
from imd.protocol.errors import INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.ids import is_message_id
from imd.protocol.selector import Target, has_selector, read_selector
from imd.protocol.state_frames import MarkIn, ReadFrame, SettingsFrame

MAX_MARKS = 200
AHEAD_MS = 60_000
"""how far a mark may lie beyond the latest id that there can be"""
_OF_CONVERSATIONS = ("muted", "pinned", "marked")


class Named(NamedTuple):
    """A conversation that has been read up to a message."""

    target: Target
    up_to: str


def read_marks(frame: ReadFrame, author: Author, group_members: int, latest_ms: int) -> list[Named]:
    """The marks of a frame, each conversation once. `latest_ms`: see MessageIds."""
    own = bool(frame.up_to) or has_selector(frame)
    if own == bool(frame.marks):
        raise Refused(INVALID_MESSAGE, "either a selector with upTo is expected, or marks")
    if frame.marks and len(frame.marks) > MAX_MARKS:
        raise Refused(TOO_LARGE, f"marks: at most {MAX_MARKS}")
    highest: dict[str, Named] = {}
    marks: Sequence[MarkIn | ReadFrame] = frame.marks or [frame]
    for mark in marks:
        target = read_selector(mark, author, group_members)
        up_to = _place("upTo", mark.up_to or "", latest_ms)
        known = highest.get(target.conversation)
        if known is None or known.up_to < up_to:
            highest[target.conversation] = Named(target, up_to)
    return list(highest.values())


def read_setting(
    frame: SettingsFrame, author: Author, group_members: int, latest_ms: int
) -> tuple[Target | None, Setting]:
    """The conversation, or None for the user's own settings; and the values to set."""
    hidden = None if frame.hidden is msgspec.UNSET else frame.hidden or ""
    given = any(getattr(frame, name) is not None for name in _OF_CONVERSATIONS)
    given = given or bool(frame.cleared) or hidden is not None
    # A visitor names no conversation.
    if not has_selector(frame) and not (author.is_visitor and given):
        if given:
            raise Refused(INVALID_MESSAGE, "a selector is expected: with, group or room")
        if frame.receipts is None:
            raise Refused(INVALID_MESSAGE, "nothing to set")
        return None, Setting(receipts=frame.receipts)
    target = read_selector(frame, author, group_members)
    if frame.receipts is not None:
        raise Refused(INVALID_MESSAGE, "receipts: no selector is expected")
    if not given:
        raise Refused(INVALID_MESSAGE, "nothing to set")
    muted = frame.muted
    if muted is not None and not isinstance(muted, bool) and not 0 <= muted < 2**53:
        raise Refused(INVALID_MESSAGE, "muted: true, false or a time in ms is expected")
    return target, Setting(
        target.conversation,
        target.selector,
        # A time that has passed since 1970 means no more than false.
        muted=muted if muted is None or isinstance(muted, bool) or muted > 1 else False,
        pinned=frame.pinned,
        hidden=_place("hidden", hidden, latest_ms) if hidden else hidden,
        cleared=_place("cleared", frame.cleared, latest_ms) if frame.cleared else None,
        marked=frame.marked,
    )


def _place(name: str, message_id: str, latest_ms: int) -> str:
    if not is_message_id(message_id):
        raise Refused(INVALID_MESSAGE, f"{name}: a message id has 28 lowercase hexadecimal digits")
    if int(message_id[:12], 16) > latest_ms + AHEAD_MS:
        raise Refused(INVALID_MESSAGE, f"{name}: more than a minute in the future")
    return message_id
