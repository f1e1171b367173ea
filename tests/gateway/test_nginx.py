"""Limits by address behind nginx, on the example in etc/: real clients from several loopback addresses."""

from __future__ import annotations

import shutil
import ssl

from twisted.trial import unittest

from tests.gateway.haproxy import folder
from tests.gateway.test_examples import Nginx
from tests.gateway.test_websocket import SECRET, token
from tests.hostile.raw import CLOSE, RawClient, close_frame, handshake
from tests.support.nodes import NodeServer
from tests.support.servers import HOST, free_port

CONNECTIONS, VISITORS = 4, 2
LIES = (
    "X-Forwarded-For: 192.0.2.7",
    f"X-Forwarded-For: 192.0.2.8, {HOST}",
    "X-Forwarded-For: unknown",
    "Forwarded: for=192.0.2.9",
    "X-Real-IP: 192.0.2.9",
)


class AddressTests(unittest.SynchronousTestCase):
    def start(self, trusted: str) -> tuple[NodeServer, Nginx]:
        """A node that trusts this proxy, and nginx in front of it."""
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        ini = {
            "auth": {"mode": "jwt", "secret": SECRET},
            "http": {"pages": "no"},
            "limits": {"connections_per_address": CONNECTIONS, "visitors_per_address": VISITORS},
        }
        node = NodeServer(path / "node", ini)
        node.ini["websocket"] = {
            "listen": f"tcp:{node.port}:interface={HOST}",
            "trusted_proxies": trusted,
            # Clients that stay answer no pings.
            "pong_seconds": 3600,
        }
        self.addCleanup(node.kill)
        node.start()
        nginx = Nginx(path / "nginx", (free_port(), node.port), (free_port(), node.http_port))
        self.addCleanup(nginx.kill)
        nginx.start()
        return node, nginx

    def come(
        self, port: int, address: str, *headers: str, path: str = "/ws", tls: bool = True, **connect: object
    ) -> list[object]:
        """The frames of a client from this address in short, up to `connected` or the end. It stays."""
        client = RawClient(port, address=address, tls=ssl._create_unverified_context() if tls else None)
        self.addCleanup(client.socket.close)
        head = client.open(handshake(*headers, path=path))
        self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
        client.say({"isConnect": True, "device": client.user, **connect})
        found: list[object] = []
        while (came := client.next_but_pings()) is not None:
            found.append(came.brief)
            if came.brief == "connected":
                return found
            if came.opcode == CLOSE:
                client.send(close_frame())
                return found
        raise AssertionError(f"the node has gone; before that: {found}")

    def test_trusted(self) -> None:
        """Each client of nginx has its own limits, at the root and under a path, and no lie changes that."""
        node, nginx = self.start(HOST)
        for address in ("127.0.0.2", "127.0.0.3"):
            paths = ["/ws", "/im/ws"] * CONNECTIONS
            for lie, path in zip(LIES[:CONNECTIONS], paths, strict=False):
                came = self.come(nginx.port, address, lie, path=path, token=token("alice"))
                self.assertEqual(came, ["connected"])
            for headers in ([], LIES[:1], LIES[-1:]):
                self.assertEqual(self.come(nginx.port, address, *headers, token=token("alice")), [4100])
        for address in ("127.0.0.4", "127.0.0.5"):
            for lie in LIES[:VISITORS]:
                self.assertEqual(self.come(nginx.port, address, lie, isVisitor=True), ["connected"])
            for headers, path in (((), "/ws"), (LIES[-1:], "/im/ws")):
                came = self.come(nginx.port, address, *headers, path=path, isVisitor=True)
                self.assertEqual(came, ["rate_limited", 4100])
        self.assertEqual(node.metric("imd_visitors_refused_total"), 4)
        self.assertNotIn("which nobody believes", node.log.read_text())

    def test_not_trusted(self) -> None:
        """All clients of nginx count as one, and new visitors not at all; the log says so once. A client that
        comes straight to the node, without such headers, is counted."""
        node, nginx = self.start("192.0.2.1")
        for number in range(VISITORS + 1):
            self.assertEqual(self.come(nginx.port, f"127.0.0.{number + 2}", isVisitor=True), ["connected"])
        self.assertEqual(self.come(nginx.port, "127.0.0.9", token=token("alice")), ["connected"])
        self.assertEqual(self.come(nginx.port, "127.0.0.10", token=token("alice")), [4100])
        straight = [self.come(node.port, "127.0.0.2", tls=False, isVisitor=True) for _ in range(VISITORS + 1)]
        self.assertEqual(straight, [["connected"]] * VISITORS + [["rate_limited", 4100]])
        self.assertEqual(node.log.read_text().count("which nobody believes"), 1)
