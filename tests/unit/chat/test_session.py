"""One device's session, step by step; tests.unit.chat.test_session_story tells it at random."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.trial import unittest

from imd.chat import hint_buffer
from imd.chat.hint_buffer import HintBuffer
from imd.chat.session import PAGE_MESSAGES, UNACKED_PING, Session
from imd.contracts.inbox import ConnectRequest, Head, Registered
from imd.protocol.errors import INVALID_MESSAGE, Refused
from tests.support.doubles import InboxDouble, WireDouble


class SessionTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.inbox = InboxDouble()
        self.wire = WireDouble()

    def make(self, *, acknowledges: bool = True, window: int = 8, channel: str = "c1") -> Session:
        request = ConnectRequest("bob", "phone", channel)
        return Session(self.inbox, self.wire, request, acknowledges=acknowledges, window=window)

    def register(self, session: Session, **cursor: Any) -> Registered:
        """Register its channel, as the connection does."""
        return self.inbox.register(ConnectRequest("bob", "phone", session.channel, **cursor))

    def begin(self, *, settle: bool = True, **options: Any) -> Session:
        session = self.make(**options)
        session.begin(self.register(session))
        if settle:
            self.inbox.settle()
        return session

    def place(self, count: int = 1) -> list[tuple[str, int, bytes]]:
        """Put messages into bob's inbox; gives their hints."""
        placed = [self.inbox.place("bob") for _ in range(count)]
        return [(delivery.epoch, delivery.seq, delivery.body) for delivery in placed]


class HintTests(SessionTestCase):
    def test_in_order(self) -> None:
        """A hint with the next number is pushed as it is, and the inbox is not asked."""
        session = self.begin()
        for hint in self.place(3):
            self.assertTrue(session.hint(*hint))
        self.assertEqual(self.wire.payloads[0], b'{"seq":1,"msg":"1"}')
        self.assertEqual(self.wire.seqs(), [1, 2, 3])
        self.assertEqual(self.inbox.names(), [])

    def test_gap(self) -> None:
        """A hint that leaves a gap makes the session pull what is missing, once."""
        session = self.begin()
        hints = self.place(3)
        self.assertFalse(session.hint(*hints[2]))
        self.assertFalse(session.hint(*hints[1]))
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([], ["pull"]))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3])
        self.assertFalse(session.hint(*hints[0]))
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([1, 2, 3], []))

    def test_twice(self) -> None:
        """A hint that comes twice is dropped."""
        session = self.begin()
        [hint] = self.place()
        self.assertTrue(session.hint(*hint))
        self.assertFalse(session.hint(*hint))
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([1], []))

    def test_without_the_message(self) -> None:
        """A hint that brings only a number makes the session pull."""
        session = self.begin()
        [(epoch, seq, _)] = self.place()
        self.assertFalse(session.hint(epoch, seq, None))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1])

    def test_while_pulling(self) -> None:
        """Messages that come while a page is read are pushed behind it, and not read again."""
        replayed: list[int] = []
        self.patch(hint_buffer.REPLAYED, "inc", replayed.append)
        session = self.begin()
        hints = self.place(2)
        session.hint(*hints[1])
        self.inbox.perform()
        for hint in self.place(3):
            self.assertFalse(session.hint(*hint))
        self.assertEqual(self.wire.seqs(), [])
        self.inbox.answer()
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([1, 2, 3, 4, 5], []))
        self.assertEqual(replayed, [3], "each delivery is counted")
        [sixth] = self.place()
        self.assertTrue(session.hint(*sixth))
        self.assertEqual(HintBuffer.total_bytes, 0)

    def test_while_pulling_with_a_hole(self) -> None:
        """Messages that do not follow the page are read again, and nothing is left behind."""
        session = self.begin()
        hints = self.place(2)
        session.hint(*hints[1])
        self.inbox.perform()
        [third, fourth, fifth] = self.place(3)
        for epoch, seq, body in (third, (fourth[0], fourth[1], None), fifth):
            session.hint(epoch, seq, body)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3, 4, 5])
        self.assertEqual(HintBuffer.total_bytes, 0)

    def test_while_pulling_into_a_closed_window(self) -> None:
        """Nothing is pushed that the device's window, or its socket, has no room for."""
        session = self.begin(window=3)
        hints = self.place(2)
        session.hint(*hints[1])
        self.inbox.perform()
        for hint in self.place(3):
            session.hint(*hint)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3])
        session.acknowledge(3)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3, 4, 5])

    def test_while_pulling_more_than_is_kept(self) -> None:
        """Messages without room come from the inbox."""
        self.patch(hint_buffer, "MAX_MESSAGES", 4)
        session = self.begin(window=1000)
        session.hint(*self.place(2)[1])
        self.inbox.perform()
        for hint in self.place(10):
            session.hint(*hint)
        self.inbox.answer()
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([*range(1, 7)], ["pull"]))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [*range(1, 13)])
        self.patch(hint_buffer, "MAX_BYTES", 1)
        session.hint(*self.place(2)[1])
        self.inbox.perform()
        session.hint(*self.place()[0])
        self.assertEqual(HintBuffer.total_bytes, 0)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [*range(1, 16)])

    def test_hint_later_than_an_acknowledgement(self) -> None:
        """Hints of messages since the last acknowledgement are on their way; earlier ones are lost."""
        session = self.begin()
        first, second, _ = self.place(3)
        session.hint(*first)
        session.acknowledge(1)
        self.inbox.settle()
        session.hint(*second)
        self.assertEqual(self.wire.seqs(), [1, 2])
        session.acknowledge(2)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3])

    def test_failed_while_buffering(self) -> None:
        """A pull that fails lets go of what came meanwhile."""
        session = self.begin()
        session.hint(*self.place(2)[1])
        session.hint(*self.place()[0])
        self.assertGreater(HintBuffer.total_bytes, 0)
        self.inbox.refuse()
        self.assertEqual(HintBuffer.total_bytes, 0)

    def test_before_the_beginning(self) -> None:
        """Hints that come while the inbox still registers the channel count when that is through."""
        session = self.make()
        [first] = self.place()
        registered = self.register(session)
        [second] = self.place()
        self.assertFalse(session.hint(*second))
        self.assertFalse(session.hint(*first))
        session.begin(registered)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2])

    def test_no_such_message(self) -> None:
        """A number that the inbox does not have is given up, not asked for without end."""
        session = self.begin()
        [(epoch, _, body)] = self.place()
        session.hint(epoch, 5, body)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1])
        [second] = self.place()
        self.assertTrue(session.hint(*second))

    def test_failed_pull(self) -> None:
        """A pull that fails leaves the session behind, until it hears of the inbox again."""
        session = self.begin()
        hints = self.place(2)
        session.hint(*hints[1])
        self.inbox.refuse()
        self.assertEqual(self.inbox.names(), [])
        session.head_seen(Head(True, hints[1][0], 2))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2])


class BeginningTests(SessionTestCase):
    def test_new_epoch_before_the_beginning(self) -> None:
        """A hint of a newer epoch than the registration's makes the session register again."""
        session = self.make()
        registered = self.register(session)
        self.inbox.go_back("bob", 0)
        [hint] = self.place()
        session.hint(*hint)
        session.begin(registered)
        self.inbox.settle()
        self.assertEqual([frame.get("type", frame["seq"]) for frame in self.wire.frames], ["reset", 1])

    def test_from_the_cursor_on(self) -> None:
        """Waiting messages follow at once, from the first page; the rest is pulled."""
        self.place(PAGE_MESSAGES + 20)
        self.begin(window=1000)
        self.assertEqual(self.wire.seqs(), list(range(1, PAGE_MESSAGES + 21)))
        self.assertEqual([name for name, _ in self.inbox.asked], ["connect", "pull"])

    def test_window_at_the_beginning(self) -> None:
        """The first page, too, is no more than a window."""
        self.place(20)
        session = self.begin(window=8)
        self.assertEqual(self.wire.seqs(), list(range(1, 9)))
        session.acknowledge(8)
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), list(range(1, 17)))


class WindowTests(SessionTestCase):
    def test_full(self) -> None:
        """Past the window hints are dropped and nothing is read; what is acknowledged lets more follow."""
        session = self.begin(window=4)
        for hint in self.place(10):
            session.hint(*hint)
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([1, 2, 3, 4], []))
        session.acknowledge(2)
        self.assertEqual(self.inbox.asked[-1], ("pull", (4, 2)))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3, 4, 5, 6])

    def test_acknowledged(self) -> None:
        """An acknowledgement is told to the inbox, one call at a time, the newest number last."""
        session = self.begin()
        for hint in self.place(5):
            session.hint(*hint)
        for seq in (1, 2, 4):
            session.acknowledge(seq)
        self.assertEqual(self.inbox.names(), ["ack"])
        self.inbox.settle()
        acks = [argument.seq for name, argument in self.inbox.asked if name == "ack"]
        self.assertEqual((acks, session.cursor.stored), ([1, 4], 4))
        self.assertEqual(self.inbox.of("bob").low, 4)

    def test_lost_acknowledgement(self) -> None:
        """An acknowledgement that the inbox did not get is told again at the next chance."""
        session = self.begin()
        [(epoch, seq, body)] = self.place()
        session.hint(epoch, seq, body)
        session.acknowledge(1)
        self.inbox.refuse()
        self.assertEqual((session.cursor.acked, session.cursor.stored, self.inbox.names()), (1, 0, []))
        session.head_seen(Head(True, epoch, 1))
        self.inbox.settle()
        self.assertEqual(session.cursor.stored, 1)

    def test_older(self) -> None:
        """An older number, and the same again, change nothing."""
        session = self.begin()
        for hint in self.place(3):
            session.hint(*hint)
        session.acknowledge(3)
        self.inbox.settle()
        asked = len(self.inbox.asked)
        for seq in (3, 2, 0):
            session.acknowledge(seq)
        self.assertEqual((session.cursor.acked, len(self.inbox.asked)), (3, asked))

    def test_never_sent(self) -> None:
        """A number that was never sent to this channel, and a negative one, are refused."""
        session = self.begin()
        [hint] = self.place()
        session.hint(*hint)
        for seq in (2, -1, 10**400):
            refused = self.assertRaises(Refused, session.acknowledge, seq)
            self.assertEqual(refused.code, INVALID_MESSAGE)
        self.assertEqual(session.cursor.acked, 0)


class SlowSocketTests(SessionTestCase):
    def test_paused(self) -> None:
        """While the socket does not take what was sent, hints are dropped; then the rest is pulled."""
        session = self.begin()
        self.wire.writable = False
        for hint in self.place(3):
            self.assertFalse(session.hint(*hint))
        self.assertEqual((self.wire.seqs(), self.inbox.names()), ([], []))
        self.wire.writable = True
        session.writable_again()
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3])

    def test_seed_client_too(self) -> None:
        """A client without acknowledgements has no window, but its socket holds it back all the same."""
        session = self.begin(acknowledges=False, window=2)
        for hint in self.place(5):
            self.assertTrue(session.hint(*hint))
        self.wire.writable = False
        self.assertFalse(session.hint(*self.place()[0]))


class SeedClientTests(SessionTestCase):
    def seed_client(self, count: int = 3) -> Session:
        session = self.begin(acknowledges=False)
        for hint in self.place(count):
            session.hint(*hint)
        return session

    def test_pong(self) -> None:
        """A pong acknowledges what was sent before its ping, and nothing later."""
        session = self.seed_client(2)
        mark = session.ping_mark()
        session.hint(*self.place()[0])
        session.ponged(mark)
        self.inbox.settle()
        self.assertEqual((session.cursor.acked, session.cursor.stored), (2, 2))

    def test_pongs_that_tell_nothing(self) -> None:
        """Another epoch's mark, an older one, one ahead of what was sent and nonsense are passed over."""
        session = self.seed_client()
        for mark in (b"0:2", b"2:2", b"1:4", b"1:-1", b"1:", b"", b"imd", b"\xff\xfe:1", b"1:" + b"1" * 50):
            session.ponged(mark)
        self.assertEqual(session.cursor.acked, 0)
        session.ponged(b"1:3")
        session.ponged(b"1:1")
        self.assertEqual(session.cursor.acked, 3)

    def test_pong_of_one_that_acknowledges(self) -> None:
        """For a client that acknowledges, a pong says nothing about its messages."""
        session = self.begin()
        session.hint(*self.place()[0])
        session.ponged(session.ping_mark())
        self.assertEqual(session.cursor.acked, 0)

    def test_pinged_when_much_waits(self) -> None:
        """Every so many messages a ping goes along, so that a busy client's cursor moves."""
        self.seed_client(2 * UNACKED_PING + 1)
        self.assertEqual(self.wire.pings, 2)

    def test_clean_close(self) -> None:
        """A clean close acknowledges what was written; any other end does not."""
        session = self.seed_client()
        self.assertEqual(session.leave(clean=False).seq, 0)
        session = self.seed_client()
        self.assertEqual(session.leave(clean=True).seq, 6)

    def test_clean_close_of_one_that_acknowledges(self) -> None:
        """A client that acknowledges has what it acknowledged, however it ends."""
        session = self.begin()
        for hint in self.place(2):
            session.hint(*hint)
        session.acknowledge(1)
        leave = session.leave(clean=True)
        self.assertEqual((leave.user, leave.device, leave.channel), ("bob", "phone", "c1"))
        self.assertEqual((leave.epoch, leave.seq, leave.ephemeral), (session.epoch, 1, False))


class ResetTests(SessionTestCase):
    def test_new_epoch(self) -> None:
        """When the inbox went back in time the device is told `reset` and gets what follows."""
        session = self.begin()
        for hint in self.place(5):
            session.hint(*hint)
        session.acknowledge(3)
        self.inbox.settle()
        self.inbox.go_back("bob", 1)
        [hint] = self.place()
        self.assertFalse(session.hint(*hint))
        self.inbox.settle()
        frames = self.wire.frames
        self.assertEqual(frames[5], {"type": "reset", "epoch": "e2", "seq": 3, "recovered": False})
        self.assertTrue(self.wire.payloads[5].startswith(b'{"type":"reset"'))
        self.assertEqual([frame["seq"] for frame in frames[6:]], [4, 5])
        session.acknowledge(5, "e2")
        self.inbox.settle()
        self.assertEqual(self.inbox.of("bob").cursors["phone"], ("e2", 5))

    def test_old_numbers_after_a_reset(self) -> None:
        """An acknowledgement from before the reset is no error, and acknowledges nothing."""
        session = self.begin()
        for hint in self.place(5):
            session.hint(*hint)
        self.inbox.go_back("bob", 5)
        session.head_seen(Head(True, "e2", 0))
        self.inbox.settle()
        session.acknowledge(5)
        self.assertEqual((session.epoch, session.sent, session.cursor.acked), ("e2", 0, 0))
        self.assertRaises(Refused, session.acknowledge, 6)

    def reset(self, *, kept: int = 0, **options: Any) -> Session:
        """A session that was sent five messages, and then a reset and what was `kept` of them."""
        session = self.begin(**options)
        for hint in self.place(5):
            session.hint(*hint)
        self.inbox.go_back("bob", 5 - kept)
        session.head_seen(Head(True, "e2", kept))
        self.inbox.settle()
        self.assertEqual((session.epoch, session.sent, self.wire.pings), ("e2", kept, 1))
        return session

    def test_ack_that_crosses_a_reset(self) -> None:
        """Without an epoch, a number that comes before the pong to the reset's ping counts for nothing,
        although the new epoch has got that far; after it, it counts."""
        session = self.reset(kept=4)
        mark = session.ping_mark()
        session.acknowledge(3)
        session.ponged(b"1:5")
        session.acknowledge(3)
        cursor = session.cursor
        self.assertEqual((cursor.acked, cursor.start_confirmed, self.inbox.names()), (0, False, []))
        session.ponged(mark)
        session.acknowledge(3)
        self.inbox.settle()
        self.assertEqual((session.cursor.acked, self.inbox.of("bob").cursors["phone"]), (3, ("e2", 3)))

    def test_ack_that_names_its_epoch(self) -> None:
        """With an epoch there is no need to wait, and what is of another one is no error whatever it is."""
        session = self.reset(kept=4)
        for seq in (3, 99, -1):
            session.acknowledge(seq, "e1")
        self.assertEqual(session.cursor.acked, 0)
        session.acknowledge(2, "e2")
        self.assertEqual(session.cursor.acked, 2)
        self.assertRaises(Refused, session.acknowledge, 99, "e2")

    def test_ack_with_an_empty_epoch(self) -> None:
        """It names none."""
        session = self.reset(kept=4)
        session.acknowledge(2, "")
        self.assertEqual(session.cursor.acked, 0)
        session.ponged(session.ping_mark())
        session.acknowledge(2, "")
        self.assertEqual(session.cursor.acked, 2)

    def test_only_the_last_reset_counts(self) -> None:
        """A pong to the ping of a reset that another has followed proves nothing about the later one."""
        session = self.reset(kept=3)
        first = session.ping_mark()
        self.inbox.go_back("bob", 0)
        session.head_seen(Head(True, "e3", 3))
        self.inbox.settle()
        session.ponged(first)
        session.acknowledge(2)
        self.assertEqual((session.epoch, session.cursor.acked), ("e3", 0))
        session.ponged(session.ping_mark())
        session.acknowledge(2)
        self.assertEqual(session.cursor.acked, 2)

    def test_acknowledged_meanwhile(self) -> None:
        """An acknowledgement under way while the epoch changes does not count in the new one."""
        session = self.begin()
        for hint in self.place(4):
            session.hint(*hint)
        session.acknowledge(4)
        self.inbox.go_back("bob", 4)
        self.inbox.settle()
        self.assertEqual((session.epoch, session.cursor.acked, session.cursor.stored), ("e2", 0, -1))
        self.assertEqual(self.wire.last()["type"], "reset")

    def test_late_hint_of_the_old_epoch(self) -> None:
        """A hint of an epoch that is over leads to a look at the inbox, not to a second reset."""
        session = self.begin()
        [old] = self.place()
        self.inbox.go_back("bob", 1)
        session.head_seen(Head(True, "e2", 0))
        self.inbox.settle()
        [new] = self.place()
        session.hint(*new)
        session.hint(*old)
        self.inbox.settle()
        self.assertEqual([frame.get("type", frame["seq"]) for frame in self.wire.frames], ["reset", 1])
        self.assertEqual(self.inbox.names(), [])

    def test_hint_while_registering_again(self) -> None:
        """The number of a hint that comes while the channel registers again is not forgotten."""
        session = self.begin()
        self.place(2)
        self.inbox.go_back("bob", 0)
        session.head_seen(Head(True, "e2", 2))
        self.inbox.perform()
        for hint in self.place(2):
            self.assertFalse(session.hint(*hint))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2, 3, 4])

    def test_new_epoch_while_pulling(self) -> None:
        """A hint of a new epoch that overtakes a page of the old one is not forgotten either."""
        session = self.begin()
        hints = self.place(2)
        session.hint(*hints[1])
        self.inbox.perform()
        self.inbox.go_back("bob", 0)
        [third] = self.place()
        session.hint(*third)
        self.inbox.settle()
        kinds = [frame.get("type", frame["seq"]) for frame in self.wire.frames]
        self.assertEqual(kinds, [1, 2, "reset", 1, 2, 3])

    def test_page_of_another_epoch(self) -> None:
        """A pull that finds another epoch registers again."""
        session = self.begin()
        hints = self.place(2)
        self.inbox.go_back("bob", 0)
        session.hint(hints[1][0], 2, None)
        self.inbox.settle()
        self.assertEqual([frame.get("type", frame["seq"]) for frame in self.wire.frames], ["reset", 1, 2])

    def test_trimmed(self) -> None:
        """Messages that left the inbox unseen are skipped with a `reset`, in the same epoch."""
        self.inbox.max_messages = 4
        session = self.begin(window=2)
        for hint in self.place(10):
            session.hint(*hint)
        self.assertEqual(self.wire.seqs(), [1, 2])
        session.acknowledge(2)
        self.inbox.settle()
        self.assertEqual(self.wire.frames[2], {"type": "reset", "epoch": "e1", "seq": 6, "recovered": False})
        self.assertEqual([frame["seq"] for frame in self.wire.frames[3:]], [7, 8])

    def test_hint_while_trimmed(self) -> None:
        """The number of a hint that comes while the page that tells of the trim is read is kept."""
        session = self.begin()
        self.place(3)
        self.inbox.of("bob").trim(2)
        session.head_seen(Head(True, "e1", 3))
        self.inbox.perform()
        session.hint(*self.place()[0])
        self.inbox.settle()
        kinds = [frame.get("type", frame["seq"]) for frame in self.wire.frames]
        self.assertEqual(kinds, ["reset", 3, 4])

    def test_all_trimmed(self) -> None:
        """With nothing left in the inbox the device goes on after the last number given out."""
        session = self.begin()
        self.place(3)
        self.inbox.of("bob").trim(3)
        session.head_seen(Head(True, "e1", 3))
        self.inbox.settle()
        self.assertEqual(self.wire.frames, [{"type": "reset", "epoch": "e1", "seq": 3, "recovered": False}])
        self.assertTrue(session.hint(*self.place()[0]))


class ToldTests(SessionTestCase):
    """A device that is to be told of a hole is told again each time, until it shows that it has read it."""

    def again(self, seq: int, recovered: bool) -> None:
        """The answer that the device's next connect would get."""
        again = self.register(self.make(channel="c2"))
        self.assertEqual((again.seq, again.recovered), (seq, recovered))

    def behind(self, **options: Any) -> Session:
        """A session whose device missed the first two of four messages."""
        self.inbox = InboxDouble()
        self.register(self.make(channel="c0"))
        self.inbox.of("bob").channels.clear()
        self.place(4)
        self.inbox.of("bob").trim(2)
        session = self.begin(**options)
        self.assertEqual((session.epoch, session.sent, session.cursor.start_confirmed), ("e1", 4, False))
        return session

    def test_gone_without_a_sign(self) -> None:
        """A connection that ends before anything was acknowledged leaves the cursor as it is."""
        session = self.behind()
        self.inbox.leave(session.leave(clean=True))
        self.again(2, recovered=False)

    def test_acknowledged(self) -> None:
        """The first number acknowledged shows it, be it the one that the device begins at."""
        for seq in (2, 3):
            session = self.behind()
            session.acknowledge(1)
            self.assertFalse(session.cursor.start_confirmed)
            session.acknowledge(seq)
            self.inbox.settle()
            self.assertEqual(session.cursor.stored, seq)
            self.inbox.leave(session.leave(clean=False))
            self.again(seq, recovered=True)

    def test_lost_acknowledgement(self) -> None:
        """If the inbox did not get to know it, leaving tells it."""
        session = self.behind()
        session.acknowledge(2)
        self.inbox.refuse()
        self.inbox.leave(session.leave(clean=False))
        self.again(2, recovered=True)

    def test_seed_client(self) -> None:
        """One that never acknowledges is pinged at once, and its pong or its clean close shows it."""
        session = self.behind(acknowledges=False)
        self.assertEqual(self.wire.pings, 1)
        self.inbox.leave(session.leave(clean=False))
        self.again(2, recovered=False)
        session = self.behind(acknowledges=False)
        session.ponged(b"1:2")
        self.inbox.settle()
        self.inbox.leave(session.leave(clean=False))
        self.again(2, recovered=True)
        session = self.behind(acknowledges=False)
        self.inbox.leave(session.leave(clean=True))
        self.again(4, recovered=True)

    def test_pong_from_before_the_reset(self) -> None:
        """A pong to a ping that was sent before a reset does not show that the reset was read."""
        session = self.begin(acknowledges=False)
        self.place(3)
        before = session.ping_mark()
        self.inbox.go_back("bob", 0)
        session.head_seen(Head(True, "e2", 3))
        self.inbox.settle()
        session.ponged(before)
        self.assertFalse(session.cursor.start_confirmed)

    def test_registered_again(self) -> None:
        """That its channel registers again takes nothing back, and proves nothing."""
        session = self.behind()
        self.inbox.of("bob").channels.clear()
        session.resynchronise()
        self.inbox.settle()
        self.inbox.leave(session.leave(clean=True))
        self.again(2, recovered=False)

    def test_registered_again_as_it_was(self) -> None:
        """All that the device said when it connected is said again, but for its place in the inbox."""
        said = {
            "attempt": 7,
            "ephemeral": True,
            "answers_visitors": True,
            "sync": True,
            "flags": "st",
        }
        place = {"epoch", "seq", "page", "resume"}
        known = {field.name for field in dataclasses.fields(ConnectRequest)}
        self.assertEqual(known, {"user", "device", "channel", *said, *place})
        request = ConnectRequest("bob", "phone", "c1", **said)
        session = Session(self.inbox, self.wire, request, acknowledges=True, window=8)
        session.begin(self.inbox.register(request))
        self.inbox.settle()
        session.resynchronise()
        name, again = self.inbox.asked[-1]
        self.assertEqual(name, "connect")
        self.assertEqual(dataclasses.replace(again, epoch=None, seq=0, resume=False), request)
        self.assertEqual((again.epoch, again.seq, again.resume), ("e1", 0, True))

    def test_reset_of_a_slow_device(self) -> None:
        """A hole under a connected device is told again, too."""
        session = self.begin()
        self.place(3)
        self.inbox.of("bob").trim(2)
        session.head_seen(Head(True, "e1", 3))
        self.inbox.settle()
        self.assertEqual([frame.get("type", frame["seq"]) for frame in self.wire.frames], ["reset", 3])
        self.inbox.leave(session.leave(clean=True))
        self.again(2, recovered=False)


class HoldingTests(SessionTestCase):
    def test_channel_forgotten(self) -> None:
        """A channel that the registry lost (its lease ran out) registers again and misses nothing."""
        session = self.begin()
        [hint] = self.place()
        session.hint(*hint)
        self.inbox.of("bob").channels.clear()
        self.place()
        session.head_seen(Head(False, "e1", 2))
        request = self.inbox.asked[-1][1]
        self.assertEqual((request.resume, request.epoch, request.seq), (True, "e1", 0))
        self.inbox.settle()
        self.assertEqual(self.wire.seqs(), [1, 2])
        self.assertEqual(self.inbox.of("bob").channels["phone"][0], "c1")

    def test_superseded(self) -> None:
        """A channel whose device has another by now is closed with 4003, and gets nothing more."""
        session = self.begin()
        self.register(self.make(channel="c2"))
        session.head_seen(Head(False, "e1", 0))
        self.inbox.settle()
        assert self.wire.closed is not None
        self.assertEqual(self.wire.closed[0], 4003)
        self.assertEqual(self.inbox.of("bob").channels["phone"][0], "c2")

    def test_found_out_by_acknowledging(self) -> None:
        """An acknowledgement tells a channel that it was replaced; it moves no cursor."""
        session = self.begin()
        [hint] = self.place()
        session.hint(*hint)
        self.register(self.make(channel="c2"))
        session.acknowledge(1)
        self.inbox.settle()
        assert self.wire.closed is not None
        self.assertEqual(self.wire.closed[0], 4003)
        self.assertEqual(self.inbox.of("bob").cursors["phone"], ("e1", 0))

    def test_no_room_any_more(self) -> None:
        """One that may not register again because the user has too many channels may come back (4100)."""
        session = self.begin()
        self.inbox.of("bob").channels.clear()
        self.inbox.channels_per_user = 0
        session.head_seen(Head(False, "e1", 0))
        self.inbox.settle()
        assert self.wire.closed is not None
        self.assertEqual(self.wire.closed[0], 4100)

    def test_told(self) -> None:
        """A word from the bus is enough."""
        session = self.begin()
        session.replaced()
        assert self.wire.closed is not None
        self.assertEqual(self.wire.closed[0], 4003)

    def test_closing(self) -> None:
        """Until a replaced channel's connection is gone it neither registers again nor closes twice."""
        session = self.begin()
        session.hint(*self.place()[0])
        session.replaced()
        session.replaced()
        session.head_seen(Head(False, "e1", 1))
        session.acknowledge(1)
        self.assertEqual(self.inbox.names(), [])
        self.assertEqual(session.leave(clean=True).channel, "c1")

    def test_after_the_end(self) -> None:
        """Nothing is sent or asked once the session has ended, whatever still arrives."""
        session = self.begin()
        hints = self.place(2)
        session.hint(*hints[1])
        session.leave(clean=False)
        self.inbox.settle()
        session.head_seen(Head(False, "e9", 7))
        session.hint("e9", 1, b'{"msg":""}')
        session.replaced()
        self.assertEqual((self.wire.payloads, self.inbox.names(), self.wire.closed), ([], [], None))

    def test_left_before_it_was_registered_again(self) -> None:
        """Nothing stays registered, in either order."""
        for overtaken in (False, True):
            session = self.begin()
            session.resynchronise()
            self.inbox.leave(session.leave(clean=False))
            if overtaken:
                self.inbox.calls.rotate(1)
            self.inbox.settle()
            self.assertEqual(self.inbox.of("bob").channels, {})

    def test_failing_again(self) -> None:
        """Registering again that fails is tried at the next look at the inbox."""
        session = self.begin()
        self.inbox.of("bob").channels.clear()
        session.head_seen(Head(False, "e1", 0))
        self.inbox.refuse()
        self.assertEqual(self.inbox.names(), [])
        session.head_seen(Head(False, "e1", 0))
        self.inbox.settle()
        self.assertEqual(self.inbox.of("bob").channels["phone"][0], "c1")

    def test_lease(self) -> None:
        """The upkeep's question to the inbox."""
        session = self.begin()
        lease = session.lease(renew=True)
        self.assertEqual((lease.user, lease.device, lease.channel, lease.renew), ("bob", "phone", "c1", True))
