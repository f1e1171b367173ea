"""Running something on Twisted's reactor from a command: once in a process."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.python.failure import Failure

from imd.wire.twisted_internals import use_monotonic_clock


def run_on_reactor(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine; returns or raises its result.

    Raises KeyboardInterrupt when the reactor was told to stop first.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    use_monotonic_clock(reactor)
    results: list[Any] = []
    interrupted = False

    def stopping() -> None:
        # The work may end yet, while it is tidied away: that is not its result.
        nonlocal interrupted
        interrupted = not results

    def ended(result: Any) -> None:
        results.append(result)
        if reactor.running:
            reactor.stop()

    reactor.callWhenRunning(lambda: ensureDeferred(work()).addBoth(ended))
    reactor.addSystemEventTrigger("before", "shutdown", stopping)
    reactor.run()
    if interrupted:
        raise KeyboardInterrupt
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]
