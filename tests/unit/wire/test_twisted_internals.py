"""The undocumented parts of Twisted are still there, and mean the same."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import StringTransport
from twisted.trial import unittest

from imd.entry.forwarded import Trusted
from imd.wire.proxied import ProxiedFactory
from imd.wire.twisted_internals import (
    Listener,
    has_empty_buffers,
    socket_of,
    unwrapped,
    use_monotonic_clock,
)


class ClockTests(unittest.SynchronousTestCase):
    def test_timers_follow_the_clock_that_is_set(self) -> None:
        """A reactor computes when a call is due with its own `seconds`."""
        other: Any = SelectReactor()
        self.addCleanup(other.removeAll)
        use_monotonic_clock(other)
        before = time.monotonic()
        due = other.callLater(100, lambda: None).getTime() - 100
        self.assertTrue(before - 0.001 <= due <= time.monotonic() + 0.001, due - before)


class OpenConnectionTests(unittest.TestCase):
    """A connection over TCP, as a node has."""

    async def test_all_are_there(self) -> None:
        """Each part that is gone is named."""
        port, _, made = self.listen()
        transport = await made
        self.addCleanup(transport.abortConnection)
        parts = {
            transport: ("_tempDataLen", "dataBuffer", "connected", "disconnecting", "TLS", "socket"),
            port: ("numberAccepts", "pauseProducing", "resumeProducing"),
            reactor: ("seconds",),
        }
        missing = [name for owner, names in parts.items() for name in names if not hasattr(owner, name)]
        self.assertEqual(missing, [], "not in this version of Twisted")

    def listen(self) -> tuple[Any, socket.socket, Deferred[Any]]:
        """A port, a client of it, and the transport of the server's side when it is there."""
        made: Deferred[Any] = Deferred()

        class Server(Protocol):
            def connectionMade(self) -> None:
                made.callback(self.transport)

        factory = Factory.forProtocol(Server)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(client.close)
        return port, client, made

    async def test_buffers(self) -> None:
        """Buffers are empty at first, and not while a write waits or the connection is being closed."""
        _, _, made = self.listen()
        transport = await made
        self.addCleanup(transport.abortConnection)
        self.assertTrue(has_empty_buffers(transport))
        transport.write(b"x")
        self.assertFalse(has_empty_buffers(transport))
        transport.doWrite()
        self.assertTrue(has_empty_buffers(transport))
        transport.loseConnection()
        self.assertFalse(has_empty_buffers(transport))

    async def test_socket(self) -> None:
        """The socket is found below a wrapper; a transport in memory has none."""
        _, client, made = self.listen()
        transport = await made
        self.addCleanup(transport.abortConnection)
        factory = Factory.forProtocol(Protocol)
        wrapper: Any = ProxiedFactory(factory, Trusted(unix=True), lambda: 0.0).buildProtocol(None)
        wrapper.transport = transport
        self.assertIs(unwrapped(wrapper), transport)
        found = socket_of(wrapper)
        assert found is not None
        self.assertEqual(found.getpeername(), client.getsockname())
        self.assertIsNone(socket_of(StringTransport()))

    async def test_listener(self) -> None:
        """A shut listener accepts nobody. When it opens again, it accepts the clients that wait."""
        port, _, made = self.listen()
        listener = Listener(port)
        listener.accept_at_most(7)
        self.assertEqual(port.numberAccepts, 7)
        listener.accept_at_most(9)
        self.assertEqual(port.numberAccepts, 7)
        listener.shut()
        await _turns(lambda: port.getHost())
        self.assertFalse(made.called)
        listener.open()
        transport = await made
        transport.abortConnection()


async def _turns(look: Callable[[], Any], count: int = 20) -> None:
    """Let the reactor come round a number of times."""
    for _ in range(count):
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn
        look()
