"""Rules of delivery between the nodes of a cluster, for any routing."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.threads import deferToThread

from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules
from tests.support.nodes import NodeServer


class AcrossNodes(Rules):
    """Three nodes; each client's node is named by its number."""

    def cluster(self) -> Cluster:
        """The cluster of these nodes."""
        raise NotImplementedError

    def three(self) -> list[NodeServer]:
        return self.nodes("plain")

    def at(self, number: int) -> str:
        return self.three()[number].url

    async def test_order_across_nodes(self) -> None:
        """Senders on all nodes, devices on all nodes: one order for all, and each sender's own kept."""
        user = self.name("bob")
        devices = [await self.login(user, url=self.at(n), device=f"d{n}", ack=True) for n in range(3)]
        senders = [await self.login(self.name("sender"), url=self.at(n % 3)) for n in range(6)]
        count = 100
        for number in range(count):
            for index, sender in enumerate(senders):
                sender.send({"clientMsgId": f"c-{number}", "to": user, "msg": f"{index} {number}"})
        first = await devices[0].messages(count * len(senders))
        self.assert_seqs(first, 1)
        for index, sender in enumerate(senders):
            own = [message["msg"] for message in first if message["msg"].startswith(f"{index} ")]
            self.assertEqual(own, [f"{index} {number}" for number in range(count)])
            answers = [(await sender.take("accepted"))["clientMsgId"] for _ in range(count)]
            self.assertEqual(answers, [f"c-{number}" for number in range(count)])
        for device in devices[1:]:
            self.assertEqual(await device.messages(len(first)), first)
            await device.quiet()
            self.assertEqual(list(device.frames), [])

    async def test_follow_a_message(self) -> None:
        """A trace that is switched on while nodes run has every step of a message, on both, under its id."""
        bob = await self.login(self.name("bob"), url=self.at(1), ack=True)
        sender = await self.login(self.name("alice"), url=self.at(0), device="desk")
        to = bob.connected["userId"]
        unseen = await sender.say(to, "before")
        # Its last steps, or they would be seen. It is not taken yet: it would be acknowledged.
        await self.archived(sender, 1, **{"with": to})
        # The third node was asked for bob's channel before this one.
        carol = await self.login(self.name("carol"), url=self.at(2))
        await sender.say(carol.connected["userId"], "hi")
        await carol.take("message")

        async def has_come() -> bool:
            return any("msg" in frame for frame in bob.frames)

        await self.eventually(has_come)
        for node in self.three():
            on = await deferToThread(node.control, "POST", user=to)
            self.assertEqual((on["on"], on["users"]), (True, [to]))
        seen = await sender.say(to, "Blaubeere")
        await bob.messages(2)
        expected = {"received", "placed", "published", "confirmed", "accepted", "archived"}
        expected |= {"hint sent", "hint received", "pushed", "acked"}
        logs = [node.log for node in self.three()]

        async def whole_way() -> Any:
            lines = [line for log in logs for line in log.read_text().splitlines() if seen["id"] in line]
            steps = [" ".join(re.findall(r" ([a-z]+)(?= )", line.split("=")[0])) for line in lines]
            return lines if expected <= set(steps) else None

        lines = await self.eventually(whole_way)
        for line in lines:
            self.assertIn("[imd.observe.trace#debug] ", line)
        for step, log in (("received", logs[0]), ("pushed", logs[1]), ("acked", logs[1])):
            [line] = [line for line in log.read_text().splitlines() if f"{seen['id']} {step} " in line]
            self.assertIn("channel=", line)
        [acked] = [line for line in lines if " acked " in line]
        self.assertIn(f"user={to!r} device='default'", acked)
        self.assertIn(f"seq=2 epoch={bob.connected['epoch']!r}", acked)
        for node in self.three():
            self.assertFalse((await deferToThread(node.control, "DELETE"))["on"])
        after = await sender.say(to, "after")
        await bob.take("message")
        await bob.quiet()
        for log in logs:
            # The node that wrote it says so when MongoDB has answered, a moment after a reader may find it.
            text = log.read_text().replace(f"{unseen['id']} archived ", "")
            for word in (unseen["id"], after["id"], "Blaubeere"):
                self.assertNotIn(word, text)

    async def test_late_leaving_takes_nothing_away(self) -> None:
        """A replaced channel that goes leaves the newer one's entry alone (compare-and-delete)."""
        user = self.name("bob")
        old = await self.login(user, url=self.at(0))
        new = await self.login(user, url=self.at(1))
        self.assertEqual(await old.wait_closed(), 4003)
        await (await self.login(self.name("x"), url=self.at(0))).quiet()
        entry = self.cluster().redis("HGET", f"imd:{{{user}}}:channels", "default").decode()
        self.assertEqual(entry.split(" ")[0], new.connected["channel"])
        sender = await self.login(self.name("alice"), url=self.at(2))
        await sender.say(user, "hi")
        self.assertEqual((await new.take("message"))["msg"], "hi")

    async def test_cursor_follows_to_another_node(self) -> None:
        """An acknowledgement on one node counts on another."""
        user = self.name("bob")
        sender = await self.login(self.name("alice"), url=self.at(0))
        client = await self.login(user, url=self.at(1), ack=True)
        for number in range(5):
            await sender.say(user, str(number))
        await client.messages(5)
        await client.close()

        async def stored() -> bool:
            cursor = self.cluster().redis("HGET", f"imd:{{{user}}}:cursors", "default")
            return cursor == b"5"

        await self.eventually(stored)
        again = await self.login(user, url=self.at(2), ack=True)
        self.assertEqual((again.connected["seq"], again.connected["recovered"]), (5, True))

    async def test_group_over_three_nodes(self) -> None:
        """A list whose members are on every node, one of them with two devices, one of them away."""
        users = [self.name(f"member{n}") for n in range(3)]
        clients = [await self.login(user, url=self.at(n)) for n, user in enumerate(users)]
        second = await self.login(users[0], url=self.at(2), device="second")
        away = self.name("away")
        sender = await self.login(self.name("alice"), url=self.at(0))
        for number in range(10):
            sender.send({"group": [*users, away], "msg": str(number)})
            await sender.take("accepted")
        late = await self.login(away, url=self.at(1))
        for client in (*clients, second, late):
            messages = await client.messages(10)
            self.assert_seqs(messages, 1)
            self.assertEqual([message["msg"] for message in messages], [str(n) for n in range(10)])

    async def test_visitor_and_agent_on_two_nodes(self) -> None:
        """They find each other wherever they are."""
        agent = await self.login(self.name("agent"), url=self.at(0), isCustomerService=True, ack=True)
        visitor = await self.login(None, url=self.at(1), loginType=None, isVisitor=True)
        for number in range(5):
            visitor.send({"msg": str(number)})
            await visitor.take("accepted")
            self.assertEqual((await agent.take("message"))["msg"], str(number))
            await agent.say(visitor.connected["userId"], f"re {number}")
            self.assertEqual((await visitor.take("message"))["msg"], f"re {number}")

    async def test_waiting_visitor_and_agent_on_two_nodes(self) -> None:
        """A visitor that waits on one node is served when an agent comes to another."""
        visitor = await self.login(None, url=self.at(1), loginType=None, isVisitor=True)
        visitor.send({"msg": "anyone?"})
        await visitor.take("accepted")
        agent = await self.login(self.name("agent"), url=self.at(2), isCustomerService=True, ack=True)
        self.assertEqual((await agent.take("message"))["msg"], "anyone?")
