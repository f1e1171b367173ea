"""Waiting for several Deferreds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure


def together(waits: Sequence[Deferred[Any]]) -> Deferred[list[Any]]:
    """The results of all, in their order. Fails as the first does that fails, with that one's own error."""
    return gatherResults(waits, consumeErrors=True).addErrback(_own_error)


def _own_error(failure: Failure) -> Failure:
    first = failure.value
    return first.subFailure if isinstance(first, FirstError) else failure
