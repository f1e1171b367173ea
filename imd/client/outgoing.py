"""Entries of the outbox: messages, and the frames that make other events. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the protocol: its code, and words for people."""

    code: str
    reason: str


NO_EVENTS = Refusal("unsupported", "this cluster takes messages only")
"""the client's own: a feature that the cluster does not have, or not yet"""
NO_STATE = Refusal("unsupported", "this client does not ask for the feature `state`")


@dataclass(slots=True)
class Outgoing:
    """An entry of the outbox. `state`: waiting, sent (without an answer yet), accepted or failed."""

    client_msg_id: str
    msg: str = ""
    to: str = ""
    group: tuple[str, ...] = ()
    content_type: str | None = None
    queued_at: int = 0
    """milliseconds since the epoch, by the client's clock"""
    sent_at: int | None = None
    """the first time that it was sent and not refused unseen, in milliseconds of the node's clock"""
    state: str = "waiting"
    error: Refusal | None = None
    """why it failed"""
    id: str = ""
    """the id of the message or event, once it is accepted"""
    send_time: int = 0
    """milliseconds since the epoch, by the servers' clock, once it is accepted"""
    kind: str = ""
    """empty for a message; else edit, recall, react or room"""
    room: str = ""
    """the room of a message or of a room's action; of a `create`, once it is accepted"""
    of: str = ""
    """the id of the message that an edit, a recall or a reaction is about"""
    action: str = ""
    """of a room: create, add, remove, role, set, join, leave or close"""
    fields: dict[str, Any] = field(default_factory=dict)
    """the frame's other fields, such as replyTo, reaction or users, under the protocol's names"""
    version: int = 0
    """the room's version after an accepted action"""
    changed: bool = True
    """False: it was accepted, and there was nothing to change"""

    @property
    def needs_events(self) -> bool:
        """True for a frame, or fields, that a node without the feature `events` does not know."""
        return bool(self.kind or self.room or self.fields)

    @property
    def order(self) -> object:
        """Entries with the same value are sent one after the other."""
        if self.of:
            return "of", self.of
        if self.action == "create":
            return "create", self.client_msg_id
        return self.room or self.to or frozenset(self.group)

    @property
    def waits_alone(self) -> bool:
        """True if `unavailable` is about this entry's message or room, and not about the node."""
        return bool(self.kind or self.room)

    @property
    def expires(self) -> bool:
        """False for what may happen twice without harm, however late."""
        return self.kind not in ("recall", "react") and self.action != "create"

    def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = {"type": self.kind} if self.kind else {}
        frame["clientMsgId"] = self.client_msg_id
        if self.of:
            frame["id"] = self.of
        if self.action:
            frame["action"] = self.action
        if self.msg:
            frame["msg"] = self.msg
        if self.to:
            frame["to"] = self.to
        elif self.group:
            frame["group"] = list(self.group)
        elif self.room and self.action != "create":
            frame["room"] = self.room
        if self.content_type is not None:
            frame["contentType"] = self.content_type
        return frame | self.fields


def extras(
    reply_to: str | None = None,
    mentions: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of a message that only newer nodes know; without those that are empty."""
    fields: dict[str, Any] = {}
    if reply_to:
        fields["replyTo"] = reply_to
    if mentions:
        fields["mentions"] = list(mentions)
    if data is not None:
        fields["data"] = dict(data)
    return fields


def stored(outgoing: Outgoing) -> str:
    """The text that keeps an entry in a store; `restored` reads it."""
    kept = outgoing.frame() | {"queuedAt": outgoing.queued_at, "sentAt": outgoing.sent_at}
    if outgoing.needs_events:
        # Apart from the rest: an older program must not take an edit for a message.
        kept = {"event": outgoing.frame(), "queuedAt": outgoing.queued_at, "sentAt": outgoing.sent_at}
    if outgoing.id:
        kept["placed"] = outgoing.id
    if outgoing.error is not None:
        kept["error"] = [outgoing.error.code, outgoing.error.reason]
    return json.dumps(kept)


_NAMED = ("type", "clientMsgId", "id", "action", "msg", "to", "group", "room", "contentType")


def restored(text: str) -> Outgoing:
    kept = json.loads(text)
    frame = kept.get("event", kept)
    error = kept.get("error")
    fields = {name: value for name, value in frame.items() if name not in _NAMED} if "event" in kept else {}
    return Outgoing(
        client_msg_id=frame["clientMsgId"],
        msg=frame.get("msg", ""),
        to=frame.get("to", ""),
        group=tuple(frame.get("group", ())),
        content_type=frame.get("contentType"),
        queued_at=kept["queuedAt"],
        sent_at=kept["sentAt"],
        state="waiting" if error is None else "failed",
        error=None if error is None else Refusal(*error),
        id=kept.get("placed", ""),
        kind=frame.get("type", ""),
        room=frame.get("room", ""),
        of=frame.get("id", ""),
        action=frame.get("action", ""),
        fields=fields,
    )
