"""Edits, recalls and reactions in tests: sent until they are judged, and looked at afterwards."""

from __future__ import annotations

import itertools
from typing import Any

from tests.protocol.support import Rules, pause
from tests.support.ws_client import WsClient

_numbers = itertools.count(1)


class Changing(Rules):
    """Words for tests of changes."""

    async def change(self, client: WsClient, kind: str, message_id: str, **fields: Any) -> dict[str, Any]:
        """The answer to a change, which is sent again as long as its message is not archived."""
        frame = {"type": kind, "clientMsgId": f"x-{next(_numbers)}", "id": message_id, **fields}

        async def judged() -> dict[str, Any] | None:
            client.send(frame)
            answer = await client.answer(frame["clientMsgId"])
            if answer.get("code") != "unavailable":
                return answer
            self.assertIs(answer["temporary"], True)
            self.assertIsInstance(answer["retryAfterMs"], int)
            await pause(0.2)
            return None

        answer: dict[str, Any] = await self.eventually(judged)
        return answer

    async def changed(self, client: WsClient, kind: str, message_id: str, **fields: Any) -> dict[str, Any]:
        """The answer to a change that is accepted, and changes something."""
        answer = await self.change(client, kind, message_id, **fields)
        self.assertEqual(set(answer), {"type", "clientMsgId", "id", "sendTime"}, answer)
        return answer

    async def change_refused(
        self, client: WsClient, kind: str, message_id: str, code: str, **fields: Any
    ) -> None:
        answer = await self.change(client, kind, message_id, **fields)
        self.assertEqual((answer["type"], answer.get("code")), ("error", code), (kind, fields, answer))
        self.assertIs(answer["temporary"], False)

    async def entry(self, client: WsClient, message_id: str, **query: Any) -> dict[str, Any]:
        """A message as history shows it now."""
        [found] = [m for m in (await self.history(client, **query))["messages"] if m["id"] == message_id]
        return found

    async def shown(self, client: WsClient, message_id: str, want: dict[str, Any], **query: Any) -> None:
        """History comes to show these fields of a message; those with None it does not have."""

        async def as_wanted() -> bool:
            found = await self.entry(client, message_id, **query)
            return {name: found.get(name) for name in want} == want

        await self.eventually(as_wanted)

    async def pair(self, kind: str = "plain", **fields: Any) -> tuple[WsClient, WsClient]:
        """Two users, each connected."""
        alice = await self.login(self.name("alice"), kind, **fields)
        bob = await self.login(self.name("bob"), kind, **fields)
        return alice, bob

    async def said(self, sender: WsClient, recipient: WsClient, msg: str = "hello") -> str:
        """The id of a message that has arrived and is archived."""
        accepted = await sender.say(recipient.connected["userId"], msg)
        found: str = accepted["id"]
        await recipient.take("message")

        async def archived() -> bool:
            messages = (await self.history(sender, all=True, limit=200))["messages"]
            return any(message["id"] == found for message in messages)

        await self.eventually(archived)
        return found
