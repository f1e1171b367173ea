"""The channel registry of the embedded backend: plain dicts, since channels end with the process."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Channel(NamedTuple):
    """A live connection of a device; `lease_end` in ms."""

    id: str
    lease_end: int
    answers_visitors: bool
    flags: str = ""
    """as in ConnectRequest"""


class Channels:
    """user → device → channel, and since when each agent has been gone.

    `rollback` undoes the changes since the last `commit`. All times in ms.
    """

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self.by_user: dict[str, dict[str, Channel]] = {}
        self._answering: dict[str, None] = {}
        self._gone_since: dict[str, int] = {}
        self.watched: dict[str, int] = {}
        """user → until when this node wants to know of changes"""
        self._stirred: deque[str] = deque()
        self._undo: list[tuple[str, dict[str, Channel], int | None]] = []

    def get(self, user: str, device: str) -> Channel | None:
        devices = self.by_user.get(user)
        return devices.get(device) if devices else None

    def live(self, user: str, now: int) -> list[str]:
        """The ids of the user's live channels."""
        devices = self.by_user.get(user)
        if not devices:
            return []
        return [channel.id for channel in devices.values() if channel.lease_end > now]

    def live_devices(self, user: str, now: int) -> dict[str, Channel]:
        devices = self.by_user.get(user, {})
        return {device: channel for device, channel in devices.items() if channel.lease_end > now}

    def put(self, user: str, device: str, channel: Channel, now: int) -> None:
        self._change(user, device, channel, now)

    def remove(self, user: str, device: str, now: int) -> None:
        self._change(user, device, None, now)

    def stir(self, user: str, now: int) -> None:
        """The user may have come or gone."""
        if self.watched.get(user, 0) > now:
            self._stirred.append(user)

    def next_stirred(self) -> str | None:
        """The next watched user who may have come or gone; called in any thread."""
        try:
            return self._stirred.popleft()
        except IndexError:
            return None

    def _change(self, user: str, device: str, channel: Channel | None, now: int) -> None:
        before = self.by_user.get(user, {})
        self._undo.append((user, before, self._gone_since.get(user)))
        old = before.get(device)
        if old is not None and old.answers_visitors:
            gone = self._gone_since.get(user, self._start_ms)
            self._gone_since[user] = max(gone, min(now, old.lease_end))
        after = dict(before)
        if channel is None:
            after.pop(device, None)
        else:
            after[device] = channel
        self._set(user, after)

    def _set(self, user: str, devices: dict[str, Channel]) -> None:
        if devices:
            self.by_user[user] = devices
        else:
            self.by_user.pop(user, None)
        if any(channel.answers_visitors for channel in devices.values()):
            self._answering[user] = None
        else:
            self._answering.pop(user, None)

    def commit(self) -> None:
        self._undo.clear()

    def mark(self) -> int:
        """For a later `rollback` to this point."""
        return len(self._undo)

    def rollback(self, mark: int = 0) -> None:
        while len(self._undo) > mark:
            user, devices, gone_since = self._undo.pop()
            self._set(user, devices)
            if gone_since is None:
                self._gone_since.pop(user, None)
            else:
                self._gone_since[user] = gone_since

    # agents

    def agents_online(self, now: int) -> list[str]:
        """Users with a live channel that answers visitors, in the order of their names."""
        return sorted(user for user in self._answering if self._answers(user, now))

    def _answers(self, user: str, now: int) -> bool:
        channels = self.by_user.get(user, {}).values()
        return any(channel.answers_visitors and channel.lease_end > now for channel in channels)

    def gone_since(self, agent: str) -> int:
        """When the agent's last channel that answered visitors ended; the start, if it has had none since."""
        ends = [
            channel.lease_end for channel in self.by_user.get(agent, {}).values() if channel.answers_visitors
        ]
        return max([self._gone_since.get(agent, self._start_ms), *ends])

    def is_gone(self, agent: str, now: int, grace_ms: float) -> bool:
        """True if the agent is not online, and has not been for longer than the grace period."""
        return not self._answers(agent, now) and now - self.gone_since(agent) > grace_ms

    def purge(self, ended_before: int, now: int) -> None:
        """Forget channels whose lease ended before the time given: their connections will not come back."""
        for user in [user for user, until in self.watched.items() if until <= now]:
            del self.watched[user]
        for user, devices in list(self.by_user.items()):
            for device, channel in devices.items():
                if channel.lease_end < ended_before:
                    self.remove(user, device, now)
