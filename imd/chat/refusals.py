"""The refusal that a failed piece of work comes to."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import UNAVAILABLE, Refused, Unavailable


def refusal_of(failure: Failure, log: Seldom, what: str, deadline_seconds: float | None = None) -> Refused:
    """Its own Refused; `unavailable` for anything else. The unexpected is logged under the text `what`.

    With a deadline, work that was cancelled had no more time.
    """
    error = failure.value
    if isinstance(error, Refused):
        return error
    reason = failure.getErrorMessage()
    if isinstance(error, CancelledError) and deadline_seconds is not None:
        reason = f"no answer within {deadline_seconds:g} seconds"
    elif not isinstance(error, Unavailable):
        log.failure(what, failure)
    return Refused(UNAVAILABLE, reason, retry_after_ms=1000)
