"""A single node on a machine whose clock is set: ids rise, may be marked, and sendTime is right."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.state import mark
from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer

# twistd, with a wall clock that is off by the seconds in a file.
_LAUNCH = """
import sys, time
from pathlib import Path
file, real = Path(sys.argv.pop(1)), time.time
time.time = lambda: real() + float(file.read_text())
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""
HOUR = 3600.0


class ClockNode(NodeServer):
    """A node with a wall clock of its own."""

    def set_clock(self, seconds: float) -> None:
        """Off by so much from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / "new-clock"
        new.write_text(f"{seconds}")
        new.replace(self.folder / "clock")

    def _command(self) -> list[str | Path]:
        _, *arguments = super()._command()
        return [sys.executable, "-c", _LAUNCH, self.folder / "clock", *arguments]


class ClockTests(Rules, unittest.TestCase):
    async def begin(self, off: float) -> ClockNode:
        node = ClockNode(new_folder(), {})
        node.set_clock(off)
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    async def say(self, node: ClockNode, count: int, off: float) -> None:
        """Messages whose sendTime is that of a clock that is off by so much, and marks on the last one."""
        alice = await self.login("alice", url=node.url)
        for _ in range(count):
            self.sent += 1
            answer = await alice.say("bob", f"{self.sent}")
            self.assertLess(abs(answer["sendTime"] / 1000 - time.time() - off), 30)
        await mark(alice, "bob", answer["id"])
        await self.end(alice)

    async def in_order(self, node: ClockNode) -> None:
        """History and inbox have all messages in the order that they were sent in."""
        bob = await self.login("bob", url=node.url)
        wanted = [str(number) for number in range(1, self.sent + 1)]
        messages = (await self.history(bob, all=True))["messages"]
        self.assertEqual([message["msg"] for message in messages], wanted)
        ids = [message["id"] for message in messages]
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual([message["msg"] for message in await bob.messages(self.sent)], wanted)
        await self.end(bob)

    sent = 0

    async def test_restarted_with_the_clock_set_back(self) -> None:
        """New ids are above those that are stored, and sendTime is that of the clock."""
        node = await self.begin(0)
        await self.say(node, 5, 0)
        await deferToThread(node.kill)
        node.set_clock(-HOUR)
        await deferToThread(node.start)
        await self.say(node, 5, -HOUR)
        await self.in_order(node)

    async def test_set_while_it_runs(self) -> None:
        """Started in the past, then set right, then back by an hour: sendTime follows, ids rise."""
        node = await self.begin(-30 * 365 * 24 * HOUR)
        await self.say(node, 3, -30 * 365 * 24 * HOUR)
        for off in (0, -HOUR, HOUR):
            node.set_clock(off)
            await self.say(node, 3, off)
        await self.in_order(node)
