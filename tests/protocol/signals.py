"""Rules of typing and signals: unnumbered, unstored, to all who are connected now."""

from __future__ import annotations

from tests.protocol.support import Rules


class SignalRules(Rules):
    """Each client is on the next node in turn."""

    async def test_typing_and_signal(self) -> None:
        """All live channels of the other get a signal, and one's own other ones; nothing of it is kept."""
        alice, bob = self.name("alice"), self.name("bob")
        devices = [await self.login(bob, device=f"d{n}", features=["state"], state=0) for n in range(2)]
        old = await self.login(bob, device="old", features=["events"])
        sender = await self.login(alice, device="phone", features=["state"], state=0)
        tablet = await self.login(alice, device="tablet", features=["state"], state=0)
        self.assertEqual(sender.connected["features"], ["state"])
        sender.send({"type": "signal", "with": bob, "name": "call.offer", "data": {"sdp": "v=0"}})
        sender.send({"type": "typing", "with": bob})
        sender.send({"type": "typing", "with": bob})
        got = {"type": "signal", "userId": alice, "name": "call.offer", "data": {"sdp": "v=0"}}
        for device in devices:
            self.assertEqual(await device.take("signal"), {**got, "with": alice})
            typing = await device.take("typing")
            self.assertEqual(typing, {"type": "typing", "userId": alice, "with": alice})
        self.assertEqual(await tablet.take("signal"), {**got, "with": bob})
        for client in (*devices, old, sender, tablet):
            await client.quiet()
            self.assertEqual(list(client.frames), [])
        late = await self.login(bob, device="late", features=["state"], state=0)
        await late.quiet()
        self.assertEqual(list(late.frames), [])

    async def test_signals_in_rooms(self) -> None:
        """Members get it with the room; others, and a room of more than fifty, are refused."""
        mary, eve = (
            await self.login(self.name("mary"), features=["state"], state=0),
            await self.login(self.name("eve")),
        )
        mike, users = self.name("mike"), [self.name("u") for _ in range(50)]
        mary.send(
            {"type": "room", "clientMsgId": "c", "action": "create", "name": "W", "users": [{"userId": mike}]}
        )
        room = (await mary.take("accepted"))["room"]
        member = await self.login(mike, features=["state", "events"], state=0)
        member.send({"type": "signal", "room": room, "name": "cursor"})
        got = await mary.take("signal")
        self.assertEqual(got, {"type": "signal", "userId": mike, "room": room, "name": "cursor"})
        eve.send({"type": "signal", "ref": "s-1", "room": room, "name": "cursor"})
        error = await eve.take("error")
        self.assertEqual((error["code"], error["ref"]), ("not_found", "s-1"))
        more = [{"userId": user} for user in users]
        mary.send({"type": "room", "clientMsgId": "d", "action": "add", "room": room, "users": more})
        await mary.take("accepted")
        mary.send({"type": "signal", "room": room, "name": "cursor"})
        self.assertEqual((await mary.take("error"))["code"], "too_large")
        mary.send({"type": "typing", "room": room})
        await mary.quiet()
        self.assertEqual(list(mary.frames), [])

    async def test_visitor_and_agent_signal(self) -> None:
        """A visitor names nobody, and is shown no name but its agent's; the agent sees the visitor."""
        agent_id = self.name("agent")
        agent = await self.agent(agent_id, features=["state"], state=0)
        visitor = await self.visitor(features=["state"], state=0)
        visitor_id = visitor.connected["userId"]
        visitor.send({"msg": "hello", "clientMsgId": "c-1"})
        await visitor.take("accepted")
        while (await agent.take("message"))["userId"] != visitor_id:
            pass
        visitor.send({"type": "typing"})
        self.assertEqual(
            await agent.take("typing"), {"type": "typing", "userId": visitor_id, "with": visitor_id}
        )
        agent.send({"type": "signal", "with": visitor_id, "name": "form.open"})
        self.assertEqual(
            await visitor.take("signal"), {"type": "signal", "userId": agent_id, "name": "form.open"}
        )
