"""The chat itself, on Twisted's reactor: history first, then messages as they come and go."""

from __future__ import annotations

import re
from typing import Any, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from imd.client import (
    Accepted,
    ClientError,
    Ended,
    Entry,
    Failed,
    Gap,
    Message,
    OutboxFull,
    RoomEvent,
    State,
    StateChanged,
    View,
)
from imd.client.conversation import named, of_message
from imd.client.twisted import Client
from imd.command.entries import as_json, clock, colour, in_words
from imd.command.lines import Lines
from imd.command.output import Output, harmless
from imd.command.typed import Typed, Wrong
from imd.protocol.errors import ConfigurationError

ROOM = re.compile(r"r-[0-9a-f]{32}")
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
        self._room = peers[0] if len(peers) == 1 and ROOM.fullmatch(peers[0]) else ""
        self._view = View(options.user or "")
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
        self._typed = Typed(self._client, self._room, self._note)

    def _token(self) -> str:
        if self._options.token_file is not None:
            return str(self._options.token_file.read_text()).strip()
        return str(self._options.token)

    async def run(self) -> int:
        client = self._client
        client.on(StateChanged, self._state_changed)
        client.on(Failed, self._entry_failed)
        client.on(Accepted, self._accepted)
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
        if self._room:
            asked = {"room": self._room}
        page = await self._client.history(**asked, limit=self._options.history)
        for entry in page.entries:
            if isinstance(entry, Message):
                self._typed.noticed(entry)
            self._show(entry)
            self._newest = entry.id

    def _receive(self) -> Deferred[None]:
        async def receive() -> None:
            async for entry in self._client.inbox():
                if entry.id not in self._shown:
                    # The inbox is that of all conversations, and an order is about this one.
                    if isinstance(entry, Message) and self._is_here(entry):
                        self._typed.noticed(entry)
                    self._show(entry)

        return Deferred.fromCoroutine(receive()).addErrback(self._over)

    def _over(self, failure: Any) -> None:
        """Told not to come back: there is nothing to wait for any more."""
        if not self._end.called:
            self._end.errback(failure)

    def _show(self, entry: Entry) -> None:
        self._shown.add(entry.id)
        self._view.put(entry)
        if self._output.as_json:
            self._output.value(as_json(entry))
            return
        when = clock(entry.send_time)
        if entry.id < self._newest and entry.seq is not None:
            # From before the page of history, and not seen yet: ids rise with time.
            when = f"earlier, {when}"
        said = in_words(entry, self._view, self._where(entry))
        self._lines.say_above(f"{when} {said}", colour(entry, self._client.user_id))

    def _is_here(self, message: Message) -> bool:
        """True for a message of this conversation."""
        me = self._client.user_id or ""
        other, several = (self._peers[0], []) if len(self._peers) == 1 else ("", self._peers)
        return of_message(message, me, False) == named(other, several, self._room, me)

    def _where(self, entry: Entry) -> str:
        """The conversation, unless it is this one."""
        if entry.room or self._room:
            return "" if entry.room == self._room else f" (in {entry.room or 'another conversation'})"
        if isinstance(entry, RoomEvent):
            return ""
        if entry.group:
            return f" to {', '.join(entry.group)}"
        if entry.user_id == self._client.user_id:
            return "" if not entry.to or entry.to in self._peers else f" to {entry.to}"
        return "" if entry.user_id in self._peers else " (another conversation)"

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

    def _accepted(self, event: Accepted) -> None:
        self._view.accepted(event, self._client.user_id or "")
        if not event.outgoing.kind:
            self._typed.noticed(event.outgoing)
        self._typed.made(event.outgoing)

    def _entry_failed(self, event: Failed) -> None:
        self._failed += 1
        outgoing = event.outgoing
        self._client.cancel(outgoing)
        said = outgoing.msg[:60] or outgoing.action or outgoing.kind
        self._output.problem(f"not accepted ({event.refusal.code}: {event.refusal.reason}): {said}")

    def _note(self, text: str) -> None:
        if self._interactive:
            self._lines.say_above(f"-- {text}", "dim italic")

    # from its lines

    async def _queue(self, line: str) -> None:
        reply_to = None
        if self._interactive and line.startswith("/"):
            try:
                text, reply_to = self._typed.split(line)
                if not text:
                    await self._typed.follow(line)
            except (Wrong, ValueError, ClientError) as error:
                text = ""
                self._note(str(error))
            line = text
        while line:
            try:
                self._client.send(line, reply_to=reply_to, **self._recipients)
                return
            except OutboxFull:
                await self._client.drained()

    @property
    def _recipients(self) -> dict[str, Any]:
        if self._room:
            return {"room": self._room}
        return {"group": self._peers} if len(self._peers) > 1 else {"to": self._peers[0]}

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
