"""The allowance for frames other than messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imd.entry.allowance import (
    AT_ONCE,
    ERROR,
    PER_SECOND,
    REFUSED_TOKEN,
    TOKENS_AT_ONCE,
    Allowance,
    cost_of,
)
from imd.protocol.errors import BAD_FRAME, FORBIDDEN, RATE_LIMITED, UNAVAILABLE, Refused


class AllowanceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.allowance = Allowance(lambda: self.now)

    def tokens(self) -> int:
        """Spend for tokens until one is refused. Returns how many passed."""
        for number in range(1000):
            try:
                self.allowance.spend_for_token()
            except Refused as refused:
                self.assertEqual(refused.code, RATE_LIMITED)
                self.assertGreaterEqual(refused.retry_after_ms or 0, 1)
                return number
        raise AssertionError("tokens have no limit")

    def test_spent(self) -> None:
        """With nothing left a cost is refused; time refills the allowance."""
        self.assertTrue(self.allowance.spend(AT_ONCE))
        self.assertFalse(self.allowance.spend(1.0))
        self.now += 1
        self.assertTrue(self.allowance.spend(PER_SECOND))
        self.assertFalse(self.allowance.spend(1.0))

    def test_tokens(self) -> None:
        """Token frames have a rate of their own, and a refused token costs more."""
        self.assertEqual(self.tokens(), TOKENS_AT_ONCE)
        self.now += 10
        self.allowance.spend_for_token()
        self.allowance.token_refused()
        self.assertEqual(self.tokens(), 10 - 1 - REFUSED_TOKEN)
        self.assertTrue(self.allowance.spend(AT_ONCE))

    def test_errors(self) -> None:
        """An error costs something, unless the client may have done nothing wrong."""
        expected = {BAD_FRAME: ERROR, FORBIDDEN: ERROR, RATE_LIMITED: 0, UNAVAILABLE: 0}
        self.assertEqual({code: cost_of(Refused(code, "")) for code in expected}, expected)
