"""Rules of marks and settings."""

from __future__ import annotations

from typing import Any

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient


def message_id(client: WsClient, n: int = 0) -> str:
    """An id of the moment at which the client connected."""
    return f"{client.connected['serverTime'] + n:012x}" + "0" * 16


async def mark(client: WsClient, other: str, message_id: str) -> None:
    """Mark a conversation up to a message, in each way that there is; frames that come meanwhile are dropped.

    Fails if the node refuses it.
    """
    for frame in (
        {"type": "read", "upTo": message_id},
        {"type": "settings", "hidden": message_id},
        {"type": "settings", "cleared": message_id},
    ):
        client.send({**frame, "ref": "mark", "with": other})
        while (answer := await client.next()).get("ref") != "mark":
            pass
        assert answer["type"] == "state", answer


class StateRules(Rules):
    """Each client is on the next node in turn."""

    async def state(self, client: WsClient, frame: dict[str, Any]) -> dict[str, Any]:
        """The answer to a frame."""
        client.send({"ref": "m", **frame})
        while True:
            answer = await client.take("state")
            if answer.get("ref") == "m":
                return answer

    async def test_read_by_the_other(self) -> None:
        """Marks rise, the other sees them, and so do one's own other devices, on any node."""
        alice, bob = self.name("alice"), self.name("bob")
        phone = await self.login(alice, device="phone", features=["state"], state=0)
        tablet = await self.login(alice, device="tablet", features=["state"], state=0)
        other = await self.login(bob, features=["state"], state=0)
        first, second = message_id(phone, 1), message_id(phone, 2)
        self.assertEqual(
            await self.state(phone, {"type": "read", "with": bob, "upTo": second}),
            {"type": "state", "ref": "m", "version": 1, "conversations": [{"with": bob, "read": second}]},
        )
        shown = {"type": "state", "version": 1, "conversations": [{"with": alice, "peerRead": second}]}
        self.assertEqual(await other.take("state"), shown)
        live = {"type": "state", "version": 1, "conversations": [{"with": bob, "read": second}]}
        self.assertEqual(await tablet.take("state"), live)
        answer = await self.state(phone, {"type": "read", "with": bob, "upTo": first})
        self.assertEqual((answer["version"], answer["conversations"][0]["read"]), (1, second))
        for client in (phone, tablet, other):
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def test_mark_behind_the_connect_signal(self) -> None:
        """A frame that does not wait for `connected` is answered as from a device with the feature."""
        alice, bob, carol = self.name("alice"), self.name("bob"), self.name("carol")
        old = await self.login(alice, device="old")
        upto = message_id(old)
        await self.state(old, {"type": "read", "with": bob, "upTo": upto})
        client = await self.open()
        connect = {"isConnect": True, "loginType": "USER_TYPE", "userId": alice, "device": "new"}
        client.send({**connect, "features": ["state"], "state": 0})
        answer = await self.state(client, {"type": "read", "with": carol, "upTo": upto})
        await client.quiet()
        frames = [frame for frame in (answer, *client.frames) if frame["type"] == "state"]
        # Both changes came once, with the answer or before it.
        told = [entry["with"] for frame in frames for entry in frame["conversations"]]
        self.assertEqual((sorted(told), answer["version"]), (sorted([bob, carol]), 2))

    async def test_connecting(self) -> None:
        """The changes since the version that is named; everything without one, or with a later one."""
        alice, bob, carol = self.name("alice"), self.name("bob"), self.name("carol")
        old = await self.login(alice, device="old")
        upto = message_id(old)
        for name in (bob, carol):
            answer = await self.state(old, {"type": "read", "with": name, "upTo": upto})
            self.assertEqual([entry["with"] for entry in answer["conversations"]], [name])
        for device, version, names in (("a", None, {bob, carol}), ("b", 1, {carol}), ("c", 9, {bob, carol})):
            client = await self.login(alice, device=device, features=["state"], state=version)
            frame = await client.take("state")
            self.assertEqual((frame["version"], frame.get("all", False)), (2, version != 1))
            self.assertEqual({entry["with"] for entry in frame["conversations"]}, names)
        current = await self.login(alice, device="d", features=["state"], state=2)
        await current.quiet()
        await old.quiet()
        self.assertEqual([*current.frames, *old.frames], [])

    async def test_settings(self) -> None:
        """Settings reach one's own devices, and nobody else's."""
        alice, bob = self.name("alice"), self.name("bob")
        phone = await self.login(alice, device="phone", features=["state"], state=0)
        tablet = await self.login(alice, device="tablet", features=["state"], state=0)
        other = await self.login(bob, features=["state"], state=0)
        upto = message_id(phone)
        values = {"muted": 1_900_000_000_000, "pinned": True, "hidden": upto, "cleared": upto, "marked": True}
        await self.state(phone, {"type": "settings", "with": bob, **values})
        self.assertEqual((await tablet.take("state"))["conversations"], [{"with": bob, **values}])
        await self.state(phone, {"type": "settings", "with": bob, "hidden": None, "muted": True})
        del values["hidden"]
        expected = {"with": bob, **values, "muted": True}
        self.assertEqual((await tablet.take("state"))["conversations"], [expected])
        answer = await self.state(phone, {"type": "read", "with": bob, "upTo": message_id(phone, -5)})
        self.assertNotIn("marked", answer["conversations"][0])
        error = await self.refusal(phone, {"type": "settings", "ref": "q", "muted": True})
        self.assertEqual((error["code"], error["ref"]), ("invalid_message", "q"))
        shown = [await other.take("state")]
        self.assertEqual([entry.keys() for entry in shown[0]["conversations"]], [{"with", "peerRead"}])

    async def test_receipts(self) -> None:
        """While either hides receipts nobody sees the other's marks; later they come back."""
        alice, bob = self.name("alice"), self.name("bob")
        phone = await self.login(alice, features=["state"], state=0)
        other = await self.login(bob, features=["state"], state=0)
        first, second = message_id(phone, 1), message_id(phone, 2)
        await self.state(phone, {"type": "read", "with": bob, "upTo": first})
        await other.take("state")
        # A resend, whose first answer may have been lost, is answered in the same way.
        for _ in range(2):
            answer = await self.state(phone, {"type": "settings", "receipts": False})
            self.assertEqual((answer["version"], answer["user"]), (2, {"receipts": False}))
        await self.state(phone, {"type": "read", "with": bob, "upTo": second})
        new = await self.login(bob, device="new", features=["state"])
        self.assertEqual((await new.take("state"))["conversations"], [{"with": alice}])
        await self.state(phone, {"type": "settings", "receipts": True})
        for client in (other, new):
            frame = await client.take("state")
            self.assertEqual(frame["conversations"], [{"with": alice, "peerRead": first}])

    async def test_rooms(self) -> None:
        """A member has marks and settings of a room; a room of others is not found."""
        mary, eve = await self.login(self.name("mary")), await self.login(self.name("eve"))
        mary.send({"type": "room", "clientMsgId": "c", "action": "create", "name": "W"})
        room = (await mary.take("accepted"))["room"]
        upto = message_id(mary)
        answer = await self.state(mary, {"type": "read", "room": room, "upTo": upto})
        self.assertEqual(answer["conversations"], [{"room": room, "read": upto}])
        answer = await self.state(mary, {"type": "settings", "room": room, "muted": True})
        self.assertEqual(answer["conversations"], [{"room": room, "read": upto, "muted": True}])
        marks = [{"with": "x", "upTo": upto}, {"room": room, "upTo": upto}]
        for frame in ({"type": "read", "marks": marks}, {"type": "settings", "room": room, "muted": True}):
            error = await self.refusal(eve, {"ref": "q", **frame})
            self.assertEqual((error["code"], error["ref"]), ("not_found", "q"))
        late = await self.login(eve.connected["userId"], device="late", features=["state"], state=0)
        await late.quiet()
        self.assertEqual(list(late.frames), [])

    async def test_visitor_and_agent(self) -> None:
        """They see each other's marks; the visitor names no selector."""
        anna = await self.agent(self.name("anna"), features=["state"], state=0)
        visitor = await self.visitor(features=["state"], state=0)
        name = visitor.connected["userId"]
        upto = message_id(visitor)
        answer = await self.state(visitor, {"type": "read", "upTo": upto})
        self.assertEqual(answer["conversations"], [{"read": upto}])
        visitor.send({"clientMsgId": "c", "msg": "hello"})
        await visitor.take("accepted")
        await anna.take("message")
        await self.state(anna, {"type": "read", "with": name, "upTo": upto})
        self.assertEqual((await visitor.take("state"))["conversations"], [{"peerRead": upto}])
        await self.state(visitor, {"type": "read", "upTo": upto})
        frame = await anna.take("state")
        self.assertEqual(frame["conversations"], [{"with": name, "read": upto, "peerRead": upto}])
        error = await self.refusal(visitor, {"type": "settings", "ref": "q", "receipts": False})
        self.assertEqual(error["code"], "forbidden")
        for receipts in (False, True):
            await self.state(anna, {"type": "settings", "receipts": receipts})
            again = {"visitorToken": visitor.connected["visitorToken"], "device": f"new-{receipts}"}
            new = await self.visitor(features=["state"], **again)
            entry = {"read": upto, **({"peerRead": upto} if receipts else {})}
            self.assertEqual((await new.take("state"))["conversations"], [entry])
