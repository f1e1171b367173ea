"""Rooms that a node of a cluster does not know yet."""

from __future__ import annotations

from typing import Any

import pymongo
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.rooms import InRooms
from tests.support.nodes import NodeServer


class ColdRoomTests(InRooms, unittest.TestCase):
    timeout = 300

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def two_nodes(self, name: str) -> tuple[Cluster, list[NodeServer]]:
        cluster = Cluster(name, {"limits": {"messages_per_second": 0}})
        nodes = [cluster.node(), cluster.node()]
        for node in nodes:
            self.addCleanup(deferToThread, node.kill)
            await deferToThread(node.start)
        return cluster, nodes

    async def test_one_read_for_a_cold_room(self) -> None:
        """A room that Redis has forgotten is read once by a node, however many messages come meanwhile."""
        cluster, (first, second) = await self.two_nodes("cold")
        users = [self.name("user") for _ in range(8)]
        owner = await self.login(self.name("owner"), url=first.url)
        room = await self.room_made(owner, *users)
        members = [await self.login(user, url=second.url) for user in users]
        client: Any = await deferToThread(pymongo.MongoClient, cluster.mongo_url)
        self.addCleanup(deferToThread, client.close)
        database = client.get_default_database()
        await deferToThread(database.command, "profile", 2)
        self.addCleanup(deferToThread, database.command, "profile", 0)
        found = {"ns": f"{database.name}.im_room", "command.filter._id": room}

        async def reads() -> int:
            return int(await deferToThread(database["system.profile"].count_documents, found))

        async def read_and_accepted() -> int:
            """The reads before, if all messages are accepted; below 0 if MongoDB took over two seconds."""
            before = await reads()
            cluster.redis("DEL", f"imd:room:{room}")
            names = [(member, self.name("c")) for _ in range(5) for member in members]
            for member, client_msg_id in names:
                member.send({"clientMsgId": client_msg_id, "room": room, "msg": "hi"})
            answers = [await self.room_answer(member, client_msg_id) for member, client_msg_id in names]
            late = [answer for answer in answers if answer["type"] != "accepted"]
            for answer in late:
                self.assertEqual(answer["code"], "unavailable", answer)
            return -1 if late else before

        before = await read_and_accepted()
        while before < 0:
            before = await read_and_accepted()
        self.assertEqual(await reads(), before + 1)
        # The copy serves the other node, too.
        self.assertEqual((await self.say_in_room(owner, room))["type"], "accepted")
        self.assertEqual(await reads(), before + 1)
