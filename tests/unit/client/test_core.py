"""The life of a client's connections: connecting, coming back, tokens."""

from __future__ import annotations

from twisted.trial import unittest

from imd.client import SqliteStore, State, effects, events
from imd.client.reconnect import Verdict, judge
from tests.unit.client.support import Clock, Pipe


class ConnectTests(unittest.TestCase):
    def test_clock_set_back_between_processes(self) -> None:
        """With a store the attempt rises all the same, or the node would prefer an older connection."""
        clock, store, attempts = Clock(), SqliteStore(":memory:"), []
        for _ in range(3):
            pipe = Pipe(clock, store)
            pipe.open()
            attempts.append(pipe.take()[0]["attempt"])
            clock.wall_now -= 3600
        self.assertEqual(attempts, [1_764_000_000_000 + n for n in range(3)])

    def test_close_codes(self) -> None:
        """Codes are judged by their ranges; after a connection that breaks the client backs off."""
        never, token, off, once = Verdict.NEVER, Verdict.NEW_TOKEN, Verdict.BACK_OFF, Verdict.AT_ONCE
        found = [judge(code) for code in (4000, 4001, 4003, 4099, 4100, 4101, 4200, 4250, None, 1006, 1009)]
        self.assertEqual(found, [never, token, never, never, off, off, once, once, off, off, off])

    def test_never(self) -> None:
        """After 4003 the client is closed, says so, and asks for nothing more."""
        pipe = Pipe()
        pipe.open()
        pipe.lose(4003)
        last = pipe.events(events.StateChanged)[-1]
        self.assertEqual((last.state, last.code, last.permanent), (State.CLOSED, 4003, True))
        self.assertIsNone(pipe.core.deadline())

    def test_back_off(self) -> None:
        """The pause doubles from one second up to the limit; a connection that lasted begins anew."""
        pipe = Pipe(max_backoff=5)
        pipe.core.start()
        pauses = []
        for _ in range(5):
            pipe.lose(4100)
            pauses.append(pipe.events(events.StateChanged)[-1].retry_seconds)
            pipe.wait(pauses[-1])
            self.assertEqual(pipe.core.state, State.CONNECTING)
        self.assertEqual(pauses, [1, 2, 4, 5, 5])
        pipe.open()
        pipe.wait(6)
        pipe.lose()
        self.assertEqual(pipe.events(events.StateChanged)[-1].retry_seconds, 1)

    def test_refused_for_a_time(self) -> None:
        """A node that refuses a connect may say when the next one may come; that holds once."""
        pipe = Pipe(visitor=True, user_id=None)
        pipe.core.start()
        pauses = []
        for _ in range(2):
            pipe.core.opened(pipe.core.connection)
            if not pauses:
                refused = {"code": "rate_limited", "reason": "", "temporary": True, "retryAfterMs": 30_000}
                pipe.gets(type="error", **refused)
            pipe.lose(4100)
            pauses.append(pipe.events(events.StateChanged)[-1].retry_seconds or 0.0)
            pipe.wait(pauses[-1])
            self.assertEqual(pipe.core.state, State.CONNECTING)
        self.assertEqual(pauses, [45, 2])

    def test_refused_by_a_leaving_node(self) -> None:
        """The pause that an error asked for holds where the client would else come back at once."""
        pipe = Pipe()
        pipe.core.start()
        pipe.core.opened(pipe.core.connection)
        pipe.gets(type="error", code="unavailable", reason="", temporary=True, retryAfterMs=2000)
        pipe.lose(4200)
        self.assertEqual(pipe.events(events.StateChanged)[-1].retry_seconds, 3)
        pipe.wait(3)
        pipe.lose(4200)
        self.assertEqual(pipe.events(events.StateChanged)[-1].retry_seconds, 0)

    def test_old_connection(self) -> None:
        """Inputs about an earlier connection are ignored."""
        pipe = Pipe()
        pipe.open()
        old = pipe.core.connection
        pipe.lose()
        pipe.wait(1)
        pipe.core.closed(old, 4003, "late")
        pipe.core.received(old, '{"type": "connected"}')
        self.assertEqual(pipe.core.state, State.CONNECTING)

    def test_nonsense(self) -> None:
        """After a frame that makes no sense the client reconnects."""
        for text in (
            "{",
            "[]",
            '{"type": "accepted", "clientMsgId": "x"',
            '{"type": "reset"}',
            '{"seq": "x"}',
        ):
            pipe = Pipe()
            pipe.open()
            pipe.core.received(pipe.core.connection, text)
            pipe.run()
            self.assertEqual(pipe.core.state, State.WAITING, text)


class TokenTests(unittest.TestCase):
    def pipe(self) -> Pipe:
        pipe = Pipe(has_token=True, user_id=None)
        pipe.core.start()
        pipe.run()
        return pipe

    def test_asked_at_each_connect(self) -> None:
        """A token is asked for before each dial, also after 4001."""
        pipe = self.pipe()
        self.assertNotIn(effects.Dial(1), pipe.done)
        pipe.core.token_given("one")
        pipe.open()
        self.assertEqual(pipe.take()[0]["token"], "one")
        pipe.lose(4001)
        pipe.wait(1)
        self.assertEqual(pipe.done[-1], effects.AskToken())
        pipe.core.token_given("two")
        pipe.open()
        self.assertEqual(pipe.take()[0]["token"], "two")

    def refuse(self, pipe: Pipe, token: str) -> float:
        """Refuse a token with 4001; gives the pause before the client asks for another."""
        pipe.core.token_given(token)
        pipe.core.opened(pipe.core.connection)
        pipe.lose(4001)
        pause: float = pipe.events(events.StateChanged)[-1].retry_seconds
        pipe.wait(pause)
        self.assertEqual(pipe.done[-1], effects.AskToken())
        return pause

    def test_refused(self) -> None:
        """New tokens are tried without end, at once and then with backoff; a refused one ends the client."""
        pipe = self.pipe()
        pauses = [self.refuse(pipe, f"t{n}") for n in range(60)]
        self.assertEqual(pauses[:7], [0, 2, 4, 8, 16, 30, 30])
        pipe.core.token_given("good")
        pipe.open()
        pipe.wait(6)
        self.assertEqual([self.refuse(pipe, token) for token in ("good", "other")], [0, 2])
        pipe.core.token_given("good")
        end = pipe.events(events.StateChanged)[-1]
        self.assertEqual((end.state, end.code, end.reason, end.permanent), (State.CLOSED, 4001, "gone", True))
        self.assertIsNone(pipe.core.deadline())
        # The program may start again with any of them: a clock may have been corrected.
        pipe.core.start()
        pipe.core.token_given("good")
        pipe.open()
        self.assertEqual(pipe.core.state, State.OPEN)

    def renewing(self) -> Pipe:
        """Token "one" is about to expire, and "two" is offered."""
        pipe = self.pipe()
        pipe.core.token_given("one")
        pipe.open(exp=5_020_000, pingSeconds=1000)
        pipe.wait(16)
        pipe.core.token_given("two")
        return pipe

    def test_renewal_refused(self) -> None:
        """The old token stands, and a newer one is asked for again. The same one may be valid by then."""
        pipe = self.renewing()
        pipe.gets(type="error", code="forbidden", reason="unauthorized: token not valid yet")
        pipe.take()
        # The token is past its expiry, and the node has a leeway.
        for token, sent in (("two", 1), ("two", 1), ("one", 0), ("two", 1)):
            asked = pipe.done.count(effects.AskToken())
            pipe.wait(5)
            self.assertEqual(pipe.done.count(effects.AskToken()), asked + 1)
            pipe.core.token_given(token)
            self.assertEqual(pipe.take(), [{"type": "token", "token": token}] * sent)
            pipe.gets(type="error", code="forbidden", reason="unauthorized: token not valid yet")
        pipe.lose(4001)
        pipe.wait(0)
        pipe.core.token_given("two")
        pipe.open()
        self.assertEqual(pipe.core.state, State.OPEN)

    def test_other_error_while_renewing(self) -> None:
        """An error that names a question says nothing about the offered token."""
        pipe = self.renewing()
        pipe.gets(type="error", ref="long over", code="unavailable", reason="", temporary=True)
        pipe.gets(type="token", exp=9_000_000)
        pipe.lose(4001)
        pipe.wait(0)
        pipe.core.token_given("two")
        self.assertEqual(pipe.core.state, State.CLOSED, "the newer one has counted, and was refused")

    def test_visitor_with_token(self) -> None:
        """A visitor's token goes before the program's in the connect signal: it is the refused one."""
        pipe = Pipe(visitor=True, has_token=True, user_id=None)
        pipe.core.start()
        pipe.core.token_given("one")
        pipe.open(userId="visitor-1", visitorToken="t1")
        for expected in ("t1", None):
            pipe.lose(4001 if expected is None else None)
            pipe.wait(2)
            pipe.core.token_given("one")
            pipe.take()
            pipe.core.opened(pipe.core.connection)
            [signal] = pipe.take()
            self.assertEqual((signal.get("visitorToken"), signal["token"]), (expected, "one"))

    def test_renewed(self) -> None:
        """Before a token expires, a new one is sent on the open connection."""
        pipe = self.pipe()
        pipe.core.token_given("one")
        pipe.open(serverTime=5_000_000, exp=5_100_000, pingSeconds=1000)
        pipe.take()
        pipe.wait(79)
        self.assertEqual(pipe.done.count(effects.AskToken()), 1)
        pipe.wait(2)
        self.assertEqual(pipe.done.count(effects.AskToken()), 2)
        pipe.core.token_failed("busy")
        pipe.wait(5)
        pipe.core.token_given("two")
        self.assertEqual(pipe.take(), [{"type": "token", "token": "two"}])

    def test_none_to_be_had(self) -> None:
        """Without a token the client tries again later."""
        pipe = self.pipe()
        pipe.core.token_failed("busy")
        self.assertEqual(pipe.core.state, State.WAITING)
        pipe.wait(1)
        self.assertEqual(pipe.core.state, State.CONNECTING)

    def test_visitor(self) -> None:
        """A visitor keeps its token; when the node has forgotten it, the client is a new visitor."""
        store = SqliteStore(":memory:")
        self.addCleanup(store.close)
        pipe = Pipe(store=store, visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1", seq=0)
        pipe.message(1)
        pipe.core.handled("m1")
        self.assertEqual(pipe.core.user_id, "visitor-1")
        pipe = Pipe(store=store, visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1", seq=1)
        signal = pipe.take()[0]
        self.assertEqual((signal["visitorToken"], signal["cursor"]["seq"]), ("t1", 1))
        self.assertNotIn("loginType", signal)
        pipe.lose(4001)
        pipe.wait(1)
        pipe.open(userId="visitor-2", visitorToken="t2")
        self.assertEqual({"visitorToken", "cursor"} & pipe.take()[0].keys(), set())
        self.assertEqual(store.load().visitor_token, "t2")
