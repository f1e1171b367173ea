"""The form of the frames edit, recall and react: what they ask for, before anything is looked up."""

from __future__ import annotations

from imd.chat.compose import MAX_CONTENT_TYPE_CHARS, check_mentions
from imd.config.settings import Limits
from imd.protocol.author import Author
from imd.protocol.data import read_data
from imd.protocol.errors import INVALID_MESSAGE, NOT_FOUND, TOO_LARGE, Refused
from imd.protocol.events import Edit, React, Recall
from imd.protocol.grapheme import is_one_grapheme
from imd.protocol.ids import is_message_id
from imd.protocol.requests import EditFrame, ReactFrame, RecallFrame

MAX_REACTION_BYTES = 32

ChangeFrame = EditFrame | RecallFrame | ReactFrame
Change = Edit | Recall | React


def read_change(frame: ChangeFrame, author: Author, limits: Limits) -> Change:
    """The event that `frame` asks for; its id, time and conversation are still missing.

    Raises Refused: `invalid_message`, `too_large`, `bad_frame` for `data` that is no object.
    """
    if not frame.client_msg_id:
        raise Refused(INVALID_MESSAGE, "clientMsgId: must not be empty")
    if not frame.id:
        raise Refused(INVALID_MESSAGE, "id: a message's id is expected")
    change = _read(frame, limits)
    if not is_message_id(frame.id):
        # It names nothing, as other ids that no message has.
        raise not_found()
    change.of = frame.id
    change.client_msg_id = frame.client_msg_id
    change.user_id = author.user
    change.from_user_type = author.type_name
    return change


def not_found() -> Refused:
    """The refusal for a message that is not there, and for one that the user may not know of."""
    return Refused(NOT_FOUND, "no such message")


def _read(frame: ChangeFrame, limits: Limits) -> Change:
    if isinstance(frame, EditFrame):
        return _read_edit(frame, limits)
    if isinstance(frame, RecallFrame):
        return Recall()
    return React(reaction=_read_reaction(frame.reaction), on=frame.on is not False)


def _read_edit(frame: EditFrame, limits: Limits) -> Edit:
    msg = frame.msg or ""
    if not msg:
        raise Refused(INVALID_MESSAGE, "msg: must not be empty")
    if len(msg.encode()) > limits.message_bytes:
        raise Refused(TOO_LARGE, f"msg: at most {limits.message_bytes} bytes")
    if frame.content_type and len(frame.content_type) > MAX_CONTENT_TYPE_CHARS:
        raise Refused(INVALID_MESSAGE, f"contentType: at most {MAX_CONTENT_TYPE_CHARS} characters")
    if frame.mentions:
        check_mentions(frame.mentions)
    return Edit(
        msg=msg,
        content_type=frame.content_type or None,
        mentions=frame.mentions or None,
        data=read_data(frame.data),
    )


def _read_reaction(reaction: str | None) -> str:
    most = MAX_REACTION_BYTES
    # A text of more characters has more bytes.
    if not reaction or len(reaction) > most or len(reaction.encode()) > most or not is_one_grapheme(reaction):
        raise Refused(INVALID_MESSAGE, f"reaction: one character of at most {most} bytes is expected")
    return reaction
