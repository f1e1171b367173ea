"""Admission over the wire: pages, host names, and the limits of connections."""

from __future__ import annotations

import contextlib
import json
import time

from tests.hostile.raw import CLOSE, RawClient, handshake
from tests.hostile.support import HostileCase, bystander, token_for

OVERLOADED = 4100


class RequestCase(HostileCase):
    def status(self, request: bytes) -> int:
        """The HTTP status that answers an opening request; 0: closed without an answer."""
        with RawClient(self.node.port) as client:
            words = client.open(request).split(b" ", 2)
            return int(words[1]) if len(words) > 1 else 0

    def assert_status(self, expected: int, **requests: bytes) -> None:
        found = {why: self.status(request) for why, request in requests.items()}
        self.assertEqual(found, dict.fromkeys(requests, expected))


class RebindingTests(RequestCase):
    """A node in open mode admits clients of this machine only, under its own name."""

    def test_hosts(self) -> None:
        """A page whose host name points here is denied, as it connects under that name."""
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
        """A request with two Host or Origin headers is not judged by one of them."""
        self.assert_status(
            400,
            hosts=handshake("Host: evil.example"),
            hosts_in_another_case=handshake("HOST: evil.example"),
            origins=handshake("Origin: http://127.0.0.1", "Origin: http://evil.example"),
            keys=handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            versions=handshake("Sec-WebSocket-Version: 13"),
        )

    def test_hidden_origins(self) -> None:
        """A foreign origin is denied however its header is written."""
        for line in (
            *("Origin: http://evil.example", "origin: http://evil.example", "ORIGIN:http://evil.example"),
            *("Origin : http://evil.example", "Origin:\thttp://evil.example", "Origin: null"),
            *("Origin: file:///etc/passwd", "Origin: http://127.0.0.1.evil.example"),
            *("Origin: http://127.0.0.1@evil.example", "Origin: http://evil.example#127.0.0.1"),
        ):
            self.assertGreaterEqual(self.status(handshake(line)), 400, line)

    def test_proxies(self) -> None:
        """A request through a proxy is denied: its client may be anywhere."""
        for line in (
            *("X-Forwarded-For: 127.0.0.1", "x-real-ip: 127.0.0.1", "Forwarded: for=127.0.0.1"),
            *("Via: 1.1 p", "X-FORWARDED-PROTO : https"),
        ):
            self.assertEqual(self.status(handshake(line)), 403, line)

    def test_requests(self) -> None:
        """Other methods, versions and paths, and requests for no WebSocket, are denied."""
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
        """Headers of more than 16 KiB end the connection."""
        self.assertEqual(self.status(handshake(*["X-Filler: " + "x" * 1000] * 20)), 431)
        self.assertEqual(self.status(b"GET /ws HTTP/1.1\r\nX: " + b"x" * 40_000), 431)
        self.assertEqual(self.status(b"x" * 40_000), 431)
        self.assertEqual(self.status(handshake("X-Filler: " + "x" * 8000)), 101)


class OriginTests(RequestCase):
    """Patterns of origins, on a node in jwt mode."""

    kind = "rs256"

    def test_patterns(self) -> None:
        """Origins that match get in, and programs without one; the same host alone does not."""
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
    """At most 8 connections, 4 of an address, 2 of a user; the bystander counts as one."""

    kind = "small"

    def setUp(self) -> None:
        super().setUp()
        self.settled()

    def settled(self) -> None:
        """Wait until only the bystander is connected."""
        end = time.monotonic() + 180
        while self.node.metric("imd_connections") != 1:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def connect(self, stack: contextlib.ExitStack, address: str, user: str | None = None) -> object:
        """Connect from a loopback address. Returns the answer's type, or a close code."""
        client = stack.enter_context(RawClient(self.node.port, address=address))
        client.open()
        client.say({"isConnect": True, "userId": user or client.user, "loginType": "USER_TYPE",
                    "device": client.user})  # fmt: skip
        for came in iter(client.next, None):
            if came.brief == "connected" or came.opcode == CLOSE:
                return came.brief
        return None

    def test_connections_of_an_address(self) -> None:
        """The fifth of an address is refused, one of another address is not. A place is free again."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, "127.0.0.2") for _ in range(5)]
            self.assertEqual(found, ["connected"] * 4 + [OVERLOADED])
            self.assertEqual(self.connect(stack, "127.0.0.3"), "connected")
        self.settled()
        with contextlib.ExitStack() as stack:
            self.assertEqual(self.connect(stack, "127.0.0.2"), "connected")
        self.settled()

    def test_half_open_connections_of_an_address(self) -> None:
        """Silent sockets count, too: the fifth of an address is dropped, one of another is not."""
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(RawClient(self.node.port, address="127.0.0.20")) for _ in range(9)]
            for client in silent[4:]:
                self.assertEqual(client.rest(), [])
                self.assertTrue(client.ended)
            self.assertEqual(self.connect(stack, "127.0.0.21"), "connected")
            silent[0].socket.close()
            end = time.monotonic() + 180
            while self.connect(stack, "127.0.0.20") != "connected":
                self.assertLess(time.monotonic(), end)
            # Connections that have logged in are no longer half open.
            self.assertEqual(self.connect(stack, "127.0.0.20"), "connected")
        self.settled()

    def test_connections_of_a_node(self) -> None:
        """Past the limit every address is refused. The bystander is not disturbed."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, f"127.0.0.{number % 4 + 4}") for number in range(12)]
            self.assertEqual(found[:7], ["connected"] * 7)
            self.assertEqual(set(found[7:]), {OVERLOADED})
        self.settled()

    def test_connections_of_a_user(self) -> None:
        """The third device of a user is refused from any address."""
        with contextlib.ExitStack() as stack:
            found = [self.connect(stack, f"127.0.0.{number + 8}", "many") for number in range(4)]
            self.assertEqual(found, ["connected", "connected", OVERLOADED, OVERLOADED])
            self.assertEqual(self.connect(stack, "127.0.0.12", "another"), "connected")
        self.settled()


class OtherDoorTests(HostileCase):
    """The limits also hold in jwt mode, where only the token tells who connects."""

    kind = "jwt"

    def test_nobody_reads_before_the_token(self) -> None:
        """Without a valid token each frame is refused, and too many end the connection."""
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
