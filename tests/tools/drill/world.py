"""The participants of a run, the messages that they owe one another, and the phase of the run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from tests.tools.drill.client import FEATURES, Device
from tests.tools.drill.doings import USUAL, Knowledge, Shares, create_a_room, react_to_a_change
from tests.tools.drill.history import Answer, History, Message
from tests.tools.drill.reading import read_all, read_back
from tests.tools.drill.ways import Way, Ways

KINDS = ("own", "server", "own", "seed")
# Probers talk to one another all the time, so that nodes look for their channels in the middle of a fault.
PROBER_RATE = 4.0
ROOMS = 4
# At the end so many users read all that they may at the same time.
READERS = 6


class Wait(NamedTuple):
    """At most so many seconds, and not longer than `patience` without any progress."""

    seconds: float
    patience: float = float("inf")


class World:
    """`clients` devices, two for each user, a tenth of them visitors, an agent, and probers at each node."""

    def __init__(
        self,
        seed: str,
        ways: Ways,
        clients: int,
        rate: float,
        *,
        shares: Shares = USUAL,
        has_events: bool = True,
    ) -> None:
        self.shares = shares
        self.has_events = has_events
        """devices of users and agents ask for events and sync, and use rooms and changes"""
        self.known = Knowledge()
        self.seed = seed
        self.ways = ways
        self.history = History()
        self.phase = "load"
        """load, settle or closing"""
        self.agents = frozenset({"agent"})
        self.users: list[str] = []
        self.owed: dict[str, set[str]] = defaultdict(set)
        """by user: keys of what has to arrive; of events and messages in rooms only the model knows it"""
        self.accepted_ids: set[str] = set()
        self.on_arrival: Callable[[Device, str, float], None] | None = None
        self.on_accepted: Callable[[Message, float], None] | None = None
        visitors = max(1, clients // 10)
        features = FEATURES if has_events else ()
        pairs = max(2, (clients - visitors - 2) // 2)
        self.users = [f"u{number}" for number in range(pairs)]
        self.devices: list[Device] = []
        for number, user in enumerate(self.users):
            for letter in "ab":
                kind = KINDS[(number * 2 + (letter == "b")) % len(KINDS)]
                self.devices.append(Device(self, f"{user}{letter}", user, kind, rate=rate, features=features))
        self._visitors = [
            Device(self, f"v{n}", "", ("own", "seed")[n % 2], role="visitor", rate=rate / 2)
            for n in range(visitors)
        ]
        self.devices += self._visitors
        self.devices += [
            Device(self, f"agent-{kind}", "agent", kind, role="agent", rate=rate, features=features)
            for kind in ("own", "server")
        ]
        self.probers = [
            Device(self, user, user, "own", role="prober", rate=PROBER_RATE, pinned=number)
            for user, number in ways.probers()
        ]
        self.devices += self.probers
        if has_events:
            self.history.synced = frozenset({*self.users, *self.agents})
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def visitors(self) -> list[str]:
        return [device.user for device in self._visitors]

    # for devices

    def pick_way(self, device: Device) -> Way:
        return self.ways.pick(device.rng, device.user, device.pinned)

    def accepted(self, message: Message, answer: Answer) -> None:
        for user in message.recipients:
            self.owed[user].add(message.key)
        self.accepted_ids.add(answer.message_id)
        self.known.accepted(message, answer)
        if message.kind == "room" and self.phase == "load":
            react_to_a_change(message, self.devices, self.known)
        if self.on_accepted is not None:
            self.on_accepted(message, answer.at)

    def refused(self, message: Message) -> None:
        """For good."""

    def arrived(self, device: Device, key: str, at: float) -> None:
        if self.on_arrival is not None:
            self.on_arrival(device, key, at)

    def visitor_named(self, device: Device, user: str) -> None:
        if device.user:
            device.seen = set()

    # for the run

    async def start(self) -> None:
        """All devices connect; nobody sends until all have."""
        self.phase = "settle"
        self._tasks = [asyncio.ensure_future(device.run()) for device in self.devices]
        await self.until(lambda: all(device.live for device in self.devices), 180, "all devices connect")
        self.phase = "load"
        if self.has_events:
            for number in range(ROOMS):
                create_a_room(self.devices[2 * number], number)

    async def settle(self, answers: Wait, arrivals: Wait) -> bool:
        """Nobody says anything new; True when all is answered, and then has arrived, in time."""
        self.phase = "settle"
        try:
            await self.until(
                self._nothing_unanswered, answers.seconds, "answers", self._count_unanswered, answers.patience
            )
            self._give_up_hopeless()
            await self.until(
                self._all_arrived, arrivals.seconds, "arrivals", self._count_arrived, arrivals.patience
            )
        except TimeoutError:
            return False
        return True

    def _count_unanswered(self) -> tuple[int, int, int]:
        """Of messages and of marks; and the devices that are connected."""
        messages = sum(device.unanswered for device in self.devices)
        marks = sum(len(device.marking.unanswered) for device in self.devices)
        return messages, marks, sum(device.live for device in self.devices)

    def _count_arrived(self) -> tuple[int, int]:
        """Of messages; and the devices that are connected."""
        return sum(len(device.seen) for device in self.devices), sum(device.live for device in self.devices)

    def _nothing_unanswered(self) -> bool:
        return all(
            device.live
            and not device.marking.unanswered
            and all(self._is_hopeless(message) for message in device.unanswered_messages)
            for device in self.devices
        )

    def _is_hopeless(self, message: Message) -> bool:
        """Whether it changes what was heard under an id that Redis lost before anybody was answered.

        The message has got another id since, and the node cannot tell that this one will never be archived.
        """
        return bool(self.history.losses and message.of and message.of not in self.accepted_ids)

    def _give_up_hopeless(self) -> None:
        for device in self.devices:
            for message in device.unanswered_messages:
                device.give_up(message.key)

    def _all_arrived(self) -> bool:
        return all(device.live and device.seen >= self.owed[device.user] for device in self.devices)

    async def arrive(self, owed: Mapping[str, Set[str]], wait: Wait) -> bool:
        """Wait for what the model says that users must have as well; True when it is there in time."""
        for user, keys in owed.items():
            self.owed[user] |= keys
        try:
            await self.until(
                self._all_arrived, wait.seconds, "events arrive", self._count_arrived, wait.patience
            )
        except TimeoutError:
            return False
        return True

    def knows_state(self, versions: Mapping[str, int]) -> bool:
        """Whether each device has its user's state as it is by these versions, and all marks are answered."""
        return all(
            device.live
            and not device.marking.unanswered
            and device.marking.version == versions.get(device.user, 0)
            for device in self.devices
            if device.marking.is_on
        )

    async def read_histories(self) -> None:
        """Of all users, some at a time."""
        turns = asyncio.Semaphore(READERS)

        async def read(user: str, device: Device) -> None:
            async with turns:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    if device.features:
                        found = self.history.read_back[user] = await read_back(device)
                        entries = found.pages[""]
                    else:
                        entries = await read_all(device)
                    self.history.read[user] = [entry["id"] for entry in entries]

        readers = {device.user: device for device in self.devices}
        await asyncio.gather(*(read(user, device) for user, device in readers.items()))

    async def close(self) -> None:
        """All leave in good order; what they hear until then still counts."""
        for device in self.devices:
            if device.connection is not None:
                device.connection.live = device.live
        self.phase = "closing"
        done, late = await asyncio.wait(self._tasks, timeout=20)
        for task in late:
            task.cancel()
        for task in done:
            task.result()

    async def until(
        self,
        condition: Callable[[], bool],
        seconds: float,
        what: str,
        progress: Callable[[], object] = lambda: None,
        patience: float = float("inf"),
    ) -> None:
        """Raises TimeoutError, also when `progress` gives the same for `patience` seconds."""
        began = changed = time.monotonic()
        last = progress()
        while not condition():
            self._raise_failures()
            now = time.monotonic()
            if (found := progress()) != last:
                last, changed = found, now
            if now > min(began + seconds, changed + patience):
                raise TimeoutError(f"{what}: not within {now - began:.1f} s")
            await asyncio.sleep(0.05)

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
