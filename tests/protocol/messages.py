"""Rules of messages: what is accepted, in which order, and how often."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from tests.protocol.support import Rules, pause, record_raw
from tests.support.ws_client import WsClient


class MessageRules(Rules):
    """From a sender to `accepted` and to its recipients."""

    async def test_whole_message(self) -> None:
        """`accepted` first, then what the recipient gets: every field, `type` and `seq` as first keys."""
        alice, bob = self.name("alice"), self.name("bob")
        sender, recipient = await self.login(alice), await self.login(bob)
        raw_accepted, raw_message = record_raw(sender), record_raw(recipient)
        before = time.time() * 1000
        sender.send({"clientMsgId": "c-1", "to": bob, "msg": "hi"})
        accepted = await sender.expect("accepted")
        after = time.time() * 1000
        message = await recipient.expect("message")
        self.assertEqual(set(accepted), {"type", "clientMsgId", "id", "sendTime"})
        self.assertEqual(accepted["clientMsgId"], "c-1")
        self.assertIsInstance(accepted["sendTime"], int)
        # The node's clock may be that of Redis.
        self.assertTrue(before - 1_000 < accepted["sendTime"] < after + 1_000)
        self.assertEqual(
            message,
            {
                "seq": 1,
                "id": accepted["id"],
                "clientMsgId": "c-1",
                "userId": alice,
                "fromUserType": "USER_TYPE",
                "to": bob,
                "msg": "hi",
                "sendTime": accepted["sendTime"],
            },
        )
        self.assertTrue(raw_accepted[0].startswith(b'{"type":"accepted"'), raw_accepted[0])
        self.assertTrue(raw_message[0].startswith(b'{"seq":1,'), raw_message[0])

    async def test_without_client_msg_id(self) -> None:
        """clientMsgId is optional: then neither the answer nor the message has one."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        accepted = await sender.say(bob.connected["userId"], "hi")
        self.assertEqual(set(accepted), {"type", "id", "sendTime"})
        message = await bob.take("message")
        self.assertNotIn("clientMsgId", message)
        # Nothing tells two such messages to be one.
        again = await sender.say(bob.connected["userId"], "hi")
        self.assertNotEqual(again["id"], accepted["id"])
        self.assertEqual((await bob.take("message"))["id"], again["id"])

    async def test_content_type_and_unknown_fields(self) -> None:
        """contentType is passed through; fields that nobody knows are ignored."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        await sender.say(bob.connected["userId"], "# hi", contentType="text/markdown", mood={"good": [1]})
        message = await bob.take("message")
        self.assertEqual(message["contentType"], "text/markdown")
        self.assertNotIn("mood", message)

    async def test_empty_fields(self) -> None:
        """Empty counts as left out, and is not passed on."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        empty = {"userId": "", "contentType": "", "replyTo": ""}
        await sender.say(bob.connected["userId"], "hi", **empty)
        message = await bob.take("message")
        self.assertEqual(message["userId"], sender.connected["userId"])
        self.assertEqual(set(message) & (set(empty) - {"userId"}), set())

    async def test_server_sets_what_is_the_servers(self) -> None:
        """id, sendTime, seq, fromUserType and isVisitor cannot be forged."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        forged = {"id": "x", "sendTime": 1, "seq": 99, "fromUserType": "CUSTOMER_SERVICE", "isVisitor": True}
        accepted = await sender.say(bob.connected["userId"], "hi", **forged)
        message = await bob.take("message")
        self.assertNotIn(message["id"], ("x", ""))
        self.assertEqual((message["seq"], message["sendTime"]), (1, accepted["sendTime"]))
        self.assertGreater(message["sendTime"], 1_600_000_000_000)
        self.assertEqual(message["fromUserType"], "USER_TYPE")
        self.assertNotIn("isVisitor", message)

    async def test_any_text(self) -> None:
        """A message arrives as it was written, whatever is in it."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        for text in ("a\x00b", '"\\/\b\f\n\r\t', "😀 ü \u2028 \ufeff \uffff", "</script>", " ", "\U0010ffff"):
            await sender.say(bob.connected["userId"], text)
            self.assertEqual((await bob.take("message"))["msg"], text)

    async def test_fragments(self) -> None:
        """A message may come in WebSocket fragments, with a ping between them."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        payload = f'{{"to":"{bob.connected["userId"]}","msg":"in ünny parts"}}'.encode()
        sender.protocol.beginMessage()
        for start in range(0, len(payload), 7):
            sender.protocol.sendMessageFrame(payload[start : start + 7])
            sender.protocol.sendPing(b"between")
        sender.protocol.endMessage()
        await sender.take("accepted")
        self.assertEqual((await bob.take("message"))["msg"], "in ünny parts")

    async def test_senders_type(self) -> None:
        """A message tells what its sender is."""
        bob = await self.login(self.name("bob"))
        for fields, expected in (
            ({"loginType": "customer"}, "CUSTOMER_TYPE"),
            ({"loginType": "user"}, "USER_TYPE"),
        ):
            sender = await self.login(self.name("alice"), **fields)
            await sender.say(bob.connected["userId"], "hi")
            self.assertEqual((await bob.take("message"))["fromUserType"], expected)

    async def test_group(self) -> None:
        """A group message reaches each member once, whole, with the list."""
        sender = await self.login(self.name("alice"))
        members = [await self.login(self.name("member")) for _ in range(4)]
        group = [member.connected["userId"] for member in members]
        sender.send({"clientMsgId": "g-1", "group": group, "msg": "hi all"})
        accepted = await sender.expect("accepted")
        for member in members:
            message = await member.take("message")
            self.assertEqual((message["id"], message["seq"]), (accepted["id"], 1))
            self.assertEqual(sorted(message["group"]), sorted(group))
            self.assertNotIn("to", message)
        await sender.quiet()
        self.assertEqual(list(sender.frames), [])

    async def test_group_is_a_set(self) -> None:
        """A recipient named twice gets it once; the sender gets it if it names itself."""
        sender = await self.login(self.name("alice"))
        bob = await self.login(self.name("bob"))
        a, b = sender.connected["userId"], bob.connected["userId"]
        sender.send({"clientMsgId": "g", "group": [b, a, b, b, a], "msg": "hi"})
        await sender.take("accepted")
        for client in (sender, bob):
            self.assertEqual((await client.take("message"))["msg"], "hi")
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def test_to_wins_over_group(self) -> None:
        """With both, `to` gets it and the group does not."""
        sender = await self.login(self.name("alice"))
        bob, carol = await self.login(self.name("bob")), await self.login(self.name("carol"))
        await sender.say(bob.connected["userId"], "hi", group=[carol.connected["userId"]])
        message = await bob.take("message")
        self.assertEqual(message["to"], bob.connected["userId"])
        self.assertFalse(message.get("group"))
        await carol.quiet()
        self.assertEqual(list(carol.frames), [])

    async def test_empty_to_falls_back_to_the_group(self) -> None:
        """An empty `to` is none."""
        sender, bob = await self.login(self.name("alice")), await self.login(self.name("bob"))
        sender.send({"to": "", "group": [bob.connected["userId"]], "msg": "hi"})
        await sender.take("accepted")
        self.assertEqual((await bob.take("message"))["group"], [bob.connected["userId"]])

    async def test_to_oneself(self) -> None:
        """One's own conversation: each of one's devices gets it."""
        user = self.name("alice")
        phone, desk = await self.login(user, device="phone"), await self.login(user, device="desk")
        accepted = await phone.say(user, "note")
        for client in (phone, desk):
            self.assertEqual((await client.take("message"))["id"], accepted["id"])

    async def test_rules_of_the_seed(self) -> None:
        """isMsgOK: a message without text or without a recipient is invalid_message."""
        client = await self.login(self.name("alice"))
        for frame in (
            {"to": "bob", "msg": ""},
            {"to": "bob"},
            {"msg": "hi"},
            {"to": "", "msg": "hi"},
            {"group": [], "msg": "hi"},
            {"to": "", "group": [], "msg": "hi"},
            {"to": "b\nob", "msg": "hi"},
            {"to": "x" * 129, "msg": "hi"},
            {"group": ["bob", ""], "msg": "hi"},
            {"group": ["x" * 129], "msg": "hi"},
            {"clientMsgId": "c" * 65, "to": "bob", "msg": "hi"},
            {},
        ):
            error = await self.refusal(client, frame)
            self.assertEqual((error["code"], error["temporary"]), ("invalid_message", False), frame)
        longest = await client.say(client.connected["userId"], "hi", clientMsgId="ü" * 64)
        self.assertEqual(longest["clientMsgId"], "ü" * 64)

    async def test_anothers_user_id(self) -> None:
        """A frame may name its own user and no other."""
        client = await self.login(self.name("alice"))
        user = client.connected["userId"]
        error = await self.refusal(client, {"clientMsgId": "c", "userId": "bob", "to": user, "msg": "hi"})
        self.assertEqual((error["code"], error["clientMsgId"]), ("forbidden", "c"))
        await client.say(user, "hi", userId=user)
        self.assertEqual((await client.take("message"))["userId"], user)

    async def test_answers_come_in_order(self) -> None:
        """Exactly one answer per message, in the order sent, errors in between at their place."""
        client = await self.login(self.name("alice"))
        recipient = await self.login(self.name("bob"), ack=True)
        expected = []
        for number in range(60):
            client_msg_id = f"c-{number}"
            frame: dict[str, Any] = {"clientMsgId": client_msg_id, "to": recipient.connected["userId"]}
            kind = "accepted"
            if number % 7 == 3:
                kind = "error"
            elif number % 7 == 5:
                kind, frame["to"] = "error", 5
            frame["msg"] = "" if number % 7 == 3 else str(number)
            client.send(frame)
            expected.append((kind, client_msg_id))
        client.send({"type": "ping"})
        answers = []
        while len(answers) < len(expected):
            frame = await client.next()
            if frame["type"] != "pong":
                answers.append((frame["type"], frame.get("clientMsgId")))
        self.assertEqual(answers, expected)
        good = [int(name[2:]) for kind, name in expected if kind == "accepted"]
        messages = await recipient.messages(len(good))
        self.assertEqual([int(message["msg"]) for message in messages], good)
        await client.quiet()
        self.assertEqual([frame for frame in client.frames if frame["type"] != "pong"], [])

    async def test_too_large(self) -> None:
        """A msg over message_bytes (of UTF-8) is too_large, one of exactly that is accepted."""
        client = await self.login(self.name("alice"))
        user = client.connected["userId"]
        for text in ("x" * 65537, "ü" * 32769, "😀" * 16385):
            client.send_raw(f'{{"clientMsgId":"big","to":"{user}","msg":"{text}"}}'.encode())
            error = await client.expect("error")
            self.assertEqual((error["code"], error["clientMsgId"]), ("too_large", "big"))
            self.assertFalse(error["temporary"])
        for text in ("x" * 65536, "ü" * 32768):
            client.send_raw(f'{{"to":"{user}","msg":"{text}"}}'.encode())
            await client.take("accepted")
            self.assertEqual((await client.take("message"))["msg"], text)

    async def test_escaped(self) -> None:
        """A msg within message_bytes is accepted and delivered however JSON escapes it."""
        bob, carol = self.name("bob"), self.name("carol")
        recipient = await self.login(bob)
        client = await self.login(self.name("alice"))
        for text in ("😀" * 16384, "\x01" * 65536):
            for other in (bob, carol):
                frame = json.dumps({"clientMsgId": secrets.token_hex(8), "to": other, "msg": text})
                self.assertGreater(len(frame), 3 * 65536)
                client.send_raw(frame.encode())
                await client.expect("accepted")
            (message,) = await recipient.messages(1)
            self.assertEqual(message["msg"], text)
        # Of one that was away, the inbox has them; and the archive.
        late = await self.login(carol)
        self.assertEqual([len(message["msg"]) for message in await late.messages(2)], [16384, 65536])
        await self.archived_length(client, carol, 65536)

    async def archived_length(self, client: WsClient, other: str, length: int) -> None:
        """Wait until the newest message of the conversation in the archive has this length."""

        async def there() -> bool:
            client.send({"type": "history", "ref": "h", "with": other, "limit": 1})
            page = await client.expect("history")
            return [len(message["msg"]) for message in page["messages"]] == [length]

        await self.eventually(there)

    async def test_group_too_large(self) -> None:
        """More members than groupMembers are too_large."""
        client = await self.login(self.name("alice"))
        group = [self.name("m") for _ in range(501)]
        error = await self.refusal(client, {"clientMsgId": "g", "group": group, "msg": "hi"})
        self.assertEqual(error["code"], "too_large")
        client.send({"clientMsgId": "g", "group": group[:500], "msg": "hi"})
        await client.expect("accepted")

    async def test_huge_frames(self) -> None:
        """A frame over six times message_bytes plus 64 KiB is closed with 1009; one below is answered."""
        client = await self.login(self.name("alice"))
        limit = 6 * 65536 + 65536
        shell = len(b'{"to":"bob","msg":""}')
        client.send_raw(b'{"to":"bob","msg":"' + b"x" * (limit - shell) + b'"}')
        self.assertEqual((await client.expect("error"))["code"], "too_large")
        client.send_raw(b'{"to":"bob","msg":"' + b"x" * (limit - shell + 1) + b'"}')
        self.assertEqual(await client.wait_closed(), 1009)

    async def test_rate_limit(self) -> None:
        """Past the burst: rate_limited, temporary, with a time after which the same message is accepted."""
        user = self.name("alice")
        client = await self.login(user, "rate")
        for number in range(8):
            client.send({"clientMsgId": f"c-{number}", "to": user, "msg": str(number)})
        answers = []
        while len(answers) < 8:
            frame = await client.next()
            if "seq" not in frame:
                answers.append(frame)
        self.assertEqual([answer["clientMsgId"] for answer in answers], [f"c-{n}" for n in range(8)])
        self.assertEqual({answer["type"] for answer in answers[:5]}, {"accepted"})
        last = answers[-1]
        self.assertEqual((last["type"], last["code"], last["temporary"]), ("error", "rate_limited", True))
        self.assertIsInstance(last["retryAfterMs"], int)
        self.assertGreater(last["retryAfterMs"], 0)
        self.assertLess(last["retryAfterMs"], 5000)
        await pause(last["retryAfterMs"] / 1000 + 0.05)
        client.send({"clientMsgId": "c-7", "to": user, "msg": "7"})
        self.assertEqual((await client.take("accepted"))["clientMsgId"], "c-7")

    async def test_recipients_that_never_connected(self) -> None:
        """A sender begins so many inboxes that no device has opened, on all connections; those hold less."""
        client = await self.login(self.name("alice"), "grace")
        bob, carol = self.name("bob"), self.name("carol")
        await client.say(bob, "0")
        group = [carol, self.name("x")]
        error = await self.refusal(client, {"clientMsgId": "c-1", "group": group, "msg": "hi"})
        self.assertEqual((error["code"], error["temporary"]), ("rate_limited", True))
        self.assertTrue(0 < error["retryAfterMs"] <= 3_600_000, error)
        await client.say(carol, "0")
        again = await self.login(client.connected["userId"], "grace", device="another")
        for user in (self.name("y"), self.name("z")):
            error = await self.refusal(again, {"clientMsgId": "c-2", "to": user, "msg": "hi"})
            self.assertEqual((error["code"], error["clientMsgId"]), ("rate_limited", "c-2"))
        group = [self.name("m") for _ in range(3)]
        error = await self.refusal(again, {"group": group, "msg": "hi"})
        self.assertEqual((error["code"], error["temporary"]), ("too_large", False))
        for number in range(1, 5):
            await again.say(bob, str(number))
        recipient = await self.login(bob, "grace", ack=True)
        self.assertEqual((recipient.connected["seq"], recipient.connected["recovered"]), (2, False))
        self.assertEqual([message["msg"] for message in await recipient.messages(3)], ["2", "3", "4"])

    async def test_rate_limit_counts_recipients(self) -> None:
        """A group list counts its recipients / 10."""
        client = await self.login(self.name("alice"), "rate")
        group = [self.name("m") for _ in range(40)]
        # At once: while the first is waited for, the second one's tokens would come in.
        for client_msg_id in ("g-1", "g-2"):
            client.send({"clientMsgId": client_msg_id, "group": group, "msg": "hi"})
        await client.expect("accepted")
        self.assertEqual((await client.expect("error"))["code"], "rate_limited")


class ResendRules(Rules):
    """The same clientMsgId again."""

    async def test_resend_is_delivered_once(self) -> None:
        """A resend is answered with the first id and sendTime, and delivered once."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        to = bob.connected["userId"]
        first = await sender.say(to, "hi", clientMsgId="c-1")
        for _ in range(3):
            self.assertEqual(await sender.say(to, "hi", clientMsgId="c-1"), first)
        await sender.say(to, "end", clientMsgId="c-2")
        self.assertEqual([message["msg"] for message in await bob.messages(2)], ["hi", "end"])

    async def test_resend_at_once(self) -> None:
        """Even when the resend does not wait for the first answer."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        for _ in range(5):
            sender.send({"clientMsgId": "c-1", "to": bob.connected["userId"], "msg": "hi"})
        answers = [await sender.take("accepted") for _ in range(5)]
        self.assertEqual(len({(answer["id"], answer["sendTime"]) for answer in answers}), 1)
        await sender.say(bob.connected["userId"], "end")
        self.assertEqual([message["msg"] for message in await bob.messages(2)], ["hi", "end"])

    async def test_resend_from_a_new_connection(self) -> None:
        """From another connection of the device, on whichever node, it is still the same message."""
        alice = self.name("alice")
        bob = await self.login(self.name("bob"))
        to = bob.connected["userId"]
        answers = []
        for _ in range(4):
            sender = await self.login(alice, device="phone")
            answers.append(await sender.say(to, "hi", clientMsgId="c-1"))
            await self.dropped(sender)
        self.assertEqual(len({(answer["id"], answer["sendTime"]) for answer in answers}), 1)
        sender = await self.login(alice, device="phone")
        await sender.say(to, "end")
        self.assertEqual([message["msg"] for message in await bob.messages(2)], ["hi", "end"])

    async def test_other_content(self) -> None:
        """The same clientMsgId with other content is invalid_message, and changes nothing."""
        bob = await self.login(self.name("bob"))
        sender = await self.login(self.name("alice"))
        to = bob.connected["userId"]
        first = await sender.say(to, "hi", clientMsgId="c-1")
        for frame in (
            {"to": to, "msg": "other"},
            {"to": self.name("carol"), "msg": "hi"},
            {"group": [to], "msg": "hi"},
            {"to": to, "msg": "hi", "contentType": "text/x"},
        ):
            error = await self.refusal(sender, {"clientMsgId": "c-1", **frame})
            self.assertEqual((error["code"], error["clientMsgId"]), ("invalid_message", "c-1"), frame)
        self.assertEqual(await sender.say(to, "hi", clientMsgId="c-1"), first)

    async def test_unique_for_the_device(self) -> None:
        """Another device or user may use the same clientMsgId for another message."""
        bob = await self.login(self.name("bob"))
        to = bob.connected["userId"]
        alice = self.name("alice")
        ids = set()
        for user, device in ((alice, "phone"), (alice, "desk"), (self.name("carol"), "phone")):
            sender = await self.login(user, device=device)
            ids.add((await sender.say(to, f"from {device}", clientMsgId="c-1"))["id"])
        self.assertEqual(len(ids), 3)
        self.assertEqual(len({message["id"] for message in await bob.messages(3)}), 3)

    async def test_group_in_any_order(self) -> None:
        """A list is a set: its order is not its content."""
        sender = await self.login(self.name("alice"))
        a, b = self.name("a"), self.name("b")
        sender.send({"clientMsgId": "g", "group": [a, b], "msg": "hi"})
        first = await sender.expect("accepted")
        sender.send({"clientMsgId": "g", "group": [b, a, a], "msg": "hi"})
        self.assertEqual(await sender.expect("accepted"), first)

    async def test_names_that_look_alike(self) -> None:
        """Device and clientMsgId are told apart, whatever characters are in them."""
        alice, bob = self.name("alice"), self.name("bob")
        ids = set()
        for device, client_msg_id in (
            ("a:b", "c"),
            ("a", "b:c"),
            ("a%3Ab", "c"),
            ("a", "{b}:c"),
            ("a", "b c"),
        ):
            sender = await self.login(alice, device=device)
            first = await sender.say(bob, device, clientMsgId=client_msg_id)
            self.assertEqual(await sender.say(bob, device, clientMsgId=client_msg_id), first)
            ids.add(first["id"])
        self.assertEqual(len(ids), 5)

    async def test_resend_is_known_for_dedup_seconds(self) -> None:
        """Within dedup_seconds (2) of the last time it is the same message; after that it is a new one."""
        user = self.name("alice")
        client = await self.login(user, "rate")

        async def twice_again() -> dict[str, Any] | None:
            """The first answer; None when this machine was too slow to ask again in time."""
            message = {"to": user, "msg": "hi", "clientMsgId": self.name("c")}
            used = time.monotonic()
            first = await client.say(**message)
            for _ in range(2):
                await pause(1.3)
                before, used = used, time.monotonic()
                again = await client.say(**message)
                if time.monotonic() - before > 2:
                    return None
                self.assertEqual(again, first)
            return first

        first = await self.eventually(twice_again, 60)
        await pause(3.2)
        later = await client.say(user, "hi", clientMsgId=first["clientMsgId"])
        self.assertNotEqual(later["id"], first["id"])

    async def test_after_an_error_it_is_a_new_message(self) -> None:
        """A refused message has not used up its clientMsgId."""
        client = await self.login(self.name("alice"))
        user = client.connected["userId"]
        await self.refusal(client, {"clientMsgId": "c-1", "to": user, "msg": ""})
        accepted = await client.say(user, "now with text", clientMsgId="c-1")
        self.assertEqual(accepted["clientMsgId"], "c-1")
