"""The http port and the control socket against many, slow or talkative clients."""

from __future__ import annotations

import contextlib
import socket

from imd.ops.http_site import MAX_CLIENTS
from tests.hostile.support import HostileCase
from tests.support.servers import HOST


def answer(wire: socket.socket, request: bytes) -> bytes:
    """All bytes until the other side closes."""
    wire.settimeout(60)
    found = b""
    with contextlib.suppress(ConnectionError):
        wire.sendall(request)
    with contextlib.suppress(ConnectionError):
        while came := wire.recv(65536):
            found += came
    return found


class HttpPortTests(HostileCase):
    """The http port and the control socket have bounds, as the WebSocket port has."""

    def connect(self, control: bool = False) -> socket.socket:
        if control:
            wire = socket.socket(socket.AF_UNIX)
            wire.connect(str(self.node.folder / "control"))
        else:
            wire = socket.create_connection((HOST, self.node.http_port), timeout=60)
        self.addCleanup(wire.close)
        return wire

    def test_many_that_say_little(self) -> None:
        """Unfinished requests: the oldest give way, and a whole request is answered."""
        before = self.node.metric("imd_http_dropped_total")
        wires = []
        for _ in range(MAX_CLIENTS + 50):
            wire = self.connect()
            wire.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            wires.append(wire)
        self.assertEqual(self.node.http("healthz")[0], 200)
        self.assertGreaterEqual(self.node.metric("imd_http_dropped_total") - before, 50)
        self.assertEqual(answer(wires[0], b""), b"")
        # Bytes of a header now and then do not keep a connection.
        for wire in wires[-20:]:
            wire.sendall(b"x")
        self.assertEqual(self.node.http("readyz")[0], 200)

    def test_bodies(self) -> None:
        """A large or endless body is not read; a small one is read and ignored."""
        head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        endless = (b"Content-Length: 99999999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10\r\n")
        for control in (False, True):
            for more in endless:
                self.assertEqual(answer(self.connect(control), head + more)[:12], b"HTTP/1.1 413")
                # With more bytes behind it, the answer may be lost in the reset.
                found = answer(self.connect(control), head + more + b"x" * 200_000)
                self.assertIn(found[:12], (b"HTTP/1.1 413", b""))
            found = answer(self.connect(control), head + b"Content-Length: 3\r\n\r\nabc")
            self.assertIn(found[:12], (b"HTTP/1.1 405", b"HTTP/1.1 404"))
        self.assertTrue(self.node.answers())
