"""Nodes that know of one another, and the answers of each to load balancers: on real servers."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from twisted.trial import unittest

from imd.command import nodes
from imd.command.output import Output
from imd.command.table_reader import TableReader
from imd.gateway.slots import Slots
from imd.gateway.table import BEAT_SECONDS, LEASE_SECONDS
from tests.gateway.support import ProxyThread, until
from tests.hostile.raw import RawClient
from tests.protocol.clusters import Cluster
from tests.support.nodes import NodeServer
from tests.support.servers import HOST, RedisServer, free_port

GATEWAY = {"cluster": {"routing": "gateway"}}
HEALTH = ("healthz", "readyz", "serving")
# Longer than a node takes to say 503 for its own Redis.
HOLD_SECONDS = 8.0


class MembershipCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = Cluster("m")
        # A Redis that does not answer for some seconds is not away.
        self.patch(TableReader.__init__, "__defaults__", (60.0,))

    def start(self, ini: Any = None, *, ready: bool = True, name: str = "") -> NodeServer:
        """One more node of the cluster; without `ready` it need not become so."""
        node = self.cluster.node(ini)
        node.name = name or node.name
        if not ready:
            node.answers = lambda: self.is_up(node)  # type: ignore[method-assign]
        self.addCleanup(node.kill)
        node.start()
        return node

    @staticmethod
    def is_up(node: NodeServer) -> bool:
        try:
            return node.http("healthz")[0] == 200
        except OSError:
            return False

    def states(self, node: NodeServer) -> tuple[int, ...]:
        """The answers of /healthz, /readyz and /serving."""
        return tuple(node.http(path)[0] for path in HEALTH)

    def reason(self, node: NodeServer) -> str:
        """Why /serving says 503; empty if it says 200."""
        status, body = node.http("serving")
        answer = json.loads(body)
        self.assertEqual(status == 200, answer["serving"])
        return str(answer.get("reason", ""))

    def table(self) -> dict[str, Any]:
        """As `imd nodes --json` shows it."""
        parser = argparse.ArgumentParser()
        nodes.add_arguments(parser)
        path = Path(self.mktemp())
        path.write_text(f"[node]\nbackend = cluster\n[redis]\nurl = {self.cluster.ini['redis']['url']}\n")
        said = io.StringIO()
        nodes.run(parser.parse_args([str(path)]), Output(True, said))
        found: dict[str, Any] = json.loads(said.getvalue())
        return found

    def new_visitor(self, node: NodeServer) -> str:
        """The name that a node gives a new visitor."""
        with RawClient(node.port) as client:
            client.open()
            client.say({"isConnect": True, "isVisitor": True})
            return str(client.next_text()["userId"])

    def rows(self) -> dict[str, Any]:
        return {row["name"]: row for row in self.table()["nodes"]}


class TableTests(MembershipCase):
    def test_nodes(self) -> None:
        """Each node is in the table as it is, and away as soon as it stops in order."""
        one = self.start()
        two = self.start({"cluster": {"advertise": "chat.example:443", "advertise_http": "[2001:db8::1]:80"}})
        until(lambda: [row["draining"] for row in self.rows().values()] == [False, False], "both serve")
        rows = self.rows()
        self.assertEqual(set(rows), {one.name, two.name})
        self.assertEqual(rows[one.name]["websocket"], f"{HOST}:{one.port}")
        self.assertEqual(rows[one.name]["http"], f"{HOST}:{one.http_port}")
        self.assertEqual(rows[two.name]["websocket"], "chat.example:443")
        self.assertEqual(rows[two.name]["http"], "[2001:db8::1]:80")
        self.assertEqual(sum(row["slots"] for row in rows.values()), 1024)
        with RawClient(one.port).login():
            until(lambda: self.rows()[one.name]["connections"] == 1, "the client is counted")
        until(lambda: self.table()["stands"], "the table stands")
        for node in (one, two):
            until(lambda node=node: node.metric("imd_home_slots") == rows[node.name]["slots"], "homes")
        slots = Slots(rows)
        for node in (one, two):
            self.assertEqual({slots.home(self.new_visitor(node)) for _ in range(8)}, {node.name})
        self.assertEqual(one.metric('imd_nodes{state="serving"}'), 2)
        self.assertGreaterEqual(one.metric("imd_nodes_table_age_seconds"), LEASE_SECONDS)
        two.stop()
        self.assertEqual(set(self.rows()), {one.name})
        until(lambda: one.metric("imd_home_slots") == 1024, "all are at home here")

    def test_flushall(self) -> None:
        """The row is back with the next announcement; homes stay as they are meanwhile."""
        one = self.start()
        until(lambda: one.metric("imd_home_slots") == 1024, "the table stands")
        self.cluster.redis("FLUSHDB")
        until(lambda: one.name in self.rows(), "the row is back")
        self.assertFalse(self.table()["stands"])
        self.assertEqual(one.metric("imd_home_slots"), 1024)
        self.assertEqual(one.http("serving")[0], 200)
        until(lambda: self.table()["stands"], "the table stands again")

    def test_redis_away(self) -> None:
        """Announcements fail and are counted; they go on when Redis is back."""
        redis = RedisServer(Path(self.mktemp()).absolute())
        self.addCleanup(redis.kill)
        redis.start()
        self.cluster.ini["redis"] = {"url": redis.url}
        one = self.start()
        until(lambda: one.metric("imd_home_slots") == 1024, "the table stands")
        redis.kill()
        until(lambda: one.metric("imd_nodes_announce_failures_total") > 0, "failures are counted")
        self.assertEqual(one.metric("imd_home_slots"), 1024)
        redis.start()
        until(lambda: one.name in self.rows(), "the row is back")


class NameTests(MembershipCase):
    """Behind a gateway a name is one live node's."""

    def test_second_of_a_name(self) -> None:
        """It does not listen, and says why, until the first is dead and its lease has ended."""
        one = self.start(GATEWAY)
        twin = self.start(GATEWAY, ready=False, name=one.name)
        until(lambda: "name" in json.loads(twin.http("readyz")[1])["reasons"], "it says why")
        self.assertEqual(self.states(twin), (200, 503, 503))
        self.assertIn("name", self.reason(twin))
        self.assertRaises(OSError, RawClient, twin.port)
        self.assertEqual(self.states(one), (200, 200, 200))
        one.kill()
        until(lambda: self.states(twin) == (200, 200, 200), "the twin serves")
        self.assertEqual(self.rows()[one.name]["websocket"], f"{HOST}:{twin.port}")

    def test_back_at_the_same_address(self) -> None:
        """A node that was killed has its name again before the old lease ends."""
        one = self.start(GATEWAY)
        bus = self.rows()[one.name]["bus"]
        one.kill()
        one.start()
        self.assertEqual(self.states(one), (200, 200, 200))
        self.assertNotEqual(self.rows()[one.name]["bus"], bus)

    def test_hung_past_its_lease(self) -> None:
        """A node that stood still while another took its name does not serve until that one is gone."""
        one = self.start(GATEWAY)
        twin = self.start(GATEWAY, ready=False, name=one.name)
        until(lambda: "name" in self.reason(twin), "the name is taken")
        one.pause()
        until(lambda: self.states(twin) == (200, 200, 200), "the twin serves")
        one.resume()
        until(lambda: "name" in self.reason(one), "the first does not serve")
        self.assertEqual(self.states(one), (200, 503, 503))
        twin.stop()
        until(lambda: self.states(one) == (200, 200, 200), "the first serves again")

    def test_without_a_gateway(self) -> None:
        """A name twice does no harm there: addresses on the bus differ all the same."""
        one = self.start()
        twin = self.start(name=one.name)
        self.assertEqual(self.states(one), (200, 200, 200))
        self.assertEqual(self.states(twin), (200, 200, 200))
        until(lambda: "another live node is called" in twin.log.read_text(), "a line in the log")


class ServingTests(MembershipCase):
    def test_embedded(self) -> None:
        node = NodeServer(Path(self.mktemp()).absolute(), {})
        self.addCleanup(node.kill)
        node.start()
        self.assertEqual(self.states(node), (200, 200, 200))
        self.assertEqual(node.http("serving"), (200, '{"serving":true}'))

    def test_without_servers(self) -> None:
        """A node that cannot listen yet does not serve; with a level in Redis it needs no MongoDB to."""
        nowhere = f"redis://{HOST}:{free_port()}/0"
        starting = self.start({"redis": {"url": nowhere}}, ready=False)
        self.assertEqual(self.states(starting), (200, 503, 503))
        self.assertEqual(self.reason(starting), "not listening")
        self.cluster.redis("SET", "imd:level", 2)
        without = self.start({"mongodb": {"url": f"mongodb://{HOST}:{free_port()}/imd"}}, ready=False)
        until(lambda: self.states(without) == (200, 503, 200), "it serves without MongoDB")

    def test_rabbitmq_away(self) -> None:
        proxy = ProxyThread(int(self.cluster.amqp_url.rsplit(":", 1)[1].partition("/")[0]))
        self.addCleanup(proxy.end)
        vhost = self.cluster.amqp_url.rpartition("/")[2]
        one = self.start({"rabbitmq": {"url": f"amqp://guest:guest@{HOST}:{proxy.port}/{vhost}"}})
        proxy.cut()
        until(lambda: self.states(one) == (200, 503, 200), "RabbitMQ is away")
        proxy.mend()
        until(lambda: self.states(one) == (200, 200, 200), "RabbitMQ is back")

    def redis_of_one(self) -> tuple[RedisServer, ProxyThread, list[NodeServer]]:
        """Three nodes that know of one another. The first has a way of its own to Redis."""
        redis = RedisServer(Path(self.mktemp()).absolute())
        self.addCleanup(redis.kill)
        redis.start()
        self.cluster.ini["redis"] = {"url": redis.url, "timeout_seconds": 2}
        proxy = ProxyThread(redis.port)
        self.addCleanup(proxy.end)
        first = self.start({"redis": {"url": f"redis://{HOST}:{proxy.port}/0"}})
        three = [first, self.start(), self.start()]
        for node in three:
            until(lambda node=node: node.metric('imd_nodes{state="serving"}') == 3, "all three are known")
            until(lambda node=node: 0 < node.metric("imd_home_slots") < 1024, "and the table stands")
        return redis, proxy, three

    def test_redis(self) -> None:
        """Away for one node, it sends clients to the others; away for all, all keep theirs."""
        redis, proxy, three = self.redis_of_one()
        for fault in (proxy.cut, proxy.swallow):
            fault()
            until(lambda: self.states(three[0]) == (200, 503, 503), "it sends clients away")
            # On a busy machine the word of the others may be too old for a moment.
            until(lambda: "Redis" in self.reason(three[0]), "it says why")
            for node in three[1:]:
                self.assertEqual(node.http("serving")[0], 200)
            proxy.mend()
            until(lambda: self.states(three[0])[2] == 200, "it serves again")
            until(lambda: self.states(three[0])[1] == 200, "it is ready again")
        redis.kill()
        for node in three:
            until(lambda node=node: self.states(node)[1] == 503, "Redis is away")
        end = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < end:
            for node in three:
                self.assertEqual(self.states(node), (200, 503, 200))
            time.sleep(BEAT_SECONDS / 4)

    def test_draining(self) -> None:
        """A node that is told to stop says so first, and goes on serving newcomers for `drain_seconds`."""
        other = self.start()
        one = self.start({"node": {"drain_seconds": 12}})
        process = one.process
        assert process is not None
        os.kill(one.pid, signal.SIGTERM)
        until(lambda: self.states(one) == (200, 503, 503), "it says that it drains")
        self.assertEqual(self.reason(one), "draining")
        self.assertEqual(json.loads(one.http("readyz")[1])["reasons"], {"listener": "draining"})
        with RawClient(one.port).login() as client:
            until(lambda: self.rows()[one.name]["draining"], "the table says so")
            self.assertEqual(self.rows()[other.name]["slots"], 1024)
            self.assertEqual(client.next_text()["type"], "leaving")
        self.assertEqual(process.wait(60), -signal.SIGTERM)
        self.assertEqual(set(self.rows()), {other.name})
