"""The chat itself, on Twisted's reactor: history first, then messages as they come and go."""

from __future__ import annotations

import time
from typing import Any, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from imd.client import Ended, Failed, Gap, Message, OutboxFull, State, StateChanged
from imd.client.twisted import Client
from imd.command.lines import Lines
from imd.command.output import Output, harmless
from imd.protocol.errors import ConfigurationError

COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
TYPING = 100
"""messages of a pipe that may wait to be accepted"""


class Conversation:
    """`input` is the terminal or a pipe."""

    def __init__(self, options: Any, peers: list[str], output: Output, input: TextIO) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._options = options
        self._peers = peers
        self._output = output
        self._interactive = input.isatty() and output.terminal
        self._lines = Lines(reactor, output, input, self._interactive, self._send, self._input_ended)
        self._shown: set[str] = set()
        self._newest = ""
        """the id of the newest message that was shown as history"""
        self._failed = 0
        self._end: Deferred[None] = Deferred()
        """the input has ended"""
        self._interrupted = False
        self._trouble = ""
        """why there is no connection; empty while there is one"""
        token = self._token if options.token or options.token_file else None
        self._client = Client(
            options.url,
            user_id=options.user,
            token=token,
            device=options.device,
            login_type="CUSTOMER_TYPE" if options.role == "customer" else "USER_TYPE",
            customer_service=options.role == "agent",
            max_outbox=TYPING,
        )

    def _token(self) -> str:
        if self._options.token_file is not None:
            return str(self._options.token_file.read_text()).strip()
        return str(self._options.token)

    async def run(self) -> int:
        client = self._client
        client.on(StateChanged, self._state_changed)
        client.on(Failed, self._message_failed)
        client.on(Gap, lambda _: self._note("some messages may be missing here; the history has them"))
        # However the chat ends, the client acknowledges what was shown, and waits for no broken connection.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        client.start()
        try:
            await self._in_time(client.connected())
            await self._show_history()
            receiving = self._receive()
            self._lines.start()
            await self._end
            await self._in_time(client.drained())
            if self._options.wait:
                await deferLater(self._reactor, self._options.wait, lambda: None)
            await client.stop()
            await receiving
        except TimeoutError:
            why = f" ({self._trouble})" if self._trouble else ""
            self._output.problem(f"{self._options.url}: not within {self._options.seconds:g} s{why}")
            return 2
        except Ended as ended:
            if not self._interrupted:
                self._output.problem(f"{self._options.url}: {ended}")
            return 2
        finally:
            await client.stop()
        return 1 if self._failed else 0

    def _stop(self) -> Any:
        self._interrupted = True
        return self._client.stop()

    def _in_time(self, waiting: Any) -> Deferred[Any]:
        """A wait with a deadline in a pipe. In a terminal the user sees it, and may end it."""
        if self._interactive:
            return waiting

        def too_late(result: object, seconds: float) -> None:
            raise TimeoutError

        return waiting.addTimeout(self._options.seconds, self._reactor, onTimeoutCancel=too_late)

    # from the client

    async def _show_history(self) -> None:
        if not self._options.history or not (self._interactive or self._options.wait or self._output.as_json):
            return
        peers = self._peers
        asked: dict[str, Any] = {"group": peers} if len(peers) > 1 else {"with_": peers[0]}
        page = await self._client.history(**asked, limit=self._options.history)
        for message in page.messages:
            self._show(message)
            self._newest = message.id

    def _receive(self) -> Deferred[None]:
        async def receive() -> None:
            async for message in self._client.messages():
                if message.id not in self._shown:
                    self._show(message)

        return Deferred.fromCoroutine(receive()).addErrback(self._over)

    def _over(self, failure: Any) -> None:
        """Told not to come back: there is nothing to wait for any more."""
        if not self._end.called:
            self._end.errback(failure)

    def _show(self, message: Message) -> None:
        self._shown.add(message.id)
        if self._output.as_json:
            self._output.value({name: getattr(message, name) for name in Message.__slots__})
            return
        at = time.localtime(message.send_time / 1000)
        today = time.strftime("%F", at) == time.strftime("%F")
        when = time.strftime("%H:%M" if today else "%F %H:%M", at)
        if message.id < self._newest and message.seq is not None:
            # From before the page of history, and not seen yet: ids rise with time.
            when = f"earlier, {when}"
        mine = message.user_id == self._client.user_id
        style = "dim" if mine else COLOURS[sum(message.user_id.encode()) % len(COLOURS)]
        if message.group:
            where = f" to {', '.join(message.group)}"
        else:
            where = "" if mine or message.user_id in self._peers else " (another conversation)"
        self._lines.say_above(f"{when} {harmless(message.user_id + where)}: {harmless(message.msg)}", style)

    def _state_changed(self, event: StateChanged) -> None:
        if event.state is State.WAITING:
            known = self._trouble
            self._trouble = harmless(event.reason or f"closed with {event.code}")
            if not known:
                # Said once, and not at each attempt.
                self._note(f"no connection ({self._trouble}); it is tried again, and what is typed is kept")
        elif event.state is State.OPEN:
            self._trouble = ""
            self._note(f"{self._client.user_id} at {self._options.url}")

    def _message_failed(self, event: Failed) -> None:
        self._failed += 1
        self._client.cancel(event.outgoing)
        self._output.problem(
            f"not accepted ({event.refusal.code}: {event.refusal.reason}): {event.outgoing.msg[:60]}"
        )

    def _note(self, text: str) -> None:
        if self._interactive:
            self._lines.say_above(f"-- {text}", "dim italic")

    # from its lines

    async def _queue(self, line: str) -> None:
        to, group = ("", self._peers) if len(self._peers) > 1 else (self._peers[0], [])
        while True:
            try:
                self._client.send(line, to=to, group=group)
                return
            except OutboxFull:
                await self._client.drained()

    def _send(self, line: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._queue(line))

    def _input_ended(self, error: Exception | None) -> None:
        if self._end.called:
            return
        if error is None:
            self._end.callback(None)
        elif isinstance(error, Ended):
            self._end.errback(error)
        else:
            self._end.errback(ConfigurationError(f"the input: {error}"))
