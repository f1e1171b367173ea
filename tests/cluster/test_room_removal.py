"""Removal from a room is exact: nothing that begins after its answer gets in, or out.

Removals race messages of the removed user and to it, from three nodes, in situations that could bring a stale
membership back. In each situation each outcome is seen a hundred times: a message that got in before the
removal, and one that was refused after it. With a fence taken out, the race finds what should not be there.
"""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from imd.contracts.inbox import Late, NoRoom, NotMember, Placed, RoomAim, Submission
from imd.contracts.rooms import Changed, RoomOptions
from imd.protocol.errors import Unavailable
from imd.protocol.events import MESSAGE, RoomMessage, split_at_version
from imd.store.redis.rooms import RoomCopies
from imd.store.rooms import ClusterRooms
from tests.cluster.races import Races, Stores
from tests.support import room_loader
from tests.support.hung_loader import again
from tests.support.rooms import action

ROOMS = 25
"""that are raced at a time"""
JITTER_SECONDS = 0.03


class Node(Stores):
    """The stores of one node."""

    def __init__(self, redis_url: str, mongo_url: str) -> None:
        super().__init__(redis_url, mongo_url)
        copies = RoomCopies(self.inbox.calls)
        self.raced = self.rooms = ClusterRooms(reactor, self.archive, copies, RoomOptions())

    async def change(self, *wanted: Any, **fields: Any) -> Any:
        """Make a change, again until the stores say what became of it."""
        asked = action(*wanted, **fields)
        return await again(lambda: self.rooms.change(asked, self.ids.next))

    async def write(self, room: str, sender: str, msg: str) -> Any:
        """Send a message as a client does: once more after `unavailable`, and a node gives it another id."""
        while True:
            try:
                if not self.rooms.is_warm(room):
                    await self.rooms.warm(room)
                (outcome,) = await self.inbox.accept([self.submission(room, sender, msg)])
            except Unavailable:
                await deferLater(reactor, 0.02)
                continue
            if isinstance(outcome, NoRoom):
                self.rooms.heard(room, 0)
                await deferLater(reactor, 0.005)
            elif not isinstance(outcome, Late):
                return outcome

    def submission(self, room: str, sender: str, msg: str) -> Submission:
        message_id, now = self.ids.next()
        message = RoomMessage(id=message_id, user_id=sender, room=room, msg=msg, send_time=now)
        head, tail = split_at_version(message)
        aim = RoomAim(room, head, tail)
        return Submission(
            sender, "phone", None, "-", message_id, now, (), head + tail, kind=MESSAGE, room=aim
        )

    async def inbox_of(self, user: str) -> list[Any]:
        """Texts of messages, and actions of events, in the user's inbox."""

        async def read() -> Any:
            page = await self.inbox.pull(user, "", 0, 0)
            return await self.inbox.pull(user, page.epoch, 0, 1000)

        events = [json.loads(body) for _, body in (await again(read)).messages]
        return [event.get("msg") or event["action"] for event in events]


class RoomRemovalTests(Races):
    """Each test is a situation."""

    timeout = 600
    enough = 100
    rounds = 200
    loader_module = room_loader
    stores = Node

    # what happens to Redis

    async def remember(self) -> None:
        """Keep Redis as it is, to go back to."""
        await self.nodes[0].inbox.command("SAVE")

    async def go_back(self) -> None:
        """Redis starts again with what `remember` kept."""
        await deferToThread(self.server.kill)
        await deferToThread(self.server.start)

    # the race

    async def race(self, number: int, *, cold: bool = False, hung: bool = False, loss: str = "") -> None:
        """Race ROOMS removals. `cold`: no copy is there. `hung`: a loader read before. `loss`: of Redis."""
        one = self.nodes[0]
        made = await DeferredList(
            [
                ensureDeferred(
                    one.change(
                        "olga", "create", f"r-{number:016x}{n:016x}", [f"mary{number}-{n}", "mike"], name="x"
                    )
                )
                for n in range(ROOMS)
            ]
        )
        rooms = [outcome.room for ok, outcome in made if ok]
        self.assertEqual(len(rooms), ROOMS)
        if loss == "go back":
            await self.remember()
        if cold:
            await DeferredList([self.nodes[0].inbox.command("DEL", f"imd:room:{room}") for room in rooms])
        if hung:
            await self.loader.read(rooms)
        work = [ensureDeferred(self.race_one(room, f"mary{number}-{n}")) for n, room in enumerate(rooms)]
        if loss:
            await deferLater(reactor, random.uniform(0, 2 * JITTER_SECONDS))
            await (self.forget() if loss == "forget" else self.go_back())
        if hung:
            await deferLater(reactor, random.uniform(0, 2 * JITTER_SECONDS))
            await self.loader.put()
        await self.done(work)
        # All that could bring a membership back has been done by now.
        await self.done(
            [ensureDeferred(self.after(room, f"mary{number}-{n}", "later")) for n, room in enumerate(rooms)]
        )

    async def race_one(self, room: str, mary: str) -> None:
        one, two, three = self.nodes
        talk = [ensureDeferred(self.talk(node, room, mary)) for node in (two, three)]
        await deferLater(reactor, random.uniform(0, JITTER_SECONDS))
        removed = await one.change("olga", "remove", room, [mary])
        self.assertIsInstance(removed, Changed)
        # Accepted.
        await self.after(room, mary, "soon")
        await DeferredList(talk, consumeErrors=True)

    async def talk(self, node: Node, room: str, mary: str) -> None:
        """Mary writes, and others write to her, while she is removed."""
        for _ in range(4):
            outcome = await node.write(room, mary, "during")
            if isinstance(outcome, Placed):
                self.outcomes["in before"] += 1
            await node.write(room, "mike", "during")
            await deferLater(reactor, random.uniform(0, JITTER_SECONDS / 2))

    async def after(self, room: str, mary: str, word: str) -> None:
        """Everything that begins now begins after `accepted` of the removal."""
        for node in self.nodes:
            outcome = await node.write(room, mary, f"{word}: from the removed")
            if isinstance(outcome, NotMember):
                self.outcomes["refused after"] += 1
            else:
                self.wrong.append(f"{word}: a message of the removed: {outcome}")
            try:
                if await node.rooms.membership(room, mary) is not None:
                    self.wrong.append(f"{word}: the removed is a member")
                if await node.rooms.members_of(room, mary, "", 10) is not None:
                    self.wrong.append(f"{word}: the removed reads the members")
            except Unavailable:
                pass
            await node.write(room, "mike", f"{word}: to the room")
        if any(str(text).startswith(word) for text in await self.nodes[0].inbox_of(mary)):
            self.wrong.append(f"{word}: a message to the removed")

    async def test_warm(self) -> None:
        """All nodes and Redis know the room."""
        await self.situation()

    async def test_cold(self) -> None:
        """Redis does not know the room."""
        await self.situation(cold=True)

    async def test_hung_loader(self) -> None:
        """A loader has read the room before the removal, and puts it after."""
        await self.situation(cold=True, hung=True)

    async def test_lost_memory(self) -> None:
        """Redis loses its memory, and a loader that read before puts what it read."""
        await self.situation(hung=True, loss="forget")

    async def test_went_back(self) -> None:
        """Redis goes back to a time before the removal, and a loader that read before puts what it read."""
        await self.situation(hung=True, loss="go back")

    async def test_without_versions(self) -> None:
        """A hung loader's older document replaces the copy."""
        await self.broken(["version"], cold=True, hung=True)

    async def test_without_the_readers_run(self) -> None:
        """A document that was read before Redis lost its memory is put after."""
        await self.broken(["run"], hung=True, loss="forget")

    async def test_without_the_copys_run(self) -> None:
        """A copy of the Redis that went back counts."""
        await self.broken(["copy"], loss="go back")
