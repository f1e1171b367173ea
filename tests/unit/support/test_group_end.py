"""The end of a group of tests: what it shared ends, and is made anew for the next one."""

from __future__ import annotations

from contextlib import ExitStack

from twisted.trial import unittest

from tests.support import group_end
from tests.support.group_end import at_group_end, end_group, group_cache


class GroupEndTests(unittest.TestCase):
    def setUp(self) -> None:
        """Nothing of this process' own ends by these tests."""
        self.patch(group_end, "_ends", ExitStack())

    def test_order(self) -> None:
        """The last to begin ends first, once, and an error keeps nothing else from its end."""
        ended: list[str] = []

        def fail() -> None:
            raise ValueError("this")

        at_group_end(ended.append, "server")
        at_group_end(fail)
        at_group_end(ended.append, "node")
        self.assertRaises(ValueError, end_group)
        self.assertEqual(ended, ["node", "server"])
        end_group()
        self.assertEqual(ended, ["node", "server"])

    def test_cache(self) -> None:
        """A value is made once in each group, for each argument, and is known until all else has ended."""
        made: list[str] = []

        @group_cache
        def node(kind: str) -> str:
            made.append(kind)
            at_group_end(lambda: self.assertEqual(node("plain"), "plain 0"))
            return f"{kind} {len(made) - 1}"

        self.assertEqual([node("plain"), node("small"), node("plain")], ["plain 0", "small 1", "plain 0"])
        end_group()
        self.assertEqual(made, ["plain", "small"])
        self.assertEqual(node("plain"), "plain 2")
