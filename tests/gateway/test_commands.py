"""`imd gateway`, `imd nodes` and `imd drain`, on a real Redis and a real HAProxy."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.trial import unittest

from imd.command import drain, gateway, nodes
from imd.command.output import Output
from imd.command.redis_client import RedisClient
from imd.command.table_reader import TableReader
from imd.config.settings import Redis, Settings
from imd.gateway import table
from imd.gateway.haproxy import Folder
from imd.gateway.nodes import Row
from imd.gateway.runtime import RuntimeProblem
from imd.gateway.slots import Slots
from imd.gateway.sync import Sync
from imd.gateway.table import announce, announced, read, reading
from imd.protocol.errors import ConfigurationError
from tests.command import write_ini
from tests.gateway.haproxy import FakeNode, Haproxy, folder
from tests.gateway.support import row, until
from tests.gateway.test_haproxy import USERS, url
from tests.support.servers import HOST, RedisServer, end_group, shared, spawn


class Announcer:
    """Announces rows again and again, as nodes would; a wish to drain is followed."""

    def __init__(self, redis_url: str) -> None:
        self.rows: dict[str, Row] = {}
        self._redis = RedisClient(redis_url, 60)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for name, one in list(self.rows.items()):
                heard = announced(self._redis(*announce(one)))
                if heard.wish and name in self.rows:
                    fields = {field: getattr(one, field) for field in one.__struct_fields__}
                    self.rows[name] = Row(**{**fields, "draining": heard.wish == "drain"})

    def end(self) -> None:
        self._ended.set()
        self._thread.join(60)


class CommandTests(unittest.TestCase):
    def setUp(self) -> None:
        # Tables stand soon; rows stay for long, as a busy machine may keep the announcer waiting.
        self.patch(table, "_LEASE_MS", 30_000)
        self.patch(table, "LEASE_SECONDS", 0.5)
        # Nor is Redis away because it does not answer for some seconds.
        self.patch(TableReader.__init__, "__defaults__", (60.0,))
        self.use(shared().redis_url())
        self.path = folder()
        self.addCleanup(shutil.rmtree, self.path)

    def use(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.ini = write_ini(
            Path(self.mktemp()) / "node.ini", node={"backend": "cluster"}, redis={"url": redis_url}
        )

    def announcer(self, *rows: Row) -> Announcer:
        made = Announcer(self.redis_url)
        self.addCleanup(made.end)
        made.rows = {one.name: one for one in rows}
        with RedisClient(self.redis_url, 60) as redis:
            # A table that stands may have the first ones alone, when the thread was kept waiting.
            until(lambda: made.rows.keys() <= reading(redis(*read())).rows.keys(), "all are announced")
        return made

    def standing(self) -> TableReader:
        reader = TableReader(Settings(redis=Redis(url=self.redis_url)))
        self.addCleanup(reader.close)
        until(lambda: reader.read().stands, "a table that stands")
        return reader

    def command(self, module: Any, *words: object, as_json: bool = False) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        said = io.StringIO()
        code = module.run(parser.parse_args([str(word) for word in words]), Output(as_json, said))
        return code, said.getvalue()

    # imd nodes

    def test_nodes(self) -> None:
        self.announcer(row("n1", connections=7), row("n2", tls=True, draining=True))
        self.standing()
        code, said = self.command(nodes, self.ini)
        self.assertEqual(code, 0)
        self.assertRegex(said, r"n1 +127.0.0.1:9000 .* 7 +1024 +serving")
        self.assertRegex(said, r"n2 +127.0.0.1:9000 TLS .* 3 +0 +draining")
        code, said = self.command(nodes, self.ini, as_json=True)
        found = json.loads(said)
        self.assertEqual((code, found["stands"], found["broken"]), (0, True, []))
        self.assertEqual([(one["name"], one["slots"]) for one in found["nodes"]], [("n1", 1024), ("n2", 0)])
        self.assertEqual(found["nodes"][0]["websocket"], "127.0.0.1:9000")

    def test_no_nodes(self) -> None:
        code, said = self.command(nodes, self.ini)
        self.assertEqual((code, said), (1, "no node has announced itself in Redis\n"))

    def test_no_redis(self) -> None:
        self.use("redis://127.0.0.1:1/0")
        self.assertRaisesRegex(ConfigurationError, "does not answer", self.command, nodes, self.ini)
        for words in (("config", "--bind", ":80", "--out", self.path, self.ini),):
            self.assertRaisesRegex(ConfigurationError, "does not answer", self.command, gateway, *words)

    def test_embedded(self) -> None:
        alone = write_ini(Path(self.mktemp()) / "node.ini", node={"backend": "embedded"})
        self.assertRaisesRegex(ConfigurationError, "embedded", self.command, nodes, alone)

    # imd drain

    def test_drain(self) -> None:
        self.announcer(row("n1"), row("n2"))
        self.standing()
        self.assertEqual(self.command(drain, self.ini, "n2"), (0, "n2 is draining\n"))
        self.assertEqual(self.command(drain, self.ini, "n2", "--undo"), (0, "n2 is serving\n"))
        self.assertRaisesRegex(ConfigurationError, "n1, n2", self.command, drain, self.ini, "n3")

    def test_drain_not_heard(self) -> None:
        redis = RedisClient(self.redis_url, 10)
        self.addCleanup(redis.__exit__)
        redis(*announce(row("n1")))
        code, said = self.command(drain, self.ini, "n1", "--seconds", 0.1)
        self.assertEqual(code, 1)
        self.assertIn("has not said", said)

    # imd gateway

    def nodes(self, *names: str) -> dict[str, FakeNode]:
        made = {name: FakeNode(name) for name in names}
        for node in made.values():
            node.start()
            self.addCleanup(node.stop)
        return made

    def haproxy(self) -> Haproxy:
        proxy = Haproxy(self.path)
        self.addCleanup(proxy.kill)
        return proxy

    def at_home(self, proxy: Haproxy, *names: str) -> None:
        slots = Slots(names)
        for user in USERS:
            proxy.leads_home(url(user), slots.home(user) or "")

    def test_config_and_sync(self) -> None:
        """The table as it is becomes a HAProxy that runs; a node more comes with the next sync."""
        there = self.nodes("n1", "n2", "n3")
        announcer = self.announcer(there["n1"].row(), there["n2"].row())
        proxy = self.haproxy()
        words = ("config", "--bind", f"{HOST}:{proxy.port}", "--out", self.path, self.ini)
        code, said = self.command(gateway, *words)
        self.assertEqual(code, 0, said)
        self.assertIn("2 servers (n1, n2)", said)
        proxy.start()
        self.at_home(proxy, "n1", "n2")
        sync = ("sync", "--out", self.path, "--once", self.ini)
        self.assertEqual(self.command(gateway, *sync), (0, ""))
        announcer.rows["n3"] = there["n3"].row()
        until(lambda: "n3 added" in self.command(gateway, *sync)[1], "n3 is added")
        self.at_home(proxy, "n1", "n2", "n3")
        proxy.stop()
        code, said = self.command(gateway, *sync, as_json=True)
        self.assertEqual(code, 1)
        self.assertIn("does not answer", json.loads(said)["problems"][0])

    def test_config_without_nodes(self) -> None:
        """It waits; then it writes a HAProxy without servers, but never over one that has some."""
        self.patch(TableReader.wait_for_table, "__defaults__", (0.0,))
        words = ("config", "--bind", f"{HOST}:8000", "--out", self.path, self.ini)
        code, said = self.command(gateway, *words)
        self.assertEqual(code, 1)
        self.assertIn("no servers until imd gateway sync", said)
        before = Folder(str(self.path)).configuration.read_text()
        self.assertRaisesRegex(ConfigurationError, "stay as they are", self.command, gateway, *words)
        self.assertEqual(Folder(str(self.path)).configuration.read_text(), before)
        code, said = self.command(gateway, "sync", "--once", "--out", self.path, self.ini)
        self.assertEqual((code, said), (1, "problem: no node has announced itself in Redis\n"))

    def test_sync_without_config(self) -> None:
        words = ("sync", "--once", "--out", self.path, self.ini)
        self.assertRaisesRegex(
            ConfigurationError, "imd gateway config writes it", self.command, gateway, *words
        )

    def test_table_lost(self) -> None:
        """Redis forgets, is away, is another: the last table stays until a new one stands."""
        server = RedisServer(Path.cwd() / self.mktemp(), appendonly=False)
        self.addCleanup(server.kill)
        server.start()
        self.use(server.url)
        there = self.nodes("n1", "n2")
        announcer = self.announcer(*(node.row() for node in there.values()))
        reader = self.standing()
        proxy = self.haproxy()
        self.command(gateway, "config", "--bind", f"{HOST}:{proxy.port}", "--out", self.path, self.ini)
        proxy.start()
        said = io.StringIO()
        keeper = gateway.Keeper(reader, Sync(Folder(str(self.path))), Output(False, said))
        keeper.round()
        self.at_home(proxy, "n1", "n2")
        announcer.rows.pop("n2")
        self.patch(table, "LEASE_SECONDS", 600.0)
        reader.run(("FLUSHALL",))
        # n2 announces itself no more, and the table is new: nothing moves.
        until(lambda: list(reader.read().rows) == ["n1"], "a table with n1 alone")
        keeper.round()
        self.at_home(proxy, "n1", "n2")
        self.patch(table, "LEASE_SECONDS", 0.5)
        until(lambda: reader.read().stands, "a table that stands")
        keeper.round()
        self.at_home(proxy, "n1")
        announcer.end()
        server.stop()
        keeper.round()
        keeper.round()
        self.at_home(proxy, "n1")
        told = said.getvalue()
        self.assertIn("redis does not answer", told)
        keeper.round()
        self.assertEqual(said.getvalue(), told)
        server.start()
        self.announcer(*(node.row() for node in there.values()))
        held = Folder(str(self.path)).first

        def both() -> bool:
            keeper.round()
            return set(proxy.runtime.map(held).values()) == {"n1", "n2"}

        until(both, "slots for both")
        until(lambda: set(proxy.states().values()) == {"up"}, "both are up")
        self.assertIn("all is well again", said.getvalue()[len(told) :])
        self.at_home(proxy, "n1", "n2")

    def test_sync_as_a_process(self) -> None:
        """It follows the table by itself, outlives a killed HAProxy, and ends when it is told to."""
        there = self.nodes("n1", "n2")
        # A process of its own has the real lease: a table that is old enough from the beginning.
        redis = RedisClient(self.redis_url, 10)
        self.addCleanup(redis.__exit__)
        announcer = self.announcer(there["n1"].row())
        self.standing()
        proxy = self.haproxy()
        self.command(gateway, "config", "--bind", f"{HOST}:{proxy.port}", "--out", self.path, self.ini)
        proxy.start()
        born = redis("HGET", table.KEY, "").decode().split()
        redis("HSET", table.KEY, "", f"{born[0]} {int(born[1]) - 60_000}")
        program = (
            "import argparse, sys; from imd.command import gateway; from imd.command.output import Output; "
            "p = argparse.ArgumentParser(); gateway.add_arguments(p); "
            "gateway.run(p.parse_args(sys.argv[1:]), Output())"
        )
        words = ["sync", "--every", "0.1", "--out", self.path, self.ini]
        process = spawn([sys.executable, "-c", program, *words], self.path / "sync.log")
        self.addCleanup(end_group, process, signal.SIGKILL, 10)
        held = Folder(str(self.path)).first

        def shared_out() -> set[str]:
            try:
                return set(proxy.runtime.map(held).values())
            except RuntimeProblem:
                return set()

        announcer.rows["n2"] = there["n2"].row()
        until(lambda: shared_out() == {"n1", "n2"}, "slots for both")
        proxy.kill()
        announcer.rows["n1"] = there["n1"].row(draining=True)
        until(lambda: "n1" not in held.read_text(), "the files without n1's slots")
        proxy.start()
        until(lambda: shared_out() == {"n2"}, "HAProxy with the same")
        process.terminate()
        self.assertEqual(process.wait(60), -signal.SIGTERM)
        log = (self.path / "sync.log").read_text()
        self.assertIn("does not answer", log)
        self.assertLess(len(log.splitlines()), 20, log)
