"""`imd chat`: which of the messages that are shown an order is about."""

from __future__ import annotations

import io
from argparse import Namespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial import unittest

from imd.client import Message, Outgoing
from imd.client.events import Accepted
from imd.client.numbered import entry_of
from imd.command import conversation as module
from imd.command.conversation import Conversation
from imd.command.output import Output
from imd.command.typed import Wrong

ROOM = "r-" + "5" * 32
OPTIONS = Namespace(
    user="alice",
    token=None,
    token_file=None,
    url="ws://127.0.0.1:1/ws",
    device=None,
    role="user",
    history=20,
    wait=0,
    seconds=5,
)


class FakeClient:
    """The inbox ends behind `inbox_has`. Orders are in `done`."""

    user_id = "alice"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.page: list[Message] = []
        self.inbox_has: list[Message] = []
        self.done: list[tuple[Any, ...]] = []

    def history(self, **asked: Any) -> Deferred[Any]:
        return succeed(Namespace(entries=self.page))

    async def inbox(self) -> Any:
        for entry in self.inbox_has:
            yield entry

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.done.append((name, *args))


def message(message_id: str, user_id: str, **fields: Any) -> Message:
    made = entry_of({"id": message_id, "userId": user_id, "msg": message_id, "sendTime": 1, **fields})
    assert isinstance(made, Message)
    return made


class OrderTests(unittest.TestCase):
    async def about(
        self, peers: list[str], *inbox: Message, history: tuple[Message, ...] = (), accepted: str = ""
    ) -> tuple[str, str]:
        """The messages that /recall and /react are about; empty for none."""
        self.patch(module, "Client", FakeClient)
        chat = Conversation(OPTIONS, peers, Output(stream=io.StringIO()), io.StringIO())
        client: Any = chat._client
        client.page, client.inbox_has = list(history), list(inbox)
        chat._interactive = bool(history)
        await chat._show_history()
        if accepted:
            chat._accepted(Accepted(Outgoing("c", "x", to=peers[0], id=accepted), accepted, 1))
        await chat._receive()
        for order in ("/recall", "/react x"):
            try:
                await chat._typed.follow(order)
            except Wrong:
                client.done.append((order, ""))
        return client.done[0][1], client.done[1][1]

    async def test_pair(self) -> None:
        """Not what one's phone writes to somebody else, nor what somebody else writes."""
        inbox = (
            message("m1", "alice", to="bob"),
            message("m2", "bob", to="alice"),
            message("m3", "alice", to="carol"),
            message("m4", "carol", to="alice"),
            message("m5", "bob", group=["alice", "carol"]),
            message("m6", "alice", group=["bob", "carol"]),
            message("m7", "bob", kind="message", room=ROOM),
            message("m8", "alice", kind="message", room=ROOM),
        )
        self.assertEqual(await self.about(["bob"], *inbox), ("m1", "m2"))
        self.assertEqual(await self.about(["dave"], *inbox), ("", ""))

    async def test_list(self) -> None:
        """A list is its members, whoever of them writes, in any order, and named twice or not."""
        inbox = (
            message("m1", "alice", group=["carol", "bob"]),
            message("m2", "bob", group=["alice", "carol", "carol"]),
            message("m3", "alice", group=["bob", "carol", "dave"]),
            message("m4", "carol", to="alice"),
            message("m5", "dave", group=["alice", "bob"]),
        )
        self.assertEqual(await self.about(["bob", "carol", "alice"], *inbox), ("m1", "m2"))

    async def test_room(self) -> None:
        inbox = (
            message("m1", "alice", kind="message", room=ROOM),
            message("m2", "bob", kind="message", room=ROOM),
            message("m3", "bob", kind="message", room="r-" + "6" * 32),
            message("m4", "alice", to="bob"),
        )
        self.assertEqual(await self.about([ROOM], *inbox), ("m1", "m2"))

    async def test_oneself(self) -> None:
        """A chat with oneself has no messages of others."""
        inbox = message("m1", "alice", to="alice"), message("m2", "bob", to="alice")
        self.assertEqual(await self.about(["alice"], *inbox), ("m1", ""))

    async def test_visitor(self) -> None:
        """The history with a visitor also has what other agents wrote to it."""
        history = message("m1", "visitor-1", isVisitor=True), message("m2", "dave", to="visitor-1")
        inbox = message("m3", "dave", to="alice"), message("m4", "visitor-2", isVisitor=True)
        self.assertEqual(await self.about(["visitor-1"], *inbox, history=history), ("", "m2"))

    async def test_newest(self) -> None:
        """A message that comes late, from before the page of history, is not the last one."""
        history = message("m5", "alice", to="bob"), message("m6", "bob", to="alice")
        inbox = message("m1", "alice", to="bob"), message("m2", "bob", to="alice")
        self.assertEqual(await self.about(["bob"], *inbox, history=history), ("m5", "m6"))
        self.assertEqual(await self.about(["bob"], *inbox, history=history, accepted="m7"), ("m7", "m6"))
