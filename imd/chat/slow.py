"""Frames whose answer takes another store's word: they hold up their connection's later frames, briefly."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.batch import Entry, Refusal
from imd.chat.refusals import refusal_of
from imd.contracts.timer import Cancellable
from imd.observe.seldom import Seldom

SLOW_SECONDS = 2.0

_log = Seldom(Logger())


class Holder(Protocol):
    """The part of a connection that a slow frame needs."""

    def hold(self) -> Callable[[], None]:
        """Later frames wait until the function that this returns is called."""

    def submit(self, entry: Entry) -> None:
        """Have a frame answered in its turn."""


def answer_slowly(
    holder: Holder,
    call_later: Callable[..., Cancellable],
    client_msg_id: str | None,
    work: Coroutine[Any, Any, Entry],
) -> None:
    """Submit the entry that `work` returns, then let the later frames pass.

    `work` may raise Refused, or Unavailable. After SLOW_SECONDS it is cancelled: a CancelledError is raised
    where it waits, and the answer is `unavailable`.
    """
    release = holder.hold()
    done: Deferred[Entry] = Deferred.fromCoroutine(work)
    deadline = call_later(SLOW_SECONDS, done.cancel)

    def refusal(failure: Failure) -> Entry:
        refused = refusal_of(failure, _log, "a frame could not be answered", SLOW_SECONDS)
        return Refusal(holder, client_msg_id, refused)

    def answer(entry: Entry) -> None:
        if deadline.active():
            deadline.cancel()
        holder.submit(entry)

    def let_go(result: Any) -> Any:
        release()
        return result

    done.addErrback(refusal).addCallback(answer).addBoth(let_go)
    done.addErrback(lambda failure: _log.failure("a frame was not answered", failure))
