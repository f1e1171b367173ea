"""The contract of an Inbox: visitors and the agents that answer them."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import Duplicate, NotAllowed, Placed
from imd.protocol.message import encode_message
from tests.contract.support import InboxHarness, ids_of, submission_of

DAY_SECONDS = 86_400


class DeskWords(InboxHarness):
    """Short words for agents that go, and visitors that are given on."""

    assertEqual: Any
    assertIn: Any
    assertIsInstance: Any
    assertTrue: Any
    assertFalse: Any

    async def agents_of(self, *visitors: str) -> list[str]:
        return [await self.inbox.agent_of(visitor) for visitor in visitors]

    async def go_for_good(self, agent: str, seq: int = 0) -> None:
        """The agent leaves, having acknowledged `seq`, and the grace period of one second passes."""
        await self.leave(agent, seq=seq)
        await self.advance(2.5)

    async def served_to(self, visitor: str, agent: str) -> bool:
        await self.serve()
        return await self.inbox.agent_of(visitor) == agent


class DeskContract(DeskWords):
    """The desk, and visitors' tokens."""

    # agents online

    async def test_an_agent_gets_the_message(self) -> None:
        """A visitor's message is in the inbox of an agent online, whose channels may be told."""
        await self.begin()
        await self.agent("anna", channel="desk")
        message, outcome = await self.ask("visitor-1")
        self.assertIsInstance(outcome, Placed)
        self.assertEqual(outcome.agent, "anna")
        (delivery,) = outcome.deliveries
        self.assertEqual((delivery.user, delivery.seq, list(delivery.channels)), ("anna", 1, ["desk"]))
        self.assertEqual(delivery.body, encode_message(message))
        self.assertEqual(ids_of(await self.read("anna")), [message.id])
        self.assertEqual(await self.agents_of("visitor-1", "visitor-2"), ["anna", ""])

    async def test_least_loaded_agent(self) -> None:
        """Each new visitor goes to the agent with the fewest, and stays there."""
        await self.begin()
        await self.agent("anna")
        for n in (1, 2):
            await self.ask(f"visitor-{n}")
        await self.agent("bert")
        agents = [(await self.ask(f"visitor-{n}"))[1].agent for n in (3, 4)]
        self.assertEqual(agents, ["bert", "bert"])
        for n in (5, 6):
            await self.ask(f"visitor-{n}")
        self.assertEqual(sorted(await self.agents_of("visitor-5", "visitor-6")), ["anna", "bert"])
        agents = [(await self.ask(f"visitor-{n}"))[1].agent for n in (1, 2, 3, 4)]
        self.assertEqual(agents, ["anna", "anna", "bert", "bert"])

    async def test_one_batch_spreads(self) -> None:
        """Visitors of one batch are shared out like others."""
        await self.begin()
        await self.agent("anna")
        await self.agent("bert")
        outcomes = await self.inbox.accept(
            [submission_of(self.message(f"visitor-{n}")) for n in (1, 2, 3, 4, 1, 2, 3, 4)]
        )
        agents = [outcome.agent for outcome in outcomes]
        self.assertEqual(sorted(agents[:4]), ["anna", "anna", "bert", "bert"])
        self.assertEqual(agents[:4], agents[4:])

    async def test_who_does_not_answer_visitors(self) -> None:
        """Others who are online, and agents who left, get no visitors."""
        await self.begin()
        await self.connect("otto")
        await self.agent("anna")
        await self.leave("anna")
        _, outcome = await self.ask("visitor-1")
        self.assertEqual((list(outcome.deliveries), outcome.agent), ([], ""))

    async def test_agent_whose_lease_ended(self) -> None:
        """An agent whose channel was not renewed is not online."""
        await self.begin(lease_seconds=1)
        await self.agent("anna")
        await self.advance(2.5)
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "")

    async def test_renewal_keeps_an_agent_online(self) -> None:
        """An agent is online as long as its channel is renewed."""
        await self.begin(lease_seconds=40)
        await self.agent("anna")
        await self.advance(20)
        await self.renew("anna", answers=True)
        await self.advance(25)
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "anna")

    async def test_agent_with_two_devices(self) -> None:
        """An agent who leaves with one device and stays with another is online."""
        await self.begin()
        await self.agent("anna", device="one")
        await self.agent("anna", device="two", channel="two")
        await self.leave("anna", "one")
        _, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, list(outcome.deliveries[0].channels)), ("anna", ["two"]))

    # naming an agent

    async def test_visitor_names_its_agent(self) -> None:
        """A visitor may write to the agent it has, or is given by that message, and to nobody else."""
        await self.begin()
        await self.agent("anna")
        self.assertIsInstance((await self.ask("visitor-1", to="anna"))[1], Placed)
        self.assertIsInstance((await self.ask("visitor-1", to="anna"))[1], Placed)
        await self.agent("bert")
        self.assertIsInstance((await self.ask("visitor-1", to="bert"))[1], NotAllowed)
        self.assertIsInstance((await self.ask("visitor-1", to="carol"))[1], NotAllowed)
        self.assertEqual(len((await self.read("anna")).messages), 2)
        self.assertEqual(list((await self.read("bert")).messages), [])

    async def test_visitor_names_somebody_and_nobody_is_online(self) -> None:
        """A message that is not allowed does not wait either."""
        await self.begin()
        self.assertIsInstance((await self.ask("visitor-1", to="anna"))[1], NotAllowed)
        await self.agent("anna")
        self.assertEqual(list(await self.serve()), [])

    async def test_refused_message_may_be_sent_again(self) -> None:
        """A clientMsgId that was refused has not been used."""
        await self.begin()
        message = self.message("visitor-1", client_msg_id="c-1")
        (refused,) = await self.inbox.accept([submission_of(message, visitor_to="anna")])
        (placed,) = await self.inbox.accept([submission_of(message)])
        self.assertIsInstance(refused, NotAllowed)
        self.assertIsInstance(placed, Placed)

    async def test_resend(self) -> None:
        """A visitor's resend is a duplicate that says who has its messages now."""
        await self.begin()
        first, again = (self.message("visitor-1", client_msg_id="c-1") for _ in range(2))
        await self.send(first)
        self.assertEqual(await self.send(again), [Duplicate(first.id, first.send_time, "")])
        await self.agent("anna")
        await self.serve()
        self.assertEqual(await self.send(again), [Duplicate(first.id, first.send_time, "anna")])
        self.assertEqual(ids_of(await self.read("anna")), [first.id])

    # waiting

    async def test_waiting_visitors_are_served_in_order(self) -> None:
        """With nobody online messages wait; the first agent gets them, first come first served, each
        visitor's together and in order."""
        await self.begin()
        sent: dict[str, list[str]] = {"visitor-b": [], "visitor-a": [], "visitor-c": []}
        for visitor in ("visitor-b", "visitor-a", "visitor-b", "visitor-c", "visitor-a"):
            message, outcome = await self.ask(visitor)
            sent[visitor].append(message.id)
            self.assertEqual(outcome, Placed([], ""))
        self.assertEqual(list(await self.serve()), [])
        self.assertEqual(await self.agents_of(*sent), ["", "", ""])

        await self.agent("anna", channel="desk")
        deliveries = await self.serve()
        self.assertEqual({(d.user, *d.channels) for d in deliveries}, {("anna", "desk")})
        self.assertEqual(max(d.seq for d in deliveries), 5)
        page = await self.read("anna")
        self.assertEqual(ids_of(page), [*sent["visitor-b"], *sent["visitor-a"], *sent["visitor-c"]])
        self.assertIn(deliveries[-1].body, [body for _, body in page.messages])
        self.assertEqual(await self.agents_of(*sent), ["anna", "anna", "anna"])
        self.assertEqual(list(await self.serve()), [])

    async def test_waiting_visitors_are_shared_out(self) -> None:
        """Waiting visitors go to the least loaded of the agents online."""
        await self.begin()
        for n in range(6):
            await self.ask(f"visitor-{n}")
        await self.agent("anna")
        await self.agent("bert")
        await self.serve()
        agents = await self.agents_of(*(f"visitor-{n}" for n in range(6)))
        self.assertEqual(sorted(agents), ["anna"] * 3 + ["bert"] * 3)

    async def test_many_waiting_visitors(self) -> None:
        """Serving goes on until all have an agent, however many they are."""
        await self.begin()
        messages = [self.message(f"visitor-{n}") for n in range(130)]
        await self.send(*messages)
        await self.agent("anna")
        await self.serve()
        self.assertEqual(ids_of(await self.read("anna")), [message.id for message in messages])

    async def test_visitor_that_waits_writes_again(self) -> None:
        """Once an agent is there, what a visitor has waiting goes before what it writes next."""
        await self.begin()
        first, second = (await self.ask("visitor-1"))[0], (await self.ask("visitor-1"))[0]
        await self.agent("anna")
        third, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, outcome.deliveries[-1].seq), ("anna", 3))
        self.assertEqual(ids_of(await self.read("anna")), [first.id, second.id, third.id])
        self.assertEqual(list(await self.serve()), [])

    async def test_what_waits_is_bounded(self) -> None:
        """Of more than max_messages the oldest are lost to the desk."""
        await self.begin(max_messages=3)
        messages = [(await self.ask("visitor-1"))[0] for _ in range(5)]
        await self.agent("anna")
        await self.serve()
        self.assertEqual(ids_of(await self.read("anna")), [message.id for message in messages[2:]])

    # agents that go

    async def test_agent_away_for_a_moment(self) -> None:
        """Within the grace period an agent keeps its visitors; their messages are in its inbox."""
        await self.begin(desk_grace_seconds=60)
        await self.agent("anna")
        first, _ = await self.ask("visitor-1")
        await self.leave("anna")
        await self.agent("bert")
        second, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, list(outcome.deliveries[0].channels)), ("anna", []))
        self.assertEqual(list(await self.serve()), [])
        self.assertEqual(await self.agents_of("visitor-1"), ["anna"])
        self.assertEqual(ids_of(await self.read("anna")), [first.id, second.id])

    async def test_agent_gone_for_good(self) -> None:
        """After it, another agent gets the visitor with what nobody has answered, in order."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        await self.ask("visitor-2")
        asked = [(await self.ask("visitor-1"))[0] for _ in range(2)]
        before = await self.read("anna")
        await self.go_for_good("anna")
        await self.agent("bert", channel="desk")
        await self.until(lambda: self.served_to("visitor-1", "bert"))
        page = await self.read("bert")
        ids = [message.id for message in asked]
        self.assertEqual([id for id in ids_of(page) if id in ids], ids)
        self.assertEqual({body for _, body in page.messages}, {body for _, body in before.messages})
        _, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, outcome.deliveries[-1].seq), ("bert", page.head + 1))

    async def test_agent_gone_and_nobody_else(self) -> None:
        """Without another agent the visitor waits, what was not answered before what it writes then."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        first, _ = await self.ask("visitor-1")
        await self.go_for_good("anna")
        await self.serve()
        self.assertEqual(await self.agents_of("visitor-1"), [""])
        second, outcome = await self.ask("visitor-1")
        self.assertEqual(outcome, Placed([], ""))
        await self.agent("bert")
        await self.serve()
        self.assertEqual(ids_of(await self.read("bert")), [first.id, second.id])

    async def test_visitor_writes_before_the_desk_is_served(self) -> None:
        """A visitor whose agent is gone for good and that writes loses nothing on the way to the next."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        first, _ = await self.ask("visitor-1")
        await self.go_for_good("anna")
        await self.agent("bert")
        second, outcome = await self.ask("visitor-1")
        self.assertEqual(outcome.agent, "bert")
        await self.serve()
        self.assertEqual(sorted(ids_of(await self.read("bert"))), [first.id, second.id])

    async def test_agents_inbox_keeps_its_numbers(self) -> None:
        """Messages that are given on stay in the old agent's inbox: numbers have no holes."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        await self.ask("visitor-1")
        await self.send_many("carol", "anna", 1)
        await self.go_for_good("anna")
        await self.agent("bert")
        await self.until(lambda: self.served_to("visitor-1", "bert"))
        self.assertEqual([seq for seq, _ in (await self.read("anna")).messages], [1, 2])
        self.assertEqual((await self.agent("anna")).recovered, True)

    async def test_gone_agent_is_free_again(self) -> None:
        """An agent that lost its visitors comes back with none."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        for n in (1, 2):
            await self.ask(f"visitor-{n}")
        await self.go_for_good("anna", seq=2)
        await self.agent("bert")
        await self.ask("visitor-3")
        await self.serve()
        await self.agent("anna")
        self.assertEqual((await self.ask("visitor-4"))[1].agent, "anna")

    # tokens

    async def test_tokens(self) -> None:
        """A visitor is known by the hash remembered for it, and by no other."""
        await self.begin()
        await self.inbox.remember_visitor("visitor-1", "hash-1")
        self.assertTrue(await self.inbox.knows_visitor("visitor-1", "hash-1"))
        self.assertFalse(await self.inbox.knows_visitor("visitor-1", "hash-2"))
        self.assertFalse(await self.inbox.knows_visitor("visitor-2", "hash-1"))
        self.assertFalse(await self.inbox.knows_visitor("visitor-1", ""))

    async def test_tokens_expire_unused(self) -> None:
        """A token is good for visitor_days after its last use."""
        await self.begin(visitor_days=400 / DAY_SECONDS)
        await self.inbox.remember_visitor("visitor-1", "hash-1")
        for _ in range(2):
            await self.advance(300)
            self.assertTrue(await self.inbox.knows_visitor("visitor-1", "hash-1"))
        await self.advance(450)
        self.assertFalse(await self.inbox.knows_visitor("visitor-1", "hash-1"))
