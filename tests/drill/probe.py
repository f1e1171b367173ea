"""Do hints flow between every two nodes? Measured by messages that arrive too soon for reconciling."""

from __future__ import annotations

import asyncio
import time

from tests.drill.client import Device
from tests.drill.world import World

# A message that arrives so soon was pushed by a hint.
HINT_SECONDS = 0.25
ROUND_SECONDS = 0.1


class Probe:
    """Sends from each node's prober to each other's until all have had a message in time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: dict[str, tuple[str, str, float]] = {}
        self._pending: set[tuple[str, str]] = set()
        self._last_hint = 0.0
        world.on_arrival = self._arrived

    async def measure(self, since: float, most: float) -> tuple[float, list[str]]:
        """Seconds from `since` until hints flow, and the pairs without any after `most` seconds."""
        probers = self._world.probers
        self._sent.clear()
        self._pending = {(a.user, b.user) for a in probers for b in probers if a is not b}
        self._last_hint = since
        while self._pending and time.monotonic() - since < most:
            for sender in probers:
                for user in [other for name, other in self._pending if name == sender.user]:
                    if sender.live and sender.unanswered < 30:
                        now = time.monotonic()
                        self._sent[sender.say([user])] = (sender.user, user, now)
            await asyncio.sleep(ROUND_SECONDS)
        seconds = time.monotonic() - since if self._pending else self._last_hint - since
        left = [f"{a} to {b}" for a, b in sorted(self._pending)]
        self._pending = set()
        return max(0.0, seconds), left

    def _arrived(self, device: Device, key: str, at: float) -> None:
        sender, user, sent_at = self._sent.get(key, ("", "", 0.0))
        if (sender, user) in self._pending and at - sent_at <= HINT_SECONDS:
            self._pending.discard((sender, user))
            self._last_hint = sent_at
