"""The rate of messages on one connection."""

from __future__ import annotations

from twisted.trial import unittest

from imd.chat.rate import rate_cost
from imd.config.settings import Limits
from imd.protocol.frames import MessageFrame
from tests.unit.chat.support import ConnectionTestCase


class CostTests(unittest.TestCase):
    def test_cost(self) -> None:
        """One for a message, a tenth for each recipient of a list, one at least."""
        self.assertEqual(rate_cost(MessageFrame(to="bob", group=["a"] * 100)), 1.0)
        self.assertEqual(rate_cost(MessageFrame()), 1.0)
        self.assertEqual(rate_cost(MessageFrame(group=["a"] * 3)), 1.0)
        self.assertEqual(rate_cost(MessageFrame(group=["a"] * 250)), 25.0)


class RateTests(ConnectionTestCase):
    limits = Limits(messages_per_second=10, burst=3, group_members=100)

    def test_rate_limited(self) -> None:
        """Messages past the burst are refused in their turn, and told when to come again."""
        client = self.connected()
        for number in range(5):
            client.send(clientMsgId=str(number), to="bob", msg="hi")
        self.settle()
        frames = client.take()
        codes = [frame.get("code", frame["type"]) for frame in frames]
        self.assertEqual(codes, ["accepted"] * 3 + ["rate_limited"] * 2)
        self.assertEqual((frames[3]["temporary"], frames[3]["retryAfterMs"]), (True, 100))
        self.clock.advance(frames[3]["retryAfterMs"] / 1000)
        client.send(clientMsgId="again", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "again", None)])

    def test_lists_cost_more(self) -> None:
        """A list counts a tenth for each recipient."""
        client = self.connected()
        client.send(clientMsgId="1", group=[f"u{n}" for n in range(30)], msg="hi")
        client.send(clientMsgId="2", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None), ("error", "2", "rate_limited")])

    def test_never(self) -> None:
        """A message that can never be accepted is refused for good; its size costs nothing."""
        client = self.connected()
        lists = [[f"u{n}" for n in range(5000)], [*(f"u{n}" for n in range(99)), ""]]
        client.send(clientMsgId="1", group=lists[0], msg="hi")
        client.send(clientMsgId="2", group=lists[1], msg="hi")
        client.send(clientMsgId="3", to="bob", msg="hi")
        self.settle()
        self.assertEqual(
            client.brief(),
            [("error", "1", "too_large"), ("error", "2", "invalid_message"), ("accepted", "3", None)],
        )

    def test_list_of_all_members(self) -> None:
        """The longest list that is allowed passes with a full bucket; what follows hardly waits."""
        client = self.connected()
        client.send(clientMsgId="1", group=[f"u{n}" for n in range(100)], msg="hi")
        self.settle()
        client.take()
        self.clock.advance(0.11)
        client.send(clientMsgId="2", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "2", None)])
