"""One WebSocket: the user that its URL names."""

from __future__ import annotations

from twisted.trial import unittest

from imd.config.settings import Cluster
from tests.hostile.inprocess import InProcess
from tests.hostile.raw import handshake


class HintTests(unittest.TestCase):
    def hint(self, query: str, routing: str = "gateway") -> str | None:
        connection = InProcess(cluster=Cluster(routing=routing))
        connection.receive(handshake(path=f"/ws{query}"))
        self.assertTrue(connection.written().startswith(b"HTTP/1.1 101 "), query)
        self.addCleanup(connection.lose)
        hint: str | None = connection.protocol.hint
        return hint

    def test_as_haproxy_reads_it(self) -> None:
        """The first one, decoded once; a plus is a plus."""
        for query, hint in (
            ("?user=alice", "alice"),
            ("?a=1&user=%E5%B0%8F%E6%98%8E+1&user=bob", "小明+1"),
            ("?user=a;b=c", "a"),
            ("?user=100%2525", "100%25"),
            ("", None),
            ("?", None),
            ("?user=", None),
            ("?user=%zz", None),
            ("?user=%ff", None),
        ):
            self.assertEqual(self.hint(query), hint, query)

    def test_that_no_user_can_have(self) -> None:
        """Nothing is kept of a name that no user can have, as strangers choose its length."""
        self.assertEqual(self.hint("?user=" + "x" * 128), "x" * 128)
        for name in ("x" * 129, "x" * 10_000, "a%00b"):
            self.assertIsNone(self.hint(f"?user={name}"))

    def test_without_a_gateway(self) -> None:
        self.assertIsNone(self.hint("?user=alice", "search"))
