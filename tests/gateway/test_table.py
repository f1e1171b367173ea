"""The table of nodes in a real Redis: leases, names that are taken, tables that are new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial import unittest

from imd.command.redis_client import RedisClient
from imd.gateway import table
from imd.gateway.nodes import Row, decode
from imd.gateway.table import (
    CURRENT_SECONDS,
    Announced,
    LastTable,
    Reading,
    announce,
    announced,
    leave,
    read,
    reading,
    wish,
)
from imd.store.redis.connection import RedisConnection
from tests.gateway.support import row, until
from tests.support.servers import RedisServer, shared


class TableTests(unittest.TestCase):
    def setUp(self) -> None:
        self.redis = self.client(shared().redis_url())

    def client(self, url: str) -> RedisClient:
        client = RedisClient(url, 10)
        self.addCleanup(client.__exit__)
        return client

    def short_leases(self, milliseconds: int = 500) -> None:
        self.patch(table, "_LEASE_MS", milliseconds)
        self.patch(table, "LEASE_SECONDS", milliseconds / 1000)
        self.patch(table, "_SILENT_MS", milliseconds // 3)

    def announce(self, one: Row) -> Announced:
        return announced(self.redis(*announce(one)))

    def read(self) -> Reading:
        return reading(self.redis(*read()))

    def test_announced(self) -> None:
        """Rows are read as they were written, by everybody; the first reply has the node itself."""
        one, two = row("n1"), row("n2", 9001, draining=True)
        self.assertEqual(self.announce(one).reading.rows, {"n1": one})
        heard = self.announce(two)
        self.assertEqual((heard.taken, heard.wish), (False, ""))
        self.assertEqual(heard.reading.rows, {"n1": one, "n2": two})
        self.assertEqual(self.read().rows, {"n1": one, "n2": two})

    def test_empty(self) -> None:
        self.assertEqual(self.read(), Reading(0.0, {}))
        self.assertFalse(self.read().stands)

    def test_new_table_does_not_stand(self) -> None:
        """Until it is a lease old; and again after it was lost, or was empty for a while."""
        self.short_leases()
        for lose in (
            lambda: None,
            lambda: self.redis("FLUSHDB"),
            lambda: until(lambda: not self.read().rows, "the leases' end"),
        ):
            lose()
            self.assertFalse(self.announce(row()).reading.stands)
            until(lambda: self.announce(row()).reading.stands, "a table that stands")

    def test_leases(self) -> None:
        """A node that says nothing is out; the others' table stands on."""
        self.short_leases()
        self.announce(row("n1"))
        self.announce(row("n2"))

        def alone() -> bool:
            found = self.announce(row("n1")).reading
            return list(found.rows) == ["n1"] and found.stands

        until(alone, "the end of n2's lease, and a table that stands")
        self.assertEqual(self.redis("HLEN", table.KEY), 2)  # n1, and when the table began

    def test_taken(self) -> None:
        """A second live node of a name changes nothing; it gets the name when the first is gone."""
        first, second = row(bus="n1.a"), row(bus="n1.b", port=9001)
        self.announce(first)
        heard = self.announce(second)
        self.assertTrue(heard.taken)
        self.assertEqual(heard.reading.rows, {"n1": first})
        self.assertFalse(self.announce(first).taken)
        self.assertEqual(self.redis(*leave(second)), 0)
        self.short_leases()
        until(lambda: not self.announce(second).taken, "the name")
        self.assertEqual(self.announce(second).reading.rows, {"n1": second})

    def test_taken_over(self) -> None:
        """After kill -9 the same node is back before its lease ends: nobody else can be at its address."""
        self.patch(table, "_LEASE_MS", 60_000)
        self.patch(table, "_SILENT_MS", 50_000)
        self.announce(row(bus="n1.a"))
        self.assertTrue(self.announce(row(bus="n1.b")).taken)
        self.patch(table, "_SILENT_MS", 200)
        until(lambda: not self.announce(row(bus="n1.b")).taken, "the name")
        self.patch(table, "_SILENT_MS", 50_000)
        self.assertTrue(self.announce(row(bus="n1.a")).taken)

    def test_leave(self) -> None:
        self.announce(row("n1"))
        self.announce(row("n2"))
        self.assertEqual(self.redis(*leave(row("n1"))), 1)
        self.assertEqual(list(self.read().rows), ["n2"])
        self.redis(*leave(row("n2")))
        self.assertEqual(self.redis("KEYS", "*"), [])

    def test_wishes(self) -> None:
        """A wish reaches this run of the node, and ends with it."""
        self.assertIsNone(self.redis(*wish("n1", "drain")))
        self.announce(row(bus="n1.a"))
        self.assertEqual(self.redis(*wish("n1", "drain")), b"n1.a")
        self.assertEqual(self.announce(row(bus="n1.a")).wish, "drain")
        self.redis(*wish("n1", "undo"))
        self.assertEqual(self.announce(row(bus="n1.a")).wish, "undo")
        self.redis(*wish("n1", "drain"))
        self.short_leases()
        until(lambda: not (heard := self.announce(row(bus="n1.b"))).taken and heard.wish == "", "a new run")
        self.assertEqual(self.redis("HLEN", f"{table.KEY}:wishes"), 0)

    def test_broken_row(self) -> None:
        """One row that cannot be read costs the others nothing."""
        self.announce(row("n1"))
        now_ms = int(self.redis("TIME")[0]) * 1000
        self.redis("HSET", table.KEY, "n2", f"{now_ms} n2.1 no row")
        self.redis("HSET", table.KEY, "n3", "nothing")
        found = self.read()
        self.assertEqual((list(found.rows), found.broken), (["n1"], ("n2",)))
        self.assertFalse(self.announce(row("n3")).taken)

    def test_not_a_reply(self) -> None:
        for reply in (None, b"OK", []):
            self.assertRaises(ValueError, reading, reply)

    def test_another_run_of_redis(self) -> None:
        """After a restart the table is new, whatever it holds; a full Redis takes rows all the same."""
        server = RedisServer(Path.cwd() / self.mktemp())
        self.addCleanup(server.kill)
        server.start()
        self.short_leases(2000)
        self.redis = self.client(server.url)
        until(lambda: self.announce(row()).reading.stands, "a table that stands")
        server.restart()
        self.redis = self.client(server.url)
        self.assertFalse(self.read().stands)
        self.redis("CONFIG", "SET", "maxmemory", "1")
        heard = self.announce(row())
        self.assertEqual((list(heard.reading.rows), heard.reading.stands), (["n1"], False))
        until(lambda: self.announce(row()).reading.stands, "a table that stands")

    async def test_from_a_node(self) -> None:
        """The same words through a node's connection."""
        connection: Any = RedisConnection(reactor, shared().redis_url(), "test", 10)
        await connection.start()
        self.addCleanup(connection.stop)
        heard = announced(await connection.command(*announce(row())))
        self.assertEqual(heard.reading.rows, {"n1": row()})
        self.assertEqual(reading(await connection.command(*read())).rows, {"n1": row()})
        self.assertEqual(await connection.command(*leave(row())), 1)


class LastTableTests(unittest.TestCase):
    def test_keeps_the_last(self) -> None:
        """Neither an empty nor a new table takes the place of one that stands."""
        last = LastTable()
        self.assertFalse(last.take(Reading(9.9, {"n1": row()}), 0))
        self.assertEqual((dict(last.rows), last.unchanged_seconds(5)), ({}, 0.0))
        self.assertTrue(last.take(Reading(10.0, {"n1": row()}), 5))
        for lost in (Reading(0, {}), Reading(99, {}), Reading(1, {"n2": row("n2")})):
            self.assertFalse(last.take(lost, 6))
            self.assertEqual(list(last.rows), ["n1"])

    def test_how_long_unchanged(self) -> None:
        """Other numbers of connections are no change; a node more, or one that drains, is."""
        last = LastTable()
        rows = {"n1": row("n1"), "n2": row("n2")}
        last.take(Reading(10, rows), 100)
        last.take(Reading(11, {**rows, "n2": row("n2", connections=9)}), 101)
        self.assertEqual(last.unchanged_seconds(103), 3)
        last.take(Reading(12, {**rows, "n2": row("n2", draining=True)}), 102)
        self.assertEqual((last.members, last.unchanged_seconds(103)), (frozenset({"n1"}), 1))
        last.take(Reading(13, {"n1": row("n1", bus="another run")}), 104)
        self.assertEqual((last.members, last.unchanged_seconds(105)), (frozenset({"n1"}), 1))
        self.assertEqual(last.changes, 3)

    def test_not_known_at_present(self) -> None:
        """It is 0 while readings do not stand, or do not come, and then what it would have been."""
        last = LastTable()
        for second in range(5):
            last.take(Reading(10, {"n1": row()}), second)
        self.assertEqual(last.unchanged_seconds(4 + CURRENT_SECONDS), 4 + CURRENT_SECONDS)
        self.assertEqual(last.unchanged_seconds(4.1 + CURRENT_SECONDS), 0)
        last.take(Reading(10, {"n1": row()}), 20)
        last.take(Reading(1, {"n1": row()}), 21)
        self.assertEqual(last.unchanged_seconds(21), 0)
        last.take(Reading(10, {"n1": row()}), 30)
        self.assertEqual((last.unchanged_seconds(30), last.changes), (30, 1))

    def test_all_drain(self) -> None:
        """Somebody has to be home."""
        last = LastTable()
        last.take(Reading(10, {"n1": row("n1", draining=True)}), 0)
        self.assertEqual(last.members, frozenset({"n1"}))

    def test_not_routable(self) -> None:
        """A node that others cannot reach, or whose name HAProxy does not take, is known but has no slots."""
        last = LastTable()
        rows = [row("n1"), row("n2", websocket=""), row("n3", http=""), row("n@4")]
        last.take(Reading(10, {one.name: one for one in rows}), 0)
        self.assertEqual((len(last.rows), last.members), (4, frozenset({"n1"})))
        for one in rows:
            self.assertEqual(decode(one.encode()), one)
