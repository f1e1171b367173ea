"""Both shells on a real node: rooms, one's own devices, and what messages carry."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.client import (
    Accepted,
    Edit,
    Member,
    Message,
    Reaction,
    Recall,
    Refused,
    RoomEvent,
    RoomsView,
    View,
)
from imd.client.asyncio import Client as AsyncioClient
from imd.client.twisted import Client as TwistedClient
from tests.support.nodes import NodeServer

SECONDS = 180
QUICK = {"min_backoff": 0.05, "max_backoff": 0.5}


async def take(client: Any, count: int) -> list[Any]:
    """Take the next entries of the inbox and handle them."""
    found = []
    async for entry in client.inbox():
        found.append(entry)
        if len(found) == count:
            client.handled(entry)
            break
    return found


async def started(make: Any, node: NodeServer, user: str, device: str = "d") -> Any:
    client = make(node.url, user_id=user, device=device, **QUICK)
    client.start()
    await client.connected()
    return client


async def rooms(make: Any, node: NodeServer) -> None:
    """A room is made, written in and changed; a refusal names its reason."""
    alice, bob = [await started(make, node, f"{name}-{make.__module__}") for name in ("alice", "bob")]
    made = await alice.accepted(alice.rooms.create("Weekend", bob.user_id, data={"a": 1}))
    room = made.outgoing.room
    assert (room[:2], made.outgoing.version, made.outgoing.changed) == ("r-", 1, True), made
    said = await alice.accepted(alice.send("hi", room=room, mentions=[bob.user_id], data={"b": [2]}))
    event, message = await take(bob, 2)
    assert isinstance(event, RoomEvent) and isinstance(message, Message)
    assert (event.action, event.name, event.data, event.users) == (
        "create",
        "Weekend",
        {"a": 1},
        (Member(bob.user_id, "member"),),
    ), event
    assert (message.id, message.room, message.data) == (said.id, room, {"b": [2]}), message
    answer = bob.reply(message, "yes", quote=True)
    await bob.accepted(answer)
    [reply] = await take(alice, 1)
    assert (reply.room, reply.reply_to, reply.msg) == (room, said.id, "yes"), reply
    page = await bob.rooms.list()
    view = RoomsView(bob.user_id)
    view.apply(event)
    [listed] = page.rooms
    assert view.get(room) == listed, (view.get(room), listed)
    members = await bob.rooms.members(room)
    assert members.users == [Member(alice.user_id, "owner"), Member(bob.user_id)], members
    try:
        await bob.accepted(bob.rooms.set(room, name="mine"))
        raise AssertionError("a member may not")
    except Refused as refused:
        assert refused.refusal.code == "forbidden", refused
    again = await alice.accepted(alice.rooms.add(room, [bob.user_id]))
    assert (again.id, again.outgoing.changed) == ("", False), again
    await alice.stop()
    await bob.stop()


async def devices(make: Any, node: NodeServer) -> None:
    """Another device gets what one sends, once; a bot that takes `messages()` does not answer itself."""
    user = f"carol-{make.__module__}"
    phone, laptop = [await started(make, node, user, device) for device in ("phone", "laptop")]
    dave = await started(make, node, f"dave-{make.__module__}")
    view = View()
    phone.on(object, lambda event: view.accepted(event, user) if hasattr(event, "outgoing") else None)
    sent = await phone.accepted(phone.send("one", to=dave.user_id))
    [copy] = await take(laptop, 1)
    assert (copy.id, copy.elsewhere, copy.to) == (sent.id, True, dave.user_id), copy
    shown = view.get(sent.id)
    assert shown is not None and shown.msg == "one"
    dave.send("two", to=user)
    async for message in laptop.messages():
        assert message.msg == "two", message
        break
    [message] = await take(phone, 1)
    assert (message.msg, message.elsewhere) == ("two", False), message
    for client in (phone, laptop, dave):
        await client.stop()


async def changes(make: Any, node: NodeServer) -> None:
    """An edit, a recall and reactions: views of both sides are what the history shows."""
    erin, frank = [await started(make, node, f"{name}-{make.__module__}") for name in ("erin", "frank")]
    views = {erin: View(), frank: View()}
    for client, view in views.items():
        user = client.user_id
        client.on(Accepted, lambda event, view=view, user=user: view.accepted(event, user))
    first = erin.send("one", to=frank.user_id)
    second = erin.send("two", to=frank.user_id)
    await erin.accepted(second)
    # Queued at once: the archive may not have the messages yet.
    erin.edit(first, "ONE")
    erin.edit(first, "One!")
    erin.recall(second)
    erin.react(first, "👍")
    await erin.drained()
    frank.react(first.id, "👍")
    frank.react(first.id, "🎉")
    await frank.accepted(frank.react(first.id, "🎉", on=False))
    for client, count in ((erin, 3), (frank, 6)):
        for entry in await take(client, count):
            views[client].put(entry)
    end = time.monotonic() + SECONDS
    while True:
        page = await frank.history(erin.user_id)
        shown = [looks(message) for message in page.messages]
        if all([looks(message) for message in view.messages] == shown for view in views.values()):
            break
        assert time.monotonic() < end, (shown, [view.messages for view in views.values()])
    assert [each[:2] for each in shown] == [(first.id, "One!"), (second.id, "")], shown
    assert shown[1][2], shown
    found = await frank.changes(erin.user_id)
    # The second edit waits for the answer to the first; the recall, of another message, does not.
    kinds = Counter(type(event) for event in found.events)
    assert kinds == {Edit: 2, Recall: 1, Reaction: 4}, kinds
    assert found.events == sorted(found.events, key=lambda event: event.id), found
    for outgoing, code in ((frank.edit(first.id, "mine"), "forbidden"), (erin.edit(second, "x"), "conflict")):
        try:
            await (frank if code == "forbidden" else erin).accepted(outgoing)
            raise AssertionError(code)
        except Refused as refused:
            assert refused.refusal.code == code, refused
    assert [message.msg for message in await frank.fetch([first.id, second.id])] == ["One!", ""]
    await erin.stop()
    await frank.stop()


def looks(message: Message) -> tuple[object, ...]:
    edited = message.edited and message.edited.id
    return message.id, message.msg, message.recalled, edited, message.reactions


class MessengerTests(unittest.TestCase):
    timeout = 5 * SECONDS

    async def both(self, story: Callable[..., Any]) -> None:
        node = NodeServer(Path.cwd() / self.mktemp(), {})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        await story(TwistedClient, node)
        await self.in_asyncio(story, node)

    def in_asyncio(self, story: Callable[..., Any], node: NodeServer) -> Deferred[None]:
        async def bounded() -> None:
            async with asyncio.timeout(SECONDS):
                await story(AsyncioClient, node)

        return deferToThread(asyncio.run, bounded())

    async def test_rooms(self) -> None:
        await self.both(rooms)

    async def test_changes(self) -> None:
        await self.both(changes)

    async def test_devices(self) -> None:
        await self.both(devices)
