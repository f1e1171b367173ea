"""Rules of flow: who is slow, or much too fast, costs a bounded amount and loses nothing."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.protocol.support import Rules


class FlowRules(Rules):
    """Readers that stand still, and senders that do not stop."""

    async def metric(self, name: str) -> float:
        """Its sum over all nodes of the kind."""
        return sum([await deferToThread(node.metric, name) for node in self.nodes("flow")])

    async def test_reader_that_stops_reading(self) -> None:
        """Messages that it does not take stay in its inbox, and come in order when it goes on."""
        bob = await self.login(self.name("bob"), "flow")
        await bob.quiet()
        bob.protocol.transport.pauseProducing()
        sender = await self.login(self.name("sender"), "flow")
        count, size = 500, 30_000
        for number in range(count):
            sender.send({"to": bob.connected["userId"], "msg": f"{number} ".ljust(size, "x")})
        for _ in range(count):
            await sender.take("accepted")

        async def blocked() -> bool:
            return await self.metric("imd_blocked_connections") == 1

        await self.eventually(blocked)
        self.assertLess(await self.metric("imd_blocked_bytes"), 512 * 1024)
        bob.protocol.transport.resumeProducing()
        messages = await bob.messages(count)
        self.assert_seqs(messages, 1)
        self.assertEqual([int(message["msg"].split()[0]) for message in messages], list(range(count)))

        async def free() -> bool:
            return await self.metric("imd_blocked_connections") == 0

        await self.eventually(free)
        self.assertEqual(await self.metric("imd_blocked_bytes"), 0)

    async def test_reader_that_never_acknowledges(self) -> None:
        """It gets a window, and no more; everything else when it acknowledges."""
        bob = await self.login(self.name("bob"), "flow", ack=True)
        bob.acks = False
        sender = await self.login(self.name("sender"), "flow")
        for number in range(1000):
            sender.send({"to": bob.connected["userId"], "msg": str(number)})
        for _ in range(1000):
            await sender.take("accepted")
        messages = await bob.messages(100)
        await bob.quiet()
        self.assertEqual(list(bob.frames), [])
        while len(messages) < 1000:
            bob.send({"type": "ack", "seq": messages[-1]["seq"]})
            messages += await bob.messages(100)
        self.assert_seqs(messages, 1)
        self.assertEqual([int(message["msg"]) for message in messages], list(range(1000)))

    async def test_flood(self) -> None:
        """An endless writer is read no faster than it is answered: everything is accepted, in order."""
        bob, sender = self.name("bob"), await self.login(self.name("sender"), "flow")
        for number in range(3000):
            sender.send({"to": bob, "msg": "hi", "clientMsgId": str(number)})
        most = 0.0
        for number in range(3000):
            answer = await sender.expect("accepted")
            self.assertEqual(answer["clientMsgId"], str(number))
            if number % 1000 == 0:
                most = max(most, await self.metric("imd_accept_waiting_messages"))
        self.assertLessEqual(most, 600)

    async def test_flood_with_a_limit(self) -> None:
        """Past the limit each message is refused, in its turn."""
        bob, sender = self.name("bob"), await self.login(self.name("sender"), "rate")
        for number in range(300):
            sender.send({"to": bob, "msg": "hi", "clientMsgId": str(number)})
        answers = [await sender.next() for _ in range(300)]
        self.assertEqual([answer["clientMsgId"] for answer in answers], [str(n) for n in range(300)])
        codes = [answer.get("code", answer["type"]) for answer in answers]
        self.assertEqual(codes[:5], ["accepted"] * 5)
        self.assertEqual(set(codes), {"accepted", "rate_limited"})
        self.assertGreater(codes.count("rate_limited"), codes.count("accepted"))
