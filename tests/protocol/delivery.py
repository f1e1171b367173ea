"""Rules of delivery: numbers, windows, acknowledgements."""

from __future__ import annotations

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient


class DeliveryRules(Rules):
    """Messages for a connected device."""

    async def sent(self, to: str, count: int, kind: str = "plain") -> None:
        """`count` messages, accepted."""
        sender = await self.login(self.name("sender"), kind)
        for number in range(count):
            sender.send({"to": to, "msg": str(number)})
        for _ in range(count):
            await sender.take("accepted")
        await sender.close()

    async def test_numbers_rise_by_one(self) -> None:
        """One recipient of several senders: 1, 2, 3, … and each sender's messages in their order."""
        bob = await self.login(self.name("bob"), ack=True)
        senders = [await self.login(self.name("sender")) for _ in range(4)]
        for number in range(40):
            for index, sender in enumerate(senders):
                sender.send({"to": bob.connected["userId"], "msg": f"{index} {number}"})
        messages = await bob.messages(160)
        self.assert_seqs(messages, 1)
        for index in range(4):
            own = [message["msg"] for message in messages if message["msg"].startswith(f"{index} ")]
            self.assertEqual(own, [f"{index} {number}" for number in range(40)])
        for sender in senders:
            for _ in range(40):
                await sender.take("accepted")

    async def test_all_devices_get_the_same(self) -> None:
        """Each device of a user gets every message with the same number."""
        user = self.name("bob")
        devices = [await self.login(user, device=f"d{n}", ack=True) for n in range(4)]
        await self.sent(user, 30)
        first = await devices[0].messages(30)
        self.assert_seqs(first, 1)
        for device in devices[1:]:
            self.assertEqual(await device.messages(30), first)

    async def test_offline_in_order_in_pages(self) -> None:
        """More than a page of messages waits for an absent user, and comes whole and in order."""
        for ack in (False, True):
            user = self.name("bob")
            await self.sent(user, 190)
            client = await self.login(user, ack=ack)
            messages = await client.messages(190)
            self.assert_seqs(messages, 1)
            self.assertEqual([message["msg"] for message in messages], [str(n) for n in range(190)])
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def in_flight(self, client: WsClient) -> int:
        """The last number that came, once the node has nothing more to say."""
        await client.quiet()
        await client.quiet()
        return client.frames[-1]["seq"] if client.frames else 0

    async def test_ack_window(self) -> None:
        """At most ackWindow (8) messages are in flight; more follow as the device acknowledges."""
        user = self.name("bob")
        client = await self.login(user, "small", ack=True)
        client.acks = False
        await self.sent(user, 18, "small")

        async def reaches(number: int) -> None:
            async def there() -> bool:
                return await self.in_flight(client) >= number

            await self.eventually(there)
            self.assertEqual(await self.in_flight(client), number)

        await reaches(8)
        client.send({"type": "ack", "seq": 3})
        await reaches(11)
        client.send({"type": "ack", "seq": 11})
        await reaches(18)
        self.assert_seqs(list(client.frames), 1)

    async def test_ack_window_from_the_inbox(self) -> None:
        """The window counts for what waited, too."""
        user = self.name("bob")
        await self.sent(user, 18, "small")
        client = await self.login(user, "small", ack=True)
        client.acks = False
        self.assertEqual(await self.in_flight(client), 8)
        for number in range(1, 9):
            client.send({"type": "ack", "seq": number})

        async def all_there() -> bool:
            return await self.in_flight(client) == 16

        await self.eventually(all_there)
        self.assert_seqs(list(client.frames), 1)

    async def test_seed_clients_have_no_window(self) -> None:
        """A client that never acknowledges gets everything all the same."""
        user = self.name("bob")
        client = await self.login(user, "small")
        await self.sent(user, 18, "small")
        self.assert_seqs(await client.messages(18), 1)

    async def test_old_acks_are_ignored(self) -> None:
        """An older number, or the same again, changes nothing and is no error."""
        user, url = self.name("bob"), self.url()
        await self.sent(user, 5)
        client = await self.login(user, url=url, ack=True)
        client.acks = False
        await client.messages(5)
        for number in (4, 2, 4, 0, 1):
            client.send({"type": "ack", "seq": number})
        await client.quiet()
        self.assertEqual(list(client.frames), [])
        await client.close()
        again = await self.login(user, url=url, ack=True)
        self.assertEqual(again.connected["seq"], 4)

    async def test_acks_of_what_was_never_sent(self) -> None:
        """A number that this channel never got is invalid_message, and acknowledges nothing."""
        user, url = self.name("bob"), self.url()
        await self.sent(user, 3)
        client = await self.login(user, url=url, ack=True)
        client.acks = False
        await client.messages(3)
        for number in (4, 1000, 2**53):
            error = await self.refusal(client, {"type": "ack", "seq": number})
            self.assertEqual(error["code"], "invalid_message")
        await client.close()
        again = await self.login(user, url=url, ack=True)
        self.assertEqual(again.connected["seq"], 0)

    async def test_acks_of_a_seed_client(self) -> None:
        """An ack frame from a client that did not announce it does no harm."""
        user = self.name("bob")
        await self.sent(user, 2)
        client = await self.login(user)
        await client.messages(2)
        client.send({"type": "ack", "seq": 2})
        await client.quiet()
        self.assertEqual(list(client.frames), [])

    async def test_acks_with_more_than_a_window(self) -> None:
        """Hundreds of messages through a window of 8, each exactly once and in order."""
        user = self.name("bob")
        client = await self.login(user, "small", ack=True)
        sender = await self.login(self.name("sender"), "small")
        got = []
        for start in range(0, 150, 15):
            for number in range(start, start + 15):
                sender.send({"to": user, "msg": str(number)})
            got += await client.messages(15)
        self.assert_seqs(got, 1)
        self.assertEqual([message["msg"] for message in got], [str(n) for n in range(150)])

    async def test_unanswered_ping(self) -> None:
        """A client that does not answer a ping within pong_seconds is closed with 4101."""
        client = await self.login(self.name("bob"), "small")
        client.answers_pings = False
        self.assertEqual(await client.wait_closed(), 4101)

    async def test_answered_pings(self) -> None:
        """A client that answers its pings stays."""
        client = await self.login(self.name("bob"), "small")
        quiet_for = 7.0

        async def closed() -> bool:
            return client.closed

        try:
            await self.eventually(closed, quiet_for)
        except self.failureException:
            return
        self.fail(f"closed with {client.close_code}")
