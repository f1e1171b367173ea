"""Messages and rooms as they are now, whatever the order in which the client hears of them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from imd.client.events import Accepted, RoomInfo, RoomPage
from imd.client.numbered import (
    Change,
    Edit,
    Edited,
    Entry,
    Member,
    Message,
    Reaction,
    Reactions,
    Recall,
    RoomEvent,
)

MOST_UNKNOWN = 1000
"""most messages that are not here, with changes that wait for them"""
MOST_USERS = 20
"""users that are named beside a reaction's count; oneself always, so that one can take one's own back"""


@dataclass(slots=True)
class _Record:
    base: Message | None = None
    edit: Edit | None = None
    """the edit with the highest id"""
    recalled: int | None = None
    """the time of the recall"""
    reactions: dict[tuple[str, str], Reaction] = field(default_factory=dict)
    """the last one of each user and reaction, if it is later than the base"""

    def add(self, message: Message) -> None:
        old = self.base
        if old is None:
            self.base = message
        else:
            newest = message if _edit_id(message) >= _edit_id(old) else old
            counted = message if message.reactions_up_to > old.reactions_up_to else old
            self.base = replace(
                newest, reactions=counted.reactions, reactions_up_to=counted.reactions_up_to, seq=old.seq
            )
        self._recall(message.recalled)
        for key, reaction in list(self.reactions.items()):
            if reaction.id <= self.base.reactions_up_to:
                del self.reactions[key]
        self._forget_text()

    def apply(self, change: Change) -> None:
        if isinstance(change, Recall):
            self._recall(change.send_time)
        elif isinstance(change, Edit):
            if self.edit is None or change.id > self.edit.id:
                self.edit = change
        elif self.base is None or change.id > self.base.reactions_up_to:
            key = (change.user_id, change.reaction)
            last = self.reactions.get(key)
            if last is None or change.id > last.id:
                self.reactions[key] = change
        self._forget_text()

    def _recall(self, time: int | None) -> None:
        """The earliest recall counts."""
        if time is not None:
            self.recalled = time if self.recalled is None else min(time, self.recalled)

    def _forget_text(self) -> None:
        if self.recalled is not None:
            self.edit = None
            if self.base is not None:
                self.base = _without_text(self.base)

    def shown(self, me: str) -> Message | None:
        base = self.base
        if base is None:
            return None
        if self.recalled is not None:
            base = replace(base, recalled=self.recalled, edited=None)
        edit = self.edit
        if edit is not None and edit.id > _edit_id(base):
            base = replace(
                base,
                msg=edit.msg,
                content_type=edit.content_type,
                mentions=edit.mentions,
                data=edit.data,
                edited=Edited(edit.id, edit.send_time),
            )
        if self.reactions:
            base = replace(base, reactions=_counted(base.reactions, self.reactions.values(), me))
        return base


def _edit_id(message: Message) -> str:
    return "" if message.edited is None else message.edited.id


def _without_text(message: Message) -> Message:
    return replace(message, msg="", content_type=None, mentions=(), data=None)


def _counted(counted: Iterable[Reactions], later: Iterable[Reaction], me: str) -> tuple[Reactions, ...]:
    """Reactions with later ones counted in. Of the users that are not named `me` is none."""
    found = {each.reaction: each for each in counted}
    for change in sorted(later, key=lambda change: change.id):
        old = found.get(change.reaction, Reactions(change.reaction, 0))
        named = change.user_id in old.users
        users, count = old.users, old.count
        if change.on and not named:
            users, count = (*users, change.user_id), count + 1
        elif not change.on and (named or (count > len(users) and change.user_id != me)):
            users, count = tuple(user for user in users if user != change.user_id), count - 1
        found[change.reaction] = Reactions(change.reaction, count, _named(users, me))
    return tuple(each for each in found.values() if each.count > 0)


def _named(users: tuple[str, ...], me: str) -> tuple[str, ...]:
    """The first users, and oneself."""
    first = users[:MOST_USERS]
    return (*first[:-1], me) if me in users[MOST_USERS:] else first


class View:
    """Messages with their edits, recalls and reactions applied: of one conversation, or of all.

    The edit with the highest id counts. A recall is final. Of a user's equal reactions the last id counts.
    `user_id`: oneself, who is then named beside each reaction of one's own, however many others gave it.
    """

    def __init__(self, user_id: str = "") -> None:
        self._me = user_id
        self._records: dict[str, _Record] = {}
        self._unknown: dict[str, None] = {}
        """ids of messages that are not here, oldest change first"""

    @property
    def messages(self) -> list[Message]:
        """In the order of their ids."""
        shown = [self._records[message_id].shown(self._me) for message_id in sorted(self._records)]
        return [message for message in shown if message is not None]

    def get(self, message_id: str) -> Message | None:
        record = self._records.get(message_id)
        return None if record is None else record.shown(self._me)

    def put(self, entry: Entry) -> bool:
        """Add a message or apply a change. False for a RoomEvent, and if nothing looks different."""
        if isinstance(entry, Message):
            record = self._record(entry.id)
            before = record.shown(self._me)
            record.add(entry)
            self._unknown.pop(entry.id, None)
            return before != record.shown(self._me)
        if isinstance(entry, RoomEvent):
            return False
        record = self._record(entry.of)
        before = record.shown(self._me)
        record.apply(entry)
        return before != record.shown(self._me)

    def accepted(self, event: Accepted, user_id: str) -> bool:
        """An entry that this device sent itself, as `user_id`. Its inbox brings no copy of that."""
        entry = sent(event, user_id)
        return entry is not None and self.put(entry)

    def remove(self, message_id: str) -> None:
        self._records.pop(message_id, None)
        self._unknown.pop(message_id, None)

    def _record(self, message_id: str) -> _Record:
        record = self._records.get(message_id)
        if record is None:
            record = self._records[message_id] = _Record()
            self._unknown[message_id] = None
            if len(self._unknown) > MOST_UNKNOWN:
                self.remove(next(iter(self._unknown)))
        return record


def sent(event: Accepted, user_id: str) -> Entry | None:
    """The entry that others got for an accepted one; None for a room's action, and if nothing changed."""
    outgoing, fields = event.outgoing, event.outgoing.fields
    if not event.id or outgoing.kind == "room":
        return None
    about: dict[str, Any] = {
        "id": event.id,
        "of": outgoing.of,
        "user_id": user_id,
        "send_time": event.send_time,
        "client_msg_id": outgoing.client_msg_id,
    }
    mentions, data = tuple(fields.get("mentions", ())), fields.get("data")
    match outgoing.kind:
        case "edit":
            return Edit(
                msg=outgoing.msg, content_type=outgoing.content_type, mentions=mentions, data=data, **about
            )
        case "recall":
            return Recall(**about)
        case "react":
            return Reaction(reaction=fields["reaction"], on=fields["on"], **about)
    return Message(
        event.id,
        user_id,
        outgoing.msg,
        event.send_time,
        outgoing.to,
        outgoing.group,
        content_type=outgoing.content_type,
        client_msg_id=outgoing.client_msg_id,
        room=outgoing.room,
        reply_to=fields.get("replyTo"),
        mentions=mentions,
        data=data,
    )


class RoomsView:
    """One's own rooms, from their list and their events. Versions that are known are dropped."""

    def __init__(self, user_id: str) -> None:
        self._user_id = user_id
        self._rooms: dict[str, RoomInfo] = {}
        self._versions: dict[str, int] = {}
        """also of rooms that one has left"""

    @property
    def all(self) -> list[RoomInfo]:
        """In the order of their ids."""
        return [room for _, room in sorted(self._rooms.items())]

    def get(self, room: str) -> RoomInfo | None:
        return self._rooms.get(room)

    def put(self, page: RoomPage) -> None:
        """A page of the list. A room that is closed stays so."""
        for room in page.rooms:
            if room.version >= self._versions.get(room.room, 0):
                known = self._rooms.get(room.room)
                closed = room.closed or (known is not None and known.closed)
                self._rooms[room.room] = replace(room, closed=closed)
                self._versions[room.room] = room.version

    def accepted(self, event: Accepted) -> bool:
        """A room's action of this device. Where users were passed over, the count is a guess until `put`."""
        outgoing, me = event.outgoing, self._user_id
        if outgoing.kind != "room" or not outgoing.changed:
            return False
        fields = outgoing.fields
        users = tuple(
            Member(each["userId"], each.get("role") or "member") for each in fields.get("users") or ()
        )
        names = ("name", "posting", "history", "joining", "data")
        rules: dict[str, Any] = {name: fields.get(name) for name in names}
        known = self._rooms.get(outgoing.room)
        before = 0 if known is None else known.count
        counts = {"create": 1 + len(users), "add": before + len(users), "remove": before - len(users)}
        counts["join"] = before + 1
        return self.apply(
            RoomEvent(
                id=event.id,
                room=outgoing.room,
                version=outgoing.version,
                action=outgoing.action,
                user_id=me,
                send_time=event.send_time,
                users=(Member(me),) if outgoing.action in ("join", "leave") else users,
                count=counts.get(outgoing.action, 0),
                **rules,
            )
        )

    def apply(self, event: RoomEvent) -> bool:
        """False for a version that is known, or older."""
        if event.version <= self._versions.get(event.room, 0):
            return False
        self._versions[event.room] = event.version
        roles = {member.user_id: member.role for member in event.users}
        me = self._user_id
        if event.action in ("leave", "remove") and me in roles:
            self._rooms.pop(event.room, None)
            return True
        room = self._rooms.get(event.room) or RoomInfo(event.room, "", "member", 0, 0)
        role = roles.get(me, room.role) if event.action != "set" else room.role
        if event.action == "create" and event.user_id == me:
            role = "owner"
        self._rooms[event.room] = replace(
            room,
            role=role,
            version=event.version,
            count=event.count or room.count,
            name=room.name if event.name is None else event.name,
            posting=event.posting or room.posting,
            history=event.history or room.history,
            joining=event.joining or room.joining,
            data=room.data if event.data is None else event.data,
            closed=room.closed or event.action == "close",
        )
        return True
