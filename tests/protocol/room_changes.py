"""Rules of edits, recalls and reactions in rooms."""

from __future__ import annotations

from typing import Any

from tests.protocol.changing import Changing
from tests.support.ws_client import WsClient


class RoomChangeRules(Changing):
    """The rights of members, and which of them hear of a change."""

    async def act(
        self, client: WsClient, action: str, room: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """The answer to a change of a room, which must be accepted."""
        frame = {"type": "room", "clientMsgId": self.name("r"), "action": action, "room": room, **fields}
        client.send({name: value for name, value in frame.items() if value is not None})
        answer = await client.answer(str(frame["clientMsgId"]))
        self.assertEqual(answer["type"], "accepted", answer)
        return answer

    async def room(self, owner: WsClient, *members: WsClient, **rules: Any) -> str:
        """The id of a new room, which all have heard of."""
        users = [{"userId": member.connected["userId"]} for member in members]
        answer = await self.act(owner, "create", name="Weekend", users=users, **rules)
        for member in members:
            await member.take("message")
        room: str = answer["room"]
        return room

    async def post(self, client: WsClient, room: str, msg: str, *members: WsClient) -> str:
        """The id of a message that these members have got."""
        client.send({"clientMsgId": self.name("m"), "room": room, "msg": msg})
        found: str = (await client.take("accepted"))["id"]
        for member in members:
            await self.until(member, found)
        return found

    async def until(self, client: WsClient, event_id: str) -> list[str]:
        """The ids of what comes before this message or event."""
        before: list[str] = []
        while (found := (await client.take("message"))["id"]) != event_id:
            before.append(found)
        return before

    async def people(self, *stems: str) -> list[WsClient]:
        return [await self.login(self.name(stem), features=["events"]) for stem in stems]

    async def test_in_a_room(self) -> None:
        """An edit word by word; a reaction by another member; the other members get both."""
        alice, bob, carol = await self.people("alice", "bob", "carol")
        room = await self.room(alice, bob, carol)
        message = await self.post(bob, room, "hi all", alice, carol)
        edited = await self.changed(bob, "edit", message, clientMsgId="e-1", msg="hello all")
        event = await carol.take("message")
        self.assertEqual(
            event,
            {
                "seq": event["seq"],
                "kind": "edit",
                "id": edited["id"],
                "of": message,
                "clientMsgId": "e-1",
                "userId": bob.connected["userId"],
                "fromUserType": "USER_TYPE",
                "room": room,
                "msg": "hello all",
                "sendTime": edited["sendTime"],
            },
        )
        self.assertEqual((await alice.take("message"))["id"], edited["id"])
        liked = await self.changed(carol, "react", message, reaction="👍")
        for client in (alice, bob):
            event = await client.take("message")
            self.assertEqual((event["id"], event["room"], event["kind"]), (liked["id"], room, "react"))
        want = {"msg": "hello all", "reactionsUpTo": liked["id"]}
        await self.shown(alice, message, want, room=room)

    async def test_rights(self) -> None:
        """The author edits; the author, owner and admins recall; a member only what is theirs."""
        alice, bob, carol, eve = await self.people("alice", "bob", "carol", "eve")
        room = await self.room(alice, bob, carol)
        message = await self.post(bob, room, "hi", alice, carol)
        for kind, fields in (("edit", {"msg": "x"}), ("recall", {}), ("react", {"reaction": "👍"})):
            await self.change_refused(eve, kind, message, "not_found", **fields)
        await self.change_refused(alice, "edit", message, "forbidden", msg="x")
        await self.change_refused(carol, "recall", message, "forbidden")
        await self.change_refused(bob, "edit", message, "forbidden", msg="x", mentions=["@all"])
        own = await self.post(alice, room, "hi", bob, carol)
        await self.changed(alice, "edit", own, msg="x", mentions=["@all"])
        self.assertEqual((await carol.take("message"))["mentions"], ["@all"])
        await self.act(alice, "role", room, users=[{"userId": carol.connected["userId"], "role": "admin"}])
        await self.changed(carol, "recall", message)
        await self.shown(bob, message, {"msg": ""}, room=room)
        await self.change_refused(bob, "edit", message, "conflict", msg="x")

    async def test_newcomers_hear_of_no_earlier_message(self) -> None:
        """With `history: joined` an event goes to those who were there; with `all`, to everybody."""
        alice, bob, dave = await self.people("alice", "bob", "dave")
        for history in ("joined", "all"):
            room = await self.room(alice, bob, history=history)
            message = await self.post(bob, room, "before", alice)
            await self.act(alice, "add", room, users=[{"userId": dave.connected["userId"]}])
            await dave.take("message")
            await self.changed(bob, "edit", message, msg="changed")
            later = await self.post(alice, room, "after")
            event = await dave.take("message")
            if history == "joined":
                self.assertEqual(event["id"], later)
                await self.change_refused(dave, "react", message, "not_found", reaction="👍")
            else:
                self.assertEqual((event["kind"], event["of"]), ("edit", message))
                await dave.take("message")
                await self.changed(dave, "react", message, reaction="👍")

    async def test_removed(self) -> None:
        """A member who is out finds no message, but a resend is answered as it was."""
        alice, bob, carol = await self.people("alice", "bob", "carol")
        room = await self.room(alice, bob, carol)
        message = await self.post(bob, room, "hi", alice, carol)
        first = await self.changed(bob, "edit", message, clientMsgId="e-1", msg="ho")
        await self.act(alice, "remove", room, users=[{"userId": bob.connected["userId"]}])
        for kind, fields in (("edit", {"msg": "x"}), ("recall", {}), ("react", {"reaction": "👍"})):
            await self.change_refused(bob, kind, message, "not_found", **fields)
        self.assertEqual(await self.change(bob, "edit", message, clientMsgId="e-1", msg="ho"), first)
        await self.change_refused(bob, "edit", message, "invalid_message", clientMsgId="e-1", msg="x")

    async def test_closed(self) -> None:
        """A closed room takes recalls and nothing else."""
        alice, bob = await self.people("alice", "bob")
        room = await self.room(alice, bob)
        message = await self.post(bob, room, "hi", alice)
        other = await self.post(bob, room, "ho", alice)
        await self.act(alice, "close", room)
        await self.change_refused(bob, "edit", message, "conflict", msg="x")
        await self.change_refused(alice, "react", message, "conflict", reaction="👍")
        await self.changed(bob, "recall", message)
        await self.changed(alice, "recall", other)

    async def test_posting_is_for_messages(self) -> None:
        """`posting: admins` stops no member's edits and reactions."""
        alice, bob = await self.people("alice", "bob")
        room = await self.room(alice, bob)
        message = await self.post(bob, room, "hi", alice)
        await self.act(alice, "set", room, posting="admins")
        await self.changed(bob, "edit", message, msg="ho")
        await self.changed(bob, "react", message, reaction="👍")

    async def test_reactions_in_a_large_room(self) -> None:
        """In a room of more than 200 a reaction is in no inbox; history and changes show it."""
        alice, bob = await self.people("alice", "bob")
        desk = await self.login(alice.connected["userId"], device="desk", features=["events", "sync"])
        users = [
            {"userId": name} for name in [bob.connected["userId"], *(self.name("m") for _ in range(200))]
        ]
        room = (await self.act(alice, "create", name="Large", users=users))["room"]
        await bob.take("message")
        message = await self.post(bob, room, "hi", alice)
        liked = await self.changed(alice, "react", message, clientMsgId="l-1", reaction="👍")
        again = await self.change(alice, "react", message, clientMsgId="l-1", reaction="👍")
        self.assertEqual(again, liked)
        await self.shown(bob, message, {"reactionsUpTo": liked["id"]}, room=room)
        edited = await self.changed(bob, "edit", message, msg="ho")
        for client in (alice, desk):
            self.assertNotIn(liked["id"], await self.until(client, edited["id"]))

        async def in_changes() -> bool:
            """The event has a document of its own beside the message's."""
            bob.send({"type": "changes", "room": room, "ref": "c"})
            return liked["id"] in [event["id"] for event in (await bob.take("changes"))["events"]]

        await self.eventually(in_changes)
        self.assertNotEqual(edited["id"], liked["id"])
        await bob.quiet()
        self.assertEqual([frame for frame in bob.frames if "seq" in frame], [])
