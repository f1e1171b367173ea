"""The undocumented parts of Autobahn are still there, and connections share their common attributes."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.interfaces import IWebSocketChannelStreamingApi
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from imd.wire import autobahn_internals, flow, listener, websocket
from imd.wire.autobahn_internals import (
    LEFTOVERS,
    WHILE_OPEN,
    AutobahnProtocol,
    join_small,
    with_shared_attributes,
)

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class _Echo(AutobahnProtocol):
    """All frames go through Autobahn's parser."""

    dataReceived = WebSocketServerProtocol.dataReceived

    def request_came(self) -> None:
        self.answer_request()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class _Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """TCP transports have this."""


def used_attributes(module: ModuleType) -> set[str]:
    """Names of all attributes that the module takes from a connection."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "protocol", "super()")
    }


def plain_connection() -> tuple[Any, _Transport]:
    """An open connection of Autobahn's own protocol, and its transport."""
    factory: Any = WebSocketServerFactory(reactor=MemoryReactorClock())
    factory.setProtocolOptions(failByDrop=False, openHandshakeTimeout=0, closeHandshakeTimeout=0)
    factory.protocol = WebSocketServerProtocol
    connection, transport = factory.buildProtocol(None), _Transport()
    connection.makeConnection(transport)
    connection.dataReceived(HANDSHAKE)
    return connection, transport


class PartsTests(SynchronousTestCase):
    def test_all_are_there(self) -> None:
        """Each part that is gone is named."""
        connection, _ = plain_connection()
        own = {name for name in vars(AutobahnProtocol) if not hasattr(WebSocketServerProtocol, name)}
        own.update(AutobahnProtocol.__annotations__, ["__name__"])
        used = used_attributes(autobahn_internals) | LEFTOVERS.keys() | WHILE_OPEN.keys()
        missing = {name for name in used - own if not hasattr(connection, name)}
        # Two fragments, the second one cut: there is a message, and a frame.
        connection.dataReceived(b"\x01\x81\0\0\0\0h\x00\x82\0\0\0\0i")
        missing = {name for name in missing if not hasattr(connection, name)}
        self.assertEqual(missing, set(), "not in this version of Autobahn")

    def test_values_while_open(self) -> None:
        """Autobahn gives an open connection these values itself."""
        connection, _ = plain_connection()
        found = {name: getattr(connection, name) for name in WHILE_OPEN}
        self.assertEqual(found, WHILE_OPEN)

    def test_parts_of_the_parser(self) -> None:
        """A frame's header, length and masker have the attributes that count unfinished bytes."""
        connection, _ = plain_connection()
        connection.dataReceived(b"\x01\x85\1\2\3\4hel")
        frame = connection.current_frame
        self.assertEqual((frame.opcode, frame.length, frame.fin), (1, 5, False))
        self.assertEqual(connection.current_frame_masker.pointer(), 3)
        self.assertEqual((connection.message_data_total_length, connection.frame_length), (5, 5))

    def test_used_in_one_place(self) -> None:
        """Other modules use nothing of Autobahn's but the methods that it documents."""
        connection, _ = plain_connection()
        documented = {*dir(IWebSocketChannelStreamingApi), *dir(Protocol), "factory", "transport", "log"}
        documented |= {"setProtocolOptions", "reactor", "protocol", "registerProducer"}
        for module in (websocket, flow, listener):
            taken = {name for name in used_attributes(module) if hasattr(connection, name)}
            self.assertEqual(taken - documented, set(), module.__name__)


class UnfinishedTests(SynchronousTestCase):
    def test_join_small(self) -> None:
        """Small pieces become one; a large one stays, and another begins after it."""
        pieces: list[bytes] = []
        for _ in range(5000):
            pieces.append(b"x")
            join_small(pieces)
        self.assertEqual([len(piece) for piece in pieces], [4096, 904])


class SharedAttributesTests(SynchronousTestCase):
    def opened(self) -> tuple[Any, _Transport]:
        """A connection after its handshake, and its transport."""
        factory: Any = WebSocketServerFactory(reactor=MemoryReactorClock())
        factory.setProtocolOptions(
            maxFramePayloadSize=77, failByDrop=False, openHandshakeTimeout=0, closeHandshakeTimeout=0
        )
        factory.protocol = with_shared_attributes(_Echo, factory)
        connection, transport = factory.buildProtocol(None), _Transport()
        connection.makeConnection(transport)
        connection.dataReceived(HANDSHAKE)
        self.assertIn(b"101 Switching Protocols", transport.value())
        transport.clear()
        return connection, transport

    def test_options_are_on_the_class(self) -> None:
        """A connection has no copy of an option, and few other attributes."""
        connection, _ = self.opened()
        self.assertEqual(connection.maxFramePayloadSize, 77)
        own = {"factory", "handshake_begun", "is_closed", "transport", "utf8validator"}
        self.assertEqual(set(vars(connection)), own)

    def test_goes_on_working(self) -> None:
        """Messages, fragments, pings and a violation find the attributes that they need."""
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
        """A change of one connection does not show at another."""
        one, _ = self.opened()
        other, _ = self.opened()
        one.data = b"\x81"
        one.sendClose(1000)
        self.assertEqual((other.data, other.closedByMe), (b"", False))
