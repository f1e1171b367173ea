"""Received entries on their way to the program, which takes them one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from imd.client.events import Ended
from imd.client.numbered import Entry, Message


class Inbound:
    """A queue between the core and one loop of the program.

    Its length is bounded by the node's `ackWindow`: messages in it are not handled, so not acknowledged.
    `promise` makes a promise, `settle` keeps it with a value or an exception.
    """

    def __init__(self, promise: Callable[[], Any], settle: Callable[[Any, Any], None]) -> None:
        self._promise = promise
        self._settle = settle
        self._queue: deque[Entry] = deque()
        self._wanted: Any = None
        """the promise of the next entry, if the loop waits for one"""

    def put(self, entry: Entry) -> None:
        if self._wanted is None:
            self._queue.append(entry)
        else:
            self._keep(entry)

    def next(self, end: Ended | None) -> Any:
        """A promise of the next entry, or of the end if the client has come to one."""
        promise = self._promise()
        if self._queue:
            self._settle(promise, self._queue.popleft())
        elif end is not None:
            self._settle(promise, _last_word(end))
        else:
            self._wanted = promise
        return promise

    def end(self, end: Ended) -> None:
        """Nothing will come any more."""
        if self._wanted is not None:
            self._keep(_last_word(end))

    def _keep(self, value: Any) -> None:
        wanted, self._wanted = self._wanted, None
        self._settle(wanted, value)


def _last_word(end: Ended) -> Ended | None:
    """None ends the loop; an exception is raised in it."""
    return end if end.permanent else None


class Entries:
    """`async for entry in client.inbox()`: an entry is handled when the loop asks for the next one.

    A loop body that raises leaves its entry unhandled: it comes again after a restart. After `break`, call
    `client.handled(entry)`. The loop ends when the client is stopped; it raises Ended if the client must not
    come back.
    """

    def __init__(self, next_entry: Callable[[], Any], handled: Callable[[Entry], None]) -> None:
        self._next_entry = next_entry
        self._handled = handled
        self._last: Entry | None = None

    def __aiter__(self) -> Entries:
        return self

    async def __anext__(self) -> Entry:
        if self._last is not None:
            last, self._last = self._last, None
            self._handled(last)
        entry: Entry | None = await self._next_entry()
        if entry is None:
            raise StopAsyncIteration
        self._last = entry
        return entry


class Messages:
    """`async for message in client.messages()`: others' messages, handled as in Entries."""

    def __init__(self, next_entry: Callable[[], Any], handled: Callable[[Entry], None]) -> None:
        self._entries = Entries(next_entry, handled)

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message:
        while True:
            entry = await anext(self._entries)
            if isinstance(entry, Message) and not entry.elsewhere:
                return entry
