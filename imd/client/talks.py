"""The list of conversations as it is now, with what is unread. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace

from imd.client.conversation import Conversation, of_message
from imd.client.events import Accepted, ConversationPage, ConversationsChanged, ListedConversation
from imd.client.numbered import Entry, Message, RoomEvent
from imd.client.view import View, sent
from imd.protocol.message import is_visitor_id

MOST_UNREAD = 100
"""it means 100 or more"""
_STATE = tuple(each.name for each in fields(Conversation) if each.name not in ("with_", "group", "room"))


@dataclass(slots=True)
class _Record:
    about: Conversation
    """with the marks and settings that are known"""
    at: str = ""
    name: str = ""
    version: int = 0
    counted: int | None = None
    """unread messages up to `upto`, as the node counted them; None: it was not asked"""
    upto: str = ""
    last: str = ""
    """the id of the last message"""
    later: set[str] = field(default_factory=set)
    """ids of others' messages above `upto`"""

    @property
    def unread(self) -> int:
        mark = max(self.about.mark, self.about.cleared)
        counted = 0 if mark >= self.upto else self.counted or 0
        return min(MOST_UNREAD, counted + sum(each > mark for each in self.later))

    @property
    def is_listed(self) -> bool:
        return self.at != "" and self.at > self.about.hidden


class ConversationsView:
    """One's own conversations, newest first, out of pages of the list and of what comes later.

    Nothing counts twice: each message is known by its id, and only those above the last one of the page are
    added to its count. A mark in the midst of the counted messages leaves the count as it is until the next
    page. Visitors' conversations are not in it.
    """

    def __init__(self, user_id: str) -> None:
        self._me = user_id
        self._records: dict[str, _Record] = {}
        self._messages = View(user_id)
        """the last message of each conversation"""

    @property
    def all(self) -> list[ListedConversation]:
        """Without hidden ones, newest first."""
        shown = [record for record in self._records.values() if record.is_listed]
        return [self._shown(record) for record in sorted(shown, key=lambda record: record.at, reverse=True)]

    @property
    def incomplete(self) -> bool:
        """A conversation is listed whose earlier messages were not counted: ask for the first page again."""
        return any(record.is_listed and record.counted is None for record in self._records.values())

    def get(self, about: Conversation) -> ListedConversation | None:
        record = self._records.get(about.key)
        return None if record is None or not record.is_listed else self._shown(record)

    def unread(self, now_ms: float | None = None) -> int:
        """Of all conversations that are not muted. `now_ms`: the time, since the epoch."""
        now = time.time() * 1000 if now_ms is None else now_ms
        listed = (record for record in self._records.values() if record.is_listed)
        return sum(record.unread for record in listed if not record.about.is_muted(now))

    # ---- what the program hears

    def put(self, page: ConversationPage) -> None:
        """A page of the list."""
        for each in page.conversations:
            record = self._record(each)
            upto = each.last.id if each.last is not None else each.at
            if upto >= record.upto:
                record.counted, record.upto = each.unread, upto
                record.later = {message_id for message_id in record.later if message_id > upto}
            record.at = max(record.at, each.at)
            if each.version >= record.version:
                record.name, record.version = each.name or record.name, each.version
            record.about = replace(
                record.about,
                read=max(record.about.read, each.read),
                mark=max(record.about.mark, each.mark),
                peer_read=max(record.about.peer_read, each.peer_read),
                muted=each.muted,
                pinned=each.pinned,
                marked=each.marked,
            )
            if each.last is not None:
                self._show_last(record, each.last)

    def add(self, entry: Entry) -> bool:
        """An entry of the inbox. False if nothing looks different."""
        if isinstance(entry, Message):
            return self._add(entry)
        if isinstance(entry, RoomEvent):
            return self._room(entry)
        return self._messages.put(entry)

    def accepted(self, event: Accepted) -> bool:
        """An entry that this device sent itself. False if nothing looks different."""
        entry = sent(event, self._me)
        if entry is not None:
            return self.add(entry)
        outgoing = event.outgoing
        if outgoing.kind != "room" or not event.id:
            return False
        if outgoing.action in ("create", "join"):
            name, empty = outgoing.fields.get("name"), outgoing.action == "create"
            return self._came(outgoing.room, event.id, name, outgoing.version, empty)
        if outgoing.action == "leave":
            return self._left(outgoing.room)
        return self._renamed(outgoing.room, outgoing.fields.get("name"), outgoing.version)

    def changed(self, event: ConversationsChanged) -> None:
        """Marks and settings have changed."""
        if event.all:
            for record in self._records.values():
                record.about = replace(record.about, muted=False, pinned=False)
        for each in event.conversations:
            about = self._record(each).about
            values = {name: getattr(each, name) for name in _STATE}
            for name in ("read", "mark", "peer_read", "cleared"):
                values[name] = max(values[name], getattr(about, name))
            record = self._records[each.key]
            record.about = replace(about, **values)
            self._prune(record)

    # ---- from within

    def _record(self, about: Conversation) -> _Record:
        record = self._records.get(about.key)
        if record is None:
            record = self._records[about.key] = _Record(about.plain)
        return record

    def _add(self, message: Message) -> bool:
        about = of_message(message, self._me, False)
        if is_visitor_id(about.with_):
            return False
        record = self._record(about)
        if message.id <= record.about.cleared:
            return False
        known = message.id <= record.upto or message.id in record.later
        if message.user_id == self._me:
            record.about = replace(record.about, mark=max(record.about.mark, message.id))
            self._prune(record)
        elif not known and message.id > record.about.mark:
            record.later.add(message.id)
        newest = message.id > record.last
        record.at = max(record.at, message.id)
        self._show_last(record, message)
        return newest or not known

    def _show_last(self, record: _Record, message: Message) -> None:
        if message.id < record.last:
            return
        if record.last not in ("", message.id):
            self._messages.remove(record.last)
        record.last = message.id
        self._messages.put(message)

    def _prune(self, record: _Record) -> None:
        record.later = {each for each in record.later if each > record.about.mark}

    def _room(self, event: RoomEvent) -> bool:
        users = {member.user_id for member in event.users}
        if event.action in ("leave", "remove") and self._me in users:
            return self._left(event.room)
        if event.action == "create" or (event.action in ("add", "join") and self._me in users):
            empty = event.action == "create" or event.history == "joined"
            return self._came(event.room, event.id, event.name, event.version, empty)
        return self._renamed(event.room, event.name, event.version)

    def _came(self, room: str, event_id: str, name: str | None, version: int, empty: bool) -> bool:
        """`empty`: the user can read nothing from before, so there is nothing to ask the node."""
        record = self._record(Conversation(room=room))
        if version < record.version:
            return False
        if record.at == "":
            record.at = event_id
            if empty:
                record.counted, record.upto = record.counted or 0, max(record.upto, event_id)
        self._renamed(room, name, version)
        return True

    def _left(self, room: str) -> bool:
        record = self._records.pop(Conversation(room=room).key, None)
        if record is not None and record.last:
            self._messages.remove(record.last)
        return record is not None

    def _renamed(self, room: str, name: str | None, version: int) -> bool:
        record = self._records.get(Conversation(room=room).key)
        if record is None or version < record.version:
            return False
        before = record.name
        record.version, record.name = version, name or record.name
        return record.name != before

    def _shown(self, record: _Record) -> ListedConversation:
        about = record.about
        last = self._messages.get(record.last) if record.last > about.cleared else None
        values = {each.name: getattr(about, each.name) for each in fields(Conversation)}
        more = {"at": record.at, "last": last, "unread": record.unread}
        return ListedConversation(**(values | more), name=record.name, version=record.version)
