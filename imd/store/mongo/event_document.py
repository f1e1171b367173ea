"""Events as documents in MongoDB, and the fields that they change in the documents of messages. No I/O.

Updates are made so that their order does not matter, nor how often each is done: of edits the highest id
counts, a recall is final, and of a user's equal reactions the last counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bson
import msgspec
import pymongo

from imd.contracts.archive import left_out, of_version
from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import (
    EDIT,
    MESSAGE,
    REACT,
    RECALL,
    ROOM,
    Edit,
    React,
    Recall,
    RoomEvent,
    RoomMessage,
    decode_event,
)
from imd.protocol.message import conversation_id, conversation_members
from imd.store.mongo.document import (
    EPOCH,
    LAST_MS,
    LOGIN_TYPES,
    MAX_DOCUMENT_BYTES,
    MILLISECOND,
    ArchivedMessage,
    Document,
    Talk,
    Unfit,
)
from imd.store.shown import without_text

OfMessage = Edit | Recall | React
NO_ROOM_EVENT = {"kind": {"$ne": ROOM}}
_ON, _OFF = "1", "0"


class _Extras(msgspec.Struct, rename="camel"):
    agent: str = ""
    of_version: int = 0
    without: list[str] | None = None


class EventDocument(msgspec.Struct, gc=False):
    """An event, encoded for its own collection."""

    event: OfMessage | RoomEvent
    encoded: bytes
    agent: str = ""


_extras_of = msgspec.json.Decoder(_Extras).decode


def to_event(
    record: bytes, message: ArchivedMessage, now_ms: int
) -> tuple[Document | None, EventDocument | None]:
    """A record with a kind as documents, first written at `now_ms`: among messages, among events, or both.

    `message` is the record as `read_archived` gives it. Raises Unfit.
    """
    try:
        extras = _extras_of(record)
        event = decode_event(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(f"not an event: {error}") from None
    if not event.id or not event.user_id:
        raise Unfit("an event without an id or a user")
    if event.from_user_type not in LOGIN_TYPES:
        raise Unfit("a user of no known type")
    if not 0 <= event.send_time <= LAST_MS:
        raise Unfit("a time that is no date")
    try:
        if isinstance(event, RoomMessage):
            talk = Talk(room_conversation_id(event.room), version=event.room_version)
            return _encoded(event.id, _room_message(event, now_ms), talk), None
        fields = _event(event, message, extras, _without(record, extras), now_ms)
        document = _encoded(event.id, fields)
        return document if isinstance(event, RoomEvent) else None, EventDocument(
            event, document.encoded, extras.agent
        )
    except (bson.errors.BSONError, OverflowError, ValueError, TypeError) as error:
        raise Unfit(f"{type(error).__name__} while encoding") from None


def _without(record: bytes, extras: _Extras) -> bytes:
    """The event as it was delivered: a record without its last members, which only the archive knows."""
    body = record[:-1]
    if extras.agent:
        body = body.removesuffix(b',"agent":%b' % msgspec.json.encode(extras.agent))
    if extras.of_version:
        body = body.removesuffix(b",%b" % of_version(extras.of_version))
    if extras.without:
        body = body.removesuffix(b",%b" % left_out(extras.without))
    return b"%b}" % body


def _room_message(event: RoomMessage, now_ms: int) -> dict[str, Any]:
    """The sender is not in `userId`, whose index is for the history of all conversations without rooms."""
    fields = {
        "_id": event.id,
        "kind": MESSAGE,
        "sender": event.user_id,
        "fromUserType": event.from_user_type,
        "room": event.room,
        "roomVersion": event.room_version,
        "conversation": room_conversation_id(event.room),
        "msg": event.msg,
        "clientMsgId": event.client_msg_id,
        "contentType": event.content_type,
        "replyTo": event.reply_to,
        "mentions": event.mentions,
        "data": bytes(event.data).decode() or None,
        "sendTime": _date(event.send_time),
        "createTime": _date(now_ms),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _event(
    event: OfMessage | RoomEvent, message: ArchivedMessage, extras: _Extras, body: bytes, now_ms: int
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "_id": event.id,
        "sender": event.user_id,
        "sendTime": _date(event.send_time),
        "createTime": _date(now_ms),
        "body": body.decode(),
    }
    if isinstance(event, RoomEvent):
        more = {"kind": ROOM, "room": event.room, "roomVersion": event.version, "version": event.version}
        return {**fields, **more, "conversation": room_conversation_id(event.room)}
    fields["of"] = event.of
    if isinstance(event, Edit):
        # The text stands in `full` alone, so a recall has one field to remove.
        fields |= {
            "kind": EDIT,
            "full": fields["body"],
            "body": without_text(msgspec.structs.replace(event)).decode(),
        }
    else:
        fields["kind"] = RECALL if isinstance(event, Recall) else REACT
    if event.room:
        more = {"room": event.room, "roomVersion": extras.of_version}
        return {**fields, **more, "conversation": room_conversation_id(event.room)}
    participants = {event.user_id, *([event.to] if event.to else event.group or ())}
    if extras.agent:
        participants.add(extras.agent)
    if extras.without:
        participants.difference_update(extras.without)
        fields["without"] = extras.without
    members = conversation_members(message)
    return {**fields, "conversation": conversation_id(members), "participants": sorted(participants)}


def _encoded(event_id: str, fields: dict[str, Any], talk: Talk | None = None) -> Document:
    encoded = bson.encode(fields)
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise Unfit(f"a document of {len(encoded)} bytes")
    return Document(event_id, encoded, "", talk)


def _date(milliseconds: int) -> datetime:
    return EPOCH + milliseconds * MILLISECOND


def change_of(event: OfMessage) -> pymongo.UpdateOne:
    """The event's change in the document of its message. It does nothing where there is no such document."""
    if isinstance(event, Recall):
        gone = {"contentType": "", "data": "", "mentions": "", "edited": ""}
        update = {"$set": {"msg": ""}, "$unset": gone, "$min": {"recalled": _date(event.send_time)}}
        return pymongo.UpdateOne({"_id": event.of, **NO_ROOM_EVENT}, update)
    if isinstance(event, React):
        return pymongo.UpdateOne({"_id": event.of, **NO_ROOM_EVENT}, {"$set": {"reacted": True}})
    fields: dict[str, Any] = {
        "contentType": event.content_type,
        "mentions": event.mentions or None,
        "data": bytes(event.data).decode() or None,
    }
    now = {name: value for name, value in fields.items() if value is not None}
    now |= {"msg": event.msg, "edited": {"id": event.id, "time": _date(event.send_time)}}
    wanted = {
        "_id": event.of,
        **NO_ROOM_EVENT,
        "recalled": None,
        "$or": [{"edited": None}, {"edited.id": {"$lt": event.id}}],
    }
    update = {"$set": now}
    if gone := {name: "" for name, value in fields.items() if value is None}:
        update["$unset"] = gone
    return pymongo.UpdateOne(wanted, update)


def reaction_of(event: React) -> pymongo.UpdateOne:
    """The event's change in the document of the reaction. One field says which event was the last, and what
    it said, so that the higher one stays whatever comes first."""
    key = {"of": event.of, "user": event.user_id, "reaction": event.reaction}
    last = event.id + (_OFF if event.on is False else _ON)
    return pymongo.UpdateOne({"_id": key}, {"$max": {"last": last}}, upsert=True)
