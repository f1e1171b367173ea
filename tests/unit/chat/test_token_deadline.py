"""The moment at which a connection's token expires."""

from __future__ import annotations

from tests.unit.chat.support import START, Client, TokenTestCase


class TokenDeadlineTests(TokenTestCase):
    def test_roles_of_the_token(self) -> None:
        """User and roles are the token's, whatever the frame says."""
        client = Client(self.services)
        client.send(isConnect=True, token=self.token(60), loginType="user", isCustomerService=True)
        self.inbox.settle()
        [frame] = client.take()
        self.assertEqual((frame["userId"], frame["fromUserType"]), ("alice", "USER_TYPE"))
        self.assertEqual(frame["exp"], (START + 60) * 1000)

    def test_authorization_header(self) -> None:
        """The header's token serves too."""
        client = Client(self.services, bearer=self.token(60))
        client.send(isConnect=True)
        self.inbox.settle()
        self.assertEqual(client.take()[0]["userId"], "alice")

    def test_unauthorized(self) -> None:
        """Without a good token it is closed with 4001: missing, bad, expired, another's."""
        for fields in ({}, {"token": "nonsense"}, {"token": self.token(-6)}, {"token": self.token(60) + "x"},
                       {"token": self.token(60), "userId": "bob"}):  # fmt: skip
            client = Client(self.services)
            client.send(isConnect=True, loginType="user", **fields)
            self.inbox.settle()
            self.assertEqual(client.closed, 4001, fields)
        self.assertEqual((self.sessions, self.inbox.asked), ({}, []))

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
        self.assertEqual(self.clock.getDelayedCalls(), [])
