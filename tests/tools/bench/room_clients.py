"""Clients that make rooms, write to them and are in them. They check all they get, as those of `clients`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from tests.tools.bench.clients import ACK_EVERY, CONNECT_SECONDS, Client, Sender, Watch, Wrong, masked_frame

# Users in one frame that changes a room.
USERS_A_FRAME = 500
AT_ONCE = 25
TRIES = 20


class RoomMaker(Client):
    """Makes rooms and changes them, one after the other."""

    async def make(self, room_name: str, users: list[str]) -> tuple[str, int]:
        """A room of this client's user and these; gives its id, and how many changes that took."""
        parts = [users[at : at + USERS_A_FRAME] for at in range(0, len(users), USERS_A_FRAME)] or [[]]
        frame = {"action": "create", "name": room_name, "users": _named(parts[0])}
        room = (await self._ask(f"{room_name}-1", frame))["room"]
        for number, part in enumerate(parts[1:], 2):
            await self._ask(f"{room_name}-{number}", {"action": "add", "room": room, "users": _named(part)})
        return room, len(parts)

    async def _ask(self, name: str, frame: dict[str, Any]) -> dict[str, Any]:
        for _ in range(TRIES):
            self._answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self.send({"type": "room", "clientMsgId": name, **frame})
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    answer = await self._answer
            except TimeoutError:
                raise Wrong(f"no answer to {name}") from None
            if answer["type"] == "accepted":
                return answer
            if not answer.get("temporary"):
                break
            await asyncio.sleep(0.3)
        raise Wrong(f"{name}: {answer}")

    def arrived(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":'):
            self._answer.set_result(json.loads(payload))


class RoomSender(Sender):
    """Sends numbered messages to a room. It does not look at messages of others."""

    def __init__(self, watch: Watch, user: str, room: str, mark: bytes, window: int = 0) -> None:
        super().__init__(watch, user, {"room": room}, mark, window)

    def arrived(self, payload: bytes) -> None:
        if not payload.startswith(b'{"seq":'):
            super().arrived(payload)


class RoomMember(Client):
    """Gets the messages of some rooms: numbers without holes, and each room's messages in order."""

    read_bytes = 65_536

    def __init__(self, watch: Watch, user: str) -> None:
        super().__init__(watch, user)
        self.counts: Counter[bytes] = Counter()
        """messages that came, by the sender's name for them"""
        self._seq = -1
        self._acked = 0

    def arrived(self, payload: bytes) -> None:
        if self._seq < 0:
            self._seq = self._acked = self.connected["seq"]
        number = self._seq + 1
        if not payload.startswith(b'{"seq":%d,"kind":' % number):
            self.watch.fail(f"{self.user} expected {number}: {payload[:300]!r}")
            return
        self._seq = number
        if payload.startswith(b'"room"', payload.index(b":", 7) + 1):
            return
        at = payload.index(b'"clientMsgId":"') + 15
        name, _, place = payload[at : payload.index(b'"', at)].rpartition(b"-")
        if int(place) != self.counts[name]:
            self.watch.fail(f"{self.user} expected {self.counts[name]} of {name!r}: {payload[:300]!r}")
        self.counts[name] += 1

    def turn_ended(self) -> None:
        if self._seq - self._acked >= ACK_EVERY:
            self._acked = self._seq
            self.write(masked_frame(b'{"type":"ack","seq":%d}' % self._seq))


class Party:
    """Rooms with the same members, some of them connected, and one sender for each room.

    With one room it stands in for a `Group`: `delivered` counts messages that came to those connected.
    """

    def __init__(
        self, watch: Watch, name: str, members: int, connected: int, rooms: int = 1, window: int = 0
    ) -> None:
        """`members`: of each room, its sender included."""
        self.watch, self.name, self.members = watch, name, members
        self.users = [f"{name}-m{number:04d}" for number in range(members - 1)]
        self.recipients = [RoomMember(watch, user) for user in self.users[:connected]]
        self.senders: list[RoomSender] = []
        self.rooms: list[str] = []
        self.changes = 0
        """of all rooms, which the archive has beside the messages"""
        self._count, self._window = rooms, window

    @property
    def sender(self) -> RoomSender:
        return self.senders[0]

    async def open(self, url: str) -> None:
        """Connect, make the rooms. Members who are away have been there before: their inboxes are whole."""
        await _open_all(self.recipients, url)
        away = [Client(self.watch, user) for user in self.users[len(self.recipients) :]]
        for first in range(0, len(away), AT_ONCE):
            part = away[first : first + AT_ONCE]
            await _open_all(part, url)
            for client in part:
                client.close()
        for number in range(self._count):
            owner, mark = f"{self.name}-o{number}", f"{self.name}r{number}".encode() + b"-%012d"
            maker = RoomMaker(self.watch, owner)
            await maker.open(url)
            room, changes = await maker.make(f"{self.name}r{number}", self.users)
            maker.close()
            self.changes += changes
            self.rooms.append(room)
            self.senders.append(RoomSender(self.watch, owner, room, mark, self._window))
        await _open_all(self.senders, url)

    @property
    def sent(self) -> int:
        return sum(sender.sent for sender in self.senders)

    @property
    def delivered(self) -> int:
        return sum(sum(one.counts.values()) for one in self.recipients)

    @property
    def complete(self) -> bool:
        accepted = sum(sender.count for sender in self.senders)
        return accepted == self.sent and self.delivered == self.sent * len(self.recipients)

    def close(self) -> None:
        for one in [*self.recipients, *self.senders]:
            one.close()


def _named(users: list[str]) -> list[dict[str, str]]:
    return [{"userId": user} for user in users]


async def _open_all(clients: list[Any], url: str) -> None:
    for first in range(0, len(clients), AT_ONCE):
        await asyncio.gather(*[client.open(url) for client in clients[first : first + AT_ONCE]])
