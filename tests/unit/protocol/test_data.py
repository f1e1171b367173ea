"""An application's own JSON object: which ones are passed on, and that nothing changes them."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.protocol.data import MAX_DATA_BYTES, MAX_DATA_DEPTH, read_data, without_depths
from imd.protocol.errors import BAD_FRAME, TOO_LARGE, Refused

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    """An object of so many levels, the innermost of which is empty."""
    return opening * (levels - 1) + "{}" + closing * (levels - 1)


class DataTests(unittest.TestCase):
    def read(self, text: str) -> bytes:
        return bytes(read_data(msgspec.Raw(text.encode())))

    def assert_refused(self, code: str, text: str) -> None:
        refused = self.assertRaises(Refused, self.read, text)
        self.assertEqual((refused.code, refused.temporary), (code, False), text[:80])

    def test_nothing(self) -> None:
        """Null means that there is none."""
        for text in ("", "null"):
            self.assertEqual(self.read(text), b"")

    def test_as_it_was_written(self) -> None:
        """Spaces, the order of keys, escapes and the digits of numbers stay."""
        for text in (
            "{}",
            '{ "b" : 1.0e2,\t"a":1e999, "b": 12345678901234567890 }',
            '{"\\u00e9\\ud83d\\ude00":"é"}',
        ):
            self.assertEqual(self.read(text), text.encode())

    @given(st.dictionaries(TEXT, VALUES, max_size=3), st.booleans())
    def test_any_object(self, value: dict[str, object], ascii_only: bool) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only)
        if len(text.encode()) <= MAX_DATA_BYTES:
            self.assertEqual(self.read(text), text.encode())

    def test_no_object(self) -> None:
        """Anything but an object is a field of the wrong type."""
        for text in ("[]", "5", '"text"', "true"):
            self.assert_refused(BAD_FRAME, text)

    def test_size(self) -> None:
        """It is measured as it was written."""
        text = '{"a":"' + "x" * (MAX_DATA_BYTES - 8) + '"}'
        self.assertEqual(self.read(text), text.encode())
        self.assert_refused(TOO_LARGE, text.replace(":", ": "))

    def test_depth(self) -> None:
        """Objects and arrays are levels; brackets in texts are none, nor are ones side by side."""
        self.assertEqual(self.read(nested(MAX_DATA_DEPTH)), nested(MAX_DATA_DEPTH).encode())
        self.assert_refused(TOO_LARGE, nested(MAX_DATA_DEPTH + 1))
        self.assert_refused(TOO_LARGE, '{"a":' + "[" * MAX_DATA_DEPTH + "]" * MAX_DATA_DEPTH + "}")
        for text in (
            '{"a":"' + "[{" * 100 + '"}',
            '{"a":"\\"' + "[" * 100 + '\\\\"}',
            '{"a":[' + ",".join(["[]"] * 100) + "]}",
        ):
            self.assertEqual(self.read(text), text.encode())

    def test_lone_surrogates(self) -> None:
        """A pair is a character; a half alone is none, in a key as well, wherever it stands."""
        for half in (
            "\\ud83d",
            "\\ude00",
            "\\ud83d\\ud83d\\ude00",
            "\\ud83d \\ude00",
            "\\ud83d\\n\\ude00",
            "\\ude00\\ud83d",
        ):
            self.assert_refused(BAD_FRAME, f'{{"a":"{half}"}}')
            self.assert_refused(BAD_FRAME, f'{{"{half}x":1}}')
        for text in ('{"a":"\\\\ud83d"}', '{"a":"\\uD83D\\uDE00"}'):
            self.assertEqual(self.read(text), text.encode())


class WithoutDepthsTests(unittest.TestCase):
    @given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans())
    def test_any_object(self, value: dict[str, object], ascii_only: bool) -> None:
        """Plain values stay as they are; objects and arrays are empty."""
        found = json.loads(without_depths(json.dumps(value, ensure_ascii=ascii_only)))
        empty = {name: type(one)() if isinstance(one, list | dict) else one for name, one in value.items()}
        self.assertEqual(found, empty)

    def test_marked(self) -> None:
        """A value with more levels than data may have is not empty."""
        most = MAX_DATA_DEPTH
        text = f'{{"a":{nested(most)},"b":{nested(most + 1)},"c":{nested(most + 1, "[", "]")},"d":[[]]}}'
        found = {name: bool(value) for name, value in json.loads(without_depths(text)).items()}
        self.assertEqual(found, {"a": False, "b": True, "c": True, "d": False})

    def test_bounded(self) -> None:
        """Too much of it is given up; strings that do not end are passed over at once."""
        self.assertRaises(ValueError, without_depths, '{"a":' + "[" * 100_000)
        text = '{"a":"' + '\\"' * 100_000
        self.assertEqual(without_depths(text), text)
