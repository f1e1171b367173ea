"""Marks, settings and feeds of state, on a connection with doubles."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail

from imd.chat.state_feed import RETRY_SECONDS
from imd.chat.state_form import MAX_MARKS
from imd.contracts.rooms import Membership
from imd.contracts.state import Changes, Entry, Mark, Setting
from imd.contracts.state_rules import pair_id
from imd.protocol.conversation import room_conversation_id
from imd.protocol.errors import (
    BAD_FRAME,
    FORBIDDEN,
    INVALID_MESSAGE,
    NOT_FOUND,
    RATE_LIMITED,
    TOO_LARGE,
    UNAVAILABLE,
    UNKNOWN_TYPE,
    Refused,
    Unavailable,
)
from imd.protocol.ids import MessageIds
from imd.protocol.selector import Selector
from tests.unit.chat.support import START, Client, ConnectionTestCase

ID = f"{START * 1000:012x}" + "0" * 16
ROOM = "r-" + "0" * 32
BOB = pair_id("alice", "bob")


def entry(v: int = 1, **values: Any) -> Entry:
    return Entry(BOB, Selector(with_="bob"), v, **values)


class StateTestCase(ConnectionTestCase):
    def client(self, user: str = "alice", **fields: Any) -> Client:
        """A client that is connected, and has taken the frames until then."""
        client = self.connected(user, **fields)
        client.take()
        return client

    def with_feature(self, version: int | None = 5, user: str = "alice") -> Client:
        """A device with the feature whose version the store has confirmed."""
        client = self.client(user, features=["state"], **({} if version is None else {"state": version}))
        if version is not None:
            self.states.answer(Changes(user, version, version))
        return client

    def question(self) -> Any:
        ((question, _),) = self.states.asked
        return question

    def code(self, client: Client, **frame: Any) -> Any:
        """The code of the error that a frame is answered with; its ref is given back."""
        client.send(**frame, ref="q")
        (answer,) = client.take()
        self.assertEqual((answer["type"], answer["ref"]), ("error", "q"))
        return answer["code"]


class FormTests(StateTestCase):
    def test_bad_reads(self) -> None:
        alice = self.client()
        ahead = f"{START * 1000 + 61_000:012x}" + "0" * 16
        mark = {"with": "bob", "upTo": ID}
        for code, frame in (
            (INVALID_MESSAGE, {}),
            (INVALID_MESSAGE, {"with_": "bob"}),
            (INVALID_MESSAGE, {"with_": "bob", "upTo": "5"}),
            (INVALID_MESSAGE, {"with_": "bob", "upTo": ahead}),
            (INVALID_MESSAGE, {"upTo": ID}),
            (INVALID_MESSAGE, {"with_": "bob", "room": ROOM, "upTo": ID}),
            (INVALID_MESSAGE, {"with_": "bob", "upTo": ID, "marks": [mark]}),
            (INVALID_MESSAGE, {"marks": []}),
            (INVALID_MESSAGE, {"marks": [mark, {"with": "bob"}]}),
            (INVALID_MESSAGE, {"with_": "\0", "upTo": ID}),
            (TOO_LARGE, {"marks": [mark] * (MAX_MARKS + 1)}),
            (BAD_FRAME, {"with_": "bob", "upTo": 5}),
            (BAD_FRAME, {"marks": "bob"}),
        ):
            self.assertEqual(self.code(alice, type="read", **frame), code, frame)
        self.assertEqual(self.states.asked, [])

    def test_bad_settings(self) -> None:
        alice = self.client()
        for code, frame in (
            (INVALID_MESSAGE, {}),
            (INVALID_MESSAGE, {"with_": "bob"}),
            (INVALID_MESSAGE, {"with_": "bob", "colour": "red"}),
            (INVALID_MESSAGE, {"muted": True}),
            (INVALID_MESSAGE, {"receipts": True, "muted": True}),
            (INVALID_MESSAGE, {"with_": "bob", "receipts": True}),
            (INVALID_MESSAGE, {"with_": "bob", "muted": -1}),
            (INVALID_MESSAGE, {"with_": "bob", "hidden": "x"}),
            (INVALID_MESSAGE, {"with_": "bob", "cleared": "f" * 28}),
            (INVALID_MESSAGE, {"with_": "bob", "cleared": ""}),
            (BAD_FRAME, {"with_": "bob", "muted": "yes"}),
            (BAD_FRAME, {"receipts": 1}),
        ):
            self.assertEqual(self.code(alice, type="settings", **frame), code, frame)
        self.assertEqual(self.states.asked, [])

    def test_clock_set_back(self) -> None:
        """Ids go on above those from before, on each node. Marks on them are good; no later ones are."""
        clock, alice = self.services.clock, self.client()
        clock.correct(START * 1000, clock.monotonic())
        other_node = MessageIds(clock)
        other_node.next()
        clock.correct(START * 1000 - 3_600_000, clock.monotonic())
        (made, _), ahead = other_node.next(), f"{START * 1000 + 61_000:012x}" + "0" * 16
        for frame, name in (("read", "upTo"), ("settings", "hidden"), ("settings", "cleared")):
            alice.send(type=frame, with_="bob", **{name: made})
            self.states.answer(Changes("alice", 1, 1))
            self.assertEqual([answer["type"] for answer in alice.take()], ["state"])
            self.assertEqual(self.code(alice, type=frame, with_="bob", **{name: ahead}), INVALID_MESSAGE)

    def test_form_of_connect(self) -> None:
        """A version of a wrong type is a bad connect signal; the connection waits for a better one."""
        client = Client(self.services)
        for version in (-1, "5", 1.5):
            client.connect(features=["state"], state=version)
            self.assertEqual(client.take()[0]["code"], BAD_FRAME)
        client.connect(features=["state"], state=5)
        self.settle()
        self.assertEqual(client.take()[0]["features"], ["state"])

    def test_level_1(self) -> None:
        """In a cluster of level 1 there is no state."""
        self.level = 1
        alice = self.client(features=["state"], state="five")
        for kind in ("read", "settings"):
            self.assertEqual(self.code(alice, type=kind, with_="bob", upTo=ID), UNKNOWN_TYPE)
        self.assertEqual(self.states.asked, [])


class ReadTests(StateTestCase):
    def test_read(self) -> None:
        """A mark goes to the store, with the other of a pair as its reader; the answer names what it has."""
        alice = self.client()
        alice.send(type="read", ref="m-1", with_="bob", upTo=ID)
        self.assertEqual(
            self.states.answer(Changes("alice", 3, 3, (entry(3, read=ID, peer="p"),))),
            ("change", "alice", [Mark(BOB, Selector(with_="bob"), ID, "bob")], None, None),
        )
        expected = {"with": "bob", "read": ID, "peerRead": "p"}
        frame = {"type": "state", "ref": "m-1", "version": 3, "conversations": [expected]}
        self.assertEqual(alice.take(), [frame])

    def test_targets(self) -> None:
        """Lists, rooms and oneself have no other who may see the mark; a list of one other is the pair."""
        self.rooms.members[ROOM, "alice"] = Membership("member", 1, "all")
        alice = self.client()
        for selector, conversation, other in (
            ({"group": ["carol", "bob"]}, None, ""),
            ({"group": ["bob", "alice"]}, BOB, "bob"),
            ({"room": ROOM}, room_conversation_id(ROOM), ""),
            ({"with_": "alice"}, pair_id("alice", "alice"), ""),
        ):
            alice.send(type="read", upTo=ID, **selector)
            (_, _, (mark,), _, _) = self.states.answer(Changes("alice", 1, 1))
            self.assertEqual(mark.peer, other)
            if conversation is not None:
                self.assertEqual(mark.conversation, conversation)

    def test_one_room_of_others(self) -> None:
        """The whole frame is refused, and nothing is stored."""
        alice = self.client()
        marks = [{"with": "bob", "upTo": ID}, {"room": ROOM, "upTo": ID}]
        alice.send(type="read", ref="q", marks=marks)
        self.assertEqual(alice.take()[0]["code"], NOT_FOUND)
        self.assertEqual(self.states.asked, [])

    def test_twice_in_a_frame(self) -> None:
        """Of two marks of one conversation the higher counts."""
        alice = self.client()
        higher = ID[:-1] + "1"
        marks = [{"with": "bob", "upTo": ID}, {"group": ["bob"], "upTo": higher}, {"with": "bob", "upTo": ID}]
        alice.send(type="read", marks=marks)
        self.assertEqual([mark.up_to for mark in self.question()[2]], [higher])

    def test_visitors(self) -> None:
        """A visitor's mark is for its agent, an agent's for its visitor; without an agent nothing is kept."""
        self.inbox.agents["visitor-1"] = ""
        visitor = self.visitor()
        name = visitor.connection.author.user
        visitor.send(type="read", ref="m", with_="x", upTo=ID)
        self.inbox.settle()
        self.assertEqual(self.states.answer({name: 0}), ("versions", [name]))
        self.assertEqual(visitor.take()[0]["conversations"], [{"read": ID}])
        self.inbox.agents[name] = "anna"
        visitor.send(type="read", ref="m", upTo=ID)
        self.inbox.settle()
        self.assertEqual(self.states.answer(Changes(name, 1, 1))[2][0].peer, "anna")
        anna = self.client("anna", isCustomerService=True)
        eve = self.client("eve")
        for client, peer in ((anna, name), (eve, "")):
            client.send(type="read", ref="m", with_=name, upTo=ID)
            self.inbox.settle()
            self.assertEqual(self.states.answer(Changes("x", 1, 1))[2][0].peer, peer)
        visitor.take()
        for code, frame in (
            (FORBIDDEN, {"with_": "x", "muted": True}),
            (FORBIDDEN, {"muted": True}),
            (FORBIDDEN, {"receipts": False}),
            (INVALID_MESSAGE, {}),
            (INVALID_MESSAGE, {"muted": -1}),
            (INVALID_MESSAGE, {"hidden": "x"}),
        ):
            self.assertEqual(self.code(visitor, type="settings", **frame), code, frame)

    def visitor(self) -> Client:
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True)
        self.settle()
        client.take()
        return client

    def test_unavailable(self) -> None:
        """A store that fails, or does not answer within 2 seconds."""
        alice = self.client()
        alice.send(type="read", ref="m", with_="bob", upTo=ID)
        self.states.fail(Unavailable("away"))
        self.assertEqual(alice.take()[0]["code"], UNAVAILABLE)
        alice.send(type="read", ref="m", with_="bob", upTo=ID)
        self.clock.advance(2)
        (answer,) = alice.take()
        self.assertEqual((answer["code"], answer["ref"], answer["retryAfterMs"]), (UNAVAILABLE, "m", 1000))

    def test_room_that_cannot_be_looked_up(self) -> None:
        """The answer does not give the store's reason. No error is logged: stores may be away."""
        self.patch(self.rooms, "membership", lambda room, user: fail(Unavailable("MongoDB: db-1:27017")))
        alice = self.client()
        alice.send(type="read", ref="m", room=ROOM, upTo=ID)
        (error,) = alice.take()
        self.assertEqual((error["code"], error["reason"]), (UNAVAILABLE, "MongoDB is not available"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_too_many_unanswered(self) -> None:
        """Sixteen at a time; messages are not held up."""
        alice = self.client()
        for n in range(16):
            alice.send(type="settings", ref=str(n), with_="bob", muted=True)
        self.assertEqual(alice.take(), [])
        self.assertEqual(self.code(alice, type="settings", with_="bob", muted=True), RATE_LIMITED)
        self.states.answer(Changes("alice", 1, 1))
        self.assertEqual(alice.take()[0]["ref"], "0")
        alice.send(type="settings", ref="16", with_="bob", muted=True)
        self.assertEqual(len(self.states.asked), 16)


class SettingsTests(StateTestCase):
    def test_settings(self) -> None:
        """The values that are named, and no others, go to the store."""
        alice = self.client()
        for frame, values in (
            ({"muted": True}, {"muted": True}),
            ({"muted": 1_800_000_000_000}, {"muted": 1_800_000_000_000}),
            ({"muted": 0}, {"muted": False}),
            ({"pinned": False, "hidden": None}, {"pinned": False, "hidden": ""}),
            ({"hidden": ID, "muted": None}, {"hidden": ID}),
            ({"cleared": ID}, {"cleared": ID}),
            ({"marked": True}, {"marked": True}),
            ({"muted": True, "cleared": ""}, {"muted": True}),
            ({"pinned": True, "cleared": None}, {"pinned": True}),
        ):
            alice.send(type="settings", with_="bob", **frame)
            setting = self.states.answer(Changes("alice", 1, 1))[3]
            self.assertEqual(setting, Setting(BOB, Selector(with_="bob"), **values))
            self.assertEqual(type(setting.muted), type(values.get("muted")))

    def test_own(self) -> None:
        alice = self.client()
        alice.send(type="settings", ref="m-3", receipts=False)
        self.assertEqual(
            self.states.answer(Changes("alice", 4, 4, (), False)),
            ("change", "alice", (), Setting(receipts=False), None),
        )
        frame = {
            "type": "state",
            "ref": "m-3",
            "version": 4,
            "conversations": [],
            "user": {"receipts": False},
        }
        self.assertEqual(alice.take(), [frame])

    def test_refused_by_the_store(self) -> None:
        alice = self.client()
        alice.send(type="settings", ref="m", with_="bob", pinned=True)
        self.states.answer(Refused(TOO_LARGE, "pinned: at most 50 conversations"))
        self.assertEqual([(f["code"], f["ref"]) for f in alice.take()], [(TOO_LARGE, "m")])


class FeedTests(StateTestCase):
    """A device with the feature, at version 5."""

    def tell(self, base: int, version: int, *entries: Entry) -> None:
        self.states.tell([Changes("alice", base, version, entries)])

    def versions(self, client: Client) -> list[Any]:
        return [(frame["version"], frame.get("all", False)) for frame in client.take()]

    def test_connecting(self) -> None:
        """Without changes there is no frame; a device that names no version gets everything."""
        self.assertEqual(self.with_feature().take(), [])
        client = self.with_feature(None)
        self.assertEqual(self.question(), ("since", "alice", -1))
        self.states.answer(Changes("alice", 0, 7, (entry(),), True, all=True))
        expected = {
            "type": "state",
            "version": 7,
            "all": True,
            "conversations": [{"with": "bob"}],
            "user": {"receipts": True},
        }
        self.assertEqual(client.take(), [expected])
        self.client()
        self.assertEqual(self.states.asked, [])

    def test_version_above_the_present(self) -> None:
        """The frame with `all` takes the device back; it goes on from there."""
        client = self.client(features=["state"], state=50)
        self.tell(3, 4)
        self.states.answer(Changes("alice", 0, 4, (), True, all=True))
        self.tell(4, 5, entry(5))
        self.assertEqual(self.versions(client), [(4, True), (5, False)])

    def test_live(self) -> None:
        """A change that begins where the device is, or before, is sent; one that it has is not."""
        client = self.with_feature()
        self.tell(5, 6, entry(6))
        self.tell(5, 6, entry(6))
        self.tell(4, 7, entry(6), entry(7))
        self.assertEqual(self.versions(client), [(6, False), (7, False)])

    def test_stepping_over(self) -> None:
        """A change that begins later is not sent: the store is asked for all that the device lacks."""
        client = self.with_feature()
        self.tell(6, 7, entry(7))
        self.tell(7, 8, entry(8))
        self.assertEqual(client.take(), [])
        self.assertEqual(self.states.answer(Changes("alice", 5, 7, (entry(7),))), ("since", "alice", 5))
        self.assertEqual(self.states.answer(Changes("alice", 7, 8, (entry(8),))), ("since", "alice", 7))
        self.assertEqual(self.versions(client), [(7, False), (8, False)])
        self.assertEqual(self.states.asked, [])

    def test_store_that_is_behind(self) -> None:
        """A hint of a version that the store does not have yet is not asked about over and over."""
        self.with_feature()
        self.tell(8, 9)
        self.states.answer(Changes("alice", 5, 5))
        self.assertEqual(self.states.asked, [])

    def test_answer_has_it(self) -> None:
        """The device that changed something gets the answer, with all since its version, and nothing else."""
        client, other = self.with_feature(), self.client(device="tablet", features=["state"], state=5)
        self.states.answer(Changes("alice", 5, 5))
        client.send(type="read", ref="m", with_="bob", upTo=ID)
        self.assertEqual(self.question()[-1], 5)
        self.tell(5, 6, entry(6))
        self.states.answer(Changes("alice", 5, 6, (entry(6),)))
        self.assertEqual([frame.get("ref") for frame in client.take()], ["m"])
        self.assertEqual(self.versions(other), [(6, False)])
        self.tell(6, 7)
        self.assertEqual(self.versions(client), [(7, False)])

    def test_overtaken(self) -> None:
        """A state that was read before a newer one was sent takes the device back no more."""
        client = self.with_feature(None)
        client.send(type="read", ref="m", with_="bob", upTo=ID)
        client.send(type="read", ref="n", with_="bob", upTo=ID)
        everything = [Changes("alice", 0, v, (entry(v),), True, all=True) for v in (5, 6, 7)]
        self.states.answer(everything[2], 2)
        self.states.answer(everything[1], 1)
        self.assertEqual(self.states.answer(everything[0]), ("since", "alice", -1))
        frames = [(frame["ref"], frame["version"], frame.get("all", False)) for frame in client.take()]
        self.assertEqual(frames, [("n", 7, True), ("m", 7, False)])
        self.tell(7, 8, entry(8))
        self.assertEqual(self.versions(client), [(8, False)])

    def test_overtaken_settings(self) -> None:
        """The answer to one's own settings has them, as they are now, even if it was overtaken."""
        client = self.with_feature()
        client.send(type="settings", ref="m", receipts=False)
        client.send(type="settings", ref="n", receipts=True)
        client.send(type="read", ref="o", with_="bob", upTo=ID)
        self.states.answer(Changes("alice", 5, 7, (), True), 1)
        self.states.answer(Changes("alice", 5, 6, (), False))
        self.states.answer(Changes("alice", 5, 5, (entry(5),)))
        frames = [(frame["ref"], frame["version"], frame.get("user")) for frame in client.take()]
        self.assertEqual(frames, [("n", 7, {"receipts": True}), ("m", 7, {"receipts": True}), ("o", 7, None)])

    def test_answer_that_fails(self) -> None:
        """Changes that waited for the answer are asked for."""
        client = self.with_feature()
        client.send(type="read", ref="m", with_="bob", upTo=ID)
        self.tell(5, 6, entry(6))
        self.states.fail(Unavailable("away"))
        client.take()
        self.assertEqual(self.states.answer(Changes("alice", 5, 6, (entry(6),))), ("since", "alice", 5))
        self.assertEqual(self.versions(client), [(6, False)])

    def test_store_away(self) -> None:
        """Connecting succeeds, and the state comes later."""
        client = self.client(features=["state"], state=5)
        self.states.fail(Unavailable("away"))
        self.assertEqual(client.take(), [])
        self.clock.advance(RETRY_SECONDS)
        self.states.answer(Changes("alice", 5, 6, (entry(6),)))
        self.assertEqual(self.versions(client), [(6, False)])

    def test_gone(self) -> None:
        """A device that has gone is not asked about, and not told."""
        client = self.client(features=["state"], state=5)
        client.connection.lost(clean=True)
        self.states.answer(Changes("alice", 5, 6, (entry(6),)))
        self.tell(6, 7)
        self.assertEqual((client.take(), self.states.asked), ([], []))

    def test_slow_socket(self) -> None:
        """A device that takes no more is not told; it catches up."""
        client = self.with_feature()
        client.wire.writable = False
        self.tell(5, 6, entry(6))
        client.wire.writable = True
        self.tell(6, 7, entry(7))
        self.states.answer(Changes("alice", 5, 7, (entry(6), entry(7))))
        self.assertEqual(self.versions(client), [(7, False)])
