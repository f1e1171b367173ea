"""Sync and a real HAProxy: what it holds follows the table, whatever happened to it meanwhile."""

from __future__ import annotations

import shutil

from twisted.trial import unittest

from imd.gateway.haproxy import Folder, wanted
from imd.gateway.nodes import Row
from imd.gateway.runtime import Runtime, RuntimeProblem
from imd.gateway.slots import Slots
from imd.gateway.sync import Outcome, Sync
from imd.gateway.table import serving
from tests.gateway.haproxy import FakeNode, Haproxy, folder
from tests.gateway.support import row, until
from tests.gateway.test_haproxy import USERS, url
from tests.support.servers import HOST

QUIET = Outcome()


class SyncTests(unittest.TestCase):
    """HAProxy begins without any server; nodes n1, n2 and n3 answer."""

    def setUp(self) -> None:
        self.nodes = {name: FakeNode(name) for name in ("n1", "n2", "n3")}
        for node in self.nodes.values():
            node.start()
            self.addCleanup(node.stop)
        self.proxy, self.folder, self.sync = self.a_haproxy()

    def a_haproxy(self) -> tuple[Haproxy, Folder, Sync]:
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        proxy = Haproxy(path)
        self.addCleanup(proxy.kill)
        place = Folder(str(path))
        place.create(f"{HOST}:{proxy.port}", None, wanted([], []))
        proxy.start()
        return proxy, place, Sync(place)

    def rows(self, *names: str, **others: object) -> list[Row]:
        return [self.nodes[name].row(**others) for name in names]

    def run_round(self, rows: list[Row], sync: Sync | None = None) -> Outcome:
        return (sync or self.sync).round(rows, serving(rows))

    def settle(self, rows: list[Row], proxy: Haproxy | None = None) -> None:
        """Rounds until there is nothing to do, and HAProxy sees all of them up."""

        def settled() -> bool:
            return self.run_round(rows) == QUIET

        until(settled, "a round that has nothing to do")
        until(lambda: set((proxy or self.proxy).states().values()) == {"up"}, "all servers are up")

    def at_home(self, *names: str, proxy: Haproxy | None = None) -> None:
        """Everybody gets to their home among these nodes."""
        slots = Slots(names)
        for user in USERS:
            (proxy or self.proxy).leads_home(url(user), slots.home(user) or "")

    def test_nodes_come(self) -> None:
        """One, then three: servers, maps and files follow; then there is nothing left to do."""
        outcome = self.run_round(self.rows("n1"))
        self.assertEqual(outcome.problems, [])
        self.assertEqual(
            outcome.changes, ["first.map written", "haproxy.cfg written", "n1 added", "first.map replaced"]
        )
        self.settle(self.rows("n1"))
        self.at_home("n1")
        self.settle(self.rows("n1", "n2", "n3"))
        self.at_home("n1", "n2", "n3")
        self.assertEqual(self.run_round(self.rows("n3", "n1", "n2")), QUIET)
        text = self.folder.configuration.read_text()
        self.assertEqual(
            [line.split()[1] for line in text.splitlines() if " check addr " in line], ["n1", "n2", "n3"]
        )

    def test_reload(self) -> None:
        """A reload loads what sync has written: everybody stays at home."""
        self.settle(self.rows("n1", "n2"))
        self.proxy.reload()
        self.assertEqual(self.run_round(self.rows("n1", "n2")), QUIET)
        self.at_home("n1", "n2")

    def test_reload_with_old_files(self) -> None:
        """HAProxy was reloaded with files of last week, or with maps of another table: one round mends it."""
        old = {
            path: path.read_text()
            for path in (self.folder.configuration, self.folder.first, self.folder.second)
        }
        self.settle(self.rows("n1", "n2", "n3"))
        for path, text in old.items():
            path.write_text(text)
        self.proxy.reload()
        self.assertEqual(self.proxy.states(), {})
        outcome = self.run_round(self.rows("n1", "n2", "n3"))
        self.assertEqual(outcome.problems, [])
        self.at_home("n1", "n2", "n3")
        self.proxy.runtime.replace_map(self.folder.first, ["n1"] * 1024)
        self.assertEqual(self.run_round(self.rows("n1", "n2", "n3")).changes, ["first.map replaced"])
        self.at_home("n1", "n2", "n3")

    def test_drain(self) -> None:
        """A node that drains gets nobody, its neighbours stay where they are; undone, it is back."""
        self.settle(self.rows("n1", "n2", "n3"))
        draining = self.rows("n1", "n3") + self.rows("n2", draining=True)
        outcome = self.run_round(draining)
        self.assertEqual(outcome.problems, [])
        self.assertEqual(self.run_round(draining), QUIET)
        self.at_home("n1", "n3")
        self.assertNotIn("n2", {self.proxy.get("/ws") for _ in range(6)})
        self.settle(self.rows("n1", "n2", "n3"))
        self.at_home("n1", "n2", "n3")

    def test_node_gone(self) -> None:
        """Out of the table but up in HAProxy's eyes: no slots, and not deleted before it is down."""
        self.settle(self.rows("n1", "n2", "n3"))
        self.assertEqual(self.run_round(self.rows("n1", "n3")).problems, [])
        self.at_home("n1", "n3")
        self.assertEqual(self.run_round(self.rows("n1", "n3")), QUIET)
        self.assertIn("n2", self.proxy.states())
        self.nodes["n2"].stop()
        until(lambda: self.run_round(self.rows("n1", "n3")).changes == ["n2 deleted"], "n2 is deleted")
        self.assertEqual(sorted(self.proxy.states()), ["n1", "n3"])
        self.nodes["n2"].start()
        self.settle(self.rows("n1", "n2", "n3"))
        self.at_home("n1", "n2", "n3")

    def test_moved(self) -> None:
        """A node that comes back at another address is found there; its checks, too."""
        self.settle(self.rows("n1", "n2"))
        other = FakeNode("n2")
        other.start()
        self.addCleanup(other.stop)
        self.nodes["n2"].stop()
        self.nodes["n2"] = other
        outcome = self.run_round(self.rows("n1", "n2"))
        self.assertEqual(outcome.problems, [])
        self.assertIn(f"n2 is at {HOST} port {other.port} now", outcome.changes)
        self.settle(self.rows("n1", "n2"))
        self.at_home("n1", "n2")

    def test_another_kind_of_listener(self) -> None:
        """A node whose listener takes PROXY now, or TLS, is another server for HAProxy."""
        self.settle(self.rows("n1", "n2"))
        rows = self.rows("n1") + self.rows("n2", proxy=True)
        until(lambda: self.run_round(rows) == QUIET, "a round that has nothing to do")
        number = self.proxy.runtime.servers("imd")["n2"].number
        want = self.nodes["n2"].server(proxy=True)
        self.assertEqual(number, want.number)
        self.assertNotEqual(number, self.nodes["n2"].server().number)

    def test_meddled_with(self) -> None:
        """Maintenance, draining and checks that somebody switched: the table has the say."""
        self.settle(self.rows("n1", "n2"))
        ask = self.proxy.runtime._ask
        ask("set server imd/n1 state maint")
        ask("set server imd/n2 state drain")
        ask("disable health imd/n2")
        self.settle(self.rows("n1", "n2"))
        self.at_home("n1", "n2")

    def test_haproxy_gone(self) -> None:
        """No HAProxy: files are written, the problem is told; when it is back there is nothing to do."""
        self.proxy.stop()
        outcome = self.run_round(self.rows("n1", "n2"))
        self.assertEqual(len(outcome.problems), 1)
        self.assertIn("does not answer", outcome.problems[0])
        self.proxy.start()
        self.assertEqual(self.run_round(self.rows("n1", "n2")), QUIET)
        self.at_home("n1", "n2")

    def test_foreign_haproxy(self) -> None:
        """A HAProxy of another configuration: each thing that it does not know is told, nothing breaks."""
        text = self.folder.configuration.read_text().replace(str(self.folder.first), str(self.folder.second))
        self.folder.configuration.write_text(text)
        self.proxy.reload()
        outcome = self.run_round(self.rows("n1"))
        self.assertTrue(any("show map" in problem for problem in outcome.problems), outcome)
        self.folder.configuration.write_text("global\n")
        self.assertTrue(any("marks are gone" in one for one in self.run_round(self.rows("n1")).problems))

    def test_two_haproxies(self) -> None:
        """Each has its own folder and sync; in between they may differ, afterwards they do not."""
        proxy, _, sync = self.a_haproxy()
        self.settle(self.rows("n1", "n2", "n3"))
        self.run_round(self.rows("n1", "n3"), sync)
        self.at_home("n1", "n2", "n3")
        self.at_home("n1", "n3", proxy=proxy)
        self.assertEqual(self.run_round(self.rows("n1", "n2", "n3"), sync).problems, [])
        self.at_home("n1", "n2", "n3", proxy=proxy)

    def test_names_of_hosts(self) -> None:
        """Names are looked up; while that fails the last address counts."""
        found = {"one.example": HOST}

        def find(host: str) -> str:
            if host not in found:
                raise OSError("no such host")
            return found[host]

        sync = Sync(self.folder, find=find)
        port = self.nodes["n1"].port
        rows = [row("n1", websocket=f"one.example:{port}", http=f"one.example:{port}")]
        self.assertEqual(self.run_round(rows, sync).problems, [])
        self.at_home("n1")
        del found["one.example"]
        outcome = self.run_round(rows, sync)
        self.assertEqual((outcome.changes, len(outcome.problems)), ([], 1))
        self.at_home("n1")
        outcome = Sync(self.folder, find=find).round(rows, ["n1"])
        self.assertIn("one.example cannot be looked up", outcome.problems[0])

    def test_long_names(self) -> None:
        """1,024 lines of the longest names do not fit into one command; the map is replaced whole."""
        names = [f"{number}" * 100 for number in range(3)]
        self.nodes = {name: FakeNode(name) for name in names}
        for node in self.nodes.values():
            node.start()
            self.addCleanup(node.stop)
        self.settle(self.rows(*names))
        self.at_home(*names)

    def test_silent_socket(self) -> None:
        """A socket that nobody answers is given up after the deadline."""
        self.proxy.pause()
        self.addCleanup(self.proxy.resume)

        def given_up() -> bool:
            try:
                Runtime(self.folder.socket, 0.2).info()
            except RuntimeProblem as problem:
                return "does not answer" in str(problem)
            return False

        until(given_up, "no answer")
