"""The memory that one connection can make a node hold stays within its bounds."""

from __future__ import annotations

import gc
import weakref

from twisted.trial import unittest

from imd.wire.autobahn_internals import PIECE_BYTES
from imd.wire.flow import MAX_BLOCKED_BYTES
from imd.wire.websocket import CLOSE_HANDSHAKE_SECONDS
from tests.hostile.inprocess import InProcess
from tests.hostile.raw import CLOSE, CONTINUATION, PING, TEXT, close_frame, frame, header


class BoundsTests(unittest.SynchronousTestCase):
    """The bounds of one connection."""

    def test_empty_fragments(self) -> None:
        """Endless empty fragments are joined: only a few pieces are kept."""
        connection = InProcess().open()
        connection.receive(frame(TEXT, b"x", fin=False))
        for _ in range(20):
            connection.receive(frame(CONTINUATION, fin=False) * 100)
            self.assertLess(len(connection.protocol.message_data), 3)
        connection.receive(frame(CONTINUATION, b"y"))
        self.assertEqual(connection.recorder.events, [b"xy"])

    def test_single_bytes(self) -> None:
        """The bytes of a frame that comes byte by byte are joined, too."""
        connection = InProcess().open()
        size = 3 * PIECE_BYTES
        connection.receive(header(TEXT, size) + b"\0\0\0\0")
        for _ in range(size - 1):
            connection.receive(b"x")
            self.assertLess(len(connection.protocol.frame_data), 5)
        connection.receive(b"x")
        self.assertEqual(connection.recorder.events, [b"x" * size])

    def test_nothing_is_left_for_the_garbage_collector(self) -> None:
        """An ended connection is freed at once, as a node collects garbage seldom."""
        connection = InProcess().open()
        gone = weakref.ref(connection.protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        connection.lose()
        # As a socket does.
        connection.transport.unregisterProducer()
        del connection
        self.assertIsNone(gone())

    def test_nothing_is_kept_after_a_failure(self) -> None:
        """After a header that fails the connection no input is kept."""
        for start in (header(PING, 2**62), header(TEXT, 2**62), header(11, 2**40), header(TEXT, 2**64 - 1)):
            connection = InProcess().open()
            connection.receive(start + b"\0\0\0\0")
            for _ in range(20):
                connection.receive(b"x" * 65536)
            protocol = connection.protocol
            for name in ("data", "frame_data", "message_data", "control_frame_data"):
                self.assertLess(len(getattr(protocol, name, None) or b""), 100, name)
            connection.clock.advance(CLOSE_HANDSHAKE_SECONDS + 0.5)
            self.assertTrue(connection.transport.aborted)

    def test_pings_of_one_who_does_not_read(self) -> None:
        """A full socket gets no pongs. When it takes bytes again, it gets the pong of the last ping."""
        connection = InProcess().open()
        connection.protocol.pauseProducing()
        connection.receive(frame(PING, b"x" * 125) * 1000)
        self.assertEqual(connection.written(), b"")
        connection.protocol.resumeProducing()
        self.assertEqual(connection.written(), b"\x8a\x7d" + b"x" * 125)
        connection.receive(frame(PING))
        self.assertEqual(connection.written(), b"\x8a\x00")

    def test_answers_that_nobody_reads(self) -> None:
        """A client that does not read its answers is not read from until its socket has taken them."""
        connection = InProcess().open()
        connection.protocol.pauseProducing()
        asked = 0
        while connection.transport.producerState == "producing" and asked < 50_000:
            connection.receive(frame(TEXT, b"x"))
            # As Twisted does with every write to a full buffer.
            connection.protocol.pauseProducing()
            asked += 1
        self.assertEqual(connection.transport.producerState, "paused")
        self.assertLess(len(connection.written()), 2 * MAX_BLOCKED_BYTES)
        connection.protocol.resumeProducing()
        self.assertEqual(connection.transport.producerState, "producing")

    def test_a_close_that_nobody_reads(self) -> None:
        """A client that closes has three seconds to read what was still to be sent."""
        connection = InProcess().open()
        recorder = connection.recorder
        connection.protocol.pauseProducing()
        connection.receive(close_frame())
        self.assertTrue(connection.transport.disconnecting)
        self.assertFalse(connection.transport.aborted)
        connection.clock.advance(CLOSE_HANDSHAKE_SECONDS)
        self.assertTrue(connection.transport.aborted)
        connection.lose()
        self.assertEqual(recorder.events[-1], ("lost", False))

    def test_a_bad_close_is_not_clean(self) -> None:
        """A close frame that breaks the protocol is answered, and acknowledges nothing."""
        for payload, clean in ((b"\x03\xe8", True), (b"\x03\xed", False), (b"\x03\xe8\xff", False)):
            connection = InProcess().open()
            recorder = connection.recorder
            connection.receive(frame(CLOSE, payload))
            self.assertEqual(connection.written()[:1], b"\x88")
            self.assertFalse(connection.transport.aborted)
            connection.lose()
            self.assertEqual(recorder.events[-1], ("lost", clean), payload)
