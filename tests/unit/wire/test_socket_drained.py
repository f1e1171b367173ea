"""Whether written bytes have reached the other side."""

from __future__ import annotations

import socket
import struct
import time
from types import SimpleNamespace

from twisted.trial import unittest

from imd.wire.socket_drained import all_arrived
from tests.support.servers import wait_until


class ArrivedTests(unittest.TestCase):
    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.wire, _ = listener.accept()
        self.addCleanup(self.peer.close)
        self.addCleanup(self.wire.close)
        self.wire.setblocking(False)
        self.transport = SimpleNamespace(transport=SimpleNamespace(socket=self.wire))

    def becomes(self, arrived: bool) -> None:
        wait_until(lambda: all_arrived(self.transport) is arrived, 180, f"all arrived: {arrived}")

    def test_taken(self) -> None:
        self.assertTrue(all_arrived(self.transport))
        self.wire.send(b"all of it")
        self.becomes(True)
        self.peer.send(b"more to come")
        self.becomes(True)
        self.assertEqual(self.wire.recv(99), b"more to come", "it was only looked at")

    def test_under_way(self) -> None:
        """Bytes that the peer's full buffers have not taken have not arrived."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.wire.send(bytes(1 << 20))
            except BlockingIOError:
                break
        self.assertFalse(all_arrived(self.transport))

    def test_peer_ended(self) -> None:
        self.peer.shutdown(socket.SHUT_WR)
        self.becomes(False)

    def test_peer_reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        self.becomes(False)

    def test_nothing_to_ask(self) -> None:
        self.assertTrue(all_arrived(object()))
