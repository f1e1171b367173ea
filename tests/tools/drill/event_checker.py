"""Judges events and rooms by the model: places, answers, what the archive shows and devices hear. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from tests.tools.drill.history import (
    UNCHANGED,
    Answer,
    Connection,
    Frame,
    Got,
    History,
    Message,
    Reset,
    Send,
    overlapping,
)
from tests.tools.drill.model import FOREVER, Model, Shown, shown
from tests.tools.drill.views import as_read, check_views

Note = Callable[[str, str], None]


class EventCheck:
    """`note` takes each violation."""

    def __init__(self, history: History, model: Model, note: Note) -> None:
        self.history = history
        self.model = model
        self._note = note
        self.changes = model.changes_of()
        self.events = {event.event_id: event for event in history.events}

    def run(self) -> None:
        for kind, what in self.model.wrong:
            self._note(kind, what)
        self._placed()
        self._answers()
        self._versions_in_inboxes()
        self._events_archived()
        self._shown()
        self._rooms()
        check_views(self.history, self.model, self._note)

    def _split(self, begin: float, end: float) -> bool:
        """Two primaries of Redis took writes in between: rooms promise nothing then."""
        return bool(overlapping(self.history.splits, begin, end))

    def _lost_between(self, begin: float, end: float) -> bool:
        return bool(overlapping(self.history.losses, begin, end))

    # rooms as messages were placed in them

    def _placed(self) -> None:
        for key, versions in self.model.placed_under.items():
            message = self.history.messages.get(key)
            if message is None or message.kind != "message":
                continue
            sent = self.model.first_sent.get(key, FOREVER)
            if self._split(sent, self.model.accepted_at.get(key, FOREVER)):
                continue
            least = self.model.settled(message.room, sent) if message.room in self.model.rooms else 0
            for version in versions:
                if version < least:
                    self._note("stale", f"{key}: placed under version {version}, {least} was accepted before")
                elif message.sender not in self.model.state(message.room, version).members:
                    self._note("stale", f"{key}: {message.sender} is no member in version {version}")
                elif self.model.state(message.room, version).is_closed:
                    self._note("stale", f"{key}: the room is closed in version {version}")

    def _versions_in_inboxes(self) -> None:
        """In an inbox a room only grows older: events one by one, messages under the last of them."""
        for connection in self.history.connections:
            newest: dict[str, int] = {}
            events: dict[str, int] = {}
            for event in connection.events:
                if type(event) is Reset:
                    newest, events = {}, {}
                elif type(event) is Got and event.frame.get("kind") in ("room", "message"):
                    room = event.frame["room"]
                    is_event = event.frame["kind"] == "room"
                    version = event.frame["version" if is_event else "roomVersion"]
                    if self._lost_between(0.0, event.at):
                        continue
                    if version < newest.get(room, 0):
                        before = f"{newest[room]} of {room}"
                        self._note("versions", f"{_name(connection)}: version {version} after {before}")
                    newest[room] = max(version, newest.get(room, 0))
                    if is_event:
                        events[room] = version

    # answers

    def _answers(self) -> None:
        got_at: dict[str, float] = {}
        for connection in self.history.connections:
            for event in connection.events:
                if type(event) is Got:
                    got_at[event.key] = min(event.at, got_at.get(event.key, FOREVER))
        for connection in self.history.connections:
            sent_at: dict[str, float] = {}
            for event in connection.events:
                if type(event) is Send:
                    sent_at[event.key] = event.at
                elif type(event) is Answer and event.code:
                    self._refusal(connection, event, sent_at.get(event.key, 0.0), got_at)

    def _refusal(
        self, connection: Connection, answer: Answer, sent_at: float, got_at: Mapping[str, float]
    ) -> None:
        message = self.history.messages.get(answer.key)
        if message is None or not message.kind or answer.code in ("unavailable", "rate_limited"):
            return
        first_sent = self.model.first_sent.get(answer.key, FOREVER)
        if got_at.get(answer.key, FOREVER) < sent_at and not self._lost_between(first_sent, answer.at):
            what = f"{_name(connection)}: {answer.key}: {answer.code}, though somebody had got it"
            self._note("answered anew", what)
        elif message.kind == "message" and not self._may_refuse(message, answer, sent_at):
            self._note("refused", f"{_name(connection)}: {answer.key}: {answer.code}")

    def _may_refuse(self, message: Message, answer: Answer, sent_at: float) -> bool:
        """A message to a room, sent at that time."""
        sender, room = message.sender, message.room
        states = self.model.possible(room, sent_at, answer.at)
        if answer.code == "not_found":
            return any(sender not in state.members for state in states)
        if answer.code == "forbidden":
            return any(
                state.rules.get("posting") == "admins" and state.members[sender].role == "member"
                for state in states
                if sender in state.members
            )
        return answer.code == "conflict" and any(state.is_closed for state in states)

    # the archive

    def _events_archived(self) -> None:
        by_key: dict[str, set[str]] = defaultdict(set)
        for event in self.history.events:
            message = self.history.messages.get(event.key)
            if message is None or event.key not in self.model.first_sent:
                self._note("unknown document", f"{event.event_id}: {event.key}")
                continue
            by_key[event.key].add(event.event_id)
            asked = (message.sender, message.kind, message.of)
            if (event.user, event.kind, event.of) != asked:
                self._note("content", f"archive: {event.key}: {event.user}: {event.kind} of {event.of}")
        for key, ids in self.model.ids.items():
            message = self.history.messages.get(key)
            if message is None or message.kind in ("", "message"):
                continue
            was_lost = self._lost_between(self.model.first_sent.get(key, FOREVER), FOREVER)
            # An event that was delivered and then lost is accepted under another id.
            promised = self.model.answered_ids[key] if was_lost else ids
            for missing in sorted(promised - by_key[key]):
                self._note("not archived", f"{key} as {missing}")
            if len(by_key[key]) > 1 and not was_lost:
                self._note("archived twice", f"{key} as {sorted(by_key[key])}")

    def _shown(self) -> None:
        """Messages as MongoDB has them, as history shows them, and as devices do."""
        wanted: dict[str, Shown] = {}
        for document in self.history.archive:
            message = self.history.messages.get(document.key)
            if message is None:
                continue
            changes = self.changes.get(document.message_id, [])
            now = shown(message.text, changes, message.extras)
            wanted[document.message_id] = now
            seen = (document.text, document.edited, document.is_recalled, document.extras)
            if seen != (now.text, now.edited, now.is_recalled, now.extras):
                self._note("shown" if changes else "content", f"archive: {document.key}: {seen}, not {now}")
        self._texts_of_recalled(wanted)
        for user, found in self.history.read_back.items():
            for entries in found.pages.values():
                self._page(user, entries, wanted)
            self._changes_of(user, {room: page for room, page in found.changes.items()})

    def _texts_of_recalled(self, wanted: Mapping[str, Shown]) -> None:
        for event in self.history.events:
            is_recalled = event.of in wanted and wanted[event.of].is_recalled
            if is_recalled and event.kind == "edit" and event.body.get("msg"):
                self._note("recalled text", f"the edit {event.key} of {self.model.key_of[event.of]}")
        for key in self.history.dead:
            message = self.history.messages.get(key)
            if message is None or not message.text:
                continue
            for of in {message.of} if message.of else self.model.ids[key]:
                if of in wanted and wanted[of].is_recalled:
                    self._note("recalled text", f"{key} among the dead letters")

    def _page(self, user: str, entries: Iterable[Frame], wanted: Mapping[str, Shown]) -> None:
        for entry in entries:
            now = wanted.get(entry["id"])
            if now is None or entry.get("kind") == "room":
                continue
            seen = as_read(entry)
            if seen != now:
                self._note("shown", f"history of {user}: {self.model.key_of[entry['id']]}: {seen}, not {now}")

    def _changes_of(self, user: str, found: Mapping[str, list[Frame]]) -> None:
        """`changes` has all events of one's conversations, and no other."""
        for room, page in found.items():
            ids = [frame["id"] for frame in page]
            if ids != sorted(set(ids)):
                self._note("changes", f"{user}: {room}: not in the order of ids, or twice")
            missing = self._visible(user, room) - set(ids)
            if missing:
                some = self.model.key_of[min(missing)]
                self._note("changes", f"{user}: {room}: {len(missing)} are missing, as {some}")
            for frame in page:
                if not self._may_see(user, room, frame["id"]):
                    self._note("changes", f"{user}: {room}: {frame['clientMsgId']} is not for this user")

    def _visible(self, user: str, room: str) -> set[str]:
        return {
            event.event_id
            for event in self.history.events
            if event.room == room and self._may_see(user, room, event.event_id)
        }

    def _may_see(self, user: str, room: str, event_id: str) -> bool:
        message = self.history.messages.get(self.model.key_of.get(event_id, ""))
        if message is None:
            return False
        if room:
            state = self.model.rooms[room].states[-1]
            return event_id in self.events and state.may_read(user, self.events[event_id].version)
        target = self.model.target(message)
        return target is not None and not target.room and user in target.recipients | {target.sender}

    # rooms as they are

    def _rooms(self) -> None:
        for room, story in self.model.rooms.items():
            state = story.states[-1]
            roles = {user: member.role for user, member in state.members.items()}
            found = self.history.rooms.get(room)
            if found is None:
                self._note("room", f"{room} is not in MongoDB")
            elif (found.version, found.members, found.rules) != (len(story.states) - 1, roles, state.rules):
                self._note("room", f"{room} in MongoDB: {found}, not {len(story.states) - 1}, {roles}")
            for user, read in self.history.read_back.items():
                shown_room = read.rooms.get(room)
                if (shown_room is not None) != (user in roles):
                    self._note("room", f"{user}: {room} is {'not ' * (user in roles)}among their rooms")
                elif shown_room is not None:
                    now = (shown_room.version, shown_room.members, shown_room.rules)
                    if now != (len(story.states) - 1, roles, state.rules):
                        self._note("room", f"{user}: {room}: {now}, not {len(story.states) - 1}, {roles}")


def is_final(code: str) -> bool:
    """An answer after which a change or a message to a room is not sent again."""
    return code not in ("", "unavailable", "rate_limited") or code == UNCHANGED


def _name(connection: Connection) -> str:
    return f"{connection.user}/{connection.device} #{connection.attempt} at {connection.node}"
