"""Shared by the contract tests: messages, devices and waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from imd.contracts.inbox import (
    Ack,
    ConnectRequest,
    Inbox,
    InboxOptions,
    Lease,
    Leave,
    Outcome,
    Page,
    Registered,
    Submission,
)
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, decode_message, encode_message, is_visitor_id
from tests.support.servers.process import pauses

DEADLINE_SECONDS = 180.0


def submission_of(message: IMessage, *, device: str = "phone", visitor_to: str = "") -> Submission:
    """The message as it goes into `accept`."""
    return Submission(
        sender=message.user_id,
        device=device,
        client_msg_id=message.client_msg_id,
        checksum=message.checksum(),
        message_id=message.id,
        send_time=message.send_time,
        recipients=message.recipients(),
        body=encode_message(message),
        visitor_to=visitor_to,
    )


def ids_of(page: Page) -> list[str]:
    """The message ids of a page."""
    return [decode_message(body).id for _, body in page.messages]


def write_file(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def numbers_of(page: Page) -> list[int]:
    return [seq for seq, _ in page.messages]


class Writing:
    """Makes messages whose ids rise."""

    ids: MessageIds

    def message(self, sender: str, to: str = "", msg: str = "hi", **more: Any) -> IMessage:
        message_id, send_time = self.ids.next()
        visitor = is_visitor_id(sender)
        return IMessage(
            id=message_id,
            user_id=sender,
            from_user_type="VISITOR_TYPE" if visitor else "USER_TYPE",
            to=to,
            msg=msg,
            send_time=send_time,
            is_visitor=visitor,
            **more,
        )


class Waiting:
    """Waits for what may take a while."""

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again and again until the answer is true, and give it. Fails after the deadline."""
        end, turns = time.monotonic() + DEADLINE_SECONDS, pauses()
        while True:
            answer = await condition()
            if answer:
                return answer
            if time.monotonic() > end:
                raise AssertionError("the condition has not become true")
            await deferLater(reactor, next(turns))


class InboxHarness(Writing, Waiting):
    """Short words for what the tests of an inbox do over and over. A backend's tests give the hooks."""

    inbox: Inbox

    # hooks

    async def make_inbox(self, options: InboxOptions) -> Inbox:
        """A started and empty one, that the test ends."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let time go by for the backend."""
        raise NotImplementedError

    def id_clock(self) -> ServerClock:
        """The clock that ids are made by."""
        return ServerClock()

    # words

    async def begin(self, **options: Any) -> None:
        """Start with these InboxOptions."""
        self.ids = MessageIds(self.id_clock())
        self._channels = 0
        self.held: dict[tuple[str, str], tuple[str, str]] = {}
        self.inbox = await self.make_inbox(InboxOptions(**options))

    async def send(self, *messages: IMessage, device: str = "phone") -> list[Outcome]:
        return await self.inbox.accept([submission_of(message, device=device) for message in messages])

    async def send_many(self, sender: str, to: str, count: int) -> list[IMessage]:
        """So many messages, each placed."""
        messages = [self.message(sender, to, msg=f"message {n}") for n in range(count)]
        await self.send(*messages)
        return messages

    async def connect(self, user: str, device: str = "phone", **request: Any) -> Any:
        """The outcome; the channel's id is remembered for `ack`, `renew` and `leave`."""
        self._channels += 1
        channel = request.pop("channel", f"channel-{self._channels}")
        outcome = await self.inbox.connect(ConnectRequest(user, device, channel, **request))
        if isinstance(outcome, Registered):
            self.held[user, device] = (channel, outcome.page.epoch)
        return outcome

    async def ack(
        self, user: str, seq: int, device: str = "phone", *, start_confirmed: bool = False, **other: str
    ) -> Any:
        channel, epoch = self.held[user, device]
        channel, epoch = other.get("channel", channel), other.get("epoch", epoch)
        return await self.inbox.ack(Ack(user, device, channel, epoch, seq, start_confirmed))

    async def renew(
        self, user: str, device: str = "phone", *, answers: bool = False, renew: bool = True
    ) -> Any:
        channel = self.held[user, device][0]
        return await self.inbox.renew(Lease(user, device, channel, answers, renew))

    async def leave(
        self,
        user: str,
        device: str = "phone",
        seq: int = 0,
        *,
        ephemeral: bool = False,
        start_confirmed: bool = True,
    ) -> None:
        channel, epoch = self.held[user, device]
        epoch = epoch if start_confirmed else ""
        await self.inbox.leave(Leave(user, device, channel, epoch, seq, ephemeral))

    async def visit(self, user: str, device: str, seq: int, **request: Any) -> None:
        """Connect, acknowledge up to `seq`, and go."""
        await self.connect(user, device, **request)
        await self.leave(user, device, seq)

    async def read(self, user: str, after: int = 0, limit: int = 1000) -> Page:
        """The messages in the user's inbox."""
        page = await self.inbox.pull(user, "", 0, 0)
        return await self.inbox.pull(user, page.epoch, after, limit)

    async def channels_told(self, user: str) -> list[str]:
        """The channels of which `accept` says that they may be told."""
        (outcome,) = await self.send(self.message("somebody", user))
        return sorted(outcome.deliveries[0].channels)  # type: ignore[union-attr]

    # the desk

    async def agent(self, name: str, **request: Any) -> Any:
        """An agent comes online."""
        return await self.connect(name, answers_visitors=True, **request)

    async def ask(
        self, visitor: str, msg: str = "is anyone there?", to: str = ""
    ) -> tuple[IMessage, Outcome]:
        """A visitor writes to the desk."""
        message = self.message(visitor, msg=msg)
        (outcome,) = await self.inbox.accept([submission_of(message, visitor_to=to)])
        return message, outcome

    async def serve(self) -> Sequence[Any]:
        """Serve the desk until there is nothing to do."""
        found: list[Any] = []
        while True:
            deliveries = await self.inbox.serve_desk()
            if not deliveries:
                return found
            found += deliveries
