"""A row of the table: its text, its name, its addresses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.gateway.nodes import decode
from tests.gateway.support import row

FEW = settings(max_examples=100, deadline=None)


class RowTests(unittest.TestCase):
    def test_round_trip(self) -> None:
        one = row(draining=True, http="[::1]:8080")
        self.assertEqual(decode(one.encode()), one)

    def test_newer_fields(self) -> None:
        """A newer node may say more: the row is read all the same."""
        text = row().encode().replace(b"{", b'{"more":[1],', 1)
        self.assertEqual(decode(text), row())

    def test_not_a_row(self) -> None:
        good = row().encode()
        for bad in (
            b"",
            b"[]",
            good[:-1],
            good.replace(b'"n1"', b'"n 1"'),
            good.replace(b'"n1"', b'"n1\\n"'),
            good.replace(b"127.0.0.1:9000", b"0.0.0.0:9000"),
            good.replace(b'"connections":3', b'"connections":-3'),
            good.replace(b'"draining":false', b'"draining":"no"'),
        ):
            self.assertRaises(ValueError, decode, bad)

    @FEW
    @given(st.binary(max_size=60))
    def test_any_bytes(self, text: bytes) -> None:
        self.assertRaises(ValueError, decode, text)
