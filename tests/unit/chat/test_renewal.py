"""New tokens for a connection."""

from __future__ import annotations

from tests.unit.chat.support import START, ConnectionTestCase, TokenTestCase


class RenewalTests(TokenTestCase):
    def test_renewed(self) -> None:
        """A newer token before that keeps it open until its own `exp`."""
        client = self.with_token(60)
        client.take()
        self.clock.advance(50)
        client.send(type="token", token=self.token(60))
        self.assertEqual(client.take(), [{"type": "token", "exp": (START + 110) * 1000}])
        self.clock.advance(64)
        self.assertIsNone(client.closed)
        self.clock.advance(2)
        self.assertEqual(client.closed, 4001)

    def test_not_renewed(self) -> None:
        """A token that is bad, expired, another's or with other roles is refused, and the old one stands."""
        client = self.with_token(60)
        client.take()
        for token in (
            "nonsense",
            self.token(-6),
            self.token(90, sub="bob"),
            self.token(90, loginType="customer"),
            self.token(90, isCustomerService=True),
        ):
            client.send(type="token", token=token)
            self.assert_error(client, "forbidden")
        self.clock.advance(66)
        self.assertEqual(client.closed, 4001)


class NoTokenTests(ConnectionTestCase):
    def test_open_mode(self) -> None:
        """In open mode there are no tokens to renew."""
        client = self.connected()
        client.send(type="token", token="t")
        self.assert_error(client, "invalid_message")
