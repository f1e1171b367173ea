"""Clients that lie about where they come from, and proxies that are none, on real nodes."""

from __future__ import annotations

import json
import shutil
import tempfile
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
    def start(
        self, trusted: str, *, proxied: bool = False, most: int = 2, visitors: int = 0, path: str = ""
    ) -> NodeServer:
        """A node that takes so many connections and new visitors from one address. `path`: of its socket."""
        port = free_port()
        wrapper = "haproxy:" if proxied else ""
        listen = f"unix:{path}" if path else f"{wrapper}tcp:{port}:interface={HOST}"
        ini = {
            "auth": {"mode": "jwt", "secret": SECRET},
            # Clients that stay answer no pings.
            "websocket": {"listen": listen, "trusted_proxies": trusted, "pong_seconds": 3600},
            "limits": {"connections_per_address": most, "visitors_per_address": visitors},
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
        came = client.next_but_pings()
        return str(came.brief) if came is not None else "nothing"


class VisitorTests(ProxyCase):
    """New visitors are counted by the client's address."""

    def visit(self, port: int | str, *headers: str, before: bytes = b"", **fields: object) -> list[object]:
        """The frames of a visitor's connection, in short, up to `connected` or the end."""
        with RawClient(port) as client:
            client.send(before)
            self.assertTrue(client.open(handshake(*headers)).startswith(b"HTTP/1.1 101"))
            client.say({"isConnect": True, "isVisitor": True, **fields})
            came = client.next_text()
            if came["type"] == "connected":
                self.token = came["visitorToken"]
                return ["connected"]
            self.assertGreater(came["retryAfterMs"], 1_000_000)
            closed = client.next_but_pings()
            return [came["code"], closed and closed.brief]

    REFUSED = ["rate_limited", 4100]

    def test_trusted(self) -> None:
        """Behind trusted proxies each client has its own; a proxy that names nobody counts as any other."""
        node = self.start(f"{HOST} 10.0.0.0/8", most=0, visitors=2)
        for headers in (
            ["X-Forwarded-For: 192.0.2.7"],
            ["X-Forwarded-For: 192.0.2.7, 192.0.2.8", "X-Forwarded-For: 10.1.2.3"],
            ["X-Forwarded-For: 192.0.2.7, unknown"],
            ["X-Forwarded-For: 2001:db8::7"],
        ):
            found = [self.visit(node.port, *headers) for _ in range(3)]
            self.assertEqual(found, [["connected"], ["connected"], self.REFUSED], headers)
        self.assertEqual(self.visit(node.port, "X-Forwarded-For: 2001:db8::8"), self.REFUSED)
        self.assertEqual(self.visit(node.port), self.REFUSED)
        self.assertEqual(self.visit(node.port, visitorToken=self.token), ["connected"])
        self.assertEqual(node.metric("imd_visitors_refused_total"), 6)
        text = node.log.read_text()
        self.assertEqual(text.count("visitors_per_address is 2 an hour"), 1)
        self.assertNotIn("which nobody believes", text)

    def test_strangers(self) -> None:
        """A stranger with forwarding headers may be a proxy: its visitors are not counted, and once the log
        says so. Without such headers it is counted."""
        node = self.start("192.0.2.1", most=0, visitors=1)
        for lie in LIES:
            self.assertEqual(self.visit(node.port, lie), ["connected"])
        self.assertEqual([self.visit(node.port) for _ in range(2)], [["connected"], self.REFUSED])
        text = node.log.read_text()
        self.assertEqual(text.count("which nobody believes"), 1)
        self.assertIn("new visitors from there are not counted at all", text)

    def test_proxy_protocol(self) -> None:
        """The address in the header of the PROXY protocol counts."""
        node = self.start(HOST, proxied=True, most=0, visitors=1)
        for source in ("192.0.2.7", "192.0.2.8"):
            header = f"PROXY TCP4 {source} {HOST} 1234 9000\r\n".encode()
            found = [self.visit(node.port, before=header) for _ in range(2)]
            self.assertEqual(found, [["connected"], self.REFUSED])

    def test_unix_socket(self) -> None:
        """Without an address nobody is counted; a proxy that is trusted may name one."""
        folder = tempfile.mkdtemp(prefix="imd-unix-")
        self.addCleanup(shutil.rmtree, folder)
        path = f"{folder}/socket"
        node = self.start("unix", most=0, visitors=1, path=path)
        self.assertEqual([self.visit(path) for _ in range(3)], [["connected"]] * 3)
        found = [self.visit(path, "X-Forwarded-For: 192.0.2.7") for _ in range(2)]
        self.assertEqual(found, [["connected"], self.REFUSED])
        self.assertEqual(node.metric("imd_visitors_refused_total"), 1)


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
