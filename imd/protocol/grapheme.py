"""Whether a text is one grapheme: a character as people see it, such as a letter with its marks or an emoji.

It follows the rules of Unicode's annex 29 with the character data that Python has. Where these have no
property of the annex, a category stands for it: a few rare characters then count as parts of others.
"""

from __future__ import annotations

import unicodedata

_ZWJ = "\u200d"
_ZWNJ = "\u200c"
_PARTS = ("Mn", "Me", "Mc")
_MODIFIERS = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_REGIONAL = range(0x1F1E6, 0x1F200)
_PICTURES = range(0x1F000, 0x1FB00)
_OTHER_PICTURES = "©®‼⁉〰"
# Format characters that stand before the character that they belong to.
_PREPENDED = frozenset(map(chr, (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)))
# Signs that join the consonants beside them, in scripts whose joined consonants are one character.
_LINKERS = frozenset("\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d")


def is_one_grapheme(text: str) -> bool:
    """False for an empty text, for control characters and for lone surrogates."""
    if not text or any(map(_is_control, text)):
        return False
    return not any(_breaks(text, place) for place in range(1, len(text)))


def _is_control(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cf":
        return not (char in (_ZWJ, _ZWNJ) or char in _PREPENDED or ord(char) in _TAGS)
    return category in ("Cc", "Cs", "Zl", "Zp")


def _breaks(text: str, place: int) -> bool:
    """Whether another grapheme begins at this place. No part of the text is a control character."""
    before, char = text[place - 1], text[place]
    if _is_part(char) or before in _PREPENDED:
        return False
    if before == _ZWJ and _is_picture(char):
        base = text[: place - 1].rstrip(_ZWJ)
        while base and _is_part(base[-1]):
            base = base[:-1]
        return not (base and _is_picture(base[-1]))
    if ord(char) in _REGIONAL and ord(before) in _REGIONAL:
        return _count_regional(text[:place]) % 2 == 0
    if unicodedata.category(char) == "Lo":
        return not (_joins_hangul(before, char) or _is_linked(text[:place], char))
    return True


def _is_part(char: str) -> bool:
    """The character belongs to the one before it."""
    code = ord(char)
    return (
        char in (_ZWJ, _ZWNJ)
        or unicodedata.category(char) in _PARTS
        or code in _MODIFIERS
        or code in _TAGS
        or code in (0xFF9E, 0xFF9F)
    )


def _is_picture(char: str) -> bool:
    code = ord(char)
    if code in _REGIONAL or code in _MODIFIERS:
        return False
    if code in _PICTURES or char in _OTHER_PICTURES:
        return True
    return code > 0x2000 and unicodedata.category(char) in ("So", "Sm")


def _count_regional(text: str) -> int:
    return len(text) - len(text.rstrip("".join(map(chr, _REGIONAL))))


# Parts of a syllable, and the parts that may stand behind each.
_HANGUL = {"L": ("L", "V", "LV", "LVT"), "V": ("V", "T"), "LV": ("V", "T"), "T": ("T",), "LVT": ("T",)}


def _joins_hangul(before: str, char: str) -> bool:
    return _hangul(char) in _HANGUL.get(_hangul(before), ())


def _hangul(char: str) -> str:
    code = ord(char)
    if 0xAC00 <= code <= 0xD7A3:
        return "LVT" if (code - 0xAC00) % 28 else "LV"
    if 0x1100 <= code <= 0x115F or 0xA960 <= code <= 0xA97C:
        return "L"
    if 0x1160 <= code <= 0x11A7 or 0xD7B0 <= code <= 0xD7C6:
        return "V"
    if 0x11A8 <= code <= 0x11FF or 0xD7CB <= code <= 0xD7FB:
        return "T"
    return "-"


def _is_linked(before: str, char: str) -> bool:
    """Between `char`, a letter, and the letter before it there is a sign that joins them."""
    linked = False
    for mark in reversed(before):
        if not _is_part(mark):
            return linked and unicodedata.category(mark) == "Lo" and ord(mark) >> 7 == ord(char) >> 7
        linked = linked or mark in _LINKERS
    return False
