"""Why MongoDB refuses, in words."""

from __future__ import annotations

from pymongo.errors import OperationFailure

from imd.protocol.errors import ConfigurationError, Unavailable
from imd.store.reasons import one_line

MAX_TEXT = 200


def describe(error: BaseException) -> str:
    """An error in a line. It never shows a document: of a server's answer there is only the code."""
    if isinstance(error, OperationFailure):
        return f"{type(error).__name__}: code {error.code}"
    if isinstance(error, (ConfigurationError, Unavailable)):
        return str(error)
    return one_line(error, MAX_TEXT)


def plain_reason(described: str) -> str:
    """The text of `describe`, behind a word for it."""
    if "SSL: " in described or "certificate" in described:
        word = "tls"
    elif described.startswith("OperationFailure"):
        # An answer, so the server is up.
        word = "refused"
    else:
        word = "down"
    return f"{word} ({described})"
