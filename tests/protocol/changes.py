"""Rules of edits, recalls and reactions in pairs, lists and visitors' conversations."""

from __future__ import annotations

import time
from typing import Any

from tests.protocol.changing import Changing
from tests.protocol.support import pause, record_raw
from tests.support.ws_client import WsClient


class ChangeRules(Changing):
    """From the frame to the other one's inbox, to history and to the answer."""

    async def test_edit(self) -> None:
        """Every field, and the first keys, of an edit; history shows the new text alone."""
        alice, bob = await self.pair()
        to = bob.connected["userId"]
        message = await self.said(alice, bob)
        raw = record_raw(bob)
        more = {"contentType": "text/plain", "mentions": [to], "data": {"a": [1]}}
        accepted = await self.changed(alice, "edit", message, clientMsgId="c-9", msg="hello, world", **more)
        self.assertEqual(accepted["clientMsgId"], "c-9")
        edit = await bob.take("message")
        self.assertEqual(
            edit,
            {
                "seq": 2,
                "kind": "edit",
                "id": accepted["id"],
                "of": message,
                "clientMsgId": "c-9",
                "userId": alice.connected["userId"],
                "fromUserType": "USER_TYPE",
                "to": to,
                "msg": "hello, world",
                **more,
                "sendTime": accepted["sendTime"],
            },
        )
        self.assertTrue(raw[0].startswith(b'{"seq":2,"kind":"edit",'), raw[0])
        self.assertRegex(accepted["id"], "^[0-9a-f]{28}$")
        self.assertGreater(accepted["id"], message)
        edited = {"id": accepted["id"], "time": accepted["sendTime"]}
        want = {"msg": "hello, world", **more, "edited": edited}
        await self.shown(bob, message, want, **{"with": alice.connected["userId"]})
        # An edit is whole: a field that is left out is gone.
        again = await self.changed(alice, "edit", message, msg="hi")
        self.assertEqual(set(await bob.take("message")) & {"contentType", "mentions", "data"}, set())
        gone = dict.fromkeys(more)
        edited = {"id": again["id"], "time": again["sendTime"]}
        await self.shown(alice, message, {"msg": "hi", "edited": edited, **gone}, all=True)

    async def test_reply_stays(self) -> None:
        """An edit leaves `replyTo` as it was."""
        alice, bob = await self.pair()
        first = await self.said(alice, bob)
        alice.send({"to": bob.connected["userId"], "msg": "and", "replyTo": first})
        message = (await alice.take("accepted"))["id"]
        edited = await self.changed(alice, "edit", message, msg="or")
        want = {"msg": "or", "replyTo": first, "edited": {"id": edited["id"], "time": edited["sendTime"]}}
        await self.shown(alice, message, want, all=True)

    async def test_recall(self) -> None:
        """Every field of a recall; the text is gone from every page, and a second recall changes nothing."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob, "a secret")
        await self.changed(alice, "edit", message, msg="an edited secret")
        accepted = await self.changed(alice, "recall", message, clientMsgId="c-10")
        await bob.take("message")
        self.assertEqual(
            await bob.take("message"),
            {
                "seq": 3,
                "kind": "recall",
                "id": accepted["id"],
                "of": message,
                "clientMsgId": "c-10",
                "userId": alice.connected["userId"],
                "fromUserType": "USER_TYPE",
                "to": bob.connected["userId"],
                "sendTime": accepted["sendTime"],
            },
        )
        for client in (alice, bob):
            want = {"msg": "", "recalled": accepted["sendTime"], "edited": None}
            await self.shown(client, message, want, all=True)
            self.assertNotIn("secret", str(await self.history(client, all=True)))
        again = await self.change(alice, "recall", message)
        self.assertEqual(set(again), {"type", "clientMsgId", "changed"})
        self.assertIs(again["changed"], False)
        await self.change_refused(alice, "edit", message, "conflict", msg="too late")
        await self.change_refused(bob, "react", message, "conflict", reaction="👍")
        await self.change_refused(bob, "recall", message, "forbidden")
        await bob.quiet()
        self.assertEqual(list(bob.frames), [])

    async def test_react(self) -> None:
        """Every field of a reaction, of either side; `on` left out is true; off and on again."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        accepted = await self.changed(bob, "react", message, clientMsgId="c-11", reaction="👍")
        self.assertEqual(
            await alice.take("message"),
            {
                "seq": 1,
                "kind": "react",
                "id": accepted["id"],
                "of": message,
                "clientMsgId": "c-11",
                "userId": bob.connected["userId"],
                "fromUserType": "USER_TYPE",
                "to": alice.connected["userId"],
                "reaction": "👍",
                "on": True,
                "sendTime": accepted["sendTime"],
            },
        )
        user = bob.connected["userId"]
        present = {
            "reactions": [{"reaction": "👍", "count": 1, "users": [user]}],
            "reactionsUpTo": accepted["id"],
        }
        await self.shown(alice, message, present, all=True)
        again = await self.change(bob, "react", message, reaction="👍", on=True)
        self.assertEqual(set(again), {"type", "clientMsgId", "changed"})
        off = await self.changed(bob, "react", message, reaction="👍", on=False)
        self.assertIs((await alice.take("message"))["on"], False)
        await self.shown(alice, message, {"reactions": [], "reactionsUpTo": off["id"]}, all=True)
        again = await self.change(bob, "react", message, reaction="👍", on=False)
        self.assertIs(again["changed"], False)
        # One's own message, too.
        await self.changed(alice, "react", message, reaction="🎉")
        self.assertEqual((await bob.take("message"))["to"], user)

    async def test_rights_in_a_pair(self) -> None:
        """Only the author edits and recalls. For others than the two there is no such message."""
        alice, bob = await self.pair()
        eve = await self.login(self.name("eve"))
        message = await self.said(alice, bob)
        for kind, fields in (("edit", {"msg": "mine"}), ("recall", {}), ("react", {"reaction": "👍"})):
            await self.change_refused(eve, kind, message, "not_found", **fields)
        await self.change_refused(bob, "edit", message, "forbidden", msg="mine")
        await self.change_refused(bob, "recall", message, "forbidden")
        await self.change_refused(alice, "edit", message, "forbidden", msg="all", mentions=["@all"])
        for client in (alice, bob):
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def test_unknown_ids(self) -> None:
        """An id that names no message: not_found; while it is young it may be on its way to the archive."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        edit = await self.changed(alice, "edit", message, msg="x")
        for unknown in ("0" * 28, "f" * 28, "nonsense", message.upper(), message[:-1]):
            await self.change_refused(alice, "edit", unknown, "not_found", msg="x")
        # An event is no message.
        await self.eventually(lambda: self.event_is_no_message(alice, edit["id"]))
        young = f"{int(time.time() * 1000):012x}" + "0" * 16
        error = await self.refusal(alice, {"type": "recall", "clientMsgId": "c-1", "id": young})
        self.assertEqual((error["code"], error["temporary"]), ("unavailable", True))
        self.assertGreater(error["retryAfterMs"], 0)
        self.assertEqual(error["clientMsgId"], "c-1")

    async def event_is_no_message(self, client: WsClient, event_id: str) -> bool:
        answer = await self.change(client, "recall", event_id)
        self.assertEqual(answer["code"], "not_found")
        return True

    async def test_limits_of_reactions(self) -> None:
        """Three by one user; the fourth is too_large until one is taken back."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        for reaction in "👍🎉😀":
            await self.changed(bob, "react", message, reaction=reaction)
            await self.eventually(lambda now=reaction: self.has_reaction(bob, message, now))
        await self.change_refused(bob, "react", message, "too_large", reaction="😮")
        await self.changed(bob, "react", message, reaction="🎉", on=False)
        await self.eventually(lambda: self.has_no_reaction(bob, message, "🎉"))
        await self.changed(bob, "react", message, reaction="😮")

    async def has_reaction(self, client: WsClient, message: str, reaction: str) -> bool:
        shown = (await self.entry(client, message, all=True)).get("reactions", [])
        return reaction in {one["reaction"] for one in shown}

    async def has_no_reaction(self, client: WsClient, message: str, reaction: str) -> bool:
        return not await self.has_reaction(client, message, reaction)

    async def test_list(self) -> None:
        """In a list: the others of the list, named as a message of the actor would name them."""
        names = [self.name("alice"), self.name("bob"), self.name("carol")]
        alice, bob, carol = [await self.login(name) for name in names]
        alice.send({"group": [names[2], names[1]], "msg": "all"})
        message = (await alice.take("accepted"))["id"]
        for client in (bob, carol):
            await client.take("message")
        await self.changed(alice, "edit", message, msg="all of you")
        for client in (bob, carol):
            self.assertEqual((await client.take("message"))["group"], [names[2], names[1]])
        await self.changed(bob, "react", message, reaction="👍")
        for client in (alice, carol):
            event = await client.take("message")
            self.assertEqual((event["userId"], sorted(event["group"])), (names[1], [names[0], names[2]]))
        await self.change_refused(bob, "recall", message, "forbidden")
        await self.changed(alice, "recall", message)
        for client in (bob, carol):
            self.assertEqual((await client.take("message"))["kind"], "recall")
        for client in (alice, bob, carol):
            await client.quiet()
            self.assertEqual([frame for frame in client.frames if "seq" in frame], [])

    async def test_note_to_oneself(self) -> None:
        """A note to oneself: one number for each event."""
        alice = await self.login(self.name("alice"))
        user = alice.connected["userId"]
        message = (await alice.say(user, "note"))["id"]
        await self.changed(alice, "edit", message, msg="a note")
        await self.changed(alice, "recall", message)
        events = await alice.messages(3)
        self.assert_seqs(events, 1)
        self.assertEqual([event.get("kind") for event in events], [None, "edit", "recall"])
        self.assertEqual({event["to"] for event in events}, {user})

    async def test_visitor(self) -> None:
        """A visitor's changes go to its agent, an agent's to the visitor; another user finds no message."""
        agent = await self.agent(self.name("agent"), ack=True)
        visitor = await self.visitor(ack=True)
        name = visitor.connected["userId"]
        visitor.send({"msg": "is anyone there?", "clientMsgId": "v-1"})
        asked = (await visitor.take("accepted"))["id"]
        await agent.take("message")
        edited = await self.changed(visitor, "edit", asked, msg="is anyone here?")
        event = await agent.take("message")
        self.assertEqual(
            event,
            {
                "seq": 2,
                "kind": "edit",
                "id": edited["id"],
                "of": asked,
                "clientMsgId": edited["clientMsgId"],
                "userId": name,
                "fromUserType": "VISITOR_TYPE",
                "msg": "is anyone here?",
                "sendTime": edited["sendTime"],
                "isVisitor": True,
            },
        )
        await self.changed(agent, "react", asked, reaction="👀")
        event = await visitor.take("message")
        self.assertEqual(
            (event["kind"], event["to"], event["fromUserType"]), ("react", name, "CUSTOMER_SERVICE")
        )
        answered = (await agent.say(name, "yes"))["id"]
        await visitor.take("message")
        await self.changed(visitor, "react", answered, reaction="❤️")
        event = await agent.take("message")
        self.assertEqual((event["kind"], event["of"], event["isVisitor"]), ("react", answered, True))
        await self.change_refused(visitor, "recall", answered, "forbidden")
        staff = await self.login(self.name("staff"), "desk")
        await self.change_refused(staff, "react", asked, "not_found", reaction="👍")
        other = await self.visitor()
        await self.change_refused(other, "react", asked, "not_found", reaction="👍")
        await self.changed(visitor, "recall", asked)
        self.assertEqual((await agent.take("message"))["kind"], "recall")
        page = await self.history(agent, **{"with": name})
        await self.shown(agent, asked, {"msg": ""}, **{"with": name})
        self.assertEqual([message["id"] for message in page["messages"]], [asked, answered])

    async def test_visitor_in_the_line(self) -> None:
        """With no agent online a visitor's changes wait behind its messages, and go to an agent with them."""
        visitor = await self.visitor(ack=True)
        visitor.send({"msg": "wrong"})
        asked = (await visitor.take("accepted"))["id"]
        await self.changed(visitor, "edit", asked, msg="right")
        await self.changed(visitor, "recall", asked)
        agent = await self.agent(self.name("agent"), ack=True)
        events = await agent.messages(3)
        self.assertEqual([event.get("kind") for event in events], [None, "edit", "recall"])
        name = visitor.connected["userId"]
        await self.shown(agent, asked, {"msg": ""}, **{"with": name})
        self.assertEqual(len((await self.history(agent, **{"with": name}))["messages"]), 1)

    async def test_a_reaction_is_no_answer(self) -> None:
        """An agent that only reacts has not answered: the next agent gets the visitor's question."""
        first = await self.agent(self.name("first"), "grace", ack=True)
        visitor = await self.visitor("grace", ack=True)
        visitor.send({"msg": "help"})
        asked = (await visitor.take("accepted"))["id"]
        await first.take("message")
        begged = await self.changed(visitor, "react", asked, reaction="🙏")
        await self.changed(first, "react", asked, reaction="👀")
        await first.close()
        second = await self.agent(self.name("second"), "grace", ack=True, features=["events"])
        self.assertEqual([event["id"] for event in await second.messages(2)], [asked, begged["id"]])

        async def in_changes() -> bool:
            """The archive has heard that the second agent got the event, which is no entry of a page."""
            second.send({"type": "changes", "ref": "c", "all": True})
            found = [event["id"] for event in (await second.take("changes"))["events"]]
            return begged["id"] in found

        await self.eventually(in_changes)
        page = await self.history(second, all=True)
        self.assertEqual([message["id"] for message in page["messages"]], [asked])
        # Else the agents of later tests would get this visitor.
        await second.say(visitor.connected["userId"], "here I am")

    async def test_order_of_answers(self) -> None:
        """A change holds up the frames behind it: answers and places are in the order of the frames."""
        alice, bob = await self.pair()
        to = bob.connected["userId"]
        message = await self.said(alice, bob)
        alice.send({"clientMsgId": "1", "to": to, "msg": "before"})
        alice.send({"clientMsgId": "2", "type": "edit", "id": message, "msg": "new"})
        alice.send({"clientMsgId": "3", "to": to, "msg": "between"})
        alice.send({"clientMsgId": "4", "type": "edit", "id": message})
        alice.send({"clientMsgId": "5", "type": "react", "id": message, "reaction": "👍"})
        alice.send({"clientMsgId": "6", "type": "recall", "id": "0" * 28})
        alice.send({"clientMsgId": "7", "to": to, "msg": "after"})
        answers = []
        while len(answers) < 7:
            frame = await alice.next()
            if "seq" not in frame:
                answers.append((frame["clientMsgId"], frame.get("code")))
        codes = [None, None, None, "invalid_message", None, "not_found", None]
        self.assertEqual(answers, [(str(number), code) for number, code in enumerate(codes, 1)])
        events = await bob.messages(5)
        self.assertEqual([event["clientMsgId"] for event in events], ["1", "2", "3", "5", "7"])
        self.assert_seqs(events, 2)

    async def test_windows(self) -> None:
        """Past edit_seconds and recall_seconds (2) it is forbidden. Reactions and resends are not bound."""
        alice, bob = await self.pair("small", ack=True)
        self.assertEqual(alice.connected["limits"]["editSeconds"], 2)
        self.assertEqual(alice.connected["limits"]["recallSeconds"], 2)

        async def edited_in_time() -> dict[str, Any] | None:
            message = (await alice.say(bob.connected["userId"], "hi"))["id"]
            answer = await self.change(alice, "edit", message, clientMsgId=self.name("c"), msg="ho")
            return {"of": message, **answer} if answer["type"] == "accepted" else None

        edited = await self.eventually(edited_in_time, 180)
        message = edited.pop("of")
        await pause(2.1)
        await self.change_refused(alice, "edit", message, "forbidden", msg="late")
        await self.change_refused(alice, "recall", message, "forbidden")
        await self.changed(bob, "react", message, reaction="👍")
        again = await self.change(alice, "edit", message, clientMsgId=edited["clientMsgId"], msg="ho")
        self.assertEqual(again, edited)

    async def test_never_and_always(self) -> None:
        """A window of 0 forbids; one of -1 has no end."""
        alice, bob = await self.pair("grace", ack=True)
        limits = alice.connected["limits"]
        self.assertEqual((limits["editSeconds"], limits["recallSeconds"]), (0, -1))
        message = (await alice.say(bob.connected["userId"], "hi"))["id"]
        await self.change_refused(alice, "edit", message, "forbidden", msg="ho")
        await self.changed(alice, "recall", message)

    async def test_costs(self) -> None:
        """As a message to the same people: a list's change costs a tenth for each of them."""
        alice = await self.login(self.name("alice"), "rate")
        group = [self.name("m") for _ in range(40)]
        alice.send({"group": group, "msg": "hi"})
        message = (await alice.take("accepted"))["id"]
        await self.archived(alice, 1, all=True)

        async def second_is_too_much() -> dict[str, Any] | None:
            """The second answer; None when the first one took so long that there was enough for both."""
            # The bucket holds 5 and gets 2 a second: these two together are more than it can hold.
            await pause(2.5)
            names = [self.name("e"), self.name("e")]
            for name in names:
                alice.send({"type": "edit", "clientMsgId": name, "id": message, "msg": f"hi {name}"})
            first, second = [await alice.answer(name) for name in names]
            self.assertEqual(first["type"], "accepted", first)
            return second if second["type"] == "error" else None

        refused = await self.eventually(second_is_too_much)
        self.assertEqual(refused["code"], "rate_limited")
        self.assertGreater(refused["retryAfterMs"], 0)

    async def test_old_devices(self) -> None:
        """A device without features gets the events, too, as numbers have no holes; it may send them."""
        alice, bob = await self.pair()
        self.assertNotIn("features", alice.connected)
        message = await self.said(alice, bob)
        await self.changed(alice, "edit", message, msg="new")
        self.assertEqual((await bob.take("message"))["seq"], 2)
