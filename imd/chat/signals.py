"""Unnumbered words for channels, here or on other nodes: typing, signals, news of state, looks at presence.

Nothing of it is kept, and all of it may be lost. For each node a little waits at a time: `typing` for a tick,
so that equal frames become one, the rest for the end of the turn, so that hints go first. Without room
`typing` goes first, then the applications' signals; news that the node looks up again anyway goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter, Gauge

from imd.chat.router import Router
from imd.contracts.bus import Bus, Signal
from imd.contracts.timer import Cancellable

MAX_FOR_NODE = 2_000
"""channels that wait for one node, and users"""
MAX_WAITING = 20_000
"""for all nodes"""
TYPING_SECONDS = 0.1

TYPING = "typing"
SIGNAL = "signal"
LOOK = "look"
_DROPPED_EARLY = frozenset({TYPING, SIGNAL})

SENT = Counter("imd_signals_sent_total", "Signals sent to channels, here and elsewhere, by kind.", ["kind"])
RECEIVED = Counter("imd_signals_received_total", "Signals that came from other nodes, by kind.", ["kind"])
DROPPED = Counter(
    "imd_signals_dropped_total",
    "Signals that were left out: no room in a queue, a bus that falls behind, a channel that no node has.",
    ["kind", "why"],
)
WAITING = Gauge("imd_signals_waiting", f"Signals that wait for a turn of the bus (bound: {MAX_WAITING:,}).")

Take = Callable[[Sequence[str], bytes], None]
"""takes a payload for channels of this node"""


class _Queue:
    """The words that wait for one node."""

    __slots__ = ("looks", "signals", "size", "typing")

    def __init__(self) -> None:
        self.typing: dict[bytes, dict[str, None]] = {}
        """frame → channels"""
        self.signals: list[Signal] = []
        self.looks: dict[str, None] = {}
        """users"""
        self.size = 0
        """channels and users"""

    def drop_typing(self) -> int:
        """Gives how many channels are left out; `size` is for the caller to lower."""
        dropped = sum(map(len, self.typing.values()))
        self.typing.clear()
        return dropped

    def drop_signals(self) -> int:
        """The same for the signals of applications."""
        dropped = sum(len(one.channels) for one in self.signals if one.kind == SIGNAL)
        self.signals = [one for one in self.signals if one.kind != SIGNAL]
        return dropped


class Signals:
    """The outbox of a node. `bus` is None where there is no other node."""

    def __init__(
        self, router: Router, bus: Bus | None, call_later: Callable[[float, Callable[[], None]], Cancellable]
    ) -> None:
        self._router = router
        self._bus = bus
        self._call_later = call_later
        self._takes: dict[str, Take] = {}
        self._looked: Callable[[Sequence[str]], None] = _ignore
        self._queues: dict[str, _Queue] = {}
        self._size = 0
        self._turn: Cancellable | None = None
        self._tick: Cancellable | None = None
        if bus is not None:
            bus.listen_signals(self._signals_came, self._looks_came)

    # from the node

    def take(self, kind: str, take: Take) -> None:
        """Have payloads of a kind taken by `take`."""
        self._takes[kind] = take

    def take_looks(self, looked: Callable[[Sequence[str]], None]) -> None:
        """Have `looked` told of users who may have come or gone."""
        self._looked = looked

    def stop(self) -> None:
        """Send the rest but `typing`."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        self._tick = None
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
            self._flush()

    # from the parts of the node

    def send(self, kind: str, channels: Mapping[str, Sequence[str]], payload: bytes) -> None:
        """Send a payload to channels, by their users. Channels of this node get it at once."""
        here: list[str] = []
        away: dict[str, list[str]] = {}
        for user, theirs in channels.items():
            for channel in theirs:
                if self._router.is_here(channel):
                    here.append(channel)
                elif self._bus is not None:
                    address = self._router.where(user, channel, self._sender(kind, channel, payload))
                    if address is not None:
                        away.setdefault(address, []).append(channel)
        if here:
            SENT.labels(kind).inc(len(here))
            self._takes[kind](here, payload)
        for address, theirs in away.items():
            self._put(address, kind, theirs, payload)

    def look(self, addresses: Sequence[str], user: str) -> None:
        """Tell the nodes at these addresses, where '' is this node: the user may have come or gone."""
        for address in addresses:
            if address == "" or (self._bus is not None and address == self._bus.address):
                self._looked([user])
            elif self._bus is not None and self._has_room(address, LOOK, 1):
                queue = self._queues[address]
                if user not in queue.looks:
                    queue.looks[user] = None
                    self._grow(queue, 1)
                self._schedule_turn()

    # from within

    def _sender(self, kind: str, channel: str, payload: bytes) -> Callable[[str], None]:
        return lambda address: self._put(address, kind, [channel], payload)

    def _put(self, address: str, kind: str, channels: list[str], payload: bytes) -> None:
        if kind in _DROPPED_EARLY and not self._has_bus_room(kind):
            DROPPED.labels(kind, "congested").inc(len(channels))
            return
        if not self._has_room(address, kind, len(channels)):
            return
        queue = self._queues[address]
        if kind == TYPING:
            waiting = queue.typing.setdefault(payload, {})
            before = len(waiting)
            waiting.update(dict.fromkeys(channels))
            self._grow(queue, len(waiting) - before)
            if self._tick is None:
                self._tick = self._call_later(TYPING_SECONDS, self._flush_typing)
        else:
            queue.signals.append(Signal(kind, payload, channels))
            self._grow(queue, len(channels))
            self._schedule_turn()

    def _has_bus_room(self, kind: str) -> bool:
        bus = self._bus
        return bus is None or (bus.has_room_for_typing() if kind == TYPING else bus.has_room())

    def _has_room(self, address: str, kind: str, count: int) -> bool:
        """Make room for so many more, at the cost of what matters less. False: these are left out."""
        queue = self._queues.get(address)
        if queue is None:
            queue = self._queues[address] = _Queue()
        if self._fits(queue, count):
            return True
        if kind != TYPING:
            self._drop(TYPING, queue, queue.drop_typing())
            if not self._fits(queue, count) and kind != SIGNAL:
                self._drop(SIGNAL, queue, queue.drop_signals())
        if self._fits(queue, count):
            return True
        DROPPED.labels(kind, "full").inc(count)
        return False

    def _fits(self, queue: _Queue, count: int) -> bool:
        return queue.size + count <= MAX_FOR_NODE and self._size + count <= MAX_WAITING

    def _drop(self, kind: str, queue: _Queue, dropped: int) -> None:
        self._grow(queue, -dropped)
        DROPPED.labels(kind, "full").inc(dropped)

    def _grow(self, queue: _Queue, count: int) -> None:
        queue.size += count
        self._size += count
        WAITING.set(self._size)

    def _schedule_turn(self) -> None:
        if self._turn is None:
            self._turn = self._call_later(0, self._flush)

    def _flush(self) -> None:
        self._turn = None
        bus = self._bus
        assert bus is not None
        for address, queue in self._queues.items():
            signals, queue.signals = queue.signals, []
            looks, queue.looks = queue.looks, {}
            self._grow(queue, -len(looks) - self._send(address, signals))
            if looks:
                bus.send_looks(address, list(looks))
        self._forget_empty()

    def _flush_typing(self) -> None:
        self._tick = None
        bus = self._bus
        assert bus is not None
        for address, queue in self._queues.items():
            typing, queue.typing = queue.typing, {}
            signals = [Signal(TYPING, payload, list(channels)) for payload, channels in typing.items()]
            if bus.has_room_for_typing():
                self._grow(queue, -self._send(address, signals))
            else:
                count = sum(len(signal.channels) for signal in signals)
                DROPPED.labels(TYPING, "congested").inc(count)
                self._grow(queue, -count)
        self._forget_empty()

    def _send(self, address: str, signals: list[Signal]) -> int:
        """Gives the number of channels."""
        count = 0
        for signal in signals:
            count += len(signal.channels)
            SENT.labels(signal.kind).inc(len(signal.channels))
        if signals and self._bus is not None:
            self._bus.send_signals(address, signals)
        return count

    def _forget_empty(self) -> None:
        self._queues = {address: queue for address, queue in self._queues.items() if queue.size}

    # from the bus

    def _signals_came(self, signals: list[Signal]) -> None:
        for signal in signals:
            take = self._takes.get(signal.kind)
            here = [channel for channel in signal.channels if self._router.is_here(channel)]
            if take is not None and here:
                RECEIVED.labels(signal.kind).inc(len(here))
                take(here, signal.payload)
            if unknown := len(signal.channels) - len(here):
                DROPPED.labels(signal.kind if take is not None else "other", "unknown").inc(unknown)

    def _looks_came(self, users: list[str]) -> None:
        RECEIVED.labels(LOOK).inc(len(users))
        self._looked(users)


def _ignore(users: Sequence[str]) -> None:
    """Used until `take_looks` is called."""
