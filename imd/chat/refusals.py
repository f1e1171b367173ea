"""The refusal that a failed piece of work comes to, and as much of its reason as a client may know."""

from __future__ import annotations

import re

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import Refused, Unavailable, unavailable

# Of a backend's reason a client gets the name that it begins with. The rest may hold an address or a driver's
# words, which are for the log.
_NAMES = {"MongoDB": "MongoDB", "RabbitMQ": "RabbitMQ", "embedded": "SQLite", "redis": "Redis"}
_first_word = re.compile(r"\w*")


def told(reason: str) -> str:
    """A backend's reason (`Unavailable`, `Backend.problem`) in the words for a client."""
    word = _first_word.match(reason)
    return f"{_NAMES.get(word.group() if word else '', 'a store')} is not available"


def refusal_of(failure: Failure, log: Seldom, what: str, deadline_seconds: float | None = None) -> Refused:
    """Its own Refused; `unavailable` for anything else, which is logged under the text `what`.

    With a deadline, work that was cancelled had no more time.
    """
    error = failure.value
    if isinstance(error, Refused):
        return error
    if isinstance(error, CancelledError) and deadline_seconds is not None:
        reason = f"no answer within {deadline_seconds:g} seconds"
    elif isinstance(error, Unavailable):
        reason = told(str(error))
        log.warn(what + ": {reason}", reason=str(error))
    else:
        reason = "it failed"
        log.failure(what, failure)
    return unavailable(reason)
