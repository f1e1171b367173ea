"""The registry of channels in Redis, for typing, signals, news of state and presence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred

from imd.contracts.aim import Aim, Aimed, AimOutcome, TooMany
from imd.contracts.inbox import Closed, NoRoom, NotAllowed, NotMember
from imd.contracts.presence import Seen
from imd.contracts.together import together
from imd.protocol.selector import Target
from imd.store.redis.accept import encode_id
from imd.store.redis.script_calls import BatchedScript, ScriptCalls

_REFUSALS: Mapping[int, Callable[[list[Any]], AimOutcome]] = {
    3: lambda reply: NotAllowed(reply[1]),
    11: lambda reply: NoRoom(),
    12: lambda reply: NotMember(),
    13: lambda reply: Closed(),
    17: lambda reply: TooMany(),
}


class RedisAims:
    """Implements imd.contracts.aim.AimStore and imd.contracts.presence.PresenceStore."""

    def __init__(self, calls: ScriptCalls) -> None:
        self._calls = calls
        self._aim = BatchedScript(calls, "aim", _read_aimed)
        self._channels = BatchedScript(calls, "channels", lambda reply: reply[0].split())
        self._hidden = BatchedScript(calls, "hidden", lambda reply: [unquote(user) for user in reply])
        self._look = BatchedScript(calls, "look", lambda reply: Seen(*reply))

    # AimStore

    def aim(self, aim: Aim) -> Deferred[AimOutcome]:
        kind, target = _packed(aim.target, aim.sender)
        return self._aim(encode_id(aim.sender), aim.channel, kind, target, aim.most)

    def channels(self, users: Sequence[str]) -> Deferred[Mapping[str, Sequence[str]]]:
        found = together([self._channels(encode_id(user)) for user in users])
        return found.addCallback(
            lambda channels: {user: some for user, some in zip(users, channels, strict=True) if some}
        )

    # PresenceStore

    def listen_presence(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        self._calls.watched = lambda told: changed(unquote(told[0]), told[1:])

    def look(self, users: Sequence[str], address: str) -> Deferred[list[Seen]]:
        return together([self._look(encode_id(user), address) for user in users])

    def hidden(self, watcher: str, users: Sequence[str]) -> Deferred[Sequence[str]]:
        return self._hidden(encode_id(watcher), [encode_id(user) for user in users])

    def registry_run(self) -> int:
        return self._calls.redis.run


def _packed(target: Target, sender: str) -> tuple[str, Any]:
    """The kind and the target, as lua/aim.lua expects them."""
    if target.room:
        return "#", target.room
    if target.visitor:
        return ("v", "") if target.visitor == sender else ("w", encode_id(target.visitor))
    if len(target.others) == 1:
        return "p", encode_id(target.others[0])
    return "g", [encode_id(user) for user in target.others]


def _read_aimed(reply: list[Any]) -> AimOutcome:
    refusal = _REFUSALS.get(reply[0])
    if refusal is not None:
        return refusal(reply)
    return Aimed(dict(_by_user(reply[1])), reply[2].split())


def _by_user(flat: list[str]) -> Iterator[tuple[str, list[str]]]:
    pairs = iter(flat)
    for user, channels in zip(pairs, pairs, strict=True):
        yield unquote(user), channels.split()
