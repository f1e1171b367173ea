"""Rooms and the level on a replica set: reads are exact, and in time when the set cannot vouch for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from imd.contracts.rooms import RoomOptions, RoomStore
from imd.protocol.errors import Unavailable
from imd.store import rooms as cluster_rooms
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.level import MongoLevel
from tests.contract.room_contract import RoomHarness
from tests.contract.test_rooms import ClusterRoomsHarness
from tests.support.rooms import action
from tests.support.servers.mongo import MongoReplicaSet

BUSY_SECONDS = 10.0
"""the deadline of 2 seconds for rooms, on a busy machine"""
LEVEL_SECONDS = 60.0
"""the archive's deadline of 10 seconds, by which the level is read"""


class ReplicaSetTests(ClusterRoomsHarness, RoomHarness):
    """Two members: without the second one the first has no majority."""

    timeout = 600

    async def make_rooms(self, options: RoomOptions) -> RoomStore:
        self.members = MongoReplicaSet(self.mktemp(), 2)
        self.addCleanup(self.members.kill)
        await deferToThread(self.members.start)
        # Until a member is away: all collections are made in the first calls.
        self.patient = self.patch(cluster_rooms, "ANSWER_SECONDS", 60.0)
        self.archive = MongoArchive(reactor, self.members.url)
        self.addCleanup(self.archive.stop)
        await self.archive.start()
        return await self.make_node(options)

    async def is_away(self, ask: Callable[[], Deferred[Any]], seconds: float = BUSY_SECONDS) -> bool:
        """Whether the answer is `unavailable`, in time."""
        began = time.monotonic()
        try:
            await ask()
        except Unavailable:
            return True
        finally:
            self.assertLess(time.monotonic() - began, seconds)
        return False

    async def test_without_a_majority(self) -> None:
        """Reads that could be stale fail, first those that ask the majority, then all; later all is well."""
        await self.begin_rooms()
        level = MongoLevel(self.archive)
        room = await self.make("mary")
        reads: list[Callable[[], Deferred[Any]]] = [
            lambda: self.rooms.members_of(room, "mary", "", 10),
            lambda: self.rooms.rooms_of("mary", "", 10),
            lambda: self.rooms.change(action("olga", "set", room, name="one"), self.stamp),
        ]
        page = await self.rooms.members_of(room, "mary", "", 10)
        assert page is not None
        self.assertEqual(len(page.members), 2)
        self.assertEqual(await level.begin(2), 2)
        self.assertEqual(await level.read(), 2)
        _, documents = self.rooms._made
        self.assertEqual(documents._exact._exact.read_concern.level, "linearizable")
        self.patient.restore()
        self.patch(self.rooms, "_seconds", cluster_rooms.ANSWER_SECONDS)
        second = self.members.members[1]
        second.pause()
        self.addCleanup(second.resume)
        for read in reads:
            self.assertTrue(await self.is_away(read))

        async def nobody_leads() -> bool:
            return await self.is_away(level.read, LEVEL_SECONDS)

        await self.until(nobody_leads)
        for read in reads:
            self.assertTrue(await self.is_away(read))
        second.resume()

        async def all_answer() -> bool:
            answers = [await self.is_away(read) for read in reads]
            return not any([*answers, await self.is_away(level.read, LEVEL_SECONDS)])

        await self.until(all_answer)
        self.assertEqual(documents._exact._exact.read_concern.level, "linearizable")
