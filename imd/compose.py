"""From a message frame to a message: the rules that a frame has to pass, and what the server adds."""

from __future__ import annotations

from dataclasses import dataclass

from imd.errors import FORBIDDEN, INVALID_MESSAGE, TOO_LARGE, Refused
from imd.frames import MessageFrame
from imd.ids import MessageIds
from imd.interfaces import Submission
from imd.message import FromUserType, IMessage, check_id, encode_message

MAX_CONTENT_TYPE_CHARS = 128


@dataclass(frozen=True, slots=True)
class Author:
    """Whose connection the frame came on."""

    user: str
    device: str
    type: FromUserType


def compose(
    frame: MessageFrame, author: Author, ids: MessageIds, *, message_bytes: int, group_members: int
) -> Submission:
    """The message that `frame` asks for, with its id, ready for the inboxes.

    Raises Refused: `forbidden` for another's userId or a recipient that a visitor may not have,
    `too_large` past a limit, `invalid_message` for what fails the seed's rules.
    """
    if frame.user_id is not None and frame.user_id != author.user:
        raise Refused(FORBIDDEN, "userId: only one's own")
    message = IMessage(
        client_msg_id=frame.client_msg_id,
        user_id=author.user,
        from_user_type=author.type.value,
        msg=frame.msg or "",
        content_type=frame.content_type,
        is_visitor=author.type is FromUserType.VISITOR_TYPE,
    )
    if frame.to:
        check_id("to", frame.to)
        message.to = frame.to
    elif frame.group:
        _check_group(frame.group, group_members)
        message.group = frame.group
    if message.is_visitor and frame.group:
        raise Refused(FORBIDDEN, "group: a visitor writes to the desk and its agent only")
    if not message.is_msg_ok():
        missing = "to or group" if message.msg else "msg"
        raise Refused(INVALID_MESSAGE, f"{missing}: must not be empty")
    size = len(message.msg) if message.msg.isascii() else len(message.msg.encode())
    if size > message_bytes:
        raise Refused(TOO_LARGE, f"msg: at most {message_bytes} bytes")
    if message.content_type is not None and len(message.content_type) > MAX_CONTENT_TYPE_CHARS:
        raise Refused(INVALID_MESSAGE, f"contentType: at most {MAX_CONTENT_TYPE_CHARS} characters")
    message.id, now_ms = ids.next()
    message.set_now_as_send_time(now_ms)
    return Submission(
        sender=author.user,
        device=author.device,
        client_msg_id=frame.client_msg_id,
        content=message.content() if frame.client_msg_id is not None else "-",
        message_id=message.id,
        send_time=now_ms,
        recipients=message.recipients(),
        body=encode_message(message),
        visitor_to=message.to if message.is_visitor else "",
    )


def cost(frame: MessageFrame) -> float:
    """What a message counts against its connection's rate: a group list a tenth for each recipient."""
    if frame.to or not frame.group:
        return 1.0
    return max(1.0, len(frame.group) / 10)


def _check_group(group: list[str], group_members: int) -> None:
    if len(group) > group_members:
        raise Refused(TOO_LARGE, f"group: at most {group_members} members")
    for member in group:
        check_id("group", member)
