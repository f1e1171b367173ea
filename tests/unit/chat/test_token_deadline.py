"""The moment at which a connection's token expires."""

from __future__ import annotations

from tests.unit.chat.support import TokenTestCase


class TokenDeadlineTests(TokenTestCase):
    def test_expires(self) -> None:
        """At `exp` plus the leeway it is closed with 4001; until then a token that is over lets one in."""
        for seconds in (60, -3):
            client = self.with_token(seconds)
            self.assertEqual(client.take()[0]["exp"], (self.unix_seconds() + seconds) * 1000)
            self.clock.advance(seconds + 4.9)
            self.assertIsNone(client.closed)
            self.clock.advance(0.2)
            self.assertEqual(client.closed, 4001)

    def test_clock_that_is_set(self) -> None:
        """It is the wall clock that says when `exp` is, whatever it is set to meanwhile."""
        client = self.with_token(100)
        self.set_by = -1000.0
        self.clock.advance(200)
        self.assertIsNone(client.closed)
        self.clock.pump([300] * 4)
        self.assertEqual(client.closed, 4001)
        client = self.with_token(4000)
        self.set_by = 10_000.0
        self.clock.advance(300)
        self.assertEqual(client.closed, 4001)

    def test_no_timer_left(self) -> None:
        """A connection that is gone, or closed, does not expire any more."""
        self.with_token(60).connection.lost(clean=True)
        self.with_token(60).connection.close(4200, "")
        self.assertEqual(self.timers(), [])
