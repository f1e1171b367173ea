"""The contract of an Inbox: visitors that never wrote are forgotten an hour after they were last here."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import NEWCOMER_SECONDS, NotAllowed
from tests.contract.support import InboxHarness, submission_of

DAY_SECONDS = 86_400
VISITOR = "visitor-1"


class NewcomerContract(InboxHarness):
    """A visitor is a newcomer until it has written or got a message."""

    assertEqual: Any
    assertFalse: Any
    assertGreater: Any
    assertIsInstance: Any
    assertTrue: Any

    async def traces_of(self, visitor: str) -> int:
        """How much the store holds of the visitor, its token included."""
        raise NotImplementedError

    async def settle_down(self) -> None:
        """The store deletes now, as it does every now and then."""

    async def come(self, **options: Any) -> None:
        """A new visitor comes."""
        await self.begin(**options)
        await self.inbox.remember_visitor(VISITOR, "hash")
        await self.connect(VISITOR)

    async def go(self) -> None:
        await self.leave(VISITOR)

    async def known(self) -> bool:
        return await self.inbox.knows_visitor(VISITOR, "hash")

    async def pass_by(self, seconds: float) -> int:
        """Time goes by; gives the traces that are left."""
        await self.advance(seconds)
        await self.settle_down()
        return await self.traces_of(VISITOR)

    async def assert_stays(self) -> None:
        """The visitor goes, and is there again after days as before."""
        before = await self.traces_of(VISITOR)
        await self.go()
        for days in (1, 1, 27):
            self.assertGreater(await self.pass_by(days * DAY_SECONDS), before - 2)
        self.assertTrue(await self.known())
        registered = await self.connect(VISITOR)
        self.assertTrue(registered.recovered)

    async def test_never_wrote(self) -> None:
        """It can come back within the hour, and then there is nothing of it."""
        await self.come()
        await self.go()
        self.assertGreater(await self.pass_by(2900), 0)
        self.assertTrue(await self.known())
        registered = await self.connect(VISITOR)
        self.assertTrue(registered.recovered)
        await self.go()
        self.assertEqual(await self.pass_by(NEWCOMER_SECONDS + 60), 0)
        self.assertFalse(await self.known())

    async def test_never_came_in(self) -> None:
        """A token whose visitor did not get as far as to a channel."""
        await self.begin()
        await self.inbox.remember_visitor(VISITOR, "hash")
        self.assertGreater(await self.pass_by(2900), 0)
        self.assertTrue(await self.known())
        self.assertEqual(await self.pass_by(NEWCOMER_SECONDS + 60), 0)
        self.assertFalse(await self.known())

    async def test_idle_for_hours(self) -> None:
        """As long as it is connected it stays, and its token is good when it comes back soon."""
        await self.come()
        await self.connect(VISITOR, "tablet")
        for _ in range(8):
            self.assertGreater(await self.pass_by(1500), 0)
            for device in ("phone", "tablet"):
                head = await self.renew(VISITOR, device)
                self.assertEqual((head.held, head.epoch), (True, self.held[VISITOR, device][1]))
        await self.go()
        await self.leave(VISITOR, "tablet")
        self.assertGreater(await self.pass_by(1500), 0)
        self.assertTrue(await self.known())
        self.assertEqual(await self.pass_by(NEWCOMER_SECONDS + 60), 0)

    async def test_writes_to_an_agent(self) -> None:
        """From its first message on it is kept as everybody is."""
        await self.come()
        await self.agent("anna")
        self.assertEqual((await self.ask(VISITOR))[1].agent, "anna")
        await self.assert_stays()

    async def test_writes_to_nobody(self) -> None:
        """So it is when the message waits for an agent."""
        await self.come()
        await self.pass_by(1500)
        await self.ask(VISITOR)
        await self.assert_stays()

    async def test_gets_a_message(self) -> None:
        """A message to it is kept, and so is the token to read it with."""
        await self.come()
        await self.send(self.message("anna", VISITOR))
        await self.assert_stays()
        self.assertEqual(len((await self.read(VISITOR)).messages), 1)

    async def test_refused_message(self) -> None:
        """A message that was not placed is none."""
        await self.come()
        message = self.message(VISITOR)
        (outcome,) = await self.inbox.accept([submission_of(message, visitor_to="anna")])
        self.assertIsInstance(outcome, NotAllowed)
        await self.go()
        self.assertEqual(await self.pass_by(NEWCOMER_SECONDS + 60), 0)

    async def test_token_of_one_that_wrote(self) -> None:
        """It is good for visitor_days after its last use, however long the inbox is kept."""
        await self.come(visitor_days=2, keep_days=1)
        await self.ask(VISITOR)
        await self.go()
        for _ in range(3):
            await self.pass_by(1.9 * DAY_SECONDS)
            self.assertTrue(await self.known())
        # The inbox is a new one by now. It is that of a visitor that wrote, all the same.
        await self.connect(VISITOR)
        await self.go()
        self.assertGreater(await self.pass_by(0.5 * DAY_SECONDS), 1)
        await self.pass_by(2.1 * DAY_SECONDS)
        self.assertFalse(await self.known())

    async def test_nobody_is_known_by_another_hash(self) -> None:
        await self.come()
        for wrong in ("", "hash-2"):
            self.assertFalse(await self.inbox.knows_visitor(VISITOR, wrong))
        await self.ask(VISITOR)
        for wrong in ("", "hash-2"):
            self.assertFalse(await self.inbox.knows_visitor(VISITOR, wrong))
        self.assertTrue(await self.known())
