"""Rules of the rest: ping, history, and a node that leaves."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from twisted.internet.threads import deferToThread

from tests.protocol.support import Rules, record_raw
from tests.support.ws_client import WsClient


class ControlRules(Rules):
    """Frames that are no messages."""

    async def test_ping(self) -> None:
        """A ping is answered with the server's time."""
        client = await self.login(self.name("alice"))
        raw = record_raw(client)
        before = time.time() * 1000
        client.send({"type": "ping"})
        pong = await client.expect("pong")
        after = time.time() * 1000
        self.assertTrue(raw[0].startswith(b'{"type":"pong"'))
        self.assertIsInstance(pong["serverTime"], int)
        # The node's clock may be that of Redis.
        self.assertTrue(before - 1_000 < pong["serverTime"] < after + 1_000)

    async def test_websocket_ping(self) -> None:
        """A WebSocket ping is answered, too, with what it carried."""
        client = await self.login(self.name("alice"))
        pongs: list[bytes] = []
        client.protocol.onPong = pongs.append
        client.protocol.sendPing(b"are you there")
        await client.quiet()
        self.assertEqual(pongs, [b"are you there"])

    async def test_leaving(self) -> None:
        """SIGTERM: what was sent is answered, clients get `leaving` and 4200, the process ends."""
        node = self.spare_node()
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        clients = [await self.login(self.name("user"), url=node.url) for _ in range(3)]
        raw = record_raw(clients[0])
        for number in range(20):
            clients[0].send({"clientMsgId": f"c-{number}", "to": self.name("bob"), "msg": "hi"})
        await clients[0].quiet()
        process = node.process
        assert process is not None
        os.kill(node.pid, signal.SIGTERM)
        for client in clients:
            self.assertEqual(await client.wait_closed(), 4200)
            leaving = [frame for frame in client.frames if frame["type"] == "leaving"]
            self.assertEqual(len(leaving), 1)
            self.assertIsInstance(leaving[0]["reconnectMs"], int)
            self.assertGreaterEqual(leaving[0]["reconnectMs"], 0)
        self.assertTrue([payload for payload in raw if payload.startswith(b'{"type":"leaving"')])
        answered = [frame for frame in clients[0].frames if frame["type"] == "accepted"]
        self.assertEqual(len(answered), 20)
        # twistd ends by the signal that it was stopped with.
        self.assertIn(await deferToThread(process.wait, 60), (0, -signal.SIGTERM))


class HistoryRules(Rules):
    """Pages of the archive."""

    async def chat(self, count: int) -> tuple[WsClient, WsClient]:
        """Two who have exchanged `count` messages ("0", "1", …) in turn, each an answer to the one before,
        all of them archived.
        """
        alice, bob = (
            await self.login(self.name("alice"), ack=True),
            await self.login(self.name("bob"), ack=True),
        )
        pair = (alice, bob)
        for number in range(count):
            sender, recipient = pair[number % 2], pair[1 - number % 2]
            said = await sender.say(recipient.connected["userId"], str(number))
            await recipient.given(said["id"])
        await self.archived(alice, count, all=True, limit=200)
        return alice, bob

    def texts(self, page: dict[str, Any]) -> list[str]:
        return [message["msg"] for message in page["messages"]]

    async def test_page(self) -> None:
        """The newest `limit`, oldest first, with the ref, whole messages, and whether there are more."""
        alice, bob = await self.chat(7)
        raw = record_raw(alice)
        page = await self.history(alice, **{"ref": "h1", "with": bob.connected["userId"], "limit": 3})
        self.assertTrue(raw[-1].startswith(b'{"type":"history"'))
        self.assertEqual((page["ref"], page["more"]), ("h1", True))
        self.assertEqual(self.texts(page), ["4", "5", "6"])
        last = page["messages"][-1]
        self.assertEqual(last["userId"], alice.connected["userId"])
        self.assertEqual(last["to"], bob.connected["userId"])
        self.assertEqual(last["fromUserType"], "USER_TYPE")
        self.assertIsInstance(last["sendTime"], int)
        got = await bob.messages(4)
        self.assertEqual(got[-1]["id"], last["id"])
        self.assertEqual(got[-1]["sendTime"], last["sendTime"])

    async def test_pages_back(self) -> None:
        """`before` goes back page by page, without holes or repeats, until `more` is false."""
        alice, bob = await self.chat(11)
        for client, other in ((alice, bob), (bob, alice)):
            seen: list[str] = []
            query: dict[str, Any] = {"with": other.connected["userId"], "limit": 4}
            more = True
            while more:
                page = await self.history(client, **query)
                seen = self.texts(page) + seen
                more = page["more"]
                query["before"] = page["messages"][0]["id"]
            self.assertEqual(seen, [str(number) for number in range(11)])

    async def test_exactly_the_limit(self) -> None:
        """`more` is false when the page holds the oldest."""
        alice, bob = await self.chat(4)
        page = await self.history(alice, **{"with": bob.connected["userId"], "limit": 4})
        self.assertEqual((len(page["messages"]), page["more"]), (4, False))

    async def test_default_limit(self) -> None:
        """Without a limit a page has 50."""
        alice, bob = await self.chat(53)
        page = await self.history(alice, **{"with": bob.connected["userId"]})
        self.assertEqual(self.texts(page), [str(number) for number in range(3, 53)])
        self.assertTrue(page["more"])
        self.assertNotIn("ref", page)

    async def test_page_of_a_group(self) -> None:
        """`group` names the others, in any order, with or without oneself; each member finds it."""
        users = [self.name(stem) for stem in ("alice", "bob", "carol")]
        clients = [await self.login(user, ack=True) for user in users]
        clients[0].send({"group": [users[1], users[2]], "msg": "from alice"})
        await clients[1].given((await clients[0].take("accepted"))["id"])
        clients[1].send({"group": [users[2], users[0]], "msg": "from bob"})
        await clients[1].take("accepted")
        await clients[0].say(users[1], "in private")
        for index, client in enumerate(clients):
            others = [user for user in users if user != users[index]]
            for group in (others, others[::-1], users):
                found = await self.archived(client, 2, group=group)
                self.assertEqual([message["msg"] for message in found], ["from alice", "from bob"])
                self.assertTrue(found[0]["group"])
        self.assertEqual(len(await self.archived(clients[0], 3, all=True)), 3)
        self.assertEqual(len(await self.archived(clients[2], 2, all=True)), 2)

    async def test_foreign_conversations(self) -> None:
        """Nobody reads a conversation that they are not in, however they ask."""
        alice, bob = await self.chat(3)
        a, b = alice.connected["userId"], bob.connected["userId"]
        eve = await self.login(self.name("eve"))
        for query in ({"with": a}, {"with": b}, {"group": [a, b]}, {"group": [a]}, {"all": True}):
            page = await self.history(eve, **query)
            self.assertEqual((page["messages"], page["more"]), ([], False), query)

    async def test_with_oneself(self) -> None:
        """One's own notes are a conversation, and no other's messages are in it."""
        user = self.name("alice")
        client = await self.login(user, ack=True)
        await client.say(user, "note")
        await client.say(self.name("bob"), "hi")
        found = await self.archived(client, 1, **{"with": user})
        self.assertEqual(found[0]["msg"], "note")

    async def test_before_need_not_exist(self) -> None:
        """Pages go by the ids' order: `before` may be an id that the archive does not have (yet)."""
        alice, bob = await self.chat(3)
        to = bob.connected["userId"]
        page = await self.history(alice, **{"with": to, "before": "f" * 28})
        self.assertEqual(self.texts(page), ["0", "1", "2"])
        fresh = await alice.say(to, "fresh")
        page = await self.history(alice, **{"with": to, "before": fresh["id"]})
        self.assertEqual(self.texts(page), ["0", "1", "2"])
        page = await self.history(alice, **{"with": to, "before": "0" * 28})
        self.assertEqual((page["messages"], page["more"]), ([], False))

    async def test_ids_rise(self) -> None:
        """Ids of one sender's messages are in the order in which they were sent."""
        alice = await self.login(self.name("alice"), ack=True)
        to = self.name("bob")
        ids = [(await alice.say(to, str(number)))["id"] for number in range(20)]
        self.assertEqual(ids, sorted(ids))
        found = await self.archived(alice, 20, **{"with": to})
        self.assertEqual([message["id"] for message in found], ids)
