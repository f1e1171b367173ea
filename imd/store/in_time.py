"""A deadline for an operation of several steps on several servers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable


def in_time(reactor: Any, seconds: float, work: Any, name: str, seldom: Seldom) -> Deferred[Any]:
    """The result of a coroutine or Deferred, or Unavailable after so many seconds; the work goes on.

    Any other failure becomes Unavailable, and is logged. `name`: of the part, for the texts.
    """
    done = ensureDeferred(work) if not isinstance(work, Deferred) else work
    answer: Deferred[Any] = Deferred()

    def over(result: Any) -> None:
        if not answer.called:
            if isinstance(result, Failure) and result.check(Unavailable) is None:
                seldom.failure(f"{name}: an operation failed", result)
                result = Failure(Unavailable(f"{name}: an operation failed"))
            answer.callback(result)

    bound(reactor, seconds, answer, name)
    done.addBoth(over)
    return answer


def bound(reactor: Any, seconds: float, answer: Deferred[Any], name: str) -> None:
    """Have `answer` fail with Unavailable if it has not fired after so many seconds; it is `called` then."""

    def late(result: object, _: float) -> Failure:
        return Failure(Unavailable(f"{name}: no answer within {seconds:g} s"))

    answer.addTimeout(seconds, reactor, late)
