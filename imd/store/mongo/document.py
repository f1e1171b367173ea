"""A message as a document in MongoDB. No I/O."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import bson
import msgspec

from imd.protocol.message import (
    FromUserType,
    IMessage,
    LoginType,
    conversation_id,
    conversation_members,
    visitor_of,
)

MAX_DOCUMENT_BYTES = 16 << 20

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // MILLISECOND
LOGIN_TYPES = {
    FromUserType.CUSTOMER_SERVICE.value: LoginType.USER_TYPE.value,
    FromUserType.USER_TYPE.value: LoginType.USER_TYPE.value,
    FromUserType.CUSTOMER_TYPE.value: LoginType.CUSTOMER_TYPE.value,
    FromUserType.VISITOR_TYPE.value: None,
}


class ArchivedMessage(IMessage):
    """A message from the archive queue. `agent`: the agent that got it, if it is a visitor's."""

    agent: str = ""
    kind: str = ""
    """of an event; empty for a plain message"""
    without: list[str] | None = None
    """recipients of a list whom a block left out"""


class Talk(NamedTuple):
    """The conversation that a message belongs to, for the list of conversations."""

    conversation: str
    people: tuple[str, ...] = ()
    """sorted; empty for a room"""
    without: tuple[str, ...] = ()
    """sorted: those of `people` who do not see the message"""
    version: int = 0
    """the room's, that the message was placed under"""


class Document(msgspec.Struct, gc=False):
    """A message, or a room's event, encoded for MongoDB."""

    message_id: str
    encoded: bytes
    list_id: str
    """the conversation, if it is a message to a list; else empty"""
    talk: Talk | None = None
    """None for a visitor's message, and for a room's event"""


class Unfit(Exception):
    """Raised for a message that can never become a document. The text does not show the message."""


_AGENT = FromUserType.CUSTOMER_SERVICE.value
_VISITOR = FromUserType.VISITOR_TYPE.value
read_archived = msgspec.json.Decoder(ArchivedMessage).decode
"""a record of the archive queue, undone. Raises one of UNREADABLE"""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encode_bson = bson.encode
_int32 = struct.Struct("<i").pack
_named_int64 = struct.Struct("<10sq").pack


def to_document(message: ArchivedMessage, now_ms: int) -> Document:
    """A plain message as a document, first written at `now_ms`. Raises Unfit."""
    if not message.id or not message.user_id:
        raise Unfit("a message without an id or a sender")
    if message.from_user_type not in LOGIN_TYPES:
        raise Unfit("a sender of no known type")
    if not 0 <= message.send_time <= LAST_MS:
        raise Unfit("a time that is no date")
    try:
        group = None if message.group is None else tuple(message.group)
        shared_fields = _of_list if group and not message.to else _of_pair
        shared, list_id, talk = shared_fields(
            message.user_id,
            message.from_user_type,
            message.is_visitor,
            message.agent,
            message.to,
            group,
        )
        if message.without:
            # Cached fields have all participants. Without some of them it covers no other, nor is covered.
            shared, list_id, talk = _shared_fields(message), "", talk_of(message)
    except (bson.errors.BSONError, OverflowError, ValueError, TypeError) as error:
        raise Unfit(f"{type(error).__name__} while encoding") from None
    # The fields that differ between messages, as BSON (bsonspec.org, version 1.1).
    message_id, text = message.id.encode(), message.msg.encode()
    elements = b"\x02_id\0%b%b\0%b\x02msg\0%b%b\0%b%b" % (
        _int32(len(message_id) + 1),
        message_id,
        shared,
        _int32(len(text) + 1),
        text,
        _named_int64(b"\x09sendTime\0", message.send_time),
        _created(now_ms),
    )
    if message.client_msg_id is not None:
        elements += _string(b"clientMsgId", message.client_msg_id)
    if message.content_type is not None:
        elements += _string(b"contentType", message.content_type)
    if message.reply_to or message.mentions or message.data:
        elements += more_fields(message.reply_to, message.mentions, message.data)
    if message.is_visitor or message.from_user_type == _VISITOR or message.without:
        elements += _string(b"covers", message.id)
    encoded = _document(elements)
    # The server's limit. The driver would fail the whole batch for it.
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise Unfit(f"a document of {len(encoded)} bytes")
    return Document(message.id, encoded, list_id, talk)


def more_fields(reply_to: str | None, mentions: list[str] | None, data: msgspec.Raw) -> bytes:
    """The fields that few messages have, as BSON. `data` is kept as text, byte for byte."""
    fields: dict[str, Any] = {"replyTo": reply_to, "mentions": mentions, "data": bytes(data).decode()}
    return _encode_bson({name: value for name, value in fields.items() if value})[4:-1]


def covering(encoded: bytes, oldest: str) -> bytes:
    """The same document, with the field `covers`."""
    return _document(encoded[4:-1] + _string(b"covers", oldest))


def _string(name: bytes, value: str) -> bytes:
    text = value.encode()
    return b"\x02%b\0%b%b\0" % (name, _int32(len(text) + 1), text)


def _document(elements: bytes) -> bytes:
    return b"%b%b\0" % (_int32(len(elements) + 5), elements)


@lru_cache(maxsize=1)
def _created(now_ms: int) -> bytes:
    """Cached, since a batch has one time."""
    return b"\x09createTime\0" + struct.pack("<q", now_ms)


def _shared(
    user_id: str,
    kind: str,
    is_visitor: bool,
    agent: str,
    to: str,
    group: tuple[str, ...] | None,
) -> tuple[bytes, str, Talk | None]:
    """The fields that messages of one sender to the same recipients share, the conversation of a list, and
    the place in the list of conversations."""
    message = ArchivedMessage(
        user_id=user_id,
        from_user_type=kind,
        is_visitor=is_visitor,
        agent=agent,
        to=to,
        group=None if group is None else list(group),
    )
    members = conversation_members(message)
    is_list = bool(group) and not to and not visitor_of(members)
    list_id = conversation_id(members) if is_list else ""
    return _shared_fields(message), list_id, talk_of(message)


# People who talk send many messages. With the longest ids and lists each cache takes up to 40 MB.
_of_pair = lru_cache(maxsize=10_000)(_shared)
_of_list = lru_cache(maxsize=64)(_shared)


def talk_of(message: ArchivedMessage) -> Talk | None:
    """The conversation of a plain message, for the list of conversations; None for a visitor's."""
    members = conversation_members(message)
    if message.from_user_type == _VISITOR or visitor_of(members):
        return None
    return Talk(conversation_id(members), tuple(members), tuple(sorted(message.without or ())))


def _shared_fields(message: ArchivedMessage) -> bytes:
    """The fields themselves, and the ones that history is found by."""
    conversation, participants = _found_by(message)
    fields: dict[str, Any] = {
        "userId": message.user_id,
        "to": message.to,
        "group": message.group,
        "loginType": LOGIN_TYPES[message.from_user_type],
        "isCustomerService": message.from_user_type == _AGENT,
        "isVisitor": message.is_visitor or message.from_user_type == _VISITOR,
        "isConnect": False,
        "conversation": conversation,
        "participants": participants,
        "fromUserType": message.from_user_type,
    }
    if message.agent:
        fields["agent"] = message.agent
    if message.without:
        fields["without"] = message.without
    return _encode_bson(fields)[4:-1]


def _found_by(message: ArchivedMessage) -> tuple[str, list[str]]:
    """The conversation, and the sorted ids of its participants."""
    participants = {message.user_id, *([message.to] if message.to else message.group or ())}
    if message.agent:
        participants.add(message.agent)
    participants.difference_update(message.without or ())
    return conversation_id(conversation_members(message)), sorted(participants)
