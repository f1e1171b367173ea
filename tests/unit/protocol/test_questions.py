"""The form of questions about conversations."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial import unittest

from imd.protocol import frames
from imd.protocol.errors import INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.questions import check_changes, check_history, check_messages
from imd.protocol.requests import ChangesFrame, HistoryFrame, MessagesFrame

ID = "0199aabbccdd" + "0" * 16


def decoded(kind: str, fields: dict[str, Any]) -> Any:
    return frames.decode(json.dumps({"type": kind, **fields}).encode())


class QuestionsTests(unittest.SynchronousTestCase):
    def history(self, fields: dict[str, Any], *, is_visitor: bool = False, level: int = 2) -> None:
        frame = decoded("history", fields)
        assert isinstance(frame, HistoryFrame)
        check_history(frame, 5, is_visitor=is_visitor, level=level)

    def changes(self, fields: dict[str, Any], *, is_visitor: bool = False) -> None:
        frame = decoded("changes", fields)
        assert isinstance(frame, ChangesFrame)
        check_changes(frame, 5, is_visitor=is_visitor)

    def test_selector(self) -> None:
        """Exactly one of with, group, room and all; null, empty and false mean that there is none."""
        good: list[dict[str, Any]] = [
            {"with": "b"}, {"group": ["b"]}, {"all": True}, {"room": "r-1"}, {"with": "b", "all": False},
            {"with": "b", "room": "", "group": []}, {"room": "r-1", "with": None},
        ]  # fmt: skip
        wrong: list[dict[str, Any]] = [
            {}, {"all": False}, {"with": "b", "group": ["c"]}, {"with": "b", "all": True}, {"with": ""},
            {"group": []}, {"group": ["b", ""]}, {"with": "x" * 129}, {"room": "r-1", "with": "b"},
            {"room": "r" * 129}, {"room": "r\u0000"},
        ]  # fmt: skip
        for check in (self.history, self.changes):
            for fields in good:
                check(fields)
            for fields in wrong:
                refused = self.assertRaises(Refused, check, fields)
                self.assertEqual(refused.code, INVALID_MESSAGE, str(fields))
            refused = self.assertRaises(Refused, check, {"group": list("abcdef")})
            self.assertEqual(refused.code, TOO_LARGE)

    def test_visitor(self) -> None:
        """A visitor's selector is ignored, whatever it is."""
        for fields in ({}, {"with": "b", "all": True}, {"group": list("abcdef")}, {"room": "r" * 500}):
            self.history(fields, is_visitor=True)
            self.changes(fields, is_visitor=True)

    def test_limit(self) -> None:
        """From 1 to 200; `changes` with 0 only asks for `complete`."""
        for limit in (1, 200):
            self.history({"all": True, "limit": limit})
        for limit in (0, 200):
            self.changes({"all": True, "limit": limit})
        for check, limits in ((self.history, (0, 201, -1)), (self.changes, (201, -1))):
            for limit in limits:
                refused = self.assertRaises(Refused, check, {"all": True, "limit": limit})
                self.assertEqual(refused.code, INVALID_MESSAGE)

    def test_places(self) -> None:
        """Ids have 28 lowercase hexadecimal digits; at most one place is named. Level 1 took any text."""
        for name in ("before", "after", "around"):
            for value in (ID, "", None):
                self.history({"all": True, name: value})
            for value in ("1f", ID.upper(), ID + "0"):
                refused = self.assertRaises(Refused, self.history, {"all": True, name: value})
                self.assertEqual((refused.code, refused.reason[: len(name)]), (INVALID_MESSAGE, name))
        refused = self.assertRaises(Refused, self.history, {"all": True, "before": ID, "after": ID})
        self.assertEqual(refused.code, INVALID_MESSAGE)
        self.history({"all": True, "before": "1f"}, level=1)
        self.assertRaises(Refused, self.changes, {"all": True, "after": "1f"})

    def test_messages(self) -> None:
        """1 to 50 ids, each counted once."""
        frame = MessagesFrame(ids=[ID, "0" * 28, ID])
        self.assertEqual(check_messages(frame), ["0" * 28, ID])
        for ids, code in (
            (None, INVALID_MESSAGE), ([], INVALID_MESSAGE), (["x"], INVALID_MESSAGE), ([ID] * 51, TOO_LARGE),
        ):  # fmt: skip
            refused = self.assertRaises(Refused, check_messages, MessagesFrame(ids=ids))
            self.assertEqual(refused.code, code)
