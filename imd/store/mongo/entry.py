"""Documents of MongoDB as history shows them: JSON with the marks of edits, recalls and reactions. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from imd.contracts.archive import Entry, Scope, Target
from imd.protocol.events import MESSAGE, ROOM, RoomMessage, encode_event
from imd.protocol.message import NO_DATA, IMessage, conversation_members, encode_message, visitor_of
from imd.store.mongo.document import EPOCH, LOGIN_TYPES, MILLISECOND, Unfit
from imd.store.shown import Edited, Reactions, shown, without_text
from imd.store.target import target_of

_NO_DOCUMENT = (LookupError, TypeError, ValueError, OverflowError, msgspec.MsgspecError)


class Found(NamedTuple):
    """An answer of the archive."""

    answer: Any
    foreign: int
    """documents that were skipped, since no node has written them"""


def to_json(document: Mapping[str, Any]) -> bytes:
    """An entry's JSON, as history shows it, without reactions. Dates must be aware.

    Raises Unfit for a document that no node has written.
    """
    try:
        if document.get("kind") == ROOM:
            return bytes(document["body"].encode())
        message = _message(document)
        recalled = document.get("recalled")
        if recalled is not None:
            return shown(without_text(message), recalled_ms=_ms(recalled))
        body = encode_message(message) if isinstance(message, IMessage) else encode_event(message)
        edited = document.get("edited")
        if edited is None:
            return body
        return shown(body, edited=Edited(str(edited["id"]), _ms(edited["time"])))
    except _NO_DOCUMENT as error:
        raise Unfit(f"{type(error).__name__} in a document") from None


def _message(document: Mapping[str, Any]) -> IMessage | RoomMessage:
    fields = {
        "id": document["_id"],
        "clientMsgId": document.get("clientMsgId"),
        "fromUserType": document["fromUserType"],
        "msg": document["msg"],
        "contentType": document.get("contentType"),
        "replyTo": document.get("replyTo"),
        "mentions": document.get("mentions"),
        "sendTime": _ms(document["sendTime"]),
    }
    if fields["fromUserType"] not in LOGIN_TYPES:
        raise Unfit("a sender of no known type")
    kind = document.get("kind")
    message: IMessage | RoomMessage
    if kind is None:
        fields |= {name: document[name] for name in ("userId", "to", "group", "isVisitor")}
        message = msgspec.convert(fields, IMessage)
    elif kind == MESSAGE:
        fields |= {"kind": kind, "userId": document["sender"]}
        fields |= {name: document[name] for name in ("room", "roomVersion")}
        message = msgspec.convert(fields, RoomMessage)
    else:
        raise Unfit("a kind that no message has")
    data = document.get("data")
    message.data = NO_DATA if data is None else msgspec.Raw(data)
    return message


def scope_of(document: Mapping[str, Any]) -> Scope:
    """Raises Unfit for a document that no node has written."""
    try:
        if room := document.get("room"):
            return Scope(document["conversation"], room=room, version=document["roomVersion"])
        message = IMessage(
            user_id=document["userId"],
            to=document["to"],
            group=document["group"],
            is_visitor=document["isVisitor"],
        )
        return Scope(
            document["conversation"],
            tuple(document["participants"]),
            visitor_of(conversation_members(message)),
            without=tuple(document.get("without", ())),
        )
    except _NO_DOCUMENT as error:
        raise Unfit(f"{type(error).__name__} in a document") from None


def to_entry(document: Mapping[str, Any], reactions: Reactions | None) -> Entry:
    """Raises Unfit for a document that no node has written."""
    body = shown(to_json(document), reactions=reactions)
    return Entry(document["_id"], body, scope_of(document), document.get("kind") or "")


def to_target(
    document: Mapping[str, Any], reactions: Mapping[str, frozenset[str]], different: frozenset[str]
) -> Target:
    """Raises Unfit for a document that no node has written, and for a room's event."""
    try:
        message = _message(document)
    except _NO_DOCUMENT as error:
        raise Unfit(f"{type(error).__name__} in a document") from None
    recalled = document.get("recalled") is not None
    scope = scope_of(document)
    return target_of(message, scope, recalled=recalled, reactions=reactions, different=different)


def _ms(date: datetime) -> int:
    return (date - EPOCH) // MILLISECOND
