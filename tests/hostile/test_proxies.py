"""Clients that lie about where they come from, and proxies that are none, on real nodes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
from twisted.trial import unittest

from tests.hostile.raw import RawClient, handshake
from tests.support.nodes import NodeServer
from tests.support.servers import HOST, free_port

SECRET = "a secret that only this test knows of"
LIES = (
    *("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https"),
    *("Forwarded: for=192.0.2.7", "X-Real-IP: 192.0.2.7"),
)


class ProxyCase(unittest.SynchronousTestCase):
    def start(self, trusted: str, *, proxied: bool = False, most: int = 2) -> NodeServer:
        """A node that takes so many connections from one address."""
        port = free_port()
        wrapper = "haproxy:" if proxied else ""
        websocket = {"listen": f"{wrapper}tcp:{port}:interface={HOST}", "trusted_proxies": trusted}
        ini = {
            "auth": {"mode": "jwt", "secret": SECRET},
            "websocket": websocket,
            "limits": {"connections_per_address": most},
        }
        node = NodeServer(Path(self.mktemp()).absolute(), ini, port)
        self.addCleanup(node.kill)
        node.start()
        return node

    def come(self, node: NodeServer, *headers: str, before: bytes = b"") -> str:
        """`connected`, or what comes in its place; the connection stays until the test is over."""
        client = RawClient(node.port)
        self.addCleanup(client.socket.close)
        claims = {"sub": "alice", "exp": time.time() + 600, "loginType": "USER_TYPE"}
        if before:
            client.send(before)
        answer = client.open(handshake(*headers))
        if not answer.startswith(b"HTTP/1.1 101"):
            return answer.split(b"\r\n")[0].decode()
        token = jwt.encode(claims, SECRET, "HS256")
        client.say({"isConnect": True, "device": client.user, "token": token})
        came = client.next()
        return str(came.brief) if came is not None else "nothing"


class HeaderTests(ProxyCase):
    def test_lies(self) -> None:
        """A peer that is not trusted is nothing but itself, whatever it says; once the log says so."""
        node = self.start("192.0.2.1")
        for number in range(2):
            self.assertEqual(self.come(node, f"X-Forwarded-For: 192.0.2.{number}"), "connected")
        for lie in LIES:
            self.assertEqual(self.come(node, lie), "4100")
        self.assertEqual(node.log.read_text().count("which nobody believes"), 1)

    def test_trusted(self) -> None:
        """The last address that is not trusted counts, over all lines; what is no address ends the search."""
        node = self.start(f"{HOST} 10.0.0.0/8")
        for headers, answers in (
            (["X-Forwarded-For: 192.0.2.7"], ["connected", "connected", "4100"]),
            (
                ["X-Forwarded-For: 198.51.100.1, 192.0.2.8", "X-Forwarded-For: 10.1.2.3"],
                ["connected", "connected", "4100"],
            ),
            (["X-Forwarded-For: 192.0.2.9:4711, [::ffff:10.0.0.1]:80"], ["connected"] * 2 + ["4100"]),
            (["X-Forwarded-For: 192.0.2.7, unknown"], ["connected"] * 2 + ["4100"]),
            ([], ["4100"]),
        ):
            self.assertEqual([self.come(node, *headers) for _ in answers], answers, headers)
        self.assertNotIn("which nobody believes", node.log.read_text())

    def test_origin(self) -> None:
        """By the word of a trusted proxy, a page without TLS is not welcome where the WebSocket has TLS."""
        for trusted, expected in ((HOST, "HTTP/1.1 403"), ("192.0.2.1", "connected")):
            node = self.start(trusted, most=0)
            page, tls_page = (f"Origin: {scheme}://{HOST}" for scheme in ("http", "https"))
            tls, clear = (f"X-Forwarded-Proto: {scheme}" for scheme in ("https", "http"))
            self.assertTrue(self.come(node, page, tls).startswith(expected))
            for headers in ((tls_page, tls), (page, clear), (page,), (tls_page,)):
                self.assertEqual(self.come(node, *headers), "connected", headers)


class ProxyProtocolTests(ProxyCase):
    def header(self, source: str) -> bytes:
        return f"PROXY TCP4 {source} {HOST} 1234 9000\r\n".encode()

    def test_addresses(self) -> None:
        """Limits count by the header; behind a source that is trusted as well, by X-Forwarded-For."""
        node = self.start(f"{HOST} 10.0.0.1", proxied=True)
        for source, headers, answers in (
            ("192.0.2.7", [], ["connected", "connected", "4100"]),
            ("192.0.2.8", ["X-Forwarded-For: 192.0.2.7"], ["connected", "connected", "4100"]),
            ("10.0.0.1", ["X-Forwarded-For: 192.0.2.7"], ["4100"]),
            ("10.0.0.1", ["X-Forwarded-For: 192.0.2.10"], ["connected"]),
        ):
            found = [self.come(node, *headers, before=self.header(source)) for _ in answers]
            self.assertEqual(found, answers, (source, headers))
        self.assertNotIn("which nobody believes", node.log.read_text())

    def test_in_pieces(self) -> None:
        """However small the pieces are that the header comes in."""
        node = self.start(HOST, proxied=True)
        with RawClient(node.port) as client:
            for byte in self.header("192.0.2.7"):
                client.send(bytes([byte]))
                time.sleep(0.002)
            self.assertTrue(client.open().startswith(b"HTTP/1.1 101"))

    def test_garbage(self) -> None:
        """Garbage ends its connection and nothing else, and is no error in the log."""
        node = self.start(HOST, proxied=True)
        for garbage in (
            b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PROXY TCP4 nonsense 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 x y\r\n",
            b"PROXY " + b"x" * 300,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\1x",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ):
            with RawClient(node.port) as client:
                client.send(garbage)
                self.assertEqual(client.rest(), [])
        self.assertEqual(self.come(node, before=b"PROXY UNKNOWN\r\n"), "connected")
        log = node.log.read_text()
        self.assertNotIn("Traceback", log)
        self.assertIn("was closed: ", log)

    def test_half_a_header(self) -> None:
        """A connection that stops within the header is dropped in time."""
        node = self.start(HOST, proxied=True)
        node.stop()
        node.ini["websocket"]["connect_seconds"] = 1
        node.start()
        with RawClient(node.port) as client:
            client.send(b"PROXY TCP4 192.0.2.7 ")
            self.assertEqual(client.rest(), [])

    def test_strangers(self) -> None:
        """A peer that is not trusted is not heard, with a header or without."""
        node = self.start("192.0.2.1", proxied=True)
        for data in (self.header("192.0.2.7"), b""):
            with RawClient(node.port) as client:
                if data:
                    client.send(data)
                self.assertEqual(client.rest(), [])
        self.assertEqual(json.loads(node.http("healthz")[1]), {"status": "ok"})
        self.assertIn("not one of [websocket] trusted_proxies", node.log.read_text())
