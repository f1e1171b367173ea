"""The fast path: which frames it takes, and which it leaves to Autobahn."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from imd.wire.fastframes import take_text_frames

LIMIT = 1000


def frame(payload: bytes, first: int = 0x81, mask: bytes | None = None) -> bytes:
    """One masked client frame with minimal length encoding."""
    mask = os.urandom(4) if mask is None else mask
    size = len(payload)
    if size < 126:
        header = bytes([first, 0x80 | size])
    elif size < 65536:
        header = bytes([first, 0xFE]) + size.to_bytes(2, "big")
    else:
        header = bytes([first, 0xFF]) + size.to_bytes(8, "big")
    return header + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class TakeTextFramesTests(SynchronousTestCase):
    def assert_left(self, data: bytes) -> None:
        """Check that `data` is not taken, also behind a frame that is."""
        self.assertEqual(take_text_frames(data, LIMIT), ([], 0))
        good = frame(b"good")
        self.assertEqual(take_text_frames(good + data, LIMIT), ([b"good"], len(good)))

    def test_takes_all_whole_frames(self) -> None:
        """Frames of each size up to the limit are taken, with non-ASCII text, too."""
        payloads = [b"a" * size for size in (1, 2, 3, 4, 5, 125, 126, 127, LIMIT)] + ["žluť 漢字 🎉".encode()]
        data = b"".join(frame(payload) for payload in payloads)
        self.assertEqual(take_text_frames(data, LIMIT), (payloads, len(data)))

    def test_any_cut(self) -> None:
        """A frame that is not whole is left, wherever it is cut."""
        first, second = frame(b"first"), frame(b"x" * 300)
        data = first + second
        for cut in range(len(data)):
            taken, position = take_text_frames(data[:cut], LIMIT)
            self.assertEqual((taken, position), ([], 0) if cut < len(first) else ([b"first"], len(first)))

    def test_other_frames(self) -> None:
        """Fragments, binary and control frames, reserved bits and opcodes are left."""
        for first in (0x01, 0x80, 0x00, 0x82, 0x88, 0x89, 0x8A, 0x83, 0x8B, 0xC1, 0xA1, 0x91):
            self.assert_left(frame(b"{}", first))

    def test_unmasked(self) -> None:
        self.assert_left(b"\x81\x05hello" + b"x" * 20)
        self.assert_left(b"\x81\x7e\x00\x80" + b"x" * 200)

    def test_empty(self) -> None:
        self.assert_left(frame(b"") + b"x" * 20)

    def test_length_not_minimal(self) -> None:
        self.assert_left(b"\x81\xfe\x00\x05" + bytes(4) + b"hello")
        self.assert_left(b"\x81\xff" + (5).to_bytes(8, "big") + bytes(4) + b"hello")

    def test_too_large(self) -> None:
        self.assert_left(frame(b"x" * (LIMIT + 1)))
        self.assert_left(frame(b"x" * 65536))

    def test_not_utf8(self) -> None:
        """Text that is not UTF-8 is left: overlong, surrogates, past the last code point, cut."""
        for payload in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe6\xbc"):
            self.assert_left(frame(payload))
