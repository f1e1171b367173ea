"""The rules of the protocol on single nodes with nothing beside them."""

from __future__ import annotations

import itertools

from twisted.internet.defer import TimeoutError
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.auth import token
from tests.protocol.rules import ProtocolRules
from tests.protocol.support import KINDS, new_folder, started
from tests.support.certificate import tls_endpoint
from tests.support.group_end import group_cache
from tests.support.nodes import NodeServer
from tests.support.servers import free_port


@group_cache
def embedded_node(kind: str) -> NodeServer:
    """The node of a kind, started when first asked for."""
    return started(NodeServer(new_folder(), KINDS[kind]))


class EmbeddedNodeTests(ProtocolRules, unittest.TestCase):
    """One node of each kind, shared by all tests."""

    def nodes(self, kind: str) -> list[NodeServer]:
        return [embedded_node(kind)]

    def spare_node(self) -> NodeServer:
        return NodeServer(new_folder(), KINDS["plain"])

    async def test_tls(self) -> None:
        """A node with TLS of its own: both ways, small and large, and a page of what waited."""
        folder, port = new_folder(), free_port()
        node = NodeServer(folder, {**KINDS["jwt"], "websocket": {"listen": tls_endpoint(folder, port)}}, port)
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        url = f"wss://localhost:{port}/ws"
        alice, bob = self.name("alice"), self.name("bob")
        sender = await self.login(alice, url=url, token=token(alice))
        texts = [str(number) * (1 if number % 3 else 5_000) for number in range(30)]
        for text in texts:
            await sender.say(bob, text)
        recipient = await self.login(bob, url=url, token=token(bob), ack=True)
        self.assertEqual([message["msg"] for message in await recipient.messages(30)], texts)
        answer = await recipient.say(alice, "thanks")
        self.assertEqual((await sender.take("message"))["id"], answer["id"])

    async def test_kill(self) -> None:
        """kill -9 in the middle of a stream: nothing accepted is lost, nothing comes twice."""
        node = self.spare_node()
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        alice, bob = self.name("alice"), self.name("bob")
        numbers = itertools.count()
        sent: list[int] = []
        accepted: dict[str, dict[str, object]] = {}
        received: list[dict[str, object]] = []
        for _ in range(3):
            cursor = {"epoch": self.epoch, "seq": received[-1]["seq"]} if received else None
            recipient = await self.login(bob, url=node.url, ack=True, cursor=cursor)
            self.epoch = recipient.connected["epoch"]
            self.assertIs(recipient.connected["recovered"], True)
            sender = await self.login(alice, url=node.url, device="phone")
            # Messages without an answer before the kill go again, under their clientMsgIds.
            for number in [*(n for n in sent if f"c-{n}" not in accepted), *itertools.islice(numbers, 60)]:
                sender.send({"clientMsgId": f"c-{number}", "to": bob, "msg": str(number)})
                if number not in sent:
                    sent.append(number)
            for _ in range(30):
                answer = await sender.take("accepted")
                accepted[answer["clientMsgId"]] = answer
            await deferToThread(node.kill)
            for client in (sender, recipient):
                await client.wait_closed()
            for frame in sender.frames:
                if frame["type"] == "accepted":
                    accepted[frame["clientMsgId"]] = frame
            received += [frame for frame in recipient.frames if "seq" in frame]
            await deferToThread(node.start)
        cursor = {"epoch": self.epoch, "seq": received[-1]["seq"]} if received else None
        recipient = await self.login(bob, url=node.url, ack=True, cursor=cursor)
        sender = await self.login(alice, url=node.url, device="phone")
        for number in sent:
            answer = await sender.say(bob, str(number), clientMsgId=f"c-{number}")
            before = accepted.setdefault(f"c-{number}", answer)
            self.assertEqual((answer["id"], answer["sendTime"]), (before["id"], before["sendTime"]))
        try:
            while len(received) < len(sent):
                received.append(await recipient.take("message"))
        except TimeoutError:
            self.fail(f"{len(received)} of {len(sent)} messages came")
        await recipient.quiet()
        self.assertEqual(list(recipient.frames), [])
        self.assert_seqs(received, 1)
        self.assertEqual({message["id"] for message in received}, {a["id"] for a in accepted.values()})
        archived = await self.archived(sender, len(sent), limit=200, **{"with": bob})
        self.assertEqual(sorted(int(message["msg"]) for message in archived), sent)
