"""Flow control: the cost of a socket that takes nothing, and its metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.entry.gate import Gate
from imd.wire.flow import MAX_BLOCKED_BYTES
from imd.wire.outgoing import Outgoing
from imd.wire.websocket import ChannelProtocol


class TransportDouble:
    def __init__(self) -> None:
        self.reading = True
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True


class FactoryDouble:
    gate = Gate(lambda: 0.0, Clock().callLater)

    def flush_soon(self, outgoing: Any) -> None:
        """Not needed: the tests flush."""

    def closed(self, protocol: Any) -> None:
        """Connections are not counted here."""


class SlowSocketTests(unittest.TestCase):
    def setUp(self) -> None:
        self.protocol = ChannelProtocol()
        self.transport = TransportDouble()
        self.protocol.transport = self.transport
        self.protocol.factory = FactoryDouble()  # type: ignore[assignment]
        self.outgoing = Outgoing(
            self.transport, self.protocol.factory.flush_soon, self.protocol.written_while_blocked
        )
        self.protocol.outgoing = self.outgoing
        # As a handshake leaves it.
        self.protocol.inside_message = False
        self.before = self.counted()

    def counted(self) -> list[float]:
        names = ("imd_blocked_connections", "imd_blocked_bytes", "imd_choked_connections")
        return [REGISTRY.get_sample_value(name) or 0.0 for name in names]

    def more(self) -> list[float]:
        """Blocked connections, blocked bytes and choked connections since the test began."""
        return [now - then for now, then in zip(self.counted(), self.before, strict=True)]

    def send(self, size: int) -> None:
        self.outgoing.send(b"x" * size)
        self.outgoing.flush()

    def test_takes_everything(self) -> None:
        """A socket that takes all bytes is read from, however many they are."""
        for _ in range(10):
            self.send(MAX_BLOCKED_BYTES)
        self.assertEqual((self.more(), self.transport.reading), ([0, 0, 0], True))

    def test_answers_that_nobody_takes(self) -> None:
        """Past the bound the socket is not read from, until it has taken all."""
        self.protocol.pauseProducing()
        self.protocol.pauseProducing()
        self.assertEqual((self.more(), self.outgoing.writable), ([1, 0, 0], False))
        self.send(100)
        self.assertEqual((self.more(), self.transport.reading), ([1, 102, 0], True))
        self.send(MAX_BLOCKED_BYTES)
        self.send(100)
        self.assertEqual((self.more(), self.transport.reading), ([1, MAX_BLOCKED_BYTES + 214, 1], False))
        self.protocol.resume_reading()
        self.assertFalse(self.transport.reading, "whoever else wants to read has to wait")
        self.protocol.resumeProducing()
        self.assertEqual((self.more(), self.transport.reading), ([0, 0, 0], True))

    def test_other_reasons_not_to_read(self) -> None:
        """A socket that takes bytes again is not read from while the handler has paused reading."""
        self.protocol.pauseProducing()
        self.send(MAX_BLOCKED_BYTES + 1)
        self.protocol.pause_reading()
        self.protocol.resumeProducing()
        self.assertFalse(self.transport.reading)
        self.protocol.resume_reading()
        self.assertTrue(self.transport.reading)

    def test_flushed_after_the_end(self) -> None:
        """Frames sent in the turn in which the connection ended are neither written nor counted."""
        self.protocol.pauseProducing()
        self.outgoing.send(b"x" * 100)
        self.protocol.onClose(False, None, None)
        self.outgoing.flush()
        self.assertEqual((self.more(), self.transport.written), ([0, 0, 0], 0))
