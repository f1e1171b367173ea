"""Redis and SQLite keep the contract of channels that may be told."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import NoRoom
from imd.store.redis.aims import RedisAims
from imd.store.redis.inbox import RedisInbox
from tests.contract.aim_contract import AimContract, to_room
from tests.contract.room_contract import room_id
from tests.contract.test_blocks import ClusterBlocksHarness, EmbeddedBlocksHarness


class RedisAimTests(ClusterBlocksHarness, AimContract):
    """Rooms have copies in Redis."""

    async def make_aims(self) -> Any:
        assert isinstance(self.inbox, RedisInbox)
        return RedisAims(self.inbox.calls)

    async def advance(self, seconds: float) -> None:
        await super().advance(seconds)
        for key in await self.redis.command("KEYS", "*:watch"):
            for address in await self.redis.command("HKEYS", key):
                await self.redis.command("HINCRBY", key, address, -int(seconds))

    async def test_cold_room(self) -> None:
        """A room without a copy has to be loaded first."""
        await self.begin_aims()
        self.assertEqual(await self.aim(to_room(room_id()), "olga"), NoRoom())

    async def test_several_nodes_watch(self) -> None:
        """Each of them is told, and an interest that has ended goes with the next look."""
        await self.begin_aims()
        await self.look("bob", address="n.1")
        await self.advance(60)
        await self.look("bob", address="n.2")
        await self.log_in("bob")
        self.assertEqual(self.changed, [("bob", ["n.1", "n.2"])])
        await self.advance(61)
        await self.leave("bob")
        self.assertEqual(self.changed[1:], [("bob", ["n.2"])])
        await self.look("bob", address="n.3")
        self.assertEqual(await self.redis.command("HKEYS", "imd:{bob}:watch"), [b"n.2", b"n.3"])


class EmbeddedAimTests(EmbeddedBlocksHarness, AimContract):
    """The registry is in memory."""

    here = ""

    async def make_aims(self) -> Any:
        return self.store.aims
