"""Rooms and messages as their users' deeds have made them. Pure.

The versions of a room are told by answers, deliveries and MongoDB; what each made of the room is worked out
here. Unanswered changes are in if anything tells of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.tools.drill.history import (
    Answer,
    EventDocument,
    Got,
    History,
    Message,
    Send,
    extras_of,
    overlapping,
)

Users = frozenset[str]
NOBODY: Users = frozenset()
FOREVER = float("inf")


class Member(NamedTuple):
    role: str
    joined: int


@dataclass(frozen=True)
class State:
    """A room at one version. `changed`: users whom the change concerned."""

    members: Mapping[str, Member]
    rules: Mapping[str, str]
    changed: Users = NOBODY
    gone: Users = NOBODY
    is_closed: bool = False

    def may_read(self, user: str, version: int) -> bool:
        """Whether a message that was placed under that version is for this member to read."""
        member = self.members.get(user)
        return member is not None and (self.rules["history"] == "all" or member.joined <= version)


NOTHING = State({}, {})


@dataclass
class RoomStory:
    """The versions of one room, from 1 on; `states[0]` is from before."""

    keys: dict[int, str] = field(default_factory=dict)
    states: list[State] = field(default_factory=lambda: [NOTHING])

    def at(self, version: int) -> State:
        return self.states[version] if 0 <= version < len(self.states) else NOTHING


class Model:
    """`wrong` holds what does not fit together, as pairs of kind and text."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.wrong: list[tuple[str, str]] = []
        self.first_sent: dict[str, float] = {}
        self.accepted_at: dict[str, float] = {}
        self.key_of: dict[str, str] = {}
        """by id, of messages and events"""
        self.ids: dict[str, set[str]] = defaultdict(set)
        """by key: ids that anything tells of"""
        self.answered_ids: dict[str, set[str]] = defaultdict(set)
        """by key: ids that its sender was told"""
        self.placed_under: dict[str, set[int]] = defaultdict(set)
        """by key of a message in a room: versions of the room"""
        self.rooms: dict[str, RoomStory] = {}
        self._versions: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._cache: dict[str, tuple[Users, Users]] = {}
        self._read_connections()
        self._read_archive()
        for room, versions in self._versions.items():
            self.rooms[room] = self._tell(room, versions)

    # gathering

    def _read_connections(self) -> None:
        for connection in self.history.connections:
            for event in connection.events:
                if type(event) is Send:
                    at = self.first_sent.get(event.key, FOREVER)
                    self.first_sent[event.key] = min(at, event.at)
                elif type(event) is Answer and event.message_id:
                    at = self.accepted_at.get(event.key, FOREVER)
                    self.accepted_at[event.key] = min(at, event.at)
                    self._name(event.message_id, event.key)
                    self.answered_ids[event.key].add(event.message_id)
                    # A resend of `create` is answered with the present version.
                    if event.version and self._action(event.key) != "create":
                        self._versions[event.room][event.version].add(event.key)
                elif type(event) is Got:
                    self._name(event.message_id, event.key)
                    if event.frame.get("kind") == "room":
                        self._versions[event.frame["room"]][event.frame["version"]].add(event.key)
                    elif event.frame.get("kind") == "message":
                        self.placed_under[event.key].add(event.frame["roomVersion"])

    def _read_archive(self) -> None:
        for document in self.history.archive:
            self._name(document.message_id, document.key)
            if document.room:
                self.placed_under[document.key].add(document.version)
        for event in self.history.events:
            self._name(event.event_id, event.key)
            if event.kind == "room":
                self._versions[event.room][event.version].add(event.key)
        for room, document in self.history.rooms.items():
            for version, key in document.past:
                self._versions[room][version].add(key)

    def _name(self, message_id: str, key: str) -> None:
        self.key_of[message_id] = key
        self.ids[key].add(message_id)

    def _action(self, key: str) -> str:
        message = self.history.messages.get(key)
        return str(message.frame.get("action", "")) if message is not None else ""

    # rooms

    def _tell(self, room: str, versions: Mapping[int, set[str]]) -> RoomStory:
        story = RoomStory()
        newest = max(versions)
        for version in range(1, newest + 1):
            keys = versions.get(version, set())
            if len(keys) != 1:
                said = " and ".join(sorted(keys)) or "nothing"
                self.wrong.append(("versions", f"{room}: version {version} is made by {said}"))
            known = [self.history.messages[key] for key in sorted(keys) if key in self.history.messages]
            before = story.states[-1]
            if known:
                story.keys[version] = known[0].key
                before = _after(before, known[0], version)
            story.states.append(before)
        return story

    def settled(self, room: str, at: float) -> int:
        """The newest version that was accepted before this time."""
        keys = self.rooms[room].keys
        return max((v for v, key in keys.items() if self.accepted_at.get(key, FOREVER) < at), default=0)

    def possible(self, room: str, begin: float, end: float) -> list[State]:
        """The states that the room may have been in between two times.

        While two primaries take writes, one of them knows the room as it was when the other took over.
        """
        story = self.rooms.get(room)
        if story is None:
            return [NOTHING]
        took_over = [first for first, _ in overlapping(self.history.splits, begin, end)]
        least = self.settled(room, min([begin, *took_over]))
        begun = (v for v, key in story.keys.items() if self.first_sent.get(key, FOREVER) <= end)
        most = max(begun, default=0)
        return [story.at(version) for version in range(least, max(least, most) + 1)]

    # who gets what

    def must_get(self, key: str) -> Users:
        """Users whose inboxes a message or event that is in gets into for certain."""
        return self._recipients(key)[0]

    def may_get(self, key: str) -> Users:
        return self._recipients(key)[1]

    def made(self) -> set[str]:
        """The changes that are in rooms, answered or not."""
        return {key for story in self.rooms.values() for key in story.keys.values()}

    def owed(self, keys: Iterable[str]) -> dict[str, set[str]]:
        """By user: those of these keys that must arrive."""
        owed: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            for user in self.must_get(key):
                owed[user].add(key)
        return owed

    def _recipients(self, key: str) -> tuple[Users, Users]:
        found = self._cache.get(key)
        if found is None:
            message = self.history.messages[key]
            must, may = self._others(message)
            own = frozenset({message.sender}) & self.history.synced
            # Redis forgets with its data which devices there are.
            forgot = any(first <= self.accepted_at.get(key, FOREVER) for first, _ in self.history.losses)
            sure = NOBODY if forgot else own
            found = self._cache[key] = ((must - {message.sender}) | sure, (may - {message.sender}) | own)
        return found

    def _others(self, message: Message) -> tuple[Users, Users]:
        if message.kind == "":
            return message.recipients, message.recipients
        if message.kind == "message":
            versions = self.placed_under[message.key]
            return _both([frozenset(self.state(message.room, version).members) for version in versions])
        if message.kind == "room":
            return _both([self._concerned(room, version) for room, version in self.made_by(message.key)])
        target = self.target(message)
        if target is None:
            return NOBODY, NOBODY
        if not target.room:
            people = target.recipients | {target.sender}
            return people, people
        begin = self.first_sent.get(message.key, FOREVER)
        states = self.possible(target.room, begin, self.accepted_at.get(message.key, FOREVER))
        versions = self.placed_under[target.key]
        return _both([_readers(state, version) for state in states for version in versions])

    def _concerned(self, room: str, version: int) -> Users:
        state = self.state(room, version)
        return frozenset(state.members) | state.gone

    def target(self, message: Message) -> Message | None:
        """The message that is edited, recalled or reacted to."""
        return self.history.messages.get(self.key_of.get(message.of, ""))

    def state(self, room: str, version: int) -> State:
        return self.rooms[room].at(version) if room in self.rooms else NOTHING

    def made_by(self, key: str) -> list[tuple[str, int]]:
        """The rooms and versions that a change has made; one, if all is well."""
        return [
            (room, version)
            for room, story in self.rooms.items()
            for version, made_by in story.keys.items()
            if made_by == key
        ]

    # messages

    def changes_of(self) -> dict[str, list[EventDocument]]:
        """By message id: its archived edits, recalls and reactions."""
        found: dict[str, list[EventDocument]] = defaultdict(list)
        for event in self.history.events:
            if event.of:
                found[event.of].append(event)
        return found


class Shown(NamedTuple):
    """A message as it is now."""

    text: str
    edited: str
    is_recalled: bool
    reactions: frozenset[tuple[str, str]]
    """user and reaction"""
    extras: str = ""
    """beside the text, as extras_of gives them"""


def shown(first_text: str, changes: Iterable[EventDocument], first_extras: str = "") -> Shown:
    """The message as its events make it, in whatever order they came."""
    first = json.loads(first_extras or "{}")
    answers = {"replyTo": first.get("replyTo")}
    edit = ("", first_text, first_extras)
    is_recalled = False
    last: dict[tuple[str, str], tuple[str, bool]] = {}
    for event in changes:
        if event.kind == "edit":
            extras = extras_of({**event.body, **answers})
            edit = max(edit, (event.event_id, str(event.body.get("msg", "")), extras))
        elif event.kind == "recall":
            is_recalled = True
        else:
            which = (event.user, str(event.body["reaction"]))
            now = (event.event_id, event.body.get("on") is not False)
            last[which] = max(last.get(which, now), now)
    reactions = frozenset(which for which, (_, on) in last.items() if on)
    if is_recalled:
        return Shown("", "", True, reactions, extras_of(answers))
    return Shown(edit[1], edit[0], False, reactions, edit[2])


def _both(sets: list[Users]) -> tuple[Users, Users]:
    """Users in all of them, and users in any."""
    return (frozenset.intersection(*sets), frozenset.union(*sets)) if sets else (NOBODY, NOBODY)


def _readers(state: State, version: int) -> Users:
    return frozenset(user for user in state.members if state.may_read(user, version))


RULES = {"posting": "all", "history": "joined", "joining": "invite"}


def _after(before: State, message: Message, version: int) -> State:
    """The room after a change that was made."""
    frame, user = message.frame, message.sender
    named = {one["userId"]: one.get("role") or "member" for one in frame.get("users", ())}
    members, rules = dict(before.members), dict(before.rules)
    action = frame["action"]
    if action == "create":
        rules = {**RULES, **{name: frame[name] for name in (*RULES, "name") if name in frame}}
        members = {user: Member("owner", version)}
    if action == "join":
        named = {user: "member"}
    elif action == "leave":
        named = {user: ""}
    changed = frozenset(named)
    if action in ("create", "add", "join"):
        changed = frozenset(named) - set(members)
        members |= {one: Member(named[one], version) for one in changed}
    elif action in ("remove", "leave"):
        changed = frozenset(named) & set(members)
        for one in changed:
            del members[one]
        return State(members, rules, changed, changed, before.is_closed)
    elif action == "role":
        members |= {one: Member(role, members[one].joined) for one, role in named.items() if one in members}
    else:
        rules |= {name: frame[name] for name in (*RULES, "name") if name in frame}
    return State(members, rules, changed, is_closed=before.is_closed or action == "close")
