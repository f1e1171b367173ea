"""A client but for its network: the base of both shells.

A shell adds sockets, timers and promises (asyncio's futures, Twisted's Deferreds).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from imd.client import effects, events
from imd.client.core import Core
from imd.client.events import Event, Message, Outgoing, Page, State
from imd.client.hint import with_hint
from imd.client.inbound import Inbound, Messages
from imd.client.options import Options
from imd.client.store import MemoryStore, Store

_log = logging.getLogger("imd.client")

EventType = TypeVar("EventType")
Token = Callable[[], "str | Awaitable[str]"]


class Driver(ABC):
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
    def outbox(self) -> tuple[Outgoing, ...]:
        return self._core.outbox.all

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

    def send(
        self,
        msg: str,
        *,
        to: str = "",
        group: Sequence[str] = (),
        content_type: str | None = None,
        client_msg_id: str | None = None,
    ) -> Outgoing:
        """Queue a message, to be sent until the node has accepted it or refused it for good.

        Raises OutboxFull, or ValueError for a message that no node would take.
        """
        outgoing = self._core.send(msg, to, group, content_type, client_msg_id)
        self._pump()
        return outgoing

    def reply(self, message: Message, msg: str, content_type: str | None = None) -> Outgoing:
        """Answer the sender of a message, or its group."""
        outgoing = self._core.reply(message, msg, content_type)
        self._pump()
        return outgoing

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

    def cancel(self, outgoing: Outgoing) -> bool:
        """Forget a message that failed or was never sent; False for any other."""
        return self._core.cancel(outgoing.client_msg_id)

    def retry(self, outgoing: Outgoing) -> bool:
        """Send a failed message again, as the last of the outbox."""
        done = self._core.retry(outgoing.client_msg_id)
        self._pump()
        return done

    def history(
        self,
        with_: str | None = None,
        *,
        group: Sequence[str] | None = None,
        everything: bool = False,
        before: str | None = None,
        limit: int = 50,
    ) -> Awaitable[Page]:
        """The newest messages of a conversation before a message id. Raises Refused, Unanswered or Ended."""
        promise = self._promise()
        if self._end is not None:
            self._settle(promise, self._end)
            return promise
        ref = self._core.ask_history(with_, group, everything, before, limit)
        self._answers[ref] = [promise]
        self._pump()
        return promise

    def messages(self) -> Messages:
        """Received messages, for one `async for`."""
        return Messages(self._next_message, self.handled)

    def handled(self, message: Message) -> None:
        """The program is done with a message that it took from `messages`."""
        self._core.handled(message.id)
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

    def _next_message(self) -> Any:
        return self._inbound.next(self._end)

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
            case effects.Deliver(message):
                self._inbound.put(message)
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
