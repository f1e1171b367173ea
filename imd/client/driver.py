"""A client but for its network: the base of both shells.

A shell adds sockets, timers and promises (asyncio's futures, Twisted's Deferreds).
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from imd.client import effects, events
from imd.client.core import Core
from imd.client.events import Event, State
from imd.client.hint import with_hint
from imd.client.inbound import Entries, Inbound, Messages
from imd.client.numbered import Entry
from imd.client.options import Options
from imd.client.outgoing import Outgoing
from imd.client.program import Program
from imd.client.store import MemoryStore, Store

_log = logging.getLogger("imd.client")

EventType = TypeVar("EventType")
Token = Callable[[], "str | Awaitable[str]"]


class Driver(Program):
    """The methods for programs, and the performance of the core's effects."""

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        store: Store | None = None,
        token: Token | None = None,
        **options: Any,
    ) -> None:
        """`url`: such as ws://host:9000/ws, or a function that is called at each connect. `token`: a function
        that gives a JWT, or an awaitable of one. `options`: the fields of imd.client.Options."""
        self._url = url
        self._token = token
        self._store = store or MemoryStore()
        self._core = Core(
            Options(has_token=token is not None, **options), self._store, self._seconds, chance=self._chance
        )
        self._listeners: list[tuple[type, Callable[[Any], object]]] = []
        self._inbound = Inbound(self._promise, self._settle)
        self._answers: dict[str, list[Any]] = {}
        """promises by clientMsgId or ref; the lists below are promises, too"""
        self._drained: list[Any] = []
        self._opened: list[Any] = []
        self._ended: list[Any] = []
        self._end: events.Ended | None = None
        self._timer: Any = None
        self._timer_at = 0.0
        self._pumping = False

    # ---- for programs

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def user_id(self) -> str | None:
        return self._core.user_id

    @property
    def device(self) -> str:
        return self._core.device

    @property
    def limits(self) -> dict[str, Any]:
        return self._core.limits

    @property
    def features(self) -> tuple[str, ...]:
        """The features of `options` that the cluster has granted; empty before the first `connected`."""
        return self._core.features

    def start(self) -> None:
        """Connect, and come back whenever the connection is lost. Needs a running reactor or event loop."""
        self._end = None
        self._core.start()
        self._pump()

    def stop(self) -> Awaitable[None]:
        """Acknowledge and close; done within 3 seconds. The outbox stays in the store."""
        self._core.stop()
        self._pump()
        return self._promise_in(self._ended, self._core.state in (State.IDLE, State.CLOSED))

    def connected(self) -> Awaitable[None]:
        """Done when the node has said `connected`. Raises Ended."""
        return self._promise_in(self._opened, self._core.state is State.OPEN)

    def drained(self) -> Awaitable[None]:
        """Done when everything in the outbox is accepted, or refused for good. Raises Ended."""
        return self._promise_in(self._drained, not self._core.outbox.waiting)

    def accepted(self, outgoing: Outgoing) -> Awaitable[events.Accepted]:
        """The node's answer to a message, also one that has come already. Raises Refused or Ended."""
        promise = self._promise()
        if outgoing.state == "accepted":
            self._settle(promise, events.Accepted(outgoing, outgoing.id, outgoing.send_time))
        elif outgoing.state == "failed" and outgoing.error is not None:
            self._settle(promise, events.Refused(outgoing.error))
        elif self._end is not None:
            self._settle(promise, self._end)
        else:
            self._answers.setdefault(outgoing.client_msg_id, []).append(promise)
        return promise

    def messages(self) -> Messages:
        """Received messages of others, for one `async for`. Everything else is passed over."""
        return Messages(self._next_entry, self.handled)

    def inbox(self) -> Entries:
        """All that the inbox brings, for one `async for`: imd.client.Entry.

        Besides others' messages: edits, recalls, reactions, changes of rooms, and one's own messages from
        other devices (`elsewhere`).
        """
        return Entries(self._next_entry, self.handled)

    def handled(self, entry: Entry) -> None:
        """The program is done with what it took from `messages` or `inbox`."""
        self._core.handled(entry.id)
        self._pump()

    def on(self, kind: type[EventType], listener: Callable[[EventType], object]) -> Callable[[], None]:
        """Call `listener` with each event of a class of imd.client. Gives a function that ends this."""
        entry = (kind, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    # ---- for the shell

    def _opened_socket(self, connection: int) -> None:
        self._core.opened(connection)
        self._pump()

    def _received(self, connection: int, text: bytes) -> None:
        self._core.received(connection, text)
        self._pump()

    def _closed_socket(self, connection: int, code: int | None, reason: str) -> None:
        self._core.closed(connection, code, reason)
        self._pump()

    def _token_given(self, token: object) -> None:
        if isinstance(token, str) and token:
            self._core.token_given(token)
        else:
            self._core.token_failed("there is none")
        self._pump()

    def _token_failed(self, error: BaseException) -> None:
        self._core.token_failed(f"{type(error).__name__}: {error}")
        self._pump()

    def _place(self) -> str:
        return with_hint(self._url if isinstance(self._url, str) else self._url(), self._core.hint)

    @abstractmethod
    def _seconds(self) -> float: ...

    @staticmethod
    @abstractmethod
    def _chance() -> float: ...

    @abstractmethod
    def _call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        """Something with `cancel`."""

    @abstractmethod
    def _promise(self) -> Any: ...

    @abstractmethod
    def _settle(self, promise: Any, value: Any) -> None:
        """Keep a promise with a value or an exception; one that was kept or cancelled is left alone."""

    @abstractmethod
    def _ask_token(self, ask: Token) -> None: ...

    @abstractmethod
    def _dial(self, connection: int) -> None: ...

    @abstractmethod
    def _transmit(self, text: str) -> None: ...

    @abstractmethod
    def _hang_up(self) -> None: ...

    @abstractmethod
    def _drop(self) -> None:
        """Give up the socket, or the attempt to get one."""

    # ---- from within

    def _promise_in(self, waiting: list[Any], already: bool) -> Any:
        promise = self._promise()
        if already:
            self._settle(promise, None)
        elif self._end is not None and waiting is not self._ended:
            self._settle(promise, self._end)
        else:
            waiting.append(promise)
        return promise

    def _next_entry(self) -> Any:
        return self._inbound.next(self._end)

    def _ask(self, kind: str, **fields: Any) -> Any:
        promise = self._promise()
        if self._end is not None:
            self._settle(promise, self._end)
            return promise
        self._answers[self._core.ask(kind, **fields)] = [promise]
        self._pump()
        return promise

    def _pump(self) -> None:
        """Perform the core's effects. When a listener calls back, the loop that is running performs them."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while todo := self._core.effects():
                for effect in todo:
                    self._perform(effect)
        finally:
            self._pumping = False
        deadline = self._core.deadline()
        if self._timer is not None:
            # A timer that fires early does no harm; a new one for each frame would cost.
            if deadline is not None and self._timer_at <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            self._timer = self._call_later(max(0.0, deadline - self._seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick()
        self._pump()

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Transmit(text):
                self._transmit(text)
            case effects.Deliver(entry):
                self._inbound.put(entry)
            case effects.Emit(event):
                self._happened(event)
            case effects.Answer(ref, result):
                self._answer(ref, result)
            case effects.Dial(connection):
                self._dial(connection)
            case effects.AskToken():
                assert self._token is not None
                self._ask_token(self._token)
            case effects.HangUp():
                self._hang_up()
            case effects.Drop():
                self._drop()

    def _happened(self, event: Event) -> None:
        for kind, listener in list(self._listeners):
            if isinstance(event, kind):
                try:
                    listener(event)
                except Exception:
                    _log.exception("a listener failed")
        match event:
            case events.Accepted(outgoing):
                self._answer(outgoing.client_msg_id, event)
                self._look_if_drained()
            case events.Failed(outgoing, refusal):
                self._answer(outgoing.client_msg_id, events.Refused(refusal))
                self._look_if_drained()
            case events.StateChanged(State.OPEN):
                self._keep(self._opened, None)
            case events.StateChanged(State.CLOSED, code, reason):
                self._ends(events.Ended(code, reason, event.permanent))

    def _ends(self, end: events.Ended) -> None:
        self._end = end
        for promises in [self._drained, self._opened, *self._answers.values()]:
            self._keep(promises, end)
        self._answers.clear()
        self._inbound.end(end)
        self._keep(self._ended, None)

    def _look_if_drained(self) -> None:
        if not self._core.outbox.waiting:
            self._keep(self._drained, None)

    def _answer(self, key: str, value: Any) -> None:
        self._keep(self._answers.pop(key, []), value)

    def _keep(self, promises: list[Any], value: Any) -> None:
        kept, promises[:] = list(promises), []
        for promise in kept:
            self._settle(promise, value)
