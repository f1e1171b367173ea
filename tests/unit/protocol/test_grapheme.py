"""One character as people see it, or more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.protocol.grapheme import is_one_grapheme

ONE = (
    *["a", "é", "ß", "中", "あ", "👍", "❤", "🎉", "😀", "⁉", "™", "©", "1", "+", "ñ", "ｶ"],
    "e\u0301",  # with a mark of its own
    "❤️",
    "👍🏽",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🧑🏽‍🚀",
    "👁️‍🗨️",
    "🇩🇪",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "1️⃣",
    "#⃣",
    "한",
    "\u1112\u1161\u11ab",  # the same syllable in parts
    "가\u11a8",
    "नि",
    "क्ष",
    "กำ",
    "ｶﾞ",
)
MORE = (
    "",
    *["ab", "👍👍", "👍a", "a👍", "12", "❤️❤️", "🇩🇪🇫🇷", "🇩🇪🇫", "가나", "中文", "ขก", "👩👧"],
    "a b",
    "\u1161\u1112",
    "कष",
    "\n",
    "\r\n",
    "\x00",
    "a\n",
    "\u2028",
    "\ud800",
    "\u202ea",
    "👩a‍👧"[:3],
)


class GraphemeTests(unittest.TestCase):
    def test_one(self) -> None:
        self.assertEqual([text for text in ONE if not is_one_grapheme(text)], [])

    def test_more_or_none(self) -> None:
        self.assertEqual([text for text in MORE if is_one_grapheme(text)], [])

    @given(st.text(max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text has an answer; two letters in it are more than one character."""
        one = is_one_grapheme(text)
        self.assertFalse(one and sum(char.isascii() for char in text) > 1)
        self.assertFalse(is_one_grapheme(text + "ab"))
