"""Rules of the list of conversations."""

from __future__ import annotations

from typing import Any

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient


class TalkRules(Rules):
    """Each client is on the next node in turn."""

    async def test_list_of_conversations(self) -> None:
        """Pairs, lists and rooms, the newest first, with what is unread, marks and settings; hidden ones come
        back with something newer, cleared ones keep their place, and visitors are not among them."""
        names = alice, bob, carol = [self.name(name) for name in ("alice", "bob", "carol")]
        clients = [await self.login(name, features=["events"]) for name in names]
        ann, ben, cyd = clients
        said = [await self.say(ben, to=alice) for _ in range(3)]
        # Each in turn was given the message before, so the ids rise.
        await ann.given(said[2])
        own = await self.say(ann, to=carol)
        await cyd.given(own)
        listed = await self.say(cyd, group=[alice, bob])
        users = [{"userId": alice}, {"userId": bob}]
        cyd.send({"type": "room", "clientMsgId": "r", "action": "create", "name": "W", "users": users})
        accepted = await cyd.take("accepted")
        room, came = accepted["room"], accepted["id"]
        expected = [("room", room, came, 0), ("group", sorted([bob, carol]), listed, 1)]
        expected += [("with", carol, own, 0), ("with", bob, said[2], 3)]
        page = await self.page(ann, expected)
        self.assertEqual((page[0]["name"], page[0]["version"], "last" in page[0]), ("W", 1, False))
        self.assertEqual(page[3]["last"]["id"], said[2])
        ann.send({"type": "read", "ref": "m", "with": bob, "upTo": said[0]})
        await ann.take("state")
        ann.send({"type": "settings", "ref": "s", "with": carol, "hidden": own})
        await ann.take("state")
        ann.send({"type": "settings", "ref": "s", "group": [bob, carol], "cleared": listed, "pinned": True})
        await ann.take("state")
        in_room = await self.say(cyd, room=room)
        expected = [("room", room, in_room, 1), (*expected[1][:3], 0), ("with", bob, said[2], 2)]
        page = await self.page(ann, expected)
        self.assertEqual([one.get("read") for one in page], [None, None, said[0]])
        self.assertEqual([one["pinned"] for one in page], [False, True, False])
        self.assertNotIn("last", page[1])
        await self.page(ann, expected[1:2], pinned=True)
        await self.page(ann, expected[2:], before=listed)
        # Nothing of it is in history any more, and the page before is whole.
        ann.send({"type": "history", "ref": "h", "group": [bob, carol]})
        self.assertEqual((await ann.take("history"))["messages"], [])
        ann.send({"type": "messages", "ref": "h", "ids": [listed, said[0]]})
        self.assertEqual([one["id"] for one in (await ann.take("messages"))["messages"]], [said[0]])
        ann.send({"type": "history", "ref": "h", "all": True})
        self.assertNotIn(listed, [one["id"] for one in (await ann.take("history"))["messages"]])
        await ann.given(in_room)
        again = await self.say(ann, to=carol)
        await self.page(ann, [("with", carol, again, 0), *expected])
        # A room that one has left is not listed, and one that joins in the middle sees what comes then.
        ann.send({"type": "room", "clientMsgId": "l", "action": "leave", "room": room})
        await ann.take("accepted")
        await self.page(ann, [("with", carol, again, 0), *expected[1:]])

    async def say(self, client: WsClient, **fields: Any) -> str:
        """Send a message; its id."""
        client.send({"clientMsgId": self.name("c"), "msg": "hi", **fields})
        return str((await client.take("accepted"))["id"])

    async def page(self, client: WsClient, expected: list[Any], **more: Any) -> list[dict[str, Any]]:
        """Ask until the list is this one: messages are archived a moment after they are accepted."""
        page: dict[str, Any] = {}

        async def listed() -> bool:
            nonlocal page
            client.send({"type": "conversations", "ref": "q", "limit": 8, **more})
            page = await client.take("conversations")
            return [brief(one) for one in page["conversations"]] == expected

        try:
            await self.eventually(listed)
        except self.failureException:
            self.assertEqual([brief(one) for one in page["conversations"]], expected)
        return list(page["conversations"])


def brief(conversation: dict[str, Any]) -> tuple[Any, ...]:
    """Its kind and name, its place, and how much is unread."""
    (kind,) = conversation.keys() & {"with", "group", "room"}
    return kind, conversation[kind], conversation["at"], conversation["unread"]
