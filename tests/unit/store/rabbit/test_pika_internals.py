"""pika's private part is where it was."""

from __future__ import annotations

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet.testing import StringTransport
from twisted.trial import unittest

from imd.store.rabbit.pika_internals import missing_parts, when_closed_by_broker


class PikaInternalsTests(unittest.TestCase):
    def setUp(self) -> None:
        self.protocol = TwistedProtocolConnection(pika.ConnectionParameters())

    def test_nothing_is_missing(self) -> None:
        """The installed pika has all parts; a failure names those that a new version has lost."""
        self.assertEqual(missing_parts(self.protocol), [])

    def test_names_what_is_missing(self) -> None:
        """A part that goes takes with it those that are reached through it."""
        del self.protocol._impl
        self.assertEqual(
            missing_parts(self.protocol),
            ["TwistedProtocolConnection._impl", "Connection.callbacks", "CallbackManager.add"],
        )

    def test_words_of_the_broker(self) -> None:
        """pika calls what was added with the broker's code and text."""
        told: list[tuple[int, str]] = []
        when_closed_by_broker(self.protocol, lambda code, text: told.append((code, text)))
        close = pika.spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0)
        frame = pika.frame.Method(0, close)
        self.protocol.makeConnection(StringTransport())
        self.protocol._impl.callbacks.process(0, pika.spec.Connection.Close, self, frame)
        self.assertEqual(told, [(320, "CONNECTION_FORCED")])
