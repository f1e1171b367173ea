"""An application's own JSON object beside a message: kept as it was written, byte for byte."""

from __future__ import annotations

import re

import msgspec

from imd.protocol.errors import BAD_FRAME, TOO_LARGE, Refused
from imd.protocol.message import NO_DATA

MAX_DATA_BYTES = 4096
MAX_DATA_DEPTH = 32

_strings = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
# A string that does not end goes to the end of the text: each character is looked at once.
_tokens = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)
_MAX_TOKENS = 10_000
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


def without_depths(text: str) -> str:
    """An object's JSON, with the objects and arrays in it emptied; of a value for which MAX_DATA_DEPTH is too
    little, one member is left.

    JSON that is too deep for every decoder becomes readable so. Raises ValueError if that would take long.
    """
    pieces: list[str] = []
    depth = deepest = start = 0
    for number, token in enumerate(_tokens.finditer(text)):
        if number == _MAX_TOKENS:
            raise ValueError("too many values")
        place, end = token.span()
        if text[place] in "{[":
            depth += 1
            if depth == 2:
                pieces.append(text[start:end])
                start, deepest = len(text), 1
            deepest = max(deepest, depth - 1)
        elif text[place] in "}]":
            if depth == 2:
                start = place
                if deepest > MAX_DATA_DEPTH:
                    pieces.append('"":0' if text[place] == "}" else "0")
            depth -= 1
    return "".join(pieces) + text[start:]


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
