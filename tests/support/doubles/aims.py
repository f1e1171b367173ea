"""A registry of channels as aims and presence see it, whose content a test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from imd.contracts.aim import Aim, Aimed
from imd.contracts.presence import Seen
from imd.protocol.errors import Unavailable


class AimsDouble:
    """imd.contracts.aim.AimStore and imd.contracts.presence.PresenceStore. It answers at once."""

    def __init__(self) -> None:
        self.live: dict[str, list[str]] = {}
        """user → channels with the feature `state`"""
        self.refusal: Any = None
        """the outcome of aims, if they are refused"""
        self.down = False
        self.aimed: list[Aim] = []
        self.seen: dict[str, Seen] = {}
        self.looked: list[Sequence[str]] = []
        self.run = 1
        self.blocks: list[set[str]] = []
        self.changed: Callable[[str, Sequence[str]], None] = lambda user, addresses: None

    def _answer(self, result: Any) -> Deferred[Any]:
        return fail(Unavailable("redis: down")) if self.down else succeed(result)

    def aim(self, aim: Aim) -> Deferred[Any]:
        self.aimed.append(aim)
        target = aim.target
        users = target.others or ([target.visitor] if target.visitor else list(self.live))
        others = {user: self.live[user] for user in users if user in self.live and user != aim.sender}
        own = [channel for channel in self.live.get(aim.sender, ()) if channel != aim.channel]
        return self._answer(Aimed(others, own) if self.refusal is None else self.refusal)

    def channels(self, users: Sequence[str]) -> Deferred[Mapping[str, Sequence[str]]]:
        return self._answer({user: self.live[user] for user in users if user in self.live})

    def listen_presence(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        self.changed = changed

    def look(self, users: Sequence[str], address: str) -> Deferred[list[Seen]]:
        self.looked.append(users)
        return self._answer([self.seen.get(user, Seen()) for user in users])

    def hidden(self, watcher: str, users: Sequence[str]) -> Deferred[Sequence[str]]:
        return self._answer([user for user in users if {watcher, user} in self.blocks])

    def registry_run(self) -> int:
        return self.run
