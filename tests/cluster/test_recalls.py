"""Recalls while MongoDB stands still, while the queue to it drains, and after one has left an inbox."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.changing import Changing
from tests.protocol.clusters import Cluster
from tests.protocol.support import pause
from tests.support.nodes import NodeServer
from tests.support.rabbit import own_mongo
from tests.support.servers import MongoServer


class RecallTests(Changing, unittest.TestCase):
    timeout = 600

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def two_nodes(self) -> tuple[list[NodeServer], MongoServer]:
        """Two nodes with inboxes of 20 messages, and a MongoDB that a test may stop."""
        mongo = own_mongo(self)
        options: dict[str, Any] = {"mongodb": {"url": mongo.url}, "inbox": {"max_messages": 20}}
        cluster = Cluster("rc", {**options, "limits": {"messages_per_second": 0}})
        nodes = [cluster.node(), cluster.node()]
        for node in nodes:
            self.addCleanup(deferToThread, node.kill)
            await deferToThread(node.start)
        return nodes, mongo

    async def test_mongodb_stands_still(self) -> None:
        """`unavailable` in time, then at once, never `not_found`; messages pass; then all is recalled."""
        nodes, mongo = await self.two_nodes()
        alice = await self.login(self.name("alice"), url=nodes[0].url)
        bob = await self.login(self.name("bob"), url=nodes[1].url)
        to = bob.connected["userId"]
        before = await self.said(alice, bob, "a secret before")
        recalled = await self.changed(alice, "recall", before, clientMsgId="r-before")
        early = await self.said(alice, bob, "an early secret")
        mongo.pause()
        self.addCleanup(mongo.resume)
        during = [(await alice.say(to, f"a secret {number}"))["id"] for number in range(300)]

        async def asked(message: str, client_msg_id: str) -> float:
            """How long `unavailable` takes, and a message behind it."""
            began = time.monotonic()
            alice.send({"type": "recall", "clientMsgId": client_msg_id, "id": message})
            alice.send({"clientMsgId": f"m-{client_msg_id}", "to": to, "msg": "behind"})
            answer = await alice.answer(client_msg_id)
            self.assertEqual((answer.get("code"), answer["temporary"]), ("unavailable", True))
            self.assertGreater(answer["retryAfterMs"], 0)
            self.assertEqual((await alice.answer(f"m-{client_msg_id}"))["type"], "accepted")
            return time.monotonic() - began

        # A busy machine adds to the deadline.
        self.assertLess(await asked(early, "r-early"), 10)

        async def at_once() -> bool:
            return await asked(during[-1], "r-last") < 1

        await self.eventually(at_once)
        # A resend cannot be answered either.
        await asked(before, "r-before")
        mongo.resume()
        # While the queue drains: every answer is `unavailable` or `accepted`.
        for number, message in enumerate([early, *during]):
            await self.changed(alice, "recall", message, clientMsgId=f"r-{number}")
        self.assertEqual(await self.change(alice, "recall", before, clientMsgId="r-before"), recalled)

        async def gone() -> bool:
            page = await self.history(bob, all=True, limit=200)
            return "secret" not in str(page)

        await self.eventually(gone)
        shown = await self.entry(bob, during[-1], all=True, limit=200)
        self.assertEqual(shown["msg"], "")
        self.assertIn("recalled", shown)

    async def test_recall_that_left_an_inbox(self) -> None:
        """A device that was away too long finds it in `changes`, from the `complete` that it kept."""
        nodes, _ = await self.two_nodes()
        alice = await self.login(self.name("alice"), url=nodes[0].url)
        name = self.name("bob")
        bob = await self.login(name, url=nodes[1].url, device="d", features=["events"], ack=True)
        to = {"with": alice.connected["userId"]}
        message = await self.said(alice, bob, "a secret")
        await bob.quiet()
        bob.send({"type": "changes", "ref": "k", "all": True, "limit": 0})
        complete = (await bob.take("changes"))["complete"]
        await bob.close()
        recalled = await self.changed(alice, "recall", message)
        for number in range(30):
            await alice.say(name, str(number))
        back = await self.login(name, url=nodes[0].url, device="d", features=["events"], ack=True)
        self.assertIs(back.connected["recovered"], False)
        inbox = [event["id"] for event in await back.messages(20)]
        self.assertNotIn(recalled["id"], inbox)

        async def caught_up() -> list[dict[str, Any]]:
            back.send({"type": "changes", "ref": "k", "after": complete, **to})
            found: list[dict[str, Any]] = (await back.take("changes"))["events"]
            await pause(0.1)
            return [event for event in found if event["id"] == recalled["id"]]

        [event] = await self.eventually(caught_up)
        self.assertEqual((event["kind"], event["of"]), ("recall", message))
        self.assertNotIn("seq", event)
        await self.shown(back, message, {"msg": "", "recalled": recalled["sendTime"]}, **to)
