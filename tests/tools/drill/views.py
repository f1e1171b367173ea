"""Each device's view at the end, built from its frames alone, held against what its user reads. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from tests.tools.drill.history import (
    Answer,
    Connection,
    EventDocument,
    Frame,
    Got,
    History,
    ReadBack,
    extras_of,
)
from tests.tools.drill.model import Model, Shown, shown

Note = Callable[[str, str], None]
RULES = ("name", "posting", "history", "joining")


class View:
    """A device's messages and rooms. A client that follows the protocol comes to the same."""

    def __init__(self, history: History, connections: Iterable[Connection]) -> None:
        self.texts: dict[str, str] = {}
        """by message id: as it came, or was sent"""
        self.extras: dict[str, str] = {}
        self.changes: dict[str, dict[str, EventDocument]] = defaultdict(dict)
        self.versions: dict[str, int] = {}
        self.rules: dict[str, dict[str, str]] = defaultdict(dict)
        for connection in connections:
            for event in connection.events:
                if type(event) is Answer and event.message_id:
                    message = history.messages[event.key]
                    if message.kind in ("", "message"):
                        self.texts.setdefault(event.message_id, message.text)
                        self.extras.setdefault(event.message_id, message.extras)
                    elif message.of:
                        self.apply({**message.frame, "kind": message.kind, "userId": message.sender}, event)
                elif type(event) is Got:
                    if event.frame.get("kind", "message") == "message":
                        self.texts.setdefault(event.message_id, event.text)
                        self.extras.setdefault(event.message_id, event.extras)
                    elif "of" in event.frame:
                        self.apply(event.frame)
                    elif event.frame["kind"] == "room":
                        self._room(event.frame)

    def apply(self, frame: Frame, accepted: Answer | None = None) -> None:
        """An edit, a recall or a reaction: as it was delivered, or sent and accepted."""
        event_id = accepted.message_id if accepted is not None else frame["id"]
        of = frame["id"] if accepted is not None else frame["of"]
        change = EventDocument(
            event_id, frame["clientMsgId"], frame["userId"], frame["kind"], of, "", 0, frame
        )
        self.changes[of][event_id] = change

    def _room(self, frame: Frame) -> None:
        room, version = frame["room"], frame["version"]
        if version > self.versions.get(room, 0):
            self.versions[room] = version
            self.rules[room] |= {name: frame[name] for name in RULES if name in frame}

    def shown(self, message_id: str) -> Shown:
        changes = self.changes[message_id].values()
        return shown(self.texts[message_id], changes, self.extras[message_id])


def check_views(history: History, model: Model, note: Note) -> None:
    """Note each message and room that a device shows otherwise than its user reads it."""
    devices: dict[tuple[str, str], list[Connection]] = defaultdict(list)
    for connection in history.connections:
        devices[connection.user, connection.device].append(connection)
    for (user, device), connections in devices.items():
        read = history.read_back.get(user)
        if read is None:
            continue
        view = View(history, connections)
        for room, page in read.pages.items():
            # A device that was told of a loss reads `changes`, as does one that was away from a room.
            was_away = room and model.rooms[room].states[-1].rules.get("history") == "all"
            if history.losses or was_away:
                for frame in read.changes.get(room, ()):
                    if "of" in frame:
                        view.apply(frame)
            _messages(f"{user}/{device}", view, page, note)
        if not history.losses:
            _rooms(f"{user}/{device}", view, read, note)


def _messages(name: str, view: View, page: Iterable[Frame], note: Note) -> None:
    for entry in page:
        if entry["id"] in view.texts:
            seen, read = view.shown(entry["id"]), as_read(entry)
            if seen != read:
                note("view", f"{name}: {entry['clientMsgId']}: {seen}, history has {read}")


def _rooms(name: str, view: View, read: ReadBack, note: Note) -> None:
    for room, found in read.rooms.items():
        seen = (view.versions.get(room), view.rules[room])
        if seen != (found.version, found.rules):
            note("view", f"{name}: {room}: {seen}, `rooms` has {found.version}, {found.rules}")


def as_read(entry: Frame) -> Shown:
    """A message as history gives it."""
    given = entry.get("reactions", ())
    reactions = frozenset((user, one["reaction"]) for one in given for user in one["users"])
    edited = str(entry.get("edited", {}).get("id", ""))
    return Shown(entry["msg"], edited, "recalled" in entry, reactions, extras_of(entry))
