"""Nodes behind a gateway: hints go straight to the home of a user, and a user elsewhere is found."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pika.exceptions
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.gateway import table
from imd.gateway.slots import Slots, name_at_home
from imd.gateway.table import LEASE_SECONDS
from tests.cluster.across import AcrossNodes
from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules, started
from tests.support.group_end import group_cache
from tests.support.nodes import NodeServer
from tests.support.rabbit import Broker
from tests.support.ws_client import WAIT_SECONDS

TRIES = 8
"""of which one has to count as expected"""
Counts = dict[str, float]


@group_cache
def cluster() -> Cluster:
    return Cluster("h")


@group_cache
def nodes() -> list[NodeServer]:
    """Two whose routing is `gateway`, and one that searches."""
    routings = ("gateway", "gateway", "search")
    return [started(cluster().node({"cluster": {"routing": routing}})) for routing in routings]


class HomesCase(Rules, unittest.TestCase):
    """Tests that begin when all nodes know the table."""

    async def setUp(self) -> None:
        self.slots = Slots(node.name for node in nodes())
        self.numbers = itertools.count()

        async def all_know_the_table() -> bool:
            slots = [await deferToThread(node.metric, "imd_home_slots") for node in nodes()]
            return slots == [self.slots.first.count(node.name) for node in nodes()]

        await self.eventually(all_know_the_table, WAIT_SECONDS + LEASE_SECONDS)

    def nodes(self, kind: str) -> list[NodeServer]:
        return nodes()


class MixedRoutingTests(AcrossNodes, HomesCase):
    """The rules of nodes that search, where two of three ask homes. Most users are not at home."""

    def cluster(self) -> Cluster:
        return cluster()


class HomeTests(HomesCase):
    def at_home(self, node: int) -> str:
        """A user whose home is this node, by its number."""
        name = nodes()[node].name
        return name_at_home(self.slots, name, lambda: self.name(f"user{next(self.numbers)}"))

    async def counts(self, node: int) -> Counts:
        """A node's counters of channels, by their result."""
        _, text = await deferToThread(nodes()[node].http, "metrics")
        found = dict(self.samples(text))
        return {
            "searched": found["imd_channel_searches_total"],
            **{
                result: found.get(f'imd_home_hints_total{{result="{result}"}}', 0.0)
                for result in ("found", "returned", "unanswered")
            },
        }

    @staticmethod
    def samples(text: str) -> Iterator[tuple[str, float]]:
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                yield name, float(value)

    async def since(self, node: int, before: Counts) -> Counts:
        """The counters that have changed."""
        now = await self.counts(node)
        return {name: now[name] - before[name] for name in now if now[name] != before[name]}

    async def counted(self, expected: Counts, act: Callable[[], Awaitable[Counts]]) -> None:
        """The counters change like this. On a busy machine an answer may take more than its second, or the
        table be older than it may be, so it gets some tries."""
        tries: list[Counts] = []
        while expected not in tries:
            self.assertLess(len(tries), TRIES, tries)
            tries.append(await act())

    async def exchanged(self, sender_node: int, home: int, user_node: int, expected: Counts) -> None:
        """An exchange with a user who is connected to one node, and whose home is the other or the same."""
        await self.counted(expected, lambda: self.exchange(sender_node, self.at_home(home), user_node))

    async def exchange(self, sender_node: int, user: str, user_node: int) -> Counts:
        """Thirty messages without a pause, from a sender on one node to a user on another: they arrive in
        order. The counters of the sender's node that changed."""
        count = 30
        bob = await self.login(user, url=nodes()[user_node].url, ack=True)
        sender = await self.login(self.name("alice"), url=nodes()[sender_node].url)
        before = await self.counts(sender_node)
        for number in range(count):
            sender.send({"to": user, "msg": str(number)})
        messages = await bob.messages(count)
        self.assert_seqs(messages, 1)
        self.assertEqual([message["msg"] for message in messages], [str(n) for n in range(count)])
        return await self.since(sender_node, before)

    async def test_at_home(self) -> None:
        """Users at home are found without a search; one of them on the sender's node needs no question."""
        await self.exchanged(0, 1, 1, {"found": 1})
        await self.exchanged(1, 0, 0, {"found": 1})
        await self.exchanged(0, 0, 0, {})

    async def test_list_at_home(self) -> None:
        """A list of users, each at home: no search."""
        await self.counted({"found": 4}, self.list_at_home)

    async def list_at_home(self) -> Counts:
        homes = (0, 1, 2, 0, 1, 2)
        users = [self.at_home(number) for number in homes]
        clients = [
            await self.login(user, url=nodes()[number].url) for user, number in zip(users, homes, strict=True)
        ]
        sender = await self.login(self.name("alice"), url=nodes()[0].url)
        before = await self.counts(0)
        for number in range(3):
            sender.send({"group": users, "msg": str(number)})
        for client in clients:
            self.assertEqual([m["msg"] for m in await client.messages(3)], ["0", "1", "2"])
        return await self.since(0, before)

    async def test_stray(self) -> None:
        """A user who is not at home is searched for, once: after a second without an answer, or at once where
        the sender's node is the home."""
        await self.exchanged(0, 2, 1, {"unanswered": 1, "searched": 1})
        await self.exchanged(0, 0, 1, {"searched": 1})

    async def test_mixed_routing(self) -> None:
        """A node that searches finds users on the others, and answers when it is asked as a home."""
        await self.exchanged(2, 0, 0, {"searched": 1})
        await self.exchanged(0, 2, 2, {"found": 1})
        await self.exchanged(2, 0, 1, {"searched": 1})

    async def test_home_is_gone(self) -> None:
        """A home that died, and is in the table still: the broker returns the question, and all are asked."""
        await self.counted({"returned": 1, "searched": 1}, self.home_is_gone)

    async def home_is_gone(self) -> Counts:
        slots = self.slots
        dying = await deferToThread(self.one_more)
        with_it = Slots([*slots.names, dying.name])

        async def known() -> Any:
            expected = with_it.first.count(nodes()[0].name)
            return await deferToThread(nodes()[0].metric, "imd_home_slots") == expected

        await self.eventually(known)
        user = name_at_home(with_it, dying.name, lambda: self.name(f"user{next(self.numbers)}"))
        bob = await self.login(user, url=nodes()[1].url, ack=True)
        sender = await self.login(self.name("alice"), url=nodes()[0].url)
        before = await self.counts(0)
        rows = table.reading(await deferToThread(cluster().redis, *table.read())).rows
        await deferToThread(dying.kill)

        async def off_the_bus() -> bool:
            return await deferToThread(self.is_off_the_bus, rows[dying.name].bus)

        await self.eventually(off_the_bus)
        sender.send({"to": user, "msg": "hi"})
        self.assertEqual((await bob.take("message"))["msg"], "hi")
        return await self.since(0, before)

    @staticmethod
    def is_off_the_bus(address: str) -> bool:
        """The broker has deleted the node's queue."""
        broker = Broker(cluster().amqp_url)
        try:
            broker.length(f"imd.node.{address}")
        except pika.exceptions.ChannelClosedByBroker as refused:
            return bool(refused.reply_code == 404)
        finally:
            broker.close()
        return False

    def one_more(self) -> NodeServer:
        node = cluster().node({"cluster": {"routing": "gateway"}})
        self.addCleanup(node.kill)
        node.start()
        return node
