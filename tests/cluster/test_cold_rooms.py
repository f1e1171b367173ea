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
        cluster.redis("DEL", f"imd:room:{room}")
        client: Any = await deferToThread(pymongo.MongoClient, cluster.mongo_url)
        self.addCleanup(deferToThread, client.close)
        database = client.get_default_database()
        await deferToThread(database.command, "profile", 2)
        self.addCleanup(deferToThread, database.command, "profile", 0)
        names = [(member, f"c-{n}") for n in range(5) for member in members]
        for member, client_msg_id in names:
            member.send({"clientMsgId": client_msg_id, "room": room, "msg": "hi"})
        for member, client_msg_id in names:
            answer = await self.room_answer(member, client_msg_id)
            self.assertEqual(answer["type"], "accepted", answer)
        reads = {"ns": f"{database.name}.im_room", "command.filter._id": room}
        self.assertEqual(await deferToThread(database["system.profile"].count_documents, reads), 1)
        # The copy serves the other node, too.
        self.assertEqual((await self.say_in_room(owner, room))["type"], "accepted")
        self.assertEqual(await deferToThread(database["system.profile"].count_documents, reads), 1)
