"""Rules of presence: who is online, as those see it who watch."""

from __future__ import annotations

from typing import Any

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient


class Watching(Rules):
    """Words for watching."""

    async def watched(self, client: WsClient, *users: str) -> dict[str, bool]:
        client.send({"type": "watch", "ref": "w-1", "users": list(users)})
        answer = await client.take("presence")
        self.assertEqual(answer["ref"], "w-1")
        return self.values_of(answer)

    @staticmethod
    def values_of(frame: dict[str, Any]) -> dict[str, bool]:
        return {one["userId"]: one["online"] for one in frame["users"]}

    async def news(self, client: WsClient) -> dict[str, bool]:
        return self.values_of(await client.take("presence"))


class PresenceRules(Watching):
    """Each client is on the next node in turn."""

    async def test_come_and_go(self) -> None:
        """Coming and going reach whoever watches, on any node; a second device changes nothing."""
        bob, carol = self.name("bob"), self.name("carol")
        alice = await self.login(self.name("alice"), features=["state"])
        here = await self.login(carol)
        self.assertEqual(await self.watched(alice, bob, carol, bob), {bob: False, carol: True})
        phone = await self.login(bob, device="phone")
        self.assertEqual(await self.news(alice), {bob: True})
        tablet = await self.login(bob, device="tablet")
        await phone.close()
        second = await self.login(self.name("mary"))
        self.assertEqual(await self.watched(second, bob), {bob: True})
        await tablet.close()
        for client in (alice, second):
            self.assertEqual(await self.news(client), {bob: False})
        self.assertEqual(await self.watched(alice), {})
        await here.close()
        seen = await self.watched(second, carol)
        if seen == {carol: True}:
            # The close was answered before Redis was told of it.
            seen = await self.news(second)
        self.assertEqual(seen, {carol: False})

    async def test_presence_and_blocks(self) -> None:
        """A block makes both look offline to each other at once, until it ends."""
        names = alice, bob = self.name("alice"), self.name("bob")
        clients = [await self.login(user, features=["state"]) for user in names]
        for client, other in zip(clients, (bob, alice), strict=True):
            self.assertEqual(await self.watched(client, other), {other: True})
        for on in (True, False):
            clients[1].send({"type": "block", "userId": alice, "on": on})
            await clients[1].take("block")
            for client, other in zip(clients, (bob, alice), strict=True):
                self.assertEqual(await self.news(client), {other: not on})

    async def test_hidden_presence(self) -> None:
        """Connections that say `presence: false`, customers and visitors look offline, and see nobody."""
        hidden, customer = self.name("hidden"), self.name("customer")
        await self.login(hidden, device="hidden", presence=False)
        buyer = await self.login(customer, loginType="CUSTOMER_TYPE", features=["state"])
        alice_id = self.name("alice")
        alice = await self.login(alice_id, features=["state"])
        self.assertEqual(
            await self.watched(alice, hidden, customer, alice_id),
            {hidden: False, customer: False, alice_id: True},
        )
        self.assertEqual(await self.watched(buyer, alice_id), {alice_id: False})
        await self.login(hidden, device="open", presence=True)
        self.assertEqual(await self.news(alice), {hidden: True})
        # A connection as staff, beside the customer's, which stays.
        seller = await self.login(customer, device="seller")
        self.assertEqual(await self.news(alice), {customer: True})
        await seller.close()
        self.assertEqual(await self.news(alice), {customer: False})
        alice.send({"type": "watch", "ref": "w", "users": ["u"] * 201})
        error = await alice.take("error")
        self.assertEqual((error["code"], error["ref"]), ("too_large", "w"))
        visitor = await self.visitor("plain")
        self.assertEqual(
            (await self.refusal(visitor, {"type": "watch", "users": [alice_id]}))["code"], "forbidden"
        )
