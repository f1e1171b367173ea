"""`imd upgrade` on real servers without nodes: its refusals, and how it goes on where it was interrupted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pika
import pymongo
from pika.exceptions import ChannelClosedByBroker
from twisted.trial import unittest

from imd.command import look_level, upgrade
from imd.command.findings import Finding, Level
from imd.command.level_words import LevelWords
from imd.command.old_exchange import OldExchangeControl
from imd.config.settings import load
from imd.gateway.nodes import Row
from imd.gateway.table import announce
from tests.command import here, write_ini
from tests.protocol.clusters import RawRedis
from tests.support.servers import shared

# For a command that waits until the time is over: a node does not hear, or the archive is behind.
SOON = ("--seconds", "1")
ROW = Row("east", "east.1", "", False, False, "", "0.2.0", 1, 0, False, 2)


class Killed(Exception):
    """The command ends here, whatever it was about to do."""


class ServersTestCase(unittest.TestCase):
    """A cluster of the test's own, without nodes."""

    def setUp(self) -> None:
        servers = shared()
        self.file = write_ini(
            Path(self.mktemp()) / "node.ini",
            node={"backend": "cluster"},
            redis={"url": servers.redis_url()},
            rabbitmq={"url": servers.amqp_url()},
            mongodb={"url": servers.mongo_url()},
        )
        self.settings = load(str(self.file))
        self.redis = RawRedis(self.settings.redis.url)
        self.addCleanup(self.redis.close)
        client: Any = pymongo.MongoClient(self.settings.mongodb.url)
        self.addCleanup(client.close)
        self.database = client.get_default_database()
        self.broker = pika.BlockingConnection(pika.URLParameters(self.settings.rabbitmq.url))
        self.addCleanup(self.broker.close)
        self.patch(upgrade, "QUIET_SECONDS", 0.5)
        self.patch(upgrade, "ANSWER_SECONDS", 60.0)

    def put(self, redis: int, mongo: int) -> None:
        self.redis("SET", "imd:level", redis)
        document = {"_id": "level", "level": mongo}
        self.database["im_cluster"].replace_one({"_id": "level"}, document, upsert=True)

    def words(self) -> tuple[int, int]:
        found = self.database["im_cluster"].find_one({"_id": "level"}) or {"level": 0}
        return int(self.redis("GET", "imd:level") or 0), found["level"]

    def is_of(self, kind: str) -> bool:
        """Whether `imd.search` has this type; declared if it is not there."""
        try:
            self.broker.channel().exchange_declare("imd.search", kind, durable=True)
        except ChannelClosedByBroker:
            return False
        return True

    def join(self) -> Any:
        """Both exchanges as nodes of this version leave them at the first level."""
        channel = self.broker.channel()
        channel.exchange_declare("imd.all", "fanout", durable=True)
        channel.exchange_declare("imd.search", "fanout", durable=True)
        channel.exchange_bind("imd.all", "imd.search")
        channel.exchange_bind("imd.search", "imd.all")
        return channel

    def run_it(self, *options: str) -> tuple[int, dict[str, Any]]:
        code, said = here("upgrade", self.file, "--json", "--seconds", "60", *options)
        return code, json.loads(said)

    def announce(self, row: Row) -> None:
        """A row in a table that is old enough to be acted upon."""
        self.redis(*announce(row))
        run, since = self.redis("HGET", "imd:nodes", "").decode().split()
        self.redis("HSET", "imd:nodes", "", f"{run} {int(since) - 60_000}")


class UpgradeCommandTests(ServersTestCase):
    def test_shown(self) -> None:
        """Both words, and the nodes; 1 until the newest level is in both stores."""
        self.assertEqual(self.run_it()[0], 1)
        self.put(1, 2)
        self.announce(ROW)
        code, said = self.run_it()
        self.assertEqual((code, said["redis"], said["mongodb"], said["level"]), (1, 1, 2, 2))
        self.assertEqual(said["nodes"], {"east": {"version": "0.2.0", "level": 2}})
        self.put(2, 2)
        code, text = here("upgrade", self.file)
        self.assertEqual(code, 0)
        self.assertIn("level 2 (Redis 2, MongoDB 2)", text)
        self.assertIn("east: version 0.2.0, at level 2", text)

    def test_embedded(self) -> None:
        """There is nothing to do for a node with a file."""
        file = write_ini(Path(self.mktemp()) / "node.ini", node={"backend": "embedded"})
        self.assertEqual(here("upgrade", file, "--finish")[0], 0)

    def test_finish_and_undo(self) -> None:
        """Raised: both words, and an exchange that 0.1 is refused. Lowered: all as it was, joined."""
        self.put(1, 1)
        channel = self.join()
        self.assertEqual(self.run_it("--finish")[0], 0)
        self.assertEqual((self.words(), self.is_of("topic")), ((2, 2), True))
        self.assertEqual(self.run_it("--undo")[0], 0)
        self.assertEqual((self.words(), self.is_of("fanout")), ((1, 1), True))
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "imd.all")
        channel.basic_publish("imd.search", "", b"x")
        self.assertEqual(self.next_in(channel, queue), b"x")

    def next_in(self, channel: Any, queue: str) -> bytes | None:
        end = time.monotonic() + 180
        while (got := channel.basic_get(queue, auto_ack=True))[0] is None and time.monotonic() < end:
            time.sleep(0.02)
        return got[2]  # type: ignore[no-any-return]

    def test_an_old_node_listens(self) -> None:
        """Refused, and what was joined is joined again."""
        self.put(1, 1)
        channel = self.join()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "imd.search")
        code, said = self.run_it("--finish")
        self.assertEqual((code, self.words()), (1, (1, 1)))
        self.assertIn("a node of 0.1 is connected", said["error"])
        channel.basic_publish("imd.all", "", b"x")
        self.assertEqual(self.next_in(channel, queue), b"x")
        other = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(other, "imd.all")
        channel.basic_publish("imd.search", "", b"y")
        self.assertEqual(self.next_in(channel, other), b"y")

    def test_an_old_row(self) -> None:
        """Refused, by name, also for a node that no exchange shows."""
        self.put(1, 1)
        self.announce(Row("west", "west.1", "", False, False, "", "0.1.0", 1, 0, False))
        code, said = self.run_it("--finish")
        self.assertEqual((code, self.words()), (1, (1, 1)))
        self.assertIn("west (0.1.0)", said["error"])

    def test_a_node_that_does_not_hear(self) -> None:
        """A raised level counts, and the node is named; a lowered one is raised again."""
        self.put(1, 1)
        self.announce(Row("east", "east.1", "", False, False, "", "0.2.0", 1, 0, False, 1))
        code, said = self.run_it("--finish", *SOON)
        self.assertEqual((code, said["late"], self.words()), (1, ["east"], (2, 2)))
        self.announce(ROW)
        code, said = self.run_it("--undo", *SOON)
        self.assertEqual((code, self.words(), self.is_of("topic")), (1, (2, 2), True))
        self.assertIn("east", said["error"])

    def test_a_newer_cluster(self) -> None:
        """A level that this version does not know is neither raised nor lowered."""
        self.put(3, 2)
        for option in ("--finish", "--undo"):
            self.assertEqual(self.run_it(option)[0], 1)
        self.assertEqual(self.words(), (3, 2))

    def test_undo_with_events(self) -> None:
        """Refused by what is archived, and by what may still wait in the queue."""
        for name in ("im_event", "im_room", "im_state"):
            self.put(2, 2)
            self.database[name].insert_one({"_id": "x"})
            self.assertEqual((self.run_it("--undo")[0], self.words()), (1, (2, 2)))
            self.database[name].delete_many({})
        channel = self.broker.channel()
        channel.queue_declare("imd.archive", durable=True)
        channel.basic_publish("", "imd.archive", b"[]")
        code, said = self.run_it("--undo", *SOON)
        self.assertEqual((code, self.words()), (1, (2, 2)))
        self.assertIn("the archive is behind", said["error"])

    def test_interrupted(self) -> None:
        """Killed before any of its steps, it can be given again, and undone."""
        steps = [
            (LevelWords, "write"),
            (OldExchangeControl, "close"),
            (OldExchangeControl, "open"),
        ]
        for first, begin, done in (("--finish", 1, 2), ("--undo", 2, 1)):
            for then, end in ((first, done), ("--undo" if first == "--finish" else "--finish", begin)):
                for owner, name in steps:
                    with self.subTest(first=first, then=then, step=name):
                        self.put(begin, begin)
                        control = OldExchangeControl(self.settings.rabbitmq.url, 60)
                        (control.close if begin == 2 else control.open)()
                        control.disconnect()
                        self.interrupt(owner, name, first)
                        self.assertEqual(self.run_it(then)[0], 0)
                        self.assertEqual(self.words(), (end, end))
                        self.assertTrue(self.is_of("topic" if end == 2 else "fanout"))

    def interrupt(self, owner: type, name: str, option: str) -> None:
        """Run the command until it calls this for the last time; nothing that it would do then is done."""

        def killed(*_: object) -> None:
            raise Killed

        patched = self.patch(owner, name, killed)
        try:
            self.run_it(option)
        except Killed:
            pass
        finally:
            patched.restore()

    def test_between_the_stores(self) -> None:
        """Killed between MongoDB and Redis: the higher word counts, and either command goes on."""
        for option, level in (("--finish", 2), ("--undo", 1)):
            for words in ((1, 2), (2, 1), (0, 2), (0, 1)):
                self.redis("DEL", "imd:level")
                if words[0]:
                    self.put(*words)
                else:
                    self.put(1, words[1])
                    self.redis("DEL", "imd:level")
                self.assertEqual((self.run_it(option)[0], self.words()), (0, (level, level)))


class LookTests(ServersTestCase):
    """The doctor's look, on the same servers."""

    def found(self) -> dict[Level, str]:
        findings: list[Finding] = list(look_level.look(self.settings, 60))
        return {finding.level: finding.what for finding in findings}

    def test_looks(self) -> None:
        self.assertIn("no node has begun", self.found()[Level.NOTE])
        self.put(1, 1)
        self.assertIn("level is 1", self.found()[Level.NOTE])
        self.put(1, 2)
        self.assertIn("Redis 1, MongoDB 2", self.found()[Level.WARNING])
        self.put(3, 3)
        self.assertIn("level is 3", self.found()[Level.PROBLEM])
        self.put(2, 2)
        self.announce(ROW)
        self.assertEqual(list(self.found()), [Level.OK])
        self.announce(Row("west", "west.1", "", False, False, "", "0.2.1", 1, 0, False, 1))
        found = self.found()
        self.assertIn("west", found[Level.WARNING])
        self.assertIn("0.2.1: west", found[Level.NOTE])
        self.redis("SET", "imd:level", "two")
        self.assertIn("imd:level", self.found()[Level.PROBLEM])
