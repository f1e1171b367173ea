"""Rules of blocking: what two users of whom one blocks the other see of each other, on any node."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient

_numbers = count(1)


class BlockRules(Rules):
    """Each client is on the next node in turn."""

    async def answer(self, client: WsClient, frame: dict[str, Any], kind: str) -> dict[str, Any]:
        client.send(frame)
        return await client.take(kind)

    async def block(self, client: WsClient, user: str, on: bool = True) -> None:
        frame = {"type": "block", "ref": "b-1", "userId": user, "on": on}
        self.assertEqual(await self.answer(client, frame, "block"), frame)

    async def write(self, client: WsClient, kind: str, **frame: Any) -> dict[str, Any]:
        """Send a message, and take an answer of this kind; a refusal has the code `forbidden`."""
        frame = {"clientMsgId": f"c-{next(_numbers)}", "msg": "hi", **frame}
        answer = await self.answer(client, frame, kind)
        if kind == "error":
            self.assertEqual((answer["code"], answer["temporary"]), ("forbidden", False))
        return answer

    async def test_blocked_pair(self) -> None:
        """Nothing passes, in either direction, until the block ends; a recall passes all the same."""
        names = self.name("alice"), self.name("eve")
        alice, eve = [await self.login(name, features=["events", "state"], state=0) for name in names]
        message = await self.write(eve, "accepted", to=names[0])
        self.assertEqual((await alice.take("message"))["id"], message["id"])
        await self.until_archived(eve, message["id"])
        await self.block(alice, names[1])
        for client, to in ((eve, names[0]), (alice, names[1])):
            await self.write(client, "error", to=to)
            client.send({"type": "typing", "with": to})
            client.send({"type": "signal", "with": to, "name": "call.offer"})
            await self.write(client, "error", type="react", id=message["id"], reaction="👍")
        await self.write(eve, "error", type="edit", id=message["id"])
        await self.write(eve, "accepted", type="recall", id=message["id"])
        recall = await alice.take("message")
        self.assertEqual((recall["kind"], recall["of"]), ("recall", message["id"]))
        for client in (alice, eve):
            await client.quiet()
            self.assertEqual(list(client.frames), [])
        listed = await self.answer(alice, {"type": "blocked", "ref": "b-2"}, "blocked")
        self.assertEqual(listed, {"type": "blocked", "ref": "b-2", "users": [names[1]]})
        await self.block(alice, names[1], False)
        await self.write(eve, "accepted", to=names[0])
        self.assertEqual((await alice.take("message"))["msg"], "hi")

    async def until_archived(self, client: WsClient, message_id: str) -> None:
        """Wait until the archive has the message, so that an edit finds it."""

        async def there() -> bool:
            frame = {"type": "messages", "ref": "m-1", "ids": [message_id]}
            return bool((await self.answer(client, frame, "messages"))["messages"])

        await self.eventually(there)

    async def test_left_out_of_a_list(self) -> None:
        """A blocker finds nothing of a list's message that left it out, also after the block has ended."""
        names = [self.name(name) for name in ("alice", "bob", "eve")]
        alice, bob, eve = [await self.login(name, features=["events"]) for name in names]
        await self.block(alice, names[2])
        message = await self.write(eve, "accepted", group=names[:2])
        self.assertEqual((await bob.take("message"))["id"], message["id"])
        await self.until_archived(bob, message["id"])
        await self.block(alice, names[2], False)
        await self.write(bob, "accepted", type="react", id=message["id"], reaction="👍")
        self.assertEqual((await eve.take("message"))["kind"], "react")
        other = await self.write(bob, "accepted", group=[names[0], names[2]])
        self.assertEqual((await alice.take("message"))["id"], other["id"])
        await self.until_archived(alice, other["id"])
        for asked in ({"group": names[1:]}, {"all": True}):
            page = await self.answer(alice, {"type": "history", "ref": "h-1", **asked}, "history")
            self.assertEqual([one["id"] for one in page["messages"]], [other["id"]])
        asked = {"type": "messages", "ref": "m-2", "ids": [message["id"], other["id"]]}
        found = await self.answer(alice, asked, "messages")
        self.assertEqual([one["id"] for one in found["messages"]], [other["id"]])
        asked = {"type": "changes", "ref": "x-1", "group": names[1:]}
        self.assertEqual((await self.answer(alice, asked, "changes"))["events"], [])
        refused = await self.answer(
            alice, {"type": "react", "clientMsgId": "r-1", "id": message["id"], "reaction": "👍"}, "error"
        )
        self.assertEqual(refused["code"], "not_found")

    async def test_list_that_blocks_leave_empty(self) -> None:
        """Its author still edits and recalls it, alone; with one left, that one is left out as well."""
        names = [self.name(name) for name in ("alice", "bob", "eve")]
        alice, bob, eve = [await self.login(name, features=["events"]) for name in names]
        await self.block(alice, names[2])
        first = await self.write(eve, "accepted", group=names[:2])
        self.assertEqual((await bob.take("message"))["id"], first["id"])
        await self.block(bob, names[2])
        second = await self.write(eve, "accepted", group=names[:2])
        await self.until_archived(eve, second["id"])
        for message in (first, second):
            await self.write(eve, "accepted", type="edit", id=message["id"], msg="anew")
            await self.write(eve, "accepted", type="react", id=message["id"], reaction="👍")
        react = {"type": "react", "id": first["id"], "reaction": "👍"}
        self.assertIn("id", await self.write(bob, "accepted", **react))
        await self.write(eve, "accepted", type="recall", id=second["id"])
        await self.write(eve, "accepted", type="recall", id=first["id"])
        recall = await bob.take("message")
        self.assertEqual((recall["kind"], recall["of"]), ("recall", first["id"]))

        async def both_recalled() -> bool:
            page = await self.answer(eve, {"type": "history", "ref": "h-1", "group": names[:2]}, "history")
            self.assertEqual([one["id"] for one in page["messages"]], [first["id"], second["id"]])
            return [one["msg"] for one in page["messages"]] == ["", ""]

        # An event is archived a moment before it is applied.
        await self.eventually(both_recalled)

        async def both_changes() -> bool:
            asked = {"type": "changes", "ref": "x-1", "group": [names[0], names[2]]}
            events = (await self.answer(bob, asked, "changes"))["events"]
            return [one["kind"] for one in events] == ["react", "recall"]

        await self.eventually(both_changes)
        for client in (alice, bob, eve):
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def test_bad_blocks(self) -> None:
        """Nobody blocks oneself, a visitor, or an id that cannot be; visitors block nobody."""
        name = self.name("alice")
        alice = await self.login(name)
        for user in (name, "visitor-1", "", None, "a\nb"):
            refused = await self.answer(alice, {"type": "block", "ref": "b-1", "userId": user}, "error")
            self.assertEqual((refused["ref"], refused["code"]), ("b-1", "invalid_message"), user)
        refused = await self.answer(alice, {"type": "block", "ref": "b-2", "userId": 7}, "error")
        self.assertEqual((refused["ref"], refused["code"]), ("b-2", "bad_frame"))
        visitor = await self.visitor()
        for frame in ({"type": "block", "userId": name}, {"type": "blocked"}):
            refused = await self.answer(visitor, {**frame, "ref": "b-3"}, "error")
            self.assertEqual((refused["ref"], refused["code"]), ("b-3", "forbidden"))
        said = {"type": "block", "userId": self.name("eve")}
        self.assertEqual(await self.answer(alice, said, "block"), {**said, "on": True})
