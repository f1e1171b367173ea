"""The hint that clients put into their URL is the one that nodes and HAProxy read."""

from __future__ import annotations

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.client.hint import user_of_token, with_hint
from imd.gateway.slots import hint_of

IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
FEW = settings(max_examples=100, deadline=None)


class HintTests(unittest.TestCase):
    @FEW
    @given(IDS)
    def test_read_as_written(self, user: str) -> None:
        for url in ("ws://h:9000/ws", "wss://h/im/ws?a=b", "ws://h/ws?users=x&"):
            hinted = with_hint(url, user)
            self.assertEqual(hint_of(hinted.partition("?")[2]), user)
            self.assertTrue(hinted.startswith(url.rstrip("&")))

    def test_left_alone(self) -> None:
        for url, user in (
            ("ws://h/ws", None),
            ("ws://h/ws", ""),
            ("ws://h/ws?user=bob", "alice"),
            ("ws://h/ws?a=1&user=", "alice"),
            ("ws://h/ws", "\ud800"),
        ):
            self.assertEqual(with_hint(url, user), url)

    @FEW
    @given(IDS)
    def test_tokens(self, user: str) -> None:
        token = jwt.encode({"sub": user}, "a secret that is long enough for HS256", "HS256")
        self.assertEqual(user_of_token(token), user)

    def test_visitors(self) -> None:
        self.assertEqual(user_of_token("visitor-0123.secret_-"), "visitor-0123")

    def test_no_token(self) -> None:
        for token in (
            None,
            "",
            "x",
            "a.b",
            "a.b.c",
            "a.e30.c",
            "a.W10.c",
            "a.eyJzdWIiOjF9.c",
            "a.b.c.d",
            "a.é.c",
        ):
            self.assertIsNone(user_of_token(token), token)

    @FEW
    @given(st.text(max_size=60))
    def test_any_text(self, token: str) -> None:
        user_of_token(token)
        user_of_token(f"a.{token}.b")
