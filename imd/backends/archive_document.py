"""What a message looks like in MongoDB: from its JSON to a document and back, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import bson
import msgspec
from bson.datetime_ms import DatetimeMS

from imd.message import (
    FromUserType,
    IMessage,
    LoginType,
    conversation_id,
    conversation_members,
    encode_message,
)

MAX_DOCUMENT_BYTES = 16 << 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LOGIN_TYPES = {
    FromUserType.CUSTOMER_SERVICE.value: LoginType.USER_TYPE.value,
    FromUserType.USER_TYPE.value: LoginType.USER_TYPE.value,
    FromUserType.CUSTOMER_TYPE.value: LoginType.CUSTOMER_TYPE.value,
    FromUserType.VISITOR_TYPE.value: None,
}


class ArchivedMessage(IMessage):
    """A message as it comes out of the archive queue: with who got it, if it was a visitor's."""

    agent: str = ""


class Unfit(Exception):
    """This can never become a document; says why without showing what it holds."""


_AGENT = FromUserType.CUSTOMER_SERVICE.value
_VISITOR = FromUserType.VISITOR_TYPE.value
_decode = msgspec.json.Decoder(ArchivedMessage).decode
_encode_bson = bson.encode


def to_bson(body: bytes | msgspec.Raw, now: datetime) -> tuple[str, bytes]:
    """The message id and the encoded document of one message's JSON, first written at `now`. Raises Unfit."""
    try:
        message = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(f"not a message: {error}") from None
    if not message.id or not message.user_id:
        raise Unfit("a message without an id or a sender")
    if message.from_user_type not in _LOGIN_TYPES:
        raise Unfit("a sender of no known type")
    if not 0 <= message.send_time <= _LAST_MS:
        raise Unfit("a time that is no date")
    try:
        encoded = _encode_bson(to_document(message, now))
    except (bson.errors.BSONError, OverflowError, ValueError, TypeError) as error:
        raise Unfit(f"{type(error).__name__} while encoding") from None
    # The server's own limit; the driver would fail the whole batch.
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise Unfit(f"a document of {len(encoded)} bytes")
    return message.id, encoded


def to_document(message: ArchivedMessage, now: datetime) -> dict[str, Any]:
    """The seed's fields, and by what history is found: `conversation` and `participants`."""
    if message.group and not message.to:
        conversation, participants = _found_by(message)
    else:
        conversation, participants = _found_by_pair(
            message.user_id, message.to, message.is_visitor, message.agent
        )
    document: dict[str, Any] = {
        "_id": message.id,
        "userId": message.user_id,
        "to": message.to,
        "group": message.group,
        "msg": message.msg,
        "loginType": _LOGIN_TYPES[message.from_user_type],
        "isCustomerService": message.from_user_type == _AGENT,
        "isVisitor": message.is_visitor or message.from_user_type == _VISITOR,
        "isConnect": False,
        "sendTime": DatetimeMS(message.send_time),
        "createTime": now,
        "conversation": conversation,
        "participants": participants,
        "fromUserType": message.from_user_type,
    }
    if message.client_msg_id is not None:
        document["clientMsgId"] = message.client_msg_id
    if message.content_type is not None:
        document["contentType"] = message.content_type
    if message.agent:
        document["agent"] = message.agent
    return document


def _found_by(message: ArchivedMessage) -> tuple[str, list[str]]:
    """The conversation, and the sorted ids of those who take part."""
    participants = {message.user_id, *([message.to] if message.to else message.group or ())}
    if message.agent:
        participants.add(message.agent)
    return conversation_id(conversation_members(message)), sorted(participants)


@lru_cache(maxsize=50_000)
def _found_by_pair(user_id: str, to: str, is_visitor: bool, agent: str) -> tuple[str, list[str]]:
    """The same for all messages between two, of which there tend to be many. Not to be changed."""
    return _found_by(ArchivedMessage(user_id=user_id, to=to, is_visitor=is_visitor, agent=agent))


def to_json(document: Mapping[str, Any]) -> bytes:
    """The message's JSON, as its recipients got it. Dates must be aware."""
    return encode_message(
        IMessage(
            id=document["_id"],
            client_msg_id=document.get("clientMsgId"),
            user_id=document["userId"],
            from_user_type=document["fromUserType"],
            to=document["to"],
            group=document["group"],
            msg=document["msg"],
            content_type=document.get("contentType"),
            send_time=(document["sendTime"] - _EPOCH) // _MILLISECOND,
            is_visitor=document["isVisitor"],
        )
    )
