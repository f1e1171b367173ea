"""Rules of changes that come again, and of a user's other devices."""

from __future__ import annotations

from tests.protocol.changing import Changing


class ChangeResendRules(Changing):
    """The same change again, and on other devices."""

    async def test_resends_come_first(self) -> None:
        """The answer stays what it was, after text, recall and membership have changed; it is placed once."""
        alice, bob = await self.pair()
        device = {"device": "phone"}
        phone = await self.login(alice.connected["userId"], **device)
        message = await self.said(phone, bob)
        first = await self.changed(phone, "edit", message, clientMsgId="e-1", msg="one")
        liked = await self.changed(bob, "react", message, clientMsgId="l-1", reaction="👍")
        self.assertEqual(await self.change(phone, "edit", message, clientMsgId="e-1", msg="one"), first)
        await self.changed(phone, "edit", message, clientMsgId="e-2", msg="two")
        self.assertEqual(await self.change(phone, "edit", message, clientMsgId="e-1", msg="one"), first)
        recalled = await self.changed(phone, "recall", message, clientMsgId="r-1")
        again = await self.login(alice.connected["userId"], **device)
        self.assertEqual(await self.change(again, "edit", message, clientMsgId="e-1", msg="one"), first)
        self.assertEqual(await self.change(again, "recall", message, clientMsgId="r-1"), recalled)
        self.assertEqual(await self.change(bob, "react", message, clientMsgId="l-1", reaction="👍"), liked)
        events = await bob.messages(3)
        self.assertEqual([event["clientMsgId"] for event in events], ["e-1", "e-2", "r-1"])
        await bob.quiet()
        self.assertEqual(list(bob.frames), [])
        await self.shown(bob, message, {"msg": "", "edited": None}, all=True)

    async def test_change_with_other_content(self) -> None:
        """A clientMsgId that was used for something else is invalid_message, and changes nothing."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        other = await self.said(alice, bob, "other")
        first = await self.changed(alice, "edit", message, clientMsgId="e-1", msg="one")
        await alice.say(bob.connected["userId"], "hi", clientMsgId="m-1")
        for kind, target, fields in (
            ("edit", message, {"clientMsgId": "e-1", "msg": "two"}),
            ("edit", other, {"clientMsgId": "e-1", "msg": "one"}),
            ("edit", message, {"clientMsgId": "e-1", "msg": "one", "contentType": "text/x"}),
            ("edit", message, {"clientMsgId": "e-1", "msg": "one", "data": {}}),
            ("recall", message, {"clientMsgId": "e-1"}),
            ("react", message, {"clientMsgId": "e-1", "reaction": "👍"}),
            ("edit", message, {"clientMsgId": "m-1", "msg": "hi"}),
            ("recall", message, {"clientMsgId": "m-1"}),
        ):
            await self.change_refused(alice, kind, target, "invalid_message", **fields)
        error = await self.refusal(alice, {"clientMsgId": "e-1", "to": bob.connected["userId"], "msg": "one"})
        self.assertEqual(error["code"], "invalid_message")
        self.assertEqual(await self.change(alice, "edit", message, clientMsgId="e-1", msg="one"), first)

    async def test_change_resent_at_once(self) -> None:
        """Even when the resend does not wait for the first answer."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        for _ in range(4):
            alice.send({"type": "react", "clientMsgId": "l-1", "id": message, "reaction": "👍"})
        answers = [await alice.take("accepted") for _ in range(4)]
        self.assertEqual(len({(answer["id"], answer["sendTime"]) for answer in answers}), 1)
        await alice.say(bob.connected["userId"], "end")
        self.assertEqual([event.get("kind") for event in await bob.messages(2)], ["react", None])

    async def test_own_devices(self) -> None:
        """The user's other devices get what one of them changes, on whichever node, if they asked for it."""
        user = self.name("alice")
        phone = await self.login(user, device="phone", features=["events", "sync"])
        bob = await self.login(self.name("bob"))
        desk = await self.login(user, device="desk", features=["events", "sync"])
        message = await self.said(phone, bob)
        changes = [
            await self.changed(phone, "edit", message, msg="new"),
            await self.changed(phone, "react", message, reaction="👍"),
            await self.changed(phone, "recall", message),
        ]
        for device in (phone, desk):
            events = await device.messages(4)
            self.assert_seqs(events, 1)
            self.assertEqual([event["id"] for event in events], [message, *(one["id"] for one in changes)])
            self.assertEqual({event["to"] for event in events}, {bob.connected["userId"]})
        self.assertEqual([event["id"] for event in await bob.messages(3)], [one["id"] for one in changes])

    async def test_missed(self) -> None:
        """A device that was away gets the message and what happened to it; a recall is behind its text."""
        alice = await self.login(self.name("alice"))
        bob = self.name("bob")
        await (await self.login(bob, device="d")).close()
        message = (await alice.say(bob, "a secret"))["id"]
        await self.changed(alice, "edit", message, msg="a new secret")
        await self.changed(alice, "recall", message)
        back = await self.login(bob, device="d", ack=True)
        events = await back.messages(3)
        self.assertEqual([event.get("kind") for event in events], [None, "edit", "recall"])
        self.assert_seqs(events, 1)
