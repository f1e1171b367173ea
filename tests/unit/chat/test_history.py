"""Answers from the archive that a connection asks for."""

from __future__ import annotations

from typing import Any

from imd.contracts.archive import Changes, Entry, History, Scope
from imd.contracts.rooms import Membership
from imd.protocol.conversation import room_conversation_id
from imd.protocol.errors import Unavailable
from imd.protocol.message import conversation_id
from tests.unit.chat.support import Client, ConnectionTestCase

ID = "0199aabbccdd" + "0" * 16


def entry(number: int, scope: Scope, kind: str = "") -> Entry:
    return Entry(f"{number:028x}", b'{"id":"%d"}' % number, scope, kind)


class HistoryTests(ConnectionTestCase):
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
        client.send(type="history", ref="h1", with_="bob", before=ID, limit=2)
        [(query, page)] = self.archive.asked
        self.assertEqual((query.viewer, query.before, query.limit), ("alice", ID, 2))
        page.callback(History([b'{"id":"1"}', b'{"id":"2"}'], more=True))
        expected = {"type": "history", "ref": "h1", "messages": [{"id": "1"}, {"id": "2"}], "more": True}
        self.assertEqual(client.take(), [{**expected, "moreAfter": False}])

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

    def test_after_and_around(self) -> None:
        """The place that is asked for goes to the archive, and both sides of the page are told."""
        client = self.connected()
        for name in ("after", "around"):
            client.send(type="history", all=True, **{name: ID})
            query, page = self.archive.asked[-1]
            self.assertEqual(getattr(query, name), ID)
            page.callback(History([b'{"id":"1"}'], more=True, more_after=True))
            [frame] = client.take()
            self.assertEqual((frame["more"], frame["moreAfter"], frame["rooms"]), (True, True, False))

    def test_large_pages_keep_their_place(self) -> None:
        """A page that is cut begins behind `after`, and lies around `around`; the rest is told of."""
        client = self.connected()
        bodies = [b'{"id":"%d","msg":"%b"}' % (n, b"x" * 300_000) for n in range(9)]
        for fields, history, expected in (
            ({"after": ID}, History(list(bodies)), (["0", "1", "2"], False, True)),
            ({"around": ID}, History(list(bodies), older=4), (["3", "4", "5"], True, True)),
            ({"around": ID}, History(list(bodies), older=9), (["6", "7", "8"], True, False)),
            ({"around": ID}, History(list(bodies), older=0), (["0", "1", "2"], False, True)),
            ({"around": ID}, History([]), ([], False, False)),
        ):
            client.send(type="history", with_="bob", **fields)
            self.archive.asked[-1][1].callback(history)
            [frame] = client.take()
            ids = [message["id"] for message in frame["messages"]]
            self.assertEqual((ids, frame["more"], frame["moreAfter"]), expected)

    def test_room(self) -> None:
        """A member reads from the version that they joined at; for others there is no such room."""
        self.rooms.members["r-1", "alice"] = Membership("member", 5, "joined")
        self.rooms.members["r-2", "alice"] = Membership("member", 5, "all")
        client = self.connected(features=["events"])
        for room, version in (("r-1", 5), ("r-2", None)):
            client.send(type="history", room=room)
            query, page = self.archive.asked[-1]
            self.assertEqual((query.conversation, query.from_version), (room_conversation_id(room), version))
            page.callback(History([b'{"id":"1"}']))
            [frame] = client.take()
            self.assertEqual(len(frame["messages"]), 1)
        for kind in ("history", "changes"):
            client.send(type=kind, ref="q", room="r-3")
            [frame] = client.take()
            self.assertEqual((frame["code"], frame["ref"]), ("not_found", "q"))
        self.assertEqual(len(self.archive.asked), 2)

    def test_room_without_events(self) -> None:
        """A device without the feature is shown an empty page of a room, and nothing is asked."""
        self.rooms.members["r-1", "alice"] = Membership("member", 5, "all")
        client = self.connected()
        client.send(type="history", room="r-1")
        [frame] = client.take()
        self.assertEqual((frame["messages"], frame["more"], frame["moreAfter"]), ([], False, False))
        self.assertEqual(self.archive.asked, [])

    def test_level_1(self) -> None:
        """At level 1 the answer is as it was: without newer fields; new questions are of no known type."""
        self.level = 1
        client = self.connected()
        client.send(type="history", all=True, before="1f")
        self.archive.asked[-1][1].callback(History([], more_after=True))
        self.assertEqual(client.take(), [{"type": "history", "messages": [], "more": False}])
        client.send(type="messages", ids=[ID])
        client.send(type="changes", all=True)
        self.assertEqual([frame["code"] for frame in client.take()], ["unknown_type"] * 2)

    def test_messages(self) -> None:
        """The readable ones come: own ones, visitors' by their present agent, rooms' from a version on."""
        self.rooms.members["r-1", "alice"] = Membership("member", 5, "joined")
        self.inbox.agents |= {"visitor-1": "alice", "visitor-2": "sam"}
        pair = ("alice", "bob")
        scopes = [
            Scope(conversation_id(list(pair)), pair),
            Scope("", ("bob", "carol")),
            Scope("", ("sam", "visitor-1"), visitor="visitor-1"),
            Scope("", ("sam", "visitor-2"), visitor="visitor-2"),
            Scope("", ("alice", "visitor-2"), visitor="visitor-2"),
            Scope("", room="r-1", version=4),
            Scope("", room="r-1", version=5),
            Scope("", room="r-2", version=9),
        ]
        entries = [entry(n, scope, "message" if scope.room else "") for n, scope in enumerate(scopes)]
        for features, expected in (([], ["0", "2", "4"]), (["events"], ["0", "2", "4", "6"])):
            client = self.connected("alice", features=features)
            client.send(type="messages", ref="m", ids=[one.message_id for one in entries])
            query, answer = self.archive.asked[-1]
            self.assertEqual(query, (tuple(one.message_id for one in entries), "alice"))
            answer.callback(entries)
            self.settle()
            [frame] = client.take()
            self.assertEqual((frame["type"], frame["ref"]), ("messages", "m"))
            self.assertEqual([message["id"] for message in frame["messages"]], expected)

    def test_changes(self) -> None:
        """Events of a conversation; `complete` is asked for before them; large answers are cut behind."""
        self.archive.complete_id = ID
        client = self.connected()
        client.send(type="changes", ref="c", with_="bob", after=ID, limit=7)
        query, answer = self.archive.asked[-1]
        self.assertEqual((query.after, query.limit), (ID, 7))
        self.assertEqual(query.conversation, conversation_id(["alice", "bob"]))
        self.archive.complete_id = "f" * 28
        events = [b'{"kind":"edit","id":"%d","x":"%b"}' % (n, b"x" * 400_000) for n in range(4)]
        answer.callback(Changes(events))
        [frame] = client.take()
        self.assertEqual([event["id"] for event in frame["events"]], ["0", "1"])
        self.assertEqual((frame["ref"], frame["more"], frame["complete"]), ("c", True, ID))
        self.assertNotIn("rooms", frame)
        client.send(type="changes", all=True, limit=0)
        self.archive.asked[-1][1].callback(Changes([], True))
        [frame] = client.take()
        self.assertEqual((frame["events"], frame["more"], frame["rooms"]), ([], True, False))

    def test_questions_share_their_limit(self) -> None:
        """Four may be unanswered, of whatever type."""
        client = self.connected()
        client.send(type="history", all=True)
        client.send(type="changes", all=True)
        client.send(type="messages", ids=[ID])
        client.send(type="changes", with_="bob")
        client.send(type="messages", ref="m", ids=[ID])
        self.assert_error(client, "rate_limited")
        self.assertEqual(len(self.archive.asked), 4)

    def test_visitor(self) -> None:
        """A visitor's selector is ignored: it asks about its own conversation, also of `all` and of rooms."""
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True)
        self.settle()
        visitor = client.take()[0]["userId"]
        for fields in ({}, {"all": True}, {"room": "r-1"}, {"group": ["bob"], "with_": "x"}):
            for kind in ("history", "changes"):
                client.send(type=kind, **fields)
                query, answer = self.archive.asked[-1]
                self.assertEqual(query.conversation, conversation_id([visitor]))
                answer.callback(History() if kind == "history" else Changes())
                [frame] = client.take()
                self.assertNotIn("rooms", frame)
