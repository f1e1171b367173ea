"""Marks and settings that the node has not confirmed yet: the latest of each conversation. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from imd.client.conversation import Conversation, as_frame, of_frame
from imd.client.store import Store

USER = "user"
"""the key of settings that belong to no conversation"""
MOST = 1000
"""most conversations with something to confirm; past it the oldest wish is forgotten"""


@dataclass(slots=True)
class Wish:
    about: Conversation
    """names the conversation"""
    read: str = ""
    """the mark; empty: none is set"""
    fields: dict[str, Any] = field(default_factory=dict)
    """settings, under the protocol's names"""

    def over(self, known: Conversation) -> Conversation:
        """The conversation as it is once the wish is fulfilled."""
        if self.read:
            known = replace(known, read=max(known.read, self.read), marked=False)
        values = {name: value for name, value in self.fields.items() if name != "receipts"}
        if "hidden" in values:
            values["hidden"] = values["hidden"] or ""
        if "cleared" in values:
            values["cleared"] = max(known.cleared, values["cleared"])
        return replace(known, **values) if values else known


class Wishes:
    """By key of a conversation, oldest first; each change is stored."""

    def __init__(self, store: Store, saved: dict[str, str]) -> None:
        self._store = store
        self._all = {key: _restored(text) for key, text in saved.items()}

    def __iter__(self) -> Iterator[tuple[str, Wish]]:
        return iter(self._all.items())

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> Wish | None:
        return self._all.get(key)

    def read(self, key: str, about: Conversation, up_to: str) -> None:
        """A mark ends `marked`, also one that is only wished."""
        wish = self._wish(key, about)
        wish.read = max(wish.read, up_to)
        wish.fields.pop("marked", None)
        self._keep(key)

    def set(self, key: str, about: Conversation, fields: dict[str, Any]) -> None:
        self._wish(key, about).fields.update(fields)
        self._keep(key)

    def done(self, key: str, read: str, fields: dict[str, Any]) -> None:
        """This was answered. A later wish stays."""
        wish = self._all.get(key)
        if wish is None:
            return
        if wish.read == read:
            wish.read = ""
        for name, value in fields.items():
            if name in wish.fields and wish.fields[name] == value:
                del wish.fields[name]
        self._keep(key)

    def clear(self) -> None:
        """Another user. The store forgets them by itself."""
        self._all.clear()

    def _wish(self, key: str, about: Conversation) -> Wish:
        if key not in self._all and len(self._all) >= MOST:
            oldest = next(iter(self._all))
            del self._all[oldest]
            self._store.put_wish(oldest, None)
        return self._all.setdefault(key, Wish(about))

    def _keep(self, key: str) -> None:
        wish = self._all[key]
        if wish.read or wish.fields:
            self._store.put_wish(key, _stored(wish))
        else:
            del self._all[key]
            self._store.put_wish(key, None)


def _stored(wish: Wish) -> str:
    return json.dumps({"about": as_frame(wish.about), "read": wish.read, "fields": wish.fields})


def _restored(text: str) -> Wish:
    kept = json.loads(text)
    return Wish(of_frame(kept["about"]), kept["read"], kept["fields"])
