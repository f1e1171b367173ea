"""Deliveries a second to the members of a room, of whom one in five is connected."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

from tests.tools.bench.clients import Client, Group, Member, Sender, Watch
from tests.tools.bench.lists import GROUP_WINDOW
from tests.tools.bench.load import Ran, run_group
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least
from tests.tools.bench.rig import Rig
from tests.tools.bench.turns import costs, others, wait_archived

CONNECTED = 5
"""one in so many members"""
NAMED_AT_ONCE = 400
_rooms = itertools.count(1)


class Maker(Client):
    """Makes a room; gives its answers one at a time."""

    def __init__(self, watch: Watch, user: str) -> None:
        super().__init__(watch, user, False, device="maker")
        self._answer: asyncio.Future[dict[str, Any]] | None = None

    def arrived(self, payload: bytes) -> None:
        if self._answer is not None:
            self._answer.set_result(json.loads(payload))

    async def ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        self._answer = asyncio.get_running_loop().create_future()
        self.send({"type": "room", **frame})
        answer = await self._answer
        if answer["type"] != "accepted":
            self.watch.fail(f"no room: {answer}")
        return answer


class RoomMember(Member):
    """A member of a room. Its numbers begin behind the events that let it in."""

    def arrived(self, payload: bytes) -> None:
        if b'"kind":"room"' in payload[:60]:
            self.connected["seq"] += 1
        else:
            super().arrived(payload)


class Room(Group):
    """A sender that writes to a room. Its deliveries are counted for those who are connected."""

    def __init__(self, watch: Watch, name: str, members: int, window: int) -> None:
        self._watch, self._name, self._window = watch, name, window
        self._mark = name.encode() + b"-%012d"
        self.events = 0
        """of the room itself, which are archived beside the messages"""
        self._names = [f"{name}-m{number:04d}" for number in range(members)]
        self.recipients = [RoomMember(watch, one, self._mark) for one in self._names[::CONNECTED]]

    async def open(self, url: str) -> None:
        user = f"{self._name}-amy"
        maker = Maker(self._watch, user)
        await maker.open(url)
        self.events = 1 + -(-len(self._names) // NAMED_AT_ONCE)
        room = (await maker.ask({"clientMsgId": "make", "action": "create", "name": "bench"}))["room"]
        for first in range(0, len(self._names), NAMED_AT_ONCE):
            users = [{"userId": one} for one in self._names[first : first + NAMED_AT_ONCE]]
            await maker.ask({"clientMsgId": f"a-{first}", "action": "add", "room": room, "users": users})
        maker.close()
        self.sender = Sender(self._watch, user, {"room": room}, self._mark, self._window)
        await super().open(url)


async def rooms(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Deliveries to a room of twice as many as the list, against those to the list, on the same node."""
    # The sender is a member, too.
    members = 2 * plan.members - 1
    row = Row(
        "room", f"room of {members + 1}, one in {CONNECTED} connected", "deliveries/s", goal=ratio_at_least(1)
    )
    for turn in range(plan.turns):
        nodes = rig.cluster()
        url = nodes[0].url
        listed = await _run(rig, plan, url, Group, plan.members, 0, 1)
        ran = await _run(rig, plan, url, Room, members, listed.messages, CONNECTED)
        rig.stop(*nodes)
        row.values.append(ran.per_second)
        row.reference.append(listed.per_second)
        row.foreign.append(others(ran, listed))
        say(f"turn {turn + 1}: list {costs(listed)}; room {costs(ran)}")
    return [row]


async def _run(
    rig: Rig, plan: Plan, url: str, kind: type[Group], members: int, archived: int, inboxes: float
) -> Ran:
    """`inboxes`: for each connected member."""
    watch = Watch()
    party = kind(watch, f"r{next(_rooms)}", members, GROUP_WINDOW)
    ran = await run_group(watch, party, url, plan.warm_seconds, plan.seconds, rig.cpu)
    ran.per_second *= inboxes
    events = party.events if isinstance(party, Room) else 0
    wait_archived(rig, archived + ran.messages + events, ran.sent_until or time.monotonic())
    return ran
