"""Judges marks and settings: none falls, none that was answered is lost, all devices know the same. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.tools.drill.history import NO_FRAME, Connection, Frame, History, StateChange, StateDocument, key_of

Note = Callable[[str, str], None]
RISING = ("read", "peerRead", "cleared")
SETTINGS = ("muted", "pinned")
NO_STATE = StateDocument(0, {})
Fact = tuple[int, str, str, str]
"""version, conversation, field, mark: devices with that version have the mark, or a higher one"""


class StateCheck:
    """`note` takes each violation."""

    def __init__(self, history: History, note: Note) -> None:
        self.history = history
        self._note = note
        self._devices: dict[tuple[str, str], list[Connection]] = defaultdict(list)
        for connection in history.connections:
            if connection.has_state:
                self._devices[connection.user, connection.device].append(connection)
        self._changes: dict[str, list[StateChange]] = defaultdict(list)
        for change in history.state_changes.values():
            self._changes[change.user].append(change)

    def run(self) -> None:
        facts = self._facts()
        for (user, device), connections in self._devices.items():
            self._follow(f"{user}/{device}", user, connections, facts[user])
        for user, changes in self._changes.items():
            state = self.history.states.get(user, NO_STATE)
            self._answers(changes)
            self._marks_kept(user, changes, {**state.moved, **state.entries})
            self._settings_kept(user, changes, state.entries)
        for user, state in self.history.states.items():
            self._nothing_invented(user, {**state.moved, **state.entries})
            self._peers_know(user, state)

    # what devices saw

    def _facts(self) -> dict[str, list[Fact]]:
        """By user, in the order of versions."""
        found: dict[str, set[Fact]] = defaultdict(set)
        for (user, _), connections in self._devices.items():
            for got in (got for connection in connections for got in connection.states):
                for key, values in got.entries.items():
                    marks = ((name, values[name]) for name in RISING if name in values)
                    found[user].update((got.version, key, name, mark) for name, mark in marks)
        return defaultdict(list, {user: sorted(facts) for user, facts in found.items()})

    def _follow(self, name: str, user: str, connections: list[Connection], facts: list[Fact]) -> None:
        """A device's state, frame by frame."""
        state: dict[str, Frame] = {}
        version, next_fact = -1, 0
        document = self.history.states.get(user, NO_STATE)
        for connection in connections:
            if connection.state_asked is None and connection.states and not connection.states[0].all:
                self._note("behind", f"{name}: it named no version, and did not get everything")
            for got in connection.states:
                if got.version < version:
                    self._note("mark fell", f"{name}: version {got.version} after {version}")
                version = got.version
                # A document keeps the latest conversations only: others may be missing.
                others = {key: {} for key in state if key not in document.moved} if got.all else {}
                for key, values in {**others, **got.entries}.items():
                    self._not_lower(f"{name}: {key} at {version}", state.get(key, NO_FRAME), values)
                state = dict(got.entries) if got.all else {**state, **got.entries}
                self._own_answer(name, state, got.ref)
                while next_fact < len(facts) and facts[next_fact][0] <= version:
                    self._has(name, state, facts[next_fact], document)
                    next_fact += 1
        if connections[-1].live and self.history.had_time_for_state:
            self._as_stored(name, version, state, document)

    def _not_lower(self, where: str, before: Frame, after: Frame) -> None:
        for name in RISING:
            if after.get(name, "") < before.get(name, ""):
                self._note("mark fell", f"{where}: {name} {after.get(name)} after {before[name]}")

    def _own_answer(self, name: str, state: Mapping[str, Frame], ref: str) -> None:
        change = self.history.state_changes.get(ref)
        for key, mark in change.marks.items() if change is not None else ():
            if state.get(key, NO_FRAME).get("read", "") < mark:
                self._note("mark lost", f"{name}: {key} below {mark} after its answer ({ref})")

    def _has(self, name: str, state: Mapping[str, Frame], fact: Fact, document: StateDocument) -> None:
        version, key, mark, least = fact
        if state.get(key, NO_FRAME).get(mark, "") < least and key not in document.moved:
            self._note("mark lost", f"{name}: {key}: {mark} below {least}, which version {version} has")

    def _as_stored(
        self, name: str, version: int, state: Mapping[str, Frame], document: StateDocument
    ) -> None:
        if version != document.version:
            self._note("behind", f"{name}: version {version}, MongoDB has {document.version}")
            return
        for key in {**state, **document.entries}.keys() - document.moved.keys():
            # An answer names what has no value as well, which is not stored.
            seen, stored = state.get(key, NO_FRAME), document.entries.get(key, NO_FRAME)
            if seen != stored:
                self._note("behind", f"{name}: {key} at {version}: {seen}, MongoDB has {stored}")

    # what was answered

    def _answers(self, changes: Iterable[StateChange]) -> None:
        for change in changes:
            rooms = [mark for mark in change.frame.get("marks") or [change.frame] if "room" in mark]
            if change.code and not (change.code == "not_found" and rooms):
                self._note("refused", f"{change.ref}: {change.code}")
            connections = self._devices.get((change.user, change.device))
            if change.answered_at is None and not change.code and connections and connections[-1].live:
                self._note("unanswered", f"{change.ref}: {change.frame['type']}")

    def _marks_kept(self, user: str, changes: Iterable[StateChange], stored: Mapping[str, Frame]) -> None:
        answered = [change for change in changes if change.answered_at is not None]
        for key, mark in highest(answered).items():
            found = stored.get(key, NO_FRAME).get("read", "")
            if found < mark:
                self._note("mark lost", f"{user}: {key}: MongoDB has {found!r}, {mark} was answered")

    def _settings_kept(self, user: str, changes: list[StateChange], stored: Mapping[str, Frame]) -> None:
        """The value at the end is one that nothing had replaced for certain."""
        by_field: dict[tuple[str, str], list[StateChange]] = defaultdict(list)
        for change in changes:
            if not change.code:
                for name in SETTINGS:
                    if name in change.frame:
                        by_field[key_of(change.frame), name].append(change)
        for (key, name), settings in by_field.items():
            found = stored.get(key, NO_FRAME).get(name, False)
            if found not in possible(settings, name):
                self._note("mark lost", f"{user}: {key}: {name} is {found}, which was replaced")

    def _nothing_invented(self, user: str, stored: Mapping[str, Frame]) -> None:
        sent: dict[str, set[str]] = defaultdict(set)
        for change in self._changes[user]:
            for key, mark in change.marks.items():
                sent[key].add(mark)
        for key, values in stored.items():
            if "read" in values and values["read"] not in sent[key]:
                self._note("strange mark", f"{user}: {key}: {values['read']}")

    def _peers_know(self, user: str, state: StateDocument) -> None:
        """A mark that a user has in a pair, the other has as well."""
        for key, values in state.entries.items():
            kind, _, other = key.partition(" ")
            peer = self.history.states.get(other)
            if kind != "with" or "read" not in values or not self._takes_part(other):
                continue
            entries = {**peer.moved, **peer.entries} if peer is not None else {}
            if entries.get(f"with {user}", NO_FRAME).get("peerRead", "") < values["read"]:
                self._note("mark lost", f"{other} does not know that {user} has read {values['read']}")

    def _takes_part(self, user: str) -> bool:
        return any(user == one for one, _ in self._devices)


def highest(changes: Iterable[StateChange]) -> dict[str, str]:
    """By conversation, the highest mark of these changes."""
    found: dict[str, str] = {}
    for change in changes:
        for key, mark in change.marks.items():
            found[key] = max(mark, found.get(key, ""))
    return found


def possible(settings: Iterable[StateChange], name: str) -> set[Any]:
    """The values that a setting may have at the end; False is the one before all of them.

    A frame that was written once is done by its answer at the latest. So it is replaced by each that was
    written after that, and answered. A frame that was written again may be done by a node that hangs, later.
    """
    settings = list(settings)
    last = max((one.sent[0] for one in settings if one.answered_at is not None), default=None)
    found = {
        one.frame[name]
        for one in settings
        if last is None or one.answered_at is None or len(one.sent) > 1 or one.answered_at >= last
    }
    return found if last is not None else found | {False}
