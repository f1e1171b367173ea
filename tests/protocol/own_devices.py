"""Rules of features, of the fields that few messages have, and of one's own other devices."""

from __future__ import annotations

from tests.protocol.support import Rules, record_raw


class OwnDeviceRules(Rules):
    """From one device to the recipient, and to the sender's other devices."""

    async def test_data_byte_for_byte(self) -> None:
        """`data` reaches the recipient and its history as it was written; so do the other fields."""
        alice, bob = self.name("alice"), self.name("bob")
        recipient, sender = await self.login(bob), await self.login(alice)
        raw = record_raw(recipient)
        data = b'{ "b":1.0e2,\t"a":[12345678901234567890, "\\u00e9"] }'
        sender.send_raw(
            b'{"clientMsgId":"c-1","to":"%b","msg":"hi","replyTo":"%b","mentions":["%b"],"data":%b}'
            % (bob.encode(), b"0" * 28, bob.encode(), data)
        )
        await sender.expect("accepted")
        message = await recipient.take("message")
        self.assertEqual((message["replyTo"], message["mentions"]), ("0" * 28, [bob]))
        self.assertIn(b'"data":' + data + b",", raw[0])
        raw.clear()
        await self.archived(recipient, 1, **{"with": alice})
        self.assertIn(b'"data":' + data, raw[-1])

    async def test_resend_with_more(self) -> None:
        """Another `replyTo`, `mentions` or `data` under the same clientMsgId is another message."""
        bob = self.name("bob")
        sender = await self.login(self.name("alice"))
        first = {"clientMsgId": "c-1", "to": bob, "msg": "hi", "data": {"a": 1}}
        sender.send(first)
        accepted = await sender.expect("accepted")
        sender.send(first)
        self.assertEqual((await sender.expect("accepted"))["id"], accepted["id"])
        for other in ({"data": {"a": 2}}, {"data": None}, {"replyTo": "0" * 28}, {"mentions": [bob]}):
            sender.send({**first, **other})
            self.assertEqual((await sender.expect("error"))["code"], "invalid_message")

    async def test_other_devices(self) -> None:
        """Each of the user's devices, on any node, gets what one of them sends, once, under one number."""
        alice, bob = self.name("alice"), self.name("bob")
        recipient = await self.login(bob)
        phone = await self.login(alice, device="phone", features=["sync"])
        laptop = await self.login(alice, device="laptop", features=["sync", "events", "none"])
        self.assertEqual(phone.connected["features"], ["sync"])
        self.assertEqual(sorted(laptop.connected["features"]), ["events", "sync"])
        phone.send({"clientMsgId": "c-1", "to": bob, "msg": "hi"})
        seen = [await phone.next(), await phone.next()]
        [copy] = [frame for frame in seen if "seq" in frame]
        [accepted] = [frame for frame in seen if "seq" not in frame]
        self.assertEqual((accepted["type"], accepted["id"]), ("accepted", copy["id"]))
        self.assertEqual(await laptop.take("message"), copy)
        self.assertEqual((await recipient.take("message"))["id"], copy["id"])
        phone.send({"clientMsgId": "c-2", "to": alice, "msg": "to myself"})
        self.assertEqual((await laptop.take("message"))["seq"], 2)
        await laptop.quiet()
        self.assertEqual(list(laptop.frames), [])

    async def test_without_features(self) -> None:
        """A client that asks for none is told of none, and nobody gets copies."""
        alice, bob = self.name("alice"), self.name("bob")
        phone = await self.login(alice, device="phone")
        laptop = await self.login(alice, device="laptop", features=[])
        for client in (phone, laptop):
            self.assertNotIn("features", client.connected)
        await phone.say(bob, "hi")
        await laptop.say(alice, "to myself")
        self.assertEqual((await phone.take("message"))["msg"], "to myself")
