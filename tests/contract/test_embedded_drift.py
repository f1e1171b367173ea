"""The machine's clock is set while the embedded backend runs: nothing expires early."""

from __future__ import annotations

from imd.contracts.inbox import Duplicate
from imd.protocol.ids import MessageIds
from tests.contract.embedded_harness import EmbeddedHarness, SteppedClock
from tests.contract.support import numbers_of

YEARS = 50 * 365 * 86_400.0
HOUR = 3600.0


class DriftTests(EmbeddedHarness):
    async def next_life(self) -> None:
        """Another process, at the wall clock's time."""
        self.clock = SteppedClock(self.clock.seconds, self.clock.set_by)
        self.ids = MessageIds(self.clock)
        await self.begin_again(keep_days=1, dedup_seconds=600)

    async def noted(self) -> None:
        """The sweep has been by since the clock was set."""
        await self.store._do(None, lambda: self.store._sweep.sweep())

    async def live_through(self, seconds: float) -> None:
        """Messages, cursors and tokens of a process whose clock is set, and what the next makes of them."""
        message = self.message("alice", "bob", client_msg_id="c-1")
        await self.send(message)
        await self.send_many("alice", "bob", 2)
        await self.visit("bob", "phone", 1)
        await self.inbox.remember_visitor("visitor-1", "hash")
        self.clock.set_by += seconds
        await self.noted()
        for _ in range(2):
            (again,) = await self.send(message)
            self.assertIsInstance(again, Duplicate)
            self.assertEqual(again[:2], (message.id, message.send_time), "what its sender was told first")
            registered = await self.connect("bob", "phone")
            self.assertEqual((registered.seq, registered.recovered), (1, True))
            await self.leave("bob", "phone", 1)
            self.assertTrue(await self.inbox.knows_visitor("visitor-1", "hash"))
            self.assertEqual(numbers_of(await self.read("bob")), [2, 3])
            await self.next_life()
            await self.noted()

    async def test_set_after_the_start(self) -> None:
        """A computer without a battery begins in the past, and learns the time later."""
        self.clock = SteppedClock(set_by=-YEARS)
        self.ids = MessageIds(self.clock)
        await self.begin(keep_days=1, dedup_seconds=600)
        await self.live_through(YEARS)

    async def test_an_hour(self) -> None:
        """Forth and back, more than clientMsgIds are kept for."""
        for hours in (1, -1):
            await self.begin(keep_days=1, dedup_seconds=600)
            await self.live_through(hours * HOUR)
            await self.store.stop()
            self.folder = self.mktemp()
            self.held.clear()

    async def test_times_end_all_the_same(self) -> None:
        """Corrected rows grow old like all others."""
        await self.begin(keep_days=1, dedup_seconds=600)
        message = self.message("alice", "bob", client_msg_id="c-1")
        await self.send(message)
        self.clock.set_by -= HOUR
        await self.noted()
        await self.next_life()
        self.assertIsInstance((await self.send(message))[0], Duplicate)
        await self.advance(601)
        self.assertNotIsInstance((await self.send(message))[0], Duplicate)
