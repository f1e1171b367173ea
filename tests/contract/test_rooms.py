"""Rooms of the cluster, and of the embedded backend, keep the contract."""

from __future__ import annotations

from twisted.internet import reactor

from imd.contracts.inbox import Inbox, InboxOptions
from imd.contracts.rooms import RoomOptions, RoomStore
from imd.store import blocks as cluster_blocks
from imd.store import rooms as cluster_rooms
from imd.store.embedded.backend import EmbeddedStore
from imd.store.mongo import archive as mongo_archive
from imd.store.mongo.archive import MongoArchive
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.rooms import RoomCopies
from imd.store.rooms import ClusterRooms
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.redis_harness import ANSWER_SECONDS, RedisHarness
from tests.contract.room_contract import RoomContract
from tests.support.servers import shared


class ClusterRoomsHarness(RedisHarness):
    """`archive` and `inbox` are the node's, and may be shared by several RoomStores."""

    async def make_rooms(self, options: RoomOptions) -> RoomStore:
        self.mongo_url = shared().mongo_url()
        # No test on these servers waits for the deadlines of rooms and blocks.
        for store in (cluster_rooms, cluster_blocks):
            self.patch(store, "ANSWER_SECONDS", ANSWER_SECONDS)
        self.patch(mongo_archive, "SELECTION_SECONDS", ANSWER_SECONDS)
        self.archive = MongoArchive(reactor, self.mongo_url, timeout_seconds=ANSWER_SECONDS)
        self.addCleanup(self.archive.stop)
        await self.archive.start()
        return await self.make_node(options)

    async def make_node(
        self, options: RoomOptions, inbox: RedisInbox | None = None
    ) -> ClusterRooms:
        """The rooms of one more node on the same servers."""
        inbox = inbox or self.inbox
        assert isinstance(inbox, RedisInbox)
        rooms = ClusterRooms(reactor, self.archive, RoomCopies(inbox.calls), options)
        self.addCleanup(rooms.stop)
        await rooms.start()
        return rooms


class ClusterRoomContractTests(ClusterRoomsHarness, RoomContract):
    rooms_module = "imd.store.mongo.rooms"


class EmbeddedRoomsHarness(EmbeddedHarness):
    """`store` has both, inboxes and rooms."""

    async def make_inbox(self, options: InboxOptions) -> Inbox:
        self.inbox_options = options
        return await super().make_inbox(options)

    async def make_rooms(self, options: RoomOptions) -> RoomStore:
        await self.store.stop()
        self.store = EmbeddedStore(self.folder, self.inbox_options, self.clock, None, options)
        self.addCleanup(self.store.stop)
        await self.store.start()
        self.inbox = self.store
        return self.store.rooms


class EmbeddedRoomContractTests(EmbeddedRoomsHarness, RoomContract):
    rooms_module = "imd.store.embedded.rooms"

    async def test_own_copy_after_a_restart(self) -> None:
        """One's own other device gets a change of a room although nothing of its user was read before."""
        await self.begin_rooms()
        room = await self.make("mary")
        await self.connect("olga", "tablet", sync=True)
        self.rooms = await self.make_rooms(RoomOptions())
        await self.change(room, "olga", "set", name="Sunday")
        self.assertEqual(await self.told("olga"), [("set", 2)])
