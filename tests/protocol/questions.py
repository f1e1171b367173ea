"""Rules of questions to the archive: history in both directions, single messages, events to catch up with."""

from __future__ import annotations

from tests.protocol.rooms import RoomRules
from tests.protocol.support import Rules, pause
from tests.support.ws_client import WsClient

NOTHING = "0" * 28


class QuestionRules(Rules):
    """history, messages and changes, and whom they are answered to."""

    room_frame, room_answer = RoomRules.room_frame, RoomRules.room_answer
    room_made, say_in_room = RoomRules.room_made, RoomRules.say_in_room

    async def conversation(self, count: int) -> tuple[WsClient, WsClient, list[str]]:
        """Two clients with the feature `events`, and the ids of archived messages between them."""
        alice, bob = self.name("alice"), self.name("bob")
        sender = await self.login(alice, features=["events"])
        reader = await self.login(bob, features=["events"], ack=True)
        ids = [(await sender.say(bob, f"text {number}"))["id"] for number in range(count)]
        await self.archived(reader, count, **{"with": alice})
        return sender, reader, ids

    async def test_both_directions(self) -> None:
        """Pages before, after and around a message; both sides are told of."""
        alice, bob, ids = await self.conversation(7)
        user = alice.connected["userId"]
        for fields, expected, more, more_after in (
            ({"before": ids[4], "limit": 2}, ids[2:4], True, True),
            ({"after": ids[4], "limit": 5}, ids[5:], True, False),
            ({"after": NOTHING, "limit": 3}, ids[:3], False, True),
            ({"around": ids[3], "limit": 4}, ids[1:5], True, True),
            ({"around": "f" * 28, "limit": 4}, ids[5:], True, False),
        ):
            page = await self.history(bob, **{"with": user, **fields})
            self.assertEqual([message["id"] for message in page["messages"]], expected)
            self.assertEqual((page["more"], page["moreAfter"]), (more, more_after))
        page = await self.history(bob, all=True, after=ids[5])
        self.assertEqual([message["id"] for message in page["messages"]], ids[6:])
        self.assertIs(page["rooms"], False)

    async def test_single_messages(self) -> None:
        """Messages of one's own come by id; those of others, and unknown ids, are left out."""
        _, bob, ids = await self.conversation(3)
        other, _, others = await self.conversation(1)
        asked = [ids[2], others[0], ids[0], NOTHING]
        bob.send({"type": "messages", "ref": "m", "ids": asked})
        answer = await bob.take("messages")
        self.assertEqual([message["id"] for message in answer["messages"]], [ids[0], ids[2]])
        self.assertEqual((answer["ref"], set(answer)), ("m", {"type", "ref", "messages"}))
        other.send({"type": "messages", "ids": asked})
        answer = await other.take("messages")
        self.assertEqual([message["id"] for message in answer["messages"]], others)

    async def test_complete(self) -> None:
        """`complete` passes a message within seconds of its acceptance, and only when it is archived."""
        alice, bob, ids = await self.conversation(1)
        before = int(ids[0][:12], 16)

        async def passed() -> str | None:
            bob.send({"type": "changes", "all": True, "limit": 0})
            found = (await bob.take("changes"))["complete"]
            self.assertRegex(found, "^[0-9a-f]{28}$")
            if found < ids[0]:
                await pause(0.5)
                return None
            return str(found)

        # A table of nodes that is new is not acted upon: the first nodes of a cluster need a lease's time.
        await self.eventually(passed, 120.0)
        sent = await alice.say(bob.connected["userId"], "one more")
        ids[0] = sent["id"]
        complete = await self.eventually(passed, 120.0)
        page = await self.history(bob, **{"with": alice.connected["userId"]})
        self.assertIn(sent["id"], [message["id"] for message in page["messages"]])
        self.assertGreaterEqual(int(complete[:12], 16), before)

    async def test_history_of_rooms(self) -> None:
        """A member reads a room from the version that let them in, its changes among the messages; others,
        and removed members, read nothing; a device without the feature gets an empty page."""
        names = [self.name(stem) for stem in ("alice", "bob", "carol")]
        alice, bob, carol = [await self.login(name, features=["events"]) for name in names]
        room = await self.room_made(alice, names[1])
        first = await self.say_in_room(alice, room, "before carol")
        added = await self.room_frame(alice, "add", room=room, users=[{"userId": names[2]}])
        second = await self.say_in_room(alice, room, "with carol")
        await self.archived(bob, 4, room=room)
        page = await self.history(carol, room=room)
        self.assertEqual([entry["id"] for entry in page["messages"]], [added["id"], second["id"]])
        self.assertEqual([entry["kind"] for entry in page["messages"]], ["room", "message"])
        self.assertEqual((page["messages"][1]["room"], page["messages"][1]["roomVersion"]), (room, 2))
        for reader, ids in ((bob, [first["id"], second["id"]]), (carol, [second["id"]])):
            reader.send({"type": "messages", "ids": [first["id"], second["id"]]})
            answer = await reader.take("messages")
            self.assertEqual([entry["id"] for entry in answer["messages"]], ids)
        for reader, count in ((bob, 2), (carol, 1)):
            reader.send({"type": "changes", "room": room})
            events = (await reader.take("changes"))["events"]
            self.assertEqual([event["kind"] for event in events], ["room"] * count)
            self.assertEqual(events[-1]["id"], added["id"])
        self.assertEqual((await self.history(alice, all=True))["messages"], [])
        plain = await self.login(names[1])
        page = await self.history(plain, room=room)
        self.assertEqual((page["messages"], page["more"]), ([], False))
        await self.room_frame(alice, "remove", room=room, users=[{"userId": names[2]}])
        for kind in ("history", "changes"):
            carol.send({"type": kind, "room": room})
            self.assertEqual((await carol.take("error"))["code"], "not_found")
        carol.send({"type": "messages", "ids": [second["id"]]})
        self.assertEqual((await carol.take("messages"))["messages"], [])

    async def test_refused_questions(self) -> None:
        """Bad ids, two places, too many ids and rooms of others are refused, each with its `ref`."""
        client = await self.login(self.name("alice"))
        for frame, code in (
            ({"type": "history", "all": True, "before": "1f"}, "invalid_message"),
            ({"type": "history", "all": True, "before": NOTHING, "after": NOTHING}, "invalid_message"),
            ({"type": "history", "all": True, "room": "r-1"}, "invalid_message"),
            ({"type": "history", "room": "r-" + "0" * 32}, "not_found"),
            ({"type": "history", "group": ["b"] * 501}, "too_large"),
            ({"type": "history", "all": True, "around": 5}, "bad_frame"),
            ({"type": "changes"}, "invalid_message"),
            ({"type": "changes", "all": True, "limit": 201}, "invalid_message"),
            ({"type": "changes", "all": True, "after": "x"}, "invalid_message"),
            ({"type": "changes", "room": "r-" + "0" * 32}, "not_found"),
            ({"type": "messages", "ids": []}, "invalid_message"),
            ({"type": "messages"}, "invalid_message"),
            ({"type": "messages", "ids": ["x"]}, "invalid_message"),
            ({"type": "messages", "ids": [NOTHING] * 51}, "too_large"),
            ({"type": "messages", "ids": "x"}, "bad_frame"),
        ):
            refused = await self.refusal(client, {**frame, "ref": "q"})
            self.assertEqual((refused["code"], refused["ref"]), (code, "q"), str(frame))

    async def test_no_limit(self) -> None:
        """A limit of null counts as left out."""
        alice = self.name("alice")
        client = await self.login(alice)
        room = await self.room_made(client)
        for kind, frame in (
            ("history", {"all": True}),
            ("changes", {"all": True}),
            ("rooms", {}),
            ("members", {"room": room}),
            ("conversations", {}),
        ):
            client.send({"type": kind, "ref": "q", "limit": None, **frame})
            self.assertEqual((await client.take(kind))["ref"], "q")

    async def test_visitor_asks(self) -> None:
        """A visitor's selector is ignored: it gets its own conversation."""
        agent = await self.agent(self.name("agent"))
        visitor = await self.visitor()
        name = visitor.connected["userId"]
        visitor.send({"clientMsgId": "v-1", "msg": "hello"})
        accepted = await visitor.take("accepted")
        for question in ({}, {"with": agent.connected["userId"]}, {"room": "r-1"}):
            (message,) = await self.archived(visitor, 1, **question)
            self.assertEqual((message["id"], message["userId"]), (accepted["id"], name))
        visitor.send({"type": "messages", "ids": [accepted["id"]]})
        self.assertEqual(len((await visitor.take("messages"))["messages"]), 1)
        visitor.send({"type": "changes"})
        self.assertEqual((await visitor.take("changes"))["events"], [])
