"""Clocks that were set: a node's ids go on above those of the archive, and may be marked on any node."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import pymongo
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.changing import Changing
from tests.protocol.clusters import Cluster
from tests.protocol.rooms import InRooms
from tests.protocol.state import mark
from tests.protocol.support import new_folder
from tests.support.nodes import NodeServer
from tests.support.ws_client import WsClient

# twistd, for which Redis' clock is off by the seconds in a file.
_LAUNCH = """
import sys
from pathlib import Path
from imd.protocol.ids import ServerClock
file, correct = Path(sys.argv.pop(1)), ServerClock.correct
def by_clock_that_is_off(clock, server_ms, asked_at):
    correct(clock, server_ms + int(float(file.read_text()) * 1000), asked_at)
ServerClock.correct = by_clock_that_is_off
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""
HOUR = 3600


class ClockNode(NodeServer):
    """A node that takes Redis' clock for one that may be set."""

    clock: Path

    def _command(self) -> list[str | Path]:
        _, *arguments = super()._command()
        return [sys.executable, "-c", _LAUNCH, self.clock, *arguments]


class ClockTests(Changing, InRooms, unittest.TestCase):
    def nodes(self, kind: str) -> list[NodeServer]:
        return []

    async def test_above_the_newest_in_the_archive(self) -> None:
        """Redis' clock was ahead when the newest was stored. Ids rise all the same, and may be marked;
        sendTime is right.
        """
        own = Cluster("clocks")
        newest = f"{int(time.time() * 1000) + 3_600_000:012x}000007" + "0" * 10
        with pymongo.MongoClient(own.mongo_url) as client:
            client.get_default_database()["im_message"].insert_one({"_id": newest})
        # An archive that is older than its cluster would be taken for one of 0.1.0, without marks.
        own.redis("SET", "imd:level", 2)
        node = own.node()
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        alice = await self.login(self.name("alice"), url=node.url)
        answers = [await alice.say("bob", str(number)) for number in range(3)]
        ids = [answer["id"] for answer in answers]
        self.assertEqual([newest, *ids], sorted({newest, *ids}))
        for answer in answers:
            self.assertLess(abs(answer["sendTime"] / 1000 - time.time()), 60)
        await mark(alice, "bob", ids[-1])

    def node(self, own: Cluster, clock: Path) -> ClockNode:
        """One more node, whose Redis' clock is off by the seconds in this file."""
        plain = own.node()
        node = ClockNode(plain.folder, plain.ini, name=plain.name)
        node.clock = clock
        self.addCleanup(deferToThread, node.kill)
        return node

    async def follows(self, client: WsClient, seconds: int) -> bool:
        """Whether the client's node goes by a clock that is off by so much."""
        client.send({"type": "ping"})
        pong = await client.take("pong")
        return abs(pong["serverTime"] / 1000 - time.time() - seconds) < HOUR / 2

    async def test_set_back_while_nodes_run(self) -> None:
        """Ids stay ahead of Redis' clock on a node that has made some. A message with such an id may be
        marked as soon as it is there: on a node that has made no id yet, and on one that has started since.
        """
        own, clock = Cluster("clocks"), new_folder() / "clock"
        clock.write_text("0")
        nodes = [self.node(own, clock) for _ in range(3)]
        for node in nodes[:2]:
            await deferToThread(node.start)
        alice_id, bob_id = self.name("alice"), self.name("bob")
        alice = await self.login(alice_id, url=nodes[0].url)
        bob = await self.login(bob_id, url=nodes[1].url)
        before = await alice.say(bob_id, "before")
        await bob.expect("message")
        await self.archived(alice, 1, **{"with": bob_id})
        new = clock.with_name("new-clock")
        new.write_text(f"-{HOUR}")
        new.replace(clock)
        for client in (alice, bob):
            await self.eventually(partial(self.follows, client, -HOUR))
        after = await alice.say(bob_id, "after")
        self.assertLess(before["id"], after["id"])
        self.assertLess(after["sendTime"], before["sendTime"])
        message = await bob.expect("message")
        self.assertEqual(message["id"], after["id"])
        await mark(bob, alice_id, message["id"])
        await deferToThread(nodes[2].start)
        phone = await self.login(bob_id, url=nodes[2].url, device="phone")
        await mark(phone, alice_id, message["id"])

    async def test_reply(self) -> None:
        """A reply has a higher id than its message, on a node whose clock is behind that of the other. So has
        a reaction, and a reply in a room. History has them in this order.
        """
        own, clocks = Cluster("clocks"), [new_folder() / "clock" for _ in range(2)]
        nodes = [self.node(own, clock) for clock in clocks]
        for node, clock, ahead in zip(nodes, clocks, (0.9, 0), strict=True):
            clock.write_text(str(ahead))
            await deferToThread(node.start)
        alice_id, bob_id = self.name("alice"), self.name("bob")
        alice = await self.login(alice_id, url=nodes[0].url, features=["events"], ack=True)
        bob = await self.login(bob_id, url=nodes[1].url, features=["events"], ack=True)
        said = []
        for number in range(0, 6, 2):
            question = await alice.say(bob_id, str(number))
            self.assertEqual((await bob.take("message"))["id"], question["id"])
            answer = await bob.say(alice_id, str(number + 1))
            self.assertEqual((await alice.take("message"))["id"], answer["id"])
            said += [question["id"], answer["id"]]
        self.assertEqual(said, sorted(said))
        for client, other in ((alice, bob_id), (bob, alice_id)):
            found = await self.archived(client, 6, **{"with": other})
            self.assertEqual([message["id"] for message in found], said)
        question = await alice.say(bob_id, "?")
        await bob.take("message")
        reaction = await self.changed(bob, "react", question["id"], reaction="👍")
        self.assertGreater(reaction["id"], question["id"])
        room = await self.room_made(alice, bob_id)
        asked = await self.say_in_room(alice, room, "who comes?")
        await bob.given(asked["id"])
        answered = await self.say_in_room(bob, room, "me")
        self.assertGreater(answered["id"], asked["id"])
