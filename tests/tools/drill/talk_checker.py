"""Holds each user's list of conversations against a count over the archive, with the user's marks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.tools.drill.history import (
    NO_FRAME,
    Document,
    Frame,
    History,
    StateDocument,
    key_of,
    values_of,
)
from tests.tools.drill.model import Model

Note = Callable[[str, str], None]
MOST_UNREAD = 100
SETTINGS = ("read", "peerRead", "muted", "pinned")


class Badge(NamedTuple):
    """A conversation in the list: the id of its last message, how many are unread, marks and settings."""

    at: str
    unread: int
    values: Frame


def check_talks(history: History, model: Model, note: Note) -> None:
    """Note each conversation whose place, count, marks or settings are not what MongoDB has.

    A list was read before the archive was: what came in between tells nothing.
    """
    if not history.is_archived:
        return
    for user, read in history.read_back.items():
        if read.talks is None:
            continue
        state = history.states.get(user, StateDocument(0, {}))
        stored = {**state.moved, **state.entries}
        counted = {
            key: badge(user, documents, stored.get(key, NO_FRAME))
            for key, documents in _visible(user, history, model).items()
        }
        shown = _shown(read.talks)
        if list(shown) != sorted(shown, key=lambda key: shown[key].at, reverse=True):
            note("badge", f"{user}: the list is not in the order of its places")
        for key in {**counted, **shown}:
            if key not in counted and key.startswith("room") and not shown[key].unread:
                # A room without messages stands where its user came in.
                continue
            if shown.get(key) != counted.get(key):
                note("badge", f"{user}: {key}: {shown.get(key)}, counted {counted.get(key)}")


def badge(user: str, documents: Iterable[Document], values: Frame) -> Badge:
    """A conversation as the list has to show it; `documents`: those that the user may see, at least one."""
    documents = list(documents)
    own = max((one.message_id for one in documents if one.user == user), default="")
    mark = max(own, values.get("read", ""))
    unread = sum(one.user != user and one.message_id > mark for one in documents)
    at = max(one.message_id for one in documents)
    return Badge(at, min(unread, MOST_UNREAD), _settings(values))


def _visible(user: str, history: History, model: Model) -> dict[str, list[Document]]:
    """By conversation, without those of visitors: messages in the archive that the user may see."""
    found: dict[str, list[Document]] = defaultdict(list)
    for document in history.archive:
        if document.room:
            story = model.rooms.get(document.room)
            if story is not None and story.states[-1].may_read(user, document.version):
                found[f"room {document.room}"].append(document)
        elif user in document.participants:
            others = sorted(document.participants - {user})
            if not any(one.startswith("visitor-") for one in others):
                found[key_of({"group": others} if len(others) > 1 else {"with": others[0]})].append(document)
    return found


def _shown(talks: Iterable[Frame]) -> dict[str, Badge]:
    """By conversation, in the order of the list."""
    return {key_of(talk): Badge(talk["at"], talk["unread"], _settings(values_of(talk))) for talk in talks}


def _settings(values: Frame) -> Frame:
    return {name: values[name] for name in SETTINGS if name in values}
