"""The guide to backups is true: each restore is played as the page says, and without each of its steps."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions, NotAllowed, Placed
from imd.contracts.rooms import RoomOptions
from imd.contracts.state import Changes, Setting, StateStore
from imd.contracts.state_rules import pair_id
from imd.protocol.selector import Selector
from imd.store import blocks as cluster_blocks
from imd.store import state as cluster_state
from imd.store.redis.blocks import LOADER
from imd.store.state import ClusterStates
from tests.contract.block_contract import BlockHarness
from tests.contract.redis_harness import ANSWER_SECONDS
from tests.contract.test_blocks import ClusterBlocksHarness, EmbeddedBlocksHarness
from tests.contract.test_redis_runs import RunHarness
from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules
from tests.support.nodes import NodeServer
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "backup.md"
FILE = "/var/lib/imd/var/imd.db"
REDIS = "redis-cli -u redis://127.0.0.1:6379/0 "


def commands(title: str) -> list[str]:
    """The lines to enter of a section of the page, in their order."""
    [section] = re.findall(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text())
    return re.findall(r"(?m)^ {4,}(\S.*)$", section)


def update(database: Any, line: str) -> None:
    """Do a line that is meant for mongosh."""
    match = re.fullmatch(r"db\.(\w+)\.updateMany\((.*)\)", line)
    assert match is not None, line
    database[match[1]].update_many(*json.loads(f"[{match[2]}]"))


class Seen(NamedTuple):
    """Whether users find, after a restore, what the page promises."""

    told: bool
    """a device is told that it is not recovered"""
    obeyed: bool
    """a new block is"""
    newer: bool
    """a change of a room is delivered, under a version that no device has"""
    anew: bool
    """a device with a version from before gets its whole state"""


ALL = Seen(True, True, True, True)


class Story(BlockHarness):
    """Mary's phone and olga's tablet have what was changed after the backup; then both come back."""

    states: StateStore

    async def mute(self, other: str) -> None:
        setting = Setting(pair_id("olga", other), Selector(with_=other), muted=True)
        self.assertIsInstance(await self.states.change("olga", [], setting, None), Changes)

    async def before(self) -> None:
        """Up to the backup: the room, the list of blocked users and the state have version 1."""
        self.room = await self.make("mary")
        await self.block("olga", "adam")
        await self.mute("bob")

    async def after(self) -> None:
        """From the backup on: all have version 3, and one message waits in mary's inbox."""
        for n in range(2):
            await self.change(self.room, "olga", "set", name=f"n{n}")
            await self.block("olga", f"eve{n}")
            await self.mute(f"carl{n}")
        self.had = await self.connect("mary")
        self.assertEqual((await self.told("mary"))[-1], ("set", 3))
        self.assertEqual(await self.states.versions(["olga"]), {"olga": 3})
        await self.ack("mary", 3)
        await self.leave("mary", seq=3)
        self.waiting = await self.send_to_room("later")

    async def send_to_room(self, msg: str) -> str:
        """The message's id."""
        submission = self.to_room(self.room, "olga", msg)
        await self.rooms.warm(self.room)
        (outcome,) = await self.inbox.accept([submission])
        self.assertIsInstance(outcome, Placed)
        return submission.message_id

    async def look(self) -> Seen:
        """Change something of each kind, and see whether all of it arrives."""
        self.assertEqual(await self.block("olga", "zoe"), True)
        obeyed = await self.try_to_send("zoe", "olga") is NotAllowed
        self.assertEqual((await self.change(self.room, "olga", "set", name="restored")).room, self.room)
        await self.send_to_room("behind it")
        events = await self.events("mary")
        newer = any(event.get("name") == "restored" and event["version"] > 3 for event in events)
        # The numbers have come to those that the phone has, or past them.
        back = await self.connect("mary", epoch=self.had.page.epoch, seq=3)
        # As many changes as were lost: so the version has come to the one that the tablet has.
        for n in range(2):
            await self.mute(f"dora{n}")
        changes = await self.states.since("olga", 3)
        names = {entry.selector.with_ for entry in changes.entries}
        anew = changes.all and names == {"bob", "dora0", "dora1"}
        self.assertTrue(anew or not names)
        return Seen(back.recovered is False, obeyed, newer, anew)


class EmbeddedRestoreTests(EmbeddedBlocksHarness, Story):
    async def begin_story(self) -> None:
        self.steps = commands("The embedded backend")
        self.assertEqual(len(self.steps), 4)
        await self.begin_blocks()
        self.states = self.store.states

    async def play(self, *left_out: str) -> Seen:
        """The story, without the steps that have one of these words."""
        await self.begin_story()
        await self.before()
        path = Path(self.folder, "imd.db")
        copy = Path(self.mktemp())
        self.enter(self.steps[0].replace("/backup/imd.db", str(copy)))
        await self.after()
        await self.store.stop()
        for name in ("imd.db-wal", "imd.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
        shutil.copy(copy, path)
        for line in self.steps[1:]:
            if not any(word in line for word in left_out):
                self.enter(line)
        self.rooms = await self.make_rooms(RoomOptions())
        self.blocks, self.states = self.store.blocks, self.store.states
        return await self.look()

    def enter(self, line: str) -> None:
        """Do a line that is meant for a shell."""
        program, path, statement = shlex.split(line)
        self.assertEqual((program, path), ("sqlite3", FILE))
        with contextlib.closing(sqlite3.connect(Path(self.folder, "imd.db"))) as file:
            if statement.startswith(".backup "):
                with contextlib.closing(sqlite3.connect(statement.split("'")[1])) as copy:
                    file.backup(copy)
                return
            self.assertGreater(file.execute(statement).rowcount, 0)
            file.commit()

    async def test_all_steps(self) -> None:
        self.assertEqual(await self.play(), ALL)
        # Rooms go on as before: who comes now sees what is said from now on.
        await self.change(self.room, "olga", "add", ["nora"])
        await self.send_to_room("hello")
        self.assertEqual((await self.told("nora"))[-1], "hello")

    async def test_no_epochs(self) -> None:
        self.assertEqual(await self.play("UPDATE user "), ALL._replace(told=False))

    async def test_no_versions(self) -> None:
        seen = await self.play("UPDATE room ", "UPDATE state_user ")
        self.assertEqual(seen, ALL._replace(newer=False, anew=False))


class MongoRestoreTests(ClusterBlocksHarness, Story):
    async def begin_story(self) -> None:
        self.steps = commands("MongoDB of a cluster")
        self.assertEqual(len(self.steps), 3)
        self.patch(cluster_blocks, "LOOK_SECONDS", 0.05)
        self.patch(cluster_state, "ANSWER_SECONDS", ANSWER_SECONDS)
        await self.begin_blocks()
        await self.start_states()

    async def start_states(self) -> None:
        self.states = ClusterStates(reactor, self.archive, 30)
        self.addCleanup(self.states.stop)
        await self.states.start()

    async def stop_node(self) -> None:
        """Its connection to MongoDB stays: it remembers nothing."""
        for store in (self.blocks, self.states, self.rooms, self.inbox):
            await store.stop()

    async def start_node(self) -> None:
        self.inbox = await self.make_inbox(InboxOptions())
        self.rooms = await self.make_node(RoomOptions())
        self.blocks = await self.make_node_blocks()
        await self.start_states()

    async def play(self, *left_out: str) -> Seen:
        """The story, without the steps that have one of these words."""
        await self.begin_story()
        await self.before()
        with pymongo.MongoClient[dict[str, Any]](self.mongo_url) as client:
            database = client.get_default_database()
            copy = {name: list(database[name].find()) for name in database.list_collection_names()}
            await self.after()
            await self.stop_node()
            client.drop_database(database)
            for name, documents in copy.items():
                if documents:
                    database[name].insert_many(documents)
            for line in self.steps:
                if any(word in line for word in left_out):
                    continue
                if line.startswith(REDIS):
                    self.assertEqual(await self.redis.command(*line.removeprefix(REDIS).split()), 1)
                else:
                    update(database, line)
        await self.start_node()
        return await self.look()

    async def test_all_steps(self) -> None:
        """The restored lists and members count; messages that waited in inboxes are delivered."""
        self.assertEqual(await self.play(), ALL)
        self.assertIn(self.waiting, [event["id"] for event in await self.events("mary")])

        # The lease of the node that is gone; a restore takes longer.
        await self.redis.command("DEL", LOADER)

        async def loaded() -> bool:
            return self.blocks.loaded()

        await self.until(loaded)
        outcomes = [await self.try_to_send(user, "olga") for user in ("adam", "eve0", "zoe")]
        self.assertEqual(outcomes, [NotAllowed, Placed, NotAllowed])
        await self.change(self.room, "olga", "add", ["nora"])
        await self.send_to_room("hello")
        self.assertEqual((await self.told("nora"))[-1], "hello")
        membership = await self.rooms.membership(self.room, "nora")
        assert membership is not None
        self.assertGreater(membership.joined, 3)

    async def test_same_run(self) -> None:
        self.assertEqual(await self.play("DEL imd:run"), ALL._replace(told=False, obeyed=False))

    async def test_no_versions(self) -> None:
        self.assertEqual(await self.play("updateMany"), ALL._replace(newer=False, anew=False))

    async def test_twice(self) -> None:
        """After a second restore of the same backup versions are higher than after the first one."""
        self.assertEqual(await self.play(), ALL)
        first = await self.states.versions(["olga"])
        with pymongo.MongoClient[dict[str, Any]](self.mongo_url) as client:
            database = client.get_default_database()
            database["im_state"].update_one({"_id": "olga"}, {"$set": {"v": 1, "floor": 0}})
            update(database, self.steps[-1])
        self.assertGreater((await self.states.versions(["olga"]))["olga"], first["olga"])


class QueueTests(Rules, unittest.TestCase):
    async def test_newer_messages(self) -> None:
        """After a restore the archive has the messages in the queue, and devices get those in inboxes."""
        cluster = Cluster("b")
        alice, bob = self.name("alice"), self.name("bob")
        writer = await self.login(alice, url=(await self.started(cluster, "no")).url)
        for n in range(3):
            await writer.say(bob, f"text {n}")
        await deferToThread(self.node.kill)
        await writer.wait_closed()
        with pymongo.MongoClient[dict[str, Any]](cluster.mongo_url) as client:
            # The backup is from before the first message.
            client.drop_database(client.get_default_database())
            for line in commands("MongoDB of a cluster"):
                if line.startswith(REDIS):
                    self.assertEqual(cluster.redis(*line.removeprefix(REDIS).split()), 1)
                else:
                    update(client.get_default_database(), line)
        reader = await self.login(bob, url=(await self.started(cluster, "yes")).url)
        texts = [f"text {n}" for n in range(3)]
        self.assertEqual([message["msg"] for message in await reader.messages(3)], texts)
        found = await self.archived(reader, 3, **{"with": alice})
        self.assertEqual(sorted(message["msg"] for message in found), texts)

    async def started(self, cluster: Cluster, consume: str) -> NodeServer:
        self.node = cluster.node({"archive": {"consume": consume}})
        self.addCleanup(deferToThread, self.node.kill)
        await deferToThread(self.node.start)
        return self.node


class RedisRestoreTests(RunHarness):
    async def recovered(self, *steps: str) -> bool:
        """Whether a device's numbers still count after a restore of Redis' files, and these steps."""
        server = self.server()
        files, copy = server.folder / "appendonlydir", Path(self.mktemp())
        node = await self.node(server.url, lossless=True)
        epoch = await self.has_read(node, "bob", 3)
        await node.stop()
        server.kill()
        shutil.copytree(files, copy)
        server.start()
        node = await self.node(server.url, lossless=True)
        await self.send(node, "bob", 2)
        await node.stop()
        server.kill()
        shutil.rmtree(files)
        shutil.copytree(copy, files)
        server.start()
        for line in steps:
            self.assertEqual(server.ask(*line.removeprefix(REDIS).split()), 1)
        node = await self.node(server.url, lossless=True)
        await self.send(node, "bob", 2)
        back = await self.register(node, "bob", "again", epoch=epoch, seq=5)
        return bool(back.recovered)

    async def test_restore(self) -> None:
        steps = commands("Redis of a cluster")
        self.assertEqual(len(steps), 1)
        self.assertIs(await self.recovered(*steps), False)

    async def test_no_step(self) -> None:
        """Messages would be missed silently."""
        self.assertIs(await self.recovered(), True)
