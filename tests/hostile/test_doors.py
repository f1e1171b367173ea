"""Who gets in at all: pages, host names, and the limits of connections, over the wire."""

from __future__ import annotations

import contextlib
import json
import time

from tests.hostile.raw import CLOSE, RawClient, handshake
from tests.hostile.support import HostileCase, bystander, token_for

OVERLOADED = 4100


class RequestCase(HostileCase):
    def status(self, request: bytes) -> int:
        """The status that answers an opening request; 0: closed without a word."""
        with RawClient(self.node.port) as client:
            words = client.open(request).split(b" ", 2)
            return int(words[1]) if len(words) > 1 else 0

    def assert_status(self, expected: int, **requests: bytes) -> None:
        found = {why: self.status(request) for why, request in requests.items()}
        self.assertEqual(found, dict.fromkeys(requests, expected))


class RebindingTests(RequestCase):
    """A node in open mode: only from this machine, under its own name."""

    def test_hosts(self) -> None:
        """A page whose host name was made to point here asks under that name, and is turned away."""
        port = self.node.port
        for host in (
            *(f"evil.example:{port}", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"),
            *("0.0.0.0", "192.168.0.1", "[::ffff:192.0.2.1]", "localhost@evil.example", "2130706433"),
            *("localhost,evil.example", "localhost.", ""),
        ):
            self.assertGreaterEqual(self.status(handshake(host=host)), 400, host)
        for host in ("localhost", f"127.0.0.1:{port}", "[::1]", "chat.localhost"):
            self.assertEqual(self.status(handshake(host=host)), 101, host)

    def test_two_of_a_header(self) -> None:
        """What is there twice is not looked at once and believed twice."""
        self.assert_status(
            400,
            hosts=handshake("Host: evil.example"),
            hosts_in_another_case=handshake("HOST: evil.example"),
            origins=handshake("Origin: http://127.0.0.1", "Origin: http://evil.example"),
            keys=handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            versions=handshake("Sec-WebSocket-Version: 13"),
        )

    def test_hidden_origins(self) -> None:
        """A foreign origin stays one however the header is written."""
        for line in (
            *("Origin: http://evil.example", "origin: http://evil.example", "ORIGIN:http://evil.example"),
            *("Origin : http://evil.example", "Origin:\thttp://evil.example", "Origin: null"),
            *("Origin: file:///etc/passwd", "Origin: http://127.0.0.1.evil.example"),
            *("Origin: http://127.0.0.1@evil.example", "Origin: http://evil.example#127.0.0.1"),
        ):
            self.assertGreaterEqual(self.status(handshake(line)), 400, line)

    def test_proxies(self) -> None:
        """What came through a proxy came from anywhere."""
        for line in (
            *("X-Forwarded-For: 127.0.0.1", "x-real-ip: 127.0.0.1", "Forwarded: for=127.0.0.1"),
            *("Via: 1.1 p", "X-FORWARDED-PROTO : https"),
        ):
            self.assertEqual(self.status(handshake(line)), 403, line)

    def test_requests(self) -> None:
        """Other methods, versions and paths; what is no WebSocket's request."""
        good = handshake()
        self.assert_status(405, post=good.replace(b"GET", b"POST"), lower_case=good.replace(b"GET", b"get"))
        self.assert_status(
            505, old=good.replace(b"HTTP/1.1", b"HTTP/1.0"), http2=good.replace(b"1.1", b"2.0", 1)
        )
        self.assert_status(
            404,
            root=handshake(path="/"),
            metrics=handshake(path="/metrics"),
            up=handshake(path="/ws/../metrics"),
            encoded=handshake(path="/%77s"),
            twice=handshake(path="//ws"),
        )
        self.assertEqual(self.status(handshake(path="/ws?token=x")), 101)
        self.assertEqual(self.status(handshake(Upgrade=None)), 426)
        self.assert_status(
            400,
            no_key=handshake(Sec_WebSocket_Key=None),
            short_key=handshake(Sec_WebSocket_Key="x"),
            no_connection=handshake(Connection="close"),
            old_version=handshake(Sec_WebSocket_Version="8"),
            no_version=handshake(Sec_WebSocket_Version=None),
            no_host=handshake(Host=None),
            only_rubbish=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        )

    def test_huge_headers(self) -> None:
        """More than 16 KiB of them are not waited for."""
        self.assertEqual(self.status(handshake(*["X-Filler: " + "x" * 1000] * 20)), 431)
        self.assertEqual(self.status(b"GET /ws HTTP/1.1\r\nX: " + b"x" * 40_000), 431)
        self.assertEqual(self.status(b"x" * 40_000), 431)
        self.assertEqual(self.status(handshake("X-Filler: " + "x" * 8000)), 101)


class OriginTests(RequestCase):
    """Patterns of origins, on a node that knows who comes by their tokens."""

    kind = "rs256"

    def test_patterns(self) -> None:
        """Those of the patterns, and programs, which have no origin; the same host is not enough."""
        for origin in ("https://chat.example.com", "https://a.b.EXAMPLE.com", "http://localhost:3000"):
            self.assertEqual(self.status(handshake(Origin=origin)), 101, origin)
        self.assertEqual(self.status(handshake(host="anything.example")), 101)
        for origin in (
            *("http://chat.example.com", "https://example.com", "https://chat.example.com.evil.example"),
            *("https://evilexample.com", "https://evil.example/.example.com", "http://127.0.0.1", "null"),
            *(
                "https://evil.example?.example.com",
                "https://chat.example.com:8443",
                "https://*.example.com@x",
            ),
            *("http://localhost:3000@evil.example", "http://localhost.evil.example:80", ""),
        ):
            self.assertGreaterEqual(self.status(handshake(Origin=origin)), 400, origin)


class LimitTests(HostileCase):
    """connections = 8, of one address 4, of one user 2; the bystander is one of them all."""

    kind = "small"

    def setUp(self) -> None:
        super().setUp()
        self.settled()

    def settled(self) -> None:
        """Wait until only the bystander is there."""
        end = time.monotonic() + 20
        while self.node.metric("imd_connections") != 1:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def connect(self, stack: contextlib.ExitStack, address: str, user: str | None = None) -> object:
        """Connect from a loopback address: what comes of it, a frame's type or a close code."""
        client = stack.enter_context(RawClient(self.node.port, address=address))
        client.open()
        client.say({"isConnect": True, "userId": user or client.user, "loginType": "USER_TYPE",
                    "device": client.user})  # fmt: skip
        for came in iter(client.next, None):
            if came.brief == "connected" or came.opcode == CLOSE:
                return came.brief
        return None

    def test_connections_of_an_address(self) -> None:
        """The fifth of an address is sent away; another address is not; a place that is left is free."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, "127.0.0.2") for _ in range(5)]
            self.assertEqual(found, ["connected"] * 4 + [OVERLOADED])
            self.assertEqual(self.connect(stack, "127.0.0.3"), "connected")
        self.settled()
        with contextlib.ExitStack() as stack:
            self.assertEqual(self.connect(stack, "127.0.0.2"), "connected")
        self.settled()

    def test_half_open_connections_of_an_address(self) -> None:
        """Sockets that say nothing count, too: the fifth of an address is dropped; another gets in."""
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(RawClient(self.node.port, address="127.0.0.20")) for _ in range(9)]
            for client in silent[4:]:
                self.assertEqual(client.rest(), [])
                self.assertTrue(client.ended)
            self.assertEqual(self.connect(stack, "127.0.0.21"), "connected")
            silent[0].socket.close()
            end = time.monotonic() + 20
            while self.connect(stack, "127.0.0.20") != "connected":
                self.assertLess(time.monotonic(), end)
            # Those who are in are no longer half open.
            self.assertEqual(self.connect(stack, "127.0.0.20"), "connected")
        self.settled()

    def test_connections_of_a_node(self) -> None:
        """Nobody gets in past the limit, wherever they come from; the bystander does not notice."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, f"127.0.0.{number % 4 + 4}") for number in range(12)]
            self.assertEqual(found[:7], ["connected"] * 7)
            self.assertEqual(set(found[7:]), {OVERLOADED})
        self.settled()

    def test_connections_of_a_user(self) -> None:
        """The third device of a user is sent away, from whatever address."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, f"127.0.0.{number + 8}", "many") for number in range(4)]
            self.assertEqual(found, ["connected", "connected", OVERLOADED, OVERLOADED])
            self.assertEqual(self.connect(stack, "127.0.0.12", "another"), "connected")
        self.settled()


class OtherDoorTests(HostileCase):
    """The limits hold in jwt mode too, where nothing is known of a connection but its token."""

    kind = "jwt"

    def test_nobody_reads_before_the_token(self) -> None:
        """Without a good token no frame does anything but be refused, and the last one ends it."""
        with RawClient(bystander("jwt").node.port) as client:
            client.open()
            renewal = {"type": "token", "token": token_for("alice", "jwt")}
            history = {"type": "history", "all": True}
            for frame in (
                {"to": "bob", "msg": "x"},
                {"type": "ping"},
                history,
                {"type": "ack", "seq": 0},
                renewal,
            ):
                client.say(frame)
                answer = client.next_text()
                self.assertEqual((answer["type"], answer["code"]), ("error", "forbidden"))
            client.say({"isConnect": True, "userId": "alice", "loginType": "USER_TYPE"})
            *_, last = client.to_the_end()
            self.assertEqual((last.opcode, last.brief), (CLOSE, 4001), json.dumps(str(last)))
