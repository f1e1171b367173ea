"""A node that is connected to everything, and would accept no message: it is not ready, and says why."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from typing import Any

import hiredis
from pika.exceptions import NackError
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE
from tests.contract.test_redis_rights import PASSWORD, statements
from tests.protocol.clusters import Cluster, RawRedis
from tests.protocol.support import Rules, new_folder, pause, started
from tests.support.group_end import at_group_end, group_cache
from tests.support.nodes import NodeServer
from tests.support.rabbit import Broker
from tests.support.servers import HOST, MongoServer, RedisServer, free_port
from tests.support.ws_client import WsClient


@group_cache
def server() -> RedisServer:
    """A Redis that may be harmed; its user `imd`, with the rights of the guide, is the node's."""
    redis = RedisServer(new_folder(), options=["--busy-reply-threshold", "100"])
    at_group_end(redis.kill)
    redis.start()
    give_rights(redis)
    return redis


def give_rights(redis: RedisServer) -> None:
    for words in statements():
        ask(redis, "ACL", "SETUSER", "imd", *words)


@group_cache
def node() -> NodeServer:
    url = f"redis://imd:{PASSWORD}@{HOST}:{server().port}/0"
    return started(Cluster("ready", {"redis": {"url": url}}).node())


def ask(redis: RedisServer, *words: str | int) -> Any:
    """One command, as the default user."""
    connection = RawRedis(redis.url)
    try:
        return connection(*words)
    finally:
        connection.close()


def config(name: str, value: str | int) -> None:
    ask(server(), "CONFIG", "SET", name, value)


class Asking(Rules):
    """Asks a node for /readyz."""

    timeout = 600
    node: NodeServer

    def nodes(self, kind: str) -> list[NodeServer]:
        return [self.node]

    async def reasons(self) -> dict[str, str]:
        """Why the node is not ready; empty if it is."""
        status, body = await deferToThread(self.node.http, "readyz")
        self.assertEqual(status == 200, json.loads(body)["ready"])
        return json.loads(body).get("reasons", {})

    async def is_ready(self) -> bool:
        return not await self.reasons()

    async def says(self, *words: str, part: str = "inbox", server: str = "redis") -> None:
        """The node says one of these words, before anybody sends a message."""

        async def said() -> bool:
            reason = (await self.reasons()).get(part, "")
            return any(reason.startswith(f"{server}: {word}") for word in words)

        await self.eventually(said)


class RedisReadinessTests(Asking, unittest.TestCase):
    """One node on a Redis of its own; each test leaves both well."""

    async def setUp(self) -> None:
        self.node = node()
        await self.eventually(self.is_ready)
        self.alice = await self.login(self.name("alice"))
        self.to = self.name("bob")
        await self.alice.say(self.to, "before")

    async def send(self, client: WsClient) -> dict[str, Any]:
        """The answer to a message."""
        client.send({"clientMsgId": self.name("c"), "to": self.to, "msg": "hi"})
        while (answer := await client.next())["type"] not in ("accepted", "error"):
            # A Redis that was a replica may have forgotten something: devices are told.
            self.assertEqual(answer["type"], "reset")
        return answer

    async def refused_until(self, word: str, mend: Any) -> None:
        """Named without traffic, refused, and well again by itself once the cause is gone."""
        await self.says(word)
        answer = await self.send(self.alice)
        self.assertEqual((answer["type"], answer["code"]), ("error", "unavailable"), answer)
        self.assertEqual(answer["reason"], "Redis is not available")
        await deferToThread(mend)
        # Nobody is refused for what a look found a moment ago.
        answer = await self.send(self.alice)
        self.assertEqual(answer["type"], "accepted", answer)
        await self.eventually(self.is_ready)

    async def test_full(self) -> None:
        """maxmemory is reached. A hundred refusals are a line or two in the log."""
        self.addCleanup(config, "maxmemory", 0)
        lines = self.lines("a batch failed")
        config("maxmemory", "1mb")
        await self.says("full")
        for _ in range(100):
            self.assertEqual((await self.send(self.alice))["code"], "unavailable")
        self.assertIn(self.lines("a batch failed") - lines, (0, 1, 2))
        await self.refused_until("full", lambda: config("maxmemory", 0))

    def lines(self, words: str) -> int:
        return node().log.read_text().count(words)

    async def test_no_replicas(self) -> None:
        """Fewer replicas than min-replicas-to-write."""
        self.addCleanup(config, "min-replicas-to-write", 0)
        config("min-replicas-to-write", 1)
        await self.refused_until("noreplicas", lambda: config("min-replicas-to-write", 0))

    async def test_cannot_save(self) -> None:
        """stop-writes-on-bgsave-error, and a snapshot that could not be written."""
        dump = server().folder / "dump.rdb"
        self.addCleanup(shutil.rmtree, dump, ignore_errors=True)
        self.addCleanup(config, "save", "")
        dump.unlink(missing_ok=True)
        dump.mkdir()
        config("save", "86400 1000000")
        ask(server(), "BGSAVE")

        def mend() -> None:
            dump.rmdir()
            ask(server(), "SAVE")

        await self.refused_until("misconf", mend)

    async def test_forbidden(self) -> None:
        """Its user may no longer run scripts, nor a command that they need, nor touch their keys."""
        self.addCleanup(give_rights, server())
        for taken, given in (("-evalsha", "+evalsha"), ("-zadd", "+zadd"), ("resetkeys", "~imd:*")):
            ask(server(), "ACL", "SETUSER", "imd", taken)
            await self.says("noperm")
            answer = await self.send(self.alice)
            self.assertEqual((answer["type"], answer["code"]), ("error", "unavailable"), answer)
            ask(server(), "ACL", "SETUSER", "imd", given)
            await self.eventually(self.is_ready)
            self.assertEqual((await self.send(self.alice))["type"], "accepted")

    async def test_busy(self) -> None:
        """Somebody's script does not end."""

        def run_for_long() -> None:
            try:
                ask(server(), "EVAL", "while true do end", 0)
            except (hiredis.ReplyError, OSError):
                pass

        # A busy Redis takes hardly any command: this connection has been made by then.
        other = RawRedis(server().url)
        self.addCleanup(other.close)
        thread = threading.Thread(target=run_for_long, daemon=True)
        thread.start()
        try:
            await self.says("busy")
        finally:
            other("SCRIPT", "KILL")
        await self.eventually(self.is_ready)
        await deferToThread(thread.join, 60)
        self.assertEqual((await self.send(self.alice))["type"], "accepted")

    async def test_replica(self) -> None:
        """It follows another server, and then does not any more."""
        self.addCleanup(ask, server(), "REPLICAOF", "NO", "ONE")
        ask(server(), "REPLICAOF", HOST, free_port())
        await self.says("replica")
        answer = await self.send(self.alice)
        self.assertEqual((answer["type"], answer["code"]), ("error", "unavailable"), answer)
        ask(server(), "REPLICAOF", "NO", "ONE")
        await self.eventually(self.is_ready)
        self.assertEqual((await self.send(self.alice))["type"], "accepted")

    async def test_to_and_fro(self) -> None:
        """A Redis that is a replica every other moment is not well in the moments between."""
        self.addCleanup(ask, server(), "REPLICAOF", "NO", "ONE")
        ends = threading.Event()
        port = free_port()
        turns: list[float] = []
        lines = self.lines("\n")

        turning = RawRedis(server().url)
        self.addCleanup(turning.close)

        def flap() -> None:
            while not ends.wait(0.3):
                turning("REPLICAOF", HOST, port)
                turns.append(time.monotonic())
                ends.wait(0.3)
                turning("REPLICAOF", "NO", "ONE")

        self.addCleanup(ends.set)
        flapping = deferToThread(flap)
        await self.says("replica", "down")

        def unsteady(since: float, until: float) -> bool:
            """Redis has turned between any two looks. A busy machine may leave it alone."""
            marks = [since, *(turn for turn in turns if since < turn < until), until]
            return max(later - earlier for earlier, later in itertools.pairwise(marks)) < 0.9

        judged, began = 0, time.monotonic()
        while judged < 20:
            self.assertLess(time.monotonic() - began, 240, "the machine is too busy to turn Redis")
            asked_at = time.monotonic()
            reasons = await self.reasons()
            # The node may have answered late, and looked again until then.
            if unsteady(asked_at - 3.0, time.monotonic()):
                judged += 1
                self.assertTrue(reasons)
            await pause(0.1)
        ends.set()
        await flapping
        # One a minute for each cause and connection, not one for each change.
        minutes = 1 + int(time.monotonic() - began) // 60
        self.assertLess(self.lines("\n") - lines, 15 * minutes)
        await self.eventually(self.is_ready)


class OtherServersTests(Asking, unittest.TestCase):
    """RabbitMQ and MongoDB."""

    async def begin(self, **sections: dict[str, object]) -> Cluster:
        own = Cluster("ready", sections)
        self.node = own.node()
        self.addCleanup(deferToThread, self.node.kill)
        await deferToThread(self.node.start)
        return own

    async def test_archive_queue_is_full(self) -> None:
        """Others have filled it; nobody has sent a message here since."""
        own = await self.begin(archive={"queue_bytes": 20_000, "consume": "no"})
        broker = await deferToThread(Broker, own.amqp_url)
        self.addCleanup(broker.close)
        broker.channel.confirm_delivery()
        with self.assertRaises(NackError):
            while True:
                broker.channel.basic_publish("", ARCHIVE_QUEUE, bytes(1000))
        await self.says("full", part="archive queue", server="RabbitMQ (imd.archive)")
        broker.channel.queue_purge(ARCHIVE_QUEUE)
        await self.eventually(self.is_ready)
        alice = await self.login(self.name("alice"))
        await alice.say("bob", "after")

    async def test_mongodb_is_away(self) -> None:
        """Messages go on; the node is not ready all the same, and says which part is not."""
        mongo = MongoServer(new_folder())
        self.addCleanup(deferToThread, mongo.kill)
        await deferToThread(mongo.start)
        await self.begin(mongodb={"url": mongo.url})
        await deferToThread(mongo.kill)
        await self.says("down", part="archive", server="MongoDB")

        async def messages_pass() -> bool:
            # Redis may have been slow to answer, on a busy machine.
            return "inbox" not in await self.reasons()

        await self.eventually(messages_pass)
        alice = await self.login(self.name("alice"))
        await alice.say("bob", "meanwhile")
        await deferToThread(mongo.start)
        await self.eventually(self.is_ready)
