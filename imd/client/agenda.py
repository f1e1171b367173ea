"""The core's list of things to do: effects for the shell, and timers of its own. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from imd.client.effects import Effect, Emit, Transmit
from imd.client.events import Event


class Agenda:
    """`seconds` gives a time that rises evenly; all times here are its."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._effects: list[Effect] = []
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def emit(self, event: Event) -> None:
        self.add(Emit(event))

    def transmit(self, frame: Mapping[str, Any]) -> None:
        self.add(Transmit(json.dumps(frame, ensure_ascii=False, separators=(",", ":"))))

    def take(self) -> list[Effect]:
        """Everything that was added since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call once, so many seconds from now. A timer of the same name is replaced."""
        self._timers[name] = self.seconds() + seconds, call

    def waits_for(self, name: str) -> bool:
        return name in self._timers

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    def cancel_all(self) -> None:
        self._timers.clear()

    def deadline(self) -> float | None:
        """The time of the first timer; None without timers."""
        return min((at for at, _ in self._timers.values()), default=None)

    def run_timers(self) -> None:
        """Call whatever is due. A call may set and cancel timers."""
        now = self.seconds()
        for name in [name for name, (at, _) in self._timers.items() if at <= now]:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer[1]()
