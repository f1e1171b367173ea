"""Whole frames that wait for a login or a slow frame: they count as unfinished ones do."""

from __future__ import annotations

import json
from functools import partial

from imd.chat.connection import HELD_FRAME_BYTES, Connection
from imd.chat.slow import SLOW_SECONDS
from imd.protocol.errors import CLOSE_OVERLOADED, CLOSE_UNAUTHORIZED
from imd.wire.unfinished import Unfinished
from tests.hostile.inprocess import InProcess
from tests.hostile.raw import CONTINUATION, TEXT, frame
from tests.unit.chat.support import ConnectionTestCase

MOST = 1 << 20
PROTOCOL_ERROR = 1002
LARGE = json.dumps({"clientMsgId": "large", "to": "bob", "msg": "x" * 60_000}).encode()
HELD = len(LARGE) + HELD_FRAME_BYTES
EDIT = json.dumps({"type": "edit", "clientMsgId": "edit", "id": "0" * 28, "msg": "new"}).encode()


class HeldTests(ConnectionTestCase):
    """A node's connections with a bound of 1 MiB, on transports in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.unfinished = Unfinished(MOST)

    def begin_login(self, name: str) -> InProcess:
        """A connection whose login waits for the inbox."""
        one = InProcess(make_handler=partial(Connection, self.services))
        one.factory.unfinished = self.unfinished
        one.open()
        connect = {"isConnect": True, "userId": name, "loginType": "user", "ack": True}
        one.receive(frame(TEXT, json.dumps(connect).encode()))
        return one

    def login(self, name: str) -> InProcess:
        one = self.begin_login(name)
        self.inbox.settle()
        self.assertIn(b'"connected"', self.sent(one))
        return one

    def sent(self, one: InProcess) -> bytes:
        """The bytes that were written since the last call."""
        # Frames are written at the end of a turn.
        one.clock.advance(0)
        return one.written()

    def end_edits(self) -> None:
        """The edits that are under way are answered: the archive is late."""
        self.settle()
        self.clock.advance(SLOW_SECONDS)
        self.settle()

    def receive_large(self, one: InProcess, behind: bytes = b"") -> None:
        """In two reads; `behind` comes with the second."""
        whole = frame(TEXT, LARGE)
        one.receive(whole[:20_000])
        one.receive(whole[20_000:] + behind)

    def test_large_frames(self) -> None:
        """Each of many connections holds a large frame behind an edit: the oldest give way with 4100, and let
        go of it. The others' are answered when the edit is, and then count no more.
        """
        many = [self.login(f"user-{n}") for n in range(30)]
        for one in many:
            one.receive(frame(TEXT, EDIT))
            self.assertEqual(one.transport.producerState, "producing")
            self.receive_large(one)
            self.assertLessEqual(self.unfinished.total, MOST)
        held = [one.protocol.handler.early_bytes for one in many]
        stay = MOST // HELD
        self.assertEqual(held, [0] * (30 - stay) + [HELD] * stay)
        self.assertEqual(self.unfinished.total, stay * HELD)
        for one in many[:-stay]:
            self.assertIn(CLOSE_OVERLOADED.to_bytes(2, "big"), self.sent(one))
        self.end_edits()
        self.assertEqual(self.unfinished.total, 0)
        for one in many[-stay:]:
            answers = self.sent(one)
            self.assertLess(answers.index(b'"edit"'), answers.index(b'"large"'))
            self.assertEqual(one.protocol.handler.early_bytes, 0)

    def test_in_one_read(self) -> None:
        """Frames that come whole in one read count, a small one by the object that it is; so does the
        unfinished one behind them.
        """
        one = self.login("alice")
        small = frame(TEXT, b'{"type":"ping"}')
        one.receive(frame(TEXT, EDIT) + 1000 * small)
        self.assertEqual(self.unfinished.total, 1000 * (15 + HELD_FRAME_BYTES))
        other = self.login("bob")
        other.receive(frame(TEXT, EDIT) + 10 * small + small[:10])
        self.assertEqual(self.unfinished.total, 1010 * (15 + HELD_FRAME_BYTES) + 4)
        self.end_edits()
        self.assertEqual(self.unfinished.total, 4)
        other.receive(small[10:])
        self.assertEqual(self.unfinished.total, 0)
        self.assertEqual(self.sent(other).count(b'"pong"'), 11)

    def test_fragments(self) -> None:
        """A message in fragments counts once, before it is whole and when it waits."""
        one = self.login("alice")
        one.receive(frame(TEXT, EDIT))
        one.receive(frame(TEXT, LARGE[:30_000], fin=False))
        self.assertEqual(self.unfinished.total, 30_000)
        one.receive(frame(CONTINUATION, LARGE[30_000:]))
        self.assertEqual(self.unfinished.total, HELD)

    def test_behind_a_login(self) -> None:
        """It counts as a stranger's until the login is through: strangers give way first."""
        known = self.login("known")
        known.receive(frame(TEXT, EDIT))
        self.receive_large(known)
        strangers = [self.begin_login(f"stranger-{n}") for n in range(MOST // HELD)]
        for stranger in strangers:
            self.receive_large(stranger)
        held = [one.protocol.handler.early_bytes for one in (known, *strangers)]
        self.assertEqual(held, [HELD, 0, *[HELD] * (len(strangers) - 1)])
        self.assertIn(CLOSE_OVERLOADED.to_bytes(2, "big"), self.sent(strangers[0]))
        self.settle()
        self.assertEqual(self.unfinished.total, HELD)
        self.assertIn(b'"large"', self.sent(strangers[-1]))

    def test_slow_frame_among_them(self) -> None:
        """Frames that wait on count on."""
        one = self.login("alice")
        one.receive(
            frame(TEXT, EDIT) + frame(TEXT, b'{"type":"ping"}') + frame(TEXT, EDIT) + frame(TEXT, LARGE)
        )
        self.assertGreater(self.unfinished.total, HELD)
        self.end_edits()
        self.assertEqual(self.unfinished.total, HELD)
        self.end_edits()
        self.assertEqual(self.unfinished.total, 0)

    def test_the_end(self) -> None:
        """A frame that waits counts as long as it is kept: until the node closes, or the client is gone."""
        one, other = self.login("alice"), self.login("bob")
        one.receive(frame(TEXT, EDIT))
        self.receive_large(one)
        one.protocol.handler.close(CLOSE_UNAUTHORIZED, "the token has expired")
        self.assertEqual(self.unfinished.total, 0)
        # Not the handler but the parser closes for an opcode that does not exist.
        other.receive(frame(TEXT, EDIT))
        self.receive_large(other, behind=frame(3, b""))
        self.assertIn(PROTOCOL_ERROR.to_bytes(2, "big"), self.sent(other))
        self.assertEqual(self.unfinished.total, HELD)
        other.lose()
        self.assertEqual(self.unfinished.total, 0)
