"""A client as programs use it, which writes to its partner and notes how that went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from imd.client.asyncio import Client
from imd.client.events import Accepted, Failed, Gap, Leaving, Outgoing, State, StateChanged

# Times are seconds on the monotonic clock.


class Absence(NamedTuple):
    """From the end of a connection until the next one was open. `told`: its node had said `leaving`."""

    since: float
    until: float
    told: bool

    @property
    def seconds(self) -> float:
        return self.until - self.since


class Wait(NamedTuple):
    """From the sending of a message until it was accepted."""

    sent_at: float
    seconds: float


class Talker:
    """One of a pair: user 2n writes to 2n + 1, and that one to it. Its messages are numbered."""

    def __init__(self, number: int, url: str, token: str) -> None:
        self.user, self.partner = user(number), user(number ^ 1)
        self.client = Client(url, user_id=self.user, device="phone", token=lambda: token)
        self.sent = 0
        self.got: list[int] = []
        """the numbers of the partner's messages, as they came"""
        self.absences: list[Absence] = []
        self.waits: list[Wait] = []
        self.objections: list[str] = []
        """refusals for good, gaps"""
        self._sent_at: dict[str, float] = {}
        self._gone_at: float | None = None
        self._is_open = self._told = False
        self._reading: asyncio.Task[None] | None = None
        self.client.on(StateChanged, self._changed)
        self.client.on(Leaving, self._leaving)
        self.client.on(Accepted, self._accepted)
        self.client.on(Failed, lambda failed: self._object(f"refused: {failed.refusal.code}"))
        self.client.on(Gap, lambda _: self._object("told of a gap"))

    async def start(self) -> None:
        """Returns when it is connected."""
        self.client.start()
        self._reading = asyncio.ensure_future(self._read())
        await self.client.connected()

    async def stop(self) -> None:
        await self.client.stop()
        if self._reading is not None:
            self._reading.cancel()

    def say(self) -> None:
        """One more message. One that cannot be sent now waits in the client's outbox."""
        outgoing: Outgoing = self.client.send(str(self.sent), to=self.partner)
        self._sent_at[outgoing.client_msg_id] = time.monotonic()
        self.sent += 1

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def unanswered(self) -> int:
        return len(self._sent_at)

    def was_away(self, begin: float, end: float) -> bool:
        """At any moment between these, or it still is."""
        if self._gone_at is not None:
            return True
        return any(one.since < end and one.until > begin for one in self.absences)

    def _changed(self, event: StateChanged) -> None:
        if event.state is State.OPEN:
            if self._gone_at is not None:
                self.absences.append(Absence(self._gone_at, time.monotonic(), self._told))
            self._gone_at, self._told, self._is_open = None, False, True
        elif self._is_open:
            self._gone_at, self._is_open = time.monotonic(), False

    def _leaving(self, _: Leaving) -> None:
        self._told = True

    def _accepted(self, event: Accepted) -> None:
        now = time.monotonic()
        sent_at = self._sent_at.pop(event.outgoing.client_msg_id, None)
        if sent_at is not None:
            self.waits.append(Wait(sent_at, now - sent_at))

    def _object(self, what: str) -> None:
        self.objections.append(f"{self.user}: {what}")

    async def _read(self) -> None:
        async for message in self.client.messages():
            self.got.append(int(message.msg))


def user(number: int) -> str:
    return f"talker-{number}"


def judge(name: str, sent: int, got: Sequence[int]) -> list[str]:
    """The objections to the messages that came to `name`, whose partner has sent 0, 1, 2 … `sent` - 1."""
    objections = []
    first = list(dict.fromkeys(got))
    if missing := sorted(set(range(sent)) - set(got)):
        objections.append(f"{name}: lost {len(missing)} of {sent}, as {missing[0]}")
    if len(got) > len(first):
        objections.append(f"{name}: {len(got) - len(first)} came twice")
    if first != sorted(first):
        objections.append(f"{name}: out of order")
    if strange := sorted(set(got) - set(range(sent))):
        objections.append(f"{name}: {strange[0]} was never sent")
    return objections
