"""A device's cursor: what it has read, and how its inbox is told."""

from __future__ import annotations

from twisted.trial import unittest

from imd.chat.cursor import Cursor
from imd.contracts.inbox import Ack, Head


class CursorTests(unittest.TestCase):
    def setUp(self) -> None:
        self.cursor = Cursor()
        self.cursor.restart(4, start_confirmed=True)

    def begin(self) -> Ack | None:
        return self.cursor.begin_to_store("bob", "phone", "chan", "e1")

    def begun(self) -> Ack:
        ack = self.begin()
        assert ack is not None
        return ack

    def test_one_at_a_time(self) -> None:
        """A number that is confirmed while another is being stored goes with the next acknowledgement."""
        self.assertIsNone(self.begin())
        self.cursor.confirm(5)
        first = self.begun()
        self.cursor.confirm(6)
        self.cursor.confirm(7)
        self.assertIsNone(self.begin())
        self.cursor.stored_up_to(first, Head(True, "e1", 7))
        self.assertEqual((self.cursor.stored, self.begun().seq), (5, 7))

    def test_failed(self) -> None:
        """An acknowledgement that failed is told again."""
        self.cursor.confirm(5)
        self.begun()
        self.cursor.store_failed()
        self.assertEqual((self.cursor.stored, self.begun().seq), (4, 5))

    def test_start_not_confirmed(self) -> None:
        """The inbox is told nothing until the start is confirmed; the first acknowledgement says so."""
        self.cursor.restart(6, start_confirmed=False)
        self.assertIsNone(self.begin())
        self.cursor.confirm(6)
        ack = self.begun()
        self.assertEqual((ack.seq, ack.start_confirmed), (6, True))
        self.cursor.stored_up_to(ack, Head(True, "e1", 6))
        self.cursor.confirm(7)
        self.assertFalse(self.begun().start_confirmed)

    def test_restarted_meanwhile(self) -> None:
        """The answer to an acknowledgement from before a restart stores nothing."""
        self.cursor.confirm(5)
        ack = self.begun()
        self.cursor.restart(0, start_confirmed=False)
        head = Head(True, "e1", 9)
        self.assertEqual((self.cursor.stored_up_to(ack, head), self.cursor.stored), (head, -1))

    def test_head_to_go_by(self) -> None:
        """The session goes by the inbox's last number at the acknowledgement before."""
        heads = []
        for seq, head in ((5, 8), (6, 9)):
            self.cursor.confirm(seq)
            heads.append(self.cursor.stored_up_to(self.begun(), Head(True, "e1", head)).seq)
        self.assertEqual(heads, [0, 8])
