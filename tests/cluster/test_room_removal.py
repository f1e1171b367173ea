"""Removal from a room is exact: nothing that begins after its answer gets in, or out.

Removals race messages of the removed user and to it, from three nodes, in situations that could bring a stale
membership back. In each situation each outcome is seen a hundred times: a message that got in before the
removal, and one that was refused after it. With a fence taken out, the race finds what should not be there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions, NoRoom, NotMember, Placed, RoomAim, Submission
from imd.contracts.rooms import Changed, RoomOptions
from imd.protocol.errors import Unavailable
from imd.protocol.events import MESSAGE, RoomMessage, split_at_version
from imd.protocol.ids import MessageIds, ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.redis import connection
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.rooms import RoomCopies
from imd.store.rooms import ClusterRooms
from tests.support import room_loader
from tests.support.paths import ROOT
from tests.support.rooms import action
from tests.support.servers import RedisServer, shared

ROOMS = 25
"""that are raced at a time"""
ENOUGH = 100
ROUNDS = 200
JITTER_SECONDS = 0.03


class Node:
    """The stores of one node."""

    def __init__(self, redis_url: str, mongo_url: str) -> None:
        self.clock = ServerClock()
        self.ids = MessageIds(self.clock)
        self.inbox = RedisInbox(reactor, redis_url, InboxOptions(), self.clock)
        self.archive = MongoArchive(reactor, mongo_url)
        self.rooms = ClusterRooms(reactor, self.archive, RoomCopies(self.inbox.calls), RoomOptions())

    async def start(self) -> None:
        await self.inbox.start()
        await self.archive.start()
        await self.rooms.start()

    async def stop(self) -> None:
        for part in (self.rooms, self.archive, self.inbox):
            await part.stop()

    async def change(self, *wanted: Any, **fields: Any) -> Any:
        """Make a change, again until the stores say what became of it."""
        asked = action(*wanted, **fields)
        while True:
            try:
                return await self.rooms.change(asked, self.ids.next)
            except Unavailable:
                await deferLater(reactor, 0.02)

    async def write(self, room: str, sender: str, msg: str) -> Any:
        """Send a message as a client does: once more after `unavailable`."""
        message_id, now = self.ids.next()
        message = RoomMessage(id=message_id, user_id=sender, room=room, msg=msg, send_time=now)
        head, tail = split_at_version(message)
        aim = RoomAim(room, head, tail)
        submission = Submission(
            sender, "phone", None, "-", message_id, now, (), head + tail, kind=MESSAGE, room=aim
        )
        while True:
            try:
                if not self.rooms.is_warm(room):
                    await self.rooms.warm(room)
                (outcome,) = await self.inbox.accept([submission])
            except Unavailable:
                await deferLater(reactor, 0.02)
                continue
            if isinstance(outcome, NoRoom):
                self.rooms.heard(room, 0)
                await deferLater(reactor, 0.005)
                continue
            return outcome

    async def inbox_of(self, user: str) -> list[Any]:
        """Texts of messages, and actions of events, in the user's inbox."""
        while True:
            try:
                page = await self.inbox.pull(user, "", 0, 0)
                page = await self.inbox.pull(user, page.epoch, 0, 1000)
            except Unavailable:
                await deferLater(reactor, 0.02)
                continue
            events = [json.loads(body) for _, body in page.messages]
            return [event.get("msg") or event["action"] for event in events]


class Loader:
    """The process that hangs between reading and putting."""

    def __init__(
        self,
        redis_url: str,
        mongo_url: str,
        unfenced: Sequence[str],
        module: str = "tests.support.room_loader",
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, redis_url, mongo_url, *unfenced],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    async def hear(self, word: str) -> str:
        assert self._process.stdout is not None
        line: str = await deferToThread(self._process.stdout.readline)
        if not line.startswith(word):
            raise AssertionError(f"{word} was expected of the loader, not {line!r}")
        return line

    async def read(self, rooms: Sequence[str]) -> None:
        """Have it read these rooms; it then stands still."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(rooms)) + "\n")
        self._process.stdin.flush()
        await self.hear("read")
        while not self._stands_still():
            await deferLater(reactor, 0.002)

    def _stands_still(self) -> bool:
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    async def put(self) -> None:
        """Let it go on, until it has put the rooms."""
        os.kill(self._process.pid, signal.SIGCONT)
        await self.hear("put")

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()


class RoomRemovalTests(unittest.TestCase):
    """Each test is a situation."""

    timeout = 600

    async def begin(self, unfenced: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-removal-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.server = RedisServer(self.folder, appendonly=False)
        self.addCleanup(deferToThread, self.server.kill)
        await deferToThread(self.server.start)
        scripts = connection.load_scripts
        self.addCleanup(setattr, connection, "load_scripts", scripts)
        if unfenced:
            room_loader.unfence(list(unfenced))
        mongo_url = shared().mongo_url()
        self.nodes = [Node(self.server.url, mongo_url) for _ in range(3)]
        for node in self.nodes:
            await node.start()
            self.addCleanup(node.stop)
        self.loader = Loader(self.server.url, mongo_url, unfenced)
        self.addCleanup(self.loader.end)
        await self.loader.hear("ready")
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def redis(self, *words: str) -> Any:
        return await self.nodes[0].inbox.command(*words)

    # what happens to Redis

    async def forget(self) -> None:
        """Redis loses its memory."""
        await self.redis("FLUSHALL")

    async def remember(self) -> None:
        """Keep Redis as it is, to go back to."""
        await self.redis("SAVE")

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
        for ok, result in await DeferredList(work, consumeErrors=True):
            if not ok:
                result.raiseException()
        # All that could bring a membership back has been done by now.
        await DeferredList(
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

    async def situation(self, **how: Any) -> None:
        """Race until each outcome was seen often enough. Nothing is wrong."""
        await self.begin()
        for number in range(ROUNDS):
            await self.race(number, **how)
            self.assertEqual(self.wrong, [])
            if min(self.outcomes["in before"], self.outcomes["refused after"]) >= ENOUGH:
                return
        self.fail(f"not often enough: {self.outcomes}")

    async def broken(self, unfenced: Sequence[str], **how: Any) -> None:
        """The same race without a fence finds what is wrong."""
        await self.begin(unfenced)
        for number in range(ROUNDS):
            await self.race(number, **how)
            if self.wrong:
                return
        self.fail(f"nothing is wrong without the fence {unfenced}: {self.outcomes}")

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
