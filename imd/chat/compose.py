"""From a message frame to a message: the rules that a frame has to pass, and what the server adds."""

from __future__ import annotations

from imd.config.settings import Limits
from imd.contracts.inbox import Submission
from imd.protocol.author import Author
from imd.protocol.data import read_data
from imd.protocol.errors import FORBIDDEN, INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.frames import MessageFrame
from imd.protocol.ids import MessageIds, is_message_id
from imd.protocol.message import NO_DATA, IMessage, check_id, encode_message

MAX_CONTENT_TYPE_CHARS = 128
MAX_MENTIONS = 50
EVERYBODY = ["@all"]


def check(frame: MessageFrame, author: Author, limits: Limits) -> None:
    """Refuse what can never become a message, however often it comes.

    Raises Refused: `too_large` past a limit, `invalid_message` for what fails the seed's rules; in good form,
    `forbidden` for another's userId or a recipient that a visitor may not have.
    """
    to = frame.to or ""
    msg = frame.msg or ""
    if to:
        check_id("to", to)
    elif frame.group:
        _check_group(frame.group, limits.group_members)
    if frame.room and (to or frame.group):
        raise Refused(INVALID_MESSAGE, "room: neither to nor group stands beside it")
    if not (msg and (to or frame.group or frame.room or author.is_visitor)):
        missing = "to, group or room" if msg else "msg"
        raise Refused(INVALID_MESSAGE, f"{missing}: must not be empty")
    message_bytes = limits.message_bytes
    # A character has four bytes at most.
    if 4 * len(msg) > message_bytes and len(msg.encode()) > message_bytes:
        raise Refused(TOO_LARGE, f"msg: at most {message_bytes} bytes")
    if frame.content_type is not None and len(frame.content_type) > MAX_CONTENT_TYPE_CHARS:
        raise Refused(INVALID_MESSAGE, f"contentType: at most {MAX_CONTENT_TYPE_CHARS} characters")
    if frame.reply_to is not None or frame.mentions is not None or frame.data is not NO_DATA:
        check_more(frame)
    if frame.user_id and frame.user_id != author.user:
        raise Refused(FORBIDDEN, "userId: only one's own")
    if author.is_visitor and (frame.room or (frame.group and not to)):
        name = "group" if frame.group else "room"
        raise Refused(FORBIDDEN, f"{name}: a visitor writes to the desk and its agent only")


def check_more(frame: MessageFrame) -> None:
    """Check the fields that few messages have. They are then as a message keeps them.

    Raises Refused: `invalid_message`, `too_large`, `bad_frame` for `data` that is no object, `forbidden`
    for a mention of everybody outside a room.
    """
    frame.reply_to = frame.reply_to or None
    frame.mentions = frame.mentions or None
    if frame.reply_to and not is_message_id(frame.reply_to):
        raise Refused(INVALID_MESSAGE, "replyTo: a message's id is expected")
    if frame.mentions:
        check_mentions(frame.mentions)
    frame.data = read_data(frame.data)
    if frame.mentions == EVERYBODY and not frame.room:
        raise Refused(FORBIDDEN, f"mentions: {EVERYBODY[0]} is for rooms only")


def check_mentions(mentions: list[str]) -> None:
    """Raise Refused unless these are user ids, or EVERYBODY."""
    if len(mentions) > MAX_MENTIONS:
        raise Refused(TOO_LARGE, f"mentions: at most {MAX_MENTIONS} users")
    if EVERYBODY[0] in mentions and mentions != EVERYBODY:
        raise Refused(INVALID_MESSAGE, f"mentions: {EVERYBODY[0]} stands alone")
    for user in mentions:
        check_id("mentions", user)


def compose(frame: MessageFrame, author: Author, ids: MessageIds) -> Submission:
    """The message that `frame`, which has been checked, asks for: with its id, ready for the inboxes."""
    user = author.user
    to = frame.to or ""
    group = frame.group if frame.group and not to else None
    client_msg_id = frame.client_msg_id
    message_id, now_ms = ids.next()
    message = IMessage(
        message_id,
        client_msg_id,
        user,
        author.type_name,
        to,
        group,
        frame.msg or "",
        frame.content_type or None,
        frame.reply_to,
        frame.mentions,
        frame.data,
        now_ms,
        author.is_visitor,
    )
    return Submission(
        user,
        author.device,
        client_msg_id,
        message.checksum() if client_msg_id is not None else "-",
        message_id,
        now_ms,
        # Nearly every message is one to a single user, which needs no call.
        [to] if to and not author.is_visitor else message.recipients(),
        encode_message(message),
        to if author.is_visitor else "",
    )


def _check_group(group: list[str], group_members: int) -> None:
    if len(group) > group_members:
        raise Refused(TOO_LARGE, f"group: at most {group_members} members")
    for member in group:
        check_id("group", member)
