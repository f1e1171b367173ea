"""The allowance for frames other than messages: a client that exceeds it is closed."""

from __future__ import annotations

import json
import time

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.entry.allowance import AT_ONCE, Allowance
from imd.entry.replacing import AT_ONCE as REPLACEMENTS
from imd.entry.replacing import MAX_DEVICES, MAX_WAIT_SECONDS, Replacing
from imd.protocol.errors import Refused
from tests.hostile.raw import CONTINUATION, PING, PONG, TEXT, RawClient, close_frame, frame, handshake, header
from tests.hostile.support import HostileCase, token_for

OVERLOADED = 4100


def text(content: object) -> bytes:
    return frame(TEXT, json.dumps(content).encode())


class AllowanceTests(unittest.SynchronousTestCase):
    def test_refilled(self) -> None:
        """The allowance is refilled with time: a client that asks now and then never notices it."""
        clock = Clock()
        allowance = Allowance(clock.seconds)
        for _ in range(int(AT_ONCE)):
            self.assertTrue(allowance.spend(1))
        self.assertFalse(allowance.spend(1))
        for _ in range(1000):
            clock.advance(0.1)
            self.assertTrue(allowance.spend(9.9))

    def test_tokens(self) -> None:
        """A refused token costs four times a good one. Past the limit no signature is checked."""
        clock = Clock()
        for refused, most in ((False, 100), (True, 25)):
            allowance = Allowance(clock.seconds)
            for _ in range(most):
                allowance.spend_for_token()
                if refused:
                    allowance.token_refused()
            with self.assertRaises(Refused) as raised:
                allowance.spend_for_token()
            self.assertEqual(raised.exception.code, "rate_limited")
            self.assertGreater(raised.exception.retry_after_ms or 0, 0)


class ReplacingTests(unittest.SynchronousTestCase):
    def test_slower_and_slower(self) -> None:
        """Some connects at once are free; then each waits, up to a bound. A pause makes them free again."""
        clock = Clock()
        replacing = Replacing(clock.seconds)
        for _ in range(REPLACEMENTS):
            self.assertEqual(replacing.wait_seconds("alice", "phone"), 0)
            replacing.replaced("alice", "phone")
        replacing.replaced("alice", "phone")
        self.assertGreater(replacing.wait_seconds("alice", "phone"), 0)
        self.assertEqual(replacing.wait_seconds("alice", "tablet"), 0)
        for _ in range(1000):
            replacing.replaced("alice", "phone")
        self.assertLessEqual(replacing.wait_seconds("alice", "phone"), MAX_WAIT_SECONDS)
        clock.advance(120)
        self.assertEqual(replacing.wait_seconds("alice", "phone"), 0)
        for number in range(MAX_DEVICES + 10):
            replacing.replaced(f"user-{number}", "phone")
        self.assertEqual(len(replacing._full_at), MAX_DEVICES)


class PriceTests(HostileCase):
    """Costs on a node without a rate for messages."""

    def ended_with(self, client: RawClient, data: bytes, times: int) -> object:
        for _ in range(times):
            client.send(data)
        frames = client.to_the_end()
        return frames[-1].brief if frames else None

    def test_floods(self) -> None:
        """A flood of pings, pongs, tiny fragments or unknown types is closed; others can chat."""
        for flood in (
            text({"type": "ping"}) * 500,
            frame(PING, b"x") * 500,
            frame(PONG, b"imd") * 500,
            text({"type": "teleport"}) * 500,
            text({"type": "history"}) * 500,
            text({"type": "ack", "seq": 99}) * 500,
        ):
            self.assertEqual(self.ended_with(self.login(), flood, 20), OVERLOADED, flood[:30])
            self.chat()
        client = self.login()
        client.send(frame(TEXT, b"{", fin=False))
        self.assertEqual(self.ended_with(client, frame(CONTINUATION, b" ", fin=False) * 500, 20), OVERLOADED)
        self.assertGreater(self.node.metric("imd_allowance_spent_total"), 6)

    def test_before_the_login(self) -> None:
        """Before the login thirty-two errors of any kind end the connection; so do many pings."""
        for wrong in (
            {"type": "ping"},
            {"to": "bob", "msg": "x"},
            {"type": "teleport"},
            {"isConnect": True, "userId": "alice", "loginType": "WIZARD"},
        ):
            client = self.raw()
            client.open()
            client.send(text(wrong) * 200)
            found = client.to_the_end()
            self.assertEqual(found[-1].brief, 4000)
            self.assertEqual(len(found), 33, wrong)
        client = self.raw()
        client.open()
        self.assertEqual(self.ended_with(client, frame(PING) * 500, 20), OVERLOADED)

    def test_who_asks_now_and_then(self) -> None:
        """Hundreds of pings, old acknowledgements and errors at once are still allowed."""
        client = self.raw().login(ack=True)
        client.send(text({"type": "ping"}) * 300, text({"type": "ack", "seq": 0}) * 3000)
        client.send(text({"type": "teleport"}) * 100, text({"type": "ping"}))
        kinds = [client.next_text()["type"] for _ in range(401)]
        self.assertEqual((kinds.count("pong"), kinds.count("error")), (301, 100))

    def test_devices_that_replace_themselves(self) -> None:
        """Two clients of one device replace each other: some connects are free, then they become rare."""
        user = f"twins-{time.time()}"
        before = self.node.metric("imd_replacements_slowed_total")
        clients: list[RawClient] = []
        while self.node.metric("imd_replacements_slowed_total") == before:
            self.assertLess(len(clients), 200, "nobody has to wait")
            clients.append(self.login_as(user, "phone"))
        self.assertGreater(len(clients), REPLACEMENTS)
        # At once: with each second that goes by they have to wait for less.
        began = time.monotonic()
        for _ in range(3):
            self.login_as(user, "phone")
        self.assertGreater(time.monotonic() - began, 3)
        for client in clients:
            self.assertEqual(client.to_the_end()[-1].brief, 4003)

    def login_as(self, user: str, device: str) -> RawClient:
        client = self.raw()
        client.user = user
        return client.login(device=device)

    def test_log(self) -> None:
        """Strangers do not fill the log: each cause has a few lines, without raw control characters."""
        before = self.node.log.stat().st_size
        for _ in range(30):
            for request in (handshake(path="/secret"), b"\x1b[31m{x}\r\n\r\n", b"x" * 40_000):
                with RawClient(self.node.port) as client:
                    client.open(request)
            for wrong in (
                frame(11, b"x"),
                frame(TEXT, b"x", masked=False),
                frame(TEXT, b"\xff\xff"),
                header(TEXT, 2**40) + b"mask",
                close_frame(999),
            ):
                with RawClient(self.node.port) as client:
                    client.open()
                    client.send(wrong)
                    client.next()
        self.chat()
        written = self.node.log.read_bytes()[before:]
        self.assertLess(written.count(b"\n"), 12, written[-2000:])
        self.assertNotIn(b"\x1b", written)


class TokenPriceTests(HostileCase):
    kind = "jwt"

    def test_tokens(self) -> None:
        """Some refused tokens lead to `rate_limited`. The connection stays open, with its valid token."""
        client = self.raw()
        client.login(userId=client.user, token=token_for(client.user, "jwt"))
        codes = []
        for _ in range(60):
            client.say({"type": "token", "token": token_for("somebody-else", "jwt")})
            codes.append(client.next_text()["code"])
        limited = codes.index("rate_limited")
        self.assertLess(limited, 50)
        self.assertEqual(set(codes[:limited]), {"forbidden"})
        client.say({"to": client.user, "msg": "still here"})
        self.assertEqual({client.next_text()["type"] for _ in range(2)}, {"accepted", "message"})
