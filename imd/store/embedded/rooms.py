"""Rooms in the file: changes, their events, and messages to them, in the open transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from imd.contracts import room_rules
from imd.contracts.inbox import (
    Closed,
    Delivery,
    NotAllowed,
    NotMember,
    Outcome,
    Placed,
    RoomAim,
    Submission,
)
from imd.contracts.room_rules import Decided, Stamp
from imd.contracts.rooms import (
    MAX_ROOMS_OF_USER,
    MEMBER,
    Action,
    Changed,
    ChangeOutcome,
    Member,
    Membership,
    MembersPage,
    Past,
    Room,
    RoomEntry,
    RoomOptions,
    RoomPart,
    RoomSummary,
    Unchanged,
    page_of_members,
    part_of,
)
from imd.protocol.errors import Refused
from imd.store.embedded.blocks import BlockTables
from imd.store.embedded.event_rows import archive_event
from imd.store.embedded.inboxes import Inboxes
from imd.store.embedded.state import State

_read_room = msgspec.json.Decoder(Room).decode
_encode = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """The outcome of a change, and the deliveries of its event."""

    outcome: ChangeOutcome
    deliveries: Sequence[Delivery] = ()


class RoomTables:
    """Owned by the thread that owns the connection."""

    def __init__(self, state: State, inboxes: Inboxes, options: RoomOptions, blocks: BlockTables) -> None:
        self._state = state
        self._blocks = blocks
        self._inboxes = inboxes
        self._options = options

    # messages

    def place(self, submission: Submission, aim: RoomAim, now: int) -> Outcome:
        """Place a message or event of a member; its clientMsgId is known to be new."""
        room = self.get(aim.room)
        member = room.member(submission.sender) if room is not None else None
        if room is None or member is None:
            return NotMember()
        if member.role == MEMBER:
            if aim.posts and room.posting == "admins":
                return NotAllowed("posting: owner and admins only")
            if aim.by_admins:
                return NotAllowed("mentions: @all is for owner and admins")
        if room.closed and not aim.when_closed:
            return Closed()
        body = aim.body(room.version)
        to_all = aim.of_version is None or room.history == "all"
        users = [
            one.user
            for one in room.members
            if not aim.to_nobody and one is not member and (to_all or one.joined <= (aim.of_version or 0))
        ]
        if submission.mirror and self._wants_copy(submission.sender, submission.device, now):
            users.append(submission.sender)
        number = self._archive(submission, body, now)
        deliveries = self._put(users, number, body, now)
        return Placed(deliveries, "", room.version, len(room.members))

    def _archive(self, submission: Submission, body: bytes, now: int) -> int:
        """Archive what a member has written; gives its number."""
        state = self._state
        sender = state.user(submission.sender)
        number = state.new_number()
        archive_event(state, body, number, sender.uid, (), now, submission.archived)
        if submission.client_msg_id is not None:
            key = (sender.uid, submission.device, submission.client_msg_id)
            state.sent += (state.new_use(), *key, submission.checksum, number, now)
        return number

    def _put(self, users: Sequence[str], number: int, body: bytes, now: int) -> list[Delivery]:
        """Put a message into these users' inboxes; gives the deliveries to those with live channels."""
        deliveries: list[Delivery] = []
        loaded = self._state.load(users)
        self._inboxes.put(users, loaded, number, body, now, deliveries, only_live=True)
        return deliveries

    def _wants_copy(self, user: str, device: str, now: int) -> bool:
        return self._inboxes.wants_copy(self._state.user(user), device, now)

    # changes

    def change(self, action: Action, stamp: Stamp) -> Told:
        """See imd.contracts.rooms.RoomStore.change."""
        try:
            return self._create(action, stamp) if action.action == "create" else self._change(action, stamp)
        except Refused as refused:
            return Told(refused)

    def _create(self, action: Action, stamp: Stamp) -> Told:
        made_by = room_rules.made_by(action)
        found = self._state.connection.execute(
            "SELECT body FROM room WHERE made_by = ?", (made_by,)
        ).fetchone()
        if found is not None:
            room = _read_room(found[0])
            room_rules.check_same(room.made, action)
            return Told(Changed(room.id, room.version, room.made.id, room.made.time))
        full = self._kept_out(action.user, room_rules.newcomers(None, action))
        decided = room_rules.create(action, stamp, self._options.members, full)
        self._admit(action.user, [member.user for member in decided.room.members[1:]])
        return self._made(decided, made_by, ())

    def _change(self, action: Action, stamp: Stamp) -> Told:
        room = self.get(action.room)
        if room is not None:
            past = room_rules.remembered(room, action, stamp.time, int(self._options.dedup_seconds * 1000))
            if past is not None:
                return Told(Changed(room.id, past.version, past.id, past.time))
        full = self._kept_out(action.user, room_rules.newcomers(room, action))
        decided = room_rules.change(room, action, stamp, self._options.members, full)
        assert room is not None
        if decided is None:
            return Told(Unchanged(room.id, room.version))
        if action.action == "add":
            version = decided.room.version
            self._admit(action.user, [one.user for one in decided.room.members if one.joined == version])
        return self._made(decided, None, room.members)

    def _admit(self, user: str, newcomers: Sequence[str]) -> None:
        """Count the inboxes that no device has ever opened and that the user begins. Raises Refused."""
        refused = self._inboxes.refuse_openings(user, newcomers, self._state.clock.now_ms())
        if refused is not None:
            self._inboxes.unmake(name for name in newcomers if name != user)
            raise room_rules.too_many_new(refused)

    def _made(self, decided: Decided, made_by: str | None, before: Sequence[Member]) -> Told:
        room = decided.room
        execute = self._state.connection.execute
        body = _encode(room).decode()
        if made_by is not None:
            execute("INSERT INTO room (id, made_by, body) VALUES (?, ?, ?)", (room.id, made_by, body))
        else:
            execute("UPDATE room SET body = ? WHERE id = ?", (body, room.id))
        users = {member.user for member in room.members}
        earlier = {member.user for member in before}
        many = self._state.connection.executemany
        many(
            "INSERT INTO room_member (user, room) VALUES (?, ?)",
            [(user, room.id) for user in users - earlier],
        )
        gone = [(user, room.id) for user in earlier - users]
        many("DELETE FROM room_member WHERE user = ? AND room = ?", gone)
        self._state.rooms[room.id] = room
        past = room.past[-1]
        return Told(Changed(room.id, room.version, past.id, past.time), self._tell(decided.entry, past))

    def _tell(self, entry: RoomEntry, past: Past) -> list[Delivery]:
        """Archive the event, and put it into inboxes. Pages show its first form; another has a row beside."""
        state = self._state
        now = state.clock.now_ms()
        first = entry.bodies[0].body
        what = entry.client_msg_id, entry.checksum, entry.id, past.time
        event = Submission(entry.actor, entry.device, *what, (), b"", kind="room")
        number = self._archive(event, first.encode(), now)
        deliveries: list[Delivery] = []
        for form in entry.bodies:
            users = form.users
            if form is entry.bodies[-1] and self._wants_copy(entry.actor, entry.device, now):
                users = (*users, entry.actor)
            if users:
                row = number if form.body == first else self._keep(entry, form.body, now)
                deliveries += self._put(users, row, form.body.encode(), now)
        return deliveries

    def _keep(self, entry: RoomEntry, body: str, now: int) -> int:
        """A row that is in no page of history."""
        state = self._state
        number = state.new_number()
        state.messages += (number, entry.id, state.user(entry.actor).uid, b"", now, body)
        return number

    def _kept_out(self, actor: str, users: Collection[str]) -> set[str]:
        """Users of these who are in as many rooms as a user may be, or block the actor."""
        return self._full(users) | self._blocks.among(actor, users)

    def _full(self, users: Iterable[str]) -> set[str]:
        """Users of these who are in as many rooms as a user may be."""
        count = "SELECT COUNT(*) FROM (SELECT 1 FROM room_member WHERE user = ? LIMIT ?)"
        execute = self._state.connection.execute
        return {
            user
            for user in users
            if execute(count, (user, MAX_ROOMS_OF_USER)).fetchone()[0] >= MAX_ROOMS_OF_USER
        }

    # questions

    def get(self, room: str) -> Room | None:
        found = self._state.rooms.get(room)
        if found is None:
            row = self._state.connection.execute("SELECT body FROM room WHERE id = ?", (room,)).fetchone()
            if row is None:
                return None
            found = self._state.rooms[room] = _read_room(row[0])
        return found

    def count(self, room: str) -> int | None:
        """The room's members; None if there is no such room."""
        found = self.get(room)
        return len(found.members) if found is not None else None

    def membership(self, room: str, user: str) -> Membership | None:
        found = self.get(room)
        member = found.member(user) if found is not None else None
        if found is None or member is None:
            return None
        return Membership(member.role, member.joined, found.history, found.closed, len(found.members))

    def rooms_of(self, user: str, after: str, limit: int) -> tuple[list[RoomSummary], bool]:
        rows = self._state.connection.execute(
            "SELECT r.body FROM room_member m JOIN room r ON r.id = m.room WHERE m.user = ? AND m.room > ? "
            "ORDER BY m.room LIMIT ?",
            (user, after, limit + 1),
        ).fetchall()
        rooms = [_summary(_read_room(body), user) for (body,) in rows]
        return rooms[:limit], len(rooms) > limit

    def parts(self, user: str) -> list[RoomPart]:
        rows = self._state.connection.execute("SELECT room FROM room_member WHERE user = ?", (user,))
        parts = []
        for (name,) in rows.fetchall():
            room = self.get(name)
            member = room.member(user) if room is not None else None
            if room is not None and member is not None:
                parts.append(part_of(room, member))
        return parts

    def members_of(self, room: str, viewer: str, after: str, limit: int) -> MembersPage | None:
        found = self.get(room)
        if found is None or found.member(viewer) is None:
            return None
        return page_of_members(found, after, limit)


def _summary(room: Room, user: str) -> RoomSummary:
    member = room.member(user)
    return RoomSummary(
        room.id,
        room.name,
        member.role if member is not None else MEMBER,
        len(room.members),
        room.version,
        room.posting,
        room.history,
        room.joining,
        room.data,
        room.closed,
    )
