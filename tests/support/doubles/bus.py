"""A bus between nodes that all live in one test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from imd.contracts.bus import Hint, Signal
from tests.support.doubles.backend import Backed


class Network:
    """The way between BusDoubles; `carry` lets what they sent arrive, in order."""

    def __init__(self) -> None:
        self.nodes: dict[str, BusDouble] = {}
        self.under_way: deque[tuple[str, Callable[[], None]]] = deque()
        self.carried: list[tuple[str, str, Any]] = []
        """sender, kind, what"""

    def carry(self) -> None:
        for _ in range(1000):
            if not self.under_way:
                return
            self.under_way.popleft()[1]()
        raise AssertionError("the nodes talk for ever")


class BusDouble(Backed):
    """imd.contracts.bus.Bus: one node's end of a Network."""

    def __init__(self, network: Network, address: str) -> None:
        self.address = address
        self._network = network
        network.nodes[address] = self
        self.hints: Callable[[str, list[Hint]], None]
        self.searched: Callable[[str, list[Hint]], None]
        self.found: Callable[[str, list[str]], None]
        self.replaced: Callable[[list[str]], None]
        self.back: Callable[[], None]
        self.returned: Callable[[list[str]], None]
        self.signals: Callable[[list[Signal]], None]
        self.looks: Callable[[list[str]], None]
        self.full = self.behind = False

    def listen(
        self,
        hints: Callable[[str, list[Hint]], None],
        searched: Callable[[str, list[Hint]], None],
        found: Callable[[str, list[str]], None],
        replaced: Callable[[list[str]], None],
        back: Callable[[], None],
        returned: Callable[[list[str]], None],
    ) -> None:
        self.hints, self.searched, self.found, self.replaced = hints, searched, found, replaced
        self.back = back
        self.returned = returned

    def listen_signals(
        self, signals: Callable[[list[Signal]], None], looks: Callable[[list[str]], None]
    ) -> None:
        self.signals, self.looks = signals, looks

    def has_room(self) -> bool:
        return not self.full

    def has_room_for_typing(self) -> bool:
        return not self.full and not self.behind

    def send_signals(self, address: str, signals: list[Signal]) -> None:
        self._send("signals", signals, lambda: self._network.nodes[address].signals(signals))

    def send_looks(self, address: str, users: list[str]) -> None:
        self._send("looks", users, lambda: self._network.nodes[address].looks(users))

    def _others(self) -> Iterable[BusDouble]:
        return [bus for bus in self._network.nodes.values() if bus is not self]

    def _send(self, kind: str, what: Any, arrive: Callable[[], None]) -> None:
        self._network.carried.append((self.address, kind, what))
        self._network.under_way.append((kind, arrive))

    def send_hints(self, address: str, hints: list[Hint]) -> None:
        def arrive() -> None:
            if address in self._network.nodes:
                self._network.nodes[address].hints(self.address, hints)

        self._send("hints", hints, arrive)

    def search(self, hints: list[Hint]) -> None:
        def arrive() -> None:
            for bus in self._others():
                bus.searched(self.address, hints)

        self._send("search", hints, arrive)

    def ask(self, address: str, hints: list[Hint]) -> None:
        def arrive() -> None:
            if address in self._network.nodes:
                self._network.nodes[address].searched(self.address, hints)
            else:
                self.returned([hint.channel for hint in hints])

        self._send("ask", hints, arrive)

    def send_found(self, address: str, channels: list[str]) -> None:
        self._send("found", channels, lambda: self._network.nodes[address].found(self.address, channels))

    def send_replaced(self, channels: list[str]) -> None:
        def arrive() -> None:
            for bus in self._others():
                bus.replaced(channels)

        self._send("replaced", channels, arrive)
