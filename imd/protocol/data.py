"""An application's own JSON object beside a message: kept as it was written, byte for byte."""

from __future__ import annotations

import re

import msgspec

from imd.protocol.errors import BAD_FRAME, TOO_LARGE, Refused
from imd.protocol.message import NO_DATA

MAX_DATA_BYTES = 4096
MAX_DATA_DEPTH = 32

_strings = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_escapes = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def read_data(data: msgspec.Raw) -> msgspec.Raw:
    """The object; NO_DATA for null. `data` is known to be JSON.

    Raises Refused: `bad_frame` for anything but an object and for a lone surrogate; `too_large` past
    MAX_DATA_BYTES or MAX_DATA_DEPTH.
    """
    text = bytes(data)
    if not text or text == b"null":
        return NO_DATA
    if not text.startswith(b"{"):
        raise Refused(BAD_FRAME, "data: an object is expected")
    if len(text) > MAX_DATA_BYTES:
        raise Refused(TOO_LARGE, f"data: at most {MAX_DATA_BYTES} bytes")
    if text.count(b"{") + text.count(b"[") > MAX_DATA_DEPTH and _depth(text) > MAX_DATA_DEPTH:
        raise Refused(TOO_LARGE, f"data: at most {MAX_DATA_DEPTH} levels")
    if b"\\u" in text and _has_lone_surrogate(text):
        raise Refused(BAD_FRAME, "data: a lone surrogate")
    # A copy: the other one is a part of the whole frame, and would keep it.
    return msgspec.Raw(text)


def _depth(text: bytes) -> int:
    deepest = depth = 0
    for byte in _strings.sub(b"", text):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _has_lone_surrogate(text: bytes) -> bool:
    high_ends = -1
    """where the first half of a pair ended"""
    for escape in _escapes.finditer(text):
        code = int(escape[1], 16) if escape[1] else 0
        if 0xDC00 <= code < 0xE000:
            if high_ends != escape.start():
                return True
            high_ends = -1
            continue
        if high_ends >= 0:
            return True
        if 0xD800 <= code < 0xDC00:
            high_ends = escape.end()
    return high_ends >= 0
