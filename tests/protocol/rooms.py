"""Rules of rooms: their frames, their events, and messages to them."""

from __future__ import annotations

import itertools
import json
import secrets
from typing import Any

from tests.protocol.support import Rules, pause, record_raw
from tests.support.ws_client import WsClient

_numbers = itertools.count(1)
UNKNOWN = f"r-{'0' * 32}"


class InRooms(Rules):
    """Short words for frames of rooms."""

    async def room_frame(self, client: WsClient, action: str, **fields: Any) -> dict[str, Any]:
        """Send a room frame, again while the room changes too often; its answer, `accepted` or `error`."""
        frame = {"type": "room", "clientMsgId": f"r-{next(_numbers)}", "action": action, **fields}
        while True:
            client.send({key: value for key, value in frame.items() if value is not None})
            answer = await self.room_answer(client, frame["clientMsgId"])
            if answer.get("code") != "rate_limited":
                return answer
            await pause(answer["retryAfterMs"] / 1000)

    async def room_answer(self, client: WsClient, client_msg_id: Any) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            for frame in client.frames:
                if frame.get("type") in ("accepted", "error") and frame.get("clientMsgId") == client_msg_id:
                    client.frames.remove(frame)
                    return frame
            return None

        found: dict[str, Any] = await self.eventually(look)
        return found

    async def room_made(self, client: WsClient, *users: Any, **fields: Any) -> str:
        """A new room; gives its id."""
        named = [one if isinstance(one, dict) else {"userId": one} for one in users]
        answer = await self.room_frame(client, "create", **{"name": "Weekend", "users": named, **fields})
        self.assertEqual(answer["type"], "accepted", answer)
        room: str = answer["room"]
        return room

    async def say_in_room(
        self, client: WsClient, room: str, msg: str = "hi", **fields: Any
    ) -> dict[str, Any]:
        """Send a message to a room; its answer."""
        client_msg_id = fields.pop("clientMsgId", f"m-{next(_numbers)}")
        client.send({"clientMsgId": client_msg_id, "room": room, "msg": msg, **fields})
        return await self.room_answer(client, client_msg_id)

    async def three_users(self) -> tuple[list[str], list[WsClient]]:
        """Three users with a client each."""
        names = [self.name(stem) for stem in ("alice", "bob", "carol")]
        return names, [await self.login(name) for name in names]

    async def room_question(self, client: WsClient, kind: str, **fields: Any) -> dict[str, Any]:
        """Ask a question; its answer."""
        ref = secrets.token_hex(4)
        client.send({"type": kind, "ref": ref, **fields})

        async def look() -> dict[str, Any] | None:
            for frame in client.frames:
                if frame.get("ref") == ref:
                    client.frames.remove(frame)
                    return frame
            return None

        found: dict[str, Any] = await self.eventually(look)
        return found


class RoomRules(InRooms):
    """Frames of rooms from outside."""

    async def test_room_of_three(self) -> None:
        """A room is made, its members are told, and each message reaches all but its sender."""
        (alice, bob, carol), (a, b, c) = await self.three_users()
        a.send(
            {
                "type": "room",
                "clientMsgId": "r-1",
                "action": "create",
                "name": "Weekend",
                "users": [{"userId": bob}, {"userId": carol, "role": "admin"}],
            }
        )
        accepted = await a.expect("accepted")
        self.assertEqual(set(accepted), {"type", "clientMsgId", "id", "sendTime", "room", "version"})
        self.assertEqual((accepted["clientMsgId"], accepted["version"]), ("r-1", 1))
        room = accepted["room"]
        self.assertRegex(room, "^r-[0-9a-f]{32}$")
        for client in (b, c):
            self.assertEqual(
                await client.take("message"),
                {
                    "seq": 1,
                    "kind": "room",
                    "id": accepted["id"],
                    "room": room,
                    "version": 1,
                    "action": "create",
                    "clientMsgId": "r-1",
                    "userId": alice,
                    "fromUserType": "USER_TYPE",
                    "users": [{"userId": bob, "role": "member"}, {"userId": carol, "role": "admin"}],
                    "count": 3,
                    "name": "Weekend",
                    "posting": "all",
                    "history": "joined",
                    "joining": "invite",
                    "sendTime": accepted["sendTime"],
                },
            )
        b.send({"clientMsgId": "c-12", "room": room, "msg": "hi all"})
        accepted = await b.expect("accepted")
        self.assertEqual(set(accepted), {"type", "clientMsgId", "id", "sendTime"})
        for client, seq in ((a, 1), (c, 2)):
            self.assertEqual(
                await client.take("message"),
                {
                    "seq": seq,
                    "kind": "message",
                    "id": accepted["id"],
                    "clientMsgId": "c-12",
                    "userId": bob,
                    "fromUserType": "USER_TYPE",
                    "room": room,
                    "roomVersion": 1,
                    "msg": "hi all",
                    "sendTime": accepted["sendTime"],
                },
            )

    async def test_first_keys_of_room_frames(self) -> None:
        """A numbered frame of a room begins with seq and kind."""
        (_, bob, _), (a, b, _) = await self.three_users()
        raw = record_raw(b)
        room = await self.room_made(a, bob)
        await self.say_in_room(a, room)
        await b.messages(2)
        self.assertTrue(raw[0].startswith(b'{"seq":1,"kind":"room",'), raw[0])
        self.assertTrue(raw[1].startswith(b'{"seq":2,"kind":"message",'), raw[1])

    async def test_order_of_changes_and_messages(self) -> None:
        """Frames of one connection are answered, and placed, in the order in which they were sent."""
        (_, bob, carol), (a, b, c) = await self.three_users()
        room = await self.room_made(a, bob)
        await b.take("message")
        a.send({"clientMsgId": "1", "room": room, "msg": "before"})
        a.send(
            {"type": "room", "clientMsgId": "2", "action": "add", "room": room, "users": [{"userId": carol}]}
        )
        a.send({"clientMsgId": "3", "room": room, "msg": "after"})
        a.send({"type": "room", "clientMsgId": "4", "action": "set", "room": room})
        a.send({"clientMsgId": "5", "room": room, "msg": "last"})
        answers = [await a.expect("accepted") for _ in range(5)]
        self.assertEqual([answer["clientMsgId"] for answer in answers], ["1", "2", "3", "4", "5"])
        self.assertEqual(answers[3], {"type": "accepted", "clientMsgId": "4", "changed": False})
        got = [(m["kind"], m.get("msg"), m.get("roomVersion", m.get("version"))) for m in await b.messages(4)]
        self.assertEqual(
            got,
            [("message", "before", 1), ("room", None, 2), ("message", "after", 2), ("message", "last", 2)],
        )
        got = [(m["kind"], m.get("msg")) for m in await c.messages(3)]
        self.assertEqual(got, [("room", None), ("message", "after"), ("message", "last")])

    async def test_bad_room_frames(self) -> None:
        """Each mistake has its code; the frame's clientMsgId comes back."""
        (_, bob, _), (a, _, _) = await self.three_users()
        room = await self.room_made(a, bob)
        one = [{"userId": bob}]
        for code, fields in (
            ("invalid_message", {"action": "create", "clientMsgId": None, "name": "x"}),
            ("invalid_message", {"action": "create"}),
            ("invalid_message", {"action": "create", "name": ""}),
            ("invalid_message", {"action": "create", "name": "x" * 129}),
            ("invalid_message", {"action": "create", "name": "x", "room": room}),
            ("invalid_message", {"action": "create", "name": "x", "posting": "some"}),
            ("invalid_message", {"action": "create", "name": "x", "users": [{"userId": "visitor-1"}]}),
            ("invalid_message", {"action": "create", "name": "x", "users": [{"userId": ""}]}),
            (
                "invalid_message",
                {"action": "create", "name": "x", "users": [{"userId": "a", "role": "king"}]},
            ),
            ("bad_frame", {"action": "create", "name": "x", "data": "text"}),
            ("bad_frame", {"action": "create", "name": 7}),
            ("bad_frame", {"action": "add", "room": room, "users": bob}),
            ("too_large", {"action": "create", "name": "x", "data": {"a": "x" * 4096}}),
            (
                "too_large",
                {"action": "create", "name": "x", "users": [{"userId": f"u{n}"} for n in range(501)]},
            ),
            ("invalid_message", {"action": "rename", "room": room}),
            ("invalid_message", {"room": room, "action": None}),
            ("invalid_message", {"action": "add", "users": one}),
            ("invalid_message", {"action": "add", "room": room}),
            ("invalid_message", {"action": "role", "room": room, "users": one}),
            ("invalid_message", {"action": "close", "room": room, "version": 0}),
            (
                "invalid_message",
                {"action": "remove", "room": room, "users": [*one, {"userId": a.connected["userId"]}]},
            ),
            ("not_found", {"action": "close", "room": "r-1"}),
            ("not_found", {"action": "close", "room": UNKNOWN}),
            ("conflict", {"action": "close", "room": room, "version": 2}),
        ):
            frame = {"type": "room", "clientMsgId": f"bad-{next(_numbers)}", **fields}
            error = await self.refusal(a, {key: value for key, value in frame.items() if value is not None})
            self.assertEqual((error["code"], error.get("clientMsgId")), (code, frame["clientMsgId"]), fields)
            self.assertIs(error["temporary"], False)

    async def test_bad_messages_to_rooms(self) -> None:
        """A room stands alone; strangers find nothing; only owner and admins mention everybody."""
        (_, bob, _), (a, b, c) = await self.three_users()
        room = await self.room_made(a, bob)
        for code, client, fields in (
            ("invalid_message", a, {"room": room, "to": bob}),
            ("invalid_message", a, {"room": room, "group": [bob]}),
            ("not_found", a, {"room": UNKNOWN}),
            ("not_found", a, {"room": "nonsense"}),
            ("not_found", c, {"room": room}),
            ("forbidden", b, {"room": room, "mentions": ["@all"]}),
            ("too_large", a, {"room": room, "mentions": [f"u{n}" for n in range(51)]}),
            ("bad_frame", a, {"room": 7}),
        ):
            answer = await self.say_in_room(client, **{"room": room, **fields})
            self.assertEqual((answer["type"], answer.get("code")), ("error", code), fields)
        self.assertEqual((await self.say_in_room(a, room, mentions=["@all"]))["type"], "accepted")
        await b.take("message")
        self.assertEqual((await b.take("message"))["mentions"], ["@all"])

    async def test_more_in_messages_to_rooms(self) -> None:
        """replyTo, mentions and data go to the members, data byte for byte."""
        (_, bob, _), (a, b, _) = await self.three_users()
        room = await self.room_made(a, bob)
        first = await self.say_in_room(a, room)
        raw = record_raw(b)
        start = json.dumps(
            {"clientMsgId": "d-1", "room": room, "msg": "hi", "replyTo": first["id"], "mentions": [bob]}
        )
        a.send_raw(start[:-1].encode() + b',"data":{ "b": [1.50, "\\u00e4"]}}')
        await self.room_answer(a, "d-1")
        messages = await b.messages(3)
        self.assertEqual((messages[2]["replyTo"], messages[2]["mentions"]), (first["id"], [bob]))
        self.assertIn(b'"data":{ "b": [1.50, "\\u00e4"]}', raw[-1])

    async def test_removal(self) -> None:
        """The removed is told, then writes, reads and hears nothing."""
        (_, bob, carol), (a, b, c) = await self.three_users()
        room = await self.room_made(a, bob, carol)
        await self.say_in_room(b, room, "one")
        removed = await self.room_frame(a, "remove", room=room, users=[{"userId": bob}])
        self.assertEqual(removed["version"], 2)
        for answer in (
            await self.say_in_room(b, room, "two"),
            await self.room_frame(b, "leave", room=room),
            await self.room_question(b, "members", room=room),
        ):
            self.assertEqual(answer["code"], "not_found")
        await self.say_in_room(a, room, "three")
        self.assertEqual([m.get("msg") for m in await c.messages(4)], [None, "one", None, "three"])
        self.assertEqual([m["version"] for m in await b.messages(2)], [1, 2])
        await b.quiet()
        self.assertEqual((await self.room_question(b, "rooms"))["rooms"], [])
        add = await self.room_frame(a, "add", room=room, users=[{"userId": bob}])
        event = await b.take("message")
        self.assertEqual((event["name"], event["version"], event["id"]), ("Weekend", 3, add["id"]))
        self.assertEqual((await self.say_in_room(b, room, "back"))["type"], "accepted")

    async def test_resent_room_frames(self) -> None:
        """A frame that comes again is answered as before, though the rights have gone since."""
        (_, bob, carol), (a, b, _) = await self.three_users()
        frame = {
            "type": "room",
            "clientMsgId": "r-1",
            "action": "create",
            "name": "x",
            "users": [{"userId": bob, "role": "admin"}],
        }
        a.send(frame)
        first = await a.take("accepted")
        room = first["room"]
        add = {
            "type": "room",
            "clientMsgId": "r-2",
            "action": "add",
            "room": room,
            "users": [{"userId": carol}],
        }
        b.send(add)
        added = await b.take("accepted")
        said = await self.say_in_room(b, room, "hi", clientMsgId="m-x")
        await self.room_frame(a, "remove", room=room, users=[{"userId": bob}])
        b.send(add)
        self.assertEqual(await b.take("accepted"), added)
        self.assertEqual(await self.say_in_room(b, room, "hi", clientMsgId="m-x"), said)
        a.send(frame)
        self.assertEqual(await a.take("accepted"), {**first, "version": 3})
        for client, changed in ((a, {**frame, "name": "y"}), (b, {**add, "users": [{"userId": "zoe"}]})):
            client.send(changed)
            self.assertEqual((await client.take("error"))["code"], "invalid_message")
        # One clientMsgId, two kinds of frames.
        a.send({"clientMsgId": "r-1", "to": carol, "msg": "hi"})
        self.assertEqual((await a.take("error"))["code"], "invalid_message")
        b.send({**add, "clientMsgId": "m-x"})
        self.assertEqual((await b.take("error"))["code"], "invalid_message")

    async def test_joining_and_leaving(self) -> None:
        """An open room is joined by its id; leaving oneself, by either name, can be undone by joining."""
        (_, bob, _), (a, b, _) = await self.three_users()
        room = await self.room_made(a, joining="open", data={"topic": "x"})
        joined = await self.room_frame(b, "join", room=room)
        self.assertEqual(joined["version"], 2)
        event = await a.take("message")
        self.assertEqual((event["action"], event["users"]), ("join", [{"userId": bob, "role": "member"}]))
        self.assertNotIn("name", event)
        self.assertEqual((await self.room_frame(b, "join", room=room))["changed"], False)
        await self.room_frame(b, "remove", room=room, users=[{"userId": bob}])
        event = await a.take("message")
        self.assertEqual((event["action"], event["version"], event["count"]), ("leave", 3, 1))
        self.assertEqual((await self.room_frame(b, "join", room=room))["version"], 4)
        await self.room_frame(a, "set", room=room, joining="invite")
        await self.room_frame(b, "leave", room=room)
        self.assertEqual((await self.room_frame(b, "join", room=room))["code"], "not_found")

    async def test_closed_room(self) -> None:
        """A closed room takes nothing but leaving; the lists of rooms say that it is closed."""
        (_, bob, _), (a, b, _) = await self.three_users()
        room = await self.room_made(a, bob)
        await self.room_frame(a, "close", room=room)
        for client in (a, b):
            [listed] = (await self.room_question(client, "rooms"))["rooms"]
            self.assertEqual((listed["room"], listed["version"], listed["closed"]), (room, 2, True))
        for answer in (
            await self.say_in_room(b, room),
            await self.room_frame(a, "set", room=room, name="y"),
            await self.room_frame(a, "close", room=room),
        ):
            self.assertEqual(answer["code"], "conflict")
        self.assertEqual((await self.room_frame(b, "leave", room=room))["version"], 3)

    async def test_posting_by_admins(self) -> None:
        """Where admins post, a plain member is told so."""
        (_, bob, carol), (a, b, c) = await self.three_users()
        room = await self.room_made(a, bob, {"userId": carol, "role": "admin"}, posting="admins")
        self.assertEqual((await self.say_in_room(b, room))["code"], "forbidden")
        self.assertEqual((await self.say_in_room(c, room))["type"], "accepted")
        await self.room_frame(a, "role", room=room, users=[{"userId": bob, "role": "owner"}])
        self.assertEqual((await self.say_in_room(b, room))["type"], "accepted")

    async def test_lists_of_rooms(self) -> None:
        """One's rooms by id and a room's members by user id, in pages, each answer with its ref."""
        (alice, bob, _), (a, b, c) = await self.three_users()
        rooms = sorted([await self.room_made(a, bob, name=f"n{n}") for n in range(3)])
        page = await self.room_question(b, "rooms", limit=2)
        self.assertEqual(([one["room"] for one in page["rooms"]], page["more"]), (rooms[:2], True))
        self.assertEqual(
            set(page["rooms"][0]),
            {"room", "name", "role", "count", "version", "posting", "history", "joining"},
        )
        page = await self.room_question(b, "rooms", after=rooms[1])
        self.assertEqual(([one["room"] for one in page["rooms"]], page["more"]), (rooms[2:], False))
        page = await self.room_question(b, "members", room=rooms[0], limit=1)
        del page["ref"]
        expected = {
            "type": "members",
            "room": rooms[0],
            "version": 1,
            "users": [{"userId": alice, "role": "owner"}],
            "more": True,
        }
        self.assertEqual(page, expected)
        page = await self.room_question(b, "members", room=rooms[0], after=alice)
        self.assertEqual((page["users"], page["more"]), ([{"userId": bob, "role": "member"}], False))
        for code, client, kind, fields in (
            ("not_found", c, "members", {"room": rooms[0]}),
            ("not_found", c, "members", {"room": UNKNOWN}),
            ("invalid_message", b, "members", {}),
            ("invalid_message", b, "members", {"room": rooms[0], "limit": 0}),
            ("invalid_message", b, "rooms", {"limit": 201}),
            ("invalid_message", b, "rooms", {"after": "x"}),
        ):
            self.assertEqual((await self.room_question(client, kind, **fields))["code"], code, fields)

    async def test_rooms_are_not_for_everybody(self) -> None:
        """Customers make no rooms, and are members if they are added; visitors are in no room."""
        (_, _, _), (a, _, _) = await self.three_users()
        customer = self.name("customer")
        client = await self.login(customer, loginType="CUSTOMER_TYPE")
        self.assertEqual((await self.room_frame(client, "create", name="x"))["code"], "forbidden")
        room = await self.room_made(a, customer)
        self.assertEqual((await self.say_in_room(client, room))["type"], "accepted")
        event = await a.take("message")
        self.assertEqual(event["fromUserType"], "CUSTOMER_TYPE")
        visitor = await self.visitor("plain")
        for answer in (
            await self.room_frame(visitor, "create", name="x"),
            await self.room_frame(visitor, "join", room=room),
            await self.say_in_room(visitor, room),
            await self.room_question(visitor, "rooms"),
            await self.room_question(visitor, "members", room=room),
        ):
            self.assertEqual(answer["code"], "forbidden")

    async def test_changes_have_a_pace(self) -> None:
        """Five changes of a room in a second, whoever makes them."""
        (_, bob, _), (a, b, _) = await self.three_users()
        room = await self.room_made(a, {"userId": bob, "role": "admin"})
        ids = [f"p-{next(_numbers)}" for _ in range(20)]
        for number, client_msg_id in enumerate(ids):
            frame = {
                "type": "room",
                "clientMsgId": client_msg_id,
                "action": "set",
                "room": room,
                "name": str(number),
            }
            (a, b)[number % 2].send(frame)
        answers = [await self.room_answer((a, b)[number % 2], one) for number, one in enumerate(ids)]
        slowed = [answer for answer in answers if answer.get("code") == "rate_limited"]
        if not slowed:
            # A busy machine makes fewer than five changes a second by itself.
            times = [answer["sendTime"] for answer in answers]
            self.assertGreater(max(times) - min(times), 2000)
        for answer in slowed:
            self.assertTrue(1 <= answer["retryAfterMs"] <= 1000, answer)

    async def test_history_of_a_room(self) -> None:
        """A member reads from the version that let it in, or everything; nobody else reads anything."""
        names = [self.name(stem) for stem in ("alice", "bob", "carol")]
        a, b, c = [await self.login(name, features=["events"]) for name in names]
        room = await self.room_made(a, names[1])
        await self.say_in_room(a, room, "one")
        await self.room_frame(a, "add", room=room, users=[{"userId": names[2]}])
        await self.say_in_room(a, room, "two")

        async def page(client: WsClient, count: int) -> list[Any]:
            async def look() -> list[Any] | None:
                answer = await self.room_question(client, "history", room=room)
                found = [entry.get("msg", entry.get("action")) for entry in answer["messages"]]
                return found if len(found) >= count else None

            found: list[Any] = await self.eventually(look)
            return found

        self.assertEqual(await page(b, 4), ["create", "one", "add", "two"])
        self.assertEqual(await page(c, 2), ["add", "two"])
        await self.room_frame(a, "set", room=room, history="all")
        self.assertEqual(await page(c, 5), ["create", "one", "add", "two", "set"])
        await self.room_frame(a, "remove", room=room, users=[{"userId": names[1]}])
        self.assertEqual((await self.room_question(b, "history", room=room))["code"], "not_found")
        self.assertEqual((await self.room_question(b, "changes", room=room))["code"], "not_found")
        self.assertEqual((await self.room_question(a, "history", room=UNKNOWN))["code"], "not_found")
        old = await self.login(names[0], device="old")
        answer = await self.room_question(old, "history", room=room)
        self.assertEqual((answer["messages"], answer["more"]), ([], False))

    async def test_rooms_and_own_devices(self) -> None:
        """Changes and messages go to the other devices of their user; of joining, with all of the room."""
        (_, bob, _), (a, _, _) = await self.three_users()
        user = self.name("dora")
        phone = await self.login(user, device="phone", features=["sync"])
        laptop = await self.login(user, device="laptop", features=["sync"])
        room = await self.room_made(phone, bob)
        said = await self.say_in_room(phone, room, "from my phone")
        made, message = await laptop.messages(2)
        self.assertEqual((made["action"], made["name"], made["userId"]), ("create", "Weekend", user))
        self.assertEqual((message["msg"], message["id"]), ("from my phone", said["id"]))
        self.assertEqual((message["room"], message["roomVersion"]), (room, 1))
        self.assertEqual([frame["seq"] for frame in (made, message)], [1, 2])
        other = await self.room_made(a, joining="open")
        await self.room_frame(phone, "join", room=other)
        joined = await laptop.take("message")
        self.assertEqual((joined["action"], joined["name"], joined["seq"]), ("join", "Weekend", 3))
