"""A core by hand: its clock stands still, and its node is the test."""

from __future__ import annotations

import json
from typing import Any

from imd.client import Options, State, Store, effects
from imd.client.core import Core
from imd.client.program import Program
from imd.client.store import MemoryStore

WINDOW = 8


class Clock:
    now = 1000.0
    wall_now = 1_764_000_000.0
    """the time of day"""

    def seconds(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.wall_now


class Shell(Program):
    """The methods of programs, without promises: a question gives its ref."""

    def __init__(self, pipe: Pipe) -> None:
        self._core = pipe.core
        self._pipe = pipe

    def _ask(self, kind: str, **fields: Any) -> Any:
        return self._core.ask(kind, **fields)

    def _pump(self) -> None:
        self._pipe.run()


class Pipe:
    """A core with the test as its shell. The lists hold the effects that were performed."""

    def __init__(self, clock: Clock | None = None, store: Store | None = None, **options: Any) -> None:
        self.clock = clock or Clock()
        options = {"user_id": "alice", **options}
        clock = self.clock
        self.core = Core(Options(**options), store or MemoryStore(), clock.seconds, clock.wall, lambda: 1.0)
        self.program = Shell(self)
        self.done: list[effects.Effect] = []
        self.sent: list[dict[str, Any]] = []
        self.delivered: list[Any] = []
        self.happened: list[Any] = []

    def run(self) -> None:
        for effect in self.core.effects():
            self.done.append(effect)
            match effect:
                case effects.Transmit(text):
                    self.sent.append(json.loads(text))
                case effects.Deliver(entry):
                    self.delivered.append(entry)
                case effects.Emit(event):
                    self.happened.append(event)

    def take(self) -> list[dict[str, Any]]:
        """The frames that were sent since the last call."""
        self.run()
        sent, self.sent = self.sent, []
        return sent

    def events(self, kind: type) -> list[Any]:
        self.run()
        return [event for event in self.happened if isinstance(event, kind)]

    def gets(self, **frame: Any) -> None:
        self.core.received(self.core.connection, json.dumps(frame))
        self.run()

    def open(self, **fields: Any) -> None:
        """Start, open the socket and answer `connected`; `fields` replace those of a usual answer."""
        if self.core.state is State.IDLE:
            self.core.start()
        self.core.opened(self.core.connection)
        connected = {"userId": "alice", "epoch": "e", "seq": 0, "recovered": True, "serverTime": 5_000_000}
        limits = {"messageBytes": 100_000, "ackWindow": WINDOW}
        self.gets(type="connected", **(connected | {"limits": limits, "pingSeconds": 25} | fields))

    def message(self, seq: int, message_id: str | None = None, **fields: Any) -> None:
        self.gets(seq=seq, id=message_id or f"m{seq}", userId="bob", msg="hi", sendTime=1, **fields)

    def lose(self, code: int | None = None) -> None:
        self.core.closed(self.core.connection, code, "gone")
        self.run()

    def wait(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while (at := self.core.deadline()) is not None and at <= end:
            self.clock.now = max(self.clock.now, at)
            self.core.tick()
            self.run()
        self.clock.now = end
