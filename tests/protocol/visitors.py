"""Rules of visitors and the agents that answer them."""

from __future__ import annotations

from collections import Counter

from tests.protocol.support import Rules
from tests.support.ws_client import WsClient


class VisitorRules(Rules):
    """A desk of its own: no agent is online but those that a test brings."""

    async def ask(self, visitor: WsClient, msg: str, **fields: object) -> dict[str, object]:
        visitor.send({"msg": msg, **fields})
        return await visitor.take("accepted")

    async def test_named_by_the_server(self) -> None:
        """A visitor gets a name and a token, whatever it says of itself."""
        client = await self.visitor(userId="alice")
        frame = client.connected
        self.assertTrue(frame["userId"].startswith("visitor-"))
        self.assertEqual(frame["fromUserType"], "VISITOR_TYPE")
        self.assertIsInstance(frame["visitorToken"], str)
        other = await self.visitor(visitorToken="")
        self.assertNotEqual(other.connected["userId"], frame["userId"])
        self.assertNotEqual(other.connected["visitorToken"], frame["visitorToken"])

    async def test_visitors_token_in_the_header(self) -> None:
        """A visitor's token may come there, too; another token there does not keep a visitor out."""
        first = await self.visitor()
        for header, is_known in ((first.connected["visitorToken"], True), ("a.b.c", False)):
            client = await self.open(self.url("desk"), headers={"Authorization": f"Bearer {header}"})
            client.send({"isConnect": True, "isVisitor": True})
            frame = await client.expect("connected")
            self.assertEqual(frame["userId"] == first.connected["userId"], is_known)

    async def test_to_goes_before_group(self) -> None:
        """A visitor's message to its agent passes with a list beside it, which does not count."""
        agent = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor()
        await self.ask(visitor, "0")
        await self.ask(visitor, "1", to=agent.connected["userId"], group=["bob"])
        self.assertEqual([message["msg"] for message in await agent.messages(2)], ["0", "1"])
        await agent.say(visitor.connected["userId"], "an answer")

    async def test_list_of_one_visitor(self) -> None:
        """It is the visitor's conversation, as if `to` named it."""
        agent = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor(features=["events"])
        await self.ask(visitor, "0")
        await agent.take("message")
        name = visitor.connected["userId"]
        agent.send({"clientMsgId": "g-1", "group": [name], "msg": "an answer"})
        answer = await agent.take("accepted")
        self.assertEqual((await visitor.take("message"))["group"], [name])
        for client, query in ((visitor, {}), (agent, {"with": name}), (agent, {"group": [name]})):
            page = await self.archived(client, 2, **query)
            self.assertEqual([one["msg"] for one in page], ["0", "an answer"])
        visitor.send({"type": "react", "clientMsgId": "r-1", "id": answer["id"], "reaction": "👍"})
        self.assertIn("id", await visitor.take("accepted"))
        self.assertEqual((await agent.take("message"))["of"], answer["id"])
        agent.send({"type": "recall", "clientMsgId": "g-2", "id": answer["id"]})
        await agent.take("accepted")
        self.assertEqual((await visitor.take("message"))["of"], answer["id"])
        agent.send({"type": "conversations", "ref": "c-1"})
        listed = (await agent.take("conversations"))["conversations"]
        self.assertEqual([one for one in listed if one.get("with") == name], [])

    async def test_unknown_login_type_and_visitor(self) -> None:
        """A loginType that nobody knows does not keep a visitor out."""
        client = await self.login(None, "desk", loginType="ROBOT", isVisitor=True)
        self.assertEqual(client.connected["fromUserType"], "VISITOR_TYPE")

    async def test_question_and_answer(self) -> None:
        """To the agent online, and back by `to`."""
        agent = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor(ack=True)
        accepted = await self.ask(visitor, "is anyone there?", clientMsgId="v-1")
        message = await agent.take("message")
        self.assertEqual(message["id"], accepted["id"])
        self.assertEqual(message["userId"], visitor.connected["userId"])
        self.assertEqual(message["fromUserType"], "VISITOR_TYPE")
        self.assertIs(message["isVisitor"], True)
        self.assertEqual(message["clientMsgId"], "v-1")
        await agent.say(visitor.connected["userId"], "yes")
        answer = await visitor.take("message")
        self.assertEqual((answer["msg"], answer["fromUserType"]), ("yes", "CUSTOMER_SERVICE"))
        self.assertEqual(answer["userId"], agent.connected["userId"])

    async def test_waiting_visitors_are_served_in_order(self) -> None:
        """With nobody online messages wait; the first agent gets them, first come first served."""
        visitors = [await self.visitor() for _ in range(3)]
        for number in range(2):
            for index, visitor in enumerate(visitors):
                await self.ask(visitor, f"{index} {number}")
        staff = await self.login(self.name("staff"), "desk")
        agent = await self.agent(self.name("agent"), ack=True)
        messages = await agent.messages(6)
        self.assert_seqs(messages, 1)
        first_seen = list(dict.fromkeys(message["userId"] for message in messages))
        self.assertEqual(first_seen, [visitor.connected["userId"] for visitor in visitors])
        for index in range(3):
            own = [message["msg"] for message in messages if message["msg"].startswith(f"{index} ")]
            self.assertEqual(own, [f"{index} 0", f"{index} 1"])
        await staff.quiet()
        self.assertEqual(list(staff.frames), [])

    async def test_least_loaded(self) -> None:
        """Visitors are spread: each new one goes to the agent with the fewest."""
        agents = [await self.agent(self.name("agent"), ack=True) for _ in range(3)]
        for number in range(6):
            await self.ask(await self.visitor(), f"hello {number}")
        tally = Counter()
        for agent in agents:
            for message in await agent.messages(2):
                tally[message["userId"]] += 1
            await agent.quiet()
            self.assertEqual([frame for frame in agent.frames if "seq" in frame], [])
        self.assertEqual(set(tally.values()), {1})
        self.assertEqual(len(tally), 6)

    async def test_kept_by_its_agent(self) -> None:
        """A visitor stays with its agent, also over a new connection and with idler agents about."""
        first = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor()
        await self.ask(visitor, "0")
        idle = await self.agent(self.name("idle"), ack=True)
        await self.ask(visitor, "1")
        await visitor.close()
        token = visitor.connected["visitorToken"]
        again = await self.visitor(visitorToken=token)
        await self.ask(again, "2")
        self.assertEqual([message["msg"] for message in await first.messages(3)], ["0", "1", "2"])
        await idle.quiet()
        self.assertEqual(list(idle.frames), [])

    async def test_kept_while_its_agent_is_away(self) -> None:
        """Within the grace period an absent agent's visitor waits for it, in its inbox."""
        name, url = self.name("agent"), self.url("desk")
        agent = await self.agent(name, url=url, ack=True)
        visitor = await self.visitor()
        await self.ask(visitor, "0")
        await agent.messages(1)
        await agent.close()
        other = await self.agent(self.name("other"), ack=True)
        await self.ask(visitor, "1")
        back = await self.agent(name, url=url, ack=True)
        self.assertEqual((await back.take("message"))["msg"], "1")
        await other.quiet()
        self.assertEqual(list(other.frames), [])

    async def test_given_to_another_after_the_grace_period(self) -> None:
        """An agent that stays gone gives its visitors back, with what nobody has answered."""
        agent = await self.agent(self.name("agent"), "grace", ack=True)
        agent.acks = False
        visitor = await self.visitor("grace")
        await self.ask(visitor, "0")
        self.assertEqual((await agent.take("message"))["msg"], "0")
        await agent.close()
        other = await self.agent(self.name("other"), "grace", ack=True)
        self.assertEqual((await other.take("message"))["msg"], "0")
        await self.ask(visitor, "1")
        self.assertEqual((await other.take("message"))["msg"], "1")
        await self.archived(other, 2, **{"with": visitor.connected["userId"]})
        # Or the next test's agent gets them.
        await other.say(visitor.connected["userId"], "an answer")

    async def test_read_and_never_answered(self) -> None:
        """Messages that an agent acknowledged and did not answer go to the next one, who takes part in them;
        answered ones do not."""
        first = await self.agent(self.name("agent"), "grace", ack=True)
        visitor = await self.visitor("grace", ack=True)
        for text in ("answered", "not answered", "nor this"):
            asked = await self.ask(visitor, text)
            self.assertEqual((await first.take("message"))["id"], asked["id"])
            if text == "answered":
                await first.say(visitor.connected["userId"], "an answer")
        await first.close()
        other = await self.agent(self.name("other"), "grace", ack=True)
        messages = await other.messages(2)
        self.assertEqual([message["msg"] for message in messages], ["not answered", "nor this"])
        self.assertEqual(messages[-1]["id"], asked["id"])
        self.assert_seqs(messages, 1)
        found = await self.archived(other, 2, all=True)
        self.assertEqual([message["id"] for message in found], [message["id"] for message in messages])
        await other.close()
        back = await self.agent(first.connected["userId"], "grace", ack=True)
        await self.ask(visitor, "still there?")
        message = await back.take("message")
        self.assertEqual((message["seq"], message["msg"]), (4, "still there?"))
        await back.say(visitor.connected["userId"], "an answer")

    async def test_to_nobody_but_its_agent(self) -> None:
        """A visitor may name its own agent and nobody else."""
        agent = await self.agent(self.name("agent"), ack=True)
        staff = await self.login(self.name("staff"), "desk")
        visitor = await self.visitor()
        await self.ask(visitor, "hello")
        for frame in (
            {"clientMsgId": "x-1", "to": staff.connected["userId"], "msg": "psst"},
            {"clientMsgId": "x-1", "group": [staff.connected["userId"]], "msg": "psst"},
            {"clientMsgId": "x-1", "to": visitor.connected["userId"], "msg": "psst"},
        ):
            error = await self.refusal(visitor, frame)
            self.assertEqual((error["code"], error["clientMsgId"]), ("forbidden", "x-1"), frame)
        await visitor.say(agent.connected["userId"], "to you")
        self.assertEqual([m["msg"] for m in await agent.messages(2)], ["hello", "to you"])
        await staff.quiet()
        self.assertEqual(list(staff.frames), [])

    async def test_to_nobody_while_waiting(self) -> None:
        """A visitor without an agent may name nobody."""
        staff = await self.login(self.name("staff"), "desk")
        visitor = await self.visitor()
        error = await self.refusal(visitor, {"to": staff.connected["userId"], "msg": "psst"})
        self.assertEqual(error["code"], "forbidden")
        await staff.quiet()
        self.assertEqual(list(staff.frames), [])

    async def test_token_resumes(self) -> None:
        """The token makes a later connect the same visitor, which gets what came meanwhile."""
        agent = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor()
        await self.ask(visitor, "hello")
        await agent.messages(1)
        await visitor.close()
        await agent.say(visitor.connected["userId"], "are you there?")
        token = visitor.connected["visitorToken"]
        again = await self.visitor(visitorToken=token)
        self.assertEqual(again.connected["userId"], visitor.connected["userId"])
        self.assertEqual(again.connected["visitorToken"], token)
        self.assertEqual((await again.take("message"))["msg"], "are you there?")

    async def test_forged_tokens(self) -> None:
        """A token that was never given out, in whatever form, is closed with 4001."""
        visitor = await self.visitor()
        token, name = visitor.connected["visitorToken"], visitor.connected["userId"]
        other = (await self.visitor()).connected["visitorToken"]
        swapped = token[:-1] + ("A" if token[-1] != "A" else "B")
        mixed = name + other[len(name) :]
        for forged in ("nonsense", name, f"{name}.", swapped, mixed, token + "x", "x" * 100_000):
            client = await self.open(self.url("desk"))
            client.send({"isConnect": True, "isVisitor": True, "visitorToken": forged})
            self.assertEqual(await client.wait_closed(), 4001, forged[:50])
            self.assertEqual([frame for frame in client.frames if frame["type"] == "connected"], [])

    async def test_visitors_can_be_kept_out(self) -> None:
        """[auth] visitors = no: a visitor's connect is refused."""
        client = await self.open(self.url("rate"))
        client.send({"isConnect": True, "isVisitor": True})
        self.assertEqual(await client.wait_closed(), 4001)

    async def test_resend(self) -> None:
        """A visitor's resend is delivered once, too; waiting or served."""
        visitor = await self.visitor()
        first = await self.ask(visitor, "hello", clientMsgId="v-1")
        self.assertEqual(await self.ask(visitor, "hello", clientMsgId="v-1"), first)
        agent = await self.agent(self.name("agent"), ack=True)
        self.assertEqual((await agent.take("message"))["id"], first["id"])
        self.assertEqual(await self.ask(visitor, "hello", clientMsgId="v-1"), first)
        await self.ask(visitor, "end")
        self.assertEqual((await agent.take("message"))["msg"], "end")
        error = await self.refusal(visitor, {"clientMsgId": "v-1", "msg": "other"})
        self.assertEqual(error["code"], "invalid_message")

    async def test_history(self) -> None:
        """The visitor and its agent read the conversation; others do not."""
        agent = await self.agent(self.name("agent"), ack=True)
        staff = await self.login(self.name("staff"), "desk")
        visitor = await self.visitor(ack=True)
        name = visitor.connected["userId"]
        await self.ask(visitor, "hello")
        await agent.take("message")
        await agent.say(name, "yes?")
        await visitor.take("message")
        await self.ask(visitor, "bye")
        texts = ["hello", "yes?", "bye"]
        seen = await self.archived(agent, 3, **{"with": name})
        self.assertEqual([message["msg"] for message in seen], texts)
        seen = await self.archived(visitor, 3, **{"with": agent.connected["userId"]})
        self.assertEqual([message["msg"] for message in seen], texts)
        self.assertEqual(len(await self.archived(visitor, 3, all=True)), 3)
        self.assertEqual(len(await self.archived(agent, 3, all=True)), 3)
        self.assertEqual((await self.history(staff, **{"with": name}))["messages"], [])
        self.assertEqual((await self.history(staff, all=True))["messages"], [])
