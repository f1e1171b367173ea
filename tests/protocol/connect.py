"""Rules of the connect signal."""

from __future__ import annotations

import time
from typing import Any

from tests.protocol.support import Rules, record_raw

UNUSUAL_IDS = (
    "{x}",
    "*",
    "a:b",
    "#",
    "😀🎉",
    "with some spaces ",
    "%7B",
    "%",
    "a/b\\c",
    "[set]?",
    '"quoted"',
    "Ärger",
    "user.name+tag@example.com",
    "0",
    "007",
    "null",
    "__proto__",
    "$where",
    "💥" * 100,
)


class ConnectRules(Rules):
    """The right to connect, and the reply."""

    async def test_connected_says_everything(self) -> None:
        """The reply has every field of the protocol, with `type` as its very first key."""
        user = self.name("alice")
        client = await self.open()
        raw = record_raw(client)
        client.send({"isConnect": True, "v": 1, "userId": user, "loginType": "USER_TYPE"})
        frame = await client.expect("connected")
        self.assertTrue(raw[0].startswith(b'{"type":"connected"'), raw[0])
        now = time.time() * 1000
        self.assertEqual(frame["v"], 1)
        self.assertEqual(frame["userId"], user)
        self.assertEqual(frame["fromUserType"], "USER_TYPE")
        self.assertEqual(frame["device"], "default")
        self.assertIsInstance(frame["channel"], str)
        self.assertTrue(frame["channel"])
        self.assertIsInstance(frame["epoch"], str)
        self.assertTrue(frame["epoch"])
        self.assertEqual(frame["seq"], 0)
        self.assertIs(frame["recovered"], True)
        self.assertIsInstance(frame["serverTime"], int)
        self.assertLess(abs(frame["serverTime"] - now), 10_000)
        limits = {"messageBytes": 65536, "groupMembers": 500, "ackWindow": 256, "messagesPerSecond": 50}
        limits |= {"dataBytes": 4096, "roomMembers": 1000, "editSeconds": 86400, "recallSeconds": 86400}
        self.assertEqual(frame["limits"], limits)
        self.assertEqual(frame["pingSeconds"], 25)

    async def test_limits_are_the_nodes_own(self) -> None:
        """The reply tells the limits that this node was configured with."""
        client = await self.login(self.name("alice"), "small")
        limits = {"messageBytes": 256, "groupMembers": 5, "ackWindow": 8, "messagesPerSecond": 0}
        limits |= {"dataBytes": 4096, "roomMembers": 1000, "editSeconds": 2, "recallSeconds": 2}
        self.assertEqual(client.connected["limits"], limits)
        self.assertEqual(client.connected["pingSeconds"], 1)

    async def test_from_user_types(self) -> None:
        """The seed's table of FromUserType, aliases and any case included."""
        table: list[tuple[dict[str, Any], str]] = [
            ({"loginType": "USER_TYPE"}, "USER_TYPE"),
            ({"loginType": "user_type"}, "USER_TYPE"),
            ({"loginType": "User"}, "USER_TYPE"),
            ({"loginType": "user", "isCustomerService": False}, "USER_TYPE"),
            ({"loginType": "USER_TYPE", "isCustomerService": True}, "CUSTOMER_SERVICE"),
            ({"loginType": "user", "isVisitor": True}, "USER_TYPE"),
            ({"loginType": "CUSTOMER_TYPE"}, "CUSTOMER_TYPE"),
            ({"loginType": "customer"}, "CUSTOMER_TYPE"),
            ({"loginType": "Customer_Type", "isCustomerService": True}, "CUSTOMER_TYPE"),
        ]
        for fields, expected in table:
            client = await self.login(self.name("who"), **fields)
            self.assertEqual(client.connected["fromUserType"], expected, fields)
            await client.close()

    async def test_refused_roles(self) -> None:
        """Anything that is none of the four types is refused, and the connection can still connect."""
        user = self.name("who")
        refused: list[dict[str, Any]] = [
            {"userId": user},
            {"userId": user, "loginType": "ROBOT"},
            {"userId": user, "loginType": ""},
            {"userId": user, "isCustomerService": True},
            {"userId": user, "isVisitor": False},
        ]
        client = await self.open()
        for fields in refused:
            error = await self.refusal(client, {"isConnect": True, **fields})
            self.assertIn(error["code"], ("invalid_message", "forbidden"), fields)
        client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE"})
        await client.expect("connected")

    async def test_refused_ids(self) -> None:
        """A user id or device must have 1 to 128 characters, none of them control or lone surrogate."""
        client = await self.open()
        base = {"isConnect": True, "loginType": "USER_TYPE"}
        for bad in ("", "x" * 129, "a\nb", "a\x00b", "\x7f", "a\x85"):
            error = await self.refusal(client, {**base, "userId": bad})
            self.assertEqual(error["code"], "invalid_message", repr(bad))
            error = await self.refusal(client, {**base, "userId": "x", "device": bad})
            self.assertEqual(error["code"], "invalid_message", repr(bad))
        error = await self.refusal(client, base)
        self.assertIn(error["code"], ("invalid_message", "bad_frame"))
        for field in (b'"userId":"\\ud800"', b'"userId":"x","device":"\\udc00a"'):
            client.send_raw(b'{"isConnect":true,"loginType":"user",' + field + b"}")
            error = await client.expect("error")
            self.assertIn(error["code"], ("bad_frame", "invalid_message"))
        longest = self.name("l").ljust(128, "ü")
        client.send({**base, "userId": longest, "device": "d" * 128})
        frame = await client.expect("connected")
        self.assertEqual((frame["userId"], frame["device"]), (longest, "d" * 128))

    async def test_ids_of_visitors_are_theirs_alone(self) -> None:
        """Nobody logs in under a name that begins with visitor-."""
        client = await self.open()
        client.send({"isConnect": True, "userId": "visitor-me", "loginType": "USER_TYPE"})
        error = await client.expect("error")
        self.assertEqual(error["code"], "forbidden")

    async def test_wrong_types_in_connect(self) -> None:
        """A connect signal with a field of the wrong type is a bad frame, and another may follow."""
        client = await self.open()
        base = {"isConnect": True, "loginType": "USER_TYPE", "userId": "x"}
        for wrong in (
            {"userId": 5},
            {"loginType": []},
            {"device": 1},
            {"attempt": "1"},
            {"ack": "yes"},
            {"cursor": 5},
            {"cursor": {"epoch": 1, "seq": 1}},
            {"cursor": {"epoch": "e", "seq": "1"}},
            {"cursor": {}},
            {"ephemeral": 1},
            {"isVisitor": "true"},
            {"isCustomerService": 1},
            {"token": {}},
            {"isConnect": "true"},
        ):
            error = await self.refusal(client, {**base, **wrong})
            self.assertEqual(error["code"], "bad_frame", wrong)
        client.send({**base, "userId": self.name("x")})
        await client.expect("connected")

    async def test_nothing_before_connect(self) -> None:
        """Before the connect signal every frame is answered with an error, none is forwarded."""
        bob = await self.login(self.name("bob"))
        client = await self.open()
        for frame in (
            {"clientMsgId": "c-1", "to": bob.connected["userId"], "msg": "hi"},
            {"userId": self.name("x"), "to": bob.connected["userId"], "msg": "hi"},
            {"type": "ack", "seq": 0},
            {"type": "history", "ref": "h", "all": True},
            {"isConnect": False, "userId": "x", "loginType": "USER_TYPE"},
        ):
            await self.refusal(client, frame)
        client.send({"isConnect": True, "userId": self.name("late"), "loginType": "USER_TYPE"})
        await client.expect("connected")
        await bob.quiet()
        self.assertEqual(list(bob.frames), [])

    async def test_frames_right_behind_connect(self) -> None:
        """A client need not wait for `connected`: what it sent behind the signal is handled after it."""
        alice, bob = self.name("alice"), self.name("bob")
        client = await self.open()
        client.send({"isConnect": True, "userId": alice, "loginType": "USER_TYPE"})
        for number in range(3):
            client.send({"clientMsgId": f"c-{number}", "to": bob, "msg": str(number)})
        await client.expect("connected")
        for number in range(3):
            self.assertEqual((await client.expect("accepted"))["clientMsgId"], f"c-{number}")

    async def test_no_connect_in_time(self) -> None:
        """Without a connect signal within connect_seconds the connection is closed with 4002."""
        client = await self.open(self.url("small"))
        self.assertEqual(await client.wait_closed(), 4002)
        self.assertTrue(client.close_reason)

    async def test_refused_connects_do_not_buy_time(self) -> None:
        """Frames that are no good connect signal do not postpone 4002."""
        client = await self.open(self.url("small"))
        error = await self.refusal(client, {"isConnect": True})
        self.assertEqual(error["type"], "error")
        self.assertEqual(await client.wait_closed(), 4002)

    async def test_second_connect(self) -> None:
        """A second connect signal is a bad frame; the connection stays who it is."""
        user = self.name("alice")
        client = await self.login(user)
        error = await self.refusal(
            client, {"isConnect": True, "userId": self.name("mallory"), "loginType": "USER_TYPE"}
        )
        self.assertEqual(error["code"], "bad_frame")
        await client.say(user, "still me")
        self.assertEqual((await client.take("message"))["userId"], user)

    async def test_newer_channel_replaces(self) -> None:
        """One live channel per user and device: the old one is closed with 4003, wherever it is."""
        user = self.name("alice")
        for _ in range(3):
            first = await self.login(user)
            second = await self.login(user)
            self.assertNotEqual(first.connected["channel"], second.connected["channel"])
            self.assertEqual(await first.wait_closed(), 4003)
            await second.say(user, "to myself")
            self.assertEqual((await second.take("message"))["msg"], "to myself")
            await second.close()

    async def test_replaced_on_the_same_node(self) -> None:
        """4003 on one and the same node."""
        user, url = self.name("alice"), self.url()
        first = await self.login(user, url=url, device="phone")
        second = await self.login(user, url=url, device="phone")
        self.assertEqual(await first.wait_closed(), 4003)
        await second.quiet()

    async def test_other_devices_stay(self) -> None:
        """A channel of another device replaces nothing."""
        user = self.name("alice")
        phone = await self.login(user, device="phone")
        desk = await self.login(user, device="desk")
        default = await self.login(user)
        await phone.say(user, "to all of me")
        for client in (phone, desk, default):
            self.assertEqual((await client.take("message"))["seq"], 1)

    async def test_attempts(self) -> None:
        """A newer attempt replaces an older one; an older one never replaces a newer channel."""
        user = self.name("alice")
        old = await self.login(user, attempt=1764000000000)
        new = await self.login(user, attempt=1764000000001)
        self.assertEqual(await old.wait_closed(), 4003)
        late = await self.open()
        late.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE", "attempt": 1763999999999})
        self.assertEqual(await late.wait_closed(), 4003)
        self.assertEqual([frame for frame in late.frames if frame["type"] == "connected"], [])
        await new.say(user, "I stay")
        self.assertEqual((await new.take("message"))["msg"], "I stay")

    async def test_the_same_attempt_again(self) -> None:
        """An attempt that is not older replaces: a client that sends its connect again gets in."""
        user = self.name("alice")
        first = await self.login(user, attempt=7)
        second = await self.login(user, attempt=7)
        self.assertEqual(await first.wait_closed(), 4003)
        await second.quiet()

    async def test_unusual_user_ids(self) -> None:
        """User ids and devices are any text: two of them never meet in one inbox."""
        suffix = self.name("")
        ids = [f"{unusual[:100]}{suffix}" for unusual in UNUSUAL_IDS]
        sender = await self.login(self.name("sender"))
        clients = [await self.login(user, device=user, ack=True) for user in ids]
        for user, client in zip(ids, clients, strict=True):
            self.assertEqual((client.connected["userId"], client.connected["device"]), (user, user))
            await sender.say(user, f"for {user}")
        for user, client in zip(ids, clients, strict=True):
            message = await client.take("message")
            self.assertEqual((message["seq"], message["to"], message["msg"]), (1, user, f"for {user}"))
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    async def test_plain_unusual_ids(self) -> None:
        """The bare characters themselves are good names, too."""
        for user in ("{x}", "*", "#", "%", " ", "-", "😀"):
            client = await self.login(user, device=self.name("d"), ephemeral=True)
            self.assertEqual(client.connected["userId"], user)
            await client.close()

    async def test_too_many_connections_of_a_user(self) -> None:
        """Past connections_per_user a connect gets an error and 4100: it may come back later."""
        user = self.name("many")
        for number in range(5):
            await self.login(user, "small", device=f"d{number}")
        client = await self.open(self.url("small"))
        client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE", "device": "one more"})
        error = await client.expect("error")
        self.assertTrue(error["temporary"])
        self.assertEqual(await client.wait_closed(), 4100)
