"""The contract of an Inbox: a visitor's messages that an agent has got and nobody has answered."""

from __future__ import annotations

from imd.contracts.inbox import Duplicate, Placed
from imd.protocol.events import REACT, React, encode_event
from imd.protocol.message import IMessage
from tests.contract.desk_contract import DAY_SECONDS, DeskWords
from tests.contract.support import ids_of, submission_of


class UnansweredContract(DeskWords):
    """The next agent gets what the visitor wrote since the last answer, read or not, each message once."""

    async def open_desk(self, **options: object) -> None:
        """An inbox with a grace period of a second, and anna at the desk."""
        await self.begin(desk_grace_seconds=1, **options)
        await self.agent("anna")

    async def asked(self, count: int = 1, visitor: str = "visitor-1") -> list[str]:
        """The visitor writes so often; gives the ids."""
        messages = [self.message(visitor, msg=f"question {n}") for n in range(count)]
        await self.send(*messages)
        return [message.id for message in messages]

    async def answer(self, agent: str, visitor: str = "visitor-1") -> IMessage:
        message = self.message(agent, visitor, "an answer")
        await self.send(message)
        return message

    async def read_all(self, agent: str) -> None:
        """The agent's device acknowledges whatever there is, and goes for good."""
        await self.go_for_good(agent, seq=(await self.read(agent)).head)

    async def given(self, agent: str, visitor: str = "visitor-1") -> list[str]:
        """The agent comes, and is given the visitor: the ids in its inbox."""
        await self.agent(agent)
        await self.until(lambda: self.served_to(visitor, agent))
        return ids_of(await self.read(agent))

    async def react(self, sender: str, of: str, visitor: str = "visitor-1") -> str:
        """One of the two reacts to a message; gives the event's id."""
        message = self.message(sender, "" if sender == visitor else visitor)
        event = React(
            id=message.id,
            of=of,
            user_id=sender,
            from_user_type=message.from_user_type,
            to=message.to,
            reaction="👍",
            on=True,
            send_time=message.send_time,
            is_visitor=message.is_visitor,
        )
        submission = submission_of(message)
        submission.body, submission.kind = encode_event(event), REACT
        [outcome] = await self.inbox.accept([submission])
        self.assertIsInstance(outcome, Placed)
        return event.id

    # who answers

    async def test_reaction_of_the_agent(self) -> None:
        """An agent's event about a visitor's message is no answer."""
        await self.open_desk()
        asked = await self.asked(2)
        await self.react("anna", asked[0])
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked)

    async def test_reaction_of_the_visitor(self) -> None:
        """A visitor's event goes to the next agent with the messages, once, and waits if there is none."""
        await self.open_desk()
        asked = await self.asked(2)
        asked.append(await self.react("visitor-1", asked[0]))
        await self.read_all("anna")
        asked.append(await self.react("visitor-1", asked[1]))
        self.assertEqual(await self.given("bert"), asked)
        await self.read_all("bert")
        # Anna got all but the last.
        self.assertEqual(await self.given("anna"), asked[3:])

    async def test_read_and_not_answered(self) -> None:
        """Messages that were acknowledged and never answered go to the next agent, under the same ids."""
        await self.open_desk()
        asked = await self.asked(2)
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked)

    async def test_answered(self) -> None:
        """An answer settles the messages before it, and not the ones after it."""
        await self.open_desk()
        await self.asked(2)
        await self.answer("anna")
        later = await self.asked(2)
        await self.go_for_good("anna", seq=1)
        self.assertEqual(await self.given("bert"), later)

    async def test_everything_answered(self) -> None:
        """An answered visitor is given to another with nothing, if one is online; else it is free."""
        await self.open_desk()
        await self.asked()
        await self.answer("anna")
        await self.agent("bert")
        await self.go_for_good("anna")
        await self.until(lambda: self.served_to("visitor-1", "bert"))
        self.assertEqual(ids_of(await self.read("bert")), [])
        await self.go_for_good("bert")
        await self.serve()
        await self.agent("carl")
        self.assertEqual(list(await self.serve()), [])
        self.assertEqual(await self.agents_of("visitor-1"), [""])

    async def test_order_within_a_batch(self) -> None:
        """Question and answer of one batch count in their order."""
        await self.open_desk()
        first, last = (self.message("visitor-1", msg=text) for text in ("first", "last"))
        await self.send(first, self.message("anna", "visitor-1"), last)
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), [last.id])

    async def test_another_one_writes_to_the_visitor(self) -> None:
        """Only the visitor's agent answers for the desk."""
        await self.open_desk()
        asked = await self.asked()
        await self.answer("carol")
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked)

    async def test_answers_of_each_agent_count(self) -> None:
        """The last answer counts, whichever agent it came from."""
        await self.open_desk()
        await self.asked()
        await self.read_all("anna")
        await self.given("bert")
        await self.answer("bert")
        later = await self.asked()
        await self.read_all("bert")
        self.assertEqual(await self.given("carl"), later)

    async def test_resends(self) -> None:
        """A question sent again is not asked again; an answer sent again answers nothing after it."""
        await self.open_desk()
        question = self.message("visitor-1", client_msg_id="q-1")
        answer = self.message("anna", "visitor-1", client_msg_id="a-1")
        await self.send(question, answer)
        later = await self.asked()
        again = await self.send(question, answer)
        self.assertEqual([type(outcome) for outcome in again], [Duplicate, Duplicate])
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), later)

    # how much

    async def test_no_more_than_fifty(self) -> None:
        """Of many the newest fifty are given on."""
        await self.open_desk()
        asked = [id for _ in range(4) for id in await self.asked(16)]
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked[-50:])

    async def test_with_what_waits(self) -> None:
        """Messages that nobody has got come behind messages that others got; together the newest fifty."""
        await self.open_desk()
        asked = await self.asked(48)
        await self.read_all("anna")
        await self.serve()
        asked += await self.asked(5)
        self.assertEqual(await self.given("bert"), asked[-50:])

    async def test_what_nobody_got_is_given_whole(self) -> None:
        """More than fifty that waited while nobody was there are all given."""
        await self.open_desk()
        await self.asked(3)
        await self.read_all("anna")
        await self.serve()
        waited = await self.asked(60)
        self.assertEqual(await self.given("bert"), waited)

    async def test_what_waits_stays_bounded(self) -> None:
        """Messages that come back to wait count as well."""
        await self.open_desk(max_messages=4)
        asked = await self.asked(4)
        await self.go_for_good("anna")
        await self.serve()
        asked += await self.asked(2)
        self.assertEqual(await self.given("bert"), asked[-4:])

    # nothing twice

    async def test_back_to_the_same_agent(self) -> None:
        """An agent that gets a visitor back gets only what it has not got before, whatever it has read."""
        await self.open_desk()
        asked = await self.asked(2)
        for reads in (True, False):
            await (self.read_all("anna") if reads else self.go_for_good("anna"))
            await self.serve()
            asked += await self.asked()
            await self.given("anna")
            self.assertEqual((await self.read("anna")).head, len(asked))
        self.assertEqual(ids_of(await self.read("anna"))[-2:], asked[-2:])
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked)

    async def test_to_another_and_back(self) -> None:
        """So it is when another agent had the visitor meanwhile."""
        await self.open_desk()
        first = await self.asked()
        await self.go_for_good("anna")
        self.assertEqual(await self.given("bert"), first)
        second = await self.asked()
        await self.read_all("bert")
        self.assertEqual(await self.given("anna"), first + second)
        await self.go_for_good("anna")
        third, outcome = await self.ask("visitor-1")
        self.assertEqual(outcome, Placed([], ""))
        await self.given("bert")
        self.assertEqual((await self.read("bert")).head, 3)
        self.assertEqual(ids_of(await self.read("bert"))[-1:], [third.id])

    async def test_visitor_writes_to_the_next_agent(self) -> None:
        """Before the desk is served: what the last agent had read goes before what is written now."""
        await self.open_desk()
        asked = await self.asked(2)
        await self.read_all("anna")
        await self.agent("bert")
        message, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, outcome.deliveries[-1].seq), ("bert", 3))
        self.assertEqual(ids_of(await self.read("bert")), [*asked, message.id])
        self.assertEqual(list(await self.serve()), [])

    async def test_answered_while_it_waits(self) -> None:
        """Nobody's visitor has no agent whose message would be an answer."""
        await self.open_desk()
        asked = await self.asked()
        await self.read_all("anna")
        await self.serve()
        await self.answer("anna")
        self.assertEqual(await self.given("bert"), asked)

    # for how long

    async def test_silent_for_days(self) -> None:
        """A question is owed an answer for as long as messages are kept, not only for a day."""
        await self.open_desk(keep_days=10, lease_seconds=30 * DAY_SECONDS)
        asked = await self.asked()
        await self.advance(3 * DAY_SECONDS)
        await self.serve()
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), asked)

    async def test_silent_for_longer_than_messages_are_kept(self) -> None:
        """Then nobody gets it any more."""
        await self.open_desk(keep_days=2, lease_seconds=30 * DAY_SECONDS)
        await self.asked()
        await self.advance(2.5 * DAY_SECONDS)
        await self.settle_down()
        await self.read_all("anna")
        await self.serve()
        await self.agent("bert")
        await self.serve()
        self.assertEqual(ids_of(await self.read("bert")), [])

    async def settle_down(self) -> None:
        """Let the backend do what it does now and then."""

    async def test_silent_visitors_are_no_load(self) -> None:
        """A visitor that was silent for a day is no load of its agent, until it writes again."""
        await self.open_desk(lease_seconds=30 * DAY_SECONDS)
        await self.asked(visitor="visitor-1")
        await self.asked(visitor="visitor-2")
        await self.advance(1.5 * DAY_SECONDS)
        await self.settle_down()
        await self.serve()
        await self.agent("bert")
        agents = [(await self.ask(f"visitor-{n}"))[1].agent for n in (3, 4)]
        self.assertEqual(sorted(agents), ["anna", "bert"])
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "anna")
        self.assertEqual((await self.ask("visitor-5"))[1].agent, "bert")

    async def test_names_its_agent(self) -> None:
        """A visitor that names the agent is answered for all the same."""
        await self.open_desk()
        message = self.message("visitor-1")
        await self.inbox.accept([submission_of(message, visitor_to="anna")])
        await self.read_all("anna")
        self.assertEqual(await self.given("bert"), [message.id])
