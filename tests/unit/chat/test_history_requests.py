"""Pages of history that a connection asks for."""

from __future__ import annotations

from typing import Any

from imd.contracts.archive import History
from imd.protocol.errors import Unavailable
from tests.unit.chat.support import ConnectionTestCase


class HistoryRequestsTests(ConnectionTestCase):
    def test_large_messages(self) -> None:
        """A page has so many bytes at most: its newest messages; one that has more comes alone."""
        client = self.connected()
        for sizes, expected in (([700_000, 500_000, 500_000], 2), ([10, 2_000_000], 1), ([10, 10], 2)):
            client.send(type="history", with_="bob")
            bodies = [b'{"id":"%d","msg":"%b"}' % (n, b"x" * size) for n, size in enumerate(sizes)]
            self.archive.asked[-1][1].callback(History(bodies, more=False))
            [page] = client.take()
            ids = [message["id"] for message in page["messages"]]
            self.assertEqual(ids, [str(n) for n in range(len(sizes))][-expected:])
            self.assertEqual(page["more"], expected < len(sizes))

    def test_page(self) -> None:
        """A page of one's own conversation, with the request's `ref`."""
        client = self.connected()
        client.send(type="history", ref="h1", with_="bob", before="1f", limit=2)
        [(query, page)] = self.archive.asked
        self.assertEqual((query.viewer, query.before, query.limit), ("alice", "1f", 2))
        page.callback(History([b'{"id":"1"}', b'{"id":"2"}'], more=True))
        expected = {"type": "history", "ref": "h1", "messages": [{"id": "1"}, {"id": "2"}], "more": True}
        self.assertEqual(client.take(), [expected])

    def test_scope(self) -> None:
        """Which conversation is asked for: of two, of a list in any order, of all; always one's own."""
        client = self.connected()
        wanted: list[dict[str, Any]] = [
            {"with_": "bob"}, {"group": ["bob"]}, {"group": ["bob", "carol"]},
            {"group": ["carol", "alice", "bob", "bob"]}, {"all": True},
        ]  # fmt: skip
        for fields in wanted:
            client.send(type="history", **fields)
            self.archive.asked[-1][1].callback(History())
        ids = [query.conversation for query, _ in self.archive.asked]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(ids[2], ids[3])
        self.assertEqual((len(set(ids)), ids[4]), (3, None))

    def test_refused(self) -> None:
        """A request that asks for nothing, or for too much, is refused with its `ref`."""
        client = self.connected()
        client.send(type="history", ref="h1")
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["ref"]), ("invalid_message", "h1"))

    def test_before_nothing(self) -> None:
        """An empty `before`, and one that is null, is none."""
        client = self.connected()
        for before in ("", None):
            client.send(type="history", all=True, before=before)
        self.assertEqual([query.before for query, _ in self.archive.asked], [None, None])

    def test_down(self) -> None:
        """While the archive is down history is unavailable."""
        client = self.connected()
        client.send(type="history", ref="h1", all=True)
        self.archive.asked[0][1].errback(Unavailable("mongodb is down"))
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["ref"], frame["temporary"]), ("unavailable", "h1", True))

    def test_too_many_at_once(self) -> None:
        """A few requests may be under way; more are refused until one is answered."""
        client = self.connected()
        for _ in range(5):
            client.send(type="history", all=True)
        self.assert_error(client, "rate_limited")
        self.assertEqual(len(self.archive.asked), 4)
        self.archive.asked[0][1].callback(History())
        client.take()
        client.send(type="history", all=True)
        self.assertEqual(len(self.archive.asked), 5)

    def test_gone(self) -> None:
        """An answer to a client that has gone goes nowhere, nor does a failure."""
        client = self.connected()
        for _ in range(2):
            client.send(type="history", all=True)
        client.connection.lost(clean=True)
        self.archive.asked[0][1].callback(History())
        self.archive.asked[1][1].errback(Unavailable("mongodb is down"))
        self.assertEqual(client.take(), [])
