"""Do hints flow between every two nodes? Measured by messages that arrive too soon for reconciling."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.tools.drill.client import Device
from tests.tools.drill.history import Message
from tests.tools.drill.world import World

# Hints go out before `accepted`. So a message that arrives by a hint is there at about the same time as
# its sender's answer, however busy the machine is.
HINT_SECONDS = 0.25
ROUND_SECONDS = 0.1


@dataclass(slots=True)
class _Probe:
    pair: tuple[str, str]
    sent_at: float
    accepted_at: float | None = None
    arrived_at: float | None = None


class Probe:
    """Sends from each node's prober to each other's until all have had a message in time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: dict[str, _Probe] = {}
        self._pending: set[tuple[str, str]] = set()
        self._last_hint = 0.0
        world.on_arrival = self._arrived
        world.on_accepted = self._accepted

    async def measure(self, since: float, most: float) -> tuple[float, list[str]]:
        """Seconds from `since` until hints flow, and the pairs without any after `most` seconds."""
        probers = self._world.probers
        self._sent.clear()
        self._pending = {(a.user, b.user) for a in probers for b in probers if a is not b}
        self._last_hint = since
        while self._pending and time.monotonic() - since < most:
            for sender in probers:
                for pair in [one for one in self._pending if one[0] == sender.user]:
                    if sender.live and sender.unanswered < 30:
                        now = time.monotonic()
                        self._sent[sender.say([pair[1]])] = _Probe(pair, now)
            await asyncio.sleep(ROUND_SECONDS)
        seconds = time.monotonic() - since if self._pending else self._last_hint - since
        left = [f"{a} to {b}" for a, b in sorted(self._pending)]
        self._pending = set()
        return max(0.0, seconds), left

    def _arrived(self, device: Device, key: str, at: float) -> None:
        if (probe := self._sent.get(key)) is not None:
            probe.arrived_at = at
            self._judge(probe)

    def _accepted(self, message: Message, at: float) -> None:
        if (probe := self._sent.get(message.key)) is not None:
            probe.accepted_at = at
            self._judge(probe)

    def _judge(self, probe: _Probe) -> None:
        if probe.accepted_at is None or probe.arrived_at is None or probe.pair not in self._pending:
            return
        if probe.arrived_at - probe.accepted_at <= HINT_SECONDS:
            self._pending.discard(probe.pair)
            self._last_hint = max(self._last_hint, probe.sent_at)
