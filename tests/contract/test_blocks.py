"""Blocks, and the bound on a message's age, of the cluster and of the embedded backend."""

from __future__ import annotations

from twisted.internet import reactor

from imd.contracts.blocks import BlockStore
from imd.contracts.inbox import NotAllowed
from imd.contracts.rooms import RoomOptions
from imd.store.blocks import ClusterBlocks
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.inbox import RedisInbox
from tests.contract.block_contract import BlockContract
from tests.contract.late_contract import LateContract
from tests.contract.test_rooms import ClusterRoomsHarness, EmbeddedRoomsHarness


class ClusterBlocksHarness(ClusterRoomsHarness):
    """`make_node_blocks` gives the blocks of one more node on the same servers."""

    async def make_blocks(self) -> BlockStore:
        return await self.make_node_blocks()

    async def make_node_blocks(self) -> ClusterBlocks:
        assert isinstance(self.inbox, RedisInbox)
        blocks = ClusterBlocks(reactor, self.archive, BlockCopies(self.inbox.calls))
        self.addCleanup(blocks.stop)
        await blocks.start()
        return blocks


class ClusterBlockTests(ClusterBlocksHarness, BlockContract):
    blocks_module = "imd.store.mongo.blocks"


class ClusterLateTests(ClusterRoomsHarness, LateContract):
    pass


class EmbeddedBlocksHarness(EmbeddedRoomsHarness):
    async def make_blocks(self) -> BlockStore:
        return self.store.blocks


class EmbeddedBlockTests(EmbeddedBlocksHarness, BlockContract):
    blocks_module = "imd.store.embedded.blocks"

    async def test_next_life(self) -> None:
        """A block outlives the process."""
        await self.begin_blocks()
        await self.block("alice", "eve")
        await self.make_rooms(RoomOptions())
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)


class EmbeddedLateTests(EmbeddedRoomsHarness, LateContract):
    pass
