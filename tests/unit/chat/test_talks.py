"""The list of conversations, composed of places, messages, marks and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.trial import unittest

from imd.chat.history import PAGE_BYTES
from imd.chat.talks import TalkList
from imd.contracts.rooms import RoomPart
from imd.contracts.state import Changes, Entry
from imd.contracts.talks import Place, Places, PlacesQuery, Talk, TalksQuery
from imd.protocol.author import Author
from imd.protocol.message import FromUserType
from imd.protocol.selector import Selector
from imd.protocol.state_frames import TalksFrame
from tests.unit.chat.support import Client, ConnectionTestCase

ALICE = Author("alice", "phone", FromUserType.USER_TYPE)
ROOM = RoomPart("r-1", "Weekend", 3, 2, 2)


class Stores:
    """Places, rooms and states of one user; the questions that were asked for places."""

    def __init__(self, places: Sequence[Place], entries: Sequence[Entry] = ()) -> None:
        self._places = sorted(places, reverse=True)
        self._entries = {entry.conversation: entry for entry in entries}
        self.limits: list[int] = []
        self.wanted: list[Any] = []
        self.size = 10

    def parts(self, user: str) -> Deferred[list[RoomPart]]:
        return succeed([ROOM])

    def since(self, user: str, version: int | None) -> Deferred[Changes]:
        return succeed(Changes(user, 0, 1, tuple(self._entries.values())))

    def entries(self, user: str, conversations: Sequence[str]) -> Deferred[dict[str, Entry]]:
        found = {name: self._entries[name] for name in conversations if name in self._entries}
        return succeed(found)

    def places(self, query: PlacesQuery) -> Deferred[Places]:
        self.limits.append(query.limit)
        found = [
            place
            for place in self._places
            if (query.before is None or place.at < query.before)
            and (query.only is None or place.conversation in query.only)
        ]
        return succeed(Places(found[: query.limit], len(found) > query.limit))

    def talks(self, query: TalksQuery) -> Deferred[list[Talk]]:
        self.wanted += query.wanted
        return succeed([Talk(b'{"msg":"%b"}' % (b"x" * self.size), 2) for _ in query.wanted])


def place(number: int, *others: str) -> Place:
    return Place(f"{number:028x}", f"c{number}", others or ("bob",))


def entry(number: int, **more: Any) -> Entry:
    return Entry(f"c{number}", Selector(with_="bob"), **more)


class TalkListTests(unittest.TestCase):
    def page(self, stores: Stores, **frame: Any) -> dict[str, Any]:
        double = cast(Any, stores)
        asked = TalkList(double, double, double).page(ALICE, TalksFrame(**frame))
        page: dict[str, Any] = json.loads(self.successResultOf(ensureDeferred(asked)))
        self.assertEqual(next(iter(page)), "type")
        return page

    def test_entries(self) -> None:
        """A pair, a list, a room and what one wrote to oneself, with marks and settings or without."""
        empty = Place(f"{4:028x}", "c4", (), ROOM, True)
        alone = Place(f"{3:028x}", "c3")
        marks = {"read": "a" * 28, "peer": "b" * 28, "muted": 5, "pinned": True, "marked": True}
        stores = Stores([place(1), place(2, "bob", "carol"), alone, empty], [entry(1, **marks)])
        page = self.page(stores, ref="l-1")
        self.assertEqual((page["type"], page["ref"], page["more"]), ("conversations", "l-1", False))
        plain = {"unread": 2, "marked": False, "muted": False, "pinned": False}
        last = {"msg": "x" * 10}
        self.assertEqual(
            page["conversations"],
            [
                {"room": "r-1", "name": "Weekend", "version": 3, "at": empty.at, **plain, "unread": 0},
                {"with": "alice", "at": alone.at, "last": last, **plain},
                {"group": ["bob", "carol"], "at": f"{2:028x}", "last": last, **plain},
                {
                    "with": "bob",
                    "at": f"{1:028x}",
                    "last": last,
                    "unread": 2,
                    "marked": True,
                    "read": "a" * 28,
                    "peerRead": "b" * 28,
                    "muted": 5,
                    "pinned": True,
                },
            ],
        )
        self.assertEqual([one.read for one in stores.wanted], ["", "", "a" * 28])

    def test_hidden(self) -> None:
        """Hidden conversations are left out until something newer comes; the page is full all the same."""
        hidden = [entry(n, hidden=f"{n + n % 2:028x}") for n in range(20, 200)]
        hidden += [entry(5, hidden=f"{4:028x}")]
        stores = Stores([place(n) for n in range(200)], hidden)
        page = self.page(stores, limit=17)
        self.assertEqual([int(one["at"], 16) for one in page["conversations"]], list(range(19, 2, -1)))
        self.assertTrue(page["more"])
        self.assertEqual(stores.limits, [18, 36, 72, 144])
        page = self.page(stores, limit=17, before=f"{3:028x}")
        self.assertEqual([int(one["at"], 16) for one in page["conversations"]], [2, 1, 0])
        self.assertFalse(page["more"])

    def test_pinned(self) -> None:
        """The pinned ones alone, or all."""
        stores = Stores([place(n) for n in range(9)], [entry(n, pinned=n % 3 == 0) for n in range(9)])
        for limit, expected, more in ((2, [6, 3], True), (3, [6, 3, 0], False)):
            page = self.page(stores, pinned=True, limit=limit)
            self.assertEqual([int(one["at"], 16) for one in page["conversations"]], expected)
            self.assertIs(page["more"], more)
        self.assertEqual(len(self.page(stores)["conversations"]), 9)

    def test_large(self) -> None:
        """A page has so many bytes at most; there are more then."""
        stores = Stores([place(n) for n in range(9)])
        stores.size = PAGE_BYTES // 4
        page = self.page(stores)
        self.assertEqual((len(page["conversations"]), page["more"]), (3, True))


class ListFrameTests(ConnectionTestCase):
    """The frame: its form, who may send it, and its price."""

    def ask(self, client: Client, **frame: Any) -> list[dict[str, Any]]:
        client.send(type="conversations", ref="l-1", **frame)
        if self.rooms.asked:
            self.rooms.answer([])
            self.rooms.asked.clear()
            if self.states.asked:
                self.states.answer({})
        return client.take()

    def test_form(self) -> None:
        """A limit or an id out of bounds is refused before anything is asked."""
        client = self.connected()
        bad: list[dict[str, Any]] = [{"limit": 0}, {"limit": 51}, {"before": "x"}, {"before": "A" * 28}]
        for frame in bad:
            [error] = self.ask(client, **frame)
            self.assertEqual((error["code"], error["ref"]), ("invalid_message", "l-1"))
        [error] = self.ask(client, limit="many")
        self.assertEqual(error["code"], "bad_frame")
        self.assertEqual(self.archive.talks.asked, [])
        [page] = self.ask(client, before="", limit=50)
        expected = {"type": "conversations", "ref": "l-1", "conversations": [], "more": False}
        self.assertEqual(page, expected)
        self.assertEqual(self.archive.talks.asked[0].before, None)

    def test_visitors(self) -> None:
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True)
        self.inbox.settle()
        client.take()
        [error] = self.ask(client)
        self.assertEqual((error["code"], error["ref"]), ("forbidden", "l-1"))

    def test_level(self) -> None:
        """At the first level there is no such frame."""
        self.level = 1
        client = self.connected()
        [error] = self.ask(client)
        self.assertEqual(error["code"], "unknown_type")

    def test_price(self) -> None:
        """One, and a tenth for each entry asked for."""
        for limit in (10, 50):
            client = self.connected()
            answered = 0
            while (frame := self.ask(client, limit=limit)[0])["type"] == "conversations":
                answered += 1
            self.assertEqual(frame["code"], "rate_limited")
            self.assertEqual(answered, self.limits.burst // (1 + limit // 10))
