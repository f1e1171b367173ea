"""The registry of channels of the embedded backend, for typing, signals, news of state and presence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from imd.contracts.aim import Aim, Aimed, AimOutcome, TooMany
from imd.contracts.inbox import Closed, NotAllowed, NotMember
from imd.contracts.presence import WATCH_SECONDS, Seen
from imd.contracts.rooms import MEMBER
from imd.store.embedded.desk import Desk
from imd.store.embedded.rooms import RoomTables
from imd.store.embedded.state import State

Result = TypeVar("Result")


class Aims:
    """Owned by the thread that owns the connection."""

    def __init__(self, state: State, desk: Desk, rooms: RoomTables) -> None:
        self._state = state
        self._desk = desk
        self._rooms = rooms

    def aim(self, aim: Aim) -> AimOutcome:
        """As AimStore.aim."""
        target = aim.target
        if target.room:
            users = self._members(aim)
            if not isinstance(users, list):
                return users
        elif target.visitor == aim.sender:
            agent = self._desk.agent_of(aim.sender)
            users = [agent] if agent else []
        elif target.visitor:
            users = [target.visitor]
        else:
            if len(target.others) > max(1, aim.most):
                return TooMany()
            sender = self._state.user(aim.sender)
            # Blocks are read with the devices.
            self._state.devices(sender)
            users = [user for user in target.others if user not in sender.blocked]
            if not users and len(target.others) == 1:
                return Aimed({})
        others = self.channels([user for user in users if user != aim.sender])
        own = self.channels([aim.sender]).get(aim.sender, ())
        return Aimed(others, [channel for channel in own if channel != aim.channel])

    def _members(self, aim: Aim) -> AimOutcome | list[str]:
        room = self._rooms.get(aim.target.room)
        member = room.member(aim.sender) if room is not None else None
        if room is None or member is None:
            return NotMember()
        if room.posting == "admins" and member.role == MEMBER:
            return NotAllowed("posting: owner and admins only")
        if room.closed:
            return Closed()
        return TooMany() if len(room.members) > aim.most else [one.user for one in room.members]

    def channels(self, users: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """As AimStore.channels."""
        now = self._state.clock.now_ms()
        found = {}
        for user in users:
            live = self._state.channels.live_devices(user, now).values()
            if some := [channel.id for channel in live if "s" in channel.flags]:
                found[user] = some
        return found

    def hidden(self, watcher: str, users: Sequence[str]) -> list[str]:
        """As PresenceStore.hidden."""
        user = self._state.user(watcher)
        # Blocks are read with the devices.
        self._state.devices(user)
        return [other for other in users if other in user.blocked]

    def look(self, users: Sequence[str]) -> list[Seen]:
        """As PresenceStore.look; the interest is this node's."""
        now, channels = self._state.clock.now_ms(), self._state.channels
        seen = []
        for user in users:
            channels.watched[user] = now + 1000 * WATCH_SECONDS
            live = [one for one in channels.live_devices(user, now).values() if "h" not in one.flags]
            until = max((one.lease_end for one in live), default=0)
            seen.append(Seen(max(0, until - now), any("t" in one.flags for one in live)))
        return seen


class EmbeddedAims:
    """Implements imd.contracts.aim.AimStore and imd.contracts.presence.PresenceStore."""

    def __init__(
        self, do: Callable[[Callable[[Aims], Any]], Deferred[Any]], next_stirred: Callable[[], str | None]
    ) -> None:
        """`do` has its argument called in the thread that owns the file. `next_stirred` gives the next
        watched user whose channels have changed."""
        self._do = do
        self._next_stirred = next_stirred
        self._changed: Callable[[str, Sequence[str]], None] = lambda user, addresses: None

    # AimStore

    def aim(self, aim: Aim) -> Deferred[AimOutcome]:
        return self._do(lambda aims: aims.aim(aim))

    def channels(self, users: Sequence[str]) -> Deferred[Mapping[str, Sequence[str]]]:
        return self._do(lambda aims: aims.channels(users))

    # PresenceStore

    def listen_presence(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        self._changed = changed

    def look(self, users: Sequence[str], address: str) -> Deferred[list[Seen]]:
        return self._do(lambda aims: aims.look(users))

    def hidden(self, watcher: str, users: Sequence[str]) -> Deferred[Sequence[str]]:
        return self._do(lambda aims: aims.hidden(watcher, users))

    def registry_run(self) -> int:
        # Channels and their connections end with the process.
        return 0

    # from the backend

    def tell_stirred(self, result: Result) -> Result:
        """A channel was registered, renewed or removed: tell of it, and give `result`."""
        while (user := self._next_stirred()) is not None:
            self._changed(user, [""])
        return result
