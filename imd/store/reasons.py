"""Why a server or a file refuses, in words for an operator. All stores share these functions.

The first word of each reason stays the same, so that alerts can go by it.
"""

from __future__ import annotations

from collections.abc import Mapping


def plain(words: Mapping[str, str], error: str, name: str | None = None) -> str:
    """`error` behind the words for it; `error` alone if there are none.

    The words are those of the first key that `name` begins with, or `error` if there is no name.
    """
    known_by = error if name is None else name
    for begins, said in words.items():
        if known_by.startswith(begins):
            return f"{said} ({error})"
    return error


def one_line(error: BaseException, most: int) -> str:
    """An error's kind, and the beginning of its text: `most` characters in all."""
    return f"{type(error).__name__}: {error}"[:most]
