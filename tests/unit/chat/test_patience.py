"""The patience with frames that cannot be read."""

from __future__ import annotations

from tests.unit.chat.support import Client, ConnectionTestCase


class BadFrameTests(ConnectionTestCase):
    def test_again_and_again(self) -> None:
        """32 bad frames in a row, and it is closed with 4000."""
        client = self.connected()
        for _ in range(31):
            client.connection.frame_received(b"nonsense")
        self.assertIsNone(client.closed)
        client.connection.binary_received()
        self.assertEqual(client.closed, 4000)
        self.assertEqual(client.brief(), [("error", None, "bad_frame")] * 32)
        client.connection.frame_received(b"nonsense")
        client.connection.binary_received()
        self.assertEqual(client.take(), [])

    def test_before_connect(self) -> None:
        """The same before the connect signal."""
        client = Client(self.services)
        for _ in range(32):
            client.connection.frame_received(b"[]")
        self.assertEqual(client.closed, 4000)

    def test_all_errors_before_connect(self) -> None:
        """Errors of all kinds count together before the connect signal."""
        client = Client(self.services)
        for number in range(32):
            self.assertIsNone(client.closed, number)
            if number % 2:
                client.send(type="ping")
            else:
                client.connection.frame_received(b"[]")
        self.assertEqual(client.closed, 4000)

    def test_now_and_then(self) -> None:
        """A frame that can be read begins the count anew; an unknown type does not count."""
        client = self.connected()
        for _ in range(5):
            for _ in range(31):
                client.connection.frame_received(b"nonsense")
            client.send(type="ping")
        for _ in range(100):
            client.send(type="gossip")
        self.assertIsNone(client.closed)
