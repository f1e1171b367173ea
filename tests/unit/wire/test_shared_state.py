"""What an open connection keeps for itself."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from imd.wire.shared_state import lean_class, slim

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class _Protocol(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class _Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """As TCP has it."""


class LeanTests(SynchronousTestCase):
    def opened(self) -> tuple[Any, _Transport]:
        """A slimmed connection after its handshake, and its transport."""
        factory: Any = WebSocketServerFactory(reactor=MemoryReactorClock())
        factory.setProtocolOptions(
            maxFramePayloadSize=77, failByDrop=False, openHandshakeTimeout=0, closeHandshakeTimeout=0
        )
        factory.protocol = lean_class(_Protocol, factory)
        connection, transport = factory.buildProtocol(None), _Transport()
        connection.makeConnection(transport)
        connection.dataReceived(HANDSHAKE)
        self.assertIn(b"101 Switching Protocols", transport.value())
        transport.clear()
        slim(connection)
        return connection, transport

    def test_options_are_on_the_class(self) -> None:
        """No option of Autobahn is copied, and hardly anything else is kept."""
        connection, _ = self.opened()
        self.assertEqual(connection.maxFramePayloadSize, 77)
        self.assertEqual(set(vars(connection)), {"factory", "is_closed", "transport", "utf8validator"})

    def test_goes_on_working(self) -> None:
        """Messages, fragments, pings, a violation and the end, all after slimming."""
        connection, transport = self.opened()
        connection.dataReceived(b"\x81\x82\0\0\0\0hi")
        self.assertEqual(transport.value(), b"\x81\x02hi")
        transport.clear()
        connection.dataReceived(b"\x01\x81\0\0\0\0h\x89\x80\0\0\0\0\x80\x81\0\0\0\0i")
        self.assertEqual(transport.value(), b"\x8a\x00\x81\x02hi")
        transport.clear()
        connection.dataReceived(b"\x81\x01x")
        self.assertEqual(transport.value()[:1], b"\x88")
        self.assertTrue(connection.failedByMe)

    def test_connections_stay_apart(self) -> None:
        """What one changes does not show at another."""
        one, _ = self.opened()
        other, _ = self.opened()
        one.data = b"\x81"
        one.sendClose(1000)
        self.assertEqual((other.data, other.closedByMe), (b"", False))
