"""Whether a text is one grapheme: a character as people see it, a letter with its marks or an emoji."""

from __future__ import annotations

import regex

# An extended grapheme cluster of Unicode's annex 29, but for control characters, each of which is one, too.
# Surrogates are controls there, but not for `regex`.
_one_grapheme = regex.compile(r"(?![\p{GCB=Control}\p{GCB=CR}\p{GCB=LF}\p{Cs}])\X").fullmatch


def is_one_grapheme(text: str) -> bool:
    """False for an empty text, for control characters and for lone surrogates."""
    return _one_grapheme(text) is not None
