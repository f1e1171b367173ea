"""Receiving: each message once, acknowledged when it was handled."""

from __future__ import annotations

from twisted.trial import unittest

from imd.client import State, effects, events
from tests.unit.client.support import Pipe


class ReceivingTests(unittest.TestCase):
    def test_acknowledged_when_handled(self) -> None:
        """Together, after a moment, or at once when there are many; never past what is not handled."""
        pipe = Pipe()
        pipe.open()
        for seq in (1, 2, 3):
            pipe.message(seq)
        pipe.take()
        pipe.core.handled("m2")
        pipe.wait(1)
        self.assertEqual(pipe.take(), [])
        pipe.core.handled("m1")
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 2, "epoch": "e"}])
        pipe.core.handled("m3")
        self.assertEqual(pipe.take(), [])
        pipe.wait(0.2)
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 3, "epoch": "e"}])

    def test_stop_acknowledges(self) -> None:
        """`stop` acknowledges handled messages, and does not wait for a node that does not close."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.core.handled("m1")
        pipe.take()
        pipe.core.stop()
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 1, "epoch": "e"}])
        self.assertEqual(pipe.done[-1], effects.HangUp())
        pipe.wait(3)
        self.assertEqual((pipe.core.state, pipe.done[-2]), (State.CLOSED, effects.Drop()))

    def test_again(self) -> None:
        """A message that comes again while the program has it is not given twice, in any epoch."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.lose()
        pipe.wait(1)
        pipe.open(epoch="f", seq=4, recovered=False)
        self.assertEqual(len(pipe.events(events.Gap)), 1)
        self.assertEqual(pipe.take()[-1], {"type": "ack", "seq": 4, "epoch": "f"})
        pipe.message(5, "m1")
        pipe.message(6, "m2")
        self.assertEqual([message.id for message in pipe.delivered], ["m1", "m2"])
        pipe.take()
        pipe.core.handled("m2")
        pipe.core.handled("m1")
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 6, "epoch": "f"}])

    def test_hole_that_was_mended(self) -> None:
        """It is forgotten: the next hole is asked for, too."""
        pipe = Pipe()
        pipe.open()
        for seq in (1, 3, 5):
            pipe.message(seq)
            pipe.core.handled(f"m{seq}")
            pipe.message(seq + 2)
            self.assertEqual(pipe.core.state, State.WAITING)
            pipe.wait(9)
            pipe.open(seq=seq)
            pipe.message(seq + 1)
            pipe.core.handled(f"m{seq + 1}")
        self.assertEqual([message.seq for message in pipe.delivered], [1, 2, 3, 4, 5, 6])
        self.assertEqual(pipe.events(events.Gap), [])
